//! The environment of Prosody's programs.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::layout::SYSTEM_AUTHORITIES;
use crate::settings::catalogue::PREFIX;
use crate::settings::{Settings, compat, input};

/// The variable with the main file's path, for `prosody` and `prosodyctl`.
const CONFIG_VARIABLE: &str = "PROSODY_CONFIG";

/// The variables of socket activation (sd_listen_fds(3)). Prosody would use descriptors that it does not inherit.
const SOCKETS: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// This process's environment without variables that begin with `PROSODY_`, because even a misspelt one may be a
/// secret, and without the passwords of other images. Variables that custom files `read` stay unless they are secrets
/// of ours.
pub fn without_settings(settings: &Settings, read: &BTreeSet<&str>) -> Vec<(OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| is_kept(name, settings, read)).collect()
}

fn is_kept(name: &OsStr, settings: &Settings, read: &BTreeSet<&str>) -> bool {
    let Some(name) = name.to_str() else { return true };
    let is_ours = name.starts_with(PREFIX) && !input::NOT_OURS.contains(&name);
    !settings.is_secret(name) && (read.contains(name) || !(is_ours || compat::is_password(name)))
}

/// Sets `PROSODY_CONFIG` and `HOME` for Prosody's programs, and removes the variables of socket activation.
pub fn complete(
    mut environment: Vec<(OsString, OsString)>,
    main_file: &Path,
    data_dir: &Path,
) -> Vec<(OsString, OsString)> {
    environment
        .retain(|(name, _)| ![CONFIG_VARIABLE, "HOME"].iter().chain(&SOCKETS).any(|removed| name == removed));
    environment.push((CONFIG_VARIABLE.into(), main_file.into()));
    environment.push(("HOME".into(), data_dir.into()));
    environment
}

/// Names the file of trusted authorities to the libraries that do not read Prosody's configuration, unless a variable
/// does already.
pub fn trust(environment: &mut Vec<(OsString, OsString)>, authorities: &Path) {
    let has = |name: &str, start: &str| {
        environment.iter().any(|(given, value)| given == name && value.to_string_lossy().starts_with(start))
    };
    let mut add: Vec<(&str, &Path)> = Vec::new();
    // ldap.conf(5). The directory keeps the system's.
    if !has("LDAPTLS_CACERT", "") && !has("LDAPTLS_CACERTDIR", "") {
        add.push(("LDAPTLS_CACERT", authorities));
        add.push(("LDAPTLS_CACERTDIR", Path::new(SYSTEM_AUTHORITIES)));
    }
    // With an authority, libpq (PostgreSQL's manual, 32.19) would refuse a server that a connection without verification
    // accepts, and go on without encryption.
    if has("PGSSLMODE", "verify-") && !has("PGSSLROOTCERT", "") {
        add.push(("PGSSLROOTCERT", authorities));
    }
    environment.extend(add.into_iter().map(|(name, path)| (name.into(), path.into())));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_other_images_are_kept_only_for_custom_files() {
        let given = |variables: &[&str]| {
            let variable = |name: &&str| ((*name).into(), "a.example".into());
            Settings::read(variables.iter().map(variable)).0
        };
        let names = ["PASSWORD", "DB_PASSWORD", "LDAP_PASSWORD", "PROSODY_DB_PASSWORD", "PROSODY_MISSPELT"];
        let settings = given(&["PROSODY_DOMAIN", "PROSODY_DB_PASSWORD"]);
        let kept = |settings: &Settings, read: &BTreeSet<&str>| -> Vec<&str> {
            let others = ["PATH", "MY_PASSWORD", "DB_HOST", "PROSODY_CONFIG"];
            let all = names.into_iter().chain(others);
            all.filter(|name| is_kept(OsStr::new(name), settings, read)).collect()
        };
        let others = ["PATH", "MY_PASSWORD", "DB_HOST", "PROSODY_CONFIG"];
        assert_eq!(kept(&settings, &BTreeSet::new()), others);
        let read = BTreeSet::from(names);
        let expected =
            [&["PASSWORD", "DB_PASSWORD", "LDAP_PASSWORD", "PROSODY_MISSPELT"][..], &others].concat();
        assert_eq!(kept(&settings, &read), expected);
        // The password of an account that is created.
        let settings = given(&["DOMAIN", "LOCAL", "PASSWORD"]);
        assert!(!kept(&settings, &read).contains(&"PASSWORD"));
    }

    #[test]
    fn prosody_gets_no_variables_of_socket_activation() {
        let given = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN", "HOME", "PROSODY_CONFIG"];
        let given = given.map(|name| (OsString::from(name), OsString::from("1"))).to_vec();
        let expected = [("LISTEN", "1"), ("PROSODY_CONFIG", "/m"), ("HOME", "/d")];
        let expected = expected.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        assert_eq!(complete(given, Path::new("/m"), Path::new("/d")), expected);
    }
}
