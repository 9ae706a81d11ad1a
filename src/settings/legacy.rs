//! Variables of other images that are more than another name for a setting.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::catalogue::{self, Field, PREFIX};
use super::compat::Meaning::{Setting, Special};
use super::compat::{VARIABLES, note};
use super::input::{Given, Source, from_file, is_injected, keep};
use super::types::{Account, BareOrDomain, Boolean, Domain, E2ePolicy, Jid, Lua, Password, Set, SettingType};
use crate::layout::CONFIG_DIR;
use crate::report::{Report, SettingError};

/// Variables with the host of a component, and the module of that component.
const COMPONENT_HOSTS: [(&str, &str); 4] = [
    ("DOMAIN_MUC", "muc"),
    ("DOMAIN_HTTP_UPLOAD", "http_file_share"),
    ("DOMAIN_PROXY", "proxy65"),
    ("DOMAIN_PUBSUB", "pubsub"),
];

/// Applies the legacy variables to `source` and reports their errors. `prefixed` has those with the prefix `PROSODY_`,
/// by name. `variables` has all variables that may be settings or legacy variables.
pub fn take(
    prefixed: &BTreeMap<&'static str, Given>,
    variables: &BTreeMap<String, String>,
    source: &mut Source,
    report: &mut Report,
) {
    prefixed.values().for_each(|given| note(&given.variable, report));
    // In the official image, a relative path is relative to the main file.
    let config_dir = source.given.get(&Field::config_dir).map(|given| given.value.clone());
    if let Some(given) =
        source.given.get_mut(&Field::certificates).filter(|given| !given.value.starts_with('/'))
    {
        given.value = format!("{}/{}", config_dir.as_deref().unwrap_or(CONFIG_DIR), given.value);
    }
    let mut flag = |name: &str| {
        let given = prefixed.get(name)?;
        // After an error the server does not start, so any value will do.
        Some(Boolean::parse(&given.value).map(|flag| flag.0).unwrap_or_else(|why| {
            report.error(SettingError::new(&given.variable, &why).with_value(&given.value));
            false
        }))
    };
    source.legacy.extra_cfg = flag("PROSODY_EXTRA_CFG");
    source
        .legacy
        .given
        .extend(prefixed.get_key_value("PROSODY_EXTRA_CFG").map(|(name, given)| (*name, given.clone())));
    let is_enabled = flag("PROSODY_ENABLE_DEFAULT_VIRTUALHOST");
    let host = prefixed.get("PROSODY_DEFAULT_VIRTUALHOST");
    match (is_enabled, host) {
        (Some(true), host) => {
            let variable = "PROSODY_ENABLE_DEFAULT_VIRTUALHOST".to_owned();
            let default = || Given { variable, file: None, value: "localhost".to_owned() };
            let host = host.cloned().unwrap_or_else(default);
            keep(
                source.given.entry(Field::virtual_hosts),
                host,
                catalogue::setting(Field::virtual_hosts),
                report,
            );
        }
        (None, Some(host)) => report.setting_warning(advice!(
            "{}: not served without PROSODY_ENABLE_DEFAULT_VIRTUALHOST=1: use PROSODY_VIRTUAL_HOSTS",
            host.variable
        )),
        _ => {}
    }

    let value = |name: &str| variables.get(name);
    let is_missing =
        |name: &&str| value(name).is_none() && (*name != "PASSWORD" || value("PASSWORD_FILE").is_none());
    let missing: Vec<&str> = ["LOCAL", "DOMAIN", "PASSWORD"].into_iter().filter(is_missing).collect();
    let is_host_named =
        [Field::domain, Field::virtual_hosts].iter().any(|field| source.given.contains_key(field));
    // If LOCAL is missing and a setting names the host, DOMAIN and PASSWORD probably belong to another program.
    if let Some(missing) =
        missing.first().filter(|name| missing.len() == 1 && (**name != "LOCAL" || !is_host_named))
    {
        report.setting_warning(advice!(
            "{missing}: LOCAL, DOMAIN and PASSWORD make an account together, and this one is not set: set it, or use \
             PROSODY_ACCOUNTS"
        ));
    }
    let Some(domain) = value("DOMAIN") else { return };
    let given =
        |name: &str, value: &str| Given { variable: name.to_owned(), file: None, value: value.to_owned() };
    if missing.is_empty() {
        account(domain, variables, source, report);
    }
    if is_host_named {
        return;
    }
    if !missing.is_empty() && Domain::parse(domain).is_err() {
        // It probably belongs to another program, so it must not be an error in strict mode.
        report.warning(advice!("DOMAIN: this is no domain, and has no effect here: use PROSODY_DOMAIN"));
        return;
    }
    let field = if missing.is_empty() { Field::virtual_hosts } else { Field::domain };
    // As part of an account, an invalid domain has been reported already.
    if !missing.is_empty() || Domain::parse(domain).is_ok() {
        source.given.insert(field, given("DOMAIN", domain));
        let setting = field.variable();
        report.debug(format!("DOMAIN is another image's: the setting is {setting}"));
    }

    // That image takes a Lua list of strings here, in quotation marks.
    if let Some(given) = source.given.get_mut(&Field::admins).filter(|given| given.value.starts_with('"')) {
        given.value = given.value.replace('"', "");
    }
    let has_components = source.given.contains_key(&Field::components);
    for (name, meaning) in VARIABLES.iter().filter(|(name, _)| !name.starts_with(PREFIX)) {
        let Some(value) = value(name) else { continue };
        let mut wrong = |why: String| report.error(SettingError::new(name, &why).with_value(value));
        let component = COMPONENT_HOSTS.iter().find(|(variable, _)| variable == name);
        match (meaning, component) {
            // A Lua list of strings, in quotation marks.
            (Setting(field), _) => {
                let value = value.replace('"', "");
                keep(source.given.entry(*field), given(name, &value), catalogue::setting(*field), report);
            }
            (Special(..), Some((_, module))) if !has_components => {
                match Domain::parse(value) {
                    Ok(host) => source.legacy.components.push((module, host)),
                    Err(why) => wrong(why),
                }
                source.legacy.given.push((*name, given(name, value)));
            }
            (Special(..), None) => {
                let policy = || E2ePolicy::parse(value).map(|policy| policy.lua());
                let (option, read) = match *name {
                    "E2E_POLICY_CHAT" => ("e2e_policy_chat", policy()),
                    "E2E_POLICY_MUC" => ("e2e_policy_muc", policy()),
                    "E2E_POLICY_WHITELIST" => {
                        ("e2e_policy_whitelist", Set::<BareOrDomain>::parse(value).map(|jids| jids.lua()))
                    }
                    _ => continue,
                };
                match read {
                    Ok(value) => source.legacy.e2e_policy.push((option, value)),
                    Err(why) => wrong(why),
                }
                source.legacy.given.push((*name, given(name, value)));
            }
            _ if is_injected(name, value, variables) => continue,
            _ => {
                source.unknown.push((*name).to_owned());
                continue;
            }
        }
        note(name, report);
    }
}

