//! The intent: the wanted hosts with their options, modules, certificates, accounts and databases. It follows from the
//! settings and the facts alone. Nothing here reads the disk or the clock, changes the identity or starts a program.

pub mod accounts;
pub mod certificates;
pub mod databases;
mod features;
mod global;
pub mod hosts;
pub mod modules;
pub mod places;
pub mod problems;
mod proxies;
pub mod shards;
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

/// The wanted configuration, before the survey checks what exists.
#[derive(Debug, Clone, PartialEq)]
pub struct Intent {
    pub hosts: ServedHosts,
    /// The options of the global section, without `modules_enabled` unless `PROSODY_OPTIONS` sets it: the plan adds it
    /// once the survey has found the modules.
    pub options: Options,
    /// `PROSODY_OPTIONS` as written. [`Intent::options`] contains them too.
    pub written: types::CustomOptions,
    pub modules: Modules,
    pub certificates: Certificates,
    /// The accounts to create, in the format of the script that creates them.
    pub accounts: Option<String>,
    pub databases: Vec<Database>,
    /// The variable that sets the log level to debug, if one does.
    pub debug_log: Option<String>,
}

/// Decides the intent. Errors and warnings go to the report.
///
/// With `with_autoloaded`, the module requests include the modules that Prosody loads without configuration.
pub fn decide(settings: &Settings, facts: &Facts, with_autoloaded: bool, report: &mut Report) -> Intent {
    problems::report(settings, facts, report);
    places::check(settings, facts, report);
    let mut hosts = ServedHosts::decide(settings, facts, report);
    let certificates = certificates::wanted(settings, facts, &hosts);
    certificates::check(settings, facts, report);
    accounts::check(settings, facts, &mut hosts, report);
    let mut options = Options::new();
    global::options(settings, facts, &mut options, report);
    storage::options(settings, &mut options, report);
    let mut modules = modules::wanted(settings, facts, &mut options, report);
    let written = settings.anything.options.clone().unwrap_or_default();
    hosts::merge(&mut options, &written, |_, value| value.clone());
    global::tls_groups(settings, facts, &written, &mut options, report);
    modules.request(settings, &hosts, &options, with_autoloaded, report);
    if written.get(hosts::ENABLED).is_none() {
        options.remove(hosts::ENABLED);
    }
    shards::options(settings, &hosts, &mut options, report);
    let is_loaded = |name: &str| modules.enabled.iter().any(|module| module.name == name);
    proxies::check(settings, facts, &options, report);
    features::check(settings, facts, &hosts, &options, is_loaded, report);
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
