//! The installed Prosody: its place, its version, its Lua interpreter and its own modules.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fmt, fs, io};

use anyhow::Context;
use nix::errno::Errno;
use nix::unistd::geteuid;

use crate::exit_status::{ExitStatus, Failure};
use crate::lua;
use crate::os::system;
use crate::os::trusted_file::{self, Error::Refused, LARGEST};
use crate::os::users::User;

/// Length of the program's head, which holds the settings from Prosody's build. In 13.0 they end at byte 600.
const PROGRAM_HEAD: u64 = 8 * 1024;

/// An installed Prosody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prosody {
    /// The program's path, from the search path.
    pub program: PathBuf,
    /// The directory of its Lua code and `prosody.version` (`CFG_SOURCEDIR`).
    pub source_dir: PathBuf,
    /// The directory of its own modules (`CFG_PLUGINDIR`).
    pub plugin_dir: PathBuf,
    /// The data directory of its build (`CFG_DATADIR`). `prosodyctl install` puts modules there, even if the data
    /// directory is another.
    pub data_dir: Option<PathBuf>,
    pub version: Version,
    /// The Lua interpreter in its first line: a path, or a name on the search path.
    pub interpreter: Option<PathBuf>,
    /// Major and minor version of the interpreter; `None` if its name has no version.
    pub lua: Option<(u32, u32)>,
}

/// A version of Prosody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The whole text of `prosody.version`.
    pub text: String,
    /// Major and minor version of a release, or of a nightly build of its branch (`13.0 nightly build 7`): 0 and 12 in
    /// 0.12.3. `None` for any other (`trunk nightly build 1999`, `hg:0123456789ab`, `unknown`), newer than all releases.
    pub release: Option<(u32, u32)>,
}

/// Finds Prosody on a search path (the value of `PATH`; `None` if it is unset).
///
/// Reads only `prosody.version` and the head of the program, which Prosody's build (`configure`, then `make install`)
/// has filled in.
/// Errors: 127 if Prosody is not installed, or cannot be read.
pub fn find(search_path: Option<&OsStr>) -> Result<Prosody, Failure> {
    let is_program = |_: &Path, found: &fs::Metadata| found.mode() & 0o111 != 0;
    let missing = || {
        advice!("Prosody is not installed: there is no program `prosody` on PATH; install it in the image")
    };
    let program = on_path(search_path.unwrap_or_default(), "prosody", is_program)
        .ok_or_else(|| ExitStatus::COMMAND_NOT_FOUND.failure(missing()))?;

    let head = trusted_file::beginning(&program, PROGRAM_HEAD)
        .map_err(|error| unreadable(&program, error.into()))?;
    let head = String::from_utf8_lossy(&head);
    let (Some(source_dir), Some(plugin_dir)) =
        (setting(&head, "CFG_SOURCEDIR"), setting(&head, "CFG_PLUGINDIR"))
    else {
        return Err(ExitStatus::COMMAND_NOT_FOUND.failure(advice!(
            "{} is not an installed Prosody: expected the lines CFG_SOURCEDIR='…' and CFG_PLUGINDIR='…' at its top; put \
             the directory of the installed program first on PATH",
            program.display()
        )));
    };

    let interpreter = head.lines().next().and_then(interpreter);
    let lua = interpreter.and_then(interpreter_version);
    let interpreter = interpreter.map(PathBuf::from);
    let version = Version::read(&source_dir.join("prosody.version"))?;
    let data_dir = setting(&head, "CFG_DATADIR");
    Ok(Prosody { program, source_dir, plugin_dir, data_dir, version, interpreter, lua })
}

fn unreadable(path: &Path, error: io::Error) -> Failure {
    let path = path.display();
    ExitStatus::COMMAND_NOT_FOUND.failure(format!("{path}: {error}; Prosody's files must be readable"))
}

/// The path in the line `NAME='path';`.
fn setting(head: &str, name: &str) -> Option<PathBuf> {
    head.lines().find_map(|line| {
        let value = line.strip_prefix(name)?.strip_prefix("='")?;
        Some(PathBuf::from(value.trim_end().strip_suffix("';")?))
    })
}

