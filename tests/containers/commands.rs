//! What stands behind the image's name in `docker run`: `prosodyctl`'s commands, with and without its name, the server in
//! every spelling, and any other program. In each the configuration is there first.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::docker::{Answer, BOOKWORM, Container, Observations, Recipe, TRIXIE, Volume, docker, images};

const DOMAIN: &str = "chat.example";

const IMAGES: [(&str, bool); 2] = [(TRIXIE, true), (BOOKWORM, false)];

fn recipe(image: &str) -> Recipe {
    Recipe::new(image).env("PROSODY_DOMAIN", DOMAIN)
}

/// Runs a container to its end, with this on standard input.
#[track_caller]
fn run_with(recipe: Recipe, input: &str) -> Answer {
    let container = recipe.with(["--interactive"]).create();
    let mut child = Command::new("docker")
        .args(["start", "--attach", "--interactive", &container.name])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("docker cannot be run");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

/// The owners of the accounts in a volume of data, by name.
fn accounts(data: &Volume) -> String {
    let mount = format!("{}:/volume", data.name);
    let script = "cd /volume/chat%2eexample/accounts 2>/dev/null && stat -c '%n %u' *";
    docker(["run", "--rm", "-v", &mount, "--entrypoint", "/bin/sh", TRIXIE, "-c", script]).stdout
}

/// The lines that say what to do instead.
fn advice(answer: &Answer) -> Vec<&str> {
    answer.stderr.lines().filter(|line| line.contains("docker exec")).collect()
}

/// The commands of the official image's users that change accounts, on a volume and with no server.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn accounts_are_made_without_a_server() {
    let mut seen = Observations::default();
    for (image, _) in IMAGES {
        let data = Volume::new();
        let on_data = || recipe(image).volume(&data, "/var/lib/prosody");
        for (what, recipe) in [
            ("register", on_data().command(["register", "romeo", DOMAIN, "secret"])),
            (
                "prosodyctl register",
                on_data().command(["prosodyctl", "register", "juliet", DOMAIN, "secret"]),
            ),
        ] {
            let answer = recipe.run();
            seen.that(&format!("{image}: {what}"), answer.status == 0, &answer);
            seen.equal(&format!("{image}: {what} needs no advice"), advice(&answer), Vec::new());
        }
        seen.equal(
            &format!("{image}: accounts"),
            accounts(&data).as_str(),
            "juliet.dat 999\nromeo.dat 999\n",
        );
        let asked = run_with(on_data().command(["register", "nurse", DOMAIN]), "secret\nsecret\n");
        seen.that(&format!("{image}: a password that is typed"), asked.status == 0, &asked);
        let none = on_data().command(["register", "romeo", "other.example", "secret"]).run();
        seen.that(&format!("{image}: a host that is not served"), none.status == 1, &none);
        let gone = on_data().command(["unregister", "romeo", DOMAIN]).run();
        seen.that(&format!("{image}: unregister"), gone.status == 0, &gone);
        seen.equal(
            &format!("{image}: accounts"),
            accounts(&data).as_str(),
            "juliet.dat 999\nnurse.dat 999\n",
        );
    }
    seen.report();
}

