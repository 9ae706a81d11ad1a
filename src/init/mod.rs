//! PID 1: starts one child, forwards signals to it, reaps everything, and ends as the child ended.
//!
//! It does nothing else, so that nothing can go wrong in it: the child configures itself and then becomes the command,
//! and a reload is another child, whether SIGHUP or a changed file asks for it. One thread, no allocation once the child
//! runs, and the kernel wakes it only when there is something to do.

mod command;
mod options;
mod style;
mod terminal;

pub use command::{Command, ProgramKind};
pub use options::{ExitCodes, InitOptions, Invocation, parse};
pub use style::MessageStyle;

use crate::exit_status::{ExitStatus, Failure, WithStatus};
use crate::os::privileges;
use crate::os::system::{self, Received};
use crate::os::watch::Watch;
use anyhow::{Context, anyhow};
use nix::errno::Errno;
use nix::libc::{SI_KERNEL, SI_USER};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{ForkResult, Pid, getpid, setpgid};
use signal_hook::consts::{SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGIO, SIGKILL, SIGPIPE, SIGQUIT, SIGTSTP};
use signal_hook::low_level::signal_name;
use std::os::unix::process::ExitStatusExt;
use std::{fmt, process};
use terminal::Terminal;

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

/// What makes a server read its files again.
#[derive(Clone, Copy)]
pub struct Reload<'a> {
    /// A forked child runs this, given the server's process id. The server gets SIGHUP only where it succeeds.
    ///
    /// It is to take what there is to read from the watch, early on: what is there when it has ended makes another one.
    pub run: &'a dyn Fn(Pid, Cause) -> ExitStatus,
    /// What tells of changed files.
    pub watch: Option<&'a Watch>,
}

/// Why there is a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Somebody sent SIGHUP.
    Hangup,
    /// The kernel told of something that is watched.
    FilesChanged,
}

/// Runs `child` in a forked process and stays as its PID 1 until that process has ended: every signal is passed on to
/// it, and every orphan that the kernel hands to us is reaped.
///
/// `child` starts with no signal blocked and none ignored, in a process group of its own, which has the terminal if
/// there is one. It ends in `exec` ([`Command::exec`]), or its status becomes that of its process. What is returned, in
/// the parent alone, is the child's status, or `128 + n` where signal `n` ended it. Nothing is configured here, so call
/// it first thing: what arrives before, PID 1 does not see.
///
/// Fails with 71 where the kernel refuses a fork, or another thing that every program may do.
pub fn supervise(
    options: &InitOptions,
    reload: Option<Reload>,
    child: impl FnOnce() -> ExitStatus,
) -> Result<ExitStatus, Failure> {
    let signals = receive_signals().status(ExitStatus::OS_ERROR)?;
    prepare(options).status(ExitStatus::OS_ERROR)?;
    let terminal = Terminal::of_ours();
    let fork = system::fork()
        .context("forking: is the container's limit of processes reached?")
        .status(ExitStatus::OS_ERROR)?;
    match fork {
        ForkResult::Child => {
            // Both sides do this, because either may be the first to need it. It fails where the other one was first
            // and the command runs already.
            let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
            if let Some(terminal) = &terminal {
                terminal.give_to(getpid());
            }
            end_child(child)
        }
        ForkResult::Parent { child } => {
            let _ = setpgid(child, child);
            privileges::keep_for_supervision(reload.is_some());
            if let Some(program) = options.command.first() {
                let program = program.to_string_lossy();
                options
                    .message_style
                    .info(format_args!("Spawned child process '{program}' with pid '{child}'"));
            }
            let init =
                Init { options, reload, child, terminal, reloading: None, reload_again: false, forwarded: 0 };
            init.run(&signals).status(ExitStatus::OS_ERROR)
        }
    }
}

