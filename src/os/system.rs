//! The system calls that neither the standard library nor nix offers in a safe form, each wrapped once.
//!
//! This is the only module with `unsafe` in it. Signals are plain numbers here, because nix's `Signal` has no
//! real-time ones.
#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::libc::{self, c_char, c_int, c_ulong};
use nix::sys::signal::SigSet;
use nix::unistd::{ForkResult, Pid};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Defines the program's `main`: what the C library calls first. `$run` never returns.
///
/// The standard library's own start would look at the main thread's stack first, with all of the C library's formatted
/// input for that, and take signals that PID 1 needs. What else it does is in [`prepare`].
#[macro_export]
macro_rules! main_function {
    ($run:path) => {
        // SAFETY: nothing else in the program has this name.
        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        extern "C" fn main() -> i32 {
            $crate::os::system::prepare();
            $run()
        }
    };
}

/// Makes the process fit for Rust's standard library: the three standard descriptors are open, because what is opened
/// next would be taken for one of them, and a reader that went away is an error (EPIPE) and no death.
pub fn prepare() {
    for descriptor in 0..=2 {
        // SAFETY: takes numbers and a static string; a number that is no descriptor gives EBADF, and the lowest free
        // number is the one that is given out.
        unsafe {
            if libc::fcntl(descriptor, libc::F_GETFD) == -1 {
                libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            }
        }
    }
    ignore(libc::SIGPIPE);
}

/// Ends the process at once, _exit(2): nothing that was registered for its end is run, nothing is flushed.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: takes a number and does not return.
    unsafe { libc::_exit(code.into()) }
}

/// Lets others that are ready to run go first, sched_yield(2).
pub fn yield_to_others() {
    // SAFETY: takes nothing and always succeeds.
    unsafe { libc::sched_yield() };
}

/// A standard stream (0, 1, 2), without the buffer that the standard library keeps for it.
pub fn standard_stream(number: RawFd) -> BorrowedFd<'static> {
    debug_assert!((0..=2).contains(&number));
    // SAFETY: these are open from the start ([`prepare`]), and nothing closes them.
    unsafe { BorrowedFd::borrow_raw(number) }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64")))]
compile_error!(
    "the structures below are those of Linux on machines of 64 bits, and the start that of the GNU C library"
);

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
    let action: [c_ulong; 4] = [handler as c_ulong, 0, 0, 0];
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

/// A signal that was received.
pub struct Received {
    /// Its number.
    pub signal: i32,
    /// Where it came from: `SI_KERNEL`, `SI_USER` and others (sigaction(2), `si_code`).
    pub code: i32,
    /// The process that sent or caused it, where the code is `SI_USER`; 0 where that is in another PID namespace.
    pub sender: i32,
}

/// Sleeps until one of these signals is pending, all of which are blocked, and takes it, rt_sigtimedwait(2).
///
/// The C library's function makes SIGCANCEL (32) and its like an exception; this is the system call itself.
pub fn wait_for_signal(signals: &SigSet) -> nix::Result<Received> {
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::uninit();
    let forever: *const libc::timespec = std::ptr::null();
    let set = std::ptr::from_ref(signals.as_ref());
    // SAFETY: the kernel reads the first SET_SIZE bytes of the set, which is larger, and writes one `siginfo_t`.
    let signal =
        unsafe { libc::syscall(libc::SYS_rt_sigtimedwait, set, info.as_mut_ptr(), forever, SET_SIZE) };
    // Signal numbers fit any integer.
    let signal = Errno::result(signal)? as i32;
    // SAFETY: the call succeeded, so it has been written.
    let info = unsafe { info.assume_init() };
    // SAFETY: signals with another code have other fields in this place, all of which are integers.
    let sender = unsafe { info.si_pid() };
    Ok(Received { signal, code: info.si_code, sender })
}

/// Makes this process the one that gets SIGIO (with the code `SI_KERNEL`, which no process can send) while a descriptor
/// has O_ASYNC and becomes readable, F_SETOWN of fcntl(2). A process that is forked has the descriptor and not the signal.
pub fn own_signals_of(descriptor: BorrowedFd) -> nix::Result<()> {
    // SAFETY: takes numbers only.
    Errno::result(unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_SETOWN, libc::getpid()) }).map(drop)
}

