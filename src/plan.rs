//! From settings and facts to a plan: every file with its content, every link, every certificate to make, as plain data.
//!
//! Nothing here looks at the disk and nothing writes to it.

pub mod accounts;
pub mod certificates;
mod global;
mod health;
mod hosts;
mod modules;
mod render;
mod resolution;
mod state;
mod storage;

use std::path::{Path, PathBuf};
use std::rc::Rc;

use minijinja::Value;
use serde::Serialize;

use self::certificates::Decision;
pub use self::hosts::Hosts;
use self::hosts::Options;
use self::render::Renderer;
pub use self::resolution::{Module, Reason, Role};
pub use self::state::{Changes, State, add_warning};
use crate::database::Database;
use crate::facts::Facts;
use crate::layout::{CERTIFICATES_DIR, CURRENT, HEALTH_FILE, MAIN_FILE, MODULES_DIR};
use crate::lua::Secrets;
use crate::os::privileges;
use crate::report::{Mistake, Report};
use crate::settings::Settings;
use crate::settings::types::LogLevel;
use crate::survey::certificates::Pair;
use crate::survey::self_signed::Request;

/// The fragments in the order in which they are read.
const FRAGMENTS: [&str; 5] =
    ["global.cfg.lua", "modules.cfg.lua", "storage.cfg.lua", "vhosts.cfg.lua", "components.cfg.lua"];

/// A file to write, with mode 0640, for root and Prosody's group, or where there is no root for Prosody's user.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct File {
    /// Below the generation's directory.
    pub path: PathBuf,
    /// What stands in it.
    pub content: String,
    /// The user's template that it comes from.
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
    /// Below the generation's directory.
    pub path: PathBuf,
    /// Where it leads.
    pub target: PathBuf,
}

/// A certificate to write with its key, with mode 0600, for Prosody's user.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Import {
    /// Below the generation's directory.
    pub path: PathBuf,
    /// The file that it comes from.
    pub certificate: PathBuf,
    /// The file that its key comes from.
    pub key: PathBuf,
    /// Both.
    #[serde(skip)]
    pub pair: Rc<Pair>,
}

impl Import {
    fn new(path: PathBuf, pair: Rc<Pair>) -> Self {
        Self { path, certificate: pair.certificate.clone(), key: pair.key.clone(), pair }
    }
}

/// Everything that a start writes.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// The directory that files and links are below.
    pub generation: PathBuf,
    /// The files.
    pub files: Vec<File>,
    /// The links.
    pub links: Vec<Link>,
    /// The certificates that were chosen.
    pub imports: Vec<Import>,
    /// The self-signed certificates to make in the data directory.
    pub certificates: Vec<Request>,
    /// What each host gets.
    #[serde(skip)]
    pub decision: Decision,
    /// The virtual hosts that are served, those of the user's own files not among them.
    pub virtual_hosts: Vec<String>,
    /// The databases that data are kept in.
    #[serde(skip)]
    pub databases: Vec<Database>,
    /// The accounts to make, as the module takes them.
    #[serde(skip)]
    pub accounts: Option<String>,
    /// The modules that are loaded, or can be.
    #[serde(skip)]
    pub modules: Vec<Module>,
    /// What a later reload compares itself with.
    #[serde(skip)]
    pub state: String,
}

impl Plan {
    /// The main file, which `prosody --config` takes.
    pub fn main_file(&self) -> PathBuf {
        self.generation.join(MAIN_FILE)
    }
}

/// Finds what is wrong with the settings on this Prosody, as far as that needs no plan.
pub fn check(settings: &Settings, facts: &Facts, report: &mut Report) {
    check_places(settings, facts, report);
}

/// Directories of the system, which are nobody's to give to Prosody.
const SYSTEM: [&str; 16] = [
    "/", "/bin", "/boot", "/dev", "/dev/shm", "/etc", "/home", "/lib", "/opt", "/proc", "/root", "/run",
    "/sys", "/tmp", "/usr", "/var",
];

