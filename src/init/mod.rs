//! PID 1: starts one child, forwards signals to it, reaps all processes, and exits with the child's status.
//!
//! It does nothing else, so that little can go wrong. The child configures itself and then executes the command. A
//! reload, after SIGHUP or a changed file, is another child. PID 1 has one thread, allocates nothing while the child
//! runs, and sleeps until the kernel wakes it.

mod command;
mod options;
mod style;
mod terminal;

pub use command::{Command, ProgramKind};
pub use options::{InitOptions, Invocation, parse};
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
use signal_hook::consts::{
    SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGIO, SIGKILL, SIGPIPE, SIGQUIT, SIGTSTP, SIGTTOU,
};
use signal_hook::low_level::signal_name;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};
use std::{fmt, process};
use terminal::Terminal;

/// Signals that an instruction causes. If they were blocked, the result would be undefined (sigprocmask(2)).
const SYNCHRONOUS: [Signal; 7] = [
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGSEGV,
    Signal::SIGSYS,
    Signal::SIGTRAP,
];

/// How to reload the server.
#[derive(Clone, Copy)]
pub struct Reload<'a> {
    /// Prepares a reload, in a forked child. It gets the server's process id. After success, the server gets SIGHUP.
    ///
    /// It should read the watch's events early: events that remain at its end cause another reload.
    pub run: &'a dyn Fn(Pid, Cause) -> ExitStatus,
    pub watch: Option<&'a Watch>,
    /// After this time, the forked child is killed.
    pub limit: Duration,
    /// The time between two calls with [`Cause::Daily`].
    pub interval: Duration,
}

/// The cause of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// SIGHUP was received, or the last reload was killed: the server may not know of what that one wrote.
    Hangup,
    FilesChanged,
    Daily,
}

/// The status of a reload after which the server gets no signal: it knows already, or there is nothing to know.
pub const NO_SIGNAL: ExitStatus = ExitStatus::exited(1);

/// Runs `child` in a forked process and acts as its PID 1 until it exits: forwards every signal and reaps every orphan.
///
/// `child` starts in its own process group, in the foreground of the terminal if there is one, without blocked or
/// ignored signals (except SIGPIPE and SIGTTOU), or with tini's style with all signals blocked. It should call
/// [`Command::exec`]; otherwise its process exits with the returned status. Returns, in the parent only, the child's
/// status, or `128 + n` if signal `n` killed it. Call this first in `main`: earlier signals are not forwarded.
/// Errors: 71 if the kernel refuses a system call that every program may make, such as fork(2).
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
            // Parent and child both do this, because either may need it first. In the parent it fails if the child has
            // executed the command already.
            let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
            if let Some(terminal) = &terminal {
                terminal.give_to(getpid());
            }
            match options.message_style {
                style @ MessageStyle::Entrypoint(_) => end_child(style, child),
                // As in tini, no signal takes effect before `exec` restores the signals.
                MessageStyle::Tini { .. } => process::exit(child().code().into()),
            }
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
            let init = Init {
                options,
                style: options.message_style,
                reload,
                child,
                terminal,
                reloading: None,
                kill_at: None,
                next_daily: reload.and_then(|reload| Instant::now().checked_add(reload.interval)),
                is_untold: false,
                reload_again: false,
                forwarded: 0,
            };
            init.run(&signals).status(ExitStatus::OS_ERROR)
        }
    }
}

/// Ignores SIGHUP from now on. A child that will be the server must call this first: SIGHUP means "reload", and must
/// not kill a process without a handler. [`Command::exec`] keeps SIGHUP ignored only for the server.
pub fn ignore_hangup() {
    system::ignore(SIGHUP);
}

