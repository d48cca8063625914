//! What stands behind one instance besides WASI: the call that is under way, and the host's own data.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::{Store, UpdateDeadline};

use super::error::Ended;
use super::kv::Kv;
use super::options::Cancel;
use super::version::Version;
use crate::wasm::limits::Budget;
use crate::wasm::p2::State;

/// What [`State`] has for plugins.
#[derive(Default)]
pub(in crate::wasm) struct Inside {
    pub(super) until: Option<(Instant, Duration)>,
    pub(super) cancel: Option<Cancel>,
    /// The thread belongs to others, too.
    pub(super) yields: bool,
    pub(super) kv: Option<Arc<Kv>>,
    /// What a call may hand over, if that is not wasmtime's own limit; and that one.
    pub(super) output: Option<(usize, usize)>,
    data: Option<Box<dyn Any + Send>>,
}

impl Inside {
    /// Whether the call has to end.
    pub(super) fn check(&self) -> Result<(), Ended> {
        if self.cancel.as_ref().is_some_and(Cancel::is_cancelled) {
            return Err(Ended::Cancelled);
        }
        match self.until {
            Some((end, limit)) if Instant::now() >= end => Err(Ended::Deadline(limit)),
            _ => Ok(()),
        }
    }
}

impl State {
    /// The host's own data for this instance, made with the first use. One type for each plugin: another one begins anew.
    pub fn data<T: Any + Default + Send>(&mut self) -> &mut T {
        let slot = &mut self.inside().data;
        if !slot.as_ref().is_some_and(|data| data.is::<T>()) {
            *slot = Some(Box::new(T::default()));
        }
        let data = slot.as_mut().and_then(|data| data.downcast_mut());
        // It was made or checked just now.
        data.unwrap_or_else(|| unreachable!("data of another type"))
    }
}

/// A store for an instance of `version`, whose memory is also counted in `all`.
pub(super) fn store(version: &Version, all: &Budget) -> Store<State> {
    let limiter = version.memory().limiter().counted_by(all.clone());
    let mut state = State::new(Arc::clone(&version.given), limiter);
    state.inside().kv.clone_from(&version.kv);
    let mut store = Store::new(&version.engine, state);
    store.limiter(|state| crate::wasm::limits::Limited::limiter(state));
    store.epoch_deadline_callback(|mut store| {
        let inside = store.data_mut().inside();
        inside.check()?;
        Ok(if inside.yields { UpdateDeadline::Yield(1) } else { UpdateDeadline::Continue(1) })
    });
    store
}
