//! Numbers: ids, and with a unit rates and sizes.

use super::names::texts;
use super::{Lua, SettingType, lua};
use crate::lua::Value;
use std::fmt;

/// Parses an integer of ASCII digits, without sign or space. `None` if it does not fit into 64 bits.
pub(super) fn digits(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// A decimal number without a sign: `15`, `1.5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    /// The digits without the decimal point.
    digits: u128,
    /// The divisor, a power of ten.
    scale: u128,
}

impl Decimal {
    /// Parses at most 18 digits, so that no product below overflows.
    pub(super) fn read(text: &str) -> Option<Decimal> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let all = whole.bytes().chain(fraction.bytes());
        if whole.is_empty()
            || fraction.is_empty()
            || text.len() > 19
            || !all.clone().all(|byte| byte.is_ascii_digit())
        {
            return None;
        }
        Some(Decimal {
            digits: all.fold(0, |sum, byte| sum * 10 + u128::from(byte - b'0')),
            scale: fraction.bytes().fold(1, |scale, _| scale * 10),
        })
    }

    pub(super) fn times(self, unit: u64) -> u128 {
        self.digits * u128::from(unit) / self.scale
    }

    /// Whether the number times `unit` is an integer.
    pub(super) fn is_whole(self, unit: u64) -> bool {
        self.digits * u128::from(unit) % self.scale == 0
    }
}

/// Splits `10 kb` into number and unit. White space between them is optional.
pub(super) fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

texts! {
    /// A bandwidth limit in the syntax of `mod_limits`: `10kb/s`. The units are decimal bytes: `kb` is 1000 bytes. The
    /// syntax has no "unlimited", so a rate beyond every network stands for it.
    Rate("rate", "rates", "10kb/s") = rate;
}

fn rate(text: &str) -> Result<String, String> {
    let refuse = |reason: &str| {
        Err(format!("expected a rate, such as `10kb/s`, or `0` or `off` for no limit{reason}"))
    };
    let lower = text.to_ascii_lowercase();
    if lower == "0" || lower == "off" {
        return Ok("1000tb/s".to_owned());
    }
    let Some(amount) = lower.strip_suffix("/s") else { return refuse(": `/s` is missing") };
    let (number, unit) = split_unit(amount);
    if number.contains('.') {
        return refuse(&advice!(": Prosody takes no fraction; use a smaller unit"));
    }
    let Some(number) = digits(number).filter(|_| !number.is_empty()) else { return refuse("") };
    if number == 0 {
        return refuse(": a rate of zero would stop all traffic");
    }
    // Nobody needs a larger limit, and Prosody would print it with an exponent.
    if number > 1_000_000_000 {
        return refuse(": the number is too large");
    }
    match unit {
        "b" | "kb" | "mb" | "gb" | "tb" => Ok(format!("{number}{unit}/s")),
        "kib" | "mib" | "gib" | "tib" => refuse(": the units are decimal, without the `i`"),
        _ => refuse(": the units are `b`, `kb`, `mb`, `gb` and `tb`, which are bytes"),
    }
}

/// Parses a size, in bytes: a number with a unit, or a number in `default_unit` bytes. Units are binary, as in Prosody:
/// `MB` and `MiB` are both 2^20 bytes. The error is only the reason, and may be empty.
fn bytes(text: &str, default_unit: u64) -> Result<u64, String> {
    let (number, unit) = split_unit(text);
    if number.is_empty() {
        return Err(String::new());
    }
    let unit = match unit.to_ascii_lowercase().as_str() {
        "" => default_unit,
        "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return Err(": the units are `B`, `kB`, `MB`, `GB` and `TB`".into()),
    };
    let Some(number) = Decimal::read(number) else { return Err(String::new()) };
    // The largest integer that every version of Lua represents exactly.
    const MOST: u128 = 1 << 53;
    match number.times(unit) {
        0 => Err(": it must be more than zero".into()),
        bytes if bytes > MOST => Err(": it is too large".into()),
        bytes => Ok(u64::try_from(bytes).unwrap_or(u64::MAX)),
    }
}

/// The number of shards of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardCount(pub u32);

/// The most shards: more than the connections that PostgreSQL accepts by default.
const MOST_SHARDS: u64 = 1000;

impl SettingType for ShardCount {
    const NAME: &'static str = "number";
    const EXAMPLE: &'static str = "3";

    fn parse(text: &str) -> Result<Self, String> {
        let number = digits(text).filter(|number| (1..=MOST_SHARDS).contains(number));
        number
            .map(|number| Self(number as u32))
            .ok_or_else(|| format!("expected a number from 1 to {MOST_SHARDS}"))
    }
}

/// The number of one shard, from 0: a number, or a host name that ends in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardNumber(pub u32);

impl SettingType for ShardNumber {
    const NAME: &'static str = "number from 0, or a host name that ends in one";
    const EXAMPLE: &'static str = "prosody-0";

