//! How loading and calling can fail, so that a host can tell what to do.

use std::time::Duration;

use wasmtime::component::Val;
use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::wasm::limits::Exceeded;

/// Why there is no plugin, or no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The call took longer than it may.
    #[error("no answer within {limit:?}")]
    Deadline {
        /// How long it may take.
        limit: Duration,
    },
    /// The host gave the call up.
    #[error("the call was cancelled")]
    Cancelled,
    /// The instance wanted more memory than it may have.
    #[error("more memory wanted than {limit} bytes")]
    OutOfMemory {
        /// Bytes.
        limit: u64,
    },
    /// The call needed more instructions than it may.
    #[error("more instructions needed than {limit} of fuel")]
    OutOfFuel {
        /// In wasmtime's units.
        limit: u64,
    },
    /// The code did what no program may, or gave up.
    #[error("{message}")]
    Trap {
        /// What it was.
        message: String,
        /// The guest's functions on the way there, the last one first: `module!function@0xOFFSET`.
        backtrace: Vec<String>,
    },
    /// The plugin used something that it was not granted.
    #[error("{capability} was used and is not granted")]
    Denied {
        /// The interface it belongs to: `wasi:random/random`.
        capability: String,
    },
    /// The function's own answer is an error: the `err` of its `result`.
    #[error("the plugin answers with an error: {}", told(.0))]
    Guest(Option<Box<Val>>),
    /// Types differ.
    #[error("{what}: expected {expected}, found {found}")]
    Incompatible {
        /// What has the type: a function, an import.
        what: String,
        /// What the other side has.
        expected: String,
        /// What there is.
        found: String,
    },
    /// The plugin exports no such function.
    #[error("no function {name}; there {}", listed(.has))]
    NoFunction {
        /// What was asked for.
        name: String,
        /// What there is.
        has: Vec<String>,
    },
    /// A function of the host failed.
    #[error("a function of the host failed: {0}")]
    Host(String),
    /// A function of the host panicked.
    #[error("a function of the host panicked: {0}")]
    Panic(String),
    /// There are as many instances as there can be.
    #[error("no room for another instance: {0}")]
    Busy(String),
    /// It has failed and is left alone for a while.
    #[error("resting for {left:?} after a failure")]
    Resting {
        /// How long.
        left: Duration,
    },
    /// The code cannot be read, compiled or linked.
    #[error(transparent)]
    Load(#[from] crate::Error),
}

fn told(value: &Option<Box<Val>>) -> String {
    value.as_ref().map_or("null".to_owned(), |value| super::json::write(value).to_string())
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "is none".to_owned(),
        [one] => format!("is {one}"),
        many => format!("are {}", many.join(", ")),
    }
}

/// What the host itself ends a call for; travels through wasmtime's errors.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("deadline")]
    Deadline(Duration),
    #[error("cancelled")]
    Cancelled,
    #[error("{0} is not granted")]
    Denied(String),
    #[error("{0}")]
    Host(String),
    #[error("{0}")]
    Panic(String),
}

impl Error {
    /// What an error of wasmtime's means. `fuel` is the limit of the call.
    pub(super) fn of(error: &wasmtime::Error, fuel: Option<u64>) -> Self {
        match error.downcast_ref::<Ended>() {
            Some(Ended::Deadline(limit)) => return Self::Deadline { limit: *limit },
            Some(Ended::Cancelled) => return Self::Cancelled,
            Some(Ended::Denied(capability)) => return Self::Denied { capability: capability.clone() },
            Some(Ended::Host(why)) => return Self::Host(why.clone()),
            Some(Ended::Panic(why)) => return Self::Panic(why.clone()),
            None => {}
        }
        if let Some(Exceeded::Memory { limit, .. }) = error.downcast_ref::<Exceeded>() {
            return Self::OutOfMemory { limit: *limit };
        }
        if let Some(full) = error.downcast_ref::<wasmtime::PoolConcurrencyLimitError>() {
            return Self::Busy(full.to_string());
        }
        let message = match (error.downcast_ref::<Trap>(), error.downcast_ref::<I32Exit>()) {
            (Some(Trap::OutOfFuel), _) => return Self::OutOfFuel { limit: fuel.unwrap_or_default() },
            (Some(trap), _) => trap.to_string(),
            (None, Some(I32Exit(code))) => format!("the plugin exited with code {code}"),
            (None, None) => error.root_cause().to_string(),
        };
        let backtrace = error.downcast_ref::<WasmBacktrace>().map(frames).unwrap_or_default();
        Self::Trap { message, backtrace }
    }

    /// The error that the plugin itself gave, as JSON; `None` for every other.
    pub fn guest_json(&self) -> Option<String> {
        let Self::Guest(value) = self else { return None };
        Some(told(value))
    }

    /// Whether the instance may be used again after this, and the plugin is not to blame.
    pub(super) fn is_harmless(&self) -> bool {
        matches!(self, Self::Guest(_) | Self::NoFunction { .. } | Self::Incompatible { .. })
    }
}

/// How deep a backtrace is told: a guest may call itself a hundred thousand times.
const DEEPEST: usize = 64;

fn frames(trace: &WasmBacktrace) -> Vec<String> {
    let named = |frame: &wasmtime::FrameInfo| {
        let module = frame.module().name().unwrap_or("<module>");
        let function = match frame.func_name() {
            // What a guest calls its functions is its own business, up to here.
            Some(name) => name.chars().take(200).collect(),
            None => format!("<function {}>", frame.func_index()),
        };
        match frame.module_offset() {
            Some(offset) => format!("{module}!{function}@{offset:#x}"),
            None => format!("{module}!{function}"),
        }
    };
    trace.frames().iter().take(DEEPEST).map(named).collect()
}
