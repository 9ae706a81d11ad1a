//! `init`: runs any program under PID 1, with tini's command line and behaviour.

use std::ffi::OsString;
use std::io::{Write, stderr, stdout};

use crate::exit_status::{ExitStatus, Failure};
use crate::init::{self, Command, Invocation, ProgramKind};

/// Runs the program in `arguments`. `name` is the name of this command for the usage text.
///
/// Returns the status of the program, or 1 after an error, as in tini.
pub fn run(name: &str, arguments: Vec<OsString>) -> Result<ExitStatus, Failure> {
    // A closed output is not our error.
    let options = match init::parse(name, arguments, |name| std::env::var_os(name)) {
        Ok(Invocation::Run(options)) => options,
        Ok(Invocation::Print(text)) => {
            let _ = stdout().write_all(text.as_bytes()).and_then(|()| stdout().flush());
            return Ok(ExitStatus::SUCCESS);
        }
        Err(text) => {
            let _ = stderr().write_all(text.as_bytes());
            // As in tini.
            return Ok(ExitStatus::exited(1));
        }
    };
    let ended = init::supervise(&options, None, || {
        let mut arguments = options.command.clone();
        let program = arguments.remove(0);
        let command = Command {
            program: program.clone(),
            arguments,
            environment: std::env::vars_os().collect(),
            user: None,
            kind: ProgramKind::Passthrough,
            inherited: Vec::new(),
        };
        let failure = command.exec();
        options.message_style.fatal(format_args!("exec {} failed: {failure}", program.to_string_lossy()));
        failure.status
    });
    Ok(ended.unwrap_or_else(|failure| {
        options.message_style.fatal(format_args!("{failure}"));
        // As in tini.
        ExitStatus::exited(1)
    }))
}
