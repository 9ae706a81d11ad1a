//! The plan, from the intent and the findings of the survey: every file with its content, every link, and every
//! certificate to make, as plain data.
//!
//! Nothing here reads the disk or the clock, changes the identity or starts a program.

pub mod certificates;
pub mod health;
pub mod modules;
mod render;
mod state;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::Serialize;
use time::OffsetDateTime;

use self::certificates::CertificatePlan;
use self::modules::Module;
use self::render::Renderer;
pub use self::state::{Changes, State, add_warning, with_certificates};
use crate::digest;
use crate::facts::Facts;
use crate::intent::Intent;
use crate::intent::accounts::add;
use crate::intent::databases::Database;
use crate::intent::hosts::{ENABLED, Options, ServedHosts, set_ssl};
use crate::intent::shards;
use crate::layout::{
    AUTHORITIES, CERTIFICATES_DIR, CURRENT, HEALTH_FILE, LIVE_SCRIPT, MAIN_FILE, MODULES_DIR, SQLITE_FILE,
};
use crate::lua::{Secrets, Value};
use crate::report::{Report, SettingError};
use crate::settings::types;
use crate::survey::Findings;
use crate::survey::certificates::assign::SelfSigned;
use crate::survey::certificates::{Pair, UnusedFile};

/// A file to write, with mode 0640. It belongs to root and Prosody's group, or to Prosody's user if we are not root.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct File {
    /// Relative to the generation's directory.
    pub path: PathBuf,
    pub content: String,
    /// The custom template that it was rendered from.
    #[serde(skip)]
    pub source: Option<PathBuf>,
}

impl File {
    fn new(path: impl Into<PathBuf>, content: String) -> Self {
        Self { path: path.into(), content, source: None }
    }
}

/// A symbolic link to make.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Link {
    /// Relative to the generation's directory.
    pub path: PathBuf,
    pub target: PathBuf,
}

/// A certificate to write with its key, with mode 0600, for Prosody's user.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Import {
    /// Relative to the generation's directory.
    pub path: PathBuf,
    /// The certificate's original file.
    pub certificate: PathBuf,
    /// The key's original file.
    pub key: PathBuf,
    #[serde(skip)]
    pub pair: Rc<Pair>,
}

impl Import {
    pub fn new(path: PathBuf, pair: Rc<Pair>) -> Self {
        Self { path, certificate: pair.certificate.clone(), key: pair.key.clone(), pair }
    }
}

/// Everything that a start writes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Plan {
    /// The directory of all files and links.
    pub generation: PathBuf,
    pub files: Vec<File>,
    pub links: Vec<Link>,
    pub imports: Vec<Import>,
    /// The self-signed certificates to make in the data directory.
    #[serde(rename = "certificates")]
    pub self_signed: Vec<SelfSigned>,
    #[serde(skip)]
    pub certificates: CertificatePlan,
    /// The virtual hosts, without those in custom files.
    pub virtual_hosts: Vec<String>,
    /// The hosts with the options of their sections.
    #[serde(skip)]
    pub hosts: ServedHosts,
    /// The options of the global section.
    #[serde(skip)]
    pub options: Options,
    #[serde(skip)]
    pub databases: Vec<Database>,
    /// The accounts to create, in the format of the script that creates them.
    #[serde(skip)]
    pub accounts: Option<String>,
    #[serde(skip)]
    pub modules: Vec<Module>,
    /// When it was made.
    #[serde(skip)]
    pub time: Option<OffsetDateTime>,
    /// The number of the shard that the server is.
    #[serde(skip)]
    pub shard: Option<i64>,
    /// The state, with which a later reload compares its own.
    #[serde(skip)]
    pub state: String,
}

impl Plan {
    /// Whether there are authorities that are trusted besides the system's.
    pub fn has_authorities(&self) -> bool {
        self.links.iter().any(|link| link.path == Path::new(AUTHORITIES))
    }

    pub fn main_file(&self) -> PathBuf {
        self.generation.join(MAIN_FILE)
    }
}

