//! Finds modules as Prosody does: its own, custom ones, and those of the community's collection.
//!
//! The names in each directory are read once, when they are first needed. Only the files of wanted modules are read, as
//! Prosody's user, because Prosody must be able to read them too.

pub mod closure;
pub mod readme;
pub mod source;

use std::cell::{Cell, OnceCell};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::env::consts::ARCH;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use std::{fs, io};

use self::source::ModuleSource;
use crate::digest;
use crate::facts::Facts;
use crate::facts::prosody::Prosody;
use crate::lua::tokens::{Token, Tokens};
use crate::os::trusted_file::{self, Error, Kind, LARGEST};
use crate::os::users::User;
use crate::os::{directory, process};
use crate::text::{Advice, reason};

/// The size limit of a module's file, in bytes. The largest community module has 50 kB.
const LONGEST: u64 = 1024 * 1024;

/// The limit for all modules of a start together, in bytes. Each module or library that one of them needs counts as
/// [`NEED`] bytes. Prosody's modules and Debian's
/// collection take a tenth of it.
const ALL: u64 = 32 * 1024 * 1024;

/// What a need counts for, in bytes.
const NEED: u64 = 1024;

/// With more names than this, a directory gets a message, because the names are read at every start.
const MANY: usize = 10_000;

/// The time for Lua to look for libraries. Usually it takes some milliseconds.
const LUA_LIMIT: Duration = Duration::from_secs(10);

/// Libraries that are built into Lua since 5.2, so that there is no file.
const BUILT_IN: [&str; 9] = ["_G", "coroutine", "debug", "io", "math", "os", "package", "string", "table"];

/// Where a module comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModuleOrigin {
    Custom,
    Prosody,
    Collection,
}

impl ModuleOrigin {
    /// The word for it in the output of commands.
    pub fn name(self) -> &'static str {
        match self {
            ModuleOrigin::Custom => "user",
            ModuleOrigin::Prosody => "prosody",
            ModuleOrigin::Collection => "collection",
        }
    }
}

/// A directory with modules.
pub struct Folder {
    pub path: PathBuf,
    origin: ModuleOrigin,
    listing: OnceCell<Listing>,
}

/// The names in a directory.
enum Listing {
    /// There is no such directory. Prosody treats other files in its place so, too.
    Absent,
    Names(HashSet<String>),
    /// Any name may exist.
    Unreadable(io::Error),
}

/// The file of a module or of a library.
#[derive(Debug, Clone, PartialEq)]
pub struct File {
    pub origin: ModuleOrigin,
    /// The path that Prosody opens. For a linked module, the path in the collection.
    pub path: PathBuf,
    /// The target of a link to the module: the entry of the searched directory that is or contains the file.
    pub top: PathBuf,
    /// A digest that changes with the content. 0 if the file was not read.
    pub digest: u64,
}

/// The result of a search.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    pub file: Option<File>,
    /// The needs and metadata of the file. Empty if it was not read.
    pub source: ModuleSource,
    /// Earlier files that Prosody skips, each with the reason: `…/mod_x.lua is for Lua 5.1`.
    pub skipped: Vec<String>,
    pub problem: Option<Problem>,
}

