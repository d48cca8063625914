//! The interfaces of WASI 0.3 by name.

use wasmtime::component::Linker;
use wasmtime_wasi::cli::{WasiCli, WasiCliView as _};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView as _};
use wasmtime_wasi::p3::bindings::{cli, clocks, filesystem, random};
use wasmtime_wasi::random::{WasiRandom, WasiRandomView as _};

use wasmtime_wasi_http::p3::bindings::http;
use wasmtime_wasi_http::{WasiHttp, WasiHttpView as _};

use crate::wasm::network::hosts;
use crate::wasm::p2::files::{UnionFs, view};
use crate::wasm::p2::{Clock, State, clock_view};

/// Adds an interface of WASI 0.3, if there is one of that name.
pub(in crate::wasm) fn add(l: &mut Linker<State>, interface: &str) -> Option<wasmtime::Result<()>> {
    Some(match interface {
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
            clocks::monotonic_clock::add_to_linker::<State, Clock>(l, clock_view)
        }
        "wasi:clocks/system-clock" => {
            clocks::system_clock::add_to_linker::<State, WasiClocks>(l, State::clocks)
        }
        "wasi:filesystem/preopens" => filesystem::preopens::add_to_linker::<State, UnionFs>(l, view),
        "wasi:filesystem/types" => filesystem::types::add_to_linker::<State, UnionFs>(l, view),
        "wasi:random/random" => random::random::add_to_linker::<State, WasiRandom>(l, State::random),
        "wasi:random/insecure" => random::insecure::add_to_linker::<State, WasiRandom>(l, State::random),
        "wasi:random/insecure-seed" => {
            random::insecure_seed::add_to_linker::<State, WasiRandom>(l, State::random)
        }
        "wasi:sockets/types" => hosts::types(l),
        "wasi:sockets/ip-name-lookup" => hosts::lookup_v3(l),
        "wasi:http/types" => http::types::add_to_linker::<State, WasiHttp>(l, State::http),
        "wasi:http/client" => http::client::add_to_linker::<State, WasiHttp>(l, State::http),
        _ => return None,
    })
}
