//! A random walk: a running server is brought from configuration to configuration, and each time it must be as a fresh
//! server of the same configuration is.
//!
//! `tests/live/mod_description.lua` describes both servers: hosts, modules and the values of their variables, service
//! discovery, ports, roles. A failure prints the seed; `WALK_SEED=N` walks the same way, `WALK_STEPS=N` as far as that.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use serde_json::{Map, Value, json};

use crate::docker::{BOOKWORM, Container, Recipe, TRIXIE, docker, is_all_wanted};
use crate::live::{DESCRIPTION, description};
use crate::random::{Random, number};
use crate::reload::reload;

/// The walk of `make test`, and that of `make test-all`.
const STEPS: [usize; 2] = [7, 200];

/// Failures to collect before a walk ends.
const ENOUGH: usize = 5;

/// Virtual hosts. The first one is always there.
const HOSTS: [&str; 4] = ["a.example", "b.example", "deep.a.example", "c.example"];

/// Components, with the modules that serve them in turn.
const COMPONENTS: [(&str, &[&str]); 6] = [
    ("rooms.a.example", &["muc"]),
    ("rooms.b.example", &["muc", "pubsub"]),
    ("upload.a.example", &["http_file_share"]),
    ("proxy.a.example", &["proxy65"]),
    ("nodes.b.example", &["pubsub", "muc"]),
    ("alone.example", &["muc", "http_file_share"]),
];

const EXTERNAL: [&str; 2] = ["gateway.example", "gateway.a.example"];

/// Modules to enable, for all virtual hosts or one of them.
const MODULES: &[&str] = &[
    "announce", "bosh", "csi", "external_services", "groups", "lastactivity", "mam", "mimicking", "motd",
    "own", "own_global", "own_shared", "s2s_bidi", "server_contact_info", "stanza_debug", "tombstones",
    "turn_external", "watchregistrations", "websocket", "welcome",
];

/// Modules of the default set to disable.
const DEFAULTS: &[&str] = &[
    "account_activity", "admin_adhoc", "blocklist", "bookmarks", "carbons", "cloud_notify", "csi_simple",
    "invites_adhoc", "limits", "ping", "private", "register", "time", "uptime", "vcard4", "version",
];

