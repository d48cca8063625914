//! What a start has to find or to make of the sources of mounts: folders within volumes and images, and volumes in memory.
//!
//! A folder within a source is opened beneath it, so that no link in it leads anywhere else, whoever changes the volume
//! meanwhile: a Wasm program has it by its handle, for a native one the runtime does the same in its mount namespace.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use dhow_runtime::Kind;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use super::{Found, MountPoint};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::record::{ImageOrigin, Record};

impl Engine {
    /// The sources of those mounts whose record does not say it all, by destination. Volumes in memory are there then.
    ///
    /// The paths are good as long as this process, or a child of it, has not asked again.
    pub(crate) fn mount_sources(&self, record: &Record) -> Result<BTreeMap<String, Found>> {
        let mut sources: BTreeMap<String, Found> = BTreeMap::new();
        let mut held = Vec::new();
        for point in &record.mounts {
            if let Some(options) = &point.memory {
                self.make_volume_memory(&point.name, options)?;
            }
            let base = match &point.image {
                Some(image) if point.source.is_empty() => self.image_tree(image, &point.name)?,
                _ if point.subpath.is_empty() => continue,
                _ => point.source.clone(),
            };
            let found = if point.subpath.is_empty() {
                Found { source: base, beneath: None }
            } else {
                // Also for a native one, to say early and well what is wrong.
                let folder = beneath(Path::new(&base), point)?;
                match record.kind {
                    Kind::Native => {
                        Found { source: format!("{base}/{}", point.subpath), beneath: Some(base) }
                    }
                    Kind::Wasm => {
                        let source = format!("/proc/self/fd/{}", folder.as_raw_fd());
                        held.push(folder);
                        Found { source, beneath: None }
                    }
                }
            };
            sources.insert(point.destination.clone(), found);
        }
        self.hold(held);
        Ok(sources)
    }

    fn image_tree(&self, image: &ImageOrigin, name: &str) -> Result<String> {
        let lost = || Error::Invalid(format!("the files of the image {name} are not mounted on this system"));
        let mut layers = self.lower(image, Kind::Native)?.into_iter();
        match (layers.next(), layers.next()) {
            (Some(one), None) => one.path.into_os_string().into_string().map_err(|_| lost()),
            _ => Err(lost()),
        }
    }
}

/// Opens the folder or file within a source, wherever links within it lead, but never out of it.
fn beneath(base: &Path, point: &MountPoint) -> Result<OwnedFd> {
    let open = || {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let base = openat(CWD, base, flags | OFlags::DIRECTORY, Mode::empty())?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        loop {
            match openat2(&base, point.subpath.as_str(), flags, Mode::empty(), resolve) {
                // Something was renamed meanwhile, somewhere on the system.
                Err(Errno::AGAIN | Errno::INTR) => {}
                opened => return opened,
            }
        }
    };
    open().map_err(|errno| {
        let (kind, name, path) = (point.kind.as_str(), &point.name, &point.subpath);
        let why = match errno {
            Errno::XDEV => "it leads out of it".to_owned(),
            errno => std::io::Error::from(errno).to_string(),
        };
        Error::Invalid(format!("cannot mount {path} of {kind} {name}: {why}"))
    })
}
