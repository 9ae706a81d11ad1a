//! The driver that Prosody itself uses, LuaDBI in Prosody's own Lua, logging in once.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::unistd::geteuid;

use super::protocol;
use super::scram::Refusal;
use super::{Answer, Database};
use crate::facts::prosody::Prosody;
use crate::identity::User;
use crate::settings::types::DbDriver;

const SCRIPT: &str = include_str!("log_in.lua");

/// How often it is looked whether the script has ended, which takes some 10 ms.
const STEP: Duration = Duration::from_millis(1);

/// Logs in, as Prosody's user. Where Prosody's Lua is not known, or does not run, nothing can be said against it.
pub fn log_in(database: &Database, prosody: &Prosody, user: &User, limit: Duration) -> Answer {
    match run(database, prosody, user, limit) {
        Ok(Some(output)) if database.driver == DbDriver::PostgreSql && output.starts_with("refused") => {
            match protocol::why_refused(database, limit) {
                Some(refusal) => judge_refusal(&refusal, database),
                None => judge(&output, database),
            }
        }
        Ok(Some(output)) => judge(&output, database),
        Ok(None) => Answer::not_yet("the driver gets no answer"),
        Err(error) => {
            tracing::debug!("{database}: not logged in: {error:#}");
            Answer::Ready
        }
    }
}

/// What the script says; nothing where it took longer than it may.
fn run(
    database: &Database,
    prosody: &Prosody,
    user: &User,
    limit: Duration,
) -> anyhow::Result<Option<String>> {
    let interpreter = prosody.interpreter.as_ref().context("Prosody's program names no Lua")?;
    let environment = std::env::vars_os().filter(|(name, _)| {
        let name = name.to_string_lossy();
        // LUA_INIT is code.
        name == "PATH" || (name.starts_with("LUA_") && !name.starts_with("LUA_INIT"))
    });
    let mut command = Command::new(interpreter);
    // As one argument: Lua takes none behind `-e` that begins with a dash, as a comment does.
    command.arg(format!("-e{SCRIPT}")).env_clear().envs(environment).env("HOME", "/nonexistent");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    if geteuid().is_root() {
        // With these, no group of ours is left either.
        command.gid(user.gid).uid(user.uid);
    }
    let mut child = command.spawn().context("running Lua")?;
    let input = input(database);
    child.stdin.take().context("writing to Lua")?.write_all(&input)?;
    if !ends_within(&mut child, limit)? {
        child.kill()?;
        child.wait()?;
        return Ok(None);
    }
    let mut output = String::new();
    child.stdout.take().context("reading from Lua")?.take(4096).read_to_string(&mut output)?;
    anyhow::ensure!(!output.is_empty(), "Lua said nothing");
    Ok(Some(output))
}

fn ends_within(child: &mut Child, limit: Duration) -> anyhow::Result<bool> {
    let start = Instant::now();
    while child.try_wait()?.is_none() {
        if start.elapsed() > limit {
            return Ok(false);
        }
        sleep(STEP);
    }
    Ok(true)
}

/// What the script reads: each item after its length, or -1 where there is none. No secret is in arguments or in the
/// environment.
fn input(database: &Database) -> Vec<u8> {
    let port = database.port.map(|port| port.to_string());
    let password = database.password.as_ref().map(|password| password.expose());
    let mut input = Vec::new();
    for item in [
        Some(database.driver.as_str()),
        Some(&database.name),
        database.username.as_deref(),
        password,
        database.host.as_deref(),
        port.as_deref(),
    ] {
        match item {
            Some(text) => {
                input.extend(format!("{}\n", text.len()).bytes());
                input.extend(text.bytes());
            }
            None => input.extend(b"-1\n"),
        }
    }
    input
}

/// What the script's words mean. The messages are those of MySQL's library, in English because of the empty environment.
fn judge(output: &str, database: &Database) -> Answer {
    let (word, why) = output.split_once('\n').unwrap_or((output, ""));
    let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
    // LuaDBI's own words before the library's.
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
            Answer::Wrong(format!("Lua has no driver for {driver}: install {package} in the image ({why})"))
        }
        _ if has("too many connections") => Answer::starting(why),
        _ if has("access denied") && has("to database '") => no_database(&why),
        _ if has("access denied") => wrong_password(database, &why),
        _ if has("unknown database") => no_database(&why),
        _ if has("not allowed to connect") => not_let_in(&why),
        _ => Answer::not_yet(why),
    }
}

/// What a refusal of PostgreSQL's means (its manual, appendix A).
fn judge_refusal(refusal: &Refusal, database: &Database) -> Answer {
    let why = &refusal.message;
    match refusal.code.as_str() {
        _ if protocol::is_busy(refusal) => Answer::starting(why.clone()),
        "28P01" => wrong_password(database, why),
        "3D000" => no_database(why),
        // No such role where no password is asked for, a line of pg_hba.conf, a role that may not log in.
        "28000" => not_let_in(why),
        "42501" => no_database(why),
        _ => Answer::not_yet(why.clone()),
    }
}

fn wrong_password(database: &Database, why: &str) -> Answer {
    let user = database.username.as_deref().unwrap_or_default();
    Answer::Wrong(match database.password {
        Some(_) => format!("wrong password for the user {user:?}, or no such user ({why}): correct either"),
        None => format!("it asks for a password, and there is none ({why}): set PROSODY_DB_PASSWORD_FILE"),
    })
}

fn no_database(why: &str) -> Answer {
    Answer::Wrong(format!(
        "no such database there, or the user may not use it ({why}): make it, or correct its name in PROSODY_DB_NAME or the URL"
    ))
}

fn not_let_in(why: &str) -> Answer {
    Answer::Wrong(format!(
        "the server does not let this user or host in ({why}): allow it there, or correct the user"
    ))
}
