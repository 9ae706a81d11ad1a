//! Bad input that takes a container to give.

use crate::docker::{Observations, Recipe, TRIXIE, images};

/// Nothing is written and nothing is started, and one run says all of it.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn mistakes_are_reported_at_once_and_nothing_is_started() {
    let (answer, container) = Recipe::new(TRIXIE)
        .env("PROSODY_C2S_PORTS", "70000")
        .env("PROSODY_TLS_PROFILE", "modren")
        .env("PROSODY_TURN_SECRET_FILE", "/nowhere/secret")
        .env("PROSODY_MODULES_ENABELD", "mam")
        .run_and_keep();
    let mut seen = Observations::default();
    seen.equal("status", answer.status, 78);
    for text in [
        "PROSODY_C2S_PORTS",
        "70000",
        "65535",
        "PROSODY_TLS_PROFILE",
        "modren",
        "modern",
        "PROSODY_TURN_SECRET_FILE",
        "/nowhere/secret",
        "PROSODY_MODULES_ENABELD",
        "PROSODY_MODULES_ENABLED",
    ] {
        seen.that(&format!("{text} in the report"), answer.stderr.contains(text), &answer.stderr);
    }
    seen.equal("standard output", answer.stdout.as_str(), "");
    let changed: Vec<_> = crate::docker::docker(["diff", &container.name])
        .stdout
        .lines()
        .filter(|line| line.contains(".lua") || line.contains("/var/lib/prosody/"))
        .map(str::to_owned)
        .collect();
    seen.equal("files written", changed, Vec::new());
    seen.report();
}

