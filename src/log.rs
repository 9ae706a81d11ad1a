//! Our own log, on standard error.
//!
//! The text format is that of Prosody's console log (`log_to_console` in `core/loggingmanager.lua`, 0.12 and 13.0), and
//! JSON that of `live/log.lua`, so that both form one log.

use crate::exit_status::{ExitStatus, Failure};
use crate::report::Report;
use crate::text::is_unprintable;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};

use time::OffsetDateTime;
use tracing::field::Field;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

/// The source of our messages, in Prosody's column for it.
const SOURCE: &str = "entrypoint";

/// The width of that column (`source_width`).
const SOURCE_WIDTH: usize = 20;

/// Whether the log is JSON.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// The format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    /// Text, with the time at the beginning of each line.
    TimedText,
    /// One JSON object per line, with `time`, `level`, `source` and `message`.
    Json,
}

impl Format {
    /// Writes a message as one line, without an allocation. `style` is the level's terminal style, for text.
    pub fn write_line(
        self,
        writer: &mut dyn fmt::Write,
        level: &str,
        style: Option<&str>,
        message: fmt::Arguments,
    ) -> fmt::Result {
        if self == Format::Json {
            let time = Time { has_milliseconds: true };
            write!(writer, r#"{{"time":"{time}","level":"{level}","source":"{SOURCE}","message":""#)?;
            fmt::write(&mut Escaped { writer, is_json: true }, message)?;
            return writer.write_str("\"}\n");
        }
        if self == Format::TimedText {
            write!(writer, "{} ", Time { has_milliseconds: false })?;
        }
        write!(writer, "{SOURCE:SOURCE_WIDTH$}")?;
        match style {
            Some(style) => write!(writer, "\x1b[{style}m{level}\x1b[0m\t")?,
            None => write!(writer, "{level}\t")?,
        }
        fmt::write(&mut Escaped { writer, is_json: false }, message)?;
        writer.write_char('\n')
    }
}

/// The present time in UTC (RFC 3339). With whole seconds, as in Prosody's text log.
struct Time {
    has_milliseconds: bool,
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = OffsetDateTime::now_utc();
        let (year, month, day) = now.to_calendar_date();
        let (hour, minute, second, millisecond) = now.to_hms_milli();
        let month = u8::from(month);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        if self.has_milliseconds {
            write!(f, ".{millisecond:03}")?;
        }
        f.write_char('Z')
    }
}

/// Sends all log messages at `level` and above to standard error. Only the first call has an effect.
pub fn init(format: Format, level: Level) {
    let log = subscriber(format, level, io::stderr().is_terminal(), io::stderr);
    if tracing::subscriber::set_global_default(log).is_ok() {
        IS_JSON.store(format == Format::Json, Ordering::Relaxed);
    }
}

/// The log. Errors while writing are not reported: without standard error, the report would panic.
fn subscriber<W: io::Write + 'static>(
    format: Format,
    level: Level,
    is_terminal: bool,
    writer: impl Fn() -> W + Send + Sync + 'static,
) -> impl Subscriber + Send + Sync {
    tracing_subscriber::fmt()
        .with_max_level(level)
        .log_internal_errors(false)
        .event_format(Layout { format, is_terminal })
        .with_writer(writer)
        .finish()
}

/// Only the message is written, without other fields: it is a complete sentence.
struct Layout {
    format: Format,
    is_terminal: bool,
}

impl<S, N> FormatEvent<S, N> for Layout
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
        let mut result = Ok(());
        event.record(&mut |field: &Field, value: &dyn fmt::Debug| {
            if field.name() == "message" {
                let style = style.filter(|_| self.is_terminal);
                result = self.format.write_line(&mut writer, level, style, format_args!("{value:?}"));
            }
        });
        result
    }
}

