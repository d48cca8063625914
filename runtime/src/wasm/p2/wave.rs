//! Values of components as text, in the encoding that wasmtime's command and others use (WAVE): `"text"`, `[1, 2]`,
//! `{name: "x", age: 3}`, `some(1)`, `err("no")`. For [`super::invoke`]: arguments from a command line, and results.
//!
//! What is read follows a type, whose depth the component's validation has bounded.

use std::fmt::Write as _;

use wasmtime::component::{Type, Val};

/// Reads one value that takes the whole text.
pub(in crate::wasm) fn parse(ty: &Type, text: &str) -> Result<Val, String> {
    let mut reader = Reader { rest: text };
    let value = reader.value(ty)?;
    reader.end()?;
    Ok(value)
}

/// Reads the values between the parentheses of a call: `1, "two")`.
pub(super) fn parse_call(types: &[Type], text: &str) -> Result<Vec<Val>, String> {
    let mut reader = Reader { rest: text };
    let mut values = Vec::with_capacity(types.len());
    for (index, ty) in types.iter().enumerate() {
        reader.space();
        if reader.rest.starts_with(')') {
            // Options at the end may be left out.
            if !matches!(ty, Type::Option(_)) {
                return Err(format!("too few arguments, it takes {}", types.len()));
            }
            values.push(Val::Option(None));
            continue;
        }
        if index > 0 {
            reader.expect(",")?;
        }
        values.push(reader.value(ty)?);
    }
    reader.eat(",");
    reader.expect(")").map_err(|error| format!("{error}; it takes {} arguments", types.len()))?;
    reader.end()?;
    Ok(values)
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn space(&mut self) {
        loop {
            self.rest = self.rest.trim_start();
            match self.rest.strip_prefix("//") {
                Some(comment) => self.rest = comment.split_once('\n').map_or("", |(_, rest)| rest),
                None => return,
            }
        }
    }

    fn eat(&mut self, token: &str) -> bool {
        self.space();
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.eat(token) { Ok(()) } else { Err(format!("{token:?} is missing at {}", self.here())) }
    }

    fn end(&mut self) -> Result<(), String> {
        self.space();
        if self.rest.is_empty() { Ok(()) } else { Err(format!("{} is too much", self.here())) }
    }

    /// What comes next, for messages.
    fn here(&self) -> String {
        match self.rest {
            "" => "the end".to_owned(),
            rest => format!("{:?}", rest.chars().take(20).collect::<String>()),
        }
    }

    /// A number, a keyword or a label.
    fn word(&mut self) -> Result<&'a str, String> {
        self.space();
        let end =
            self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.' | '_')));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        if word.is_empty() {
            return Err(format!("a value is missing at {}", self.here()));
        }
        self.rest = rest;
        Ok(word)
    }

    /// A name of a field, case or flag; `%` makes a keyword one.
    fn label(&mut self) -> Result<&'a str, String> {
        self.eat("%");
        self.word()
    }

    fn number<T: std::str::FromStr>(&mut self, what: &str) -> Result<T, String> {
        let word = self.word()?;
        word.parse().map_err(|_| format!("{word:?} is no {what}"))
    }

    fn value(&mut self, ty: &Type) -> Result<Val, String> {
        Ok(match ty {
            Type::Bool => match self.word()? {
                "true" => Val::Bool(true),
                "false" => Val::Bool(false),
                other => return Err(format!("{other:?} is neither true nor false")),
            },
            Type::S8 => Val::S8(self.number("s8")?),
            Type::U8 => Val::U8(self.number("u8")?),
            Type::S16 => Val::S16(self.number("s16")?),
            Type::U16 => Val::U16(self.number("u16")?),
            Type::S32 => Val::S32(self.number("s32")?),
            Type::U32 => Val::U32(self.number("u32")?),
            Type::S64 => Val::S64(self.number("s64")?),
            Type::U64 => Val::U64(self.number("u64")?),
            Type::Float32 => Val::Float32(self.number("f32")?),
            Type::Float64 => Val::Float64(self.number("f64")?),
            Type::Char => {
                let text = self.quoted('\'')?;
                let mut chars = text.chars();
                match (chars.next(), chars.next()) {
                    (Some(one), None) => Val::Char(one),
                    _ => return Err(format!("{text:?} is not one character")),
                }
            }
            Type::String => Val::String(self.quoted('"')?),
            Type::List(list) => Val::List(self.list(&list.ty())?),
            Type::FixedLengthList(list) => {
                let values = self.list(&list.ty())?;
                if u32::try_from(values.len()).ok() != Some(list.len()) {
                    return Err(format!(
                        "a list of {} values is wanted, not of {}",
                        list.len(),
                        values.len()
                    ));
                }
                Val::FixedLengthList(values)
            }
            Type::Tuple(tuple) => {
                self.expect("(")?;
                let mut values = Vec::new();
                for (index, ty) in tuple.types().enumerate() {
                    if index > 0 {
                        self.expect(",")?;
                    }
                    values.push(self.value(&ty)?);
                }
                self.eat(",");
                self.expect(")")?;
                Val::Tuple(values)
            }
            Type::Record(record) => self.record(record)?,
            Type::Variant(variant) => {
                let name = self.label()?;
                let case = variant.cases().find(|case| case.name == name);
                let case = case.ok_or_else(|| format!("there is no case {name:?}"))?;
                Val::Variant(name.to_owned(), self.payload(case.ty.as_ref())?)
            }
            Type::Enum(names) => {
                let name = self.label()?;
                if !names.names().any(|known| known == name) {
                    return Err(format!("there is no case {name:?}"));
                }
                Val::Enum(name.to_owned())
            }
            Type::Option(option) => self.option(&option.ty())?,
            Type::Result(result) => self.result(result.ok().as_ref(), result.err().as_ref())?,
            Type::Flags(flags) => {
                self.expect("{")?;
                let mut set = Vec::new();
                while !self.eat("}") {
                    let name = self.label()?;
                    if !flags.names().any(|known| known == name) {
                        return Err(format!("there is no flag {name:?}"));
                    }
                    set.push(name.to_owned());
                    if !self.eat(",") {
                        self.expect("}")?;
                        break;
                    }
                }
                Val::Flags(set)
            }
            other => return Err(format!("a value of type {} cannot be written as text", kind(other))),
        })
    }

    fn list(&mut self, ty: &Type) -> Result<Vec<Val>, String> {
        self.expect("[")?;
        let mut values = Vec::new();
        while !self.eat("]") {
            values.push(self.value(ty)?);
            if !self.eat(",") {
                self.expect("]")?;
                break;
            }
        }
        Ok(values)
    }

    fn record(&mut self, record: &wasmtime::component::types::Record) -> Result<Val, String> {
        self.expect("{")?;
        let mut given: Vec<(String, Val)> = Vec::new();
        while !self.eat("}") {
            let name = self.label()?;
            let field = record.fields().find(|field| field.name == name);
            let field = field.ok_or_else(|| format!("there is no field {name:?}"))?;
            if given.iter().any(|(known, _)| known == name) {
                return Err(format!("the field {name:?} is there twice"));
            }
            self.expect(":")?;
            given.push((name.to_owned(), self.value(&field.ty)?));
            if !self.eat(",") {
                self.expect("}")?;
                break;
            }
        }
        let mut fields = Vec::new();
        for field in record.fields() {
            let value = match given.iter().position(|(name, _)| name == field.name) {
                Some(at) => given.swap_remove(at).1,
                None if matches!(field.ty, Type::Option(_)) => Val::Option(None),
                None => return Err(format!("the field {:?} is missing", field.name)),
            };
            fields.push((field.name.to_owned(), value));
        }
        Ok(Val::Record(fields))
    }

    /// `(value)` where there is one.
    fn payload(&mut self, ty: Option<&Type>) -> Result<Option<Box<Val>>, String> {
        let Some(ty) = ty else { return Ok(None) };
        self.expect("(")?;
        let value = self.value(ty)?;
        self.expect(")")?;
        Ok(Some(Box::new(value)))
    }

    fn option(&mut self, ty: &Type) -> Result<Val, String> {
        let before = self.rest;
        match self.word() {
            Ok("none") => return Ok(Val::Option(None)),
            Ok("some") if self.rest.trim_start().starts_with('(') => {
                return Ok(Val::Option(self.payload(Some(ty))?));
            }
            _ => self.rest = before,
        }
        // The value alone will do.
        Ok(Val::Option(Some(Box::new(self.value(ty)?))))
    }

    fn result(&mut self, ok: Option<&Type>, err: Option<&Type>) -> Result<Val, String> {
        let before = self.rest;
        match self.word() {
            Ok("ok") => return Ok(Val::Result(Ok(self.payload(ok)?))),
            Ok("err") => return Ok(Val::Result(Err(self.payload(err)?))),
            _ => self.rest = before,
        }
        match ok {
            Some(ok) => Ok(Val::Result(Ok(Some(Box::new(self.value(ok)?))))),
            None => Err(format!("neither ok nor err: {}", self.here())),
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String, String> {
        self.space();
        let mut rest = self
            .rest
            .strip_prefix(quote)
            .ok_or_else(|| format!("a {quote} is missing at {}", self.here()))?;
        let mut text = String::new();
        loop {
            let mut chars = rest.chars();
            match chars.next() {
                None => return Err(format!("a {quote} is missing at the end")),
                Some(end) if end == quote => {
                    self.rest = chars.as_str();
                    return Ok(text);
                }
                Some('\\') => {
                    let escaped = chars.next();
                    rest = chars.as_str();
                    text.push(match escaped {
                        Some('n') => '\n',
                        Some('r') => '\r',
                        Some('t') => '\t',
                        Some(same @ ('\\' | '\'' | '"')) => same,
                        Some('u') => {
                            let (digits, after) = rest
                                .strip_prefix('{')
                                .and_then(|rest| rest.split_once('}'))
                                .ok_or_else(|| "\\u without {...}".to_owned())?;
                            rest = after;
                            let number = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
                            number.ok_or_else(|| format!("\\u{{{digits}}} is no character"))?
                        }
                        _ => return Err("an unknown escape after \\".to_owned()),
                    });
                }
                Some(other) => {
                    text.push(other);
                    rest = chars.as_str();
                }
            }
        }
    }
}

/// A type's name for messages.
fn kind(ty: &Type) -> &'static str {
    match ty {
        Type::Own(_) | Type::Borrow(_) => "resource",
        Type::Future(_) => "future",
        Type::Stream(_) => "stream",
        Type::Map(_) => "map",
        _ => "error-context",
    }
}

