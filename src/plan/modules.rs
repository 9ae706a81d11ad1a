//! All modules of a server, with their files and reasons: requested modules and their dependencies.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::Link;
use crate::facts::prosody::Version;
use crate::intent::hosts::{Component, ENABLED, ServedHosts};
use crate::intent::modules::{
    E2E_POLICY, E2ePolicy, Enabled, ModuleRequest, Modules, Reason, Role, THE_DEFAULT_SET, is_only_left_out,
};
use crate::layout::MODULES_DIR;
use crate::lua::Value;
use crate::report::{Report, SettingError};
use crate::survey::modules::closure::Findings;
use crate::survey::modules::source::{ModuleSource, Need};
use crate::survey::modules::{File, Found, ModuleOrigin};
use crate::text::{nearest, several};

/// All modules, and the links that they need.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resolution {
    /// In the order of their discovery: requested modules, then their dependencies.
    pub modules: Vec<Module>,
    /// Links into the collection.
    pub links: Vec<Link>,
    /// The digest of each file outside of Prosody.
    pub fingerprints: Vec<(PathBuf, u64)>,
}

/// A loaded or available module.
#[derive(Debug, Clone, PartialEq)]
pub struct Module {
    /// Its name, without `mod_`.
    pub name: String,
    /// Its file. `None` if it was not found, which is no error for a conditional dependency.
    pub file: Option<File>,
    /// The reasons for it, each once.
    pub reasons: Vec<Reason>,
    /// Its dependencies, if its file was read.
    pub needs: Vec<Need>,
}

/// Decides where to load the modules that are enabled for all hosts. Modules for rooms move to `muc` components, and
/// modules that serve a component load only there. Returns the remaining modules, and the updated requests.
pub fn place(
    wanted: &Modules,
    found: &Findings,
    hosts: &mut ServedHosts,
    report: &mut Report,
) -> (Vec<String>, Vec<ModuleRequest>) {
    let mut requests = wanted.requests.clone();
    let mut placement = Placement { wanted, found, hosts, requests: &mut requests };
    let stay = wanted.enabled.iter().filter(|module| placement.stays(module, report));
    let enabled = stay.map(|module| module.name.clone()).collect();
    (enabled, requests)
}

/// Resolves the requests to files and dependencies. Errors and warnings go to the report.
pub fn resolve(
    wanted: &Modules,
    requests: &[ModuleRequest],
    found: &Findings,
    version: &Version,
    hosts: &ServedHosts,
    report: &mut Report,
) -> Resolution {
    find_unused_providers(requests, report);
    let mut walk = Walk::new(found, version);
    for ModuleRequest { name, reason } in requests {
        // Modules not chosen by name are Prosody's own and exist, unless a custom module replaces one.
        if found.has_custom || wanted.reads_own || reason.is_chosen() {
            walk.certain.push_back((name.clone(), reason.clone()));
        }
    }
    walk.run(report);
    walk.find_missing_lua_libraries(report);
    if wanted.reads_own {
        find_disabled_needs(&walk.modules, wanted, hosts, report);
    }
    found.problems.iter().for_each(|problem| report.warning(problem.clone()));
    let path = |name: OsString| Path::new(MODULES_DIR).join(name);
    let links = walk.links.into_iter().map(|(name, target)| Link { path: path(name), target }).collect();
    Resolution { modules: walk.modules, links, fingerprints: walk.fingerprints }
}

/// Modules that serve a component. On a virtual host, they do nothing or fail.
const COMPONENTS: &[&str] = &["muc", "http_file_share", "proxy65", "pubsub"];

/// The inputs and results of [`place`].
struct Placement<'a> {
    wanted: &'a Modules,
    found: &'a Findings,
    hosts: &'a mut ServedHosts,
    requests: &'a mut Vec<ModuleRequest>,
}

