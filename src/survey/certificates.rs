//! Finds certificates in the layouts of ACME clients and in hand-made ones, and chooses them by their content.
//!
//! A certificate serves a name if the name is among its subject alternative names (RFC 6125; RFC 6120, section
//! 13.7.1.2), if it is valid, and if its private key exists. The name of its file only helps to find the key.

pub mod assign;
mod authorities;
mod choice;
mod files;
pub mod key;
pub mod pairs;
pub mod pem;
pub mod self_signed;
mod sources;
pub mod x509;

use std::borrow::Cow;
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::fmt;
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use time::OffsetDateTime;

pub use self::authorities::read as read_authorities;
pub use self::choice::{Choice, Pair};
use self::choice::{Entry, Leaf};
use self::key::Keys;
use self::sources::Found;
use self::x509::Certificate;
use crate::intent::certificates::{SearchPlace, Service};

/// The certificates in all sources. Keys are read when they are needed, and cached.
pub struct ScannedCertificates {
    now: OffsetDateTime,
    /// For each source, the domains that it is limited to, if any.
    only: Vec<Option<Vec<String>>>,
    found: Found,
    leaves: Vec<Leaf>,
    /// The leaves with a name. Wildcards are kept as written.
    by_name: HashMap<String, Vec<Entry>>,
    /// The leaves with a name only as their common name.
    by_common_name: HashMap<String, Vec<usize>>,
    keys: RefCell<HashMap<PathBuf, Rc<Keys>>>,
    /// The names of key files in the `private` directories beside scanned directories.
    private_folders: RefCell<HashMap<PathBuf, Rc<Vec<OsString>>>>,
    pairs: RefCell<HashMap<usize, Result<Rc<Pair>, UnusedFile>>>,
}

/// A file that is not used, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusedFile {
    pub path: PathBuf,
    pub flaw: Flaw,
}

impl fmt::Display for UnusedFile {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.flaw.why)
    }
}

/// The reason why a file is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// The reason, worded to follow the file's name: `expired on 2026-03-01`.
    pub why: Cow<'static, str>,
    /// Whether the file may be only half written, so that another scan may succeed.
    pub is_incomplete: bool,
    /// Whether the only reason is that another certificate is better.
    pub is_worse: bool,
}

impl Flaw {
    /// A flaw that disappears if the file is still being written.
    fn incomplete(why: impl Into<Cow<'static, str>>) -> Flaw {
        Flaw { why: why.into(), is_incomplete: true, is_worse: false }
    }

    /// A flaw that stays until the operator acts.
    fn lasting(why: impl Into<Cow<'static, str>>) -> Flaw {
        Flaw { why: why.into(), is_incomplete: false, is_worse: false }
    }

    /// No real flaw: another certificate is better.
    fn worse(why: String) -> Flaw {
        Flaw { why: why.into(), is_incomplete: false, is_worse: true }
    }
}

/// Scans the sources and reads every certificate in them. Key files are read only when a certificate is about to be
/// chosen. Unreadable files are not an error: they become [`ScannedCertificates::problems`].
pub fn scan(sources: &[SearchPlace], now: OffsetDateTime) -> ScannedCertificates {
    scan_and_show(sources, now, &mut |_| {})
}

/// Like [`scan`], but passes each path to watch to `show` before reading its content: every directory, and the
/// directories that links to files lead to, even if they are missing.
pub fn scan_and_show(
    sources: &[SearchPlace],
    now: OffsetDateTime,
    show: &mut dyn FnMut(&Path),
) -> ScannedCertificates {
    let found = sources::scan(sources, show);
    let mut leaves: Vec<Leaf> = Vec::new();
    let mut by_certificate: HashMap<&[u8], Vec<usize>> = HashMap::new();
    let mut by_name: HashMap<String, Vec<Entry>> = HashMap::new();
    let mut by_common_name: HashMap<String, Vec<usize>> = HashMap::new();
    for (number, file) in found.files.iter().enumerate() {
        for certificate in &file.certificates {
            if certificate.names.is_empty() && certificate.common_name.is_none() {
                continue;
            }
            // DER ends with the signature, which is nearly always unique.
            let end = &certificate.der[certificate.der.len().saturating_sub(32)..];
            let same = by_certificate.entry(end).or_default();
            if let Some(leaf) = same.iter().find(|leaf| leaves[**leaf].certificate.der == certificate.der) {
                leaves[*leaf].files.push(number);
                continue;
            }
            same.push(leaves.len());
            for name in &certificate.names {
                let entry = Entry { leaf: leaves.len(), usage: name.usage };
                by_name.entry(name.domain.clone()).or_default().push(entry);
            }
            if let Some(name) = &certificate.common_name {
                by_common_name.entry(name.clone()).or_default().push(leaves.len());
            }
            leaves.push(Leaf { certificate: Rc::clone(certificate), files: vec![number] });
        }
    }
    for leaf in &mut leaves {
        // Longest chain first, then in the order of the scan.
        leaf.files.sort_unstable_by_key(|file| (Reverse(found.files[*file].certificates.len()), *file));
    }
    ScannedCertificates {
        now,
        only: sources.iter().map(|source| source.only.clone()).collect(),
        leaves,
        by_name,
        by_common_name,
        found,
        keys: RefCell::default(),
        private_folders: RefCell::default(),
        pairs: RefCell::default(),
    }
}

impl ScannedCertificates {
    /// The names of all certificates in Unicode, without wildcards.
    pub fn names(&self) -> Vec<String> {
        let all = self.leaves.iter().flat_map(|leaf| leaf.certificate.domains());
        let names: BTreeSet<String> = all.filter(|name| !name.starts_with('*')).collect();
        names.into_iter().collect()
    }

    /// The files that look like certificates but cannot be read as such, for whatever names, and the directories that
    /// cannot be read.
    pub fn problems(&self) -> &[UnusedFile] {
        &self.found.problems
    }

    /// Whether a file's source may serve this name.
    fn is_for(&self, file: usize, name: &str) -> bool {
        let only = self.only[self.found.files[file].source].as_ref();
        let is_of = |domain: &str| {
            name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        only.is_none_or(|only| only.iter().any(|domain| is_of(domain)))
    }

    /// The keys in a file. Each file is read once.
    fn keys_of(&self, path: &Path) -> Rc<Keys> {
        cached(&self.keys, path.to_owned(), || {
            Rc::new(match files::read_whole(path) {
                Ok(text) => Keys::read(&text),
                Err(flaw) => Keys { keys: Vec::new(), flaw: Some(flaw) },
            })
        })
    }

    /// The names of the key files in a `private` directory beside a scanned one.
    fn keys_beside(&self, path: &Path) -> Rc<Vec<OsString>> {
        cached(&self.private_folders, path.to_owned(), || Rc::new(sources::keys_in(path)))
    }
}

fn cached<K: Eq + Hash, V: Clone>(cache: &RefCell<HashMap<K, V>>, key: K, make: impl FnOnce() -> V) -> V {
    if let Some(value) = cache.borrow().get(&key) {
        return value.clone();
    }
    let value = make();
    cache.borrow_mut().insert(key, value.clone());
    value
}

#[cfg(test)]
mod tests;
