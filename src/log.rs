//! Our own log, on standard error.
//!
//! The text format is that of Prosody's console log (`log_to_console` in `core/loggingmanager.lua`, 0.12 and 13.0), so
//! that both form one log: no time, the source in a column, the level, a tab, the message.

use crate::exit_status::{ExitStatus, Failure};
use crate::text::is_unprintable;
use std::fmt;
use std::io::{self, IsTerminal};

use tracing::field::Field;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

/// The source of our messages, in Prosody's column for it.
const SOURCE: &str = "entrypoint";

/// The width of that column (`source_width`).
const SOURCE_WIDTH: usize = 20;

/// The format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    /// One JSON object per line, with `timestamp` (UTC), `level`, `message`, `target` and the event's other fields.
    Json,
}

/// Sends all log messages at `level` and above to standard error. Only the first call has an effect.
pub fn init(format: Format, level: Level) {
    // This fails in every call but the first.
    let _ = match format {
        Format::Text => {
            tracing::subscriber::set_global_default(text(level, io::stderr().is_terminal(), io::stderr))
        }
        Format::Json => tracing::subscriber::set_global_default(json(level, io::stderr)),
    };
}

/// The text log. Errors while writing are not reported: without standard error, the report would panic.
fn text<W: io::Write + 'static>(
    level: Level,
    with_colours: bool,
    writer: impl Fn() -> W + Send + Sync + 'static,
) -> impl Subscriber + Send + Sync {
    tracing_subscriber::fmt()
        .with_max_level(level)
        .log_internal_errors(false)
        .event_format(ProsodyLayout { with_colours })
        .with_writer(writer)
        .finish()
}

fn json<W: io::Write + 'static>(
    level: Level,
    writer: impl Fn() -> W + Send + Sync + 'static,
) -> impl Subscriber + Send + Sync {
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_max_level(level)
        .log_internal_errors(false)
        .with_writer(move || PrintableJson(writer()))
        .finish()
}

/// Prosody's console format. Only the message is written, without other fields: it is a complete sentence.
struct ProsodyLayout {
    with_colours: bool,
}

impl<S, N> FormatEvent<S, N> for ProsodyLayout
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<S, N>, mut writer: Writer, event: &Event) -> fmt::Result {
        // Prosody's terminal styles. Debug, its lowest level, has none.
        let (level, style) = match *event.metadata().level() {
            Level::ERROR => ("error", Some("1;31")),
            Level::WARN => ("warn", Some("1;33")),
            Level::INFO => ("info", Some("1")),
            Level::DEBUG | Level::TRACE => ("debug", None),
        };
        write!(writer, "{SOURCE:SOURCE_WIDTH$}")?;
        match style.filter(|_| self.with_colours) {
            Some(style) => write!(writer, "\x1b[{style}m{level}\x1b[0m\t")?,
            None => write!(writer, "{level}\t")?,
        }
        let mut result = Ok(());
        event.record(&mut |field: &Field, value: &dyn fmt::Debug| {
            if field.name() == "message" {
                result = fmt::write(&mut Printable(&mut writer), format_args!("{value:?}"));
            }
        });
        result?;
        writeln!(writer)
    }
}

/// Escapes text like Prosody (`util/format.lua`). Continuation lines are indented, so that they cannot be mistaken for
/// log messages. ASCII's other control characters become printable symbols (Unicode block "Control Pictures"), and
/// whatever else is not printable an escape, so that none reaches a terminal.
struct Printable<'a, W>(&'a mut W);

impl<W: fmt::Write> fmt::Write for Printable<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive(is_unprintable) {
            let mut plain = piece.chars();
            let last = plain.next_back().filter(|last| *last != '\t' && is_unprintable(*last));
            let Some(last) = last else {
                self.0.write_str(piece)?;
                continue;
            };
            self.0.write_str(plain.as_str())?;
            match last {
                '\n' => self.0.write_str("\n\t")?,
                '\x7f' => self.0.write_char('\u{2421}')?,
                '\0'..='\x1f' => {
                    self.0.write_char(char::from_u32(0x2400 + u32::from(last)).unwrap_or(last))?
                }
                _ => write!(self.0, "{}", last.escape_unicode())?,
            }
        }
        Ok(())
    }
}

