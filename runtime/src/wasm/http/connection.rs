//! HTTP/1.1 on one connection, with bounds on everything a client can draw out: the size and the time of a request's
//! head, and how long nobody reads what is sent.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Sleep;

use super::pool::Pool;
use super::request::answer;

/// The largest head of a request: its first line and all its fields.
const HEAD_MAX: usize = 64 << 10;
/// How long a client may take for it, and how long a connection stays without one.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// How long a client may read nothing of what is there for it.
const STALL: Duration = Duration::from_secs(60);

/// Serves a connection to its end, or to the end of the request it is at when `closing` says so.
pub(super) async fn serve(pool: Arc<Pool>, stream: TcpStream, mut closing: watch::Receiver<bool>) {
    // Small parts of an answer are not to wait for the ones after them. Fails for a connection that is gone already.
    drop(stream.set_nodelay(true));
    let service = service_fn(move |request| {
        let pool = Arc::clone(&pool);
        async move { Ok::<_, Infallible>(answer(pool, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(Stream { inner: stream, stalled: None }), service);
    let mut connection = pin!(connection);
    tokio::select! {
        // What went wrong concerns the client, who knows.
        _ = connection.as_mut() => return,
        _ = closing.wait_for(|closing| *closing) => connection.as_mut().graceful_shutdown(),
    }
    drop(connection.await);
}

/// A connection that ends when nothing can be written to it for too long.
struct Stream {
    inner: TcpStream,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    /// Watches how long a write has not got on.
    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALL)));
        match stalled.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, buffers);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
