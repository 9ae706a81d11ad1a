//! The state: digests of a generation's inputs, written beside the configuration. A reload compares with them to find
//! the changes, and which of them Prosody applies without a restart.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::{self, Write};
use std::path::{Path, PathBuf};

use crate::lua::{self, Dialect, Secrets, Value};

use super::File;
use super::certificates::CertificatePlan;
use crate::digest::{self, Digest};
use crate::facts::Facts;
use crate::facts::lua_summary::{self, Summary};
use crate::intent::certificates::{Service, Wanted};
use crate::intent::hosts::{Options, ServedHosts};

/// In place of the module, for hosts from custom files.
const OWN: &str = "own";

/// The options that Prosody 0.12 and 13.0 fully apply at a reload: all code reads them on use, or again in a handler of
/// the event `config-reloaded` (from the sources). Options that only some modules or ports apply are not listed.
const APPLIED: [&str; 13] = [
    "c2s_ssl",
    "certificate",
    "certificates",
    "component_conflict_resolve",
    "component_secret",
    "conflict_resolve",
    "console_banner",
    "debug",
    "default_provisioned_role",
    "force_module_reload",
    "log",
    "s2s_ssl",
    "validate_from_addresses",
];

/// The prefix of more such options, the defaults of new rooms.
const APPLIED_PREFIX: &str = "muc_room_default_";

/// The options that locate data. A server that applied only some of these would keep data in two places.
const PLACES: [&str; 8] =
    ["data_path", "default_storage", "storage", "sql", "sql.database", "sql.driver", "sql.host", "sql.port"];

/// The text of the state. Each line is a kind and its fields, separated by tabs. It has digests instead of values,
/// because values may be secret.
///
/// `files` are the rendered files, `modules` the files of modules outside of Prosody, each with a digest.
pub fn describe(
    facts: &Facts,
    hosts: &ServedHosts,
    certificates: &CertificatePlan,
    options: &Options,
    files: &[File],
    modules: &[(PathBuf, u64)],
) -> String {
    let dialect = Dialect { version: facts.prosody.dialect(), secrets: Secrets::Written };
    let mut text = String::with_capacity(4096);
    add_options(&mut text, "", options, dialect);
    let components =
        hosts.components.iter().map(|host| (host, host.module.as_deref().unwrap_or("component")));
    for (host, module) in hosts.virtual_hosts.iter().map(|host| (host, "")).chain(components) {
        line(&mut text, format_args!("host\t{}\t{module}", host.name));
        add_options(&mut text, &host.name, &host.options, dialect);
    }
    for file in facts.custom_files.fragments().filter(|file| file.template.is_none()) {
        add_summary(&mut text, &file.path, &file.summary);
        add_hosts(&mut text, &file.summary);
    }
    let has_templates = !facts.custom_files.templates.is_empty();
    for file in files.iter().filter(|file| has_templates || file.source.is_some()) {
        let summary = lua_summary::summarize(file.content.as_bytes());
        add_summary(&mut text, file.source.as_ref().unwrap_or(&file.path), &summary);
        if file.source.is_some() {
            add_hosts(&mut text, &summary);
        }
    }
    let custom_files = facts.custom_files.fragments().filter(|file| file.template.is_none());
    let custom_files = custom_files.map(|file| (&file.path, file.digest));
    add_certificates(&mut text, certificates);
    for reason in &certificates.found.pending {
        line(&mut text, format_args!("pending\t{}", field(reason)));
    }
    for (path, digest) in modules {
        line(&mut text, format_args!("module\t{}\t{digest:x}", field(&path.to_string_lossy())));
    }
    // The rendered reference does not change with the secret file's content.
    for file in facts.secret_files.values() {
        line(&mut text, format_args!("file\t{}\t{:x}", field(&file.path), file.digest));
    }
    for (path, digest) in custom_files {
        let path = field(&path.to_string_lossy());
        line(&mut text, format_args!("file\t{path}\t{digest:x}"));
    }
    text
}

