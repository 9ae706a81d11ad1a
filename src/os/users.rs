//! Users.

use nix::unistd::{getegid, geteuid};

use crate::text::Advice;

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

    /// The advice for a file that this user cannot read.
    pub fn permission_to_read(&self) -> Advice {
        advice!("run `chgrp {}` and `chmod g+rX` on it and on its directory", self.gid)
    }
}
