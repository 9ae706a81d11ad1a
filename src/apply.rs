//! The only code that writes: it turns a plan into a new generation, and makes that current with one rename.
//!
//! Directories may belong to less trusted users. So all work goes through directory descriptors and follows no links
//! (openat(2), O_NOFOLLOW).

pub mod self_signed;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::signal::kill;
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, fstatat};
use nix::unistd::{Gid, Pid, Uid, UnlinkatFlags, fchown, geteuid, symlinkat, unlinkat};
use time::OffsetDateTime;

use self::self_signed::Writer;
use crate::exit_status::{ExitStatus, Failure};
use crate::facts;
use crate::facts::running::Running;
use crate::layout::{
    self, ACCOUNTS_FILE, CERTIFICATES_DIR, CURRENT, ERROR_FILE, HEALTH_FILE, LIVE_SCRIPT, LOG_DIR,
    MIGRATING_DIR, MODULES_DIR, PID_FILE, RESTORING_DIR, RUNTIME_DIR, SELF_SIGNED_DIR, SERVER_DIR,
    SERVER_PID_FILE, STARTED_FILE, STATE_FILE,
};
use crate::live;
use crate::os::directory::{self, entries, errno};
use crate::os::privileges::{self, Capability};
use crate::os::trusted_file::{Error, Kind, open_below};
use crate::os::users::User;
use crate::plan::{File as PlannedFile, Import, Link, Plan, State};
use crate::text::Advice;

/// The prefix of incomplete entries. Our process id follows; a rename gives the final name.
const INCOMPLETE: &str = ".new-";

/// The number of kept generations. Prosody reads a generation file by file, and may be one reload behind.
const KEPT: usize = 4;

const DIRECTORY_MODE: Mode = Mode::from_bits_truncate(0o750);
const SHARED_MODE: Mode = Mode::from_bits_truncate(0o770);
const FILE_MODE: Mode = Mode::from_bits_truncate(0o640);
const PRIVATE_MODE: Mode = Mode::from_bits_truncate(0o600);

/// Writes a plan into the runtime directory as the new current generation, and removes old generations. Self-signed
/// certificates are made first, and stay if a later step fails.
///
/// A generation gets its name when it is complete. So an interruption leaves nothing that looks like a generation.
/// Errors: 73 if a place cannot be written, 77 if a privilege is missing. The current generation stays as it was.
pub fn apply(plan: &Plan, runtime_dir: &Path, data_dir: &Path, owner: &User) -> Result<(), Failure> {
    apply_if(plan, runtime_dir, data_dir, owner, || Ok(true))
}

/// Like [`apply`], but only if `accept` says so when everything is written and not yet in force.
/// Errors: those of [`apply`] and of `accept`. The current generation stays as it was.
pub fn apply_if(
    plan: &Plan,
    runtime_dir: &Path,
    data_dir: &Path,
    owner: &User,
    accept: impl FnOnce() -> Result<bool, Failure>,
) -> Result<(), Failure> {
    privileges::with_group(owner, || {
        let runtime = open_runtime_dir(runtime_dir, owner).map_err(|error| failure(error, runtime_dir))?;
        make_server_dir(&runtime, owner).map_err(|error| failure(error, &runtime_dir.join(SERVER_DIR)))?;
        if let Err(error) = privileges::as_user(owner, || make_certificates(plan, data_dir))? {
            return Err(match unusable_data(data_dir, owner, Depth::Stores)? {
                Some(why) => ExitStatus::CANNOT_WRITE.failure(why),
                None => failure(error, data_dir),
            });
        }
        write_generation(&runtime, plan, owner).map_err(|error| failure(error, runtime_dir))?;
        let name = Path::new(plan.generation.file_name().unwrap_or_default());
        let switch = || replace(&runtime, CURRENT, |new| Ok(symlinkat(name, &runtime, new)?));
        let accepted = accept().and_then(|is_accepted| {
            if is_accepted {
                switch().map_err(|error| failure(error, runtime_dir))?;
            }
            Ok(is_accepted)
        });
        match accepted {
            Ok(true) => remove_old_generations(&runtime, runtime_dir),
            _ => directory::remove_below(&runtime, name).unwrap_or_default(),
        }
        accepted.map(drop)
    })?
}

