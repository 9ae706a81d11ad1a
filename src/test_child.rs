//! A child process for unit tests that change what a whole process is: who it is, what it may do.

use std::fs::File;
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Gid, Pid, Uid, pipe2, setgroups, setresgid, setresuid};

use crate::os::system;
use crate::os::users::User;

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
