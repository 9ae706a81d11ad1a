//! Changes a running server without a restart. A script of ours in the server brings it to its newest configuration, and
//! answers on a socket.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind::{ConnectionRefused, NotFound, UnexpectedEof};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::exit_status::Failure;
use crate::os::privileges;
use crate::os::users::User;
use crate::text::several;
use crate::{accounts, layout, lua, os};

/// The part of the script that changes the server.
const MAIN: &str = lua::script!("live/server.lua");

/// The part that compiles modules once for all hosts.
const SHARE: &str = lua::script!("live/share.lua");

/// The part that lets Prosody log JSON.
const LOG: &str = lua::script!("live/log.lua");

/// The part that takes over roles from Prosody 0.12.
const ROLES: &str = lua::script!("live/roles.lua");

/// The part that lets other programs read SQLite's files.
const SQLITE: &str = lua::script!("live/sqlite.lua");

/// The parts that serve the hosts of one shard, with the client of the database that has the locks.
const SHARDS: &str = lua::script!("live/shards.lua");
const POSTGRESQL: &str = lua::script!("live/postgresql.lua");

/// The call of all parts: the log's before Prosody sets it up, the others before any module is loaded.
const REGISTER: &str = r#"local prosody = rawget(_G, "prosody");
if prosody and prosody.process_type == "prosody" and not prosody.entrypoint then
	prosody.entrypoint = true;
	local has_json, json_problem = pcall(offer_json);
	prosody.events.add_handler("server-starting", function ()
		local log = require "util.logger".init("entrypoint");
		if not has_json then log("warn", "The log can only be text: %s", json_problem); end
		local ok, problem = pcall(share);
		if not ok then log("info", "Modules are compiled for each host: %s", problem); end
		ok, problem = pcall(start);
		if not ok then log("warn", "Each change needs a restart: %s", problem); end
		if shards then
			ok, problem = pcall(serve_shard);
			if not ok then
				log("error", "This server cannot be a shard: %s", problem);
				os.exit(1);
			end
		end
		ok, problem = pcall(take_over_roles);
		if not ok then log("error", "Roles from Prosody 0.12 are not taken over: %s", problem); end
		ok, problem = pcall(share_sqlite);
		if not ok then log("warn", "SQLite's files get no write-ahead log: %s", problem); end
		ok, problem = pcall(make_accounts);
		if not ok then log("error", "Accounts are not made: %s", problem); end
	end, 1000);
end
"#;

/// A reload's time limit for the next line of an answer. An event that every host handles takes long on a server with
/// many hosts.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(150);

/// How long a reload waits for a missing socket: the server may be about to make it.
pub const SOCKET_TIMEOUT: Duration = Duration::from_secs(2);

/// The size limit of a line, in bytes, and the most lines of an answer.
const LONGEST: u64 = 64 * 1024;
const MOST: usize = 1_000_000;

/// The source of the script, with the path of its socket, the digest of the certificates at the start, and the file of
/// accounts. For a shard also what identifies its data directory, if it holds the lock on that. Each parsing of the main
/// file runs it, in all of Prosody's programs, and only the first one in a server counts.
pub fn script(socket: &Path, certificates: u64, accounts: &Path, shard: Option<Option<&str>>) -> String {
    let shards = match shard {
        Some(directory) => format!("{{ directory = {} }}", directory.map_or("nil".to_owned(), lua::literal)),
        None => "nil".to_owned(),
    };
    let accounts = accounts::in_server(accounts);
    let socket = lua::literal(&socket.to_string_lossy());
    format!(
        "local shards = {shards};\n\n\
         local function start()\nlocal socket_path, certificates_at_start = {socket}, \"{certificates:x}\";\n\n\
         {MAIN}end\n\nlocal function share()\n{SHARE}end\n\nlocal function offer_json()\n{LOG}end\n\n\
         local function take_over_roles()\n{ROLES}end\n\nlocal function share_sqlite()\n{SQLITE}end\n\n\
         local function make_accounts()\n{accounts}end\n\n\
         local function load_client()\n{POSTGRESQL}end\n\nlocal function serve_shard()\n{SHARDS}end\n\n{REGISTER}"
    )
}

/// What became of the differences between the applied configuration and the newest.
#[derive(Debug, Default, PartialEq)]
pub struct Outcome {
    /// What was changed, as parts of a sentence: `loaded: time on a.example`.
    pub done: Vec<String>,
    /// What is not as configured, with the reason: `time on a.example is not loaded: syntax error`.
    pub failed: Vec<String>,
    /// What waits for a restart: `umask`.
    pub restart: Vec<String>,
}

