//! Chooses the certificate for a name, and gives the reasons against the others.

use std::cmp::Reverse;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use time::OffsetDateTime;

use super::x509::Usage;
use super::{Certificate, Flaw, ScannedCertificates, Service, UnusedFile, cached, pem};
use crate::digest;
use crate::settings::types::parents;

/// The maximum length of a chain. OpenSSL verifies none that is longer (SSL_CTX_set_verify_depth(3)).
const LONGEST_CHAIN: usize = 100;

/// The choice for a name.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// The certificate with its key, if one fits.
    pub pair: Option<Rc<Pair>>,
    /// The other certificates with the name, each with the reason why it is not used.
    pub unused: Vec<UnusedFile>,
}

/// A certificate and its key.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The domains in the certificate, in Unicode.
    pub names: Vec<String>,
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
    /// The issuer's common name, or else its organisation.
    pub issuer: String,
    /// The certificate's SHA-256 fingerprint, in hexadecimal without colons.
    pub fingerprint: String,
    /// Whether it has expired. An expired certificate is used only if there is no other.
    pub is_expired: bool,
    pub is_self_signed: bool,
    /// The digest of [`Pair::pem`].
    pub digest: u64,
    /// The certificate, its chain in order, as far as it was found, and the key. It is secret because of the key.
    pub pem: String,
}

impl Pair {
    /// The certificate itself, parsed again. `None` only if the pair was made without one.
    pub fn leaf(&self) -> Option<Certificate> {
        pem::blocks(self.pem.as_bytes()).next()?.ok()?.decode().and_then(Certificate::read)
    }
}

#[cfg(test)]
impl Pair {
    /// A pair without files, in which `text` replaces the PEM.
    pub fn example(name: &str, not_after: OffsetDateTime, text: &str) -> Rc<Pair> {
        Rc::new(Pair {
            certificate: format!("/certs/{name}.crt").into(),
            key: format!("/certs/{name}.key").into(),
            names: vec![name.to_owned()],
            not_before: not_after - time::Duration::days(90),
            not_after,
            issuer: "Example CA".to_owned(),
            fingerprint: format!("{:x}", digest::of(text.as_bytes())),
            is_expired: false,
            is_self_signed: false,
            digest: digest::of(text.as_bytes()),
            pem: text.to_owned(),
        })
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Pair")
            .field("certificate", &self.certificate)
            .field("key", &self.key)
            .field("names", &self.names)
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .field("issuer", &self.issuer)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

/// A certificate with at least one name, and the files that contain it.
pub(super) struct Leaf {
    pub(super) certificate: Rc<Certificate>,
    pub(super) files: Vec<usize>,
}

/// A certificate with a given name.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) leaf: usize,
    pub(super) usage: Usage,
}

/// The rank of a certificate for a name. The lowest is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    is_expired: bool,
    is_partial: bool,
    is_self_signed: bool,
    not_after: Reverse<OffsetDateTime>,
    is_wildcard: bool,
}

impl ScannedCertificates {
    /// Chooses the certificate for a name in lower-case ASCII (`xn--…`).
    ///
    /// Among several, the one that is valid longest wins. Self-signed certificates, and those for XMPP clients or
    /// servers alone, come after all others, and expired ones last. One that is not valid yet is never chosen.
    pub fn choose(&self, name: &str, service: Service) -> Choice {
        let mut choice = Choice::default();
        let mut chosen: Option<(Rank, Rc<Pair>)> = None;
        let mut candidates = self.candidates(name, service);
        // Among equals, the first one found wins.
        candidates.sort_unstable_by_key(|(leaf, rank)| (*rank, *leaf));
        for (leaf, rank) in candidates {
            let why_not = match self.unfit(leaf, rank) {
                Some(why) => Some(why),
                None => chosen.as_ref().map(|(best, pair)| worse(rank, *best, pair, self.certificate(leaf))),
            };
            if let Some(why) = why_not {
                choice.unused.push(self.unused_file(leaf, name, why));
                continue;
            }
            match cached(&self.pairs, leaf, || self.read_pair(leaf, name)) {
                Ok(pair) => chosen = Some((rank, pair)),
                Err(unused) => choice.unused.push(unused),
            }
        }
        choice.pair = chosen.map(|(_, pair)| pair);
        self.explain_near_misses(name, &mut choice);
        choice
    }

    fn certificate(&self, leaf: usize) -> &Certificate {
        &self.leaves[leaf].certificate
    }

