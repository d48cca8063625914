//! A real docker-registry (the `distribution` project's) on a free port of this machine, filled by skopeo.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{Image, Layout, tool, until};

/// A running registry; ends with its value.
#[derive(Debug)]
pub(crate) struct Registry {
    child: Child,
    address: SocketAddr,
    dir: TempDir,
}

impl Registry {
    pub(crate) fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("dhow-registry-").tempdir().expect("temporary folder");
        // Another process may take the port between here and the registry's own bind: then try the next.
        for _ in 0..5 {
            let address = free_address();
            let config = dir.path().join("config.yml");
            let storage = dir.path().join("storage");
            let text = format!(
                "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    \
                 rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: {address}\n",
                storage.display()
            );
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
                return Self { child, address, dir };
            }
        }
        panic!("docker-registry does not start: {:?}", fs_err::read_to_string(dir.path().join("log")));
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
    pub(crate) fn storage(&self) -> std::path::PathBuf {
        self.dir.path().join("storage/docker/registry/v2/blobs")
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

fn answers(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"GET /v2/ HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    ask().is_ok_and(|text| text.contains(" 200 "))
}
