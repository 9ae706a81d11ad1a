//! Every check there is: the settings, the plan, then Prosody's own loader and its own check.

use std::fs;
use std::process::Command;

use anyhow::Context;
use nix::unistd::{Gid, Uid, chown, mkdtemp};

use super::run::{environment, without_settings};
use super::{Wish, log_report, make_plan, prosodyctl, read_settings};
use crate::apply;
use crate::exit_status::{ExitStatus, Failure, WithStatus};
use crate::lua::Secrets;
use crate::plan::MAIN_FILE;
use crate::privileges;

/// Ends with 0 where nothing is wrong, with 78 where a setting is, or where Prosody says so.
pub fn run() -> Result<ExitStatus, Failure> {
    let (settings, report) = read_settings();
    // The files are written to a place of their own: what is in force stays as it is.
    let directory = mkdtemp(&std::env::temp_dir().join("prosody-validate-XXXXXX"))
        .context("making a temporary directory: mount a tmpfs on /tmp")
        .status(ExitStatus::CANNOT_WRITE)?;
    let directory = Temporary(directory);
    let wish = Wish { secrets: Secrets::Written, generation: &|_| directory.0.clone() };
    let (facts, plan, report) = make_plan(&settings, report, &wish)?;
    log_report(&report);
    apply::write_to(&directory.0, &plan)?;

    let user = &facts.identity;
    let program = prosodyctl::program()?;
    if nix::unistd::geteuid().is_root() {
        // Prosody's user reads them, and so that the directory can be removed afterwards, owns them.
        let (uid, gid) = (Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)));
        let files = plan.files.iter().map(|file| directory.0.join(&file.path));
        for path in files.chain([directory.0.clone()]) {
            chown(&path, uid, gid)
                .with_context(|| path.display().to_string())
                .status(ExitStatus::NO_PERMISSION)?;
        }
    }
    privileges::drop_to(user)?;
    let variables = without_settings(&settings, &facts.user_files.environment());
    let status = Command::new(program)
        .args(["check", "config"])
        .env_clear()
        .envs(environment(variables, &directory.0.join(MAIN_FILE), &facts.data_dir))
        .status()
        .context("running prosodyctl")
        .status(ExitStatus::CANNOT_EXECUTE)?;
    Ok(if status.success() { ExitStatus::SUCCESS } else { ExitStatus::CONFIGURATION })
}

/// A directory that goes when it is no longer needed.
struct Temporary(std::path::PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
