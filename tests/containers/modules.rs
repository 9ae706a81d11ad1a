//! Modules of the community and of the user's own, as the image's Prosody loads them.

use crate::docker::{
    Answer, BOOKWORM, Container, Observations, PATIENCE, Recipe, TRIXIE, Volume, docker, eventually,
};
use crate::reload::reload;

const DOMAIN: &str = "chat.example";

/// A module that says where it comes from.
const OWN: &str = "module:log(\"info\", \"this is the user's own\");\n";

/// The lines of a log that tell of an error, ours and Prosody's.
fn errors(server: &Container) -> Vec<String> {
    let is_error = |line: &&str| {
        let head = line.split('\t').next().unwrap_or_default();
        head.ends_with(" error") || line.contains("raceback")
    };
    server.logs().lines().filter(is_error).map(str::to_owned).collect()
}

/// The names of what is linked and there, for whom Prosody runs as.
#[track_caller]
fn links(server: &Container) -> Vec<String> {
    let script = "cd /run/prosody/current/community-modules || cd /dev/shm/prosody-*/current/community-modules || exit; \
                  for name in *; do [ -h $name ] && [ -r $name ] && echo $name; done";
    let pid = server.server_pid();
    let owner = server.root(&format!("stat -c %u:%g /proc/{pid}")).ok();
    server.as_user(&owner, script).stdout.lines().map(str::to_owned).collect()
}

/// What Prosody's console says to a command.
fn shell(server: &Container, command: &[&str]) -> Answer {
    let words: Vec<String> = command.iter().map(|word| format!("'{word}'")).collect();
    server.root(&format!("prosodyctl shell {}", words.join(" ")))
}

/// One setting is all that it takes.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn what_is_enabled_is_linked_and_serves() {
    for (image, enabled, expected) in [
        (
            TRIXIE,
            "http_oauth2 rest firewall muc_moderation",
            &[
                "mod_broadcast",
                "mod_firewall",
                "mod_http_oauth2",
                "mod_muc_moderation",
                "mod_pubsub_subscription",
                "mod_rest",
            ][..],
        ),
        (
            BOOKWORM,
            "sasl2_fast firewall muc_moderation",
            &[
                "mod_broadcast",
                "mod_firewall",
                "mod_muc_moderation",
                "mod_pubsub_subscription",
                "mod_sasl2",
                "mod_sasl2_fast",
            ],
        ),
    ] {
        let server = Recipe::new(image)
            .env("PROSODY_DOMAIN", DOMAIN)
            .env("PROSODY_MODULES_ENABLED", enabled)
            .env("PROSODY_MODULES_AVAILABLE", "broadcast")
            .serve();
        let mut seen = Observations::default();
        seen.equal(
            &format!("{image}: links"),
            links(&server),
            expected.iter().map(|&name| name.to_owned()).collect(),
        );
        seen.equal(&format!("{image}: errors"), errors(&server), Vec::new());
        let on = |host: &str| shell(&server, &["module", "list", host]).all();
        let (host, rooms) = (on(DOMAIN), on("conference.chat.example"));
        let is_in = |list: &str, module: &str| {
            list.lines().any(|line| line.split_whitespace().next() == Some(module))
        };
        for module in enabled.split(' ').filter(|module| *module != "muc_moderation") {
            seen.that(&format!("{image}: {module} is loaded"), is_in(&host, module), &host);
        }
        seen.that(&format!("{image}: muc_moderation is for rooms"), !is_in(&host, "muc_moderation"), &host);
        seen.that(&format!("{image}: and loaded there"), is_in(&rooms, "muc_moderation"), &rooms);

        // What is available waits for a person to load it.
        seen.that(&format!("{image}: broadcast is not loaded"), !is_in(&host, "broadcast"), &host);
        let loaded = shell(&server, &["module", "load", "broadcast", DOMAIN]);
        seen.that(&format!("{image}: broadcast can be"), loaded.stdout.contains("OK: "), &loaded);
        seen.report();
    }
}

