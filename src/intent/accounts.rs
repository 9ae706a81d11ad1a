//! The accounts in the settings.

use std::collections::BTreeMap;

use crate::lua::Value;
use crate::settings::catalogue::Field;

use super::hosts::{Options, ServedHosts};
use crate::facts::Facts;
use crate::report::{Report, SettingError};
use crate::settings::Settings;
use crate::settings::types::{Account, BareOrDomain};
use crate::text::several;

/// Reports errors in the accounts, and adds administrators to their hosts' options.
pub fn check(settings: &Settings, facts: &Facts, hosts: &mut ServedHosts, report: &mut Report) {
    find_single_labels(settings, facts, hosts, report);
    let mut errors: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (index, account) in settings.hosts.accounts.iter().flat_map(|accounts| &accounts.0).enumerate() {
        for why in check_account(account, facts, hosts) {
            errors.entry(why).or_default().push((index + 1).to_string());
        }
    }
    for (why, entries) in errors {
        // An entry is not shown, because it may be a part of the previous entry's password.
        let entries =
            format!("{} {}", if entries.len() == 1 { "entry" } else { "entries" }, several(&entries));
        report.error(SettingError::new(&settings.variable(Field::accounts), &format!("{entries}: {why}")));
    }
    for why in settings.source.legacy.account.iter().flat_map(|account| check_account(account, facts, hosts))
    {
        report.error(SettingError::new(
            "DOMAIN",
            &format!("with LOCAL and PASSWORD it is an account's: {why}"),
        ));
    }
}

/// Warns about names without a domain where an account belongs. Prosody takes them for domains.
fn find_single_labels(settings: &Settings, facts: &Facts, hosts: &ServedHosts, report: &mut Report) {
    let lists =
        [(Field::admins, &settings.hosts.admins), (Field::unlimited_jids, &settings.hosts.unlimited_jids)];
    let lists = lists.into_iter().filter_map(|(field, list)| Some((field, list.as_ref()?)));
    let of_hosts = settings.hosts.virtual_hosts.iter().flat_map(|list| &list.0);
    let of_hosts = of_hosts.map(|host| (Field::virtual_hosts, &host.section.admins));
    let of_components = settings.hosts.components.iter().flat_map(|list| &list.0);
    let of_components = of_components.map(|component| (Field::components, &component.section.admins));
    for (field, list) in lists.chain(of_hosts).chain(of_components) {
        for jid in list.iter() {
            let BareOrDomain::Domain(name) = jid else { continue };
            let is_host =
                hosts.names().any(|host| host == name.as_str()) || facts.custom_files.may_define(name);
            if !name.as_str().contains('.') && !is_host {
                let host = hosts.virtual_hosts.first().map_or("DOMAIN", |host| &host.name);
                report.setting_warning(advice!(
                    "{}: {name} is a domain to Prosody, and none that is served here: write {name}@{host}",
                    settings.variable(field)
                ));
            }
        }
    }
}

/// Adds an account to its host's administrators if it is one. Returns its errors.
fn check_account(account: &Account, facts: &Facts, hosts: &mut ServedHosts) -> Vec<String> {
    let mut errors = Vec::new();
    let domain = account.jid.domain();
    let host = hosts.virtual_hosts.iter_mut().find(|host| host.name == domain.as_str());
    match host {
        Some(host) if account.is_admin => add(&mut host.options, "admins", account.jid.to_string()),
        Some(_) => {}
        None if !facts.custom_files.may_define(domain) => {
            errors.push(advice!("no virtual host has that domain: name it in PROSODY_VIRTUAL_HOSTS").into());
        }
        None if account.is_admin => {
            let why = advice!(
                "its host is in a custom file: name it in PROSODY_ADMINS instead of `\"admin\": true`"
            );
            errors.push(why.into());
        }
        None => {}
    }
    if account.role.is_some() && !facts.prosody.is_13() {
        let why = advice!(
            "Prosody {} has no roles: write `\"admin\": true`, or leave `role` out",
            facts.prosody.version
        )
        .into();
        errors.push(why);
    }
    errors
}

/// The accounts for the script that creates them: lines of JID, role and password, separated by tabs. No field contains
/// tabs or line breaks. `None` without accounts. Privileged accounts come first, so that nobody else takes their names.
pub fn text(settings: &Settings) -> Option<String> {
    let line = |account: &Account| {
        let role = account.role.as_ref().map_or("", |role| role.as_str());
        format!("{}\t{role}\t{}\n", account.jid, account.password.0.expose())
    };
    let is_privileged = |account: &&Account| account.is_admin || account.role.is_some();
    let others = settings.accounts().filter(|account| !is_privileged(account));
    let text: String = settings.accounts().filter(is_privileged).chain(others).map(line).collect();
    Some(text).filter(|text| !text.is_empty())
}

/// Adds an item to an option, which becomes a list if it is none.
pub fn add(options: &mut Options, option: &str, item: String) {
    let list = options.get(option).map(Value::items).unwrap_or_default();
    let items: Value = list.iter().cloned().chain([Value::from(item)]).collect();
    options.insert(option.to_owned(), items);
}