/// An unreadable secret: as an unprivileged user, because root reads everything.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_file_that_may_not_be_read_is_named() {
    let answer =
        Recipe::new(TRIXIE).with(["--user", "12345:0"]).env("PROSODY_TURN_SECRET_FILE", "/etc/shadow").run();
    assert_eq!(answer.status, 78, "{answer:?}");
    assert!(
        answer.stderr.contains("PROSODY_TURN_SECRET_FILE") && answer.stderr.contains("/etc/shadow"),
        "{answer:?}"
    );
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_full_runtime_directory_leaves_the_old_generation() {
    let container = Recipe::new(TRIXIE)
        .with(["--entrypoint", "sleep", "--tmpfs", "/run/prosody:size=64k"])
        .command(["infinity"])
        .start();
    let configure = |options: &str| {
        crate::docker::docker([
            "exec",
            "--env",
            "PROSODY_DOMAIN=chat.example",
            "--env",
            "PROSODY_SELF_SIGNED_CERTIFICATES=false",
            "--env",
            &format!("PROSODY_OPTIONS={options}"),
            &container.name,
            "prosody-entrypoint",
            "lua5.4",
            "-v",
        ])
    };
    // What the next start finds: every file by its link, with its content.
    let generation =
        || container.root("cd /run/prosody && find -L . -name '*.cfg.lua' -exec md5sum {} + | sort").ok();

    let first = configure("{\"x_size\": \"small\"}");
    assert_eq!(first.status, 0, "{first:?}");
    let before = generation();
    assert!(!before.is_empty(), "nothing was rendered: {first:?}");

    let second = configure(&format!("{{\"x_size\": \"{}\"}}", "large ".repeat(20_000)));
    let mut seen = Observations::default();
    seen.equal(&format!("status: {}", second.stderr), second.status, 73);
    seen.that("the path", second.stderr.contains("/run/prosody"), &second.stderr);
    seen.equal("the old generation", generation(), before);
    seen.report();

    let third = configure("{\"x_size\": \"small again\"}");
    assert_eq!(third.status, 0, "a later start does not recover: {third:?}");
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_read_only_runtime_directory_is_named() {
    let answer = Recipe::new(TRIXIE).with(["--read-only"]).env("PROSODY_RUNTIME_DIR", "/srv/runtime").run();
    assert_eq!(answer.status, 73, "{answer:?}");
    assert!(answer.stderr.contains("/srv/runtime"), "{answer:?}");
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn an_image_without_prosody_says_so() {
    let answer = Recipe::new(TRIXIE)
        .with(["--entrypoint", "sh", "--user", "0"])
        .command([
            "-c",
            "rm -rf /usr/bin/prosody /usr/bin/prosodyctl /usr/lib/prosody && exec prosody-entrypoint prosody -F",
        ])
        .run();
    assert_eq!(answer.status, 127, "{answer:?}");
    assert!(answer.stderr.contains("prosody"), "{answer:?}");
}

/// A start whose own template is wrong: nothing is switched, and the place of the mistake is named.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_template_with_a_mistake_is_named_with_its_line() {
    let container = Recipe::new(TRIXIE).with(["--entrypoint", "sleep"]).command(["infinity"]).start();
    let first = container.exec(["prosody-entrypoint", "lua5.4", "-v"]);
    assert_eq!(first.status, 0, "{first:?}");
    let current = || container.root("cd /run/prosody && find -L . -name '*.cfg.lua' | sort").ok();
    let before = current();
    container.root("mkdir -p /etc/prosody/templates").ok();
    container.put("/etc/prosody/templates/global.cfg.lua.j2", b"admins = {}\n\nx = {{ 1 + }}\n");
    let second = container.exec(["prosody-entrypoint", "lua5.4", "-v"]);
    assert_eq!(second.status, 78, "{second:?}");
    assert!(second.stderr.contains("global.cfg.lua.j2") && second.stderr.contains('3'), "{second:?}");
    assert_eq!(current(), before, "something was switched");
}

/// A `prosody.cfg.lua` of the user's own that cannot be run.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn what_is_wrong_with_a_configuration_of_ones_own_is_said() {
    for &image in images() {
        for (script, status, said) in [
            ("ln -s /nowhere/x prosody.cfg.lua", 78, "prosody.cfg.lua: it is a link to nothing"),
            ("mkdir prosody.cfg.lua", 78, "prosody.cfg.lua: it is a directory, which Docker makes"),
            ("mkfifo prosody.cfg.lua", 78, "prosody.cfg.lua: it is no regular file"),
            (
                "echo 'VirtualHost \"a.example\"' >prosody.cfg.lua; chmod 600 prosody.cfg.lua",
                78,
                "Prosody's user (uid 999, gid 999) cannot read it",
            ),
            // Prosody's own message, and its own status.
            ("echo 'VirtualHost \"a.example' >prosody.cfg.lua", 1, "prosody.cfg.lua:1: unfinished string"),
        ] {
            let input = crate::docker::Volume::new();
            input.prepare(image, &format!("cd /volume; {script}"));
            let answer = Recipe::new(image).volume(&input, "/etc/prosody").run();
            assert_eq!(answer.status, status, "{script}: {answer:?}");
            assert!(answer.all().contains(said), "{script}: {answer:?}");
        }
    }
}

/// What lies in the folders of the user's files beside them.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn only_the_files_of_a_folder_that_are_meant_are_read() {
    for &image in images() {
        let input = crate::docker::Volume::new();
        input.prepare(
            image,
            "cd /volume; mkdir vhost.d; cd vhost.d; echo 'VirtualHost \"a.example\"' >a.cfg.lua; echo '(' >a.cfg.lua.bak; echo '(' >b.bak; echo '(' >.hidden.cfg.lua",
        );
        let server = Recipe::new(image).volume(&input, "/etc/prosody").serve();
        assert!(server.logs().contains("the hosts of your own files"), "{}", server.logs());
        for (script, status, said) in [
            ("echo 'no Lua here' >b.cfg.lua", 1, "b.cfg.lua:1: "),
            ("echo >b.cfg.lua; chmod 600 b.cfg.lua; chown 5 b.cfg.lua", 78, "b.cfg.lua"),
            ("rm b.cfg.lua; ln -s /nowhere b.cfg.lua", 78, "b.cfg.lua: is a link to nothing"),
        ] {
            input.prepare(image, &format!("cd /volume/vhost.d; {script}"));
            let answer = Recipe::new(image).volume(&input, "/etc/prosody").run();
            assert_eq!(answer.status, status, "{script}: {answer:?}");
            assert!(answer.all().contains(said), "{script}: {answer:?}");
        }
    }
}