impl Placement<'_> {
    /// Whether a module stays in the list for all hosts.
    fn stays(&mut self, module: &Enabled, report: &mut Report) -> bool {
        let (name, variable) = (module.name.as_str(), &self.wanted.enabled_by);
        let policy = self.wanted.e2e_policy.as_ref().filter(|policy| {
            name == E2E_POLICY && module.by == policy.variable && !self.found.has(E2E_POLICY)
        });
        if let Some(policy) = policy {
            report_missing_policy_module(policy, report);
        } else if COMPONENTS.contains(&name) {
            match self.hosts.components.iter().find(|component| component.module.as_deref() == Some(name)) {
                Some(component) => {
                    report.info(format!("{variable}: {name} is there already, it serves {}", component.name));
                }
                None => report.setting_warning(format!(
                    "{variable}: {name} is left out: it serves an address of its own; write HOST:{name} into \
                     PROSODY_COMPONENTS, beside the other components that you want"
                )),
            }
        } else if self.serves_rooms(name) {
            let addresses = self.enable_for_rooms(module);
            match &addresses[..] {
                [] => report.setting_warning(format!(
                    "{variable}: {name} is left out: it is for rooms, and there are none; write HOST:muc into \
                     PROSODY_COMPONENTS, beside the other components that you want"
                )),
                _ => report
                    .info(format!("{variable}: {name} is for rooms, and loaded on {}", several(&addresses))),
            }
        } else {
            return true;
        }
        // Requests in PROSODY_OPTIONS stay as written.
        self.requests.retain(|request| {
            let is_for_all =
                matches!(request.reason, Reason::Asked { role: Role::Enabled, is_hidden: false, .. });
            request.name != name || !is_for_all
        });
        false
    }

    /// Enables a module on every `muc` component. Returns their addresses.
    fn enable_for_rooms(&mut self, module: &Enabled) -> Vec<String> {
        let mut addresses = Vec::new();
        let rooms = |component: &&mut Component| component.module.as_deref() == Some("muc");
        for rooms in self.hosts.components.iter_mut().filter(rooms) {
            addresses.push(rooms.name.clone());
            let enabled = rooms.options.get(ENABLED).map(Value::items).unwrap_or_default();
            if enabled.iter().any(|one| one.as_str() == Some(&module.name)) {
                continue;
            }
            let enabled = enabled.iter().cloned().chain([Value::from(module.name.as_str())]).collect();
            rooms.options.insert(ENABLED.to_owned(), enabled);
            let is_of_rooms = |request: &ModuleRequest| match &request.reason {
                Reason::Asked { role: Role::Component(host) | Role::EnabledOn(host), .. } => {
                    *host == rooms.name
                }
                _ => false,
            };
            let last = self.requests.iter().rposition(is_of_rooms);
            let place = last.map_or(self.requests.len(), |last| last + 1);
            let reason = Reason::Asked {
                by: module.by.clone(),
                role: Role::EnabledOn(rooms.name.clone()),
                is_default: false,
                is_hidden: false,
            };
            self.requests.insert(place, ModuleRequest { name: module.name.clone(), reason });
        }
        addresses
    }

    /// Whether a module is for rooms: by its name, or because it depends on `mod_muc`, which no virtual host can load.
    fn serves_rooms(&self, name: &str) -> bool {
        if name.starts_with("muc_") {
            return true;
        }
        let file = self.found.module(name).and_then(|found| found.file.as_ref());
        let source =
            file.filter(|file| file.origin != ModuleOrigin::Prosody).and_then(|file| file.source.as_ref());
        source.is_some_and(|source| {
            source.modules.iter().any(|need| need.name == "muc" && !need.is_conditional)
        })
    }
}

/// Reports that the policy's module is missing. This is an error if the policy requires encryption.
fn report_missing_policy_module(policy: &E2ePolicy, report: &mut Report) {
    let why = "there is no module `e2e_policy`, and without it unencrypted messages are delivered: put it into a folder of \
               PROSODY_PLUGIN_PATHS";
    match policy.is_required {
        false => report.setting_warning(format!("{}: {why}", policy.variable)),
        true => report.error(SettingError::new(&policy.variable, &format!("{why}, or say `none`"))),
    }
}

