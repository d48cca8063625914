//! The functions of a template: Go's own and those Docker adds.
//! `and` and `or` are not here: they do not evaluate all arguments, so `exec` does them itself.

mod compare;

use std::borrow::Cow;
use std::rc::Rc;

use super::print;
use super::value::Val;

/// Strings that a function makes may not be longer, in bytes.
pub(super) const MAX_STRING: usize = 8 << 20;

/// Name, fewest arguments, most arguments (`None`: any number).
const FUNCTIONS: &[(&str, usize, Option<usize>)] = &[
    ("and", 1, None),
    ("eq", 1, None),
    ("ge", 2, Some(2)),
    ("gt", 2, Some(2)),
    ("index", 1, None),
    ("join", 2, Some(2)),
    ("json", 1, Some(1)),
    ("le", 2, Some(2)),
    ("len", 1, Some(1)),
    ("lower", 1, Some(1)),
    ("lt", 2, Some(2)),
    ("ne", 2, Some(2)),
    ("not", 1, Some(1)),
    ("or", 1, None),
    ("pad", 3, Some(3)),
    ("print", 0, None),
    ("printf", 1, None),
    ("println", 0, None),
    ("slice", 1, None),
    ("split", 2, Some(2)),
    ("title", 1, Some(1)),
    ("truncate", 2, Some(2)),
    ("upper", 1, Some(1)),
];

/// Whether there is such a function.
pub(super) fn exists(name: &str) -> bool {
    FUNCTIONS.iter().any(|(known, _, _)| *known == name)
}

/// Whether `count` arguments suit the function, or what is wrong.
pub(super) fn check_arity(name: &str, count: usize) -> Result<(), String> {
    let Some((_, least, most)) = FUNCTIONS.iter().find(|(known, _, _)| *known == name) else {
        return Err(format!("{name:?} is not a defined function"));
    };
    match most {
        None if count < *least => {
            Err(format!("wrong number of args for {name}: want at least {least} got {count}"))
        }
        Some(most) if !(*least..=*most).contains(&count) => {
            Err(format!("wrong number of args for {name}: want {most} got {count}"))
        }
        _ => Ok(()),
    }
}

/// Why a call fails.
#[derive(Debug)]
pub(super) enum Failure {
    /// An argument (by number) does not have this Go type.
    Argument(usize, &'static str),
    /// The function itself cannot answer.
    Call(String),
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::Call(message)
    }
}

/// Calls a function whose number of arguments has been checked.
pub(super) fn call<'a>(name: &str, args: &[Val<'a>]) -> Result<Val<'a>, Failure> {
    let arg = |i: usize| args.get(i).unwrap_or(&Val::Absent);
    let rest = args.get(1..).unwrap_or_default();
    Ok(match name {
        "eq" => Val::Bool(compare::equal(arg(0), rest)?),
        "ne" => Val::Bool(!compare::equal(arg(0), rest)?),
        "lt" => Val::Bool(compare::order(arg(0), arg(1))?.is_lt()),
        "le" => Val::Bool(compare::order(arg(0), arg(1))?.is_le()),
        "gt" => Val::Bool(compare::order(arg(0), arg(1))?.is_gt()),
        "ge" => Val::Bool(compare::order(arg(0), arg(1))?.is_ge()),
        "not" => Val::Bool(!arg(0).truth()),
        "len" => Val::Int(length(arg(0))?),
        "index" => index(arg(0), rest)?,
        "slice" => slice(arg(0), rest)?,
        "print" => owned(print::print(args))?,
        "println" => owned(print::println(args))?,
        "printf" => owned(print::printf(text(args, 0)?, rest, MAX_STRING))?,
        "json" => owned(arg(0).to_json().to_string())?,
        "lower" => owned(text(args, 0)?.to_lowercase())?,
        "upper" => owned(text(args, 0)?.to_uppercase())?,
        "title" => owned(title(text(args, 0)?))?,
        "split" => Val::Strings(split(text(args, 0)?, text(args, 1)?)),
        "join" => owned(join(args)?)?,
        "pad" => owned(pad(text(args, 0)?, number(args, 1)?, number(args, 2)?)?)?,
        "truncate" => truncate(args)?,
        name => return Err(Failure::Call(format!("{name:?} is not a defined function"))),
    })
}

