//! Durations as people write them, in settings and filters. How they are shown is the command's.

use std::time::Duration;

/// A duration in Go's form: `1h30m`, `1.5h`, `300ms`; also days and weeks, `30d` and `2w`.
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            "w" => 604_800.0,
            _ => return None,
        };
        total += number * unit;
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(total).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_add_up() {
        for (text, seconds) in
            [("24h", 86400.0), ("1h30m", 5400.0), ("1.5h", 5400.0), ("300ms", 0.3), ("2w", 1_209_600.0)]
        {
            assert_eq!(parse(text), Duration::try_from_secs_f64(seconds).ok(), "{text}");
        }
        for text in ["", "5", "h", "1x", "1h5", "-1h", "1..5h", "99999999999999999999w"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
