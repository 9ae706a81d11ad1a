//! The custom files in the configuration directory.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::lua_summary::{self, Summary};
use crate::digest;
use crate::layout::MAIN_FILE;
use crate::os::directory;
use crate::os::trusted_file::{self, Error, Opened};
use crate::settings::types::{Domain, SettingType};

/// The size limit for a custom file, in bytes: a hundred times the size of a file that is written by hand.
const MAX_SIZE: u64 = 1024 * 1024;

/// A custom file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomFile {
    pub path: PathBuf,
    /// The text of a template (`*.j2`); `None` for Lua, which Prosody reads itself.
    pub template: Option<String>,
    pub summary: Summary,
    pub digest: u64,
}

#[cfg(test)]
impl CustomFile {
    /// A file with this text, which is a template if its name ends with `.j2`.
    pub fn example(path: &str, text: &str) -> CustomFile {
        CustomFile {
            path: path.into(),
            template: path.ends_with(".j2").then(|| text.to_owned()),
            summary: lua_summary::summarize(text.as_bytes()),
            digest: digest::of(text.as_bytes()),
        }
    }
}

/// The custom files. Each list is sorted by file name, byte by byte.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CustomFiles {
    /// The custom main file, `prosody.cfg.lua`. With it, the lists are empty.
    pub main: Option<CustomFile>,
    /// The fragments of `PROSODY_EXTRA_CONFIG`, included at the very end.
    pub extra: Vec<CustomFile>,
    /// The fragments in `vhost.d`, included after the virtual hosts.
    pub virtual_hosts: Vec<CustomFile>,
    /// The fragments in `cmpt.d`, included after the components.
    pub components: Vec<CustomFile>,
    /// The templates that replace built-in templates with the same name.
    pub templates: Vec<CustomFile>,
    /// Another image's configuration templates, which are not Lua, each with the setting that replaces it.
    pub left_out: Vec<(PathBuf, &'static str)>,
}

/// Another image's templates among the fragments, and the settings that replace them.
const FOREIGN_TEMPLATES: [(&str, &str); 2] =
    [("modules.cfg.lua", "PROSODY_MODULES_ENABLED"), ("logging.cfg.lua", "PROSODY_LOG_LEVEL")];

/// The file that another image includes depending on `PROSODY_EXTRA_CFG`.
const EXTRA_CFG: &str = "conf.d/extra.cfg.lua";

/// A file that cannot be used.
#[derive(Debug)]
pub struct Problem {
    pub path: PathBuf,
    pub reason: Reason,
}

#[derive(Debug)]
pub enum Reason {
    DanglingLink,
    NotRegular,
    TooLarge,
    NotUtf8,
    WildcardInDirectory,
    Name,
    Untrusted(u32),
    Refused(io::Error),
    Io(io::Error),
}

impl CustomFiles {
    /// Reads the custom files, except hidden files. Missing folders are empty.
    ///
    /// `config_dir`, `templates_dir` and `extra` are the settings `PROSODY_CONFIG_DIR`, `PROSODY_TEMPLATES_DIR` and
    /// `PROSODY_EXTRA_CONFIG`; the last two may be relative to the first. `extra` may be a pattern without a match.
    /// `extra_cfg` is the legacy variable `PROSODY_EXTRA_CFG`: true requires `conf.d/extra.cfg.lua`, false excludes it.
    /// Errors: all files and folders that cannot be used.
    pub fn read(
        config_dir: &Path,
        templates_dir: &Path,
        extra: &Path,
        extra_cfg: Option<bool>,
    ) -> Result<CustomFiles, Vec<Problem>> {
        let main = read_main(&config_dir.join(MAIN_FILE)).map_err(|problem| vec![problem])?;
        if main.is_some() {
            return Ok(CustomFiles { main, ..CustomFiles::default() });
        }
        let mut problems = Vec::new();
        let mut folder = |path: &Path, pattern: &str| read_matching(path, pattern.as_bytes(), &mut problems);
        let virtual_hosts = folder(&config_dir.join("vhost.d"), "*.cfg.lua");
        let components = folder(&config_dir.join("cmpt.d"), "*.cfg.lua");
        let templates = folder(&config_dir.join(templates_dir), "*.j2");
        let extra_file = config_dir.join(EXTRA_CFG);
        let mut extra = read_extra(&config_dir.join(extra), &mut problems);
        if extra_cfg == Some(false) {
            extra.retain(|file| file.path != extra_file);
            problems.retain(|problem| problem.path != extra_file);
        }
        let known_paths =
            extra.iter().map(|file| &file.path).chain(problems.iter().map(|problem| &problem.path));
        if extra_cfg == Some(true) && !known_paths.into_iter().any(|path| *path == extra_file) {
            match read(extra_file) {
                Ok(file) => extra.insert(0, file),
                Err(problem) => problems.push(problem),
            }
        }
        let mut left_out = Vec::new();
        extra.retain(|file| {
            let known = FOREIGN_TEMPLATES.iter().find(|(name, _)| file.path.ends_with(name));
            let setting = known.filter(|_| file.summary.has_markers).map(|(_, setting)| *setting);
            left_out.extend(setting.map(|setting| (file.path.clone(), setting)));
            setting.is_none()
        });
        if problems.is_empty() {
            Ok(CustomFiles { main, extra, virtual_hosts, components, templates, left_out })
        } else {
            Err(problems)
        }
    }

