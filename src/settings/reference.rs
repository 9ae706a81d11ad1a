//! The catalogue as Markdown, as a table, as a JSON schema and as an environment file, and the effective settings.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::Settings;
use super::catalogue::{self, Field, SECTIONS, STORE_PREFIX, Setting};
use super::compat::{self, Meaning};
use super::input::Given;

/// The reference in Markdown, the content of `docs/settings.md`.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Settings\n\n\
         <!-- Written by `prosody-entrypoint settings --format markdown`: make docs. -->\n\n\
         Every setting is an environment variable, and has a `_FILE` twin that names a file with the value in it\n\
         (`PROSODY_DB_PASSWORD_FILE=/run/secrets/db`). An empty variable is the same as none. Lists are separated by\n\
         commas or white space, or written as a JSON array; `none` is the empty list. A wrong value ends the start with\n\
         exit status 78 and one report of everything that is wrong; a name that is no setting is a warning.\n\n\
         Where a setting maps to one option of Prosody's, its name is that option's in capitals:\n\
         [Prosody's manual](https://prosody.im/doc/configure) says more about it.\n",
    );
    for section in SECTIONS {
        let _ = write!(
            text,
            "\n## {}\n\n| setting | type | default | meaning |\n| --- | --- | --- | --- |\n",
            section.title
        );
        for setting in section.settings {
            let aliases = match setting.aliases {
                [] => String::new(),
                aliases => format!(" Also `{}`.", aliases.join("`, `")),
            };
            row(
                &mut text,
                &setting.field.variable(),
                &type_name(setting),
                setting.default,
                &format!("{}{aliases}", setting.meaning),
            );
        }
        if section.title == "Storage" {
            let (name, meaning) = store();
            row(&mut text, &name, "name", "`PROSODY_DEFAULT_STORAGE`", meaning);
        }
    }
    text.push_str(
        "\n## Moving in from other images\n\n\
         Variables of other images keep their meaning. Those that any program could have, because they do not begin with\n\
         `PROSODY_`, count where `DOMAIN` does; what stands beside it and has no effect is one line in the log. The\n\
         `PROSODY_SQL_*` have defaults of their own: the driver makes `sql` the default storage, SQLite3's file is\n\
         `prosody.sqlite`, no host is the local socket, no user is none; with `PROSODY_DB_*` beside them they are an error.\n\
         `PROSODY_STORAGE=sql` with nothing that describes a database is SQLite too.\n\n\
         | variable | means |\n| --- | --- |\n",
    );
    for setting in catalogue::settings() {
        for alias in setting.aliases {
            let _ = writeln!(text, "| `{alias}` | `{}` |", setting.field.variable());
        }
    }
    for (name, meaning) in compat::VARIABLES {
        let means = match meaning {
            Meaning::Special(_, means) => (*means).to_owned(),
            Meaning::Setting(_) => compat::setting(name, meaning),
            Meaning::Unsupported(_) => format!("nothing: use {}", compat::setting(name, meaning)),
        };
        let _ = writeln!(text, "| `{name}` | {means} |");
    }
    text
}

fn row(text: &mut String, name: &str, type_name: &str, default: &str, meaning: &str) {
    let escape = |cell: &str| cell.replace('|', "\\|");
    let cells = [escape(type_name), escape(default), escape(meaning)];
    let _ = writeln!(text, "| `{name}` | {} |", cells.join(" | "));
}

/// The name and the meaning of the settings for single stores.
fn store() -> (String, &'static str) {
    (
        format!("{STORE_PREFIX}<STORE>"),
        "One store's backend: `PROSODY_STORAGE_ARCHIVE=sql`. The store's name in capitals.",
    )
}

fn type_name(setting: &Setting) -> String {
    let secret = if setting.secret { "; secret" } else { "" };
    format!("{}{secret}", (setting.type_name)())
}

