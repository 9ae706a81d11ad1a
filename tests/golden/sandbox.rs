//! A directory in which the program is run, and a reading of what it left there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::statvfs::{FsFlags, Statvfs, statvfs};
use nix::unistd::{Uid, User, getegid, geteuid};

use crate::BINARY;
use crate::case::{Case, Files};
use crate::fixtures::{fixture, in_words};
use crate::prosody;

/// The user that Prosody runs as if the test runs as root.
pub const SOMEBODY: u32 = 1000;

/// A temporary directory with a configuration and a data directory.
pub struct Sandbox {
    pub path: PathBuf,
}

impl Sandbox {
    /// A sandbox with a case's files and a stand-in for Prosody.
    pub fn new(case: &Case, version: &str) -> Sandbox {
        let sandbox = Sandbox::with_prosody(version);
        copy(&case.folder.join("config"), &sandbox.path.join("config"));
        copy(&case.folder.join("data"), &sandbox.path.join("data"));
        sandbox.make_odd_files();
        let certificates = fs::read_to_string(case.folder.join("certificates"));
        sandbox.make_certificates(&certificates.unwrap_or_default());
        if let Some(before) = &case.before {
            let output = sandbox.run(before, &["render".to_owned()]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        sandbox
    }

    /// A sandbox with a stand-in for Prosody and nothing else.
    pub fn with_prosody(version: &str) -> Sandbox {
        let sandbox = Sandbox::without_prosody();
        prosody::install(&sandbox.path, version);
        sandbox
    }

    /// A sandbox that shares another one's stand-in for Prosody, in memory or not.
    pub fn with_prosody_of(other: &Sandbox, in_memory: bool) -> Sandbox {
        let sandbox = Sandbox::below(if in_memory { temporary() } else { "/tmp" });
        std::os::unix::fs::symlink(other.path.join("lib"), sandbox.path.join("lib")).unwrap();
        prosody::install_program(&sandbox.path);
        sandbox
    }

    pub fn without_prosody() -> Sandbox {
        Sandbox::below(temporary())
    }

    fn below(parent: &str) -> Sandbox {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Always of the same length, because long values are cut in messages and broken into lines in Lua.
        let pid = std::process::id();
        let path = PathBuf::from(format!("{parent}/golden-{pid:00$}-{number:04}", 22 - parent.len()));
        for folder in ["bin", "config", "data", "odd"] {
            fs::create_dir_all(path.join(folder)).unwrap();
        }
        if geteuid().is_root() {
            std::os::unix::fs::chown(path.join("data"), Some(SOMEBODY), Some(SOMEBODY)).unwrap();
        }
        Sandbox { path }
    }

    /// Files that no setting can be read from.
    fn make_odd_files(&self) {
        let path = |name: &str| self.path.join("odd").join(name);
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        fs::File::create(path("large")).unwrap().set_len(100 * 1000 * 1000).unwrap();
        fs::write(path("latin1"), b"b\xfccher.example\n").unwrap();
        fs::write(path("empty"), "\n").unwrap();
        std::os::unix::fs::symlink("loop", path("loop")).unwrap();
    }

    /// The files and links of a list.
    pub fn make_certificates(&self, list: &str) {
        for line in list.lines() {
            let write = |path: &str| {
                let path = self.path.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                path
            };
            if let Some((path, target)) = line.split_once(" -> ") {
                std::os::unix::fs::symlink(target, write(path)).unwrap();
            } else if let Some((path, words)) = line.split_once(" = ") {
                let content: Vec<u8> = words.split(' ').flat_map(fixture).collect();
                fs::write(write(path), content).unwrap();
            } else {
                assert!(line.is_empty() || line.starts_with('#'), "neither a file nor a link: {line:?}");
            }
        }
    }

    /// A text with the words for directories and for the user of Prosody replaced.
    pub fn filled_in(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (word, path) in self.words() {
            text = text.replace(word, &path);
        }
        if !text.contains("{uid}") && !text.contains("{gid}") && !text.contains("{user}") {
            return text;
        }
        let root = geteuid().is_root();
        let (uid, gid) = match root {
            true => (Uid::from_raw(SOMEBODY), SOMEBODY),
            false => (geteuid(), getegid().as_raw()),
        };
        let user = if root {
            "nobody".to_owned()
        } else {
            User::from_uid(uid).unwrap().map(|user| user.name).unwrap_or_default()
        };
        text.replace("{uid}", &uid.to_string()).replace("{gid}", &gid.to_string()).replace("{user}", &user)
    }

    /// The words for directories. The sandbox itself comes last, because the others are in it.
    fn words(&self) -> [(&'static str, String); 5] {
        let path = |folder: &str| self.path.join(folder).to_str().unwrap().to_owned();
        [
            ("{config}", path("config")),
            ("{data}", path("data")),
            ("{output}", path("output")),
            ("{run}", path("run")),
            ("{temp}", self.path.to_str().unwrap().to_owned()),
        ]
    }

    /// An output with words for all that differs from run to run.
    pub fn stable(&self, bytes: &[u8]) -> String {
        let mut text = String::from_utf8(bytes.to_vec()).unwrap();
        for (word, path) in self.words() {
            text = text.replace(&path, word);
        }
        // The time in a log of JSON or at the beginning of a line of text, and how long certificates last from now on.
        let text = without(&text, "\"time\":\"", "{time}", |letter| letter != '"');
        let text: String = text.split_inclusive('\n').map(without_time).collect();
        let text =
            without(&text, "\"days_left\": ", "{days}", |letter| letter == '-' || letter.is_ascii_digit());
        without(&text, ", in ", "{days}", |letter| letter.is_ascii_digit())
    }

    pub fn run(&self, environment: &[(String, String)], arguments: &[String]) -> Output {
        self.run_program(Path::new(BINARY), environment, arguments)
    }

    /// Runs another program as ours would be run.
    pub fn run_program(
        &self,
        program: &Path,
        environment: &[(String, String)],
        arguments: &[String],
    ) -> Output {
        let mut command = self.command(program);
        command.envs(environment.iter().map(|(name, value)| (name, self.filled_in(value))));
        command.args(arguments.iter().map(|argument| self.filled_in(argument))).output().unwrap()
    }

    /// A copy of the program that every user can reach. `cp` makes it, because a program cannot be started (ETXTBSY) while
    /// a process that another test forks still has it open for writing.
    pub fn copy_of_program(&self) -> PathBuf {
        let program = self.path.join("bin/entrypoint");
        assert!(Command::new("cp").arg(BINARY).arg(&program).status().unwrap().success());
        program
    }

    /// A program with an environment that has the places and nothing else.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.path).env_clear().env("PATH", self.path.join("bin"));
        for (name, folder) in
            [("PROSODY_CONFIG_DIR", "config"), ("PROSODY_DATA_DIR", "data"), ("PROSODY_RUNTIME_DIR", "run")]
        {
            command.env(name, self.path.join(folder));
        }
        command
    }

    /// The files and links of a folder, by name. A folder in it is a list of links.
    pub fn files_below(&self, folder: &str) -> Files {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(self.path.join(folder)).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap();
            let text = match fs::read_link(entry.path()) {
                Ok(target) => format!("a link to {}\n", target.display()).into_bytes(),
                Err(_) if entry.path().is_dir() => links(&entry.path()).into_bytes(),
                Err(_) => fs::read(entry.path()).unwrap(),
            };
            files.insert(name, self.stable(&text));
        }
        files
    }

    /// Every path below the sandbox.
    pub fn everything(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        let mut folders = vec![self.path.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                }
                found.insert(entry.path());
            }
        }
        found
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Memory, if programs can be run there: on some disks, each new file takes half a millisecond.
fn temporary() -> &'static str {
    let memory = "/dev/shm";
    let can_run = |found: Statvfs| !found.flags().contains(FsFlags::ST_NOEXEC);
    if statvfs(memory).is_ok_and(can_run) { memory } else { "/tmp" }
}

