//! Bytes that are no good program, through everything that reads them: recognising, listing of imports, compiling. An
//! error in one line or code, never a panic. The seeds are changed the same way at each run.

use super::compose::{Part, compose};
use super::engine::{Flavor, compile};
use super::imports::interface;
use super::module::{Form, form};

/// What a loader does with bytes. Whether they are a program in the end.
fn load(engine: &wasmtime::Engine, bytes: &[u8]) -> bool {
    let shown = |error: crate::Error| {
        let text = error.to_string();
        assert!(text.starts_with("x: ") && !text.contains('\0'), "{text}");
    };
    if let Err(error) = interface("x", bytes) {
        shown(error);
    }
    match form("x", bytes) {
        Err(error) => {
            shown(error);
            false
        }
        Ok(Form::Module) => engine.precompile_module(bytes).is_ok(),
        Ok(Form::Component) => engine.precompile_component(bytes).is_ok(),
    }
}

fn seeds() -> Vec<Vec<u8>> {
    [
        r#"(module (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1) (table 3 funcref) (elem (i32.const 0) 1) (data (i32.const 8) "text")
            (func (export "_start") (drop (call 0 (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 0)))))"#,
        r#"(component
            (import "wasi:io/error@0.2.0" (instance $error (export "error" (type (sub resource)))))
            (alias export $error "error" (type $e))
            (type $r (record (field "a" u32) (field "b" (list string)) (field "c" (option (own $e)))))
            (core module $m (memory (export "m") 1) (func (export "run") (result i32) i32.const 0))
            (core instance $i (instantiate $m))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (component $inner (import "f" (func $f (result (result)))) (export "g" (func $f)))
            (instance $inner (instantiate $inner (with "f" (func $run))))
            (instance $c (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $c)))"#,
        r#"(component
            (type $s (stream u8)) (type $f (future (result (error string))))
            (import "a:b/c@1.0.0" (instance (export "f" (func async (param "s" (stream u8))))))
            (core func (canon stream.new $s)) (core func (canon future.new $f)))"#,
    ]
    .iter()
    .map(|text| wat::parse_str(text).expect("text"))
    .collect()
}

#[test]
fn changed_and_cut_programs_do_no_harm() {
    let engine = compile(Flavor::default()).expect("an engine");
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % below as u64).expect("small")
    };
    for seed in seeds() {
        assert!(load(&engine, &seed), "the seed itself is a program");
        for length in 0..seed.len() {
            load(&engine, &seed[..length]);
        }
        for _ in 0..1500 {
            let mut bytes = seed.clone();
            for _ in 0..1 + next(4) {
                let at = next(bytes.len());
                match next(4) {
                    0 => bytes.insert(at, u8::try_from(next(256)).expect("a byte")),
                    1 => drop(bytes.remove(at)),
                    2 => bytes[at] ^= 1 << next(8),
                    _ => bytes[at] = [0, 0x7f, 0x80, 0xff][next(4)],
                }
            }
            load(&engine, &bytes);
        }
    }
}

/// An unsigned number in LEB128.
fn number(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7f).expect("seven bits");
        value >>= 7;
        bytes.push(if value == 0 { low } else { low | 0x80 });
        if value == 0 {
            return bytes;
        }
    }
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id][..], &number(content.len()), content].concat()
}

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

#[test]
fn monstrous_components_are_refused() {
    let engine = compile(Flavor::default()).expect("an engine");
    // Components in components, far deeper than anybody would.
    let mut nested = COMPONENT.to_vec();
    for _ in 0..5000 {
        nested = [COMPONENT, &section(4, &nested)].concat();
    }
    // Lists of lists of lists; a tuple of the same size doubled again and again.
    let deep = (0..5000_usize).map(|at| match at {
        0 => vec![0x7d],
        at => [&[0x70][..], &number(at - 1)].concat(),
    });
    let deep: Vec<u8> = std::iter::once(number(5000)).chain(deep).flatten().collect();
    let wide = (0..60_usize).map(|at| match at {
        0 => vec![0x7d],
        at => [&[0x6f, 2][..], &number(at - 1), &number(at - 1)].concat(),
    });
    let wide: Vec<u8> = std::iter::once(number(60)).chain(wide).flatten().collect();
    // A count that promises more than there is, and an instance of itself.
    let promising = section(7, &number(0xffff_ffff));
    let cyclic = section(5, &[1, 0, 0, 1, 1, b'a', 0x05, 0]);
    // That alone is valid, and nothing here goes down into it by recursion.
    load(&engine, &nested);
    drop(compose(vec![Part { shown: "x".to_owned(), bytes: nested }]));
    for (name, bytes) in [
        ("deep", [COMPONENT, &section(7, &deep)].concat()),
        ("wide", [COMPONENT, &section(7, &wide)].concat()),
        ("promising", [COMPONENT, &promising].concat()),
        ("cyclic", [COMPONENT, &cyclic].concat()),
        ("cut", [COMPONENT, &[4, 0xff, 0xff, 0xff, 0xff, 0x0f]].concat()),
    ] {
        assert!(!load(&engine, &bytes), "{name}");
        compose(vec![Part { shown: "x".to_owned(), bytes }]).expect_err(name);
    }
}
