//! The modules that there are: Prosody's own, the user's and the community's collection, each found as Prosody finds it.
//!
//! A folder costs the reading of its names, once, when something is searched that may be in it. Of the files only those
//! of modules that are asked for are read, as Prosody's user, who has to read them too.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::env::consts::ARCH;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;

use nix::fcntl::OFlag;

use super::lua_source::{Token, Tokens};
use super::module_source::{self, ModuleSource};
use super::prosody::Prosody;

/// How much of a file is read. The largest module in the collections has 50 kB.
const LONGEST: u64 = 1024 * 1024;

/// More names than this in one folder of modules are worth a line: they are read at every start.
const MANY: usize = 10_000;

/// Libraries that are a part of Lua 5.1 to 5.4 or of LuaJIT, and no files.
const BUILT_IN: [&str; 13] = [
    "_G",
    "bit",
    "bit32",
    "coroutine",
    "debug",
    "ffi",
    "io",
    "jit",
    "math",
    "os",
    "package",
    "string",
    "table",
];

/// Where a module comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A folder of the user's.
    User,
    /// Prosody itself.
    Prosody,
    /// The community's collection.
    Collection,
}

impl Origin {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Origin::User => "user",
            Origin::Prosody => "prosody",
            Origin::Collection => "collection",
        }
    }
}

/// A folder in which modules are.
struct Folder {
    path: PathBuf,
    origin: Origin,
    names: OnceCell<Names>,
}

/// The names in a folder.
#[derive(Default)]
struct Names {
    all: HashSet<String>,
    /// What is wrong with the folder.
    problem: Option<String>,
}

/// A file of a module's, or of a library's.
#[derive(Debug, Clone, PartialEq)]
pub struct File {
    /// Where it comes from.
    pub origin: Origin,
    /// The file, as Prosody opens it; for what is linked, as it is in the collection.
    pub path: PathBuf,
    /// The name at the top of its folder: what a link has to lead to.
    pub entry: String,
    /// What it says; nothing where it was not read, as Prosody's own are not.
    pub source: Option<Rc<ModuleSource>>,
    /// What tells one content from another; 0 where it was not read.
    pub digest: u64,
}

/// What a search gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// The file that Prosody takes.
    pub file: Option<File>,
    /// Files in its way that Prosody does not take, each with the reason: `…/mod_x.lua is for Lua 5.1`.
    pub passed_over: Vec<String>,
    /// What is wrong with the file that it takes: `…/mod_x.lua is not Lua`.
    pub problem: Option<String>,
}

/// All modules.
pub struct Modules {
    /// In the order in which Prosody searches them, and last the collection.
    folders: Vec<Folder>,
    prosody: Prosody,
    /// `5.4`; where it is not known nothing can be said about it.
    lua: Option<String>,
    features: OnceCell<HashSet<String>>,
    found: RefCell<HashMap<String, Rc<Found>>>,
}

impl Modules {
    /// Takes where the user's modules and the collection are, and looks at none of them yet.
    pub fn new(prosody: &Prosody, users: impl IntoIterator<Item = PathBuf>, collection: PathBuf) -> Self {
        let folder = |path, origin| Folder { path, origin, names: OnceCell::new() };
        let mut folders: Vec<Folder> = users.into_iter().map(|path| folder(path, Origin::User)).collect();
        folders.push(folder(prosody.plugin_dir.clone(), Origin::Prosody));
        folders.push(folder(collection, Origin::Collection));
        Self {
            folders,
            prosody: prosody.clone(),
            lua: prosody.lua.map(|(major, minor)| format!("{major}.{minor}")),
            features: OnceCell::new(),
            found: RefCell::default(),
        }
    }

    /// The file of a module.
    pub fn find(&self, module: &str) -> Rc<Found> {
        if let Some(found) = self.found.borrow().get(module) {
            return Rc::clone(found);
        }
        let found = Rc::new(self.search(module, &format!("mod_{module}.lua")));
        self.found.borrow_mut().insert(module.to_owned(), Rc::clone(&found));
        found
    }

    /// The file of a library that a module takes with `module:require` (`pluginloader.load_code_ext`).
    pub fn library(&self, module: &str, library: &str) -> Found {
        let mut found = Found::default();
        for (plugin, resource) in [
            (module, format!("{library}.lib.lua")),
            (module, format!("{library}.lua")),
            (library, format!("{library}.lib.lua")),
        ] {
            found = self.search(plugin, &resource);
            if found.file.is_some() {
                break;
            }
        }
        found
    }

