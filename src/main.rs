//! `prosody-entrypoint`: the entrypoint of a container that runs the Prosody XMPP server.
#![no_main]

use std::ffi::{OsStr, OsString};
use std::io::{Write, stdout};
use std::path::Path;

use clap::Parser;
use prosody_entrypoint::cli::{COMMANDS, Cli, Command};
use prosody_entrypoint::commands;
use prosody_entrypoint::exit_status::{ExitStatus, Failure};
use prosody_entrypoint::os::{privileges, system};

prosody_entrypoint::main_function!(run);

/// Everything, once the process is fit for it.
fn run() -> ! {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let mut arguments: Vec<OsString> = arguments.collect();
    let called = Path::new(&name).file_name().and_then(OsStr::to_str);
    let first = arguments.first().and_then(|first| first.to_str());
    let result = match (called, first) {
        // To programs under it, /proc/1 is open as it is with tini.
        (Some("tini"), _) => commands::init::run("tini", arguments),
        (called, Some("init")) if called != Some("prosodyctl") => {
            commands::init::run("prosody-entrypoint init", arguments.split_off(1))
        }
        (called, first) => {
            privileges::hide_environment();
            match first {
                _ if called == Some("prosodyctl") => commands::prosodyctl::run(arguments),
                // Only our own commands are worth a parser: PID 1 is to stay small.
                Some(first) if COMMANDS.contains(&first) || first.starts_with('-') => own_command(),
                _ => commands::run::run(arguments),
            }
        }
    };
    let status = result.unwrap_or_else(|failure| prosody_entrypoint::log::report_failure(&failure));
    system::exit_now(status.code())
}

/// One of our own commands. Runs in this process: nothing is supervised.
fn own_command() -> Result<ExitStatus, Failure> {
    let ended = match Cli::try_parse() {
        Ok(cli) => match cli.command {
            Command::Render(options) => commands::render::run(&options),
            Command::Validate => commands::validate::run(),
            Command::Settings(options) => commands::settings::run(&options),
            Command::Modules(options) => commands::modules::run(&options),
            Command::Certificates(options) => commands::certificates::run(&options),
            Command::Healthcheck => commands::healthcheck::run(),
            Command::Init { arguments } => commands::init::run("prosody-entrypoint init", arguments),
        },
        Err(message) => {
            // A reader that went away is no failure of ours.
            let _ = message.print();
            Ok(if message.use_stderr() { ExitStatus::USAGE } else { ExitStatus::SUCCESS })
        }
    };
    let _ = stdout().flush();
    ended
}
