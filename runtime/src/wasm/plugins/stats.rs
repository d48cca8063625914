//! What has happened to a plugin.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::Error;
use crate::wasm::limits::Budget;

/// Steps of the distribution of times: each is twice the one before, the first ends at a microsecond.
const STEPS: usize = 32;

/// Counts since the plugin was loaded, over all versions of its code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Calls that have ended, in whatever way.
    pub calls: u64,
    /// Calls that the plugin answered with an error of its own.
    pub errors: u64,
    /// Calls that ended in a trap.
    pub traps: u64,
    /// Calls that took too long.
    pub deadlines: u64,
    /// Calls that wanted too much memory or fuel.
    pub exhausted: u64,
    /// Calls that used what is not granted.
    pub denied: u64,
    /// Calls that the host gave up.
    pub cancelled: u64,
    /// Calls that failed in a function of the host.
    pub host: u64,
    /// Calls that were not begun: types that differ, no room, resting after a failure.
    pub refused: u64,
    /// Instances made.
    pub instances: u64,
    /// Instances that wait for a call.
    pub warm: u64,
    /// How often the code was replaced.
    pub reloads: u64,
    /// Bytes that memories and tables of its instances hold now, of those that wait and those that are called.
    pub memory: u64,
    /// The most bytes that one instance held at the end of a call.
    pub largest: u64,
    /// The time of all calls together.
    pub busy: Duration,
    /// The longest call.
    pub longest: Duration,
    /// How many calls took at most 1, 2, 4, 8 ... microseconds; the last one counts all longer ones.
    pub times: Vec<u64>,
}

impl Stats {
    /// The time that so many of a hundred calls did not exceed, to the next power of two.
    pub fn percentile(&self, percent: f64) -> Duration {
        let all: u64 = self.times.iter().sum();
        #[expect(clippy::cast_precision_loss, reason = "counts are far from where it matters")]
        let wanted = all as f64 * percent / 100.0;
        let mut seen = 0;
        for (step, count) in self.times.iter().enumerate() {
            seen += count;
            #[expect(clippy::cast_precision_loss, reason = "as above")]
            if seen as f64 >= wanted {
                return Duration::from_micros(1 << step);
            }
        }
        self.longest
    }
}

/// The counters themselves.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) memory: Budget,
    largest: AtomicU64,
    errors: AtomicU64,
    traps: AtomicU64,
    deadlines: AtomicU64,
    exhausted: AtomicU64,
    denied: AtomicU64,
    cancelled: AtomicU64,
    host: AtomicU64,
    refused: AtomicU64,
    pub(super) instances: AtomicU64,
    pub(super) reloads: AtomicU64,
    busy: AtomicU64,
    longest: AtomicU64,
    times: [AtomicU64; STEPS],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            memory: Budget::new(None),
            largest: AtomicU64::default(),
            errors: AtomicU64::default(),
            traps: AtomicU64::default(),
            deadlines: AtomicU64::default(),
            exhausted: AtomicU64::default(),
            denied: AtomicU64::default(),
            cancelled: AtomicU64::default(),
            host: AtomicU64::default(),
            refused: AtomicU64::default(),
            instances: AtomicU64::default(),
            reloads: AtomicU64::default(),
            busy: AtomicU64::default(),
            longest: AtomicU64::default(),
            times: Default::default(),
        }
    }
}

impl Counters {
    /// Sees how much an instance held.
    pub(super) fn held(&self, bytes: u64) {
        if bytes > self.largest.load(Relaxed) {
            self.largest.fetch_max(bytes, Relaxed);
        }
    }

    /// Counts a call that was begun.
    pub(super) fn ended(&self, took: Duration, failed: Option<&Error>) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let micros = nanoseconds.div_ceil(1000).max(1);
        let step = (u64::BITS - (micros - 1).leading_zeros()) as usize;
        self.times[step.min(STEPS - 1)].fetch_add(1, Relaxed);
        self.busy.fetch_add(nanoseconds, Relaxed);
        if nanoseconds > self.longest.load(Relaxed) {
            self.longest.fetch_max(nanoseconds, Relaxed);
        }
        if let Some(error) = failed {
            let counter = match error {
                Error::Guest(_) => &self.errors,
                Error::Deadline { .. } => &self.deadlines,
                Error::OutOfMemory { .. } | Error::OutOfFuel { .. } => &self.exhausted,
                Error::Denied { .. } => &self.denied,
                Error::Cancelled => &self.cancelled,
                Error::Host(_) | Error::Panic(_) => &self.host,
                Error::Trap { .. } => &self.traps,
                _ => &self.refused,
            };
            counter.fetch_add(1, Relaxed);
        }
    }

    /// Counts a call that was not begun.
    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(super) fn read(&self, warm: usize) -> Stats {
        let times: Vec<u64> = self.times.iter().map(|count| count.load(Relaxed)).collect();
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        Stats {
            calls: times.iter().sum(),
            errors: get(&self.errors),
            traps: get(&self.traps),
            deadlines: get(&self.deadlines),
            exhausted: get(&self.exhausted),
            denied: get(&self.denied),
            cancelled: get(&self.cancelled),
            host: get(&self.host),
            refused: get(&self.refused),
            instances: get(&self.instances),
            warm: warm as u64,
            reloads: get(&self.reloads),
            memory: self.memory.used(),
            largest: get(&self.largest),
            busy: Duration::from_nanos(get(&self.busy)),
            longest: Duration::from_nanos(get(&self.longest)),
            times,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_their_steps() {
        let counters = Counters::default();
        for micros in [0, 1, 2, 3, 4, 5, 1000, 1 << 40] {
            counters.ended(Duration::from_micros(micros), None);
        }
        let stats = counters.read(0);
        assert_eq!(&stats.times[..4], [2, 1, 2, 1]);
        assert_eq!((stats.times[10], stats.times[STEPS - 1], stats.calls), (1, 1, 8));
        assert_eq!(stats.percentile(50.0), Duration::from_micros(4));
        assert_eq!(stats.longest, Duration::from_micros(1 << 40));
    }
}
