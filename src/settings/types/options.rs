//! Custom Prosody options, as a JSON object.

use super::json::Json;
use super::{SettingType, did_you_mean, shown};
use crate::lua::{Value, is_identifier};
use crate::text::grouped;
use std::fmt;

/// Custom options in their order, as in `PROSODY_OPTIONS`. The value `None` (`null` in JSON) leaves an option out of
/// the configuration. Values may be secrets: no message contains one, and `Debug` shows only names.
#[derive(Clone, Default, PartialEq)]
pub struct CustomOptions(Vec<(String, Option<Value>)>);

impl CustomOptions {
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&Value>)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_ref()))
    }

    /// One option: `None` if it is absent, `Some(None)` if it is `null`.
    pub fn get(&self, name: &str) -> Option<Option<&Value>> {
        self.iter().find(|(candidate, _)| *candidate == name).map(|(_, value)| value)
    }

    /// Whether a field of an option with a table is set here, or the option as a whole is no table or left out.
    pub fn decides_field(&self, option: &str, field: &str) -> bool {
        match self.get(option) {
            None => false,
            Some(Some(table @ Value::Table(_))) => table.get(field).is_some(),
            Some(_) => true,
        }
    }

    /// Parses the members of an object. `refuse` gets a name and returns the reason if the option is not allowed here.
    /// The result contains all errors, without values.
    pub(super) fn from_members(
        members: Vec<(String, Json)>,
        refuse: impl Fn(&str) -> Option<String>,
    ) -> Result<CustomOptions, Vec<String>> {
        let mut options = Vec::with_capacity(members.len());
        let mut errors = Vec::new();
        let mut add = |name: &str, reason: String| errors.push((reason, shown(name)));
        for (name, json) in members {
            if let Some(reason) = reserved_name(&name).or_else(|| refuse(&name)) {
                add(&name, reason);
                continue;
            }
            let value = match json {
                Json::Null => Ok(None),
                json => json.into_value().map(Some),
            };
            match value {
                Ok(value) => options.push((name, value)),
                Err(reason) => add(&name, reason),
            }
        }
        if errors.is_empty() {
            return Ok(CustomOptions(options));
        }
        let sentence = |(reason, names): (String, Vec<String>)| match &names[..] {
            [name] => format!("the option {name}: {reason}"),
            _ => format!("the options {}, each: {reason}", names.join(", ")),
        };
        // Names with the same error are reported together.
        Err(grouped(errors).into_iter().map(sentence).collect())
    }
}

impl fmt::Debug for CustomOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// The functions that Prosody's loader defines for a configuration file (`core/configmanager.lua` of 0.12 and 13.0).
/// Assigning to one of them sets no option, but removes the function for the rest of the file.
const LOADER_NAMES: [&str; 13] = [
    "Component", "Credential", "FileContents", "FileLine", "FileLines", "Host", "Include", "Lua",
    "RunScript", "VirtualHost", "component", "host", "include",
];

/// The reason if an option of this name cannot be set in Prosody's configuration.
fn reserved_name(name: &str) -> Option<String> {
    let reason = if !is_identifier(name) {
        "not a Lua identifier (letters, digits and `_`), or one of Lua's reserved words"
    } else if LOADER_NAMES.contains(&name) {
        "it would replace a function of Prosody's configuration loader"
    } else if name.starts_with("ENV_") {
        "names that begin with `ENV_` are environment variables in Prosody's configuration"
    } else if name.starts_with("__") || name == "_ENV" {
        // Assigning to `_ENV` replaces the environment, and all later options are lost.
        "names that begin with `__`, and `_ENV`, belong to Lua"
    } else if name == "component_module" {
        // The loader marks components with it. As a global option, it would turn every virtual host into a component.
        "Prosody's configuration loader sets it by itself"
    } else {
        return None;
    };
    Some(reason.into())
}

/// The reason if an option cannot be set for one host, because Prosody reads it only globally.
pub(super) fn global_only(name: &str) -> Option<String> {
    let global = name.starts_with("s2s_")
        || name == "limits"
        || ["port", "interface"].iter().any(|kind| {
            let plural = name.strip_suffix('s');
            plural.is_some_and(|name| name == *kind || name.ends_with(&format!("_{kind}")))
        })
        || name == "interface"
        || name.ends_with("_interface");
    global.then(|| {
        advice!("Prosody takes it only globally; move it to `PROSODY_OPTIONS` or its own setting").into()
    })
}

