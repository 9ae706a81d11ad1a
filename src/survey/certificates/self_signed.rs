//! Checks the self-signed certificates for hosts without another certificate. They are below the data directory.
//!
//! The data directory belongs to Prosody's user, who is trusted less than root. So call everything here with that
//! user's file system privileges ([`crate::os::privileges::as_user`]). In addition, no link is followed: every name is
//! opened relative to a directory descriptor with `O_NOFOLLOW` (openat(2)).

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::Uid;
use time::{Duration, OffsetDateTime};

use super::pem;
use super::x509::{Certificate, Name, Usage};
use crate::layout::{SELF_SIGNED_DIR, self_signed_certificate, self_signed_key};
use crate::os::directory;
use crate::os::trusted_file::{Error, Opened, open_below};

/// A certificate is replaced if it remains valid for less than this.
const RENEWAL: Duration = Duration::days(30);

/// The size limit of a file, in bytes. We write no larger ones.
const MAX_SIZE: u64 = 64 * 1024;

/// The directory of self-signed certificates in a data directory.
pub struct Store {
    directory: OwnedFd,
}

impl Store {
    /// Opens the directory below `data_dir`. `None` if it does not exist yet.
    pub fn open(data_dir: &Path) -> io::Result<Option<Store>> {
        let look = || {
            directory::open(data_dir).and_then(|data| directory::open_below(data, Path::new(SELF_SIGNED_DIR)))
        };
        match or_again(look) {
            Ok(directory) => Ok(Some(Store { directory })),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the certificate for `host` can be used: it covers all of `names`, is valid now and for another 30 days,
    /// and its key exists and belongs to `uid`. An unreadable certificate cannot be used.
    ///
    /// `host` and `names` are in ASCII.
    pub fn is_usable(&self, host: &str, names: &[impl AsRef<str>], uid: Uid, now: OffsetDateTime) -> bool {
        let look = || {
            let key = self.open_file(&self_signed_key(host))?.stat;
            let is_ours = key.st_size > 0 && key.st_uid == uid.as_raw();
            Ok::<bool, Error>(is_ours && self.covers(host, names, now)?)
        };
        or_again(look).unwrap_or(false)
    }

    fn covers(&self, host: &str, names: &[impl AsRef<str>], now: OffsetDateTime) -> Result<bool, Error> {
        let file = self.open_file(&self_signed_certificate(host))?.beginning(MAX_SIZE)?;
        let block = pem::blocks(&file).next().and_then(|block| block.ok()?.decode());
        let Some(certificate) = block.and_then(Certificate::read) else { return Ok(false) };
        let is_valid = certificate.not_before <= now && now + RENEWAL <= certificate.not_after;
        let own = |name: &str| Name { domain: name.to_owned(), usage: Usage::All };
        Ok(is_valid && names.iter().all(|name| certificate.names.contains(&own(name.as_ref()))))
    }

    /// Opens a regular file for reading. A FIFO, a device or a link is an error.
    fn open_file(&self, name: &str) -> Result<Opened, Error> {
        open_below(&self.directory, name, OFlag::O_NOFOLLOW)?.regular()
    }
}

/// Looks again after an error. One that is over at once, such as too many open files, does not replace a certificate.
fn or_again<T, E>(look: impl Fn() -> Result<T, E>) -> Result<T, E> {
    look().or_else(|_| look())
}