/// The state of a server.
#[derive(Debug, Default, PartialEq)]
pub struct Status {
    /// What is not as it is configured, since the start or the last [`Connection::apply`].
    pub outcome: Outcome,
    /// The hosts that should be served and are not loaded.
    pub not_loaded: Vec<String>,
    /// The open ports.
    pub ports: Vec<u16>,
    pub is_stopping: bool,
    /// Whether [`Connection::set_ready`] was called since the start.
    pub was_ready: bool,
}

/// A connection to the script in the server.
pub struct Connection {
    stream: BufReader<UnixStream>,
    timeout: Duration,
}

/// Connects to the script in a server as the server's user. `None` if the server has no such socket, and makes none
/// within `patience`. Each line of an answer may take as long as `timeout`.
/// Errors: 77 if that user's permissions cannot be had; those of connect(2).
pub fn connect(
    runtime_dir: &Path,
    user: &User,
    patience: Duration,
    timeout: Duration,
) -> Result<io::Result<Option<Connection>>, Failure> {
    let socket = layout::live_socket(runtime_dir);
    privileges::as_user(user, || Connection::open(&socket, patience, timeout))
}

impl Connection {
    fn open(socket: &Path, patience: Duration, timeout: Duration) -> io::Result<Option<Self>> {
        let start = Instant::now();
        let path = socket.to_owned();
        // A server that hangs has a full queue sooner or later, and connect(2) has no time limit.
        let connect = move || UnixStream::connect(path);
        loop {
            match os::within(timeout, connect.clone()) {
                Ok(stream) => return Ok(Some(Self { stream: BufReader::new(stream), timeout })),
                Err(error) if ![NotFound, ConnectionRefused].contains(&error.kind()) => return Err(error),
                Err(_) if start.elapsed() >= patience => return Ok(None),
                Err(_) => sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Has the server parse a main file, which is to be applied next. Without an error in it, `Ok(Ok(()))`; otherwise the
    /// message of Prosody's loader, and the server keeps the configuration that it has.
    /// Errors: if there is no answer in time.
    pub fn load(&mut self, main_file: &Path) -> io::Result<Result<(), String>> {
        let answer = self.ask(&format!("load {}", main_file.display()), |line| {
            line == "loaded" || line.starts_with("refused\t")
        })?;
        let last = answer.last().and_then(|line| line.strip_prefix("refused\t"));
        Ok(last.map_or(Ok(()), |reason| Err(reason.to_owned())))
    }

    /// Has the server apply the configuration that was loaded last. `certificates` are the digests of all certificates
    /// before and now, `renewed` names the hosts whose certificates have changed between them, and `modules` those whose
    /// files have changed.
    /// Errors: if there is no answer in time.
    pub fn apply(
        &mut self,
        certificates: [u64; 2],
        renewed: &BTreeSet<String>,
        modules: &[String],
    ) -> io::Result<Outcome> {
        let number = std::process::id();
        let [before, now] = certificates;
        let mut request = format!("apply {number} {before:x} {now:x}");
        if !renewed.is_empty() {
            request.push_str(" renewed ");
            request.push_str(&renewed.iter().map(String::as_str).collect::<Vec<_>>().join(","));
        }
        if !modules.is_empty() {
            request.push_str(&format!(" modules {}", modules.join(",")));
        }
        let lines = self.ask(&request, |line| line == format!("end\t{number}"))?;
        Ok(summarize(&lines))
    }

    /// What [`Connection::apply`] would do with a main file, which the server parses and forgets. `Ok(Err(…))` with the
    /// message of Prosody's loader for an error in it.
    /// Errors: if there is no answer in time.
    pub fn compare(&mut self, main_file: &Path) -> io::Result<Result<Outcome, String>> {
        let number = std::process::id();
        let lines = self.ask(&format!("compare {number} {}", main_file.display()), |line| {
            line == format!("end\t{number}") || line.starts_with("refused\t")
        })?;
        let refused = lines.last().and_then(|line| line.strip_prefix("refused\t"));
        Ok(refused.map_or_else(|| Ok(summarize(&lines)), |reason| Err(reason.to_owned())))
    }

    /// The state of the server.
    /// Errors: if there is no answer in time.
    pub fn status(&mut self) -> io::Result<Status> {
        let lines = self.ask_numbered("status")?;
        let has = |line: &str| lines.iter().any(|other| other == line);
        let not_loaded = lines.iter().filter_map(|line| line.strip_prefix("host\t"));
        Ok(Status {
            outcome: summarize(&lines),
            not_loaded: not_loaded.map(str::to_owned).collect(),
            ports: lines.iter().filter_map(|line| line.strip_prefix("port\t")?.parse().ok()).collect(),
            is_stopping: has("stopping"),
            was_ready: has("was-ready"),
        })
    }

    /// Has the server remember, until its end, that it was ready.
    /// Errors: if there is no answer in time.
    pub fn set_ready(&mut self) -> io::Result<()> {
        self.ask_numbered("ready").map(drop)
    }

    /// Sends a request with a number, which ends the answer.
    fn ask_numbered(&mut self, request: &str) -> io::Result<Vec<String>> {
        let number = std::process::id();
        self.ask(&format!("{request} {number}"), |line| line == format!("end\t{number}"))
    }

    /// Sends a line, and reads lines up to the one that `is_last`.
    fn ask(&mut self, request: &str, is_last: impl Fn(&str) -> bool) -> io::Result<Vec<String>> {
        let mut stream = self.stream.get_ref();
        stream.set_write_timeout(Some(self.timeout))?;
        stream.set_read_timeout(Some(self.timeout))?;
        writeln!(stream, "{request}")?;
        let (mut lines, mut line) = (Vec::new(), Vec::new());
        loop {
            self.stream.by_ref().take(LONGEST).read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') || lines.len() == MOST {
                return Err(UnexpectedEof.into());
            }
            // Prosody's answer must not control the terminal that shows it.
            let text = String::from_utf8_lossy(&line[..line.len() - 1]);
            lines.push(text.replace(|letter: char| letter.is_control() && letter != '\t', "?"));
            line.clear();
            if lines.last().is_some_and(|line| is_last(line)) {
                return Ok(lines);
            }
        }
    }
}

/// Joins the lines of an answer: a kind, an action, a name, a host (`*` for the server) and a detail, separated by tabs.
fn summarize(lines: &[String]) -> Outcome {
    let mut outcome = Outcome::default();
    // By action, the names in the order of the answer, and the hosts of each.
    let mut done: BTreeMap<&str, Vec<(String, Vec<&str>)>> = BTreeMap::new();
    for line in lines {
        let fields: Vec<&str> = line.split('\t').collect();
        let [kind, action, name, host, detail] = fields[..] else { continue };
        let subject = on(name, &[host]);
        match (kind, action) {
            ("restart", _) if host == "*" => outcome.restart.push(name.to_owned()),
            ("restart", _) => outcome.restart.push(format!("{name} of {host}")),
            ("failed", _) => outcome.failed.push(format!("{}: {detail}", failure(action, &subject))),
            (_, "remove") if detail != "0" => {
                let sessions = if detail == "1" { "1 session" } else { &format!("{detail} sessions") };
                done.entry(action).or_default().push((format!("{name} ({sessions} ended)"), Vec::new()));
            }
            _ => {
                let names = done.entry(action).or_default();
                let at = names.iter().position(|(other, _)| other == name).unwrap_or(names.len());
                if at == names.len() {
                    names.push((name.to_owned(), Vec::new()));
                }
                names[at].1.push(host);
            }
        }
    }
    for (action, label) in ACTIONS {
        if let Some(names) = done.get(action) {
            let names: Vec<String> = names.iter().map(|(name, hosts)| on(name, hosts)).collect();
            outcome.done.push(format!("{label}: {}", several(&names)));
        }
    }
    outcome
}

/// The actions that a server reports, with the words for them in the log.
const ACTIONS: [(&str, &str); 8] = [
    ("add", "new"),
    ("remove", "removed"),
    ("load", "loaded"),
    ("unload", "unloaded"),
    ("reload", "reloaded"),
    ("open", "opened"),
    ("close", "closed"),
    ("option", "set"),
];

/// A name with its hosts.
fn on(name: &str, hosts: &[&str]) -> String {
    let others: Vec<&&str> = hosts.iter().filter(|host| !["*", "", name].contains(host)).collect();
    if others.is_empty() { name.to_owned() } else { format!("{name} on {}", several(&others)) }
}

/// What has failed, as a sentence.
fn failure(action: &str, subject: &str) -> String {
    match action {
        "add" => format!("{subject} is not served"),
        "remove" => format!("{subject} is still served"),
        "load" | "missing" => format!("{subject} is not loaded"),
        "unload" => format!("{subject} stays loaded"),
        "reload" => format!("{subject} has its old options"),
        "open" => format!("{subject} is not opened"),
        "close" => format!("{subject} is not closed"),
        "certificate" => format!("{subject} has its old certificate"),
        "configuration" => "Prosody cannot read it".to_owned(),
        _ => "an error in the server".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;
    use crate::tests::TestDir;

    /// What becomes of lines that a server answers.
    fn outcome(lines: &[&str]) -> Outcome {
        summarize(&lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn what_was_done_is_one_list_for_each_action() {
        let outcome = outcome(&[
            "done\tremove\told.example\told.example\t2",
            "done\tadd\tnew.example\tnew.example\t",
            "done\treload\tmam\ta.example\tmax_archive_query_results",
            "done\treload\tmam\tb.example\tmax_archive_query_results",
            "done\treload\tc2s\t*\tc2s_timeout",
            "done\topen\tc2s * 5222\t*\t",
        ]);
        let expected = [
            "new: new.example",
            "removed: old.example (2 sessions ended)",
            "reloaded: mam on a.example, b.example, c2s",
            "opened: c2s * 5222",
        ];
        assert_eq!(outcome.done, expected);
        assert_eq!((outcome.failed.len(), outcome.restart.len()), (0, 0));
    }

    #[test]
    fn what_failed_has_its_reason_and_what_waits_its_host() {
        let outcome = outcome(&[
            "failed\tload\tbroken\ta.example\tsyntax error",
            "failed\tconfiguration\t\t\tline 2",
            "restart\toption\tgc\t*\t",
            "restart\toption\tcustom_roles\ta.example\t",
            "a line of another version",
        ]);
        let failed = ["broken on a.example is not loaded: syntax error", "Prosody cannot read it: line 2"];
        assert_eq!(outcome.failed, failed);
        assert_eq!(outcome.restart, ["gc", "custom_roles of a.example"]);
    }

    #[test]
    fn a_server_that_accepts_nothing_is_not_waited_for() {
        let directory = TestDir::new();
        let socket = directory.path().join("live.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        let limit = Duration::from_millis(50);
        let mut queue = Vec::new();
        let error = loop {
            match Connection::open(&socket, Duration::ZERO, limit) {
                Ok(connection) => queue.push(connection.unwrap()),
                Err(error) => break error,
            }
            assert!(queue.len() < 10_000);
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_connection_loads_and_applies() {
        let directory = TestDir::new();
        let socket = directory.path().join("live.sock");
        let open = || Connection::open(&socket, Duration::ZERO, ANSWER_TIMEOUT).unwrap();
        assert!(open().is_none(), "there is no socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
            assert_eq!(lines.next().unwrap(), "load /first");
            (&stream).write_all(b"refused\tline 2\n").unwrap();
            assert_eq!(lines.next().unwrap(), "load /second");
            (&stream).write_all(b"loaded\n").unwrap();
            let request = lines.next().unwrap();
            let number = request
                .strip_prefix("apply ")
                .unwrap()
                .strip_suffix(" 29 2a renewed x.example,y.example modules a,b")
                .unwrap();
            write!(&stream, "done\tadd\ta\ta\t\nend\t{number}\n").unwrap();
            assert_eq!(lines.next().unwrap(), format!("compare {number} /third"));
            write!(&stream, "restart\toption\tgc\t*\t\nend\t{number}\n").unwrap();
            assert_eq!(lines.next().unwrap(), format!("compare {number} /fourth"));
            (&stream).write_all(b"refused\tline 4\n").unwrap();
            assert_eq!(lines.next().unwrap(), format!("status {number}"));
            let failed = "failed\tload\tx\ta\ty\x1b";
            write!(&stream, "{failed}\nhost\tb\nhost\tc\nport\t5222\nstopping\nwas-ready\nend\t{number}\n")
                .unwrap();
            assert_eq!(lines.next().unwrap(), format!("ready {number}"));
            writeln!(&stream, "end\t{number}").unwrap();
            assert_eq!(lines.next().unwrap(), format!("status {number}"));
            writeln!(&stream, "end\t{number}").unwrap();
            assert!(lines.next().unwrap().starts_with("apply "));
        });
        let mut connection = open().unwrap();
        assert_eq!(connection.load(Path::new("/first")).unwrap(), Err("line 2".to_owned()));
        assert_eq!(connection.load(Path::new("/second")).unwrap(), Ok(()));
        let modules = ["a".to_owned(), "b".to_owned()];
        let renewed = ["y.example", "x.example"].map(String::from).into();
        assert_eq!(connection.apply([41, 42], &renewed, &modules).unwrap().done, ["new: a"]);
        assert_eq!(connection.compare(Path::new("/third")).unwrap().unwrap().restart, ["gc"]);
        assert_eq!(connection.compare(Path::new("/fourth")).unwrap(), Err("line 4".to_owned()));
        let status = connection.status().unwrap();
        assert_eq!(status.outcome.failed, ["x on a is not loaded: y?"]);
        assert_eq!((status.not_loaded, status.ports), (vec!["b".to_owned(), "c".to_owned()], vec![5222]));
        assert!(status.is_stopping && status.was_ready);
        connection.set_ready().unwrap();
        assert_eq!(connection.status().unwrap(), Status::default());
        connection.apply([42, 42], &BTreeSet::new(), &[]).expect_err("the server closes the connection");
        server.join().unwrap();
    }
}