fn owned<'a>(text: String) -> Result<Val<'a>, Failure> {
    if text.len() > MAX_STRING {
        return Err(Failure::Call(format!("string longer than {MAX_STRING} bytes")));
    }
    Ok(Val::Str(Cow::Owned(text)))
}

fn text<'v>(args: &'v [Val<'_>], i: usize) -> Result<&'v str, Failure> {
    match args.get(i) {
        Some(Val::Str(s)) => Ok(s),
        _ => Err(Failure::Argument(i, "string")),
    }
}

fn number(args: &[Val<'_>], i: usize) -> Result<i128, Failure> {
    match args.get(i) {
        Some(Val::Int(n)) => Ok(*n),
        _ => Err(Failure::Argument(i, "int")),
    }
}

fn length(value: &Val<'_>) -> Result<i128, String> {
    let length = match value {
        Val::Str(s) => s.len(),
        Val::List(list) => list.len(),
        Val::Strings(list) => list.len(),
        Val::Map(map) => map.len(),
        Val::Absent | Val::Nil => return Err("len of nil pointer".to_owned()),
        value => return Err(format!("len of type {}", value.type_name())),
    };
    i128::try_from(length).map_err(|e| e.to_string())
}

/// A position in a list or string of `length` elements, at most `max`.
fn position(index: &Val<'_>, max: usize) -> Result<usize, String> {
    match index {
        Val::Int(n) => match usize::try_from(*n) {
            Ok(i) if i <= max => Ok(i),
            _ => Err(format!("index out of range: {n}")),
        },
        Val::Absent | Val::Nil => Err("cannot index slice/array with nil".to_owned()),
        value => Err(format!("cannot index slice/array with type {}", value.type_name())),
    }
}

/// An element of a list of `length` elements.
fn element(index: &Val<'_>, length: usize) -> Result<usize, String> {
    match position(index, length)? {
        i if i < length => Ok(i),
        i => Err(format!("index out of range: {i}")),
    }
}

/// `index x 1 "k"` is `x[1]["k"]`.
fn index<'a>(item: &Val<'a>, indexes: &[Val<'a>]) -> Result<Val<'a>, String> {
    if matches!(item, Val::Absent | Val::Nil) {
        return Err("index of untyped nil".to_owned());
    }
    let mut item = item.clone();
    for index in indexes {
        item = match (&item, index) {
            (Val::Map(map), Val::Str(key)) => map.get(key.as_ref()).map_or(Val::Nil, Val::from),
            (Val::Map(_), Val::Absent | Val::Nil) => {
                return Err("value is nil; should be of type string".to_owned());
            }
            (Val::Map(_), key) => {
                return Err(format!("value has type {}; should be string", key.type_name()));
            }
            (Val::List(list), index) => list.get(element(index, list.len())?).map_or(Val::Absent, Val::from),
            (Val::Strings(list), index) => {
                list.get(element(index, list.len())?).map_or(Val::Absent, |s| Val::Str(s.clone().into()))
            }
            (Val::Str(s), index) => {
                s.as_bytes().get(element(index, s.len())?).map_or(Val::Absent, |b| Val::Int((*b).into()))
            }
            (Val::Absent | Val::Nil, _) => return Err("index of nil pointer".to_owned()),
            (item, _) => return Err(format!("can't index item of type {}", item.type_name())),
        };
    }
    Ok(item)
}

/// `slice x 1 3` is `x[1:3]`.
fn slice<'a>(item: &Val<'a>, indexes: &[Val<'a>]) -> Result<Val<'a>, String> {
    let length = match item {
        Val::Str(_) if indexes.len() == 3 => return Err("cannot 3-index slice a string".to_owned()),
        Val::Str(s) => s.len(),
        Val::List(list) => list.len(),
        Val::Strings(list) => list.len(),
        Val::Absent | Val::Nil => return Err("slice of untyped nil".to_owned()),
        item => return Err(format!("can't slice item of type {}", item.type_name())),
    };
    if indexes.len() > 3 {
        return Err(format!("too many slice indexes: {}", indexes.len()));
    }
    let bound = |i: usize, default| indexes.get(i).map_or(Ok(default), |index| position(index, length));
    let (start, end) = (bound(0, 0)?, bound(1, length)?);
    let capacity = bound(2, length)?;
    for (low, high) in [(start, end), (end, capacity)] {
        if low > high {
            return Err(format!("invalid slice index: {low} > {high}"));
        }
    }
    Ok(match item {
        Val::List(list) => Val::List(list.get(start..end).unwrap_or_default()),
        Val::Strings(list) => Val::Strings(Rc::from(list.get(start..end).unwrap_or_default())),
        Val::Str(s) => {
            let bytes = s.as_bytes().get(start..end).unwrap_or_default();
            Val::Str(Cow::Owned(String::from_utf8_lossy(bytes).into_owned()))
        }
        _ => Val::Absent,
    })
}

/// An upper case letter at the start of each word.
fn title(s: &str) -> String {
    let mut inside = false;
    s.chars()
        .flat_map(|c| {
            let first = !inside;
            inside = if c.is_ascii() { c == '_' || c.is_ascii_alphanumeric() } else { !c.is_whitespace() };
            let mut upper = c.to_uppercase();
            match (first, upper.next(), upper.next()) {
                (true, Some(one), None) => one,
                _ => c,
            }
            .to_string()
            .chars()
            .collect::<Vec<_>>()
        })
        .collect()
}

fn split(s: &str, separator: &str) -> Rc<[String]> {
    match separator {
        "" => s.chars().map(String::from).collect(),
        _ => s.split(separator).map(str::to_owned).collect(),
    }
}

fn join(args: &[Val<'_>]) -> Result<String, Failure> {
    let separator = text(args, 1)?;
    let Some(elements) = args.first().and_then(Val::elements) else {
        return match args.first() {
            // Go's nil slice of strings.
            Some(Val::Absent | Val::Nil) => Ok(String::new()),
            _ => Err(Failure::Argument(0, "[]string")),
        };
    };
    let mut out = String::new();
    for (i, element) in elements.iter().enumerate() {
        let Val::Str(element) = element else { return Err(Failure::Argument(0, "[]string")) };
        if i > 0 {
            out.push_str(separator);
        }
        out.push_str(element);
        if out.len() > MAX_STRING {
            break;
        }
    }
    Ok(out)
}

/// Spaces before and after, unless there is nothing between them.
fn pad(s: &str, before: i128, after: i128) -> Result<String, String> {
    if s.is_empty() {
        return Ok(String::new());
    }
    let spaces = |n: i128| match usize::try_from(n) {
        Ok(n) if n <= MAX_STRING => Ok(" ".repeat(n)),
        _ => Err(format!("cannot pad by {n}")),
    };
    Ok(format!("{}{s}{}", spaces(before)?, spaces(after)?))
}

/// At most so many characters. (Docker counts bytes and can cut a character in two.)
fn truncate<'a>(args: &[Val<'a>]) -> Result<Val<'a>, Failure> {
    let (s, length) = (text(args, 0)?, number(args, 1)?);
    let length = usize::try_from(length).map_err(|_| format!("cannot truncate to {length}"))?;
    let end = s.char_indices().nth(length).map_or(s.len(), |(at, _)| at);
    owned(s[..end].to_owned())
}
