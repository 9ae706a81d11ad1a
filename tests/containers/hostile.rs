//! Files that a less trusted user planted where root writes: nothing outside is changed.

use crate::docker::{
    Container, Observations, PATIENCE, Recipe, TRIXIE, Volume, docker, eventually, serves_or_ends,
};

const DOMAIN: &str = "chat.example";

/// What is not to be changed: names, owners, modes, numbers of links, link targets and contents. The engine writes three
/// of the files anew at each start.
const SNAPSHOT: &str = "find /victims /etc -printf '%p %y %m %U:%G %n %l\n' | sort; \
    find /victims /etc -type f ! -path /etc/hosts ! -path /etc/hostname ! -path /etc/resolv.conf -exec md5sum {} + | sort";

/// The lines that only one of two snapshots has.
fn changed<'a>(before: &'a str, after: &'a str) -> Vec<&'a str> {
    let only_in = |one: &'a str, other: &str| {
        let other: std::collections::HashSet<String> = other.lines().map(str::to_owned).collect();
        one.lines().filter(move |line| !other.contains(*line))
    };
    only_in(before, after).chain(only_in(after, before)).collect()
}

/// Makes what others are after: root's file, directory and private file.
const VICTIMS: &str = "mkdir -p /victims/directory && echo kept >/victims/file && echo kept >/victims/directory/file \
                       && echo kept >/victims/private && chmod 600 /victims/private && chmod 755 /victims";

/// A container of the image that does nothing, with the victims in it.
fn idle() -> Container {
    let container = Recipe::new(TRIXIE).with(["--entrypoint", "sleep"]).command(["infinity"]).start();
    container.root(VICTIMS).ok();
    container
}

/// What a user plants in a directory of its own, where `$PWD` is. Each is tried by itself.
const PLANTS: [(&str, &str); 22] = [
    ("current to a directory", "ln -s /victims/directory current"),
    ("current to a file", "ln -s /victims/file current"),
    ("current is a directory", "mkdir current && echo mine >current/file"),
    ("current is a FIFO", "mkfifo current"),
    (".next to a directory", "ln -s /victims/directory .next"),
    (".next to a file", "ln -s /victims/file .next"),
    (".next is a directory", "mkdir .next && echo mine >.next/file"),
    (".next is a FIFO", "mkfifo .next"),
    ("the next generation is a link", "ln -s /victims/directory generation-1"),
    ("the next generation is a file", "echo mine >generation-1"),
    ("an incomplete generation is a link", "ln -s /victims/directory .generation-1"),
    (
        "an incomplete generation with links",
        "mkdir .generation-1 && ln -s /victims/file .generation-1/global.cfg.lua",
    ),
    (
        "an incomplete generation with a directory",
        "mkdir -p .generation-1/deep && ln -s /victims .generation-1/deep/victims",
    ),
    ("old generations are links", "for n in 1 2 3 4; do ln -s /victims/directory generation-$n; done"),
    (
        "old generations with links",
        "for n in 1 2 3 4; do mkdir generation-$n && ln -s /victims/file generation-$n/state; done",
    ),
    ("server to a directory", "ln -s /victims/directory server"),
    ("server to /etc", "ln -s /etc server"),
    ("server is a file", "echo mine >server"),
    ("server is a FIFO", "mkfifo server"),
    ("entrypoint.pid to a file", "ln -s /victims/file entrypoint.pid"),
    (".entrypoint.pid to a file", "ln -s /victims/private .entrypoint.pid"),
    (".entrypoint.pid is a directory", "mkdir .entrypoint.pid && ln -s /victims .entrypoint.pid/victims"),
];

/// As a user who had the runtime directory before root made it its own; the image ships it for everyone.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn what_is_planted_in_the_runtime_directory_leads_nowhere() {
    let container = idle();
    let before = container.root(SNAPSHOT).ok();
    let mut seen = Observations::default();
    for (number, (what, plant)) in PLANTS.iter().enumerate() {
        // The server's own program ends at once, so that a start is all there is.
        let script = format!(
            "runtime=/srv/{number}/runtime && mkdir -p $runtime /srv/{number}/data && chmod 1777 $runtime && cd $runtime
             setpriv --reuid 999 --regid 999 --clear-groups sh -ec '{plant}' || exit 99
             cd / && export PROSODY_RUNTIME_DIR=$runtime PROSODY_DATA_DIR=/srv/{number}/data PROSODY_DOMAIN={DOMAIN}
             mkdir -p /srv/program && printf '#!/bin/sh\\nexit 7\\n' >/srv/program/prosody && chmod 755 /srv/program/prosody
             timeout 20 prosody-entrypoint /srv/program/prosody"
        );
        let answer = container.root(&script);
        let is_right = match answer.status {
            // It got as far as the server.
            7 => true,
            73 | 78 => answer.stderr.contains("/runtime"),
            _ => false,
        };
        seen.that(&format!("{what}: serves or says why not"), is_right, &answer);
        let after = container.root(SNAPSHOT).ok();
        seen.equal(&format!("{what}: nothing outside is changed"), changed(&before, &after), Vec::new());
        if answer.status == 7 {
            let script = format!(
                "cd /srv/{number}/runtime && stat -c '%F %u' . current/. server && cat entrypoint.pid"
            );
            let made = container.root(&script);
            seen.that(
                &format!("{what}: what is in force is root's"),
                made.stdout.matches("directory 0").count() == 3,
                &made,
            );
        }
    }
    seen.report();
}

