//! The service as a whole: its ports, the signals that end it, and which thread serves a connection.
//!
//! One thread accepts all connections and serves the first ones itself. As soon as every thread has one, another is
//! started, up to the number of processors; a connection stays with its thread. With nobody connected for a while, all
//! of that is given up again.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::connection::serve;
use super::pool::Pool;
use crate::error::{Error, Result};
use crate::wasm::create::Guest;
use crate::wasm::imports::Track;
use crate::wasm::network::Protocol;
use crate::wasm::network::publish::bind;
use crate::wasm::p2::new_runtime;
use crate::wasm::task::render;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// The most connections at once; others wait to be accepted.
const CONNECTIONS: usize = 16 << 10;
/// How long everything is kept for the next connection.
const LINGER: Duration = Duration::from_secs(30);
/// How long a program may take to answer, and to each next part of its answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a service listens: on the ports that are published for it; with the host's network on `PORT` of its
/// environment, else on those its image exposes, else on 80.
pub(super) fn ports(guest: &Guest) -> Result<Vec<SocketAddr>> {
    let policy = &guest.policy;
    if !policy.is_open() {
        return Ok(policy.published(Protocol::Tcp).map(|publish| publish.host).collect());
    }
    let named = guest.env.iter().find_map(|variable| variable.strip_prefix("PORT="));
    let numbers = match named {
        Some(text) => vec![text.parse::<u16>().map_err(|_| Error::InvalidSpec {
            field: "process.env",
            reason: format!("PORT={text} is no port"),
        })?],
        None if policy.exposed().is_empty() => vec![80],
        None => policy.exposed().to_vec(),
    };
    let both = |port| [SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), (Ipv6Addr::UNSPECIFIED, port).into()];
    Ok(numbers.into_iter().flat_map(both).collect())
}

/// What is known of a service before anybody comes.
pub(super) struct Service {
    pub(super) track: Track,
    pub(super) shown: String,
    pub(super) guest: Arc<Guest>,
    pub(super) engine: Engine,
    pub(super) component: Component,
    pub(super) ports: Vec<SocketAddr>,
}

impl Service {
    /// How long a program may take to answer.
    pub(super) fn patience(&self) -> Duration {
        self.guest.bounds.limits().timeout.unwrap_or(PATIENCE)
    }

    /// Says something where the program's own messages go.
    pub(super) fn log(&self, text: &str) {
        // Nobody is left to be told when this fails.
        drop(self.guest.streams.stderr.write_all(format!("{}: {text}\n", self.shown).as_bytes()));
        if let Some(denied) = self.guest.policy.denials() {
            drop(self.guest.streams.stderr.write_all(denied.as_bytes()));
        }
    }

    /// Says why a program ended in the middle of a request, and where it was.
    pub(super) fn report(&self, target: &str, error: &wasmtime::Error) {
        self.log(&format!("{target}: {}", render(error)));
    }

    /// Serves until a signal ends it.
    pub(super) fn run(self) -> Result<()> {
        let runtime = new_runtime()?;
        let outcome = runtime.block_on(Server::run(Arc::new(self)));
        // Programs that are still at work are not waited for any longer.
        runtime.shutdown_background();
        outcome
    }
}

struct Server {
    service: Arc<Service>,
    live: Option<Live>,
    closing: watch::Sender<bool>,
    /// Held by every connection; all are gone when it is closed.
    held: mpsc::Sender<()>,
}

/// What is there while somebody is connected.
struct Live {
    pool: Arc<Pool>,
    /// This thread, then the others.
    workers: Vec<Worker>,
    most: usize,
}

struct Worker {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
    /// Dropped to end the thread.
    _stop: Option<oneshot::Sender<()>>,
}

impl Server {
    async fn run(service: Arc<Service>) -> Result<()> {
        let (accepted, mut streams) = mpsc::channel(16);
        let mut acceptors = Vec::new();
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        for listener in listen(&service)? {
            acceptors.push(tokio::spawn(accept(listener, accepted.clone(), Arc::clone(&room))));
        }
        drop(accepted);
        let mut signals = Signals::new()?;
        let (held, mut all_gone) = mpsc::channel(1);
        let mut server = Self { service, live: None, closing: watch::channel(false).0, held };
        loop {
            let linger = Instant::now() + LINGER;
            tokio::select! {
                stream = streams.recv() => match stream {
                    Some((stream, room)) => server.take(stream, room),
                    None => break,
                },
                () = signals.next() => break,
                () = sleep_until(linger), if server.live.is_some() => server.rest(),
            }
        }
        for acceptor in &acceptors {
            acceptor.abort();
        }
        drop(streams);
        server.closing.send_replace(true);
        let Self { live, held, .. } = server;
        drop(held);
        tokio::select! {
            _ = all_gone.recv() => {}
            () = signals.next() => {}
        }
        drop(live);
        Ok(())
    }

