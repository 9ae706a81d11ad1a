//! Facts: a snapshot of the image and the custom files. This stage reads and never writes.

pub mod custom_files;
pub mod identity;
pub mod lua_summary;
pub mod prosody;
pub mod running;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::lua::Value;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{AccessFlags, Pid, Uid, faccessat, geteuid, gethostname};

use self::custom_files::CustomFiles;
use self::identity::Requested;
use self::lua_summary::TlsFile;
use self::prosody::Prosody;
use crate::digest;
use crate::exit_status::{ExitStatus, Failure};
use crate::layout::{
    self, COLLECTION_DIR, CONFIG_DIR, CURRENT, DATA_DIR, MAIN_FILE, MODULES_ENABLED_DIR, ROOT_ANCHOR,
    RUNTIME_DIR, SQLITE_FILE, TLS_GROUPS_FILE,
};
use crate::os::directory;
use crate::os::privileges::{self, Capability};
use crate::os::system::addresses_of;
use crate::os::users::User;
use crate::settings::catalogue::Field;
use crate::settings::types::{Domain, Proxy, SettingType};
use crate::settings::{Settings, catalogue, input};

/// Stands for an unknown user. With that error, nothing is written or started.
const NOBODY: u32 = 65534;

/// The directories of another image for volumes, with the setting for each.
const OTHER_IMAGES_PLACES: [(&str, Field); 2] =
    [("/usr/local/etc/prosody/certs", Field::certificates), ("/usr/local/var/lib/prosody", Field::data_dir)];

/// Everything that a plan depends on besides settings.
pub struct Facts {
    pub prosody: Prosody,
    /// The folders of custom modules, in Prosody's search order. `prosodyctl install` puts modules and their Lua
    /// libraries into the first.
    pub module_folders: Vec<PathBuf>,
    pub collection: PathBuf,
    pub identity: User,
    pub config_dir: PathBuf,
    /// The sorted names in the configuration directory.
    pub entries: Vec<OsString>,
    pub custom_files: CustomFiles,
    pub data_dir: PathBuf,
    pub runtime_dir: PathBuf,
    pub hostname: String,
    pub has_data_of_hostname: bool,
    pub has_sqlite_file: bool,
    pub ipv6: bool,
    /// The first port that every user may bind (ip(7), `ip_unprivileged_port_start`).
    pub first_free_port: u16,
    /// The folders of custom modules without `PROSODY_PLUGIN_PATHS`.
    pub default_plugin_paths: Vec<PathBuf>,
    /// The files from which Prosody can read a secret itself, by the setting's field.
    pub secret_files: BTreeMap<&'static str, SecretFile>,
    /// The addresses of the proxies in `PROSODY_TRUSTED_PROXIES`, by host name. A name that does not resolve has none.
    pub proxies: BTreeMap<String, BTreeSet<IpAddr>>,
    /// The files of certificates and keys that Prosody's user cannot read, each with the file or variable that names it.
    pub unreadable_tls_files: Vec<(String, TlsFile)>,
    pub has_root_anchor: bool,
    /// The names of the TLS groups that OpenSSL has. Empty if the image does not say.
    pub tls_groups: Vec<String>,
    pub problems: Vec<Problem>,
}

/// A file with a secret that Prosody reads itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    pub path: String,
    pub digest: u64,
}

