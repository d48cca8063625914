//! A registry in this process that takes pushes, keeps them in memory, and fails in the way a test wants. Standard
//! library, `sha2` and `serde_json` only: the unit tests of `dhow-images` use this file too.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use sha2::Digest as _;

/// A running registry; ends with its value.
pub(crate) struct Sink {
    port: u16,
    shared: Arc<Shared>,
}

/// How the registry is, apart from faults.
#[derive(Clone, Default)]
pub(crate) struct Manner {
    /// `OCI-Chunk-Min-Length`.
    pub(crate) least: Option<u64>,
    /// It has the referrers API.
    pub(crate) referrers: bool,
    /// Locations are paths, and their query is not empty.
    pub(crate) relative: bool,
    /// Only with `Authorization: Bearer <token>`.
    pub(crate) token: Option<String>,
    /// Entries of a page of a list.
    pub(crate) page: Option<usize>,
    /// What `/v1/search` answers.
    pub(crate) search: Option<String>,
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// With the query.
    pub(crate) target: String,
    pub(crate) authorization: Option<String>,
    pub(crate) range: Option<String>,
    /// Bytes of the body that were read.
    pub(crate) body: usize,
    /// Bytes of the body that were promised.
    pub(crate) length: usize,
}

/// What happens in place of the usual.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// This answer, after the body was read.
    Answer(u16, Vec<(&'static str, String)>, &'static str),
    /// So many bytes of the body are read and kept, then the connection is closed.
    Cut(usize),
    /// As [`Fault::Cut`], but the connection stays as it is until [`Sink::release`].
    Stall(usize),
    /// Nothing is read, and the connection is closed.
    HangUp,
}

type Hook = dyn Fn(&Asked) -> Option<Fault> + Send + Sync;

#[derive(Default)]
struct Shared {
    manner: Manner,
    hook: Mutex<Option<Arc<Hook>>>,
    asked: Mutex<Vec<Asked>>,
    content: Mutex<Content>,
    next: AtomicUsize,
    stalled: AtomicBool,
    released: AtomicBool,
    stop: AtomicBool,
}

#[derive(Default)]
struct Content {
    /// `repository@digest`.
    blobs: HashMap<String, Vec<u8>>,
    /// `repository:tag` and `repository@digest`, with the media type.
    manifests: HashMap<String, (String, Vec<u8>)>,
    /// Upload id to what there is of it.
    uploads: HashMap<String, Vec<u8>>,
}

struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

fn reply(status: u16) -> Reply {
    Reply { status, headers: Vec::new(), body: Vec::new() }
}

