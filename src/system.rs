//! The system calls that neither the standard library nor nix offers in a safe form, each wrapped once.
//!
//! This is the only module with `unsafe` in it. Signals are plain numbers here, because nix's `Signal` has no
//! real-time ones.
#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::SigSet;
use nix::unistd::{ForkResult, Pid};
use std::os::fd::RawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// The greatest signal number of Linux (signal(7)).
pub const LAST_SIGNAL: i32 = 64;

/// The size of the kernel's set of signals, in bytes.
const SET_SIZE: usize = 8;

/// Splits the process in two, fork(2).
pub fn fork() -> nix::Result<ForkResult> {
    // SAFETY: nothing in this program starts a thread, so no lock can be held by one that the child lacks. (The tests
    // fork from a thread; glibc keeps its allocator usable there.)
    unsafe { nix::unistd::fork() }
}

/// Gives a signal its default action. SIGKILL and SIGSTOP have no other.
pub fn default_disposition(signal: i32) {
    set_disposition(signal, libc::SIG_DFL);
}

/// Ignores a signal, here and in the program that is executed next.
pub fn ignore(signal: i32) {
    set_disposition(signal, libc::SIG_IGN);
}

/// Sets the action of a signal to the default or to nothing, sigaction(2).
///
/// The C library's function refuses 32 and 33, which it uses between threads. Programs written without a C library
/// leave them ignored for what they start.
fn set_disposition(signal: i32, handler: libc::sighandler_t) {
    // The kernel's structure: handler, flags, restorer, mask.
    let action: [libc::c_ulong; 4] = [handler as libc::c_ulong, 0, 0, 0];
    let former: *mut libc::c_void = std::ptr::null_mut();
    // SAFETY: `action` is as large as the kernel reads, and neither value installs code of ours. It fails only for a
    // signal that cannot be changed, and then changes nothing.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, action.as_ptr(), former, SET_SIZE) };
}

/// Every signal. nix's `SigSet::all` leaves out 32 and 33, as the C library's `sigfillset` does.
pub fn all_signals() -> SigSet {
    // SAFETY: `sigset_t` is an array of integers, for which every pattern of bits is valid.
    unsafe {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        set.as_mut_ptr().write_bytes(0xff, 1);
        SigSet::from_sigset_t_unchecked(set.assume_init())
    }
}

/// Blocks exactly the signals of a set, sigprocmask(2); the C library's function leaves out 32 and 33 here too.
pub fn block_exactly(set: &SigSet) -> nix::Result<()> {
    let former: *mut libc::c_void = std::ptr::null_mut();
    let set = std::ptr::from_ref(set.as_ref());
    // SAFETY: the kernel reads the first SET_SIZE bytes of the set, which is larger.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, set, former, SET_SIZE)
    })
    .map(drop)
}

/// Sends a signal to one process, kill(2).
pub fn send_signal(process: Pid, signal: i32) -> nix::Result<()> {
    // SAFETY: takes two numbers and touches no memory of ours.
    Errno::result(unsafe { libc::kill(process.as_raw(), signal) }).map(drop)
}

/// Takes one child that has ended off the kernel's table, waitpid(2), without waiting: which one, and how it ended.
/// `None` where no child has ended, or there is none.
///
/// nix's `waitpid` loses the process id of a child that a real-time signal ended.
pub fn reap() -> nix::Result<Option<(Pid, ExitStatus)>> {
    let mut status = 0;
    // SAFETY: `status` is a live integer for the kernel to write to.
    match Errno::result(unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) }) {
        Ok(0) | Err(Errno::ECHILD) => Ok(None),
        Ok(pid) => Ok(Some((Pid::from_raw(pid), ExitStatus::from_raw(status)))),
        Err(error) => Err(error),
    }
}

/// Lets every descriptor from `first` on close itself at the next `exec`, close_range(2) (Linux 5.11).
pub fn close_on_exec_from(first: u32) -> nix::Result<()> {
    // SAFETY: changes a flag only; no descriptor that somebody owns is closed.
    Errno::result(unsafe { libc::close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int) })
        .map(drop)
}

/// Lets one descriptor close itself at the next `exec`, fcntl(2).
pub fn close_on_exec(descriptor: RawFd) -> nix::Result<()> {
    // SAFETY: changes a flag only; a number that is no descriptor gives EBADF.
    Errno::result(unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) }).map(drop)
}

/// Takes a capability out of the bounding set, PR_CAPBSET_DROP(2const). EPERM without CAP_SETPCAP where it is in, EINVAL
/// beyond the last capability that the kernel knows.
pub fn drop_from_bounding_set(capability: libc::c_ulong) -> nix::Result<()> {
    // Most are out already in a container, and dropping one copies the credentials all the same.
    // SAFETY: takes numbers only; the unused arguments are zero, as the kernel asks.
    if Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_READ, capability, 0, 0, 0) })? == 0 {
        return Ok(());
    }
    // SAFETY: takes numbers only; the unused arguments are zero, as the kernel asks.
    Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }).map(drop)
}

/// Empties the effective, permitted and inheritable sets, capset(2), and the ambient one with them (capabilities(7)).
pub fn clear_capabilities() -> nix::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3`: two words a set.
    const VERSION: u32 = 0x2008_0522;
    #[repr(C)]
    struct Header {
        version: u32,
        process: libc::c_int,
    }
    #[repr(C)]
    struct Sets {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let header = Header { version: VERSION, process: 0 };
    let none = [const { Sets { effective: 0, permitted: 0, inheritable: 0 } }; 2];
    // SAFETY: both structures are laid out as in <linux/capability.h> and live during the call, which writes to the
    // header only where the version is unknown; this one has been known since Linux 2.6.26. The C library has no wrapper.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_capset, std::ptr::from_ref(&header), std::ptr::from_ref(&none))
    })
    .map(drop)
}
