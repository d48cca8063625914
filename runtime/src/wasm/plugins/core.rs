//! Core modules as plugins: bytes in, bytes out. A module is wrapped into a component, so that everything else here need not
//! know that there are any.
//!
//! ```text
//! memory                  exported
//! cabi_realloc            exported: (old: i32, old_size: i32, align: i32, new_size: i32) -> i32
//! f(at, length) -> place  exported: a function of the plugin. Its argument is `length` bytes at `at`, which are its own; at
//!                         `place` it leaves where its answer begins (i32) and how long that is (i32). In the plugin's
//!                         interface it is `f: func(input: list<u8>) -> list<u8>`, with hyphens for underscores.
//! cabi_post_f(place)      exported or not: called when the answer has been read
//! _initialize()           exported or not: called before everything else
//! m.g(at, length, place)  imported: a function of the host, `g` of the interface `m`, in the same form
//! ```
//! What else it imports ends the call that uses it; WASI is for components.

use std::borrow::Cow;
use std::collections::BTreeMap;

use wasm_encoder as enc;
use wasmparser::{CompositeInnerType, ExternalKind, FuncType, Parser, Payload, TypeRef, ValType};

/// More functions than any program for people has.
const MOST: usize = 1000;

/// What is behind the four bytes of every Wasm file in a module's.
const MODULE: [u8; 8] = *b"\0asm\x01\0\0\0";

/// What a module has of what matters here.
#[derive(Debug, Default)]
struct Shape {
    /// By module and name.
    imports: Vec<(String, String, FuncType)>,
    functions: BTreeMap<String, FuncType>,
    memory: bool,
}

/// The component for a core module; anything else stays what it is.
pub(super) fn component(code: Vec<u8>) -> Result<Vec<u8>, String> {
    if !code.starts_with(&MODULE) {
        return Ok(code);
    }
    let shape = shape(&code)?;
    let has = |name: &str, params: usize, results: usize| {
        shape.functions.get(name).is_some_and(|ty| is(ty, params, results))
    };
    if !shape.memory || !has("cabi_realloc", 4, 1) {
        return Err("a core module is a plugin if it exports `memory` and `cabi_realloc`".to_owned());
    }
    let mut wrap = enc::ComponentBuilder::default();
    let (bytes, ty) = wrap.type_defined(None);
    ty.list(enc::PrimitiveValType::U8);
    let bytes = enc::ComponentValType::Type(bytes);
    let (bytes_function, mut ty) = wrap.type_function(None);
    ty.params([("input", bytes)]).result(Some(bytes));

    let main = wrap.core_module_raw(None, &code);
    let (instance, given) = match shape.imports.as_slice() {
        [] => (wrap.core_instantiate(None, main, []), None),
        imports => {
            let given = Given::new(&mut wrap, imports)?;
            let mut modules: BTreeMap<&str, Vec<(&str, enc::ExportKind, u32)>> = BTreeMap::new();
            for (number, (module, name, _)) in imports.iter().enumerate() {
                let function =
                    wrap.core_alias_export(None, given.shim, &number.to_string(), enc::ExportKind::Func);
                modules.entry(module).or_default().push((name, enc::ExportKind::Func, function));
            }
            let mut arguments = Vec::new();
            for (module, functions) in modules {
                arguments
                    .push((module, enc::ModuleArg::Instance(wrap.core_instantiate_exports(None, functions))));
            }
            (wrap.core_instantiate(None, main, arguments), Some(given))
        }
    };
    let memory = wrap.core_alias_export(None, instance, "memory", enc::ExportKind::Memory);
    let realloc = wrap.core_alias_export(None, instance, "cabi_realloc", enc::ExportKind::Func);
    if let Some(given) = given {
        given.fill(&mut wrap, memory, realloc);
    }
    if has("_initialize", 0, 0) {
        let function = wrap.core_alias_export(None, instance, "_initialize", enc::ExportKind::Func);
        let starter = wrap.core_module(None, &starter());
        let host = wrap.core_instantiate_exports(None, [("f", enc::ExportKind::Func, function)]);
        wrap.core_instantiate(None, starter, [("", enc::ModuleArg::Instance(host))]);
    }
    for (name, ty) in &shape.functions {
        let Some(shown) = hyphened(name).filter(|_| is(ty, 2, 1) && !name.starts_with("cabi_")) else {
            continue;
        };
        let core = wrap.core_alias_export(None, instance, name, enc::ExportKind::Func);
        let mut options = vec![enc::CanonicalOption::Memory(memory), enc::CanonicalOption::Realloc(realloc)];
        let post = format!("cabi_post_{name}");
        if has(&post, 1, 0) {
            let post = wrap.core_alias_export(None, instance, &post, enc::ExportKind::Func);
            options.push(enc::CanonicalOption::PostReturn(post));
        }
        let lifted = wrap.lift_func(None, core, bytes_function, options);
        wrap.export(shown.as_str(), enc::ComponentExportKind::Func, lifted, None);
    }
    Ok(wrap.finish())
}

