//! Saves the data of all hosts, or of one account, beside a running server or without one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::unistd::mkstemp;

use super::data::{STANDARD, ServerData, supervise};
use crate::apply;
use crate::cli::{Backup, Export};
use crate::configure::lock;
use crate::data::Task;
use crate::exit_status::{ExitStatus, Failure, WithStatus};

/// The beginning of the names of files that are no whole backup yet.
const PARTIAL: &str = ".prosody-backup.";

/// Writes an archive of all data. Returns 0, or 2 if some data could not be read.
/// Errors: 64 if standard output is a terminal; 73 if the file cannot be written; those of [`ServerData::run`].
pub fn run(options: &Backup) -> Result<ExitStatus, Failure> {
    supervise(|| write(&options.file, None))
}

/// Writes an archive of an account. Returns and errors: as [`run`].
pub fn export(options: &Export) -> Result<ExitStatus, Failure> {
    supervise(|| write(&options.file, Some(&options.account)))
}

fn write(path: &Path, account: Option<&str>) -> Result<ExitStatus, Failure> {
    let save = |archive| save(archive, account);
    if path == Path::new(STANDARD) {
        if io::stdout().is_terminal() {
            return Err(ExitStatus::USAGE.failure(
                "a backup is not text for a terminal: redirect it, `docker exec CONTAINER prosody-entrypoint backup > \
                 backup.tar`, without `-t`",
            ));
        }
        return save(own(io::stdout())?);
    }
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        let problem = advice!("{} is there and is no file: name one, or `-`", path.display());
        return Err(ExitStatus::CANNOT_WRITE.failure(problem));
    }
    let failed = |what: &str| format!("{what} {}", path.display());
    let directory = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    remove_interrupted(directory);
    let (file, incomplete, _lock) =
        make_partial(directory).with_context(|| failed("writing")).status(ExitStatus::CANNOT_WRITE)?;
    let saved = own(&file).and_then(save).and_then(|status| {
        file.sync_all()
            .and_then(|()| fs::rename(&incomplete, path))
            .with_context(|| failed("writing"))
            .status(ExitStatus::CANNOT_WRITE)?;
        Ok(status)
    });
    if saved.is_err() {
        let _ = fs::remove_file(&incomplete);
    }
    saved
}

/// Makes a file that only its owner can read, and locks it. The kernel releases the lock when this process and Lua have
/// ended, however they end. Without a lock, the file system has none.
fn make_partial(directory: &Path) -> anyhow::Result<(File, PathBuf, Option<Flock<File>>)> {
    loop {
        let (file, path) = mkstemp(&directory.join(format!("{PARTIAL}XXXXXX")))?;
        let file = File::from(file);
        let lock = Flock::lock(file.try_clone()?, FlockArg::LockExclusive).ok();
        // Another backup may have found it before it was locked.
        if file.metadata()?.nlink() > 0 {
            return Ok((file, path, lock));
        }
    }
}

/// Removes what interrupted backups have left in a directory. The files of running ones are locked.
fn remove_interrupted(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if !entry.file_name().as_encoded_bytes().starts_with(PARTIAL.as_bytes()) {
            continue;
        }
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags.bits()).open(entry.path());
        if file.is_ok_and(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn save(archive: File, account: Option<&str>) -> Result<ExitStatus, Failure> {
    let server = ServerData::find()?;
    // A server that starts meanwhile waits.
    let claim = lock::claim(&server.data_dir, &server.user)?;
    let served_since = server.served_since(&claim);
    apply::refuse_half_moved(&server.data_dir, &server.user, None)?;
    server.run(&Task::Backup { served_since, account }, archive, claim)
}

/// Another descriptor for the same file.
fn own(file: impl AsFd) -> Result<File, Failure> {
    let copy = file.as_fd().try_clone_to_owned();
    Ok(File::from(copy.context("copying a descriptor").status(ExitStatus::OS_ERROR)?))
}
