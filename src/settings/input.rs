//! Reads one text for each setting from the environment. Handles aliases, `_FILE` variables, empty values, and
//! variables that are not settings.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{env, iter};

use super::catalogue::{self, Field, PREFIX, STORE_PREFIX, Setting};
use super::compat;
use super::types::{Account, Domain, SettingType};
use crate::lua::Value;
use crate::os::trusted_file::{self, Error, Kind, LARGEST};
use crate::report::{Report, SettingError};
use crate::text::{nearest, reason};

/// Variables of Prosody or of images, which are not misspelt settings.
pub const NOT_OURS: &[&str] = &["PROSODY_CONFIG", "PROSODY_VERSION", "PROSODY_SHA1"];

/// Values of legacy variables that have no equivalent setting.
#[derive(Default)]
pub struct Legacy {
    /// The account of `LOCAL`, `DOMAIN` and `PASSWORD`.
    pub account: Option<Account>,
    /// Whether `conf.d/extra.cfg.lua` is included, if a variable decides that.
    pub extra_cfg: Option<bool>,
    /// Components whose hosts are not named after the domain: the module and the host.
    pub components: Vec<(&'static str, Domain)>,
    pub e2e_policy: Vec<(&'static str, Value)>,
    /// The variables for these values, except for the account, by name.
    pub given: Vec<(&'static str, Given)>,
}

/// The text of one setting, and its source.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    /// The environment variable: the setting's own name, an alias, or one of them with `_FILE`.
    pub variable: String,
    pub file: Option<PathBuf>,
    /// The value, which is never empty.
    pub value: String,
}

/// The texts of settings and stores in the environment.
#[derive(Default)]
pub struct Source {
    /// Texts by field, such as `c2s_ports`.
    pub given: BTreeMap<Field, Given>,
    /// Texts by store, such as `archive`.
    pub stores: BTreeMap<String, Given>,
    /// `PROSODY_*` variables without a meaning here. Custom files may still read them.
    pub unknown: Vec<String>,
    /// All `PROSODY_*` variables that are settings. They are not passed to Prosody.
    pub variables: Vec<String>,
    /// The files of all `_FILE` variables, even if they cannot be read.
    pub files: Vec<PathBuf>,
    /// Values of legacy variables that have no equivalent setting.
    pub legacy: Legacy,
}

/// The texts of settings, and the variables that [`super::legacy`] has yet to interpret.
pub struct Input {
    pub source: Source,
    /// `PROSODY_*` legacy variables that are not just aliases of settings, by name.
    pub legacy: BTreeMap<&'static str, Given>,
    /// All variables that may count, by name.
    pub variables: BTreeMap<String, String>,
}

/// The meaning of a variable's name.
enum Meaning {
    Setting(&'static Setting),
    Store(String),
    /// A legacy variable that is not just an alias.
    Legacy(&'static str),
}

/// Reads the texts of settings from an environment. Adds errors to the report, and returns the valid texts in any case,
/// so that later stages can report their errors too.
pub fn read(environment: impl IntoIterator<Item = (OsString, OsString)>, report: &mut Report) -> Input {
    let mut source = Source::default();
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in environment {
        let is_known = |name: &&str| name.starts_with(PREFIX) || compat::may_count(name);
        let Some(name) = name.to_str().filter(is_known) else { continue };
        match value.into_string() {
            // Like getenv(3), use the first of two.
            Ok(value) if !value.is_empty() => {
                variables.entry(name.to_owned()).or_insert(value);
            }
            Ok(_) => {}
            Err(_) if !name.starts_with(PREFIX) => {}
            Err(_) => report.error(SettingError::new(name, "the value is not UTF-8")),
        }
    }

    let mut legacy = BTreeMap::new();
    for (name, value) in variables.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
        if NOT_OURS.contains(&name.as_str()) || is_injected(name, value, &variables) {
            continue;
        }
        let (meaning, is_file) = match (meaning(name), name.strip_suffix("_FILE").and_then(self::meaning)) {
            // `PROSODY_STORAGE_FILE` looks like a store, but is the alias `PROSODY_STORAGE` with `_FILE`.
            (Some(Meaning::Store(_)) | None, Some(twin)) => (twin, true),
            (Some(own), _) => (own, false),
            (None, None) => {
                source.unknown.push(name.clone());
                continue;
            }
        };
        source.variables.push(name.clone());
        let given = if is_file {
            source.files.push(value.into());
            let (is_shown, is_secret) = match &meaning {
                Meaning::Setting(setting) => (setting.shows(value), setting.is_plain_secret()),
                Meaning::Store(_) | Meaning::Legacy(_) => (false, false),
            };
            match from_file(name, value, is_shown, is_secret, report) {
                Some(given) => given,
                None => continue,
            }
        } else {
            Given { variable: name.clone(), file: None, value: value.clone() }
        };
        match meaning {
            Meaning::Store(store) => keep(source.stores.entry(store), given, None, report),
            Meaning::Legacy(name) => keep(legacy.entry(name), given, None, report),
            Meaning::Setting(setting) => {
                if let Some(alias) = alias_of(&given.variable, setting) {
                    report.debug(format!(
                        "{alias} is another name for {}: both work",
                        setting.field.variable()
                    ));
                }
                compat::note(&given.variable, report);
                keep(source.given.entry(setting.field), given, Some(setting), report);
            }
        }
    }
    Input { source, legacy, variables }
}

/// The value of a setting in this process's environment, or `None` if it is not set or in any way wrong.
pub fn peek<T: SettingType>(field: Field) -> Option<T> {
    let setting = catalogue::setting(field)?;
    let names = iter::once(field.variable()).chain(setting.aliases.iter().map(|alias| (*alias).to_owned()));
    let value = names.flat_map(|name| [(false, name.clone()), (true, format!("{name}_FILE"))]).find_map(
        |(is_file, name)| {
            let value = env::var(name).ok().filter(|value| !value.is_empty())?;
            if is_file { read_file(Path::new(&value)).ok().map(|(text, _)| text) } else { Some(value) }
        },
    );
    T::parse(&value?).ok()
}

/// Reads a value from a file. `None` if the file is empty, or after an error, which is reported. The error shows the
/// path if it is absolute or `is_shown` is set.
pub(super) fn from_file(
    name: &str,
    path: &str,
    is_shown: bool,
    is_secret: bool,
    report: &mut Report,
) -> Option<Given> {
    match read_file(Path::new(path)) {
        Ok((text, _)) if text.is_empty() => {
            report.setting_warning(format!("{name}: {path} is empty, which is the same as not setting it"));
            None
        }
        Ok((text, removed)) => {
            if let Some(what) = removed {
                report
                    .warning(format!("{name}: {path} has {what}, which is not taken as a part of the value"));
            }
            if is_secret && text.contains(['\r', '\n']) {
                report.warning(format!("{name}: {path} has several lines, all of which are the secret"));
            }
            Some(Given { variable: name.to_owned(), file: Some(path.into()), value: text })
        }
        Err(why) => {
            let mistake = SettingError::new(name, &why);
            // A text that is not an absolute path may be the secret itself, in the wrong variable.
            let is_shown = is_shown || path.starts_with('/');
            report.error(if is_shown { mistake.with_value(path) } else { mistake });
            None
        }
    }
}

/// Stores a value. A second value for the same setting is an error, unless an alias has the same value.
pub(super) fn keep<K: Ord>(
    entry: std::collections::btree_map::Entry<'_, K, Given>,
    given: Given,
    setting: Option<&Setting>,
    report: &mut Report,
) {
    use std::collections::btree_map::Entry;
    match entry {
        Entry::Vacant(entry) => drop(entry.insert(given)),
        Entry::Occupied(entry) => {
            let first = entry.get();
            let twins =
                [&first.variable, &given.variable].map(|name| name.strip_suffix("_FILE").unwrap_or(name));
            if twins[0] == twins[1] {
                report.error(SettingError::new(
                    &first.variable,
                    &advice!("{} and {} are both set: keep one of them", first.variable, given.variable),
                ));
            } else if first.value != given.value {
                let own = setting.map_or_else(String::new, |setting| setting.field.variable());
                report.error(SettingError::new(
                    &given.variable,
                    &advice!(
                        "{} and {} are the same setting with different values: keep {own}",
                        given.variable,
                        first.variable
                    ),
                ));
            }
        }
    }
}

/// The alias in a variable's name, with or without `_FILE`.
fn alias_of(variable: &str, setting: &Setting) -> Option<&'static str> {
    let name = variable.strip_suffix("_FILE").unwrap_or(variable);
    setting.aliases.iter().copied().find(|alias| *alias == variable || *alias == name)
}

/// The meaning of a name without `_FILE`.
fn meaning(name: &str) -> Option<Meaning> {
    let own = name.strip_prefix(PREFIX)?;
    let is_field = |field: &str| {
        field.len() == own.len() && field.bytes().zip(own.bytes()).all(|(f, o)| f.to_ascii_uppercase() == o)
    };
    if let Some(setting) = catalogue::settings()
        .find(|setting| is_field(setting.field.name()) || setting.aliases.contains(&name))
    {
        return Some(Meaning::Setting(setting));
    }
    match compat::find(name) {
        Some((_, compat::Meaning::Setting(field))) => {
            return catalogue::setting(*field).map(Meaning::Setting);
        }
        Some((name, compat::Meaning::Special(..))) => return Some(Meaning::Legacy(name)),
        Some((_, compat::Meaning::Unsupported(_))) => return None,
        None => {}
    }
    name.strip_prefix(STORE_PREFIX)
        .filter(|store| {
            !store.is_empty()
                && store
                    .bytes()
                    .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
        })
        .map(|store| Meaning::Store(store.to_ascii_lowercase()))
}

/// The known name that is nearest to an unknown one.
pub fn suggestion(unknown: &str) -> Option<String> {
    let (stem, twin) = unknown.strip_suffix("_FILE").map_or((unknown, ""), |stem| (stem, "_FILE"));
    let names: Vec<String> = catalogue::settings()
        .flat_map(|setting| {
            std::iter::once(setting.field.variable())
                .chain(setting.aliases.iter().map(|alias| (*alias).to_owned()))
        })
        .chain(compat::VARIABLES.iter().map(|(name, _)| (*name).to_owned()))
        .filter(|name| name.starts_with(PREFIX))
        .collect();
    // Compare without the prefix, which would make short names similar.
    let candidates = names.iter().filter_map(|name| name.strip_prefix(PREFIX));
    nearest(stem.strip_prefix(PREFIX)?, candidates).map(|found| format!("{PREFIX}{found}{twin}"))
}

/// Whether Kubernetes (for a Service named `prosody…`) or a Docker link injected a variable, judging by its form.
///
/// <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>
pub(super) fn is_injected(name: &str, value: &str, all: &BTreeMap<String, String>) -> bool {
    let is_url = |value: &str| ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    if name.ends_with("_PORT") && is_url(value) {
        return true;
    }
    if name.ends_with("_SERVICE_HOST") || name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_") {
        return true;
    }
    // PROSODY_PORT_5222_TCP, optionally with _ADDR, _PORT or _PROTO.
    if let Some((_, rest)) = name.split_once("_PORT_") {
        let mut words = rest.split('_');
        let is_port =
            words.next().is_some_and(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit()));
        let is_protocol = words.next().is_some_and(|word| matches!(word, "TCP" | "UDP" | "SCTP"));
        let is_part =
            words.next().is_none_or(|word| matches!(word, "ADDR" | "PORT" | "PROTO" | "START" | "END"));
        if is_port && is_protocol && is_part {
            return true;
        }
    }
    // A Docker link's PROSODY_NAME=/client/prosody and PROSODY_ENV_*, which come with its PROSODY_PORT.
    let linked = |stem: &str| all.get(&format!("{stem}_PORT")).is_some_and(|value| is_url(value));
    if let Some(stem) = name.strip_suffix("_NAME") {
        if value.starts_with('/') && value.matches('/').count() == 2 && linked(stem) {
            return true;
        }
    }
    name.match_indices("_ENV_").any(|(at, _)| name.get(..at).is_some_and(linked))
}

