//! Configure, then become Prosody or another program under PID 1.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::prosodyctl;
use crate::configure::{Ready, configure, environment};
use crate::exit_status::{ExitStatus, Failure};
use crate::facts::prosody;
use crate::facts::running::Running;
use crate::init::{self, Command, InitOptions, ProgramKind, Reload};
use crate::os::privileges;
use crate::os::watch::Watch;
use crate::{log, reload};

/// Runs `arguments` as a program under PID 1, configured first.
///
/// Returns the program's exit status, or ours where it never came to that.
pub fn run(arguments: Vec<OsString>) -> Result<ExitStatus, Failure> {
    let command = resolve(arguments);
    let is_server = Path::new(&command[0]).file_name() == Some(OsStr::new("prosody"));
    // PID 1 is to be told of events, so it is the one to make this. The child says what is watched.
    let watch = is_server.then(Watch::new);
    let events = watch.as_ref().and_then(|watch| watch.as_ref().ok());
    let run = |server, cause| reload::run(server, cause, events);
    let reload = is_server.then_some(Reload { run: &run, watch: events });
    init::supervise(&InitOptions::entrypoint(), reload, || {
        log::report_failure(&become_program(command, watch.as_ref()))
    })
}

/// What the server's certificates are watched with, or why they cannot be. Other programs have no use for it.
type MaybeWatch<'a> = Option<&'a nix::Result<Watch>>;

/// In the child: everything up to the exec, which does not return.
fn become_program(command: Vec<OsString>, watch: MaybeWatch) -> Failure {
    let is_server = watch.is_some();
    if is_server {
        init::ignore_hangup();
    }
    match configure(watch) {
        Ok(ready) => match exec(ready, command, is_server) {
            Ok(never) => match never {},
            Err(failure) => failure,
        },
        Err(failure) => failure,
    }
}

/// What the arguments mean: nothing is the server, and a command of `prosodyctl`'s may stand without it.
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

/// Becomes the program that a command line names, which does not return.
fn exec(
    ready: Ready,
    mut command: Vec<OsString>,
    is_server: bool,
) -> Result<std::convert::Infallible, Failure> {
    if Running::in_directory(&ready.runtime_dir).is_none() {
        prosodyctl::warn_without_server(&command, ready.is_13);
    }
    privileges::drop_to(&ready.user)?;
    let mut program = command.remove(0);
    if program == "prosodyctl" {
        program = prosody::prosodyctl()?.into();
    }
    let command = Command {
        program,
        arguments: command,
        environment: environment::complete(ready.environment, &ready.main_file, &ready.data_dir),
        directory: None,
        kind: if is_server { ProgramKind::Server } else { ProgramKind::Program },
    };
    Err(command.exec())
}
