//! The terminal that a command is started on.

use crate::os::system::standard_stream;
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};

/// Our controlling terminal, on standard input, while our process group is its foreground one (tcsetpgrp(3)).
pub struct Terminal(());

impl Terminal {
    /// `None` where there is no terminal, or somebody else has it: what runs in the background does not take it.
    pub fn of_ours() -> Option<Self> {
        tcgetpgrp(standard_stream(0)).is_ok_and(|group| group == getpgrp()).then_some(Self(()))
    }

    /// Makes a process group the foreground one: keys reach it, and us not. To be called with SIGTTOU blocked, which
    /// would stop whoever is in the background and does this.
    pub fn give_to(&self, group: Pid) {
        // It may have been hung up meanwhile; then the command finds out for itself.
        let _ = tcsetpgrp(standard_stream(0), group);
    }

    /// Takes it back from a group that has ended, for whoever started us. Somebody else may have it by now.
    pub fn take_back(&self, group: Pid) {
        if tcgetpgrp(standard_stream(0)) == Ok(group) {
            self.give_to(getpgrp());
        }
    }
}
