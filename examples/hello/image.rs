//! Makes an image by hand, to show that nothing about it is special: `hello-image FOLDER PROGRAM WAT`.
//!
//! FOLDER becomes an OCI image layout with one name, `hello:1`, that stands for an index of two variants:
//! ```text
//! hello:1 -> index -> linux/amd64 manifest -> config, layer with /hello
//!                  -> wasi/wasm   manifest -> config, layer with /hello.wasm
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [folder, program, text] = arguments.as_slice() else {
        bail!("usage: hello-image FOLDER PROGRAM WAT")
    };
    fs_err::create_dir_all(folder.join("blobs/sha256"))?;

    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let native = variant(folder, ("linux", architecture), "hello", &fs_err::read(program)?)?;
    let wasm = wat::parse_file(text).with_context(|| format!("cannot assemble {}", text.display()))?;
    let wasm = variant(folder, ("wasi", "wasm"), "hello.wasm", &wasm)?;

    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [native, wasm] });
    let mut named = blob(folder, INDEX, index.to_string().as_bytes())?;
    named["annotations"] = json!({ "org.opencontainers.image.ref.name": "hello:1" });
    let top = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [named] });
    fs_err::write(folder.join("index.json"), top.to_string())?;
    fs_err::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(())
}

/// One platform's image: a layer with a single file, which is also the entrypoint.
fn variant(folder: &Path, (os, architecture): (&str, &str), name: &str, content: &[u8]) -> Result<Value> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(content.len() as u64);
    let mut layer = tar::Builder::new(Vec::new());
    layer.append_data(&mut header, name, content)?;
    let layer = layer.into_inner()?;

    let config = json!({
        "os": os,
        "architecture": architecture,
        "config": { "Entrypoint": [format!("/{name}")] },
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
    });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": blob(folder, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?,
        "layers": [blob(folder, "application/vnd.oci.image.layer.v1.tar", &layer)?],
    });
    let mut descriptor = blob(folder, MANIFEST, manifest.to_string().as_bytes())?;
    descriptor["platform"] = json!({ "os": os, "architecture": architecture });
    Ok(descriptor)
}

/// Stores content under its digest and describes it.
fn blob(folder: &Path, media_type: &str, content: &[u8]) -> Result<Value> {
    let digest = digest(content);
    fs_err::write(folder.join("blobs").join(digest.replace(':', "/")), content)?;
    Ok(json!({ "mediaType": media_type, "digest": digest, "size": content.len() }))
}

fn digest(content: &[u8]) -> String {
    let hex: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
