//! The only code that writes: a plan becomes a new generation in the runtime directory, and one rename makes it current.
//!
//! Directories may belong to users who are trusted less than we are, so everything is done through directory
//! descriptors and no link is followed on the way (openat(2), O_NOFOLLOW).

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open, openat, renameat};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, geteuid, symlinkat, unlinkat};
use time::OffsetDateTime;

use crate::exit_status::{ExitStatus, Failure, WithStatus};
use crate::facts::{self, CURRENT, SERVER_DIR};
use crate::identity::User;
use crate::plan::{File as PlannedFile, Link, Plan};
use crate::self_signed::{self, Store};

/// What becomes [`CURRENT`] by a rename.
const NEXT: &str = ".next";

const DIRECTORY_MODE: Mode = Mode::from_bits_truncate(0o750);
const FILE_MODE: Mode = Mode::from_bits_truncate(0o640);

/// Where the next generation of a runtime directory goes.
pub fn next_generation(runtime_dir: &Path) -> PathBuf {
    let last = facts::generations(runtime_dir).last().copied().unwrap_or(0);
    runtime_dir.join(format!("generation-{}", last + 1))
}

/// Writes a plan into the runtime directory and makes it the one in force. The generation before it stays, older ones
/// go. Certificates are made first, and stay where a later step fails.
///
/// # Errors
///
/// 73 where a place cannot be written, 77 where a right is missing. Until the last step what was in force stays so.
pub fn apply(plan: &Plan, runtime_dir: &Path, data_dir: &Path, owner: &User) -> Result<(), Failure> {
    let runtime = open_runtime_dir(runtime_dir, owner).map_err(|error| failure(error, runtime_dir))?;
    make_server_dir(&runtime, owner).map_err(|error| failure(error, &runtime_dir.join(SERVER_DIR)))?;
    make_certificates(plan, data_dir, owner).map_err(|error| failure(error, data_dir))?;
    let name = plan.generation.file_name().unwrap_or_default();
    let written = write_generation(&runtime, Path::new(name), plan, owner)
        .and_then(|()| switch(&runtime, Path::new(name)))
        .map_err(|error| failure(error, runtime_dir));
    if written.is_err() {
        // It may be half of one, and what follows would count it.
        let _ = remove_generation(&runtime, Path::new(name), plan);
        return written;
    }
    remove_old_generations(&runtime, runtime_dir);
    Ok(())
}

/// Writes a plan's files and links into a directory of the user's choice, which is made where it is missing.
///
/// # Errors
///
/// 73 where it cannot be written, or holds other files already.
pub fn write_to(directory: &Path, plan: &Plan) -> Result<(), Failure> {
    let write = || {
        std::fs::create_dir_all(directory)?;
        let opened = open_directory(AT_FDCWD, directory)?;
        let before = entries(&opened)?;
        let written = write_files(&opened, &plan.files, &plan.links, None);
        if written.is_err() {
            // What is half written goes, so that the next try finds the directory as this one did.
            for name in entries(&opened)?.iter().filter(|name| !before.contains(name)) {
                unlinkat(&opened, name.as_c_str(), UnlinkatFlags::NoRemoveDir)?;
            }
        }
        written
    };
    write().map_err(|error: anyhow::Error| failure(error, directory))
}

/// The runtime directory, made where it is missing. Root makes it its own first of all: the image ships it for everyone.
fn open_runtime_dir(path: &Path, owner: &User) -> anyhow::Result<OwnedFd> {
    // Everyone may make directories on /dev/shm: there, what is not root's is its user's alone.
    let private = path.starts_with("/dev/shm") && !geteuid().is_root();
    let mode = if private { Mode::S_IRWXU } else { DIRECTORY_MODE };
    let mut made = mkdirat(AT_FDCWD, path, mode);
    if let (Err(Errno::ENOENT), Some(parent)) = (made, path.parent()) {
        std::fs::create_dir_all(parent)?;
        made = mkdirat(AT_FDCWD, path, mode);
    }
    match made {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let directory = open_directory(AT_FDCWD, path)?;
    let found = fstat(&directory)?;
    if geteuid().is_root() {
        // The image ships ours empty. What holds other things than ours is somebody else's.
        let is_ours = |name: &CString| {
            let name = name.to_string_lossy();
            [CURRENT, NEXT, SERVER_DIR].contains(&name.as_ref()) || name.starts_with("generation-")
        };
        if (found.st_uid, found.st_gid) != (0, owner.gid) && !entries(&directory)?.iter().all(is_ours) {
            bail!("it holds other files: name a directory of its own in PROSODY_RUNTIME_DIR");
        }
        own(&directory, &found, 0, owner.gid, DIRECTORY_MODE)?;
    } else if private && (found.st_uid != geteuid().as_raw() || found.st_mode & 0o077 != 0) {
        bail!("it belongs to uid {}, expected a directory of ours alone: remove it", found.st_uid);
    }
    Ok(directory)
}

/// The directory for Prosody's process id and socket. What an earlier run left in it is Prosody's to replace.
fn make_server_dir(runtime: &OwnedFd, owner: &User) -> anyhow::Result<()> {
    match mkdirat(runtime, SERVER_DIR, DIRECTORY_MODE) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(error) => return Err(error.into()),
    }
    if geteuid().is_root() {
        let directory = open_directory(runtime, Path::new(SERVER_DIR))?;
        own(&directory, &fstat(&directory)?, owner.uid, owner.gid, DIRECTORY_MODE)?;
    }
    Ok(())
}

