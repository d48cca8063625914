//! How a long operation tells its caller where it is. Nothing is printed here.

mod json;

pub use json::JsonProgress;

use crate::Digest;
use crate::Reference;

/// Receives events, possibly from several threads at once. Called often; must be quick.
pub trait Progress: Sync {
    /// One event.
    fn event(&self, event: &Event<'_>);
}

/// Ignores every event.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn event(&self, _event: &Event<'_>) {}
}

/// What is happening.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A registry is asked for this reference (Docker: `TAG: Pulling from NAME`).
    Resolving {
        /// What is asked for.
        reference: &'a Reference,
    },
    /// The reference stands for this manifest or index.
    Resolved {
        /// Its digest.
        digest: &'a Digest,
    },
    /// A mirror does not answer, does not have it, or sends something else; the next source is asked.
    MirrorFailed {
        /// Its address.
        mirror: &'a str,
        /// Why.
        reason: &'a str,
    },
    /// Something about one blob.
    Blob {
        /// Which blob: the compressed layer, the configuration, the Wasm module.
        digest: &'a Digest,
        /// What it is.
        kind: BlobKind,
        /// What happens to it.
        state: State<'a>,
    },
}

/// What a blob is to its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobKind {
    /// An index or a manifest.
    Manifest,
    /// An image's configuration.
    Config,
    /// A file system layer.
    Layer,
    /// A Wasm module or component.
    Wasm,
    /// Anything else that an artifact carries.
    Other,
}

/// What happens to a blob. A blob begins with `Waiting` or `Exists` and ends with `Complete` or `Exists`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum State<'a> {
    /// It will be fetched (Docker: `Pulling fs layer`).
    Waiting {
        /// Its size in bytes.
        total: u64,
    },
    /// It is in the store already (Docker: `Already exists`).
    Exists,
    /// It is being fetched.
    Fetching {
        /// Bytes so far.
        done: u64,
        /// Its size in bytes.
        total: u64,
    },
    /// The connection broke; it goes on where it stopped.
    Retrying {
        /// 1 for the first retry.
        attempt: u32,
        /// Why.
        reason: &'a str,
    },
    /// All bytes are here and have the right digest (Docker: `Download complete`).
    Fetched,
    /// Its files are being written (Docker: `Extracting`). May overlap with `Fetching`.
    Unpacking {
        /// Compressed bytes used so far.
        done: u64,
        /// Its size in bytes.
        total: u64,
    },
    /// Everything is done (Docker: `Pull complete`).
    Complete,
    /// Of a push: the registry is about to be asked for it (Docker: `Preparing`). After this comes `Exists`, `Mounted`,
    /// or `Pushing` and `Pushed`.
    Preparing,
    /// It is being sent. After a broken connection it goes on where the registry has it.
    Pushing {
        /// Bytes so far.
        done: u64,
        /// Its size in bytes.
        total: u64,
    },
    /// The registry took it from another repository (Docker: `Mounted from`).
    Mounted {
        /// That repository.
        from: &'a str,
    },
    /// The registry has it now (Docker: `Pushed`).
    Pushed,
}
