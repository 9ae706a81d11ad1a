//! PID 1 and what it starts, from outside: each test forks a process that becomes PID 1's loop, and looks at it
//! through pipes and `/proc`.
#![allow(clippy::string_slice, clippy::unwrap_used)]

use nix::fcntl::OFlag;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{
    ForkResult, Gid, Pid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, setgroups, setresgid, setresuid, setsid,
};
use prosody_entrypoint::exit_status::ExitStatus;
use prosody_entrypoint::init::{self, Cause, Command, InitOptions, ProgramKind, Reload};
use prosody_entrypoint::os::users::User;
use prosody_entrypoint::os::watch::{Watch, Watched};
use prosody_entrypoint::os::{directory as system_directory, privileges, system};
use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long an event may take on a busy machine before a test fails.
const DEADLINE: Duration = Duration::from_secs(20);

/// A time that no test lasts.
const NEVER: Duration = Duration::MAX;

/// Every signal that can be forwarded: all but those that cannot be caught, the synchronous ones, and SIGCHLD,
/// which is PID 1's own.
fn forwardable() -> impl Iterator<Item = i32> {
    (1..=64).filter(|signal| {
        ![
            libc::SIGKILL,
            libc::SIGSTOP,
            libc::SIGABRT,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGILL,
            libc::SIGSEGV,
            libc::SIGSYS,
            libc::SIGTRAP,
            libc::SIGCHLD,
        ]
        .contains(signal)
    })
}

/// A forked process, its standard input and its output (both streams in one).
struct Forked {
    pid: Pid,
    input: Option<File>,
    output: BufReader<File>,
    /// Whether it has ended and been waited for.
    ended: bool,
}

impl Forked {
    /// Forks a process that ends with the status of `main`.
    fn start(main: impl FnOnce() -> ExitStatus) -> Self {
        let (their_input, input) = pipe();
        let (output, their_output) = pipe();
        // SAFETY: a child of a thread may use the allocator (glibc sees to it); it takes no other lock.
        match unsafe { nix::unistd::fork() }.unwrap() {
            ForkResult::Parent { child } => {
                Self { pid: child, input: Some(input), output: BufReader::new(output), ended: false }
            }
            ForkResult::Child => {
                dup2_stdin(&their_input).unwrap();
                dup2_stdout(&their_output).unwrap();
                dup2_stderr(&their_output).unwrap();
                // The pipes of tests that run beside this one must not stay open here.
                // SAFETY: nothing that was open is used from here on.
                unsafe { libc::close_range(3, u32::MAX, 0) };
                let status = main();
                // SAFETY: ends the process, without what the test harness registered to run at its exit.
                unsafe { libc::_exit(status.code().into()) }
            }
        }
    }

    /// PID 1's loop with `child` under it.
    fn supervise(child: impl FnOnce() -> ExitStatus) -> Self {
        Self::start(|| init::supervise(&InitOptions::entrypoint(), None, child).unwrap())
    }

    /// PID 1's loop with a shell script under it.
    fn script(script: &str) -> Self {
        Self::supervise(|| exec(&shell(script)))
    }

    fn signal(&self, signal: i32) {
        system::send_signal(self.pid, signal).unwrap();
    }

    /// The output up to the next end of a line, or what there is of it; `None` at its end.
    fn some_output(&mut self) -> Option<String> {
        if self.output.buffer().is_empty() {
            let mut readable = [PollFd::new(self.output.get_ref().as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(DEADLINE).unwrap();
            assert_eq!(poll(&mut readable, timeout), Ok(1), "output or its end");
        }
        let buffer = self.output.fill_buf().unwrap();
        let length = buffer.iter().position(|&byte| byte == b'\n');
        let some = buffer[..length.map_or(buffer.len(), |end| end + 1)].to_vec();
        self.output.consume(some.len());
        (!some.is_empty()).then(|| String::from_utf8(some).unwrap())
    }

    /// The next line of output.
    fn line(&mut self) -> String {
        let mut line = String::new();
        while !line.ends_with('\n') {
            line.push_str(&self.some_output().expect("a line of output"));
        }
        line.trim_end().to_owned()
    }

    /// The value of a line of `/proc/<pid>/status`.
    fn status(&self, key: &str) -> String {
        status_of(self.pid, key)
    }

    /// The processes below this one. The first is the command, as long as it runs.
    fn children(&self) -> Vec<Pid> {
        let pid = self.pid;
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
            .unwrap()
            .split_whitespace()
            .map(|child| Pid::from_raw(child.parse().unwrap()))
            .collect()
    }

    /// Closes its input and waits for its end: all that it wrote, and its exit code.
    fn end(mut self) -> (String, i32) {
        self.input = None;
        let mut output = String::new();
        while let Some(some) = self.some_output() {
            output.push_str(&some);
        }
        (output, self.code())
    }

    fn code(mut self) -> i32 {
        let mut code = None;
        eventually("the process ends", || {
            code = match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)).unwrap() {
                WaitStatus::StillAlive => None,
                WaitStatus::Exited(_, code) => Some(code),
                other => panic!("{other:?}"),
            };
            code.is_some()
        });
        self.ended = true;
        code.unwrap()
    }
}

impl Drop for Forked {
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

fn status_of(pid: Pid, key: &str) -> String {
    field(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap(), key)
}

/// The value of a line `key: value`.
fn field(text: &str, key: &str) -> String {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
        .unwrap_or_else(|| panic!("no {key} in {text}"))
        .trim()
        .to_owned()
}

/// Waits until something is so. `/proc` has no events to wait for.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < DEADLINE, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn command(program: &str, arguments: &[&str]) -> Command {
    Command {
        program: program.into(),
        arguments: arguments.iter().map(Into::into).collect(),
        environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
        user: None,
        kind: ProgramKind::Program,
        inherited: Vec::new(),
    }
}

fn shell(script: &str) -> Command {
    command("sh", &["-c", script])
}

/// What the product does with a command that cannot be executed: one sentence, and its status.
fn exec(command: &Command) -> ExitStatus {
    let failure = command.exec();
    eprint_raw(&failure.to_string());
    failure.status
}

