//! The accounts that settings name, made by Prosody's own user manager, whatever the provider and the storage.
//!
//! As a rule a module of ours does that in the running server. Where the configuration is a file of the user's own, to
//! which nothing is added, it is a command of `prosodyctl`'s before the start.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, ensure};
use nix::sys::stat::{Mode, umask};

use crate::facts::prosody::Prosody;
use crate::layout::ACCOUNTS_MODULE as MODULE;
use crate::os::users::User;
use crate::text::several;

/// How an account is made, for the two that follow.
const MAKE_ACCOUNTS: &str = include_str!("accounts/make.lua");

/// What the module does with it.
const MODULE_MAIN: &str = include_str!("accounts/module.lua");

/// What `prosodyctl` does with it.
const COMMAND_MAIN: &str = include_str!("accounts/command.lua");

/// The source of the module. `path` is a Lua literal: where it finds the accounts.
pub fn module(path: &str) -> String {
    format!("local path = {path};\n\n{}{MODULE_MAIN}", load_function())
}

/// A function that gives the one which makes accounts: what it needs is there only later.
fn load_function() -> String {
    format!("local function load_maker()\n{MAKE_ACCOUNTS}end\n")
}

/// Makes accounts before the start, with the configuration of the user's own that the environment names.
///
/// The log says what was done. That it could not be done is no reason not to start: what is wrong with the configuration,
/// Prosody says itself.
pub fn make(
    accounts: &str,
    prosodyctl: &Path,
    prosody: &Prosody,
    user: &User,
    environment: &[(OsString, OsString)],
) {
    let command = prosody.lua_command(user, environment);
    match command.and_then(|command| run(command, prosodyctl, accounts)) {
        Ok(lines) => log_output(&lines),
        Err(error) => tracing::warn!("No account was made: {error:#}"),
    }
}

fn run(mut lua: Command, prosodyctl: &Path, accounts: &str) -> anyhow::Result<String> {
    lua.arg(format!("-e{}{COMMAND_MAIN}", load_function())).arg(prosodyctl).arg(MODULE);
    lua.stdin(Stdio::piped()).stdout(Stdio::piped());
    // As for the server: Prosody 13.0 sets none by itself.
    umask(Mode::from_bits_truncate(0o027));
    let mut child = lua.spawn().context("running Lua")?;
    let input = child.stdin.take();
    // Beside the reading: a configuration may print more than a pipe holds before anything is read.
    let output = thread::scope(|scope| {
        // One that ends without reading says why in its status.
        scope.spawn(move || input.map(|mut input| input.write_all(accounts.as_bytes())));
        child.wait_with_output().context("reading from Lua")
    })?;
    ensure!(
        output.status.success(),
        "prosodyctl ended with {}; what is wrong with the configuration follows",
        output.status
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Writes into the log what the command said.
fn log_output(lines: &str) {
    let (mut made, mut existing) = (Vec::new(), Vec::new());
    for line in lines.lines() {
        match line.split('\t').collect::<Vec<&str>>()[..] {
            ["made", jid, ..] => made.push(jid),
            ["there", jid, ..] => existing.push(jid),
            ["failed", jid, why] => tracing::error!("The account {jid} cannot be made: {why}"),
            // What Prosody says of its configuration, which the server will say again.
            _ => tracing::debug!("{line}"),
        }
    }
    if !made.is_empty() {
        tracing::info!("New accounts: {}", several(&made));
    }
    if !existing.is_empty() {
        tracing::info!("Left as they are, with their passwords, because they exist: {}", several(&existing));
    }
}
