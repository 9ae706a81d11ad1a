use std::slice;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, DnType, KeyPair};
use time::OffsetDateTime;

use super::*;
use crate::settings::catalogue::Field;

fn host(name: &str, module: Option<&str>, options: &[(&str, Value)]) -> Host {
    Host {
        name: name.to_owned(),
        module: module.map(str::to_owned),
        options: options_of(options),
        names_certificate: false,
        field: Field::domain,
    }
}

fn options_of(options: &[(&str, Value)]) -> Options {
    options.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

fn list(names: &[&str]) -> Value {
    names.iter().map(|name| Value::from(*name)).collect()
}

fn served(name: &str, origin: CertificateOrigin) -> Served {
    Served { name: name.to_owned(), is_host: true, origin, unused: Vec::new() }
}

/// A certificate by this organisation, and the digest of its key.
fn found(organisation: &str) -> (CertificateOrigin, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationName, organisation);
    let pem = params.self_signed(&key).unwrap().pem();
    let pair = Pair::example("a.example", OffsetDateTime::now_utc(), &pem);
    let digest = pair.leaf().unwrap().key_digest();
    (CertificateOrigin::Found(pair), digest)
}

/// The zone of these hosts, without certificates unless there are some.
fn zone(hosts: &[Host], components: &[Host], options: &[(&str, Value)], served: &[Served]) -> Zone {
    records(&Configuration {
        hosts: &ServedHosts { virtual_hosts: hosts.to_vec(), components: components.to_vec() },
        options: &options_of(options),
        network_hostname: None,
        served,
        custom_files: &CustomFiles::default(),
    })
}

/// The records of one type, as `NAME DATA`.
fn all(zone: &Zone, kind: &str) -> Vec<String> {
    let records = zone.groups.iter().flat_map(|group| &group.records);
    let records = records.filter(|record| record.kind == kind);
    records.map(|record| format!("{} {}", record.name, record.data)).collect()
}

fn has_note(zone: &Zone, text: &str) -> bool {
    zone.notes.iter().any(|note| note.contains(text))
}

const ADDRESS: (&str, &[&str]) = ("external_addresses", &["192.0.2.1", "2001:db8::1", "no address"]);

fn address() -> (&'static str, Value) {
    (ADDRESS.0, list(ADDRESS.1))
}

#[test]
fn services_have_records_on_their_ports() {
    let ports = |ports: &[i64]| Value::List(ports.iter().map(|port| Value::Integer(*port)).collect());
    let none = || ports(&[]);
    let a = [host("a.example", None, &[])];
    for (options, expected) in [
        (vec![], vec!["_xmpp-client 0 5 5222 a", "_xmpp-server 0 5 5269 a"]),
        (
            vec![("c2s_direct_tls_ports", ports(&[5223, 443])), ("s2s_direct_tls_ports", ports(&[5270]))],
            vec![
                "_xmpp-client 0 5 5222 a",
                "_xmpps-client 0 5 5223 a",
                "_xmpps-client 0 5 443 a",
                "_xmpp-server 0 5 5269 a",
                "_xmpps-server 0 5 5270 a",
            ],
        ),
        // Others must not try the default ports.
        (
            vec![("c2s_ports", none()), ("s2s_ports", none()), ("c2s_direct_tls_ports", ports(&[5223]))],
            vec!["_xmpp-client 0 0 0 .", "_xmpps-client 0 5 5223 a", "_xmpp-server 0 0 0 ."],
        ),
        (vec![("modules_disabled", list(&["s2s"]))], vec!["_xmpp-client 0 5 5222 a", "_xmpp-server 0 0 0 ."]),
        // A proxy has the usual ports.
        (
            vec![
                ("c2s_ports", none()),
                ("proxy_port_mappings", Value::table([("15222", "c2s"), ("15223", "c2s_direct_tls")])),
            ],
            vec!["_xmpp-client 0 5 5222 a", "_xmpps-client 0 5 5223 a", "_xmpp-server 0 5 5269 a"],
        ),
        (
            vec![
                (ENABLED, list(&["net_multiplex"])),
                ("ports", ports(&[5222, 80])),
                ("ssl_ports", ports(&[443])),
            ],
            vec![
                "_xmpp-client 0 5 5222 a",
                "_xmpp-client 0 5 80 a",
                "_xmpps-client 0 5 443 a",
                "_xmpp-server 0 5 5269 a",
                "_xmpp-server 0 5 5222 a",
                "_xmpp-server 0 5 80 a",
                "_xmpps-server 0 5 443 a",
            ],
        ),
    ] {
        let found = all(&zone(&a, &[], &options, &[]), "SRV");
        let short = |record: &String| record.replace("._tcp.a.example.", "").replace(" a.example.", " a");
        assert_eq!(found.iter().map(short).collect::<Vec<_>>(), expected, "{options:?}");
    }
}

