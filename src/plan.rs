//! From settings and facts to a plan: every file with its content, every link, every certificate to make, as plain data.
//!
//! Nothing here looks at the disk and nothing writes to it.

mod global;
mod hosts;
mod modules;
mod storage;

use std::ffi::OsStr;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use minijinja::Value;
use serde::Serialize;

pub use self::global::ROOT_ANCHOR;
pub use self::hosts::Hosts;
use self::hosts::{Component, Options};
use crate::facts::Facts;
use crate::health::{ANY_HOST, Service, Target};
use crate::lua::{self, Dialect, Secrets};
use crate::self_signed::Request;
use crate::settings::{Mistake, Report, Settings};
use crate::templates::Templates;

/// The main file's name, and the name of a configuration file of the user's own.
pub const MAIN_FILE: &str = "prosody.cfg.lua";

/// Where the health check finds out whom to ask.
pub const HEALTH_FILE: &str = "health";

/// The fragments in the order in which they are read.
const FRAGMENTS: [&str; 5] =
    ["global.cfg.lua", "modules.cfg.lua", "storage.cfg.lua", "vhosts.cfg.lua", "components.cfg.lua"];

/// Our templates, compiled in. A file of the same name in the templates directory replaces one.
pub const TEMPLATES: [(&str, &str); 6] = [
    ("prosody.cfg.lua.j2", include_str!("../templates/prosody.cfg.lua.j2")),
    ("global.cfg.lua.j2", include_str!("../templates/global.cfg.lua.j2")),
    ("modules.cfg.lua.j2", include_str!("../templates/modules.cfg.lua.j2")),
    ("storage.cfg.lua.j2", include_str!("../templates/storage.cfg.lua.j2")),
    ("vhosts.cfg.lua.j2", include_str!("../templates/vhosts.cfg.lua.j2")),
    ("components.cfg.lua.j2", include_str!("../templates/components.cfg.lua.j2")),
];

/// A file to write, with mode 0640, for root and Prosody's group, or where there is no root for Prosody's user.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct File {
    /// Below the generation's directory.
    pub path: PathBuf,
    /// What stands in it.
    pub content: String,
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
}

impl Plan {
    /// The main file, which `prosody --config` takes.
    pub fn main_file(&self) -> PathBuf {
        self.generation.join(MAIN_FILE)
    }
}

