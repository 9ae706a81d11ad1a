//! Values from a fixed set of words, in upper or lower case.

use super::{Lua, SettingType, alternatives, did_you_mean, lua};
use crate::lua::Value;

/// Every spelling of a boolean, in pairs: first true, then false.
const BOOLEANS: [&str; 8] = ["true", "false", "1", "0", "yes", "no", "on", "off"];

/// Reads a boolean in any of its spellings, in upper or lower case.
fn boolean(text: &str) -> Option<bool> {
    let place = BOOLEANS.iter().position(|word| word.eq_ignore_ascii_case(text))?;
    Some(place % 2 == 0)
}

/// The error for a word outside the set.
fn wrong_choice(text: &str, choices: &[&'static str]) -> String {
    format!("expected {}{}", alternatives(choices), did_you_mean(text, choices))
}

/// `true` or `false`, `1` or `0`, `yes` or `no`, `on` or `off`, in upper or lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boolean(pub bool);

impl SettingType for Boolean {
    const NAME: &'static str = "boolean";
    const EXAMPLE: &'static str = "true";
    const CHOICES: &'static [&'static str] = &BOOLEANS;

    fn parse(text: &str) -> Result<Self, String> {
        boolean(text)
            .map(Boolean)
            .ok_or_else(|| format!("expected a boolean, `true` or `false`{}", did_you_mean(text, &BOOLEANS)))
    }
}

/// Declares an enum with one word for each variant.
macro_rules! choices {
    ($(
        $(#[$meta:meta])*
        $name:ident { $( $variant:ident = $word:literal ),+ }
    )+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $( $variant ),+ }

        impl $name {
            /// The word in Prosody's spelling.
            pub fn as_str(self) -> &'static str {
                match self { $( $name::$variant => $word ),+ }
            }
        }

        impl SettingType for $name {
            const EXAMPLE: &'static str = Self::CHOICES[0];
            const CHOICES: &'static [&'static str] = &[ $( $word ),+ ];

            fn parse(text: &str) -> Result<Self, String> {
                $( if text.eq_ignore_ascii_case($word) { return Ok($name::$variant); } )+
                Err(wrong_choice(text, Self::CHOICES))
            }
        }

        impl Lua for $name {
            fn lua(&self) -> Value {
                Value::from(self.as_str())
            }
        }
    )+};
}

choices! {
    /// `tls_profile`: Mozilla's server-side TLS profiles, and Prosody's `legacy` from before it had profiles.
    TlsProfile { Modern = "modern", Intermediate = "intermediate", Old = "old", Legacy = "legacy" }

    /// `network_backend`.
    NetworkBackend { Epoll = "epoll", Event = "event", Select = "select" }

    /// The lowest level that is logged.
    LogLevel { Debug = "debug", Info = "info", Warn = "warn", Error = "error" }

    /// `e2e_policy_chat` and `e2e_policy_muc`: whether messages without end-to-end encryption are delivered, delivered
    /// with a recommendation to encrypt, or refused.
    E2ePolicy { None = "none", Optional = "optional", Required = "required" }

    /// `ldap_scope`: the depth of a search below the base.
    LdapScope { Base = "base", OneLevel = "onelevel", Subtree = "subtree" }

    /// `ldap_mode`: whether the LDAP server verifies passwords, or Prosody reads them in plain text.
    LdapMode { Bind = "bind", GetPasswd = "getpasswd" }

    /// `sql.driver`.
    DbDriver { PostgreSql = "PostgreSQL", MySql = "MySQL", Sqlite3 = "SQLite3" }

    /// A set of modules and options that belong together.
    Feature { Invites = "invites", ModernLogin = "modern-login", PublicServer = "public-server" }

    /// A service that can have ports of the PROXY protocol, by its name in Prosody.
    ProxiedService {
        C2s = "c2s", C2sDirectTls = "c2s_direct_tls", S2s = "s2s", S2sDirectTls = "s2s_direct_tls", Http = "http",
        Https = "https", Component = "component", Proxy65 = "proxy65"
    }

    /// The format of the log: that of Prosody's console, or one JSON object per line.
    LogFormat { Text = "text", Json = "json" }
}

