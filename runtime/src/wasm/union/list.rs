//! Merged listings: each name once, highest layer first, removed names left out. One pass over each layer.
//!
//! A listing is kept for as long as a guest may come back to a place in it, so it is small: the names one after the
//! other, and sixteen bytes for each. All listings of one tree together are limited.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::errno::{Errno, Result};
use super::fs::{number_of, whiteout_target};
use super::host::{Kind, RawEntry, name_from, name_str};
use super::index;
use super::lock;
use super::node::{Entry, Node, Source};

/// Bytes that the listings of one tree may take up together: a dozen of a million names each.
const ALL_LISTINGS: usize = 512 << 20;

/// One entry of a listing; never `.` or `..`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::wasm) struct DirEntry<N> {
    pub(in crate::wasm) name: N,
    pub(in crate::wasm) kind: Kind,
    /// The same number [`super::Metadata::ino`] says.
    pub(in crate::wasm) ino: u64,
}

/// A directory as it was at one moment.
#[derive(Debug)]
pub(in crate::wasm) struct Listing {
    /// All names, one after the other.
    names: String,
    items: Vec<Item>,
    /// Bytes in use by all listings of the tree, and by this one.
    all: Arc<AtomicUsize>,
    counted: usize,
}

#[derive(Debug, Clone, Copy)]
struct Item {
    ino: u64,
    /// Where its name ends.
    end: u32,
    kind: Kind,
}

impl Listing {
    fn new(all: &Arc<AtomicUsize>) -> Self {
        Self { names: String::new(), items: Vec::new(), all: Arc::clone(all), counted: 0 }
    }

    pub(in crate::wasm) fn len(&self) -> usize {
        self.items.len()
    }

    pub(in crate::wasm) fn get(&self, index: usize) -> Option<DirEntry<&str>> {
        let item = self.items.get(index)?;
        Some(DirEntry { name: self.name(index)?, kind: item.kind, ino: item.ino })
    }

    pub(in crate::wasm) fn iter(&self) -> impl Iterator<Item = DirEntry<&str>> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    fn name(&self, index: usize) -> Option<&str> {
        let start = match index.checked_sub(1) {
            Some(before) => self.items.get(before)?.end,
            None => 0,
        };
        self.names.get(start as usize..self.items.get(index)?.end as usize)
    }

    fn push(&mut self, name: &str, kind: Kind, ino: u64) -> Result<()> {
        self.names.push_str(name);
        let end = u32::try_from(self.names.len()).map_err(|_| Errno::Overflow)?;
        self.items.push(Item { ino, end, kind });
        if self.items.len().is_power_of_two() {
            self.count()?;
        }
        Ok(())
    }

