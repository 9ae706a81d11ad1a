//! Intents from hand-made facts. Nothing here reads the disk.

use std::path::PathBuf;

use super::certificates::{SearchPlace, Service};
use super::modules::Role;
use super::*;
use crate::facts::custom_files::CustomFile;
use crate::facts::prosody::Version;
use crate::facts::{Problem, custom_files};
use crate::lua::Value;
use crate::os::users::User;

fn decide_with(facts: &Facts, with_autoloaded: bool, environment: &[(&str, &str)]) -> (Intent, Report) {
    let (settings, mut report) = Settings::example(environment);
    let intent = decide(&settings, facts, with_autoloaded, &mut report);
    (intent, report)
}

fn decided(environment: &[(&str, &str)]) -> (Intent, Report) {
    decide_with(&Facts::example(), false, environment)
}

/// The intent. Panics on errors.
fn wanted(environment: &[(&str, &str)]) -> Intent {
    let (intent, report) = decided(environment);
    assert_eq!(errors(&report), [""; 0]);
    intent
}

fn errors(report: &Report) -> Vec<String> {
    report.errors().iter().map(ToString::to_string).collect()
}

fn warnings(report: &Report) -> Vec<&str> {
    report.warnings().collect()
}

fn hosts(intent: &Intent) -> Vec<&str> {
    intent.hosts.virtual_hosts.iter().map(|host| host.name.as_str()).collect()
}

fn components(intent: &Intent) -> Vec<(&str, Option<&str>)> {
    let components = intent.hosts.components.iter();
    components.map(|component| (component.name.as_str(), component.module.as_deref())).collect()
}

fn list(values: &[&str]) -> Value {
    values.iter().copied().collect()
}

/// The modules that a source requests, with their roles.
fn requested_by<'a>(intent: &'a Intent, source: &str) -> Vec<(&'a str, &'a Role)> {
    let requests = intent.modules.requests.iter().filter(|request| request.by == source);
    requests.map(|request| (request.name.as_str(), &request.role)).collect()
}

