//! The types of settings' values. Each parses the text of one environment variable, or of a `_FILE`. A parsed value is
//! always valid, so a `Domain` needs no second check.

mod choices;
mod domains;
mod hosts;
mod json;
mod lists;
mod names;
mod network;
mod numbers;
mod options;
mod paths;
mod time;
mod urls;

pub use choices::{
    ArchivePolicy, Boolean, DbDriver, E2ePolicy, Feature, LdapMode, LdapScope, LogFormat, LogLevel,
    ModuleSharing, NetworkBackend, ProxiedService, RoomCreation, TlsProfile,
};
pub use domains::{BareOrDomain, Domain, Jid, ascii, parents};
pub use hosts::{
    Account, Accounts, Component, Components, DiscoItem, DiscoItems, ExternalComponent, ExternalComponents,
    HostSection, Password, VirtualHost, VirtualHosts,
};
pub use lists::{List, Set};
pub use names::{Name, Text, TlsGroup, UserName};
pub use network::{
    Address, Cidr, Interface, Network, Origin, Origins, Port, ProxiedPort, Proxy, Resolver, TurnHost,
};
pub use numbers::{Gigabytes, Id, Megabytes, Rate, ShardCount, ShardNumber, ShardSlot};
pub use options::CustomOptions;
pub use paths::{Glob, Path, PluginPath};
pub use time::{ArchiveDuration, Days, Expiry, Interval, Seconds, Wait};
pub use urls::{DatabaseUrl, HttpUrl, Uri};

use crate::lua::{Secret, Value};
use serde::{Deserialize, Deserializer, de};
use std::borrow::Cow;

/// A value that an environment variable can hold.
pub trait SettingType: Sized {
    /// The type's name in the reference: `duration`, `boolean`. Empty if [`SettingType::type_name`] composes it.
    const NAME: &'static str = "";
    /// The plural of the name, if it does not just end in `s`.
    const PLURAL: Option<&'static str> = None;
    /// A valid value, for messages and the reference.
    const EXAMPLE: &'static str;
    /// All valid words, if the type is a fixed choice.
    const CHOICES: &'static [&'static str] = &[];

    /// The type's name in the reference: [`SettingType::NAME`], the words of a choice, or `list of domains`.
    fn type_name() -> Cow<'static, str> {
        if Self::NAME.is_empty() { alternatives(Self::CHOICES).into() } else { Self::NAME.into() }
    }

    /// The plural of the name, or the words of a choice, for use after `list of`.
    fn plural() -> Cow<'static, str> {
        if Self::NAME.is_empty() && !Self::CHOICES.is_empty() {
            return Self::type_name();
        }
        Self::PLURAL.map_or_else(|| format!("{}s", Self::type_name()).into(), Cow::from)
    }

    /// Parses the text, which is never empty.
    /// Errors: a clause with the expected form, the invalid piece, and the nearest valid choice if there is one. It
    /// contains no part of a text that [`SettingType::hides`].
    fn parse(text: &str) -> Result<Self, String>;

    /// Whether every text is a secret.
    const IS_SECRET: bool = false;

    /// Whether this text may contain a secret, and must not be printed.
    fn hides(_text: &str) -> bool {
        Self::IS_SECRET
    }
}

/// A value with a direct equivalent in Prosody's configuration.
pub trait Lua {
    /// The value to render: integers as `i64`, lists as sequences, JSON objects as maps.
    fn lua(&self) -> Value;
}

/// Implements [`Lua`] with an expression for the value.
macro_rules! lua {
    ($( $(#[$meta:meta])* $type:ty: $self:ident => $value:expr; )+) => {$(
        impl $crate::settings::types::Lua for $type {
            fn lua(&$self) -> $crate::lua::Value {
                $crate::lua::Value::from($value)
            }
        }
    )+};
}
use lua;

/// Deserialises a setting that is given, with [`SettingType::parse`], from the string that `envy` provides.
/// Errors: those of [`SettingType::parse`].
pub fn parse_given<'de, D: Deserializer<'de>, T: SettingType>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::parse(&String::deserialize(deserializer)?).map(Some).map_err(de::Error::custom)
}

