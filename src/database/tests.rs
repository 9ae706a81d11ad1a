//! Servers on the loopback interface that are no databases, and a shell script in place of Lua.

use super::*;
use crate::facts::prosody::Version;
use crate::lua::Secret;
use crate::tests::TestDir;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

/// PostgreSQL's request for a password, by SCRAM.
const ASKS: &[u8] = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0";

/// MariaDB's greeting.
const GREETING: &[u8] = b"\x4a\0\0\0\x0a8.0.1-MariaDB\0";

/// What the driver for PostgreSQL says, whatever the reason.
const REFUSED: &str = "printf 'refused\\nFailed to connect to database: no connection to the server\\n\\n'";

/// An end that is at once, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(5);

/// PostgreSQL's error with this SQLSTATE.
fn error(code: &str, message: &str) -> Vec<u8> {
    let fields = format!("SFATAL\0VFATAL\0C{code}\0M{message}\0\0");
    let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
    [b"E", &length[..], fields.as_bytes()].concat()
}

/// Serves connections one after the other, and keeps what each says first. Returns the port.
fn serve(mut talk: impl FnMut(usize, &mut TcpStream) + Send + 'static) -> (u16, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&heard);
    thread::spawn(move || {
        for (number, connection) in listener.incoming().enumerate() {
            let mut connection = connection.unwrap();
            talk(number, &mut connection);
            let mut all = Vec::new();
            // Until the other side closes.
            let _ = connection.read_to_end(&mut all);
            told.lock().unwrap().push(all);
        }
    });
    (port, heard)
}

/// Serves connections with these answers, the last one again and again, and says nothing more.
fn answers(answers: &[&[u8]]) -> u16 {
    let answers: Vec<Vec<u8>> = answers.iter().map(|answer| answer.to_vec()).collect();
    serve(move |number, connection| {
        let _ = connection.write_all(&answers[number.min(answers.len() - 1)]);
        let _ = connection.shutdown(Shutdown::Write);
    })
    .0
}

fn database(driver: DbDriver, port: u16) -> Database {
    Database {
        driver,
        host: Some("127.0.0.1".to_owned()),
        port: Some(port),
        name: "chat".to_owned(),
        username: Some("prosody".to_owned()),
        password: Some(Secret::new("planted-secret".to_owned())),
    }
}

/// Waits for a database, with a shell script in place of Lua. Returns the error and how long it took.
fn wait_with(lua: &str, database: &Database, limit: Duration) -> (Result<(), Failure>, Duration) {
    wait_with_refusals(lua, database, limit, REFUSAL_LIMIT)
}

/// As [`wait_with`], with another limit for refused logins.
fn wait_with_refusals(
    lua: &str,
    database: &Database,
    limit: Duration,
    refusal_limit: Duration,
) -> (Result<(), Failure>, Duration) {
    let place = TestDir::new();
    let path = place.path().join("lua");
    // Written by another process: a program that is open for writing in this one cannot be run (ETXTBSY).
    // It reads the name of the driver, and waits for the rest.
    let script = format!("#!/bin/sh\nread length; read rest\n{lua}\n");
    let mut write = Command::new("sh");
    write.args(["-c", "printf %s \"$1\" >\"$0\" && chmod 755 \"$0\""]).arg(&path).arg(script);
    assert!(write.status().unwrap().success());
    let prosody = Prosody {
        program: "prosody".into(),
        source_dir: PathBuf::new(),
        plugin_dir: PathBuf::new(),
        data_dir: None,
        version: Version::parse("test"),
        interpreter: Some(path),
        lua: None,
    };
    let user = User::current();
    let environment = [("PATH".into(), std::env::var_os("PATH").unwrap())];
    let context = LoginContext { prosody: &prosody, user: &user, environment: &environment };
    let start = Instant::now();
    let result = wait_for(database, start, limit, refusal_limit, &mut None, &context);
    (result, start.elapsed())
}

/// The exit status and the message of a wait that fails, and how long it took.
#[track_caller]
fn fails(lua: &str, database: &Database, seconds: u64) -> (u8, String, Duration) {
    let (result, took) = wait_with(lua, database, Duration::from_secs(seconds));
    let failure = result.unwrap_err();
    (failure.status.code(), failure.to_string(), took)
}

