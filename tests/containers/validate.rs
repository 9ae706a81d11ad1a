//! `validate`: what a start would refuse, what users would miss, and the way to each.

use serde_json::Value;

use crate::docker::{Answer, BOOKWORM, Observations, Recipe, TRIXIE, Volume};

/// The findings of one level.
fn findings(answer: &Answer, level: &str) -> Vec<String> {
    let object: Value =
        serde_json::from_str(&answer.stdout).unwrap_or_else(|error| panic!("{error}: {}", answer.all()));
    let found = object["findings"].as_array().unwrap().iter().filter(|finding| finding["level"] == level);
    found.map(|finding| finding["text"].as_str().unwrap().to_owned()).collect()
}

fn validate(image: &str, settings: &[(&str, &str)]) -> Recipe {
    let recipe = Recipe::new(image).command(["validate", "--json"]);
    settings.iter().fold(recipe, |recipe, (name, value)| recipe.env(name, value))
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn validate_finds_what_users_would_miss() {
    let mut seen = Observations::default();
    let missing = |settings: &[(&str, &str)]| {
        let answer = validate(TRIXIE, settings).run();
        assert_eq!(answer.status, 0, "{}", answer.all());
        findings(&answer, "missing")
    };
    let domain = ("PROSODY_DOMAIN", "chat.example");
    let calls = "chat.example lacks Audio/video calls and P2P: set PROSODY_TURN_HOST and PROSODY_TURN_SECRET";
    let turn = [("PROSODY_TURN_HOST", "turn.example"), ("PROSODY_TURN_SECRET", "secret")];
    seen.equal("a domain", missing(&[domain]), vec![calls.to_owned()]);
    seen.equal("with calls", missing(&[domain, turn[0], turn[1]]), Vec::new());

    let host = ("PROSODY_VIRTUAL_HOSTS", "chat.example");
    let bare = [host, turn[0], turn[1], ("PROSODY_MODULES_DISABLED", "smacks")];
    let found = missing(&bare);
    let way = |what: &str| found.iter().any(|text| text.ends_with(what));
    seen.that("a component", way("add +NAME.chat.example:muc to PROSODY_COMPONENTS"), &found);
    seen.that("a module", way("add smacks to PROSODY_MODULES_ENABLED"), &found);
    // The ways, gone.
    let components = "+rooms.chat.example:muc +files.chat.example:http_file_share";
    let modules: Vec<&str> = found
        .iter()
        .filter_map(|text| text.rsplit_once(": add ")?.1.strip_suffix(" to PROSODY_MODULES_ENABLED"))
        .collect();
    let modules = modules.join(" ");
    let with_components =
        [host, turn[0], turn[1], ("PROSODY_COMPONENTS", components), ("PROSODY_MODULES_ENABLED", &modules)];
    let rooms = vec!["chat.example lacks Group chats: add muc_mam to PROSODY_MUC_MODULES".to_owned()];
    seen.equal("rooms without an archive", missing(&with_components), rooms);
    let complete = [&with_components[..], &[("PROSODY_MUC_MODULES", "muc_mam")]].concat();
    seen.equal("everything added", missing(&complete), Vec::new());
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn validate_lists_everything_as_json() {
    let mut seen = Observations::default();
    for image in [TRIXIE, BOOKWORM] {
        let wrong = validate(
            image,
            &[
                ("PROSODY_DOMAIN", "chat.example"),
                ("PROSODY_DOMIAN", "a"),
                ("PROSODY_C2S_PORTS", "x"),
                ("PROSODY_UPLOAD_LIMIT_MB", "x"),
            ],
        )
        .run();
        seen.equal(&format!("{image}: {wrong:?}"), wrong.status, 78);
        seen.equal("both errors", findings(&wrong, "error").len(), 2);
        seen.that("a warning", findings(&wrong, "warning")[0].contains("PROSODY_DOMIAN"), &wrong);
        seen.equal("nothing beside", wrong.stderr.as_str(), "");

        let file = validate(image, &[("PROSODY_DOMAIN", "chat.example")])
            .file("/etc/prosody/own.cfg.lua", "admins = = {}")
            .env("PROSODY_EXTRA_CONFIG", "/etc/prosody/own.cfg.lua")
            .run();
        seen.equal(&format!("{image}: {file:?}"), file.status, 78);
        let report: Value = serde_json::from_str(&file.stdout).unwrap();
        seen.that(
            "Prosody's own report",
            report["reports"]["config"].to_string().contains("own.cfg.lua"),
            &file,
        );

        let own = Recipe::new(image)
            .file(
                "/etc/prosody/prosody.cfg.lua",
                "modules_enabled = { \"tls\" }\nVirtualHost \"own.example\"",
            )
            .command(["validate", "--json"])
            .run();
        seen.equal(&format!("{image}: {own:?}"), own.status, 0);
    }
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn validate_finds_data_that_prosody_cannot_read() {
    let volume = Volume::new();
    volume.prepare(
        TRIXIE,
        "cd /volume; chown prosody .; mkdir -p chat%2eexample/accounts; chown -R prosody chat*; \
         echo 'return {}' >chat%2eexample/accounts/alice.dat; chmod 600 chat%2eexample/accounts/alice.dat",
    );
    let start = || {
        let recipe = validate(TRIXIE, &[("PROSODY_DOMAIN", "chat.example")]);
        let answer = recipe.volume(&volume, "/var/lib/prosody").run();
        (findings(&answer, "warning"), answer)
    };
    let (found, answer) = start();
    let is_said =
        found.iter().any(|text| text.contains("alice.dat belongs to uid 0") && text.contains("chown -R"));
    assert!(is_said, "{answer:?}");
    volume.prepare(TRIXIE, "chown -R prosody /volume");
    let (found, answer) = start();
    assert!(!found.iter().any(|text| text.contains("alice.dat")), "{answer:?}");
}
