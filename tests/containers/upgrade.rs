//! What Prosody 0.12 wrote into a database is there for 13.0; tables of an earlier Prosody, which the start names.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::docker::{
    Answer, BOOKWORM, Container, Network, Recipe, TRIXIE, Volume, docker, is_all_wanted, session, unique,
};

const DOMAIN: &str = "chat.example";

/// The images of `make test-images`.
const POSTGRESQL: &str = "prosody-entrypoint-test-postgresql:17";
const MARIADB: &str = "prosody-entrypoint-test-mariadb:latest";

/// Where the database's image finds its password, and the password.
const PASSWORD: (&str, &str) = ("/run/database-password", "correct horse");

/// One deployment, whatever image it runs with: its network, its volume, its database and its settings.
struct Deployment {
    /// With SQLite there is none. It stands before its network, which cannot be removed while it is there.
    database: Option<Container>,
    network: Network,
    data: Volume,
    settings: Vec<(&'static str, &'static str)>,
}

impl Deployment {
    fn sqlite() -> Self {
        let settings = vec![("PROSODY_DEFAULT_STORAGE", "sqlite")];
        Deployment { network: Network::new(), data: Volume::new(), settings, database: None }
    }

    fn postgresql() -> Self {
        Self::with_server("PostgreSQL", POSTGRESQL, "POSTGRES_PASSWORD_FILE")
    }

    fn mariadb() -> Self {
        Self::with_server("MySQL", MARIADB, "MARIADB_PASSWORD_FILE")
    }

    fn with_server(driver: &'static str, image: &str, password: &str) -> Self {
        let network = Network::new();
        let database = Recipe::new(image)
            .env(password, PASSWORD.0)
            .file(PASSWORD.0, PASSWORD.1)
            .on(&network, &["database"])
            .start();
        let settings = vec![
            ("PROSODY_DEFAULT_STORAGE", "sql"),
            ("PROSODY_DB_DRIVER", driver),
            ("PROSODY_DB_HOST", "database"),
            ("PROSODY_DB_PASSWORD", PASSWORD.1),
        ];
        Deployment { network, data: Volume::new(), settings, database: Some(database) }
    }

    fn serve(&self, image: &str) -> Container {
        self.settings
            .iter()
            .fold(Recipe::new(image), |recipe, (name, value)| recipe.env(name, value))
            .env("PROSODY_DOMAIN", DOMAIN)
            .on(&self.network, &[DOMAIN])
            .volume(&self.data, "/var/lib/prosody")
            .serve()
    }

    /// What stands between `docker run` and the image for a second container of the same.
    fn options(&self) -> Vec<String> {
        let settings = self.settings.iter().chain([&("PROSODY_DOMAIN", DOMAIN)]);
        let mut options: Vec<String> =
            settings.flat_map(|(name, value)| ["--env".to_owned(), format!("{name}={value}")]).collect();
        options.extend([
            "--network".to_owned(),
            self.network.name.clone(),
            "--name".to_owned(),
            unique("run"),
        ]);
        options.extend(["--volume".to_owned(), format!("{}:/var/lib/prosody", self.data.name)]);
        options
    }

    /// A message of alice's to bob, which is then in the archive.
    #[track_caller]
    fn write(&self, text: &str) {
        let answer = session(&self.network, DOMAIN, &["login", "message", "archive", "--text", text]);
        assert_eq!(answer.status, 0, "{}", answer.all());
    }

    /// Both accounts log in, and the message is in the archive.
    #[track_caller]
    fn read(&self, text: &str, server: &Container) {
        let answer = session(&self.network, DOMAIN, &["login", "archive", "--text", text]);
        assert_eq!(answer.status, 0, "{}\n{}", answer.all(), server.logs());
    }

    /// Runs SQL in MariaDB, and gives the rows.
    #[track_caller]
    fn mariadb_client(&self, sql: &str) -> String {
        let mariadb =
            ["mariadb", "--no-defaults", "--skip-column-names", "--database=prosody", "--execute", sql];
        self.database.as_ref().unwrap().exec(mariadb).ok()
    }
}

fn stop(server: Container) {
    docker(["stop", &server.name]).ok();
}

