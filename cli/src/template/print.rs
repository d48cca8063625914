//! How Go prints values: `Print`, `Println` and `Printf` of its package `fmt`, as far as JSON values go.

use std::fmt::Write;

use serde_json::Value;

use super::number;
use super::value::{Val, sorted};

/// Values inside each other; `serde_json` reads no deeper text, so only made-up values can reach it.
const MAX_DEPTH: usize = 128;

/// Go refuses wider fields and higher precisions too.
const MAX_WIDTH: usize = 1_000_000;

/// Appends `value` as `{{.}}` shows it.
pub(super) fn value(out: &mut String, value: &Val<'_>) {
    match value {
        Val::Absent | Val::Nil => out.push_str("<no value>"),
        value => format(out, value, &Spec::new('v'), 0),
    }
}

/// `print`: a space between two values that are both no strings.
pub(super) fn print(args: &[Val<'_>]) -> String {
    let mut out = String::new();
    let mut after_string = true;
    for arg in args {
        let is_string = matches!(arg, Val::Str(_));
        if !is_string && !after_string {
            out.push(' ');
        }
        after_string = is_string;
        format(&mut out, arg, &Spec::new('v'), 0);
    }
    out
}

/// `println`: a space between all values and a newline at the end.
pub(super) fn println(args: &[Val<'_>]) -> String {
    let mut out = String::new();
    for (i, arg) in args.iter().enumerate() {
        if i > 0 {
            out.push(' ');
        }
        format(&mut out, arg, &Spec::new('v'), 0);
    }
    out.push('\n');
    out
}

/// A verb with its flags.
#[derive(Debug, Clone)]
struct Spec {
    plus: bool,
    minus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
    verb: char,
}

impl Spec {
    fn new(verb: char) -> Self {
        Self {
            plus: false,
            minus: false,
            sharp: false,
            space: false,
            zero: false,
            width: None,
            precision: None,
            verb,
        }
    }
}

/// `printf`; `limit` is the number of bytes after which it stops. Mistakes show in the text, as in Go: `%!d(string=x)`.
pub(super) fn printf(template: &str, args: &[Val<'_>], limit: usize) -> String {
    let mut out = String::new();
    let mut rest = template;
    let mut arguments = Arguments { args, next: 0, reordered: false };
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let mut spec = Spec::new('v');
        rest = flags(&mut spec, rest);
        let mut bad_index = false;
        rest = arguments.index(rest, &mut bad_index);
        if let Some(after) = rest.strip_prefix('*') {
            rest = after;
            spec.width = match arguments.number() {
                Some(n) => {
                    spec.minus |= n < 0;
                    Some(usize::try_from(n.unsigned_abs()).unwrap_or(MAX_WIDTH))
                }
                None => {
                    out.push_str("%!(BADWIDTH)");
                    None
                }
            };
        } else {
            (spec.width, rest) = digits(rest);
            if spec.width.is_some_and(|w| w > MAX_WIDTH) {
                spec.width = None;
                out.push_str("%!(BADWIDTH)");
            }
        }
        if let Some(after) = rest.strip_prefix('.') {
            rest = arguments.index(after, &mut bad_index);
            if let Some(after) = rest.strip_prefix('*') {
                rest = after;
                match arguments.number() {
                    Some(n) if n >= 0 => spec.precision = usize::try_from(n).ok(),
                    _ => out.push_str("%!(BADPREC)"),
                }
            } else {
                let (precision, after) = digits(rest);
                spec.precision = precision.or(Some(0));
                rest = after;
            }
            if spec.precision.is_some_and(|p| p > MAX_WIDTH) {
                spec.precision = None;
                out.push_str("%!(BADPREC)");
            }
        }
        rest = arguments.index(rest, &mut bad_index);
        let Some(verb) = rest.chars().next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        rest = &rest[verb.len_utf8()..];
        spec.verb = verb;
        match verb {
            '%' => out.push('%'),
            _ if bad_index => push(&mut out, format_args!("%!{verb}(BADINDEX)")),
            _ => match arguments.take() {
                Some(arg) => format(&mut out, arg, &spec, 0),
                None => push(&mut out, format_args!("%!{verb}(MISSING)")),
            },
        }
        if out.len() > limit {
            return out;
        }
    }
    out.push_str(rest);
    let unused = args.get(arguments.next..).unwrap_or_default();
    if !arguments.reordered && !unused.is_empty() {
        out.push_str("%!(EXTRA ");
        for (i, arg) in unused.iter().enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            out.push_str(arg.type_name());
            if !matches!(arg, Val::Absent | Val::Nil) {
                out.push('=');
                format(&mut out, arg, &Spec::new('v'), 0);
            }
        }
        out.push(')');
    }
    out
}

/// The operands of one `printf`.
struct Arguments<'v, 'a> {
    args: &'v [Val<'a>],
    next: usize,
    /// An explicit index was used; then unused operands are no mistake.
    reordered: bool,
}

