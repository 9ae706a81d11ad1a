//! Self-signed certificates for hosts that have no other, kept below the data directory.
//!
//! The data directory belongs to Prosody's user, who is trusted less than root. So everything here is to be called with
//! the file system taking us for that user ([`crate::os::privileges::as_user`]), and besides nothing here follows a link: every
//! name is opened relative to a directory descriptor with `O_NOFOLLOW` (openat(2)).

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::Uid;
use time::{Duration, OffsetDateTime};

use super::pem;
use super::x509::{Certificate, Usage};
use crate::layout::{SELF_SIGNED_DIR, self_signed_certificate, self_signed_key};
use crate::os::directory;

/// A certificate that is valid for less than this is replaced.
const RENEWAL: Duration = Duration::days(30);

/// A file that is larger is none of ours.
const MAX_SIZE: u64 = 64 * 1024;

/// The directory of self-signed certificates in a data directory.
pub struct Store {
    directory: OwnedFd,
}

impl Store {
    /// Opens the directory below `data_dir`; `None` where there is none yet.
    pub fn open(data_dir: &Path) -> io::Result<Option<Store>> {
        match directory::open(data_dir)
            .and_then(|data| directory::open_below(data, Path::new(SELF_SIGNED_DIR)))
        {
            Ok(directory) => Ok(Some(Store { directory })),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the certificate kept for `host` serves: it covers all of `names`, is valid now and for another 30
    /// days, and its key is there and belongs to `uid`.
    ///
    /// `host` and `names` are in ASCII. Whatever cannot be read or understood does not serve.
    pub fn is_usable(&self, host: &str, names: &[&str], uid: Uid, now: OffsetDateTime) -> bool {
        self.covers(host, names, now).unwrap_or(false)
            && self.open_file(&self_signed_key(host)).is_ok_and(|key| {
                key.metadata().is_ok_and(|metadata| metadata.len() > 0 && metadata.uid() == uid.as_raw())
            })
    }

    fn covers(&self, host: &str, names: &[&str], now: OffsetDateTime) -> io::Result<bool> {
        // With room for all of ours, one read is enough.
        let mut file = Vec::with_capacity(4 * 1024);
        self.open_file(&self_signed_certificate(host))?.take(MAX_SIZE).read_to_end(&mut file)?;
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
}
