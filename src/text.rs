//! Text for messages: lists in a sentence, reasons for errors, the nearest of several names.

mod nearest;

use std::io;

use nix::errno::Errno;

pub use self::nearest::nearest;

/// Lists names in a sentence: the first five, and the number of the others.
pub fn several<N: AsRef<str>>(names: &[N]) -> String {
    const SHOWN: usize = 5;
    let join = |names: &[N]| names.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(", ");
    match names.len() {
        0..=SHOWN => join(names),
        count => format!("{} and {} more", join(&names[..SHOWN]), count - SHOWN),
    }
}

/// The reason for an I/O error, without Rust's `(os error 2)`.
pub fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_truncated() {
        assert_eq!(several(&["a", "b"]), "a, b");
        assert_eq!(several(&["a", "b", "c", "d", "e", "f", "g"]), "a, b, c, d, e and 2 more");
    }
}