/// Input, output and data are three places: each has an owner of its own.
fn check_places(settings: &Settings, facts: &Facts, report: &mut Report) {
    let places = [
        ("data_dir", &facts.data_dir),
        ("runtime_dir", &facts.runtime_dir),
        ("config_dir", &facts.config_dir),
    ];
    for (field, path) in &places[..2] {
        if SYSTEM.iter().any(|system| Path::new(system) == path.as_path()) {
            let why = format!("{} is the system's: name a directory below it", path.display());
            report.mistake(Mistake::new(&settings.variable(field), &why));
        }
    }
    let tls = &settings.tls;
    let imported = tls.import_certificate_directories.iter().flat_map(|list| list.iter());
    let imported = imported.map(|path| ("import_certificate_directories", path));
    for (field, path) in tls.certificates.iter().map(|path| ("certificates", path)).chain(imported) {
        let path: &Path = path.as_ref();
        if path.starts_with(&facts.runtime_dir) || facts.runtime_dir.starts_with(path) {
            let why =
                format!("{} has the copies that are served in it: name another directory", path.display());
            report.mistake(Mistake::new(&settings.variable(field), &why));
        }
    }
    for (index, (field, path)) in places.iter().enumerate() {
        for (other_field, other) in &places[..index] {
            if path == other || (*other_field == "runtime_dir" && path.starts_with(other)) {
                let why = format!(
                    "{} is the directory of {} too: each needs one of its own",
                    path.display(),
                    settings.variable(other_field)
                );
                report.mistake(Mistake::new(&settings.variable(field), &why));
            }
        }
    }
}

/// How a plan is made.
#[derive(Clone, Copy)]
pub struct Manner<'a> {
    /// Where the generation will be.
    pub generation: &'a Path,
    /// Whether the files hold secrets or a placeholder for each.
    pub secrets: Secrets,
    /// Whether what Prosody's own modules need is looked at too, which nothing but a report on modules needs.
    pub reads_own_modules: bool,
}

/// Makes the plan for a generation directory. What is wrong is added to the report, and then the plan is not fit to be
/// applied.
pub fn make(
    settings: &Settings,
    facts: &Facts,
    mut hosts: Hosts,
    decision: Decision,
    manner: Manner,
    report: &mut Report,
) -> Plan {
    let Manner { generation, secrets, reads_own_modules } = manner;
    accounts::check(settings, facts, &mut hosts, report);
    let mut options = Options::new();
    global::options(settings, facts, &mut options, report);
    storage::options(settings, &mut options, report);
    // Prosody has to read the files of modules as well.
    let asked = privileges::as_user(&facts.identity, || {
        modules::options(settings, facts, &mut hosts, &mut options, report)
    });
    if let Some(written) = &settings.anything.options {
        hosts::merge(&mut options, written, Value::clone);
    }
    let resolution = privileges::as_user(&facts.identity, || {
        resolution::resolve(settings, facts, &hosts, &options, &asked, reads_own_modules, report)
    });
    let accounts_module = accounts::load(settings, facts, &mut hosts, &mut options);
    let state_options = options.clone();
    if !resolution.links.is_empty() || accounts_module.is_some() {
        for file in facts.user_files.fragments().filter(|file| file.summary.sets_plugin_paths) {
            report.warning(format!(
                "{}: its `plugin_paths` takes the place of ours, without which Prosody does not find {}: name your folders \
                 in PROSODY_PLUGIN_PATHS, and take it out",
                file.path.display(),
                match accounts_module {
                    Some(_) => "the module that makes accounts, and those of the collection",
                    None => "the modules of the collection",
                }
            ));
        }
        let linked = Value::from(generation.join(MODULES_DIR).to_string_lossy().into_owned());
        let paths = options.get("plugin_paths").and_then(|paths| paths.try_iter().ok());
        let paths: Value = paths.into_iter().flatten().chain([linked]).collect();
        options.insert("plugin_paths".into(), paths);
    }
    name_certificates(settings, facts, manner, &hosts, &decision, &mut options);
    name_hosts_in_ascii(&mut hosts, options.contains_key("http_host"));

    let mut files = Vec::new();
    let certificates_of = decision.files(generation);
    let render = Renderer::new(settings, facts, &hosts, &certificates_of, &options, secrets, report);
    let mut includes: Vec<PathBuf> = Vec::new();
    for fragment in FRAGMENTS {
        if let Some(content) = render.fragment(fragment, report) {
            files.push(File::new(fragment, content));
            includes.push(generation.join(fragment));
        }
        let own = match fragment {
            "vhosts.cfg.lua" => &facts.user_files.virtual_hosts,
            "components.cfg.lua" => &facts.user_files.components,
            _ => continue,
        };
        render.user_files(own, generation, &mut files, &mut includes, report);
    }
    render.user_files(&facts.user_files.extra, generation, &mut files, &mut includes, report);
    if let Some(content) = render.main(&includes, report) {
        files.push(File::new(MAIN_FILE, content));
    }
    files.extend(accounts_module);
    files.push(File::new(HEALTH_FILE, health::targets(&options, &hosts)));

    let databases = storage::databases(&state_options, &hosts);
    storage::find_unused_file(facts, &databases, report);
    let has_password = databases.iter().any(|database| database.password.is_some());
    if has_password && settings.observability.log_level == Some(LogLevel::Debug) {
        report.notice(format!(
            "{}: at debug Prosody writes the database's URL with its password into its own log: choose another level \
             where others can read the log",
            settings.variable("log_level")
        ));
    }
    let state =
        state::describe(settings, facts, &hosts, &decision, &state_options, &files, &resolution.fingerprints);
    let mut links = links(facts, &files);
    links.extend(resolution.links);
    let mut imports = Vec::new();
    for (pair, names) in decision.imports() {
        let mut names = names.into_iter();
        let Some(first) = names.next() else { continue };
        // Another name for the same is a link beside it.
        links.extend(
            names.map(|name| Link {
                path: Path::new(CERTIFICATES_DIR).join(name),
                target: first.clone().into(),
            }),
        );
        imports.push(Import::new(Path::new(CERTIFICATES_DIR).join(first), pair));
    }
    Plan {
        state,
        generation: generation.to_owned(),
        links,
        files,
        certificates: decision.to_make.clone(),
        imports,
        decision,
        databases,
        accounts: crate::accounts::text(settings),
        virtual_hosts: hosts.virtual_hosts.into_iter().map(|host| host.name).collect(),
        modules: resolution.modules,
    }
}

