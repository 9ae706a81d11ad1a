//! What Prosody, PID 1 and `prosodyctl` may do, what they were given, and as whom they run.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::docker::{
    Answer, BOOKWORM, Container, Observations, PATIENCE, Recipe, TRIXIE, Volume, docker, eventually, unique,
};

const DOMAIN: &str = "chat.example";

/// Text that no process may be given.
const SECRET: &str = "hush-5a1b0c";

/// The sets of capabilities in /proc/PID/status.
const SETS: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];

/// Bits of capabilities(7).
const DAC_OVERRIDE: u64 = 1 << 1;
const KILL: u64 = 1 << 5;
const SETGID: u64 = 1 << 6;
const SETUID: u64 = 1 << 7;

/// A field of /proc/PID/status.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect(name).trim()
}

fn set(status: &str, name: &str) -> u64 {
    u64::from_str_radix(field(status, name), 16).unwrap()
}

/// What Prosody's process is, as its own user sees it.
fn observe_prosody(
    seen: &mut Observations,
    what: &str,
    server: &Container,
    uid: &str,
    gid: &str,
    groups: &str,
) {
    let pid = server.server_pid();
    let read = |file: &str| server.as_prosody(&format!("cat /proc/{pid}/{file}")).ok();
    let status = read("status");
    // Real, effective, saved, and for files.
    seen.equal(&format!("{what}: uid"), field(&status, "Uid"), [uid; 4].join("\t").as_str());
    seen.equal(&format!("{what}: gid"), field(&status, "Gid"), [gid; 4].join("\t").as_str());
    seen.equal(&format!("{what}: groups"), field(&status, "Groups"), groups);
    for name in SETS {
        // The bounding set is emptied by whom holds CAP_SETPCAP.
        if uid == "999" || name != "CapBnd" {
            seen.equal(&format!("{what}: {name}"), set(&status, name), 0);
        }
    }
    seen.equal(&format!("{what}: no_new_privs"), field(&status, "NoNewPrivs"), "1");
    seen.equal(&format!("{what}: umask"), field(&status, "Umask"), "0027");

    let environment = read("environ").replace('\0', "\n");
    seen.that(&format!("{what}: environment"), environment.contains("PROSODY_CONFIG=/"), &environment);
    seen.that(&format!("{what}: no secret in it"), !environment.contains(SECRET), &environment);
    let command = read("cmdline").replace('\0', " ");
    seen.that(&format!("{what}: arguments"), command.contains("prosody -F"), &command);
    seen.that(&format!("{what}: no secret in them"), !command.contains(SECRET), &command);

    let limits = read("limits");
    let limit = |name: &str| -> Vec<String> {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().take(2).map(str::to_owned).collect()
    };
    let files = limit("Max open files");
    seen.that(&format!("{what}: open files"), files.len() == 2 && files[0] == files[1], &files);
    seen.equal(&format!("{what}: core files"), limit("Max core file size"), vec!["0".to_owned(); 2]);

    // What it opens itself: sockets, its pid file, its event queue, signals, randomness. Inherited is the lock alone.
    let links =
        server.as_prosody(&format!("for fd in /proc/{pid}/fd/*; do echo ${{fd##*/}} $(readlink $fd); done"));
    let links = links.ok();
    let own = [
        "socket:", "anon_inode:[eventpoll]", "anon_inode:[signalfd]", "/dev/urandom", "/run/prosody/server/",
    ];
    for line in links.lines() {
        let (number, target) = line.split_once(' ').unwrap_or((line, ""));
        let is_its_own = number.parse().is_ok_and(|number: u32| number <= 2)
            || own.iter().any(|own| target.starts_with(own))
            || target == "/var/lib/prosody";
        seen.that(&format!("{what}: descriptor of its own"), is_its_own, line);
    }
    seen.that(&format!("{what}: descriptors"), links.contains("socket:"), &links);
    let locks = links.lines().filter(|line| line.ends_with(" /var/lib/prosody")).count();
    seen.equal(&format!("{what}: descriptors of the data directory"), locks, 1);
}

