//! Reads files with certificates and keys as root, in directories where other users may place links.

use std::fs;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;

use super::{Flaw, pem};
use crate::os::trusted_file::{self, Error, Opened};
use crate::text::Advice;

/// The size limit of a file, in bytes. The longest chains have some 20 kB.
pub const LARGEST: u64 = 1024 * 1024;

/// The number of bytes in which the first block must begin. `openssl x509 -text` writes some 10 kB before it.
const BEGINNING: usize = 64 * 1024;

/// The content of a file.
pub enum Content {
    /// Text with a PEM block, possibly cut off, or an empty file.
    Text,
    /// A certificate or key in DER, judged by the first bytes.
    Der,
    Other,
}

/// Reads a whole file.
pub fn read_whole(path: &Path) -> Result<Vec<u8>, Flaw> {
    twice(|| {
        trusted_file::read(path, LARGEST).map_err(|error| match error {
            Error::Refused(Errno::ENOENT) if path.is_symlink() => dangling(path),
            error => error.into(),
        })
    })
}

/// Tries again at once after a flaw that may be over.
pub fn twice<T>(mut read: impl FnMut() -> Result<T, Flaw>) -> Result<T, Flaw> {
    read().or_else(|flaw| if flaw.is_incomplete { read() } else { Err(flaw) })
}

/// Reads a regular file of at most [`LARGEST`] bytes into `buffer`. Files without PEM are not read to their end.
pub fn read(file: &Opened, buffer: &mut Vec<u8>) -> Result<Content, Error> {
    buffer.clear();
    let size = file.size() as usize;
    // Reading up to the size needs no further read for the end. A size of 0, as in /proc, may be wrong.
    file.read_on(buffer, size.clamp(1, BEGINNING))?;
    if buffer.is_empty() {
        return Ok(Content::Text);
    }
    let is_binary = buffer.iter().take(64).any(|byte| *byte < b'\t');
    if is_binary || !pem::is_pem(buffer) {
        // The first line of a block may itself be cut off.
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

/// The flaw of a link whose target is missing. Often, only a part of the writer's directory is mounted: the files in
/// certbot's `live` are links to `archive`.
pub fn dangling(path: &Path) -> Flaw {
    let (target, directory) = (fs::read_link(path).unwrap_or_default(), path.parent().unwrap_or(path));
    let mut resolved = PathBuf::new();
    for part in directory.join(&target).components() {
        match part {
            Component::ParentDir => drop(resolved.pop()),
            part => resolved.push(part),
        }
    }
    let common = directory.ancestors().find(|above| resolved.starts_with(above));
    let advice = match common.filter(|common| common.parent().is_some()) {
        _ if common == Some(directory) => Advice::default(),
        _ if target.is_absolute() => advice!(": mount that too"),
        Some(common) => advice!(": mount the whole of {}", common.display()),
        None => advice!(": mount the directory that both are in"),
    };
    Flaw::incomplete(format!("is a link to {}, which is not there{advice}", resolved.display()))
}

/// Errors that may be over soon: what was short may be there again, and a disk or a network may answer.
const PASSING: [Errno; 8] = [
    Errno::EAGAIN,
    Errno::EINTR,
    Errno::EIO,
    Errno::EMFILE,
    Errno::ENFILE,
    Errno::ENOMEM,
    Errno::ESTALE,
    Errno::ETIMEDOUT,
];

impl From<Error> for Flaw {
    fn from(error: Error) -> Flaw {
        match error {
            Error::Irregular(_) => Flaw::lasting("is no regular file"),
            Error::TooLarge => Flaw::lasting("is larger than 1 MiB"),
            Error::Untrusted(owner) => Flaw::lasting(format!(
                "is reached through a link of user {owner}, who may not read it: not followed"
            )),
            Error::Refused(Errno::ENOENT) => Flaw::incomplete("is not there"),
            Error::Refused(error) if PASSING.contains(&error) => {
                Flaw::incomplete(format!("cannot be read for now: {}", error.desc()))
            }
            Error::Refused(error) => Flaw::lasting(format!("cannot be read: {}", error.desc())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_may_be_over_is_tried_again_and_settles_nothing() {
        for (errno, is_passing) in [(Errno::EMFILE, true), (Errno::EIO, true), (Errno::EACCES, false)] {
            for (failures, is_read) in [(1, is_passing), (2, false)] {
                let mut left = failures;
                let result = twice(|| {
                    left -= 1;
                    if left < 0 { Ok(()) } else { Err(Flaw::from(Error::from(errno))) }
                });
                assert_eq!(result.is_ok(), is_read, "{errno} {failures}");
                assert_eq!(
                    Flaw::from(Error::from(errno)).is_incomplete,
                    is_passing,
                    "another look follows, {errno}"
                );
            }
        }
    }
}
