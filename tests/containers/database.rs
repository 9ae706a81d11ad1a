//! Databases that have to be there before Prosody is: real PostgreSQL and MariaDB, and what else may answer in their
//! place.

use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::docker::{
    Answer, BOOKWORM, CLIENT, Container, Network, Observations, PATIENCE, Recipe, TRIXIE, Volume, docker,
    eventually, images, is_all_wanted, session,
};

/// The domain of the accounts, where a test has one.
const DOMAIN: &str = "chat.example";

/// The password of the user `prosody` on every server.
const PASSWORD: &str = "planted-pa55word";

/// How long an end takes that is at once: the container's own time is in it, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(10);

/// How long a server may take that makes its database first.
const FIRST_START: Duration = Duration::from_secs(90);

/// A kind of server, as Debian packages it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    PostgreSql17,
    PostgreSql15,
    MariaDb,
}

impl Kind {
    fn image(self) -> &'static str {
        match self {
            Kind::PostgreSql17 => "prosody-entrypoint-test-postgresql:17",
            Kind::PostgreSql15 => "prosody-entrypoint-test-postgresql:15",
            Kind::MariaDb => "prosody-entrypoint-test-mariadb:latest",
        }
    }

    fn driver(self) -> &'static str {
        if self == Kind::MariaDb { "MySQL" } else { "PostgreSQL" }
    }

    fn scheme(self) -> &'static str {
        if self == Kind::MariaDb { "mysql" } else { "postgresql" }
    }

    /// The driver of the other kind, and the port of this one.
    fn mistaken_for(self) -> (&'static str, &'static str) {
        if self == Kind::MariaDb { ("PostgreSQL", "3306") } else { ("MySQL", "5432") }
    }

    /// The directory of the server's socket, and what names the socket.
    fn socket(self) -> (&'static str, &'static str) {
        match self {
            Kind::MariaDb => ("/run/mysqld", "/run/mysqld/mysqld.sock"),
            _ => ("/var/run/postgresql", "/var/run/postgresql"),
        }
    }

    /// What the server says once it accepts connections; also of the one that makes the database.
    fn is_ready(self) -> &'static str {
        if self == Kind::MariaDb { "ready for connections" } else { "ready to accept connections" }
    }

    /// The server that is to be, under the name `db`.
    fn recipe(self, network: &Network) -> Recipe {
        let recipe = Recipe::new(self.image())
            .on(network, &["db"])
            .env("POSTGRES_USER", "prosody")
            .env("POSTGRES_PASSWORD_FILE", "/srv/password")
            .env("MARIADB_USER", "prosody")
            .env("MARIADB_PASSWORD_FILE", "/srv/password")
            .file("/srv/password", PASSWORD)
            // As it is by default, but with passwords at the socket too.
            .file(
                "/srv/hba",
                "local all postgres peer\nlocal all all scram-sha-256\nhost all rejected all reject\nhost all trusted all trust\n\
                 host all all all scram-sha-256\n",
            );
        match self {
            Kind::MariaDb => recipe,
            _ => recipe.command(["-c", "fsync=off", "-c", "hba_file=/srv/hba"]),
        }
    }

    /// The server, which makes its database still.
    fn start(self, network: &Network) -> Server {
        Server { kind: self, container: self.recipe(network).start() }
    }

    /// A server whose name resolves, and whose port is closed until [`Server::open`].
    fn closed(self, network: &Network) -> Server {
        let start = match self {
            Kind::MariaDb => "exec start-mariadb",
            _ => "exec start-postgresql -c fsync=off",
        };
        let script = format!("until [ -e /srv/open ]; do sleep 0.1; done; {start}");
        let recipe = self.recipe(network).with(["--entrypoint", "/bin/sh"]).command(["-c", &script]);
        Server { kind: self, container: recipe.start() }
    }
}

/// A real server.
struct Server {
    kind: Kind,
    container: Container,
}

impl Server {
    fn open(&self) {
        self.container.put("/srv/open", b"");
    }

    /// Waits until it accepts connections from elsewhere.
    #[track_caller]
    fn wait(&self) {
        eventually("the database's server", FIRST_START, || {
            let answer = match self.kind {
                Kind::MariaDb => {
                    self.container.exec(["mariadb-admin", "--no-defaults", "--host=127.0.0.1", "ping"])
                }
                _ => self.container.exec(["pg_isready", "--host=127.0.0.1"]),
            };
            let is_ready = answer.status == 0 && !answer.stderr.contains("Can't connect");
            if is_ready { Ok(()) } else { Err(format!("{}{}", answer.all(), self.container.logs())) }
        });
    }

    /// What the server's own client says, as the server's own user.
    #[track_caller]
    fn sql(&self, statement: &str) -> String {
        match self.kind {
            Kind::MariaDb => self.container.exec([
                "mariadb",
                "--no-defaults",
                "--default-character-set=utf8mb4",
                "--batch",
                "--skip-column-names",
                "prosody",
                "--execute",
                statement,
            ]),
            _ => self
                .container
                .exec(["psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-d", "prosody", "-c", statement]),
        }
        .ok()
    }

    /// Who has an account in the database on this host.
    fn accounts(&self, host: &str) -> String {
        let columns = if self.kind == Kind::MariaDb { "`user`" } else { "\"user\"" };
        self.sql(&format!(
            "SELECT DISTINCT {columns} FROM prosody WHERE store = 'accounts' AND host = '{host}'"
        ))
    }
}

/// Prosody for the domain, on that network.
fn prosody(image: &str, network: &Network) -> Recipe {
    Recipe::new(image).on(network, &[]).env("PROSODY_VIRTUAL_HOSTS", DOMAIN)
}

