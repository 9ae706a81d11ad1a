//! Wrappers for system calls that neither the standard library nor nix offers in a safe form.
//!
//! Only this module has `unsafe` code. Signals are numbers here, because nix's `Signal` lacks real-time signals.
#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::libc::{self, c_char, c_int, c_ulong};
use nix::sys::prctl;
use nix::sys::signal::SigSet;
use nix::sys::time::TimeSpec;
use nix::unistd::{ForkResult, Pid};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;
use std::time::Duration;

/// Lets other runnable processes run first, sched_yield(2).
pub fn yield_to_others() {
    // SAFETY: takes nothing and always succeeds.
    unsafe { libc::sched_yield() };
}

/// A standard stream (0, 1, 2), without the standard library's buffer.
pub fn standard_stream(number: RawFd) -> BorrowedFd<'static> {
    debug_assert!((0..=2).contains(&number));
    // SAFETY: the standard library opens closed ones at the start, and nothing closes them.
    unsafe { BorrowedFd::borrow_raw(number) }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64")))]
compile_error!("the structures below are those of Linux and the GNU C library on machines of 64 bits");

/// The greatest signal number of Linux (signal(7)).
pub const LAST_SIGNAL: i32 = 64;

/// The size of the kernel's signal set, in bytes.
const SET_SIZE: usize = 8;

/// Forks the process, fork(2).
pub fn fork() -> nix::Result<ForkResult> {
    // SAFETY: the processes that call this start no threads, so no other thread can hold a lock. (The tests fork from a thread; glibc
    // keeps its allocator usable there.)
    unsafe { nix::unistd::fork() }
}

/// Resets a signal to its default action. SIGKILL and SIGSTOP always have it.
pub fn default_disposition(signal: i32) {
    disposition(signal, Some(libc::SIG_DFL));
}

/// Ignores a signal, in this program and after the next `exec`.
pub fn ignore(signal: i32) {
    disposition(signal, Some(libc::SIG_IGN));
}

/// Sets a signal's action to the default or to ignore, if one is given, and returns the former action, sigaction(2).
///
/// The C library's function refuses 32 and 33, which it uses between threads. Programs without a C library may start
/// us with these signals ignored.
fn disposition(signal: i32, handler: Option<libc::sighandler_t>) -> libc::sighandler_t {
    // The kernel's structure: handler, flags, restorer, mask.
    let action: Option<[c_ulong; 4]> = handler.map(|handler| [handler as c_ulong, 0, 0, 0]);
    let new = action.as_ref().map_or(std::ptr::null(), |action| action.as_ptr());
    let mut former: [c_ulong; 4] = [0; 4];
    // SAFETY: both have the size that the kernel reads and writes, and neither value installs a handler. The call fails
    // only for signals that cannot be changed, and then changes nothing.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, new, former.as_mut_ptr(), SET_SIZE) };
    former[0] as libc::sighandler_t
}

/// The signals that were ignored when this program started, as bits, and those that were blocked.
static AT_START: OnceLock<(u64, SigSet)> = OnceLock::new();

/// Runs [`note_signals`] before `main`, because the standard library ignores SIGPIPE there, whatever it was.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = note_signals;

extern "C" fn note_signals() {
    let ignored = (1..=LAST_SIGNAL).filter(|signal| disposition(*signal, None) == libc::SIG_IGN);
    let ignored = ignored.map(|signal| 1 << (signal - 1)).sum();
    let blocked = SigSet::thread_get_mask().unwrap_or_else(|_| SigSet::empty());
    let _ = AT_START.set((ignored, blocked));
}

/// Ignores and blocks exactly the signals that were ignored and blocked when this program started.
pub fn restore_signals() -> nix::Result<()> {
    let Some((ignored, blocked)) = AT_START.get() else { return Ok(()) };
    for signal in 1..=LAST_SIGNAL {
        let was_ignored = ignored & (1 << (signal - 1)) != 0;
        disposition(signal, Some(if was_ignored { libc::SIG_IGN } else { libc::SIG_DFL }));
    }
    block_exactly(blocked)
}

/// All signals. nix's `SigSet::all` lacks 32 and 33, like the C library's `sigfillset`.
pub fn all_signals() -> SigSet {
    // SAFETY: `sigset_t` is an array of integers, so every bit pattern is valid.
    unsafe {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        set.as_mut_ptr().write_bytes(0xff, 1);
        SigSet::from_sigset_t_unchecked(set.assume_init())
    }
}

