//! What we render, loaded by Prosody's own configuration loader and compared, value by value,
//! with what the settings mean. The cases are in tests/oracle/cases; tests/oracle/README.md says
//! how one is written.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value, json};

use crate::docker::{BOOKWORM, Container, Recipe, TRIXIE, is_all_wanted, require};

/// Where a case's own directory is in the container, in values and in expectations.
const HERE: &str = "@here@";

/// One line of a case file.
struct Case {
    /// The file, the setting and the number, to find it by.
    name: String,
    /// The version of Prosody that it is about; both where there is none.
    version: Option<String>,
    environment: Vec<(String, String)>,
    /// Paths below the configuration directory, and contents.
    files: Vec<(String, String)>,
    /// Host (or `*`), option, value or matcher.
    expect: Map<String, Value>,
    /// All hosts and components.
    hosts: Option<Vec<String>>,
    /// What the report must name, where the start is to be refused.
    refused: Option<Vec<String>>,
    /// What a warning must name.
    warns: Vec<String>,
    /// What neither output may have.
    never_prints: Vec<String>,
}

/// How one case went in one version.
struct Outcome {
    status: i32,
    output: String,
    /// What load.lua printed; `Null` where nothing was rendered.
    loaded: Value,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle")
}

fn texts(value: &Value, name: &str) -> Vec<String> {
    value
        .as_array()
        .unwrap_or_else(|| panic!("{name}: a list was expected"))
        .iter()
        .map(|item| {
            item.as_str().unwrap_or_else(|| panic!("{name}: a list of strings was expected")).to_owned()
        })
        .collect()
}

/// Values that are not strings stand for their JSON text.
fn text_or_json(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl Case {
    fn from_json(name: String, value: &Value) -> Self {
        let mut case = Case {
            version: None,
            environment: Vec::new(),
            files: Vec::new(),
            expect: Map::new(),
            hosts: None,
            refused: None,
            warns: Vec::new(),
            never_prints: Vec::new(),
            name,
        };
        let object = value.as_object().expect("a case is an object");
        for (key, value) in object {
            let map = || value.as_object().cloned().unwrap_or_default();
            match key.as_str() {
                "note" => {}
                "version" => case.version = value.as_str().map(str::to_owned),
                "env" => {
                    case.environment =
                        map().iter().map(|(name, value)| (name.clone(), text_or_json(value))).collect();
                }
                "files" => {
                    case.files =
                        map().iter().map(|(path, content)| (path.clone(), text_or_json(content))).collect();
                }
                "expect" => case.expect = map(),
                "hosts" => case.hosts = Some(texts(value, &case.name)),
                "refused" => case.refused = Some(texts(value, &case.name)),
                "warns" => case.warns = texts(value, &case.name),
                "never_prints" => case.never_prints = texts(value, &case.name),
                other => panic!("{}: there is no key {other:?} in a case", case.name),
            }
        }
        assert!(
            case.refused.is_some()
                || case.hosts.is_some()
                || !case.expect.is_empty()
                || !case.warns.is_empty(),
            "{}: a case has to expect something",
            case.name
        );
        case
    }

    /// Whether it is about this version (`13.0` or `0.12`).
    fn is_for(&self, version: &str) -> bool {
        self.version.as_deref().is_none_or(|only| only == version)
    }
}

/// Each file's cases, by the setting (or rule) that they are about.
fn case_files() -> BTreeMap<String, Map<String, Value>> {
    fs::read_dir(directory().join("cases"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let cases: Map<String, Value> =
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), cases)
        })
        .collect()
}

fn cases() -> Vec<Case> {
    case_files()
        .iter()
        .flat_map(|(file, settings)| {
            settings.iter().flat_map(move |(setting, cases)| {
                cases
                    .as_array()
                    .unwrap_or_else(|| panic!("{file}: {setting}: a list of cases was expected"))
                    .iter()
                    .enumerate()
                    .map(move |(number, case)| Case::from_json(format!("{file}: {setting}[{number}]"), case))
            })
        })
        .collect()
}

