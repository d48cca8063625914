//! A service for wasi:http 0.2 with one path for everything a test wants to see: `/` greets, the others answer, stream,
//! fetch, fail and misbehave as their names say.

use std::io::Write as _;
use std::time::{Duration, Instant};

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingRequest, Method, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam, Scheme,
};
use wasip2::io::streams::StreamError;

struct Service;

wasip2::http::proxy::export!(Service);

impl wasip2::exports::http::incoming_handler::Guest for Service {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        match path {
            "/" => answer(out, 200, b"Hello from Wasm\n"),
            "/request" => answer(out, 200, describe(&request).as_bytes()),
            "/env" => answer(out, 200, std::env::var(query).unwrap_or_default().as_bytes()),
            "/args" => answer(out, 200, std::env::args().collect::<Vec<_>>().join(" ").as_bytes()),
            "/read" => match std::fs::read(query) {
                Ok(bytes) => answer(out, 200, &bytes),
                Err(error) => answer(out, 404, error.to_string().as_bytes()),
            },
            "/write" => match std::fs::OpenOptions::new().append(true).create(true).open(query) {
                Ok(mut file) => {
                    let body = body_of(&request);
                    file.write_all(&body).expect("write");
                    answer(out, 200, b"written\n");
                }
                Err(error) => answer(out, 500, error.to_string().as_bytes()),
            },
            "/log" => {
                println!("out {query}");
                eprintln!("err {query}");
                answer(out, 200, b"logged\n");
            }
            "/echo" => echo(&request, out),
            "/length" => answer(out, 200, body_of(&request).len().to_string().as_bytes()),
            "/stream" => stream(out, query.parse().unwrap_or(3)),
            "/sleep" => {
                std::thread::sleep(Duration::from_millis(query.parse().unwrap_or(0)));
                answer(out, 200, b"slept\n");
            }
            "/spin" => {
                let end = Instant::now() + Duration::from_millis(query.parse().unwrap_or(0));
                let mut count = 0u64;
                while Instant::now() < end {
                    count = std::hint::black_box(count + 1);
                }
                answer(out, 200, b"spun\n");
            }
            "/loop" => {
                let mut count = 0u64;
                loop {
                    count = std::hint::black_box(count.wrapping_add(1));
                }
            }
            "/trap" => core::arch::wasm32::unreachable(),
            "/panic" => panic!("the guest panics"),
            "/exit" => std::process::exit(3),
            "/silent" => {}
            "/grow" => {
                let mut all = Vec::new();
                loop {
                    all.push(std::hint::black_box(vec![1u8; 1 << 20]));
                }
            }
            "/half" => {
                let response = OutgoingResponse::new(Fields::new());
                let body = response.body().expect("body");
                ResponseOutparam::set(out, Ok(response));
                let stream = body.write().expect("stream");
                stream.blocking_write_and_flush(b"half").expect("write");
                core::arch::wasm32::unreachable();
            }
            "/fetch" => match fetch(query) {
                Ok((status, body)) => answer(out, status, &body),
                Err(reason) => answer(out, 502, reason.as_bytes()),
            },
            "/resolve" => {
                use std::net::ToSocketAddrs as _;
                let found = (query, 80).to_socket_addrs().map(|all| all.map(|one| one.to_string()).collect::<Vec<_>>());
                answer(out, 200, format!("{found:?}\n").as_bytes());
            }
            _ => answer(out, 404, b"not here\n"),
        }
    }
}

fn answer(out: ResponseOutparam, status: u16, text: &[u8]) {
    let headers = Fields::new();
    let length = text.len().to_string().into_bytes();
    headers.set("content-length", &[length]).expect("a valid header");
    let response = OutgoingResponse::new(headers);
    response.set_status_code(status).expect("a valid status");
    let body = response.body().expect("the body is taken once");
    ResponseOutparam::set(out, Ok(response));
    write(&body, text);
    OutgoingBody::finish(body, None).expect("finish");
}

