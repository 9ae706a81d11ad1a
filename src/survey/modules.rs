//! Finds modules as Prosody does: its own, custom ones, and those of the community's collection.
//!
//! The names in a directory are read once, when the first search needs them. Only the files of wanted modules are read,
//! as Prosody's user, because Prosody must be able to read them too.

pub mod closure;
pub mod readme;
pub mod source;

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::env::consts::ARCH;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;
use std::rc::Rc;

use self::source::ModuleSource;
use crate::digest;
use crate::facts::Facts;
use crate::facts::prosody::Prosody;
use crate::lua::tokens::{Token, Tokens};
use crate::os::trusted_file::{self, Error, Kind, LARGEST};
use crate::os::users::User;
use crate::text::reason;

/// The size limit of a module's file, in bytes. The largest community module has 50 kB.
const LONGEST: u64 = 1024 * 1024;

/// With more names than this, a directory gets a message, because the names are read at every start.
const MANY: usize = 10_000;

/// Libraries that are built into Lua since 5.2, so that there is no file.
const BUILT_IN: [&str; 9] = ["_G", "coroutine", "debug", "io", "math", "os", "package", "string", "table"];

/// Where a module comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModuleOrigin {
    /// A custom directory.
    User,
    /// Prosody itself.
    Prosody,
    /// The community's collection.
    Collection,
}

impl ModuleOrigin {
    /// The word for it in the output of commands.
    pub fn name(self) -> &'static str {
        match self {
            ModuleOrigin::User => "user",
            ModuleOrigin::Prosody => "prosody",
            ModuleOrigin::Collection => "collection",
        }
    }
}

/// A directory with modules.
struct Folder {
    path: PathBuf,
    origin: ModuleOrigin,
    names: OnceCell<Names>,
}

/// The names in a directory.
#[derive(Default)]
struct Names {
    /// `None` if they cannot be read: then any name may exist.
    all: Option<HashSet<String>>,
    /// A message about the directory.
    problem: Option<String>,
}

/// The file of a module or of a library.
#[derive(Debug, Clone, PartialEq)]
pub struct File {
    /// Where it comes from.
    pub origin: ModuleOrigin,
    /// The path that Prosody opens. For a linked module, the path in the collection.
    pub path: PathBuf,
    /// The target of a link to the module: the entry of the searched directory that is or contains the file.
    pub top: PathBuf,
    /// Its needs and metadata. `None` if it was not read, as with Prosody's own modules.
    pub source: Option<Rc<ModuleSource>>,
    /// A digest that changes with the content. 0 if the file was not read.
    pub digest: u64,
}

/// The result of a search.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// The file that Prosody loads.
    pub file: Option<File>,
    /// Earlier files that Prosody skips, each with the reason: `…/mod_x.lua is for Lua 5.1`.
    pub passed_over: Vec<String>,
    /// A problem with the file that Prosody loads.
    pub problem: Option<Problem>,
}

impl Found {
    fn pass_over(&mut self, why: String) {
        if !self.passed_over.contains(&why) {
            self.passed_over.push(why);
        }
    }
}

/// A problem with a file that Prosody loads.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// The problem and the fix: `…/mod_x.lua is not Lua: …`.
    pub what: String,
    /// Whether it stops Prosody: Prosody exits, or never serves a client.
    pub is_fatal: bool,
}

/// Searches for modules, and caches the results.
pub struct Modules {
    /// In Prosody's search order, with the collection last.
    folders: Vec<Folder>,
    prosody: Prosody,
    /// The version, such as `5.4`. If it is unknown, checks that depend on it pass.
    lua: Option<String>,
    features: OnceCell<HashSet<String>>,
    found: RefCell<HashMap<String, Rc<Found>>>,
    all: OnceCell<BTreeSet<String>>,
}

impl Modules {
    /// Takes the directories from the facts. Reads nothing yet.
    pub fn of(facts: &Facts) -> Self {
        Self::new(&facts.prosody, facts.module_folders.iter().cloned(), facts.collection.clone())
    }

    /// Takes the custom directories (`users`) and the collection. Reads nothing yet. `prosodyctl install` puts modules,
    /// and the Lua libraries that they need, into the first custom directory.
    pub fn new(prosody: &Prosody, users: impl IntoIterator<Item = PathBuf>, collection: PathBuf) -> Self {
        let folder = |path, origin| Folder { path, origin, names: OnceCell::new() };
        let mut folders: Vec<Folder> =
            users.into_iter().map(|path| folder(path, ModuleOrigin::User)).collect();
        folders.push(folder(prosody.plugin_dir.clone(), ModuleOrigin::Prosody));
        folders.push(folder(collection, ModuleOrigin::Collection));
        Self {
            folders,
            prosody: prosody.clone(),
            lua: prosody.lua.map(|(major, minor)| format!("{major}.{minor}")),
            features: OnceCell::new(),
            found: RefCell::default(),
            all: OnceCell::new(),
        }
    }

    /// Finds the file of a module.
    pub fn find(&self, module: &str) -> Rc<Found> {
        if let Some(found) = self.found.borrow().get(module) {
            return Rc::clone(found);
        }
        let found = Rc::new(self.search(module, &format!("mod_{module}.lua")));
        self.found.borrow_mut().insert(module.to_owned(), Rc::clone(&found));
        found
    }

    /// Finds the file of a library that a module loads with `module:require` (`pluginloader.load_code_ext`).
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

