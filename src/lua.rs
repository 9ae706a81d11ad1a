//! Values as Lua literals.
//!
//! [`write`] is the only way from a value to the configuration that Prosody reads: whatever the value
//! holds, Lua reads back that value, and never code.
//! The syntax is that of the Lua reference manuals 5.2, 5.3 and 5.4, section 3.1, "Lexical Conventions",
//! and section 3.4.9 (3.4.8 in 5.2), "Table Constructors".

pub mod tokens;
mod value;

use std::fmt::{self, Write as _};

pub use self::value::{HiddenScalar, Secret, Value};

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
    pub(crate) fn new(reason: impl Into<String>) -> Error {
        Error { reason: reason.into(), path: Vec::new() }
    }

    pub(crate) fn inside(mut self, place: impl Into<String>) -> Error {
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
pub(crate) const PLACEHOLDER: &str = "<secret>";

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
/// Lists become sequences and maps become tables; a key of a map whose value is nil is left
/// out, and nil by itself is `nil`. Short lists and tables of scalars take one line, others one line an item.
///
/// # Errors
///
/// Where Lua has no such value: an integer that the version cannot hold exactly, a list with nil among its
/// items, a key that is none, NaN or a table, tables too deep for Lua's parser. What was written until then stays in `out`.
pub fn write(out: &mut dyn fmt::Write, value: &Value, dialect: Dialect) -> Result<(), Error> {
    match value {
        Value::Nil => Ok(out.write_str("nil")?),
        value => write_value(out, value, dialect, Nesting::default()),
    }
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
        let after = after.or_else(|| literal.find('\n').and_then(|end| literal.get(end..)));
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
    text.get(end + 1..)
}

fn write_value(
    out: &mut dyn fmt::Write,
    value: &Value,
    dialect: Dialect,
    nesting: Nesting,
) -> Result<(), Error> {
    match value {
        Value::Nil => Err(Error::new("none cannot stand in a list, which would end there")),
        Value::Boolean(boolean) => Ok(write!(out, "{boolean}")?),
        Value::Integer(integer) => write_integer(out, *integer, dialect.version),
        Value::Float(float) => Ok(write_float(out, *float)?),
        Value::Text(text) => write_string(out, text.as_bytes()),
        Value::Bytes(bytes) => write_string(out, bytes),
        Value::Secret(secret) => match (secret.file(), dialect.secrets) {
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
        },
        Value::Hidden(HiddenScalar(scalar)) => match dialect.secrets {
            Secrets::Written => {
                out.write_str(SECRET_MARK)?;
                write_value(out, scalar, dialect, nesting)
            }
            Secrets::Hidden => write_string(out, PLACEHOLDER.as_bytes()),
        },
        Value::List(items) => {
            let entries: Vec<Entry> = items.iter().map(|value| Entry { key: None, value }).collect();
            write_entries(out, &entries, dialect, nesting)
        }
        Value::Table(fields) => {
            let fields = fields.iter().filter(|(_, value)| *value != Value::Nil);
            let entries: Result<Vec<Entry>, Error> = fields
                .map(|(key, value)| Ok(Entry { key: Some(table_key(key, dialect.version)?), value }))
                .collect();
            write_entries(out, &entries?, dialect, nesting)
        }
    }
}

fn write_integer(out: &mut dyn fmt::Write, integer: i64, version: Version) -> Result<(), Error> {
    if version == Version::Lua52 && integer.unsigned_abs() > EXACT_IN_DOUBLE {
        Err(Error::new("an integer beyond ±2^53, which Lua 5.2 cannot hold exactly"))
    } else if integer == i64::MIN {
        // Lua reads a minus and then a number, and the number alone would be too large.
        Ok(out.write_str("0x8000000000000000")?)
    } else {
        Ok(write!(out, "{integer}")?)
    }
}

fn write_float(out: &mut dyn fmt::Write, float: f64) -> fmt::Result {
    if float.is_nan() {
        out.write_str("(0/0)")
    } else if float.is_infinite() {
        // There is no name for it that a configuration could not redefine; a number too large is read as infinity.
        out.write_str(if float > 0.0 { "1e9999" } else { "-1e9999" })
    } else {
        // The shortest digits that give the same float, always with a point or an exponent.
        write!(out, "{float:?}")
    }
}

/// Writes `bytes` in double quotes. Text stays readable; whatever could end the string, or would not be seen or
/// would mislead on a terminal, is escaped.
fn write_string(out: &mut dyn fmt::Write, bytes: &[u8]) -> Result<(), Error> {
    out.write_char('"')?;
    for chunk in bytes.utf8_chunks() {
        let text = chunk.valid();
        for piece in text.split_inclusive(needs_escape) {
            let mut letters = piece.chars();
            let Some(last) = letters.next_back().filter(|last| needs_escape(*last)) else {
                out.write_str(piece)?;
                continue;
            };
            out.write_str(letters.as_str())?;
            match last {
                '\n' => out.write_str("\\n")?,
                '\r' => out.write_str("\\r")?,
                '\t' => out.write_str("\\t")?,
                '"' => out.write_str("\\\"")?,
                '\\' => out.write_str("\\\\")?,
                _ => write_escaped_bytes(out, last.encode_utf8(&mut [0; 4]).as_bytes())?,
            }
        }
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
struct Entry<'a> {
    /// What stands before the `=`; none in a list.
    key: Option<String>,
    value: &'a Value,
}

impl Entry<'_> {
    fn is_scalar(&self) -> bool {
        !matches!(self.value, Value::List(_) | Value::Table(_))
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
                write_value(out, self.value, dialect, nesting.deeper(0)?).map_err(|error| error.inside(key))
            }
            None => write_value(out, self.value, dialect, nesting.deeper(index % PENDING_ITEMS)?)
                .map_err(|error| error.inside(format!("item {}", index + 1))),
        }
    }
}

fn table_key(key: &Value, version: Version) -> Result<String, Error> {
    if let Some(name) = key.as_str().filter(|name| is_identifier(name)) {
        return Ok(name.to_owned());
    }
    let mut text = String::from("[");
    match key {
        Value::Boolean(boolean) => write!(text, "{boolean}")?,
        Value::Text(key) => write_string(&mut text, key.as_bytes())?,
        Value::Bytes(key) => write_string(&mut text, key)?,
        Value::Float(float) if float.is_nan() => return Err(Error::new("NaN cannot be a key in Lua")),
        Value::Integer(integer) => write_integer(&mut text, *integer, version)?,
        Value::Float(float) => write_float(&mut text, *float)?,
        _ => return Err(Error::new("a key that is neither a string nor a number nor a boolean")),
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
