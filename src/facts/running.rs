//! The server that runs in this container, as its start described it in the runtime directory.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{fs, io};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc::ESRCH;
use nix::unistd::Pid;

use super::{Places, is_trusted};
use crate::layout::{CURRENT, ERROR_FILE, STARTED_FILE};
use crate::os::directory;
use crate::os::trusted_file::{self, Error, LARGEST, Opened};
use crate::os::users::User;

/// A running server with a rendered configuration.
pub struct Running {
    /// Its process, which PID 1 has made.
    pub server: Pid,
    pub user: User,
    /// The state that it was started with.
    pub started: String,
    /// The name of the generation that it was started with.
    pub generation: String,
}

impl Running {
    /// Finds the running server. `None` if there is none, if it has a custom main file, or if this is unknown.
    pub fn find(places: &Places) -> Option<Self> {
        Self::in_directory(&places.runtime_dir).ok().flatten()
    }

    /// Like [`Running::find`], by the runtime directory.
    /// Fails if a file cannot be read, so that it is unknown whether there is a server.
    pub fn in_directory(runtime_dir: &Path) -> io::Result<Option<Self>> {
        let Some(text) = read(runtime_dir, STARTED_FILE)? else { return Ok(None) };
        let described = || {
            let (process, started) = text.split_once('\n')?;
            let mut fields = process.split(' ');
            let (pid, time, generation) = (fields.next()?.parse().ok()?, fields.next()?, fields.next()?);
            let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            let (server, user) = (Pid::from_raw(fields.next()?.parse().ok()?), User { uid, gid });
            let found = Self { server, user, started: started.to_owned(), generation: generation.to_owned() };
            Some((Pid::from_raw(pid), time, found))
        };
        let Some((pid, time, found)) = described() else { return Ok(None) };
        // In a file from an earlier start, the process is another, or has ended.
        Ok(Stat::read(pid)?.is_some_and(|stat| stat.start_time == time).then_some(found))
    }

    /// The content of the file, for this process, which becomes the server under PID 1 `init`, with a generation as a
    /// user.
    pub fn describe(init: Pid, generation: &Path, user: &User, state: &str) -> String {
        let time = Stat::read(init).ok().flatten().unwrap_or_default().start_time;
        let generation = generation.file_name().unwrap_or_default().to_string_lossy();
        format!("{init} {time} {generation} {} {} {}\n{state}", user.uid, user.gid, Pid::this())
    }
}

/// The last error of a reload, if `current` has been the current generation since.
pub fn last_error(runtime_dir: &Path, current: &Path) -> Option<String> {
    let text = read(runtime_dir, ERROR_FILE).ok()??;
    let (generation, error) = text.split_once('\n')?;
    (Some(OsStr::new(generation)) == current.file_name()).then(|| error.to_owned())
}

/// The content of that file.
pub fn describe_error(current: &Path, error: &str) -> String {
    format!("{}\n{error}", current.file_name().unwrap_or_default().to_string_lossy())
}

/// Reads a file that describes the running server in the runtime directory. `None` if it is missing, not a regular
/// file, not UTF-8, or of a user whose files there do not count.
/// Fails if it cannot be read.
pub fn read(runtime_dir: &Path, name: &str) -> io::Result<Option<String>> {
    let open = || -> Result<Opened, Error> {
        trusted_file::open_below(directory::open(runtime_dir)?, name, OFlag::O_NOFOLLOW)?.regular()
    };
    let file = match open() {
        Err(Error::Irregular(_) | Error::Refused(Errno::ENOENT | Errno::ELOOP | Errno::ENXIO)) => {
            return Ok(None);
        }
        file => file?,
    };
    if !is_trusted(file.stat.st_uid) {
        return Ok(None);
    }
    Ok(String::from_utf8(file.read(LARGEST)?).ok())
}

/// What the process that is the server, or becomes it, does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activity {
    /// It has ended, or is a zombie.
    Gone,
    /// A signal has stopped it.
    Stopped,
    /// It is not Prosody yet: it configures, or waits for something.
    Starts,
    Runs,
}

/// Looks at the server's process. `None` if it is not known which one that is.
pub fn activity(running: Option<&Running>) -> Option<Activity> {
    let ours = Stat::read(Pid::this()).ok()??.name;
    let look = |process| Stat::read(process).ok().flatten();
    let server = match running {
        Some(running) => Some(running.server),
        // Before the start has published it, and with a custom main file. PID 1 may be the engine's.
        None => {
            let first = Pid::from_raw(1);
            let is_ours = |pid: &Pid| look(*pid).is_some_and(|stat| stat.name == ours);
            let init = if is_ours(&first) { first } else { children(first)?.into_iter().find(is_ours)? };
            children(init)?.first().copied()
        }
    };
    Some(match server.and_then(look) {
        None => Activity::Gone,
        Some(Stat { state: 'Z' | 'X', .. }) => Activity::Gone,
        Some(Stat { state: 'T', .. }) => Activity::Stopped,
        Some(Stat { name, .. }) if name == ours => Activity::Starts,
        Some(_) => Activity::Runs,
    })
}