/// A running server loads modules through the links that it was started with.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn the_links_of_a_running_server_stay() {
    let server = Recipe::new(TRIXIE)
        .env("PROSODY_DOMAIN", DOMAIN)
        .env("PROSODY_MODULES_ENABLED", "rest")
        .file("/etc/prosody/conf.d/own.cfg.lua", "x_own = 0\n")
        .serve();
    let first = server.root("readlink /run/prosody/current").ok();
    let mut last = first.clone();
    for number in 1..=8 {
        server.put("/etc/prosody/conf.d/own.cfg.lua", format!("x_own = {number}\n").as_bytes());
        server.signal("HUP");
        last = eventually("a new generation", PATIENCE, || {
            // On fuse-overlayfs, a link that is being replaced is missing for a moment.
            let now = server.root("readlink /run/prosody/current").stdout.trim().to_owned();
            if now.is_empty() || now == last { Err(server.logs()) } else { Ok(now) }
        });
        // The generation comes before Prosody takes it up, and the next one only after that.
        eventually("Prosody reads it", PATIENCE, || {
            let reloads = server.logs().matches("Re-opening log files").count();
            if reloads < number { Err(server.logs()) } else { Ok(()) }
        });
    }
    let mut seen = Observations::default();
    let generations = server.root("cd /run/prosody && ls -d generation-*").ok();
    seen.equal("the first and the last four stay", generations.lines().count(), 5);
    seen.that("the first among them", generations.lines().any(|name| name == first), &generations);
    let reloaded = shell(&server, &["module", "reload", "rest", DOMAIN]);
    seen.that("a module is loaded again", reloaded.stdout.contains("OK: "), &reloaded);
    seen.equal("errors", errors(&server), Vec::new());
    let waits = server.logs().lines().filter(|line| line.contains("before a restart")).count();
    seen.equal("nothing waits for a restart", waits, 0);

    // With the server its generation is gone.
    docker(["restart", &server.name]).ok();
    server.wait_until_it_serves();
    let generations = server.root("cd /run/prosody && ls -d generation-*").stdout;
    seen.that("the first is gone", !generations.lines().any(|name| name == first), &generations);
    seen.equal("links after a restart", links(&server), vec!["mod_rest".to_owned()]);
    seen.report();
}

/// Prosody reads a module when it loads it, so that a reload has a word to say about one that has changed, and refuses
/// what the next start would refuse.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_module_whose_file_has_changed_is_reloaded() {
    let own = "/etc/prosody/modules/mod_own.lua";
    let server = Recipe::new(TRIXIE)
        .env("PROSODY_DOMAIN", DOMAIN)
        .env("PROSODY_MODULES_ENABLED", "own")
        .file(own, OWN)
        .serve();
    let reload_with = |content: &str| {
        server.put(own, content.as_bytes());
        reload(&server).stderr
    };
    let mut seen = Observations::default();
    let said = reload_with("module:log(\"info\", \"this is another one\");\n");
    let is_named = said.contains("changed: modules/mod_own.lua; reloaded: own on chat.example");
    seen.that("it is reloaded", is_named, &said);
    seen.that("as it is now", server.logs().contains("this is another one"), server.logs());

    let said = reload_with("module:depends(\"nothing_of_the_kind\");\n");
    let refusal = "PROSODY_MODULES_ENABLED: `own` needs `nothing_of_the_kind`, and there is no module";
    seen.that(
        "what cannot be loaded is refused",
        said.contains("Not reloaded") && said.contains(refusal),
        &said,
    );
    let said = reload_with(OWN);
    seen.that("what can be loaded again is not", !said.contains("Not reloaded"), &said);
    seen.report();
}

/// The user's own module comes before the collection's and before Prosody's.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_module_of_the_users_own_wins() {
    let server = Recipe::new(TRIXIE)
        .env("PROSODY_DOMAIN", DOMAIN)
        .env("PROSODY_MODULES_ENABLED", "rest, motd, firewall")
        .file("/etc/prosody/modules/mod_rest.lua", OWN)
        .file("/etc/prosody/modules/mod_motd/mod_motd.lua", OWN)
        .serve();
    let mut seen = Observations::default();
    let logs = server.logs();
    for (module, file, other) in [
        ("rest", "mod_rest.lua", "the one in the collection"),
        ("motd", "mod_motd/mod_motd.lua", "Prosody's own"),
    ] {
        let line = format!("The module {module} is /etc/prosody/modules/{file}, and not {other}");
        seen.that("a line says so", logs.contains(&line), &logs);
        let is_own =
            |line: &str| line.contains(&format!("{DOMAIN}:{module}")) && line.contains("the user's own");
        seen.that(&format!("{module} is the user's"), logs.lines().any(is_own), &logs);
    }
    seen.equal(
        "links",
        links(&server),
        vec!["mod_firewall".to_owned(), "mod_pubsub_subscription".to_owned()],
    );
    seen.equal("errors", errors(&server), Vec::new());
    seen.report();
}

