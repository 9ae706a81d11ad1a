//! `prosodyctl`, as `docker exec` finds it first in `PATH`. It runs Prosody's own `prosodyctl` as Prosody's user and
//! with the rendered configuration, so that no options are needed.

mod import;

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::configure::{environment, read_settings};
use crate::exit_status::{ExitStatus, Failure};
use crate::facts::running::{self, Running};
use crate::facts::{self, Places, prosody};
use crate::init::{Command, ProgramKind};
use crate::os::privileges;
use crate::os::users::User;

/// The commands of `prosodyctl` in 0.12 and 13.0 (`prosodyctl help`, and its source).
const COMMANDS: &[&str] = &[
    "about", "adduser", "cert", "check", "deluser", "install", "list", "passwd", "register", "reload",
    "remove", "restart", "shell", "start", "status", "stop", "unregister", "version",
];

/// Commands that need a running server since 13.0. In 0.12 they change the data themselves.
const NEED_SERVER_SINCE_13: &[&str] = &["adduser", "deluser", "passwd"];

/// Whether a word is a `prosodyctl` command: a built-in one, or one of a module (`mod_storage_sql upgrade`).
pub fn is_command(word: &str) -> bool {
    COMMANDS.contains(&word) || word.starts_with("mod_")
}

/// Warns about a command that needs a running server, because there is none in a new container. `prosodyctl`'s own
/// error does not explain this.
pub fn warn_without_server(command: &[OsString], is_13: bool) {
    let words: Vec<&str> = command.iter().filter_map(|word| word.to_str()).collect();
    if let [program, "start" | "restart"] = words[..] {
        if is_prosodyctl(OsStr::new(program)) {
            let advice = advice!(
                "`prosodyctl {}` leaves a server in the background, and this container ends with the command: leave the \
                 command out, and the container runs the server",
                words[1]
            );
            tracing::warn!("{advice}");
        }
    }
    if let Some(name) = server_command(command, is_13) {
        let advice = advice!(
            "`prosodyctl {name}` asks a running server, and in this new container there is none: run it in the server's, \
             `docker exec -it CONTAINER prosodyctl {name} …`"
        );
        tracing::warn!("{advice}");
    }
}

/// Refuses a `prosodyctl` command line of a new container that cannot do what it says. With `has_settings`, the
/// configuration is rendered from settings.
/// Errors: 1 for `cert import`, where Prosody would copy the keys into the data, and as [`require_luarocks`].
pub fn refuse(command: &[OsString], has_settings: bool) -> Result<(), Failure> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    if !is_prosodyctl(program) {
        return Ok(());
    }
    let line = CommandLine::parse(arguments);
    if has_settings && line.imported().is_some() {
        let why = "`prosodyctl cert import` is for a running server, and in this new container there is none: a start finds \
                   certificates by itself";
        return Err(ExitStatus::exited(1).failure(why));
    }
    require_luarocks(&line)
}

/// Errors: 1 if a command needs LuaRocks and it is not installed. `prosodyctl` itself would end with 0.
fn require_luarocks(line: &CommandLine) -> Result<(), Failure> {
    let name = line.command.first().and_then(|name| name.to_str()).unwrap_or_default();
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !["install", "remove"].contains(&name) || prosody::on_path(&path, "luarocks", |_, _| true).is_some() {
        return Ok(());
    }
    Err(ExitStatus::exited(1).failure(advice!(
        "`prosodyctl {name}` needs LuaRocks, which is not in this image: install the package `luarocks` in an image of \
         your own, or put modules into a folder of PROSODY_PLUGIN_PATHS"
    )))
}

fn is_prosodyctl(program: &OsStr) -> bool {
    Path::new(program).file_name() == Some(OsStr::new("prosodyctl"))
}

/// The arguments of `prosodyctl`.
#[derive(Debug, PartialEq)]
struct CommandLine<'a> {
    /// Whether `--root` is given, to stay root.
    is_root: bool,
    config: Option<PathBuf>,
    command: &'a [OsString],
}