/// The interpreter in a first line such as `#!/usr/bin/env lua5.4`.
fn interpreter(line: &str) -> Option<&str> {
    line.strip_prefix("#!")?.split_whitespace().last()
}

/// Lua's version in a name such as `lua5.4` or `/usr/bin/lua54`.
fn interpreter_version(interpreter: &str) -> Option<(u32, u32)> {
    let version = interpreter.rsplit('/').next()?.strip_prefix("lua")?;
    let (major, minor) = version.split_once('.').or_else(|| version.split_at_checked(1))?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

impl Version {
    /// Reads `prosody.version`. A build from a checkout lacks it; Prosody then calls itself "unknown".
    fn read(path: &Path) -> Result<Version, Failure> {
        match trusted_file::beginning(path, LARGEST) {
            Ok(text) => Ok(Version::parse(String::from_utf8_lossy(&text).trim_end())),
            Err(Refused(Errno::ENOENT)) => Ok(Version::parse("unknown")),
            Err(error) => Err(unreadable(path, error.into())),
        }
    }

    /// Parses `prosody.version`: `13.0.1`, `0.12.3`, `13.0 nightly build 7 (2025-04-02, 0123456789ab)`.
    pub fn parse(text: &str) -> Version {
        let number = text.split_whitespace().next().unwrap_or_default();
        let mut parts = number.split('.').map(|part| {
            let digits = part.split(|c: char| !c.is_ascii_digit()).next()?;
            digits.parse().ok()
        });
        let release = parts.next().flatten().zip(parts.next().flatten());
        Version { text: text.to_owned(), release }
    }

    /// Whether this is `major.minor` or newer. `at_least(13, 0)` separates the two supported versions.
    pub fn at_least(&self, major: u32, minor: u32) -> bool {
        self.release.is_none_or(|release| release >= (major, minor))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The name of a host's folder in the data directory: all characters except ASCII letters and digits are
/// percent-encoded (`util/datamanager.lua`).
pub fn data_name(host: &str) -> String {
    host.bytes().fold(String::new(), |mut name, byte| {
        match byte.is_ascii_alphanumeric() {
            true => name.push(byte.into()),
            false => name.push_str(&format!("%{byte:02x}")),
        }
        name
    })
}

/// Finds Prosody's own `prosodyctl` on `PATH`.
/// Errors: 127 if there is none.
pub fn prosodyctl() -> Result<PathBuf, Failure> {
    script(&env::var_os("PATH").unwrap_or_default(), "prosodyctl").ok_or_else(|| {
        ExitStatus::COMMAND_NOT_FOUND.failure("there is no `prosodyctl` on PATH: Prosody is not installed")
    })
}

/// The first file of this name on a search path that is a script, as Prosody's programs are, and this program is not.
/// (Under an emulator such as qemu-user, `/proc/self/exe` is the emulator, and does not tell which file is this program.)
fn script(path: &OsStr, name: &str) -> Option<PathBuf> {
    on_path(path, name, |file, _| trusted_file::beginning(file, 2).is_ok_and(|beginning| beginning == b"#!"))
}

/// The first file of this name on a search path that `is_it`.
pub fn on_path(path: &OsStr, name: &str, is_it: impl Fn(&Path, &fs::Metadata) -> bool) -> Option<PathBuf> {
    let mut files = env::split_paths(path).map(|directory| directory.join(name));
    files.find(|file| fs::metadata(file).is_ok_and(|found| found.is_file() && is_it(file, &found)))
}

impl Prosody {
    pub fn is_13(&self) -> bool {
        self.version.at_least(13, 0)
    }

    /// A command that runs Prosody's Lua interpreter as a user without capabilities and, if we are root, without our
    /// groups. It gets only these variables, without `LUA_INIT*`, which Lua would execute.
    /// Fails if Prosody's program names no interpreter.
    pub fn lua_command(&self, user: &User, environment: &[(OsString, OsString)]) -> anyhow::Result<Command> {
        let interpreter = self.interpreter.as_ref().context("Prosody's program names no Lua")?;
        let environment =
            environment.iter().filter(|(name, _)| !name.to_string_lossy().starts_with("LUA_INIT"));
        let mut command = Command::new(interpreter);
        command.env_clear().envs(environment.map(|(name, value)| (name, value)));
        if geteuid().is_root() {
            command.gid(user.gid).uid(user.uid);
        }
        system::without_capabilities(&mut command);
        Ok(command)
    }

    /// A missing file, if a volume over their folder hides Prosody's own modules. An older image may have filled that
    /// volume with an older version's modules. `None` if nothing is hidden.
    ///
    /// Every version has `mod_c2s`. Each supported version also has a module that earlier versions lack.
    pub fn hidden_module(&self) -> Option<&'static str> {
        let since_this = if self.is_13() { "mod_account_activity.lua" } else { "mod_admin_shell.lua" };
        ["mod_c2s.lua", since_this].into_iter().find(|name| !self.plugin_dir.join(name).is_file())
    }

    /// The Lua version to render for. By default it is Debian's, 5.4.
    pub fn dialect(&self) -> lua::Version {
        match self.lua {
            Some((5, 2)) => lua::Version::Lua52,
            Some((5, 3)) => lua::Version::Lua53,
            _ => lua::Version::Lua54,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::TestDir;
    use nix::unistd::getegid;

    /// Prosody's files in Debian's layout, below a temporary directory.
    fn install(directory: &TestDir, version: Option<&str>) {
        let root = directory.path().display();
        directory.write(
            "bin/prosody",
            format!(
                "#!/usr/bin/env lua5.4\n-- Prosody IM\n\nCFG_SOURCEDIR='{root}/lib';\nCFG_CONFIGDIR='/etc/prosody';\n\
                 CFG_PLUGINDIR='{root}/lib/modules/';\nCFG_DATADIR='/var/lib/prosody';\n\nif CFG_SOURCEDIR then\nend\n"
            ),
        );
        directory.set_mode("bin/prosody", 0o755);
        if let Some(version) = version {
            directory.write("lib/prosody.version", version);
        }
    }

    #[test]
    fn finds_the_installed_prosody() {
        let directory = TestDir::new();
        install(&directory, Some("13.0.1\n"));
        let path = format!("/nonexistent:{}/bin", directory.path().display());

        let prosody = find(Some(OsStr::new(&path))).unwrap();

        assert_eq!(prosody.program, directory.path().join("bin/prosody"));
        assert_eq!(prosody.source_dir, directory.path().join("lib"));
        assert_eq!(prosody.lua, Some((5, 4)));
        assert_eq!(prosody.version.to_string(), "13.0.1");
        assert_eq!(prosody.plugin_dir, directory.path().join("lib/modules"));
        assert_eq!(prosody.data_dir, Some(PathBuf::from("/var/lib/prosody")));
        assert_eq!(prosody.interpreter, Some(PathBuf::from("lua5.4")));
    }

    #[test]
    fn a_binary_is_not_prosodys_prosodyctl() {
        let directory = TestDir::new();
        let copy = directory.path().join("a/prosodyctl");
        fs::create_dir(copy.parent().unwrap()).unwrap();
        fs::copy("/proc/self/exe", copy).unwrap();
        directory.write("b/prosodyctl", "#!/usr/bin/lua5.4\n");
        let path = ["a", "b"].map(|folder| directory.path().join(folder).display().to_string()).join(":");
        assert_eq!(script(OsStr::new(&path), "prosodyctl"), Some(directory.path().join("b/prosodyctl")));
        assert_eq!(script(directory.path().join("a").as_os_str(), "prosodyctl"), None);
    }

    #[test]
    fn lua_runs_as_the_user_without_capabilities() {
        let directory = TestDir::new();
        install(&directory, Some("13.0.1"));
        let mut prosody = find(Some(directory.path().join("bin").as_os_str())).unwrap();
        prosody.interpreter = Some("/bin/cat".into());
        let is_root = geteuid().is_root();
        let users = if is_root {
            vec![(12345, 1234), (0, 0)]
        } else {
            vec![(geteuid().as_raw(), getegid().as_raw())]
        };
        for (uid, gid) in users {
            let mut lua = prosody.lua_command(&User { uid, gid }, &[]).unwrap();
            let status = String::from_utf8(lua.arg("/proc/self/status").output().unwrap().stdout).unwrap();
            let has = |line: &str| {
                assert!(status.lines().any(|other| other.trim_end() == line), "{line:?}: {status}")
            };
            has(&format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}"));
            has(&format!("Gid:\t{gid}\t{gid}\t{gid}\t{gid}"));
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                has(&format!("{set}:\t{:016x}", 0));
            }
            has("NoNewPrivs:\t1");
            if is_root {
                has("Groups:");
            }
        }
    }

    #[test]
    fn hidden_modules_of_prosody_are_noticed() {
        let directory = TestDir::new();
        let find = || find(Some(directory.path().join("bin").as_os_str())).unwrap().hidden_module();
        for (version, since) in [("13.0.1", "mod_account_activity.lua"), ("0.12.3", "mod_admin_shell.lua")] {
            install(&directory, Some(version));
            let folder = directory.path().join("lib/modules");
            let _ = fs::remove_dir_all(&folder);
            assert_eq!(find(), Some("mod_c2s.lua"));
            directory.write("lib/modules/mod_c2s.lua", "");
            assert_eq!(find(), Some(since), "those of an older version");
            directory.write(&format!("lib/modules/{since}"), "");
            assert_eq!(find(), None);
        }
    }

    #[test]
    fn without_a_version_file_it_is_a_development_version() {
        let directory = TestDir::new();
        install(&directory, None);
        let prosody = find(Some(directory.path().join("bin").as_os_str())).unwrap();
        assert_eq!(prosody.version, Version::parse("unknown"));
    }

    #[test]
    fn no_prosody_and_no_search_path_are_the_same_error() {
        let directory = TestDir::new();
        directory.write("prosody", "not executable");
        for path in [Some(directory.path().as_os_str()), None] {
            let error = find(path).unwrap_err();
            assert!(error.to_string().contains("not installed"), "{error}");
        }
    }

    #[test]
    fn another_program_named_prosody_is_refused() {
        let directory = TestDir::new();
        directory.write("prosody", "#!/bin/sh\nexec something-else\n");
        directory.set_mode("prosody", 0o755);
        let error = find(Some(directory.path().as_os_str())).unwrap_err();
        assert!(error.to_string().contains("CFG_SOURCEDIR"), "{error}");
    }

    #[test]
    fn versions_are_ordered_and_unknown_ones_are_newest() {
        for (text, at_least_13, is_release) in [
            ("0.12.3", false, true),
            ("0.12.0rc1", false, true),
            ("0.12 nightly build 38 (2022-03-14, 0123456789ab)", false, true),
            ("13.0.1", true, true),
            ("13.0", true, true),
            ("14.1rc2", true, true),
            ("trunk nightly build 1999 (2025-01-01, 0123456789ab)", true, false),
            ("hg:0123456789ab", true, false),
            ("unknown", true, false),
            ("", true, false),
            ("99999999999999999999.0", true, false),
        ] {
            let version = Version::parse(text);
            assert_eq!(version.at_least(13, 0), at_least_13, "{text}");
            assert_eq!(version.release.is_some(), is_release, "{text}");
            assert_eq!(version.to_string(), text);
        }
    }

    #[test]
    fn the_first_line_gives_the_lua_version() {
        for (line, version) in [
            ("#!/usr/bin/env lua5.4", Some((5, 4))),
            ("#!/usr/bin/lua5.2", Some((5, 2))),
            ("#!/usr/bin/lua53", Some((5, 3))),
            ("#!/usr/bin/env lua", None),
            ("#!/usr/bin/luajit", None),
            ("#!", None),
            ("-- Prosody", None),
        ] {
            assert_eq!(interpreter(line).and_then(interpreter_version), version, "{line}");
        }
    }
}