/// What PID 1 keeps, and what others may see of it.
fn observe_pid_1(seen: &mut Observations, what: &str, server: &Container, kept: u64, users: &[&str]) {
    let status = server.root("cat /proc/1/status").ok();
    for name in ["CapPrm", "CapEff"] {
        seen.equal(&format!("{what}: PID 1's {name}"), set(&status, name), kept);
    }
    for name in ["CapInh", "CapAmb"] {
        seen.equal(&format!("{what}: PID 1's {name}"), set(&status, name), 0);
    }
    for user in users {
        for file in ["environ", "mem", "maps", "fd/"] {
            let answer =
                server.as_user(user, &format!("ls -L /proc/1/{file} >/dev/null && head -c 1 /proc/1/{file}"));
            seen.that(&format!("{what}: PID 1's {file} for {user}"), answer.status != 0, &answer);
        }
    }
}

/// The processes whose arguments have this text, with their environments and arguments, as the user that they run as sees
/// them.
fn environments(server: &Container, user: &str, argument: &str) -> Vec<String> {
    let script = format!(
        "for process in /proc/[0-9]*; do
             grep -qs {argument} $process/cmdline && ! grep -qs 'for process' $process/cmdline \
                 && tr '\\0' '\\n' <$process/environ && tr '\\0' '\\n' <$process/cmdline && echo END
         done"
    );
    let answer = server.as_user(user, &script);
    answer.stdout.split("END\n").filter(|text| !text.is_empty()).map(str::to_owned).collect()
}