/// Links in a configuration directory that belongs to Prosody's user, as a bind mount may. The last is read.
const CONFIG_PLANTS: [(&str, &str); 5] = [
    ("a template", "ln -s /victims/private conf.d/x.cfg.lua.j2"),
    ("Lua", "ln -s /victims/private conf.d/x.cfg.lua"),
    ("a folder", "rmdir vhost.d && ln -s /victims/locked vhost.d"),
    ("a built-in template", "ln -s /victims/private templates/global.cfg.lua.j2"),
    ("its own file", "echo \"-- kept\" >own && chmod 600 own && ln -s ../own conf.d/x.cfg.lua.j2"),
];

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_link_in_the_configuration_leads_root_to_nothing() {
    let container = idle();
    container.root("mkdir -m 700 /victims/locked && echo '-- kept' >/victims/locked/x.cfg.lua").ok();
    let mut seen = Observations::default();
    for (number, (what, plant)) in CONFIG_PLANTS.iter().enumerate() {
        let script = format!(
            "config=/srv/config-{number} && mkdir -p $config/conf.d $config/vhost.d $config/templates && cd $config
             chown -R 999:999 . && setpriv --reuid 999 --regid 999 --clear-groups sh -ec '{plant}' || exit 99
             PROSODY_CONFIG_DIR=$config PROSODY_DOMAIN={DOMAIN} timeout 20 prosody-entrypoint render --dry-run"
        );
        let answer = container.root(&script);
        let is_own = number == CONFIG_PLANTS.len() - 1;
        let is_right = match is_own {
            true => answer.status == 0 && answer.stdout.contains("kept"),
            false => answer.status == 78 && answer.stderr.contains("a link of uid 999"),
        };
        seen.that(what, is_right && (is_own || !answer.all().contains("kept")), &answer);
    }
    seen.report();
}

/// What Prosody's user plants in its data, where root has a key and a certificate made.
const DATA_PLANTS: [(&str, &str); 12] = [
    ("the store to a directory", "rm -rf self-signed && ln -s /victims/directory self-signed"),
    ("the store to /etc", "rm -rf self-signed && ln -s /etc self-signed"),
    ("the store to a file", "rm -rf self-signed && ln -s /victims/file self-signed"),
    ("the store is a file", "rm -rf self-signed && echo mine >self-signed"),
    ("the store is a FIFO", "rm -rf self-signed && mkfifo self-signed"),
    ("the certificate to a file", "ln -sf /victims/file self-signed/chat.example.crt"),
    (
        "the certificate is a FIFO",
        "rm -f self-signed/chat.example.crt && mkfifo self-signed/chat.example.crt",
    ),
    (
        "the certificate is a directory",
        "rm -f self-signed/chat.example.crt && mkdir self-signed/chat.example.crt",
    ),
    ("the key to a file", "rm -f self-signed/*.crt && ln -sf /victims/private self-signed/chat.example.key"),
    (
        "the key to a dangling link",
        "rm -f self-signed/*.crt && ln -sf /etc/made-by-root self-signed/chat.example.key",
    ),
    (".new to a file", "rm -f self-signed/*.crt && ln -sf /etc/passwd self-signed/.new"),
    (".new is a FIFO", "rm -f self-signed/*.crt && mkfifo self-signed/.new"),
];

/// At a restart and at a reload, which both make what is missing.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn what_is_planted_in_the_data_directory_leads_nowhere() {
    let container = idle();
    let before = container.root(SNAPSHOT).ok();
    let mut seen = Observations::default();
    for (number, (what, plant)) in DATA_PLANTS.iter().enumerate() {
        let script = format!(
            "data=/srv/{number}/data && mkdir -p $data && chown 999:999 $data && cd $data
             setpriv --reuid 999 --regid 999 --clear-groups sh -ec 'mkdir -m 700 self-signed && {plant}' || exit 99
             cd / && export PROSODY_RUNTIME_DIR=/srv/{number}/runtime PROSODY_DATA_DIR=$data PROSODY_DOMAIN={DOMAIN}
             timeout 20 prosody-entrypoint true"
        );
        let answer = container.root(&script);
        let is_right = match answer.status {
            0 => true,
            73 | 78 => answer.stderr.contains(&format!("/srv/{number}/data")),
            _ => false,
        };
        seen.that(&format!("{what}: goes on or says why not"), is_right, &answer);
        let after = container.root(SNAPSHOT).ok();
        seen.equal(&format!("{what}: nothing outside is changed"), changed(&before, &after), Vec::new());
    }
    seen.report();
}

