//! Calling one function of a program instead of its main one: `dhow run --invoke NAME`, or `PATH#NAME` as an image's
//! entry point, as runwasi has it. Here is what core modules and components share, then a core function's arguments
//! and results, which are read and printed as wasmtime's command does.

use wasmtime::{FuncType, Module, Val, ValType};

use crate::error::{Error, Result};

/// Names in a message about what there is.
const SHOWN: usize = 16;

/// What of a program is run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Entry {
    /// What its kind has for that: `_start`, `wasi:cli/run`.
    #[default]
    Main,
    /// An export by its name.
    Function(String),
}

impl Entry {
    /// What was asked for by name, or the main one.
    pub(super) fn new(function: Option<String>) -> Self {
        function.map_or(Self::Main, Self::Function)
    }
}

/// `PATH#NAME` in its two parts.
pub(super) fn split(command: &str) -> Option<(&str, &str)> {
    command.rsplit_once('#').filter(|(path, name)| !path.is_empty() && !name.is_empty())
}

/// Why `function` of the program `shown` cannot be called.
pub(super) fn refused(shown: &str, function: &str, reason: impl Into<String>) -> Error {
    Error::CannotInvoke { path: shown.to_owned(), function: function.to_owned(), reason: reason.into() }
}

/// Names for a message: `nothing`, or the first ones.
pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names: Vec<_> = names.into_iter().take(SHOWN + 1).collect();
    if names.len() > SHOWN {
        names[SHOWN] = "...";
    }
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// The type of a core module's function.
///
/// # Errors
/// [`Error::CannotInvoke`] with the functions there are.
pub(super) fn function_type(module: &Module, shown: &str, function: &str) -> Result<FuncType> {
    if let Some(ty) = module.get_export(function).and_then(|export| export.func().cloned()) {
        return Ok(ty);
    }
    let functions = module.exports().filter(|export| export.ty().func().is_some());
    let has = listed(functions.map(|export| export.name()));
    Err(refused(shown, function, format!("it exports no such function, but {has}")))
}

/// A core function's arguments: decimal, hexadecimal after `0x`, or floating-point numbers. More than it takes are the
/// program's to read, as its command line.
///
/// # Errors
/// [`Error::CannotInvoke`] for a missing or wrong one.
pub(super) fn arguments(shown: &str, function: &str, ty: &FuncType, args: &[String]) -> Result<Vec<Val>> {
    let mut values = Vec::with_capacity(ty.params().len());
    for (index, param) in ty.params().enumerate() {
        let Some(text) = args.get(index) else {
            return Err(refused(shown, function, format!("too few arguments, it takes ({})", types(ty))));
        };
        let value = match &param {
            ValType::I32 => {
                integer(text, i32::from_str_radix, u32::from_str_radix, u32::cast_signed).map(Val::I32)
            }
            ValType::I64 => {
                integer(text, i64::from_str_radix, u64::from_str_radix, u64::cast_signed).map(Val::I64)
            }
            ValType::F32 => text.parse().ok().map(|value: f32| Val::F32(value.to_bits())),
            ValType::F64 => text.parse().ok().map(|value: f64| Val::F64(value.to_bits())),
            other => {
                return Err(refused(
                    shown,
                    function,
                    format!("its {other} cannot be given on a command line"),
                ));
            }
        };
        values.push(value.ok_or_else(|| refused(shown, function, format!("{text:?} is no {param}")))?);
    }
    Ok(values)
}

/// A signed number, or an unsigned one of the same width.
fn integer<S, U, E>(
    text: &str,
    signed: impl Fn(&str, u32) -> std::result::Result<S, E>,
    unsigned: impl Fn(&str, u32) -> std::result::Result<U, E>,
    cast: impl Fn(U) -> S,
) -> Option<S> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    signed(digits, radix).ok().or_else(|| unsigned(digits, radix).ok().map(cast))
}

fn types(ty: &FuncType) -> String {
    ty.params().map(|param| param.to_string()).collect::<Vec<_>>().join(", ")
}

/// Results, one a line.
pub(super) fn lines(results: &[Val]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for result in results {
        // Writing to a string cannot fail.
        let _ = match result {
            Val::I32(value) => writeln!(text, "{value}"),
            Val::I64(value) => writeln!(text, "{value}"),
            Val::F32(bits) => writeln!(text, "{}", f32::from_bits(*bits)),
            Val::F64(bits) => writeln!(text, "{}", f64::from_bits(*bits)),
            Val::V128(value) => writeln!(text, "{}", value.as_u128()),
            Val::FuncRef(None) => writeln!(text, "<null funcref>"),
            Val::FuncRef(Some(_)) => writeln!(text, "<funcref>"),
            Val::ExternRef(None) => writeln!(text, "<null externref>"),
            _ => writeln!(text, "<reference>"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let i32 = |text| integer(text, i32::from_str_radix, u32::from_str_radix, u32::cast_signed);
        for (text, value) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("4294967295", Some(-1)),
            ("0xff", Some(255)),
            ("0XFFFFFFFF", Some(-1)),
            ("2147483647", Some(i32::MAX)),
            ("-2147483648", Some(i32::MIN)),
            ("4294967296", None),
            ("-2147483649", None),
            ("", None),
            ("0x", None),
            ("1.5", None),
            (" 1", None),
            ("one", None),
        ] {
            assert_eq!(i32(text), value, "{text:?}");
        }
    }

    #[test]
    fn functions_in_entry_points() {
        assert_eq!(split("/app.wasm#run"), Some(("/app.wasm", "run")));
        assert_eq!(split("/a#b.wasm#run"), Some(("/a#b.wasm", "run")));
        for none in ["/app.wasm", "/app.wasm#", "#run", "#", ""] {
            assert_eq!(split(none), None, "{none}");
        }
    }

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(listed([]), "nothing");
        assert_eq!(listed(["a", "b"]), "a, b");
        let many: Vec<_> = (0..99).map(|number: i32| number.to_string()).collect();
        let text = listed(many.iter().map(String::as_str));
        assert!(text.ends_with("15, ...") && text.len() < 80, "{text}");
    }
}
