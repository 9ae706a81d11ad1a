//! Which certificates are wanted, and where they are looked for.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use super::hosts::{ServedHosts, network_hostname};
use crate::facts::Facts;
use crate::layout::DEFAULT_CERTIFICATES;
use crate::report::Report;
use crate::settings::Settings;
use crate::settings::catalogue::Field;

/// A place where certificates are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchPlace {
    /// A directory, or the file of one certificate.
    pub path: PathBuf,
    /// The domains (in ASCII, in lower case) that it is for, with what is below them; nothing where it is for all.
    pub only: Option<Vec<String>>,
}

/// What a certificate is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// XMPP, for clients and servers.
    Xmpp,
    /// HTTPS.
    Https,
}

/// A name that Prosody may look for a certificate for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The name as Prosody looks for it.
    pub name: String,
    /// What for.
    pub service: Service,
    /// Whether it is a virtual host or a component, and not another name of one.
    pub is_host: bool,
    /// Whether its own options name its certificate, which is theirs to look after.
    pub has_own: bool,
}

/// All certificates that are wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Certificates {
    /// Where they are looked for: where Prosody's are first, then those to import from.
    pub sources: Vec<SearchPlace>,
    /// The names, hosts first. The first of two that are equal counts.
    pub names: Vec<Wanted>,
    /// Whether every name that there is a certificate for is wanted too, since a custom file may define its host.
    pub wants_all: bool,
    /// Whether a host without any gets a self-signed one.
    pub self_signed: bool,
    /// Whether a proxy ends TLS for HTTP services, so that none is missed there.
    pub is_behind_proxy: bool,
    /// The places that settings name, each with the setting's variable.
    pub named_places: Vec<(String, PathBuf)>,
}

/// Decides which certificates are wanted.
pub fn wanted(settings: &Settings, facts: &Facts, hosts: &ServedHosts) -> Certificates {
    let tls = &settings.tls;
    let own: HashSet<&str> = hosts.own_certificates().map(|(name, _)| name).collect();
    let of_hosts = hosts.names().map(|name| (name.to_owned(), Service::Xmpp, true));
    let http = http_names(settings, facts).into_iter().map(|name| (name, Service::Https, false));
    let custom = facts.custom_files.fragments().flat_map(|file| &file.summary.hosts);
    let custom = custom.map(|name| (name.clone(), Service::Xmpp, false));
    let names = of_hosts.chain(http).chain(custom).map(|(name, service, is_host)| {
        let has_own = is_host && own.contains(name.as_str());
        Wanted { name, service, is_host, has_own }
    });
    let imported = tls.import_certificate_directories.iter().flat_map(|list| list.iter());
    let imported = imported.map(|path| (Field::import_certificate_directories, path.as_ref()));
    let named = tls.certificates.iter().map(|path| (Field::certificates, path.as_ref())).chain(imported);
    Certificates {
        sources: sources(settings, &facts.config_dir),
        names: names.collect(),
        wants_all: facts.custom_files.define_host(),
        self_signed: tls.self_signed_certificates.is_none_or(|on| on.0),
        is_behind_proxy: settings.network.http_external_url.is_some(),
        named_places: named
            .map(|(field, path): (_, &Path)| (settings.variable(field), path.to_owned()))
            .collect(),
    }
}

/// Says what is odd about where certificates are looked for.
pub fn check(settings: &Settings, report: &mut Report) {
    let tls = &settings.tls;
    if tls.import_certificate_hostnames.is_some() && tls.import_certificate_directories.is_none() {
        report.setting_warning(format!(
            "{}: it has no effect without {}",
            settings.variable(Field::import_certificate_hostnames),
            settings.variable(Field::import_certificate_directories)
        ));
    }
}

/// The places where certificates are looked for: where Prosody's are first, then those to import from.
pub fn sources(settings: &Settings, config_dir: &Path) -> Vec<SearchPlace> {
    let own = settings.tls.certificates.as_ref();
    let own = own.map_or_else(|| config_dir.join(DEFAULT_CERTIFICATES), |path| path.as_ref().to_owned());
    let mut sources = vec![SearchPlace { path: own, only: None }];
    let directories = settings.tls.import_certificate_directories.iter().flat_map(|list| list.iter());
    let directories: Vec<&Path> = directories.map(AsRef::as_ref).collect();
    let names = settings.tls.import_certificate_hostnames.iter().flat_map(|list| list.iter());
    let names: Vec<String> = names.map(|name| name.ascii().into_owned()).collect();
    for (number, directory) in directories.iter().enumerate() {
        let only = match () {
            () if names.is_empty() => None,
            () if names.len() == directories.len() => Some(vec![names[number].clone()]),
            () => Some(names.clone()),
        };
        sources.push(SearchPlace { path: directory.to_path_buf(), only });
    }
    sources
}

/// The names under which HTTP services answer, where those are not the hosts' own.
fn http_names(settings: &Settings, facts: &Facts) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    names.extend(network_hostname(settings, &facts.custom_files).map(|name| name.ascii().into_owned()));
    names.extend(settings.hosts.http_host.iter().map(|name| name.ascii().into_owned()));
    names.extend(settings.network.http_external_url.iter().map(|url| url.host().to_owned()));
    let of_hosts = settings.hosts.virtual_hosts.iter().flat_map(|list| &list.0).map(|host| &host.options);
    let of_components = settings.hosts.components.iter().flat_map(|list| &list.0).map(|host| &host.options);
    for options in of_hosts.chain(of_components).chain(&settings.anything.options) {
        let name = options.get("http_host").flatten().and_then(|value| value.as_str());
        names.extend(name.map(str::to_owned));
    }
    names
}
