//! A terminal, as `docker run -it` and `docker exec -it` give one.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};

use crate::docker::{Container, Observations, PATIENCE, Recipe, TRIXIE, docker, eventually, require, unique};

const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const CTRL_Z: &str = "\x1a";

/// A person at a terminal who runs `docker`.
struct Person {
    /// The other end of the terminal: what is typed goes in, what is shown comes out.
    device: File,
    /// The terminal's path.
    terminal: String,
    docker: Child,
    /// All that was shown, and how much of it was looked at.
    shown: String,
    read: usize,
}

impl Person {
    fn runs(arguments: &[&str]) -> Self {
        let device = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
        grantpt(&device).unwrap();
        unlockpt(&device).unwrap();
        let terminal = ptsname_r(&device).unwrap();
        resize(&terminal, 24, 80);
        let stream = || Stdio::from(OpenOptions::new().read(true).write(true).open(&terminal).unwrap());
        // The terminal has to control the session, so that docker hears of a new size (setsid(1)).
        let docker = Command::new("setsid")
            .args(["--ctty", "docker"])
            .args(arguments)
            .stdin(stream())
            .stdout(stream())
            .stderr(stream())
            .spawn()
            .expect("setsid (util-linux) cannot be run");
        Self { device: OwnedFd::from(device).into(), terminal, docker, shown: String::new(), read: 0 }
    }

    fn types(&mut self, keys: &str) {
        self.device.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until a text is shown after what was seen before.
    #[track_caller]
    fn sees(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.shown[self.read..].find(text) {
                self.read += at + text.len();
                return;
            }
            assert!(Instant::now() < deadline, "{text:?} is not shown:\n{}", self.shown);
            self.look();
        }
    }

    /// Takes what is shown, if there is something soon.
    fn look(&mut self) {
        let mut readable = [PollFd::new(self.device.as_fd(), PollFlags::POLLIN)];
        poll(&mut readable, PollTimeout::from(100u8)).unwrap();
        let events = readable[0].revents().unwrap_or(PollFlags::empty());
        if events.contains(PollFlags::POLLIN) {
            let mut buffer = [0; 4096];
            let length = self.device.read(&mut buffer).unwrap_or(0);
            self.shown.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    }

    /// Waits until docker has ended: its status, which is that of what it ran.
    #[track_caller]
    fn ends(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.look();
            if let Some(status) = self.docker.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it goes on:\n{}", self.shown);
        }
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        // Where a test failed; else it has ended.
        let _ = self.docker.kill();
        let _ = self.docker.wait();
    }
}

/// Changes a terminal's size, of which whoever has it is told (SIGWINCH).
fn resize(terminal: &str, rows: u32, columns: u32) {
    let size = [rows.to_string(), columns.to_string()];
    let status =
        Command::new("stty").args(["-F", terminal, "rows", &size[0], "cols", &size[1]]).status().unwrap();
    assert!(status.success());
}

/// Runs a container of the image on a terminal. It is removed when what is returned first is dropped.
fn run(arguments: &[&str], command: &[&str]) -> (Container, Person) {
    require(TRIXIE);
    let container = Container { name: unique("terminal") };
    let mut all = vec!["run", "--interactive", "--tty", "--name", &container.name];
    all.extend(arguments);
    all.push(TRIXIE);
    all.extend(command);
    let person = Person::runs(&all);
    (container, person)
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_shell_has_the_terminal_and_controls_its_jobs() {
    for arguments in [&[][..], &["--entrypoint", "prosody-entrypoint"]] {
        let command = if arguments.is_empty() { &["bash"][..] } else { &["init", "--", "bash"] };
        let (_container, mut person) = run(arguments, command);
        // The shell evaluates what it reads, so that what was only echoed is never taken for an answer.
        person.types("echo shell-$((1 + 1))\r");
        person.sees("shell-2");
        person.types("sh -c 'echo job-$((2 + 2)); exec sleep 1000'\r");
        person.sees("job-4");
        person.types(CTRL_C);
        person.types("echo code-$?\r");
        person.sees("code-130");

        // A job that says when it is continued: the shell has given it the terminal by then.
        person.types("perl -e '$| = 1; $SIG{CONT} = sub { print qq(job-), 4 + 4 }; print qq(job-), 3 + 3; sleep while 1'\r");
        person.sees("job-6");
        person.types(CTRL_Z);
        person.sees("Stopped");
        person.types("echo stopped-$?\r");
        person.sees("stopped-148");
        person.types("fg\r");
        person.sees("job-8");
        person.types(CTRL_C);
        person.types("echo again-$?\r");
        person.sees("again-130");

        resize(&person.terminal, 33, 77);
        // By way of docker and the engine, which may miss the size that the terminal has at the start.
        let deadline = Instant::now() + PATIENCE;
        while !person.shown.contains("33 77") {
            assert!(Instant::now() < deadline, "no new size: {}", person.shown);
            person.types("stty size\r");
            person.look();
        }
        person.types("exit 5\r");
        assert_eq!(person.ends(), Some(5), "{}", person.shown);
        assert!(!person.shown.contains("job control"), "{}", person.shown);
    }
}

/// Nobody is there who could continue what Ctrl-Z stops.
#[test]
#[ignore = "needs Docker and the images: make test"]
fn ctrl_z_hangs_nothing_where_there_is_no_shell() {
    let (_container, mut person) = run(&[], &["cat"]);
    person.types("one\r");
    person.sees("one\r\none\r\n");
    for number in ["two", "three"] {
        person.types(CTRL_Z);
        person.sees("^Z");
        person.types(&format!("{number}\r"));
        person.sees(&format!("{number}\r\n{number}\r\n"));
    }
    person.types(CTRL_C);
    assert_eq!(person.ends(), Some(130), "{}", person.shown);
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn the_server_on_a_terminal_ends_with_ctrl_c() {
    let (container, mut person) = run(&["--env", "PROSODY_DOMAIN=chat.example"], &[]);
    person.sees("Activated service 'c2s'");
    container.wait_until_it_serves();
    person.types(CTRL_Z);
    person.sees("^Z");
    container.wait_until_it_serves();
    let before = Instant::now();
    person.types(CTRL_C);
    assert_eq!(person.ends(), Some(0), "{}", person.shown);
    assert!(before.elapsed() < Duration::from_secs(8), "{:?}", before.elapsed());
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn prosodyctl_shell_on_a_terminal_takes_its_keys() {
    let server = Recipe::new(TRIXIE).env("PROSODY_DOMAIN", "chat.example").serve();
    let mut seen = Observations::default();
    for user in ["0", "999:999"] {
        let mut person = Person::runs(&["exec", "-it", "--user", user, &server.name, "prosodyctl", "shell"]);
        person.sees("prosody>");
        person.types("> return 20 + 22\r");
        person.sees("Result: 42");
        person.sees("prosody>");
        // With readline Lua's own handler does no more than to give the line up.
        person.types(CTRL_C);
        person.types("\r");
        person.sees("prosody>");
        person.types("> return 30 + 33\r");
        person.sees("Result: 63");
        person.sees("prosody>");
        person.types(CTRL_D);
        seen.equal(&format!("{user}: its status"), person.ends(), Some(0));
        let left = || server.root("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout;
        eventually("nothing is left of it", PATIENCE, || match left() {
            processes if processes.contains("prosodyctl") => Err(processes),
            _ => Ok(()),
        });
    }
    let before = Instant::now();
    docker(["stop", "--time", "30", &server.name]).ok();
    seen.that("it stops at once", before.elapsed() < Duration::from_secs(8), before.elapsed());
    seen.report();
}
