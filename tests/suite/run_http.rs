//! Components that answer HTTP: what clients see, good ones and bad ones, and what becomes of a service.

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Host, Running, guest};

/// A service at a port of its own, in the foreground.
pub(super) struct Service {
    pub(super) host: Host,
    pub(super) running: Running,
    pub(super) port: u16,
}

pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Service {
    pub(super) fn start(options: &[&str]) -> Self {
        Self::of("http.wasm", options)
    }

    /// Of this guest, which may take a minute to compile.
    pub(super) fn of(name: &str, options: &[&str]) -> Self {
        let host = Host::new();
        host.file("http.wasm", guest(name));
        let port = free_port();
        let publish = format!("127.0.0.1:{port}:80");
        let mut args = vec!["run", "--rm", "--name", "web", "-p", &publish];
        args.extend(options);
        args.push("./http.wasm");
        let running = host.dhow(args).spawn();
        let service = Self { host, running, port };
        for _ in 0..2400 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return service;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("nobody listens");
    }

    pub(super) fn connect(&self) -> TcpStream {
        connect(self.port)
    }

    /// Sends bytes as they are; gives all that comes until the other side closes.
    pub(super) fn raw(&self, bytes: &[u8]) -> String {
        raw(self.port, bytes)
    }

    /// Status and body of one request on a connection of its own.
    pub(super) fn get(&self, path: &str) -> (u16, String) {
        get(self.port, path)
    }

    /// Stops it as `docker stop` does, and gives its exit code and standard error.
    pub(super) fn stop(self) -> (i32, String, String) {
        self.running.signal(Signal::TERM);
        let outcome = self.running.outcome();
        self.host.has_no_container();
        (outcome.code, outcome.stdout, outcome.stderr)
    }
}

pub(super) fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

pub(super) fn raw(port: u16, bytes: &[u8]) -> String {
    let mut stream = connect(port);
    // It may have answered and closed before all is sent.
    stream.write_all(bytes).ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    String::from_utf8_lossy(&answer).into_owned()
}

pub(super) fn get(port: u16, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n");
    let answer = raw(port, request.as_bytes());
    (status(&answer), answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned())
}

pub(super) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

#[test]
fn a_service_answers_and_ends_well() {
    let service = Service::start(&["-e", "COLOR=blue"]);
    assert_eq!(service.get("/"), (200, "Hello from Wasm\n".to_owned()));
    assert_eq!(service.get("/env?COLOR"), (200, "blue".to_owned()));
    assert_eq!(service.get("/log?x").0, 200);
    let seen = service.raw(b"POST /request?a=b HTTP/1.1\r\nHost: web:1\r\nX-Y: z\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    assert!(seen.contains("POST http web:1 /request?a=b\n") && seen.contains("x-y: z\n"), "{seen}");
    let written = service
        .raw(b"PUT /write?/note HTTP/1.1\r\nHost: w\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(status(&written), 200, "{written}");
    assert_eq!(service.get("/read?/note"), (200, "abc".to_owned()), "files outlive an instance");
    assert_eq!(service.get("/nothing").0, 404);
    let port = service.host.dhow(["port", "web", "80"]).ok();
    assert_eq!(port, format!("127.0.0.1:{}\n", service.port));
    let shown = service.host.dhow(["ps", "--format", "{{.Ports}}"]).ok();
    assert_eq!(shown, format!("127.0.0.1:{}->80/tcp\n", service.port));
    let (code, stdout, stderr) = service.stop();
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "out x\n", "err x\n"));
}

