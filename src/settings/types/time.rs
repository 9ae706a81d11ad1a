//! Durations, in the units of Prosody's manual (<https://prosody.im/doc/configure>).

use super::numbers::{Decimal, digits, split_unit};
use super::{SettingType, did_you_mean, lua};
use crate::lua::Value;
use std::time::Duration;

const DAY: u64 = 86_400;

/// The longest duration in seconds, 100 years. (Prosody subtracts durations from the current time.)
const LONGEST: u64 = 36_525 * DAY;

/// The units of Prosody 13.0 and their seconds (`util.human.io`): a month is 31 days.
const UNITS: [(&[&str], u64); 7] = [
    (&["s", "sec", "secs", "second", "seconds"], 1),
    (&["min", "mins", "minute", "minutes"], 60),
    (&["h", "hr", "hour", "hours"], 3600),
    (&["d", "day", "days"], DAY),
    (&["w", "week", "weeks"], 7 * DAY),
    (&["mon", "month", "months"], 31 * DAY),
    (&["y", "yr", "year", "years"], 31_556_952),
];

fn unit_seconds(unit: &str) -> Option<u64> {
    let is_unit = |words: &&[&str]| words.iter().any(|word| unit.eq_ignore_ascii_case(word));
    UNITS.iter().find(|(words, _)| is_unit(words)).map(|&(_, seconds)| seconds)
}

/// Formats seconds in the largest unit that divides them.
fn spelled(seconds: u64) -> String {
    let (unit, size) = [("w", 7 * DAY), ("d", DAY), ("h", 3600), ("min", 60)]
        .into_iter()
        .find(|&(_, size)| seconds % size == 0)
        .unwrap_or(("s", 1));
    format!("{}{unit}", seconds / size)
}

/// Parses a duration as seconds. The error is only the reason, and may be empty.
fn seconds(text: &str) -> Result<u64, String> {
    let too_long = || "it is more than 100 years".to_owned();
    let (number, unit) = split_unit(text);
    if unit.eq_ignore_ascii_case("m") && !number.is_empty() {
        return Err(advice!("`m` could be minutes or months; write `{number}min` or `{number}mon`").into());
    }
    let Some(size) = (if unit.is_empty() { Some(1) } else { unit_seconds(unit) }) else {
        return Err(match total(text) {
            Some(total) => advice!("write one number with one unit, `{}`", spelled(total)).into(),
            None if unit.chars().all(|c| c.is_ascii_alphabetic()) && !number.is_empty() => {
                format!("the unit is unknown{}", did_you_mean(unit, &UNITS.map(|(words, _)| words).concat()))
            }
            None => String::new(),
        });
    };
    if number.is_empty() {
        return Err(String::new());
    }
    if number.contains('.') {
        return Err(match total(text) {
            Some(total) => format!("without the fraction this is `{}`", spelled(total)),
            None => "there can be no fraction".into(),
        });
    }
    digits(number)
        .and_then(|number| number.checked_mul(size))
        .filter(|&seconds| seconds <= LONGEST)
        .ok_or_else(too_long)
}

/// The seconds of a compound (`1d12h`) or fractional (`1.5h`) duration, if they are an integer. Prosody supports
/// neither form; messages use this to suggest a valid one.
fn total(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum: u128 = 0;
    while !rest.is_empty() {
        let (number, after) = split_unit(rest);
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let (number, size) = (Decimal::read(number)?, unit_seconds(unit)?);
        if !number.is_whole(size) {
            return None;
        }
        sum += number.times(size);
        rest = after.trim_start();
    }
    u64::try_from(sum).ok().filter(|sum| (1..=LONGEST).contains(sum))
}

/// The error for an invalid duration. `also` names further valid values, `reason` may be empty.
fn wrong_duration(also: &str, reason: &str) -> String {
    let colon = if reason.is_empty() { "" } else { ": " };
    format!("expected a duration, such as `1w`, `30 days`, `12h` or a number of seconds{also}{colon}{reason}")
}

/// The age at which data are deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    After(u64),
    Never,
}

