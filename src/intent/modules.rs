//! The wanted modules, as requests with reasons. The plan decides where modules for rooms load, after the survey.

use std::collections::{BTreeMap, HashSet};

use crate::lua::Value;
use crate::settings::catalogue::{Field, PREFIX};

use super::features;
use super::hosts::{ENABLED, Host, Options, ServedHosts, domains, names};
use super::proxies::PROXIED_PORTS;
use crate::facts::Facts;
use crate::report::{Report, SettingError};
use crate::settings::Settings;
use crate::settings::types::{Boolean, Feature};

/// The modules on every virtual host, except those that the version lacks: what every server needs, what Prosody's own
/// example configuration recommends and finds nice to have, and the administration of the server.
const DEFAULT: &[&str] = &[
    "disco", "roster", "saslauth", "tls", "blocklist", "bookmarks", "carbons", "dialback", "limits", "pep",
    "private", "smacks", "vcard4", "vcard_legacy", "account_activity", "cloud_notify", "csi_simple",
    "invites", "invites_adhoc", "invites_register", "ping", "register", "time", "uptime", "version",
    "admin_adhoc", "admin_shell",
];

/// Modules of the default set that 0.12 lacks.
const SINCE_13: &[&str] = &["account_activity", "cloud_notify"];

/// The additional modules with `PROSODY_DOMAIN`.
const FOR_DOMAIN: &[&str] = &["mam", "bosh", "websocket", "s2s_bidi", "mimicking", "tombstones"];

/// The modules that Prosody loads on every host without configuration (`core/modulemanager.lua`, 0.12 and 13.0).
pub const AUTOLOADED: [&str; 7] = ["presence", "message", "iq", "offline", "c2s", "s2s", "s2s_auth_certs"];

/// The module that another image's `PROSODY_E2E_POLICY_*` needs.
pub const E2E_POLICY: &str = "e2e_policy";

/// The module for the PROXY protocol. It is in the collection.
const PROXY_MODULE: &str = "net_proxy";

/// The name of the default set in reasons.
pub const THE_DEFAULT_SET: &str = "the default set";

/// The wanted modules.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Modules {
    /// The modules that are enabled for all hosts, in order. Those among them for rooms load on components only.
    pub enabled: Vec<ModuleRequest>,
    /// All requests. Those for all hosts are first.
    pub requests: Vec<ModuleRequest>,
    /// Whether the survey also reads Prosody's own modules for dependencies: a module is disabled, or the requests
    /// include the modules that Prosody loads without configuration.
    pub reads_prosodys_modules: bool,
    /// `PROSODY_MODULES_DISABLED`, without modules that are also enabled.
    pub disabled: Vec<String>,
    /// The modules in `modules_disabled` of virtual hosts.
    pub disabled_on_hosts: Vec<String>,
    /// Another image's end-to-end encryption policy, which needs a module.
    pub e2e_policy: Option<E2ePolicy>,
    /// The variables for enabled modules, for disabled modules, and for virtual hosts.
    pub enabled_by: String,
    pub disabled_by: String,
    pub hosts_by: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct E2ePolicy {
    pub variable: String,
    /// Whether unencrypted messages must not be delivered.
    pub is_required: bool,
}

/// A module that a setting or a default requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModuleRequest {
    pub name: String,
    /// The setting's variable, or another name for the source.
    pub by: String,
    pub role: Role,
    /// Whether no setting names the module, and Prosody has it itself.
    pub is_default: bool,
    /// The feature that it belongs to. Such a module is left out if it cannot be loaded.
    pub feature: Option<Feature>,
}

/// The requested use of a module.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Role {
    /// Loaded on all virtual hosts.
    Enabled,
    EnabledOn(String),
    /// Available, but not loaded.
    Available,
    Component(String),
    Authentication,
    Authorization,
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

impl ModuleRequest {
    pub fn new(name: impl Into<String>, by: &str, role: Role) -> Self {
        Self { name: name.into(), by: by.to_owned(), role, is_default: false, feature: None }
    }