/// Adds the accounts to the text of a state.
pub fn add_accounts(state: &mut String, accounts: &str) {
    line(state, format_args!("accounts\t{}", digest(accounts)));
}

/// Adds a logged warning to the text of a state.
pub fn add_warning(state: &mut String, warning: &str) {
    line(state, format_args!("warning\t{}", digest(warning)));
}

fn digest(text: &str) -> String {
    format!("{:x}", digest::of(text.as_bytes()))
}

pub fn with_certificates(state: &str, certificates: &CertificatePlan) -> String {
    let others = state.lines().filter(|line| !line.starts_with("certificate\t"));
    let mut text: String = others.map(|line| format!("{line}\n")).collect();
    add_certificates(&mut text, certificates);
    text
}

/// Adds the certificates that are written.
fn add_certificates(text: &mut String, certificates: &CertificatePlan) {
    for served in &certificates.found.served {
        let Some(pair) = served.pair() else { continue };
        let (name, path) = (field(&served.name), field(&pair.certificate.to_string_lossy()));
        line(text, format_args!("certificate\t{name}\t{path}\t{:x}", pair.digest));
    }
}

fn add_hosts(text: &mut String, summary: &Summary) {
    for host in &summary.hosts {
        line(text, format_args!("host\t{}\t{OWN}", field(host)));
    }
}

/// The text without separators of fields and lines. Only an attacker's names contain them.
fn field(text: &str) -> String {
    text.replace(['\t', '\n'], "?")
}

fn add_summary(text: &mut String, path: &Path, summary: &Summary) {
    for (place, digest) in &summary.places {
        let path = field(&path.to_string_lossy());
        line(text, format_args!("option\t{path}\t{place}\t{digest:x}"));
    }
}

/// A parsed state.
#[derive(Debug, Default)]
pub struct State<'a> {
    /// The module of each host. Empty for a virtual host.
    hosts: BTreeMap<&'a str, &'a str>,
    /// The digest of each option's value, by host (empty for the global section) and name. A table with names has a key
    /// for each entry: `sql.driver`.
    options: BTreeMap<(&'a str, &'a str), &'a str>,
    /// The digest of each file that Prosody reads besides the rendered ones, by path.
    files: BTreeMap<&'a str, &'a str>,
    /// The digest of each module's file, by path. Prosody reads it when it loads the module.
    modules: BTreeMap<&'a str, &'a str>,
    /// The file and the digest of each name's certificate.
    certificates: BTreeMap<&'a str, (&'a str, &'a str)>,
    /// Pending problems of certificates: somebody may still be writing them.
    pending: BTreeSet<&'a str>,
    /// The digests of logged warnings.
    warnings: BTreeSet<&'a str>,
    /// The digest of the accounts.
    accounts: Option<&'a str>,
}