    /// What a file says, which is read for it where it was not yet. Nothing where that cannot be.
    pub fn source(&self, file: &File) -> Option<Rc<ModuleSource>> {
        match (&file.source, file.origin) {
            (Some(source), _) => Some(Rc::clone(source)),
            (None, Origin::Prosody) => match read(&file.path) {
                Ok(Content::Module(source, _)) => Some(Rc::new(source)),
                _ => None,
            },
            (None, _) => None,
        }
    }

    /// Whether there is anything in the folders of the user's.
    pub fn has_users(&self) -> bool {
        let mut users = self.folders.iter().filter(|folder| folder.origin == Origin::User);
        users.any(|folder| !self.names_of(folder).all.is_empty())
    }

    /// Who else has a module that is in a folder of the user's.
    pub fn behind_users(&self, module: &str) -> Option<Origin> {
        let resource = format!("mod_{module}.lua");
        let mut others = self.folders.iter().filter(|folder| folder.origin != Origin::User);
        others
            .find(|folder| self.candidates(folder, module, &resource).any(|path| path.is_file()))
            .map(|folder| folder.origin)
    }

    /// The names of all modules, wherever they are. One file is looked for in each folder in a folder.
    pub fn names(&self) -> BTreeSet<String> {
        let mut modules = BTreeSet::new();
        for folder in &self.folders {
            modules.extend(self.modules_in(folder).map(str::to_owned));
        }
        modules
    }

    /// The names of the modules in the collection, each with the name of its place there.
    pub fn collection(&self) -> BTreeMap<String, PathBuf> {
        let mut modules = BTreeMap::new();
        for folder in self.folders.iter().filter(|folder| folder.origin == Origin::Collection) {
            for module in self.modules_in(folder) {
                let is_there = |name: &String| self.names_of(folder).all.contains(name);
                let mut folders = [format!("mod_{module}"), module.to_owned()].into_iter();
                let place = folders.find(is_there).unwrap_or_else(|| format!("mod_{module}.lua"));
                modules.insert(module.to_owned(), folder.path.join(place));
            }
        }
        modules
    }

    fn modules_in<'a>(&'a self, folder: &'a Folder) -> impl Iterator<Item = &'a str> {
        self.names_of(folder).all.iter().filter_map(move |name| {
            if let Some(module) = name.strip_prefix("mod_").and_then(|name| name.strip_suffix(".lua")) {
                return Some(module);
            }
            let module = name.strip_prefix("mod_").unwrap_or(name);
            let mut files = self.candidates(folder, module, &format!("mod_{module}.lua"));
            (!name.contains('.') && files.any(|path| path.is_file())).then_some(module)
        })
    }

    /// The folders that are searched, in their order.
    pub fn folders(&self) -> impl Iterator<Item = &Path> {
        self.folders.iter().map(|folder| folder.path.as_path())
    }

    /// What is wrong with the folders that were looked at, a sentence each.
    pub fn problems(&self) -> impl Iterator<Item = &str> {
        self.folders.iter().filter_map(|folder| folder.names.get()?.problem.as_deref())
    }

