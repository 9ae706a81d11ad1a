//! Files and directories opened as root, where others may have put links.
//!
//! Who owns a link could make us read, for him, what he may not. So where we are root, what is reached through the link
//! of another user is taken only if it is his own, or readable by everybody.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::geteuid;

use super::{Flaw, pem};
use crate::text::reason;

/// A larger file is not read: the longest chains have some 20 kB.
pub const LARGEST: usize = 1024 * 1024;

/// How much is read of a file before a certificate or key has begun. `openssl x509 -text` writes some 10 kB.
const BEGINNING: usize = 64 * 1024;

/// How many links one path may lead through (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// To read a file, and never to wait for one that is none.
pub const FILE: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY).union(OFlag::O_CLOEXEC);

/// To read a directory.
pub const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// To look at something, be it a link.
const STEP: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// The users, other than root, who own links on the way to something; nobody where we are not root.
pub type Owners = Vec<u32>;

/// What a file has in it.
pub enum Content {
    /// Text with a block of PEM in it, or nothing at all.
    Text,
    /// A certificate or key in DER, as far as the first bytes tell.
    Der,
    /// Something else.
    Other,
}

/// Opens a file or directory by its path, with who owns the links on the way.
pub fn open(path: &Path, flags: OFlag) -> nix::Result<(OwnedFd, Owners)> {
    if !geteuid().is_root() {
        return Ok((openat(AT_FDCWD, path, flags, Mode::empty())?, Owners::new()));
    }
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    match openat2(AT_FDCWD, path, how) {
        // There is a link; or an older kernel, or an engine whose filter does not know the call.
        Err(Errno::ELOOP) => through_last_link(path, flags).or_else(|_| walk(path, flags)),
        Err(Errno::ENOSYS | Errno::EPERM) => walk(path, flags),
        opened => Ok((opened?, Owners::new())),
    }
}

/// [`open`] where the only link is the last name, as with certbot: a tenth of the calls of [`walk`].
fn through_last_link(path: &Path, flags: OFlag) -> nix::Result<(OwnedFd, Owners)> {
    let how = |flags| OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let (parent, name) = path.parent().zip(path.file_name()).ok_or(Errno::EINVAL)?;
    let parent = openat2(AT_FDCWD, parent, how(OFlag::O_PATH | OFlag::O_CLOEXEC))?;
    // The link itself, so that its owner and its text are of one and the same.
    let link = openat(&parent, name, STEP, Mode::empty())?;
    let owner = fstat(&link)?.st_uid;
    let target = readlinkat(&link, "")?;
    let opened = openat2(&parent, target.as_os_str(), how(flags))?;
    Ok((opened, if owner == 0 { Owners::new() } else { vec![owner] }))
}

/// [`open`], name by name.
fn walk(path: &Path, flags: OFlag) -> nix::Result<(OwnedFd, Owners)> {
    let start =
        |path: &Path| openat(AT_FDCWD, if path.is_absolute() { "/" } else { "." }, STEP, Mode::empty());
    let mut here = start(path)?;
    let mut left = names(path);
    let mut owners = Owners::new();
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        let next = openat(&here, name.as_os_str(), STEP, Mode::empty())?;
        let stat = fstat(&next)?;
        if kind(&stat) != SFlag::S_IFLNK {
            if left.is_empty() {
                let opened = openat(&here, name.as_os_str(), flags | OFlag::O_NOFOLLOW, Mode::empty())?;
                return Ok((opened, owners));
            }
            here = next;
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(Errno::ELOOP);
        }
        if stat.st_uid != 0 && !owners.contains(&stat.st_uid) {
            owners.push(stat.st_uid);
        }
        let target = readlinkat(&next, "")?;
        let target = Path::new(&target);
        if target.is_absolute() {
            here = start(target)?;
        }
        for name in names(target).into_iter().rev() {
            left.push_front(name);
        }
    }
    Ok((openat(&here, ".", flags, Mode::empty())?, owners))
}

/// Why something reached through links of these users is not taken; `rights` are those that everybody has to have.
pub fn refusal(stat: &FileStat, owners: &[u32], rights: u32) -> Option<Flaw> {
    let owner = owners.iter().find(|owner| stat.st_uid != **owner && stat.st_mode & rights != rights)?;
    Some(Flaw::lasting(format!(
        "is reached through a link of user {owner}, who may not read it: not followed"
    )))
}

/// Reads a key by its path.
pub fn read_key(path: &Path) -> Result<Vec<u8>, Flaw> {
    let (file, owners) = open(path, FILE).map_err(unreadable)?;
    let stat = fstat(&file).map_err(unreadable)?;
    if kind(&stat) != SFlag::S_IFREG {
        return Err(Flaw::lasting("is no regular file"));
    }
    if let Some(refusal) = refusal(&stat, &owners, 0o004) {
        return Err(refusal);
    }
    if usize::try_from(stat.st_size).map_or(true, |size| size > LARGEST) {
        return Err(Flaw::lasting("is larger than 1 MiB"));
    }
    let mut content = Vec::new();
    let read = File::from(file).take(LARGEST as u64).read_to_end(&mut content);
    read.map_err(|error| Flaw::lasting(format!("cannot be read: {}", reason(&error))))?;
    Ok(content)
}

/// Reads a regular file into `buffer`, to its end if there is PEM in it. It is not larger than [`LARGEST`].
pub fn read(file: &mut File, stat: &FileStat, buffer: &mut Vec<u8>) -> io::Result<Content> {
    buffer.clear();
    let size = usize::try_from(stat.st_size).unwrap_or(0);
    // Of what has its size no end needs to be read. What says that it is empty, as in /proc, need not be.
    let expected = size.clamp(1, BEGINNING);
    while buffer.len() < expected {
        if read_some(file, expected - buffer.len(), buffer)? == 0 {
            break;
        }
        if buffer.iter().take(64).any(|byte| *byte < b'\t') {
            return Ok(if buffer.starts_with(&[0x30, 0x82]) { Content::Der } else { Content::Other });
        }
    }
    if buffer.is_empty() {
        return Ok(Content::Text);
    }
    if !pem::is_pem(buffer) {
        // What begins a block may itself be cut off.
        let is_cut_off = buffer.starts_with(b"-----BEGIN") || b"-----BEGIN".starts_with(buffer);
        let is_der = buffer.starts_with(&[0x30, 0x82]);
        return Ok(match (is_der, is_cut_off) {
            (true, _) => Content::Der,
            (_, true) => Content::Text,
            _ => Content::Other,
        });
    }
    while buffer.len() < size {
        if read_some(file, size - buffer.len(), buffer)? == 0 {
            break;
        }
    }
    Ok(Content::Text)
}

fn read_some(file: &mut File, wanted: usize, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let start = buffer.len();
    buffer.resize(start + wanted, 0);
    let read = file.read(&mut buffer[start..]);
    buffer.truncate(start + read.as_ref().copied().unwrap_or(0));
    read
}

/// Why a file cannot be read.
pub fn unreadable(error: Errno) -> Flaw {
    match error {
        Errno::ENOENT => Flaw::incomplete("is not there, or a link to nothing"),
        error => Flaw::lasting(format!("cannot be read: {}", error.desc())),
    }
}

/// What a file is.
pub fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// The text of a link; nothing where it is none.
pub fn target(directory: impl AsFd, name: &OsStr) -> Option<OsString> {
    readlinkat(directory, name).ok()
}

/// The names of a path, one by one.
fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}
