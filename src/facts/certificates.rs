//! Which hosts have a certificate that Prosody finds by itself in its `certificates` directory.
//!
//! The rules are those of Prosody's `core/certmanager.lua` (the same in 0.12.3 and 13.0.1): a file's name gives the
//! host, or else a certificate that lies up to three levels deep has the host among its names; and what has no
//! certificate of its own is given that of its parent domain, and so on upwards.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, DirEntry, File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::iter;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use time::OffsetDateTime;
use x509_parser::prelude::{ASN1Time, GeneralName, parse_x509_pem};

/// How deep Prosody looks for certificates, the directory itself being the first level.
const DEPTH: usize = 3;

/// A file of certificates that is larger is not read: the longest chains have some 20 kB.
const MAX_SIZE: u64 = 1024 * 1024;

/// Tells for each host, in their order, whether Prosody finds a certificate for it.
///
/// `directory` is the option `certificates`: a directory, or the file of one certificate, which then serves every
/// host. `hosts` are written as they are rendered, in Unicode. Certificates are opened only where the names of the
/// files leave a host without; expired ones do not count. An absent directory has none; one that cannot be read is an error.
pub fn find(directory: &Path, hosts: &[&str], now: OffsetDateTime) -> io::Result<Vec<bool>> {
    let by_file_name = match hosts_by_file_name(directory) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(vec![false; hosts.len()]);
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            let has_key = is_file(&key_of_single_file(directory));
            return Ok(vec![has_key; hosts.len()]);
        }
        Err(error) => return Err(error),
    };
    let mut found: Vec<bool> =
        hosts.iter().map(|host| with_parents(host).any(|name| by_file_name.contains(name))).collect();

    if found.contains(&false) {
        let mut index = HashSet::new();
        index_directory(directory, DEPTH, now, &mut index);
        if !index.is_empty() {
            for (found, host) in found.iter_mut().zip(hosts) {
                *found = *found || with_parents(host).any(|name| is_in_index(&index, name));
            }
        }
    }
    Ok(found)
}

/// A number for each file in a certificate directory that is another one when the file is (its inode, size and times; a
/// link's target's). What cannot be looked at is left out.
pub fn fingerprints(directory: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut add = |path: PathBuf, metadata: Option<&Metadata>| {
        if let Some(metadata) = metadata.filter(|metadata| metadata.is_file()) {
            let mut hasher = DefaultHasher::new();
            (metadata.ino(), metadata.len(), metadata.ctime(), metadata.ctime_nsec()).hash(&mut hasher);
            found.push((path, hasher.finish()));
        }
    };
    // Of a directory both are the same, and no file.
    for file in [directory.to_owned(), key_of_single_file(directory)] {
        let metadata = fs::metadata(&file).ok();
        add(file, metadata.as_ref());
    }
    for_each_entry(directory, DEPTH, &mut |entry, metadata| add(entry.path(), metadata));
    found.sort();
    found.dedup();
    found
}

/// What to watch so as to see that certificates in a directory change: it, its folders, and the links in them. It may
/// also be one file.
pub fn watched(directory: &Path) -> Vec<PathBuf> {
    let mut found = vec![directory.to_owned(), key_of_single_file(directory)];
    for_each_entry(directory, DEPTH, &mut |entry, metadata| {
        let is_link = || entry.file_type().is_ok_and(|kind| kind.is_symlink());
        if metadata.is_some_and(Metadata::is_dir) || is_link() {
            found.push(entry.path());
        }
    });
    found
}

/// Shows everything in a directory and its folders, as far as Prosody looks, with what is known of it: of a link, of what
/// it leads to, if that is there.
fn for_each_entry(directory: &Path, depth: usize, show: &mut dyn FnMut(&DirEntry, Option<&Metadata>)) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let metadata = fs::metadata(&path).ok();
        if !metadata.as_ref().is_some_and(Metadata::is_dir) {
            show(&entry, metadata.as_ref());
        } else if depth > 1 && !entry.file_name().as_bytes().starts_with(b".") {
            show(&entry, metadata.as_ref());
            for_each_entry(&path, depth - 1, show);
        }
    }
}

