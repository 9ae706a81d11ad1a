//! Text for messages: advice, lists in a sentence, reasons for errors, text from outside, the nearest of several names.

mod nearest;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::{self, Display};
use std::hash::Hash;
use std::io;
use std::ops::Deref;

use nix::errno::Errno;

pub use self::nearest::{MOST_HINTS, nearest, nearest_few};

/// Text that tells the user to do something. `advice!` makes it, with the arguments of `format!`.
///
/// For each, a row in `tests/golden/advice.txt` shows that doing so works.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advice(Cow<'static, str>);

impl Advice {
    /// For `advice!` alone.
    pub fn new(text: fmt::Arguments) -> Self {
        Self(text.as_str().map_or_else(|| text.to_string().into(), Cow::Borrowed))
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Deref for Advice {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<Advice> for String {
    fn from(advice: Advice) -> Self {
        advice.0.into_owned()
    }
}

impl From<Advice> for Cow<'static, str> {
    fn from(advice: Advice) -> Self {
        advice.0
    }
}

macro_rules! advice {
    ($($text:tt)*) => { $crate::text::Advice::new(format_args!($($text)*)) };
}

/// Lists names in a sentence: the first five, and the number of the others.
pub fn several(names: impl IntoIterator<Item: Display>) -> String {
    const SHOWN: usize = 5;
    let names: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
    match names.len() {
        0..=SHOWN => names.join(", "),
        count => format!("{} and {} more", names[..SHOWN].join(", "), count - SHOWN),
    }
}

/// Groups values by their key, in the order of the first of each.
pub fn grouped<K: Clone + Eq + Hash, V>(values: impl IntoIterator<Item = (K, V)>) -> Vec<(K, Vec<V>)> {
    let mut places: HashMap<K, usize> = HashMap::new();
    let mut groups: Vec<(K, Vec<V>)> = Vec::new();
    for (key, value) in values {
        let place = *places.entry(key.clone()).or_insert(groups.len());
        match groups.get_mut(place) {
            Some((_, values)) => values.push(value),
            None => groups.push((key, vec![value])),
        }
    }
    groups
}

/// The reason for an I/O error, without Rust's `(os error 2)`.
pub fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}

/// Text from outside for a message: on one line, and truncated if it is long. The log escapes what is not printable.
pub fn one_line(text: &str) -> String {
    const LONGEST: usize = 300;
    cut(&text.split_whitespace().collect::<Vec<&str>>().join(" "), LONGEST)
}

/// The first characters of a line, with `…` if it is longer.
pub fn cut(line: &str, characters: usize) -> String {
    let beginning: String = line.chars().take(characters).collect();
    if beginning.len() == line.len() { beginning } else { format!("{beginning}…") }
}

/// Whether a character controls a terminal, is invisible, or changes the visible order: controls, and the common ones of
/// Unicode's categories Cf, Zl and Zp.
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_truncated() {
        assert_eq!(several(["a", "b"]), "a, b");
        assert_eq!(several(["a", "b", "c", "d", "e", "f", "g"]), "a, b, c, d, e and 2 more");
    }

    #[test]
    fn text_from_outside_is_one_short_line() {
        assert_eq!(one_line(" one\r\n\ttwo\u{85}three "), "one two three");
        let long = one_line(&"é".repeat(12_000));
        assert_eq!((long.chars().count(), long.chars().last()), (301, Some('…')));
    }
}
