//! PID 1: starts one child, forwards signals to it, reaps everything, and ends as the child ended.
//!
//! It does nothing else, so that nothing can go wrong in it: the child configures itself and then becomes the command.
//! One thread, no allocation once the child runs, and the kernel wakes it only when there is something to do.

mod command;

pub use command::Command;

use crate::exit_status::{ExitStatus, Failure, WithStatus};
use crate::system;
use anyhow::Context;
use nix::errno::Errno;
use nix::libc::SI_KERNEL;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use nix::unistd::{ForkResult, Pid, getpgid, getpgrp, getpid};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTSTP, SIGWINCH};
use signal_hook::low_level::signal_name;
use std::io::Write;
use std::os::fd::AsFd;
use std::{fmt, io, process};

/// Signals that an instruction causes. Blocked, they would end the process without a word (sigprocmask(2)).
const SYNCHRONOUS: [Signal; 7] = [
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGSEGV,
    Signal::SIGSYS,
    Signal::SIGTRAP,
];

/// Signals that a terminal sends to its whole foreground process group (tty_ioctl(4), termios(3)).
const FROM_TERMINAL: [i32; 4] = [SIGINT, SIGQUIT, SIGTSTP, SIGWINCH];

/// Runs `child` in a forked process and stays as its PID 1 until that process has ended: every signal is passed on to
/// it, and every orphan that the kernel hands to us is reaped.
///
/// `child` starts with no signal blocked and none ignored. It ends in `exec` ([`Command::exec`]), or its status becomes
/// that of its process. What is returned, in the parent alone, is the child's status, or `128 + n` where signal `n`
/// ended it. Nothing is configured here, so call it first thing: what arrives before, PID 1 does not see.
///
/// Fails with 71 where the kernel refuses a fork or a descriptor.
pub fn supervise(child: impl FnOnce() -> ExitStatus) -> Result<ExitStatus, Failure> {
    let signals = receive_signals().status(ExitStatus::OS_ERROR)?;
    if getpid() != Pid::from_raw(1) {
        // Orphans are handed to the next subreaper above them rather than to PID 1, which somebody else is.
        prctl::set_child_subreaper(true)
            .context("becoming the one that orphans are handed to")
            .status(ExitStatus::OS_ERROR)?;
    }
    // Other processes of our user could read the secrets in our environment (PR_SET_DUMPABLE(2const)). The child keeps
    // this until its `exec`.
    prctl::set_dumpable(false)
        .context("hiding the environment from other processes")
        .status(ExitStatus::OS_ERROR)?;

    let fork = system::fork()
        .context("forking: is the container's limit of processes reached?")
        .status(ExitStatus::OS_ERROR)?;
    match fork {
        ForkResult::Child => {
            drop(signals);
            let status = match system::block_exactly(&SigSet::empty()) {
                Ok(()) => child(),
                Err(error) => {
                    report(format_args!("unblocking the child's signals: {error}"));
                    ExitStatus::OS_ERROR
                }
            };
            process::exit(status.code().into())
        }
        ForkResult::Parent { child } => wait_for(child, &signals).status(ExitStatus::OS_ERROR),
    }
}

/// Ignores SIGHUP from here on. For a child that becomes the server, first thing: it means "reload", and must not end
/// a process that has no handler yet. [`Command::exec`] keeps it so for the server, and for nothing else.
pub fn ignore_hangup() {
    system::ignore(SIGHUP);
}

/// Blocks every signal but the synchronous ones, and opens the descriptor that they are read from instead.
///
/// This comes before the fork: a handler would live on in the child and swallow what is meant for the command.
fn receive_signals() -> anyhow::Result<SignalFd> {
    // An ignored signal never reaches the descriptor, and with SIGCHLD ignored the kernel throws exit statuses away.
    // Those of the synchronous signals are the runtime's, which tells a stack overflow that way.
    for signal in 1..=system::LAST_SIGNAL {
        if !SYNCHRONOUS.iter().any(|&kept| kept as i32 == signal) {
            system::default_disposition(signal);
        }
    }
    let mut set = system::all_signals();
    for signal in SYNCHRONOUS {
        set.remove(signal);
    }
    system::block_exactly(&set).context("blocking signals")?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .context("opening a descriptor for signals")
}

/// The loop of PID 1: sleeps until a signal arrives, and ends when `child` has.
fn wait_for(child: Pid, signals: &SignalFd) -> anyhow::Result<ExitStatus> {
    let mut sources = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    let mut forwarded = 0_u64;
    loop {
        match poll(&mut sources, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("waiting for signals"),
        }
        let Some(info) = signals.read_signal().context("reading a signal")? else {
            continue;
        };
        // Signal numbers fit any integer.
        let signal = info.ssi_signo as i32;
        if signal == SIGCHLD {
            if let Some(ended) = reap_all(child)? {
                explain(ended, forwarded);
                return Ok(ended.into());
            }
        } else {
            forwarded |= bit(signal);
            if !has_reached(child, &info) {
                forward(signal, child);
            }
        }
    }
}

/// Reaps every process that has ended, and tells how `child` did where it is among them.
///
/// One SIGCHLD may stand for any number of them: a signal that is pending is not queued a second time (signal(7)).
fn reap_all(child: Pid) -> anyhow::Result<Option<process::ExitStatus>> {
    let mut of_child = None;
    while let Some((pid, status)) = system::reap().context("waiting for children")? {
        if pid == child {
            of_child = Some(status);
        }
    }
    Ok(of_child)
}

/// Whether a signal to us has reached `child` already: a terminal sends it to every process of the group, and the child
/// is in ours until it makes one of its own (as an interactive shell does).
fn has_reached(child: Pid, info: &siginfo) -> bool {
    info.ssi_code == SI_KERNEL
        && FROM_TERMINAL.contains(&(info.ssi_signo as i32))
        && getpgid(Some(child)) == Ok(getpgrp())
}

/// Passes a signal on. The child's process id is its own until it is reaped, and then there is nothing left to forward.
fn forward(signal: i32, child: Pid) {
    match system::send_signal(child, signal) {
        Ok(()) => {}
        Err(Errno::EPERM) => report(format_args!(
            "{} was not forwarded: the command runs as another user, and the right to signal it is missing; \
             add `--cap-add KILL` to the container, or start it as that user with `--user`",
            Name(signal)
        )),
        Err(error) => report(format_args!("{} was not forwarded: {error}", Name(signal))),
    }
}

/// Says so where a signal that nobody sent through us ended the command: a crash, or the kernel out of memory.
fn explain(ended: process::ExitStatus, forwarded: u64) {
    use std::os::unix::process::ExitStatusExt;
    if let Some(signal) = ended.signal().filter(|&n| forwarded & bit(n) == 0) {
        report(format_args!("the command was ended by {}", Name(signal)));
    }
}

/// The place of a signal (1–64) in a set of them.
fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// A signal as people know it: `SIGTERM`, or `signal 40` for one without a name.
struct Name(i32);

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match signal_name(self.0) {
            Some(name) => formatter.write_str(name),
            None => write!(formatter, "signal {}", self.0),
        }
    }
}

/// Writes one line to standard error, without allocating. Where that is closed there is nobody to tell.
fn report(message: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "prosody-entrypoint: {message}");
}