/// The test harness would keep what `eprintln!` writes.
fn eprint_raw(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Whether we are root, without which some tests have nothing to look at; then it says so.
fn root() -> bool {
    let root = Uid::effective().is_root();
    if !root {
        eprint_raw("this test needs root: not run");
    }
    root
}

#[test]
fn ends_with_the_childs_code() {
    for code in [0, 1, 7, 255] {
        assert_eq!(Forked::script(&format!("exit {code}")).end(), (String::new(), code));
    }
    assert_eq!(Forked::supervise(|| ExitStatus::CONFIGURATION).code(), 78);
}

#[test]
fn ends_with_128_and_the_signal_that_ended_the_child() {
    // The others are ignored or stop a process, by default.
    let fatal = (1..=64).filter(|signal| ![17, 18, 19, 20, 21, 22, 23, 28].contains(signal));
    for signal in fatal {
        let script = format!("kill -{signal} $$");
        assert_eq!(Forked::script(&script).code(), 128 + signal);
    }
}

#[test]
fn tells_of_a_death_that_it_was_not_asked_for() {
    let (output, code) = Forked::script("kill -KILL $$").end();
    assert_eq!(output, "entrypoint          warn\tthe command was ended by SIGKILL\n");
    assert_eq!(code, 137);

    let mut asked = Forked::script("echo ready; exec sleep 60");
    asked.line();
    asked.signal(libc::SIGTERM);
    assert_eq!(asked.end(), (String::new(), 143));
}

/// A child that writes the number of each signal it gets, until it gets SIGTERM for the second time.
fn report_signals() -> ExitStatus {
    let set = system::all_signals();
    system::block_exactly(&set).unwrap();
    let signals = SignalFd::new(&set).unwrap();
    eprint_raw("ready");
    let mut terminations = 0;
    while terminations < 2 {
        let signal = signals.read_signal().unwrap().unwrap().ssi_signo as i32;
        terminations += i32::from(signal == libc::SIGTERM);
        eprint_raw(&signal.to_string());
    }
    ExitStatus::exited(3)
}

#[test]
fn forwards_every_signal() {
    let mut init = Forked::supervise(report_signals);
    assert_eq!(init.line(), "ready");
    for signal in forwardable() {
        init.signal(signal);
        assert_eq!(init.line(), signal.to_string());
    }
    init.signal(libc::SIGTERM);
    assert_eq!(init.code(), 3);
}

#[test]
fn forwards_what_comes_before_the_child_is_ready() {
    // SIGTERM is sent as soon as PID 1 can have it, most often long before the child executes anything.
    for _ in 0..50 {
        let init = Forked::script("exec sleep 60");
        let blocked = 1_u64 << (libc::SIGTERM - 1);
        // While it waits for signals, they do not count as blocked.
        eventually("PID 1 blocks signals", || {
            u64::from_str_radix(&init.status("SigBlk"), 16).unwrap() & blocked != 0
                || !init.children().is_empty()
        });
        init.signal(libc::SIGTERM);
        assert_eq!(init.code(), 143);
    }
}

#[test]
fn a_key_on_the_terminal_reaches_the_child_once() {
    let keyboard = posix_openpt(OFlag::O_RDWR | OFlag::O_CLOEXEC).unwrap();
    grantpt(&keyboard).unwrap();
    unlockpt(&keyboard).unwrap();
    let terminal = ptsname_r(&keyboard).unwrap();
    let mut init = Forked::start(|| {
        setsid().unwrap();
        // The first terminal that the leader of a session opens becomes its own.
        let _terminal = File::open(terminal).unwrap();
        init::supervise(&InitOptions::entrypoint(), None, report_signals).unwrap()
    });
    assert_eq!(init.line(), "ready");
    for _ in 0..50 {
        nix::unistd::write(&keyboard, b"\x03").unwrap();
        assert_eq!(init.line(), "2");
    }
    // A second SIGINT for any of them would come before this.
    init.signal(libc::SIGTERM);
    assert_eq!(init.line(), "15");
    init.signal(libc::SIGTERM);
    assert_eq!(init.code(), 3);
}

#[test]
fn an_orphan_is_reaped() {
    // The orphan ends when the input does; its parent is gone by then.
    let mut init = Forked::script("sh -c 'cat <&3 >/dev/null &' 3<&0; echo ready; exec sleep 60");
    assert_eq!(init.line(), "ready");
    eventually("the orphan is ours", || init.children().len() == 2);
    init.input = None;
    eventually("only the command is left", || init.children().len() == 1);
    init.signal(libc::SIGTERM);
    assert_eq!(init.code(), 143);
}

#[test]
fn a_child_from_before_is_reaped() {
    let mut init = Forked::start(|| {
        // SAFETY: the process ends without touching anything.
        if let ForkResult::Child = unsafe { nix::unistd::fork() }.unwrap() {
            // SAFETY: takes a number and does not return.
            unsafe { libc::_exit(0) }
        }
        let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        nix::sys::wait::waitid(nix::sys::wait::Id::All, ended).unwrap();
        init::supervise(&InitOptions::entrypoint(), None, || exec(&shell("echo ready; read line"))).unwrap()
    });
    assert_eq!(init.line(), "ready");
    eventually("only the command is left", || init.children().len() == 1);
}

/// Leaves an orphan behind that ends at once, `count` times.
fn make_orphans(count: u32) {
    for _ in 0..count {
        // SAFETY: the processes end without touching anything.
        match unsafe { nix::unistd::fork() }.unwrap() {
            // SAFETY: the same.
            ForkResult::Child => unsafe {
                let _ = nix::unistd::fork();
                libc::_exit(0)
            },
            ForkResult::Parent { child } => drop(waitpid(child, None).unwrap()),
        }
    }
}

#[test]
fn a_storm_of_orphans_leaves_no_zombie_and_hides_no_status() {
    let mut init = Forked::supervise(|| {
        make_orphans(1000);
        eprint_raw("storm over");
        let _ = std::io::stdin().read(&mut [0]);
        make_orphans(100);
        ExitStatus::exited(7)
    });
    assert_eq!(init.line(), "storm over");
    eventually("only the command is left", || init.children().len() == 1);
    assert_eq!(init.end(), (String::new(), 7));
}

#[test]
fn the_command_starts_with_the_signals_that_a_program_expects() {
    /// What a careless parent may leave us with.
    fn spoil_signals() {
        for signal in 1..=64 {
            system::ignore(signal);
        }
        system::block_exactly(&system::all_signals()).unwrap();
    }
    for (kind, ignored) in
        [(ProgramKind::Program, "0000000000000000"), (ProgramKind::Server, "0000000000000001")]
    {
        let print_status = || exec(&Command { kind, ..command("cat", &["/proc/self/status"]) });
        let supervised = Forked::start(|| {
            spoil_signals();
            init::supervise(&InitOptions::entrypoint(), None, print_status).unwrap()
        });
        // As in `docker exec`, where there is no PID 1 of ours above.
        let alone = Forked::start(|| {
            spoil_signals();
            print_status()
        });
        for forked in [supervised, alone] {
            let (status, code) = forked.end();
            assert_eq!(code, 0, "{status}");
            assert_eq!(field(&status, "SigBlk"), "0000000000000000");
            assert_eq!(field(&status, "SigIgn"), ignored);
        }
    }
}

#[test]
fn a_child_that_becomes_the_server_survives_an_early_hangup() {
    let mut init = Forked::supervise(|| {
        init::ignore_hangup();
        eprint_raw("ready");
        let _ = std::io::stdin().read(&mut [0]);
        exec(&Command { kind: ProgramKind::Server, ..shell("kill -HUP $$; exit 4") })
    });
    init.line();
    init.signal(libc::SIGHUP);
    assert_eq!(init.end(), (String::new(), 4));
}

#[test]
fn the_command_gets_no_descriptor_above_2() {
    let init = Forked::start(|| {
        let file = File::open("/dev/null").unwrap();
        // SAFETY: copies a descriptor, without the flag that would close it.
        assert_eq!(unsafe { libc::dup2(file.as_raw_fd(), 100) }, 100);
        init::supervise(&InitOptions::entrypoint(), None, || exec(&command("cat", &[]))).unwrap()
    });
    let child = || init.children().first().copied();
    eventually("cat runs", || {
        child().is_some_and(|child| fs::read_to_string(format!("/proc/{child}/comm")).unwrap() == "cat\n")
    });
    let child = child().unwrap();
    // Its dynamic loader opens and closes libraries.
    eventually("it has the standard descriptors and no other", || {
        let open = fs::read_dir(format!("/proc/{child}/fd")).unwrap();
        let mut open: Vec<_> = open.map(|entry| entry.unwrap().file_name()).collect();
        open.sort();
        open == ["0", "1", "2"]
    });
    assert_eq!(init.end(), (String::new(), 0));
}

#[test]
fn the_command_gets_exactly_the_environment_and_arguments_given() {
    let printed = |command: Command| Forked::supervise(move || exec(&command)).end();
    let environment = [("A", "1"), ("B", "x y=z\n"), ("C", "")];
    assert_eq!(
        printed(Command {
            environment: environment.map(|(a, b)| (a.into(), b.into())).into(),
            ..command("/usr/bin/env", &["-0"])
        }),
        ("A=1\0B=x y=z\n\0C=\0".into(), 0)
    );
    assert_eq!(printed(command("printf", &["%s|", "a b", "", "c"])), ("a b||c|".into(), 0));
}

#[test]
fn the_command_gets_limits_and_umask() {
    let (output, code) = Forked::start(|| {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 64, hard.min(5000)).unwrap();
        init::supervise(&InitOptions::entrypoint(), None, || exec(&shell("ulimit -n; ulimit -c; umask")))
            .unwrap()
    })
    .end();
    assert_eq!((output.as_str(), code), ("5000\n0\n0027\n", 0));
}

