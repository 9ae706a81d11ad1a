//! tini's command line. The same arguments are valid as in tini 0.19, with the same meaning, including the details of
//! getopt(3) in the C library.

use super::MessageStyle;
use crate::log::Format;
use nix::unistd::{Pid, getpid};
use signal_hook::low_level::signal_name;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// The default verbosity: fatal errors and warnings.
const DEFAULT_VERBOSITY: u8 = 1;

/// tini's own warning, which people search for when zombies remain.
pub const NOT_A_REAPER: &str = "Tini is not running as PID 1 and isn't registered as a child subreaper. Zombie processes \
     will not be re-parented to Tini, so zombie reaping won't work. To fix the problem, use the -s option or set the \
     environment variable TINI_SUBREAPER to register Tini as a child subreaper, or run Tini as PID 1.";

/// The highest signal with a fixed name (signal(7)).
const LAST_NAMED: i32 = 31;

/// Options for PID 1, as on tini's command line.
#[derive(Debug, PartialEq)]
pub struct InitOptions {
    /// Whether to become a child subreaper, so that orphans are reaped even if this process is not PID 1 (`-s`).
    pub subreaper: bool,
    /// The signal to get when our own parent dies (`-p`).
    pub parent_death_signal: Option<i32>,
    /// The style and level of messages (`-v`).
    pub message_style: MessageStyle,
    /// Whether to warn about each reaped orphan (`-w`).
    pub warn_on_reap: bool,
    /// Whether to forward signals to the child's process group instead of to the child (`-g`).
    pub forward_to_group: bool,
    /// The exit codes of the child that become 0 (`-e`).
    pub success_codes: BTreeSet<u8>,
    /// The program and its arguments. Never empty after [`parse`].
    pub command: Vec<OsString>,
}

impl InitOptions {
    /// The options for Prosody and its programs, which have no command line for PID 1.
    pub fn entrypoint() -> Self {
        Self {
            subreaper: getpid() != Pid::from_raw(1),
            parent_death_signal: None,
            message_style: MessageStyle::Entrypoint(Format::Text),
            warn_on_reap: false,
            forward_to_group: false,
            success_codes: BTreeSet::new(),
            command: Vec::new(),
        }
    }

    /// Sets an option that has a value. `None` if the value is invalid.
    fn set(&mut self, letter: u8, value: &OsStr) -> Option<()> {
        match letter {
            b'p' => self.parent_death_signal = Some(signal_named(value)?),
            _ => drop(self.success_codes.insert(exit_code(value.as_bytes())?)),
        }
        Some(())
    }
}

/// A valid command line.
#[derive(Debug, PartialEq)]
pub enum Invocation {
    Run(InitOptions),
    /// Print this text on standard output and exit with 0.
    Print(String),
}