/// The settings of a database one by one, all data in it.
fn with_settings(recipe: Recipe, kind: Kind) -> Recipe {
    recipe
        .env("PROSODY_DEFAULT_STORAGE", "sql")
        .env("PROSODY_DB_DRIVER", kind.driver())
        .env("PROSODY_DB_HOST", "db")
        .env("PROSODY_DB_PASSWORD", PASSWORD)
}

/// Runs a container that ends by itself: with this status, not later, with these words and without Prosody.
#[track_caller]
fn ends(
    seen: &mut Observations,
    what: &str,
    recipe: Recipe,
    status: i32,
    within: Duration,
    words: &[&str],
) -> Answer {
    let container = recipe.create();
    let start = Instant::now();
    docker(["start", &container.name]).ok();
    eventually(&format!("{what}: the end"), 2 * PATIENCE, || {
        if container.runs() { Err(container.logs()) } else { Ok(()) }
    });
    let took = start.elapsed();
    let answer = container.said();
    let ended = container.inspect("{{.State.ExitCode}}");
    seen.equal(&format!("{what}: status, with {:?}", answer.all()), ended, status.to_string());
    seen.that(&format!("{what}: within {within:?}"), took <= within, took);
    for word in words {
        seen.that(&format!("{what}: {word:?}"), answer.stderr.contains(word), &answer.stderr);
    }
    seen.equal(&format!("{what}: what Prosody says"), answer.stdout.as_str(), "");
    answer
}

/// Starts Prosody and registers an account, which has to be in the database then.
#[track_caller]
fn keeps_accounts(seen: &mut Observations, what: &str, recipe: Recipe, server: &Server, host: &str) {
    let container = recipe.serve();
    let answer = container.register("alice", host, "secret");
    seen.equal(&format!("{what}: registered, with {:?}", answer.all()), answer.status, 0);
    seen.equal(&format!("{what}: accounts in the database"), server.accounts(host).as_str(), "alice");
    seen.that(&format!("{what}: without waiting"), !container.logs().contains("Waiting"), container.logs());
}

// What is up.