#[test]
fn a_command_that_cannot_be_executed_is_126_and_one_that_is_not_there_127() {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("commands");
    fs::create_dir_all(&directory).unwrap();
    let file = |name: &str, content: &str, mode: u32| {
        let path = directory.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    for (program, code, sentence) in [
        ("no-such-program".into(), 127, "there is no `no-such-program`"),
        ("/no/such/program".into(), 127, "there is no /no/such/program"),
        (String::new(), 127, "there is no ``"),
        ("/etc".into(), 126, "/etc is a directory"),
        (file("plain", "exit 0\n", 0o644), 126, "may not execute"),
        (file("foreign", "\x7fELF\x02\0\0", 0o755), 126, "no program for this machine"),
        (file("script", "#!/no/lua\n", 0o755), 127, "needs an interpreter"),
    ] {
        let (output, status) = Forked::supervise(|| exec(&command(&program, &[]))).end();
        assert_eq!(status, code, "{program}: {output}");
        assert!(output.contains(sentence), "{program}: {output}");
        assert_eq!(output.lines().count(), 1, "{output}");
    }
    // As a shell has it: a text without `#!` is a script, and what may not be executed does not hide what may, further on in PATH.
    let text = file("text", "exit $#$1\n", 0o755);
    assert_eq!(Forked::supervise(|| exec(&command(&text, &["1"]))).code(), 11);
    file("sh", "", 0o644);
    let behind = Command {
        environment: vec![("PATH".into(), format!("/missing:{}:/missing:/bin", directory.display()).into())],
        ..shell("exit 5")
    };
    assert_eq!(Forked::supervise(|| exec(&behind)).code(), 5);
}

#[test]
fn sleeps_while_there_is_nothing_to_do() {
    let mut init = Forked::script("echo ready; sleep 1.2; echo later; read line");
    init.line();
    let mut before = String::new();
    eventually("PID 1 waits", || {
        before = init.status("voluntary_ctxt_switches");
        init.status("State").starts_with('S')
    });
    assert_eq!(init.line(), "later");
    assert_eq!(init.status("voluntary_ctxt_switches"), before);
    assert_eq!(init.status("Threads"), "1");
    init.end();
}

#[test]
fn hides_its_environment_from_its_own_user_but_not_that_of_the_command() {
    if !root() {
        return;
    }
    let init = Forked::start(|| {
        let user = Uid::from_raw(12345);
        setresuid(user, user, user).unwrap();
        prctl::set_dumpable(true).unwrap();
        privileges::hide_environment();
        init::supervise(&InitOptions::entrypoint(), None, || exec(&command("cat", &[]))).unwrap()
    });
    // The kernel gives these files to root where a process is not dumpable (proc(5)).
    let owner = |pid: Pid| fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid();
    eventually("the command is its user's", || {
        init.children().first().is_some_and(|&child| owner(child) == 12345)
    });
    assert_eq!(owner(init.pid), 0);
    init.end();
}

/// Makes the permitted capabilities inheritable, which outlives a change of user and `exec`.
fn make_capabilities_inheritable() {
    // The header, and three sets of two words each, interleaved (capset(2)).
    let header = [0x2008_0522_u32, 0];
    let mut sets = [0_u32; 6];
    // SAFETY: both arrays are as large as <linux/capability.h> says.
    unsafe {
        let get = libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr());
        assert_eq!(get, 0);
        (sets[2], sets[5]) = (sets[1], sets[4]);
        let set = libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr());
        assert_eq!(set, 0);
    }
}

