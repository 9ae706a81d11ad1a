//! What messages tell the user to do, done, where that takes a container. The table of all advice is
//! `tests/golden/advice.txt`.

use std::ffi::OsStr;

use crate::docker::{Answer, BOOKWORM, Container, Network, Observations, Recipe, TRIXIE, Volume, docker};

const DOMAIN: &str = "chat.example";
const DATA: &str = "/var/lib/prosody";

/// A server for the domain.
fn recipe() -> Recipe {
    Recipe::new(TRIXIE).env("PROSODY_DOMAIN", DOMAIN)
}

/// The words of the command in backticks that begins with `start`.
#[track_caller]
fn command<'a>(said: &'a str, start: &str) -> Vec<&'a str> {
    let found = said.split('`').skip(1).step_by(2).find(|command| command.starts_with(start));
    found.unwrap_or_else(|| panic!("no command {start} in {said}")).split(' ').collect()
}

/// Runs a command of a message, `docker exec …`, in a container, with more words.
fn exec_as_said(said: &str, container: &Container, words: &[&str]) -> Answer {
    let line = command(said, "docker exec ");
    docker(line[1..].iter().chain(&[&*container.name]).chain(words).map(OsStr::new))
}

/// After a restart, the server serves and has no warning with these words.
#[track_caller]
fn restart(seen: &mut Observations, what: &str, server: &Container, gone: &str) {
    let mark = server.mark();
    docker(["restart", &server.name]).ok();
    server.wait_until_it_serves();
    let said = server.since(mark).stderr;
    seen.that(&format!("{what}: {gone:?} after the restart"), !said.contains(gone), said);
}