/// Blocks exactly the signals in a set, sigprocmask(2). The C library's function omits 32 and 33.
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
    // SAFETY: takes numbers only.
    Errno::result(unsafe { libc::kill(process.as_raw(), signal) }).map(drop)
}

pub struct Received {
    pub signal: i32,
    /// Its origin: `SI_KERNEL`, `SI_USER` and others (sigaction(2), `si_code`).
    pub code: i32,
    /// The process that sent it, if the code is `SI_USER`; 0 for a process in another PID namespace.
    pub sender: i32,
}

/// Sleeps until one of these signals, which must be blocked, is pending, and removes it from the queue,
/// rt_sigtimedwait(2). Without a limit, it sleeps for ever.
///
/// Unlike the C library's function, this also receives 32 (SIGCANCEL) and 33.
/// Errors: EAGAIN after the limit.
pub fn wait_for_signal(signals: &SigSet, limit: Option<Duration>) -> nix::Result<Received> {
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::uninit();
    let limit = limit.map(TimeSpec::from_duration);
    let time = limit.as_ref().map_or(std::ptr::null(), |limit| std::ptr::from_ref(limit.as_ref()));
    let set = std::ptr::from_ref(signals.as_ref());
    // SAFETY: the kernel reads the first SET_SIZE bytes of the set, which is larger, and a time, if any, and writes one
    // `siginfo_t`.
    let signal = unsafe { libc::syscall(libc::SYS_rt_sigtimedwait, set, info.as_mut_ptr(), time, SET_SIZE) };
    // A signal number fits.
    let signal = Errno::result(signal)? as i32;
    // SAFETY: the call succeeded, so it has been written.
    let info = unsafe { info.assume_init() };
    // SAFETY: with any code, the union has integers in this place.
    let sender = unsafe { info.si_pid() };
    Ok(Received { signal, code: info.si_code, sender })
}

/// Sends SIGIO to this process when a descriptor with O_ASYNC becomes readable, F_SETOWN of fcntl(2). The code is
/// `SI_KERNEL`, which no process can send. Forked processes inherit the descriptor, but do not get the signal.
pub fn own_signals_of(descriptor: BorrowedFd) -> nix::Result<()> {
    // SAFETY: takes numbers only.
    Errno::result(unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_SETOWN, libc::getpid()) }).map(drop)
}

/// The number of bytes that can be read from a descriptor without waiting, FIONREAD (inotify(7)).
pub fn readable_bytes(descriptor: BorrowedFd) -> nix::Result<usize> {
    let mut bytes: c_int = 0;
    // SAFETY: the kernel writes one integer, which outlives the call.
    Errno::result(unsafe { libc::ioctl(descriptor.as_raw_fd(), libc::FIONREAD, &raw mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or_default())
}

/// Reaps one ended child, or reports a stopped one, waitpid(2), without waiting. `None` if no child has changed, or
/// there is no child.
///
/// nix's `waitpid` loses the process id of a child that a real-time signal killed.
pub fn reap() -> nix::Result<Option<(Pid, ExitStatus)>> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a live integer for the kernel to write to.
        match Errno::result(unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG | libc::WUNTRACED) }) {
            Ok(0) | Err(Errno::ECHILD) => return Ok(None),
            Ok(pid) => return Ok(Some((Pid::from_raw(pid), ExitStatus::from_raw(status)))),
            // The kernel does not interrupt this call, but a tracer or a filter of system calls may.
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Marks every descriptor from `first` on as close-on-exec, close_range(2) (Linux 5.11).
pub fn close_on_exec_from(first: u32) -> nix::Result<()> {
    // SAFETY: changes a flag only, and closes nothing.
    Errno::result(unsafe { libc::close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int) })
        .map(drop)
}

/// Marks one descriptor as close-on-exec, fcntl(2).
pub fn close_on_exec(descriptor: RawFd) -> nix::Result<()> {
    // SAFETY: changes a flag only. An invalid descriptor gives EBADF.
    Errno::result(unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) }).map(drop)
}

/// Requests a signal to this process when its parent ends, PR_SET_PDEATHSIG(2const).
pub fn signal_on_parents_death(signal: i32) -> nix::Result<()> {
    // SAFETY: takes numbers only, and the kernel refuses invalid signals.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal as c_ulong, 0, 0, 0) }).map(drop)
}

