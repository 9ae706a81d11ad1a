//! Values as Lua literals.
//!
//! [`write`] is the only way from a value to the configuration that Prosody reads: whatever the value
//! holds, Lua reads back that value, and never code.
//! The syntax is that of the Lua reference manuals 5.2, 5.3 and 5.4, section 3.1, "Lexical Conventions",
//! and section 3.4.9 (3.4.8 in 5.2), "Table Constructors".

use std::cmp::Ordering;
use std::fmt::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
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

/// Why a value has no Lua literal, with the place inside the value. It never quotes the value, which may
/// be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

impl Error {
    fn inside(self, place: impl fmt::Display) -> Error {
        Error(format!("{place}: {}", self.0))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<fmt::Error> for Error {
    fn from(_: fmt::Error) -> Error {
        Error("the output cannot be written to".into())
    }
}

/// Stands wherever a secret may not be shown.
const PLACEHOLDER: &str = "<secret>";

/// The words that no Lua from 5.2 to 5.4 takes as a name (section 3.1 of its manual).
const RESERVED: [&str; 22] = [
    "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in",
    "local", "nil", "not", "or", "repeat", "return", "then", "true", "until", "while",
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
            return Err(Error("tables nested too deeply for Lua's parser".into()));
        }
        Ok(Nesting {
            tables: self.tables + 1,
            registers,
        })
    }
}

/// Rendered text with the placeholder in place of every secret.
pub fn hide_secrets(rendered: &str) -> String {
    let mut text = String::with_capacity(rendered.len());
    let mut rest = rendered;
    // No literal of ours holds the mark followed by a bare quote: within one, quotes are escaped.
    while let Some((before, literal)) = rest.split_once(&format!("{SECRET_MARK}\"")) {
        let mut escaped = false;
        let end = literal.find(|character| {
            let ends = character == '"' && !escaped;
            escaped = character == '\\' && !escaped;
            ends
        });
        text.push_str(before);
        text.push('"');
        text.push_str(PLACEHOLDER);
        text.push('"');
        rest = end.map_or("", |end| &literal[end + 1..]);
    }
    text.push_str(rest);
    text
}

/// The same value with every string in it a [`Secret`], for values that may be secrets.
pub fn with_secret_strings(value: &Value) -> Value {
    match value.kind() {
        ValueKind::String => match value.as_str() {
            Some(text) => Secret::new(text.to_owned()).into_value(),
            None => value.clone(),
        },
        ValueKind::Seq => value
            .try_iter()
            .map(|items| items.map(|item| with_secret_strings(&item)).collect())
            .unwrap_or_else(|_| value.clone()),
        ValueKind::Map => {
            let pairs = value.try_iter().into_iter().flatten().filter_map(|key| {
                let item = value.get_item(&key).ok()?;
                Some((key, with_secret_strings(&item)))
            });
            Value::from_pairs(pairs)
        }
        _ => value.clone(),
    }
}

fn write_value(
    out: &mut dyn fmt::Write,
    value: &Value,
    dialect: Dialect,
    nesting: Nesting,
) -> Result<(), Error> {
    if let Some(secret) = value.downcast_object_ref::<Secret>() {
        return match dialect.secrets {
            Secrets::Written => {
                out.write_str(SECRET_MARK)?;
                write_string(out, secret.expose().as_bytes())
            }
            Secrets::Hidden => write_string(out, PLACEHOLDER.as_bytes()),
        };
    }
    if let Some(file) = value.downcast_object_ref::<FileLine>() {
        out.write_str("FileLine(")?;
        write_string(out, file.path.as_os_str().as_bytes())?;
        return Ok(out.write_str(")")?);
    }
    match value.kind() {
        ValueKind::Bool => Ok(write!(out, "{}", value.is_true())?),
        ValueKind::Number => write_number(out, value, dialect.version),
        ValueKind::String | ValueKind::Bytes => {
            write_string(out, value.as_bytes().unwrap_or_default())
        }
        ValueKind::Seq | ValueKind::Iterable => {
            write_entries(out, &list_entries(value)?, dialect, nesting)
        }
        ValueKind::Map => write_entries(
            out,
            &table_entries(value, dialect.version)?,
            dialect,
            nesting,
        ),
        ValueKind::Undefined => Err(Error("undefined value".into())),
        kind => Err(Error(format!(
            "a value of kind {kind:?} has no Lua literal"
        ))),
    }
}

