//! One layer on top of the other, in memory.
//!
//! Symbolic links on the way to an entry are followed, as they are when layers are unpacked on top of each other.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::ImageTree;
use super::Item;
use super::LargeFile;
use super::LayerReport;
use super::Listing;
use super::NodeInfo;
use super::Object;
use super::absolute;
use crate::Image;
use crate::error::Result;
use crate::layer::extract::OPAQUE;
use crate::layer::extract::RESERVED;
use crate::layer::extract::WHITEOUT;
use crate::layer::extract::join;
use crate::layer::extract::split;
use crate::layer::tar::Kind;

/// Links on the way to one name, as the kernel has it.
const MAX_LINKS: usize = 40;

impl ImageTree {
    pub(super) fn merge(image: &Image, listings: &BTreeMap<String, Listing>, largest: usize) -> Result<Self> {
        let mut tree = Self { layers: Vec::new(), names: BTreeMap::new(), objects: Vec::new() };
        let nothing = Listing::default();
        for (diff_id, blob) in image.diff_ids.iter().zip(&image.layers) {
            let listing = listings.get(&diff_id.to_string()).unwrap_or(&nothing);
            let mut report = tree.apply(listing);
            report.diff_id = diff_id.to_string();
            report.digest = blob.digest.to_string();
            report.compressed = blob.size;
            report.uncompressed = listing.uncompressed;
            tree.layers.push(report);
        }
        tree.look_back(image, listings, largest);
        Ok(tree)
    }

    fn apply(&mut self, listing: &Listing) -> LayerReport {
        let layer = self.layers.len();
        let mut report = LayerReport { entries: listing.items.len() as u64, ..LayerReport::default() };
        let mut touched = Touched::default();
        // Marks are about the layers below, wherever they are in the archive.
        for item in &listing.items {
            let (parent, name) = split(&item.path);
            if name == OPAQUE {
                let parent = self.resolve(parent);
                self.remove_below(&parent, &mut touched);
            } else if let Some(gone) = name.strip_prefix(WHITEOUT)
                && !name.starts_with(RESERVED)
            {
                let path = join(&self.resolve(parent), gone);
                self.remove_below(&path, &mut touched);
                self.remove(&path, &mut touched);
            }
        }
        for item in listing.items.iter().filter(|item| !split(&item.path).1.starts_with(WHITEOUT)) {
            if item.kind == Kind::File {
                report.files += 1;
                report.size += item.size;
            }
            self.insert(layer, item, &mut touched);
        }
        for (path, before) in &touched.before {
            let kind = |object: usize| self.objects.get(object).map_or("", |object| object.info.kind);
            match (before, self.names.get(path)) {
                (None, Some(_)) => report.added += 1,
                (Some(_), None) => report.deleted += 1,
                (Some(before), Some(after)) if (kind(*before), kind(*after)) != ("dir", "dir") => {
                    report.replaced += 1;
                }
                _ => {}
            }
        }
        report
    }

    fn insert(&mut self, layer: usize, item: &Item, touched: &mut Touched) {
        let (parent, name) = split(&item.path);
        let parent = self.make_dirs(layer, parent, touched);
        let path = join(&parent, name);
        let object = if item.kind == Kind::HardLink {
            let (parent, name) = split(&item.link);
            let target = join(&self.resolve(parent), name);
            // Also when this layer removes it: the link was made before.
            let before = touched.before.get(&target).copied().flatten();
            match self.names.get(&target).copied().or(before) {
                Some(object) => object,
                // What unpacking would refuse.
                None => return,
            }
        } else {
            self.objects.push(Object { layer, info: describe(item), digest: item.digest.clone() });
            self.objects.len() - 1
        };
        if item.kind != Kind::Dir {
            self.remove_below(&path, touched);
        }
        touched.note(&path, self.names.insert(path.clone(), object));
    }