/// Describes the starting server in the runtime directory, after [`apply`]: `init` (the process id of its PID 1), its
/// state, the addresses for the health check, and the script for later reloads. Removes an earlier server's files, which
/// may be another user's. `shared_directory` identifies the data directory of a shard that holds the lock on it.
/// Errors: 73 if the runtime directory cannot be written.
pub fn publish_runtime_state(
    plan: &Plan,
    runtime_dir: &Path,
    init: Pid,
    owner: &User,
    shared_directory: Option<&str>,
) -> Result<(), Failure> {
    let write = || -> anyhow::Result<()> {
        let runtime = directory::open(runtime_dir)?;
        // An earlier server can have left anything in its directory. What cannot be removed is tried again at each start.
        // Each start has a generation of its own.
        let generation = plan.generation.file_name().unwrap_or_default().to_string_lossy();
        let old = format!("{INCOMPLETE}{SERVER_DIR}-{generation}");
        renameat(&runtime, SERVER_DIR, &runtime, &*old)?;
        make_server_dir(&runtime, owner)?;
        if let Err(error) = clear(&runtime, &old) {
            tracing::debug!("{} stays: {error}", runtime_dir.join(old).display());
        }
        let group = geteuid().is_root().then_some(owner.gid);
        let certificates = State::parse(&plan.state).certificates_digest();
        for (name, content) in [
            (PID_FILE, format!("{init}\n")),
            (STARTED_FILE, Running::describe(init, &plan.generation, owner, &plan.state)),
            (HEALTH_FILE, health_of(plan)),
            (
                LIVE_SCRIPT,
                live::script(
                    &layout::live_socket(runtime_dir),
                    certificates,
                    &layout::accounts_file(runtime_dir),
                    plan.shard.map(|_| shared_directory),
                ),
            ),
        ] {
            replace(&runtime, name, |new| write_file(&runtime, new, &content, group))?;
        }
        // The place of `pidfile` in Debian's default configuration, and so in many custom files.
        let pid_file = Path::new(SERVER_DIR).join(SERVER_PID_FILE);
        replace(&runtime, SERVER_PID_FILE, |new| Ok(symlinkat(&pid_file, &runtime, new)?))
    };
    privileges::with_group(owner, write)?.map_err(|error| failure(error, runtime_dir))
}

/// Publishes the addresses for the health check after a reload that has changed them.
/// Errors: 73 if the runtime directory cannot be written.
pub fn publish_health(plan: &Plan, runtime_dir: &Path, owner: &User) -> Result<(), Failure> {
    publish(HEALTH_FILE, &health_of(plan), runtime_dir, owner)
}

/// Publishes the description of an error of a reload.
/// Errors: 73 if the runtime directory cannot be written.
pub fn publish_error(description: &str, runtime_dir: &Path, owner: &User) -> Result<(), Failure> {
    publish(ERROR_FILE, description, runtime_dir, owner)
}

fn publish(name: &str, content: &str, runtime_dir: &Path, owner: &User) -> Result<(), Failure> {
    let write = || -> anyhow::Result<()> {
        let runtime = directory::open(runtime_dir)?;
        let group = geteuid().is_root().then_some(owner.gid);
        replace(&runtime, name, |new| write_file(&runtime, new, content, group))
    };
    privileges::with_group(owner, write)?.map_err(|error| failure(error, runtime_dir))
}

fn health_of(plan: &Plan) -> String {
    let health = plan.files.iter().find(|file| file.path == Path::new(HEALTH_FILE));
    health.map(|file| file.content.clone()).unwrap_or_default()
}

/// Writes accounts and their passwords for the server, into a file that only Prosody can read.
/// Errors: 73 if the file cannot be written.
pub fn write_accounts_file(text: &str, runtime_dir: &Path, owner: &User) -> Result<(), Failure> {
    let write = || -> anyhow::Result<()> {
        let runtime = directory::open(runtime_dir)?;
        let server = directory::open_below(&runtime, Path::new(SERVER_DIR))?;
        replace(&server, ACCOUNTS_FILE, |new| Ok(create(&server, new, PRIVATE_MODE, text).map(drop)?))
    };
    privileges::as_user(owner, write)?.map_err(|error| failure(error, runtime_dir))
}

