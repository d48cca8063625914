//! Sizes and durations in Docker's words.
//!
//! Points in time are [`jiff::Timestamp`]s, whose own text form is the RFC 3339 with nanoseconds of Docker's records.

use std::fmt;

use jiff::SignedDuration;
use jiff::Timestamp;
use jiff::tz::TimeZone;

const DECIMAL: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
const BINARY: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A size as listings show it: three digits, powers of 1000 (`13.3kB`).
pub(crate) fn human_size(bytes: u64) -> String {
    scaled(bytes, 1000.0, &DECIMAL, 3)
}

/// A size as progress bars show it: four digits, powers of 1000 (`13.26kB`).
pub(crate) fn progress_size(bytes: u64) -> String {
    scaled(bytes, 1000.0, &DECIMAL, 4)
}

/// A size of memory: four digits, powers of 1024 (`7.656GiB`).
pub(crate) fn bytes_size(bytes: u64) -> String {
    scaled(bytes, 1024.0, &BINARY, 4)
}

/// `bytes` in the largest unit that leaves at least 1, with so many significant digits and no trailing zeros.
/// Unlike Docker, which prints `1e+03kB` for 999 950 bytes, rounding up to the base goes on to the next unit.
fn scaled(bytes: u64, base: f64, units: &[&str], digits: u32) -> String {
    #[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
    let mut value = bytes as f64;
    let mut units = units.iter().peekable();
    loop {
        let unit = units.next().copied().unwrap_or_default();
        let text = significant(value, digits);
        if units.peek().is_none() || text.parse::<f64>().is_ok_and(|shown| shown < base) {
            return text + unit;
        }
        value /= base;
    }
}

/// `value` with at most `digits` significant digits, unless more are before the point.
fn significant(value: f64, digits: u32) -> String {
    let before =
        std::iter::successors(Some(value), |v| Some(v / 10.0)).take_while(|v| *v >= 1.0).count().max(1);
    let decimals = usize::try_from(digits).unwrap_or(0).saturating_sub(before);
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A duration in one word or two: `Less than a second`, `About a minute`, `3 weeks`.
pub(crate) fn human_duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    let minutes = seconds / 60;
    // Docker rounds hours, but cuts off everything else.
    let hours = (seconds + 1800) / 3600;
    let count = |n: i64, unit: &str| format!("{n} {unit}");
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => count(seconds, "seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => count(minutes, "minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => count(hours, "hours"),
        () if hours < 24 * 7 * 2 => count(hours / 24, "days"),
        () if hours < 24 * 30 * 2 => count(hours / 24 / 7, "weeks"),
        () if hours < 24 * 365 * 2 => count(hours / 24 / 30, "months"),
        () => count(seconds / 3600 / 24 / 365, "years"),
    }
}

/// A point in time as the `CreatedAt` of listings: `2026-05-01 14:00:00 +0200 CEST`, in `zone`.
pub(crate) fn created_at(time: Timestamp, zone: TimeZone) -> String {
    time.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
}

/// A size that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InvalidSize(String);

impl fmt::Display for InvalidSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid size: '{}'", self.0)
    }
}

impl std::error::Error for InvalidSize {}

