//! The wanted virtual hosts and components, with the options of their sections.

use std::collections::{BTreeMap, HashMap};

use crate::facts::Facts;
use crate::facts::custom_files::CustomFiles;
use crate::lua::Value;
use crate::settings::catalogue::Field;

use crate::report::{Report, SettingError};
use crate::settings::Settings;
use crate::settings::types::{self, Component, Domain, HostSection, Lua, Name, Set, SettingType, ascii};

/// The options of a section, sorted by name.
pub type Options = BTreeMap<String, Value>;

/// The option for the modules of a host, or in the global section of every virtual host.
pub const ENABLED: &str = "modules_enabled";

/// The label of the chat rooms of each domain in `PROSODY_DOMAIN`.
const ROOMS: &str = "conference";

/// The module that archives the messages of rooms.
const ROOM_ARCHIVE: &str = "muc_mam";

/// The section of a virtual host or a component.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// The domain in Unicode, as in Prosody's configuration.
    pub name: String,
    /// The module that serves a component. `None` for an external one, and for a virtual host.
    pub module: Option<String>,
    pub options: Options,
    /// Whether its custom options set `certificate`, or leave it out with `null`.
    pub names_certificate: bool,
    /// The setting that it follows from.
    pub field: Field,
}

impl Host {
    fn new(name: impl ToString, module: Option<&str>, field: Field) -> Self {
        let (name, module) = (name.to_string(), module.map(str::to_owned));
        Self { name, module, options: Options::new(), names_certificate: false, field }
    }

    /// Whether a component follows from the domain, and no setting describes it.
    pub fn is_default(&self) -> bool {
        !matches!(self.field, Field::components | Field::external_components)
    }

    /// Adds the members and custom options of a section in the settings.
    fn describe(&mut self, section: &HostSection) {
        let options = &mut self.options;
        // The modules of an entry come first.
        let ours = options.remove(ENABLED);
        add_names(options, ENABLED, section.modules_enabled.iter().map(Name::as_str));
        add_names(options, ENABLED, ours.iter().flat_map(Value::items).filter_map(Value::as_str));
        add_names(options, "modules_disabled", section.modules_disabled.iter().map(Name::as_str));
        let admins: Vec<String> = section.admins.iter().map(ToString::to_string).collect();
        add_names(options, "admins", admins.iter().map(String::as_str));
        merge(options, &section.options, hide_texts);
        self.names_certificate = section.options.get("certificate").is_some();
    }
}

/// The option of a virtual host that one shard always serves. Prosody does not know it.
pub const PIN: &str = "entrypoint_shard";

/// All hosts: virtual hosts and components.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServedHosts {
    /// The domains of users who log in here.
    pub virtual_hosts: Vec<Host>,
    /// The components, including external ones.
    pub components: Vec<Host>,
}

impl ServedHosts {
    pub fn decide(settings: &Settings, facts: &Facts, report: &mut Report) -> Self {
        let mut hosts = Self::default();
        if settings.has_other_images_domain() && facts.custom_files.define_host() {
            // This `DOMAIN`, and the variables that belong to it, are meant for another program.
            report.retain(|variable| !variable.starts_with("DOMAIN"));
        }
        hosts.add_virtual_hosts(settings, facts);
        // An invalid name is in the report already.
        let is_invalid = |field: Field, is_read: bool| settings.is_given(field) && !is_read;
        let has_other_data = settings.has_other_images_domain()
            && facts.has_data_of_hostname
            && !hosts.virtual_hosts.iter().any(|host| host.name.eq_ignore_ascii_case(&facts.hostname));
        if let Some(host) = hosts.virtual_hosts.first().filter(|_| has_other_data) {
            report.setting_warning(advice!(
                "DOMAIN: {} is served for it, and not {}, of which there are data: set PROSODY_DOMAIN to the right one",
                host.name, facts.hostname
            ));
        }
        let has_invalid_name = is_invalid(Field::domain, settings.hosts.domain.is_some())
            || is_invalid(Field::virtual_hosts, settings.hosts.virtual_hosts.is_some());
        if hosts.virtual_hosts.is_empty() && !has_invalid_name && !facts.custom_files.define_host() {
            report.error(SettingError::new(
                &settings.variable(Field::virtual_hosts),
                &advice!("Prosody serves nothing without a virtual host: name one, or leave it out"),
            ));
        }
        hosts.add_components(settings, facts, report);
        hosts.add_external_components(settings, report);
        hosts.find_duplicates(settings, report);
        hosts
    }