#[test]
fn a_refused_login_ends_the_start_at_once_and_only_the_driver_gets_the_password() {
    let (port, heard) = serve(|_, connection| connection.write_all(ASKS).unwrap());
    let mut database = database(DbDriver::PostgreSql, port);
    let (status, message, took) = fails(REFUSED, &database, 60);
    assert_eq!(status, 78, "{message}");
    assert!(took < AT_ONCE, "{took:?}");
    let expected =
        "the server refused the login of the user \"prosody\", and its own log says why: correct user, ";
    assert!(message.contains(expected), "{message}");
    assert!(message.starts_with("the PostgreSQL database \"chat\" on 127.0.0.1:"), "{message}");
    assert!(!message.contains("planted-secret") && !message.contains("no connection"), "{message}");

    database.password = None;
    let (status, message, _) = fails(REFUSED, &database, 60);
    assert_eq!(status, 78, "{message}");
    assert!(message.contains("of the user \"prosody\" without a password"), "{message}");

    // Each connection of ours is one startup message, and no answer to the request for a password.
    let startup = b"\0\0\0\x24\0\x03\0\0user\0prosody\0database\0chat\0\0";
    for said in &*heard.lock().unwrap() {
        assert_eq!(String::from_utf8_lossy(said), String::from_utf8_lossy(startup));
    }
    assert!(heard.lock().unwrap().len() >= 3);
}

#[test]
fn the_reason_that_a_probe_gets_is_given() {
    for (code, text, expected) in [
        ("3D000", "gone", "no such database there, or the user may not use it (gone)"),
        ("28000", "no entry", "the server does not let this user or host in (no entry)"),
        ("28P01", "no", "wrong password for the user \"prosody\", or no such user (no)"),
        ("08P01", "not without TLS", "the server refused the login (not without TLS)"),
    ] {
        let refusal = error(code, text);
        for answer in [refusal.clone(), [b"R\0\0\0\x08\0\0\0\0", &refusal[..]].concat()] {
            let database = database(DbDriver::PostgreSql, answers(&[&answer]));
            let (status, message, took) = fails(REFUSED, &database, 60);
            assert_eq!(status, 78, "{message}");
            assert!(took < AT_ONCE && message.contains(expected), "{took:?}: {message}");
            // The driver may be let in all the same: it has TLS.
            wait_with("echo ready", &database, AT_ONCE).0.unwrap();
        }
    }
    let refusal = b"\x20\0\0\0\xff\x6a\x04Host 'x' is not allowed to connect".as_slice();
    let database = database(DbDriver::MySql, answers(&[refusal]));
    let (status, message, took) = fails("printf 'refused\\nno'", &database, 60);
    assert_eq!(status, 78, "{message}");
    assert!(took < AT_ONCE, "{took:?}");
    assert!(
        message.contains("it refuses this host: Host 'x' is not allowed to connect (error 1130)"),
        "{message}"
    );
}

#[test]
fn the_reason_of_the_driver_for_mysql_is_given() {
    let port = answers(&[GREETING]);
    for (said, expected) in [
        ("Access denied for user 'x'@'y' (using password: YES)", "wrong password for the user \"prosody\""),
        ("Access denied for user 'x'@'%' to database 'chat'", "no such database there"),
        ("Unknown database 'chat'", "no such database there"),
        ("Plugin could not be loaded", "the server refused the login (Plugin could not be loaded)"),
    ] {
        let lua = format!("printf %s \"refused\nFailed to connect to database: {said}\"");
        let (status, message, took) = fails(&lua, &database(DbDriver::MySql, port), 60);
        assert_eq!(status, 78, "{message}");
        assert!(took < AT_ONCE && message.contains(expected), "{took:?}: {message}");
    }
}

#[test]
fn an_error_is_cut_and_on_one_line() {
    let text = "\u{9b}31m\n".repeat(3000);
    for database in [
        database(DbDriver::PostgreSql, answers(&[&error("XX000", &text)])),
        database(DbDriver::MySql, answers(&[GREETING])),
    ] {
        let lua = "printf refused\\\\n; head -c 12000 /dev/zero | tr '\\0' x";
        let (status, message, _) = fails(lua, &database, 60);
        assert_eq!(status, 78, "{message}");
        let length = message.chars().count();
        assert!(message.contains('…') && length < 600 && !message.contains('\n'), "{length}: {message}");
    }
}

