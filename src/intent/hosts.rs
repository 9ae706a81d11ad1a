//! The wanted virtual hosts and components, with the options of their sections.

use std::collections::{BTreeMap, HashMap};

use crate::facts::Facts;
use crate::facts::custom_files::CustomFiles;
use crate::lua::Value;
use crate::settings::catalogue::Field;

use crate::report::{Report, SettingError};
use crate::settings::Settings;
use crate::settings::types::{Domain, Lua, SettingType, VirtualHost as VirtualHostSetting, ascii};

/// The options of a section, sorted by name.
pub type Options = BTreeMap<String, Value>;

/// A virtual host's section.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualHost {
    /// The domain in Unicode, as in Prosody's configuration.
    pub name: String,
    /// The options of its section.
    pub options: Options,
    /// Whether its custom options set `certificate`, or leave it out with `null`.
    pub names_certificate: bool,
}

/// A component's section.
#[derive(Debug, Clone, PartialEq)]
pub struct Component {
    /// The component's domain in Unicode.
    pub name: String,
    /// The module that serves it. `None` for an external component.
    pub module: Option<String>,
    /// The options of its section.
    pub options: Options,
    /// Like [`VirtualHost::names_certificate`].
    pub names_certificate: bool,
}

/// All hosts: virtual hosts and components.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServedHosts {
    /// The domains of users who log in here.
    pub virtual_hosts: Vec<VirtualHost>,
    /// The components, including external ones.
    pub components: Vec<Component>,
}

impl ServedHosts {
    /// Decides the hosts. Errors and warnings go to the report.
    pub fn decide(settings: &Settings, facts: &Facts, report: &mut Report) -> Self {
        let mut hosts = Self::default();
        if settings.has_foreign_domain() && facts.custom_files.define_host() {
            // This `DOMAIN`, and the variables that belong to it, are meant for another program.
            report.retain(|variable| !variable.starts_with("DOMAIN"));
        }
        hosts.add_virtual_hosts(settings, facts);
        // An invalid name is in the report already.
        let is_invalid = |field: Field, is_read: bool| settings.is_given(field) && !is_read;
        let has_other_data = settings.has_foreign_domain()
            && facts.has_data_of_hostname
            && !hosts.virtual_hosts.iter().any(|host| host.name.eq_ignore_ascii_case(&facts.hostname));
        if let Some(host) = hosts.virtual_hosts.first().filter(|_| has_other_data) {
            report.setting_warning(format!(
                "DOMAIN: {} is served for it, and not {}, of which there are data: set PROSODY_DOMAIN to the one that is meant",
                host.name, facts.hostname
            ));
        }
        let has_invalid_name = is_invalid(Field::domain, settings.hosts.domain.is_some())
            || is_invalid(Field::virtual_hosts, settings.hosts.virtual_hosts.is_some());
        if hosts.virtual_hosts.is_empty() && !has_invalid_name && !facts.custom_files.define_host() {
            report.error(SettingError::new(
                &settings.variable(Field::virtual_hosts),
                "Prosody serves nothing without a virtual host: name one, or leave it out",
            ));
        }
        hosts.add_components(settings, facts, report);
        hosts.add_external_components(settings, report);
        hosts.find_duplicates(settings, report);
        hosts
    }

