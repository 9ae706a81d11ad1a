//! Waits for databases before Prosody starts. Without them, Prosody would start all the same, but without its data.
//!
//! A probe exchanges the first messages of the database's protocol. It is cheap, and distinguishes a starting server
//! from another program on that port. Then Prosody's own driver logs in once, as Prosody's user.

mod driver;
mod protocol;

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{io, mem};

use nix::libc::{EISDIR, EOPNOTSUPP, O_TMPFILE};

use self::driver::{Login, interpret};
use crate::exit_status::{ExitStatus, Failure, WithStatus};
use crate::facts::prosody::Prosody;
use crate::intent::databases::Database;
use crate::os::users::User;
use crate::os::{privileges, system};
use crate::settings::types::DbDriver;
use crate::text::{Advice, one_line};

/// The time limits for one attempt (two probes and a login) and for one of its probes.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(12);
const PROBE_LIMIT: Duration = Duration::from_secs(3);

/// The least time for a database, if the wait for an earlier one has taken all.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);

/// How long a server that came up during the wait may refuse the login: its role or database may not be there yet.
const REFUSAL_LIMIT: Duration = Duration::from_secs(10);

/// The pauses between attempts. Each is twice the previous one, up to the longest. Refused logins are repeated less
/// often.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE_IF_REFUSED: Duration = Duration::from_secs(1);

/// The interval between log messages during the wait.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The program, user and environment of a login: those of the server to be started.
pub struct LoginContext<'a> {
    pub prosody: &'a Prosody,
    pub user: &'a User,
    pub environment: &'a [(OsString, OsString)],
}

/// The result of an attempt.
#[derive(Debug, PartialEq)]
enum Answer {
    Ready,
    /// The database is ready, but this Prosody needs other tables.
    ReadyBut(Advice),
    /// The database is not ready, but may be later.
    NotYet(String),
    Refused(String),
    /// The database cannot be used, and waiting will not help.
    Unusable(String),
}

/// The answer for a server that refuses a login. `code` is an SQLSTATE (PostgreSQL's manual, appendix A, "PostgreSQL
/// Error Codes"), or empty if the server does not say why.
fn refused(code: &str, why: &str, database: &Database) -> Answer {
    let set_password =
        advice!("set PROSODY_DB_PASSWORD_FILE, or beside PROSODY_SQL_DRIVER PROSODY_SQL_PASSWORD_FILE");
    let user = database.username.as_deref().unwrap_or_default();
    let why = match (code, &database.password) {
        // Insufficient resources ("sorry, too many clients already") and operator intervention ("the database system is
        // starting up", "… is shutting down").
        _ if code.starts_with("53") || code.starts_with("57") => return Answer::NotYet(why.to_owned()),
        ("", Some(_)) => advice!(
            "the server refused the login of the user {user:?}, and its own log says why: correct user, password or \
             database in PROSODY_DB_…, PROSODY_SQL_… or the URL, or allow them there"
        ),
        ("", None) => advice!(
            "the server refused the login of the user {user:?} without a password, and its own log says why: \
             {set_password}, or correct user or database"
        ),
        ("28P01", Some(_)) => {
            advice!("wrong password for the user {user:?}, or no such user ({why}): correct either")
        }
        ("28P01", None) => advice!("it asks for a password, and there is none ({why}): {set_password}"),
        // 42501: the user may not connect to it.
        ("3D000" | "42501", _) => advice!(
            "no such database there, or the user may not use it ({why}): make it, or correct its name in \
             PROSODY_DB_NAME, PROSODY_SQL_DB or the URL"
        ),
        // The role does not exist (without password authentication) or may not log in, or pg_hba.conf rejects it.
        ("28000", _) => advice!(
            "the server does not let this user or host in ({why}): correct user or password, or allow them there"
        ),
        _ => advice!("the server refused the login ({why}): correct user, password, database or host"),
    };
    Answer::Refused(why.into())
}

/// Asks the server of a database whether it is there, without a login.
/// Errors: why it is not.
pub fn check(database: &Database, limit: Duration) -> Result<(), String> {
    system::resolve_names_with_files_and_dns();
    match protocol::probe(database, Instant::now() + limit) {
        Answer::NotYet(why) | Answer::Unusable(why) => Err(why),
        // The driver may be let in where the probe, which has no TLS, is not.
        Answer::Ready | Answer::ReadyBut(_) | Answer::Refused(_) => Ok(()),
    }
}