#[test]
fn drop_to_leaves_no_privilege() {
    if !root() {
        return;
    }
    let user = User { uid: 12345, gid: 1234 };
    let (status, code) = Forked::supervise(|| {
        setgroups(&[Gid::from_raw(0), Gid::from_raw(77)]).unwrap();
        make_capabilities_inheritable();
        // Opening /dev/stdout opens the pipe behind it anew.
        privileges::drop_to(&user).unwrap();
        exec(&shell("cat /proc/self/status >/dev/stdout"))
    })
    .end();
    assert_eq!(code, 0, "{status}");
    let expected = BTreeMap::from([
        ("Uid", "12345\t12345\t12345\t12345"),
        ("Gid", "1234\t1234\t1234\t1234"),
        ("Groups", ""),
        ("CapInh", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
    ]);
    for (key, value) in expected {
        assert_eq!(field(&status, key), value, "{key}");
    }
}

/// Installs a filter of system calls in this process (seccomp(2)) that does `action` to a call with these arguments, by
/// their positions, and lets all others pass. Returns the call's result.
fn filter(call: i64, arguments: &[(u32, u32)], action: u32, flags: libc::c_ulong) -> i32 {
    let load = |offset| (0x20, 0, 0, offset);
    let mut code = vec![load(0), (0x15, 0, 0, call as u32)];
    for (position, value) in arguments {
        code.extend([load(16 + 8 * position), (0x15, 0, 0, *value)]);
    }
    // A comparison that fails jumps to the last instruction, which lets the call pass.
    let length = code.len();
    for (at, instruction) in code.iter_mut().enumerate().filter(|(_, instruction)| instruction.0 == 0x15) {
        instruction.2 = (length - at) as u8;
    }
    code.extend([(0x06, 0, 0, action), (0x06, 0, 0, 0x7fff_0000)]);
    let mut code: Vec<libc::sock_filter> =
        code.into_iter().map(|(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k }).collect();
    let program = libc::sock_fprog { len: code.len() as u16, filter: code.as_mut_ptr() };
    prctl::set_no_new_privs().unwrap();
    // SAFETY: the program is a live structure, which the kernel copies.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &program) };
    assert!(result >= 0, "{}", std::io::Error::last_os_error());
    result as i32
}

/// Makes a system call with these arguments fail from now on in this process.
fn refuse(call: i64, arguments: &[(u32, u32)], error: i32) {
    filter(call, arguments, libc::SECCOMP_RET_ERRNO | error as u32, 0);
}

/// Makes a system call fail once. A process below this one does it.
fn refuse_once(call: i64, error: i32) {
    let listener = filter(call, &[], libc::SECCOMP_RET_USER_NOTIF, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    if let ForkResult::Child = system::fork().unwrap() {
        prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).unwrap();
        let (mut error, mut flags) = (error, 0_u32);
        loop {
            // struct seccomp_notif: the first word is the id of the call.
            let mut notice = [0_u64; 10];
            // SAFETY: the structure has the size in the request's number.
            assert_eq!(unsafe { libc::ioctl(listener, 0xc050_2100, notice.as_mut_ptr()) }, 0);
            // struct seccomp_notif_resp: the id, the result, and the error and the flags.
            let answer = [notice[0], 0, u64::from(-error as u32) | u64::from(flags) << 32];
            // SAFETY: as above.
            assert_eq!(unsafe { libc::ioctl(listener, 0xc018_2101, answer.as_ptr()) }, 0);
            (error, flags) = (0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32);
        }
    }
}

#[test]
fn a_capability_that_cannot_be_dropped_does_not_keep_the_others() {
    if !root() {
        return;
    }
    let user = User { uid: 12345, gid: 1234 };
    let (status, code) = Forked::start(|| {
        refuse(libc::SYS_prctl, &[(0, libc::PR_CAPBSET_DROP as u32), (1, 5)], libc::EPERM);
        privileges::drop_to(&user).unwrap();
        exec(&command("cat", &["/proc/self/status"]))
    })
    .end();
    assert_eq!(code, 0, "{status}");
    assert_eq!(field(&status, "CapBnd"), "0000000000000020");
    assert_eq!(field(&status, "CapPrm"), "0000000000000000");
}

#[test]
fn a_wait_that_is_interrupted_is_repeated() {
    let (output, code) = Forked::start(|| {
        refuse_once(libc::SYS_wait4, libc::EINTR);
        init::supervise(&InitOptions::entrypoint(), None, || exec(&shell("exit 7"))).unwrap()
    })
    .end();
    assert_eq!(code, 7, "{output}");
}

#[test]
fn a_directory_whose_close_fails_is_listed() {
    let directory = directory("close");
    fs::write(directory.join("a"), "").unwrap();
    let (output, code) = Forked::start(|| {
        refuse(libc::SYS_close, &[], libc::EIO);
        eprint_raw(&format!("{:?}", system_directory::list(&directory).unwrap()));
        ExitStatus::SUCCESS
    })
    .end();
    assert_eq!((output.as_str(), code), ("[\"a\"]\n", 0));
}

#[test]
fn root_that_stays_root_keeps_no_capability_either() {
    if !root() {
        return;
    }
    let user = User { uid: 0, gid: 0 };
    let (status, _) = Forked::start(|| {
        privileges::drop_to(&user).unwrap();
        exec(&command("cat", &["/proc/self/status"]))
    })
    .end();
    for key in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(field(&status, key), "0000000000000000", "{key}");
    }
}

