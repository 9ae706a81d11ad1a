//! `init` beside tini: each case is run through tini, through `prosody-entrypoint init` and through our binary called
//! `tini`, as PID 1 of a new PID namespace and not as PID 1, and what is seen from outside is compared.
//!
//! Where the two differ on purpose, a test says so: those are at the end of this file. All else is the same: the exit
//! status, what the command gets, and the meaning of every message, its level and its stream.
#![allow(clippy::string_slice, clippy::unwrap_used)]

use nix::fcntl::OFlag;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, Uid, setsid};
use prosody_entrypoint::os::system;
use std::collections::BTreeSet;
use std::ffi::{CString, OsStr, c_char, c_int};
use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long an event may take on a busy machine before a test fails.
const DEADLINE: Duration = Duration::from_secs(20);

/// A signal that both forward and that is handed out after all others: what was sent before it has come before it.
const LAST: i32 = system::LAST_SIGNAL;

/// Signals that an instruction causes: neither waits for them.
const SYNCHRONOUS: [i32; 7] =
    [libc::SIGABRT, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGSEGV, libc::SIGSYS, libc::SIGTRAP];

/// Signals of the C library's own, which its functions leave out of every set: tini waits for all others only.
const OF_THE_C_LIBRARY: [i32; 2] = [32, 33];

/// Signals that do nothing to a process that has no handler for them.
const IGNORED: [i32; 4] = [libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH];

/// Signals that stop a process, by default.
const STOPPING: [i32; 4] = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Program {
    Tini,
    /// `prosody-entrypoint init`
    Init,
    /// Our binary by the name `tini`.
    Link,
}

const OURS: [Program; 2] = [Program::Init, Program::Link];

impl Program {
    /// How its command line begins. The first word is a path.
    fn words(self) -> Vec<&'static OsStr> {
        static LINK: OnceLock<PathBuf> = OnceLock::new();
        match self {
            Self::Tini => vec![OsStr::new("/usr/bin/tini")],
            Self::Init => vec![OsStr::new(env!("CARGO_BIN_EXE_prosody-entrypoint")), OsStr::new("init")],
            Self::Link => vec![
                LINK.get_or_init(|| {
                    let link = directory("link").join("tini");
                    settle(&link, |new| symlink(env!("CARGO_BIN_EXE_prosody-entrypoint"), new).unwrap());
                    link
                })
                .as_os_str(),
            ],
        }
    }
}

/// Where a program runs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    /// As PID 1 of a new PID namespace.
    First,
    /// As any other process.
    Beside,
}

/// Where programs can be run: without root not as PID 1, and then it says so.
fn places() -> Vec<Place> {
    if Uid::effective().is_root() {
        vec![Place::First, Place::Beside]
    } else {
        // The test harness would keep what `eprintln!` writes.
        let _ = writeln!(std::io::stderr(), "this test needs root: not run as PID 1");
        vec![Place::Beside]
    }
}

/// A program's standard input.
#[derive(Clone, Copy, Debug)]
enum Input {
    Pipe,
    Closed,
    /// A terminal, the controlling one of the program's session.
    Terminal,
}

/// A run of an init: its arguments and what it finds.
#[derive(Clone, Debug)]
struct Case<'a> {
    arguments: Vec<&'a OsStr>,
    /// The whole environment.
    environment: Vec<(&'a str, &'a str)>,
    place: Place,
    input: Input,
    /// What happens in the process before it becomes the init: system calls only, because a thread forks it.
    before: fn(),
    directory: Option<&'a Path>,
    /// The words of a command that runs the init, rather than we.
    parent: &'a [&'a str],
}

fn case<'a, T: AsRef<OsStr> + ?Sized>(place: Place, arguments: &[&'a T]) -> Case<'a> {
    Case {
        arguments: arguments.iter().map(|argument| (*argument).as_ref()).collect(),
        environment: vec![("PATH", "/usr/bin:/bin")],
        place,
        input: Input::Pipe,
        before: || (),
        directory: None,
        parent: &[],
    }
}

impl<'a> Case<'a> {
    fn env(mut self, name: &'a str, value: &'a str) -> Self {
        self.environment.push((name, value));
        self
    }

    fn start(&self, program: Program) -> Running {
        let (their_input, input) = pipe();
        let (output, their_output) = pipe();
        let (errors, their_errors) = pipe();
        let mut run = Running {
            program,
            pid: Pid::from_raw(0),
            input: Some(input),
            keyboard: None,
            output: BufReader::new(output),
            errors: BufReader::new(errors),
            ended: false,
        };
        let mut terminal = None;
        if let Input::Terminal = self.input {
            let keyboard = posix_openpt(OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOCTTY).unwrap();
            grantpt(&keyboard).unwrap();
            unlockpt(&keyboard).unwrap();
            terminal = Some(CString::new(ptsname_r(&keyboard).unwrap()).unwrap());
            run.keyboard = Some(keyboard);
        }
        let words = self.parent.iter().map(OsStr::new).chain(program.words());
        let words = words.chain(self.arguments.iter().copied());
        let words: Vec<_> = words.map(|word| CString::new(word.as_bytes()).unwrap()).collect();
        let variables = self.environment.iter().map(|(name, value)| format!("{name}={value}"));
        let variables: Vec<_> = variables.map(|variable| CString::new(variable).unwrap()).collect();
        let directory = self.directory.map(|path| CString::new(path.as_os_str().as_bytes()).unwrap());
        let [words, variables] = [&words, &variables].map(|strings| {
            strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
        });

        let namespace = match self.place {
            Place::First if self.parent.is_empty() => libc::CLONE_NEWPID,
            _ => 0,
        };
        // SAFETY: without memory to share this is a fork. The child is the copy of one thread among several: until it
        // executes the program, it makes system calls and nothing else. All pointers were made before.
        unsafe {
            let child = libc::syscall(libc::SYS_clone, namespace | libc::SIGCHLD, 0, 0, 0, 0);
            assert!(child >= 0, "a new process: {}", std::io::Error::last_os_error());
            if child == 0 {
                let _ = setsid();
                match (self.input, &terminal) {
                    // The first terminal that the leader of a session opens becomes its own.
                    (_, Some(terminal)) => {
                        libc::dup2(libc::open(terminal.as_ptr(), libc::O_RDWR), 0);
                    }
                    (Input::Closed, _) => {
                        libc::close(0);
                    }
                    _ => {
                        libc::dup2(their_input.as_raw_fd(), 0);
                    }
                }
                libc::dup2(their_output.as_raw_fd(), 1);
                libc::dup2(their_errors.as_raw_fd(), 2);
                libc::close_range(3, u32::MAX, 0);
                if let Some(directory) = &directory {
                    libc::chdir(directory.as_ptr());
                }
                for signal in 1..=system::LAST_SIGNAL {
                    system::default_disposition(signal);
                }
                let _ = system::block_exactly(&SigSet::empty());
                let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
                (self.before)();
                libc::execve(words[0], words.as_ptr(), variables.as_ptr());
                libc::_exit(99);
            }
            run.pid = Pid::from_raw(child as i32);
        }
        run
    }