/// The target of each link in a folder, the fixtures in its PEM files, and the first line of its Lua files.
fn links(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let entries: BTreeSet<PathBuf> = entries.collect();
    let line = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        match fs::read_link(path) {
            Ok(target) => format!("{name} -> {}\n", target.display()),
            Err(_) => {
                let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
                let content = fs::read_to_string(path).unwrap();
                let content = match name.ends_with(".lua") {
                    true => content.lines().next().unwrap_or_default().to_owned(),
                    false => in_words(&content),
                };
                format!("{name} ({mode:o}) = {content}\n")
            }
        }
    };
    entries.iter().map(line).collect()
}

/// A text with a word in place of the letters of one kind that follow each `start`.
fn without(text: &str, start: &str, word: &str, is_part: fn(char) -> bool) -> String {
    let mut parts = text.split(start);
    let mut new = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(is_part);
        let word = if rest.len() < part.len() { word } else { "" };
        new.extend([start, word, rest]);
    }
    new
}

/// A line without the time at its beginning (RFC 3339, in whole seconds).
fn without_time(line: &str) -> String {
    match line.split_once(' ') {
        Some((time, rest))
            if time.replace(|letter: char| letter.is_ascii_digit(), "0") == "0000-00-00T00:00:00Z" =>
        {
            format!("{{time}} {rest}")
        }
        _ => line.to_owned(),
    }
}

/// Copies a folder, if it is there.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