/// Ignores SIGHUP from here on. For a child that becomes the server, first thing: it means "reload", and must not end
/// a process that has no handler yet. [`Command::exec`] keeps it so for the server, and for nothing else.
pub fn ignore_hangup() {
    system::ignore(SIGHUP);
}

/// Blocks every signal but the synchronous ones, so that they wait to be taken: a handler would live on in the child and
/// swallow what is meant for the command.
fn receive_signals() -> anyhow::Result<SigSet> {
    // An ignored signal never arrives, and with SIGCHLD ignored the kernel throws exit statuses away.
    for signal in 1..=system::LAST_SIGNAL {
        system::default_disposition(signal);
    }
    let mut set = system::all_signals();
    for signal in SYNCHRONOUS {
        set.remove(signal);
    }
    system::block_exactly(&set).context("blocking signals")?;
    Ok(set)
}

/// What PID 1 is to the processes around it.
fn prepare(options: &InitOptions) -> anyhow::Result<()> {
    if let Some(signal) = options.parent_death_signal {
        system::signal_on_parents_death(signal).context("asking for a signal when the parent dies")?;
    }
    if options.subreaper {
        // Orphans are handed to the next subreaper above them rather than to PID 1, which somebody else may be.
        prctl::set_child_subreaper(true).context("becoming the one that orphans are handed to")?;
        options.message_style.trace(format_args!("Registered as child subreaper"));
    }
    let is_reaper = getpid() == Pid::from_raw(1) || prctl::get_child_subreaper().unwrap_or(false);
    if !is_reaper {
        options.message_style.warn(format_args!("{}", options::NOT_A_REAPER));
    }
    Ok(())
}

/// In a forked child: does its work with no signal blocked, and ends with its status.
fn end_child(work: impl FnOnce() -> ExitStatus) -> ! {
    // A log that nobody reads any more is no reason to end.
    system::ignore(SIGPIPE);
    let status = match system::block_exactly(&SigSet::empty()) {
        Ok(()) => work(),
        Err(error) => {
            MessageStyle::Entrypoint.fatal(format_args!("unblocking the child's signals: {error}"));
            ExitStatus::OS_ERROR
        }
    };
    process::exit(status.code().into())
}

/// PID 1 while its child runs.
struct Init<'a> {
    options: &'a InitOptions,
    reload: Option<Reload<'a>>,
    child: Pid,
    /// The terminal that the child has from us.
    terminal: Option<Terminal>,
    /// The process that prepares a reload. While it runs, the kernel does not tell of changed files.
    reloading: Option<Pid>,
    /// Whether another SIGHUP came meanwhile.
    reload_again: bool,
    /// The signals that were passed on, as bits.
    forwarded: u64,
}