/// Makes the plan for a generation directory, with secrets or placeholders in its files. Errors and warnings go to the
/// report. After an error, the plan must not be applied.
pub fn make(
    intent: Intent,
    facts: &Facts,
    findings: Findings,
    generation: &Path,
    secrets: Secrets,
    now: OffsetDateTime,
    report: &mut Report,
) -> Plan {
    let Intent { mut hosts, mut options, written, modules, certificates, accounts, databases, debug_log } =
        intent;
    let authorities = authorities(findings.authorities, report);
    if let Some(file) = &authorities {
        let path = lasting(generation, facts).join(&file.path);
        set_ssl("cafile", path.to_string_lossy().into_owned().into(), &written, &mut options);
    }
    let certificates = certificates::decide(&certificates, findings.certificates, now, report);
    let (enabled, requests) =
        modules::place(&modules, &findings.modules, &facts.prosody.version, &mut hosts, report);
    if written.get(ENABLED).is_none() {
        options.insert(ENABLED.to_owned(), enabled.into());
    }
    let version = &facts.prosody.version;
    let resolution = modules::resolve(&modules, &requests, &findings.modules, version, &hosts, report);
    let shard = shards::number(&options);
    let state_options = options.clone();
    if !resolution.links.is_empty() {
        warn_about_plugin_paths(facts, report);
        let linked = lasting(generation, facts).join(MODULES_DIR).to_string_lossy().into_owned();
        add(&mut options, "plugin_paths", linked);
    }
    set_certificate_options(facts, generation, &hosts, &certificates, &written, &mut options);

    let certificates_of = certificates.files(&lasting(generation, facts));
    let render = Renderer::new(facts, &hosts, &certificates_of, &options, &written, secrets, report);
    let mut files = render.all(generation);
    let main_file = files.iter().find(|file| file.path == Path::new(MAIN_FILE));
    let has_script = main_file.is_none_or(|file| file.content.contains(LIVE_SCRIPT));
    let has_accounts = accounts.is_some();
    let accounts = accounts.filter(|_| has_script);
    if has_accounts && accounts.is_none() {
        report.setting_warning(advice!(
            "Accounts are not made, because your template prosody.cfg.lua.j2 does not run {LIVE_SCRIPT}: add the line \
             `(Lua or _G).pcall(RunScript, {{{{ live_script }}}})` to it"
        ));
    }
    let trusted =
        authorities.as_ref().map(|file| Link { path: AUTHORITIES.into(), target: file.path.clone() });
    files.extend(authorities);
    files.push(File::new(HEALTH_FILE, health::file(&options, &hosts, &facts.custom_files, &databases)));

    warn_about_databases(facts, &databases, debug_log.as_deref(), report);
    let mut state =
        state::describe(facts, &hosts, &certificates, &state_options, &files, &resolution.fingerprints);
    accounts.iter().for_each(|accounts| state::add_accounts(&mut state, accounts));
    let mut links = links(facts, &files);
    links.extend(trusted);
    links.extend(resolution.links);
    let rendered: HashSet<&str> = hosts.names().collect();
    let self_signed = certificates.links(|name| rendered.contains(name));
    links.extend(
        self_signed
            .into_iter()
            .map(|(name, target)| Link { path: Path::new(CERTIFICATES_DIR).join(name), target }),
    );
    let mut imports = Vec::new();
    for (pair, names) in certificates.imports() {
        let mut names = names.into_iter();
        let Some(first) = names.next() else { continue };
        // Other names of the same certificate are links beside it.
        links.extend(
            names.map(|name| Link {
                path: Path::new(CERTIFICATES_DIR).join(name),
                target: first.clone().into(),
            }),
        );
        imports.push(Import::new(Path::new(CERTIFICATES_DIR).join(first), pair));
    }
    Plan {
        time: Some(now),
        shard,
        state,
        generation: generation.to_owned(),
        links,
        files,
        self_signed: certificates.found.self_signed.iter().filter(|own| !own.is_usable).cloned().collect(),
        imports,
        certificates,
        databases,
        accounts,
        virtual_hosts: hosts.virtual_hosts.iter().map(|host| host.name.clone()).collect(),
        hosts,
        options,
        modules: resolution.modules,
    }
}

