//! The image as users run it.

use std::time::{Duration, Instant};

use crate::docker::{
    BOOKWORM, CLIENT, Container, Network, Observations, PATIENCE, Recipe, TRIXIE, Volume, docker, eventually,
    images, require, serves_or_ends, session,
};
use crate::logs::is_text;

/// Text that no log, no rendered listing and no environment may show.
const SECRET: &str = "hush-5a1b0c";

const DOMAIN: &str = "chat.example";

/// The names under which the server of PROSODY_DOMAIN is reached.
const NAMES: [&str; 4] = [DOMAIN, "conference.chat.example", "upload.chat.example", "proxy.chat.example"];

/// A field of /proc/PID/status.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim()
}

/// The features that `prosodyctl check features` calls missing, by their lines.
fn missing_features(report: &str) -> Vec<&str> {
    report.lines().filter(|line| line.contains("(!)")).collect()
}

/// What the process of Prosody is allowed, and what it was given.
fn observe_the_process(seen: &mut Observations, server: &Container) {
    let pid = server.server_pid();
    seen.that("PID 1 has one child", !pid.is_empty() && !pid.contains(' '), &pid);
    let read = |file: &str| server.as_prosody(&format!("cat /proc/{pid}/{file}")).ok();

    let status = read("status");
    for id in field(&status, "Uid").split_whitespace() {
        seen.that("Prosody is not root", id != "0", field(&status, "Uid"));
    }
    seen.equal("supplementary groups", field(&status, "Groups"), "");
    seen.equal("umask", field(&status, "Umask"), "0027");
    // A mask that it inherited would make `docker stop` wait for its kill. 13.0 itself blocks
    // SIGHUP, SIGINT, SIGUSR1, SIGUSR2 and SIGTERM (1, 2, 10, 12, 15), to read them from a signalfd.
    let own = [1, 2, 10, 12, 15].iter().fold(0, |set, signal| set | 1 << (signal - 1));
    let blocked = u64::from_str_radix(field(&status, "SigBlk"), 16).unwrap_or(u64::MAX);
    seen.equal("blocked signals, but for its own", blocked & !own, 0);

    let environment = read("environ").replace('\0', "\n");
    seen.that("no secret in the environment", !environment.contains(SECRET), &environment);
    seen.that(
        "HOME is the data directory",
        environment.lines().any(|line| line == "HOME=/var/lib/prosody"),
        &environment,
    );

    let limits = read("limits");
    let limit = |name: &str| -> Vec<String> {
        limits
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    };
    let files = limit("Max open files");
    seen.that(
        "the soft limit of open files is the hard one",
        files.len() > 1 && files[0] == files[1],
        &files,
    );
    seen.equal("no core files", limit("Max core file size").first().map(String::as_str), Some("0"));

    let processes = docker(["top", &server.name, "-eo", "pid,args"]).stdout;
    seen.equal(&format!("two processes and a heading in {processes:?}"), processes.lines().count(), 3);
}

/// What was rendered, and who may read it.
fn observe_the_files(seen: &mut Observations, server: &Container) {
    let listing = server
        .root(&format!(
            "grep -rlF {SECRET} /run/prosody | while read -r file; do stat -c '%a %U %G %n' \"$file\"; done"
        ))
        .stdout;
    seen.that("the secret is in a rendered file", !listing.is_empty(), &listing);
    for line in listing.lines() {
        let mut words = line.split(' ');
        let mode = u32::from_str_radix(words.next().unwrap_or_default(), 8).unwrap_or(0o7777);
        let owner = words.next().unwrap_or_default();
        seen.that("0640 at most", mode & !0o640 == 0, line);
        seen.that("root's or Prosody's", ["root", "prosody"].contains(&owner), line);
    }
    let keys = server.root("find /var/lib/prosody /run/prosody -name '*.key' ! -perm 0600").stdout;
    seen.equal("keys that others can read", keys.as_str(), "");
    seen.that("no secret in the log", !server.logs().contains(SECRET), server.logs());
    for command in [
        ["prosody-entrypoint", "render", "--dry-run"],
        ["prosody-entrypoint", "render", "--json"],
        ["prosody-entrypoint", "render", "--diff"],
        ["prosody-entrypoint", "settings", "--effective"],
    ] {
        let answer = server.exec(command);
        seen.that(
            &format!("no secret printed by {command:?}"),
            answer.status == 0 && !answer.all().contains(SECRET),
            answer,
        );
    }
}