/// Wherever the generation goes, and whoever reads it.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn community_modules_load_with_few_capabilities() {
    let cases: [&[&str]; 4] = [
        &["--read-only"],
        &["--read-only", "--user", "12345:0"],
        &["--read-only", "--user", "12345:0", "--cap-drop", "ALL", "--tmpfs", "/run"],
        &["--user", "999:999", "--cap-drop", "ALL"],
    ];
    let mut seen = Observations::default();
    for options in cases {
        let mut recipe =
            Recipe::new(TRIXIE).env("PROSODY_DOMAIN", DOMAIN).env("PROSODY_MODULES_ENABLED", "rest firewall");
        for option in options {
            recipe = recipe.with([*option]);
        }
        let server = recipe.serve();
        let logs = server.logs();
        seen.that(&format!("{options:?}: rest serves"), logs.contains("Serving 'rest' at"), &logs);
        seen.equal(&format!("{options:?}: errors"), errors(&server), Vec::new());
        seen.equal(&format!("{options:?}: links"), links(&server).len(), 3);
    }
    seen.report();
}

/// A volume with a folder of modules, which nobody but root may read.
fn roots_own_modules() -> Volume {
    let volume = Volume::new();
    let script = format!(
        "cd /volume; printf '%s' '{}' | tee mod_rest.lua >mod_lonely.lua; chmod 0700 .",
        OWN.trim().replace('\'', "'\\''")
    );
    volume.prepare(TRIXIE, &script);
    volume
}

/// Root could read it, Prosody's user cannot.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn what_only_root_may_read_does_not_count() {
    let volume = roots_own_modules();
    let recipe = |enabled: &str| {
        Recipe::new(TRIXIE)
            .env("PROSODY_DOMAIN", DOMAIN)
            .env("PROSODY_MODULES_ENABLED", enabled)
            .volume(&volume, "/etc/prosody/modules")
    };
    let mut seen = Observations::default();
    let refused = recipe("lonely").command(["render", "--dry-run"]).run();
    seen.equal("status", refused.status, 78);
    seen.that(
        "the folder is named",
        refused.stderr.contains(
            "PROSODY_MODULES_ENABLED: no module `lonely` for Prosody 13.0.1 in /etc/prosody/modules (which Prosody's user \
             cannot read), ",
        ),
        &refused,
    );

    let server = recipe("rest").serve();
    let logs = server.logs();
    let line = "/etc/prosody/modules cannot be read by Prosody's user (Permission denied)";
    seen.that("a line says so", logs.contains(line), &logs);
    seen.that("the collection's is loaded", logs.contains("Serving 'rest' at"), &logs);
    seen.equal("links", links(&server), vec!["mod_rest".to_owned()]);
    seen.equal("errors", errors(&server), Vec::new());
    seen.report();
}

/// A data directory of root's is given to Prosody's user before modules in it are looked for.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn modules_in_a_new_data_directory_are_found() {
    let (data, empty) = (Volume::new(), Volume::new());
    let script = format!(
        "cd /volume; mkdir -p custom_plugins/mod_hello; printf '%s' '{}' >custom_plugins/mod_hello/mod_hello.lua; \
         chown -R 0:0 .; chmod 0700 .",
        OWN.trim().replace('\'', "'\\''")
    );
    data.prepare(TRIXIE, &script);
    let recipe = |volume: &Volume| {
        Recipe::new(TRIXIE)
            .env("PROSODY_DOMAIN", DOMAIN)
            .env("PROSODY_UID", "1000")
            .volume(volume, "/var/lib/prosody")
    };
    let mut seen = Observations::default();
    let server = recipe(&data).env("PROSODY_MODULES_ENABLED", "hello").serve();
    let logs = server.logs();
    seen.that("the module is loaded", logs.contains("the user's own"), &logs);
    let server = recipe(&empty).serve();
    let logs = server.logs();
    seen.that("there is no warning", !logs.contains("custom_plugins"), &logs);
    seen.report();
}

/// What Docker makes of a mount whose file does not exist. Prosody itself ends with a traceback there.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_directory_in_a_modules_place_is_refused() {
    let empty = Volume::new();
    let start = || {
        Recipe::new(TRIXIE).env("PROSODY_DOMAIN", DOMAIN).volume(&empty, "/etc/prosody/modules/mod_motd.lua")
    };
    let mut seen = Observations::default();
    let refused = start().env("PROSODY_MODULES_ENABLED", "motd").command(["render", "--dry-run"]).run();
    seen.equal("status", refused.status, 78);
    seen.that(
        "it is named",
        refused.stderr.contains("PROSODY_MODULES_ENABLED: /etc/prosody/modules/mod_motd.lua is a directory, and that ends Prosody"),
        &refused,
    );
    // What nobody loads does no harm.
    seen.equal("errors", errors(&start().serve()), Vec::new());
    seen.report();
}
