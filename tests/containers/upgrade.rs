//! What Prosody 0.12 wrote into a database is there for 13.0; tables of an earlier Prosody, which the start names.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use crate::docker::{
    Answer, BOOKWORM, Container, Network, Recipe, TRIXIE, Volume, docker, images, is_all_wanted, session,
    unique,
};

pub const DOMAIN: &str = "chat.example";

/// The settings of all deployments: what people use, and an administrator, alice.
const SETTINGS: [(&str, &str); 4] = [
    ("PROSODY_DOMAIN", DOMAIN),
    ("PROSODY_ADMINS", "alice@chat.example"),
    ("PROSODY_MODULES_ENABLED", "cloud_notify invites"),
    ("PROSODY_COMPONENTS", "+pubsub.chat.example:pubsub"),
];

/// The images of `make test-images`.
const POSTGRESQL: &str = "prosody-entrypoint-test-postgresql:17";
const MARIADB: &str = "prosody-entrypoint-test-mariadb:latest";

/// Where the database's image finds its password, and the password.
const PASSWORD: (&str, &str) = ("/run/database-password", "correct horse");

/// One deployment, whatever image it runs with: its network, its volume, its database and its settings.
pub struct Deployment {
    /// With files and SQLite there is none. It stands before its network, which cannot be removed while it is there.
    pub database: Option<Container>,
    pub network: Network,
    pub data: Volume,
    pub settings: Vec<(&'static str, &'static str)>,
}

impl Deployment {
    pub fn internal() -> Self {
        Deployment { network: Network::new(), data: Volume::new(), settings: Vec::new(), database: None }
    }

    pub fn sqlite() -> Self {
        let settings = vec![("PROSODY_DEFAULT_STORAGE", "sqlite")];
        Deployment { network: Network::new(), data: Volume::new(), settings, database: None }
    }

    pub fn postgresql() -> Self {
        Self::with_server("PostgreSQL", POSTGRESQL, "POSTGRES_PASSWORD_FILE")
    }

