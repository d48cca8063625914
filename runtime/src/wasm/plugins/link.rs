//! What a plugin's imports mean: WASI as far as it is granted, the host's own functions, and nothing else.
//!
//! An interface that is not granted is there all the same, since languages import more than their programs use; whoever
//! calls one of its functions ends with [`super::Error::Denied`]. Files, variables and streams are always there, and
//! empty unless granted.

use wasmtime::Engine;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, ResourceType};

use super::error::Ended;
use super::{Grants, kv};
use crate::wasm::imports::{Name, Track};
use crate::wasm::p2::{State, link};
use crate::wasm::p3;

/// What linking has found out.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Needs {
    /// Some import may wait, so calls are made as futures.
    pub(super) waits: bool,
    /// It may wait for more than time.
    pub(super) runtime: bool,
}

/// Links the interfaces of WASI and of Dhow that `component` imports.
pub(super) fn link(
    engine: &Engine,
    component: &Component,
    grants: &Grants,
    linker: &mut Linker<State>,
) -> wasmtime::Result<Needs> {
    let mut needs = Needs::default();
    // Two versions of an interface are one here.
    linker.allow_shadowing(true);
    for (import, item) in component.component_type().imports(engine) {
        if import == kv::INTERFACE && grants.kv > 0 {
            kv::add(linker)?;
            continue;
        }
        let name = Name::parse(import);
        if !is_granted(grants, import) {
            deny(engine, linker, import, &item.ty)?;
            continue;
        }
        let added = match name.track {
            Some(Track::V2) => link::add(linker, name.interface),
            Some(Track::V3) => p3::link::add(linker, name.interface),
            None => None,
        };
        if let Some(added) = added {
            added?;
            needs.waits = true;
            needs.runtime |= import.starts_with("wasi:sockets/") || import.starts_with("wasi:http/");
        }
    }
    Ok(needs)
}

/// Whether an interface may be used. What nobody here knows is for the linker to complain about.
fn is_granted(grants: &Grants, import: &str) -> bool {
    match import.split('/').next().unwrap_or_default() {
        "wasi:clocks" => grants.clocks,
        "wasi:random" => grants.random,
        "wasi:sockets" | "wasi:http" => !grants.network.is_empty(),
        "dhow:plugin" => false,
        _ => true,
    }
}

/// Where a function that a plugin imports comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Provider {
    /// Everybody has it: streams, files and variables, which are empty unless granted.
    Always,
    /// It is granted.
    Granted,
    /// It is not granted: calls of it end with [`super::Error::Denied`].
    Denied,
    /// The host application has to give it, or the plugin does not load.
    Host,
}

/// Who provides an import.
pub(super) fn provider(grants: &Grants, import: &str) -> Provider {
    let package = import.split('/').next().unwrap_or_default();
    let granted = match package {
        "wasi:clocks" | "wasi:random" | "wasi:sockets" | "wasi:http" => is_granted(grants, import),
        "dhow:plugin" => import == kv::INTERFACE && grants.kv > 0,
        _ if package.starts_with("wasi:") => return Provider::Always,
        _ => return Provider::Host,
    };
    if granted { Provider::Granted } else { Provider::Denied }
}

struct Nothing;

/// What a resource of a denied interface is. Some are those of `wasi:io`, which is always there, under another name: they
/// must be the same.
fn resource(name: &str) -> ResourceType {
    use wasmtime_wasi_io::poll::DynPollable;
    use wasmtime_wasi_io::streams::{DynInputStream, DynOutputStream, Error};
    match name {
        "pollable" => ResourceType::host::<DynPollable>(),
        "input-stream" => ResourceType::host::<DynInputStream>(),
        "output-stream" => ResourceType::host::<DynOutputStream>(),
        "io-error" => ResourceType::host::<Error>(),
        _ => ResourceType::host::<Nothing>(),
    }
}

/// An interface each of whose functions ends the call.
fn deny(
    engine: &Engine,
    linker: &mut Linker<State>,
    import: &str,
    item: &ComponentItem,
) -> wasmtime::Result<()> {
    let ComponentItem::ComponentInstance(interface) = item else { return Ok(()) };
    let mut instance = linker.instance(import)?;
    for (name, item) in interface.exports(engine) {
        match item.ty {
            ComponentItem::ComponentFunc(function) => {
                let refused = import.to_owned();
                let refuse = move || Err(Ended::Denied(refused.clone()).into());
                if function.async_() {
                    instance.func_new_concurrent(name, move |_, _, _, _| {
                        let refused = refuse();
                        Box::pin(async move { refused })
                    })?;
                } else {
                    instance.func_new(name, move |_, _, _, _| refuse())?;
                }
            }
            ComponentItem::Resource(_) => {
                instance.resource(name, resource(name), |_, _| Ok(()))?;
            }
            _ => {}
        }
    }
    Ok(())
}
