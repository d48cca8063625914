//! Pulling from a registry that misbehaves: a small HTTP server in this process, with a fault per test.

use std::collections::HashMap;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Write as _;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

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
    path: String,
    headers: HashMap<String, String>,
}

#[derive(Debug, Clone)]
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Close the connection after so many bytes of the body.
    cut: Option<usize>,
}

impl Reply {
    fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), cut: None }
    }

    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
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

    fn requests(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

fn answer(stream: TcpStream, handler: &Handler, log: &Mutex<Vec<Request>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let Some(Ok(first)) = lines.next() else { return };
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let headers = lines
        .map_while(|l| l.ok().filter(|l| !l.is_empty()))
        .filter_map(|l| l.split_once(": ").map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned())))
        .collect();
    let request = Request { path, headers };
    log.lock().unwrap().push(request.clone());
    let reply = handler(&request);
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    if !reply.headers.iter().any(|(name, _)| *name == "Content-Length") {
        head.push_str(&format!("Content-Length: {}\r\n", reply.body.len()));
    }
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let end = reply.cut.unwrap_or(reply.body.len());
    let mut stream = stream;
    drop(stream.write_all(&[head.as_bytes(), b"\r\n", &reply.body[..end]].concat()));
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

    let mut paths = HashMap::new();
    for entry in fs_err::read_dir(store.root().join("blobs/sha256")).unwrap() {
        let entry = entry.unwrap();
        let bytes = fs_err::read(entry.path()).unwrap();
        let digest = format!("sha256:{}", entry.file_name().to_string_lossy());
        let found: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if let Some(media_type) = found["mediaType"].as_str() {
            let reply = Reply::new(200).header("Content-Type", media_type).body(bytes.clone());
            paths.insert(format!("/v2/app/manifests/{digest}"), reply.clone());
            if digest == top.digest.to_string() {
                paths.insert("/v2/app/manifests/1".into(), reply);
            }
        }
        paths.insert(format!("/v2/app/blobs/{digest}"), Reply::new(200).body(bytes));
    }
    paths.insert("/v2/".into(), Reply::new(200));
    let manifest = crate::Manifest::parse("x", &store.read_blob(&native).unwrap()).unwrap();
    Content { paths, top, manifest: native.digest, layer: manifest.layers[0].clone() }
}

