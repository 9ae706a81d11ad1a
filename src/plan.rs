//! From settings and facts to a plan: every file with its content, every link, every certificate to make, as plain data.
//!
//! Nothing here looks at the disk and nothing writes to it.

mod global;
mod health;
mod hosts;
mod modules;
mod render;
mod resolution;
mod state;
mod storage;

use std::path::{Path, PathBuf};

use minijinja::Value;
use serde::Serialize;

pub use self::global::ROOT_ANCHOR;
pub use self::hosts::Hosts;
use self::hosts::Options;
use self::render::Renderer;
pub use self::resolution::{LINKED, Module, Reason, Role};
pub use self::state::{Changes, STATE_FILE, State, add_warning};
use crate::database::Database;
use crate::facts::Facts;
use crate::lua::Secrets;
use crate::privileges;
use crate::self_signed::Request;
use crate::settings::types::LogLevel;
use crate::settings::{Mistake, Report, Settings};

/// The main file's name, and the name of a configuration file of the user's own.
pub const MAIN_FILE: &str = "prosody.cfg.lua";

/// Where the health check finds out whom to ask.
pub const HEALTH_FILE: &str = "health";

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

/// Everything that a start writes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// The directory that files and links are below.
    pub generation: PathBuf,
    /// The files.
    pub files: Vec<File>,
    /// The links.
    pub links: Vec<Link>,
    /// The self-signed certificates to make in the data directory.
    pub certificates: Vec<Request>,
    /// The virtual hosts that are served, those of the user's own files not among them.
    pub virtual_hosts: Vec<String>,
    /// The databases that data are kept in.
    #[serde(skip)]
    pub databases: Vec<Database>,
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
    for field in ["accounts", "import_certificate_directories", "import_certificate_hostnames"] {
        if settings.is_given(field) {
            report.mistake(Mistake::new(
                &settings.variable(field),
                "this version does not support it yet: leave it out",
            ));
        }
    }
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
    manner: Manner,
    report: &mut Report,
) -> Plan {
    let Manner { generation, secrets, reads_own_modules } = manner;
    let mut options = Options::new();
    global::options(settings, facts, &mut options, report);
    storage::options(settings, &mut options, report);
    // Prosody has to read the files of modules as well.
    let asked = privileges::as_user(&facts.identity, || {
        modules::options(settings, facts, &mut hosts, &mut options, report)
    });
    certificates(facts, &hosts, &mut options);
    if let Some(written) = &settings.anything.options {
        hosts::merge(&mut options, written, Value::clone);
    }
    let resolution = privileges::as_user(&facts.identity, || {
        resolution::resolve(settings, facts, &hosts, &options, &asked, reads_own_modules, report)
    });
    let state_options = options.clone();
    if !resolution.links.is_empty() {
        let linked = Value::from(generation.join(LINKED).to_string_lossy().into_owned());
        let paths = options.get("plugin_paths").and_then(|paths| paths.try_iter().ok());
        let paths: Value = paths.into_iter().flatten().chain([linked]).collect();
        options.insert("plugin_paths".into(), paths);
    }

    let mut files = Vec::new();
    let render = Renderer::new(settings, facts, &hosts, &options, secrets, report);
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
    files.push(File::new(HEALTH_FILE, health::targets(&options, &hosts)));

    let databases = storage::databases(&state_options, &hosts);
    let has_password = databases.iter().any(|database| database.password.is_some());
    if has_password && settings.observability.log_level == Some(LogLevel::Debug) {
        report.notice(format!(
            "{}: at debug Prosody writes the database's URL with its password into its own log: choose another level \
             where others can read the log",
            settings.variable("log_level")
        ));
    }
    let state = state::describe(settings, facts, &hosts, &state_options, &files, &resolution.fingerprints);
    let mut links = links(facts, &files);
    links.extend(resolution.links);
    Plan {
        state,
        generation: generation.to_owned(),
        links,
        files,
        certificates: facts.certificates.to_make.clone(),
        databases,
        virtual_hosts: hosts.virtual_hosts.into_iter().map(|host| host.name).collect(),
        modules: resolution.modules,
    }
}

/// Where Prosody finds certificates for ports that serve no host in particular.
fn certificates(facts: &Facts, hosts: &Hosts, options: &mut Options) {
    let path = |path: &Path| Value::from(path.to_string_lossy().into_owned());
    options.insert("certificates".into(), path(&facts.certificates.directory));
    let first = hosts.names().find_map(|name| facts.certificates.self_signed.get(name));
    if let Some(certificate) = first.filter(|_| !facts.certificates.found_any) {
        for option in ["https_certificate", "c2s_direct_tls_certificate", "s2s_direct_tls_certificate"] {
            options.insert(option.into(), path(certificate));
        }
    }
}

/// Relative paths in the user's files mean the configuration directory: to Prosody, that is the main file's directory.
fn links(facts: &Facts, files: &[File]) -> Vec<Link> {
    let is_ours = |name: &Path| files.iter().any(|file| file.path == name) || name == Path::new(LINKED);
    facts
        .entries
        .iter()
        .filter(|name| !is_ours(Path::new(name)))
        .map(|name| Link { path: name.into(), target: facts.config_dir.join(name) })
        .collect()
}
