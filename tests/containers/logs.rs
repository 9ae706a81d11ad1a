//! The formats of the log: what a program that reads it gets.

use serde_json::Value;

use crate::docker::{
    Answer, BOOKWORM, Container, Network, Observations, PATIENCE, Recipe, TRIXIE, docker, eventually, session,
};
use crate::reload::reload;

const DOMAIN: &str = "chat.example";

/// A module whose messages are hard to write as JSON, and that raises an error for each user who comes.
const HOSTILE: &str = r#"
module:log("warn", "%s", "two\nlines, \"quoted\" \\ \27[31m \240\159\144\152");
module:log("error", "%s", "bad\nlines, \"quoted\" \255\254");
module:log("info", "raw \255 \195\188 \194\133 \226\128\174 \0\127\t|");
module:log("info", "%s", ("long "):rep(20000));
module:hook("presence/initial", function (event)
	error(event.origin.username == "alice" and "first\nsecond \"quoted\"" or "third\nfourth \"quoted\" \255");
end);
"#;

/// Reads lines of which each must be an object with nothing but the documented fields.
#[track_caller]
fn objects(lines: &str) -> Vec<Value> {
    let objects: Vec<Value> = lines
        .split_terminator('\n')
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?}: {error}")))
        .collect();
    for object in &objects {
        for (name, value) in object.as_object().unwrap_or_else(|| panic!("{object} is no object")) {
            let text = value.as_str().unwrap_or_else(|| panic!("{name} is no text: {object}"));
            let is_right = match name.as_str() {
                "time" => is_time(text, "0000-00-00T00:00:00.000Z"),
                "level" => ["debug", "info", "warn", "error"].contains(&text),
                "source" | "host" | "session" => !text.is_empty(),
                name => name == "message",
            };
            assert!(is_right, "{name}: {object}");
        }
        for name in ["time", "level", "source", "message"] {
            assert!(!object[name].is_null(), "no {name}: {object}");
        }
    }
    objects
}

/// Whether a text has digits where `form` has zeros, and otherwise the same letters.
fn is_time(text: &str, form: &str) -> bool {
    text.replace(|letter: char| letter.is_ascii_digit(), "0") == form
}

fn message(object: &Value) -> &str {
    object["message"].as_str().unwrap_or_default()
}

#[track_caller]
fn find<'a>(objects: &'a [Value], part: &str) -> &'a Value {
    let found = objects.iter().find(|object| message(object).contains(part));
    let messages = || objects.iter().map(message).collect::<Vec<_>>().join("\n");
    found.unwrap_or_else(|| panic!("{part:?} is not in the log:\n{:.20000}", messages()))
}

/// Whether a line of text looks as Prosody's console log does: source, padding, level, tab, message.
pub fn is_text(line: &str) -> bool {
    let Some((head, _)) = line.split_once('\t') else {
        return false;
    };
    matches!(head.split_whitespace().collect::<Vec<_>>()[..], [_, "debug" | "info" | "warn" | "error"])
        && head.len() >= 20
}

