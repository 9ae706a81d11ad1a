//! Creates the accounts of the settings with Prosody's user manager, so that every provider and storage is supported.
//!
//! Normally, a part of the script in the running server does this. A custom main file does not run the script, so in that
//! case a `prosodyctl` command does it before the start.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{anyhow, ensure};
use nix::sys::stat::{Mode, umask};

use crate::facts::prosody::Prosody;
use crate::lua;
use crate::os::process;
use crate::os::users::User;
use crate::text::several;

/// The name of the `prosodyctl` command.
const COMMAND: &str = "entrypoint_accounts";

/// The Lua function that creates accounts, for the server and the command.
const MAKE_ACCOUNTS: &str = lua::script!("accounts/make.lua");

/// The rest of the part in the server.
const SERVER_MAIN: &str = lua::script!("accounts/server.lua");

/// The rest of the `prosodyctl` command.
const COMMAND_MAIN: &str = lua::script!("accounts/command.lua");

/// The Lua source of the part in the server, which takes the accounts from a file.
pub fn in_server(file: &Path) -> String {
    let path = lua::literal(&file.to_string_lossy());
    format!("local accounts_path = {path};\n\n{}{SERVER_MAIN}", load_function())
}

/// The Lua source of a function that returns [`MAKE_ACCOUNTS`]. It must be called late, when Prosody's libraries exist.
fn load_function() -> String {
    format!("local function load_maker()\n{MAKE_ACCOUNTS}end\n")
}

/// Creates accounts before the start, with the custom configuration in `environment`.
///
/// The result is logged. A failure does not prevent the start, because Prosody reports errors in its configuration
/// itself.
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
        Err(error) => tracing::warn!("Accounts may be missing: {error:#}"),
    }
}

fn run(mut lua: Command, prosodyctl: &Path, accounts: &str) -> anyhow::Result<String> {
    lua.arg(format!("-e{}{COMMAND_MAIN}", load_function())).arg(prosodyctl).arg(COMMAND);
    // The same as for the server. Prosody 13.0 sets no umask.
    umask(Mode::from_bits_truncate(0o027));
    // Hashing a password takes some milliseconds, and a provider may be another server.
    let limit = Duration::from_secs(60 + accounts.lines().count() as u64);
    let output = process::output(&mut lua, accounts.as_bytes(), limit).map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => anyhow!(
            "prosodyctl did not end within {} s and was killed; does the configuration wait for another server?",
            limit.as_secs()
        ),
        _ => anyhow!("running Lua: {error}"),
    })?;
    ensure!(
        output.status.success(),
        "prosodyctl ended with {}; what is wrong with the configuration follows",
        output.status
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Logs the output of the command.
fn log_output(lines: &str) {
    let (mut made, mut existing) = (Vec::new(), Vec::new());
    for line in lines.lines() {
        match line.split('\t').collect::<Vec<&str>>()[..] {
            ["made", jid, ..] => made.push(jid),
            ["there", jid, ..] => existing.push(jid),
            ["failed", jid, why] => tracing::error!("The account {jid} cannot be made: {why}"),
            // Prosody's messages about its configuration. The server will repeat them.
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