    /// Gives a connection to the thread with the fewest.
    fn take(&mut self, stream: TcpStream, room: OwnedSemaphorePermit) {
        if self.live.is_none() {
            match Live::new(&self.service) {
                Ok(live) => self.live = Some(live),
                Err(error) => return self.service.log(&format!("cannot serve: {error}")),
            }
        }
        let Some(live) = &mut self.live else { return };
        let Ok(stream) = stream.into_std() else { return };
        let (pool, closing, held) = (Arc::clone(&live.pool), self.closing.subscribe(), self.held.clone());
        let worker = live.worker();
        let counted = Counted::new(&worker.connections);
        drop(worker.runtime.spawn(async move {
            if let Ok(stream) = TcpStream::from_std(stream) {
                serve(pool, stream, closing).await;
            }
            drop((counted, held, room));
        }));
    }

    /// Gives up what nobody uses.
    fn rest(&mut self) {
        if self.live.as_ref().is_some_and(|live| live.connections() == 0) {
            self.live = None;
        }
    }
}

impl Live {
    fn new(service: &Arc<Service>) -> Result<Self> {
        let this = Worker { runtime: Handle::current(), connections: Arc::default(), _stop: None };
        let most = thread::available_parallelism().map_or(1, usize::from).min(64);
        Ok(Self { pool: Pool::new(Arc::clone(service))?, workers: vec![this], most })
    }

    fn connections(&self) -> usize {
        self.workers.iter().map(|worker| worker.connections.load(Ordering::Relaxed)).sum()
    }

    fn worker(&mut self) -> &Worker {
        let least = |workers: &[Worker]| {
            let load = |worker: &Worker| worker.connections.load(Ordering::Relaxed);
            workers.iter().enumerate().map(|(number, worker)| (load(worker), number)).min().unwrap_or((0, 0))
        };
        let (load, mut number) = least(&self.workers);
        // Without another thread, those that are there do the work.
        if load > 0
            && self.workers.len() < self.most
            && let Ok(worker) = Worker::start()
        {
            number = self.workers.len();
            self.workers.push(worker);
        }
        &self.workers[number]
    }
}

impl Worker {
    fn start() -> Result<Self> {
        let runtime = new_runtime()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let work = move || {
            // It ends when the other side is dropped.
            drop(runtime.block_on(stopped));
            runtime.shutdown_background();
        };
        thread::Builder::new()
            .name("http".to_owned())
            .spawn(work)
            .map_err(|source| Error::Setup { action: "start a thread".to_owned(), source })?;
        Ok(Self { runtime: handle, connections: Arc::default(), _stop: Some(stop) })
    }
}

/// One more connection of a thread, for as long as this lives.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn listen(service: &Service) -> Result<Vec<TcpListener>> {
    let policy = &service.guest.policy;
    let reserved = policy.take_reserved();
    let mut listeners = Vec::new();
    if reserved.is_empty() {
        for address in &service.ports {
            match bind(*address).and_then(|socket| socket.listen(BACKLOG)) {
                Ok(listener) => listeners.push(listener),
                // A host without IPv6 has one address less.
                Err(_) if address.is_ipv6() && !listeners.is_empty() => {}
                Err(source) => return Err(Error::Setup { action: format!("listen on {address}"), source }),
            }
        }
    }
    for port in reserved {
        let address = port.publish.host;
        let listening = port.listen(BACKLOG);
        listeners.push(
            listening.map_err(|source| Error::Setup { action: format!("listen on {address}"), source })?,
        );
    }
    Ok(listeners)
}

/// A connection and its place among all of them.
type Accepted = (TcpStream, OwnedSemaphorePermit);

/// Accepts for ever. A system that is out of descriptors or memory has some again later.
async fn accept(listener: TcpListener, accepted: mpsc::Sender<Accepted>, room: Arc<Semaphore>) {
    while let Ok(place) = Arc::clone(&room).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                if accepted.send((stream, place)).await.is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// What ends a service: `SIGTERM`, and Ctrl-C.
#[cfg(unix)]
struct Signals([tokio::signal::unix::Signal; 2]);

#[cfg(unix)]
impl Signals {
    fn new() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let failed = |source| Error::Setup { action: "wait for signals".to_owned(), source };
        Ok(Self([
            signal(SignalKind::terminate()).map_err(failed)?,
            signal(SignalKind::interrupt()).map_err(failed)?,
        ]))
    }

    async fn next(&mut self) {
        let [terminate, interrupt] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    #[expect(clippy::unnecessary_wraps, reason = "as on Unix")]
    fn new() -> Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
