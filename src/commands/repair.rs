//! Repairs damaged data, beside a running server or without one.

use std::fs::File;

use anyhow::Context;

use super::data::{ServerData, supervise};
use crate::configure::lock;
use crate::data::Task;
use crate::exit_status::{ExitStatus, Failure, WithStatus};

/// Repairs what can be repaired. Returns 0, or 2 if something is left.
/// Errors: 69 for a database that has to be repaired without the server; those of [`ServerData::run`].
pub fn run() -> Result<ExitStatus, Failure> {
    supervise(|| {
        let server = ServerData::find()?;
        // A server that starts meanwhile waits.
        let claim = lock::claim(&server.data_dir, &server.user)?;
        let served_since = server.served_since(&claim);
        let nothing = File::open("/dev/null").context("/dev/null").status(ExitStatus::OS_ERROR)?;
        server.run(&Task::Repair { served_since }, nothing, claim)
    })
}
