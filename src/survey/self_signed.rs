//! Self-signed certificates for hosts that have no other, kept below the data directory.
//!
//! The data directory belongs to Prosody's user, who is trusted less than root. So everything here is to be called with
//! the file system taking us for that user ([`crate::os::privileges::as_user`]), and besides nothing here follows a link or
//! changes a file that was there: every name is opened relative to a directory descriptor with `O_NOFOLLOW` (openat(2)),
//! and what is written is a new file that is moved into place.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{Uid, UnlinkatFlags, unlinkat};
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SignatureAlgorithm, SigningKey,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde::Serialize;
use time::{Duration, OffsetDateTime};

use crate::os::directory;
use crate::survey::certificates::pem;
use crate::survey::certificates::x509::{Certificate, Usage};

/// The directory below the data directory. No host's own can have this name: Prosody (`util/datamanager.lua`)
/// writes a host's name with everything but ASCII letters and digits percent-encoded.
const DIRECTORY: &str = "self-signed";

/// How long a certificate is valid. Who connects has to accept each new one by hand, so longer is kinder; Apple's
/// systems refuse what is valid for more than 825 days, whoever issued it
/// (<https://support.apple.com/en-us/103769>). The limit of 398 days is for public authorities alone.
const VALIDITY: Duration = Duration::days(825);

/// How far back the validity reaches, for clients whose clock is behind. It is part of the 825 days.
const CLOCK_SKEW: Duration = Duration::days(1);

/// A certificate that is valid for less than this is replaced.
const RENEWAL: Duration = Duration::days(30);

/// The longest common name that a certificate may have (RFC 5280, `ub-common-name`).
const MAX_COMMON_NAME: usize = 64;

/// A file that is larger is none of ours.
const MAX_SIZE: u64 = 64 * 1024;

/// A certificate that is to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Request {
    /// The virtual host in ASCII (`xn--…`).
    pub host: String,
    /// All names, that of the host first.
    pub names: Vec<String>,
}

/// A new certificate and its key, both as PEM.
pub struct Pair {
    /// The certificate, for everybody.
    pub certificate: String,
    /// The key (PKCS #8), for Prosody alone.
    pub key: String,
}

/// Makes a key (ECDSA, P-256) and a certificate of its own signature for `names`.
///
/// `names` are domains in ASCII (`xn--…`), the virtual host first: it becomes the common name. Each is a DNS name of
/// the subject alternative name. An error means that a name is not ASCII or that the system has no randomness.
pub fn make(names: &[&str], now: OffsetDateTime) -> Result<Pair, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.not_before = now - CLOCK_SKEW;
    params.not_after = params.not_before + VALIDITY - Duration::SECOND;
    params.distinguished_name = DistinguishedName::new();
    if let Some(host) = names.first().filter(|host| host.len() <= MAX_COMMON_NAME) {
        params.distinguished_name.push(DnType::CommonName, *host);
    }
    for name in names {
        params.subject_alt_names.push(SanType::DnsName(Ia5String::try_from(*name)?));
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Prosody is the client of the connections that it opens to other servers.
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&Signer::new(&key)?)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// What signs with a key of [`make`]. rcgen's own signing takes keys of any algorithm, and brings the arithmetic of
/// RSA and Ed25519 along.
struct Signer(EcdsaKeyPair);

impl Signer {
    fn new(key: &KeyPair) -> Result<Self, rcgen::Error> {
        let random = SystemRandom::new();
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.serialized_der(), &random)
            .map(Self)
            .map_err(|error| rcgen::Error::RingKeyRejected(error.to_string()))
    }
}

impl PublicKeyData for Signer {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Signer {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.0.sign(&SystemRandom::new(), message);
        Ok(signature.map_err(|_| rcgen::Error::RingUnspecified)?.as_ref().to_vec())
    }
}

/// The directory of self-signed certificates in a data directory.
pub struct Store {
    directory: OwnedFd,
}

