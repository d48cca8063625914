//! Image archives: OCI layouts (directory or tar) and Docker archives, in and out; and images made of an archive of
//! files.
//!
//! `source` gives access to the members of an archive, `packed` undoes its compression, `oci` and `docker` understand
//! the two formats, `take` brings content into the store. `save` writes tars by `pack`, and `layout` folders. Archives
//! with both forms, as newer Docker versions and [`save`] write them, are read as OCI layouts.

mod docker;
mod import;
mod layout;
mod oci;
mod pack;
pub(crate) mod packed;
mod save;
mod source;
mod take;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use import::ImportOptions;
pub use import::import;
pub use layout::save_docker_dir;
pub use layout::save_layout;
pub use layout::save_layouts;
pub use save::SaveFormat;
pub use save::SaveOptions;
pub use save::Saved;
pub use save::save;

use crate::Descriptor;
use crate::Error;
use crate::Platform;
use crate::Progress;
use crate::Reference;
use crate::Store;
use crate::error::Result;
use crate::store::session::Session;
use crate::trust::Gate;
use crate::trust::Origin;

/// Where an archive comes from.
pub enum Source<'a> {
    /// A tar file (plain, gzip, bzip2, xz or zstd), or the directory of an OCI layout.
    Path(&'a Path),
    /// An open file with a tar, for example standard input. Called so in errors.
    File(File),
    /// A stream with a tar.
    Reader(&'a mut dyn Read),
}

impl fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => f.debug_tuple("Path").field(path).finish(),
            Self::File(file) => f.debug_tuple("File").field(file).finish(),
            Self::Reader(_) => f.write_str("Reader"),
        }
    }
}

/// One image of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its name, if the archive gives one. Without, the image is kept untagged.
    pub reference: Option<Reference>,
    /// The image.
    pub descriptor: Descriptor,
}

/// How an archive is loaded.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Lets archives in or refuses them before anything is unpacked.
    pub gate: Option<Gate>,
    /// Only this variant of each image.
    pub platform: Option<Platform>,
    /// Unpack the layers of variants that this host can run.
    pub unpack: bool,
    /// Names of the archive are given; without, all are kept untagged.
    pub names: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { gate: None, platform: None, unpack: true, names: true }
    }
}

/// Reads every image of an archive into the store, and tags those that have names. Layers are verified, and those
/// that this host can run are unpacked in the same pass. A name is given only when everything was right.
///
/// # Errors
/// [`Error::InvalidArchive`] for what is no image archive, [`Error::NoVariant`] for a platform that an image has
/// not, [`Error::Untrusted`] for an archive that the policy does not let in, and whatever is wrong with the content.
pub fn load(
    store: &Store,
    source: Source<'_>,
    options: &LoadOptions,
    progress: &dyn Progress,
) -> Result<Vec<Loaded>> {
    let session = Session::new(store)?;
    let path = match &source {
        Source::Path(path) => Some(*path),
        _ => None,
    };
    let archive = source::Archive::open(source, &session)?;
    let is_oci = archive.has("index.json");
    let origin = if is_oci { Origin::oci(path) } else { Origin::docker_archive(path) };
    if let Some(gate) = &options.gate {
        gate.allows(&origin)?;
    }
    let loaded = if is_oci {
        oci::load(&archive, &session, options, progress)?
    } else if archive.has("manifest.json") {
        docker::load(&archive, &session, options, progress)?
    } else if archive.has("repositories") {
        return Err(
            archive.invalid("is of a Docker older than 1.10; load and save it there with a newer one")
        );
    } else {
        return Err(archive.invalid("is no image archive: neither index.json nor manifest.json is in it"));
    };
    if loaded.is_empty() {
        return Err(archive.invalid("holds no image"));
    }
    if let Some(gate) = &options.gate {
        for image in &loaded {
            gate.record(store, &origin, &image.descriptor)?;
        }
    }
    for image in &loaded {
        match &image.reference {
            Some(name) if options.names => store.tag(name, &image.descriptor)?,
            _ => store.keep_untagged(&image.descriptor)?,
        }
    }
    Ok(loaded)
}

/// The error of an archive whose file is `name`.
fn invalid(name: &str, reason: impl Into<String>) -> Error {
    Error::InvalidArchive { archive: name.into(), reason: reason.into() }
}

#[cfg(test)]
mod tests;
