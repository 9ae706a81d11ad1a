//! Saves, restores, migrates and repairs the data of all hosts, whatever storage it is in. Lua, which `prosodyctl` runs as
//! Prosody's user, reads and writes Prosody's formats itself: the storages would lose some stores, and are slow.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, umask};
use nix::unistd::pipe2;

use crate::exit_status::{ExitStatus, Failure, WithStatus};
use crate::facts::prosody::Prosody;
use crate::lua;
use crate::os::system;
use crate::os::users::User;

/// The name of the `prosodyctl` command.
const COMMAND: &str = "entrypoint_data";

/// The functions that the command calls once Prosody's libraries exist.
const PARTS: [(&str, &str); 8] = [
    ("json", lua::script!("data/json.lua")),
    ("tar", lua::script!("data/tar.lua")),
    ("stores", lua::script!("data/stores.lua")),
    ("lists", lua::script!("data/lists.lua")),
    ("repair", lua::script!("data/repair.lua")),
    ("read", lua::script!("data/read.lua")),
    ("archive", lua::script!("data/archive.lua")),
    ("restore", lua::script!("data/restore.lua")),
];

/// The rest of the command.
const MAIN: &str = lua::script!("data/command.lua");

/// How many of the first lines of Prosody's own are shown after a failure.
const MOST_LINES: usize = 8;

/// How long a database server may take to answer, in milliseconds. A stopped process, or a network that loses everything,
/// gives no error.
const PATIENCE: i32 = 120_000;

/// The status of a backup that lacks data that could not be read. `prosodyctl` itself has no such status.
const INCOMPLETE: ExitStatus = ExitStatus::exited(2);

/// The levels of lists with a part of an item: of any, and of one that a server may be writing.
const CUT_OFF: &str = "cut off";
const CUT_OFF_BESIDE_A_SERVER: &str = "cut off beside a server";

/// What to do with an archive, or with the stores.
pub enum Task<'a> {
    /// Write it: all data, after a repair of lists, or an account's.
    Backup { served_since: ServedSince, account: Option<&'a str> },
    /// Read it. A host may have another name than in the archive: old and new names.
    Restore { hosts: &'a [(String, String)] },
    /// Repair lists and databases, without an archive.
    Repair { served_since: ServedSince },
    /// Find damaged lists.
    Validate { served_since: ServedSince },
}

/// When the server began that uses the data directory, in seconds since 1970, or 0 if that is unknown. `None` without one.
pub type ServedSince = Option<i64>;

/// What the program needs: those of the server.
pub struct ServerContext<'a> {
    pub prosodyctl: &'a Path,
    pub prosody: &'a Prosody,
    pub user: &'a User,
    pub environment: &'a [(OsString, OsString)],
}

/// Writes or reads an archive, and logs what was done. Returns 0, or 2 if some data could not be read.
/// Errors: 64 if a host or an account is named wrongly; 65 for an archive that cannot be restored; 66 if there is no such
/// account; 69 if a database is not available, or cannot be read beside the server; 73 if something cannot be written, or
/// the server has data; 78 if a host is not configured, or the configuration is wrong; 71 for anything else.
pub fn run(task: &Task, archive: File, context: &ServerContext) -> Result<ExitStatus, Failure> {
    let (reader, writer) = pipe()?;
    let child = match task {
        Task::Backup { .. } => spawn(&options(task), Stdio::null(), archive.into(), writer, context)?,
        _ => spawn(&options(task), archive.into(), Stdio::null(), writer, context)?,
    };
    let messages = follow(reader)?;
    end(child, messages)
}