#[test]
fn bodies_stream_both_ways_and_connections_are_kept() {
    let service = Service::start(&[]);
    let mut stream = service.connect();
    for round in 0..3 {
        stream
            .write_all(
                b"POST /echo HTTP/1.1\r\nHost: w\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n",
            )
            .unwrap();
        let mut seen = String::new();
        for part in ["one", "two"] {
            stream.write_all(format!("3\r\n{part}\r\n").as_bytes()).unwrap();
            // Each part comes back before the next is sent.
            let mut buffer = [0; 4096];
            while !seen.contains(part) {
                let count = stream.read(&mut buffer).unwrap();
                assert!(count > 0, "round {round}: {seen}");
                seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
        let mut buffer = [0; 4096];
        while !seen.ends_with("\r\n\r\n") || !seen.contains("\r\n0\r\n") {
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0, "round {round}: {seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    }
    drop(stream);
    let big = vec![b'x'; 3 << 20];
    let mut request = format!(
        "POST /length HTTP/1.1\r\nHost: w\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        big.len()
    )
    .into_bytes();
    request.extend(&big);
    assert!(service.raw(&request).ends_with("\r\n3145728"));
    assert_eq!(service.stop().0, 0);
}

#[test]
fn programs_that_fail_harm_only_their_request() {
    let service = Service::start(&["--timeout", "1s", "--memory", "64m"]);
    for (path, code) in [
        ("/trap", 500),
        ("/panic", 500),
        ("/exit", 500),
        ("/silent", 500),
        ("/grow", 500),
        ("/loop", 504),
        ("/sleep?5000", 504),
    ] {
        assert_eq!(service.get(path).0, code, "{path}");
        assert_eq!(service.get("/"), (200, "Hello from Wasm\n".to_owned()), "after {path}");
    }
    // What has begun well and breaks off: its beginning is sent, and has no proper end.
    for _ in 0..5 {
        let half = service.raw(b"GET /half HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n");
        assert!(half.starts_with("HTTP/1.1 200 OK\r\n") && half.ends_with("4\r\nhalf\r\n"), "{half}");
    }
    // One that computes for ever does not hold up the others.
    let port = service.port;
    thread::scope(|scope| {
        let loops: Vec<_> = (0..4).map(|_| scope.spawn(move || get(port, "/loop").0)).collect();
        assert_eq!(service.get("/").0, 200);
        assert!(loops.into_iter().all(|done| done.join().unwrap() == 504));
    });
    let (code, _, stderr) = service.stop();
    assert_eq!(code, 0);
    for word in ["unreachable", "GET /silent: ended without an answer", "memory limit", "no answer within 1s"]
    {
        assert!(stderr.contains(word), "{word}: {stderr}");
    }
}

#[test]
fn bad_clients_are_told_or_dropped() {
    let service = Service::start(&[]);
    let long = format!("GET /{} HTTP/1.1\r\nHost: w\r\n\r\n", "a".repeat(70_000));
    let flood = format!("GET / HTTP/1.1\r\nHost: w\r\n{}\r\n", "X-Y: z\r\n".repeat(200));
    for (bytes, codes) in [
        (&b"nonsense\r\n\r\n"[..], &[400][..]),
        (b"GET / HTTP/1.1\r\n\r\n", &[400]),
        (b"GET / HTTP/9.9\r\nHost: w\r\n\r\n", &[400, 505]),
        (b"GET / HTTP/1.1\r\nHost: w\r\nContent-Length: x\r\n\r\n", &[400]),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", &[400]),
        (long.as_bytes(), &[414, 431]),
        (flood.as_bytes(), &[431]),
    ] {
        let answer = service.raw(bytes);
        assert!(codes.contains(&status(&answer)), "{:?}: {answer}", String::from_utf8_lossy(&bytes[..20]));
    }
    // Many that send half a request, or a whole one and go.
    let mut slow = Vec::new();
    for number in 0..300 {
        let mut stream = service.connect();
        let bytes: &[u8] =
            if number % 2 == 0 { b"GET / HT" } else { b"GET /stream?9 HTTP/1.1\r\nHost: w\r\n\r\n" };
        stream.write_all(bytes).unwrap();
        if number % 3 == 0 {
            slow.push(stream);
        }
    }
    assert_eq!(service.get("/"), (200, "Hello from Wasm\n".to_owned()));
    drop(slow);
    assert_eq!(service.stop().0, 0);
}

#[test]
fn what_is_being_answered_is_finished_when_it_stops() {
    let service = Service::start(&[]);
    let mut stream = service.connect();
    stream.write_all(b"GET /stream?8 HTTP/1.1\r\nHost: w\r\n\r\n").unwrap();
    let mut buffer = [0; 4096];
    let mut seen = String::new();
    while !seen.contains("line 0") {
        let count = stream.read(&mut buffer).unwrap();
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    service.running.signal(Signal::TERM);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("line 7") && rest.ends_with("0\r\n\r\n"), "{rest}");
    assert_eq!(service.running.outcome().code, 0);
}

#[test]
fn what_a_service_fetches_is_a_matter_of_rules() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // The head of a request without a body.
            let mut lines = std::io::BufReader::new(stream.try_clone().unwrap()).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            stream.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 4\r\n\r\ndata").ok();
        }
    });
    let port = address.port();
    let closed = Service::start(&[]);
    let answer = closed.get(&format!("/fetch?http://{address}/"));
    assert_eq!(answer, (502, "ErrorCode::DestinationIpProhibited".to_owned()));
    assert_eq!(closed.get("/fetch?http://example.com/").1, "ErrorCode::HttpRequestDenied");
    let (_, _, stderr) = closed.stop();
    assert!(stderr.is_empty() || stderr.contains("--allow-net"), "{stderr}");
    let rule = format!("127.0.0.1:{port}");
    let named = format!("up.test:{port}");
    let open =
        Service::start(&["--allow-net", &rule, "--allow-net", &named, "--add-host", "up.test:127.0.0.1"]);
    assert_eq!(open.get(&format!("/fetch?http://{address}/")), (201, "data".to_owned()));
    assert_eq!(open.get(&format!("/fetch?http://up.test:{port}/")), (201, "data".to_owned()));
    assert_eq!(open.get("/fetch?http://127.0.0.1:1/").1, "ErrorCode::DestinationIpProhibited");
    assert_eq!(open.get(&format!("/fetch?ftp://up.test:{port}/")).0, 201, "the guest knows two schemes");
    open.stop();
}

