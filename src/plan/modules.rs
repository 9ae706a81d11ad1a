//! All modules of a server, with their files and reasons: requested modules and their dependencies.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::Link;
use crate::facts::prosody::Version;
use crate::intent::hosts::{ENABLED, Host, ServedHosts};
use crate::intent::modules::{
    E2E_POLICY, E2ePolicy, ModuleRequest, Modules, Role, THE_DEFAULT_SET, is_in_default_set, names_in,
};
use crate::layout::MODULES_DIR;
use crate::lua::Value;
use crate::report::{Report, SettingError};
use crate::survey::modules::closure::{Findings, FoundModule};
use crate::survey::modules::source::Need;
use crate::survey::modules::{File, Found, ModuleOrigin};
use crate::text::{Advice, MOST_HINTS, grouped, nearest_few, several};

/// A message shows at most this many needs on the way from a requested module to another.
const LONGEST_CHAIN: usize = 10;

/// All modules, and the links that they need.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resolution {
    /// In the order of their discovery: requested modules, then their dependencies.
    pub modules: Vec<Module>,
    pub links: Vec<Link>,
    /// The digest of each file outside of Prosody.
    pub fingerprints: Vec<(PathBuf, u64)>,
}

/// A loaded or available module. It is requested or needed, or both.
#[derive(Debug, Clone, PartialEq)]
pub struct Module {
    /// Its name, without `mod_`.
    pub name: String,
    /// Its file. `None` if it was not found, which is no error for a conditional dependency.
    pub file: Option<File>,
    pub requests: Vec<ModuleRequest>,
    /// The modules that depend on it, and whether each dependency is conditional.
    pub needed_by: Vec<(String, bool)>,
    /// Its dependencies, if its file was read.
    pub needs: Vec<Need>,
}

/// Decides where to load the modules that are enabled for all hosts. Modules for rooms move to `muc` components, and
/// modules that serve a component load only there. Returns the remaining modules, and the updated requests.
pub fn place(
    wanted: &Modules,
    found: &Findings,
    version: &Version,
    hosts: &mut ServedHosts,
    report: &mut Report,
) -> (Vec<String>, Vec<ModuleRequest>) {
    let is_rooms = |component: &&Host| component.module.as_deref() == Some("muc");
    let rooms: Vec<String> = hosts.components.iter().filter(is_rooms).map(|host| host.name.clone()).collect();
    let variable = &wanted.enabled_by;
    let mut for_rooms: Vec<&ModuleRequest> = Vec::new();
    let (mut for_all, mut moved) = (Vec::new(), HashSet::new());
    let left_out = leave_out(wanted, found, version, report);
    for module in &wanted.enabled {
        let name = module.name.as_str();
        let policy = wanted.e2e_policy.as_ref().filter(|policy| {
            let is_found = || found.module(name).is_some_and(|module| module.file().is_some());
            name == E2E_POLICY && module.by == policy.variable && !is_found()
        });
        if left_out.contains(name) {
            // It has its warning.
        } else if let Some(E2ePolicy { variable, is_required }) = policy {
            let why = advice!(
                "there is no module `e2e_policy`, and without it unencrypted messages are delivered: put it into a \
                 folder of PROSODY_PLUGIN_PATHS"
            );
            match is_required {
                false => report.setting_warning(format!("{variable}: {why}")),
                true => report.error(SettingError::new(variable, &advice!("{why}, or say `none`"))),
            }
        } else if COMPONENTS.contains(&name) {
            match hosts.components.iter().find(|component| component.module.as_deref() == Some(name)) {
                Some(component) => {
                    report
                        .info(format!("{variable}: {name} is loaded already: it serves {}", component.name));
                }
                None => report.setting_warning(advice!(
                    "{variable}: {name} is left out: it serves an address of its own; write HOST:{name} into \
                     PROSODY_COMPONENTS, beside the other components that you want"
                )),
            }
        } else if serves_rooms(found, name) {
            match &rooms[..] {
                [] => report.setting_warning(advice!(
                    "{variable}: {name} is left out: it is for rooms, and there are none; write HOST:muc into \
                     PROSODY_COMPONENTS, beside the other components that you want"
                )),
                _ => report.info(format!("{variable}: {name} is for rooms, and loaded on {}", several(&rooms))),
            }
            for_rooms.push(module);
        } else {
            for_all.push(name.to_owned());
            continue;
        }
        moved.insert((name, module.by.as_str()));
    }
    // Requests in PROSODY_OPTIONS stay as written.
    let stays = |request: &&ModuleRequest| {
        request.role != Role::Enabled || !moved.contains(&(request.name.as_str(), request.by.as_str()))
    };
    let mut requests = wanted.requests.iter().filter(stays).cloned().collect();
    for rooms in hosts.components.iter_mut().filter(|component| is_rooms(&&**component)) {
        enable(&for_rooms, rooms, &mut requests);
    }
    (for_all, requests)
}