    /// The name without the prefix of its kind.
    pub fn short_name(&self) -> &str {
        self.name.strip_prefix(self.role.kind().1).unwrap_or(&self.name)
    }
}

impl std::fmt::Display for ModuleRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.by)?;
        match &self.role {
            Role::Enabled => Ok(()),
            Role::EnabledOn(host) => write!(f, ", on {host}"),
            Role::Available => f.write_str(", not enabled"),
            Role::Component(host) => write!(f, ", serves {host}"),
            role => write!(f, ", {}", role.kind().0),
        }
    }
}

/// Decides which modules are enabled for all hosts. Sets the options `modules_enabled`, `modules_disabled` and
/// `plugin_paths`.
pub fn wanted(settings: &Settings, facts: &Facts, options: &mut Options, report: &mut Report) -> Modules {
    report_normalized_names(settings, report);
    let variable = |field| settings.variable(field);
    let by_name: Vec<&str> = names(&settings.modules.modules_enabled);
    let chosen: HashSet<&str> = by_name.iter().copied().collect();
    let mut disabled: Vec<&str> = names(&settings.modules.modules_disabled);
    disabled.retain(|name| {
        let is_both = chosen.contains(name);
        if is_both {
            report
                .info(format!("{}: {name} is enabled too, and that wins", variable(Field::modules_disabled)));
        }
        !is_both
    });

    let is_13 = facts.prosody.is_13();
    let is_on = |setting: Option<Boolean>| setting.is_some_and(|on| on.0);
    let storage = &settings.storage;
    let has_domains = !domains(settings, &facts.custom_files).is_empty();
    let contacts = format!("{PREFIX}CONTACT_*");
    let has_turn = settings.network.turn_secret.is_some();
    let has_metrics = is_on(settings.observability.openmetrics);
    let e2e_policy = e2e_policy(settings);
    let policy = e2e_policy.as_ref().map(|policy| policy.variable.clone()).unwrap_or_default();
    let invite_only = is_on(settings.authentication.registration_invite_only);
    let has_dane = is_on(settings.tls.use_dane) && is_13;
    let has_proxies = options.contains_key(PROXIED_PORTS);
    let sets: [(bool, &[&str], String); 11] = [
        (true, DEFAULT, THE_DEFAULT_SET.to_owned()),
        (has_domains, FOR_DOMAIN, variable(Field::domain)),
        (storage.retention_days.is_some(), &["mam"], variable(Field::retention_days)),
        (storage.archive_expiry_days.is_some(), &["mam"], variable(Field::archive_expiry_days)),
        (options.contains_key("contact_info"), &["server_contact_info"], contacts),
        (has_turn, &["turn_external"], variable(Field::turn_secret)),
        (has_metrics, &["http_openmetrics"], variable(Field::openmetrics)),
        (e2e_policy.is_some(), &[E2E_POLICY], policy),
        (invite_only, &["invites_register"], variable(Field::registration_invite_only)),
        (has_dane, &["s2s_auth_dane_in"], variable(Field::use_dane)),
        (has_proxies, &[PROXY_MODULE], variable(Field::proxy_protocol_ports)),
    ];
    let sets = sets.iter().filter(|(is_set, ..)| *is_set);
    let mut enabled: Vec<ModuleRequest> = sets
        .flat_map(|(_, names, by)| names.iter().map(|name| ModuleRequest::new(*name, by, Role::Enabled)))
        .collect();
    enabled.retain(|module| is_13 || !SINCE_13.contains(&module.name.as_str()));
    // A module that is also named must not be left out.
    for feature in features::of(settings, facts) {
        let by = features::source(settings, feature);
        let names = feature.modules().iter().filter(|name| !chosen.contains(*name));
        enabled.extend(names.map(|name| ModuleRequest {
            feature: Some(feature),
            ..ModuleRequest::new(*name, &by, Role::Enabled)
        }));
    }
    enabled.retain(|module| !disabled.contains(&module.name.as_str()));
    let enabled_by = variable(Field::modules_enabled);
    enabled.extend(by_name.iter().map(|name| ModuleRequest::new(*name, &enabled_by, Role::Enabled)));
    let mut seen = HashSet::new();
    enabled.retain(|module| seen.insert(module.name.clone()));
    // Prosody 13.0 has the functions of mod_posix built in, and warns if it is loaded.
    if is_13 && by_name.contains(&"posix") {
        enabled.retain(|module| module.name != "posix");
        report.setting_warning(format!(
            "{enabled_by}: posix is left out: Prosody {} does what it did by itself",
            facts.prosody.version
        ));
    }
    if is_on(settings.authentication.allow_registration)
        && invite_only
        && !enabled.iter().any(|module| module.name == "invites_register")
    {
        report.error(SettingError::new(
            &variable(Field::modules_disabled),
            &advice!(
                "invites_register is what asks for the invitation: without it anyone can make an account; leave it \
                 enabled"
            ),
        ));
    }

    // Prosody searches the custom directories before its own.
    let paths: Vec<String> = match &settings.modules.plugin_paths {
        Some(paths) => paths.iter().map(|path| path.as_str().to_owned()).collect(),
        None => facts.default_plugin_paths.iter().map(|path| path.to_string_lossy().into_owned()).collect(),
    };
    if !paths.is_empty() {
        options.insert("plugin_paths".into(), Value::from(paths));
    }
    // The option is needed only for modules that Prosody loads without configuration, such as `offline`.
    let by_option = disabled.iter().filter(|name| !is_in_default_set(name));
    let by_option: Vec<Value> = by_option.map(|name| Value::from(*name)).collect();
    if !by_option.is_empty() {
        options.insert("modules_disabled".into(), Value::List(by_option));
    }
    options.insert(ENABLED.into(), enabled.iter().map(|module| module.name.as_str()).collect());
    Modules {
        disabled: disabled.into_iter().map(str::to_owned).collect(),
        enabled,
        e2e_policy,
        enabled_by,
        disabled_by: variable(Field::modules_disabled),
        hosts_by: variable(Field::virtual_hosts),
        ..Modules::default()
    }
}

