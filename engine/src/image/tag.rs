//! Another name for an image.

use dhow_images::Reference;

use crate::engine::Engine;
use crate::error::{Error, Result};

impl Engine {
    /// Gives the image that `source` names the name `target`, whatever that stood for before.
    ///
    /// # Errors
    /// Unknown image, or a target that is no name with a tag, in Docker's words.
    pub fn tag_image(&self, source: &str, target: &str) -> Result<Reference> {
        let name = Reference::parse(target)?;
        if name.digest().is_some() {
            return Err(Error::Invalid("refusing to create a tag with a digest reference".to_owned()));
        }
        let image = self.find_image(source)?;
        self.store().tag(&name, &image)?;
        self.tell_of_image("tag", &image.digest.to_string(), &name.familiar());
        Ok(name)
    }
}
