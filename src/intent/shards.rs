//! The options of one shard: which of the servers that share the virtual hosts this one is.

use super::hosts::{Options, PIN, ServedHosts};
use crate::digest;
use crate::lua::Value;
use crate::report::{Report, SettingError};
use crate::settings::Settings;
use crate::settings::catalogue::{self, Field};

/// The option of the global section: a table with the members below. Prosody does not know it.
pub const SHARDS: &str = "entrypoint_shards";

/// Settings that may differ between shards.
const OF_ONE_SHARD: [Field; 9] = [
    Field::shards,
    Field::shard,
    Field::shard_slot,
    Field::config_dir,
    Field::templates_dir,
    Field::runtime_dir,
    Field::data_dir,
    Field::log_level,
    Field::entrypoint_log,
];

/// Adds the option to a shard's configuration. Its members are the shard's `number`, the first `count` of all shards, and
/// `settings` with a digest of each setting that is no secret: the shards compare them.
pub fn options(settings: &Settings, hosts: &ServedHosts, options: &mut Options, report: &mut Report) {
    let given = &settings.entrypoint;
    let number = given.shard.map(|shard| shard.0).or(given.shard_slot.map(|slot| slot.0 - 1));
    let (Some(count), Some(number)) = (given.shards, number) else {
        let is_pinned = hosts.virtual_hosts.iter().any(|host| host.options.contains_key(PIN));
        if is_pinned && !settings.is_given(Field::shards) {
            report.setting_warning(advice!(
                "{}: `shard` has no effect on a server without shards: set PROSODY_SHARDS, or remove it",
                settings.variable(Field::virtual_hosts)
            ));
        }
        return;
    };
    let has_postgresql = options.get("default_storage").and_then(Value::as_str) == Some("sql")
        && options.get("sql").and_then(|sql| sql.get("driver")).and_then(Value::as_str) == Some("PostgreSQL");
    if !has_postgresql {
        report.error(SettingError::new(
            &settings.variable(Field::shards),
            &advice!("shards share a PostgreSQL: set PROSODY_DATABASE_URL, or PROSODY_DEFAULT_STORAGE=sql and PROSODY_DB_…"),
        ));
    }
    let shown = catalogue::settings().filter(|setting| !OF_ONE_SHARD.contains(&setting.field));
    let digests = shown.filter_map(|setting| {
        let given = settings.source.given.get(&setting.field)?;
        let digest = digest::of(given.value.as_bytes()) >> 32;
        setting.shows(&given.value).then(|| (setting.field.variable(), Value::from(format!("{digest:08x}"))))
    });
    let settings = Value::table(digests);
    let number_of = |number: u32| Value::Integer(number.into());
    let members = [("number", number_of(number)), ("count", number_of(count.0)), ("settings", settings)];
    options.insert(SHARDS.into(), Value::table(members));
}

/// The number of the shard that a server with these options is.
pub fn number(options: &Options) -> Option<i64> {
    match options.get(SHARDS)?.get("number")? {
        Value::Integer(number) => Some(*number),
        _ => None,
    }
}
