//! What is sent back: a text of ours, or a program's body, which drives the program while it is sent.
//!
//! A program goes on after the head of its answer. It is polled by whoever sends the body, so it needs no task of its
//! own and runs no faster than its reader; what is left of it when the body has ended is finished in the background.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use wasmtime_wasi_http::WasiBody;

/// A program's run, to its end: whether that was a good one.
pub(super) type Call = Pin<Box<dyn Future<Output = bool> + Send>>;

/// The body of an answer.
pub(super) enum Body {
    /// Ours.
    Text(Option<Bytes>),
    /// A program's.
    Guest(Box<Guest>),
}

/// See the module.
pub(super) struct Guest {
    body: WasiBody,
    call: Option<Call>,
    /// It ended in an error, so its answer may not be whole.
    failed: bool,
    /// What the answer is to end with, once what there was before it has been sent.
    end: Option<wasmtime_wasi_http::Error>,
    /// How long the program may take for the next part.
    patience: Duration,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Body {
    /// `failed`: the program's run, if it is over, ended in an error.
    pub(super) fn guest(body: WasiBody, call: Option<Call>, failed: bool, patience: Duration) -> Self {
        Self::Guest(Box::new(Guest { body, call, failed, end: None, patience, alarm: None }))
    }
}

impl Guest {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, wasmtime_wasi_http::Error>>> {
        if let Some(error) = self.end.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(call) = &mut self.call
            && let Poll::Ready(well) = call.as_mut().poll(cx)
        {
            self.call = None;
            self.failed = !well;
        }
        let part = Pin::new(&mut self.body).poll_frame(cx);
        if part.is_ready() {
            self.alarm = None;
            self.end = match part {
                Poll::Ready(Some(Err(error))) => Some(error),
                Poll::Ready(None) if std::mem::take(&mut self.failed) => {
                    Some(wasmtime_wasi_http::Error::HttpResponseIncomplete)
                }
                part => return part,
            };
            // An error makes the connection drop what it has not written yet; what the program did send is the
            // client's. It writes while it is told to wait.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.patience)));
        if alarm.as_mut().poll(cx).is_ready() {
            // Whoever reads must see that this is not the end.
            self.call = None;
            return Poll::Ready(Some(Err(wasmtime_wasi_http::Error::HttpResponseTimeout)));
        }
        Poll::Pending
    }
}

impl Drop for Guest {
    /// The program may have something to do after its answer, or is to find out that nobody reads it.
    fn drop(&mut self) {
        if let (Some(call), Ok(runtime)) = (self.call.take(), tokio::runtime::Handle::try_current()) {
            let until = Instant::now() + self.patience;
            drop(runtime.spawn(tokio::time::timeout_at(until, call)));
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = wasmtime_wasi_http::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Guest(guest) => guest.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_none(),
            Self::Guest(guest) => !guest.failed && guest.call.is_none() && guest.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Self::Guest(guest) => guest.body.size_hint(),
        }
    }
}
