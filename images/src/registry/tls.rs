//! Certificates beyond the system's: own authorities and the certificate that this machine shows.
//!
//! Docker's folder of a registry is understood: `*.crt` are authorities, `NAME.cert` with `NAME.key` is what a
//! client shows. Which folders are looked at is the caller's choice.

use std::fmt;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use fs_err as fs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use ureq::tls::Certificate;
use ureq::tls::ClientCert;
use ureq::tls::PrivateKey;
use ureq::tls::RootCerts;
use ureq::tls::TlsConfig;

use crate::CertificateFault;
use crate::Error;
use crate::error::Result;

/// Largest certificate or key file, in bytes. A system's whole bundle is a fifth of this.
const MAX_FILE: u64 = 1 << 20;

/// Certificates for one registry. Equal to the default: those of the system, and none is shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Authorities, trusted in addition to the system's.
    roots: Vec<CertificateDer<'static>>,
    /// What this machine shows: its certificate and those up to the authority, PEM; and the key, PEM.
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for Tls {
    /// Keys do not belong into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let identity = self.identity.is_some();
        f.debug_struct("Tls").field("roots", &self.roots.len()).field("identity", &identity).finish()
    }
}

impl Tls {
    /// Trusts the authorities in a file, PEM.
    ///
    /// # Errors
    /// When the file cannot be read, or holds no certificate or a damaged one.
    pub fn trust(&mut self, file: &Path) -> Result<()> {
        let invalid = |reason: &dyn fmt::Display| invalid(file, reason);
        let mut store = rustls::RootCertStore::empty();
        let mut found = false;
        for certificate in CertificateDer::pem_slice_iter(&read(file)?) {
            let certificate = certificate.map_err(|e| invalid(&e))?;
            store.add(certificate.clone()).map_err(|e| invalid(&e))?;
            self.roots.push(certificate);
            found = true;
        }
        if found { Ok(()) } else { Err(invalid(&"holds no PEM certificate")) }
    }

    /// Shows this certificate to registries that want to know who asks.
    ///
    /// # Errors
    /// When a file cannot be read, or the two do not fit together.
    pub fn identify(&mut self, certificate: &Path, key: &Path) -> Result<()> {
        let (chain_pem, key_pem) = (read(certificate)?, read(key)?);
        let chain = CertificateDer::pem_slice_iter(&chain_pem).collect::<std::result::Result<Vec<_>, _>>();
        let chain = chain.map_err(|e| invalid(certificate, &e))?;
        if chain.is_empty() {
            return Err(invalid(certificate, &"holds no PEM certificate"));
        }
        let parsed = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|e| invalid(key, &e))?;
        // What the HTTP library does not check, it takes for granted.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| invalid(certificate, &e))?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_client_auth_cert(chain, parsed)
            .map_err(|e| invalid(key, &format!("does not fit {}: {e}", certificate.display())))?;
        self.identity = Some((chain_pem, key_pem));
        Ok(())
    }

    /// Reads a folder of Docker's kind. One that is not there is an empty one.
    ///
    /// # Errors
    /// As [`Tls::trust`] and [`Tls::identify`], and when a certificate lacks its key or a key its certificate.
    pub fn read_folder(&mut self, folder: &Path) -> Result<()> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            Err(e) => return Err(e.into()),
        };
        let mut files: Vec<PathBuf> =
            entries.map(|e| Ok(e?.path())).collect::<io::Result<_>>().map_err(Error::from)?;
        files.sort();
        for file in &files {
            match file.extension().and_then(|e| e.to_str()) {
                Some("crt") => self.trust(file)?,
                Some("cert") => {
                    let key = file.with_extension("key");
                    if !key.exists() {
                        return Err(invalid(file, &format!("its key {} is missing", key.display())));
                    }
                    self.identify(file, &key)?;
                }
                Some("key") if !file.with_extension("cert").exists() => {
                    let missing = file.with_extension("cert");
                    return Err(invalid(file, &format!("its certificate {} is missing", missing.display())));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The HTTP library's configuration. A host other than the registry's does not learn who asks.
    pub(super) fn config(&self, insecure: bool, own_host: bool) -> Result<TlsConfig> {
        let roots = if self.roots.is_empty() {
            RootCerts::PlatformVerifier
        } else {
            // What the system has that cannot be read is not trusted, and that is all.
            let system = rustls_native_certs::load_native_certs().certs;
            let all = system.iter().chain(&self.roots);
            let all: Vec<_> = all.map(|c| Certificate::from_der(c).to_owned()).collect();
            RootCerts::Specific(Arc::new(all))
        };
        let mut builder = TlsConfig::builder().root_certs(roots).disable_verification(insecure);
        if let Some((chain, key)) = self.identity.as_ref().filter(|_| own_host) {
            let chain = CertificateDer::pem_slice_iter(chain)
                .filter_map(|c| Some(Certificate::from_der(&c.ok()?).to_owned()));
            let chain: Vec<_> = chain.collect();
            let key = PrivateKey::from_pem(key)
                .map_err(|e| Error::io("client key", io::Error::other(e.to_string())))?;
            builder = builder.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
        }
        Ok(builder.build())
    }
}

fn read(file: &Path) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    fs::File::open(file)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(invalid(file, &"is too large for a certificate"));
    }
    Ok(bytes)
}