/// Fails where anything in the log is about the database's tables.
#[track_caller]
fn says_nothing_of_tables(server: &Container) {
    let logs = server.logs();
    let line = logs.lines().find(|line| {
        let line = line.to_ascii_lowercase();
        ["upgrade", "old database", "schema", "sql transaction"].iter().any(|word| line.contains(word))
    });
    assert_eq!(line, None, "{logs}");
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn what_0_12_wrote_into_sqlite_is_there_in_13_0() {
    outlives_an_upgrade(&Deployment::sqlite());
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn what_0_12_wrote_into_postgresql_is_there_in_13_0() {
    outlives_an_upgrade(&Deployment::postgresql());
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn what_0_12_wrote_into_mariadb_is_there_in_13_0() {
    outlives_an_upgrade(&Deployment::mariadb());
}

fn outlives_an_upgrade(deployment: &Deployment) {
    let (of_0_12, of_13_0) = (unique("message"), unique("message"));
    let server = deployment.serve(BOOKWORM);
    server.register_accounts(DOMAIN);
    deployment.write(&of_0_12);
    stop(server);

    let server = deployment.serve(TRIXIE);
    says_nothing_of_tables(&server);
    deployment.read(&of_0_12, &server);
    deployment.write(&of_13_0);
    stop(server);

    let server = deployment.serve(TRIXIE);
    says_nothing_of_tables(&server);
    deployment.read(&of_0_12, &server);
    deployment.read(&of_13_0, &server);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn prosody_0_12_says_how_to_upgrade_old_tables() {
    old_tables_are_upgraded_as_the_log_says(BOOKWORM);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn prosody_13_0_says_how_to_upgrade_old_tables() {
    old_tables_are_upgraded_as_the_log_says(TRIXIE);
}

/// Tables as Prosody 0.9 and 0.10 made them, all that `mod_storage_sql` asks to have upgraded, each alone.
const OLD: [&str; 3] = [
    "ALTER TABLE prosody MODIFY value TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL",
    "ALTER TABLE prosodyarchive DROP INDEX prosodyarchive_index, \
     ADD UNIQUE INDEX prosodyarchive_index (host(20), user(20), store(20), `key`(20))",
    "ALTER TABLE prosodyarchive MODIFY `with` TEXT CHARACTER SET latin1 COLLATE latin1_swedish_ci NOT NULL",
];

fn old_tables_are_upgraded_as_the_log_says(image: &str) {
    let deployment = Deployment::mariadb();
    let text = unique("message");
    let mut server = deployment.serve(image);
    server.register_accounts(DOMAIN);
    deployment.write(&text);
    says_nothing_of_tables(&server);

    let count = if image == TRIXIE || is_all_wanted() { OLD.len() } else { 1 };
    for (old, in_server) in OLD.into_iter().zip([true, true, false]).take(count) {
        stop(server);
        deployment.mariadb_client(old);
        server = deployment.serve(image);
        let logs = docker(["logs", &server.name]).stderr;
        let lines: Vec<&str> = logs.lines().filter(|line| line.contains("mod_storage_sql upgrade")).collect();
        let [line] = lines[..] else { panic!("{old}: not one line about the tables:\n{logs}") };

        let [exec, run] =
            ["`docker exec -it CONTAINER ", "`docker run -it --rm OPTIONS IMAGE "].map(|start| {
                let command = line.split_once(start).and_then(|(_, rest)| rest.split_once('`'));
                let (command, _) = command.unwrap_or_else(|| panic!("no {start} in {line}"));
                command.split(' ').map(str::to_owned)
            });
        let docker_arguments: Vec<String> = if in_server {
            ["exec", "-i", &server.name].map(str::to_owned).into_iter().chain(exec).collect()
        } else {
            let options = ["run", "-i", "--rm"].map(str::to_owned).into_iter().chain(deployment.options());
            options.chain([image.to_owned()]).chain(run).collect()
        };
        let answer = yes_to(&docker_arguments);
        assert_eq!(answer.status, 0, "{answer:?}");
        assert!(answer.stdout.contains("All done!"), "{answer:?}");

        stop(server);
        server = deployment.serve(image);
        says_nothing_of_tables(&server);
        deployment.read(&text, &server);
    }
    let tables = deployment.mariadb_client("SHOW CREATE TABLE prosody; SHOW CREATE TABLE prosodyarchive");
    assert!(!tables.contains("UNIQUE") && !tables.contains("latin1"), "{tables}");
    assert_eq!(tables.matches("`value` mediumtext").count(), 2, "{tables}");
}

/// Runs `docker` with a yes on standard input.
fn yes_to(arguments: &[String]) -> Answer {
    let mut child = Command::new("docker")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("docker cannot be run");
    child.stdin.take().unwrap().write_all(b"y\n").unwrap();
    child.wait_with_output().unwrap().into()
}
