//! Prosody's own checks, `prosodyctl check`, of a configuration that may not be in force.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use nix::unistd::mkdtemp;

use super::data::served_since;
use crate::configure::{environment, lock};
use crate::data::{self, ServedSince};
use crate::exit_status::{ExitStatus, Failure, WithStatus};
use crate::facts::prosody::Prosody;
use crate::facts::{self, prosody};
use crate::os::privileges;
use crate::os::users::User;

/// What Prosody's own checks need.
pub struct Checks<'a> {
    pub user: &'a User,
    pub variables: Vec<(OsString, OsString)>,
    pub main_file: &'a Path,
    pub data_dir: &'a Path,
}

impl Checks<'_> {
    /// Runs one. From here on, this process is Prosody's user. Returns whether Prosody is content, and its report.
    pub fn run(&self, check: &str) -> Result<(bool, String), Failure> {
        let mut command = Command::new(prosody::prosodyctl()?);
        privileges::drop_to(self.user)?;
        let environment = environment::complete(self.variables.clone(), self.main_file, self.data_dir);
        command.args(["check", check]).env_clear().envs(environment).stderr(Stdio::inherit());
        let ended = command.output().context("running prosodyctl").status(ExitStatus::CANNOT_EXECUTE)?;
        Ok((ended.status.success(), String::from_utf8_lossy(&ended.stdout).into_owned()))
    }

    /// Finds lists with a part of an item. `running_since` is of the server in this container.
    pub fn damaged_lists(
        &self,
        prosody: &Prosody,
        running_since: ServedSince,
    ) -> Result<Vec<String>, Failure> {
        let served_since = served_since(&lock::claim(self.data_dir, self.user)?, running_since);
        let context = data::ServerContext {
            prosodyctl: &prosody::prosodyctl()?,
            prosody,
            user: self.user,
            environment: &environment::complete(self.variables.clone(), self.main_file, self.data_dir),
        };
        data::find_damaged_lists(served_since, &context)
    }
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