/// Writes all, or as much as anybody reads.
fn write(body: &OutgoingBody, text: &[u8]) {
    let stream = body.write().expect("the stream is taken once");
    for chunk in text.chunks(4096) {
        if stream.blocking_write_and_flush(chunk).is_err() {
            return;
        }
    }
}

fn describe(request: &IncomingRequest) -> String {
    let method = match request.method() {
        Method::Get => "GET".to_owned(),
        Method::Post => "POST".to_owned(),
        Method::Other(other) => other,
        other => format!("{other:?}").to_uppercase(),
    };
    let scheme = match request.scheme() {
        Some(Scheme::Http) => "http",
        Some(Scheme::Https) => "https",
        _ => "?",
    };
    let mut text = format!(
        "{method} {scheme} {} {}\n",
        request.authority().unwrap_or_default(),
        request.path_with_query().unwrap_or_default()
    );
    for (name, value) in request.headers().entries() {
        text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(&value)));
    }
    text
}

fn body_of(request: &IncomingRequest) -> Vec<u8> {
    let mut all = Vec::new();
    each_chunk(request, |chunk| {
        all.extend_from_slice(chunk);
        true
    });
    all
}

fn each_chunk(request: &IncomingRequest, mut take: impl FnMut(&[u8]) -> bool) {
    let body = request.consume().expect("consumed once");
    let stream = body.stream().expect("taken once");
    loop {
        match stream.blocking_read(64 * 1024) {
            Ok(chunk) => {
                if !take(&chunk) {
                    return;
                }
            }
            Err(StreamError::Closed) => return,
            Err(error) => panic!("the request's body: {error}"),
        }
    }
}

/// Sends back what comes, while it comes, and how much it was as a trailer.
fn echo(request: &IncomingRequest, out: ResponseOutparam) {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().expect("taken once");
    ResponseOutparam::set(out, Ok(response));
    let mut count = 0;
    {
        let stream = body.write().expect("taken once");
        each_chunk(request, |chunk| {
            count += chunk.len();
            chunk.chunks(4096).all(|part| stream.blocking_write_and_flush(part).is_ok())
        });
    }
    let trailers = Fields::new();
    trailers.set("x-count", &[count.to_string().into_bytes()]).expect("a valid trailer");
    OutgoingBody::finish(body, Some(trailers)).expect("finish");
}

/// A line every 50 ms.
fn stream(out: ResponseOutparam, lines: u64) {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().expect("taken once");
    ResponseOutparam::set(out, Ok(response));
    {
        let stream = body.write().expect("taken once");
        for line in 0..lines {
            if stream.blocking_write_and_flush(format!("line {line}\n").as_bytes()).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    OutgoingBody::finish(body, None).expect("finish");
}

/// Gets `http://host:port/path`; answers the status and the body, or the error's name.
fn fetch(url: &str) -> Result<(u16, Vec<u8>), String> {
    let (scheme, rest) = url.split_once("://").ok_or("no scheme")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let request = OutgoingRequest::new(Fields::new());
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    request.set_scheme(Some(&scheme)).map_err(|()| "scheme")?;
    request.set_authority(Some(authority)).map_err(|()| "authority")?;
    request.set_path_with_query(Some(&format!("/{path}"))).map_err(|()| "path")?;
    let future = outgoing_handler::handle(request, None).map_err(|error| format!("{error:?}"))?;
    future.subscribe().block();
    let response = future.get().ok_or("nothing")?.map_err(|()| "taken")?.map_err(|error| format!("{error:?}"))?;
    let status = response.status();
    let body = response.consume().map_err(|()| "body")?;
    let stream = body.stream().map_err(|()| "stream")?;
    let mut all = Vec::new();
    loop {
        match stream.blocking_read(64 * 1024) {
            Ok(chunk) => all.extend(chunk),
            Err(StreamError::Closed) => return Ok((status, all)),
            Err(error) => return Err(format!("{error:?}")),
        }
    }
}
