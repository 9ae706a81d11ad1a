//! What strangers get from the default server: the rows of docs/security.md, on both versions.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::docker::{BOOKWORM, Container, Dialogue, Network, Observations, Recipe, TRIXIE, require};

const DOMAIN: &str = "chat.example";

/// Above the names of other servers.
const STRANGER: &str = "stranger.example";

/// Where OpenSSL looks for [`AUTHORITY`]: the name is the hash of its subject.
const ANCHOR: &str = "/etc/ssl/certs/774b5dcc.0";
const AUTHORITY: &str = "Authority of the tests";

/// The rows that need a look into the server's container. The others are in `tests/client/stranger.py`.
const ROWS: [(&str, Check); 2] =
    [("no_other_port", no_other_port), ("no_memory_of_closed_streams", no_memory_of_closed_streams)];

type Check = fn(&mut Setup, &mut Observations);

/// A server with one setting and alice, a quiet one with the settings that rows of the page name, and a client
/// (tests/client/stranger.py).
struct Setup {
    client: Dialogue,
    server: Container,
    _quiet: Container,
    _network: Network,
}

impl Setup {
    #[track_caller]
    fn new(image: &str) -> Self {
        require(image);
        let network = Network::new();
        let (anchor, identities) = identities();
        let recipe = |names: &[&str]| {
            Recipe::new(image).on(&network, names).env("PROSODY_DOMAIN", DOMAIN).file(ANCHOR, &anchor)
        };
        let quiet = recipe(&["quiet"]).env("PROSODY_MODULES_DISABLED", "version").start();
        let server =
            recipe(&[DOMAIN, "conference.chat.example", "upload.chat.example", "proxy.chat.example"]).serve();
        server.register("alice", DOMAIN, "secret-a").ok();
        quiet.wait_until_it_serves();
        let client = Dialogue::of_client(&network.name, "stranger.py");
        let mut setup = Setup { client, server, _quiet: quiet, _network: network };
        setup.ask(&format!("certificates {identities}"));
        setup
    }

    #[track_caller]
    fn ask(&mut self, request: &str) -> String {
        let answer = self.client.request(request).and_then(|()| self.client.answer());
        answer.unwrap_or_else(|reason| panic!("{request}: {reason}\n{}", self.server.logs()))
    }

    /// The memory of Prosody, in kB.
    #[track_caller]
    fn memory(&self) -> usize {
        let status = self.server.root(&format!("cat /proc/{}/status", self.server.server_pid())).ok();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim_end_matches("kB").trim().parse().unwrap()
    }
}

/// An authority that the server trusts, and for the client: a certificate of it for other servers with its key, and one
/// that nobody has signed.
fn identities() -> (String, String) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, AUTHORITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([format!("*.{STRANGER}")]).unwrap();
    let signed = params.signed_by(&key, &authority).unwrap();
    let unsigned = rcgen::generate_simple_self_signed([format!("unsigned.{STRANGER}")]).unwrap();
    let encode = |certificate: String, key: String| BASE64.encode(certificate + &key);
    let identities = [
        encode(signed.pem(), key.serialize_pem()),
        encode(unsigned.cert.pem(), unsigned.signing_key.serialize_pem()),
    ];
    (authority.pem(), identities.join(" "))
}

/// Every row, and each failure.
fn rows_of(image: &str) {
    let mut setup = Setup::new(image);
    let mut seen = Observations::default();
    // First, because other rows leave memory that is free.
    for (_, check) in ROWS {
        check(&mut setup, &mut seen);
    }
    let found: BTreeMap<String, Option<String>> = serde_json::from_str(&setup.ask("run")).unwrap();
    for (row, failure) in found {
        seen.equal(&format!("{image}: {row}"), failure, None);
    }
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn what_strangers_get_from_13_0() {
    rows_of(TRIXIE);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn what_strangers_get_from_0_12() {
    rows_of(BOOKWORM);
}

/// What listens for other machines is what the image exposes, without the port of external components: there is none.
fn no_other_port(setup: &mut Setup, seen: &mut Observations) {
    let sockets = setup.server.root("cat /proc/net/tcp /proc/net/tcp6").ok();
    let ports: BTreeSet<u16> = sockets.lines().filter_map(listening_port).collect();
    seen.equal("open ports", ports, BTreeSet::from([5000, 5222, 5223, 5269, 5280, 5281]));
}

/// The port of a line of /proc/net/tcp (proc(5)) whose socket listens on other addresses than loopback's.
fn listening_port(line: &str) -> Option<u16> {
    let mut words = line.split_whitespace().skip(1);
    let (address, port) = words.next()?.split_once(':')?;
    let is_loopback = address.len() == 8 && address.ends_with("7F") || address.ends_with("01000000");
    let listens = words.nth(1) == Some("0A");
    (listens && !is_loopback).then(|| u16::from_str_radix(port, 16).unwrap())
}

/// CVE-2026-43506: closed streams of clients were kept for five minutes, each with some 3 kB.
fn no_memory_of_closed_streams(setup: &mut Setup, seen: &mut Observations) {
    setup.ask("open 50");
    let before = setup.memory();
    setup.ask("open 300");
    let after = setup.memory();
    seen.that("memory of 300 closed streams", after < before + 400, [before, after]);
}

/// The page's table and the tests are the same rows.
#[test]
fn every_row_of_the_page_is_tested() {
    let page = include_str!("../../docs/security.md");
    let rows = page.lines().filter(|line| line.starts_with("| ")).map(|line| line.trim_end_matches(" |"));
    let named: Vec<&str> =
        rows.filter_map(|line| line.rsplit(" | ").next()?.strip_prefix('`')?.strip_suffix('`')).collect();
    let client = include_str!("../client/stranger.py");
    let of_client = client.split("@row\ndef ").skip(1).filter_map(|text| text.split('(').next());
    let tested: BTreeSet<&str> = of_client.chain(ROWS.map(|(name, _)| name)).collect();
    assert_eq!(named.iter().copied().collect::<BTreeSet<_>>(), tested);
    assert_eq!(named.len(), tested.len(), "a test with two rows: {named:?}");
}
