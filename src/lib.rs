//! The parts of `prosody-entrypoint`, as a library: what the binary, the tests and the fuzz targets share.
//!
//! The way of a start: [`commands`] → ([`mod@settings`], [`facts`]) → [`plan`] → [`apply`] → [`init`].
#![deny(unsafe_code)]

pub mod accounts;
pub mod apply;
pub mod certificates;
pub mod cli;
pub mod commands;
pub mod database;
pub mod directory;
pub mod exit_status;
pub mod facts;
pub mod health;
pub mod identity;
pub mod init;
pub mod log;
pub mod lua;
pub mod plan;
pub mod privileges;
pub mod self_signed;
pub mod settings;
pub mod system;
pub mod templates;
pub mod watch;

#[cfg(test)]
mod test_dir;
