//! Running a component's future on this thread: without an async runtime as long as nothing has to be waited for
//! besides files, which is all that most commands do; inside of one from then on.
//!
//! What needs the runtime (timers, input that has not come) asks for it by [`runtime`] before it uses anything of tokio's.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::{Error, Result};

thread_local! {
    /// Who waits for a runtime on this thread.
    static WAITING: RefCell<Vec<Waker>> = const { RefCell::new(Vec::new()) };
}

/// Whether this thread is inside of a runtime. If not, the task of `cx` is polled again when it is.
pub(in crate::wasm) fn has_runtime(cx: &Context<'_>) -> bool {
    let has = Handle::try_current().is_ok();
    if !has {
        WAITING.with_borrow_mut(|waiting| waiting.push(cx.waker().clone()));
    }
    has
}

/// Waits until this thread is inside of a runtime.
pub(in crate::wasm) async fn runtime() {
    poll_fn(|cx| if has_runtime(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Runs `future` to its end. With `at_once` it is inside of a runtime from the beginning.
pub(in crate::wasm) fn block_on<F: Future>(future: F, at_once: bool) -> Result<F::Output> {
    let mut future = pin!(future);
    if !at_once {
        let woken = Arc::new(Flag(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        while woken.0.swap(false, Ordering::Relaxed) {
            if let Poll::Ready(done) = future.as_mut().poll(&mut cx) {
                WAITING.take();
                return Ok(done);
            }
        }
    }
    let runtime = new_runtime()?;
    let done = runtime.block_on(async {
        for waker in WAITING.take() {
            waker.wake();
        }
        future.await
    });
    // A helper thread may still wait for something that nobody wants any more.
    runtime.shutdown_background();
    Ok(done)
}

/// A runtime of this thread alone.
pub(in crate::wasm) fn new_runtime() -> Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Setup { action: "start the async runtime".to_owned(), source })
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_runtime_is_made_when_it_is_asked_for() {
        let seen = block_on(
            async {
                let before = Handle::try_current().is_ok();
                tokio::task::yield_now().await;
                let after_yield = Handle::try_current().is_ok();
                runtime().await;
                tokio::time::sleep(Duration::from_millis(1)).await;
                (before, after_yield, Handle::try_current().is_ok())
            },
            false,
        );
        assert_eq!(seen.expect("a runtime"), (false, false, true));
        assert!(block_on(async { Handle::try_current().is_ok() }, true).expect("a runtime"));
    }
}