/// The name of an incomplete entry. No other running process uses it.
fn incomplete() -> PathBuf {
    format!("{INCOMPLETE}{}", std::process::id()).into()
}

/// Makes an entry under another name and renames it. Leaves nothing behind if that fails.
fn replace(
    directory: &OwnedFd,
    name: &str,
    make: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let new = incomplete();
    clear(directory, &new)?;
    let rename = || renameat(directory, &new, directory, name);
    let made = make(&new).and_then(|()| match rename() {
        // Only the directory of generations may have another one's `current`.
        Err(Errno::EISDIR) if name != CURRENT => {
            clear(directory, name)?;
            Ok(rename()?)
        }
        renamed => Ok(renamed?),
    });
    if made.is_err() {
        // The first error is the one to report.
        let _ = clear(directory, &new);
    }
    made
}

/// Writes a plan's files and links into any directory, and creates it if it is missing.
/// Errors: 73 if it cannot be written, or has files with the same names.
pub fn write_to(path: &Path, plan: &Plan) -> Result<(), Failure> {
    let write = || {
        let opened = directory::make(path, Mode::from_bits_truncate(0o755))?;
        let folders = [".", MODULES_DIR, CERTIFICATES_DIR];
        let folders = folders.iter().filter_map(|name| directory::open_below(&opened, Path::new(name)).ok());
        let before =
            folders.map(|folder| Ok((entries(&folder)?, folder))).collect::<nix::Result<Vec<_>>>()?;
        let written = write_files(&opened, &plan.files, &plan.links, None)
            .and_then(|()| write_certificates(&opened, &plan.imports, None));
        if written.is_err() {
            // Restore the directory for the next attempt.
            for (before, folder) in &before {
                for name in entries(folder)?.iter().filter(|name| !before.contains(name)) {
                    clear(folder, Path::new(OsStr::from_bytes(name.to_bytes())))?;
                }
            }
        }
        written
    };
    write().map_err(|error: anyhow::Error| failure(error, path))
}

/// Opens or creates the runtime directory. Root takes ownership first, because the image's is writable for all.
fn open_runtime_dir(path: &Path, owner: &User) -> anyhow::Result<OwnedFd> {
    // All users can create directories on /dev/shm. So a directory there is private, unless it is root's.
    let private = path.starts_with("/dev/shm") && !geteuid().is_root();
    let mode = if private { Mode::S_IRWXU } else { DIRECTORY_MODE };
    let (directory, found) = with_status(directory::make(path, mode)?)?;
    if geteuid().is_root() {
        // If another user started the container, root comes only through `docker exec`.
        let link = fstatat(&directory, CURRENT, AtFlags::AT_SYMLINK_NOFOLLOW);
        let is_starter = |uid| privileges::uid_of(Pid::from_raw(1)).is_some_and(|init| init.as_raw() == uid);
        if let Some(link) = link.ok().filter(|link| link.st_uid != 0 && is_starter(link.st_uid)) {
            bail!(advice!(
                "it is that of a server which runs as uid {uid}: come as that user, `docker exec --user {uid}:{}`",
                link.st_gid,
                uid = link.st_uid
            ));
        }
        // The image's runtime directory is empty. A directory with other files serves another purpose.
        let is_ours = |name: &std::ffi::CString| {
            let name = name.to_string_lossy();
            [
                CURRENT, SERVER_DIR, PID_FILE, STARTED_FILE, HEALTH_FILE, ERROR_FILE, LIVE_SCRIPT,
                SERVER_PID_FILE,
            ]
            .contains(&&*name)
                || ["generation-", ".generation-", ".new-", ".next"]
                    .iter()
                    .any(|prefix| name.starts_with(prefix))
        };
        if (found.st_uid, found.st_gid) != (0, owner.gid) && !entries(&directory)?.iter().all(is_ours) {
            bail!(advice!("it holds other files: name a directory of its own in PROSODY_RUNTIME_DIR"));
        }
        chown_to_root(&directory, &found, owner.gid, DIRECTORY_MODE)?;
    } else if private && (found.st_uid != geteuid().as_raw() || found.st_mode & 0o077 != 0) {
        bail!(advice!("it belongs to uid {}, expected a directory of ours alone: remove it", found.st_uid));
    }
    Ok(directory)
}

