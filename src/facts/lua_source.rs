//! What a Lua file of the user's says on its face: whether it defines a host, and which environment variables it reads.
//!
//! This reads tokens (Lua 5.4 manual, 3.1), it does not run anything. So a word in a comment or in a string is
//! not mistaken for code, and what a program puts together at run time is not seen.

use std::collections::BTreeSet;

/// What a file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Whether `VirtualHost`, `Component` or one of their short names in Prosody's configuration is called.
    pub defines_host: bool,
    /// The variables that it reads, as `ENV_NAME` or as `os.getenv("NAME")`.
    pub environment: BTreeSet<String>,
}

/// The functions of Prosody's configuration (`core/configmanager.lua`) that begin a host.
const HOST_FUNCTIONS: [&[u8]; 5] = [b"VirtualHost", b"Host", b"host", b"Component", b"component"];

/// Reads Lua source, or a template of it. Takes any bytes, and a time that grows with their number.
pub fn summarize(source: &[u8]) -> Summary {
    let mut summary = Summary::default();
    let mut tokens = Tokens { source, position: 0 };
    // A field (`x.host`), a method or the name of a function that is being defined is no call of Prosody's.
    let mut is_other = false;
    while let Some(token) = tokens.next() {
        if let Token::Name(name) = token {
            if let Some(variable) = name.strip_prefix(b"ENV_") {
                add(&mut summary.environment, variable);
            } else if name == b"getenv" {
                let mut following = tokens.clone().filter(|token| *token != Token::Symbol(b'('));
                if let Some(Token::Text(variable)) = following.next() {
                    add(&mut summary.environment, variable);
                }
            } else if !is_other && HOST_FUNCTIONS.contains(&name) {
                summary.defines_host |= is_call(tokens.clone());
            }
        }
        is_other = matches!(token, Token::Symbol(b'.' | b':') | Token::Name(b"function"));
    }
    summary
}

/// Whether the tokens after a name make it a call: `f "x"`, `f [[x]]`, `f(x)`, and a template's `f {{ x }}`.
fn is_call(mut following: Tokens) -> bool {
    match following.next() {
        Some(Token::Text(_) | Token::Symbol(b'(')) => true,
        Some(Token::Symbol(b'{')) => following.next() == Some(Token::Symbol(b'{')),
        _ => false,
    }
}

/// Adds a variable whose name can be one: neither empty nor with bytes that only an escape sequence would explain.
fn add(environment: &mut BTreeSet<String>, name: &[u8]) {
    if let Ok(name) = std::str::from_utf8(name) {
        if !name.is_empty() && !name.contains('\\') {
            environment.insert(name.to_owned());
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    /// A name or a reserved word.
    Name(&'a [u8]),
    /// A string as it is written between its quotes or brackets.
    Text(&'a [u8]),
    /// Any other byte that is not white space. Numbers are one token, their first byte.
    Symbol(u8),
}

/// The tokens of Lua source, comments left out.
#[derive(Clone)]
struct Tokens<'a> {
    source: &'a [u8],
    position: usize,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            self.take_while(|byte| byte.is_ascii_whitespace() || byte == 0x0b);
            if !self.rest().starts_with(b"--") {
                break;
            }
            self.position += 2;
            if self.long_bracket().is_none() {
                self.take_while(|byte| byte != b'\n' && byte != b'\r');
            }
        }
        let byte = *self.rest().first()?;
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'_' => {
                Some(Token::Name(self.take_while(|byte| byte.is_ascii_alphanumeric() || byte == b'_')))
            }
            b'0'..=b'9' => {
                self.take_while(|byte| byte.is_ascii_alphanumeric() || byte == b'.');
                Some(Token::Symbol(byte))
            }
            b'"' | b'\'' => Some(Token::Text(self.quoted(byte))),
            _ => Some(match self.long_bracket() {
                Some(text) => Token::Text(text),
                None => {
                    self.position += 1;
                    Token::Symbol(byte)
                }
            }),
        }
    }
}

