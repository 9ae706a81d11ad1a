//! Becoming another program.

use crate::exit_status::{ExitStatus, Failure, WithStatus};
use crate::os::system;
use anyhow::{Context, anyhow};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::SigSet;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{execve, geteuid};
use signal_hook::consts::SIGHUP;
use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Where commands are looked for when the environment has no `PATH`: the C library's own default (confstr(3)).
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// A program to become.
#[derive(Clone, Debug)]
pub struct Command {
    /// A path, or a name without a slash that is looked for in `PATH` of `environment`, as a shell does.
    pub program: OsString,
    /// What follows the program's name.
    pub arguments: Vec<OsString>,
    /// The whole environment: nothing is added to it.
    pub environment: Vec<(OsString, OsString)>,
    /// Where the program starts, if not where we are.
    pub directory: Option<PathBuf>,
    /// What it is to us.
    pub kind: ProgramKind,
}

/// What a program is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramKind {
    /// Prosody. To it SIGHUP means "reload": it starts with that signal ignored, because one that comes before it has its
    /// handler would end it. Apart from that, as a program.
    Server,
    /// A program that runs as Prosody's user: as many open files as the hard limit allows, no core files, umask 027, no
    /// descriptor above 2.
    Program,
    /// Somebody else's, which inherits all that as it is.
    Passthrough,
}

impl Command {
    /// Becomes the program, execve(2), with no signal blocked and none ignored (but SIGHUP, for the server).
    ///
    /// A file without a `#!` line that is text is run by a shell. Returns only where that failed: 127 where there is no
    /// such program, or not its interpreter, 126 where it cannot be executed. `PATH` is
    /// searched by trying, so call this after the last change of user: what may be executed depends on who asks.
    pub fn exec(&self) -> Failure {
        match self.try_exec() {
            Ok(never) => match never {},
            Err(failure) => failure,
        }
    }

    fn try_exec(&self) -> Result<Infallible, Failure> {
        let arguments = self.argv().status(ExitStatus::CANNOT_EXECUTE)?;
        let environment = self.envp().status(ExitStatus::CANNOT_EXECUTE)?;
        self.prepare_process().status(ExitStatus::OS_ERROR)?;
        if let Some(directory) = &self.directory {
            env::set_current_dir(directory)
                .with_context(|| format!("entering the directory {}", directory.display()))
                .status(ExitStatus::CANNOT_EXECUTE)?;
        }

        let mut denied = None;
        for path in self.candidates() {
            // A failed execve(2) costs the kernel far more than a look.
            if is_missing(&path) {
                continue;
            }
            // Both parts have been seen to have no NUL.
            let file = c_string(path.as_os_str()).status(ExitStatus::CANNOT_EXECUTE)?;
            let Err(error) = execve(&file, &arguments, &environment);
            match error {
                // What is found first may be unreadable to us, and a later one not.
                Errno::EACCES => denied = denied.or(Some(path)),
                // As a shell and execvp(3) do it: a text without a `#!` line is a shell's.
                Errno::ENOEXEC if is_text(&path) => {
                    let script = std::iter::once(file).chain(arguments.iter().skip(1).cloned());
                    let arguments: Vec<CString> = [c"sh".to_owned()].into_iter().chain(script).collect();
                    let Err(error) = execve(c"/bin/sh", &arguments, &environment);
                    return Err(cannot_execute(Path::new("/bin/sh"), error));
                }
                _ => return Err(cannot_execute(&path, error)),
            }
        }
        Err(match denied {
            Some(path) => cannot_execute(&path, Errno::EACCES),
            None => self.not_found(),
        })
    }

    fn argv(&self) -> anyhow::Result<Vec<CString>> {
        [&self.program]
            .into_iter()
            .chain(&self.arguments)
            .map(|argument| c_string(argument).context("the command line"))
            .collect()
    }

    fn envp(&self) -> anyhow::Result<Vec<CString>> {
        self.environment
            .iter()
            .map(|(name, value)| {
                let mut variable = name.clone();
                variable.push("=");
                variable.push(value);
                // The value may be a secret: the message has the name alone.
                c_string(&variable).with_context(|| format!("the variable {}", Path::new(name).display()))
            })
            .collect()
    }

    /// What the program inherits beside its arguments and its environment.
    fn prepare_process(&self) -> anyhow::Result<()> {
        if self.kind != ProgramKind::Passthrough {
            limit_process()?;
        }
        for signal in 1..=system::LAST_SIGNAL {
            system::default_disposition(signal);
        }
        if self.kind == ProgramKind::Server {
            system::ignore(SIGHUP);
        }
        system::block_exactly(&SigSet::empty()).context("unblocking signals")
    }

    /// The files that the program's name may mean, in order.
    fn candidates(&self) -> Vec<PathBuf> {
        if self.program.is_empty() {
            Vec::new()
        } else if self.program.as_bytes().contains(&b'/') {
            vec![PathBuf::from(&self.program)]
        } else {
            // An empty entry is the working directory, and joins to the bare name.
            env::split_paths(self.path()).map(|directory| directory.join(&self.program)).collect()
        }
    }

    fn path(&self) -> &OsStr {
        self.environment
            .iter()
            .find(|(name, _)| name == "PATH")
            .map_or(OsStr::new(DEFAULT_PATH), |(_, value)| value.as_os_str())
    }

