//! Which modules are loaded, and whether they exist.

use std::collections::BTreeMap;

use super::hosts::{self, Options};
use crate::facts::Facts;
use crate::settings::nearest::nearest;
use crate::settings::{Mistake, Report, Settings};
use minijinja::Value;

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

/// Modules that something asked for, each with the first setting that did.
#[derive(Default)]
pub struct Wanted(BTreeMap<String, String>);

impl Wanted {
    /// Notes that a setting asks for a module.
    pub fn add(&mut self, module: &str, variable: &str) {
        if !self.0.contains_key(module) {
            self.0.insert(module.to_owned(), variable.to_owned());
        }
    }
}

/// The options of the modules fragment: `plugin_paths`, `modules_enabled`, `modules_disabled`.
pub fn options(settings: &Settings, facts: &Facts, options: &mut Options, report: &mut Report) {
    let enabled_by_name: Vec<&str> = names(&settings.modules.modules_enabled);
    let disabled: Vec<&str> = names(&settings.modules.modules_disabled)
        .into_iter()
        .filter(|name| !enabled_by_name.contains(name))
        .collect();
    for both in names(&settings.modules.modules_disabled) {
        if enabled_by_name.contains(&both) {
            report.note(format!("{both} is enabled and disabled: enabled wins"));
        }
    }

    let is_13 = facts.prosody.is_13();
    let mut enabled: Vec<&str> =
        DEFAULT.iter().copied().filter(|name| is_13 || !SINCE_13.contains(name)).collect();
    let mut add = |condition: bool, names: &[&'static str]| {
        if condition {
            enabled.extend(names);
        }
    };
    let archives =
        settings.storage.retention_days.is_some() || settings.storage.archive_expiry_days.is_some();
    add(settings.hosts.domain.is_some(), FOR_DOMAIN);
    add(archives, &["mam"]);
    add(options.contains_key("contact_info"), &["server_contact_info"]);
    add(settings.network.turn_secret.is_some(), &["turn_external"]);
    add(settings.observability.openmetrics.is_some_and(|on| on.0), &["http_openmetrics"]);
    add(settings.authentication.registration_invite_only.is_some_and(|on| on.0), &["invites_register"]);
    add(settings.tls.use_dane.is_some_and(|on| on.0) && is_13, &["s2s_auth_dane_in"]);
    enabled.retain(|name| !disabled.contains(name));
    enabled.extend(&enabled_by_name);
    let mut seen = std::collections::HashSet::new();
    enabled.retain(|name| seen.insert(*name));
    // Prosody 13.0 does by itself what mod_posix did, and warns where it is loaded.
    if is_13 && enabled.contains(&"posix") {
        enabled.retain(|name| *name != "posix");
        report.warning(format!(
            "{}: posix is left out: Prosody {} does what it did by itself",
            settings.variable("modules_enabled"),
            facts.prosody.version
        ));
    }
    find_conflicts(&enabled, settings, report);
    let authentication = &settings.authentication;
    let is_on = |setting: Option<crate::settings::types::Boolean>| setting.is_some_and(|on| on.0);
    if is_on(authentication.allow_registration)
        && is_on(authentication.registration_invite_only)
        && !enabled.contains(&"invites_register")
    {
        report.mistake(Mistake::new(
            &settings.variable("modules_disabled"),
            "invites_register is what asks for the invitation: without it anyone can make an account; leave it enabled",
        ));
    }

    // What is left to disable is what Prosody loads by itself, `offline` for one.
    let is_ours = |name: &&str| DEFAULT.contains(name) || FOR_DOMAIN.contains(name);
    let disabled: Vec<&str> = disabled.into_iter().filter(|name| !is_ours(name)).collect();

    let paths = plugin_paths(settings, facts);
    if !paths.is_empty() {
        options.insert("plugin_paths".into(), Value::from(paths));
    }
    options.insert("modules_enabled".into(), strings(enabled));
    if !disabled.is_empty() {
        options.insert("modules_disabled".into(), strings(disabled));
    }
}

/// Where modules are searched before Prosody's own.
pub fn plugin_paths(settings: &Settings, facts: &Facts) -> Vec<String> {
    match &settings.modules.plugin_paths {
        Some(paths) => paths.iter().map(|path| path.as_str().to_owned()).collect(),
        None => facts.default_plugin_paths.iter().map(|path| path.to_string_lossy().into_owned()).collect(),
    }
}

/// Pairs that Prosody refuses to load together.
fn find_conflicts(enabled: &[&str], settings: &Settings, report: &mut Report) {
    for (one, other) in [("vcard", "vcard_legacy"), ("pep_simple", "pep")] {
        if enabled.contains(&one) && enabled.contains(&other) {
            report.mistake(Mistake::new(
                &settings.variable("modules_enabled"),
                &format!("{one} and {other} cannot be loaded together: set PROSODY_MODULES_DISABLED={other}"),
            ));
        }
    }
}

/// Finds wanted modules that Prosody and the user's own folders do not have.
pub fn check(settings: &Settings, facts: &Facts, report: &mut Report) {
    let mut wanted = Wanted::default();
    for (field, set) in [
        ("modules_enabled", &settings.modules.modules_enabled),
        ("modules_available", &settings.modules.modules_available),
    ] {
        for name in names(set) {
            wanted.add(name, &settings.variable(field));
        }
    }
    hosts::wanted(settings, &mut wanted);
    if let Some(provider) = &settings.authentication.authentication {
        wanted.add(&format!("auth_{}", provider.as_str()), &settings.variable("authentication"));
    }
    let default =
        settings.storage.default_storage.iter().map(|name| (name, settings.variable("default_storage")));
    let stores =
        settings.stores.iter().map(|(store, name)| (name, settings.source.stores[store].variable.clone()));
    for (backend, variable) in default.chain(stores).filter(|(name, _)| name.as_str() != "sqlite") {
        wanted.add(&format!("storage_{}", backend.as_str()), &variable);
    }

    for (module, variable) in &wanted.0 {
        // `component` is what an external component's section loads.
        if facts.modules().contains(module) || module == "posix" {
            continue;
        }
        let (kind, prefix) = match module {
            _ if module.starts_with("auth_") && *variable == settings.variable("authentication") => {
                ("authentication provider", "auth_")
            }
            _ if module.starts_with("storage_") && !variable.contains("MODULES") => {
                ("storage backend", "storage_")
            }
            _ => ("module", ""),
        };
        let own = facts.modules().iter().filter_map(|name| name.strip_prefix(prefix));
        let name = module.strip_prefix(prefix).unwrap_or(module);
        let hint = nearest(name, own).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        report.mistake(Mistake::new(
            variable,
            &format!(
                "no {kind} `{name}` in Prosody {} or in the folders of PROSODY_PLUGIN_PATHS (community modules have \
                 to be put there){hint}",
                facts.prosody.version
            ),
        ));
    }
}

fn strings(names: Vec<&str>) -> Value {
    names.into_iter().map(Value::from).collect()
}

fn names(set: &Option<crate::settings::types::Set<crate::settings::types::Name>>) -> Vec<&str> {
    set.iter().flat_map(|set| set.iter()).map(|name| name.as_str()).collect()
}
