//! `prosody-entrypoint`: the entrypoint of a container that runs the Prosody XMPP server.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use prosody_entrypoint::cli::{COMMANDS, Cli, Command};
use prosody_entrypoint::configure::format_of_environment;
use prosody_entrypoint::exit_status::{ExitStatus, Failure};
use prosody_entrypoint::os::privileges;
use prosody_entrypoint::{commands, log};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let mut arguments: Vec<OsString> = arguments.collect();
    let program_name = Path::new(&name).file_name().and_then(OsStr::to_str);
    let first = arguments.first().and_then(|first| first.to_str());
    let result = match (program_name, first) {
        // As with tini, other programs can read /proc/1.
        (Some("tini"), _) => commands::init::run("tini", arguments),
        (program_name, Some("init")) if program_name != Some("prosodyctl") => {
            commands::init::run("prosody-entrypoint init", arguments.split_off(1))
        }
        (program_name, first) => {
            privileges::hide_environment();
            match first {
                _ if program_name == Some("prosodyctl") => commands::prosodyctl::run(arguments),
                // Only our own commands use the parser, to keep PID 1 small.
                Some(first) if COMMANDS.contains(&first) || first.starts_with('-') => own_command(),
                _ => commands::run::run(arguments),
            }
        }
    };
    let status = result.unwrap_or_else(|failure| {
        // If the settings have been read, this has no effect.
        log::init(format_of_environment(), tracing::Level::INFO);
        log::report_failure(&failure)
    });
    ExitCode::from(status.code())
}

/// Runs one of our own commands in this process, without supervision.
fn own_command() -> Result<ExitStatus, Failure> {
    match Cli::try_parse() {
        Ok(cli) => match cli.command {
            Command::Render(options) => commands::render::run(&options),
            Command::Validate(options) => commands::validate::run(&options),
            Command::Settings(options) => commands::settings::run(&options),
            Command::Modules(options) => commands::modules::run(&options),
            Command::Certificates(options) => commands::certificates::run(&options),
            Command::Dns(options) => commands::dns::run(&options),
            Command::Shards(options) => commands::shards::run(&options),
            Command::Backup(options) => commands::backup::run(&options),
            Command::Restore(options) => commands::restore::run(&options),
            Command::Migrate(options) => commands::migrate::run(&options),
            Command::Export(options) => commands::backup::export(&options),
            Command::Repair => commands::repair::run(),
            Command::Healthcheck(options) => commands::healthcheck::run(&options),
            Command::Init { arguments } => commands::init::run("prosody-entrypoint init", arguments),
        },
        Err(message) if message.use_stderr() && format_of_environment() == log::Format::Json => {
            Err(ExitStatus::USAGE.failure(message.to_string().trim_end().to_owned()))
        }
        Err(message) => {
            // A closed pipe is not a failure.
            let _ = message.print();
            Ok(if message.use_stderr() { ExitStatus::USAGE } else { ExitStatus::SUCCESS })
        }
    }
}