/// The modules of features that cannot be loaded. Each gets a warning.
fn leave_out<'a>(
    wanted: &'a Modules,
    found: &Findings,
    version: &Version,
    report: &mut Report,
) -> HashSet<&'a str> {
    let mut left_out = HashSet::new();
    // By the feature, modules with the missing ones that they need.
    let mut lacking = Vec::new();
    for module in wanted.requests.iter().filter(|module| module.feature.is_some()) {
        let (by, name) = (module.by.as_str(), module.name.as_str());
        let reasons = unusable_reasons(name, found, version);
        if reasons.is_empty() {
            continue;
        }
        left_out.insert(name);
        let closure = Closure::of(std::slice::from_ref(module), found, version);
        let certain = closure.modules.into_iter().take(closure.certain);
        let missing = certain.filter(|module| module.file.is_none()).map(|module| module.name);
        match missing.collect::<Vec<String>>() {
            missing if missing.is_empty() => {
                report.setting_warning(format!("{by}: {name} left out: {}", reasons.join("; ")));
            }
            missing => lacking.push((by, (name, missing))),
        }
    }
    for (by, modules) in grouped(lacking) {
        let (modules, missing): (Vec<&str>, Vec<Vec<String>>) = modules.into_iter().unzip();
        let mut seen = HashSet::new();
        let missing: Vec<String> =
            missing.into_iter().flatten().filter(|name| seen.insert(name.clone())).collect();
        report.setting_warning(advice!(
            "{by}: {} left out, because Prosody {version} has no {} in {}: put what is missing into a folder of \
             PROSODY_PLUGIN_PATHS",
            several(&modules),
            several(&missing),
            searched(found)
        ));
    }
    left_out
}

fn enable(modules: &[&ModuleRequest], component: &mut Host, requests: &mut Vec<ModuleRequest>) {
    let enabled = component.options.get(ENABLED).map(Value::items).unwrap_or_default();
    let names: HashSet<&str> = enabled.iter().filter_map(Value::as_str).collect();
    let modules = modules.iter().filter(|module| !names.contains(module.name.as_str()));
    let host = &component.name;
    let added: Vec<ModuleRequest> = modules
        .map(|module| ModuleRequest::new(&module.name, &module.by, Role::EnabledOn(host.clone())))
        .collect();
    if added.is_empty() {
        return;
    }
    let values = added.iter().map(|request| Value::from(request.name.as_str()));
    let enabled = enabled.iter().cloned().chain(values).collect();
    let is_here = |request: &ModuleRequest| matches!(&request.role, Role::Component(on) | Role::EnabledOn(on) if on == host);
    let place = requests.iter().rposition(is_here).map_or(requests.len(), |last| last + 1);
    requests.splice(place..place, added);
    component.options.insert(ENABLED.to_owned(), enabled);
}