/// The number of shards in a database, after it was set if it is given. `None` if no shard has started yet.
/// Errors: 69 if the database does not answer, 78 if it cannot be used.
pub fn shards(database: &Database, set: Option<u32>, context: &LoginContext) -> Result<Option<u32>, Failure> {
    system::resolve_names_with_files_and_dns();
    let queries = set.map_or("{}".to_owned(), |count| {
        format!(
            "{{ \"CREATE TABLE IF NOT EXISTS prosody_entrypoint_shards (id integer PRIMARY KEY CHECK (id = 1), count \
             integer NOT NULL)\", \"INSERT INTO prosody_entrypoint_shards VALUES (1, {count}) ON CONFLICT (id) DO UPDATE \
             SET count = {count}\" }}"
        )
    });
    let deadline = Instant::now() + ATTEMPT_LIMIT;
    let answer = match protocol::probe(database, deadline.min(Instant::now() + PROBE_LIMIT)) {
        Answer::Ready | Answer::Refused(_) => {
            let login = Login::spawn(database, context, &queries).status(ExitStatus::CANNOT_EXECUTE)?;
            match login.ask(database, left(deadline)) {
                Ok(said) => match said.split_once('\n') {
                    Some(("count", count)) => return Ok(count.parse().ok()),
                    Some(("failed", why)) => Answer::Unusable(one_line(why)),
                    _ => interpret(&said, database),
                },
                Err(_) => Answer::NotYet("the driver gets no answer".to_owned()),
            }
        }
        other => other,
    };
    let (status, why) = match answer {
        Answer::Refused(why) | Answer::Unusable(why) => (ExitStatus::CONFIGURATION, why),
        Answer::NotYet(why) => (ExitStatus::UNAVAILABLE, why),
        Answer::Ready | Answer::ReadyBut(_) => (ExitStatus::UNAVAILABLE, "Lua gives no answer".to_owned()),
    };
    Err(status.failure(format!("{database}: {why}")))
}

/// Waits until all databases can be used, at most for `limit`. If `limit` is zero, only SQLite files are checked.
/// Errors: 69 if a database was not ready in time, 73 if an SQLite file cannot be written, and 78 if waiting will not
/// help, because of the user, password, database, driver or protocol.
pub fn wait(
    databases: &[Database],
    limit: Duration,
    context: &LoginContext,
    data_dir: &Path,
) -> Result<(), Failure> {
    system::resolve_names_with_files_and_dns();
    let start = Instant::now();
    let mut came_up = None;
    for database in databases {
        if database.driver == DbDriver::Sqlite3 {
            let file = data_dir.join(&database.name);
            let is_known = privileges::as_user(context.user, || {
                can_write(&file)?;
                Ok(!context.prosody.is_13() || has_unique_rows(&file))
            })??;
            let login = (!is_known).then(|| Login::start(database, context)).flatten();
            let database = Database { name: file.display().to_string(), ..database.clone() };
            if let Some(Answer::ReadyBut(advice)) = login.map(|login| login.log_in(&database, ATTEMPT_LIMIT))
            {
                tracing::error!("{advice}");
            }
        } else if !limit.is_zero() {
            wait_for(database, start, limit, REFUSAL_LIMIT, &mut came_up, context)?;
        }
    }
    Ok(())
}

