//! Scripts in Lua as a part of the program.

/// The source of a script in a file, without indentation and comments: they would take up a fifth of it. Lines keep their
/// numbers. A text in `[[…]]` loses the blanks at the beginning of its lines, too.
macro_rules! script {
    ($path:literal) => {{
        const SOURCE: &str = include_str!($path);
        #[allow(long_running_const_eval)]
        const BARE: ([u8; SOURCE.len()], usize) = $crate::lua::bare(SOURCE);
        const BYTES: [u8; BARE.1] = $crate::lua::first(&BARE.0);
        const TEXT: &str = match std::str::from_utf8(&BYTES) {
            Ok(text) => text,
            Err(_) => panic!("not UTF-8"),
        };
        TEXT
    }};
}
pub(crate) use script;

/// The work of [`script`]: the bytes that are left, and their number.
pub const fn bare<const N: usize>(source: &str) -> ([u8; N], usize) {
    let source = source.as_bytes();
    let (mut kept, mut length, mut at) = ([0; N], 0, 0);
    while at < N {
        while at < N && (source[at] == b'\t' || source[at] == b' ') {
            at += 1;
        }
        let is_comment = at + 1 < N && source[at] == b'-' && source[at + 1] == b'-';
        while at < N && source[at] != b'\n' {
            if !is_comment {
                kept[length] = source[at];
                length += 1;
            }
            at += 1;
        }
        if at < N {
            kept[length] = b'\n';
            length += 1;
            at += 1;
        }
    }
    (kept, length)
}

/// The first bytes of an array.
pub const fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let (mut kept, mut at) = ([0; N], 0);
    while at < N {
        kept[at] = bytes[at];
        at += 1;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_loses_indentation_and_comments_and_keeps_its_lines() {
        const SOURCE: &str = "-- a comment\n\tlocal x = 1; -- stays\n\n\t\t--\n  y()\n\tz";
        const BARE: ([u8; SOURCE.len()], usize) = bare(SOURCE);
        assert_eq!(first::<{ BARE.1 }>(&BARE.0), *b"\nlocal x = 1; -- stays\n\n\ny()\nz");
    }
}
