//! SIGHUP while a server runs, and other signals to PID 1.

use std::time::{Duration, Instant};

use crate::docker::{
    Answer, BOOKWORM, Container, Observations, PATIENCE, Recipe, TRIXIE, Volume, docker, eventually, images,
};

const DOMAIN: &str = "chat.example";

/// What Prosody logs when it is told of a reload.
const TOLD: &str = "Re-opening log files";

/// Sends SIGHUP and waits until it has had its effect: what we said of it, and what Prosody did.
#[track_caller]
pub fn reload(server: &Container) -> Answer {
    let before = server.mark();
    server.signal("HUP");
    eventually("the reload", PATIENCE, || {
        let said = server.since(before);
        if said.stderr.contains("Reloading") || said.stderr.contains("Not reloaded") {
            return Ok(said);
        }
        assert!(server.runs(), "SIGHUP ended the container:\n{}", server.logs());
        Err(said.all())
    })
}

/// How often Prosody was told.
fn received(server: &Container) -> usize {
    server.logs().matches(TOLD).count()
}

/// The generation in force.
#[track_caller]
fn current(server: &Container) -> String {
    server.root("readlink /run/prosody/current").ok()
}

/// The one line that a reload ends with.
#[track_caller]
pub fn line(said: &Answer) -> String {
    let lines: Vec<&str> = said.stderr.lines().filter(|line| line.contains("Reloading")).collect();
    assert_eq!(lines.len(), 1, "one line says what changed: {}", said.all());
    lines[0].to_owned()
}