impl<'a> State<'a> {
    /// Parses the text of [`describe`]. Unknown lines are ignored.
    pub fn parse(text: &'a str) -> Self {
        let mut state = Self::default();
        for line in text.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            match fields[..] {
                ["host", name, module] => drop(state.hosts.insert(name, module)),
                ["option", host, name, digest] => drop(state.options.insert((host, name), digest)),
                ["file", path, digest] => drop(state.files.insert(path, digest)),
                ["module", path, digest] => drop(state.modules.insert(path, digest)),
                ["certificate", name, path, digest] => drop(state.certificates.insert(name, (path, digest))),
                ["pending", reason] => drop(state.pending.insert(reason)),
                ["warning", digest] => drop(state.warnings.insert(digest)),
                ["accounts", digest] => state.accounts = Some(digest),
                _ => {}
            }
        }
        state
    }

    pub fn has_warned(&self, warning: &str) -> bool {
        self.warnings.contains(&*digest(warning))
    }

    /// Whether there are other accounts in `new`.
    pub fn has_other_accounts(&self, new: &State) -> bool {
        self.accounts != new.accounts
    }

    /// The files that differ in `new`, except rendered ones.
    pub fn changed_files(&self, new: &State) -> Vec<PathBuf> {
        let files = different(&self.files, &new.files).chain(different(&self.modules, &new.modules));
        let is_other = |name: &str, digest: &str| {
            self.certificates.get(name).is_none_or(|(_, before)| *before != digest)
        };
        let certificates = new.certificates.iter().filter(|(name, (_, digest))| is_other(name, digest));
        let certificates = certificates.map(|(_, (path, _))| path);
        let mut seen: HashSet<&str> = HashSet::new();
        files.chain(certificates).filter(|path| seen.insert(path)).map(PathBuf::from).collect()
    }

    /// A digest of all names with a certificate, and of these certificates.
    pub fn certificates_digest(&self) -> u64 {
        let mut digest = Digest::default();
        for (name, (_, certificate)) in &self.certificates {
            // Writing to a digest does not fail.
            let _ = writeln!(digest, "{name} {certificate}");
        }
        digest.finish()
    }

    /// The names of the modules whose files differ in `new`.
    pub fn changed_modules(&self, new: &State) -> Vec<String> {
        let name = |path: &&str| {
            let names = path.rsplit('/').find_map(|part| part.strip_prefix("mod_"));
            names.map(|name| name.strip_suffix(".lua").unwrap_or(name).to_owned())
        };
        let names: BTreeSet<String> = different(&self.modules, &new.modules).filter_map(name).collect();
        names.into_iter().collect()
    }

    /// Whether certificates or pending problems differ in `new`.
    pub fn has_other_certificates(&self, new: &State) -> bool {
        !self.renewed_names(new).is_empty() || self.pending != new.pending
    }

    /// The names whose certificates differ in `new`.
    pub fn renewed_names(&self, new: &State) -> BTreeSet<String> {
        let digests = |state: &State| -> BTreeMap<String, String> {
            let all = state.certificates.iter();
            all.map(|(name, (_, digest))| ((*name).to_owned(), (*digest).to_owned())).collect()
        };
        different(&digests(self), &digests(new)).cloned().collect()
    }

    /// Whether a name is served with the certificate of this digest.
    pub fn serves(&self, name: &str, digest: u64) -> bool {
        self.certificates.get(name).is_some_and(|(_, served)| *served == format!("{digest:x}"))
    }

    /// The names of the hosts, and all others with a certificate.
    pub fn names(&self) -> BTreeSet<&'a str> {
        self.hosts.keys().chain(self.certificates.keys()).copied().collect()
    }

    /// Each name with a certificate, and the certificate's file and digest.
    pub fn served(&self) -> impl Iterator<Item = (&'a str, &'a str, &'a str)> {
        self.certificates.iter().map(|(name, (path, digest))| (*name, *path, *digest))
    }

    /// The names with a certificate, hosts first. A name that is no host is one of HTTP services.
    pub fn wanted_certificates(&self) -> Vec<Wanted> {
        let wanted = |(name, _, _): (&str, _, _)| {
            let is_host = self.hosts.contains_key(name);
            let service = if is_host { Service::Xmpp } else { Service::Https };
            Wanted { name: name.to_owned(), service, is_host, has_own: false }
        };
        let (hosts, others): (Vec<_>, Vec<_>) = self.served().map(wanted).partition(|wanted| wanted.is_host);
        [hosts, others].concat()
    }

    /// Strips entries that are new and still pending, and warnings not yet logged, from the text of another state. The
    /// next reload then reports them.
    pub fn without_new_pending(&self, text: &str) -> String {
        let is_known = |line: &&str| match line.split_once('\t') {
            Some(("pending", reason)) => self.pending.contains(reason),
            Some(("warning", digest)) => self.warnings.contains(digest),
            _ => true,
        };
        text.lines().filter(is_known).map(|line| format!("{line}\n")).collect()
    }

    pub fn has_no_new_pending(&self, new: &State) -> bool {
        new.pending.is_subset(&self.pending)
    }

    /// The changes in `new`, if `self` is the state at the server's start.
    pub fn changes(&self, new: &State) -> Changes {
        let mut changes = Changes::default();
        for host in different(&self.hosts, &new.hosts) {
            changes.restart.push(match (self.hosts.contains_key(host), new.hosts.contains_key(host)) {
                (false, _) => format!("the new host {host}"),
                (_, false) => format!("the removal of {host}"),
                _ => format!("the module of {host}"),
            });
        }
        let modules = different(&self.modules, &new.modules);
        changes.restart.extend(modules.map(|path| format!("the module's file {path}")));
        for (host, option) in different(&self.options, &new.options) {
            if !host.is_empty() && self.hosts.contains_key(host) != new.hosts.contains_key(host) {
                // The new or removed host is in the list already.
                continue;
            }
            let named = if host.is_empty() { (*option).to_owned() } else { format!("{option} of {host}") };
            let whole = option.split_once('.').map_or(*option, |(table, _)| table);
            if PLACES.contains(option) || whole == "storage" {
                changes.places.push(named);
            } else if !APPLIED.contains(&whole) && !whole.starts_with(APPLIED_PREFIX) {
                changes.restart.push(named);
            }
        }
        changes
    }
}