impl Found {
    fn skip(&mut self, why: String) {
        if !self.skipped.contains(&why) {
            self.skipped.push(why);
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

/// Searches for modules.
pub struct Modules {
    /// In Prosody's search order, with the collection last.
    pub folders: Vec<Folder>,
    prosody: Prosody,
    /// Whether the files of Prosody's own modules are read too.
    reads_prosodys_modules: bool,
    /// The version, such as `5.4`. If it is unknown, checks that depend on it pass.
    lua: Option<String>,
    features: OnceCell<HashSet<String>>,
    /// What is left of [`ALL`].
    left: Cell<u64>,
}

impl Modules {
    /// Takes the directories from the facts. `prosodyctl install` puts modules, and the Lua libraries that they need,
    /// into the first custom directory.
    pub fn of(facts: &Facts, reads_prosodys_modules: bool) -> Self {
        let (prosody, collection) = (&facts.prosody, facts.collection.clone());
        let custom = facts.module_folders.iter().map(|path| (path.clone(), ModuleOrigin::Custom));
        let others =
            [(prosody.plugin_dir.clone(), ModuleOrigin::Prosody), (collection, ModuleOrigin::Collection)];
        Self {
            folders: custom.chain(others).map(|(path, origin)| Folder::new(path, origin)).collect(),
            prosody: prosody.clone(),
            reads_prosodys_modules,
            lua: prosody.lua.map(|(major, minor)| format!("{major}.{minor}")),
            features: OnceCell::new(),
            left: Cell::new(ALL),
        }
    }

    pub fn find(&self, module: &str) -> Found {
        self.search(module, &format!("mod_{module}.lua"))
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

    /// Whether a custom directory has content, or cannot be read.
    pub fn has_custom(&self) -> bool {
        let mut custom = self.folders.iter().filter(|folder| folder.origin == ModuleOrigin::Custom);
        custom.any(|folder| folder.names().is_none_or(|mut names| names.next().is_some()))
    }

    /// The origin of another module with the name of a custom one, which is in `file`.
    pub fn shadowed(&self, module: &str, file: &Path) -> Option<ModuleOrigin> {
        let resource = format!("mod_{module}.lua");
        // The custom file may be a link to the other one.
        let file = fs::canonicalize(file).ok()?;
        let is_another =
            |path: PathBuf| fs::canonicalize(path).is_ok_and(|path| path != file && path.is_file());
        let mut others = self.folders.iter().filter(|folder| folder.origin != ModuleOrigin::Custom);
        let places = self.places(module, &resource);
        others.find(|folder| folder.candidates(&places).any(is_another)).map(|folder| folder.origin)
    }

    /// The names of all modules of every origin. This looks for a module's file in each subdirectory.
    pub fn names(&self) -> BTreeSet<String> {
        self.folders.iter().flat_map(|folder| self.modules_in(folder)).map(|(name, _)| name).collect()
    }

    /// The names of the modules in the collection, each with the path of its directory or file.
    pub fn collection(&self) -> BTreeMap<String, PathBuf> {
        self.folders.last().into_iter().flat_map(|folder| self.modules_in(folder)).collect()
    }

    fn modules_in<'a>(&'a self, folder: &'a Folder) -> impl Iterator<Item = (String, PathBuf)> + 'a {
        folder.names().into_iter().flatten().filter_map(move |name| {
            let plain = name.strip_prefix("mod_").unwrap_or(name);
            let module = if plain == name { plain } else { plain.strip_suffix(".lua").unwrap_or(plain) };
            let places = self.places(module, &format!("mod_{module}.lua"));
            let file = folder.candidates(&places).find(|path| !module.contains('.') && path.is_file())?;
            Some((module.to_owned(), folder.top(&file)))
        })
    }

    /// The Lua libraries among `libraries` that cannot be loaded. If Lua must be asked, it runs as `user`.
    /// Errors: a message if Lua does not answer in time. If it fails otherwise, no library counts as missing.
    pub fn missing_lua_libraries<'a>(
        &self,
        libraries: &BTreeSet<&'a str>,
        user: &User,
    ) -> Result<BTreeSet<&'a str>, String> {
        let unknown: Vec<&str> =
            libraries.iter().copied().filter(|library| !self.has_lua_library(library)).collect();
        if unknown.is_empty() { Ok(BTreeSet::new()) } else { self.ask_lua(&unknown, user, LUA_LIMIT) }
    }

    /// Looks in the default places of Debian's Lua and of upstream Lua.
    fn has_lua_library(&self, library: &str) -> bool {
        let Some(version) = self.lua.as_deref().filter(|_| !BUILT_IN.contains(&library)) else { return true };
        // Prosody's own libraries have this prefix since 13.0. In 0.12 they do not.
        let own = library.strip_prefix("prosody.").filter(|_| self.prosody.is_13()).unwrap_or(library);
        let own = own.replace('.', "/");
        let name = library.replace('.', "/");
        // A C library may contain others: `ssl.x509` is in `ssl.so`.
        let root = name.split('/').next().unwrap_or_default();
        let installed = self.folders.first().filter(|folder| folder.origin == ModuleOrigin::Custom);
        let installed = installed.map(|folder| folder.path.join("share"));
        let scripts = installed.into_iter().chain(["/usr/local/share", "/usr/share"].map(PathBuf::from));
        let compiled =
            ["/usr/local/lib", "/usr/lib", &format!("/usr/lib/{ARCH}-linux-gnu")].map(PathBuf::from);
        let in_lua = |folder: PathBuf| folder.join("lua").join(version);
        let scripts =
            scripts.map(|folder| (in_lua(folder), [format!("{name}.lua"), format!("{name}/init.lua")]));
        let compiled = compiled.map(|folder| (in_lua(folder), [format!("{name}.so"), format!("{root}.so")]));
        let own = (self.prosody.source_dir.clone(), [format!("{own}.lua"), format!("{own}.so")]);
        let mut all = scripts.chain(compiled).chain([own]);
        all.any(|(folder, files)| files.iter().any(|file| folder.join(file).is_file()))
    }

    /// Asks Prosody's own Lua interpreter, which may be configured with other places.
    fn ask_lua<'a>(
        &self,
        libraries: &[&'a str],
        user: &User,
        limit: Duration,
    ) -> Result<BTreeSet<&'a str>, String> {
        // A C library `a` may contain `a.b` (Lua 5.4 manual, package.searchers).
        const SCRIPT: &str = "for _, name in ipairs(arg) do \
             if not (package.preload[name] or package.loaded[name] or package.searchpath(name, package.path) \
             or package.searchpath(name, package.cpath) \
             or package.searchpath(name:match('^[^.]*'), package.cpath)) then print(name) end end";
        let is_path =
            |name: &OsString| name.to_str().is_some_and(|name| name == "PATH" || name.starts_with("LUA_"));
        let environment: Vec<_> = std::env::vars_os().filter(|(name, _)| is_path(name)).collect();
        let Ok(mut lua) = self.prosody.lua_command(user, &environment) else { return Ok(BTreeSet::new()) };
        lua.args(["-e", SCRIPT, "-"]).args(libraries).stderr(Stdio::null());
        let answer = match process::output(&mut lua, b"", limit) {
            Ok(answer) if answer.status.success() => answer,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(format!(
                    "{} did not answer within {} s and was killed: Lua libraries that modules need are not looked for",
                    lua.get_program().to_string_lossy(),
                    limit.as_secs()
                ));
            }
            _ => return Ok(BTreeSet::new()),
        };
        let answer = String::from_utf8_lossy(&answer.stdout);
        let missing: HashSet<&str> = answer.lines().collect();
        Ok(libraries.iter().copied().filter(|library| missing.contains(library)).collect())
    }

