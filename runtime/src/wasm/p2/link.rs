//! Gives a component exactly the interfaces it imports. Everything else would cost time at every start, and what is
//! missing is found here, before anything runs.
//!
//! Interfaces are looked up without the last part of their version: within 0.2 and within 0.3 they are compatible.

use wasmtime::Engine;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime_wasi::cli::{WasiCli, WasiCliView as _};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView as _};
use wasmtime_wasi::p2::bindings::{cli, clocks, filesystem, random, sockets};
use wasmtime_wasi::random::{WasiRandom, WasiRandomView as _};
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsView as _};
use wasmtime_wasi_http::p2::bindings::http;
use wasmtime_wasi_http::{WasiHttp, WasiHttpView as _};
use wasmtime_wasi_io::bindings::wasi::io;

use super::{State, clock, files};
use crate::error::Result;
use crate::wasm::imports::{Name, Track};
use crate::wasm::module::invalid;
use crate::wasm::network::hosts;
use crate::wasm::p3;

/// What a component asks for besides functions.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::wasm) struct Needs {
    /// It can wait for more than time and input, so there must be an async runtime from the start.
    pub(in crate::wasm) runtime: bool,
}

/// Links all imports of `component`.
pub(in crate::wasm) fn link(
    engine: &Engine,
    component: &Component,
    shown: &str,
    linker: &mut Linker<State>,
) -> Result<Needs> {
    let mut needs = Needs::default();
    let mut missing = Vec::new();
    for (import, extern_) in component.component_type().imports(engine) {
        let name = Name::parse(import);
        let added = match name.track {
            Some(Track::V2) => add(linker, name.interface),
            Some(Track::V3) => p3::link::add(linker, name.interface),
            None => None,
        };
        match added {
            Some(added) => added.map_err(|error| invalid(shown, format!("{error:#}")))?,
            None if is_empty(&extern_.ty, engine) => {}
            None => missing.push(import.to_owned()),
        }
        needs.runtime |= ["wasi:sockets/", "wasi:http/"].iter().any(|start| import.starts_with(start));
    }
    if missing.is_empty() { Ok(needs) } else { Err(super::unmet(shown, &missing)) }
}

/// Whether an import is nothing but types, which need nobody to provide them.
fn is_empty(item: &ComponentItem, engine: &Engine) -> bool {
    match item {
        ComponentItem::ComponentInstance(instance) => {
            instance.exports(engine).all(|(_, item)| matches!(item.ty, ComponentItem::Type(_)))
        }
        ComponentItem::Type(_) => true,
        _ => false,
    }
}

struct Io;

impl wasmtime::component::HasData for Io {
    type Data<'a> = &'a mut ResourceTable;
}

fn table(state: &mut State) -> &mut ResourceTable {
    &mut state.wasi().table
}

/// Adds an interface of WASI 0.2, if there is one of that name.
pub(in crate::wasm) fn add(l: &mut Linker<State>, interface: &str) -> Option<wasmtime::Result<()>> {
    Some(match interface {
        "wasi:io/error" => io::error::add_to_linker::<State, Io>(l, table),
        "wasi:io/poll" => io::poll::add_to_linker::<State, Io>(l, table),
        "wasi:io/streams" => io::streams::add_to_linker::<State, Io>(l, table),
        "wasi:cli/environment" => cli::environment::add_to_linker::<State, WasiCli>(l, State::cli),
        "wasi:cli/exit" => cli::exit::add_to_linker::<State, WasiCli>(l, State::cli),
        "wasi:cli/stdin" => cli::stdin::add_to_linker::<State, WasiCli>(l, State::cli),
        "wasi:cli/stdout" => cli::stdout::add_to_linker::<State, WasiCli>(l, State::cli),
        "wasi:cli/stderr" => cli::stderr::add_to_linker::<State, WasiCli>(l, State::cli),
        "wasi:cli/terminal-input" => cli::terminal_input::add_to_linker::<State, WasiCli>(l, State::cli),
        "wasi:cli/terminal-output" => cli::terminal_output::add_to_linker::<State, WasiCli>(l, State::cli),
        "wasi:cli/terminal-stdin" => cli::terminal_stdin::add_to_linker::<State, WasiCli>(l, State::cli),
        "wasi:cli/terminal-stdout" => cli::terminal_stdout::add_to_linker::<State, WasiCli>(l, State::cli),
        "wasi:cli/terminal-stderr" => cli::terminal_stderr::add_to_linker::<State, WasiCli>(l, State::cli),
        "wasi:clocks/monotonic-clock" => {
            clocks::monotonic_clock::add_to_linker::<State, clock::Clock>(l, clock::view)
        }
        "wasi:clocks/wall-clock" => clocks::wall_clock::add_to_linker::<State, WasiClocks>(l, State::clocks),
        "wasi:filesystem/preopens" => {
            filesystem::preopens::add_to_linker::<State, files::UnionFs>(l, files::view)
        }
        "wasi:filesystem/types" => filesystem::types::add_to_linker::<State, files::UnionFs>(l, files::view),
        "wasi:random/random" => random::random::add_to_linker::<State, WasiRandom>(l, State::random),
        "wasi:random/insecure" => random::insecure::add_to_linker::<State, WasiRandom>(l, State::random),
        "wasi:random/insecure-seed" => {
            random::insecure_seed::add_to_linker::<State, WasiRandom>(l, State::random)
        }
        "wasi:sockets/instance-network" => {
            sockets::instance_network::add_to_linker::<State, WasiSockets>(l, State::sockets)
        }
        "wasi:sockets/network" => {
            let options = sockets::network::LinkOptions::default();
            sockets::network::add_to_linker::<State, WasiSockets>(l, &options, State::sockets)
        }
        "wasi:sockets/ip-name-lookup" => hosts::lookup(l),
        "wasi:sockets/tcp" => hosts::tcp(l),
        "wasi:sockets/tcp-create-socket" => {
            sockets::tcp_create_socket::add_to_linker::<State, WasiSockets>(l, State::sockets)
        }
        "wasi:sockets/udp" => hosts::udp(l),
        "wasi:sockets/udp-create-socket" => {
            sockets::udp_create_socket::add_to_linker::<State, WasiSockets>(l, State::sockets)
        }
        "wasi:http/types" => {
            let options = http::types::LinkOptions::default();
            http::types::add_to_linker::<State, WasiHttp>(l, &options, State::http)
        }
        "wasi:http/outgoing-handler" => {
            http::outgoing_handler::add_to_linker::<State, WasiHttp>(l, State::http)
        }
        _ => return None,
    })
}
