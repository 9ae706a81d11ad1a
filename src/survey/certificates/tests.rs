//! Tests of layouts, bad input and the choice of certificates.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair, OtherNameValue,
    SanType,
};
use time::Duration;

use super::*;
use crate::tests::TestDir;

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

/// A CA with its chain.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate first, the root last.
    chain: Vec<String>,
}

/// A certificate as a CA issues it.
struct Issued {
    leaf: String,
    /// The intermediate certificates.
    chain: String,
    key: String,
}

impl Authority {
    fn root(name: &str) -> Authority {
        let (params, key) = (authority_params(name), KeyPair::generate().unwrap());
        let chain = vec![params.self_signed(&key).unwrap().pem()];
        Authority { issuer: Issuer::new(params, key), chain }
    }

    fn below(&self, name: &str) -> Authority {
        let (params, key) = (authority_params(name), KeyPair::generate().unwrap());
        let mut chain = vec![params.signed_by(&key, &self.issuer).unwrap().pem()];
        chain.extend(self.chain.clone());
        Authority { issuer: Issuer::new(params, key), chain }
    }

    fn sign(&self, params: CertificateParams) -> Issued {
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap().pem();
        let chain = self.chain[..self.chain.len() - 1].concat();
        Issued { leaf, chain, key: key.serialize_pem() }
    }
}

