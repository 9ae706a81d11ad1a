//! Changes to a running server: a reload applies them, and sessions on hosts that stay notice nothing.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::docker::{
    BOOKWORM, Container, Dialogue, Observations, PATIENCE, Recipe, TRIXIE, eventually, images,
};
use crate::reload::{line, reload};

const DOMAIN: &str = "chat.example";

/// The path and the source of the module that [`description`] asks.
pub const DESCRIPTION: (&str, &str) =
    ("/etc/prosody/modules/mod_description.lua", include_str!("../live/mod_description.lua"));

/// What `mod_description` says of a server, once it has started.
#[track_caller]
pub fn description(server: &Container) -> BTreeSet<String> {
    ask_description(server, "describe").into_iter().collect()
}

/// How many kB the Lua of a server uses.
#[track_caller]
pub fn lua_memory(server: &Container) -> i64 {
    ask_description(server, "memory")[0].parse().unwrap()
}

#[track_caller]
fn ask_description(server: &Container, request: &str) -> Vec<String> {
    const PORT: u16 = 7777;
    eventually("the description", PATIENCE, || {
        let address = server.address();
        if address.is_empty() {
            return Err(server.logs());
        }
        let read = TcpStream::connect((address.as_str(), PORT)).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            stream.write_all(request.as_bytes())?;
            let lines = BufReader::new(stream).lines();
            lines.take_while(|line| !matches!(line, Ok(line) if line == "end")).collect()
        });
        read.map_err(|error| format!("{error}\n{}", server.logs()))
    })
}

/// Users with open sessions (tests/client/witness.py) on a server.
pub struct Witness(Dialogue);

impl Witness {
    #[track_caller]
    pub fn of(server: &Container) -> Self {
        Self(Dialogue::of_client(&format!("container:{}", server.name), "witness.py"))
    }

    pub fn ask(&mut self, request: &str) -> Result<String, String> {
        self.0.request(request).and_then(|()| self.0.answer())
    }
}

#[track_caller]
fn register(server: &Container, host: &str) {
    for user in ["alice", "bob"] {
        let secret = format!("secret-{}", &user[..1]);
        server.register(user, host, &secret).ok();
    }
}

