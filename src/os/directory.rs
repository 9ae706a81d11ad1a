//! Directories that others may write to, opened without following what they planted there.
//!
//! A path is walked name by name through descriptors. A link on the way is followed only where nobody but root can have
//! made it; the last name is never a link.

use std::collections::VecDeque;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

/// How many links one path may lead through (path_resolution(7)).
const MAX_LINKS: usize = 40;

const FLAGS: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// Opens a directory by its absolute path.
///
/// ELOOP where its last name is a link, or where a link on the way is not root's own in a directory of root's own;
/// who is not root has no rights that a link could turn against others, and may follow those.
pub fn open(path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new().flags(FLAGS).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    match openat2(AT_FDCWD, path, how) {
        // There is a link; or an older kernel, or an engine whose filter does not know the call.
        Err(Errno::ELOOP | Errno::ENOSYS | Errno::EPERM) => walk(path),
        opened => opened,
    }
}

/// Opens a directory by its absolute path, and makes it, with this mode, where it is missing, and what is missing above.
pub fn make(path: &Path, mode: Mode) -> nix::Result<OwnedFd> {
    match (open(path), path.parent(), path.file_name()) {
        (Err(Errno::ENOENT), Some(parent), Some(name)) => {
            let parent = make(parent, Mode::from_bits_truncate(0o755))?;
            make_below(&parent, Path::new(name), mode)
        }
        (opened, ..) => opened,
    }
}

/// Opens a directory by its name in another one.
pub fn open_below(parent: impl AsFd, name: &Path) -> nix::Result<OwnedFd> {
    openat(parent, name, FLAGS | OFlag::O_NOFOLLOW, Mode::empty())
}

/// Opens a directory by its name in another one, and makes it where it is missing.
pub fn make_below(parent: impl AsFd, name: &Path, mode: Mode) -> nix::Result<OwnedFd> {
    match mkdirat(&parent, name, mode) {
        Ok(()) | Err(Errno::EEXIST) => open_below(parent, name),
        Err(error) => Err(error),
    }
}

/// The names in a directory.
pub fn entries(directory: &OwnedFd) -> nix::Result<Vec<CString>> {
    let mut entries =
        nix::dir::Dir::openat(directory, ".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let names = entries.iter().map(|entry| Ok(entry?.file_name().to_owned()));
    let is_own = |name: &nix::Result<CString>| {
        !name.as_ref().is_ok_and(|name| matches!(name.to_bytes(), b"." | b".."))
    };
    names.filter(is_own).collect()
}

/// Removes a directory, and the directories in it as long as these hold none.
pub fn remove_below(parent: impl AsFd, name: &Path) -> nix::Result<()> {
    remove_levels(parent.as_fd(), name, 2)
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

/// The error number behind an error.
pub fn errno(error: &anyhow::Error) -> Option<Errno> {
    error.chain().find_map(|cause| {
        let by_errno = cause.downcast_ref::<Errno>().copied();
        by_errno.or_else(|| cause.downcast_ref::<io::Error>()?.raw_os_error().map(Errno::from_raw))
    })
}

/// [`open`] where a link is on the way, or the kernel cannot look out for them.
fn walk(path: &Path) -> nix::Result<OwnedFd> {
    let root = || openat(AT_FDCWD, "/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    let mut left: VecDeque<OsString> = names(path);
    let mut here = root()?;
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        let next = openat(
            &here,
            name.as_os_str(),
            OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?;
        let found = fstat(&next)?;
        if !is_kind(&found, SFlag::S_IFLNK) {
            here = next;
            continue;
        }
        links += 1;
        if left.is_empty() || links > MAX_LINKS || !is_trusted(&found, &fstat(&here)?) {
            return Err(Errno::ELOOP);
        }
        let target = PathBuf::from(readlinkat(&next, "")?);
        if target.is_absolute() {
            here = root()?;
        }
        for name in names(&target).into_iter().rev() {
            left.push_front(name);
        }
    }
    openat(&here, ".", FLAGS, Mode::empty())
}

/// Whether only root can have made a link: it is root's, in a directory of root's that nobody else may write to.
fn is_trusted(link: &FileStat, directory: &FileStat) -> bool {
    !geteuid().is_root() || (link.st_uid == 0 && directory.st_uid == 0 && directory.st_mode & 0o022 == 0)
}

fn is_kind(stat: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == kind
}

/// The names of a path, one by one.
fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    /// What `open` and `walk` both say to a path: the inode, or the error.
    fn opened(path: &Path) -> Result<u64, Errno> {
        let inode = |opened: nix::Result<OwnedFd>| Ok(fstat(&opened?)?.st_ino);
        assert_eq!(inode(open(path)), inode(walk(path)), "{}", path.display());
        inode(open(path))
    }

    #[test]
    fn the_last_name_is_never_a_link() {
        let place = TestDir::new();
        fs::create_dir(place.path().join("real")).unwrap();
        symlink("real", place.path().join("link")).unwrap();
        symlink("nothing", place.path().join("dangling")).unwrap();
        fs::write(place.path().join("file"), "").unwrap();
        let inode = fs::metadata(place.path().join("real")).unwrap().ino();
        assert_eq!(opened(&place.path().join("real")), Ok(inode));
        assert_eq!(opened(&place.path().join("real/../real/.")), Ok(inode));
        assert_eq!(opened(&place.path().join("link")), Err(Errno::ELOOP));
        assert_eq!(opened(&place.path().join("dangling")), Err(Errno::ELOOP));
        assert_eq!(opened(&place.path().join("file")), Err(Errno::ENOTDIR));
        assert_eq!(opened(&place.path().join("none")), Err(Errno::ENOENT));
        assert_eq!(opened(Path::new("/")), Ok(fs::metadata("/").unwrap().ino()));
    }

    #[test]
    fn a_link_on_the_way_is_followed_where_root_alone_can_have_made_it() {
        let place = TestDir::new();
        fs::create_dir_all(place.path().join("real/below")).unwrap();
        symlink("real", place.path().join("link")).unwrap();
        let below = place.path().join("link/below");
        let inode = fs::metadata(&below).unwrap().ino();
        assert_eq!(opened(&below), Ok(inode));
        if !geteuid().is_root() {
            return;
        }
        let mode = |mode: u32| {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(place.path(), fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(0o1777);
        assert_eq!(opened(&below), Err(Errno::ELOOP), "anyone may have made it");
        mode(0o755);
        assert_eq!(opened(&below), Ok(inode));
        std::os::unix::fs::lchown(place.path().join("link"), Some(1), Some(1)).unwrap();
        assert_eq!(opened(&below), Err(Errno::ELOOP), "another user made it");
    }

    #[test]
    fn links_that_lead_round_in_circles_are_an_error() {
        let place = TestDir::new();
        symlink("b", place.path().join("a")).unwrap();
        symlink("a", place.path().join("b")).unwrap();
        assert_eq!(opened(&place.path().join("a/below")), Err(Errno::ELOOP));
    }

    #[test]
    fn what_is_missing_is_made() {
        let place = TestDir::new();
        let path = place.path().join("a/b/c");
        make(&path, Mode::S_IRWXU).unwrap();
        make(&path, Mode::S_IRWXU).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    }
}
