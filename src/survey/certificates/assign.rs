//! Assigns a certificate to each name.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::unistd::Uid;
use serde::Serialize;
use time::OffsetDateTime;

use super::self_signed::Store;
use super::{Choice, Pair, ScannedCertificates, UnusedFile, scan};
use crate::exit_status::Failure;
use crate::intent::certificates::{Certificates, SearchPlace, Service, Wanted};
use crate::layout;
use crate::os::privileges;
use crate::os::users::User;
use crate::settings::types::{ascii, parents};
use crate::text::grouped;

/// The source of a name's certificate.
#[derive(Debug, Clone, PartialEq)]
pub enum CertificateOrigin {
    /// A certificate that was found and contains the name.
    Found(Rc<Pair>),
    /// The certificate that is served until now, because the current one is missing or being replaced.
    Kept(Rc<Pair>),
    /// The certificate of this parent domain, which does not contain the name.
    OfParent(String, Rc<Pair>),
    /// Our self-signed certificate in this file, which may not exist yet.
    SelfSigned(PathBuf),
    /// The certificate that the options of the host, or of a parent domain, name. The operator maintains it.
    FromOptions,
    /// Options name this file, which Prosody's user cannot read.
    Unreadable(PathBuf),
    None,
}

/// The certificate of a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Served {
    /// The name that Prosody looks for.
    pub name: String,
    /// Whether it is a virtual host or a component, rather than another name of one.
    pub is_host: bool,
    pub origin: CertificateOrigin,
    /// The other certificates with the name, each with the reason why it is not used.
    pub unused: Vec<UnusedFile>,
}

impl Served {
    /// The pair that is written for the name.
    pub fn pair(&self) -> Option<&Rc<Pair>> {
        match &self.origin {
            CertificateOrigin::Found(pair) | CertificateOrigin::Kept(pair) => Some(pair),
            _ => None,
        }
    }

    /// The same certificate under the host's name in ASCII, which clients send (`xn--…`). `None` if the names are equal
    /// or there is no pair. A self-signed certificate belongs to the host alone.
    fn under_ascii_name(&self, ascii: &str) -> Option<Served> {
        let origin =
            self.pair().filter(|_| self.is_host && ascii != self.name).map(|_| self.origin.clone())?;
        Some(Served { name: ascii.to_owned(), is_host: false, origin, unused: Vec::new() })
    }
}

/// The certificates of all names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Assignments {
    /// The hosts in their configured order, then other names.
    pub served: Vec<Served>,
    /// The hosts for which no certificate was found, in the same order.
    pub without: Vec<String>,
    pub self_signed: Vec<SelfSigned>,
    /// Incomplete files, which may still be being written, and hosts whose certificate is missing or being replaced: a
    /// later survey may find better ones.
    pub pending: BTreeSet<String>,
    pub http_without: Vec<String>,
    /// Files that are useless for every host.
    pub problems: Vec<UnusedFile>,
    /// The served certificates and keys that are mounted as single files.
    pub single_mounts: BTreeSet<PathBuf>,
    /// Missing paths from settings, each with the setting's variable. Checked only if a host has no certificate:
    /// otherwise nothing is needed from them.
    pub missing_places: Vec<(String, PathBuf)>,
}

/// A self-signed certificate that a host shares with its subdomains.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SelfSigned {
    /// The host's name in Prosody.
    #[serde(skip)]
    pub host: String,
    #[serde(rename = "host")]
    pub host_ascii: String,
    /// All names in the certificate, in ASCII, the host's first.
    pub names: Vec<String>,
    #[serde(skip)]
    pub path: PathBuf,
    /// Whether it exists and can be used. If not, the plan makes it.
    #[serde(skip)]
    pub is_usable: bool,
}

