//! Image archives: OCI layouts (directory or tar) and Docker archives, in; OCI layouts, out.
//!
//! `source` gives access to the members of an archive, `oci` and `docker` understand the two formats, `layout`
//! writes. Archives with both forms, as newer Docker versions save them, are read as OCI layouts.

mod docker;
mod layout;
mod oci;
mod source;

use std::fmt;
use std::io::Read;
use std::path::Path;

pub use layout::save_layout;

use crate::Descriptor;
use crate::Error;
use crate::Progress;
use crate::Reference;
use crate::Store;
use crate::error::Result;
use crate::store::session::Session;

/// Where an archive comes from.
pub enum Source<'a> {
    /// A tar file (plain, gzip or zstd), or the directory of an OCI layout.
    Path(&'a Path),
    /// A stream with a tar, for example standard input.
    Reader(&'a mut dyn Read),
}

impl fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => f.debug_tuple("Path").field(path).finish(),
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

/// Reads every image of an archive into the store, and tags those that have names. Layers are verified and not
/// unpacked; the first run does that.
///
/// # Errors
/// [`Error::InvalidArchive`] for what is no image archive, and whatever is wrong with its content.
pub fn load(store: &Store, source: Source<'_>, progress: &dyn Progress) -> Result<Vec<Loaded>> {
    let session = Session::new(store)?;
    let archive = source::Archive::open(source, &session)?;
    let loaded = if archive.has("index.json") {
        oci::load(&archive, &session, progress)?
    } else if archive.has("manifest.json") {
        docker::load(&archive, &session, progress)?
    } else {
        return Err(archive.invalid("is no image archive: neither index.json nor manifest.json is in it"));
    };
    if loaded.is_empty() {
        return Err(archive.invalid("holds no image"));
    }
    for image in &loaded {
        match &image.reference {
            Some(name) => store.tag(name, &image.descriptor)?,
            None => store.keep_untagged(&image.descriptor)?,
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