    /// What is seen of a run under one program, in which `act` happens.
    fn seen(&self, program: Program, act: impl Fn(&mut Running)) -> Seen {
        let mut run = self.start(program);
        act(&mut run);
        run.end()
    }

    /// Runs the case under every program. All is to be seen alike; what tini shows is returned.
    fn compare(&self, act: impl Fn(&mut Running)) -> Seen {
        let expected = self.seen(Program::Tini, &act);
        for program in OURS {
            assert_eq!(self.seen(program, &act), expected, "{program:?} and tini: {self:?}");
        }
        expected
    }

    /// As [`Case::compare`], where nothing happens but what the command itself does. tini is to end with `code`.
    fn ends_with(&self, code: i32) -> Seen {
        let seen = self.compare(|_| ());
        assert_eq!(seen.end, End::Code(code), "tini: {self:?}: {seen:?}");
        seen
    }
}

/// How an init ended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Code(i32),
    Signal(i32),
}

/// What can be seen of an init that has ended: see [`meaning`] for the lines.
#[derive(Debug, PartialEq)]
struct Seen {
    end: End,
    output: Vec<String>,
    errors: Vec<String>,
}

/// An init that runs.
struct Running {
    program: Program,
    /// The init, or its parent where the case has one.
    pid: Pid,
    input: Option<File>,
    keyboard: Option<PtyMaster>,
    output: BufReader<File>,
    errors: BufReader<File>,
    ended: bool,
}

impl Running {
    fn signal(&self, signal: i32) {
        system::send_signal(self.pid, signal).unwrap();
    }

    /// The next line of standard output, without its end; `None` where there is no more.
    fn line(&mut self) -> Option<String> {
        line(&mut self.output)
    }

    /// Reads standard error up to a line with a word in it. Those before it have nothing to compare.
    fn error_line_with(&mut self, word: &str) -> String {
        loop {
            let line = line(&mut self.errors).unwrap_or_else(|| panic!("{:?}: no {word}", self.program));
            if line.contains(word) {
                return line;
            }
        }
    }

    /// Reads standard output up to a line.
    fn until(&mut self, wanted: &str) -> Vec<String> {
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line| line != wanted) {
            lines.push(self.line().unwrap_or_else(|| panic!("{:?}: no {wanted} in {lines:?}", self.program)));
        }
        lines
    }

    /// Sends a signal, and tells which ones a command that reports them has got for it.
    fn forwarded(&mut self, signal: i32) -> Vec<String> {
        self.signal(signal);
        if signal != LAST {
            self.signal(LAST);
        }
        let mut lines = self.until(&format!("c {LAST}"));
        if signal != LAST {
            lines.pop();
        }
        lines
    }

    /// Types a key on the terminal.
    fn press(&self, key: &[u8]) {
        nix::unistd::write(self.keyboard.as_ref().unwrap(), key).unwrap();
    }

    /// Changes the size of the terminal.
    fn resize(&self) {
        let size = libc::winsize { ws_row: 7, ws_col: 7, ws_xpixel: 0, ws_ypixel: 0 };
        let keyboard = self.keyboard.as_ref().unwrap().as_raw_fd();
        // SAFETY: the structure is the one that this request reads.
        assert_eq!(unsafe { libc::ioctl(keyboard, libc::TIOCSWINSZ, &size) }, 0);
    }

    /// The init's children, as the test's own PID namespace has them.
    fn children(&self) -> Vec<Pid> {
        let pid = self.pid;
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
            .unwrap_or_default()
            .split_whitespace()
            .map(|child| Pid::from_raw(child.parse().unwrap()))
            .collect()
    }

    /// The letter that the kernel has for the state of the command (proc(5)).
    fn state_of_command(&self) -> Option<char> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.children().first()?)).ok()?;
        stat.rsplit(')').next()?.trim_start().chars().next()
    }

    /// Waits for its end.
    fn end(mut self) -> Seen {
        let output = std::iter::from_fn(|| line(&mut self.output)).collect();
        let errors = std::iter::from_fn(|| line(&mut self.errors)).collect();
        let mut status = 0;
        eventually("the init ends", || {
            // SAFETY: `status` is a live integer for the kernel to write to. (nix has no real-time signals.)
            let pid = unsafe { libc::waitpid(self.pid.as_raw(), &mut status, libc::WNOHANG) };
            assert!(pid >= 0);
            pid > 0
        });
        self.ended = true;
        let end = if libc::WIFSIGNALED(status) {
            End::Signal(libc::WTERMSIG(status))
        } else {
            End::Code(libc::WEXITSTATUS(status))
        };
        Seen { end, output: meaning(output), errors: meaning(errors) }
    }
}

impl Drop for Running {
    /// Leaves nothing behind where a test fails.
    fn drop(&mut self) {
        if !self.ended {
            for pid in self.children().into_iter().chain([self.pid]) {
                let _ = system::send_signal(pid, libc::SIGKILL);
            }
        }
    }
}

/// A pipe that programs started beside this test do not inherit: where it is read, and where it is written.
fn pipe() -> (File, File) {
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
    (reader.into(), writer.into())
}

/// The next line of a pipe, without its end.
fn line(pipe: &mut BufReader<File>) -> Option<String> {
    let mut line = Vec::new();
    let text = |line: Vec<u8>| String::from_utf8_lossy(&line).into_owned();
    loop {
        if pipe.buffer().is_empty() {
            let mut readable = [PollFd::new(pipe.get_ref().as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(DEADLINE).unwrap();
            let ready = poll(&mut readable, timeout);
            assert_eq!(ready, Ok(1), "a line or the end, after {:?}", String::from_utf8_lossy(&line));
        }
        let buffer = pipe.fill_buf().unwrap();
        if buffer.is_empty() {
            return (!line.is_empty()).then(|| text(line));
        }
        let end = buffer.iter().position(|&byte| byte == b'\n');
        line.extend(&buffer[..end.unwrap_or(buffer.len())]);
        let length = end.map_or(buffer.len(), |end| end + 1);
        pipe.consume(length);
        if end.is_some() {
            return Some(text(line));
        }
    }
}

/// Waits until something is so, where there is no event to wait for.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < DEADLINE, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Tests each of many things, some at the same time.
fn each<T: Sync + Debug>(things: &[T], test: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(thing) = things.get(next.fetch_add(1, Ordering::Relaxed)) {
                    test(thing);
                }
            });
        }
    });
}