impl Store {
    /// Opens the directory below `data_dir`; `None` where there is none yet.
    pub fn open(data_dir: &Path) -> io::Result<Option<Store>> {
        match directory::open(data_dir).and_then(|data| directory::open_below(data, Path::new(DIRECTORY))) {
            Ok(directory) => Ok(Some(Store { directory })),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the directory below `data_dir`, which exists; makes it, for whoever we are alone, where there is none.
    pub fn create(data_dir: &Path) -> io::Result<Store> {
        let data = directory::open(data_dir)?;
        let directory = directory::make_below(data, Path::new(DIRECTORY), Mode::S_IRWXU)?;
        Ok(Store { directory })
    }

    /// Whether the certificate kept for `host` serves: it covers all of `names`, is valid now and for another 30
    /// days, and its key is there and belongs to `uid`.
    ///
    /// `host` and `names` are in ASCII. Whatever cannot be read or understood does not serve.
    pub fn is_usable(&self, host: &str, names: &[&str], uid: Uid, now: OffsetDateTime) -> bool {
        self.covers(host, names, now).unwrap_or(false)
            && self.open_file(&key_name(host)).is_ok_and(|key| {
                key.metadata().is_ok_and(|metadata| metadata.len() > 0 && metadata.uid() == uid.as_raw())
            })
    }

    fn covers(&self, host: &str, names: &[&str], now: OffsetDateTime) -> io::Result<bool> {
        // With room for all of ours, one read is enough.
        let mut file = Vec::with_capacity(4 * 1024);
        self.open_file(&certificate_name(host))?.take(MAX_SIZE).read_to_end(&mut file)?;
        let block = pem::blocks(&file).next().and_then(|block| block.ok()?.decode());
        let Some(certificate) = block.and_then(Certificate::read) else {
            return Ok(false);
        };
        let is_valid = certificate.not_before <= now && now + RENEWAL <= certificate.not_after;
        let covers =
            |name: &&str| certificate.names.iter().any(|own| own.domain == **name && own.usage == Usage::All);
        Ok(is_valid && names.iter().all(covers))
    }

    /// Opens a regular file to read it. A FIFO, a device or a link that somebody put there is an error.
    fn open_file(&self, name: &str) -> io::Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = File::from(openat(&self.directory, name, flags, Mode::empty())?);
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(file)
    }

    /// Keeps a certificate and its key for `host` (in ASCII), owned by whoever we are.
    ///
    /// The key is in no moment readable by anybody else. The old certificate goes first and the new one comes last,
    /// so that no interruption leaves a certificate beside the key of another.
    pub fn write(&self, host: &str, pair: &Pair) -> io::Result<()> {
        self.remove(&certificate_name(host))?;
        self.replace(&key_name(host), Mode::from_bits_truncate(0o600), &pair.key)?;
        self.replace(&certificate_name(host), Mode::from_bits_truncate(0o644), &pair.certificate)
    }

    fn replace(&self, name: &str, mode: Mode, content: &str) -> io::Result<()> {
        // Left by a start that was interrupted, or planted; O_EXCL takes neither.
        const TEMPORARY: &str = ".new";
        self.remove(TEMPORARY)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(&self.directory, TEMPORARY, flags, mode)?);
        let written = file
            .write_all(content.as_bytes())
            .and_then(|()| Ok(renameat(&self.directory, TEMPORARY, &self.directory, name)?));
        if written.is_err() {
            // The first error is the one to report.
            let _ = self.remove(TEMPORARY);
        }
        written
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.directory, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The directory of certificates below a data directory.
pub fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join(DIRECTORY)
}

/// Where the certificate for `host` (in ASCII) is kept. Prosody takes the key from the same name with `.key`.
pub fn certificate_path(data_dir: &Path, host: &str) -> PathBuf {
    directory(data_dir).join(certificate_name(host))
}

fn certificate_name(host: &str) -> String {
    format!("{host}.crt")
}

fn key_name(host: &str) -> String {
    format!("{host}.key")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::privileges;
    use crate::os::users::User;
    use crate::test_dir::TestDir;
    use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
    use std::fs;
    use std::os::unix::fs::symlink;
    use x509_parser::prelude::parse_x509_pem;

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
    }

