//! Data that another image has written are taken over: accounts, rosters, archives and shared files.
//!
//! The other image is Prosody 0.12 itself with no entrypoint of ours, a main file with what that image's configuration
//! comes to, and that image's user.

use crate::docker::{
    Answer, BOOKWORM, CLIENT, Container, Network, Observations, PATIENCE, Recipe, Volume, docker, eventually,
    images, unique,
};

const DOMAIN: &str = "chat.example";
const UPLOAD: &str = "upload.chat.example";

/// An image of `make test-images`, where its server finds its password, and the password.
const POSTGRESQL: &str = "prosody-entrypoint-test-postgresql:15";
const PASSWORD: (&str, &str) = ("/run/database-password", "correct horse");

/// What stands in the configuration of every image: Debian's modules, and those that the users of archives have.
const COMMON: &str = r#"
modules_enabled = {
	"disco", "roster", "saslauth", "tls", "blocklist", "bookmarks", "carbons", "dialback", "limits", "pep", "private",
	"smacks", "vcard4", "vcard_legacy", "csi_simple", "invites", "ping", "register", "time", "uptime", "version",
	"admin_adhoc", "admin_shell", "mam",
}
limits = { c2s = { rate = "10kb/s" }, s2sin = { rate = "30kb/s" } }
authentication = "internal_hashed"
log = { info = "*console" }
certificates = "certs"
"#;

/// The hosts as the official image has them: one name for all of HTTP, and files under /share.
const OFFICIAL: &str = r#"
http_host = "chat.example"
VirtualHost "chat.example"
Component "upload.chat.example" "http_file_share"
	http_paths = { file_share = "/share" }
"#;

/// The hosts of OpusVL's image are in its users' files.
const OPUSVL: &str = r#"
VirtualHost "localhost"
Include "vhost.d/*.cfg.lua"
Include "cmpt.d/*.cfg.lua"
"#;

const OPUSVL_FILES: [(&str, &str); 2] = [
    ("vhost.d/chat.cfg.lua", "VirtualHost \"chat.example\"\n"),
    ("cmpt.d/upload.cfg.lua", "Component \"upload.chat.example\" \"http_file_share\"\n"),
];

/// How the official image's users name what [`OFFICIAL`] has.
const OFFICIAL_VARIABLES: [(&str, &str); 3] = [
    ("PROSODY_VIRTUAL_HOSTS", DOMAIN),
    ("PROSODY_COMPONENTS", "upload.chat.example:http_file_share"),
    ("PROSODY_RETENTION_DAYS", "30"),
];

/// One deployment, first of another image and then of ours.
struct Deployment {
    /// It stands before its network, which cannot be removed while it is there.
    database: Option<Container>,
    network: Network,
    data: Volume,
    /// Whom Prosody ran as there.
    user: &'static str,
    /// The main file there.
    main: String,
    /// What users mount below /etc/prosody, there and here.
    files: Vec<(&'static str, String)>,
    /// The variables, which are the same here as there.
    variables: Vec<(&'static str, &'static str)>,
}

impl Deployment {
    fn new(user: &'static str, main: &[&str], variables: &[(&'static str, &'static str)]) -> Self {
        let made = rcgen::generate_simple_self_signed([DOMAIN.to_owned(), UPLOAD.to_owned()]).unwrap();
        let files = vec![
            ("certs/chat.example.crt", made.cert.pem()),
            ("certs/chat.example.key", made.signing_key.serialize_pem()),
        ];
        let data = Volume::new();
        data.prepare(
            BOOKWORM,
            &format!("touch /volume/.keep && chown -R {user} /volume && chmod 0750 /volume"),
        );
        let main = format!("{COMMON}{}", main.concat());
        let variables = variables.to_vec();
        Deployment { database: None, network: Network::new(), data, user, main, files, variables }
    }

    fn official(user: &'static str, main: &str, variables: &[(&'static str, &'static str)]) -> Self {
        Self::new(user, &[main, OFFICIAL], &[&OFFICIAL_VARIABLES, variables].concat())
    }

    fn opusvl(main: &str, variables: &[(&'static str, &'static str)]) -> Self {
        let mut deployment = Self::new(
            "101:101",
            &[main, OPUSVL],
            &[&[("PROSODY_MODULES_ENABLED", "mam")], variables].concat(),
        );
        deployment.files.extend(OPUSVL_FILES.map(|(name, content)| (name, content.to_owned())));
        deployment
    }