    /// The certificates with the name, and their ranks.
    fn candidates(&self, name: &str, service: Service) -> Vec<(usize, Rank)> {
        let mut usages: Vec<(usize, bool, Vec<Usage>)> = Vec::new();
        let wildcard = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        for (is_wildcard, name_there) in [(false, Some(name)), (true, wildcard.as_deref())] {
            for entry in name_there.and_then(|name| self.by_name.get(name)).into_iter().flatten() {
                if service == Service::Https && entry.usage != Usage::All {
                    continue;
                }
                match usages.iter_mut().find(|(leaf, ..)| *leaf == entry.leaf) {
                    Some((_, _, usages)) => usages.push(entry.usage),
                    None => usages.push((entry.leaf, is_wildcard, vec![entry.usage])),
                }
            }
        }
        let is_for = |leaf: usize| self.leaves[leaf].files.iter().any(|file| self.is_for(*file, name));
        usages.retain(|(leaf, ..)| is_for(*leaf));
        let rank = |(leaf, is_wildcard, usages): (usize, bool, Vec<Usage>)| {
            let certificate = self.certificate(leaf);
            let has = |usage| usages.contains(&usage);
            let rank = Rank {
                is_expired: certificate.not_after < self.now,
                is_partial: !(has(Usage::All)
                    || has(Usage::Xmpp)
                    || has(Usage::XmppClients) && has(Usage::XmppServers)),
                is_self_signed: certificate.is_self_signed(),
                not_after: Reverse(certificate.not_after),
                is_wildcard,
            };
            (leaf, rank)
        };
        usages.into_iter().map(rank).collect()
    }

    /// The reason why a certificate cannot be used with any key.
    fn unfit(&self, leaf: usize, rank: Rank) -> Option<Flaw> {
        let certificate = self.certificate(leaf);
        if certificate.not_before > self.now {
            return Some(Flaw::lasting(format!("is not valid before {}", certificate.not_before.date())));
        }
        if !certificate.is_for_servers {
            return Some(Flaw::lasting("is not for servers: its extended key usage has no `serverAuth`"));
        }
        // `openssl req -x509` makes self-signed CA certificates for single servers.
        (certificate.is_ca && !rank.is_self_signed)
            .then(|| Flaw::lasting("is the certificate of an authority, not of a server"))
    }

    fn unused_file(&self, leaf: usize, name: &str, flaw: Flaw) -> UnusedFile {
        let files = &self.leaves[leaf].files;
        let file = files.iter().find(|file| self.is_for(**file, name)).unwrap_or(&files[0]);
        UnusedFile { path: self.found.files[*file].path.clone(), flaw }
    }

    /// Adds the reasons against certificates whose common name or wildcard nearly matches the name.
    fn explain_near_misses(&self, name: &str, choice: &mut Choice) {
        for leaf in self.by_common_name.get(name).into_iter().flatten() {
            let why = advice!(
                "has no subject alternative name, and its common name does not count: have it issued again \
                 with the name as a DNS name"
            );
            choice.unused.push(self.unused_file(*leaf, name, Flaw::lasting(why)));
        }
        if choice.pair.is_some() {
            return;
        }
        for domain in parents(name).skip(1) {
            for entry in self.by_name.get(&format!("*.{domain}")).into_iter().flatten() {
                let why = format!("*.{domain} in it stands for one label only");
                choice.unused.push(self.unused_file(entry.leaf, name, Flaw::lasting(why)));
            }
        }
    }

    /// A certificate with its key, from its first file for which a key is found.
    fn read_pair(&self, leaf: usize, name: &str) -> Result<Rc<Pair>, UnusedFile> {
        let certificate = self.certificate(leaf);
        let mut worst: Option<Flaw> = None;
        for file in &self.leaves[leaf].files {
            let found = &self.found.files[*file];
            match self.key(*file, certificate) {
                Ok((key, text)) => {
                    let mut pem = String::new();
                    for certificate in self.chain(leaf) {
                        pem::write(&mut pem, "CERTIFICATE", &certificate.der);
                    }
                    pem.push_str(&text);
                    return Ok(Rc::new(Pair {
                        certificate: found.path.clone(),
                        key,
                        names: certificate.domains(),
                        not_before: certificate.not_before,
                        not_after: certificate.not_after,
                        issuer: certificate.issuer(),
                        fingerprint: certificate.fingerprint(),
                        is_expired: certificate.not_after < self.now,
                        is_self_signed: certificate.is_self_signed(),
                        digest: digest::of(pem.as_bytes()),
                        pem,
                    }));
                }
                Err(Some(flaw)) => worst = Some(flaw),
                Err(None) => {}
            }
        }
        let flaw = worst.unwrap_or_else(|| Flaw::incomplete("has no key beside it"));
        Err(self.unused_file(leaf, name, flaw))
    }