/// Parses tini's arguments and environment variables.
///
/// `name` is the name of this program for the usage text. As in glibc's getopt(3), options may follow other words:
/// `sh -c true` is refused because of `-c`, but `-- sh -c true` and `sh -- -c true` are valid. With `POSIXLY_CORRECT`
/// in the environment, the first word that is not an option ends the options.
/// Errors: the text to print on standard error before exiting with 1.
pub fn parse(
    name: &str,
    arguments: Vec<OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Invocation, String> {
    // As in tini, `--version` is only valid as the single argument.
    if arguments == ["--version"] {
        return Ok(Invocation::Print(format!("{}\n", version())));
    }
    let options_end_at_first_word = environment("POSIXLY_CORRECT").is_some();
    let mut options = InitOptions {
        subreaper: environment("TINI_SUBREAPER").is_some(),
        forward_to_group: environment("TINI_KILL_PROCESS_GROUP").is_some(),
        ..InitOptions::entrypoint()
    };
    let mut level = DEFAULT_VERBOSITY;
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let letters = match argument.as_bytes() {
            b"--" => break,
            [b'-', letters @ ..] if !letters.is_empty() => letters,
            _ => {
                options.command.push(argument);
                if options_end_at_first_word {
                    break;
                }
                continue;
            }
        };
        for (at, &letter) in letters.iter().enumerate() {
            match letter {
                b's' => options.subreaper = true,
                b'v' => level = level.saturating_add(1),
                b'w' => options.warn_on_reap = true,
                b'g' => options.forward_to_group = true,
                b'h' => return Ok(Invocation::Print(usage(name))),
                b'l' => return Ok(Invocation::Print(include_str!("../../LICENSE").into())),
                b'p' | b'e' => {
                    // The rest of this argument, or the whole next one, even if it looks like an option.
                    let value = match &letters[at + 1..] {
                        [] => arguments.next(),
                        rest => Some(OsStr::from_bytes(rest).to_owned()),
                    };
                    let value = value.ok_or_else(|| {
                        format!(
                            "{name}: option requires an argument -- '{}'\n{}",
                            char::from(letter),
                            usage(name)
                        )
                    })?;
                    if options.set(letter, &value).is_none() {
                        return Err(format!(
                            "{name}: not a valid value for -{}: {}\n{}",
                            char::from(letter),
                            value.to_string_lossy(),
                            synopsis(name)
                        ));
                    }
                    break;
                }
                _ => {
                    let letter = String::from_utf8_lossy(&letters[at..=at]).into_owned();
                    return Err(format!("{name}: invalid option -- '{letter}'\n{}", usage(name)));
                }
            }
        }
    }
    options.command.extend(arguments);
    if options.command.is_empty() {
        return Err(usage(name));
    }
    if let Some(text) = environment("TINI_VERBOSITY") {
        level = verbosity(text.as_bytes());
    }
    options.message_style = MessageStyle::Tini { verbosity: level };
    Ok(Invocation::Run(options))
}

/// The number of a signal by its name in tini, such as `SIGHUP`. tini knows no aliases, no real-time signals, and not
/// SIGIO, SIGPWR and SIGSTKFLT.
fn signal_named(name: &OsStr) -> Option<i32> {
    let name = name.to_str().filter(|&name| name != "SIGIO")?;
    (1..=LAST_NAMED).find(|&signal| signal_name(signal) == Some(name))
}

/// Parses a value of `-e` like strtol(3): blanks and a sign may precede the number, and the empty string is 0.
fn exit_code(text: &[u8]) -> Option<u8> {
    if text.is_empty() {
        return Some(0);
    }
    let (number, digits, rest) = leading_number(text);
    (digits && rest.is_empty()).then_some(number)?.try_into().ok()
}

/// Parses a value of `TINI_VERBOSITY` like atoi(3): text without a number is 0. A negative number means the maximum.
fn verbosity(text: &[u8]) -> u8 {
    let (number, ..) = leading_number(text);
    // atoi(3) keeps the lower 32 bits, and tini converts them to an unsigned number.
    (number as u32).min(u8::MAX.into()) as u8
}

/// Parses like strtol(3) in base 10. Returns the number, whether there was a digit, and the text after the number.
fn leading_number(text: &[u8]) -> (i64, bool, &[u8]) {
    let blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'\x0b';
    let text = &text[text.iter().take_while(|&byte| blank(byte)).count()..];
    let (negative, text) = match text {
        [b'-', text @ ..] => (true, text),
        [b'+', text @ ..] => (false, text),
        _ => (false, text),
    };
    let (digits, rest) = text.split_at(text.iter().take_while(|byte| byte.is_ascii_digit()).count());
    let number = digits.iter().fold(0_i64, |number, digit| {
        let digit = i64::from(digit - b'0');
        number.saturating_mul(10).saturating_add(if negative { -digit } else { digit })
    });
    (number, !digits.is_empty(), rest)
}

/// The version in one line that begins like tini's, because programs parse it.
fn version() -> String {
    format!("tini version 0.19.0 (prosody-entrypoint {})", env!("CARGO_PKG_VERSION"))
}