/// Copies all data from the storage of a configuration into that of another one, and logs what was done.
/// Errors: 64 if the data are there already; those of [`run`].
pub fn migrate(from: &ServerContext, to: &ServerContext) -> Result<(), Failure> {
    let (reader, writer) = pipe()?;
    let (input, output) = pipe()?;
    let copy = writer.try_clone().context("copying a descriptor").status(ExitStatus::OS_ERROR)?;
    let options = "action = \"backup\", migrates = true";
    let source = spawn(options, Stdio::null(), output.into(), copy, from)?;
    let options = "action = \"migrate\", migrates = true, hosts = {}";
    let target = spawn(options, input.into(), Stdio::null(), writer, to)?;
    // If one fails, the other soon fails as well. The first failure is the reason.
    let messages = follow(reader)?;
    end(source, messages.clone()).and(end(target, messages)).map(drop)
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Failure> {
    pipe2(OFlag::O_CLOEXEC).context("making a pipe").status(ExitStatus::OS_ERROR)
}

/// Starts the command with these options, in Lua.
fn spawn(
    options: &str,
    input: Stdio,
    output: Stdio,
    errors: OwnedFd,
    context: &ServerContext,
) -> Result<Child, Failure> {
    let mut command = command(options, context)?;
    command.stdin(input).stdout(output).stderr(errors);
    system::end_with_parent(&mut command);
    // Afterwards, only the child has the other ends: otherwise their readers would wait for us.
    command.spawn().context("running Lua").status(ExitStatus::CANNOT_EXECUTE)
}

/// What was said and not logged.
#[derive(Clone, Default)]
struct Messages {
    /// The first failure.
    failure: Option<(ExitStatus, String)>,
    /// The first lines of Prosody's own.
    others: Vec<String>,
}

/// Logs what is said until the end, and shows the progress on a terminal.
/// Errors: 69 if a database does not answer. Lua ends with this process.
fn follow(errors: OwnedFd) -> Result<Messages, Failure> {
    let (mut messages, mut asked) = (Messages::default(), Vec::new());
    let mut terminal = io::stderr().is_terminal().then(io::stderr);
    let mut errors = BufReader::new(File::from(errors));
    while let Some(line) = next_line(&mut errors, &asked)? {
        let said = line.strip_prefix("entrypoint\t").and_then(|line| line.split_once('\t'));
        if let Some(terminal) = &mut terminal {
            // The next line replaces it. If it cannot be shown, nothing is lost.
            let progress = said.filter(|(level, _)| *level == "progress").map_or("", |(_, text)| text);
            let _ = write!(terminal, "\r\x1b[K{progress}");
        }
        match said {
            Some(("progress", _)) => {}
            Some(("asks", name)) => asked.push(name.to_owned()),
            // Both databases of a migration may have one name.
            Some(("asked", name)) => {
                asked.iter().position(|other| other == name).map(|place| asked.swap_remove(place));
            }
            Some(("info", text)) => tracing::info!("{text}"),
            Some(("warning", text)) => tracing::warn!("{text}"),
            Some(("error", text)) => tracing::error!("{text}"),
            Some((name @ (CUT_OFF | CUT_OFF_BESIDE_A_SERVER), path)) => {
                tracing::error!("{}", explanation(name, path));
            }
            Some((status, text)) => {
                let (name, text) = text.split_once('\t').unwrap_or(("", text));
                let status = status.parse().map_or(ExitStatus::OS_ERROR, ExitStatus::exited);
                messages.failure.get_or_insert_with(|| (status, explanation(name, text)));
            }
            None => {
                tracing::debug!("{line}");
                // Not the stack below an error.
                if !line.starts_with('\t') && !line.trim().is_empty() && messages.others.len() < MOST_LINES {
                    messages.others.push(line.trim().to_owned());
                }
            }
        }
    }
    Ok(messages)
}

/// Waits for a command that has closed its standard error.
fn end(mut child: Child, messages: Messages) -> Result<ExitStatus, Failure> {
    let ended = child.wait().context("waiting for Lua").status(ExitStatus::OS_ERROR)?;
    let status = ExitStatus::from(ended);
    match messages.failure {
        Some((status, failure)) => Err(status.failure(failure)),
        None if status == ExitStatus::SUCCESS || status == INCOMPLETE => Ok(status),
        None if ended.code().is_none() => Err(status.failure(format!("prosodyctl ended with {ended}"))),
        // It stopped before the command.
        None => Err(ExitStatus::CONFIGURATION
            .failure(format!("prosodyctl ended with {ended}; its messages: {}", messages.others.join(" ")))),
    }
}

/// Waits for a line of Lua, while these databases are asked.
/// Errors: 69 if they do not answer. Lua ends with this process.
fn next_line(errors: &mut BufReader<File>, asked: &[String]) -> Result<Option<String>, Failure> {
    if !asked.is_empty() && errors.buffer().is_empty() {
        let mut lines = [PollFd::new(errors.get_ref().as_fd(), PollFlags::POLLIN)];
        if poll(&mut lines, PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX)) == Ok(0) {
            let seconds = PATIENCE / 1000;
            return Err(ExitStatus::UNAVAILABLE
                .failure(format!("the database {} has not answered for {seconds} s", asked.join(" or "))));
        }
    }
    let mut line = Vec::new();
    errors.read_until(b'\n', &mut line).context("reading what Lua says").status(ExitStatus::OS_ERROR)?;
    let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line)).into_owned();
    Ok(Some(text).filter(|_| !line.is_empty()))
}

