//! Writes the configuration, then becomes Prosody or another program under PID 1.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::prosodyctl;
use crate::configure::{Ready, configure, environment, format_of_environment};
use crate::exit_status::{ExitStatus, Failure};
use crate::facts::prosody;
use crate::facts::running::Running;
use crate::init::{self, Command, InitOptions, MessageStyle, ProgramKind, Reload};
use crate::os::watch::Watch;
use crate::{log, reload};

/// Writes the configuration and runs `arguments` as a program under PID 1.
///
/// Returns the program's exit status, or ours if the program was not executed.
pub fn run(arguments: Vec<OsString>) -> Result<ExitStatus, Failure> {
    let command = resolve(arguments);
    let is_server = Path::new(&command[0]).file_name() == Some(OsStr::new("prosody"));
    // PID 1 creates the watch, because it receives the events. The child adds the watched places.
    let watch = is_server.then(Watch::new);
    let events = watch.as_ref().and_then(|watch| watch.as_ref().ok());
    let run = |server, cause| reload::run(server, cause, events);
    let reload = is_server.then_some(Reload {
        run: &run,
        watch: events,
        limit: reload::TIME_LIMIT,
        interval: reload::EXPIRY_INTERVAL,
    });
    let message_style = MessageStyle::Entrypoint(format_of_environment());
    let options = InitOptions { message_style, ..InitOptions::entrypoint() };
    init::supervise(&options, reload, || log::report_failure(&become_program(command, watch.as_ref())))
}

/// In the child: writes the configuration and executes the program. Returns only on failure.
fn become_program(command: Vec<OsString>, watch: Option<&nix::Result<Watch>>) -> Failure {
    let is_server = watch.is_some();
    if is_server {
        init::ignore_hangup();
    }
    let Err(failure) = configure(watch).and_then(|ready| exec(ready, command, is_server));
    failure
}

/// The command line for the arguments: the server by default, and `prosodyctl` for its commands.
fn resolve(mut arguments: Vec<OsString>) -> Vec<OsString> {
    match arguments.first().and_then(|first| first.to_str()) {
        None if arguments.is_empty() => vec!["prosody".into(), "-F".into()],
        Some(first) if prosodyctl::is_command(first) => {
            arguments.insert(0, "prosodyctl".into());
            arguments
        }
        _ => arguments,
    }
}

/// Executes a command line. Returns only on failure.
fn exec(
    ready: Ready,
    mut command: Vec<OsString>,
    is_server: bool,
) -> Result<std::convert::Infallible, Failure> {
    if !matches!(Running::in_directory(&ready.runtime_dir), Ok(Some(_))) {
        prosodyctl::warn_without_server(&command, ready.is_13);
    }
    prosodyctl::refuse(&command, ready.main_file.starts_with(&ready.runtime_dir))?;
    let mut program = command.remove(0);
    if program == "prosodyctl" {
        program = prosody::prosodyctl()?.into();
    }
    let mut environment = environment::complete(ready.environment, &ready.main_file, &ready.data_dir);
    if is_server {
        environment::check_notify_socket(&mut environment, &ready.user)?;
    }
    let command = Command {
        program,
        arguments: command,
        environment,
        user: Some(ready.user),
        kind: if is_server { ProgramKind::Server } else { ProgramKind::Program },
        inherited: ready.data_locks,
    };
    Err(command.exec())
}