impl Content {
    fn get(&self, request: &Request) -> Reply {
        self.paths.get(&request.path).cloned().unwrap_or_else(|| Reply::new(404))
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

/// A failed pull leaves a store that is as good as before.
fn assert_clean(store: &Store) {
    assert_eq!(store.check(false).unwrap(), []);
    assert_eq!(store.references().unwrap(), []);
    assert_eq!(fs_err::read_dir(store.root().join("ingest")).unwrap().count(), 0);
}

fn fails(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Error {
    let server = Server::start(handler);
    let (_dir, store) = store();
    let error = pull(&store, &server.name(), &options(), &NoProgress).unwrap_err();
    assert_clean(&store);
    error
}

#[test]
fn an_honest_registry() {
    let content = content();
    let server = Server::start({
        let content = content.clone();
        move |r| content.get(r)
    });
    let (_dir, store) = store();
    let pulled = pull(&store, &server.name(), &options(), &NoProgress).unwrap();
    assert_eq!(pulled, Pulled { descriptor: content.top.clone(), already_present: false });
    assert_eq!(store.resolve(&server.name()).unwrap(), Some(content.top.clone()));
    assert!(store.variants(&content.top).unwrap().iter().all(|v| v.present || !cfg!(target_os = "linux")));
    let image = store.image(&content.top, &Matcher::host()).unwrap();
    assert!(image.platform.is_wasm());
    assert_eq!(store.check(false).unwrap(), []);

    let before = server.requests().len();
    assert!(pull(&store, &server.name(), &options(), &NoProgress).unwrap().already_present);
    assert_eq!(server.requests().len(), before + 2, "the greeting and the index");
    let pinned = server.name().at_digest(content.top.digest.clone());
    assert!(!pull(&store, &pinned, &options(), &NoProgress).unwrap().already_present);
}

#[test]
fn only_the_platform_that_was_asked_for() {
    let content = content();
    let server = Server::start(move |r| content.get(r));
    let (_dir, store) = store();
    let with = |platforms| PullOptions { platforms, ..options() };
    let wasm = with(Platforms::One(Platform::wasm()));
    let pulled = pull(&store, &server.name(), &wasm, &NoProgress).unwrap();
    let present: Vec<bool> = store.variants(&pulled.descriptor).unwrap().iter().map(|v| v.present).collect();
    assert_eq!(present, [false, true]);
    let native = Platform { os: "linux".into(), ..Platform::host() };
    let error = store.image(&pulled.descriptor, &Matcher::only(&native)).unwrap_err();
    assert!(matches!(error, Error::VariantAbsent { .. }), "{error}");
    let s390x = with(Platforms::One("linux/s390x".parse().unwrap()));
    let error = pull(&store, &server.name(), &s390x, &NoProgress).unwrap_err();
    assert!(matches!(error, Error::NoVariant { ref available, .. } if available.len() == 2), "{error}");
    assert!(!pull(&store, &server.name(), &with(Platforms::All), &NoProgress).unwrap().already_present);
    assert!(store.variants(&pulled.descriptor).unwrap().iter().all(|v| v.present));
}

#[test]
fn wrong_content_is_refused() {
    type Break = fn(&Content, &mut HashMap<String, Reply>);
    let cases: Vec<(&str, Break)> = vec![
        ("content has digest", |c, p| p.get_mut(&c.layer_path()).unwrap().body[5000] ^= 1),
        ("content has digest", |c, p| {
            let manifest = p.get_mut(&format!("/v2/app/manifests/{}", c.manifest)).unwrap();
            let at = manifest.body.len() - 5;
            manifest.body[at] ^= 1;
        }),
        ("bytes, not", |c, p| p.get_mut(&c.layer_path()).unwrap().body.push(0)),
        ("bytes, not", |c, p| p.get_mut(&c.layer_path()).unwrap().body.truncate(1000)),
        ("unexpected media type \"text/html\"", |_, p| {
            p.insert(
                "/v2/app/manifests/1".into(),
                Reply::new(200).header("Content-Type", "text/html").body("<html>"),
            );
        }),
        ("schema 1", |_, p| {
            let old = "application/vnd.docker.distribution.manifest.v1+prettyjws";
            p.insert("/v2/app/manifests/1".into(), Reply::new(200).header("Content-Type", old).body("{}"));
        }),
        ("not a valid index", |_, p| p.get_mut("/v2/app/manifests/1").unwrap().body.truncate(50)),
        ("unexpected media type", |_, p| {
            p.get_mut("/v2/app/manifests/1").unwrap().headers =
                vec![("Content-Type", media::MANIFEST.into())];
        }),
        ("larger than 4 MiB", |_, p| p.get_mut("/v2/app/manifests/1").unwrap().body.resize(5 << 20, b' ')),
        ("cut off", |_, p| p.get_mut("/v2/app/manifests/1").unwrap().cut = Some(20)),
        ("manifest unknown", |_, p| drop(p.remove("/v2/app/manifests/1"))),
        ("404", |c, p| drop(p.remove(&c.layer_path()))),
        ("500", |c, p| drop(p.insert(c.layer_path(), Reply::new(500)))),
        ("too many redirects", |c, p| {
            let path = c.layer_path();
            p.insert(path.clone(), Reply::new(307).header("Location", path));
        }),
        ("refused", |c, p| {
            drop(p.insert(c.layer_path(), Reply::new(307).header("Location", "file:///etc/passwd")));
        }),
        ("refused", |c, p| {
            let metadata = Reply::new(307).header("Location", "http://169.254.169.254/latest/");
            p.insert(c.layer_path(), metadata);
        }),
        ("address refused", |c, p| {
            drop(p.insert(c.layer_path(), Reply::new(307).header("Location", "http://2852039166/latest/")));
        }),
        ("address refused", |c, p| {
            let metadata = Reply::new(307).header("Location", "http://[::ffff:169.254.169.254]/latest/");
            p.insert(c.layer_path(), metadata);
        }),
        ("refused", |c, p| drop(p.insert(c.layer_path(), Reply::new(307)))),
        ("not asked for", |c, p| p.get_mut(&c.layer_path()).unwrap().status = 206),
    ];
    if !cfg!(target_os = "linux") {
        return;
    }
    let honest = content();
    for (expected, damage) in cases {
        let mut content = honest.clone();
        let mut paths = content.paths.clone();
        damage(&content, &mut paths);
        content.paths = paths;
        let error = fails(move |r| content.get(r)).to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn a_broken_download_goes_on_where_it_stopped() {
    for ranges in [true, false] {
        let content = content();
        let path = content.layer_path();
        let breaks = Arc::new(Mutex::new(2));
        let size = content.layer.size;
        let server = Server::start({
            let path = path.clone();
            move |r| {
                let mut reply = content.get(r);
                if r.path != path {
                    return reply;
                }
                if let Some(from) = r.headers.get("range").filter(|_| ranges) {
                    let from: usize =
                        from.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
                    reply.body.drain(..from);
                    reply.status = 206;
                    reply = reply.header("Content-Range", format!("bytes {from}-{}/{size}", size - 1));
                }
                let mut left = breaks.lock().unwrap();
                if *left > 0 {
                    *left -= 1;
                    reply.cut = Some(reply.body.len() / 2);
                }
                reply
            }
        });
        let (_dir, store) = store();
        let all = PullOptions { platforms: Platforms::All, ..options() };
        pull(&store, &server.name(), &all, &NoProgress).unwrap();
        assert_eq!(store.check(false).unwrap(), []);
        assert_eq!(server.requests().iter().filter(|r| r.path == path).count(), 3);
    }
}

#[test]
fn a_length_beyond_all_numbers_is_refused() {
    let content = content();
    let (path, size) = (content.layer_path(), content.layer.size);
    let error = fails(move |r| {
        let mut reply = content.get(r);
        if r.path == path {
            reply.cut = Some(100);
            if r.headers.contains_key("range") {
                reply.status = 206;
                reply = reply
                    .header("Content-Range", format!("bytes 100-{}/{size}", size - 1))
                    .header("Content-Length", u64::MAX.to_string());
            }
        }
        reply
    });
    assert!(matches!(error, Error::SizeMismatch { actual: u64::MAX, .. }), "{error}");
}

/// Variants that share a layer, and an image that has the same layer twice.
#[test]
fn shared_and_repeated_layers() {
    let (_dir, from) = store();
    let host = Platform { os: "linux".into(), ..Platform::host() };
    let build = |platform: &Platform| {
        let layer = |name: &str| {
            let mut layer = LayerBuilder::new();
            layer.file(name, 0o644, name);
            layer
        };
        let mut image = ImageBuilder::new(platform);
        image.layer(layer("a")).layer(layer("b")).layer(layer("a"));
        image.build(&from).unwrap()
    };
    let (foreign, native) = (build(&"linux/s390x".parse().unwrap()), build(&host));
    let top = compose::index(&from, &[foreign, native]).unwrap();
    let mut paths = HashMap::from([("/v2/".to_owned(), Reply::new(200))]);
    for entry in fs_err::read_dir(from.root().join("blobs/sha256")).unwrap() {
        let entry = entry.unwrap();
        let bytes = fs_err::read(entry.path()).unwrap();
        let digest = format!("sha256:{}", entry.file_name().to_string_lossy());
        let kind = if digest == top.digest.to_string() { media::INDEX } else { media::MANIFEST };
        let reply = Reply::new(200).header("Content-Type", kind).body(bytes);
        paths.insert(format!("/v2/app/blobs/{digest}"), reply.clone());
        paths.insert(format!("/v2/app/manifests/{digest}"), reply);
    }
    paths.insert("/v2/app/manifests/1".into(), paths[&format!("/v2/app/manifests/{}", top.digest)].clone());
    let server = Server::start(move |r| paths.get(&r.path).cloned().unwrap_or_else(|| Reply::new(404)));
    let (_dir, store) = store();
    let all = PullOptions { platforms: Platforms::All, unpack: true, ..options() };
    pull(&store, &server.name(), &all, &NoProgress).unwrap();
    let image = store.image(&top, &Matcher::only(&host)).unwrap();
    if cfg!(target_os = "linux") {
        assert!(
            image.diff_ids.iter().all(|d| store.layer_path(d).is_dir()),
            "the host's variant is unpacked"
        );
    }
    let expect = |layers: &[crate::UnpackedLayer]| {
        let ids: Vec<_> = layers.iter().map(|l| l.diff_id.clone()).collect();
        assert_eq!(ids, image.diff_ids);
        assert_eq!(layers.len(), 3);
        assert_eq!(layers[0], layers[2]);
        for (layer, name) in layers.iter().zip(["a", "b", "a"]) {
            assert_eq!(fs_err::read_to_string(layer.path.join(name)).unwrap(), name);
        }
    };
    expect(&store.unpack(&image, &NoProgress).unwrap());
    // Some are there, one that is needed twice is not.
    crate::remove_tree(store.layer_path(&image.diff_ids[0]).parent().unwrap()).unwrap();
    expect(&store.unpack(&image, &NoProgress).unwrap());
    assert_eq!(store.check(false).unwrap(), []);
}

#[test]
fn a_registry_that_always_breaks_off_is_given_up() {
    let content = content();
    let path = content.layer_path();
    let error = fails(move |r| {
        let mut reply = content.get(r);
        if r.path == path {
            reply.cut = Some(100);
        }
        reply
    });
    assert!(matches!(error, Error::SizeMismatch { .. }), "{error}");
}

#[test]
fn tokens_are_fetched_and_loops_end() {
    let content = content();
    let port = Arc::new(Mutex::new(0));
    let handler = {
        let port = port.clone();
        move |r: &Request| {
            if r.path.starts_with("/token") {
                assert!(r.path.starts_with("/token?service=srv&scope=repository%3Aapp%3Apull"), "{}", r.path);
                let basic = r.headers.get("authorization").map(String::as_str);
                return match basic {
                    Some("Basic dTpw") => Reply::new(200).body(r#"{"token":"good"}"#),
                    Some(_) => Reply::new(401),
                    None => Reply::new(200).body(r#"{"token":"anonymous"}"#),
                };
            }
            if r.headers.get("authorization").is_some_and(|a| a == "Bearer good") {
                return content.get(r);
            }
            let port = *port.lock().unwrap();
            Reply::new(401).header(
                "WWW-Authenticate",
                format!("Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"srv\""),
            )
        }
    };
    let server = Server::start(handler);
    *port.lock().unwrap() = server.port;
    let (_dir, store) = store();
    let with = |password: &str| {
        let credentials = Some(Credentials::Basic { user: "u".into(), password: password.into() });
        PullOptions { access: Access { credentials, ..options().access }, ..options() }
    };
    for refused in [options(), with("wrong")] {
        let before = server.requests().len();
        let error = pull(&store, &server.name(), &refused, &NoProgress).unwrap_err();
        assert!(matches!(error, Error::Denied { .. }), "{error}");
        assert!(server.requests().len() - before < 6, "a loop");
        assert_clean(&store);
    }
    pull(&store, &server.name(), &with("p"), &NoProgress).unwrap();
}

#[test]
fn basic_credentials_are_sent_only_when_asked_for() {
    let content = content();
    let server = Server::start(move |r| match r.headers.get("authorization").map(String::as_str) {
        Some("Basic dTpw") => content.get(r),
        _ => Reply::new(401).header("WWW-Authenticate", "Basic realm=\"x\""),
    });
    let (_dir, store) = store();
    let error = pull(&store, &server.name(), &options(), &NoProgress).unwrap_err();
    assert!(error.to_string().contains("authentication required"), "{error}");
    let credentials = Some(Credentials::Basic { user: "u".into(), password: "p".into() });
    pull(
        &store,
        &server.name(),
        &PullOptions { access: Access { credentials, ..options().access }, ..options() },
        &NoProgress,
    )
    .unwrap();
}

#[test]
fn credentials_do_not_follow_a_redirect() {
    let content = content();
    let path = content.layer_path();
    let elsewhere = Server::start({
        let content = content.clone();
        move |r| content.get(r)
    });
    let port = elsewhere.port;
    let server = Server::start({
        let path = path.clone();
        move |r| match r.headers.get("authorization").map(String::as_str) {
            Some("Basic dTpw") if r.path == path => {
                Reply::new(307).header("Location", format!("http://127.0.0.1:{port}{path}"))
            }
            Some("Basic dTpw") => content.get(r),
            _ => Reply::new(401).header("WWW-Authenticate", "Basic realm=\"x\""),
        }
    });
    let (_dir, store) = store();
    let credentials = Some(Credentials::Basic { user: "u".into(), password: "p".into() });
    let options = PullOptions {
        access: Access { credentials, ..options().access },
        platforms: Platforms::All,
        ..options()
    };
    pull(&store, &server.name(), &options, &NoProgress).unwrap();
    let seen = elsewhere.requests();
    assert_eq!(seen.len(), 1);
    assert!(!seen[0].headers.contains_key("authorization"));
}

#[test]
fn nobody_there() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (_dir, store) = store();
    let name = format!("127.0.0.1:{port}/x").parse().unwrap();
    let error = pull(&store, &name, &options(), &NoProgress).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot reach registry 127.0.0.1:{port}: connection refused"));
    assert!(error.hint().is_some());
    assert_clean(&store);
}

#[test]
fn busy_registries_are_asked_again() {
    let content = content();
    let refusals = Mutex::new(2);
    let server = Server::start(move |r| {
        let mut left = refusals.lock().unwrap();
        if r.path.contains("manifests/1") && *left > 0 {
            *left -= 1;
            return Reply::new(if *left == 1 { 503 } else { 429 });
        }
        content.get(r)
    });
    let (_dir, store) = store();
    pull(&store, &server.name(), &options(), &NoProgress).unwrap();
}

#[test]
fn pulls_and_sweeps_may_run_at_once() {
    let content = content();
    let server = Server::start(move |r| content.get(r));
    let (_dir, store) = store();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sweeper = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                store.untag(&server.name()).unwrap();
                store.remove_unreferenced().unwrap();
            }
        });
        let pullers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..5 {
                        pull(&store, &server.name(), &options(), &NoProgress).unwrap();
                    }
                })
            })
            .collect();
        let pulled: Vec<_> = pullers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::SeqCst);
        sweeper.join().unwrap();
        pulled.into_iter().for_each(Result::unwrap);
    });
    pull(&store, &server.name(), &options(), &NoProgress).unwrap();
    assert_eq!(store.check(false).unwrap(), []);
    store.untag(&server.name()).unwrap();
    store.remove_unreferenced().unwrap();
    assert_eq!(store.total_usage().unwrap(), crate::Usage::default());
}