/// A certificate and its key, as PEM.
fn certificate() -> (String, String) {
    let made = rcgen::generate_simple_self_signed([DOMAIN.to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn without_space(text: &str) -> String {
    text.split_whitespace().collect()
}

/// The certificate that is shown at a port.
fn served(server: &Container, port: &str) -> String {
    let how = match port {
        "5222" => format!("-starttls xmpp -xmpphost {DOMAIN}"),
        _ => format!("-servername {DOMAIN}"),
    };
    let script =
        format!("openssl s_client -connect 127.0.0.1:{port} {how} </dev/null 2>/dev/null | openssl x509");
    without_space(&server.root(&script).stdout)
}

/// Whether an external component (XEP-0114) is let in with a secret.
fn is_let_in(server: &Container, secret: &str) -> bool {
    let script = r#"
        exec 3<>/dev/tcp/127.0.0.1/5347
        printf "<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' to='gateway.example'>" >&3
        until [[ $header == *"<stream:stream"* ]]; do read -r -t 20 -d '>' -u 3 header || exit; done
        id=${header#*id=[\'\"]}
        digest=$(printf %s "${id%%[\'\"]*}$1" | sha1sum | cut -c 1-40)
        printf '<handshake>%s</handshake>' "$digest" >&3
        read -r -t 20 -d '>' -u 3 answer
        echo "$answer"
    "#;
    let answer = server.exec(["bash", "-c", script, "bash", secret]).ok();
    assert!(answer.starts_with("<handshake") || answer.starts_with("<stream:error"), "{answer:?}");
    answer.starts_with("<handshake")
}

/// Everything that a reload reads, before and after a change.
fn takes_up_what_changed(image: &str) {
    let (old, old_key) = certificate();
    let (new, new_key) = certificate();
    let server = Recipe::new(image)
        .env("PROSODY_VIRTUAL_HOSTS_FILE", "/srv/hosts")
        .env("PROSODY_EXTERNAL_COMPONENTS", "gateway.example")
        .env("PROSODY_COMPONENT_SECRET_FILE", "/srv/secret")
        .env("PROSODY_OPTIONS_FILE", "/srv/options")
        // Each change is to wait for its signal.
        .env("PROSODY_CERTIFICATE_RELOAD", "false")
        .file("/srv/hosts", DOMAIN)
        .file("/srv/secret", "first-secret")
        .file("/srv/options", "{}")
        .file("/etc/prosody/conf.d/own.cfg.lua", "x_own = 1\n")
        .file("/etc/prosody/conf.d/template.cfg.lua.j2", "x_template = {{ 1 }}\n")
        .file(&format!("/etc/prosody/certs/{DOMAIN}.crt"), &old)
        .file(&format!("/etc/prosody/certs/{DOMAIN}.key"), &old_key)
        .serve();
    let mut seen = Observations::default();
    let pid = server.server_pid();

    let first = current(&server);
    let said = reload(&server);
    seen.that("nothing has changed", line(&said).contains("no file has changed"), line(&said));
    seen.equal("no new generation", current(&server), first.clone());

    let mut last = first;
    let mut reload_names = |what: &str, names: &[&str], restart: Option<&str>| {
        let said = reload(&server);
        let line = line(&said);
        for name in names {
            seen.that(&format!("{what}: {name} is named"), line.contains(name), &line);
        }
        match restart {
            Some(restart) => {
                let waits = line.split_once("without effect before a restart: ").map(|(_, what)| what);
                seen.equal(&format!("{what}: what needs a restart"), waits, Some(restart));
            }
            None => seen.that(&format!("{what}: no restart"), !line.contains("restart"), &line),
        }
        let now = current(&server);
        seen.that(&format!("{what}: a new generation"), now != last, &now);
        last = now;
        said
    };

    server.put("/etc/prosody/conf.d/own.cfg.lua", b"x_own = 2\n");
    reload_names("a file of the user's", &["conf.d/own.cfg.lua"], None);

    server.put("/etc/prosody/conf.d/template.cfg.lua.j2", b"x_template = {{ 2 }}\n");
    reload_names("a template", &["template.cfg.lua"], None);

    let is_let_in_before = is_let_in(&server, "first-secret");
    server.put("/srv/secret", b"second-secret");
    // Prosody 13.0 is given the name of the file.
    let named = if image == TRIXIE { "/srv/secret" } else { "components.cfg.lua" };
    reload_names("a secret", &[named], None);
    let is_let_in_after = (is_let_in(&server, "first-secret"), is_let_in(&server, "second-secret"));

    let before = [served(&server, "5222"), served(&server, "5223")];
    server.put(&format!("/etc/prosody/certs/{DOMAIN}.key"), new_key.as_bytes());
    server.put(&format!("/etc/prosody/certs/{DOMAIN}.crt"), new.as_bytes());
    reload_names("a certificate", &["certs/chat.example.crt"], None);
    let after = [served(&server, "5222"), served(&server, "5223")];

    server.put("/srv/options", br#"{"log": {"debug": "*console"}}"#);
    reload_names("the log's level", &["global.cfg.lua"], None);
    let mark = server.mark();
    served(&server, "5222");
    let debugged = server.since(mark).stdout;

    server.put("/srv/hosts", b"chat.example,second.example");
    reload_names("a host", &["vhosts.cfg.lua", "new: second.example"], None);

    server.put("/srv/options", br#"{"log": {"debug": "*console"}, "c2s_ports": [15222]}"#);
    reload_names("a port", &["global.cfg.lua", "opened: c2s * 15222", "closed: c2s * 5222"], None);
    server.put("/srv/options", br#"{"log": {"debug": "*console"}, "statistics": "internal"}"#);
    reload_names("what is read at a start", &["global.cfg.lua"], Some("statistics"));

    seen.that("the first secret let in", is_let_in_before, ());
    seen.equal("the second secret lets in, and the first does no more", is_let_in_after, (false, true));
    seen.equal("the certificate before", before, [without_space(&old), without_space(&old)]);
    seen.equal("the certificate after", after, [without_space(&new), without_space(&new)]);
    let has_debug =
        debugged.lines().any(|line| line.split('\t').next().is_some_and(|head| head.ends_with("debug")));
    seen.that("Prosody debugs", has_debug, debugged);
    seen.equal("Prosody was told each time", received(&server), 9);
    seen.equal("the same process all the time", server.server_pid(), pid);
    let secrets = server.logs();
    seen.that("no secret in the log", !secrets.contains("-secret"), secrets);
    let generations = server.root("cd /run/prosody && ls -d generation-* .new-* 2>/dev/null").stdout;
    // The one that the server was started with is among them: it loads modules through it.
    seen.equal("the first and the last four generations stay", generations.lines().count(), 5);
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_reload_takes_up_what_changed_on_13_0() {
    takes_up_what_changed(TRIXIE);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_reload_takes_up_what_changed_on_0_12() {
    takes_up_what_changed(BOOKWORM);
}

/// A reload that ends after its switch leaves a generation that the server was never told of, as `render` does.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_reload_tells_of_certificates_that_are_in_force_and_were_never_told() {
    let [(old, old_key), (new, new_key)] = [certificate(), certificate()];
    let [crt, key] = ["crt", "key"].map(|kind| format!("/etc/prosody/certs/{DOMAIN}.{kind}"));
    let server = Recipe::new(TRIXIE)
        .env("PROSODY_DOMAIN", DOMAIN)
        .env("PROSODY_CERTIFICATE_RELOAD", "false")
        .file(&crt, &old)
        .file(&key, &old_key)
        .serve();
    server.put(&crt, new.as_bytes());
    server.put(&key, new_key.as_bytes());
    server.root("prosody-entrypoint render").ok();
    let mut seen = Observations::default();
    seen.equal("not yet", served(&server, "5222"), without_space(&old));
    let said = reload(&server);
    seen.that("no file has changed since", line(&said).contains("no file has changed"), &said);
    seen.equal("now", served(&server, "5222"), without_space(&new));
    seen.report();
}

/// Certificates that change while the server runs, and nobody says so.
fn takes_up_certificates(image: &str) {
    let (old, old_key) = certificate();
    let (new, new_key) = certificate();
    let (other, other_key_text) = certificate();
    let pair = |folder: &str| ["crt", "key"].map(|kind| format!("{folder}/{DOMAIN}.{kind}"));
    let [crt, key] = pair("/etc/prosody/certs");
    let [new_crt, new_key_file] = pair("/srv");
    let [other_crt, other_key] = ["/srv/other.crt", "/srv/other.key"];
    let [folder_crt, folder_key] = pair("/etc/prosody/certs/folder");
    let server = Recipe::new(image)
        .env("PROSODY_DOMAIN", DOMAIN)
        .env("PROSODY_VIRTUAL_HOSTS", "other.example")
        .file(&crt, &old)
        .file(&key, &old_key)
        .file(&new_crt, &new)
        .file(&new_key_file, &new_key)
        .file(other_crt, &other)
        .file(other_key, &other_key_text)
        .serve();
    let mut seen = Observations::default();
    seen.equal("the certificate before", served(&server, "5223"), without_space(&old));

    let before = server.mark();
    server.root("mkdir /etc/prosody/certs/folder; ls /etc/prosody/certs; chmod 755 /etc/prosody/certs").ok();
    server.root(&format!("cp {new_crt} {new_key_file} /etc/prosody/certs/")).ok();
    eventually("the new certificate", PATIENCE, || match served(&server, "5223") {
        served if served == without_space(&new) => Ok(()),
        other => Err(other),
    });
    seen.equal("on the other port too", served(&server, "5222"), without_space(&new));
    // The same certificate elsewhere is no news; the folder is watched by now.
    server.root(&format!("mv {crt} {key} /etc/prosody/certs/folder/")).ok();
    server.root(&format!("cp {other_crt} {folder_crt}; cp {other_key} {folder_key}")).ok();
    eventually("one in the folder", PATIENCE, || match served(&server, "5223") {
        served if served == without_space(&other) => Ok(()),
        other => Err(other),
    });
    // The server serves a certificate before its reload is logged.
    let said = eventually("a line each", PATIENCE, || {
        let said = server.since(before).stderr;
        if said.matches("Reloading, ").count() < 2 { Err(said) } else { Ok(said) }
    });
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("Reloading, ")).collect();
    seen.equal(&format!("one line each: {said}"), lines.len(), 2);
    seen.that("the files are named", lines[0].contains(&format!("changed: certs/{DOMAIN}.crt")), &said);
    let logs = server.logs();
    let has_reloaded = |host: &str| {
        logs.lines().any(|line| line.starts_with(host) && line.contains("Certificates reloaded"))
    };
    seen.that("the host takes it up", has_reloaded(&format!("{DOMAIN}:tls")), &logs);
    seen.that("no other host does", !has_reloaded("other.example:tls"), &logs);
    seen.that("those of a folder too", lines[1].contains(&format!("certs/folder/{DOMAIN}.crt")), &said);
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn changed_certificates_are_taken_up_on_13_0() {
    takes_up_certificates(TRIXIE);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn changed_certificates_are_taken_up_on_0_12() {
    takes_up_certificates(BOOKWORM);
}

/// What waits for a restart is not there yet: the health check does not ask for it, and once it is taken back nothing
/// waits any more.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn what_waits_for_a_restart_is_not_asked_for() {
    let server = Recipe::new(TRIXIE)
        .env("PROSODY_VIRTUAL_HOSTS_FILE", "/srv/hosts")
        .env("PROSODY_OPTIONS_FILE", "/srv/options")
        .file("/srv/hosts", DOMAIN)
        .file("/srv/options", "{}")
        .serve();
    let mut seen = Observations::default();
    let mut observe = |what: &str, waits: Option<&[&str]>| {
        let line = line(&reload(&server));
        match (waits, line.split_once("without effect before a restart: ")) {
            (None, None) => {}
            (Some(names), Some((_, waiting))) => {
                let all = names.iter().all(|name| waiting.contains(name));
                seen.that(&format!("{what}: what waits"), all, waiting);
            }
            _ => seen.that(&format!("{what}: what waits"), false, &line),
        }
        let health = server.exec(["prosody-entrypoint", "healthcheck"]);
        seen.that(&format!("{what}: healthy"), health.status == 0, &health);
    };
    server.put("/srv/options", br#"{"c2s_ports": [15222]}"#);
    observe("another port", None);
    server.put("/srv/options", br#"{"statistics": "internal"}"#);
    observe("the first port again", Some(&["statistics"]));
    server.put("/srv/hosts", b"other.example");
    observe("another host", Some(&["statistics"]));
    server.put("/srv/options", b"{}");
    observe("no statistics again", None);

    server.put("/srv/options", br#"{"statistics": "internal"}"#);
    reload(&server);
    docker(["restart", &server.name]).ok();
    server.wait_until_it_serves();
    observe("after the restart", None);
    seen.report();
}

/// What cannot be applied leaves all as it was, and Prosody is not told.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_reload_that_fails_changes_nothing() {
    const HOSTS: &str = r#"[{"host": "chat.example", "options": {"x_y": 1}}]"#;
    const OPTIONS: &str = r#"{"x_option": 1}"#;
    let server = Recipe::new(TRIXIE)
        .env("PROSODY_VIRTUAL_HOSTS_FILE", "/srv/hosts")
        .env("PROSODY_TURN_HOST", "turn.example")
        .env("PROSODY_TURN_SECRET_FILE", "/srv/secret")
        .env("PROSODY_OPTIONS_FILE", "/srv/options")
        .file("/srv/hosts", HOSTS)
        .file("/srv/secret", "hush-5a1b0c")
        .file("/srv/options", OPTIONS)
        .file("/etc/prosody/conf.d/template.cfg.lua.j2", "x_template = {{ 1 }}\n")
        .serve();
    let script =
        "cd /run/prosody && readlink current && find -L . -type f ! -path ./error -exec md5sum {} + | sort";
    let generation = || server.root(script);
    let before = generation().ok();
    let mut seen = Observations::default();

    let storage = r#"{"x_option": 1, "storage": {"roster": "memory"}}"#;
    let sql =
        r#"{"x_option": 1, "default_storage": "sql", "sql": {"driver": "SQLite3", "database": "other"}}"#;
    let of_host = r#"[{"host": "chat.example", "options": {"x_y": 1, "storage": {"roster": "memory"}}}]"#;
    let all_of_host = r#"[{"host": "chat.example", "options": {"x_y": 1, "default_storage": "memory"}}]"#;
    // What is tried, the file, its wrong and its right content (none: no file), and what the report names.
    let template = "/etc/prosody/conf.d/template.cfg.lua.j2";
    type Case<'a> = (&'a str, &'a str, Option<&'a str>, &'a str, &'a [&'a str]);
    let cases: [Case; 8] = [
        ("broken JSON", "/srv/options", Some("{"), OPTIONS, &["PROSODY_OPTIONS"]),
        (
            "a template",
            template,
            Some("\nx = {{ 1 + }}\n"),
            "x_template = {{ 1 }}\n",
            &["template.cfg.lua.j2", ":2"],
        ),
        ("no secret", "/srv/secret", None, "hush-5a1b0c", &["PROSODY_TURN_SECRET_FILE", "/srv/secret"]),
        ("a storage", "/srv/options", Some(storage), OPTIONS, &["storage.roster", "restart"]),
        (
            "the default storage",
            "/srv/options",
            Some(r#"{"x_option": 1, "default_storage": "memory"}"#),
            OPTIONS,
            &["default_storage", "restart"],
        ),
        ("a database", "/srv/options", Some(sql), OPTIONS, &["default_storage", "sql.d", "restart"]),
        (
            "a host's storage",
            "/srv/hosts",
            Some(of_host),
            HOSTS,
            &["storage.roster of chat.example", "restart"],
        ),
        (
            "a host's default",
            "/srv/hosts",
            Some(all_of_host),
            HOSTS,
            &["default_storage of chat.example", "restart"],
        ),
    ];
    for (what, path, wrong, right, names) in cases {
        match wrong {
            Some(wrong) => server.put(path, wrong.as_bytes()),
            None => drop(server.root(&format!("rm {path}")).ok()),
        }
        let said = reload(&server);
        server.put(path, right.as_bytes());
        seen.that(&format!("{what}: refused"), said.stderr.contains("Not reloaded"), &said);
        seen.equal(
            &format!("{what}: one report"),
            said.stderr.matches("\terror\t").count().max(said.stderr.matches(" error\t").count()),
            1,
        );
        for name in names {
            seen.that(&format!("{what}: {name} is named"), said.stderr.contains(name), &said.stderr);
        }
        seen.equal(&format!("{what}: what is in force"), generation().ok(), before.clone());
    }
    // What was repaired is taken up, and that is the first that Prosody hears of all this.
    server.put("/srv/options", br#"{"x_option": 2}"#);
    let said = reload(&server);
    seen.that("repaired", line(&said).contains("changed: global.cfg.lua"), &said);
    seen.equal("Prosody was told once", received(&server), 1);
    seen.equal("it serves", server.exec(["prosody-entrypoint", "healthcheck"]).status, 0);
    seen.that("no secret in the log", !server.logs().contains("hush-"), server.logs());
    seen.report();
}

/// Sends a signal from outside the container's PID namespace: SIGSTOP reaches its first process from there alone
/// (pid_namespaces(7)).
#[track_caller]
fn signal_from_outside(server: &Container, signal: &str) {
    let script = format!("kill -{signal} {}", server.inspect("{{.State.Pid}}"));
    docker(["run", "--rm", "--pid", "host", "--entrypoint", "/bin/sh", TRIXIE, "-c", &script]).ok();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn any_number_of_hangups_is_answered_by_few_reloads() {
    let server = Recipe::new(TRIXIE)
        .env("PROSODY_DOMAIN", DOMAIN)
        .env("PROSODY_OPTIONS_FILE", "/srv/options")
        .file("/srv/options", "{}")
        .serve();
    let mut seen = Observations::default();

    // A change is there before the last of them, and has to be seen by a reload.
    let before = server.mark();
    server
        .root(
            "n=0; while [ $n -lt 99 ]; do kill -HUP 1; n=$((n + 1)); done
             echo '{\"x_option\": 2}' >/srv/options; kill -HUP 1",
        )
        .ok();
    eventually("a reload after the last signal", PATIENCE, || {
        let said = server.since(before);
        let is_last = said.stderr.contains("changed: global.cfg.lua");
        if is_last { Ok(()) } else { Err(said.all()) }
    });
    let generation = server.root("cat /run/prosody/current/global.cfg.lua").ok();
    seen.that("the last change is in force", generation.ends_with("2"), generation);
    seen.equal("it serves", server.exec(["prosody-entrypoint", "healthcheck"]).status, 0);

    // Stopped, PID 1 is deaf; what came meanwhile is not lost.
    signal_from_outside(&server, "STOP");
    let state = server.root("grep State: /proc/1/status").ok();
    seen.that("PID 1 is stopped", state.contains('T'), state);
    server.root("echo '{\"x_option\": 3}' >/srv/options").ok();
    let mark = server.mark();
    server.signal("HUP");
    signal_from_outside(&server, "CONT");
    eventually("the reload after SIGCONT", PATIENCE, || {
        let said = server.since(mark);
        let is_done = said.stderr.contains("changed: global.cfg.lua");
        if is_done { Ok(()) } else { Err(said.all()) }
    });
    server.root("(sleep 0 &) ; (sleep 0 &)").ok();
    eventually("orphans are reaped", PATIENCE, || match server.root("cat /proc/1/task/1/children").ok() {
        one if !one.contains(' ') => Ok(()),
        more => Err(more),
    });

    let before = Instant::now();
    docker(["stop", "--time", "30", &server.name]).ok();
    seen.that("it stops at once", before.elapsed() < Duration::from_secs(10), before.elapsed());
    let logs = server.said();
    let reloads = logs.stderr.matches("Reloading, ").count();
    let told = logs.stdout.matches(TOLD).count();
    seen.that("far fewer reloads than signals", (2..=40).contains(&reloads), reloads);
    seen.that("Prosody is told no more often", (2..=reloads).contains(&told), (told, reloads));
    seen.report();
}

/// What comes while a reload is busy makes one more, which sees all that changed meanwhile.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn hangups_during_a_reload_make_one_more() {
    let server = Recipe::new(TRIXIE)
        .env("PROSODY_VIRTUAL_HOSTS_FILE", "/srv/hosts")
        .file("/srv/hosts", DOMAIN)
        .serve();
    server.put("/srv/hosts", format!("{DOMAIN},other.example").as_bytes());
    // It has read the file once it has written the configuration, and is held there by a server that does not answer.
    let script = "prosody=$(cat /run/prosody/server/prosody.pid) && kill -STOP $prosody && kill -HUP 1
                  until [ -e /run/prosody/generation-2 ]; do :; done; echo $prosody";
    let held = server.root(script).ok();
    server.put("/srv/hosts", DOMAIN.as_bytes());
    server.root("n=0; while [ $n -lt 100 ]; do kill -HUP 1; n=$((n + 1)); done").ok();
    server.root(&format!("kill -CONT {held}")).ok();
    let reloads = || server.said().stderr.matches("Reloading, ").count();
    eventually("the second reload", PATIENCE, || match server.server_pid() {
        one if !one.contains(' ') && reloads() >= 2 => Ok(()),
        more => Err(format!("{more}\n{}", server.said().stderr)),
    });
    assert_eq!(reloads(), 2, "{}", server.said().stderr);
    let hosts = server.root("cat /run/prosody/current/vhosts.cfg.lua").ok();
    assert!(!hosts.contains("other.example"), "what changed meanwhile was not seen");
}

/// As many hosts as a start, or a reload, is busy with for a while.
fn many_hosts(count: usize) -> String {
    (0..count).map(|number| format!("host-{number}.example")).collect::<Vec<_>>().join(",")
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_hangup_at_the_start_does_no_harm() {
    for image in [TRIXIE, BOOKWORM] {
        let server = Recipe::new(image).env("PROSODY_VIRTUAL_HOSTS", &many_hosts(10)).start();
        // Until it has executed our binary, the engine's own process can be killed by the signal.
        eventually("PID 1", PATIENCE, || match docker(["top", &server.name]).stdout {
            processes if processes.contains("prosody") => Ok(()),
            processes => Err(processes),
        });
        // The kernel drops what comes before PID 1 has blocked its signals, so there is always a next one.
        eventually("Prosody is told", PATIENCE, || {
            assert!(server.runs(), "SIGHUP ended the container:\n{}", server.logs());
            server.signal("HUP");
            let logs = server.logs();
            if logs.contains("no file has changed") { Ok(()) } else { Err(logs) }
        });
        server.wait_until_it_serves();
        assert_eq!(current(&server), "generation-1", "nothing has changed");
    }
}

/// A server that has no handler for SIGHUP until it is told to have one, and ends with 9 on SIGTERM.
const LATE: &str = r#"#!/usr/bin/perl
$| = 1;
$SIG{TERM} = sub { exit 9 };
print "up\n";
select(undef, undef, undef, 0.01) until -e "/tmp/listen";
$SIG{HUP} = sub { print "Re-opening log files\n" };
sleep 1 while 1;
"#;

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_hangup_waits_until_the_server_can_take_it() {
    let programs = Volume::new();
    programs.prepare(TRIXIE, &format!("cat >/volume/prosody <<'END'\n{LATE}END\nchmod 755 /volume/prosody"));
    let start = || {
        let server = Recipe::new(TRIXIE).volume(&programs, "/srv").command(["/srv/prosody", "-F"]).start();
        server.wait_for_log("up");
        server.signal("HUP");
        server.signal("HUP");
        wait_for_reload(&server);
        server
    };
    let late = start();
    assert!(!late.logs().contains("Reload"), "{}", late.logs());
    late.root("touch /tmp/listen").ok();
    late.wait_for_log(TOLD);
    late.wait_for_log("Reloading, no file has changed");
    let before = Instant::now();
    late.signal("TERM");
    ends(&late, before, "9");

    // The stop does not wait for that.
    let never = start();
    let before = Instant::now();
    never.signal("TERM");
    ends(&never, before, "9");
    assert!(!never.logs().contains("Reload"), "{}", never.logs());
}

/// Waits until a reload's process is there.
#[track_caller]
fn wait_for_reload(server: &Container) {
    eventually("a reload's process", PATIENCE, || match server.server_pid() {
        two if two.contains(' ') => Ok(()),
        one => Err(format!("{one}\n{}", server.logs())),
    });
}

/// The container ends soon, with this status.
#[track_caller]
fn ends(server: &Container, since: Instant, status: &str) {
    eventually("the end", PATIENCE, || if server.runs() { Err(server.logs()) } else { Ok(()) });
    assert!(since.elapsed() < Duration::from_secs(8), "it took {:?}", since.elapsed());
    assert_eq!(server.inspect("{{.State.ExitCode}}"), status, "{}", server.logs());
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn sigterm_ends_the_container_during_a_reload() {
    let server = Recipe::new(TRIXIE)
        .env("PROSODY_VIRTUAL_HOSTS_FILE", "/srv/hosts")
        .file("/srv/hosts", DOMAIN)
        .serve();
    let generation = || server.root("cd /run/prosody/current/ && find . -type f -exec md5sum {} + | sort");
    let before = generation().ok();
    // The keys for so many certificates take many times as long as a stop may.
    server.put("/srv/hosts", many_hosts(50_000).as_bytes());
    server.signal("HUP");
    wait_for_reload(&server);
    // A second one while it is busy starts no third process.
    server.signal("HUP");
    assert_eq!(server.server_pid().split_whitespace().count(), 2);
    assert_eq!(generation().ok(), before);
    let start = Instant::now();
    server.signal("TERM");
    ends(&server, start, "0");
    assert!(!server.logs().contains("Reload"), "{}", server.logs());
    server.put("/srv/hosts", DOMAIN.as_bytes());
    docker(["start", &server.name]).ok();
    server.wait_until_it_serves();
    let left = server.root("cd /run/prosody && ls -A").ok();
    assert!(!left.contains(".generation"), "{left}");
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_configuration_of_the_users_own_is_reloaded_untouched() {
    let own = |log: &str| {
        format!(
            "log = {{ {log} = \"*console\" }}\npidfile = \"/run/prosody/own.pid\"\n\
             admin_socket = \"/run/prosody/own.sock\"\nVirtualHost \"own.example\"\n"
        )
    };
    for &image in images() {
        let server = Recipe::new(image).file("/etc/prosody/prosody.cfg.lua", own("info")).start();
        server.wait_for_log("Activated service 'c2s'");
        server.put("/etc/prosody/prosody.cfg.lua", own("debug").as_bytes());
        let said = reload(&server);
        assert!(line(&said).contains("/etc/prosody/prosody.cfg.lua, untouched"), "{said:?}");
        eventually("the new level", PATIENCE, || match server.logs() {
            logs if logs.contains("debug\t") => Ok(()),
            logs => Err(logs),
        });
        server.root("mkdir -p /etc/prosody/certs && echo >/etc/prosody/certs/own.example.crt").ok();
        eventually("Prosody is told of certificates", PATIENCE, || match server.logs() {
            logs if logs.matches("Received SIGHUP").count() == 2 => Ok(()),
            logs => Err(logs),
        });
        let rendered = server.root("find /run/prosody -name '*.lua' -o -name 'generation-*'").ok();
        assert_eq!(rendered, "", "something was rendered");
    }
}

/// Whoever is PID 1, and with whatever rights.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_reload_works_whoever_we_are() {
    let cases: [(&str, &[&str]); 4] = [
        ("--init", &["--init"]),
        ("--user", &["--user", "12345:0"]),
        ("two capabilities", &["--cap-drop", "ALL", "--cap-add", "SETUID", "--cap-add", "SETGID"]),
        ("none", &["--user", "12345:0", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]),
    ];
    let mut seen = Observations::default();
    for (what, arguments) in cases {
        let mut recipe = Recipe::new(TRIXIE)
            .env("PROSODY_VIRTUAL_HOSTS_FILE", "/srv/hosts")
            .env("PROSODY_OPTIONS_FILE", "/srv/options")
            .file("/srv/hosts", DOMAIN)
            .file("/srv/options", "{}");
        for &argument in arguments {
            recipe = recipe.with([argument]);
        }
        let server = recipe.serve();
        let first = current(&server);
        server.put("/srv/options", br#"{"x_option": 2}"#);
        server.put("/srv/hosts", b"chat.example,second.example");
        let said = reload(&server);
        let key = "/var/lib/prosody/self-signed/second.example.key";
        let script =
            format!("stat -c '%a %u' {key} && stat -c '600 %u' /proc/$(cat /run/prosody/server/prosody.pid)");
        let key = server.as_prosody(&script).ok();
        let is_prosodys = key.split_once('\n').is_some_and(|(key, process)| key == process);
        seen.that(&format!("{what}: a key is made, Prosody's alone"), is_prosodys, &key);
        seen.that(&format!("{what}: reloaded"), line(&said).contains("changed: global.cfg.lua"), &said);
        seen.that(&format!("{what}: a new generation"), current(&server) != first, ());

        let ours = server.root("cat /run/prosody/entrypoint.pid").ok();
        let name = server.root(&format!("cat /proc/{ours}/comm")).ok();
        seen.equal(&format!("{what}: entrypoint.pid"), name.as_str(), "prosody-entrypo");
        seen.equal(&format!("{what}: PID 1"), ours == "1", what != "--init");
        if what == "--init" {
            server.root(&format!("kill {ours}")).ok();
            eventually("our own pid ends the container", PATIENCE, || {
                if server.runs() { Err(server.logs()) } else { Ok(()) }
            });
        } else {
            let before = Instant::now();
            docker(["stop", "--time", "30", &server.name]).ok();
            seen.that(
                &format!("{what}: stops at once"),
                before.elapsed() < Duration::from_secs(8),
                before.elapsed(),
            );
        }
        let code = server.inspect("{{.State.ExitCode}}");
        seen.equal(&format!("{what}: status"), code.as_str(), "0");
        let warnings = server.logs();
        seen.that(&format!("{what}: no warning"), !warnings.contains("not forwarded"), warnings);
    }
    seen.report();
}

/// Where another program is PID 1, orphans of ours are ours all the same.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn orphans_are_ours_where_another_program_is_pid_1() {
    let container = Recipe::new(TRIXIE)
        .with(["--init"])
        .command(["sh", "-c", "(sleep 1000 & echo $! >/tmp/orphan); exec sleep 1000"])
        .start();
    let orphan = eventually("the orphan", PATIENCE, || {
        let read = container.root("cat /tmp/orphan");
        if read.status == 0 && !read.stdout.trim().is_empty() { Ok(read.ok()) } else { Err(read.all()) }
    });
    let name_of_parent =
        || container.root(&format!("cat /proc/$(awk '/^PPid/ {{ print $2 }}' /proc/{orphan}/status)/comm"));
    eventually("it is handed to us", PATIENCE, || match name_of_parent().stdout.trim() {
        "prosody-entrypo" => Ok(()),
        other => Err(other.to_owned()),
    });
    container.root(&format!("kill {orphan}")).ok();
    eventually("it is reaped", PATIENCE, || {
        if container.root(&format!("test -e /proc/{orphan}")).status == 0 {
            Err("still there".to_owned())
        } else {
            Ok(())
        }
    });
}

/// The owner of the data directory decides who Prosody runs as at the next start, and not before.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_reload_acts_as_the_user_that_prosody_runs_as() {
    let server = Recipe::new(TRIXIE).env("PROSODY_DOMAIN", DOMAIN).serve();
    server.put("/etc/prosody/conf.d/own.cfg.lua", b"x_option = 1\n");
    server.root("cd /etc/prosody/conf.d && chmod 600 own.cfg.lua && chown prosody own.cfg.lua").ok();
    server.root("chown 1234 /var/lib/prosody && chmod 777 /var/lib/prosody").ok();
    let said = reload(&server);
    let line = line(&said);
    assert!(line.contains("conf.d/own.cfg.lua") && line.contains("now 1234"), "{}", said.all());
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_reload_that_cannot_hand_over_accounts_tells_prosody_all_the_same() {
    let server = Recipe::new(TRIXIE)
        .env("PROSODY_DOMAIN", DOMAIN)
        .env("PROSODY_ACCOUNTS_FILE", "/srv/accounts")
        .file("/srv/accounts", "alice@chat.example:secret-a")
        .serve();
    // Deeper than anything of ours.
    server.root("mkdir -p /run/prosody/server/accounts/a/b/c").ok();
    server.put("/srv/accounts", b"bob@chat.example:secret-b");
    let said = reload(&server);
    assert!(said.stderr.contains("New accounts are not created"), "{}", said.all());
    assert!(!said.stderr.contains("Not reloaded"), "{}", said.all());
}