    /// Searches the directories in order for a file, as `pluginloader.load_resource` does.
    fn search(&self, plugin: &str, resource: &str) -> Found {
        let mut found = Found::default();
        if !is_plain(plugin) || !is_plain(resource) {
            return found;
        }
        let places = self.places(plugin, resource);
        for folder in &self.folders {
            let file = |path, digest| {
                Some(File { origin: folder.origin, top: folder.top(path), path: path.to_owned(), digest })
            };
            // Files that do not exist. Among them, only dangling links are reported.
            let mut absent = Vec::new();
            for path in folder.candidates(&places) {
                // Prosody's own modules suit this Prosody.
                if folder.origin == ModuleOrigin::Prosody {
                    if path.is_file() {
                        found.file = file(&path, 0);
                        if let Some(Ok(Ok((source, _)))) =
                            self.reads_prosodys_modules.then(|| self.read(&path))
                        {
                            found.source = source;
                        }
                        return found;
                    }
                    continue;
                }
                match self.read(&path) {
                    Ok(Ok((source, digest))) => match self.is_for_us(&source) {
                        Ok(()) => return Found { file: file(&path, digest), source, ..found },
                        Err(why) => found.skip(format!("{} {why}", path.display())),
                    },
                    Ok(Err(problem)) => {
                        return Found { file: file(&path, 0), problem: Some(problem), ..found };
                    }
                    Err(error) if is_absent(&error) => absent.push(path),
                    // A directory with unreadable names has its own message.
                    Err(_) if folder.names().is_none() => {}
                    Err(error) => {
                        let is_hidden = fs::metadata(&path).is_err();
                        let what = if is_hidden { folder.top(&path) } else { path };
                        let why = reason(&error);
                        found.skip(format!("{} cannot be read by Prosody's user: {why}", what.display()));
                    }
                }
            }
            for path in absent {
                let top = folder.top(&path);
                let dangling = [path, top].into_iter().find(|path| path.is_symlink() && !path.exists());
                if let Some(dangling) = dangling {
                    found.skip(format!("{} is a link to nothing", dangling.display()));
                }
            }
        }
        found
    }

