//! Lua values and their literals.
//!
//! [`write`] is the only way to write a value to Prosody's configuration. For any value, Lua reads back the same value,
//! and never code. The syntax is that of the Lua reference manuals 5.2, 5.3 and 5.4, section 3.1, "Lexical
//! Conventions", and section 3.4.9 (3.4.8 in 5.2), "Table Constructors".

mod script;
pub mod tokens;
mod value;

use std::fmt::{self, Write as _};

pub(crate) use self::script::script;
pub use self::script::{bare, first};
pub use self::value::{Secret, Value};
use crate::text::is_unprintable;

/// The version of Lua that reads the literals. Prosody 0.12 and 13.0 run on 5.2 to 5.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// Every number is a double: integers are exact up to ±2^53.
    Lua52,
    /// Numbers are 64-bit integers or doubles.
    Lua53,
    /// The same as 5.3.
    Lua54,
}

/// The comment before the literal of a secret, for people and for [`hide_secrets`].
const SECRET_MARK: &str = "--[[secret]] ";

/// How secrets are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Secrets {
    /// As literals, for files that only Prosody can read.
    #[default]
    Written,
    /// As `"<secret>"`, for output that people see.
    Hidden,
}

/// How literals are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    pub version: Version,
    pub secrets: Secrets,
}

/// The reason why a value has no Lua literal, and the place inside the value. It never contains a value, which may be a
/// secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    reason: String,
    /// The items and keys that lead to the place, innermost first.
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

/// Replaces a secret in output that people see.
pub(crate) const PLACEHOLDER: &str = "<secret>";

/// The reserved words of Lua 5.2 to 5.4 (section 3.1 of the manual).
const RESERVED: [&str; 22] = [
    "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in", "local",
    "nil", "not", "or", "repeat", "return", "then", "true", "until", "while",
];

/// A double represents every integer up to this one exactly.
const EXACT_IN_DOUBLE: u64 = 1 << 53;

/// The maximum width, in columns, of a list or table on one line. With an option's name, the line then fits on a narrow
/// terminal.
const ONE_LINE_WIDTH: usize = 60;

/// The maximum number of items of a list or table on one line.
const ONE_LINE_ITEMS: usize = 8;

/// The maximum number of Lua's registers that the tables around a value may occupy. A function has 250 (`MAXSTACK` in
/// 5.2's lcode.c; 255 in 5.3 and later). The rest is for the expression around the literal.
const REGISTERS: usize = 200;

/// The registers that Lua needs for a table while it reads a value inside: one for the table, and one for a key. This
/// allows 100 nested tables, which is also below the parser's limit of 200 levels (`LUAI_MAXCCALLS`).
const REGISTERS_OF_TABLE: usize = 2;

/// Lua's parser keeps up to this many items of a list in registers (`LFIELDS_PER_FLUSH`).
const PENDING_ITEMS: usize = 50;

/// A string as a literal, which is the same for all versions.
pub fn literal(text: &str) -> String {
    let mut out = String::new();
    // Every string has a literal.
    let _ =
        write(&mut out, &Value::from(text), Dialect { version: Version::Lua54, secrets: Secrets::Written });
    out
}

/// Writes `value` to `out` as a literal that Lua reads back as the same value.
///
/// Lists become sequences. A field of a table is left out if its value is nil. Short lists and tables of scalars take
/// one line, others one line per item.
/// Fails if Lua has no such value: an integer that the version cannot represent exactly, nil in a list, a key that is
/// nil, NaN or a table, or tables too deep for Lua's parser. `out` keeps the text written before the error.
pub fn write(out: &mut dyn fmt::Write, value: &Value, dialect: Dialect) -> Result<(), Error> {
    match value {
        Value::Nil => Ok(out.write_str("nil")?),
        value => Writer { out, dialect }.value(value, Nesting::default()),
    }
}

/// Whether `text` is a valid name in Lua 5.2 to 5.4: ASCII letters, digits and underscores, not beginning with a digit,
/// and not a reserved word.
pub fn is_identifier(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !RESERVED.contains(&text)
}

/// The tables around a value, and the registers they occupy.
#[derive(Clone, Copy, Default)]
struct Nesting {
    tables: usize,
    registers: usize,
}

impl Nesting {
    /// The nesting inside another table, after `pending` items that Lua's parser still keeps in registers.
    fn deeper(self, pending: usize) -> Result<Nesting, Error> {
        let registers = self.registers + REGISTERS_OF_TABLE + pending;
        if registers > REGISTERS {
            return Err(Error::new("tables nested too deeply for Lua's parser"));
        }
        Ok(Nesting { tables: self.tables + 1, registers })
    }
}

/// Replaces every secret in rendered text by the placeholder.
pub fn hide_secrets(rendered: &str) -> String {
    let mut text = String::with_capacity(rendered.len());
    let mut rest = rendered;
    while let Some((before, literal)) = rest.split_once(SECRET_MARK) {
        text.push_str(before);
        text.push_str(&format!("\"{PLACEHOLDER}\""));
        // A string that a template changed ends with the line, because its end is unknown.
        let after = literal.strip_prefix('"').and_then(end_of_string);
        let after = after.or_else(|| literal.find('\n').and_then(|end| literal.get(end..)));
        rest = after.unwrap_or_default();
    }
    text.push_str(rest);
    text
}