fn synopsis(name: &str) -> String {
    format!("Usage: {name} [OPTIONS] -- PROGRAM [ARGUMENTS] | --version\n")
}

fn usage(name: &str) -> String {
    format!(
        "{name}: {}
{}
Runs a program as the init of a container: signals reach it, zombies are reaped, its exit
status is ours.

Options:
  -s         take in orphans where this is not PID 1 (become a child subreaper)
  -p SIGNAL  get SIGNAL when our own parent dies, SIGTERM for one
  -v         tell more; up to three times
  -w         warn of each orphan that is reaped
  -g         send signals to the program's process group
  -e CODE    end with 0 where the program ends with CODE, 0 to 255; any number of times
  -l         show the license
  -h         show this help
  --version  show the version; as the only argument

Environment:
  TINI_SUBREAPER           the same as -s, set to anything
  TINI_KILL_PROCESS_GROUP  the same as -g, set to anything
  TINI_VERBOSITY           how much to tell, 0 to 4 (default: {DEFAULT_VERBOSITY}); comes before -v
",
        version(),
        synopsis(name)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_in(environment: &[(&str, &str)], arguments: &[&str]) -> Result<Invocation, String> {
        parse("init", arguments.iter().map(Into::into).collect(), |wanted| {
            let (_, value) = environment.iter().find(|(name, _)| *name == wanted)?;
            Some(value.into())
        })
    }

    fn run_in(environment: &[(&str, &str)], arguments: &[&str]) -> InitOptions {
        match parse_in(environment, arguments) {
            Ok(Invocation::Run(options)) => options,
            other => panic!("{arguments:?}: {other:?}"),
        }
    }

    fn run(arguments: &[&str]) -> InitOptions {
        run_in(&[], arguments)
    }

    fn refused(arguments: &[&str]) -> String {
        parse_in(&[], arguments).unwrap_err()
    }

    fn codes(set: BTreeSet<u8>) -> Vec<u8> {
        set.into_iter().collect()
    }

    #[test]
    fn the_defaults_are_a_command_and_warnings() {
        let expected = InitOptions {
            subreaper: false,
            parent_death_signal: None,
            message_style: MessageStyle::Tini { verbosity: 1 },
            warn_on_reap: false,
            forward_to_group: false,
            success_codes: BTreeSet::new(),
            command: vec!["true".into()],
        };
        assert_eq!(run(&["true"]), expected);
        assert_eq!(run(&["--", "true"]), expected);
    }

    #[test]
    fn options_may_share_an_argument_and_be_repeated() {
        let options = run(&["-swg", "-vvp", "SIGTERM", "-e1", "-ve", "143", "--", "true"]);
        assert!(options.subreaper && options.warn_on_reap && options.forward_to_group);
        assert_eq!(options.message_style, MessageStyle::Tini { verbosity: 4 });
        assert_eq!(options.parent_death_signal, Some(15));
        assert_eq!(codes(options.success_codes), [1, 143]);
        assert_eq!(run(&["-pSIGHUP", "-p", "SIGKILL", "true"]).parent_death_signal, Some(9));
        let all = format!("-{}", "v".repeat(600));
        assert_eq!(run(&[&all, "true"]).message_style, MessageStyle::Tini { verbosity: 255 });
    }

    #[test]
    fn options_may_follow_a_word_unless_posix_is_requested() {
        let options = run(&["echo", "-s", "-", "", "-e", "7", "--", "-x", "--", "end"]);
        assert_eq!(options.command, ["echo", "-", "", "-x", "--", "end"]);
        assert!(options.subreaper && options.success_codes.contains(&7));
        assert!(refused(&["sh", "-c", "true"]).starts_with("init: invalid option -- 'c'\n"));

        let options = run_in(&[("POSIXLY_CORRECT", "")], &["-w", "sh", "-c", "--", "true"]);
        assert_eq!(options.command, ["sh", "-c", "--", "true"]);
        assert!(options.warn_on_reap);
    }

    #[test]
    fn invalid_command_lines_are_refused_with_the_usage() {
        for (arguments, text) in [
            (&["-x", "true"][..], "init: invalid option -- 'x'\n"),
            (&["--help"], "init: invalid option -- '-'\n"),
            (&["--version", "true"], "init: invalid option -- '-'\n"),
            (&["-sé"], "init: invalid option -- '\u{fffd}'\n"),
            (&["-R", "A"], "init: invalid option -- 'R'\n"),
            (&["true", "-p"], "init: option requires an argument -- 'p'\n"),
            (&["-ve"], "init: option requires an argument -- 'e'\n"),
            (&["-p", "SIGNOPE", "true"], "init: not a valid value for -p: SIGNOPE\n"),
            (&["-p", "--", "true"], "init: not a valid value for -p: --\n"),
            (&["-e", "256", "-h"], "init: not a valid value for -e: 256\n"),
            (&[], "init: tini version 0.19.0"),
            (&["-v", "--"], "init: tini version 0.19.0"),
        ] {
            let message = refused(arguments);
            assert!(message.starts_with(text), "{arguments:?}: {message}");
            assert!(message.contains("\nUsage: init "), "{arguments:?}: {message}");
            assert!(message.ends_with('\n'), "{arguments:?}: {message}");
        }
    }

    #[test]
    fn version_license_and_help_are_printed() {
        let print = |arguments| match parse_in(&[], arguments) {
            Ok(Invocation::Print(text)) => text,
            other => panic!("{other:?}"),
        };
        assert!(print(&["--version"]).starts_with("tini version 0.19.0 "));
        assert!(print(&["-l", "-x"]).starts_with("MIT License\n"));
        // The first option that prints wins.
        let usage = print(&["true", "-hx"]);
        for option in ["-s", "-p", "-v", "-w", "-g", "-e", "-l", "-h", "--version"] {
            assert!(usage.contains(&format!("\n  {option} ")), "{option}");
        }
    }

    #[test]
    fn exit_codes_are_parsed_like_strtol() {
        for (text, code) in [("0", 0), ("255", 255), (" \t\x0b+007", 7), ("-0", 0), ("", 0)] {
            assert_eq!(codes(run(&["-e", text, "true"]).success_codes), [code], "{text}");
        }
        for text in ["256", "-1", "x", "1x", "1 ", " ", "+", "0x1", "99999999999999999999"] {
            assert!(refused(&["-e", text, "true"]).contains("not a valid value"), "{text}");
        }
    }

    #[test]
    fn signal_names_are_those_of_tini() {
        let known = |name: &str| signal_named(OsStr::new(name));
        assert_eq!(
            (1..=31).filter(|&n| signal_name(n).is_some_and(|name| known(name) == Some(n))).count(),
            28
        );
        for name in
            ["SIGIO", "SIGPOLL", "SIGPWR", "SIGSTKFLT", "SIGRTMIN", "SIGCLD", "TERM", "sigterm", "15", ""]
        {
            assert_eq!(known(name), None, "{name}");
        }
    }

    #[test]
    fn variables_count_if_set_and_verbosity_overrides_v() {
        let options = run_in(&[("TINI_SUBREAPER", ""), ("TINI_KILL_PROCESS_GROUP", "0")], &["true"]);
        assert!(options.subreaper && options.forward_to_group);
        for (text, verbosity) in [
            ("0", 0),
            ("3", 3),
            (" +2x", 2),
            ("loud", 0),
            ("", 0),
            ("-1", 255),
            ("300", 255),
            ("4294967297", 1),
            ("99999999999999999999", 255),
        ] {
            let options = run_in(&[("TINI_VERBOSITY", text)], &["-vvv", "true"]);
            assert_eq!(options.message_style, MessageStyle::Tini { verbosity }, "{text}");
        }
    }
}