#[test]
fn components_point_to_the_virtual_host_above_and_have_no_clients() {
    let hosts = [host("a.example", None, &[]), host("b.a.example", None, &[])];
    let components = [
        host("rooms.b.a.example", Some("muc"), &[]),
        host("lone.test", None, &[]),
        host("x.lone.test", None, &[]),
        host("inside.a.example", Some("muc"), &[("modules_disabled", list(&["s2s"]))]),
    ];
    let zone = zone(&hosts, &components, &[address()], &[]);
    let of_servers: Vec<String> =
        all(&zone, "SRV").into_iter().filter(|record| !record.contains("_xmpp-client")).collect();
    assert_eq!(
        of_servers,
        [
            "_xmpp-server._tcp.a.example. 0 5 5269 a.example.",
            "_xmpp-server._tcp.inside.a.example. 0 0 0 .",
            "_xmpp-server._tcp.b.a.example. 0 5 5269 b.a.example.",
            "_xmpp-server._tcp.rooms.b.a.example. 0 5 5269 b.a.example.",
            "_xmpp-server._tcp.lone.test. 0 5 5269 lone.test.",
            "_xmpp-server._tcp.x.lone.test. 0 5 5269 x.lone.test.",
        ]
    );
    assert_eq!(all(&zone, "SRV").len(), of_servers.len() + hosts.len());
    let names = ["a.example.", "b.a.example.", "lone.test.", "x.lone.test."];
    assert_eq!(all(&zone, "A"), names.map(|name| format!("{name} 192.0.2.1")));
    assert_eq!(all(&zone, "AAAA"), names.map(|name| format!("{name} 2001:db8::1")));
    let groups: Vec<&str> = zone.groups.iter().map(|group| group.name.as_str()).collect();
    assert_eq!(groups, ["a.example", "b.a.example", "lone.test", "x.lone.test"]);
}

#[test]
fn one_name_of_all_services_is_every_target() {
    let hosts = ServedHosts {
        virtual_hosts: vec![host("a.example", None, &[]), host("jörg.example", None, &[])],
        components: vec![host("proxy.a.example", Some("proxy65"), &[])],
    };
    let zone = records(&Configuration {
        hosts: &hosts,
        options: &options_of(&[address(), ("proxy65_address", "net.example".into())]),
        network_hostname: Some("net.example".to_owned()),
        served: &[],
        custom_files: &CustomFiles::default(),
    });
    let records = all(&zone, "SRV");
    assert_eq!(records.len(), 5);
    assert!(records.iter().all(|record| record.ends_with(" net.example.")), "{records:?}");
    assert!(records[3].starts_with("_xmpp-client._tcp.xn--jrg-sna.example."), "{records:?}");
    assert_eq!(all(&zone, "A"), ["net.example. 192.0.2.1"]);
}

#[test]
fn names_of_http_and_of_the_proxy_have_addresses() {
    let hosts = [
        host("a.example", None, &[]),
        host("b.example", None, &[("http_external_url", Value::from("https://web.example/x").hidden())]),
        host("c.example", None, &[("http_host", "bücher.example".into())]),
        host("d.example", None, &[("modules_disabled", list(&["bosh"])), ("http_host", "no.example".into())]),
    ];
    let components = [
        host("proxy.a.example", Some("proxy65"), &[]),
        host("proxy.b.example", Some("proxy65"), &[("proxy65_address", "192.0.2.7".into())]),
        host("rooms.a.example", Some("muc"), &[]),
        host("files.a.example", Some("http_file_share"), &[]),
    ];
    let zone = zone(&hosts, &components, &[address(), (ENABLED, list(&["bosh"]))], &[]);
    let names: Vec<String> = all(&zone, "A").iter().map(|record| record.replace(". 192.0.2.1", "")).collect();
    assert_eq!(
        names,
        [
            "a.example", "proxy.a.example", "files.a.example", "b.example", "web.example", "c.example",
            "xn--bcher-kva.example", "d.example"
        ]
    );
}

