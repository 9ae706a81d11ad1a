//! Executing another program in this process.

use crate::exit_status::{ExitStatus, Failure, WithStatus};
use crate::os::users::User;
use crate::os::{directory, privileges, system};
use anyhow::{Context, anyhow};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, Flock, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::SigSet;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{execve, geteuid};
use signal_hook::consts::SIGHUP;
use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// The search path if the environment has no `PATH`: the C library's default (confstr(3), `_CS_PATH`).
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// A program to execute.
#[derive(Debug)]
pub struct Command {
    /// A path, or a name without a slash. As in a shell, a name is searched in the `PATH` of `environment`.
    pub program: OsString,
    /// The arguments, without the program's name.
    pub arguments: Vec<OsString>,
    pub environment: Vec<(OsString, OsString)>,
    /// The user to become for good ([`privileges::drop_to`]), if not the current one.
    pub user: Option<User>,
    pub kind: ProgramKind,
    /// The only descriptor above 2 that the server or a program of Prosody's user inherits, if any.
    pub inherited: Vec<Flock<OwnedFd>>,
}

/// How a process is prepared for a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramKind {
    /// Prosody. As for [`ProgramKind::Program`], and SIGHUP is ignored: to Prosody it means "reload", and without a
    /// handler it would kill the starting server.
    Server,
    /// Another program of Prosody's user: the soft limit of open files is raised to the hard limit, core files are
    /// disabled, the umask is 027, and descriptors above 2 are closed.
    Program,
    /// Any other program. It inherits limits, umask, descriptors and signals as this program got them.
    Passthrough,
}

impl Command {
    /// Replaces this process with the program, execve(2). For Prosody and its programs, no signal is blocked or ignored,
    /// except SIGHUP for the server.
    ///
    /// A text file without a `#!` line is run by a shell. Returns only after a failure: with 127 if the program or its
    /// interpreter does not exist, with 126 if it cannot be executed, with 77 if a privilege is missing, with 71 if the
    /// process cannot be prepared. The permissions of the user decide which file in `PATH` is executed.
    pub fn exec(&self) -> Failure {
        let Err(failure) = self.try_exec();
        failure
    }

    fn try_exec(&self) -> Result<Infallible, Failure> {
        let arguments = self.argv().status(ExitStatus::CANNOT_EXECUTE)?;
        let environment = self.envp().status(ExitStatus::CANNOT_EXECUTE)?;
        let mut candidates = self.candidates().into_iter().peekable();
        // A failed execve(2) is much more expensive than stat(2). On FUSE, root's look is cheaper than its user's: the
        // kernel asks for no access control lists.
        while candidates.next_if(|path| is_missing(path)).is_some() {}
        if let Some(user) = &self.user {
            privileges::drop_to(user)?;
        }
        self.prepare_process().status(ExitStatus::OS_ERROR)?;
        let mut denied = None;
        for path in candidates {
            // This cannot fail: neither part contains a NUL.
            let file = c_string(path.as_os_str()).status(ExitStatus::CANNOT_EXECUTE)?;
            let Err(error) = execve(&file, &arguments, &environment);
            match error {
                // As in execvp(3), a later directory may have a file that can be executed.
                Errno::EACCES => denied = denied.or(Some(path)),
                Errno::ENOENT | Errno::ENOTDIR if is_missing(&path) => {}
                // As in a shell and execvp(3), a text file without a `#!` line is a shell script.
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
                // The value may be a secret, so the message contains only the name.
                c_string(&variable).with_context(|| format!("the variable {}", Path::new(name).display()))
            })
            .collect()
    }

    /// Sets the limits, descriptors and signals that the program inherits.
    fn prepare_process(&self) -> anyhow::Result<()> {
        if self.kind == ProgramKind::Passthrough {
            return system::restore_signals().context("restoring signals");
        }
        limit_process()?;
        for lock in &self.inherited {
            fcntl(&**lock, FcntlArg::F_SETFD(FdFlag::empty())).context("passing on the lock")?;
        }
        for signal in 1..=system::LAST_SIGNAL {
            system::default_disposition(signal);
        }
        if self.kind == ProgramKind::Server {
            system::ignore(SIGHUP);
        }
        system::block_exactly(&SigSet::empty()).context("unblocking signals")
    }

    /// The possible files of the program, in the order of the search.
    fn candidates(&self) -> Vec<PathBuf> {
        if self.program.is_empty() {
            Vec::new()
        } else if self.program.as_bytes().contains(&b'/') {
            vec![PathBuf::from(&self.program)]
        } else {
            // An empty entry is the working directory: joined, it gives the bare name.
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
            anyhow!(advice!(
                "there is no `{program}` in this image (PATH is {}): install it, or give its path",
                Path::new(self.path()).display()
            ))
        };
        Failure::new(ExitStatus::COMMAND_NOT_FOUND, error)
    }
}