/// Whether a function takes and gives so many `i32`.
fn is(ty: &FuncType, params: usize, results: usize) -> bool {
    let all = |types: &[ValType], count| types.len() == count && types.iter().all(|ty| *ty == ValType::I32);
    all(ty.params(), params) && all(ty.results(), results)
}

/// A name as interfaces have them, or none if it is beyond that.
fn hyphened(name: &str) -> Option<String> {
    let name = name.replace('_', "-").to_ascii_lowercase();
    let word = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_lowercase())
            && word.chars().all(|c| c.is_ascii_alphanumeric())
    };
    name.split('-').all(word).then_some(name)
}

fn shape(code: &[u8]) -> Result<Shape, String> {
    let wrong = |error: wasmparser::BinaryReaderError| error.to_string();
    let mut shape = Shape::default();
    let (mut types, mut functions): (Vec<Option<FuncType>>, Vec<u32>) = Default::default();
    let mut exports = Vec::new();
    for payload in Parser::new(0).parse_all(code) {
        match payload.map_err(wrong)? {
            Payload::TypeSection(section) => {
                for group in section {
                    types.extend(group.map_err(wrong)?.into_types().map(
                        |ty| match ty.composite_type.inner {
                            CompositeInnerType::Func(ty) => Some(ty),
                            _ => None,
                        },
                    ));
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.map_err(wrong)?;
                    let (module, name) = (import.module.to_owned(), import.name.to_owned());
                    let (TypeRef::Func(index) | TypeRef::FuncExact(index)) = import.ty else {
                        return Err(format!("it imports {module}.{name}, which is no function"));
                    };
                    let ty = types.get(index as usize).cloned().flatten();
                    shape.imports.push((module, name, ty.ok_or("a type is missing")?));
                    functions.push(index);
                }
            }
            Payload::FunctionSection(section) => {
                for index in section {
                    functions.push(index.map_err(wrong)?);
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.map_err(wrong)?;
                    exports.push((export.name.to_owned(), export.kind, export.index));
                }
            }
            _ => {}
        }
        if shape.imports.len().max(exports.len()) > MOST {
            return Err(format!("it has more than {MOST} imports or exports"));
        }
    }
    for (name, kind, index) in exports {
        match kind {
            ExternalKind::Memory => shape.memory |= name == "memory",
            ExternalKind::Func | ExternalKind::FuncExact => {
                let ty = functions.get(index as usize).and_then(|index| types.get(*index as usize)?.clone());
                shape.functions.insert(name, ty.ok_or("a function's type is missing")?);
            }
            _ => {}
        }
    }
    Ok(shape)
}

/// What is behind a module's imports. The functions of the host need the module's memory, and the module needs its imports
/// first: so it gets others, which find the right ones in a table.
#[derive(Debug)]
struct Given {
    /// The instance with the stand-ins, by number.
    shim: u32,
    /// Functions of components for the places of the table; and whether it is one that refuses.
    functions: Vec<(u32, bool)>,
}