/// Whether a module is in the default set. Such a module is disabled by leaving it out of `modules_enabled`. If another
/// module depends on it, Prosody still loads it.
pub fn is_in_default_set(name: &str) -> bool {
    DEFAULT.contains(&name) || FOR_DOMAIN.contains(&name)
}

/// Another image's policy, unless it is `none` throughout.
fn e2e_policy(settings: &Settings) -> Option<E2ePolicy> {
    let policy = &settings.source.legacy.e2e_policy;
    let is = |word| policy.iter().filter(|(_, value)| value.as_str() == Some(word)).count();
    let variable = policy.first().filter(|_| is("none") < 2)?.0.to_ascii_uppercase();
    Some(E2ePolicy { variable, is_required: is("required") > 0 })
}

impl Modules {
    /// Fills in the requests and reports conflicts. `with_autoloaded` adds modules that Prosody loads without
    /// configuration.
    pub fn request(
        &mut self,
        settings: &Settings,
        hosts: &ServedHosts,
        options: &Options,
        with_autoloaded: bool,
        report: &mut Report,
    ) {
        let disabled =
            hosts.virtual_hosts.iter().flat_map(|host| names_in(&host.options, "modules_disabled"));
        self.disabled_on_hosts = disabled.collect();
        self.reads_prosodys_modules =
            with_autoloaded || !self.disabled.is_empty() || !self.disabled_on_hosts.is_empty();
        self.requests = Requests::find(settings, hosts, options, &self.enabled, with_autoloaded);
        find_conflicts(&self.requests, settings, hosts, report);
    }
}

struct Requests<'a> {
    settings: &'a Settings,
    /// The names in PROSODY_MUC_MODULES, and in PROSODY_MODULES_ENABLED.
    for_rooms: HashSet<&'a str>,
    for_all: HashSet<&'a str>,
    list: Vec<ModuleRequest>,
}

