//! Runs every check: the settings, the plan, then Prosody's own loader and check.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use nix::unistd::mkdtemp;

use crate::apply;
use crate::configure::{PlanRequest, custom, environment, log_report, make_plan, read_settings};
use crate::exit_status::{ExitStatus, Failure, WithStatus};
use crate::facts::{self, Places, prosody};
use crate::layout::MAIN_FILE;
use crate::os::privileges;
use crate::os::users::User;

/// Checks the configuration. Returns 0, or 78 if Prosody finds an error.
/// Errors: 78 with all errors in settings and custom files; 73 or 77 for a data directory that a start refuses; other
/// statuses if a check cannot run.
pub fn run() -> Result<ExitStatus, Failure> {
    let (settings, report) = read_settings();
    let places = Places::find(&settings);
    if let Some(main_file) = places.custom_main_file() {
        let (_, user, _) = custom::check(&settings, report, &places, &main_file)?;
        apply::check_data_dir(&places.data_dir, &user)?;
        return check_config(&user, std::env::vars_os().collect(), &main_file, &places.data_dir);
    }

    // Prosody's user writes the files into a temporary directory. The current generation stays as it was.
    let temporary = [std::env::temp_dir(), PathBuf::from("/dev/shm")];
    let temporary = temporary.iter().find(|directory| facts::is_writable(directory)).unwrap_or(&temporary[0]);
    // `make_plan` reports errors of the user, with all others.
    let user = facts::identity(&settings, &places.data_dir).unwrap_or_else(|_| User::current());
    let make = || mkdtemp(&temporary.join("prosody-validate-XXXXXX"));
    let directory = privileges::as_user(&user, make)?
        .with_context(|| advice!("making a directory in {}: mount a tmpfs there", temporary.display()))
        .status(ExitStatus::CANNOT_WRITE)?;
    let directory = Temporary { path: directory, user };
    let request = PlanRequest { generation: Some(directory.path.clone()), ..PlanRequest::default() };
    let (facts, plan, report) = make_plan(&settings, places, report, &request, None)?;
    log_report(&report);
    apply::check_data_dir(&facts.data_dir, &facts.identity)?;
    privileges::as_user(&user, || apply::write_to(&directory.path, &plan))??;
    let variables = environment::without_settings(&settings, &facts.custom_files.environment());
    check_config(&user, variables, &directory.path.join(MAIN_FILE), &facts.data_dir)
}

/// Runs `prosodyctl check config` as Prosody's user.
fn check_config(
    user: &User,
    variables: Vec<(OsString, OsString)>,
    main_file: &Path,
    data_dir: &Path,
) -> Result<ExitStatus, Failure> {
    let program = prosody::prosodyctl()?;
    privileges::drop_to(user)?;
    let status = Command::new(program)
        .args(["check", "config"])
        .env_clear()
        .envs(environment::complete(variables, main_file, data_dir))
        .status()
        .context("running prosodyctl")
        .status(ExitStatus::CANNOT_EXECUTE)?;
    Ok(if status.success() { ExitStatus::SUCCESS } else { ExitStatus::CONFIGURATION })
}

/// A user's directory that is removed on drop.
struct Temporary {
    path: PathBuf,
    user: User,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = privileges::as_user(&self.user, || fs::remove_dir_all(&self.path));
    }
}