/// What asks a running server ends as Prosody has it, with one line of ours; in the server's container it works.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn commands_that_ask_a_running_server_say_where_to_run_them() {
    let mut seen = Observations::default();
    for (image, is_13) in IMAGES {
        let data = Volume::new();
        let on_data = || recipe(image).volume(&data, "/var/lib/prosody");
        let own =
            |recipe: Recipe| recipe.file("/etc/prosody/prosody.cfg.lua", "VirtualHost \"chat.example\"\n");
        for (what, recipe) in [
            ("shell", on_data().command(["shell"])),
            ("prosodyctl shell", on_data().command(["prosodyctl", "shell", "host", "list"])),
            ("shell with a main file", own(on_data()).command(["/usr/bin/prosodyctl", "shell"])),
        ] {
            let answer = recipe.run();
            seen.equal(&format!("{image}: {what}: {answer:?}"), answer.status, 1);
            let is_prosodys = answer.stdout.contains("Unable to connect to server");
            seen.that(&format!("{image}: {what}: Prosody's own words"), is_prosodys, &answer);
            let line = "docker exec -it CONTAINER prosodyctl shell";
            let advice = advice(&answer);
            seen.that(
                &format!("{image}: {what}: one line"),
                advice.len() == 1 && advice[0].contains(line),
                &answer,
            );
        }
        // Since 13.0 these ask the server; 0.12 writes the data itself.
        for command in ["adduser", "passwd", "deluser"] {
            let recipe = on_data().command([command, "romeo@chat.example"]);
            let answer = run_with(recipe, "secret\nsecret\n");
            let said: Vec<bool> = advice(&answer)
                .iter()
                .map(|line| line.contains(&format!("docker exec -it CONTAINER prosodyctl {command} ")))
                .collect();
            let (status, expected) = if is_13 { (1, vec![true]) } else { (0, Vec::new()) };
            seen.equal(&format!("{image}: {command}: {answer:?}"), answer.status, status);
            seen.equal(&format!("{image}: {command}: one line; {answer:?}"), said, expected);
            let usage = on_data().command([command]).run();
            seen.equal(&format!("{image}: {command} alone: {usage:?}"), advice(&usage), Vec::new());
        }
        let server = recipe(image).serve();
        let asked = server.exec(["prosodyctl", "shell", "user", "create", "nurse@chat.example", "secret"]);
        seen.that(&format!("{image}: in the server's container"), asked.status == 0, &asked);
        let again = server.exec(["prosody-entrypoint", "prosodyctl", "shell", "host", "list"]);
        seen.that(
            &format!("{image}: no advice where a server runs"),
            again.stdout.contains(DOMAIN) && advice(&again).is_empty(),
            &again,
        );
    }
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn everything_of_prosodyctls_finds_the_configuration() {
    let mut seen = Observations::default();
    for &image in images() {
        for (command, status, words) in [
            (&["about"][..], 0, "/run/prosody/"),
            (&["prosodyctl", "about"], 0, "/run/prosody/"),
            (&["check", "config"], 0, "All checks passed"),
            (&["prosodyctl", "check", "config"], 0, "All checks passed"),
            (&["check", "certs"], 0, DOMAIN),
            (&["prosodyctl", "status"], 2, "Prosody is not running"),
            (&["prosodyctl", "no-such-command"], 0, "COMMAND may be one of"),
            (&["prosodyctl"], 0, "COMMAND may be one of"),
            (&["version"], 0, if image == TRIXIE { "Prosody 13.0" } else { "COMMAND may be one of" }),
            (&["bash", "-c", "head -1 $PROSODY_CONFIG; id -u"], 0, "999"),
            (&["sh", "-c", "prosodyctl check config"], 0, "All checks passed"),
        ] {
            let answer = command.iter().fold(recipe(image), |recipe, word| recipe.word(word)).run();
            seen.that(
                &format!("{image}: {command:?} ends with {status} and says {words:?}"),
                answer.status == status && answer.stdout.contains(words),
                &answer,
            );
        }
        // All checks at once, without a network: Prosody's own verdict, on our hosts.
        let all = recipe(image).with(["--network", "none"]).command(["check"]).run();
        seen.that(
            &format!("{image}: check"),
            all.stdout.contains(DOMAIN) && all.stdout.contains("Checking config"),
            &all,
        );
    }
    seen.report();
}

/// As the command of the image, and of others, name it.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn the_server_is_named_in_every_way() {
    for &image in images() {
        for command in
            [&["prosody"][..], &["prosody", "-F"], &["/usr/bin/prosody"], &["/usr/bin/prosody", "-F"]]
        {
            let server: Container =
                command.iter().fold(recipe(image), |recipe, word| recipe.word(word)).serve();
            let pid = server.server_pid();
            assert!(!pid.is_empty() && !pid.contains(' '), "{image} {command:?}: {pid:?}\n{}", server.logs());
            let status = server.exec(["prosodyctl", "status"]);
            assert!(status.stdout.contains(&format!(" {pid}")), "{image} {command:?}: {status:?}");
        }
    }
}

/// What guides of other images tell their users to run.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn commands_that_cannot_work_here_say_what_does() {
    let mut seen = Observations::default();
    let answer = recipe(TRIXIE).command(["prosodyctl", "install", "mod_hello"]).run();
    seen.that(
        "install ends with 1",
        answer.status == 1 && answer.stderr.contains("package `luarocks`"),
        &answer,
    );
    let answer = recipe(TRIXIE).command(["prosodyctl", "start"]).run();
    seen.that("start is not for a container", answer.stderr.contains("leave the command out"), &answer);
    let server = recipe(TRIXIE).serve();
    let answer = server.exec(["prosodyctl", "install", "mod_hello"]);
    seen.that(
        "so it does in the server's container",
        answer.status == 1 && answer.stderr.contains("LuaRocks"),
        &answer,
    );

    let data = Volume::new();
    data.prepare(TRIXIE, "touch /volume/a.dat && chown -R 54321:54321 /volume && chmod 700 /volume");
    for command in ["validate", "prosody"] {
        let answer =
            recipe(TRIXIE).env("PROSODY_UID", "1234").volume(&data, "/var/lib/prosody").word(command).run();
        let is_refused = answer.status == 73 && answer.stderr.contains("belongs to uid 54321");
        seen.that(&format!("{command} refuses another user's data"), is_refused, &answer);
    }
    seen.report();
}