/// Modules that serve a component. On a virtual host, they do nothing or fail.
const COMPONENTS: &[&str] = &["muc", "http_file_share", "proxy65", "pubsub"];

/// Whether a module is for rooms: by its name, or because it depends on `mod_muc`, which no virtual host can load.
fn serves_rooms(found: &Findings, name: &str) -> bool {
    let needs_rooms = |module: &FoundModule| {
        module.file().is_some_and(|file| file.origin != ModuleOrigin::Prosody)
            && module.needs.iter().any(|need| need.name == "muc" && !need.is_conditional)
    };
    name.starts_with("muc_") || found.module(name).is_some_and(needs_rooms)
}

/// The reasons why Prosody could not load a module, if there are any: the errors of a start that enables it.
pub fn unusable_reasons(name: &str, found: &Findings, version: &Version) -> Vec<String> {
    let request = [ModuleRequest::new(name, "", Role::Enabled)];
    let closure = Closure::of(&request, found, version);
    let mut report = Report::default();
    (0..closure.modules.len()).for_each(|place| closure.report_module(place, &mut report));
    closure.report_missing_lua_libraries(&mut report);
    report.errors().iter().map(|error| error.to_string().trim_start_matches(": ").to_owned()).collect()
}

/// What to do about a module that guides still name. Prosody's change log and the README of each module say so.
fn former(name: &str, is_13: bool) -> Option<Advice> {
    Some(match name {
        "http_upload" => advice!(
            "it is `http_file_share` now: leave it out; PROSODY_DOMAIN serves that, or HOST:http_file_share in \
             PROSODY_COMPONENTS"
        ),
        "vcard_muc" if is_13 => advice!("it is built into `muc` since 13.0: leave it out"),
        "mam_muc" => advice!("it is `muc_mam` since 0.11: correct the name"),
        "pep_vcard_avatar" => {
            advice!("`vcard_legacy`, of the default set, does this since 0.11: leave it out")
        }
        "profile" => {
            advice!("`vcard4` and `vcard_legacy`, of the default set, do this since 0.11: leave it out")
        }
        "bookmarks2" => advice!("it is `bookmarks`, of the default set, since 0.12: leave it out"),
        "privacy" => {
            advice!("it is gone since 0.10: leave it out; `blocklist`, of the default set, blocks contacts")
        }
        "compression" => advice!("it is gone since 0.10: leave it out"),
        _ => return None,
    })
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
    let closure = Closure::of(requests, found, version);
    for place in 0..closure.modules.len() {
        closure.report_module(place, report);
    }
    closure.report_missing_lua_libraries(report);
    if wanted.reads_prosodys_modules {
        check_disabled(&closure, wanted, hosts, report);
    }
    found.problems.iter().for_each(|problem| report.warning(problem.clone()));
    let modules = closure.modules.iter().filter_map(|module| found.module(&module.name));
    let files: Vec<&File> = modules.flat_map(FoundModule::files).collect();
    let in_collection = files.iter().filter(|file| file.origin == ModuleOrigin::Collection);
    let targets: BTreeMap<&OsStr, &PathBuf> =
        in_collection.filter_map(|file| Some((file.top.file_name()?, &file.top))).collect();
    let link = |(name, target): (_, &PathBuf)| Link {
        path: Path::new(MODULES_DIR).join(name),
        target: target.clone(),
    };
    let with_digest = files.iter().filter(|file| file.digest != 0);
    Resolution {
        links: targets.into_iter().map(link).collect(),
        fingerprints: with_digest.map(|file| (file.path.clone(), file.digest)).collect(),
        modules: closure.modules,
    }
}

/// The requested modules and, transitively, their dependencies.
struct Closure<'a> {
    found: &'a Findings,
    version: &'a Version,
    modules: Vec<Module>,
    places: HashMap<&'a str, usize>,
    /// For each module, the place of the requested module that it belongs to.
    roots: Vec<usize>,
    /// The number of modules that are certainly loaded. They come before those that only conditional dependencies need,
    /// so that a module's first reason is the strongest.
    certain: usize,
    /// How many more missing modules get similar names.
    hints: Cell<usize>,
}