/// Creates the directory for Prosody's process id and socket. Prosody replaces an earlier run's files.
///
/// Root keeps it, writable for Prosody's group: changing the owner needs CHOWN, which the container may lack.
fn make_server_dir(runtime: &OwnedFd, owner: &User) -> anyhow::Result<()> {
    let (directory, found) =
        with_status(directory::make_below(runtime, Path::new(SERVER_DIR), SHARED_MODE)?)?;
    if geteuid().is_root() {
        chown_to_root(&directory, &found, owner.gid, SHARED_MODE)?;
    } else if found.st_uid != geteuid().as_raw() {
        bail!(advice!(
            "it belongs to uid {}, who could take the server's place there: remove it",
            found.st_uid
        ));
    }
    Ok(())
}

fn with_status(directory: OwnedFd) -> nix::Result<(OwnedFd, FileStat)> {
    fstat(&directory).map(|found| (directory, found))
}

/// Gives a directory to root and a group, with a mode. No privilege is needed if root owns it already.
fn chown_to_root(directory: &OwnedFd, found: &FileStat, gid: u32, mode: Mode) -> nix::Result<()> {
    let owner = (found.st_uid != 0).then(|| Uid::from_raw(0));
    let group = (found.st_gid != gid).then(|| Gid::from_raw(gid));
    if owner.is_some() || group.is_some() {
        fchown(directory, owner, group)?;
    }
    if found.st_mode & 0o7777 != mode.bits() {
        fchmod(directory, mode)?;
    }
    Ok(())
}

/// Creates a missing data directory, and gives root's (every fresh bind mount is) to Prosody's user.
///
/// The files in it keep their owners: there may be a hundred thousand.
/// Errors: 73 if it is not a directory or Prosody's user cannot write to it, 77 if a privilege is missing.
pub fn prepare_data_dir(path: &Path, owner: &User) -> Result<(), Failure> {
    let make = || directory::make(path, Mode::from_bits_truncate(0o755));
    let Some((directory, is_empty)) = to_be_given(path, owner, make)? else { return Ok(()) };
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    fchown(&directory, Some(uid), Some(gid)).map_err(|error| failure(error.into(), path))?;
    if !is_empty {
        tracing::info!("{} belonged to root and is Prosody's now (uid {uid})", path.display());
    }
    Ok(())
}

/// Finds what [`prepare_data_dir`] would refuse, and changes nothing.
/// Errors: as [`prepare_data_dir`].
pub fn check_data_dir(path: &Path, owner: &User) -> Result<(), Failure> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => to_be_given(path, owner, || directory::open(path)).map(drop),
    }
}

/// The data directory, opened, and whether it is empty, if it is root's and to be given to Prosody's user.
fn to_be_given(
    path: &Path,
    owner: &User,
    open: impl Fn() -> nix::Result<OwnedFd>,
) -> Result<Option<(OwnedFd, bool)>, Failure> {
    let open = || -> anyhow::Result<(OwnedFd, FileStat)> { Ok(with_status(open()?)?) };
    // Root may lack the privilege to open another user's directory. The owner can open it.
    let (directory, found) =
        open().or_else(|error| privileges::as_user(owner, open)?.map_err(|_| failure(error, path)))?;
    if !geteuid().is_root() {
        return if facts::is_writable(path) { Ok(None) } else { Err(not_writable(path, &found, owner)) };
    }
    // Below, a directory of root's is a fresh bind mount, and an empty one can change its owner.
    if owner.is_root() || (found.st_uid != 0 && may_write(&found, owner)) {
        return privileges::require(owner, &[]).map(|()| None);
    }
    let is_empty = entries(&directory).is_ok_and(|entries| entries.is_empty());
    if found.st_uid != 0 && !is_empty {
        return Err(owned_by_another_user(path, &found, owner));
    }
    privileges::require(owner, &[Capability::CHOWN])?;
    Ok(Some((directory, is_empty)))
}

