//! What PID 1 says: rarely anything, and without allocating.

use nix::unistd::{getpid, write as write_to};
use std::fmt::{self, Write};

use crate::os::system::standard_stream;

/// In whose words PID 1 speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageStyle {
    /// Our own, on standard error: warnings and what is fatal.
    Entrypoint,
    /// tini's layout, streams and levels of verbosity, for people and programs that look for them in logs.
    Tini {
        /// 0: what is fatal, 1: warnings, 2: information, 3: debugging, 4: everything.
        verbosity: u8,
    },
}

impl MessageStyle {
    /// Something that ends us.
    pub fn fatal(self, message: fmt::Arguments) {
        self.write_line(0, "FATAL", 2, message);
    }

    /// Something that is wrong.
    pub fn warn(self, message: fmt::Arguments) {
        self.write_line(1, "WARN ", 2, message);
    }

    /// Something of interest.
    pub fn info(self, message: fmt::Arguments) {
        self.write_line(2, "INFO ", 1, message);
    }

    /// Something for who looks for a mistake.
    pub fn debug(self, message: fmt::Arguments) {
        self.write_line(3, "DEBUG", 1, message);
    }

    /// Everything else.
    pub fn trace(self, message: fmt::Arguments) {
        self.write_line(4, "TRACE", 1, message);
    }

    fn write_line(self, level: u8, name: &str, stream: i32, message: fmt::Arguments) {
        let mut line = Line { text: [0; LINE_LENGTH], length: 0 };
        // What does not fit is left out.
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
        // Where it is closed there is nobody to tell.
        let _ = write_to(standard_stream(stream), &line.text[..=line.length]);
    }
}

/// The longest line, in bytes.
const LINE_LENGTH: usize = 1024;

/// A line that is written at once, so that it is not mixed with those of others.
struct Line {
    text: [u8; LINE_LENGTH],
    length: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // The last byte is for the end of the line.
        let room = LINE_LENGTH - 1 - self.length;
        let taken = text.len().min(room);
        self.text[self.length..self.length + taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.length += taken;
        if taken < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}
