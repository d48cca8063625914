//! Images made of an archive of files.

use dhow_images::archive::{self, ImportOptions, Source};
use dhow_images::{Descriptor, Platform, Reference, RunConfig};
use jiff::Timestamp;

use super::change;
use crate::engine::Engine;
use crate::error::{Error, Result};

/// What an import is asked for.
#[derive(Debug, Clone, Default)]
pub struct Import {
    /// The image's name; without one it is known by its id.
    pub name: Option<Reference>,
    /// Dockerfile instructions, see [`change::apply`].
    pub changes: Vec<String>,
    /// A remark for the history.
    pub message: String,
    /// What it runs on; this host's platform if not given.
    pub platform: Option<Platform>,
}

impl Engine {
    /// Makes an image of an archive of files.
    ///
    /// # Errors
    /// A change that is none, and whatever is wrong with the archive; nothing is left then.
    pub fn import_image(&self, source: Source<'_>, import: Import) -> Result<Descriptor> {
        let mut config = RunConfig::default();
        for instruction in &import.changes {
            change::apply(&mut config, instruction)?;
        }
        if import.name.as_ref().is_some_and(|name| name.digest().is_some()) {
            return Err(Error::Invalid("cannot import digest reference".to_owned()));
        }
        let options = ImportOptions {
            platform: import.platform.unwrap_or_else(Platform::host),
            config,
            created: Some(Timestamp::now().to_string()),
            comment: import.message,
        };
        let image = archive::import(self.store(), source, &options)?;
        match &import.name {
            Some(name) => self.store().tag(name, &image)?,
            None => self.store().keep_untagged(&image)?,
        }
        let name = import.name.as_ref().map(dhow_images::Reference::familiar).unwrap_or_default();
        self.tell_of_image("import", &image.digest.to_string(), &name);
        Ok(image)
    }
}
