//! The meaning of other images' variables, so that users of those images only need to change the image name.
//!
//! Further names of a setting, with the same meaning, are aliases in the catalogue.

use super::catalogue::{Field, PREFIX};
use crate::report::Report;

/// The meaning of another image's variable.
pub enum Meaning {
    /// The same as a setting.
    Setting(Field),
    /// A meaning that no single setting has: the setting to use instead, and the meaning.
    Special(&'static str, &'static str),
    /// No effect: the setting to use instead. If empty, it is the same name with the prefix `PROSODY_`.
    Unsupported(&'static str),
}

use Meaning::{Setting, Special, Unsupported};

const HOSTS: &str = "`PROSODY_VIRTUAL_HOSTS`";
const COMPONENTS: &str = "`PROSODY_COMPONENTS`";
const ENABLED: &str = "`PROSODY_MODULES_ENABLED`";
const ACCOUNTS: &str = "`PROSODY_ACCOUNTS`";
const OPTIONS: &str = "`PROSODY_OPTIONS`";

/// Every variable of other images that has a meaning here or that people set. Names without the prefix `PROSODY_` may
/// belong to any program: they are only used together with `DOMAIN`.
#[rustfmt::skip]
pub const VARIABLES: &[(&str, Meaning)] = &[
    ("PROSODY_SQL_DRIVER", Setting(Field::db_driver)),
    ("PROSODY_SQL_DB", Setting(Field::db_name)),
    ("PROSODY_SQL_HOST", Setting(Field::db_host)),
    ("PROSODY_SQL_USERNAME", Setting(Field::db_username)),
    ("PROSODY_SQL_PASSWORD", Setting(Field::db_password)),
    ("PROSODY_ENABLE_DEFAULT_VIRTUALHOST", Special(HOSTS, "whether `PROSODY_DEFAULT_VIRTUALHOST` is served")),
    ("PROSODY_DEFAULT_VIRTUALHOST", Special(HOSTS, "that virtual host, `localhost` where it is not set")),
    ("PROSODY_EXTRA_CFG", Special("`PROSODY_EXTRA_CONFIG`", "whether `conf.d/extra.cfg.lua`, which then has to be there, is included")),
    ("PROSODY_SQL_CONNECTION", Unsupported("`PROSODY_DB_*`, or `sql` in `PROSODY_OPTIONS`")),
    ("PROSODY_STORAGE_KVP", Unsupported("`PROSODY_STORAGE_<STORE>`")),
    ("PROSODY_USE_LIBEVENT", Unsupported("`PROSODY_NETWORK_BACKEND=event`")),
    ("PROSODY_BOOTSTRAP", Unsupported(HOSTS)),
    ("PROSODY_BOOTSTRAP_VIRTUALHOST", Unsupported(HOSTS)),
    ("PROSODY_BOOTSTRAP_ADMIN_XIDS", Unsupported("`PROSODY_ADMINS`")),
    ("PROSODY_BOOTSTRAP_AUTHENTICATION", Unsupported("`PROSODY_AUTHENTICATION`")),
    ("PROSODY_CORE_MODULES", Unsupported(ENABLED)),
    ("PROSODY_COMM_MODULES", Unsupported(ENABLED)),
    ("PROSODY_ENABLED_MODULES", Unsupported(ENABLED)),
    ("LOCAL", Special(ACCOUNTS, "with `DOMAIN` and `PASSWORD`, an account to create where it does not exist")),
    ("PASSWORD", Special(ACCOUNTS, "that account's password, which `PASSWORD_FILE` may name a file with")),
    ("DOMAIN", Special("`PROSODY_DOMAIN`", "where nothing else names a host: the same; with `LOCAL` and `PASSWORD`, a virtual host")),
    ("DOMAIN_MUC", Special(COMPONENTS, "the host of `DOMAIN`'s chat rooms")),
    ("DOMAIN_HTTP_UPLOAD", Special(COMPONENTS, "the host of its file sharing")),
    ("DOMAIN_PROXY", Special(COMPONENTS, "the host of its file transfer")),
    ("DOMAIN_PUBSUB", Special(COMPONENTS, "the host of a `pubsub` component")),
    ("SERVER_CONTACT_INFO_ABUSE", Setting(Field::contact_abuse)),
    ("SERVER_CONTACT_INFO_ADMIN", Setting(Field::contact_admin)),
    ("SERVER_CONTACT_INFO_FEEDBACK", Setting(Field::contact_feedback)),
    ("SERVER_CONTACT_INFO_SALES", Setting(Field::contact_sales)),
    ("SERVER_CONTACT_INFO_SECURITY", Setting(Field::contact_security)),
    ("SERVER_CONTACT_INFO_SUPPORT", Setting(Field::contact_support)),
    ("E2E_POLICY_CHAT", Special(OPTIONS, "`e2e_policy_chat` of the module `e2e_policy`, which it enables")),
    ("E2E_POLICY_MUC", Special(OPTIONS, "`e2e_policy_muc` of that module")),
    ("E2E_POLICY_WHITELIST", Special(OPTIONS, "`e2e_policy_whitelist` of that module")),
    ("DB_DRIVER", Unsupported("")),
    ("DB_DATABASE", Unsupported("`PROSODY_DB_NAME`")),
    ("DB_HOST", Unsupported("")),
    ("DB_PORT", Unsupported("")),
    ("DB_USERNAME", Unsupported("")),
    ("DB_PASSWORD", Unsupported("")),
    ("STORAGE", Unsupported("`PROSODY_DEFAULT_STORAGE`")),
    ("LOG_LEVEL", Unsupported("")),
    ("ALLOW_REGISTRATION", Unsupported("")),
    ("REGISTRATION_INVITE_ONLY", Unsupported("")),
    ("C2S_REQUIRE_ENCRYPTION", Unsupported("")),
    ("S2S_REQUIRE_ENCRYPTION", Unsupported("")),
    ("S2S_SECURE_AUTH", Unsupported("")),
    ("AUTHENTICATION", Unsupported("")),
    ("LDAP_SERVER", Unsupported("")),
    ("LDAP_BASE", Unsupported("")),
    ("LDAP_ROOTDN", Unsupported("")),
    ("LDAP_PASSWORD", Unsupported("")),
    ("LDAP_FILTER", Unsupported("")),
    ("LDAP_SCOPE", Unsupported("")),
    ("LDAP_TLS", Unsupported("")),
    ("LDAP_MODE", Unsupported("")),
    ("LDAP_ADMIN_FILTER", Unsupported("")),
    ("HTTP_FILE_SHARE_EXPIRES_AFTER", Unsupported("`PROSODY_UPLOAD_EXPIRY_DAYS`")),
    ("HTTP_FILE_SHARE_SIZE_LIMIT", Unsupported("`PROSODY_UPLOAD_LIMIT_MB`")),
    ("HTTP_FILE_SHARE_DAILY_QUOTA", Unsupported("`PROSODY_UPLOAD_DAILY_QUOTA_MB`")),
];

/// The entry of a variable, given without `_FILE`.
pub fn find(name: &str) -> Option<&'static (&'static str, Meaning)> {
    VARIABLES.iter().find(|(known, _)| *known == name)
}