/// The reference in columns for a terminal.
pub fn table() -> String {
    let mut text = String::new();
    for section in SECTIONS {
        let _ = writeln!(text, "{}{}", if text.is_empty() { "" } else { "\n" }, section.title);
        for setting in section.settings {
            let default = match setting.default {
                "" => String::new(),
                default => format!(" [default: {}]", default.replace('`', "")),
            };
            let _ = writeln!(text, "  {:38} {}", setting.field.variable(), setting.meaning.replace('`', ""));
            let _ = writeln!(text, "  {:38} {}{default}", "", type_name(setting).replace('`', ""));
        }
        if section.title == "Storage" {
            let (name, meaning) = store();
            let _ = writeln!(text, "  {name:38} {}", meaning.replace('`', ""));
        }
    }
    text
}

/// A JSON schema of the environment, an object of strings.
pub fn json_schema() -> String {
    let mut properties = Map::new();
    for setting in catalogue::settings() {
        let mut property = json!({
            "type": "string",
            "title": type_name(setting),
            "description": setting.meaning,
            "examples": [setting.example],
        });
        if !setting.default.is_empty() {
            property["x-default"] = setting.default.into();
        }
        if setting.secret {
            property["writeOnly"] = true.into();
        }
        properties.insert(setting.field.variable(), property);
        let file = json!({ "type": "string", "description": format!("A file with the value of {} in it.", setting.field.variable()) });
        properties.insert(format!("{}_FILE", setting.field.variable()), file);
    }
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The environment of prosody-entrypoint",
        "type": "object",
        "properties": Value::Object(properties),
        "patternProperties": { format!("^{STORE_PREFIX}[A-Z0-9_]+$"): { "type": "string", "description": store().1 } },
    });
    format!("{schema:#}\n")
}

/// A file for `docker run --env-file`, with every setting commented out.
pub fn env_file() -> String {
    let mut text = String::from("# Settings of prosody-entrypoint: remove the # in front of what you set.\n");
    for section in SECTIONS {
        let _ = writeln!(text, "\n# --- {} ---", section.title);
        for setting in section.settings {
            let _ =
                writeln!(text, "\n# {}\n#{}={}", setting.meaning, setting.field.variable(), setting.example);
        }
    }
    text
}

/// Every setting with its effective value and the source of the value. Secrets are hidden.
pub fn effective(settings: &Settings) -> String {
    let mut text = String::new();
    for setting in catalogue::settings() {
        let name = setting.field.variable();
        match settings.source.given.get(&setting.field) {
            Some(given) => line(&mut text, &name, given, setting.shows(&given.value)),
            None if setting.default.is_empty() => {}
            None => {
                let _ = writeln!(text, "{name:38} {:30} default", setting.default.replace('`', ""));
            }
        }
    }
    for (store, given) in &settings.source.stores {
        line(&mut text, &format!("{STORE_PREFIX}{}", store.to_ascii_uppercase()), given, true);
    }
    let legacy = settings.source.legacy.given.iter().map(|(name, given)| (*name, given));
    for (name, given) in
        legacy.chain(settings.source.given.get(&Field::account).map(|given| ("PASSWORD", given)))
    {
        line(&mut text, name, given, name != "PASSWORD");
    }
    text
}

fn line(text: &mut String, name: &str, given: &Given, is_shown: bool) {
    let value = if is_shown { given.value.escape_debug().to_string() } else { "<secret>".to_owned() };
    let source = match (&given.file, given.variable == name) {
        (Some(file), _) => format!("{} ({})", file.display(), given.variable),
        (None, true) => "environment".to_owned(),
        (None, false) => format!("environment ({})", given.variable),
    };
    let _ = writeln!(text, "{name:38} {value:30} {source}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `make docs` regenerates the file.
    #[test]
    fn the_reference_in_the_docs_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/settings.md");
        let is_current = std::fs::read_to_string(path).unwrap_or_default() == markdown();
        assert!(is_current, "{path} is stale: run `make docs`");
    }
}