/// Assigns a certificate to every wanted name. `previous` is the directory with the certificates of a running server,
/// used if there is no other or only an expired one. Self-signed ones are in `data_dir`, and read as `user`.
pub fn assign(
    wanted: &Certificates,
    data_dir: &Path,
    user: &User,
    scanned: &ScannedCertificates,
    previous: Option<&Path>,
    now: OffsetDateTime,
) -> Result<Assignments, Failure> {
    let mut assignments = Assignments::default();
    let self_signed_dir = layout::self_signed_dir(data_dir);
    assignments.choose(wanted, scanned, &self_signed_dir, previous, now);
    assignments.inherit();
    let without =
        assignments.served.iter().filter(|served| served.is_host && served.origin == CertificateOrigin::None);
    assignments.without = without.map(|served| served.name.clone()).collect();
    if !assignments.without.is_empty() {
        let missing = wanted.named_places.iter().filter(|(_, path)| !path.exists());
        assignments.missing_places = missing.cloned().collect();
        if wanted.self_signed {
            assignments.find_self_signed(data_dir, user, now)?;
        }
    }
    Ok(assignments)
}

impl Assignments {
    /// Finds the served certificates and keys that are mounted as single files. `read` reads `/proc/self/mountinfo`
    /// (proc_pid_mountinfo(5)), if there are any. Such a mount keeps the old file when another one is renamed over it.
    pub fn find_single_mounts(&mut self, read: impl FnOnce() -> String) {
        let files = |served: &Served| match &served.origin {
            CertificateOrigin::Found(pair) => vec![pair.certificate.clone(), pair.key.clone()],
            _ => Vec::new(),
        };
        let files: BTreeSet<PathBuf> = self.served.iter().flat_map(files).collect();
        if files.is_empty() {
            return;
        }
        let mountinfo = read();
        let mounts = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
        let mounts: HashSet<PathBuf> = mounts.map(|path| path.replace("\\040", " ").into()).collect();
        let real = |path: &Path| path.is_symlink().then(|| path.canonicalize().ok()).flatten();
        let is_mount =
            |path: &PathBuf| mounts.contains(path) || real(path).is_some_and(|path| mounts.contains(&path));
        self.single_mounts = files.into_iter().filter(is_mount).collect();
    }

    /// Chooses a certificate for every name that Prosody may look for. Files below `self_signed` are no candidates.
    fn choose(
        &mut self,
        wanted: &Certificates,
        scanned: &ScannedCertificates,
        self_signed: &Path,
        previous: Option<&Path>,
        now: OffsetDateTime,
    ) {
        let mut last: Option<ScannedCertificates> = None;
        let mut seen: HashSet<Cow<str>> = HashSet::new();
        let all = if wanted.wants_all { scanned.names() } else { Vec::new() };
        let other = |name| Wanted { name, service: Service::Xmpp, is_host: false, has_own: false };
        let all: Vec<Wanted> = all.into_iter().map(other).collect();
        for Wanted { name, service, is_host, has_own } in wanted.names.iter().chain(&all) {
            let (service, is_host, has_own) = (*service, *is_host, *has_own);
            let Some(ascii) = ascii(name) else { continue };
            if !seen.insert(name.into()) {
                continue;
            }
            let unreadable = wanted.unreadable.get(name).or_else(|| wanted.unreadable.get(""));
            let unreadable = unreadable.map(|path| CertificateOrigin::Unreadable(path.clone()));
            if let Some(origin) = unreadable.or(has_own.then_some(CertificateOrigin::FromOptions)) {
                self.served.push(Served { name: name.clone(), is_host, origin, unused: Vec::new() });
                continue;
            }
            let Choice { pair, unused } = scanned.choose(&ascii, service);
            let pair = pair.filter(|pair| !pair.certificate.starts_with(self_signed));
            let is_good = pair.as_ref().is_some_and(|pair| !pair.is_expired);
            let kept = previous.filter(|_| !is_good).and_then(|previous| {
                let source = || [SearchPlace { path: previous.to_owned(), only: None }];
                let last = last.get_or_insert_with(|| scan(&source(), now));
                // Others are links to self-signed certificates.
                last.choose(&ascii, service)
                    .pair
                    .filter(|pair| pair.certificate.extension() == Some("pem".as_ref()))
            });
            let kept = kept.filter(|kept| pair.is_none() || !kept.is_expired);
            let origin = match (kept, pair) {
                (Some(kept), _) => CertificateOrigin::Kept(kept),
                (None, Some(pair)) => CertificateOrigin::Found(pair),
                (None, None) => CertificateOrigin::None,
            };
            if origin == CertificateOrigin::None && service == Service::Https && !wanted.is_behind_proxy {
                self.http_without.push(name.clone());
            }
            if origin == CertificateOrigin::None && !is_host {
                continue;
            }
            let incomplete = unused.iter().filter(|file| file.flaw.is_incomplete);
            self.pending.extend(incomplete.map(|file| file.path.display().to_string()));
            if matches!(origin, CertificateOrigin::Kept(_)) {
                self.pending.insert(name.clone());
            }
            self.served.push(Served { name: name.clone(), is_host, origin, unused });
            let in_ascii = self.served.last().and_then(|served| served.under_ascii_name(&ascii));
            self.served.extend(in_ascii.filter(|_| seen.insert(ascii.into())));
        }
        let incomplete = scanned.problems().iter().filter(|file| file.flaw.is_incomplete);
        self.pending.extend(incomplete.map(|file| file.path.display().to_string()));
        self.problems = scanned.problems().to_vec();
    }

