//! The options for storage: the backends, the `sql` table, and the expiry of archives.

use super::hosts::{Options, names};
use crate::layout::SQLITE_FILE;
use crate::lua::{Secret, Value};
use crate::settings::catalogue::Field;
use crate::settings::types::{DbDriver, Lua, Name};
use crate::text::nearest;

use crate::report::{Report, SettingError};
use crate::settings::{DATABASE_FIELDS, Settings};

/// The stores of Prosody 13.0 and 0.12, and of the modules in Debian's collection. They are opened with `open_store` or
/// the older `datamanager`, or are names under which modules look up a driver for many stores.
const STORES: [&str; 48] = [
    "account_activity", "account_details", "account_flags", "account_roles", "accounts", "accounts_cleanup",
    "archive", "archive_cleanup", "archive_prefs", "auth_tokens", "blocklist", "client_certs",
    "cloud_notify", "config", "cron", "fast_tokens", "firewall_marks", "hashes", "invite_api_keys",
    "invite_token", "invites_tracking", "lastlog", "lastlog2", "mod_carbons_copies", "muc_activity",
    "muc_log", "muc_log_cleanup", "offline", "password_reset", "pep", "pep_data", "persistent", "privacy",
    "private", "pubsub_data", "pubsub_nodes", "roles", "roster", "skeletons", "smacks_h", "state",
    "tombstones", "unified_push", "upload_stats", "uploads", "user_index", "vcard", "vcard_muc",
];

pub fn options(settings: &Settings, options: &mut Options, report: &mut Report) {
    find_unknown_stores(settings, report);
    backends(settings, options, report);
    expiry(settings, options);
}

/// Warns about unknown stores, except those with the name of a module in the settings: a custom module's store has the
/// module's name by default.
fn find_unknown_stores(settings: &Settings, report: &mut Report) {
    let (modules, hosts) = (&settings.modules, &settings.hosts);
    let mut of_modules = names(&modules.modules_enabled);
    of_modules.extend(names(&modules.modules_available));
    of_modules.extend(names(&hosts.muc_modules));
    let of_hosts = hosts.sections().flat_map(|section| section.modules_enabled.iter());
    of_modules.extend(of_hosts.map(Name::as_str));
    for store in settings.stores.keys().map(String::as_str) {
        if STORES.contains(&store) || of_modules.contains(&store) {
            continue;
        }
        let hint = match nearest(store, STORES.into_iter()) {
            Some(found) => format!("; did you mean `{found}`?"),
            None => String::new(),
        };
        report.setting_warning(format!(
            "{}: neither Prosody nor a module of its collection has a store `{store}`{hint}",
            settings.source.stores[store].variable
        ));
    }
}

fn backends(settings: &Settings, options: &mut Options, report: &mut Report) {
    let default = default_storage(settings);
    let by_url = settings.storage.database_url.is_some().then_some("sql");
    let stores: Vec<(&str, &str)> =
        settings.stores.iter().map(|(store, backend)| (store.as_str(), backend.as_str())).collect();
    let sqlite = stores.iter().map(|(_, backend)| *backend).chain(default).any(|backend| backend == "sqlite");
    let backend = |name: &str| Value::from(if name == "sqlite" { "sql" } else { name });

    if let Some(default) = default.or(by_url) {
        options.insert("default_storage".into(), backend(default));
    }
    if !stores.is_empty() {
        let stores = stores.iter().map(|(store, name)| (*store, backend(name)));
        options.insert("storage".into(), Value::table(stores));
    }

    let family = Family::of(settings);
    if sqlite {
        let others =
            DATABASE_FIELDS.iter().chain(&[Field::database_url]).filter(|field| settings.is_given(**field));
        for field in others.filter(|_| family != Family::SqlWithoutDriver) {
            report.error(SettingError::new(
                &settings.variable(*field),
                &advice!(
                    "the storage `sqlite` is the file {SQLITE_FILE}: for another database write `sql`, or leave \
                     this out"
                ),
            ));
        }
        options.insert("sql".into(), sqlite_table());
    }
    // Custom options in settings may name `sql` too.
    let named =
        stores.iter().map(|(_, backend)| *backend).chain(default).chain(by_url).any(|name| name == "sql");
    let mut custom =
        settings.hosts.sections().map(|section| &section.options).chain(&settings.anything.options);
    let in_host = custom.any(names_sql);
    let field = DATABASE_FIELDS.iter().find(|field| settings.is_given(**field));
    if !sqlite && (named || in_host) {
        options.insert("sql".into(), sql_table(settings, family, report));
    }
    let is_unused = match family {
        Family::SqlWithoutDriver => true,
        Family::Sql => false,
        Family::Db => !sqlite && !named && !in_host,
    };
    if let Some(field) = field.filter(|_| is_unused) {
        let advice = match family {
            Family::Db => {
                advice!("set PROSODY_DEFAULT_STORAGE=sql, or PROSODY_STORAGE_ARCHIVE=sql for one store")
            }
            _ => advice!("set PROSODY_SQL_DRIVER"),
        };
        report.setting_warning(format!(
            "{}: nothing is stored in that database: {advice}",
            settings.variable(*field)
        ));
    }
}