/// Sends SIGHUP and waits for this text.
#[track_caller]
fn reload(server: &Container, text: &str) -> String {
    let mark = server.mark();
    server.signal("HUP");
    crate::docker::eventually(&format!("{text:?} after SIGHUP"), crate::docker::PATIENCE, || {
        let said = server.since(mark).stderr;
        if said.contains(text) { Ok(said) } else { Err(said) }
    })
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn data_of_a_server_with_another_user() {
    let mut seen = Observations::default();
    for image in [TRIXIE, BOOKWORM] {
        let data = Volume::new();
        let recipe = || Recipe::new(image).env("PROSODY_DOMAIN", DOMAIN).volume(&data, DATA);
        let server = recipe().with(["--user", "1000:0"]).serve();
        server.register_accounts(DOMAIN);
        drop(server);
        let refused = recipe().run();
        seen.equal(&format!("{image}: {refused:?}"), refused.status, 73);
        let entry = format!("{DATA}/chat%2eexample belongs to uid 1000, gid 0");
        seen.that(&format!("{image}: the entry and its owner"), refused.stderr.contains(&entry), &refused);
        let line = command(&refused.stderr, "chown -R").join(" ");
        seen.equal(image, line.as_str(), "chown -R 999:999 /var/lib/prosody");
        Recipe::new(image)
            .volume(&data, DATA)
            .with(["--entrypoint", "/bin/sh"])
            .command(["-c", &line])
            .run()
            .ok();
        let logs = recipe().serve().logs();
        seen.that(&format!("{image}: nothing is left to do"), !logs.contains("chown"), logs);
    }
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn commands_in_the_container_of_another_user() {
    let mut seen = Observations::default();
    for (options, words) in [
        (&["--user", "1234:0"][..], &["prosody-entrypoint", "render"][..]),
        (&["--user", "1234:0", "--cap-drop", "ALL"], &["prosodyctl", "check", "config"]),
    ] {
        let server = options.iter().fold(recipe(), |recipe, option| recipe.with([option])).serve();
        let refused = docker([&["exec", "--user", "0", &*server.name], words].concat());
        seen.that(&format!("root, {words:?}"), refused.status != 0, &refused);
        let answer = exec_as_said(&refused.stderr, &server, words);
        seen.equal(&format!("as that user, {words:?}: {answer:?}"), answer.status, 0);
    }
    let server = recipe().serve();
    let words = ["prosodyctl", "check", "config"];
    let refused = docker([&["exec", "--user", "4321:4321", &server.name][..], &words].concat());
    seen.that("of another group", refused.stderr.contains("come as root"), &refused);
    let answer = exec_as_said(&refused.stderr, &server, &words);
    seen.equal(&format!("with Prosody's group: {answer:?}"), answer.status, 0);
    let answer = docker([&["exec", "--user", "0", &server.name][..], &words].concat());
    seen.equal(&format!("as root: {answer:?}"), answer.status, 0);
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn shared_memory_of_another_user() {
    let mut seen = Observations::default();
    let container = recipe().with(["--read-only", "--entrypoint", "sleep"]).command(["1000"]).start();
    container.as_user("4321", "mkdir -m 755 /dev/shm/prosody-1234").ok();
    let refused = container.as_user("1234:0", "prosody-entrypoint render");
    seen.that("refused", refused.stderr.contains("expected a directory of ours alone: remove it"), &refused);
    container.as_user("4321", "rmdir /dev/shm/prosody-1234").ok();
    let answer = container.as_user("1234:0", "prosody-entrypoint render");
    seen.equal(&format!("removed: {answer:?}"), answer.status, 0);
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn places_of_other_images() {
    const PLACE: &str = "/usr/local/var/lib/prosody";
    let mut seen = Observations::default();
    let data = Volume::new();
    let warned = recipe().volume(&data, PLACE).command(["render"]).run().stderr;
    let setting = format!("PROSODY_DATA_DIR={PLACE}");
    let advice = format!("set {setting}, or mount them at {DATA}");
    seen.that("warned", warned.contains(&advice), &warned);
    for recipe in [recipe().volume(&data, PLACE).with(["--env", &setting]), recipe().volume(&data, DATA)] {
        let logs = recipe.serve().logs();
        seen.that("done", !logs.contains("another image keeps"), logs);
    }
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_proxy_that_is_started_first() {
    let mut seen = Observations::default();
    let network = Network::new();
    let server = recipe().on(&network, &[]).env("PROSODY_TRUSTED_PROXIES", "proxy").serve();
    let warning = "so its `X-Forwarded-For` is not believed: start it first, and restart this container";
    seen.that("warned", server.logs().contains(warning), server.logs());
    let proxy =
        Recipe::new(TRIXIE).on(&network, &["proxy"]).with(["--entrypoint", "sleep"]).command(["1000"]);
    let _proxy = proxy.start();
    restart(&mut seen, "started first", &server, warning);
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn the_anchor_for_dane_is_installed() {
    let recipe = || recipe().env("PROSODY_USE_DANE", "true");
    let refused = recipe().with(["--tmpfs", "/usr/share/dns"]).run();
    assert!(refused.stderr.contains("install dns-root-data"), "{refused:?}");
    // It is in the image.
    recipe().serve();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn links_between_mounts() {
    let pem = concat!(include_str!("../certificates/rsa.crt"), include_str!("../certificates/rsa.key"));
    let [part, whole] = [Volume::new(), Volume::new()];
    let link = "mkdir live; ln -s ../archive/rsa.pem live/rsa.pem";
    part.prepare(TRIXIE, "ln -s ../archive/rsa.pem /volume/rsa.pem");
    whole.prepare(TRIXIE, &format!("cd /volume; {link}; mkdir archive; echo '{pem}' >archive/rsa.pem"));
    let certificates = |volume: &Volume, at: &str, live: &str| {
        let recipe = Recipe::new(TRIXIE).env("PROSODY_DOMAIN", "rsa.example").volume(volume, at);
        recipe.env("PROSODY_CERTIFICATES", live).command(["render"]).run().stderr
    };
    let warned = certificates(&part, "/live", "/live");
    assert!(
        warned.contains("/archive/rsa.pem, which is not there: mount the directory that both are in"),
        "{warned}"
    );
    let said = certificates(&whole, "/certs", "/certs/live");
    assert!(!said.contains("not there") && !said.contains("No certificate for rsa.example"), "{said}");
}

/// Commands do not gain privileges, but for those of `init`.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn signals_to_another_user() {
    let mut seen = Observations::default();
    let sleeps = "/srv/setpriv --reuid 0 --clear-groups sleep 1000";
    for user in ["1234", "0"] {
        let script = format!(
            "cp /usr/bin/setpriv /srv; chmod 4755 /srv/setpriv; \
             exec setpriv --reuid {user} --clear-groups prosody-entrypoint init -- {sleeps}"
        );
        let container =
            Recipe::new(TRIXIE).with(["--entrypoint", "/bin/sh"]).command(["-c", &script]).start();
        crate::docker::eventually("the command runs", crate::docker::PATIENCE, || {
            let name = container.root(&format!("cat /proc/{}/comm", container.server_pid())).stdout;
            if name.trim() == "sleep" { Ok(()) } else { Err(container.logs()) }
        });
        container.signal("TERM");
        if user == "1234" {
            container.wait_for_log("start it as that user with `--user`");
        } else {
            let ended = docker(["wait", &container.name]).stdout;
            seen.equal("the signal is forwarded", ended.trim(), "143");
        }
    }
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn what_a_reload_refuses() {
    const MAIN: &str = "/etc/prosody/prosody.cfg.lua";
    let mut seen = Observations::default();
    let options = "/srv/options";
    let server = recipe().env("PROSODY_OPTIONS_FILE", options).file(options, r#"{"x": 1}"#).serve();

    server.put(MAIN, format!("VirtualHost '{DOMAIN}'\n").as_bytes());
    reload(&server, "is new: restart the container to use it, or remove it");
    server.root(&format!("rm {MAIN}")).ok();
    reload(&server, "Reloading, ");

    let storage = r#"{"x": 1, "storage": {"roster": "memory"}}"#;
    let refusal = "restart the container, or undo the change";
    server.put(options, storage.as_bytes());
    reload(&server, refusal);
    server.put(options, br#"{"x": 2}"#);
    reload(&server, "Reloading, ");
    server.put(options, storage.as_bytes());
    reload(&server, refusal);
    restart(&mut seen, "another storage", &server, refusal);

    server.root("rm /run/prosody/current").ok();
    reload(&server, "/run/prosody/current: ");
    restart(&mut seen, "no generation", &server, "/run/prosody/current: ");

    server.put(MAIN, format!("VirtualHost '{DOMAIN}'\n").as_bytes());
    restart(&mut seen, "a new main file", &server, "is new");
    seen.report();
}

/// The system call fails as it does where two commands write the same generation.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn two_commands_at_the_same_moment() {
    let strace =
        "strace -f -qq -o /dev/null -e inject=renameat,renameat2:error=ENOTEMPTY prosody-entrypoint render";
    let container = Recipe::new(crate::faults::STRACE)
        .with(["--cap-add", "SYS_PTRACE", "--security-opt", "seccomp=unconfined", "--entrypoint", "sleep"])
        .env("PROSODY_DOMAIN", DOMAIN)
        .command(["1000"])
        .start();
    let refused = container.root(strace);
    assert!(
        refused.stderr.contains("another command wrote there at the same moment: try again"),
        "{refused:?}"
    );
    container.root("prosody-entrypoint render").ok();
}