fn write_number(out: &mut dyn fmt::Write, value: &Value, version: Version) -> Result<(), Error> {
    if value.is_integer() {
        let integer = i64::try_from(value.clone()).map_err(|_| {
            Error("an integer of more than 64 bits (with its sign), which Lua cannot hold".into())
        })?;
        return if version == Version::Lua52 && integer.unsigned_abs() > EXACT_IN_DOUBLE {
            Err(Error(
                "an integer beyond ±2^53, which Lua 5.2 cannot hold exactly".into(),
            ))
        } else if integer == i64::MIN {
            // Lua reads a minus and then a number, and the number alone would be too large.
            Ok(out.write_str("0x8000000000000000")?)
        } else {
            Ok(write!(out, "{integer}")?)
        };
    }
    let float = f64::try_from(value.clone()).map_err(|_| Error("not a number of Lua's".into()))?;
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
        !matches!(
            self.value.kind(),
            ValueKind::Seq | ValueKind::Iterable | ValueKind::Map
        )
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
                write_value(out, &self.value, dialect, nesting.deeper(0)?)
                    .map_err(|error| error.inside(key))
            }
            None => write_value(
                out,
                &self.value,
                dialect,
                nesting.deeper(index % PENDING_ITEMS)?,
            )
            .map_err(|error| error.inside(format_args!("item {}", index + 1))),
        }
    }
}

fn list_entries(list: &Value) -> Result<Vec<Entry>, Error> {
    let items = list
        .try_iter()
        .map_err(|_| Error("a list that cannot be read".into()))?;
    let entry = |(index, value): (usize, Value)| match value.is_none() {
        // In a table an option that is none is left out, but leaving an item out moves all that follow.
        true => Err(Error(format!(
            "item {}: none cannot stand in a list",
            index + 1
        ))),
        false => Ok(Entry { key: None, value }),
    };
    items.enumerate().map(entry).collect()
}

fn table_entries(table: &Value, version: Version) -> Result<Vec<Entry>, Error> {
    let pairs = table.as_object().and_then(|object| object.try_iter_pairs());
    pairs
        .ok_or_else(|| Error("a table that cannot be read".into()))?
        .filter(|(_, value)| !value.is_none() && !value.is_undefined())
        .map(|(key, value)| {
            Ok(Entry {
                key: Some(table_key(&key, version)?),
                value,
            })
        })
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
            return Err(Error("NaN cannot be a key in Lua".into()));
        }
        ValueKind::Number => write_number(&mut text, key, version)?,
        kind => {
            return Err(Error(format!(
                "a key of kind {kind:?}, which Lua or we do not take"
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
pub struct Secret(String);

impl Secret {
    /// Takes the text.
    pub fn new(text: String) -> Secret {
        Secret(text)
    }

    /// The text itself, for who has to use it.
    pub fn expose(&self) -> &str {
        &self.0
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
        Some(self.0.cmp(&other.downcast_ref::<Self>()?.0))
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

/// A value by reference: `FileLine("path")`, for which Prosody 13.0 and later read the file's first line when they
/// load the configuration (core/configmanager.lua). A relative path is relative to Prosody's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileLine {
    path: PathBuf,
}

impl FileLine {
    /// Takes the path of the file, which is not looked at.
    pub fn new(path: impl Into<PathBuf>) -> FileLine {
        FileLine { path: path.into() }
    }

    /// For a template's context, or as an item of a list or table.
    pub fn into_value(self) -> Value {
        Value::from_object(self)
    }
}

impl Object for FileLine {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
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
            format!(
                "verbatim_lua_code takes a string, not a value of kind {:?}",
                value.kind()
            ),
        )),
    }
}