/// A problem that the user can fix.
#[derive(Debug)]
pub enum Problem {
    /// Prosody's own modules are hidden: for example, this one is missing.
    HiddenModules {
        missing: &'static str,
    },
    /// `plugin_paths` in `PROSODY_OPTIONS` is not a list of absolute paths.
    PluginPathsNoList,
    NoPluginPath(PathBuf),
    NoCollection(PathBuf),
    /// The DNSSEC trust anchor is installed, and cannot be read.
    RootAnchor(io::Error),
    /// A directory has the place of another image's volume, and the setting for such directories is not set.
    OtherImagesPlace(&'static str, Field),
    CustomFile(custom_files::Problem),
    /// No user can be chosen to run Prosody. Nothing is written or started.
    Identity(String),
    /// Prosody's user cannot read a custom file.
    Unreadable(custom_files::Problem),
}

/// The configuration, data and runtime directories. They are needed even with a custom main file.
#[derive(Debug, Clone)]
pub struct Places {
    pub config_dir: PathBuf,
    pub data_dir: PathBuf,
    pub runtime_dir: PathBuf,
}

impl Places {
    /// The places from the settings, or their defaults.
    pub fn find(settings: &Settings) -> Self {
        let entrypoint = &settings.entrypoint;
        let path = |setting: &Option<crate::settings::types::Path>, default: &str| {
            setting.as_ref().map_or_else(|| PathBuf::from(default), |path| path.as_ref().to_owned())
        };
        let runtime_dir = match &entrypoint.runtime_dir {
            Some(path) => path.as_ref().to_owned(),
            None => default_runtime_dir(geteuid()),
        };
        Self {
            config_dir: path(&entrypoint.config_dir, CONFIG_DIR),
            data_dir: path(&entrypoint.data_dir, DATA_DIR),
            runtime_dir,
        }
    }

    /// The places of the server that runs in this container. With `docker exec`, our user may differ from the server's.
    pub fn of_running(settings: &Settings) -> Self {
        let mut places = Self::find(settings);
        if settings.entrypoint.runtime_dir.is_none() {
            let candidates =
                [Some(PathBuf::from(RUNTIME_DIR)), privileges::uid_of(Pid::from_raw(1)).map(shm_dir)];
            let running = candidates.into_iter().flatten().find(|directory| {
                // A directory without search permission exists.
                !current_generation(directory).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
            });
            places.runtime_dir = running.unwrap_or(places.runtime_dir);
        }
        places
    }

    /// The custom main file, if any. It replaces the rendered one.
    pub fn custom_main_file(&self) -> Option<PathBuf> {
        let file = self.config_dir.join(MAIN_FILE);
        fs::symlink_metadata(&file).is_ok().then_some(file)
    }