    /// All of them, virtual hosts first.
    pub fn all(&self) -> impl Iterator<Item = &Host> {
        self.virtual_hosts.iter().chain(&self.components)
    }

    /// All names, in the same order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all().map(|host| host.name.as_str())
    }

    /// The hosts whose options set `certificate`, with its value.
    pub fn own_certificates(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.all().filter_map(|host| Some((host.name.as_str(), host.options.get("certificate")?)))
    }

    /// Sets the SNI name of hosts with non-ASCII names on direct TLS and HTTPS ports. SNI names are ASCII (RFC 6066,
    /// section 3), but Prosody compares them with the Unicode name by default (`core/portmanager.lua`).
    pub fn name_in_ascii(&mut self, has_http_host: bool) {
        let virtual_hosts = self.virtual_hosts.iter_mut().map(|host| (host, true));
        let components = self.components.iter_mut().map(|host| (host, false));
        for (host, has_clients) in virtual_hosts.chain(components) {
            let Some(ascii) = ascii(&host.name).filter(|ascii| *ascii != host.name) else { continue };
            let options = &mut host.options;
            let has_http_host = has_http_host || options.contains_key("http_host");
            let https = Some("https_host").filter(|_| !has_http_host);
            let clients = Some("c2s_direct_tls_host").filter(|_| has_clients);
            for option in ["s2s_direct_tls_host"].into_iter().chain(clients).chain(https) {
                options.entry(option.into()).or_insert_with(|| Value::from(ascii.as_str()));
            }
        }
    }

    fn add_virtual_hosts(&mut self, settings: &Settings, facts: &Facts) {
        let domains = domains(settings, &facts.custom_files);
        self.virtual_hosts = domains.iter().map(|domain| Host::new(domain, None, Field::domain)).collect();
        let of_domains: HashMap<&Domain, usize> = domains.iter().zip(0..).collect();
        for described in settings.hosts.virtual_hosts.iter().flat_map(|list| &list.0) {
            let mut host = Host::new(&described.host, None, Field::virtual_hosts);
            host.describe(&described.section);
            if let Some(shard) = described.shard {
                host.options.insert(PIN.into(), Value::Integer(shard.into()));
            }
            match of_domains.get(&described.host) {
                // PROSODY_VIRTUAL_HOSTS may have more options for a host of PROSODY_DOMAIN.
                Some(at) => self.virtual_hosts[*at] = Host { field: Field::domain, ..host },
                None => self.virtual_hosts.push(host),
            }
        }
        let named = settings.is_given(Field::domain) || settings.is_given(Field::virtual_hosts);
        if !named && !facts.custom_files.define_host() {
            let name = default_host(&facts.hostname, facts.has_data_of_hostname);
            self.virtual_hosts.push(Host::new(name, None, Field::virtual_hosts));
        }
    }

    fn add_components(&mut self, settings: &Settings, facts: &Facts, report: &mut Report) {
        let list = settings.hosts.components.as_ref();
        if !settings.is_given(Field::components) || list.is_some_and(|list| !list.replaces_those_of_domain())
        {
            self.add_components_of_domains(settings, facts, report);
        }
        let list: &[Component] = list.map_or(&[], |list| &list.0);
        let shares = list.iter().filter(|component| component.module.as_str() == "http_file_share").count();
        for described in list {
            let module = described.module.as_str();
            let mut component = Host::new(&described.host, Some(module), Field::components);
            match module {
                "muc" => component.options = rooms(settings, facts, &[]),
                "http_file_share" => {
                    // The official image's path: links to files stay valid after a migration.
                    let one_name = settings.hosts.http_host.is_some()
                        || network_hostname(settings, &facts.custom_files).is_some();
                    let path = if shares > 1 && one_name { "/share/$host" } else { "/share" };
                    component.options.insert("http_paths".into(), Value::table([("file_share", path)]));
                }
                _ => {}
            }
            component.describe(&described.section);
            self.report_missing_archive(&component, settings, facts, report);
            // An entry may describe a component of PROSODY_DOMAIN in its own way.
            match self.components.iter_mut().find(|other| other.name == component.name && described.adds) {
                Some(other) => *other = component,
                None => self.components.push(component),
            }
        }
    }

    /// Adds the components that follow from `PROSODY_DOMAIN`, or from another image's `DOMAIN_*`.
    fn add_components_of_domains(&mut self, settings: &Settings, facts: &Facts, report: &mut Report) {
        let domains = domains(settings, &facts.custom_files);
        let named = legacy_components(settings, domains);
        let field = if settings.is_given(Field::domain) { Field::domain } else { Field::virtual_hosts };
        for (label, module, options) in [
            (ROOMS, "muc", rooms(settings, facts, &[ROOM_ARCHIVE])),
            ("upload", "http_file_share", Options::new()),
            ("proxy", "proxy65", Options::new()),
            ("", "pubsub", Options::new()),
        ] {
            let component = |host| Host { options: options.clone(), ..Host::new(host, Some(module), field) };
            if let Some((_, host)) = named.iter().find(|(of, _)| *of == module) {
                self.components.push(component(host.clone()));
            } else if !label.is_empty() {
                for domain in domains {
                    match Domain::parse(&format!("{label}.{domain}")) {
                        Ok(host) => self.components.push(component(host)),
                        Err(why) => report.error(SettingError::new(&settings.variable(field), &why)),
                    }
                }
            }
        }
    }

    /// Notes that the chat rooms of `PROSODY_DOMAIN` have no archive, because an entry of `PROSODY_COMPONENTS` describes
    /// them anew.
    fn report_missing_archive(
        &self,
        component: &Host,
        settings: &Settings,
        facts: &Facts,
        report: &mut Report,
    ) {
        let of = component.name.strip_prefix(ROOMS).and_then(|rest| rest.strip_prefix('.'));
        let domains = domains(settings, &facts.custom_files);
        let is_of_domain = domains.iter().any(|domain| Some(domain.as_str()) == of);
        let has = |list: Option<&Value>| {
            let names = list.map(Value::items).unwrap_or_default();
            names.iter().any(|name| name.as_str() == Some(ROOM_ARCHIVE))
        };
        let for_all = names(&settings.modules.modules_enabled);
        if is_of_domain
            && component.module.as_deref() == Some("muc")
            && !has(component.options.get(ENABLED))
            && !for_all.contains(&ROOM_ARCHIVE)
        {
            report.info(
                advice!(
                    "{}: the rooms of {} keep no archive: PROSODY_MUC_MODULES={ROOM_ARCHIVE} adds it",
                    settings.variable(Field::components),
                    component.name
                )
                .into(),
            );
        }
    }

    fn add_external_components(&mut self, settings: &Settings, report: &mut Report) {
        for component in settings.hosts.external_components.iter().flat_map(|list| &list.0) {
            let mut host = Host::new(&component.host, None, Field::external_components);
            match component.secret.as_ref().or(settings.hosts.component_secret.as_ref()) {
                Some(secret) => drop(host.options.insert("component_secret".into(), secret.clone().into())),
                None if settings.is_given(Field::component_secret) => {}
                None => report.error(SettingError::new(
                    &settings.variable(Field::external_components),
                    &advice!(
                        "{} has no secret: write `{}:SECRET`, or set PROSODY_COMPONENT_SECRET",
                        component.host,
                        component.host
                    ),
                )),
            }
            host.describe(&component.section);
            self.components.push(host);
        }
    }

    /// Reports two sections of the same name. Prosody would refuse the configuration, or use the last one.
    fn find_duplicates(&self, settings: &Settings, report: &mut Report) {
        let is_domain = |name: &str| {
            settings.hosts.domain.iter().flat_map(|set| set.iter()).any(|domain| domain.as_str() == name)
        };
        let virtual_hosts = self.virtual_hosts.iter().map(|host| (host, "a virtual host"));
        let components = self.components.iter().map(|component| (component, "a component"));
        let mut seen: HashMap<&str, (Field, &str)> = HashMap::new();
        for (Host { name, field, .. }, what) in virtual_hosts.chain(components) {
            let Some((other_field, other)) = seen.insert(name, (*field, what)) else { continue };
            // The components of PROSODY_DOMAIN are implicit, so that they cannot be renamed directly.
            let advice = match what {
                "a component" if [*field, other_field].contains(&Field::domain) && !is_domain(name) => {
                    advice!("set PROSODY_COMPONENTS to those that you want")
                }
                _ => advice!("give one of them another name"),
            };
            report.error(SettingError::new(
                &settings.variable(*field),
                &format!("{name} is {what} here and {other} of {}: {advice}", settings.variable(other_field)),
            ));
        }
    }
}