    pub fn mariadb() -> Self {
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

    pub fn recipe(&self, image: &str) -> Recipe {
        self.settings
            .iter()
            .chain(&SETTINGS)
            .fold(Recipe::new(image), |recipe, (name, value)| recipe.env(name, value))
            .on(&self.network, &[DOMAIN, "upload.chat.example"])
            .volume(&self.data, "/var/lib/prosody")
    }

    pub fn serve(&self, image: &str) -> Container {
        self.recipe(image).serve()
    }

    /// What stands between `docker run` and the image for a second container of the same.
    pub fn options(&self) -> Vec<String> {
        let settings = self.settings.iter().chain(&SETTINGS);
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
    pub fn write(&self, text: &str) {
        let answer = session(&self.network, DOMAIN, &["login", "message", "archive", "--text", text]);
        assert_eq!(answer.status, 0, "{}", answer.all());
    }

    /// Both accounts log in, and the message is in the archive.
    #[track_caller]
    pub fn read(&self, text: &str, server: &Container) {
        let answer = session(&self.network, DOMAIN, &["login", "archive", "--text", text]);
        assert_eq!(answer.status, 0, "{}\n{}", answer.all(), server.logs());
    }

    /// Empties the tables, which exist.
    #[track_caller]
    pub fn delete_rows(&self) {
        const TABLES: &str = "DELETE FROM prosody; DELETE FROM prosodyarchive";
        if self.settings.iter().any(|(_, value)| *value == "MySQL") {
            self.mariadb_client(TABLES);
        } else {
            let psql = format!("psql prosody -c '{TABLES}'");
            self.database.as_ref().unwrap().as_user("postgres", &psql).ok();
        }
    }

    /// Runs SQL in MariaDB, and gives the rows.
    #[track_caller]
    fn mariadb_client(&self, sql: &str) -> String {
        let mariadb =
            ["mariadb", "--no-defaults", "--skip-column-names", "--database=prosody", "--execute", sql];
        self.database.as_ref().unwrap().exec(mariadb).ok()
    }

    /// Executes SQL in the database. A server with SQLite must be stopped.
    #[track_caller]
    pub fn execute(&self, sql: &str) {
        match (&self.database, self.settings.contains(&("PROSODY_DB_DRIVER", "MySQL"))) {
            (Some(_), true) => drop(self.mariadb_client(sql)),
            (Some(database), false) => {
                database.exec(["psql", "-qX", "-v", "ON_ERROR_STOP=1", "-d", "prosody", "-c", sql]).ok();
            }
            (None, _) => {
                let lua = format!(
                    "local connection = assert(require 'DBI'.Connect('SQLite3', '/volume/prosody.sqlite'))\n\
                     for query in ([[{sql}]]):gmatch('[^;]*[^;%s][^;]*') do\n\
                     assert(assert(connection:prepare(query)):execute())\nend\n\
                     assert(connection:commit())\nconnection:close()"
                );
                let script = format!(
                    "lua5.4 - <<'END'\n{lua}\nEND\nchown --reference=/volume/prosody.sqlite /volume/prosody.sqlite*"
                );
                self.data.prepare(TRIXIE, &script);
            }
        }
    }
}

pub fn stop(server: Container) {
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
fn what_0_12_wrote_into_files_is_there_in_13_0() {
    outlives_an_upgrade(&Deployment::internal());
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
    shell(&server, &format!("user:setroles('bob@{DOMAIN}', {{ 'prosody:admin', 'prosody:registered' }})"));
    shell(&server, &format!("user:setroles('alice@{DOMAIN}', 'prosody:user')"));
    stop(server);

    let server = deployment.serve(TRIXIE);
    says_nothing_of_tables(&server);
    deployment.read(&of_0_12, &server);
    deployment.write(&of_13_0);
    let logs = server.logs();
    for line in [
        "Taken over from Prosody 0.12: bob@chat.example has the role prosody:admin",
        "The roles of alice@chat.example from Prosody 0.12 are not taken over: unknown: prosody:user",
    ] {
        assert_eq!(logs.matches(line).count(), 1, "{line}\n{logs}");
    }
    let role = shell(&server, &format!("user:role('bob@{DOMAIN}')"));
    assert!(role.contains("prosody:admin"), "{role}");
    shell(&server, &format!("user:set_role('bob@{DOMAIN}', 'prosody:registered')"));
    stop(server);

    let server = deployment.serve(TRIXIE);
    says_nothing_of_tables(&server);
    deployment.read(&of_0_12, &server);
    deployment.read(&of_13_0, &server);
    let role = shell(&server, &format!("user:role('bob@{DOMAIN}')"));
    assert!(role.contains("prosody:registered"), "who was demoted is an administrator again: {role}");
    assert!(!server.logs().contains("from Prosody 0.12"), "{}", server.logs());
}

/// Runs a command of Prosody's shell.
#[track_caller]
pub fn shell(server: &Container, command: &str) -> String {
    server.exec(["prosodyctl", "shell", command]).ok()
}

/// Uploads of the community module, from before there was one of Prosody's own.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn old_uploads_are_taken_over_as_the_page_says() {
    let page = include_str!("../../docs/upgrading.md");
    let options = page.lines().find_map(|line| line.strip_prefix("docker run --rm OPTIONS -e "));
    let (path, _) = options.unwrap().split_once(" IMAGE ").unwrap();
    let command = page.lines().find(|line| line.contains("mod_migrate_http_upload")).unwrap().trim();
    let links = page.split('`').find_map(|code| code.strip_prefix("PROSODY_OPTIONS='")?.strip_suffix('\''));
    let days = page.split('`').find_map(|code| code.strip_prefix("PROSODY_UPLOAD_EXPIRY_DAYS="));
    // Three weeks old, and so one that the default would delete.
    const OLD: &str = "umask 0; cd /volume; mkdir -p http_upload/AbC-123_x chat%2eexample/http_upload\n\
        echo the content >'http_upload/AbC-123_x/old pic.txt'\n\
        printf 'item({ filename = \"old pic.txt\"; dir = \"AbC-123_x\"; size = 12; time = %s; });\n' \
        $(($(date +%s) - 1814400)) >chat%2eexample/http_upload/alice.list; chown -R 999:999 .";
    for image in images() {
        let mut deployment = Deployment::internal();
        deployment.data.prepare(image, OLD);
        let recipe = || {
            let recipe = Recipe::new(image).env("PROSODY_DOMAIN", DOMAIN);
            recipe.volume(&deployment.data, "/var/lib/prosody")
        };
        let moved =
            || command.split(' ').fold(recipe().with(["--env", path]), |it, word| it.word(word)).run();
        let first = moved();
        assert_eq!(first.status, 0, "{first:?}");
        assert!(first.stdout.contains("for alice@chat.example"), "{first:?}");
        let second = moved();
        assert!(!second.stdout.contains("Moving"), "{second:?}");

        deployment.settings =
            vec![("PROSODY_OPTIONS", links.unwrap()), ("PROSODY_UPLOAD_EXPIRY_DAYS", days.unwrap())];
        let server = deployment.serve(image);
        let mut stream = TcpStream::connect((server.address(), 5280)).unwrap();
        let get = "GET /upload/AbC-123_x/old%20pic.txt HTTP/1.0\r\nHost: upload.chat.example\r\n\r\n";
        stream.write_all(get.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(
            answer.contains(" 200 OK") && answer.ends_with("the content\n"),
            "{answer}\n{}",
            server.logs()
        );
    }
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
