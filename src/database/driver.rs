//! A login with Prosody's own driver: LuaDBI in Prosody's Lua.

use std::io::{self, Read, Write};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::Context;

use super::{Answer, Database, LoginContext, refused};
use crate::os::within;
use crate::settings::types::DbDriver;
use crate::text::one_line;

const SCRIPT: &str = include_str!("log_in.lua");

/// What Prosody 13.0 makes of such rows.
const TWICE: &str = "it has rows twice, and until they are repaired no account can be created, and roles, new rooms and \
                     other data are not stored";

/// The maximum number of bytes to read of the script's output.
const LONGEST: u64 = 16 * 1024;

/// A Lua process that is ready to log in. It exits by itself when this is dropped.
pub struct Login(Child);

impl Login {
    /// Starts Lua, which loads the driver and waits. It runs as Prosody's user, with Prosody's environment: libpq reads
    /// defaults from it. `None` if Prosody's Lua is unknown or cannot be run. In that case no login is attempted.
    pub fn start(database: &Database, context: &LoginContext) -> Option<Self> {
        let started = Self::spawn(database, context, "nil");
        started.inspect_err(|error| tracing::debug!("{database}: not logged in: {error:#}")).ok()
    }

    /// Starts Lua, which then runs queries in the database and answers with the number of shards. `queries` is a Lua table.
    pub fn spawn(database: &Database, context: &LoginContext, queries: &str) -> anyhow::Result<Self> {
        let mut command = context.prosody.lua_command(context.user, context.environment)?;
        // One argument, because Lua refuses a separate one that begins with a dash, such as a comment.
        command.arg(format!("-elocal is_13, shards = {}, {queries}\n{SCRIPT}", context.prosody.is_13()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("running Lua")?;
        let input = child.stdin.as_mut().context("writing to Lua")?;
        input.write_all(&item(Some(database.driver.as_str())))?;
        Ok(Self(child))
    }

    /// Logs in to the database, within `limit`. If Lua fails, the database counts as ready.
    pub fn log_in(self, database: &Database, limit: Duration) -> Answer {
        match self.ask(database, limit) {
            Ok(said) if !said.is_empty() => interpret(&said, database),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                Answer::NotYet("the driver gets no answer".to_owned())
            }
            other => {
                tracing::debug!("{database}: not logged in: Lua said {other:?}");
                Answer::Ready
            }
        }
    }

    /// The output of the script, within `limit`: a word, and on the next lines a text.
    pub fn ask(mut self, database: &Database, limit: Duration) -> io::Result<String> {
        let (input, output, request) = (self.0.stdin.take(), self.0.stdout.take(), request(database));
        let said = within(limit, move || {
            // It has to be kept open.
            let mut input = input.ok_or(io::ErrorKind::BrokenPipe)?;
            input.write_all(&request)?;
            let mut said = Vec::new();
            output.ok_or(io::ErrorKind::BrokenPipe)?.take(LONGEST).read_to_end(&mut said)?;
            Ok(String::from_utf8_lossy(&said).into_owned())
        });
        // Unless the time is over, it has ended by itself.
        let _ = self.0.kill().and_then(|()| self.0.wait());
        said
    }
}

/// The input of the script after the driver's name. Thus no secret is in the arguments or the environment.
fn request(database: &Database) -> Vec<u8> {
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

/// Interprets the output of the script. The messages are from MySQL's library, in English because no locale is set. Those
/// of PostgreSQL's driver are from another place than the failed login, and mean nothing.
pub fn interpret(output: &str, database: &Database) -> Answer {
    let (word, why) = output.split_once('\n').unwrap_or((output, ""));
    // LuaDBI's prefix to the library's message.
    let why = one_line(why.strip_prefix("Failed to connect to database: ").unwrap_or(why));
    match word {
        "ready" => Answer::Ready,
        "old" => Answer::ReadyBut(advice!(
            "{database}: it has tables of an earlier Prosody, and some of what is stored in them is lost until they are \
             upgraded: make a backup, run `docker exec -it CONTAINER prosodyctl mod_storage_sql upgrade`, or `docker run \
             -it --rm OPTIONS IMAGE mod_storage_sql upgrade` with this container's options, answer y, and restart"
        )),
        "twice" if database.driver == DbDriver::Sqlite3 => Answer::ReadyBut(advice!(
            "{database}: {TWICE}: make a backup, stop the server, and run `docker run --rm OPTIONS IMAGE repair` with this \
             container's options"
        )),
        "twice" => Answer::ReadyBut(advice!(
            "{database}: {TWICE}: make a backup, and run `docker exec CONTAINER prosody-entrypoint repair`, or `docker run \
             --rm OPTIONS IMAGE repair` with this container's options"
        )),
        "missing" => {
            let driver = database.driver.as_str();
            let package = format!("lua-dbi-{}", driver.to_lowercase());
            Answer::Unusable(
                advice!("Lua has no driver for {driver}: install {package} in the image ({why})").into(),
            )
        }
        _ if database.driver == DbDriver::PostgreSql => refused("", "", database),
        _ => {
            let code = match why.to_ascii_lowercase() {
                why if why.contains("too many connections") => "53300",
                why if why.contains("access denied") && why.contains("to database '") => "3D000",
                why if why.contains("access denied") => "28P01",
                why if why.contains("unknown database") => "3D000",
                why if why.contains("not allowed to connect") => "28000",
                _ => "28",
            };
            refused(code, &why, database)
        }
    }
}
