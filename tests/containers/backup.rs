//! Backups of servers with every storage, and their way into other servers.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::docker::{
    Answer, BOOKWORM, CLIENT, Container, Dialogue, Observations, PATIENCE, Recipe, TRIXIE, Volume, docker,
    eventually, in_place_of, is_all_wanted, unique,
};
use crate::upgrade::{DOMAIN, Deployment, stop};

/// Where a file of records begins in a backup.
pub const RECORDS: &str = "records/000001.ndjson";

/// A backup on the host.
pub struct Backup(pub PathBuf);

impl Drop for Backup {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Backup {
    pub fn new() -> Self {
        Backup(std::env::temp_dir().join(unique("backup")))
    }

    pub fn of(archive: &[u8]) -> Self {
        let backup = Self::new();
        fs::write(&backup.0, archive).unwrap();
        backup
    }

    /// Runs `docker` with the backup as standard output.
    pub fn write(&self, arguments: &[String]) -> Answer {
        let file = File::create(&self.0).unwrap();
        Command::new("docker").args(arguments).stdin(Stdio::null()).stdout(file).output().unwrap().into()
    }

    /// Runs `docker` with the backup as standard input.
    pub fn read(&self, arguments: &[String]) -> Answer {
        let file = File::open(&self.0).unwrap();
        Command::new("docker").args(arguments).stdin(file).output().unwrap().into()
    }

    /// The names and contents of its members.
    pub fn members(&self) -> Vec<(String, Vec<u8>)> {
        let archive = fs::read(&self.0).unwrap();
        let (mut members, mut at) = (Vec::new(), 0);
        let text =
            |bytes: &[u8]| String::from_utf8(bytes.split(|b| *b == 0).next().unwrap().to_vec()).unwrap();
        while archive[at] != 0 {
            let header = &archive[at..at + 512];
            let size = usize::from_str_radix(&text(&header[124..136]), 8).unwrap();
            members.push((text(&header[..100]), archive[at + 512..at + 512 + size].to_vec()));
            at += 512 + size.next_multiple_of(512);
        }
        members
    }

