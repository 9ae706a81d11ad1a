//! Golden cases: an environment in, every rendered file out, compared whole.
//!
//! A case is a folder below `tests/golden/cases` or, where it has to be refused, `tests/golden/failures`:
//!
//! - `env`: `NAME=value` lines, `NAME<<END` for a value of several lines that ends before a line `END`, and comments (`#`);
//! - `config/`: what stands in the configuration directory;
//! - `certificates`: files below `{temp}` and what they are put together from (`config/certs/a.pem = pair.crt pair.key`, see
//!   [`fixture`]), and links (`live/a.pem -> ../archive/a1.pem`);
//! - `version`: the one version of Prosody that the case is about; without it both are taken;
//! - `only-if`: what this machine has to be like ([`applies`]);
//! - `before`: an environment that is put in force first, for `--diff`;
//! - `arguments`: the command line, where it is not `render --output {output}`;
//! - `expected/`: every file in the output directory, a folder in it as a list of its links and of what its PEM files have
//!   in them, the log in `log`, standard output in `stdout`. What differs between the versions is in `expected-13.0.1/` and
//!   `expected-0.12.3/`. Of a failure only the log: `report`;
//! - `status`: the exit status, where it is not 0 (78 for a failure).
//!
//! `{temp}`, `{config}`, `{data}`, `{output}` and `{run}` stand for directories that differ from run to run, and in `env`
//! `{uid}`, `{gid}` and `{user}` for whom Prosody may run as (`{user}` is empty where that user has no name). There is a
//! stand-in for Prosody: what is looked at of an installed one, and nothing that could be run but its Lua.
//! `tests/golden/modules/VERSION` lists its features and its modules, each with those that it needs: `http?` is one that it
//! may need, `http~` one that it does without.
//!
//! `UPDATE_GOLDEN=1 cargo test --test golden` writes what is rendered now as what is expected.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::unistd::{Uid, User, getegid, geteuid};

const BINARY: &str = env!("CARGO_BIN_EXE_prosody-entrypoint");

/// The versions of Prosody that are supported, and the Lua that Debian runs them with.
const VERSIONS: [&str; 2] = ["13.0.1", "0.12.3"];

/// Whom Prosody runs as where the test is root: no user in particular.
const SOMEBODY: u32 = 1000;

