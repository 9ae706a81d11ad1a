//! Opens files and directories that other users may have replaced.
//!
//! Opening never waits, and reading stops at a limit. The owner of a link could make root read or write files that the
//! owner cannot. So root follows a link of another user only to what that user can read.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::{Uid, geteuid, setfsuid};

use crate::text::Advice;

/// The size limit for files that are read whole, in bytes. It is far above any expected size.
pub const LARGEST: u64 = 16 * 1024 * 1024;

/// The number of bytes per read if the size is unknown.
const CHUNK: usize = 8 * 1024;

/// The limit of links in one path (path_resolution(7)).
pub(super) const MAX_LINKS: usize = 40;

/// Flags to read a directory.
pub const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// Flags to read a file. Without `O_NONBLOCK`, opening a FIFO would wait for a writer (open(2)).
const FILE: OFlag = OFlag::O_RDONLY.union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY).union(OFlag::O_CLOEXEC);

/// Flags to get the status of any entry, even a link.
const STEP: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// The links to follow. Only root has privileges that a link could abuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// For root, its own links, and links whose owner may read the target. For other users, and for root with another
    /// user's file permissions ([`super::privileges::as_user`]), every link.
    OfReaders,
    /// For root, links that only root can have created. For all users, the last name must not be a link.
    OfRoot,
}

/// The uids of the owners of followed links, except root. Empty if they do not matter.
pub type Owners = Vec<u32>;

/// The type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Regular,
    Directory,
    Link,
    Fifo,
    Socket,
    Device,
}

/// The reason why a file is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    Irregular(Kind),
    TooLarge,
    /// A link of this uid leads to it, but this uid may not read it.
    Untrusted(u32),
    /// The kernel refuses it. This includes dangling links (ENOENT) and sockets (ENXIO, open(2)).
    Refused(Errno),
}

/// An open file and its status.
#[derive(Debug)]
pub struct Opened {
    file: OwnedFd,
    pub stat: FileStat,
}

/// Opens any type of file, through [`Links::OfReaders`].
pub fn open(path: &Path) -> Result<Opened, Error> {
    let (descriptor, owners) = descriptor(path, FILE, Links::OfReaders)?;
    let opened = Opened::of(descriptor)?;
    trust(&opened.stat, &owners, 0o004)?;
    Ok(opened)
}

/// Opens any type of file by its name in a directory. With `O_NOFOLLOW` in `flags`, links are refused.
pub fn open_below(
    directory: impl AsFd,
    name: &(impl NixPath + ?Sized),
    flags: OFlag,
) -> Result<Opened, Error> {
    Ok(Opened::of(openat(directory, name, FILE | flags, Mode::empty())?)?)
}

/// Reads a regular file of at most `limit` bytes.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    open(path)?.regular()?.read(limit)
}

/// Reads a regular UTF-8 file of at most [`LARGEST`] bytes.
pub fn text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path, LARGEST)?).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Reads the first `limit` bytes of any type of file.
pub fn beginning(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    open(path)?.beginning(limit)
}

impl Opened {
    fn of(descriptor: OwnedFd) -> nix::Result<Self> {
        Ok(Self { stat: fstat(&descriptor)?, file: descriptor })
    }

    pub fn kind(&self) -> Kind {
        Kind::of(&self.stat)
    }

    pub fn regular(self) -> Result<Self, Error> {
        match self.kind() {
            Kind::Regular => Ok(self),
            kind => Err(Error::Irregular(kind)),
        }
    }

    /// Reads the whole content, of at most `limit` bytes.
    pub fn read(self, limit: u64) -> Result<Vec<u8>, Error> {
        if self.size() > limit {
            return Err(Error::TooLarge);
        }
        let content = self.beginning(limit + 1)?;
        if content.len() as u64 > limit { Err(Error::TooLarge) } else { Ok(content) }
    }

    /// Reads the first `limit` bytes.
    pub fn beginning(self, limit: u64) -> Result<Vec<u8>, Error> {
        // A known size saves the read that finds the end. In /proc, every size is 0.
        let length = if self.size() > 0 { self.size().min(limit) } else { limit };
        let mut content = Vec::new();
        self.read_on(&mut content, length as usize)?;
        Ok(content)
    }