/// A word that the shell takes as it is.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A container that renders and loads whole directories of cases.
struct Oracle {
    container: Container,
    host_directory: PathBuf,
    names: Vec<String>,
    script: String,
}

impl Oracle {
    /// `test` tells the directories of tests apart that run at the same time.
    fn new(image: &str, test: &str) -> Self {
        require(image);
        let container = Recipe::new(image)
            .with([
                "--entrypoint", "sleep", "--hostname", "oracle", "--network", "none", "--tmpfs",
                "/cases:mode=755",
            ])
            .command(["infinity"])
            .start();
        let host_directory =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("oracle-{test}-{}", std::process::id()));
        fs::create_dir_all(&host_directory).unwrap();
        Oracle { container, host_directory, names: Vec::new(), script: String::new() }
    }

    /// Adds a case; its outcome has the number of its turn.
    fn add(&mut self, environment: &[(String, String)], files: &[(String, String)]) {
        let name = self.names.len().to_string();
        let here = format!("/cases/{name}");
        let config = self.host_directory.join(&name).join("config");
        fs::create_dir_all(&config).unwrap();
        for (path, content) in files {
            let path = config.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content.replace(HERE, &here)).unwrap();
        }
        write!(self.script, "cd {here}; env -i PATH=\"$PATH\"").unwrap();
        let names_a_directory = |name: &str| {
            ["PROSODY_CONFIG_DIR", "PROSODY_CONFIGDIR"].contains(&name.trim_end_matches("_FILE"))
        };
        if !environment.iter().any(|(name, _)| names_a_directory(name)) {
            write!(self.script, " PROSODY_CONFIG_DIR={here}/config").unwrap();
        }
        for (name, value) in environment {
            let pair = format!("{name}={}", value.replace(HERE, &here));
            write!(self.script, " {}", quoted(&pair)).unwrap();
        }
        writeln!(self.script, " prosody-entrypoint render --output out >output 2>&1; echo $? >status")
            .unwrap();
        self.names.push(name);
    }

    /// Renders and loads all that was added.
    fn outcomes(&self) -> Vec<Outcome> {
        // A path that does not exist is the loader's to report, so every case gets its line.
        let script = format!(
            "export PATH\n{}cd /cases; lua5.4 /load.lua {} >loaded 2>loaded.errors\n",
            self.script,
            self.names
                .iter()
                .map(|name| format!("/cases/{name}/out/prosody.cfg.lua"))
                .collect::<Vec<_>>()
                .join(" ")
        );
        fs::write(self.host_directory.join("render"), script).unwrap();
        self.container.put_directory(&self.host_directory, "/cases");
        self.container.put("/load.lua", include_bytes!("../oracle/load.lua"));
        self.container.exec(["sh", "/cases/render"]).ok();
        let back = self.host_directory.join("back");
        fs::create_dir(&back).unwrap();
        self.container.get_directory("/cases", &back);
        let read = |path: PathBuf| {
            String::from_utf8_lossy(
                &fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())),
            )
            .into_owned()
        };
        let loaded = read(back.join("loaded"));
        assert_eq!(
            loaded.lines().count(),
            self.names.len(),
            "load.lua stopped: {}",
            read(back.join("loaded.errors"))
        );
        self.names
            .iter()
            .zip(loaded.lines())
            .map(|(name, line)| {
                let written = back.join(name).join("out/prosody.cfg.lua").exists();
                Outcome {
                    status: read(back.join(name).join("status")).trim().parse().unwrap(),
                    output: read(back.join(name).join("output")),
                    loaded: if written { serde_json::from_str(line).unwrap() } else { Value::Null },
                }
            })
            .collect()
    }
}

impl Oracle {
    /// What the hostile texts would leave if one of them were run as code.
    #[track_caller]
    fn assert_nothing_was_run(&self) {
        let canary = self.container.root("ls -d /pwned /cases/*/pwned /cases/pwned");
        assert_eq!(canary.stdout, "", "a value was run as code");
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.host_directory);
    }
}