/// Quotes a piece of a value for a message: on one line, with control characters escaped, and truncated if it is long.
pub fn shown(piece: &str) -> String {
    const LONGEST: usize = 80;
    let beginning: String = piece.chars().take(LONGEST).collect();
    if beginning.len() == piece.len() { format!("{piece:?}") } else { format!("{beginning:?}…") }
}

/// Lists choices in a sentence: `` `a`, `b` or `c` ``.
fn alternatives(choices: &[&str]) -> String {
    match choices {
        [] => String::new(),
        [only] => format!("`{only}`"),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(|choice| format!("`{choice}`")).collect();
            format!("{} or `{last}`", first.join(", "))
        }
    }
}

/// The end of a message: the nearest choice, if there is one.
fn did_you_mean(word: &str, choices: &[&'static str]) -> String {
    match crate::text::nearest(word, choices.iter().copied()) {
        Some(choice) => format!("; did you mean `{choice}`?"),
        None => String::new(),
    }
}

impl SettingType for Secret {
    const NAME: &'static str = "text";
    const EXAMPLE: &'static str = "correct horse battery staple";
    const IS_SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        Ok(Secret::new(text.to_owned()))
    }
}

lua! {
    Secret: self => self.clone();
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error, StringDeserializer};

    /// The value as JSON on one line.
    pub(super) fn line(value: &Value) -> String {
        serde_json::to_string(&crate::templates::values::to_template(value)).unwrap()
    }

    /// Hostile texts. A type must parse or refuse each of them, without a panic.
    fn hostile() -> Vec<String> {
        let mut texts: Vec<String> = [
            "",
            " ",
            ",",
            ",,",
            "\n",
            "\r\n",
            "\t",
            "\0",
            "\"",
            "'",
            "\\",
            "]]",
            "]==]",
            "--[[",
            "{{",
            "{{ x }}",
            "{%",
            "${x}",
            "$(id)",
            "`id`",
            "😀",
            "é\u{301}",
            "\u{202e}",
            "\u{feff}",
            "\u{fffd}",
            "\u{10ffff}",
            "a\"; os.execute(\"id\") --",
            "info = \"*console\"; }; os.execute(\"id\")",
            "a\nb",
            "a\r\nb",
            "a\0b",
            "none",
            "None,",
            "[]",
            "[",
            "]",
            "{}",
            "{",
            "[[",
            "[{}]",
            "[null]",
            "[[]]",
            "[\"\"]",
            "{\"\":1}",
            "{\"a\":{}}",
            "[1,2]",
            "[::1]",
            "[::1",
            ":",
            "::",
            ":::",
            "@",
            "a@",
            "@a",
            "a@b",
            "a:b",
            ":a",
            "a:",
            "a@b:c",
            "/",
            "//",
            "///",
            "a/b",
            "://",
            "a://",
            "a://b",
            "://a",
            "#",
            "?",
            "%",
            "%zz",
            "*",
            ".",
            "..",
            "-",
            "--",
            "_",
            "0",
            "-1",
            "+1",
            "1.5",
            "1e9",
            "NaN",
            "inf",
            "0x10",
            "m",
            "1m",
            "1 m",
            "1d1",
            ".5d",
            "18446744073709551616",
            "340282366920938463463374607431768211456",
            "xn--",
            "xn--a",
            "XN--A.B",
            "mod_",
            "postgresql://",
            "postgresql://@",
            "mysql://:@:/?",
            "sqlite://",
            "sqlite:",
            "postgresql://[::1",
            "https://[",
            "https://@",
            "1.2.3.4/",
            "::/129",
            "1.2.3.4@",
            "ＮＯＮＥ",
            "İ",
            "ß",
            "\u{ad}",
        ]
        .map(str::to_owned)
        .to_vec();
        for piece in
            ["a", "9", ".", ",", "a,", "[", "{", "\"", "é", "😀", "\0", ":", "@", "xn--a.", "1d", "a:b "]
        {
            texts.push(piece.repeat(20_000 / piece.len()));
        }
        texts.push(format!("[{}]", vec!["\"\\u0000]]\""; 2_000].join(",")));
        texts
    }

    /// Runs `$check::<T>()` for every type.
    macro_rules! for_every_type {
        ($check:ident) => {
            for_every_type!($check:
                ArchiveDuration, ArchivePolicy, Accounts, Address, BareOrDomain, Boolean, Cidr, Components,
                DatabaseUrl, Days, DbDriver, DiscoItems, Domain, E2ePolicy, ExternalComponents, Gigabytes, Glob, HttpUrl, Id,
                Interface, Interval, Jid, LdapMode, LdapScope, List<Path>, List<Uri>, LogFormat, LogLevel,
                Megabytes, ModuleSharing, Name, Network, NetworkBackend, CustomOptions, Origins, Path, PluginPath, Port, Proxy, Rate, Resolver,
                RoomCreation, Seconds, Secret, Set<Address>, Set<BareOrDomain>, Set<Domain>, Set<Interface>,
                Set<Name>, Set<Network>, Set<PluginPath>, Set<Port>, Set<Resolver>, Text, TlsProfile, TurnHost,
                Uri, UserName, VirtualHosts, Wait
            )
        };
        ($check:ident: $($type:ty),+) => { $( $check::<$type>(); )+ };
    }

    #[test]
    fn hostile_text_never_panics() {
        fn check<T: SettingType>() {
            for text in hostile() {
                let Err(error) = T::parse(&text) else { continue };
                let case = format!("{} of {}: {error}", T::type_name(), shown(&text));
                assert!(!error.is_empty(), "{case}");
                assert!(!error.contains(char::is_control), "one line: {case}");
                let secret = format!("S3CRET{text}S3CRET");
                if T::hides(&secret) {
                    let error = T::parse(&secret).err().unwrap_or_default();
                    assert!(!error.contains("S3CRET"), "{case}: {error}");
                }
            }
        }
        for_every_type!(check);
    }

    #[test]
    fn every_example_is_valid_and_deserialises() {
        fn check<T: SettingType>() {
            assert!(!T::type_name().is_empty());
            for text in T::CHOICES.iter().chain([&T::EXAMPLE]) {
                let deserializer: StringDeserializer<Error> = text.to_string().into_deserializer();
                if let Err(error) = parse_given::<_, T>(deserializer) {
                    panic!("{}: {text}: {error}", T::type_name());
                }
            }
        }
        for_every_type!(check);
    }

    #[test]
    fn envy_fills_a_section_and_passes_errors_on() {
        #[derive(Deserialize)]
        struct Section {
            #[serde(default, deserialize_with = "parse_given")]
            prosody_domain: Option<Domain>,
            #[serde(default, deserialize_with = "parse_given")]
            prosody_c2s_ports: Option<Set<Port>>,
            #[serde(default, deserialize_with = "parse_given")]
            prosody_log_level: Option<LogLevel>,
        }
        let read =
            |name: &str, value: &str| envy::from_iter::<_, Section>([(name.to_owned(), value.to_owned())]);
        let section = read("PROSODY_C2S_PORTS", "5222,5223").unwrap();
        assert_eq!(section.prosody_c2s_ports.unwrap().len(), 2);
        assert!(section.prosody_domain.is_none() && section.prosody_log_level.is_none());
        assert_eq!(
            read("PROSODY_LOG_LEVEL", "warm").err().unwrap().to_string(),
            "expected `debug`, `info`, `warn` or `error`; did you mean `warn`?"
        );
    }

    #[test]
    fn a_piece_is_shown_on_one_line_and_truncated() {
        assert_eq!(shown("a\"\n\u{1b}"), r#""a\"\n\u{1b}""#);
        let long = shown(&"é".repeat(100_000));
        assert_eq!(long.chars().count(), 83);
    }

    #[test]
    fn type_names_are_those_in_the_reference() {
        assert_eq!(Set::<Domain>::type_name(), "list of domains");
        assert_eq!(Set::<BareOrDomain>::type_name(), "list of JIDs");
        assert_eq!(List::<PluginPath>::type_name(), "list of absolute paths without `;`");
        assert_eq!(Origins::type_name(), "list of origins, or `*`");
        assert_eq!(TlsProfile::type_name(), "`modern`, `intermediate`, `old` or `legacy`");
    }
}
