//! The environment of Prosody's programs.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::settings::catalogue::PREFIX;
use crate::settings::{Settings, input};

/// The variable from which `prosody` and `prosodyctl` take the configuration file.
const CONFIG_VARIABLE: &str = "PROSODY_CONFIG";

/// This process's environment without what begins with `PROSODY_`: secrets are among it, under misspelt names too. What
/// the user's files read stays, unless it is a secret. Another image's `PASSWORD` that was taken goes as well.
pub fn without_settings(settings: &Settings, read: &BTreeSet<&str>) -> Vec<(OsString, OsString)> {
    let is_kept = |name: &OsStr| {
        let Some(name) = name.to_str() else { return true };
        let is_ours = name.starts_with(PREFIX) && !input::NOT_OURS.contains(&name);
        !settings.is_secret(name) && (!is_ours || read.contains(name))
    };
    std::env::vars_os().filter(|(name, _)| is_kept(name)).collect()
}

/// Adds what Prosody's programs find in their environment besides.
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
