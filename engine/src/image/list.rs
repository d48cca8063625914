//! The list of images.

use dhow_images::{Descriptor, Matcher, Reference};

use crate::engine::Engine;
use crate::error::Result;

/// One name of one image.
#[derive(Debug)]
pub struct Listed {
    /// The name; an image may be kept without one.
    pub reference: Option<Reference>,
    /// What it points to.
    pub target: Descriptor,
    /// When it was built, if it says so.
    pub created: Option<String>,
    /// Bytes of the unpacked layers, or of everything that was fetched while nothing is unpacked.
    pub size: u64,
    /// The platforms that are here.
    pub platforms: Vec<String>,
}

impl Engine {
    /// Every name in the store, newest image first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn images(&self) -> Result<Vec<Listed>> {
        let mut listed = Vec::new();
        let named =
            self.store().references()?.into_iter().map(|(reference, target)| (Some(reference), target));
        let unnamed = self.store().untagged()?.into_iter().map(|target| (None, target));
        for (reference, target) in named.chain(unnamed) {
            let usage = self.store().usage(&target)?;
            let here: Vec<_> =
                self.store().variants(&target)?.into_iter().filter(|variant| variant.present).collect();
            let platforms = here.iter().map(|variant| variant.platform.to_string()).collect();
            let created = match here.first() {
                Some(variant) => {
                    self.store().image(&target, &Matcher::only(&variant.platform))?.config.created
                }
                None => None,
            };
            // Layers are unpacked by the first run; until then there is only what was fetched or loaded.
            let size = if usage.unpacked == 0 { usage.blobs } else { usage.unpacked };
            listed.push(Listed { reference, target, created, size, platforms });
        }
        let name = |image: &Listed| image.reference.as_ref().map(Reference::canonical);
        listed.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| name(a).cmp(&name(b))));
        Ok(listed)
    }
}
