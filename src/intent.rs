//! What is wanted, decided from settings and facts alone: hosts with their options, modules, certificates, accounts,
//! databases.
//!
//! Nothing here looks at the disk, asks the clock, changes the identity or starts a program.

pub mod accounts;
pub mod certificates;
pub mod databases;
mod global;
pub mod hosts;
pub mod modules;
pub mod places;
pub mod problems;
mod storage;

use self::certificates::Certificates;
use self::databases::Database;
use self::hosts::{Options, ServedHosts};
use self::modules::Modules;
use crate::facts::Facts;
use crate::report::Report;
use crate::settings::Settings;
use crate::settings::catalogue::Field;
use crate::settings::types::{self, LogLevel};

/// What is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Intent {
    /// Virtual hosts and components.
    pub hosts: ServedHosts,
    /// The options of the global section, less `modules_enabled` where that follows from what there is of modules.
    pub options: Options,
    /// `PROSODY_OPTIONS` as they were written, which are in [`Intent::options`] already.
    pub written: types::CustomOptions,
    /// The modules.
    pub modules: Modules,
    /// The certificates.
    pub certificates: Certificates,
    /// The accounts to create, as the module takes them.
    pub accounts: Option<String>,
    /// The databases that data are kept in.
    pub databases: Vec<Database>,
    /// The variable that sets the log level to debug.
    pub debug_log: Option<String>,
}

/// Decides what is wanted. What is wrong is added to the report.
///
/// With `whole`, the modules that Prosody loads by itself are among the requests.
pub fn decide(settings: &Settings, facts: &Facts, whole: bool, report: &mut Report) -> Intent {
    problems::report(settings, facts, report);
    places::check(settings, facts, report);
    let mut hosts = ServedHosts::decide(settings, facts, report);
    let certificates = certificates::wanted(settings, facts, &hosts);
    certificates::check(settings, report);
    accounts::check(settings, facts, &mut hosts, report);
    let mut options = Options::new();
    global::options(settings, facts, &mut options, report);
    storage::options(settings, &mut options, report);
    let mut modules = modules::wanted(settings, facts, &mut options, report);
    let written = settings.anything.options.clone().unwrap_or_default();
    hosts::merge(&mut options, &written, Clone::clone);
    modules.request(settings, &hosts, &options, whole, report);
    if written.get(modules::ENABLED).is_none() {
        options.remove(modules::ENABLED);
    }
    hosts.name_in_ascii(options.contains_key("http_host"));
    let databases = databases::of(&options, &hosts);
    let is_debug = settings.observability.log_level == Some(LogLevel::Debug);
    Intent {
        hosts,
        options,
        written,
        modules,
        certificates,
        accounts: accounts::text(settings),
        databases,
        debug_log: is_debug.then(|| settings.variable(Field::log_level)),
    }
}

#[cfg(test)]
mod tests;
