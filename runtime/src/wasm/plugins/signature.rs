//! Types of functions in words, read again: `func(name: string, list<u8>) -> result<u32, string>`, as WIT writes them with what has
//! a name elsewhere written in place, and as [`super::values`] prints them. By that a plugin in another process says what
//! it has. What it says is hostile: bounded in length, depth and number.

use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::{ComponentFunc, ComponentItem};

use super::{Error, Function};

/// The most functions that one plugin has.
const FUNCTIONS: usize = 1000;
/// The longest type in words.
const LONGEST: usize = 32 << 10;
/// As deep as types are nested.
const DEEPEST: usize = 32;

/// Types as a component has them, in the order of `functions`.
///
/// # Errors
/// [`Error::Incompatible`] for what is no type.
pub(super) fn types(functions: &[Function]) -> Result<Vec<ComponentFunc>, Error> {
    let text = component(functions)?;
    let engine = Engine::default();
    let made = Component::new(&engine, text).map_err(|error| Error::Incompatible {
        what: "the plugin's functions".to_owned(),
        expected: "types of WIT".to_owned(),
        found: error.root_cause().to_string(),
    })?;
    let made = made.component_type();
    let imports = made.imports(&engine).filter_map(|(_, item)| match item.ty {
        ComponentItem::ComponentFunc(function) => Some(function),
        _ => None,
    });
    Ok(imports.collect())
}

/// Whether all these are types, without making any.
///
/// # Errors
/// As [`types`].
pub(super) fn check(functions: &[Function]) -> Result<(), Error> {
    component(functions).map(drop)
}

/// A component that imports functions of these types.
fn component(functions: &[Function]) -> Result<String, Error> {
    let wrong = |what: &str, expected: &str, found: String| Error::Incompatible {
        what: what.chars().take(200).collect(),
        expected: expected.to_owned(),
        found,
    };
    if functions.len() > FUNCTIONS {
        let found = format!("{} of them", functions.len());
        return Err(wrong("the plugin's functions", "no more than 1000", found));
    }
    let mut types = Types::default();
    for (number, Function { name, ty }) in functions.iter().enumerate() {
        let read = if ty.len() > LONGEST {
            Err(format!("{} bytes", ty.len()))
        } else {
            Reader { rest: ty, depth: 0 }.function(&mut types)
        };
        let function = read.map_err(|found| wrong(name, "a function's type as WIT writes it", found))?;
        types.text += &format!("(import \"f{number}\" (func {function}))\n");
    }
    Ok(format!("(component\n{})", types.text))
}

/// Types that have to have names, defined so far.
#[derive(Default)]
struct Types {
    text: String,
    count: usize,
}

impl Types {
    fn named(&mut self, ty: &str) -> String {
        let number = self.count;
        self.count += 1;
        self.text +=
            &format!("(type $a{number} {ty}) (import \"t{number}\" (type $t{number} (eq $a{number})))\n");
        format!("$t{number}")
    }
}

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
}

type Read<T> = Result<T, String>;

impl<'a> Reader<'a> {
    fn function(mut self, types: &mut Types) -> Read<String> {
        let waits = self.word() == Some("async");
        if waits {
            self.take("async");
        }
        self.need("func")?;
        self.need("(")?;
        let mut text = String::new();
        let mut number = 0;
        while !self.take(")") {
            number += 1;
            let (name, ty) = self.parameter(types)?;
            let name = name.map_or_else(|| format!("argument{number}"), str::to_owned);
            text += &format!("(param \"{name}\" {ty}) ");
            if !self.take(",") {
                self.need(")")?;
                break;
            }
        }
        if self.take("->") {
            text += &format!("(result {})", self.ty(types)?);
        }
        match self.rest.trim_start() {
            "" => Ok(text),
            _ => Err(self.found()),
        }
    }

    /// `name: type`, or a type alone.
    fn parameter(&mut self, types: &mut Types) -> Read<(Option<&'a str>, String)> {
        let before = self.rest;
        if let Ok(name) = self.name()
            && self.take(":")
        {
            return Ok((Some(name), self.ty(types)?));
        }
        self.rest = before;
        Ok((None, self.ty(types)?))
    }

