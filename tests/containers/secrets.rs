//! Secrets stay secret: a marker is planted in every setting that is one, and looked for wherever others can look.

use std::collections::BTreeMap;

use prosody_entrypoint::settings::catalogue;

use crate::docker::{
    BOOKWORM, Container, Observations, Recipe, TRIXIE, Volume, docker, is_all_wanted, require,
};
use crate::privileges::environment_of_prosodyctl;

const DOMAIN: &str = "chat.example";

/// What every planted secret has in it.
const MARKER: &str = "hush-7f3e9a";

/// A value with the marker in it for each secret setting, and the other settings that it needs to be used. They are
/// tried in groups that can stand together.
const GROUPS: [&[(&str, &str)]; 3] = [
    &[
        ("PROSODY_TURN_SECRET", "hush-7f3e9a-turn"),
        ("PROSODY_COMPONENT_SECRET", "hush-7f3e9a-component"),
        ("PROSODY_EXTERNAL_COMPONENTS", "one.chat.example:hush-7f3e9a-one two.chat.example"),
        ("PROSODY_LDAP_PASSWORD", "hush-7f3e9a-ldap"),
        ("PROSODY_ACCOUNTS", "alice@chat.example:hush-7f3e9a-alice"),
    ],
    &[("PROSODY_DATABASE_URL", "postgresql://prosody:hush-7f3e9a-url@127.0.0.1/prosody")],
    &[("PROSODY_DB_PASSWORD", "hush-7f3e9a-db")],
];

/// What has to stand beside the secrets of a group.
const BESIDE: [&[(&str, &str)]; 3] = [
    &[
        ("PROSODY_TURN_HOST", "turn.example"),
        ("PROSODY_LDAP_BASE", "dc=example"),
        ("PROSODY_LDAP_ROOTDN", "cn=admin,dc=example"),
    ],
    &[("PROSODY_DB_WAIT", "0")],
    &[("PROSODY_STORAGE_VCARD", "sql"), ("PROSODY_DB_HOST", "127.0.0.1"), ("PROSODY_DB_WAIT", "0")],
];

/// How a secret comes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum By {
    Environment,
    /// A file that root alone can read, as Swarm's are.
    RootsFile,
    /// A file that everyone can read, as Compose's are: Prosody 13.0 is given its name.
    EveryonesFile,
}

/// A server with a group's secrets, at debug. The files are in a volume, as long as it is kept.
fn serve(image: &str, group: usize, by: By) -> (Option<Volume>, Container) {
    let mut recipe = Recipe::new(image)
        .env("PROSODY_DOMAIN", DOMAIN)
        .env("PROSODY_ENTRYPOINT_LOG", "debug")
        // Something to say at debug.
        .env("PROSODY_LOGLEVEL", "info")
        // Misspelt, it may be a secret all the same.
        .env("PROSODY_TURN_SECRETT", &format!("{MARKER}-misspelt"));
    for (name, value) in BESIDE[group] {
        recipe = recipe.env(name, value);
    }
    if by == By::Environment {
        for (name, value) in GROUPS[group] {
            recipe = recipe.env(name, value);
        }
        return (None, recipe.serve());
    }
    let volume = Volume::new();
    let mode = if by == By::RootsFile { "0400" } else { "0444" };
    let mut script = "cd /volume; ".to_owned();
    for (name, value) in GROUPS[group] {
        script.push_str(&format!("printf '%s\\n' '{value}' >{name}; chmod {mode} {name}; "));
        recipe = recipe.env(&format!("{name}_FILE"), &format!("/run/secrets/{name}"));
    }
    volume.prepare(image, &script);
    let server = recipe.volume(&volume, "/run/secrets").serve();
    (Some(volume), server)
}

/// A program finds in its environment what is not ours, and of an account's variables all but the password.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn the_password_of_another_images_account_is_handed_on_to_nobody() {
    require(TRIXIE);
    let account = |recipe: Recipe| recipe.env("LOCAL", "romeo").env("DOMAIN", DOMAIN).env("PASSWORD", MARKER);
    let environment = account(Recipe::new(TRIXIE)).command(["env"]).run();
    let seen = environment.all();
    assert!(seen.contains("LOCAL=romeo") && seen.contains(&format!("DOMAIN={DOMAIN}")), "{seen}");
    assert!(!seen.contains(MARKER), "{seen}");

    let others =
        Recipe::new(TRIXIE).env("PASSWORD", MARKER).env("DB_PASSWORD", MARKER).env("LDAP_PASSWORD", MARKER);
    let seen = others.env("LISTEN_FDS", "1").env("MY_PASSWORD", "mine").command(["env"]).run().all();
    assert!(seen.contains("MY_PASSWORD=mine") && !seen.contains("LISTEN_FDS"), "{seen}");
    assert!(!seen.contains(MARKER), "{seen}");

    let reads =
        Recipe::new(TRIXIE).file("/etc/prosody/conf.d/sql.cfg.lua", "sql_password = ENV_DB_PASSWORD\n");
    let seen = reads.env("DB_PASSWORD", MARKER).command(["env"]).run().all();
    assert!(seen.contains(&format!("DB_PASSWORD={MARKER}")), "a custom file reads it: {seen}");

    let own = Recipe::new(TRIXIE).file("/etc/prosody/prosody.cfg.lua", "VirtualHost 'localhost'\n");
    let whole = account(own).command(["env"]).run().all();
    assert!(whole.contains(&format!("PASSWORD={MARKER}")), "with an own configuration it is whole: {whole}");
}