/// Sets limits, umask and descriptors for a program of Prosody's user.
fn limit_process() -> anyhow::Result<()> {
    // Every connection needs a descriptor. Raising the limit can fail (the hard limit may exceed the kernel's current
    // maximum), and the server works all the same.
    let _ = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    // A core file would contain every password.
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("switching core files off")?;
    umask(Mode::from_bits_truncate(0o027));
    close_descriptors().context("closing inherited descriptors")
}

/// Marks every descriptor above 2 as close-on-exec. Until `exec`, and after a failed one, they stay usable.
fn close_descriptors() -> anyhow::Result<()> {
    if system::close_on_exec_from(3).is_ok() {
        return Ok(());
    }
    // The kernel is too old, or the container engine's seccomp filter blocks close_range(2).
    close_listed_descriptors()
}

fn close_listed_descriptors() -> anyhow::Result<()> {
    for name in directory::list(Path::new("/proc/self/fd"))
        .map_err(io::Error::from)
        .context("listing /proc/self/fd")?
    {
        let descriptor = name.to_str().and_then(|number| number.parse().ok());
        if let Some(descriptor) = descriptor.filter(|&number| number > 2) {
            // The only possible error is that it is closed already.
            let _ = system::close_on_exec(descriptor);
        }
    }
    Ok(())
}

/// Whether the file certainly does not exist. After any other error it may exist.
fn is_missing(path: &Path) -> bool {
    let kind = fs::metadata(path).map_err(|error| error.kind());
    matches!(kind, Err(io::ErrorKind::NotFound | io::ErrorKind::NotADirectory))
}

/// Whether the first line of a file is text. A binary for another architecture has a NUL near its beginning.
fn is_text(path: &Path) -> bool {
    let mut beginning = [0; 128];
    let length = fs::File::open(path).and_then(|mut file| file.read(&mut beginning)).unwrap_or(0);
    let line = beginning[..length].split(|&byte| byte == b'\n').next().unwrap_or_default();
    !line.contains(&0)
}

/// The error for an existing file that could not be executed, with advice.
fn cannot_execute(path: &Path, error: Errno) -> Failure {
    let file = path.display();
    let status = match error {
        Errno::ENOENT => ExitStatus::COMMAND_NOT_FOUND,
        _ => ExitStatus::CANNOT_EXECUTE,
    };
    let error = match error {
        Errno::EACCES if path.is_dir() => anyhow!("{file} is a directory, not a program"),
        Errno::EACCES => anyhow!(advice!(
            "uid {} may not execute {file}: check its mode and those of the directories above it",
            geteuid()
        )),
        Errno::ENOENT => anyhow!(advice!(
            "{file} needs an interpreter that is not in this image: check its `#!` line, or its dynamic loader"
        )),
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

    fn command(program: &str, path: Option<&str>) -> Command {
        Command {
            program: program.into(),
            arguments: Vec::new(),
            environment: path.map(|path| ("PATH".into(), path.into())).into_iter().collect(),
            user: None,
            kind: ProgramKind::Program,
            inherited: Vec::new(),
        }
    }

    #[test]
    fn names_are_searched_in_the_path_of_the_command_and_paths_are_not() {
        let candidates = |program, path| command(program, path).candidates();
        assert_eq!(candidates("lua", Some("/a::/b")), ["/a/lua", "lua", "/b/lua"].map(PathBuf::from));
        assert_eq!(candidates("lua", None), ["/bin/lua", "/usr/bin/lua"].map(PathBuf::from));
        assert_eq!(candidates("./lua", Some("/a")), ["./lua"].map(PathBuf::from));
        assert!(candidates("", Some("/a")).is_empty());
    }

    #[test]
    fn a_nul_byte_is_refused_without_showing_the_value() {
        let mut command = command("true", None);
        command.environment = vec![("SECRET".into(), "swordfish\0".into())];
        let failure = command.exec();
        assert_eq!(failure.status, ExitStatus::CANNOT_EXECUTE);
        assert_eq!(failure.to_string(), "the variable SECRET: a NUL byte cannot be given to a program");
    }

    #[test]
    fn without_close_range_descriptors_are_listed() {
        let inherited = fs::File::open("/dev/null").unwrap();
        fcntl(&inherited, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        close_listed_descriptors().unwrap();
        assert_eq!(fcntl(&inherited, FcntlArg::F_GETFD), Ok(FdFlag::FD_CLOEXEC.bits()));
    }
}
