//! What the variables of other images mean here, so that whoever moves in changes nothing but the image's name.
//!
//! A name that is only another name for a setting is an alias of the catalogue's.

use std::collections::BTreeMap;

use minijinja::Value;

use super::catalogue::{self, PREFIX};
use super::input::{Given, Source, from_file, is_injected, keep};
use super::types::{Account, BareOrDomain, Boolean, Domain, E2ePolicy, Jid, Kind, Lua, Password, Set};
use crate::layout::CONFIG_DIR;
use crate::report::{Mistake, Report};

/// What a variable of another image means.
pub enum Meaning {
    /// The setting with this field.
    Setting(&'static str),
    /// What no setting says alone: which one to use, and what it does.
    Own(&'static str, &'static str),
    /// Nothing: what to use in its place. Where that is empty, the same name behind `PROSODY_`.
    Nothing(&'static str),
}

use Meaning::{Nothing, Own, Setting};

const HOSTS: &str = "`PROSODY_VIRTUAL_HOSTS`";
const COMPONENTS: &str = "`PROSODY_COMPONENTS`";
const ENABLED: &str = "`PROSODY_MODULES_ENABLED`";
const ACCOUNTS: &str = "`PROSODY_ACCOUNTS`";
const OPTIONS: &str = "`PROSODY_OPTIONS`";

/// Every variable of another image that has a meaning, or a user. Any program could have those that do not begin with
/// `PROSODY_`: they count where `DOMAIN` does.
#[rustfmt::skip]
pub const VARIABLES: &[(&str, Meaning)] = &[
    ("PROSODY_SQL_DRIVER", Setting("db_driver")),
    ("PROSODY_SQL_DB", Setting("db_name")),
    ("PROSODY_SQL_HOST", Setting("db_host")),
    ("PROSODY_SQL_USERNAME", Setting("db_username")),
    ("PROSODY_SQL_PASSWORD", Setting("db_password")),
    ("PROSODY_ENABLE_DEFAULT_VIRTUALHOST", Own(HOSTS, "whether `PROSODY_DEFAULT_VIRTUALHOST` is served")),
    ("PROSODY_DEFAULT_VIRTUALHOST", Own(HOSTS, "that virtual host, `localhost` where it is not set")),
    ("PROSODY_EXTRA_CFG", Own("`PROSODY_EXTRA_CONFIG`", "whether `conf.d/extra.cfg.lua`, which then has to be there, is included")),
    ("PROSODY_SQL_CONNECTION", Nothing("`PROSODY_DB_*`, or `sql` in `PROSODY_OPTIONS`")),
    ("PROSODY_STORAGE_KVP", Nothing("`PROSODY_STORAGE_<STORE>`")),
    ("PROSODY_USE_LIBEVENT", Nothing("`PROSODY_NETWORK_BACKEND=event`")),
    ("PROSODY_BOOTSTRAP", Nothing(HOSTS)),
    ("PROSODY_BOOTSTRAP_VIRTUALHOST", Nothing(HOSTS)),
    ("PROSODY_BOOTSTRAP_ADMIN_XIDS", Nothing("`PROSODY_ADMINS`")),
    ("PROSODY_BOOTSTRAP_AUTHENTICATION", Nothing("`PROSODY_AUTHENTICATION`")),
    ("PROSODY_CORE_MODULES", Nothing(ENABLED)),
    ("PROSODY_COMM_MODULES", Nothing(ENABLED)),
    ("PROSODY_ENABLED_MODULES", Nothing(ENABLED)),
    ("LOCAL", Own(ACCOUNTS, "with `DOMAIN` and `PASSWORD`, an account to create where it does not exist")),
    ("PASSWORD", Own(ACCOUNTS, "that account's password, which `PASSWORD_FILE` may name a file with")),
    ("DOMAIN", Own("`PROSODY_DOMAIN`", "where nothing else names a host: the same; with `LOCAL` and `PASSWORD`, a virtual host")),
    ("DOMAIN_MUC", Own(COMPONENTS, "the host of `DOMAIN`'s chat rooms")),
    ("DOMAIN_HTTP_UPLOAD", Own(COMPONENTS, "the host of its file sharing")),
    ("DOMAIN_PROXY", Own(COMPONENTS, "the host of its file transfer")),
    ("DOMAIN_PUBSUB", Own(COMPONENTS, "the host of a `pubsub` component")),
    ("SERVER_CONTACT_INFO_ABUSE", Setting("contact_abuse")),
    ("SERVER_CONTACT_INFO_ADMIN", Setting("contact_admin")),
    ("SERVER_CONTACT_INFO_FEEDBACK", Setting("contact_feedback")),
    ("SERVER_CONTACT_INFO_SALES", Setting("contact_sales")),
    ("SERVER_CONTACT_INFO_SECURITY", Setting("contact_security")),
    ("SERVER_CONTACT_INFO_SUPPORT", Setting("contact_support")),
    ("E2E_POLICY_CHAT", Own(OPTIONS, "`e2e_policy_chat` of the module `e2e_policy`, which it enables")),
    ("E2E_POLICY_MUC", Own(OPTIONS, "`e2e_policy_muc` of that module")),
    ("E2E_POLICY_WHITELIST", Own(OPTIONS, "`e2e_policy_whitelist` of that module")),
    ("DB_DRIVER", Nothing("")),
    ("DB_DATABASE", Nothing("`PROSODY_DB_NAME`")),
    ("DB_HOST", Nothing("")),
    ("DB_PORT", Nothing("")),
    ("DB_USERNAME", Nothing("")),
    ("DB_PASSWORD", Nothing("")),
    ("STORAGE", Nothing("`PROSODY_DEFAULT_STORAGE`")),
    ("LOG_LEVEL", Nothing("")),
    ("ALLOW_REGISTRATION", Nothing("")),
    ("REGISTRATION_INVITE_ONLY", Nothing("")),
    ("C2S_REQUIRE_ENCRYPTION", Nothing("")),
    ("S2S_REQUIRE_ENCRYPTION", Nothing("")),
    ("S2S_SECURE_AUTH", Nothing("")),
    ("AUTHENTICATION", Nothing("")),
    ("LDAP_SERVER", Nothing("")),
    ("LDAP_BASE", Nothing("")),
    ("LDAP_ROOTDN", Nothing("")),
    ("LDAP_PASSWORD", Nothing("")),
    ("LDAP_FILTER", Nothing("")),
    ("LDAP_SCOPE", Nothing("")),
    ("LDAP_TLS", Nothing("")),
    ("LDAP_MODE", Nothing("")),
    ("LDAP_ADMIN_FILTER", Nothing("")),
    ("HTTP_FILE_SHARE_EXPIRES_AFTER", Nothing("`PROSODY_UPLOAD_EXPIRY_DAYS`")),
    ("HTTP_FILE_SHARE_SIZE_LIMIT", Nothing("`PROSODY_UPLOAD_LIMIT_MB`")),
    ("HTTP_FILE_SHARE_DAILY_QUOTA", Nothing("`PROSODY_UPLOAD_DAILY_QUOTA_MB`")),
];

/// The component that each of these names the host of.
const HOSTS_OF_COMPONENTS: [(&str, &str); 4] = [
    ("DOMAIN_MUC", "muc"),
    ("DOMAIN_HTTP_UPLOAD", "http_file_share"),
    ("DOMAIN_PROXY", "proxy65"),
    ("DOMAIN_PUBSUB", "pubsub"),
];

/// What such variables say and no setting does.
#[derive(Default)]
pub struct MovingIn {
    /// The account of `LOCAL`, `DOMAIN` and `PASSWORD`.
    pub account: Option<Account>,
    /// Whether `conf.d/extra.cfg.lua` is included, where that is said.
    pub extra_cfg: Option<bool>,
    /// The hosts of components that are not named after the domain, each behind its module.
    pub components: Vec<(&'static str, Domain)>,
    /// The options of the module `e2e_policy`.
    pub e2e_policy: Vec<(&'static str, Value)>,
    /// The variables that say all that but for the account, by their names.
    pub given: Vec<(&'static str, Given)>,
}

/// What a name means, without `_FILE`.
pub fn find(name: &str) -> Option<&'static (&'static str, Meaning)> {
    VARIABLES.iter().find(|(known, _)| *known == name)
}

/// Whether a variable counts that does not begin with `PROSODY_`.
pub fn may_count(name: &str) -> bool {
    name == "PASSWORD_FILE" || find(name).is_some()
}

/// The setting to use in place of a variable, in backticks.
pub fn setting(name: &str, meaning: &Meaning) -> String {
    match meaning {
        Setting(field) => format!("`{PREFIX}{}`", field.to_ascii_uppercase()),
        Nothing("") => format!("`{PREFIX}{name}`"),
        Own(setting, _) | Nothing(setting) => (*setting).to_owned(),
    }
}

/// What to say of a variable that has no effect.
pub fn hint(name: &str) -> Option<String> {
    let (name, meaning) = find(name)?;
    let setting = setting(name, meaning).replace('`', "");
    Some(format!("{name}: this is another image's, and has no effect here: use {setting}"))
}

/// Says which setting to use in place of a variable that was taken.
pub fn note(variable: &str, report: &mut Report) {
    if let Some((name, meaning)) = find(variable.strip_suffix("_FILE").unwrap_or(variable)) {
        let setting = setting(name, meaning).replace('`', "");
        report.note(format!("{variable} is another image's: the setting is {setting}"));
    }
}

/// Takes what is no setting of its own: `own` has those that begin with `PROSODY_`, by their names; `variables` all others too.
pub fn take(
    own: &BTreeMap<&'static str, Given>,
    variables: &BTreeMap<String, String>,
    source: &mut Source,
    report: &mut Report,
) {
    own.values().for_each(|given| note(&given.variable, report));
    // To the official image's Prosody a relative path is one beside its main file.
    let config_dir = source.given.get("config_dir").map(|given| given.value.clone());
    if let Some(given) = source.given.get_mut("certificates").filter(|given| !given.value.starts_with('/')) {
        given.value = format!("{}/{}", config_dir.as_deref().unwrap_or(CONFIG_DIR), given.value);
    }
    let mut flag = |name: &str| {
        let given = own.get(name)?;
        // Where it is wrong nothing is started.
        Some(Boolean::parse(&given.value).map(|flag| flag.0).unwrap_or_else(|why| {
            report.mistake(Mistake::new(&given.variable, &why).with_value(&given.value));
            false
        }))
    };
    source.moving_in.extra_cfg = flag("PROSODY_EXTRA_CFG");
    source
        .moving_in
        .given
        .extend(own.get_key_value("PROSODY_EXTRA_CFG").map(|(name, given)| (*name, given.clone())));
    let is_enabled = flag("PROSODY_ENABLE_DEFAULT_VIRTUALHOST");
    let host = own.get("PROSODY_DEFAULT_VIRTUALHOST");
    match (is_enabled, host) {
        (Some(true), host) => {
            let variable = "PROSODY_ENABLE_DEFAULT_VIRTUALHOST".to_owned();
            let default = || Given { variable, file: None, value: "localhost".to_owned() };
            let host = host.cloned().unwrap_or_else(default);
            keep(source.given.entry("virtual_hosts"), host, catalogue::setting("virtual_hosts"), report);
        }
        (None, Some(host)) => report.warning(format!(
            "{}: not served without PROSODY_ENABLE_DEFAULT_VIRTUALHOST=1: use PROSODY_VIRTUAL_HOSTS",
            host.variable
        )),
        _ => {}
    }

    let value = |name: &str| variables.get(name);
    let is_given = [value("LOCAL"), value("DOMAIN"), value("PASSWORD").or(value("PASSWORD_FILE"))];
    let is_given = is_given.map(|value| value.is_some());
    let missing: Vec<&str> = ["LOCAL", "DOMAIN", "PASSWORD"]
        .into_iter()
        .zip(is_given)
        .filter(|(_, is)| !is)
        .map(|(name, _)| name)
        .collect();
    let is_named = ["domain", "virtual_hosts"].iter().any(|field| source.given.contains_key(field));
    // Without LOCAL, and with a setting that names the host, the two are another program's.
    let is_meant = |missing: &str| missing != "LOCAL" || !is_named;
    if let Some(missing) = Some(&missing[..]).filter(|missing| missing.len() == 1 && is_meant(missing[0])) {
        let missing = missing[0];
        report.warning(format!(
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
    if is_named {
        return;
    }
    if !missing.is_empty() && Domain::parse(domain).is_err() {
        // Most likely it is another program's, and so no mistake where warnings are mistakes.
        report.notice("DOMAIN: this is no domain, and has no effect here: use PROSODY_DOMAIN".to_owned());
        return;
    }
    let field = if missing.is_empty() { "virtual_hosts" } else { "domain" };
    // What is wrong with it as an account's is in the report.
    if !missing.is_empty() || Domain::parse(domain).is_ok() {
        source.given.insert(field, given("DOMAIN", domain));
        let setting = catalogue::setting(field).map(catalogue::Setting::name).unwrap_or_default();
        report.note(format!("DOMAIN is another image's: the setting is {setting}"));
    }

    // So are the administrators in quotation marks there, as the strings of a list in Lua.
    if let Some(given) = source.given.get_mut("admins").filter(|given| given.value.starts_with('"')) {
        given.value = given.value.replace('"', "");
    }
    let are_named = source.given.contains_key("components");
    for (name, meaning) in VARIABLES.iter().filter(|(name, _)| !name.starts_with(PREFIX)) {
        let Some(value) = value(name) else { continue };
        let mut wrong = |why: String| report.mistake(Mistake::new(name, &why).with_value(value));
        let component = HOSTS_OF_COMPONENTS.iter().find(|(variable, _)| variable == name);
        match (meaning, component) {
            // A list of strings in Lua, as that image had it, has quotes.
            (Setting(field), _) => {
                let value = value.replace('"', "");
                keep(source.given.entry(field), given(name, &value), catalogue::setting(field), report);
            }
            (Own(..), Some((_, module))) if !are_named => {
                match Domain::parse(value) {
                    Ok(host) => source.moving_in.components.push((module, host)),
                    Err(why) => wrong(why),
                }
                source.moving_in.given.push((*name, given(name, value)));
            }
            (Own(..), None) => {
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
                    Ok(value) => source.moving_in.e2e_policy.push((option, value)),
                    Err(why) => wrong(why),
                }
                source.moving_in.given.push((*name, given(name, value)));
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

/// Reads the account of `LOCAL`, `DOMAIN` and `PASSWORD`.
fn account(domain: &str, variables: &BTreeMap<String, String>, source: &mut Source, report: &mut Report) {
    let local = &variables["LOCAL"];
    let password = match (variables.get("PASSWORD"), variables.get("PASSWORD_FILE")) {
        (Some(_), Some(_)) => {
            let why = "PASSWORD and PASSWORD_FILE are both set: keep one of them";
            report.mistake(Mistake::new("PASSWORD", why));
            None
        }
        (Some(value), None) => {
            Some(Given { variable: "PASSWORD".to_owned(), file: None, value: value.clone() })
        }
        (None, file) => from_file("PASSWORD_FILE", file.map_or("", String::as_str), false, true, report),
    };
    let jid = match Domain::parse(domain) {
        Ok(_) => Jid::parse(&format!("{local}@{domain}"))
            .map_err(|why| Mistake::new("LOCAL", &why).with_value(local)),
        Err(why) => Err(Mistake::new("DOMAIN", &why).with_value(domain)),
    };
    let jid = jid.map_err(|mistake| report.mistake(mistake)).ok();
    let Some(given) = password else { return };
    let password =
        Password::parse(&given.value).map_err(|why| report.mistake(Mistake::new(&given.variable, &why)));
    if let (Some(jid), Ok(password)) = (jid, password) {
        source.moving_in.account = Some(Account { jid, password, role: None, is_admin: false });
    }
    note("LOCAL", report);
    note(&given.variable, report);
    // Under a name of no setting it is a secret that is handed on to nobody.
    source.given.insert("account", given);
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::settings::Settings;

    fn read(pairs: &[(&str, &str)]) -> (Settings, Report) {
        Settings::read(pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
    }

    /// The variable that gave a field.
    fn giver<'a>(settings: &'a Settings, field: &str) -> Option<&'a str> {
        settings.source.given.get(field).map(|given| given.variable.as_str())
    }

    #[test]
    fn every_name_stands_once_and_every_field_is_a_settings() {
        for (index, (name, meaning)) in VARIABLES.iter().enumerate() {
            assert!(VARIABLES[..index].iter().all(|(other, _)| other != name), "{name} stands twice");
            assert!(
                catalogue::settings()
                    .all(|setting| setting.name() != *name && !setting.aliases.contains(name)),
                "{name} is a setting"
            );
            if let Setting(field) = meaning {
                assert!(catalogue::setting(field).is_some(), "{name}: there is no field {field}");
            }
            let setting = setting(name, meaning);
            for word in
                setting.split('`').filter(|word| word.starts_with(PREFIX) && !word.contains(['*', '<']))
            {
                let word = word.split('=').next().unwrap_or_default();
                assert!(
                    catalogue::settings().any(|setting| setting.name() == word),
                    "{name}: no setting {word}"
                );
            }
        }
    }

    #[test]
    fn what_any_program_could_have_is_not_looked_at_alone() {
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
                report.mistakes().is_empty() && report.warnings().next().is_none(),
                "{alone:?}: {report:?}"
            );
            assert!(settings.source.given.is_empty() && settings.source.unknown.is_empty(), "{alone:?}");
        }
        let (settings, report) =
            read(&[("PROSODY_DOMAIN", "a.example"), ("DOMAIN", "no domain"), pairs[2], pairs[5]]);
        assert!(report.mistakes().is_empty() && report.warnings().next().is_none(), "{report:?}");
        assert_eq!(giver(&settings, "domain"), Some("PROSODY_DOMAIN"));
        assert!(settings.source.unknown.is_empty());
    }

    #[test]
    fn administrators_may_be_in_quotation_marks() {
        let admins = ("PROSODY_ADMINS", r#""me@example.com", "admin@example.net""#);
        let (settings, report) = read(&[("DOMAIN", "example.com"), admins]);
        assert!(report.mistakes().is_empty(), "{report:?}");
        let admins = settings.hosts.admins.unwrap();
        let admins: Vec<String> = admins.iter().map(ToString::to_string).collect();
        assert_eq!(admins, ["me@example.com", "admin@example.net"]);
    }

    #[test]
    fn three_together_are_an_account() {
        let romeo = [("LOCAL", "Romeo"), ("DOMAIN", "shakespeare.lit"), ("PASSWORD", "juliet4ever")];
        let (settings, report) = read(&romeo);
        assert!(report.mistakes().is_empty() && report.warnings().next().is_none(), "{report:?}");
        let account = settings.account.as_ref().unwrap();
        assert_eq!(account.jid.to_string(), "romeo@shakespeare.lit");
        assert_eq!(account.password.0.expose(), "juliet4ever");
        assert_eq!(giver(&settings, "virtual_hosts"), Some("DOMAIN"));
        assert!(
            settings.is_secret("PASSWORD") && !settings.is_secret("DOMAIN") && !settings.is_secret("LOCAL")
        );

        for missing in 0..3 {
            let two: Vec<_> = romeo.into_iter().filter(|pair| *pair != romeo[missing]).collect();
            let (settings, report) = read(&two);
            let warnings: Vec<_> = report.warnings().collect();
            assert!(matches!(warnings[..], [one] if one.starts_with(romeo[missing].0)), "{warnings:?}");
            assert!(settings.account.is_none() && !settings.is_secret("PASSWORD"));
        }
        let (settings, report) = read(&[romeo[0], romeo[1], ("PASSWORD", "")]);
        assert!(settings.account.is_none() && report.warnings().count() == 1, "empty is unset");
    }

    #[test]
    fn an_account_that_is_listed_too_is_one() {
        let romeo = [("LOCAL", "romeo"), ("DOMAIN", "shakespeare.lit"), ("PASSWORD", "juliet4ever")];
        let both = |listed| read(&[romeo[0], romeo[1], romeo[2], ("PROSODY_ACCOUNTS", listed)]);
        let (settings, report) = both("romeo@shakespeare.lit:juliet4ever");
        assert!(report.mistakes().is_empty(), "{report:?}");
        assert_eq!(settings.accounts().count(), 1);
        let (settings, _) = both("juliet@shakespeare.lit:juliet4ever");
        assert_eq!(settings.accounts().count(), 2);
        let (_, report) = both("romeo@shakespeare.lit:another");
        assert!(report.mistakes()[0].to_string().starts_with("PASSWORD: "), "{report}");
        assert!(!report.to_string().contains("juliet4ever"), "{report}");
    }

    #[test]
    fn a_password_may_be_in_a_file() {
        let directory = crate::test_dir::TestDir::new();
        let file = directory.path().join("password");
        directory.write("password", "juliet4ever\n");
        let file = file.to_str().unwrap();
        let (settings, _) =
            read(&[("LOCAL", "romeo"), ("DOMAIN", "shakespeare.lit"), ("PASSWORD_FILE", file)]);
        assert_eq!(settings.account.unwrap().password.0.expose(), "juliet4ever");
        let (_, report) = read(&[
            ("LOCAL", "romeo"),
            ("DOMAIN", "shakespeare.lit"),
            ("PASSWORD", "juliet4ever"),
            ("PASSWORD_FILE", file),
        ]);
        assert_eq!(report.mistakes().len(), 1, "{report}");
    }

    #[test]
    fn a_relative_path_of_certificates_is_below_the_configuration_directory() {
        for (directory, path) in [(None, "/etc/prosody/keys"), (Some("/srv/chat"), "/srv/chat/keys")] {
            let directory = directory.map(|directory| ("PROSODY_CONFIGDIR", directory));
            let pairs: Vec<_> = directory.into_iter().chain([("PROSODY_CERTIFICATES", "keys")]).collect();
            assert_eq!(read(&pairs).0.tls.certificates.unwrap().as_str(), path);
        }
        let (settings, _) = read(&[("PROSODY_CERTIFICATES", "/srv/keys")]);
        assert_eq!(settings.tls.certificates.unwrap().as_str(), "/srv/keys");
    }

    #[test]
    fn the_family_is_told_by_every_one_of_its_names() {
        for name in ["DRIVER", "DB", "HOST", "USERNAME", "PASSWORD"] {
            let (settings, _) = read(&[(&format!("PROSODY_SQL_{name}"), "SQLite3")]);
            assert!(settings.has_sql_family(), "{name}");
        }
        assert!(
            !read(&[("PROSODY_DB_HOST", "db.example"), ("PROSODY_SQL_CONNECTION", "{}")]).0.has_sql_family()
        );
    }
}
