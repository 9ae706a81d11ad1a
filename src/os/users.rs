//! Users.

use nix::unistd::{getegid, geteuid};

/// A user to run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

impl User {
    pub fn current() -> Self {
        Self { uid: geteuid().as_raw(), gid: getegid().as_raw() }
    }

    /// Whether this is root. Prosody refuses to run as root unless `run_as_root` is set.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }
}