impl<'v, 'a> Arguments<'v, 'a> {
    fn take(&mut self) -> Option<&'v Val<'a>> {
        let arg = self.args.get(self.next);
        self.next += usize::from(arg.is_some());
        arg
    }

    /// The operand for a `*`.
    fn number(&mut self) -> Option<i128> {
        let max = i128::try_from(MAX_WIDTH).unwrap_or(0);
        match self.take() {
            Some(Val::Int(n)) if n.abs() <= max => Some(*n),
            _ => None,
        }
    }

    /// Steps over `[n]`, which chooses the operand.
    fn index<'t>(&mut self, text: &'t str, bad: &mut bool) -> &'t str {
        let Some((inside, after)) = text.strip_prefix('[').and_then(|t| t.split_once(']')) else {
            return text;
        };
        self.reordered = true;
        match inside.parse::<usize>() {
            Ok(n) if (1..=self.args.len()).contains(&n) => self.next = n - 1,
            _ => *bad = true,
        }
        after
    }
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    _ = out.write_fmt(text);
}

fn flags<'t>(spec: &mut Spec, text: &'t str) -> &'t str {
    for (at, c) in text.char_indices() {
        match c {
            '+' => spec.plus = true,
            '-' => spec.minus = true,
            '#' => spec.sharp = true,
            ' ' => spec.space = true,
            '0' => spec.zero = true,
            _ => return &text[at..],
        }
    }
    ""
}

/// A decimal number at the start of `text`; too large ones are `usize::MAX`.
fn digits(text: &str) -> (Option<usize>, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    ((end > 0).then(|| number.parse().unwrap_or(usize::MAX)), rest)
}

/// Appends one value under one verb.
fn format(out: &mut String, value: &Val<'_>, spec: &Spec, depth: usize) {
    if depth > MAX_DEPTH {
        out.push('…');
        return;
    }
    if spec.verb == 'T' {
        return pad(out, value.type_name(), spec, false);
    }
    match value {
        Val::Absent | Val::Nil if depth > 0 && spec.sharp && spec.verb == 'v' => {
            out.push_str("interface {}(nil)");
        }
        Val::Absent | Val::Nil if depth > 0 => out.push_str("<nil>"),
        Val::Absent | Val::Nil if spec.verb == 'v' => pad(out, "<nil>", spec, false),
        Val::Absent | Val::Nil => push(out, format_args!("%!{}(<nil>)", spec.verb)),
        Val::Bool(b) if matches!(spec.verb, 'v' | 't') => {
            pad(out, if *b { "true" } else { "false" }, spec, false);
        }
        Val::Int(n) => integer(out, *n, spec),
        Val::Float(f) => float(out, *f, spec),
        Val::Str(s) => string(out, s, spec),
        Val::Map(map) => {
            let go_syntax = spec.sharp && spec.verb == 'v';
            out.push_str(if go_syntax { "map[string]interface {}{" } else { "map[" });
            for (i, (key, value)) in sorted(map).into_iter().enumerate() {
                if i > 0 {
                    out.push_str(if go_syntax { ", " } else { " " });
                }
                string(out, key, spec);
                out.push(':');
                format(out, &Val::from(value), spec, depth + 1);
            }
            out.push(if go_syntax { '}' } else { ']' });
        }
        Val::List(list) => elements(out, list.iter().map(|v: &Value| Val::from(v)), value, spec, depth),
        Val::Strings(list) => {
            let borrowed = list.iter().map(|s| Val::Str(s.as_str().into()));
            elements(out, borrowed, value, spec, depth);
        }
        Val::Bool(_) => bad(out, value, spec),
    }
}