/// Every pair of a place and a number.
fn everywhere(numbers: impl Iterator<Item = i32> + Clone) -> Vec<(Place, i32)> {
    places().into_iter().flat_map(|place| numbers.clone().map(move |number| (place, number))).collect()
}

fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// Makes a file, in one step: tests that run beside this one may use it already.
fn settle(path: &Path, make: impl Fn(&Path)) {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let new = path.with_extension(format!("{}-{number}", std::process::id()));
    make(&new);
    fs::rename(&new, path).unwrap();
}

/// A named pipe, with which a test lets a shell go on: where it is, and its end here, which waits for nobody.
fn fifo(name: &str) -> (PathBuf, File) {
    let fifo = directory("fifos").join(format!("{name}-{}", std::process::id()));
    let _ = fs::remove_file(&fifo);
    nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o600)).unwrap();
    let gate = File::options().read(true).write(true).open(&fifo).unwrap();
    (fifo, gate)
}

/// What lines mean, whoever wrote them: `LEVEL message` for an init's own message, with `<pid>` for a process id in it;
/// `usage`, `version` and `license` for those texts; the line itself otherwise.
fn meaning(lines: Vec<String>) -> Vec<String> {
    let mut meanings: Vec<String> = Vec::new();
    for line in lines {
        let last = meanings.last().map_or("", String::as_str);
        if ["usage", "license"].contains(&last) || last == NOT_A_REAPER {
            // The rest of the text.
            continue;
        }
        if let Some((level, message)) = own_message(&line) {
            meanings.push(format!("{level} {}", without_ids(&message)));
        } else if let Some(at) = ["invalid option -- ", "option requires an argument -- "]
            .into_iter()
            .find_map(|message| line.find(message))
        {
            meanings.push(line[at..].to_owned());
        } else if let Some((_, message)) = line.split_once(": not a valid value for -") {
            // Ours, in getopt's style; a line with the usage follows.
            meanings.push(format!("FATAL Not a valid option for -{message}"));
        } else if line.starts_with("Usage: ") {
            if !last.starts_with("FATAL Not a valid option") {
                meanings.push("usage".into());
            }
        } else if line.contains("tini version 0.19.0") {
            meanings.push("version".into());
        } else if line.contains("MIT License") {
            meanings.push("license".into());
        } else {
            meanings.push(line);
        }
    }
    meanings
}

/// How the warning begins, in [`meaning`]'s form, where orphans are not ours to reap.
const NOT_A_REAPER: &str = "WARN it is not running as PID 1 and isn't registered as a child subreaper.";

/// The level and the text of a line `[WARN  tini (7)] text`.
fn own_message(line: &str) -> Option<(&str, String)> {
    let (head, text) = line.strip_prefix('[')?.split_once(")] ")?;
    let (level, head) = head.split_at_checked(5)?;
    let (name, id) = head.strip_prefix(' ')?.rsplit_once(" (")?;
    id.parse::<u32>().ok()?;
    // What follows the first sentence is one line, or more; and a signal has a name, or words.
    let text = text.split_inclusive("child subreaper.").next()?;
    let text = text.split(" (with signal").next()?;
    // The message names the init, which begins it.
    let text = if text.get(..name.len()).is_some_and(|first| first.eq_ignore_ascii_case(name)) {
        format!("it{}", &text[name.len()..])
    } else {
        text.to_owned()
    };
    Some((level.trim_end(), text))
}

/// A text with `<pid>` for every process id in it.
fn without_ids(text: &str) -> String {
    let mut result = text.to_owned();
    for before in ["pid=", "pid '", "pid: '"] {
        if let Some((head, tail)) = result.split_once(before) {
            result = format!("{head}{before}<pid>{}", tail.trim_start_matches(|c: char| c.is_ascii_digit()));
        }
    }
    result
}

/// Whether a process has ended. The kernel has no event for who is not its parent.
fn is_gone(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .map_or(true, |stat| stat.contains(") Z ") || stat.contains(") X "))
}

/// The words of a command that reports the signals it gets: see [`report_signals`].
fn reporter() -> [&'static str; 3] {
    static FILE: OnceLock<String> = OnceLock::new();
    let file = FILE.get_or_init(|| std::env::current_exe().unwrap().to_str().unwrap().to_owned());
    [file, "report-signals", "c"]
}

/// This file's binary is also the command that reports signals: where it is executed as one, before the test harness
/// begins (the C library calls what is in this section with the arguments of `main`).
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn(c_int, *const *const c_char) = before_main;

extern "C" fn before_main(count: c_int, arguments: *const *const c_char) {
    if count != 3 {
        return;
    }
    // SAFETY: there are `count` arguments, each a string.
    let [what, name] = [1, 2].map(|at| unsafe { std::ffi::CStr::from_ptr(*arguments.add(at)) });
    if what == c"report-signals" {
        report_signals(name.to_str().unwrap());
    }
}

/// Writes `NAME ready`, and then `NAME n` for each signal, whatever it does by default. Ends with 3 at the second
/// SIGTERM, and with 0 at the end of a pipe on standard input.
fn report_signals(name: &str) -> ! {
    let say = |what: &str| {
        let _ = nix::unistd::write(std::io::stdout(), format!("{name} {what}\n").as_bytes());
    };
    system::block_exactly(&system::all_signals()).unwrap();
    let signals = SignalFd::new(&system::all_signals()).unwrap();
    say("ready");
    let mut terminations = 0;
    // SAFETY: standard input is not closed by anybody.
    let input = unsafe { BorrowedFd::borrow_raw(0) };
    let terminal = nix::unistd::isatty(input) == Ok(true);
    loop {
        let mut sources =
            [PollFd::new(signals.as_fd(), PollFlags::POLLIN), PollFd::new(input, PollFlags::empty())];
        let sources = if terminal { &mut sources[..1] } else { &mut sources[..] };
        poll(sources, PollTimeout::NONE).unwrap();
        if sources[0].any() == Some(true) {
            let info = signals.read_signal().unwrap().unwrap();
            let signal = info.ssi_signo as i32;
            // A child of its own that ended is no signal that was sent.
            if signal != libc::SIGCHLD || info.ssi_code == libc::SI_USER {
                say(&signal.to_string());
            }
            terminations += i32::from(signal == libc::SIGTERM);
        } else {
            // SAFETY: ends the process, which has no state to leave in order.
            unsafe { libc::_exit(0) };
        }
        if terminations == 2 {
            // SAFETY: as above.
            unsafe { libc::_exit(3) };
        }
    }
}

