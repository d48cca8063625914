//! A directory of the merged tree, and looking up one name in it.
//!
//! While a directory is in use there is one [`Node`] for it, so that everybody sees its copy-up at once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use super::errno::{Errno, Result};
use super::fs::{Fs, OPAQUE, number_of, whiteout_of};
use super::host::{Dir, Kind, Stat};
use super::{Metadata, lock};

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
    children: Mutex<HashMap<String, Weak<Self>>>,
    pub(super) mounts: Mutex<HashMap<String, Entry>>,
    removed: AtomicBool,
    ino: OnceLock<u64>,
}

/// One name in one directory.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) parent: Arc<Node>,
    pub(super) name: String,
}

/// A host directory and the layer it belongs to.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// 0 is writable; 1 is the highest of the layers below.
    pub(super) layer: usize,
    pub(super) dir: Arc<Dir>,
}

/// What a name stands for.
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
    pub(super) name: String,
    pub(super) stat: Stat,
    pub(super) ino: u64,
}

/// What the layers have under a name.
enum Scan {
    Nothing,
    Leaf(Source, Stat),
    Dirs(Vec<Source>),
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
            ino: OnceLock::new(),
        })
    }

    /// Whether it belongs to the layered root, which nobody else changes.
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

    /// The directory above; the root's is the root.
    pub(super) fn parent(self: &Arc<Self>) -> Arc<Self> {
        self.place().map_or_else(|| Arc::clone(self), |place| place.parent)
    }

    /// The path from the root, for messages and cache keys.
    pub(in crate::wasm) fn path(&self) -> String {
        let mut names = Vec::new();
        let mut place = self.place();
        while let Some(Place { parent, name }) = place {
            names.push(name);
            place = parent.place();
        }
        names.reverse();
        format!("/{}", names.join("/"))
    }

    /// Metadata of the directory itself.
    pub(in crate::wasm) fn metadata(&self) -> Result<Metadata> {
        let top = lock(&self.stack).first().map(|source| Arc::clone(&source.dir)).ok_or(Errno::NotFound)?;
        Ok(Metadata { stat: top.stat_self()?, dev: self.fs.dev, ino: self.ino() })
    }

    /// Metadata of the directory above; the root's is its own.
    pub(in crate::wasm) fn above(self: &Arc<Self>) -> Result<Metadata> {
        self.parent().metadata()
    }

    /// The number of its lowest host directory: copy-up adds on top and so does not change it.
    pub(super) fn ino(&self) -> u64 {
        *self.ino.get_or_init(|| {
            let lowest = lock(&self.stack).last().map(|source| Arc::clone(&source.dir));
            let fallback = || match self.place() {
                Some(place) => number_of(place.parent.ino(), &place.name),
                None => 1,
            };
            match lowest.map(|dir| dir.stat_self()) {
                Some(Ok(stat)) => self.fs.ino(stat.dev, stat.ino, fallback),
                _ => fallback(),
            }
        })
    }

    /// What `name` stands for; `None` when there is nothing.
    pub(super) fn lookup(self: &Arc<Self>, name: &str) -> Result<Option<Entry>> {
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
        if self.fs.layered
            && let Some(live) = lock(&self.children).get(name).and_then(Weak::upgrade)
        {
            return Ok(Some(Entry::Dir(live)));
        }
        let scan = self.scan(&lock(&self.stack), name)?;
        Ok(match scan {
            Scan::Nothing => None,
            Scan::Leaf(source, stat) => {
                let ino = self.fs.ino(stat.dev, stat.ino, || number_of(self.ino(), name));
                Some(Entry::Leaf(Leaf { fs: Arc::clone(&self.fs), source, name: name.to_owned(), stat, ino }))
            }
            Scan::Dirs(stack) => Some(Entry::Dir(self.child(name, stack))),
        })
    }

    /// Whether a layer below the writable one shows this name.
    pub(super) fn lower_has(&self, name: &str) -> Result<bool> {
        if !self.fs.layered {
            return Ok(false);
        }
        let stack = lock(&self.stack);
        let below = usize::from(stack.first().is_some_and(|source| source.layer == 0));
        Ok(!matches!(self.scan(&stack[below..], name)?, Scan::Nothing))
    }

    /// Whether there is anything below the writable directory at all.
    pub(super) fn has_lower(&self) -> bool {
        lock(&self.stack).last().is_some_and(|source| source.layer != 0)
    }

    fn scan(&self, stack: &[Source], name: &str) -> Result<Scan> {
        let mut dirs = Vec::new();
        for (index, source) in stack.iter().enumerate() {
            let more = self.fs.layered && index + 1 < stack.len();
            let whited_out = || more && source.dir.stat(&whiteout_of(name)).is_ok();
            match source.dir.stat(name) {
                Ok(stat) if stat.whiteout && self.fs.layered => break,
                Ok(stat) if stat.kind == Kind::Dir => {
                    let dir = source.dir.open_dir(name)?;
                    let opaque = more && (dir.is_opaque() || dir.stat(OPAQUE).is_ok() || whited_out());
                    dirs.push(Source { layer: source.layer, dir: Arc::new(dir) });
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

    fn child(self: &Arc<Self>, name: &str, stack: Vec<Source>) -> Arc<Self> {
        let place = Place { parent: Arc::clone(self), name: name.to_owned() };
        let node = Self::new(Arc::clone(&self.fs), Some(place), stack);
        if self.fs.layered {
            self.adopt(name, &node);
        }
        node
    }

    fn adopt(&self, name: &str, node: &Arc<Self>) {
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
        if self.is_removed() {
            return Err(Errno::NotFound);
        }
        let top = lock(&self.stack).first().cloned().ok_or(Errno::NotFound)?;
        if top.layer == 0 {
            return Ok(top.dir);
        }
        let Some(Place { parent, name }) = self.place() else { return self.make_upper() };
        let above = parent.writable()?;
        let like = top.dir.stat_self()?;
        match above.mkdir(&name, 0o700) {
            Ok(()) => above.imitate(&name, None, &like)?,
            // Somebody else with the same writable directory was faster.
            Err(Errno::Exists) => {}
            Err(error) => return Err(error),
        }
        let dir = Arc::new(above.open_dir(&name)?);
        lock(&self.stack).insert(0, Source { layer: 0, dir: Arc::clone(&dir) });
        Ok(dir)
    }

    /// The root's writable directory, made with the first change.
    fn make_upper(&self) -> Result<Arc<Dir>> {
        let upper = self.fs.upper.as_deref().ok_or(Errno::ReadOnly)?;
        fs_err::create_dir_all(upper)?;
        #[cfg(unix)]
        fs_err::set_permissions(upper, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let dir = Arc::new(Dir::open_ambient(upper)?);
        lock(&self.stack).insert(0, Source { layer: 0, dir: Arc::clone(&dir) });
        Ok(dir)
    }

    pub(super) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Relaxed)
    }

    /// The directory is gone; whoever still has it open finds nothing in it.
    pub(super) fn set_removed(&self) {
        self.removed.store(true, Ordering::Relaxed);
        if let Some(place) = self.place() {
            lock(&place.parent.children).remove(&place.name);
        }
    }

    /// The directory has moved.
    pub(super) fn moved(self: &Arc<Self>, parent: &Arc<Self>, name: &str) {
        let to = Place { parent: Arc::clone(parent), name: name.to_owned() };
        if let Some(from) = lock(&self.place).replace(to) {
            lock(&from.parent.children).remove(&from.name);
        }
        if self.fs.layered {
            parent.adopt(name, self);
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
    pub(super) fn is_mount_point(&self, name: &str) -> bool {
        lock(&self.mounts).contains_key(name)
    }

    pub(super) fn unmount_all(&self) {
        lock(&self.mounts).clear();
    }
}

impl Leaf {
    pub(super) fn metadata(&self) -> Metadata {
        Metadata { stat: self.stat, dev: self.fs.dev, ino: self.ino }
    }

    pub(super) fn readlink(&self) -> Result<String> {
        self.source.dir.readlink(&self.name)
    }
}

fn check_name(name: &str) -> Result<()> {
    if name.len() > NAME_MAX {
        return Err(Errno::NameTooLong);
    }
    if name.contains('\0') {
        return Err(Errno::Invalid);
    }
    Ok(())
}