/// Changes that a running server does not apply.
#[derive(Debug, Default, PartialEq)]
pub struct Changes {
    /// Changes that need a restart, hosts first.
    pub restart: Vec<String>,
    /// Changed options that locate data.
    pub places: Vec<String>,
}

/// The keys that are in one map only, or have different values.
fn different<'a, K: Ord, V: PartialEq>(
    before: &'a BTreeMap<K, V>,
    after: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    let removed_or_changed = before.iter().filter(|(key, value)| after.get(key) != Some(value));
    let new = after.iter().filter(|(key, _)| !before.contains_key(key));
    removed_or_changed.chain(new).map(|(key, _)| key)
}

fn add_options(text: &mut String, host: &str, options: &Options, dialect: Dialect) {
    let mut add = |name: fmt::Arguments, value: &Value| {
        let mut digest = Digest::default();
        // An error here is in the report already, and prevents the plan from being applied.
        let _ = lua::write(&mut digest, value, dialect);
        line(text, format_args!("option\t{host}\t{name}\t{:x}", digest.finish()));
    };
    for (name, value) in options {
        match value {
            Value::Table(fields) => {
                for (key, value) in fields {
                    add(format_args!("{name}.{}", key.as_str().unwrap_or_default()), value);
                }
            }
            value => add(format_args!("{name}"), value),
        }
    }
}