impl<'a> CommandLine<'a> {
    /// Parses the options before the command (`util/startup.lua`).
    fn parse(arguments: &'a [OsString]) -> Self {
        let mut line = Self { is_root: false, config: None, command: arguments };
        while let [option, rest @ ..] = line.command {
            match option.to_str() {
                Some("--root") => line.is_root = true,
                Some("--config") => line.config = rest.first().map(PathBuf::from),
                Some(option) if option.starts_with('-') => {
                    line.config = option.strip_prefix("--config=").map(PathBuf::from).or(line.config);
                }
                _ => break,
            }
            let has_value = option == "--config" && !rest.is_empty();
            line.command = if has_value { &rest[1..] } else { rest };
        }
        line
    }

    /// The arguments of `cert import`, unless they ask for help.
    fn imported(&self) -> Option<&'a [OsString]> {
        match self.command {
            [cert, import, rest @ ..] if cert == "cert" && import == "import" => {
                (!rest.iter().any(|argument| argument == "--help" || argument == "-h")).then_some(rest)
            }
            _ => None,
        }
    }
}

/// The `prosodyctl` command in a command line, if it needs a running server.
fn server_command(command: &[OsString], is_13: bool) -> Option<&str> {
    let (program, arguments) = command.split_first()?;
    let (name, arguments) = CommandLine::parse(arguments).command.split_first()?;
    let name = name.to_str().filter(|_| is_prosodyctl(program))?;
    // Without a JID, they only print their usage.
    let has_jid = || arguments.first().is_some_and(|first| !first.as_encoded_bytes().starts_with(b"-"));
    (name == "shell" || (is_13 && NEED_SERVER_SINCE_13.contains(&name) && has_jid())).then_some(name)
}

/// Executes Prosody's own `prosodyctl`. Returns only after an error.
/// Errors: 77 if a permission is missing, 78 if there is no configuration yet, and those of [`Command::exec`].
pub fn run(arguments: Vec<OsString>) -> Result<ExitStatus, Failure> {
    let (settings, _) = read_settings();
    let places = Places::of_running(&settings);
    let is_root = nix::unistd::geteuid().is_root();
    let starter = running::starter(&places).filter(|_| is_root);
    if let Some(user) = &starter {
        // Do this before reading the runtime directory: root may lack the permission for it.
        become_user(user)?;
    }
    let line = CommandLine::parse(&arguments);
    require_luarocks(&line)?;
    let custom = places.custom_main_file().filter(|_| Running::find(&places).is_none());
    // Guides name the usual main file, which a server with settings does not have.
    let is_other = |file: &PathBuf| file.exists() && !file.starts_with(&places.runtime_dir);
    let custom = line.config.clone().filter(is_other).or(custom);
    let has_custom = custom.is_some();
    let current = places.current_main_file().map_err(|error| runtime_dir_unreadable(&places, &error))?;
    if let (false, Some(arguments)) = (has_custom || current.is_none(), line.imported()) {
        return import::run(&settings, &places, arguments);
    }
    let (main_file, environment_left) = match (custom, current) {
        (Some(custom), _) => (custom, std::env::vars_os().collect()),
        (None, Some(current)) => {
            // Prosody itself reports files that can no longer be read.
            let files = facts::read_user_files(&settings, &places.config_dir).unwrap_or_default();
            (current, environment::without_settings(&settings, &files.environment()))
        }
        (None, None) => return Err(no_configuration(&places)),
    };
    let program = prosody::prosodyctl()?.into();
    if starter.is_none() {
        let user = running::user(&places).filter(|_| is_root);
        let user = user.map_or_else(|| facts::identity(&settings, &places.data_dir), Ok)?;
        // The source of certificates may be readable by root alone, and Prosody gives the copies to its user.
        let stays_root = line.is_root && is_root && has_custom && line.imported().is_some();
        if !stays_root {
            become_user(&user)?;
        } else if !is_of_others(&main_file, user.uid) {
            return Err(ExitStatus::NO_PERMISSION.failure(advice!(
                "Prosody's user can change {file} or its directory, so root does not run it: give both to root, or copy \
                 the certificates into `certs` beside it",
                file = main_file.display()
            )));
        }
    }
    let environment = environment::complete(environment_left, &main_file, &places.data_dir);
    Err(Command {
        program,
        arguments,
        environment,
        user: None,
        kind: ProgramKind::Program,
        inherited: Vec::new(),
    }
    .exec())
}