fn elements<'v>(
    out: &mut String,
    list: impl Iterator<Item = Val<'v>>,
    whole: &Val<'_>,
    spec: &Spec,
    depth: usize,
) {
    let go_syntax = spec.sharp && spec.verb == 'v';
    if go_syntax {
        out.push_str(whole.type_name());
    }
    out.push(if go_syntax { '{' } else { '[' });
    for (i, element) in list.enumerate() {
        if i > 0 {
            out.push_str(if go_syntax { ", " } else { " " });
        }
        format(out, &element, spec, depth + 1);
    }
    out.push(if go_syntax { '}' } else { ']' });
}

/// A verb that does not fit the value.
fn bad(out: &mut String, value: &Val<'_>, spec: &Spec) {
    push(out, format_args!("%!{}({}=", spec.verb, value.type_name()));
    format(out, value, &Spec::new('v'), 0);
    out.push(')');
}

/// Fills up to the width, counted in characters.
fn pad(out: &mut String, text: &str, spec: &Spec, numeric: bool) {
    let missing = spec.width.unwrap_or(0).saturating_sub(text.chars().count());
    if spec.minus {
        out.push_str(text);
        out.extend(std::iter::repeat_n(' ', missing));
    } else if spec.zero {
        // Zeros go between the sign and the digits of a number.
        let sign = if numeric { text.find(|c| !matches!(c, '+' | '-' | ' ')).unwrap_or(0) } else { 0 };
        out.push_str(&text[..sign]);
        out.extend(std::iter::repeat_n('0', missing));
        out.push_str(&text[sign..]);
    } else {
        out.extend(std::iter::repeat_n(' ', missing));
        out.push_str(text);
    }
}

fn sign(negative: bool, spec: &Spec) -> &'static str {
    match (negative, spec.plus, spec.space) {
        (true, _, _) => "-",
        (false, true, _) => "+",
        (false, false, true) => " ",
        (false, false, false) => "",
    }
}

fn integer(out: &mut String, n: i128, spec: &Spec) {
    let size = n.unsigned_abs();
    let (prefix, digits) = match spec.verb {
        'v' | 'd' => ("", size.to_string()),
        'b' => (if spec.sharp { "0b" } else { "" }, format!("{size:b}")),
        'o' => (if spec.sharp { "0" } else { "" }, format!("{size:o}")),
        'O' => ("0o", format!("{size:o}")),
        'x' => (if spec.sharp { "0x" } else { "" }, format!("{size:x}")),
        'X' => (if spec.sharp { "0X" } else { "" }, format!("{size:X}")),
        'c' | 'q' => {
            let c = u32::try_from(n).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
            let text = if spec.verb == 'c' {
                c.to_string()
            } else {
                quote(c.encode_utf8(&mut [0; 4]), '\'', spec.plus)
            };
            return pad(out, &text, spec, false);
        }
        'U' => {
            let mut text = format!("U+{size:04X}");
            if let Some(c) = u32::try_from(n).ok().and_then(char::from_u32)
                && spec.sharp
            {
                push(&mut text, format_args!(" '{c}'"));
            }
            return pad(out, &text, &Spec { zero: false, ..spec.clone() }, false);
        }
        _ => return bad(out, &Val::Int(n), spec),
    };
    let sign = sign(n < 0, spec);
    // A precision is a number of digits and turns zero padding off; precision 0 prints the value 0 as nothing.
    let digits = match spec.precision {
        Some(0) if n == 0 => String::new(),
        Some(p) => "0".repeat(p.saturating_sub(digits.len())) + &digits,
        None if spec.zero && !spec.minus => {
            // Go counts the sign into the width, but not the prefix.
            let width = spec.width.unwrap_or(0).saturating_sub(sign.len());
            "0".repeat(width.saturating_sub(digits.len())) + &digits
        }
        None => digits,
    };
    pad(out, &format!("{sign}{prefix}{digits}"), &Spec { zero: false, ..spec.clone() }, true);
}

