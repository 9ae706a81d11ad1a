//! The settings from the environment, typed and checked.

pub mod catalogue;
pub mod compat;
pub mod features;
pub mod input;
pub mod legacy;
pub mod reference;
pub mod types;

use std::collections::BTreeMap;
use std::ffi::OsString;

use serde::de::DeserializeOwned;

pub use self::catalogue::{
    Anything, Authentication, Entrypoint, Features, Hosts, Modules, Network, Observability, Storage, Tls,
};
use self::catalogue::{Field, Section, Setting};
use self::input::Input;
pub use self::input::{Given, Source};
use self::types::{Account, HostSection, Name, SettingType};
use crate::report::{Report, SettingError};

/// All settings. An unset one is `None`: later stages choose defaults, because some depend on other settings.
#[derive(Default)]
pub struct Settings {
    pub hosts: Hosts,
    pub modules: Modules,
    pub features: Features,
    pub authentication: Authentication,
    pub tls: Tls,
    pub network: Network,
    pub storage: Storage,
    pub observability: Observability,
    pub anything: Anything,
    pub entrypoint: Entrypoint,
    /// The storage backends of single stores: `PROSODY_STORAGE_ARCHIVE=sql`.
    pub stores: BTreeMap<String, Name>,
    pub source: Source,
}

/// The prefix of the official image's database settings.
const SQL_FAMILY: &str = "PROSODY_SQL_";

/// The settings that together describe a database.
pub const DATABASE_FIELDS: [Field; 6] = [
    Field::db_driver,
    Field::db_host,
    Field::db_port,
    Field::db_name,
    Field::db_username,
    Field::db_password,
];

impl Hosts {
    pub fn sections(&self) -> impl Iterator<Item = &HostSection> {
        let hosts = self.virtual_hosts.iter().flat_map(|list| &list.0).map(|host| &host.section);
        let components = self.components.iter().flat_map(|list| &list.0).map(|host| &host.section);
        let external = self.external_components.iter().flat_map(|list| &list.0).map(|host| &host.section);
        hosts.chain(components).chain(external)
    }
}

impl Settings {
    /// Reads the settings from an environment. The report has all errors; the settings lack invalid values.
    pub fn read(environment: impl IntoIterator<Item = (OsString, OsString)>) -> (Self, Report) {
        let mut report = Report::default();
        let Input { mut source, legacy, variables } = input::read(environment, &mut report);
        legacy::take(&legacy, &variables, &mut source, &mut report);
        let mut settings = Self {
            hosts: read_section(&Hosts::SECTION, &source, &mut report),
            modules: read_section(&Modules::SECTION, &source, &mut report),
            features: read_section(&Features::SECTION, &source, &mut report),
            authentication: read_section(&Authentication::SECTION, &source, &mut report),
            tls: read_section(&Tls::SECTION, &source, &mut report),
            network: read_section(&Network::SECTION, &source, &mut report),
            storage: read_section(&Storage::SECTION, &source, &mut report),
            observability: read_section(&Observability::SECTION, &source, &mut report),
            anything: read_section(&Anything::SECTION, &source, &mut report),
            entrypoint: read_section(&Entrypoint::SECTION, &source, &mut report),
            stores: BTreeMap::new(),
            source: Source::default(),
        };
        // Prosody can read these secrets itself, because the configuration contains them unchanged.
        for (field, secret) in [
            (Field::component_secret, &mut settings.hosts.component_secret),
            (Field::ldap_password, &mut settings.authentication.ldap_password),
            (Field::turn_secret, &mut settings.network.turn_secret),
            (Field::db_password, &mut settings.storage.db_password),
        ] {
            secret.iter_mut().for_each(|secret| secret.set_setting(field.name()));
        }
        for (store, given) in &source.stores {
            match Name::parse(&given.value) {
                Ok(backend) => drop(settings.stores.insert(store.clone(), backend)),
                Err(why) => report.error(SettingError::new(&given.variable, &why).with_value(&given.value)),
            }
        }
        settings.source = source;
        settings.check(&mut report);
        settings.find_quotation_marks(&mut report);
        (settings, report)
    }

    #[cfg(test)]
    pub fn example(environment: &[(&str, &str)]) -> (Self, Report) {
        Self::read(environment.iter().map(|(name, value)| (name.into(), value.into())))
    }

