//! A bundle's `config.json`: read, and made into what the executors take.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use super::error::{Error, Result};
use crate::small_file;

/// Its name.
pub const CONFIG: &str = "config.json";
/// The largest one that is read; the rest of a larger one is missing.
const LARGEST: usize = 16 << 20;
/// Docker's have half of this.
const USUAL: usize = 64 << 10;

/// A specification as it was read.
#[derive(Debug)]
pub struct Loaded {
    /// The bundle's folder, absolute.
    pub bundle: PathBuf,
    /// The file as it is.
    pub text: Vec<u8>,
    /// What it says.
    pub spec: Spec,
    /// The root file system's folder, absolute and without links.
    pub rootfs: PathBuf,
}

/// Reads a bundle.
///
/// # Errors
/// When there is none, or it is no specification of a version that is known.
pub fn bundle(folder: &Path) -> Result<Loaded> {
    let bundle = std::path::absolute(folder).map_err(Error::of(format!("find {}", folder.display())))?;
    let path = bundle.join(CONFIG);
    let read = fs_err::File::open(&path).and_then(|file| small_file::content(file.file(), USUAL, LARGEST));
    let text = read.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::Bundle { path: path.clone(), reason: "no such file or directory".to_owned() }
        }
        _ => Error::Bundle { path: path.clone(), reason: error.to_string() },
    })?;
    let spec = spec(&path, &text)?;
    let wanted = spec.root().as_ref().map_or(Path::new(""), |root| root.path());
    if wanted.as_os_str().is_empty() {
        return Err(Error::Bundle { path, reason: "root.path is missing".to_owned() });
    }
    let rootfs = bundle.join(wanted);
    let rootfs = fs_err::canonicalize(&rootfs)
        .map_err(|error| Error::Bundle { path: path.clone(), reason: format!("root.path: {error}") })?;
    Ok(Loaded { bundle, text, spec, rootfs })
}

/// Reads a specification.
///
/// # Errors
/// When it is none, or of another major version.
pub fn spec(path: &Path, text: &[u8]) -> Result<Spec> {
    let wrong = |reason: String| Error::Bundle { path: path.to_owned(), reason };
    let spec: Spec = serde_json::from_slice(text).map_err(|error| wrong(error.to_string()))?;
    let version = spec.version();
    let numbers: Vec<&str> = version.split('.').collect();
    if numbers.len() < 3 || numbers[0] != "1" || numbers[1].parse::<u32>().is_err() {
        return Err(wrong(format!("unsupported ociVersion {version:?}")));
    }
    Ok(spec)
}