impl<'a> Tokens<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.source[self.position..]
    }

    fn take_while(&mut self, matches: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.rest();
        let length = rest.iter().position(|byte| !matches(*byte)).unwrap_or(rest.len());
        self.position += length;
        &rest[..length]
    }

    /// A string in quotes. One without its end is a mistake, and ends with its line, so that it hides no more.
    fn quoted(&mut self, quote: u8) -> &'a [u8] {
        self.position += 1;
        let start = self.position;
        loop {
            self.take_while(|byte| byte != quote && byte != b'\\' && byte != b'\n');
            match self.rest() {
                [b'\\', b'z', ..] => {
                    self.position += 2;
                    self.take_while(|byte| byte.is_ascii_whitespace());
                }
                [b'\\', b'\r', b'\n', ..] => self.position += 3,
                [b'\\', _, ..] => self.position += 2,
                rest => {
                    let text = &self.source[start..self.position];
                    self.position += rest.len().min(1);
                    return text;
                }
            }
        }
    }

    /// The text in long brackets (`[[…]]`, `[==[…]==]`) where one begins here. Without its end it reaches to the end of the file.
    fn long_bracket(&mut self) -> Option<&'a [u8]> {
        let inside = self.rest().strip_prefix(b"[")?;
        let level = inside.iter().position(|byte| *byte != b'=')?;
        if inside[level] != b'[' {
            return None;
        }
        let text = &inside[level + 1..];
        let mut from = 0;
        while let Some(found) = text[from..].iter().position(|byte| *byte == b']') {
            let end = from + found;
            let closing = &text[end + 1..];
            let equals = closing.iter().take(level).take_while(|byte| **byte == b'=').count();
            if equals == level && closing.get(level) == Some(&b']') {
                self.position += 1 + level + 1 + end + 1 + level + 1;
                return Some(&text[..end]);
            }
            from = end + 1;
        }
        self.position = self.source.len();
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defines_host(source: &str) -> bool {
        summarize(source.as_bytes()).defines_host
    }

    fn environment(source: &str) -> Vec<String> {
        summarize(source.as_bytes()).environment.into_iter().collect()
    }

    #[test]
    fn hosts_are_seen_however_they_are_written() {
        for source in [
            "VirtualHost \"a.example\"",
            "VirtualHost'a.example'",
            "VirtualHost [[a.example]]",
            "VirtualHost --[==[ ]] ]==] [=[a.example]=]",
            "VirtualHost\n\t(\"a.example\")",
            "Component \"rooms.example\" \"muc\"",
            "admins = {}\nHost \"a.example\"",
            "host 'a.example'",
            "component(name)",
            "x = \"\\\"\" VirtualHost \"a\"",
            "x = 'a\\z\n\n  b' VirtualHost \"a\"",
            "x = 'unfinished\nVirtualHost \"a\"",
            "x = 0x1p4 VirtualHost \"a\"",
            "for _, d in ipairs(t) do VirtualHost(d) end",
            "VirtualHost {{ domain }}",
            "x = a[1] --]]\nVirtualHost \"a\"",
        ] {
            assert!(defines_host(source), "{source}");
        }
    }

    #[test]
    fn comments_strings_and_other_uses_of_the_words_are_no_hosts() {
        for source in [
            "-- VirtualHost \"a.example\"",
            "--[[ VirtualHost \"a.example\"\n VirtualHost \"b.example\" ]]",
            "--[==[ ]] VirtualHost \"a\" ]=] ]==]",
            "--[[ never closed VirtualHost \"a\"",
            "x = \"VirtualHost 'a'\"",
            "x = [[\nVirtualHost \"a\"\n]]",
            "x = 'it\\'s VirtualHost \"a\"'",
            "x = 'a\\\nVirtualHost \"a\"'",
            "x = 'a\\\r\nVirtualHost \"a\"'",
            "sql = { host = \"localhost\" }",
            "turn.host \"x\"",
            "proxy:host(\"x\")",
            "function host(name) end",
            "component = true",
            "VirtualHosts = { 'a' }",
            "MyVirtualHost \"a\"",
            "host {}",
            "",
        ] {
            assert!(!defines_host(source), "{source}");
        }
    }

    #[test]
    fn variables_are_seen_in_code_alone() {
        let source = "
            a = ENV_ONE
            b = os.getenv(\"TWO\") or Lua.os.getenv 'THREE' .. os.getenv[[FOUR]]
            c = { ENV_ONE, x.ENV_FIVE }
            -- ENV_COMMENT os.getenv(\"COMMENT\")
            d = \"ENV_TEXT\" .. os.getenv(name) .. os.getenv(\"A\\65\") .. ENV_ .. MY_ENV_X";
        assert_eq!(environment(source), ["FIVE", "FOUR", "ONE", "THREE", "TWO"]);
    }

    #[test]
    fn any_bytes_are_taken() {
        // Every sequence of up to six of the bytes that mean something to the scanner.
        let alphabet = b"[]=-\"\\\nzH";
        let mut source = Vec::new();
        for number in 0..9_usize.pow(6) {
            source.clear();
            let mut rest = number;
            while rest > 0 {
                source.push(alphabet[rest % alphabet.len()]);
                rest /= alphabet.len();
            }
            summarize(&source);
        }
        assert_eq!(summarize(&[0xff, 0, b'\\', 0x80]), Summary::default());
    }

    #[test]
    fn the_time_is_linear_where_brackets_are_never_closed() {
        // Quadratic, each of these would take minutes.
        for pattern in ["]", "[=", "]==", "\"\\", "host ", "getenv(", "--[="] {
            let source = pattern.repeat(1024 * 1024 / pattern.len());
            summarize(source.as_bytes());
            summarize(format!("[======[{source}").as_bytes());
        }
    }
}