/// The host without any setting: the container's host name if it has a dot or data, or else `localhost`.
fn default_host(hostname: &str, has_data_of_hostname: bool) -> String {
    match Domain::parse(hostname) {
        Ok(host) if hostname.contains('.') || has_data_of_hostname => host.to_string(),
        _ => "localhost".to_owned(),
    }
}

/// The domains of `PROSODY_DOMAIN`, or another image's `DOMAIN` unless a custom file defines a host.
pub fn domains<'a>(settings: &'a Settings, custom_files: &CustomFiles) -> &'a [Domain] {
    let is_other = settings.has_other_images_domain() && custom_files.define_host();
    settings.hosts.domain.as_ref().filter(|_| !is_other).map_or(&[], |domains| domains)
}

/// The common host name of all services: its setting, or as in the official image the only virtual host in the settings
/// if components are set.
pub fn network_hostname(settings: &Settings, custom_files: &CustomFiles) -> Option<Domain> {
    if let Some(name) = &settings.hosts.network_hostname {
        return Some(name.clone());
    }
    settings.hosts.components.as_ref().filter(|list| list.replaces_those_of_domain())?;
    let mut named: Vec<&Domain> = domains(settings, custom_files).iter().collect();
    named.extend(settings.hosts.virtual_hosts.iter().flat_map(|list| &list.0).map(|host| &host.host));
    named.dedup();
    match named[..] {
        [only] => Some(only.clone()),
        _ => None,
    }
}

