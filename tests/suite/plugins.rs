//! Plugins by the command: from files and from images, with what they are granted, and what is said when they fail.

use crate::support::{Host, Image, Tree};

/// Adds, greets, fails, loops, and asks for a random number.
const PLUGIN: &str = r#"(component
    (import "wasi:random/random@0.2.0" (instance $random (export "get-random-u64" (func (result u64)))))
    (core func $get (canon lower (func $random "get-random-u64")))
    (core module $m
        (import "h" "get" (func $get (result i64)))
        (memory (export "memory") 1)
        (data (i32.const 0) "hello")
        (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
        (func (export "greet") (result i32)
            (i32.store (i32.const 8) (i32.const 0)) (i32.store (i32.const 12) (i32.const 5)) (i32.const 8))
        (func $fail (export "fail") unreachable)
        (func (export "loop") (loop $again (br $again)))
        (func (export "roll") (result i64) (call $get)))
    (core instance $h (export "get" (func $get)))
    (core instance $i (instantiate $m (with "h" (instance $h))))
    (alias core export $i "memory" (core memory $memory))
    (func $add (param "a" u32) (param "b" u32) (result u32) (canon lift (core func $i "add")))
    (instance $sums (export "add" (func $add)))
    (export "acme:math/sums@1.0.0" (instance $sums))
    (func (export "greet") (result string) (canon lift (core func $i "greet") (memory $memory)))
    (func (export "fail") (canon lift (core func $i "fail")))
    (func (export "loop") (canon lift (core func $i "loop")))
    (func (export "roll") (result u64) (canon lift (core func $i "roll"))))"#;

#[test]
fn functions_of_files_and_images_are_called() {
    let code = wat::parse_str(PLUGIN).unwrap();
    let image = Image::wasm().layer(Tree::new().file("p.wasm", 0o644, code.clone())).entrypoint(&["/p.wasm"]);
    let host = Host::with(&[("acme/plugin:1", image)]);
    host.file("p.wasm", code);
    host.file("p.wat", PLUGIN);
    for plugin in ["./p.wasm", "./p.wat", "acme/plugin:1"] {
        let call = |args: &[&str]| host.dhow([&["plugin", "call", plugin], args].concat());
        assert_eq!(call(&["add", "2", "40"]).ok(), "42\n", "{plugin}");
        assert_eq!(call(&["acme:math/sums@1.0.0#add", "1", "1"]).ok(), "2\n");
        assert_eq!(call(&["greet"]).ok(), "\"hello\"\n");
    }
    let told = host.dhow(["plugin", "inspect", "acme/plugin:1"]).ok();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let functions = told[0]["Functions"].as_array().unwrap();
    let add = serde_json::json!({ "Name": "acme:math/sums@1.0.0#add", "Type": "func(u32, u32) -> u32" });
    assert!(functions.contains(&add), "{told}");
}

#[test]
fn what_goes_wrong_is_said() {
    let host = Host::new();
    host.file("p.wat", PLUGIN);
    host.file("module.wat", "(module)");
    let call = |args: &[&str]| {
        let outcome = host.dhow([&["plugin", "call", "--timeout", "100ms"], args].concat()).outcome();
        assert_eq!(outcome.code, 1, "{args:?}");
        outcome.stderr
    };
    for (args, said) in [
        (&["./p.wat", "sub"][..], "there are acme:math/sums@1.0.0#add, greet"),
        (&["./p.wat", "add", "2"], "expected func(u32, u32) -> u32"),
        (&["./p.wat", "add", "2", "x"], "expected func(u32, u32) -> u32"),
        (&["./p.wat", "fail"], "!fail@0x"),
        (&["./p.wat", "loop"], "no answer within 100ms"),
        (&["--fuel", "1000", "./p.wat", "loop"], "more instructions needed than 1000"),
        (&["./p.wat", "roll"], "hint: grant it with `--random`"),
        (&["./module.wat", "f"], "a plugin is a component"),
        (&["./none.wasm", "f"], "none.wasm"),
        (&["acme/none", "f"], "acme/none"),
    ] {
        let stderr = call(args);
        assert!(stderr.contains(said) && stderr.starts_with("error: "), "{args:?}: {stderr}");
    }
    assert_ne!(host.dhow(["plugin", "call", "--random", "./p.wat", "roll"]).ok(), "");
}
