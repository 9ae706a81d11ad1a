//! Backups and restores that are interrupted, run out of space, meet each other, or lose their database. After a restore,
//! there is all or nothing, or the server refuses to start.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::backup::{Backup, RECORDS, archive, are_the_same, member, record, restore};
use crate::docker::{
    Answer, Container, Observations, PATIENCE, Recipe, TRIXIE, docker, eventually, is_all_wanted,
};
use crate::random::Random;
use crate::upgrade::{DOMAIN, Deployment};

/// How many users the backups have, and how many items of an archive each of them.
const USERS: usize = 120;
const ITEMS: usize = 30;
const COUNT: usize = USERS * (1 + ITEMS);

/// Shell functions. `saved` prints how many records there are; `look` prints `all`, `nothing`, or else how it is.
fn library() -> String {
    format!(
        r#"
        saved() {{ prosody-entrypoint backup 2>&1 >/dev/null | sed -n 's/.*Saved: \([0-9]*\) records.*/\1/p'; }}
        left() {{ find /var/lib/prosody -mindepth 1 -maxdepth 1 -name '.restor*'; }}
        forget() {{ cd /var/lib/prosody; rm -rf .restor* chat%2eexample prosody.sqlite*; cd /; }}
        look() {{ case $(saved) in 0) echo nothing;; {COUNT}) echo all;; *) prosody-entrypoint backup 2>&1 >/dev/null;; esac; }}
        until_gone() {{ for lua in $(grep -l ^lua /proc/[0-9]*/comm 2>/dev/null); do
            while [ -e "$lua" ] && ! grep -q '^State:.[ZX]' "${{lua%comm}}status" 2>/dev/null; do sleep 0.02; done; done; }}
    "#
    )
}

/// A whole backup with some users.
fn backup() -> Backup {
    let mut lines = String::new();
    for user in 0..USERS {
        let user = format!("user{user}");
        lines +=
            &record(json!({"host": DOMAIN, "store": "accounts", "user": user, "keys": {"password": "x"}}));
        for item in 0..ITEMS {
            let value =
                format!("<message to='{user}@chat.example'><body>{item}{}</body></message>", "-".repeat(500));
            let key = format!("{user}-{item}");
            lines += &record(
                json!({"host": DOMAIN, "store": "archive", "user": user, "key": key, "when": now() - 60, "value": value}),
            );
        }
    }
    let end = json!({"records": COUNT, "files": 0}).to_string();
    Backup::of(&archive(&[("manifest.json", &manifest()), (RECORDS, &lines), ("end.json", &end)]))
}

fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

fn manifest() -> String {
    json!({"format": 1, "hosts": {DOMAIN: []}}).to_string()
}

/// A container with a deployment's settings in which nothing runs, and the backup in `/tmp/backup.tar`.
fn idle(recipe: Recipe, backup: &Backup) -> Container {
    let container = recipe.with(["--entrypoint", "/bin/sleep"]).command(["infinity"]).create();
    container.put("/tmp/backup.tar", &std::fs::read(&backup.0).unwrap());
    docker(["start", &container.name]).ok();
    container
}

#[track_caller]
fn lines(answer: Answer) -> Vec<String> {
    answer.ok().lines().map(str::to_owned).collect()
}

/// Restores the backup, once the database answers. This makes the configuration.
#[track_caller]
fn restore_first(container: &Container) {
    eventually("the first restore", PATIENCE, || {
        let answer = container.root("prosody-entrypoint restore /tmp/backup.tar");
        if answer.status == 0 { Ok(()) } else { Err(answer.all()) }
    });
}