    /// The main file of the current generation, if any.
    /// Errors: EACCES if the runtime directory cannot be searched.
    pub fn current_main_file(&self) -> io::Result<Option<PathBuf>> {
        let file = current_generation(&self.runtime_dir).map(|generation| generation.join(MAIN_FILE));
        match file.and_then(|file| fs::symlink_metadata(&file).map(|_| file)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
            Err(_) => Ok(None),
        }
    }
}

/// `/run/prosody`, or if it is not writable, a directory on `/dev/shm`. The latter is writable even with a read-only
/// root file system.
fn default_runtime_dir(uid: Uid) -> PathBuf {
    let default = PathBuf::from(RUNTIME_DIR);
    let is_missing = !default.exists();
    if is_writable(&default) || (is_missing && default.parent().is_some_and(is_writable)) {
        default
    } else {
        shm_dir(uid)
    }
}

fn shm_dir(uid: Uid) -> PathBuf {
    PathBuf::from(format!("/dev/shm/prosody-{uid}"))
}

/// Whether there is a directory. Looks twice, so that an error that is over at once does not count as an answer.
fn is_directory(path: &Path) -> bool {
    (0..2).any(|_| path.is_dir())
}

/// Whether this process can create files in a directory (faccessat(2), with the effective user).
pub fn is_writable(directory: &Path) -> bool {
    let mode = AccessFlags::W_OK | AccessFlags::X_OK;
    faccessat(AT_FDCWD, directory, mode, AtFlags::AT_EACCESS).is_ok()
}

impl Facts {
    /// Takes the snapshot. Problems that the user can fix are in [`Facts::problems`].
    ///
    /// `user` is the user of a running Prosody. Without it, the settings decide.
    /// Errors: 127 if Prosody is not installed; 77 if it cannot run as the chosen user.
    pub fn gather(settings: &Settings, places: Places, user: Option<&User>) -> Result<Self, Failure> {
        let mut problems = Vec::new();
        let prosody = prosody::find(std::env::var_os("PATH").as_deref())?;
        problems.extend(prosody.hidden_module().map(|missing| Problem::HiddenModules { missing }));
        let Places { config_dir, data_dir, runtime_dir } = places;
        let is_unused =
            |(path, field): &(&str, Field)| !settings.is_given(*field) && Path::new(path).is_dir();
        let unused = OTHER_IMAGES_PLACES.into_iter().filter(is_unused);
        problems.extend(unused.map(|(path, field)| Problem::OtherImagesPlace(path, field)));
        let default_plugin_paths = default_plugin_paths(&config_dir).into_iter();
        let default_plugin_paths: Vec<PathBuf> =
            default_plugin_paths.filter(|path| is_directory(path)).collect();
        let plugin_paths = plugin_paths(settings).unwrap_or_else(|problem| {
            problems.extend(problem);
            default_plugin_paths.clone()
        });
        let missing = plugin_paths.iter().filter(|path| !path.is_dir());
        problems.extend(missing.map(|path| Problem::NoPluginPath(path.clone())));
        let collection: Option<PathBuf> =
            settings.modules.community_modules_dir.as_ref().map(|path| path.as_ref().to_owned());
        problems.extend(collection.iter().filter(|path| !path.is_dir()).cloned().map(Problem::NoCollection));
        // Prosody searches the folder of `prosodyctl install` first.
        let installed = prosody.data_dir.as_ref().unwrap_or(&data_dir).join("custom_plugins");

        let custom_files = read_user_files(settings, &config_dir).unwrap_or_else(|found| {
            problems.extend(found.into_iter().map(Problem::CustomFile));
            CustomFiles::default()
        });
        let mut unknown = None;
        let identity = match user.map_or_else(|| identity(settings, &data_dir), |user| Ok(*user)) {
            // Go on, to find the other problems too.
            Err(failure) if failure.status == ExitStatus::CONFIGURATION => {
                problems.push(Problem::Identity(failure.to_string()));
                unknown = Some(failure);
                User { uid: NOBODY, gid: NOBODY }
            }
            identity => identity?,
        };
        let hostname = gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
        let data_of_hostname = Domain::parse(&hostname).map(|host| prosody::data_name(&host.to_string()));
        let is_known = unknown.is_none();
        let look = || {
            problems.extend(custom_files.unreadable().into_iter().map(Problem::Unreadable));
            (
                is_installed(Path::new(ROOT_ANCHOR)).unwrap_or_else(|problem| {
                    problems.push(problem);
                    true
                }),
                if prosody.is_13() { secret_files(settings) } else { BTreeMap::new() },
                data_of_hostname.is_ok_and(|name| data_dir.join(name).is_dir()),
                data_dir.join(SQLITE_FILE).is_file(),
                if is_known {
                    unreadable_tls_files(settings, &custom_files, &config_dir)
                } else {
                    Vec::new()
                },
            )
        };
        let (has_root_anchor, secret_files, has_data_of_hostname, has_sqlite_file, unreadable_tls_files) =
            as_user(&identity, &data_dir, look).map_err(|failure| unknown.unwrap_or(failure))?;
        Ok(Self {
            has_sqlite_file,
            identity,
            prosody,
            module_folders: [installed].into_iter().chain(plugin_paths).collect(),
            collection: collection.unwrap_or_else(|| COLLECTION_DIR.into()),
            secret_files,
            unreadable_tls_files,
            entries: entries(&config_dir),
            custom_files,
            has_data_of_hostname,
            hostname,
            // An address that cannot be bound is a line in Prosody's log.
            ipv6: fs::exists("/proc/net/if_inet6").unwrap_or(true),
            default_plugin_paths,
            proxies: proxies(settings),
            first_free_port: first_free_port(),
            has_root_anchor,
            tls_groups: tls_groups(),
            config_dir,
            data_dir,
            runtime_dir,
            problems,
        })
    }
}

#[cfg(test)]
impl Facts {
    /// A container with Debian's Prosody 13.0.1 and without custom files.
    pub fn example() -> Self {
        let prosody = Prosody {
            program: "/usr/bin/prosody".into(),
            source_dir: "/usr/lib/prosody".into(),
            plugin_dir: "/usr/lib/prosody/modules".into(),
            data_dir: None,
            version: prosody::Version::parse("13.0.1"),
            interpreter: Some("/usr/bin/lua5.4".into()),
            lua: Some((5, 4)),
        };
        Self {
            prosody,
            module_folders: vec![PathBuf::from(DATA_DIR).join("custom_plugins")],
            collection: COLLECTION_DIR.into(),
            identity: User { uid: 101, gid: 102 },
            config_dir: CONFIG_DIR.into(),
            entries: Vec::new(),
            custom_files: CustomFiles::default(),
            data_dir: DATA_DIR.into(),
            runtime_dir: RUNTIME_DIR.into(),
            hostname: "0123456789ab".to_owned(),
            has_data_of_hostname: false,
            has_sqlite_file: false,
            ipv6: true,
            default_plugin_paths: Vec::new(),
            proxies: BTreeMap::new(),
            first_free_port: 0,
            secret_files: BTreeMap::new(),
            unreadable_tls_files: Vec::new(),
            has_root_anchor: true,
            tls_groups: Vec::new(),
            problems: Vec::new(),
        }
    }
}

/// The first port that every user may bind. 1024 on a kernel that does not say.
fn first_free_port() -> u16 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    text.trim().parse().unwrap_or(1024)
}