impl Issued {
    fn full(&self) -> String {
        format!("{}{}", self.leaf, self.chain)
    }
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// Valid from 30 days ago for another 60 days.
fn params(names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Some name");
    params.not_before = now() - Duration::days(30);
    params.not_after = now() + Duration::days(60);
    params.subject_alt_names =
        names.iter().map(|name| SanType::DnsName(Ia5String::try_from(*name).unwrap())).collect();
    params
}

fn until(names: &[&str], days: i64) -> CertificateParams {
    let mut params = params(names);
    params.not_after = now() + Duration::days(days);
    params.not_before = params.not_after - Duration::days(90);
    params
}

/// A certificate of a CA two levels below its root.
fn issued(names: &[&str]) -> Issued {
    issue(params(names))
}

fn issue(params: CertificateParams) -> Issued {
    Authority::root("Test Root").below("Test R1").below("Test R2").sign(params)
}

fn self_signed(params: CertificateParams) -> Issued {
    let key = KeyPair::generate().unwrap();
    Issued { leaf: params.self_signed(&key).unwrap().pem(), chain: String::new(), key: key.serialize_pem() }
}

fn scan_in(directory: &TestDir) -> ScannedCertificates {
    scan(&[source(directory.path())], now())
}

fn source(path: &Path) -> SearchPlace {
    SearchPlace { path: path.to_owned(), only: None }
}

fn choose(directory: &TestDir, name: &str) -> Choice {
    scan_in(directory).choose(name, Service::Xmpp)
}

/// A directory with these files.
fn with(files: &[(&str, &str)]) -> TestDir {
    let directory = TestDir::in_memory();
    for (name, content) in files {
        directory.write(name, content);
    }
    directory
}

/// Asserts that the certificate, its chain and its key are chosen, from these files.
#[track_caller]
fn assert_chosen(directory: &TestDir, name: &str, issued: &Issued, certificate: &str, key: &str) {
    let choice = choose(directory, name);
    let pair = choice.pair.unwrap_or_else(|| panic!("{:?}", choice.unused));
    assert_eq!(pair.pem, issued.full() + &issued.key);
    assert_eq!(pair.certificate, directory.path().join(certificate));
    assert_eq!(pair.key, directory.path().join(key));
}

/// Asserts that nothing is chosen, and that the only message is `why` about `file`. `DIR` in `why` is the directory.
#[track_caller]
fn assert_none(directory: &TestDir, name: &str, file: &str, why: &str, is_incomplete: bool) {
    let certificates = scan_in(directory);
    let choice = certificates.choose(name, Service::Xmpp);
    assert_eq!(choice.pair, None);
    let why = why.replace("DIR", directory.path().to_str().unwrap());
    let flaw = Flaw { why: why.into(), is_incomplete, is_worse: false };
    let expected = UnusedFile { path: directory.path().join(file), flaw };
    let mut messages = choice.unused;
    messages.extend(certificates.problems().to_vec());
    assert_eq!(messages, [expected]);
}

/// The paths to watch, sorted.
fn watched_paths(path: &Path) -> Vec<PathBuf> {
    let mut paths = BTreeSet::new();
    scan_and_show(&[source(path)], now(), &mut |path| {
        paths.insert(path.to_owned());
    });
    paths.into_iter().collect()
}

fn unused(choice: &Choice) -> Vec<&str> {
    choice.unused.iter().map(|unused| &*unused.flaw.why).collect()
}

const HOST: &str = "chat.example";

// Layouts.

/// Writes the files of certbot's `number`th certificate of a lineage.
fn certbot(directory: &TestDir, lineage: &str, number: u32, issued: &Issued) {
    let full = issued.full();
    fs::create_dir_all(directory.path().join("live").join(lineage)).unwrap();
    for (name, content) in
        [("cert", &issued.leaf), ("chain", &issued.chain), ("fullchain", &full), ("privkey", &issued.key)]
    {
        directory.write(&format!("archive/{lineage}/{name}{number}.pem"), content);
        let link = directory.path().join(format!("live/{lineage}/{name}.pem"));
        let _ = fs::remove_file(&link);
        symlink(format!("../../archive/{lineage}/{name}{number}.pem"), link).unwrap();
    }
}

#[test]
fn certbot_live() {
    let (directory, issued) = (TestDir::new(), issued(&[HOST]));
    certbot(&directory, "lineage", 1, &issued);
    directory.write("live/README", "This directory contains your keys");
    let certificates = scan(&[source(&directory.path().join("live"))], now());
    let pair = certificates.choose(HOST, Service::Xmpp).pair.unwrap();
    assert_eq!(pair.certificate, directory.path().join("live/lineage/fullchain.pem"));
    assert_eq!(pair.key, directory.path().join("live/lineage/privkey.pem"));
    let expected = ["live", "live/lineage", "live/lineage/../../archive/lineage"];
    let live = directory.path().join("live");
    assert_eq!(watched_paths(&live), expected.map(|name| directory.path().join(name)));
    assert_eq!(certificates.problems(), []);
}

#[test]
fn certbot_with_its_archive() {
    let directory = TestDir::new();
    for number in 1..=3 {
        certbot(&directory, "lineage", number, &issue(until(&[HOST], i64::from(number) * 30 - 30)));
    }
    let choice = choose(&directory, HOST);
    assert_eq!(choice.pair.unwrap().not_after, now() + Duration::days(60));
    assert_eq!(choice.unused.len(), 2);
}

#[test]
fn certbot_without_a_full_chain() {
    let issued = issued(&[HOST]);
    let files =
        [("a/cert.pem", &issued.leaf), ("a/chain.pem", &issued.chain), ("a/privkey.pem", &issued.key)];
    let directory = with(&files.map(|(name, content)| (name, content.as_str())));
    assert_chosen(&directory, HOST, &issued, "a/cert.pem", "a/privkey.pem");
}

#[test]
fn acme_sh() {
    for folder in [HOST, "chat.example_ecc"] {
        let (directory, issued) = (TestDir::new(), issued(&[HOST]));
        for (name, content) in [
            ("chat.example.cer", &issued.leaf),
            ("chat.example.key", &issued.key),
            ("fullchain.cer", &issued.full()),
            ("ca.cer", &issued.chain),
            ("chat.example.csr", &"-----BEGIN".to_owned()),
            ("chat.example.conf", &String::new()),
        ] {
            directory.write(&format!("{folder}/{name}"), content);
        }
        let file = |name: &str| format!("{folder}/{name}");
        assert_chosen(&directory, HOST, &issued, &file("fullchain.cer"), &file("chat.example.key"));
        fs::remove_file(directory.path().join(file("fullchain.cer"))).unwrap();
        assert_chosen(&directory, HOST, &issued, &file("chat.example.cer"), &file("chat.example.key"));
        assert_eq!(scan_in(&directory).problems(), []);
    }
}

/// Layouts with one file for the certificate and one for the key.
#[test]
fn pairs_of_files() {
    let issued = issued(&[HOST]);
    for (certificate, key) in [
        // Caddy
        ("acme-v02.api.letsencrypt.org-directory/chat.example/chat.example.crt", "chat.example.key"),
        // traefik-certs-dumper, with and without a directory for each domain
        ("chat.example/certificate.crt", "privatekey.key"),
        ("chat.example/certificate.crt", "privkey.key"),
        ("certs/chat.example.crt", "../private/chat.example.key"),
        ("chat.example.crt", "chat.example.key"),
        // mkcert
        ("chat.example.pem", "chat.example-key.pem"),
        ("chat.example+1.pem", "chat.example+1-key.pem"),
        // Kubernetes, without links
        ("tls.crt", "tls.key"),
        // lego
        ("certificates/chat.example.crt", "chat.example.key"),
        ("cert.pem", "key.pem"),
        ("fullchain3.pem", "privkey3.pem"),
        ("server.crt", "server.key.pem"),
        ("CHAT.PEM", "other.KEY"),
        ("bundle", "secret"),
    ] {
        let directory = with(&[(certificate, &issued.full())]);
        let key = Path::new(certificate).with_file_name(key).to_str().unwrap().to_owned();
        // Every directory in a path with `..` would have to exist.
        let written = key.replace("certs/../", "");
        directory.write(&written, &issued.key);
        assert_chosen(&directory, HOST, &issued, certificate, &written);
    }
}

#[test]
fn one_file_with_certificate_and_key() {
    let issued = issued(&[HOST]);
    for content in [issued.full() + &issued.key, format!("{}{}", issued.key, issued.full())] {
        assert_chosen(&with(&[("a.pem", &content)]), HOST, &issued, "a.pem", "a.pem");
    }
}

#[test]
fn kubernetes() {
    let (directory, issued) = (TestDir::new(), issued(&[HOST]));
    directory.write("..2027_01/tls.crt", issued.full());
    directory.write("..2027_01/tls.key", &issued.key);
    symlink("..2027_01", directory.path().join("..data")).unwrap();
    for name in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{name}"), directory.path().join(name)).unwrap();
    }
    assert_chosen(&directory, HOST, &issued, "tls.crt", "tls.key");
    let expected = [directory.path().to_owned(), directory.path().join("..data")];
    assert_eq!(watched_paths(directory.path()), expected);
}

