//! The examples, run as their readers would run them.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::browser::Visitor;
use crate::docker::{
    Answer, BOOKWORM, CLIENT, Dialogue, Observations, PATIENCE, Recipe, TRIXIE, client, docker, eventually,
    exec, in_place_of, is_all_wanted, require, unique, wait_until_it_serves,
};
use crate::router::{domains, shares, wait_until_all_are_served};
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
        let mut answer = self.server(&["up"]);
        // The address is the example's own, but the engine does not always free its ports at once.
        if answer.all().contains("port is already allocated") {
            answer = self.server(&["up"]);
        }
        assert_eq!(answer.status, 0, "{}", answer.all());
        answer.stdout
    }

    /// Restores a backup by a container of the server's service, as the README of `backup` says.
    fn restore(&self, backup: &Path) -> Answer {
        let is_plugin = docker(["compose", "version"]).status == 0;
        Command::new(if is_plugin { "docker" } else { "docker-compose" })
            .args(is_plugin.then_some("compose"))
            .args(["run", "--rm", "-T", "prosody", "restore"])
            .current_dir(self.file(""))
            .stdin(File::open(backup).unwrap())
            .env("COMPOSE_PROJECT_NAME", &self.project)
            .env("DOMAIN", self.domain)
            .output()
            .unwrap()
            .into()
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
        if self.file("backups").exists() {
            // Its files belong to root.
            let mount = format!("{}:/example", self.file("").display());
            let image = in_place_of(TRIXIE);
            docker([
                "run", "--rm", "--volume", &mount, "--entrypoint", "rm", &image, "-r", "/example/backups",
            ]);
        }
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

/// Runs tests/client/belongings.py beside a server that has the domain chat.example.
fn belongings(example: &Example, arguments: &[&str]) -> String {
    let own = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let address = docker(["inspect", "--format", own, &example.container("prosody")]).ok();
    let recipe = ["chat.example", "upload.chat.example"]
        .iter()
        .fold(Recipe::new(CLIENT), |recipe, host| recipe.with(["--add-host", &format!("{host}:{address}")]));
    let recipe = recipe
        .with(["--network", &format!("{}_default", example.project)])
        .file("/session.py", include_str!("../client/session.py"))
        .file("/belongings.py", include_str!("../client/belongings.py"));
    let start = ["python3", "/belongings.py", arguments[0], "chat.example"];
    start.iter().chain(&arguments[1..]).fold(recipe, |recipe, word| recipe.word(word)).run().ok()
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn backups_are_made_and_kept_and_one_is_restored_elsewhere() {
    let mut example = Example::new("backup", "127.0.0.88");
    example.domain = "chat.example";
    // A second in place of a day.
    let variables = fs::read_to_string(example.file(".env")).unwrap();
    let quick = ["BACKUP_INTERVAL=1", "BACKUP_RETRY=1", "BACKUP_KEEP=2"].join("\n");
    fs::write(example.file(".env"), format!("{variables}{quick}\n")).unwrap();
    example.up();
    let (server, backup) = (example.container("prosody"), example.container("backup"));
    for (user, password) in [("alice", "secret-a"), ("bob", "secret-b")] {
        docker(["exec", &server, "prosodyctl", "register", user, "chat.example", password]).ok();
    }
    let text = unique("text");
    let written = belongings(&example, &["write", &text]);
    let link = written.strip_prefix("link: ").unwrap_or_else(|| panic!("{written}"));

    let inside = |line: &str| docker(["exec", &backup, "sh", "-c", line]);
    let backups = || -> Vec<String> {
        let names = fs::read_dir(example.file("backups")).unwrap();
        let mut names: Vec<_> = names.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let log = || docker(["logs", &backup]).all();
    // The one that is being written does not count.
    let whole = || backups().into_iter().filter(|name| name.ends_with(".tar")).collect::<Vec<_>>();
    let until = |what: &str, holds: &dyn Fn(&[String]) -> bool| {
        eventually(what, PATIENCE, || match whole() {
            names if holds(&names) => Ok(names),
            names => Err(format!("{names:?}\n{}", log())),
        })
    };
    let first = until("two backups", &|names| names.len() == 2);
    let modes =
        inside("cd /backups && stat -c '%a %u' *.tar; grep -h -e CapBnd -e NoNewPrivs /proc/1/status").ok();
    assert!(modes.starts_with("600 0\n600 0\n"), "{modes}");
    assert!(
        modes.ends_with("CapBnd:\t00000000000000c2\nNoNewPrivs:\t1"),
        "SETGID, SETUID, DAC_OVERRIDE: {modes}"
    );
    assert_ne!(inside("touch /var/lib/prosody/x").status, 0, "the data is read-only");
    assert_eq!(inside("test -e /tmp/failed").status, 1, "{}", log());

    // One that lacks data. The others stay, also what is more than two.
    let broken = "/var/lib/prosody/chat%2eexample/roster/broken.dat";
    docker(["exec", &server, "sh", "-c", &format!("printf 'return {{' >{broken}")]).ok();
    // Between two whole ones there are three for a moment, too.
    until("an incomplete backup", &|names| names.len() == 3 && log().contains(".tar, which lacks data"));
    assert_eq!(inside("test -e /tmp/failed").status, 0, "{}", log());
    docker(["exec", &server, "rm", broken]).ok();
    let later = until("two are left", &|names| names.len() == 2 && names[0] > first[1]);

    // Those that fail leave the others, and no part of a file.
    let fail = || {
        docker(["exec", &server, "mkdir", "/var/lib/prosody/.restoring"]).ok();
        let count = || log().matches("failed with status 73").count();
        let before = count();
        let another = || if count() > before { Ok(()) } else { Err(log()) };
        eventually("a failure", PATIENCE, another);
        whole()
    };
    let before = fail();
    assert!(before.len() == 2 && before[0] >= later[0], "{before:?}");
    const HALF: &str = "prosody-20200101T000000Z.tar.aBc123";
    inside(&format!("touch /backups/{HALF}")).ok();
    eventually("the file of an interrupted backup is removed", PATIENCE, || match backups() {
        names if names.iter().any(|name| name == HALF) => Err(format!("{names:?}")),
        _ => Ok(()),
    });
    assert_eq!(whole(), before);
    assert_eq!(inside("test -e /tmp/failed").status, 0, "{}", log());
    docker(["exec", &server, "rmdir", "/var/lib/prosody/.restoring"]).ok();
    until("a backup after the failures", &|names| names.len() == 2 && names[1] > before[1]);
    docker(["stop", "--time", "60", &backup]).ok();
    let state = docker(["inspect", "--format", "{{.State.ExitCode}}", &backup]).ok();
    assert_eq!(state, "143", "SIGTERM, and not SIGKILL after a minute");
    let before = whole();
    docker(["start", &backup]).ok();
    until("a backup after a restart", &|names| names.len() == 2 && names[1] > before[1]);
    assert_eq!(inside("test -e /tmp/failed").status, 1, "{}", log());

    let newest = fail().pop().unwrap();
    let end = inside(&format!("tar -xOf /backups/{newest} end.json")).ok();
    assert!(end.contains("\"records\""), "{end}");
    let mut other = Example::new("backup", "127.0.0.89");
    other.domain = "chat.example";
    let copy = other.file("backup.tar");
    let copied = Command::new("docker")
        .args(["exec", &backup, "cat", &format!("/backups/{newest}")])
        .stdout(File::create(&copy).unwrap())
        .status();
    assert!(copied.unwrap().success());
    let restored = other.restore(&copy);
    assert_eq!(restored.status, 0, "{restored:?}");
    assert!(restored.stderr.contains("Restored: "), "{restored:?}");
    other.up();
    assert_eq!(belongings(&other, &["read", &text, link]), "all is there");
}

/// What Movim asks for: who announces it, and the feature, from the table of the example's README.
fn features_for_movim() -> Vec<(String, String)> {
    let readme = include_str!("../../examples/movim/README.md");
    let (_, table) = readme.split_once("| for | announced by | feature |\n| --- | --- | --- |\n").unwrap();
    let rows = table.lines().map_while(|line| line.strip_prefix('|')?.strip_suffix('|'));
    let of_row = |row: &str| {
        let cells: Vec<_> = row.split('|').map(|cell| cell.replace('`', "").trim().to_owned()).collect();
        cells[2].split(' ').map(|feature| (cells[1].clone(), feature.to_owned())).collect::<Vec<_>>()
    };
    rows.flat_map(of_row).collect()
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn posts_and_communities_of_movim_survive_down_and_up() {
    let mut seen = Observations::default();
    let mut example = Example::new("movim", "127.0.0.86");
    for file in ["Dockerfile", "start"] {
        let of =
            |name: &str| fs::read_to_string(example.examples.join(name).join("database").join(file)).unwrap();
        seen.that("the database's image is that of the other example", of("movim") == of("postgresql"), file);
    }
    // As the README says.
    let settings = fs::read_to_string(example.file("movim.env")).unwrap();
    let settings =
        settings.replace("localhost", "chat.example").replace("#PROSODY_TURN_HOST", "PROSODY_TURN_HOST");
    let settings = settings.replace("#PROSODY_TURN_SECRET=", "PROSODY_TURN_SECRET=of-the-test");
    fs::write(example.file("movim.env"), settings).unwrap();
    let answer = example.server(&["up"]);
    assert_eq!(answer.status, 1, "{answer:?}");
    assert!(answer.stderr.contains("movim/movim.env has the domain chat.example"), "{answer:?}");

    example.domain = "chat.example";
    let printed = example.up();
    assert_eq!(value(&printed, "JID:"), "admin@chat.example");
    assert_eq!(value(&printed, "connect:"), "127.0.0.86:5222");
    for (user, password) in [("alice", "secret-a"), ("bob", "secret-b")] {
        let prosody = example.container("prosody");
        docker(["exec", &prosody, "prosodyctl", "register", user, "chat.example", password]).ok();
    }
    let log_in = || {
        let mut client = Dialogue::of_client(&format!("{}_default", example.project), "movim.py");
        let own = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let address = docker(["inspect", "--format", own, &example.container("prosody")]).ok();
        client.request(&format!("log-in {address} chat.example")).and_then(|()| client.answer()).unwrap();
        client
    };
    let mut client = log_in();
    let ask = |client: &mut Dialogue, request: &str| {
        let answer = client.request(request).and_then(|()| client.answer());
        let log = || docker(["logs", &example.container("prosody")]).all();
        answer.unwrap_or_else(|reason| panic!("{request}: {reason}\n{}", log()))
    };
    let announced: Value = serde_json::from_str(&ask(&mut client, "features")).unwrap();
    let asked = features_for_movim();
    assert!(asked.len() > 30, "{asked:?}");
    for (by, feature) in &asked {
        let names = [feature.clone(), format!("http://jabber.org/protocol/{feature}")];
        let of = announced[by].as_array().map(Vec::as_slice).unwrap_or_default();
        let is_there = of.iter().any(|known| names.iter().any(|name| known == name));
        seen.that(&format!("{by} announces {feature}"), is_there, of);
    }
    ask(&mut client, "websocket");
    ask(&mut client, "create");
    // What the README says of spaces.
    seen.equal(
        "who is let in by the owner",
        ask(&mut client, "refused authorize"),
        "not-acceptable".to_owned(),
    );

    let is_read = |seen: &mut Observations, answer: String| {
        let read: Value = serde_json::from_str(&answer).unwrap();
        let authors = serde_json::json!({
            "alice@chat.example": "alice@chat.example",
            "pubsub.chat.example": "alice@chat.example",
            "comments.chat.example": "bob@chat.example",
        });
        seen.equal("who wrote where", &read["authors"], &authors);
        seen.equal(
            "the type of the community",
            &read["community"]["pubsub#type"],
            &"urn:xmpp:pubsub-social-feed:1".into(),
        );
        seen.equal("its title", &read["community"]["pubsub#title"], &"All about tea".into());
        seen.equal("the longest lists of posts", &read["limits"], &serde_json::json!(["10000", "10000"]));
    };
    ask(&mut client, "post first");
    is_read(&mut seen, ask(&mut client, "read first"));
    for service in ["prosody", "database"] {
        let container = example.container(service);
        let status = exec(&container, "", &["cat", "/proc/1/status"]).ok();
        for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"] {
            seen.that(&format!("{service}: {line}"), status.contains(line), &status);
        }
        seen.that(&format!("{service} does not run as root"), !status.contains("Uid:\t0"), &status);
        let read_only = docker(["inspect", "--format", "{{.HostConfig.ReadonlyRootfs}}", &container]).ok();
        seen.equal("a read-only root", read_only.as_str(), "true");
    }
    drop(client);

    example.server(&["down"]).ok();
    example.up();
    let mut client = log_in();
    is_read(&mut seen, ask(&mut client, "read first"));
    ask(&mut client, "post second");
    is_read(&mut seen, ask(&mut client, "read second"));
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn sixty_domains_are_served_by_three_shards_and_move_to_two() {
    let mut example = Example::new("compose-shards", "127.0.0.90");
    example.domain = "d01.example";
    let printed = example.up();
    assert_eq!(value(&printed, "JID:"), "admin@d01.example");
    assert_eq!(value(&printed, "connect:"), "127.0.0.90:5222");
    let container = |service: &str| example.container(service);
    let log = || {
        ["prosody-0", "prosody-1", "map", "proxy"].map(|it| docker(["logs", &container(it)]).all()).concat()
    };
    let shards = |arguments: &[&str]| {
        let first = container("prosody-0");
        let command = [&["exec", &first, "prosody-entrypoint", "shards"], arguments].concat();
        docker(command).ok()
    };

    // By the published ports.
    let mut router = Dialogue::of_client("host", "routes.py");
    router.request("at 127.0.0.90").and_then(|()| router.answer()).unwrap();
    let mut served = |patience| wait_until_all_are_served(&mut router, patience, log);
    served(PATIENCE);
    let map = shards(&["--format", "haproxy-map"]);
    let of_three = shares(&map);
    assert_eq!((of_three.len(), map.lines().count()), (3, 240), "{map}");
    let domains: Vec<_> = domains().filter(|domain| map.contains(&format!("\n{domain} shard-1\n"))).collect();
    assert!((5..40).contains(&domains.len()), "{domains:?}");

    // The account can log in, with an invitation for another.
    let mut client = Dialogue::of_client("host", "at_443.py");
    assert!(
        value(&printed, "invitation:").starts_with("https://d01.example:5281/invites_page?"),
        "{printed}"
    );
    let account = format!("admin:{}", value(&printed, "password:"));
    client.request(&format!("at 127.0.0.90 d01.example {account}")).and_then(|()| client.answer()).unwrap();

    let mut seen = Observations::default();
    for service in ["prosody-0", "prosody-1", "prosody-2", "map", "proxy", "database"] {
        let container = container(service);
        let read_only = docker(["inspect", "--format", "{{.HostConfig.ReadonlyRootfs}}", &container]).ok();
        seen.equal(&format!("{service} has a read-only root"), read_only.as_str(), "true");
        eventually(&format!("{service} is healthy"), PATIENCE, || {
            match docker(["inspect", "--format", "{{.State.Health.Status}}", &container]).ok() {
                health if health == "healthy" => Ok(()),
                health => Err(health),
            }
        });
    }
    for service in ["map", "proxy"] {
        let status = exec(&container(service), "", &["cat", "/proc/1/status"]).ok();
        for line in ["CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Uid:\t999\t"] {
            seen.that(&format!("{service}: {line}"), status.contains(line), &status);
        }
    }
    seen.report();

    // Fewer shards, and as many as before.
    shards(&["--set", "2"]);
    eventually("the map has two shards", PATIENCE, || match shards(&["--format", "haproxy-map"]) {
        map if shares(&map).len() == 2 => Ok(()),
        map => Err(map),
    });
    println!("all are served by two after {:?}", served(PATIENCE));
    shards(&["--set", "3"]);
    println!("all are served by three after {:?}", served(PATIENCE));
    assert_eq!(shares(&shards(&["--format", "haproxy-map"])), of_three);

    // A shard that dies, and is back.
    let second = container("prosody-1");
    docker(["kill", &second]).ok();
    docker(["start", &second]).ok();
    println!("all are served again after {:?}", served(PATIENCE));
    // Everything in another order.
    let all = ["proxy", "database", "prosody-2", "map", "prosody-1", "prosody-0"].map(container);
    docker(["stop"].into_iter().chain(all.iter().map(String::as_str))).ok();
    docker(["start"].into_iter().chain(all.iter().map(String::as_str))).ok();
    served(2 * PATIENCE);
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
    assert_eq!(exec(&prosody, "0", &["sh", "-c", key]).ok(), "600 999");
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

/// Grafana's types for dashboards.
const GRAFANA: &str = "prosody-entrypoint-test-grafana:latest";
const PROMETHEUS: &str = "127.0.0.85:9090";

/// The status and the content of a page, for a proxy of this client.
fn get(server: &str, path: &str, client: &str) -> Result<(String, String), String> {
    let head = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\nX-Forwarded-For: {client}\r\n\r\n");
    let mut answer = String::new();
    TcpStream::connect(server)
        .and_then(|mut stream| {
            stream.write_all(head.as_bytes())?;
            stream.read_to_string(&mut answer)
        })
        .map_err(|error| format!("{server}: {error}"))?;
    let (head, content) = answer.split_once("\r\n\r\n").ok_or(&answer)?;
    let status = head.split(' ').nth(1).ok_or(&answer)?;
    Ok((status.to_owned(), content.to_owned()))
}

/// What Prometheus answers to a request of its interface.
fn ask_prometheus(path: &str) -> Result<Value, String> {
    let (_, content) = get(PROMETHEUS, &format!("/api/v1/{path}"), "127.0.0.1")?;
    let answer: Value = serde_json::from_str(&content).map_err(|error| format!("{error}: {content}"))?;
    if answer["status"] == "success" { Ok(answer["data"].clone()) } else { Err(content) }
}

/// The numbers that a query has now, at least one.
fn numbers(query: &str) -> Result<Vec<f64>, String> {
    let data = ask_prometheus(&format!("query?query={}", utf8_percent_encode(query, NON_ALPHANUMERIC)))?;
    let samples = data["result"].as_array().into_iter().flatten();
    let numbers = samples.filter_map(|sample| sample["value"][1].as_str()?.parse::<f64>().ok());
    let numbers: Vec<f64> = numbers.filter(|number| number.is_finite()).collect();
    if numbers.is_empty() { Err(format!("{query}: {data}")) } else { Ok(numbers) }
}

/// The alerts that fire, by name.
fn firing() -> Result<Vec<String>, String> {
    let data = ask_prometheus("alerts")?;
    let alerts = data["alerts"].as_array().into_iter().flatten();
    let firing = alerts.filter(|alert| alert["state"] == "firing");
    Ok(firing.filter_map(|alert| alert["labels"]["alertname"].as_str().map(str::to_owned)).collect())
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn prometheus_reads_the_metrics_and_an_alert_fires() {
    const ADDRESS: &str = "127.0.0.85";
    let example = Example::new("monitoring", ADDRESS);
    let variables = fs::read_to_string(example.file(".env")).unwrap();
    let variables = format!("{variables}PROMETHEUS={PROMETHEUS}\nMETRICS_NETWORK=10.213.77\n");
    fs::write(example.file(".env"), variables).unwrap();
    let printed = example.up();
    assert_eq!(value(&printed, "connect:"), format!("{ADDRESS}:5222"));
    let (server, monitor) = (example.container("prosody"), example.container("prometheus"));
    assert_eq!(docker(["port", &monitor]).ok(), format!("9090/tcp -> {PROMETHEUS}"));

    // The files as they are.
    let check = |what: [&str; 2], file: &str| docker(["exec", &monitor, "promtool", what[0], what[1], file]);
    let configuration = "/etc/prometheus/prometheus.yml";
    let checked = check(["check", "config"], configuration);
    assert!(checked.status == 0 && checked.stdout.contains("7 rules found"), "{}", checked.all());
    let tested = || check(["test", "rules"], "/etc/prometheus/rules.test.yml");
    assert_eq!(tested().status, 0, "{}", tested().all());

    // Then a second in place of minutes, taken up without a restart. The rules' tests notice it.
    for (file, slow, quick) in [
        ("config/prometheus.yml", "interval: 15s", "interval: 1s"),
        ("config/rules.yml", "for: 2m", "for: 1s"),
    ] {
        let text = fs::read_to_string(example.file(file)).unwrap();
        assert!(text.contains(slow), "{text}");
        fs::write(example.file(file), text.replace(slow, quick)).unwrap();
    }
    assert_ne!(tested().status, 0);
    docker(["kill", "--signal", "HUP", &monitor]).ok();
    eventually("the metrics are read", PATIENCE, || {
        let up = numbers("count_over_time(up{job='prosody'}[5s]) > 3 and up{job='prosody'} == 1");
        up.map(drop)
    });

    // Nobody else reads them, whoever they say they are.
    let (status, content) = get(&format!("{ADDRESS}:5280"), "/metrics", "10.213.77.6").unwrap();
    assert_eq!((status.as_str(), content.contains("prosody_")), ("403", false), "{content}");

    // A client, and one that does not log in. A server that connects and says nothing, one that says nonsense, and one
    // with a certificate that nobody signed, which does not answer the second time.
    let network = format!("{}_default", example.project);
    docker(["exec", &server, "prosodyctl", "register", "alice", "localhost", "secret-a"]).ok();
    let mut client = Wire::of(&server);
    client.open_sessions(1, "localhost");
    let connect = |port| TcpStream::connect((ADDRESS, port)).unwrap();
    let _silent = [connect(5222), connect(5269)];
    connect(5269).write_all(b"nonsense").unwrap();
    let other = Recipe::new(TRIXIE)
        .with(["--network", &network, "--network-alias", "b.example"])
        .env("PROSODY_DOMAIN", "b.example")
        .serve();
    let ping = ["exec", &server, "prosodyctl", "shell", "xmpp:ping('localhost', 'b.example')"];
    docker(ping);
    docker(["pause", &other.name]).ok();
    docker([&["exec", "--detach"], &ping[1..]].concat()).ok();

    // What the dashboard asks for.
    let dashboard = fs::read_to_string(example.file("dashboard.json")).unwrap();
    let checked = Recipe::new(GRAFANA).file("/dashboard.json", &dashboard).command(["/dashboard.json"]).run();
    assert_eq!(checked.status, 0, "{}", checked.all());
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            let query = query.replace("$instance", "prosody:5280").replace("$__rate_interval", "1m");
            let title = panel["title"].as_str().unwrap();
            eventually(title, PATIENCE, || numbers(&query));
        }
    }
    for query in [
        "sum(prosody_mod_c2s__connections{type='c2s'}) == 1",
        "sum(prosody_mod_c2s__connections{type='c2s_unauthed'}) == 1",
        "sum(prosody_mod_s2s_auth_certs__checked_total{chain='invalid'}) > 0",
    ] {
        eventually("what the clients and servers above do", PATIENCE, || numbers(query));
    }

    let mut seen = Observations::default();
    for service in [&server, &monitor] {
        let inspected = docker(["inspect", service]).ok();
        seen.that("a read-only root", inspected.contains(r#""ReadonlyRootfs": true"#), &inspected);
        eventually("the container is healthy", PATIENCE, || {
            match docker(["inspect", "--format", "{{.State.Health.Status}}", service]).ok() {
                health if health == "healthy" => Ok(()),
                health => Err(health),
            }
        });
    }
    let mounted = r#"{{range .Mounts}}{{if eq .Destination "/prometheus"}}{{.Name}}{{end}}{{end}}"#;
    let volume = docker(["inspect", "--format", mounted, &monitor]).ok();
    seen.equal("the volume of the metrics", volume, format!("{}_prometheus", example.project));
    let status = docker(["exec", &monitor, "cat", "/proc/1/status"]).ok();
    for line in ["CapBnd:\t0000000000000000", "NoNewPrivs:\t1"] {
        seen.that(line, status.contains(line), &status);
    }
    seen.that("a user without privileges", !status.contains("Uid:\t0\t"), &status);

    // The alert, and its end.
    let fires = |expected: &[&str]| {
        eventually("alerts", PATIENCE, || match firing()? {
            alerts if alerts == expected => Ok(()),
            alerts => Err(format!("{alerts:?}")),
        });
    };
    fires(&[]);
    docker(["stop", &server]).ok();
    fires(&["ProsodyDown"]);
    docker(["start", &server]).ok();
    fires(&[]);
    seen.report();
}
