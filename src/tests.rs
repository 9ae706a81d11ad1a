//! What unit tests share: a temporary directory, and a child process for tests that change what a whole process is.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Gid, Pid, Uid, pipe2, setgroups, setresgid, setresuid};

use crate::os::system;
use crate::os::users::User;

/// An empty directory of its own for one test.
pub struct TestDir(PathBuf);

impl TestDir {
    /// Makes the directory below the system's temporary directory.
    pub fn new() -> TestDir {
        TestDir::below(&std::env::temp_dir())
    }

    /// Makes the directory in memory, for thousands of files: on some disks, each takes half a millisecond.
    pub fn in_memory() -> TestDir {
        TestDir::below(Path::new("/dev/shm"))
    }

    fn below(parent: &Path) -> TestDir {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("prosody-entrypoint-{}-{number}", process::id()));
        fs::create_dir(&path).unwrap();
        TestDir(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file, with the directories above it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Sets the permission bits of a file.
    pub fn set_mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.0.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        // A test that fails leaves its directory where it cannot be removed; that must not hide why it failed.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Does some work in a child process. Panics where that does.
pub fn in_child(work: impl FnOnce()) {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).unwrap();
    match system::fork().unwrap() {
        ForkResult::Child => {
            let said = match catch_unwind(AssertUnwindSafe(work)) {
                Ok(()) => "done".to_owned(),
                Err(panic) => match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
                    (Some(text), _) => text.clone(),
                    (_, text) => (*text.unwrap_or(&"a panic")).to_owned(),
                },
            };
            let _ = File::from(writer).write_all(said.as_bytes());
            // Nothing of the test runner's, which has threads, is to be cleared up here.
            let _ = system::send_signal(Pid::this(), Signal::SIGKILL as i32);
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let mut said = String::new();
            File::from(reader).read_to_string(&mut said).unwrap();
            waitpid(child, None).unwrap();
            assert_eq!(said, "done", "in the child process");
        }
    }
}

/// Does some work in a child process that is another user, without any rights of root's.
pub fn as_somebody(user: &User, work: impl FnOnce()) {
    in_child(|| {
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        setgroups(&[]).unwrap();
        setresgid(gid, gid, gid).unwrap();
        setresuid(uid, uid, uid).unwrap();
        work();
    });
}
