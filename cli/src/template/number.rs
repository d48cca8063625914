//! Go's literals (numbers, characters, quoted strings) and its way to write floating point numbers.

/// A number literal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    /// Within `i64`.
    Int(i128),
    /// Finite.
    Float(f64),
}

/// Reads a number or a character constant (whose value is its code point).
pub(super) fn literal(text: &str) -> Result<Number, String> {
    if text.starts_with('\'') {
        let unquoted = unquote(text).ok_or_else(|| format!("malformed character constant: {text}"))?;
        let mut chars = unquoted.chars();
        return match (chars.next(), chars.next()) {
            (Some(c), None) => Ok(Number::Int(i128::from(u32::from(c)))),
            _ => Err(format!("malformed character constant: {text}")),
        };
    }
    let bad = || format!("bad number syntax: {text:?}");
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let digits = digits.replace('_', "").to_ascii_lowercase();
    let (radix, rest) = match digits.get(..2) {
        Some("0x") => (16, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        Some("0b") => (2, &digits[2..]),
        _ if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()) => {
            (8, &digits[1..])
        }
        _ => (10, digits.as_str()),
    };
    if !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix)) {
        let value = i128::from_str_radix(rest, radix).map(|v| if negative { -v } else { v });
        return match value {
            Ok(value) if i64::try_from(value).is_ok() => Ok(Number::Int(value)),
            _ => Err(format!("integer overflow: {text:?}")),
        };
    }
    if rest.is_empty() {
        return Err(format!("illegal number syntax: {text:?}"));
    }
    if radix != 10 {
        return Err(bad());
    }
    match rest.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(Number::Float(if negative { -value } else { value })),
        _ => Err(bad()),
    }
}

