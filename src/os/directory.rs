//! Opens directories that other users can write to, without following planted links.
//!
//! For root, a link on the way is followed only if root alone can have created it. The last name is never a link.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::trusted_file::{DIRECTORY, Error, Links, descriptor, trust};

/// Opens a directory by its absolute path.
/// Errors: ELOOP if the last name is a link, or for root, if another user can have created a link on the way.
pub fn open(path: &Path) -> nix::Result<OwnedFd> {
    Ok(descriptor(path, DIRECTORY, Links::OfRoot)?.0)
}

/// The names in a directory, except `.` and `..`. Links are followed as for files that are read
/// ([`Links::OfReaders`]).
pub fn list(path: &Path) -> Result<Vec<OsString>, Error> {
    let (directory, owners) = descriptor(path, DIRECTORY, Links::OfReaders)?;
    trust(&fstat(&directory)?, &owners, 0o005)?;
    let name = |name: CString| OsString::from_vec(name.into_bytes());
    // On FUSE, each opening is a trip to another process.
    Ok(names(Dir::from_fd(directory)?)?.into_iter().map(name).collect())
}

/// Opens a directory by its absolute path. Creates a missing one with this mode, and its missing parents with 0755.
pub fn make(path: &Path, mode: Mode) -> nix::Result<OwnedFd> {
    match (open(path), path.parent(), path.file_name()) {
        (Err(Errno::ENOENT), Some(parent), Some(name)) => {
            let parent = make(parent, Mode::from_bits_truncate(0o755))?;
            make_below(&parent, Path::new(name), mode)
        }
        (opened, ..) => opened,
    }
}

pub fn open_below(parent: impl AsFd, name: &Path) -> nix::Result<OwnedFd> {
    openat(parent, name, DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty())
}

/// Opens a directory by its name in another. Creates a missing one with this mode.
pub fn make_below(parent: impl AsFd, name: &Path, mode: Mode) -> nix::Result<OwnedFd> {
    match mkdirat(&parent, name, mode) {
        Ok(()) | Err(Errno::EEXIST) => open_below(parent, name),
        Err(error) => Err(error),
    }
}

/// The names in a directory, except `.` and `..`.
pub fn entries(directory: &OwnedFd) -> nix::Result<Vec<CString>> {
    names(Dir::openat(directory, ".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?)
}

fn names(mut directory: Dir) -> nix::Result<Vec<CString>> {
    let names = directory.iter().map(|entry| Ok(entry?.file_name().to_owned()));
    let is_entry = |name: &nix::Result<CString>| {
        !name.as_ref().is_ok_and(|name| matches!(name.to_bytes(), b"." | b".."))
    };
    names.filter(is_entry).collect()
}

/// Removes a directory with everything in it, up to 64 levels: each needs an open descriptor.
pub fn remove_below(parent: impl AsFd, name: &Path) -> nix::Result<()> {
    remove_levels(parent.as_fd(), name, 64)
}

fn remove_levels(parent: BorrowedFd, name: &Path, levels: usize) -> nix::Result<()> {
    let directory = open_below(parent, name)?;
    for name in entries(&directory)? {
        match unlinkat(&directory, name.as_c_str(), UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR) if levels > 1 => {
                remove_levels(directory.as_fd(), Path::new(OsStr::from_bytes(name.to_bytes())), levels - 1)?;
            }
            removed => removed?,
        }
    }
    unlinkat(parent, name, UnlinkatFlags::RemoveDir)
}

/// The error number in an error's chain of causes.
pub fn errno(error: &anyhow::Error) -> Option<Errno> {
    error.chain().find_map(|cause| {
        let by_errno = cause.downcast_ref::<Errno>().copied();
        by_errno.or_else(|| cause.downcast_ref::<io::Error>()?.raw_os_error().map(Errno::from_raw))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::TestDir;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn missing_directories_are_created() {
        let place = TestDir::new();
        let path = place.path().join("a/b/c");
        make(&path, Mode::S_IRWXU).unwrap();
        make(&path, Mode::S_IRWXU).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    }
}