    /// Whether any custom fragment (`conf.d`, `vhost.d`, `cmpt.d`) defines a host.
    pub fn define_host(&self) -> bool {
        self.fragments().any(|file| file.summary.defines_host)
    }

    pub fn has_external_component(&self) -> bool {
        self.fragments().any(|file| file.summary.has_external_component)
    }

    /// Whether any fragment may define `host`: by its name, or with an expression as the name.
    pub fn may_define(&self, host: &Domain) -> bool {
        let is_host = |name: &String| Domain::parse(name).is_ok_and(|name| name == *host);
        self.fragments().any(|file| file.summary.has_unnamed_host || file.summary.hosts.iter().any(is_host))
    }

    /// The Lua files that our current user cannot read. Prosody does not read templates.
    pub fn unreadable(&self) -> Vec<Problem> {
        let lua = self.fragments().filter(|file| file.template.is_none());
        let refused = lua.filter_map(|file| Some((file, trusted_file::open(&file.path).err()?.into())));
        refused
            .map(|(file, error)| Problem { path: file.path.clone(), reason: Reason::Refused(error) })
            .collect()
    }

    pub fn environment(&self) -> BTreeSet<&str> {
        let files = self.fragments().chain(&self.templates).chain(&self.main);
        files.flat_map(|file| &file.summary.environment).map(String::as_str).collect()
    }

    /// All custom fragments, Lua and templates.
    pub fn fragments(&self) -> impl Iterator<Item = &CustomFile> {
        let lists = [&self.extra, &self.virtual_hosts, &self.components];
        lists.into_iter().flatten()
    }
}

/// Whether a main file is another image's template, which Prosody cannot read.
pub fn is_other_images_template(main_file: &Path) -> bool {
    read_main(main_file).is_ok_and(|file| file.is_some_and(|file| file.summary.has_markers))
}

/// Reads a custom main file. Prosody reads it whole, so for a very long one, the beginning is enough here.
fn read_main(path: &Path) -> Result<Option<CustomFile>, Problem> {
    let problem = |reason| Problem { path: path.to_owned(), reason };
    let content = match trusted_file::open(path).and_then(Opened::regular) {
        Ok(file) => file.beginning(MAX_SIZE + 1).map_err(|error| problem(reason(path, error)))?,
        Err(Error::Refused(Errno::ENOENT)) if !path.is_symlink() => return Ok(None),
        Err(error) => return Err(problem(reason(path, error))),
    };
    let summary = lua_summary::summarize(&content);
    Ok(Some(CustomFile { path: path.to_owned(), template: None, summary, digest: digest::of(&content) }))
}