#[test]
fn a_flat_directory_with_several_hosts() {
    let (a, b) = (issued(&["a.example"]), issued(&["b.example"]));
    let directory = with(&[("1.crt", &a.full()), ("1.key", &a.key), ("2.crt", &b.full()), ("2.key", &b.key)]);
    assert_chosen(&directory, "a.example", &a, "1.crt", "1.key");
    assert_chosen(&directory, "b.example", &b, "2.crt", "2.key");
}

#[test]
fn a_source_that_is_a_file_has_its_key_beside_it() {
    let (a, b) = (issued(&[HOST]), issued(&["b.example"]));
    let directory = with(&[("a.crt", &a.full()), ("a.key", &a.key), ("b.crt", &b.full()), ("b.key", &b.key)]);
    let certificates = scan(&[source(&directory.path().join("a.crt"))], now());
    assert!(certificates.choose(HOST, Service::Xmpp).pair.is_some());
    assert!(certificates.choose("b.example", Service::Xmpp).pair.is_none());
    assert_eq!(watched_paths(&directory.path().join("a.crt")), [directory.path()]);
}

#[test]
fn a_missing_source_is_watched() {
    let directory = TestDir::new();
    let missing = directory.path().join("not/yet");
    let certificates = scan(&[source(&missing)], now());
    assert_eq!(watched_paths(&missing), [missing]);
    assert_eq!(certificates.problems(), []);
}

#[test]
fn hidden_directories_are_skipped() {
    let issued = issued(&[HOST]);
    let directory = with(&[(".old/tls.crt", &issued.full()), (".old/tls.key", &issued.key)]);
    assert_eq!(choose(&directory, HOST).pair, None);
}

// Chains.

#[test]
fn a_bundle_in_the_wrong_order_is_sorted() {
    let issued = issued(&[HOST]);
    let blocks: Vec<&str> = issued.chain.split_inclusive("-----END CERTIFICATE-----\n").collect();
    let wrong = [blocks[1], &issued.leaf, blocks[0]].concat();
    let directory = with(&[("a.pem", &wrong), ("a.key", &issued.key)]);
    assert_chosen(&directory, HOST, &issued, "a.pem", "a.key");
}

#[test]
fn unrelated_certificates_are_dropped_and_a_root_in_the_file_is_kept() {
    let root = Authority::root("Root");
    let issued = root.below("R1").sign(params(&[HOST]));
    let stranger = Authority::root("Other").chain.concat();
    let all = issued.full() + &root.chain[0];
    let directory = with(&[("a.pem", &format!("{all}{stranger}")), ("a.key", &issued.key)]);
    assert_eq!(choose(&directory, HOST).pair.unwrap().pem, all + &issued.key);
}

#[test]
fn a_chain_in_another_file_is_used_without_its_root() {
    let root = Authority::root("Root");
    let issued = root.below("R1").sign(params(&[HOST]));
    let bundle = issued.chain.clone() + &root.chain[0];
    let directory = with(&[("a.crt", &issued.leaf), ("a.key", &issued.key), ("ca-bundle.crt", &bundle)]);
    assert_chosen(&directory, HOST, &issued, "a.crt", "a.key");
}

#[test]
fn the_file_with_the_longest_chain_wins() {
    let issued = issued(&[HOST]);
    let directory = with(&[("a.crt", &issued.leaf), ("b.crt", &issued.full()), ("x.key", &issued.key)]);
    assert_chosen(&directory, HOST, &issued, "b.crt", "x.key");
    assert_eq!(choose(&directory, HOST).unused, []);
}

// Names.

#[test]
fn a_wildcard_stands_for_one_label() {
    let issued = issued(&["*.chat.example"]);
    let directory = with(&[("a.pem", &(issued.full() + &issued.key))]);
    assert!(choose(&directory, "rooms.chat.example").pair.is_some());
    assert_eq!(choose(&directory, "chat.example").pair, None);
    let why = "*.chat.example in it stands for one label only";
    assert_none(&directory, "a.rooms.chat.example", "a.pem", why, false);
}

#[test]
fn names_in_upper_case_and_in_punycode() {
    let issued = issued(&["CHAT.Example", "xn--mnchen-3ya.example"]);
    let directory = with(&[("a.pem", &(issued.full() + &issued.key))]);
    for name in [HOST, "xn--mnchen-3ya.example"] {
        assert_eq!(choose(&directory, name).pair.unwrap().names, [HOST, "münchen.example"]);
    }
}

