//! The accounts that settings name: what is wrong with them, and the module that makes them.

use std::collections::BTreeMap;

use minijinja::Value;

use super::File;
use super::hosts::{Hosts, Options};
use crate::accounts;
use crate::facts::Facts;
use crate::layout;
use crate::layout::ACCOUNTS_MODULE as MODULE;
use crate::lua::{self, Dialect, Secrets};
use crate::report::{Mistake, Report};
use crate::settings::Settings;
use crate::settings::types::Account;
use crate::text::several;

/// Finds what is wrong with the accounts, and makes administrators of those that are to be.
pub fn check(settings: &Settings, facts: &Facts, hosts: &mut Hosts, report: &mut Report) {
    let mut wrong: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (index, account) in settings.hosts.accounts.iter().flat_map(|accounts| &accounts.0).enumerate() {
        for why in take(account, facts, hosts) {
            wrong.entry(why).or_default().push((index + 1).to_string());
        }
    }
    for (why, entries) in wrong {
        // What was read as an account may be a piece of the password before it, so none of it is shown.
        let entries =
            format!("{} {}", if entries.len() == 1 { "entry" } else { "entries" }, several(&entries));
        report.mistake(Mistake::new(&settings.variable("accounts"), &format!("{entries}: {why}")));
    }
    for why in settings.account.iter().flat_map(|account| take(account, facts, hosts)) {
        report.mistake(Mistake::new("DOMAIN", &format!("with LOCAL and PASSWORD it is an account's: {why}")));
    }
}

/// Makes an account's host know it as its administrator, if it is to be one. Returns what is wrong with it.
fn take(account: &Account, facts: &Facts, hosts: &mut Hosts) -> Vec<String> {
    let mut wrong = Vec::new();
    let domain = account.jid.domain();
    let host = hosts.virtual_hosts.iter_mut().find(|host| host.name == domain.as_str());
    match host {
        Some(host) if account.is_admin => add(&mut host.options, "admins", account.jid.to_string()),
        Some(_) => {}
        None if !facts.user_files.may_define(domain) => {
            wrong.push("no virtual host has that domain: name it in PROSODY_VIRTUAL_HOSTS".to_owned());
        }
        None if account.is_admin => {
            let why =
                "its host is in a file of yours: name it in PROSODY_ADMINS instead of `\"admin\": true`";
            wrong.push(why.to_owned());
        }
        None => {}
    }
    if account.role.is_some() && !facts.prosody.is_13() {
        let why = format!(
            "Prosody {} has no roles: write `\"admin\": true`, or leave `role` out",
            facts.prosody.version
        );
        wrong.push(why);
    }
    wrong
}

/// Has the module loaded, if there is an account to make: by all hosts and by the first one, so that a file of the user's
/// that says something else of the one, or a host that is switched off, does not keep it away.
pub fn load(settings: &Settings, facts: &Facts, hosts: &mut Hosts, options: &mut Options) -> Option<File> {
    settings.accounts().next()?;
    let first = hosts.virtual_hosts.first_mut().map(|host| &mut host.options);
    for options in first.into_iter().chain([options]) {
        add(options, "modules_enabled", MODULE.to_owned());
    }
    let path = Value::from(layout::accounts_file(&facts.runtime_dir).to_string_lossy().into_owned());
    let mut literal = String::new();
    let dialect = Dialect { version: facts.prosody.dialect(), secrets: Secrets::Written };
    lua::write(&mut literal, &path, dialect).ok()?;
    Some(File::new(layout::accounts_module(), accounts::module(&literal)))
}

/// Adds to an option that is a list, or becomes one.
fn add(options: &mut Options, option: &str, item: String) {
    let list = options.get(option).and_then(|list| list.try_iter().ok());
    let items: Value = list.into_iter().flatten().chain([Value::from(item)]).collect();
    options.insert(option.to_owned(), items);
}