/// How many bytes can be read from a descriptor at once, FIONREAD (inotify(7)).
pub fn readable_bytes(descriptor: BorrowedFd) -> nix::Result<usize> {
    let mut bytes: c_int = 0;
    // SAFETY: the kernel writes one integer, which lives during the call.
    Errno::result(unsafe { libc::ioctl(descriptor.as_raw_fd(), libc::FIONREAD, &raw mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or_default())
}

/// Takes news of one child, waitpid(2), without waiting: which one, and how it ended or what stopped it. One that has
/// ended is off the kernel's table then. `None` where there is no news, or no child.
///
/// nix's `waitpid` loses the process id of a child that a real-time signal ended.
pub fn reap() -> nix::Result<Option<(Pid, ExitStatus)>> {
    let mut status = 0;
    // SAFETY: `status` is a live integer for the kernel to write to.
    match Errno::result(unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG | libc::WUNTRACED) }) {
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

/// Asks for a signal to this process when its parent ends, PR_SET_PDEATHSIG(2const).
pub fn signal_on_parents_death(signal: i32) -> nix::Result<()> {
    // The kernel takes a number that is no signal for an error.
    // SAFETY: takes numbers only.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal as c_ulong, 0, 0, 0) }).map(drop)
}

/// Takes a capability out of the bounding set, PR_CAPBSET_DROP(2const). EPERM without CAP_SETPCAP where it is in, EINVAL
/// beyond the last capability that the kernel knows.
pub fn drop_from_bounding_set(capability: c_ulong) -> nix::Result<()> {
    // Most are out already in a container, and dropping one copies the credentials all the same.
    // SAFETY: takes numbers only; the unused arguments are zero, as the kernel asks.
    if Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_READ, capability, 0, 0, 0) })? == 0 {
        return Ok(());
    }
    // SAFETY: takes numbers only; the unused arguments are zero, as the kernel asks.
    Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }).map(drop)
}

/// A set of capabilities: capability `n` of capabilities(7) is bit `n`.
pub type Capabilities = u64;

/// `_LINUX_CAPABILITY_VERSION_3`: two words a set, the low one first (capset(2)).
const CAPABILITY_VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    process: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilityWords {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The effective set of this process, capget(2).
pub fn effective_capabilities() -> nix::Result<Capabilities> {
    let mut header = CapabilityHeader { version: CAPABILITY_VERSION, process: 0 };
    let mut words = [CapabilityWords::default(); 2];
    // SAFETY: both are laid out as in <linux/capability.h> and live during the call, which writes them. The C library
    // has no wrapper.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, &raw mut words) })?;
    Ok(u64::from(words[1].effective) << 32 | u64::from(words[0].effective))
}

/// Makes this the effective and the permitted set, and empties the inheritable one, capset(2), and the ambient one with
/// it (capabilities(7)). EPERM where something in it is not permitted now.
pub fn set_capabilities(capabilities: Capabilities) -> nix::Result<()> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION, process: 0 };
    // Each word takes its half.
    let words = [capabilities as u32, (capabilities >> 32) as u32].map(|word| CapabilityWords {
        effective: word,
        permitted: word,
        inheritable: 0,
    });
    // SAFETY: both are laid out as in <linux/capability.h> and live during the call, which writes to the header only
    // where the version is unknown; this one has been known since Linux 2.6.26. The C library has no wrapper.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_capset, std::ptr::from_ref(&header), std::ptr::from_ref(&words))
    })
    .map(drop)
}
/// Has names of hosts resolved by `/etc/hosts` and DNS, whatever `nsswitch.conf` says: its other services are libraries of
/// the image's own C library, which this program, linked statically, could load and would be harmed by.
pub fn resolve_names_with_files_and_dns() {
    unsafe extern "C" {
        fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
    }
    // SAFETY: glibc's (nss.h, stdlib.h), with strings that end and that it copies. No other thread runs. A server of
    // names that is silent is asked once, for a second (resolv.conf(5)): who waits asks again.
    unsafe {
        __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr());
        libc::setenv(c"RES_OPTIONS".as_ptr(), c"timeout:1 attempts:1".as_ptr(), 0);
    }
}