    /// Reads on until `content` has `length` bytes, or the file ends.
    pub fn read_on(&self, content: &mut Vec<u8>, length: usize) -> Result<(), Error> {
        while content.len() < length {
            let start = content.len();
            content.resize(length.min(start + CHUNK.max(self.size() as usize)), 0);
            let read = nix::unistd::read(&self.file, &mut content[start..]);
            content.truncate(start + read.unwrap_or(0));
            match read {
                Ok(0) => break,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The size of a regular file; 0 for other types.
    pub fn size(&self) -> u64 {
        if self.kind() == Kind::Regular { u64::try_from(self.stat.st_size).unwrap_or(0) } else { 0 }
    }
}

impl Kind {
    pub fn of(stat: &FileStat) -> Self {
        match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFREG => Self::Regular,
            SFlag::S_IFDIR => Self::Directory,
            SFlag::S_IFLNK => Self::Link,
            SFlag::S_IFIFO => Self::Fifo,
            SFlag::S_IFSOCK => Self::Socket,
            _ => Self::Device,
        }
    }
}

impl From<Errno> for Error {
    fn from(error: Errno) -> Self {
        Self::Refused(error)
    }
}

impl From<Error> for Errno {
    fn from(error: Error) -> Self {
        match error {
            Error::Irregular(_) => Errno::EINVAL,
            Error::TooLarge => Errno::EFBIG,
            Error::Untrusted(_) => Errno::ELOOP,
            Error::Refused(error) => error,
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Errno::from(error).into()
    }
}

/// The advice for [`Error::Untrusted`], as a clause.
pub fn untrusted(owner: u32) -> Advice {
    advice!(
        "a link of uid {owner} leads to it, and that user cannot read it: put the file itself in the link's place, or let \
         uid {owner} read the file and search its directories"
    )
}

/// Refuses the target of links of these `owners`, unless each of them owns it or all users have `permissions` for it.
pub fn trust(stat: &FileStat, owners: &[u32], permissions: u32) -> Result<(), Error> {
    let may_read = |owner: u32| stat.st_uid == owner || stat.st_mode & permissions == permissions;
    match owners.iter().find(|owner| !may_read(**owner)) {
        Some(owner) => Err(Error::Untrusted(*owner)),
        None => Ok(()),
    }
}

/// Opens a file or directory by its path. With [`Links::OfReaders`], the caller must check the owners with [`trust`].
/// Errors: ELOOP if a link must not be followed.
pub fn descriptor(path: &Path, flags: OFlag, links: Links) -> Result<(OwnedFd, Owners), Error> {
    // -1 changes nothing, and the call returns the current id (setfsuid(2)).
    if links == Links::OfReaders && !setfsuid(Uid::from_raw(u32::MAX)).is_root() {
        return Ok((openat(AT_FDCWD, path, flags, Mode::empty())?, Owners::new()));
    }
    match openat2(AT_FDCWD, path, without_links(flags)) {
        Err(Errno::ELOOP) if links == Links::OfReaders => {
            through_last_link(path, flags).or_else(|_| walk(path, flags, links))
        }
        // There is a link, or an older kernel or the engine's seccomp filter lacks openat2(2).
        Err(Errno::ELOOP | Errno::ENOSYS | Errno::EPERM) => walk(path, flags, links),
        opened => Ok((opened?, Owners::new())),
    }
}

fn without_links(flags: OFlag) -> OpenHow {
    OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS)
}

/// Like [`walk`], if only the last name is a link, and root's, as with certbot. It needs a tenth of the system calls.
fn through_last_link(path: &Path, flags: OFlag) -> nix::Result<(OwnedFd, Owners)> {
    let (parent, name) = path.parent().zip(path.file_name()).ok_or(Errno::EINVAL)?;
    let parent = openat2(AT_FDCWD, parent, without_links(OFlag::O_PATH | OFlag::O_CLOEXEC))?;
    // Open the link itself, so that owner and target belong to the same link.
    let link = openat(&parent, name, STEP, Mode::empty())?;
    if fstat(&link)?.st_uid != 0 {
        return Err(Errno::ELOOP);
    }
    let target = readlinkat(&link, "")?;
    Ok((openat2(&parent, target.as_os_str(), without_links(flags))?, Owners::new()))
}

/// Like [`descriptor`], name by name.
fn walk(path: &Path, flags: OFlag, links: Links) -> Result<(OwnedFd, Owners), Error> {
    let (mut here, mut rest, mut owners, mut count) = (None, Vec::new(), Owners::new(), 0);
    push(&mut rest, path);
    while let Some(name) = rest.pop() {
        let directory = here.as_ref().map_or(AT_FDCWD, OwnedFd::as_fd);
        let next = openat(directory, &*name, STEP, Mode::empty())?;
        if name == "/" {
            here = Some(next);
            continue;
        }
        let stat = fstat(&next)?;
        if Kind::of(&stat) != Kind::Link {
            if rest.is_empty() {
                let opened = openat(directory, &*name, flags | OFlag::O_NOFOLLOW, Mode::empty())?;
                return Ok((opened, owners));
            }
            trust(&stat, &owners, 0o001)?;
            here = Some(next);
            continue;
        }
        count += 1;
        let is_allowed = links != Links::OfRoot
            || (!rest.is_empty() && is_of_root(&stat, &fstatat(directory, ".", AtFlags::empty())?));
        if count > MAX_LINKS || !is_allowed {
            return Err(Errno::ELOOP.into());
        }
        if stat.st_uid != 0 && !owners.contains(&stat.st_uid) {
            owners.push(stat.st_uid);
        }
        push(&mut rest, Path::new(&readlinkat(&next, "")?));
    }
    Ok((openat(here.as_ref().map_or(AT_FDCWD, OwnedFd::as_fd), ".", flags, Mode::empty())?, owners))
}

/// Whether only root can have created a link: root owns it, and only root can write to its directory.
fn is_of_root(link: &FileStat, directory: &FileStat) -> bool {
    !geteuid().is_root() || (link.st_uid == 0 && directory.st_uid == 0 && directory.st_mode & 0o022 == 0)
}

/// Adds the names of a path, including `/`, to the remaining names. The last in the list is the next one.
pub(super) fn push(rest: &mut Vec<OsString>, path: &Path) {
    let names = path.components().rev().filter(|name| *name != Component::CurDir);
    rest.extend(names.map(|name| name.as_os_str().to_owned()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::TestDir;
    use nix::unistd::mkfifo;
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::{MetadataExt, lchown, symlink};
    use std::os::unix::net::UnixListener;

    fn inode(opened: Result<(OwnedFd, Owners), Error>) -> Result<u64, Errno> {
        Ok(fstat(opened?.0)?.st_ino)
    }

    /// Opens a directory with [`Links::OfRoot`] in both ways. Returns the inode or the error, which must be the same.
    fn directory(path: &Path) -> Result<u64, Errno> {
        let found = inode(descriptor(path, DIRECTORY, Links::OfRoot));
        assert_eq!(found, inode(walk(path, DIRECTORY, Links::OfRoot)), "{}", path.display());
        found
    }

    #[test]
    fn irregular_files_are_refused_without_waiting() {
        let place = TestDir::new();
        let at = |name: &str| place.path().join(name);
        mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        fs::create_dir(at("directory")).unwrap();
        symlink("nothing", at("dangling")).unwrap();
        for (path, error) in [
            (at("fifo"), Error::Irregular(Kind::Fifo)),
            (at("directory"), Error::Irregular(Kind::Directory)),
            ("/dev/zero".into(), Error::Irregular(Kind::Device)),
            (at("socket"), Error::Refused(Errno::ENXIO)),
            (at("nothing"), Error::Refused(Errno::ENOENT)),
        ] {
            assert_eq!(read(&path, 10), Err(error), "{}", path.display());
        }
        assert_eq!(read(&at("dangling"), 10), Err(Error::Refused(Errno::ENOENT)));
    }

    #[test]
    fn reading_stops_at_the_limit() {
        let place = TestDir::new();
        place.write("file", "0123456789");
        let path = place.path().join("file");
        let open = || open(&path).unwrap();
        assert_eq!(open().read(10).unwrap(), b"0123456789");
        assert_eq!(open().read(9), Err(Error::TooLarge));
        assert_eq!(open().beginning(4).unwrap(), b"0123");
        assert_eq!(open().beginning(99).unwrap(), b"0123456789");
        let zero = || super::open(Path::new("/dev/zero")).unwrap();
        assert_eq!(zero().read(100_000), Err(Error::TooLarge));
        assert_eq!(zero().beginning(100_000).unwrap().len(), 100_000);
        place.write("empty", "");
        assert_eq!(read(&place.path().join("empty"), 0).unwrap(), b"");
        let proc = read(Path::new("/proc/self/status"), 100_000).unwrap();
        assert!(proc.starts_with(b"Name:"), "its size is 0");
        assert_eq!(read(Path::new("/proc/self/status"), 5), Err(Error::TooLarge));
    }

    #[test]
    fn files_that_grow_or_shrink_are_read_to_the_old_or_new_end() {
        let place = TestDir::new();
        place.write("file", "01234");
        let path = place.path().join("file");
        let opened = open(&path).unwrap();
        fs::File::options().append(true).open(&path).unwrap().write_all(&[b'x'; 100]).unwrap();
        assert_eq!(opened.read(10).unwrap(), b"01234");
        let opened = open(&path).unwrap();
        place.write("file", "012");
        assert_eq!(opened.read(200).unwrap(), b"012");
        let opened = open(&path).unwrap();
        place.write("file", "");
        assert_eq!(opened.read(200).unwrap(), b"");
        let opened = open(&path).unwrap();
        place.write("file", [b'x'; 100]);
        assert_eq!(opened.read(10), Err(Error::TooLarge), "it was empty");
    }

    #[test]
    fn open_below_can_refuse_links() {
        let place = TestDir::new();
        place.write("file", "text");
        symlink("file", place.path().join("link")).unwrap();
        let (directory, _) = descriptor(place.path(), DIRECTORY, Links::OfReaders).unwrap();
        let read = |name: &str, flags| open_below(&directory, name, flags)?.regular()?.read(10);
        assert_eq!(read("file", OFlag::O_NOFOLLOW).unwrap(), b"text");
        assert_eq!(read("link", OFlag::O_NOFOLLOW), Err(Error::Refused(Errno::ELOOP)));
        assert_eq!(read("link", OFlag::empty()).unwrap(), b"text");
    }

    #[test]
    fn root_follows_links_only_if_their_owner_may_read_the_file() {
        let place = TestDir::new();
        let at = |name: &str| place.path().join(name);
        place.write("real/file", "text");
        place.set_mode("real/file", 0o600);
        symlink("real/file", at("last")).unwrap();
        symlink("real", at("on_the_way")).unwrap();
        symlink("on_the_way/file", at("two")).unwrap();
        let paths = ["last", "on_the_way/file", "two"].map(at);
        let read = |path: &Path| read(path, 10);
        for path in &paths {
            assert_eq!(read(path).unwrap(), b"text", "{}", path.display());
        }
        if !geteuid().is_root() {
            return;
        }
        for link in ["last", "on_the_way"] {
            lchown(at(link), Some(12345), Some(12345)).unwrap();
        }
        for path in &paths {
            assert_eq!(read(path), Err(Error::Untrusted(12345)), "{}", path.display());
        }
        place.set_mode("real/file", 0o604);
        assert!(paths.iter().all(|path| read(path).is_ok()), "everybody may read it");
        place.set_mode("real", 0o700);
        for path in &paths {
            assert_eq!(read(path), Err(Error::Untrusted(12345)), "nobody may search {}", path.display());
        }
        place.set_mode("real", 0o755);
        place.set_mode("real/file", 0o600);
        std::os::unix::fs::chown(at("real/file"), Some(12345), None).unwrap();
        assert!(paths.iter().all(|path| read(path).is_ok()), "it is his own");
        // With that user's permissions, the kernel decides.
        let user = crate::os::users::User { uid: 12345, gid: 12345 };
        std::os::unix::fs::chown(at("real/file"), Some(0), None).unwrap();
        crate::os::privileges::as_user(&user, || {
            assert!(paths.iter().all(|path| read(path) == Err(Error::Refused(Errno::EACCES))));
        })
        .unwrap();
    }

    #[test]
    fn with_links_of_root_the_last_name_is_never_a_link() {
        let place = TestDir::new();
        fs::create_dir(place.path().join("real")).unwrap();
        symlink("real", place.path().join("link")).unwrap();
        symlink("nothing", place.path().join("dangling")).unwrap();
        fs::write(place.path().join("file"), "").unwrap();
        let inode = fs::metadata(place.path().join("real")).unwrap().ino();
        assert_eq!(directory(&place.path().join("real")), Ok(inode));
        assert_eq!(directory(&place.path().join("real/../real/.")), Ok(inode));
        assert_eq!(directory(&place.path().join("link")), Err(Errno::ELOOP));
        assert_eq!(directory(&place.path().join("dangling")), Err(Errno::ELOOP));
        assert_eq!(directory(&place.path().join("file")), Err(Errno::ENOTDIR));
        assert_eq!(directory(&place.path().join("none")), Err(Errno::ENOENT));
        for path in ["/", "/..", ".", "./src", "..", "src/../src/os"] {
            assert_eq!(directory(Path::new(path)), Ok(fs::metadata(path).unwrap().ino()), "{path}");
        }
    }

    #[test]
    fn a_link_on_the_way_is_followed_if_only_root_can_have_created_it() {
        let place = TestDir::new();
        fs::create_dir_all(place.path().join("real/below")).unwrap();
        symlink("real", place.path().join("link")).unwrap();
        let below = place.path().join("link/below");
        let inode = fs::metadata(&below).unwrap().ino();
        assert_eq!(directory(&below), Ok(inode));
        if !geteuid().is_root() {
            return;
        }
        place.set_mode("", 0o1777);
        assert_eq!(directory(&below), Err(Errno::ELOOP), "anyone may have made it");
        place.set_mode("", 0o755);
        assert_eq!(directory(&below), Ok(inode));
        lchown(place.path().join("link"), Some(1), Some(1)).unwrap();
        assert_eq!(directory(&below), Err(Errno::ELOOP), "another user made it");
    }

    #[test]
    fn circular_links_are_an_error() {
        let place = TestDir::new();
        symlink("b", place.path().join("a")).unwrap();
        symlink("a", place.path().join("b")).unwrap();
        assert_eq!(directory(&place.path().join("a/below")), Err(Errno::ELOOP));
        assert_eq!(read(&place.path().join("a"), 10), Err(Error::Refused(Errno::ELOOP)));
    }
}