/// Whether a variable without the prefix `PROSODY_` may have a meaning here.
pub fn may_count(name: &str) -> bool {
    name == "PASSWORD_FILE" || find(name).is_some()
}

/// Whether a variable without the prefix `PROSODY_` is a password in another image.
pub fn is_password(name: &str) -> bool {
    name.ends_with("PASSWORD") && find(name).is_some()
}

/// The setting to use instead of a variable, in backticks.
pub fn setting(name: &str, meaning: &Meaning) -> String {
    match meaning {
        Setting(field) => format!("`{}`", field.variable()),
        Unsupported("") => format!("`{PREFIX}{name}`"),
        Special(setting, _) | Unsupported(setting) => (*setting).to_owned(),
    }
}

/// The message for a variable without effect. `None` if it is not another image's.
pub fn hint(name: &str) -> Option<String> {
    let (name, meaning) = find(name)?;
    let setting = setting(name, meaning).replace('`', "");
    Some(advice!("{name}: this is another image's, and has no effect here: use {setting}").into())
}

/// Adds a note to the report: the setting to use instead of a variable that had an effect.
pub fn note(variable: &str, report: &mut Report) {
    if let Some((name, meaning)) = find(variable.strip_suffix("_FILE").unwrap_or(variable)) {
        let setting = setting(name, meaning).replace('`', "");
        report.debug(format!("{variable} is another image's: the setting is {setting}"));
    }
}
