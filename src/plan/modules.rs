//! Which modules are loaded, and where.

use std::collections::{BTreeMap, HashSet};

use minijinja::Value;

use super::hosts::{Hosts, Options, domain};
use crate::facts::Facts;
use crate::report::{Mistake, Report};
use crate::settings::Settings;
use crate::settings::types::{Boolean, Name, Set};
use crate::survey::modules::Origin;

/// What is loaded on every virtual host, less what a version does not have.
const DEFAULT: &[&str] = &[
    // Generally required
    "disco",
    "roster",
    "saslauth",
    "tls",
    // Recommended
    "blocklist",
    "bookmarks",
    "carbons",
    "dialback",
    "limits",
    "pep",
    "private",
    "smacks",
    "vcard4",
    "vcard_legacy",
    // Nice to have
    "account_activity",
    "cloud_notify",
    "csi_simple",
    "invites",
    "invites_adhoc",
    "invites_register",
    "ping",
    "register",
    "time",
    "uptime",
    "version",
    // Administration
    "admin_adhoc",
    "admin_shell",
];

/// What of the default set 0.12 does not have itself.
const SINCE_13: &[&str] = &["account_activity", "cloud_notify"];

/// What `PROSODY_DOMAIN` adds.
const FOR_DOMAIN: &[&str] = &["mam", "bosh", "websocket", "s2s_bidi", "mimicking", "tombstones"];

/// Modules that serve an address of their own. On a virtual host they do nothing, or fail.
const COMPONENTS: &[&str] = &["muc", "http_file_share", "proxy65", "pubsub"];

/// What of the modules that are enabled for all hosts asked for each: a setting, or `the default set`.
pub type Asked = BTreeMap<String, String>;

/// What asks for the default set.
pub const THE_DEFAULT_SET: &str = "the default set";

/// The options of the modules fragment: `modules_enabled`, `modules_disabled`, and the user's folders in `plugin_paths`.
/// What belongs to rooms goes to their components.
pub fn options(
    settings: &Settings,
    facts: &Facts,
    hosts: &mut Hosts,
    options: &mut Options,
    report: &mut Report,
) -> Asked {
    say_what_was_understood(settings, report);
    let variable = |field: &str| settings.variable(field);
    let by_name: Vec<&str> = names(&settings.modules.modules_enabled);
    let mut disabled: Vec<&str> = names(&settings.modules.modules_disabled);
    disabled.retain(|name| {
        let is_both = by_name.contains(name);
        if is_both {
            report.remark(format!("{}: {name} is enabled too, and that wins", variable("modules_disabled")));
        }
        !is_both
    });

    let is_13 = facts.prosody.is_13();
    let is_on = |setting: Option<Boolean>| setting.is_some_and(|on| on.0);
    let mut enabled: Vec<(&str, String)> = Vec::new();
    let mut add = |condition: bool, names: &[&'static str], asked: &dyn Fn() -> String| {
        if condition {
            enabled.extend(names.iter().map(|name| (*name, asked())));
        }
    };
    let storage = &settings.storage;
    let by_default = || THE_DEFAULT_SET.to_owned();
    add(true, DEFAULT, &by_default);
    add(domain(settings, &facts.user_files).is_some(), FOR_DOMAIN, &|| variable("domain"));
    for (is_set, field) in [
        (storage.retention_days.is_some(), "retention_days"),
        (storage.archive_expiry_days.is_some(), "archive_expiry_days"),
    ] {
        add(is_set, &["mam"], &|| variable(field));
    }
    let contacts = options.contains_key("contact_info");
    add(contacts, &["server_contact_info"], &|| format!("{}CONTACT_*", crate::settings::catalogue::PREFIX));
    add(settings.network.turn_secret.is_some(), &["turn_external"], &|| variable("turn_secret"));
    add(is_on(settings.observability.openmetrics), &["http_openmetrics"], &|| variable("openmetrics"));
    if let Some(by) = e2e_policy(settings, facts, report) {
        add(true, &["e2e_policy"], &|| by.clone());
    }
    let invite_only = settings.authentication.registration_invite_only;
    add(is_on(invite_only), &["invites_register"], &|| variable("registration_invite_only"));
    add(is_on(settings.tls.use_dane) && is_13, &["s2s_auth_dane_in"], &|| variable("use_dane"));
    enabled.retain(|(name, _)| !disabled.contains(name) && (is_13 || !SINCE_13.contains(name)));
    enabled.extend(by_name.iter().map(|name| (*name, variable("modules_enabled"))));
    let mut seen = HashSet::new();
    enabled.retain(|(name, _)| seen.insert(*name));
    // Prosody 13.0 does by itself what mod_posix did, and warns where it is loaded.
    if is_13 && by_name.contains(&"posix") {
        enabled.retain(|(name, _)| *name != "posix");
        report.warning(format!(
            "{}: posix is left out: Prosody {} does what it did by itself",
            variable("modules_enabled"),
            facts.prosody.version
        ));
    }
    enabled.retain(|(name, _)| stays(name, settings, facts, hosts, report));
    if is_on(settings.authentication.allow_registration)
        && is_on(invite_only)
        && !enabled.iter().any(|(name, _)| *name == "invites_register")
    {
        report.mistake(Mistake::new(
            &variable("modules_disabled"),
            "invites_register is what asks for the invitation: without it anyone can make an account; leave it enabled",
        ));
    }

    // What is left to disable is what Prosody loads by itself, `offline` for one.
    disabled.retain(|name| !is_only_left_out(name));
    let paths = plugin_paths(settings, facts);
    if !paths.is_empty() {
        options.insert("plugin_paths".into(), Value::from(paths));
    }
    options.insert("modules_enabled".into(), enabled.iter().map(|(name, _)| Value::from(*name)).collect());
    if !disabled.is_empty() {
        options.insert("modules_disabled".into(), disabled.into_iter().map(Value::from).collect());
    }
    enabled.into_iter().map(|(name, asked)| (name.to_owned(), asked)).collect()
}