/// The text after a string literal. `text` begins after the opening quote. `None` without a closing quote.
fn end_of_string(text: &str) -> Option<&str> {
    let mut is_escaped = false;
    let end = text.find(|character| {
        let ends = character == '"' && !is_escaped;
        is_escaped = character == '\\' && !is_escaped;
        ends
    })?;
    text.get(end + 1..)
}

/// The output and how literals are written to it.
struct Writer<'a> {
    out: &'a mut dyn fmt::Write,
    dialect: Dialect,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, nesting: Nesting) -> Result<(), Error> {
        let out = &mut *self.out;
        match value {
            Value::Nil => Err(Error::new("none cannot stand in a list, which would end there")),
            Value::Boolean(boolean) => Ok(write!(out, "{boolean}")?),
            Value::Integer(integer) => write_integer(out, *integer, self.dialect.version),
            Value::Float(float) => Ok(write_float(out, *float)?),
            Value::Text(text) => write_string(out, text.as_bytes()),
            Value::Bytes(bytes) => write_string(out, bytes),
            Value::Secret(secret) => match (secret.file(), self.dialect.secrets) {
                (Some(file), _) => {
                    // A function in configuration files of Prosody 13.0.
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
            Value::List(items) => {
                let entries: Vec<Entry> = items.iter().map(|value| Entry { key: None, value }).collect();
                self.entries(&entries, nesting)
            }
            Value::Table(fields) => {
                let version = self.dialect.version;
                let fields = fields.iter().filter(|(_, value)| *value != Value::Nil);
                let entries: Result<Vec<Entry>, Error> = fields
                    .map(|(key, value)| Ok(Entry { key: Some(table_key(key, version)?), value }))
                    .collect();
                self.entries(&entries?, nesting)
            }
        }
    }

    fn entries(&mut self, entries: &[Entry], nesting: Nesting) -> Result<(), Error> {
        if entries.is_empty() {
            return Ok(self.out.write_str("{ }")?);
        }
        if entries.len() <= ONE_LINE_ITEMS && entries.iter().all(Entry::is_scalar) {
            let mut line = String::from("{");
            for (index, entry) in entries.iter().enumerate() {
                line.push_str(if index == 0 { " " } else { ", " });
                Writer { out: &mut line, ..*self }.entry(entry, index, nesting)?;
            }
            line.push_str(" }");
            if line.chars().count() <= ONE_LINE_WIDTH {
                return Ok(self.out.write_str(&line)?);
            }
        }
        self.out.write_str("{\n")?;
        for (index, entry) in entries.iter().enumerate() {
            self.indent(nesting.tables + 1)?;
            self.entry(entry, index, nesting)?;
            self.out.write_str(";\n")?;
        }
        self.indent(nesting.tables)?;
        Ok(self.out.write_char('}')?)
    }

    /// Writes an entry after `index` others.
    fn entry(&mut self, entry: &Entry, index: usize, nesting: Nesting) -> Result<(), Error> {
        match &entry.key {
            Some(key) => {
                write!(self.out, "{key} = ")?;
                self.value(entry.value, nesting.deeper(0)?).map_err(|error| error.inside(key))
            }
            None => self
                .value(entry.value, nesting.deeper(index % PENDING_ITEMS)?)
                .map_err(|error| error.inside(format!("item {}", index + 1))),
        }
    }

    fn indent(&mut self, tables: usize) -> fmt::Result {
        (0..tables).try_for_each(|_| self.out.write_char('\t'))
    }
}

fn write_integer(out: &mut dyn fmt::Write, integer: i64, version: Version) -> Result<(), Error> {
    if version == Version::Lua52 && integer.unsigned_abs() > EXACT_IN_DOUBLE {
        Err(Error::new("an integer beyond ±2^53, which Lua 5.2 cannot hold exactly"))
    } else if integer == i64::MIN {
        // Lua parses the minus and the number separately, and this number alone would be too large.
        Ok(out.write_str("0x8000000000000000")?)
    } else {
        Ok(write!(out, "{integer}")?)
    }
}

fn write_float(out: &mut dyn fmt::Write, float: f64) -> fmt::Result {
    if float.is_nan() {
        out.write_str("(0/0)")
    } else if float.is_infinite() {
        // A number beyond the range is read as infinity. `math.huge` would not be safe: a configuration could redefine
        // it.
        out.write_str(if float > 0.0 { "1e9999" } else { "-1e9999" })
    } else {
        // The shortest digits for the same float, always with a decimal point or an exponent.
        write!(out, "{float:?}")
    }
}

/// Writes `bytes` in double quotes. Text stays readable. Characters that could end the string, are invisible, or could
/// mislead readers on a terminal are escaped.
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

/// Writes escapes with three digits each, so that a following digit cannot become part of the escape.
fn write_escaped_bytes(out: &mut dyn fmt::Write, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(out, "\\{byte:03}"))
}

fn needs_escape(c: char) -> bool {
    matches!(c, '"' | '\\') || is_unprintable(c)
}

/// One field of a table constructor.
struct Entry<'a> {
    /// The text before the `=`. `None` in a list.
    key: Option<String>,
    value: &'a Value,
}

impl Entry<'_> {
    fn is_scalar(&self) -> bool {
        !matches!(self.value, Value::List(_) | Value::Table(_))
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