/// The walk from requested modules to their dependencies.
struct Walk<'a> {
    found: &'a Findings,
    version: &'a Version,
    /// Unconditional dependencies. They come before conditional ones, so that a module's first reason is the strongest.
    certain: VecDeque<(String, Reason)>,
    conditional: VecDeque<(String, Reason)>,
    modules: Vec<Module>,
    places: HashMap<String, usize>,
    /// The visited module libraries, with the module, and whether it loads the library unconditionally.
    visited: HashSet<(String, PathBuf, bool)>,
    /// The Lua libraries of modules outside of Prosody, with the module, and whether it certainly loads the library.
    lua: BTreeMap<String, Vec<(String, bool)>>,
    links: BTreeMap<OsString, PathBuf>,
    fingerprints: Vec<(PathBuf, u64)>,
}

impl<'a> Walk<'a> {
    fn new(found: &'a Findings, version: &'a Version) -> Self {
        Self {
            found,
            version,
            certain: VecDeque::new(),
            conditional: VecDeque::new(),
            modules: Vec::new(),
            places: HashMap::new(),
            visited: HashSet::new(),
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
        let found = self.found.module(&name).cloned().unwrap_or_default();
        self.places.insert(name.clone(), self.modules.len());
        let file = found.file.clone();
        self.modules.push(Module { name: name.clone(), file, reasons: vec![reason], needs: Vec::new() });
        match &found.file {
            Some(file) => {
                self.report_module(&name, &found, file, report);
                self.add_files(&name, file, is_certain, report);
            }
            None => self.report_missing(&name, &found, is_certain, report),
        }
    }

    /// Reports problems of a module's files, and a custom module in place of another.
    fn report_module(&self, name: &str, found: &Found, file: &File, report: &mut Report) {
        let path = file.path.display();
        self.report_files(name, found, report);
        if file.origin == ModuleOrigin::User {
            if let Some(other) = self.found.behind_users(name) {
                let other = match other {
                    ModuleOrigin::Collection => "the one in the collection",
                    ModuleOrigin::Prosody | ModuleOrigin::User => "Prosody's own",
                };
                report.info(format!("The module {name} is {path}, and not {other}"));
            }
        }
    }

    /// Reports problems of the loaded file, and of those that Prosody passes over before it.
    fn report_files(&self, name: &str, found: &Found, report: &mut Report) {
        let instead = found.file.as_ref().map(|file| format!(": loading {} instead", file.path.display()));
        for passed_over in &found.passed_over {
            report.setting_warning(format!(
                "{}: {passed_over}{}",
                self.by(name),
                instead.as_deref().unwrap_or_default()
            ));
        }
        if let Some(problem) = &found.problem {
            let text = format!("{}: {}", self.by(name), problem.what);
            match problem.is_fatal {
                true => report.error(SettingError::about(&text)),
                false => report.setting_warning(text),
            }
        }
    }

    /// Adds the links, digests and dependencies of a module's file and its libraries. With `is_certain`, the module is
    /// certainly loaded.
    fn add_files(&mut self, module: &str, file: &File, is_certain: bool, report: &mut Report) {
        // With each file, whether the module loads it unconditionally.
        let mut files = VecDeque::from([(file.clone(), true)]);
        while let Some((file, is_always)) = files.pop_front() {
            if let Some(name) = file.top.file_name().filter(|_| file.origin == ModuleOrigin::Collection) {
                self.links.insert(name.to_owned(), file.top.clone());
            }
            if file.digest != 0 {
                self.fingerprints.push((file.path.clone(), file.digest));
            }
            let is_own = file.origin == ModuleOrigin::Prosody;
            let Some(source) = file.source.clone() else { continue };
            self.add_dependencies(module, &source, is_certain, is_always);
            if !is_own {
                files.extend(self.libraries(module, &source, is_certain, is_always, report));
            }
        }
    }

    /// Adds the modules that a file depends on.
    fn add_dependencies(&mut self, module: &str, source: &ModuleSource, is_certain: bool, is_always: bool) {
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

    /// The unvisited module libraries of a file, and whether the module loads them unconditionally. Adds the file's Lua
    /// libraries to `self.lua`.
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
            let found = self.found.library(module, &library.name).cloned().unwrap_or_default();
            match &found.file {
                Some(file) => {
                    // A library that one file loads conditionally, another may load unconditionally.
                    if self.visited.insert((module.to_owned(), file.path.clone(), is_always)) {
                        self.report_files(module, &found, report);
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
                    why.push_str(&format!(": put it beside the module, or {}", self.advice(module)));
                    self.report_problem(module, &why, is_certain && is_always, report);
                }
            }
        }
        for library in source.lua_libraries.iter().filter(|library| !library.is_conditional) {
            let users = self.lua.entry(library.name.clone()).or_default();
            users.push((module.to_owned(), is_certain && is_always));
        }
        libraries
    }

    /// Reports a module that was not found.
    fn report_missing(&self, name: &str, found: &Found, is_certain: bool, report: &mut Report) {
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
            report.error(SettingError::about(&format!(
                "{by}: it names {article} {kind} that is not there: correct the name (its values may be secrets and are \
                 not shown)"
            )));
            return;
        }
        let (kind, prefix) = if is_asked { role.kind() } else { ("module", "") };
        let short = name.strip_prefix(prefix).unwrap_or(name);
        let there_is = if is_asked { "" } else { "there is " };
        let version = self.version;
        let why = if found.passed_over.is_empty() {
            let what_to_do = match is_asked {
                true => self.hint(short, prefix),
                false => format!("put it into a folder of PROSODY_PLUGIN_PATHS, or {}", self.advice(name)),
            };
            format!("for Prosody {version} in {}; {what_to_do}", self.searched())
        } else {
            let reasons = found.passed_over.join("; ");
            format!("that Prosody {version} can load: {reasons}; replace it, or {}", self.advice(name))
        };
        self.report_problem(name, &format!("{there_is}no {kind} `{short}` {why}"), is_certain, report);
    }