/// A server with a log of JSON, from its start to its end.
fn every_line_is_an_object(image: &str) {
    let network = Network::new();
    let server = Recipe::new(image)
        .on(&network, &[DOMAIN])
        .env("PROSODY_DOMAIN", DOMAIN)
        .env("PROSODY_MODULES_ENABLED_FILE", "/etc/prosody/names")
        .env("PROSODY_LOG_FORMAT", "json")
        .env("PROSODY_LOG_LEVEL", "debug")
        .env("PROSODY_ENTRYPOINT_LOG", "debug")
        .file("/etc/prosody/names", "hostile")
        .file("/etc/prosody/modules/mod_hostile.lua", HOSTILE)
        .serve();
    server.register_accounts(DOMAIN);
    session(&network, DOMAIN, &["login"]);
    server.wait_for_log("first");
    server.wait_for_log("third");
    server.put("/etc/prosody/names", b"hostile,motd");
    reload(&server);
    server.put("/etc/prosody/names", b"hostile,no such module");
    reload(&server);
    server.signal("TERM");
    eventually("the end", PATIENCE, || if server.runs() { Err(server.logs()) } else { Ok(()) });
    assert_eq!(server.inspect("{{.State.ExitCode}}"), "0");

    let Answer { stdout, stderr, .. } = server.said();
    let (prosodys, ours) = (objects(&stdout), objects(&stderr));
    let mut seen = Observations::default();
    let hard = find(&prosodys, "two\n");
    let text = message(hard);
    seen.equal("a message, as Prosody formats it", text, "two\n\tlines, \"quoted\" \\ ␛[31m 🐘");
    // Prosody quotes an argument that is not UTF-8.
    let bad = message(find(&prosodys, "bad"));
    seen.that("an argument that is not UTF-8", bad.contains(r#"lines, \"quoted\" \255\254"#), bad);
    seen.that("another traceback", message(find(&prosodys, "third")).contains("mod_hostile.lua"), "");
    seen.equal("a level", &hard["level"], &Value::from("warn"));
    seen.equal("the source of a module", &hard["source"], &Value::from("chat.example:hostile"));
    seen.equal("the host of a module", &hard["host"], &Value::from(DOMAIN));
    let raw = message(find(&prosodys, "raw"));
    seen.equal("bytes that are no UTF-8", raw, "raw \u{fffd} ü \u{85} \u{202e} \0\x7f\t|");
    let long = message(find(&prosodys, "long"));
    seen.equal("a long line", long.len(), 100_000);
    let traceback = find(&prosodys, "first\n");
    let text = message(traceback);
    seen.that(
        "a traceback in one object",
        text.contains("Traceback[c2s]") && text.contains("mod_hostile.lua"),
        text,
    );
    seen.that("its session", traceback["session"] == traceback["source"], traceback);
    let login = find(&prosodys, "Authenticated as alice@chat.example");
    let session = login["session"].as_str().unwrap_or_default();
    seen.that("the session of a login", session.starts_with("c2s"), login);
    seen.that("no host of a session", login["host"].is_null(), login);
    let end = find(&prosodys, "Shutdown complete");
    seen.that("the end", end["source"] == "general" && end["host"].is_null(), end);
    seen.that("a global module is on no host", prosodys.iter().all(|object| object["host"] != "*"), "");
    // What anyone can send, without the escapes that keep it from a terminal.
    seen.that("nothing that a terminal obeys", !stdout.contains(['\x1b', '\u{85}', '\u{202e}', '\0']), "");

    let served = find(&ours, "Serving chat.example");
    seen.equal("our source", &served["source"], &Value::from("entrypoint"));
    find(&ours, "Reloading");
    let heading = find(&ours, "Not reloaded");
    seen.that("one object for each error", !message(heading).contains("no such module"), heading);
    let error = ours.iter().find(|object| message(object).starts_with("PROSODY_MODULES_ENABLED_FILE"));
    seen.that("the error", error.is_some_and(|object| object["level"] == "error"), &ours);
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn every_line_of_a_json_log_is_an_object() {
    every_line_is_an_object(TRIXIE);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn every_line_of_a_json_log_is_an_object_on_bookworm() {
    every_line_is_an_object(BOOKWORM);
}

/// A reload changes level, format and times without a restart, there and back.
fn a_reload_changes_the_log(image: &str) {
    let server = Recipe::new(image)
        .env("PROSODY_DOMAIN", DOMAIN)
        .env("PROSODY_LOG_FORMAT_FILE", "/srv/format")
        .env("PROSODY_LOG_LEVEL_FILE", "/srv/level")
        .env("PROSODY_LOG_TIMESTAMPS_FILE", "/srv/timestamps")
        .file("/srv/format", "text")
        .file("/srv/level", "warn")
        .file("/srv/timestamps", "false")
        .serve();
    let change = |format: &str, level: &str, timestamps: &str| {
        server.put("/srv/format", format.as_bytes());
        server.put("/srv/level", level.as_bytes());
        server.put("/srv/timestamps", timestamps.as_bytes());
        let said = reload(&server);
        assert!(!said.stderr.contains("restart"), "{}", said.all());
        let mark = server.mark();
        server.exec(["prosody-entrypoint", "healthcheck"]).ok();
        (said.stderr, mark)
    };
    let line = |mark, part: &str| {
        eventually(part, PATIENCE, || {
            let stdout = server.since(mark).stdout;
            if stdout.contains(part) { Ok(stdout) } else { Err(server.logs()) }
        })
    };
    let (ours, mark) = change("json", "info", "false");
    objects(&line(mark, "Client connected"));
    assert!(!objects(&ours).is_empty());
    let (ours, mark) = change("text", "info", "true");
    let prosodys = line(mark, "Client connected");
    for line in ours.lines().chain(prosodys.lines()).filter(|line| !line.starts_with('\t')) {
        assert!(is_timed_text(line), "{line:?}");
    }
    let (ours, quiet) = change("text", "warn", "false");
    assert!(ours.lines().all(|line| line.starts_with('\t') || is_text(line)), "{ours}");
    let (_, mark) = change("json", "debug", "false");
    let objects = objects(&line(mark, "Client connected"));
    assert!(objects.iter().any(|object| object["level"] == "debug"), "{objects:#?}");
    let since = server.since(quiet).stdout;
    assert_eq!(since.matches("Client connected").count(), 1, "not at the level `warn`: {since}");
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_reload_changes_the_log_of_a_running_server() {
    a_reload_changes_the_log(TRIXIE);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_reload_changes_the_log_of_a_running_server_on_bookworm() {
    a_reload_changes_the_log(BOOKWORM);
}

fn is_timed_text(line: &str) -> bool {
    line.split_once(' ').is_some_and(|(time, rest)| is_time(time, "0000-00-00T00:00:00Z") && is_text(rest))
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn each_line_of_text_may_begin_with_the_time() {
    let server = Recipe::new(TRIXIE)
        .env("PROSODY_DOMAIN", DOMAIN)
        .env("PROSODY_LOG_TIMESTAMPS", "true")
        // Times are in UTC all the same.
        .env("TZ", "Asia/Tokyo")
        .serve();
    kill_the_server(&server);
    let said = server.said();
    let lines: Vec<&str> = said.stdout.lines().chain(said.stderr.lines()).collect();
    for line in &lines {
        assert!(is_timed_text(line), "{line:?}");
    }
    let hour = |line: &&str| line[..13].to_owned();
    let hours: Vec<String> = lines.iter().map(hour).collect();
    assert!(hours.iter().all(|other| *other == hours[0] || *other == *hours.last().unwrap()), "{hours:?}");
    let ours = said.stderr.lines().next().map(|line| hour(&line));
    let prosodys = said.stdout.lines().next().map(|line| hour(&line));
    let last = said.stdout.lines().last().map(|line| hour(&line));
    assert!(ours == prosodys || ours == last, "{ours:?} {prosodys:?}");
    assert!(said.stderr.contains("warn\tthe command was ended by SIGKILL"), "{}", said.stderr);
}

#[track_caller]
fn kill_the_server(server: &Container) {
    server.root(&format!("kill -KILL {}", server.server_pid()));
    eventually("the end", PATIENCE, || if server.runs() { Err(server.logs()) } else { Ok(()) });
}

/// PID 1's own messages, those before the settings are read, and a report of errors.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn each_message_of_ours_is_an_object_too() {
    let server = Recipe::new(TRIXIE)
        .env("PROSODY_DOMAIN", DOMAIN)
        .env("PROSODY_LOG_FORMAT_FILE", "/srv/format")
        .file("/srv/format", "JSON\n")
        .serve();
    kill_the_server(&server);
    let end = objects(&server.said().stderr);
    let end = end.last().expect("our log is not empty");
    assert_eq!((message(end), &end["level"]), ("the command was ended by SIGKILL", &"warn".into()));

    let json = || Recipe::new(TRIXIE).env("PROSODY_ENTRYPOINT_LOG_FORMAT", "json");
    let usage = json().command(["rendre", "--dry-run"]).run();
    assert_eq!((usage.status, usage.stdout.as_str()), (127, ""));
    assert_eq!(objects(&usage.stderr).len(), 1, "{}", usage.stderr);
    let usage = json().command(["render", "--dry"]).run();
    assert_eq!((usage.status, objects(&usage.stderr).len()), (64, 1), "{}", usage.stderr);
    let wrong = json().env("PROSODY_DOMAIN", "a..b").env("PROSODY_LOG_LEVEL", "\"loud\"").run();
    assert_eq!(wrong.status, 78);
    let said = objects(&wrong.stderr);
    assert!(wrong.stdout.is_empty() && said.iter().all(|object| object["level"] == "error"), "{said:#?}");
    let begins = |start: &str| said.iter().filter(|object| message(object).starts_with(start)).count();
    assert_eq!(
        (begins("2 things are wrong"), begins("PROSODY_DOMAIN"), begins("PROSODY_LOG_LEVEL")),
        (1, 1, 1)
    );
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_log_of_json_has_no_colours_and_commands_print_as_ever() {
    let server = Recipe::new(TRIXIE)
        .with(["--tty"])
        .env("PROSODY_DOMAIN", DOMAIN)
        .env("PROSODY_LOG_FORMAT", "json")
        .serve();
    // A terminal ends lines with a carriage return.
    assert!(!objects(&docker(["logs", &server.name]).ok().replace('\r', "")).is_empty());
    for command in [["prosodyctl", "about"], ["prosodyctl", "status"]] {
        let printed = server.exec(command).ok();
        assert!(!printed.contains(r#""time""#), "{printed}");
    }
    let check = server.exec(["prosodyctl", "check", "config"]);
    assert!(check.status == 0 && !check.all().contains(r#""time""#), "{}", check.all());
}

/// As `docs/logs.md` has it.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_rule_of_ones_own_can_log_json() {
    let page = include_str!("../../docs/logs.md");
    let rules = page.split("```lua\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let server = Recipe::new(TRIXIE)
        .env("PROSODY_DOMAIN", DOMAIN)
        .file("/etc/prosody/conf.d/log.cfg.lua", rules)
        .serve();
    let said = server.said();
    assert!(!objects(&said.stdout).is_empty());
    assert!(said.stderr.lines().all(is_text), "{}", said.stderr);
    let file = server.root("cat /var/log/prosody/debug.log").ok();
    assert!(file.contains("debug\t"), "{file}");
}
