//! Calling one exported function of a component: `dhow run --invoke NAME app.wasm ARGUMENT...`, each argument a value as
//! [`super::wave`] reads it (a text needs no quotes there), or all in one as wasmtime's command has it:
//! `--invoke 'NAME(1, "two")'`. A function of an exported interface is `INTERFACE#NAME`, or its name alone.

use wasmtime::component::types::{ComponentFunc, ComponentItem};
use wasmtime::component::{Component, InstancePre, Type, Val};
use wasmtime::{Engine, Store};

use super::{State, wave};
use crate::error::Result;
use crate::wasm::imports::Name;
use crate::wasm::invoke::{listed, refused};
use crate::wasm::stdio::Output;

/// A function and what it is called with.
pub(super) struct Call {
    pub(super) pre: InstancePre<State>,
    pub(super) function: Function,
    pub(super) stdout: Output,
}

/// Where a function is, and its arguments.
pub(super) struct Function {
    interface: Option<String>,
    name: String,
    arguments: Vec<Val>,
    results: usize,
}

/// Finds a function and reads its arguments.
///
/// # Errors
/// [`crate::Error::CannotInvoke`] with the functions there are, or what is wrong with an argument.
pub(super) fn find(
    engine: &Engine,
    component: &Component,
    shown: &str,
    wanted: &str,
    args: &[String],
) -> Result<Function> {
    let (path, call) = match wanted.split_once('(') {
        Some((path, call)) => (path.trim(), Some(call)),
        None => (wanted, None),
    };
    let all = functions(engine, component);
    let fits = |(interface, name, _): &&(Option<String>, String, ComponentFunc)| match path.rsplit_once('#') {
        Some((wanted, function)) => {
            let same = |interface: &String| interface == wanted || Name::parse(interface).interface == wanted;
            name == function && interface.as_ref().is_some_and(same)
        }
        None => name == path,
    };
    let found: Vec<_> = all.iter().filter(fits).collect();
    let full = |(interface, name, _): &(Option<String>, String, ComponentFunc)| match interface {
        Some(interface) => format!("{interface}#{name}"),
        None => name.clone(),
    };
    let (interface, name, ty) = match found.as_slice() {
        [one] => *one,
        [] => {
            let names: Vec<_> = all.iter().map(full).collect();
            let has = listed(names.iter().map(String::as_str));
            return Err(refused(shown, path, format!("it exports no such function, but {has}")));
        }
        many => {
            let names: Vec<_> = many.iter().map(|one| full(one)).collect();
            let has = listed(names.iter().map(String::as_str));
            return Err(refused(shown, path, format!("it exports several of that name: {has}")));
        }
    };
    let types: Vec<Type> = ty.params().map(|(_, ty)| ty).collect();
    let arguments = match call {
        Some(call) => wave::parse_call(&types, call),
        None => separate(&types, args),
    };
    Ok(Function {
        interface: interface.clone(),
        name: name.clone(),
        arguments: arguments.map_err(|reason| refused(shown, path, reason))?,
        results: ty.results().len(),
    })
}

/// Every function that a component exports, by its interface.
fn functions(engine: &Engine, component: &Component) -> Vec<(Option<String>, String, ComponentFunc)> {
    let mut all = Vec::new();
    for (name, item) in component.component_type().exports(engine) {
        match item.ty {
            ComponentItem::ComponentFunc(function) => all.push((None, name.to_owned(), function)),
            ComponentItem::ComponentInstance(instance) => {
                for (function, item) in instance.exports(engine) {
                    if let ComponentItem::ComponentFunc(ty) = item.ty {
                        all.push((Some(name.to_owned()), function.to_owned(), ty));
                    }
                }
            }
            _ => {}
        }
    }
    all
}

/// One word of the command line for each value.
pub(in crate::wasm) fn separate(types: &[Type], args: &[String]) -> std::result::Result<Vec<Val>, String> {
    let mut values = Vec::with_capacity(types.len());
    for (index, ty) in types.iter().enumerate() {
        values.push(match (args.get(index), ty) {
            (Some(text), Type::String) if !text.trim_start().starts_with('"') => Val::String(text.clone()),
            (Some(text), ty) => wave::parse(ty, text)?,
            (None, Type::Option(_)) => Val::Option(None),
            (None, _) => return Err(format!("too few arguments, it takes {}", types.len())),
        });
    }
    Ok(values)
}

impl Call {
    /// Makes the call and prints what it gives.
    pub(super) async fn run(self, store: &mut Store<State>) -> wasmtime::Result<()> {
        let Self { pre, function, stdout } = self;
        let instance = pre.instantiate_async(&mut *store).await?;
        let missing = || wasmtime::format_err!("the function {} is gone", function.name);
        let interface = match &function.interface {
            Some(name) => Some(instance.get_export_index(&mut *store, None, name).ok_or_else(missing)?),
            None => None,
        };
        let index = instance.get_export_index(&mut *store, interface.as_ref(), &function.name);
        let called = instance.get_func(&mut *store, index.ok_or_else(missing)?).ok_or_else(missing)?;
        let mut results = vec![Val::Bool(false); function.results];
        called.call_async(&mut *store, &function.arguments, &mut results).await?;
        for result in &results {
            stdout.write_all(format!("{}\n", wave::print(result)).as_bytes())?;
        }
        Ok(())
    }
}