    /// Gives names without a certificate their nearest parent domain's, as Prosody does.
    fn inherit(&mut self) {
        let origin = |served: &Served| match (&served.origin, served.pair()) {
            (CertificateOrigin::FromOptions, _) => Some(CertificateOrigin::FromOptions),
            (_, pair) => pair.map(|pair| CertificateOrigin::OfParent(served.name.clone(), Rc::clone(pair))),
        };
        let origins: BTreeMap<String, CertificateOrigin> =
            self.served.iter().filter_map(|served| Some((served.name.clone(), origin(served)?))).collect();
        for served in self.served.iter_mut().filter(|served| served.origin == CertificateOrigin::None) {
            if let Some(origin) = parents(&served.name).find_map(|above| origins.get(above)) {
                served.origin = origin.clone();
            }
        }
    }

    fn find_self_signed(&mut self, data_dir: &Path, user: &User, now: OffsetDateTime) -> Result<(), Failure> {
        let without: Vec<&str> = self.without.iter().map(String::as_str).collect();
        let uid = Uid::from_raw(user.uid);
        let mut paths: HashMap<String, PathBuf> = HashMap::new();
        self.self_signed = privileges::as_user(user, || {
            let store = Store::open(data_dir).ok().flatten();
            let mut all = Vec::new();
            for (host, names) in group(&without) {
                // Always succeeds, because the name was checked when the setting was read.
                let Some(host_ascii) = ascii(host) else { continue };
                let names_ascii: Vec<String> = names.iter().filter_map(|name| ascii(name)).collect();
                let is_usable =
                    store.as_ref().is_some_and(|store| store.is_usable(&host_ascii, &names_ascii, uid, now));
                // Subdomains share the file: Prosody uses the parent domain's certificate for them.
                let path =
                    layout::self_signed_dir(data_dir).join(layout::self_signed_certificate(&host_ascii));
                paths.extend(names.iter().map(|name| ((*name).to_owned(), path.clone())));
                all.push(SelfSigned {
                    host: host.to_owned(),
                    host_ascii,
                    names: names_ascii,
                    path,
                    is_usable,
                });
            }
            all
        })?;
        for served in &mut self.served {
            if let Some(path) = paths.remove(served.name.as_str()) {
                served.origin = CertificateOrigin::SelfSigned(path);
            }
        }
        Ok(())
    }
}

