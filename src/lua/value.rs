//! Lua values.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use super::PLACEHOLDER;

/// A value that Lua reads from a literal.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// No value. In a table, it leaves the field out.
    Nil,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    /// A string in UTF-8.
    Text(String),
    /// A string that is not UTF-8.
    Bytes(Vec<u8>),
    Secret(Secret),
    List(Vec<Value>),
    /// A table. Its fields are written in this order.
    Table(Vec<(Value, Value)>),
}

impl Value {
    /// Creates a table. Its fields are sorted by name.
    pub fn table<N: Into<String>, V: Into<Value>>(fields: impl IntoIterator<Item = (N, V)>) -> Value {
        let fields = fields.into_iter().map(|(name, value)| (name.into(), value.into()));
        let fields: BTreeMap<String, Value> = fields.collect();
        Value::Table(fields.into_iter().map(|(name, value)| (Value::Text(name), value)).collect())
    }

    /// The text of a string that is not secret.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The items of a list. Empty for other values.
    pub fn items(&self) -> &[Value] {
        match self {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The fields of a table. Empty for other values.
    pub fn fields(&self) -> &[(Value, Value)] {
        match self {
            Value::Table(fields) => fields,
            _ => &[],
        }
    }

    /// The field of a table with this name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.fields().iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value)
    }

    /// Calls `take` for every string in a value, including nested ones, and passes whether the string is secret.
    pub fn each_text(&self, take: &mut dyn FnMut(&str, bool)) {
        match self {
            Value::Text(text) => take(text, false),
            Value::Secret(secret) => take(secret.expose(), true),
            Value::List(items) => items.iter().for_each(|item| item.each_text(take)),
            Value::Table(fields) => fields.iter().for_each(|(_, value)| value.each_text(take)),
            _ => {}
        }
    }

    /// The value with `change` applied to every scalar in it.
    fn map(&self, change: &dyn Fn(&Value) -> Value) -> Value {
        match self {
            Value::List(items) => items.iter().map(|item| item.map(change)).collect(),
            Value::Table(fields) => {
                let field = |(key, value): &(Value, Value)| (key.clone(), value.map(change));
                Value::Table(fields.iter().map(field).collect())
            }
            scalar => change(scalar),
        }
    }

    /// The value with every text in it made secret, for values that may contain secrets.
    pub fn hidden(&self) -> Value {
        self.map(&|scalar| match scalar {
            Value::Text(text) => Value::Secret(Secret::new(text.clone())),
            other => other.clone(),
        })
    }

    /// The value with references to files, `FileLine("…")`, instead of secrets from these files. `files` has the path
    /// of a secret's file by the field of its setting.
    pub fn with_file_references(&self, files: &BTreeMap<&'static str, String>) -> Value {
        self.map(&|scalar| match scalar {
            Value::Secret(secret) => {
                let file = secret.setting.and_then(|field| files.get(field)).cloned();
                Value::Secret(Secret { file, ..secret.clone() })
            }
            other => other.clone(),
        })
    }
}

/// Implements `From` for the Rust types that correspond to a Lua type.
macro_rules! from {
    ($($type:ty: $value:ident => $lua:expr;)+) => {$(
        impl From<$type> for Value {
            fn from($value: $type) -> Value {
                $lua
            }
        }
    )+};
}

from! {
    bool: boolean => Value::Boolean(boolean);
    i32: integer => Value::Integer(integer.into());
    i64: integer => Value::Integer(integer);
    f64: float => Value::Float(float);
    &str: text => Value::Text(text.to_owned());
    String: text => Value::Text(text);
    Cow<'_, str>: text => Value::Text(text.into_owned());
    Secret: secret => Value::Secret(secret);
}

impl<V: Into<Value>> From<Vec<V>> for Value {
    fn from(items: Vec<V>) -> Value {
        items.into_iter().collect()
    }
}

impl<V: Into<Value>> FromIterator<V> for Value {
    fn from_iter<I: IntoIterator<Item = V>>(items: I) -> Value {
        Value::List(items.into_iter().map(Into::into).collect())
    }
}

/// A secret string. Only [`super::write`] writes it. Messages, logs and text from templates contain `<secret>` instead.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    text: String,
    /// The field of the setting with this value, if any.
    setting: Option<&'static str>,
    /// The file from which Prosody reads the secret, if any. It contains one line, the secret.
    file: Option<String>,
}

impl Secret {
    /// Creates a secret that belongs to no setting or file.
    pub fn new(text: String) -> Secret {
        Secret { text, setting: None, file: None }
    }

    /// Marks the secret as the unchanged value of a setting, given by its field.
    pub fn set_setting(&mut self, field: &'static str) {
        self.setting = Some(field);
    }

    /// The secret text. Never print it.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The file from which Prosody reads the secret, if any.
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
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
