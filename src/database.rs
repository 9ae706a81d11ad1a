//! Waits for databases before Prosody starts. Without them, Prosody would start all the same, but without its data.
//!
//! A probe exchanges the first messages of the database's protocol. It is cheap, and distinguishes a starting server
//! from another program on that port. Then Prosody's own driver logs in once, as Prosody's user.

mod driver;
mod protocol;
mod scram;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use nix::libc::O_TMPFILE;

use self::driver::Login;
use crate::exit_status::{ExitStatus, Failure};
use crate::facts::prosody::Prosody;
use crate::intent::databases::Database;
use crate::os::privileges;
use crate::os::users::User;
use crate::settings::types::DbDriver;

/// The time limit for one probe.
const PROBE_LIMIT: Duration = Duration::from_secs(3);

/// The time limit for one login, and its minimum at the end of the wait: Lua needs time to start.
const LOGIN_LIMIT: Duration = Duration::from_secs(9);
const SHORTEST_LOGIN_LIMIT: Duration = Duration::from_secs(1);

/// The pauses between attempts. Each is twice the previous one, up to the longest. A cheap attempt (the name does not
/// resolve, the port is closed, or the server is starting) is repeated sooner.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_CHEAP_PAUSE: Duration = Duration::from_millis(200);

/// The interval between log messages during the wait.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The program, user and environment of a login: those of the server to be started.
pub struct LoginContext<'a> {
    /// The installed Prosody, which has the driver.
    pub prosody: &'a Prosody,
    /// The user that Prosody will run as.
    pub user: &'a User,
    /// The environment that Prosody will have.
    pub environment: &'a [(OsString, OsString)],
}

/// The result of an attempt.
#[derive(Debug, PartialEq)]
enum Answer {
    /// The database is ready.
    Ready,
    /// The database is ready, but this Prosody needs an upgrade of its tables.
    NeedsUpgrade,
    /// The database is not ready, but may be later.
    NotYet { why: String, is_cheap: bool },
    /// The database cannot be used, and waiting will not help.
    Unusable(String),
}

impl Answer {
    fn not_yet(why: impl Into<String>) -> Self {
        Answer::NotYet { why: why.into(), is_cheap: false }
    }

    fn starting(why: impl Into<String>) -> Self {
        Answer::NotYet { why: why.into(), is_cheap: true }
    }
}

/// Waits until all databases can be used, at most for `limit`. If `limit` is zero, only SQLite files are checked.
///
/// # Errors
///
/// 69 if a database was not ready in time, 73 if an SQLite file cannot be written, and 78 if waiting will not help,
/// because of the user, password, database, driver or protocol.
pub fn wait(
    databases: &[Database],
    limit: Duration,
    context: &LoginContext,
    data_dir: &Path,
) -> Result<(), Failure> {
    let start = Instant::now();
    for database in databases {
        if database.driver == DbDriver::Sqlite3 {
            let file = data_dir.join(&database.name);
            privileges::as_user(context.user, || can_write(&file))?;
        } else if !limit.is_zero() {
            wait_for(database, start, limit, context)?;
        }
    }
    Ok(())
}

fn wait_for(
    database: &Database,
    start: Instant,
    limit: Duration,
    context: &LoginContext,
) -> Result<(), Failure> {
    let mut pause = FIRST_PAUSE;
    let mut last_logged: Option<Instant> = None;
    // It loads its library during the probe.
    let mut login = Login::start(database, context);
    loop {
        let left = |least| limit.saturating_sub(start.elapsed()).max(least);
        let answer = match protocol::probe(database, PROBE_LIMIT.min(left(FIRST_PAUSE))) {
            Answer::Ready => match login.take().or_else(|| Login::start(database, context)) {
                Some(login) => login.log_in(database, LOGIN_LIMIT.min(left(SHORTEST_LOGIN_LIMIT))),
                None => Answer::Ready,
            },
            other => other,
        };
        let (why, is_cheap) = match answer {
            Answer::Ready | Answer::NeedsUpgrade => {
                if last_logged.is_some() {
                    let took = start.elapsed().as_secs_f32();
                    tracing::info!("{} is there, after {took:.1} s", sentence(database));
                }
                if answer == Answer::NeedsUpgrade {
                    tracing::error!(
                        "{} has tables of an earlier Prosody, and some of what is stored in them is lost until they are \
                         upgraded: make a backup, run `docker exec -it CONTAINER prosodyctl mod_storage_sql upgrade`, \
                         or `docker run -it --rm OPTIONS IMAGE mod_storage_sql upgrade` with this container's options, \
                         answer y, and restart",
                        sentence(database)
                    );
                }
                return Ok(());
            }
            Answer::Unusable(why) => {
                return Err(Failure::new(ExitStatus::CONFIGURATION, anyhow!("{database}: {why}")));
            }
            Answer::NotYet { why, is_cheap } => (why, is_cheap),
        };
        if start.elapsed() >= limit {
            return Err(Failure::new(
                ExitStatus::UNAVAILABLE,
                anyhow!(
                    "{database} did not come within {} s: {why}: start it, correct where it is, or give it more time \
                     with PROSODY_DB_WAIT",
                    limit.as_secs()
                ),
            ));
        }
        match last_logged {
            None => tracing::info!("Waiting up to {} s for {database}: {why}", limit.as_secs()),
            Some(logged) if logged.elapsed() >= LOG_EVERY => {
                tracing::info!("Still waiting for {database}, {} s so far: {why}", start.elapsed().as_secs());
            }
            Some(_) => {}
        }
        if last_logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
            last_logged = Some(Instant::now());
        }
        let left = limit.saturating_sub(start.elapsed());
        sleep(pause.min(left));
        pause = (pause * 2).min(if is_cheap { LONGEST_CHEAP_PAUSE } else { LONGEST_PAUSE });
    }
}

/// The name of a database at the beginning of a sentence.
fn sentence(database: &Database) -> String {
    let text = database.to_string();
    format!("T{}", text.strip_prefix('t').unwrap_or(&text))
}

/// Checks that Prosody can write an SQLite file, and its directory, which needs room for SQLite's journal.
fn can_write(file: &Path) -> Result<(), Failure> {
    let directory = file.parent().unwrap_or(Path::new("/"));
    let failure = |path: PathBuf, error: io::Error| {
        let advice = match error.kind() {
            io::ErrorKind::NotFound => "make that directory, or name another file",
            io::ErrorKind::ReadOnlyFilesystem => "mount a volume there, or name another file",
            _ => "let Prosody's user write there, or name another file",
        };
        let path = path.display();
        Failure::new(
            ExitStatus::CANNOT_WRITE,
            anyhow!("the SQLite database {}: {path} cannot be written: {error}: {advice}", file.display()),
        )
    };
    match OpenOptions::new().read(true).write(true).open(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failure(file.to_owned(), error));
        }
        _ => {}
    }
    let probe = OpenOptions::new().write(true).custom_flags(O_TMPFILE).mode(0o600).open(directory);
    match probe {
        // The file system does not support O_TMPFILE (open(2)), so the directory cannot be checked.
        Err(error)
            if [Some(nix::libc::EOPNOTSUPP), Some(nix::libc::EISDIR)].contains(&error.raw_os_error()) =>
        {
            Ok(())
        }
        Err(error) => Err(failure(directory.to_owned(), error)),
        Ok(_) => Ok(()),
    }
}
