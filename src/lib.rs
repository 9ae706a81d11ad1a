//! The parts of `prosody-entrypoint`, the entrypoint of a container that runs the Prosody XMPP server.
#![deny(unsafe_code)]

pub mod exit_status;
pub mod identity;
pub mod init;
pub mod privileges;
pub mod system;
