//! What a host application makes of content and keeps beside it: machine code of a Wasm module, for example.
//!
//! ```text
//! <folder>/<any>/<algorithm>-<hex>          made of this blob, or of this unpacked layer
//! <folder>/<any>/<algorithm>-<hex>.<any>    the same, of a part of it
//! <folder>/<any>/<other>                    made of something that is not in the store
//! ```
//!
//! Such a file goes when the content that it is named after goes. The store never reads one.

use std::path::Path;
use std::path::PathBuf;
use std::time::SystemTime;

use fs_err as fs;

use super::Sizes;
use super::Store;
use super::measure::Measure;
use super::names_in;
use crate::Algorithm;
use crate::Digest;
use crate::error::Result;

/// One file that was made of something.
#[derive(Debug, Clone)]
pub(super) struct Derived {
    pub(super) path: PathBuf,
    /// What it was made of; `None` for what is not in the store.
    pub(super) of: Option<Digest>,
}

impl Store {
    /// Lets files below `folder` go with the content that they were made of. Their names tell of what: see the
    /// module `derived`. The folder need not exist.
    #[must_use]
    pub fn with_derived(self, folder: PathBuf) -> Self {
        Self { derived: Some(folder), ..self }
    }

    /// The content that a derived file was made of, by the file's name; `None` when its name tells of none.
    #[must_use]
    pub fn derived_from(name: &str) -> Option<Digest> {
        made_of(name)
    }

    /// Whether content is there, as a blob or as an unpacked layer.
    #[must_use]
    pub fn has(&self, digest: &Digest) -> bool {
        self.has_blob(digest) || self.layer_dir(digest).exists()
    }

    /// Every derived file.
    pub(super) fn derived(&self) -> Result<Vec<Derived>> {
        let mut all = Vec::new();
        let Some(folder) = &self.derived else { return Ok(all) };
        for group in names_in(folder)? {
            let group = folder.join(group);
            if !std::fs::symlink_metadata(&group).is_ok_and(|m| m.is_dir()) {
                continue;
            }
            for name in names_in(&group)? {
                let of = made_of(&name.to_string_lossy());
                all.push(Derived { path: group.join(name), of });
            }
        }
        Ok(all)
    }

    /// Removes derived files that `keep` does not want, and folders that are empty then.
    pub(super) fn sweep_derived(&self, mut keep: impl FnMut(&Derived) -> bool) -> Result<Sizes> {
        let mut freed = Sizes::default();
        let mut measure = Measure::default();
        let mut groups = Vec::new();
        for derived in self.derived()? {
            if keep(&derived) {
                continue;
            }
            freed += measure.of(&derived.path)?;
            super::remove::tree(&derived.path)?;
            groups.extend(derived.path.parent().map(Path::to_owned));
        }
        groups.dedup();
        for group in groups {
            // Most are not empty.
            drop(fs::remove_dir(group));
        }
        Ok(freed)
    }
}

/// When a file was written; the present for one that is gone.
pub(super) fn written(path: &Path) -> SystemTime {
    std::fs::symlink_metadata(path).and_then(|m| m.modified()).unwrap_or_else(|_| SystemTime::now())
}

/// The content that a derived file's name tells of.
pub(super) fn made_of(name: &str) -> Option<Digest> {
    let stem = name.split_once('.').map_or(name, |(stem, _)| stem);
    let (algorithm, hex) = stem.split_once('-')?;
    [Algorithm::Sha256, Algorithm::Sha512].iter().find(|a| a.name() == algorithm)?;
    format!("{algorithm}:{hex}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_a_file_was_made_of() {
        let digest = Digest::of(b"x");
        let stem = format!("sha256-{}", digest.hex());
        for good in [stem.clone(), format!("{stem}.abc"), format!("{stem}.12.tmp")] {
            assert_eq!(made_of(&good).as_ref(), Some(&digest), "{good}");
        }
        for bad in
            ["", "sha256-", "sha256-abc", &stem[..70], &stem.replace("sha256", "file"), &format!("{stem}x")]
        {
            assert_eq!(made_of(bad), None, "{bad}");
        }
    }
}