/// Whether a loaded value (or its absence) is what is expected: a value, compared as it is
/// (integers and floats differ), or an object of matchers, whose keys begin with `$`.
fn matches(seen: Option<&Value>, expected: &Value) -> bool {
    match expected {
        Value::Object(object) if !object.is_empty() && object.keys().all(|key| key.starts_with('$')) => {
            object.iter().all(|(matcher, argument)| holds(matcher, argument, seen))
        }
        Value::Object(object) => seen.and_then(Value::as_object).is_some_and(|table| {
            table.len() == object.len()
                && object.iter().all(|(key, one)| table.contains_key(key) && matches(table.get(key), one))
        }),
        Value::Array(wanted) => seen.and_then(Value::as_array).is_some_and(|items| {
            items.len() == wanted.len()
                && items.iter().zip(wanted).all(|(item, one)| matches(Some(item), one))
        }),
        _ => seen == Some(expected),
    }
}

/// One matcher (tests/oracle/README.md).
fn holds(matcher: &str, argument: &Value, seen: Option<&Value>) -> bool {
    // Where Prosody takes a list, it takes a single value as a list of one.
    let items = match seen {
        Some(Value::Array(items)) => items.clone(),
        Some(single) => vec![single.clone()],
        None => Vec::new(),
    };
    let has = |one: &Value| items.iter().any(|item| matches(Some(item), one));
    let wanted = argument.as_array().map(Vec::as_slice).unwrap_or_default();
    match matcher {
        "$absent" => seen.is_none() == argument.as_bool().unwrap(),
        "$any" => wanted.iter().any(|one| matches(seen, one)),
        "$contains" => wanted.iter().all(has),
        "$lacks" => !wanted.iter().any(has),
        "$has" => seen.and_then(Value::as_object).is_some_and(|table| {
            let mut wanted = argument.as_object().unwrap().iter();
            wanted.all(|(key, one)| matches(table.get(key), one))
        }),
        "$rate_over" => seen
            .and_then(Value::as_str)
            .and_then(bytes_a_second)
            .is_some_and(|rate| rate > argument.as_f64().unwrap()),
        other => panic!("there is no matcher {other}"),
    }
}

/// A rate as mod_limits reads it.
fn bytes_a_second(rate: &str) -> Option<f64> {
    let rate = rate.strip_suffix("/s")?;
    let (quantity, unit) = rate.split_at(rate.find(|c: char| !c.is_ascii_digit())?);
    let power = match unit.trim_start().chars().next()?.to_ascii_lowercase() {
        'b' => 1,
        'k' => 3,
        'm' => 6,
        'g' => 9,
        't' => 12,
        _ => return None,
    };
    Some(quantity.parse::<f64>().ok()? * 10f64.powi(power))
}

/// Everything that differs from what the case expects.
fn differences(case: &Case, outcome: &Outcome, here: &str) -> Vec<String> {
    let mut differences = Vec::new();
    let mut note = |text: String| differences.push(format!("{}: {text}", case.name));
    let localised: Value = serde_json::from_str(&json!(case.expect).to_string().replace(HERE, here)).unwrap();

    for secret in &case.never_prints {
        if outcome.output.contains(secret) {
            note(format!("{secret:?} is printed: {}", outcome.output));
        }
    }
    for name in case.warns.iter().chain(case.refused.iter().flatten()) {
        if !outcome.output.contains(&name.replace(HERE, here)) {
            note(format!("the output names no {name:?}: {}", outcome.output));
        }
    }
    if case.refused.is_some() {
        if outcome.status != 78 {
            note(format!("status {} instead of 78", outcome.status));
        }
        if outcome.loaded != Value::Null {
            note("refused, but something was written".to_owned());
        }
        return differences;
    }
    if outcome.status != 0 {
        note(format!("status {}: {}", outcome.status, outcome.output));
        return differences;
    }
    let Some(hosts) = outcome.loaded["hosts"].as_object() else {
        note(format!("the loader says {}", outcome.loaded));
        return differences;
    };
    if let Some(expected) = &case.hosts {
        let mut seen: Vec<_> = hosts.keys().filter(|host| *host != "*").collect();
        let mut expected: Vec<_> = expected.iter().collect();
        seen.sort();
        expected.sort();
        if seen != expected {
            note(format!("hosts {seen:?} instead of {expected:?}"));
        }
    }
    for (host, options) in localised.as_object().unwrap() {
        let Some(own) = hosts.get(host) else {
            note(format!("there is no host {host}"));
            continue;
        };
        for (option, expected) in options.as_object().unwrap() {
            let seen = if option == "$modules" {
                outcome.loaded["modules"].get(host)
            } else {
                // As Prosody's own get_option: the host's, else the global one.
                own.get(option).or_else(|| hosts["*"].get(option))
            };
            if !matches(seen, expected) {
                let seen = seen.map_or("nothing".to_owned(), Value::to_string);
                note(format!("{host}: {option}: {expected} was expected, there is {seen}"));
            }
        }
    }
    differences
}