/// Whether a module is disabled by being left out of those that are enabled. Where another module needs it, Prosody loads
/// it all the same.
pub fn is_only_left_out(name: &str) -> bool {
    [DEFAULT, FOR_DOMAIN].iter().any(|names| names.contains(&name))
}

/// Whether a module that was enabled for all hosts stays in that list. What serves rooms goes to their components, and
/// what serves an address of its own is loaded there alone.
fn stays(name: &str, settings: &Settings, facts: &Facts, hosts: &mut Hosts, report: &mut Report) -> bool {
    let variable = settings.variable("modules_enabled");
    if COMPONENTS.contains(&name) {
        match hosts.components.iter().find(|component| component.module.as_deref() == Some(name)) {
            Some(component) => {
                report.remark(format!("{variable}: {name} is there already, it serves {}", component.name));
            }
            None => report.warning(format!(
                "{variable}: {name} is left out: it serves an address of its own; write HOST:{name} into \
                 PROSODY_COMPONENTS, beside the other components that you want"
            )),
        }
        return false;
    }
    if !serves_rooms(name, facts) {
        return true;
    }
    let mut addresses = Vec::new();
    for rooms in hosts.components.iter_mut().filter(|component| component.module.as_deref() == Some("muc")) {
        addresses.push(rooms.name.clone());
        let enabled = rooms.options.get("modules_enabled");
        let enabled: Vec<Value> =
            enabled.and_then(|list| list.try_iter().ok()).into_iter().flatten().collect();
        if !enabled.iter().any(|one| one.as_str() == Some(name)) {
            let enabled: Value = enabled.into_iter().chain([Value::from(name)]).collect();
            rooms.options.insert("modules_enabled".into(), enabled);
        }
    }
    match &addresses[..] {
        [] => report.warning(format!(
            "{variable}: {name} is left out: it is for rooms, and there are none; write HOST:muc into PROSODY_COMPONENTS, \
             beside the other components that you want"
        )),
        _ => report.remark(format!(
            "{variable}: {name} is for rooms, and loaded on {}",
            crate::text::several(&addresses)
        )),
    }
    false
}

/// Whether a module is for rooms: by its name, or because it needs `mod_muc`, which no virtual host can load.
fn serves_rooms(name: &str, facts: &Facts) -> bool {
    if name.starts_with("muc_") {
        return true;
    }
    let found = facts.modules.find(name);
    let file = found.file.as_ref().filter(|file| file.origin != Origin::Prosody);
    file.and_then(|file| file.source.as_ref())
        .is_some_and(|source| source.modules.iter().any(|need| need.name == "muc" && !need.is_conditional))
}

/// The variable that asks for the module `e2e_policy`, another image's, where there is that module. Without it a policy that
/// is required would not be kept.
fn e2e_policy(settings: &Settings, facts: &Facts, report: &mut Report) -> Option<String> {
    let policy = &settings.source.moving_in.e2e_policy;
    let is = |word| policy.iter().filter(|(_, value)| value.as_str() == Some(word)).count();
    let by = policy.first().filter(|_| is("none") < 2)?.0.to_ascii_uppercase();
    if facts.modules.find("e2e_policy").file.is_some() {
        return Some(by);
    }
    let why = "there is no module `e2e_policy`, and without it unencrypted messages are delivered: put it into a folder of \
               PROSODY_PLUGIN_PATHS";
    match is("required") {
        0 => report.warning(format!("{by}: {why}")),
        _ => report.mistake(Mistake::new(&by, &format!("{why}, or say `none`"))),
    }
    None
}

/// Says which names were not written as Prosody writes them.
fn say_what_was_understood(settings: &Settings, report: &mut Report) {
    for (field, set) in [
        ("modules_enabled", &settings.modules.modules_enabled),
        ("modules_disabled", &settings.modules.modules_disabled),
        ("modules_available", &settings.modules.modules_available),
        ("muc_modules", &settings.hosts.muc_modules),
    ] {
        let Some(given) = settings.source.given.get(field).filter(|_| set.is_some()) else { continue };
        let written = given.value.split(|c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']' | '"'));
        for written in written.filter(|written| !written.is_empty()) {
            let lower = written.to_ascii_lowercase();
            let name = lower.strip_prefix("mod_").unwrap_or(&lower);
            if name != written && names(set).contains(&name) {
                report.remark(format!("{}: {written} is the module {name}", given.variable));
            }
        }
    }
}

/// The user's folders, which are searched before Prosody's own.
fn plugin_paths(settings: &Settings, facts: &Facts) -> Vec<String> {
    match &settings.modules.plugin_paths {
        Some(paths) => paths.iter().map(|path| path.as_str().to_owned()).collect(),
        None => facts.default_plugin_paths.iter().map(|path| path.to_string_lossy().into_owned()).collect(),
    }
}

/// The names in a list that may not be set.
pub fn names(set: &Option<Set<Name>>) -> Vec<&str> {
    set.iter().flat_map(|set| set.iter()).map(|name| name.as_str()).collect()
}