    /// The variable that sets a field, or the setting's own name if it is not set.
    pub fn variable(&self, field: Field) -> String {
        self.source.given.get(&field).map_or_else(|| field.variable(), |given| given.variable.clone())
    }

    /// Whether a variable sets a value that must not be shown.
    pub fn is_secret(&self, variable: &str) -> bool {
        self.source.given.iter().any(|(field, given)| {
            let setting = catalogue::setting(*field);
            given.variable == variable && setting.is_none_or(|setting| !setting.shows(&given.value))
        })
    }

    /// Whether a field is set, even to an invalid value.
    pub fn is_given(&self, field: Field) -> bool {
        self.source.given.contains_key(&field)
    }

    /// The accounts to create if they do not exist.
    pub fn accounts(&self) -> impl Iterator<Item = &Account> {
        let listed = self.hosts.accounts.iter().flat_map(|accounts| &accounts.0);
        let is_listed = |account: &Account| listed.clone().any(|other| other.jid == account.jid);
        let account = self.source.legacy.account.as_ref().filter(|account| !is_listed(account));
        listed.chain(account)
    }

    /// Whether the official image's `PROSODY_SQL_*`, which have other defaults, set up the database.
    pub fn has_sql_family(&self) -> bool {
        self.source.variables.iter().any(|variable| variable.starts_with(SQL_FAMILY))
    }

    /// Whether the domain comes from the legacy variable `DOMAIN`, which counts only without other hosts.
    pub fn has_other_images_domain(&self) -> bool {
        self.source.given.get(&Field::domain).is_some_and(|given| given.variable == "DOMAIN")
    }

    /// Reports values in quotation marks, which nearly always come from a file for `--env-file`.
    fn find_quotation_marks(&self, report: &mut Report) {
        let is_in = |value: &str, mark| value.len() > 1 && value.starts_with(mark) && value.ends_with(mark);
        let is_quoted = |value: &str| ['"', '\''].iter().any(|mark| is_in(value, *mark));
        let given = self.source.given.values().chain(self.source.stores.values());
        for given in given.filter(|given| given.file.is_none() && is_quoted(&given.value)) {
            if report.has_error(&given.variable) {
                report.reason(advice!(
                    "Some values are in quotation marks. Docker's --env-file takes them as a part of the value: leave \
                     them out."
                ));
            } else {
                report.setting_warning(advice!(
                    "{}: the value is in quotation marks, which are taken as a part of it: leave them out in a file for \
                     `--env-file`",
                    given.variable
                ));
            }
        }
    }