    fn not_found(&self) -> Failure {
        let program = Path::new(&self.program).display();
        let error = if self.program.as_bytes().contains(&b'/') {
            anyhow!("there is no {program} in this image")
        } else {
            anyhow!(
                "there is no `{program}` in this image (PATH is {}): install it, or give its path",
                Path::new(self.path()).display()
            )
        };
        Failure::new(ExitStatus::COMMAND_NOT_FOUND, error)
    }
}

/// Settles what a program of Prosody's inherits.
fn limit_process() -> anyhow::Result<()> {
    // Every connection is a descriptor. Where the limit stays (the hard one may exceed what the kernel allows by
    // now), the server still serves.
    let _ = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    // A core file has every password in it.
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("switching core files off")?;
    umask(Mode::from_bits_truncate(0o027));
    close_descriptors().context("closing inherited descriptors")
}

/// Lets every descriptor above 2 close itself at `exec`, so that those in use stay usable where that fails.
fn close_descriptors() -> anyhow::Result<()> {
    if system::close_on_exec_from(3).is_ok() {
        return Ok(());
    }
    // An older kernel, or a container engine whose filter does not know the call.
    close_listed_descriptors()
}

fn close_listed_descriptors() -> anyhow::Result<()> {
    for entry in fs::read_dir("/proc/self/fd").context("listing /proc/self/fd")? {
        let name = entry?.file_name();
        let descriptor = name.to_str().and_then(|number| number.parse().ok());
        if let Some(descriptor) = descriptor.filter(|&number| number > 2) {
            // The one error there is means that it is closed already.
            let _ = system::close_on_exec(descriptor);
        }
    }
    Ok(())
}

/// Whether there is no such file. What cannot be looked at may be there.
fn is_missing(path: &Path) -> bool {
    let kind = fs::metadata(path).map_err(|error| error.kind());
    matches!(kind, Err(io::ErrorKind::NotFound | io::ErrorKind::NotADirectory))
}

/// Whether a file's first line is text. Machine code for another processor has a NUL byte early on.
fn is_text(path: &Path) -> bool {
    let mut beginning = [0; 128];
    let length = fs::File::open(path).and_then(|mut file| file.read(&mut beginning)).unwrap_or(0);
    let line = beginning[..length].split(|&byte| byte == b'\n').next().unwrap_or_default();
    !line.contains(&0)
}

/// Why a file that is there could not be executed, and what to do.
fn cannot_execute(path: &Path, error: Errno) -> Failure {
    let file = path.display();
    let status = match error {
        Errno::ENOENT => ExitStatus::COMMAND_NOT_FOUND,
        _ => ExitStatus::CANNOT_EXECUTE,
    };
    let error = match error {
        Errno::EACCES if path.is_dir() => anyhow!("{file} is a directory, not a program"),
        Errno::EACCES => anyhow!(
            "uid {} may not execute {file}: check its mode and those of the directories above it",
            geteuid()
        ),
        Errno::ENOENT => anyhow!(
            "{file} needs an interpreter that is not in this image: check its `#!` line, or its dynamic loader"
        ),
        Errno::ENOEXEC => {
            anyhow!("{file} is no program for this machine: was it built for another architecture?")
        }
        _ => anyhow!("executing {file}: {error}"),
    };
    Failure::new(status, error)
}

fn c_string(text: &OsStr) -> anyhow::Result<CString> {
    CString::new(text.to_owned().into_vec()).map_err(|_| anyhow!("a NUL byte cannot be given to a program"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};

    fn command(program: &str, path: Option<&str>) -> Command {
        Command {
            program: program.into(),
            arguments: Vec::new(),
            environment: path.map(|path| ("PATH".into(), path.into())).into_iter().collect(),
            directory: None,
            kind: ProgramKind::Program,
        }
    }

    #[test]
    fn a_name_is_looked_for_in_the_path_of_the_command_and_a_path_is_not() {
        let candidates = |program, path| command(program, path).candidates();
        assert_eq!(candidates("lua", Some("/a::/b")), ["/a/lua", "lua", "/b/lua"].map(PathBuf::from));
        assert_eq!(candidates("lua", None), ["/bin/lua", "/usr/bin/lua"].map(PathBuf::from));
        assert_eq!(candidates("./lua", Some("/a")), ["./lua"].map(PathBuf::from));
        assert!(candidates("", Some("/a")).is_empty());
    }

    #[test]
    fn a_nul_byte_is_refused_without_the_value() {
        let mut command = command("true", None);
        command.environment = vec![("SECRET".into(), "swordfish\0".into())];
        let failure = command.exec();
        assert_eq!(failure.status, ExitStatus::CANNOT_EXECUTE);
        assert_eq!(failure.to_string(), "the variable SECRET: a NUL byte cannot be given to a program");
    }

    #[test]
    fn without_close_range_the_descriptors_are_listed() {
        let inherited = fs::File::open("/dev/null").unwrap();
        fcntl(&inherited, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        close_listed_descriptors().unwrap();
        assert_eq!(fcntl(&inherited, FcntlArg::F_GETFD), Ok(FdFlag::FD_CLOEXEC.bits()));
    }
}
