//! Names and plain text.

/// Declares a string type. Its `read` function validates and normalises the text.
macro_rules! texts {
    ($(
        $(#[$meta:meta])*
        $name:ident($type_name:literal, $plural:literal, $example:literal) = $read:expr;
    )+) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl $crate::settings::types::SettingType for $name {
            const NAME: &'static str = $type_name;
            const PLURAL: Option<&'static str> = Some($plural);
            const EXAMPLE: &'static str = $example;

            fn parse(text: &str) -> Result<Self, String> {
                let read: fn(&str) -> Result<String, String> = $read;
                read(text).map($name)
            }
        }

        impl $crate::settings::types::Lua for $name {
            fn lua(&self) -> crate::lua::Value {
                crate::lua::Value::from(self.as_str())
            }
        }
    )+};
}
pub(super) use texts;

texts! {
    /// Any text, unchanged.
    Text("text", "texts", "some text") = |text| Ok(text.to_owned());

    /// The name of a module, a store, a storage backend, or an authentication or statistics provider: `mam`,
    /// `internal_hashed`. It is in lower case and without the `mod_` of file names.
    Name("name", "names", "mam") = name;

    /// The name of a TLS group (RFC 8446, section 4.2.7) in OpenSSL: `X25519`, `P-256`.
    TlsGroup("name", "names", "X25519") = tls_group;

    /// The name of a system user, as in `/etc/passwd` (passwd(5)).
    UserName("name", "names", "prosody") = user_name;
}

fn name(text: &str) -> Result<String, String> {
    // File names have at most 255 bytes, and Prosody loads `mod_NAME.lua`.
    const LONGEST: usize = 200;
    let expected = "expected a name, such as `mam`";
    if text.len() > LONGEST {
        return Err(format!("{expected}: it is longer than {LONGEST} characters"));
    }
    let lower = text.to_ascii_lowercase();
    let name = lower.strip_prefix("mod_").unwrap_or(&lower);
    if name.is_empty() {
        return Err(format!("{expected}: nothing follows `mod_`"));
    }
    match name.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '_')) {
        None => Ok(name.to_owned()),
        Some(wrong) => Err(format!("{expected}, of letters, digits and `_`: {wrong:?} cannot stand in it")),
    }
}

fn tls_group(text: &str) -> Result<String, String> {
    // OpenSSL's lists have a syntax with `:`, `/`, `?` and others.
    match text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))) {
        None => Ok(text.to_owned()),
        Some(wrong) => Err(format!(
            "expected the name of a TLS group, such as `X25519`, of letters, digits, `-` and `_`: {wrong:?} cannot stand \
             in it"
        )),
    }
}

fn user_name(text: &str) -> Result<String, String> {
    let expected = "expected the name of a user, such as `prosody`";
    if text.len() > 256 {
        return Err(format!("{expected}: it is too long"));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{expected}: a number is a user id, which has a setting of its own"));
    }
    match text.chars().find(|&c| c == ':' || c == '/' || c.is_whitespace() || c.is_control()) {
        None => Ok(text.to_owned()),
        Some(wrong) => Err(format!("{expected}: {wrong:?} cannot stand in it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::types::SettingType;

    #[test]
    fn names_are_normalised() {
        for (text, name) in [
            ("mam", "mam"),
            ("mod_mam", "mam"),
            ("MAM", "mam"),
            ("Mod_Auth_Internal_Hashed", "auth_internal_hashed"),
            ("proxy65", "proxy65"),
        ] {
            assert_eq!(Name::parse(text).unwrap().as_str(), name);
        }
    }

    #[test]
    fn invalid_names_are_refused() {
        for (text, reason) in [
            ("mam.lua", "'.' cannot stand"),
            ("../x", "'.' cannot stand"),
            ("a-b", "'-' cannot stand"),
            ("a\0", "'\\0' cannot stand"),
            ("naïve", "'ï' cannot stand"),
            ("mod_", "nothing follows"),
            (&"a".repeat(10_240), "longer than"),
        ] {
            let error = Name::parse(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn users_have_names() {
        assert_eq!(UserName::parse("prosody-1").unwrap().as_str(), "prosody-1");
        assert!(UserName::parse("1000").unwrap_err().contains("a user id"));
        for text in ["a:b", "a b", "a\n", "../a"] {
            assert!(UserName::parse(text).is_err(), "{text}");
        }
    }
}