    fn me() -> Uid {
        Uid::effective()
    }

    fn pair() -> Pair {
        make(&["chat.example", "conference.chat.example"], now()).unwrap()
    }

    /// A data directory with a certificate for `chat.example` and its rooms.
    fn filled() -> (TestDir, Store) {
        let data = TestDir::new();
        let store = Store::create(data.path()).unwrap();
        store.write("chat.example", &pair()).unwrap();
        (data, store)
    }

    fn is_usable(store: &Store, names: &[&str], time: OffsetDateTime) -> bool {
        store.is_usable("chat.example", names, me(), time)
    }

    #[test]
    fn what_was_written_is_usable_as_long_as_it_fits() {
        let (data, _) = filled();
        let store = Store::open(data.path()).unwrap().unwrap();

        assert!(is_usable(&store, &["chat.example", "conference.chat.example"], now()));
        assert!(is_usable(&store, &["chat.example"], now() + Duration::days(793)));
        assert!(!is_usable(&store, &["chat.example"], now() + Duration::days(795)));
        assert!(!is_usable(&store, &["chat.example"], now() - Duration::days(2)));
        assert!(!is_usable(&store, &["chat.example", "upload.chat.example"], now()));
        assert!(!store.is_usable("other.example", &[], me(), now()));
        let somebody_else = Uid::from_raw(me().as_raw() + 1);
        assert!(!store.is_usable("chat.example", &[], somebody_else, now()));
    }

    #[test]
    fn the_certificate_is_for_its_key_and_signed_with_it() {
        let pair = pair();
        let (_, certificate) = parse_x509_pem(pair.certificate.as_bytes()).unwrap();
        let certificate = certificate.parse_x509().unwrap();
        let (_, key) = parse_x509_pem(pair.key.as_bytes()).unwrap();
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &key.contents, &random).unwrap();

