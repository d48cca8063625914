//! A file system in memory with the meaning that the union ought to have: no layers, no marks, no host. What the fuzz
//! target compares it with.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::side::Side;
use super::{Errno, Kind, Open};

/// Symbolic links in one resolution.
const LINKS_MAX: usize = 40;
/// The root's number.
const ROOT: usize = 0;

/// The objects by number; removed ones stay.
#[derive(Debug)]
pub(crate) struct Model(RefCell<Vec<Object>>);

#[derive(Debug)]
enum Object {
    Dir { entries: BTreeMap<String, usize>, parent: usize },
    File(Vec<u8>),
    Link(String),
}

/// Where a path leads.
struct Found {
    parent: usize,
    /// Empty when `parent` itself is meant.
    name: String,
    object: Option<usize>,
    dir_only: bool,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self(RefCell::new(vec![Object::Dir { entries: BTreeMap::new(), parent: ROOT }]))
    }

    fn is_dir(&self, object: usize) -> bool {
        matches!(self.0.borrow().get(object), Some(Object::Dir { .. }))
    }

    fn entry(&self, dir: usize, name: &str) -> Option<usize> {
        match self.0.borrow().get(dir) {
            Some(Object::Dir { entries, .. }) => entries.get(name).copied(),
            _ => None,
        }
    }

    fn set(&self, dir: usize, name: &str, object: Option<usize>) {
        if let Some(Object::Dir { entries, .. }) = self.0.borrow_mut().get_mut(dir) {
            match object {
                Some(object) => drop(entries.insert(name.to_owned(), object)),
                None => drop(entries.remove(name)),
            }
        }
        if let Some(object) = object
            && let Some(Object::Dir { parent, .. }) = self.0.borrow_mut().get_mut(object)
        {
            *parent = dir;
        }
    }

    fn add(&self, dir: usize, name: &str, object: Object) {
        let number = {
            let mut objects = self.0.borrow_mut();
            objects.push(object);
            objects.len() - 1
        };
        self.set(dir, name, Some(number));
    }

    fn above(&self, dir: usize) -> usize {
        match self.0.borrow().get(dir) {
            Some(Object::Dir { parent, .. }) => *parent,
            _ => ROOT,
        }
    }

    fn is_empty(&self, dir: usize) -> bool {
        matches!(self.0.borrow().get(dir), Some(Object::Dir { entries, .. }) if entries.is_empty())
    }

    /// Whether `dir` is `below` or above it.
    fn contains(&self, dir: usize, mut below: usize) -> bool {
        while below != dir && below != ROOT {
            below = self.above(below);
        }
        below == dir
    }

    fn target(&self, object: usize) -> Option<String> {
        match self.0.borrow().get(object) {
            Some(Object::Link(target)) => Some(target.clone()),
            _ => None,
        }
    }

    fn find(&self, path: &str, follow: bool) -> Result<Found, Errno> {
        let steps = |path: &str| -> Vec<String> {
            path.rsplit('/').filter(|name| !name.is_empty()).map(str::to_owned).collect()
        };
        let asks = |path: &str| matches!(path.rsplit('/').next(), Some("" | "." | ".."));
        let (mut dir, mut pending, mut dir_only, mut links) = (ROOT, steps(path), asks(path), 0);
        while let Some(name) = pending.pop() {
            let last = pending.is_empty();
            match name.as_str() {
                "." => continue,
                ".." => {
                    dir = self.above(dir);
                    continue;
                }
                _ => {}
            }
            let object = self.entry(dir, &name);
            if let Some(target) = object.and_then(|object| self.target(object))
                && (!last || follow || dir_only)
            {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Errno::Loop);
                }
                dir_only |= last && asks(&target);
                pending.extend(steps(&target));
                continue;
            }
            match object {
                _ if last => return Ok(Found { parent: dir, name, object, dir_only }),
                Some(object) if self.is_dir(object) => dir = object,
                Some(_) => return Err(Errno::NotDir),
                None => return Err(Errno::NotFound),
            }
        }
        Ok(Found { parent: dir, name: String::new(), object: Some(dir), dir_only: true })
    }

    fn vacant(&self, path: &str) -> Result<Found, Errno> {
        let found = self.find(path, false)?;
        if found.object.is_some() { Err(Errno::Exists) } else { Ok(found) }
    }

    /// A regular file that is there.
    fn file(&self, path: &str) -> Result<usize, Errno> {
        let found = self.find(path, true)?;
        let object = found.object.ok_or(Errno::NotFound)?;
        if self.is_dir(object) {
            return Err(Errno::IsDir);
        }
        if found.dir_only { Err(Errno::NotDir) } else { Ok(object) }
    }

    fn change(&self, object: usize, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(Object::File(content)) = self.0.borrow_mut().get_mut(object) {
            change(content);
        }
    }
}

impl Side for Model {
    fn read(&self, path: &str) -> Result<String, Errno> {
        match self.file(path) {
            Err(Errno::IsDir) => Ok("a directory".to_owned()),
            Err(error) => Err(error),
            Ok(object) => match self.0.borrow().get(object) {
                Some(Object::File(content)) => Ok(String::from_utf8_lossy(content).into_owned()),
                _ => Err(Errno::Io),
            },
        }
    }

