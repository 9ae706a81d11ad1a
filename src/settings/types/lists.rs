//! Lists: pieces separated by commas and white space, or a JSON array.

use super::json::Json;
use super::{Lua, SettingType, shown};
use crate::lua::Value;
use crate::text::grouped;
use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::Hash;
use std::ops::Deref;

/// The non-empty pieces of a plain list: `a, b` has two.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c == ',' || c.is_whitespace()).filter(|piece| !piece.is_empty())
}

/// Whether the text is `none`, the empty list.
pub(super) fn is_none(text: &str) -> bool {
    text.trim().eq_ignore_ascii_case("none")
}

/// Whether the text may be a JSON array. (It may also be an IPv6 address in brackets.)
pub(super) fn may_be_array(text: &str) -> bool {
    text.trim_start().starts_with('[')
}

/// An ordered list: `a,b`, `a b` or `["a", "b"]`. `none` and `[]` are the empty list. If it is `UNIQUE`, only the first
/// of several equal elements is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List<T, const UNIQUE: bool = false>(Vec<T>);

/// An ordered list without duplicates.
pub type Set<T> = List<T, true>;

fn read<T: SettingType>(text: &str) -> Result<Vec<T>, String> {
    if is_none(text) {
        return Ok(Vec::new());
    }
    match may_be_array(text).then(|| Json::array(text)) {
        Some(Ok(elements)) => read_elements(elements),
        Some(Err(syntax)) => {
            read_pieces(text).map_err(|error| format!("{error} (it begins as a JSON array, but: {syntax})"))
        }
        None => read_pieces(text),
    }
}

fn read_pieces<T: SettingType>(text: &str) -> Result<Vec<T>, String> {
    let mut values = Vec::new();
    let mut rejected = Vec::new();
    for piece in pieces(text) {
        match T::parse(piece) {
            Ok(value) => values.push(value),
            Err(reason) => rejected.push((reason, shown(piece))),
        }
    }
    if values.is_empty() && rejected.is_empty() {
        return Err(format!(
            "expected a list of {}, such as `{}`; `none` is an empty list",
            T::plural(),
            T::EXAMPLE
        ));
    }
    match &mut rejected[..] {
        // The value is shown anyway.
        [(reason, _)] if values.is_empty() => Err(std::mem::take(reason)),
        _ => all_or_errors(values, rejected),
    }
}

pub(super) fn read_elements<T: SettingType>(elements: Vec<Json>) -> Result<Vec<T>, String> {
    let mut values = Vec::with_capacity(elements.len());
    let mut rejected = Vec::new();
    for element in elements {
        let text = match element {
            Json::Text(text) => text,
            // For example, a port.
            Json::Integer(number) => number.to_string(),
            other => {
                rejected.push(("expected a string".into(), other.type_name().into()));
                continue;
            }
        };
        if text.is_empty() {
            rejected.push(("expected something".into(), shown("")));
            continue;
        }
        match T::parse(&text) {
            Ok(value) => values.push(value),
            Err(reason) => rejected.push((reason, shown(&text))),
        }
    }
    all_or_errors(values, rejected)
}

/// The values, or the errors: each reason with its pieces.
fn all_or_errors<T>(values: Vec<T>, rejected: Vec<(String, String)>) -> Result<Vec<T>, String> {
    if rejected.is_empty() {
        return Ok(values);
    }
    let clause = |(reason, pieces): (String, Vec<String>)| format!("{}: {reason}", pieces.join(", "));
    Err(grouped(rejected).into_iter().map(clause).collect::<Vec<_>>().join("; "))
}

impl<T: SettingType + Eq + Hash, const UNIQUE: bool> SettingType for List<T, UNIQUE> {
    fn type_name() -> Cow<'static, str> {
        format!("list of {}", T::plural()).into()
    }

    const EXAMPLE: &'static str = T::EXAMPLE;

    fn parse(text: &str) -> Result<Self, String> {
        read(text).map(Self::from_iter)
    }
}

impl<T, const UNIQUE: bool> Default for List<T, UNIQUE> {
    fn default() -> Self {
        List(Vec::new())
    }
}