    /// Those of these libraries of Lua's that cannot be loaded.
    pub fn missing_lua_libraries<'a>(&self, libraries: &BTreeSet<&'a str>) -> BTreeSet<&'a str> {
        let unknown: Vec<&str> =
            libraries.iter().copied().filter(|library| !self.has_lua_library(library)).collect();
        if unknown.is_empty() { BTreeSet::new() } else { self.ask_lua(&unknown) }
    }

    /// Looks at the places of Debian's Lua, and of Lua as it comes.
    fn has_lua_library(&self, library: &str) -> bool {
        let Some(version) = self.lua.as_deref().filter(|_| !BUILT_IN.contains(&library)) else {
            return true;
        };
        // Prosody's own have that prefix since 13.0.
        let own = library.strip_prefix("prosody.").unwrap_or(library).replace('.', "/");
        let name = library.replace('.', "/");
        let own = ["lua", "so"].map(|kind| self.prosody.source_dir.join(format!("{own}.{kind}")));
        let user = self.folders.iter().filter(|folder| folder.origin == Origin::User);
        let user = user.map(|folder| folder.path.join("share").join("lua").join(version));
        let scripts = ["/usr/local/share/lua/", "/usr/share/lua/"]
            .map(|path| PathBuf::from(format!("{path}{version}")));
        let scripts = user
            .chain(scripts)
            .flat_map(|path| [path.join(format!("{name}.lua")), path.join(format!("{name}/init.lua"))]);
        let compiled = ["/usr/local/lib/", "/usr/lib/", &format!("/usr/lib/{ARCH}-linux-gnu/")]
            .map(|path| PathBuf::from(format!("{path}lua/{version}/{name}.so")));
        own.into_iter().chain(scripts).chain(compiled).any(|path| path.is_file())
    }

    /// Asks the very Lua that runs Prosody, which may have been told other places. Where it does not answer, nothing is
    /// missing as far as we know.
    fn ask_lua<'a>(&self, libraries: &[&'a str]) -> BTreeSet<&'a str> {
        const SCRIPT: &str = "for _, name in ipairs(arg) do \
             if not (package.preload[name] or package.loaded[name] or package.searchpath(name, package.path) \
             or package.searchpath(name, package.cpath)) then print(name) end end";
        let Some(interpreter) = &self.prosody.interpreter else {
            return BTreeSet::new();
        };
        let is_path =
            |name: &OsString| name.to_str().is_some_and(|name| name == "PATH" || name.starts_with("LUA_"));
        let environment = std::env::vars_os().filter(|(name, _)| is_path(name));
        // LUA_INIT is code.
        let environment = environment.filter(|(name, _)| !name.to_string_lossy().starts_with("LUA_INIT"));
        let answer = Command::new(interpreter)
            .args(["-e", SCRIPT, "-"])
            .args(libraries)
            .env_clear()
            .envs(environment)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output();
        let Some(answer) = answer.ok().filter(|answer| answer.status.success()) else {
            return BTreeSet::new();
        };
        let answer = String::from_utf8_lossy(&answer.stdout);
        let missing: HashSet<&str> = answer.lines().collect();
        libraries.iter().copied().filter(|library| missing.contains(library)).collect()
    }

    /// Searches a file as `pluginloader.load_resource` does, in each folder in its turn.
    fn search(&self, plugin: &str, resource: &str) -> Found {
        let mut found = Found::default();
        if !is_plain(plugin) || !is_plain(resource) {
            return found;
        }
        for folder in &self.folders {
            for path in self.candidates(folder, plugin, resource) {
                // Prosody's own are good for this Prosody.
                if folder.origin == Origin::Prosody {
                    if path.is_file() {
                        found.file = Some(self.file(folder, path, None, 0));
                        return found;
                    }
                    continue;
                }
                let why = match read(&path) {
                    Ok(Content::Module(source, digest)) => match self.is_for_us(&source) {
                        Ok(()) => {
                            found.file = Some(self.file(folder, path, Some(Rc::new(source)), digest));
                            return found;
                        }
                        Err(why) => why,
                    },
                    Ok(Content::Nonsense(why)) => {
                        found.problem = Some(format!("{} {why}", path.display()));
                        found.file = Some(self.file(folder, path, None, 0));
                        return found;
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound && is_link(&path) => {
                        "is a link to nothing".to_owned()
                    }
                    // A file is looked into as if it were a folder: Prosody does that too.
                    Err(error)
                        if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
                    {
                        continue;
                    }
                    Err(error) => format!("cannot be read: {error}"),
                };
                found.passed_over.push(format!("{} {why}", path.display()));
            }
        }
        found
    }

    fn file(&self, folder: &Folder, path: PathBuf, source: Option<Rc<ModuleSource>>, digest: u64) -> File {
        let below = path.strip_prefix(&folder.path).unwrap_or(&path);
        let entry = below.iter().next().unwrap_or_default().to_string_lossy().into_owned();
        File { origin: folder.origin, path, entry, source, digest }
    }

    /// Where Prosody looks for a file in a folder: those of the places whose first name is there.
    fn candidates(
        &self,
        folder: &Folder,
        plugin: &str,
        resource: &str,
    ) -> impl Iterator<Item = PathBuf> + use<> {
        let names = &self.names_of(folder).all;
        let share =
            self.lua.as_deref().filter(|_| names.contains("share")).map(|lua| format!("share/lua/{lua}"));
        let mut places = Vec::new();
        if names.contains(&format!("mod_{plugin}")) {
            places.push(format!("mod_{plugin}/{plugin}/{resource}"));
            places.push(format!("mod_{plugin}/{resource}"));
        }
        if names.contains(plugin) {
            places.push(format!("{plugin}/{resource}"));
        }
        if names.contains(resource.split('/').next().unwrap_or_default()) {
            places.push(resource.to_owned());
        }
        if let Some(share) = share {
            places.push(format!("{share}/{resource}"));
            places.push(format!("{share}/mod_{plugin}/{resource}"));
        }
        let path = folder.path.clone();
        places.into_iter().map(move |place| path.join(place))
    }

    fn names_of<'a>(&self, folder: &'a Folder) -> &'a Names {
        folder.names.get_or_init(|| Names::read(&folder.path))
    }

    /// Whether Prosody loads a file that says this (`core/modulemanager.lua`, `load_filter_cb`), or why not.
    fn is_for_us(&self, source: &ModuleSource) -> Result<(), String> {
        if let Some(lua) = self
            .lua
            .as_deref()
            .filter(|lua| !source.lua.is_empty() && source.lua.iter().all(|one| one != lua))
        {
            return Err(format!("is for Lua {}, and this Prosody runs on Lua {lua}", source.lua.join(", ")));
        }
        if let Some(feature) = source.conflicts.iter().find(|feature| self.features().contains(*feature)) {
            return Err(format!(
                "is not for a Prosody with the feature {feature}, which {} has",
                self.prosody.version
            ));
        }
        let missing: Vec<&str> = source
            .requires
            .iter()
            .filter(|feature| !self.features().contains(*feature))
            .map(String::as_str)
            .collect();
        if !missing.is_empty() {
            return Err(format!(
                "is for a Prosody with the feature {}, which {} does not have",
                missing.join(", "),
                self.prosody.version
            ));
        }
        Ok(())
    }

    /// What Prosody calls its features: the words in `core/features.lua`.
    fn features(&self) -> &HashSet<String> {
        self.features.get_or_init(|| {
            let text = super::read(&self.prosody.source_dir.join("core/features.lua")).unwrap_or_default();
            let words = Tokens::new(&text).filter_map(|token| match token {
                Token::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
                _ => None,
            });
            words.collect()
        })
    }
}