    fn ty(&mut self, types: &mut Types) -> Read<String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err("types within types, too deep".to_owned());
        }
        let before = self.rest;
        let text = match self.name()? {
            name @ ("bool" | "s8" | "u8" | "s16" | "u16" | "s32" | "u32" | "s64" | "u64" | "f32" | "f64"
            | "char" | "string") => name.to_owned(),
            name @ ("list" | "option" | "tuple") => {
                let inner = self.angled(types)?;
                if inner.is_empty() || (name != "tuple" && inner.len() != 1) {
                    self.rest = before;
                    return Err(self.found());
                }
                format!("({name} {})", inner.join(" "))
            }
            "result" => {
                let inner = if self.ahead("<") { self.angled(types)? } else { Vec::new() };
                let part = |at: usize| inner.get(at).filter(|ty| *ty != "_");
                let ok = part(0).cloned().unwrap_or_default();
                let error = part(1).map(|ty| format!("(error {ty})")).unwrap_or_default();
                if inner.len() > 2 {
                    self.rest = before;
                    return Err(self.found());
                }
                format!("(result {ok} {error})")
            }
            "record" => {
                let fields = self.braced(|reader| {
                    let name = reader.name()?;
                    reader.need(":")?;
                    Ok(format!("(field \"{name}\" {})", reader.ty(types)?))
                })?;
                types.named(&format!("(record {})", fields.join(" ")))
            }
            "variant" => {
                let cases = self.braced(|reader| {
                    let name = reader.name()?;
                    if !reader.take("(") {
                        return Ok(format!("(case \"{name}\")"));
                    }
                    let ty = reader.ty(types)?;
                    reader.need(")")?;
                    Ok(format!("(case \"{name}\" {ty})"))
                })?;
                types.named(&format!("(variant {})", cases.join(" ")))
            }
            kind @ ("enum" | "flags") => {
                let names = self.braced(|reader| Ok(format!("\"{}\"", reader.name()?)))?;
                types.named(&format!("({kind} {})", names.join(" ")))
            }
            _ => {
                self.rest = before;
                return Err(self.found());
            }
        };
        self.depth -= 1;
        Ok(text)
    }

    /// `<a, b>`; `_` is itself.
    fn angled(&mut self, types: &mut Types) -> Read<Vec<String>> {
        self.need("<")?;
        let mut all = Vec::new();
        loop {
            all.push(if self.take("_") { "_".to_owned() } else { self.ty(types)? });
            if !self.take(",") {
                self.need(">")?;
                return Ok(all);
            }
        }
    }

    /// `{a, b}`, with or without a comma at the end.
    fn braced(&mut self, mut one: impl FnMut(&mut Self) -> Read<String>) -> Read<Vec<String>> {
        self.need("{")?;
        let mut all = Vec::new();
        while !self.take("}") {
            all.push(one(self)?);
            if !self.take(",") {
                self.need("}")?;
                break;
            }
        }
        Ok(all)
    }

    /// Letters, digits and `-`, which is all that names have: nothing else gets into the component's text.
    fn name(&mut self) -> Read<&'a str> {
        let word = self.word().ok_or_else(|| self.found())?;
        self.rest = &self.rest.trim_start()[word.len()..];
        // As WIT writes a name that is also one of its words.
        Ok(word.trim_start_matches('%'))
    }

    fn word(&self) -> Option<&'a str> {
        let rest = self.rest.trim_start();
        let inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let signs = usize::from(rest.starts_with('%'));
        let length = rest.bytes().skip(signs).take_while(|byte| inside(*byte)).count();
        // `->` begins as a name could.
        (length > 0 && !rest.starts_with('-')).then(|| &rest[..signs + length])
    }

    fn ahead(&self, sign: &str) -> bool {
        self.rest.trim_start().starts_with(sign)
    }

    fn take(&mut self, sign: &str) -> bool {
        let rest = self.rest.trim_start();
        match rest.strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn need(&mut self, sign: &str) -> Read<()> {
        if self.take(sign) { Ok(()) } else { Err(self.found()) }
    }

    fn found(&self) -> String {
        let rest: String = self.rest.trim_start().chars().take(40).collect();
        if rest.is_empty() { "its end".to_owned() } else { format!("`{rest}`") }
    }
}

#[cfg(test)]
mod tests {
    use super::super::values;
    use super::*;

    fn read(ty: &str) -> Result<ComponentFunc, Error> {
        let function = Function { name: "f".to_owned(), ty: ty.to_owned() };
        Ok(types(&[function])?.remove(0))
    }

    #[test]
    fn what_is_printed_is_read_again() {
        for ty in [
            "func()",
            "func(u32, u32) -> u32",
            "func(record {name: string, age: option<u8>}) -> result<string, string>",
            "func(list<list<u8>>, tuple<s8, f32, f64, char, bool>)",
            "func() -> result<_, u8>",
            "func() -> result<list<u8>, variant {none, some-text(string), other(record {x: u64})}>",
            "func(enum {red, green}, flags {read, write}) -> option<option<s64>>",
        ] {
            let again = values::function(&read(ty).unwrap_or_else(|error| panic!("{ty}: {error}")));
            assert_eq!(again.replace(", _>", ">"), ty.replace(", _>", ">"));
        }
        let named = read("func(who: string, %type: u8,) -> result").expect("as WIT has it");
        assert_eq!(named.params().map(|(name, _)| name.to_owned()).collect::<Vec<_>>(), ["who", "type"]);
        assert_eq!(
            read("func(u8) -> bool").expect("read").params().next().map(|(name, _)| name),
            Some("argument1")
        );
    }

    #[test]
    fn what_is_no_type_is_an_error() {
        let deep = format!("func({}u8{})", "list<".repeat(100), ">".repeat(100));
        let long = format!("func({})", "u8, ".repeat(20_000));
        for bad in [
            "",
            "func",
            "func(",
            "func)",
            "func(u9)",
            "func(u8",
            "func(u8) ->",
            "func() -> u8 u8",
            "list<u8>",
            "func(list<>)",
            "func(list<u8, u8>)",
            "func(option)",
            "func(result<u8, u8, u8>)",
            "func(tuple<>)",
            "func(record {})",
            "func(record {a u8})",
            "func(record {A_b: u8})",
            "func(variant {})",
            "func(enum {a, a})",
            "func(a: u8, a: u8)",
            "func(own<resource>)",
            "func(\"x\")",
            "func(x\") (import \"y)",
            "func(-: u8)",
            "func(list<_>)",
            "func(enum {é})",
            "func(stream<u8>)",
            &deep,
            &long,
        ] {
            assert!(matches!(read(bad), Err(Error::Incompatible { .. })), "{bad:.60}");
        }
        let many = vec![Function { name: "f".to_owned(), ty: "func()".to_owned() }; 1001];
        assert!(types(&many).is_err());
    }
}