/// Declares an enum of a boolean or one word.
macro_rules! boolean_or {
    ($(
        $(#[$meta:meta])*
        $name:ident { $(#[$variant_meta:meta])* $variant:ident = $word:literal }
    )+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            Boolean(bool),
            $(#[$variant_meta])*
            $variant,
        }

        impl SettingType for $name {
            const NAME: &'static str = concat!("`true`, `false` or `", $word, "`");
            const EXAMPLE: &'static str = $word;
            const CHOICES: &'static [&'static str] = &["true", "false", "1", "0", "yes", "no", "on", "off", $word];

            fn parse(text: &str) -> Result<Self, String> {
                if text.eq_ignore_ascii_case($word) {
                    return Ok($name::$variant);
                }
                boolean(text).map($name::Boolean).ok_or_else(|| {
                    format!("expected {}{}", Self::type_name(), did_you_mean(text, Self::CHOICES))
                })
            }
        }

        impl Lua for $name {
            fn lua(&self) -> Value {
                match self {
                    $name::Boolean(boolean) => Value::from(*boolean),
                    $name::$variant => Value::from($word),
                }
            }
        }
    )+};
}

boolean_or! {
    /// `restrict_room_creation`: whether room creation is restricted to admins.
    RoomCreation {
        /// Users of the component's parent host may create rooms, too.
        Local = "local"
    }

    /// `share_module_code`: whether the code of modules is compiled once for all hosts.
    ModuleSharing {
        /// With many virtual hosts.
        Auto = "auto"
    }

    /// `default_archive_policy`: which messages are archived for users without a preference of their own (XEP-0313).
    ArchivePolicy {
        /// Only messages from and to contacts.
        Roster = "roster"
    }
}

lua! {
    Boolean: self => self.0;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_have_four_spellings_in_any_case() {
        for text in ["true", "1", "yes", "on", "TRUE", "Yes", "oN"] {
            assert_eq!(Boolean::parse(text), Ok(Boolean(true)), "{text}");
        }
        for text in ["false", "0", "no", "off", "False", "NO"] {
            assert_eq!(Boolean::parse(text), Ok(Boolean(false)), "{text}");
        }
        assert_eq!(
            Boolean::parse("ture").unwrap_err(),
            "expected a boolean, `true` or `false`; did you mean `true`?"
        );
        for text in ["2", "y", "enabled", "01", " true"] {
            assert!(Boolean::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn choices_ignore_case_and_keep_prosodys_spelling() {
        assert_eq!(DbDriver::parse("postgresql").unwrap().as_str(), "PostgreSQL");
        assert_eq!(DbDriver::parse("SQLITE3").unwrap().lua(), Value::from("SQLite3"));
        assert_eq!(LogLevel::parse("Warn"), Ok(LogLevel::Warn));
    }

    #[test]
    fn an_invalid_choice_is_reported_with_all_choices_and_the_nearest() {
        assert_eq!(
            TlsProfile::parse("intermediat").unwrap_err(),
            "expected `modern`, `intermediate`, `old` or `legacy`; did you mean `intermediate`?"
        );
        assert_eq!(LdapMode::parse("whatever").unwrap_err(), "expected `bind` or `getpasswd`");
    }

    #[test]
    fn some_settings_take_a_boolean_or_a_word() {
        assert_eq!(RoomCreation::parse("Local"), Ok(RoomCreation::Local));
        assert_eq!(RoomCreation::parse("on"), Ok(RoomCreation::Boolean(true)));
        assert_eq!(RoomCreation::parse("0").unwrap().lua(), Value::from(false));
        assert_eq!(ArchivePolicy::parse("roster").unwrap().lua(), Value::from("roster"));
        assert_eq!(
            ArchivePolicy::parse("rooster").unwrap_err(),
            "expected `true`, `false` or `roster`; did you mean `roster`?"
        );
    }
}
