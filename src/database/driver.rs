//! The driver that Prosody itself uses, LuaDBI in Prosody's own Lua, logging in once.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::unistd::geteuid;

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

/// What the script's words mean. The messages are those of libpq and MySQL's library, in English because of the empty
/// environment.
fn judge(output: &str, database: &Database) -> Answer {
    let (word, why) = output.split_once('\n').unwrap_or((output, ""));
    // libpq's have several lines, and begin with the server.
    let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
    let has = |text: &str| why.to_ascii_lowercase().contains(text);
    let package = match database.driver {
        DbDriver::PostgreSql => "lua-dbi-postgresql",
        DbDriver::MySql => "lua-dbi-mysql",
        DbDriver::Sqlite3 => "lua-dbi-sqlite3",
    };
    let username = database.username.as_deref().unwrap_or_default();
    let password = match database.password {
        Some(_) => "the password is wrong, or there is no such user",
        None => "it asks for a password, and there is none: set PROSODY_DB_PASSWORD_FILE",
    };
    match word {
        "ready" => Answer::Ready,
        "old" => Answer::NeedsUpgrade,
        "missing" => Answer::Wrong(format!(
            "Lua has no driver for {}: install {package} in the image ({why})",
            database.driver.as_str()
        )),
        _ if has("starting up") || has("shutting down") || has("recovery mode") || has("too many") => {
            Answer::starting(why)
        }
        _ if has("password authentication failed") || has("no password supplied") || has("fe_sendauth") => {
            Answer::Wrong(format!("user {username:?} cannot log in, {password} ({why})"))
        }
        _ if has("access denied") && has("to database") => {
            Answer::Wrong(format!("user {username:?} may not use it, or there is no such database ({why})"))
        }
        _ if has("access denied") => {
            Answer::Wrong(format!("user {username:?} cannot log in, {password} ({why})"))
        }
        _ if (has("role ") && has("does not exist")) => {
            Answer::Wrong(format!("there is no user {username:?} ({why})"))
        }
        _ if has("unknown database") || (has("database ") && has("does not exist")) => {
            Answer::Wrong(format!("there is no such database on the server: make it ({why})"))
        }
        _ if has("pg_hba.conf") || has("not allowed to connect") => {
            Answer::Wrong(format!("the server does not let this host or user in ({why})"))
        }
        _ if has("permission denied for database") => {
            Answer::Wrong(format!("user {username:?} may not use it ({why})"))
        }
        _ => Answer::not_yet(why),
    }
}
