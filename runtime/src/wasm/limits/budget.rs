//! Counting what memories and tables take, over all instances of one task.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wasmtime::ResourceLimiter;

use super::Exceeded;

/// What a table's element takes in wasmtime.
const ELEMENT: u64 = size_of::<usize>() as u64;
/// More elements than this no table gets, as in browsers; growing one further fails and ends nothing.
const TABLE_MAX: usize = 10_000_000;
/// Each memory reserves gigabytes of addresses, of which a process has a limited number.
const MEMORIES_MAX: usize = 1000;
const TABLES_MAX: usize = 1000;

/// The memory that all stores of one task share.
#[derive(Debug, Clone)]
pub(in crate::wasm) struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: u64,
    used: AtomicU64,
}

/// One store's share of a [`Budget`]; it goes back when this is dropped.
#[derive(Debug)]
pub(in crate::wasm) struct Limiter {
    budget: Budget,
    held: u64,
    /// What was taken last, until it is certain that the growth took place.
    last: u64,
    /// What this store alone may hold.
    most: u64,
    /// Where the same is counted once more, with others.
    also: Option<Budget>,
}

impl Budget {
    pub(in crate::wasm) fn new(limit: Option<u64>) -> Self {
        Self(Arc::new(Shared { limit: limit.unwrap_or(u64::MAX), used: AtomicU64::new(0) }))
    }

    /// For a store of this task.
    pub(in crate::wasm) fn limiter(&self) -> Limiter {
        Limiter { budget: self.clone(), held: 0, last: 0, most: u64::MAX, also: None }
    }

    /// What all stores hold.
    pub(in crate::wasm) fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> Result<(), Exceeded> {
        let Shared { limit, used } = &*self.0;
        let more = |used: u64| used.checked_add(bytes).filter(|wanted| wanted <= limit);
        match used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(()),
            Err(used) => Err(Exceeded::Memory { limit: *limit, used, wanted: bytes }),
        }
    }

    fn give_back(&self, bytes: u64) {
        self.0.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Limiter {
    /// Counts what this store holds there, too.
    pub(in crate::wasm) fn counted_by(mut self, also: Budget) -> Self {
        self.also = Some(also);
        self
    }

    /// From now on this store alone holds no more than this.
    pub(in crate::wasm) fn set_most(&mut self, most: u64) {
        self.most = most;
    }

    /// What this store holds.
    pub(in crate::wasm) fn held(&self) -> u64 {
        self.held
    }

    fn grow(&mut self, current: u64, desired: u64) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        if more > self.most.saturating_sub(self.held) {
            return Err(Exceeded::Memory { limit: self.most, used: self.held, wanted: more }.into());
        }
        self.budget.take(more)?;
        if let Some(also) = &self.also {
            also.take(more).inspect_err(|_| self.budget.give_back(more))?;
        }
        self.held += more;
        self.last = more;
        Ok(true)
    }

    fn give_back(&self, bytes: u64) {
        self.budget.give_back(bytes);
        if let Some(also) = &self.also {
            also.give_back(bytes);
        }
    }

    /// What was permitted did not happen.
    fn undo(&mut self) {
        self.give_back(self.last);
        self.held -= self.last;
        self.last = 0;
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.last = 0;
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.grow(current as u64, desired as u64)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.undo();
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.last = 0;
        if desired > maximum.unwrap_or(usize::MAX).min(TABLE_MAX) {
            return Ok(false);
        }
        self.grow(current as u64 * ELEMENT, desired as u64 * ELEMENT)
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.undo();
        Ok(())
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.give_back(self.held);
    }
}
