//! Servers that share the virtual hosts over one PostgreSQL.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::docker::{
    BOOKWORM, Container, Network, Observations, PATIENCE, Recipe, TRIXIE, Volume, docker, eventually,
};

const POSTGRESQL: &str = "prosody-entrypoint-test-postgresql:17";
const PASSWORD: &str = "secret-d";
const HOSTS: u32 = 12;

/// Shards with one data volume and one database. The network is the last to go.
struct Deployment {
    image: &'static str,
    database: Container,
    data: Volume,
    network: Network,
}

impl Deployment {
    fn new(image: &'static str) -> Self {
        let network = Network::new();
        let database = Recipe::new(POSTGRESQL)
            .on(&network, &["db"])
            .env("POSTGRES_USER", "prosody")
            .env("POSTGRES_PASSWORD_FILE", "/srv/password")
            .file("/srv/password", PASSWORD)
            .command(["-c", "fsync=off"])
            .start();
        Deployment { image, network, data: Volume::new(), database }
    }

    fn recipe(&self, shard: &str) -> Recipe {
        let hosts: Vec<String> = (1..=HOSTS).map(|number| format!("d{number}.example")).collect();
        Recipe::new(self.image)
            .on(&self.network, &[])
            .env("PROSODY_VIRTUAL_HOSTS", &hosts.join(" "))
            .env("PROSODY_COMPONENTS", "rooms.d1.example:muc")
            .env("PROSODY_DATABASE_URL", &format!("postgresql://prosody:{PASSWORD}@db/prosody"))
            .env("PROSODY_SHARDS", "3")
            .env("PROSODY_SHARD", shard)
    }

    fn start(&self, shard: u32) -> Container {
        self.recipe(&format!("prosody-{shard}")).volume(&self.data, "/var/lib/prosody").start()
    }
}

/// The hosts that a server serves, by its own word: it answers `host-unknown` to clients of others.
fn served(shard: &Container) -> Vec<String> {
    // Prosody's own list of active hosts.
    let answer = shard.exec(["prosodyctl", "shell", "host:list()"]);
    let hosts = answer
        .stdout
        .lines()
        .filter_map(|line| Some(line.split_whitespace().find(|it| it.ends_with(".example"))?.to_owned()));
    let mut hosts: Vec<String> = hosts.collect();
    hosts.sort();
    hosts
}

/// What the command says: the shard of each host.
fn planned(shard: &Container) -> Result<BTreeMap<String, u64>, String> {
    let answer = shard.exec(["prosody-entrypoint", "shards", "--format", "json"]);
    let json: Value = serde_json::from_str(&answer.stdout).map_err(|_| answer.all())?;
    let hosts = json["hosts"].as_array().unwrap().iter();
    Ok(hosts.map(|it| (it["host"].as_str().unwrap().to_owned(), it["shard"].as_u64().unwrap())).collect())
}

/// Waits until each of the servers serves what the command says, and nothing else.
#[track_caller]
fn wait_until_as_planned(shards: &[&Container]) -> BTreeMap<String, u64> {
    let logs = || shards.iter().map(|shard| shard.logs()).collect::<Vec<_>>().join("\n----\n");
    eventually("each shard has its hosts", 2 * PATIENCE, || {
        let planned = planned(shards[0])?;
        for (number, shard) in shards.iter().enumerate() {
            let of_it = planned.iter().filter(|(_, owner)| **owner == number as u64);
            let of_it: Vec<String> = of_it.map(|(host, _)| host.clone()).collect();
            let found = served(shard);
            let mut of_it = of_it;
            of_it.sort();
            if found != of_it {
                return Err(format!(
                    "shard {number} serves {found:?} and should serve {of_it:?}\n{}",
                    logs()
                ));
            }
        }
        Ok(planned)
    })
}