/// Everything that a reload can change, on a server with open sessions.
fn a_server_is_changed(image: &str) {
    const DOMAINS: &str = "/etc/prosody/own/domains";
    const OWN: &str = "/etc/prosody/conf.d/own.cfg.lua";
    let server = Recipe::new(image)
        .with([
            "--add-host",
            "upload.chat.example:127.0.0.1",
            "--add-host",
            "upload.second.example:127.0.0.1",
        ])
        .env("PROSODY_DOMAIN_FILE", DOMAINS)
        .file(DOMAINS, DOMAIN)
        .file(OWN, "")
        .file("/etc/prosody/modules/mod_late.lua", "module:log('info', 'the late module')")
        .serve();
    let pid = server.server_pid();
    register(&server, DOMAIN);
    let mut witness = Witness::of(&server);
    let mut seen = Observations::default();
    seen.equal("sessions", witness.ask(&format!("open {DOMAIN}")), Ok(String::new()));

    let mut change = |what: &str, files: &[(&str, &str)], expected: &[&str], witness: &mut Witness| {
        for (file, content) in files {
            server.put(file, content.as_bytes());
        }
        let said = reload(&server);
        let line = line(&said);
        for part in expected {
            seen.that(&format!("{what}: {part}"), line.contains(part), &line);
        }
        seen.that(&format!("{what}: no restart"), !line.contains("restart"), &line);
        seen.that(&format!("{what}: no error"), !said.stderr.contains("Not as configured"), &said);
        let check = witness.ask(&format!("check {DOMAIN}"));
        seen.equal(&format!("{what}: the sessions of {DOMAIN}"), check, Ok(String::new()));
        let healthy = server.exec(["prosody-entrypoint", "healthcheck"]);
        seen.that(&format!("{what}: healthy"), healthy.status == 0, &healthy);
    };

    let both = format!("{DOMAIN}\nsecond.example\n");
    let new = "new: second.example, proxy.second.example, upload.second.example, conference.second.example";
    change("a domain", &[(DOMAINS, &both)], &[new], &mut witness);
    register(&server, "second.example");
    let opened = witness.ask("open second.example");
    let in_file = "VirtualHost 'own.example' Component 'conference.own.example' 'muc'";
    let new = "new: own.example, conference.own.example";
    change("a host", &[(OWN, in_file)], &[new], &mut witness);
    register(&server, "own.example");
    let opened_own = witness.ask("open own.example");
    let slot = witness.ask(&format!("slot {DOMAIN}"));
    let uploaded = witness.ask("slot second.example").and_then(|_| witness.ask("fill second.example"));
    let with = format!("VirtualHost '{DOMAIN}' modules_enabled = {{ 'late' }}");
    change("a module", &[(OWN, &with)], &["loaded: late on chat.example"], &mut witness);
    let without = "modules_disabled = { 'time' }";
    change("no module", &[(OWN, without)], &["unloaded: late on chat.example", "time on"], &mut witness);
    let options =
        "c2s_ports = { 5222, 15222 } archive_expires_after = '3w' http_file_share_size_limit = 1234567";
    let parts = ["loaded: time on", "mam on", "http_file_share on", "opened: c2s * 15222"];
    change("a port and options", &[(OWN, options)], &parts, &mut witness);
    let filled = slot.and_then(|_| witness.ask(&format!("fill {DOMAIN}")));
    let admins = format!("admins = {{ 'alice@{DOMAIN}' }}");
    change("administrators", &[(OWN, &admins)], &["set: admins on"], &mut witness);
    let checked = witness.ask("check second.example");
    let removed = "removed: conference.second.example, proxy.second.example, second.example (2 sessions \
                   ended), upload.second.example";
    change("no second domain", &[(DOMAINS, DOMAIN)], &[removed], &mut witness);
    let gone = witness.ask("gone second.example");
    change("nothing", &[], &["no file has changed"], &mut witness);

    seen.equal("sessions on the new host", opened, Ok(String::new()));
    seen.equal("sessions on a host of a custom file", opened_own, Ok(String::new()));
    seen.equal("a file on the new host", uploaded, Ok(String::new()));
    seen.equal("a slot of before", filled, Ok(String::new()));
    seen.equal("the sessions of the new host stay", checked, Ok(String::new()));
    seen.equal("its users are told of its end", gone, Ok(String::new()));
    seen.equal("the same process", server.server_pid(), pid);
    seen.that("no traceback", !server.logs().contains("traceback"), server.logs());
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_server_is_changed_without_a_restart_on_13_0() {
    a_server_is_changed(TRIXIE);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_server_is_changed_without_a_restart_on_0_12() {
    a_server_is_changed(BOOKWORM);
}

/// A mistake changes nothing else, and is said until it is corrected.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn what_cannot_be_applied_is_said_and_keeps_nothing_else() {
    let own = "/etc/prosody/conf.d/own.cfg.lua";
    let module = "/etc/prosody/modules/mod_broken.lua";
    let hook = "module:hook('x-broken', function () end) ";
    let server = Recipe::new(TRIXIE)
        .env("PROSODY_DOMAIN", DOMAIN)
        .env("PROSODY_MODULES_ENABLED", "description")
        .file(DESCRIPTION.0, DESCRIPTION.1)
        .file(module, format!("{hook}error('not today')"))
        .file(own, "")
        .serve();
    let mut seen = Observations::default();
    let current = || server.root("readlink -f /run/prosody/current").stdout;
    let first = current();
    server.put(own, b"x = \n");
    let said = reload(&server);
    let named = said.stderr.contains("Not reloaded") && said.stderr.contains("own.cfg.lua:2");
    seen.that("Prosody's loader names the line", named, &said);
    seen.equal("the configuration in force", current(), first);

    server.put(own, b"modules_enabled = { 'broken', 'description' } c2s_ports = { 5222, 15222 }\n");
    for what in ["a module that fails", "again"] {
        let said = reload(&server);
        let failure = "Not as configured: broken on chat.example is not loaded: /etc/prosody/modules/mod_broken.lua:1: not today";
        seen.that(what, said.stderr.contains(failure), &said);
    }
    seen.that(
        "the port is opened all the same",
        server.logs().contains("opened: c2s * 15222"),
        server.logs(),
    );
    server.put(module, hook.as_bytes());
    let said = reload(&server);
    seen.that("corrected", line(&said).contains("loaded: broken on chat.example"), &said);
    seen.that("no error any more", !said.stderr.contains("Not as configured"), &said);
    let hooked = description(&server).contains(&format!("{DOMAIN} event x-broken 1"));
    seen.that("no hooks of the attempts that failed", hooked, ());
    seen.report();
}

/// A port that a reload opens presents each host's certificate, as one that is open since the start. So does a port
/// where hosts get another name.
fn each_host_has_its_certificate(image: &str) {
    let server = Recipe::new(image)
        .env("PROSODY_VIRTUAL_HOSTS", &format!("{DOMAIN},second.example"))
        .env("PROSODY_MODULES_ENABLED", "bosh")
        .env("PROSODY_OPTIONS_FILE", "/srv/options")
        .file("/srv/options", format!(r#"{{"http_host": "{DOMAIN}"}}"#))
        .serve();
    let presented = |port: &str| {
        [DOMAIN, "second.example"].map(|host| {
            let script = format!(
                "openssl s_client -connect 127.0.0.1:{port} -servername {host} </dev/null 2>/dev/null \
                 | openssl x509 -noout -fingerprint"
            );
            server.root(&script).ok()
        })
    };
    let before = presented("5223");
    assert_ne!(before[0], before[1]);
    server.put("/srv/options", br#"{"c2s_direct_tls_ports": [15223]}"#);
    let said = reload(&server);
    let mut seen = Observations::default();
    seen.equal("a new port", presented("15223"), before.clone());
    seen.equal("another name", presented("5281"), before.clone());
    seen.that("no error", !said.stderr.contains("Not as configured"), &said);

    // Each makes the ports or their contexts anew.
    let options =
        r#"{"c2s_timeout": 70, "log": {"debug": "*console"}, "c2s_direct_tls_ports": [15223, 25223]}"#;
    server.put("/srv/options", options.as_bytes());
    reload(&server);
    for port in ["15223", "25223", "5281"] {
        seen.equal("after a reload of c2s", presented(port), before.clone());
    }
    server.put("/srv/options", br#"{"c2s_direct_tls_ports": [25223], "ssl": {"protocol": "tlsv1_3"}}"#);
    reload(&server);
    for port in ["25223", "5281"] {
        seen.equal("with another TLS option", presented(port), before.clone());
    }
    for connection in ["127.0.0.1:25223", "127.0.0.1:5281", "127.0.0.1:5222 -starttls xmpp -xmpphost HOST"] {
        for host in [DOMAIN, "second.example"] {
            let connection = connection.replace("HOST", host);
            let [old, new] = ["-tls1_2", "-tls1_3"].map(|version| {
                let options = format!("-connect {connection} -servername {host} {version}");
                server
                    .root(&format!("openssl s_client {options} </dev/null 2>&1 | grep -c '^New, TLS'"))
                    .stdout
            });
            seen.equal(
                &format!("TLS 1.2 and 1.3 at {connection} for {host}"),
                (&*old, &*new),
                ("0\n", "1\n"),
            );
        }
    }
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn each_host_has_its_certificate_on_13_0() {
    each_host_has_its_certificate(TRIXIE);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn each_host_has_its_certificate_on_0_12() {
    each_host_has_its_certificate(BOOKWORM);
}

/// A reload that ends after its switch leaves a generation that the server was never told of, as `render` does.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_module_whose_change_the_server_was_never_told_is_reloaded() {
    let module = "/etc/prosody/modules/mod_own.lua";
    let server = Recipe::new(TRIXIE)
        .env("PROSODY_DOMAIN", DOMAIN)
        .env("PROSODY_MODULES_ENABLED", "own")
        .file(module, "module:log('info', 'the first')")
        .serve();
    server.put(module, b"module:log('info', 'the second')");
    server.root("prosody-entrypoint render").ok();
    let said = reload(&server);
    let (first, again) = (line(&said), line(&reload(&server)));
    assert!(first.contains("no file has changed; reloaded: own on chat.example"), "{said:?}");
    assert!(said.stdout.contains("the second"), "{said:?}");
    assert!(!again.contains("own"), "{again}");
}

/// `render --diff` says what a reload would do, and changes nothing. `healthcheck --json` says what it has left undone.
fn a_reload_is_foretold(image: &str) {
    let (own, hosts) = ("/etc/prosody/conf.d/own.cfg.lua", "/srv/hosts");
    let module = "/etc/prosody/modules/mod_broken.lua";
    let with_module = "VirtualHost 'chat.example' modules_enabled = { 'broken' }";
    let server = Recipe::new(image)
        .env("PROSODY_VIRTUAL_HOSTS_FILE", hosts)
        .file(hosts, DOMAIN)
        .file(module, "error('not today')")
        .file(own, with_module)
        .serve();
    let mut seen = Observations::default();
    let diff = || server.exec(["prosody-entrypoint", "render", "--diff"]);
    let status = || {
        let answer = server.exec(["prosody-entrypoint", "healthcheck", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
        ["answers", "not_as_configured", "waits_for_restart"].map(|name| status[name].clone())
    };
    let unloaded = "broken on chat.example is not loaded: see Prosody's log";
    seen.equal("after the start", status(), [json!(true), json!([unloaded]), json!([])]);
    let said = diff();
    seen.that("it is listed", said.stdout.contains(&format!("Not as configured: {unloaded}\n")), &said);

    server.put(module, b"");
    server.put(hosts, format!("{DOMAIN},second.example").as_bytes());
    let options = format!("gc = {{ mode = 'incremental' }} c2s_ports = {{ 15222 }} {with_module}");
    server.put(own, options.as_bytes());
    let said = diff();
    for line in [
        "Live at a reload: everything else (new: second.example; loaded: broken on chat.example; \
         opened: c2s * 15222",
        "closed: c2s * 5222",
        "\nLive at a restart: gc\n",
    ] {
        seen.that(line, said.stdout.contains(line), &said);
    }
    seen.equal("a difference", said.status, 1);
    let healthy = server.exec(["prosody-entrypoint", "healthcheck"]);
    seen.that("the port stays", healthy.status == 0, &healthy);
    seen.equal("nothing is done", status(), [json!(true), json!([unloaded]), json!([])]);
    let reloaded = line(&reload(&server));
    for done in ["new: second.example", "loaded: broken on chat.example", "opened: c2s * 15222"] {
        seen.that(&format!("now it is: {done}"), reloaded.contains(done), &reloaded);
    }
    seen.equal("what waits", status(), [json!(true), json!([]), json!(["gc"])]);
    let said = diff();
    seen.equal("no difference but that", said.stdout.as_str(), "Live at a restart: gc\n");

    server.put(own, b"x = \n");
    let said = diff();
    let is_refused = said.stdout.contains("Refused by a reload: ") && said.stdout.contains("own.cfg.lua:2");
    seen.that("a mistake", is_refused, &said);
    server.put(own, b"default_storage = 'memory'\n");
    let said = diff();
    let is_refused = said.stdout.contains("Refused by a reload: default_storage");
    seen.that("another place of data", is_refused, &said);
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_reload_is_foretold_on_13_0() {
    a_reload_is_foretold(TRIXIE);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_reload_is_foretold_on_0_12() {
    a_reload_is_foretold(BOOKWORM);
}

/// Many hosts share the code of their modules: nothing but memory and time tells, a changed file is taken up, and a reload
/// to fewer hosts ends it.
fn many_hosts_share_code(image: &str) {
    const HOSTS: &str = "/srv/hosts";
    const MODULE: &str = "/etc/prosody/modules/mod_probe/mod_probe.lua";
    const LIBRARY: &str = "/etc/prosody/modules/mod_probe/what.lib.lua";
    // In code that is shared, a file is one of the functions.
    let library =
        |version: u8| format!("return '{version}, ' .. debug.getinfo(1, 'S').what .. ', ' .. module.host");
    let module = "local own = 0\nown = own + 1\nloads = (rawget(_ENV, 'loads') or 0) + own\n\
                  module:log('info', 'version %s, loads %d, %s', module:require 'what', loads, debug.getinfo(1, 'S').what)\n";
    let broken = "-- The first line\nlocal nothing\nfunction module.load()\n  nothing()\nend";
    let hosts = |count: u8| (0..count).map(|n| format!("host{n}.example\n")).collect::<String>();
    let server = Recipe::new(image)
        .env("PROSODY_VIRTUAL_HOSTS_FILE", HOSTS)
        .env("PROSODY_MODULES_ENABLED", "probe,broken")
        .env(
            "PROSODY_MODULES_DISABLED",
            "bookmarks,carbons,pep,smacks,vcard4,vcard_legacy,admin_adhoc,invites",
        )
        .file(HOSTS, hosts(50))
        .file(MODULE, module)
        .file(LIBRARY, library(1))
        .file("/etc/prosody/modules/mod_broken.lua", broken)
        .serve();
    let mut seen = Observations::default();
    let count = |said: &str, line: &str| said.lines().filter(|said| said.contains(line)).count();
    let said = server.logs();
    for host in ["host0.example", "host49.example"] {
        let line = format!("version 1, Lua, {host}, loads 1, Lua");
        seen.equal(&line, count(&said, &line), 1);
    }
    seen.equal("shared", count(&said, "loads 1, Lua"), 50);
    let place = "'broken' on 'host0.example': /etc/prosody/modules/mod_broken.lua:4: attempt to call a nil value (upvalue 'nothing')";
    seen.that("the place of an error", said.contains(place), place);

    server.put(LIBRARY, library(2).as_bytes());
    let changed = reload(&server).all();
    seen.equal("the changed file", count(&changed, "version 2, Lua, host"), 50);
    seen.equal("as new", count(&changed, "loads 1, Lua"), 50);

    server.put(HOSTS, hosts(49).as_bytes());
    server.put(LIBRARY, library(3).as_bytes());
    let fewer = reload(&server).all();
    seen.equal("not shared any more", count(&fewer, "version 3, main, host"), 49);
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn many_hosts_share_code_on_13_0() {
    many_hosts_share_code(TRIXIE);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn many_hosts_share_code_on_0_12() {
    many_hosts_share_code(BOOKWORM);
}

/// Another Prosody may not have a function that the script uses. Changes of that kind need a restart, others do not.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn what_prosody_lacks_needs_a_restart() {
    const OWN: &str = "/etc/prosody/conf.d/own.cfg.lua";
    const HOSTS: &str = "/srv/hosts";
    // What each case lacks, what still is live, and what waits.
    type Case<'a> = (&'a str, &'a [&'a str], &'a [&'a str]);
    let cases: [Case; 2] = [
        (
            "core.portmanager.close core.modulemanager.unload core.certmanager.reload_ssl_config",
            &["new: second.example", "reloaded: c2s"],
            &["c2s_ports", "modules_enabled of chat.example"],
        ),
        (
            "core.hostmanager.deactivate core.modulemanager.reload",
            &["loaded: late on chat.example", "opened: c2s * 15222"],
            &["second.example", "c2s_timeout"],
        ),
    ];
    for image in images() {
        for (functions, live, waits) in &cases {
            let lacking: Vec<String> = functions
                .split(' ')
                .map(|function| {
                    let (library, name) = function.rsplit_once('.').unwrap();
                    format!("require '{library}'.{name} = nil;")
                })
                .collect();
            let lacking = format!(
                "local lua = Lua or _G; local require = lua.require; if lua.prosody.process_type == 'prosody' then \
                 lua.prosody.events.add_handler('server-starting', function () {} end, 2000) end\n",
                lacking.concat()
            );
            let server = Recipe::new(image)
                .env("PROSODY_VIRTUAL_HOSTS_FILE", HOSTS)
                .file(HOSTS, DOMAIN)
                .file(OWN, &lacking)
                .file("/etc/prosody/modules/mod_late.lua", "")
                .serve();
            let mut seen = Observations::default();
            server.put(HOSTS, b"chat.example second.example");
            let changes = "c2s_timeout = 100 c2s_ports = { 5222, 15222 } VirtualHost 'chat.example' \
                           modules_enabled = { 'late' }";
            server.put(OWN, format!("{lacking}{changes}").as_bytes());
            let line = line(&reload(&server));
            let (done, waiting) = line.split_once("without effect before a restart: ").unwrap_or((&line, ""));
            live.iter().for_each(|part| seen.that(&format!("live: {part}"), done.contains(part), &line));
            waits.iter().for_each(|part| seen.that(&format!("waits: {part}"), waiting.contains(part), &line));
            let logs = server.logs();
            seen.that(
                "what is lacking is said",
                logs.contains("need a restart: Prosody has no function"),
                &logs,
            );
            seen.that("no error", !logs.contains("traceback") && !logs.contains("Not as configured"), &logs);
            seen.report();
        }
    }
}
