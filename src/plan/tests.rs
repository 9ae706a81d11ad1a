//! Plans from hand-made facts and findings. Nothing here reads the disk.

use nix::sys::resource::{UsageWho, getrusage};
use time::Duration;

use super::*;
use crate::facts::SecretFile;
use crate::facts::custom_files::CustomFile;
use crate::intent;
use crate::intent::modules::Role;
use crate::settings::Settings;
use crate::survey::certificates::assign::{Assignments, CertificateOrigin, SelfSigned, Served};
use crate::survey::certificates::{Flaw, UnusedFile};
use crate::survey::modules::closure::Findings as ModuleFindings;
use crate::survey::modules::{self, Problem};

const GENERATION: &str = "/run/prosody/generation-7";

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

/// The input of a plan.
struct Input<'a> {
    environment: &'a [(&'a str, &'a str)],
    facts: Facts,
    findings: Findings,
    generation: &'a str,
    secrets: Secrets,
}

impl<'a> Input<'a> {
    fn new(environment: &'a [(&'a str, &'a str)]) -> Self {
        Self {
            environment,
            facts: Facts::example(),
            findings: Findings::default(),
            generation: GENERATION,
            secrets: Secrets::Written,
        }
    }

    /// Replaces the found modules (see [`ModuleFindings::example`]).
    fn with_modules(mut self, files: &[(&str, &str, &str)]) -> Self {
        self.findings.modules = ModuleFindings::example(files);
        self
    }

    fn with_certificates(mut self, certificates: Assignments) -> Self {
        self.findings.certificates = certificates;
        self
    }

    fn plan_and_report(&self) -> (Plan, Report) {
        let (settings, mut report) = Settings::example(self.environment);
        let intent = intent::decide(&settings, &self.facts, false, &mut report);
        let (findings, generation) = (self.findings.clone(), Path::new(self.generation));
        let plan = make(intent, &self.facts, findings, generation, self.secrets, now(), &mut report);
        (plan, report)
    }

    /// The plan. Panics on errors.
    fn plan(&self) -> Plan {
        let (plan, report) = self.plan_and_report();
        assert!(report.errors().is_empty(), "{report}");
        plan
    }

    fn errors(&self) -> Vec<String> {
        self.plan_and_report().1.errors().iter().map(ToString::to_string).collect()
    }

    fn warnings(&self) -> Vec<String> {
        self.plan_and_report().1.warnings().map(str::to_owned).collect()
    }
}

/// The text of a file.
fn text<'a>(plan: &'a Plan, path: &str) -> &'a str {
    let file = plan.files.iter().find(|file| file.path == Path::new(path));
    &file.unwrap_or_else(|| panic!("no {path}")).content
}

fn paths(plan: &Plan) -> Vec<&str> {
    plan.files.iter().map(|file| file.path.to_str().unwrap()).collect()
}

fn links(plan: &Plan) -> Vec<(&str, &str)> {
    plan.links.iter().map(|link| (link.path.to_str().unwrap(), link.target.to_str().unwrap())).collect()
}

fn has(plan: &Plan, name: &str) -> bool {
    plan.modules.iter().any(|module| module.name == name && module.file.is_some())
}

fn served(name: &str, origin: CertificateOrigin) -> Served {
    Served { name: name.to_owned(), is_host: true, origin, unused: Vec::new() }
}

fn pair(name: &str, days: i64) -> Rc<Pair> {
    Pair::example(name, now() + Duration::days(days), &format!("{name} {days}\n"))
}

/// One certificate for two names, and a self-signed one to make.
fn certificates() -> Assignments {
    let both = pair("a.example", 60);
    Assignments {
        served: vec![
            served("a.example", CertificateOrigin::Found(Rc::clone(&both))),
            served("b.example", CertificateOrigin::Found(both)),
            served(
                "c.example",
                CertificateOrigin::SelfSigned("/var/lib/prosody/self-signed/c.example.crt".into()),
            ),
        ],
        without: vec!["c.example".to_owned()],
        self_signed: vec![SelfSigned {
            host: "c.example".to_owned(),
            host_ascii: "c.example".to_owned(),
            names: vec!["c.example".to_owned()],
            path: "/var/lib/prosody/self-signed/c.example.crt".into(),
            is_usable: false,
        }],
        ..Assignments::default()
    }
}

const THREE_HOSTS: &[(&str, &str)] = &[("PROSODY_VIRTUAL_HOSTS", "a.example, b.example, c.example")];

