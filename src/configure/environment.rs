//! The environment of Prosody's programs.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::settings::catalogue::PREFIX;
use crate::settings::{Settings, input};

/// The variable with the main file's path, for `prosody` and `prosodyctl`.
const CONFIG_VARIABLE: &str = "PROSODY_CONFIG";

/// This process's environment without variables that begin with `PROSODY_`, because even a misspelt one may be a
/// secret. Variables that custom files `read` stay unless they are secrets. A used legacy `PASSWORD` is removed.
pub fn without_settings(settings: &Settings, read: &BTreeSet<&str>) -> Vec<(OsString, OsString)> {
    let is_kept = |name: &OsStr| {
        let Some(name) = name.to_str() else { return true };
        let is_ours = name.starts_with(PREFIX) && !input::NOT_OURS.contains(&name);
        !settings.is_secret(name) && (!is_ours || read.contains(name))
    };
    std::env::vars_os().filter(|(name, _)| is_kept(name)).collect()
}

/// Sets `PROSODY_CONFIG` and `HOME` for Prosody's programs.
pub fn complete(
    mut environment: Vec<(OsString, OsString)>,
    main_file: &Path,
    data_dir: &Path,
) -> Vec<(OsString, OsString)> {
    environment.retain(|(name, _)| name != CONFIG_VARIABLE && name != "HOME");
    environment.push((CONFIG_VARIABLE.into(), main_file.into()));
    environment.push(("HOME".into(), data_dir.into()));
    environment
}
