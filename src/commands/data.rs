//! The server that `backup`, `restore`, `migrate`, `export` and `repair` are for.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::unistd::{Pid, geteuid, getppid};

use super::prosodyctl::no_configuration;
use crate::configure::lock::Claim;
use crate::configure::{configure, db_wait, environment, format_of_environment, read_settings};
use crate::data::{self, ServedSince, Task};
use crate::database::{self, LoginContext};
use crate::exit_status::{ExitStatus, Failure, WithStatus};
use crate::facts::running::{self, Activity};
use crate::facts::{self, Places, prosody};
use crate::init::{self, InitOptions, MessageStyle};
use crate::log;
use crate::os::privileges;
use crate::os::users::User;

/// The name for standard input and output.
pub const STANDARD: &str = "-";

/// Runs a command that may take long. As PID 1, it would ignore signals, so there it is a child of ours.
/// Errors: those of the command, unless this is PID 1, which logs them.
pub fn supervise(command: impl FnOnce() -> Result<ExitStatus, Failure>) -> Result<ExitStatus, Failure> {
    if std::process::id() != 1 {
        return command();
    }
    let options = InitOptions {
        message_style: MessageStyle::Entrypoint(format_of_environment()),
        ..InitOptions::entrypoint()
    };
    let report = |failure| {
        // If the settings have been read, this has no effect.
        log::init(format_of_environment(), tracing::Level::INFO);
        log::report_failure(&failure)
    };
    init::supervise(&options, None, || command().unwrap_or_else(report))
}

/// When the server began that uses a data directory, by the claim on it and the server in this container.
pub fn served_since(claim: &Claim, running_since: ServedSince) -> ServedSince {
    match claim {
        Claim::Held(_) => None,
        Claim::Used => running_since.or(Some(0)),
        Claim::Unknown => running_since,
    }
}

/// A server's data, and the configuration that is in force for it.
pub struct ServerData {
    pub user: User,
    pub data_dir: PathBuf,
    /// When it began, if it runs in this container, as far as known.
    running_since: ServedSince,
    environment: Vec<(OsString, OsString)>,
}

impl ServerData {
    /// Finds the configuration of the server in this container. In a new container, this writes it and waits for databases,
    /// as a start does.
    /// Errors: 78 if a server is starting there; those of [`configure`] and [`database::wait`].
    pub fn find() -> Result<Self, Failure> {
        let (settings, _) = read_settings();
        let places = Places::of_running(&settings);
        let is_root = geteuid().is_root();
        let starter = running::starter(&places).filter(|_| is_root);
        let running_since = running::since(&places);
        let has_custom = running_since.is_none() && places.custom_main_file().is_some();
        // Root may lack the permission to read the starter's directory.
        let look = || places.current_main_file();
        let current = match &starter {
            Some(user) => privileges::as_user(user, look)?,
            None => look(),
        };
        let current = current
            .with_context(|| places.runtime_dir.display().to_string())
            .status(ExitStatus::NO_PERMISSION)?
            .filter(|_| !has_custom);
        let mut databases = Vec::new();
        let (user, data_dir, main_file, left) = match current {
            Some(main_file) => {
                let user = starter.or_else(|| running::user(&places).filter(|_| is_root));
                let user = user.map_or_else(|| facts::identity(&settings, &places.data_dir), Ok)?;
                // Prosody itself reports files that can no longer be read.
                let files = facts::read_user_files(&settings, &places.config_dir).unwrap_or_default();
                let left = environment::without_settings(&settings, &files.environment());
                (user, places.data_dir, main_file, left)
            }
            None => {
                // A server that is starting will write its own. As the child of PID 1, this is the container's command.
                let is_command = getppid() == Pid::from_raw(1);
                let server = running::activity(None).unwrap_or(Activity::Gone);
                if !has_custom && !is_command && server != Activity::Gone {
                    return Err(no_configuration(&places));
                }
                let ready = configure(None)?;
                databases = ready.databases;
                (ready.user, ready.data_dir, ready.main_file, ready.environment)
            }
        };
        let environment = environment::complete(left, &main_file, &data_dir);
        if !databases.is_empty() {
            let prosody = prosody::find(std::env::var_os("PATH").as_deref())?;
            let context = LoginContext { prosody: &prosody, user: &user, environment: &environment };
            database::wait(&databases, db_wait(&settings), &context, &data_dir)?;
        }
        Ok(Self { user, data_dir, running_since, environment })
    }

    /// When the server began that uses the data directory, as far as known. Another command may be using it instead.
    pub fn served_since(&self, claim: &Claim) -> ServedSince {
        served_since(claim, self.running_since)
    }

    /// Writes or reads the archive as Prosody's user, with a claim on the data directory that lasts as long.
    /// Errors: 77 if a privilege is missing; those of [`data::run`].
    pub fn run(&self, task: &Task, archive: File, claim: Claim) -> Result<ExitStatus, Failure> {
        self.with_program(&claim, |context| data::run(task, archive, context))
    }

    /// Copies all data into the storage of a configuration, the main file of which is given. With a claim as [`Self::run`].
    /// Errors: 77 if a privilege is missing; those of [`data::migrate`].
    pub fn migrate(&self, main_file: &Path, claim: &Claim) -> Result<(), Failure> {
        let environment = self.environment_with(main_file);
        self.with_program(claim, |from| {
            let to = data::ServerContext { environment: &environment, ..*from };
            data::migrate(from, &to)
        })
    }

    /// The environment of Prosody's programs with another main file.
    pub fn environment_with(&self, main_file: &Path) -> Vec<(OsString, OsString)> {
        environment::complete(self.environment.clone(), main_file, &self.data_dir)
    }

    fn with_program<T>(
        &self,
        claim: &Claim,
        run: impl FnOnce(&data::ServerContext) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        privileges::require(&self.user, &[])?;
        if let Claim::Held(lock) = claim {
            // The program has it even if this process is killed.
            fcntl(lock.as_fd(), FcntlArg::F_SETFD(FdFlag::empty()))
                .context("keeping the lock")
                .status(ExitStatus::OS_ERROR)?;
        }
        let prosody = prosody::find(std::env::var_os("PATH").as_deref())?;
        run(&data::ServerContext {
            prosodyctl: &prosody::prosodyctl()?,
            prosody: &prosody,
            user: &self.user,
            environment: &self.environment,
        })
    }
}