fn tls_groups() -> Vec<String> {
    let text = fs::read_to_string(TLS_GROUPS_FILE).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

fn proxies(settings: &Settings) -> BTreeMap<String, BTreeSet<IpAddr>> {
    let proxies = settings.network.trusted_proxies.iter().flat_map(|list| list.iter());
    let hosts = proxies.filter_map(|proxy| match proxy {
        Proxy::Host(host) => Some(host.ascii()),
        Proxy::Network(_) => None,
    });
    hosts.map(|host| (host.to_string(), addresses_of(&host).unwrap_or_default())).collect()
}

/// Like [`privileges::as_user`], before a start. The error names the capability for root's data directory too, which the
/// start will need.
pub fn as_user<T>(user: &User, data_dir: &Path, work: impl FnOnce() -> T) -> Result<T, Failure> {
    privileges::as_user(user, work).map_err(|failure| {
        let is_roots = !fs::metadata(data_dir).is_ok_and(|found| found.uid() != 0);
        let more: &[Capability] = if is_roots && !user.is_root() { &[Capability::CHOWN] } else { &[] };
        privileges::require(user, more).err().unwrap_or(failure)
    })
}

fn is_installed(anchor: &Path) -> Result<bool, Problem> {
    match faccessat(AT_FDCWD, anchor, AccessFlags::R_OK, AtFlags::AT_EACCESS) {
        Ok(()) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(error) => Err(Problem::RootAnchor(error.into())),
    }
}

/// The default folders of custom modules. They may be missing.
fn default_plugin_paths(config_dir: &Path) -> [PathBuf; 2] {
    [config_dir.join("modules"), MODULES_ENABLED_DIR.into()]
}

/// The folders of custom modules in the settings. Those in `PROSODY_OPTIONS` replace ours. `Err(None)` without any.
fn plugin_paths(settings: &Settings) -> Result<Vec<PathBuf>, Option<Problem>> {
    if let Some(paths) = &settings.modules.plugin_paths {
        return Ok(paths.iter().map(|path| path.as_ref().to_owned()).collect());
    }
    let option = settings.anything.options.as_ref().and_then(|options| options.get("plugin_paths"));
    let path = |path: &Value| path.as_str().map(PathBuf::from).filter(|path| path.is_absolute());
    match option {
        None => Err(None),
        Some(None) => Ok(Vec::new()),
        Some(Some(Value::List(paths))) => {
            paths.iter().map(path).collect::<Option<_>>().ok_or(Some(Problem::PluginPathsNoList))
        }
        Some(Some(_)) => Err(Some(Problem::PluginPathsNoList)),
    }
}

/// The files of certificates and keys in options of the settings and custom files that our current user cannot read.
fn unreadable_tls_files(
    settings: &Settings,
    custom_files: &CustomFiles,
    config_dir: &Path,
) -> Vec<(String, TlsFile)> {
    let fragments = custom_files.fragments().map(|file| (file.path.display().to_string(), &file.summary));
    let in_fragments = fragments
        .flat_map(|(file, summary)| summary.tls_files.iter().map(move |found| (file.clone(), found.clone())));
    let is_unreadable = |path: &Path| {
        // Opening a FIFO would wait.
        let opened = fs::File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
        opened.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    };
    let all = in_fragments.chain(tls_files_in_options(settings)).map(|(named_by, file)| {
        let path = config_dir.join(&file.path).to_string_lossy().into_owned();
        (named_by, TlsFile { path, ..file })
    });
    all.filter(|(_, file)| is_unreadable(Path::new(&file.path))).collect()
}

/// The files of certificates and keys in options of the settings, each with the setting's variable.
fn tls_files_in_options(settings: &Settings) -> Vec<(String, TlsFile)> {
    let hosts = settings.hosts.virtual_hosts.iter().flat_map(|list| &list.0);
    let hosts = hosts.map(|host| (Field::virtual_hosts, host.host.to_string(), &host.section.options));
    let components = settings.hosts.components.iter().flat_map(|list| &list.0);
    let components = components.map(|host| (Field::components, host.host.to_string(), &host.section.options));
    let global = settings.anything.options.iter().map(|options| (Field::options, String::new(), options));
    let mut files = Vec::new();
    for (field, host, options) in hosts.chain(components).chain(global) {
        let certificate = options.get("certificate").flatten().and_then(Value::as_str);
        let own_host = Some(host.clone()).filter(|host| !host.is_empty());
        let mut found: Vec<TlsFile> =
            certificate.into_iter().flat_map(|path| TlsFile::with_key(own_host.clone(), path)).collect();
        if let Some(Some(Value::Table(fields))) = options.get("ssl") {
            let fields =
                fields.iter().filter(|(name, _)| matches!(name.as_str(), Some("certificate" | "key")));
            let paths = fields.filter_map(|(_, value)| Some(value.as_str()?.to_owned()));
            found.extend(paths.map(|path| TlsFile { host: Some(host.clone()), path }));
        }
        files.extend(found.into_iter().map(|file| (settings.variable(field), file)));
    }
    files
}

/// Reads the custom files from the places in the settings. Returns every problem as an error.
pub fn read_user_files(
    settings: &Settings,
    config_dir: &Path,
) -> Result<CustomFiles, Vec<custom_files::Problem>> {
    CustomFiles::read(
        config_dir,
        templates_dir(settings),
        extra_config(settings),
        settings.source.legacy.extra_cfg,
    )
}

fn templates_dir(settings: &Settings) -> &Path {
    settings.entrypoint.templates_dir.as_ref().map_or(Path::new("templates"), AsRef::as_ref)
}

fn extra_config(settings: &Settings) -> &Path {
    Path::new(settings.anything.extra_config.as_ref().map_or("conf.d/*.cfg.lua", |glob| glob.as_str()))
}

/// Every place of the operator's configuration: the folders and files of custom files, the folders of custom modules, and
/// the files of `_FILE` variables. They may be missing.
pub fn configuration_places(settings: &Settings, config_dir: &Path) -> Vec<PathBuf> {
    let (templates_dir, extra) = (templates_dir(settings), extra_config(settings));
    let mut places = custom_files::places(config_dir, templates_dir, extra, settings.source.legacy.extra_cfg);
    places.extend(plugin_paths(settings).unwrap_or_else(|_| default_plugin_paths(config_dir).into()));
    // It fails for an empty path only, and without a working directory.
    places.extend(settings.source.files.iter().filter_map(|file| std::path::absolute(file).ok()));
    places
}

/// The secret files that hold one line, as Prosody's `FileLine` expects (since 13.0), by the setting's field.
fn secret_files(settings: &Settings) -> BTreeMap<&'static str, SecretFile> {
    let secrets = catalogue::settings().filter(|setting| setting.secret);
    let found = secrets.filter_map(|setting| {
        let given = settings.source.given.get(&setting.field)?;
        let path = given.file.as_deref()?.to_str().filter(|path| path.starts_with('/'))?;
        // Prosody reads the first line, as its own user.
        let content = input::read_bytes(Path::new(path)).ok()?;
        let line = content.strip_suffix(b"\n").unwrap_or(&content);
        let is_one_line = !given.value.contains(['\r', '\n']) && line == given.value.as_bytes();
        is_one_line.then(|| {
            (
                setting.field.name(),
                SecretFile { path: path.to_owned(), digest: digest::of(given.value.as_bytes()) },
            )
        })
    });
    found.collect()
}