/// Blocks every signal except the synchronous ones, to receive them with sigtimedwait(2). The child would inherit
/// a handler, which would swallow signals for the command.
fn receive_signals() -> anyhow::Result<SigSet> {
    // An ignored signal is never received. If SIGCHLD is ignored, the kernel discards exit statuses (wait(2)).
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

/// Sets up PID 1's relation to its parent and to orphans.
fn prepare(options: &InitOptions) -> anyhow::Result<()> {
    if let Some(signal) = options.parent_death_signal {
        system::signal_on_parents_death(signal).context("asking for a signal when the parent dies")?;
    }
    if options.subreaper {
        // The kernel reparents orphans to the nearest subreaper, not to PID 1, which may be another program (prctl(2)).
        prctl::set_child_subreaper(true).context("becoming the one that orphans are handed to")?;
        options.message_style.trace(format_args!("Registered as child subreaper"));
    }
    let is_reaper = getpid() == Pid::from_raw(1) || prctl::get_child_subreaper().unwrap_or(false);
    if !is_reaper {
        options.message_style.warn(format_args!("{}", options::NOT_A_REAPER));
    }
    Ok(())
}

/// In a forked child: runs `work` without blocked signals and exits with its status.
fn end_child(style: MessageStyle, work: impl FnOnce() -> ExitStatus) -> ! {
    // A closed log must not end the process, nor a terminal stop one that writes in the background (`stty tostop`).
    for signal in [SIGPIPE, SIGTTOU] {
        system::ignore(signal);
    }
    let status = match system::block_exactly(&SigSet::empty()) {
        Ok(()) => work(),
        Err(error) => {
            style.fatal(format_args!("unblocking the child's signals: {error}"));
            ExitStatus::OS_ERROR
        }
    };
    process::exit(status.code().into())
}

/// PID 1 while its child runs.
struct Init<'a> {
    options: &'a InitOptions,
    style: MessageStyle,
    reload: Option<Reload<'a>>,
    child: Pid,
    /// The terminal, if the child got it from us.
    terminal: Option<Terminal>,
    /// The process that prepares a reload. While it runs, the watch is paused.
    reloading: Option<Pid>,
    /// When that process is killed.
    kill_at: Option<Instant>,
    /// When the next day has passed.
    next_daily: Option<Instant>,
    /// Whether the last reload was killed, so that the server may not know of what it wrote.
    is_untold: bool,
    /// Whether SIGHUP was received during that reload.
    reload_again: bool,
    /// The set of forwarded signals, as bits.
    forwarded: u64,
}

