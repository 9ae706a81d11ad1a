//! The operating system: system calls, privileges, programs, files and users, without knowledge of Prosody.

pub mod directory;
pub mod listening;
pub mod privileges;
pub mod process;
pub mod system;
pub mod trusted_file;
pub mod users;
pub mod watch;
