//! A login with Prosody's own driver: LuaDBI in Prosody's Lua.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::protocol;
use super::scram::{self, Refusal};
use super::{Answer, Database, LoginContext};
use crate::settings::types::DbDriver;

const SCRIPT: &str = include_str!("log_in.lua");

/// A Lua process that is ready to log in. It exits by itself when this is dropped.
pub struct Login {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
}

impl Login {
    /// Starts Lua, which loads the driver and waits. It runs as Prosody's user, with Prosody's environment: libpq reads
    /// defaults from it. `None` if Prosody's Lua is unknown or cannot be run. In that case no login is attempted.
    pub fn start(database: &Database, context: &LoginContext) -> Option<Self> {
        let started = Self::spawn(database, context);
        started.inspect_err(|error| tracing::debug!("{database}: not logged in: {error:#}")).ok()
    }

    fn spawn(database: &Database, context: &LoginContext) -> anyhow::Result<Self> {
        let mut command = context.prosody.lua_command(context.user, context.environment)?;
        // One argument, because Lua refuses a separate one that begins with a dash, such as a comment.
        command.arg(format!("-e{SCRIPT}"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("running Lua")?;
        let output = child.stdout.take().context("reading from Lua")?;
        let mut input = child.stdin.take().context("writing to Lua")?;
        input.write_all(&item(Some(database.driver.as_str())))?;
        Ok(Self { child, input, output })
    }

    /// Logs in to the database, within `limit`. If Lua fails, the database counts as ready.
    pub fn log_in(self, database: &Database, limit: Duration) -> Answer {
        match self.run(database, limit) {
            Ok(Some(output)) if database.driver == DbDriver::PostgreSql && output.starts_with("refused") => {
                match protocol::why_refused(database, limit) {
                    Some(refusal) => interpret_refusal(&refusal, database),
                    None => interpret(&output, database),
                }
            }
            Ok(Some(output)) => interpret(&output, database),
            Ok(None) => Answer::not_yet("the driver gets no answer"),
            Err(error) => {
                tracing::debug!("{database}: not logged in: {error:#}");
                Answer::Ready
            }
        }
    }

    /// The output of the script. `None` after a timeout.
    fn run(mut self, database: &Database, limit: Duration) -> anyhow::Result<Option<String>> {
        self.input.write_all(&input(database))?;
        let start = Instant::now();
        let mut output = Vec::new();
        loop {
            let left =
                PollTimeout::try_from(limit.saturating_sub(start.elapsed())).unwrap_or(PollTimeout::MAX);
            let mut ready = [PollFd::new(self.output.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ready, left) {
                Ok(0) => {
                    self.child.kill()?;
                    self.child.wait()?;
                    return Ok(None);
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let mut some = [0; 4096];
            match self.output.read(&mut some)? {
                0 => break,
                length => output.extend(&some[..length]),
            }
        }
        self.child.wait()?;
        anyhow::ensure!(!output.is_empty(), "Lua said nothing");
        Ok(Some(String::from_utf8_lossy(&output).into_owned()))
    }
}

/// The input of the script after the driver's name. Thus no secret is in the arguments or the environment.
fn input(database: &Database) -> Vec<u8> {
    let port = database.port.map(|port| port.to_string());
    let password = database.password.as_ref().map(|password| password.expose());
    let host = database.host.as_deref();
    let username = database.username.as_deref();
    [Some(&*database.name), username, password, host, port.as_deref()].into_iter().flat_map(item).collect()
}

/// An item, preceded by its length. The length of an absent item is -1.
fn item(text: Option<&str>) -> Vec<u8> {
    text.map_or_else(|| b"-1\n".to_vec(), |text| format!("{}\n{text}", text.len()).into_bytes())
}

/// Interprets the output of the script. The messages are from MySQL's library, in English because no locale is set.
fn interpret(output: &str, database: &Database) -> Answer {
    let (word, why) = output.split_once('\n').unwrap_or((output, ""));
    let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
    // LuaDBI's prefix to the library's message.
    let why = why.strip_prefix("Failed to connect to database: ").unwrap_or(&why).to_owned();
    let has = |text: &str| why.to_ascii_lowercase().contains(text);
    match word {
        "ready" => Answer::Ready,
        "old" => Answer::NeedsUpgrade,
        "missing" => {
            let package = match database.driver {
                DbDriver::PostgreSql => "lua-dbi-postgresql",
                DbDriver::MySql => "lua-dbi-mysql",
                DbDriver::Sqlite3 => "lua-dbi-sqlite3",
            };
            let driver = database.driver.as_str();
            Answer::Unusable(format!(
                "Lua has no driver for {driver}: install {package} in the image ({why})"
            ))
        }
        _ if has("too many connections") => Answer::starting(why),
        _ if has("access denied") && has("to database '") => no_database(&why),
        _ if has("access denied") => wrong_password(database, &why),
        _ if has("unknown database") => no_database(&why),
        _ if has("not allowed to connect") => not_allowed(&why),
        _ => Answer::not_yet(why),
    }
}

/// Interprets an error from PostgreSQL (its manual, appendix A, "PostgreSQL Error Codes").
fn interpret_refusal(refusal: &Refusal, database: &Database) -> Answer {
    let why = &refusal.message;
    match refusal.code.as_str() {
        _ if protocol::is_busy(refusal) => Answer::starting(why.clone()),
        "28P01" => wrong_password(database, why),
        "3D000" => no_database(why),
        // The role does not exist (without password authentication) or may not log in, or pg_hba.conf rejects it.
        "28000" => not_allowed(why),
        scram::UNDETERMINED => Answer::Unusable(format!(
            "the server refuses the login: user {:?}, password or database are wrong; its own log says which",
            database.username.as_deref().unwrap_or_default()
        )),
        "42501" => no_database(why),
        _ => Answer::not_yet(why.clone()),
    }
}

fn wrong_password(database: &Database, why: &str) -> Answer {
    let user = database.username.as_deref().unwrap_or_default();
    Answer::Unusable(match database.password {
        Some(_) => format!("wrong password for the user {user:?}, or no such user ({why}): correct either"),
        None => format!(
            "it asks for a password, and there is none ({why}): set PROSODY_DB_PASSWORD_FILE, or beside PROSODY_SQL_DRIVER PROSODY_SQL_PASSWORD_FILE"
        ),
    })
}

fn no_database(why: &str) -> Answer {
    Answer::Unusable(format!(
        "no such database there, or the user may not use it ({why}): make it, or correct its name in PROSODY_DB_NAME, PROSODY_SQL_DB or the URL"
    ))
}

fn not_allowed(why: &str) -> Answer {
    Answer::Unusable(format!(
        "the server does not let this user or host in ({why}): correct user or password, or allow them there"
    ))
}
