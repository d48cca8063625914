//! `rename`: another name for a container, running or not.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::names;
use crate::record::Container;

impl Engine {
    /// Gives a container another name. Whoever is stopped in the middle of it leaves a container with its old name or
    /// its new one, and a name that `system check --repair` frees.
    ///
    /// # Errors
    /// [`Error::NameInUse`], [`Error::Invalid`] for what is no name.
    pub fn rename(&self, container: &Container, name: &str) -> Result<()> {
        let name = name.strip_prefix('/').unwrap_or(name);
        if name.is_empty() {
            return Err(Error::Invalid("Neither old nor new names may be empty".to_owned()));
        }
        names::validate(name)?;
        #[cfg(target_os = "linux")]
        let _edit = container.edit()?;
        // As it is now: somebody may have renamed it since it was looked up.
        let now = Container::load(container.folder().to_owned())?;
        let (id, old) = (&now.record.id, &now.record.name);
        if old == name {
            return Err(Error::Invalid(
                "Renaming a container with the same name as its current name".to_owned(),
            ));
        }
        let place = self.place_for(now.record.host_config.auto_remove);
        self.claim_one(place, name, id)?;
        let renamed = crate::record::Record { name: name.to_owned(), ..now.record.clone() };
        let renamed = Container::write(container.folder().to_owned(), renamed).inspect_err(|_| {
            // The first failure is the one to report.
            names::release(&place.names, name, id).ok();
        })?;
        #[cfg(target_os = "linux")]
        self.rename_endpoints(&renamed)?;
        #[cfg(not(target_os = "linux"))]
        let _ = &renamed;
        names::release(&place.names, old, id)?;
        self.tell_of(&renamed.record, "rename", &[("oldName", &format!("/{old}"))]);
        Ok(())
    }
}
