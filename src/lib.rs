//! The parts of `prosody-entrypoint`, as a library: what the binary, the tests and the fuzz targets share.
//!
//! The way of a start: [`commands`] → ([`settings`], [`facts`]) → [`plan`] → [`apply`] → [`init`].
#![deny(unsafe_code)]

pub mod exit_status;
pub mod facts;
pub mod health;
pub mod identity;
pub mod init;
pub mod log;
pub mod lua;
pub mod privileges;
pub mod self_signed;
pub mod system;
pub mod templates;

#[cfg(test)]
mod test_dir;