#[test]
fn addresses_that_are_off_or_not_known_have_no_records() {
    let a = [host("a.example", None, &[])];
    let only_ipv4 = zone(&a, &[], &[address(), ("use_ipv6", false.into())], &[]);
    assert_eq!((all(&only_ipv4, "A").len(), all(&only_ipv4, "AAAA").len()), (1, 0));
    assert_eq!((only_ipv4.has_addresses, only_ipv4.uses), ([true, false], [true, false]));
    assert!(has_note(&only_ipv4, "a family that is off"));
    let none = zone(&a, &[], &[], &[]);
    assert_eq!(none.has_addresses, [false, false]);
    assert_eq!(none.groups[0].without_addresses, ["a.example"]);
    assert!(has_note(&none, "PROSODY_EXTERNAL_ADDRESSES"));
}

#[test]
fn each_key_has_a_record_on_each_port_of_its_target() {
    let hosts = [host("a.example", None, &[]), host("b.example", None, &[])];
    let components = [host("rooms.a.example", Some("muc"), &[])];
    let (of_a, key_of_a) = found("Let's Encrypt");
    let (of_rooms, key_of_rooms) = found("Another");
    let all_served = [
        served("a.example", of_a.clone()),
        served("b.example", CertificateOrigin::SelfSigned("/b.crt".into())),
        served("rooms.a.example", of_rooms),
    ];
    let shown = zone(&hosts, &components, &[], &all_served);
    let record = |port, key: &str| format!("_{port}._tcp.a.example. 3 1 1 {key}");
    let expected = [record(5222, &key_of_a), record(5269, &key_of_a), record(5269, &key_of_rooms)];
    assert_eq!(all(&shown, "TLSA"), expected);
    assert!(has_note(&shown, "No TLSA records for b.example: the self-signed"), "{:?}", shown.notes);
    assert!(has_note(&shown, "A renewed certificate with a new key needs its record 3600 seconds before"));

    // Clients would refuse a certificate that has no record beside others.
    let all_served = [served("a.example", of_a), served("rooms.a.example", CertificateOrigin::FromOptions)];
    let shown = zone(&hosts, &components, &[], &all_served);
    assert_eq!(all(&shown, "TLSA"), [record(5222, &key_of_a)]);
    assert!(has_note(&shown, "No TLSA records for rooms.a.example: options name"), "{:?}", shown.notes);
    assert!(has_note(&shown, "No TLSA records for b.example: there is no certificate"), "{:?}", shown.notes);
}

#[test]
fn more_keys_than_a_name_can_have_are_left_out() {
    let hosts: Vec<Host> =
        (0..=MOST_TLSA).map(|number| host(&format!("h{number}.example"), None, &[])).collect();
    let all_served: Vec<Served> = hosts.iter().map(|host| served(&host.name, found("X").0)).collect();
    let keys = |hosts: &[Host]| {
        records(&Configuration {
            hosts: &ServedHosts { virtual_hosts: hosts.to_vec(), components: Vec::new() },
            options: &Options::new(),
            network_hostname: Some("net.example".to_owned()),
            served: &all_served,
            custom_files: &CustomFiles::default(),
        })
    };
    assert_eq!(all(&keys(&hosts[1..]), "TLSA").len(), 2 * MOST_TLSA);
    let too_many = keys(&hosts);
    assert_eq!(all(&too_many, "TLSA"), [""; 0]);
    assert!(has_note(&too_many, "_5222._tcp.net.example has no TLSA records: 101 certificates"));
}

#[test]
fn known_authorities_have_a_record_where_they_change() {
    let hosts = [host("a.example", None, &[]), host("b.example", None, &[])];
    let components =
        ["same.a.example", "other.a.example", "none.a.example"].map(|name| host(name, Some("muc"), &[]));
    let all_served = [
        served("a.example", found("Let's Encrypt").0),
        served("b.example", found("(STAGING) Let's Encrypt").0),
        served("same.a.example", found("Let's Encrypt").0),
        served("other.a.example", found("ZeroSSL").0),
        // A name of HTTP without an address here.
        Served { is_host: false, ..served("web.a.example", found("DigiCert Inc").0) },
    ];
    let zone = zone(&hosts, &components, &[], &all_served);
    assert_eq!(
        all(&zone, "CAA"),
        ["a.example. 0 issue \"letsencrypt.org\"", "other.a.example. 0 issue \"sectigo.com\""]
    );
    assert!(has_note(&zone, "CAA"));
}

