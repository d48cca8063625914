//! Components in text, linked and looked into.

use super::*;
use crate::wasm::imports::interface;

fn part(shown: &str, text: &str) -> Part {
    Part { shown: shown.to_owned(), bytes: wat::parse_str(text).expect("text") }
}

/// A component that imports `import` and exports a function of its own that calls it, as `export`.
fn middle(import: &str, export: &str) -> String {
    format!(
        r#"(component
            (import "{import}" (instance $in (export "f" (func (result u32)))))
            (core func $f (canon lower (func $in "f")))
            (core module $m
                (import "in" "f" (func $f (result i32)))
                (func (export "f") (result i32) (i32.add (call $f) (i32.const 1))))
            (core instance $i (instantiate $m (with "in" (instance (export "f" (func $f))))))
            (func $out (result u32) (canon lift (core func $i "f")))
            (instance $e (export "f" (func $out)))
            (export "{export}" (instance $e)))"#
    )
}

/// A component that imports nothing and exports `f` in `export`.
fn leaf(export: &str) -> String {
    format!(
        r#"(component
            (core module $m (func (export "f") (result i32) (i32.const 40)))
            (core instance $i (instantiate $m))
            (func $out (result u32) (canon lift (core func $i "f")))
            (instance $e (export "f" (func $out)))
            (export "{export}" (instance $e)))"#
    )
}

fn refused(parts: Vec<Part>, words: &[&str]) {
    let error = compose(parts).expect_err("refused").to_string();
    for word in words {
        assert!(error.contains(word), "{word}: {error}");
    }
    assert!(!error.contains('\n'), "{error}");
}

#[test]
fn what_one_exports_the_other_imports() {
    let parts = vec![
        part("app.wasm", &middle("app:a/x@1.0.0", "app:main/run")),
        part("unused.wasm", &leaf("app:c/z")),
        part("a.wasm", &middle("app:b/y@0.2.1", "app:a/x@1.2.0")),
        part("b.wasm", &leaf("app:b/y@0.2.7")),
    ];
    let composed = compose(parts).expect("linked");
    let found = interface("composed", &composed).expect("an interface");
    assert_eq!((found.imports, found.exports), (Vec::new(), vec!["app:main/run".to_owned()]));
    let engine = crate::wasm::engine::compile(crate::wasm::engine::Flavor::default()).expect("an engine");
    let component = wasmtime::component::Component::new(&engine, &composed).expect("valid");
    let linker = wasmtime::component::Linker::<()>::new(&engine);
    let mut store = wasmtime::Store::new(&engine, ());
    let instance = linker.instantiate(&mut store, &component).expect("an instance");
    let (_, export) = instance.get_export(&mut store, None, "app:main/run").expect("exported");
    let (_, function) = instance.get_export(&mut store, Some(&export), "f").expect("a function");
    let function = instance.get_typed_func::<(), (u32,)>(&mut store, &function).expect("its type");
    assert_eq!(function.call(&mut store, ()).expect("called"), (42,));
}

#[test]
fn what_the_host_has_stays_an_import_unless_a_component_has_it() {
    let host = "wasi:random/insecure-seed@0.2.3";
    let program = || part("app.wasm", &middle(host, "app:main/run"));
    let alone = interface("x", &compose(vec![program()]).expect("linked")).expect("an interface");
    assert_eq!(alone.imports.iter().map(|import| import.name.as_str()).collect::<Vec<_>>(), [host]);
    let stand_in = vec![program(), part("fake.wasm", &leaf("wasi:random/insecure-seed@0.2.0"))];
    assert!(interface("x", &compose(stand_in).expect("linked")).expect("an interface").imports.is_empty());
}

#[test]
fn what_cannot_be_linked() {
    let program = || part("app.wasm", &middle("app:a/x@1.0.0", "app:main/run"));
    refused(vec![program()], &["app.wasm: imports app:a/x@1.0.0, which neither WASI nor"]);
    let others = vec![program(), part("b.wasm", &leaf("app:a/x@2.0.0"))];
    refused(others, &["app.wasm: imports app:a/x@1.0.0", "(b.wasm exports app:a/x@2.0.0)"]);
    let circle = vec![program(), part("a.wasm", &middle("app:main/run", "app:a/x@1.0.0"))];
    refused(circle, &["in a circle: app.wasm, a.wasm"]);
    let other_type = r#"(component (import "app:a/x@1.0.0" (instance (export "f" (func (result string))))))"#;
    let mismatch = vec![part("app.wasm", other_type), part("a.wasm", &leaf("app:a/x@1.0.0"))];
    refused(mismatch, &["app.wasm: imports app:a/x@1.0.0, which a.wasm exports with another type"]);
    refused(vec![program(), part("m.wasm", "(module)")], &["m.wasm: a core module"]);
    let module = r#"(component (import "m" (core module)))"#;
    refused(vec![part("app.wasm", module)], &["app.wasm: cannot be linked: m is neither"]);
    let cut = Part { shown: "cut.wasm".to_owned(), bytes: b"\0asm\x0d\0\x01\0\x01".to_vec() };
    refused(vec![cut], &["cut.wasm: "]);
    let many = (0..=PARTS).map(|_| part("many.wasm", "(component)")).collect();
    refused(many, &["many.wasm: a program of 65 components"]);
}

/// Bytes of valid components, changed here and there: an error or a component, never a panic.
#[test]
fn changed_bytes_do_no_harm() {
    let seeds = [middle("app:a/x@1.0.0", "app:main/run"), leaf("app:a/x@1.1.0")];
    let seeds: Vec<Vec<u8>> = seeds.iter().map(|text| wat::parse_str(text).expect("text")).collect();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % below as u64).expect("small")
    };
    for _ in 0..4000 {
        let mut parts = Vec::new();
        for (shown, seed) in ["a", "b"].iter().zip(&seeds) {
            let mut bytes = seed.clone();
            for _ in 0..next(3) {
                let at = next(bytes.len());
                bytes[at] = u8::try_from(next(256)).expect("a byte");
            }
            parts.push(Part { shown: (*shown).to_owned(), bytes });
        }
        drop(compose(parts));
    }
}

/// Valid components whose types contradict each other in every way: an error or a valid component, never a panic.
#[test]
fn types_that_contradict_each_other_do_no_harm() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let rounds = if std::env::var_os("DHOW_TEST_EXHAUSTIVE").is_some() { 200_000 } else { 3000 };
    let mut linked = 0;
    for _ in 0..rounds {
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random.to_le_bytes()[5]
        })
        .take(64)
        .collect();
        linked += u32::from(fuzz::fuzz_compose(&bytes));
    }
    assert!(linked > rounds / 100, "{linked} of {rounds} linked");
    fuzz::fuzz_compose(b"");
}
