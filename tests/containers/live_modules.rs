//! Every module of the image is reloaded, disabled and enabled in a running server with sessions of every kind
//! (tests/client/witness.py), which must not notice.

use std::collections::BTreeSet;

use crate::docker::{
    Answer, BOOKWORM, Container, Network, Observations, Recipe, TRIXIE, docker, is_all_wanted,
};
use crate::live::{DESCRIPTION, Witness, description, lua_memory};
use crate::reload::reload;

const DOMAIN: &str = "chat.example";
const PEER: &str = "peer.example";
const HOSTS: &str = "/srv/hosts";
const OWN: &str = "/etc/prosody/conf.d/own.cfg.lua";

/// Modules besides the default ones.
const ENABLED: &str = "announce,csi,external_services,groups,http_files,http_openmetrics,lastactivity,\
    legacyauth,motd,server_contact_info,stanza_debug,watchregistrations,welcome";

/// The modules of `make test`: many others need them, or they hold sessions.
const DEAR: &[&str] = &[
    "bosh", "c2s", "http", "http_file_share", "mam", "muc", "pep", "s2s", "saslauth", "smacks", "tls",
    "websocket",
];

/// A reload leaves them: see `never_reloaded` in src/live/server.lua.
const NEVER_RELOADED: &[&str] = &["authz_internal", "component"];

/// A server with users, and another one that it talks to.
struct Scene {
    server: Container,
    witness: Witness,
    _peer: Container,
    _network: Network,
}

/// Sessions by BOSH are idle between two surveys.
const OPTIONS: &str = r#"{"http_files_dir": "/srv", "max_resources": 1000, "bosh_max_inactivity": 600}"#;

impl Scene {
    #[track_caller]
    fn new(image: &str) -> Self {
        let network = Network::new();
        let peer = Recipe::new(image)
            .on(&network, &[PEER])
            .env("PROSODY_DOMAIN", PEER)
            .env("PROSODY_S2S_SECURE_AUTH", "false")
            .start();
        let names = ["", "conference.", "upload.", "proxy.", "pubsub."].map(|name| format!("{name}{DOMAIN}"));
        let server = Recipe::new(image)
            .on(&network, &names.each_ref().map(String::as_str))
            .env("PROSODY_DOMAIN", DOMAIN)
            .env("PROSODY_COMPONENTS", &format!("+pubsub.{DOMAIN}:pubsub"))
            .env("PROSODY_EXTERNAL_COMPONENTS", &format!("gateway.{DOMAIN}"))
            .env("PROSODY_COMPONENT_SECRET", "secret-g")
            .env("PROSODY_MODULES_ENABLED", &format!("description,{ENABLED}"))
            .env("PROSODY_OPTIONS", OPTIONS)
            .env("PROSODY_S2S_SECURE_AUTH", "false")
            // Not the default one, whose file is not watched.
            .env("PROSODY_AUTHENTICATION", "internal_hashed")
            .env("PROSODY_TURN_HOST", "turn.example")
            .env("PROSODY_TURN_SECRET", "secret-t")
            .env("PROSODY_VIRTUAL_HOSTS_FILE", HOSTS)
            .file(HOSTS, DOMAIN)
            .file(OWN, "")
            .file(DESCRIPTION.0, DESCRIPTION.1)
            .start();
        // Prosody's own modules become custom ones, whose files may change.
        server.root("cp -r /usr/lib/prosody/modules/. /etc/prosody/modules/").ok();
        docker(["restart", "--time", "0", &server.name]).ok();
        for (server, host, users) in
            [(&server, DOMAIN, &["alice", "bob", "carol"][..]), (&peer, PEER, &["dave"])]
        {
            server.wait_until_it_serves();
            for user in users {
                server.exec(["prosodyctl", "register", user, host, &format!("secret-{}", &user[..1])]).ok();
            }
        }
        let mut scene = Self { witness: Witness::of(&server), server, _peer: peer, _network: network };
        scene.gather();
        assert_eq!(scene.survey(), "", "failed before anything has changed\n{}", scene.server.logs());
        scene
    }

    /// Opens the sessions, anew if there are any.
    #[track_caller]
    fn gather(&mut self) {
        let gathered = self.witness.ask(&format!("gather {DOMAIN} {PEER}"));
        assert_eq!(gathered, Ok(String::new()), "{}", self.server.logs());
    }

    /// The checks that fail.
    fn survey(&mut self) -> String {
        self.witness.ask(&format!("survey {DOMAIN}")).unwrap_or_else(|error| error)
    }

    /// The modules of the server.
    #[track_caller]
    fn modules(&self) -> BTreeSet<String> {
        let name = |line: String| Some(line.split_once(" module ")?.1.to_owned());
        description(&self.server).into_iter().filter_map(name).collect()
    }

    /// Reloads after a change. Returns what is said of it.
    #[track_caller]
    fn change(&self, script: &str) -> Answer {
        self.server.root(script).ok();
        reload(&self.server)
    }

    /// Reloads with these modules disabled.
    #[track_caller]
    fn disable(&self, modules: &[&str]) -> Answer {
        self.change(&format!("echo 'modules_disabled = {{ \"{}\" }}' >{OWN}", modules.join("\", \"")))
    }

