//! Finds the requested modules and, transitively, everything that they need.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::path::PathBuf;

use super::{File, Found, ModuleOrigin, Modules};
use crate::facts::Facts;
use crate::intent::modules::{self as wanted, Reason};

/// The modules and libraries that the survey looked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Findings {
    /// Every module that was looked for, by its name.
    modules: HashMap<String, Found>,
    /// By the names of the module and the library.
    libraries: HashMap<(String, String), Found>,
    /// For custom modules, the origin of another module with the same name.
    behind_users: HashMap<String, ModuleOrigin>,
    /// The directories in search order.
    pub folders: Vec<Folder>,
    /// Whether a custom directory has content, or cannot be read.
    pub has_custom: bool,
    /// The Lua libraries that cannot be loaded.
    pub missing_lua_libraries: BTreeSet<String>,
    /// The names of all modules, if a module that the operator named is missing; else empty.
    pub names: BTreeSet<String>,
    /// Messages about the directories, one sentence each.
    pub problems: Vec<String>,
}

/// A directory that was searched.
#[derive(Debug, Clone, PartialEq)]
pub struct Folder {
    /// Its path.
    pub path: PathBuf,
    /// Whether Prosody's user can read its names.
    pub is_readable: bool,
}

impl Findings {
    /// Finds every requested module and everything that it needs, with the privileges of the current user.
    pub fn gather(wanted: &wanted::Modules, facts: &Facts) -> Self {
        let search = Modules::of(facts);
        let mut findings = Findings { has_custom: search.has_custom(), ..Findings::default() };
        let mut lua = BTreeSet::new();
        let mut queue: VecDeque<String> = VecDeque::new();
        for request in &wanted.requests {
            // Prosody has every module that was not chosen by name, but a custom one may replace it.
            if findings.has_custom || wanted.reads_own || request.reason.is_chosen() {
                queue.push_back(request.name.clone());
            }
        }
        while let Some(module) = queue.pop_front() {
            if findings.modules.contains_key(&module) {
                continue;
            }
            let mut found = (*search.find(&module)).clone();
            if let Some(file) = &mut found.file {
                if file.origin == ModuleOrigin::User {
                    let behind = search.behind_users(&module, &file.path);
                    findings.behind_users.extend(behind.map(|origin| (module.clone(), origin)));
                }
                if wanted.reads_own {
                    file.source = search.source(file);
                }
                findings.follow(&search, wanted.reads_own, &module, file.clone(), &mut queue, &mut lua);
            }
            findings.modules.insert(module, found);
        }
        let is_missing = |request: &&wanted::ModuleRequest| {
            matches!(request.reason, Reason::Asked { is_default: false, is_hidden: false, .. })
                && findings.modules.get(&request.name).is_some_and(|found| found.file.is_none())
        };
        if wanted.requests.iter().any(|request| is_missing(&request)) {
            findings.names = search.names().clone();
        }
        let libraries = lua.iter().map(String::as_str).collect();
        let missing = search.missing_lua_libraries(&libraries, &facts.identity);
        findings.missing_lua_libraries = missing.into_iter().map(str::to_owned).collect();
        let folders = search.folders().filter(|(path, _)| path.is_dir());
        findings.folders = folders
            .map(|(path, is_readable)| Folder { path: path.components().collect(), is_readable })
            .collect();
        findings.problems = search.problems().map(str::to_owned).collect();
        findings
    }

    /// Collects the needs of a module's file and of its libraries' files.
    fn follow(
        &mut self,
        search: &Modules,
        reads_own: bool,
        module: &str,
        file: File,
        queue: &mut VecDeque<String>,
        lua: &mut BTreeSet<String>,
    ) {
        let mut seen: HashSet<PathBuf> = HashSet::new();
        let mut files = vec![file];
        while let Some(file) = files.pop() {
            let Some(source) = &file.source else { continue };
            queue.extend(source.modules.iter().map(|need| need.name.clone()));
            if file.origin == ModuleOrigin::Prosody {
                continue;
            }
            let certain = source.lua_libraries.iter().filter(|library| !library.is_conditional);
            lua.extend(certain.map(|library| library.name.clone()));
            for library in &source.libraries {
                let key = (module.to_owned(), library.name.clone());
                let found = self.libraries.entry(key).or_insert_with(|| {
                    let mut found = search.library(module, &library.name);
                    if let Some(file) = found.file.as_mut().filter(|_| reads_own) {
                        file.source = search.source(file);
                    }
                    found
                });
                files.extend(found.file.iter().filter(|file| seen.insert(file.path.clone())).cloned());
            }
        }
    }

    /// The search result for a module.
    pub fn module(&self, name: &str) -> Option<&Found> {
        self.modules.get(name)
    }

    /// Whether the module exists.
    pub fn has(&self, name: &str) -> bool {
        self.module(name).is_some_and(|found| found.file.is_some())
    }

    /// The search result for a module's library.
    pub fn library(&self, module: &str, library: &str) -> Option<&Found> {
        self.libraries.get(&(module.to_owned(), library.to_owned()))
    }

    /// For a custom module, the origin of another module with the same name.
    pub fn behind_users(&self, module: &str) -> Option<ModuleOrigin> {
        self.behind_users.get(module).copied()
    }
}

#[cfg(test)]
impl Findings {
    /// Takes the name (of a module, or `MODULE/LIBRARY`), path and source of each file. The path decides on the origin:
    /// Prosody's directory, the collection's, or else custom.
    pub fn example(files: &[(&str, &str, &str)]) -> Self {
        let folder = |path: &str| Folder { path: path.into(), is_readable: true };
        let folders = ["/usr/lib/prosody/modules", "/opt/prosody-modules-available"];
        let mut findings = Self { folders: folders.map(folder).into(), ..Self::default() };
        for (name, path, source) in files {
            let path = PathBuf::from(path);
            let origin = match () {
                () if path.starts_with(&findings.folders[0].path) => ModuleOrigin::Prosody,
                () if path.starts_with(&findings.folders[1].path) => ModuleOrigin::Collection,
                () => ModuleOrigin::User,
            };
            let top = match (origin, path.parent()) {
                (ModuleOrigin::Collection, Some(folder)) if folder != findings.folders[1].path => {
                    folder.to_owned()
                }
                _ => path.clone(),
            };
            let found = Found {
                file: Some(File {
                    origin,
                    path,
                    top,
                    source: Some(super::source::read(source.as_bytes()).into()),
                    digest: if origin == ModuleOrigin::Prosody {
                        0
                    } else {
                        crate::digest::of(source.as_bytes())
                    },
                }),
                ..Found::default()
            };
            findings.has_custom |= origin == ModuleOrigin::User;
            match name.split_once('/') {
                Some((module, library)) => {
                    drop(findings.libraries.insert((module.to_owned(), library.to_owned()), found))
                }
                None => drop(findings.modules.insert((*name).to_owned(), found)),
            }
        }
        findings
    }

    /// The search result for a module.
    pub fn module_mut(&mut self, name: &str) -> &mut Found {
        self.modules.entry(name.to_owned()).or_default()
    }

    /// Records the origin of another module with the name of a custom one.
    pub fn put_behind(&mut self, name: &str, origin: ModuleOrigin) {
        self.behind_users.insert(name.to_owned(), origin);
    }
}