#[test]
fn the_same_input_gives_the_same_intent() {
    let environment = [
        ("PROSODY_DOMAIN", "chat.example"),
        ("PROSODY_MODULES_ENABLED", "one, two"),
        ("PROSODY_STORAGE_ARCHIVE", "sql"),
        ("PROSODY_OPTIONS", r#"{"b": {"x": 1, "y": [true]}, "a": null}"#),
        ("PROSODY_ACCOUNTS", "a@chat.example:S3CRET"),
    ];
    for with_autoloaded in [false, true] {
        let (one, report) = decide_with(&Facts::example(), with_autoloaded, &environment);
        let (two, again) = decide_with(&Facts::example(), with_autoloaded, &environment);
        assert_eq!(one, two);
        assert_eq!((errors(&report), warnings(&report)), (errors(&again), warnings(&again)));
    }
    for (index, value) in
        ["other.example", "one", "internal", "{}", "a@chat.example:OTHER"].into_iter().enumerate()
    {
        let mut changed = environment;
        changed[index].1 = value;
        assert_ne!(decided(&changed).0, decided(&environment).0, "{:?}", changed[index]);
    }
}

#[test]
fn there_is_a_default_host() {
    let intent = wanted(&[]);
    assert_eq!((hosts(&intent), components(&intent)), (vec!["localhost"], Vec::new()));
    let facts = Facts { hostname: "chat.example".to_owned(), ..Facts::example() };
    assert_eq!(hosts(&decide_with(&facts, false, &[]).0), ["chat.example"]);
    let facts = Facts { hostname: "XMPP".to_owned(), has_data_of_hostname: true, ..Facts::example() };
    assert_eq!(hosts(&decide_with(&facts, false, &[]).0), ["xmpp"]);
}

#[test]
fn a_host_in_a_custom_file_replaces_the_default_host() {
    let mut facts = Facts::example();
    facts
        .custom_files
        .extra
        .push(CustomFile::example("/etc/prosody/conf.d/a.cfg.lua", r#"VirtualHost "a.example""#));
    let (intent, report) = decide_with(&facts, false, &[]);
    assert_eq!((hosts(&intent), errors(&report)), (Vec::new(), Vec::new()));
    assert!(intent.certificates.wants_all, "and there may be others");
    let names: Vec<(&str, bool)> =
        intent.certificates.names.iter().map(|name| (name.name.as_str(), name.is_host)).collect();
    assert_eq!(names, [("a.example", true)]);
}

#[test]
fn one_domain_brings_its_services() {
    let intent = wanted(&[("PROSODY_DOMAIN", "chat.example")]);
    assert_eq!(hosts(&intent), ["chat.example"]);
    assert_eq!(
        components(&intent),
        [
            ("conference.chat.example", Some("muc")),
            ("upload.chat.example", Some("http_file_share")),
            ("proxy.chat.example", Some("proxy65")),
        ]
    );
    let rooms = &intent.hosts.components[0].options;
    assert_eq!(rooms["restrict_room_creation"], Value::from("local"));
    assert_eq!(rooms["modules_enabled"], list(&["muc_mam"]));
    for module in ["mam", "bosh", "websocket"] {
        let enabled = intent.modules.enabled.iter().find(|enabled| enabled.name == module).unwrap();
        assert_eq!(enabled.by, "PROSODY_DOMAIN");
    }
}

#[test]
fn named_components_replace_the_default_ones() {
    let intent = wanted(&[
        ("PROSODY_DOMAIN", "chat.example"),
        ("PROSODY_COMPONENTS", "rooms.chat.example:muc, files.chat.example:http_file_share"),
        ("PROSODY_MUC_MODULES", "muc_mam, vcard_muc"),
        ("PROSODY_EXTERNAL_COMPONENTS", "irc.chat.example:S3CRET"),
    ]);
    assert_eq!(
        components(&intent),
        [
            ("rooms.chat.example", Some("muc")),
            ("files.chat.example", Some("http_file_share")),
            ("irc.chat.example", None),
        ]
    );
    let [rooms, files, irc] = &intent.hosts.components[..] else { panic!() };
    assert_eq!(rooms.options["modules_enabled"], list(&["muc_mam", "vcard_muc"]));
    assert_eq!(files.options["http_paths"], Value::table([("file_share", "/share")]));
    let mut secret = Vec::new();
    irc.options["component_secret"]
        .each_text(&mut |text, is_secret| secret.push((text.to_owned(), is_secret)));
    assert_eq!(secret, [("S3CRET".to_owned(), true)]);
    assert_eq!(intent.options["http_host"], Value::from("chat.example"), "all services have that name");
}

#[test]
fn two_hosts_with_one_name_are_an_error() {
    let (_, report) =
        decided(&[("PROSODY_VIRTUAL_HOSTS", "a.example"), ("PROSODY_COMPONENTS", "a.example:muc")]);
    assert_eq!(
        errors(&report),
        [
            "PROSODY_COMPONENTS: a.example is a component here and a virtual host of PROSODY_VIRTUAL_HOSTS: give one of \
             them another name"
        ]
    );
}

#[test]
fn a_non_ascii_host_has_an_ascii_name_for_tls() {
    let intent = wanted(&[("PROSODY_VIRTUAL_HOSTS", "münchen.example, b.example")]);
    let [one, two] = &intent.hosts.virtual_hosts[..] else { panic!() };
    for option in ["s2s_direct_tls_host", "c2s_direct_tls_host", "https_host"] {
        assert_eq!(one.options[option], Value::from("xn--mnchen-3ya.example"), "{option}");
    }
    assert!(two.options.is_empty());
}

#[test]
fn custom_options_replace_ours_and_null_removes_them() {
    let options = |written| wanted(&[("PROSODY_OPTIONS", written)]).options;
    let ours = options("{}");
    assert_eq!(ours["s2s_secure_auth"], Value::from(true));
    assert_eq!(ours["data_path"], Value::from("/var/lib/prosody"));
    assert!(!ours.contains_key("modules_enabled"), "that follows from what there is");
    assert_eq!(options(r#"{"c2s_direct_tls_ports": [1]}"#)["c2s_direct_tls_ports"], Value::from(vec![1]));
    assert!(!options(r#"{"c2s_direct_tls_ports": null}"#).contains_key("c2s_direct_tls_ports"));
    assert_eq!(options(r#"{"modules_enabled": ["one"]}"#)["modules_enabled"], list(&["one"]));
}

#[test]
fn addresses_follow_the_kernel() {
    let interfaces = |ipv6| {
        let facts = Facts { ipv6, ..Facts::example() };
        decide_with(&facts, false, &[]).0.options["http_interfaces"].clone()
    };
    assert_eq!(interfaces(true), list(&["*", "::"]));
    assert_eq!(interfaces(false), list(&["*"]));
}

#[test]
fn each_request_names_its_setting() {
    let intent = wanted(&[
        ("PROSODY_DOMAIN", "chat.example"),
        ("PROSODY_MODULES_ENABLED", "one, mod_TWO"),
        ("PROSODY_MODULES_AVAILABLE", "three"),
        ("PROSODY_MUC_MODULES", "muc_four"),
        ("PROSODY_AUTHENTICATION", "ldap"),
        ("PROSODY_LDAP_BASE", "dc=example"),
        ("PROSODY_STORAGE_ARCHIVE", "memory"),
        ("PROSODY_TURN_SECRET", "S3CRET"),
    ]);
    let rooms = || "conference.chat.example".to_owned();
    assert_eq!(
        requested_by(&intent, "PROSODY_MODULES_ENABLED"),
        [("one", &Role::Enabled), ("two", &Role::Enabled)]
    );
    assert_eq!(requested_by(&intent, "PROSODY_MODULES_AVAILABLE"), [("three", &Role::Available)]);
    assert_eq!(requested_by(&intent, "PROSODY_MUC_MODULES"), [("muc_four", &Role::EnabledOn(rooms()))]);
    assert_eq!(requested_by(&intent, "PROSODY_AUTHENTICATION"), [("auth_ldap", &Role::Authentication)]);
    assert_eq!(requested_by(&intent, "PROSODY_STORAGE_ARCHIVE"), [("storage_memory", &Role::Storage)]);
    assert_eq!(requested_by(&intent, "PROSODY_TURN_SECRET"), [("turn_external", &Role::Enabled)]);
    let domain = requested_by(&intent, "PROSODY_DOMAIN");
    for expected in
        [("mam", &Role::Enabled), ("muc", &Role::Component(rooms())), ("muc_mam", &Role::EnabledOn(rooms()))]
    {
        assert!(domain.contains(&expected), "{expected:?}: {domain:?}");
    }
    // Default modules are not chosen.
    let is_chosen = |name: &str| {
        let request = intent.modules.requests.iter().find(|request| request.name == name);
        !request.unwrap().is_default
    };
    assert_eq!(
        ["one", "three", "roster", "mam", "muc_mam"].map(is_chosen),
        [true, true, false, false, false]
    );
}

#[test]
fn custom_options_request_modules() {
    let intent = wanted(&[(
        "PROSODY_OPTIONS",
        r#"{"modules_enabled": ["one"], "authentication": "two", "storage": {"archive": "three"}}"#,
    )]);
    let requests = intent.modules.requests.iter();
    let asked: Vec<_> = requests.map(|request| (request.name.as_str(), request.by.as_str())).collect();
    assert_eq!(asked, ["one", "auth_two", "storage_three"].map(|name| (name, "PROSODY_OPTIONS")));
}

#[test]
fn autoloaded_modules_are_requested_only_on_demand() {
    let facts = Facts::example();
    let complete = decide_with(&facts, true, &[("PROSODY_EXTERNAL_COMPONENTS", "irc.example:x")]).0;
    let asked = requested_by(&complete, "Prosody itself");
    assert!(asked.contains(&("c2s", &Role::Enabled)) && asked.contains(&("offline", &Role::Enabled)));
    let defaults = requested_by(&complete, "the default set");
    for expected in [
        ("auth_internal_hashed", &Role::Authentication),
        ("authz_internal", &Role::Authorization),
        ("storage_internal", &Role::Storage),
    ] {
        assert!(defaults.contains(&expected), "{expected:?}");
    }
    let component = Role::Component("irc.example".to_owned());
    assert_eq!(requested_by(&complete, "PROSODY_EXTERNAL_COMPONENTS"), [("component", &component)]);
    assert!(complete.modules.reads_prosodys_modules);
    let default = decide_with(&facts, false, &[]).0;
    assert!(requested_by(&default, "Prosody itself").is_empty() && !default.modules.reads_prosodys_modules);
}

#[test]
fn disabled_modules_are_left_out_or_disabled_by_option() {
    let intent =
        wanted(&[("PROSODY_MODULES_DISABLED", "pep, offline, one"), ("PROSODY_MODULES_ENABLED", "one")]);
    let enabled: Vec<&str> = intent.modules.enabled.iter().map(|module| module.name.as_str()).collect();
    assert!(!enabled.contains(&"pep") && enabled.contains(&"roster") && enabled.contains(&"one"));
    // Modules that Prosody loads without configuration need the option.
    assert_eq!(intent.options["modules_disabled"], list(&["offline"]));
    assert_eq!(intent.modules.disabled, ["pep", "offline"], "what is enabled too is not");
    assert!(intent.modules.reads_prosodys_modules, "what needs it is of interest");
}

#[test]
fn newer_modules_are_not_requested_from_an_older_prosody() {
    let mut facts = Facts::example();
    let has = |facts: &Facts, name| {
        decide_with(facts, false, &[]).0.modules.enabled.iter().any(|module| module.name == name)
    };
    assert!(has(&facts, "cloud_notify"));
    facts.prosody.version = Version::parse("0.12.3");
    assert!(!has(&facts, "cloud_notify") && has(&facts, "roster"));
}

#[test]
fn mutually_exclusive_modules_are_an_error() {
    let (_, report) = decided(&[("PROSODY_MODULES_ENABLED", "vcard")]);
    assert_eq!(
        errors(&report),
        [
            "PROSODY_MODULES_ENABLED: vcard (PROSODY_MODULES_ENABLED) and vcard_legacy (the default set) cannot be loaded \
             together: set PROSODY_MODULES_DISABLED=vcard_legacy, or leave vcard out"
        ]
    );
    wanted(&[("PROSODY_MODULES_ENABLED", "vcard"), ("PROSODY_MODULES_DISABLED", "vcard_legacy")]);
    let on_one = r#"[{"host": "a.example", "modules_enabled": ["vcard"]}, {"host": "b.example"}]"#;
    let (_, report) = decided(&[("PROSODY_VIRTUAL_HOSTS", on_one)]);
    let [error] = &errors(&report)[..] else { panic!("{report}") };
    assert!(error.contains("cannot be loaded together on a.example"), "{error}");
    wanted(&[(
        "PROSODY_VIRTUAL_HOSTS",
        r#"[{"host": "a.example", "modules_enabled": ["vcard"], "modules_disabled": ["vcard_legacy"]}]"#,
    )]);
}

#[test]
fn certificates_are_wanted_for_every_name() {
    let mut facts = Facts::example();
    facts
        .custom_files
        .components
        .push(CustomFile::example("/etc/prosody/cmpt.d/c.cfg.lua", r#"Component "gate.example" "gateway""#));
    let environment = [
        (
            "PROSODY_VIRTUAL_HOSTS",
            r#"["a.example", {"host": "own.example", "options": {"certificate": "/own.pem"}}]"#,
        ),
        ("PROSODY_COMPONENTS", "rooms.a.example:muc"),
        ("PROSODY_HTTP_HOST", "web.example"),
        ("PROSODY_IMPORT_CERTIFICATE_DIRECTORIES", "/acme, /other"),
        ("PROSODY_IMPORT_CERTIFICATE_HOSTNAMES", "a.example"),
        ("PROSODY_SELF_SIGNED_CERTIFICATES", "false"),
    ];
    let (intent, report) = decide_with(&facts, false, &environment);
    assert_eq!(errors(&report), [""; 0]);
    let wanted = &intent.certificates;
    let names: Vec<_> = wanted
        .names
        .iter()
        .map(|name| (name.name.as_str(), name.service, name.is_host, name.has_own))
        .collect();
    assert_eq!(
        names,
        [
            ("a.example", Service::Xmpp, true, false),
            ("own.example", Service::Xmpp, true, true),
            ("rooms.a.example", Service::Xmpp, true, false),
            ("gate.example", Service::Xmpp, true, false),
            ("web.example", Service::Https, false, false),
        ]
    );
    let source = |path: &str, only: Option<&str>| SearchPlace {
        path: path.into(),
        only: only.map(|only| vec![only.to_owned()]),
    };
    assert_eq!(
        wanted.sources,
        [
            source("/etc/prosody/certs", None),
            source("/acme", Some("a.example")),
            source("/other", Some("a.example"))
        ]
    );
    let variable = || "PROSODY_IMPORT_CERTIFICATE_DIRECTORIES".to_owned();
    assert_eq!(
        wanted.named_places,
        [(variable(), PathBuf::from("/acme")), (variable(), PathBuf::from("/other"))]
    );
    assert!(!wanted.self_signed && wanted.wants_all && !wanted.is_behind_proxy);
}

#[test]
fn each_import_directory_may_have_its_own_domain() {
    let intent = wanted(&[
        ("PROSODY_IMPORT_CERTIFICATE_DIRECTORIES", "/one, /two"),
        ("PROSODY_IMPORT_CERTIFICATE_HOSTNAMES", "one.example, Zwei.example"),
        ("PROSODY_CERTIFICATES", "/certs"),
    ]);
    let sources: Vec<_> = intent
        .certificates
        .sources
        .iter()
        .map(|source| (source.path.to_str().unwrap(), source.only.as_deref().map(<[String]>::concat)))
        .collect();
    assert_eq!(
        sources,
        [
            ("/certs", None),
            ("/one", Some("one.example".to_owned())),
            ("/two", Some("zwei.example".to_owned()))
        ]
    );
}

#[test]
fn privileged_accounts_come_first_and_become_administrators() {
    let intent = wanted(&[
        ("PROSODY_VIRTUAL_HOSTS", "a.example"),
        (
            "PROSODY_ACCOUNTS",
            r#"["b@a.example:ONE", {"jid": "Boss@A.example", "password": "TWO", "admin": true}]"#,
        ),
    ]);
    assert_eq!(intent.accounts.as_deref(), Some("boss@a.example\t\tTWO\nb@a.example\t\tONE\n"));
    assert_eq!(intent.hosts.virtual_hosts[0].options["admins"], list(&["boss@a.example"]));
    let (_, report) = decided(&[
        ("PROSODY_VIRTUAL_HOSTS", "a.example"),
        ("PROSODY_ACCOUNTS", "b@a.example:S3CRET, c@b.example:S3CRET"),
    ]);
    let [error] = &errors(&report)[..] else { panic!("{report}") };
    assert!(error.contains("entry 2: no virtual host has that domain"), "{error}");
    assert!(!error.contains("S3CRET"), "{error}");
}

#[test]
fn the_databases_are_those_that_hosts_use() {
    let intent = wanted(&[
        ("PROSODY_DATABASE_URL", "postgresql://prosody:S3CRET@db.example/chat"),
        ("PROSODY_VIRTUAL_HOSTS", "a.example, b.example"),
    ]);
    let [database] = &intent.databases[..] else { panic!("{:?}", intent.databases) };
    assert_eq!(database.to_string(), r#"the PostgreSQL database "chat" on db.example:5432"#);
    assert!(wanted(&[]).databases.is_empty());
    assert_eq!(wanted(&[("PROSODY_LOG_LEVEL", "debug")]).debug_log.as_deref(), Some("PROSODY_LOG_LEVEL"));
}

#[test]
fn shared_directories_and_system_directories_are_errors() {
    let with = |change: &dyn Fn(&mut Facts)| {
        let mut facts = Facts::example();
        change(&mut facts);
        errors(&decide_with(&facts, false, &[("PROSODY_CERTIFICATES", "/run/certs")]).1)
    };
    assert_eq!(with(&|_| ()), [""; 0]);
    let one = |change: &dyn Fn(&mut Facts), expected: &str| {
        let [error] = &with(change)[..] else { panic!("{:?}", with(change)) };
        assert!(error.starts_with(expected), "{error}");
    };
    one(&|facts| facts.data_dir = "/tmp".into(), "PROSODY_DATA_DIR: /tmp is the system's");
    one(
        &|facts| facts.data_dir = "/run/prosody".into(),
        "PROSODY_RUNTIME_DIR: /run/prosody is the directory of PROSODY_DATA_DIR too",
    );
    one(
        &|facts| facts.config_dir = "/run/prosody/conf".into(),
        "PROSODY_CONFIG_DIR: /run/prosody/conf is the directory of PROSODY_RUNTIME_DIR too",
    );
    one(&|facts| facts.runtime_dir = "/run/certs".into(), "PROSODY_CERTIFICATES: /run/certs has the copies");
}

#[test]
fn every_problem_in_the_facts_is_reported() {
    let file = |reason| custom_files::Problem { path: "/etc/prosody/conf.d/a.cfg.lua".into(), reason };
    let facts = Facts {
        identity: User { uid: 5, gid: 6 },
        problems: vec![
            Problem::HiddenModules { missing: "mod_c2s.lua" },
            Problem::NoPluginPath("/none".into()),
            Problem::NoCollection("/no-collection".into()),
            Problem::OtherImagesPlace("/usr/local/var/lib/prosody", Field::data_dir),
            Problem::CustomFile(file(custom_files::Reason::DanglingLink)),
            Problem::Identity("no such user".to_owned()),
            Problem::Unreadable(file(custom_files::Reason::TooLarge)),
        ],
        ..Facts::example()
    };
    let (_, report) = decide_with(&facts, false, &[("PROSODY_PLUGIN_PATHS", "/none"), ("PROSODY_X", "1")]);
    let errors = errors(&report);
    assert_eq!(errors.len(), 4, "{errors:?}");
    assert!(errors[0].starts_with("/usr/lib/prosody/modules: there is no mod_c2s.lua"), "{errors:?}");
    assert!(errors[1].contains("a.cfg.lua: is a link to nothing"), "{errors:?}");
    assert_eq!(errors[2], "no such user");
    assert!(errors[3].contains("run `chgrp 6` and `chmod g+rX` on it and on its directory"), "{errors:?}");
    let warnings = warnings(&report);
    for expected in [
        "PROSODY_PLUGIN_PATHS: /none is no directory",
        "PROSODY_COMMUNITY_MODULES_DIR: /no-collection is no directory",
        "PROSODY_X: there is no such setting",
        "/usr/local/var/lib/prosody: another image keeps its files there, and nothing here uses them: set \
         PROSODY_DATA_DIR=/usr/local/var/lib/prosody, or mount them at /var/lib/prosody",
    ] {
        assert!(warnings.iter().any(|warning| warning.starts_with(expected)), "{expected}: {warnings:?}");
    }
}

#[test]
fn proxies_by_name_are_trusted_by_their_addresses() {
    let environment =
        [("PROSODY_DOMAIN", "a.example"), ("PROSODY_TRUSTED_PROXIES", "traefik 192.0.2.7 gone")];
    let mut facts = Facts::example();
    facts
        .proxies
        .insert("traefik".to_owned(), ["172.18.0.3".parse().unwrap(), "fd00::3".parse().unwrap()].into());
    facts.proxies.insert("gone".to_owned(), Default::default());
    let (intent, report) = decide_with(&facts, false, &environment);
    let trusted: Vec<&str> =
        intent.options["trusted_proxies"].items().iter().filter_map(Value::as_str).collect();
    assert_eq!(trusted, ["172.18.0.3", "fd00::3", "192.0.2.7"]);
    let warning = "PROSODY_TRUSTED_PROXIES: the name gone does not resolve now";
    assert!(
        report.warnings().any(|text| text.starts_with(warning)),
        "{:?}",
        report.warnings().collect::<Vec<_>>()
    );
}

#[test]
fn a_port_that_only_root_may_bind_gets_a_warning_with_the_way() {
    let environment = [("PROSODY_DOMAIN", "a.example"), ("PROSODY_HTTPS_PORTS", "443 5281")];
    for (first_free_port, expected) in [(1024, true), (0, false), (443, false), (444, true)] {
        let facts = Facts { first_free_port, ..Facts::example() };
        let report = decide_with(&facts, false, &environment).1;
        let is_said =
            report.warnings().any(|text| text.contains("may not bind port 443") && text.contains("--sysctl"));
        assert_eq!(is_said, expected, "{first_free_port}");
    }
}

#[test]
fn groups_of_tls_are_those_that_openssl_has() {
    let facts = |groups: &[&str]| Facts {
        tls_groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        ..Facts::example()
    };
    let groups = |facts: &Facts, environment: &[(&str, &str)]| {
        let (intent, report) = decide_with(facts, false, environment);
        assert_eq!(errors(&report), [""; 0]);
        intent.options.get("ssl").map(|ssl| ssl.get("curveslist").cloned().unwrap_or(Value::Nil))
    };
    let (old, new) = (facts(&["X25519", "P-256"]), facts(&["X25519", "X25519MLKEM768", "P-256"]));
    assert_eq!(groups(&old, &[]), None);
    let expected = list(&["X25519MLKEM768", "X25519", "prime256v1", "secp384r1"]);
    assert_eq!(groups(&new, &[]), Some(expected));
    let expected = list(&["X25519MLKEM768", "X25519", "P-384", "P-256", "P-521"]);
    assert_eq!(groups(&new, &[("PROSODY_TLS_PROFILE", "legacy")]), Some(expected));
    assert_eq!(groups(&new, &[("PROSODY_TLS_GROUPS", "x25519 p-256")]), Some(list(&["X25519", "P-256"])));
    // Without a list, nothing is checked.
    assert_eq!(groups(&facts(&[]), &[("PROSODY_TLS_GROUPS", "new-one")]), Some(list(&["new-one"])));
    let report = decide_with(&old, false, &[("PROSODY_TLS_GROUPS", "X25519MLKEM768 X25519 SM2")]).1;
    let expected = "PROSODY_TLS_GROUPS: OpenSSL has no group X25519MLKEM768, SM2 here; it has X25519, P-256";
    assert!(errors(&report)[0].starts_with(expected), "{:?}", errors(&report));
}