impl Given {
    fn new(wrap: &mut enc::ComponentBuilder, imports: &[(String, String, FuncType)]) -> Result<Self, String> {
        let mut seen = std::collections::BTreeSet::new();
        // By interface: the functions of it that the host has, or none.
        let mut interfaces: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut from = Vec::new();
        for (module, name, ty) in imports {
            if !seen.insert((module, name)) {
                return Err(format!("it imports {module}.{name} twice"));
            }
            let named = hyphened(module).zip(hyphened(name)).filter(|_| is(ty, 3, 0));
            if let Some((interface, function)) = &named {
                let functions = interfaces.entry(interface.clone()).or_default();
                if functions.contains(function) {
                    return Err(format!("it imports {module}.{name} by two names"));
                }
                functions.push(function.clone());
            } else {
                interfaces.entry(refused(module)).or_default();
            }
            from.push(named.unwrap_or_else(|| (refused(module), REFUSE.to_owned())));
        }
        let mut instances = BTreeMap::new();
        for (interface, functions) in &interfaces {
            let mut ty = enc::InstanceType::new();
            ty.ty().defined_type().list(enc::PrimitiveValType::U8);
            let bytes = enc::ComponentValType::Type(0);
            ty.ty().function().params([("input", bytes)]).result(Some(bytes));
            ty.ty().function().params::<[(&str, enc::ComponentValType); 0], _>([]).result(None);
            for function in functions {
                ty.export(function.as_str(), enc::ComponentTypeRef::Func(1));
            }
            if functions.is_empty() {
                ty.export(REFUSE, enc::ComponentTypeRef::Func(2));
            }
            let ty = wrap.type_instance(None, &ty);
            instances.insert(interface, wrap.import(interface.as_str(), enc::ComponentTypeRef::Instance(ty)));
        }
        let functions = from.iter().filter_map(|(interface, function)| {
            let index =
                wrap.alias_export(*instances.get(interface)?, function, enc::ComponentExportKind::Func);
            Some((index, function == REFUSE))
        });
        let functions: Vec<_> = functions.collect();
        let shim = wrap.core_module(None, &shim(imports, &functions)?);
        let shim = wrap.core_instantiate(None, shim, []);
        Ok(Self { shim, functions })
    }

    /// Puts the functions of the host into their places.
    fn fill(&self, wrap: &mut enc::ComponentBuilder, memory: u32, realloc: u32) {
        let table = wrap.core_alias_export(None, self.shim, "table", enc::ExportKind::Table);
        let mut exports = vec![("table".to_owned(), enc::ExportKind::Table, table)];
        for (number, (function, _)) in self.functions.iter().enumerate() {
            let options = [enc::CanonicalOption::Memory(memory), enc::CanonicalOption::Realloc(realloc)];
            let lowered = wrap.lower_func(None, *function, options);
            exports.push((number.to_string(), enc::ExportKind::Func, lowered));
        }
        let filler = wrap.core_module(None, &filler(&self.functions));
        let exports: Vec<_> =
            exports.iter().map(|(name, kind, index)| (name.as_str(), *kind, *index)).collect();
        let host = wrap.core_instantiate_exports(None, exports);
        wrap.core_instantiate(None, filler, [("", enc::ModuleArg::Instance(host))]);
    }
}

/// The function of an interface that nobody may use. Nothing of the host's has this name.
const REFUSE: &str = "refuse";

/// The interface that stands for what a module imports from another one, and does not get.
fn refused(module: &str) -> String {
    format!("dhow:plugin/{}", hyphened(module).as_deref().unwrap_or("imports"))
}

/// The types of a function of the host, and of one that refuses, in the modules below.
fn lowered() -> enc::TypeSection {
    let mut types = enc::TypeSection::new();
    types.ty().function([enc::ValType::I32; 3], []);
    types.ty().function([], []);
    types
}

