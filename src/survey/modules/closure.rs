//! Finds the requested modules and, transitively, everything that they need.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::path::PathBuf;

use super::source::{Need, Needs};
use super::{File, Found, ModuleOrigin, Modules};
use crate::facts::Facts;
use crate::intent::modules as wanted;
use crate::os::users::User;

/// The modules that the survey looked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Findings {
    /// Every module that was looked for, by its name.
    modules: HashMap<String, FoundModule>,
    /// The searched directories in their order, and whether Prosody's user can read their names.
    pub folders: Vec<(PathBuf, bool)>,
    pub missing_lua_libraries: BTreeSet<String>,
    /// The names of all modules, if one that the operator named or disabled is missing; else empty.
    pub names: BTreeSet<String>,
    /// Messages about the directories, one sentence each.
    pub problems: Vec<String>,
}

/// The result of the search for a module, with the needs of its file and its libraries.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FoundModule {
    pub found: Found,
    /// For a custom module, the origin of another module with the same name.
    pub shadowed: Option<ModuleOrigin>,
    /// The modules that it depends on, each once.
    pub needs: Vec<Need>,
    pub libraries: Vec<Library>,
    /// The Lua libraries that its files load, and whether it always loads them.
    pub lua_libraries: Vec<(String, bool)>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Library {
    pub name: String,
    pub found: Found,
    /// Whether the module always loads it. If it only sometimes does and the file is missing, that is no problem, and
    /// it is not among the libraries.
    pub is_always: bool,
}

impl Findings {
    /// Finds every requested module and everything that it needs, with the privileges of the current user.
    pub fn gather(wanted: &wanted::Modules, facts: &Facts) -> Self {
        let search = Modules::of(facts, wanted.reads_prosodys_modules);
        // Prosody has every module that was not chosen by name, but a custom one may replace it.
        let looks_at_all = wanted.reads_prosodys_modules || search.has_custom();
        let requests = wanted.requests.iter().filter(|request| looks_at_all || !request.is_default);
        let disabled = wanted.disabled.iter().chain(&wanted.disabled_on_hosts);
        let names = requests.map(|request| &request.name).chain(disabled.clone());
        let mut findings = Self::follow(&search, names.cloned().collect(), &facts.identity);
        let named = wanted.requests.iter().filter(|request| !request.is_default).map(|request| &request.name);
        if named
            .chain(disabled)
            .any(|name| findings.module(name).is_some_and(|module| module.file().is_none()))
        {
            findings.names = search.names();
        }
        findings
    }

    /// Finds modules and everything that they need. If Lua must be asked for libraries, it runs as `user`.
    pub fn follow(search: &Modules, mut queue: VecDeque<String>, user: &User) -> Self {
        let mut findings = Self::default();
        while let Some(name) = queue.pop_front() {
            if let Entry::Vacant(entry) = findings.modules.entry(name) {
                let name = entry.key();
                let mut module =
                    FoundModule::follow(name, search.find(name), |library| search.library(name, library));
                let file = module.file().filter(|file| file.origin == ModuleOrigin::Custom);
                module.shadowed = file.and_then(|file| search.shadowed(name, &file.path));
                queue.extend(module.needs.iter().map(|need| need.name.clone()));
                entry.insert(module);
            }
        }
        let libraries = findings.modules.values().flat_map(|module| &module.lua_libraries);
        let libraries = libraries.map(|(name, _)| name.as_str()).collect();
        match search.missing_lua_libraries(&libraries, user) {
            Ok(missing) => {
                findings.missing_lua_libraries = missing.into_iter().map(str::to_owned).collect();
            }
            Err(problem) => findings.problems.push(problem),
        }
        for folder in &search.folders {
            if let Some(is_readable) = folder.is_readable() {
                findings.folders.push((folder.path.components().collect(), is_readable));
            }
            findings.problems.extend(folder.problem().map(String::from));
        }
        findings
    }