    /// Everything in it as text that is the same for the same data: uploads, and records without what no storage keeps.
    /// That are the order of attributes, and fractions of a second.
    pub fn content(&self) -> BTreeSet<String> {
        let mut content = BTreeSet::new();
        for (name, bytes) in self.members() {
            if name.starts_with("uploads/") {
                content.insert(format!("{name}: {bytes:?}"));
            }
            for line in bytes.split(|byte| *byte == b'\n').filter(|_| name.starts_with("records/")) {
                let Ok(mut record) = serde_json::from_slice::<Value>(line) else { continue };
                if let Some(text) = record["value"].as_str() {
                    let mut letters: Vec<char> = text.replace('"', "'").chars().collect();
                    letters.sort_unstable();
                    record["value"] = letters.into_iter().collect::<String>().into();
                    record["when"] = record["when"].as_f64().unwrap().floor().into();
                }
                content.insert(record.to_string());
            }
        }
        content
    }
}

pub fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Makes a backup beside the running server.
#[track_caller]
pub fn of_running(server: &Container) -> Backup {
    let backup = Backup::new();
    let answer = backup.write(&words(&["exec", &server.name, "prosody-entrypoint", "backup"]));
    assert_eq!(answer.status, 0, "{answer:?}");
    backup
}

/// The arguments for a command in a new container of a deployment.
pub fn in_new(deployment: &Deployment, image: &str, command: &[&str]) -> Vec<String> {
    let image = [in_place_of(image)];
    let parts = [words(&["run", "-i", "--rm"]), deployment.options(), image.to_vec(), words(command)];
    parts.concat()
}

/// Restores a backup, and makes one of what is there then, without a server.
#[track_caller]
pub fn restore(backup: &Backup, deployment: &Deployment, image: &str) -> Backup {
    let answer = backup.read(&in_new(deployment, image, &["restore"]));
    assert_eq!(answer.status, 0, "{answer:?}");
    assert!(answer.stderr.contains("Restored: "), "{answer:?}");
    let again = Backup::new();
    let answer = again.write(&in_new(deployment, image, &["backup"]));
    assert_eq!(answer.status, 0, "{answer:?}");
    again
}

/// Exports an account, and compares it with what a backup has of it.
#[track_caller]
fn has_what_is_alices(server: &Container, backup: &Backup) {
    let export = Backup::new();
    let account = "alice@chat.example";
    let answer = export.write(&words(&["exec", &server.name, "prosody-entrypoint", "export", account]));
    assert_eq!(answer.status, 0, "{answer:?}");
    let is_hers = |record: &String| {
        let Ok(record) = serde_json::from_str::<Value>(record) else { return record.starts_with("uploads/") };
        record["user"] == "alice" && record["host"] == DOMAIN
            || record["with"] == account && record["store"] == "uploads"
    };
    let content = export.content();
    assert_eq!(content, backup.content().into_iter().filter(is_hers).collect());
    for part in ["accounts", "archive", "roster", "uploads"] {
        assert!(content.iter().any(|line| line.contains(part)), "{part}: {content:?}");
    }
}

/// What a server of 13.0 has after [`fill`]. The archive's days are of the storage in files, and not in a backup.
const STORES: [&str; 20] = [
    "account_roles",
    "accounts",
    "archive",
    "archive_prefs",
    "blocklist",
    "cloud_notify",
    "config",
    "invite_token",
    "muc_log",
    "offline",
    "pep",
    "pep_urn:example:belongings",
    "pep_urn:xmpp:avatar:data",
    "pep_urn:xmpp:avatar:metadata",
    "pep_urn:xmpp:bookmarks:1",
    "private",
    "pubsub_nodes",
    "pubsub_urn:example:belongings",
    "roster",
    "uploads",
];

/// Fails where two backups differ.
#[track_caller]
pub fn are_the_same(before: &Backup, after: &Backup) {
    let (before, after) = (before.content(), after.content());
    let [lost, new]: [Vec<&String>; 2] =
        [before.difference(&after).collect(), after.difference(&before).collect()];
    assert!(lost.is_empty() && new.is_empty(), "lost: {lost:#?}\nnew: {new:#?}");
}

/// Runs tests/client/belongings.py.
fn client(deployment: &Deployment, arguments: &[&str]) -> Answer {
    let recipe = Recipe::new(CLIENT)
        .on(&deployment.network, &[])
        .file("/session.py", include_str!("../client/session.py"))
        .file("/belongings.py", include_str!("../client/belongings.py"));
    let start = ["python3", "/belongings.py", arguments[0], DOMAIN];
    start.iter().chain(&arguments[1..]).fold(recipe, |recipe, word| recipe.word(word)).run()
}

/// Leaves something of each kind on a server. Returns the link of an upload.
#[track_caller]
fn fill(deployment: &Deployment, server: &Container, text: &str) -> String {
    server.register_accounts(DOMAIN);
    // The function has another name in 0.12.
    let role = format!("(user.set_role or user.setroles)(user, 'bob@{DOMAIN}', 'prosody:admin')");
    for command in [role, format!("invite:create_account('{DOMAIN}')")] {
        let answer = server.exec(["prosodyctl", "shell", &command]);
        assert_eq!(answer.status, 0, "{command}: {answer:?}");
    }
    let answer = client(deployment, &["write", text]);
    let link = answer.stdout.trim().strip_prefix("link: ").map(str::to_owned);
    link.unwrap_or_else(|| panic!("{answer:?}\n{}", server.logs()))
}

/// Finds it.
#[track_caller]
fn find(deployment: &Deployment, server: &Container, text: &str, link: &str) {
    let answer = client(deployment, &["read", text, link]);
    assert_eq!(answer.stdout.trim(), "all is there", "{answer:?}\n{}", server.logs());
}

/// What is text in JSON, XML, Lua and SQL.
fn any_text() -> String {
    format!("{} Grüße, ]] \"' {{{{ }}}} <&> \\n \\u0041 ' -- \u{1f600}", unique("text"))
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_backup_beside_a_server_with_files_comes_back_in_postgresql() {
    let (text, from, to) = (any_text(), Deployment::internal(), Deployment::postgresql());
    let server = from.serve(TRIXIE);
    let link = fill(&from, &server, &text);
    let backup = of_running(&server);
    let names: Vec<String> = backup.members().into_iter().map(|(name, _)| name).collect();
    assert_eq!((&*names[0], &*names[1]), ("manifest.json", RECORDS), "{names:?}");
    assert!(names[2].starts_with("uploads/upload%2echat%2eexample/"), "{names:?}");
    assert_eq!((names.len(), &*names[3]), (4, "end.json"), "{names:?}");
    let records: Vec<Value> =
        backup.content().iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let stores: BTreeSet<&str> = records.iter().filter_map(|record| record["store"].as_str()).collect();
    assert_eq!(STORES.map(|store| stores.contains(store)), [true; STORES.len()], "{stores:?}");
    has_what_is_alices(&server, &backup);
    are_the_same(&backup, &in_its_own(&from, TRIXIE));
    let nobody = server.exec(["prosody-entrypoint", "export", "nobody@chat.example", "/tmp/export.tar"]);
    assert_eq!(nobody.status, 66, "{nobody:?}");
    assert!(nobody.stderr.contains("there is no account nobody@chat.example"), "{nobody:?}");
    stop(server);

    are_the_same(&backup, &restore(&backup, &to, TRIXIE));
    let server = to.serve(TRIXIE);
    find(&to, &server, &text, &link);
    // Beside the server, in the transaction of a database.
    let again = of_running(&server);
    assert!(again.content().len() >= backup.content().len(), "{:?}", again.content());
    are_the_same(&again, &in_its_own(&to, TRIXIE));
    has_what_is_alices(&server, &again);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_backup_of_sqlite_comes_back_in_files_of_prosody_0_12() {
    let (text, from, to) = (any_text(), Deployment::sqlite(), Deployment::internal());
    let server = from.serve(TRIXIE);
    let link = fill(&from, &server, &text);
    let saved = server.exec(["prosody-entrypoint", "backup", "/tmp/backup.tar"]);
    assert_eq!(saved.status, 0, "{saved:?}");
    assert_eq!(server.root("stat -c %a /tmp/backup.tar; ls /tmp").ok(), "600\nbackup.tar");
    let backup = of_running(&server);
    are_the_same(&backup, &in_its_own(&from, TRIXIE));
    find(&from, &server, &text, &link);
    stop(server);

    are_the_same(&backup, &restore(&backup, &to, BOOKWORM));
    let server = to.serve(BOOKWORM);
    find(&to, &server, &text, &link);
}

/// The URL of a deployment's database.
fn url(scheme: &str) -> &'static str {
    match scheme {
        "postgresql" => "postgresql://prosody:correct%20horse@database/prosody",
        _ => "mysql://prosody:correct%20horse@database/prosody",
    }
}

/// Migrates the data of a deployment without a server.
fn migrate(deployment: &Deployment, image: &str, to: &str) -> Answer {
    let command = in_new(deployment, image, &["migrate", "--to", to]);
    Command::new("docker").args(command).stdin(Stdio::null()).output().unwrap().into()
}

/// Makes a backup in a container of its own, beside the server's or without one.
#[track_caller]
fn in_its_own(deployment: &Deployment, image: &str) -> Backup {
    let backup = Backup::new();
    let answer = backup.write(&in_new(deployment, image, &["backup"]));
    assert_eq!(answer.status, 0, "{answer:?}");
    backup
}

/// Runs a shell line with the data of a deployment.
#[track_caller]
fn with_data(deployment: &Deployment, line: &str) -> String {
    let data = (&deployment.data, "/var/lib/prosody");
    Recipe::new(TRIXIE)
        .volume(data.0, data.1)
        .command(["sh", "-c", &format!("cd {}; {line}", data.1)])
        .run()
        .ok()
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_server_moves_from_files_to_postgresql_and_back() {
    let (text, mut deployment) = (any_text(), Deployment::postgresql());
    deployment.settings.clear();
    let server = deployment.serve(TRIXIE);
    let link = fill(&deployment, &server, &text);
    let used = server.exec(["prosody-entrypoint", "migrate", "--to", "sqlite"]);
    assert_eq!(used.status, 69, "{used:?}");
    assert!(used.stderr.contains("run `docker run --rm OPTIONS IMAGE migrate`"), "{used:?}");
    stop(server);
    let before = in_its_own(&deployment, TRIXIE);
    let here = migrate(&deployment, TRIXIE, "internal");
    assert_eq!((here.status, here.stdout.as_str()), (64, ""), "{here:?}");
    let wrong = migrate(&deployment, TRIXIE, "postgresql://prosody:correct@horse@database/prosody");
    assert_eq!(wrong.status, 64, "{wrong:?}");
    assert!(wrong.stderr.contains("--to: expected `internal`, `sqlite` or a URL"), "{wrong:?}");
    assert!(!wrong.all().contains("correct"), "{wrong:?}");
    let files = || with_data(&deployment, "find . -type f ! -name '*.pem' | sort");
    let source = files();
    let moved = migrate(&deployment, TRIXIE, url("postgresql"));
    assert_eq!(moved.status, 0, "{moved:?}");
    assert!(moved.stderr.contains("Migrated: ") && !moved.all().contains("correct"), "{moved:?}");
    let set = "set PROSODY_DATABASE_URL=postgresql://prosody:PASSWORD@database/prosody\n";
    assert!(moved.stdout.ends_with(set), "{moved:?}");
    assert_eq!(files(), source, "the source stays as it is");
    let again = migrate(&deployment, TRIXIE, url("postgresql"));
    assert_eq!(again.status, 73, "{again:?}");
    assert!(again.stderr.contains("has data, and `migrate` overwrites none"), "{again:?}");

    deployment.settings = vec![("PROSODY_DATABASE_URL", url("postgresql"))];
    are_the_same(&before, &in_its_own(&deployment, TRIXIE));
    let server = deployment.serve(TRIXIE);
    find(&deployment, &server, &text, &link);
    stop(server);

    let before = in_its_own(&deployment, TRIXIE);
    let old = migrate(&deployment, TRIXIE, "internal");
    assert_eq!(old.status, 73, "{old:?}");
    assert!(old.stderr.contains("overwrites none: /var/lib/prosody/"), "{old:?}");
    with_data(&deployment, "find . -name '*.dat' -delete -o -name '*.list' -delete");
    let moved = migrate(&deployment, TRIXIE, "internal");
    assert_eq!(moved.status, 0, "{moved:?}");
    assert!(
        moved.stdout.contains("set PROSODY_DEFAULT_STORAGE=internal\nand leave out PROSODY_DATABASE_URL\n"),
        "{moved:?}"
    );
    deployment.settings.clear();
    are_the_same(&before, &in_its_own(&deployment, TRIXIE));
    let server = deployment.serve(TRIXIE);
    find(&deployment, &server, &text, &link);
}

/// As when it is killed between two renames.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn an_interrupted_migration_is_run_again() {
    let (text, mut deployment) = (any_text(), Deployment::sqlite());
    let server = deployment.serve(BOOKWORM);
    let link = fill(&deployment, &server, &text);
    stop(server);
    let before = in_its_own(&deployment, BOOKWORM);
    let moved = migrate(&deployment, BOOKWORM, "internal");
    assert_eq!(moved.status, 0, "{moved:?}");
    with_data(
        &deployment,
        "mkdir .migrating && mv chat%2eexample .migrating && mkdir chat%2eexample && mv .migrating/chat%2eexample/roster* chat%2eexample",
    );
    for command in [&[][..], &["backup", "/tmp/backup.tar"], &["restore", "/dev/null"]] {
        let refused = Backup::of(b"").read(&in_new(&deployment, BOOKWORM, command));
        assert_eq!(refused.status, 73, "{command:?}: {refused:?}");
        assert!(refused.stderr.contains("run it again, with the settings of before"), "{refused:?}");
    }
    let moved = migrate(&deployment, BOOKWORM, "internal");
    assert_eq!(moved.status, 0, "{moved:?}");
    deployment.settings.clear();
    are_the_same(&before, &in_its_own(&deployment, BOOKWORM));
    let server = deployment.serve(BOOKWORM);
    find(&deployment, &server, &text, &link);
}

/// Through all storages, and back into files.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn migrations_keep_every_record() {
    if !is_all_wanted() {
        return;
    }
    for image in [TRIXIE, BOOKWORM] {
        for (database, scheme) in
            [(Deployment::postgresql as fn() -> Deployment, "postgresql"), (Deployment::mariadb, "mysql")]
        {
            let mut deployment = database();
            deployment.settings.clear();
            let server = deployment.serve(image);
            fill(&deployment, &server, &any_text());
            stop(server);
            let before = in_its_own(&deployment, image);
            for (to, settings) in [
                ("sqlite", vec![("PROSODY_DEFAULT_STORAGE", "sqlite")]),
                (url(scheme), vec![("PROSODY_DATABASE_URL", url(scheme))]),
                ("internal", vec![]),
            ] {
                if to == "internal" {
                    with_data(&deployment, "find . -name '*.dat' -delete -o -name '*.list' -delete");
                }
                let moved = migrate(&deployment, image, to);
                assert_eq!(moved.status, 0, "{to}: {moved:?}");
                deployment.settings = settings;
                are_the_same(&before, &in_its_own(&deployment, image));
            }
        }
    }
}

/// With a main file of its own, Prosody opens SQLite's file as it always does.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn sqlite_without_a_write_ahead_log_is_not_read_beside_a_server() {
    const MAIN: &str = "default_storage = 'sql'\nsql = { driver = 'SQLite3', database = 'prosody.sqlite' }\n\
        log = { info = '*console' }\nVirtualHost 'chat.example'\n";
    let data = Volume::new();
    let deployed =
        || Recipe::new(TRIXIE).volume(&data, "/var/lib/prosody").file("/etc/prosody/prosody.cfg.lua", MAIN);
    let server = deployed().serve();
    server.register("alice", DOMAIN, "secret-a").ok();
    let backup = ["prosody-entrypoint", "backup", "/tmp/backup.tar"];
    let refused = server.exec(backup);
    assert_eq!(refused.status, 69, "{refused:?}");
    assert!(refused.stderr.contains("has no write-ahead log: stop the server, and run"), "{refused:?}");
    assert_eq!(server.root("ls /tmp").ok(), "", "the file of a backup that failed");
    stop(server);
    let refused = deployed().command(["migrate", "--to", "internal"]).run();
    assert_eq!(refused.status, 78, "{refused:?}");
    assert!(refused.stderr.contains("restore the backup into an empty data directory"), "{refused:?}");
    let saved = deployed().command(backup).run();
    assert_eq!(saved.status, 0, "{saved:?}");
    assert!(saved.stderr.contains("later backups can be made beside the server"), "{saved:?}");
    let saved = deployed().serve().exec(backup);
    assert_eq!(saved.status, 0, "{saved:?}");
}

