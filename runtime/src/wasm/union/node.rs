//! A directory of the merged tree, and looking up one name in it.
//!
//! While a directory is in use there is one [`Node`] for it, so that everybody in this process sees its copy-up at
//! once. Other processes change the same writable directory (`exec`, `cp`), so what a node remembers is compared with
//! the host before it is used: `fresh.rs`.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::errno::{Errno, Result};
use super::fs::{Fs, OPAQUE, number_of, whiteout_of};
use super::host::{Dir, Kind, Stat};
use super::index::{self, Origin};
use super::{Metadata, lock, mark};

/// Names longer than this exist on no file system we know.
const NAME_MAX: usize = 255;

/// A directory of the merged tree.
#[derive(Debug)]
pub(in crate::wasm) struct Node {
    pub(super) fs: Arc<Fs>,
    /// Where it is; `None` for the root.
    place: Mutex<Option<Place>>,
    /// The host directories it is made of, highest first. Layer 0 is the writable one.
    pub(super) stack: Mutex<Vec<Source>>,
    pub(super) children: Mutex<HashMap<OsString, Weak<Self>>>,
    pub(super) mounts: Mutex<HashMap<OsString, Entry>>,
    removed: AtomicBool,
    /// Another process has moved it, nobody knows where.
    pub(super) adrift: AtomicBool,
    ino: Mutex<Option<u64>>,
}

/// One name in one directory.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) parent: Arc<Node>,
    pub(super) name: OsString,
}

/// A host directory and the layer it belongs to.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// 0 is writable; 1 is the highest of the layers below.
    pub(super) layer: usize,
    pub(super) dir: Arc<Dir>,
    /// The host's device and inode; an inode of 0 says nothing.
    pub(super) id: (u64, u64),
}

/// What a name stands for.
#[expect(clippy::large_enum_variant, reason = "made and used on the stack, one at a time")]
#[derive(Debug, Clone)]
pub(super) enum Entry {
    Dir(Arc<Node>),
    Leaf(Leaf),
}

/// Anything that is no directory.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    pub(super) fs: Arc<Fs>,
    pub(super) source: Source,
    /// Its name in `source`.
    pub(super) name: OsString,
    pub(super) stat: Stat,
    pub(super) ino: u64,
    /// Who it was when it was copied up.
    pub(super) origin: Option<Origin>,
    /// Whether only another name of it has been copied up: `source` is not the directory it was found in.
    pub(super) elsewhere: bool,
}

/// What the layers have under a name.
enum Scan {
    Nothing,
    Leaf(Source, Stat),
    Dirs(Vec<Source>),
}

impl Source {
    pub(super) fn open(layer: usize, dir: Arc<Dir>) -> Result<Self> {
        let stat = dir.stat_self()?;
        Ok(Self { layer, dir, id: (stat.dev, stat.ino) })
    }
}

impl Node {
    pub(super) fn new(fs: Arc<Fs>, place: Option<Place>, stack: Vec<Source>) -> Arc<Self> {
        Arc::new(Self {
            fs,
            place: Mutex::new(place),
            stack: Mutex::new(stack),
            children: Mutex::default(),
            mounts: Mutex::default(),
            removed: AtomicBool::new(false),
            adrift: AtomicBool::new(false),
            ino: Mutex::new(None),
        })
    }

    /// Whether it belongs to the layered root.
    pub(super) fn is_layered(&self) -> bool {
        self.fs.layered
    }

    /// Whether nothing may be changed in it.
    pub(in crate::wasm) fn readonly(&self) -> bool {
        self.fs.readonly()
    }

    pub(super) fn place(&self) -> Option<Place> {
        lock(&self.place).clone()
    }

    pub(super) fn is_root(&self) -> bool {
        lock(&self.place).is_none()
    }

    /// The directory above; the root's is the root.
    pub(super) fn parent(self: &Arc<Self>) -> Arc<Self> {
        self.place().map_or_else(|| Arc::clone(self), |place| place.parent)
    }

    /// The path from the root, for messages and cache keys.
    pub(in crate::wasm) fn path(&self) -> String {
        let mut names = Vec::new();
        let mut place = self.place();
        while let Some(Place { parent, name }) = place {
            names.push(name.to_string_lossy().into_owned());
            place = parent.place();
        }
        names.reverse();
        format!("/{}", names.join("/"))
    }

    /// Metadata of the directory itself.
    pub(in crate::wasm) fn metadata(self: &Arc<Self>) -> Result<Metadata> {
        self.refresh()?;
        let top = self.top()?;
        Ok(Metadata { stat: top.dir.stat_self()?, dev: self.fs.dev, ino: self.ino() })
    }