#[test]
fn two_hosts_share_one_certificate() {
    let issued = issued(&["a.example", "b.example"]);
    let directory = with(&[("a.pem", &(issued.full() + &issued.key))]);
    let certificates = scan_in(&directory);
    let pair = |name| certificates.choose(name, Service::Xmpp).pair.unwrap();
    assert_eq!(pair("a.example"), pair("b.example"));
}

#[test]
fn a_certificate_that_is_not_for_servers_is_never_chosen() {
    let mut wanted = until(&["a.example"], 90);
    wanted.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let longest = issue(wanted.clone());
    let files = [("client.crt", longest.leaf.as_str()), ("client.key", longest.key.as_str())];
    let why = "is not for servers: its extended key usage has no `serverAuth`";
    assert_none(&with(&files), "a.example", "client.crt", why, false);
    wanted.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    wanted.not_after -= Duration::DAY;
    let other = issue(wanted);
    let full = other.full();
    let directory = with(&[files[0], files[1], ("server.crt", &full), ("server.key", &other.key)]);
    assert_chosen(&directory, "a.example", &other, "server.crt", "server.key");
}

#[test]
fn xmpp_names_are_not_for_https() {
    let mut params = params(&[]);
    let name = OtherNameValue::Utf8String(HOST.into());
    params.subject_alt_names.push(SanType::OtherName((vec![1, 3, 6, 1, 5, 5, 7, 8, 5], name)));
    let issued = issue(params);
    let directory = with(&[("a.pem", &(issued.full() + &issued.key))]);
    let certificates = scan_in(&directory);
    assert!(certificates.choose(HOST, Service::Xmpp).pair.is_some());
    assert!(certificates.choose(HOST, Service::Https).pair.is_none());
}

/// A certificate that has only SRVNames for these XMPP services.
fn with_services(services: &[&str], days: i64) -> Issued {
    let name = |service: &&str| {
        let text = format!("_{service}.{HOST}");
        let length = |extra: usize| u8::try_from(text.len() + extra).unwrap();
        let start = [&[0xa0, length(14), 6, 8, 0x2b, 6, 1, 5, 5, 7, 8, 7, 0xa0, length(2), 0x16, length(0)]];
        [&start[0][..], text.as_bytes()].concat()
    };
    let names: Vec<u8> = services.iter().flat_map(name).collect();
    let content = [&[0x30, u8::try_from(names.len()).unwrap()][..], &names].concat();
    let mut params = until(&[], days);
    params.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 17], content));
    issue(params)
}

#[test]
fn a_certificate_for_clients_alone_is_used_if_there_is_none_for_both() {
    let (half, both) =
        (with_services(&["xmpp-client"], 80), with_services(&["xmpp-client", "xmpp-server"], 10));
    let directory = with(&[("half.pem", &(half.full() + &half.key))]);
    assert_chosen(&directory, HOST, &half, "half.pem", "half.pem");
    directory.write("both.pem", both.full() + &both.key);
    assert_chosen(&directory, HOST, &both, "both.pem", "both.pem");
    let path = directory.path().join("both.pem");
    let why = format!("is for XMPP clients or for servers alone, {} is for both", path.display());
    assert_eq!(unused(&choose(&directory, HOST)), [why]);
}

#[test]
fn a_certificate_without_alternative_names() {
    let mut params = params(&[]);
    params.distinguished_name.push(DnType::CommonName, HOST);
    let issued = issue(params);
    let directory = with(&[("a.pem", &(issued.full() + &issued.key))]);
    let why = "has no subject alternative name, and its common name does not count: have it issued again with the \
               name as a DNS name";
    assert_none(&directory, HOST, "a.pem", why, false);
}

#[test]
fn a_source_for_one_name_serves_no_other() {
    let issued = issued(&["a.example", "b.example"]);
    let directory = with(&[("a.pem", &(issued.full() + &issued.key))]);
    let only = Some(vec!["a.example".to_owned()]);
    let certificates = scan(&[SearchPlace { path: directory.path().to_owned(), only }], now());
    assert!(certificates.choose("a.example", Service::Xmpp).pair.is_some());
    assert!(certificates.choose("b.example", Service::Xmpp).pair.is_none());
}

// Validity.

#[test]
fn the_certificate_that_is_valid_longest_is_chosen() {
    let issued = [10, 60, 20].map(|days| issue(until(&[HOST], days)));
    let directory = TestDir::new();
    for (number, issued) in issued.iter().enumerate() {
        directory.write(&format!("{number}.pem"), issued.full() + &issued.key);
    }
    assert_chosen(&directory, HOST, &issued[1], "1.pem", "1.pem");
    let why = format!("is replaced by {}, which is valid longer", directory.path().join("1.pem").display());
    assert_eq!(unused(&choose(&directory, HOST)), [&why, &why]);
}