/// The free space is filled up to a number of KiB before each restore and each backup.
fn a_full_disk(settings: &[(&str, &str)]) {
    let backup = backup();
    let tmpfs =
        ["--tmpfs", "/var/lib/prosody:size=16m,uid=999,gid=999,mode=750", "--tmpfs", "/small:size=8m"];
    let recipe = settings.iter().fold(Recipe::new(TRIXIE), |recipe, (name, value)| recipe.env(name, value));
    let container = idle(recipe.env("PROSODY_DOMAIN", DOMAIN).with(tmpfs), &backup);
    let mut random = Random::from("DISK_SEED");
    let sizes = if is_all_wanted() { 30 } else { 2 };
    let sizes: String = (0..sizes).fold(String::new(), |mut sizes, _| {
        let _ = write!(sizes, "{} ", random.below(4000));
        sizes
    });
    let script = format!(
        r#"{}
        fill() {{ free=$(df --output=avail "$1" | tail -n 1); head -c $((free - $2))k /dev/zero >"$1/filler"; }}
        prosody-entrypoint restore /tmp/backup.tar 2>/dev/null; echo whole: $? $(look)
        for free in 0 {sizes} 14000; do
            forget; fill /var/lib/prosody $free
            prosody-entrypoint restore /tmp/backup.tar 2>/tmp/log; status=$?
            rm /var/lib/prosody/filler
            echo restore: $status $(look) $(left) $(grep error /tmp/log)
        done
        prosody-entrypoint backup /tmp/whole.tar
        for free in 0 {sizes} 7000; do
            fill /small $free
            prosody-entrypoint backup /small/backup.tar 2>/tmp/log; status=$?
            rm /small/filler; is_same=; [ $status != 0 ] || is_same=$(stat -c %s /small/backup.tar | grep -x $(stat -c %s /tmp/whole.tar))
            echo backup: $status ${{is_same:+same}} $(ls -A /small) $(grep error /tmp/log); rm -f /small/backup.tar
        done
        prosody-entrypoint backup >/dev/full 2>/tmp/log; echo output: $? $(grep error /tmp/log)
        prosody-entrypoint backup /dev/full 2>/tmp/log; echo device: $? $(grep error /tmp/log)
    "#,
        library()
    );
    let answer = container.root(&script);
    let said = lines(answer.clone());
    let mut seen = Observations::default();
    let all = "restore: 0 all";
    let nothing = "restore: 73 nothing entrypoint error ";
    seen.that("a disk with space", said[0] == "whole: 0 all", &said[0]);
    seen.that("a disk with space again", said.iter().any(|line| line == all), &said);
    seen.that("a disk without space", said.iter().any(|line| line.starts_with(nothing)), &said);
    let mut expected =
        vec!["whole: ", all, nothing, "backup: 0 same backup.tar", "backup: 73 entrypoint error "];
    expected.extend([
        "output: 73 entrypoint error the archive cannot be written: No space left on device",
        "device: 73 entrypoint error /dev/full is there and is no file",
    ]);
    for line in &said {
        let is_expected = expected.iter().any(|expected| line.starts_with(expected));
        seen.that(&format!("DISK_SEED={}", random.seed), is_expected, line);
    }
    for expected in expected {
        seen.that(expected, said.iter().any(|line| line.starts_with(expected)), &said);
    }
    seen.report();
    println!("{said:#?}");
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_full_disk_leaves_files_whole_or_empty() {
    a_full_disk(&[]);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_full_disk_leaves_sqlite_whole_or_empty() {
    a_full_disk(&[("PROSODY_DEFAULT_STORAGE", "sqlite")]);
}

/// A signal after a random part of the time that the command takes: to the entrypoint, or to Prosody's Lua.
fn a_signal_at_any_moment(deployment: &Deployment, rounds: usize) {
    let backup = backup();
    let container = idle(deployment.recipe(TRIXIE), &backup);
    let mut random = Random::from("STOP_SEED");
    let script = |body: &str| format!("{}\n{body}", library());
    restore_first(&container);
    forget(deployment, &container);
    let began = Instant::now();
    container.root("prosody-entrypoint restore /tmp/backup.tar").ok();
    let longest = began.elapsed().as_millis() as u64;
    let mut seen = Vec::new();
    for round in 0..rounds {
        forget(deployment, &container);
        let moment = random.below(longest);
        let kind = random.of(&["TERM", "KILL", "LUA"]);
        let said = lines(container.root(&script(&format!(
            r#"
            prosody-entrypoint restore /tmp/backup.tar 2>/tmp/log & restore=$!
            sleep $(printf '%d.%03d' $(({moment} / 1000)) $(({moment} % 1000)))
            case {kind} in
                LUA) kill -KILL $(cat /proc/$restore/task/$restore/children 2>/dev/null) 2>/dev/null;;
                *) kill -{kind} $restore 2>/dev/null;;
            esac
            wait $restore; status=$?
            until_gone
            if [ -e /var/lib/prosody/.restoring ]; then
                prosody-entrypoint prosody -F >/tmp/server 2>&1
                echo $status refused $? $(prosody-entrypoint restore /tmp/backup.tar 2>/tmp/log; echo $?) $(look)
            else
                echo $status $(look)
            fi"#
        ))));
        let outcome = said.join(" ");
        // It may have ended before it could say so.
        let is_good = match outcome.split_once(" refused ") {
            Some((_, again)) => again == "73 0 all",
            None => outcome.ends_with(" all") || outcome.ends_with(" nothing"),
        };
        assert!(is_good, "STOP_SEED={}, round {round}, {kind} after {moment} ms: {outcome}", random.seed);
        seen.push(format!("{kind} {moment} {outcome}"));
    }
    forget(deployment, &container);
    are_the_same(&backup, &restore(&backup, deployment, TRIXIE));
    for _ in 0..rounds {
        let moment = random.below(longest);
        let kind = random.of(&["TERM", "KILL", "LUA"]);
        let said = container.root(&script(&format!(
            r#"
            mkdir -p /tmp/out; cd /tmp/out
            prosody-entrypoint backup backup.tar 2>/tmp/log & backup=$!
            sleep $(printf '%d.%03d' $(({moment} / 1000)) $(({moment} % 1000)))
            case {kind} in
                LUA) kill -KILL $(cat /proc/$backup/task/$backup/children 2>/dev/null) 2>/dev/null;;
                *) kill -{kind} $backup 2>/dev/null;;
            esac
            wait $backup; status=$?
            until_gone
            if [ $status = 0 ]; then test -e backup.tar && rm backup.tar; else test ! -e backup.tar; fi
            echo $status $? $(ls -A | wc -l)"#
        )));
        let said = said.ok();
        let words: Vec<&str> = said.split(' ').collect();
        assert_eq!(words[1], "0", "STOP_SEED={}: {kind} after {moment} ms: {said}", random.seed);
        seen.push(format!("backup {kind} {moment} {said}"));
    }
    let last = container
        .root("cd /tmp/out; touch .prosody-backup-notes; prosody-entrypoint backup backup.tar; ls -A");
    assert_eq!(last.ok(), ".prosody-backup-notes\nbackup.tar", "an interrupted backup is left");
    println!("{seen:#?}");
}