/// Groups hosts without a certificate: each host with its subdomains.
fn group<'a>(hosts: &[&'a str]) -> Vec<(&'a str, Vec<&'a str>)> {
    let all: HashSet<&str> = hosts.iter().copied().collect();
    let top = |host: &'a str| parents(host).filter(|parent| all.contains(parent)).last().unwrap_or(host);
    let (tops, others): (Vec<&str>, Vec<&str>) = hosts.iter().partition(|host| top(host) == **host);
    grouped(tops.into_iter().chain(others).map(|host| (top(host), host)))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;
    use crate::tests::TestDir;

    #[test]
    fn only_hosts_with_a_pair_get_a_name_in_ascii() {
        let host = "münchen.example";
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::DnsName("xn--mnchen-3ya.example".try_into().unwrap())];
        let key = KeyPair::generate().unwrap();
        let directory = TestDir::new();
        directory.write("a.pem", params.self_signed(&key).unwrap().pem() + &key.serialize_pem());
        let source = SearchPlace { path: directory.path().to_owned(), only: None };
        let found = scan(&[source], OffsetDateTime::now_utc());
        let ascii = ascii(host).unwrap();
        let pair = found.choose(&ascii, Service::Xmpp).pair.unwrap();
        let named = |origin, is_host| {
            let served = Served { name: host.to_owned(), is_host, origin, unused: Vec::new() };
            served.under_ascii_name(&ascii).map(|served| (served.name, served.is_host))
        };
        assert_eq!(named(CertificateOrigin::Found(Rc::clone(&pair)), true), Some((ascii.clone(), false)));
        assert_eq!(named(CertificateOrigin::Found(pair), false), None);
        assert_eq!(named(CertificateOrigin::None, true), None);
    }

    #[test]
    fn files_that_are_mounted_alone_are_found() {
        let directory = TestDir::new();
        let path = |name: &str| directory.path().join(name);
        std::os::unix::fs::symlink("keys/b c.key", path("a.key")).unwrap();
        directory.write("keys/b c.key", "");
        let mut pair = (*Pair::example("a.example", OffsetDateTime::now_utc(), "")).clone();
        (pair.certificate, pair.key) = (path("a.crt"), path("a.key"));
        let pair = Rc::new(pair);
        let found = |origin: CertificateOrigin, mounts: &[&str]| -> Vec<PathBuf> {
            let served = Served { name: "a.example".into(), is_host: true, origin, unused: Vec::new() };
            let mut assignments = Assignments { served: vec![served], ..Assignments::default() };
            let line = |name: &&str| {
                let path = path(name).display().to_string().replace(' ', "\\040");
                format!("36 35 98:0 /mnt1 {path} rw,noatime master:1 - ext3 /dev/root rw\n")
            };
            assignments.find_single_mounts(|| mounts.iter().map(line).collect());
            assignments.single_mounts.into_iter().collect()
        };
        let new = || CertificateOrigin::Found(Rc::clone(&pair));
        assert_eq!(found(new(), &["", "keys", "a.crt.old"]), [""; 0].map(PathBuf::from));
        assert_eq!(found(new(), &["a.crt"]), [path("a.crt")]);
        assert_eq!(found(new(), &["a.crt", "keys/b c.key"]), [path("a.crt"), path("a.key")]);
        // The copy is no mount.
        assert_eq!(found(CertificateOrigin::Kept(Rc::clone(&pair)), &["a.crt"]), [""; 0].map(PathBuf::from));
    }

    #[test]
    fn subdomains_share_the_certificate_of_their_parent() {
        let hosts = ["a.example", "b.example", "rooms.a.example", "x.rooms.a.example", "lone.test"];
        assert_eq!(
            group(&hosts),
            [
                ("a.example", vec!["a.example", "rooms.a.example", "x.rooms.a.example"]),
                ("b.example", vec!["b.example"]),
                ("lone.test", vec!["lone.test"]),
            ]
        );
    }
}
