//! The operating system: everything that is a system call away, and nothing of what this program is for.

pub mod directory;
pub mod privileges;
pub mod system;
pub mod trusted_file;
pub mod users;
pub mod watch;
