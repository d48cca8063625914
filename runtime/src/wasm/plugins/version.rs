//! One piece of code, compiled and linked, and the instances made of it.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use wasmtime::component::{Component, Instance, InstancePre};
use wasmtime::{Engine, Store};

use super::entry::{Entry, by_name, entries};
use super::kv::Kv;
use super::link::Needs;
use super::stats::Counters;
use super::{Error, Keep, Limits, state, values};
use crate::wasm::limits::{Budget, Limited};
use crate::wasm::p2::{Given, State};

/// Which instance a call gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pool {
    /// One of its own, made for it: nothing of a call is seen by the next one.
    #[default]
    Fresh,
    /// One that may have served others: quicker, and its memory is as they have left it.
    Warm {
        /// How many are kept.
        size: usize,
        /// After how many calls one is given up.
        calls: u32,
        /// After how long without a call one is given up.
        idle: Duration,
    },
}

/// A function that a plugin exports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its name, behind that of its interface if it is in one: `acme:filter/api@1.0.0#handle`.
    pub name: String,
    /// Its type as WIT writes it.
    pub ty: String,
}

/// Code that instances are made of.
pub(super) struct Version {
    pub(super) engine: Engine,
    pub(super) needs: Needs,
    pub(super) given: Arc<Given>,
    /// What its files need.
    _keep: Option<Keep>,
    pub(super) kv: Option<Arc<Kv>>,
    pub(super) limits: Limits,
    pre: InstancePre<State>,
    entries: Vec<Entry>,
    /// By full name, and by the name alone where that is enough.
    by_name: HashMap<String, usize>,
    pool: Pool,
    /// Those used last are at the end.
    warm: Mutex<VecDeque<Live>>,
}

/// Code with all that its instances get.
pub(super) struct Linked {
    pub(super) pre: InstancePre<State>,
    pub(super) needs: Needs,
    pub(super) given: Arc<Given>,
    /// What its files need.
    pub(super) keep: Option<Keep>,
    pub(super) kv: Option<Arc<Kv>>,
    pub(super) limits: Limits,
    pub(super) pool: Pool,
}

/// An instance between two calls, or in one.
pub(super) struct Live {
    pub(super) store: Store<State>,
    pub(super) instance: Instance,
    calls: u32,
    since: Instant,
}

impl Version {
    pub(super) fn new(engine: &Engine, component: &Component, linked: Linked) -> Self {
        let Linked { pre, needs, given, keep, kv, limits, pool } = linked;
        let entries = entries(engine, component);
        let by_name = by_name(entries.iter().map(|entry| entry.name.as_str()));
        Self {
            engine: engine.clone(),
            needs,
            given,
            _keep: keep,
            kv,
            limits,
            pre,
            entries,
            by_name,
            pool,
            warm: Mutex::default(),
        }
    }

    /// The function of that name.
    pub(super) fn entry(&self, name: &str) -> Result<&Entry, Error> {
        let found = self.by_name.get(name).and_then(|number| self.entries.get(*number));
        found.ok_or_else(|| Error::NoFunction {
            name: name.to_owned(),
            has: self.entries.iter().map(|entry| entry.name.clone()).collect(),
        })
    }

    /// All it exports.
    pub(super) fn functions(&self) -> Vec<Function> {
        let told = |entry: &Entry| Function { name: entry.name.clone(), ty: values::function(&entry.ty) };
        self.entries.iter().map(told).collect()
    }

    /// The memory that one instance may have.
    pub(super) fn memory(&self) -> Budget {
        Budget::new(self.limits.memory)
    }

    /// An instance that has served before, and does not hold more than `most` bytes.
    pub(super) fn take(&self, most: Option<u64>) -> Option<Live> {
        let Pool::Warm { idle, .. } = self.pool else { return None };
        let found = self.warm().pop_back();
        // Those before it have waited longer.
        let mut live = found.filter(|live| live.since.elapsed() <= idle)?;
        let fits = most.is_none_or(|most| Limited::limiter(live.store.data_mut()).held() <= most);
        fits.then_some(live)
    }

    /// A store for a new instance.
    pub(super) fn store(&self, counters: &Counters) -> Store<State> {
        state::store(self, &counters.memory)
    }

    /// Makes an instance in a store, of code whose imports never wait.
    pub(super) fn make(&self, mut store: Store<State>, counters: &Counters) -> wasmtime::Result<Live> {
        let instance = self.pre.instantiate(&mut store)?;
        Ok(Self::made(store, instance, counters))
    }

    /// As [`Version::make`], of any code.
    pub(super) async fn make_waiting(
        &self,
        mut store: Store<State>,
        counters: &Counters,
    ) -> wasmtime::Result<Live> {
        let instance = self.pre.instantiate_async(&mut store).await?;
        Ok(Self::made(store, instance, counters))
    }

    fn made(store: Store<State>, instance: Instance, counters: &Counters) -> Live {
        counters.instances.fetch_add(1, Ordering::Relaxed);
        Live { store, instance, calls: 0, since: Instant::now() }
    }

    /// Keeps an instance that has served well, if there is a place for it.
    pub(super) fn give_back(&self, mut live: Live, now: Instant) {
        let Pool::Warm { size, calls, idle } = self.pool else { return };
        live.calls += 1;
        if live.calls >= calls {
            return;
        }
        live.since = now;
        let stale = {
            let mut warm = self.warm();
            let stale = warm.front().is_some_and(|oldest| now.duration_since(oldest.since) > idle);
            let stale = if stale { warm.pop_front() } else { None };
            if warm.len() < size {
                warm.push_back(live);
            }
            stale
        };
        // Not while others wait for the lock.
        drop(stale);
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.warm().len()
    }

    fn warm(&self) -> std::sync::MutexGuard<'_, VecDeque<Live>> {
        self.warm.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Version")
            .field("limits", &self.limits)
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}