    /// The relative paths of a file that Prosody tries in each directory.
    fn places(&self, plugin: &str, resource: &str) -> Vec<String> {
        let mut places = vec![
            format!("mod_{plugin}/{plugin}/{resource}"),
            format!("mod_{plugin}/{resource}"),
            format!("{plugin}/{resource}"),
            resource.to_owned(),
        ];
        if let Some(lua) = &self.lua {
            places.push(format!("share/lua/{lua}/{resource}"));
            places.push(format!("share/lua/{lua}/mod_{plugin}/{resource}"));
        }
        places
    }

    /// Reads a module's file, up to [`LONGEST`] bytes. Never blocks, whatever the file is. Returns the module and its digest,
    /// or the problem of a file that is not a module, but that Prosody loads all the same.
    /// Fails if the file cannot be opened; Prosody then tries the next place. A file that can be opened but not read
    /// makes Prosody exit: `pluginloader` passes nil to `load_filter_cb`, which does not expect it.
    fn read(&self, path: &Path) -> io::Result<Result<(ModuleSource, u64), Problem>> {
        let problem =
            |why: &str, is_fatal| Ok(Err(Problem { what: format!("{} {why}", path.display()), is_fatal }));
        let fatal = |why: Advice| problem(&why, true);
        let never_ends =
            || fatal(advice!("is no regular file, and Prosody would wait for its end for ever: remove it"));
        let file = trusted_file::open(path)?;
        let (stat, kind) = (file.stat, file.kind());
        match kind {
            Kind::Directory => {
                return fatal(advice!(
                    "is a directory, and that ends Prosody (Docker makes one where the file to mount does not exist): \
                     remove it, or correct the mount"
                ));
            }
            Kind::Fifo => return never_ends(),
            _ => {}
        }
        let content = match file.read(LONGEST) {
            Ok(content) => content,
            Err(Error::TooLarge) if kind == Kind::Regular => {
                return problem(
                    "is larger than 1 MiB, which no module is: what it needs is not looked for",
                    false,
                );
            }
            Err(Error::TooLarge) => return never_ends(),
            Err(_) => return fatal(advice!("can be opened and not read, and that ends Prosody: remove it")),
        };
        let too_much = || {
            let why = "is not looked at for what it needs: together, the modules have more than 32 MiB or 32,768 needs";
            problem(why, false)
        };
        let Some(left) = self.left.get().checked_sub(content.len() as u64) else { return too_much() };
        self.left.set(left);
        let source = source::read(&content);
        if !source.is_lua {
            return problem(&advice!("is not Lua, and Prosody cannot load it: replace or remove it"), false);
        }
        let needs = source.modules.len() + source.libraries.len() + source.lua_libraries.len();
        let Some(left) = left.checked_sub(needs as u64 * NEED) else { return too_much() };
        self.left.set(left);
        // These values change whenever the content does, and are known already.
        let identity = [stat.st_ino as i64, stat.st_size, stat.st_ctime, stat.st_ctime_nsec];
        Ok(Ok((source, digest::of(&identity.map(i64::to_be_bytes).concat()))))
    }

