//! Values as Lua literals.
//!
//! [`write`] is the only way from a value to the configuration that Prosody reads: whatever the value
//! holds, Lua reads back that value, and never code.
//! The syntax is that of the Lua reference manuals 5.2, 5.3 and 5.4, section 3.1, "Lexical Conventions",
//! and section 3.4.9 (3.4.8 in 5.2), "Table Constructors".

pub mod tokens;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use minijinja::Value;
use minijinja::value::{DynObject, Object, ObjectRepr, ValueKind};

/// The Lua that will read the literals. Prosody 0.12 runs on 5.2 to 5.4, as 13.0 does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// Every number is a double: integers are exact up to ±2^53.
    Lua52,
    /// Integers of 64 bits beside floats.
    Lua53,
    /// As 5.3.
    Lua54,
}

/// The comment in front of a secret's literal: it tells people what not to show, and [`hide_secrets`] where they are.
const SECRET_MARK: &str = "--[[secret]] ";

/// What stands where a [`Secret`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// The secret, for a file that only Prosody can read.
    Written,
    /// The literal `"<secret>"`, for output that people see.
    Hidden,
}

/// How literals are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// The Lua that reads them.
    pub version: Version,
    /// Whether secrets are among them.
    pub secrets: Secrets,
}

/// Why a value has no Lua literal, and where inside the value that is. It never quotes a value, which may be
/// a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    reason: String,
    /// The items and keys that lead there, the innermost first.
    path: Vec<String>,
}

impl Error {
    fn new(reason: impl Into<String>) -> Error {
        Error { reason: reason.into(), path: Vec::new() }
    }

