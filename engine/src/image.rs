//! Images as users see them, by what is done with them. The store itself is [`dhow_images`].

mod archive;
pub mod change;
mod history;
mod import;
mod inspect;
mod list;
mod mount;
mod remove;
mod tag;
mod tree;

pub use history::Step;
pub use import::Import;
pub use list::{ImageFilters, created, matches_reference};
pub use mount::ImageMount;
pub use remove::Removed;
pub use tree::{Comparison, Inside, SettingChange};

use dhow_images::{Descriptor, Digest, Reference};

use crate::engine::Engine;
use crate::error::Result;

impl Engine {
    /// Finds an image as `run` and `inspect` name it: as [`dhow_images::Store::find`] does, and else, for a name without
    /// registry and folder, the only image of that name and tag, whichever registry it came from.
    ///
    /// # Errors
    /// Unknown or ambiguous images.
    pub fn find_image(&self, wanted: &str) -> Result<Descriptor> {
        let missing = match self.store().find(wanted) {
            Err(error @ dhow_images::Error::NoSuchImage { .. }) => error,
            other => return Ok(other?),
        };
        let Some(short) =
            Reference::parse(wanted).ok().filter(|name| !wanted.contains('/') && name.digest().is_none())
        else {
            return Err(missing.into());
        };
        fn last(name: &Reference) -> Option<&str> {
            name.repository().rsplit('/').next()
        }
        let fits =
            |(name, _): &(Reference, Descriptor)| name.tag() == short.tag() && last(name) == last(&short);
        let mut fitting = self.store().references()?.into_iter().filter(fits);
        match (fitting.next(), fitting.next()) {
            (Some((_, target)), None) => Ok(target),
            _ => Err(missing.into()),
        }
    }

    /// Every name of one image.
    pub(crate) fn names_of(&self, image: &Digest) -> Result<Vec<Reference>> {
        let named = self.store().references()?.into_iter();
        Ok(named.filter(|(_, target)| target.digest == *image).map(|(name, _)| name).collect())
    }
}
