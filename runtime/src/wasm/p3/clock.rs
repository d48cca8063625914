//! `wasi:clocks/monotonic-clock@0.3`, the same clock as version 0.2's.

use wasmtime::component::Accessor;
use wasmtime_wasi::p3::bindings::clocks::monotonic_clock;

use crate::wasm::p2::{Clock, ClockView, Timer};

impl<T: 'static> monotonic_clock::HostWithStore<T> for Clock {
    async fn wait_until(store: &Accessor<T, Self>, when: u64) -> wasmtime::Result<()> {
        let now = store.with(|mut store| store.get().nanoseconds());
        if when > now {
            Timer::after(when - now).wait().await;
        }
        Ok(())
    }

    async fn wait_for(_: &Accessor<T, Self>, nanoseconds: u64) -> wasmtime::Result<()> {
        // Nothing to wait for is over at once, so that a guest may ask in passing.
        if nanoseconds > 0 {
            Timer::after(nanoseconds).wait().await;
        }
        Ok(())
    }
}

impl monotonic_clock::Host for ClockView<'_> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.nanoseconds())
    }

    fn get_resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(1)
    }
}