impl<'a> Requests<'a> {
    fn find(
        settings: &'a Settings,
        hosts: &ServedHosts,
        options: &Options,
        enabled: &[ModuleRequest],
        with_autoloaded: bool,
    ) -> Vec<ModuleRequest> {
        let for_rooms = names(&settings.hosts.muc_modules).into_iter().collect();
        let for_all = names(&settings.modules.modules_enabled).into_iter().collect();
        let mut requests = Self { settings, for_rooms, for_all, list: Vec::new() };
        let variable = |field| settings.variable(field);
        let by_options = variable(Field::options);
        let is_written =
            |option| settings.anything.options.as_ref().is_some_and(|written| written.get(option).is_some());
        if with_autoloaded {
            AUTOLOADED
                .iter()
                .for_each(|name| requests.add(*name, "Prosody itself", Role::Enabled).is_default = true);
        }
        let by_name = variable(Field::modules_enabled);
        let enabled: BTreeMap<&str, &ModuleRequest> =
            enabled.iter().map(|module| (module.name.as_str(), module)).collect();
        for name in names_in(options, ENABLED) {
            match enabled.get(name.as_str()).filter(|_| !is_written(ENABLED)) {
                Some(module) => {
                    let request = requests.add(&name, &module.by, Role::Enabled);
                    request.is_default =
                        module.by != by_name && module.feature.is_none() && name != PROXY_MODULE;
                    request.feature = module.feature;
                }
                None => drop(requests.add(name, &by_options, Role::Enabled)),
            }
        }
        for name in names(&settings.modules.modules_available) {
            requests.add(name, &variable(Field::modules_available), Role::Available);
        }
        for (option, field, role, default) in [
            ("authentication", Field::authentication, Role::Authentication, "internal_hashed"),
            // It has no setting of its own.
            ("authorization", Field::options, Role::Authorization, "internal"),
            ("default_storage", Field::default_storage, Role::Storage, "internal"),
        ] {
            let by = match option {
                _ if is_written(option) => by_options.clone(),
                "default_storage" if settings.is_given(field) => variable(field),
                // A database's URL or driver chooses the storage too.
                "default_storage" if settings.has_sql_family() => variable(Field::db_driver),
                "default_storage" => variable(Field::database_url),
                _ => variable(field),
            };
            let before = requests.list.len();
            for name in names_in(options, option) {
                requests.add_provider(&name, &by, &role);
            }
            if with_autoloaded && requests.list.len() == before {
                requests.add_provider(default, THE_DEFAULT_SET, &role).is_default = true;
            }
        }
        let stores: BTreeMap<&str, &str> = settings
            .stores
            .iter()
            .map(|(store, backend)| (backend.as_str(), settings.source.stores[store].variable.as_str()))
            .map(|(backend, variable)| (if backend == "sqlite" { "sql" } else { backend }, variable))
            .collect();
        for name in names_in(options, "storage") {
            let by = stores.get(name.as_str()).filter(|_| !is_written("storage"));
            requests.add_provider(&name, by.unwrap_or(&by_options.as_str()), &Role::Storage);
        }

        for host in &hosts.virtual_hosts {
            requests.add_host(&host.name, &host.options, &variable(Field::virtual_hosts), false);
        }
        for component in &hosts.components {
            let (by, is_default) = (variable(component.field), component.is_default());
            let role = Role::Component(component.name.clone());
            match &component.module {
                Some(module) => requests.add(module, &by, role).is_default = is_default,
                None if with_autoloaded => requests.add("component", &by, role).is_default = true,
                None => {}
            }
            requests.add_host(&component.name, &component.options, &by, is_default);
        }
        requests.list
    }

    fn add(&mut self, name: impl Into<String>, by: &str, role: Role) -> &mut ModuleRequest {
        self.list.push(ModuleRequest::new(name, by, role));
        self.list.last_mut().expect("it was added")
    }