/// Changes owner and mode where they differ.
fn own(directory: &OwnedFd, found: &FileStat, uid: u32, gid: u32, mode: Mode) -> nix::Result<()> {
    if (found.st_uid, found.st_gid) != (uid, gid) {
        fchown(directory, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    if found.st_mode & 0o7777 != mode.bits() {
        fchmod(directory, mode)?;
    }
    Ok(())
}

/// Makes the data directory fit to be Prosody's: one that is missing is made, and one that belongs to root (every fresh
/// bind mount) is given to Prosody's user.
///
/// # Errors
///
/// 73 where it is not a directory or cannot be written by whom Prosody runs as, 77 where a right is missing.
pub fn prepare_data_dir(path: &Path, owner: &User) -> Result<(), Failure> {
    let prepare = || -> anyhow::Result<()> {
        if let Err(Errno::ENOENT) = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
            std::fs::create_dir_all(path)?;
        }
        let directory = open_directory(AT_FDCWD, path)?;
        let found = fstat(&directory)?;
        if geteuid().is_root() {
            // What belongs to root is a fresh bind mount, and what is empty nobody's yet.
            if !owner.is_root() && (found.st_uid == 0 || !may_write(&found, owner)) {
                if found.st_uid != 0 && !entries(&directory)?.is_empty() {
                    bail!(
                        "it belongs to uid {} (gid {}), and Prosody is to run as uid {} (gid {}): leave PROSODY_UID, \
                         PROSODY_GID and PROSODY_USER out to run as its owner, or run `chown -R {}:{}` on it",
                        found.st_uid,
                        found.st_gid,
                        owner.uid,
                        owner.gid,
                        owner.uid,
                        owner.gid
                    );
                }
                fchown(&directory, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))?;
            }
        } else if !facts::is_writable(path) {
            return Err(anyhow!(Errno::EACCES));
        }
        Ok(())
    };
    prepare().map_err(|error| failure(error, path))
}

/// Whether a user may make files in a directory, going by its mode. Prosody's process has no supplementary groups.
fn may_write(directory: &FileStat, user: &User) -> bool {
    let bits = match () {
        () if directory.st_uid == user.uid => 0o300,
        () if directory.st_gid == user.gid => 0o030,
        () => 0o003,
    };
    directory.st_mode & bits == bits
}