fn all_cases_hold(image: &str, version: &str) {
    let cases: Vec<_> = cases().into_iter().filter(|case| case.is_for(version)).collect();
    let mut oracle = Oracle::new(image, &format!("cases-{version}"));
    for case in &cases {
        oracle.add(&case.environment, &case.files);
    }
    let differences: Vec<_> = cases
        .iter()
        .zip(oracle.outcomes())
        .enumerate()
        .flat_map(|(number, (case, outcome))| differences(case, &outcome, &format!("/cases/{number}")))
        .collect();
    assert!(
        differences.is_empty(),
        "Prosody {version} reads {} of {} cases' values otherwise:\n{}",
        differences.len(),
        cases.len(),
        differences.join("\n")
    );
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn prosody_13_0_reads_what_the_settings_mean() {
    all_cases_hold(TRIXIE, "13.0");
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn prosody_0_12_reads_what_the_settings_mean() {
    all_cases_hold(BOOKWORM, "0.12");
}

/// The names of all settings, as the catalogue itself prints them.
fn catalogue() -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_prosody-entrypoint"))
        .args(["settings", "--format", "json-schema"])
        .env_clear()
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<_> =
        schema["properties"].as_object().expect("the schema has properties").keys().cloned().collect();
    assert!(names.len() > 80, "only {} settings: {names:?}", names.len());
    names
}

#[test]
fn every_setting_has_a_case_or_a_named_test() {
    let covered: Vec<_> =
        case_files().into_values().flat_map(|file| file.into_iter().map(|(setting, _)| setting)).collect();
    let effects: BTreeMap<String, String> =
        serde_json::from_str(&fs::read_to_string(directory().join("effects.json")).unwrap()).unwrap();
    let missing: Vec<_> = catalogue()
        .into_iter()
        // The twins have one rule and one set of cases (rules.json).
        .filter(|name| !name.ends_with("_FILE"))
        .filter(|name| !covered.contains(name) && !effects.contains_key(name))
        .collect();
    assert!(
        missing.is_empty(),
        "neither a case in tests/oracle/cases nor a test in tests/oracle/effects.json: {missing:?}"
    );
}

/// Every variable of OpusVL's image, its older versions and its build among them; of the official one; and what is taken, or
/// answered, of SaraSmiseth's.
const OTHER_IMAGES: [&str; 3] = [
    "PROSODY_LOG_LEVEL PROSODY_NETWORK_BACKEND PROSODY_MODULES_AVAILABLE PROSODY_MODULES_ENABLED PROSODY_MODULES_DISABLED \
     PROSODY_ALLOW_REGISTRATION PROSODY_C2S_REQUIRE_ENCRYPTION PROSODY_S2S_REQUIRE_ENCRYPTION PROSODY_S2S_SECURE_AUTH \
     PROSODY_S2S_INSECURE_DOMAINS PROSODY_S2S_SECURE_DOMAINS PROSODY_AUTHENTICATION PROSODY_DEFAULT_STORAGE \
     PROSODY_STORAGE_<STORE> PROSODY_DB_DRIVER PROSODY_DB_NAME PROSODY_DB_HOST PROSODY_DB_PORT PROSODY_DB_USERNAME \
     PROSODY_DB_PASSWORD PROSODY_SQL_CONNECTION PROSODY_ARCHIVE_EXPIRES_AFTER PROSODY_EXTRA_CFG PROSODY_DEFAULT_VIRTUALHOST \
     PROSODY_ENABLE_DEFAULT_VIRTUALHOST PROSODY_CONFIGDIR PROSODY_IMPORT_CERTIFICATE_HOSTNAMES \
     PROSODY_IMPORT_CERTIFICATE_DIRECTORIES PROSODY_VERSION PROSODY_SHA1 LUA_VERSION PROSODY_ENABLED_MODULES \
     PROSODY_STORAGE_KVP PROSODY_USE_LIBEVENT PROSODY_BOOTSTRAP PROSODY_BOOTSTRAP_VIRTUALHOST PROSODY_BOOTSTRAP_ADMIN_XIDS \
     PROSODY_BOOTSTRAP_AUTHENTICATION PROSODY_CORE_MODULES PROSODY_COMM_MODULES",
    "PROSODY_PLUGIN_PATHS PROSODY_ADMINS PROSODY_ENABLE_MODULES PROSODY_DISABLE_MODULES PROSODY_TURN_SECRET PROSODY_TURN_HOST \
     PROSODY_TURN_PORT PROSODY_TURN_TLS_PORT PROSODY_RETENTION_DAYS PROSODY_ARCHIVE_EXPIRY_DAYS PROSODY_S2S_SECURE_AUTH \
     PROSODY_USE_DANE PROSODY_DNS_RESOLVERS PROSODY_C2S_RATE_LIMIT PROSODY_S2S_RATE_LIMIT PROSODY_SQL_DRIVER PROSODY_SQL_DB \
     PROSODY_SQL_USERNAME PROSODY_SQL_PASSWORD PROSODY_SQL_HOST PROSODY_STORAGE PROSODY_LOGLEVEL PROSODY_STATISTICS \
     PROSODY_STATISTICS_INTERVAL PROSODY_CERTIFICATES PROSODY_VIRTUAL_HOSTS PROSODY_NETWORK_HOSTNAME PROSODY_COMPONENTS \
     PROSODY_MUC_MODULES PROSODY_UPLOAD_EXPIRY_DAYS PROSODY_UPLOAD_LIMIT_MB PROSODY_UPLOAD_STORAGE_GB \
     PROSODY_EXTERNAL_COMPONENTS PROSODY_COMPONENT_SECRET PROSODY_EXTRA_CONFIG LOCAL DOMAIN PASSWORD __FLUSH_LOG",
    "ALLOW_REGISTRATION REGISTRATION_INVITE_ONLY DOMAIN DOMAIN_HTTP_UPLOAD DOMAIN_MUC DOMAIN_PROXY DOMAIN_PUBSUB DB_DRIVER \
     DB_DATABASE DB_HOST DB_PORT DB_USERNAME DB_PASSWORD STORAGE E2E_POLICY_CHAT E2E_POLICY_MUC E2E_POLICY_WHITELIST LOG_LEVEL \
     C2S_REQUIRE_ENCRYPTION S2S_REQUIRE_ENCRYPTION S2S_SECURE_AUTH SERVER_CONTACT_INFO_ABUSE SERVER_CONTACT_INFO_ADMIN \
     SERVER_CONTACT_INFO_FEEDBACK SERVER_CONTACT_INFO_SALES SERVER_CONTACT_INFO_SECURITY SERVER_CONTACT_INFO_SUPPORT \
     PROSODY_ADMINS AUTHENTICATION LDAP_BASE LDAP_SERVER LDAP_ROOTDN LDAP_PASSWORD LDAP_FILTER LDAP_SCOPE LDAP_TLS LDAP_MODE \
     LDAP_ADMIN_FILTER HTTP_FILE_SHARE_EXPIRES_AFTER HTTP_FILE_SHARE_SIZE_LIMIT HTTP_FILE_SHARE_DAILY_QUOTA LOCAL PASSWORD",
];

/// Those, and every one that the reference has, with what the other image made of it.
#[test]
fn every_variable_of_other_images_has_a_noted_case() {
    let reference =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md")).unwrap();
    let (_, reference) = reference.split_once("\n## Moving in from other images\n").unwrap();
    let listed: Vec<_> =
        reference.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert!(listed.len() > 60, "only {} variables in the reference", listed.len());
    let cases = &case_files()["moving_in"];
    let noted = |name: &str| {
        let cases = cases.get(name)?.as_array().filter(|cases| !cases.is_empty())?;
        cases.iter().all(|case| case["note"].is_string()).then_some(())
    };
    let all = OTHER_IMAGES.iter().flat_map(|image| image.split_whitespace()).chain(listed);
    let missing: Vec<_> = all.filter(|name| noted(name).is_none()).collect();
    assert!(missing.is_empty(), "no case with a note in tests/oracle/cases/moving_in.json: {missing:?}");
}

#[test]
fn every_test_that_effects_names_exists() {
    let effects: BTreeMap<String, String> =
        serde_json::from_str(&fs::read_to_string(directory().join("effects.json")).unwrap()).unwrap();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let sources: String = ["", "containers"]
        .iter()
        .flat_map(|folder| fs::read_dir(tests.join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    for (setting, test) in effects {
        assert!(sources.contains(&format!("fn {test}()")), "{setting}: there is no test {test}");
    }
}

/// Text that breaks out of something, in one language or another. None has white space or a
/// comma, so a list takes each as one piece.
const HOSTILE: &[&str] = &[
    r#"a"b'c"#,
    r"a\b\n\065\z",
    "]]a]==]--[==[",
    "{{PROSODY_DOMAIN}}{%raw%}{#a#}",
    "${HOME}$(touch${IFS}/pwned)`id`",
    r#"a";os.execute("touch\32/pwned")--"#,
    r#"a")os.execute("touch\32/pwned")--"#,
    r#"%s%d\"&lt;<a>\u{7d}"#,
];

/// What is set besides, so that a setting has an effect at all.
fn companions(setting: &str) -> Vec<(String, String)> {
    let pairs: &[(&str, &str)] = match setting {
        name if name.starts_with("PROSODY_LDAP_") => {
            &[("PROSODY_AUTHENTICATION", "ldap"), ("PROSODY_LDAP_BASE", "dc=example")]
        }
        name if name.starts_with("PROSODY_DB_") => &[("PROSODY_DEFAULT_STORAGE", "sql")],
        name if name.starts_with("PROSODY_TURN_") => &[("PROSODY_TURN_SECRET", "s")],
        "PROSODY_COMPONENT_SECRET" => &[("PROSODY_EXTERNAL_COMPONENTS", "bridge.example")],
        _ => &[],
    };
    pairs
        .iter()
        .filter(|(name, _)| *name != setting)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// Every string in a value, at any depth, keys included.
fn strings(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| strings(item, found)),
        Value::Object(object) => object.iter().for_each(|(key, item)| {
            found.push(key.clone());
            strings(item, found);
        }),
        _ => {}
    }
}

/// Every setting, given every hostile text: refused (78) and nothing written, or loaded by
/// Prosody with the text unchanged somewhere in its options, and never run.
fn hostile_text_stays_text(image: &str, version: &str) {
    // These say how we work and where things are; they render no option, or not as they are.
    let renders_nothing = |setting: &str| {
        [
            "PROSODY_ENTRYPOINT_",
            "PROSODY_USER",
            "PROSODY_CONFIG_DIR",
            "PROSODY_TEMPLATES_DIR",
            "PROSODY_RUNTIME_DIR",
            "PROSODY_DATA_DIR",
            "PROSODY_CERTIFICATES",
            "PROSODY_EXTRA_CONFIG",
            "PROSODY_COMMUNITY_MODULES_DIR",
            "PROSODY_IMPORT_CERTIFICATE_",
            "PROSODY_MODULES_DISABLED",
        ]
        .iter()
        .any(|prefix| setting.starts_with(prefix))
    };
    let mut oracle = Oracle::new(image, &format!("hostile-{version}"));
    let mut given = Vec::new();
    let settings: Vec<_> = catalogue()
        .into_iter()
        .filter(|name| !name.ends_with("_FILE") && name.starts_with("PROSODY_"))
        .collect();
    for (number, setting) in settings.iter().enumerate() {
        // What is written is the same for both versions, so the texts take turns in one of them.
        let turn = |(other, _): &(usize, _)| {
            is_all_wanted() || image == TRIXIE || (number + other) % HOSTILE.len() == 0
        };
        for (_, text) in HOSTILE.iter().enumerate().filter(turn) {
            let mut environment = companions(setting);
            environment.push((setting.clone(), (*text).to_owned()));
            oracle.add(&environment, &[]);
            given.push((setting.as_str(), *text));
        }
    }
    let outcomes = oracle.outcomes();
    oracle.assert_nothing_was_run();
    let mut failures = Vec::new();
    for ((setting, text), outcome) in given.iter().zip(outcomes) {
        let mut fail = |why: String| failures.push(format!("{setting}={text}: {why}"));
        match outcome.status {
            78 if outcome.loaded == Value::Null => {}
            0 if outcome.loaded["hosts"].is_object() => {
                let mut found = Vec::new();
                strings(&outcome.loaded["hosts"], &mut found);
                // 13.0's mod_auth_ldap has no such option; it is left out with a warning.
                let left_out = version == "13.0" && *setting == "PROSODY_LDAP_ADMIN_FILTER";
                if !renders_nothing(setting) && !left_out && !found.iter().any(|one| one == text) {
                    fail("accepted, but Prosody has no such text".to_owned());
                }
            }
            status => fail(format!("status {status}, {}; {}", outcome.loaded["error"], outcome.output)),
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {} hostile values, Prosody {version}:\n{}",
        failures.len(),
        given.len(),
        failures.join("\n")
    );
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn hostile_text_in_every_setting_stays_text_in_13_0() {
    hostile_text_stays_text(TRIXIE, "13.0");
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn hostile_text_in_every_setting_stays_text_in_0_12() {
    hostile_text_stays_text(BOOKWORM, "0.12");
}

/// Texts that only JSON or a file can hold, beside the hostile ones.
fn any_text() -> Vec<String> {
    let mut texts: Vec<_> = HOSTILE.iter().map(|text| (*text).to_owned()).collect();
    texts.extend([
        "a\0b".to_owned(),
        "\r\n line\nends\r".to_owned(),
        "tab\tand \u{1}\u{7f}".to_owned(),
        "gr\u{fc}\u{df}e \u{1f600} \u{2028}".to_owned(),
        "0x10".to_owned(),
        "]]\"\\{{".repeat(100_000 / 6),
    ]);
    texts
}

/// Every text in every place where JSON has strings: there it is read back unchanged.
fn text_in_json_is_read_back(image: &str, version: &str) {
    type Place = (&'static str, fn(&str) -> Value, &'static str, fn(&str) -> Value);
    let places: &[Place] = &[
        (
            "PROSODY_OPTIONS",
            |text| json!({"x_option": {"list": [text, {"key": text}], text: 1}}),
            "*.x_option",
            |text| json!({"list": [text, {"key": text}], text: 1}),
        ),
        (
            "PROSODY_VIRTUAL_HOSTS",
            |text| json!([{"host": "a.example", "options": {"x_option": text}}]),
            "a.example.x_option",
            |text| json!(text),
        ),
        (
            "PROSODY_COMPONENTS",
            |text| json!([{"host": "c.example", "module": "muc", "options": {"x_option": [text]}}]),
            "c.example.x_option",
            |text| json!([text]),
        ),
        (
            "PROSODY_DISCO_ITEMS",
            |text| json!([["d.example", text]]),
            "*.disco_items",
            |text| json!([["d.example", text]]),
        ),
        (
            "PROSODY_EXTERNAL_COMPONENTS",
            |text| json!([{"host": "e.example", "secret": text}]),
            "e.example.component_secret",
            |text| json!(text),
        ),
    ];
    let mut oracle = Oracle::new(image, &format!("json-{version}"));
    let mut given = Vec::new();
    for (setting, value, option, expected) in places {
        for text in any_text() {
            let environment = [(format!("{setting}_FILE"), format!("{HERE}/config/value"))];
            oracle.add(&environment, &[("value".to_owned(), value(&text).to_string())]);
            given.push((*setting, text.clone(), *option, expected(&text)));
        }
    }
    let outcomes = oracle.outcomes();
    oracle.assert_nothing_was_run();
    let mut failures = Vec::new();
    for ((setting, text, option, expected), outcome) in given.iter().zip(outcomes) {
        // A secret with a control character in it may be refused: XML has none (XEP-0114 hashes it).
        if outcome.status == 78 && setting.contains("EXTERNAL") {
            continue;
        }
        let (host, option) = option.rsplit_once('.').unwrap();
        let seen = &outcome.loaded["hosts"][host][option];
        if outcome.status != 0 || seen != expected {
            let short = |text: String| text.chars().take(200).collect::<String>();
            failures.push(format!(
                "{setting} with {:?}: status {}, {}; {}",
                short(text.clone()),
                outcome.status,
                short(seen.to_string()),
                short(outcome.output),
            ));
        }
    }
    assert!(failures.is_empty(), "Prosody {version}:\n{}", failures.join("\n"));
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn text_in_json_is_read_back_by_13_0() {
    text_in_json_is_read_back(TRIXIE, "13.0");
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn text_in_json_is_read_back_by_0_12() {
    text_in_json_is_read_back(BOOKWORM, "0.12");
}

/// A secret from a file, whatever is in it: read back unchanged less one trailing newline, or
/// refused; never printed.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn text_in_secret_files_is_read_back_and_never_printed() {
    let mut oracle = Oracle::new(TRIXIE, "files");
    let mut given = Vec::new();
    for text in any_text() {
        for (setting, option) in [
            ("PROSODY_LDAP_PASSWORD", "ldap_password"),
            ("PROSODY_TURN_SECRET", "turn_external_secret"),
            ("PROSODY_DB_PASSWORD", "password"),
        ] {
            let mut environment = companions(setting);
            environment.retain(|(name, _)| name != setting);
            environment.push((format!("{setting}_FILE"), format!("{HERE}/config/secret")));
            oracle.add(&environment, &[("secret".to_owned(), format!("{text}\n"))]);
            given.push((setting, option, text.clone()));
        }
    }
    let outcomes = oracle.outcomes();
    oracle.assert_nothing_was_run();
    for ((setting, option, text), outcome) in given.iter().zip(outcomes) {
        assert!(
            text.len() < 8 || !outcome.output.contains(text),
            "{setting}: the secret {text:?} is printed: {}",
            outcome.output
        );
        if outcome.status == 78 {
            continue;
        }
        // What some editors put into a file is not meant.
        let meant = text.strip_prefix('\u{feff}').unwrap_or(text);
        let meant = meant.strip_suffix('\r').unwrap_or(meant);
        let hosts = outcome.loaded["hosts"].as_object();
        let found = hosts.is_some_and(|hosts| {
            hosts
                .values()
                .any(|host| host.get(option).or_else(|| host["sql"].get(option)) == Some(&json!(meant)))
        });
        assert!(
            found,
            "{setting}: {text:?} is not what Prosody has: status {}, {}",
            outcome.status, outcome.output
        );
    }
}
