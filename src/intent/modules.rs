//! The wanted modules, as requests with reasons. The plan decides where modules for rooms load, after the survey.

use std::collections::{BTreeMap, HashSet};

use crate::lua::Value;
use crate::settings::catalogue::Field;

use super::hosts::{ENABLED, Options, ServedHosts, domain, names};
use crate::facts::Facts;
use crate::report::{Report, SettingError};
use crate::settings::Settings;
use crate::settings::types::Boolean;

/// The modules on every virtual host, except those that the version lacks.
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

/// Modules of the default set that 0.12 lacks.
const SINCE_13: &[&str] = &["account_activity", "cloud_notify"];

/// The additional modules with `PROSODY_DOMAIN`.
const FOR_DOMAIN: &[&str] = &["mam", "bosh", "websocket", "s2s_bidi", "mimicking", "tombstones"];

/// The modules that Prosody loads on every host without configuration (`core/modulemanager.lua`, 0.12 and 13.0).
const AUTOLOADED: [&str; 7] = ["presence", "message", "iq", "offline", "c2s", "s2s", "s2s_auth_certs"];

/// The module that another image's `PROSODY_E2E_POLICY_*` needs.
pub const E2E_POLICY: &str = "e2e_policy";

/// The name of the default set in reasons.
pub const THE_DEFAULT_SET: &str = "the default set";

/// The wanted modules.
#[derive(Debug, Clone, PartialEq)]
pub struct Modules {
    /// The modules that are enabled for all hosts, in order. Those among them for rooms load on components only.
    pub enabled: Vec<Enabled>,
    /// All requests. Those for all hosts are first.
    pub requests: Vec<ModuleRequest>,
    /// Whether the survey also reads Prosody's own modules for dependencies: a module is disabled, or `is_whole`.
    pub reads_own: bool,
    /// Whether the requests include the modules that Prosody loads without configuration.
    pub is_whole: bool,
    /// `PROSODY_MODULES_ENABLED`.
    pub chosen: Vec<String>,
    /// `PROSODY_MODULES_DISABLED`, without modules that are also enabled.
    pub disabled: Vec<String>,
    /// Another image's end-to-end encryption policy, which needs a module.
    pub e2e_policy: Option<E2ePolicy>,
    /// The variable for enabled modules.
    pub enabled_by: String,
    /// The variable for disabled modules.
    pub disabled_by: String,
    /// The variable for virtual hosts.
    pub hosts_by: String,
}

/// A module that is enabled for all hosts.
#[derive(Debug, Clone, PartialEq)]
pub struct Enabled {
    /// Its name.
    pub name: String,
    /// The reason: a setting's variable, or the default set.
    pub by: String,
}

/// A wanted module, with the reason.
#[derive(Debug, Clone, PartialEq)]
pub struct ModuleRequest {
    /// Its name.
    pub name: String,
    /// The reason.
    pub reason: Reason,
}

/// Another image's end-to-end encryption policy.
#[derive(Debug, Clone, PartialEq)]
pub struct E2ePolicy {
    /// The variable.
    pub variable: String,
    /// Whether unencrypted messages must not be delivered.
    pub is_required: bool,
}

/// The reason for a module.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// A setting or a default requests it.
    Asked {
        /// The setting's variable, or another name for the source.
        by: String,
        /// The requested use.
        role: Role,
        /// Whether no setting names the module.
        is_default: bool,
        /// Whether messages must not show its name, because it comes from values that may be secrets.
        is_hidden: bool,
    },
    /// Another module depends on it.
    NeededBy {
        /// The module.
        module: String,
        /// Whether the dependency is conditional.
        is_conditional: bool,
    },
}

/// The requested use of a module.
#[derive(Debug, Clone, PartialEq)]
pub enum Role {
    /// Loaded on all virtual hosts.
    Enabled,
    /// Loaded on one host.
    EnabledOn(String),
    /// Available, but not loaded.
    Available,
    /// Serves a component.
    Component(String),
    /// Authenticates users.
    Authentication,
    /// Decides users' permissions.
    Authorization,
    /// Stores data.
    Storage,
}