/// Every way of naming a database that is up. Each driver has all of them with one version of Prosody; beside that a
/// URL and a socket do, where not everything is wanted.
fn one_that_is_up_is_used_at_once(kind: Kind) {
    let network = Network::new();
    let sockets = Volume::new();
    let (directory, socket) = kind.socket();
    let server = Server { kind, container: kind.recipe(&network).volume(&sockets, directory).start() };
    server.wait();
    let scheme = kind.scheme();
    let mut seen = Observations::default();
    for (image, suite) in [(TRIXIE, "trixie"), (BOOKWORM, "bookworm")] {
        let has_all = is_all_wanted()
            || matches!((kind, image), (Kind::PostgreSql17, TRIXIE) | (Kind::MariaDb, BOOKWORM));
        let host = |form: &str| format!("{form}.{suite}.example");
        let prosody = |form: &str| {
            let image = Recipe::new(image).on(&network, &[]).volume(&sockets, directory);
            if form == "host" { image } else { image.env("PROSODY_VIRTUAL_HOSTS", &host(form)) }
        };
        let settings = |recipe: Recipe| {
            recipe.env("PROSODY_DB_DRIVER", kind.driver()).env("PROSODY_DB_PASSWORD", PASSWORD)
        };
        // The official image's variables, which leave to the driver what is not set.
        let official = |recipe: Recipe| {
            recipe
                .env("PROSODY_SQL_DRIVER", kind.driver())
                .env("PROSODY_SQL_DB", "prosody")
                .env("PROSODY_SQL_USERNAME", "prosody")
                .env("PROSODY_SQL_PASSWORD", PASSWORD)
        };
        let table = format!(
            r#"{{"driver":"{}","host":"db","database":"prosody","username":"prosody","password":"{PASSWORD}"}}"#,
            kind.driver()
        );
        let hosts = format!(
            r#"["internal.example",{{"host":"{}","options":{{"default_storage":"sql","sql":{table}}}}}]"#,
            host("host")
        );
        for (form, recipe) in [
            (
                "settings",
                settings(prosody("settings"))
                    .env("PROSODY_DEFAULT_STORAGE", "sql")
                    .env("PROSODY_DB_HOST", "db"),
            ),
            (
                "url",
                prosody("url")
                    .env("PROSODY_DATABASE_URL", &format!("{scheme}://prosody:{PASSWORD}@db/prosody")),
            ),
            (
                "store",
                settings(prosody("store"))
                    .env("PROSODY_STORAGE_ACCOUNTS", "sql")
                    .env("PROSODY_DB_HOST", "db"),
            ),
            ("official", official(prosody("official")).env("PROSODY_SQL_HOST", "db")),
            ("official-socket", official(prosody("official-socket"))),
            ("host", prosody("host").env("PROSODY_VIRTUAL_HOSTS", &hosts)),
            (
                "socket",
                settings(prosody("socket"))
                    .env("PROSODY_DEFAULT_STORAGE", "sql")
                    .env("PROSODY_DB_HOST", socket),
            ),
            (
                "socket-url",
                prosody("socket-url").env(
                    "PROSODY_DATABASE_URL",
                    &format!("{scheme}://prosody:{PASSWORD}@/prosody?host={socket}"),
                ),
            ),
        ] {
            if has_all || ["url", "socket"].contains(&form) {
                keeps_accounts(
                    &mut seen,
                    &format!("{kind:?}, {suite}, {form}"),
                    recipe,
                    &server,
                    &host(form),
                );
            }
        }
    }
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn postgresql_17_that_is_up_is_used_at_once() {
    one_that_is_up_is_used_at_once(Kind::PostgreSql17);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn postgresql_15_that_is_up_is_used_at_once() {
    one_that_is_up_is_used_at_once(Kind::PostgreSql15);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn mariadb_that_is_up_is_used_at_once() {
    one_that_is_up_is_used_at_once(Kind::MariaDb);
}

// What is not up yet.

/// The lines of ours about waiting.
fn about_waiting(log: &str) -> Vec<&str> {
    log.lines()
        .filter(|line| ["Waiting", "waiting", "is there"].iter().any(|word| line.contains(word)))
        .collect()
}

/// The time of the last line with this text, in seconds of the day, by Docker's clock.
#[track_caller]
fn time_of(container: &Container, text: &str) -> f64 {
    let log = docker(["logs", "--timestamps", &container.name]).all();
    let line = log.lines().filter(|line| line.contains(text)).max();
    let line = line.unwrap_or_else(|| panic!("no {text:?} in {log}"));
    // 2024-01-31T12:34:56.789012345Z
    let clock = line.split(['T', 'Z']).nth(1).unwrap();
    clock.split(':').fold(0.0, |time, part| time * 60.0 + part.parse::<f64>().unwrap())
}

/// How many seconds after it accepts connections a server is used.
#[track_caller]
fn late(prosody: &Container, server: &Server) -> f64 {
    let late = time_of(prosody, "is there, after") - time_of(&server.container, server.kind.is_ready());
    println!("{:?} was used {late:.3} s after it accepted connections", server.kind);
    late
}

/// Prosody is started first, as `docker compose up` may do it; the server, whose database is there, has no name then. As
/// soon as it is up it is used.
fn one_that_comes_up_late_is_used(kind: Kind) {
    let network = Network::new();
    let server = kind.start(&network);
    server.wait();
    docker(["stop", "--time", "30", &server.container.name]).ok();
    let prosody = with_settings(prosody(TRIXIE, &network), kind).start();
    // By then the pauses between tries are as long as they get.
    prosody.wait_for_log("Still waiting");
    docker(["start", &server.container.name]).ok();
    prosody.wait_until_it_serves();

    let log = prosody.logs();
    let lines = about_waiting(&log);
    let mut seen = Observations::default();
    seen.that("why it waits", lines[0].contains("the name db does not resolve"), &log);
    seen.that("one line at the end", lines.last().unwrap().contains("is there, after"), &log);
    // The promise is 0.3 s, and Docker gives the name before the interface is up: who tries to connect in between is not
    // answered before the kernel asks again, a second later. Ten times the promise tells "happens" from "never".
    let late = late(&prosody, &server);
    seen.that("used soon after it accepts connections", late < 3.0, late);
    prosody.register("alice", DOMAIN, "secret").ok();
    seen.equal("accounts in the database", server.accounts(DOMAIN).as_str(), "alice");
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn postgresql_that_comes_up_late_is_used() {
    one_that_comes_up_late_is_used(Kind::PostgreSql17);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn mariadb_that_comes_up_late_is_used() {
    one_that_comes_up_late_is_used(Kind::MariaDb);
}

/// A port that refuses at first, for longer than ten seconds.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn the_log_says_when_waiting_begins_goes_on_and_ends() {
    let network = Network::new();
    let server = Kind::PostgreSql17.closed(&network);
    let prosody = with_settings(prosody(TRIXIE, &network), server.kind).start();
    prosody.wait_for_log("Still waiting");
    server.open();
    prosody.wait_until_it_serves();
    let log = prosody.logs();
    let lines = about_waiting(&log);
    assert!((3..=4).contains(&lines.len()), "{log}");
    assert!(
        lines[0].contains("Waiting up to 60 s for the PostgreSQL database \"prosody\" on db:5432: "),
        "{log}"
    );
    assert!(lines[1].contains("Still waiting") && lines[1].contains("connection refused"), "{log}");
    assert!(
        lines.last().unwrap().contains("Now the PostgreSQL database \"prosody\" on db:5432 is there, after"),
        "{log}"
    );
    // The promise is 0.3 s.
    let late = late(&prosody, &server);
    assert!(late < 3.0, "used {late} s after it accepted connections");
    let between = time_of(&prosody, "Still waiting") - time_of(&prosody, "Waiting up to");
    assert!(between > 9.5, "{between} s between two lines: {log}");
}

/// What never comes ends the start when the time is up, with the last reason.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn what_never_comes_ends_the_start_in_time() {
    let network = Network::new();
    let strangers = strangers(&network);
    let closed = Kind::PostgreSql17.closed(&network);
    let mut seen = Observations::default();
    for (driver, host, port, reason) in [
        ("PostgreSQL", "nowhere", "", "the name nowhere does not resolve"),
        ("MySQL", "nowhere", "", "the name nowhere does not resolve"),
        ("PostgreSQL", "db", "", "connection refused"),
        ("MySQL", "db", "", "connection refused"),
        ("PostgreSQL", "/nowhere", "", "/nowhere/.s.PGSQL.5432: there is no such socket"),
        ("MySQL", "/nowhere/socket", "", "/nowhere/socket: there is no such socket"),
        ("PostgreSQL", "strangers", "1004", "closes the connection"),
        ("MySQL", "strangers", "1004", "closes the connection"),
        ("PostgreSQL", "strangers", "1005", "accepts connections and does not answer"),
        ("MySQL", "strangers", "1005", "accepts connections and does not answer"),
        ("PostgreSQL", "strangers", "1006", "the driver gets no answer"),
        ("MySQL", "strangers", "1007", "the driver gets no answer"),
        ("PostgreSQL", "strangers", "1008", "the database system is starting up"),
        ("MySQL", "strangers", "1009", "Too many connections"),
        ("PostgreSQL", "strangers", "1011", "no answer at all"),
        ("MySQL", "strangers", "1011", "no answer at all"),
    ] {
        let what = format!("{driver} on {host}:{port}");
        let recipe = prosody(TRIXIE, &network)
            .env("PROSODY_DEFAULT_STORAGE", "sql")
            .env("PROSODY_DB_DRIVER", driver)
            .env("PROSODY_DB_HOST", host)
            .env("PROSODY_DB_PORT", port)
            .env("PROSODY_DB_PASSWORD", PASSWORD)
            .env("PROSODY_DB_WAIT", "1s");
        // The container's own time, and what a try under way takes.
        let within = Duration::from_secs(6);
        let words = ["did not come within 1 s", reason, "PROSODY_DB_WAIT"];
        ends(&mut seen, &what, recipe, 69, within, &words);
    }
    assert!(closed.container.runs() && strangers.runs());
    seen.report();
}

/// The kernel accepts connections for a server that is stopped.
fn one_that_says_nothing_is_waited_for(kind: Kind) {
    let network = Network::new();
    let server = kind.start(&network);
    server.wait();
    // The engine gives up if a process of a busy machine does not freeze at once.
    eventually("the pause", PATIENCE, || {
        let answer = docker(["pause", &server.container.name]);
        if answer.status == 0 { Ok(()) } else { Err(answer.all()) }
    });
    let mut seen = Observations::default();
    let recipe = with_settings(prosody(TRIXIE, &network), kind).env("PROSODY_DB_WAIT", "2s");
    let silence = "accepts connections and does not answer";
    ends(&mut seen, "paused", recipe, 69, AT_ONCE, &["did not come within 2 s", silence]);
    let prosody = with_settings(prosody(TRIXIE, &network), kind).start();
    prosody.wait_for_log(silence);
    docker(["unpause", &server.container.name]).ok();
    prosody.wait_until_it_serves();
    seen.that("the end of the waiting", prosody.logs().contains("is there, after"), prosody.logs());
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn postgresql_that_says_nothing_is_waited_for() {
    one_that_says_nothing_is_waited_for(Kind::PostgreSql17);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn mariadb_that_says_nothing_is_waited_for() {
    one_that_says_nothing_is_waited_for(Kind::MariaDb);
}

/// Whatever the wait is for, and wherever in a try it is.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_stop_ends_the_waiting_at_once() {
    let network = Network::new();
    let _strangers = strangers(&network);
    let mut seen = Observations::default();
    for (host, port) in [("nowhere", ""), ("strangers", "1005"), ("strangers", "1006"), ("strangers", "1011")]
    {
        let container = prosody(TRIXIE, &network)
            .env("PROSODY_DEFAULT_STORAGE", "sql")
            .env("PROSODY_DB_HOST", host)
            .env("PROSODY_DB_PORT", port)
            .env("PROSODY_DB_PASSWORD", PASSWORD)
            .start();
        container.wait_for_log("Waiting up to");
        let start = Instant::now();
        docker(["stop", "--time", "20", &container.name]).ok();
        let took = start.elapsed();
        seen.that(&format!("{host}:{port}: at once"), took < Duration::from_secs(5), took);
        seen.equal(
            &format!("{host}:{port}: status"),
            container.inspect("{{.State.ExitCode}}").as_str(),
            "143",
        );
    }
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn no_time_to_wait_looks_at_nothing() {
    let network = Network::new();
    let container = with_settings(prosody(TRIXIE, &network), Kind::PostgreSql17)
        .env("PROSODY_DB_HOST", "nowhere")
        .env("PROSODY_DB_WAIT", "0")
        .start();
    container.wait_for_log("Serving");
    assert!(!container.logs().contains("Waiting"), "{}", container.logs());
}

// What waiting does not mend.

/// A container of things that are no database.
#[track_caller]
fn strangers(network: &Network) -> Container {
    let container = Recipe::new(CLIENT)
        .on(network, &["strangers"])
        .file("/strangers.py", include_bytes!("../database/strangers.py"))
        .command(["python3", "/strangers.py"])
        .start();
    container.wait_for_log("ready");
    container
}

fn what_is_wrong_is_told_at_once(kind: Kind) {
    let network = Network::new();
    let server = kind.start(&network);
    server.wait();
    let password = |text: &str| format!("{}://prosody:{text}@db/prosody", kind.scheme());
    let (other, port) = kind.mistaken_for();
    let answers = format!(
        "{} answers there, and not {other}",
        if kind == Kind::MariaDb { "MySQL or MariaDB" } else { "PostgreSQL" }
    );
    let mistaken = format!("{}://prosody:{PASSWORD}@db:{port}/prosody", other.to_lowercase());
    // PostgreSQL's driver loses the reason.
    let [wrong, unknown, nowhere, none] = match kind {
        Kind::MariaDb => [
            "wrong password for the user \"prosody\"",
            "the user \"nobody\"",
            "no such database there",
            "it asks for a password, and there is none",
        ],
        _ => [
            "refused the login of the user \"prosody\", and its own log says why",
            "refused the login of the user \"nobody\", and its own log says why",
            "refused the login of the user \"prosody\", and its own log says why",
            "refused the login of the user \"prosody\" without a password, and its own log says why",
        ],
    };
    let all = [wrong, unknown, nowhere, none, &answers];
    let mut seen = Observations::default();
    for (what, settings, expected) in [
        ("wrong password", &[("DB_PASSWORD", "wrong")][..], wrong),
        ("wrong password in the URL", &[("DATABASE_URL", &password("wrong"))], wrong),
        ("unknown user", &[("DB_USERNAME", "nobody"), ("DB_PASSWORD", PASSWORD)], unknown),
        ("unknown database", &[("DB_NAME", "nowhere"), ("DB_PASSWORD", PASSWORD)], nowhere),
        ("no password", &[("DB_NAME", "prosody")], none),
        ("the other driver", &[("DB_DRIVER", other), ("DB_PORT", port), ("DB_PASSWORD", PASSWORD)], &answers),
        ("the other scheme", &[("DATABASE_URL", &mistaken)], &answers),
    ] {
        let mut recipe = prosody(TRIXIE, &network).env("PROSODY_DB_WAIT", "60s");
        let is_url = settings[0].0 == "DATABASE_URL";
        if !is_url {
            recipe = recipe
                .env("PROSODY_DEFAULT_STORAGE", "sql")
                .env("PROSODY_DB_DRIVER", kind.driver())
                .env("PROSODY_DB_HOST", "db");
        }
        for (name, value) in settings {
            recipe = recipe.env(&format!("PROSODY_{name}"), value);
        }
        let what = format!("{kind:?}: {what}");
        let answer = ends(&mut seen, &what, recipe, 78, AT_ONCE, &[expected]);
        for other in all.iter().filter(|other| **other != expected) {
            seen.that(&format!("{what}: not {other:?}"), !answer.stderr.contains(other), &answer.stderr);
        }
        seen.that(&format!("{what}: no password"), !answer.stderr.contains(PASSWORD), &answer.stderr);
        seen.that(
            &format!("{what}: one line"),
            answer.stderr.matches(" error\t").count() == 1,
            &answer.stderr,
        );
    }
    // On Prosody 0.12 too.
    let recipe = with_settings(prosody(BOOKWORM, &network), kind).env("PROSODY_DB_PASSWORD", "wrong");
    ends(&mut seen, &format!("{kind:?}: wrong password, 0.12"), recipe, 78, AT_ONCE, &[wrong]);
    if kind != Kind::MariaDb {
        server.sql("CREATE ROLE rejected LOGIN");
        server.sql("CREATE ROLE trusted LOGIN");
        server.sql("CREATE DATABASE closed ALLOW_CONNECTIONS false");
        for (user, database, expected) in [
            ("rejected", "prosody", "the server does not let this user or host in"),
            (
                "trusted",
                "closed",
                "the server refused the login (database \"closed\" is not currently accepting",
            ),
        ] {
            let recipe = with_settings(prosody(TRIXIE, &network), kind);
            let recipe = recipe.env("PROSODY_DB_USERNAME", user).env("PROSODY_DB_NAME", database);
            ends(&mut seen, &format!("{kind:?}: {user}"), recipe, 78, AT_ONCE, &[expected]);
        }
    }
    // What the sentences say: user, password, database and driver as they are, or the database made.
    keeps_accounts(&mut seen, "all correct", with_settings(prosody(TRIXIE, &network), kind), &server, DOMAIN);
    server.sql(match kind {
        Kind::MariaDb => "CREATE DATABASE nowhere; GRANT ALL ON nowhere.* TO prosody",
        _ => "CREATE DATABASE nowhere OWNER prosody",
    });
    drop(with_settings(prosody(TRIXIE, &network), kind).env("PROSODY_DB_NAME", "nowhere").serve());
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn what_is_wrong_with_postgresql_17_is_told_at_once() {
    what_is_wrong_is_told_at_once(Kind::PostgreSql17);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn what_is_wrong_with_postgresql_15_is_told_at_once() {
    if is_all_wanted() {
        what_is_wrong_is_told_at_once(Kind::PostgreSql15);
    }
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn what_is_wrong_with_mariadb_is_told_at_once() {
    what_is_wrong_is_told_at_once(Kind::MariaDb);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn what_is_no_database_is_told_at_once() {
    let network = Network::new();
    let _strangers = strangers(&network);
    let no_database = "something that is no database of this kind answers there";
    let mut seen = Observations::default();
    for (driver, port, expected) in [
        ("PostgreSQL", "80", "a web server answers there"),
        ("MySQL", "80", "a web server answers there"),
        ("PostgreSQL", "25", no_database),
        ("MySQL", "25", no_database),
        ("PostgreSQL", "1001", no_database),
        ("MySQL", "1001", no_database),
        ("PostgreSQL", "1002", no_database),
        ("MySQL", "1002", no_database),
        ("PostgreSQL", "1003", no_database),
        ("MySQL", "1003", no_database),
        ("PostgreSQL", "1007", "MySQL or MariaDB answers there, and not PostgreSQL"),
        ("MySQL", "1006", "PostgreSQL answers there, and not MySQL"),
        ("MySQL", "1010", "it refuses this host: Host '172.17.0.9' is not allowed"),
    ] {
        let recipe = prosody(TRIXIE, &network)
            .env("PROSODY_DEFAULT_STORAGE", "sql")
            .env("PROSODY_DB_DRIVER", driver)
            .env("PROSODY_DB_HOST", "strangers")
            .env("PROSODY_DB_PORT", port)
            .env("PROSODY_DB_PASSWORD", PASSWORD);
        ends(&mut seen, &format!("{driver} on {port}"), recipe, 78, AT_ONCE, &[expected]);
    }
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_driver_that_is_missing_is_named() {
    let network = Network::new();
    let mut seen = Observations::default();
    for (kind, file, package) in [
        (Kind::PostgreSql17, "dbd/postgresql.so", "lua-dbi-postgresql"),
        (Kind::MariaDb, "dbd/mysql.so", "lua-dbi-mysql"),
    ] {
        let server = kind.start(&network);
        server.wait();
        for &image in images() {
            let script = format!("rm /usr/lib/*/lua/*/{file} && exec prosody-entrypoint prosody -F");
            let recipe = with_settings(prosody(image, &network), kind)
                .with(["--entrypoint", "/bin/sh"])
                .command(["-c", &script]);
            ends(&mut seen, &format!("{image} without {file}"), recipe, 78, AT_ONCE, &[package]);
        }
    }
    seen.report();
}

// Passwords.

/// A text as it has to stand in a URL.
fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").unwrap();
        }
        encoded
    })
}

/// The driver of one PostgreSQL is that of the other: a server of another version has one password, where not
/// everything is wanted.
fn any_password_works(kind: Kind) {
    let printable: String = (' '..='~').collect();
    let long = "0123456789".repeat(100);
    let network = Network::new();
    let server = kind.start(&network);
    server.wait();
    let mut seen = Observations::default();
    let passwords = [
        ("printable", printable.as_str()),
        ("spaces", "  spaces around  "),
        ("other-letters", "пароль Übergröße 密码 🦀"),
        ("quotes", r#"'"`quoted`"'\"#),
        ("percent", "%41%zz%%@:/?#"),
        ("long", &long),
    ];
    for (number, (name, password)) in passwords.into_iter().enumerate() {
        if kind == Kind::PostgreSql15 && name != "printable" && !is_all_wanted() {
            continue;
        }
        let quoted = password.replace('\'', "''");
        server.sql(&match kind {
            Kind::MariaDb => {
                format!("ALTER USER prosody@'%' IDENTIFIED BY '{}'", quoted.replace('\\', r"\\"))
            }
            _ => format!("ALTER ROLE prosody PASSWORD '{quoted}'"),
        });
        let url = format!("{}://prosody:{}@db/prosody", kind.scheme(), percent_encoded(password));
        let images = if name == "printable" { &[TRIXIE, BOOKWORM][..] } else { &[TRIXIE] };
        for image in images {
            let suite = if *image == TRIXIE { "trixie" } else { "bookworm" };
            for is_url in [false, true] {
                // Of the two drivers, one has a password in the settings and the other one in a URL.
                let is_its_turn = is_url == ((number % 2 == 0) == (kind == Kind::MariaDb));
                if name != "printable" && !is_its_turn && !is_all_wanted() {
                    continue;
                }
                let host = format!("{name}.{}.{suite}.example", if is_url { "url" } else { "settings" });
                let recipe = if is_url {
                    prosody(image, &network).env("PROSODY_DATABASE_URL", &url)
                } else {
                    with_settings(prosody(image, &network), kind).env("PROSODY_DB_PASSWORD", password)
                };
                let recipe = recipe.env("PROSODY_VIRTUAL_HOSTS", &host);
                keeps_accounts(&mut seen, &format!("{kind:?}, {host}"), recipe, &server, &host);
            }
        }
    }
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn any_password_of_postgresql_17_works() {
    any_password_works(Kind::PostgreSql17);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn any_password_of_postgresql_15_works() {
    any_password_works(Kind::PostgreSql15);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn any_password_of_mariadb_works() {
    any_password_works(Kind::MariaDb);
}

/// Everything that the Lua that logs in is given by us is looked at, and everything that we say.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn the_password_is_in_no_log_of_ours_nor_where_others_see_it() {
    // In place of Lua, a program that writes down its arguments and its environment and becomes Lua.
    let script = r#"
        mv /usr/bin/lua5.4 /usr/bin/lua5.4.real
        cat >/usr/bin/lua5.4 <<'END'
#!/bin/sh
{ tr '\0' '\n' </proc/$$/cmdline; tr '\0' '\n' </proc/$$/environ; } >/tmp/call.$$
exec /usr/bin/lua5.4.real "$@"
END
        chmod 0755 /usr/bin/lua5.4
        exec prosody-entrypoint prosody -F
    "#;
    let network = Network::new();
    let mut seen = Observations::default();
    for kind in [Kind::PostgreSql17, Kind::MariaDb] {
        let server = kind.start(&network);
        server.wait();
        let url = format!("{}://prosody:{PASSWORD}@db/prosody", kind.scheme());
        for &image in images() {
            for (form, recipe) in [
                ("settings", with_settings(prosody(image, &network), kind)),
                ("url", prosody(image, &network).env("PROSODY_DATABASE_URL", &url)),
            ] {
                let what = format!("{kind:?}, {image}, {form}");
                let container = recipe
                    .env("PROSODY_ENTRYPOINT_LOG", "debug")
                    .with(["--entrypoint", "/bin/sh"])
                    .command(["-ec", script])
                    .serve();
                let calls = container.root("cat /tmp/call.*").ok();
                seen.that(&format!("{what}: the login was seen"), calls.contains("DBI.Connect"), &calls);
                seen.that(&format!("{what}: arguments, environment"), !calls.contains(PASSWORD), &calls);
                let ours = container.said().stderr;
                seen.that(&format!("{what}: our log"), !ours.contains(PASSWORD), &ours);
            }
            let wrong = with_settings(prosody(image, &network), kind)
                .env("PROSODY_DB_USERNAME", "nobody")
                .env("PROSODY_ENTRYPOINT_LOG", "debug");
            let answer = ends(&mut seen, &format!("{kind:?}, {image}, refused"), wrong, 78, AT_ONCE, &[]);
            let ours = &answer.stderr;
            seen.that(&format!("{kind:?}, {image}, refused: our log"), !ours.contains(PASSWORD), ours);
        }
    }
    seen.report();
}

// A database that goes away.

fn one_that_goes_away_harms_nothing_of_ours(kind: Kind) {
    let network = Network::new();
    let server = kind.start(&network);
    server.wait();
    let prosody = prosody(TRIXIE, &network).with(["--network-alias", DOMAIN]);
    let prosody = with_settings(prosody, kind).serve();
    prosody.register_accounts(DOMAIN);
    let ours =
        "readlink /run/prosody/current; cd /run/prosody/current/ && find . -type f -exec md5sum {} + | sort";
    let ours = || prosody.root(ours).ok();
    let before = ours();
    let is_healthy = || prosody.exec(["prosody-entrypoint", "healthcheck"]).status == 0;
    let mut seen = Observations::default();

    docker(["stop", "--time", "30", &server.container.name]).ok();
    seen.that("healthy without its database", is_healthy(), prosody.logs());
    // Something that Prosody needs its database for.
    let login = session(&network, DOMAIN, &["login"]);
    seen.that("no login without the database", login.status != 0, &login);
    seen.that("healthy still", is_healthy(), prosody.logs());
    let mark = prosody.mark();
    prosody.signal("HUP");
    eventually("the reload", PATIENCE, || {
        let said = prosody.since(mark);
        if said.stderr.contains("Reloading") { Ok(()) } else { Err(said.all()) }
    });
    seen.equal("the generation", ours(), before.clone());
    seen.that("healthy after a reload", is_healthy(), prosody.logs());

    docker(["start", &server.container.name]).ok();
    server.wait();
    // A client that gets no answer gives up after a long time of its own.
    eventually("Prosody uses it again", 3 * PATIENCE, || {
        let login = session(&network, DOMAIN, &["login"]);
        if login.status == 0 || !prosody.runs() {
            Ok(())
        } else {
            Err(format!("{}{}{}", login.all(), prosody.logs(), server.container.logs()))
        }
    });
    if prosody.runs() {
        seen.equal("the generation at last", ours(), before);
    } else {
        // With LuaDBI's driver for PostgreSQL, Prosody crashes now and then when it connects again. A container's restart
        // policy is for that.
        assert_eq!(
            (kind, &*prosody.inspect("{{.State.ExitCode}}")),
            (Kind::PostgreSql17, "139"),
            "{}",
            prosody.logs()
        );
        docker(["start", &prosody.name]).ok();
        prosody.wait_until_it_serves();
        let login = session(&network, DOMAIN, &["login"]);
        seen.equal(&format!("a login after a restart: {}", login.all()), login.status, 0);
    }
    seen.that("healthy at last", is_healthy(), prosody.logs());
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn postgresql_that_goes_away_harms_nothing_of_ours() {
    one_that_goes_away_harms_nothing_of_ours(Kind::PostgreSql17);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn mariadb_that_goes_away_harms_nothing_of_ours() {
    one_that_goes_away_harms_nothing_of_ours(Kind::MariaDb);
}

/// A database counts until the server was ready for the first time. The JSON tells of it afterwards, too.
fn readiness_needs_it_the_first_time(kind: Kind) {
    let network = Network::new();
    let server = kind.start(&network);
    server.wait();
    let prosody = with_settings(prosody(TRIXIE, &network), kind).serve();
    let ready = || prosody.exec(["prosody-entrypoint", "healthcheck", "--ready"]);
    let databases = || {
        let answer = prosody.exec(["prosody-entrypoint", "healthcheck", "--ready", "--json"]);
        let json: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
        (answer.status, json["databases"][0]["answers"].clone(), json["was_ready"].clone())
    };
    let mut seen = Observations::default();
    docker(["pause", &server.container.name]).ok();
    let answer = ready();
    let name = format!("the {} database \"prosody\" on db:", kind.driver());
    // Prosody hangs, too, if it asks just then.
    let is_told = answer.stderr.contains(&name) || answer.stderr.contains("Prosody does not answer");
    seen.that("a database that hangs", answer.status == 1 && is_told, &answer);
    docker(["unpause", &server.container.name]).ok();
    docker(["stop", "--time", "30", &server.container.name]).ok();
    let answer = ready();
    seen.that("without its database", answer.status == 1 && answer.stderr.contains(&name), &answer);
    seen.equal("without it", databases(), (1, false.into(), false.into()));

    docker(["start", &server.container.name]).ok();
    server.wait();
    seen.equal("with it", ready().status, 0);
    seen.equal("with it", databases(), (0, true.into(), true.into()));

    docker(["stop", "--time", "30", &server.container.name]).ok();
    seen.equal("without it again", ready().status, 0);
    seen.equal("without it again", databases(), (0, false.into(), true.into()));
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn readiness_needs_postgresql_the_first_time() {
    readiness_needs_it_the_first_time(Kind::PostgreSql17);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn readiness_needs_mariadb_the_first_time() {
    readiness_needs_it_the_first_time(Kind::MariaDb);
}

// SQLite.

#[test]
#[ignore = "needs Docker and the images: make test"]
fn an_sqlite_file_that_cannot_be_written_ends_the_start() {
    let volume = Volume::new();
    volume
        .prepare(TRIXIE, "cd /volume && touch roots own && mkdir directory && chown 999:999 . own directory");
    let mut seen = Observations::default();
    let missing = &["/nowhere cannot be written", "No such file or directory", "make that directory"][..];
    let denied = &["/srv cannot be written", "Permission denied", "let Prosody's user write there"];
    let cases = [
        ("a missing folder", "", "/nowhere/prosody.sqlite", missing),
        ("a folder that is root's", "", "/srv/prosody.sqlite", denied),
        (
            "a file that is root's",
            ":/data",
            "/data/roots",
            &["/data/roots cannot be written", "Permission denied"],
        ),
        (
            "a folder in place of the file",
            ":/data",
            "/data/directory",
            &["/data/directory cannot be written"],
        ),
        (
            "a read-only mount",
            ":/data:ro",
            "/data/prosody.sqlite",
            &["/data cannot be written", "Read-only file system", "mount a volume there"],
        ),
        (
            "a file on a read-only mount",
            ":/data:ro",
            "/data/own",
            &["/data/own cannot be written", "Read-only"],
        ),
    ];
    for (number, (what, mount, path, words)) in cases.into_iter().enumerate() {
        let host = format!(
            r#"[{{"host":"{DOMAIN}","options":{{"default_storage":"sql","sql":{{"driver":"SQLite3","database":"{path}"}}}}}}]"#
        );
        let forms = [
            ("settings", &[("DEFAULT_STORAGE", "sql"), ("DB_DRIVER", "SQLite3"), ("DB_NAME", path)][..]),
            (
                "store",
                &[("STORAGE_ARCHIVE", "sql"), ("DB_DRIVER", "SQLite3"), ("DB_NAME", path), ("DB_WAIT", "0")],
            ),
            ("url", &[("DATABASE_URL", &format!("sqlite://{path}"))]),
            ("host", &[("VIRTUAL_HOSTS", &host)]),
        ];
        // They take turns.
        let is_its_turn = |(other, _): &(usize, _)| is_all_wanted() || (number + other) % 2 == 0;
        for (_, (form, variables)) in forms.into_iter().enumerate().filter(is_its_turn) {
            let mut recipe = Recipe::new(TRIXIE).env("PROSODY_VIRTUAL_HOSTS", DOMAIN);
            for (name, value) in variables {
                recipe = recipe.env(&format!("PROSODY_{name}"), value);
            }
            let mount = format!("{}{mount}", volume.name);
            if mount != volume.name {
                recipe = recipe.with(["--volume", &mount]);
            }
            ends(&mut seen, &format!("{what}, {form}"), recipe, 73, AT_ONCE, words);
        }
    }
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn an_sqlite_file_that_can_be_written_is_used() {
    let mut seen = Observations::default();
    for &image in images() {
        for (name, value, file) in [
            ("PROSODY_DEFAULT_STORAGE", "sqlite", "/var/lib/prosody/prosody.sqlite"),
            ("PROSODY_DATABASE_URL", "sqlite:///var/lib/prosody/other", "/var/lib/prosody/other"),
            ("PROSODY_STORAGE_ACCOUNTS", "sqlite", "/var/lib/prosody/prosody.sqlite"),
        ] {
            let what = format!("{image}, {name}");
            let container = Recipe::new(image).env("PROSODY_VIRTUAL_HOSTS", DOMAIN).env(name, value).serve();
            container.register("alice", DOMAIN, "secret").ok();
            let files = container
                .root(&format!("stat -c %u {file}; ls -A /var/lib/prosody; cat {file}* | grep -c alice"));
            seen.equal(&format!("{what}: the account in it, {}", files.all()), files.status, 0);
            seen.that(&format!("{what}: whose it is"), files.stdout.starts_with("999\n"), &files);
            seen.that(&format!("{what}: nothing else is left"), !files.stdout.contains("tmp"), &files);
        }
    }
    seen.report();
}

// The names of stores.

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_store_that_nobody_knows_is_a_warning() {
    let network = Network::new();
    let server = Kind::PostgreSql17.start(&network);
    server.wait();
    let container = with_settings(prosody(TRIXIE, &network), server.kind)
        .env("PROSODY_DEFAULT_STORAGE", "internal")
        .env("PROSODY_STORAGE_ARCHIV", "sql")
        .env("PROSODY_STORAGE_ACCOUNTS", "sql")
        .serve();
    let log = container.logs();
    let expected = "PROSODY_STORAGE_ARCHIV: neither Prosody nor a module of its collection has a store `archiv`; \
                    did you mean `archive`?";
    assert!(log.lines().any(|line| line.contains(" warn\t") && line.ends_with(expected)), "{log}");
    assert!(!log.contains("PROSODY_STORAGE_ACCOUNTS"), "{log}");
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_reader_of_an_sqlite_file_disturbs_nobody() {
    const READ: &str = "import sqlite3, time\n\
        database = sqlite3.connect('/data/prosody.sqlite')\n\
        database.execute('BEGIN')\n\
        print('the accounts:', database.execute('SELECT COUNT(*) FROM prosody').fetchone(), flush=True)\n\
        time.sleep(1000)\n";
    for image in images() {
        let (network, data) = (Network::new(), Volume::new());
        let server = Recipe::new(image)
            .env("PROSODY_DOMAIN", DOMAIN)
            .env("PROSODY_DEFAULT_STORAGE", "sqlite")
            .on(&network, &[DOMAIN])
            .volume(&data, "/var/lib/prosody")
            .serve();
        server.register_accounts(DOMAIN);
        let reader = Recipe::new(CLIENT)
            .with(["--user", "999:999"])
            .volume(&data, "/data")
            .command(["python3", "-c", READ])
            .start();
        reader.wait_for_log("the accounts: ");
        let both = session(&network, DOMAIN, &["login", "message", "archive"]);
        assert_eq!(both.status, 0, "{image}: {}\n{}", both.all(), server.logs());
        assert!(!server.logs().contains("write-ahead"), "{}", server.logs());
    }
}