impl<'a> Closure<'a> {
    fn of(requests: &'a [ModuleRequest], found: &'a Findings, version: &'a Version) -> Self {
        let (modules, places, roots) = (Vec::new(), HashMap::new(), Vec::new());
        let hints = Cell::new(MOST_HINTS);
        let mut closure = Self { found, version, modules, places, roots, certain: 0, hints };
        let mut seen = HashSet::new();
        for request in requests.iter().filter(|request| seen.insert(*request)) {
            let place = closure.add(&request.name, None);
            closure.modules[place].requests.push(request.clone());
        }
        let mut conditional = Vec::new();
        closure.follow(0, |by, need| {
            if need.is_conditional {
                conditional.push((by, need));
            }
            !need.is_conditional
        });
        closure.certain = closure.modules.len();
        conditional.into_iter().for_each(|(by, need)| closure.add_need(by, need));
        closure.follow(closure.certain, |_, _| true);
        closure
    }

    /// Adds the dependencies that `is_wanted` of the modules from `first` on, including those that it adds.
    fn follow(&mut self, first: usize, mut is_wanted: impl FnMut(usize, &'a Need) -> bool) {
        let mut place = first;
        while let Some(module) = self.modules.get(place) {
            let found = self.found.module(&module.name);
            for need in found.map(|found| &found.needs[..]).unwrap_or_default() {
                if is_wanted(place, need) {
                    self.add_need(place, need);
                }
            }
            place += 1;
        }
    }

    fn add_need(&mut self, by: usize, need: &'a Need) {
        let place = self.add(&need.name, Some(self.roots[by]));
        let by = self.modules[by].name.clone();
        self.modules[place].needed_by.push((by, need.is_conditional));
    }

    /// The place of a module, which is added if it is new. `root` is given for a dependency.
    fn add(&mut self, name: &'a str, root: Option<usize>) -> usize {
        let new = self.modules.len();
        let place = *self.places.entry(name).or_insert(new);
        if place == new {
            let found = self.found.module(name);
            self.modules.push(Module {
                name: name.to_owned(),
                file: found.and_then(FoundModule::file).cloned(),
                requests: Vec::new(),
                needed_by: Vec::new(),
                needs: found.map(|found| found.needs.clone()).unwrap_or_default(),
            });
            self.roots.push(root.unwrap_or(new));
        }
        place
    }

    /// The request for a module, directly or through others.
    fn request(&self, place: usize) -> Option<&ModuleRequest> {
        self.modules[self.roots[place]].requests.first()
    }

    /// The setting of that request.
    fn by(&self, place: usize) -> &str {
        self.request(place).map_or(THE_DEFAULT_SET, |request| &request.by)
    }

    /// Reports problems of a module's files, missing files, and a custom module in place of another.
    fn report_module(&self, place: usize, report: &mut Report) {
        let name = &self.modules[place].name;
        let Some(module) = self.found.module(name) else { return self.report_missing(place, &[], report) };
        let Some(file) = module.file() else {
            return self.report_missing(place, &module.found.skipped, report);
        };
        self.report_files(place, &module.found, report);
        if let Some(other) = module.shadowed {
            let other = match other {
                ModuleOrigin::Collection => "the one in the collection",
                ModuleOrigin::Prosody | ModuleOrigin::Custom => "Prosody's own",
            };
            report.info(format!("The module {name} is {}, and not {other}", file.path.display()));
        }
        for library in &module.libraries {
            if library.found.file.is_some() {
                self.report_files(place, &library.found, report);
                continue;
            }
            let needs = if library.is_always { "needs" } else { "may need" };
            let mut why = format!(
                "`{name}` {needs} its library {}.lib.lua, which is not in {}",
                library.name,
                self.searched()
            );
            library.found.skipped.iter().for_each(|file| why.push_str(&format!("; {file}")));
            why.push_str(&advice!(": put it beside the module, or {}", self.advice(place)));
            self.report_problem(place, &why, library.is_always, report);
        }
    }

    /// Reports problems of the loaded file, and of those that Prosody skips before it.
    fn report_files(&self, place: usize, found: &Found, report: &mut Report) {
        let by = self.by(place);
        let instead = found.file.as_ref().map(|file| format!(": loading {} instead", file.path.display()));
        for skipped in &found.skipped {
            report.setting_warning(format!("{by}: {skipped}{}", instead.as_deref().unwrap_or_default()));
        }
        if let Some(problem) = &found.problem {
            let text = format!("{by}: {}", problem.what);
            match problem.is_fatal {
                true => report.error(SettingError::about(&text)),
                false => report.setting_warning(text),
            }
        }
    }

    fn report_missing(&self, place: usize, skipped: &[String], report: &mut Report) {
        let name = &self.modules[place].name;
        let direct = self.modules[place].requests.first();
        if direct.is_some_and(|request| request.is_default) {
            return;
        }
        let (kind, prefix) = direct.map_or(("module", ""), |request| request.role.kind());
        let short = name.strip_prefix(prefix).unwrap_or(name);
        let there_is = if direct.is_some() { "" } else { "there is " };
        let version = self.version;
        let why = if skipped.is_empty() {
            let what_to_do = match direct {
                Some(_) => self.hint(
                    short,
                    prefix,
                    advice!("correct the name, or put the module into a folder of PROSODY_PLUGIN_PATHS"),
                ),
                None => {
                    advice!("put it into a folder of PROSODY_PLUGIN_PATHS, or {}", self.advice(place)).into()
                }
            };
            format!("for Prosody {version} in {}; {what_to_do}", self.searched())
        } else {
            let reasons = skipped.join("; ");
            advice!("that Prosody {version} can load: {reasons}; replace it, or {}", self.advice(place))
                .into()
        };
        self.report_problem(place, &format!("{there_is}no {kind} `{short}` {why}"), true, report);
    }

    /// The advice for a module that cannot be provided.
    fn advice(&self, place: usize) -> Advice {
        match self.request(place).map(|request| request.role.kind()) {
            None | Some((_, "")) => advice!("leave `{}` out", self.modules[self.roots[place]].name),
            Some((kind, _)) => advice!("choose another {kind}"),
        }
    }

    /// Reports a problem of a module: an error if the problem and the module are certain, or else a warning.
    fn report_problem(&self, place: usize, why: &str, is_certain: bool, report: &mut Report) {
        // From the module up to the requested one.
        let mut chain = Vec::new();
        let (mut next, root) = (place, self.roots[place]);
        while next != root && chain.len() < LONGEST_CHAIN {
            let (by, is_conditional) = &self.modules[next].needed_by[0];
            let needs = if *is_conditional { "may need" } else { "needs" };
            chain.push(format!(" {needs} `{}`", self.modules[next].name));
            next = self.places[by.as_str()];
        }
        if next != root {
            chain.push(" needs …".to_owned());
        }
        chain.reverse();
        let chain = match &chain[..] {
            [] => String::new(),
            _ => format!("`{}`{}, and ", self.modules[root].name, chain.join(", which")),
        };
        let text = format!("{}: {chain}{why}", self.by(place));
        if is_certain && place < self.certain {
            report.error(SettingError::about(&text));
        } else if self.request(place).is_none_or(|request| request.feature.is_none()) {
            // The modules of a feature are complete without what they only may need.
            report.setting_warning(text);
        }
    }

    fn searched(&self) -> String {
        searched(self.found)
    }

    /// Suggests a solution for a missing module: the one for a former module, similar names, or `otherwise`.
    fn hint(&self, name: &str, prefix: &str, otherwise: Advice) -> String {
        let former = former(name, self.version.at_least(13, 0));
        if let Some(former) = former.filter(|_| prefix.is_empty()) {
            return former.into();
        }
        let left = self.hints.get();
        self.hints.set(left.saturating_sub(1));
        let all = self.found.names.iter().filter(|_| left > 0).filter_map(|name| name.strip_prefix(prefix));
        let near: Vec<String> = nearest_few(name, all).iter().map(|name| format!("`{name}`")).collect();
        match &near[..] {
            [] => otherwise.into(),
            _ => format!("did you mean {}?", near.join(" or ")),
        }
    }

    /// Warns if a disabled module does not exist. `what` is the setting, and the host if it is only for one.
    fn report_unknown(&self, what: &str, name: &str, report: &mut Report) {
        if self.found.module(name).is_some_and(|module| module.file().is_none()) {
            let hint = self.hint(name, "", advice!("correct the name, or leave it out"));
            report.setting_warning(format!("{what}there is no module `{name}` to disable; {hint}"));
        }
    }

    fn report_missing_lua_libraries(&self, report: &mut Report) {
        let mut missing: BTreeMap<&str, Vec<(usize, bool)>> = BTreeMap::new();
        for (place, module) in self.modules.iter().enumerate() {
            let libraries = self.found.module(&module.name).map(|found| &found.lua_libraries[..]);
            for (library, is_always) in libraries.unwrap_or_default() {
                if self.found.missing_lua_libraries.contains(library) {
                    missing.entry(library).or_default().push((place, *is_always));
                }
            }
        }
        for (library, users) in missing {
            let is_prosodys =
                ["prosody.", "util.", "net.", "core."].iter().any(|prefix| library.starts_with(prefix));
            let what = match is_prosodys {
                true => format!("`{library}`, which Prosody {} does not have: ", self.version),
                false => advice!(
                    "the Lua library `{library}`, which is not installed: install it in the image, or "
                )
                .into(),
            };
            for (place, is_always) in users {
                let why = format!("`{}` needs {what}{}", self.modules[place].name, self.advice(place));
                self.report_problem(place, &why, is_always, report);
            }
        }
    }

    /// The modules that are requested with matching roles, and their unconditional dependencies.
    fn loaded(&self, is_match: impl Fn(&Role) -> bool) -> Vec<&Module> {
        let mut is_loaded = vec![false; self.modules.len()];
        let is_requested =
            |place: &usize| self.modules[*place].requests.iter().any(|request| is_match(&request.role));
        let mut places: Vec<usize> = (0..self.modules.len()).filter(is_requested).collect();
        while let Some(place) = places.pop() {
            if !std::mem::replace(&mut is_loaded[place], true) {
                let needs = self.modules[place].needs.iter().filter(|need| !need.is_conditional);
                places.extend(needs.map(|need| self.places[need.name.as_str()]));
            }
        }
        let modules = self.modules.iter().zip(is_loaded).filter(|(_, is_loaded)| *is_loaded);
        modules.map(|(module, _)| module).collect()
    }
}

/// The searched folders, for messages.
fn searched(found: &Findings) -> String {
    let folders = found.folders.iter().map(|(path, is_readable)| {
        let note = if *is_readable { "" } else { " (which Prosody's user cannot read)" };
        format!("{}{note}", path.display())
    });
    folders.collect::<Vec<_>>().join(", ")
}

/// Warns about storage backends and authentication providers that are loaded but unused.
fn find_unused_providers(requests: &[ModuleRequest], report: &mut Report) {
    let providers = [
        (Role::Authentication, "PROSODY_AUTHENTICATION", "internal_hashed"),
        (Role::Storage, "PROSODY_DEFAULT_STORAGE", "internal"),
    ]
    .map(|(role, setting, default)| {
        let chosen: Vec<_> = requests.iter().filter(|request| request.role == role).collect();
        (role.kind(), setting, default, chosen)
    });
    for ModuleRequest { name, by, .. } in
        requests.iter().filter(|request| request.role == Role::Enabled && !request.is_default)
    {
        for ((kind, prefix), setting, default, chosen) in &providers {
            let Some(short) = name.strip_prefix(prefix) else { continue };
            if chosen.iter().any(|request| request.name == *name) {
                continue;
            }
            let shown = chosen.iter().map(|request| format!("{} ({})", request.short_name(), request.by));
            let shown: Vec<String> = shown.collect();
            let chosen = if shown.is_empty() { format!("{default} (the default)") } else { several(&shown) };
            report.warning(advice!(
                "{by}: {name} is loaded and not used: the {kind} is {chosen}; {setting}={short} chooses it"
            ));
        }
    }
}

/// Warns about disabled modules that do not exist, or that other modules depend on.
fn check_disabled(closure: &Closure, wanted: &Modules, hosts: &ServedHosts, report: &mut Report) {
    let everywhere = closure.loaded(|role| *role != Role::Available);
    // Modules that are only left out of the list load for a component on that component alone.
    let is_component = |host: &str| hosts.components.iter().any(|component| component.name == host);
    let on_virtual_hosts = closure.loaded(|role| match role {
        Role::Available | Role::Component(_) => false,
        Role::EnabledOn(host) => !is_component(host),
        _ => true,
    });
    let too = advice!(": disable these too");
    for name in &wanted.disabled {
        closure.report_unknown(&format!("{}: ", wanted.disabled_by), name, report);
        if !closure.places.contains_key(name.as_str()) {
            continue;
        }
        let what = format!("{}: {name}", wanted.disabled_by);
        let or = advice!(": disable these too, or leave {name} enabled");
        let (loaded, certain, possible) = match is_in_default_set(name) {
            true => (
                &on_virtual_hosts,
                ["is loaded all the same, for it is needed by", &too],
                ["may be loaded all the same, for it may be needed by", &too],
            ),
            false => (
                &everywhere,
                ["is needed by", &format!(", which will not load{or}")],
                ["may be needed by", &*or],
            ),
        };
        report_needs(&what, name, loaded, &wanted.disabled, certain, possible, report);
    }
    for host in hosts.virtual_hosts.iter().filter(|host| host.options.contains_key("modules_disabled")) {
        let off = names_in(&host.options, "modules_disabled");
        let loaded = closure.loaded(|role| match role {
            Role::Enabled => true,
            Role::EnabledOn(on) => *on == host.name,
            _ => false,
        });
        for name in &off {
            let place = format!("{}: on {}, ", wanted.hosts_by, host.name);
            closure.report_unknown(&place, name, report);
            let what = format!("{place}{name}");
            let certain = advice!(", which will not load there: disable these too");
            let certain = ["is disabled and needed by", &*certain];
            let possible = ["is disabled and may be needed by", &*too];
            report_needs(&what, name, &loaded, &off, certain, possible, report);
        }
    }
}

/// Warns if loaded modules that are not in `off` depend on a disabled one. The texts before and after their names differ
/// for unconditional (`certain`) and conditional (`possible`) dependencies.
fn report_needs(
    what: &str,
    name: &str,
    loaded: &[&Module],
    off: &[String],
    certain: [&str; 2],
    possible: [&str; 2],
    report: &mut Report,
) {
    for (is_conditional, [before, after]) in [(false, certain), (true, possible)] {
        let is_needed =
            |need: &Need| need.name == name && !need.is_soft && need.is_conditional == is_conditional;
        let users = loaded.iter().filter(|module| module.needs.iter().any(is_needed));
        let users: Vec<&String> =
            users.filter(|module| !off.contains(&module.name)).map(|module| &module.name).collect();
        let text = format!("{what} {before} {}{after}", several(&users));
        match is_conditional {
            _ if users.is_empty() => {}
            true => report.warning(text),
            false => report.setting_warning(text),
        }
    }
}