fn table(size: usize) -> enc::TableType {
    let minimum = size as u64;
    enc::TableType {
        element_type: enc::RefType::FUNCREF,
        table64: false,
        minimum,
        maximum: Some(minimum),
        shared: false,
    }
}

/// A module with a stand-in for each import, which calls what is at its place in the table.
fn shim(imports: &[(String, String, FuncType)], given: &[(u32, bool)]) -> Result<enc::Module, String> {
    let (mut types, mut functions, mut code) =
        (lowered(), enc::FunctionSection::new(), enc::CodeSection::new());
    let (mut tables, mut exports) = (enc::TableSection::new(), enc::ExportSection::new());
    tables.table(table(imports.len()));
    exports.export("table", enc::ExportKind::Table, 0);
    for (number, ((module, name, ty), (_, refuses))) in (0u32..).zip(imports.iter().zip(given)) {
        let all = |types: &[ValType]| types.iter().map(value).collect::<Option<Vec<_>>>();
        let unknown = || format!("it imports {module}.{name}, which takes or gives what is no number");
        let (params, results) = all(ty.params()).zip(all(ty.results())).ok_or_else(unknown)?;
        types.ty().function(params, results);
        functions.function(number + 2);
        exports.export(&number.to_string(), enc::ExportKind::Func, number);
        let mut body = enc::Function::new([]);
        let place = i32::try_from(number).unwrap_or_default();
        let mut body_of = |instructions: &[enc::Instruction<'_>]| {
            for instruction in instructions {
                body.instruction(instruction);
            }
        };
        let call = |type_index| enc::Instruction::CallIndirect { type_index, table_index: 0 };
        if *refuses {
            body_of(&[enc::Instruction::I32Const(place), call(1), enc::Instruction::Unreachable]);
        } else {
            body_of(&[0, 1, 2].map(enc::Instruction::LocalGet));
            body_of(&[enc::Instruction::I32Const(place), call(0)]);
        }
        body.instruction(&enc::Instruction::End);
        code.function(&body);
    }
    let mut shim = enc::Module::new();
    shim.section(&types).section(&functions).section(&tables).section(&exports).section(&code);
    Ok(shim)
}

/// A module that puts functions into the table of a shim.
fn filler(given: &[(u32, bool)]) -> enc::Module {
    let (mut imports, mut elements) = (enc::ImportSection::new(), enc::ElementSection::new());
    imports.import("", "table", table(given.len()));
    for (number, (_, refuses)) in given.iter().enumerate() {
        imports.import("", &number.to_string(), enc::EntityType::Function(u32::from(*refuses)));
    }
    let functions: Vec<u32> = (0u32..).zip(given).map(|(number, _)| number).collect();
    elements.active(None, &enc::ConstExpr::i32_const(0), enc::Elements::Functions(Cow::Owned(functions)));
    let mut filler = enc::Module::new();
    filler.section(&lowered()).section(&imports).section(&elements);
    filler
}

/// A module that calls a function when it is instantiated.
fn starter() -> enc::Module {
    let mut imports = enc::ImportSection::new();
    imports.import("", "f", enc::EntityType::Function(1));
    let mut starter = enc::Module::new();
    starter.section(&lowered()).section(&imports).section(&enc::StartSection { function_index: 0 });
    starter
}