/// A storage of each version into each of each version.
fn every_way_keeps_every_record(from: fn() -> Deployment) {
    if !is_all_wanted() {
        return;
    }
    for from_image in [TRIXIE, BOOKWORM] {
        let (text, from) = (any_text(), from());
        let server = from.serve(from_image);
        fill(&from, &server, &text);
        stop(server);
        let backup = Backup::new();
        let answer = backup.write(&in_new(&from, from_image, &["backup"]));
        assert_eq!(answer.status, 0, "{answer:?}");
        for to_image in [TRIXIE, BOOKWORM] {
            for to in [Deployment::internal, Deployment::sqlite, Deployment::postgresql, Deployment::mariadb]
            {
                let to = to();
                // A database needs a moment. A start waits for it.
                stop(to.serve(to_image));
                are_the_same(&backup, &restore(&backup, &to, to_image));
            }
        }
    }
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn every_way_from_files_keeps_every_record() {
    every_way_keeps_every_record(Deployment::internal);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn every_way_from_sqlite_keeps_every_record() {
    every_way_keeps_every_record(Deployment::sqlite);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn every_way_from_postgresql_keeps_every_record() {
    every_way_keeps_every_record(Deployment::postgresql);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn every_way_from_mariadb_keeps_every_record() {
    every_way_keeps_every_record(Deployment::mariadb);
}

/// A tar archive of these members.
pub fn archive(members: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, content) in members {
        archive.extend(member(name, b'0', content.as_bytes()));
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

/// One of its members.
pub fn member(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 512];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, b"0000600\x000000000\x000000000\0");
    put(124, format!("{:011o}\x0000000000000\0        ", content.len()).as_bytes());
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    header.extend(content);
    header.resize(header.len().next_multiple_of(512), 0);
    header
}

pub fn record(value: Value) -> String {
    format!("{value}\n")
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn bad_archives_are_refused_and_leave_nothing() {
    let data = Volume::new();
    let server = Recipe::new(TRIXIE)
        .env("PROSODY_DOMAIN", DOMAIN)
        .volume(&data, "/var/lib/prosody")
        .with(["--entrypoint", "/bin/sleep"])
        .command(["infinity"])
        .start();
    let manifest = r#"{"format":1,"hosts":{"chat.example":["internal"]}}"#;
    let end = |records, files| json!({"records": records, "files": files}).to_string();
    let account =
        record(json!({"host": DOMAIN, "store": "accounts", "user": "a", "keys": {"password": "x"}}));
    let with =
        |lines: &str| archive(&[("manifest.json", manifest), (RECORDS, lines), ("end.json", &end(1, 0))]);
    let upload =
        |name: &str| archive(&[("manifest.json", manifest), (name, "bytes"), ("end.json", &end(0, 1))]);
    let whole = with(&account);
    let linked = [member("manifest.json", b'0', manifest.as_bytes()), member(RECORDS, b'2', b"")].concat();
    let cases: &[(&str, i32, &str, Vec<u8>)] = &[
        ("nothing", 65, "cut off", Vec::new()),
        ("zeros", 65, "not an archive of `backup`", vec![0; 1 << 20]),
        ("text", 65, "not an archive of `backup`", b"return os.exit(0)\n".repeat(100)),
        ("no end", 65, "cut off", archive(&[("manifest.json", manifest), (RECORDS, &account)])),
        ("cut off", 65, "cut off", whole[..1600].to_vec()),
        ("no manifest", 65, "not an archive of `backup`", archive(&[(RECORDS, &account)])),
        (
            "a newer format",
            65,
            "of a newer version",
            archive(&[("manifest.json", r#"{"format":2,"hosts":{}}"#)]),
        ),
        ("a link", 65, "no file: records/", linked),
        (
            "another count",
            65,
            "is not whole",
            archive(&[("manifest.json", manifest), ("end.json", &end(1, 0))]),
        ),
        (
            "a host of another server",
            78,
            "b.example, which is not configured: add the host, or give `--host b.example=NEW`",
            with(&account.replace(DOMAIN, "b.example")),
        ),
        ("no JSON", 65, "a record that is not valid", with("return 1\n")),
        ("half a record", 65, "cut off", with(account.trim_end())),
        ("no store", 65, "a record that is not valid", with(&record(json!({"host": DOMAIN, "keys": {}})))),
        (
            "a user that is none",
            65,
            "a record that is not valid",
            with(&record(json!({"host": DOMAIN, "store": "x", "user": "", "keys": {}}))),
        ),
        ("a record that is too large", 65, "more than 67108864 bytes", with(&"x".repeat(70 << 20))),
        (
            "a time that is none",
            65,
            "a record that is not valid",
            with(&record(
                json!({"host": DOMAIN, "store": "archive", "user": "a", "value": "<x/>", "when": 1e300}),
            )),
        ),
        ("a name that leads out", 65, "does not write: uploads/../x.bin", upload("uploads/../x.bin")),
        ("an absolute name", 65, "does not write: /x.bin", upload("/x.bin")),
        ("an encoded name that leads out", 65, "does not write", upload("uploads/chat%2eexample/%2E%2e.bin")),
        (
            "a module",
            65,
            "does not write: uploads/chat%2eexample/x.lua",
            upload("uploads/chat%2eexample/x.lua"),
        ),
    ];
    let mut seen = Observations::default();
    let restore = |options: &[&str], archive: Vec<u8>| {
        let command = ["exec", "-i", &server.name, "prosody-entrypoint", "restore"];
        Backup::of(&archive).read(&words(&[&command, options].concat()))
    };
    let listing = || server.root("cd /var/lib/prosody && find . ! -path './self-signed*' | sort").ok();
    for (what, status, text, archive) in cases {
        let answer = restore(&[], archive.clone());
        seen.equal(&format!("{what}: status"), answer.status, *status);
        let lines: Vec<&str> = answer.stderr.lines().filter(|line| line.contains("error")).collect();
        seen.that(&format!("{what}: one sentence"), lines.len() == 1 && lines[0].contains(text), &answer);
        seen.equal(&format!("{what}: what is left"), listing().as_str(), ".");
    }
    for (option, status, text) in [
        ("--host=chat.example", 64, "expected two hosts"),
        ("--host=chat.example=b.example", 78, "there is no host b.example"),
        ("--host=b.example=chat.example", 64, "the archive has no host b.example"),
    ] {
        let answer = restore(&[option], whole.clone());
        seen.equal(&format!("{option}: status"), answer.status, status);
        seen.that(&format!("{option}: a sentence"), answer.stderr.contains(text), &answer);
    }
    let of_other = archive(&[
        ("manifest.json", &manifest.replace(DOMAIN, "b.example")),
        (RECORDS, &account.replace(DOMAIN, "b.example")),
        ("end.json", &end(1, 0)),
    ]);
    let renamed = restore(&["--host=b.example=chat.example"], of_other);
    seen.equal("another name: status", renamed.status, 0);
    seen.equal(
        "another name: the account",
        server.root("cat /var/lib/prosody/chat%2eexample/accounts/a.dat").ok().as_str(),
        "return {\n\t[\"password\"] = \"x\";\n};",
    );
    let again = restore(&[], whole);
    seen.that(
        "it has data: a sentence",
        again.stderr.contains("has data, and `restore` overwrites none"),
        &again,
    );
    seen.equal("it has data: status", again.status, 73);
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_restore_that_waits_for_its_archive_ends_by_a_signal() {
    let recipe = Recipe::new(TRIXIE).env("PROSODY_DOMAIN", DOMAIN).command(["restore"]);
    let restore = Dialogue::with(recipe);
    let started = || {
        let found = restore.container.root("ls /var/lib/prosody/.restore");
        if found.status == 0 { Ok(()) } else { Err(found.all()) }
    };
    eventually("it reads the archive", PATIENCE, started);
    docker(["stop", "--time", "60", &restore.container.name]).ok();
    let status = docker(["inspect", "--format", "{{.State.ExitCode}}", &restore.container.name]).ok();
    assert_eq!(status, "143", "128 and SIGTERM, not SIGKILL after a minute");
}

/// The last step is several renames. After an interruption, the server must not serve the first of them alone.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_server_does_not_start_with_half_of_a_backup() {
    let deployment = Deployment::internal();
    let text = any_text();
    let server = deployment.serve(TRIXIE);
    let link = fill(&deployment, &server, &text);
    let backup = of_running(&server);
    let used = backup.read(&words(&["exec", "-i", &server.name, "prosody-entrypoint", "restore"]));
    assert_eq!(used.status, 69, "{used:?}");
    assert!(used.stderr.contains("a server or another command uses /var/lib/prosody"), "{used:?}");
    // Its configuration is not written before it has the data directory.
    let second =
        Recipe::new(TRIXIE).env("PROSODY_DOMAIN", DOMAIN).volume(&deployment.data, "/var/lib/prosody");
    let second = second.start();
    second.wait_for_log("Another server uses /var/lib/prosody");
    let early = second.exec(["prosody-entrypoint", "backup", "/tmp/backup.tar"]);
    assert_eq!(early.status, 78, "{early:?}");
    assert!(early.stderr.contains("there is no configuration in /run/prosody yet"), "{early:?}");
    drop(second);
    server
        .as_prosody("mkdir /var/lib/prosody/.restoring && rm -r /var/lib/prosody/upload%2echat%2eexample")
        .ok();
    stop(server);

    let command = in_new(&deployment, TRIXIE, &[]);
    let refused = Backup::of(b"").read(&command);
    assert_eq!(refused.status, 73, "{refused:?}");
    assert!(refused.stderr.contains("restore the same backup again"), "{refused:?}");
    are_the_same(&backup, &restore(&backup, &deployment, TRIXIE));
    let server = deployment.serve(TRIXIE);
    find(&deployment, &server, &text, &link);
}