impl Role {
    /// The kind of module in words, and the prefix of its name.
    pub fn kind(&self) -> (&'static str, &'static str) {
        match self {
            Role::Authentication => ("authentication provider", "auth_"),
            Role::Authorization => ("authorization provider", "authz_"),
            Role::Storage => ("storage backend", "storage_"),
            Role::Enabled | Role::EnabledOn(_) | Role::Available | Role::Component(_) => ("module", ""),
        }
    }
}

impl Reason {
    /// Whether a setting names the module.
    pub fn is_chosen(&self) -> bool {
        matches!(self, Reason::Asked { is_default: false, .. })
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reason::NeededBy { module, is_conditional: false } => write!(f, "needed by {module}"),
            Reason::NeededBy { module, is_conditional: true } => write!(f, "{module} may need it"),
            Reason::Asked { by, role, .. } => match role {
                Role::Enabled => f.write_str(by),
                Role::EnabledOn(host) => write!(f, "{by}, on {host}"),
                Role::Available => write!(f, "{by}, not enabled"),
                Role::Component(host) => write!(f, "{by}, serves {host}"),
                Role::Authentication | Role::Authorization | Role::Storage => {
                    write!(f, "{by}, {}", role.kind().0)
                }
            },
        }
    }
}

/// Decides which modules are enabled for all hosts. Sets the options `modules_enabled`, `modules_disabled` and
/// `plugin_paths`.
pub fn wanted(settings: &Settings, facts: &Facts, options: &mut Options, report: &mut Report) -> Modules {
    report_normalized_names(settings, report);
    let variable = |field| settings.variable(field);
    let by_name: Vec<&str> = names(&settings.modules.modules_enabled);
    let mut disabled: Vec<&str> = names(&settings.modules.modules_disabled);
    disabled.retain(|name| {
        let is_both = by_name.contains(name);
        if is_both {
            report
                .info(format!("{}: {name} is enabled too, and that wins", variable(Field::modules_disabled)));
        }
        !is_both
    });

    let is_13 = facts.prosody.is_13();
    let is_on = |setting: Option<Boolean>| setting.is_some_and(|on| on.0);
    let mut enabled: Vec<(&str, String)> = Vec::new();
    let mut add = |condition: bool, names: &[&'static str], by: &dyn Fn() -> String| {
        if condition {
            enabled.extend(names.iter().map(|name| (*name, by())));
        }
    };
    let storage = &settings.storage;
    let by_default = || THE_DEFAULT_SET.to_owned();
    add(true, DEFAULT, &by_default);
    add(domain(settings, &facts.custom_files).is_some(), FOR_DOMAIN, &|| variable(Field::domain));
    for (is_set, field) in [
        (storage.retention_days.is_some(), Field::retention_days),
        (storage.archive_expiry_days.is_some(), Field::archive_expiry_days),
    ] {
        add(is_set, &["mam"], &|| variable(field));
    }
    let contacts = options.contains_key("contact_info");
    add(contacts, &["server_contact_info"], &|| format!("{}CONTACT_*", crate::settings::catalogue::PREFIX));
    add(settings.network.turn_secret.is_some(), &["turn_external"], &|| variable(Field::turn_secret));
    add(is_on(settings.observability.openmetrics), &["http_openmetrics"], &|| variable(Field::openmetrics));
    let e2e_policy = e2e_policy(settings);
    if let Some(policy) = &e2e_policy {
        add(true, &[E2E_POLICY], &|| policy.variable.clone());
    }
    let invite_only = settings.authentication.registration_invite_only;
    add(is_on(invite_only), &["invites_register"], &|| variable(Field::registration_invite_only));
    add(is_on(settings.tls.use_dane) && is_13, &["s2s_auth_dane_in"], &|| variable(Field::use_dane));
    enabled.retain(|(name, _)| !disabled.contains(name) && (is_13 || !SINCE_13.contains(name)));
    enabled.extend(by_name.iter().map(|name| (*name, variable(Field::modules_enabled))));
    let mut seen = HashSet::new();
    enabled.retain(|(name, _)| seen.insert(*name));
    // Prosody 13.0 has the functions of mod_posix built in, and warns if it is loaded.
    if is_13 && by_name.contains(&"posix") {
        enabled.retain(|(name, _)| *name != "posix");
        report.setting_warning(format!(
            "{}: posix is left out: Prosody {} does what it did by itself",
            variable(Field::modules_enabled),
            facts.prosody.version
        ));
    }
    if is_on(settings.authentication.allow_registration)
        && is_on(invite_only)
        && !enabled.iter().any(|(name, _)| *name == "invites_register")
    {
        report.error(SettingError::new(
            &variable(Field::modules_disabled),
            "invites_register is what asks for the invitation: without it anyone can make an account; leave it enabled",
        ));
    }

    let paths = plugin_paths(settings, facts);
    if !paths.is_empty() {
        options.insert("plugin_paths".into(), Value::from(paths));
    }
    if !disabled.is_empty() {
        // The option is needed only for modules that Prosody loads without configuration, such as `offline`.
        let disabled = disabled.iter().filter(|name| !is_only_left_out(name));
        let disabled: Vec<Value> = disabled.map(|name| Value::from(*name)).collect();
        if !disabled.is_empty() {
            options.insert("modules_disabled".into(), Value::List(disabled));
        }
    }
    options.insert(ENABLED.into(), enabled.iter().map(|(name, _)| *name).collect());
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Modules {
        requests: Vec::new(),
        reads_own: false,
        is_whole: false,
        chosen: owned(&by_name),
        disabled: owned(&disabled),
        enabled: enabled.into_iter().map(|(name, by)| Enabled { name: name.to_owned(), by }).collect(),
        e2e_policy,
        enabled_by: variable(Field::modules_enabled),
        disabled_by: variable(Field::modules_disabled),
        hosts_by: variable(Field::virtual_hosts),
    }
}