fn value(ty: &ValType) -> Option<enc::ValType> {
    match ty {
        ValType::I32 => Some(enc::ValType::I32),
        ValType::I64 => Some(enc::ValType::I64),
        ValType::F32 => Some(enc::ValType::F32),
        ValType::F64 => Some(enc::ValType::F64),
        ValType::V128 => Some(enc::ValType::V128),
        ValType::Ref(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CallOptions, Config, Error, Host, Source, Val};
    use super::*;

    /// Turns its bytes round, twice over by the host; asks WASI; crashes.
    const MODULE: &str = r#"(module
        (import "my_host" "twice" (func $twice (param i32 i32 i32)))
        (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
        (memory (export "memory") 2)
        (global $next (mut i32) (i32.const 1024))
        (global $begun (mut i32) (i32.const 0))
        (func (export "_initialize") (global.set $begun (i32.const 1)))
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
            (local $at i32)
            (local.set $at (global.get $next))
            (global.set $next (i32.add (global.get $next) (local.get 3)))
            (local.get $at))
        (func (export "by_host") (param i32 i32) (result i32)
            (call $twice (local.get 0) (local.get 1) (i32.const 8)) (i32.const 8))
        (func (export "begun") (param i32 i32) (result i32)
            (i32.store8 (i32.const 16) (global.get $begun))
            (i32.store (i32.const 8) (i32.const 16)) (i32.store (i32.const 12) (i32.const 1)) (i32.const 8))
        (func (export "cabi_post_begun") (param i32) (global.set $next (i32.const 1024)))
        (func (export "yields") (param i32 i32) (result i32) (call $yield))
        (func (export "lies") (param i32 i32) (result i32)
            (i32.store (i32.const 8) (i32.const 100000)) (i32.store (i32.const 12) (i32.const 100000)) (i32.const 8))
        (func (export "other") (param i64) (result i64) (local.get 0)))"#;

    #[test]
    fn bytes_in_and_bytes_out() {
        let host = Host::new(Config { instances: 4, ..Config::default() }).unwrap();
        let plugin = host
            .plugin(Source::Bytes(wat::parse_str(MODULE).unwrap()))
            .function("my-host", "twice", |_, args| match args {
                [Val::List(bytes)] => Ok(vec![Val::List([bytes.as_slice(), bytes].concat())]),
                other => Err(format!("{other:?}").into()),
            })
            .load()
            .unwrap();
        let functions: Vec<_> = plugin.functions().into_iter().map(|function| function.name).collect();
        assert_eq!(functions, ["begun", "by-host", "lies", "yields"]);
        let by_host = plugin.typed::<(&[u8],), (Vec<u8>,)>("by-host").unwrap();
        assert_eq!(by_host.call((b"ab",)).unwrap().0, b"abab");
        let begun = plugin.call_json(&CallOptions::default(), "begun", "[[]]").unwrap();
        assert_eq!(begun, "[1]");
        let denied = plugin.call("yields", &[Val::List(Vec::new())]).unwrap_err();
        assert!(
            matches!(&denied, Error::Denied { capability } if capability == "dhow:plugin/wasi-snapshot-preview1")
        );
        let lies = plugin.call("lies", &[Val::List(Vec::new())]).unwrap_err();
        assert!(matches!(lies, Error::Trap { .. }), "{lies}");
    }

    #[test]
    fn what_is_no_plugin_is_told_so() {
        let whole = "(memory (export \"memory\") 1)
            (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) i32.const 0)";
        for (text, why) in [
            ("", "exports `memory`"),
            ("(memory (export \"memory\") 1) (func (export \"cabi_realloc\"))", "`cabi_realloc`"),
            (&format!("(import \"a\" \"b\" (memory 1)) {whole}"), "a.b, which is no function"),
            (&format!("(import \"a\" \"b\" (func)) (import \"a\" \"b\" (func)) {whole}"), "a.b twice"),
            (&format!("(import \"a\" \"b\" (func (param externref))) {whole}"), "what is no number"),
        ] {
            let code = wat::parse_str(format!("(module {text})")).unwrap();
            let error = component(code).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        for (name, shown) in
            [("a_b", Some("a-b")), ("_start", None), ("aB", Some("ab")), ("", None), ("a__b", None)]
        {
            assert_eq!(hyphened(name).as_deref(), shown);
        }
        let code = wat::parse_str(MODULE).unwrap();
        for length in 8..code.len() {
            // Whatever is missing, nothing here panics.
            component(code[..length].to_vec()).ok();
        }
    }
}