#[test]
fn a_wildcard_is_as_good_as_a_name_and_loses_only_a_tie() {
    let (exact, wildcard) = (issued(&["a.chat.example"]), issued(&["*.chat.example"]));
    let longer = issue(until(&["*.chat.example"], 70));
    let directory =
        with(&[("1.pem", &(wildcard.full() + &wildcard.key)), ("2.pem", &(exact.full() + &exact.key))]);
    assert_chosen(&directory, "a.chat.example", &exact, "2.pem", "2.pem");
    directory.write("3.pem", longer.full() + &longer.key);
    assert_chosen(&directory, "a.chat.example", &longer, "3.pem", "3.pem");
}

#[test]
fn an_expired_certificate_is_used_if_there_is_no_other() {
    let (old, new) = (issue(until(&[HOST], -10)), self_signed(until(&[HOST], 20)));
    let directory = with(&[("old.pem", &(old.full() + &old.key))]);
    assert!(choose(&directory, HOST).pair.unwrap().is_expired);
    directory.write("new.pem", new.full() + &new.key);
    let choice = choose(&directory, HOST);
    assert!(!choice.pair.as_ref().unwrap().is_expired);
    assert_eq!(unused(&choice), ["expired on 2027-01-05"]);
}

#[test]
fn a_certificate_that_is_not_valid_yet_is_not_used() {
    let issued = issue(until(&[HOST], 95));
    let directory = with(&[("a.pem", &(issued.full() + &issued.key))]);
    assert_none(&directory, HOST, "a.pem", "is not valid before 2027-01-20", false);
}

#[test]
fn a_self_signed_certificate_is_used_if_there_is_no_other() {
    let (own, issued) = (self_signed(until(&[HOST], 80)), issued(&[HOST]));
    let directory = with(&[("own.pem", &(own.full() + &own.key))]);
    let pair = choose(&directory, HOST).pair.unwrap();
    assert!(pair.is_self_signed && pair.issuer == "Some name");
    directory.write("real.pem", issued.full() + &issued.key);
    assert_chosen(&directory, HOST, &issued, "real.pem", "real.pem");
    let path = directory.path().join("real.pem");
    assert_eq!(unused(&choose(&directory, HOST)), [format!("is self-signed, {} is not", path.display())]);
}

