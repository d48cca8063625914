//! Pulling from a registry that misbehaves: a small HTTP server in this process, with a fault per test.

mod auth;
mod faults;
mod mirrors;
mod pull;
mod shared;

use std::collections::HashMap;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::pull::pull;
use super::*;
use crate::Digest;
use crate::Error;
use crate::Matcher;
use crate::NoProgress;
use crate::Reference;
use crate::Store;
use crate::compose;
use crate::compose::ImageBuilder;
use crate::compose::LayerBuilder;
use crate::media;
use crate::store::tests::store;

#[derive(Debug, Clone)]
struct Request {
    method: String,
    path: String,
    headers: HashMap<String, String>,
    body: String,
}

#[derive(Debug, Clone)]
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Close the connection after so many bytes of the body.
    cut: Option<usize>,
    /// Send the body in chunks, without a length.
    chunked: bool,
    /// Wait between any two bytes of the head.
    drip: Option<Duration>,
    /// Say nothing any more after the head, for so long.
    stall: Option<Duration>,
    /// Wait after each byte of the body.
    trickle: Option<Duration>,
}

impl Reply {
    fn new(status: u16) -> Self {
        let (cut, chunked, drip, stall, trickle) = (None, false, None, None, None);
        Self { status, headers: Vec::new(), body: Vec::new(), cut, chunked, drip, stall, trickle }
    }

    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The part from a byte on, as a registry with ranges answers.
    fn from(mut self, from: usize) -> Self {
        let size = self.body.len();
        self.body.drain(..from);
        self.status = 206;
        self.header("Content-Range", format!("bytes {from}-{}/{size}", size - 1))
    }

    /// What the request's `Range` asks for.
    fn ranged(self, request: &Request) -> Self {
        match request.from() {
            Some(from) => self.from(from),
            None => self,
        }
    }
}

impl Request {
    fn from(&self) -> Option<usize> {
        let range = self.headers.get("range")?;
        range.trim_start_matches("bytes=").trim_end_matches('-').parse().ok()
    }
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

struct Server {
    port: u16,
    log: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
}

impl Server {
    fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (log, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (handler, thread_log, thread_stop): (Arc<Handler>, _, _) =
            (Arc::new(handler), log.clone(), stop.clone());
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                if thread_stop.load(Ordering::SeqCst) {
                    return;
                }
                let (handler, log) = (handler.clone(), thread_log.clone());
                std::thread::spawn(move || answer(connection.unwrap(), &*handler, &log));
            }
        });
        Self { port, log, stop }
    }

    fn name(&self) -> Reference {
        format!("127.0.0.1:{}/app:1", self.port).parse().unwrap()
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn requests(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }

    /// How often this was asked for.
    fn count(&self, path: &str) -> usize {
        self.requests().iter().filter(|r| r.path == path).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

fn answer(stream: TcpStream, handler: &Handler, log: &Mutex<Vec<Request>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().map(|_| line.trim_end().to_owned())
    };
    let Some(mut first) = line().filter(|l| !l.is_empty()) else { return };
    if first.starts_with("CONNECT ") {
        // A proxy that leads everywhere to itself.
        while line().is_some_and(|l| !l.is_empty()) {}
        drop((&stream).write_all(b"HTTP/1.1 200 Connected\r\n\r\n"));
        let target = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let (path, headers) = (target, HashMap::new());
        log.lock().unwrap().push(Request { method: "CONNECT".into(), path, headers, body: String::new() });
        let Some(next) = line().filter(|l| !l.is_empty()) else { return };
        first = next;
    }
    let mut words = first.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let path = words.next().unwrap_or_default().to_owned();
    let headers: HashMap<String, String> = std::iter::from_fn(line)
        .take_while(|l| !l.is_empty())
        .filter_map(|l| l.split_once(": ").map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned())))
        .collect();
    let mut body = vec![0; headers.get("content-length").map_or(0, |n| n.parse().unwrap())];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let request = Request { method, path, headers, body: String::from_utf8_lossy(&body).into_owned() };
    log.lock().unwrap().push(request.clone());
    drop(send(stream, &handler(&request)));
}