#[test]
fn the_same_input_gives_the_same_plan() {
    static ENVIRONMENT: [(&str, &str); 5] = [
        ("PROSODY_DOMAIN", "a.example"),
        ("PROSODY_VIRTUAL_HOSTS", "b.example, c.example"),
        ("PROSODY_MODULES_ENABLED", "one, muc_two"),
        ("PROSODY_ACCOUNTS", "boss@a.example:S3CRET"),
        ("PROSODY_OPTIONS", r#"{"z": 1, "y": {"b": 1, "a": [2]}, "x": "text"}"#),
    ];
    let input = || {
        let mut input = Input::new(&ENVIRONMENT)
            .with_modules(&[
                ("one", "/opt/prosody-modules-available/mod_one/mod_one.lua", r#"module:depends "three""#),
                ("three", "/modules/mod_three.lua", ""),
                ("muc_two", "/opt/prosody-modules-available/mod_muc_two/mod_muc_two.lua", ""),
            ])
            .with_certificates(certificates());
        for name in ["roster", "muc", "muc_mam", "http_file_share", "proxy65", "pep"] {
            let file = ModuleFindings::example(&[(name, "/usr/lib/prosody/modules/mod.lua", "")]);
            *input.findings.modules.module_mut(name) = file.module(name).unwrap().clone();
        }
        input.facts.entries = vec!["certs".into(), "conf.d".into()];
        input
    };
    let (plan, report) = input().plan_and_report();
    let (again, report_again) = input().plan_and_report();
    assert_eq!(plan, again);
    assert_eq!(report.to_string(), report_again.to_string());
    assert_eq!(report.warnings().collect::<Vec<_>>(), report_again.warnings().collect::<Vec<_>>());

    type Change<'a> = (&'a str, &'a dyn Fn(&mut Input));
    let changes: [Change; 8] = [
        ("a setting", &|input| input.environment = &ENVIRONMENT[..4]),
        ("the version", &|input| {
            input.facts.prosody.version = crate::facts::prosody::Version::parse("0.12.3")
        }),
        ("the configuration directory", &|input| drop(input.facts.entries.pop())),
        ("the data directory", &|input| input.facts.data_dir = "/srv".into()),
        ("a module's file", &|input| {
            input.findings.modules.module_mut("three").found.file.as_mut().unwrap().digest += 1;
        }),
        ("a certificate", &|input| {
            input.findings.certificates.served[0].origin = CertificateOrigin::Found(pair("a.example", 61));
        }),
        ("the generation", &|input| input.generation = "/run/prosody/generation-8"),
        ("secrets", &|input| {
            input.environment = &[("PROSODY_DOMAIN", "a.example"), ("PROSODY_TURN_SECRET", "S3CRET")];
            input.secrets = Secrets::Hidden;
        }),
    ];
    for (what, change) in changes {
        let mut other = input();
        change(&mut other);
        assert_ne!(other.plan_and_report().0, plan, "{what}");
    }
}

#[test]
fn the_main_file_includes_the_others_by_their_absolute_names() {
    let mut input = Input::new(THREE_HOSTS);
    let files = &mut input.facts.custom_files;
    files.extra.push(CustomFile::example("/etc/prosody/conf.d/own.cfg.lua", "x = 1\n"));
    files
        .virtual_hosts
        .push(CustomFile::example("/etc/prosody/vhost.d/v.cfg.lua.j2", "-- {{ prosody_version }}\ny = 1\n"));
    let plan = input.plan();
    assert_eq!(plan.main_file(), Path::new("/run/prosody/generation-7/prosody.cfg.lua"));
    assert_eq!(text(&plan, "own--vhost.d--v.cfg.lua"), "-- \"13.0.1\"\ny = 1\n");
    let main = text(&plan, "prosody.cfg.lua");
    let included: Vec<&str> = main
        .lines()
        .filter_map(|line| line.strip_prefix("Include "))
        .map(|line| line.trim_matches('"'))
        .collect();
    assert_eq!(
        included,
        [
            "/run/prosody/generation-7/global.cfg.lua",
            "/run/prosody/generation-7/modules.cfg.lua",
            "/run/prosody/generation-7/vhosts.cfg.lua",
            "/run/prosody/generation-7/own--vhost.d--v.cfg.lua",
            "/etc/prosody/conf.d/own.cfg.lua",
        ]
    );
    assert_eq!(paths(&plan).last(), Some(&"health"));
    assert_eq!(plan.virtual_hosts, ["a.example", "b.example", "c.example"]);
}

#[test]
fn secrets_are_hidden_where_a_plan_is_only_shown() {
    let mut input =
        Input::new(&[("PROSODY_TURN_SECRET", "S3CRET"), ("PROSODY_OPTIONS", r#"{"x": "PR1VATE"}"#)]);
    let holds = |input: &Input, word: &str| input.plan().files.iter().any(|file| file.content.contains(word));
    assert!(holds(&input, "S3CRET") && holds(&input, "PR1VATE"));
    input.secrets = Secrets::Hidden;
    assert!(!holds(&input, "S3CRET") && !holds(&input, "PR1VATE"));
    // Secrets that Prosody reads from a file by itself are in no rendered file.
    input.secrets = Secrets::Written;
    let file = SecretFile { path: "/run/secrets/turn".to_owned(), digest: 7 };
    input.facts.secret_files.insert("turn_secret", file);
    assert!(!holds(&input, "S3CRET") && holds(&input, "/run/secrets/turn"));
    assert!(input.plan().state.contains("file\t/run/secrets/turn\t7\n"));
}

#[test]
fn each_certificate_is_written_once_and_linked_for_other_names() {
    let plan = Input::new(THREE_HOSTS).with_certificates(certificates()).plan();
    let [import] = &plan.imports[..] else { panic!("{:?}", plan.imports) };
    assert_eq!(import.path, Path::new("certificates/a.example.pem"));
    assert_eq!((&import.certificate, &import.key), (&import.pair.certificate, &import.pair.key));
    assert_eq!(links(&plan), [("certificates/b.example.pem", "a.example.pem")]);
    let [request] = &plan.self_signed[..] else { panic!("{:?}", plan.self_signed) };
    assert_eq!((&*request.host_ascii, &request.names[..]), ("c.example", &["c.example".to_owned()][..]));
    let hosts = text(&plan, "vhosts.cfg.lua");
    let file = "certificate = \"/run/prosody/current/certificates/a.example.pem\"";
    assert_eq!(hosts.matches(file).count(), 2, "{hosts}");
    assert!(hosts.contains("certificate = \"/var/lib/prosody/self-signed/c.example.crt\""), "{hosts}");
}

#[test]
fn a_usable_self_signed_certificate_is_not_made_again() {
    let mut certificates = certificates();
    certificates.self_signed[0].is_usable = true;
    let plan = Input::new(THREE_HOSTS).with_certificates(certificates).plan();
    assert!(plan.self_signed.is_empty());
    assert!(text(&plan, "vhosts.cfg.lua").contains("/self-signed/c.example.crt"));
}

#[test]
fn the_certificate_directory_is_the_same_in_all_applied_generations() {
    let mut input = Input::new(THREE_HOSTS).with_certificates(certificates());
    let global = |input: &Input| text(&input.plan(), "global.cfg.lua").to_owned();
    assert!(global(&input).contains("certificates = \"/run/prosody/current/certificates\""));
    let first = "https_certificate = \"/run/prosody/current/certificates/a.example.pem\"";
    assert!(global(&input).contains(first), "{}", global(&input));
    input.generation = "/srv/output";
    assert!(global(&input).contains("certificates = \"/srv/output/certificates\""));
    let written = [("PROSODY_OPTIONS", r#"{"certificates": "/own", "https_certificate": null}"#)];
    let written = Input::new(&written).with_certificates(certificates());
    assert!(global(&written).contains("/own") && !global(&written).contains("https_certificate"));
}

#[test]
fn certificate_problems_are_reported() {
    let mut found = certificates();
    let soon = pair("soon.example", 5);
    found.served.push(served("soon.example", CertificateOrigin::Found(Rc::clone(&soon))));
    found
        .served
        .push(served("below.soon.example", CertificateOrigin::OfParent("soon.example".to_owned(), soon)));
    found.served.push(served("kept.example", CertificateOrigin::Kept(pair("kept.example", 60))));
    let wrong = |path: &str, why: &str| UnusedFile {
        path: path.into(),
        flaw: Flaw { why: why.to_owned().into(), is_incomplete: false, is_worse: false },
    };
    found.served[0].unused.push(wrong("/certs/old.crt", "expired on 2026-03-01"));
    found.problems.push(wrong("/certs/broken.pem", "is no certificate"));
    found.http_without.push("web.example".to_owned());
    found.missing_places.push(("PROSODY_CERTIFICATES".to_owned(), "/certs".into()));
    let input = Input::new(THREE_HOSTS).with_certificates(found);
    let warnings = input.warnings();
    for expected in [
        "No certificate for c.example in /etc/prosody/certs: using a self-signed one",
        "Certificate of soon.example: /certs/soon.example.crt, issued by Example CA, ends on 2027-01-20, in 5 days: renew",
        "Keeping the current certificate of kept.example: there is no other any more",
        "The certificate of soon.example is used for below.soon.example too, which it does not name",
        "No certificate for web.example, where HTTP services answer",
        "Certificate not used: /certs/broken.pem: is no certificate",
        "Certificate not used: /certs/old.crt: expired on 2026-03-01",
        "PROSODY_CERTIFICATES: /certs is not there, or not yet",
    ] {
        assert!(warnings.iter().any(|warning| warning.starts_with(expected)), "{expected}: {warnings:#?}");
    }
    assert_eq!(warnings.len(), 8, "{warnings:#?}");
    let lines = input.plan().certificates.lines;
    assert!(lines[0].starts_with("Certificate of a.example, b.example: /certs/a.example.crt"), "{lines:?}");

    let environment = [THREE_HOSTS[0], ("PROSODY_SELF_SIGNED_CERTIFICATES", "false")];
    let without = Assignments { without: vec!["c.example".to_owned()], ..Assignments::default() };
    let warnings = Input::new(&environment).with_certificates(without).warnings();
    assert!(warnings[0].contains("nobody can connect to them with TLS"), "{warnings:?}");
}

#[test]
fn relative_paths_in_custom_files_resolve_to_the_configuration_directory() {
    let mut input = Input::new(&[]);
    input.facts.entries = ["certs", "community-modules", "global.cfg.lua", "motd"].map(Into::into).into();
    assert_eq!(
        links(&input.plan()),
        [("certs", "/etc/prosody/certs"), ("motd", "/etc/prosody/motd")],
        "what is ours is not replaced"
    );
}

#[test]
fn modules_of_the_collection_are_linked() {
    let plan = Input::new(&[("PROSODY_MODULES_ENABLED", "one, two")])
        .with_modules(&[
            ("one", "/opt/prosody-modules-available/mod_one/mod_one.lua", r#"module:require "lib""#),
            ("one/lib", "/opt/prosody-modules-available/mod_one/lib.lib.lua", r#"module:depends "three""#),
            ("two", "/modules/mod_two.lua", ""),
            ("three", "/opt/prosody-modules-available/mod_three.lua", ""),
        ])
        .plan();
    assert_eq!(
        links(&plan),
        [
            ("community-modules/mod_one", "/opt/prosody-modules-available/mod_one"),
            ("community-modules/mod_three.lua", "/opt/prosody-modules-available/mod_three.lua"),
        ]
    );
    assert!(text(&plan, "modules.cfg.lua").contains("/run/prosody/current/community-modules"));
    // The state has a digest of each file that Prosody reads for a module.
    let files: Vec<&str> =
        plan.state.lines().filter_map(|line| line.strip_prefix("module\t")?.split('\t').next()).collect();
    assert_eq!(
        files,
        [
            "/opt/prosody-modules-available/mod_one/mod_one.lua",
            "/opt/prosody-modules-available/mod_one/lib.lib.lua",
            "/modules/mod_two.lua",
            "/opt/prosody-modules-available/mod_three.lua",
        ]
    );
    let three = plan.modules.iter().find(|module| module.name == "three").unwrap();
    assert_eq!((&three.requests[..], &three.needed_by[..]), (&[][..], &[("one".to_owned(), false)][..]));
    assert!(!text(&Input::new(&[]).plan(), "modules.cfg.lua").contains("community-modules"));
}

#[test]
fn modules_for_rooms_go_to_their_components() {
    let environment =
        [("PROSODY_DOMAIN", "chat.example"), ("PROSODY_MODULES_ENABLED", "muc_one, service, other, muc")];
    let collection = "/opt/prosody-modules-available";
    let modules = |environment| {
        Input::new(environment).with_modules(&[
            ("muc_one", &format!("{collection}/mod_muc_one.lua"), ""),
            ("service", &format!("{collection}/mod_service.lua"), r#"module:depends "muc""#),
            (
                "other",
                &format!("{collection}/mod_other.lua"),
                r#"function module.load() module:depends "muc" end"#,
            ),
            ("muc", "/usr/lib/prosody/modules/muc/mod_muc.lua", ""),
        ])
    };
    let input = modules(&environment);
    let (plan, report) = input.plan_and_report();
    let rooms = text(&plan, "components.cfg.lua");
    assert!(rooms.contains("\"muc_one\"") && rooms.contains("\"service\""), "{rooms}");
    let everywhere = text(&plan, "modules.cfg.lua");
    for (name, is_there) in [("muc_one", false), ("service", false), ("other", true), ("muc", false)] {
        assert_eq!(everywhere.contains(&format!("\"{name}\"")), is_there, "{name}: {everywhere}");
    }
    let infos = report.infos.join("\n");
    assert!(infos.contains("muc_one is for rooms, and loaded on conference.chat.example"), "{infos}");
    assert!(infos.contains("muc is loaded already: it serves conference.chat.example"), "{infos}");
    let requests = &plan.modules.iter().find(|module| module.name == "service").unwrap().requests;
    assert_eq!(requests[0].role, Role::EnabledOn("conference.chat.example".to_owned()));

    let without = [("PROSODY_VIRTUAL_HOSTS", "a.example"), environment[1]];
    let warnings = modules(&without).warnings();
    for expected in
        ["muc_one is left out: it is for rooms", "muc is left out: it serves an address of its own"]
    {
        assert!(warnings.iter().any(|warning| warning.contains(expected)), "{expected}: {warnings:?}");
    }
}

#[test]
fn a_missing_module_is_an_error_with_a_hint() {
    let mut input = Input::new(&[("PROSODY_MODULES_ENABLED", "pastbin")]).with_modules(&[]);
    input.findings.modules.names = ["pastebin", "roster"].map(str::to_owned).into();
    assert_eq!(
        input.errors(),
        ["PROSODY_MODULES_ENABLED: no module `pastbin` for Prosody 13.0.1 in /usr/lib/prosody/modules, \
             /opt/prosody-modules-available; did you mean `pastebin`?"]
    );
    let folders = &mut input.findings.modules.folders;
    folders[1].1 = false;
    let [error] = &input.errors()[..] else { panic!() };
    assert!(error.contains("/opt/prosody-modules-available (which Prosody's user cannot read)"), "{error}");
    // A file that Prosody skips is named.
    input
        .findings
        .modules
        .module_mut("pastbin")
        .found
        .skipped
        .push("/m/mod_pastbin.lua is for Lua 5.1".into());
    assert_eq!(
        input.errors(),
        [
            "PROSODY_MODULES_ENABLED: no module `pastbin` that Prosody 13.0.1 can load: /m/mod_pastbin.lua is for Lua 5.1; \
             replace it, or leave `pastbin` out"
        ]
    );
}

#[test]
fn a_missing_dependency_is_an_error_or_a_warning_if_conditional() {
    let input = |source: &str| {
        Input::new(&[("PROSODY_MODULES_ENABLED", "one")]).with_modules(&[
            ("one", "/modules/mod_one.lua", source),
            ("two", "/modules/mod_two.lua", r#"module:depends "three""#),
        ])
    };
    let certain = input(r#"module:depends "two""#);
    let why = "`one` needs `two`, which needs `three`, and there is no module `three` for Prosody 13.0.1";
    let [error] = &certain.errors()[..] else { panic!("{:?}", certain.errors()) };
    assert!(error.starts_with(&format!("PROSODY_MODULES_ENABLED: {why}")), "{error}");
    assert!(error.ends_with("or leave `one` out"), "{error}");

    let conditional = input(r#"function module.load() module:depends "two" end"#);
    assert_eq!(conditional.errors(), [""; 0]);
    let warnings = conditional.warnings();
    let why = "PROSODY_MODULES_ENABLED: `one` may need `two`, which needs `three`";
    assert!(warnings.iter().any(|warning| warning.starts_with(why)), "{warnings:?}");
    // An unconditional dependency beside the conditional one makes it an error.
    let both = input("function module.load() module:depends \"two\" end\nmodule:depends \"two\"\n");
    assert_eq!(both.errors().len(), 1);
}

/// Fails if `work` takes 5 s of the processor's time or more.
fn in_time<T>(work: impl FnOnce() -> T) -> T {
    let used = || getrusage(UsageWho::RUSAGE_THREAD).unwrap().user_time().tv_sec();
    let before = used();
    let result = work();
    assert!(used() - before < 5, "{} s", used() - before);
    result
}

#[test]
fn any_number_of_needs_and_of_unknown_names_is_reported_in_time() {
    let source: String = (0..8_000).map(|number| format!("module:depends'nothing_{number}'\n")).collect();
    let input = Input::new(&[("PROSODY_MODULES_ENABLED", "one")])
        .with_modules(&[("one", "/modules/mod_one.lua", &source)]);
    assert_eq!(in_time(|| input.errors()).len(), 8_000);

    let names: Vec<String> = (0..40_000).map(|number| format!("mod_muk_{number}")).collect();
    let names = names.join(",");
    let environment = [("PROSODY_MODULES_ENABLED", &*names), ("PROSODY_MODULES_DISABLED", &*names)];
    let mut input = Input::new(&environment).with_modules(&[]);
    input.findings.modules.names = (0..50).map(|number| format!("muc_{number}")).collect();
    let errors = in_time(|| input.errors());
    assert_eq!(errors.len(), 40_000);
    let hints = errors.iter().filter(|error| error.contains("did you mean")).count();
    assert_eq!(hints, crate::text::MOST_HINTS);

    let rooms: String = (0..40_000).map(|number| format!("muc_{number},")).collect();
    let environment = [("PROSODY_DOMAIN", "a.example"), ("PROSODY_MODULES_ENABLED", &*rooms)];
    let input = Input::new(&environment).with_modules(&[]);
    assert_eq!(in_time(|| input.errors()).len(), 40_000);

    let variables: Vec<String> = (0..20_000).map(|number| format!("PROSODY_DOMIAN_{number}")).collect();
    let variables: Vec<_> = variables.iter().map(|name| (name.as_str(), "x")).collect();
    let warnings = in_time(|| Input::new(&variables).warnings());
    assert_eq!(
        warnings.iter().filter(|warning| warning.contains("there is no such setting")).count(),
        20_000
    );
}

#[test]
fn a_long_way_to_a_missing_module_is_shortened() {
    let name = |number: usize| format!("m{number}");
    let files: Vec<(String, String)> =
        (0..3_000).map(|number| (name(number), format!("module:depends'{}'", name(number + 1)))).collect();
    let files: Vec<_> =
        files.iter().map(|(name, source)| (name.as_str(), "/modules/mod_m.lua", source.as_str())).collect();
    let input = Input::new(&[("PROSODY_MODULES_ENABLED", "m0")]).with_modules(&files);
    let [error] = &in_time(|| input.errors())[..] else { panic!() };
    let way = "`m0` needs …, which needs `m2991`, which needs `m2992`, ";
    assert!(error.contains(way) && error.contains("which needs `m3000`, and there is no module"), "{error}");
}

#[test]
fn missing_libraries_are_named() {
    let mut input = Input::new(&[("PROSODY_MODULES_ENABLED", "one")]).with_modules(&[(
        "one",
        "/modules/mod_one.lua",
        "module:require \"lib\"\nlocal a = require \"util.nothing\"\nlocal b = require \"inspect\"\n",
    )]);
    let libraries = &mut input.findings.modules.missing_lua_libraries;
    libraries.extend(["util.nothing", "inspect"].map(str::to_owned));
    let errors = input.errors();
    for expected in [
        "`one` needs its library lib.lib.lua, which is not in ",
        "`one` needs `util.nothing`, which Prosody 13.0.1 does not have: leave `one` out",
        "`one` needs the Lua library `inspect`, which is not installed: install it in the image, or leave `one` out",
    ] {
        assert!(errors.iter().any(|error| error.contains(expected)), "{expected}: {errors:#?}");
    }
    assert_eq!(errors.len(), 3, "{errors:#?}");
}

#[test]
fn a_custom_module_in_place_of_another_is_reported() {
    let mut input = Input::new(&[]).with_modules(&[("roster", "/modules/mod_roster.lua", "")]);
    input.findings.modules.module_mut("roster").shadowed = Some(modules::ModuleOrigin::Prosody);
    for name in ["pep", "disco"] {
        let file = ModuleFindings::example(&[(name, "/usr/lib/prosody/modules/mod.lua", "")]);
        *input.findings.modules.module_mut(name) = file.module(name).unwrap().clone();
    }
    let (plan, report) = input.plan_and_report();
    assert_eq!(report.infos, ["The module roster is /modules/mod_roster.lua, and not Prosody's own"]);
    assert!(has(&plan, "roster"));

    let problem = |is_fatal| {
        let problem = Problem { what: "/modules/mod_roster.lua is not Lua".to_owned(), is_fatal };
        let mut input = Input::new(&[]).with_modules(&[("roster", "/modules/mod_roster.lua", "")]);
        input.findings.modules.module_mut("roster").found.problem = Some(problem);
        let message = "the default set: /modules/mod_roster.lua is not Lua".to_owned();
        (input.errors().contains(&message), input.warnings().contains(&message))
    };
    assert_eq!((problem(true), problem(false)), ((true, false), (false, true)));
}

#[test]
fn disabled_dependencies_are_reported() {
    let environment = [
        ("PROSODY_MODULES_DISABLED", "pep, offline, adhoc"),
        ("PROSODY_VIRTUAL_HOSTS", r#"[{"host": "a.example", "modules_disabled": ["roster"]}]"#),
        ("PROSODY_MODULES_ENABLED", "one, two"),
    ];
    let own = "/usr/lib/prosody/modules";
    let input = Input::new(&environment).with_modules(&[
        ("bookmarks", &format!("{own}/mod_bookmarks.lua"), r#"module:depends "pep""#),
        ("pep", &format!("{own}/mod_pep.lua"), ""),
        ("roster", &format!("{own}/mod_roster.lua"), ""),
        ("offline", &format!("{own}/mod_offline.lua"), ""),
        ("adhoc", &format!("{own}/mod_adhoc.lua"), ""),
        ("one", "/modules/mod_one.lua", "module:depends \"offline\"\nmodule:depends \"roster\"\n"),
        ("two", "/modules/mod_two.lua", r#"function module.load() module:depends "adhoc" end"#),
    ]);
    let warnings = input.warnings();
    let warned =
        |expected: &str| assert!(warnings.iter().any(|warning| warning == expected), "{warnings:#?}");
    warned(
        "PROSODY_MODULES_DISABLED: pep is loaded all the same, for it is needed by bookmarks: disable these too",
    );
    warned(
        "PROSODY_MODULES_DISABLED: offline is needed by one, which will not load: disable these too, or leave offline \
         enabled",
    );
    warned("PROSODY_MODULES_DISABLED: adhoc may be needed by two: disable these too, or leave adhoc enabled");
    warned(
        "PROSODY_VIRTUAL_HOSTS: on a.example, roster is disabled and needed by one, which will not load there: disable \
         these too",
    );
    // An optional dependency causes no warning (`module:depends("x", true)`).
    let soft = Input::new(&environment[..1]).with_modules(&[(
        "bookmarks",
        "/modules/mod_bookmarks.lua",
        r#"module:depends("pep", true)"#,
    )]);
    assert!(!soft.warnings().iter().any(|warning| warning.contains("pep")), "{:?}", soft.warnings());
}

#[test]
fn an_unused_provider_is_reported() {
    let input = Input::new(&[
        ("PROSODY_MODULES_ENABLED", "auth_ldap, storage_sql"),
        ("PROSODY_DEFAULT_STORAGE", "sql"),
    ]);
    let warnings = input.warnings();
    let unused: Vec<&String> = warnings.iter().filter(|warning| warning.contains("not used")).collect();
    assert_eq!(
        unused,
        [
            "PROSODY_MODULES_ENABLED: auth_ldap is loaded and not used: the authentication provider is internal_hashed (the \
             default); PROSODY_AUTHENTICATION=ldap chooses it"
        ]
    );
}

#[test]
fn an_end_to_end_encryption_policy_is_enforced_or_rejected() {
    let required = [("DOMAIN", "a.example"), ("E2E_POLICY_MUC", "required")];
    let [error] = &Input::new(&required).with_modules(&[]).errors()[..] else { panic!() };
    assert!(error.starts_with("E2E_POLICY_MUC: there is no module `e2e_policy`"), "{error}");
    let there = Input::new(&required).with_modules(&[("e2e_policy", "/modules/mod_e2e_policy.lua", "")]);
    let optional = Input::new(&[("DOMAIN", "a.example"), ("E2E_POLICY_MUC", "optional")]).with_modules(&[]);
    assert_eq!((there.errors(), optional.errors()), (Vec::new(), Vec::new()));
    assert!(optional.warnings().iter().any(|warning| warning.starts_with("E2E_POLICY_MUC")));
}

#[test]
fn accounts_are_in_no_file_of_the_configuration() {
    let environment =
        [("PROSODY_VIRTUAL_HOSTS", "a.example, b.example"), ("PROSODY_ACCOUNTS", "boss@a.example:S3CRET")];
    let mut input = Input::new(&environment);
    let plan = input.plan();
    assert_eq!(plan.accounts.as_deref(), Some("boss@a.example\t\tS3CRET\n"));
    assert!(plan.files.iter().all(|file| !file.content.contains("S3CRET")), "passwords are in no file");
    assert!(!plan.state.contains("S3CRET"));

    // Nothing would take them.
    let template = CustomFile::example("/etc/prosody/templates/prosody.cfg.lua.j2", "Include 'x'\n");
    input.facts.custom_files.templates.push(template);
    assert_eq!(input.plan().accounts, None);
    let warnings = input.warnings();
    assert!(warnings.iter().any(|warning| warning.starts_with("Accounts are not made")), "{warnings:?}");
}

#[test]
fn the_state_covers_everything_that_a_reload_compares() {
    let environment = [
        ("PROSODY_VIRTUAL_HOSTS", "a.example"),
        ("PROSODY_COMPONENTS", "rooms.a.example:muc"),
        ("PROSODY_RESTRICT_ROOM_CREATION", "local"),
        ("PROSODY_EXTERNAL_COMPONENTS", "irc.example:S3CRET"),
        ("PROSODY_OPTIONS", r#"{"sql": {"driver": "SQLite3", "database": "x"}}"#),
    ];
    let mut found = certificates();
    found.pending.insert("/certs/half\tdone.pem".to_owned());
    let muc = ("muc", "/usr/lib/prosody/modules/muc/mod_muc.lua", "");
    let mut input = Input::new(&environment).with_certificates(found).with_modules(&[muc]);
    let text = "data_path = \"/elsewhere\"\nVirtualHost \"own.example\"\n";
    input.facts.custom_files.extra.push(CustomFile::example("/etc/prosody/conf.d/own.cfg.lua", text));
    let state = input.plan().state;
    let begins = |line: &str| {
        assert!(state.lines().any(|other| other.starts_with(line)), "{line:?}\n{state}");
    };
    begins("host\ta.example\t");
    begins("host\trooms.a.example\tmuc");
    begins("host\tirc.example\tcomponent");
    begins("host\town.example\town");
    begins("option\t\tdata_path\t");
    begins("option\t\tsql.driver\t");
    begins("option\t\tsql.database\t");
    begins("option\trooms.a.example\trestrict_room_creation\t");
    begins("option\t/etc/prosody/conf.d/own.cfg.lua\tdata_path\t");
    begins("file\t/etc/prosody/conf.d/own.cfg.lua\t");
    let digest = pair("a.example", 60).digest;
    begins(&format!("certificate\ta.example\t/certs/a.example.crt\t{digest:x}"));
    begins(&format!("certificate\tb.example\t/certs/a.example.crt\t{digest:x}"));
    begins("pending\t/certs/half?done.pem");
    assert!(!state.contains("S3CRET"), "digests stand for values");
    // The generation's own directory does not affect the state.
    input.generation = "/run/prosody/generation-8";
    assert_eq!(input.plan().state, state);
}

#[test]
fn unused_data_and_logged_passwords_cause_warnings() {
    let mut input = Input::new(&[]);
    input.facts.has_sqlite_file = true;
    let warns = |input: &Input, word: &str| input.warnings().iter().any(|warning| warning.contains(word));
    assert!(warns(&input, "/var/lib/prosody/prosody.sqlite: nothing uses these data"));
    input.environment = &[("PROSODY_DEFAULT_STORAGE", "sqlite")];
    assert!(!warns(&input, "nothing uses these data"));
    let database = ("PROSODY_DATABASE_URL", "postgresql://prosody:S3CRET@db.example/chat");
    let debug = [database, ("PROSODY_LOG_LEVEL", "debug")];
    assert!(warns(&Input::new(&debug), "with its password"));
    assert!(!warns(&Input::new(&debug[..1]), "with its password"));
}

#[test]
fn the_health_check_uses_a_bound_address() {
    let health = |environment| text(&Input::new(environment).plan(), "health").to_owned();
    assert_eq!(health(&[]), "c2s 127.0.0.1 5222 localhost\nc2s ::1 5222 localhost\n");
    let one = [("PROSODY_C2S_PORTS", "5333"), ("PROSODY_INTERFACES", "192.0.2.1, 127.0.0.1")];
    assert_eq!(
        health(&one),
        "c2s 127.0.0.1 5333 localhost\nc2s 192.0.2.1 5333 localhost\n",
        "loopback is the first"
    );
    for (written, expected) in [
        (r#"{"c2s_interfaces": ["10.0.0.1"]}"#, "c2s 10.0.0.1 5222 localhost\n"),
        (r#"{"interfaces": "10.0.0.1"}"#, "c2s 10.0.0.1 5222 localhost\n"),
        (r#"{"c2s_ports": 5322, "c2s_interface": "*"}"#, "c2s 127.0.0.1 5322 localhost\n"),
        (r#"{"c2s_ports": ["5322"], "interfaces": ["::"]}"#, "c2s ::1 5322 localhost\n"),
        (r#"{"c2s_ports": [], "s2s_interfaces": "::1"}"#, "s2s ::1 5269 localhost\n"),
        (r#"{"c2s_ports": [], "s2s_ports": []}"#, ""),
        (r#"{"interfaces": "eth0"}"#, "listening\n"),
    ] {
        let environment = [("PROSODY_OPTIONS", written)];
        let health = text(&Input::new(&environment).plan(), "health").to_owned();
        assert_eq!(health, expected, "{written}");
    }
    let others = [("PROSODY_MODULES_DISABLED", "c2s"), ("PROSODY_S2S_PORTS", "5270, 5271")];
    let input = Input::new(&others).with_modules(&[]);
    let health = text(&input.plan_and_report().0, "health").to_owned();
    assert_eq!(health, "s2s 127.0.0.1 5270 localhost\ns2s ::1 5270 localhost\n");
}
