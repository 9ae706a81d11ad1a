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

    // `make_plan` reports errors of the user, with all others.
    let user = facts::identity(&settings, &places.data_dir).unwrap_or_else(|_| User::current());
    let directory = Temporary::create(user)?;
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
    let status = prosodyctl_check("config", user, variables, main_file, data_dir)?
        .status()
        .context("running prosodyctl")
        .status(ExitStatus::CANNOT_EXECUTE)?;
    Ok(if status.success() { ExitStatus::SUCCESS } else { ExitStatus::CONFIGURATION })
}

/// One of Prosody's own checks, ready to run. From here on, this process is Prosody's user.
pub fn prosodyctl_check(
    check: &str,
    user: &User,
    variables: Vec<(OsString, OsString)>,
    main_file: &Path,
    data_dir: &Path,
) -> Result<Command, Failure> {
    let mut command = Command::new(prosody::prosodyctl()?);
    privileges::drop_to(user)?;
    command.args(["check", check]).env_clear().envs(environment::complete(variables, main_file, data_dir));
    Ok(command)
}

/// A user's temporary directory for a configuration. The current generation stays as it was. It is removed on drop.
pub struct Temporary {
    pub path: PathBuf,
    user: User,
}

impl Temporary {
    pub fn create(user: User) -> Result<Self, Failure> {
        let places = [std::env::temp_dir(), PathBuf::from("/dev/shm")];
        let place = places.iter().find(|directory| facts::is_writable(directory)).unwrap_or(&places[0]);
        let path = privileges::as_user(&user, || mkdtemp(&place.join("prosody-validate-XXXXXX")))?
            .with_context(|| advice!("making a directory in {}: mount a tmpfs there", place.display()))
            .status(ExitStatus::CANNOT_WRITE)?;
        Ok(Self { path, user })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = privileges::as_user(&self.user, || fs::remove_dir_all(&self.path));
    }
}
