//! The fuzz target: valid components whose types contradict each other, linked. An error or a component, never a panic:
//! what the composing library cannot do ends the process.

use super::{Part, compose};

/// What an instance of a hostile component may have: items under names that other components use otherwise.
const ITEMS: [&str; 22] = [
    r#"(export "a" (func))"#,
    r#"(export "a" (func (param "x" u32) (result string)))"#,
    r#"(export "a" (func async (param "x" (stream u8)) (result (future))))"#,
    r#"(export "a" (type (sub resource)))"#,
    r#"(export "a" (instance (export "b" (func))))"#,
    r#"(export "a" (instance))"#,
    r#"(export "a" (instance (export "r" (type (sub resource)))))"#,
    r#"(export "a" (component (import "x" (func)) (export "y" (func))))"#,
    r#"(export "a" (core module (import "m" "f" (func)) (export "g" (memory 1))))"#,
    r#"(type $t (record (field "f" u32))) (export "a" (type (eq $t)))"#,
    r#"(type $t (record (field "f" string))) (export "a" (type (eq $t)))"#,
    r#"(type $t (enum "one" "two")) (export "a" (type $u (eq $t))) (export "c" (func (param "x" $u)))"#,
    r#"(export "a" (type $r (sub resource))) (export "c" (func (param "x" (own $r)) (result (own $r))))"#,
    r#"(export "a" (type $r (sub resource))) (export "d" (type (eq $r)))"#,
    r#"(export "a" (type $r (sub resource))) (export "[method]a.m" (func (param "self" (borrow $r))))"#,
    r#"(export "a" (type $r (sub resource))) (export "[constructor]a" (func (result (own $r))))"#,
    r#"(export "b" (type $r (sub resource))) (export "a" (type (eq $r))) (export "c" (func (result (own $r))))"#,
    r#"(type $t (variant (case "x" (list u8)) (case "y"))) (export "a" (type $u (eq $t))) (type $l (list $u)) (export "b" (type (eq $l)))"#,
    r#"(type $f (func)) (export "a" (type (eq $f)))"#,
    r#"(type $i (instance (export "z" (func)))) (export "a" (type (eq $i)))"#,
    r#"(type $w (component (import "z" (func)))) (export "a" (type (eq $w)))"#,
    "",
];

const NAMES: [&str; 7] = [
    "wasi:io/error@0.2.0",
    "wasi:io/error@0.2.3",
    "wasi:io/streams@0.2.3",
    "wasi:cli/environment@0.3.0",
    "app:a/x@1.0.0",
    "app:a/x@1.2.0",
    "plain",
];

/// Choices by bytes; the first ones without end when there are no more.
struct Choices<'a>(std::iter::Copied<std::slice::Iter<'a, u8>>);

impl Choices<'_> {
    fn next(&mut self, below: usize) -> usize {
        usize::from(self.0.next().unwrap_or(0)) % below
    }
}

/// Links components that are made as `data` says. Whether that went well.
///
/// # Panics
/// When the result is no component: and whenever the composing library does.
pub(crate) fn fuzz_compose(data: &[u8]) -> bool {
    let mut choices = Choices(data.iter().copied());
    let mut parts = Vec::new();
    for number in 0..1 + choices.next(3) {
        // Not every combination is valid; those that are not would be refused before anything is linked.
        if let Ok(bytes) = wat::parse_str(component(&mut choices)) {
            parts.push(Part { shown: number.to_string(), bytes });
        }
    }
    if parts.is_empty() {
        return false;
    }
    match compose(parts) {
        Ok(bytes) => {
            // Whether it is valid, the compiler says; here it must only have an end.
            assert!(bytes.starts_with(b"\0asm\x0d\0\x01\0"), "no component");
            true
        }
        Err(_) => false,
    }
}

fn component(choices: &mut Choices<'_>) -> String {
    let mut text = String::from("(component ");
    let first = choices.next(NAMES.len());
    let name = |number: usize| NAMES[number % NAMES.len()];
    for step in 0..choices.next(4) {
        let item = ITEMS[choices.next(ITEMS.len())];
        text += &format!("(import \"{}\" (instance $i{step} {item})) ", name(first + step));
        // What one imports another may have from it.
        if choices.next(3) == 0 {
            text += &format!("(export \"{}\" (instance $i{step})) ", name(choices.next(NAMES.len())));
        }
        // A type of one interface in another.
        if choices.next(4) == 0 && item.contains("export \"a\" (type") {
            let other = name(first + step + 3);
            text += &format!("(alias export $i{step} \"a\" (type $a{step})) ");
            text += &format!("(import \"{other}\" (instance (export \"k\" (type (eq $a{step}))))) ");
        }
    }
    text.push(')');
    text
}