    fn parse(text: &str) -> Result<Self, String> {
        let end = text.trim_end_matches(|letter: char| letter.is_ascii_digit()).len();
        let number = text.get(end..).filter(|number| !number.is_empty()).and_then(digits);
        let number = number.filter(|number| *number < MOST_SHARDS);
        number.map(|number| Self(number as u32)).ok_or_else(|| {
            format!(
                "expected a number from 0 to {}, or a host name that ends in one, such as `prosody-0`",
                MOST_SHARDS - 1
            )
        })
    }
}

/// The number of one shard, from 1, as a swarm counts the tasks of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardSlot(pub u32);

impl SettingType for ShardSlot {
    const NAME: &'static str = "number from 1";
    const EXAMPLE: &'static str = "1";

    fn parse(text: &str) -> Result<Self, String> {
        ShardCount::parse(text).map(|slot| Self(slot.0))
    }
}

/// Declares a size type with a default unit, in bytes.
macro_rules! sizes {
    ($( $(#[$meta:meta])* $name:ident($unit:literal, $words:literal, $example:literal); )+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(u64);

        impl $name {
            pub fn bytes(self) -> u64 {
                self.0
            }
        }

        impl SettingType for $name {
            const NAME: &'static str = concat!("number of ", $words);
            const EXAMPLE: &'static str = $example;

            fn parse(text: &str) -> Result<Self, String> {
                bytes(text, $unit).map($name).map_err(|reason| {
                    format!("expected a {}, such as `{}`{reason}", Self::type_name(), $example)
                })
            }
        }

        impl Lua for $name {
            fn lua(&self) -> Value {
                // At most 2^53, see `bytes`.
                Value::from(self.0 as i64)
            }
        }
    )+};
}

sizes! {
    /// A size in megabytes (2^20 bytes).
    Megabytes(1_048_576, "megabytes", "100");
    /// A size in gigabytes (2^30 bytes).
    Gigabytes(1_073_741_824, "gigabytes", "1.5");
}

/// A numeric user or group id, 0 to 4294967294. (To `setresuid(2)`, 4294967295 means "do not change".)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id(u32);

impl Id {
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl SettingType for Id {
    const NAME: &'static str = "number";
    const EXAMPLE: &'static str = "1000";

    fn parse(text: &str) -> Result<Self, String> {
        digits(text)
            .and_then(|number| u32::try_from(number).ok())
            .filter(|&number| number != u32::MAX)
            .map(Id)
            .ok_or_else(|| format!("expected a whole number from 0 to {}", u32::MAX - 1))
    }
}

lua! {
    Id: self => i64::from(self.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_have_ids() {
        assert_eq!(Id::parse("0").unwrap().get(), 0);
        assert_eq!(Id::parse("4294967294").unwrap().get(), 4_294_967_294);
        for text in ["4294967295", "-1", "+1", "1.0", "root", "0x1", "99999999999999999999999"] {
            assert!(Id::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_converted_to_prosodys_syntax() {
        for (text, limit) in [
            ("10kb/s", "10kb/s"),
            ("10 KB/s", "10kb/s"),
            ("512b/S", "512b/s"),
            ("1mb/s", "1mb/s"),
            ("0", "1000tb/s"),
            ("off", "1000tb/s"),
            ("OFF", "1000tb/s"),
        ] {
            assert_eq!(Rate::parse(text).unwrap().as_str(), limit, "{text}");
        }
    }

    #[test]
    fn a_rate_that_prosody_would_misread_is_refused() {
        for (text, reason) in [
            ("1024", "`/s` is missing"),
            ("10kb", "`/s` is missing"),
            ("1.5mb/s", "no fraction"),
            ("10kib/s", "decimal"),
            ("10kbit/s", "which are bytes"),
            ("10/s", "which are bytes"),
            ("0kb/s", "stop all traffic"),
            ("kb/s", "expected a rate"),
            ("-1kb/s", "expected a rate"),
            ("99999999999999999999kb/s", "expected a rate"),
            ("9999999999kb/s", "too large"),
            ("unlimited", "`off` for no limit"),
        ] {
            let error = Rate::parse(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn sizes_are_whole_bytes_in_binary_units() {
        for (text, bytes) in [
            ("10", 10 << 20),
            ("10MB", 10 << 20),
            ("10 MiB", 10 << 20),
            ("1.5 GiB", 3 << 29),
            ("0.5", 1 << 19),
            ("64 kB", 64 << 10),
            ("100b", 100),
        ] {
            assert_eq!(Megabytes::parse(text).unwrap().bytes(), bytes, "{text}");
        }
        assert_eq!(Gigabytes::parse("2").unwrap().lua(), Value::from(2_i64 << 30));
    }

    #[test]
    fn invalid_sizes_are_refused() {
        for text in [
            "0",
            "0.0",
            "-1",
            "+1",
            "1e3",
            ".5",
            "5.",
            "1.2.3",
            "MB",
            "10 Mbit",
            "1,5",
            "inf",
            "999999999999999999",
            "99999999999999999999999",
        ] {
            let error = Megabytes::parse(text).expect_err(text);
            assert!(error.starts_with("expected a number of megabytes"), "{text}: {error}");
        }
    }
}