    /// Adds a module by its name without the prefix of its kind.
    fn add_provider(&mut self, name: &str, by: &str, role: &Role) -> &mut ModuleRequest {
        self.add(format!("{}{name}", role.kind().1), by, role.clone())
    }

    /// Adds the requests in one host's options.
    fn add_host(&mut self, host: &str, options: &Options, by: &str, is_default: bool) {
        for name in names_in(options, ENABLED) {
            let (by, is_default) = match () {
                () if self.for_rooms.contains(&*name) => (self.settings.variable(Field::muc_modules), false),
                () if self.for_all.contains(&*name) => {
                    (self.settings.variable(Field::modules_enabled), false)
                }
                () => (by.to_owned(), is_default),
            };
            self.add(name, &by, Role::EnabledOn(host.to_owned())).is_default = is_default;
        }
        for (option, role) in [
            ("authentication", Role::Authentication),
            ("authorization", Role::Authorization),
            ("default_storage", Role::Storage),
            ("storage", Role::Storage),
        ] {
            for name in names_in(options, option) {
                self.add_provider(&name, by, &role);
            }
        }
    }
}

pub fn names_in(options: &Options, option: &str) -> Vec<String> {
    let mut names = Vec::new();
    if let Some(value) = options.get(option) {
        value.each_text(&mut |name, _| names.push(name.to_owned()));
    }
    // The storage backend `null` needs no module.
    names.retain(|name| name != "null");
    names
}

/// Reports pairs of modules that Prosody does not load together, on all hosts or on one.
fn find_conflicts(requests: &[ModuleRequest], settings: &Settings, hosts: &ServedHosts, report: &mut Report) {
    const PAIRS: [(&str, &str); 2] = [("vcard", "vcard_legacy"), ("pep_simple", "pep")];
    let is_in_pair = |name: &str| PAIRS.iter().any(|(one, other)| name == *one || name == *other);
    let requests: Vec<_> = requests.iter().filter(|request| is_in_pair(&request.name)).collect();
    let requested_by = |wanted: &str, host: Option<&Host>| {
        let is_here = |role: &Role| match role {
            Role::Enabled => true,
            Role::EnabledOn(on) => host.is_some_and(|host| host.name == *on),
            _ => false,
        };
        requests.iter().find(|request| request.name == wanted && is_here(&request.role))
    };
    for (one, other) in PAIRS {
        for host in std::iter::once(None).chain(hosts.virtual_hosts.iter().map(Some)) {
            let is_disabled = |host: &Host| {
                names_in(&host.options, "modules_disabled").iter().any(|name| name == one || name == other)
            };
            let both = requested_by(one, host).zip(requested_by(other, host));
            let Some((first, second)) = both.filter(|_| !host.is_some_and(is_disabled)) else { continue };
            let chosen = names(&settings.modules.modules_enabled);
            let (field, place, advice) = match host {
                Some(host) => (
                    Field::virtual_hosts,
                    format!(" on {}", host.name),
                    advice!("name one of them in its `modules_disabled`"),
                ),
                None => {
                    let advice = match chosen.contains(&one) && chosen.contains(&other) {
                        true => advice!("leave one of them out"),
                        false => advice!("set PROSODY_MODULES_DISABLED={other}, or leave {one} out"),
                    };
                    (Field::modules_enabled, String::new(), advice)
                }
            };
            report.error(SettingError::new(
                &settings.variable(field),
                &format!(
                    "{one} ({}) and {other} ({}) cannot be loaded together{place}: {advice}",
                    first.by, second.by
                ),
            ));
            if host.is_none() {
                break;
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
        let names: HashSet<&str> = names(set).into_iter().collect();
        let written = given.value.split(|c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']' | '"'));
        for written in written.filter(|written| !written.is_empty()) {
            let lower = written.to_ascii_lowercase();
            let name = lower.strip_prefix("mod_").unwrap_or(&lower);
            if name != written && names.contains(name) {
                report.info(format!("{}: {written} is the module {name}", given.variable));
            }
        }
    }
}