    /// The needs and metadata of a file. Prosody's own files are read now. `None` if the file cannot be read.
    pub fn source(&self, file: &File) -> Option<Rc<ModuleSource>> {
        match (&file.source, file.origin) {
            (Some(source), _) => Some(Rc::clone(source)),
            (None, ModuleOrigin::Prosody) => match read(&file.path) {
                Ok(Content::Module(source, _)) => Some(Rc::new(source)),
                _ => None,
            },
            (None, _) => None,
        }
    }

    /// Whether a custom directory has content, or cannot be read.
    pub fn has_custom(&self) -> bool {
        let mut users = self.folders.iter().filter(|folder| folder.origin == ModuleOrigin::User);
        users.any(|folder| self.names_of(folder).all.as_ref().is_none_or(|all| !all.is_empty()))
    }

    /// The origin of another module with the name of a custom one, which is in `file`.
    pub fn behind_users(&self, module: &str, file: &Path) -> Option<ModuleOrigin> {
        let resource = format!("mod_{module}.lua");
        // The custom file may be a link to the other one.
        let file = fs::canonicalize(file).ok()?;
        let is_another =
            |path: PathBuf| fs::canonicalize(path).is_ok_and(|path| path != file && path.is_file());
        let mut others = self.folders.iter().filter(|folder| folder.origin != ModuleOrigin::User);
        others
            .find(|folder| self.candidates(folder, module, &resource).any(is_another))
            .map(|folder| folder.origin)
    }

    /// The names of all modules of every origin. This looks for a module's file in each subdirectory.
    pub fn names(&self) -> &BTreeSet<String> {
        self.all.get_or_init(|| {
            self.folders.iter().flat_map(|folder| self.modules_in(folder)).map(str::to_owned).collect()
        })
    }

    /// The names of the modules in the collection, each with the path of its directory or file.
    pub fn collection(&self) -> BTreeMap<String, PathBuf> {
        let mut modules = BTreeMap::new();
        for folder in self.folders.iter().filter(|folder| folder.origin == ModuleOrigin::Collection) {
            for module in self.modules_in(folder) {
                let is_there = |name: &String| self.names_of(folder).may_hold(name);
                let mut folders = [format!("mod_{module}"), module.to_owned()].into_iter();
                let place = folders.find(is_there).unwrap_or_else(|| format!("mod_{module}.lua"));
                modules.insert(module.to_owned(), folder.path.join(place));
            }
        }
        modules
    }

    fn modules_in<'a>(&'a self, folder: &'a Folder) -> impl Iterator<Item = &'a str> {
        self.names_of(folder).all.iter().flatten().filter_map(move |name| {
            if let Some(module) = name.strip_prefix("mod_").and_then(|name| name.strip_suffix(".lua")) {
                return Some(module);
            }
            let module = name.strip_prefix("mod_").unwrap_or(name);
            let mut files = self.candidates(folder, module, &format!("mod_{module}.lua"));
            (!name.contains('.') && files.any(|path| path.is_file())).then_some(module)
        })
    }

    /// The directories in search order, and whether their names can be read.
    pub fn folders(&self) -> impl Iterator<Item = (&Path, bool)> {
        self.folders.iter().map(|folder| (folder.path.as_path(), self.names_of(folder).all.is_some()))
    }

    /// Messages about the directories that were read so far, one sentence each.
    pub fn problems(&self) -> impl Iterator<Item = &str> {
        self.folders.iter().filter_map(|folder| folder.names.get()?.problem.as_deref())
    }

