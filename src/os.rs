//! The operating system: system calls, privileges, programs, files and users, without knowledge of Prosody.

pub mod directory;
pub mod listening;
pub mod privileges;
pub mod process;
pub mod system;
pub mod trusted_file;
pub mod users;
pub mod watch;

use std::sync::mpsc;
use std::time::Duration;
use std::{io, thread};

/// Calls what has no time limit of its own, in a thread, which is left behind after `limit`.
/// Errors: `TimedOut`, and those of `call` and of the start of a thread.
pub fn within<T: Send + 'static>(
    limit: Duration,
    call: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().spawn(move || sender.send(call()))?;
    receiver.recv_timeout(limit).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_call_without_a_limit_of_its_own_gets_one() {
        let (sender, receiver) = mpsc::channel::<()>();
        let start = Instant::now();
        let endless = within(Duration::from_millis(50), move || Ok(receiver.recv()));
        assert_eq!(endless.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() < Duration::from_secs(5));
        drop(sender);
        assert_eq!(within(Duration::from_secs(5), || Ok(1)).unwrap(), 1);
    }
}