/// The value in a file: its content without one final line end and without a byte order mark. The second result
/// describes removed characters that may be part of the value.
/// Fails if it is not a regular UTF-8 file of at most 16 MiB.
fn read_file(path: &Path) -> Result<(String, Option<&'static str>), String> {
    let bytes = read_bytes(path)?;
    let text = String::from_utf8(bytes).map_err(|_| "the file's content is not UTF-8".to_owned())?;
    let unmarked = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let line = unmarked.strip_suffix('\n').unwrap_or(unmarked);
    let value = line.strip_suffix('\r').filter(|_| line.len() < unmarked.len()).unwrap_or(line);
    let removed = match (unmarked.len() < text.len(), value.len() < line.len()) {
        (true, true) => Some("a byte order mark at its beginning and a carriage return at its end"),
        (true, false) => Some("a byte order mark at its beginning"),
        (false, true) => Some("a carriage return at its end"),
        (false, false) => None,
    };
    Ok((value.to_owned(), removed))
}

/// Reads a regular file of at most 16 MiB.
/// Errors: a clause with the reason.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>, String> {
    trusted_file::read(path, LARGEST).map_err(|error| {
        let what = match error {
            Error::Irregular(Kind::Directory) => "a directory",
            Error::Irregular(Kind::Fifo) => "a FIFO",
            Error::Irregular(Kind::Device) => "a device",
            Error::Irregular(_) => "no regular file",
            Error::TooLarge => return format!("the file is larger than {} MiB", LARGEST / 1024 / 1024),
            Error::Untrusted(owner) => {
                return format!("the file is not read: {}", trusted_file::untrusted(owner));
            }
            error => return format!("the file cannot be read: {}", reason(&error.into())),
        };
        format!("expected a file with the value in it, this is {what}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_pairs(pairs: &[(&str, &str)]) -> (Source, Report) {
        let mut report = Report::default();
        let environment = pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let source = read(environment, &mut report).source;
        (source, report)
    }

    #[test]
    fn empty_means_unset() {
        let (source, report) = read_pairs(&[("PROSODY_DOMAIN", ""), ("PROSODY_DOMIAN", "")]);
        assert!(source.given.is_empty() && source.unknown.is_empty() && report.errors().is_empty());
    }

    #[test]
    fn injected_variables_are_not_settings() {
        let (source, report) = read_pairs(&[
            ("PROSODY_SERVICE_HOST", "10.0.0.1"),
            ("PROSODY_SERVICE_PORT", "5222"),
            ("PROSODY_SERVICE_PORT_XMPP_CLIENT", "5222"),
            ("PROSODY_PORT", "tcp://10.0.0.1:5222"),
            ("PROSODY_PORT_5222_TCP", "tcp://10.0.0.1:5222"),
            ("PROSODY_PORT_5222_TCP_ADDR", "10.0.0.1"),
            ("PROSODY_PORT_5222_TCP_PORT", "5222"),
            ("PROSODY_DB_PORT", "tcp://10.0.0.2:5432"),
            ("PROSODY_DB_SERVICE_HOST", "10.0.0.2"),
            ("PROSODY_DB_NAME", "/web/prosody-db"),
            ("PROSODY_DB_ENV_POSTGRES_PASSWORD", "x"),
            ("PROSODY_C2S_PORT_5222_TCP_PROTO", "tcp"),
        ]);
        assert_eq!(source.given.len(), 0, "{:?}", source.given);
        assert_eq!(source.unknown, Vec::<String>::new());
        assert!(report.errors().is_empty());
    }

    #[test]
    fn settings_of_the_same_shape_are_settings() {
        let (source, _) = read_pairs(&[("PROSODY_DB_PORT", "5433"), ("PROSODY_DB_NAME", "/data/chat")]);
        assert_eq!(source.given[&Field::db_port].value, "5433");
        assert_eq!(source.given[&Field::db_name].value, "/data/chat");
    }

    #[test]
    fn an_alias_must_equal_its_setting() {
        let (source, report) = read_pairs(&[("PROSODY_LOGLEVEL", "debug"), ("PROSODY_LOG_LEVEL", "debug")]);
        assert_eq!(source.given[&Field::log_level].value, "debug");
        assert!(report.errors().is_empty());
        let (_, report) = read_pairs(&[("PROSODY_LOGLEVEL", "debug"), ("PROSODY_LOG_LEVEL", "info")]);
        assert_eq!(report.errors().len(), 1);
        let text = report.errors()[0].to_string();
        assert!(text.contains("PROSODY_LOGLEVEL") && text.contains("PROSODY_LOG_LEVEL"), "{text}");
    }

    #[test]
    fn stores_are_a_pattern_and_can_be_read_from_files() {
        let (source, _) = read_pairs(&[("PROSODY_STORAGE_ARCHIVE", "sql"), ("PROSODY_STORAGE", "internal")]);
        assert_eq!(source.stores["archive"].value, "sql");
        assert_eq!(source.given[&Field::default_storage].value, "internal");
        let (source, report) = read_pairs(&[("PROSODY_STORAGE_FILE", "/nonexistent")]);
        assert!(source.stores.is_empty());
        assert_eq!(report.errors().len(), 1);
    }

    #[test]
    fn both_a_value_and_a_file_is_an_error_that_names_both() {
        let file = std::env::temp_dir().join(format!("prosody-entrypoint-source-{}", std::process::id()));
        std::fs::write(&file, "b.example\n").unwrap();
        let (_, report) =
            read_pairs(&[("PROSODY_DOMAIN", "a.example"), ("PROSODY_DOMAIN_FILE", file.to_str().unwrap())]);
        std::fs::remove_file(&file).unwrap();
        let text = report.errors()[0].to_string();
        assert!(text.contains("PROSODY_DOMAIN and PROSODY_DOMAIN_FILE"), "{text}");
    }

    #[test]
    fn a_misspelt_name_gets_the_nearest_one() {
        assert_eq!(suggestion("PROSODY_DOMIAN").as_deref(), Some("PROSODY_DOMAIN"));
        assert_eq!(suggestion("PROSODY_DB_PASWORD_FILE").as_deref(), Some("PROSODY_DB_PASSWORD_FILE"));
        assert_eq!(suggestion("PROSODY_XYZZY_PLUGH_WHAT"), None);
    }
}