/// Makes everything as before a restore.
fn forget(deployment: &Deployment, container: &Container) {
    container.root(&format!("{} forget", library())).ok();
    if deployment.database.is_some() {
        deployment.delete_rows();
    }
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_signal_leaves_files_whole_or_empty() {
    a_signal_at_any_moment(&Deployment::internal(), if is_all_wanted() { 40 } else { 3 });
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_signal_leaves_sqlite_whole_or_empty() {
    if is_all_wanted() {
        a_signal_at_any_moment(&Deployment::sqlite(), 40);
    }
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_signal_leaves_postgresql_whole_or_empty() {
    if is_all_wanted() {
        a_signal_at_any_moment(&Deployment::postgresql(), 40);
    }
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_signal_leaves_mariadb_whole_or_empty() {
    if is_all_wanted() {
        a_signal_at_any_moment(&Deployment::mariadb(), 40);
    }
}

/// From a database into files, which are moved one by one in the last step. The database keeps everything.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_signal_leaves_a_migration_that_can_be_run_again() {
    let deployment = Deployment::sqlite();
    let container = idle(deployment.recipe(TRIXIE), &backup());
    let mut random = Random::from("STOP_SEED");
    let script = |body: &str| {
        format!(
            r#"{}
            copied() {{ PROSODY_DEFAULT_STORAGE=internal PROSODY_RUNTIME_DIR=/tmp/other saved; }}
            clear() {{ rm -rf /var/lib/prosody/.migrat* /var/lib/prosody/chat%2eexample; }}
            {body}"#,
            library()
        )
    };
    restore_first(&container);
    let began = Instant::now();
    container.root("prosody-entrypoint migrate --to internal").ok();
    let longest = began.elapsed().as_millis() as u64;
    let mut seen = Vec::new();
    for round in 0..if is_all_wanted() { 40 } else { 1 } {
        let moment = random.below(longest);
        let kind = random.of(&["TERM", "KILL", "LUA"]);
        let said = lines(container.root(&script(&format!(
            r#"
            clear
            prosody-entrypoint migrate --to internal >/dev/null 2>/tmp/log & migrate=$!
            sleep $(printf '%d.%03d' $(({moment} / 1000)) $(({moment} % 1000)))
            case {kind} in
                LUA) kill -KILL $(cat /proc/$migrate/task/$migrate/children 2>/dev/null) 2>/dev/null;;
                *) kill -{kind} $migrate 2>/dev/null;;
            esac
            wait $migrate; status=$?
            until_gone
            moved=$([ -e /var/lib/prosody/.migrating ] || copied)
            echo "$status moved=$moved"
            if [ "$moved" != {COUNT} ]; then prosody-entrypoint migrate --to internal >/dev/null 2>/tmp/log || cat /tmp/log; fi
            echo $(saved) $(copied) $(ls -A /var/lib/prosody | grep -c migrat)"#
        ))));
        let is_good =
            ["", "0", &COUNT.to_string()].iter().any(|moved| said[0].ends_with(&format!("moved={moved}")))
                && said[1] == format!("{COUNT} {COUNT} 0");
        assert!(is_good, "STOP_SEED={}, round {round}, {kind} after {moment} ms: {said:?}", random.seed);
        seen.push(format!("{kind} {moment} {said:?}"));
    }
    println!("{seen:#?}");
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn two_at_once_do_not_harm_each_other() {
    let backup = backup();
    let deployments = if is_all_wanted() {
        vec![Deployment::internal(), Deployment::sqlite(), Deployment::postgresql(), Deployment::mariadb()]
    } else {
        vec![Deployment::sqlite()]
    };
    for deployment in deployments {
        let container = idle(deployment.recipe(TRIXIE), &backup);
        // The second begins while the first waits for its archive.
        let said = container.root(&format!(
            r#"{}
            mkfifo /tmp/pipe; prosody-entrypoint restore </tmp/pipe & first=$!
            exec 3>/tmp/pipe; head -c 100000 /tmp/backup.tar >&3
            until [ -e /var/lib/prosody/.restore ]; do sleep 0.05; done
            prosody-entrypoint restore /tmp/backup.tar 2>/tmp/log; echo second: $? $(grep -c 'a server or another command uses' /tmp/log)
            prosody-entrypoint prosody -F >/tmp/server 2>&1 & server=$!
            until grep -q 'Another server uses' /tmp/server; do sleep 0.05; done
            tail -c +100001 /tmp/backup.tar >&3; exec 3>&-; wait $first; echo first: $?
            until prosody-entrypoint healthcheck 2>/dev/null; do sleep 0.2; done
            mkdir -p /tmp/out
            prosody-entrypoint backup /tmp/out/a.tar & a=$!; prosody-entrypoint backup /tmp/out/a.tar & b=$!
            wait $a; echo backup: $?; wait $b; echo backup: $?
            kill $server; wait $server
            for file in b c; do prosody-entrypoint backup /tmp/out/$file.tar & done; wait
            ls -A /tmp/out; for file in a b c; do tail -c 3000 /tmp/out/$file.tar | grep -a -c '"records":[0-9]*}}'; done"#,
            library()
        ));
        let expected = "second: 69 1 first: 0 backup: 0 backup: 0 a.tar b.tar c.tar 1 1 1";
        assert_eq!(lines(said.clone()).join(" "), expected, "{said:?}");
    }
}

/// What takes the database away, and how long the command may take to notice.
const LOSSES: [(&str, u64); 3] = [("kill", 0), ("stop", 0), ("pause", 120)];

fn a_database_that_goes_away(make: fn() -> Deployment, losses: &[(&str, u64)]) {
    let backup = backup();
    for (loss, limit) in losses {
        let deployment = make();
        let database = deployment.database.as_ref().unwrap();
        let container = idle(deployment.recipe(TRIXIE), &backup);
        restore_first(&container);
        container.root("mkfifo /tmp/in /tmp/out").ok();
        for (command, script) in [
            (
                "backup",
                "prosody-entrypoint backup >/tmp/out 2>/tmp/log & command=$!
                exec 3</tmp/out; head -c 2000 <&3 >/dev/null; touch /tmp/half
                until [ -e /tmp/go ]; do sleep 0.05; done; cat <&3 >/dev/null",
            ),
            (
                "restore",
                "prosody-entrypoint restore </tmp/in 2>/tmp/log & command=$!
                exec 3>/tmp/in; head -c 2000000 /tmp/backup.tar >&3; touch /tmp/half
                until [ -e /tmp/go ]; do sleep 0.05; done; tail -c +2000001 /tmp/backup.tar >&3 2>/dev/null; exec 3>&-",
            ),
        ] {
            if command == "restore" {
                forget(&deployment, &container);
            }
            container.root("rm -f /tmp/half /tmp/go").ok();
            let (answer, took) = thread::scope(|scope| {
                let running = scope.spawn(|| container.root(&format!("{script}; wait $command; echo $?; cat /tmp/log")));
                eventually("it is half-way", PATIENCE, || {
                    let found = container.root("test -e /tmp/half");
                    if found.status == 0 { Ok(()) } else { Err(container.root("cat /tmp/log").all()) }
                });
                docker([*loss, &database.name]).ok();
                let began = Instant::now();
                container.root("touch /tmp/go").ok();
                (running.join().unwrap().ok(), began.elapsed())
            });
            let back = match *loss {
                "pause" => "unpause",
                _ => "start",
            };
            docker([back, &database.name]).ok();
            let what = format!("{command}, {loss}, after {took:?}: {answer}");
            assert!(answer.starts_with("69\n"), "{what}");
            assert_eq!(answer.matches("error\tthe database prosody").count(), 1, "{what}");
            assert!(took < Duration::from_secs(*limit) + PATIENCE, "{what}");
            println!("{what}");
            eventually("the database answers", PATIENCE, || {
                let answer = container.root(&format!("{} look", library()));
                let expected = if command == "restore" { "nothing" } else { "all" };
                if answer.stdout.trim() == expected { Ok(()) } else { Err(answer.all()) }
            });
        }
        are_the_same(&backup, &restore(&backup, &deployment, TRIXIE));
    }
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_postgresql_that_goes_away_ends_the_command() {
    let losses = if is_all_wanted() { &LOSSES[..] } else { &LOSSES[..1] };
    a_database_that_goes_away(Deployment::postgresql, losses);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_mariadb_that_goes_away_ends_the_command() {
    if is_all_wanted() {
        a_database_that_goes_away(Deployment::mariadb, &LOSSES);
    }
}

/// In a container with 100 MB of memory and a small disk.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn endless_archives_take_little_memory() {
    let tmpfs = "/var/lib/prosody:size=8m,uid=999,gid=999,mode=750";
    let recipe = Recipe::new(TRIXIE)
        .env("PROSODY_DOMAIN", DOMAIN)
        .with(["--tmpfs", tmpfs, "--memory", "120m", "--memory-swap", "120m"]);
    let container = idle(recipe, &backup());
    let start = |name: &str| {
        // More than the eleven octal digits of a header can say.
        let size = "20 size=10737418240\n";
        let parts = [
            member("manifest.json", b'0', manifest().as_bytes()),
            member("pax-header", b'x', size.as_bytes()),
            member(name, b'0', b""),
        ];
        parts.concat()
    };
    for (name, bytes) in
        [("record", start(RECORDS)), ("upload", start("uploads/chat%2eexample/x.bin")), ("zeros", vec![])]
    {
        container.put(&format!("/tmp/{name}"), &bytes);
    }
    let said = container.root(&format!(
        r#"{}
        try() {{ (cat "$1"; head -c 10G /dev/zero) | prosody-entrypoint restore 2>/tmp/log
            echo $? $(sed 's/.*error.//' /tmp/log) $(find /var/lib/prosody -mindepth 1 ! -path '*self-signed*'); }}
        try /tmp/zeros; try /tmp/record; try /tmp/upload"#,
        library()
    ));
    let expected = [
        "65 this is not an archive of `backup`",
        "65 the archive has a record of more than 67108864 bytes",
        "73 the files cannot be written: No space left on device",
    ];
    assert_eq!(lines(said.clone()), expected, "{said:?}");
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn stores_without_a_storage_are_left_out_with_a_warning() {
    let recipe = Recipe::new(TRIXIE)
        .env("PROSODY_DOMAIN", DOMAIN)
        .file("/etc/prosody/conf.d/storage.cfg.lua", "storage = { archive = 'memory' }\n");
    let container = idle(recipe, &backup());
    let restored = container.root("prosody-entrypoint restore /tmp/backup.tar");
    assert_eq!(restored.status, 0, "{restored:?}");
    let warning = format!("Left out: {} archive of chat.example, whose storage is memory", USERS * ITEMS);
    assert!(restored.stderr.contains(&warning), "{restored:?}");
    let saved = container.root("prosody-entrypoint backup >/dev/null");
    assert!(saved.stderr.contains(&format!("Saved: {USERS} records")), "{saved:?}");
}
