//! What is special about one call, and how it is given up.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// What is special about one call.
#[derive(Debug, Clone, Default)]
pub struct CallOptions {
    /// In the place of the plugin's own deadline.
    pub deadline: Option<Duration>,
    /// Gives the call up.
    pub cancel: Option<Cancel>,
    /// Bytes of memories and tables that the instance may grow to, if that is less than the plugin's own limit.
    pub memory: Option<u64>,
    /// In the place of the plugin's own limit of fuel; only code that was loaded with one counts.
    pub fuel: Option<u64>,
    /// In the place of the plugin's own limit of output.
    pub output: Option<usize>,
}

/// Gives calls up from another thread; clones are the same one. It stays cancelled.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<(AtomicBool, Notify)>);

impl Cancel {
    /// One for calls to come.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives up: within about a millisecond the calls end with [`Error::Cancelled`].
    pub fn cancel(&self) {
        self.0.0.store(true, Ordering::SeqCst);
        self.0.1.notify_waiters();
    }

    /// Whether it was given up.
    pub fn is_cancelled(&self) -> bool {
        self.0.0.load(Ordering::SeqCst)
    }

    pub(super) async fn cancelled(&self) {
        let mut told = pin!(self.0.1.notified());
        loop {
            // Before it is asked, so that nothing is missed in between.
            told.as_mut().enable();
            if self.is_cancelled() {
                return;
            }
            told.as_mut().await;
            told.set(self.0.1.notified());
        }
    }
}
