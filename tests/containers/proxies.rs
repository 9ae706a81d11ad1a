//! Ports of the PROXY protocol, and the configurations of proxies in the docs.

use std::fs;
use std::path::Path;

use crate::docker::{
    BOOKWORM, CLIENT, Network, Observations, PATIENCE, Recipe, TRIXIE, eventually, is_all_wanted, require,
};

const PORTS: &str = "15222:c2s 15223:c2s_direct_tls 15270:s2s_direct_tls 15280:http 15281:https";

/// Headers with a client's address, headers without one, and bytes that are no header (tests/client/proxied.py).
const ADDRESSES: [(&str, &str); 8] = [
    ("v1", "192.0.2.9"),
    ("v1-ipv6", "2001:db8::9"),
    ("v2", "192.0.2.9"),
    ("v2-ipv6", "2001:db8::9"),
    ("v2-mapped", "192.0.2.10"),
    ("v2-with-more", "192.0.2.9"),
    ("pieces-v1", "192.0.2.9"),
    ("pieces-v2", "192.0.2.9"),
];
const WITHOUT_ADDRESS: [&str; 3] = ["v1-unknown", "v2-local", "v2-unix"];
const INVALID: [&str; 12] = [
    "none", "garbage", "v1-long", "v1-no-address", "v1-other-family", "v1-no-port", "v1-incomplete",
    "v1-binary", "v2-version", "v2-command", "v2-short", "v2-empty",
];

/// The services of a step and their ports.
const SERVICES: [(&str, &str, &str); 4] = [
    ("xmpp", "15222", "c2s"),
    ("xmpps", "15223", "c2s_direct_tls"),
    ("http", "15280", "http"),
    ("https", "15281", "https"),
];

/// Connects as a proxy that has these names on the network. Returns a line for each step.
fn connect(network: &Network, names: &[&str], steps: &[String]) -> Vec<String> {
    let mut recipe = Recipe::new(CLIENT)
        .on(network, names)
        .file("/proxied.py", include_bytes!("../client/proxied.py"))
        .command(["python3", "/proxied.py", "server", "chat.example"]);
    for step in steps {
        recipe = recipe.word(step);
    }
    let answer = recipe.run();
    assert_eq!(answer.status, 0, "{}", answer.all());
    let lines: Vec<String> = answer.stdout.lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), steps.len(), "{answer:?}");
    lines
}

