//! Backups beside a server whose users write all the time: what was acknowledged before a backup began is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde_json::Value;

use crate::backup::{Backup, are_the_same, of_running, restore};
use crate::docker::{Dialogue, PATIENCE, TRIXIE, eventually, is_all_wanted};
use crate::upgrade::{DOMAIN, Deployment};

const WRITERS: usize = 2;

/// For an answer, in milliseconds. A server with so much to do takes a quarter of a second without a backup, too.
const DEADLINE: u64 = 5000;

/// Their messages fit into their archives.
const LIMIT: &str = "storage_archive_item_limit = 10000000\n";

/// Makes backups under load. `make` gives each of those that are restored its place.
fn backups_are_whole(from: &Deployment, make: fn() -> Deployment) {
    let rounds = if is_all_wanted() { 20 } else { 3 };
    let server = from
        .recipe(TRIXIE)
        .env("PROSODY_C2S_RATE_LIMIT", "100mb/s")
        .file("/etc/prosody/conf.d/limit.cfg.lua", LIMIT)
        .serve();
    let writers: Vec<String> = (0..WRITERS).map(|number| format!("writer{number}")).collect();
    for user in writers.iter().map(String::as_str).chain(["carol", "witness"]) {
        server.register(user, DOMAIN, "secret").ok();
    }
    let mut storm = Dialogue::of_client(&format!("container:{}", server.name), "storm.py");
    let mut ask = |request: &str| {
        let answer = storm.request(request).and_then(|()| storm.answer());
        answer.unwrap_or_else(|error| panic!("{request}: {error}\n{}", server.logs()))
    };
    ask(&format!("begin {DOMAIN} {WRITERS}"));
    let count =
        |acked: String| -> Vec<usize> { acked.split(' ').map(|count| count.parse().unwrap()).collect() };
    let mut before = vec![0; WRITERS];
    for round in 0..rounds {
        ask("resume");
        let acked = eventually("they write", PATIENCE, || {
            let acked = count(ask("acked"));
            let is_enough = acked.iter().zip(&before).all(|(acked, before)| acked - before >= 50);
            if is_enough { Ok(acked) } else { Err(format!("{acked:?}")) }
        });
        ask("longest");
        let began = Instant::now();
        let backup = of_running(&server);
        let took = began.elapsed();
        let longest: u64 = ask("longest").parse().unwrap();
        ask("pause");
        println!("backup {round}: {took:?}, {acked:?} messages were acknowledged, longest ping {longest} ms");
        assert!(longest <= DEADLINE, "no answer for {longest} ms");
        let found = messages(&backup);
        before.clone_from(&acked);
        for (writer, acked) in writers.iter().zip(&acked) {
            for archive in [writer, "carol"] {
                let numbers = &found[&(archive.to_owned(), writer.clone())];
                let is_whole = numbers.len() >= *acked && numbers.last() == Some(&(numbers.len() - 1));
                assert!(
                    is_whole,
                    "of {writer}'s {acked} in the archive of {archive}: {}",
                    gaps(numbers, *acked)
                );
            }
        }
        if is_all_wanted() || round == rounds - 1 {
            are_the_same(&backup, &restore(&backup, &make(), TRIXIE));
        }
    }
}

/// By owner of an archive and writer, the numbers of the messages.
fn messages(backup: &Backup) -> BTreeMap<(String, String), BTreeSet<usize>> {
    let mut found: BTreeMap<_, BTreeSet<usize>> = BTreeMap::new();
    for (name, bytes) in backup.members() {
        for line in bytes.split(|byte| *byte == b'\n').filter(|_| name.starts_with("records/")) {
            let Ok(record) = serde_json::from_slice::<Value>(line) else {
                assert!(line.is_empty(), "{name}: {}", String::from_utf8_lossy(line));
                continue;
            };
            let text = record["value"].as_str().filter(|_| record["store"] == "archive");
            let body = text.and_then(|text| text.split_once("<body>storm ")?.1.split_once("</body>"));
            if let Some((writer, number)) = body.and_then(|(body, _)| body.split_once(' ')) {
                let key = (record["user"].as_str().unwrap().to_owned(), writer.to_owned());
                let is_new = found.entry(key).or_default().insert(number.parse().unwrap());
                assert!(is_new, "twice: {record}");
            }
        }
    }
    found
}

/// The first numbers that are missing.
fn gaps(numbers: &BTreeSet<usize>, acked: usize) -> String {
    let last = numbers.last().copied().unwrap_or_default().max(acked);
    let missing: Vec<usize> = (0..last).filter(|number| !numbers.contains(number)).take(10).collect();
    format!("{} of up to {last}, without {missing:?}", numbers.len())
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn backups_of_files_under_load_are_whole() {
    backups_are_whole(&Deployment::internal(), Deployment::sqlite);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn backups_of_sqlite_under_load_are_whole() {
    if is_all_wanted() {
        backups_are_whole(&Deployment::sqlite(), Deployment::internal);
    }
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn backups_of_postgresql_under_load_are_whole() {
    if is_all_wanted() {
        backups_are_whole(&Deployment::postgresql(), Deployment::sqlite);
    }
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn backups_of_mariadb_under_load_are_whole() {
    if is_all_wanted() {
        backups_are_whole(&Deployment::mariadb(), Deployment::internal);
    }
}
