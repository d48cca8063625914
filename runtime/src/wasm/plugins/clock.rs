//! Deadlines: a thread that moves the engines' epoch every millisecond while calls with a deadline are under way. Code
//! looks at the epoch at every loop and function, and asks [`super::state`] when it has moved.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use wasmtime::{Engine, EngineWeak};

/// How exact deadlines are.
const TICK: Duration = Duration::from_millis(1);
/// How many ticks the thread goes on when there is nothing to watch: waking it costs more than a call.
const LINGER: u32 = 200;

/// The thread, which is started by the first call that needs it, and ends with this.
#[derive(Debug, Default)]
pub(super) struct Ticker {
    inner: Arc<Inner>,
    thread: OnceLock<Option<Thread>>,
}

#[derive(Debug, Default)]
struct Inner {
    engines: Mutex<Vec<Weak>>,
    /// Calls that are watched.
    calls: AtomicUsize,
    asleep: AtomicBool,
    over: AtomicBool,
}

struct Weak(EngineWeak);

impl std::fmt::Debug for Weak {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an engine")
    }
}

/// A call that is watched, until this is dropped.
#[derive(Debug)]
pub(super) struct Watched(Arc<Inner>);

impl Ticker {
    /// Moves this engine's epoch, too.
    pub(super) fn moves(&self, engine: &Engine) {
        let mut engines = self.inner.engines.lock().unwrap_or_else(PoisonError::into_inner);
        engines.push(Weak(engine.weak()));
    }

    /// Watches a call.
    pub(super) fn watch(&self) -> Watched {
        self.inner.calls.fetch_add(1, Ordering::SeqCst);
        let thread = self.thread.get_or_init(|| {
            let inner = Arc::clone(&self.inner);
            let named = thread::Builder::new().name("plugins".to_owned()).stack_size(64 << 10);
            // Without a thread there are no deadlines for code that never waits, and all else works.
            named.spawn(move || inner.tick()).ok().map(|handle| handle.thread().clone())
        });
        if self.inner.asleep.load(Ordering::SeqCst)
            && let Some(thread) = thread
        {
            thread.unpark();
        }
        Watched(Arc::clone(&self.inner))
    }
}

impl Inner {
    fn tick(&self) {
        let mut idle = 0;
        while !self.over.load(Ordering::Relaxed) {
            thread::sleep(TICK);
            for engine in &*self.engines.lock().unwrap_or_else(PoisonError::into_inner) {
                if let Some(engine) = engine.0.upgrade() {
                    engine.increment_epoch();
                }
            }
            idle = if self.calls.load(Ordering::Relaxed) == 0 { idle + 1 } else { 0 };
            if idle > LINGER {
                self.asleep.store(true, Ordering::SeqCst);
                while self.calls.load(Ordering::SeqCst) == 0 && !self.over.load(Ordering::Relaxed) {
                    thread::park();
                }
                self.asleep.store(false, Ordering::SeqCst);
                idle = 0;
            }
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.inner.over.store(true, Ordering::Relaxed);
        if let Some(Some(thread)) = self.thread.get() {
            thread.unpark();
        }
    }
}