/// The environment and the arguments of `prosodyctl shell` while it waits for input.
pub fn environment_of_prosodyctl(server: &Container, asking: &str, running: &str) -> String {
    let start = || {
        Command::new("docker")
            .args(["exec", "--interactive", "--user", asking, &server.name, "prosodyctl", "shell"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut shell = start();
    let environment = eventually("prosodyctl runs", PATIENCE, || {
        let found = environments(server, running, "/usr/bin/prosodyctl");
        if !found.is_empty() {
            return Ok(found.concat());
        }
        // It ends at once where Prosody does not listen on its socket yet.
        if shell.try_wait().unwrap().is_some() {
            let ended = std::mem::replace(&mut shell, start()).wait_with_output().unwrap();
            return Err(format!("it ended: {}", String::from_utf8_lossy(&ended.stderr)));
        }
        Err("there is none".to_owned())
    });
    // With the end of its input it ends.
    drop(shell.stdin.take());
    shell.wait_with_output().unwrap();
    environment
}

fn serves_with_secrets(image: &str, user: Option<&str>) -> Container {
    let mut recipe = Recipe::new(image)
        .env("PROSODY_DOMAIN", DOMAIN)
        .env("PROSODY_TURN_HOST", "turn.example")
        .env("PROSODY_TURN_SECRET", SECRET)
        // A misspelt name may hold a secret all the same.
        .env("PROSODY_DB_PASWORD", SECRET)
        .env("PROSODY_COMPONENT_SECRET", SECRET)
        .env("PROSODY_EXTERNAL_COMPONENTS", "gateway.chat.example");
    if let Some(user) = user {
        recipe = recipe.with(["--user", user]);
    }
    recipe.serve()
}

fn observe_as_root(image: &str) {
    let server = serves_with_secrets(image, None);
    let mut seen = Observations::default();
    observe_prosody(&mut seen, "as root", &server, "999", "999", "");
    let kept = KILL | DAC_OVERRIDE | SETUID | SETGID;
    observe_pid_1(&mut seen, "as root", &server, kept, &["0", "999:999", "12345:0"]);

    // Whose the files are. Prosody makes those below server/.
    let script = "find /run/prosody ! -path '*/server/*' -printf '%y %m %U:%G %P\n'; \
                  find /var/lib/prosody/self-signed -name '*.key' -printf 'k %m %U:%G %P\n'";
    let listing = server.root(script).ok();
    for line in listing.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let is_right = match fields[..] {
            ["d", mode, owner, "server"] => mode == "770" && owner == "0:999",
            ["d", mode, owner, _] => mode == "750" && owner == "0:999",
            ["f", mode, owner, "entrypoint.pid"] => mode == "640" && owner.starts_with("0:"),
            ["f", mode, owner, _] => mode == "640" && owner == "0:999",
            ["k", mode, owner, _] => mode == "600" && owner == "999:999",
            ["l", ..] => true,
            _ => false,
        };
        seen.that("owner and mode", is_right, line);
    }
    seen.that("a key was made", listing.contains("\nk "), &listing);
    seen.that(
        "a secret was rendered",
        server.root(&format!("grep -rqF {SECRET} /run/prosody")).status == 0,
        (),
    );

    if image == TRIXIE {
        for asking in ["0", "999:999"] {
            let environment = environment_of_prosodyctl(&server, asking, "999:999");
            seen.that(
                &format!("prosodyctl for {asking}: its environment"),
                environment.contains("PROSODY_CONFIG=/") && !environment.contains(SECRET),
                &environment,
            );
        }
    }
    for asking in ["0", "999:999"] {
        let answer =
            docker(["exec", "--user", asking, &server.name, "prosodyctl", "register", "a", DOMAIN, "b"]);
        seen.equal(&format!("prosodyctl for {asking}: {}", answer.all()), answer.status, 0);
    }
    let owners = server.root("find /var/lib/prosody -printf '%U\n' | sort -u").ok();
    seen.equal("all data are Prosody's", owners.as_str(), "999");
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn under_root_everything_has_the_privileges_that_it_needs_on_13_0() {
    observe_as_root(TRIXIE);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn under_root_everything_has_the_privileges_that_it_needs_on_0_12() {
    observe_as_root(BOOKWORM);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn under_another_user_there_are_no_privileges() {
    let server = serves_with_secrets(TRIXIE, Some("12345:0"));
    let mut seen = Observations::default();
    let groups = server.exec(["grep", "Groups", "/proc/1/status"]).ok();
    let groups = field(&groups, "Groups").to_owned();
    observe_prosody(&mut seen, "as 12345", &server, "12345", "0", &groups);
    observe_pid_1(&mut seen, "as 12345", &server, 0, &["12345:0", "0", "999:999"]);
    let readable = server.root("find /run/prosody /dev/shm -type f -perm /007 ! -path '*/server/*'").stdout;
    seen.equal("files for everybody", readable.as_str(), "");
    let keys = server.root("find /var/lib/prosody -name '*.key' -printf '%m %U\n' | sort -u").ok();
    seen.equal("keys", keys.as_str(), "600 12345");
    for asking in ["0", "12345:0"] {
        let environment = environment_of_prosodyctl(&server, asking, "12345:0");
        seen.that(
            &format!("prosodyctl for {asking}: its environment"),
            environment.contains("PROSODY_CONFIG=/") && !environment.contains(SECRET),
            &environment,
        );
    }
    seen.report();
}

/// Only what was made for this container reaches Prosody, however the entrypoint was started.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn no_descriptor_is_inherited() {
    let server = Recipe::new(TRIXIE)
        .env("PROSODY_DOMAIN", DOMAIN)
        .with(["--entrypoint", "sh"])
        .command(["-c", "exec 7</etc/hostname 8>/tmp/eight 9</etc; exec prosody-entrypoint prosody -F"])
        .serve();
    let mut seen = Observations::default();
    observe_prosody(&mut seen, "with descriptors", &server, "999", "999", "");
    seen.report();
}

/// With a configuration of the user's own, only the user knows what it reads.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_configuration_of_the_users_own_keeps_its_environment() {
    let own = "log = { info = \"*console\" }\npidfile = \"/run/prosody/own.pid\"\n\
               admin_socket = \"/run/prosody/own.sock\"\nVirtualHost \"own.example\"\n";
    let server = Recipe::new(TRIXIE)
        .env("PROSODY_TURN_SECRET", SECRET)
        .env("MY_OWN", SECRET)
        .file("/etc/prosody/prosody.cfg.lua", own)
        .start();
    server.wait_for_log("Activated service 'c2s'");
    let mut seen = Observations::default();
    let pid = server.server_pid();
    let prosodys = server.as_prosody(&format!("tr '\\0' '\\n' </proc/{pid}/environ")).ok();
    let prosodyctls = environment_of_prosodyctl(&server, "0", "999:999");
    for (whose, environment) in [("Prosody", prosodys), ("prosodyctl", prosodyctls)] {
        for name in ["PROSODY_TURN_SECRET", "MY_OWN"] {
            let line = format!("{name}={SECRET}");
            seen.that(
                &format!("{whose} has {name}"),
                environment.lines().any(|one| one == line),
                &environment,
            );
        }
    }
    let status = server.root(&format!("cat /proc/{pid}/status")).ok();
    for name in SETS {
        seen.equal(name, set(&status, name), 0);
    }
    seen.equal("no_new_privs", field(&status, "NoNewPrivs"), "1");
    seen.report();
}

/// Under `init` the program is somebody else's, and PID 1 has signals to send.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn under_init_pid_1_may_signal_and_no_more() {
    let container = Recipe::new(TRIXIE).command(["init", "--", "sleep", "1000"]).start();
    let mut seen = Observations::default();
    let child = eventually("the command", PATIENCE, || {
        let pid = container.server_pid();
        let command = container.root(&format!("cat /proc/{pid}/comm")).stdout;
        if command.trim() == "sleep" { Ok(pid) } else { Err(command) }
    });
    observe_pid_1(&mut seen, "init", &container, KILL, &["999:999"]);
    let status = container.root(&format!("cat /proc/{child}/status")).ok();
    seen.equal("the command's no_new_privs", field(&status, "NoNewPrivs"), "0");
    seen.equal("the command's capabilities", set(&status, "CapEff"), set(&status, "CapBnd"));
    seen.that("it has some", set(&status, "CapEff") != 0, &status);
    seen.report();
}

/// Whom the settings ask for, where that is nobody or root.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_user_that_cannot_be_is_named() {
    let mut seen = Observations::default();
    for (name, value) in [
        ("PROSODY_UID", "-1"),
        ("PROSODY_UID", "4294967295"),
        ("PROSODY_UID", "4294967296"),
        ("PROSODY_GID", "4294967295"),
        ("PROSODY_USER", "nobody-of-that-name"),
    ] {
        let (answer, container) =
            Recipe::new(TRIXIE).env("PROSODY_DOMAIN", DOMAIN).env(name, value).run_and_keep();
        seen.equal(&format!("{name}={value}: {}", answer.all()), answer.status, 78);
        seen.that("it is named", answer.stderr.contains(name) && answer.stderr.contains(value), &answer);
        let changes = docker(["diff", &container.name]).stdout;
        seen.that("nothing is written", !changes.contains("/run/prosody/"), changes);
    }
    let root = Recipe::new(TRIXIE).env("PROSODY_DOMAIN", DOMAIN).env("PROSODY_UID", "0").serve();
    let warned = root.logs().lines().any(|line| line.contains("warn\t") && line.contains("PROSODY_UID"));
    seen.that("root is warned of", warned, root.logs());
    let status = root.root(&format!("cat /proc/{}/status", root.server_pid())).ok();
    seen.equal("root it is", field(&status, "Uid"), "0\t0\t0\t0");
    seen.equal("without a capability", set(&status, "CapEff"), 0);
    seen.equal("nor a way to one", field(&status, "NoNewPrivs"), "1");
    seen.report();
}

/// A place that is none ends the start with a sentence, and nothing behind it is changed.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_data_directory_that_is_none_is_named() {
    let mut seen = Observations::default();
    for (what, prepare) in [
        ("a file", "echo kept >/volume/data"),
        ("a dangling link", "ln -s /nowhere /volume/data"),
        ("a link to /etc", "ln -s /etc /volume/data"),
        ("a link to a directory", "mkdir /volume/other && ln -s other /volume/data"),
        ("a FIFO", "mkfifo /volume/data"),
    ] {
        let volume = Volume::new();
        volume.prepare(TRIXIE, prepare);
        let before = snapshot_of_volume(&volume);
        let start = Instant::now();
        let container = Recipe::new(TRIXIE)
            .env("PROSODY_DOMAIN", DOMAIN)
            .env("PROSODY_DATA_DIR", "/srv/data")
            .volume(&volume, "/srv")
            .start();
        eventually(what, PATIENCE, || if container.runs() { Err(container.logs()) } else { Ok(()) });
        let status = container.inspect("{{.State.ExitCode}}");
        let said = container.said().stderr;
        seen.that(&format!("{what}: status"), ["73", "78"].contains(&status.as_str()), (status, &said));
        seen.that(&format!("{what}: the sentence"), said.contains("/srv/data"), &said);
        seen.that(&format!("{what}: at once"), start.elapsed() < Duration::from_secs(10), start.elapsed());
        seen.equal(&format!("{what}: the volume"), snapshot_of_volume(&volume), before);
        let changes = docker(["diff", &container.name]).stdout;
        let etc: Vec<&str> =
            changes.lines().filter(|line| line.contains("/etc") || line.contains("/nowhere")).collect();
        seen.equal(&format!("{what}: changes outside"), etc, Vec::new());
    }
    seen.report();
}

