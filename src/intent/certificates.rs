//! The wanted certificates, and the places to search.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use super::hosts::{ServedHosts, network_hostname};
use crate::facts::Facts;
use crate::facts::lua_summary::TlsFile;
use crate::layout::DEFAULT_CERTIFICATES;
use crate::os::users::User;
use crate::report::Report;
use crate::settings::Settings;
use crate::settings::catalogue::Field;
use crate::settings::types::{Domain, SettingType};

/// A place to search for certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchPlace {
    /// A directory, or a certificate's file.
    pub path: PathBuf,
    /// The place is for these domains (ASCII, lower case) and their subdomains only. `None` if it is for all.
    pub only: Option<Vec<String>>,
}

/// A service that needs a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Xmpp,
    Https,
}

/// A name that may need a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The name, as in Prosody's lookup.
    pub name: String,
    pub service: Service,
    /// Whether it is a virtual host or component, and not another name of one.
    pub is_host: bool,
    /// Whether its options set `certificate`. Such a certificate is not managed here.
    pub has_own: bool,
}

/// All wanted certificates.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Certificates {
    /// The places to search: the certificate directory, then the import directories.
    pub sources: Vec<SearchPlace>,
    /// The names, hosts first, those of custom files too. Of equal names, the first counts.
    pub names: Vec<Wanted>,
    /// Whether to serve all names in certificates, because a custom file may define their hosts.
    pub wants_all: bool,
    /// Whether hosts without a certificate get a self-signed one.
    pub self_signed: bool,
    /// Whether a proxy terminates TLS for HTTP services, so that these need no certificate.
    pub is_behind_proxy: bool,
    /// The files in options that Prosody's user cannot read, by the host that needs them. The empty name is for all.
    pub unreadable: BTreeMap<String, PathBuf>,
    /// The files with certificates of authorities that are trusted besides the system's.
    pub authorities: Vec<PathBuf>,
    /// The places in settings, each with the setting's variable.
    pub named_places: Vec<(String, PathBuf)>,
}

pub fn wanted(settings: &Settings, facts: &Facts, hosts: &ServedHosts) -> Certificates {
    let tls = &settings.tls;
    let mut own: HashSet<&str> = hosts.own_certificates().map(|(name, _)| name).collect();
    let in_files = facts.custom_files.fragments().flat_map(|file| &file.summary.tls_files);
    own.extend(in_files.filter_map(|file| file.host.as_deref()));
    let custom = facts.custom_files.fragments().flat_map(|file| &file.summary.hosts);
    let custom = custom.filter_map(|name| Some(Domain::parse(name).ok()?.to_string()));
    let of_hosts = hosts.names().map(str::to_owned).chain(custom).map(|name| (name, Service::Xmpp, true));
    let http = http_names(settings, facts).into_iter().map(|name| (name, Service::Https, false));
    let names = of_hosts.chain(http).map(|(name, service, is_host)| {
        // The empty name is for all hosts.
        let has_own = is_host && (own.contains(name.as_str()) || own.contains(""));
        Wanted { name, service, is_host, has_own }
    });
    let imported = tls.import_certificate_directories.iter().flat_map(|list| list.iter());
    let imported = imported.map(|path| (Field::import_certificate_directories, path.as_ref()));
    let named = tls.certificates.iter().map(|path| (Field::certificates, path.as_ref())).chain(imported);
    Certificates {
        sources: sources(settings, &facts.config_dir),
        names: names.collect(),
        unreadable: facts
            .unreadable_tls_files
            .iter()
            .filter_map(|(_, file)| Some((file.host.clone()?, PathBuf::from(&file.path))))
            .collect(),
        wants_all: facts.custom_files.define_host(),
        self_signed: tls.self_signed_certificates.is_none_or(|on| on.0),
        authorities: (tls.ca_certificates.iter().flat_map(|list| list.iter()))
            .map(|path| path.as_ref().to_owned())
            .collect(),
        is_behind_proxy: settings.network.http_external_url.is_some(),
        named_places: named
            .map(|(field, path): (_, &Path)| (settings.variable(field), path.to_owned()))
            .collect(),
    }
}

/// Warns about a setting for certificates without effect, and about files that Prosody cannot read.
pub fn check(settings: &Settings, facts: &Facts, report: &mut Report) {
    for (named_by, TlsFile { path, .. }) in &facts.unreadable_tls_files {
        let User { uid, gid, .. } = facts.identity;
        let permission = facts.identity.permission_to_read();
        report.setting_warning(advice!(
            "{named_by}: it names {path}, which uid {uid}, gid {gid} cannot read: Prosody runs as that user and has no TLS \
             with it; {permission}, or leave the option out: certificates in PROSODY_CERTIFICATES and \
             PROSODY_IMPORT_CERTIFICATE_DIRECTORIES are read as root"
        ));
    }
    let tls = &settings.tls;
    if tls.import_certificate_hostnames.is_some() && tls.import_certificate_directories.is_none() {
        report.setting_warning(format!(
            "{}: it has no effect without {}",
            settings.variable(Field::import_certificate_hostnames),
            settings.variable(Field::import_certificate_directories)
        ));
    }
}

/// The places to search for certificates: the certificate directory, then the import directories.
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

fn http_names(settings: &Settings, facts: &Facts) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    names.extend(network_hostname(settings, &facts.custom_files).map(|name| name.ascii().into_owned()));
    names.extend(settings.hosts.http_host.iter().map(|name| name.ascii().into_owned()));
    names.extend(settings.network.http_external_url.iter().map(|url| url.host.clone()));
    let of_hosts = settings.hosts.sections().map(|section| &section.options);
    for options in of_hosts.chain(&settings.anything.options) {
        let name = options.get("http_host").flatten().and_then(|value| value.as_str());
        names.extend(name.map(str::to_owned));
    }
    names
}