/// Whether a module is disabled by leaving it out of `modules_enabled`. If another module depends on it, Prosody still
/// loads it.
pub fn is_only_left_out(name: &str) -> bool {
    [DEFAULT, FOR_DOMAIN].iter().any(|names| names.contains(&name))
}

/// Another image's policy, unless it is `none` throughout.
fn e2e_policy(settings: &Settings) -> Option<E2ePolicy> {
    let policy = &settings.source.legacy.e2e_policy;
    let is = |word| policy.iter().filter(|(_, value)| value.as_str() == Some(word)).count();
    let variable = policy.first().filter(|_| is("none") < 2)?.0.to_ascii_uppercase();
    Some(E2ePolicy { variable, is_required: is("required") > 0 })
}

impl Modules {
    /// Fills in the requests and reports conflicts. `is_whole` adds modules that Prosody loads without configuration.
    pub fn request(
        &mut self,
        settings: &Settings,
        hosts: &ServedHosts,
        options: &Options,
        is_whole: bool,
        report: &mut Report,
    ) {
        let hosts_disable =
            hosts.virtual_hosts.iter().any(|host| host.options.contains_key("modules_disabled"));
        self.is_whole = is_whole;
        self.reads_own = is_whole || settings.modules.modules_disabled.is_some() || hosts_disable;
        let enabled = self.enabled.iter().map(|module| (module.name.as_str(), module.by.as_str()));
        let requested = Requested { settings, hosts, options, enabled: enabled.collect() };
        self.requests = requested.find(is_whole);
        find_conflicts(&self.requests, settings, hosts, report);
    }
}

/// The sources of requests.
struct Requested<'a> {
    settings: &'a Settings,
    hosts: &'a ServedHosts,
    options: &'a Options,
    /// The modules that are enabled for all hosts, with their reasons.
    enabled: BTreeMap<&'a str, &'a str>,
}