impl<T: Eq + Hash, const UNIQUE: bool> FromIterator<T> for List<T, UNIQUE> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let mut values: Vec<T> = values.into_iter().collect();
        if UNIQUE {
            let mut seen = HashSet::with_capacity(values.len());
            let is_first: Vec<bool> = values.iter().map(|value| seen.insert(value)).collect();
            let mut is_first = is_first.into_iter();
            values.retain(|_| is_first.next() == Some(true));
        }
        List(values)
    }
}

impl<T, const UNIQUE: bool> Deref for List<T, UNIQUE> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T, const UNIQUE: bool> IntoIterator for List<T, UNIQUE> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<T: Lua, const UNIQUE: bool> Lua for List<T, UNIQUE> {
    fn lua(&self) -> Value {
        self.0.iter().map(Lua::lua).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::line;
    use super::super::{Address, Domain, Name, Path, Port, Text};
    use super::*;

    fn names(text: &str) -> Vec<String> {
        let list = List::<Name>::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn lists_are_separated_by_commas_or_white_space_or_written_as_json() {
        for text in ["a,b", "a b", "a, b", " a\n\tb ", ",a,,b,", r#"["a","b"]"#, "\n[ \"a\",\n\"b\" ]\n"] {
            assert_eq!(names(text), ["a", "b"], "{text}");
        }
    }

    #[test]
    fn only_sets_drop_duplicates() {
        assert_eq!(names("b,a,b"), ["b", "a", "b"]);
        let set = Set::<Name>::parse("b a B mod_a").unwrap();
        assert_eq!(line(&set.lua()), r#"["b","a"]"#);
    }

    #[test]
    fn a_list_can_be_empty() {
        for text in ["none", "NONE", "[]", " [ ] "] {
            assert!(Set::<Domain>::parse(text).unwrap().is_empty(), "{text}");
        }
        assert_eq!(names("none a"), ["none", "a"]);
        for text in [" ", ",", ", ,"] {
            let error = Set::<Domain>::parse(text).unwrap_err();
            assert!(error.contains("`none` is an empty list"), "{text}: {error}");
        }
    }

    #[test]
    fn json_elements_may_contain_commas_and_spaces() {
        let list = List::<Path>::parse(r#"["/a, b", "/c"]"#).unwrap();
        assert_eq!(line(&list.lua()), r#"["/a, b","/c"]"#);
        let ports = Set::<Port>::parse("[5222, \"5223\", 5222]").unwrap();
        assert_eq!(line(&ports.lua()), "[5222,5223]");
    }

    #[test]
    fn a_value_that_begins_with_a_bracket_may_be_a_plain_list() {
        let list = Set::<Address>::parse("[2001:db8::1], 192.0.2.1").unwrap();
        assert_eq!(line(&list.lua()), r#"["2001:db8::1","192.0.2.1"]"#);
        let list = List::<Text>::parse("[a").unwrap();
        assert_eq!(list[0].as_str(), "[a");
    }

    #[test]
    fn every_invalid_piece_is_reported_with_its_reason() {
        assert_eq!(
            Set::<Port>::parse("5222 x 0 99999 5223 a\"\u{1b}b").unwrap_err(),
            r#""x", "0", "99999", "a\"\u{1b}b": expected a port, a whole number from 1 to 65535"#
        );
        let error = Set::<Name>::parse("a.b good c-d").unwrap_err();
        assert!(error.contains(r#""a.b": expected a name"#), "{error}");
        assert!(error.contains(r#"; "c-d": expected a name"#), "{error}");
        assert!(!error.contains("good"), "{error}");
    }

    #[test]
    fn invalid_json_is_reported_too() {
        let error = Set::<Domain>::parse(r#"["a.example", "b.example""#).unwrap_err();
        assert!(error.contains("begins as a JSON array, but: EOF"), "{error}");
        let error = Set::<Domain>::parse(r#"["a.example", true, {}, "", "b c"]"#).unwrap_err();
        assert!(error.contains("a boolean, an object: expected a string"), "{error}");
        assert!(error.contains(r#""": expected something"#), "{error}");
        assert!(error.contains(r#""b c": expected a domain"#), "{error}");
    }
}
