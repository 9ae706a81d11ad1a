//! The environment of Prosody's programs.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use crate::exit_status::Failure;
use crate::layout::SYSTEM_AUTHORITIES;
use crate::os::privileges;
use crate::os::users::User;
use crate::settings::catalogue::PREFIX;
use crate::settings::{Settings, compat, input};
use crate::text::reason;

/// The variable with the main file's path, for `prosody` and `prosodyctl`.
const CONFIG_VARIABLE: &str = "PROSODY_CONFIG";

/// The variables of socket activation (sd_listen_fds(3)). Prosody would use descriptors that it does not inherit.
const SOCKETS: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// The variable with the socket of a process manager (sd_notify(3)).
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

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

/// Removes that variable, with a warning, if the server's user cannot use the socket: Prosody 13.0 would exit.
/// Errors: 77 if that user's permissions cannot be had.
pub fn check_notify_socket(environment: &mut Vec<(OsString, OsString)>, user: &User) -> Result<(), Failure> {
    let Some(at) = environment.iter().position(|(name, _)| name == NOTIFY_SOCKET) else { return Ok(()) };
    let path = Path::new(&environment[at].1);
    let connected = privileges::as_user(user, || match path.is_absolute() {
        true => UnixDatagram::unbound()?.connect(path),
        false => Err(io::Error::other("Prosody can use no other sockets than paths")),
    })?;
    let Err(error) = connected else { return Ok(()) };
    let (_, path) = environment.remove(at);
    if !path.is_empty() {
        let advice = advice!(
            "{NOTIFY_SOCKET}={}: {}: nobody is told of the start, of reloads and of the stop: give the path of a datagram \
             socket that uid {} may write to, or leave it out",
            path.to_string_lossy(),
            reason(&error),
            user.uid
        );
        tracing::warn!("{advice}");
    }
    Ok(())
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
    fn prosody_gets_a_socket_to_notify_if_it_can_use_it() {
        let directory = crate::tests::TestDir::new();
        let path = |name: &str| directory.path().join(name).into_os_string();
        let _datagrams = UnixDatagram::bind(path("datagrams")).unwrap();
        let _streams = std::os::unix::net::UnixListener::bind(path("streams")).unwrap();
        let is_kept = |value: OsString| {
            let mut environment = vec![("NOTIFY_SOCKET".into(), value), ("PATH".into(), "/bin".into())];
            check_notify_socket(&mut environment, &User::current()).unwrap();
            assert_eq!(environment.last().unwrap().0, "PATH");
            environment.len() == 2
        };
        assert!(is_kept(path("datagrams")));
        let long = path(&"x".repeat(108));
        for other in [path("streams"), path("nothing"), long, "@abstract".into(), "x".into(), "".into()] {
            assert!(!is_kept(other.clone()), "{other:?}");
        }
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
