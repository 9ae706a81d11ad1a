//! Values as Lua has them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use super::PLACEHOLDER;

/// A value that Lua reads from a literal.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// The absence of a value: in a table it leaves the field out.
    Nil,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    /// A string that is not UTF-8.
    Bytes(Vec<u8>),
    /// Text that is not shown.
    Secret(Secret),
    /// A number or boolean that is not shown.
    Hidden(HiddenScalar),
    /// A sequence.
    List(Vec<Value>),
    /// A table with its fields in the order in which they are written.
    Table(Vec<(Value, Value)>),
}

/// A number or boolean that is not shown.
#[derive(Clone, PartialEq)]
pub struct HiddenScalar(pub(crate) Box<Value>);

impl fmt::Debug for HiddenScalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PLACEHOLDER)
    }
}

impl Value {
    /// A table, its fields in the order of their names.
    pub fn table<N: Into<String>, V: Into<Value>>(fields: impl IntoIterator<Item = (N, V)>) -> Value {
        let fields = fields.into_iter().map(|(name, value)| (name.into(), value.into()));
        let fields: BTreeMap<String, Value> = fields.collect();
        Value::Table(fields.into_iter().map(|(name, value)| (Value::Text(name), value)).collect())
    }

    /// The text of a string that is no secret.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The items of a list; of anything else there are none.
    pub fn items(&self) -> &[Value] {
        match self {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The fields of a table; of anything else there are none.
    pub fn fields(&self) -> &[(Value, Value)] {
        match self {
            Value::Table(fields) => fields,
            _ => &[],
        }
    }

    /// A field of a table.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.fields().iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value)
    }

    /// The strings in a value, itself or those in a list or table, each with whether it is a secret.
    pub fn each_text(&self, take: &mut dyn FnMut(&str, bool)) {
        match self {
            Value::Text(text) => take(text, false),
            Value::Secret(secret) => take(secret.expose(), true),
            Value::List(items) => items.iter().for_each(|item| item.each_text(take)),
            Value::Table(fields) => fields.iter().for_each(|(_, value)| value.each_text(take)),
            _ => {}
        }
    }

    /// The same value with `change` made to every scalar in it.
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

    /// The same value with every scalar in it hidden, for values that may be secrets.
    pub fn hidden(&self) -> Value {
        self.map(&|scalar| match scalar {
            Value::Text(text) => Value::Secret(Secret::new(text.clone())),
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => {
                Value::Hidden(HiddenScalar(Box::new(scalar.clone())))
            }
            other => other.clone(),
        })
    }

    /// The same value with every secret in it that is a setting's and the one line of a file written as a reference to that
    /// file, `FileLine("…")`. The files are by the settings' fields.
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

impl From<bool> for Value {
    fn from(boolean: bool) -> Value {
        Value::Boolean(boolean)
    }
}

impl From<i32> for Value {
    fn from(integer: i32) -> Value {
        Value::Integer(integer.into())
    }
}

impl From<i64> for Value {
    fn from(integer: i64) -> Value {
        Value::Integer(integer)
    }
}

impl From<f64> for Value {
    fn from(float: f64) -> Value {
        Value::Float(float)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<Cow<'_, str>> for Value {
    fn from(text: Cow<'_, str>) -> Value {
        Value::Text(text.into_owned())
    }
}

impl From<Secret> for Value {
    fn from(secret: Secret) -> Value {
        Value::Secret(secret)
    }
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

/// Text that only [`super::write`] puts into its output, and that nothing else prints: in messages, in logs and in
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

    /// The file that Prosody reads it from, if that is so.
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