/// The children of a process, the first one first (proc(5), `/proc/PID/task/TID/children`). `None` if the kernel does not
/// tell.
fn children(process: Pid) -> Option<Vec<Pid>> {
    let children = of_process(process, &format!("task/{process}/children")).ok()??;
    Some(children.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect())
}

/// What the kernel says about a process (proc(5), `stat`).
#[derive(Default)]
struct Stat {
    name: String,
    state: char,
    /// In clock ticks after boot. It is unique together with the process id.
    start_time: String,
}

impl Stat {
    /// `None` without such a process.
    fn read(process: Pid) -> io::Result<Option<Self>> {
        let stat = of_process(process, "stat")?.unwrap_or_default();
        // The name in parentheses may have any content.
        let parse = || {
            let (name, fields) = stat.split_once('(')?.1.rsplit_once(')')?;
            let mut fields = fields.split_whitespace();
            let state = fields.next()?.chars().next()?;
            Some(Self { name: name.to_owned(), state, start_time: fields.nth(18)?.to_owned() })
        };
        Ok(parse())
    }
}

/// The content of a process's file in /proc. `None` without such a process.
pub fn of_process(process: Pid, file: &str) -> io::Result<Option<String>> {
    match fs::read_to_string(format!("/proc/{process}/{file}")) {
        Ok(content) => Ok(Some(content)),
        // A process that ends while its file is read gives ESRCH.
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(ESRCH) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The user of a server that root started. `None` if it is unknown.
pub fn user(places: &Places) -> Option<User> {
    is_private_to_root(places).then(|| Some(Running::find(places)?.user)).flatten()
}

/// When the running server was described, before it wrote any data, in seconds since 1970. `None` if that is unknown.
pub fn since(places: &Places) -> Option<i64> {
    Running::find(places)?;
    Some(fs::symlink_metadata(places.runtime_dir.join(STARTED_FILE)).ok()?.mtime())
}

/// The user that started the server, if not root. That user owns the runtime directory and could write a false uid
/// into its files. But it cannot change the owner of a link, so that owner counts.
pub fn starter(places: &Places) -> Option<User> {
    if is_private_to_root(places) {
        return None;
    }
    let user = owner(&places.runtime_dir.join(CURRENT)).or_else(|| owner(&places.runtime_dir))?;
    (user.uid != 0).then_some(user)
}

/// Whether only root can write to the runtime directory.
fn is_private_to_root(places: &Places) -> bool {
    fs::symlink_metadata(&places.runtime_dir)
        .is_ok_and(|found| found.is_dir() && found.uid() == 0 && found.mode() & 0o022 == 0)
}

/// The owner of a file, or of a link itself.
fn owner(path: &Path) -> Option<User> {
    let found = fs::symlink_metadata(path).ok()?;
    Some(User { uid: found.uid(), gid: found.gid() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::TestDir;
    use std::path::PathBuf;

    fn user(id: u32) -> User {
        User { uid: id, gid: id }
    }

    fn places(runtime_dir: &Path) -> Places {
        let none = PathBuf::from("/none");
        Places { config_dir: none.clone(), data_dir: none, runtime_dir: runtime_dir.to_owned() }
    }

    #[test]
    fn an_error_is_the_last_one_until_another_generation_is_current() {
        let (runtime, first) = (TestDir::new(), Path::new("/run/x/generation-7"));
        assert_eq!(last_error(runtime.path(), first), None);
        runtime.write(ERROR_FILE, describe_error(first, "one\n  two"));
        assert_eq!(last_error(runtime.path(), first).as_deref(), Some("one\n  two"));
        assert_eq!(last_error(runtime.path(), Path::new("/run/x/generation-8")), None);
    }

    #[test]
    fn a_server_is_found_by_its_process() {
        let runtime = TestDir::new();
        let places = places(runtime.path());
        assert!(Running::find(&places).is_none());
        let text = Running::describe(Pid::this(), Path::new("/run/x/generation-7"), &user(5), "host\ta\t\n");
        runtime.write(STARTED_FILE, &text);
        let found = Running::find(&places).unwrap();
        assert_eq!((found.started.as_str(), found.generation.as_str()), ("host\ta\t\n", "generation-7"));
        assert_eq!((found.server, found.user), (Pid::this(), user(5)));
        // Another process with the same process id.
        runtime.write(STARTED_FILE, text.replacen(' ', " 1", 1));
        assert!(Running::find(&places).is_none());
        for broken in [
            "",
            "x",
            "1\n",
            "x y generation-1 0 0 1\n",
            "4194304 1 generation-1 0 0 1\n",
            "1 1 generation-1 0 0\n",
        ] {
            runtime.write(STARTED_FILE, broken);
            assert!(Running::find(&places).is_none(), "{broken:?}");
        }
    }

    #[test]
    fn the_activity_of_a_server_follows_its_process() {
        use nix::sys::signal::{Signal, kill};
        use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
        let activity = |server| {
            let (started, generation) = (String::new(), String::new());
            super::activity(Some(&Running { server, user: user(0), started, generation }))
        };
        assert_eq!(activity(Pid::this()), Some(Activity::Starts), "its name is ours");
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        assert_eq!(activity(pid), Some(Activity::Runs));
        kill(pid, Signal::SIGSTOP).unwrap();
        assert!(matches!(waitpid(pid, Some(WaitPidFlag::WUNTRACED)), Ok(WaitStatus::Stopped(..))));
        assert_eq!(activity(pid), Some(Activity::Stopped));
        kill(pid, Signal::SIGKILL).unwrap();
        waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
        assert_eq!(activity(pid), Some(Activity::Gone), "a zombie");
        child.wait().unwrap();
        assert_eq!(activity(pid), Some(Activity::Gone));
    }

    #[test]
    fn a_server_that_cannot_be_looked_for_is_an_error() {
        let runtime = TestDir::new();
        assert!(Running::in_directory(runtime.path()).unwrap().is_none());
        runtime.write("started", "");
        assert!(
            Running::in_directory(runtime.path()).unwrap().is_none(),
            "an empty file describes no server"
        );
        assert!(Running::in_directory(&runtime.path().join("started")).is_err());
    }

    #[test]
    fn only_regular_files_of_trusted_users_describe_a_server() {
        let runtime = TestDir::new();
        let path = |name: &str| runtime.path().join(name);
        runtime.write("elsewhere", "text");
        std::os::unix::fs::symlink("elsewhere", path("link")).unwrap();
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let read = |name: &str| super::read(runtime.path(), name).unwrap();
        assert_eq!(read("elsewhere").as_deref(), Some("text"));
        assert_eq!([read("link"), read("fifo"), read("."), read("absent")], [const { None }; 4]);
        let current = || crate::facts::current_generation(runtime.path()).map_err(|error| error.kind());
        assert_eq!(current(), Err(std::io::ErrorKind::NotFound));
        std::os::unix::fs::symlink("generation-1", path(CURRENT)).unwrap();
        assert_eq!(current(), Ok(path("generation-1")));
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        std::os::unix::fs::chown(path("elsewhere"), Some(12345), None).unwrap();
        std::os::unix::fs::lchown(path(CURRENT), Some(12345), None).unwrap();
        assert_eq!(read("elsewhere"), None, "another user's");
        assert_eq!(current(), Err(std::io::ErrorKind::NotFound), "another user's");
    }

    #[test]
    fn only_root_can_declare_a_server_of_root() {
        let runtime = TestDir::new();
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let places = places(runtime.path());
        runtime.write(STARTED_FILE, Running::describe(Pid::this(), Path::new("generation-1"), &user(0), ""));
        use std::os::unix::fs::PermissionsExt;
        let mode = |mode| fs::set_permissions(runtime.path(), fs::Permissions::from_mode(mode)).unwrap();
        mode(0o750);
        assert_eq!(super::user(&places).unwrap().uid, 0);
        assert!(starter(&places).is_none());

        mode(0o777);
        assert!(super::user(&places).is_none());
        assert!(starter(&places).is_none(), "root's, as the image ships it");
        std::os::unix::fs::symlink("generation-1", runtime.path().join(CURRENT)).unwrap();
        std::os::unix::fs::lchown(runtime.path().join(CURRENT), Some(12345), Some(7)).unwrap();
        assert!(super::user(&places).is_none());
        let found = starter(&places).unwrap();
        assert_eq!((found.uid, found.gid), (12345, 7));

        mode(0o700);
        std::os::unix::fs::chown(runtime.path(), Some(5), Some(6)).unwrap();
        fs::remove_file(runtime.path().join(CURRENT)).unwrap();
        assert!(super::user(&places).is_none());
        assert_eq!(starter(&places).unwrap().uid, 5);
    }
}
