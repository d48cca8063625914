//! How much a Wasm program may use, and how it ends when it wants more.
//!
//! What the OCI specification has words for is taken from there: `linux.resources.memory.limit` bounds what a guest can
//! make this process allocate for it, its linear memories and tables together. The rest is [`Limits`].
//!
//! | limit | kept by | the guest's end |
//! |---|---|---|
//! | memory | a count of what memories and tables grow by | signal 9, and [`Task::out_of_memory`] |
//! | fuel | code that counts instructions | exit code 152 (128 + `SIGXCPU`) |
//! | time | code that looks at a counter, and a thread that moves it | exit code 124, as of `timeout(1)` |
//! | processors | the same, which lets the guest rest | none |
//!
//! Code that counts is slower, so it is compiled only for those who ask (see `engine.rs`). What needs the kernel is not
//! here: a caller with a control group puts this process into it.
//!
//! [`Task::out_of_memory`]: super::Task::out_of_memory

mod budget;
mod clock;

use std::time::Duration;

use wasmtime::{Store, Trap};

use super::engine::Flavor;
use crate::error::{Error, Result};
use crate::signal::Signal;
use crate::spec::Spec;
use crate::task::ExitStatus;

pub(super) use budget::{Budget, Limiter};
pub(super) use clock::{Clock, Overrun};

/// Exit code of a guest that has used up its fuel: what a shell shows for `SIGXCPU`.
pub const OUT_OF_FUEL: u8 = 152;
/// Exit code of a guest whose time is over: what `timeout(1)` answers.
pub const OUT_OF_TIME: u8 = 124;

/// Limits of a Wasm task beyond the specification's.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Limits {
    /// How many instructions it may execute, roughly (wasmtime's units of fuel).
    pub fuel: Option<u64>,
    /// How long it may run, by the clock on the wall.
    pub timeout: Option<Duration>,
    /// How many processors' time it may use, kept by letting it rest in this process: for where no control group does
    /// it. Positive; more than the machine has is no limit.
    pub cpus: Option<f64>,
}

/// All limits of one task.
#[derive(Debug, Clone, Default)]
pub(super) struct Bounds {
    memory: Option<u64>,
    limits: Limits,
    pub(super) overrun: Overrun,
}

/// A limit that a guest has run into.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(super) enum Exceeded {
    #[error("memory limit of {} exceeded: it had {} and wanted {} more", size(*.limit), size(*.used), size(*.wanted))]
    Memory { limit: u64, used: u64, wanted: u64 },
    #[error("fuel limit of {limit} exceeded")]
    Fuel { limit: u64 },
    #[error("time limit of {limit:?} exceeded")]
    Time { limit: Duration },
}

/// A store's data that has a [`Limiter`].
pub(super) trait Limited: 'static {
    /// Counts this store's memories and tables.
    fn limiter(&mut self) -> &mut Limiter;
}

impl Bounds {
    pub(super) fn of(spec: &Spec, limits: &Limits) -> Result<Self> {
        let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        let memory = resources.and_then(|resources| resources.memory().as_ref()?.limit());
        if limits.cpus.is_some_and(|cpus| !(cpus.is_finite() && cpus > 0.0)) {
            return Err(Error::InvalidSpec { field: "cpus", reason: "not a positive number".to_owned() });
        }
        let mut limits = limits.clone();
        // A program has one thread and cannot use more than one processor.
        limits.cpus = limits.cpus.filter(|cpus| *cpus < 1.0);
        // Negative is the specification's "no limit".
        Ok(Self {
            memory: memory.and_then(|limit| u64::try_from(limit).ok()),
            limits,
            overrun: Overrun::default(),
        })
    }

    /// The code that keeps these.
    pub(super) fn flavor(&self) -> Flavor {
        Flavor { fuel: self.limits.fuel.is_some(), epoch: self.needs_clock() }
    }

    /// Those beyond the specification's.
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    fn needs_clock(&self) -> bool {
        self.limits.timeout.is_some() || self.limits.cpus.is_some()
    }

    /// The memory that all stores of one task share.
    pub(super) fn budget(&self) -> Budget {
        Budget::new(self.memory)
    }

    /// Puts a store under these limits. Its time begins with the returned clock, which must live as long as it runs.
    pub(super) fn arm<T: Limited>(&self, store: &mut Store<T>) -> Result<Option<Clock>> {
        store.limiter(|data| data.limiter());
        if let Some(fuel) = self.limits.fuel {
            // Fails only for code that does not count.
            store.set_fuel(fuel).ok();
        }
        if !self.needs_clock() {
            // Code that can be interrupted is not: nobody moves the epoch.
            store.set_epoch_deadline(1);
            return Ok(None);
        }
        let clock = Clock::start(store.engine(), &self.limits, self.overrun.clone())?;
        clock.govern(store);
        Ok(Some(clock))
    }

    /// Which limit it was that stopped a guest, if it was one.
    pub(super) fn exceeded(&self, error: &wasmtime::Error) -> Option<Exceeded> {
        if let Some(exceeded) = error.downcast_ref::<Exceeded>() {
            return Some(exceeded.clone());
        }
        match (error.downcast_ref::<Trap>(), self.limits.fuel) {
            (Some(Trap::OutOfFuel), Some(limit)) => Some(Exceeded::Fuel { limit }),
            _ => None,
        }
    }
}

impl Exceeded {
    /// How the task has ended.
    pub(super) fn status(&self) -> ExitStatus {
        match self {
            Self::Memory { .. } => ExitStatus::Signaled(Signal::KILL),
            Self::Fuel { .. } => ExitStatus::Code(OUT_OF_FUEL),
            Self::Time { .. } => ExitStatus::Code(OUT_OF_TIME),
        }
    }
}

/// Bytes in the largest unit that leaves something before the point.
fn size(bytes: u64) -> String {
    let (unit, shift) = match bytes {
        0..0x400 => return format!("{bytes} bytes"),
        0x400..0x10_0000 => ("KiB", 0),
        0x10_0000..0x4000_0000 => ("MiB", 10),
        _ => ("GiB", 20),
    };
    let tenths = u128::from(bytes) * 10 / (1 << (10 + shift));
    match tenths % 10 {
        0 => format!("{} {unit}", tenths / 10),
        rest => format!("{}.{rest} {unit}", tenths / 10),
    }
}

#[cfg(test)]
mod tests;