    fn inside(mut self, place: impl Into<String>) -> Error {
        self.path.push(place.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        for place in self.path.iter().rev().take(SHOWN) {
            write!(f, "{place}: ")?;
        }
        if self.path.len() > SHOWN {
            f.write_str("…: ")?;
        }
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Error {}

impl From<fmt::Error> for Error {
    fn from(_: fmt::Error) -> Error {
        Error::new("the output cannot be written to")
    }
}

/// Stands wherever a secret may not be shown.
const PLACEHOLDER: &str = "<secret>";

/// The words that no Lua from 5.2 to 5.4 takes as a name (section 3.1 of its manual).
const RESERVED: [&str; 22] = [
    "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in", "local",
    "nil", "not", "or", "repeat", "return", "then", "true", "until", "while",
];

/// The largest integer up to which a double holds every integer exactly.
const EXACT_IN_DOUBLE: u64 = 1 << 53;

/// A list or table of scalars this many columns wide, and no wider, stays on one line. With the option's
/// name to its left, the line then fits on a narrow terminal.
const ONE_LINE_WIDTH: usize = 60;

/// A longer list or table takes one line an item, however short its items are.
const ONE_LINE_ITEMS: usize = 8;

/// How many of Lua's registers the tables around a value may hold. Lua gives a function 250 (`MAXSTACK`
/// in 5.2's lcode.c; 5.3 and later have 255); the rest is left to the expression that the literal stands in.
const REGISTERS: usize = 200;

/// What one table holds while Lua reads a value inside it: the table, and perhaps its key. So there are at
/// most 100 tables around a value, which keeps below the 200 levels that Lua's parser takes (`LUAI_MAXCCALLS`) too.
const REGISTERS_OF_TABLE: usize = 2;

/// Lua's parser holds the items of a list in registers until there are so many (`LFIELDS_PER_FLUSH`).
const PENDING_ITEMS: usize = 50;

/// Writes `value` to `out` as a literal that Lua reads back as the same value.
///
/// Lists become sequences and maps become tables; a key of a map whose value is none or undefined is left
/// out, and none by itself is `nil`. Short lists and tables of scalars take one line, others one line an item.
///
/// # Errors
///
/// Where Lua has no such value: an integer that the version cannot hold exactly, a list with none among its
/// items, a key that is none, NaN or a table, tables too deep for Lua's parser, a function.
/// An undefined value is an error too. What was written until then stays in `out`.
pub fn write(out: &mut dyn fmt::Write, value: &Value, dialect: Dialect) -> Result<(), Error> {
    if let Some(name) = value.downcast_object_ref::<Name>() {
        return Ok(out.write_str(&name.0)?);
    }
    if let Some(code) = value.downcast_object_ref::<Verbatim>() {
        return Ok(out.write_str(&code.0)?);
    }
    if value.is_none() {
        return Ok(out.write_str("nil")?);
    }
    write_value(out, value, dialect, Nesting::default())
}

/// Whether `text` is a Lua name: ASCII letters, digits and underscores, no digit first, no word that any Lua
/// from 5.2 to 5.4 reserves.
pub fn is_identifier(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !RESERVED.contains(&text)
}

/// Where a value stands among the tables around it.
#[derive(Clone, Copy, Default)]
struct Nesting {
    tables: usize,
    registers: usize,
}

impl Nesting {
    /// Inside one more table, behind `pending` items that Lua's parser still holds.
    fn deeper(self, pending: usize) -> Result<Nesting, Error> {
        let registers = self.registers + REGISTERS_OF_TABLE + pending;
        if registers > REGISTERS {
            return Err(Error::new("tables nested too deeply for Lua's parser"));
        }
        Ok(Nesting { tables: self.tables + 1, registers })
    }
}

/// Rendered text with the placeholder in place of every secret.
pub fn hide_secrets(rendered: &str) -> String {
    let mut text = String::with_capacity(rendered.len());
    let mut rest = rendered;
    while let Some((before, literal)) = rest.split_once(SECRET_MARK) {
        text.push_str(before);
        text.push_str(&format!("\"{PLACEHOLDER}\""));
        // What is no string ends with its line. So does a string that a template made text from: its end cannot be told.
        let after = literal.strip_prefix('"').and_then(end_of_string);
        let after = after.or_else(|| literal.find('\n').map(|end| &literal[end..]));
        rest = after.unwrap_or_default();
    }
    text.push_str(rest);
    text
}

/// What follows the string literal whose opening quote stands before `text`.
fn end_of_string(text: &str) -> Option<&str> {
    let mut is_escaped = false;
    let end = text.find(|character| {
        let ends = character == '"' && !is_escaped;
        is_escaped = character == '\\' && !is_escaped;
        ends
    })?;
    Some(&text[end + 1..])
}

/// A table with these pairs.
pub fn table<K: Into<Value>, V: Into<Value>>(pairs: impl IntoIterator<Item = (K, V)>) -> Value {
    Value::from_pairs(pairs)
}

/// The same value with every scalar in it hidden as a [`Secret`] is, for values that may be secrets.
pub fn hidden(value: &Value) -> Value {
    match value.kind() {
        ValueKind::String => match value.as_str() {
            Some(text) => Secret::new(text.to_owned()).into_value(),
            None => value.clone(),
        },
        ValueKind::Number | ValueKind::Bool => Value::from_object(HiddenScalar(value.clone())),
        ValueKind::Seq => value.try_iter().into_iter().flatten().map(|item| hidden(&item)).collect(),
        ValueKind::Map => {
            let pairs = value.try_iter().into_iter().flatten().filter_map(|key| {
                let item = value.get_item(&key).ok()?;
                Some((key, hidden(&item)))
            });
            table(pairs)
        }
        _ => value.clone(),
    }
}

/// The same value with every secret in it that is a setting's and the one line of a file written as a reference to that
/// file, `FileLine("…")`. The files are by the settings' fields.
pub fn refer(value: &Value, files: &BTreeMap<&'static str, String>) -> Value {
    if let Some(secret) = value.downcast_object_ref::<Secret>() {
        let file = secret.setting.and_then(|field| files.get(field)).cloned();
        return Secret { file, ..secret.clone() }.into_value();
    }
    match value.kind() {
        ValueKind::Seq => value.try_iter().into_iter().flatten().map(|item| refer(&item, files)).collect(),
        ValueKind::Map => {
            let keys = value.try_iter().into_iter().flatten();
            let pairs = keys.filter_map(|key| {
                let item = value.get_item(&key).ok()?;
                Some((key, refer(&item, files)))
            });
            table(pairs)
        }
        _ => value.clone(),
    }
}

/// A number or boolean that is not shown.
struct HiddenScalar(Value);

impl fmt::Debug for HiddenScalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PLACEHOLDER)
    }
}

impl Object for HiddenScalar {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PLACEHOLDER)
    }
}