#[test]
fn ports_are_refused_before_anything_runs() {
    let host = Host::new();
    host.file("http.wasm", guest("http.wasm"));
    host.dhow(["run", "--rm", "./http.wasm"]).refused(125, "no port of it is published");
    host.dhow(["run", "--rm", "-p", "80/xyz", "./http.wasm"]).rejected(125, "invalid proto: xyz");
    host.dhow(["run", "--rm", "-p", "1.2.3.4:80:80", "./http.wasm"]).refused(125, "cannot assign");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let publish = format!("{}:80", taken.local_addr().unwrap());
    host.dhow(["run", "--rm", "-p", &publish, "./http.wasm"]).refused(125, "port is already allocated");
    host.has_no_container();
}

/// The same in JavaScript: an interpreter of 12 MB for each request.
#[test]
fn a_service_in_javascript() {
    let service = Service::of("js-service.wasm", &[]);
    assert_eq!(service.get("/?name=you"), (200, "hello from JavaScript, you\n".to_owned()));
    let echo = b"POST /echo HTTP/1.1\r\nHost: w\r\nConnection: close\r\nContent-Length: 4\r\n\r\nback";
    let echo = service.raw(echo).to_lowercase();
    assert!(
        echo.starts_with("http/1.1 201") && echo.contains("x-echo: yes") && echo.contains("back"),
        "{echo}"
    );
    let headers = service.raw(b"GET /headers HTTP/1.1\r\nHost: w\r\nX-Mine: 1\r\nConnection: close\r\n\r\n");
    assert!(headers.contains(r#""x-mine":"1""#), "{headers}");
    assert_eq!(service.get("/crash").0, 500);
    assert_eq!(service.get("/nothing"), (404, "no such page\n".to_owned()));
    assert_eq!(service.stop().0, 0);
}