/// The names in a directory.
fn entries(directory: &OwnedFd) -> nix::Result<Vec<CString>> {
    let mut entries =
        nix::dir::Dir::openat(directory, ".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let names = entries.iter().map(|entry| Ok(entry?.file_name().to_owned()));
    let is_own = |name: &nix::Result<CString>| {
        !name.as_ref().is_ok_and(|name| matches!(name.to_bytes(), b"." | b".."))
    };
    names.filter(is_own).collect()
}

/// Makes the self-signed certificates that a plan asks for.
fn make_certificates(plan: &Plan, data_dir: &Path, owner: &User) -> anyhow::Result<()> {
    if plan.certificates.is_empty() {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    let store = Store::create(data_dir, uid, gid)?;
    let now = OffsetDateTime::now_utc();
    for request in &plan.certificates {
        let names: Vec<&str> = request.names.iter().map(String::as_str).collect();
        let pair = self_signed::make(&names, now)
            .with_context(|| format!("making a certificate for {}", request.host))?;
        store.write(&request.host, &pair, uid, gid)?;
    }
    Ok(())
}

fn write_generation(runtime: &OwnedFd, name: &Path, plan: &Plan, owner: &User) -> anyhow::Result<()> {
    mkdirat(runtime, name, DIRECTORY_MODE)?;
    let directory = open_directory(runtime, name)?;
    let group = geteuid().is_root().then(|| Gid::from_raw(owner.gid));
    if let Some(group) = group {
        fchown(&directory, None, Some(group))?;
        fchmod(&directory, DIRECTORY_MODE)?;
    }
    write_files(&directory, &plan.files, &plan.links, group)
}

fn write_files(
    directory: &OwnedFd,
    files: &[PlannedFile],
    links: &[Link],
    group: Option<Gid>,
) -> anyhow::Result<()> {
    for file in files {
        write_file(directory, file, group).with_context(|| format!("writing {}", file.path.display()))?;
    }
    for link in links {
        symlinkat(&link.target, directory, &link.path)
            .with_context(|| format!("linking {}", link.path.display()))?;
    }
    Ok(())
}

fn write_file(directory: &OwnedFd, planned: &PlannedFile, group: Option<Gid>) -> anyhow::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut file = File::from(openat(directory, &planned.path, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
    file.write_all(planned.content.as_bytes())?;
    if let Some(group) = group {
        fchown(&file, None, Some(group))?;
    }
    fchmod(&file, FILE_MODE)?;
    Ok(())
}

/// Makes a generation the one in force.
fn switch(runtime: &OwnedFd, name: &Path) -> anyhow::Result<()> {
    match symlinkat(name, runtime, NEXT) {
        Err(Errno::EEXIST) => {
            unlinkat(runtime, NEXT, UnlinkatFlags::NoRemoveDir)?;
            symlinkat(name, runtime, NEXT)?;
        }
        result => result?,
    }
    renameat(runtime, NEXT, runtime, CURRENT)?;
    Ok(())
}

/// Removes all generations but the last two. That one stays which cannot be removed is no reason not to start.
fn remove_old_generations(runtime: &OwnedFd, path: &Path) {
    let generations = facts::generations(path);
    let old = generations.len().saturating_sub(2);
    for number in &generations[..old] {
        let name = PathBuf::from(format!("generation-{number}"));
        if let Err(error) = remove_directory(runtime, &name) {
            tracing::debug!("{} stays: {error}", path.join(name).display());
        }
    }
}

fn remove_generation(runtime: &OwnedFd, name: &Path, plan: &Plan) -> nix::Result<()> {
    let directory = open_directory(runtime, name)?;
    let paths = plan.files.iter().map(|file| &file.path).chain(plan.links.iter().map(|link| &link.path));
    for path in paths {
        let _ = unlinkat(&directory, path, UnlinkatFlags::NoRemoveDir);
    }
    unlinkat(runtime, name, UnlinkatFlags::RemoveDir)
}

/// Removes a directory that holds no other directory.
fn remove_directory(parent: &OwnedFd, name: &Path) -> nix::Result<()> {
    let directory = open_directory(parent, name)?;
    for name in entries(&directory)? {
        unlinkat(&directory, name.as_c_str(), UnlinkatFlags::NoRemoveDir)?;
    }
    unlinkat(parent, name, UnlinkatFlags::RemoveDir)
}

fn open_directory(parent: impl AsFd, path: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(parent, path, flags, Mode::empty())
}

/// An error with its path, its exit status and what to do.
fn failure(error: anyhow::Error, path: &Path) -> Failure {
    let errno = error.chain().find_map(|cause| {
        let by_errno = cause.downcast_ref::<Errno>().copied();
        by_errno.or_else(|| cause.downcast_ref::<std::io::Error>()?.raw_os_error().map(Errno::from_raw))
    });
    let (uid, gid) = (geteuid(), nix::unistd::getegid());
    let what = match errno {
        Some(Errno::EROFS) => "it is on a read-only file system: mount a volume or a tmpfs there".to_owned(),
        Some(Errno::ENOSPC | Errno::EDQUOT) => "the file system is full: give it more room".to_owned(),
        Some(Errno::EACCES) if !uid.is_root() => format!(
            "uid {uid} (gid {gid}) may not write there: give the directory to that user or group, or choose another user"
        ),
        Some(Errno::EACCES | Errno::EPERM) => {
            "root lacks a right here: run the container with --cap-add CHOWN --cap-add DAC_OVERRIDE --cap-add SETUID \
             --cap-add SETGID --cap-add KILL, or with --user"
                .to_owned()
        }
        Some(Errno::EEXIST) => "there are files of that name already: empty it, or name another".to_owned(),
        Some(Errno::ENOTDIR) => "it is not a directory: remove what is there".to_owned(),
        Some(Errno::ELOOP) => "it is a link, expected a directory: remove it".to_owned(),
        _ => String::new(),
    };
    let status = match errno {
        Some(Errno::EPERM) => ExitStatus::NO_PERMISSION,
        _ => ExitStatus::CANNOT_WRITE,
    };
    let error = if what.is_empty() { error } else { error.context(what) };
    Err::<(), _>(error.context(format!("{} cannot be written", path.display()))).status(status).unwrap_err()
}