fn write_value(
    out: &mut dyn fmt::Write,
    value: &Value,
    dialect: Dialect,
    nesting: Nesting,
) -> Result<(), Error> {
    if let Some(secret) = value.downcast_object_ref::<Secret>() {
        return match (&secret.file, dialect.secrets) {
            (Some(file), _) => {
                // Prosody 13.0's configuration has it as a function.
                out.write_str("FileLine(")?;
                write_string(out, file.as_bytes())?;
                Ok(out.write_str(")")?)
            }
            (None, Secrets::Written) => {
                out.write_str(SECRET_MARK)?;
                write_string(out, secret.expose().as_bytes())
            }
            (None, Secrets::Hidden) => write_string(out, PLACEHOLDER.as_bytes()),
        };
    }
    if let Some(HiddenScalar(scalar)) = value.downcast_object_ref() {
        return match dialect.secrets {
            Secrets::Written => {
                out.write_str(SECRET_MARK)?;
                write_value(out, scalar, dialect, nesting)
            }
            Secrets::Hidden => write_string(out, PLACEHOLDER.as_bytes()),
        };
    }
    match value.kind() {
        ValueKind::Bool => Ok(write!(out, "{}", value.is_true())?),
        ValueKind::Number => write_number(out, value, dialect.version),
        ValueKind::String | ValueKind::Bytes => write_string(out, value.as_bytes().unwrap_or_default()),
        ValueKind::Seq | ValueKind::Iterable => write_entries(out, &list_entries(value)?, dialect, nesting),
        ValueKind::Map => write_entries(out, &table_entries(value, dialect.version)?, dialect, nesting),
        ValueKind::None => Err(Error::new("none cannot stand in a list, which would end there")),
        ValueKind::Undefined => Err(Error::new("undefined value")),
        kind => Err(Error::new(format!("a value of kind {kind:?} has no Lua literal"))),
    }
}

fn write_number(out: &mut dyn fmt::Write, value: &Value, version: Version) -> Result<(), Error> {
    if value.is_integer() {
        let integer = i64::try_from(value.clone())
            .map_err(|_| Error::new("an integer that does not fit into Lua's 64 bits"))?;
        return if version == Version::Lua52 && integer.unsigned_abs() > EXACT_IN_DOUBLE {
            Err(Error::new("an integer beyond ±2^53, which Lua 5.2 cannot hold exactly"))
        } else if integer == i64::MIN {
            // Lua reads a minus and then a number, and the number alone would be too large.
            Ok(out.write_str("0x8000000000000000")?)
        } else {
            Ok(write!(out, "{integer}")?)
        };
    }
    let float = f64::try_from(value.clone()).map_err(|_| Error::new("not a number of Lua's"))?;
    Ok(if float.is_nan() {
        out.write_str("(0/0)")
    } else if float.is_infinite() {
        // There is no name for it that a configuration could not redefine; a number too large is read as infinity.
        out.write_str(if float > 0.0 { "1e9999" } else { "-1e9999" })
    } else {
        // The shortest digits that give the same float, always with a point or an exponent.
        write!(out, "{float:?}")
    }?)
}

/// Writes `bytes` in double quotes. Text stays readable; whatever could end the string, or would not be seen or
/// would mislead on a terminal, is escaped.
fn write_string(out: &mut dyn fmt::Write, bytes: &[u8]) -> Result<(), Error> {
    out.write_char('"')?;
    for chunk in bytes.utf8_chunks() {
        let text = chunk.valid();
        let mut written = 0;
        for (at, c) in text.char_indices().filter(|(_, c)| needs_escape(*c)) {
            out.write_str(&text[written..at])?;
            written = at + c.len_utf8();
            match c {
                '\n' => out.write_str("\\n")?,
                '\r' => out.write_str("\\r")?,
                '\t' => out.write_str("\\t")?,
                '"' => out.write_str("\\\"")?,
                '\\' => out.write_str("\\\\")?,
                _ => write_escaped_bytes(out, &text.as_bytes()[at..written])?,
            }
        }
        out.write_str(&text[written..])?;
        write_escaped_bytes(out, chunk.invalid())?;
    }
    Ok(out.write_char('"')?)
}

/// Always three digits, so that a digit which follows is not taken for a part of the escape.
fn write_escaped_bytes(out: &mut dyn fmt::Write, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(out, "\\{byte:03}"))
}