/// Waits for a server. `came_up` is the time when a server came up that had not answered before.
fn wait_for(
    database: &Database,
    start: Instant,
    limit: Duration,
    refusal_limit: Duration,
    came_up: &mut Option<Instant>,
    context: &LoginContext,
) -> Result<(), Failure> {
    let latest = limit.max(start.elapsed() + SHORTEST_WAIT);
    let left = || latest.saturating_sub(start.elapsed());
    let unusable = |why: String| Err(ExitStatus::CONFIGURATION.failure(format!("{database}: {why}")));
    let mut pause = FIRST_PAUSE;
    let mut last_logged: Option<Instant> = None;
    let mut is_away = false;
    // It loads its library during the probe.
    let mut login = Login::start(database, context);
    loop {
        let answer = attempt(database, &mut login, context, ATTEMPT_LIMIT.min(left()));
        if !matches!(answer, Answer::NotYet(_)) && mem::take(&mut is_away) {
            *came_up = Some(Instant::now());
        }
        let (why, longest_pause) = match answer {
            Answer::Ready | Answer::ReadyBut(_) => {
                if last_logged.is_some() {
                    let took = start.elapsed().as_secs_f32();
                    tracing::info!("Now {database} is there, after {took:.1} s");
                }
                if let Answer::ReadyBut(advice) = answer {
                    tracing::error!("{advice}");
                }
                return Ok(());
            }
            Answer::Unusable(why) => return unusable(why),
            Answer::Refused(why) => {
                let is_new = came_up.is_some_and(|time| time.elapsed() < refusal_limit);
                if !is_new || left() <= pause {
                    return unusable(why);
                }
                (why, LONGEST_PAUSE_IF_REFUSED)
            }
            Answer::NotYet(why) => {
                is_away = true;
                (why, LONGEST_PAUSE)
            }
        };
        let so_far = start.elapsed().as_secs();
        if last_logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
            match last_logged.replace(Instant::now()) {
                None => tracing::info!("Waiting up to {} s for {database}: {why}", limit.as_secs()),
                Some(_) => tracing::info!("Still waiting for {database}, {so_far} s so far: {why}"),
            }
        }
        sleep(pause.min(left()));
        if left().is_zero() {
            return Err(ExitStatus::UNAVAILABLE.failure(advice!(
                "{database} did not come within {} s: {why}: start it, correct where it is, or give it more time \
                 with PROSODY_DB_WAIT",
                limit.as_secs()
            )));
        }
        pause = (pause * 2).min(longest_pause);
    }
}

fn attempt(
    database: &Database,
    login: &mut Option<Login>,
    context: &LoginContext,
    limit: Duration,
) -> Answer {
    let deadline = Instant::now() + limit;
    let probe = || protocol::probe(database, deadline.min(Instant::now() + PROBE_LIMIT));
    match probe() {
        // The probe has no TLS. Thus the driver may be let in where the probe is not.
        Answer::Ready | Answer::Refused(_) => {}
        other => return other,
    }
    // Without Lua, no login is attempted.
    let Some(login) = login.take().or_else(|| Login::start(database, context)) else { return Answer::Ready };
    match login.log_in(database, left(deadline)) {
        // PostgreSQL's driver loses the reason. The server may give it to a probe, or be away meanwhile.
        Answer::Refused(why) => match probe() {
            Answer::Ready => Answer::Refused(why),
            other => other,
        },
        other => other,
    }
}

/// The time until `deadline`, but not zero, which is no timeout.
fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

/// Whether an SQLite file has the index that Prosody 13.0 makes, by its first page, where SQLite lists the indexes, or is not
/// there. If not, it may be listed elsewhere.
fn has_unique_rows(file: &Path) -> bool {
    let mut page = Vec::new();
    let read = File::open(file).and_then(|file| file.take(4096).read_to_end(&mut page));
    read.is_err() || page.windows(20).any(|text| text == b"prosody_unique_index")
}

/// Checks that Prosody can write an SQLite file, and its directory, which needs room for SQLite's journal.
fn can_write(file: &Path) -> Result<(), Failure> {
    let directory = file.parent().unwrap_or(Path::new("/"));
    let mut options = OpenOptions::new();
    let (path, error) = match options.read(true).write(true).open(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => (file, error),
        _ => match options.custom_flags(O_TMPFILE).mode(0o600).open(directory) {
            // EOPNOTSUPP, EISDIR: the file system does not support O_TMPFILE (open(2)), so the directory cannot be checked.
            Err(error) if !matches!(error.raw_os_error(), Some(EOPNOTSUPP | EISDIR)) => (directory, error),
            _ => return Ok(()),
        },
    };
    let advice = match error.kind() {
        io::ErrorKind::NotFound => advice!("make that directory, or name another file"),
        io::ErrorKind::ReadOnlyFilesystem => advice!("mount a volume there, or name another file"),
        _ => advice!("let Prosody's user write there, or name another file"),
    };
    let (file, path) = (file.display(), path.display());
    Err(ExitStatus::CANNOT_WRITE
        .failure(format!("the SQLite database {file}: {path} cannot be written: {error}: {advice}")))
}

#[cfg(test)]
mod tests;
