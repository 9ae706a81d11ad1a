//! Scans the sources of certificates. Certificates are read; key files are only listed.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, fstat, fstatat};

use super::files::{self, Content, LARGEST};
use super::pem::{self, CutOff};
use super::x509::Certificate;
use super::{Flaw, UnusedFile};
use crate::intent::certificates::SearchPlace;
use crate::os::trusted_file::{self, DIRECTORY, Error, Kind, Links, Owners};

/// The maximum depth of a scan. The source itself is the first level.
const DEPTH: usize = 8;

/// The maximum numbers of names listed and of files opened. The rest is skipped with a message.
const MAX_NAMES: usize = 100_000;
const MAX_FILES: usize = 20_000;

/// File name extensions of files without certificates.
const OTHERS: [&str; 34] = [
    "txt", "json", "conf", "cfg", "cnf", "ini", "yaml", "yml", "toml", "xml", "lua", "sh", "py", "pl", "md",
    "html", "log", "csr", "crl", "srl", "pub", "p12", "pfx", "jks", "zip", "gz", "xz", "tar", "bak", "old",
    "orig", "tmp", "swp", "lock",
];

/// A directory that was scanned.
#[derive(Default)]
pub struct Folder {
    pub path: PathBuf,
    /// The names of the key files, sorted.
    pub keys: Vec<OsString>,
    /// The CA certificates in its files.
    pub issuers: Vec<Rc<Certificate>>,
}

impl Folder {
    /// The directory beside it for keys, in layouts such as `/etc/ssl`.
    pub fn private(&self) -> PathBuf {
        self.path.parent().unwrap_or(&self.path).join("private")
    }
}

/// A file with certificates.
pub struct FoundFile {
    pub path: PathBuf,
    /// The index of its directory in [`Found::folders`].
    pub folder: usize,
    /// The index of its source.
    pub source: usize,
    /// Its certificates, in file order.
    pub certificates: Vec<Rc<Certificate>>,
    pub has_key: bool,
}

#[derive(Default)]
pub struct Found {
    pub folders: Vec<Folder>,
    pub files: Vec<FoundFile>,
    /// Files and directories that look relevant but cannot be used.
    pub problems: Vec<UnusedFile>,
}

/// Scans the sources. Passes each directory to `show` before reading its content.
pub fn scan(sources: &[SearchPlace], show: &mut dyn FnMut(&Path)) -> Found {
    let mut search = Search::new(show);
    for (number, source) in sources.iter().enumerate() {
        search.source = number;
        search.seen.clear();
        search.scan_source(&source.path);
    }
    search.found
}

/// The names of the key files in one directory, sorted.
pub fn keys_in(path: &Path) -> Vec<OsString> {
    let mut show = |_: &Path| {};
    let mut search = Search::new(&mut show);
    let names = search.open_directory(path).and_then(|directory| Ok(search.names(directory.fd.as_fd())?));
    let names = names.unwrap_or_default().into_iter().map(|(name, _)| name);
    names.filter(|name| is_key_name(name)).collect()
}

/// Whether a file with this name contains only a key.
fn is_key_name(name: &OsStr) -> bool {
    let name = name.to_ascii_lowercase();
    [".key", "key.pem"].iter().any(|end| name.as_bytes().ends_with(end.as_bytes()))
        || ["privkey", "privatekey"].iter().any(|word| contains(&name, word))
}

/// Whether a file with this name should contain certificates.
fn is_certificate_name(name: &OsStr) -> bool {
    has_ending(name, &["pem", "crt", "cer", "cert"])
}

/// Whether a file with this name contains no certificate.
fn is_unrelated_name(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    bytes.ends_with(b"~") || bytes.starts_with(b"README") || has_ending(name, &OTHERS)
}

fn has_ending(name: &OsStr, endings: &[&str]) -> bool {
    let extension = Path::new(name).extension();
    extension.is_some_and(|extension| endings.iter().any(|ending| extension.eq_ignore_ascii_case(ending)))
}

struct Search<'a> {
    /// Gets each directory before its content is read.
    show: RefCell<&'a mut dyn FnMut(&Path)>,
    /// The `private` directories seen so far.
    private: HashSet<PathBuf>,
    /// The last path passed to `show`.
    last: RefCell<PathBuf>,
    found: Found,
    source: usize,
    /// The scanned directories of this source, by device and inode.
    seen: HashSet<(u64, u64)>,
    /// Certificates that were read, by the end of their text, which is part of the signature. Most files contain the
    /// same few issuers, so this saves time.
    known: HashMap<Vec<u8>, Known>,
    names_left: usize,
    files_left: usize,
    is_at_limit: bool,
    buffer: Vec<u8>,
}