/// Escapes text. Nothing unprintable may reach a terminal, in either format.
///
/// In text, as in Prosody (`util/format.lua`), continuation lines are indented, so that they cannot be mistaken for log
/// messages, and ASCII's other control characters become printable symbols (Unicode block "Control Pictures"). In JSON,
/// this is a string's inside.
struct Escaped<'a> {
    writer: &'a mut dyn fmt::Write,
    is_json: bool,
}

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let is_json = self.is_json;
        let is_special = |letter: char| match letter {
            '"' | '\\' | '\t' => is_json,
            _ => is_unprintable(letter),
        };
        for piece in text.split_inclusive(is_special) {
            let mut plain = piece.chars();
            let Some(last) = plain.next_back().filter(|last| is_special(*last)) else {
                self.writer.write_str(piece)?;
                continue;
            };
            self.writer.write_str(plain.as_str())?;
            match last {
                '"' | '\\' => write!(self.writer, "\\{last}")?,
                '\n' if is_json => self.writer.write_str("\\n")?,
                '\t' => self.writer.write_str("\\t")?,
                _ if is_json => {
                    for unit in last.encode_utf16(&mut [0; 2]) {
                        write!(self.writer, "\\u{unit:04x}")?;
                    }
                }
                '\n' => self.writer.write_str("\n\t")?,
                '\x7f' => self.writer.write_char('\u{2421}')?,
                '\0'..='\x1f' => {
                    let symbol = char::from_u32(0x2400 + u32::from(last));
                    self.writer.write_char(symbol.unwrap_or(last))?;
                }
                _ => write!(self.writer, "{}", last.escape_unicode())?,
            }
        }
        Ok(())
    }
}

/// Logs a failure that ends the program. Returns its exit status. In JSON, each error of a report is an object.
pub fn report_failure(failure: &Failure) -> ExitStatus {
    let report = failure.error.downcast_ref::<Report>();
    match report.filter(|_| IS_JSON.load(Ordering::Relaxed)) {
        Some(report) => {
            let text = failure.to_string();
            let heading = text.lines().next().unwrap_or_default();
            tracing::error!("{}", heading.trim_end_matches(':'));
            report.errors().iter().for_each(|error| tracing::error!("{error}"));
            report.setting_warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
            report.last_line().inspect(|line| tracing::error!("{line}"));
        }
        None => tracing::error!("{failure}"),
    }
    failure.status
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
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

    fn logged_as_text(level: Level, is_terminal: bool, log: impl FnOnce()) -> String {
        logged(Format::Text, level, is_terminal, log)
    }

    fn logged(format: Format, level: Level, is_terminal: bool, log: impl FnOnce()) -> String {
        let output = Output::default();
        let writer = output.clone();
        tracing::subscriber::with_default(
            subscriber(format, level, is_terminal, move || writer.clone()),
            log,
        );
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

    /// Whether a text is a time of RFC 3339 in UTC: digits in the places of `form`.
    fn is_time(text: &str, form: &str) -> bool {
        text.replace(|c: char| c.is_ascii_digit(), "0") == form && text.starts_with("20")
    }

    #[test]
    fn text_may_begin_with_the_time() {
        let text = logged(Format::TimedText, Level::INFO, true, || warn!("one\ntwo"));
        let (time, rest) = text.split_once(' ').unwrap();
        assert!(is_time(time, "0000-00-00T00:00:00Z"), "{time}");
        assert_eq!(rest, "entrypoint          \x1b[1;33mwarn\x1b[0m\tone\n\ttwo\n");
    }

    #[test]
    fn json_is_one_object_per_line() {
        let text = logged(Format::Json, Level::INFO, true, || {
            debug!("left out");
            info!("two\nlines, \"quoted\"\t\\");
            warn!(path = "/x", "jörg\u{9b}\x7f\u{e0041}\0");
        });
        assert!(!text.contains(|c| c != '\n' && is_unprintable(c)), "{text:?}");
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        let time = lines[0]["time"].as_str().unwrap();
        assert!(is_time(time, "0000-00-00T00:00:00.000Z"), "{time}");
        for (line, level, message) in [
            (&lines[0], "info", "two\nlines, \"quoted\"\t\\"),
            (&lines[1], "warn", "jörg\u{9b}\x7f\u{e0041}\0"),
        ] {
            let time = &line["time"];
            let expected =
                json!({ "time": time, "level": level, "source": "entrypoint", "message": message });
            assert_eq!(*line, expected);
        }
    }
}