/// Options for the server and for virtual hosts, with their values.
const OPTIONS: &[(&str, &[&str])] = &[
    ("allow_user_invites", &["true", "false"]),
    ("archive_expires_after", &[r#""1d""#, r#""2w""#, r#""never""#]),
    ("bosh_max_inactivity", &["30", "90"]),
    ("contact_info", &[r#"{"abuse": ["mailto:x@a.example"]}"#, r#"{"support": ["xmpp:y@a.example"]}"#]),
    ("default_archive_policy", &["true", "false", r#""roster""#]),
    ("disco_items", &[r#"[["one.example", "one"]]"#, r#"[["two.example", "two"], ["three.example"]]"#]),
    ("external_services", &[r#"[{"type": "stun", "host": "stun.example"}]"#]),
    ("http_external_url", &[r#""https://web.example/""#, r#""http://other.example:8080/x/""#]),
    ("http_file_share_size_limit", &["1000", "2000000"]),
    ("http_host", &[r#""web.example""#, r#""www.example""#]),
    ("http_paths", &[r#"{"bosh": "/b2"}"#, r#"{"bosh": "/b3", "file_share": "/f"}"#]),
    ("max_archive_query_results", &["7", "70"]),
    ("max_history_messages", &["5", "50"]),
    ("motd_text", &[r#""one""#, r#""two""#]),
    ("muc_room_default_public", &["true", "false"]),
    ("own_option", &["1", "2", "[1, 2]"]),
    ("pep_max_items", &["10", "20"]),
    ("restrict_room_creation", &["true", "false", r#""local""#]),
    ("smacks_hibernation_time", &["100", "700"]),
    ("smacks_max_queue_size", &["10", "100"]),
    ("turn_external_host", &[r#""turn.example""#]),
    ("turn_external_secret", &[r#""secret""#, r#""secret too""#]),
    ("welcome_message", &[r#""one""#, r#""two""#]),
];

/// Options for the server alone.
const GLOBAL_OPTIONS: &[(&str, &[&str])] = &[
    ("c2s_direct_tls_ports", &["[5223]", "[15223]", "[]"]),
    ("c2s_ports", &["[5222]", "[15222]", "[5222, 15222]"]),
    ("c2s_stanza_size_limit", &["20000", "30000"]),
    ("c2s_timeout", &["30", "50"]),
    ("component_ports", &["[5347]", "[15347]", "[15347, 15348]"]),
    ("http_default_host", &[r#""a.example""#, r#""b.example""#]),
    ("http_interfaces", &[r#"["127.0.0.1"]"#, r#"["*"]"#]),
    ("http_max_content_size", &["10000", "20000"]),
    ("http_ports", &["[5280]", "[15280, 15281]", "[]"]),
    ("https_ports", &["[5281]", "[15443]"]),
    ("interfaces", &[r#"["127.0.0.1"]"#, r#"["*"]"#]),
    ("limits", &[r#"{"c2s": {"rate": "20kb/s"}}"#, r#"{"s2sin": {"rate": "9kb/s", "burst": "3s"}}"#]),
    ("log", &[r#"{"warn": "*console"}"#, r#"{"info": "*console"}"#]),
    ("proxy65_ports", &["[5000]", "[15000]"]),
    ("s2s_direct_tls_ports", &["[5270]", "[15270]"]),
    ("s2s_ports", &["[5269]", "[15269]"]),
    ("s2s_secure_auth", &["true", "false"]),
    ("s2s_timeout", &["40", "60"]),
    ("trusted_proxies", &[r#"["127.0.0.1"]"#, r#"["192.0.2.1"]"#]),
    ("use_ipv6", &["true", "false"]),
];

/// Options for one host alone.
const HOST_OPTIONS: &[(&str, &[&str])] = &[
    ("authentication", &[r#""internal_plain""#, r#""internal_hashed""#, r#""anonymous""#]),
    ("disco_hidden", &["true", "false"]),
    ("name", &[r#""One""#, r#""Two""#]),
    ("proxy65_address", &[r#""192.0.2.7""#]),
];

const ADMINS: [&str; 3] = ["admin@a.example", "admin@b.example", "admin@elsewhere.example"];

/// Modules of the test, with a number that changes.
const OWN_MODULES: [(&str, &str); 3] = [
    ("own", "local number, option = NUMBER, module:get_option('own_option');
        module:hook('x-own', function () return number, option; end); module:add_feature('urn:x-own:NUMBER');"),
    ("own_global", "module:set_global(); local number, option = NUMBER, module:get_option('own_option');
        module:hook('x-own-global', function () return number, option; end);"),
    ("own_shared", "module:set_global(); local shared, option = NUMBER, module:get_option('own_option');
        function module.add_host(module)
            local of_host = module:get_option('own_option');
            module:hook('x-own', function () return shared, option, of_host; end);
        end"),
];

#[derive(Debug, Clone, Default, PartialEq)]
struct Section {
    admins: BTreeSet<&'static str>,
    enabled: BTreeSet<&'static str>,
    disabled: BTreeSet<&'static str>,
    options: BTreeMap<&'static str, Value>,
}

/// A configuration of the walk.
#[derive(Debug, Clone, PartialEq)]
struct Configuration {
    global: Section,
    hosts: BTreeMap<&'static str, Section>,
    components: BTreeMap<&'static str, (&'static str, Section)>,
    external: BTreeMap<&'static str, u64>,
    /// The numbers in [`OWN_MODULES`].
    numbers: [u64; OWN_MODULES.len()],
}

/// Puts in what is not there, and takes out what is.
fn toggle(set: &mut BTreeSet<&'static str>, name: &'static str) -> String {
    let is_new = set.insert(name);
    if !is_new {
        set.remove(name);
    }
    format!("{}{name}", if is_new { '+' } else { '-' })
}

impl Section {
    /// Sets an option to one of its values, or to none.
    fn set(&mut self, random: &mut Random, options: &[(&'static str, &[&'static str])]) -> String {
        let (name, values) = random.of(options);
        match values.get(random.below(values.len() as u64 + 1) as usize) {
            Some(value) => self.options.insert(name, serde_json::from_str(value).unwrap()),
            None => self.options.remove(name),
        };
        format!("{name}={}", self.options.get(name).unwrap_or(&Value::Null))
    }

    fn json(&self, host: &str) -> Map<String, Value> {
        let mut object = Map::from_iter([("host".to_owned(), json!(host))]);
        for (name, set) in [
            ("admins", &self.admins),
            ("modules_enabled", &self.enabled),
            ("modules_disabled", &self.disabled),
        ] {
            if !set.is_empty() {
                object.insert(name.to_owned(), json!(set));
            }
        }
        object.insert("options".to_owned(), json!(self.options));
        object
    }
}

impl Configuration {
    fn new() -> Self {
        Self {
            global: Section::default(),
            hosts: BTreeMap::from([(HOSTS[0], Section::default())]),
            components: BTreeMap::new(),
            external: BTreeMap::new(),
            numbers: [1; OWN_MODULES.len()],
        }
    }

    /// Changes one thing. Says which.
    fn change(&mut self, random: &mut Random) -> String {
        let host = random.of(&HOSTS);
        let (component, modules) = random.of(&COMPONENTS);
        match random.below(16) {
            0 if host != HOSTS[0] => {
                if self.hosts.remove(host).is_none() {
                    self.hosts.insert(host, Section::default());
                }
                format!("host {host}: {}", self.hosts.contains_key(host))
            }
            1 | 2 => {
                let module = random.of(modules);
                if self.components.remove(component).is_none_or(|(served, _)| served != module) {
                    self.components.insert(component, (module, Section::default()));
                }
                format!(
                    "component {component}: {:?}",
                    self.components.get(component).map(|(module, _)| module)
                )
            }
            3 => {
                let (host, secret) = (random.of(&EXTERNAL), random.below(3));
                match secret {
                    0 => self.external.remove(host),
                    _ => self.external.insert(host, secret),
                };
                format!("external component {host}: {secret}")
            }
            4 | 5 => format!("enabled: {}", toggle(&mut self.global.enabled, random.of(MODULES))),
            6 => format!("disabled: {}", toggle(&mut self.global.disabled, random.of(DEFAULTS))),
            7 => format!("global {}", self.global.set(random, GLOBAL_OPTIONS)),
            8 | 9 => format!("global {}", self.global.set(random, OPTIONS)),
            10 => format!("admins: {}", toggle(&mut self.global.admins, random.of(&ADMINS))),
            11 => {
                let at = random.below(OWN_MODULES.len() as u64) as usize;
                self.numbers[at] += 1;
                format!("file of {}", OWN_MODULES[at].0)
            }
            12 => match self.components.get_mut(component) {
                None => self.change(random),
                Some((_, section)) if random.below(4) == 0 => {
                    format!("{component}: admins: {}", toggle(&mut section.admins, random.of(&ADMINS)))
                }
                Some((_, section)) => {
                    let options = if random.below(3) == 0 { HOST_OPTIONS } else { OPTIONS };
                    format!("{component}: {}", section.set(random, options))
                }
            },
            kind => match self.hosts.get_mut(host) {
                None => self.change(random),
                Some(section) => {
                    let what = match kind {
                        13 => format!("enabled: {}", toggle(&mut section.enabled, random.of(MODULES))),
                        14 => format!("disabled: {}", toggle(&mut section.disabled, random.of(DEFAULTS))),
                        _ if random.below(4) == 0 => {
                            format!("admins: {}", toggle(&mut section.admins, random.of(&ADMINS)))
                        }
                        _ if random.below(3) == 0 => section.set(random, HOST_OPTIONS),
                        _ => section.set(random, OPTIONS),
                    };
                    format!("{host}: {what}")
                }
            },
        }
    }

    /// The files of the settings, and the modules.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let list = |names: &BTreeSet<&str>| names.iter().copied().collect::<Vec<_>>().join(",");
        let hosts: Vec<Value> = self.hosts.iter().map(|(host, section)| section.json(host).into()).collect();
        let components: Vec<Value> = self
            .components
            .iter()
            .map(|(host, (module, section))| {
                let mut object = section.json(host);
                object.insert("module".to_owned(), json!(module));
                object.into()
            })
            .collect();
        let external: Vec<Value> = self
            .external
            .iter()
            .map(|(host, secret)| json!({"host": host, "secret": format!("secret-{secret}")}))
            .collect();
        let mut files = vec![
            ("/srv/hosts".to_owned(), json!(hosts).to_string()),
            ("/srv/components".to_owned(), json!(components).to_string()),
            ("/srv/external".to_owned(), json!(external).to_string()),
            ("/srv/options".to_owned(), json!(self.global.options).to_string()),
            ("/srv/enabled".to_owned(), format!("description,{}", list(&self.global.enabled))),
            ("/srv/disabled".to_owned(), list(&self.global.disabled)),
            ("/srv/admins".to_owned(), list(&self.global.admins)),
        ];
        for ((name, source), number) in OWN_MODULES.iter().zip(self.numbers) {
            let path = format!("/etc/prosody/modules/mod_{name}.lua");
            files.push((path, source.replace("NUMBER", &number.to_string())));
        }
        files.into_iter().map(|(path, text)| (path, text.into_bytes())).collect()
    }
}

/// A change in words, and the change.
type Step = (&'static str, fn(&mut Configuration));

/// The first steps, which have once left something of before.
const FIRST: [Step; 2] = [
    (
        "a module for one host, a global one of a host, one that needs another for an option",
        |configuration| {
            configuration.hosts.get_mut(HOSTS[0]).unwrap().enabled.insert("bosh");
            let section = Section { enabled: BTreeSet::from(["own_global"]), ..Section::default() };
            configuration.hosts.insert(HOSTS[1], section);
            configuration.global.enabled.insert("turn_external");
            configuration.global.options.insert("turn_external_secret", json!("secret"));
        },
    ),
    ("the module for all hosts, no host with the global one, no option", |configuration| {
        configuration.global.enabled.insert("bosh");
        configuration.hosts.remove(HOSTS[1]);
        configuration.global.options.remove("turn_external_secret");
    }),
];

/// A server of the walk.
struct Server(Container);

impl Server {
    #[track_caller]
    fn start(image: &str, configuration: &Configuration) -> Self {
        let settings = [
            ("VIRTUAL_HOSTS", "hosts"),
            ("COMPONENTS", "components"),
            ("EXTERNAL_COMPONENTS", "external"),
            ("OPTIONS", "options"),
            ("MODULES_ENABLED", "enabled"),
            ("MODULES_DISABLED", "disabled"),
            ("ADMINS", "admins"),
        ];
        let mut recipe =
            // A health check would be a session that only one of two servers has.
            Recipe::new(image).with(["--no-healthcheck"]).env("PROSODY_CERTIFICATE_RELOAD", "false").file(DESCRIPTION.0, DESCRIPTION.1);
        for (setting, file) in settings {
            recipe = recipe.env(&format!("PROSODY_{setting}_FILE"), &format!("/srv/{file}"));
        }
        for (path, content) in configuration.files() {
            recipe = recipe.file(&path, content);
        }
        Self(recipe.start())
    }

    #[track_caller]
    fn description(&self) -> BTreeSet<String> {
        description(&self.0)
    }

    fn restart(&self) {
        docker(["restart", "--time", "0", &self.0.name]).ok();
    }
}

/// What one description has and the other lacks. More certificates are no difference: those of names that are not served
/// any more stay, and a fresh server of 0.12 may lack some.
fn differences(changed: &BTreeSet<String>, fresh: &BTreeSet<String>) -> Vec<String> {
    let more = changed.difference(fresh).filter(|line| !line.starts_with("certificate "));
    let less = fresh.difference(changed);
    more.map(|line| format!("+ {line}")).chain(less.map(|line| format!("- {line}"))).collect()
}

fn walk(image: &str) {
    // `make test` walks the same way each time.
    let mut random = if is_all_wanted() {
        Random::from("WALK_SEED")
    } else {
        Random::with_seed(number("WALK_SEED").unwrap_or(1))
    };
    let seed = random.seed;
    let steps = number("WALK_STEPS").map_or(STEPS[usize::from(is_all_wanted())], |steps| steps as usize);
    let mut configuration = Configuration::new();
    let [changed, fresh] = thread::scope(|scope| {
        [(), ()]
            .map(|()| scope.spawn(|| Server::start(image, &configuration)))
            .map(|server| server.join().unwrap())
    });
    changed.description();
    let mut failures = Vec::new();
    for step in 1..=FIRST.len() + steps {
        let changes: Vec<String> = if let Some((what, change)) = FIRST.get(step - 1) {
            change(&mut configuration);
            vec![(*what).to_owned()]
        } else {
            let count = 1 + random.below(if step % 10 == 0 { 12 } else { 4 });
            (0..count).map(|_| configuration.change(&mut random)).collect()
        };
        let files = configuration.files();
        let (said, is, should) = thread::scope(|scope| {
            let fresh = scope.spawn(|| {
                fresh.0.put_all(&files);
                fresh.restart();
                fresh.description()
            });
            changed.0.put_all(&files);
            let said = reload(&changed.0);
            (said, changed.description(), fresh.join().unwrap())
        });
        let mut wrong = differences(&is, &should);
        let unusual = ["restart", "Not as configured", "Not reloaded", "traceback"];
        wrong.extend(
            said.all()
                .lines()
                .filter(|line| unusual.iter().any(|word| line.contains(word)))
                .map(str::to_owned),
        );
        if !wrong.is_empty() {
            failures.push(format!("step {step}: {}\n  {}", changes.join("; "), wrong.join("\n  ")));
            if failures.len() == ENOUGH {
                break;
            }
            // The next steps shall not suffer from it.
            changed.restart();
            changed.description();
        }
    }
    assert!(
        failures.is_empty(),
        "WALK_SEED={seed}, {steps} steps: a changed server (+) is not as a fresh one (-):\n{}",
        failures.join("\n")
    );
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_changed_server_is_as_a_fresh_one_on_13_0() {
    walk(TRIXIE);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_changed_server_is_as_a_fresh_one_on_0_12() {
    walk(BOOKWORM);
}