    /// Refuses to become larger than all may be.
    fn count(&mut self) -> Result<()> {
        let now = self.names.capacity() + self.items.capacity() * size_of::<Item>();
        let grown = now.saturating_sub(self.counted);
        self.counted += grown;
        if self.all.fetch_add(grown, Ordering::Relaxed) + grown > ALL_LISTINGS {
            return Err(Errno::NoMemory);
        }
        Ok(())
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        self.all.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

/// What is left of a listing.
#[derive(Debug)]
pub(in crate::wasm) struct Entries {
    listing: Listing,
    next: usize,
}

impl Iterator for Entries {
    type Item = DirEntry<String>;

    fn next(&mut self) -> Option<Self::Item> {
        let DirEntry { name, kind, ino } = self.listing.get(self.next)?;
        let name = name.to_owned();
        self.next += 1;
        Some(DirEntry { name, kind, ino })
    }
}

impl IntoIterator for Listing {
    type Item = DirEntry<String>;
    type IntoIter = Entries;

    fn into_iter(self) -> Entries {
        Entries { listing: self, next: 0 }
    }
}

/// The names of a listing by their hashes, without holding them a second time.
struct Seen {
    hasher: RandomState,
    /// A name's hash, or the next free number after it, to the name's index.
    by_hash: HashMap<u64, u32>,
}

impl Seen {
    fn find(&self, listing: &Listing, name: &str) -> std::result::Result<usize, u64> {
        let mut hash = self.hasher.hash_one(name);
        while let Some(index) = self.by_hash.get(&hash) {
            if listing.name(*index as usize) == Some(name) {
                return Ok(*index as usize);
            }
            hash = hash.wrapping_add(1);
        }
        Err(hash)
    }
}

impl Node {
    /// Everything in this directory, as it is now. Names that are not UTF-8 cannot be named by a guest and are left out.
    pub(in crate::wasm) fn list(self: &Arc<Self>) -> Result<Listing> {
        let mut listing = Listing::new(&self.fs.listings);
        self.refresh()?;
        if self.is_removed() {
            return Ok(listing);
        }
        let stack = lock(&self.stack).clone();
        let mut unsure = Vec::new();
        if let [only] = &stack[..] {
            self.list_one(only, &mut listing, &mut unsure)?;
        } else {
            self.list_merged(&stack, &mut listing, &mut unsure)?;
        }
        // What was copied up has the number it had before.
        for index in unsure {
            let Some(name) = listing.name(index).map(OsString::from) else { continue };
            let ino = match self.lookup_under_mounts(&name)? {
                Some(Entry::Dir(node)) => node.ino(),
                Some(Entry::Leaf(leaf)) => leaf.ino,
                None => continue,
            };
            if let Some(item) = listing.items.get_mut(index) {
                item.ino = ino;
            }
        }
        self.list_mounts(&mut listing)?;
        listing.count()?;
        Ok(listing)
    }

    fn list_one(&self, source: &Source, listing: &mut Listing, unsure: &mut Vec<usize>) -> Result<()> {
        let moved_in = self.fs.layered && source.layer == 0 && index::has_moved_in(&source.dir);
        source.dir.list(|raw| {
            let (Some(name), Some(kind)) = (name_str(raw.name), self.visible(source, raw)?) else {
                return Ok(());
            };
            if moved_in && matches!(kind, Kind::File | Kind::Dir) {
                unsure.push(listing.len());
            }
            listing.push(name, kind, self.raw_number(source, &raw))
        })
    }

    fn list_merged(
        self: &Arc<Self>,
        stack: &[Source],
        listing: &mut Listing,
        unsure: &mut Vec<usize>,
    ) -> Result<()> {
        let mut seen = Seen { hasher: RandomState::new(), by_hash: HashMap::new() };
        let mut removed = HashSet::new();
        // How many entries are of the writable directory, which comes first.
        let mut written = 0;
        for source in stack {
            let moved_in = source.layer == 0 && index::has_moved_in(&source.dir);
            let mut removed_here = Vec::new();
            source.dir.list(|raw| {
                let Some(name) = name_str(raw.name) else { return Ok(()) };
                if self.fs.hides(raw.name) {
                    removed_here.extend(
                        whiteout_target(name.as_bytes()).and_then(|_| name.get(4..)).map(str::to_owned),
                    );
                    return Ok(());
                }
                let Some(kind) = self.visible(source, raw)? else {
                    removed_here.push(name.to_owned());
                    return Ok(());
                };
                if removed.contains(name) {
                    return Ok(());
                }
                match seen.find(listing, name) {
                    Ok(index) => {
                        let is_dir = listing.items.get(index).is_some_and(|item| item.kind == Kind::Dir);
                        if index < written || is_dir && unsure.last() != Some(&index) {
                            unsure.push(index);
                        }
                        Ok(())
                    }
                    Err(hash) => {
                        let index = u32::try_from(listing.len()).map_err(|_| Errno::Overflow)?;
                        seen.by_hash.insert(hash, index);
                        if moved_in && matches!(kind, Kind::File | Kind::Dir) {
                            unsure.push(index as usize);
                        }
                        listing.push(name, kind, self.raw_number(source, &raw))
                    }
                }
            })?;
            removed.extend(removed_here);
            if source.layer == 0 {
                written = listing.len();
            }
        }
        Ok(())
    }

    /// An entry's kind; `None` for marks, of both forms, and for what has just gone.
    fn visible(&self, source: &Source, raw: RawEntry<'_>) -> Result<Option<Kind>> {
        if self.fs.hides(raw.name) {
            return Ok(None);
        }
        if raw.kind != Kind::Unknown && (raw.kind != Kind::CharDevice || !self.fs.layered) {
            return Ok(Some(raw.kind));
        }
        match source.dir.stat(raw.name) {
            Ok(stat) => Ok((!stat.whiteout || !self.fs.layered).then_some(stat.kind)),
            Err(Errno::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn raw_number(&self, source: &Source, raw: &RawEntry<'_>) -> u64 {
        let fallback = || number_of(self.ino(), raw.name.as_encoded_bytes());
        self.fs.number(source.layer, (source.id.0, raw.ino), fallback)
    }

    /// All names without those of mounts, also those that are not UTF-8: whoever moves or removes a directory must not
    /// lose them.
    pub(super) fn names(&self) -> Result<Vec<(OsString, Kind)>> {
        let stack = lock(&self.stack).clone();
        let mut found: HashMap<OsString, Option<Kind>> = HashMap::new();
        for source in &stack {
            let mut removed = Vec::new();
            source.dir.list(|raw| {
                match self.visible(source, raw)? {
                    Some(kind) => {
                        found.entry(raw.name.to_owned()).or_insert(Some(kind));
                    }
                    None if self.fs.hides(raw.name) => {
                        let bytes = raw.name.as_encoded_bytes();
                        removed.extend(whiteout_target(bytes).and_then(name_from));
                    }
                    None => removed.push(raw.name.to_owned()),
                }
                Ok(())
            })?;
            for name in removed {
                found.entry(name).or_insert(None);
            }
        }
        Ok(found.into_iter().filter_map(|(name, kind)| kind.map(|kind| (name, kind))).collect())
    }

    /// Whether nothing is left in it, names that no guest can see included.
    pub(super) fn is_empty(&self) -> Result<bool> {
        if !lock(&self.mounts).is_empty() {
            return Ok(false);
        }
        let stack = lock(&self.stack).clone();
        let mut removed: HashSet<OsString> = HashSet::new();
        for source in &stack {
            let mut removed_here = Vec::new();
            let looked = source.dir.list(|raw| match self.visible(source, raw)? {
                Some(_) if removed.contains(raw.name) => Ok(()),
                // Ends the listing.
                Some(_) => Err(Errno::NotEmpty),
                None if self.fs.hides(raw.name) => {
                    let bytes = raw.name.as_encoded_bytes();
                    removed_here.extend(whiteout_target(bytes).and_then(name_from));
                    Ok(())
                }
                None => {
                    removed_here.push(raw.name.to_owned());
                    Ok(())
                }
            });
            match looked {
                Err(Errno::NotEmpty) => return Ok(false),
                looked => looked?,
            }
            removed.extend(removed_here);
        }
        Ok(true)
    }

    fn list_mounts(&self, listing: &mut Listing) -> Result<()> {
        for (name, mounted) in lock(&self.mounts).iter() {
            let (kind, ino) = match mounted {
                Entry::Dir(node) => (Kind::Dir, node.ino()),
                Entry::Leaf(leaf) => (leaf.stat.kind, leaf.ino),
            };
            let Some(name) = name_str(name) else { continue };
            match (0..listing.len()).find(|index| listing.name(*index) == Some(name)) {
                Some(index) => {
                    if let Some(item) = listing.items.get_mut(index) {
                        (item.kind, item.ino) = (kind, ino);
                    }
                }
                None => listing.push(name, kind, ino)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    #[test]
    fn all_listings_together_are_limited() {
        let all = Arc::new(AtomicUsize::new(0));
        let mut one = Listing::new(&all);
        for number in 0..1000 {
            one.push(&format!("name{number}"), Kind::File, number).expect("room");
        }
        assert_eq!(one.get(999).map(|entry| entry.name), Some("name999"));
        assert_eq!(one.get(0).map(|entry| (entry.name, entry.ino)), Some(("name0", 0)));
        assert_eq!(one.get(1000), None);
        assert_eq!(one.iter().count(), 1000);
        all.fetch_add(ALL_LISTINGS, Ordering::Relaxed);
        let refused = (0..5000).find_map(|number| one.push("more", Kind::File, number).err());
        assert_eq!(refused, Some(Errno::NoMemory));
        all.fetch_sub(ALL_LISTINGS, Ordering::Relaxed);
        drop(one);
        assert_eq!(all.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn names_with_equal_hashes_are_told_apart() {
        let all = Arc::new(AtomicUsize::new(0));
        let mut listing = Listing::new(&all);
        let mut seen = Seen { hasher: RandomState::new(), by_hash: HashMap::new() };
        listing.push("a", Kind::File, 1).expect("room");
        let Err(hash) = seen.find(&listing, "b") else { panic!("b is not there") };
        // As if `a` had the hash of `b`.
        seen.by_hash.insert(hash, 0);
        let Err(next) = seen.find(&listing, "b") else { panic!("b is not there") };
        assert_eq!(next, hash.wrapping_add(1));
    }

    #[test]
    fn os_names_keep_their_bytes() {
        let name = OsStr::new("\u{e4}.x");
        assert_eq!(name_from(name.as_encoded_bytes()).as_deref(), Some(name));
    }
}
