//! HAProxy before shards, as the example `compose-shards` has it: which shard a connection leads to, and how HAProxy
//! takes up another map. The shards are servers with different hosts, so that a connection to the wrong one is an error.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::docker::{
    Container, Dialogue, Network, Observations, PATIENCE, Recipe, TRIXIE, Volume, docker, eventually, require,
};

const HAPROXY: &str = "prosody-entrypoint-test-proxies:latest";

const PORTS: &str = "15222:c2s 15223:c2s_direct_tls 15269:s2s 15270:s2s_direct_tls 15281:https";

/// Stream headers that name a host (tests/client/routes.py).
const WITH_HOST: [&str; 13] = [
    "plain", "declaration", "declaration-encoding", "double-quotes", "spaces", "last", "more", "other-name",
    "in-a-value", "long", "split", "slow", "pieces",
];

/// Others, and what a shard says to them.
const WITHOUT_HOST: [(&str, &str); 12] = [
    ("dot", "error host-unknown"),
    ("empty", "error host-unknown"),
    ("user", "error host-unknown"),
    ("entry", "error host-unknown"),
    ("unquoted", "error not-well-formed"),
    ("twice", "error not-well-formed"),
    ("64-kB", "error policy-violation"),
    ("64-kB-of-names", "error policy-violation"),
    ("64-kB-of-quotes", "error not-well-formed"),
    ("64-kB-of-spaces", "error policy-violation"),
    ("64-kB-of-declaration", "error policy-violation"),
    ("http", "error not-well-formed"),
];

fn example(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/compose-shards").join(file))
        .unwrap()
}

/// The hosts of the examples with shards.
pub fn domains() -> impl Iterator<Item = String> {
    (1..=60).map(|number| format!("d{number:02}.example"))
}

/// Waits until all domains of the examples are served, by way of the router that `client` (routes.py) knows. Says how
/// long that took.
#[track_caller]
pub fn wait_until_all_are_served(
    client: &mut Dialogue,
    patience: Duration,
    log: impl Fn() -> String,
) -> Duration {
    let started = Instant::now();
    let request = domains().fold("unserved".to_owned(), |request, domain| request + " " + &domain);
    eventually("all domains are served", patience, || {
        match client.request(&request).and_then(|()| client.answer()) {
            Ok(none) if none.is_empty() => Ok(started.elapsed()),
            answer => Err(format!("{answer:?}\n{}", log())),
        }
    })
}

/// Which shard has each host, from what `shards --format haproxy-map` prints: how many hosts each shard has.
#[track_caller]
pub fn shares(map: &str) -> BTreeMap<&str, usize> {
    let mut shares = BTreeMap::new();
    for line in map.lines() {
        let (_, shard) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?} in the map"));
        *shares.entry(shard).or_default() += 1;
    }
    shares
}

/// Two servers, with HAProxy before them and a client.
struct Router {
    shards: [Container; 2],
    proxy: Container,
    map: Container,
    client: Dialogue,
    /// The address that shards should see.
    own: String,
    _control: Volume,
    network: Network,
}

impl Router {
    /// The map is there, but nothing follows it yet.
    fn new() -> Self {
        require(HAPROXY);
        let network = Network::new();
        let control = Volume::new();
        control.prepare(TRIXIE, "chown 999:999 /volume");
        let subnet = "{{(index .IPAM.Config 0).Subnet}}";
        let subnet = docker(["network", "inspect", "--format", subnet, &network.name]).ok();
        let shards = [0, 1].map(|number| {
            Recipe::new(TRIXIE)
                .on(&network, &[&format!("prosody-{number}"), "prosody"])
                .env("PROSODY_DOMAIN", &format!("a{number}.example b{number}.example"))
                .env("PROSODY_TRUSTED_PROXIES", "proxy")
                .env("PROSODY_PROXY_PROTOCOL_PORTS", PORTS)
                .env("PROSODY_S2S_DIRECT_TLS_PORTS", "5270")
                .env("PROSODY_OPENMETRICS", "true")
                .env("PROSODY_OPENMETRICS_ALLOW_CIDR", &subnet)
                .start()
        });
        let dockerfile = example("proxy/Dockerfile");
        let entrypoint = dockerfile.lines().find_map(|line| line.strip_prefix("ENTRYPOINT ")).unwrap();
        let [shell, option, line]: [String; 3] = serde_json::from_str(entrypoint).unwrap();
        let configuration = example("proxy/haproxy.cfg");
        let quick = configuration.replace("inspect-delay 30s", "inspect-delay 5s");
        assert_ne!(quick, configuration);
        let proxy = Recipe::new(HAPROXY)
            .on(&network, &["proxy"])
            .volume(&control, "/run/proxy")
            .with(["--user", "999:999", "--sysctl", "net.ipv4.ip_unprivileged_port_start=0"])
            .file("/etc/haproxy/haproxy.cfg", quick)
            .command([&shell, &option, &line])
            .start();
        let map = Recipe::new(TRIXIE)
            .with(["--network", "none", "--user", "999:999", "--entrypoint", "/follow-map"])
            .volume(&control, "/run/proxy")
            .file("/map", hosts([0, 1]))
            .command(["/run/proxy", "cat /map"])
            .create();
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/compose-shards/follow-map");
        docker(["cp".as_ref(), program.as_os_str(), format!("{}:/follow-map", map.name).as_ref()]).ok();
        for shard in &shards {
            shard.wait_until_it_serves();
        }
        let client = Dialogue::of_client(&network.name, "routes.py");
        let own = String::new();
        let mut router = Router { shards, proxy, map, client, own, _control: control, network };
        router.own = eventually("HAProxy listens", PATIENCE, || {
            let request = format!("at {}", router.proxy.address());
            router.client.request(&request).and_then(|()| router.client.answer())
        });
        router
    }