/// Refuses data of which only a part is there. `own` is the directory of a command that begins again where it was
/// interrupted.
/// Errors: 73 if `restore` or `migrate` was interrupted while it moved files; 77 if a privilege is missing.
pub fn refuse_half_moved(data_dir: &Path, owner: &User, own: Option<&str>) -> Result<(), Failure> {
    for name in [RESTORING_DIR, MIGRATING_DIR].into_iter().filter(|name| Some(*name) != own) {
        let path = data_dir.join(name);
        if !privileges::as_user(owner, || fs::symlink_metadata(&path).is_ok())? {
            continue;
        }
        let shown = path.display();
        let advice = if name == RESTORING_DIR {
            advice!(
                "{shown}: `restore` was interrupted in its last step, and a part of the data is missing: restore the same \
                 backup again"
            )
        } else {
            advice!(
                "{shown}: `migrate` was interrupted in its last step, and a part of the data is missing: run it again, with \
                 the settings of before"
            )
        };
        return Err(ExitStatus::CANNOT_WRITE.failure(advice));
    }
    Ok(())
}

/// Warns about data that Prosody cannot use. It would serve without them, and say nothing.
pub fn warn_about_data(data_dir: &Path, owner: &User) -> Result<(), Failure> {
    unusable_data(data_dir, owner, Depth::Stores)?.iter().for_each(|why| tracing::warn!("{why}"));
    Ok(())
}

/// How deep to look into the data directory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The directories of hosts and their stores. There may be 100,000 files in a store.
    Stores,
    /// All files of hosts.
    Files,
}

/// The first entry of the data directory that Prosody's user cannot use, with the command that gives the data to it.
pub fn unusable_data(data_dir: &Path, owner: &User, depth: Depth) -> Result<Option<Advice>, Failure> {
    let look = || first_unusable(&directory::open(data_dir).ok()?, data_dir, false, depth);
    Ok(privileges::as_user(owner, look)?.map(|(path, found)| {
        advice!(
            "{path} belongs to uid {}, gid {} (mode {:03o}), and Prosody (uid {uid}, gid {gid}) cannot use it: run \
             `chown -R {uid}:{gid} {data_dir}`",
            found.st_uid,
            found.st_gid,
            found.st_mode & 0o7777,
            path = path.display(),
            data_dir = data_dir.display(),
            uid = owner.uid,
            gid = owner.gid,
        )
    }))
}

/// The first entry of a directory that our user cannot read, or not write although only Prosody writes there: the
/// directories of hosts, of their stores, and of self-signed certificates.
fn first_unusable(
    directory: &OwnedFd,
    path: &Path,
    is_host: bool,
    depth: Depth,
) -> Option<(PathBuf, FileStat)> {
    let mut names = entries(directory).ok()?;
    names.sort_unstable();
    for name in names {
        let name = OsStr::from_bytes(name.to_bytes());
        // Not Prosody's: the directory of an ext4 file system's root, and hidden ones of network storage.
        if name == "lost+found" || name.as_bytes().starts_with(b".") {
            continue;
        }
        let Ok(found) = fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) else { continue };
        let kind = Kind::of(&found);
        if ![Kind::Regular, Kind::Directory].contains(&kind) {
            continue;
        }
        let path = path.join(name);
        let is_unreadable = matches!(
            open_below(directory, name, OFlag::O_NOFOLLOW),
            Err(Error::Refused(Errno::EACCES | Errno::EPERM))
        );
        // Prosody writes a host's name with `%2e` for each dot.
        let is_of_host = name.as_bytes().contains(&b'%');
        let is_written = kind == Kind::Directory && (is_host || is_of_host || name == SELF_SIGNED_DIR);
        if is_unreadable || (is_written && !facts::is_writable(&path)) {
            return Some((path, found));
        }
        if kind == Kind::Directory && if is_host { depth == Depth::Files } else { is_of_host } {
            let below = directory::open_below(directory, Path::new(name));
            if let Some(found) = below.ok().and_then(|below| first_unusable(&below, &path, true, depth)) {
                return Some(found);
            }
        }
    }
    None
}

/// Makes the default runtime directory writable for Prosody, for a custom main file: Debian's has its `pidfile` there, and
/// a tmpfs at `/run` is empty. Failures do not prevent the start, because the file may name another place.
pub fn prepare_pid_dir(owner: &User) -> Result<(), Failure> {
    let path = Path::new(RUNTIME_DIR);
    let make = || -> nix::Result<()> {
        let (directory, found) = with_status(directory::make(path, SHARED_MODE)?)?;
        match geteuid().is_root() && !may_write(&found, owner) {
            true => chown_to_root(&directory, &found, owner.gid, SHARED_MODE),
            false => Ok(()),
        }
    };
    if let Err(error) = privileges::with_group(owner, make)? {
        tracing::debug!("{RUNTIME_DIR} is not writable for Prosody: {error}");
    }
    Ok(())
}