/// A value as text.
pub(in crate::wasm) fn print(value: &Val) -> String {
    let mut text = String::new();
    write_value(&mut text, value);
    text
}

fn write_value(text: &mut String, value: &Val) {
    // Writing to a string cannot fail.
    let _ = match value {
        Val::Bool(value) => write!(text, "{value}"),
        Val::S8(value) => write!(text, "{value}"),
        Val::U8(value) => write!(text, "{value}"),
        Val::S16(value) => write!(text, "{value}"),
        Val::U16(value) => write!(text, "{value}"),
        Val::S32(value) => write!(text, "{value}"),
        Val::U32(value) => write!(text, "{value}"),
        Val::S64(value) => write!(text, "{value}"),
        Val::U64(value) => write!(text, "{value}"),
        Val::Float32(value) if value.is_nan() => write!(text, "nan"),
        Val::Float64(value) if value.is_nan() => write!(text, "nan"),
        Val::Float32(value) => write!(text, "{value}"),
        Val::Float64(value) => write!(text, "{value}"),
        Val::Char(value) => write!(text, "'{}'", escaped(value.encode_utf8(&mut [0; 4]), '\'')),
        Val::String(value) => write!(text, "\"{}\"", escaped(value, '"')),
        Val::List(values) | Val::FixedLengthList(values) => return write_all(text, "[", values, "]"),
        Val::Tuple(values) => return write_all(text, "(", values, ")"),
        Val::Record(fields) => {
            text.push('{');
            for (index, (name, value)) in fields.iter().enumerate() {
                text.push_str(if index == 0 { "" } else { ", " });
                let _ = write!(text, "{name}: ");
                write_value(text, value);
            }
            write!(text, "}}")
        }
        Val::Variant(name, payload) => return write_case(text, name, payload.as_deref()),
        Val::Enum(name) => write!(text, "{name}"),
        Val::Option(None) => write!(text, "none"),
        Val::Option(Some(value)) => return write_case(text, "some", Some(value)),
        Val::Result(Ok(value)) => return write_case(text, "ok", value.as_deref()),
        Val::Result(Err(value)) => return write_case(text, "err", value.as_deref()),
        Val::Flags(names) => write!(text, "{{{}}}", names.join(", ")),
        Val::Map(entries) => {
            text.push('{');
            for (index, (key, value)) in entries.iter().enumerate() {
                text.push_str(if index == 0 { "" } else { ", " });
                write_value(text, key);
                text.push_str(": ");
                write_value(text, value);
            }
            write!(text, "}}")
        }
        Val::Resource(_) => write!(text, "<resource>"),
        Val::Future(_) => write!(text, "<future>"),
        Val::Stream(_) => write!(text, "<stream>"),
        Val::ErrorContext(_) => write!(text, "<error-context>"),
    };
}

fn write_all(text: &mut String, open: &str, values: &[Val], close: &str) {
    text.push_str(open);
    for (index, value) in values.iter().enumerate() {
        text.push_str(if index == 0 { "" } else { ", " });
        write_value(text, value);
    }
    text.push_str(close);
}

fn write_case(text: &mut String, name: &str, payload: Option<&Val>) {
    text.push_str(name);
    if let Some(payload) = payload {
        text.push('(');
        write_value(text, payload);
        text.push(')');
    }
}

fn escaped(text: &str, quote: char) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}
