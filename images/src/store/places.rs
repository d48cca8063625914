//! Where content has been seen: the repositories that hold a blob, so that a push to another repository of the same
//! registry asks for it to be mounted there instead of sending it again.
//!
//! ```text
//! places/<hex>   lines `registry/repository`, the latest first
//! ```
//!
//! A hint and nothing more: it may be wrong, incomplete or gone, and then a push sends bytes. So nothing is synced,
//! and of two processes that write at the same time one wins. A file goes with its blob.

use std::io;
use std::path::PathBuf;

use fs_err as fs;

use super::Store;
use super::TEMPORARY;
use super::make_dir;
use super::names_in;
use super::replace_file;
use crate::Algorithm;
use crate::Digest;
use crate::error::Result;

/// Most repositories that are remembered for one blob.
const MAX_PLACES: usize = 8;
/// Longest file that is read, in bytes: a registry and a repository have 255 at most.
const MAX_FILE: u64 = MAX_PLACES as u64 * 257;

impl Store {
    /// Remembers that a repository holds these blobs. Failures are not worth a word: the next push is slower.
    pub(crate) fn note_places<'a>(
        &self,
        registry: &str,
        repository: &str,
        digests: impl IntoIterator<Item = &'a Digest>,
    ) {
        let place = format!("{registry}/{repository}");
        for digest in digests {
            if self.note_place(&place, digest).is_err() {
                return;
            }
        }
    }

    fn note_place(&self, place: &str, digest: &Digest) -> Result<()> {
        let known = self.read_places(digest);
        if known.first().is_some_and(|first| first == place) {
            return Ok(());
        }
        let others = known.iter().map(String::as_str).filter(|other| *other != place);
        let lines: String =
            std::iter::once(place).chain(others).take(MAX_PLACES).map(|p| format!("{p}\n")).collect();
        let path = self.place_path(digest);
        match replace_file(&path, lines.as_bytes(), false) {
            Err(crate::Error::Io(e)) if e.kind() == io::ErrorKind::NotFound => {
                make_dir(&self.places_dir()).ok();
                replace_file(&path, lines.as_bytes(), false)
            }
            other => other,
        }
    }

    /// The repositories of a registry that held this blob when last heard of, the latest first.
    pub(crate) fn places(&self, registry: &str, digest: &Digest) -> Vec<String> {
        let here = |place: String| {
            let (found, repository) = place.split_once('/')?;
            (found == registry).then(|| repository.to_owned())
        };
        self.read_places(digest).into_iter().filter_map(here).collect()
    }

    /// Forgets what was known about blobs that are gone. The caller holds the exclusive lock.
    pub(super) fn sweep_places(&self) -> Result<()> {
        let dir = self.places_dir();
        for name in names_in(&dir)? {
            let text = name.to_string_lossy();
            let digest = match text.strip_prefix("sha512-") {
                Some(hex) => format!("sha512:{hex}").parse::<Digest>(),
                None => format!("sha256:{text}").parse(),
            };
            // What is written at this moment, without the lock, is left for the next time.
            let gone = match digest {
                Ok(digest) => !self.has_blob(&digest),
                Err(_) => !text.starts_with(TEMPORARY) || is_old(&dir.join(&name)),
            };
            if gone {
                fs::remove_file(dir.join(name))?;
            }
        }
        Ok(())
    }

    fn read_places(&self, digest: &Digest) -> Vec<String> {
        let read = || -> Option<String> {
            let mut text = String::new();
            let file = fs::File::open(self.place_path(digest)).ok()?;
            io::Read::read_to_string(&mut io::Read::take(file, MAX_FILE), &mut text).ok()?;
            Some(text)
        };
        // It goes into a request: only what looks like a repository. A power cut may leave anything.
        let fit = |line: &&str| {
            line.contains('/') && line.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:[]".contains(&b))
        };
        read().unwrap_or_default().lines().filter(fit).map(str::to_owned).collect()
    }

    fn places_dir(&self) -> PathBuf {
        self.root.join("places")
    }

    fn place_path(&self, digest: &Digest) -> PathBuf {
        self.places_dir().join(match digest.algorithm() {
            Algorithm::Sha256 => digest.hex().to_owned(),
            Algorithm::Sha512 => format!("sha512-{}", digest.hex()),
        })
    }
}

/// Whether a half-written file has been so for longer than writing takes.
fn is_old(path: &std::path::Path) -> bool {
    let age =
        std::fs::symlink_metadata(path).and_then(|m| m.modified()).map(|t| t.elapsed().unwrap_or_default());
    age.is_ok_and(|age| age.as_secs() > 3600)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::store;

    #[test]
    fn the_latest_places_are_kept_as_long_as_the_blob() {
        let (_dir, store) = store();
        let image = crate::compose::wasm_artifact(&store, "wasip1", b"x").unwrap();
        let blob = image.digest.clone();
        let other = Digest::of(b"never there");
        assert!(store.places("r", &blob).is_empty());
        for n in 0..20 {
            store.note_places("r:5000", &format!("team/app{n}"), [&blob, &other]);
        }
        store.note_places("other", "x", [&blob]);
        store.note_places("r:5000", "team/app15", [&blob]);
        let places = store.places("r:5000", &blob);
        assert_eq!(places.len(), MAX_PLACES - 1);
        assert_eq!(places[..2], ["team/app15", "team/app19"]);
        assert_eq!(store.places("other", &blob), ["x"]);
        store.tag(&"kept".parse().unwrap(), &image).unwrap();
        store.remove_unreferenced().unwrap();
        assert_eq!(store.places("other", &blob), ["x"]);
        assert!(store.places("r:5000", &other).is_empty(), "its blob is not there");
        assert_eq!(store.check(false).unwrap(), []);
    }

    #[test]
    fn damage_is_no_place() {
        let (_dir, store) = store();
        let blob = Digest::of(b"x");
        store.note_places("r", "a", [&blob]);
        fs::write(store.place_path(&blob), "r/b\nr/a b\r\n\nr/c?x=\nnothing\n\u{1b}/x\nr/d").unwrap();
        assert_eq!(store.places("r", &blob), ["b", "d"]);
        fs::write(store.place_path(&blob), [0xff, 0, b'/']).unwrap();
        assert!(store.places("r", &blob).is_empty());
        store.note_places("r", "a", [&blob]);
        assert_eq!(store.places("r", &blob), ["a"]);
    }
}