/// Gives an empty log directory, such as a fresh bind mount, to Prosody's user. Failures do not prevent the start: few
/// configurations log to files. Prosody does not report log files that it cannot open, so an unwritable mount gets a
/// warning here.
pub fn prepare_log_dir(owner: &User) {
    let open = |path: &Path| with_status(directory::open(path)?);
    let Ok((directory, found)) = open(Path::new(LOG_DIR)) else { return };
    let is_usable = match geteuid().is_root() {
        true => owner.is_root() || may_write(&found, owner),
        false => facts::is_writable(Path::new(LOG_DIR)),
    };
    if is_usable {
        return;
    }
    let (uid, gid) = (owner.uid, owner.gid);
    let is_empty = || entries(&directory).is_ok_and(|entries| entries.is_empty());
    if geteuid().is_root() && is_empty() {
        match fchown(&directory, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))) {
            Ok(()) => return,
            Err(error) => tracing::debug!("{LOG_DIR} stays uid {}'s: {error}", found.st_uid),
        }
    }
    // On the image's own file system, the directory is not a mount: it needs no warning.
    let above = Path::new(LOG_DIR).parent().and_then(|above| open(above).ok());
    if above.is_some_and(|(_, above)| above.st_dev != found.st_dev) {
        let advice = advice!(
            "{LOG_DIR} belongs to uid {}, gid {}, and Prosody cannot write there: log files that a configuration names in \
             it stay as they are; run `chown -R {uid}:{gid} {LOG_DIR}`",
            found.st_uid,
            found.st_gid
        );
        tracing::warn!("{advice}");
    }
}

/// The error for a data directory with files that belongs to another user.
fn owned_by_another_user(path: &Path, found: &FileStat, owner: &User) -> Failure {
    ExitStatus::CANNOT_WRITE.failure(advice!(
        "{path} belongs to uid {} (gid {}), and Prosody is to run as uid {uid} (gid {gid}): leave PROSODY_UID, \
         PROSODY_GID and PROSODY_USER out to run as its owner, or run `chown -R {uid}:{gid} {path}`",
        found.st_uid,
        found.st_gid,
        path = path.display(),
        uid = owner.uid,
        gid = owner.gid
    ))
}

/// The error for a data directory that our user, not root, cannot write to.
fn not_writable(path: &Path, found: &FileStat, owner: &User) -> Failure {
    let other_way = match (found.st_uid, found.st_gid) {
        (0, _) => advice!(
            "or start the container as root with Docker's default capabilities, which gives it to Prosody's user"
        ),
        (uid, gid) => advice!("or start the container with `--user {uid}:{gid}`"),
    };
    ExitStatus::CANNOT_WRITE.failure(advice!(
        "{path} cannot be written by uid {uid}, gid {gid}: it belongs to uid {}, gid {} (mode {:03o}): run \
             `chown -R {uid}:{gid} {path}`, {other_way}",
        found.st_uid,
        found.st_gid,
        found.st_mode & 0o7777,
        path = path.display(),
        uid = owner.uid,
        gid = owner.gid
    ))
}

/// Whether a directory's mode allows a user to create files in it. Prosody's process has no supplementary groups.
fn may_write(directory: &FileStat, user: &User) -> bool {
    let bits = match () {
        () if directory.st_uid == user.uid => 0o300,
        () if directory.st_gid == user.gid => 0o030,
        () => 0o003,
    };
    directory.st_mode & bits == bits
}

/// Makes the planned self-signed certificates, unless another server with this data directory has made them since. Call it
/// as Prosody's user.
fn make_certificates(plan: &Plan, data_dir: &Path) -> anyhow::Result<()> {
    if plan.self_signed.is_empty() {
        return Ok(());
    }
    let writer = Writer::create(data_dir)?;
    let now = OffsetDateTime::now_utc();
    for request in &plan.self_signed {
        if plan.time.is_some_and(|time| writer.has_made(&request.host_ascii, time)) {
            continue;
        }
        let pair = self_signed::make(&request.names, now)
            .with_context(|| format!("making a certificate for {}", request.host_ascii))?;
        writer.write(&request.host_ascii, &pair)?;
    }
    Ok(())
}