/// The hosts that another image's `DOMAIN_*` name for components, each with the component's module.
fn legacy_components<'a>(settings: &'a Settings, domains: &[Domain]) -> &'a [(&'static str, Domain)] {
    match (&settings.hosts.domain, domains) {
        (Some(_), []) => &[],
        _ => &settings.source.legacy.components,
    }
}

/// The options of chat rooms, which load `more` modules besides those of the settings.
fn rooms(settings: &Settings, facts: &Facts, more: &[&str]) -> Options {
    let mut options = Options::new();
    let domains = domains(settings, &facts.custom_files);
    // By default, Prosody lets anyone on the network create rooms.
    let restriction = match &settings.hosts.restrict_room_creation {
        Some(choice) => Some(choice.lua()),
        None if !domains.is_empty() || !legacy_components(settings, domains).is_empty() => {
            Some("local".into())
        }
        None => None,
    };
    options.extend(restriction.map(|value| ("restrict_room_creation".to_owned(), value)));
    let modules = more.iter().copied().chain(names(&settings.hosts.muc_modules));
    add_names(&mut options, ENABLED, modules);
    options
}

/// Adds names to an option that is a list, each once.
fn add_names<'a>(options: &mut Options, option: &str, names: impl Iterator<Item = &'a str>) {
    for name in names {
        let list = options.entry(option.to_owned()).or_insert_with(|| Value::List(Vec::new()));
        if let Value::List(list) = list {
            if !list.iter().any(|other| other.as_str() == Some(name)) {
                list.push(name.into());
            }
        }
    }
}

/// Prosody's options that name modules.
const OPTIONS_WITH_MODULES: [&str; 6] =
    ["authentication", "authorization", "default_storage", "modules_disabled", "modules_enabled", "storage"];

/// A custom option's value, whose texts may be secrets, unless the option names modules.
pub fn hide_texts(name: &str, value: &Value) -> Value {
    if OPTIONS_WITH_MODULES.contains(&name) { value.clone() } else { value.hidden() }
}

/// The names in a setting. Empty if it is not set.
pub fn names(set: &Option<Set<Name>>) -> Vec<&str> {
    set.iter().flat_map(|set| set.iter()).map(|name| name.as_str()).collect()
}

/// Merges custom options, which replace ours. `null` removes one of ours. `as_written` converts each option's value.
pub fn merge(options: &mut Options, written: &types::CustomOptions, as_written: fn(&str, &Value) -> Value) {
    for (name, value) in written.iter() {
        match value {
            Some(value) => drop(options.insert(name.to_owned(), as_written(name, value))),
            None => drop(options.remove(name)),
        }
    }
}

/// Sets a field of the option `ssl`, unless `PROSODY_OPTIONS` decides on it.
pub fn set_ssl(field: &str, value: Value, written: &types::CustomOptions, options: &mut Options) {
    if written.decides_field("ssl", field) {
        return;
    }
    if let Value::Table(fields) = options.entry("ssl".into()).or_insert_with(|| Value::Table(Vec::new())) {
        fields.push((field.into(), value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_containers_name_is_a_host_if_it_has_a_dot_or_data() {
        for (hostname, has_data, host) in [
            ("chat.example", false, "chat.example"),
            ("XMPP", true, "xmpp"),
            ("0123456789ab", false, "localhost"),
            ("", true, "localhost"),
            ("-.example", true, "localhost"),
        ] {
            assert_eq!(default_host(hostname, has_data), host, "{hostname}");
        }
    }
}
