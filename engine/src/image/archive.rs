//! Which images an archive gets, by what the user names.

use dhow_images::archive::Saved;
use dhow_images::{Descriptor, Reference};

use crate::engine::Engine;
use crate::error::Result;

impl Engine {
    /// The images that `wanted` stands for, with the names that they have in an archive. As Docker has it: a name with
    /// a tag or digest is that name alone, one without is every tag of the repository, and an id is an image without
    /// a name.
    ///
    /// # Errors
    /// Unknown or ambiguous images.
    pub fn images_to_save(&self, wanted: &[String]) -> Result<Vec<Saved>> {
        let mut saved: Vec<Saved> = Vec::new();
        let mut add = |image: &Descriptor, name: Option<Reference>| {
            let found = saved.iter().position(|saved| saved.image.digest == image.digest);
            let at = found.unwrap_or_else(|| {
                saved.push(Saved { image: image.clone(), names: Vec::new() });
                saved.len() - 1
            });
            let names = &mut saved[at].names;
            names.extend(name.filter(|name| !names.contains(name)));
        };
        let references = self.store().references()?;
        for wanted in wanted {
            // An id could be read as a name too.
            let parsed = Reference::parse(wanted).ok().filter(|_| !wanted.starts_with("sha256:"));
            // A port has a colon too.
            let is_bare = !wanted.contains('@') && !wanted.rsplit('/').next().unwrap_or(wanted).contains(':');
            let mut found = false;
            if let Some(wanted) = &parsed {
                for (name, image) in &references {
                    let fits = if is_bare {
                        name.familiar_name() == wanted.familiar_name() && name.tag().is_some()
                    } else {
                        name == wanted
                    };
                    if fits {
                        add(image, Some(name.clone()));
                        found = true;
                    }
                }
            }
            if found {
                continue;
            }
            let image = self.find_image(wanted)?;
            // A short name stands for the whole one that was found by it.
            let mut whole = references.iter().filter(|(name, target)| {
                let fits = |wanted: &Reference| wanted.digest().is_none() && wanted.tag() == name.tag();
                target.digest == image.digest && parsed.as_ref().is_some_and(fits)
            });
            let named = whole.next().filter(|_| !wanted.bytes().all(|b| b.is_ascii_hexdigit()));
            let named = named.map(|(name, _)| name.clone());
            add(&image, named);
        }
        Ok(saved)
    }
}
