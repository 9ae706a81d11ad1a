//! `docker stop` at any moment: the container ends by itself, and the next start finds nothing half-written.
//!
//! The moments are random. A failure prints the seed; `STOP_SEED=N` repeats its waits (not the machine's load).

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::docker::{
    Container, Network, PATIENCE, Recipe, TRIXIE, Volume, docker, eventually, is_all_wanted, session,
};
use crate::random::Random;

const DOMAIN: &str = "chat.example";

/// After this Docker kills, in seconds.
const GRACE: &str = "10";
/// How long a stop may take where the engine is busy with builds; on an idle machine it takes a tenth of a second.
const AT_ONCE: Duration = Duration::from_secs(8);
/// Prosody serves after half of it.
const LONGEST_WAIT: u64 = 600;

/// A shell line that prints the names of the files in force, and as an error what is half-written.
const LOOK: &str = r#"
    cd /run/prosody
    if [ -L current ]; then
        test -s current/prosody.cfg.lua || echo "current, $(readlink current), has no main file" >&2
        find -L current ! -type d | sort
    fi
    for certificate in /var/lib/prosody/self-signed/*.crt; do
        test ! -e "$certificate" || test -s "${certificate%.crt}.key" || echo "$certificate has no key" >&2
    done"#;

/// A shell line that makes everything as after `docker volume create`.
const FORGET: &str = "find /run/prosody /var/lib/prosody -mindepth 1 -delete";

/// A server whose files outlive its starts, and a second container that looks at them.
struct Server {
    container: Container,
    watcher: Container,
    network: Network,
    // After the containers: a volume in use cannot be removed.
    _volumes: [Volume; 2],
}

impl Server {
    fn new() -> Self {
        let network = Network::new();
        let volumes = [Volume::new(), Volume::new()];
        let recipe = || {
            Recipe::new(TRIXIE)
                .env("PROSODY_DOMAIN", DOMAIN)
                .volume(&volumes[0], "/run/prosody")
                .volume(&volumes[1], "/var/lib/prosody")
        };
        let container = recipe().on(&network, &[DOMAIN]).create();
        // At the same places, so that absolute links lead to the same files.
        let watcher =
            recipe().with(["--network", "none", "--entrypoint", "sleep"]).command(["infinity"]).start();
        Server { container, watcher, network, _volumes: volumes }
    }

    fn start(&self) {
        docker(["start", &self.container.name]).ok();
    }

    /// Waits until the first process has forked, or has ended: it blocks signals before that. Until then, the kernel drops
    /// signals for the first process of a PID namespace (pid_namespaces(7)).
    fn wait_until_it_takes_signals(&self) {
        let pid = self.container.inspect("{{.State.Pid}}");
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}"));
        eventually("PID 1 forks", PATIENCE, || match (read("comm"), read(&format!("task/{pid}/children"))) {
            (Ok(name), Ok(children)) if children.is_empty() || !name.starts_with("prosody-entry") => {
                Err(format!("{name}: {children}"))
            }
            _ => Ok(()),
        });
    }

    /// Stops the server. Says what is wrong about how it ended.
    fn stop(&self) -> Result<(), String> {
        let began = Instant::now();
        docker(["stop", "--time", GRACE, &self.container.name]).ok();
        self.ended(began.elapsed())
    }

    /// Waits for the end that a signal from within asks for. Says what is wrong about it.
    fn ends(&self) -> Result<(), String> {
        let began = Instant::now();
        eventually("the container ends", PATIENCE, || {
            if self.container.runs() { Err(self.container.logs()) } else { Ok(()) }
        });
        self.ended(began.elapsed())
    }

    fn ended(&self, took: Duration) -> Result<(), String> {
        let status = self.container.inspect("{{.State.ExitCode}}");
        // Prosody's own end, or that of a start which SIGTERM interrupted.
        if !["0", "143"].contains(&status.as_str()) {
            return Err(format!("status {status}, after {took:?}"));
        }
        if took > AT_ONCE {
            return Err(format!("the stop took {took:?}"));
        }
        Ok(())
    }

    /// The names of the files in force, where there are any. Says what is half-written.
    fn look(&self) -> Result<Option<String>, String> {
        let answer = self.watcher.root(LOOK);
        if answer.status != 0 || !answer.stderr.is_empty() {
            return Err(answer.all());
        }
        Ok(Some(answer.stdout).filter(|names| !names.is_empty()))
    }

    /// A normal start serves, and no start before it found anything to complain of.
    fn serves_at_last(&self) {
        self.start();
        self.container.wait_until_it_serves();
        self.container.register_accounts(DOMAIN);
        let answer = session(&self.network, DOMAIN, &["login", "message", "archive"]);
        assert_eq!(answer.status, 0, "{answer:?}\n{}", self.container.logs());
        self.complains_of_nothing();
    }

    #[track_caller]
    fn complains_of_nothing(&self) {
        let logs = self.container.logs();
        let complaints: Vec<&str> = logs
            .lines()
            .filter(|line| line.starts_with("entrypoint") && line.split_whitespace().nth(1) == Some("error"))
            .collect();
        assert!(complaints.is_empty(), "{complaints:?}\n{logs}");
    }
}

/// 40 times, or 200: start, wait for a random time, stop. Every other start is a first one; the ones between have to get
/// along with what the start before them left.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn stops_at_random_moments() {
    let rounds = if is_all_wanted() { 200 } else { 40 };
    let server = Server::new();
    let mut random = Random::from("STOP_SEED");
    let seed = random.seed;
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    let mut nothing_yet = 0;
    for round in 0..rounds {
        if round % 2 == 0 {
            server.watcher.root(FORGET).ok();
        }
        let wait = random.below(LONGEST_WAIT);
        server.start();
        let started = Instant::now();
        server.wait_until_it_takes_signals();
        // The random moment is what is tested.
        thread::sleep(Duration::from_millis(wait).saturating_sub(started.elapsed()));
        match server.stop().and_then(|()| server.look()) {
            Ok(Some(names)) => drop(seen.entry(names).or_insert(wait)),
            Ok(None) => nothing_yet += 1,
            Err(wrong) => panic!(
                "STOP_SEED={seed}, start {round}, stopped after {wait} ms: {wrong}\n{}",
                server.container.logs()
            ),
        }
    }
    server.serves_at_last();
    let whole = server.look().unwrap().expect("a server without a configuration");
    for (names, wait) in seen {
        assert_eq!(
            names, whole,
            "STOP_SEED={seed}: stopped after {wait} ms, what was in force was not the whole configuration"
        );
    }
    println!("{nothing_yet} of {rounds} stops came before there was a configuration");
}

/// SIGTERM within the milliseconds that a configuration takes, which `docker stop` seldom meets: 200 starts beside
/// another PID 1, every other a first one.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn an_interrupted_configuration_leaves_nothing_half_written() {
    let server = Server::new();
    let mut random = Random::from("STOP_SEED");
    let seed = random.seed;
    let moments: Vec<String> = (0..200).map(|_| format!("0.{:06}", random.below(12_000))).collect();
    // The status, and what is in force, as one line for each start.
    let script = format!(
        "look() {{ ({LOOK}\n) }}\n\
         round=0\n\
         for moment in {}; do\n\
             [ $((round % 2)) = 1 ] || {FORGET}\n\
             round=$((round + 1))\n\
             prosody-entrypoint prosody -F >/tmp/log 2>&1 &\n\
             sleep $moment\n\
             kill -TERM $!\n\
             wait $!\n\
             echo $moment $? $(look 2>&1) $(grep '^entrypoint *error' /tmp/log)\n\
         done",
        moments.join(" ")
    );
    let rounds = server.watcher.root(&script).ok();
    server.serves_at_last();
    let whole = server.look().unwrap().expect("a server without a configuration");
    let whole: Vec<&str> = whole.split_whitespace().collect();
    let (mut nothing_yet, mut interrupted) = (0, 0);
    for round in rounds.lines() {
        let words: Vec<&str> = round.split_whitespace().collect();
        let [_, status, seen @ ..] = &words[..] else { panic!("an unexpected line: {round}") };
        interrupted += u32::from(*status == "143");
        nothing_yet += u32::from(seen.is_empty());
        let is_whole = seen.is_empty() || seen == whole;
        assert!(is_whole && ["0", "143"].contains(status), "STOP_SEED={seed}: {round}");
    }
    assert_eq!(rounds.lines().count(), moments.len(), "STOP_SEED={seed}: {rounds}");
    println!("of 200 starts {interrupted} were interrupted, {nothing_yet} before there was a configuration");
}

/// SIGTERM while a reload is under way, at whatever point of it.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn stops_during_a_reload() {
    let server = Server::new();
    let mut random = Random::from("STOP_SEED");
    let seed = random.seed;
    for round in 0..if is_all_wanted() { 20 } else { 8 } {
        server.start();
        server.container.wait_until_it_serves();
        let before = server.look().unwrap();
        // Docker's command line is slower than a reload; in every other round both signals come from within.
        let (wait, end) = if round % 2 == 0 {
            let wait = random.below(60_000);
            docker(["kill", "--signal", "HUP", &server.container.name]).ok();
            thread::sleep(Duration::from_micros(wait));
            (wait, server.stop())
        } else {
            let wait = random.below(12_000);
            server.container.root(&format!("kill -HUP 1; sleep 0.{wait:06}; kill -TERM 1"));
            (wait, server.ends())
        };
        match end.and_then(|()| server.look()) {
            Ok(after) if after == before => {}
            wrong => panic!(
                "STOP_SEED={seed}, round {round}, stopped {wait} µs after SIGHUP: {wrong:?}, before: {before:?}\n{}",
                server.container.logs()
            ),
        }
    }
    server.serves_at_last();
}

/// A hundred reloads are asked for in a second.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn serves_after_a_hundred_hangups() {
    let server = Server::new();
    server.start();
    server.container.wait_until_it_serves();
    let pid = server.container.server_pid();
    let before = server.look().unwrap();
    let storm =
        "i=0; while [ $i -lt 100 ]; do kill -HUP 1; i=$((i + 1)); [ $((i % 4)) -gt 0 ] || sleep 0.03; done";
    let began = Instant::now();
    server.container.root(storm).ok();
    println!("100 SIGHUPs took {:?}", began.elapsed());
    server.serves_at_last();
    let now = docker(["top", &server.container.name, "-eo", "pid,args"]).stdout;
    assert!(now.lines().any(|line| line.contains("/usr/bin/prosody")), "{now}");
    assert_eq!(server.container.server_pid(), pid, "another Prosody runs now");
    assert_eq!(server.look().unwrap(), before, "the configuration is another one");
    server.stop().unwrap();
}
