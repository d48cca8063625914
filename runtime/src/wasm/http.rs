//! Components that answer HTTP: those that export `wasi:http/incoming-handler@0.2` or the handler of 0.3.
//!
//! ```text
//! server.rs      ports, signals, and who serves a connection    request.rs   one request, one instance
//! connection.rs  HTTP/1.1 on one connection                     body.rs      what a program sends back
//! pool.rs        what instances are made from                   outgoing.rs  requests that programs send
//! ```
//!
//! A service that nobody uses is a thread that waits for its ports. The first connection brings the engine with a pool
//! of memories, the linked code and, under load, more threads; they go again when nobody has come for a while. Each
//! request gets an instance of its own, whose memory is a copy-on-write image of the program's, and nothing stays of it.
//!
//! A program is interrupted every few milliseconds, so one that computes for ever holds up nobody else, and is stopped
//! when its time is over.

use std::sync::Arc;

use wasmtime::Engine;
use wasmtime::component::{Component, Linker};

use super::create::Guest;
use super::imports::{Name, Track};
use super::module::invalid;
use super::p2::{State, link};
use super::task::End;
use crate::error::{Error, Result};

mod body;
mod connection;
pub(super) mod outgoing;
mod pool;
mod request;
mod server;

pub(in crate::wasm) use pool::settings;

/// A service that has not started.
pub(super) struct Program {
    service: server::Service,
}

/// Whether `component` answers HTTP.
pub(super) fn is_service(engine: &Engine, component: &Component) -> bool {
    version(engine, component).is_some()
}

/// The version of the handler it exports; the later one of two.
fn version(engine: &Engine, component: &Component) -> Option<Track> {
    let kind = component.component_type();
    let exports = kind.exports(engine).map(|(name, _)| Name::parse(name));
    let handlers = exports.filter_map(|name| match (name.interface, name.track) {
        ("wasi:http/incoming-handler", Some(Track::V2)) => Some(Track::V2),
        ("wasi:http/handler", Some(Track::V3)) => Some(Track::V3),
        _ => None,
    });
    handlers.max()
}

/// Checks that `component` can be linked and can be reached. It is linked for good when somebody
/// comes; until then only its code is in place, since a sandbox process takes no new code.
pub(super) fn prepare(engine: Engine, component: Component, shown: &str, guest: Guest) -> Result<Program> {
    let mut linker = Linker::<State>::new(&engine);
    link::link(&engine, &component, shown, &mut linker)?;
    linker.instantiate_pre(&component).map_err(|error| invalid(shown, format!("{error:#}")))?;
    let track =
        version(&engine, &component).ok_or_else(|| invalid(shown, "it exports no handler of wasi:http"))?;
    let ports = server::ports(&guest)?;
    if ports.is_empty() {
        return Err(Error::Host {
            what: format!("{shown} answers HTTP, and no port of it is published"),
            hint:
                "publish one, as in `dhow run -p 8080:80`, or give it this host's network: `--network host`"
                    .to_owned(),
        });
    }
    let service =
        server::Service { track, shown: shown.to_owned(), guest: Arc::new(guest), engine, component, ports };
    Ok(Program { service })
}

impl Program {
    /// Serves until it is told to stop.
    pub(super) fn run(self) -> End {
        match self.service.run() {
            Ok(()) => End::Exit(0),
            Err(error) => End::Trap(error.into()),
        }
    }
}
