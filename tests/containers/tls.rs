//! TLS as peers see it: the groups for the key exchange, and the authorities that are trusted.

use crate::certificates::Authority;
use crate::docker::{
    BOOKWORM, Container, Network, Observations, PATIENCE, Recipe, TRIXIE, client, eventually, require,
};

const DIRECTORY: &str = "prosody-entrypoint-test-directory:latest";
const POSTGRESQL: &str = "prosody-entrypoint-test-postgresql:17";

/// Where a server has the authority of the tests.
const AUTHORITY: &str = "/etc/prosody/authority.pem";

/// The group that withstands a quantum computer.
const HYBRID: &str = "X25519MLKEM768";

/// Each port, with options of `openssl s_client`.
const PORTS: [(u16, &str); 4] = [
    (5222, "-starttls xmpp -xmpphost chat.example"),
    (5223, "-servername chat.example"),
    (5269, "-starttls xmpp-server -xmpphost chat.example"),
    (5281, "-servername chat.example"),
];

/// The ports where a client with these groups can connect.
fn open_to(server: &Container, groups: &str) -> Vec<u16> {
    let is_open = |(port, options): &(u16, &str)| {
        let command = format!(
            "openssl s_client -brief -groups {groups} -connect 127.0.0.1:{port} {options} </dev/null"
        );
        server.exec(["sh", "-c", &command]).all().contains("CONNECTION ESTABLISHED")
    };
    PORTS.into_iter().filter(is_open).map(|(port, _)| port).collect()
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn the_key_exchange_has_the_groups_of_the_setting() {
    let mut seen = Observations::default();
    let (all, none) = (PORTS.map(|(port, _)| port).to_vec(), Vec::<u16>::new());
    for image in [TRIXIE, BOOKWORM] {
        let recipe = || Recipe::new(image).env("PROSODY_DOMAIN", "chat.example");
        let server = recipe().serve();
        // OpenSSL 3.0 does not have it: `openssl` in the container refuses to offer it.
        let hybrid = if image == TRIXIE { &all } else { &none };
        seen.equal(&format!("{image}: hybrid"), &open_to(&server, HYBRID), hybrid);
        seen.equal(&format!("{image}: X25519"), &open_to(&server, "X25519"), &all);
        seen.equal(&format!("{image}: P-256"), &open_to(&server, "P-256"), &all);
        seen.equal(&format!("{image}: P-521"), &open_to(&server, "P-521"), &none);
        let server = recipe().env("PROSODY_TLS_GROUPS", "p-521").serve();
        seen.equal(&format!("{image}: P-521, set"), &open_to(&server, "P-521"), &all);
        seen.equal(&format!("{image}: X25519 and others, not set"), &open_to(&server, "X25519:P-256"), &none);
    }
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn an_authority_of_its_own_is_trusted_for_other_servers() {
    let authority = Authority::new();
    for image in [TRIXIE, BOOKWORM] {
        let network = Network::new();
        let server = |domain: &str, authorities: &str| {
            let pair = authority.issue(&[domain]);
            Recipe::new(image)
                .on(&network, &[domain])
                .env("PROSODY_VIRTUAL_HOSTS", domain)
                .env("PROSODY_CERTIFICATES", "/etc/prosody/pair.pem")
                .env("PROSODY_CA_CERTIFICATES_FILE", "/etc/prosody/authorities")
                .file("/etc/prosody/pair.pem", format!("{}{}", pair.full_chain(), pair.key))
                .file("/etc/prosody/authorities", authorities)
                .file(AUTHORITY, authority.pem())
                .serve()
        };
        let (one, _two) = (server("one.example", "none"), server("two.example", AUTHORITY));
        let ping = || one.exec(["prosodyctl", "shell", "xmpp:ping('one.example', 'two.example')"]).all();
        let answer = ping();
        assert!(!answer.contains("pong from"), "{image}, without the authority: {answer}");

        // A reload is enough.
        one.put("/etc/prosody/authorities", AUTHORITY.as_bytes());
        one.signal("HUP");
        eventually("the authority is trusted", PATIENCE, || {
            let answer = ping();
            if answer.contains("pong from") {
                Ok(())
            } else {
                Err(format!("{image}: {answer}\n{}", one.logs()))
            }
        });
    }
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn an_authority_of_its_own_is_trusted_for_a_directory() {
    require(DIRECTORY);
    let (authority, network) = (Authority::new(), Network::new());
    let pair = authority.issue(&["directory.example"]);
    let _directory = Recipe::new(DIRECTORY)
        .on(&network, &["directory.example"])
        .file("/srv/server.pem", pair.full_chain())
        .file("/srv/server.key", &pair.key)
        .start();
    let mut seen = Observations::default();
    for image in [TRIXIE, BOOKWORM] {
        for (what, trusted, expected) in
            [("the directory's", authority.pem(), true), ("another", Authority::new().pem(), false)]
        {
            let server = Recipe::new(image)
                .on(&network, &[])
                .env("PROSODY_VIRTUAL_HOSTS", "localhost")
                .env("PROSODY_AUTHENTICATION", "ldap")
                .env("PROSODY_LDAP_SERVER", "directory.example")
                .env("PROSODY_LDAP_BASE", "dc=example")
                .env("PROSODY_LDAP_TLS", "true")
                .env("PROSODY_CA_CERTIFICATES", AUTHORITY)
                .file(AUTHORITY, trusted)
                .serve();
            let beside = format!("container:{}", server.name);
            let answer = client(&beside, "localhost", ["alice:secret-a", "alice:secret-a"], &["login"]);
            let logged_in = answer.status == 0;
            seen.that(&format!("{image}, {what}"), logged_in == expected, answer.all() + &server.logs());
        }
    }
    seen.report();
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn an_authority_of_its_own_is_trusted_for_postgresql() {
    let (authority, network) = (Authority::new(), Network::new());
    let pair = authority.issue(&["database.example"]);
    // The key must be the server's own.
    let start = "umask 077; cp /srv/server.key /tmp/server.key; exec start-postgresql -c fsync=off -c ssl=on \
                 -c ssl_cert_file=/srv/server.pem -c ssl_key_file=/tmp/server.key";
    let _database = Recipe::new(POSTGRESQL)
        .on(&network, &["database.example"])
        .env("POSTGRES_PASSWORD_FILE", "/srv/password")
        .with(["--entrypoint", "/bin/sh"])
        .command(["-c", start])
        .file("/srv/password", "secret-p")
        .file("/srv/server.pem", pair.full_chain())
        .file("/srv/server.key", &pair.key)
        .start();
    for image in [TRIXIE, BOOKWORM] {
        let server = |authority: &Authority| {
            Recipe::new(image)
                .on(&network, &[])
                .env("PROSODY_DOMAIN", "chat.example")
                .env("PROSODY_DATABASE_URL", "postgresql://prosody:secret-p@database.example/prosody")
                .env("PGSSLMODE", "verify-full")
                .env("PROSODY_CA_CERTIFICATES", AUTHORITY)
                .file(AUTHORITY, authority.pem())
        };
        server(&authority).serve();
        let answer = server(&Authority::new()).run();
        assert_eq!(answer.status, 78, "{image}: {}", answer.all());
    }
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_certificate_for_servers_alone_gets_a_remark() {
    let pair = Authority::new().issue_for_servers("chat.example");
    let recipe = Recipe::new(TRIXIE)
        .env("PROSODY_VIRTUAL_HOSTS", "chat.example")
        .env("PROSODY_CERTIFICATES", "/etc/prosody/pair.pem")
        .file("/etc/prosody/pair.pem", format!("{}{}", pair.full_chain(), pair.key))
        .command(["certificates"]);
    let answer = recipe.run().ok();
    assert!(answer.contains("has no `clientAuth`: old servers may refuse"), "{answer}");
}
