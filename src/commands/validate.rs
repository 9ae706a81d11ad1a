//! Every check there is: the settings, the plan, then Prosody's own loader and its own check.

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

/// Ends with 0 where nothing is wrong, with 78 where a setting is, or where Prosody says so.
pub fn run() -> Result<ExitStatus, Failure> {
    let (settings, report) = read_settings();
    let places = Places::find(&settings);
    if let Some(main_file) = places.custom_main_file() {
        let (_, user, _) = custom::check(&settings, report, &places, &main_file)?;
        return check_config(&user, std::env::vars_os().collect(), &main_file, &places.data_dir);
    }

    // The files are written to a place of their own, as Prosody's user: what is in force stays as it is.
    let temporary = [std::env::temp_dir(), PathBuf::from("/dev/shm")];
    let temporary = temporary.iter().find(|directory| facts::is_writable(directory)).unwrap_or(&temporary[0]);
    // What is wrong with the user is found below, with all the rest.
    let user = facts::identity(&settings, &places.data_dir).unwrap_or_else(|_| User::current());
    let make = || mkdtemp(&temporary.join("prosody-validate-XXXXXX"));
    let directory = privileges::as_user(&user, make)
        .with_context(|| format!("making a directory in {}: mount a tmpfs there", temporary.display()))
        .status(ExitStatus::CANNOT_WRITE)?;
    let directory = Temporary { path: directory, user: user.clone() };
    let request = PlanRequest { generation: Some(directory.path.clone()), ..PlanRequest::to_apply() };
    let (facts, plan, report) = make_plan(&settings, places, report, &request, None)?;
    log_report(&report);
    privileges::as_user(&user, || apply::write_to(&directory.path, &plan))?;
    let variables = environment::without_settings(&settings, &facts.custom_files.environment());
    check_config(&user, variables, &directory.path.join(MAIN_FILE), &facts.data_dir)
}

/// Has Prosody's own loader read a configuration and its own check look at it, as Prosody's user.
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

/// A directory of a user's that goes when it is no longer needed.
struct Temporary {
    path: PathBuf,
    user: User,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = privileges::as_user(&self.user, || fs::remove_dir_all(&self.path));
    }
}