impl Expiry {
    /// The value for an option: seconds, or `never` for data that are never deleted.
    pub fn or(self, never: impl Into<Value>) -> Value {
        match self {
            // At most `LONGEST`.
            Expiry::After(seconds) => Value::from(seconds as i64),
            Expiry::Never => never.into(),
        }
    }
}

/// How long archived messages are kept: a duration of at least one second, or `never` to delete nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchiveDuration(pub Expiry);

impl SettingType for ArchiveDuration {
    const NAME: &'static str = "duration";
    const EXAMPLE: &'static str = "1w";

    fn parse(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("never") {
            return Ok(ArchiveDuration(Expiry::Never));
        }
        match seconds(text) {
            Ok(0) => Err("zero would delete everything".into()),
            Ok(seconds) => Ok(ArchiveDuration(Expiry::After(seconds))),
            Err(reason) => Err(reason),
        }
        .map_err(|reason| wrong_duration(", or `never`", &reason))
    }
}

/// How long to wait. Zero means not to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait(pub Duration);

impl SettingType for Wait {
    const NAME: &'static str = "duration";
    const EXAMPLE: &'static str = "60s";

    fn parse(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("never") {
            return Err(wrong_duration("", "`never` has no meaning here; `0` does not wait"));
        }
        seconds(text)
            .map(|seconds| Wait(Duration::from_secs(seconds)))
            .map_err(|reason| wrong_duration("", &reason))
    }
}

/// A number of days, at least one, or `never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Days(pub Expiry);

impl SettingType for Days {
    const NAME: &'static str = "days";
    const PLURAL: Option<&'static str> = Some("days");
    const EXAMPLE: &'static str = "30";

    fn parse(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("never") {
            return Ok(Days(Expiry::Never));
        }
        if let Some(days @ 1..=36_525) = digits(text) {
            return Ok(Days(Expiry::After(days * DAY)));
        }
        let hint = match seconds(text) {
            Ok(seconds) if digits(text).is_none() && seconds > 0 && seconds % DAY == 0 => just(seconds / DAY),
            _ => String::new(),
        };
        Err(format!("expected a whole number of days from 1 to 36525, or `never`{hint}"))
    }
}

/// The advice to write a number without a unit.
fn just(number: u64) -> String {
    advice!("; write `{number}`").into()
}

/// The error for an invalid number of seconds. If the text is a duration, the error suggests its number of seconds.
fn wrong_seconds(text: &str, also: &str) -> String {
    let hint = match seconds(text) {
        Ok(seconds) if digits(text).is_none() && seconds > 0 => just(seconds),
        _ => String::new(),
    };
    format!("expected a whole number of seconds from 1 to {LONGEST}{also}{hint}")
}

/// An integer number of seconds, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(u64);

impl Seconds {
    pub fn get(self) -> u64 {
        self.0
    }
}

impl SettingType for Seconds {
    const NAME: &'static str = "whole seconds";
    const PLURAL: Option<&'static str> = Some("whole seconds");
    const EXAMPLE: &'static str = "3600";

    fn parse(text: &str) -> Result<Self, String> {
        match digits(text) {
            Some(seconds @ 1..=LONGEST) => Ok(Seconds(seconds)),
            _ => Err(wrong_seconds(text, "")),
        }
    }
}

/// `statistics_interval`: seconds between two collections, or `manual`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interval {
    Seconds(u64),
    /// Statistics are collected only when they are read.
    Manual,
}

impl SettingType for Interval {
    const NAME: &'static str = "whole seconds or `manual`";
    const PLURAL: Option<&'static str> = Some(Self::NAME);
    const EXAMPLE: &'static str = "60";

    fn parse(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("manual") {
            return Ok(Interval::Manual);
        }
        match digits(text) {
            Some(seconds @ 1..=LONGEST) => Ok(Interval::Seconds(seconds)),
            _ => Err(wrong_seconds(text, ", or `manual`") + &did_you_mean(text, &["manual"])),
        }
    }
}

