//! `--filter KEY=VALUE` of the commands that remove what is not used.

use dhow_engine::duration;
use dhow_engine::prune::{Filters, Label};
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use anyhow::{Result, anyhow};

/// One `KEY=VALUE`; `KEY!=VALUE` is kept as the key `KEY!`.
pub(crate) type Filter = (String, String);

/// Splits an option's value, with Docker's words for one that cannot be split.
pub(crate) fn parse(text: &str) -> Result<Filter, String> {
    let (key, value) = text.split_once('=').ok_or("bad format of filter (expected name=value)")?;
    Ok((key.trim().to_lowercase(), value.trim().to_owned()))
}

/// What the filters of `image prune` say.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) filters: Filters,
    /// `dangling=false` means all images, as `-a` does.
    pub(crate) dangling: Option<bool>,
}

/// Understands filters; `keys` are those that the command knows.
pub(crate) fn understand(filters: &[Filter], keys: &[&str], now: Timestamp) -> Result<Wanted> {
    let mut wanted = Wanted::default();
    for (key, value) in filters {
        if !keys.contains(&key.as_str()) {
            return Err(crate::error::hinted(
                format!("Invalid filter '{key}'"),
                format!("known here: {}", keys.join(", ").replace("label!", "label!=…")),
            ));
        }
        match key.as_str() {
            "until" if wanted.filters.until.is_some() => {
                return Err(anyhow!("more than one until filter specified"));
            }
            "until" => wanted.filters.until = Some(time(value, now)?),
            "label" => wanted.filters.labels.push(label(value)),
            "label!" => wanted.filters.without.push(label(value)),
            _ => {
                wanted.dangling = Some(match value.to_lowercase().as_str() {
                    "true" | "1" => true,
                    "false" | "0" => false,
                    _ => return Err(anyhow!("Invalid filter 'dangling={value}'")),
                });
            }
        }
    }
    Ok(wanted)
}

fn label(text: &str) -> Label {
    match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (text.to_owned(), None),
    }
}

/// A point in time as Docker reads it: seconds since 1970, RFC 3339 or a beginning of it in local time, or a duration
/// before now (`10m`, `1h30m`).
pub(crate) fn time(text: &str, now: Timestamp) -> Result<Timestamp> {
    let civil = |time: DateTime| TimeZone::system().to_timestamp(time).ok();
    let parsed = if let Some(ago) = duration::parse(text) {
        now.checked_sub(ago).ok()
    } else if let Ok(time) = text.parse::<Timestamp>() {
        Some(time)
    } else if text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && text.contains(|c: char| c.is_ascii_digit())
    {
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let nanoseconds = format!("{fraction:0<9}");
        match (seconds.parse(), nanoseconds.get(..9).map(str::parse)) {
            (Ok(seconds), Some(Ok(nanoseconds))) => Timestamp::new(seconds, nanoseconds).ok(),
            _ => None,
        }
    } else if let Ok(date) = text.parse::<Date>().or_else(|error| {
        // jiff reads the date of a date with a time as well.
        if text.contains('T') { Err(error) } else { text.trim_end_matches('Z').parse() }
    }) && !text.contains('T')
    {
        civil(date.to_datetime(jiff::civil::Time::midnight()))
    } else if let Some((date, hour)) = text.split_once('T')
        && hour.len() == 2
        && hour.bytes().all(|b| b.is_ascii_digit())
    {
        format!("{date}T{hour}:00").parse().ok().and_then(civil)
    } else {
        text.parse().ok().and_then(civil)
    };
    parsed.ok_or_else(|| {
        crate::error::hinted(
            format!("failed to parse value as time or duration: \"{text}\""),
            "a duration such as `24h`, a date such as `2026-05-01`, or RFC 3339 is expected",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_time() {
        let now: Timestamp = "2026-05-02T12:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("24h", "2026-05-01T12:00:00Z"),
            ("1h30m", "2026-05-02T10:30:00Z"),
            ("1.5h", "2026-05-02T10:30:00Z"),
            ("1d", "2026-05-01T12:00:00Z"),
            ("90s", "2026-05-02T11:58:30Z"),
            ("2006-01-02T15:04:05Z", "2006-01-02T15:04:05Z"),
            ("2006-01-02T15:04:05.5+02:00", "2006-01-02T13:04:05.5Z"),
            ("1136073845", "2006-01-01T00:04:05Z"),
            ("1136073845.25", "2006-01-01T00:04:05.25Z"),
        ] {
            assert_eq!(time(text, now).unwrap(), expected.parse().unwrap(), "{text}");
        }
        let local = |text: &str| TimeZone::system().to_timestamp(text.parse().unwrap()).unwrap();
        for (text, expected) in [
            ("2006-01-02", "2006-01-02T00:00:00"),
            ("2006-01-02T15", "2006-01-02T15:00:00"),
            ("2006-01-02T15:04", "2006-01-02T15:04:00"),
            ("2006-01-02T15:04:05.5", "2006-01-02T15:04:05.5"),
        ] {
            assert_eq!(time(text, now).unwrap(), local(expected), "{text}");
        }
        for text in ["", "abc", "h", "1x", "-1h", "1h30", ".", "2006-13-01", "99999999999999999999h"] {
            assert!(time(text, now).is_err(), "{text}");
        }
    }

    #[test]
    fn filters_are_split() {
        assert_eq!(parse("label=a=b"), Ok(("label".into(), "a=b".into())));
        assert_eq!(parse("label!=a"), Ok(("label!".into(), "a".into())));
        assert!(parse("until").is_err());
        let keys = ["label", "label!", "until", "dangling"];
        let now = Timestamp::UNIX_EPOCH;
        let of = |texts: &[&str]| {
            understand(&texts.iter().map(|text| parse(text).unwrap()).collect::<Vec<_>>(), &keys, now)
        };
        let wanted = of(&["label=a=b", "label=c", "label!=d", "dangling=false"]).unwrap();
        assert_eq!(wanted.filters.labels, [("a".into(), Some("b".into())), ("c".into(), None)]);
        assert_eq!(wanted.filters.without, [("d".into(), None)]);
        assert_eq!(wanted.dangling, Some(false));
        for bad in [&["foo=1"][..], &["dangling=maybe"], &["until=x"], &["until=1h", "until=2h"]] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
    }
}
