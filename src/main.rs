//! `prosody-entrypoint`: the entrypoint of a container that runs the Prosody XMPP server.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use prosody_entrypoint::cli::{COMMANDS, Cli, Command};
use prosody_entrypoint::commands;
use prosody_entrypoint::exit_status::{ExitStatus, Failure};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let arguments: Vec<OsString> = arguments.collect();
    let result = if Path::new(&name).file_name() == Some(OsStr::new("prosodyctl")) {
        commands::prosodyctl::run(arguments)
    } else {
        match arguments.first().and_then(|first| first.to_str()) {
            // Only our own commands are worth a parser: PID 1 is to stay small.
            Some(first) if COMMANDS.contains(&first) || first.starts_with('-') => own_command(),
            _ => commands::run::run(arguments),
        }
    };
    result.unwrap_or_else(|failure| commands::report_failure(&failure)).into()
}

/// One of our own commands. Runs in this process: nothing is supervised.
fn own_command() -> Result<ExitStatus, Failure> {
    match Cli::try_parse() {
        Ok(cli) => match cli.command {
            Command::Render(options) => commands::render::run(&options),
            Command::Validate => commands::validate::run(),
            Command::Settings(options) => commands::settings::run(&options),
            Command::Healthcheck => commands::healthcheck::run(),
        },
        Err(message) => {
            // A reader that went away is no failure of ours.
            let _ = message.print();
            Ok(if message.use_stderr() { ExitStatus::USAGE } else { ExitStatus::SUCCESS })
        }
    }
}