    /// Checks that Prosody loads a file with this metadata (`core/modulemanager.lua`, `load_filter_cb`). The error is
    /// the reason if it does not.
    fn is_for_us(&self, source: &ModuleSource) -> Result<(), String> {
        // 0.12 ignores this line.
        let lua = self.lua.as_deref().filter(|_| self.prosody.is_13() && !source.lua.is_empty());
        if let Some(lua) = lua.filter(|lua| source.lua.iter().all(|one| one != lua)) {
            return Err(format!("is for Lua {}, and this Prosody runs on Lua {lua}", source.lua.join(", ")));
        }
        let version = &self.prosody.version;
        let has = |feature: &str| self.features().contains(feature);
        if let Some(feature) = source.conflicts.iter().find(|feature| has(feature)) {
            return Err(format!("is not for a Prosody with the feature {feature}, which {version} has"));
        }
        let missing: Vec<&str> =
            source.requires.iter().map(String::as_str).filter(|feature| !has(feature)).collect();
        match &missing[..] {
            [] => Ok(()),
            _ => Err(format!(
                "is for a Prosody with the feature {}, which {version} does not have",
                missing.join(", ")
            )),
        }
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
    fn new(path: PathBuf, origin: ModuleOrigin) -> Self {
        Self { path, origin, listing: OnceCell::new() }
    }

    fn listing(&self) -> &Listing {
        self.listing.get_or_init(|| match directory::list(&self.path).map_err(io::Error::from) {
            Ok(names) => {
                Listing::Names(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
            }
            Err(error) if is_absent(&error) => Listing::Absent,
            Err(error) => Listing::Unreadable(error),
        })
    }

    /// The names in it, or `None` if they cannot be read.
    fn names(&self) -> Option<impl Iterator<Item = &String>> {
        match self.listing() {
            Listing::Absent => Some(None),
            Listing::Names(names) => Some(Some(names)),
            Listing::Unreadable(_) => None,
        }
        .map(|names| names.into_iter().flatten())
    }

    /// The paths of these places in it, without those whose first component does not exist.
    fn candidates(&self, places: &[String]) -> impl Iterator<Item = PathBuf> {
        // A library's name may contain directories: `muc/util`.
        let may_exist = |place: &&String| self.may_hold(place.split('/').next().unwrap_or_default());
        places.iter().filter(may_exist).map(|place| self.path.join(place))
    }

    fn may_hold(&self, name: &str) -> bool {
        match self.listing() {
            Listing::Absent => false,
            Listing::Names(names) => names.contains(name),
            Listing::Unreadable(_) => true,
        }
    }

    /// If the directory was searched, and exists: whether its names can be read.
    pub fn is_readable(&self) -> Option<bool> {
        match self.listing.get()? {
            Listing::Absent => None,
            Listing::Names(_) => Some(true),
            Listing::Unreadable(_) => Some(false),
        }
    }

    /// A message about the directory, if it was searched.
    pub fn problem(&self) -> Option<Advice> {
        let path = self.path.display();
        match self.listing.get()? {
            Listing::Names(names) if names.len() > MANY => Some(advice!(
                "{path} holds {} files, whose names are read at every start: give modules a folder of their own",
                names.len()
            )),
            Listing::Unreadable(error) => Some(advice!(
                "{path} cannot be read by Prosody's user ({}), and modules in it are ignored: make it readable for that user",
                reason(error)
            )),
            _ => None,
        }
    }

    /// The entry of this directory that is or contains `path`.
    fn top(&self, path: &Path) -> PathBuf {
        let below = path.strip_prefix(&self.path).unwrap_or(path);
        self.path.join(below.iter().next().unwrap_or_default())
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

    /// The directories with modules below a test's directory, in search order.
    const FOLDERS: [&str; 4] = ["installed", "own", "lib/modules", "collection"];

    /// A user other than root and the user that runs the tests.
    const SOMEBODY: User = User { uid: 12345, gid: 12345 };

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
        let facts = Facts {
            prosody: prosody.clone(),
            module_folders: FOLDERS[..2].iter().map(|folder| place.join(folder)).collect(),
            collection: place.join("collection"),
            ..Facts::example()
        };
        Modules::of(&facts, false)
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
        let problems = modules.folders.iter().filter_map(|folder| folder.problem()?.to_string().into());
        let all = problems.chain(found.skipped.iter().cloned());
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
                let is_read = found.source.is_lua;
                let found = found.file.unwrap();
                let top = file.strip_prefix(folder).unwrap().split('/').nth(1).unwrap();
                assert_eq!(found.top, place.path().join(folder).join(top));
                assert_eq!(is_read, found.origin != ModuleOrigin::Prosody, "{file}");
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
    fn a_module_for_another_prosody_is_skipped() {
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
            assert_eq!(is_refused, !found.skipped.is_empty());
            found.skipped.first().map(|why| why.split_once(" is ").unwrap().1.to_owned())
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
        let mut modules = modules(place.path());
        assert_eq!(modules.find("x").source, ModuleSource::default());
        modules.reads_prosodys_modules = true;
        let found = modules.find("x");
        assert_eq!((found.source.modules[0].name.as_str(), found.file.unwrap().digest), ("y", 0));
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
    fn files_that_prosodys_user_cannot_read_are_skipped() {
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
        let line = "own cannot be read by Prosody's user (Permission denied), and modules in it are ignored: make it \
                    readable for that user";
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
                let readable: Vec<_> = modules.folders.iter().map(Folder::is_readable).collect();
                assert_eq!(readable, [None, Some(false), None, None]);
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
                assert!(problem.is_fatal && found.skipped.is_empty(), "{module}");
                (found.source.is_lua, problem.what)
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
    fn a_module_with_too_many_needs_is_reported_and_the_others_are_followed() {
        let needs =
            |count: usize| -> String { (0..count).map(|n| format!("module:depends'n{n}'\n")).collect() };
        let place = TestDir::new();
        place.write("own/mod_many.lua", needs(8_000));
        place.write("own/mod_more.lua", needs(40_000));
        let path = place.path().to_owned();
        let [many, more, again] = before_deadline(move || {
            let modules = modules(&path);
            ["many", "more", "many"].map(|module| {
                let found = modules.find(module);
                (found.source.modules.len(), messages(&path, &modules, &found))
            })
        });
        assert_eq!((many, again), ((8_000, Vec::new()), (8_000, Vec::new())));
        let why = "own/mod_more.lua is not looked at for what it needs: together, the modules have more than 32 MiB or \
                   32,768 needs";
        assert_eq!(more, (0, vec![why.to_owned()]));
    }

    #[test]
    fn a_socket_is_skipped() {
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
        let place = TestDir::in_memory();
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
            (messages(&path, &modules, &found), modules.names())
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
        assert!(!modules.has_custom() && modules.folders.iter().all(|folder| folder.problem().is_none()));
    }

    #[test]
    fn no_name_escapes_the_directories() {
        let place = TestDir::new();
        for file in [
            "mod_.lua", "own/mod_.lua", "own/mod_x.lua", "etc/passwd", "secret.lua", "secret.lib.lua",
            "own/a/l.lua",
        ] {
            place.write(file, "x()");
        }
        let modules = modules(place.path());
        let long = "x".repeat(10_000);
        for name in [
            "", ".", "..", "../etc/passwd", "../../etc/passwd", "/etc/passwd", "a/../x", "x\0", "\0", "x\n",
            &long,
        ] {
            assert_eq!(modules.find(name), Found::default(), "{name:?}");
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
        assert_eq!(
            ["a", "b", "d", "muc", "z"]
                .map(|name| modules.shadowed(name, &place.path().join("own/mod_a.lua"))),
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
        assert_eq!(modules.shadowed("d", &place.path().join("own/mod_d/mod_d.lua")), None);
    }

    fn missing(modules: &Modules, libraries: &[&'static str]) -> Vec<&'static str> {
        modules
            .missing_lua_libraries(&libraries.iter().copied().collect(), &User::current())
            .unwrap()
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
    fn lua_is_killed_if_it_does_not_answer_in_time() {
        let place = TestDir::new();
        let process_file = place.path().join("pid");
        place.write("sleeps", format!("#!/bin/sh\necho $$ >{}\nsleep 1000\n", process_file.display()));
        place.set_mode("sleeps", 0o755);
        let mut prosody = prosody(place.path(), "13.0.1");
        prosody.interpreter = Some(place.path().join("sleeps"));
        let modules = modules_of(place.path(), &prosody);
        let limit = Duration::from_secs(1);
        let warning =
            before_deadline(move || modules.ask_lua(&["no.such"], &User::current(), limit)).unwrap_err();
        assert!(warning.contains("/sleeps did not answer within 1 s and was killed: "), "{warning}");
        let pid = fs::read_to_string(process_file).unwrap();
        let stat = format!("/proc/{}/cmdline", pid.trim());
        before_deadline(move || {
            while fs::read(&stat).is_ok_and(|line| !line.is_empty()) {
                thread::yield_now()
            }
        });
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