/// A server on both images, and on both backends of the network with `TEST_ALL`.
#[track_caller]
fn on_each(test: impl Fn(&str, Recipe, &Network)) {
    require(CLIENT);
    let backends: &[&str] = if is_all_wanted() { &["epoll", "event"] } else { &["epoll"] };
    for (image, backend) in
        [TRIXIE, BOOKWORM].iter().flat_map(|image| backends.iter().map(move |b| (image, b)))
    {
        require(image);
        let network = Network::new();
        let recipe = Recipe::new(image)
            .on(&network, &["server"])
            .env("PROSODY_DOMAIN", "chat.example")
            .env("PROSODY_NETWORK_BACKEND", backend)
            .env("PROSODY_S2S_DIRECT_TLS_PORTS", "5270")
            .env("PROSODY_TRUSTED_PROXIES", "proxy")
            .env("PROSODY_PROXY_PROTOCOL_PORTS_FILE", "/ports")
            .file("/ports", PORTS);
        test(&format!("{image}, {backend}"), recipe, &network);
    }
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn clients_have_the_address_that_a_proxy_announces() {
    on_each(|what, recipe, network| {
        let mut seen = Observations::default();
        // The proxy is not there yet.
        let server = recipe.serve();
        let steps = |headers: &[&str]| -> Vec<String> {
            let of_service = |(service, port, _): &(&str, &str, &str)| {
                headers.iter().map(|header| format!("{service} {port} {header}")).collect::<Vec<_>>()
            };
            SERVICES.iter().flat_map(of_service).collect()
        };
        let with_address = ADDRESSES.map(|(header, _)| header);
        let valid = [&with_address[..], &WITHOUT_ADDRESS].concat();
        for line in connect(network, &["proxy"], &steps(&valid)) {
            seen.that(what, line.contains("\"answer\""), &line);
            let has_tls = line.starts_with("xmpps") || line.starts_with("https");
            seen.equal(what, line.contains(r#""certificate": "chat.example""#), has_tls);
        }
        let logs = server.logs();
        for (_, _, service) in SERVICES {
            let passed_on = |address: &str| {
                let line = format!("Client {address}, port 4711, of the proxy ");
                let end = format!(" is passed on to {service}");
                logs.lines().filter(|log| log.contains(&line) && log.ends_with(&end)).count()
            };
            for address in ["192.0.2.9", "192.0.2.10", "2001:db8::9"] {
                let expected = ADDRESSES.iter().filter(|(_, announced)| *announced == address).count();
                seen.equal(&format!("{what}: {address} at {service}"), passed_on(address), expected);
            }
        }
        for line in connect(network, &["proxy"], &steps(&INVALID)) {
            seen.that(what, line.contains("\"closed\""), &line);
        }
        // It takes the address that the proxy had until now.
        let _other = Recipe::new(CLIENT).on(network, &[]).command(["sleep", "1000"]).start();
        for line in connect(network, &["stranger"], &steps(&["v1", "v2", "none"])) {
            seen.that(what, line.contains("\"closed\""), &line);
        }
        let passed_on = logs.matches(" is passed on to ").count();
        let logs = server.logs();
        seen.equal(what, logs.matches(" without a PROXY header").count(), INVALID.len() * SERVICES.len());
        seen.equal(what, logs.matches(", which is no trusted proxy").count(), 3 * SERVICES.len());
        seen.equal(what, logs.matches(" is passed on to ").count(), passed_on);
        seen.that(what, !logs.contains("traceback"), &logs);
        seen.equal(what, server.exec(["prosody-entrypoint", "healthcheck"]).status, 0);
        seen.report();
    });
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_reload_changes_the_ports_of_proxies() {
    on_each(|what, recipe, network| {
        let server = recipe.file("/ports", "15222:c2s").serve();
        let steps = ["xmpp 15222 v1", "xmpps 15223 v2"].map(str::to_owned);
        let answered =
            || connect(network, &["proxy"], &steps).iter().map(|line| line.contains("\"answer\"")).collect();
        let answered: &dyn Fn() -> Vec<bool> = &answered;
        assert_eq!(answered(), [true, false], "{what}");
        for (ports, expected) in
            [("15223:c2s_direct_tls", [false, true]), ("none", [false; 2]), (PORTS, [true; 2])]
        {
            server.put("/ports", ports.as_bytes());
            server.signal("HUP");
            eventually(&format!("{what}: {ports}"), PATIENCE, || match answered() {
                seen if seen == expected => Ok(()),
                seen => Err(format!("{seen:?}\n{}", server.logs())),
            });
        }
    });
}

/// The configurations that proxies of Debian read: of a page's blocks, and of the examples.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn proxies_read_the_documented_configurations() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/proxies.md")).unwrap();
    let block = |language: &str| {
        let (_, rest) = page.split_once(&format!("\n```{language}\n")).unwrap();
        rest.split_once("\n```").unwrap().0.to_owned() + "\n"
    };
    let example = |path: &str| fs::read_to_string(root.join("examples").join(path)).unwrap();
    let traefik = "import sys, yaml\n\
                   tcp = yaml.safe_load(open(sys.argv[1]))['tcp']\n\
                   assert set(tcp) == {'routers', 'services', 'serversTransports'}, tcp\n\
                   for router in tcp['routers'].values():\n    \
                       assert router['service'] in tcp['services'] and router['tls']['passthrough'], router\n\
                   for service in tcp['services'].values():\n    \
                       assert service['loadBalancer']['serversTransport'] in tcp['serversTransports'], service\n";
    let script = "nginx -t -e stderr -c /0 && nginx -t -e stderr -c /1 && haproxy -c -f /2 && haproxy -c -f /3 && \
                  caddy validate --adapter caddyfile --config /4 && python3 -c \"$0\" /5 && \
                  mkdir /run/proxy && touch /run/proxy/shards.map && \
                  haproxy -c -f /6 && haproxy -c -f /7 && haproxy -c -f /8";
    let files = [
        block("nginx"),
        example("nginx/proxy/nginx.conf"),
        block("haproxy"),
        example("haproxy/proxy/haproxy.cfg"),
        block("caddyfile"),
        block("yaml"),
        example("compose-shards/proxy/haproxy.cfg"),
        example("swarm-shards/haproxy.cfg"),
        example("kubernetes-shards/haproxy.cfg"),
    ];
    let mut recipe = Recipe::new("prosody-entrypoint-test-proxies:latest");
    for (number, content) in files.iter().enumerate() {
        recipe = recipe.file(&format!("/{number}"), content);
    }
    let answer = recipe.command(["bash", "-c", script, traefik]).run();
    assert_eq!(answer.status, 0, "{}", answer.all());
}
