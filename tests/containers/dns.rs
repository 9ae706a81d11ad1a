//! The records of `dns` in a name server: Prosody's own check and clients find the server by them.

use crate::docker::{
    BOOKWORM, CLIENT, Container, NAMESERVER, Network, Observations, PATIENCE, Recipe, TRIXIE, eventually,
};

/// The host of the certificate `public.pem`, and one outside ASCII.
const DOMAINS: &str = "public.example münchen.example";

/// The name of `DOMAINS`' second host in DNS.
const ASCII: &str = "xn--mnchen-3ya.example";

/// No usual ports, so that a client needs the records. `5269` stays, which the records have too.
fn recipe(image: &str, network: &Network) -> Recipe {
    let certificate = include_bytes!("../golden/certificates/public.pem");
    Recipe::new(image)
        .env("PROSODY_DOMAIN", DOMAINS)
        .env("PROSODY_C2S_PORTS", "15222")
        .env("PROSODY_C2S_DIRECT_TLS_PORTS", "15223")
        .env("PROSODY_S2S_DIRECT_TLS_PORTS", "15270")
        .file("/etc/prosody/certs/public.pem", certificate)
        .on(network, &[])
}

/// A name server with these records.
#[track_caller]
fn nameserver(network: &Network, records: &str) -> Container {
    let server = Recipe::new(NAMESERVER).on(network, &[]).file("/etc/bind/records", records).start();
    eventually("the name server runs", PATIENCE, || {
        let log = server.logs();
        if log.lines().any(|line| line.ends_with(" running")) { Ok(()) } else { Err(log) }
    });
    server
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn the_zone_is_all_that_prosody_13_and_clients_need() {
    check_zone(TRIXIE);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn the_zone_is_all_that_prosody_0_12_and_clients_need() {
    check_zone(BOOKWORM);
}

/// Puts the records into a name server, and looks at the server by them.
#[track_caller]
fn check_zone(image: &str) {
    let mut seen = Observations::default();
    let network = Network::new();
    let server = recipe(image, &network).serve();
    let external = server.address();
    let ours = |nameserver: Option<&Container>| {
        let recipe = recipe(image, &network).env("PROSODY_EXTERNAL_ADDRESSES", &external);
        match nameserver {
            Some(nameserver) => recipe.with(["--dns", &nameserver.address()]),
            None => recipe,
        }
    };
    let zone = ours(None).command(["dns"]).run().ok();
    let bind = nameserver(&network, &zone);

    // Every line that is no comment is a record of the zone.
    let count = zone.lines().filter(|line| !line.is_empty() && !line.starts_with(';')).count();
    let check = ["named-checkzone", "-D", "-o", "-", "example", "/etc/bind/zone"];
    let loaded = bind.exec(check).ok();
    let records = loaded.lines().filter(|line| line.contains(".example.") && !line.contains("\tns.example."));
    let of_ours = records.filter(|line| !line.starts_with("ns.example.") && !line.starts_with("example."));
    seen.equal(&format!("records in the zone; {loaded}"), of_ours.count(), count);
    seen.that("the name in ASCII", zone.contains(&format!("_xmpp-client._tcp.{ASCII}. ")), &zone);

    let own = ours(Some(&bind)).command(["check", "dns"]).run();
    seen.equal(&format!("check dns: {own:?}"), own.status, 0);
    seen.that("check dns is content", !own.stdout.contains("looks like you need one"), &own);
    let checked = ours(Some(&bind)).command(["dns", "--check"]).run();
    seen.equal(&format!("dns --check: {checked:?}"), checked.status, 0);
    let validated = ours(Some(&bind)).command(["validate", "--dns"]).run();
    seen.equal(&format!("validate --dns: {validated:?}"), validated.status, 0);
    let json = ours(Some(&bind)).command(["dns", "--check", "--json"]).run();
    let object: serde_json::Value = serde_json::from_str(&json.stdout).unwrap_or_default();
    seen.equal(&format!("{json:?}"), object["check"]["passed"].as_bool(), Some(true));
    seen.equal("records beside the check", object["records"].as_array().map(Vec::len), Some(count));

    // DANE, as OpenSSL verifies it: the certificate is no known authority's.
    let tlsa = zone.lines().find_map(|line| {
        let data = line.strip_prefix("_15222._tcp.public.example. ")?;
        Some(data.split_once(" TLSA ")?.1.to_owned())
    });
    let tlsa = tlsa.unwrap_or_default();
    let verify = format!(
        "openssl s_client -starttls xmpp -xmpphost public.example -connect public.example:15222 \
         -dane_tlsa_domain public.example -dane_tlsa_rrdata '{tlsa}' -verify_return_error </dev/null"
    );
    let client = || Recipe::new(CLIENT).on(&network, &[]).with(["--dns", &bind.address()]);
    let verified = client().command(["sh", "-c", &verify]).run();
    let is_verified =
        verified.all().contains("Verification: OK") && verified.all().contains("DANE TLSA 3 1 1");
    seen.that(&format!("DANE with {tlsa}"), is_verified, &verified);

    server.register_accounts("public.example");
    for (kind, port) in [("starttls", "15222 TLS"), ("direct-tls", "15223 TLS")] {
        let answer = client()
            .file("/session.py", include_bytes!("../client/session.py"))
            .file("/by_domain.py", include_bytes!("../client/by_domain.py"))
            .command(["python3", "/by_domain.py", "alice@public.example", "secret-a", kind])
            .run();
        seen.that(&format!("a client finds {port}"), answer.stdout.starts_with(port), &answer);
    }

    for (what, is_missing) in [
        ("No _xmpps-client SRV record found for public.example", "_xmpps-client._tcp.public.example. "),
        // For Prosody itself, the others are no reason for 1.
        (
            "Host conference.public.example does not seem to resolve to this server",
            "_xmpp-server._tcp.conference.public.example. ",
        ),
        ("HTTP service upload.public.example has no A/AAAA record", "upload.public.example. "),
        ("Host public.example does not seem to resolve to this server", "public.example. "),
    ] {
        let rest: String = zone
            .lines()
            .filter(|line| !line.starts_with(is_missing))
            .map(|line| format!("{line}\n"))
            .collect();
        let bind = nameserver(&network, &rest);
        let answer = ours(Some(&bind)).command(["dns", "--check"]).run();
        seen.equal(&format!("without {is_missing:?}: {answer:?}"), answer.status, 1);
        let is_named = answer.stdout.contains(what) && answer.stderr.contains(what);
        seen.that(what, is_named, &answer);
    }
    seen.report();
}

/// What `dns` says beside a custom main file, and that its check works there too.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_custom_main_file_is_checked() {
    let network = Network::new();
    let main_file = "external_addresses = { \"192.0.2.1\" }\nc2s_direct_tls_ports = { 5223 }\nVirtualHost \"own.example\"\n";
    let custom = |bind: &Container| {
        Recipe::new(TRIXIE)
            .on(&network, &[])
            .with(["--dns", &bind.address()])
            .file("/etc/prosody/prosody.cfg.lua", main_file)
    };
    let bind = nameserver(&network, "own.example. 60 IN A 192.0.2.1\n");
    let answer = custom(&bind).command(["dns"]).run();
    assert_eq!((answer.status, answer.stdout.as_str()), (0, ""), "{answer:?}");
    assert!(answer.stderr.contains("which records it needs is not known"), "{answer:?}");
    let answer = custom(&bind).command(["dns", "--check"]).run();
    assert_eq!(answer.status, 1, "{answer:?}");
    assert!(answer.stdout.contains("No _xmpps-client SRV record found for own.example"), "{answer:?}");

    let records =
        "own.example. 60 IN A 192.0.2.1\n_xmpps-client._tcp.own.example. 60 IN SRV 0 5 5223 own.example.\n";
    let answer = custom(&nameserver(&network, records)).command(["dns", "--check"]).run();
    assert_eq!(answer.status, 0, "{answer:?}");
}