/// Exit codes, every one where all are wanted (`make test-all`).
fn codes() -> impl Iterator<Item = i32> + Clone {
    (0..=255).step_by(if std::env::var_os("TEST_ALL").is_some() { 1 } else { 5 })
}

#[test]
fn an_exit_code_is_the_commands_own() {
    each(&everywhere(codes()), |&(place, code)| {
        let seen = case(place, &["-s", "--", "sh", "-c", &format!("exit {code}")]).ends_with(code);
        assert!(seen.errors.is_empty() && seen.output.is_empty(), "{seen:?}");
    });
}

#[test]
fn a_signal_that_ends_the_command_is_added_to_128() {
    let signals = (1..=system::LAST_SIGNAL).filter(|signal| !STOPPING.contains(signal));
    each(&everywhere(signals), |&(place, signal)| {
        let code = if IGNORED.contains(&signal) { 5 } else { 128 + signal };
        case(place, &["-s", "--", "sh", "-c", &format!("kill -{signal} $$; exit 5")]).ends_with(code);
    });
}

/// Signals that both wait for, and that reach the command.
fn forwarded() -> impl Iterator<Item = i32> + Clone {
    (1..=system::LAST_SIGNAL).filter(|signal| {
        ![SYNCHRONOUS.as_slice(), &OF_THE_C_LIBRARY, &[libc::SIGCHLD, libc::SIGKILL], &STOPPING]
            .concat()
            .contains(signal)
            || *signal == libc::SIGTSTP
    })
}

#[test]
fn signals_are_forwarded() {
    for place in places() {
        let [file, report, name] = reporter();
        let seen = case(place, &["-s", "--", file, report, name]).compare(|run| {
            run.until("c ready");
            for signal in forwarded() {
                assert_eq!(run.forwarded(signal), [format!("c {signal}")], "{:?}", run.program);
            }
            assert!(run.forwarded(libc::SIGCHLD).is_empty());
            if place == Place::First {
                // The kernel keeps what would end PID 1 from it.
                for signal in SYNCHRONOUS {
                    assert!(run.forwarded(signal).is_empty());
                }
            }
            run.signal(libc::SIGTERM);
        });
        assert_eq!(seen.end, End::Code(3));
    }
}

#[test]
fn a_forwarded_signal_does_to_the_command_what_it_does_by_default() {
    let signals = forwarded().chain([libc::SIGCHLD]).filter(|signal| !STOPPING.contains(signal));
    each(&everywhere(signals), |&(place, signal)| {
        let seen = case(place, &["-s", "--", "sh", "-c", "echo ready; read line; exit 5"]).compare(|run| {
            run.until("ready");
            run.signal(signal);
            if IGNORED.contains(&signal) {
                run.input = None;
            }
        });
        let code = if IGNORED.contains(&signal) { 5 } else { 128 + signal };
        assert_eq!(seen.end, End::Code(code), "{signal}");
    });
}

#[test]
fn a_signal_that_no_process_can_wait_for_ends_the_init_itself() {
    // As PID 1 it would be kept from us, or from all.
    for signal in [libc::SIGKILL, libc::SIGABRT, libc::SIGFPE, libc::SIGILL, libc::SIGSYS, libc::SIGTRAP] {
        let [file, report, name] = reporter();
        let seen = case(Place::Beside, &["-s", "--", file, report, name]).compare(|run| {
            run.until("c ready");
            run.signal(signal);
            run.input = None;
        });
        assert_eq!(seen.end, End::Signal(signal));
    }
}

#[test]
fn signals_are_for_the_command_or_for_its_process_group() {
    // Two that report; the second is the command itself.
    let script = "\"$1\" report-signals g <&3 & read line <&4; exec \"$1\" report-signals c <&3";
    let script = format!("exec 3<&0 4<\"$2\"; {script}");
    let (fifo, gate) = fifo("group");
    let fifo_name = fifo.to_str().unwrap();
    for place in places() {
        for (options, variable, group) in [
            (&["-s"][..], None, false),
            (&["-sg"], None, true),
            (&["-s"], Some("1"), true),
            (&["-s"], Some(""), true),
            (&["-s"], Some("0"), true),
        ] {
            let [file, ..] = reporter();
            let mut arguments = options.to_vec();
            arguments.extend(["--", "sh", "-c", &script, "sh", file, fifo_name]);
            let mut case = case(place, &arguments);
            if let Some(value) = variable {
                case = case.env("TINI_KILL_PROCESS_GROUP", value);
            }
            let seen = case.compare(|run| {
                run.until("g ready");
                (&gate).write_all(b"\n").unwrap();
                run.until("c ready");
                for signal in [libc::SIGUSR1, libc::SIGHUP, LAST] {
                    run.signal(signal);
                    let mut expected = BTreeSet::from([format!("c {signal}")]);
                    if group {
                        expected.insert(format!("g {signal}"));
                    }
                    let got = expected.iter().map(|_| run.line().unwrap()).collect::<BTreeSet<_>>();
                    assert_eq!(got, expected, "{:?}: {case:?}", run.program);
                }
                run.input = None;
            });
            assert_eq!((seen.end, seen.output), (End::Code(0), vec![]));
        }
    }
    fs::remove_file(&fifo).unwrap();
}

/// A shell that leaves an orphan, which ends with standard input, as the shell does at its second line.
const ORPHAN: &str = "(sh -c 'echo $$; exec cat' <&3 3<&- 4<&- &) 3<&0; read line <$1; exit 4";

#[test]
fn an_orphan_that_is_reaped_is_worth_a_warning_where_that_is_asked_for() {
    let (fifo, gate) = fifo("orphan");
    let name = fifo.to_str().unwrap();
    for place in places() {
        for (options, verbosity, warned) in [
            (&["-sw"][..], None, true),
            (&["-w"], None, place == Place::First),
            (&["-s"], None, false),
            (&["-sw"], Some("0"), false),
        ] {
            let arguments = [options, &["--", "sh", "-c", ORPHAN, "sh", name]].concat();
            let mut case = case(place, &arguments);
            case.environment.extend(verbosity.map(|value| ("TINI_VERBOSITY", value)));
            let seen = case.compare(|run| {
                let orphan = run.line().unwrap();
                run.input = None;
                if warned {
                    // The id is the one that is seen in the init's own namespace.
                    let line = run.error_line_with("zombie");
                    assert!(line.ends_with(&format!("Reaped zombie process with pid={orphan}")), "{line}");
                }
                (&gate).write_all(b"\n").unwrap();
            });
            assert_eq!(seen.end, End::Code(4), "{case:?}");
            let without: &[&str] =
                if options == ["-w"] && place == Place::Beside { &[NOT_A_REAPER] } else { &[] };
            assert_eq!(seen.errors, without, "{case:?}");
        }
    }
    fs::remove_file(&fifo).unwrap();
}