/// A server whose own process turned against us: at a reload and at a restart.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_server_that_turned_hostile_gets_nothing() {
    let server = Recipe::new(TRIXIE)
        .env("PROSODY_DOMAIN", DOMAIN)
        .env("PROSODY_OPTIONS_FILE", "/srv/options")
        .file("/srv/options", "{}")
        .serve();
    server.root(VICTIMS).ok();
    let before = server.root(SNAPSHOT).ok();
    let mut seen = Observations::default();

    // In the runtime directory it has server/ alone.
    let forbidden = server.as_prosody(
        "cd /run/prosody && (touch x; mkdir y; ln -s /etc z; ln -sfn /etc current; rm -rf server; mv server s; \
         echo 1 >entrypoint.pid; rm entrypoint.pid; echo x >current/prosody.cfg.lua) 2>/dev/null; ls -A . server",
    );
    let expected = [
        "current", "entrypoint.pid", "generation-1", "health", "live.lua", "prosody.pid", "server", "started",
    ];
    let names: Vec<&str> = forbidden.stdout.lines().skip(1).take_while(|line| !line.is_empty()).collect();
    seen.equal("what it can do there", names, expected.to_vec());

    let plants = [
        (
            "links in server/",
            "cd /run/prosody/server && rm -rf * && ln -s /victims/private prosody.pid && ln -s /victims/file prosody.sock \
             && ln -s /victims/directory x",
        ),
        ("FIFOs in server/", "cd /run/prosody/server && rm -rf * && mkfifo x prosody.pid.new"),
        (
            "directories in server/",
            "cd /run/prosody/server && rm -rf * && mkdir -p accounts/x/y/z prosody.pid/x",
        ),
        (
            "the key to a file",
            "cd /var/lib/prosody/self-signed && rm * && ln -s /victims/private chat.example.key",
        ),
        (
            "the store to a directory",
            "cd /var/lib/prosody && rm -rf self-signed && ln -s /victims/directory self-signed",
        ),
        ("the store is a FIFO", "cd /var/lib/prosody && rm -rf self-signed && mkfifo self-signed"),
        (
            "a hard link",
            "cd /var/lib/prosody && rm -rf self-signed && mkdir self-signed && ln /etc/passwd self-signed/chat.example.crt || true",
        ),
    ];
    for (number, (what, plant)) in plants.iter().enumerate() {
        let planted = server.as_prosody(plant);
        seen.equal(&format!("{what}: planted: {}", planted.all()), planted.status, 0);
        server.root(&format!("echo '{{\"x_option\": {number}}}' >/srv/options")).ok();
        let mark = server.mark();
        server.signal("HUP");
        eventually("the reload", PATIENCE, || {
            let said = server.since(mark);
            let is_over = said.stderr.contains("Reloading") || said.stderr.contains("Not reloaded");
            if is_over && server.server_pid().split_whitespace().count() == 1 {
                Ok(())
            } else {
                Err(said.all())
            }
        });
        let after = server.root(SNAPSHOT).ok();
        seen.equal(
            &format!("{what}: nothing outside is changed by a reload"),
            changed(&before, &after),
            Vec::new(),
        );

        let mark = server.mark();
        docker(["restart", "--time", "20", &server.name]).ok();
        let serves = serves_or_ends(&server.name);
        if !serves {
            let status = server.inspect("{{.State.ExitCode}}");
            let said = server.since(mark).stderr;
            seen.that(
                &format!("{what}: a sentence"),
                status == "73" && said.contains("/var/lib/prosody"),
                (&status, said),
            );
            // What the sentence says.
            let repair = "rm -rf /var/lib/prosody/self-signed";
            docker([
                "run", "--rm", "--volumes-from", &server.name, "--entrypoint", "/bin/sh", TRIXIE, "-c",
                repair,
            ])
            .ok();
            docker(["start", &server.name]).ok();
            server.wait_until_it_serves();
        }
        let after = server.root(SNAPSHOT).ok();
        seen.equal(
            &format!("{what}: nothing outside is changed by a restart"),
            changed(&before, &after),
            Vec::new(),
        );
    }
    seen.report();
}