/// The meaning of a literal in `"`, `'` or `` ` ``. Bytes that are not UTF-8 become U+FFFD.
pub(super) fn unquote(text: &str) -> Option<String> {
    let quote = text.chars().next()?;
    let inner = text.get(1..text.len().checked_sub(1)?)?;
    if quote == '`' {
        return Some(inner.replace('\r', ""));
    }
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if c != '\\' {
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let escape = rest.chars().next()?;
        let (length, radix) = match escape {
            'x' => (2, 16),
            'u' => (4, 16),
            'U' => (8, 16),
            '0'..='7' => (3, 8),
            _ => (0, 0),
        };
        if length == 0 {
            bytes.push(match escape {
                'a' => 7,
                'b' => 8,
                'f' => 12,
                'n' => b'\n',
                'r' => b'\r',
                't' => b'\t',
                'v' => 11,
                '\\' => b'\\',
                c if c == quote => u8::try_from(c).ok()?,
                _ => return None,
            });
            rest = &rest[escape.len_utf8()..];
            continue;
        }
        let start = usize::from(radix == 16);
        let digits = rest.get(start..start + length)?;
        if !digits.chars().all(|c| c.is_digit(radix)) {
            return None;
        }
        let value = u32::from_str_radix(digits, radix).ok()?;
        if matches!(escape, 'u' | 'U') {
            bytes.extend_from_slice(char::from_u32(value)?.encode_utf8(&mut [0; 4]).as_bytes());
        } else {
            bytes.push(u8::try_from(value).ok()?);
        }
        rest = &rest[start + length..];
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// More decimals than any `f64` has; further ones are zeros.
const EXACT: usize = 1100;

/// `value` for the verb `e`, `f` or `g`, without a plus sign. No precision: the shortest text that reads back as `value`.
pub(super) fn float(value: f64, verb: char, precision: Option<usize>) -> String {
    if !value.is_finite() {
        return if value.is_nan() { "NaN".to_owned() } else { format!("{value:+}").replace("inf", "Inf") };
    }
    match verb {
        'e' => exponent(value, precision),
        'f' => match precision {
            None => format!("{value}"),
            Some(p) => {
                let digits = p.min(EXACT);
                format!("{value:.digits$}") + &"0".repeat(p - digits)
            }
        },
        _ => general(value, precision),
    }
}

/// `1.5e+06`: at least two digits of exponent.
fn exponent(value: f64, precision: Option<usize>) -> String {
    let digits = precision.map_or(0, |p| p.min(EXACT));
    let text = if precision.is_some() { format!("{value:.digits$e}") } else { format!("{value:e}") };
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
    let zeros = "0".repeat(precision.map_or(0, |p| p - digits));
    format!("{mantissa}{zeros}e{sign}{exponent:0>2}")
}

/// The shorter of the two forms, without trailing zeros.
fn general(value: f64, precision: Option<usize>) -> String {
    // The scientific form says how many digits there are and where the point is.
    let significant = precision.map(|p| p.clamp(1, EXACT));
    let scientific = exponent(value, significant.map(|p| p - 1));
    let (mantissa, power) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let power: i32 = power.parse().unwrap_or(0);
    let mantissa = match mantissa.contains('.') {
        true => mantissa.trim_end_matches('0').trim_end_matches('.'),
        false => mantissa,
    };
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count();
    let point = power + 1;
    let digits = i32::try_from(digits).unwrap_or(i32::MAX);
    // Go: six digits for the shortest form, or as many as there are when these are all before the point.
    let threshold = match significant.map(|p| i32::try_from(p).unwrap_or(i32::MAX)) {
        None => 6,
        Some(p) if p > digits && digits >= point => digits,
        Some(p) => p,
    };
    if power < -4 || power >= threshold {
        let (_, exponent) = scientific.split_once('e').unwrap_or(("", "+00"));
        return format!("{mantissa}e{exponent}");
    }
    let decimals = usize::try_from(digits - point).unwrap_or(0);
    if significant.is_none() { format!("{value}") } else { format!("{value:.decimals$}") }
}

#[cfg(test)]
mod tests {
    use super::{Number, float, literal, unquote};

    #[test]
    fn literals() {
        for (text, want) in [("0x1F", 31), ("010", 8), ("0b11", 3), ("-7", -7), ("1_000", 1000), ("'a'", 97)]
        {
            assert_eq!(literal(text), Ok(Number::Int(want)), "{text}");
        }
        assert_eq!(literal("1.5e1"), Ok(Number::Float(15.0)));
        for text in
            ["1x", "0x", "-", "1e999", "''", "'ab'", "1i", "0x1p2", "1.2.3", "99999999999999999999", "09x"]
        {
            assert!(literal(text).is_err(), "{text}");
        }
    }

    #[test]
    fn quotes() {
        assert_eq!(unquote(r#""a\tb\x41\u00e9\101\"""#).as_deref(), Some("a\tbAéA\""));
        assert_eq!(unquote("`a\\t`").as_deref(), Some("a\\t"));
        for text in
            [r#""\q""#, r#""\x4""#, r#""\'""#, r#""\u00""#, r#""\400""#, r#""\uD800""#, "\"", "\"\\x+1\""]
        {
            assert_eq!(unquote(text), None, "{text}");
        }
    }

    #[test]
    fn floats() {
        for (value, verb, precision, want) in [
            (1.0, 'g', None, "1"),
            (0.1, 'g', None, "0.1"),
            (1.0, 'f', Some(2), "1.00"),
            (1234.5, 'e', Some(3), "1.234e+03"),
            (0.00001, 'g', None, "1e-05"),
            (13.25, 'g', Some(3), "13.2"),
            (100.0, 'g', Some(3), "100"),
            (1000.0, 'g', Some(3), "1e+03"),
            (123456.0, 'g', None, "123456"),
            (1_000_000.0, 'g', None, "1e+06"),
            (0.0, 'g', Some(3), "0"),
            (-2.5, 'g', None, "-2.5"),
        ] {
            assert_eq!(float(value, verb, precision), want, "{value} %{verb} {precision:?}");
        }
        assert_eq!(float(1.0, 'f', Some(5000)).len(), 5002);
        assert_eq!(float(1.0, 'e', Some(5000)).len(), 5006);
    }
}
