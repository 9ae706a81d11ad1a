//! The commands, one per file.

pub mod certificates;
mod checks;
pub mod dns;
pub mod healthcheck;
pub mod init;
pub mod modules;
pub mod prosodyctl;
pub mod render;
pub mod run;
pub mod settings;
pub mod validate;
