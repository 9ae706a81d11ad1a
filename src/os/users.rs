//! Users, and the tables of them.
//!
//! `/etc/passwd` and `/etc/group` are read by ourselves: the C library would follow `nsswitch.conf` and load whatever
//! library the image names there into our process.

use nix::unistd::{getegid, geteuid};

/// A user to run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name in `/etc/passwd`; an arbitrary uid (OpenShift's) has none.
    pub name: Option<String>,
    pub uid: u32,
    pub gid: u32,
}

impl User {
    /// Whom this process runs as.
    pub fn current() -> Self {
        Self { name: None, uid: geteuid().as_raw(), gid: getegid().as_raw() }
    }

    /// Whether this is root, which Prosody refuses to run as unless `run_as_root` is set.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }
}
