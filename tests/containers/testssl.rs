//! TLS of the open ports, judged by testssl.sh. A scan takes minutes, so this is a part of `make test-all` alone.

use std::fmt::Write;

use serde::Deserialize;

use crate::certificates::Authority;
use crate::docker::{BOOKWORM, Network, Recipe, TRIXIE, is_all_wanted};

/// testssl.sh on Debian trixie.
const TESTSSL: &str = "prosody-entrypoint-test-testssl:latest";
const DOMAIN: &str = "chat.example";

/// The ports that a server opens by itself, and the options to scan them with.
const PORTS: [(&str, &str); 4] = [
    ("5222", "--starttls xmpp --xmpphost chat.example"),
    ("5223", ""),
    ("5269", "--starttls xmpp-server --xmpphost chat.example"),
    ("5281", "--headers"),
];

/// Findings above low that are accepted.
const EXCEPT: [(&str, &str); 2] = [
    ("cert_revocation", "the authority of the tests has no address for questions about revocation"),
    ("security_headers", "the page at / has neither scripts nor forms"),
];

#[derive(Deserialize)]
struct Finding {
    id: String,
    severity: String,
    finding: String,
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn nothing_above_low_is_found_with_prosody_13() {
    check(TRIXIE);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn nothing_above_low_is_found_with_prosody_0_12() {
    check(BOOKWORM);
}

/// Prints a summary, and fails with what is worse than low. A warning is about a check that could not be made.
fn check(image: &str) {
    if !is_all_wanted() {
        return;
    }
    let authority = Authority::new();
    let pair = authority.issue(&[DOMAIN, &format!("*.{DOMAIN}")]);
    let network = Network::new();
    let _server = Recipe::new(image)
        .on(&network, &[DOMAIN])
        .env("PROSODY_DOMAIN", DOMAIN)
        .file("/etc/prosody/certs/chat.example.crt", &pair.certificate)
        .file("/etc/prosody/certs/chat.example.key", &pair.key)
        .serve();
    let mut bad = String::new();
    for (port, options) in PORTS {
        let script = format!(
            "testssl --quiet --color 0 --warnings batch --disable-rating --jsonfile /findings --add-ca /authority.pem \
             --protocols --std --fs --server-preference --server-defaults --vulnerable {options} {DOMAIN}:{port} >&2; \
             cat /findings"
        );
        let scan = Recipe::new(TESTSSL)
            .on(&network, &[])
            .file("/authority.pem", authority.pem())
            .command(["sh", "-c", &script])
            .run();
        let findings: Vec<Finding> =
            serde_json::from_str(&scan.stdout).unwrap_or_else(|error| panic!("{error}: {scan:?}"));
        let is = |id: &str, severity: &str| {
            findings.iter().any(|finding| finding.id == id && finding.severity == severity)
        };
        for expected in ["TLS1_2", "TLS1_3", "FS", "cert_chain_of_trust", "LUCKY13"] {
            assert!(is(expected, "OK"), "{image}, {port}: {expected}:\n{}", scan.all());
        }
        // Another severity means that the scan was interrupted.
        assert!(is("scanTime", "INFO"), "{image}, {port}:\n{}", scan.all());
        let count = |severity: &str| findings.iter().filter(|finding| finding.severity == severity).count();
        println!("{image}, {port}: {} ok, {} for information", count("OK"), count("INFO"));
        for Finding { id, severity, finding } in &findings {
            let line = format!("{image}, {port}: {severity} {id}: {finding}");
            match severity.as_str() {
                "OK" | "INFO" | "DEBUG" => {}
                "LOW" | "WARN" => println!("{line}"),
                _ => match EXCEPT.iter().find(|(excepted, _)| excepted == id) {
                    Some((_, why)) => println!("{line} ({why})"),
                    None => writeln!(bad, "{line}").unwrap(),
                },
            }
        }
    }
    assert!(bad.is_empty(), "{bad}");
}