/// A host and the domains above it: `a.b.c`, `b.c`, `c`.
fn with_parents(host: &str) -> impl Iterator<Item = &str> {
    iter::successors(Some(host), |name| {
        let (_, parent) = name.split_once('.')?;
        (!parent.is_empty()).then_some(parent)
    })
}

/// The hosts for which the directory has `HOST.crt` with `HOST.key`, `HOST/fullchain.pem` with
/// `HOST/privkey.pem`, or `HOST.pem`.
fn hosts_by_file_name(directory: &Path) -> io::Result<HashSet<String>> {
    let mut hosts = HashSet::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (name, path) = (entry.file_name(), entry.path());
        let Some(name) = name.to_str() else { continue };
        if let Some(host) = name.strip_suffix(".crt") {
            if is_file(&path) && is_file(&path.with_extension("key")) {
                hosts.insert(host.to_owned());
            }
        } else if let Some(host) = name.strip_suffix(".pem") {
            if is_file(&path) {
                hosts.insert(host.to_owned());
            }
        }
        let is_regular = entry.file_type().is_ok_and(|file_type| file_type.is_file());
        if !is_regular && is_file(&path.join("fullchain.pem")) && is_file(&path.join("privkey.pem")) {
            hosts.insert(name.to_owned());
        }
    }
    Ok(hosts)
}

/// Where Prosody expects the key of a certificate that `certificates` names directly.
fn key_of_single_file(certificate: &Path) -> PathBuf {
    if certificate.extension() == Some(OsStr::new("crt")) {
        certificate.with_extension("key")
    } else if certificate.file_name() == Some(OsStr::new("fullchain.pem")) {
        certificate.with_file_name("privkey.pem")
    } else {
        certificate.to_owned()
    }
}

/// Adds the names of the certificates in a directory. What cannot be read is passed over, as Prosody does.
fn index_directory(directory: &Path, depth: usize, now: OffsetDateTime, index: &mut HashSet<String>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let name = name.as_bytes();
        if path.is_dir() {
            if depth > 1 && !name.starts_with(b".") {
                index_directory(&path, depth - 1, now, index);
            }
        } else if (name.ends_with(b".crt") || contains(name, b"fullchain")) && is_file(&matching_key(&path)) {
            index_certificate(&path, now, index);
        }
    }
}

/// The key beside a certificate of the index: `.key` for `.crt`, and `privkey` for `fullchain` anywhere in the path.
fn matching_key(certificate: &Path) -> PathBuf {
    let mut path = certificate.to_string_lossy().replace("fullchain", "privkey");
    if path.ends_with(".crt") {
        path.truncate(path.len() - "crt".len());
        path.push_str("key");
    }
    PathBuf::from(path)
}

/// Adds the names of the first certificate in a file, if it is valid now: the DNS names of its subject alternative
/// name, and its common names. Names for a single XMPP service (`xmppAddr`, `SRVName`) do not select a certificate for a host.
fn index_certificate(path: &Path, now: OffsetDateTime, index: &mut HashSet<String>) {
    let Some(file) = read_certificate_file(path) else {
        return;
    };
    let Ok((_, pem)) = parse_x509_pem(&file) else {
        return;
    };
    let Ok(certificate) = pem.parse_x509() else {
        return;
    };
    if !certificate.validity().is_valid_at(ASN1Time::new(now)) {
        return;
    }
    if let Ok(Some(extension)) = certificate.subject_alternative_name() {
        for name in &extension.value.general_names {
            if let GeneralName::DNSName(name) = name {
                index.extend(in_unicode(name));
            }
        }
    }
    let common_names = certificate.subject().iter_common_name();
    index.extend(common_names.filter_map(|name| Some(name.as_str().ok()?.to_lowercase())));
}

