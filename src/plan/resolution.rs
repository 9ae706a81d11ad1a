//! Every module that a server loads, from where, and why: what settings ask for, and what that needs.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use minijinja::Value;
use minijinja::value::ValueKind;

use super::Link;
use super::hosts::{Hosts, Options};
use super::modules::{Asked, THE_DEFAULT_SET, is_only_left_out, names};
use crate::facts::Facts;
use crate::layout::MODULES_DIR;
use crate::lua::Secret;
use crate::report::{Mistake, Report};
use crate::settings::Settings;
use crate::survey::modules::source::{ModuleSource, Need};
use crate::survey::modules::{File, Found, Origin};
use crate::text::nearest;
use crate::text::several;

/// What Prosody loads by itself on every host (`core/modulemanager.lua`, 0.12 and 13.0).
const AUTOLOADED: [&str; 7] = ["presence", "message", "iq", "offline", "c2s", "s2s", "s2s_auth_certs"];

/// All modules, and the links that they need.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resolution {
    /// In the order in which they were found: what is asked for first, then what that needs.
    pub modules: Vec<Module>,
    /// Links into the collection.
    pub links: Vec<Link>,
    /// What tells one content of the files outside of Prosody from another, by file.
    pub fingerprints: Vec<(PathBuf, u64)>,
}

/// A module that is loaded, or can be.
#[derive(Debug, Clone, PartialEq)]
pub struct Module {
    /// Its name, without `mod_`.
    pub name: String,
    /// Its file. Nothing where there is none, which is no mistake for what is needed in some cases only.
    pub file: Option<File>,
    /// Why it is there, each reason once.
    pub reasons: Vec<Reason>,
    /// The modules that it needs, as far as its file was read.
    pub needs: Vec<Need>,
}

/// Why a module is there.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// Something asks for it.
    Asked {
        /// What does: a setting's name, or another word for it.
        by: String,
        /// What for.
        role: Role,
        /// Whether nobody chose it by its name.
        is_default: bool,
        /// Whether its name must not be shown, because it stands among values that may be secrets.
        is_hidden: bool,
    },
    /// Another module needs it.
    NeededBy {
        /// The module.
        module: String,
        /// Whether it does so in some cases only.
        is_conditional: bool,
    },
}

/// What a module is asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Role {
    /// To be loaded on all virtual hosts.
    Enabled,
    /// To be loaded on one host.
    EnabledOn(String),
    /// To be there, without being loaded.
    Available,
    /// To serve a component.
    Component(String),
    /// To know the users' passwords.
    Authentication,
    /// To know what users may do.
    Authorization,
    /// To keep data.
    Storage,
}