#[test]
fn drop_to_says_which_right_is_missing() {
    if !root() {
        return;
    }
    let user = User { uid: 12345, gid: 1234 };
    let (output, code) = Forked::start(|| {
        // As with `--cap-drop ALL`.
        system::set_capabilities(0).unwrap();
        let failure = privileges::drop_to(&user).unwrap_err();
        eprint_raw(&failure.to_string());
        failure.status
    })
    .end();
    assert_eq!(code, 77);
    assert!(
        output.contains("`--cap-add SETUID --cap-add SETGID`") && output.contains("`--user 12345:1234`"),
        "{output}"
    );
}

#[test]
fn without_root_there_is_nothing_to_drop_but_the_rest() {
    let (status, code) = Forked::start(|| {
        if Uid::effective().is_root() {
            let (uid, gid) = (Uid::from_raw(12345), Gid::from_raw(0));
            setgroups(&[Gid::from_raw(77)]).unwrap();
            setresgid(gid, gid, gid).unwrap();
            setresuid(uid, uid, uid).unwrap();
        }
        let user = User { uid: Uid::effective().as_raw(), gid: nix::unistd::getegid().as_raw() };
        privileges::drop_to(&user).unwrap();
        exec(&command("cat", &["/proc/self/status"]))
    })
    .end();
    assert_eq!(code, 0, "{status}");
    assert_eq!(field(&status, "NoNewPrivs"), "1");
    assert_eq!(field(&status, "CapEff"), "0000000000000000");
    if Uid::effective().is_root() {
        assert_eq!(field(&status, "Groups"), "77");
    }
}

#[test]
fn a_file_or_device_that_is_a_standard_stream_keeps_its_owner() {
    if !root() {
        return;
    }
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (log, null) = (directory.join("log"), directory.join("null"));
    let _ = (fs::remove_file(&log), fs::remove_file(&null));
    let (kind, mode) = (SFlag::S_IFCHR, Mode::from_bits_truncate(0o666));
    mknod(&null, kind, mode, makedev(1, 3)).unwrap();
    let user = User { uid: 12345, gid: 1234 };
    let status = Forked::start(|| {
        dup2_stdout(File::create(&log).unwrap()).unwrap();
        dup2_stdin(File::open(&null).unwrap()).unwrap();
        privileges::drop_to(&user).unwrap();
        ExitStatus::SUCCESS
    });
    assert_eq!(status.code(), 0);
    for stream in [log, null] {
        assert_eq!(fs::metadata(&stream).unwrap().uid(), 0, "{stream:?}");
    }
}

#[test]
fn a_descriptor_in_use_survives_an_exec_that_fails() {
    let failed = Forked::start(|| {
        let file = File::open("/dev/null").unwrap();
        let status = command("no-such-program", &[]).exec().status;
        file.metadata().unwrap();
        status
    });
    assert_eq!(failed.code(), 127);
}

/// A directory of its own for a test.
fn directory(name: &str) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// PID 1 of a server that writes the numbers of its signals, and of which a directory is watched. A reload says why it is,
/// and what `reload` makes of it.
fn watching(
    options: &InitOptions,
    directory: &Path,
    reload: impl Fn(&Watch, &Watched) -> ExitStatus,
) -> ExitStatus {
    let watch = Watch::new().unwrap();
    let add = || watch.add(|show| show(directory));
    let run = |_, cause| {
        let watched = add();
        let is_relevant = match cause {
            Cause::FilesChanged => watch.settle(&watched, Duration::from_millis(200), DEADLINE),
            _ => true,
        };
        eprint_raw(&format!("{cause:?}, {is_relevant}"));
        reload(&watch, &watched)
    };
    let reload = Reload { run: &run, watch: Some(&watch), limit: DEADLINE, interval: NEVER };
    let status = init::supervise(options, Some(reload), || {
        assert_eq!(add().problems, [""; 0]);
        report_signals()
    });
    status.unwrap()
}

#[test]
fn a_changed_file_is_a_reload() {
    let directory = directory("changed");
    let mut init = Forked::start(|| {
        watching(&InitOptions::entrypoint(), &directory, |_, _| match directory.join("broken").exists() {
            true => ExitStatus::CONFIGURATION,
            false => ExitStatus::SUCCESS,
        })
    });
    assert_eq!(init.line(), "ready");
    for _ in 0..3 {
        fs::write(directory.join("a.pem"), "").unwrap();
        assert_eq!(init.line(), "FilesChanged, true");
        assert_eq!(init.line(), "1");
    }
    // However much happens, it is one reload.
    (0..1000).for_each(|number| fs::write(directory.join(number.to_string()), "").unwrap());
    assert_eq!(init.line(), "FilesChanged, true");
    assert_eq!(init.line(), "1");
    // One that fails is no signal to the server.
    fs::write(directory.join("broken"), "").unwrap();
    assert_eq!(init.line(), "FilesChanged, true");
    eventually("only the command is left", || init.children().len() == 1);
    fs::remove_file(directory.join("broken")).unwrap();
    assert_eq!(init.line(), "FilesChanged, true");
    assert_eq!(init.line(), "1");
    init.signal(libc::SIGHUP);
    assert_eq!(init.line(), "Hangup, true");
    assert_eq!(init.line(), "1");
    // Another reload, or SIGIO for the server, would come before this.
    for _ in 0..2 {
        init.signal(libc::SIGTERM);
        assert_eq!(init.line(), "15");
    }
    assert_eq!(init.code(), 3);
}