/// Writes a generation and makes it current. Leaves nothing behind if that fails.
fn write_generation(runtime: &OwnedFd, plan: &Plan, owner: &User) -> anyhow::Result<()> {
    let name = Path::new(plan.generation.file_name().unwrap_or_default());
    let incomplete = incomplete();
    clear(runtime, &incomplete)?;
    let write = || -> anyhow::Result<()> {
        let group = geteuid().is_root().then_some(owner.gid);
        let directory = make_folder(runtime, &incomplete, group)?;
        write_files(&directory, &plan.files, &plan.links, group)?;
        write_certificates(&directory, &plan.imports, Some(owner))?;
        write_file(&directory, Path::new(STATE_FILE), &plan.state, group)?;
        // If another process was first with this number, its directory is not empty, and the rename fails.
        Ok(renameat(runtime, &incomplete, runtime, name)?)
    };
    if let Err(error) = write() {
        // The first error is the one to report.
        let _ = directory::remove_below(runtime, &incomplete);
        return Err(error);
    }
    Ok(())
}

fn write_files(
    directory: &OwnedFd,
    files: &[PlannedFile],
    links: &[Link],
    group: Option<u32>,
) -> anyhow::Result<()> {
    let paths = files.iter().map(|file| &file.path).chain(links.iter().map(|link| &link.path));
    let parents = paths.filter_map(|path| path.parent()).filter(|parent| !parent.as_os_str().is_empty());
    let mut folders: Vec<(&Path, OwnedFd)> = Vec::new();
    for parent in parents {
        if folders.iter().all(|(made, _)| *made != parent) {
            let folder = make_folder(directory, parent, group);
            folders.push((parent, folder.with_context(|| format!("writing {}", parent.display()))?));
        }
    }
    let place = |path: &Path| {
        let folder = folders.iter().find(|(made, _)| Some(*made) == path.parent());
        (folder.map_or(directory, |(_, folder)| folder), path.file_name().unwrap_or_default().to_owned())
    };
    for PlannedFile { path, content, .. } in files {
        let (folder, name) = place(path);
        write_file(folder, &name, content, group).with_context(|| format!("writing {}", path.display()))?;
    }
    for Link { path, target } in links {
        let (folder, name) = place(path);
        symlinkat(target, folder, &*name).with_context(|| format!("linking {}", path.display()))?;
    }
    Ok(())
}

/// Writes certificates and their keys, readable only for Prosody. Creates their folder in any case, because Prosody
/// looks for it.
fn write_certificates(directory: &OwnedFd, imports: &[Import], owner: Option<&User>) -> anyhow::Result<()> {
    let root_for = owner.filter(|_| geteuid().is_root());
    let folder = make_folder(directory, Path::new(CERTIFICATES_DIR), root_for.map(|owner| owner.gid))?;
    if imports.is_empty() {
        return Ok(());
    }
    let write = || -> anyhow::Result<()> {
        for import in imports {
            let name = Path::new(import.path.file_name().unwrap_or_default());
            create(&folder, name, PRIVATE_MODE, &import.pair.pem)
                .with_context(|| format!("writing {}", import.path.display()))?;
        }
        Ok(())
    };
    let Some(owner) = root_for else { return write() };
    // Prosody's user writes them, because the container may lack CHOWN. The generation is not current yet, so nothing
    // reads files that the group could add.
    fchmod(&folder, SHARED_MODE)?;
    privileges::as_user(owner, write).map_err(|failure| failure.error)??;
    Ok(fchmod(&folder, DIRECTORY_MODE)?)
}

/// Creates a folder of a generation, readable for its group.
fn make_folder(directory: &OwnedFd, name: &Path, group: Option<u32>) -> nix::Result<OwnedFd> {
    let folder = directory::make_below(directory, name, DIRECTORY_MODE)?;
    if let Some(gid) = group {
        chown_to_root(&folder, &fstat(&folder)?, gid, DIRECTORY_MODE)?;
    }
    Ok(folder)
}