lua! {
    ArchiveDuration: self => self.0.or("never");
    // At most `LONGEST`.
    Seconds: self => self.0 as i64;
    Interval: self => match self {
        // At most `LONGEST`.
        Interval::Seconds(seconds) => Value::from(*seconds as i64),
        Interval::Manual => Value::from("manual"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::types::Lua;

    #[test]
    fn durations_are_read_in_every_unit() {
        for (text, expected) in [
            ("1", 1),
            ("90", 90),
            ("60s", 60),
            ("1 second", 1),
            ("5min", 300),
            ("5 Minutes", 300),
            ("12h", 43_200),
            ("2 hours", 7200),
            ("1d", DAY),
            ("30 days", 30 * DAY),
            ("1w", 7 * DAY),
            ("2 weeks", 14 * DAY),
            ("1mon", 31 * DAY),
            ("6 months", 186 * DAY),
            ("1y", 31_556_952),
            ("100 years", 3_155_695_200),
        ] {
            assert_eq!(ArchiveDuration::parse(text), Ok(ArchiveDuration(Expiry::After(expected))), "{text}");
        }
    }

    #[test]
    fn durations_that_prosody_misreads_are_refused_with_a_suggestion() {
        for (text, hint) in [
            ("5m", "write `5min` or `5mon`"),
            ("5 M", "write `5min` or `5mon`"),
            ("1.5h", "this is `90min`"),
            ("0.5 days", "this is `12h`"),
            ("1d12h", "`36h`"),
            ("1 day 12 hours", "`36h`"),
            ("1w 7d", "`2w`"),
            ("1.5", "no fraction"),
            ("3 wekes", "did you mean `weeks`?"),
            ("101 years", "more than 100 years"),
            ("99999999999999999999 weeks", "more than 100 years"),
            ("9999999999999999999999999.5h", "no fraction"),
            ("0", "zero would delete everything"),
        ] {
            let error = ArchiveDuration::parse(text).expect_err(text);
            assert!(error.contains(hint), "{text}: {error}");
        }
        for text in ["-1", "forever", "h", "P1D", "1h-", "1,5h", "1:30", ".", "1..5h"] {
            let error = ArchiveDuration::parse(text).expect_err(text);
            assert!(error.starts_with("expected a duration"), "{text}: {error}");
        }
    }

    #[test]
    fn only_expiries_can_be_never() {
        assert_eq!(ArchiveDuration::parse("Never").unwrap().lua(), Value::from("never"));
        assert_eq!(Days::parse("never").unwrap().0.or(-1), Value::from(-1));
        assert_eq!(Days::parse("never").unwrap().0.or("never"), Value::from("never"));
        assert!(Wait::parse("never").unwrap_err().contains("`0` does not wait"));
        assert!(Seconds::parse("never").is_err());
    }

    #[test]
    fn a_wait_can_be_zero() {
        assert_eq!(Wait::parse("0"), Ok(Wait(Duration::ZERO)));
        assert_eq!(Wait::parse("60s"), Ok(Wait(Duration::from_secs(60))));
        assert!(Wait::parse("5m").is_err());
    }

    #[test]
    fn days_are_integers_and_at_least_one() {
        assert_eq!(Days::parse("30"), Ok(Days(Expiry::After(30 * DAY))));
        assert!(Days::parse("30 days").unwrap_err().ends_with("; write `30`"));
        assert!(Days::parse("4w").unwrap_err().ends_with("; write `28`"));
        for text in ["0", "-1", "1.5", "12h", "36526", "99999999999999999999"] {
            assert!(Days::parse(text).unwrap_err().ends_with("or `never`"), "{text}");
        }
    }

    #[test]
    fn seconds_and_intervals_are_integers() {
        assert_eq!(Seconds::parse("86400").unwrap().lua(), Value::from(86_400_i64));
        assert!(Seconds::parse("24h").unwrap_err().ends_with("; write `86400`"));
        assert!(Seconds::parse("0").is_err());
        assert_eq!(Interval::parse("60").unwrap().lua(), Value::from(60_i64));
        assert_eq!(Interval::parse("MANUAL").unwrap().lua(), Value::from("manual"));
        assert!(Interval::parse("manuell").unwrap_err().contains("did you mean `manual`?"));
        assert!(Interval::parse("1.5").is_err());
    }
}
