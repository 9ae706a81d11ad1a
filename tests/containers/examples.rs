//! The examples, run as their readers would run them.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use serde_json::Value;

use crate::browser::Visitor;
use crate::docker::{
    Answer, BOOKWORM, Dialogue, Observations, PATIENCE, Recipe, TRIXIE, client, docker, eventually,
    is_all_wanted, require, unique, wait_until_it_serves,
};
use crate::wire::{DEADLINE, Wire};

/// One example, from a copy of `examples` in which nothing was started yet, under a project name and on an address of its
/// own.
struct Example {
    name: &'static str,
    examples: PathBuf,
    project: String,
    address: &'static str,
    domain: &'static str,
}

impl Example {
    fn new(name: &'static str, address: &'static str) -> Self {
        require(TRIXIE);
        let project = unique(name);
        let examples = env::temp_dir().join(&project);
        let copied = Command::new("cp")
            .args(["-R", concat!(env!("CARGO_MANIFEST_DIR"), "/examples")])
            .arg(&examples)
            .status();
        assert!(copied.is_ok_and(|status| status.success()), "the examples cannot be copied");
        let example = Example { name, examples, project, address, domain: "localhost" };
        let _ = fs::remove_dir_all(example.file("secrets"));
        example
    }

    fn file(&self, path: &str) -> PathBuf {
        self.examples.join(self.name).join(path)
    }

    /// What `make up` and `make down` run.
    fn server(&self, arguments: &[&str]) -> Answer {
        let (verb, options) = arguments.split_first().unwrap();
        Command::new(self.examples.join("server"))
            .args([verb, self.name])
            .args(options)
            .env("COMPOSE_PROJECT_NAME", &self.project)
            .env("DOMAIN", self.domain)
            .env("PUBLISH", self.address)
            .output()
            .expect("the script runs")
            .into()
    }

    #[track_caller]
    fn up(&self) -> String {
        let answer = self.server(&["up"]);
        assert_eq!(answer.status, 0, "{}", answer.all());
        answer.stdout
    }

    fn container(&self, service: &str) -> String {
        let project = format!("label=com.docker.compose.project={}", self.project);
        let service = format!("label=com.docker.compose.service={service}");
        docker(["ps", "--quiet", "--filter", &project, "--filter", &service]).ok()
    }

    fn volumes(&self) -> String {
        let filter = format!("label=com.docker.compose.project={}", self.project);
        docker(["volume", "ls", "--quiet", "--filter", &filter]).ok()
    }

    /// Runs the client's steps as two accounts, beside the server.
    fn session(&self, accounts: [&str; 2], steps: &[&str]) -> Answer {
        client(&format!("container:{}", self.container("prosody")), "localhost", accounts, steps)
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        self.server(&["down", "--volumes"]);
        let _ = fs::remove_dir_all(&self.examples);
    }
}