    /// What the client gets, and the seconds that it took.
    #[track_caller]
    fn ask(&mut self, request: &str) -> (String, u64) {
        let answer = self.client.request(request).and_then(|()| self.client.answer());
        let answer = answer.unwrap_or_else(|reason| panic!("{request}: {reason}\n{}", self.proxy.logs()));
        let (result, seconds) =
            answer.rsplit_once(" after ").unwrap_or_else(|| panic!("{request}: {answer}"));
        (result.to_owned(), seconds.parse().unwrap())
    }

    #[track_caller]
    fn wait_for(&mut self, request: &str, expected: &str) {
        eventually(&format!("{request}: {expected}"), PATIENCE, || match self.ask(request).0 {
            result if result == expected => Ok(()),
            result => Err(format!("{result}\n{}\n{}", self.map.logs(), self.proxy.logs())),
        });
    }

    fn health(&self) -> String {
        let ask = "exec 3<>/dev/tcp/127.0.0.1/8080; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; head -n 1 <&3";
        self.proxy.exec(["bash", "-c", ask]).all()
    }
}

/// The map, with these shards for the hosts of the two servers.
fn hosts(shards: [u8; 2]) -> String {
    let line = |host: &str, shard: u8| {
        ["", "conference.", "upload."].map(|sub| format!("{sub}{host}.example shard-{shard}\n")).concat()
    };
    [0, 1]
        .map(|number| {
            line(&format!("a{number}"), shards[number]) + &line(&format!("b{number}"), shards[number])
        })
        .concat()
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn connections_lead_to_the_shard_of_their_host_whatever_they_begin_with() {
    let mut seen = Observations::default();
    let mut router = Router::new();
    // Without a map, nothing is sent to the wrong shard.
    for request in ["begin 5222 plain a1.example", "tls 5223 a1.example -"] {
        let (result, seconds) = router.ask(request);
        seen.that(request, result.starts_with("closed") && seconds < 3, (result, seconds));
    }
    seen.that("health without a map", router.health().contains(" 503 "), router.health());
    docker(["start", &router.map.name]).ok();
    router.wait_for("begin 5222 plain a1.example", "features");
    seen.that("health with a map", router.health().contains(" 200 "), router.health());

    for host in ["a0.example", "b1.example"] {
        for (port, name) in [5222, 5269].iter().flat_map(|port| WITH_HOST.map(|name| (port, name))) {
            let request = format!("begin {port} {name} {host}");
            seen.equal(&request, router.ask(&request).0.as_str(), "features");
        }
    }
    for (request, expected) in [
        ("begin 5222 plain B1.EXAMPLE", "features"),
        ("begin 5269 plain conference.b1.example", "features"),
        ("begin 5269 plain Upload.a0.example", "features"),
        ("begin 5222 plain unknown.example", "error host-unknown"),
        ("begin 5269 plain unknown.example", "error host-unknown"),
        ("tls 5223 a0.example -", "features"),
        ("tls 5223 b1.example xmpp-client", "features"),
        // A stream of a server that has no certificate.
        ("tls 5270 a0.example xmpp-server", "error not-authorized"),
        ("tls 5270 b1.example xmpp-server", "error not-authorized"),
        ("tls 5281 upload.a0.example http/1.1", "HTTP 200"),
        ("tls 5281 b1.example -", "HTTP 200"),
        ("tls 443 a0.example xmpp-client", "features"),
        ("tls 443 b1.example xmpp-client", "features"),
        ("tls 443 b1.example xmpp-server", "error not-authorized"),
        ("tls 443 a0.example http/1.1", "HTTP 200"),
        ("tls 443 b1.example -", "HTTP 200"),
        // Without SNI, any shard has a certificate to show.
        ("tls 5223 - -", "error host-unknown"),
        ("tls 5223 unknown.example -", "closed in the handshake"),
        ("tls 443 unknown.example xmpp-client", "closed in the handshake"),
        ("begin 5223 http a0.example", "closed"),
        ("begin 443 http a0.example", "closed"),
    ] {
        seen.equal(request, router.ask(request).0.as_str(), expected);
    }
    for (port, (name, expected)) in [5222, 5269].iter().flat_map(|port| WITHOUT_HOST.map(|it| (port, it))) {
        let request = format!("begin {port} {name} a1.example");
        let (result, seconds) = router.ask(&request);
        seen.that(&request, result == expected && seconds < 5, (result, seconds));
    }
    for name in ["none", "none-but-other-name", "later"] {
        let expected = [("5222", "error improper-addressing"), ("5269", "error undefined-condition")];
        for (port, expected) in expected {
            let request = format!("begin {port} {name} a1.example");
            seen.equal(&request, router.ask(&request).0.as_str(), expected);
        }
    }
    // Too slow.
    for request in ["begin 5222 incomplete a1.example", "silent 5269", "silent 5223"] {
        let (result, seconds) = router.ask(request);
        seen.that(request, result == "closed" && (4..20).contains(&seconds), (result, seconds));
    }
    for shard in &router.shards {
        let logs = shard.logs();
        for service in ["c2s", "c2s_direct_tls", "s2s", "s2s_direct_tls", "https"] {
            let line = format!("Client {}, port ", router.own);
            let end = format!(" is passed on to {service}");
            let passed_on = logs.lines().filter(|log| log.contains(&line) && log.ends_with(&end)).count();
            seen.that(&format!("the client's address at {service}"), passed_on > 0, &logs);
        }
        seen.that(
            "no trouble",
            !logs.contains("traceback") && !logs.contains(" without a PROXY header"),
            &logs,
        );
    }
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn haproxy_takes_up_another_map_and_keeps_connections() {
    const OF_0: &str = "begin 5222 plain a0.example";
    const OF_1: &str = "tls 5223 a1.example -";
    let mut router = Router::new();
    docker(["start", &router.map.name]).ok();
    router.wait_for(OF_0, "features");
    let keep = |router: &mut Router| {
        for host in ["a0.example", "b1.example"] {
            router.client.request(&format!("keep {host}")).and_then(|()| router.client.answer()).unwrap();
        }
    };
    let kept = |router: &mut Router| router.client.request("kept").and_then(|()| router.client.answer());
    keep(&mut router);

    // Another shard, which does not have the host: the connection leads there.
    let started = Instant::now();
    router.map.put("/map", hosts([1, 1]).as_bytes());
    router.wait_for(OF_0, "error host-unknown");
    println!("another map after {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(router.ask(OF_1).0, "features");
    router.map.put("/map", hosts([0, 1]).as_bytes());
    router.wait_for(OF_0, "features");
    assert_eq!(kept(&mut router).unwrap(), "2");

    // A map with thousands of hosts.
    let many =
        (0..3000).fold(hosts([0, 1]), |map, n| map + &format!("{n}.{}.example shard-1\n", "x".repeat(50)));
    router.map.put("/map", (many + "c0.example shard-0\n").as_bytes());
    router.map.wait_for_log("The map has 3013 hosts.");
    assert_eq!([router.ask(OF_0).0, router.ask(OF_1).0], ["features"; 2]);

    // A command that prints no map, or fails, changes nothing.
    router.map.put("/map", b"no map\n");
    router.map.wait_for_log("`cat /map` prints no map.");
    assert_eq!([router.ask(OF_0).0, router.ask(OF_1).0], ["features"; 2]);
    router.map.root("rm /map").ok();
    router.map.wait_for_log("cat: /map: No such file or directory");
    assert_eq!([router.ask(OF_0).0, router.ask(OF_1).0], ["features"; 2]);

    // HAProxy starts with the last map. What follows the map finds HAProxy again, and the reverse.
    docker(["stop", &router.map.name]).ok();
    router.map.put("/map", hosts([0, 1]).as_bytes());
    let restart = |router: &mut Router| {
        docker(["restart", &router.proxy.name]).ok();
        eventually("HAProxy listens", PATIENCE, || {
            let request = format!("at {}", router.proxy.address());
            router.client.request(&request).and_then(|()| router.client.answer())
        });
    };
    restart(&mut router);
    router.wait_for(OF_0, "features");
    router.wait_for(OF_1, "features");
    docker(["start", &router.map.name]).ok();
    router.map.wait_for_log("The map has 12 hosts.");
    restart(&mut router);
    router.wait_for(OF_0, "features");
    router.map.put("/map", hosts([1, 1]).as_bytes());
    router.wait_for(OF_0, "error host-unknown");
    router.map.put("/map", hosts([0, 1]).as_bytes());
    router.wait_for(OF_0, "features");

    // A shard that is away, and one that never was there: the end of the connection, soon. The others are served.
    keep(&mut router);
    docker(["kill", &router.shards[1].name]).ok();
    assert_eq!(kept(&mut router).unwrap(), "1");
    router.map.put("/map", (hosts([0, 1]) + "c0.example shard-15\nd0.example shard-99\n").as_bytes());
    router.wait_for("begin 5222 plain c0.example", "closed");
    for request in
        ["begin 5222 plain b1.example", "begin 5269 plain b1.example", "begin 5222 plain c0.example"]
    {
        let (result, seconds) = router.ask(request);
        assert!(result == "closed" && seconds < 8, "{request}: {result} after {seconds}");
    }
    assert_eq!(router.ask(OF_0).0, "features");
    // More than HAProxy has.
    assert_eq!(router.ask("begin 5222 plain d0.example").0, "error host-unknown");
    let started = Instant::now();
    docker(["start", &router.shards[1].name]).ok();
    router.wait_for(OF_1, "features");
    println!("a shard is back after {:?}", started.elapsed());
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn prometheus_reads_all_shards_by_one_job() {
    const IMAGE: &str = "prosody-example-prometheus:latest";
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/monitoring/prometheus");
    docker(["build".as_ref(), "--quiet".as_ref(), "--tag".as_ref(), IMAGE.as_ref(), folder.as_os_str()]).ok();
    let router = Router::new();
    let readme = example("README.md");
    let (_, block) = readme.split_once("```yaml\n").unwrap();
    let (job, _) = block.split_once("```").unwrap();
    let prometheus = Recipe::new(IMAGE)
        .on(&router.network, &["prometheus"])
        .file("/etc/prometheus/prometheus.yml", format!("global: {{scrape_interval: 1s}}\n{job}"))
        .command(["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"])
        .start();
    let are_read = |count: u8| {
        eventually("the shards are read", PATIENCE, || {
            let query = "count(prosody_info * on (instance) up{job='prosody'} == 1)";
            let answer = prometheus.exec(["promtool", "query", "instant", "http://127.0.0.1:9090", query]);
            let is_so = answer.stdout.contains(&format!("=> {count} @"));
            if is_so { Ok(()) } else { Err(answer.all() + &prometheus.logs()) }
        });
    };
    are_read(2);
    docker(["stop", &router.shards[1].name]).ok();
    are_read(1);
    docker(["start", &router.shards[1].name]).ok();
    are_read(2);
}

/// The examples for a swarm and for Kubernetes have the same files, with names of their own.
#[test]
fn haproxys_files_differ_in_names_alone() {
    let file = |path: &str| {
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(path)).unwrap()
    };
    let without_names = |text: String| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.starts_with("\t#"));
        let words = |line: &str| {
            let mut words: Vec<_> = line.split(' ').collect();
            if let Some(address) = words.iter_mut().find(|word| word.ends_with(":+10000")) {
                *address = "";
            }
            words
                .join(" ")
                .replace("resolvers cluster", "resolvers docker")
                .replace("bind :8080", "bind 127.0.0.1:8080")
        };
        lines.map(words).collect()
    };
    let first = file("compose-shards/proxy/haproxy.cfg");
    for (folder, names) in [
        ("compose-shards/proxy", ["prosody-0:", "prosody-15:"]),
        ("swarm-shards", ["prosody-1:", "prosody-16:"]),
        (
            "kubernetes-shards",
            ["prosody-0.prosody.prosody.svc.cluster.local:", "prosody-15.prosody.prosody.svc.cluster.local:"],
        ),
    ] {
        let other = file(&format!("{folder}/haproxy.cfg"));
        assert_eq!(without_names(other.clone()), without_names(first.clone()), "{folder}");
        for (number, name) in [0, 15].iter().zip(names) {
            assert!(other.contains(&format!("\n\tserver shard-{number} {name}+10000\n")), "{folder}: {name}");
        }
    }
    for folder in ["swarm-shards", "kubernetes-shards"] {
        assert_eq!(file(&format!("{folder}/follow-map")), file("compose-shards/follow-map"), "{folder}");
    }
}