impl Init<'_> {
    fn run(mut self, signals: &SigSet) -> anyhow::Result<ExitStatus> {
        // The program that executed us may have left zombies.
        let mut ended = self.reap_all()?;
        let own_pid = getpid().as_raw();
        // Whether the previous signal was SIGCHLD.
        let mut last_was_sigchld = false;
        let ended = loop {
            if let Some(ended) = ended {
                break ended;
            }
            let next = [self.kill_at, self.next_daily].into_iter().flatten().min();
            let limit = next.map(|at| at.saturating_duration_since(Instant::now()));
            match system::wait_for_signal(signals, limit) {
                // Our own signal: SIGPIPE, from a write to a pipe without a reader.
                Ok(Received { code: SI_USER, sender, .. }) if sender == own_pid => {}
                Ok(Received { signal: SIGCHLD, .. }) => {
                    self.style.debug(format_args!("Received SIGCHLD"));
                    // When many processes exit in a row, yield first, to reap several of them at once.
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
                // For example, after SIGSTOP and SIGCONT (signal(7)).
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => self.act_on_time(),
                Err(error) => return Err(error).context("waiting for signals"),
            }
        };
        if let Some(reloading) = self.reloading {
            // It has nothing left to reload. It may also have ended already.
            let _ = system::send_signal(reloading, SIGKILL);
        }
        if let Some(terminal) = &self.terminal {
            terminal.take_back(self.child);
        }
        self.report_end(ended);
        let status = ExitStatus::from(ended);
        Ok(if self.options.success_codes.contains(&status.code()) { ExitStatus::SUCCESS } else { status })
    }

    fn handle(&mut self, received: Received) {
        match (received.signal, self.reload) {
            // From the kernel: the terminal was closed, which does not concern a server.
            (SIGHUP, Some(_)) if received.code == SI_KERNEL => {}
            (SIGHUP, Some(_)) if self.reloading.is_some() => self.reload_again = true,
            (SIGHUP, Some(reload)) => self.start_reload(reload, Cause::Hangup),
            (SIGIO, Some(Reload { watch: Some(_), .. })) if received.code == SI_KERNEL => {}
            (signal, _) => {
                self.style.debug(format_args!("Passing signal: '{}'", SignalName(signal)));
                self.forwarded |= bit(signal);
                self.forward(signal);
            }
        }
        // A SIGIO from a process may hide one from the kernel: only one can be pending at a time (signal(7)).
        if received.signal == SIGIO {
            self.reload_on_changes();
        }
    }

    /// Starts a reload if the watch has events. If one is running, its end calls this again.
    fn reload_on_changes(&mut self) {
        if let (None, Some(reload @ Reload { watch: Some(watch), .. })) = (self.reloading, self.reload) {
            if watch.has_events() {
                self.start_reload(reload, Cause::FilesChanged);
            }
        }
    }

    /// Reaps every process that has ended. Returns the child's status if it is among them.
    ///
    /// One SIGCHLD may stand for several processes: a pending signal is not queued again (signal(7)).
    fn reap_all(&mut self) -> anyhow::Result<Option<process::ExitStatus>> {
        let mut child_status = None;
        while let Some((pid, status)) = system::reap().context("waiting for children")? {
            if let Some(signal) = status.stopped_signal() {
                if pid == self.child && signal == SIGTSTP && self.terminal.is_some() {
                    // Without a shell as its parent, a child that Ctrl-Z stopped would stay stopped forever.
                    self.send(Pid::from_raw(-self.child.as_raw()), SIGCONT);
                } else if self.reloading == Some(pid) {
                    // Stopped, it would prevent all later reloads.
                    let _ = system::send_signal(pid, SIGCONT);
                }
                continue;
            }
            self.style.debug(format_args!("Reaped child with pid: '{pid}'"));
            if pid == self.child {
                child_status = Some(status);
            } else if self.reloading == Some(pid) {
                (self.reloading, self.kill_at) = (None, None);
                // If the child has ended too, there is nothing to reload.
                if child_status.is_none() {
                    self.reload_ended(status);
                }
            } else if self.options.warn_on_reap {
                self.style.warn(format_args!("Reaped zombie process with pid={pid}"));
            }
        }
        Ok(child_status)
    }

    fn start_reload(&mut self, reload: Reload, cause: Cause) {
        self.reload_again = false;
        let run = || (reload.run)(self.child, if self.is_untold { Cause::Hangup } else { cause });
        match system::fork() {
            Ok(ForkResult::Child) => end_child(self.style, run),
            Ok(ForkResult::Parent { child }) => {
                self.reloading = Some(child);
                self.kill_at = Some(Instant::now() + reload.limit);
                if let Some(watch) = reload.watch {
                    watch.pause();
                }
            }
            Err(error) => {
                let trigger = match cause {
                    Cause::Hangup => "SIGHUP",
                    Cause::FilesChanged => "a changed file",
                    Cause::Daily => "the daily look at certificates",
                };
                self.style.warn(format_args!(
                    "{trigger} had no effect: forking: {error}: is the container's limit of processes reached?"
                ));
            }
        }
    }

    /// Kills a reload that takes too long, and starts one after a day.
    fn act_on_time(&mut self) {
        let (now, Some(reload)) = (Instant::now(), self.reload) else { return };
        if let Some(pid) = self.reloading.filter(|_| self.kill_at.is_some_and(|at| at <= now)) {
            // Its end is reported when it is reaped.
            self.kill_at = None;
            let limit = reload.limit.as_secs();
            self.style.warn(format_args!("the reload has not ended within {limit} s"));
            let _ = system::send_signal(pid, SIGKILL);
        }
        if self.next_daily.is_some_and(|at| at <= now) {
            self.next_daily = now.checked_add(reload.interval);
            if self.reloading.is_none() {
                self.start_reload(reload, Cause::Daily);
            }
        }
    }

    /// Sends SIGHUP to the server after a successful reload. After a failure, the forked process has logged the reason.
    fn reload_ended(&mut self, status: process::ExitStatus) {
        let Some(reload) = self.reload else { return };
        if let Some(watch) = reload.watch {
            // The same events could kill the next reload, too, in an endless loop.
            if status.signal().is_some() {
                watch.discard();
            }
            watch.resume();
        }
        if status.success() {
            self.is_untold = false;
            self.forward(SIGHUP);
        } else if status.code() == Some(NO_SIGNAL.code().into()) {
            self.is_untold = false;
        } else if let Some(signal) = status.signal() {
            self.is_untold = true;
            self.style.warn(format_args!(
                "the reload was ended by {}, and the server goes on as it was: the next reload reads everything again",
                SignalName(signal)
            ));
        }
        if self.reload_again {
            self.start_reload(reload, Cause::Hangup);
        } else {
            self.reload_on_changes();
        }
    }

    /// Forwards a signal. The child's process id cannot be reused before the child is reaped, and nothing is forwarded
    /// after that.
    fn forward(&self, signal: i32) {
        let group = self.options.forward_to_group;
        self.send(if group { Pid::from_raw(-self.child.as_raw()) } else { self.child }, signal);
    }

    /// Sends a signal to the child or its process group.
    fn send(&self, target: Pid, signal: i32) {
        let sent = match system::send_signal(target, signal) {
            // It runs as another user and we lack CAP_KILL: a forked process switches to that user and sends the
            // signal.
            Err(Errno::EPERM) => match system::fork() {
                Ok(ForkResult::Child) => {
                    end_child(self.style, || send_as_its_user(self.style, self.child, target, signal))
                }
                Ok(ForkResult::Parent { .. }) => return,
                Err(error) => Err(error),
            },
            sent => sent,
        };
        match sent {
            Ok(()) => {}
            // It has ended; SIGCHLD follows.
            Err(Errno::ESRCH) => self.style.warn(format_args!("Child was dead when forwarding signal")),
            Err(error) => {
                self.style.warn(format_args!("{} was not forwarded: {error}", SignalName(signal)));
            }
        }
    }

    /// Reports the end of the command. In our own style, only if a signal killed it that was not forwarded: after a
    /// crash, or by the kernel's OOM killer.
    fn report_end(&self, ended: process::ExitStatus) {
        match (self.style, ended.signal()) {
            (MessageStyle::Tini { .. }, Some(signal)) => {
                self.style.info(format_args!(
                    "Main child exited with signal (with signal '{}')",
                    SignalName(signal)
                ));
            }
            (MessageStyle::Tini { .. }, None) => {
                let code = ended.code().unwrap_or_default();
                self.style.info(format_args!("Main child exited normally (with status '{code}')"));
            }
            // Somebody pressed Ctrl-C or Ctrl-\ and knows about it.
            (MessageStyle::Entrypoint(_), Some(SIGINT | SIGQUIT)) if self.terminal.is_some() => {}
            (MessageStyle::Entrypoint(_), Some(signal)) if self.forwarded & bit(signal) == 0 => {
                self.style.warn(format_args!("the command was ended by {}", SignalName(signal)));
            }
            _ => {}
        }
    }
}

/// Sends a signal as the user of `child`, who has the permission.
fn send_as_its_user(style: MessageStyle, child: Pid, target: Pid, signal: i32) -> ExitStatus {
    let sent = privileges::become_user_of(child)
        .and_then(|()| system::send_signal(target, signal).map_err(|error| anyhow!(error)));
    match sent {
        Ok(()) => ExitStatus::SUCCESS,
        Err(error) => {
            let advice = advice!(
                "{} was not forwarded ({error:#}): the command runs as another user, and the right to signal it is \
                 missing; start it as that user with `--user`",
                SignalName(signal)
            );
            style.warn(format_args!("{advice}"));
            ExitStatus::NO_PERMISSION
        }
    }
}

/// The bit of a signal (1 to 64) in a set of signals.
fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// The name of a signal: `SIGTERM`, or `signal 40` for a real-time signal.
struct SignalName(i32);

impl fmt::Display for SignalName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match signal_name(self.0) {
            Some(name) => formatter.write_str(name),
            None => write!(formatter, "signal {}", self.0),
        }
    }
}