/// Finds lists with a part of an item.
pub fn find_damaged_lists(
    served_since: ServedSince,
    context: &ServerContext,
) -> Result<Vec<String>, Failure> {
    let mut command = command(&options(&Task::Validate { served_since }), context)?;
    let ended = command.output().context("running Lua").status(ExitStatus::CANNOT_EXECUTE)?;
    let said = String::from_utf8_lossy(&ended.stderr);
    let paths = said.lines().filter_map(|line| line.strip_prefix("entrypoint\tcut off\t"));
    Ok(paths.map(|path| explanation(CUT_OFF, path)).collect())
}

/// The program with these options.
fn command(options: &str, context: &ServerContext) -> Result<Command, Failure> {
    // The same as for the server. Prosody 13.0 sets no umask.
    umask(Mode::from_bits_truncate(0o027));
    let mut command =
        context.prosody.lua_command(context.user, context.environment).status(ExitStatus::CANNOT_EXECUTE)?;
    command.arg(format!("-e{}", script(options))).arg(context.prosodyctl).arg(COMMAND);
    Ok(command)
}

/// The text of a failure, by its name.
fn explanation(name: &str, text: &str) -> String {
    match name {
        CUT_OFF => advice!(
            "{text} has a part of an item, which a crash has left: Prosody 13.0 adds nothing to it, and 0.12 cannot read it: \
             run `docker exec CONTAINER prosody-entrypoint repair`, or `docker run --rm OPTIONS IMAGE repair` with this \
             container's options"
        )
        .into(),
        CUT_OFF_BESIDE_A_SERVER => advice!(
            "Not repaired: {text}, whose last item is cut off, because a server may be writing it: stop the server, and run \
             `docker run --rm OPTIONS IMAGE repair` with this container's options"
        )
        .into(),
        "rows twice beside a server" => advice!(
            "the server could write nothing while rows of {text} are removed: stop the server, and run `docker run --rm \
             OPTIONS IMAGE repair` with this container's options"
        )
        .into(),
        "no write-ahead log" => advice!(
            "the server would refuse logins while {text} is read, because it has no write-ahead log: stop the server, and \
             run `docker run --rm OPTIONS IMAGE backup` with this container's options; that makes the log, and from then \
             on backups can be made beside the server"
        )
        .into(),
        "unknown host" => advice!(
            "the archive has data of {text}, which is not configured: add the host, or give `--host {text}=NEW`"
        )
        .into(),
        _ => text.to_owned(),
    }
}

/// The options of a task, as fields of a table in Lua.
fn options(task: &Task) -> String {
    let with_server = |action: &str, repairs: bool, since: &ServedSince| {
        let since = since.map_or_else(|| "nil".to_owned(), |since| since.to_string());
        format!("action = \"{action}\", repairs = {repairs}, served_since = {since}")
    };
    match task {
        Task::Backup { served_since, account } => {
            let account = account.map_or_else(|| "nil".to_owned(), lua::literal);
            with_server("backup", account == "nil", served_since) + ", account = " + &account
        }
        Task::Repair { served_since } => with_server("repair", true, served_since),
        Task::Validate { served_since } => with_server("validate", false, served_since),
        Task::Restore { hosts } => {
            let pairs =
                hosts.iter().map(|(old, new)| format!("[{}] = {},", lua::literal(old), lua::literal(new)));
            format!("action = \"restore\", hosts = {{ {} }}", pairs.collect::<String>())
        }
    }
}

/// The Lua source of the command with these options.
fn script(options: &str) -> String {
    let shows_progress = io::stderr().is_terminal();
    let mut script = format!(
        "local options = {{ version = \"{}\", shows_progress = {shows_progress}, {options} }};\n",
        env!("CARGO_PKG_VERSION")
    );
    for (name, part) in PARTS {
        script += &format!("local function load_{name}(...)\n{part}end\n");
    }
    script + MAIN
}