fn needs_escape(c: char) -> bool {
    matches!(c, '"' | '\\')
        || c.is_control()
        // What is invisible or changes the order of what is seen: Unicode's categories Cf, Zl and Zp, as far
        // as text uses them.
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// One field of a table constructor.
struct Entry {
    /// What stands before the `=`; none in a list.
    key: Option<String>,
    value: Value,
}

impl Entry {
    fn is_scalar(&self) -> bool {
        !matches!(self.value.kind(), ValueKind::Seq | ValueKind::Iterable | ValueKind::Map)
    }

    /// `index` counts the entries before this one.
    fn write(
        &self,
        out: &mut dyn fmt::Write,
        index: usize,
        dialect: Dialect,
        nesting: Nesting,
    ) -> Result<(), Error> {
        match &self.key {
            Some(key) => {
                write!(out, "{key} = ")?;
                write_value(out, &self.value, dialect, nesting.deeper(0)?).map_err(|error| error.inside(key))
            }
            None => write_value(out, &self.value, dialect, nesting.deeper(index % PENDING_ITEMS)?)
                .map_err(|error| error.inside(format!("item {}", index + 1))),
        }
    }
}

fn list_entries(list: &Value) -> Result<Vec<Entry>, Error> {
    let items = list.try_iter().map_err(|_| Error::new("a list that cannot be read"))?;
    Ok(items.map(|value| Entry { key: None, value }).collect())
}

fn table_entries(table: &Value, version: Version) -> Result<Vec<Entry>, Error> {
    let pairs = table.as_object().and_then(|object| object.try_iter_pairs());
    pairs
        .ok_or_else(|| Error::new("a table that cannot be read"))?
        .filter(|(_, value)| !value.is_none() && !value.is_undefined())
        .map(|(key, value)| Ok(Entry { key: Some(table_key(&key, version)?), value }))
        .collect()
}

fn table_key(key: &Value, version: Version) -> Result<String, Error> {
    if let Some(name) = key.as_str().filter(|name| is_identifier(name)) {
        return Ok(name.to_owned());
    }
    let mut text = String::from("[");
    match key.kind() {
        ValueKind::Bool => write!(text, "{}", key.is_true())?,
        ValueKind::String | ValueKind::Bytes => {
            write_string(&mut text, key.as_bytes().unwrap_or_default())?;
        }
        ValueKind::Number if f64::try_from(key.clone()).is_ok_and(f64::is_nan) => {
            return Err(Error::new("NaN cannot be a key in Lua"));
        }
        ValueKind::Number => write_number(&mut text, key, version)?,
        kind => {
            return Err(Error::new(format!(
                "a key of kind {kind:?}; a key is a string, a number or a boolean"
            )));
        }
    }
    text.push(']');
    Ok(text)
}

fn write_entries(
    out: &mut dyn fmt::Write,
    entries: &[Entry],
    dialect: Dialect,
    nesting: Nesting,
) -> Result<(), Error> {
    if entries.is_empty() {
        return Ok(out.write_str("{ }")?);
    }
    if entries.len() <= ONE_LINE_ITEMS && entries.iter().all(Entry::is_scalar) {
        let mut line = String::from("{");
        for (index, entry) in entries.iter().enumerate() {
            line.push_str(if index == 0 { " " } else { ", " });
            entry.write(&mut line, index, dialect, nesting)?;
        }
        line.push_str(" }");
        if line.chars().count() <= ONE_LINE_WIDTH {
            return Ok(out.write_str(&line)?);
        }
    }
    out.write_str("{\n")?;
    for (index, entry) in entries.iter().enumerate() {
        indent(out, nesting.tables + 1)?;
        entry.write(out, index, dialect, nesting)?;
        out.write_str(";\n")?;
    }
    indent(out, nesting.tables)?;
    Ok(out.write_char('}')?)
}

fn indent(out: &mut dyn fmt::Write, tables: usize) -> fmt::Result {
    (0..tables).try_for_each(|_| out.write_char('\t'))
}

/// Text that only [`write`] puts into its output, and that nothing else prints: in messages, in logs and in
/// whatever a template makes of it, `<secret>` stands in its place.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    text: String,
    /// The setting that it is the value of, by its field.
    setting: Option<&'static str>,
    /// A file whose one line it is, for Prosody to read it there.
    file: Option<String>,
}

impl Secret {
    /// Takes the text.
    pub fn new(text: String) -> Secret {
        Secret { text, setting: None, file: None }
    }

    /// Notes that it is the value of a setting, given by its field, and as it stands there.
    pub fn set_setting(&mut self, field: &'static str) {
        self.setting = Some(field);
    }

    /// The text itself, for who has to use it.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// For a template's context, or as an item of a list or table.
    pub fn into_value(self) -> Value {
        Value::from_object(self)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PLACEHOLDER)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PLACEHOLDER)
    }
}

impl Object for Secret {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        Some(self.text.cmp(&other.downcast_ref::<Self>()?.text))
    }
}

