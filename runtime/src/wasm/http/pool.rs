//! What instances are made from while somebody is connected: the linked code, over an engine that has memories, tables
//! and stacks set aside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tokio::sync::Semaphore;
use wasmtime::component::Linker;
use wasmtime::{Enabled, Engine, PoolingAllocationConfig, Store, UpdateDeadline};
use wasmtime_wasi_http::handler::{Proxy, ProxyPre};
use wasmtime_wasi_http::{p2, p3};

use super::server::Service;
use crate::error::Result;
use crate::wasm::imports::Track;
use crate::wasm::limits::{Budget, Limited as _};
use crate::wasm::module::invalid;
use crate::wasm::p2::{Given, State, link};

/// Requests that are answered at the same time; others wait for their turn.
pub(super) const CONCURRENCY: u32 = 128;
/// Modules and memories of one component: its own, an adapter's, and those of what it was composed from.
const PARTS: u32 = 8;
/// Of each memory this much stays and is set to zero after use, which is cheaper than giving the pages back.
const KEPT_MEMORY: usize = 256 << 10;
const KEPT_STACK: usize = 32 << 10;
/// How often a program that computes lets others have the thread.
const TICK: Duration = Duration::from_millis(10);

/// A service in use.
pub(super) struct Pool {
    pub(super) service: Arc<Service>,
    engine: Engine,
    pre: ProxyPre<State>,
    given: Arc<Given>,
    /// One for each request that is being answered.
    pub(super) turns: Arc<Semaphore>,
    /// The memory of all instances together.
    budget: Budget,
    ticking: Arc<AtomicBool>,
}

impl Pool {
    /// Sets everything up, about a millisecond's work.
    pub(super) fn new(service: Arc<Service>) -> Result<Arc<Self>> {
        let (engine, component) = (service.engine.clone(), &service.component);
        let mut linker = Linker::<State>::new(&engine);
        link::link(&engine, component, &service.shown, &mut linker)?;
        let failed = |error: wasmtime::Error| invalid(&service.shown, format!("{error:#}"));
        let pre = linker.instantiate_pre(component).map_err(failed)?;
        let pre = match service.track {
            Track::V2 => ProxyPre::P2(p2::bindings::ProxyPre::new(pre).map_err(failed)?),
            Track::V3 => ProxyPre::P3(p3::bindings::ServicePre::new(pre).map_err(failed)?),
        };
        let ticking = Arc::new(AtomicBool::new(true));
        let turns = Arc::new(Semaphore::new(CONCURRENCY as usize));
        tick(engine.clone(), Arc::clone(&ticking));
        let budget = service.guest.bounds.budget();
        let given = Arc::new(Given::of(&service.guest));
        Ok(Arc::new(Self { service, engine, pre, given, turns, budget, ticking }))
    }

    /// A new instance, and the store it lives in.
    pub(super) async fn instance(&self) -> wasmtime::Result<(Store<State>, Proxy)> {
        let mut store = Store::new(&self.engine, State::new(Arc::clone(&self.given), self.budget.limiter()));
        store.limiter(|state| state.limiter());
        if let Some(fuel) = self.service.guest.bounds.limits().fuel {
            store.set_fuel(fuel)?;
        }
        store.set_epoch_deadline(1);
        // Its thread looks for what else has come before it goes on.
        store.epoch_deadline_callback(|_| {
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
        });
        let proxy = self.pre.instantiate_async(&mut store).await?;
        Ok((store, proxy))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.ticking.store(false, Ordering::Relaxed);
    }
}

/// Moves the engine's clock for as long as the pool is there. Without a thread for it, programs are not interrupted,
/// and the rest works.
fn tick(engine: Engine, ticking: Arc<AtomicBool>) {
    let ticker = thread::Builder::new().name("ticker".to_owned()).stack_size(64 << 10);
    drop(ticker.spawn(move || {
        while ticking.load(Ordering::Relaxed) {
            thread::sleep(TICK);
            engine.increment_epoch();
        }
    }));
}

/// How much of everything is set aside: addresses, no memory.
pub(in crate::wasm) fn settings() -> PoolingAllocationConfig {
    let mut settings = PoolingAllocationConfig::new();
    settings
        .total_component_instances(CONCURRENCY)
        .total_core_instances(CONCURRENCY * PARTS)
        .total_memories(CONCURRENCY * 2)
        .total_tables(CONCURRENCY * PARTS)
        .total_stacks(CONCURRENCY)
        .table_elements(100_000)
        .max_core_instances_per_component(200)
        .max_memories_per_component(50)
        .max_tables_per_component(100)
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(4 << 20)
        .max_unused_warm_slots(CONCURRENCY)
        .linear_memory_keep_resident(KEPT_MEMORY)
        .table_keep_resident(16 << 10)
        .async_stack_keep_resident(KEPT_STACK)
        .pagemap_scan(Enabled::Auto);
    settings
}