/// Names, owners, modes and contents.
fn snapshot_of_volume(volume: &Volume) -> String {
    let script = "cd /volume && find . -printf '%p %y %m %U:%G %l\n' | sort && find . -type f -exec cat {} +";
    let mount = format!("{}:/volume:ro", volume.name);
    docker(["run", "--rm", "-v", &mount, "--entrypoint", "/bin/sh", TRIXIE, "-ec", script]).ok()
}

/// What is right is not looked at, however much it is; what is wrong inside is left alone.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn thousands_of_files_cost_nothing() {
    let data = Volume::new();
    data.prepare(
        TRIXIE,
        "mkdir /volume/many && cd /volume/many && seq 5000 | xargs touch && chown 4321:4322 /volume /volume/many
         touch -a -d 2001-01-01 /volume/many",
    );
    let server = Recipe::new(TRIXIE).env("PROSODY_DOMAIN", DOMAIN).volume(&data, "/var/lib/prosody").serve();
    let mut seen = Observations::default();
    let status = server.root(&format!("cat /proc/{}/status", server.server_pid())).ok();
    seen.equal("as the owner", field(&status, "Uid"), "4321\t4321\t4321\t4321");
    let read = || server.root("stat -c %x /var/lib/prosody/many").ok();
    seen.that("nobody listed them", read().starts_with("2001"), read());
    seen.equal("a wrong file", server.root("stat -c %u:%g /var/lib/prosody/many/1").ok().as_str(), "0:0");
    server.root("ls /var/lib/prosody/many | head -1").ok();
    seen.that("that would have been seen", !read().starts_with("2001"), read());
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_directory_of_roots_is_given_and_what_is_in_it_is_not() {
    let data = Volume::new();
    data.prepare(
        TRIXIE,
        "mkdir -m 700 /volume/old && touch /volume/old/file && chown -R 0:0 /volume && chmod 755 /volume",
    );
    let server = Recipe::new(TRIXIE).env("PROSODY_DOMAIN", DOMAIN).volume(&data, "/var/lib/prosody").serve();
    let mut seen = Observations::default();
    let owner = |path: &str| server.root(&format!("stat -c %u:%g /var/lib/prosody{path}")).ok();
    seen.equal("the top", owner("").as_str(), "999:999");
    seen.equal("a directory in it", owner("/old").as_str(), "0:0");
    seen.equal("a file in it", owner("/old/file").as_str(), "0:0");
    let said = server.said().stderr;
    let sentence = "/var/lib/prosody/old belongs to uid 0, gid 0 (mode 700), and Prosody (uid 999, gid 999) cannot use \
                    it: run `chown -R 999:999 /var/lib/prosody`";
    seen.that("how to repair the rest", said.contains(sentence), &said);
    docker(["restart", &server.name]).ok();
    server.wait_until_it_serves();
    let said = server.said().stderr;
    seen.equal("it is said at each start", said.matches(sentence).count(), 2);
    // What the sentence says.
    server.root("chown -R 999:999 /var/lib/prosody").ok();
    let mark = server.mark();
    docker(["restart", &server.name]).ok();
    server.wait_until_it_serves();
    let said = server.since(mark).stderr;
    seen.that("and no more after the command", !said.contains("chown"), &said);
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn data_restored_by_root_are_named_with_the_command_that_serves() {
    let data = Volume::new();
    let recipe = || Recipe::new(TRIXIE).env("PROSODY_DOMAIN", DOMAIN).volume(&data, "/var/lib/prosody");
    drop(recipe().serve());
    // Prosody makes its directory for the host at some time after the start.
    data.prepare(TRIXIE, "mkdir -p -m 750 '/volume/chat%2eexample' && chown -R 0:0 /volume");
    let answer = recipe().run();
    let mut seen = Observations::default();
    seen.equal("the status", answer.status, 73);
    let sentence = "/var/lib/prosody/chat%2eexample belongs to uid 0, gid 0 (mode 750), and Prosody (uid 999, gid 999) \
                    cannot use it: run `chown -R 999:999 /var/lib/prosody`";
    seen.that("the entry, its owner and the command", answer.stderr.contains(sentence), &answer);
    // What the sentence says.
    data.prepare(TRIXIE, "chown -R 999:999 /volume");
    let server = recipe().serve();
    seen.that("nothing is left to do", !server.logs().contains("chown"), server.logs());
    seen.report();
}

/// A library that leaves a file for each program that loads it.
const LIBRARY: &str = r#"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
__attribute__((constructor)) static void loaded(void) {
    char program[256] = {0}, marker[512];
    if (readlink("/proc/self/exe", program, sizeof program - 1) < 0) return;
    char *name = strrchr(program, '/');
    snprintf(marker, sizeof marker, "/tmp/loaded-by-%s.%d", name ? name + 1 : program, (int) getpid());
    int file = open(marker, O_WRONLY | O_CREAT, 0666);
    if (file >= 0) close(file);
}
"#;

/// Compiles the library with the machine's own compiler.
#[track_caller]
fn library() -> Vec<u8> {
    let directory = std::env::temp_dir().join(unique("library"));
    std::fs::create_dir(&directory).unwrap();
    let (source, library) = (directory.join("evil.c"), directory.join("libnss_evil.so.2"));
    std::fs::write(&source, LIBRARY).unwrap();
    let compiler = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).output();
    let built = std::fs::read(&library);
    std::fs::remove_dir_all(&directory).unwrap();
    let answer = Answer::from(compiler.expect("cc cannot be run: this test needs a C compiler"));
    built.unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_hostile_nsswitch_loads_nothing_into_us() {
    let switch = "passwd: evil files\ngroup: evil files\nhosts: evil files dns\n";
    let place = Recipe::new(TRIXIE)
        .with(["--entrypoint", "sh"])
        .command(["-c", "dirname $(ls /usr/lib/*/libc.so.6)"])
        .run()
        .ok();
    let server = Recipe::new(TRIXIE)
        .env("PROSODY_DOMAIN", DOMAIN)
        .env("PROSODY_USER", "daemon")
        .env("PROSODY_DATA_DIR", "/srv/daemon")
        .env("PROSODY_TURN_HOST", "turn.example")
        .env("PROSODY_TURN_SECRET", SECRET)
        .file("/etc/nsswitch.conf", switch)
        .file(&format!("{place}/libnss_evil.so.2"), library())
        .serve();
    let mut seen = Observations::default();
    for arguments in [
        &["render", "--dry-run"][..],
        &["settings", "--effective"],
        &["healthcheck"],
        &["modules"],
        &["validate"],
    ] {
        let all = ["exec", &server.name, "prosody-entrypoint"].into_iter().chain(arguments.iter().copied());
        let answer = docker(all);
        seen.equal(&format!("{arguments:?}: {}", answer.all()), answer.status, 0);
    }
    server.exec(["prosodyctl", "about"]);
    server.signal("HUP");
    server.wait_for_log("Reloading");
    server.exec(["getent", "passwd", "nobody-of-that-name"]);
    let loaded = server.root("cd /tmp && ls -d loaded-by-*").ok();
    seen.that("the library works", loaded.contains("loaded-by-getent"), &loaded);
    seen.that("not in us", !loaded.contains("prosody-entrypoint"), &loaded);
    seen.report();
}