/// A PEM block's text, and its certificate if it could be parsed.
struct Known {
    text: Vec<u8>,
    certificate: Option<Rc<Certificate>>,
}

/// An open directory.
struct Opened {
    fd: OwnedFd,
    owners: Owners,
}

impl<'a> Search<'a> {
    fn new(show: &'a mut dyn FnMut(&Path)) -> Self {
        Search {
            show: RefCell::new(show),
            private: HashSet::new(),
            last: RefCell::default(),
            found: Found::default(),
            source: 0,
            seen: HashSet::new(),
            known: HashMap::new(),
            names_left: MAX_NAMES,
            files_left: MAX_FILES,
            is_at_limit: false,
            buffer: Vec::new(),
        }
    }

    fn scan_source(&mut self, path: &Path) {
        let scanned = self.open_directory(path);
        match scanned.and_then(|directory| self.directory(path, &directory, DEPTH)) {
            Ok(()) => {}
            // It may be mounted or created later, so it is watched.
            Err(Error::Refused(Errno::ENOENT)) => self.watch(path.to_owned()),
            Err(Error::Refused(Errno::ENOTDIR)) => self.single_file(path),
            Err(error) => self.problem(path, error),
        }
    }

    /// Scans a source that is a file. Its keys are beside it.
    fn single_file(&mut self, path: &Path) {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return };
        self.watch(parent.to_owned());
        let directory = match self.open_directory(parent) {
            Ok(directory) => directory,
            Err(error) => return self.problem(path, error),
        };
        let folder = self.found.folders.len();
        self.found.folders.push(Folder {
            path: parent.to_owned(),
            keys: keys_in(parent),
            ..Folder::default()
        });
        let is_link = readlinkat(&directory.fd, name).is_ok();
        self.file(folder, &directory, name, is_link);
    }

    fn open_directory(&self, path: &Path) -> Result<Opened, Error> {
        let (fd, owners) = trusted_file::descriptor(path, DIRECTORY, Links::OfReaders)?;
        Ok(Opened { fd, owners })
    }

    fn directory(&mut self, path: &Path, directory: &Opened, depth: usize) -> Result<(), Error> {
        let stat = fstat(&directory.fd)?;
        if !self.seen.insert((stat.st_dev, stat.st_ino)) {
            return Ok(());
        }
        self.watch(path.to_owned());
        trusted_file::trust(&stat, &directory.owners, 0o005)?;
        let names = self.names(directory.fd.as_fd())?;
        let folder = self.found.folders.len();
        self.found.folders.push(Folder { path: path.to_owned(), ..Folder::default() });
        // Keys may be written there later.
        let private = self.found.folders[folder].private();
        if self.private.insert(private.clone()) && private.is_dir() {
            self.watch(private);
        }

        // A file with the whole chain comes first, because it makes the others redundant.
        let (chains, others): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|(name, _)| contains(name, "fullchain"));
        let mut has_chain = false;
        for (name, kind) in chains.into_iter().chain(others) {
            if has_chain && is_part_of_chain(&name, path) {
                continue;
            }
            let (kind, is_link) = self.kind(directory, &name, kind);
            match kind {
                Kind::Directory if depth > 1 => self.subdirectory(path, directory, &name, is_link, depth - 1),
                Kind::Directory => {
                    self.problem(path.join(&name), Flaw::lasting("is too deep, and not looked into"))
                }
                // Keys, and the targets of links to keys, are read only when they are needed.
                Kind::Regular | Kind::Link if is_key_name(&name) => {
                    if is_link {
                        self.watch_target(path, directory, &name);
                    }
                    self.found.folders[folder].keys.push(name)
                }
                Kind::Regular if is_unrelated_name(&name) => {}
                Kind::Regular => {
                    let length = self.file(folder, directory, &name, is_link);
                    has_chain = has_chain || (length > 1 && contains(&name, "fullchain"));
                }
                _ if !is_certificate_name(&name) => {}
                Kind::Link => {
                    let link = path.join(&name);
                    self.problem(&link, files::dangling(&link));
                    self.watch_target(path, directory, &name);
                }
                _ => self.problem(path.join(&name), Flaw::lasting("is no regular file")),
            }
        }
        self.found.folders[folder].keys.sort_unstable();
        Ok(())
    }

    /// The names in a directory that are not hidden, sorted.
    fn names(&mut self, directory: impl AsFd) -> nix::Result<Vec<(OsString, Option<Type>)>> {
        let mut names = Vec::new();
        let entries = Dir::from_fd(directory.as_fd().try_clone_to_owned().map_err(|_| Errno::EMFILE)?)?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name.starts_with(b".") {
                continue;
            }
            if self.names_left == 0 {
                self.limit();
                break;
            }
            self.names_left -= 1;
            names.push((OsStr::from_bytes(name).to_owned(), entry.file_type()));
        }
        names.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Ok(names)
    }

    /// The kind of a file after following links, and whether it is a link. [`Kind::Link`] is a dangling link, or a link
    /// with a key's name, which is not followed.
    fn kind(&self, directory: &Opened, name: &OsStr, kind: Option<Type>) -> (Kind, bool) {
        let stat = |flags| fstatat(&directory.fd, name, flags).ok().map(|stat| Kind::of(&stat));
        let kind = match kind {
            Some(Type::File) => Kind::Regular,
            Some(Type::Directory) => Kind::Directory,
            Some(Type::Symlink) => Kind::Link,
            Some(_) => Kind::Fifo,
            None => stat(AtFlags::AT_SYMLINK_NOFOLLOW).unwrap_or(Kind::Fifo),
        };
        match kind {
            Kind::Link if is_key_name(name) => (kind, true),
            Kind::Link => (stat(AtFlags::empty()).unwrap_or(kind), true),
            kind => (kind, false),
        }
    }

    fn subdirectory(&mut self, path: &Path, parent: &Opened, name: &OsStr, is_link: bool, depth: usize) {
        let path = path.join(name);
        let opened = if is_link {
            self.open_directory(&path)
        } else {
            openat(&parent.fd, name, DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty())
                .map(|fd| Opened { fd, owners: parent.owners.clone() })
                .map_err(Error::from)
        };
        match opened.and_then(|directory| self.directory(&path, &directory, depth)) {
            Ok(()) => {}
            // It was removed or replaced since it was listed.
            Err(Error::Refused(Errno::ENOENT | Errno::ELOOP | Errno::ENOTDIR)) => {}
            Err(error) => self.problem(path, error),
        }
    }

    /// Reads a file. Returns the number of certificates in it.
    fn file(&mut self, folder: usize, directory: &Opened, name: &OsStr, is_link: bool) -> usize {
        if self.files_left == 0 {
            self.limit();
            return 0;
        }
        self.files_left -= 1;
        let path = self.found.folders[folder].path.join(name);
        if is_link {
            self.watch_target(&self.found.folders[folder].path, directory, name);
        }
        match files::twice(|| self.read(&path, directory, name, is_link)) {
            Ok(Some(Content::Text)) => return self.add(folder, path, name),
            Ok(Some(Content::Der)) if has_ending(name, &["der", "cer", "crt"]) => {
                let way = advice!(
                    "is in DER, which is not read: convert it with `openssl x509 -inform der -in {} -out …`",
                    Path::new(name).display()
                );
                self.problem(path, Flaw::lasting(way));
            }
            Err(flaw) if is_certificate_name(name) => self.problem(path, flaw),
            _ => {}
        }
        0
    }

    /// Reads a file into the buffer. `None` if it no longer exists.
    fn read(
        &mut self,
        path: &Path,
        directory: &Opened,
        name: &OsStr,
        is_link: bool,
    ) -> Result<Option<Content>, Flaw> {
        let no_follow = if is_link { OFlag::empty() } else { OFlag::O_NOFOLLOW };
        let mut opened = match trusted_file::open_below(&directory.fd, name, no_follow) {
            Ok(opened) => opened,
            Err(Error::Refused(Errno::ENOENT | Errno::ELOOP)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // For world-readable files, the owners of links do not matter.
        if opened.stat.st_mode & 0o004 == 0 {
            if is_link {
                opened = trusted_file::open(path)?;
            } else {
                trusted_file::trust(&opened.stat, &directory.owners, 0o004)?;
            }
        }
        let opened = opened.regular()?;
        if opened.size() > LARGEST {
            return Err(Flaw::lasting("is larger than 1 MiB, and not read"));
        }
        Ok(Some(files::read(&opened, &mut self.buffer)?))
    }

    /// Adds the certificates and the key in the buffer to the result. One broken block makes the file incomplete.
    fn add(&mut self, folder: usize, path: PathBuf, name: &OsStr) -> usize {
        let buffer = std::mem::take(&mut self.buffer);
        let read = self.certificates(&buffer, name);
        self.buffer = buffer;
        let (certificates, has_key) = match read {
            Ok(read) => read,
            Err(flaw) => {
                self.problem(path, flaw);
                return 0;
            }
        };
        let length = certificates.len();
        if length > 0 {
            let issuers = &mut self.found.folders[folder].issuers;
            for certificate in certificates.iter().filter(|certificate| certificate.is_ca) {
                if !issuers.iter().any(|issuer| Rc::ptr_eq(issuer, certificate)) {
                    issuers.push(Rc::clone(certificate));
                }
            }
            let source = self.source;
            self.found.files.push(FoundFile { path, folder, source, certificates, has_key });
        } else if has_key {
            self.found.folders[folder].keys.push(name.to_owned());
        }
        length
    }

    fn certificates(&mut self, text: &[u8], name: &OsStr) -> Result<(Vec<Rc<Certificate>>, bool), Flaw> {
        let mut certificates = Vec::new();
        let mut has_key = false;
        let mut is_trusted_form = false;
        let mut unknown = 0;
        for block in pem::blocks(text) {
            let block = block.map_err(|CutOff| Flaw::incomplete("is cut off"))?;
            match block.label {
                "CERTIFICATE" | "X509 CERTIFICATE" => match self.certificate(&block) {
                    Ok(Some(certificate)) => certificates.push(certificate),
                    Ok(None) => unknown += 1,
                    Err(flaw) => return Err(flaw),
                },
                "TRUSTED CERTIFICATE" => is_trusted_form = true,
                _ => has_key = has_key || block.is_key(),
            }
        }
        if !certificates.is_empty() || has_key {
            return Ok((certificates, has_key));
        }
        match () {
            () if unknown > 0 => Err(Flaw::incomplete("is damaged: what is in it is no certificate")),
            () if is_trusted_form => Err(Flaw::lasting(advice!(
                "has a TRUSTED CERTIFICATE, which only OpenSSL's own programs read: convert it with `openssl x509`"
            ))),
            () if text.is_empty() && is_certificate_name(name) => Err(Flaw::incomplete("is empty")),
            () if !text.is_empty() && !pem::is_pem(text) => Err(Flaw::incomplete("is cut off")),
            () => Ok((certificates, has_key)),
        }
    }

    /// Decodes a certificate. `None` if it cannot be parsed, which is no flaw: the file may contain others.
    fn certificate(&mut self, block: &pem::Block) -> Result<Option<Rc<Certificate>>, Flaw> {
        let end = &block.body[block.body.len().saturating_sub(48)..];
        match self.known.get(end) {
            Some(known) if known.text == block.body => return Ok(known.certificate.clone()),
            _ => {}
        }
        let der = block.decode().ok_or_else(|| Flaw::incomplete("is damaged: it is not Base64"))?;
        let certificate = Certificate::read(der).map(Rc::new);
        self.known
            .insert(end.to_owned(), Known { text: block.body.to_owned(), certificate: certificate.clone() });
        Ok(certificate)
    }

    fn watch(&self, path: PathBuf) {
        // Most links in a directory lead to the same other directory.
        if *self.last.borrow() != path {
            (self.show.borrow_mut())(&path);
            self.last.replace(path);
        }
    }

    /// Watches the directory of a link's target. The target is kept as written, because `..` after a link to a
    /// directory is not the directory of the link.
    fn watch_target(&self, path: &Path, directory: &Opened, name: &OsStr) {
        let target = readlinkat(&directory.fd, name);
        let parent = target.as_ref().ok().and_then(|target| Path::new(target).parent());
        if let Some(parent) = parent.filter(|parent| !parent.as_os_str().is_empty()) {
            self.watch(path.join(parent));
        }
    }

    fn problem(&mut self, path: impl Into<PathBuf>, flaw: impl Into<Flaw>) {
        self.found.problems.push(UnusedFile { path: path.into(), flaw: flaw.into() });
    }

    fn limit(&mut self) {
        if !self.is_at_limit {
            self.is_at_limit = true;
            let path = self.last.take();
            let why = advice!(
                "has too many files in it and below it to look at all of them: name the folders that matter"
            );
            self.problem(path, Flaw::lasting(why));
        }
    }
}

/// Whether the `fullchain` file beside a file contains its certificates too: certbot's `cert.pem` and `chain.pem`,
/// acme.sh's `NAME.cer` and `ca.cer`.
fn is_part_of_chain(name: &OsStr, directory: &Path) -> bool {
    let folder = directory.file_name().unwrap_or_default().to_string_lossy();
    let folder = folder.strip_suffix("_ecc").unwrap_or(&folder);
    match name.to_str() {
        Some("cert.pem" | "chain.pem" | "ca.cer") => true,
        Some(name) => name.strip_suffix(".cer") == Some(folder),
        None => false,
    }
}

fn contains(name: &OsStr, word: &str) -> bool {
    let (name, word) = (name.as_bytes(), word.as_bytes());
    (0..name.len()).any(|start| name[start] == word[0] && name[start..].starts_with(word))
}