fn invalid(file: &Path, reason: &dyn fmt::Display) -> Error {
    Error::InvalidCertificateFile { path: file.display().to_string(), reason: reason.to_string() }
}

/// What is wrong with a server's certificate, if that is why there is no connection.
pub(super) fn complaint(error: &ureq::Error) -> Option<(CertificateFault, String)> {
    let tls = match error {
        ureq::Error::Rustls(error) => error,
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref::<rustls::Error>()?,
        _ => return None,
    };
    use CertificateFault as Fault;
    use rustls::CertificateError as Bad;
    use rustls::Error as Tls;
    Some(match tls {
        Tls::InvalidCertificate(bad) => match bad {
            Bad::UnknownIssuer => {
                (Fault::Authority, "its certificate is signed by an unknown authority".into())
            }
            Bad::Expired | Bad::ExpiredContext { .. } => (Fault::Time, "its certificate has expired".into()),
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                (Fault::Time, "its certificate is not valid yet".into())
            }
            Bad::NotValidForNameContext { presented, .. } if !presented.is_empty() => {
                (Fault::Name, format!("its certificate is for {}", names(presented)))
            }
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
                (Fault::Name, "its certificate is for another host name".into())
            }
            Bad::Revoked => (Fault::Other, "its certificate was revoked".into()),
            other => (Fault::Other, format!("its certificate cannot be verified: {other}")),
        },
        Tls::NoCertificatesPresented => (Fault::Other, "it shows no certificate".into()),
        Tls::AlertReceived(alert) => match alert {
            rustls::AlertDescription::CertificateRequired
            | rustls::AlertDescription::BadCertificate
            | rustls::AlertDescription::UnknownCA
            | rustls::AlertDescription::CertificateExpired
            | rustls::AlertDescription::CertificateUnknown
            | rustls::AlertDescription::AccessDenied => {
                (Fault::Client, format!("it does not accept the client certificate ({alert:?})"))
            }
            _ => return None,
        },
        _ => return None,
    })
}

/// The names in a certificate, as far as they are needed to see what is wrong: rustls writes `DnsName("a.example")` and
/// `IpAddress(127.0.0.1)`.
fn names(presented: &[String]) -> String {
    let bare = |name: &String| {
        let name = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
        name.trim_matches('"').chars().filter(|c| !c.is_control()).take(100).collect::<String>()
    };
    let shown: Vec<String> = presented.iter().take(3).map(bare).collect();
    let more = if presented.len() > 3 { " and others" } else { "" };
    format!("{}{more}", shown.join(", "))
}