impl Init<'_> {
    /// Sleeps until a signal arrives, and ends when the child has.
    fn run(mut self, signals: &SigSet) -> anyhow::Result<ExitStatus> {
        // What this process was before it became us may have left children that ended.
        let mut ended = self.reap_all()?;
        let own_pid = getpid().as_raw();
        // Whether the last signal told of a child as well.
        let mut last_was_sigchld = false;
        let ended = loop {
            if let Some(ended) = ended {
                break ended;
            }
            match system::wait_for_signal(signals) {
                // We have caused it ourselves: SIGPIPE, by writing to a pipe that nobody reads.
                Ok(Received { code: SI_USER, sender, .. }) if sender == own_pid => {}
                Ok(Received { signal: SIGCHLD, .. }) => {
                    self.options.message_style.debug(format_args!("Received SIGCHLD"));
                    // Where one process after the other ends, more are about to: they are reaped together then.
                    if last_was_sigchld {
                        system::yield_to_others();
                    }
                    last_was_sigchld = true;
                    ended = self.reap_all()?;
                }
                Ok(received) => {
                    last_was_sigchld = false;
                    self.handle(received);
                }
                // As after SIGSTOP and SIGCONT (signal(7)).
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("waiting for signals"),
            }
        };
        if let Some(reloading) = self.reloading {
            // It may be gone already, and nothing is left to reload.
            let _ = system::send_signal(reloading, SIGKILL);
        }
        if let Some(terminal) = &self.terminal {
            terminal.take_back(self.child);
        }
        self.report_end(ended);
        let status = ExitStatus::from(ended);
        Ok(if self.options.success_codes.contains(status.code()) { ExitStatus::SUCCESS } else { status })
    }

    fn handle(&mut self, received: Received) {
        match (received.signal, self.reload) {
            // The kernel's own: the terminal went away, which is nothing to a server.
            (SIGHUP, Some(_)) if received.code == SI_KERNEL => {}
            (SIGHUP, Some(_)) if self.reloading.is_some() => self.reload_again = true,
            (SIGHUP, Some(reload)) => self.start_reload(reload, Cause::Hangup),
            (SIGIO, Some(Reload { watch: Some(_), .. })) if received.code == SI_KERNEL => {}
            (signal, _) => {
                self.options.message_style.debug(format_args!("Passing signal: '{}'", SignalName(signal)));
                self.forwarded |= bit(signal);
                self.forward(signal);
            }
        }
        // One that somebody sent may stand for one of the kernel's too: there is only one pending at a time (signal(7)).
        if received.signal == SIGIO {
            self.reload_on_changes();
        }
    }

    /// Starts a reload where there is news of changed files, unless one runs, after which this is looked at again.
    fn reload_on_changes(&mut self) {
        if let (None, Some(reload @ Reload { watch: Some(watch), .. })) = (self.reloading, self.reload) {
            if watch.has_events() {
                self.start_reload(reload, Cause::FilesChanged);
            }
        }
    }

    /// Reaps every process that has ended, and tells how the child did where it is among them.
    ///
    /// One SIGCHLD may stand for any number of them: a signal that is pending is not queued a second time (signal(7)).
    fn reap_all(&mut self) -> anyhow::Result<Option<process::ExitStatus>> {
        let mut child_status = None;
        while let Some((pid, status)) = system::reap().context("waiting for children")? {
            if let Some(signal) = status.stopped_signal() {
                if pid == self.child {
                    self.child_stopped(signal);
                }
                continue;
            }
            self.options.message_style.debug(format_args!("Reaped child with pid: '{pid}'"));
            if pid == self.child {
                child_status = Some(status);
            } else if self.reloading == Some(pid) {
                self.reloading = None;
                // Where the child has ended too, there is nobody to tell.
                if child_status.is_none() {
                    self.reload_ended(status);
                }
            } else if self.options.warn_on_reap {
                self.options.message_style.warn(format_args!("Reaped zombie process with pid={pid}"));
            }
        }
        Ok(child_status)
    }

    /// Ctrl-Z stops the terminal's whole foreground group. Above the child there is no shell that could continue it, so
    /// it would stay so for good.
    fn child_stopped(&self, signal: i32) {
        if signal == SIGTSTP && self.terminal.is_some() {
            self.send(Pid::from_raw(-self.child.as_raw()), SIGCONT);
        }
    }

    fn start_reload(&mut self, reload: Reload, cause: Cause) {
        self.reload_again = false;
        match system::fork() {
            Ok(ForkResult::Child) => end_child(|| (reload.run)(self.child, cause)),
            Ok(ForkResult::Parent { child }) => {
                self.reloading = Some(child);
                if let Some(watch) = reload.watch {
                    watch.pause();
                }
            }
            Err(error) => {
                let trigger = match cause {
                    Cause::Hangup => "SIGHUP",
                    Cause::FilesChanged => "a changed file",
                };
                self.options.message_style.warn(format_args!(
                    "{trigger} had no effect: forking: {error}: is the container's limit of processes reached?"
                ));
            }
        }
    }

    /// Only what could be applied is the server's to read. Why it could not, the forked process has said.
    fn reload_ended(&mut self, status: process::ExitStatus) {
        let Some(reload) = self.reload else { return };
        if let Some(watch) = reload.watch {
            // What ended it might end the next one as well, and so on.
            if status.signal().is_some() {
                watch.discard();
            }
            watch.resume();
        }
        if status.success() {
            self.forward(SIGHUP);
        } else if let Some(signal) = status.signal() {
            self.options
                .message_style
                .warn(format_args!("the reload was ended by {}: nothing has changed", SignalName(signal)));
        }
        if self.reload_again {
            self.start_reload(reload, Cause::Hangup);
        } else {
            self.reload_on_changes();
        }
    }

    /// Passes a signal on. The child's process id is its own until it is reaped, and then there is nothing left to
    /// forward to.
    fn forward(&self, signal: i32) {
        let group = self.options.forward_to_group;
        self.send(if group { Pid::from_raw(-self.child.as_raw()) } else { self.child }, signal);
    }

    /// Sends a signal to the child or its process group.
    fn send(&self, target: Pid, signal: i32) {
        let sent = match system::send_signal(target, signal) {
            // It runs as another user, and the right to signal it (CAP_KILL) is missing: another process becomes that
            // user and sends it.
            Err(Errno::EPERM) => match system::fork() {
                Ok(ForkResult::Child) => end_child(|| send_as_its_user(self.child, target, signal)),
                Ok(ForkResult::Parent { .. }) => return,
                Err(error) => Err(error),
            },
            sent => sent,
        };
        match sent {
            Ok(()) => {}
            // It has ended, which comes next.
            Err(Errno::ESRCH) => {
                self.options.message_style.warn(format_args!("Child was dead when forwarding signal"))
            }
            Err(error) => {
                self.options
                    .message_style
                    .warn(format_args!("{} was not forwarded: {error}", SignalName(signal)));
            }
        }
    }

    /// Says how the command ended. To the server's log it is news only where a signal that nobody sent through us ended
    /// it: a crash, or the kernel out of memory.
    fn report_end(&self, ended: process::ExitStatus) {
        let message_style = self.options.message_style;
        match (message_style, ended.signal()) {
            (MessageStyle::Tini { .. }, Some(signal)) => {
                message_style.info(format_args!(
                    "Main child exited with signal (with signal '{}')",
                    SignalName(signal)
                ));
            }
            (MessageStyle::Tini { .. }, None) => {
                let code = ended.code().unwrap_or_default();
                message_style.info(format_args!("Main child exited normally (with status '{code}')"));
            }
            // Somebody pressed Ctrl-C, and knows.
            (MessageStyle::Entrypoint, Some(SIGINT | SIGQUIT)) if self.terminal.is_some() => {}
            (MessageStyle::Entrypoint, Some(signal)) if self.forwarded & bit(signal) == 0 => {
                message_style.warn(format_args!("the command was ended by {}", SignalName(signal)));
            }
            _ => {}
        }
    }
}

/// Sends a signal as the user of `child`, who may.
fn send_as_its_user(child: Pid, target: Pid, signal: i32) -> ExitStatus {
    let sent = privileges::become_user_of(child)
        .and_then(|()| system::send_signal(target, signal).map_err(|error| anyhow!(error)));
    match sent {
        Ok(()) => ExitStatus::SUCCESS,
        Err(error) => {
            MessageStyle::Entrypoint.warn(format_args!(
                "{} was not forwarded ({error:#}): the command runs as another user, and the right to signal it is \
                 missing; add `--cap-add KILL` to the container, or start it as that user with `--user`",
                SignalName(signal)
            ));
            ExitStatus::NO_PERMISSION
        }
    }
}

/// The place of a signal (1–64) in a set of them.
fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// A signal as people know it: `SIGTERM`, or `signal 40` for one without a name.
struct SignalName(i32);

impl fmt::Display for SignalName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match signal_name(self.0) {
            Some(name) => formatter.write_str(name),
            None => write!(formatter, "signal {}", self.0),
        }
    }
}
