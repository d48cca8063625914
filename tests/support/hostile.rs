//! A registry that misbehaves: serves an OCI layout, except where a test says what to answer instead.
//!
//! Speaks as much HTTP as a client of a registry needs, one request for each connection.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use serde_json::Value;

use super::Layout;

/// What is sent for one path.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Sent before the connection is cut, where that is less than the whole.
    sent: Option<usize>,
    /// The connection is not cut then, but stays as it is until the server ends.
    stall: bool,
}

/// The server; ends with its value.
#[derive(Debug)]
pub(crate) struct Hostile {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    answers: Mutex<HashMap<String, Answer>>,
    asked: Mutex<Vec<String>>,
    authorizations: Mutex<Vec<String>>,
    /// A bearer token without which everything is refused.
    token: Mutex<Option<String>>,
    stop: AtomicBool,
}

impl Answer {
    pub(crate) fn new(status: u16, media_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("Content-Type".to_owned(), media_type.to_owned())];
        Self { status, headers, body: body.into(), sent: None, stall: false }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn into_body(self) -> Vec<u8> {
        self.body
    }

    /// Declares the whole length and cuts the connection after `count` bytes of the body.
    pub(crate) fn cut_after(mut self, count: usize) -> Self {
        self.sent = Some(count);
        self
    }

    /// Declares the whole length, sends `count` bytes of the body, and nothing more for as long as the server lives.
    pub(crate) fn stall_after(self, count: usize) -> Self {
        Self { stall: true, ..self.cut_after(count) }
    }
}

impl Hostile {
    /// Serves `image` of a layout as `NAME:1`; every blob of the layout is there too.
    pub(crate) fn serve(name: &str, layout: &Layout, image: &Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("free port");
        let address = listener.local_addr().expect("address");
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if theirs.stop.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&theirs);
                thread::spawn(move || drop(answer(&stream, &shared, address)));
            }
        });
        let server = Self { address, shared, thread: Some(thread) };
        server.set("/v2/", Answer::new(200, "application/json", "{}"));
        for entry in fs_err::read_dir(layout.path().join("blobs/sha256")).expect("blobs") {
            let path = entry.expect("entry").path();
            let digest = format!("sha256:{}", path.file_name().expect("named").to_string_lossy());
            let body = fs_err::read(&path).expect("blob");
            let media_type = serde_json::from_slice::<Value>(&body)
                .ok()
                .and_then(|json| json["mediaType"].as_str().map(str::to_owned))
                .unwrap_or_else(|| "application/octet-stream".to_owned());
            server.set(
                &format!("/v2/{name}/blobs/{digest}"),
                Answer::new(200, "application/octet-stream", &*body),
            );
            server.set(&format!("/v2/{name}/manifests/{digest}"), Answer::new(200, &media_type, body));
        }
        let digest = image["digest"].as_str().expect("descriptor");
        let top = server.get(&format!("/v2/{name}/manifests/{digest}"));
        server.set(&format!("/v2/{name}/manifests/1"), top.header("Docker-Content-Digest", digest));
        server
    }

    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Answers this from now on.
    pub(crate) fn set(&self, path: &str, answer: Answer) {
        self.shared.answers.lock().expect("lock").insert(path.to_owned(), answer);
    }

    /// What is answered now.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.shared
            .answers
            .lock()
            .expect("lock")
            .get(path)
            .cloned()
            .unwrap_or_else(|| panic!("{path} is not served"))
    }

    /// Wants this bearer token for everything, and gives it to whoever asks at `/token`.
    pub(crate) fn require_token(&self, token: &str) {
        *self.shared.token.lock().expect("lock") = Some(token.to_owned());
    }

    /// Every request line so far, for example `GET /v2/`.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().expect("lock").clone()
    }

    /// The `Authorization` header of every request so far, empty where there was none.
    pub(crate) fn authorizations(&self) -> Vec<String> {
        self.shared.authorizations.lock().expect("lock").clone()
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the accepting thread.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn answer(stream: &TcpStream, shared: &Shared, address: SocketAddr) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut request, mut authorization, mut range) = (String::new(), String::new(), None);
    reader.read_line(&mut request)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        match line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim())) {
            Some((name, value)) if name == "authorization" => value.clone_into(&mut authorization),
            Some((name, value)) if name == "range" => {
                range = value
                    .strip_prefix("bytes=")
                    .and_then(|value| value.split('-').next()?.parse::<usize>().ok());
            }
            _ => {}
        }
    }
    let mut words = request.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    shared.asked.lock().expect("lock").push(format!("{method} {target}"));
    shared.authorizations.lock().expect("lock").push(authorization.clone());

    let wanted = shared.token.lock().expect("lock").clone();
    let answer = match wanted {
        Some(token) if path == "/token" => {
            Answer::new(200, "application/json", format!(r#"{{"token":"{token}","expires_in":60}}"#))
        }
        Some(token) if authorization != format!("Bearer {token}") => {
            let challenge = format!(r#"Bearer realm="http://{address}/token",service="test""#);
            Answer::new(401, "application/json", r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#)
                .header("Www-Authenticate", &challenge)
        }
        _ => shared.answers.lock().expect("lock").get(path).cloned().unwrap_or_else(|| {
            Answer::new(
                404,
                "application/json",
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown"}]}"#,
            )
        }),
    };
    let stall = answer.stall;
    respond(stream, method, answer, range)?;
    while stall && !shared.stop.load(Ordering::Relaxed) {
        thread::sleep(std::time::Duration::from_millis(5));
    }
    Ok(())
}

fn respond(
    mut stream: &TcpStream,
    method: &str,
    mut answer: Answer,
    range: Option<usize>,
) -> std::io::Result<()> {
    let whole = answer.body.len();
    if let Some(start) = range.filter(|start| answer.status == 200 && *start < whole && answer.sent.is_none())
    {
        answer.status = 206;
        answer.headers.push(("Content-Range".to_owned(), format!("bytes {start}-{}/{whole}", whole - 1)));
        answer.body.drain(..start);
    }
    let mut head = format!("HTTP/1.1 {} Test\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !answer.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
        head.push_str(&format!("Content-Length: {}\r\n", answer.body.len()));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    if method != "HEAD" {
        let sent = answer.sent.unwrap_or(answer.body.len()).min(answer.body.len());
        stream.write_all(&answer.body[..sent])?;
    }
    stream.flush()
}