/// Whether a user can change neither a file nor the directory it is in. Root runs the Lua of no other file.
fn is_of_others(file: &Path, uid: u32) -> bool {
    let is_of_others = |path: &Path| {
        fs::metadata(path).is_ok_and(|found| (uid == 0 || found.uid() != uid) && found.mode() & 0o002 == 0)
    };
    is_of_others(file) && is_of_others(file.parent().unwrap_or(file))
}

/// The error for a server that has not written its configuration.
pub fn no_configuration(places: &Places) -> Failure {
    ExitStatus::CONFIGURATION.failure(format!(
        "there is no configuration in {} yet: is the server starting, or did it stop with an error?",
        places.runtime_dir.display()
    ))
}

/// The error for an unreadable runtime directory, with advice: Prosody's group can read it.
fn runtime_dir_unreadable(places: &Places, error: &io::Error) -> Failure {
    let User { uid, gid, .. } = User::current();
    let group = fs::metadata(&places.runtime_dir).map_or(gid, |found| found.gid());
    ExitStatus::NO_PERMISSION.failure(advice!(
        "{}: {error} for uid {uid}, gid {gid}: come as root, or with Prosody's group, `docker exec --user {uid}:{group}`",
        places.runtime_dir.display()
    ))
}

fn become_user(user: &User) -> Result<(), Failure> {
    if privileges::missing(user, &[]).is_empty() {
        return privileges::drop_to(user);
    }
    let User { uid, gid, .. } = user;
    Err(ExitStatus::NO_PERMISSION.failure(advice!(
        "root lacks the capabilities to become uid {uid}, gid {gid}, whom Prosody runs as: come as that user, \
         `docker exec --user {uid}:{gid}`"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_before_the_command_are_understood() {
        for (line, is_root, config, command, imports) in [
            ("cert import /live", false, None, 0, true),
            ("--root cert import a.example /live", true, None, 1, true),
            ("--config /x --root cert import /live", true, Some("/x"), 3, true),
            ("--config=/x --verbose cert import", false, Some("/x"), 2, true),
            ("cert import --help", false, None, 0, false),
            ("--root cert generate a.example", true, None, 1, false),
            ("--root", true, None, 1, false),
            ("--config", false, None, 1, false),
            ("shell cert import", false, None, 0, false),
        ] {
            let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let parsed = CommandLine::parse(&arguments);
            let expected =
                CommandLine { is_root, config: config.map(PathBuf::from), command: &arguments[command..] };
            assert_eq!(parsed, expected, "{line}");
            assert_eq!(parsed.imported().is_some(), imports, "{line}");
        }
    }

    #[test]
    fn commands_for_a_running_server_are_recognised() {
        for (line, on_0_12, on_13) in [
            ("prosodyctl shell", true, true),
            ("/usr/bin/prosodyctl shell module list", true, true),
            ("prosodyctl adduser romeo@chat.example", false, true),
            ("prosodyctl passwd romeo@chat.example", false, true),
            ("prosodyctl deluser romeo@chat.example", false, true),
            ("prosodyctl adduser", false, false),
            ("prosodyctl adduser --help", false, false),
            ("prosodyctl --root shell", true, true),
            ("prosodyctl --config /x --root adduser romeo@chat.example", false, true),
            ("prosodyctl register romeo chat.example", false, false),
            ("prosodyctl", false, false),
            ("prosody shell", false, false),
        ] {
            let command: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(server_command(&command, false).is_some(), on_0_12, "{line} on 0.12");
            assert_eq!(server_command(&command, true).is_some(), on_13, "{line} on 13.0");
        }
    }
}
