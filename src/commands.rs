//! The commands, one per file.

pub mod backup;
pub mod certificates;
mod checks;
mod data;
pub mod dns;
pub mod healthcheck;
pub mod init;
pub mod migrate;
pub mod modules;
pub mod prosodyctl;
pub mod render;
pub mod repair;
pub mod restore;
pub mod run;
pub mod settings;
pub mod shards;
pub mod validate;