fn line(text: &mut String, fields: fmt::Arguments) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{fields}");
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "option\t\tc2s_ports\t1\n\
        option\t\tlog.info\t1\n\
        option\t\tsql.driver\t1\n\
        option\t\tsql.password\t1\n\
        host\ta.example\t\n\
        option\ta.example\tadmins\t1\n\
        host\trooms.example\tmuc\n\
        option\trooms.example\tmuc_room_default_public\t1\n\
        file\t/etc/prosody/conf.d/a.cfg.lua\t1\n";

    /// `BEFORE` with each line that starts with the first of a pair replaced by the second, and an added line.
    fn after(replaced: &[(&str, &str)], added: &str) -> String {
        let mut after: Vec<String> = BEFORE.lines().map(str::to_owned).collect();
        for (line, new) in replaced {
            let place = after.iter().position(|one| one.starts_with(line)).unwrap();
            after[place] = (*new).to_owned();
        }
        after.push(added.to_owned());
        after.join("\n")
    }

    fn changes(replaced: &[(&str, &str)], added: &str) -> Changes {
        State::parse(BEFORE).changes(&State::parse(&after(replaced, added)))
    }

    fn set(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn equal_states_have_no_changes() {
        assert_eq!(changes(&[], ""), Changes::default());
    }

    #[test]
    fn options_that_prosody_applies_need_no_restart() {
        for (line, new) in [
            ("option\t\tlog", "option\t\tlog.debug\t1"),
            ("option\trooms.example\tmuc_room", "option\trooms.example\tmuc_room_default_public\t2"),
            ("option\t\tlog", ""),
        ] {
            assert_eq!(changes(&[(line, new)], "").restart, set(&[]), "{new}");
        }
        assert_eq!(changes(&[], "option\t\tcomponent_secret\t1").restart, set(&[]));
    }

    #[test]
    fn changes_that_need_a_restart_are_named() {
        let restart = |replaced, added| {
            let changes = changes(replaced, added);
            assert_eq!(changes.places, set(&[]));
            changes.restart
        };
        assert_eq!(restart(&[("option\t\tc2s", "option\t\tc2s_ports\t2")], ""), set(&["c2s_ports"]));
        assert_eq!(restart(&[("option\t\tc2s", "")], ""), set(&["c2s_ports"]));
        assert_eq!(
            restart(&[("option\ta.example", "option\ta.example\tadmins\t2")], ""),
            set(&["admins of a.example"])
        );
        assert_eq!(
            restart(&[("host\trooms", "host\trooms.example\tpubsub")], ""),
            set(&["the module of rooms.example"])
        );
        assert_eq!(restart(&[("option\t\tsql.p", "option\t\tsql.password\t2")], ""), set(&["sql.password"]));
        // The options of a new or removed host are not named one by one.
        let added = "host\tnew.example\t\noption\tnew.example\tstorage.roster\t1";
        assert_eq!(restart(&[], added), set(&["the new host new.example"]));
        assert_eq!(
            restart(&[("host\ta.ex", ""), ("option\ta.ex", "")], ""),
            set(&["the removal of a.example"])
        );
    }

    #[test]
    fn certificates_are_compared_by_digest() {
        let before = State::parse("certificate\ta.example\t/old\t1\npending\t/broken\n");
        let same = State::parse("certificate\ta.example\t/new\t1\npending\t/broken\n");
        assert!(!before.has_other_certificates(&same));
        assert_eq!(before.changed_files(&same), Vec::<PathBuf>::new());
        assert!(before.has_no_new_pending(&same));
        let renewed = State::parse("certificate\ta.example\t/new\t2\n");
        assert!(before.has_other_certificates(&renewed));
        assert_eq!(before.changed_files(&renewed), [PathBuf::from("/new")]);
        assert!(before.has_no_new_pending(&renewed));
        let two = State::parse("certificate\ta.example\t/new\t2\ncertificate\tb.example\t/new\t2\n");
        assert_eq!(before.changed_files(&two), [PathBuf::from("/new")]);
        let broken = State::parse("certificate\ta.example\t/old\t1\npending\t/broken\npending\t/other\n");
        assert!(before.has_other_certificates(&broken) && !before.has_no_new_pending(&broken));
        assert!(before.serves("a.example", 1) && !before.serves("a.example", 2) && !before.serves("b", 1));
        let news = "certificate\tb\t/b\t2\npending\t/broken\npending\t/other\nwarning\t7\n";
        assert_eq!(before.without_new_pending(news), "certificate\tb\t/b\t2\npending\t/broken\n");
    }

    #[test]
    fn logged_warnings_are_remembered() {
        let mut text = BEFORE.to_owned();
        add_warning(&mut text, "one");
        assert!(State::parse(&text).has_warned("one"));
        assert!(!State::parse(&text).has_warned("two"));
    }

    #[test]
    fn accounts_are_compared() {
        let state = |accounts: &str| {
            let mut text = BEFORE.to_owned();
            add_accounts(&mut text, accounts);
            text
        };
        let is_other =
            |before: &str, after: &str| State::parse(before).has_other_accounts(&State::parse(after));
        assert!(!is_other(&state("one"), &state("one")) && !is_other(BEFORE, BEFORE));
        assert!(is_other(&state("one"), &state("two")) && is_other(BEFORE, &state("one")));
    }

    #[test]
    fn a_changed_module_file_needs_a_restart() {
        for added in ["module\t/m/mod_a.lua\t2", ""] {
            let before = format!("{BEFORE}module\t/m/mod_a.lua\t1\n");
            let after = format!("{BEFORE}{added}\n");
            let (before, after) = (State::parse(&before), State::parse(&after));
            assert_eq!(before.changes(&after).restart, set(&["the module's file /m/mod_a.lua"]), "{added:?}");
            assert_eq!(before.changed_files(&after), [PathBuf::from("/m/mod_a.lua")], "{added:?}");
            assert_eq!(after.changes(&before).restart, set(&["the module's file /m/mod_a.lua"]));
        }
    }

    #[test]
    fn a_removed_certificate_is_a_change() {
        let before = State::parse("certificate\ta.example\t/a\t1\ncertificate\tb.example\t/b\t1\n");
        let after = State::parse("certificate\ta.example\t/a\t1\n");
        assert!(before.has_other_certificates(&after) && after.has_other_certificates(&before));
        // Added files are named, removed ones are not.
        assert_eq!(before.changed_files(&after), Vec::<PathBuf>::new());
        assert_eq!(after.changed_files(&before), [PathBuf::from("/b")]);
        // The same certificate under another name is a change.
        let renamed = State::parse("certificate\ta.example\t/a\t1\ncertificate\tc.example\t/b\t1\n");
        assert!(before.has_other_certificates(&renamed));
        assert_eq!(before.changes(&after), Changes::default(), "no restart, whatever it is");
    }

    #[test]
    fn pending_problems_are_compared() {
        let before = State::parse("pending\t/one\n");
        let (none, both) = (State::parse(""), State::parse("pending\t/one\npending\t/two\n"));
        assert!(
            before.has_no_new_pending(&none)
                && before.has_no_new_pending(&before)
                && !before.has_no_new_pending(&both)
        );
        assert!(!none.has_no_new_pending(&before));
        assert!(before.has_other_certificates(&none) && before.has_other_certificates(&both));
        assert!(!both.has_other_certificates(&State::parse("pending\t/two\npending\t/one\n")));
        // Everything else stays.
        let mut text = format!("{BEFORE}pending\t/two\n");
        add_warning(&mut text, "new");
        assert_eq!(before.without_new_pending(&text), BEFORE);
        let mut known = "pending\t/two\n".to_owned();
        add_warning(&mut known, "new");
        assert_eq!(State::parse(&known).without_new_pending(&text), text);
    }

    #[test]
    fn unknown_lines_are_ignored() {
        let text = format!("{BEFORE}pending\t/a\nfile\t/b\nhost\nmodule\t/m\t1\t2\n");
        let (before, after) = (State::parse(BEFORE), State::parse(&text));
        assert_eq!(before.changes(&after), Changes::default());
        assert_eq!(before.changed_files(&after), Vec::<PathBuf>::new());
    }

    #[test]
    fn options_that_locate_data_are_separate() {
        for (line, new, name) in [
            ("option\t\tsql.d", "option\t\tsql.driver\t2", "sql.driver"),
            ("option\t\tsql.d", "", "sql.driver"),
            ("option\t\tlog", "option\t\tlog.info\t1\noption\t\tdata_path\t1", "data_path"),
            ("option\t\tlog", "option\t\tlog.info\t1\noption\t\tstorage\t1", "storage"),
            ("option\t\tlog", "option\t\tlog.info\t1\noption\t\tstorage.archive\t1", "storage.archive"),
            (
                "host\ta.ex",
                "host\ta.example\t\noption\ta.example\tdefault_storage\t1",
                "default_storage of a.example",
            ),
        ] {
            assert_eq!(changes(&[(line, new)], "").places, set(&[name]), "{new}");
        }
    }

    #[test]
    fn added_changed_and_removed_files_are_named() {
        let path = "/etc/prosody/conf.d/a.cfg.lua";
        for new in ["", "file\t/etc/prosody/conf.d/a.cfg.lua\t2"] {
            let after = after(&[("file", new)], "");
            assert_eq!(State::parse(BEFORE).changed_files(&State::parse(&after)), [PathBuf::from(path)]);
            assert_eq!(changes(&[("file", new)], ""), Changes::default());
        }
        let after = after(&[], "file\t/b\t1");
        assert_eq!(State::parse(BEFORE).changed_files(&State::parse(&after)), [PathBuf::from("/b")]);
    }
}