/// The user to run Prosody as, from the settings or else the data directory's owner.
/// Errors: see [`identity::resolve`].
pub fn identity(settings: &Settings, data_dir: &Path) -> Result<User, Failure> {
    let requested = Requested {
        name: settings.entrypoint.user.as_ref().map(|name| name.as_str()),
        uid: settings.entrypoint.uid.map(|id| id.get()),
        gid: settings.entrypoint.gid.map(|id| id.get()),
    };
    identity::resolve(&requested, data_dir)
}

/// The sorted names in the configuration directory; none if it cannot be read.
fn entries(config_dir: &Path) -> Vec<OsString> {
    let mut names = directory::list(config_dir).unwrap_or_default();
    names.sort_unstable();
    names
}

/// The path of the current generation.
/// Errors: ENOENT if there is none, or if a user made the link whose files there do not count ([`is_trusted`]). EACCES
/// if the runtime directory cannot be searched.
pub fn current_generation(runtime_dir: &Path) -> io::Result<PathBuf> {
    // Open the link itself, so that its owner and its target belong together.
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let link = openat(AT_FDCWD, &runtime_dir.join(CURRENT), flags, Mode::empty())?;
    if !is_trusted(fstat(&link)?.st_uid) {
        return Err(Errno::ENOENT.into());
    }
    Ok(runtime_dir.join(readlinkat(&link, "")?))
}

