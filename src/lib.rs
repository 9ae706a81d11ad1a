//! The parts of `prosody-entrypoint`, as a library: what the binary, the tests and the fuzz targets share.
//!
//! The way of a start: [`commands`] → [`mod@settings`] → [`facts`] → [`plan`] → [`apply`] → [`init`].
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::string_slice))]

pub mod accounts;
pub mod apply;
pub mod cli;
pub mod commands;
pub mod configure;
pub mod database;
pub mod digest;
pub mod exit_status;
pub mod facts;
pub mod health;
pub mod init;
pub mod intent;
pub mod layout;
pub mod log;
pub mod lua;
pub mod os;
pub mod plan;
pub mod reload;
pub mod report;
pub mod settings;
pub mod survey;
pub mod templates;
pub mod text;

#[cfg(test)]
mod test_child;
#[cfg(test)]
mod test_dir;