    fn check(&self, report: &mut Report) {
        let mut both = |field: Field, other: Field, why: &str| {
            if self.is_given(field) && self.is_given(other) {
                let [field, other] = [field, other].map(|field| self.variable(field));
                report.error(SettingError::new(
                    &field,
                    &advice!("{other} is set too, and {why}: keep one of them"),
                ));
            }
        };
        both(Field::archive_expires_after, Field::archive_expiry_days, "both say how long archives are kept");
        for field in DATABASE_FIELDS {
            both(Field::database_url, field, "the URL says all of it");
        }

        both(Field::shard, Field::shard_slot, "both say which shard this server is");
        let which = [Field::shard, Field::shard_slot].into_iter().find(|field| self.is_given(*field));
        match (self.is_given(Field::shards), which) {
            (true, None) => report.error(SettingError::new(
                &self.variable(Field::shards),
                &advice!("say which of them this server is: set PROSODY_SHARD, from 0, or PROSODY_SHARD_SLOT, from 1"),
            )),
            (false, Some(which)) => report.error(SettingError::new(
                &self.variable(which),
                &advice!("say how many shards there are: set PROSODY_SHARDS"),
            )),
            _ => {}
        }

        let is_ours = |variable: &&String| {
            variable.starts_with("PROSODY_DB_") && !variable.starts_with("PROSODY_DB_WAIT")
        };
        if let Some(ours) = self.source.variables.iter().find(is_ours).filter(|_| self.has_sql_family()) {
            report.error(SettingError::new(
                ours,
                &advice!(
                    "PROSODY_SQL_* is set too, which has other defaults: name the database with one of the two \
                     families"
                ),
            ));
        }
        let storage = self.source.given.get(&Field::default_storage);
        if let Some(storage) = storage.filter(|given| given.variable.starts_with("PROSODY_DEFAULT_STORAGE")) {
            let has_driver = self.is_given(Field::db_driver) && self.has_sql_family();
            if has_driver && storage.value != "sql" {
                report.error(SettingError::new(
                    &storage.variable,
                    &advice!(
                        "PROSODY_SQL_DRIVER makes `sql` the default: leave one of them out, or use PROSODY_DB_DRIVER"
                    ),
                ));
            }
        }
        if let Some(account) = &self.source.legacy.account {
            let listed = self.hosts.accounts.iter().flat_map(|accounts| &accounts.0);
            let is_other = |other: &Account| other.password.0.expose() != account.password.0.expose();
            if listed.filter(|other| other.jid == account.jid).any(is_other) {
                let why = advice!(
                    "{} has {} with another password: keep one of them",
                    self.variable(Field::accounts),
                    account.jid
                );
                report.error(SettingError::new(&self.variable(Field::account), &why));
            }
        }

        for (field, path) in [
            (Field::config_dir, &self.entrypoint.config_dir),
            (Field::runtime_dir, &self.entrypoint.runtime_dir),
        ] {
            if path.as_ref().is_some_and(|path| path.as_str().contains(['*', '?'])) {
                report.error(SettingError::new(
                    &self.variable(field),
                    "`*` and `?` cannot stand in it: Prosody takes a path with them for a pattern",
                ));
            }
        }

        // Conflicts between PROSODY_OPTIONS and other settings for the same option.
        if let Some(options) = &self.anything.options {
            // A disabled setting does not set its options.
            let is_off = |field: Field| match field {
                Field::use_dane => self.tls.use_dane.is_some_and(|on| !on.0),
                Field::openmetrics => self.observability.openmetrics.is_some_and(|on| !on.0),
                _ => false,
            };
            let given = catalogue::settings()
                .filter(|setting| self.is_given(setting.field) && !is_off(setting.field));
            for setting in given {
                for option in setting.options.iter().filter(|option| options.get(option).is_some()) {
                    report.error(SettingError::new(
                        &self.variable(Field::options),
                        &advice!(
                            "`{option}` is decided by {} already: set it once",
                            self.variable(setting.field)
                        ),
                    ));
                }
            }
            for (field, name) in [(Field::tls_groups, "curveslist"), (Field::ca_certificates, "cafile")] {
                if self.is_given(field) && options.decides_field("ssl", name) {
                    report.error(SettingError::new(
                        &self.variable(Field::options),
                        &advice!(
                            "`{name}` in `ssl` is decided by {} already: set it once",
                            self.variable(field)
                        ),
                    ));
                }
            }
            for store in self.source.stores.values() {
                if options.get("storage").is_some() {
                    report.error(SettingError::new(
                        &self.variable(Field::options),
                        &advice!("`storage` is decided by {} already: set it once", store.variable),
                    ));
                }
            }
        }
    }
}

/// Parses a section. Each type's code is large, so it is there once.
#[inline(never)]
fn parse<T: DeserializeOwned>(pairs: Vec<(String, String)>) -> Result<T, envy::Error> {
    envy::from_iter(pairs)
}

/// Reads the settings of one section: all at once, or after an error one by one, to report every error.
fn read_section<T: DeserializeOwned + Default>(section: &Section, source: &Source, report: &mut Report) -> T {
    let given = || {
        let settings = section.settings.iter();
        settings.filter_map(|setting| Some((setting, source.given.get(&setting.field)?)))
    };
    let pair = |setting: &Setting, given: &Given| (setting.field.name().to_owned(), given.value.clone());
    if let Ok(section) = parse(given().map(|(setting, given)| pair(setting, given)).collect()) {
        return section;
    }
    let mut valid = Vec::new();
    for (setting, given) in given() {
        let why = match parse::<T>(vec![pair(setting, given)]) {
            Ok(_) => {
                valid.push(pair(setting, given));
                continue;
            }
            Err(envy::Error::Custom(why)) => why,
            Err(error) => error.to_string(),
        };
        let mistake = SettingError::new(&given.variable, &why);
        report.error(if setting.shows(&given.value) { mistake.with_value(&given.value) } else { mistake });
    }
    parse(valid).unwrap_or_default()
}