/// Parses the account of `LOCAL`, `DOMAIN` and `PASSWORD`, or of `PASSWORD_FILE`.
fn account(domain: &str, variables: &BTreeMap<String, String>, source: &mut Source, report: &mut Report) {
    let local = &variables["LOCAL"];
    let password = match (variables.get("PASSWORD"), variables.get("PASSWORD_FILE")) {
        (Some(_), Some(_)) => {
            let why = advice!("PASSWORD and PASSWORD_FILE are both set: keep one of them");
            report.error(SettingError::new("PASSWORD", &why));
            None
        }
        (Some(value), None) => {
            Some(Given { variable: "PASSWORD".to_owned(), file: None, value: value.clone() })
        }
        (None, file) => {
            source.files.extend(file.map(PathBuf::from));
            from_file("PASSWORD_FILE", file.map_or("", String::as_str), false, true, report)
        }
    };
    let jid = match Domain::parse(domain) {
        Ok(_) => Jid::parse(&format!("{local}@{domain}"))
            .map_err(|why| SettingError::new("LOCAL", &why).with_value(local)),
        Err(why) => Err(SettingError::new("DOMAIN", &why).with_value(domain)),
    };
    let jid = jid.map_err(|mistake| report.error(mistake)).ok();
    let Some(given) = password else { return };
    let password =
        Password::parse(&given.value).map_err(|why| report.error(SettingError::new(&given.variable, &why)));
    if let (Some(jid), Ok(password)) = (jid, password) {
        source.legacy.account = Some(Account { jid, password, role: None, is_admin: false });
    }
    note("LOCAL", report);
    note(&given.variable, report);
    // `Field::account` is no setting: the password counts as a secret, and no program inherits it.
    source.given.insert(Field::account, given);
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::settings::{Settings, compat};

    fn read(pairs: &[(&str, &str)]) -> (Settings, Report) {
        Settings::read(pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
    }

    /// The variable that set a field.
    fn source_variable(settings: &Settings, field: Field) -> Option<&str> {
        settings.source.given.get(&field).map(|given| given.variable.as_str())
    }

    #[test]
    fn names_are_unique_and_refer_to_settings() {
        for (index, (name, meaning)) in VARIABLES.iter().enumerate() {
            assert!(VARIABLES[..index].iter().all(|(other, _)| other != name), "{name} is a duplicate");
            assert!(
                catalogue::settings()
                    .all(|setting| setting.field.variable() != *name && !setting.aliases.contains(name)),
                "{name} is a setting"
            );
            if let Setting(field) = meaning {
                assert!(catalogue::setting(*field).is_some(), "{name}: there is no field {field:?}");
            }
            let setting = compat::setting(name, meaning);
            for word in
                setting.split('`').filter(|word| word.starts_with(PREFIX) && !word.contains(['*', '<']))
            {
                let word = word.split('=').next().unwrap_or_default();
                assert!(
                    catalogue::settings().any(|setting| setting.field.variable() == word),
                    "{name}: no setting {word}"
                );
            }
        }
    }

    #[test]
    fn general_names_have_no_effect_on_their_own() {
        let pairs = [
            ("LOCAL", "/usr/local"),
            ("PASSWORD_FILE", "/no/such/file"),
            ("DOMAIN_MUC", "no domain"),
            ("E2E_POLICY_CHAT", "no policy"),
            ("SERVER_CONTACT_INFO_ABUSE", "no URI"),
            ("DB_HOST", "db.example"),
        ];
        for alone in pairs {
            let (settings, report) = read(&[alone]);
            assert!(
                report.errors().is_empty() && report.warnings().next().is_none(),
                "{alone:?}: {report:?}"
            );
            assert!(settings.source.given.is_empty() && settings.source.unknown.is_empty(), "{alone:?}");
        }
        let (settings, report) =
            read(&[("PROSODY_DOMAIN", "a.example"), ("DOMAIN", "no domain"), pairs[2], pairs[5]]);
        assert!(report.errors().is_empty() && report.warnings().next().is_none(), "{report:?}");
        assert_eq!(source_variable(&settings, Field::domain), Some("PROSODY_DOMAIN"));
        assert!(settings.source.unknown.is_empty());
    }

    #[test]
    fn admins_may_be_in_quotation_marks() {
        let admins = ("PROSODY_ADMINS", r#""me@example.com", "admin@example.net""#);
        let (settings, report) = read(&[("DOMAIN", "example.com"), admins]);
        assert!(report.errors().is_empty(), "{report:?}");
        let admins = settings.hosts.admins.unwrap();
        let admins: Vec<String> = admins.iter().map(ToString::to_string).collect();
        assert_eq!(admins, ["me@example.com", "admin@example.net"]);
    }

    #[test]
    fn local_domain_and_password_together_are_an_account() {
        let romeo = [("LOCAL", "Romeo"), ("DOMAIN", "shakespeare.lit"), ("PASSWORD", "juliet4ever")];
        let (settings, report) = read(&romeo);
        assert!(report.errors().is_empty() && report.warnings().next().is_none(), "{report:?}");
        let account = settings.source.legacy.account.as_ref().unwrap();
        assert_eq!(account.jid.to_string(), "romeo@shakespeare.lit");
        assert_eq!(account.password.0.expose(), "juliet4ever");
        assert_eq!(source_variable(&settings, Field::virtual_hosts), Some("DOMAIN"));
        assert!(
            settings.is_secret("PASSWORD") && !settings.is_secret("DOMAIN") && !settings.is_secret("LOCAL")
        );

        for missing in 0..3 {
            let two: Vec<_> = romeo.into_iter().filter(|pair| *pair != romeo[missing]).collect();
            let (settings, report) = read(&two);
            let warnings: Vec<_> = report.warnings().collect();
            assert!(matches!(warnings[..], [one] if one.starts_with(romeo[missing].0)), "{warnings:?}");
            assert!(settings.source.legacy.account.is_none() && !settings.is_secret("PASSWORD"));
        }
        let (settings, report) = read(&[romeo[0], romeo[1], ("PASSWORD", "")]);
        assert!(settings.source.legacy.account.is_none() && report.warnings().count() == 1, "empty is unset");
    }

    #[test]
    fn the_same_account_in_both_forms_counts_once() {
        let romeo = [("LOCAL", "romeo"), ("DOMAIN", "shakespeare.lit"), ("PASSWORD", "juliet4ever")];
        let both = |listed| read(&[romeo[0], romeo[1], romeo[2], ("PROSODY_ACCOUNTS", listed)]);
        let (settings, report) = both("romeo@shakespeare.lit:juliet4ever");
        assert!(report.errors().is_empty(), "{report:?}");
        assert_eq!(settings.accounts().count(), 1);
        let (settings, _) = both("juliet@shakespeare.lit:juliet4ever");
        assert_eq!(settings.accounts().count(), 2);
        let (_, report) = both("romeo@shakespeare.lit:another");
        assert!(report.errors()[0].to_string().starts_with("PASSWORD: "), "{report}");
        assert!(!report.to_string().contains("juliet4ever"), "{report}");
    }

    #[test]
    fn a_password_may_be_in_a_file() {
        let directory = crate::tests::TestDir::new();
        let file = directory.path().join("password");
        directory.write("password", "juliet4ever\n");
        let file = file.to_str().unwrap();
        let (settings, _) =
            read(&[("LOCAL", "romeo"), ("DOMAIN", "shakespeare.lit"), ("PASSWORD_FILE", file)]);
        assert_eq!(settings.source.legacy.account.unwrap().password.0.expose(), "juliet4ever");
        let (_, report) = read(&[
            ("LOCAL", "romeo"),
            ("DOMAIN", "shakespeare.lit"),
            ("PASSWORD", "juliet4ever"),
            ("PASSWORD_FILE", file),
        ]);
        assert_eq!(report.errors().len(), 1, "{report}");
    }

    #[test]
    fn a_relative_certificates_path_is_below_the_configuration_directory() {
        for (directory, path) in [(None, "/etc/prosody/keys"), (Some("/srv/chat"), "/srv/chat/keys")] {
            let directory = directory.map(|directory| ("PROSODY_CONFIGDIR", directory));
            let pairs: Vec<_> = directory.into_iter().chain([("PROSODY_CERTIFICATES", "keys")]).collect();
            assert_eq!(read(&pairs).0.tls.certificates.unwrap().as_str(), path);
        }
        let (settings, _) = read(&[("PROSODY_CERTIFICATES", "/srv/keys")]);
        assert_eq!(settings.tls.certificates.unwrap().as_str(), "/srv/keys");
    }

    #[test]
    fn every_sql_variable_is_recognised() {
        for name in ["DRIVER", "DB", "HOST", "USERNAME", "PASSWORD"] {
            let (settings, _) = read(&[(&format!("PROSODY_SQL_{name}"), "SQLite3")]);
            assert!(settings.has_sql_family(), "{name}");
        }
        assert!(
            !read(&[("PROSODY_DB_HOST", "db.example"), ("PROSODY_SQL_CONNECTION", "{}")]).0.has_sql_family()
        );
    }
}