#[test]
fn a_change_during_a_reload_makes_another_and_wakes_nobody_before() {
    let directory = directory("during");
    let mut init = Forked::start(|| {
        watching(&InitOptions::entrypoint(), &directory, |_, _| {
            let _ = std::io::stdin().read(&mut [0]);
            eprint_raw("done");
            ExitStatus::SUCCESS
        })
    });
    assert_eq!(init.line(), "ready");
    fs::write(directory.join("a.pem"), "").unwrap();
    assert_eq!(init.line(), "FilesChanged, true");
    let before = init.status("voluntary_ctxt_switches");
    (0..1000).for_each(|_| fs::write(directory.join("b.pem"), "").unwrap());
    assert_eq!(init.status("voluntary_ctxt_switches"), before);
    for again in [true, false] {
        init.input.as_ref().unwrap().write_all(b"x").unwrap();
        assert_eq!(init.line(), "done");
        assert_eq!(init.line(), "1");
        if again {
            assert_eq!(init.line(), "FilesChanged, true");
        }
    }
    for _ in 0..2 {
        init.signal(libc::SIGTERM);
        assert_eq!(init.line(), "15");
    }
    assert_eq!(init.code(), 3);
}

#[test]
fn a_reload_that_is_killed_is_not_repeated_for_the_same_change() {
    let directory = directory("killed");
    let mut init = Forked::start(|| {
        let watch = Watch::new().unwrap();
        // It dies before it has read anything.
        let run = |_, cause| {
            eprint_raw(&format!("{cause:?}"));
            system::send_signal(Pid::this(), libc::SIGKILL).unwrap();
            unreachable!("the signal has ended this process")
        };
        let reload = Reload { run: &run, watch: Some(&watch), limit: DEADLINE, interval: NEVER };
        let status = init::supervise(&InitOptions::entrypoint(), Some(reload), || {
            watch.add(|show| show(&directory));
            report_signals()
        });
        status.unwrap()
    });
    assert_eq!(init.line(), "ready");
    for (name, cause) in [("a", "FilesChanged"), ("b", "Hangup"), ("c", "Hangup")] {
        // One event, and not two that could be told of one by one.
        fs::create_dir(directory.join(name)).unwrap();
        assert_eq!(init.line(), cause);
        assert_eq!(
            init.line(),
            format!("entrypoint          warn\tthe reload was ended by SIGKILL{CATCHES_UP}")
        );
        eventually("only the command is left", || init.children().len() == 1);
    }
    for _ in 0..2 {
        init.signal(libc::SIGTERM);
        assert_eq!(init.line(), "15");
    }
    assert_eq!(init.code(), 3);
}

#[test]
fn a_day_causes_a_look_that_tells_the_server_nothing() {
    let mut init = Forked::start(|| {
        let run = |_, cause| {
            eprint_raw(&format!("{cause:?}"));
            ExitStatus::exited(1)
        };
        let interval = Duration::from_millis(300);
        let reload = Reload { run: &run, watch: None, limit: DEADLINE, interval };
        init::supervise(&InitOptions::entrypoint(), Some(reload), report_signals).unwrap()
    });
    assert_eq!(init.line(), "ready");
    for _ in 0..3 {
        assert_eq!(init.line(), "Daily");
    }
    // Neither does a reload that fails.
    init.signal(libc::SIGHUP);
    let other = |init: &mut Forked| std::iter::repeat_with(|| init.line()).find(|line| line != "Daily");
    assert_eq!(other(&mut init).unwrap(), "Hangup");
    init.signal(libc::SIGTERM);
    assert_eq!(other(&mut init).unwrap(), "15");
    init.signal(libc::SIGTERM);
    assert_eq!(init.code(), 3);
}

/// How PID 1 goes on where a reload was killed.
const CATCHES_UP: &str = ", and the server goes on as it was: the next reload reads everything again";

/// PID 1 of a server that writes the numbers of its signals. A reload that finds `trouble` in the watched directory makes
/// some for itself.
fn troubled(directory: &Path, limit: Duration, trouble: impl Fn()) -> Forked {
    Forked::start(|| {
        let watch = Watch::new().unwrap();
        let run = |_, cause| {
            let has_trouble = fs::remove_dir(directory.join("trouble")).is_ok();
            watch.discard();
            eprint_raw(&format!("{cause:?}"));
            if has_trouble {
                trouble();
            }
            ExitStatus::SUCCESS
        };
        let reload = Reload { run: &run, watch: Some(&watch), limit, interval: NEVER };
        let status = init::supervise(&InitOptions::entrypoint(), Some(reload), || {
            watch.add(|show| show(directory));
            report_signals()
        });
        status.unwrap()
    })
}

#[test]
fn a_reload_that_hangs_is_killed_and_the_next_one_tells_the_server() {
    let directory = directory("hangs");
    let mut init = troubled(&directory, Duration::from_secs(2), || {
        loop {
            nix::unistd::pause();
        }
    });
    assert_eq!(init.line(), "ready");
    let make = |name| fs::create_dir(directory.join(name)).unwrap();
    make("trouble");
    assert_eq!(init.line(), "FilesChanged");
    assert_eq!(init.line(), "entrypoint          warn\tthe reload has not ended within 2 s");
    assert_eq!(init.line(), format!("entrypoint          warn\tthe reload was ended by SIGKILL{CATCHES_UP}"));
    eventually("only the command is left", || init.children().len() == 1);
    // Whatever has changed, the server is told.
    for cause in ["Hangup", "FilesChanged"] {
        make(cause);
        assert_eq!(init.line(), cause);
        assert_eq!(init.line(), "1");
    }
    // While SIGHUP waits for a reload that hangs.
    make("trouble");
    assert_eq!(init.line(), "FilesChanged");
    init.signal(libc::SIGHUP);
    init.line();
    init.line();
    for line in ["Hangup", "1"] {
        assert_eq!(init.line(), line);
    }
    for _ in 0..2 {
        init.signal(libc::SIGTERM);
        assert_eq!(init.line(), "15");
    }
    assert_eq!(init.code(), 3);
}