/// A file's content where its first line is what Prosody asks for, and `None` where it is not.
fn read_certificate_file(path: &Path) -> Option<Vec<u8>> {
    // A regular file and nothing else: opening a FIFO would wait for its other end.
    if !is_file(path) {
        return None;
    }
    let mut content = Vec::new();
    File::open(path).ok()?.take(MAX_SIZE).read_to_end(&mut content).ok()?;
    content.starts_with(b"-----BEGIN CERTIFICATE-----\n").then_some(content)
}

/// A name of a certificate as Prosody writes hosts: in Unicode, the asterisk of a wildcard left as it is.
fn in_unicode(name: &str) -> Option<String> {
    let (wildcard, domain) = match name.strip_prefix("*.") {
        Some(domain) => ("*.", domain),
        None => ("", name),
    };
    let (domain, result) = idna::domain_to_unicode(domain);
    result.ok()?;
    Some(format!("{wildcard}{domain}"))
}

/// Whether a certificate of the index has this name, or a wildcard in place of its first label.
fn is_in_index(index: &HashSet<String>, host: &str) -> bool {
    index.contains(host)
        || host.split_once('.').is_some_and(|(_, parent)| index.contains(&format!("*.{parent}")))
}

/// Whether there is a regular file, at the end of links or directly.
fn is_file(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::self_signed;
    use crate::test_dir::TestDir;
    use std::os::unix::fs::symlink;
    use time::Duration;

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
    }

    fn found(directory: &Path, host: &str) -> bool {
        find(directory, &[host], now()).unwrap()[0]
    }

    /// A certificate that is valid at `now()`.
    fn certificate(names: &[&str]) -> String {
        self_signed::make(names, now()).unwrap().certificate
    }

    #[test]
    fn an_absent_or_empty_directory_has_none() {
        let directory = TestDir::new();
        assert!(!found(&directory.path().join("absent"), "a.example"));
        assert!(!found(directory.path(), "a.example"));
    }

    #[test]
    fn files_are_found_by_the_name_of_the_host() {
        let directory = TestDir::new();
        for file in [
            "pair.example.crt",
            "pair.example.key",
            "folder.example/fullchain.pem",
            "folder.example/privkey.pem",
            "single.example.pem",
            "no-key.example.crt",
            "half.example/fullchain.pem",
            "jörg.example.pem",
        ] {
            directory.write(file, "");
        }
        symlink(directory.path().join("folder.example"), directory.path().join("link.example")).unwrap();
        symlink("gone", directory.path().join("dangling.example.pem")).unwrap();
        fs::create_dir(directory.path().join("folder.pem")).unwrap();

        for host in ["pair.example", "folder.example", "single.example", "link.example", "jörg.example"] {
            assert!(found(directory.path(), host), "{host}");
        }
        for host in ["no-key.example", "half.example", "dangling.example", "folder", "other.example"] {
            assert!(!found(directory.path(), host), "{host}");
        }
    }

    #[test]
    fn a_host_below_another_is_given_the_certificate_of_that() {
        let directory = TestDir::new();
        directory.write("chat.example.pem", "");
        assert!(found(directory.path(), "conference.chat.example"));
        assert!(found(directory.path(), "a.b.chat.example"));
        assert!(!found(directory.path(), "example"));
        assert!(!found(directory.path(), "other-chat.example"));
        for odd in ["", ".", "..", "a.", "a..chat.example."] {
            assert!(!found(directory.path(), odd), "{odd}");
        }
    }

    #[test]
    fn a_file_with_another_name_is_found_by_its_content() {
        let directory = TestDir::new();
        directory.write("tls.crt", certificate(&["chat.example", "*.wild.example", "xn--jrg-sna.example"]));
        directory.write("tls.key", "");
        let hosts = [
            "chat.example",
            "room.chat.example",
            "a.wild.example",
            "jörg.example",
            "wild.example",
            "b.example",
        ];
        assert_eq!(find(directory.path(), &hosts, now()).unwrap(), [true, true, true, true, false, false]);
    }

    #[test]
    fn the_index_is_three_levels_deep_and_leaves_hidden_directories_out() {
        for (file, key, expected) in [
            ("fullchain.pem", "privkey.pem", true),
            ("a/b/my-fullchain-1.pem", "a/b/my-privkey-1.pem", true),
            ("a/b/c/tls.crt", "a/b/c/tls.key", false),
            (".hidden/tls.crt", ".hidden/tls.key", false),
            ("tls.crt", "other.key", false),
            ("tls.cer", "tls.key", false),
        ] {
            let directory = TestDir::new();
            directory.write(file, certificate(&["chat.example"]));
            directory.write(key, "");
            assert_eq!(found(directory.path(), "chat.example"), expected, "{file}");
        }
    }

    #[test]
    fn only_a_certificate_that_is_valid_now_and_starts_the_file_counts() {
        let valid = certificate(&["chat.example"]);
        for (content, time, expected) in [
            (valid.clone(), now(), true),
            (valid.clone(), now() + Duration::days(4000), false),
            (valid.clone(), now() - Duration::days(30), false),
            (format!("Certificate of chat.example\n{valid}"), now(), false),
            (valid.replace('\n', "\r\n"), now(), false),
            (valid[..200].to_owned(), now(), false),
            (String::new(), now(), false),
        ] {
            let directory = TestDir::new();
            directory.write("tls.crt", &content);
            directory.write("tls.key", "");
            let found = find(directory.path(), &["chat.example"], time).unwrap();
            assert_eq!(found, [expected], "{content}");
        }
    }

    #[test]
    fn the_option_may_name_one_certificate() {
        let directory = TestDir::new();
        for file in ["a.crt", "a.key", "b.crt", "live/fullchain.pem", "live/privkey.pem", "c.pem"] {
            directory.write(file, "");
        }
        for (file, expected) in
            [("a.crt", true), ("b.crt", false), ("live/fullchain.pem", true), ("c.pem", true)]
        {
            assert_eq!(found(&directory.path().join(file), "chat.example"), expected, "{file}");
        }
    }

    #[test]
    fn folders_and_links_are_watched_and_files_told_apart() {
        let directory = TestDir::new();
        directory.write("a.pem", "");
        directory.write("live/a/fullchain.pem", "");
        directory.write("live/a/deep/x.pem", "");
        directory.write("..2030/tls.crt", "");
        let at = |path: &str| directory.path().join(path);
        symlink("..2030/tls.crt", at("tls.crt")).unwrap();
        symlink("gone", at("live/dangling")).unwrap();
        let mut places = watched(directory.path());
        places.sort();
        places.dedup();
        let root = directory.path().to_owned();
        assert_eq!(places, [root, at("live"), at("live/a"), at("live/dangling"), at("tls.crt")]);

        let before = fingerprints(directory.path());
        let files: Vec<&PathBuf> = before.iter().map(|(path, _)| path).collect();
        assert_eq!(files, [&at("a.pem"), &at("live/a/fullchain.pem"), &at("tls.crt")]);
        assert_eq!(fingerprints(directory.path()), before);
        directory.write("..2031/tls.crt", "");
        symlink("..2031/tls.crt", at("new")).unwrap();
        fs::rename(at("new"), at("tls.crt")).unwrap();
        assert_ne!(fingerprints(directory.path()), before);
        let (certificate, key) = (at("live/a/fullchain.pem"), at("live/a/privkey.pem"));
        assert_eq!(watched(&certificate), [certificate.clone(), key.clone()]);
        assert_eq!(fingerprints(&certificate).len(), 1);
        directory.write("live/a/privkey.pem", "");
        assert_eq!(fingerprints(&certificate).len(), 2);
    }

    #[test]
    fn a_fifo_is_not_opened() {
        let directory = TestDir::new();
        let path = directory.path().join("tls.crt");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        directory.write("tls.key", "");
        assert!(!found(directory.path(), "chat.example"));
    }
}