/// Writes a file, readable for its group. `group` overrides a directory's set-group-ID bit.
fn write_file(
    directory: &OwnedFd,
    name: impl AsRef<Path>,
    content: &str,
    group: Option<u32>,
) -> anyhow::Result<()> {
    let file = create(directory, name, PRIVATE_MODE, content)?;
    if let Some(gid) = group.filter(|&gid| fstat(&file).is_ok_and(|found| found.st_gid != gid)) {
        fchown(&file, None, Some(Gid::from_raw(gid)))?;
    }
    fchmod(&file, FILE_MODE)?;
    Ok(())
}

fn create(directory: &OwnedFd, name: impl AsRef<Path>, mode: Mode, content: &str) -> io::Result<File> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut file = File::from(openat(directory, name.as_ref(), flags, mode)?);
    file.write_all(content.as_bytes())?;
    Ok(file)
}

/// Removes a file, a link, or a directory of them, if it exists.
fn clear(directory: &OwnedFd, name: impl AsRef<Path>) -> nix::Result<()> {
    match unlinkat(directory, name.as_ref(), UnlinkatFlags::NoRemoveDir) {
        Err(Errno::ENOENT) => Ok(()),
        Err(Errno::EISDIR) => directory::remove_below(directory, name.as_ref()),
        removed => removed,
    }
}

/// Removes old generations and the incomplete entries of ended processes. Failures do not prevent the start.
fn remove_old_generations(runtime: &OwnedFd, path: &Path) {
    let generations = facts::generations(path);
    let old = generations.len().saturating_sub(KEPT);
    // A running server loads modules through the links of its first generation.
    let Ok(running) = Running::in_directory(path) else { return };
    let started = running.map(|running| running.generation).unwrap_or_default();
    let old = generations[..old].iter().map(|number| format!("generation-{number}"));
    let old = old.filter(|name| *name != started);
    let is_abandoned = |name: &String| match name.strip_prefix(INCOMPLETE).map(|pid| pid.parse().ok()) {
        Some(Some(pid)) => kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH),
        Some(None) => true,
        None => name.starts_with(".generation-") || name == ".next",
    };
    let names = entries(runtime).unwrap_or_default().into_iter().filter_map(|name| name.into_string().ok());
    for name in old.chain(names.filter(is_abandoned)) {
        if let Err(error) = clear(runtime, &name) {
            tracing::debug!("{} stays: {error}", path.join(name).display());
        }
    }
}

/// Adds the path, an exit status and a remedy to an error.
fn failure(error: anyhow::Error, path: &Path) -> Failure {
    let errno = errno(&error);
    let (uid, gid) = (geteuid(), nix::unistd::getegid());
    let advice = match errno {
        Some(Errno::EROFS) => advice!("it is on a read-only file system: mount a volume or a tmpfs there"),
        Some(Errno::ENOSPC | Errno::EDQUOT) => advice!("the file system is full: give it more room"),
        Some(Errno::EPERM) if !uid.is_root() => {
            advice!("another user's files are in the way: empty the directory, or name another")
        }
        Some(Errno::EACCES) if !uid.is_root() => advice!(
            "uid {uid} (gid {gid}) may not write there: give the directory to that user or group, or choose another user"
        ),
        Some(Errno::EACCES | Errno::EPERM) => {
            match &privileges::missing(&User::current(), &[Capability::CHOWN, Capability::DAC_OVERRIDE])[..] {
                [] => advice!(
                    "root has no power over it, as in a user namespace or on a network file system: run `chown -R 0:0` \
                     on it outside of the container"
                ),
                missing => advice!("root lacks a right here: add `{}` to the container", missing.join(" ")),
            }
        }
        Some(Errno::ENOTEMPTY) => advice!("another command wrote there at the same moment: try again"),
        Some(Errno::EEXIST) => advice!("there are files of that name already: empty it, or name another"),
        Some(Errno::ENOTDIR) => advice!("it is not a directory: remove what is there"),
        Some(Errno::ELOOP) => {
            advice!("a link is in its place or on the way to it, expected directories: remove it")
        }
        _ => Advice::default(),
    };
    let status = match errno {
        Some(Errno::EPERM) if uid.is_root() => ExitStatus::NO_PERMISSION,
        _ => ExitStatus::CANNOT_WRITE,
    };
    let error = if advice.is_empty() { error } else { error.context(advice) };
    Failure::new(status, error.context(format!("{} cannot be written", path.display())))
}

#[cfg(test)]
mod tests;
