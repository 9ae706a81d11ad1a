//! Values as Lua literals.

use std::fmt;

/// Text that is never printed.
pub struct Secret(String);

impl Secret {
    /// Takes the text to hide.
    pub fn new(text: String) -> Secret {
        Secret(text)
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
