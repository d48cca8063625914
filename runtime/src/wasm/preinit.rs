//! Pre-initialisation: a program's own initialisation is run once, and the program is written down as it is afterwards, so
//! that no later start runs it.
//!
//! ```text
//! preinit     the initialisation is run; what memories and globals are then
//! module      a core module with other memories and globals
//! component   which core module of a component is meant
//! ```
//! The initialisation may use its own memory and globals, and nothing else: it calls nothing of its host, changes no table,
//! and the module imports neither memory, nor table, nor global. Those are the rules of wizer, with one more for
//! components: what is initialised is the one core module that the function is in.
//!
//! This compiles and runs foreign code in the calling process, without threads. Whoever does not trust it does so in a
//! process of its own.

mod component;
mod module;

use wasmtime::{Engine, Linker, Module, Store, Val};

use super::engine;
use super::invoke::{function_type, refused};
use super::module::invalid;
use crate::error::{Error, Result};
use module::{Image, Parsed};

/// The function that is called by default, as wizer has it.
pub const PREINIT: &str = "wizer-initialize";
/// What toolchains call what must run before all else.
const INITIALIZE: &str = "_initialize";

/// Initialises a module or component, binary, by one of its functions, which takes and gives nothing. In a component it is
/// `NAME` or `INTERFACE#NAME`, and stays there; a module loses it. `shown` names the program in errors.
///
/// # Errors
/// [`Error::InvalidModule`] for what is none or cannot be initialised so, [`Error::CannotInvoke`] for the function.
pub fn preinit(shown: &str, code: &[u8], function: &str) -> Result<Vec<u8>> {
    if !wasmparser::Parser::is_component(code) {
        return of_module(shown, code, (function, function), false);
    }
    let found = component::find(code, function).map_err(|reason| match reason {
        component::Reason::Invalid(reason) => invalid(shown, reason),
        component::Reason::Function(reason) => refused(shown, function, reason),
    })?;
    let made = of_module(shown, &code[found.module.clone()], (function, &found.export), true)?;
    component::replace(code, &found, &made).ok_or_else(|| invalid(shown, "its sections are damaged"))
}

/// `inner`: other modules of a component know this one's exports.
fn of_module(shown: &str, code: &[u8], (named, function): (&str, &str), inner: bool) -> Result<Vec<u8>> {
    let engine = engine::alone()?;
    let wrong = |error: &dyn std::fmt::Display| invalid(shown, format!("cannot be pre-initialised: {error}"));
    // First, because this is the most likely mistake.
    let original = Module::new(&engine, code).map_err(|error| wrong(&format!("{error:#}")))?;
    let ty = function_type(&original, shown, function)?;
    if ty.params().len() + ty.results().len() > 0 {
        return Err(refused(shown, named, "it takes or gives something"));
    }
    let parsed = Parsed::of(code).map_err(|reason| wrong(&reason))?;
    let opened = Module::new(&engine, parsed.opened()).map_err(|error| wrong(&format!("{error:#}")))?;
    let image = run(&engine, &opened, &parsed, function).map_err(|error| failed(shown, named, &error))?;
    Ok(parsed.with(&image, (!inner).then_some(function)))
}

/// Runs the initialisation.
fn run(engine: &Engine, module: &Module, parsed: &Parsed<'_>, function: &str) -> wasmtime::Result<Image> {
    let mut store = Store::new(engine, ());
    let mut linker = Linker::new(engine);
    linker.define_unknown_imports_as_traps(module)?;
    let instance = linker.instantiate(&mut store, module)?;
    let first = (function != INITIALIZE && module.get_export(INITIALIZE).is_some()).then_some(INITIALIZE);
    for name in first.into_iter().chain([function]) {
        instance.get_typed_func::<(), ()>(&mut store, name)?.call(&mut store, ())?;
    }
    let mut image = Image::default();
    for number in 0..parsed.memories() {
        let name = module::name_of_memory(number);
        let missing = || wasmtime::format_err!("memory {number} is gone");
        let memory = instance.get_memory(&mut store, &name).ok_or_else(missing)?;
        image.memory(memory.size(&store), memory.data(&store));
    }
    for number in parsed.mutable_globals() {
        let name = module::name_of_global(number);
        let missing = || wasmtime::format_err!("global {number} is gone");
        let global = instance.get_global(&mut store, &name).ok_or_else(missing)?;
        match global.get(&mut store) {
            value @ (Val::I32(_) | Val::I64(_) | Val::F32(_) | Val::F64(_) | Val::V128(_)) => {
                image.global(number, &value);
            }
            _ => wasmtime::bail!("global {number} is a reference"),
        }
    }
    Ok(image)
}

fn failed(shown: &str, function: &str, error: &wasmtime::Error) -> Error {
    refused(shown, function, format!("its initialisation failed: {}", error.root_cause()))
}

#[cfg(test)]
mod tests {
    use wasmtime::Instance;
    use wasmtime::component::{Component, Linker as ComponentLinker};

    use super::*;