    /// The key for a certificate in a file: its path and its PEM. The error is the flaw of the expected key file, or
    /// `None` if there is no such file.
    fn key(&self, file: usize, certificate: &Certificate) -> Result<(PathBuf, String), Option<Flaw>> {
        let file = &self.found.files[file];
        let folder = &self.found.folders[file.folder];
        let private = folder.private();
        let likely = likely_keys(&folder.path, &file.path);
        let take =
            |path: PathBuf, is_likely| self.matching(&path, certificate, is_likely).map(|key| (path, key));

        let mut flaw = None;
        let mut note = |result: Result<(PathBuf, String), Flaw>| match result {
            Ok(found) => Some(found),
            Err(found) => {
                flaw.get_or_insert(found);
                None
            }
        };
        if file.has_key {
            if let Some(found) = note(take(file.path.clone(), true)) {
                return Ok(found);
            }
        }
        let is_there = |names: &[OsString], name: &&OsString| names.binary_search(name).is_ok();
        for name in likely.iter().filter(|name| is_there(&folder.keys, name)) {
            if let Some(found) = note(take(folder.path.join(name), true)) {
                return Ok(found);
            }
        }
        let beside = self.keys_beside(&private);
        for name in likely.iter().filter(|name| is_there(&beside, name)) {
            if let Some(found) = note(take(private.join(name), true)) {
                return Ok(found);
            }
        }
        let others = folder.keys.iter().map(|name| folder.path.join(name));
        let others: Vec<_> = others.chain(beside.iter().map(|name| private.join(name))).collect();
        let is_only_one = others.len() == 1;
        for path in others {
            match take(path, false) {
                Ok(found) => return Ok(found),
                // The only key file must be the one.
                Err(found) if is_only_one => flaw = flaw.or(Some(found)),
                Err(_) => {}
            }
        }
        Err(flaw)
    }

    /// The PEM of the key in this file that matches the certificate. A key that cannot be checked is accepted only
    /// under a conventional name (`is_likely`).
    fn matching(&self, path: &Path, certificate: &Certificate, is_likely: bool) -> Result<String, Flaw> {
        let keys = self.keys_of(path);
        let fits = |key: &&super::key::Key| key.fits(&certificate.public_key).unwrap_or(is_likely);
        if let Some(key) = keys.keys.iter().find(fits) {
            let mut text = String::new();
            key.write(&mut text);
            return Ok(text);
        }
        Err(match &keys.flaw {
            Some(flaw) => {
                Flaw { why: format!("its key {} {}", path.display(), flaw.why).into(), ..flaw.clone() }
            }
            None => Flaw::incomplete(format!("{} is the key of another certificate", path.display())),
        })
    }

    /// A certificate and its issuers in order, from its own files first, then from files in their directories. A
    /// self-signed issuer is a root: it is included only if it is in one of the certificate's own files.
    fn chain(&self, leaf: usize) -> Vec<Rc<Certificate>> {
        let leaf = &self.leaves[leaf];
        let files = || leaf.files.iter().map(|file| &self.found.files[*file]);
        let mut chain = vec![Rc::clone(&leaf.certificate)];
        while chain.len() < LONGEST_CHAIN {
            let last = &chain[chain.len() - 1];
            if last.is_self_signed() {
                break;
            }
            let is_next = |other: &&Rc<Certificate>| {
                other.is_issuer_of(last) && !chain.iter().any(|known| known.der == other.der)
            };
            let own = files().flat_map(|file| &file.certificates);
            let beside = files().flat_map(|file| &self.found.folders[file.folder].issuers);
            let mut beside = beside.filter(|other| !other.is_self_signed());
            let next = own.clone().find(is_next).or_else(|| beside.find(is_next));
            let Some(next) = next.map(Rc::clone) else { break };
            chain.push(next);
        }
        chain
    }
}

/// The reason why a certificate is worse than the chosen one.
fn worse(rank: Rank, best: Rank, chosen: &Pair, certificate: &Certificate) -> Flaw {
    let path = chosen.certificate.display();
    Flaw::worse(if rank.is_expired {
        format!("expired on {}", certificate.not_after.date())
    } else if rank.is_partial != best.is_partial {
        format!("is for XMPP clients or for servers alone, {path} is for both")
    } else if rank.is_self_signed != best.is_self_signed {
        format!("is self-signed, {path} is not")
    } else if rank.not_after != best.not_after {
        format!("is replaced by {path}, which is valid longer")
    } else {
        format!("is as good as {path}")
    })
}

/// The conventional names of a certificate's key file.
fn likely_keys(folder: &Path, file: &Path) -> Vec<OsString> {
    let (Some(name), Some(stem)) =
        (file.file_name().and_then(OsStr::to_str), file.file_stem().and_then(OsStr::to_str))
    else {
        return Vec::new();
    };
    // `chat.key`, mkcert's `chat-key.pem`, and variants of it.
    let mut names: Vec<OsString> = [".key", "-key.pem", "_key.pem", ".key.pem"]
        .iter()
        .map(|end| format!("{stem}{end}").into())
        .collect();
    // certbot's and traefik-certs-dumper's names.
    for word in ["fullchain", "certificate", "cert", "chain"] {
        if name.contains(word) {
            names.push(name.replace(word, "privkey").into());
            names.push(name.replace(word, "key").into());
            names.push(format!("{}.key", stem.replace(word, "privatekey")).into());
            names.push(format!("{}.key", stem.replace(word, "privkey")).into());
            break;
        }
    }
    // acme.sh's `fullchain.cer` is in a directory with the domain's name.
    let folder = folder.file_name().unwrap_or_default().to_string_lossy();
    names.push(format!("{}.key", folder.strip_suffix("_ecc").unwrap_or(&folder)).into());
    names
}