    /// Metadata of the directory above; the root's is its own.
    pub(in crate::wasm) fn above(self: &Arc<Self>) -> Result<Metadata> {
        self.parent().metadata()
    }

    fn top(&self) -> Result<Source> {
        lock(&self.stack).first().cloned().ok_or(Errno::NotFound)
    }

    /// The writable host directory, if there is one already.
    pub(super) fn upper(&self) -> Option<Source> {
        lock(&self.stack).first().filter(|source| source.layer == 0).cloned()
    }

    /// The number of its lowest host directory: copy-up adds on top and so does not change it.
    pub(super) fn ino(&self) -> u64 {
        if let Some(ino) = *lock(&self.ino) {
            return ino;
        }
        let lowest = lock(&self.stack).last().cloned();
        let fallback = || number_of(self.fs.dev, self.path().as_bytes());
        let marked = |source: &Source| {
            if self.fs.layered && source.layer == 0 { index::origin_of_dir(&source.dir) } else { None }
        };
        let ino = match lowest {
            Some(source) => {
                marked(&source).unwrap_or_else(|| self.fs.number(source.layer, source.id, fallback))
            }
            None => fallback(),
        };
        *lock(&self.ino) = Some(ino);
        ino
    }

    /// What `name` stands for; `None` when there is nothing. This directory itself must be fresh.
    pub(super) fn lookup(self: &Arc<Self>, name: &OsStr) -> Result<Option<Entry>> {
        check_name(name)?;
        if self.is_removed() || self.fs.hides(name) {
            return Ok(None);
        }
        if let Some(mounted) = lock(&self.mounts).get(name) {
            let mut mounted = mounted.clone();
            if let Entry::Leaf(leaf) = &mut mounted {
                leaf.stat = leaf.source.dir.stat(&leaf.name)?;
            }
            return Ok(Some(mounted));
        }
        self.lookup_under_mounts(name)
    }

    /// As [`Self::lookup`], but what a mount hides.
    pub(super) fn lookup_under_mounts(self: &Arc<Self>, name: &OsStr) -> Result<Option<Entry>> {
        if self.fs.layered {
            let live = lock(&self.children).get(name).and_then(Weak::upgrade);
            if let Some(live) = live
                && live.is_still(self, name)?
            {
                return Ok(Some(Entry::Dir(live)));
            }
        }
        let stack = lock(&self.stack).clone();
        Ok(match self.scan(&stack, name)? {
            Scan::Nothing => None,
            Scan::Leaf(source, stat) => Some(Entry::Leaf(self.leaf(name, source, stat))),
            Scan::Dirs(stack) => Some(Entry::Dir(self.child(name, stack))),
        })
    }

    /// What is known of a leaf, and of other names it has.
    fn leaf(&self, name: &OsStr, source: Source, stat: Stat) -> Leaf {
        let fallback = || number_of(self.ino(), name.as_encoded_bytes());
        let number = |source: &Source| self.fs.number(source.layer, (stat.dev, stat.ino), fallback);
        let fs = Arc::clone(&self.fs);
        let leaf = |source: Source, stat: Stat, ino: u64, origin: Option<Origin>, name: &OsStr| Leaf {
            fs,
            source,
            name: name.to_owned(),
            stat,
            ino,
            origin,
            elsewhere: false,
        };
        if !self.fs.layered || stat.links < 2 || stat.kind != Kind::File {
            let ino = number(&source);
            return leaf(source, stat, ino, None, name);
        }
        if source.layer == 0 {
            let origin = index::origin_of(&source.dir, name, &stat);
            let ino = origin.as_ref().map_or_else(|| number(&source), |origin| origin.number);
            let hidden = u64::from(origin.is_some());
            return leaf(source, Stat { links: stat.links - hidden, ..stat }, ino, origin, name);
        }
        let ino = number(&source);
        let origin = Origin::new(&self.fs, source.layer, &stat, ino);
        match origin.as_ref().and_then(|origin| self.fs.index.copy_of(origin)) {
            Some((dir, key, copy)) => {
                let source = Source { layer: 0, dir, id: (0, 0) };
                let copy = Stat { links: copy.links.saturating_sub(1).max(stat.links), ..copy };
                Leaf { elsewhere: true, ..leaf(source, copy, ino, origin, OsStr::new(&key)) }
            }
            None => leaf(source, stat, ino, None, name),
        }
    }