    /// The advice for a module that cannot be provided.
    fn advice(&self, name: &str) -> String {
        let chain = self.chain(name);
        match chain.last().map(|root| (&root.reasons[0], &root.name)) {
            Some((Reason::Asked { role, .. }, root)) => match role.kind() {
                (_, "") => format!("leave `{root}` out"),
                (kind, _) => format!("choose another {kind}"),
            },
            _ => "leave it out".to_owned(),
        }
    }

    /// Reports a problem of a module: an error if the module is certainly loaded, or else a warning.
    fn report_problem(&self, name: &str, why: &str, is_certain: bool, report: &mut Report) {
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
            report.error(SettingError::about(&text));
        } else {
            report.setting_warning(text);
        }
    }

    /// The module, the module that depends on it, and so on up to a requested module.
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

    /// The setting that requests the module, directly or through others.
    fn by(&self, name: &str) -> &str {
        match self.chain(name).last().map(|module| &module.reasons[0]) {
            Some(Reason::Asked { by, .. }) => by,
            _ => THE_DEFAULT_SET,
        }
    }

    /// The searched folders.
    fn searched(&self) -> String {
        let folders = self.found.folders.iter().map(|folder| {
            let note = if folder.is_readable { "" } else { " (which Prosody's user cannot read)" };
            format!("{}{note}", folder.path.display())
        });
        folders.collect::<Vec<_>>().join(", ")
    }

    /// Suggests similar names for a missing module, or another solution.
    fn hint(&self, name: &str, prefix: &str) -> String {
        let all = &self.found.names;
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
        for (library, users) in &self.lua {
            if !self.found.missing_lua_libraries.contains(library) {
                continue;
            }
            let is_prosodys =
                ["prosody.", "util.", "net.", "core."].iter().any(|prefix| library.starts_with(prefix));
            let what = match is_prosodys {
                true => format!("`{library}`, which Prosody {} does not have: ", self.version),
                false => format!(
                    "the Lua library `{library}`, which is not installed: install it in the image, or "
                ),
            };
            for (module, is_certain) in users {
                let why = format!("`{module}` needs {what}{}", self.advice(module));
                self.report_problem(module, &why, *is_certain, report);
            }
        }
    }
}

