//! Files of certificates and keys, which root reads where others may have put links.

use std::path::Path;

use nix::errno::Errno;

use super::{Flaw, pem};
use crate::os::trusted_file::{self, Error, Links, Opened};

/// A larger file is not read: the longest chains have some 20 kB.
pub const LARGEST: u64 = 1024 * 1024;

/// How much is read of a file before a certificate or key has begun. `openssl x509 -text` writes some 10 kB.
const BEGINNING: usize = 64 * 1024;

/// What a file has in it.
pub enum Content {
    /// Text with a block of PEM in it, or nothing at all.
    Text,
    /// A certificate or key in DER, as far as the first bytes tell.
    Der,
    /// Something else.
    Other,
}

/// Reads a key by its path.
pub fn read_key(path: &Path) -> Result<Vec<u8>, Flaw> {
    trusted_file::read(path, Links::OfReaders, LARGEST).map_err(flaw)
}

/// Reads a regular file into `buffer`, to its end if there is PEM in it. It is not larger than [`LARGEST`].
pub fn read(file: &Opened, buffer: &mut Vec<u8>) -> Result<Content, Error> {
    buffer.clear();
    let size = file.size() as usize;
    // Of what has its size no end needs to be read. What says that it is empty, as in /proc, need not be.
    file.read_on(buffer, size.clamp(1, BEGINNING))?;
    if buffer.is_empty() {
        return Ok(Content::Text);
    }
    let is_binary = buffer.iter().take(64).any(|byte| *byte < b'\t');
    if is_binary || !pem::is_pem(buffer) {
        // What begins a block may itself be cut off.
        let is_cut_off = buffer.starts_with(b"-----BEGIN") || b"-----BEGIN".starts_with(buffer);
        return Ok(match buffer.starts_with(&[0x30, 0x82]) {
            true => Content::Der,
            false if is_cut_off && !is_binary => Content::Text,
            false => Content::Other,
        });
    }
    file.read_on(buffer, size)?;
    Ok(Content::Text)
}

/// What is wrong with a file that is not read.
pub fn flaw(error: Error) -> Flaw {
    match error {
        Error::Irregular(_) => Flaw::lasting("is no regular file"),
        Error::TooLarge => Flaw::lasting("is larger than 1 MiB"),
        Error::Untrusted(owner) => Flaw::lasting(format!(
            "is reached through a link of user {owner}, who may not read it: not followed"
        )),
        Error::Refused(Errno::ENOENT) => Flaw::incomplete("is not there, or a link to nothing"),
        Error::Refused(error) => Flaw::lasting(format!("cannot be read: {}", error.desc())),
    }
}