/// A Lua name, checked, which [`write`] puts bare: the name of an option left of its `=`. It is no value, so it
/// cannot stand in a list or table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// None where `text` is no name ([`is_identifier`]).
    pub fn new(text: &str) -> Option<Name> {
        is_identifier(text).then(|| Name(text.to_owned()))
    }

    /// For a template's context.
    pub fn into_value(self) -> Value {
        Value::from_object(self)
    }
}

impl Object for Name {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Lua code, which [`write`] puts as it is. Only [`verbatim_lua_code`] makes one.
#[derive(Debug)]
struct Verbatim(String);

impl Object for Verbatim {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The filter of that name: the one way to have text written as it is, as code. It stands alone (not in a list
/// or table), and joined to other text it is text again.
///
/// # Errors
///
/// What is not a string, a [`Secret`] among it.
pub(crate) fn verbatim_lua_code(value: &Value) -> Result<Value, minijinja::Error> {
    match (value.kind(), value.as_str()) {
        (ValueKind::String, Some(code)) => Ok(Value::from_object(Verbatim(code.to_owned()))),
        _ => Err(minijinja::Error::new(
            minijinja::ErrorKind::InvalidOperation,
            format!("verbatim_lua_code takes a string, not a value of kind {:?}", value.kind()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use minijinja::context;

    use super::*;

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
        Secret::new("hunter2".into()).into_value()
    }

    #[test]
    fn text_stays_readable_and_what_cannot_be_seen_is_escaped() {
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
    fn none_is_nil_or_leaves_an_option_out_but_ends_no_list() {
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
    fn short_lists_take_one_line_and_others_one_line_an_item() {
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
    fn keys_are_bare_only_where_they_are_names() {
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
    fn names() {
        for name in ["a", "_", "A_1", "ends", "c2s_ports"] {
            assert!(is_identifier(name), "{name}");
            assert_eq!(written(Name::new(name).unwrap().into_value()), name);
        }
        for other in ["", "1a", "a-b", "a.b", "a b", "é", "end", "goto", "nil", "a\n", "a=1"] {
            assert!(!is_identifier(other), "{other}");
            assert_eq!(Name::new(other), None);
        }
        // As a value it would be a variable, such as `os`.
        let os = Name::new("os").unwrap().into_value();
        assert_eq!(refused(vec![os]), "item 1: a value of kind Plain has no Lua literal");
    }

    #[test]
    fn tables_deeper_than_luas_parser_takes_are_refused() {
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
    fn written_secrets_are_found_and_hidden_again() {
        for text in ["", "hunter2", "a\"b", "a\\", "\\\"", "--[[secret]] \"x\"", "line\nline", "ends in \\\\"]
        {
            let secret = Secret::new(text.into()).into_value();
            let rendered = format!("a = {} -- after\nx = 1", written(secret));
            let hidden = hide_secrets(&rendered);
            assert_eq!(hidden, "a = \"<secret>\" -- after\nx = 1", "{rendered}");
        }
        assert_eq!(hide_secrets("x = \"--[[secret]] \\\"hunter2\\\"\"\ny = 1"), "x = \"\"<secret>\"\ny = 1");
    }

    #[test]
    fn every_scalar_of_a_hidden_value_is_written_and_never_shown() {
        let value = context! { a => 4711, b => vec![Value::from(true), Value::from("x")] };
        let rendered = written(hidden(&value));
        assert_eq!(
            rendered,
            "{\n\ta = --[[secret]] 4711;\n\tb = { --[[secret]] true, --[[secret]] \"x\" };\n}"
        );
        assert_eq!(
            literal(hidden(&value), HIDDEN).unwrap(),
            "{\n\ta = \"<secret>\";\n\tb = { \"<secret>\", \"<secret>\" };\n}"
        );
        let shown = hide_secrets(&rendered);
        assert!(!shown.contains("4711") && !shown.contains("true") && !shown.contains('x'), "{shown}");
        assert_eq!(hidden(&Value::from(4711)).to_string(), "<secret>");
        assert_eq!(format!("{:?}", hidden(&Value::from(4711))), "<secret>");
    }

    #[test]
    fn a_secret_is_written_or_replaced_wherever_it_stands() {
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
    fn a_secret_does_not_print() {
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
    fn secrets_are_compared_by_what_they_hold() {
        assert_eq!(Secret::new("a".into()), Secret::new("a".into()));
        assert_eq!(secret(), secret());
        assert_ne!(secret(), Secret::new("other".into()).into_value());
        assert_ne!(secret(), Value::from("hunter2"));
        assert_ne!(secret(), Value::from("<secret>"));
    }
}