    /// Changes the files of these modules, and disables and enables these.
    #[track_caller]
    fn put_through(&mut self, touched: &[&str], toggled: &[&str], seen: &mut Observations) {
        let touch = |module: &&str| {
            let edit = r#"sed -i '1i module:log("info", "touched");'"#;
            format!("find /etc/prosody/modules -name mod_{module}.lua -exec {edit} {{}} +")
        };
        let said = self.change(&touched.iter().map(touch).collect::<Vec<_>>().join("\n"));
        for module in touched {
            let is_reloaded = |line: &str| {
                let (logger, message) = line.split_once(char::is_whitespace).unwrap_or_default();
                logger.ends_with(&format!(":{module}")) && message.ends_with("touched")
            };
            let is_to_be = !NEVER_RELOADED.contains(module) && !module.starts_with("storage_");
            let is_reloaded = said.stdout.lines().any(is_reloaded);
            seen.equal(&format!("{module} is reloaded: {}", said.all()), is_reloaded, is_to_be);
        }
        let failed = self.survey();
        seen.equal(&format!("what fails after a reload of {touched:?}"), &*failed, "");
        let said = [self.disable(toggled), self.change(&format!(": >{OWN}"))].map(|said| said.stderr);
        let after = self.survey();
        let is_lost =
            |name: &str| name.is_empty() || toggled.iter().any(|module| lost(module).contains(&name));
        seen.that(&format!("what fails afterwards: {said:?}"), after.split(' ').all(is_lost), &after);
        if !failed.is_empty() || !after.is_empty() {
            self.gather();
        }
    }
}

/// What may fail after a module was disabled and enabled again.
fn lost(module: &str) -> &'static [&'static str] {
    match module {
        // Nobody answers its requests meanwhile.
        "bosh" => &["bosh"],
        _ => &[],
    }
}

fn every_module(image: &str) {
    let mut scene = Scene::new(image);
    let mut seen = Observations::default();
    let modules = scene.modules();
    let missing: Vec<&&str> = DEAR.iter().filter(|name| !modules.contains(**name)).collect();
    seen.that("all of these are loaded", missing.is_empty(), missing);
    let named = std::env::var("MODULES").ok();
    if named.is_none() && !is_all_wanted() {
        scene.put_through(DEAR, &["mam", "pep", "websocket"], &mut seen);
    } else {
        let is_named =
            |name: &&str| named.as_ref().is_none_or(|named| named.split(',').any(|named| named == *name));
        for module in modules.iter().map(String::as_str).filter(is_named) {
            let toggled: &[&str] = match module {
                // Its users lose sessions: see the test below.
                "smacks" => &[],
                // The others cannot be without it.
                "c2s" => &["c2s", "bosh", "websocket"],
                _ => &[module],
            };
            scene.put_through(&[module], toggled, &mut seen);
        }
    }
    seen.that("no traceback", !scene.server.logs().contains("traceback"), scene.server.logs());
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_changed_module_loses_no_session_on_13_0() {
    every_module(TRIXIE);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_changed_module_loses_no_session_on_0_12() {
    every_module(BOOKWORM);
}

/// The one module whose end is noticed by everybody who uses it. So the checks can fail.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn the_end_of_smacks_is_noticed() {
    let mut scene = Scene::new(TRIXIE);
    let said = scene.disable(&["smacks"]);
    assert!(said.stderr.contains("unloaded: smacks on chat.example"), "{said:?}");
    // What still works may be too slow for this. It is about what does not.
    let failed = scene.witness.ask(&format!("survey {DOMAIN} 4")).unwrap();
    for check in ["resumption", "message", "room", "acknowledgement"] {
        assert!(failed.split(' ').any(|name| name == check), "{check} did not fail, but {failed}");
    }
}

/// A cycle of reloads of every kind, each as a file and its content.
const CYCLE: [(&str, &str); 10] = [
    (HOSTS, "chat.example,second.example"),
    (OWN, "VirtualHost 'chat.example' modules_enabled = { 'motd', 'groups' }"),
    (OWN, "archive_expires_after = '3w' smacks_hibernation_time = 700"),
    (OWN, "c2s_ports = { 5222, 15222 } https_ports = { 5281, 15281 }"),
    (OWN, "admins = { 'bob@chat.example' }"),
    (OWN, "authentication = 'internal_plain'"),
    (OWN, "modules_disabled = { 'time', 'mam' }"),
    (HOSTS, "chat.example"),
    (OWN, "limits = { c2s = { rate = '100kb/s' } } c2s_timeout = 50"),
    (OWN, ""),
];

/// Sessions stay, and memory stays as it is.
fn many_reloads(image: &str) {
    let (crowd, cycles) = if is_all_wanted() { (200, 100) } else { (20, 2) };
    let mut scene = Scene::new(image);
    let crowded = scene.witness.ask(&format!("crowd {DOMAIN} {crowd}"));
    assert_eq!(crowded, Ok(String::new()), "{}", scene.server.logs());
    let mut seen = Observations::default();
    let mut memory = Vec::new();
    for cycle in 0..cycles {
        for (file, content) in CYCLE {
            scene.server.put(file, content.as_bytes());
            let said = reload(&scene.server).stderr;
            let is_right = !["restart", "Not "].iter().any(|word| said.contains(word));
            seen.that(&format!("cycle {cycle}, {content}"), is_right, said);
        }
        if cycle % 10 < 2 {
            seen.equal(&format!("what fails after cycle {cycle}"), scene.survey().as_str(), "");
        }
        memory.push(lua_memory(&scene.server));
    }
    let growth = memory[memory.len() - 1] - memory[0];
    seen.that("memory in kB after each cycle", growth <= 2048, &memory);
    eprintln!(
        "{crowd} sessions, {} reloads, memory in kB after each cycle: {memory:?}",
        cycles * CYCLE.len()
    );
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn many_reloads_lose_no_session_and_no_memory_on_13_0() {
    many_reloads(TRIXIE);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn many_reloads_lose_no_session_and_no_memory_on_0_12() {
    if is_all_wanted() {
        many_reloads(BOOKWORM);
    }
}
