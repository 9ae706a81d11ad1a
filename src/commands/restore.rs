//! Brings the data of an archive into an empty, stopped server.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::Context;

use super::data::{STANDARD, ServerData, supervise};
use crate::apply;
use crate::cli::Restore;
use crate::configure::lock;
use crate::data::Task;
use crate::exit_status::{ExitStatus, Failure, WithStatus};
use crate::layout::RESTORING_DIR;

/// Restores the archive.
/// Errors: 64 if standard input is a terminal; 66 if the file cannot be read; 69 if a server uses the data directory; those
/// of [`ServerData::run`].
pub fn run(options: &Restore) -> Result<ExitStatus, Failure> {
    supervise(|| read(options))
}

fn read(options: &Restore) -> Result<ExitStatus, Failure> {
    let archive = if options.file == Path::new(STANDARD) {
        if io::stdin().is_terminal() {
            return Err(ExitStatus::USAGE.failure(
                "standard input is a terminal, and not a backup: redirect it, `docker run -i --rm OPTIONS IMAGE restore < \
                 backup.tar`, without `-t`",
            ));
        }
        let copy = io::stdin().as_fd().try_clone_to_owned();
        File::from(copy.context("copying a descriptor").status(ExitStatus::OS_ERROR)?)
    } else {
        let file = File::open(&options.file);
        file.with_context(|| options.file.display().to_string()).status(ExitStatus::NO_INPUT)?
    };
    let server = ServerData::find()?;
    let claim = lock::claim(&server.data_dir, &server.user)?;
    if server.served_since(&claim).is_some() {
        return Err(ExitStatus::UNAVAILABLE.failure(advice!(
            "a server or another command uses {}, and would not see what is restored: stop it, and run `docker run -i \
             --rm OPTIONS IMAGE restore` with this container's options",
            server.data_dir.display()
        )));
    }
    apply::refuse_half_moved(&server.data_dir, &server.user, Some(RESTORING_DIR))?;
    server.run(&Task::Restore { hosts: &options.host }, archive, claim)
}
