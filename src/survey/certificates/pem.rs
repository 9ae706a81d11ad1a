//! Reads and writes PEM (RFC 7468). Accepts text around blocks and any line endings, and detects truncated files.

use std::io::BufRead as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

/// The length of a Base64 line, in characters (RFC 7468, section 2).
const LINE: usize = 64;

/// A block, still in Base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block<'a> {
    /// The type: `CERTIFICATE`, `RSA PRIVATE KEY`, …
    pub label: &'a str,
    /// The lines between the BEGIN and the END line.
    pub body: &'a [u8],
}

/// The error for a block without its END line. The file may still be being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutOff;

impl Block<'_> {
    pub fn is_key(&self) -> bool {
        self.label.ends_with("PRIVATE KEY")
    }

    /// Whether it needs a passphrase: by its label (PKCS #8), or by the headers of RFC 1421.
    pub fn is_encrypted(&self) -> bool {
        self.label == "ENCRYPTED PRIVATE KEY" || lines(self.body).any(|line| line.starts_with(b"Proc-Type:"))
    }

    /// The decoded content. `None` if it is not Base64.
    pub fn decode(&self) -> Option<Vec<u8>> {
        let mut text = Vec::with_capacity(self.body.len());
        for line in lines(self.body) {
            text.extend_from_slice(line);
        }
        BASE64.decode(text).ok()
    }
}

/// The blocks in a text, in order. The first one that is cut off is the last.
pub fn blocks(text: &[u8]) -> impl Iterator<Item = Result<Block<'_>, CutOff>> {
    let mut rest = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    std::iter::from_fn(move || {
        let block = next(&mut rest)?;
        if block.is_err() {
            rest = &[];
        }
        Some(block)
    })
}

/// Whether a text contains the BEGIN line of a block.
pub fn is_pem(text: &[u8]) -> bool {
    next(&mut text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)).is_some()
}

/// Appends a block with this content to `out`.
pub fn write(out: &mut String, label: &str, content: &[u8]) {
    let text = BASE64.encode(content);
    let mut rest = text.as_str();
    out.push_str("-----BEGIN ");
    out.push_str(label);
    out.push_str("-----\n");
    while !rest.is_empty() {
        // Base64 is ASCII, so every index is a character boundary.
        let (line, after) = rest.split_at(rest.len().min(LINE));
        out.push_str(line);
        out.push('\n');
        rest = after;
    }
    out.push_str("-----END ");
    out.push_str(label);
    out.push_str("-----\n");
}

fn next<'a>(rest: &mut &'a [u8]) -> Option<Result<Block<'a>, CutOff>> {
    let label = loop {
        let line = take_line(rest)?;
        if let Some(label) = label(line, b"-----BEGIN ") {
            break label;
        }
    };
    let body = *rest;
    loop {
        let before = rest.len();
        let Some(line) = take_line(rest) else { return Some(Err(CutOff)) };
        if line.starts_with(b"-----") {
            if self::label(line, b"-----END ") != Some(label) {
                return Some(Err(CutOff));
            }
            return Some(Ok(Block { label, body: &body[..body.len() - before] }));
        }
    }
}

fn label<'a>(line: &'a [u8], start: &[u8]) -> Option<&'a str> {
    std::str::from_utf8(line.strip_prefix(start)?.strip_suffix(b"-----")?).ok()
}

/// The next line, without trailing white space.
fn take_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    if rest.is_empty() {
        return None;
    }
    let mut after = *rest;
    // The standard library's fastest search for a byte. Reading from memory cannot fail.
    let length = after.skip_until(b'\n').unwrap_or(rest.len());
    let line = &rest[..length];
    *rest = after;
    Some(line.trim_ascii_end())
}

fn lines(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || take_line(&mut rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: &str = "-----BEGIN A B-----\naGVs\nbG8=\n-----END A B-----\n";

    fn decoded(text: &str) -> Vec<Result<Vec<u8>, CutOff>> {
        blocks(text.as_bytes()).map(|block| Ok(block?.decode().unwrap())).collect()
    }

    #[test]
    fn text_around_blocks_and_any_line_endings_are_accepted() {
        for text in [
            BLOCK.to_owned(),
            BLOCK.replace('\n', "\r\n"),
            BLOCK.replace('\n', " \n"),
            BLOCK.trim_end().to_owned(),
            format!("\u{feff}{BLOCK}"),
            format!("Certificate:\n    Data: -----BEGIN\n{BLOCK}and so on"),
        ] {
            assert_eq!(decoded(&text), [Ok(b"hello".to_vec())], "{text:?}");
            assert!(is_pem(text.as_bytes()));
        }
        assert_eq!(decoded(&BLOCK.repeat(3)).len(), 3);
        assert_eq!(decoded("hello"), []);
        assert!(!is_pem(b"hello"));
    }

    #[test]
    fn every_truncation_is_detected() {
        for end in 20..BLOCK.len() - 1 {
            assert_eq!(decoded(&BLOCK[..end]), [Err(CutOff)], "{end}");
        }
        let after = format!("{BLOCK}{}{BLOCK}", &BLOCK[..25]);
        assert_eq!(decoded(&after), [Ok(b"hello".to_vec()), Err(CutOff)]);
    }

    #[test]
    fn a_written_block_can_be_read() {
        for length in [0, 1, 47, 48, 49, 96, 1000] {
            let content = vec![7; length];
            let mut text = String::new();
            write(&mut text, "X", &content);
            assert_eq!(decoded(&text), [Ok(content)], "{text}");
            assert!(text.lines().all(|line| line.len() <= LINE));
        }
    }

    #[test]
    fn a_key_with_a_passphrase_is_detected() {
        for (label, body, encrypted) in [
            ("ENCRYPTED PRIVATE KEY", "AAAA\n", true),
            ("RSA PRIVATE KEY", "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n", true),
            ("RSA PRIVATE KEY", "AAAA\n", false),
        ] {
            let block = Block { label, body: body.as_bytes() };
            assert!(block.is_key());
            assert_eq!(block.is_encrypted(), encrypted, "{label}");
        }
    }
}
