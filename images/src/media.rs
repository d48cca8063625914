//! Media types: which are written, which are only read, and what each one holds.

/// OCI image index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// OCI layer, not compressed.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// OCI layer, gzip.
pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// OCI layer, zstd.
pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// Docker manifest list, the same as an index.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker image manifest, version 2 schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Configuration of a CNCF Wasm OCI artifact.
pub const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// The module or component of a CNCF Wasm OCI artifact.
pub const WASM: &str = "application/wasm";

/// What can be asked of a registry as a manifest.
pub(crate) const ACCEPTED_MANIFESTS: [&str; 4] = [INDEX, MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];

/// How a layer's tar is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Plain tar.
    None,
    /// RFC 1952, any number of members.
    Gzip,
    /// RFC 8878, any number of frames.
    Zstd,
}

/// Whether this is an index of manifests.
#[must_use]
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, INDEX | DOCKER_LIST)
}

/// Whether this is the manifest of one image or artifact.
#[must_use]
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, MANIFEST | DOCKER_MANIFEST)
}

/// Whether this is the code of a Wasm module or component. Only [`WASM`] is ever written.
#[must_use]
pub fn is_wasm(media_type: &str) -> bool {
    matches!(
        media_type,
        WASM | "application/vnd.wasm.content.layer.v1+wasm"
            | "application/vnd.module.wasm.content.layer.v1+wasm"
            | "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm"
            | "application/vnd.bytecodealliance.component.layer.v0+wasm"
            | "application/vnd.w3c.wasm.module.v1+wasm"
            | "application/vnd.w3c.wasm.component.v1+wasm"
    )
}

/// Whether this is the configuration of a Wasm artifact, of any generation.
#[must_use]
pub fn is_wasm_config(media_type: &str) -> bool {
    matches!(
        media_type,
        WASM_CONFIG
            | "application/vnd.wasm.config.v1+json"
            | "application/vnd.module.wasm.config.v1+json"
            | "application/vnd.bytecodealliance.wasm.component.config.v0+json"
            | "application/vnd.bytecodealliance.component.config.v0+json"
    )
}

/// How a file system layer is packed, or `None` when this is no such layer.
#[must_use]
pub fn layer_compression(media_type: &str) -> Option<Compression> {
    match media_type {
        LAYER | "application/vnd.docker.image.rootfs.diff.tar" => Some(Compression::None),
        LAYER_GZIP | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Some(Compression::Gzip),
        LAYER_ZSTD | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Some(Compression::Zstd),
        _ => None,
    }
}

/// Whether this is a layer that registries must not hold and that is fetched from elsewhere. Refused.
#[must_use]
pub fn is_foreign_layer(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.layer.nondistributable.")
        || media_type.starts_with("application/vnd.docker.image.rootfs.foreign.")
}