/// Bytes from `512`, `64m`, `1.5g`, `64MB` or `64 MiB`; all units are powers of 1024, as for Docker's `--memory`.
pub(crate) fn parse_size(text: &str) -> Result<u64, InvalidSize> {
    let invalid = || InvalidSize(text.escape_debug().take(80).collect());
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    if unit == " " {
        return Err(invalid());
    }
    let mut unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    if unit.ends_with('b') {
        unit.pop();
    }
    if unit.ends_with('i') {
        unit.pop();
    }
    let shift = match unit.as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(invalid()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return Err(invalid());
    }
    let whole: u64 = whole.parse().map_err(|_| invalid())?;
    // Fifteen decimals are more than a byte's worth of a pebibyte and keep the product in range.
    let fraction = &fraction[..fraction.len().min(15)];
    let numerator: u128 = fraction.parse().map_err(|_| invalid())?;
    let part = (numerator << shift) / 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| invalid())?);
    let bytes = (u128::from(whole) << shift) + part;
    // Docker's sizes are signed.
    i64::try_from(bytes).and_then(u64::try_from).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use jiff::tz::{Offset, TimeZone};

    use super::{bytes_size, created_at, human_duration, human_size, parse_size, progress_size};

    #[test]
    fn sizes() {
        for (bytes, want) in [
            (0, "0B"),
            (5, "5B"),
            (999, "999B"),
            (1000, "1kB"),
            (1024, "1.02kB"),
            (13_256, "13.3kB"),
            (63_100_000, "63.1MB"),
            (999_499, "999kB"),
            (999_950, "1MB"),
            (1_200_000_000, "1.2GB"),
            (u64::MAX, "18.4EB"),
        ] {
            assert_eq!(human_size(bytes), want);
        }
        assert_eq!(progress_size(13_256), "13.26kB");
        assert_eq!(progress_size(63_100_000), "63.1MB");
        assert_eq!(bytes_size(1023), "1023B");
        assert_eq!(bytes_size(4096), "4KiB");
        assert_eq!(bytes_size(8_220_000_000), "7.655GiB");
        assert_eq!(bytes_size((1 << 20) - 1), "1MiB");
        assert_eq!(bytes_size(u64::MAX), "16EiB");
    }

    #[test]
    fn durations() {
        const HOUR: i64 = 3600;
        const DAY: i64 = 24 * HOUR;
        for (seconds, want) in [
            (-5, "Less than a second"),
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (HOUR - 1, "59 minutes"),
            (HOUR, "About an hour"),
            (HOUR + HOUR / 2, "2 hours"),
            (47 * HOUR, "47 hours"),
            (2 * DAY, "2 days"),
            (13 * DAY, "13 days"),
            (14 * DAY, "2 weeks"),
            (59 * DAY, "8 weeks"),
            (60 * DAY, "2 months"),
            (729 * DAY, "24 months"),
            (730 * DAY, "2 years"),
        ] {
            assert_eq!(human_duration(SignedDuration::from_secs(seconds)), want, "{seconds}");
        }
        assert_eq!(human_duration(SignedDuration::from_millis(1999)), "1 second");
        assert_eq!(human_duration(SignedDuration::MIN), "Less than a second");
        assert!(human_duration(SignedDuration::from_secs(i64::MAX / 2)).ends_with(" years"));
    }

    #[test]
    fn sizes_are_read() {
        for (text, want) in [
            ("0", 0),
            ("512", 512),
            ("512b", 512),
            ("512k", 512 << 10),
            ("64m", 64 << 20),
            ("64M", 64 << 20),
            ("64MB", 64 << 20),
            ("64 MiB", 64 << 20),
            ("1g", 1 << 30),
            ("1.5g", 3 << 29),
            ("0.3k", 307),
            ("2t", 2 << 40),
            ("1p", 1 << 50),
        ] {
            assert_eq!(parse_size(text), Ok(want), "{text}");
        }
        for text in [
            "",
            "m",
            "-1",
            "1x",
            "1.",
            ".5",
            "1..5",
            "1.5.5",
            "1  m",
            "1mm",
            "1 ",
            " 1",
            "0x10",
            "1e3",
            "inf",
            "99999999999999999999",
            "9999999p",
            "1\n",
            "é",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert_eq!(parse_size("1q\n").map_err(|e| e.to_string()), Err(r"invalid size: '1q\n'".to_owned()));
    }

    #[test]
    fn times() -> Result<(), jiff::Error> {
        let time = "2026-05-01T12:00:00.123456789+01:00".parse::<jiff::Timestamp>()?;
        assert_eq!(time.to_string(), "2026-05-01T11:00:00.123456789Z");
        assert_eq!(created_at(time, TimeZone::UTC), "2026-05-01 11:00:00 +0000 UTC");
        assert_eq!(
            created_at(time, TimeZone::fixed(Offset::from_hours(2)?)),
            "2026-05-01 13:00:00 +0200 +02"
        );
        Ok(())
    }
}