#[test]
fn web_clients_get_links_where_there_are_services() {
    let links = |options: &[(&str, Value)], of_host: &[(&str, Value)]| -> Vec<String> {
        let zone = zone(&[host("jörg.example", None, of_host)], &[], options, &[]);
        let meta = zone.groups.into_iter().flat_map(|group| group.host_meta);
        meta.flat_map(|meta| meta.links).map(|(_, url)| url).collect()
    };
    let both = (ENABLED, list(&["bosh", "websocket"]));
    let port = |port: i64| Value::List(vec![Value::Integer(port)]);
    let none = || Value::List(Vec::new());
    assert_eq!(links(&[], &[]), [""; 0]);
    assert_eq!(
        links(slice::from_ref(&both), &[]),
        ["https://xn--jrg-sna.example:5281/http-bind", "wss://xn--jrg-sna.example:5281/xmpp-websocket"]
    );
    assert_eq!(
        links(
            slice::from_ref(&both),
            &[("modules_disabled", list(&["bosh"])), ("http_host", "web.example".into())]
        ),
        ["wss://web.example:5281/xmpp-websocket"]
    );
    let url = ("http_external_url", Value::from("https://web.example:443/im/"));
    assert_eq!(
        links(&[both.clone(), url], &[("http_paths", Value::table([("bosh", "/$host/b/")]))]),
        ["https://web.example/im/jörg.example/b", "wss://web.example/im/xmpp-websocket"]
    );
    assert_eq!(
        links(&[both.clone(), ("https_ports", port(443))], &[]),
        ["https://xn--jrg-sna.example/http-bind", "wss://xn--jrg-sna.example/xmpp-websocket"]
    );
    let plain = [both.clone(), ("https_ports", none()), ("http_ports", port(8080))];
    assert_eq!(links(&plain, &[])[1], "ws://xn--jrg-sna.example:8080/xmpp-websocket");
    assert_eq!(links(&[both, ("https_ports", none()), ("http_ports", none())], &[]), [""; 0]);
}

#[test]
fn odd_names_are_left_out_with_a_note() {
    let long =
        format!("{}.example", ["x".repeat(60), "y".repeat(60), "z".repeat(60), "w".repeat(60)].join("."));
    assert!(long.len() <= LONGEST_NAME);
    let zone = zone(&[host(&long, None, &[]), host("localhost", None, &[])], &[], &[address()], &[]);
    assert_eq!(all(&zone, "SRV"), [""; 0]);
    assert_eq!(all(&zone, "A"), [format!("{long}. 192.0.2.1")]);
    assert!(has_note(&zone, "is too long for a name in DNS: there is no SRV record"));
    assert!(has_note(&zone, "There are no records for localhost"));
}

#[test]
fn hosts_of_custom_files_are_named() {
    use crate::facts::custom_files::CustomFile;
    let file = CustomFile::example("/etc/x.cfg.lua", "VirtualHost \"own.example\"\nc2s_ports = { 1 }\n");
    let files = CustomFiles { extra: vec![file], ..CustomFiles::default() };
    let notes = notes_about_files(&files);
    assert!(notes[0].contains("custom files: own.example"), "{notes:?}");
    assert!(notes[1].contains("/etc/x.cfg.lua"), "{notes:?}");
}

#[test]
fn ten_thousand_hosts_are_quick() {
    let name = |number| format!("h{number}.example");
    let hosts: Vec<Host> = (0..10_000).map(|number| host(&name(number), None, &[])).collect();
    let rooms = (0..10_000).map(|number| host(&format!("rooms.{}", name(number)), Some("muc"), &[]));
    let origin = found("Let's Encrypt").0;
    let all_served: Vec<Served> = hosts.iter().map(|host| served(&host.name, origin.clone())).collect();
    let begin = Instant::now();
    let options = [address(), (ENABLED, list(&["bosh", "websocket"]))];
    let zone = zone(&hosts, &rooms.collect::<Vec<_>>(), &options, &all_served);
    let text = super::super::zone::text(&zone);
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert_eq!(all(&zone, "SRV").len(), 30_000);
    assert_eq!(all(&zone, "TLSA").len(), 20_000);
    assert_eq!(text.lines().filter(|line| line.contains(" IN CAA ")).count(), 10_000);
}
