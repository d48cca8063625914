//! A certificate authority with one server and one client certificate, made by openssl.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::tool;

/// Paths of PEM files. The server's certificate is for 127.0.0.1 and localhost, the client's for `dhow-test`.
#[derive(Debug)]
pub(crate) struct Certificates {
    pub(crate) authority: PathBuf,
    pub(crate) server: Pair,
    pub(crate) client: Pair,
}

/// A certificate and its key.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Certificates {
    /// Makes everything in this folder, valid for two days.
    pub(crate) fn new(dir: &Path) -> Self {
        let pair = |name: &str| Pair {
            certificate: dir.join(format!("{name}.crt")),
            key: dir.join(format!("{name}.key")),
        };
        let authority = pair("ca");
        request(&authority, "dhow test authority")
            .args(["-addext", "basicConstraints=critical,CA:TRUE"])
            .run();
        let (server, client) = (pair("server"), pair("client"));
        for (pair, name, extensions) in [
            (
                &server,
                "localhost",
                &["subjectAltName=IP:127.0.0.1,DNS:localhost", "extendedKeyUsage=serverAuth"],
            ),
            (&client, "dhow-test", &["subjectAltName=DNS:dhow-test", "extendedKeyUsage=clientAuth"]),
        ] {
            let mut command = request(pair, name);
            for extension in extensions.iter().chain(&["basicConstraints=critical,CA:FALSE"]) {
                command = command.args(["-addext", extension]);
            }
            command.signed_by(&authority).run();
        }
        Self { authority: authority.certificate, server, client }
    }

    /// The `tls` section below `http` in the configuration of docker-registry.
    pub(crate) fn settings(&self, client_certificate: bool) -> String {
        let mut text = format!(
            "  tls:\n    certificate: {}\n    key: {}\n",
            self.server.certificate.display(),
            self.server.key.display()
        );
        if client_certificate {
            text += &format!("    clientcas:\n      - {}\n", self.authority.display());
        }
        text
    }
}

/// `openssl req -x509` in the making.
struct Request(Command);

fn request(pair: &Pair, name: &str) -> Request {
    let mut command = Command::new("openssl");
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]);
    // Without the machine's own configuration, which adds extensions.
    command.env("OPENSSL_CONF", "/dev/null").args(["-subj", &format!("/CN={name}")]);
    command.arg("-keyout").arg(&pair.key).arg("-out").arg(&pair.certificate);
    Request(command)
}

impl Request {
    fn args<const N: usize>(mut self, args: [&str; N]) -> Self {
        self.0.args(args);
        self
    }

    fn signed_by(mut self, authority: &Pair) -> Self {
        self.0.arg("-CA").arg(&authority.certificate).arg("-CAkey").arg(&authority.key);
        self
    }

    fn run(mut self) {
        tool(&mut self.0);
    }
}