    /// Whether a layer below the writable one shows this name.
    pub(super) fn lower_has(&self, name: &OsStr) -> Result<bool> {
        if !self.fs.layered {
            return Ok(false);
        }
        let stack = lock(&self.stack).clone();
        let below = usize::from(stack.first().is_some_and(|source| source.layer == 0));
        Ok(!matches!(self.scan(&stack[below..], name)?, Scan::Nothing))
    }

    /// Whether there is anything below the writable directory at all.
    pub(super) fn has_lower(&self) -> bool {
        lock(&self.stack).last().is_some_and(|source| source.layer != 0)
    }

    fn scan(&self, stack: &[Source], name: &OsStr) -> Result<Scan> {
        let mut dirs = Vec::new();
        for (index, source) in stack.iter().enumerate() {
            let more = self.fs.layered && index + 1 < stack.len();
            let whited_out = || more && source.dir.stat(whiteout_of(name)).is_ok();
            match source.dir.stat(name) {
                Ok(stat) if stat.whiteout && self.fs.layered => break,
                Ok(stat) if stat.kind == Kind::Dir => {
                    let dir = source.dir.open_dir(name)?;
                    let opaque = more && (is_opaque(&dir) || whited_out());
                    let id = (stat.dev, stat.ino);
                    dirs.push(Source { layer: source.layer, dir: Arc::new(dir), id });
                    if opaque {
                        break;
                    }
                }
                Ok(stat) if dirs.is_empty() => return Ok(Scan::Leaf(source.clone(), stat)),
                Ok(_) => break,
                Err(Errno::NotFound) if whited_out() => break,
                Err(Errno::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(if dirs.is_empty() { Scan::Nothing } else { Scan::Dirs(dirs) })
    }

    fn child(self: &Arc<Self>, name: &OsStr, stack: Vec<Source>) -> Arc<Self> {
        let place = Place { parent: Arc::clone(self), name: name.to_owned() };
        let node = Self::new(Arc::clone(&self.fs), Some(place), stack);
        if self.fs.layered {
            self.adopt(name, &node);
        }
        node
    }

    fn adopt(&self, name: &OsStr, node: &Arc<Self>) {
        let mut children = lock(&self.children);
        if children.len() >= 64 && children.len().is_power_of_two() {
            children.retain(|_, child| child.strong_count() > 0);
        }
        children.insert(name.to_owned(), Arc::downgrade(node));
    }

    /// The writable host directory of this one; made now, with its parents, if layers only have it so far.
    pub(super) fn writable(self: &Arc<Self>) -> Result<Arc<Dir>> {
        if self.fs.readonly() {
            return Err(Errno::ReadOnly);
        }
        // From here upwards, what is missing; made from the top down. No recursion: a tree may be very deep.
        let mut missing = vec![Arc::clone(self)];
        loop {
            let node = missing.last().ok_or(Errno::Io)?;
            if node.is_removed() {
                return Err(Errno::NotFound);
            }
            if node.upper().is_some() {
                break;
            }
            let Some(place) = node.place() else { break };
            missing.push(place.parent);
        }
        let mut dir = None;
        while let Some(node) = missing.pop() {
            dir = Some(node.make_writable()?);
        }
        dir.ok_or(Errno::Io)
    }

    /// As [`Self::writable`], when the directory above is.
    fn make_writable(self: &Arc<Self>) -> Result<Arc<Dir>> {
        let top = self.top()?;
        if top.layer == 0 {
            return Ok(top.dir);
        }
        let Some(Place { parent, name }) = self.place() else { return self.make_upper() };
        let above = parent.upper().ok_or(Errno::NotFound)?.dir;
        let like = top.dir.stat_self()?;
        // Others must not see it before it is as it will be.
        let workshop = self.fs.index.workshop()?;
        let (temporary, ()) = mark::draft(&self.fs, |shop, name| shop.mkdir(name, 0o700))?;
        let made = workshop.open_dir(&temporary).and_then(|dir| {
            dir.copy_attributes(&top.dir);
            workshop.imitate(&temporary, None, &like)?;
            // Windows moves no directory that is open.
            let dir = (!cfg!(windows)).then_some(dir);
            workshop.rename_new(&temporary, &above, &name)?;
            dir.map_or_else(|| above.open_dir(&name), Ok)
        });
        let dir = match made {
            Ok(dir) => dir,
            Err(error) => {
                // The first error is the one that counts.
                workshop.rmdir(&temporary).ok();
                if error != Errno::Exists {
                    return Err(error);
                }
                // Somebody else with the same writable directory was faster.
                above.open_dir(&name)?
            }
        };
        let source = Source::open(0, Arc::new(dir))?;
        let dir = Arc::clone(&source.dir);
        lock(&self.stack).insert(0, source);
        Ok(dir)
    }

    /// The root's writable directory, made with the first change.
    pub(super) fn make_upper(&self) -> Result<Arc<Dir>> {
        let upper = self.fs.upper.as_deref().ok_or(Errno::ReadOnly)?;
        fs_err::create_dir_all(upper)?;
        #[cfg(unix)]
        fs_err::set_permissions(upper, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        self.found_upper(Dir::open_ambient(upper)?, true)
    }

    /// The root has got its writable directory.
    pub(super) fn found_upper(&self, dir: Dir, held: bool) -> Result<Arc<Dir>> {
        let source = Source::open(0, Arc::new(dir))?;
        let dir = Arc::clone(&source.dir);
        self.fs.index.found_upper(&dir);
        self.fs.found_upper(&dir, held)?;
        let mut stack = lock(&self.stack);
        if stack.first().is_none_or(|top| top.layer != 0) {
            stack.insert(0, source);
        }
        Ok(dir)
    }

    pub(super) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Relaxed)
    }

    /// The directory is gone; whoever still has it open finds nothing in it.
    pub(super) fn set_removed(self: &Arc<Self>) {
        self.removed.store(true, Ordering::Relaxed);
        if let Some(place) = self.place() {
            place.parent.disown(&place.name, self);
        }
    }

    /// `name` no longer means this node.
    pub(super) fn disown(&self, name: &OsStr, node: &Arc<Self>) {
        let mut children = lock(&self.children);
        if children.get(name).is_some_and(|child| std::ptr::eq(child.as_ptr(), Arc::as_ptr(node))) {
            children.remove(name);
        }
    }

    /// The directory has moved, with everything that layers had in it.
    pub(super) fn moved(self: &Arc<Self>, parent: &Arc<Self>, name: &OsStr) {
        let to = Place { parent: Arc::clone(parent), name: name.to_owned() };
        if let Some(from) = lock(&self.place).replace(to) {
            from.parent.disown(&from.name, self);
        }
        if self.fs.layered {
            parent.adopt(name, self);
            self.leave_layers();
        }
    }

    /// From now on the directory and those below it are in the writable directory alone.
    pub(super) fn leave_layers(self: &Arc<Self>) {
        let mut nodes = vec![Arc::clone(self)];
        while let Some(node) = nodes.pop() {
            // The number is that of the lowest source, which goes. A mark has it where there can be marks.
            if node.has_lower() {
                lock(&node.ino).take();
            }
            lock(&node.stack).retain(|source| source.layer == 0);
            nodes.extend(lock(&node.children).values().filter_map(Weak::upgrade));
        }
    }

    /// Whether `self` is `below` or above it.
    pub(super) fn contains(self: &Arc<Self>, below: &Arc<Self>) -> bool {
        let mut node = Arc::clone(below);
        loop {
            if Arc::ptr_eq(self, &node) {
                return true;
            }
            let Some(place) = node.place() else { return false };
            node = place.parent;
        }
    }

    /// Whether something is mounted on this name.
    pub(super) fn is_mount_point(&self, name: &OsStr) -> bool {
        lock(&self.mounts).contains_key(name)
    }

    pub(super) fn unmount_all(&self) {
        lock(&self.mounts).clear();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // One after the other: letting each drop the next would need a stack as deep as the tree.
        let mut place = lock(&self.place).take();
        while let Some(Place { parent, .. }) = place {
            place = Arc::into_inner(parent).and_then(|parent| lock(&parent.place).take());
        }
    }
}

impl Leaf {
    pub(super) fn metadata(&self) -> Metadata {
        Metadata { stat: self.stat, dev: self.fs.dev, ino: self.ino }
    }

    pub(super) fn readlink(&self) -> Result<OsString> {
        self.source.dir.readlink(&self.name)
    }
}

/// Whether a directory hides what layers below have in it.
pub(super) fn is_opaque(dir: &Dir) -> bool {
    dir.is_opaque() || dir.stat(OPAQUE).is_ok()
}

fn check_name(name: &OsStr) -> Result<()> {
    if name.len() > NAME_MAX {
        return Err(Errno::NameTooLong);
    }
    if name.as_encoded_bytes().contains(&0) {
        return Err(Errno::Invalid);
    }
    Ok(())
}
