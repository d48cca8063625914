//! The fuzz target: a plugin whose memory is whatever the bytes say, and whose answers are read from there; and texts read as
//! values, as frames and as types.

use std::sync::OnceLock;
use std::time::Duration;

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Type};

use super::{
    CallOptions, Config, Error, Function, Host, Limits, Plugin, Pool, Source, core, json, signature, values,
    wire,
};

/// Types of answers. What has to have a name of its own is there as `$p`, `$v`, `$e`, `$f`.
const TYPES: [&str; 8] = [
    "(list string)",
    "(list $p)",
    "(result (list u8) (error string))",
    "(list (option (list u16)))",
    "(tuple char float32 $f)",
    "(list $v)",
    "(list (tuple $e bool s64))",
    "(option (result string))",
];

fn text() -> String {
    let mut text = r#"(component
        (core module $m
            (memory (export "memory") 1)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 16))
            (func (export "set") (param i32 i32))
            (func (export "get") (result i32) (i32.const 16)))
        (core instance $i (instantiate $m))
        (alias core export $i "memory" (core memory $memory))
        (alias core export $i "realloc" (core func $realloc))
        (type $p0 (record (field "name" string) (field "age" (option u8)))) (export $p "p" (type $p0))
        (type $v0 (variant (case "none") (case "text" string) (case "number" float64))) (export $v "v" (type $v0))
        (type $e0 (enum "red" "green" "blue")) (export $e "e" (type $e0))
        (type $f0 (flags "read" "write" "run")) (export $f "f" (type $f0))
        (func (export "set") (param "bytes" (list u8))
            (canon lift (core func $i "set") (memory $memory) (realloc $realloc)))"#
        .to_owned();
    for (number, ty) in TYPES.iter().enumerate() {
        text += &format!(
            r#"(type $t{number} {ty}) (export $n{number} "t{number}" (type $t{number}))
            (func (export "get{number}") (result $n{number})
                (canon lift (core func $i "get") (memory $memory)))"#
        );
    }
    text + ")"
}

/// The plugin, and the types of its answers.
#[expect(clippy::expect_used, reason = "failing is what a fuzz target is for")]
fn plugin() -> (Plugin, Vec<Type>) {
    let host = Host::new(Config { instances: 2, ..Config::default() }).expect("a host");
    let pool = Pool::Warm { size: 1, calls: u32::MAX, idle: Duration::from_secs(600) };
    let limits = Limits { output: Some(1 << 20), ..Limits::default() };
    let source = Source::Bytes(text().into_bytes());
    let plugin = host.plugin(source).pool(pool).limits(limits).load().expect("a plugin");
    // The host's own engines run code that others have compiled.
    let engine = wasmtime::Engine::default();
    let component = Component::new(&engine, text()).expect("a component");
    let types = component.component_type();
    let ty = |number| match types.get_export(&engine, &format!("t{number}")).map(|item| item.ty) {
        Some(ComponentItem::Type(ty)) => Some(ty),
        _ => None,
    };
    (plugin, (0..TYPES.len()).filter_map(ty).collect())
}

/// Puts `data` into a plugin's memory, and takes answers of all types from there; reads it as JSON of these types, too, and
/// as a core module.
///
/// # Panics
/// When a value is not of its type, or differs after it was written and read; when an answer fails in a way that a guest
/// must not be able to cause.
#[expect(clippy::panic, reason = "failing is what a fuzz target is for")]
pub(crate) fn fuzz_plugin(data: &[u8]) {
    static PLUGIN: OnceLock<(Plugin, Vec<Type>)> = OnceLock::new();
    let (plugin, types) = PLUGIN.get_or_init(plugin);
    let options = CallOptions::default();
    let bytes = serde_json::json!([&data[..data.len().min(60_000)]]).to_string();
    for (number, ty) in types.iter().enumerate() {
        // An instance that failed is not the next one's.
        plugin.call_json(&options, "set", &bytes).unwrap_or_else(|error| panic!("{error}"));
        match plugin.call(&format!("get{number}"), &[]) {
            Ok(answer) => {
                // Of a `result` the answer is what is `ok`.
                let whole = answer.first().filter(|value| values::fits(value, ty));
                assert!(whole.is_some() || matches!(ty, Type::Result(_)), "{number}: {answer:?}");
                if let Some(value) = whole {
                    let written = json::write(value);
                    let again =
                        json::read(written.clone(), ty, "x").unwrap_or_else(|wrong| panic!("{wrong:?}"));
                    assert_eq!(json::write(&again), written, "{number}");
                }
            }
            Err(Error::Guest(_) | Error::Trap { .. }) => {}
            Err(error) => panic!("{number}: {error:?}"),
        }
        if let Ok(value) = serde_json::from_slice(data)
            && let Ok(value) = json::read(value, ty, "x")
        {
            assert!(values::fits(&value, ty), "{number}: {value:?}");
        }
    }
    core::component([b"\0asm\x01\0\0\0", data].concat()).ok();
    // What another process says: its frames, and the types of its functions.
    wire::receive::<wire::Answer>(&mut &*data).ok();
    wire::receive::<wire::Question>(&mut &*data).ok();
    if let Ok(text) = std::str::from_utf8(data) {
        let function = |ty: &str| Function { name: "f".to_owned(), ty: ty.to_owned() };
        if let Ok(read) = signature::types(&[function(text)]) {
            let printed = read.first().map(values::function).unwrap_or_default();
            let again =
                signature::types(&[function(&printed)]).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(again.first().map(values::function), Some(printed), "{text}");
        }
    }
}