/// Hard links to what is not one's own, where the kernel allows them (fs.protected_hardlinks off): no file that was
/// there is given away or written to.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_hard_link_gives_nothing_away() {
    let volume = Volume::new();
    // Root makes them, so that the kernel's protection is no part of this.
    volume.prepare(
        TRIXIE,
        "cd /volume && mkdir -p data/self-signed runtime/.generation-1 && echo kept >victim && chmod 640 victim
         for name in data/self-signed/chat.example.crt data/self-signed/chat.example.key data/self-signed/.new \
             runtime/.next runtime/started runtime/health runtime/entrypoint.pid \
             runtime/.generation-1/global.cfg.lua; do
             ln victim $name
         done
         for pid in $(seq 40); do ln victim runtime/.new-$pid; done
         chown 999:999 data data/self-signed runtime",
    );
    let server = Recipe::new(TRIXIE)
        .env("PROSODY_DOMAIN", DOMAIN)
        .env("PROSODY_DATA_DIR", "/srv/data")
        .env("PROSODY_RUNTIME_DIR", "/srv/runtime")
        .volume(&volume, "/srv")
        .serve();
    let victim = server.root("stat -c '%u:%g %a %s' /srv/victim && cat /srv/victim").ok();
    assert_eq!(victim, "0:0 640 5\nkept");
    let pid = server.root("cat /srv/runtime/entrypoint.pid").ok();
    assert_eq!(pid, "1");
}

/// Orphans are reaped while the command is stopped, however fast they come.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_storm_of_orphans_while_the_command_is_stopped_leaves_nothing() {
    let container = Recipe::new(TRIXIE)
        .with(["--pids-limit", "2000"])
        .command(["init", "--", "sh", "-c", "trap 'exit 6' TERM; while :; do sleep 1000 & wait; done"])
        .start();
    let child = eventually("the command", PATIENCE, || {
        let pid = container.server_pid();
        let command = container.root(&format!("cat /proc/{pid}/comm")).stdout;
        if command.trim() == "sh" { Ok(pid) } else { Err(command) }
    });
    container.root(&format!("kill -STOP {child}")).ok();
    // Each leaves three behind, and those end in any order. Where the limit is reached some are never made.
    let bomb =
        "n=0; while [ $n -lt 1500 ]; do (sh -c ': & : & sleep 0 &' &); n=$((n + 1)); done 2>/dev/null; true";
    container.root(bomb).ok();
    let processes = || container.root("cat /proc/[0-9]*/stat 2>/dev/null | cut -d' ' -f2-4");
    eventually("nothing is left", PATIENCE, || {
        let all = processes().stdout;
        let is_left = |line: &&str| {
            !["(prosody-entrypo)", "(sh)", "(sleep)", "(cat)", "(cut)"]
                .iter()
                .any(|name| line.starts_with(name))
        };
        let strangers = all.lines().filter(is_left).count();
        let children = container.server_pid();
        if !all.contains(" Z ") && strangers == 0 && children == child {
            Ok(())
        } else {
            Err(format!("{children}\n{all}"))
        }
    });
    let state = container.root(&format!("grep State /proc/{child}/status")).ok();
    assert!(state.contains('T'), "it is stopped all the time: {state}");
    container.root(&format!("kill -CONT {child}")).ok();
    container.signal("TERM");
    eventually("the end", PATIENCE, || if container.runs() { Err(container.logs()) } else { Ok(()) });
    assert_eq!(container.inspect("{{.State.ExitCode}}"), "6");
}

/// In a container of several users, everybody may create files in the runtime directory of a server with `--user`.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn another_users_files_in_the_runtime_directory_do_not_count() {
    let mut seen = Observations::default();
    let container = idle();
    container
        .as_user(
            "4321",
            "mkdir /tmp/theirs && echo 'os.execute(\"touch /tmp/ran\")' >/tmp/theirs/prosody.cfg.lua",
        )
        .ok();
    container.as_user("4321", "cd /run/prosody && ln -s /tmp/theirs current && mkfifo started health").ok();
    let answer = container.as_user("999", "timeout 20 prosodyctl about");
    seen.that(
        "there is no configuration",
        answer.status == 78 && answer.stderr.contains("no configuration"),
        &answer,
    );
    seen.equal("nothing of it ran", container.root("[ -e /tmp/ran ]").status, 1);

    let server = Recipe::new(TRIXIE).with(["--user", "1234:0"]).env("PROSODY_DOMAIN", DOMAIN).serve();
    let answer =
        server.as_user("4321", "cd /run/prosody && (ln -sfn /tmp current; rm health; mv server s) 2>&1; ls");
    seen.equal("what another user can do", answer.all().matches("not permitted").count(), 3);
    server.as_user("1234", "cd /run/prosody && rm health started && mkfifo health started").ok();
    for (user, command) in
        [("0", "healthcheck"), ("1234", "healthcheck"), ("0", "render --diff"), ("1234", "render --diff")]
    {
        let answer = server.as_user(user, &format!("timeout 20 prosody-entrypoint {command}"));
        seen.that(&format!("{command} as {user} does not wait"), answer.status < 2, &answer);
    }
    seen.report();
}
