//! Time: a deadline, and a share of the processors, kept by interrupting the guest's code.
//!
//! A thread moves wasmtime's epoch; code compiled for that looks at it at every loop and function, and calls back here,
//! on the guest's own thread. A guest that waits inside a host call executes no code: see [`Overrun`].

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use wasmtime::{Engine, Store, UpdateDeadline};

use super::{Exceeded, Limits};
use crate::error::{Error, Result};

/// How often a guest under a share of the processors is looked at.
const TICK: Duration = Duration::from_millis(5);
/// A guest may use its share of this much time at once, like the kernel's default.
const PERIOD: Duration = Duration::from_millis(100);
/// How long a guest may take to notice that its time is over.
const GRACE: Duration = Duration::from_millis(50);

/// What is done on the thread of the clock with a guest that is in a host call when its time is over, and stays there.
/// Nothing, unless somebody says what.
#[derive(Clone, Default)]
pub(in crate::wasm) struct Overrun(Arc<Mutex<Option<Action>>>);

type Action = Box<dyn FnOnce(Exceeded) + Send>;

impl Overrun {
    pub(in crate::wasm) fn set(&self, action: Action) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(action);
    }

    fn happened(&self, exceeded: Exceeded) {
        let action = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(action) = action {
            action(exceeded);
        }
    }
}

impl std::fmt::Debug for Overrun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overrun").finish_non_exhaustive()
    }
}

/// The thread that moves the epoch. It ends with this.
pub(in crate::wasm) struct Clock {
    deadline: Option<(Instant, Duration)>,
    share: Option<f64>,
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Clock {
    pub(super) fn start(engine: &Engine, limits: &Limits, overrun: Overrun) -> Result<Self> {
        let deadline = limits.timeout.and_then(|limit| Some((Instant::now().checked_add(limit)?, limit)));
        let (stop, stopped) = sync_channel(1);
        let work = {
            let (engine, ticks) = (engine.clone(), limits.cpus.is_some());
            move || {
                loop {
                    let left = deadline.map(|(end, _)| end.saturating_duration_since(Instant::now()));
                    let pause = match (ticks, left) {
                        (true, left) => left.unwrap_or(TICK).min(TICK),
                        (false, Some(left)) => left,
                        (false, None) => return,
                    };
                    if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                        return;
                    }
                    engine.increment_epoch();
                    if let Some((end, limit)) = deadline
                        && Instant::now() >= end
                    {
                        if stopped.recv_timeout(GRACE) == Err(RecvTimeoutError::Timeout) {
                            overrun.happened(Exceeded::Time { limit });
                        }
                        return;
                    }
                }
            }
        };
        let thread =
            std::thread::Builder::new().name("clock".to_owned()).stack_size(64 * 1024).spawn(work).map_err(
                |source| Error::Setup { action: "start the clock of a time limit".to_owned(), source },
            )?;
        Ok(Self { deadline, share: limits.cpus, stop: Some(stop), thread: Some(thread) })
    }

    /// Whether there is a time at which it is over.
    pub(in crate::wasm) fn has_end(&self) -> bool {
        self.deadline.is_some()
    }

    /// Waits for `work`, inside of an async runtime if there is a deadline. The guest may rest in the host meanwhile.
    pub(in crate::wasm) async fn within<T>(
        clock: Option<&Self>,
        work: impl Future<Output = wasmtime::Result<T>>,
    ) -> wasmtime::Result<T> {
        match clock.and_then(|clock| clock.deadline) {
            None => work.await,
            Some((end, limit)) => match tokio::time::timeout_at(end.into(), work).await {
                Ok(done) => done,
                Err(_) => Err(Exceeded::Time { limit }.into()),
            },
        }
    }

    /// Lets this clock interrupt the code of a store.
    pub(super) fn govern<T: 'static>(&self, store: &mut Store<T>) {
        store.set_epoch_deadline(1);
        let deadline = self.deadline;
        let mut share = self.share.map(Share::new);
        store.epoch_deadline_callback(move |_| {
            if let Some(share) = &mut share {
                share.rest(deadline.map(|(end, _)| end));
            }
            match deadline {
                Some((end, limit)) if Instant::now() >= end => Err(Exceeded::Time { limit }.into()),
                _ => Ok(UpdateDeadline::Continue(1)),
            }
        });
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clock")
            .field("deadline", &self.deadline)
            .field("share", &self.share)
            .finish_non_exhaustive()
    }
}

/// A bucket that fills with processor time at the rate that is allowed, up to what a period gives.
struct Share {
    rate: f64,
    /// Seconds of processor time; negative is a debt that is slept off.
    credit: f64,
    seen: Instant,
    used: Duration,
}

impl Share {
    fn new(rate: f64) -> Self {
        Self { rate, credit: rate * PERIOD.as_secs_f64(), seen: Instant::now(), used: processor_time() }
    }

    /// Accounts for the time since the last call, and sleeps while there is a debt, but not beyond `end`.
    fn rest(&mut self, end: Option<Instant>) {
        let (now, used) = (Instant::now(), processor_time());
        let passed = now.saturating_duration_since(self.seen);
        let spent = match used.checked_sub(self.used) {
            Some(spent) if !used.is_zero() => spent,
            // Where the system does not say, a guest that comes by in time has worked since.
            _ => passed.min(2 * TICK),
        };
        let full = self.rate * PERIOD.as_secs_f64();
        self.credit = (self.credit + self.rate * passed.as_secs_f64()).min(full) - spent.as_secs_f64();
        (self.seen, self.used) = (now, used);
        if self.credit < 0.0 {
            // Not a NaN, not negative, and never long: at most what a tick or two has cost.
            let mut pause = Duration::try_from_secs_f64(-self.credit / self.rate).unwrap_or(PERIOD);
            if let Some(end) = end {
                pause = pause.min(end.saturating_duration_since(now));
            }
            std::thread::sleep(pause);
        }
    }
}

/// What this process has used of the processors; zero where it is not known.
fn processor_time() -> Duration {
    #[cfg(unix)]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
    }
    #[cfg(not(unix))]
    Duration::ZERO
}