    fn write(&self, path: &str, text: &str, how: Open) -> Result<(), Errno> {
        let exclusive = how.create && how.exclusive;
        let found = self.find(path, !exclusive)?;
        let object = match found.object {
            Some(_) if exclusive => return Err(Errno::Exists),
            Some(object) if self.is_dir(object) => return Err(Errno::IsDir),
            Some(_) if found.dir_only => return Err(Errno::NotDir),
            Some(object) => object,
            None if !how.create => return Err(Errno::NotFound),
            None if found.dir_only => return Err(Errno::IsDir),
            None => {
                self.add(found.parent, &found.name, Object::File(Vec::new()));
                self.entry(found.parent, &found.name).ok_or(Errno::Io)?
            }
        };
        self.change(object, |content| {
            if how.truncate {
                content.clear();
            }
            if how.append {
                content.extend_from_slice(text.as_bytes());
            } else {
                let tail = content.split_off(text.len().min(content.len()));
                *content = [text.as_bytes(), &tail].concat();
            }
        });
        Ok(())
    }

    fn unlink(&self, path: &str) -> Result<(), Errno> {
        let found = self.find(path, false)?;
        let object = found.object.ok_or(Errno::NotFound)?;
        if self.is_dir(object) {
            return Err(Errno::IsDir);
        }
        if found.dir_only {
            return Err(Errno::NotDir);
        }
        self.set(found.parent, &found.name, None);
        Ok(())
    }

    fn mkdir(&self, path: &str) -> Result<(), Errno> {
        let found = self.vacant(path)?;
        self.add(found.parent, &found.name, Object::Dir { entries: BTreeMap::new(), parent: found.parent });
        Ok(())
    }

    fn rmdir(&self, path: &str) -> Result<(), Errno> {
        let found = self.find(path, false)?;
        let object = found.object.ok_or(Errno::NotFound)?;
        if !self.is_dir(object) {
            return Err(Errno::NotDir);
        }
        if found.name.is_empty() {
            return Err(Errno::Invalid);
        }
        if !self.is_empty(object) {
            return Err(Errno::NotEmpty);
        }
        self.set(found.parent, &found.name, None);
        Ok(())
    }

    fn rename(&self, old: &str, new: &str) -> Result<(), Errno> {
        let (from, to) = (self.find(old, false)?, self.find(new, false)?);
        if from.name.is_empty() || to.name.is_empty() {
            return Err(Errno::Busy);
        }
        let object = from.object.ok_or(Errno::NotFound)?;
        if (from.parent, &from.name) == (to.parent, &to.name) {
            return Ok(());
        }
        let dir = self.is_dir(object);
        if dir && self.contains(object, to.parent) {
            return Err(Errno::Invalid);
        }
        match to.object {
            Some(over) if self.is_dir(over) && self.contains(over, from.parent) => {
                return Err(Errno::NotEmpty);
            }
            _ if !dir && (from.dir_only || to.dir_only) => return Err(Errno::NotDir),
            Some(over) if !dir && self.is_dir(over) => return Err(Errno::IsDir),
            Some(over) if dir && !self.is_dir(over) => return Err(Errno::NotDir),
            Some(over) if dir && !self.is_empty(over) => return Err(Errno::NotEmpty),
            // Two names of one file: both stay.
            Some(over) if over == object => return Ok(()),
            _ => {}
        }
        self.set(from.parent, &from.name, None);
        self.set(to.parent, &to.name, Some(object));
        Ok(())
    }

    fn link(&self, old: &str, new: &str) -> Result<(), Errno> {
        let from = self.find(old, false)?;
        let object = from.object.ok_or(Errno::NotFound)?;
        let to = self.vacant(new)?;
        if !self.is_dir(object) && from.dir_only {
            return Err(Errno::NotDir);
        }
        if to.dir_only {
            return Err(Errno::NotFound);
        }
        if self.is_dir(object) {
            return Err(Errno::NotPermitted);
        }
        self.set(to.parent, &to.name, Some(object));
        Ok(())
    }

    fn symlink(&self, target: &str, path: &str) -> Result<(), Errno> {
        let found = self.vacant(path)?;
        if found.dir_only {
            return Err(Errno::NotFound);
        }
        self.add(found.parent, &found.name, Object::Link(target.to_owned()));
        Ok(())
    }

    fn readlink(&self, path: &str) -> Result<String, Errno> {
        let object = self.find(path, false)?.object.ok_or(Errno::NotFound)?;
        self.target(object).ok_or(Errno::Invalid)
    }

    fn cut(&self, path: &str, size: u64) -> Result<(), Errno> {
        let object = self.file(path)?;
        self.change(object, |content| content.resize(usize::try_from(size).unwrap_or(0), 0));
        Ok(())
    }

    fn kind(&self, path: &str, follow: bool) -> Result<(Kind, u64, u64), Errno> {
        let found = self.find(path, follow)?;
        let object = found.object.ok_or(Errno::NotFound)?;
        if !self.is_dir(object) && found.dir_only {
            return Err(Errno::NotDir);
        }
        let objects = self.0.borrow();
        let names = |object| {
            let named = objects.iter().map(|dir| match dir {
                Object::Dir { entries, .. } => entries.values().filter(|entry| **entry == object).count(),
                _ => 0,
            });
            named.sum::<usize>() as u64
        };
        match objects.get(object) {
            Some(Object::Dir { .. }) => Ok((Kind::Dir, 0, 0)),
            Some(Object::File(content)) => Ok((Kind::File, content.len() as u64, names(object))),
            Some(Object::Link(target)) => Ok((Kind::Symlink, target.len() as u64, names(object))),
            None => Err(Errno::Io),
        }
    }

    fn list(&self, path: &str) -> Result<Vec<String>, Errno> {
        let object = self.find(path, true)?.object.ok_or(Errno::NotFound)?;
        match self.0.borrow().get(object) {
            Some(Object::Dir { entries, .. }) => Ok(entries.keys().cloned().collect()),
            _ => Err(Errno::NotDir),
        }
    }
}