/// The folders and files where custom files may be, with the arguments of [`CustomFiles::read`].
pub fn places(
    config_dir: &Path,
    templates_dir: &Path,
    extra: &Path,
    extra_cfg: Option<bool>,
) -> Vec<PathBuf> {
    let extra = match (extra.parent(), extra.file_name()) {
        (Some(folder), Some(pattern)) if has_wildcard(pattern) => folder,
        _ => extra,
    };
    let extra_file = extra_cfg.filter(|is_required| *is_required).map(|_| Path::new(EXTRA_CFG));
    let places = [Path::new(MAIN_FILE), Path::new("vhost.d"), Path::new("cmpt.d"), templates_dir, extra];
    places.into_iter().chain(extra_file).map(|place| config_dir.join(place)).collect()
}

fn has_wildcard(text: &OsStr) -> bool {
    text.as_bytes().iter().any(|byte| b"*?".contains(byte))
}

/// Reads the files of `PROSODY_EXTRA_CONFIG`: one file, which must exist, or a pattern in a folder.
fn read_extra(path: &Path, problems: &mut Vec<Problem>) -> Vec<CustomFile> {
    match (path.parent(), path.file_name()) {
        (Some(folder), _) if has_wildcard(folder.as_os_str()) => {
            problems.push(Problem { path: path.to_owned(), reason: Reason::WildcardInDirectory });
            Vec::new()
        }
        (Some(folder), Some(pattern)) if has_wildcard(pattern) => {
            read_matching(folder, pattern.as_bytes(), problems)
        }
        _ => read(path.to_owned()).map_err(|problem| problems.push(problem)).into_iter().collect(),
    }
}

/// Reads the files in a folder whose names match, with or without the `.j2` of `.cfg.lua.j2`.
fn read_matching(folder: &Path, pattern: &[u8], problems: &mut Vec<Problem>) -> Vec<CustomFile> {
    let names = match list(folder, pattern) {
        Ok(names) => names,
        Err(Error::Refused(Errno::ENOENT)) => return Vec::new(),
        Err(error) => {
            problems.push(Problem { path: folder.to_owned(), reason: reason(folder, error) });
            return Vec::new();
        }
    };
    let mut files = Vec::new();
    for name in names {
        if name.to_str().is_none_or(|name| name.contains(['*', '?'])) {
            problems.push(Problem { path: folder.join(name), reason: Reason::Name });
            continue;
        }
        match read(folder.join(name)) {
            Ok(file) => files.push(file),
            Err(problem) => problems.push(problem),
        }
    }
    files
}

fn list(folder: &Path, pattern: &[u8]) -> Result<Vec<OsString>, Error> {
    let mut names = directory::list(folder)?;
    names.retain(|name| {
        let bytes = name.as_bytes();
        let without_j2 = bytes.strip_suffix(b".j2").filter(|rest| rest.ends_with(b".cfg.lua"));
        let is_match = matches(pattern, bytes) || without_j2.is_some_and(|rest| matches(pattern, rest));
        is_match && !bytes.starts_with(b".")
    });
    names.sort_unstable();
    Ok(names)
}

