//! Times as certificates and trusted roots write them, and as people read them. UTC only, no calendars.

/// Seconds since 1970 of `YYYYMMDDhhmmssZ`.
pub(crate) fn compact(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    if bytes.len() != 15 || bytes[14] != b'Z' {
        return None;
    }
    let number = |from: usize, to: usize| {
        bytes[from..to]
            .iter()
            .try_fold(0i64, |sum, b| b.is_ascii_digit().then(|| sum * 10 + i64::from(b - b'0')))
    };
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let (hour, minute, second) = (number(8, 10)?, number(10, 12)?, number(12, 14)?);
    let valid =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    valid.then(|| days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Seconds since 1970 of `YYYY-MM-DDThh:mm:ss[.fraction]Z`; the fraction is cut off.
pub(super) fn rfc3339(text: &str) -> Option<i64> {
    let (seconds, rest) = text.split_at_checked(19)?;
    let rest = rest.strip_suffix('Z')?;
    let fraction_ok = rest.is_empty()
        || rest.strip_prefix('.').is_some_and(|f| !f.is_empty() && f.bytes().all(|b| b.is_ascii_digit()));
    let shape = seconds.bytes().enumerate().all(|(at, byte)| match at {
        4 | 7 => byte == b'-',
        10 => byte == b'T',
        13 | 16 => byte == b':',
        _ => byte.is_ascii_digit(),
    });
    if !fraction_ok || !shape {
        return None;
    }
    let digits: String = seconds.chars().filter(char::is_ascii_digit).collect();
    compact(&format!("{digits}Z"))
}

/// `YYYY-MM-DDThh:mm:ssZ` of seconds since 1970.
#[must_use]
pub fn show(seconds: i64) -> String {
    let (mut days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 0000-03-01, in eras of 400 years.
    days += 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", of_day / 3_600, of_day / 60 % 60, of_day % 60)
}

/// Days since 1970-01-01 of a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:34:56Z", 951_827_696),
            ("2026-11-21T03:15:00Z", 1_795_230_900),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
        ] {
            assert_eq!(rfc3339(text), Some(seconds), "{text}");
            assert_eq!(show(seconds), text);
        }
        assert_eq!(rfc3339("2021-01-12T11:53:27.000Z"), Some(1_610_452_407));
        for bad in [
            "",
            "2021-01-12",
            "2021-01-12T11:53:27",
            "2021-01-12T11:53:27+01:00",
            "2021-13-12T11:53:27Z",
            "2021-01-12T11:53:27.Z",
            "2021x01-12T11:53:27Z",
        ] {
            assert_eq!(rfc3339(bad), None, "{bad}");
        }
        for day in (-100_000..100_000).step_by(37) {
            assert_eq!(
                rfc3339(&show(day * 86_400)).filter(|_| day > -60_000),
                (day > -60_000).then_some(day * 86_400)
            );
        }
    }
}