#[test]
fn who_cannot_reap_orphans_says_so_unless_it_takes_them_in() {
    for (options, environment, warned) in [
        (&[][..], None, true),
        (&["-s"], None, false),
        (&[], Some(("TINI_SUBREAPER", "")), false),
        (&[], Some(("TINI_SUBREAPER", "0")), false),
        (&[], Some(("TINI_VERBOSITY", "0")), false),
    ] {
        for place in places() {
            let arguments = [options, &["--", "true"]].concat();
            let mut case = case(place, &arguments);
            case.environment.extend(environment);
            let seen = case.ends_with(0);
            let expected: &[&str] = if warned && place == Place::Beside { &[NOT_A_REAPER] } else { &[] };
            assert_eq!(seen.errors, expected, "{case:?}");
        }
    }
}

#[test]
fn the_command_line_is_read_alike() {
    type Row<'a> = (&'a [&'a str], i32, &'a [&'a str]);
    let rows: &[Row] = &[
        // What is printed.
        (&["--version"], 0, &["version"]),
        (&["-h"], 0, &["version", "usage"]),
        (&["-vh", "-x"], 0, &["version", "usage"]),
        (&["true", "-h"], 0, &["version", "usage"]),
        (&["-l"], 0, &["license"]),
        // What is refused.
        (&[], 1, &["version", "usage"]),
        (&["--"], 1, &["version", "usage"]),
        (&["-s"], 1, &["version", "usage"]),
        (&["-x", "true"], 1, &["invalid option -- 'x'", "version", "usage"]),
        (&["-sx", "true"], 1, &["invalid option -- 'x'", "version", "usage"]),
        (&["--help"], 1, &["invalid option -- '-'", "version", "usage"]),
        (&["--version", "true"], 1, &["invalid option -- '-'", "version", "usage"]),
        (&["-R", "A", "true"], 1, &["invalid option -- 'R'", "version", "usage"]),
        (&["sh", "-c", "exit 7"], 1, &["invalid option -- 'c'", "version", "usage"]),
        (&["true", "-p"], 1, &["option requires an argument -- 'p'", "version", "usage"]),
        (&["-e"], 1, &["option requires an argument -- 'e'", "version", "usage"]),
        (&["-e", "256", "--", "true"], 1, &["FATAL Not a valid option for -e: 256"]),
        (&["-e", "-1", "--", "true"], 1, &["FATAL Not a valid option for -e: -1"]),
        (&["-e", "x", "--", "true"], 1, &["FATAL Not a valid option for -e: x"]),
        (&["-e1x", "--", "true"], 1, &["FATAL Not a valid option for -e: 1x"]),
        (&["-e", "--", "true"], 1, &["FATAL Not a valid option for -e: --"]),
        (
            &["-e", "9999999999999999999999", "true"],
            1,
            &["FATAL Not a valid option for -e: 9999999999999999999999"],
        ),
        (&["-p", "SIGNOPE", "--", "true"], 1, &["FATAL Not a valid option for -p: SIGNOPE"]),
        (&["-p", "TERM", "--", "true"], 1, &["FATAL Not a valid option for -p: TERM"]),
        (&["-p", "15", "--", "true"], 1, &["FATAL Not a valid option for -p: 15"]),
        (&["-p", "SIGRTMIN", "--", "true"], 1, &["FATAL Not a valid option for -p: SIGRTMIN"]),
        // Where options end, and what they take.
        (&["-s", "--", "sh", "-c", "exit 7"], 7, &[]),
        (&["-s", "sh", "--", "-c", "exit 7"], 7, &[]),
        (&["sh", "-s", "--", "-c", "exit 7"], 7, &[]),
        (&["-s", "echo", "--", "--", "-s"], 0, &["-- -s"]),
        (&["-s", "printf", "%s|", "a", "-g", "", "-", "b", "--", "c"], 0, &["a||-|b|c|"]),
        (&["-sg", "-pSIGTERM", "-e", "7", "--", "sh", "-c", "exit 7"], 0, &[]),
        (&["-s", "-e", "1", "-e", "7", "--", "sh", "-c", "exit 7"], 0, &[]),
        (&["-s", "-e", "1", "-e", "7", "--", "sh", "-c", "exit 8"], 8, &[]),
        (&["-s", "-e255", "--", "sh", "-c", "exit 255"], 0, &[]),
        (&["-s", "-e", " +07", "--", "sh", "-c", "exit 7"], 0, &[]),
        (&["-s", "-e", "", "--", "sh", "-c", "exit 7"], 7, &[]),
        (&["-s", "-e", "143", "--", "sh", "-c", "kill -TERM $$"], 0, &[]),
        (&["-s", "-e", "15", "--", "sh", "-c", "kill -TERM $$"], 143, &[]),
    ];
    for place in places() {
        each(rows, |(arguments, code, lines)| {
            let seen = case(place, arguments).ends_with(*code);
            let (said, other) =
                if *code == 1 { (seen.errors, seen.output) } else { (seen.output, seen.errors) };
            assert_eq!(said, *lines, "{arguments:?}");
            assert!(other.is_empty(), "{arguments:?}: {other:?}");
        });
    }
    // The first word ends the options where POSIX is asked for.
    for value in ["", "1"] {
        let case =
            case(places()[0], &["-s", "sh", "-c", "echo $0", "--", "-s"]).env("POSIXLY_CORRECT", value);
        assert_eq!(case.ends_with(0).output, ["--"]);
    }
}

#[test]
fn the_signals_of_p_have_the_same_names() {
    let names: Vec<_> = (1..=system::LAST_SIGNAL)
        .filter_map(|number| nix::sys::signal::Signal::try_from(number).ok())
        .map(|signal| signal.as_str().to_owned())
        .chain(["SIGPOLL", "SIGCLD", "SIGRTMAX", "SIGEXIT", "sigterm", "KILL", ""].map(String::from))
        .collect();
    each(&names, |name| {
        case(Place::Beside, &["-s", "-p", name, "--", "true"]).compare(|_| ());
    });
}

#[test]
fn every_code_can_be_expected() {
    each(&codes().collect::<Vec<_>>(), |code| {
        let (code, script) = (code.to_string(), format!("exit {code}"));
        let arguments = ["-s", "-e", &code, "--", "sh", "-c", &script];
        case(Place::Beside, &arguments).ends_with(0);
    });
    // All but one.
    let numbers: Vec<_> = (0..=255).map(|code: i32| code.to_string()).collect();
    for (at, code) in numbers.iter().enumerate().step_by(17) {
        let script = format!("exit {code}");
        let mut arguments = vec!["-s"];
        for other in numbers.iter().filter(|&other| other != code) {
            arguments.extend(["-e", other]);
        }
        arguments.extend(["--", "sh", "-c", &script]);
        case(Place::Beside, &arguments).ends_with(at as i32);
    }
}

#[test]
fn how_much_is_told_is_what_was_asked_for() {
    // Levels above this one say what the loop does, which is each program's own affair.
    let told = |seen: &Seen| -> Vec<String> {
        let own = ["WARN ", "INFO "];
        seen.output.iter().filter(|line| own.iter().any(|level| line.starts_with(level))).cloned().collect()
    };
    let normally = [SPAWNED, "INFO Main child exited normally (with status '3')"];
    for place in places() {
        for (option, verbosity, tells) in [
            ("-s", None, false),
            ("-sv", None, true),
            ("-svv", None, true),
            ("-svvv", None, true),
            ("-svvvvv", None, true),
            ("-s", Some("1"), false),
            ("-s", Some("2"), true),
            ("-s", Some("4"), true),
            ("-s", Some(" 2x"), true),
            ("-s", Some("-1"), true),
            ("-svvv", Some("0"), false),
            ("-svvv", Some("loud"), false),
            ("-svvv", Some(""), false),
        ] {
            let mut case = case(place, &[option, "--", "sh", "-c", "exit 3"]);
            case.environment.extend(verbosity.map(|value| ("TINI_VERBOSITY", value)));
            let seen = [Program::Tini].iter().chain(&OURS).map(|program| case.seen(*program, |_| ()));
            for seen in seen {
                assert_eq!(seen.end, End::Code(3));
                assert_eq!(seen.errors, [""; 0], "{case:?}");
                assert_eq!(told(&seen), if tells { &normally[..] } else { &[] }, "{case:?}: {seen:?}");
            }
        }
        let seen = case(place, &["-sv", "--", "sh", "-c", "kill -TERM $$"]).compare(|_| ());
        assert_eq!(seen.output, [SPAWNED, "INFO Main child exited with signal"]);
    }
}

/// What is told of the command's start.
const SPAWNED: &str = "INFO Spawned child process 'sh' with pid '<pid>'";

/// A directory with files that can be executed, or not.
fn files() -> PathBuf {
    let directory = directory("files");
    let mut header = vec![0; 64];
    header[..20].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xff\xfe");
    for (name, content, mode) in [
        ("plain", "exit 6\n".as_bytes(), 0o644),
        ("words", b"exit 6\n", 0o755),
        ("empty", b"", 0o755),
        ("no-interpreter", b"#!/no/lua\n", 0o755),
        ("foreign", &header, 0o755),
        ("ours", b"#!/bin/sh\nexit $1\n", 0o755),
    ] {
        settle(&directory.join(name), |new| {
            fs::write(new, content).unwrap();
            fs::set_permissions(new, fs::Permissions::from_mode(mode)).unwrap();
        });
    }
    let _ = fs::create_dir(directory.join("directory"));
    let _ = symlink("loop", directory.join("loop"));
    directory
}

/// What is told of a command that cannot be executed, under any program: tini gives the system's words, ours are plain.
fn told_of(seen: &Seen, command: &str) -> bool {
    let name = command.rsplit('/').next().unwrap();
    matches!(&seen.errors[..], [line] if line.starts_with("FATAL ") && line.contains(name))
}

#[test]
fn a_command_that_cannot_be_executed_ends_alike() {
    let directory = files();
    let inside = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let rows = [
        ("no-such-program".to_owned(), 127),
        ("/no/such/program".into(), 127),
        (String::new(), 127),
        ("-".into(), 127),
        (inside("directory"), 126),
        (inside("plain"), 126),
        ("/etc".into(), 126),
        (inside("no-interpreter"), 127),
    ];
    for place in places() {
        for (command, code) in &rows {
            let case = case(place, &["-s", "--", command, "argument"]);
            for program in [Program::Tini].iter().chain(&OURS) {
                let seen = case.seen(*program, |_| ());
                assert_eq!(seen.end, End::Code(*code), "{program:?}: {command}: {seen:?}");
                assert!(seen.output.is_empty() && told_of(&seen, command), "{program:?}: {seen:?}");
            }
        }
        // It is the command's status, and can be expected.
        let case = case(place, &["-s", "-e", "127", "--", "no-such-program"]);
        for program in [Program::Tini].iter().chain(&OURS) {
            assert_eq!(case.seen(*program, |_| ()).end, End::Code(0), "{program:?}");
        }
    }
}

#[test]
fn a_script_is_executed_as_execvp_does() {
    let directory = files();
    let inside = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    for (command, code) in [(inside("ours"), 9), (inside("words"), 6), (inside("empty"), 0)] {
        case(places()[0], &["-s", "--", &command, "9"]).ends_with(code);
    }
}

#[test]
fn a_command_is_looked_for_alike() {
    let directory = files();
    let name = directory.to_str().unwrap();
    let behind = format!("/no/such/directory:/etc/passwd:{name}:/usr/bin:/bin");
    let last = format!("{name}:/no/such/directory");
    for (path, command, code) in [
        // What cannot be executed does not hide what can, and is what is told of where nothing can.
        (Some(behind.as_str()), "ours", 9),
        (Some(&behind), "true", 0),
        (Some(&last), "plain", 126),
        (Some(&last), "directory", 126),
        (Some(&last), "true", 127),
        // The C library's own path.
        (None, "true", 0),
        // The working directory.
        (Some(""), "ours", 9),
        (Some(":/usr/bin"), "ours", 9),
        (Some("/usr/bin"), "./ours", 9),
        (Some("/usr/bin"), "ours", 127),
    ] {
        let mut case = case(Place::Beside, &["-s", "--", command, "9"]);
        case.environment = path.map(|path| ("PATH", path)).into_iter().collect();
        case.directory = Some(&directory);
        for program in [Program::Tini].iter().chain(&OURS) {
            let end = case.seen(*program, |_| ()).end;
            assert_eq!(end, End::Code(code), "{program:?}: {command} in {path:?}");
        }
    }
}

#[test]
fn the_command_gets_what_the_init_got() {
    const SCRIPT: &str = "umask; ulimit -n; ulimit -c; echo \"${0-unset}|$A|${B-unset}\"; pwd
        read pid name state parent group session rest </proc/self/stat
        [ $pid = $group ] && echo leads its process group
        [ $pid = $session ] || echo does not lead its session
        (: <&9) && echo has descriptor 9; grep NoNewPrivs /proc/self/status";
    for place in places() {
        let mut case =
            case(place, &["-s", "--", "sh", "-c", SCRIPT, "name"]).env("A", "1 =2").env("TERM", "x");
        case.directory = Some(Path::new("/usr"));
        case.before = || {
            umask(Mode::from_bits_truncate(0o012));
            let _ = setrlimit(Resource::RLIMIT_NOFILE, 77, 999);
            // SAFETY: copies a descriptor.
            unsafe { libc::dup2(2, 9) };
        };
        let seen = case.ends_with(0);
        let expected = [
            "0012",
            "77",
            "0",
            "name|1 =2|unset",
            "/usr",
            "leads its process group",
            "does not lead its session",
            "has descriptor 9",
            "NoNewPrivs:\t0",
        ];
        assert_eq!(seen.output, expected);
        assert!(seen.errors.is_empty(), "{seen:?}");
    }
}

#[test]
fn a_signal_that_was_ignored_or_blocked_before_is_forwarded() {
    for place in places() {
        let [file, report, name] = reporter();
        let mut case = case(place, &["-s", "--", file, report, name]);
        case.before = || {
            for signal in (1..=system::LAST_SIGNAL).filter(|&signal| signal != libc::SIGCHLD) {
                system::ignore(signal);
            }
            let _ = system::block_exactly(&system::all_signals());
        };
        let seen = case.compare(|run| {
            run.until("c ready");
            for signal in forwarded() {
                assert_eq!(run.forwarded(signal), [format!("c {signal}")], "{:?}", run.program);
            }
            run.signal(libc::SIGTERM);
        });
        assert_eq!(seen.end, End::Code(3));
    }
}

#[test]
fn a_signal_that_was_ignored_or_blocked_before_stays_so_in_the_command() {
    for place in places() {
        let mut case = case(place, &["-s", "--", "sed", "-n", "/^Sig[BI]/p", "/proc/self/status"]);
        case.before = || {
            // tini would wait for ever where SIGCHLD is ignored.
            for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGSEGV, libc::SIGPIPE, libc::SIGTTIN, 33, LAST]
            {
                system::ignore(signal);
            }
            let mut set = SigSet::empty();
            set.extend([Signal::SIGILL, Signal::SIGUSR2, Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGTTOU]);
            let _ = system::block_exactly(&set);
        };
        let expected = ["SigBlk:\t0000000000214808", "SigIgn:\t8000000100101403"];
        assert_eq!(case.ends_with(0).output, expected);
    }
}

#[test]
fn the_signal_of_a_parents_death_is_forwarded() {
    let [file, report, name] = reporter();
    for place in places() {
        let parent: &[&str] = match place {
            // Both know no better than to be killed.
            Place::First => &["/usr/bin/unshare", "--pid", "--fork", "--"],
            Place::Beside => &["/bin/sh", "-c", "exec 3<&0; \"$@\" <&3 3<&- & wait", "sh"],
        };
        for (signal, number) in [("SIGTERM", 15), ("SIGHUP", 1), ("SIGUSR1", 10), ("SIGWINCH", 28)] {
            let mut case = case(place, &["-s", "-p", signal, "--", file, report, name]);
            case.parent = parent;
            let seen = case.compare(|run| {
                run.until("c ready");
                run.signal(libc::SIGKILL);
                assert_eq!(run.line(), Some(format!("c {number}")), "{:?}", run.program);
                run.input = None;
            });
            assert_eq!((seen.end, seen.output), (End::Signal(libc::SIGKILL), vec![]));
        }
        // The init itself is killed; its namespace goes with PID 1, otherwise the command stays.
        let mut case = case(place, &["-s", "-p", "SIGKILL", "--", file, report, name]);
        case.parent = parent;
        case.compare(|run| {
            run.until("c ready");
            let init = run.children()[0];
            run.signal(libc::SIGKILL);
            eventually("the init is gone", || is_gone(init));
            run.input = (place == Place::First).then_some(run.input.take()).flatten();
        });
    }
}

#[test]
fn a_terminal_is_the_commands() {
    const SCRIPT: &str = "read pid name state parent group session tty foreground rest </proc/self/stat
        [ $group = $pid ] && [ $foreground = $group ] && [ $session = $parent ] && echo yes";
    for place in places() {
        for option in ["-s", "-sg"] {
            let mut looks = case(place, &[option, "--", "sh", "-c", SCRIPT]);
            looks.input = Input::Terminal;
            assert_eq!(looks.ends_with(0).output, ["yes"]);

            // Keys and a resize reach the command once, and what is sent to the init too.
            let [file, report, name] = reporter();
            let mut case = case(place, &[option, "--", file, report, name]);
            case.input = Input::Terminal;
            let seen = case.compare(|run| {
                run.until("c ready");
                for (key, signal) in
                    [(b"\x03", libc::SIGINT), (b"\x1c", libc::SIGQUIT), (b"\x1a", libc::SIGTSTP)]
                {
                    run.press(key);
                    assert_eq!(run.line(), Some(format!("c {signal}")), "{:?}", run.program);
                    assert_eq!(run.forwarded(signal), [format!("c {signal}")], "{:?}", run.program);
                }
                run.resize();
                assert_eq!(run.line().as_deref(), Some("c 28"), "{:?}", run.program);
                assert!(run.forwarded(LAST).len() == 1);
                run.signal(libc::SIGTERM);
                assert_eq!(run.line().as_deref(), Some("c 15"));
                run.signal(libc::SIGTERM);
            });
            assert_eq!((seen.end, seen.output), (End::Code(3), vec!["c 15".into()]));
        }
    }
}

#[test]
fn a_terminal_that_goes_away_is_a_hangup_of_the_command() {
    for place in places() {
        let mut case = case(place, &["-s", "--", "sh", "-c", "trap '' CONT; echo ready; kill -STOP $$"]);
        case.input = Input::Terminal;
        let seen = case.compare(|run| {
            run.until("ready");
            run.keyboard = None;
        });
        assert_eq!(seen.end, End::Code(128 + libc::SIGHUP));
    }
}

// What differs, and why. tini is asserted beside ours, so that a difference that is none any more is noticed.

/// For each program where tini shows `tini` and ours show `ours`.
fn differs<T: Copy>(tini: T, ours: T) -> impl Iterator<Item = (Program, T)> {
    [(Program::Tini, tini)].into_iter().chain(OURS.map(|program| (program, ours)))
}

#[test]
fn differs_no_exit_status_is_lost_where_children_were_ignored() {
    // tini waits for a child that the kernel has thrown away, for ever.
    let mut case = case(Place::Beside, &["-s", "--", "sh", "-c", "echo ready; exit 7"]);
    case.before = || system::ignore(libc::SIGCHLD);
    let mut run = case.start(Program::Tini);
    run.until("ready");
    eventually("the command is gone", || run.children().is_empty());
    run.signal(libc::SIGTERM);
    run.error_line_with("Child was dead when forwarding signal");
    run.signal(libc::SIGKILL);
    assert_eq!(run.end().end, End::Signal(libc::SIGKILL));
    for program in OURS {
        assert_eq!(case.seen(program, |_| ()).end, End::Code(7));
    }
}

#[test]
fn differs_signals_of_the_terminal_and_of_the_c_library_are_forwarded_too() {
    let [file, report, name] = reporter();
    for place in places() {
        let case = case(place, &["-s", "--", file, report, name]);
        for signal in [libc::SIGTTIN, libc::SIGTTOU, 32, 33] {
            for (program, forwards) in differs(false, true) {
                let mut run = case.start(program);
                run.until("c ready");
                // Not PID 1, tini is ended by the last two.
                if place == Place::Beside && !forwards && OF_THE_C_LIBRARY.contains(&signal) {
                    run.signal(signal);
                    run.input = None;
                    assert_eq!(run.end().end, End::Signal(signal));
                    continue;
                }
                let expected: &[String] = if forwards { &[format!("c {signal}")] } else { &[] };
                assert_eq!(run.forwarded(signal), expected, "{program:?}");
                run.input = None;
                assert_eq!(run.end().end, End::Code(0));
            }
        }
    }
}

#[test]
fn a_synchronous_signal_that_is_only_sent_ends_the_init() {
    for signal in SYNCHRONOUS {
        let case = case(Place::Beside, &["-s", "--", "sh", "-c", "echo ready; exec cat"]);
        case.compare(|run| {
            run.until("ready");
            run.signal(signal);
            // The command outlives it.
            run.input = None;
        });
    }
}

#[test]
fn differs_ctrl_z_does_not_stop_the_command_for_good() {
    for place in places() {
        let mut case =
            case(place, &["-s", "--", "sh", "-c", "sleep 0.2 & echo ready; wait; read line; exit 5"]);
        case.input = Input::Terminal;
        for (program, stays) in differs(true, false) {
            let mut run = case.start(program);
            run.until("ready");
            run.press(b"\x1a");
            if stays {
                eventually("the command is stopped", || run.state_of_command() == Some('T'));
                // The whole group is: the shell and what it runs.
                system::send_signal(Pid::from_raw(-run.children()[0].as_raw()), libc::SIGCONT).unwrap();
            }
            run.press(b"\n");
            assert_eq!(run.end().end, End::Code(5), "{program:?}");
        }
    }
}

/// A shell that tells whether its process group is the terminal's foreground one.
const FOREGROUND: &str = "read pid name state parent group session tty foreground rest </proc/$$/stat
    [ $foreground = $group ] && echo in front || echo behind";

#[test]
fn differs_the_terminal_is_given_back() {
    let shell = format!("\"$@\"; {FOREGROUND}");
    let parent = ["/bin/sh", "-c", &shell, "sh"];
    let mut case = case(Place::Beside, &["-s", "--", "true"]);
    case.input = Input::Terminal;
    case.parent = &parent;
    for (program, expected) in differs("behind", "in front") {
        assert_eq!(case.seen(program, |_| ()).output, [expected], "{program:?}");
    }
}

#[test]
fn differs_who_is_in_the_background_does_not_take_the_terminal() {
    let mut case = case(Place::Beside, &["-s", "--", "sh", "-c", FOREGROUND]);
    case.input = Input::Terminal;
    case.parent = &["/bin/sh", "-mc", "\"$@\" <&0 & wait", "sh"];
    for (program, expected) in differs("in front", "behind") {
        assert_eq!(case.seen(program, |_| ()).output, [expected], "{program:?}");
    }
}

#[test]
fn differs_a_closed_standard_input_does_not_matter() {
    for place in places() {
        let mut case = case(place, &["-s", "--", "sh", "-c", "exit 7"]);
        case.input = Input::Closed;
        for (program, code) in differs(1, 7) {
            assert_eq!(case.seen(program, |_| ()).end, End::Code(code), "{program:?}");
        }
    }
}

#[test]
fn differs_every_command_that_cannot_be_executed_is_126_or_127() {
    // tini ends with 1 where the reason is an uncommon one, and lets a shell read machine code.
    let directory = files();
    let inside = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    for (command, tini, ours) in [
        ("/etc/passwd/x".into(), 1, 127),
        (inside("loop"), 1, 126),
        ("x".repeat(300), 1, 126),
        (inside("foreign"), 127, 126),
    ] {
        for (program, code) in differs(tini, ours) {
            let mut case = case(Place::Beside, &["-s", "--", &command]);
            case.environment = vec![("PATH", "/usr/bin")];
            assert_eq!(case.seen(program, |_| ()).end, End::Code(code), "{program:?}: {command}");
        }
    }
}

#[test]
fn differs_a_signal_that_is_not_permitted_is_sent_as_the_commands_user() {
    // tini gives up, and the command goes on without it.
    const KILL: libc::c_ulong = 5;
    if !Uid::effective().is_root() {
        let _ = writeln!(std::io::stderr(), "this test needs root: not run");
        return;
    }
    let user = ["setpriv", "--reuid", "12345", "--regid", "1234", "--clear-groups"];
    let arguments = [&["-s", "--"], &user[..], &["sh", "-c", "echo ready; exec cat"]].concat();
    let mut case = case(Place::Beside, &arguments);
    case.before = || {
        let _ = system::drop_from_bounding_set(KILL);
    };
    for (program, code) in differs(1, 128 + libc::SIGTERM) {
        let seen = case.seen(program, |run| {
            run.until("ready");
            run.signal(libc::SIGTERM);
            if program == Program::Tini {
                run.error_line_with("Unexpected error when forwarding signal");
                run.input = None;
            }
        });
        assert_eq!(seen.end, End::Code(code), "{program:?}: {seen:?}");
    }
}