/// Where Prosody finds the certificates of hosts that are not ours, and one for those who name no host at a port. What
/// stands in `PROSODY_OPTIONS` stays.
///
/// At a reload some hosts ask for theirs before Prosody has taken up a new folder, so that is always called the same. It
/// has certificate and key in one file, and so never a mixture of two generations.
fn name_certificates(
    settings: &Settings,
    facts: &Facts,
    manner: Manner,
    hosts: &Hosts,
    decision: &Decision,
    options: &mut Options,
) {
    let written = settings.anything.options.as_ref();
    let value = |path: &Path| Value::from(path.to_string_lossy().into_owned());
    let mut name = |option: &str, value: Value| {
        if written.is_none_or(|written| written.get(option).is_none()) {
            options.insert(option.into(), value);
        }
    };
    let is_in_force = manner.generation.parent() == Some(&facts.runtime_dir);
    let current = facts.runtime_dir.join(CURRENT);
    let directory = if is_in_force { &current } else { manner.generation };
    name("certificates", value(&directory.join(CERTIFICATES_DIR)));
    let files = decision.files(manner.generation);
    let own = |host| hosts.own_certificates().find(|(name, _)| *name == host).map(|(_, value)| value.clone());
    let file = |host| files.get(host).map(|file| value(file)).or_else(|| own(host));
    if let Some(file) = decision.default_host().and_then(file) {
        for service in ["https", "c2s_direct_tls", "s2s_direct_tls"] {
            name(&format!("{service}_certificate"), file.clone());
        }
    }
}

/// Says how clients call a host with a name that is not ASCII where TLS begins with that (RFC 6066, section 3), so that
/// they get its certificate there: Prosody (`core/portmanager.lua`) compares it with the host's own name otherwise.
fn name_hosts_in_ascii(hosts: &mut Hosts, has_http_host: bool) {
    let virtual_hosts = hosts.virtual_hosts.iter_mut().map(|host| (&host.name, true, &mut host.options));
    let components = hosts.components.iter_mut().map(|host| (&host.name, false, &mut host.options));
    for (name, has_clients, options) in virtual_hosts.chain(components) {
        let Some(ascii) = certificates::ascii(name).filter(|ascii| ascii != name) else { continue };
        let has_http_host = has_http_host || options.contains_key("http_host");
        let https = Some("https_host").filter(|_| !has_http_host);
        let clients = Some("c2s_direct_tls_host").filter(|_| has_clients);
        for option in ["s2s_direct_tls_host"].into_iter().chain(clients).chain(https) {
            options.entry(option.into()).or_insert_with(|| Value::from(ascii.as_str()));
        }
    }
}

/// Relative paths in the user's files mean the configuration directory: to Prosody, that is the main file's directory.
fn links(facts: &Facts, files: &[File]) -> Vec<Link> {
    let is_ours = |name: &Path| files.iter().any(|file| file.path == name) || name == Path::new(MODULES_DIR);
    facts
        .entries
        .iter()
        .filter(|name| !is_ours(Path::new(name)))
        .map(|name| Link { path: name.into(), target: facts.config_dir.join(name) })
        .collect()
}
