//! The accounts that settings name.

use std::collections::BTreeMap;

use crate::lua::Value;
use crate::settings::catalogue::Field;

use super::hosts::{Options, ServedHosts};
use crate::facts::Facts;
use crate::report::{Report, SettingError};
use crate::settings::Settings;
use crate::settings::types::Account;
use crate::text::several;

/// Finds what is wrong with the accounts, and makes administrators of those that are to be.
pub fn check(settings: &Settings, facts: &Facts, hosts: &mut ServedHosts, report: &mut Report) {
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
        report.error(SettingError::new(&settings.variable(Field::accounts), &format!("{entries}: {why}")));
    }
    for why in settings.account.iter().flat_map(|account| take(account, facts, hosts)) {
        report.error(SettingError::new(
            "DOMAIN",
            &format!("with LOCAL and PASSWORD it is an account's: {why}"),
        ));
    }
}

/// Makes an account's host know it as its administrator, if it is to be one. Returns what is wrong with it.
fn take(account: &Account, facts: &Facts, hosts: &mut ServedHosts) -> Vec<String> {
    let mut wrong = Vec::new();
    let domain = account.jid.domain();
    let host = hosts.virtual_hosts.iter_mut().find(|host| host.name == domain.as_str());
    match host {
        Some(host) if account.is_admin => add(&mut host.options, "admins", account.jid.to_string()),
        Some(_) => {}
        None if !facts.custom_files.may_define(domain) => {
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

/// The accounts as they are handed over: a line for each, with tabs in it. Nothing in it has a tab or an end of a line.
/// Nothing where there are none. Those with rights are the first, so that nobody else takes their names meanwhile.
pub fn text(settings: &Settings) -> Option<String> {
    let line = |account: &Account| {
        let role = account.role.as_ref().map_or("", |role| role.as_str());
        format!("{}\t{role}\t{}\n", account.jid, account.password.0.expose())
    };
    let has_rights = |account: &&Account| account.is_admin || account.role.is_some();
    let others = settings.accounts().filter(|account| !has_rights(account));
    let text: String = settings.accounts().filter(has_rights).chain(others).map(line).collect();
    Some(text).filter(|text| !text.is_empty())
}

/// Adds to an option that is a list, or becomes one.
pub fn add(options: &mut Options, option: &str, item: String) {
    let list = options.get(option).map(Value::items).unwrap_or_default();
    let items: Value = list.iter().cloned().chain([Value::from(item)]).collect();
    options.insert(option.to_owned(), items);
}