/// Whatever it is that takes long, the limit is that of the whole.
#[test]
fn no_server_holds_a_start_beyond_the_limit() {
    let notice = b"N\0\0\0\x0bSNOTICE\0\0";
    let endless = serve(|_, connection| while connection.write_all(notice).is_ok() {}).0;
    let dripping = serve(|_, connection| {
        let asks = ASKS.iter().cycle();
        for byte in asks.skip(1) {
            if connection.write_all(&[*byte]).is_err() {
                return;
            }
            sleep(Duration::from_millis(20));
        }
    })
    .0;
    let silent = serve(|_, _| {}).0;
    let greeting = serve(|_, connection| connection.write_all(GREETING).unwrap()).0;
    let cases = [
        ("notices", DbDriver::PostgreSql, endless, "exec sleep 1000"),
        ("a driver that drips", DbDriver::PostgreSql, endless, "while printf x; do sleep 0.1; done"),
        ("drips", DbDriver::MySql, dripping, "exec sleep 1000"),
        ("silence", DbDriver::PostgreSql, silent, "exec sleep 1000"),
        ("silence", DbDriver::MySql, silent, "exec sleep 1000"),
        ("a greeting", DbDriver::MySql, greeting, "exec sleep 1000"),
    ];
    thread::scope(|scope| {
        for (what, driver, port, lua) in cases {
            scope.spawn(move || {
                let (status, message, took) = fails(lua, &database(driver, port), 1);
                assert!([69, 78].contains(&status), "{what}: {message}");
                assert!(took < Duration::from_secs(3), "{what}: {took:?}: {message}");
            });
        }
    });
}

#[test]
fn a_driver_without_an_answer_does_not_outlive_its_time() {
    let port = answers(&[ASKS]);
    let place = TestDir::new();
    let pid = place.path().join("pid");
    let lua = format!("echo $$ >'{}'; exec sleep 1000", pid.display());
    let (status, message, _) = fails(&lua, &database(DbDriver::PostgreSql, port), 2);
    assert_eq!(status, 69, "{message}");
    assert!(message.contains("did not come within 2 s: the driver gets no answer"), "{message}");
    let pid = std::fs::read_to_string(pid).unwrap();
    assert!(!Path::new("/proc").join(pid.trim()).exists());
}

/// A server that says at first that it starts, and refuses the login until it has been asked a number of times.
fn with_a_late_role(place: &TestDir, asked: usize) -> (u16, String) {
    let role = place.path().join("role");
    let lua = format!("if [ -e '{}' ]; then echo ready; else {REFUSED}; fi", role.display());
    let starting = error("57P03", "the database system is starting up");
    let port = serve(move |number, connection| {
        if number == asked {
            std::fs::write(&role, "").unwrap();
        }
        let _ = connection.write_all(if number == 0 { &starting } else { ASKS });
    })
    .0;
    (port, lua)
}

#[test]
fn a_role_that_is_made_a_moment_after_the_server_came_up_is_waited_for() {
    let place = TestDir::new();
    // The login is refused at least twice.
    let (port, lua) = with_a_late_role(&place, 5);
    let (result, took) = wait_with(&lua, &database(DbDriver::PostgreSql, port), Duration::from_secs(60));
    result.unwrap();
    assert!(place.path().join("role").exists() && took < REFUSAL_LIMIT, "{took:?}");
}

#[test]
fn a_role_that_is_never_made_ends_the_start() {
    let place = TestDir::new();
    // With what the wait leaves of the limit for refusals, and after it.
    for (limit, refusal_limit, least, most) in [(2, 60, 0, 2), (60, 2, 2, 12)] {
        let (port, lua) = with_a_late_role(&place, usize::MAX);
        let database = database(DbDriver::PostgreSql, port);
        let [limit, refusal_limit] = [limit, refusal_limit].map(Duration::from_secs);
        let (result, took) = wait_with_refusals(&lua, &database, limit, refusal_limit);
        let failure = result.unwrap_err();
        assert_eq!(failure.status.code(), 78, "{failure}");
        assert!(failure.to_string().contains("the server refused the login"), "{failure}");
        assert!((least..=most).contains(&took.as_secs()), "{took:?}");
    }
}

#[test]
fn a_check_asks_for_no_login() {
    let port = answers(&[ASKS]);
    let limit = Duration::from_secs(20);
    assert_eq!(check(&database(DbDriver::PostgreSql, port), limit), Ok(()));
    let starting = error("57P03", "the database system is starting up");
    let port = answers(&[&starting]);
    let why = check(&database(DbDriver::PostgreSql, port), limit).unwrap_err();
    assert!(why.contains("starting up"), "{why}");
    let port = answers(&[GREETING]);
    assert!(check(&database(DbDriver::PostgreSql, port), limit).unwrap_err().contains("MySQL or MariaDB"));
}

#[test]
fn the_index_of_13_0_is_found_in_the_first_page_of_a_file() {
    let place = TestDir::new();
    let file = place.path().join("prosody.sqlite");
    assert!(has_unique_rows(&file), "Prosody makes the index with the file");
    let page = |text: &str| format!("SQLite format 3\0{text:->4080}");
    for (content, expected) in [
        (page("CREATE INDEX \"prosody_index\""), false),
        (page("CREATE UNIQUE INDEX \"prosody_unique_index\""), true),
        (page("") + "prosody_unique_index", false),
    ] {
        std::fs::write(&file, &content).unwrap();
        assert_eq!(has_unique_rows(&file), expected);
    }
}
