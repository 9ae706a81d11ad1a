//! Changed files of the configuration: with `PROSODY_CONFIG_RELOAD`, nobody has to send SIGHUP.

use std::fs;
use std::time::SystemTime;

use crate::docker::{
    Answer, BOOKWORM, Container, Observations, PATIENCE, Recipe, TRIXIE, Volume, eventually, unique,
};

/// Files in the layout of a volume of Kubernetes, and then the next version of one of them.
const KUBERNETES: &str = r#"
    folder=$1 name=$2
    cd "$folder"
    version=..$(date +%s%N)
    mkdir "$version"
    [ ! -e ..data ] || cp ..data/* "$version"
    cat >"$version/$name"
    old=$(readlink ..data || true)
    ln -s "$version" ..data_tmp
    mv -T ..data_tmp ..data
    [ -e "$name" ] || ln -s "..data/$name" "$name"
    [ -z "$old" ] || rm -r "$old"
"#;

/// Replaces a file like Kubernetes.
#[track_caller]
fn project(server: &Container, path: &str, content: &str) {
    let (folder, name) = path.rsplit_once('/').unwrap();
    server.root(&format!("set -e -- {folder} {name}\n{{{KUBERNETES}}} <<'END'\n{content}\nEND\n")).ok();
}

/// Whether the server answers clients of a host.
#[track_caller]
fn is_served(server: &Container, host: &str) -> bool {
    let script = r#"
        exec 3<>/dev/tcp/127.0.0.1/5222
        printf "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0' to='%s'>" "$1" >&3
        until [[ $answer == *"<stream:features"* || $answer == *"<stream:error"* ]]; do
            read -r -t 20 -d '>' -u 3 answer || exit 1
        done
        echo "$answer"
    "#;
    server.exec(["bash", "-c", script, "bash", host]).ok().contains("features")
}

/// Waits until we say this. Returns all that was said since.
#[track_caller]
fn said(server: &Container, mark: SystemTime, text: &str) -> Answer {
    eventually(text, PATIENCE, || {
        let said = server.since(mark);
        if said.stderr.contains(text) { Ok(said) } else { Err(said.all()) }
    })
}

/// Waits until PID 1 has read every event, and has no child but Prosody.
#[track_caller]
fn wait_until_nothing_is_under_way(server: &Container) {
    eventually("one child of PID 1", PATIENCE, || match server.server_pid() {
        one if !one.is_empty() && !one.contains(' ') => Ok(()),
        more => Err(format!("{more}\n{}", server.logs())),
    });
}

fn changed_files_are_taken_up(image: &str) {
    const HOSTS: &str = "/etc/prosody/hosts";
    const OWN: &str = "/etc/prosody/conf.d/own.cfg.lua";
    const OPTIONS: &str = "/etc/prosody/values/options";
    const MODULE: &str = "/etc/prosody/modules/mod_own/mod_own.lua";
    let volume = Volume::new();
    let project_first = |path: &str, content: &str| {
        let (folder, name) = path.strip_prefix("/etc/prosody/").unwrap().rsplit_once('/').unwrap();
        format!("(set -- /volume/{folder} {name}; mkdir -p $1; {KUBERNETES}) <<'END'\n{content}\nEND\n")
    };
    volume.prepare(
        image,
        &(project_first(OWN, "")
            + &project_first(OPTIONS, "{}")
            + "cd /volume; echo chat.example >hosts; echo alice@chat.example:secret-a >accounts\n\
               mkdir -p modules/mod_own; touch modules/mod_own/mod_own.lua"),
    );
    // A file of its own, as with `docker run -v FILE:FILE` and Compose's secrets.
    let single = std::env::temp_dir().join(unique("single"));
    fs::write(&single, "own").unwrap();
    let server = Recipe::new(image)
        .volume(&volume, "/etc/prosody")
        .with(["--volume", &format!("{}:/srv/modules:ro", single.display())])
        .env("PROSODY_CONFIG_RELOAD", "true")
        .env("PROSODY_VIRTUAL_HOSTS_FILE", HOSTS)
        .env("PROSODY_OPTIONS_FILE", OPTIONS)
        .env("PROSODY_ACCOUNTS_FILE", "/etc/prosody/accounts")
        .env("PROSODY_MODULES_ENABLED_FILE", "/srv/modules")
        .serve();
    let mut seen = Observations::default();
    let pid = server.server_pid();
    let start = server.mark();

    seen.that("no second host", !is_served(&server, "second.example"), server.logs());
    server.root(&format!("echo second.example >>{HOSTS}")).ok();
    said(&server, start, "new: second.example");
    seen.that("a line more, a host more", is_served(&server, "second.example"), server.logs());
    server.root(&format!("sed -i /second/d {HOSTS}")).ok();
    said(&server, start, "removed: second.example");
    seen.that("a line less, a host less", !is_served(&server, "second.example"), server.logs());

    // More than once: the links lead to new folders.
    for host in ["third.example", "fourth.example"] {
        project(&server, OWN, &format!("VirtualHost '{host}'"));
        said(&server, start, &format!("new: {host}"));
        seen.that(&format!("a fragment: {host}"), is_served(&server, host), server.logs());
    }
    for port in [15222, 15223] {
        project(&server, OPTIONS, &format!(r#"{{"c2s_ports": [5222, {port}]}}"#));
        said(&server, start, &format!("opened: c2s * {port}"));
    }
    server.root("echo bob@chat.example:secret-b >>/etc/prosody/accounts").ok();
    said(&server, start, "changed: accounts");
    server.wait_for_log("New accounts: bob@chat.example");
    server.root(&format!("echo \"module:log('info', 'the second one')\" >{MODULE}")).ok();
    said(&server, start, "reloaded: own");
    fs::write(&single, "own announce").unwrap();
    said(&server, start, "loaded: announce");
    fs::remove_file(&single).unwrap();

    // What makes no difference is no line in the log: the mistake that follows is the next.
    wait_until_nothing_is_under_way(&server);
    let mark = server.mark();
    server.root(&format!("touch {HOSTS} /etc/prosody/conf.d/note.txt; echo chat.example >{HOSTS}")).ok();
    let generation = server.root("readlink /run/prosody/current").ok();
    wait_until_nothing_is_under_way(&server);
    let mistakes = [(OWN, "x = \n", "own.cfg.lua"), (OPTIONS, "{", "PROSODY_OPTIONS_FILE")];
    for (path, content, named) in mistakes {
        let before = server.root(&format!("cat {path}")).ok();
        let mark = server.mark();
        project(&server, path, content);
        said(&server, mark, named);
        for _ in 0..2 {
            wait_until_nothing_is_under_way(&server);
            project(&server, path, content);
            server.root(&format!("touch {HOSTS}")).ok();
        }
        wait_until_nothing_is_under_way(&server);
        seen.that(&format!("{named}: it serves"), is_served(&server, "fourth.example"), server.logs());
        project(&server, path, &before);
        let all = said(&server, mark, "Reloading");
        let errors: Vec<&str> = all.stderr.lines().filter(|line| line.contains("error\t")).collect();
        seen.equal(&format!("{named}: reports: {errors:?}"), errors.len(), 1);
    }
    let now = server.root("readlink /run/prosody/current").ok();
    seen.that("what was right again is current", now != generation, &now);
    let all = server.since(mark).stderr;
    let lines: Vec<&str> = all.lines().filter(|line| line.contains("Reloading")).collect();
    seen.equal(&format!("one line each: {lines:?}"), lines.len(), 2);

    // The shell is no child of PID 1.
    wait_until_nothing_is_under_way(&server);
    let idle = server.root(
        "grep ^voluntary /proc/1/status >/tmp/before; sleep 1.2; grep ^voluntary /proc/1/status | diff /tmp/before -",
    );
    seen.that("PID 1 sleeps", idle.status == 0, &idle);
    seen.equal("the same process", server.server_pid(), pid);
    let logs = server.logs();
    seen.that("no secret in the log", !logs.contains("secret-"), &logs);
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn changed_files_are_taken_up_on_13_0() {
    changed_files_are_taken_up(TRIXIE);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn changed_files_are_taken_up_on_0_12() {
    changed_files_are_taken_up(BOOKWORM);
}

/// The setting itself is read again, and a configuration of the user's own is Prosody's.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn the_watch_is_enabled_by_a_reload_and_tells_prosody_of_its_own_configuration() {
    const MAIN: &str = "/etc/prosody/prosody.cfg.lua";
    let own = "pidfile = '/run/prosody/own.pid' admin_socket = '/run/prosody/own.sock'\n\
               VirtualHost 'own.example'\nInclude 'conf.d/*.cfg.lua'\n";
    let server = Recipe::new(TRIXIE)
        .env("PROSODY_CONFIG_RELOAD_FILE", "/srv/reload")
        .env("PROSODY_CERTIFICATE_RELOAD", "false")
        .file("/srv/reload", "false")
        .file(MAIN, own)
        .file("/etc/prosody/conf.d/a.cfg.lua", "")
        .start();
    server.wait_for_log("Activated service 'c2s'");
    let told = |times: usize| {
        eventually(&format!("SIGHUP {times} times"), PATIENCE, || match server.logs() {
            logs if logs.matches("Received SIGHUP").count() == times => Ok(()),
            logs => Err(logs),
        });
    };
    server.root("echo >>/etc/prosody/conf.d/a.cfg.lua; echo true >/srv/reload").ok();
    server.signal("HUP");
    told(1);
    wait_until_nothing_is_under_way(&server);
    for (times, file) in [(2, "/etc/prosody/conf.d/a.cfg.lua"), (3, MAIN), (4, "/srv/reload")] {
        server.root(&format!("touch {file}")).ok();
        told(times);
        wait_until_nothing_is_under_way(&server);
    }
    let untouched = format!("Reloading {MAIN}, untouched");
    assert_eq!(server.logs().matches(&untouched).count(), 4, "{}", server.logs());
}