impl Requested<'_> {
    /// All requests, as in [`Modules::request`].
    fn find(&self, is_whole: bool) -> Vec<ModuleRequest> {
        let mut requests = Vec::new();
        let mut add = |name: String, by: &str, role: Role, is_default: bool, is_hidden: bool| {
            let reason = Reason::Asked { by: by.to_owned(), role, is_default, is_hidden };
            requests.push(ModuleRequest { name, reason });
        };
        let settings = self.settings;
        let variable = |field| settings.variable(field);
        let by_name = variable(Field::modules_enabled);
        if is_whole {
            AUTOLOADED
                .iter()
                .for_each(|name| add((*name).to_owned(), "Prosody itself", Role::Enabled, true, false));
        }
        self.each_name(self.options, "modules_enabled", &mut |name, is_written| match self
            .enabled
            .get(name.as_str())
        {
            Some(by) if !is_written => {
                let is_default = *by != by_name;
                add(name, by, Role::Enabled, is_default, false);
            }
            _ => add(name, &variable(Field::options), Role::Enabled, false, true),
        });
        for name in names(&settings.modules.modules_available) {
            add(name.to_owned(), &variable(Field::modules_available), Role::Available, false, false);
        }
        for (option, field, role, default) in [
            ("authentication", Field::authentication, Role::Authentication, "internal_hashed"),
            // It has no setting of its own.
            ("authorization", Field::options, Role::Authorization, "internal"),
            ("default_storage", Field::default_storage, Role::Storage, "internal"),
        ] {
            let prefix = role.kind().1;
            let is_given = settings.is_given(field);
            let mut any = false;
            self.each_name(self.options, option, &mut |name, is_written| {
                any = true;
                let by = match option {
                    _ if is_written => variable(Field::options),
                    // A database's URL or driver chooses the storage too.
                    "default_storage" if !is_given && settings.has_sql_family() => variable(Field::db_driver),
                    "default_storage" if !is_given => variable(Field::database_url),
                    _ => variable(field),
                };
                add(format!("{prefix}{name}"), &by, role.clone(), false, is_written);
            });
            if !any && is_whole {
                add(format!("{prefix}{default}"), THE_DEFAULT_SET, role, true, false);
            }
        }
        let stores: BTreeMap<&str, &str> = settings
            .stores
            .iter()
            .map(|(store, backend)| (backend.as_str(), settings.source.stores[store].variable.as_str()))
            .map(|(backend, variable)| (if backend == "sqlite" { "sql" } else { backend }, variable))
            .collect();
        self.each_name(self.options, "storage", &mut |name, is_written| {
            let by = stores.get(name.as_str()).filter(|_| !is_written);
            let by = by.map_or_else(|| variable(Field::options), |by| (*by).to_owned());
            add(format!("storage_{name}"), &by, Role::Storage, false, is_written);
        });

        for host in &self.hosts.virtual_hosts {
            self.add_host(&host.name, &host.options, &variable(Field::virtual_hosts), false, &mut add);
        }
        for component in &self.hosts.components {
            let (by, is_default) = (variable(component.field), component.is_default());
            let role = Role::Component(component.name.clone());
            match &component.module {
                Some(module) => add(module.clone(), &by, role, is_default, false),
                None if is_whole => add("component".to_owned(), &by, role, true, false),
                None => {}
            }
            self.add_host(&component.name, &component.options, &by, is_default, &mut add);
        }
        requests
    }

    /// Adds the requests in one host's options.
    fn add_host(
        &self,
        host: &str,
        options: &Options,
        by: &str,
        is_default: bool,
        add: &mut dyn FnMut(String, &str, Role, bool, bool),
    ) {
        let settings = self.settings;
        let (for_rooms, for_all) =
            (names(&settings.hosts.muc_modules), names(&settings.modules.modules_enabled));
        self.each_name(options, "modules_enabled", &mut |name, is_hidden| {
            let (by, is_default) = match () {
                () if for_rooms.contains(&name.as_str()) => (settings.variable(Field::muc_modules), false),
                () if for_all.contains(&name.as_str()) => (settings.variable(Field::modules_enabled), false),
                () => (by.to_owned(), is_default),
            };
            add(name, &by, Role::EnabledOn(host.to_owned()), is_default, is_hidden);
        });
        for (option, role) in [
            ("authentication", Role::Authentication),
            ("authorization", Role::Authorization),
            ("default_storage", Role::Storage),
            ("storage", Role::Storage),
        ] {
            let prefix = role.kind().1;
            self.each_name(options, option, &mut |name, is_hidden| {
                add(format!("{prefix}{name}"), by, role.clone(), false, is_hidden);
            });
        }
    }

    /// Calls `take` with each name in an option, and whether the name comes from values that may be secrets.
    fn each_name(&self, options: &Options, option: &str, take: &mut dyn FnMut(String, bool)) {
        let is_global = std::ptr::eq(options, self.options);
        let written = self.settings.anything.options.as_ref().filter(|_| is_global);
        let is_written = written.is_some_and(|written| written.get(option).is_some());
        if let Some(value) = options.get(option) {
            value.each_text(&mut |text, is_secret| {
                // The storage backend `null` needs no module.
                if text != "null" {
                    take(text.to_owned(), is_written || is_secret);
                }
            });
        }
    }
}