/// Warns about storage backends and authentication providers that are loaded but unused.
fn find_unused_providers(requests: &[ModuleRequest], report: &mut Report) {
    for ModuleRequest { name, reason } in requests {
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
        let chosen: Vec<String> = requests
            .iter()
            .filter_map(|ModuleRequest { name, reason }| match reason {
                Reason::Asked { by, role: other, is_hidden: false, .. } if *other == role => {
                    Some(format!("{} ({by})", name.strip_prefix(role.kind().1).unwrap_or(name)))
                }
                _ => None,
            })
            .collect();
        if requests.iter().any(|ModuleRequest { name: other, reason }| {
            other == name && matches!(reason, Reason::Asked { role: other, .. } if *other == role)
        }) {
            continue;
        }
        let chosen = if chosen.is_empty() { format!("{default} (the default)") } else { several(&chosen) };
        report.warning(format!(
            "{by}: {name} is loaded and not used: the {} is {chosen}; {setting}={short} chooses it",
            role.kind().0
        ));
    }
}

/// Warns about disabled modules that other modules depend on.
fn find_disabled_needs(modules: &[Module], wanted: &Modules, hosts: &ServedHosts, report: &mut Report) {
    let everywhere = loaded(modules, |role| *role != Role::Available);
    // Modules that are only left out of the list load for a component on that component alone.
    let is_component = |host: &str| hosts.components.iter().any(|component| component.name == host);
    let on_virtual_hosts = loaded(modules, |role| match role {
        Role::Available | Role::Component(_) => false,
        Role::EnabledOn(host) => !is_component(host),
        _ => true,
    });
    for name in &wanted.disabled {
        let variable = &wanted.disabled_by;
        let is_left_out = is_only_left_out(name);
        let [certain, possible] = users(if is_left_out { &on_virtual_hosts } else { &everywhere }, name, &[]);
        if !certain.is_empty() {
            let users = several(&certain);
            report.setting_warning(match is_left_out {
                true => format!("{variable}: {name} is loaded all the same, for it is needed by {users}: disable these too"),
                false => format!("{variable}: {name} is needed by {users}, which will not load: disable these too, or leave {name} enabled"),
            });
        }
        if !possible.is_empty() {
            let users = several(&possible);
            report.warning(match is_left_out {
                true => format!("{variable}: {name} may be loaded all the same, for it may be needed by {users}: disable these too"),
                false => format!("{variable}: {name} may be needed by {users}: disable these too, or leave {name} enabled"),
            });
        }
    }
    for host in &hosts.virtual_hosts {
        let mut off: Vec<String> = Vec::new();
        let list = host.options.get("modules_disabled");
        list.iter().for_each(|list| list.each_text(&mut |name, _| off.push(name.to_owned())));
        let is_here = |role: &Role| match role {
            Role::Enabled => true,
            Role::EnabledOn(on) => *on == host.name,
            _ => false,
        };
        let loaded = loaded(modules, is_here);
        for name in &off {
            let variable = &wanted.hosts_by;
            let [certain, possible] = users(&loaded, name, &off);
            if !certain.is_empty() {
                report.setting_warning(format!(
                    "{variable}: on {}, {name} is disabled and needed by {}, which will not load there: disable these too",
                    host.name,
                    several(&certain)
                ));
            }
            if !possible.is_empty() {
                report.warning(format!(
                    "{variable}: on {}, {name} is disabled and may be needed by {}: disable these too",
                    host.name,
                    several(&possible)
                ));
            }
        }
    }
}

/// The modules that are requested with matching roles, and their unconditional dependencies.
fn loaded(modules: &[Module], is_match: impl Fn(&Role) -> bool) -> Vec<&Module> {
    let mut names: HashSet<&str> = HashSet::new();
    loop {
        let before = names.len();
        for module in modules {
            let is_loaded = module.reasons.iter().any(|reason| match reason {
                Reason::Asked { role, .. } => is_match(role),
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

/// The modules that depend on `name` unconditionally, and those that do so conditionally, without those in `off`.
fn users<'a>(modules: &[&'a Module], name: &str, off: &[String]) -> [Vec<&'a str>; 2] {
    let mut users = [Vec::new(), Vec::new()];
    for module in modules.iter().filter(|module| !off.contains(&module.name)) {
        if let Some(need) = module.needs.iter().find(|need| need.name == name && !need.is_soft) {
            users[usize::from(need.is_conditional)].push(module.name.as_str());
        }
    }
    users
}