/// Every host is served once: by three, by two, after a shard was killed, and while the database restarts.
fn every_host_is_served_once(image: &'static str) {
    let deployment = Deployment::new(image);
    let shards = [0, 1, 2].map(|number| deployment.start(number));
    let [first, second, third] = &shards;
    let of_three = wait_until_as_planned(&[first, second, third]);
    assert_eq!(of_three["rooms.d1.example"], of_three["d1.example"]);
    let mut seen = Observations::default();
    for shard in &shards {
        seen.equal(
            "a shard is ready",
            shard.exec(["prosody-entrypoint", "healthcheck", "--ready"]).status,
            0,
        );
        seen.equal("a shard answers", shard.exec(["prosody-entrypoint", "healthcheck"]).status, 0);
    }

    // Two: the third waits, and is healthy.
    let said = first.exec(["prosody-entrypoint", "shards", "--set", "2"]);
    seen.that("what moves is told", said.stderr.contains("The number of shards is 2 now, after 3: "), &said);
    let of_two = wait_until_as_planned(&[first, second]);
    seen.that("no host stays", of_two.values().all(|shard| *shard < 2), &of_two);
    let moved = |before: &BTreeMap<String, u64>, host: &String| before[host] != of_two[host];
    seen.that(
        "only hosts of the third move",
        of_three.keys().all(|host| !moved(&of_three, host) || of_three[host] == 2),
        &of_two,
    );
    third.wait_for_log("Shard 2 waits, because there are 2 shards");
    seen.equal("it has no hosts", served(third).len(), 0);
    seen.equal(
        "one that waits is healthy",
        third.exec(["prosody-entrypoint", "healthcheck", "--ready"]).status,
        0,
    );

    first.exec(["prosody-entrypoint", "shards", "--set", "3"]).ok();
    seen.equal("three again", wait_until_as_planned(&[first, second, third]), of_three.clone());

    // One that is killed has its hosts again at once, and not after the time that others would wait.
    let mark = third.mark();
    docker(["kill", &third.name]).ok();
    docker(["start", &third.name]).ok();
    wait_until_as_planned(&[first, second, third]);
    let said = third.since(mark).all();
    seen.that("it does not wait", !said.contains("not released"), &said);

    // Its hosts stay while the database restarts.
    let mark = first.mark();
    docker(["restart", "--time", "10", &deployment.database.name]).ok();
    first.wait_for_log("The session that holds this shard's locks has ended");
    wait_until_as_planned(&[first, second, third]);
    let said = first.since(mark).all();
    seen.that("no host is given up", !said.contains("Deactivat"), &said);
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn every_host_is_served_once_on_13_0() {
    every_host_is_served_once(TRIXIE);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn every_host_is_served_once_on_0_12() {
    every_host_is_served_once(BOOKWORM);
}

/// Two servers with one number and different data volumes, and one that takes what was not released.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn what_another_may_serve_is_not_taken() {
    let deployment = Deployment::new(TRIXIE);
    let first = deployment.start(0);
    first.wait_for_log("Shard 0 of 3 serves ");
    let mine = served(&first);
    assert!(!mine.is_empty());
    let other = deployment.recipe("0").env("PROSODY_ADMINS", "a@d1.example").start();
    other.wait_for_log("Another server is shard 0: this one waits until that has ended");
    assert_eq!(served(&other).len(), 0);

    docker(["kill", &first.name]).ok();
    other.wait_for_log("of the locks were not released by their last holder: their hosts are served in 26 s");
    other.wait_for_log("Shard 0 of 3 serves ");
    assert_eq!(served(&other), mine);

    // A third has the settings and the data directory of the first.
    let second = deployment.start(1);
    second.wait_for_log("The shards have different settings: PROSODY_ADMINS");
    second.wait_for_log(
        "Shard 0 has another data directory: when a host moves, its uploaded files stay behind",
    );

    // In the other order: one that is stopped has released them.
    docker(["stop", "--time", "30", &other.name]).ok();
    let mark = first.mark();
    docker(["start", &first.name]).ok();
    first.wait_for_log("Shard 0 of 3 serves ");
    eventually("they are served", PATIENCE, || match served(&first) {
        hosts if hosts == mine => Ok(()),
        hosts => Err(format!("{hosts:?}")),
    });
    let said = first.since(mark).all();
    assert!(!said.contains("not released"), "{said}");
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn what_shards_cannot_be_is_told() {
    let with_shards = |recipe: Recipe| recipe.env("PROSODY_SHARDS", "3").env("PROSODY_SHARD", "0");
    let custom = Recipe::new(TRIXIE).file("/etc/prosody/prosody.cfg.lua", "VirtualHost 'a.example'\n");
    let answer = with_shards(custom).run();
    assert_eq!(answer.status, 78, "{answer:?}");
    assert!(
        answer.stderr.contains("decides which hosts are served: remove the file, or this setting"),
        "{answer:?}"
    );
    let answer = Recipe::new(TRIXIE).command(["shards"]).run();
    assert_eq!(answer.status, 78, "{answer:?}");
    assert!(answer.stderr.contains("this server has no shards: set PROSODY_SHARDS"), "{answer:?}");
    let away = Recipe::new(TRIXIE).env("PROSODY_DATABASE_URL", "postgresql://a:b@127.0.0.1/prosody");
    let answer = with_shards(away).command(["shards"]).run();
    assert_eq!(answer.status, 69, "{answer:?}");
}
