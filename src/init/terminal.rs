//! The terminal of the container's command.

use crate::os::system::standard_stream;
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};

/// Our controlling terminal on standard input, with our process group in the foreground (tcsetpgrp(3)).
pub struct Terminal(());

impl Terminal {
    /// `None` without a terminal, or if our process group is in the background.
    pub fn of_ours() -> Option<Self> {
        tcgetpgrp(standard_stream(0)).is_ok_and(|group| group == getpgrp()).then_some(Self(()))
    }

    /// Moves a process group to the foreground: it now gets the signals of keys such as Ctrl-C. SIGTTOU must be
    /// blocked, because it would stop a caller in the background.
    pub fn give_to(&self, group: Pid) {
        // This fails if the terminal was hung up. The command will notice that, too.
        let _ = tcsetpgrp(standard_stream(0), group);
    }

    /// Takes the terminal back from a process group that has ended, unless another group has it by now.
    pub fn take_back(&self, group: Pid) {
        if tcgetpgrp(standard_stream(0)) == Ok(group) {
            self.give_to(getpgrp());
        }
    }
}
