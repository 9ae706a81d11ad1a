//! Data that a crash or an upgrade has damaged, which `validate` and a start find, and `backup` and `repair` repair.

use crate::docker::{
    Answer, BOOKWORM, Container, TRIXIE, docker, in_place_of, is_all_wanted, session, unique,
};
use crate::upgrade::{DOMAIN, Deployment, shell, stop};

/// The command in a message that begins with `start`, with these words for OPTIONS, IMAGE and CONTAINER.
#[track_caller]
fn run_as_said(said: &str, start: &str, words: &[(&str, Vec<String>)]) -> Answer {
    let command = said.split('`').skip(1).step_by(2).find(|command| command.starts_with(start));
    let command = command.unwrap_or_else(|| panic!("no command {start} in {said}"));
    let arguments = command.split(' ').skip(1).flat_map(|word| {
        let found = words.iter().find(|(name, _)| *name == word);
        found.map_or_else(|| vec![word.to_owned()], |(_, words)| words.clone())
    });
    docker(arguments.collect::<Vec<_>>())
}

/// Runs what a message says for a server that is stopped.
#[track_caller]
fn run_in_new(said: &str, deployment: &Deployment, image: &str) -> Answer {
    let words = [("OPTIONS", deployment.options()), ("IMAGE", vec![in_place_of(image)])];
    run_as_said(said, "docker run ", &words)
}

/// Runs what a message says beside the server.
#[track_caller]
fn run_beside(said: &str, server: &Container) -> Answer {
    run_as_said(said, "docker exec ", &[("CONTAINER", vec![server.name.clone()])])
}

/// Rows as two programs leave them that write at once. Prosody reads the last ones.
const TWICE: &str = r#"
    CREATE TEMPORARY TABLE "copies" AS SELECT * FROM "prosody";
    UPDATE "prosody" SET "value" = 'another' WHERE "user" = 'alice' AND "key" = 'salt';
    INSERT INTO "prosody" SELECT * FROM "copies";
"#;

/// What a start says about them.
const ROWS: &str = "it has rows twice";