fn float(out: &mut String, value: f64, spec: &Spec) {
    let text = match spec.verb {
        'v' | 'g' => number::float(value, 'g', spec.precision),
        'G' => number::float(value, 'g', spec.precision).to_uppercase(),
        'e' => number::float(value, 'e', Some(spec.precision.unwrap_or(6))),
        'E' => number::float(value, 'e', Some(spec.precision.unwrap_or(6))).to_uppercase(),
        'f' | 'F' => number::float(value, 'f', Some(spec.precision.unwrap_or(6))),
        _ => return bad(out, &Val::Float(value), spec),
    };
    let (negative, digits) = text.strip_prefix('-').map_or((false, text.as_str()), |digits| (true, digits));
    pad(out, &format!("{}{digits}", sign(negative, spec)), spec, true);
}

fn string(out: &mut String, s: &str, spec: &Spec) {
    let end = |p: usize| s.char_indices().nth(p).map_or(s.len(), |(at, _)| at);
    let cut = &s[..spec.precision.map_or(s.len(), end)];
    match spec.verb {
        'v' if spec.sharp => pad(out, &quote(cut, '"', false), spec, false),
        'v' | 's' => pad(out, cut, spec, false),
        'q' if spec.sharp && !cut.contains('`') && !cut.chars().any(|c| c.is_control() && c != '\t') => {
            pad(out, &format!("`{cut}`"), spec, false);
        }
        'q' => pad(out, &quote(cut, '"', spec.plus), spec, false),
        'x' | 'X' => {
            let bytes = &s.as_bytes()[..spec.precision.unwrap_or(s.len()).min(s.len())];
            let mut text = String::new();
            for (i, byte) in bytes.iter().enumerate() {
                if spec.space && i > 0 {
                    text.push(' ');
                }
                if spec.sharp && (spec.space || i == 0) {
                    text.push_str(if spec.verb == 'x' { "0x" } else { "0X" });
                }
                match spec.verb {
                    'x' => push(&mut text, format_args!("{byte:02x}")),
                    _ => push(&mut text, format_args!("{byte:02X}")),
                }
            }
            pad(out, &text, spec, false);
        }
        _ => bad(out, &Val::Str(s.into()), spec),
    }
}

/// `s` as a Go literal, if wanted in ASCII only.
fn quote(s: &str, quote: char, ascii: bool) -> String {
    let printable = |c: char| printable(c) && (c.is_ascii() || !ascii);
    let mut out = String::with_capacity(s.len() + 2);
    out.push(quote);
    for c in s.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if u32::from(c) < 0x20 || c == '\u{7f}' => {
                push(&mut out, format_args!("\\x{:02x}", u32::from(c)));
            }
            c if !printable(c) && u32::from(c) > 0xffff => {
                push(&mut out, format_args!("\\U{:08x}", u32::from(c)));
            }
            c if !printable(c) => push(&mut out, format_args!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

/// Close to Go's notion: no control, format or private characters and no space but the ordinary one.
fn printable(c: char) -> bool {
    let format = matches!(c,
        '\u{ad}' | '\u{600}'..='\u{605}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e000}'..='\u{f8ff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e0fff}' | '\u{f0000}'..);
    c == ' ' || !(format || c.is_control() || c.is_whitespace())
}