/// The family of the settings that describe the database. Their defaults differ.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    /// `PROSODY_DB_*`, or a URL.
    Db,
    /// The official image's `PROSODY_SQL_*`. The driver makes `sql` the default storage.
    Sql,
    /// The same without the driver. They have no effect.
    SqlWithoutDriver,
}

impl Family {
    fn of(settings: &Settings) -> Self {
        match (settings.has_sql_family(), settings.is_given(Field::db_driver)) {
            (false, _) => Self::Db,
            (true, true) => Self::Sql,
            (true, false) => Self::SqlWithoutDriver,
        }
    }
}

/// The options of `mod_storage_sql` for its default, SQLite.
fn sqlite_table() -> Value {
    Value::table([("driver", Value::from("SQLite3")), ("database", Value::from(SQLITE_FILE))])
}

/// The default backend. As in the official image, `PROSODY_STORAGE=sql` without a database is SQLite, and
/// `PROSODY_SQL_DRIVER` always selects `sql`.
fn default_storage(settings: &Settings) -> Option<&str> {
    let family = Family::of(settings);
    if family == Family::Sql {
        return Some("sql");
    }
    let name = settings.storage.default_storage.as_ref()?.as_str();
    let given = settings.source.given.get(&Field::default_storage);
    let is_official = given.is_some_and(|given| given.variable.starts_with("PROSODY_STORAGE"));
    let is_described = family == Family::Db && DATABASE_FIELDS.iter().any(|field| settings.is_given(*field));
    let names_database = is_described || settings.is_given(Field::database_url);
    Some(if name == "sql" && is_official && !names_database { "sqlite" } else { name })
}

/// Whether custom options select the backend `sql` without an `sql` table.
fn names_sql(options: &crate::settings::types::CustomOptions) -> bool {
    let is_sql = |value: &Value| {
        value.as_str() == Some("sql") || value.fields().iter().any(|(_, item)| item.as_str() == Some("sql"))
    };
    let stores = ["storage", "default_storage"];
    options.get("sql").is_none()
        && options.iter().any(|(name, value)| stores.contains(&name) && value.is_some_and(is_sql))
}

/// The options of `mod_storage_sql`.
fn sql_table(settings: &Settings, family: Family, report: &mut Report) -> Value {
    let storage = &settings.storage;
    let mut table: Vec<(&str, Value)> = Vec::new();
    let secret = |secret: &Secret| secret.clone().into();
    if let Some(url) = &storage.database_url {
        table.push(("driver", url.driver.lua()));
        table.extend(url.database.as_ref().map(|name| ("database", Value::from(name.as_str()))));
        table.extend(url.username.as_ref().map(|name| ("username", Value::from(name.as_str()))));
        table.extend(url.password.as_ref().map(|password| ("password", secret(password))));
        table.extend(url.host.as_ref().map(|host| ("host", Value::from(host.as_str()))));
        table.extend(url.port.map(|port| ("port", port.lua())));
        return Value::table(table);
    }
    if family == Family::SqlWithoutDriver {
        return sqlite_table();
    }
    let driver = storage.db_driver.unwrap_or(DbDriver::PostgreSql);
    let is_sqlite = driver == DbDriver::Sqlite3;
    // The official image leaves defaults to Prosody and the driver.
    let default = |text: &'static str| Some(text).filter(|_| family == Family::Db);
    let (name, host) = match driver {
        DbDriver::Sqlite3 => (default("prosody").or(Some(SQLITE_FILE)), None),
        DbDriver::MySql => (default("prosody"), default("mysql")),
        DbDriver::PostgreSql => (default("prosody"), default("postgresql")),
    };
    if name.is_none() && !settings.is_given(Field::db_name) {
        report.error(SettingError::new(
            &settings.variable(Field::db_driver),
            &advice!("Prosody needs the database's name too: set PROSODY_SQL_DB"),
        ));
    }
    let text = |setting: &Option<crate::settings::types::Text>, default: Option<&str>| {
        setting.as_ref().map(|text| text.as_str()).or(default).map(Value::from)
    };
    table.push(("driver", driver.lua()));
    table.extend(text(&storage.db_name, name).map(|name| ("database", name)));
    if !is_sqlite {
        table.extend(text(&storage.db_host, host).map(|host| ("host", host)));
        table.extend(storage.db_port.as_ref().map(|port| ("port", port.lua())));
        let username = text(&storage.db_username, default("prosody"));
        table.extend(username.map(|username| ("username", username)));
        table.extend(storage.db_password.as_ref().map(|password| ("password", secret(password))));
    }
    Value::table(table)
}

/// Adds the expiry of archives, in whole seconds: 0.12 reads `"12h"` as 12 seconds.
fn expiry(settings: &Settings, options: &mut Options) {
    let storage = &settings.storage;
    let archive = storage.archive_expires_after.as_ref().map(|duration| duration.lua());
    let days = storage.archive_expiry_days.as_ref().or(storage.retention_days.as_ref());
    let days = days.map(|days| days.0.or("never"));
    let archive = archive.or(days);
    let rooms =
        storage.muc_log_expires_after.as_ref().map(|duration| duration.lua()).or_else(|| archive.clone());
    for (name, value) in [("archive_expires_after", archive), ("muc_log_expires_after", rooms)] {
        if let Some(value) = value {
            options.insert(name.into(), value);
        }
    }
}
