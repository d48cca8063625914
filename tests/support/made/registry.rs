//! A real docker-registry (the `distribution` project's) on a free port of this machine, filled by skopeo.
//!
//! [`Registry::start`] is plain and anonymous; [`Registry::with`] can have TLS, client certificates, a login.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{Certificates, Image, Layout, tool, until};

/// A running registry; ends with its value.
#[derive(Debug)]
pub(crate) struct Registry {
    child: Child,
    address: SocketAddr,
    storage: PathBuf,
    certificates: Option<Certificates>,
    dir: TempDir,
}

/// How a registry differs from the plain, anonymous one that [`Registry::start`] gives.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Options<'a> {
    /// Speaks TLS with a certificate of [`Registry::certificates`] for 127.0.0.1 and localhost.
    pub(crate) tls: bool,
    /// With TLS: wants a client certificate of the same authority.
    pub(crate) client_certificate: bool,
    /// Wants this user and password (HTTP basic).
    pub(crate) login: Option<(&'a str, &'a str)>,
    /// Keeps its storage here and not in its own temporary folder.
    pub(crate) storage: Option<&'a Path>,
}

impl Registry {
    pub(crate) fn start() -> Self {
        Self::with(Options::default())
    }

    pub(crate) fn with(options: Options<'_>) -> Self {
        let dir = tempfile::Builder::new().prefix("dhow-registry-").tempdir().expect("temporary folder");
        let storage = options.storage.map_or_else(|| dir.path().join("storage"), Path::to_owned);
        let certificates = options.tls.then(|| Certificates::new(dir.path()));
        // Another process may take the port between here and the registry's own bind: then try the next.
        for _ in 0..5 {
            let address = free_address();
            let config = dir.path().join("config.yml");
            // Each answer is one line in the log: `Registry::served` reads them.
            let mut text = format!(
                "version: 0.1\nlog:\n  level: info\n  formatter: json\n  accesslog:\n    disabled: true\nstorage:\n  \
                 filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: {address}\n",
                storage.display()
            );
            if let Some(certificates) = &certificates {
                text += &certificates.settings(options.client_certificate);
            }
            if let Some((user, password)) = options.login {
                let file = dir.path().join("htpasswd");
                fs_err::write(&file, format!("{user}:{}\n", bcrypt(password))).expect("htpasswd");
                text += &format!("auth:\n  htpasswd:\n    realm: tests\n    path: {}\n", file.display());
            }
            fs_err::write(&config, text).expect("registry configuration");
            let log = fs_err::File::create(dir.path().join("log")).expect("registry log").into_parts().0;
            // It must not outlive the test, however that ends.
            let mut child = Command::new("setpriv")
                .args(["--pdeathsig", "KILL", "--", "docker-registry", "serve"])
                .arg(&config)
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("log"))
                .stderr(log)
                .spawn()
                .expect("docker-registry (Debian package docker-registry)");
            let up = until("docker-registry", || match child.try_wait() {
                Ok(None) if answers(address) => Some(true),
                Ok(None) => None,
                _ => Some(false),
            });
            if up {
                return Self { child, address, storage, certificates, dir };
            }
        }
        panic!("docker-registry does not start: {:?}", fs_err::read_to_string(dir.path().join("log")));
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The authority and the certificates of a registry with TLS.
    pub(crate) fn certificates(&self) -> &Certificates {
        self.certificates.as_ref().expect("a registry with TLS")
    }

    /// What it has sent so far: method, path and bytes of each answer.
    pub(crate) fn served(&self) -> Vec<(String, String, u64)> {
        let log = fs_err::read_to_string(self.dir.path().join("log")).expect("registry log");
        let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let answers = lines
            .filter(|line| line["msg"].as_str().is_some_and(|text| text.starts_with("response completed")));
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        answers
            .map(|line| {
                let sent = line["http.response.written"].as_u64().unwrap_or_default();
                (text(&line["http.request.method"]), text(&line["http.request.uri"]), sent)
            })
            .collect()
    }

    /// The full name of something in this registry.
    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Stores an image under `name` and gives its full name.
    pub(crate) fn push(&self, name: &str, image: &Image) -> String {
        let layout = Layout::new();
        layout.tag(&layout.image(image), "it");
        let full = self.name(name);
        tool(
            Command::new("skopeo")
                .args(["--insecure-policy", "copy", "--quiet", "--all", "--dest-tls-verify=false"])
                .arg(format!("oci:{}:it", layout.path().display()))
                .arg(format!("docker://{full}")),
        );
        full
    }

    /// Where its blobs are, for tests that damage them.
    pub(crate) fn storage(&self) -> PathBuf {
        self.storage.join("docker/registry/v2/blobs")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// An address of this machine at which nobody listens.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr()).expect("free port")
}

/// Whether an HTTP server speaks there; to plain words one with TLS answers with status 400.
fn answers(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"GET /v2/ HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    ask().is_ok_and(|text| text.starts_with("HTTP/1.0 "))
}

/// The only password hash that docker-registry takes, by way of perl, which every Debian has.
fn bcrypt(password: &str) -> String {
    let script = r#"print crypt($ARGV[0], q($2y$05$abcdefghijklmnopqrstuu))"#;
    let hash = tool(Command::new("perl").args(["-e", script, password]));
    assert!(hash.starts_with("$2y$"), "perl's crypt knows no bcrypt: {hash:?}");
    hash
}