    pub fn module(&self, name: &str) -> Option<&FoundModule> {
        self.modules.get(name)
    }
}

impl FoundModule {
    /// Collects the needs of a module's file and of its libraries' files. `find` searches for a library.
    fn follow(name: &str, mut found: Found, find: impl Fn(&str) -> Found) -> Self {
        let mut module = Self::default();
        let mut needs = Needs::default();
        // With each file, whether the module always loads it.
        let is_prosodys =
            |found: &Found| found.file.as_ref().is_some_and(|file| file.origin == ModuleOrigin::Prosody);
        let mut files = VecDeque::from([(std::mem::take(&mut found.source), is_prosodys(&found), true)]);
        let mut seen = HashSet::new();
        module.found = found;
        while let Some((source, is_prosodys_own, is_always)) = files.pop_front() {
            for need in source.modules.iter().filter(|need| need.name != name) {
                needs.add(&need.name, need.is_conditional || !is_always, need.is_soft);
            }
            if is_prosodys_own {
                continue;
            }
            let lua = source.lua_libraries.into_iter().filter(|library| !library.is_conditional);
            module.lua_libraries.extend(lua.map(|library| (library.name, is_always)));
            for library in source.libraries {
                // A library that one file loads conditionally, another may load unconditionally.
                let is_always = is_always && !library.is_conditional;
                if seen.contains(&(library.name.clone(), is_always)) {
                    continue;
                }
                let mut found = find(&library.name);
                if found.file.is_some() || !library.is_conditional {
                    seen.insert((library.name.clone(), is_always));
                    files.push_back((std::mem::take(&mut found.source), is_prosodys(&found), is_always));
                    module.libraries.push(Library { name: library.name, found, is_always });
                }
            }
        }
        module.needs = needs.list;
        module
    }

    pub fn file(&self) -> Option<&File> {
        self.found.file.as_ref()
    }

    pub fn files(&self) -> impl Iterator<Item = &File> {
        self.file().into_iter().chain(self.libraries.iter().filter_map(|library| library.found.file.as_ref()))
    }
}

#[cfg(test)]
impl Findings {
    /// Takes the name (of a module, or `MODULE/LIBRARY`), path and source of each file. The path decides on the origin:
    /// Prosody's directory, the collection's, or else custom.
    pub fn example(files: &[(&str, &str, &str)]) -> Self {
        let folders = ["/usr/lib/prosody/modules", "/opt/prosody-modules-available"];
        let mut findings =
            Self { folders: folders.map(|path| (path.into(), true)).into(), ..Self::default() };
        let find = |name: &str| {
            let Some((_, path, source)) = files.iter().find(|file| file.0 == name) else {
                return Found::default();
            };
            let path = PathBuf::from(path);
            let origin = match () {
                () if path.starts_with(folders[0]) => ModuleOrigin::Prosody,
                () if path.starts_with(folders[1]) => ModuleOrigin::Collection,
                () => ModuleOrigin::Custom,
            };
            let top = match (origin, path.parent()) {
                (ModuleOrigin::Collection, Some(folder)) if folder.as_os_str() != folders[1] => {
                    folder.to_owned()
                }
                _ => path.clone(),
            };
            let is_prosodys = origin == ModuleOrigin::Prosody;
            let digest = if is_prosodys { 0 } else { crate::digest::of(source.as_bytes()) };
            Found {
                file: Some(File { origin, path, top, digest }),
                source: super::source::read(source.as_bytes()),
                ..Found::default()
            }
        };
        for (name, _, _) in files.iter().filter(|file| !file.0.contains('/')) {
            let module = FoundModule::follow(name, find(name), |library| find(&format!("{name}/{library}")));
            findings.modules.insert((*name).to_owned(), module);
        }
        findings
    }

    pub fn module_mut(&mut self, name: &str) -> &mut FoundModule {
        self.modules.entry(name.to_owned()).or_default()
    }
}
