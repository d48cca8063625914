//! What can go wrong with an image. Messages are lower case, without a full stop, and name what failed.
//!
//! Advice for the user is not part of the message: see [`Error::hint`].

use std::io;

use crate::Descriptor;
use crate::Digest;
use crate::Platform;

/// This crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation on an image, the store, an archive or a registry failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is no image reference. The wording is Docker's.
    #[error("invalid reference format{}: \"{text}\"", detail(reason))]
    InvalidReference {
        /// What was given.
        text: String,
        /// More than the general message, or empty.
        reason: String,
    },
    /// The text is no digest of a known algorithm.
    #[error("invalid digest \"{text}\"")]
    InvalidDigest {
        /// What was given.
        text: String,
    },
    /// The text is no platform.
    #[error("invalid platform \"{text}\": {reason}")]
    InvalidPlatform {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The store holds no image of this name or id.
    #[error("no such image: {name}")]
    NoSuchImage {
        /// What was asked for.
        name: String,
    },
    /// The id prefix fits several images.
    #[error("image id \"{prefix}\" is ambiguous: it fits {matches} images")]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// How many images it fits.
        matches: usize,
    },
    /// The image has no variant that fits, or the one that fits is not in the store.
    #[error("no variant for {wanted} (there {})", list(available))]
    NoVariant {
        /// What was asked for, for example `linux/amd64`.
        wanted: String,
        /// What the image has.
        available: Vec<Platform>,
    },
    /// The image has the variant, but its content was never fetched.
    #[error("the {platform} variant of the image is not in the store")]
    VariantAbsent {
        /// The platform that was chosen.
        platform: Platform,
        /// Its manifest.
        manifest: Box<Descriptor>,
    },
    /// Parts of an image are neither in the store nor known to be where they should go.
    #[error("{image}: {} of it {} not in the store", parts.join(", "), if parts.len() == 1 { "is" } else { "are" })]
    PartsAbsent {
        /// The image's name.
        image: String,
        /// Platforms of variants, and digests of everything else.
        parts: Vec<String>,
    },
    /// The variant cannot be removed, because something needs it.
    #[error("conflict: unable to remove variant {manifest}: it is needed by {by}")]
    VariantInUse {
        /// Its manifest.
        manifest: Digest,
        /// What needs it.
        by: String,
    },
    /// A blob that something refers to is not in the store.
    #[error("blob {digest} is not in the store")]
    MissingBlob {
        /// The blob.
        digest: Digest,
    },
    /// Content does not have the digest it should have.
    #[error("{what}: content has digest {actual}, not {expected}")]
    DigestMismatch {
        /// What was read, for example a URL or `layer sha256:...`.
        what: String,
        /// The digest that was promised.
        expected: Digest,
        /// The digest that was found.
        actual: Digest,
    },
    /// Content is shorter or longer than its descriptor says.
    #[error("{what}: content has {actual} bytes, not {expected}")]
    SizeMismatch {
        /// What was read.
        what: String,
        /// The size that was promised, in bytes.
        expected: u64,
        /// The size that was found, or the size at which reading stopped, in bytes.
        actual: u64,
    },
    /// A manifest, index or configuration that cannot be used.
    #[error("{what}: {reason}")]
    InvalidManifest {
        /// Which one: a digest, a reference or a file.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A layer's archive is broken, hostile or beyond a limit.
    #[error("layer {layer}: {}{reason}", entry.as_deref().map(|e| format!("entry \"{}\": ", e.escape_default())).unwrap_or_default())]
    InvalidLayer {
        /// The layer's diff id or digest.
        layer: Digest,
        /// The entry at fault, if it is one entry's fault.
        entry: Option<String>,
        /// What is wrong with it.
        reason: String,
    },
    /// A directory holds something that no layer can say.
    #[error("{}: {reason}", path.escape_default())]
    NotALayer {
        /// The path within the directory.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An image archive or layout that cannot be read.
    #[error("{archive}: {reason}")]
    InvalidArchive {
        /// The file or directory.
        archive: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The registry does not answer.
    #[error("cannot reach registry {registry}: {reason}")]
    Unreachable {
        /// Host and port.
        registry: String,
        /// What the connection ended with.
        reason: String,
    },
    /// The registry's certificate is not acceptable, or it does not accept ours.
    #[error("cannot reach registry {registry}: {reason}")]
    Certificate {
        /// Host and port.
        registry: String,
        /// What kind of thing is wrong.
        fault: CertificateFault,
        /// What is wrong.
        reason: String,
    },
    /// A file with a certificate or key that cannot be used.
    #[error("{path}: {reason}")]
    InvalidCertificateFile {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The client's configuration, or a credential helper that it names, cannot be used.
    #[error("{what}: {reason}")]
    CredentialStore {
        /// The file or the helper's program.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The registry answers no more for a while.
    #[error("{registry}: too many requests{}", detail(reason))]
    RateLimited {
        /// Host and port.
        registry: String,
        /// The registry's words, or empty.
        reason: String,
    },
    /// The registry has no such manifest or repository.
    #[error("{reference}: manifest unknown")]
    ManifestUnknown {
        /// What was asked for.
        reference: String,
    },
    /// The registry wants (other) credentials, or does not let them do this with the repository.
    #[error("{action} access denied for {repository}: {reason}")]
    Denied {
        /// `pull`, `push`, `delete` or `registry`.
        action: &'static str,
        /// Registry and repository.
        repository: String,
        /// The registry's words.
        reason: String,
    },
    /// The registry answered something that the distribution specification does not allow, or an error.
    #[error("{url}: {reason}")]
    Registry {
        /// The request.
        url: String,
        /// What came back.
        reason: String,
    },
    /// A snapshot cannot be made, found or committed.
    #[error("snapshot \"{key}\" {reason}")]
    Snapshot {
        /// Its key.
        key: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The content does not fit into what the store may hold.
    #[error("the store may hold {max} bytes: {used} are taken, and {needed} more are needed")]
    QuotaExceeded {
        /// Bytes that are taken.
        used: u64,
        /// Bytes that would be written.
        needed: u64,
        /// The limit.
        max: u64,
    },
    /// The directory is not a store, or one of a later version.
    #[error("{path}: {reason}")]
    InvalidStore {
        /// The directory or file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The image does not fulfil what the policy of trust demands of it.
    #[error("{image}: not trusted: {reason}")]
    Untrusted {
        /// The image, as the policy knows it.
        image: String,
        /// Which demand is not fulfilled, and why.
        reason: String,
    },
    /// A policy of trust, or a file beside it, that cannot be read. Never taken for "accept".
    #[error("{path}: {reason}")]
    InvalidPolicy {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file operation failed. The message names the path.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What is wrong between a registry's certificate and us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateFault {
    /// Nobody whom we trust has signed it.
    Authority,
    /// It is over, or has not begun.
    Time,
    /// It is for another host.
    Name,
    /// The registry does not accept what this machine shows.
    Client,
    /// Anything else.
    Other,
}

impl Error {
    /// Advice for the user, where there is some: one line without a full stop.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoVariant { available, .. } if available.is_empty() => {
                Some("the image has no variants at all; check how it was built".into())
            }
            Self::NoVariant { available, .. } => {
                Some(format!("choose one with --platform, for example --platform {}", available[0]))
            }
            Self::VariantAbsent { platform, .. } => Some(format!("pull it with --platform {platform}")),
            Self::PartsAbsent { .. } => {
                Some("pull it with --all-platforms first, or push one variant with --platform".into())
            }
            Self::NoSuchImage { .. } => Some("list what is there with `dhow images`, or pull it first".into()),
            Self::Ambiguous { .. } => Some("give more characters of the id".into()),
            Self::Unreachable { .. } => {
                Some("check the registry's name and port, and that it runs; plain HTTP is for loopback addresses only".into())
            }
            Self::Certificate { registry, fault, .. } => Some(match fault {
                CertificateFault::Authority | CertificateFault::Other => format!(
                    "put its authority's certificate into /etc/dhow/certs.d/{registry}/ca.crt, or allow it as insecure in the settings file"
                ),
                CertificateFault::Time => {
                    "check this machine's clock; if that is right, the registry needs another certificate".into()
                }
                CertificateFault::Name => {
                    "use a name of the registry that its certificate is for".into()
                }
                CertificateFault::Client => format!(
                    "`cert` and `key` in the settings file, or client.cert and client.key in /etc/dhow/certs.d/{registry}, are what this machine shows"
                ),
            }),
            Self::InvalidCertificateFile { .. } => {
                Some("PEM files are expected: authorities in `*.crt`, a client's in `NAME.cert` and `NAME.key`".into())
            }
            Self::CredentialStore { .. } => {
                Some("see `auths`, `credsStore` and `credHelpers` in the client's config.json (~/.docker, or DOCKER_CONFIG)".into())
            }
            Self::RateLimited { registry, .. } => {
                Some(format!("`{}` raises the limit; so does a mirror in the settings file, or waiting", login(registry)))
            }
            Self::ManifestUnknown { .. } => Some("check the name and the tag".into()),
            Self::Denied { action: "registry", .. } => Some("check the user name and the password or token".into()),
            Self::Denied { repository, .. } => {
                let registry = repository.split('/').next().unwrap_or_default();
                Some(format!("check the name; `{}` for a private repository", login(registry)))
            }
            Self::VariantInUse { .. } => Some("remove what needs it first".into()),
            Self::MissingBlob { .. } => Some("pull or load the image again".into()),
            Self::InvalidReference { .. } => {
                Some("a name is `[registry[:port]/]path[:tag]`, the path in lower case".into())
            }
            Self::InvalidManifest { .. } => {
                Some("this is no image that can run here; check the name, or how it was built".into())
            }
            Self::InvalidLayer { .. } => {
                Some("the image is damaged or was built wrongly; pull, load or build it again".into())
            }
            Self::InvalidArchive { .. } => {
                Some("an OCI image layout or an archive of `docker save` is expected".into())
            }
            Self::Registry { .. } => {
                Some("check that the name leads to a registry; it may also help to try again later".into())
            }
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } => {
                Some("the content was damaged on the way or at its source; try again".into())
            }
            Self::Untrusted { .. } => {
                Some("`dhow image verify` shows the image's signatures; docs/trust.md tells how policies work".into())
            }
            Self::InvalidPolicy { .. } => {
                Some("correct the file; docs/trust.md and containers-policy.json(5) tell what may be in it".into())
            }
            Self::QuotaExceeded { .. } => {
                Some("make room with `dhow image prune -a`, or raise `gc.max_size` in the settings".into())
            }
            Self::Io(e) if e.kind() == io::ErrorKind::StorageFull || e.kind() == io::ErrorKind::QuotaExceeded => {
                Some("free some disk space, for example by removing images that are not needed".into())
            }
            Self::Io(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                Some("use another store with --root, or run as the store's owner".into())
            }
            _ => None,
        }
    }

    /// Whether the disk or the quota is full.
    #[must_use]
    pub fn is_storage_full(&self) -> bool {
        matches!(self, Self::Io(e) if matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    #[expect(clippy::needless_pass_by_value, reason = "callers pass literals and fresh strings")]
    pub(crate) fn manifest(what: impl ToString, reason: impl ToString) -> Self {
        Self::InvalidManifest { what: what.to_string(), reason: reason.to_string() }
    }

    /// An I/O error whose message says what was done to what.
    #[expect(clippy::needless_pass_by_value, reason = "callers pass literals and fresh errors")]
    pub(crate) fn io(what: impl std::fmt::Display, source: io::Error) -> Self {
        Self::Io(io::Error::new(source.kind(), format!("{what}: {source}")))
    }
}

/// The command that brings credentials.
fn login(registry: &str) -> String {
    if registry == crate::DEFAULT_REGISTRY { "dhow login".into() } else { format!("dhow login {registry}") }
}

fn detail(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

fn list(available: &[Platform]) -> String {
    match available {
        [] => "are none".into(),
        [one] => format!("is {one}"),
        [most @ .., last] => {
            let most: Vec<String> = most.iter().map(ToString::to_string).collect();
            format!("are {} and {last}", most.join(", "))
        }
    }
}
