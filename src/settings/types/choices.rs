//! Words out of a fixed choice, in any case.

use super::{Lua, SettingType, alternatives, deserialize, did_you_mean};
use crate::lua::Value;
use std::borrow::Cow;

/// Every spelling of a boolean, and what it means.
const BOOLEANS: [&str; 8] = ["true", "false", "1", "0", "yes", "no", "on", "off"];

/// A boolean in any of its spellings, in any case.
fn boolean(text: &str) -> Option<bool> {
    let place = BOOLEANS.iter().position(|word| word.eq_ignore_ascii_case(text))?;
    // The spellings come in pairs, the true one first.
    Some(place % 2 == 0)
}

/// The message for a word that is none of the choices.
fn wrong_choice(text: &str, choices: &[&'static str]) -> String {
    format!("expected {}{}", alternatives(choices), did_you_mean(text, choices))
}

/// `true` or `false`, `1` or `0`, `yes` or `no`, `on` or `off`, in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boolean(pub bool);

impl SettingType for Boolean {
    fn type_name() -> Cow<'static, str> {
        "boolean".into()
    }

    fn example() -> &'static str {
        "true"
    }

    fn choices() -> &'static [&'static str] {
        &BOOLEANS
    }

    fn parse(text: &str) -> Result<Self, String> {
        boolean(text)
            .map(Boolean)
            .ok_or_else(|| format!("expected a boolean, `true` or `false`{}", did_you_mean(text, &BOOLEANS)))
    }
}

impl Lua for Boolean {
    fn lua(&self) -> Value {
        Value::from(self.0)
    }
}

deserialize!(Boolean);

/// Declares a type that is one of some words.
macro_rules! choices {
    ($(
        $(#[$meta:meta])*
        $name:ident { $( $(#[$variant_meta:meta])* $variant:ident = $word:literal ),+ $(,)? }
    )+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $( $(#[$variant_meta])* $variant ),+ }

        impl $name {
            /// The word, as Prosody spells it.
            pub fn as_str(self) -> &'static str {
                match self { $( $name::$variant => $word ),+ }
            }
        }

        impl SettingType for $name {
            fn type_name() -> Cow<'static, str> {
                alternatives(Self::choices()).into()
            }

            fn example() -> &'static str {
                Self::choices()[0]
            }

            fn choices() -> &'static [&'static str] {
                &[ $( $word ),+ ]
            }

            fn parse(text: &str) -> Result<Self, String> {
                $( if text.eq_ignore_ascii_case($word) { return Ok($name::$variant); } )+
                Err(wrong_choice(text, Self::choices()))
            }
        }

        impl Lua for $name {
            fn lua(&self) -> Value {
                Value::from(self.as_str())
            }
        }

        deserialize!($name);
    )+};
}

choices! {
    /// `tls_profile`: Mozilla's recommendations for servers, and Prosody's `legacy`.
    TlsProfile {
        /// TLS 1.3 alone.
        Modern = "modern",
        /// TLS 1.2 and later.
        Intermediate = "intermediate",
        /// TLS 1.0 and later.
        Old = "old",
        /// What Prosody offered before it had profiles.
        Legacy = "legacy",
    }

    /// `network_backend`.
    NetworkBackend {
        /// Prosody's own, on `epoll(7)` or `poll(2)`.
        Epoll = "epoll",
        /// libevent.
        Event = "event",
        /// `select(2)`.
        Select = "select",
    }

    /// The least important message that is logged.
    LogLevel {
        /// Everything.
        Debug = "debug",
        /// What happens.
        Info = "info",
        /// What may be wrong.
        Warn = "warn",
        /// What is wrong.
        Error = "error",
    }

    /// `e2e_policy_chat` and `e2e_policy_muc`: what is said to clients whose messages are not encrypted end to end.
    E2ePolicy {
        /// Nothing.
        None = "none",
        /// That they should be.
        Optional = "optional",
        /// That they are not delivered.
        Required = "required",
    }

    /// `ldap_scope`: how far below the base a search goes.
    LdapScope {
        /// The base alone.
        Base = "base",
        /// The entries directly below the base.
        OneLevel = "onelevel",
        /// The base and everything below it.
        Subtree = "subtree",
    }

    /// `ldap_mode`: how a password is checked.
    LdapMode {
        /// The LDAP server checks it.
        Bind = "bind",
        /// Prosody reads the password, in clear text, and checks it.
        GetPasswd = "getpasswd",
    }

    /// `sql.driver`.
    DbDriver {
        /// PostgreSQL.
        PostgreSql = "PostgreSQL",
        /// MySQL and MariaDB.
        MySql = "MySQL",
        /// A file.
        Sqlite3 = "SQLite3",
    }

    /// The layout of the entrypoint's own log.
    LogFormat {
        /// Prosody's console layout.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

/// Declares a type that is a boolean or one word.
macro_rules! boolean_or {
    ($(
        $(#[$meta:meta])*
        $name:ident { $(#[$variant_meta:meta])* $variant:ident = $word:literal }
    )+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            /// `true` or `false`.
            Boolean(bool),
            $(#[$variant_meta])*
            $variant,
        }

        impl SettingType for $name {
            fn type_name() -> Cow<'static, str> {
                concat!("`true`, `false` or `", $word, "`").into()
            }

            fn example() -> &'static str {
                $word
            }

            fn choices() -> &'static [&'static str] {
                &["true", "false", "1", "0", "yes", "no", "on", "off", $word]
            }

            fn parse(text: &str) -> Result<Self, String> {
                if text.eq_ignore_ascii_case($word) {
                    return Ok($name::$variant);
                }
                boolean(text).map($name::Boolean).ok_or_else(|| {
                    format!("expected {}{}", Self::type_name(), did_you_mean(text, Self::choices()))
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

        deserialize!($name);
    )+};
}

boolean_or! {
    /// `restrict_room_creation`: whether only admins may create rooms.
    RoomCreation {
        /// Users of the component's parent host may, too.
        Local = "local"
    }

    /// `default_archive_policy`: what is archived for a user who never chose.
    ArchivePolicy {
        /// Messages with contacts alone.
        Roster = "roster"
    }
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
    fn a_choice_is_taken_in_any_case_and_spelled_as_prosody_does() {
        assert_eq!(DbDriver::parse("postgresql").unwrap().as_str(), "PostgreSQL");
        assert_eq!(DbDriver::parse("SQLITE3").unwrap().lua(), Value::from("SQLite3"));
        assert_eq!(LogLevel::parse("Warn"), Ok(LogLevel::Warn));
    }

    #[test]
    fn a_wrong_choice_is_answered_with_all_and_with_the_nearest() {
        assert_eq!(
            TlsProfile::parse("intermediat").unwrap_err(),
            "expected `modern`, `intermediate`, `old` or `legacy`; did you mean `intermediate`?"
        );
        assert_eq!(LdapMode::parse("whatever").unwrap_err(), "expected `bind` or `getpasswd`");
    }

    #[test]
    fn a_boolean_or_a_word() {
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
