//! A lexer for Lua source (Lua 5.4 manual, section 3.1). It executes nothing.

/// The maximum number of bytes of a line in [`Tokens::assigned`], so that a very long line is not read repeatedly.
const LINE: usize = 256;

/// A piece of Lua source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token<'a> {
    /// A name or a reserved word.
    Name(&'a [u8]),
    /// The source of a string, without its quotes or brackets.
    Text(&'a [u8]),
    /// Any other byte except white space. A number is one token, its first byte.
    Symbol(u8),
}

/// The tokens of Lua source, without comments.
#[derive(Clone)]
pub struct Tokens<'a> {
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
    /// Starts at the beginning of `source`, which may be any bytes.
    pub fn new(source: &'a [u8]) -> Self {
        Self { source, position: 0 }
    }

    /// The source of the assigned value, if `=` is the next token: a table, or the rest of the line.
    pub fn assigned(&self) -> Option<&'a [u8]> {
        let mut tokens = self.clone();
        if tokens.next() != Some(Token::Symbol(b'=')) {
            return None;
        }
        let start = tokens.position;
        if tokens.clone().next() == Some(Token::Symbol(b'{')) {
            let mut depth = 0_usize;
            for token in tokens.by_ref() {
                match token {
                    Token::Symbol(b'{') => depth += 1,
                    Token::Symbol(b'}') if depth == 1 => break,
                    Token::Symbol(b'}') => depth -= 1,
                    _ => {}
                }
            }
        } else {
            let line = tokens.rest().iter().take(LINE).take_while(|byte| **byte != b'\n');
            tokens.position += line.count();
        }
        Some(&self.source[start..tokens.position])
    }

    /// The source that has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        &self.source[self.position..]
    }

    fn take_while(&mut self, matches: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.rest();
        let length = rest.iter().position(|byte| !matches(*byte)).unwrap_or(rest.len());
        self.position += length;
        &rest[..length]
    }

    /// Reads a quoted string. An unfinished string is a syntax error in Lua. Here it ends with its line, so that the
    /// next lines are still read.
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

    /// Reads a string in long brackets (`[[…]]`, `[==[…]==]`), if one begins here. An unfinished one ends with the
    /// source.
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