/// Both logs read as one: no line of ours, nor of Prosody's, stands out.
fn observe_the_log(seen: &mut Observations, server: &Container) {
    let logs = docker(["logs", &server.name]);
    seen.that("we say something", !logs.stderr.is_empty(), &logs);
    for line in logs.stdout.lines().chain(logs.stderr.lines()) {
        seen.that("a line of the log", is_text(line), line);
    }
}

/// The health check while the server answers, while it does not, and while it does again.
fn observe_the_health_check(seen: &mut Observations, server: &Container) {
    let check = || server.exec(["prosody-entrypoint", "healthcheck"]);
    let pid = server.server_pid();
    seen.equal("healthy while it serves", check().status, 0);
    server.root(&format!("kill -STOP {pid}")).ok();
    seen.equal("unhealthy while it is stopped", check().status, 1);
    server.root(&format!("kill -CONT {pid}")).ok();
    eventually("healthy again", PATIENCE, || match check() {
        answer if answer.status == 0 => Ok(()),
        answer => Err(answer.all()),
    });
}

/// `docker stop` ends the server by itself, not by a kill after ten seconds.
fn observe_the_stop(seen: &mut Observations, server: &Container) {
    let before = Instant::now();
    docker(["stop", "--time", "30", &server.name]).ok();
    let took = before.elapsed();
    seen.that("stopped at once", took < Duration::from_secs(10), format!("{took:?}"));
    let status = server.inspect("{{.State.ExitCode}}");
    seen.that("the exit status is Prosody's", ["0", "143"].contains(&status.as_str()), &status);
    seen.that(
        "Prosody said goodbye",
        server.logs().contains("hutdown complete") || server.logs().contains("hutting down"),
        server.logs(),
    );
}

