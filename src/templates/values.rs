//! Conversion of Lua values to the template engine's values, and back for output.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use minijinja::value::{DynObject, Object, ObjectRepr, ValueKind};
use minijinja::{ErrorKind, Value};

use crate::lua::{self, Dialect, Error, Secret, is_identifier};

/// The maximum depth of a conversion. It exceeds the limit of [`lua::write`], which reports the error.
const DEEPEST: usize = 200;

/// Converts a Lua value for a template's context.
pub fn to_template(value: &lua::Value) -> Value {
    match value {
        lua::Value::Nil => Value::from(()),
        lua::Value::Boolean(boolean) => Value::from(*boolean),
        lua::Value::Integer(integer) => Value::from(*integer),
        lua::Value::Float(float) => Value::from(*float),
        lua::Value::Text(text) => Value::from(text.as_str()),
        lua::Value::Bytes(bytes) => Value::from_bytes(bytes.clone()),
        lua::Value::Secret(secret) => Value::from_object(secret.clone()),
        lua::Value::List(items) => items.iter().map(to_template).collect(),
        lua::Value::Table(fields) => {
            Value::from_pairs(fields.iter().map(|(key, value)| (to_template(key), to_template(value))))
        }
    }
}

/// Writes a template's value to `out` as a Lua literal.
/// Errors: as [`lua::write`], and for values that do not exist in Lua, such as undefined ones.
pub fn write(out: &mut dyn fmt::Write, value: &Value, dialect: Dialect) -> Result<(), Error> {
    if let Some(code) = value.downcast_object_ref::<Code>() {
        return Ok(out.write_str(&code.0)?);
    }
    lua::write(out, &from_template(value, 0)?, dialect)
}

/// Converts a template's value to a Lua value.
fn from_template(value: &Value, depth: usize) -> Result<lua::Value, Error> {
    if let Some(secret) = value.downcast_object_ref::<Secret>() {
        return Ok(lua::Value::Secret(secret.clone()));
    }
    if depth > DEEPEST {
        return Ok(lua::Value::Nil);
    }
    Ok(match value.kind() {
        ValueKind::None => lua::Value::Nil,
        ValueKind::Bool => lua::Value::Boolean(value.is_true()),
        ValueKind::Number if value.is_integer() => {
            let integer = i64::try_from(value.clone());
            let too_large = |_| Error::new("an integer that does not fit into Lua's 64 bits");
            lua::Value::Integer(integer.map_err(too_large)?)
        }
        ValueKind::Number => {
            let float = f64::try_from(value.clone());
            lua::Value::Float(float.map_err(|_| Error::new("not a number of Lua's"))?)
        }
        ValueKind::String => lua::Value::Text(value.as_str().unwrap_or_default().to_owned()),
        ValueKind::Bytes => lua::Value::Bytes(value.as_bytes().unwrap_or_default().to_vec()),
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter().map_err(|_| Error::new("a list that cannot be read"))?;
            let item = |(index, item): (usize, Value)| {
                from_template(&item, depth + 1).map_err(|error| error.inside(format!("item {}", index + 1)))
            };
            lua::Value::List(items.enumerate().map(item).collect::<Result<_, Error>>()?)
        }
        ValueKind::Map => {
            let pairs = value.as_object().and_then(|object| object.try_iter_pairs());
            let pairs = pairs.ok_or_else(|| Error::new("a table that cannot be read"))?;
            let field = |(key, item): (Value, Value)| {
                let item = from_template(&item, depth + 1).map_err(|error| error.inside(key.to_string()))?;
                Ok((key_from_template(&key)?, item))
            };
            let is_there = |(_, item): &(Value, Value)| !item.is_none() && !item.is_undefined();
            lua::Value::Table(pairs.filter(is_there).map(field).collect::<Result<_, Error>>()?)
        }
        ValueKind::Undefined => return Err(Error::new("undefined value")),
        kind => return Err(Error::new(format!("a value of kind {kind:?} has no Lua literal"))),
    })
}