/// Whether a name matches a pattern with `*` (any bytes) and `?` (any one byte), as in Prosody's `Include`.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // The last asterisk, and the end of its match. Earlier ones never need to match more.
    let mut asterisk = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                asterisk = Some((p, n));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[n] => (p, n) = (p + 1, n + 1),
            _ => match asterisk {
                Some((at, reach)) => {
                    asterisk = Some((at, reach + 1));
                    (p, n) = (at + 1, reach + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

fn read(path: PathBuf) -> Result<CustomFile, Problem> {
    let contents = || {
        let content = trusted_file::read(&path, MAX_SIZE).map_err(|error| reason(&path, error))?;
        let summary = lua_summary::summarize(&content);
        let digest = digest::of(&content);
        let is_template = path.extension() == Some(OsStr::new("j2"));
        let template = is_template.then(|| String::from_utf8(content)).transpose();
        Ok((template.map_err(|_| Reason::NotUtf8)?, summary, digest))
    };
    match contents() {
        Ok((template, summary, digest)) => Ok(CustomFile { path, template, summary, digest }),
        Err(reason) => Err(Problem { path, reason }),
    }
}

/// The reason why a file cannot be opened or read.
fn reason(path: &Path, error: Error) -> Reason {
    match error {
        Error::Refused(Errno::ENOENT) if path.is_symlink() => Reason::DanglingLink,
        // open(2) refuses a socket with ENXIO.
        Error::Irregular(_) | Error::Refused(Errno::ENXIO) => Reason::NotRegular,
        Error::TooLarge => Reason::TooLarge,
        Error::Untrusted(owner) => Reason::Untrusted(owner),
        error => Reason::Io(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::TestDir;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    fn read_files(directory: &TestDir) -> Result<CustomFiles, Vec<Problem>> {
        CustomFiles::read(directory.path(), Path::new("templates"), Path::new("conf.d/*.cfg.lua"), None)
    }

    fn names(files: &[CustomFile]) -> Vec<&str> {
        files.iter().map(|file| file.path.file_name().unwrap().to_str().unwrap()).collect()
    }

    /// The only problem, as a sentence.
    fn problem(result: Result<CustomFiles, Vec<Problem>>) -> String {
        let problems = result.unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems[0].to_string()
    }

    #[test]
    fn another_images_templates_are_left_out() {
        let directory = TestDir::new();
        directory
            .write("conf.d/logging.cfg.lua", "log = {\n ${PROSODY_LOG_LEVEL:-info} = \"*console\";\n}\n");
        directory
            .write("conf.d/modules.cfg.lua", "x = '${PROSODY_CORE_MODULES}' -- ${PROSODY_COMM_MODULES}\n");
        let files = read_files(&directory).unwrap();
        assert_eq!(names(&files.extra), ["modules.cfg.lua"]);
        assert_eq!(files.left_out, [(directory.path().join("conf.d/logging.cfg.lua"), "PROSODY_LOG_LEVEL")]);

        let main = directory.path().join("prosody.cfg.lua");
        assert!(!is_other_images_template(&main), "absent");
        directory.write("prosody.cfg.lua", "VirtualHost \"${PROSODY_DEFAULT_VIRTUALHOST:-localhost}\"\n");
        assert!(!is_other_images_template(&main), "a string is Lua, whatever is in it");
        directory.write("prosody.cfg.lua", "allow_registration = ${PROSODY_ALLOW_REGISTRATION:-false}\n");
        assert!(is_other_images_template(&main));
    }

    #[test]
    fn the_legacy_switch_requires_or_excludes_the_extra_file() {
        let directory = TestDir::new();
        let read = |extra: &str, extra_cfg| {
            CustomFiles::read(directory.path(), Path::new("templates"), Path::new(extra), extra_cfg)
        };
        assert!(problem(read("conf.d/*.cfg.lua", Some(true))).contains("conf.d/extra.cfg.lua"));
        assert!(read("conf.d/*.cfg.lua", Some(false)).is_ok());
        directory.write("conf.d/extra.cfg.lua", "");
        directory.write("conf.d/a.cfg.lua", "");
        for (extra, extra_cfg, expected) in [
            ("conf.d/*.cfg.lua", None, &["a.cfg.lua", "extra.cfg.lua"][..]),
            ("conf.d/*.cfg.lua", Some(true), &["a.cfg.lua", "extra.cfg.lua"]),
            ("conf.d/*.cfg.lua", Some(false), &["a.cfg.lua"]),
            ("conf.d/a.cfg.lua", Some(true), &["extra.cfg.lua", "a.cfg.lua"]),
        ] {
            assert_eq!(names(&read(extra, extra_cfg).unwrap().extra), expected, "{extra} {extra_cfg:?}");
        }
    }

    #[test]
    fn an_absent_directory_has_no_files() {
        let directory = TestDir::new();
        assert_eq!(read_files(&directory).unwrap(), CustomFiles::default());
        let absent = directory.path().join("absent");
        let files = CustomFiles::read(&absent, Path::new("templates"), Path::new("conf.d/*.cfg.lua"), None);
        assert_eq!(files.unwrap(), CustomFiles::default());
    }

    #[test]
    fn files_are_found_in_their_folders_and_sorted() {
        let directory = TestDir::new();
        for file in [
            "conf.d/b.cfg.lua", "conf.d/a.cfg.lua.j2", "conf.d/B.cfg.lua", "conf.d/10.cfg.lua",
            "conf.d/.hidden.cfg.lua", "conf.d/b.cfg.lua~", "conf.d/notes.txt", "conf.d/other.j2",
            "vhost.d/x.cfg.lua", "cmpt.d/y.cfg.lua", "templates/README",
        ] {
            directory.write(file, "");
        }
        directory.write("templates/global.cfg.lua.j2", "VirtualHost {{ host }}");
        let files = read_files(&directory).unwrap();
        assert_eq!(names(&files.extra), ["10.cfg.lua", "B.cfg.lua", "a.cfg.lua.j2", "b.cfg.lua"]);
        assert_eq!(names(&files.virtual_hosts), ["x.cfg.lua"]);
        assert_eq!(names(&files.components), ["y.cfg.lua"]);
        assert_eq!(names(&files.templates), ["global.cfg.lua.j2"]);
        assert_eq!(files.extra[0].path, directory.path().join("conf.d/10.cfg.lua"));
        assert!(!files.define_host());
    }

    #[test]
    fn summaries_of_all_files_are_combined() {
        let directory = TestDir::new();
        directory.write("conf.d/a.cfg.lua", "x = ENV_A");
        directory.write("vhost.d/b.cfg.lua.j2", "VirtualHost {{ domain }}\ny = os.getenv('B')");
        directory.write("templates/c.j2", "VirtualHost {{ host }}\nz = ENV_C");
        let files = read_files(&directory).unwrap();
        assert!(files.define_host());
        assert_eq!(files.environment(), BTreeSet::from(["A", "B", "C"]));
        assert_eq!(files.extra[0].template, None);
        assert!(files.virtual_hosts[0].template.as_ref().unwrap().starts_with("VirtualHost {{"));
    }

    #[test]
    fn a_custom_main_file_excludes_all_other_files() {
        let directory = TestDir::new();
        let long = format!("{}VirtualHost 'b'", "-- comment\n".repeat(200_000));
        directory.write("prosody.cfg.lua", format!("VirtualHost (ENV_A)\n{long}"));
        directory.write("conf.d/a.cfg.lua", "");
        let files = read_files(&directory).unwrap();
        assert_eq!(files.environment(), BTreeSet::from(["A"]));
        assert_eq!(files.main.unwrap().path, directory.path().join("prosody.cfg.lua"));
        assert!(files.extra.is_empty());
    }

    #[test]
    fn a_main_file_must_be_a_regular_file() {
        let directory = TestDir::new();
        directory.write("prosody.cfg.lua/file", "");
        assert!(problem(read_files(&directory)).contains("is not a regular file"));

        let directory = TestDir::new();
        symlink("gone", directory.path().join("prosody.cfg.lua")).unwrap();
        assert!(problem(read_files(&directory)).contains("link to nothing"));
    }

    #[test]
    fn every_unusable_file_is_named() {
        let directory = TestDir::new();
        let path = |name: &str| directory.path().join("conf.d").join(name);
        directory.write("conf.d/directory.cfg.lua/x", "");
        directory.write("conf.d/large.cfg.lua", vec![b'-'; 1024 * 1024 + 1]);
        directory.write("conf.d/latin1.cfg.lua.j2", b"-- caf\xe9");
        directory.write("conf.d/latin1.cfg.lua", b"-- caf\xe9");
        directory.write("conf.d/limit.cfg.lua", vec![b'-'; 1024 * 1024]);
        symlink("gone", path("link.cfg.lua")).unwrap();
        symlink("/dev/zero", path("zero.cfg.lua")).unwrap();
        nix::unistd::mkfifo(&path("fifo.cfg.lua"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        let _socket = UnixListener::bind(path("socket.cfg.lua")).unwrap();

        let problems = read_files(&directory).unwrap_err();
        let messages: Vec<String> = problems
            .iter()
            .map(|problem| {
                let text = problem.to_string();
                text.strip_prefix(&format!("{}/conf.d/", directory.path().display())).unwrap().to_owned()
            })
            .collect();
        assert_eq!(
            messages,
            [
                "directory.cfg.lua: is not a regular file; remove or rename it",
                "fifo.cfg.lua: is not a regular file; remove or rename it",
                "large.cfg.lua: is larger than 1 MiB; split it",
                "latin1.cfg.lua.j2: is not UTF-8, which a template must be; save it as UTF-8",
                "link.cfg.lua: is a link to nothing; correct or remove it",
                "socket.cfg.lua: is not a regular file; remove or rename it",
                "zero.cfg.lua: is not a regular file; remove or rename it",
            ]
        );
    }

    #[test]
    fn root_reads_nothing_through_a_link_whose_owner_cannot() {
        let (directory, elsewhere) = (TestDir::new(), TestDir::new());
        let path = |name: &str| directory.path().join(name);
        elsewhere.write("root.cfg.lua", "secret");
        elsewhere.set_mode("root.cfg.lua", 0o600);
        directory.write("conf.d/theirs.cfg.lua.j2", "{{ domain }}");
        directory.write("..data/secret.cfg.lua.j2", "secret");
        symlink("../..data/secret.cfg.lua.j2", path("conf.d/kubernetes.cfg.lua.j2")).unwrap();
        symlink(elsewhere.path().join("root.cfg.lua"), path("conf.d/x.cfg.lua.j2")).unwrap();
        symlink(elsewhere.path(), path("vhost.d")).unwrap();
        assert_eq!(names(&read_files(&directory).unwrap().extra).len(), 3, "links of our own");
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        for name in ["conf.d", "conf.d/theirs.cfg.lua.j2", "conf.d/x.cfg.lua.j2", "vhost.d"] {
            std::os::unix::fs::lchown(path(name), Some(12345), Some(12345)).unwrap();
        }
        directory.set_mode("conf.d/theirs.cfg.lua.j2", 0o600);
        directory.set_mode("..data/secret.cfg.lua.j2", 0o600);
        elsewhere.set_mode("", 0o700);
        let problems = read_files(&directory).unwrap_err();
        let refused: Vec<&Path> = problems.iter().map(|problem| problem.path.as_path()).collect();
        assert_eq!(refused, [path("vhost.d"), path("conf.d/x.cfg.lua.j2")]);
        assert!(problems.iter().all(|problem| problem.to_string().contains("a link of uid 12345")));
        // The directory may be listed, and the file in it may not be read.
        elsewhere.set_mode("", 0o755);
        let problems = read_files(&directory).unwrap_err();
        assert_eq!(problems[0].path, path("vhost.d/root.cfg.lua"));
    }

    #[test]
    fn a_file_in_place_of_a_folder_is_an_error() {
        let directory = TestDir::new();
        directory.write("vhost.d", "");
        assert!(problem(read_files(&directory)).contains("vhost.d: Not a directory"));
    }

    #[test]
    fn extra_configuration_is_one_file_or_a_pattern() {
        let directory = TestDir::new();
        directory.write("conf.d/extra.cfg.lua", "");
        directory.write("own/a1.lua", "");
        directory.write("own/a22.lua", "");
        directory.write("own/b1.lua", "");
        let read =
            |extra: &str| CustomFiles::read(directory.path(), Path::new("templates"), Path::new(extra), None);

        assert_eq!(names(&read("conf.d/extra.cfg.lua").unwrap().extra), ["extra.cfg.lua"]);
        assert_eq!(names(&read("own/a?.lua").unwrap().extra), ["a1.lua"]);
        let absolute = format!("{}/own/*1.lua", directory.path().display());
        assert_eq!(names(&read(&absolute).unwrap().extra), ["a1.lua", "b1.lua"]);
        assert!(read("nowhere/*.lua").unwrap().extra.is_empty());

        assert!(problem(read("conf.d/missing.cfg.lua")).contains("missing.cfg.lua: No such file"));
        assert!(problem(read("conf.d")).contains("not a regular file"));
        assert!(problem(read("*/extra.cfg.lua")).contains("PROSODY_EXTRA_CONFIG"));
    }

    #[test]
    fn patterns_match_as_in_prosody() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("*.cfg.lua", "a.cfg.lua", true),
            ("*.cfg.lua", ".cfg.lua", true),
            ("*.cfg.lua", "a.cfg.lua.bak", false),
            ("*.cfg.lua", "aXcfgXlua", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[ab]", "a", false),
            ("[ab]", "[ab]", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }
}