/// The file with all certificates of authorities. Its name changes with its content, so that a reload takes it up.
fn authorities(found: Vec<Result<String, UnusedFile>>, report: &mut Report) -> Option<File> {
    let mut text = String::new();
    for found in found {
        match found {
            Ok(certificates) => text += &certificates,
            Err(unused) => report.error(SettingError::new(
                "PROSODY_CA_CERTIFICATES",
                &advice!("{unused}: name files with certificates (PEM)"),
            )),
        }
    }
    let name = AUTHORITIES.replace('.', &format!("-{:x}.", digest::of(text.as_bytes())));
    (!text.is_empty()).then(|| File::new(name, text))
}

/// Warns about custom files that replace our module directories.
fn warn_about_plugin_paths(facts: &Facts, report: &mut Report) {
    for file in facts.custom_files.fragments().filter(|file| file.summary.sets_plugin_paths) {
        report.setting_warning(advice!(
            "{}: its `plugin_paths` takes the place of ours, without which Prosody does not find the modules of the \
             collection: name your folders in PROSODY_PLUGIN_PATHS, and take it out",
            file.path.display()
        ));
    }
}

/// Warns about SQLite data that nothing uses, and about a password in the log. Other images use SQLite by default, or
/// after a variable with a generic name.
fn warn_about_databases(facts: &Facts, databases: &[Database], debug_log: Option<&str>, report: &mut Report) {
    let custom_storage = facts.custom_files.fragments().any(|file| !file.summary.places.is_empty());
    if facts.has_sqlite_file && databases.is_empty() && !custom_storage {
        report.warning(advice!(
            "{}: nothing uses these data, because the storage is files: set PROSODY_DEFAULT_STORAGE=sqlite, or remove them",
            facts.data_dir.join(SQLITE_FILE).display()
        ));
    }
    let has_password = databases.iter().any(|database| database.password.is_some());
    if let Some(variable) = debug_log.filter(|_| has_password) {
        report.setting_warning(advice!(
            "{variable}: at debug Prosody writes the database's URL with its password into its own log: choose another \
             level where others can read the log"
        ));
    }
}

/// Sets the certificate directory for hosts in custom files, and the certificate for clients without SNI on each port.
/// `PROSODY_OPTIONS` wins.
///
/// The directory's path is the same in all generations: at a reload, some hosts load their certificate before Prosody
/// notices a new path. Its files contain certificate and key, so that these never come from different generations.
fn set_certificate_options(
    facts: &Facts,
    generation: &Path,
    hosts: &ServedHosts,
    certificates: &CertificatePlan,
    written: &types::CustomOptions,
    options: &mut Options,
) {
    let value = |path: &Path| Value::from(path.to_string_lossy().into_owned());
    let mut set = |option: &str, value: Value| {
        if written.get(option).is_none() {
            options.insert(option.into(), value);
        }
    };
    set("certificates", value(&lasting(generation, facts).join(CERTIFICATES_DIR)));
    let files = certificates.files(&lasting(generation, facts));
    let own = |host| hosts.own_certificates().find(|(name, _)| *name == host).map(|(_, value)| value.clone());
    let file = |host| files.get(host).map(|file| value(file)).or_else(|| own(host));
    if let Some(file) = certificates.default_host().and_then(file) {
        for service in ["https", "c2s_direct_tls", "s2s_direct_tls"] {
            set(&format!("{service}_certificate"), file.clone());
        }
    }
}

/// A path of a generation that is the same for all generations in force.
fn lasting(generation: &Path, facts: &Facts) -> PathBuf {
    let is_in_force = generation.parent() == Some(&facts.runtime_dir);
    if is_in_force { facts.runtime_dir.join(CURRENT) } else { generation.to_owned() }
}

/// Links beside the main file to the configuration: relative paths in custom files start at the main file's directory.
fn links(facts: &Facts, files: &[File]) -> Vec<Link> {
    let is_ours = |name: &Path| files.iter().any(|file| file.path == name) || name == Path::new(MODULES_DIR);
    facts
        .entries
        .iter()
        .filter(|name| !is_ours(Path::new(name)))
        .map(|name| Link { path: name.into(), target: facts.config_dir.join(name) })
        .collect()
}

#[cfg(test)]
mod tests;