#[test]
fn every_secret_setting_has_a_marker() {
    let planted: BTreeMap<&str, &str> = GROUPS.iter().flat_map(|group| group.iter().copied()).collect();
    for setting in catalogue::settings().filter(|setting| setting.secret) {
        let value = planted.get(setting.field.variable().as_str());
        assert!(value.is_some_and(|value| value.contains(MARKER)), "{} has none", setting.field.variable());
    }
}

fn observe(image: &str) {
    require(image);
    let mut seen = Observations::default();
    for group in 0..GROUPS.len() {
        for by in [By::Environment, By::RootsFile, By::EveryonesFile] {
            // They take turns, and the first group has all of them with 13.0.
            let is_its_turn = by as usize == group || (group == 0 && image == TRIXIE);
            if !is_its_turn && !is_all_wanted() {
                continue;
            }
            // The server goes first, and then what it uses.
            let (_files, server) = serve(image, group, by);
            observe_server(&mut seen, &format!("group {group}, {by:?}"), &server, by, image, group);
        }
    }
    // What is in the image, its labels and its layers' commands; the marker is in none of ours, so that what is looked for
    // is what could be there: a value of a setting.
    let description = docker(["image", "inspect", image]).ok();
    let layers = docker(["history", "--no-trunc", "--format", "{{.CreatedBy}}", image]).ok();
    for text in [description, layers] {
        seen.that("the image has no marker", !text.contains(MARKER), &text);
        seen.that("the image has no setting that is a secret", !text.contains("PROSODY_DB_PASSWORD"), &text);
    }
    seen.report();
}

fn observe_server(
    seen: &mut Observations,
    what: &str,
    server: &Container,
    by: By,
    image: &str,
    group: usize,
) {
    let hidden = |seen: &mut Observations, place: &str, text: &str| {
        let line = text.lines().find(|line| line.contains(MARKER)).unwrap_or_default();
        seen.that(&format!("{what}: no secret in {place}"), line.is_empty(), line);
    };
    let logs = server.logs();
    seen.that(&format!("{what}: our log is at debug"), logs.contains("debug"), &logs);
    hidden(seen, "the log", &logs);

    let pid = server.server_pid();
    for file in ["environ", "cmdline"] {
        let text = server.as_prosody(&format!("tr '\\0' '\\n' </proc/{pid}/{file}")).ok();
        seen.that(&format!("{what}: {file} can be read"), !text.is_empty(), &text);
        hidden(seen, &format!("Prosody's {file}"), &text);
        // Without SYS_PTRACE, root of this container cannot read PID 1's environment either; its arguments have none.
        let of_init = server.root(&format!("tr '\\0' '\\n' </proc/1/{file}"));
        hidden(seen, &format!("PID 1's {file}"), &of_init.all());
    }
    hidden(seen, "prosodyctl's environment", &environment_of_prosodyctl(server, "0", "999:999"));

    for command in [
        "prosody-entrypoint render --dry-run",
        "prosody-entrypoint render --json",
        "prosody-entrypoint render --diff",
        "prosody-entrypoint settings --effective",
        "prosody-entrypoint modules",
        "prosody-entrypoint modules --json",
    ] {
        let answer = server.root(&format!("env PROSODY_ENTRYPOINT_LOG=debug {command}"));
        let is_fine = answer.status == 0 || (command.ends_with("--diff") && answer.status == 1);
        seen.that(&format!("{what}: {command} works"), is_fine, answer.all());
        hidden(seen, command, &answer.all());
    }

    // That the search finds what is there: Prosody has it, in a file or by a reference to one.
    let rendered = server.root(&format!("grep -rl {MARKER} /run/prosody/current/")).stdout;
    let referred = server.root("grep -rlF 'FileLine(\"/run/secrets/' /run/prosody/current/").stdout;
    // A URL is taken apart: the password in it is no line of a file.
    let is_referred = by == By::EveryonesFile && image == TRIXIE && group != 1;
    seen.that(
        &format!("{what}: Prosody is given a reference"),
        referred.is_empty() != is_referred,
        &referred,
    );
    seen.that(&format!("{what}: Prosody has the secret"), is_referred || !rendered.is_empty(), &rendered);
    let open =
        server.root("find -L /run/prosody/current -type f -perm /007 ! -path '*/community-modules/*'").stdout;
    seen.equal(&format!("{what}: files that everyone can read"), open.as_str(), "");
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn no_secret_is_where_others_can_look_on_13_0() {
    observe(TRIXIE);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn no_secret_is_where_others_can_look_on_0_12() {
    observe(BOOKWORM);
}