#[test]
#[ignore = "needs Docker and the images: make test"]
fn rows_that_sqlite_has_twice_are_repaired_as_the_log_says() {
    rows_are_repaired(&Deployment::sqlite());
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn rows_that_postgresql_has_twice_are_repaired_as_the_log_says() {
    rows_are_repaired(&Deployment::postgresql());
}

fn rows_are_repaired(deployment: &Deployment) {
    let text = unique("message");
    let mut server = deployment.serve(BOOKWORM);
    server.register_accounts(DOMAIN);
    deployment.write(&text);
    stop(server);
    deployment.execute(TWICE);
    if is_all_wanted() {
        server = deployment.serve(BOOKWORM);
        deployment.read(&text, &server);
        assert!(!server.logs().contains(ROWS), "0.12 needs no unique rows: {}", server.logs());
        stop(server);
    }

    server = deployment.serve(TRIXIE);
    // The second start finds no index of 0.12.
    docker(["restart", &server.name]).ok();
    server.wait_until_it_serves();
    assert_eq!(server.logs().matches(ROWS).count(), 2, "{}", server.logs());
    let create = |server: &Container, user: &str| {
        server.exec(["prosodyctl", "shell", &format!("user:create('{user}@{DOMAIN}', 'secret')")])
    };
    let failed = create(&server, "carol");
    assert!(failed.all().contains("Failed to assign role"), "{failed:?}");

    let said = server.logs();
    let said = said.lines().find(|line| line.contains(ROWS)).unwrap();
    let repaired = if said.contains("docker exec") {
        run_beside(said, &server)
    } else {
        let beside = server.exec(["prosody-entrypoint", "repair"]);
        assert_eq!(beside.status, 69, "{beside:?}");
        stop(server);
        let repaired = run_in_new(&beside.stderr, deployment, TRIXIE);
        let again = run_in_new(said, deployment, TRIXIE);
        assert!(again.status == 0 && !again.stderr.contains("Repaired"), "{again:?}");
        server = deployment.serve(TRIXIE);
        repaired
    };
    assert_eq!(repaired.status, 0, "{repaired:?}");
    let removed = "Removed: all values but the last one of \"salt\" in accounts of alice on chat.example";
    assert_eq!(repaired.stderr.matches("Removed: ").count(), 1, "{repaired:?}");
    assert!(repaired.stderr.contains(removed), "{repaired:?}");
    assert!(repaired.stderr.contains(" rows more than once"), "{repaired:?}");

    create(&server, "dave").ok();
    deployment.read(&text, &server);
    shell(&server, &format!("user:set_role('bob@{DOMAIN}', 'prosody:admin')"));
    stop(server);
    server = deployment.serve(TRIXIE);
    assert!(!server.logs().contains(ROWS), "{}", server.logs());
    deployment.read(&text, &server);
    let role = shell(&server, &format!("user:role('bob@{DOMAIN}')"));
    assert!(role.contains("prosody:admin"), "{role}");
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn rows_that_mariadb_has_twice_are_no_problem() {
    if !is_all_wanted() {
        return;
    }
    let deployment = Deployment::mariadb();
    let server = deployment.serve(BOOKWORM);
    server.register_accounts(DOMAIN);
    stop(server);
    deployment.execute(&TWICE.replace('"', "`"));
    let server = deployment.serve(TRIXIE);
    assert!(!server.logs().contains(ROWS), "{}", server.logs());
    shell(&server, &format!("user:create('carol@{DOMAIN}', 'secret')"));
    let repaired = server.exec(["prosody-entrypoint", "repair"]);
    assert!(repaired.status == 0 && !repaired.stderr.contains("Repaired"), "{repaired:?}");
}

/// The lists of an archive of each account.
const LISTS: &str = "cd /volume/chat%2eexample/archive";

#[test]
#[ignore = "needs Docker and the images: make test"]
fn lists_of_13_0_that_a_crash_has_cut_off_are_repaired() {
    lists_are_repaired(TRIXIE);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn lists_of_0_12_that_a_crash_has_cut_off_are_repaired() {
    lists_are_repaired(BOOKWORM);
}

fn lists_are_repaired(image: &str) {
    let deployment = Deployment::internal();
    let texts = [unique("one"), unique("two"), unique("three"), unique("four")];
    let mut server = deployment.serve(image);
    server.register_accounts(DOMAIN);
    deployment.write(&texts[0]);
    deployment.write(&texts[1]);
    stop(server);
    // The last items lack their end. Before that, bob's has a part of another one.
    let lists = |script: &str| deployment.data.prepare(image, &format!("{LISTS}; {script}"));
    lists(
        "for list in *.list; do truncate -s -20 $list; done; { head -c 60 bob.list; cat bob.list; } >/tmp/list; \
         cat /tmp/list >bob.list; chmod 600 bob.list; touch -d '1 minute ago' *.list",
    );
    let validate = [deployment.options(), vec![in_place_of(image), "validate".to_owned()]].concat();
    let said = docker([&["run".to_owned(), "--rm".to_owned()], &validate[..]].concat());
    assert_eq!((said.status, said.stderr.matches("has a part of an item").count()), (0, 2), "{said:?}");

    server = deployment.serve(image);
    session(&deployment.network, DOMAIN, &["login", "message"]).ok();
    server.wait_for_log("Failed to load archive storage");
    let backup = || server.exec(["prosody-entrypoint", "backup", "/tmp/backup.tar"]);
    let saved = backup();
    assert_eq!((saved.status, saved.stderr.matches("Repaired: ").count()), (2, 2), "{saved:?}");
    let saved = backup();
    assert_eq!(saved.status, 0, "{saved:?}");
    assert!(!saved.stderr.contains("not of Prosody's stores"), "{saved:?}");
    deployment.read(&texts[0], &server);
    deployment.write(&texts[2]);
    let folder = "/var/lib/prosody/chat%2eexample/archive";
    let modes =
        server.root(&format!("cd {folder} && stat -c '%n %a %U' bob.list && grep -c . bob.list.torn")).ok();
    assert!(modes.starts_with("bob.list 600 prosody\n"), "{modes}");

    // Prosody may be writing what is newer than its start.
    lists("truncate -s -20 alice.list");
    let said = backup();
    assert_eq!(said.status, 2, "{said:?}");
    let before = server.root(&format!("sha256sum <{folder}/alice.list")).ok();
    let beside = run_beside(&server.exec(["prosody-entrypoint", "validate"]).stderr, &server);
    assert_eq!(beside.status, 2, "{beside:?}");
    assert_eq!(server.root(&format!("sha256sum <{folder}/alice.list")).ok(), before);
    stop(server);
    let repaired = run_in_new(&beside.stderr, &deployment, image);
    assert_eq!((repaired.status, repaired.stderr.matches("Repaired: ").count()), (0, 1), "{repaired:?}");
    server = deployment.serve(image);
    for text in [&texts[0], &texts[2]] {
        deployment.read(text, &server);
    }
    deployment.write(&texts[3]);
}
