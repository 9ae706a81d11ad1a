//! PID 1's own messages. They are rare, and writing them allocates nothing.

use nix::unistd::{getpid, write as write_to};
use std::fmt::{self, Write};

use crate::os::system::standard_stream;

/// The style of PID 1's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageStyle {
    /// Our own style, on standard error: only fatal errors and warnings.
    Entrypoint,
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
        let mut line = Line { text: [0; LINE_LENGTH], length: 0 };
        // A longer message is truncated.
        let _ = match self {
            MessageStyle::Entrypoint if level <= 1 => {
                line.write_fmt(format_args!("prosody-entrypoint: {message}"))
            }
            MessageStyle::Tini { verbosity } if level <= verbosity => {
                line.write_fmt(format_args!("[{name} tini ({})] {message}", getpid()))
            }
            _ => return,
        };
        line.text[line.length] = b'\n';
        // If the stream is closed, nobody can be told.
        let _ = write_to(standard_stream(stream), &line.text[..=line.length]);
    }
}

/// The maximum length of a line, in bytes.
const LINE_LENGTH: usize = 1024;

/// A buffer for one line, which is written at once so that other output does not split it.
struct Line {
    text: [u8; LINE_LENGTH],
    length: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // The last byte is reserved for the newline.
        let room = LINE_LENGTH - 1 - self.length;
        let taken = text.len().min(room);
        self.text[self.length..self.length + taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.length += taken;
        if taken < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}