    /// Counts at its initialisation what `get` gives later.
    const MODULE: &str = r#"(module
        (memory (export "memory") 1)
        (data (i32.const 8) "gone")
        (data $later "kept")
        (global $fixed i32 (i32.const 7))
        (global $n (mut i32) (i32.const 0))
        (global $wide (mut i64) (i64.const 0))
        (global $real (mut f64) (f64.const 0))
        (table 1 funcref) (elem (i32.const 0) $get)
        (func $start (i32.store (i32.const 8) (i32.const 0)) (global.set $n (i32.add (global.get $n) (i32.const 1))))
        (start $start)
        (func (export "wizer-initialize")
            (drop (memory.grow (i32.const 2)))
            (global.set $n (i32.add (global.get $n) (i32.const 39)))
            (global.set $wide (i64.const -5000000000)) (global.set $real (f64.const -1.5))
            (memory.init $later (i32.const 70000) (i32.const 0) (i32.const 4))
            (i32.store (i32.const 100) (i32.const 1)))
        (func $get (export "get") (result i32)
            (i32.add (i32.add (global.get $n) (i32.load (i32.const 100))) (i32.load (i32.const 8))))
        (func (export "by-table") (result i32) (call_indirect (result i32) (i32.const 0)))
        (func (export "rest") (result i32)
            (i32.and
                (i32.and (i64.eq (global.get $wide) (i64.const -5000000000)) (f64.eq (global.get $real) (f64.const -1.5)))
                (i32.and (i32.eq (i32.load (i32.const 70000)) (i32.const 0x7470656b)) (i32.eq (memory.size) (i32.const 3))))))"#;

    const COMPONENT: &str = r#"(component
        (core module $other (func (export "f")))
        (core instance $o (instantiate $other))
        (core module $m
            (import "o" "f" (func $f))
            (memory 1)
            (global $n (mut i32) (i32.const 0))
            (func (export "_initialize") (global.set $n (i32.add (global.get $n) (i32.const 1))))
            (func (export "init")
                (global.set $n (i32.add (global.get $n) (i32.const 40)))
                (i32.store (i32.const 100) (i32.const 1)))
            (func (export "get") (result i32) (call $f) (i32.add (global.get $n) (i32.load (i32.const 100)))))
        (core instance $i (instantiate $m (with "o" (instance $o))))
        (core module $last (import "m" "_initialize" (func $f)) (start $f))
        (core instance (instantiate $last (with "m" (instance $i))))
        (func $init (canon lift (core func $i "init")))
        (export "init" (func $init))
        (instance $api (export "go" (func $init)))
        (export "a:b/api" (instance $api))
        (func (export "get") (result s32) (canon lift (core func $i "get"))))"#;

    #[test]
    fn a_module_begins_where_its_initialisation_ended() {
        let code = wat::parse_str(MODULE).unwrap();
        let made = preinit("a.wasm", &code, PREINIT).unwrap();
        let engine = engine::alone().unwrap();
        let module = Module::new(&engine, &made).unwrap();
        let names: Vec<&str> = module.exports().map(|export| export.name()).collect();
        assert_eq!(names, ["memory", "get", "by-table", "rest"]);
        let mut store = Store::new(&engine, ());
        let instance = Instance::new(&mut store, &module, &[]).unwrap();
        for (name, expected) in [("get", 41), ("by-table", 41), ("rest", 1)] {
            let function = instance.get_typed_func::<(), i32>(&mut store, name).unwrap();
            assert_eq!(function.call(&mut store, ()).unwrap(), expected, "{name}");
        }
        assert_eq!(preinit("a.wasm", &code, PREINIT).unwrap(), made, "the same every time");
    }

    #[test]
    fn a_component_too() {
        let code = wat::parse_str(COMPONENT).unwrap();
        for function in ["init", "a:b/api#go"] {
            let made = preinit("a.wasm", &code, function).unwrap();
            let engine = engine::alone().unwrap();
            let component = Component::new(&engine, &made).unwrap();
            let mut store = Store::new(&engine, ());
            let instance = ComponentLinker::new(&engine).instantiate(&mut store, &component).unwrap();
            let get = instance.get_typed_func::<(), (i32,)>(&mut store, "get").unwrap();
            // What must run before all else has run, and does not again.
            assert_eq!(get.call(&mut store, ()).unwrap(), (42,));
        }
    }

    #[test]
    fn what_cannot_be() {
        for (text, function, reason) in [
            (MODULE, "nothing", "exports no such function, but wizer-initialize, get"),
            (MODULE, "get", "takes or gives something"),
            (COMPONENT, "nothing", "exports no such function, but init, a:b/api, get"),
            (COMPONENT, "a#b", "exports no such function"),
            (COMPONENT, "a:b/api#b", "exports no such function"),
            (COMPONENT, "get", "takes or gives something"),
            (r#"(module (func (export "f") unreachable))"#, "f", "initialisation failed"),
            (r#"(module (import "a" "b" (func $b)) (func (export "f") (call $b)))"#, "f", "a::b"),
            (r#"(module (import "a" "m" (memory 1)) (func (export "f")))"#, "f", "imports a memory"),
            (
                r#"(module (table 1 funcref) (func (export "f") (table.set (i32.const 0) (ref.null func))))"#,
                "f",
                "changes a table",
            ),
            (r#"(module (global (mut funcref) (ref.null func)) (func (export "f")))"#, "f", "a reference"),
            (r#"(module (data $d "x") (memory 1) (func (export "f") (data.drop $d)))"#, "f", "data.drop"),
        ] {
            let code = wat::parse_str(text).unwrap();
            let error = preinit("a.wasm", &code, function).unwrap_err().to_string();
            assert!(error.contains(reason), "{function}: {error}");
        }
        assert!(preinit("a.wasm", b"\0asm\x01\0\0\0\xff", "f").is_err());
        assert!(preinit("a.wasm", b"\0asm\x0d\0\x01\0\xff", "f").is_err());
        assert!(preinit("a.wasm", b"no", "f").is_err());
    }
}
