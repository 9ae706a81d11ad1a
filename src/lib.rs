//! The library of `prosody-entrypoint`, for the binary, the tests and the fuzz targets.
//!
//! The order of a start: [`commands`] → [`init`] → [`mod@configure`], with the stages [`mod@settings`] → [`facts`] →
//! [`intent`] → [`survey`] → [`plan`] → [`apply`].
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::string_slice))]

// Before the others, which use its macro.
#[macro_use]
pub mod text;

pub mod accounts;
pub mod apply;
pub mod cli;
pub mod commands;
pub mod configure;
pub mod data;
pub mod database;
pub mod digest;
pub mod exit_status;
pub mod facts;
pub mod health;
pub mod init;
pub mod intent;
pub mod layout;
pub mod live;
pub mod log;
pub mod lua;
pub mod os;
pub mod plan;
pub mod reload;
pub mod report;
pub mod settings;
pub mod shards;
pub mod survey;
pub mod templates;

#[cfg(test)]
mod tests;