impl Role {
    /// What kind of module it is, for a sentence, and what its name begins with.
    fn kind(&self) -> (&'static str, &'static str) {
        match self {
            Role::Authentication => ("authentication provider", "auth_"),
            Role::Authorization => ("authorization provider", "authz_"),
            Role::Storage => ("storage backend", "storage_"),
            Role::Enabled | Role::EnabledOn(_) | Role::Available | Role::Component(_) => ("module", ""),
        }
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

/// Finds every module. What is wrong is added to the report.
///
/// Only files outside of Prosody are read, unless something is disabled, which Prosody's own may need, or `is_whole`:
/// that adds what Prosody loads by itself too.
pub fn resolve(
    settings: &Settings,
    facts: &Facts,
    hosts: &Hosts,
    options: &Options,
    asked: &Asked,
    is_whole: bool,
    report: &mut Report,
) -> Resolution {
    let hosts_disable = hosts.virtual_hosts.iter().any(|host| host.options.contains_key("modules_disabled"));
    let reads_own = is_whole || settings.modules.modules_disabled.is_some() || hosts_disable;
    let has_users = facts.modules.has_users();
    let mut walk = Walk::new(facts, reads_own);
    let roots = Roots { settings, hosts, options, asked }.find(is_whole);
    find_conflicts(&roots, settings, hosts, report);
    find_unused_providers(&roots, report);
    for (name, reason) in roots {
        // What was not chosen by name is Prosody's own and there, but the user may have put another in its place.
        if has_users || reads_own || matches!(reason, Reason::Asked { is_default: false, .. }) {
            walk.certain.push_back((name, reason));
        }
    }
    walk.run(report);
    walk.find_missing_lua_libraries(report);
    if reads_own {
        find_disabled_needs(&walk.modules, settings, hosts, report);
    }
    facts.modules.problems().for_each(|problem| report.notice(problem.to_owned()));
    let path = |name: OsString| Path::new(MODULES_DIR).join(name);
    let links = walk.links.into_iter().map(|(name, target)| Link { path: path(name), target }).collect();
    Resolution { modules: walk.modules, links, fingerprints: walk.fingerprints }
}

/// What asks for modules.
struct Roots<'a> {
    settings: &'a Settings,
    hosts: &'a Hosts,
    options: &'a Options,
    asked: &'a Asked,
}

impl Roots<'_> {
    /// Each module with the reason why it is there. `is_whole` adds what Prosody loads by itself.
    fn find(&self, is_whole: bool) -> Vec<(String, Reason)> {
        let mut roots = Vec::new();
        let mut add = |name: String, by: &str, role: Role, is_default: bool, is_hidden: bool| {
            roots.push((name, Reason::Asked { by: by.to_owned(), role, is_default, is_hidden }));
        };
        let settings = self.settings;
        let variable = |field: &str| settings.variable(field);
        let by_name = variable("modules_enabled");
        if is_whole {
            AUTOLOADED
                .iter()
                .for_each(|name| add((*name).to_owned(), "Prosody itself", Role::Enabled, true, false));
        }
        self.each(self.options, "modules_enabled", &mut |name, is_written| match self.asked.get(&name) {
            Some(by) if !is_written => {
                let is_default = *by != by_name;
                add(name, by, Role::Enabled, is_default, false);
            }
            _ => add(name, &variable("options"), Role::Enabled, false, true),
        });
        for name in names(&settings.modules.modules_available) {
            add(name.to_owned(), &variable("modules_available"), Role::Available, false, false);
        }
        for (option, field, role, default) in [
            ("authentication", "authentication", Role::Authentication, "internal_hashed"),
            ("authorization", "authorization", Role::Authorization, "internal"),
            ("default_storage", "default_storage", Role::Storage, "internal"),
        ] {
            let prefix = role.kind().1;
            let is_given = settings.is_given(field);
            let mut any = false;
            self.each(self.options, option, &mut |name, is_written| {
                any = true;
                let by = match option {
                    _ if is_written => variable("options"),
                    // The URL of a database chooses it too.
                    "default_storage" if !is_given && settings.has_sql_family() => variable("db_driver"),
                    "default_storage" if !is_given => variable("database_url"),
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
        self.each(self.options, "storage", &mut |name, is_written| {
            let by = stores.get(name.as_str()).filter(|_| !is_written);
            let by = by.map_or_else(|| variable("options"), |by| (*by).to_owned());
            add(format!("storage_{name}"), &by, Role::Storage, false, is_written);
        });

        for host in &self.hosts.virtual_hosts {
            self.of_host(&host.name, &host.options, &variable("virtual_hosts"), false, &mut add);
        }
        let is_domains = settings.hosts.components.is_none();
        let by = match is_domains {
            true if settings.is_given("domain") => variable("domain"),
            true => variable("virtual_hosts"),
            false => variable("components"),
        };
        for component in &self.hosts.components {
            match &component.module {
                Some(module) => {
                    add(module.clone(), &by, Role::Component(component.name.clone()), is_domains, false)
                }
                None if is_whole => {
                    let by = variable("external_components");
                    add("component".to_owned(), &by, Role::Component(component.name.clone()), true, false);
                }
                None => {}
            }
            self.of_host(&component.name, &component.options, &by, is_domains, &mut add);
        }
        roots
    }

    /// What the options of one host ask for.
    fn of_host(
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
        self.each(options, "modules_enabled", &mut |name, is_hidden| {
            let (by, is_default) = match () {
                () if for_rooms.contains(&name.as_str()) => (settings.variable("muc_modules"), false),
                () if for_all.contains(&name.as_str()) => (settings.variable("modules_enabled"), false),
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
            self.each(options, option, &mut |name, is_hidden| {
                add(format!("{prefix}{name}"), by, role.clone(), false, is_hidden);
            });
        }
    }

    /// The words in an option, each with whether it stands among values that may be secrets.
    fn each(&self, options: &Options, option: &str, take: &mut dyn FnMut(String, bool)) {
        let is_global = std::ptr::eq(options, self.options);
        let written = self.settings.anything.options.as_ref().filter(|_| is_global);
        let is_written = written.is_some_and(|written| written.get(option).is_some());
        if let Some(value) = options.get(option) {
            each_text(value, &mut |text, is_secret| {
                // `null` is a storage that needs no module.
                if text != "null" {
                    take(text.to_owned(), is_written || is_secret);
                }
            });
        }
    }
}

/// The strings in a value, itself or those in a list or table, each with whether it is a secret.
pub fn each_text(value: &Value, take: &mut dyn FnMut(&str, bool)) {
    if let Some(secret) = value.downcast_object_ref::<Secret>() {
        take(secret.expose(), true);
    } else if let Some(text) = value.as_str() {
        take(text, false);
    } else if let (ValueKind::Seq, Ok(items)) = (value.kind(), value.try_iter()) {
        items.for_each(|item| each_text(&item, take));
    } else if let Some(entries) = value.as_object().and_then(|map| map.try_iter_pairs()) {
        entries.for_each(|(_, item)| each_text(&item, take));
    }
}

/// From what is asked for to what that needs, step by step.
struct Walk<'a> {
    facts: &'a Facts,
    /// Whether what Prosody's own modules need is looked at.
    reads_own: bool,
    /// What is needed in any case, before what is needed in some, so that each is reached by the firmest way.
    certain: VecDeque<(String, Reason)>,
    conditional: VecDeque<(String, Reason)>,
    modules: Vec<Module>,
    places: HashMap<String, usize>,
    /// The libraries of modules that were taken, each with its module, and whether that loads it in any case.
    taken: HashSet<(String, PathBuf, bool)>,
    /// The libraries of Lua's that modules outside of Prosody load, each with the module and whether it is certain.
    lua: BTreeMap<String, Vec<(String, bool)>>,
    links: BTreeMap<OsString, PathBuf>,
    fingerprints: Vec<(PathBuf, u64)>,
}

impl<'a> Walk<'a> {
    fn new(facts: &'a Facts, reads_own: bool) -> Self {
        Self {
            facts,
            reads_own,
            certain: VecDeque::new(),
            conditional: VecDeque::new(),
            modules: Vec::new(),
            places: HashMap::new(),
            taken: HashSet::new(),
            lua: BTreeMap::new(),
            links: BTreeMap::new(),
            fingerprints: Vec::new(),
        }
    }

    fn run(&mut self, report: &mut Report) {
        while let Some((name, reason)) = self.certain.pop_front() {
            self.visit(name, reason, true, report);
        }
        while let Some((name, reason)) = self.conditional.pop_front() {
            self.visit(name, reason, false, report);
        }
    }

    fn visit(&mut self, name: String, reason: Reason, is_certain: bool, report: &mut Report) {
        if let Some(place) = self.places.get(&name) {
            let reasons = &mut self.modules[*place].reasons;
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
            return;
        }
        let found = self.facts.modules.find(&name);
        self.places.insert(name.clone(), self.modules.len());
        let file = found.file.clone();
        self.modules.push(Module { name: name.clone(), file, reasons: vec![reason], needs: Vec::new() });
        match &found.file {
            Some(file) => {
                self.remark(&name, &found, file, report);
                self.take(&name, file, is_certain, report);
            }
            None => self.missing(&name, &found, is_certain, report),
        }
    }

    /// What is worth a line about a file.
    fn remark(&self, name: &str, found: &Found, file: &File, report: &mut Report) {
        let path = file.path.display();
        self.remark_on_files(name, found, report);
        if file.origin == Origin::User {
            if let Some(other) = self.facts.modules.behind_users(name, &file.path) {
                let other = match other {
                    Origin::Collection => "the one in the collection",
                    Origin::Prosody | Origin::User => "Prosody's own",
                };
                report.remark(format!("The module {name} is {path}, and not {other}"));
            }
        }
    }

    /// Says what is wrong with a file that Prosody takes, and with those that it passes over before.
    fn remark_on_files(&self, name: &str, found: &Found, report: &mut Report) {
        let instead = found.file.as_ref().map(|file| format!(": loading {} instead", file.path.display()));
        for passed_over in &found.passed_over {
            report.warning(format!(
                "{}: {passed_over}{}",
                self.by(name),
                instead.as_deref().unwrap_or_default()
            ));
        }
        if let Some(problem) = &found.problem {
            let text = format!("{}: {}", self.by(name), problem.what);
            match problem.is_fatal {
                true => report.mistake(Mistake::about(&text)),
                false => report.warning(text),
            }
        }
    }

    /// Takes a module's file, and then its libraries: a link to each that needs one, and what they need. `is_certain` says
    /// whether the module is there in any case.
    fn take(&mut self, module: &str, file: &File, is_certain: bool, report: &mut Report) {
        // Each with whether the module loads it in any case.
        let mut files = VecDeque::from([(file.clone(), true)]);
        while let Some((file, is_always)) = files.pop_front() {
            if let Some(name) = file.top.file_name().filter(|_| file.origin == Origin::Collection) {
                self.links.insert(name.to_owned(), file.top.clone());
            }
            if file.digest != 0 {
                self.fingerprints.push((file.path.clone(), file.digest));
            }
            let is_own = file.origin == Origin::Prosody;
            let source = if is_own && !self.reads_own { None } else { self.facts.modules.source(&file) };
            let Some(source) = source else { continue };
            self.follow(module, &source, is_certain, is_always);
            if !is_own {
                files.extend(self.libraries(module, &source, is_certain, is_always, report));
            }
        }
    }

    /// Notes which modules a file needs.
    fn follow(&mut self, module: &str, source: &ModuleSource, is_certain: bool, is_always: bool) {
        for need in source.modules.iter().filter(|need| need.name != module) {
            let is_conditional = need.is_conditional || !is_always;
            let reason = Reason::NeededBy { module: module.to_owned(), is_conditional };
            let queue = if is_certain && !is_conditional { &mut self.certain } else { &mut self.conditional };
            queue.push_back((need.name.clone(), reason));
            let needs = &mut self.modules[self.places[module]].needs;
            match needs.iter_mut().find(|other| other.name == need.name) {
                Some(other) => {
                    other.is_conditional &= is_conditional;
                    other.is_soft &= need.is_soft;
                }
                None => needs.push(Need { is_conditional, ..need.clone() }),
            }
        }
    }

    /// The libraries that a file loads, those of modules that were not taken yet, each with whether that is in any case.
    fn libraries(
        &mut self,
        module: &str,
        source: &ModuleSource,
        is_certain: bool,
        is_always: bool,
        report: &mut Report,
    ) -> Vec<(File, bool)> {
        let mut libraries = Vec::new();
        for library in &source.libraries {
            let is_always = is_always && !library.is_conditional;
            let found = self.facts.modules.library(module, &library.name);
            match &found.file {
                Some(file) => {
                    // What a module may load, it may load in any case elsewhere.
                    if self.taken.insert((module.to_owned(), file.path.clone(), is_always)) {
                        self.remark_on_files(module, &found, report);
                        libraries.push((file.clone(), is_always));
                    }
                }
                None if library.is_conditional => {}
                None => {
                    let needs = if is_always { "needs" } else { "may need" };
                    let mut why = format!(
                        "`{module}` {needs} its library {}.lib.lua, which is not in {}",
                        library.name,
                        self.searched()
                    );
                    found.passed_over.iter().for_each(|file| why.push_str(&format!("; {file}")));
                    why.push_str(&format!(": put it beside the module, or {}", self.way_out(module)));
                    self.wrong(module, &why, is_certain && is_always, report);
                }
            }
        }
        for library in source.lua_libraries.iter().filter(|library| !library.is_conditional) {
            let users = self.lua.entry(library.name.clone()).or_default();
            users.push((module.to_owned(), is_certain && is_always));
        }
        libraries
    }

    /// Says that a module is nowhere.
    fn missing(&self, name: &str, found: &Found, is_certain: bool, report: &mut Report) {
        let chain = self.chain(name);
        let Some(Reason::Asked { role, is_default, is_hidden, by }) =
            chain.last().map(|module| &module.reasons[0])
        else {
            return;
        };
        let is_asked = chain.len() == 1;
        if is_asked && *is_default {
            return;
        }
        if is_asked && *is_hidden {
            let (kind, _) = role.kind();
            let article = if kind.starts_with('a') { "an" } else { "a" };
            report.mistake(Mistake::about(&format!(
                "{by}: it names {article} {kind} that is not there: correct the name (its values may be secrets and are \
                 not shown)"
            )));
            return;
        }
        let (kind, prefix) = if is_asked { role.kind() } else { ("module", "") };
        let short = name.strip_prefix(prefix).unwrap_or(name);
        let there_is = if is_asked { "" } else { "there is " };
        let version = &self.facts.prosody.version;
        let why = if found.passed_over.is_empty() {
            let what_to_do = match is_asked {
                true => self.hint(short, prefix),
                false => format!("put it into a folder of PROSODY_PLUGIN_PATHS, or {}", self.way_out(name)),
            };
            format!("for Prosody {version} in {}; {what_to_do}", self.searched())
        } else {
            let reasons = found.passed_over.join("; ");
            format!("that Prosody {version} can load: {reasons}; replace it, or {}", self.way_out(name))
        };
        self.wrong(name, &format!("{there_is}no {kind} `{short}` {why}"), is_certain, report);
    }

    /// What to do where a module cannot be had.
    fn way_out(&self, name: &str) -> String {
        let chain = self.chain(name);
        match chain.last().map(|root| (&root.reasons[0], &root.name)) {
            Some((Reason::Asked { role, .. }, root)) => match role.kind() {
                (_, "") => format!("leave `{root}` out"),
                (kind, _) => format!("choose another {kind}"),
            },
            _ => "leave it out".to_owned(),
        }
    }

    /// Adds what is wrong with a module: a mistake, or where it is needed in some cases only a warning.
    fn wrong(&self, name: &str, why: &str, is_certain: bool, report: &mut Report) {
        let mut chain = String::new();
        for module in self.chain(name).iter().rev() {
            match (&module.reasons[0], chain.is_empty()) {
                (Reason::NeededBy { module: by, is_conditional }, is_first) => {
                    let needs = if *is_conditional { "may need" } else { "needs" };
                    let who = if is_first { format!("`{by}`") } else { ", which".to_owned() };
                    chain.push_str(&format!("{who} {needs} `{}`", module.name));
                }
                (Reason::Asked { .. }, _) => {}
            }
        }
        let joint = if chain.is_empty() { "" } else { ", and " };
        let text = format!("{}: {chain}{joint}{why}", self.by(name));
        if is_certain {
            report.mistake(Mistake::about(&text));
        } else {
            report.warning(text);
        }
    }

    /// A module, the one that needs it, and so on to the one that something asks for.
    fn chain(&self, name: &str) -> Vec<&Module> {
        let mut chain: Vec<&Module> = Vec::new();
        let mut next = self.places.get(name);
        while let Some(module) = next.map(|place| &self.modules[*place]) {
            chain.push(module);
            next = match &module.reasons[0] {
                Reason::NeededBy { module, .. } => self.places.get(module),
                Reason::Asked { .. } => None,
            };
        }
        chain
    }

    /// The setting that a module is there for in the end.
    fn by(&self, name: &str) -> &str {
        match self.chain(name).last().map(|module| &module.reasons[0]) {
            Some(Reason::Asked { by, .. }) => by,
            _ => THE_DEFAULT_SET,
        }
    }

    /// The folders in which modules were looked for.
    fn searched(&self) -> String {
        let folders = self.facts.modules.folders().filter(|(folder, _)| folder.is_dir());
        let folders = folders.map(|(folder, is_readable)| {
            // Prosody's own is written with a slash at its end.
            let folder: PathBuf = folder.components().collect();
            let remark = if is_readable { "" } else { " (which Prosody's user cannot read)" };
            format!("{}{remark}", folder.display())
        });
        folders.collect::<Vec<_>>().join(", ")
    }

    /// The names that are nearest to one that is nowhere, or what else to do.
    fn hint(&self, name: &str, prefix: &str) -> String {
        let all = self.facts.modules.names();
        let mut near: Vec<&str> = Vec::new();
        while near.len() < 3 {
            let others =
                all.iter().filter_map(|name| name.strip_prefix(prefix)).filter(|one| !near.contains(one));
            match nearest(name, others) {
                Some(one) => near.push(one),
                None => break,
            }
        }
        let near: Vec<String> = near.iter().map(|name| format!("`{name}`")).collect();
        match &near[..] {
            [] => "correct the name, or put the module into a folder of PROSODY_PLUGIN_PATHS".to_owned(),
            _ => format!("did you mean {}?", near.join(" or ")),
        }
    }

    fn find_missing_lua_libraries(&self, report: &mut Report) {
        let libraries: BTreeSet<&str> = self.lua.keys().map(String::as_str).collect();
        for library in self.facts.modules.missing_lua_libraries(&libraries) {
            let is_prosodys =
                ["prosody.", "util.", "net.", "core."].iter().any(|prefix| library.starts_with(prefix));
            let what = match is_prosodys {
                true => format!("`{library}`, which Prosody {} does not have: ", self.facts.prosody.version),
                false => format!(
                    "the Lua library `{library}`, which is not installed: install it in the image, or "
                ),
            };
            for (module, is_certain) in &self.lua[library] {
                let why = format!("`{module}` needs {what}{}", self.way_out(module));
                self.wrong(module, &why, *is_certain, report);
            }
        }
    }
}

/// Pairs that Prosody does not load together, on all hosts or on one.
fn find_conflicts(roots: &[(String, Reason)], settings: &Settings, hosts: &Hosts, report: &mut Report) {
    let asks = |wanted: &str, host: Option<&str>| {
        roots.iter().find_map(|(name, reason)| match reason {
            Reason::Asked { by, role: Role::Enabled, .. } if name == wanted => Some(by.clone()),
            Reason::Asked { by, role: Role::EnabledOn(on), .. } if name == wanted && host == Some(on) => {
                Some(by.clone())
            }
            _ => None,
        })
    };
    for (one, other) in [("vcard", "vcard_legacy"), ("pep_simple", "pep")] {
        if let (Some(one_by), Some(other_by)) = (asks(one, None), asks(other, None)) {
            let chosen = names(&settings.modules.modules_enabled);
            let is_chosen = chosen.contains(&one) && chosen.contains(&other);
            let what_to_do = match is_chosen {
                true => "leave one of them out".to_owned(),
                false => format!("set PROSODY_MODULES_DISABLED={other}, or leave {one} out"),
            };
            report.mistake(Mistake::new(
                &settings.variable("modules_enabled"),
                &format!("{one} ({one_by}) and {other} ({other_by}) cannot be loaded together: {what_to_do}"),
            ));
            continue;
        }
        for host in &hosts.virtual_hosts {
            let mut is_disabled = false;
            host.options.get("modules_disabled").iter().for_each(|list| {
                each_text(list, &mut |name, _| is_disabled |= name == one || name == other);
            });
            let on = Some(host.name.as_str());
            if let (Some(one_by), Some(other_by), false) = (asks(one, on), asks(other, on), is_disabled) {
                report.mistake(Mistake::new(
                    &settings.variable("virtual_hosts"),
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

/// Says which storage backends and authentication providers are loaded and not used.
fn find_unused_providers(roots: &[(String, Reason)], report: &mut Report) {
    for (name, reason) in roots {
        let Reason::Asked { by, role: Role::Enabled, is_default: false, is_hidden: false } = reason else {
            continue;
        };
        let (role, short, setting, default) =
            match (name.strip_prefix("auth_"), name.strip_prefix("storage_")) {
                (Some(short), _) => {
                    (Role::Authentication, short, "PROSODY_AUTHENTICATION", "internal_hashed")
                }
                (_, Some(short)) => (Role::Storage, short, "PROSODY_DEFAULT_STORAGE", "internal"),
                _ => continue,
            };
        let chosen: Vec<String> = roots
            .iter()
            .filter_map(|(name, reason)| match reason {
                Reason::Asked { by, role: other, is_hidden: false, .. } if *other == role => {
                    Some(format!("{} ({by})", name.strip_prefix(role.kind().1).unwrap_or(name)))
                }
                _ => None,
            })
            .collect();
        if roots.iter().any(|(other, reason)| {
            other == name && matches!(reason, Reason::Asked { role: other, .. } if *other == role)
        }) {
            continue;
        }
        let chosen = if chosen.is_empty() { format!("{default} (the default)") } else { several(&chosen) };
        report.notice(format!(
            "{by}: {name} is loaded and not used: the {} is {chosen}; {setting}={short} chooses it",
            role.kind().0
        ));
    }
}

/// Says what is disabled and needed all the same.
fn find_disabled_needs(modules: &[Module], settings: &Settings, hosts: &Hosts, report: &mut Report) {
    let enabled = names(&settings.modules.modules_enabled);
    let disabled = names(&settings.modules.modules_disabled);
    let everywhere = loaded(modules, |role| *role != Role::Available);
    // What is left out is loaded for a component on that component alone.
    let is_components = |host: &str| hosts.components.iter().any(|component| component.name == host);
    let on_virtual_hosts = loaded(modules, |role| match role {
        Role::Available | Role::Component(_) => false,
        Role::EnabledOn(host) => !is_components(host),
        _ => true,
    });
    for name in disabled.iter().filter(|name| !enabled.contains(name)) {
        let variable = settings.variable("modules_disabled");
        let is_left_out = is_only_left_out(name);
        let [certain, possible] = users(if is_left_out { &on_virtual_hosts } else { &everywhere }, name, &[]);
        if !certain.is_empty() {
            let users = several(&certain);
            report.warning(match is_left_out {
                true => format!("{variable}: {name} is loaded all the same, for it is needed by {users}: disable these too"),
                false => format!("{variable}: {name} is needed by {users}, which will not load: disable these too, or leave {name} enabled"),
            });
        }
        if !possible.is_empty() {
            let users = several(&possible);
            report.notice(match is_left_out {
                true => format!("{variable}: {name} may be loaded all the same, for it may be needed by {users}: disable these too"),
                false => format!("{variable}: {name} may be needed by {users}: disable these too, or leave {name} enabled"),
            });
        }
    }
    for host in &hosts.virtual_hosts {
        let mut off: Vec<String> = Vec::new();
        let list = host.options.get("modules_disabled");
        list.iter().for_each(|list| each_text(list, &mut |name, _| off.push(name.to_owned())));
        let is_here = |role: &Role| match role {
            Role::Enabled => true,
            Role::EnabledOn(on) => *on == host.name,
            _ => false,
        };
        let loaded = loaded(modules, is_here);
        for name in &off {
            let variable = settings.variable("virtual_hosts");
            let [certain, possible] = users(&loaded, name, &off);
            if !certain.is_empty() {
                report.warning(format!(
                    "{variable}: on {}, {name} is disabled and needed by {}, which will not load there: disable these too",
                    host.name,
                    several(&certain)
                ));
            }
            if !possible.is_empty() {
                report.notice(format!(
                    "{variable}: on {}, {name} is disabled and may be needed by {}: disable these too",
                    host.name,
                    several(&possible)
                ));
            }
        }
    }
}

/// The modules that are loaded where these roles are taken, and those that these need in any case.
fn loaded(modules: &[Module], is_asked: impl Fn(&Role) -> bool) -> Vec<&Module> {
    let mut names: HashSet<&str> = HashSet::new();
    loop {
        let before = names.len();
        for module in modules {
            let is_loaded = module.reasons.iter().any(|reason| match reason {
                Reason::Asked { role, .. } => is_asked(role),
                Reason::NeededBy { module, is_conditional } => {
                    !is_conditional && names.contains(module.as_str())
                }
            });
            if is_loaded {
                names.insert(&module.name);
            }
        }
        if names.len() == before {
            return modules.iter().filter(|module| names.contains(module.name.as_str())).collect();
        }
    }
}

/// Those of the modules that need one in any case, and those that need it in some; those in `off` are none of them.
fn users<'a>(modules: &[&'a Module], name: &str, off: &[String]) -> [Vec<&'a str>; 2] {
    let mut users = [Vec::new(), Vec::new()];
    for module in modules.iter().filter(|module| !off.contains(&module.name)) {
        if let Some(need) = module.needs.iter().find(|need| need.name == name && !need.is_soft) {
            users[usize::from(need.is_conditional)].push(module.name.as_str());
        }
    }
    users
}