fn send(mut stream: TcpStream, reply: &Reply) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    if reply.chunked {
        head.push_str("Transfer-Encoding: chunked\r\n");
    } else if !reply.headers.iter().any(|(name, _)| *name == "Content-Length") {
        head.push_str(&format!("Content-Length: {}\r\n", reply.body.len()));
    }
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    if let Some(pause) = reply.drip {
        for byte in head.as_bytes() {
            stream.write_all(&[*byte])?;
            std::thread::sleep(pause);
        }
    } else {
        stream.write_all(head.as_bytes())?;
    }
    if let Some(pause) = reply.stall {
        std::thread::sleep(pause);
    }
    let sent = &reply.body[..reply.cut.unwrap_or(reply.body.len())];
    if let Some(pause) = reply.trickle {
        for byte in sent {
            stream.write_all(&[*byte])?;
            std::thread::sleep(pause);
        }
        return Ok(());
    }
    if !reply.chunked {
        return stream.write_all(sent);
    }
    for chunk in sent.chunks(10_000) {
        stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes())?;
        stream.write_all(chunk)?;
        stream.write_all(b"\r\n")?;
    }
    if reply.cut.is_none() { stream.write_all(b"0\r\n\r\n") } else { Ok(()) }
}

/// What an honest registry would answer for an image with a Wasm and a native variant.
#[derive(Clone)]
struct Content {
    paths: HashMap<String, Reply>,
    top: Descriptor,
    manifest: Digest,
    layer: Descriptor,
}

fn content() -> Content {
    let (_dir, store) = store();
    let mut layer = LayerBuilder::new();
    // Random-looking bytes, so that the layer stays large when compressed.
    let mut noise: Vec<u8> = Vec::new();
    while noise.len() < 200_000 {
        noise.extend_from_slice(Digest::of(&noise).hex().as_bytes());
    }
    layer.file("noise", 0o644, noise);
    let mut native = ImageBuilder::new(&Platform { os: "linux".into(), ..Platform::host() });
    native.layer(layer);
    let native = native.build(&store).unwrap();
    let wasm = compose::wasm_artifact(&store, "wasip1", b"\0asm\x01\0\0\0").unwrap();
    let top = compose::index(&store, &[native.clone(), wasm]).unwrap();
    store.tag(&"x".parse().unwrap(), &top).unwrap();

    let mut paths = served(&store);
    paths.insert("/v2/app/manifests/1".into(), paths[&format!("/v2/app/manifests/{}", top.digest)].clone());
    let manifest = crate::Manifest::parse("x", &store.read_blob(&native).unwrap()).unwrap();
    Content { paths, top, manifest: native.digest, layer: manifest.layers[0].clone() }
}

/// Everything of a store, as a registry has it in the repository `app`.
fn served(store: &Store) -> HashMap<String, Reply> {
    let mut paths = HashMap::from([("/v2/".to_owned(), Reply::new(200))]);
    for entry in fs_err::read_dir(store.root().join("blobs/sha256")).unwrap() {
        let entry = entry.unwrap();
        let bytes = fs_err::read(entry.path()).unwrap();
        let digest = format!("sha256:{}", entry.file_name().to_string_lossy());
        let found: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if let Some(media_type) = found["mediaType"].as_str() {
            let reply = Reply::new(200).header("Content-Type", media_type).body(bytes.clone());
            paths.insert(format!("/v2/app/manifests/{digest}"), reply);
        }
        paths.insert(format!("/v2/app/blobs/{digest}"), Reply::new(200).body(bytes));
    }
    paths
}

impl Content {
    fn get(&self, request: &Request) -> Reply {
        let path = request.path.split("?ns=").next().unwrap();
        self.paths.get(path).cloned().unwrap_or_else(|| Reply::new(404))
    }

    fn layer_path(&self) -> String {
        format!("/v2/app/blobs/{}", self.layer.digest)
    }
}

fn options() -> PullOptions {
    let access = Access {
        attempts: 3,
        backoff: Duration::from_millis(1),
        timeout: Duration::from_secs(5),
        ..Access::default()
    };
    PullOptions { access, ..PullOptions::default() }
}

fn as_user(credentials: Credentials) -> PullOptions {
    let options = options();
    PullOptions { access: Access { credentials: Some(credentials), ..options.access }, ..options }
}

fn basic(user: &str, password: &str) -> Credentials {
    Credentials::Basic { user: user.into(), password: password.into() }
}

/// A failed pull leaves a store that is as good as before.
fn assert_clean(store: &Store) {
    assert_eq!(store.check(false).unwrap(), []);
    assert_eq!(store.references().unwrap(), []);
    assert_eq!(fs_err::read_dir(store.root().join("ingest")).unwrap().count(), 0);
}

fn fails(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Error {
    fails_with(&options(), handler)
}

fn fails_with(options: &PullOptions, handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Error {
    let server = Server::start(handler);
    let (_dir, store) = store();
    let error = pull(&store, &server.name(), options, &NoProgress).unwrap_err();
    assert_clean(&store);
    error
}
