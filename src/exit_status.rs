//! Exit statuses, and errors with an exit status.

use std::os::unix::process::ExitStatusExt;
use std::{fmt, process};

/// The exit status of this process.
///
/// Our own failures use the numbers of `sysexits.h(3head)`. A command that cannot be run has the status of a shell
/// (POSIX.1-2024, "Exit Status for Commands").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus(u8);

impl ExitStatus {
    pub const SUCCESS: Self = Self(0);
    /// The command line is wrong (`EX_USAGE`).
    pub const USAGE: Self = Self(64);
    /// A file to read cannot be opened (`EX_NOINPUT`).
    pub const NO_INPUT: Self = Self(66);
    /// A required service is not available (`EX_UNAVAILABLE`).
    pub const UNAVAILABLE: Self = Self(69);
    /// The kernel refused an operation that every program may perform, such as a fork (`EX_OSERR`).
    pub const OS_ERROR: Self = Self(71);
    /// A file or directory cannot be written (`EX_CANTCREAT`).
    pub const CANNOT_WRITE: Self = Self(73);
    /// A permission is missing (`EX_NOPERM`).
    pub const NO_PERMISSION: Self = Self(77);
    /// A setting is wrong (`EX_CONFIG`).
    pub const CONFIGURATION: Self = Self(78);
    /// The command exists but cannot be executed.
    pub const CANNOT_EXECUTE: Self = Self(126);
    /// The command does not exist.
    pub const COMMAND_NOT_FOUND: Self = Self(127);

    /// The status of a process that exited with `code`.
    pub const fn exited(code: u8) -> Self {
        Self(code)
    }

    pub const fn code(self) -> u8 {
        self.0
    }

    /// A failure with this status.
    pub fn failure(self, message: impl fmt::Display + fmt::Debug + Send + Sync + 'static) -> Failure {
        Failure::new(self, anyhow::Error::msg(message))
    }
}

impl From<process::ExitStatus> for ExitStatus {
    /// The exit code of a process, or `128 + n` if signal `n` killed it, as in a shell.
    fn from(ended: process::ExitStatus) -> Self {
        let code = ended.code().unwrap_or_else(|| 128 + ended.signal().unwrap_or_default());
        // The kernel keeps eight bits of an exit code, and signals end at 64.
        Self(code as u8)
    }
}

/// An error that ends the program, with an exit status.
///
/// It is displayed on one line, with its causes separated by colons.
#[derive(Debug)]
pub struct Failure {
    pub status: ExitStatus,
    pub error: anyhow::Error,
}

impl Failure {
    pub fn new(status: ExitStatus, error: impl Into<anyhow::Error>) -> Self {
        let error = error.into();
        Self { status, error }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#}", self.error)
    }
}

/// Attaches an exit status to an error.
pub trait WithStatus<T> {
    fn status(self, status: ExitStatus) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> WithStatus<T> for Result<T, E> {
    fn status(self, status: ExitStatus) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(status, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn exit_codes_are_kept_and_signals_are_added_to_128() {
        let status = |raw| ExitStatus::from(process::ExitStatus::from_raw(raw)).code();
        assert_eq!(status(0), 0);
        assert_eq!(status(255 << 8), 255);
        assert_eq!(status(15), 143);
        assert_eq!(status(11 | 0x80), 139, "with a core file");
        assert_eq!(status(64), 192, "the last real-time signal");
    }

    #[test]
    fn a_failure_is_one_line_with_its_causes() {
        let failure = Err::<(), _>(std::io::Error::from_raw_os_error(30))
            .context("writing /run/prosody")
            .status(ExitStatus::CANNOT_WRITE)
            .unwrap_err();
        assert_eq!(failure.status.code(), 73);
        assert_eq!(failure.to_string(), "writing /run/prosody: Read-only file system (os error 30)");
    }
}
