//! `prosodyctl`, as `docker exec` finds it first on `PATH`: Prosody's own, told where the configuration is and run as
//! Prosody's user, so that it needs no option.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::anyhow;

use super::read_settings;
use super::run::{environment, without_settings};
use crate::exit_status::{ExitStatus, Failure};
use crate::facts::{self, Places, SERVER_DIR};
use crate::identity::User;
use crate::init::Command;
use crate::privileges;
use crate::settings::Settings;

/// The commands of `prosodyctl`, 0.12 and 13.0 (`prosodyctl help`, and its source).
const COMMANDS: &[&str] = &[
    "about",
    "adduser",
    "cert",
    "check",
    "deluser",
    "install",
    "list",
    "passwd",
    "register",
    "reload",
    "remove",
    "restart",
    "shell",
    "start",
    "status",
    "stop",
    "unregister",
];

/// Whether a word is a command of `prosodyctl`'s: one of its own, or a module's (`mod_storage_sql upgrade`).
pub fn is_command(word: &str) -> bool {
    COMMANDS.contains(&word) || word.starts_with("mod_")
}

/// Becomes Prosody's own `prosodyctl`.
pub fn run(arguments: Vec<OsString>) -> Result<ExitStatus, Failure> {
    let (settings, _) = read_settings();
    let places = Places::of_running(&settings);
    let (main_file, environment_left) = match (places.own_main_file(), places.current_main_file()) {
        (Some(own), _) => (own, std::env::vars_os().collect()),
        (None, Some(current)) => {
            // A file that cannot be read any more is Prosody's to report.
            let files = facts::read_user_files(&settings, &places.config_dir).unwrap_or_default();
            (current, without_settings(&settings, &files.environment()))
        }
        (None, None) => {
            return Err(Failure::new(
                ExitStatus::CONFIGURATION,
                anyhow!(
                    "there is no configuration in {} yet: is the server starting, or did it stop with an error?",
                    places.runtime_dir.display()
                ),
            ));
        }
    };
    let program = program()?.into();
    privileges::drop_to(&user(&settings, &places)?)?;
    let environment = environment(environment_left, &main_file, &places.data_dir);
    Err(Command { program, arguments, environment, directory: None, server: false }.exec())
}

/// Whom the running server runs as: the owner of its own directory.
fn user(settings: &Settings, places: &Places) -> Result<User, Failure> {
    match fs::symlink_metadata(places.runtime_dir.join(SERVER_DIR)) {
        Ok(metadata) if nix::unistd::geteuid().is_root() => {
            Ok(User { name: None, uid: metadata.uid(), gid: metadata.gid() })
        }
        _ => facts::identity(settings, &places.data_dir),
    }
}

/// Prosody's own `prosodyctl`: the first on `PATH` that is not this program.
pub fn program() -> Result<PathBuf, Failure> {
    let ours = fs::metadata("/proc/self/exe").ok().map(|metadata| (metadata.dev(), metadata.ino()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join("prosodyctl"))
        .find(|program| {
            fs::metadata(program)
                .is_ok_and(|found| found.is_file() && Some((found.dev(), found.ino())) != ours)
        })
        .ok_or_else(|| {
            Failure::new(
                ExitStatus::COMMAND_NOT_FOUND,
                anyhow!("there is no `prosodyctl` on PATH: Prosody is not installed"),
            )
        })
}