impl Reply {
    fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

impl Sink {
    pub(crate) fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared { manner, ..Shared::default() });
        let thread = shared.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                if thread.stop.load(Ordering::SeqCst) {
                    return;
                }
                let shared = thread.clone();
                std::thread::spawn(move || drop(serve(&shared, &connection.unwrap())));
            }
        });
        Self { port, shared }
    }

    /// `127.0.0.1:PORT/…`.
    pub(crate) fn name(&self, rest: &str) -> String {
        format!("127.0.0.1:{}/{rest}", self.port)
    }

    /// Faults from now on.
    pub(crate) fn fault(&self, hook: impl Fn(&Asked) -> Option<Fault> + Send + Sync + 'static) {
        *self.shared.hook.lock().unwrap() = Some(Arc::new(hook));
    }

    /// No more faults.
    pub(crate) fn heal(&self) {
        *self.shared.hook.lock().unwrap() = None;
    }

    /// Everything that was asked so far; forgets it.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.shared.asked.lock().unwrap())
    }

    /// Whether a request has reached a [`Fault::Stall`].
    pub(crate) fn is_stalled(&self) -> bool {
        self.shared.stalled.load(Ordering::SeqCst)
    }

    /// Ends all stalls.
    pub(crate) fn release(&self) {
        self.shared.released.store(true, Ordering::SeqCst);
    }

    pub(crate) fn blob(&self, repository: &str, digest: &str) -> Option<Vec<u8>> {
        self.shared.content.lock().unwrap().blobs.get(&format!("{repository}@{digest}")).cloned()
    }

    /// Media type and bytes of `repository:tag` or `repository@digest`.
    pub(crate) fn manifest(&self, name: &str) -> Option<(String, Vec<u8>)> {
        self.shared.content.lock().unwrap().manifests.get(name).cloned()
    }

    /// Forgets a manifest or a blob.
    pub(crate) fn forget(&self, name: &str) {
        let mut content = self.shared.content.lock().unwrap();
        content.manifests.remove(name);
        content.blobs.remove(name);
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.release();
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

/// Requests of one connection.
fn serve(shared: &Shared, stream: &TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while request(shared, stream, &mut reader)? {}
    stream.shutdown(std::net::Shutdown::Both)
}

fn request(shared: &Shared, stream: &TcpStream, reader: &mut BufReader<TcpStream>) -> std::io::Result<bool> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(false);
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (method, target) = (method.to_owned(), target.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => drop(headers.insert(name.to_ascii_lowercase(), value.to_owned())),
            None => break,
        }
    }
    let length: usize = headers.get("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    let mut asked = Asked {
        method,
        target,
        authorization: headers.get("authorization").cloned(),
        range: headers.get("content-range").cloned(),
        body: 0,
        length,
    };
    let hook = shared.hook.lock().unwrap().clone();
    let fault = hook.and_then(|hook| hook(&asked));
    let limit = match &fault {
        Some(Fault::Cut(bytes) | Fault::Stall(bytes)) => length.min(*bytes),
        Some(Fault::HangUp) => 0,
        _ => length,
    };
    let mut body = Vec::new();
    let read = reader.by_ref().take(limit as u64).read_to_end(&mut body);
    asked.body = body.len();
    shared.asked.lock().unwrap().push(asked.clone());
    let whole = read.is_ok() && body.len() == length;
    if !whole {
        // What came of an upload is kept, as good registries do.
        if asked.method == "PATCH" {
            append(shared, &asked, &body);
        }
        if let Some(Fault::Stall(_)) = fault {
            shared.stalled.store(true, Ordering::SeqCst);
            while !shared.released.load(Ordering::SeqCst) {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
        return Ok(false);
    }
    let answer = match fault {
        Some(Fault::Answer(status, headers, body)) => {
            let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            Reply { status, headers, body: body.into() }
        }
        Some(_) => return Ok(false),
        None => usual(shared, &asked, &headers, body),
    };
    let mut head = format!("HTTP/1.1 {} X\r\n", answer.status);
    if answer.status != 204 {
        head.push_str(&format!("Content-Length: {}\r\n", answer.body.len()));
    }
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut out = stream;
    out.write_all(&[head.as_bytes(), b"\r\n"].concat())?;
    if asked.method != "HEAD" {
        out.write_all(&answer.body)?;
    }
    Ok(true)
}

/// Puts bytes to an upload at the place that the request names; how many there are then.
fn append(shared: &Shared, asked: &Asked, body: &[u8]) -> Option<usize> {
    let id = asked.target.split('?').next()?.rsplit('/').next()?;
    let mut content = shared.content.lock().unwrap();
    let upload = content.uploads.get_mut(id)?;
    let start = match &asked.range {
        Some(range) => range.split('-').next()?.parse().ok()?,
        None => upload.len(),
    };
    if start != upload.len() {
        return None;
    }
    upload.extend_from_slice(body);
    Some(upload.len())
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn error(status: u16, code: &str) -> Reply {
    reply(status).body(format!(r#"{{"errors":[{{"code":"{code}","message":"{}"}}]}}"#, code.to_lowercase()))
}

fn query<'t>(target: &'t str, name: &str) -> Option<&'t str> {
    target.split_once('?')?.1.split('&').find_map(|p| p.strip_prefix(name)?.strip_prefix('='))
}

/// What a good registry answers.
fn usual(shared: &Shared, asked: &Asked, headers: &HashMap<String, String>, body: Vec<u8>) -> Reply {
    let (path, _) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
    let manner = &shared.manner;
    let host = headers.get("host").cloned().unwrap_or_default();
    if let Some(token) = &manner.token {
        if path == "/token" {
            return reply(200).body(format!(r#"{{"token":"{token}","expires_in":60}}"#));
        }
        if asked.authorization.as_ref() != Some(&format!("Bearer {token}")) {
            let challenge = format!(r#"Bearer realm="http://{host}/token",service="test""#);
            return error(401, "UNAUTHORIZED").header("WWW-Authenticate", challenge);
        }
    }
    if path == "/v1/search" {
        return match &manner.search {
            Some(text) => reply(200).body(text.clone()),
            None => reply(404),
        };
    }
    if path == "/v2/" {
        return reply(200);
    }
    if path == "/v2/_catalog" {
        let content = shared.content.lock().unwrap();
        let mut names: Vec<String> =
            content.manifests.keys().map(|k| k.split(['@', ':']).next().unwrap().to_owned()).collect();
        names.sort();
        names.dedup();
        return page(manner, asked, "repositories", "/v2/_catalog", &names);
    }
    let rest = path.strip_prefix("/v2/").unwrap_or_default();
    for (kind, act) in ACTS {
        if let Some((repository, name)) = rest.split_once(kind) {
            return act(&Request { shared, asked, headers, repository, name }, body);
        }
    }
    error(404, "NOT_FOUND")
}

fn page(manner: &Manner, asked: &Asked, key: &str, path: &str, names: &[String]) -> Reply {
    let last = query(&asked.target, "last").unwrap_or_default();
    let mut names: Vec<&String> = names.iter().filter(|name| name.as_str() > last).collect();
    let mut answer = reply(200);
    if let Some(page) = manner.page.filter(|page| *page < names.len()) {
        names.truncate(page);
        answer = answer.header("Link", format!(r#"<{path}?n={page}&last={}>; rel="next""#, names[page - 1]));
    }
    answer.body(serde_json::json!({ key: names }).to_string())
}

struct Request<'a> {
    shared: &'a Shared,
    asked: &'a Asked,
    headers: &'a HashMap<String, String>,
    repository: &'a str,
    name: &'a str,
}

type Act = fn(&Request<'_>, Vec<u8>) -> Reply;

const ACTS: [(&str, Act); 5] = [
    ("/blobs/uploads/", upload),
    ("/blobs/", blob),
    ("/manifests/", manifest),
    ("/referrers/", referrers),
    ("/tags/", tags),
];

fn upload(request: &Request<'_>, body: Vec<u8>) -> Reply {
    let Request { shared, asked, headers, repository, name: id } = *request;
    let location = |id: &str| {
        let path = format!("/v2/{repository}/blobs/uploads/{id}");
        if shared.manner.relative {
            return format!("{path}?state=a%2Fb");
        }
        format!("http://{}{path}", headers.get("host").cloned().unwrap_or_default())
    };
    let opened = |answer: Reply, id: &str, size: usize| {
        let answer =
            answer.header("Location", location(id)).header("Range", format!("0-{}", size.saturating_sub(1)));
        match shared.manner.least {
            Some(least) => answer.header("OCI-Chunk-Min-Length", least.to_string()),
            None => answer,
        }
    };
    match asked.method.as_str() {
        "POST" => {
            let mut content = shared.content.lock().unwrap();
            if let (Some(mount), Some(from)) = (query(&asked.target, "mount"), query(&asked.target, "from"))
                && let Some(bytes) = content.blobs.get(&format!("{from}@{mount}")).cloned()
            {
                content.blobs.insert(format!("{repository}@{mount}"), bytes);
                return reply(201).header("Location", format!("/v2/{repository}/blobs/{mount}"));
            }
            let id = format!("u{}", shared.next.fetch_add(1, Ordering::SeqCst));
            content.uploads.insert(id.clone(), Vec::new());
            opened(reply(202), &id, 0)
        }
        "GET" => match shared.content.lock().unwrap().uploads.get(id) {
            Some(bytes) => opened(reply(204), id, bytes.len()),
            None => error(404, "BLOB_UPLOAD_UNKNOWN"),
        },
        "PATCH" => match append(shared, asked, &body) {
            Some(size) => opened(reply(202), id, size),
            None if shared.content.lock().unwrap().uploads.contains_key(id) => error(416, "RANGE_INVALID"),
            None => error(404, "BLOB_UPLOAD_UNKNOWN"),
        },
        "PUT" => {
            let mut content = shared.content.lock().unwrap();
            let Some(mut bytes) = content.uploads.remove(id) else {
                return error(404, "BLOB_UPLOAD_UNKNOWN");
            };
            bytes.extend(body);
            let wanted = query(&asked.target, "digest").unwrap_or_default();
            if digest(&bytes) != wanted {
                return error(400, "DIGEST_INVALID");
            }
            content.blobs.insert(format!("{repository}@{wanted}"), bytes);
            reply(201).header("Docker-Content-Digest", wanted)
        }
        "DELETE" => match shared.content.lock().unwrap().uploads.remove(id) {
            Some(_) => reply(204),
            None => error(404, "BLOB_UPLOAD_UNKNOWN"),
        },
        _ => reply(405),
    }
}

fn blob(request: &Request<'_>, _: Vec<u8>) -> Reply {
    let Request { shared, repository, name, .. } = *request;
    match shared.content.lock().unwrap().blobs.get(&format!("{repository}@{name}")) {
        Some(bytes) => reply(200).body(bytes.clone()),
        None => error(404, "BLOB_UNKNOWN"),
    }
}

fn manifest(request: &Request<'_>, body: Vec<u8>) -> Reply {
    let Request { shared, asked, headers, repository, name } = *request;
    let key = |name: &str| {
        if name.contains(':') { format!("{repository}@{name}") } else { format!("{repository}:{name}") }
    };
    let mut content = shared.content.lock().unwrap();
    if asked.method != "PUT" {
        return match content.manifests.get(&key(name)) {
            Some((kind, bytes)) => reply(200)
                .header("Content-Type", kind.clone())
                .header("Docker-Content-Digest", digest(bytes))
                .body(bytes.clone()),
            None => error(404, "MANIFEST_UNKNOWN"),
        };
    }
    let found: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let digest = digest(&body);
    let known = |descriptor: &serde_json::Value| {
        let key = format!("{repository}@{}", descriptor["digest"].as_str().unwrap_or_default());
        content.blobs.contains_key(&key) || content.manifests.contains_key(&key)
    };
    let parts = ["layers", "manifests"].iter().filter_map(|key| found[*key].as_array()).flatten();
    // The fall-back index of referrers may lead to what is pushed later.
    if !name.starts_with("sha256-") && !parts.chain(found.get("config")).all(known) {
        return error(400, "MANIFEST_BLOB_UNKNOWN");
    }
    let kind = headers.get("content-type").cloned().unwrap_or_default();
    content.manifests.insert(key(&digest), (kind.clone(), body.clone()));
    content.manifests.insert(key(name), (kind, body));
    let answer = reply(201).header("Docker-Content-Digest", digest);
    match found["subject"]["digest"].as_str() {
        Some(subject) if shared.manner.referrers => answer.header("OCI-Subject", subject),
        _ => answer,
    }
}

fn referrers(request: &Request<'_>, _: Vec<u8>) -> Reply {
    let Request { shared, repository, name, .. } = *request;
    if !shared.manner.referrers {
        return error(404, "NOT_FOUND");
    }
    let content = shared.content.lock().unwrap();
    let mut manifests = Vec::new();
    for (key, (kind, bytes)) in &content.manifests {
        let found: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
        if key.starts_with(&format!("{repository}@")) && found["subject"]["digest"] == name {
            manifests.push(serde_json::json!({
                "mediaType": kind, "digest": digest(bytes), "size": bytes.len(),
                "artifactType": found["artifactType"], "annotations": found["annotations"],
            }));
        }
    }
    manifests.sort_by_key(|m| m["digest"].to_string());
    let mut answer = reply(200).header("Content-Type", "application/vnd.oci.image.index.v1+json");
    if let Some(page) = shared.manner.page {
        let from: usize = query(&request.asked.target, "from").and_then(|v| v.parse().ok()).unwrap_or(0);
        let rest = manifests.split_off(from.min(manifests.len()));
        if rest.len() > page {
            let target = request.asked.target.split('?').next().unwrap_or_default();
            answer = answer.header("Link", format!(r#"<{target}?from={}>; rel="next""#, from + page));
        }
        manifests = rest.into_iter().take(page).collect();
    }
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests,
    });
    answer.body(index.to_string())
}

fn tags(request: &Request<'_>, _: Vec<u8>) -> Reply {
    let Request { shared, asked, repository, .. } = *request;
    let content = shared.content.lock().unwrap();
    let prefix = format!("{repository}:");
    let mut tags: Vec<String> =
        content.manifests.keys().filter_map(|k| k.strip_prefix(&prefix)).map(str::to_owned).collect();
    tags.sort();
    page(&shared.manner, asked, "tags", &format!("/v2/{repository}/tags/list"), &tags)
}
