//! What a reload does with each kind of change. The table in docs/usage.md is generated from the rows that a server with
//! open sessions is put through: `UPDATE_DOCS=1 cargo test --test containers live_changes` writes it anew.

use std::fs;
use std::path::Path;

use crate::docker::{BOOKWORM, Container, Observations, Recipe, TRIXIE};
use crate::live::Witness;
use crate::reload::{line, reload};

const DOMAIN: &str = "chat.example";

const DOMAINS: &str = "/srv/domains";
const OWN: &str = "/etc/prosody/conf.d/own.cfg.lua";
const MODULE: &str = "/etc/prosody/modules/mod_own.lua";
const CERTIFICATE: &str = "/etc/prosody/certs/chat.example.pem";

/// What becomes of a change.
enum Outcome {
    Applied,
    NeedsRestart,
    Rejected,
}

use Outcome::{Applied, NeedsRestart, Rejected};

/// A row of the table.
struct Row {
    change: &'static str,
    outcome: Outcome,
    effect: &'static str,
    /// Files with their new content, and what the log says after each.
    steps: Vec<(&'static str, String, &'static str)>,
}

fn row<const N: usize>(
    change: &'static str,
    outcome: Outcome,
    effect: &'static str,
    steps: [(&'static str, &str, &'static str); N],
) -> Row {
    let steps = steps.map(|(file, content, said)| (file, content.to_owned(), said)).into();
    Row { change, outcome, effect, steps }
}

fn rows() -> Vec<Row> {
    let pair = rcgen::generate_simple_self_signed([DOMAIN.to_owned()]).unwrap();
    let certificate = pair.cert.pem() + &pair.signing_key.serialize_pem();
    vec![
        row(
            "hosts and components",
            Applied,
            "added and removed; users of a removed host get `host-gone`, occupants of its rooms are told, an external \
             component's connection is closed, and the data stay",
            [
                (DOMAINS, "chat.example,second.example", "new: second.example, proxy.second.example"),
                (DOMAINS, DOMAIN, "removed: conference.second.example"),
            ],
        ),
        row(
            "`modules_enabled`, `modules_disabled`, the file of a custom module",
            Applied,
            "modules are loaded, unloaded with what they alone needed, and reloaded",
            [
                (
                    OWN,
                    "VirtualHost 'chat.example' modules_enabled = { 'own' }",
                    "loaded: own on chat.example",
                ),
                (MODULE, "module:log('info', 'changed')", "reloaded: own on chat.example"),
                (OWN, "modules_disabled = { 'time' }", "unloaded: own on chat.example, time on chat.example"),
            ],
        ),
        row(
            "options of modules",
            Applied,
            "the modules that read them when they are loaded are reloaded; others read them at the next use",
            [(OWN, "archive_expires_after = '3w'", "mam on chat.example")],
        ),
        row(
            "ports and interfaces",
            Applied,
            "opened and closed; sessions on a closed port stay",
            [
                (OWN, "c2s_direct_tls_ports = { 15223 }", "opened: c2s_direct_tls * 15223"),
                (OWN, "c2s_direct_tls_ports = { 15223 } c2s_ports = { 15222 }", "closed: c2s * 5222"),
                (OWN, "", "c2s * 5222"),
            ],
        ),
        row(
            "`admins`",
            Applied,
            "applied, to open sessions too",
            [(OWN, "admins = { 'alice@chat.example' }", "set: admins on chat.example")],
        ),
        row(
            "`authentication`",
            Applied,
            "the new provider is loaded, then the old one is unloaded; sessions stay",
            [
                (OWN, "authentication = 'internal_plain'", "loaded: auth_internal_plain on chat.example"),
                (OWN, "", "unloaded: auth_internal_plain on chat.example"),
            ],
        ),
        row(
            "certificates",
            Applied,
            "applied, and sessions stay; on direct TLS ports, clients without SNI still get the old certificate",
            [(CERTIFICATE, &certificate, "certs/chat.example.pem")],
        ),
        row(
            "`log`, `*_ssl` and other options that Prosody itself takes up again",
            Applied,
            "applied",
            [(OWN, "log = { debug = '*console' }", "own.cfg.lua"), (OWN, "", "own.cfg.lua")],
        ),
        row(
            "options that Prosody reads only at its start: `statistics`, `gc`, `pidfile`, `network_backend`, \
             `authorization`, roles and permissions; options of storage modules and of `component`",
            NeedsRestart,
            "the log names them at every reload",
            [
                (OWN, "statistics = 'internal'", "statistics"),
                (OWN, "gc = { mode = 'incremental' }", "gc"),
                (OWN, "authorization = 'other'", "authorization"),
                (OWN, "component_stanza_size_limit = 20000", "component_stanza_size_limit"),
                (OWN, "", ""),
            ],
        ),
        row(
            "the place of data: `storage`, `default_storage`, `sql` except user and password, `data_path`",
            Rejected,
            "a running server would have its data in two places",
            [
                (OWN, "default_storage = 'memory'", "default_storage"),
                (OWN, "storage = { archive = 'memory' }", "storage"),
                (OWN, "data_path = '/srv/data'", "data_path"),
                (OWN, "", ""),
            ],
        ),
    ]
}