fn value<'a>(printed: &'a str, name: &str) -> &'a str {
    let line = printed.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no line {name:?} in:\n{printed}")).trim()
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn what_make_up_prints_is_two_accounts_that_write_to_each_other() {
    let example = Example::new("compose", "127.0.0.77");

    let printed = example.up();
    assert_eq!(value(&printed, "JID:"), "admin@localhost");
    assert_eq!(value(&printed, "connect:"), "127.0.0.77:5222");
    let account = format!("admin:{}", value(&printed, "password:"));
    let container = example.container("prosody");
    // Somebody else opens the link in a browser and makes the second account. Both write to each other.
    let link = value(&printed, "invitation:");
    assert!(link.starts_with("https://localhost:5281/invites_page?"), "{printed}");
    let mut seen = Observations::default();
    let mut visitor = Visitor::new(&format!("container:{container}"), &container, &["localhost"]);
    visitor.visit(&mut seen, &format!("open {link}"), "up-invitation");
    visitor.visit(&mut seen, "follow register an account manually", "up-register");
    visitor.fill(&[("user", "second"), ("password", "correct-horse")]);
    let page = visitor.visit(&mut seen, "follow Submit", "up-registered");
    assert!(page.contains("You have created an account on localhost"), "{page}");
    seen.report();
    for accounts in [[account.as_str(), "second:correct-horse"], ["second:correct-horse", account.as_str()]] {
        let answer = example.session(accounts, &["login", "message"]);
        assert_eq!(answer.status, 0, "{}", answer.all());
    }

    // Again, with nothing changed between: the same container, and a way to a new password.
    let printed = example.up();
    assert!(value(&printed, "password:").contains("prosodyctl passwd admin@localhost"), "{printed}");
    assert_eq!(example.container("prosody"), container);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn messages_in_postgresql_survive_down_and_up() {
    let example = Example::new("postgresql", "127.0.0.78");
    messages_survive_down_and_up(
        &example,
        &["psql", "--dbname=prosody", "--tuples-only", "--no-align", "--command"],
    );
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn messages_in_mariadb_survive_down_and_up() {
    let example = Example::new("mariadb", "127.0.0.79");
    let mariadb = ["mariadb", "--no-defaults", "--database=prosody", "--skip-column-names", "--execute"];
    messages_survive_down_and_up(&example, &mariadb);
}

/// `sql` is the command in the database's container that takes a query.
fn messages_survive_down_and_up(example: &Example, sql: &[&str]) {
    let text = unique("message");
    // As bob's and as alice's own.
    let is_in_the_database = || {
        let database = example.container("database");
        let query = format!("SELECT COUNT(*) FROM prosodyarchive WHERE value LIKE '%{text}%'");
        let command = ["exec", &database].into_iter().chain(sql.iter().copied()).chain([query.as_str()]);
        assert_eq!(docker(command).ok(), "2");
    };

    let printed = example.up();
    assert_eq!(value(&printed, "JID:"), "admin@localhost");
    assert_eq!(value(&printed, "connect:"), format!("{}:5222", example.address));
    let admin = format!("admin:{}", value(&printed, "password:"));
    let alice = "alice:secret-a";
    let prosody = example.container("prosody");
    docker(["exec", &prosody, "prosodyctl", "register", "alice", "localhost", "secret-a"]).ok();
    let answer = example.session([alice, &admin], &["login", "message", "archive", "--text", &text]);
    assert_eq!(answer.status, 0, "{}", answer.all());
    is_in_the_database();

    // The password: on this machine in a folder that is closed to others, and in nothing that Docker shows.
    let mode = |path| fs::metadata(example.file(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("secrets"), mode("secrets/database-password")), (0o700, 0o444));
    let password = fs::read_to_string(example.file("secrets/database-password")).unwrap();
    for service in ["prosody", "database"] {
        let container = example.container(service);
        let inspected = docker(["inspect", &container]).ok();
        assert!(!inspected.contains(password.trim()), "{inspected}");
        assert!(inspected.contains(r#""ReadonlyRootfs": true"#), "{inspected}");
        eventually(&format!("{service} is healthy"), PATIENCE, || {
            match docker(["inspect", "--format", "{{json .State.Health}}", &container]).ok() {
                health if health.contains(r#""Status":"healthy""#) => Ok(()),
                health => Err(health),
            }
        });
    }

    // Again, with nothing changed between: the same containers, and a way to a new password.
    let printed = example.up();
    assert!(value(&printed, "password:").contains("prosodyctl passwd admin@localhost"), "{printed}");
    assert_eq!(example.container("prosody"), prosody);

    // The data and the password stay, and are used.
    let down = example.server(&["down"]);
    assert_eq!(down.status, 0, "{}", down.all());
    assert_eq!((example.container("prosody"), example.container("database")), (String::new(), String::new()));
    let kept = example.volumes();
    assert_eq!(kept.lines().count(), 2, "{kept}");
    let line = format!("make down EXAMPLE={} VOLUMES=1 removes them", example.name);
    assert!(
        down.stderr.contains(&line) && kept.lines().all(|volume| down.stderr.contains(volume)),
        "{down:?}"
    );
    let printed = example.up();
    assert!(value(&printed, "password:").contains("set already"), "{printed}");
    let answer = example.session([alice, &admin], &["login", "archive", "--text", &text]);
    assert_eq!(answer.status, 0, "{}", answer.all());
    is_in_the_database();

    // A server that is there before its database.
    let (prosody, database) = (example.container("prosody"), example.container("database"));
    docker(["stop", &prosody, &database]).ok();
    docker(["start", &prosody]).ok();
    eventually("the server waits", PATIENCE, || {
        let logs = docker(["logs", &prosody]).all();
        let after = logs.rsplit("Serving localhost").next().unwrap();
        if after.contains("Waiting up to 60 s") { Ok(()) } else { Err(logs) }
    });
    docker(["start", &database]).ok();
    wait_until_it_serves(&prosody);
    let answer = example.session([alice, &admin], &["login", "archive", "--text", &text]);
    assert_eq!(answer.status, 0, "{}", answer.all());

    // Volumes without the password that they were made with are no start that fails later, nor data that is gone.
    example.server(&["down"]).ok();
    fs::rename(example.file("secrets/database-password"), example.file("kept")).unwrap();
    let answer = example.server(&["up"]);
    assert_ne!(answer.status, 0, "{answer:?}");
    assert!(answer.stderr.contains("restore the file"), "{answer:?}");
    assert_eq!(example.volumes(), kept);

    let down = example.server(&["down", "--volumes"]);
    assert_eq!((down.status, example.volumes()), (0, String::new()), "{}", down.all());
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn everything_is_on_port_443_of_nginx() {
    everything_is_on_port_443("nginx", "127.0.0.83", 50);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn everything_is_on_port_443_of_haproxy() {
    // Both pass TLS through, and 50 MB take half a minute.
    everything_is_on_port_443("haproxy", "127.0.0.82", if is_all_wanted() { 50 } else { 2 });
}

/// Uploads a file of so many MiB.
fn everything_is_on_port_443(name: &'static str, address: &'static str, upload: u64) {
    let mut example = Example::new(name, address);
    example.domain = "chat.example";
    let printed = example.up();
    assert_eq!(value(&printed, "connect:"), format!("{address}:5222"));
    let invitation = value(&printed, "invitation:");
    assert!(invitation.starts_with("https://chat.example/invites_page?"), "{printed}");
    let (prosody, proxy) = (example.container("prosody"), example.container("proxy"));
    docker(["exec", &prosody, "prosodyctl", "register", "alice", "chat.example", "secret-a"]).ok();

    // Beside the containers, where each has an address of its own.
    let network = format!("{}_default", example.project);
    let address_of = |container: &str| {
        docker(["inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", container])
            .ok()
    };
    let mut client = Dialogue::of_client(&network, "at_443.py");
    let mut ask = |request: &str| {
        let answer = client.request(request).and_then(|()| client.answer());
        let logs = || docker(["logs", &prosody]).all() + &docker(["logs", &proxy]).all();
        answer.unwrap_or_else(|reason| panic!("{request}: {reason}\n{}", logs()))
    };
    let proxys = address_of(&proxy);
    let own = ask(&format!("at {proxys} chat.example alice:secret-a"));
    assert_ne!(own, proxys);
    assert_eq!(ask("login"), "TLSv1.3");
    let sessions = docker(["exec", &prosody, "prosodyctl", "shell", "c2s:show(nil, 'jid ip')"]).ok();
    assert!(sessions.contains("alice@chat.example/443") && sessions.contains(&own), "{own}: {sessions}");
    let upload = format!("upload {}", upload * 1024 * 1024);
    for request in ["server", "websocket", "bosh", "host-meta", &upload] {
        ask(request);
    }
    let page = ask(&format!("page {invitation}"));
    assert!(page.starts_with("200 "), "{page}");
    let log = docker(["logs", &prosody]).all();
    for service in ["c2s_direct_tls", "s2s_direct_tls", "https"] {
        let passed_on = |line: &str| {
            line.contains(&format!("Client {own}, port "))
                && line.contains(&format!("{proxys} is passed on to {service}"))
        };
        assert!(log.lines().any(passed_on), "{service}, {own}, {proxys}:\n{log}");
    }
    assert!(!log.contains("traceback"), "{log}");

    eventually("the proxy is healthy", PATIENCE, || {
        match docker(["inspect", "--format", "{{.State.Health.Status}}", &proxy]).ok() {
            health if health == "healthy" => Ok(()),
            health => Err(health),
        }
    });
    let users = docker(["exec", &proxy, "sh", "-c", "cat /proc/[0-9]*/status | grep ^Uid: | sort -u"]).ok();
    assert!(!users.contains("\t0\t"), "{users}");
    for container in [&prosody, &proxy] {
        let read_only = docker(["inspect", "--format", "{{.HostConfig.ReadonlyRootfs}}", container]).ok();
        assert_eq!(read_only, "true");
    }

    // Each on its own, in the other order, and the proxy with another address perhaps.
    docker(["stop", &prosody, &proxy]).ok();
    docker(["start", &prosody]).ok();
    wait_until_it_serves(&prosody);
    docker(["start", &proxy]).ok();
    ask(&format!("at {} chat.example alice:secret-a", address_of(&proxy)));
    eventually("a page", PATIENCE, || {
        let answer = client.request(&format!("page {invitation}")).and_then(|()| client.answer())?;
        if answer.starts_with("200 ") { Ok(()) } else { Err(answer) }
    });
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_renewed_certificate_is_served_at_once() {
    const SESSIONS: usize = 100;
    let example = Example::new("letsencrypt", "127.0.0.80");
    let printed = example.up();
    assert_eq!(value(&printed, "connect:"), "127.0.0.80:5222");
    let (prosody, acme) = (example.container("prosody"), example.container("acme"));
    let shell = |script: &str| docker(["exec", &acme, "sh", "-ec", script]).ok();
    let live = "/etc/letsencrypt/live/localhost";
    let fingerprint =
        || shell(&format!("openssl x509 -in {live}/cert.pem -outform der | sha256sum | cut -c 1-64"));

    // The first one, in place of the one that the server began with.
    eventually("a first certificate", PATIENCE, || {
        let complete = docker(["exec", &acme, "test", "-e", &format!("{live}/fullchain.pem")]);
        if complete.status == 0 { Ok(()) } else { Err(docker(["logs", &acme]).all()) }
    });
    let first = fingerprint();
    let mut wire = Wire::of(&prosody);
    wire.wait_for("localhost", &first);

    docker(["exec", &prosody, "prosodyctl", "register", "alice", "localhost", "secret-a"]).ok();
    wire.open_sessions(SESSIONS, "localhost");
    for number in 1..=3 {
        let before = fingerprint();
        // What will be new is known afterwards alone.
        let renewed: f64 = shell("renew >/dev/null; date +%s.%N").parse().unwrap();
        let now = fingerprint();
        assert_ne!(now, before);
        let took = wire.time_until("localhost", &now, || renewed);
        println!("renewal {number}: on the wire after {:.0} ms", took * 1000.0);
        assert!(took < DEADLINE.as_secs_f64(), "{took} s:\n{}", docker(["logs", &prosody]).all());
    }
    assert_eq!(wire.living_sessions(), SESSIONS);

    // For root alone, in the volume and where the server has its own.
    let modes = shell(&format!(
        "stat -c %a /etc/letsencrypt/live /etc/letsencrypt/archive; stat -L -c %a {live}/privkey.pem"
    ));
    assert_eq!(modes, "700\n700\n600");
    let key = "stat -c '%a %u' /run/prosody/current/certificates/localhost.pem";
    assert_eq!(docker(["exec", "--user", "0", &prosody, "sh", "-c", key]).ok(), "600 999");
    let explained = docker(["exec", &prosody, "prosody-entrypoint", "certificates"]);
    assert_eq!(explained.status, 0, "{}", explained.all());
    assert!(explained.stdout.contains(&format!("{live}/fullchain.pem")), "{explained:?}");

    let down = example.server(&["down", "--volumes"]);
    assert_eq!((down.status, example.volumes()), (0, String::new()), "{}", down.all());
}

/// The services that the administrator is told of, and the credentials for them.
fn services(client: &mut Dialogue, printed: &str) -> (Vec<Value>, String) {
    let request = format!("services 127.0.0.81 localhost admin {}", value(printed, "password:"));
    let services = client.request(&request).and_then(|()| client.answer()).unwrap();
    let services: Vec<Value> = serde_json::from_str(&services).unwrap();
    let of = |name| services.iter().find_map(|service| service[name].as_str()).unwrap();
    let credentials = format!("{} {}", of("username"), of("password"));
    (services, credentials)
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn calls_are_relayed_for_users_and_to_no_private_network() {
    const ADDRESS: &str = "127.0.0.81";
    let example = Example::new("calls", ADDRESS);
    let printed = example.up();
    let (prosody, turn) = (example.container("prosody"), example.container("turn"));
    // By the published ports.
    let mut client = Dialogue::of_client("host", "calls.py");

    let (told, credentials) = services(&mut client, &printed);
    let told = told.iter().map(|service| {
        let text = |name: &str| service[name].as_str().unwrap_or_default();
        format!("{}:{}:{} {}", text("type"), text("host"), text("port"), text("transport"))
    });
    let expected =
        ["stun", "turn"].map(|kind| ["udp", "tcp"].map(|by| format!("{kind}:turn.localhost:3478 {by}")));
    assert_eq!(told.collect::<Vec<_>>(), expected.concat());

    let mut ask = |request: &str| client.request(request).and_then(|()| client.answer());
    let relays = ask(&format!("call {ADDRESS} {credentials}")).unwrap();
    for relay in relays.split(' ') {
        let port = relay.strip_prefix("127.0.0.81:").unwrap_or_else(|| panic!("{relays}"));
        assert_eq!(docker(["port", &turn, &format!("{port}/udp")]).ok(), relay);
    }
    let user = credentials.split(' ').next().unwrap();
    assert_eq!(ask(&format!("call {ADDRESS} {user} another")), Err("error: Refused: 401".to_owned()));

    // The server beside it, the engine, loopback, other private networks, where clouds keep their secrets; the world.
    let network = format!("{}_default", example.project);
    let own = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.Gateway}}{{end}}";
    let own = docker(["inspect", "--format", own, &prosody]).ok();
    let denied =
        format!("{own} 127.0.0.1 10.0.0.1 172.16.0.1 192.168.0.1 100.64.0.1 169.254.169.254 0.0.0.0");
    let errors = ask(&format!("peers {ADDRESS} {credentials} {denied} 9.9.9.9")).unwrap();
    let errors: Value = serde_json::from_str(&errors).unwrap();
    for peer in denied.split(' ') {
        assert_eq!(errors[peer], 403, "{peer}: {errors}");
    }
    assert_eq!(errors["9.9.9.9"], Value::Null, "{errors}");

    // Prosody's own checks. To the second one, the TURN server is also the one that it is to reach by its relay.
    let features = docker(["exec", &prosody, "prosodyctl", "check", "features"]);
    assert_eq!((features.status, features.stdout.contains("(!)")), (0, false), "{}", features.all());
    let secret = || fs::read_to_string(example.file("secrets/turn-secret")).unwrap().trim().to_owned();
    let first = secret();
    let other = Recipe::new(BOOKWORM)
        .with(["--network", &network])
        .env("PROSODY_DOMAIN", "localhost")
        .env("PROSODY_TURN_HOST", "turn.localhost")
        .env("PROSODY_TURN_SECRET", &first)
        .serve();
    let inside = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let ping = format!("--ping={}", docker(["inspect", "--format", inside, &turn]).ok());
    for server in [&prosody, &other.name] {
        let checked = docker(["exec", server, "prosodyctl", "check", "turn", "-v", &ping]);
        let is_relayed = checked.stdout.contains("TURN external address: 127.0.0.81:");
        assert_eq!((checked.status, is_relayed), (0, true), "{}", checked.all());
    }
    drop(other);

    // The secret is in nothing that Docker shows.
    for container in [&prosody, &turn] {
        let shown = ["inspect", "logs", "top"].map(|what| docker([what, container]).all()).concat();
        assert!(!shown.contains(&first), "{shown}");
        assert!(shown.contains(r#""ReadonlyRootfs": true"#), "{shown}");
    }
    eventually("the TURN server is healthy", PATIENCE, || {
        match docker(["inspect", "--format", "{{.State.Health.Status}}", &turn]).ok() {
            health if health == "healthy" => Ok(()),
            health => Err(health),
        }
    });

    // Again, with nothing changed between: the same containers and secret. A new secret takes a new start alone.
    example.up();
    assert_eq!((example.container("prosody"), example.container("turn")), (prosody, turn));
    assert_eq!(secret(), first);
    example.server(&["down"]).ok();
    fs::remove_file(example.file("secrets/turn-secret")).unwrap();
    example.up();
    assert_ne!(secret(), first);
    let request = format!("call {ADDRESS} {}", services(&mut client, &printed).1);
    assert_eq!(client.request(&request).and_then(|()| client.answer()).map(drop), Ok(()));

    // Relays at an address that nobody can reach are an error at once.
    example.server(&["down", "--volumes"]).ok();
    assert_eq!(example.volumes(), "");
    fs::write(example.file(".env"), "EXTERNAL_ADDRESS=0.0.0.0\n").unwrap();
    let answer = example.server(&["up"]);
    assert_eq!(answer.status, 1, "{answer:?}");
    assert!(answer.stderr.contains("EXTERNAL_ADDRESS is missing: set it in .env"), "{answer:?}");
}