    /// Makes what is missing of a path, and returns where it leads.
    fn make_dirs(&mut self, layer: usize, dir: &[u8], touched: &mut Touched) -> Vec<u8> {
        let dir = self.resolve(dir);
        if self.is_dir(&dir) {
            return dir;
        }
        let ends = dir.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(i, _)| i).chain([dir.len()]);
        for end in ends {
            let prefix = &dir[..end];
            if !self.is_dir(prefix) {
                let info = NodeInfo { kind: "dir", mode: 0o755, ..NodeInfo::nothing() };
                self.objects.push(Object { layer, info, digest: None });
                touched.note(prefix, self.names.insert(prefix.to_vec(), self.objects.len() - 1));
            }
        }
        dir
    }

    fn is_dir(&self, path: &[u8]) -> bool {
        path.is_empty() || self.info(path).is_some_and(|info| info.kind == "dir")
    }

    fn info(&self, path: &[u8]) -> Option<&NodeInfo> {
        Some(&self.objects.get(*self.names.get(path)?)?.info)
    }

    /// Where a path leads when symbolic links are followed; what does not exist leads to itself.
    fn resolve(&self, path: &[u8]) -> Vec<u8> {
        if self.is_dir(path) {
            return path.to_vec();
        }
        let mut left: Vec<Vec<u8>> = components(path);
        left.reverse();
        let (mut at, mut links) = (Vec::new(), 0);
        while let Some(name) = left.pop() {
            if name == b".." {
                at = split(&at).0.to_vec();
                continue;
            }
            let next = join(&at, &name);
            let target = self.info(&next).filter(|info| info.kind == "symlink");
            match target.and_then(|info| info.raw_target.as_deref()) {
                Some(target) if links < MAX_LINKS => {
                    links += 1;
                    if target.starts_with(b"/") {
                        at.clear();
                    }
                    left.extend(components(target).into_iter().rev());
                }
                _ => at = next,
            }
        }
        at
    }

    fn remove_below(&mut self, dir: &[u8], touched: &mut Touched) {
        let first = if dir.is_empty() { Vec::new() } else { join(dir, b"") };
        let gone: Vec<Vec<u8>> = self
            .names
            .range(first.clone()..)
            .take_while(|(path, _)| path.starts_with(&first))
            .map(|(path, _)| path.clone())
            .collect();
        for path in gone.iter().filter(|path| !path.is_empty()) {
            self.remove(path, touched);
        }
    }

    fn remove(&mut self, path: &[u8], touched: &mut Touched) {
        if let Some(object) = self.names.remove(path) {
            touched.note(path, Some(object));
        }
    }

    /// What can only be told when all layers are there: what is wasted, and which large files are seen.
    fn look_back(&mut self, image: &Image, listings: &BTreeMap<String, Listing>, largest: usize) {
        let visible: BTreeSet<usize> = self.names.values().copied().collect();
        for (number, object) in self.objects.iter().enumerate() {
            if !visible.contains(&number)
                && let Some(report) = self.layers.get_mut(object.layer)
            {
                report.wasted += object.info.size;
            }
        }
        for (layer, diff_id) in image.diff_ids.iter().enumerate() {
            let Some(listing) = listings.get(&diff_id.to_string()) else { continue };
            let mut files: Vec<&Item> = listing.items.iter().filter(|item| item.size > 0).collect();
            files.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.path.cmp(&b.path)));
            files.truncate(largest);
            let large = |item: &Item| {
                let (parent, name) = split(&item.path);
                let path = join(&self.resolve(parent), name);
                let object = self.names.get(&path).and_then(|object| self.objects.get(*object));
                let visible = object.is_some_and(|object| object.layer == layer);
                LargeFile { path: absolute(&item.path), size: item.size, visible }
            };
            let large = files.into_iter().map(large).collect();
            if let Some(report) = self.layers.get_mut(layer) {
                report.largest = large;
            }
        }
    }
}

/// What names were before a layer, of those that it has to do with.
#[derive(Debug, Default)]
struct Touched {
    before: BTreeMap<Vec<u8>, Option<usize>>,
}

impl Touched {
    fn note(&mut self, path: &[u8], before: Option<usize>) {
        if !self.before.contains_key(path) {
            self.before.insert(path.to_vec(), before);
        }
    }
}

fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|b| *b == b'/').filter(|c| !c.is_empty() && *c != b".").map(<[u8]>::to_vec).collect()
}

fn describe(item: &Item) -> NodeInfo {
    let meta = &item.meta;
    let is_link = item.kind == Kind::Symlink;
    NodeInfo {
        kind: match item.kind {
            Kind::File | Kind::HardLink => "file",
            Kind::Dir => "dir",
            Kind::Symlink => "symlink",
            Kind::Fifo => "fifo",
            Kind::Char => "char",
            Kind::Block => "block",
        },
        // Nobody looks at a link's own.
        mode: if is_link { 0o777 } else { meta.mode },
        uid: meta.uid,
        gid: meta.gid,
        size: item.size,
        mtime: meta.mtime,
        target: is_link.then(|| String::from_utf8_lossy(&item.link).into_owned()),
        raw_target: is_link.then(|| item.link.clone()),
        device: matches!(item.kind, Kind::Char | Kind::Block).then_some(item.device),
        xattrs: meta.xattrs.clone(),
    }
}

impl NodeInfo {
    fn nothing() -> Self {
        Self {
            kind: "",
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: (0, 0),
            target: None,
            raw_target: None,
            device: None,
            xattrs: Vec::new(),
        }
    }
}