fn each_change_has_its_effect(image: &str) {
    let server = Recipe::new(image)
        .env("PROSODY_DOMAIN_FILE", DOMAINS)
        .env("PROSODY_EXTERNAL_COMPONENTS", &format!("gateway.{DOMAIN}"))
        .env("PROSODY_COMPONENT_SECRET", "secret-g")
        .env("PROSODY_CERTIFICATE_RELOAD", "false")
        .file(DOMAINS, DOMAIN)
        .file(OWN, "")
        .file(MODULE, "")
        .serve();
    server.register_accounts(DOMAIN);
    let pid = server.server_pid();
    let mut witness = Witness::of(&server);
    let mut seen = Observations::default();
    seen.equal("sessions", witness.ask(&format!("open {DOMAIN}")), Ok(String::new()));
    for Row { change, outcome, steps, .. } in rows() {
        for (file, content, expected) in steps {
            server.put(file, content.as_bytes());
            let what = format!("{change}: {content}");
            check(&server, &mut seen, &what, &outcome, expected);
            let sessions = witness.ask(&format!("check {DOMAIN}"));
            seen.equal(&format!("{what}: the sessions"), sessions, Ok(String::new()));
        }
    }
    seen.equal("the same process", server.server_pid(), pid);
    seen.report();
}

/// Reloads, and looks at what is said of it. An empty expectation is a change that is taken back.
fn check(server: &Container, seen: &mut Observations, what: &str, outcome: &Outcome, expected: &str) {
    let said = reload(server);
    if matches!(outcome, Rejected) && !expected.is_empty() {
        let is_rejected = said.stderr.contains("Not reloaded") && said.stderr.contains(expected);
        return seen.that(&format!("{what}: it is rejected"), is_rejected, &said);
    }
    let line = line(&said);
    let (done, waits) = line.split_once("without effect before a restart: ").unwrap_or((&line, ""));
    match outcome {
        NeedsRestart => seen.equal(&format!("{what}: what waits for a restart"), waits, expected),
        Applied | Rejected => {
            seen.that(&format!("{what}: {expected}"), done.contains(expected), &line);
            seen.equal(&format!("{what}: what waits for a restart"), waits, "");
        }
    }
    seen.that(&format!("{what}: all is as configured"), !said.stderr.contains("Not as configured"), &said);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn each_change_has_its_effect_on_13_0() {
    each_change_has_its_effect(TRIXIE);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn each_change_has_its_effect_on_0_12() {
    each_change_has_its_effect(BOOKWORM);
}

/// The table for readers.
fn table() -> String {
    let mut table = String::from("| change | effect at a reload |\n| --- | --- |\n");
    for Row { change, outcome, effect, .. } in rows() {
        let effect = match outcome {
            Applied => effect.to_owned(),
            NeedsRestart => format!("needs a restart; {effect}"),
            Rejected => format!("rejected: {effect}"),
        };
        table += &format!("| {change} | {effect} |\n");
    }
    table
}

/// The documented table is the one that the other tests hold against real servers.
#[test]
fn the_documented_table_is_the_one_of_these_tests() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/usage.md");
    let page = fs::read_to_string(&path).expect("docs/usage.md cannot be read");
    let documented: String = page
        .split_inclusive('\n')
        .skip_while(|line| !line.starts_with("| change | effect"))
        .take_while(|line| line.starts_with('|'))
        .collect();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, page.replacen(&documented, &table(), 1)).expect("docs/usage.md cannot be written");
        return;
    }
    assert_eq!(documented, table(), "docs/usage.md is stale: make docs");
}