/// Reports pairs of modules that Prosody does not load together, on all hosts or on one.
fn find_conflicts(requests: &[ModuleRequest], settings: &Settings, hosts: &ServedHosts, report: &mut Report) {
    let requested_by = |wanted: &str, host: Option<&str>| {
        requests.iter().find_map(|ModuleRequest { name, reason }| match reason {
            Reason::Asked { by, role: Role::Enabled, .. } if name == wanted => Some(by.clone()),
            Reason::Asked { by, role: Role::EnabledOn(on), .. } if name == wanted && host == Some(on) => {
                Some(by.clone())
            }
            _ => None,
        })
    };
    for (one, other) in [("vcard", "vcard_legacy"), ("pep_simple", "pep")] {
        if let (Some(one_by), Some(other_by)) = (requested_by(one, None), requested_by(other, None)) {
            let chosen = names(&settings.modules.modules_enabled);
            let is_chosen = chosen.contains(&one) && chosen.contains(&other);
            let advice = match is_chosen {
                true => "leave one of them out".to_owned(),
                false => format!("set PROSODY_MODULES_DISABLED={other}, or leave {one} out"),
            };
            report.error(SettingError::new(
                &settings.variable(Field::modules_enabled),
                &format!("{one} ({one_by}) and {other} ({other_by}) cannot be loaded together: {advice}"),
            ));
            continue;
        }
        for host in &hosts.virtual_hosts {
            let mut is_disabled = false;
            host.options.get("modules_disabled").iter().for_each(|list| {
                list.each_text(&mut |name, _| is_disabled |= name == one || name == other);
            });
            let on = Some(host.name.as_str());
            if let (Some(one_by), Some(other_by), false) =
                (requested_by(one, on), requested_by(other, on), is_disabled)
            {
                report.error(SettingError::new(
                    &settings.variable(Field::virtual_hosts),
                    &format!(
                        "{one} ({one_by}) and {other} ({other_by}) cannot be loaded together on {}: name one of them in \
                         its `modules_disabled`",
                        host.name
                    ),
                ));
            }
        }
    }
}

/// Reports names that were normalized to Prosody's spelling.
fn report_normalized_names(settings: &Settings, report: &mut Report) {
    for (field, set) in [
        (Field::modules_enabled, &settings.modules.modules_enabled),
        (Field::modules_disabled, &settings.modules.modules_disabled),
        (Field::modules_available, &settings.modules.modules_available),
        (Field::muc_modules, &settings.hosts.muc_modules),
    ] {
        let Some(given) = settings.source.given.get(&field).filter(|_| set.is_some()) else { continue };
        let written = given.value.split(|c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']' | '"'));
        for written in written.filter(|written| !written.is_empty()) {
            let lower = written.to_ascii_lowercase();
            let name = lower.strip_prefix("mod_").unwrap_or(&lower);
            if name != written && names(set).contains(&name) {
                report.info(format!("{}: {written} is the module {name}", given.variable));
            }
        }
    }
}

/// The custom module directories. Prosody searches them before its own.
fn plugin_paths(settings: &Settings, facts: &Facts) -> Vec<String> {
    match &settings.modules.plugin_paths {
        Some(paths) => paths.iter().map(|path| path.as_str().to_owned()).collect(),
        None => facts.default_plugin_paths.iter().map(|path| path.to_string_lossy().into_owned()).collect(),
    }
}
