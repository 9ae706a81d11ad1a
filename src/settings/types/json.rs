//! Strict JSON: a duplicate member or an integer beyond 64 bits is an error. No error contains a value.

use crate::lua::Value;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// The maximum nesting depth. (Lua's parser takes at most 200 levels.)
const DEEPEST: usize = 100;

/// A JSON value. Members keep their order.
#[derive(Clone, PartialEq)]
pub(super) enum Json {
    Null,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Parses one JSON value. The error is a syntax error with its line and column.
    pub(super) fn read(text: &str) -> Result<Json, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// Parses a JSON array. The error is a syntax error with its line and column, or the type of the other value.
    pub(super) fn array(text: &str) -> Result<Vec<Json>, String> {
        match Json::read(text)? {
            Json::Array(elements) => Ok(elements),
            other => Err(format!("it is {}", other.type_name())),
        }
    }

    /// The type of the value, with its article, for messages.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Json::Null => "null",
            Json::Boolean(_) => "a boolean",
            Json::Integer(_) | Json::Float(_) => "a number",
            Json::Text(_) => "a string",
            Json::Array(_) => "an array",
            Json::Object(_) => "an object",
        }
    }

    /// Converts to a Lua value. A `null` member is left out. A `null` in an array is an error, because it would shift
    /// the elements after it.
    pub(super) fn into_value(self) -> Result<Value, String> {
        self.into_value_at(0)
    }

    fn into_value_at(self, depth: usize) -> Result<Value, String> {
        let nests = matches!(self, Json::Array(_) | Json::Object(_));
        if nests && depth >= DEEPEST {
            return Err(format!("it is nested deeper than {DEEPEST} levels"));
        }
        Ok(match self {
            Json::Null => return Err("`null` has no meaning in an array".into()),
            Json::Boolean(boolean) => Value::from(boolean),
            Json::Integer(number) => Value::from(number),
            Json::Float(number) => Value::from(number),
            Json::Text(text) => Value::from(text),
            Json::Array(elements) => {
                let elements: Result<Vec<Value>, String> =
                    elements.into_iter().map(|element| element.into_value_at(depth + 1)).collect();
                Value::from(elements?)
            }
            Json::Object(members) => {
                let members: Result<Vec<(String, Value)>, String> = members
                    .into_iter()
                    .filter(|(_, member)| *member != Json::Null)
                    .map(|(name, member)| Ok((name, member.into_value_at(depth + 1)?)))
                    .collect();
                Value::table(members?)
            }
        })
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, boolean: bool) -> Result<Json, E> {
        Ok(Json::Boolean(boolean))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Integer(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Json, E> {
        i64::try_from(number).map(Json::Integer).map_err(|_| too_large())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Json, E> {
        // `1.0` and `1e3` become integers, which Lua 5.3 and later distinguish from floats. serde_json parses integers
        // beyond 64 bits as floats, too.
        const END: f64 = 9_223_372_036_854_775_808.0;
        if number.fract() != 0.0 {
            Ok(Json::Float(number))
        } else if number.abs() < END {
            Ok(Json::Integer(number as i64))
        } else {
            Err(too_large())
        }
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Json, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = array.next_element()? {
            elements.push(element);
        }
        Ok(Json::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Json, A::Error> {
        let mut members: Vec<(String, Json)> = Vec::new();
        while let Some(member) = object.next_entry()? {
            members.push(member);
        }
        let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(de::Error::custom("a member of an object stands twice"));
        }
        Ok(Json::Object(members))
    }
}

fn too_large<E: de::Error>() -> E {
    E::custom("a whole number does not fit into 64 bits")
}

#[cfg(test)]
mod tests {
    use super::super::tests::line;
    use super::*;

    fn lua(text: &str) -> Result<String, String> {
        Json::read(text)?.into_value().map(|value| line(&value))
    }

    #[test]
    fn whole_numbers_are_integers() {
        for (text, expected) in [
            ("1", 1),
            ("1.0", 1),
            ("1e3", 1000),
            ("-0.0", 0),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ] {
            let value = Json::read(text).unwrap().into_value().unwrap();
            assert_eq!(value, Value::Integer(expected), "{text}");
        }
        assert_eq!(lua("0.5").unwrap(), "0.5");
        for text in ["9223372036854775808", "-9223372036854775809", "1e19", "1e300", "1e999"] {
            let error = lua(text).expect_err(text);
            assert!(error.contains("64 bits") || error.contains("out of range"), "{error}");
        }
    }

    #[test]
    fn null_leaves_a_member_out_and_is_refused_in_an_array() {
        assert_eq!(lua(r#"{"a": null, "b": {"c": null}}"#).unwrap(), r#"{"b":{}}"#);
        assert!(lua(r#"[1, null]"#).unwrap_err().contains("in an array"));
        assert!(lua(r#"{"a": [{"b": [null]}]}"#).unwrap_err().contains("in an array"));
    }

    #[test]
    fn duplicate_members_are_refused() {
        let error = lua(r#"{"a": {"S3CRET": 1, "S3CRET": 2}}"#).unwrap_err();
        assert!(error.contains("stands twice at line 1"), "{error}");
        assert!(!error.contains("S3CRET"), "{error}");
    }

    #[test]
    fn nesting_has_a_limit() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(lua(&nested(100)).is_ok());
        assert!(lua(&nested(101)).unwrap_err().contains("deeper than 100"));
        assert!(lua(&nested(100_000)).unwrap_err().contains("recursion limit"));
    }

    #[test]
    fn strings_keep_every_character() {
        let value = Json::read(r#""a\u0000\"\\ ]] {{ \ud83d\ude00\n""#).unwrap();
        assert_eq!(value.into_value().unwrap().as_str(), Some("a\0\"\\ ]] {{ 😀\n"));
    }
}