/// Finds what is wrong with the settings on this Prosody, as far as that needs no plan.
pub fn check(settings: &Settings, facts: &Facts, report: &mut Report) {
    modules::check(settings, facts, report);
    check_places(settings, facts, report);
    for field in ["accounts", "import_certificate_directories", "import_certificate_hostnames"] {
        if settings.is_given(field) {
            report.mistake(Mistake::new(
                &settings.variable(field),
                "this version does not support it yet: leave it out",
            ));
        }
    }
    for (field, why) in [
        ("db_wait", "this version does not wait for a database"),
        ("certificate_reload", "this version does not watch certificates: send SIGHUP after a renewal"),
    ] {
        if settings.is_given(field) {
            report.warning(format!("{}: {why}", settings.variable(field)));
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

/// Makes the plan for a generation directory. What is wrong is added to the report, and then the plan is not fit to be
/// applied.
///
/// `secrets` says whether the files hold secrets or a placeholder for each.
pub fn make(
    settings: &Settings,
    facts: &Facts,
    hosts: Hosts,
    generation: &Path,
    secrets: Secrets,
    report: &mut Report,
) -> Plan {
    let options = options(settings, facts, &hosts, report);
    let mut files = Vec::new();
    let render = Renderer::new(settings, facts, &hosts, &options, secrets, report);

    let mut includes: Vec<PathBuf> = Vec::new();
    for fragment in FRAGMENTS {
        if let Some(content) = render.fragment(fragment, report) {
            files.push(File { path: fragment.into(), content });
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
        files.push(File { path: MAIN_FILE.into(), content });
    }
    files.push(File { path: HEALTH_FILE.into(), content: health(&options, &hosts) });

    Plan {
        generation: generation.to_owned(),
        links: links(facts, &files),
        files,
        certificates: facts.certificates.to_make.clone(),
        virtual_hosts: hosts.virtual_hosts.into_iter().map(|host| host.name).collect(),
    }
}

/// The options of the global section, in all fragments.
fn options(settings: &Settings, facts: &Facts, hosts: &Hosts, report: &mut Report) -> Options {
    let mut options = Options::new();
    global::options(settings, facts, &mut options, report);
    storage::options(settings, &mut options, report);
    modules::options(settings, facts, &mut options, report);
    certificates(facts, hosts, &mut options);
    if let Some(written) = &settings.anything.options {
        hosts::merge(&mut options, written, Value::clone);
    }
    options
}

/// Whether a built-in template has a place for an option.
fn is_mentioned(option: &str) -> bool {
    let quoted = format!("\"{option}\"");
    TEMPLATES.iter().any(|(_, text)| text.contains(&quoted))
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
    let is_ours = |name: &Path| files.iter().any(|file| file.path == name);
    facts
        .entries
        .iter()
        .filter(|name| !is_ours(Path::new(name)))
        .map(|name| Link { path: name.into(), target: facts.config_dir.join(name) })
        .collect()
}

/// Renders templates with the values of one plan.
struct Renderer<'a> {
    templates: Templates,
    context: Value,
    facts: &'a Facts,
    /// Templates with a mistake in their syntax, which is in the report.
    broken: Vec<String>,
}

impl<'a> Renderer<'a> {
    fn new(
        settings: &Settings,
        facts: &'a Facts,
        hosts: &Hosts,
        options: &Options,
        secrets: Secrets,
        report: &mut Report,
    ) -> Self {
        // What PROSODY_OPTIONS says may be a secret. Of it, templates are given that apart which they do not mention.
        let written =
            |name: &str| settings.anything.options.as_ref().is_some_and(|all| all.get(name).is_some());
        let (mut mentioned, mut other_options) = (Options::new(), Options::new());
        for (name, value) in options {
            match written(name) {
                true if is_mentioned(name) => drop(mentioned.insert(name.clone(), lua::hidden(value))),
                true => drop(other_options.insert(name.clone(), lua::hidden(value))),
                false => drop(mentioned.insert(name.clone(), value.clone())),
            }
        }
        let virtual_hosts: Vec<Value> = hosts
            .virtual_hosts
            .iter()
            .map(|host| section(&host.name, None, &host.options, host.names_certificate, facts))
            .collect();
        let components: Vec<Value> = hosts
            .components
            .iter()
            .map(|component| {
                let Component { name, options, names_certificate, .. } = component;
                section(name, Some(component), options, *names_certificate, facts)
            })
            .collect();
        let context = Value::from_pairs([
            ("options", Value::from_pairs(mentioned)),
            ("other_options", hosts::pairs(&other_options)),
            ("virtual_hosts", Value::from(virtual_hosts)),
            ("components", Value::from(components)),
            ("prosody_version", Value::from(facts.prosody.version.to_string())),
            ("config_dir", Value::from(facts.config_dir.to_string_lossy().into_owned())),
            ("data_dir", Value::from(facts.data_dir.to_string_lossy().into_owned())),
        ]);
        let mut templates = Templates::new(Dialect { version: facts.prosody.dialect(), secrets });
        let own = &facts.user_files.templates;
        for (name, text) in TEMPLATES {
            if !own.iter().any(|template| template.path.file_name() == Some(OsStr::new(name))) {
                if let Err(error) = templates.add(name, text) {
                    report.mistake(Mistake::about(&error.to_string()));
                }
            }
        }
        let mut broken = Vec::new();
        for template in own {
            let name = template.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let text = template.template.clone().unwrap_or_default();
            if let Err(error) = templates.add_file(name.clone(), &template.path, text) {
                report.mistake(Mistake::about(&error.to_string()));
                broken.push(name);
            }
        }
        Self { templates, context, facts, broken }
    }

    /// A fragment's text, unless it would be empty but for comments.
    fn fragment(&self, name: &str, report: &mut Report) -> Option<String> {
        let text = self.render(&format!("{name}.j2"), self.context.clone(), report)?;
        let is_comment = |line: &str| line.is_empty() || (line.starts_with("--") && !line.starts_with("--["));
        let is_empty = text.lines().map(str::trim).all(is_comment);
        (!is_empty).then_some(text)
    }

    fn main(&self, includes: &[PathBuf], report: &mut Report) -> Option<String> {
        let includes: Vec<String> = includes.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        let context = minijinja::context! { includes, ..self.context.clone() };
        self.render(&format!("{MAIN_FILE}.j2"), context, report)
    }

    /// The user's files as they are, and the user's templates rendered.
    fn user_files(
        &self,
        own: &[crate::facts::user_files::UserFile],
        generation: &Path,
        files: &mut Vec<File>,
        includes: &mut Vec<PathBuf>,
        report: &mut Report,
    ) {
        for file in own {
            let Some(template) = &file.template else {
                includes.push(file.path.clone());
                continue;
            };
            match self.templates.render_text(&file.path, template, self.context.clone()) {
                Ok(content) => {
                    let path = rendered_name(&file.path, &self.facts.config_dir);
                    if files.iter().any(|other| other.path == path) {
                        let name = path.display();
                        let why = format!(
                            "{source}: another template is rendered as {name} already: rename it",
                            source = file.path.display()
                        );
                        report.mistake(Mistake::about(&why));
                    }
                    includes.push(generation.join(&path));
                    files.push(File { path, content });
                }
                Err(error) => report.mistake(Mistake::about(&error.to_string())),
            }
        }
    }

    fn render(&self, name: &str, context: Value, report: &mut Report) -> Option<String> {
        if self.broken.iter().any(|broken| broken == name) {
            return None;
        }
        self.templates
            .render(name, context)
            .map_err(|error| report.mistake(Mistake::about(&error.to_string())))
            .ok()
    }
}

/// Where a rendered `conf.d/x.cfg.lua.j2` stands: beside the main file, so that relative paths in it mean the
/// configuration directory, and under a name that no fragment of ours has.
fn rendered_name(path: &Path, config_dir: &Path) -> PathBuf {
    let relative = path.strip_prefix(config_dir).unwrap_or(path).to_string_lossy();
    let flat = relative.trim_start_matches('/').replace('/', "--");
    format!("own--{}", flat.strip_suffix(".j2").unwrap_or(&flat)).into()
}

/// A host's or component's section, for templates.
fn section(
    name: &str,
    component: Option<&Component>,
    options: &Options,
    names_certificate: bool,
    facts: &Facts,
) -> Value {
    let certificate = facts.certificates.self_signed.get(name);
    let options = match certificate {
        Some(path) if !names_certificate => {
            let mut options = options.clone();
            options.insert("certificate".into(), Value::from(path.to_string_lossy().into_owned()));
            hosts::pairs(&options)
        }
        _ => hosts::pairs(options),
    };
    let module = component.map(|component| component.module.as_deref().map_or(Value::from(()), Value::from));
    let mut section = vec![("name", Value::from(name)), ("options", options)];
    section.extend(module.map(|module| ("module", module)));
    Value::from_pairs(section)
}

/// Whom the health check asks: the first host, at an address and port that are bound, loopback first; another server's
/// port where clients have none.
fn health(options: &Options, hosts: &Hosts) -> String {
    // Where only the user's own files name hosts, it is not known which.
    let host = hosts.virtual_hosts.first().map_or(ANY_HOST, |host| &host.name);
    let strings = |value: &Value| -> Vec<String> {
        value
            .try_iter()
            .map(|items| items.filter_map(|item| item.as_str().map(str::to_owned)).collect())
            .unwrap_or_default()
    };
    let interfaces = options.get("interfaces").map(strings).unwrap_or_else(|| vec!["*".into(), "::".into()]);
    let address = |interface: &str| match interface {
        "*" | "0.0.0.0" => Some("127.0.0.1".parse().ok()?),
        "::" => Some("::1".parse().ok()?),
        address => address.parse().ok(),
    };
    let mut addresses: Vec<IpAddr> = interfaces.iter().filter_map(|interface| address(interface)).collect();
    addresses.sort_by_key(|address| !address.is_loopback());
    let ports = |option: &str, default: u16| -> Vec<u16> {
        let Some(ports) = options.get(option) else {
            return vec![default];
        };
        let number = |item: Value| item.as_usize().and_then(|port| u16::try_from(port).ok());
        ports.try_iter().map(|items| items.filter_map(number).collect()).unwrap_or_default()
    };
    let disabled = |module: &str| {
        options.get("modules_disabled").is_some_and(|list| strings(list).contains(&module.to_owned()))
    };
    let mut targets = Vec::new();
    for (service, module, option, default) in
        [(Service::C2s, "c2s", "c2s_ports", 5222), (Service::S2s, "s2s", "s2s_ports", 5269)]
    {
        if !disabled(module) && targets.is_empty() {
            for port in ports(option, default).into_iter().take(1) {
                targets.extend(addresses.iter().map(|address| {
                    Target { service, address: SocketAddr::new(*address, port), host: host.to_owned() }
                        .to_string()
                }));
            }
        }
    }
    targets.iter().map(|target| format!("{target}\n")).collect()
}