    /// The Lua libraries among `libraries` that cannot be loaded. If Lua must be asked, it runs as `user`.
    pub fn missing_lua_libraries<'a>(&self, libraries: &BTreeSet<&'a str>, user: &User) -> BTreeSet<&'a str> {
        let unknown: Vec<&str> =
            libraries.iter().copied().filter(|library| !self.has_lua_library(library)).collect();
        if unknown.is_empty() { BTreeSet::new() } else { self.ask_lua(&unknown, user) }
    }

    /// Looks in the default places of Debian's Lua and of upstream Lua.
    fn has_lua_library(&self, library: &str) -> bool {
        let Some(version) = self.lua.as_deref().filter(|_| !BUILT_IN.contains(&library)) else {
            return true;
        };
        // Prosody's own libraries have this prefix since 13.0. In 0.12 they do not.
        let own = library.strip_prefix("prosody.").filter(|_| self.prosody.is_13()).unwrap_or(library);
        let own = own.replace('.', "/");
        let name = library.replace('.', "/");
        let own = ["lua", "so"].map(|kind| self.prosody.source_dir.join(format!("{own}.{kind}")));
        let installed = self.folders.first().filter(|folder| folder.origin == ModuleOrigin::User);
        let installed = installed.map(|folder| folder.path.join("share/lua").join(version));
        let scripts = ["/usr/local/share/lua/", "/usr/share/lua/"]
            .map(|path| PathBuf::from(format!("{path}{version}")));
        let scripts = installed
            .into_iter()
            .chain(scripts)
            .flat_map(|path| [path.join(format!("{name}.lua")), path.join(format!("{name}/init.lua"))]);
        // A C library may contain others: `ssl.x509` is in `ssl.so`.
        let root = name.split('/').next().unwrap_or_default();
        let compiled = ["/usr/local/lib/", "/usr/lib/", &format!("/usr/lib/{ARCH}-linux-gnu/")]
            .map(|path| PathBuf::from(format!("{path}lua/{version}")));
        let compiled = compiled
            .into_iter()
            .flat_map(|path| [path.join(format!("{name}.so")), path.join(format!("{root}.so"))]);
        own.into_iter().chain(scripts).chain(compiled).any(|path| path.is_file())
    }

    /// Asks Prosody's own Lua interpreter, which may be configured with other places. If it fails, no library counts as
    /// missing. There is no deadline: it opens the same files as for Prosody, so Prosody would block on them too.
    fn ask_lua<'a>(&self, libraries: &[&'a str], user: &User) -> BTreeSet<&'a str> {
        // A C library `a` may contain `a.b` (Lua 5.4 manual, package.searchers).
        const SCRIPT: &str = "for _, name in ipairs(arg) do \
             if not (package.preload[name] or package.loaded[name] or package.searchpath(name, package.path) \
             or package.searchpath(name, package.cpath) \
             or package.searchpath(name:match('^[^.]*'), package.cpath)) then print(name) end end";
        let is_path =
            |name: &OsString| name.to_str().is_some_and(|name| name == "PATH" || name.starts_with("LUA_"));
        let environment: Vec<_> = std::env::vars_os().filter(|(name, _)| is_path(name)).collect();
        let Ok(mut lua) = self.prosody.lua_command(user, &environment) else {
            return BTreeSet::new();
        };
        let answer =
            lua.args(["-e", SCRIPT, "-"]).args(libraries).stdin(Stdio::null()).stderr(Stdio::null()).output();
        let Some(answer) = answer.ok().filter(|answer| answer.status.success()) else {
            return BTreeSet::new();
        };
        let answer = String::from_utf8_lossy(&answer.stdout);
        let missing: HashSet<&str> = answer.lines().collect();
        libraries.iter().copied().filter(|library| missing.contains(library)).collect()
    }

    /// Searches the directories in order for a file, as `pluginloader.load_resource` does.
    fn search(&self, plugin: &str, resource: &str) -> Found {
        let mut found = Found::default();
        if !is_plain(plugin) || !is_plain(resource) {
            return found;
        }
        for folder in &self.folders {
            // Files that do not exist. Among them, only dangling links are reported.
            let mut absent = Vec::new();
            for path in self.candidates(folder, plugin, resource) {
                // Prosody's own modules suit this Prosody.
                if folder.origin == ModuleOrigin::Prosody {
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
                        Err(why) => format!("{} {why}", path.display()),
                    },
                    Ok(Content::Nonsense { why, is_fatal }) => {
                        found.problem = Some(Problem { what: format!("{} {why}", path.display()), is_fatal });
                        found.file = Some(self.file(folder, path, None, 0));
                        return found;
                    }
                    Err(error) if is_absent(&error) => {
                        absent.push(path);
                        continue;
                    }
                    Err(error) => match self.unreadable_reason(folder, &path, &error) {
                        Some(why) => why,
                        None => continue,
                    },
                };
                found.pass_over(why);
            }
            for path in absent {
                let top = folder.top(&path);
                let dangling = [path, top].into_iter().find(|path| is_link(path) && !path.exists());
                if let Some(dangling) = dangling {
                    found.pass_over(format!("{} is a link to nothing", dangling.display()));
                }
            }
        }
        found
    }

    /// The message about a file that exists, but that Prosody cannot open and therefore skips.
    fn unreadable_reason(&self, folder: &Folder, path: &Path, error: &io::Error) -> Option<String> {
        // A directory with unreadable names has its own message.
        self.names_of(folder).all.as_ref()?;
        let top = folder.top(path);
        let is_hidden = fs::metadata(path).is_err();
        let what = if is_hidden { &top } else { path };
        Some(format!("{} cannot be read by Prosody's user: {}", what.display(), reason(error)))
    }

    fn file(&self, folder: &Folder, path: PathBuf, source: Option<Rc<ModuleSource>>, digest: u64) -> File {
        File { origin: folder.origin, top: folder.top(&path), path, source, digest }
    }

    /// The paths of a file that Prosody tries in a directory, without those whose first component does not exist.
    fn candidates(
        &self,
        folder: &Folder,
        plugin: &str,
        resource: &str,
    ) -> impl Iterator<Item = PathBuf> + use<> {
        let names = self.names_of(folder);
        // A library's name may contain directories: `muc/util`.
        let is_there = |path: &str| names.may_hold(path.split('/').next().unwrap_or_default());
        let share = self.lua.as_deref().filter(|_| names.may_hold("share"));
        let mut places = Vec::new();
        if is_there(&format!("mod_{plugin}")) {
            places.push(format!("mod_{plugin}/{plugin}/{resource}"));
            places.push(format!("mod_{plugin}/{resource}"));
        }
        if is_there(plugin) {
            places.push(format!("{plugin}/{resource}"));
        }
        if is_there(resource) {
            places.push(resource.to_owned());
        }
        if let Some(lua) = share {
            places.push(format!("share/lua/{lua}/{resource}"));
            places.push(format!("share/lua/{lua}/mod_{plugin}/{resource}"));
        }
        let path = folder.path.clone();
        places.into_iter().map(move |place| path.join(place))
    }

    fn names_of<'a>(&self, folder: &'a Folder) -> &'a Names {
        folder.names.get_or_init(|| Names::read(&folder.path))
    }

    /// Checks that Prosody loads a file with this metadata (`core/modulemanager.lua`, `load_filter_cb`). The error is
    /// the reason if it does not.
    fn is_for_us(&self, source: &ModuleSource) -> Result<(), String> {
        // 0.12 ignores this line.
        let lua = self.lua.as_deref().filter(|_| self.prosody.is_13() && !source.lua.is_empty());
        if let Some(lua) = lua.filter(|lua| source.lua.iter().all(|one| one != lua)) {
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

    /// Prosody's features: the strings in `core/features.lua`.
    fn features(&self) -> &HashSet<String> {
        self.features.get_or_init(|| {
            let path = self.prosody.source_dir.join("core/features.lua");
            let text = trusted_file::beginning(&path, LARGEST).unwrap_or_default();
            let words = Tokens::new(&text).filter_map(|token| match token {
                Token::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
                _ => None,
            });
            words.collect()
        })
    }
}

impl Folder {
    /// The entry of this directory that is or contains `path`.
    fn top(&self, path: &Path) -> PathBuf {
        let below = path.strip_prefix(&self.path).unwrap_or(path);
        self.path.join(below.iter().next().unwrap_or_default())
    }
}

impl Names {
    fn read(folder: &Path) -> Self {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            // Prosody treats such a directory as empty too.
            Err(error) if is_absent(&error) => {
                return Self { all: Some(HashSet::new()), problem: None };
            }
            Err(error) => {
                let problem = format!(
                    "{} cannot be read by Prosody's user ({}), and modules in it do not count: give that user the right",
                    folder.display(),
                    reason(&error)
                );
                return Self { all: None, problem: Some(problem) };
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
        Self { all: Some(all), problem }
    }

    /// Whether a name may exist.
    fn may_hold(&self, name: &str) -> bool {
        self.all.as_ref().is_none_or(|all| all.contains(name))
    }
}

/// Whether a relative path stays below its directory.
fn is_plain(name: &str) -> bool {
    let is_normal = |part| matches!(part, Component::Normal(_));
    !name.is_empty() && !name.contains('\0') && Path::new(name).components().all(is_normal)
}

/// Whether the error means that the file does not exist.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
}

/// The content of a file that can be opened.
enum Content {
    /// A module, and its digest.
    Module(ModuleSource, u64),
    /// Not a module, but Prosody loads it all the same. If that is fatal, it stops Prosody.
    Nonsense { why: &'static str, is_fatal: bool },
}

/// Reads a module's file, up to [`LONGEST`] bytes. Never blocks, whatever the file is.
///
/// # Errors
///
/// If the file cannot be opened; Prosody then tries the next place. A file that can be opened but not read makes
/// Prosody exit: `pluginloader` passes nil to `load_filter_cb`, which does not expect it.
fn read(path: &Path) -> io::Result<Content> {
    let nonsense = |why, is_fatal| Ok(Content::Nonsense { why, is_fatal });
    let too_large =
        || nonsense("is larger than 1 MiB, which no module is: what it needs is not looked for", false);
    let never_ends =
        || nonsense("is no regular file, and Prosody would wait for its end for ever: remove it", true);
    let file = trusted_file::open(path)?;
    let stat = file.stat;
    match file.kind() {
        Kind::Directory => {
            return nonsense(
                "is a directory, and that ends Prosody (Docker makes one where the file to mount does not exist): \
                 remove it, or correct the mount",
                true,
            );
        }
        Kind::Fifo => return never_ends(),
        _ => {}
    }
    let is_regular = file.kind() == Kind::Regular;
    let content = match file.read(LONGEST) {
        Ok(content) => content,
        Err(Error::TooLarge) if is_regular => return too_large(),
        Err(Error::TooLarge) => return never_ends(),
        Err(_) => return nonsense("can be opened and not read, and that ends Prosody: remove it", true),
    };
    let source = source::read(&content);
    if !source.is_lua {
        return nonsense("is not Lua, and Prosody cannot load it: replace or remove it", false);
    }
    // These values change whenever the content does, and are known already.
    let identity = [stat.st_ino as i64, stat.st_size, stat.st_ctime, stat.st_ctime_nsec];
    Ok(Content::Module(source, digest::of(&identity.map(i64::to_be_bytes).concat())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::prosody::Version;
    use crate::os::privileges::as_user;
    use crate::os::users::User;
    use crate::tests::TestDir;
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use std::os::unix::fs::symlink;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    /// The directories with modules below a test's directory, in search order.
    const FOLDERS: [&str; 4] = ["installed", "own", "lib/modules", "collection"];

    /// A user other than root and the user that runs the tests.
    const SOMEBODY: User = User { name: None, uid: 12345, gid: 12345 };

    fn prosody(place: &Path, version: &str) -> Prosody {
        Prosody {
            program: place.join("bin/prosody"),
            source_dir: place.join("lib"),
            plugin_dir: place.join("lib/modules/"),
            data_dir: None,
            version: Version::parse(version),
            interpreter: Some("/nonexistent/lua5.4".into()),
            lua: Some((5, 4)),
        }
    }

    fn modules_of(place: &Path, prosody: &Prosody) -> Modules {
        let users = FOLDERS[..2].iter().map(|folder| place.join(folder));
        Modules::new(prosody, users, place.join("collection"))
    }

    fn modules(place: &Path) -> Modules {
        modules_of(place, &prosody(place, "13.0.1"))
    }

    /// The path of the file that was found, relative to the test's directory.
    fn path(place: &Path, found: &Found) -> Option<String> {
        let path = &found.file.as_ref()?.path;
        Some(path.strip_prefix(place).unwrap().to_str().unwrap().to_owned())
    }

    fn find(place: &Path, module: &str) -> Option<String> {
        path(place, &modules(place).find(module))
    }

    /// The messages about files and directories, without the test's directory.
    fn messages(place: &Path, modules: &Modules, found: &Found) -> Vec<String> {
        let problems = modules.problems().map(str::to_owned);
        let all = problems.chain(found.passed_over.iter().cloned());
        let all = all.chain(found.problem.iter().map(|problem| problem.what.clone()));
        all.map(|text| text.replace(&format!("{}/", place.display()), "")).collect()
    }

    /// Fails if `work` takes so long that it must be blocked.
    fn before_deadline<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || sender.send(work()));
        receiver.recv_timeout(Duration::from_secs(20)).expect("it takes too long")
    }

    // The places and their order were compared with Prosody's `pluginloader.load_resource` and `load_code_ext`.
    const PLACES: [&str; 6] = [
        "mod_x/x/mod_x.lua",
        "mod_x/mod_x.lua",
        "x/mod_x.lua",
        "mod_x.lua",
        "share/lua/5.4/mod_x.lua",
        "share/lua/5.4/mod_x/mod_x.lua",
    ];

    #[test]
    fn a_module_is_found_in_each_place() {
        for file in PLACES {
            for folder in FOLDERS {
                let place = TestDir::new();
                let file = format!("{folder}/{file}");
                place.write(&file, "");
                let found = modules(place.path()).find("x");
                assert_eq!(path(place.path(), &found).as_deref(), Some(&*file));
                let found = found.file.clone().unwrap();
                let top = file.strip_prefix(folder).unwrap().split('/').nth(1).unwrap();
                assert_eq!(found.top, place.path().join(folder).join(top));
                assert_eq!(found.source.is_some(), found.origin != ModuleOrigin::Prosody, "{file}");
            }
        }
        for file in
            ["mod_x", "x.lua", "x/x.lua", "mod_x/x.lua", "mod_x/x", "share/lua/5.3/mod_x.lua", "mod_X.lua"]
        {
            let place = TestDir::new();
            place.write(&format!("own/{file}"), "");
            assert_eq!(find(place.path(), "x"), None, "{file}");
        }
    }

    #[test]
    fn the_first_place_of_the_first_folder_wins() {
        let mut all = Vec::new();
        for folder in FOLDERS {
            for file in PLACES {
                all.push(format!("{folder}/{file}"));
            }
        }
        let place = TestDir::new();
        all.iter().for_each(|file| place.write(file, ""));
        for file in all {
            assert_eq!(find(place.path(), "x"), Some(file.clone()));
            fs::remove_file(place.path().join(file)).unwrap();
        }
        assert_eq!(find(place.path(), "x"), None);
    }

    #[test]
    fn results_are_cached() {
        let place = TestDir::new();
        place.write("own/mod_x.lua", "module:depends('y')");
        let modules = modules(place.path());
        let found = modules.find("x");
        fs::remove_dir_all(place.path().join("own")).unwrap();
        assert!(Rc::ptr_eq(&found, &modules.find("x")));
        assert_eq!(found.file.as_ref().unwrap().source.as_ref().unwrap().modules[0].name, "y");
    }

    #[test]
    fn a_library_is_found_in_each_place() {
        for (library, file) in [
            ("l", "mod_x/x/l.lib.lua"),
            ("l", "mod_x/l.lib.lua"),
            ("l", "x/l.lib.lua"),
            ("l", "l.lib.lua"),
            ("l", "share/lua/5.4/l.lib.lua"),
            ("l", "share/lua/5.4/mod_x/l.lib.lua"),
            ("l", "mod_x/l.lua"),
            ("l", "l.lua"),
            ("l", "mod_l/l.lib.lua"),
            ("l", "mod_l/l/l.lib.lua"),
            ("l", "l/l.lib.lua"),
            ("muc/util", "muc/util.lib.lua"),
            ("muc/util", "mod_x/muc/util.lua"),
            ("muc/util", "mod_muc/util/muc/util.lib.lua"),
            ("muc/util", "muc/util/muc/util.lib.lua"),
        ] {
            for folder in FOLDERS {
                let place = TestDir::new();
                let file = format!("{folder}/{file}");
                place.write(&file, "return 1");
                let found = modules(place.path()).library("x", library);
                assert_eq!(path(place.path(), &found).as_deref(), Some(&*file), "{library}");
                let top = found.file.unwrap().top;
                assert_eq!(top.parent(), Some(&*place.path().join(folder)), "{file}");
            }
        }
        let place = TestDir::new();
        place.write("own/l/l.lua", "");
        place.write("own/mod_l/l.lua", "");
        assert_eq!(modules(place.path()).library("x", "l"), Found::default());
    }

    #[test]
    fn a_library_beside_its_module_wins() {
        let place = TestDir::new();
        // In search order: all places of one name come before the next name.
        let files = ["own/mod_x/l.lib.lua", "collection/l.lib.lua", "own/mod_x/l.lua", "own/l/l.lib.lua"];
        files.iter().for_each(|file| place.write(file, ""));
        for file in files {
            assert_eq!(path(place.path(), &modules(place.path()).library("x", "l")).as_deref(), Some(file));
            fs::remove_file(place.path().join(file)).unwrap();
        }
    }

    #[test]
    fn a_module_for_another_prosody_is_passed_over() {
        let refused = |version: &str, source: &str| {
            let place = TestDir::new();
            place.write(
                "lib/core/features.lua",
                "return { available = set.new{ -- \"none\"\n\t\"one\"; 'two' } }",
            );
            place.write("own/mod_x.lua", source);
            place.write("collection/mod_x/mod_x.lua", "");
            let found = modules_of(place.path(), &prosody(place.path(), version)).find("x");
            assert_eq!(found.problem, None);
            let is_refused = path(place.path(), &found).unwrap() == "collection/mod_x/mod_x.lua";
            assert_eq!(is_refused, !found.passed_over.is_empty());
            found.passed_over.first().map(|why| why.split_once(" is ").unwrap().1.to_owned())
        };
        let for_13 = |source: &str| refused("13.0.1", source);
        for source in [
            "--% lua: 5.4\n",
            "--% lua: 5.1, 5.4\n",
            "--% requires: one, two\n",
            "--% conflicts: none\n",
            "-- % lua: 5.1\n",
            "local x = '\\\n--%lua: 5.1'",
        ] {
            assert_eq!(for_13(source), None, "{source}");
        }
        assert_eq!(
            for_13("--% lua: 5.1, 5.3\n").unwrap(),
            "for Lua 5.1, 5.3, and this Prosody runs on Lua 5.4"
        );
        assert_eq!(
            for_13("x()\n--% requires: one none\n").unwrap(),
            "for a Prosody with the feature none, which 13.0.1 does not have"
        );
        assert_eq!(
            for_13("--% conflicts: none, two\n").unwrap(),
            "not for a Prosody with the feature two, which 13.0.1 has"
        );
        // 0.12 reads these lines too, except `lua`.
        assert_eq!(refused("0.12.3", "--% lua: 5.1\n"), None);
        assert!(refused("0.12.3", "--% requires: none\n").is_some());
    }

    #[test]
    fn a_prosody_without_a_feature_list_has_no_features() {
        let place = TestDir::new();
        place.write("own/mod_x.lua", "--% requires: one\n");
        assert_eq!(find(place.path(), "x"), None);
        place.write("own/mod_x.lua", "--% conflicts: one\n");
        assert_eq!(find(place.path(), "x").as_deref(), Some("own/mod_x.lua"));
    }

    #[test]
    fn prosodys_own_modules_are_read_on_demand() {
        let place = TestDir::new();
        place.write("lib/modules/mod_x.lua", "--% lua: 5.1\nmodule:depends('y')");
        let modules = modules(place.path());
        let file = modules.find("x").file.clone().unwrap();
        assert_eq!((file.source.as_ref(), file.digest), (None, 0));
        assert_eq!(modules.source(&file).unwrap().modules[0].name, "y");
    }

    #[test]
    fn links_are_followed_and_dangling_ones_reported() {
        let place = TestDir::new();
        for (name, target) in [
            ("mod_a", "nothing"),
            ("mod_b.lua", "/nothing"),
            ("mod_c.lua", "mod_c.lua"),
            ("mod_d.lua", "../there"),
        ] {
            fs::create_dir_all(place.path().join("own")).unwrap();
            symlink(target, place.path().join("own").join(name)).unwrap();
        }
        place.write("there", "");
        let modules = modules(place.path());
        let found = |name: &str| messages(place.path(), &modules, &modules.find(name));
        assert_eq!(found("a"), ["own/mod_a is a link to nothing"]);
        assert_eq!(found("b"), ["own/mod_b.lua is a link to nothing"]);
        assert_eq!(
            found("c"),
            ["own/mod_c.lua cannot be read by Prosody's user: Too many symbolic links encountered"]
        );
        assert_eq!(path(place.path(), &modules.find("d")).as_deref(), Some("own/mod_d.lua"));
        assert_eq!(found("d"), Vec::<String>::new());
    }

    #[test]
    fn files_that_prosodys_user_cannot_read_are_passed_over() {
        let place = TestDir::new();
        place.write("own/mod_x.lua", "");
        place.write("own/mod_y/mod_y.lua", "");
        place.write("collection/mod_x.lua", "");
        place.set_mode("own/mod_x.lua", 0o000);
        place.set_mode("own/mod_y", 0o000);
        let (x, y) = as_user(&SOMEBODY, || {
            let modules = modules(place.path());
            let messages = |name: &str| messages(place.path(), &modules, &modules.find(name));
            assert_eq!(path(place.path(), &modules.find("x")).as_deref(), Some("collection/mod_x.lua"));
            (messages("x"), messages("y"))
        })
        .unwrap();
        place.set_mode("own/mod_y", 0o755);
        assert_eq!(x, ["own/mod_x.lua cannot be read by Prosody's user: Permission denied"]);
        assert_eq!(y, ["own/mod_y cannot be read by Prosody's user: Permission denied"]);
    }

    #[test]
    fn an_unreadable_directory_gets_one_message() {
        let place = TestDir::new();
        place.write("own/mod_x.lua", "");
        place.write("own/mod_y/mod_y.lua", "");
        let line = "own cannot be read by Prosody's user (Permission denied), and modules in it do not count: give that \
                    user the right";
        // Prosody opens files without reading the names in a directory.
        for (mode, is_found) in [(0o000, false), (0o111, true)] {
            place.set_mode("own", mode);
            as_user(&SOMEBODY, || {
                let modules = modules(place.path());
                assert!(modules.has_custom());
                for (module, file) in [("x", "own/mod_x.lua"), ("y", "own/mod_y/mod_y.lua"), ("z", "")] {
                    let found = modules.find(module);
                    assert_eq!(messages(place.path(), &modules, &found), [line], "{module}, {mode:o}");
                    let file = Some(file.to_owned()).filter(|file| is_found && !file.is_empty());
                    assert_eq!(path(place.path(), &found), file, "{mode:o}");
                }
                let readable: Vec<bool> = modules.folders().map(|(_, is_readable)| is_readable).collect();
                assert_eq!(readable, [true, false, true, true]);
            })
            .unwrap();
        }
        place.set_mode("own", 0o755);
    }

    #[test]
    fn files_that_stop_prosody_are_fatal() {
        let place = TestDir::new();
        fs::create_dir_all(place.path().join("own/mod_directory.lua")).unwrap();
        fs::create_dir_all(place.path().join("own/mod_below/mod_below.lua")).unwrap();
        mkfifo(&place.path().join("own/mod_fifo.lua"), Mode::S_IRWXU).unwrap();
        symlink("/dev/zero", place.path().join("own/mod_zero.lua")).unwrap();
        symlink("/proc/self/mem", place.path().join("own/mod_memory.lua")).unwrap();
        // A module in a later directory does not help.
        for module in ["directory", "below", "fifo", "zero", "memory"] {
            place.write(&format!("collection/mod_{module}.lua"), "");
        }
        let path = place.path().to_owned();
        let found = before_deadline(move || {
            let modules = modules(&path);
            ["directory", "below", "fifo", "zero", "memory"].map(|module| {
                let found = modules.find(module);
                let problem = found.problem.clone().unwrap();
                assert!(problem.is_fatal && found.passed_over.is_empty(), "{module}");
                (found.file.as_ref().unwrap().source.is_some(), problem.what)
            })
        });
        for ((is_read, what), expected) in found.into_iter().zip([
            "mod_directory.lua is a directory, and",
            "mod_below/mod_below.lua is a directory, and",
            "mod_fifo.lua is no regular file, and",
            "mod_zero.lua is no regular file, and",
            "mod_memory.lua can be opened and not read, and",
        ]) {
            assert!(!is_read);
            assert!(what.contains(&format!("own/{expected}")), "{what}");
        }
    }

    #[test]
    fn a_file_that_is_not_a_module_gets_one_message() {
        let place = TestDir::new();
        for (name, content) in
            [("page", "<!DOCTYPE html>"), ("binary", "local x\0"), ("words", "404: Not Found")]
        {
            place.write(&format!("own/mod_{name}.lua"), content);
        }
        fs::File::create(place.path().join("own/mod_large.lua")).unwrap().set_len(1 << 30).unwrap();
        place.write("own/mod_longest.lua", " ".repeat(LONGEST as usize));
        place.write("own/mod_longer.lua", " ".repeat(LONGEST as usize + 1));
        symlink("/dev/null", place.path().join("own/mod_null.lua")).unwrap();
        let path = place.path().to_owned();
        let [page, binary, words, large, longest, longer, null] = before_deadline(move || {
            let modules = modules(&path);
            ["page", "binary", "words", "large", "longest", "longer", "null"].map(|module| {
                let found = modules.find(module);
                assert!(found.problem.as_ref().is_none_or(|problem| !problem.is_fatal), "{module}");
                messages(&path, &modules, &found)
            })
        });
        assert_eq!(page, ["own/mod_page.lua is not Lua, and Prosody cannot load it: replace or remove it"]);
        assert_eq!(
            binary,
            ["own/mod_binary.lua is not Lua, and Prosody cannot load it: replace or remove it"]
        );
        assert_eq!(words, ["own/mod_words.lua is not Lua, and Prosody cannot load it: replace or remove it"]);
        let too_large = "is larger than 1 MiB, which no module is: what it needs is not looked for";
        assert_eq!(large, [format!("own/mod_large.lua {too_large}")]);
        assert_eq!(longer, [format!("own/mod_longer.lua {too_large}")]);
        assert_eq!([longest, null], [Vec::<String>::new(), Vec::new()]);
    }

    #[test]
    fn a_socket_is_passed_over() {
        let place = TestDir::new();
        fs::create_dir_all(place.path().join("own")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(place.path().join("own/mod_x.lua")).unwrap();
        let modules = modules(place.path());
        let found = modules.find("x");
        assert_eq!(
            messages(place.path(), &modules, &found),
            ["own/mod_x.lua cannot be read by Prosody's user: No such device or address"]
        );
        assert_eq!(found.file, None);
    }

    #[test]
    fn a_large_directory_is_searched_by_its_names() {
        let place = TestDir::new();
        place.write("own/mod_x.lua", "");
        // Links are faster to create than files. On ext4, a file has at most 65,000.
        let file = |number: u32| place.path().join(format!("own/{number}"));
        for number in 0..100_000 {
            match number % 50_000 {
                0 => drop(fs::File::create(file(number)).unwrap()),
                behind => fs::hard_link(file(number - behind), file(number)).unwrap(),
            }
        }
        let path = place.path().to_owned();
        let (messages, names) = before_deadline(move || {
            let modules = modules(&path);
            let found = modules.find("x");
            assert!(found.file.is_some());
            for number in 0..1000 {
                assert_eq!(modules.find(&format!("nothing_{number}")).file, None);
            }
            (messages(&path, &modules, &found), modules.names().clone())
        });
        assert_eq!(
            messages,
            [
                "own holds 100001 files, whose names are read at every start: give modules a folder of their own"
            ]
        );
        assert_eq!(Vec::from_iter(names), ["x"]);
    }

    #[test]
    fn paths_that_are_not_directories_are_empty() {
        let place = TestDir::new();
        place.write("own", "a file");
        place.write("collection/mod_x.lua", "");
        let modules = modules(place.path());
        assert_eq!(path(place.path(), &modules.find("x")).as_deref(), Some("collection/mod_x.lua"));
        assert!(!modules.has_custom());
        assert_eq!(modules.problems().count(), 0);
    }

    #[test]
    fn no_name_escapes_the_directories() {
        let place = TestDir::new();
        for file in [
            "mod_.lua",
            "own/mod_.lua",
            "own/mod_x.lua",
            "etc/passwd",
            "secret.lua",
            "secret.lib.lua",
            "own/a/l.lua",
        ] {
            place.write(file, "x()");
        }
        let modules = modules(place.path());
        let long = "x".repeat(10_000);
        for name in [
            "",
            ".",
            "..",
            "../etc/passwd",
            "../../etc/passwd",
            "/etc/passwd",
            "a/../x",
            "x\0",
            "\0",
            "x\n",
            &long,
        ] {
            assert_eq!(*modules.find(name), Found::default(), "{name:?}");
        }
        for name in ["", "..", "../secret", "../../secret", "/etc/passwd", "a/../l", "\0", &long] {
            assert_eq!(modules.library("x", name), Found::default(), "{name:?}");
            assert_eq!(modules.library(name, "l"), Found::default(), "{name:?}");
        }
    }

    #[test]
    fn all_modules_are_listed() {
        let place = TestDir::new();
        for file in [
            "own/mod_a.lua",
            "own/mod_b/mod_b.lua",
            "own/c/mod_c.lua",
            "own/mod_no/README",
            "own/notes.lua",
            "own/share/lua/5.4/mod_rock.lua",
            "lib/modules/mod_a.lua",
            "lib/modules/muc/mod_muc.lua",
            "collection/mod_a.lua",
            "collection/mod_d/mod_d.lua",
            "collection/mod_e.lua",
            "collection/f/mod_f.lua",
            "collection/ldap.lib.lua",
        ] {
            place.write(file, "");
        }
        fs::create_dir_all(place.path().join("own/mod_b.git")).unwrap();
        let modules = modules(place.path());
        assert_eq!(Vec::from_iter(modules.names()), ["a", "b", "c", "d", "e", "f", "muc"]);
        let collection: Vec<(String, PathBuf)> = modules.collection().into_iter().collect();
        let expected = [("a", "mod_a.lua"), ("d", "mod_d"), ("e", "mod_e.lua"), ("f", "f")];
        let expected =
            expected.map(|(name, top)| (name.to_owned(), place.path().join("collection").join(top)));
        assert_eq!(collection, expected);
        assert!(modules.has_custom());
        assert_eq!(
            ["a", "b", "d", "muc", "z"]
                .map(|name| modules.behind_users(name, &place.path().join("own/mod_a.lua"))),
            [
                Some(ModuleOrigin::Prosody),
                None,
                Some(ModuleOrigin::Collection),
                Some(ModuleOrigin::Prosody),
                None
            ]
        );
        // The image in use today creates such links for its users.
        symlink("../collection/mod_d", place.path().join("own/mod_d")).unwrap();
        assert_eq!(modules.behind_users("d", &place.path().join("own/mod_d/mod_d.lua")), None);
    }

    fn missing(modules: &Modules, libraries: &[&'static str]) -> Vec<&'static str> {
        modules
            .missing_lua_libraries(&libraries.iter().copied().collect(), &User::current())
            .into_iter()
            .collect()
    }

    /// Sets Debian's Lua as the interpreter.
    fn with_lua(mut prosody: Prosody) -> Prosody {
        let answer = std::process::Command::new("lua5.4").arg("-v").output();
        answer.unwrap_or_else(|error| panic!("lua5.4: {error}. This test needs it: apt-get install lua5.4"));
        prosody.interpreter = Some("lua5.4".into());
        prosody
    }

    #[test]
    fn lua_libraries_are_searched_like_lua_does() {
        let place = TestDir::new();
        for file in [
            "lib/util/own.lua",
            "lib/util/compiled.so",
            "installed/share/lua/5.4/rock.lua",
            "installed/share/lua/5.4/rocks/init.lua",
            "installed/share/lua/5.3/older.lua",
            "own/share/lua/5.4/not_there.lua",
        ] {
            place.write(file, "");
        }
        let of = |version: &str| modules_of(place.path(), &with_lua(prosody(place.path(), version)));
        let there = ["string", "_G", "utf8", "util.own", "util.compiled", "rock", "rocks"];
        assert_eq!(missing(&of("13.0.1"), &there), Vec::<&str>::new());
        let not_there = ["bit32", "no.such", "not_there", "older", "prosody.util.none", "util.none"];
        assert_eq!(missing(&of("13.0.1"), &not_there), not_there);
        let all: Vec<&str> = there.into_iter().chain(not_there).collect();
        assert_eq!(missing(&of("13.0.1"), &all), not_there);
        assert_eq!(missing(&of("13.0.1"), &["prosody.util.own"]), Vec::<&str>::new());
        assert_eq!(missing(&of("0.12.3"), &["prosody.util.own"]), ["prosody.util.own"]);
    }

    #[test]
    fn nothing_is_missing_if_lua_does_not_answer() {
        let place = TestDir::new();
        place.write("fails", "#!/bin/sh\nprintf 'no.such\\n'\nexit 1\n");
        place.write("mumbles", "#!/bin/sh\nprintf '\\377\\nother\\n'\n");
        place.write("cannot_be_run", "");
        for interpreter in [None, Some("fails"), Some("mumbles"), Some("cannot_be_run"), Some("nothing")] {
            let mut prosody = prosody(place.path(), "13.0.1");
            prosody.interpreter = interpreter.map(|name| {
                let path = place.path().join(name);
                if name != "nothing" && name != "cannot_be_run" {
                    place.set_mode(name, 0o755);
                }
                path
            });
            let modules = modules_of(place.path(), &prosody);
            assert_eq!(missing(&modules, &["no.such"]), Vec::<&str>::new(), "{interpreter:?}");
        }
        let mut unknown = prosody(place.path(), "13.0.1");
        unknown.lua = None;
        assert_eq!(missing(&modules_of(place.path(), &with_lua(unknown)), &["no.such"]), Vec::<&str>::new());
    }
}
