//! PID 1's own messages. They are rare, and writing them allocates nothing.

use nix::unistd::{getpid, write as write_to};
use std::fmt::{self, Write};

use crate::log::Format;
use crate::os::system::standard_stream;

/// The style of PID 1's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageStyle {
    /// Our own log, on standard error: only fatal errors and warnings.
    Entrypoint(Format),
    /// tini's format, streams and levels, for people and programs that search logs for them.
    Tini {
        /// 0: fatal errors, 1: warnings, 2: information, 3: debug output, 4: everything.
        verbosity: u8,
    },
}

impl MessageStyle {
    pub fn fatal(self, message: fmt::Arguments) {
        self.write_line(0, "FATAL", 2, message);
    }

    pub fn warn(self, message: fmt::Arguments) {
        self.write_line(1, "WARN ", 2, message);
    }

    pub fn info(self, message: fmt::Arguments) {
        self.write_line(2, "INFO ", 1, message);
    }

    pub fn debug(self, message: fmt::Arguments) {
        self.write_line(3, "DEBUG", 1, message);
    }

    pub fn trace(self, message: fmt::Arguments) {
        self.write_line(4, "TRACE", 1, message);
    }

    fn write_line(self, level: u8, name: &str, stream: i32, message: fmt::Arguments) {
        match self {
            MessageStyle::Entrypoint(format) if level <= 1 => {
                let level = if level == 0 { "error" } else { "warn" };
                entrypoint_line(format, level, message).write(stream);
            }
            MessageStyle::Tini { verbosity } if level <= verbosity => {
                let mut line = Line::<LINE_LENGTH>::new();
                // A longer message is truncated.
                let _ = line.write_fmt(format_args!("[{name} tini ({})] {message}", getpid()));
                line.end();
                line.write(stream);
            }
            _ => {}
        }
    }
}

/// A line of our own log. It has room for each byte of the message as an escape of JSON.
fn entrypoint_line(format: Format, level: &str, message: fmt::Arguments) -> Line<{ 256 + 6 * LINE_LENGTH }> {
    let mut text = Line::<LINE_LENGTH>::new();
    // A longer message is truncated.
    let _ = text.write_fmt(message);
    let mut line = Line::new();
    let _ = format.write_line(&mut line, level, None, format_args!("{}", text.text()));
    line
}

/// The maximum length of a message, in bytes.
const LINE_LENGTH: usize = 1024;

/// A buffer for one line, which is written at once so that other output does not split it.
struct Line<const SIZE: usize> {
    bytes: [u8; SIZE],
    length: usize,
}

impl<const SIZE: usize> Line<SIZE> {
    fn new() -> Self {
        Self { bytes: [0; SIZE], length: 0 }
    }

    fn text(&self) -> &str {
        // Only whole characters are in it.
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }

    /// Ends the line, with a byte that is reserved for it.
    fn end(&mut self) {
        self.bytes[self.length] = b'\n';
        self.length += 1;
    }

    fn write(&self, stream: i32) {
        // If the stream is closed, nobody can be told.
        let _ = write_to(standard_stream(stream), &self.bytes[..self.length]);
    }
}

impl<const SIZE: usize> Write for Line<SIZE> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // The last byte is reserved for the newline.
        let room = SIZE - 1 - self.length;
        let is_end = |end: &usize| text.is_char_boundary(*end);
        let taken = (0..=text.len().min(room)).rev().find(is_end).unwrap_or_default();
        self.bytes[self.length..self.length + taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.length += taken;
        if taken < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_truncated_between_characters() {
        for letter in ["é", "\u{1b}", "\u{e0041}", "\""] {
            let message = letter.repeat(LINE_LENGTH);
            let line = entrypoint_line(Format::Json, "warn", format_args!("{message}"));
            let object: serde_json::Value = serde_json::from_str(line.text()).unwrap();
            let written = object["message"].as_str().unwrap();
            assert!(message.starts_with(written) && written.len() > LINE_LENGTH - 5, "{written:?}");
            assert!(line.text().ends_with("}\n"));
        }
    }
}