        let public_key = &certificate.public_key().subject_public_key.data;
        assert_eq!(public_key.as_ref(), key.public_key().as_ref());
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public_key)
            .verify(certificate.tbs_certificate.as_ref(), &certificate.signature_value.data)
            .unwrap();
    }

    #[test]
    fn the_key_is_private_and_nothing_else_is_left() {
        let (data, _) = filled();
        let directory = data.path().join("self-signed");
        assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
        let key = fs::metadata(directory.join("chat.example.key")).unwrap();
        assert_eq!(key.mode() & 0o777, 0o600);
        let mut names: Vec<_> =
            fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["chat.example.crt", "chat.example.key"]);
        assert_eq!(certificate_path(data.path(), "chat.example"), directory.join("chat.example.crt"));
    }

    #[test]
    fn a_certificate_is_replaced_with_its_key() {
        let (data, store) = filled();
        let pair = make(&["chat.example", "upload.chat.example"], now()).unwrap();
        store.write("chat.example", &pair).unwrap();
        assert!(is_usable(&store, &["upload.chat.example"], now()));
        let directory = data.path().join("self-signed");
        assert_eq!(fs::read_to_string(directory.join("chat.example.key")).unwrap(), pair.key);
        assert_eq!(fs::read_to_string(directory.join("chat.example.crt")).unwrap(), pair.certificate);
    }

    #[test]
    fn a_file_that_is_damaged_or_missing_is_not_usable() {
        for (name, content) in [
            ("chat.example.crt", Some("")),
            ("chat.example.crt", Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")),
            ("chat.example.crt", None),
            ("chat.example.key", Some("")),
            ("chat.example.key", None),
        ] {
            let (data, store) = filled();
            let path = data.path().join("self-signed").join(name);
            match content {
                Some(content) => fs::write(path, content).unwrap(),
                None => fs::remove_file(path).unwrap(),
            }
            assert!(!is_usable(&store, &["chat.example"], now()), "{name}: {content:?}");
        }
    }

    #[test]
    fn a_planted_link_or_fifo_is_neither_followed_nor_waited_for() {
        let (data, store) = filled();
        data.write("victim", "precious");
        let directory = data.path().join("self-signed");
        for name in ["chat.example.crt", "chat.example.key"] {
            let elsewhere = data.path().join(name);
            fs::rename(directory.join(name), &elsewhere).unwrap();
            symlink(&elsewhere, directory.join(name)).unwrap();
            assert!(!is_usable(&store, &["chat.example"], now()), "{name}");
            fs::rename(&elsewhere, directory.join(name)).unwrap();
            assert!(is_usable(&store, &["chat.example"], now()), "{name}");
        }
        for name in ["chat.example.crt", "chat.example.key", ".new"] {
            let _ = fs::remove_file(directory.join(name));
            symlink("../victim", directory.join(name)).unwrap();
        }
        store.write("chat.example", &make(&["chat.example"], now()).unwrap()).unwrap();
        assert!(is_usable(&store, &["chat.example"], now()));
        assert_eq!(fs::read_to_string(data.path().join("victim")).unwrap(), "precious");
        assert!(!fs::symlink_metadata(directory.join("chat.example.key")).unwrap().is_symlink());

        fs::remove_file(directory.join("chat.example.crt")).unwrap();
        nix::unistd::mkfifo(&directory.join("chat.example.crt"), Mode::S_IRUSR).unwrap();
        assert!(!is_usable(&store, &["chat.example"], now()));
    }

    #[test]
    fn a_planted_directory_link_is_refused() {
        let data = TestDir::new();
        let elsewhere = TestDir::new();
        symlink(elsewhere.path(), data.path().join("self-signed")).unwrap();
        assert!(Store::create(data.path()).is_err());
        assert!(Store::open(data.path()).is_err());
    }

    #[test]
    fn an_absent_data_directory_has_no_store() {
        let data = TestDir::new();
        assert!(Store::open(data.path()).unwrap().is_none());
        assert!(Store::open(&data.path().join("absent")).unwrap().is_none());
    }

    #[test]
    fn files_belong_to_whom_the_file_system_takes_us_for() {
        if !me().is_root() {
            return;
        }
        let data = TestDir::new();
        let user = User { name: None, uid: 12345, gid: 12346 };
        let write = || Store::create(data.path()).and_then(|store| store.write("chat.example", &pair()));
        let refused = privileges::as_user(&user, write).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied, "the data directory is not its own");

        std::os::unix::fs::chown(data.path(), Some(12345), Some(12346)).unwrap();
        privileges::as_user(&user, write).unwrap();
        for name in ["", "chat.example.crt", "chat.example.key"] {
            let made = fs::metadata(data.path().join("self-signed").join(name)).unwrap();
            assert_eq!((made.uid(), made.gid()), (12345, 12346), "{name}");
        }
        let mine = data.path().join("mine");
        fs::write(&mine, "").unwrap();
        assert_eq!(fs::metadata(&mine).unwrap().uid(), 0, "afterwards we are ourselves");
    }

    #[test]
    fn a_name_that_is_not_ascii_is_refused_and_a_long_one_is_no_common_name() {
        assert!(make(&["jörg.example"], now()).is_err());
        let long = format!("{}.example", "a".repeat(60));
        let pair = make(&[&long], now()).unwrap();
        let (_, pem) = parse_x509_pem(pair.certificate.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        assert_eq!(certificate.subject().iter_common_name().count(), 0);
        assert!(certificate.subject_alternative_name().unwrap().is_some());
    }
}
