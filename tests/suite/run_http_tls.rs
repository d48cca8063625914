//! What a Wasm program fetches over TLS: by the allow list, and from servers whose certificates Dhow is told to trust.

use std::io::Write as _;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use super::run_http::{free_port, get};
use crate::support::{Certificates, Host, guest, until};

/// `openssl s_server`, which answers every request with a page about the connection.
struct Secure(Child, u16);

impl Secure {
    fn start(certificates: &Certificates) -> Self {
        let port = free_port();
        let mut command = Command::new("openssl");
        command.args(["s_server", "-quiet", "-www", "-accept", &format!("127.0.0.1:{port}")]);
        command.arg("-cert").arg(&certificates.server.certificate).arg("-key").arg(&certificates.server.key);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("openssl");
        let server = Self(child, port);
        until("openssl listens", || TcpStream::connect(("127.0.0.1", port)).ok());
        server
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// What a service that was started with these variables and options says it got from `url`.
fn fetch(variables: &[(&str, &str)], options: &[&str], url: &str) -> (u16, String) {
    let host = Host::new();
    host.file("http.wasm", guest("http.wasm"));
    let port = free_port();
    let publish = format!("127.0.0.1:{port}:80");
    let mut run =
        host.dhow(["run", "-d", "--name", "web", "-p", &publish]).args(options).args(["./http.wasm"]);
    for (name, value) in variables {
        run = run.env(name, value);
    }
    run.ok();
    let stream = until("it listens", || TcpStream::connect(("127.0.0.1", port)).ok());
    drop(stream);
    let answer = get(port, &format!("/fetch?{url}"));
    host.dhow(["rm", "-f", "web"]).ok();
    answer
}

#[test]
fn certificates_are_checked_against_those_that_are_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let certificates = Certificates::new(dir.path());
    let server = Secure::start(&certificates);
    let authority = certificates.authority.to_str().unwrap();
    let (named, rule) = (format!("https://localhost:{}/", server.1), format!("localhost:{}", server.1));
    let trusting = [("SSL_CERT_FILE", authority)];

    let (code, text) = fetch(&trusting, &["--allow-net", &rule], &named);
    assert!(code == 200 && text.contains("TLSv1.3"), "{code} {text}");
    // Not by that authority, and not under that name.
    let (_, text) = fetch(&[], &["--allow-net", &rule], &named);
    assert_eq!(text, "ErrorCode::TlsCertificateError");
    let other = format!("https://other.test:{}/", server.1);
    let options = ["--allow-net", "other.test", "--add-host", "other.test:127.0.0.1"];
    assert_eq!(fetch(&trusting, &options, &other).1, "ErrorCode::TlsCertificateError");
    // No rule, no connection.
    assert_eq!(fetch(&trusting, &[], &named).1, "ErrorCode::HttpRequestDenied");
    assert_eq!(
        fetch(&trusting, &["--allow-net", "localhost:1"], &named).1,
        "ErrorCode::DestinationIpProhibited"
    );
    // What speaks no TLS at all.
    let plain = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = plain.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in plain.incoming().flatten() {
            stream.write_all(b"HTTP/1.1 400 no\r\n\r\n").ok();
        }
    });
    let (_, text) = fetch(&trusting, &["--allow-net", "127.0.0.1"], &format!("https://{address}/"));
    assert_eq!(text, "ErrorCode::TlsProtocolError");
}