    /// All names, virtual hosts first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let hosts = self.virtual_hosts.iter().map(|host| host.name.as_str());
        hosts.chain(self.components.iter().map(|component| component.name.as_str()))
    }

    /// The hosts whose options set `certificate`, with its value.
    pub fn own_certificates(&self) -> impl Iterator<Item = (&str, &Value)> {
        let hosts = self.virtual_hosts.iter().map(|host| (&host.name, &host.options));
        let components = self.components.iter().map(|component| (&component.name, &component.options));
        let all = hosts.chain(components);
        all.filter_map(|(name, options)| Some((name.as_str(), options.get("certificate")?)))
    }

    /// Sets the SNI name of hosts with non-ASCII names on direct TLS and HTTPS ports. SNI names are ASCII (RFC 6066,
    /// section 3), but Prosody compares them with the Unicode name by default (`core/portmanager.lua`).
    pub fn name_in_ascii(&mut self, has_http_host: bool) {
        let virtual_hosts = self.virtual_hosts.iter_mut().map(|host| (&host.name, true, &mut host.options));
        let components = self.components.iter_mut().map(|host| (&host.name, false, &mut host.options));
        for (name, has_clients, options) in virtual_hosts.chain(components) {
            let Some(ascii) = ascii(name).filter(|ascii| ascii != name) else { continue };
            let has_http_host = has_http_host || options.contains_key("http_host");
            let https = Some("https_host").filter(|_| !has_http_host);
            let clients = Some("c2s_direct_tls_host").filter(|_| has_clients);
            for option in ["s2s_direct_tls_host"].into_iter().chain(clients).chain(https) {
                options.entry(option.into()).or_insert_with(|| Value::from(ascii.as_str()));
            }
        }
    }

    fn add_virtual_hosts(&mut self, settings: &Settings, facts: &Facts) {
        let plain = |name: String| VirtualHost { name, options: Options::new(), names_certificate: false };
        self.virtual_hosts
            .extend(domain(settings, &facts.custom_files).map(|domain| plain(domain.to_string())));
        for described in settings.hosts.virtual_hosts.iter().flat_map(|list| &list.0) {
            let host = VirtualHost {
                name: described.host.to_string(),
                options: host_options(described),
                names_certificate: described.options.get("certificate").is_some(),
            };
            match self.virtual_hosts.first_mut().filter(|first| first.name == host.name) {
                // PROSODY_VIRTUAL_HOSTS may have more options for the host of PROSODY_DOMAIN.
                Some(first) => *first = host,
                None => self.virtual_hosts.push(host),
            }
        }
        let named = settings.is_given(Field::domain) || settings.is_given(Field::virtual_hosts);
        if !named && !facts.custom_files.define_host() {
            let name = default_host(&facts.hostname, facts.has_data_of_hostname);
            self.virtual_hosts.push(plain(name));
        }
    }

    fn add_components(&mut self, settings: &Settings, facts: &Facts, report: &mut Report) {
        let domain = domain(settings, &facts.custom_files);
        let own_hosts = match (&settings.hosts.domain, domain) {
            (Some(_), None) => &[],
            _ => settings.source.legacy.components.as_slice(),
        };
        let muc_modules = || {
            settings.hosts.muc_modules.iter().flat_map(|set| set.iter()).map(|name| name.as_str().to_owned())
        };
        // By default, Prosody lets anyone on the network create rooms.
        let restriction = match &settings.hosts.restrict_room_creation {
            Some(choice) => Some(choice.lua()),
            None if domain.is_some() || !own_hosts.is_empty() => Some(Value::from("local")),
            None => None,
        };
        let restricted =
            || restriction.iter().map(|value| ("restrict_room_creation".to_owned(), value.clone()));
        if let Some(list) = &settings.hosts.components {
            let shares =
                list.0.iter().filter(|component| component.module.as_str() == "http_file_share").count();
            for component in &list.0 {
                let module = component.module.as_str();
                let mut options: Options = restricted().filter(|_| module == "muc").collect();
                let mut enabled: Vec<String> =
                    component.modules_enabled.iter().map(|name| name.as_str().to_owned()).collect();
                if module == "muc" {
                    enabled
                        .extend(muc_modules().filter(|name| {
                            !component.modules_enabled.iter().any(|own| own.as_str() == name)
                        }));
                }
                if module == "http_file_share" {
                    // The official image's path: links to files stay valid after a migration.
                    let one_name = settings.hosts.http_host.is_some()
                        || network_hostname(settings, &facts.custom_files).is_some();
                    let path = if shares > 1 && one_name { "/share/$host" } else { "/share" };
                    options.insert("http_paths".into(), Value::table([("file_share", path)]));
                }
                if !enabled.is_empty() {
                    options.insert("modules_enabled".into(), Value::from(enabled));
                }
                merge(&mut options, &component.options, Value::hidden);
                self.components.push(Component {
                    name: component.host.to_string(),
                    module: Some(module.to_owned()),
                    options,
                    names_certificate: component.options.get("certificate").is_some(),
                });
            }
        } else if !settings.is_given(Field::components) {
            let mut rooms = vec!["muc_mam".to_owned()];
            rooms.extend(muc_modules().filter(|name| name != "muc_mam"));
            let rooms: Options =
                restricted().chain([("modules_enabled".to_owned(), Value::from(rooms))]).collect();
            for (label, module, options) in [
                ("conference", "muc", rooms),
                ("upload", "http_file_share", Options::new()),
                ("proxy", "proxy65", Options::new()),
                ("", "pubsub", Options::new()),
            ] {
                let own = own_hosts.iter().find(|(of, _)| *of == module).map(|(_, host)| Ok(host.clone()));
                let below = domain.filter(|_| !label.is_empty());
                let below = || below.map(|domain| Domain::parse(&format!("{label}.{domain}")));
                match own.or_else(below) {
                    Some(Ok(host)) => self.components.push(Component {
                        name: host.to_string(),
                        module: Some(module.to_owned()),
                        options,
                        names_certificate: false,
                    }),
                    Some(Err(why)) => {
                        report.error(SettingError::new(&settings.variable(Field::domain), &why))
                    }
                    None => {}
                }
            }
        }
    }

    fn add_external_components(&mut self, settings: &Settings, report: &mut Report) {
        let Some(list) = &settings.hosts.external_components else {
            return;
        };
        for component in &list.0 {
            let mut options = Options::new();
            match component.secret.as_ref().or(settings.hosts.component_secret.as_ref()) {
                Some(secret) => drop(options.insert("component_secret".into(), secret.clone().into())),
                None if settings.is_given(Field::component_secret) => {}
                None => report.error(SettingError::new(
                    &settings.variable(Field::external_components),
                    &format!(
                        "{} has no secret: write `{}:SECRET`, or set PROSODY_COMPONENT_SECRET",
                        component.host, component.host
                    ),
                )),
            }
            self.components.push(Component {
                name: component.host.to_string(),
                module: None,
                options,
                names_certificate: false,
            });
        }
    }

    /// Reports two sections of the same name. Prosody would refuse the configuration, or use the last one.
    fn find_duplicates(&self, settings: &Settings, report: &mut Report) {
        let is_domain =
            |name: &str| settings.hosts.domain.as_ref().is_some_and(|domain| domain.as_str() == name);
        let virtual_hosts = self.virtual_hosts.iter().map(|host| {
            let field = if is_domain(&host.name) { Field::domain } else { Field::virtual_hosts };
            (host.name.as_str(), field, "a virtual host")
        });
        let components = self.components.iter().map(|component| {
            let field = match component.module {
                None => Field::external_components,
                Some(_) if settings.is_given(Field::components) => Field::components,
                Some(_) if settings.is_given(Field::domain) => Field::domain,
                Some(_) => Field::virtual_hosts,
            };
            (component.name.as_str(), field, "a component")
        });
        let mut seen: HashMap<&str, (Field, &str)> = HashMap::new();
        for (name, field, what) in virtual_hosts.chain(components) {
            let Some((other_field, other)) = seen.insert(name, (field, what)) else {
                continue;
            };
            // The components of PROSODY_DOMAIN are implicit, so that they cannot be renamed directly.
            let advice = match what {
                "a component" if [field, other_field].contains(&Field::domain) && !is_domain(name) => {
                    "set PROSODY_COMPONENTS to those that you want"
                }
                _ => "give one of them another name",
            };
            report.error(SettingError::new(
                &settings.variable(field),
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

/// `PROSODY_DOMAIN`, or another image's `DOMAIN` unless a custom file defines a host.
pub fn domain<'a>(settings: &'a Settings, custom_files: &CustomFiles) -> Option<&'a Domain> {
    let is_other = settings.has_foreign_domain() && custom_files.define_host();
    settings.hosts.domain.as_ref().filter(|_| !is_other)
}

/// The common host name of all services: its setting, or as in the official image the only virtual host in the settings
/// if components are set.
pub fn network_hostname(settings: &Settings, custom_files: &CustomFiles) -> Option<Domain> {
    if let Some(name) = &settings.hosts.network_hostname {
        return Some(name.clone());
    }
    settings.hosts.components.as_ref()?;
    let mut named: Vec<&Domain> = domain(settings, custom_files).into_iter().collect();
    named.extend(settings.hosts.virtual_hosts.iter().flat_map(|list| &list.0).map(|host| &host.host));
    named.dedup();
    match named[..] {
        [only] => Some(only.clone()),
        _ => None,
    }
}

fn host_options(host: &VirtualHostSetting) -> Options {
    let mut options = Options::new();
    for (name, list) in
        [("modules_enabled", &host.modules_enabled), ("modules_disabled", &host.modules_disabled)]
    {
        if !list.is_empty() {
            options.insert(name.into(), list.iter().map(|module| Value::from(module.as_str())).collect());
        }
    }
    if !host.admins.is_empty() {
        options.insert("admins".into(), host.admins.iter().map(|jid| Value::from(jid.to_string())).collect());
    }
    merge(&mut options, &host.options, Value::hidden);
    options
}

/// Merges custom options, which replace ours. `null` removes one of ours. `as_written` converts each value.
pub fn merge(
    options: &mut Options,
    written: &crate::settings::types::CustomOptions,
    as_written: fn(&Value) -> Value,
) {
    for (name, value) in written.iter() {
        match value {
            Some(value) => drop(options.insert(name.to_owned(), as_written(value))),
            None => drop(options.remove(name)),
        }
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
