//! Two servers with one data directory: the second waits for the end of the first.

use std::fs;

use crate::docker::{
    Container, Observations, PATIENCE, Recipe, TRIXIE, Volume, docker, eventually, images, unique,
};

const DATA: &str = "/var/lib/prosody";
const WAITING: &str = "Another server uses /var/lib/prosody: waiting up to 60 s for its end";

fn recipe(image: &str, data: &Volume) -> Recipe {
    Recipe::new(image).env("PROSODY_DOMAIN", "chat.example").volume(data, DATA)
}

/// Starts a server on a volume that another one uses, and waits until it says so.
fn waiting(image: &str, data: &Volume) -> Container {
    let container = recipe(image, data).start();
    container.wait_for_log(WAITING);
    container
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn the_second_server_serves_when_the_first_has_ended_or_was_killed() {
    for image in images() {
        for signal in ["TERM", "KILL"] {
            let mut seen = Observations::default();
            let data = Volume::new();
            let first = recipe(image, &data).env("PROSODY_ACCOUNTS", "a@chat.example:secret").serve();
            let second = waiting(image, &data);
            let answer = second.exec(["prosody-entrypoint", "healthcheck"]);
            seen.equal(&format!("{signal}: the second one's health while it waits"), answer.status, 1);
            seen.that(&format!("{signal}: the first one goes on"), first.runs(), first.logs());
            docker(["kill", "--signal", signal, &first.name]).ok();
            second.wait_until_it_serves();
            second.wait_for_log("The other server has ended");
            let account = second.root(&format!("ls {DATA}/chat%2eexample/accounts"));
            seen.equal(&format!("{signal}: the account"), account.stdout.trim(), "a.dat");
            seen.report();
        }
    }
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn of_two_servers_that_start_at_once_one_serves() {
    let data = Volume::new();
    let both: Vec<Container> = (0..2).map(|_| recipe(TRIXIE, &data).create()).collect();
    docker(["start", &both[0].name, &both[1].name]).ok();
    let (mut first, mut second) = (0, 1);
    eventually("one of them waits", PATIENCE, || {
        let waits = [0, 1].map(|it| both[it].logs().contains(WAITING));
        if waits[0] {
            (first, second) = (1, 0);
        }
        if waits == [false, false] { Err(format!("{waits:?}")) } else { Ok(()) }
    });
    both[first].wait_until_it_serves();
    assert!(!both[first].logs().contains(WAITING), "both wait: {}", both[first].logs());
    assert!(!both[second].logs().contains("Serving"), "both serve: {}", both[second].logs());
    docker(["kill", &both[first].name]).ok();
    both[second].wait_until_it_serves();
}

/// Both kinds of configuration, for up to 60 s at the same time.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_server_that_does_not_end_stops_the_second_one_with_69_and_the_way() {
    let mut seen = Observations::default();
    let data = Volume::new();
    let first = recipe(TRIXIE, &data).serve();
    let main_file = "VirtualHost \"chat.example\"\nlog = { info = \"*console\" }\n";
    let others = [
        ("settings", recipe(TRIXIE, &data)),
        ("prosody.cfg.lua", recipe(TRIXIE, &data).file("/etc/prosody/prosody.cfg.lua", main_file)),
    ];
    let others = others.map(|(what, recipe)| (what, recipe.start()));
    for (what, second) in &others {
        let status = docker(["wait", &second.name]).ok();
        let log = second.logs();
        seen.equal(&format!("{what}: status"), status.as_str(), "69");
        for text in
            [WAITING, "still uses /var/lib/prosody after 60 s", "order: stop-first", "strategy: Recreate"]
        {
            seen.that(&format!("{what}: {text}"), log.contains(text), &log);
        }
        seen.that(&format!("{what}: it has not served"), !log.contains("Serving"), &log);
    }
    seen.that(
        "the first one still serves",
        first.exec(["prosody-entrypoint", "healthcheck"]).status == 0,
        first.logs(),
    );
    docker(["stop", &first.name]).ok();
    docker(["start", &others[0].1.name]).ok();
    others[0].1.wait_until_it_serves();
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_server_that_waits_ends_when_it_is_stopped() {
    let data = Volume::new();
    let _first = recipe(TRIXIE, &data).serve();
    let second = waiting(TRIXIE, &data);
    second.signal("TERM");
    assert_eq!(docker(["wait", &second.name]).ok(), "143");
}

/// The container's filter of system calls refuses flock(2), as file systems without locks do.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn without_locks_there_is_a_warning() {
    let filter = std::env::temp_dir().join(unique("filter"));
    let rule = r#"{"names": ["flock"], "action": "SCMP_ACT_ERRNO"}"#;
    fs::write(&filter, format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{rule}]}}"#)).unwrap();
    let option = format!("seccomp={}", filter.display());
    let data = Volume::new();
    let server = recipe(TRIXIE, &data).with(["--security-opt", &option]).create();
    docker(["start", &server.name]).ok();
    fs::remove_file(filter).unwrap();
    server.wait_until_it_serves();
    assert!(server.logs().contains("/var/lib/prosody cannot be locked (EPERM"), "{}", server.logs());
}
