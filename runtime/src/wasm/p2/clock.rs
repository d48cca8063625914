//! `wasi:clocks/monotonic-clock@0.2`: wasmtime's starts an async runtime for timers of its own, ours waits in the one
//! there is ([`super::driver`]).

use std::time::{Duration, Instant};

use wasmtime::component::{HasData, Resource, ResourceTable};
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock;
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

use super::State;
use super::driver;
use super::streams::Later;

/// Names this host to the linker.
pub(in crate::wasm) struct Clock;

impl HasData for Clock {
    type Data<'a> = View<'a>;
}

/// What the calls work on.
pub(in crate::wasm) struct View<'a> {
    started: Instant,
    table: &'a mut ResourceTable,
}

pub(in crate::wasm) fn view(state: &mut State) -> View<'_> {
    View { started: state.started, table: &mut state.wasi().table }
}

impl View<'_> {
    /// Nanoseconds since the guest was set up; enough for 584 years.
    pub(in crate::wasm) fn nanoseconds(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl monotonic_clock::Host for View<'_> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.nanoseconds())
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(1)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let left = when.saturating_sub(self.nanoseconds());
        self.subscribe_duration(left)
    }

    fn subscribe_duration(&mut self, nanoseconds: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let timer = self.table.push(Timer::after(nanoseconds))?;
        subscribe(self.table, timer)
    }
}

/// A point in time to be waited for.
pub(in crate::wasm) enum Timer {
    Over {
        yielded: bool,
    },
    At(Instant),
    /// So far away that this system cannot express it.
    Never,
}

impl Timer {
    pub(in crate::wasm) fn after(nanoseconds: u64) -> Self {
        match Instant::now().checked_add(Duration::from_nanos(nanoseconds)) {
            _ if nanoseconds == 0 => Self::Over { yielded: false },
            Some(at) => Self::At(at),
            None => Self::Never,
        }
    }

    /// Waits for it.
    pub(in crate::wasm) async fn wait(&mut self) {
        match self {
            // A guest that polls in a loop with no time to wait must let others' input come in.
            Self::Over { yielded: false } => {
                *self = Self::Over { yielded: true };
                tokio::task::yield_now().await;
            }
            Self::Over { yielded: true } => {}
            Self::At(at) => {
                driver::runtime().await;
                tokio::time::sleep_until((*at).into()).await;
            }
            Self::Never => std::future::pending().await,
        }
    }
}

impl Pollable for Timer {
    fn ready<'a, 'b>(&'a mut self) -> Later<'b, ()>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(self.wait())
    }
}