impl Names {
    fn read(folder: &Path) -> Self {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            // To Prosody such a folder is empty too.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Self::default();
            }
            Err(error) => {
                let problem =
                    format!("{} cannot be read: {error}; no modules are found there", folder.display());
                return Self { problem: Some(problem), ..Self::default() };
            }
        };
        let all: HashSet<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        let problem = (all.len() > MANY).then(|| {
            format!(
                "{} holds {} files, whose names are read at every start: give modules a folder of their own",
                folder.display(),
                all.len()
            )
        });
        Self { all, problem }
    }
}

/// Whether a name leads nowhere but down.
fn is_plain(name: &str) -> bool {
    let is_normal = |part| matches!(part, Component::Normal(_));
    !name.is_empty() && !name.contains('\0') && Path::new(name).components().all(is_normal)
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
}

/// What a file that can be opened turns out to be.
enum Content {
    /// A module, and what tells it from another.
    Module(ModuleSource, u64),
    /// Something that Prosody takes for a module all the same.
    Nonsense(&'static str),
}

/// Reads a module's file. Whatever the file is, this does not wait for it, and reads no more than [`LONGEST`] of it.
fn read(path: &Path) -> io::Result<Content> {
    let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !metadata.is_file() {
        return Ok(Content::Nonsense("is no regular file: Prosody may wait for it for ever; remove it"));
    }
    if metadata.len() > LONGEST {
        return Ok(Content::Nonsense(
            "is larger than 1 MiB, which no module is: what it needs is not looked for",
        ));
    }
    let mut content = Vec::with_capacity(metadata.len() as usize + 1);
    file.take(LONGEST).read_to_end(&mut content)?;
    let source = module_source::read(&content);
    if !source.is_lua {
        return Ok(Content::Nonsense("is not Lua: Prosody cannot load it"));
    }
    let mut hasher = DefaultHasher::new();
    (metadata.ino(), metadata.len(), metadata.ctime(), metadata.ctime_nsec()).hash(&mut hasher);
    Ok(Content::Module(source, hasher.finish()))
}
