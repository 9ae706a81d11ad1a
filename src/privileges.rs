//! Giving up rights: the step from root, or whoever we are, to a user that can do nothing but run Prosody.

use crate::exit_status::{ExitStatus, Failure};
use crate::identity::User;
use crate::system;
use anyhow::{Context, anyhow};
use nix::errno::Errno;
use nix::libc::c_ulong;
use nix::sys::prctl;
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{Gid, Uid, fchown, getegid, geteuid, setgroups, setresgid, setresuid};
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};

/// Becomes `user`, for good: its uid and gid alone, no supplementary group, no capability in any set (capabilities(7))
/// and no way to gain one (`no_new_privs`). The standard streams are given to it.
///
/// Where we are not root there is nothing to switch: the user and its groups stay as whoever started the container
/// chose them (a volume may be writable for a supplementary group only), and the rest is given up as far as the kernel
/// lets us, without complaint.
///
/// Fails with 77 where a right to do so is missing, and says which.
pub fn drop_to(user: &User) -> Result<(), Failure> {
    if geteuid().is_root() {
        give_standard_streams(user);
        switch(user).map_err(|error| refused(user, error))?;
    }
    clear_rights().map_err(|error| Failure::new(ExitStatus::NO_PERMISSION, error))
}

/// Changes groups, bounding set and user, in the only order that works: the right to do each goes with the last.
fn switch(user: &User) -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let stays = (geteuid(), getegid()) == (uid, gid);
    match setgroups(&[]) {
        // Root that stays root, without the capability: nothing is switched, so nothing is missing.
        Err(Errno::EPERM) if stays => {}
        result => result?,
    }
    empty_bounding_set();
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)
}

/// Takes everything out of the bounding set, capability by capability until the kernel knows no more. Without
/// CAP_SETPCAP it stays, and `no_new_privs` makes it moot.
fn empty_bounding_set() {
    let mut capabilities: std::ops::RangeFrom<c_ulong> = 0..;
    while capabilities.next().is_some_and(|capability| system::drop_from_bounding_set(capability).is_ok()) {}
}

/// What every process may give up, whoever it is.
fn clear_rights() -> anyhow::Result<()> {
    system::clear_capabilities().context("giving up capabilities")?;
    prctl::set_no_new_privs().context("setting no_new_privs")
}

/// Lets `user` open `/dev/stdout` and its like, which means to open the file behind the descriptor anew.
///
/// Only what was made for this container is given away: its pipes, and its terminal. A log file or `/dev/null` belongs
/// to others too. Where it is refused, the descriptors work all the same.
fn give_standard_streams(user: &User) {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    for stream in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
        if is_pipe(stream) || stream.is_terminal() {
            let _ = fchown(stream, Some(Uid::from_raw(user.uid)), None);
        }
    }
}

fn is_pipe(stream: BorrowedFd<'_>) -> bool {
    fstat(stream).is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFIFO)
}

fn refused(user: &User, error: Errno) -> Failure {
    let User { uid, gid, .. } = user;
    let advice = match error {
        Errno::EINVAL => "the container's user namespace does not map these ids: choose others \
                          with PROSODY_UID and PROSODY_GID"
            .to_owned(),
        _ => format!(
            "add `--cap-add SETUID --cap-add SETGID` to the container, or start it with `--user {uid}:{gid}`"
        ),
    };
    Failure::new(ExitStatus::NO_PERMISSION, anyhow!("cannot become uid {uid}, gid {gid} ({error}): {advice}"))
}