    fn with_postgresql(mut self) -> Self {
        let database = Recipe::new(POSTGRESQL)
            .env("POSTGRES_PASSWORD_FILE", PASSWORD.0)
            .file(PASSWORD.0, PASSWORD.1)
            .on(&self.network, &["postgresql"])
            .start();
        // Prosody alone does not wait for it.
        eventually("PostgreSQL", PATIENCE, || {
            let answer = database.exec(["pg_isready", "--host=127.0.0.1"]);
            if answer.status == 0 { Ok(()) } else { Err(answer.all()) }
        });
        self.database = Some(database);
        self
    }

    /// A server of the image, with these data and what users mount.
    fn recipe(&self, image: &str, data: &Volume) -> Recipe {
        let recipe = Recipe::new(image).volume(data, "/var/lib/prosody").on(&self.network, &[DOMAIN, UPLOAD]);
        self.files
            .iter()
            .fold(recipe, |recipe, (name, content)| recipe.file(&format!("/etc/prosody/{name}"), content))
    }

    /// Has Prosody run as the other image runs it, and its users do what they do. Returns the link of the shared file.
    #[track_caller]
    fn write(&self, text: &str) -> String {
        let server = self
            .recipe(BOOKWORM, &self.data)
            .with(["--user", self.user, "--entrypoint", "/usr/bin/prosody"])
            .file("/etc/prosody/prosody.cfg.lua", &self.main)
            .command(["-F"])
            .start();
        server.wait_for_log("Activated service 'c2s'");
        server.wait_for_log("Activated service 'https'");
        for (name, password) in [("alice", "secret-a"), ("bob", "secret-b")] {
            server.exec(["/usr/bin/prosodyctl", "register", name, DOMAIN, password]).ok();
        }
        let written = self.client(&["write", DOMAIN, text]);
        assert_eq!(written.status, 0, "{written:?}\n{}", server.logs());
        docker(["stop", &server.name]).ok();
        let link = written.stdout.trim().strip_prefix("link: ").unwrap();
        link.to_owned()
    }

    fn client(&self, arguments: &[&str]) -> Answer {
        let recipe = Recipe::new(CLIENT)
            .on(&self.network, &[])
            .file("/session.py", include_str!("../client/session.py"))
            .file("/inventory.py", include_str!("../client/inventory.py"));
        ["python3", "/inventory.py"]
            .iter()
            .chain(arguments)
            .fold(recipe, |recipe, word| recipe.word(word))
            .run()
    }

    /// A volume with all that the other image has written.
    fn copy_of_data(&self) -> Volume {
        let copy = Volume::new();
        let [from, to] = [format!("{}:/from:ro", self.data.name), format!("{}:/to", copy.name)];
        let copied = ["run", "--rm", "-v", &from, "-v", &to, "--entrypoint", "/bin/cp", BOOKWORM, "-a"];
        docker(copied.into_iter().chain(["/from/.", "/to"])).ok();
        copy
    }

