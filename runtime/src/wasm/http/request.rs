//! One request: an instance is made for it, answers it, and is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use bytes::Bytes;
use futures_channel::oneshot;
use http::uri::{Authority, Uri};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};
use wasmtime::AsContextMut as _;
use wasmtime_wasi_http::handler::{Prepared, Proxy};
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::{WasiBody, WasiHttpView as _};

use super::body::{Body, Call};
use super::pool::Pool;

type Answer = wasmtime::Result<Response<WasiBody>>;

/// Answers a request, whatever the program does.
pub(super) async fn answer(pool: Arc<Pool>, request: Request<Incoming>) -> Response<Body> {
    let patience = pool.service.patience();
    let deadline = Instant::now() + patience;
    if let Some(refusal) = refusal(&request) {
        return refusal;
    }
    let Ok(Ok(turn)) = timeout_at(deadline, Arc::clone(&pool.turns).acquire_owned()).await else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "too many requests at once\n");
    };
    let (sender, mut receiver) = oneshot::channel::<Answer>();
    let target = format!("{} {}", request.method(), request.uri().path());
    let request = request.map(|body| body.map_err(wasmtime_wasi_http::Error::from).boxed_unsync());
    let mut call: Option<Call> =
        Some(Box::pin(run(Arc::clone(&pool), request, sender, turn, target.clone())));
    let mut failed = false;
    let answered = std::future::poll_fn(|cx| {
        if let Some(running) = &mut call
            && let Poll::Ready(well) = running.as_mut().poll(cx)
        {
            call = None;
            failed = !well;
        }
        match std::pin::Pin::new(&mut receiver).poll(cx) {
            Poll::Ready(answer) => Poll::Ready(answer),
            Poll::Pending => Poll::Pending,
        }
    });
    match timeout_at(deadline, answered).await {
        Ok(Ok(Ok(response))) => response.map(|body| Body::guest(body, call.take(), failed, patience)),
        // It was told by the program's end, or is the program's own word for "I cannot".
        Ok(Ok(Err(error))) => {
            pool.service.log(&format!("{target}: {error:#}"));
            text(StatusCode::INTERNAL_SERVER_ERROR, "the service failed\n")
        }
        // Either it failed, which it has said, or it ended without a word.
        Ok(Err(oneshot::Canceled)) => text(StatusCode::INTERNAL_SERVER_ERROR, "the service failed\n"),
        Err(_) => {
            pool.service.log(&format!("{target}: no answer within {patience:?}"));
            text(StatusCode::GATEWAY_TIMEOUT, "the service did not answer in time\n")
        }
    }
}

/// What no program is asked about.
fn refusal(request: &Request<Incoming>) -> Option<Response<Body>> {
    let named = request.uri().authority().is_some()
        || request.headers().get(header::HOST).is_some_and(|host| host.to_str().is_ok());
    (!named).then(|| text(StatusCode::BAD_REQUEST, "the request names no host\n"))
}

/// An answer of ours.
pub(super) fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::Text(Some(Bytes::from_static(text.as_bytes()))));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

/// The program's run, from a new instance to its end. What goes wrong is written to its standard error.
async fn run(
    pool: Arc<Pool>,
    request: Request<WasiBody>,
    sender: oneshot::Sender<Answer>,
    turn: OwnedSemaphorePermit,
    target: String,
) -> bool {
    let ended = call(&pool, request, sender).await;
    match &ended {
        Ok(true) => {}
        Ok(false) => pool.service.log(&format!("{target}: ended without an answer")),
        Err(error) => pool.service.report(&target, error),
    }
    drop(turn);
    ended.is_ok()
}

/// Whether there was an answer.
async fn call(
    pool: &Pool,
    request: Request<WasiBody>,
    sender: oneshot::Sender<Answer>,
) -> wasmtime::Result<bool> {
    let (mut store, proxy) = pool.instance().await?;
    let answered = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&answered);
    match &proxy {
        Proxy::P2(proxy) => {
            let request = store.data_mut().http().new_incoming_request(Scheme::Http, request)?;
            let send = move |answer: Result<_, ErrorCode>| {
                told.store(true, Ordering::Relaxed);
                // Nobody waits for it any more when the time was over.
                drop(
                    sender
                        .send(answer.map_err(|code| wasmtime::format_err!("the program answered: {code:?}"))),
                );
            };
            let out = store.data_mut().http().new_response_outparam_from_callback(send)?;
            proxy.wasi_http_incoming_handler().call_handle(&mut store, request, out).await?;
            Ok(answered.load(Ordering::Relaxed))
        }
        Proxy::P3(_) => {
            let (finished, wait) = oneshot::channel();
            let (inner, answer) = oneshot::channel();
            let request = absolute(request);
            let prepared =
                Prepared::new(store.as_context_mut(), &proxy, request, |state| state.http(), inner)?;
            let pass_on = async move {
                match answer.await {
                    // Its body is made by the same event loop, which must go on until it has ended.
                    Ok(answer) => {
                        drop(sender.send(answer.map(|answer| answer.map(|body| tied(body, finished)))));
                    }
                    Err(oneshot::Canceled) => drop(finished),
                }
            };
            store
                .run_concurrent(async |accessor| {
                    let (ran, ()) = tokio::join!(prepared.run(accessor, std::future::pending()), pass_on);
                    wait.await.ok();
                    ran
                })
                .await?
        }
    }
}

/// A request whose target is a whole address, as version 0.3 tells it to a program.
fn absolute(mut request: Request<WasiBody>) -> Request<WasiBody> {
    let host = request.headers().get(header::HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut parts = request.uri().clone().into_parts();
    parts.scheme.get_or_insert(http::uri::Scheme::HTTP);
    parts.authority = parts.authority.or(host);
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}

/// `body`, which drops `token` when it is dropped itself.
fn tied(body: WasiBody, token: oneshot::Sender<()>) -> WasiBody {
    body.map_frame(move |frame| {
        let _held = &token;
        frame
    })
    .boxed_unsync()
}