/// Removes a capability from the bounding set, PR_CAPBSET_DROP(2const).
/// Errors: EPERM without CAP_SETPCAP if the set has it; EINVAL for capabilities that the kernel does not know.
pub fn drop_from_bounding_set(capability: c_ulong) -> nix::Result<()> {
    // A container's set lacks most already, and each call of PR_CAPBSET_DROP copies the credentials.
    // SAFETY: takes numbers only; the unused arguments are zero, as the kernel requires.
    if Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_READ, capability, 0, 0, 0) })? == 0 {
        return Ok(());
    }
    // SAFETY: takes numbers only; the unused arguments are zero, as the kernel requires.
    Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }).map(drop)
}

/// A set of capabilities: capability `n` of capabilities(7) is bit `n`.
pub type Capabilities = u64;

/// `_LINUX_CAPABILITY_VERSION_3`: two words per set, the low one first (capset(2)).
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
    // SAFETY: both have the layout of <linux/capability.h> and outlive the call, which writes them. The C library has
    // no wrapper.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, &raw mut words) })?;
    Ok(u64::from(words[1].effective) << 32 | u64::from(words[0].effective))
}

/// Sets the effective and permitted sets, and empties the inheritable set, capset(2), and so the ambient set
/// (capabilities(7)).
/// Errors: EPERM if a capability is not in the permitted set.
pub fn set_capabilities(capabilities: Capabilities) -> nix::Result<()> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION, process: 0 };
    // Each word has one half.
    let words = [capabilities as u32, (capabilities >> 32) as u32].map(|word| CapabilityWords {
        effective: word,
        permitted: word,
        inheritable: 0,
    });
    // SAFETY: both have the layout of <linux/capability.h> and outlive the call. It writes to the header only if the
    // version is unknown; Linux knows it since 2.6.26. The C library has no wrapper.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_capset, std::ptr::from_ref(&header), std::ptr::from_ref(&words))
    })
    .map(drop)
}

/// Makes a command's process give up all capabilities, and any way to gain some (`no_new_privs`), before its program
/// starts, but after it has become another user.
pub fn without_capabilities(command: &mut Command) -> &mut Command {
    // SAFETY: it runs in the new process, and makes two system calls without memory of the heap or locks.
    unsafe {
        command.pre_exec(|| {
            set_capabilities(0)?;
            Ok(prctl::set_no_new_privs()?)
        })
    }
}

/// Makes a command's process end when the thread that starts it ends, by whatever signal. No other process can prevent that.
pub fn end_with_parent(command: &mut Command) -> &mut Command {
    // SAFETY: it runs in the new process, and makes one system call without memory of the heap or locks.
    unsafe { command.pre_exec(|| Ok(signal_on_parents_death(libc::SIGKILL)?)) }
}

/// The addresses of a host, sorted, each once. A silent name server takes a second.
/// Fails if the name does not resolve now (getaddrinfo(3)).
pub fn addresses_of(host: &str) -> io::Result<BTreeSet<IpAddr>> {
    let has_options = std::env::var_os(RES_OPTIONS).is_some();
    resolve_names_with_files_and_dns();
    let found = (host, 0).to_socket_addrs();
    if !has_options {
        // Programs that we start have no use for it.
        // SAFETY: No other thread uses the environment: those of `os::process` only wait for programs.
        unsafe { std::env::remove_var(RES_OPTIONS) };
    }
    Ok(found?.map(|address| address.ip()).collect())
}

/// The variable with options for the resolver (resolv.conf(5)).
const RES_OPTIONS: &str = "RES_OPTIONS";

/// Resolves host names only with `/etc/hosts` and DNS, and ignores `nsswitch.conf`. Its other services are libraries
/// for the image's C library, which would harm this static program.
pub fn resolve_names_with_files_and_dns() {
    unsafe extern "C" {
        fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
    }
    // A silent name server is asked once, for a second (resolv.conf(5)): our callers retry.
    // SAFETY: glibc's functions (nss.h, stdlib.h), with terminated strings, which they copy. No other
    // thread uses the environment: those of `os::process` only wait for programs.
    unsafe {
        __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr());
        libc::setenv(c"RES_OPTIONS".as_ptr(), c"timeout:1 attempts:1".as_ptr(), 0);
    }
}
