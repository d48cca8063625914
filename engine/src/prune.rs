//! `prune`: removes what nobody uses, and says what the disk got back.

use dhow_images::{Candidate, Descriptor, Matcher, Prune, Reference, Sizes, disk_usage};
use jiff::Timestamp;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::events::Event;
use crate::record::Container;

/// Which of the unused things go. The default takes all of them.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    /// Only what was made before.
    pub until: Option<Timestamp>,
    /// Only what has all these labels, with this value where one is given.
    pub labels: Vec<Label>,
    /// Only what has none of these.
    pub without: Vec<Label>,
}

/// A label's name, and its value if that matters.
pub type Label = (String, Option<String>);

/// What `image prune` did.
#[derive(Debug, Default)]
pub struct PrunedImages {
    /// Names that are gone.
    pub untagged: Vec<Reference>,
    /// Ids of images and diff ids of unpacked layers that are gone.
    pub deleted: Vec<String>,
    /// Bytes that the disk got back.
    pub reclaimed: u64,
}

/// What `container prune` did.
#[derive(Debug, Default)]
pub struct PrunedContainers {
    /// Ids.
    pub deleted: Vec<String>,
    /// Bytes that the disk got back.
    pub reclaimed: u64,
}

impl Filters {
    /// Whether everything passes.
    pub fn is_empty(&self) -> bool {
        self.until.is_none() && self.labels.is_empty() && self.without.is_empty()
    }

    pub(crate) fn pass<'a>(&self, created: Option<Timestamp>, labels: &[(&'a str, &'a str)]) -> bool {
        let has = |(name, value): &Label| {
            labels.iter().any(|(n, v)| n == name && value.as_ref().is_none_or(|value| v == value))
        };
        // What does not say when it was made is as old as can be.
        self.until.is_none_or(|until| created.is_none_or(|created| created < until))
            && self.labels.iter().all(has)
            && !self.without.iter().any(has)
    }
}

impl Engine {
    /// Removes images that no container uses: those without a name, or with `all` any. What no name leads to, and
    /// compiled code and partial downloads that nobody came back to for a week (with `all`: at all), goes in any case
    /// when nothing is filtered.
    ///
    /// # Errors
    /// When a name or lease cannot be read, or something cannot be removed.
    pub fn prune_images(&self, all: bool, filters: &Filters) -> Result<PrunedImages> {
        let store = self.store();
        let wanted = |image: &Candidate| {
            (all || image.names.is_empty()) && (filters.is_empty() || self.passes(filters, &image.descriptor))
        };
        let what = if all && filters.is_empty() { Prune::ALL } else { Prune::ABANDONED };
        let pruned = store.prune(what, wanted)?;
        for image in pruned.images.iter().filter(|image| pruned.swept.blobs.contains(image)) {
            let id = image.to_string();
            self.tell_later(&Event::new("image", "delete", &id, &[("name", &id)]));
        }
        self.tell_of_prune("image", pruned.swept.freed.allocated);
        let deleted = pruned.images.iter().filter(|image| pruned.swept.blobs.contains(image));
        Ok(PrunedImages {
            deleted: deleted.chain(&pruned.swept.layers).map(ToString::to_string).collect(),
            untagged: pruned.untagged,
            reclaimed: pruned.swept.freed.allocated,
        })
    }

    fn passes(&self, filters: &Filters, image: &Descriptor) -> bool {
        let Ok(variants) = self.store().variants(image) else { return false };
        // An image of which nothing is here has neither labels nor an age.
        let mut here = variants.iter().filter(|variant| variant.present).peekable();
        if here.peek().is_none() {
            return filters.pass(None, &[]);
        }
        here.any(|variant| {
            let Ok(image) = self.store().image(image, &Matcher::only(&variant.platform)) else {
                return false;
            };
            let labels: Vec<_> =
                image.config.config.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let created = image.config.created.as_ref().and_then(|created| created.parse().ok());
            filters.pass(created, &labels)
        })
    }

    /// Removes containers that do not run.
    ///
    /// # Errors
    /// When a record cannot be read, or something cannot be removed.
    pub fn prune_containers(&self, filters: &Filters) -> Result<PrunedContainers> {
        let mut pruned = PrunedContainers::default();
        for container in self.containers()? {
            let record = &container.record;
            let labels: Vec<_> = record.config.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            if container.state()?.status.is_running() || !filters.pass(Some(record.created), &labels) {
                continue;
            }
            let sizes = self.container_sizes(&container)?;
            match self.remove(&container, false, false) {
                Ok(()) => {
                    pruned.reclaimed += sizes.allocated;
                    pruned.deleted.push(record.id.clone());
                }
                // Started meanwhile.
                Err(Error::Running(_) | Error::RestartingNotRemoved(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.tell_of_prune("container", pruned.reclaimed);
        Ok(pruned)
    }

    /// Everything of a container on the disk.
    fn container_sizes(&self, container: &Container) -> Result<Sizes> {
        let mut sizes = readable(disk_usage(container.folder()))?;
        let data = self.data_folder(container);
        if !data.starts_with(container.folder()) {
            sizes += readable(disk_usage(data))?;
        }
        for place in self.places() {
            sizes += disk_usage(place.names.join(&container.record.name))?;
        }
        sizes += self.store().lease_usage(&container.record.id)?;
        Ok(sizes)
    }
}

/// Without root, a container's other users may have left folders that we may not look into: they count as nothing.
pub(crate) fn readable(sizes: std::io::Result<Sizes>) -> Result<Sizes> {
    match sizes {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(Sizes::default()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_all_to_be_met() {
        let time = |second| Timestamp::from_second(second).unwrap();
        let label = |text: &str| match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (text.to_owned(), None),
        };
        let labels = [("a", "1"), ("b", "")];
        for (with, without, until, expected) in [
            (vec![], vec![], None, true),
            (vec!["a"], vec![], None, true),
            (vec!["a=1", "b"], vec![], None, true),
            (vec!["a=2"], vec![], None, false),
            (vec!["a", "c"], vec![], None, false),
            (vec![], vec!["c"], None, true),
            (vec![], vec!["a=2"], None, true),
            (vec![], vec!["a"], None, false),
            (vec![], vec![], Some(100), false),
            (vec![], vec![], Some(101), true),
        ] {
            let filters = Filters {
                until: until.map(time),
                labels: with.iter().map(|text| label(text)).collect(),
                without: without.iter().map(|text| label(text)).collect(),
            };
            assert_eq!(filters.pass(Some(time(100)), &labels), expected, "{filters:?}");
            assert_eq!(filters.is_empty(), with.is_empty() && without.is_empty() && until.is_none());
        }
    }
}
