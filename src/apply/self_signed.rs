//! Makes self-signed certificates and stores them below the data directory.
//!
//! Like the reader, [`crate::survey::certificates::self_signed`], this runs as Prosody's user and follows no links.
//! It changes no existing file: it writes a new one and renames it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::fcntl::{AtFlags, Flock, FlockArg, renameat};
use nix::sys::stat::{Mode, fstatat};
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

use super::{clear, create};
use crate::layout::{SELF_SIGNED_DIR, self_signed_certificate, self_signed_key};
use crate::os::directory;

/// The validity of a certificate. Users accept each new certificate by hand, so it is as long as possible: Apple's
/// systems refuse any certificate that is valid for more than 825 days (<https://support.apple.com/en-us/103769>).
/// The limit of 398 days applies only to public authorities.
const VALIDITY: Duration = Duration::days(825);

/// Backdating of the validity, for clients with a slow clock. It is part of the 825 days.
const CLOCK_SKEW: Duration = Duration::days(1);

/// The longest allowed common name (RFC 5280, `ub-common-name`).
const MAX_COMMON_NAME: usize = 64;

/// A new certificate and its key, both as PEM.
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// Makes a key (ECDSA, P-256) and a self-signed certificate for `names`.
///
/// `names` are domains in ASCII (`xn--…`). All become DNS names of the subject alternative name; the first, the virtual
/// host, becomes the common name. Fails if a name is not ASCII, or if the system has no randomness.
pub fn make(names: &[impl AsRef<str>], now: OffsetDateTime) -> Result<Pair, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.not_before = now - CLOCK_SKEW;
    params.not_after = params.not_before + VALIDITY - Duration::SECOND;
    params.distinguished_name = DistinguishedName::new();
    if let Some(host) = names.first().map(AsRef::as_ref).filter(|host| host.len() <= MAX_COMMON_NAME) {
        params.distinguished_name.push(DnType::CommonName, host);
    }
    for name in names {
        params.subject_alt_names.push(SanType::DnsName(Ia5String::try_from(name.as_ref())?));
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Prosody is the client in its connections to other servers.
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// Writes to the directory of self-signed certificates in a data directory.
pub struct Writer {
    directory: OwnedFd,
    /// Shards that start together have the same directory. `None` if the file system has no locks.
    _lock: Option<Flock<OwnedFd>>,
}

impl Writer {
    /// Opens the directory below `data_dir`, which must exist. Creates a missing directory, private to our user. Waits for
    /// another server that writes there.
    pub fn create(data_dir: &Path) -> io::Result<Writer> {
        let data = directory::open(data_dir)?;
        let directory = directory::make_below(data, Path::new(SELF_SIGNED_DIR), Mode::S_IRWXU)?;
        let lock = Flock::lock(directory.try_clone()?, FlockArg::LockExclusive).ok();
        Ok(Writer { directory, _lock: lock })
    }

    /// Whether `host` has a certificate that is not older than `time`, to a second: clocks of files are coarse.
    pub fn has_made(&self, host: &str, time: OffsetDateTime) -> bool {
        let found = fstatat(&self.directory, &*self_signed_certificate(host), AtFlags::AT_SYMLINK_NOFOLLOW);
        found.is_ok_and(|found| found.st_mtime > time.unix_timestamp() - 1)
    }

    /// Stores a certificate and its key for `host` (in ASCII), owned by our user.
    ///
    /// The key is never readable for others. The old certificate is removed first and the new one written last, so that
    /// an interruption cannot leave a certificate with a wrong key.
    pub fn write(&self, host: &str, pair: &Pair) -> io::Result<()> {
        clear(&self.directory, self_signed_certificate(host))?;
        self.replace(&self_signed_key(host), 0o600, &pair.key)?;
        self.replace(&self_signed_certificate(host), 0o644, &pair.certificate)
    }

    fn replace(&self, name: &str, mode: u32, content: &str) -> io::Result<()> {
        // A file from an interrupted start, or an attacker's, which is not overwritten.
        const TEMPORARY: &str = ".new";
        clear(&self.directory, TEMPORARY)?;
        let written = create(&self.directory, TEMPORARY, Mode::from_bits_truncate(mode), content)
            .and_then(|_| Ok(renameat(&self.directory, TEMPORARY, &self.directory, name)?));
        written.inspect_err(|_| {
            // The first error is the one to report.
            let _ = clear(&self.directory, TEMPORARY);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::privileges;
    use crate::os::users::User;
    use crate::survey::certificates::self_signed::Store;
    use crate::tests::TestDir;
    use nix::unistd::Uid;
    use ring::rand::SystemRandom;
    use ring::signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
    };
    use std::fs;
    use std::os::unix::fs::MetadataExt;
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
    fn filled() -> (TestDir, Writer, Store) {
        let data = TestDir::new();
        let writer = Writer::create(data.path()).unwrap();
        writer.write("chat.example", &pair()).unwrap();
        let store = Store::open(data.path()).unwrap().unwrap();
        (data, writer, store)
    }

    fn is_usable(store: &Store, names: &[&str], time: OffsetDateTime) -> bool {
        store.is_usable("chat.example", names, me(), time)
    }

    #[test]
    fn a_stored_certificate_is_usable_while_it_fits() {
        let (_data, _, store) = filled();

        assert!(is_usable(&store, &["chat.example", "conference.chat.example"], now()));
        assert!(is_usable(&store, &["chat.example"], now() + Duration::days(793)));
        assert!(!is_usable(&store, &["chat.example"], now() + Duration::days(795)));
        assert!(!is_usable(&store, &["chat.example"], now() - Duration::days(2)));
        assert!(!is_usable(&store, &["chat.example", "upload.chat.example"], now()));
        assert!(!store.is_usable("other.example", &[""; 0], me(), now()));
        let somebody_else = Uid::from_raw(me().as_raw() + 1);
        assert!(!store.is_usable("chat.example", &[""; 0], somebody_else, now()));
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
    fn the_key_is_private_and_no_other_file_is_left() {
        let (data, ..) = filled();
        let directory = data.path().join("self-signed");
        assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
        let key = fs::metadata(directory.join("chat.example.key")).unwrap();
        assert_eq!(key.mode() & 0o777, 0o600);
        let mut names: Vec<_> =
            fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["chat.example.crt", "chat.example.key"]);
    }

    #[test]
    fn a_certificate_is_replaced_with_its_key() {
        let (data, writer, store) = filled();
        let pair = make(&["chat.example", "upload.chat.example"], now()).unwrap();
        writer.write("chat.example", &pair).unwrap();
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
            let (data, _, store) = filled();
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
        let (data, writer, store) = filled();
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
        writer.write("chat.example", &make(&["chat.example"], now()).unwrap()).unwrap();
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
        assert!(Writer::create(data.path()).is_err());
        assert!(Store::open(data.path()).is_err());
    }

    #[test]
    fn an_absent_data_directory_has_no_store() {
        let data = TestDir::new();
        assert!(Store::open(data.path()).unwrap().is_none());
        assert!(Store::open(&data.path().join("absent")).unwrap().is_none());
    }

    #[test]
    fn files_belong_to_our_file_system_user() {
        if !me().is_root() {
            return;
        }
        let data = TestDir::new();
        let user = User { uid: 12345, gid: 12346 };
        let write = || Writer::create(data.path()).and_then(|writer| writer.write("chat.example", &pair()));
        let refused = privileges::as_user(&user, write).unwrap().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied, "the data directory is not its own");

        std::os::unix::fs::chown(data.path(), Some(12345), Some(12346)).unwrap();
        privileges::as_user(&user, write).unwrap().unwrap();
        for name in ["", "chat.example.crt", "chat.example.key"] {
            let made = fs::metadata(data.path().join("self-signed").join(name)).unwrap();
            assert_eq!((made.uid(), made.gid()), (12345, 12346), "{name}");
        }
        let mine = data.path().join("mine");
        fs::write(&mine, "").unwrap();
        assert_eq!(fs::metadata(&mine).unwrap().uid(), 0, "afterwards we are ourselves");
    }

    #[test]
    fn names_must_be_ascii_and_long_ones_are_no_common_name() {
        assert!(make(&["jörg.example"], now()).is_err());
        let long = format!("{}.example", "a".repeat(60));
        let pair = make(&[&long], now()).unwrap();
        let (_, pem) = parse_x509_pem(pair.certificate.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        assert_eq!(certificate.subject().iter_common_name().count(), 0);
        assert!(certificate.subject_alternative_name().unwrap().is_some());
    }

    #[test]
    fn what_another_server_has_made_meanwhile_stays() {
        let place = TestDir::new();
        let writer = Writer::create(place.path()).unwrap();
        let time = OffsetDateTime::now_utc();
        assert!(!writer.has_made("a.example", time));
        writer.write("a.example", &make(&["a.example"], time).unwrap()).unwrap();
        assert!(writer.has_made("a.example", time));
        assert!(!writer.has_made("a.example", time + Duration::seconds(5)));
    }
}