#[test]
fn a_self_signed_ca_certificate_of_a_single_server_is_used() {
    let mut params = params(&[HOST]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own = self_signed(params);
    assert_chosen(&with(&[("a.pem", &(own.full() + &own.key))]), HOST, &own, "a.pem", "a.pem");
}

#[test]
fn a_ca_certificate_is_not_used() {
    let mut params = params(&[HOST]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issued = issue(params);
    let directory = with(&[("ca.pem", &(issued.full() + &issued.key))]);
    assert_none(&directory, HOST, "ca.pem", "is the certificate of an authority, not of a server", false);
}

#[test]
fn ca_certificates_alone_are_no_problem() {
    let certificates = scan_in(&with(&[("ca.pem", &Authority::root("Root").below("R1").chain.concat())]));
    assert_eq!(certificates.choose(HOST, Service::Xmpp).unused, []);
    assert_eq!(certificates.problems(), []);
}

// Keys.

#[test]
fn a_certificate_without_a_key() {
    let directory = with(&[("a.crt", &issued(&[HOST]).full())]);
    assert_none(&directory, HOST, "a.crt", "has no key beside it", true);
}

#[test]
fn the_key_of_another_certificate() {
    let directory = with(&[("a.crt", &issued(&[HOST]).full()), ("a.key", &issued(&[HOST]).key)]);
    assert_none(&directory, HOST, "a.crt", "DIR/a.key is the key of another certificate", true);
    fs::rename(directory.path().join("a.key"), directory.path().join("b.key")).unwrap();
    assert_none(&directory, HOST, "a.crt", "DIR/b.key is the key of another certificate", true);
}

#[test]
fn a_key_that_is_cut_off_or_empty() {
    let issued = issued(&[HOST]);
    for (key, why) in [(&issued.key[..100], "is cut off"), ("", "is empty"), ("hello", "has no key in it")] {
        let directory = with(&[("a.crt", &issued.full()), ("a.key", key)]);
        assert_none(&directory, HOST, "a.crt", &format!("its key DIR/a.key {why}"), true);
    }
}

#[test]
fn a_dangling_link_to_a_key() {
    let directory = with(&[("a.crt", &issued(&[HOST]).full())]);
    symlink("gone/a.key", directory.path().join("a.key")).unwrap();
    let why = "its key DIR/a.key is a link to DIR/gone/a.key, which is not there";
    assert_none(&directory, HOST, "a.crt", why, true);
    let expected = [directory.path().to_owned(), directory.path().join("gone")];
    assert_eq!(watched_paths(directory.path()), expected);
}

#[test]
fn a_private_directory_is_watched_before_a_certificate_is_chosen() {
    let directory = with(&[("certs/a.crt", &issued(&[HOST]).full())]);
    let certs = directory.path().join("certs");
    assert_eq!(watched_paths(&certs), std::slice::from_ref(&certs));
    let private = directory.path().join("private");
    fs::create_dir(&private).unwrap();
    assert_eq!(watched_paths(&certs), [certs.clone(), private]);
}

#[test]
fn a_certificate_with_a_wrong_key_is_passed_over() {
    let (good, bad) = (issue(until(&[HOST], 10)), issue(until(&[HOST], 80)));
    let directory =
        with(&[("a.crt", &good.full()), ("a.key", &good.key), ("b.crt", &bad.full()), ("b.key", &good.key)]);
    assert_chosen(&directory, HOST, &good, "a.crt", "a.key");
    let choice = choose(&directory, HOST);
    assert!(choice.unused[0].flaw.is_incomplete);
}

/// A file that OpenSSL made.
fn fixture(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates").join(name)).unwrap()
}

#[test]
fn keys_of_every_kind() {
    for (kind, key) in [
        ("rsa", "rsa"),
        ("rsa", "rsa.pkcs1"),
        ("rsa.text", "rsa"),
        ("rsa-pss", "rsa-pss"),
        ("p256", "p256"),
        ("p256", "p256.sec1"),
        ("p256", "p256.no-public"),
        ("p384", "p384.sec1"),
        ("p521", "p521"),
        ("p521", "p521.sec1"),
        ("p521", "p521.no-public"),
        ("ed25519", "ed25519"),
    ] {
        let directory = TestDir::new();
        directory.write("a.crt", fixture(&format!("{kind}.crt")));
        directory.write("a.key", fixture(&format!("{key}.key")));
        let host = kind.trim_end_matches(".text");
        assert!(choose(&directory, &format!("{host}.example")).pair.is_some(), "{key}");
    }
}

#[test]
fn a_key_that_cannot_be_checked_needs_a_conventional_name() {
    for (kind, key) in [("p521", "p521.no-public.key"), ("ed25519", "ed25519.key")] {
        let directory = TestDir::new();
        directory.write("a.crt", fixture(&format!("{kind}.crt")));
        directory.write("b.key", fixture(key));
        let why = "DIR/b.key is the key of another certificate";
        assert_none(&directory, &format!("{kind}.example"), "a.crt", why, true);
    }
}

#[test]
fn an_encrypted_key_is_reported() {
    for name in ["rsa.pkcs1-encrypted.key", "rsa.pkcs8-encrypted.key"] {
        let directory = TestDir::new();
        directory.write("rsa.crt", fixture("rsa.crt"));
        directory.write("rsa.key", fixture(name));
        let why = "its key DIR/rsa.key is encrypted: remove the passphrase with `openssl pkey`";
        assert_none(&directory, "rsa.example", "rsa.crt", why, false);
    }
}

#[test]
fn debug_output_of_a_pair_hides_its_key() {
    let issued = issued(&[HOST]);
    let pair = choose(&with(&[("a.pem", &(issued.full() + &issued.key))]), HOST).pair.unwrap();
    assert!(!format!("{pair:?}").contains("PRIVATE") && pair.pem.contains("PRIVATE"));
}

// Bad files.

/// Asserts that the file is reported as a problem, although its names are unknown.
#[track_caller]
fn assert_problem(directory: &TestDir, file: &str, why: &str, is_incomplete: bool) {
    assert_none(directory, HOST, file, why, is_incomplete);
}

#[test]
fn a_certificate_that_is_cut_off_or_damaged() {
    let issued = issued(&[HOST]);
    let full = issued.full();
    let damaged = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    for (content, why) in [
        (&full[..100], "is cut off"),
        (&full[..full.len() - 20], "is cut off"),
        (&full[..5], "is cut off"),
        ("", "is empty"),
        (damaged, "is damaged: what is in it is no certificate"),
        (&damaged.replace("MAA=", "####"), "is damaged: it is not Base64"),
    ] {
        assert_problem(&with(&[("a.crt", content), ("a.key", &issued.key)]), "a.crt", why, true);
    }
}

#[test]
fn line_endings_text_and_byte_order_marks_are_accepted() {
    let issued = issued(&[HOST]);
    let full = issued.full();
    for content in
        [full.replace('\n', "\r\n"), format!("\u{feff}{full}"), format!("Bag Attributes\n{full}\n\n")]
    {
        let directory = with(&[("a.crt", &content), ("a.key", &issued.key)]);
        assert_chosen(&directory, HOST, &issued, "a.crt", "a.key");
    }
}

#[test]
fn der_is_reported() {
    let directory = TestDir::new();
    directory.write("a.der", fixture("rsa.der"));
    let why = "is in DER, which is not read: convert it with `openssl x509 -inform der -in a.der -out …`";
    assert_problem(&directory, "a.der", why, false);
    fs::rename(directory.path().join("a.der"), directory.path().join("a.bin")).unwrap();
    assert_eq!(scan_in(&directory).problems(), []);
}

#[test]
fn a_trusted_certificate_of_openssl_is_reported() {
    let directory = TestDir::new();
    directory.write("a.pem", fixture("rsa.trusted.crt"));
    let why =
        "has a TRUSTED CERTIFICATE, which only OpenSSL's own programs read: convert it with `openssl x509`";
    assert_problem(&directory, "a.pem", why, false);
}

#[test]
fn a_file_of_100_megabytes() {
    let directory = with(&[("a.pem", "")]);
    fs::File::create(directory.path().join("a.pem")).unwrap().set_len(100 << 20).unwrap();
    assert_problem(&directory, "a.pem", "is larger than 1 MiB, and not read", false);
}

#[test]
fn devices_and_pipes_and_sockets_are_not_waited_for() {
    let issued = issued(&[HOST]);
    let directory = with(&[("good.pem", &(issued.full() + &issued.key))]);
    nix::unistd::mkfifo(&directory.path().join("fifo.pem"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    symlink("fifo.pem", directory.path().join("link.pem")).unwrap();
    symlink("/dev/zero", directory.path().join("zero.pem")).unwrap();
    std::os::unix::net::UnixListener::bind(directory.path().join("socket.pem")).unwrap();
    assert_chosen(&directory, HOST, &issued, "good.pem", "good.pem");
    let certificates = scan_in(&directory);
    assert_eq!(certificates.problems().len(), 4);
    assert!(certificates.problems().iter().all(|problem| problem.flaw.why == "is no regular file"));
}

#[test]
fn a_device_or_a_pipe_as_a_key_does_not_block() {
    let issued = issued(&[HOST]);
    let directory = with(&[("a.crt", &issued.full())]);
    symlink("/dev/zero", directory.path().join("a.key")).unwrap();
    assert_none(&directory, HOST, "a.crt", "its key DIR/a.key is no regular file", false);
    fs::remove_file(directory.path().join("a.key")).unwrap();
    nix::unistd::mkfifo(&directory.path().join("a.key"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert_none(&directory, HOST, "a.crt", "has no key beside it", true);
}

#[test]
fn directory_loops() {
    let issued = issued(&[HOST]);
    let directory = with(&[("a/b/x.pem", &(issued.full() + &issued.key))]);
    symlink("../..", directory.path().join("a/b/up")).unwrap();
    symlink(".", directory.path().join("a/self")).unwrap();
    symlink("loop", directory.path().join("loop")).unwrap();
    assert_chosen(&directory, HOST, &issued, "a/b/x.pem", "a/b/x.pem");
    assert_eq!(scan_in(&directory).problems(), []);
}

#[test]
fn eight_levels_are_scanned() {
    let issued = issued(&[HOST]);
    let both = issued.full() + &issued.key;
    assert!(choose(&with(&[("1/2/3/4/5/6/7/a.pem", &both)]), HOST).pair.is_some());
    let directory = with(&[("1/2/3/4/5/6/7/8/a.pem", &both)]);
    assert_problem(&directory, "1/2/3/4/5/6/7/8", "is too deep, and not looked into", false);
}

#[test]
fn a_dangling_link() {
    let directory = TestDir::new();
    symlink("gone/a.pem", directory.path().join("a.pem")).unwrap();
    assert_problem(&directory, "a.pem", "is a link to DIR/gone/a.pem, which is not there", true);
    let expected = [directory.path().to_owned(), directory.path().join("gone")];
    assert_eq!(watched_paths(directory.path()), expected);
}

#[test]
fn a_dangling_link_leads_to_what_has_to_be_mounted() {
    for (target, leads_to, advice) in [
        ("../../archive/a/cert1.pem", "DIR/archive/a/cert1.pem", "mount the whole of DIR"),
        ("../b.pem", "DIR/live/b.pem", "mount the whole of DIR/live"),
        ("/nowhere/b.pem", "/nowhere/b.pem", "mount that too"),
        (&"../".repeat(40), "/", "mount the directory that both are in"),
    ] {
        let directory = with(&[("live/a/x.txt", "")]);
        symlink(target, directory.path().join("live/a/cert.pem")).unwrap();
        let expected = format!("is a link to {leads_to}, which is not there: {advice}");
        // Everything up to `/` exists.
        match leads_to {
            "/" => assert_eq!(files::dangling(&directory.path().join("live/a/cert.pem")).why, expected),
            _ => assert_problem(&directory, "live/a/cert.pem", &expected, true),
        }
    }
}

#[test]
fn ten_thousand_files_that_are_not_certificates() {
    let issued = issued(&[HOST]);
    let directory = with(&[("good.pem", &(issued.full() + &issued.key))]);
    for number in 0..5_000 {
        fs::write(directory.path().join(format!("{number}.txt")), "x").unwrap();
        fs::write(directory.path().join(format!("{number}")), "hello").unwrap();
    }
    assert_chosen(&directory, HOST, &issued, "good.pem", "good.pem");
    assert_eq!(scan_in(&directory).problems(), []);
}

#[test]
fn too_many_files_are_reported() {
    let directory = TestDir::in_memory();
    for number in 0..20_001 {
        fs::write(directory.path().join(number.to_string()), "").unwrap();
    }
    let certificates = scan_in(&directory);
    let [problem] = certificates.problems() else { panic!("{:?}", certificates.problems()) };
    assert!(problem.flaw.why.starts_with("has too many files"), "{problem}");
    // The folders that matter, as the message says.
    let issued = issued(&[HOST]);
    let named = with(&[("a.crt", &issued.full()), ("a.key", &issued.key)]);
    assert_chosen(&named, HOST, &issued, "a.crt", "a.key");
}

#[test]
fn a_key_that_is_removed_after_the_scan() {
    let issued = issued(&[HOST]);
    let directory = with(&[("a.crt", &issued.full()), ("a.key", &issued.key)]);
    let certificates = scan_in(&directory);
    fs::remove_file(directory.path().join("a.key")).unwrap();
    let choice = certificates.choose(HOST, Service::Xmpp);
    assert!(choice.pair.is_none() && choice.unused[0].flaw.is_incomplete);
}

#[test]
fn files_that_appear_and_vanish_during_a_scan() {
    let issued = issued(&[HOST]);
    let directory = with(&[("good.pem", &(issued.full() + &issued.key))]);
    let path = directory.path().to_owned();
    let writer = std::thread::spawn(move || {
        for number in 0..2_000 {
            let path = path.join(format!("{}.pem", number % 20));
            fs::File::create(&path).unwrap().write_all(b"-----BEGIN CERT").unwrap();
            fs::remove_file(&path).unwrap();
        }
    });
    while !writer.is_finished() {
        assert!(choose(&directory, HOST).pair.is_some());
    }
    writer.join().unwrap();
}

// Links of other users.

/// A directory with a link `name` to `target`. The link belongs to user 12345. `None` unless the test runs as root.
fn with_link_of_another_user(name: &str, target: PathBuf) -> Option<TestDir> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let directory = TestDir::new();
    symlink(target, directory.path().join(name)).unwrap();
    std::os::unix::fs::lchown(directory.path().join(name), Some(12345), Some(12345)).unwrap();
    Some(directory)
}

const REFUSED: &str = "is reached through a link of user 12345, who may not read it: not followed";

#[test]
fn a_link_of_another_user_leads_to_nothing_that_he_may_not_read() {
    let issued = issued(&[HOST]);
    let elsewhere = with(&[("a.pem", &(issued.full() + &issued.key))]);
    let file = elsewhere.path().join("a.pem");
    let Some(directory) = with_link_of_another_user("a.pem", file.clone()) else { return };
    assert!(choose(&directory, HOST).pair.is_some(), "everybody may read it");
    elsewhere.set_mode("a.pem", 0o640);
    assert_problem(&directory, "a.pem", REFUSED, false);
    std::os::unix::fs::chown(file, Some(12345), None).unwrap();
    assert!(choose(&directory, HOST).pair.is_some(), "it is his own");
}

#[test]
fn a_link_of_another_user_leads_to_no_key_that_he_may_not_read() {
    let issued = issued(&[HOST]);
    let elsewhere = with(&[("a.key", &issued.key)]);
    elsewhere.set_mode("a.key", 0o600);
    let Some(directory) = with_link_of_another_user("a.key", elsewhere.path().join("a.key")) else { return };
    directory.write("a.crt", issued.full());
    assert_none(&directory, HOST, "a.crt", &format!("its key DIR/a.key {REFUSED}"), false);
}

#[test]
fn another_users_link_to_a_directory_grants_no_more_access() {
    let issued = issued(&[HOST]);
    let elsewhere = with(&[("x/a.crt", &issued.full()), ("x/a.key", &issued.key)]);
    let Some(directory) = with_link_of_another_user("link", elsewhere.path().to_owned()) else { return };
    assert_chosen(&directory, HOST, &issued, "link/x/a.crt", "link/x/a.key");
    elsewhere.set_mode("x/a.key", 0o600);
    assert_none(&directory, HOST, "link/x/a.crt", &format!("its key DIR/link/x/a.key {REFUSED}"), false);
    elsewhere.set_mode("x/a.crt", 0o600);
    assert_problem(&directory, "link/x/a.crt", REFUSED, false);
    elsewhere.set_mode("x", 0o700);
    assert_problem(&directory, "link/x", REFUSED, false);
}

#[test]
fn a_link_of_root_is_followed_anywhere() {
    let issued = issued(&[HOST]);
    let elsewhere = with(&[("a.pem", &(issued.full() + &issued.key))]);
    elsewhere.set_mode("a.pem", 0o600);
    let directory = TestDir::new();
    symlink(elsewhere.path(), directory.path().join("link")).unwrap();
    assert_chosen(&directory, HOST, &issued, "link/a.pem", "link/a.pem");
}