/// The whole path: one variable (and a TURN secret to look for), a session, everything around it,
/// a stop, and a second start of the same container.
fn from_one_variable_to_a_session(image: &str, version: &str) {
    require(CLIENT);
    let network = Network::new();
    let server = Recipe::new(image)
        .env("PROSODY_DOMAIN", DOMAIN)
        .env("PROSODY_TURN_HOST", "turn.example")
        .env("PROSODY_TURN_SECRET", SECRET)
        .on(&network, &NAMES)
        .serve();
    server.register_accounts(DOMAIN);
    let first = session(&network, DOMAIN, &[]);
    assert_eq!(first.status, 0, "{first:?}\n{}", server.logs());

    let mut seen = Observations::default();
    observe_the_process(&mut seen, &server);
    observe_the_files(&mut seen, &server);
    observe_the_log(&mut seen, &server);
    observe_the_health_check(&mut seen, &server);

    let errors: Vec<_> = server
        .logs()
        .lines()
        .filter(|line| line.split_whitespace().nth(1) == Some("error"))
        .map(str::to_owned)
        .collect();
    seen.equal("errors in the log", errors, Vec::new());
    let warning = server.logs().lines().any(|line| line.contains("warn") && line.contains("self-signed"));
    seen.that("a warning that the certificate is self-signed", warning, server.logs());

    let about = server.exec(["prosodyctl", "about"]);
    seen.that("the version", about.stdout.contains(version), &about);
    let configuration = server.exec(["prosodyctl", "check", "config"]);
    seen.equal(&format!("check config: {}", configuration.all()), configuration.status, 0);
    if version.starts_with("13") {
        let features = server.exec(["prosodyctl", "check", "features"]);
        seen.equal(&format!("check features, with TURN: {}", features.all()), features.status, 0);
    }

    observe_the_stop(&mut seen, &server);
    seen.report();

    docker(["start", &server.name]).ok();
    server.wait_until_it_serves();
    let second = session(&network, DOMAIN, &["login", "message", "archive"]);
    assert_eq!(second.status, 0, "after a restart: {second:?}\n{}", server.logs());
    assert!(second.stdout.contains("archive: 2 messages"), "the first session's message is gone: {second:?}");
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn from_one_variable_to_a_session_on_13_0() {
    from_one_variable_to_a_session(TRIXIE, "13.0");
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn from_one_variable_to_a_session_on_0_12() {
    from_one_variable_to_a_session(BOOKWORM, "0.12");
}

/// Without TURN the one-variable set-up lacks audio and video, and nothing else.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn only_audio_and_video_are_missing_without_turn() {
    let features =
        Recipe::new(TRIXIE).env("PROSODY_DOMAIN", DOMAIN).command(["prosodyctl", "check", "features"]).run();
    let missing = missing_features(&features.stdout);
    assert_eq!(features.status, 1, "{features:?}");
    assert!(
        missing.len() == 1 && missing[0].to_lowercase().contains("audio"),
        "{missing:?} is missing: {}",
        features.stdout
    );
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn other_programs_run_in_place_of_the_server() {
    let mut seen = Observations::default();
    for (image, version) in [(TRIXIE, "13.0"), (BOOKWORM, "0.12")] {
        for command in [&["prosodyctl", "about"][..], &["about"]] {
            let mut recipe = Recipe::new(image);
            recipe = match command {
                [one] => recipe.command([one]),
                [one, two] => recipe.command([one, two]),
                _ => unreachable!("there are two commands above"),
            };
            let answer = recipe.run();
            seen.that(
                &format!("{image} {command:?}"),
                answer.status == 0 && answer.stdout.contains(&format!("Prosody {version}")),
                answer,
            );
        }
    }
    let user = Recipe::new(TRIXIE).command(["id", "-u"]).run();
    seen.that("as Prosody's user", user.status == 0 && !["", "0"].contains(&user.stdout.trim()), user);
    let status = Recipe::new(TRIXIE).command(["sh", "-c", "exit 42"]).run().status;
    seen.equal("the command's own exit status", status, 42);
    let killed = Recipe::new(TRIXIE).command(["sh", "-c", "kill -KILL $$"]).run().status;
    seen.equal("128 and the signal", killed, 137);
    let none = Recipe::new(TRIXIE).command(["/no/such/program"]).run();
    seen.equal("a command that is not there", none.status, 127);
    seen.that("it is named", none.all().contains("/no/such/program"), &none);
    let data = Recipe::new(TRIXIE).command(["/etc/passwd"]).run();
    seen.equal("a command that is no program", data.status, 126);
    seen.report();
}

/// A read-only root file system, as root, and as a user that no passwd entry knows (OpenShift
/// gives such users group 0).
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_read_only_container_serves_whoever_runs_it() {
    for user in [None, Some("12345:0")] {
        let network = Network::new();
        let data = Volume::new();
        data.prepare(TRIXIE, "touch /volume/not-empty && chgrp 0 /volume && chmod 0770 /volume");
        let mut recipe = Recipe::new(TRIXIE)
            .env("PROSODY_DOMAIN", DOMAIN)
            .with(["--read-only", "--tmpfs", "/run"])
            .volume(&data, "/var/lib/prosody")
            .on(&network, &NAMES);
        if let Some(user) = user {
            recipe = recipe.with(["--user", user]);
        }
        let server = recipe.serve();
        server.register_accounts(DOMAIN);
        let answer = session(&network, DOMAIN, &["login", "message", "archive"]);
        assert_eq!(answer.status, 0, "as {user:?}: {answer:?}\n{}", server.logs());
        if user.is_some() {
            let pid = server.server_pid();
            let status = server.root(&format!("cat /proc/{pid}/status")).ok();
            assert_eq!(field(&status, "Uid").split_whitespace().next(), Some("12345"));
        }
    }
}

/// The data outlive the container.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_second_container_goes_on_with_the_volume() {
    let network = Network::new();
    let data = Volume::new();
    let recipe = || {
        Recipe::new(TRIXIE)
            .env("PROSODY_DOMAIN", DOMAIN)
            .volume(&data, "/var/lib/prosody")
            .on(&network, &NAMES)
    };
    let first = recipe().serve();
    first.register_accounts(DOMAIN);
    let certificate = served_certificate(&network);
    drop(first);
    let second = recipe().serve();
    let answer = session(&network, DOMAIN, &["login"]);
    assert_eq!(answer.status, 0, "{answer:?}\n{}", second.logs());
    assert_eq!(
        served_certificate(&network),
        certificate,
        "the self-signed certificate is another one, and every client warns again"
    );
}

/// The certificate that the server shows: PEM without white space.
fn served_certificate(network: &Network) -> String {
    require(CLIENT);
    let client = Recipe::new(CLIENT)
        .on(network, &[])
        .file("/certificate.py", include_str!("../client/certificate.py"))
        .command(["python3", "/certificate.py", DOMAIN]);
    client.run().ok().split_whitespace().collect()
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn self_signed_certificates_can_be_switched_off() {
    let server = Recipe::new(TRIXIE)
        .env("PROSODY_DOMAIN", DOMAIN)
        .env("PROSODY_SELF_SIGNED_CERTIFICATES", "false")
        .serve();
    let made = server
        .root("find /var/lib/prosody /run/prosody -name '*.crt' -o -name '*.key' -o -name '*.pem'")
        .ok();
    assert_eq!(made, "", "certificates were made");
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_certificate_of_the_directory_is_served() {
    let network = Network::new();
    let made = rcgen::generate_simple_self_signed([DOMAIN.to_owned()]).unwrap();
    let server = Recipe::new(TRIXIE)
        .env("PROSODY_DOMAIN", DOMAIN)
        .env("PROSODY_CERTIFICATES", "/srv")
        .file(&format!("/srv/{DOMAIN}.crt"), made.cert.pem())
        .file(&format!("/srv/{DOMAIN}.key"), made.signing_key.serialize_pem())
        .on(&network, &NAMES)
        .serve();
    let expected: String = made.cert.pem().split_whitespace().collect();
    assert_eq!(served_certificate(&network), expected, "{}", server.logs());
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn the_health_check_follows_the_ports() {
    let mut seen = Observations::default();
    for environment in [
        &[("PROSODY_C2S_PORTS", "15222")][..],
        &[("PROSODY_C2S_PORTS", "none"), ("PROSODY_C2S_DIRECT_TLS_PORTS", "none")],
        &[("PROSODY_C2S_PORTS", "none"), ("PROSODY_S2S_PORTS", "15269")],
    ] {
        let mut recipe = Recipe::new(TRIXIE).env("PROSODY_DOMAIN", DOMAIN);
        for (name, value) in environment {
            recipe = recipe.env(name, value);
        }
        let server = recipe.serve();
        observe_the_health_check(&mut seen, &server);
    }
    // Where a custom file decides the ports, the check asks what the server listens on.
    let host = "VirtualHost 'chat.example'";
    for (file, text) in [
        ("conf.d/ports.cfg.lua", "c2s_ports = { 15222 }; s2s_ports = { }".to_owned()),
        ("prosody.cfg.lua", format!("c2s_ports = 15222; s2s_ports = {{ }}; log = '*console'; {host}")),
    ] {
        let input = Volume::new();
        input.prepare(TRIXIE, &format!("mkdir -p /volume/conf.d && echo \"{text}\" >/volume/{file}"));
        let recipe = Recipe::new(TRIXIE).env("PROSODY_DOMAIN", DOMAIN).volume(&input, "/etc/prosody");
        observe_the_health_check(&mut seen, &recipe.serve());
    }
    seen.report();
}

/// Docker itself runs the check that the image declares.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn docker_calls_the_container_healthy() {
    let server = Recipe::new(TRIXIE).env("PROSODY_DOMAIN", DOMAIN).with(["--health-interval", "1s"]).start();
    eventually("healthy", PATIENCE, || match server.inspect("{{.State.Health.Status}}").as_str() {
        "healthy" => Ok(()),
        other => Err(format!("{other}\n{}", server.logs())),
    });
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_configuration_of_the_users_own_runs_untouched() {
    let own = "-- mine\n\
        log = { info = \"*console\" }\n\
        pidfile = \"/run/prosody/own.pid\"\n\
        admin_socket = \"/run/prosody/own.sock\"\n\
        x_from_the_environment = ENV_MY_SECRET\n\
        VirtualHost \"own.example\"\n";
    let server = Recipe::new(TRIXIE)
        .env("PROSODY_DOMAIN", DOMAIN)
        .env("MY_SECRET", SECRET)
        .env("PROSODY_TURN_SECRET", SECRET)
        .file("/etc/prosody/prosody.cfg.lua", own)
        .start();
    server.wait_for_log("Activated service 'c2s'");

    let mut seen = Observations::default();
    let pid = server.server_pid();
    let environment = server.as_prosody(&format!("cat /proc/{pid}/environ")).ok().replace('\0', "\n");
    for line in [format!("MY_SECRET={SECRET}"), format!("PROSODY_TURN_SECRET={SECRET}")] {
        seen.that("its environment is left whole", environment.lines().any(|one| one == line), &environment);
    }
    let status = server.root(&format!("cat /proc/{pid}/status")).stdout;
    seen.that("Prosody is not root", !field(&status, "Uid").starts_with('0'), field(&status, "Uid"));
    let rendered = server.root("find /run/prosody -name '*.cfg.lua'").stdout;
    seen.equal("nothing is rendered", rendered.as_str(), "");
    let after = server.root("cat /etc/prosody/prosody.cfg.lua").stdout;
    seen.equal("the file", after.as_str(), own);
    let account = server.register("alice", "own.example", "a");
    seen.that(
        "prosodyctl reads it, too",
        account.status == 0 && server.root("find /var/lib/prosody -name alice.dat").stdout.contains("own"),
        account,
    );
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn the_runtime_directory_can_be_elsewhere() {
    let server = Recipe::new(TRIXIE)
        .env("PROSODY_DOMAIN", DOMAIN)
        .env("PROSODY_RUNTIME_DIR", "/elsewhere")
        .with(["--tmpfs", "/elsewhere"])
        .serve();
    let mut seen = Observations::default();
    let there = server.root("find /elsewhere/ -name '*.cfg.lua'").stdout;
    seen.that("rendered there", !there.is_empty(), &there);
    let here = server.root("find /run/prosody -mindepth 1").stdout;
    seen.equal("nothing in the default place", here.as_str(), "");
    let check = server.exec(["prosodyctl", "check", "config"]);
    seen.that("prosodyctl finds it", check.status == 0, check);
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn prosody_runs_as_whom_the_settings_say() {
    let mut seen = Observations::default();
    // What is tried, the environment, what is done to the volume, and uid and gid.
    type Case = (&'static str, &'static [(&'static str, &'static str)], &'static str, &'static str);
    let cases: [Case; 4] = [
        ("the data directory's owner", &[], "chown 4321:4322 /volume", "4321 4322"),
        ("root's data directory", &[], "chown 0:0 /volume", "999 999"),
        (
            "PROSODY_UID and PROSODY_GID",
            &[("PROSODY_UID", "2345"), ("PROSODY_GID", "2346")],
            "chmod 0777 /volume",
            "2345 2346",
        ),
        ("PROSODY_USER", &[("PROSODY_USER", "nobody")], "chmod 0777 /volume", "65534 65534"),
    ];
    for (what, environment, prepare, expected) in cases {
        let data = Volume::new();
        // Docker gives an empty volume the owner and the mode of the image's directory.
        data.prepare(TRIXIE, &format!("touch /volume/not-empty && {prepare}"));
        let mut recipe = Recipe::new(TRIXIE).env("PROSODY_DOMAIN", DOMAIN).volume(&data, "/var/lib/prosody");
        for (name, value) in environment {
            recipe = recipe.env(name, value);
        }
        let server = recipe.serve();
        let pid = server.server_pid();
        let status = server.root(&format!("cat /proc/{pid}/status")).ok();
        let id = |name| field(&status, name).split_whitespace().next().unwrap_or_default().to_owned();
        seen.equal(what, format!("{} {}", id("Uid"), id("Gid")), expected.to_owned());
        let account = server.register("alice", DOMAIN, "a");
        seen.that(&format!("{what}: prosodyctl writes, too"), account.status == 0, account);
    }
    seen.report();
}

/// A fresh volume belongs to the image's user. Another one either gets it or is told (73) that
/// it cannot write there; a server that runs without being able to write loses what it is given.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn another_user_on_a_fresh_volume_can_write_or_is_told() {
    let server = Recipe::new(TRIXIE)
        .env("PROSODY_DOMAIN", DOMAIN)
        .env("PROSODY_UID", "2345")
        .env("PROSODY_GID", "2346")
        .start();
    let serves = serves_or_ends(&server.name);
    if serves {
        server.register_accounts(DOMAIN);
    } else {
        assert_eq!(server.inspect("{{.State.ExitCode}}"), "73");
        assert!(server.logs().contains("/var/lib/prosody"), "{}", server.logs());
    }
}

/// The container's host name is served where it has a dot.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn the_containers_name_is_the_default_host() {
    for (name, host) in [("xmpp.example", "xmpp.example"), ("plain", "localhost")] {
        let plan = Recipe::new(TRIXIE).with(["--hostname", name]).command(["render", "--dry-run"]).run().ok();
        assert!(plan.contains(&format!("VirtualHost \"{host}\"")), "{name}: {plan}");
    }
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn our_log_has_the_level_that_was_asked_for() {
    let said = |level: &str| {
        let answer = Recipe::new(TRIXIE)
            .env("PROSODY_ENTRYPOINT_LOG", level)
            // A warning, and the alias that is named at debug.
            .env("PROSODY_S2S_SECURE_AUTH", "false")
            .env("PROSODY_LOGLEVEL", "error")
            .command(["render", "--dry-run"])
            .run();
        assert_eq!(answer.status, 0, "{answer:?}");
        answer.stderr
    };
    assert_eq!(said("error"), "");
    let warnings = said("warn");
    assert!(
        warnings.contains("PROSODY_S2S_SECURE_AUTH") && !warnings.contains("PROSODY_LOGLEVEL"),
        "{warnings}"
    );
    let everything = said("debug");
    assert!(
        everything.contains("PROSODY_LOGLEVEL") && everything.contains("PROSODY_LOG_LEVEL"),
        "{everything}"
    );
}

/// `validate` has Prosody's own loader read what is rendered, and leaves nothing behind.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn validate_says_what_prosodys_own_loader_says() {
    for &image in images() {
        let recipe = || Recipe::new(image).env("PROSODY_DOMAIN", "chat.example").command(["validate"]);
        let right = recipe().run();
        assert_eq!(right.status, 0, "{}", right.all());
        assert!(right.all().contains("All checks passed"), "{}", right.all());

        let wrong_setting = recipe().env("PROSODY_C2S_PORTS", "none of them").run();
        assert_eq!(wrong_setting.status, 78, "{}", wrong_setting.all());

        let wrong_file = recipe()
            .file("/etc/prosody/conf.d.cfg.lua", "admins = = {}")
            .env("PROSODY_EXTRA_CONFIG", "/etc/prosody/conf.d.cfg.lua");
        let wrong_file = wrong_file.run();
        assert_eq!(wrong_file.status, 78, "{}", wrong_file.all());
        assert!(wrong_file.all().contains("conf.d.cfg.lua:1"), "{}", wrong_file.all());

        let own = Recipe::new(image)
            .file("/etc/prosody/prosody.cfg.lua", "VirtualHost \"own.example\" (")
            .command(["validate"]);
        let own = own.run();
        assert_eq!(own.status, 78, "{}", own.all());
        assert!(own.all().contains("/etc/prosody/prosody.cfg.lua"), "{}", own.all());
    }

    // Also where /tmp cannot be written, and what was there stays as it was.
    let server = Recipe::new(TRIXIE).env("PROSODY_DOMAIN", "chat.example").with(["--read-only"]).serve();
    let before = server.root("ls -l /run/prosody /dev/shm /dev/shm/*").ok();
    let answer = server.exec(["prosody-entrypoint", "validate"]);
    assert_eq!(answer.status, 0, "{}", answer.all());
    assert_eq!(server.root("ls -l /run/prosody /dev/shm /dev/shm/*").ok(), before);
}

/// `docker exec` comes as any user, finds the configuration, and hands on what the user's files read.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn prosodyctl_works_in_docker_exec_whoever_asks() {
    let input = Volume::new();
    input.prepare(
        TRIXIE,
        "echo 'VirtualHost(\"own.\" .. os.getenv(\"PROSODY_DOMAIN\"))' >/volume/own.cfg.lua",
    );
    for user in ["0", "12345:0"] {
        let server = Recipe::new(TRIXIE)
            .with(["--user", user, "--read-only", "--tmpfs", "/var/lib/prosody:mode=0777"])
            .env("PROSODY_DOMAIN", "chat.example")
            .env("PROSODY_DB_PASWORD", "hunter2")
            .volume(&input, "/etc/prosody")
            .env("PROSODY_EXTRA_CONFIG", "/etc/prosody/own.cfg.lua")
            .serve();
        // Root, the server's own user, and for the first container a user that may not look.
        for asking in ["0:0", if user == "0" { "999:999" } else { user }] {
            let answer = docker(["exec", "--user", asking, &server.name, "prosodyctl", "status"]);
            assert_eq!(answer.status, 0, "{user}, asked by {asking}: {}", answer.all());
            let health =
                docker(["exec", "--user", asking, &server.name, "prosody-entrypoint", "healthcheck"]);
            assert_eq!(health.status, 0, "{user}, asked by {asking}: {}", health.all());
        }
        // A misspelt name may hold a secret all the same.
        let environment =
            server.as_prosody(&format!("tr '\\0' '\\n' < /proc/{}/environ", server.server_pid())).ok();
        assert!(
            environment.contains("PROSODY_DOMAIN=chat.example"),
            "what a file reads stays: {environment}"
        );
        assert!(!environment.contains("hunter2"), "{environment}");
    }
}

/// With a configuration of the user's own, settings that have no effect are not read either.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_configuration_of_the_users_own_may_read_any_variable() {
    let own = "admins = { ENV_PROSODY_DB_PORT .. \"@own.example\" }\nlog = { info = \"*console\" }\nVirtualHost \"own.example\"\n";
    let server =
        Recipe::new(TRIXIE).file("/etc/prosody/prosody.cfg.lua", own).env("PROSODY_DB_PORT", "abc").serve();
    server.wait_for_log("Ignored, because prosody.cfg.lua is in use: PROSODY_DB_PORT");

    let wrong = Recipe::new(TRIXIE).file("/etc/prosody/prosody.cfg.lua", own).env("PROSODY_UID", "abc").run();
    assert_eq!(wrong.status, 78, "{}", wrong.all());
}

/// The credentials of TURN over TLS: 0.12 makes them for the type `turn` alone, unless it is told how.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn turn_over_tls_is_announced_with_credentials() {
    for image in [TRIXIE, BOOKWORM] {
        let server = Recipe::new(image)
            .env("PROSODY_DOMAIN", "chat.example")
            .env("PROSODY_TURN_HOST", "turn.chat.example")
            .env("PROSODY_TURN_SECRET", "hunter2")
            .env("PROSODY_TURN_TLS_PORT", "5349")
            .serve();
        let ask = "> local found = {}; for _, s in ipairs(require \"core.modulemanager\".get_module(\"chat.example\", \
                   \"external_services\").get_services()) do table.insert(found, \
                   s.type .. \"=\" .. tostring(s.username ~= nil)) end return table.concat(found, \" \")";
        let answer = server.exec(["prosodyctl", "shell", ask]).all();
        assert!(answer.contains("turns=true"), "{image}: {answer}");
    }
}