#[test]
fn a_reload_that_is_stopped_goes_on() {
    let directory = directory("stopped");
    let mut init = troubled(&directory, DEADLINE, || {
        system::send_signal(Pid::this(), libc::SIGSTOP).unwrap();
        eprint_raw("goes on");
    });
    assert_eq!(init.line(), "ready");
    fs::create_dir(directory.join("trouble")).unwrap();
    for line in ["FilesChanged", "goes on", "1"] {
        assert_eq!(init.line(), line);
    }
    for _ in 0..2 {
        init.signal(libc::SIGTERM);
        assert_eq!(init.line(), "15");
    }
    assert_eq!(init.code(), 3);
}

#[test]
fn a_signal_of_somebodys_is_forwarded_where_files_are_watched() {
    let directory = directory("forwarded");
    let mut init =
        Forked::start(|| watching(&InitOptions::entrypoint(), &directory, |_, _| ExitStatus::SUCCESS));
    assert_eq!(init.line(), "ready");
    for signal in forwardable().filter(|&signal| signal != libc::SIGHUP) {
        init.signal(signal);
        assert_eq!(init.line(), signal.to_string());
    }
    let with_value = libc::sigval { sival_ptr: std::ptr::null_mut() };
    // SAFETY: takes numbers only.
    assert_eq!(unsafe { libc::sigqueue(init.pid.as_raw(), libc::SIGIO, with_value) }, 0);
    assert_eq!(init.line(), libc::SIGIO.to_string());
    // One that is pending hides the kernel's.
    init.signal(libc::SIGSTOP);
    eventually("PID 1 is stopped", || init.status("State").starts_with('T'));
    init.signal(libc::SIGIO);
    fs::write(directory.join("a.pem"), "").unwrap();
    init.signal(libc::SIGCONT);
    for line in [&libc::SIGCONT.to_string(), &libc::SIGIO.to_string(), "FilesChanged, true", "1"] {
        assert_eq!(init.line(), line);
    }
    init.signal(libc::SIGTERM);
    assert_eq!(init.line(), "15");
    assert_eq!(init.code(), 3);
}

#[test]
fn sleeps_while_nothing_happens_to_what_is_watched() {
    let directory = directory("asleep");
    let mut init = Forked::start(|| {
        let watch = Watch::new().unwrap();
        let run = |_, _| unreachable!("nothing is reloaded");
        let reload = Reload { run: &run, watch: Some(&watch), limit: DEADLINE, interval: NEVER };
        let status = init::supervise(&InitOptions::entrypoint(), Some(reload), || {
            watch.add(|show| show(&directory));
            exec(&Command {
                kind: ProgramKind::Server,
                ..shell("echo ready; sleep 1.2; echo later; read line")
            })
        });
        status.unwrap()
    });
    init.line();
    let mut before = String::new();
    eventually("PID 1 waits", || {
        before = init.status("voluntary_ctxt_switches");
        init.status("State").starts_with('S')
    });
    assert!(fs::read_dir(&directory).unwrap().next().is_none());
    assert_eq!(init.line(), "later");
    assert_eq!(init.status("voluntary_ctxt_switches"), before);
    assert_eq!(init.status("Threads"), "1");
    let command = init.children()[0];
    let is_inotify =
        |path: &str| fs::read_link(path).is_ok_and(|file| file == Path::new("anon_inode:inotify"));
    assert!(is_inotify(&format!("/proc/{}/fd/3", init.pid)));
    assert!(!is_inotify(&format!("/proc/{command}/fd/3")));
    init.end();
}

/// The system's allocator, with a count of what was asked of it.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all is handed to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn allocates_nothing_once_the_child_runs() {
    let options = |arguments: &[&str]| {
        let arguments = arguments.iter().map(Into::into).collect();
        match init::parse("init", arguments, |_| None) {
            Ok(init::Invocation::Run(options)) => options,
            other => panic!("{other:?}"),
        }
    };
    let count = |work: fn()| {
        // Each orphan that is reaped is worth a line.
        let options = options(&["-s", "-w", "true"]);
        let init = Forked::start(|| {
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            let status = init::supervise(&options, None, || {
                work();
                ExitStatus::SUCCESS
            });
            let during = ALLOCATIONS.load(Ordering::Relaxed) - before;
            eprint_raw(&format!("allocations: {during}"));
            status.unwrap()
        });
        let (output, code) = init.end();
        assert_eq!(code, 0, "{output}");
        let reaped = output.matches("Reaped zombie process with pid=").count();
        (field(&output, "allocations"), reaped)
    };
    let (idle, _) = count(|| {});
    let (busy, reaped) = count(|| {
        system::ignore(libc::SIGUSR1);
        for _ in 0..100 {
            make_orphans(1);
            system::send_signal(Pid::parent(), libc::SIGUSR1).unwrap();
        }
    });
    assert!(reaped > 0);
    assert_eq!(busy, idle);
}

#[test]
fn a_reload_costs_pid_1_no_allocation() {
    let directory = directory("allocations");
    let count = |reloads: usize| {
        let init = Forked::start(|| {
            let watch = Watch::new().unwrap();
            let run = |_, _| {
                watch.settle(&watch.add(|show| show(&directory)), Duration::ZERO, Duration::ZERO);
                ExitStatus::SUCCESS
            };
            let reload = Reload { run: &run, watch: Some(&watch), limit: DEADLINE, interval: NEVER };
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            let status = init::supervise(&InitOptions::entrypoint(), Some(reload), || {
                watch.add(|show| show(&directory));
                let set = system::all_signals();
                system::block_exactly(&set).unwrap();
                let signals = SignalFd::new(&set).unwrap();
                let signal = || signals.read_signal().unwrap().unwrap().ssi_signo as i32;
                for _ in 0..reloads {
                    fs::write(directory.join("a.pem"), "").unwrap();
                    while signal() != libc::SIGHUP {}
                }
                ExitStatus::SUCCESS
            });
            eprint_raw(&format!("allocations: {}", ALLOCATIONS.load(Ordering::Relaxed) - before));
            status.unwrap()
        });
        let (output, code) = init.end();
        assert_eq!(code, 0, "{output}");
        field(&output, "allocations")
    };
    assert_eq!(count(20), count(0));
}

