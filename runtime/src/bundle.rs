//! What is run: an OCI runtime specification and a root file system.
//!
//! A [`Bundle`] is the specification's bundle in memory. It is not an image: layers are directories that
//! somebody else has unpacked, and their identities are opaque strings.

use std::path::PathBuf;

use oci_spec::runtime::Spec;

/// A runnable unit: what to run ([`Spec`], OCI runtime specification 1.2) and the files it sees.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Container id: 1 to 128 characters of `[A-Za-z0-9_.-]`, unique on this host.
    pub id: String,
    /// The OCI runtime specification. `root.path` is ignored in favour of [`Bundle::root`].
    pub spec: Spec,
    /// The root file system.
    pub root: Root,
    /// The Wasm code to run where it is not a file of the root file system: a bare `.wasm` or `.wat` file, or
    /// the blob of a CNCF Wasm artifact. `process.args[0]` is then only the program's name.
    pub module: Option<Module>,
    /// What a Wasm program is given that the specification has no words for. Native programs ignore it.
    pub wasm: crate::wasm::Options,
}

/// Where a container's root file system comes from.
#[derive(Debug, Clone)]
pub enum Root {
    /// A plain directory, used as it is (an OCI bundle's `rootfs`).
    Dir(PathBuf),
    /// Read-only layers below, a private writable directory above.
    Layers {
        /// Extracted layers, lowest first. May be empty: the root is then just `upper`.
        lower: Vec<Layer>,
        /// The container's own directory; everything it writes ends up here. Must exist for the native executor and
        /// where there are no layers; otherwise it is made with the first change.
        upper: PathBuf,
        /// Native only: scratch directory for the kernel's overlay, on `upper`'s file system. Must exist.
        work: PathBuf,
        /// Native only: where the merged tree may be mounted, in a mount namespace of its own. Must exist and be
        /// an empty directory.
        merged: PathBuf,
    },
}

/// One extracted layer.
///
/// Removed names are kept as the kernel's overlay wants them on Linux (character device 0/0; opaque directories
/// carry `trusted.overlay.opaque=y`, or `user.overlay.opaque=y` when unpacked without privilege) and in OCI's
/// portable form (`.wh.NAME`, `.wh..wh..opq`) elsewhere. Readers accept both.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The directory.
    pub path: PathBuf,
    /// A name for the content that never changes meaning, for example the layer's diff id. With it the code of a
    /// module found in this layer is cached without being hashed again.
    pub id: Option<String>,
}

/// Wasm code that lies outside the root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// The file: a binary module, a component, or WebAssembly text.
    pub path: PathBuf,
    /// As [`Layer::id`]: a digest of the content when it is known already, else it is computed.
    pub id: Option<String>,
}