/// One test function for each folder, and one that finds folders without a function.
macro_rules! golden {
    ($folder:ident, $check:ident: $($case:ident)+) => {
        mod $folder {
            $( #[test] fn $case() { super::$check(stringify!($case)); } )+

            #[test]
            fn every_folder_is_a_test() {
                let known = std::collections::BTreeSet::from([$(stringify!($case).to_owned()),+]);
                assert_eq!(super::folders(stringify!($folder)), known);
            }
        }
    };
}

golden! { cases, renders:
    accounts
    accounts_of_own_files
    aliases
    archive_expiry_days
    as_root
    behind_a_proxy
    certificates_by_their_names
    certificates_explained
    certificates_explained_json
    certificates_for_some_hosts
    certificates_in_every_layout
    certificates_in_one_file
    certificates_in_options
    certificates_in_pairs
    certificates_of_no_use
    certificates_of_own_files
    community_modules
    community_modules_in_options
    community_modules_of_hosts
    components
    components_none
    conditional_needs
    dane
    database_url
    database_url_of_a_file
    database_url_with_a_socket
    database_url_with_an_address
    diff
    diff_of_nothing
    diff_of_secrets
    domain_beside_virtual_hosts
    dry_run
    empty_means_unset
    everything_for_one_domain
    external_components
    extra_config_is_a_file
    extra_config_without_a_match
    hostile_text
    http_host
    interfaces
    international_domain
    international_domain_in_punycode
    json
    json_components
    json_hosts
    ldap
    limits_off
    log_in_json
    modules
    modules_disabled_and_needed
    modules_for_components
    modules_for_components_that_are_not_there
    modules_for_two_components
    modules_that_are_passed_over
    modules_list
    modules_list_json
    modules_list_of_own_main_file
    modules_search
    modules_search_all
    modules_search_elsewhere
    modules_search_json
    modules_search_slip
    modules_search_star
    modules_search_without_a_collection
    moving_in_account
    moving_in_any_programs
    moving_in_components_named
    moving_in_domain
    moving_in_domain_beside_own_files
    moving_in_effective
    moving_in_extra_cfg
    moving_in_extra_cfg_off
    moving_in_sql
    moving_in_sql_without_a_driver
    moving_in_templates
    moving_in_virtual_host
    network_hostname
    no_self_signed_certificates
    not_encrypted
    nothing_set
    null_leaves_our_options_out
    off_decides_nothing
    openmetrics
    options
    options_decide_ports
    options_hidden
    own_files
    own_files_name_the_hosts
    own_main_file
    own_modules
    own_templates
    own_templates_elsewhere
    plugin_paths_in_options
    plugin_paths_of_own_files
    ports_none
    posix_on_13
    providers_that_are_not_used
    registration_by_invitation
    registration_open
    resolvers
    retention
    retention_and_expires_after
    retention_never
    retention_of_each_kind
    secrets_from_files
    select_on_0_12
    smallest
    storage_mysql
    storage_not_used
    storage_of_one_host
    storage_per_store
    storage_socket
    storage_sqlite
    storage_sqlite_that_nothing_uses
    storage_sqlite_by_driver
    strict
    turn
    turn_with_tls
    turn_without_a_secret
    two_virtual_hosts
    unknown_names
    uploads
    user_by_number
    what_a_cluster_injects
}

golden! { failures, is_refused:
    a_component_named_as_a_host
    a_directory_for_a_module
    a_file_that_reads_a_secret
    a_host_below_the_domain_named_twice
    a_host_that_differs_from_itself
    a_password_in_a_url
    a_template_that_includes_a_missing_one
    a_template_with_a_syntax_error
    a_template_with_an_undefined_name
    a_value_and_a_file
    a_wildcard_in_a_folder
    a_wrong_secret
    accounts
    accounts_that_are_none
    accounts_with_a_role
    an_alias_that_differs
    an_external_component_without_a_secret
    an_option_set_twice
    an_overridden_template_with_a_syntax_error
    an_overridden_template_with_an_undefined_name
    bad_files
    code_for_a_domain
    conditional_needs_and_strict
    dane_without_an_anchor
    invitations_without_their_module
    ldap_without_a_base
    modules_for_another_prosody
    modules_list
    modules_search
    modules_that_exclude_each_other
    modules_that_exclude_each_other_by_choice
    modules_that_exclude_each_other_on_a_host
    modules_without_their_libraries
    moving_in_extra_cfg_missing
    moving_in_main_file
    moving_in_nothing
    moving_in_policy_without_its_module
    moving_in_two_families
    moving_in_without_a_database_name
    moving_in_wrong_account
    moving_in_wrong_domain
    moving_in_wrong_words
    names_that_are_no_modules
    needs_that_are_nowhere
    no_such_user
    no_virtual_host
    own_files_that_cannot_be_read
    patterns_in_names
    patterns_in_paths
    places_of_others
    plugin_paths_that_are_none
    refused_option_names
    select_on_13
    settings_that_exclude_each_other
    several_at_once
    sqlite_and_a_database
    strict
    two_templates_of_one_name
    two_users
    unknown_members
    unknown_modules
    unknown_modules_in_options
    unknown_modules_of_hosts
    wrong_domains
    wrong_durations_and_sizes
    wrong_network
    wrong_words
}

/// `settings --format json-schema` lists every setting, and each is in some case.
#[test]
fn every_setting_is_in_a_case() {
    let sandbox = Sandbox::without_prosody();
    let output = sandbox.run(&[], &["settings", "--format", "json-schema"].map(str::to_owned));
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut used = BTreeSet::new();
    for case in folders("cases") {
        let pairs = environment(&fs::read_to_string(golden().join("cases").join(case).join("env")).unwrap());
        used.extend(pairs.into_iter().map(|(name, _)| name));
    }
    let settings = schema["properties"].as_object().unwrap().keys();
    let unused: Vec<&String> =
        settings.filter(|name| !name.ends_with("_FILE") && !used.contains(*name)).collect();
    assert!(unused.is_empty(), "in no case's env: {unused:?}");
}

#[test]
fn a_variable_that_is_not_utf_8_is_named() {
    let sandbox = Sandbox::without_prosody();
    sandbox.install_prosody(VERSIONS[0]);
    let mut command = sandbox.command(Path::new(BINARY));
    command.env("PROSODY_DOMAIN", OsString::from_vec(b"b\xfccher.example".to_vec()));
    // Not ours, so none of our business.
    command.env("LESS", OsString::from_vec(b"\xff".to_vec()));
    command.env(OsString::from_vec(b"PROSODY_\xff".to_vec()), "x");
    let output = command.args(["render", "--output", "output"]).output().unwrap();
    assert_eq!(
        sandbox.stable(&output.stderr),
        "entrypoint          error\tOne thing is wrong, nothing was started:\n\t  PROSODY_DOMAIN: the value is not UTF-8\n"
    );
    assert_eq!(output.status.code(), Some(78));
    assert!(!sandbox.path.join("output").exists());
}

#[test]
fn a_file_that_may_not_be_read_is_named() {
    let sandbox = Sandbox::without_prosody();
    sandbox.install_prosody(VERSIONS[0]);
    let secret = sandbox.path.join("odd/secret");
    fs::write(&secret, "S3CRET").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
    // Root reads every file, so that another user has to try, with a program that this user can reach.
    let program = sandbox.path.join("bin/entrypoint");
    fs::copy(BINARY, &program).unwrap();
    let mut command = sandbox.command(&program);
    if geteuid().is_root() {
        command.uid(SOMEBODY).gid(SOMEBODY);
    }
    command.env("PROSODY_DOMAIN", "chat.example").env("PROSODY_DB_PASSWORD_FILE", &secret);
    let output = command.args(["render", "--output", "output"]).output().unwrap();
    assert_eq!(
        sandbox.stable(&output.stderr),
        "entrypoint          error\tOne thing is wrong, nothing was started:\n\t  \
         PROSODY_DB_PASSWORD_FILE=\"{temp}/odd/secret\": the file cannot be read: Permission denied\n"
    );
    assert_eq!(output.status.code(), Some(78));
}

/// `docker exec --user` comes as somebody else than the server, with the environment of the container.
#[test]
fn anybody_may_ask_for_modules() {
    let sandbox = Sandbox::without_prosody();
    sandbox.install_prosody(VERSIONS[0]);
    let program = sandbox.path.join("bin/entrypoint");
    fs::copy(BINARY, &program).unwrap();
    for (arguments, status) in [(&["modules"][..], 0), (&["modules", "--search", "x"], 1)] {
        let mut command = sandbox.command(&program);
        if geteuid().is_root() {
            command.uid(SOMEBODY).gid(SOMEBODY);
        }
        command.env("PROSODY_DOMAIN", "chat.example").env("PROSODY_UID", "5").env("PROSODY_USER", "nobody");
        command.env("PROSODY_COMMUNITY_MODULES_DIR", "/nonexistent");
        let output = command.args(arguments).output().unwrap();
        let log = sandbox.stable(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {log}");
        assert!(!log.contains("PROSODY_UID"), "{arguments:?}: {log}");
    }
}

/// A link in a collection that Prosody's user can write to leads root no further than that user.
#[test]
fn a_summary_is_not_taken_from_what_prosody_may_not_read() {
    if !geteuid().is_root() {
        return;
    }
    let sandbox = Sandbox::without_prosody();
    sandbox.install_prosody(VERSIONS[0]);
    let module = sandbox.path.join("collection/mod_x");
    fs::create_dir_all(&module).unwrap();
    fs::write(module.join("mod_x.lua"), "--").unwrap();
    let secret = sandbox.path.join("odd/secret");
    fs::write(&secret, "S3CRET").unwrap();
    std::os::unix::fs::symlink(&secret, module.join("README.md")).unwrap();
    let search = |mode| {
        fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).unwrap();
        let collection =
            ("PROSODY_COMMUNITY_MODULES_DIR".to_owned(), module.parent().unwrap().display().to_string());
        let output = sandbox.run(&[collection], &["modules", "--search", "x"].map(str::to_owned));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(search(0o644).contains("S3CRET"));
    assert_eq!(search(0o600), "MODULE  FROM        SUMMARY\nx       collection\n");
}

#[test]
fn without_prosody_there_is_nothing_to_configure() {
    let sandbox = Sandbox::without_prosody();
    let domain = [("PROSODY_DOMAIN".to_owned(), "chat.example".to_owned())];
    let arguments = ["render", "--output", "output"].map(str::to_owned);
    let output = sandbox.run(&domain, &arguments);
    assert_eq!(
        sandbox.stable(&output.stderr),
        "entrypoint          error\tProsody is not installed: there is no program `prosody` on PATH; install it in the image\n"
    );
    assert_eq!(output.status.code(), Some(127));

    // A mistake in a setting comes first: it can be mended without a new image.
    let wrong = [("PROSODY_DOMAIN".to_owned(), "chat example".to_owned())];
    let output = sandbox.run(&wrong, &arguments);
    assert_eq!(output.status.code(), Some(78), "{}", sandbox.stable(&output.stderr));
}

/// Whatever modules need, and however deep, it comes to an end.
#[test]
fn modules_that_need_each_other_come_to_an_end() {
    const MANY: usize = 5_000;
    let sandbox = Sandbox::without_prosody();
    sandbox.install_prosody(VERSIONS[0]);
    let collection = sandbox.path.join("collection");
    fs::create_dir(&collection).unwrap();
    let write = |name: String, source: String| fs::write(collection.join(name), source).unwrap();
    write("mod_deep.lua".into(), "module:require('l0')".into());
    for number in 0..MANY {
        write(format!("l{number}.lib.lua"), format!("module:require('l{}')", (number + 1) % MANY));
    }
    let round = |number: usize| format!("module:depends('round_{}')\n", number % 100);
    for number in 0..100 {
        write(format!("mod_round_{number}.lua"), (0..100).map(|more| round(number + more)).collect());
    }
    // What is no name is not taken for one, and not printed.
    write(
        "mod_odd.lua".into(),
        "module:depends[[a\nb]] module:depends'\u{1b}' module:depends('".to_owned() + &"x".repeat(9999),
    );
    let environment = [
        ("PROSODY_DOMAIN", "chat.example"),
        ("PROSODY_COMMUNITY_MODULES_DIR", "{temp}/collection"),
        ("PROSODY_MODULES_ENABLED", "deep, round_0, odd"),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let output = sandbox.run(&environment, &["render", "--output", "output"].map(str::to_owned));
    let log = sandbox.stable(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{log}");
    assert_eq!(log.lines().count(), 1, "{log}");
    assert_eq!(sandbox.files_below("output")["community-modules"].lines().count(), MANY + 1 + 100 + 1);
}

/// The folder with this file's data.
fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn folders(kind: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(golden().join(kind)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Compares everything that a case writes with what is expected.
fn renders(name: &str) {
    let case = Case::read("cases", name);
    let found = case.run_all(|sandbox| {
        let output = sandbox.run(&case.environment, &case.arguments);
        let mut found = sandbox.files_below("output");
        found.insert("log".into(), sandbox.stable(&output.stderr));
        if !output.stdout.is_empty() {
            found.insert("stdout".into(), sandbox.stable(&output.stdout));
        }
        assert_eq!(output.status.code(), Some(case.status), "{name}: {}", found["log"]);
        found
    });
    case.compare(found);
}

/// Compares the report of a case that has to be refused, and looks that nothing was written.
fn is_refused(name: &str) {
    let case = Case::read("failures", name);
    let found = case.run_all(|sandbox| {
        let before = sandbox.everything();
        let output = sandbox.run(&case.environment, &case.arguments);
        let report = sandbox.stable(&output.stderr);
        assert_eq!(output.status.code(), Some(case.status), "{name}: {report}");
        assert_eq!(output.stdout, b"", "{name}");
        assert_eq!(sandbox.everything(), before, "{name}: something was written");
        BTreeMap::from([("report".to_owned(), report)])
    });
    case.compare(found);
}

/// A folder with a case in it.
struct Case {
    folder: PathBuf,
    environment: Vec<(String, String)>,
    before: Option<Vec<(String, String)>>,
    versions: Vec<&'static str>,
    arguments: Vec<String>,
    status: i32,
}

impl Case {
    fn read(kind: &str, name: &str) -> Case {
        let folder = golden().join(kind).join(name);
        let optional = |file: &str| fs::read_to_string(folder.join(file)).ok();
        let is_meant = |version: &&str| optional("version").is_none_or(|only| only.trim() == *version);
        let arguments = optional("arguments").unwrap_or_else(|| "render --output {output}".to_owned());
        let status = optional("status").map(|status| status.trim().parse().unwrap());
        Case {
            environment: environment(&fs::read_to_string(folder.join("env")).unwrap()),
            before: optional("before").map(|text| environment(&text)),
            versions: VERSIONS.into_iter().filter(is_meant).collect(),
            arguments: arguments.split_whitespace().map(str::to_owned).collect(),
            status: status.unwrap_or(if kind == "failures" { 78 } else { 0 }),
            folder,
        }
    }

    /// What was found with each version of Prosody; nothing where this machine is not as the case needs it.
    fn run_all(
        &self,
        run: impl Fn(&Sandbox) -> BTreeMap<String, String>,
    ) -> Vec<(&'static str, BTreeMap<String, String>)> {
        let condition = fs::read_to_string(self.folder.join("only-if")).unwrap_or_default();
        if !condition.lines().all(applies) {
            return Vec::new();
        }
        let run = |version| (version, run(&Sandbox::new(self, version)));
        self.versions.iter().copied().map(run).collect()
    }

    /// Compares with the folder, or writes it.
    fn compare(&self, found: Vec<(&str, BTreeMap<String, String>)>) {
        if found.is_empty() {
            return;
        }
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            self.write(&found);
        }
        let mut wrong = String::new();
        for (version, found) in &found {
            let expected = self.expected(version);
            let names: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
            for name in names {
                let [old, new] = [&expected, found].map(|files| files.get(name).map_or("", String::as_str));
                let header =
                    |what: &str| format!("{}, Prosody {version}: {name}, {what}", self.folder.display());
                if old != new {
                    let diff = similar::TextDiff::from_lines(old, new);
                    let mut diff = diff.unified_diff();
                    let _ = write!(wrong, "{}", diff.header(&header("expected"), &header("found")));
                } else if expected.contains_key(name) != found.contains_key(name) {
                    let _ = writeln!(wrong, "{}", header("is on one side only, and empty"));
                }
            }
        }
        assert!(
            wrong.is_empty(),
            "{wrong}\nRead the difference. Where it is right: UPDATE_GOLDEN=1 cargo test --test golden"
        );
    }

    fn expected(&self, version: &str) -> BTreeMap<String, String> {
        let mut expected = BTreeMap::new();
        for folder in [
            self.folder.clone(),
            self.folder.join("expected"),
            self.folder.join(format!("expected-{version}")),
        ] {
            let is_report = folder == self.folder;
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = entry.file_name().into_string().unwrap();
                let is_ours = !is_report || name == "report" || name == format!("report-{version}");
                if is_ours && entry.path().is_file() {
                    let name = if is_report { "report".to_owned() } else { name };
                    let mut text = fs::read_to_string(entry.path()).unwrap();
                    if !has_ipv6() {
                        text = text.replace(r#"{ "*", "::" }"#, r#"{ "*" }"#);
                    }
                    expected.insert(name, text);
                }
            }
        }
        expected
    }

    fn write(&self, found: &[(&str, BTreeMap<String, String>)]) {
        assert!(
            has_ipv6(),
            "expectations are written on a machine with IPv6: without it the rendered files differ"
        );
        let place = |version: Option<&str>, name: &str| {
            let suffix = version.map_or_else(String::new, |version| format!("-{version}"));
            if name == "report" {
                self.folder.join(format!("report{suffix}"))
            } else {
                self.folder.join(format!("expected{suffix}")).join(name)
            }
        };
        for version in std::iter::once(None).chain(VERSIONS.map(Some)) {
            let _ = fs::remove_file(place(version, "report"));
            let _ = fs::remove_dir_all(place(version, ""));
        }
        for (version, files) in found {
            for (name, text) in files {
                let is_common = found.iter().all(|(_, others)| others.get(name) == Some(text));
                let path = place((!is_common).then_some(version), name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
        }
    }
}

/// Whether this machine is as a case needs it.
fn applies(condition: &str) -> bool {
    match condition {
        "root" => geteuid().is_root(),
        "DNSSEC's trust anchor" => Path::new("/usr/share/dns/root.ds").exists(),
        "no DNSSEC's trust anchor" => !Path::new("/usr/share/dns/root.ds").exists(),
        // Where nothing names a host, the machine's own name is served when it has a dot.
        "a host name without a dot" => !nix::unistd::gethostname().unwrap().to_string_lossy().contains('.'),
        _ => panic!("unknown condition {condition:?}"),
    }
}

fn has_ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

/// Reads `NAME=value` and `NAME<<END`.
fn environment(text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name: String = line.chars().take_while(|&c| c.is_ascii_alphanumeric() || c == '_').collect();
        let rest = &line[name.len()..];
        let value = if let Some(end) = rest.strip_prefix("<<") {
            lines.by_ref().take_while(|line| *line != end).collect::<Vec<_>>().join("\n")
        } else {
            rest.strip_prefix('=').unwrap_or_else(|| panic!("no `=` in {line:?}")).to_owned()
        };
        pairs.push((name, value));
    }
    pairs
}

/// A temporary directory with a configuration and a data directory.
struct Sandbox {
    path: PathBuf,
}

impl Sandbox {
    /// A sandbox with a case's files and a stand-in for Prosody.
    fn new(case: &Case, version: &str) -> Sandbox {
        let sandbox = Sandbox::without_prosody();
        sandbox.install_prosody(version);
        copy(&case.folder.join("config"), &sandbox.path.join("config"));
        copy(&case.folder.join("data"), &sandbox.path.join("data"));
        sandbox.make_odd_files();
        sandbox.make_certificates(&case.folder.join("certificates"));
        if let Some(before) = &case.before {
            let output = sandbox.run(before, &["render".to_owned()]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        sandbox
    }

    fn without_prosody() -> Sandbox {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Always of the same length, because long values are cut in messages and broken into lines in Lua.
        let path = PathBuf::from(format!("/tmp/prosody-golden-{:010}-{number:04}", std::process::id()));
        for folder in ["bin", "config", "data", "odd"] {
            fs::create_dir_all(path.join(folder)).unwrap();
        }
        if geteuid().is_root() {
            std::os::unix::fs::chown(path.join("data"), Some(SOMEBODY), Some(SOMEBODY)).unwrap();
        }
        Sandbox { path }
    }

    /// What no setting can be read from.
    fn make_odd_files(&self) {
        let path = |name: &str| self.path.join("odd").join(name);
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        fs::File::create(path("large")).unwrap().set_len(100 * 1000 * 1000).unwrap();
        fs::write(path("latin1"), b"b\xfccher.example\n").unwrap();
        fs::write(path("empty"), "\n").unwrap();
        std::os::unix::fs::symlink("loop", path("loop")).unwrap();
    }

    /// The files and links of a list, if there is one.
    fn make_certificates(&self, list: &Path) {
        for line in fs::read_to_string(list).unwrap_or_default().lines() {
            let write = |path: &str| {
                let path = self.path.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                path
            };
            if let Some((path, target)) = line.split_once(" -> ") {
                std::os::unix::fs::symlink(target, write(path)).unwrap();
            } else if let Some((path, words)) = line.split_once(" = ") {
                let content: Vec<u8> = words.split(' ').flat_map(fixture).collect();
                fs::write(write(path), content).unwrap();
            } else {
                assert!(line.is_empty() || line.starts_with('#'), "neither a file nor a link: {line:?}");
            }
        }
    }

    /// What is looked at of a Prosody as Debian installs it.
    fn install_prosody(&self, version: &str) {
        let lib = self.path.join("lib");
        let modules = fs::read_to_string(golden().join("modules").join(version)).unwrap();
        let write = |path: &Path, content: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        for line in modules.lines() {
            let mut words = line.split(' ');
            let source = match words.next().unwrap() {
                "features:" => {
                    let features: String =
                        words.map(|feature| format!("\t\t-- {feature}\n\t\t{feature:?};\n")).collect();
                    let source = format!("return {{\n\tavailable = set.new{{\n{features}\t}};\n}};\n");
                    write(&lib.join("core/features.lua"), &source);
                    continue;
                }
                module => (module, words.map(depends).collect::<String>()),
            };
            write(&lib.join("modules").join(source.0), &source.1);
        }
        fs::write(lib.join("prosody.version"), format!("{version}\n")).unwrap();
        let program = self.path.join("bin/prosody");
        let head = format!(
            "#!/usr/bin/env lua5.4\n\nCFG_SOURCEDIR='{lib}';\nCFG_PLUGINDIR='{lib}/modules/';\n",
            lib = lib.display()
        );
        fs::write(&program, head).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink(lua(), self.path.join("bin/lua5.4")).unwrap();
    }

    /// The words for directories and for whom Prosody may run as, replaced.
    fn filled_in(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (word, path) in self.words() {
            text = text.replace(word, &path);
        }
        if !text.contains("{uid}") && !text.contains("{gid}") && !text.contains("{user}") {
            return text;
        }
        let root = geteuid().is_root();
        let (uid, gid) = match root {
            true => (Uid::from_raw(SOMEBODY), SOMEBODY),
            false => (geteuid(), getegid().as_raw()),
        };
        let user = if root {
            "nobody".to_owned()
        } else {
            User::from_uid(uid).unwrap().map(|user| user.name).unwrap_or_default()
        };
        text.replace("{uid}", &uid.to_string()).replace("{gid}", &gid.to_string()).replace("{user}", &user)
    }

    /// The words for directories, the one that is in none of the others last.
    fn words(&self) -> [(&'static str, String); 5] {
        let path = |folder: &str| self.path.join(folder).to_str().unwrap().to_owned();
        [
            ("{config}", path("config")),
            ("{data}", path("data")),
            ("{output}", path("output")),
            ("{run}", path("run")),
            ("{temp}", self.path.to_str().unwrap().to_owned()),
        ]
    }

    /// What was written, with the words for what differs from run to run.
    fn stable(&self, bytes: &[u8]) -> String {
        let mut text = String::from_utf8(bytes.to_vec()).unwrap();
        for (word, path) in self.words() {
            text = text.replace(&path, word);
        }
        // The time in a log of JSON, and how long certificates last from now on.
        let text = without(&text, "\"timestamp\":\"", "{time}", |letter| letter != '"');
        let text =
            without(&text, "\"days_left\": ", "{days}", |letter| letter == '-' || letter.is_ascii_digit());
        without(&text, ", in ", "{days}", |letter| letter.is_ascii_digit())
    }

    fn run(&self, environment: &[(String, String)], arguments: &[String]) -> Output {
        let mut command = self.command(Path::new(BINARY));
        command.envs(environment.iter().map(|(name, value)| (name, self.filled_in(value))));
        command.args(arguments.iter().map(|argument| self.filled_in(argument))).output().unwrap()
    }

    /// A program with an environment that has the places and nothing else.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.path).env_clear().env("PATH", self.path.join("bin"));
        for (name, folder) in
            [("PROSODY_CONFIG_DIR", "config"), ("PROSODY_DATA_DIR", "data"), ("PROSODY_RUNTIME_DIR", "run")]
        {
            command.env(name, self.path.join(folder));
        }
        command
    }

    /// The files and links of a folder, by name. A folder in it is a list of links.
    fn files_below(&self, folder: &str) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(self.path.join(folder)).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap();
            let text = match fs::read_link(entry.path()) {
                Ok(target) => format!("a link to {}\n", target.display()).into_bytes(),
                Err(_) if entry.path().is_dir() => links(&entry.path()).into_bytes(),
                Err(_) => fs::read(entry.path()).unwrap(),
            };
            files.insert(name, self.stable(&text));
        }
        files
    }

    /// Every path below the sandbox.
    fn everything(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        let mut folders = vec![self.path.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                }
                found.insert(entry.path());
            }
        }
        found
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Where each link of a folder leads, what is in its PEM files, and the first line of a module of ours.
fn links(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let entries: BTreeSet<PathBuf> = entries.collect();
    let line = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        match fs::read_link(path) {
            Ok(target) => format!("{name} -> {}\n", target.display()),
            Err(_) => {
                let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
                let content = fs::read_to_string(path).unwrap();
                let content = match name.ends_with(".lua") {
                    true => content.lines().next().unwrap_or_default().to_owned(),
                    false => in_words(&content),
                };
                format!("{name} ({mode:o}) = {content}\n")
            }
        }
    };
    entries.iter().map(line).collect()
}

/// What a word in a list of certificates stands for, by the file `NAME.pem` in `tests/golden/certificates`: `NAME.crt` is
/// the certificate in it, `NAME.key` the key and `NAME.cut` the first half of the certificate. All else is the name of a
/// file in `tests/certificates`.
fn fixture(word: &str) -> Vec<u8> {
    let (name, part) = word.rsplit_once('.').unwrap();
    let Ok(pem) = fs::read_to_string(golden().join(format!("certificates/{name}.pem"))) else {
        return fs::read(golden().parent().unwrap().join("certificates").join(word)).unwrap();
    };
    let (certificate, key) = pem.split_at(pem.find("-----BEGIN PRIVATE KEY-----").unwrap());
    let text = match part {
        "crt" => certificate,
        "key" => key,
        "cut" => &certificate[..certificate.len() / 2],
        _ => panic!("no part of {name}: {word}"),
    };
    text.into()
}

/// A PEM file as the words of [`fixture`].
fn in_words(pem: &str) -> String {
    let mut words = HashMap::new();
    for file in fs::read_dir(golden().join("certificates")).unwrap() {
        let file = file.unwrap().file_name().into_string().unwrap();
        let Some(name) = file.strip_suffix(".pem") else { continue };
        for part in ["crt", "key"] {
            let word = format!("{name}.{part}");
            words.insert(fixture(&word), word);
        }
    }
    // A block has two lines that end so.
    let blocks = pem.split_inclusive("-----\n").collect::<Vec<_>>();
    let blocks = blocks.chunks(2).map(|block| block.concat());
    let word =
        |block: String| words.get(block.as_bytes()).unwrap_or_else(|| panic!("not a fixture: {block}"));
    blocks.map(|block| word(block).as_str()).collect::<Vec<_>>().join(" ")
}

/// A text with a word in place of what follows a start, as far as it is made of certain letters.
fn without(text: &str, start: &str, word: &str, is_part: fn(char) -> bool) -> String {
    let mut parts = text.split(start);
    let mut new = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(is_part);
        let word = if rest.len() < part.len() { word } else { "" };
        new.extend([start, word, rest]);
    }
    new
}

/// The line of a module that needs another one, which may say that it can do without.
fn depends(need: &str) -> String {
    match (need.strip_suffix('?'), need.strip_suffix('~')) {
        (Some(name), _) => format!("function module.add_host(module) module:depends({name:?}); end\n"),
        (_, Some(name)) => format!("function module.add_host(module) module:depends({name:?}, true); end\n"),
        _ => format!("module:depends({need:?});\n"),
    }
}

/// The Lua that runs Prosody on Debian.
fn lua() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|directory| directory.join("lua5.4")).find(|lua| lua.exists());
    found.expect("there is no lua5.4, which these tests need: apt-get install lua5.4")
}

/// Copies a folder, if it is there.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
