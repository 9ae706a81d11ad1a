//! Running other programs.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Runs a program with this standard input, and returns its output. The standard error is not changed.
/// Errors: `TimedOut` after the limit: the program and its children are killed.
pub fn output(command: &mut Command, input: &[u8], limit: Duration) -> io::Result<Output> {
    // A process group of its own, because a child of the program may hold the output open.
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).spawn()?;
    let group = Pid::from_raw(child.id() as i32);
    let (stdin, input) = (child.stdin.take(), input.to_vec());
    let (end, ended) = mpsc::channel();
    // The program may fill the output pipe before it reads its input. Ignore errors: if it exits without reading, its
    // status shows why.
    thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&input)));
    thread::spawn(move || end.send(child.wait_with_output()));
    ended.recv_timeout(limit).unwrap_or_else(|_| {
        // Root may lack the capability to kill it. Then it runs on, but nothing waits for it.
        let _ = killpg(group, Signal::SIGKILL);
        Err(io::ErrorKind::TimedOut.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn shell(script: &str, input: &str, limit: Duration) -> io::Result<String> {
        let output = output(Command::new("sh").args(["-c", script]), input.as_bytes(), limit)?;
        Ok(String::from_utf8(output.stdout).unwrap())
    }

    #[test]
    fn a_program_gets_its_input_and_gives_its_output() {
        assert_eq!(shell("cat; echo end", "input\n", LONG).unwrap(), "input\nend\n");
        // More than a pipe holds, in both directions.
        let much = "x".repeat(1 << 20);
        assert_eq!(shell("cat", &much, LONG).unwrap(), much);
        assert_eq!(shell("exec 0<&-; echo unread", &much, LONG).unwrap(), "unread\n");
    }

    #[test]
    fn a_program_that_takes_too_long_is_killed_with_its_children() {
        for script in ["exec sleep 1000", "sleep 1000 & exit", "sleep 1000 | cat"] {
            let error = shell(script, "", Duration::from_millis(100)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{script}");
        }
    }
}