impl SettingType for CustomOptions {
    const NAME: &'static str = "JSON object";
    const EXAMPLE: &'static str = r#"{"max_resources": 5}"#;
    const IS_SECRET: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        let expected = format!("expected a JSON object, such as `{}`", Self::EXAMPLE);
        match Json::read(text) {
            Err(syntax) => Err(format!("{expected}: {syntax}")),
            Ok(Json::Object(members)) => {
                CustomOptions::from_members(members, |_| None).map_err(|errors| errors.join("; "))
            }
            Ok(other) => Err(format!("{expected}, not {}", other.type_name())),
        }
    }
}

/// The error for an unknown member, with the nearest known name.
pub(super) fn unknown_member(name: &str, known: &[&'static str]) -> String {
    format!("unknown member {}{}", shown(name), did_you_mean(name, known))
}

#[cfg(test)]
mod tests {
    use super::super::tests::line;
    use super::*;

    #[test]
    fn options_keep_their_order_and_their_types() {
        let options = CustomOptions::parse(
            r#"{"z": 5, "a": [1.0, "x", true], "gone": null, "t": {"k k": 0.5, "n": null}}"#,
        )
        .unwrap();
        let shown: Vec<String> = options
            .iter()
            .map(|(name, value)| format!("{name}={}", value.map_or("-".into(), line)))
            .collect();
        assert_eq!(shown, ["z=5", r#"a=[1,"x",true]"#, "gone=-", r#"t={"k k":0.5}"#]);
        assert_eq!(options.get("gone"), Some(None));
        assert_eq!(options.get("none"), None);
        assert_eq!(format!("{options:?}"), r#"{"z", "a", "gone", "t"}"#);
    }

    #[test]
    fn names_that_break_the_configuration_are_refused() {
        for name in [
            "", "1a", "a-b", "a b", "ünï", "a\\u0000", "a]]", "end", "goto", "true", "ENV_HOME", "__index",
            "__currenthost", "_ENV", "Lua", "VirtualHost", "Host", "host", "Component", "component",
            "Include", "include", "RunScript", "FileContents", "FileLine", "FileLines", "Credential",
            "component_module",
        ] {
            let error = CustomOptions::parse(&format!(r#"{{"{name}": "S3CRET"}}"#)).expect_err(name);
            assert!(error.starts_with("the option \""), "{name}: {error}");
            assert!(!error.contains("S3CRET"), "{error}");
        }
        for name in ["max_resources", "_a", "A1", "includes", "End", "lua", "env_x", "limits", "hosts"] {
            assert!(CustomOptions::parse(&format!(r#"{{"{name}": 1}}"#)).is_ok(), "{name}");
        }
    }

    #[test]
    fn all_errors_are_reported_without_values() {
        let error =
            CustomOptions::parse(r#"{"a": [null, "S3CRET"], "end": "S3CRET", "b": {"S3CRET": [null]}}"#)
                .unwrap_err();
        assert_eq!(
            error,
            "the options \"a\", \"b\", each: `null` has no meaning in an array; \
             the option \"end\": not a Lua identifier (letters, digits and `_`), or one of Lua's reserved words"
        );
    }

    #[test]
    fn values_other_than_objects_are_refused_and_not_shown() {
        for text in [
            "S3CRET",
            "\"S3CRET\"",
            "[\"S3CRET\"]",
            "1",
            "{\"a\": \"S3CRET\"",
            "{\"a\": S3CRET}",
            "{'a': 'S3CRET'}",
            "{\"a\": \"S3CRET\\x\"}",
            "{\"a\": \"S3CRET\u{1}\"}",
            "{} S3CRET",
        ] {
            let error = CustomOptions::parse(text).expect_err(text);
            assert!(error.starts_with("expected a JSON object"), "{text}: {error}");
            assert!(!error.contains("S3CRET"), "{text}: {error}");
        }
    }

    #[test]
    fn some_options_are_only_global() {
        for name in [
            "s2s_secure_auth", "limits", "c2s_ports", "ports", "interfaces", "interface", "http_interfaces",
            "component_interface",
        ] {
            assert!(global_only(name).is_some(), "{name}");
        }
        for name in ["turn_external_port", "port", "passports", "c2s_require_encryption", "reports"] {
            assert!(global_only(name).is_none(), "{name}");
        }
    }
}