fn key_from_template(key: &Value) -> Result<lua::Value, Error> {
    match key.kind() {
        ValueKind::Bool | ValueKind::Number | ValueKind::String | ValueKind::Bytes => from_template(key, 0),
        kind => Err(Error::new(format!("a key of kind {kind:?}; a key is a string, a number or a boolean"))),
    }
}

impl Object for Secret {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        Some(self.expose().cmp(other.downcast_ref::<Self>()?.expose()))
    }
}

/// Lua code, which [`write`] does not quote. It has no literal, so it is an error in a list or table.
#[derive(Debug)]
struct Code(String);

impl Object for Code {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A Lua name as code, such as the name of an option on the left of `=`. `None` if it is not valid ([`is_identifier`]).
pub fn lua_name(text: &str) -> Option<Value> {
    is_identifier(text).then(|| Value::from_object(Code(text.to_owned())))
}

/// The filter `verbatim_lua_code`: the only way to write text as Lua code. The result becomes plain text again when it is
/// joined to other text.
/// Errors: any value that is not a string. A [`Secret`] is none.
pub fn verbatim_lua_code(value: &Value) -> Result<Value, minijinja::Error> {
    match (value.kind(), value.as_str()) {
        (ValueKind::String, Some(code)) => Ok(Value::from_object(Code(code.to_owned()))),
        _ => Err(minijinja::Error::new(
            ErrorKind::InvalidOperation,
            format!("verbatim_lua_code takes a string, not a value of kind {:?}", value.kind()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use minijinja::context;

    use super::*;
    use crate::lua::{Secrets, Version, hide_secrets};

    const LUA_5_4: Dialect = Dialect { version: Version::Lua54, secrets: Secrets::Written };
    const HIDDEN: Dialect = Dialect { secrets: Secrets::Hidden, ..LUA_5_4 };

    fn literal(value: impl Into<Value>, dialect: Dialect) -> Result<String, String> {
        let mut literal = String::new();
        write(&mut literal, &value.into(), dialect).map_err(|error| error.to_string())?;
        Ok(literal)
    }

    fn written(value: impl Into<Value>) -> String {
        literal(value, LUA_5_4).unwrap()
    }

    fn refused(value: impl Into<Value>) -> String {
        literal(value, LUA_5_4).unwrap_err()
    }

    fn secret() -> Value {
        Value::from_object(Secret::new("hunter2".into()))
    }

    fn hidden(value: &Value) -> Value {
        to_template(&from_template(value, 0).unwrap().hidden())
    }

    #[test]
    fn text_stays_readable_and_invisible_characters_are_escaped() {
        assert_eq!(written("é 漢字 🐘 'x'"), "\"é 漢字 🐘 'x'\"");
        assert_eq!(written("\"\\\n\r\t"), r#""\"\\\n\r\t""#);
        assert_eq!(written("\x001\u{7f}2\u{85}"), r#""\0001\1272\194\133""#);
        assert_eq!(written("\u{202e}\u{feff}\u{2028}"), r#""\226\128\174\239\187\191\226\128\168""#);
        assert_eq!(written(Value::from_bytes(vec![b'a', 0xff, b'1'])), r#""a\2551""#);
    }

    #[test]
    fn numbers_keep_their_type() {
        assert_eq!(written(5222), "5222");
        assert_eq!(written(1.0), "1.0");
        assert_eq!(written(1e16), "1e16");
        assert_eq!(written(i64::MIN), "0x8000000000000000");
        assert_eq!(written(f64::NEG_INFINITY), "-1e9999");
        assert_eq!(written(f64::NAN), "(0/0)");
    }

    #[test]
    fn integers_that_lua_cannot_hold_are_refused() {
        let too_large = "an integer that does not fit into Lua's 64 bits";
        assert_eq!(refused(u64::MAX), too_large);
        assert_eq!(refused(i128::MIN), too_large);
        assert_eq!(refused(u128::MAX), too_large);
        let lua_5_2 = Dialect { version: Version::Lua52, ..LUA_5_4 };
        assert_eq!(literal(-(1_i64 << 53), lua_5_2).unwrap(), "-9007199254740992");
        for integer in [(1_i64 << 53) + 1, -(1 << 53) - 1, i64::MAX, i64::MIN] {
            assert_eq!(
                literal(integer, lua_5_2).unwrap_err(),
                "an integer beyond ±2^53, which Lua 5.2 cannot hold exactly"
            );
        }
    }

    #[test]
    fn none_is_nil_or_leaves_a_field_out_and_is_refused_in_a_list() {
        assert_eq!(written(()), "nil");
        assert_eq!(written(context! { a => (), b => 1, c => Value::UNDEFINED }), "{ b = 1 }");
        assert_eq!(
            refused(context! { a => vec![Value::from(1), Value::from(())] }),
            "a: item 2: none cannot stand in a list, which would end there"
        );
        assert_eq!(refused(Value::UNDEFINED), "undefined value");
        assert_eq!(refused(vec![Value::UNDEFINED]), "item 1: undefined value");
    }

    #[test]
    fn short_lists_take_one_line_and_others_one_line_per_item() {
        assert_eq!(written(Value::from(Vec::<Value>::new())), "{ }");
        assert_eq!(written(context! {}), "{ }");
        assert_eq!(written(vec![1, 2, 3, 4, 5, 6, 7, 8]), "{ 1, 2, 3, 4, 5, 6, 7, 8 }");
        assert!(written(vec![1, 2, 3, 4, 5, 6, 7, 8, 9]).starts_with("{\n\t1;\n\t2;\n"));
        assert_eq!(written(vec!["é".repeat(54)]), format!("{{ \"{}\" }}", "é".repeat(54)));
        assert_eq!(written(vec!["é".repeat(55)]), format!("{{\n\t\"{}\";\n}}", "é".repeat(55)));
        assert_eq!(
            written(context! {
                c2s => context! { rate => "10kb/s" },
                list => vec![context! { x => Vec::<i64>::new(), y => vec!["a"] }],
            }),
            "{\n\tc2s = { rate = \"10kb/s\" };\n\tlist = {\n\t\t{\n\t\t\tx = { };\n\t\t\ty = { \"a\" };\n\t\t};\n\t};\n}"
        );
    }

    #[test]
    fn keys_are_bare_only_if_they_are_names() {
        let keys = ["end", "a b", "", "1", "x1"].map(|key| (Value::from(key), 1));
        assert_eq!(
            written(Value::from_object(BTreeMap::from(keys))),
            r#"{ [""] = 1, ["1"] = 1, ["a b"] = 1, ["end"] = 1, x1 = 1 }"#
        );
        let keys = [Value::from(-1), Value::from(0.5), Value::from(2)].map(|key| (key, true));
        assert_eq!(
            written(Value::from_object(BTreeMap::from(keys))),
            "{ [-1] = true, [0.5] = true, [2] = true }"
        );
        for key in [Value::from(()), f64::NAN.into(), vec![1].into(), secret()] {
            let error = refused(Value::from_object(BTreeMap::from([(key, 1)])));
            assert!(error.contains("key"), "{error}");
        }
    }

    #[test]
    fn only_identifiers_are_names() {
        for name in ["a", "_", "A_1", "ends", "c2s_ports"] {
            assert!(is_identifier(name), "{name}");
            assert_eq!(written(lua_name(name).unwrap()), name);
        }
        for other in ["", "1a", "a-b", "a.b", "a b", "é", "end", "goto", "nil", "a\n", "a=1"] {
            assert!(!is_identifier(other), "{other}");
            assert!(lua_name(other).is_none(), "{other}");
        }
        // As a value, a bare name would be a variable.
        let os = lua_name("os").unwrap();
        assert_eq!(refused(vec![os]), "item 1: a value of kind Plain has no Lua literal");
    }

    #[test]
    fn tables_too_deep_for_luas_parser_are_refused() {
        let nested = |levels| (0..levels).fold(Value::from(1), |inner, _| vec![inner].into());
        assert!(literal(nested(100), LUA_5_4).is_ok());
        let error = refused(nested(101));
        assert!(error.starts_with("item 1: item 1: "), "{error}");
        assert!(error.ends_with("…: tables nested too deeply for Lua's parser"), "{error}");
        assert!(error.len() < 200, "{error}");
    }

    #[test]
    fn functions_have_no_literal() {
        let function = Value::from_function(|| 1);
        assert_eq!(refused(function), "a value of kind Plain has no Lua literal");
    }

    #[test]
    fn written_secrets_can_be_hidden_again() {
        for text in ["", "hunter2", "a\"b", "a\\", "\\\"", "--[[secret]] \"x\"", "line\nline", "ends in \\\\"]
        {
            let secret = Value::from_object(Secret::new(text.into()));
            let rendered = format!("a = {} -- after\nx = 1", written(secret));
            let hidden = hide_secrets(&rendered);
            assert_eq!(hidden, "a = \"<secret>\" -- after\nx = 1", "{rendered}");
        }
        assert_eq!(hide_secrets("x = \"--[[secret]] \\\"hunter2\\\"\"\ny = 1"), "x = \"\"<secret>\"\ny = 1");
    }

    #[test]
    fn texts_of_a_hidden_value_are_written_but_never_shown() {
        let value = context! { a => 4711, b => vec![Value::from(true), Value::from("x")] };
        let rendered = written(hidden(&value));
        assert_eq!(rendered, "{\n\ta = 4711;\n\tb = { true, --[[secret]] \"x\" };\n}");
        let shown = "{\n\ta = 4711;\n\tb = { true, \"<secret>\" };\n}";
        assert_eq!(literal(hidden(&value), HIDDEN).unwrap(), shown);
        assert_eq!(hide_secrets(&rendered), shown);
    }

    #[test]
    fn nested_secrets_are_written_or_hidden_too() {
        let value = context! { list => vec![secret()], password => secret() };
        assert_eq!(
            written(value.clone()),
            "{\n\tlist = { --[[secret]] \"hunter2\" };\n\tpassword = --[[secret]] \"hunter2\";\n}"
        );
        assert_eq!(
            literal(value, HIDDEN).unwrap(),
            "{\n\tlist = { \"<secret>\" };\n\tpassword = \"<secret>\";\n}"
        );
        assert_eq!(literal(secret(), HIDDEN).unwrap(), "\"<secret>\"");
    }

    #[test]
    fn a_secret_is_never_formatted() {
        let plain = Secret::new("hunter2".into());
        let nested = context! { password => secret(), list => vec![secret()] };
        for text in [
            format!("{plain} {plain:?} {plain:#?} {:?}", Some(&plain)),
            format!("{} {:?} {nested} {nested:?} {nested:#?}", secret(), secret()),
            serde_json::to_string(&nested).unwrap(),
            String::from(secret()),
        ] {
            assert!(text.contains("<secret>") && !text.contains("hunter2"), "{text}");
        }
        assert_eq!(secret().as_str(), None);
        assert_eq!(secret().len(), None);
        assert!(secret().try_iter().is_err());
    }

    #[test]
    fn secrets_are_compared_by_content() {
        assert_eq!(Secret::new("a".into()), Secret::new("a".into()));
        assert_eq!(secret(), secret());
        assert_ne!(secret(), Value::from_object(Secret::new("other".into())));
        assert_ne!(secret(), Value::from("hunter2"));
        assert_ne!(secret(), Value::from("<secret>"));
    }
}