#[test]
fn a_warning_that_nobody_reads_does_not_end_the_command() {
    // The pipe of standard error is broken before the orphan ends, and PID 1 wants to tell.
    let script =
        "sh -c 'cat <&3 >/dev/null &' 3<&0; trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done";
    let arguments = ["-s", "-w", "--", "sh", "-c", script].map(Into::into).to_vec();
    let Ok(init::Invocation::Run(options)) = init::parse("init", arguments, |_| None) else { panic!() };
    let mut init = Forked::start(|| {
        let (nobody, broken) = pipe();
        drop(nobody);
        dup2_stderr(&broken).unwrap();
        init::supervise(&options, None, || exec(&shell(script))).unwrap()
    });
    assert_eq!(init.line(), "ready");
    init.input = None;
    // The shell has a `sleep` beside the orphan.
    eventually("the orphan is reaped", || {
        let is_cat =
            |pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "cat");
        !init.children().into_iter().any(is_cat)
    });
    init.signal(libc::SIGTERM);
    assert_eq!(init.code(), 3);
}

/// Numbers that look random, the same for the same seed (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// What the command of a storm does: processes come and go below it and are orphaned, while it counts the signals that
/// it gets. SIGTERM ends the storm, with this code or this signal of its own. Its children are its own to reap.
fn rage(random: &mut Random, end: Result<i32, i32>) -> ExitStatus {
    let set = system::all_signals();
    system::block_exactly(&set).unwrap();
    let signals = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK).unwrap();
    eprint_raw("ready");
    let mut counts = [0_u32; 65];
    while counts[libc::SIGTERM as usize] == 0 {
        match random.below(4) {
            // One that is ours, and ends at once or after a while, by itself or by a signal.
            0 => {
                let (wait, way) = (random.below(3), random.below(3));
                // SAFETY: the process touches nothing but its own end.
                if let ForkResult::Child = unsafe { nix::unistd::fork() }.unwrap() {
                    thread::sleep(Duration::from_millis(wait));
                    if way == 0 {
                        let _ = system::send_signal(Pid::this(), libc::SIGKILL);
                    }
                    // SAFETY: as above.
                    unsafe { libc::_exit(way as i32) }
                }
            }
            1 => make_orphans(random.below(20) as u32),
            2 => thread::yield_now(),
            _ => {
                while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status.pid().is_some())
                {
                }
            }
        }
        while let Ok(Some(signal)) = signals.read_signal() {
            counts[signal.ssi_signo as usize] += 1;
        }
    }
    // Real-time signals are queued, and those of lower numbers come first.
    while let Ok(Some(signal)) = signals.read_signal() {
        counts[signal.ssi_signo as usize] += 1;
    }
    let seen: Vec<String> =
        (1..=64).filter(|&n| counts[n] > 0).map(|n| format!("{n}:{}", counts[n])).collect();
    eprint_raw(&seen.join(" "));
    // Its end is for when PID 1 has been looked at.
    let _ = std::io::stdin().read(&mut [0]);
    match end {
        Ok(code) => ExitStatus::exited(code as u8),
        Err(signal) => {
            system::default_disposition(signal);
            system::block_exactly(&nix::sys::signal::SigSet::empty()).unwrap();
            system::send_signal(Pid::this(), signal).unwrap();
            unreachable!("the signal has ended this process")
        }
    }
}

#[test]
fn a_storm_leaves_no_zombie_loses_no_signal_and_ends_with_the_right_status() {
    let first = std::env::var("STORM_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = first.map_or(1..=40, |seed: u64| seed..=seed);
    for seed in seeds {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let end = match random.below(2) {
            0 => Ok(random.below(256) as i32),
            _ => Err([libc::SIGKILL, libc::SIGUSR2, libc::SIGABRT, 40][random.below(4) as usize]),
        };
        let mut init = Forked::supervise(|| rage(&mut Random(seed), end));
        assert_eq!(init.line(), "ready", "seed {seed}");
        let mut sent = BTreeMap::new();
        let all: Vec<i32> =
            forwardable().filter(|signal| ![libc::SIGTERM, libc::SIGHUP].contains(signal)).collect();
        for _ in 0..100 + random.below(300) {
            let signal = all[random.below(all.len() as u64) as usize];
            init.signal(signal);
            *sent.entry(signal).or_insert(0) += 1;
            if random.below(10) == 0 {
                thread::yield_now();
            }
        }
        // It is forwarded after all that came before: real-time signals only are handed out after it.
        let real_time = |signal: &i32| *signal >= 32;
        eventually("everything has been handed on", || {
            u64::from_str_radix(&init.status("ShdPnd"), 16).unwrap() == 0
        });
        init.signal(libc::SIGTERM);
        let counted = init.line();
        let counted: BTreeMap<i32, i32> = counted
            .split(' ')
            .map(|pair| pair.split_once(':').unwrap())
            .map(|(signal, count)| (signal.parse().unwrap(), count.parse().unwrap()))
            .collect();
        for (signal, count) in &sent {
            let counted = counted.get(signal).copied().unwrap_or(0);
            // What is pending already is not queued a second time, but for real-time signals (signal(7)), and SIGCONT
            // and the signals that stop take each other off the queue.
            let least = match *signal {
                signal if real_time(&signal) => *count,
                libc::SIGCONT | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => 0,
                _ => 1,
            };
            let is_right = (least..=*count).contains(&counted);
            assert!(is_right, "seed {seed}: signal {signal} was sent {count} times, {counted} came");
        }
        eventually("only the command is left", || init.children().len() == 1);
        let (output, code) = init.end();
        assert_eq!(code, end.unwrap_or_else(|signal| 128 + signal), "seed {seed}: {output}");
    }
}