/// Writes lines of JSON, with escapes for all that is not printable: serde_json has them only up to U+001F.
struct PrintableJson<W>(W);

impl<W: io::Write> io::Write for PrintableJson<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let line_text = String::from_utf8_lossy(line);
        let escaped = line_text.chars().map(|character| match character {
            '\n' => "\n".to_owned(),
            _ if !is_unprintable(character) => character.to_string(),
            _ => character.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
        });
        self.0.write_all(escaped.collect::<String>().as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Logs a failure that ends the program. Returns its exit status.
pub fn report_failure(failure: &Failure) -> ExitStatus {
    // Before the settings are read, there is no log yet: use the defaults.
    init(Format::Text, tracing::Level::INFO);
    tracing::error!("{failure}");
    failure.status
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};
    use tracing::{debug, error, info, warn};

    /// The output, shared with the subscriber that writes it.
    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Output {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn logged_as_text(level: Level, with_colours: bool, log: impl FnOnce()) -> String {
        let output = Output::default();
        let writer = output.clone();
        tracing::subscriber::with_default(text(level, with_colours, move || writer.clone()), log);
        output.text()
    }

    fn one_of_each_level() {
        debug!("one");
        info!("two");
        warn!(path = "/x", "three {}", 3);
        error!("four");
    }

    #[test]
    fn text_has_prosodys_format() {
        assert_eq!(
            logged_as_text(Level::DEBUG, false, one_of_each_level),
            "entrypoint          debug\tone\n\
             entrypoint          info\ttwo\n\
             entrypoint          warn\tthree 3\n\
             entrypoint          error\tfour\n"
        );
    }

    #[test]
    fn messages_below_the_level_are_left_out() {
        for (level, count) in [(Level::DEBUG, 4), (Level::INFO, 3), (Level::WARN, 2), (Level::ERROR, 1)] {
            assert_eq!(logged_as_text(level, false, one_of_each_level).lines().count(), count, "{level}");
        }
    }

    #[test]
    fn levels_have_prosodys_styles_on_a_terminal() {
        assert_eq!(
            logged_as_text(Level::DEBUG, true, one_of_each_level),
            "entrypoint          debug\tone\n\
             entrypoint          \x1b[1minfo\x1b[0m\ttwo\n\
             entrypoint          \x1b[1;33mwarn\x1b[0m\tthree 3\n\
             entrypoint          \x1b[1;31merror\x1b[0m\tfour\n"
        );
    }

    #[test]
    fn a_message_cannot_look_like_two() {
        let message = "jörg\nc2s1    info\tforged\r\x1b[31m\x7f\u{9b}31m\u{202e}";
        assert_eq!(
            logged_as_text(Level::INFO, false, || info!("{message}")),
            "entrypoint          info\tjörg\n\tc2s1    info\tforged␍␛[31m␡\\u{9b}31m\\u{202e}\n"
        );
    }

    #[test]
    fn json_is_one_object_per_line() {
        let output = Output::default();
        let writer = output.clone();
        tracing::subscriber::with_default(json(Level::INFO, move || writer.clone()), || {
            debug!("left out");
            info!("two\nlines");
            warn!(path = "/x\u{9b}\x7f", "three\u{e0041}");
        });
        let text = output.text();
        assert!(!text.contains(|c| c != '\n' && is_unprintable(c)), "{text:?}");
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["level"], "INFO");
        assert_eq!(lines[0]["message"], "two\nlines");
        assert_eq!(lines[1]["path"], "/x\u{9b}\x7f");
        assert_eq!(lines[1]["message"], "three\u{e0041}");
        let timestamp = lines[1]["timestamp"].as_str().unwrap();
        assert!(timestamp.starts_with("20") && timestamp.ends_with('Z'), "{timestamp}");
    }
}