    fn take_over(&self, image: &str, data: &Volume) -> Container {
        let recipe = self.recipe(image, data);
        self.variables.iter().fold(recipe, |recipe, (name, value)| recipe.env(name, value)).serve()
    }
}

/// What Prosody 0.12 has written without us is there with us, and the files belong to whom they did. Where all is wanted, a
/// database goes from 0.12 to 13.0.
#[track_caller]
fn is_taken_over(deployment: &Deployment, path: &str) {
    let text = unique("message");
    let link = deployment.write(&text);
    let mut seen = Observations::default();
    seen.that("the link is as that image has it", link.contains(path), &link);
    for image in images().iter().rev() {
        let data = deployment.copy_of_data();
        let server = deployment.take_over(image, &data);
        let found = deployment.client(&["read", DOMAIN, &text, &link]);
        seen.that(
            &format!("{image}: everything is there"),
            found.stdout.trim() == "all is there",
            format!("{found:?}\n{}", server.logs()),
        );
        let (uid, _) = deployment.user.split_once(':').unwrap();
        let pid = server.server_pid();
        let runs_as = server.root(&format!("stat -c %u /proc/{pid}")).stdout;
        seen.equal(&format!("{image}: whom Prosody runs as"), runs_as.trim(), uid);
        let others = server.root(&format!("find /var/lib/prosody ! -uid {uid}")).all();
        seen.equal(&format!("{image}: what belongs to others"), others.as_str(), "");
        let complaint = server.logs().lines().find(|line| line.contains(" error\t")).map(str::to_owned);
        seen.equal(&format!("{image}: errors"), complaint, None);
        docker(["stop", &server.name]).ok();
    }
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn files_of_the_official_image() {
    let deployment = Deployment::official("999:999", "storage = \"internal\"\n", &[]);
    is_taken_over(&deployment, "https://chat.example:5281/share/");
}

/// Its older versions had another user.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn sqlite_of_the_official_image() {
    let deployment = Deployment::official("1000:1000", "storage = \"sql\"\n", &[("PROSODY_STORAGE", "sql")]);
    is_taken_over(&deployment, "https://chat.example:5281/share/");
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn files_of_opusvls_image() {
    is_taken_over(
        &Deployment::opusvl("default_storage = \"internal\"\n", &[]),
        "https://upload.chat.example:5281/",
    );
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn sqlite_of_opusvls_image() {
    let deployment = Deployment::opusvl(
        "default_storage = \"sql\"\nsql = { driver = \"SQLite3\", database = \"prosody\" }\n",
        &[("PROSODY_DEFAULT_STORAGE", "sql"), ("PROSODY_DB_DRIVER", "SQLite3")],
    );
    is_taken_over(&deployment, "https://upload.chat.example:5281/");
}

/// The variables of OpusVL's image for its database, and what they come to there.
const OPUSVL_DATABASE: [(&str, &str); 3] = [
    ("PROSODY_DB_HOST", "postgresql"),
    ("PROSODY_DB_USERNAME", "prosody"),
    ("PROSODY_DB_PASSWORD", PASSWORD.1),
];
const OPUSVL_SQL: &str = r#"
sql = { driver = "PostgreSQL", database = "prosody", username = "prosody", password = "correct horse", host = "postgresql" }
"#;

#[test]
#[ignore = "needs Docker and the images: make test"]
fn postgresql_of_opusvls_image() {
    let variables = [&[("PROSODY_DEFAULT_STORAGE", "sql")][..], &OPUSVL_DATABASE].concat();
    let main = format!("default_storage = \"sql\"\n{OPUSVL_SQL}");
    let deployment = Deployment::opusvl(&main, &variables).with_postgresql();
    is_taken_over(&deployment, "https://upload.chat.example:5281/");
}

/// The archive alone is in the database: nothing else may be looked for there.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn one_store_in_postgresql_of_opusvls_image() {
    let variables = [&[("PROSODY_STORAGE_ARCHIVE", "sql")][..], &OPUSVL_DATABASE].concat();
    let main = format!("default_storage = \"internal\"\nstorage = {{ archive = \"sql\" }}\n{OPUSVL_SQL}");
    let deployment = Deployment::opusvl(&main, &variables).with_postgresql();
    is_taken_over(&deployment, "https://upload.chat.example:5281/");
    let database = deployment.database.as_ref().unwrap();
    let stores =
        "SELECT DISTINCT store FROM prosody UNION SELECT DISTINCT store FROM prosodyarchive ORDER BY 1";
    let stores = database.as_user("postgres", &format!("psql -At prosody -c '{stores}'"));
    assert_eq!(stores.stdout, "archive\n", "{stores:?}");
}

/// Its own variables for a database, which have other defaults than OpusVL's.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn postgresql_of_the_official_image() {
    let variables = [
        ("PROSODY_SQL_DRIVER", "PostgreSQL"),
        ("PROSODY_SQL_DB", "prosody"),
        ("PROSODY_SQL_HOST", "postgresql"),
        ("PROSODY_SQL_USERNAME", "prosody"),
        ("PROSODY_SQL_PASSWORD", PASSWORD.1),
    ];
    let main = format!("storage = \"sql\"\n{OPUSVL_SQL}");
    let deployment = Deployment::official("999:999", &main, &variables).with_postgresql();
    is_taken_over(&deployment, "https://chat.example:5281/share/");
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn sqlite_by_driver_of_the_official_image() {
    let main = "storage = \"sql\"\nsql = { driver = \"SQLite3\" }\n";
    let deployment = Deployment::official("999:999", main, &[("PROSODY_SQL_DRIVER", "SQLite3")]);
    is_taken_over(&deployment, "https://chat.example:5281/share/");
}