/// Whether files of a user in the runtime directory count: root's, our own, and those of the user of PID 1, who started
/// the server. Other users may be able to create files there too.
fn is_trusted(uid: u32) -> bool {
    let is_starter = |init: Uid| init.as_raw() == uid;
    uid == 0 || is_starter(geteuid()) || privileges::uid_of(Pid::from_raw(1)).is_some_and(is_starter)
}

/// The path of the next generation.
pub fn next_generation(runtime_dir: &Path) -> PathBuf {
    let last = generations(runtime_dir).last().copied().unwrap_or(0);
    runtime_dir.join(layout::generation(last + 1))
}

/// The numbers of the generations in a runtime directory, oldest first.
pub fn generations(runtime_dir: &Path) -> Vec<u64> {
    let names = directory::list(runtime_dir).unwrap_or_default();
    let number = |name: &OsString| layout::generation_number(name.to_str()?);
    let mut numbers: Vec<u64> = names.iter().filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::TestDir;

    #[test]
    fn an_error_about_the_trust_anchor_does_not_count_as_absence() {
        let place = TestDir::new();
        place.write("file", "");
        assert!(is_installed(&place.path().join("file")).unwrap());
        assert!(!is_installed(&place.path().join("absent")).unwrap());
        assert!(is_installed(&place.path().join("file/below")).is_err());
    }
}
