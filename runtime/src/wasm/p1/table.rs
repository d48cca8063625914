//! File descriptors. The lowest free number is taken, as POSIX promises.

use std::sync::Arc;

use super::super::union::{Listing, Node, OpenFile};
use super::abi::{RIGHTS_DIR, RIGHTS_FILE, RIGHTS_INPUT, RIGHTS_OUTPUT};
use super::errno::Code;

/// Open descriptors a guest may have.
const MAX: usize = 1024;

/// What a descriptor stands for.
#[derive(Debug)]
pub(super) enum Fd {
    Input,
    Output,
    Error,
    File(FileFd),
    Dir(DirFd),
}

/// An open regular file. Its position is the host's.
#[derive(Debug)]
pub(super) struct FileFd {
    pub(super) open: OpenFile,
    pub(super) write: bool,
    pub(super) flags: u16,
    pub(super) rights: (u64, u64),
}

/// An open directory.
#[derive(Debug)]
pub(super) struct DirFd {
    pub(super) node: Arc<Node>,
    /// Its name, if it is one of those a guest starts with.
    pub(super) preopen: Option<String>,
    /// The listing that is being read, as it was when reading began.
    pub(super) listing: Option<Listing>,
    pub(super) rights: (u64, u64),
}

impl Fd {
    pub(super) fn preopen(node: &Arc<Node>, name: &str) -> Self {
        Self::Dir(DirFd { preopen: Some(name.to_owned()), ..DirFd::new(Arc::clone(node)) })
    }

    /// What it says it can do, and what can be opened through it.
    pub(super) fn rights(&self) -> (u64, u64) {
        match self {
            Self::Input => (RIGHTS_INPUT, 0),
            Self::Output | Self::Error => (RIGHTS_OUTPUT, 0),
            Self::File(file) => file.rights,
            Self::Dir(dir) => dir.rights,
        }
    }
}

impl DirFd {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self { node, preopen: None, listing: None, rights: (RIGHTS_DIR, RIGHTS_DIR | RIGHTS_FILE) }
    }
}

/// All descriptors of a guest.
#[derive(Debug)]
pub(super) struct Table {
    slots: Vec<Option<Fd>>,
    /// No slot below this one is free.
    hint: usize,
}

impl Table {
    pub(super) fn new() -> Self {
        Self { slots: Vec::new(), hint: 0 }
    }

    pub(super) fn get(&mut self, fd: u32) -> Result<&mut Fd, Code> {
        self.slots.get_mut(fd as usize).and_then(Option::as_mut).ok_or(Code::BADF)
    }

    pub(super) fn file(&mut self, fd: u32) -> Result<&mut FileFd, Code> {
        match self.get(fd)? {
            Fd::File(file) => Ok(file),
            Fd::Dir(_) => Err(Code::ISDIR),
            Fd::Input | Fd::Output | Fd::Error => Err(Code::SPIPE),
        }
    }

    pub(super) fn dir(&mut self, fd: u32) -> Result<&mut DirFd, Code> {
        match self.get(fd)? {
            Fd::Dir(dir) => Ok(dir),
            _ => Err(Code::NOTDIR),
        }
    }

    /// The directory behind `fd`.
    pub(super) fn node(&mut self, fd: u32) -> Result<Arc<Node>, Code> {
        self.dir(fd).map(|dir| Arc::clone(&dir.node))
    }

    pub(super) fn insert(&mut self, fd: Fd) -> Result<u32, Code> {
        let free = (self.hint..self.slots.len()).find(|index| self.slots[*index].is_none());
        let index = free.unwrap_or(self.slots.len());
        if index >= MAX {
            return Err(Code::MFILE);
        }
        if index == self.slots.len() {
            self.slots.push(Some(fd));
        } else {
            self.slots[index] = Some(fd);
        }
        self.hint = index + 1;
        u32::try_from(index).map_err(|_| Code::MFILE)
    }

    pub(super) fn remove(&mut self, fd: u32) -> Result<Fd, Code> {
        let index = fd as usize;
        let removed = self.slots.get_mut(index).and_then(Option::take).ok_or(Code::BADF)?;
        self.hint = self.hint.min(index);
        Ok(removed)
    }

    /// Moves `from` over `to`; both must be open.
    pub(super) fn renumber(&mut self, from: u32, to: u32) -> Result<(), Code> {
        self.get(to)?;
        let moved = self.remove(from)?;
        self.slots[to as usize] = Some(moved);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_number_first_and_a_limit() {
        let mut table = Table::new();
        for expected in 0..1024 {
            assert_eq!(table.insert(Fd::Input), Ok(expected));
        }
        assert_eq!(table.insert(Fd::Input), Err(Code::MFILE));
        assert!(table.remove(7).is_ok() && table.remove(3).is_ok());
        assert_eq!(table.remove(3).err(), Some(Code::BADF));
        assert_eq!(table.insert(Fd::Input), Ok(3));
        assert_eq!(table.insert(Fd::Input), Ok(7));
        assert_eq!(table.renumber(7, 7), Ok(()));
        assert!(table.get(7).is_ok());
        assert_eq!(table.renumber(7, 3), Ok(()));
        assert_eq!(table.get(7).err(), Some(Code::BADF));
        assert_eq!(table.renumber(7, 3), Err(Code::BADF));
        assert_eq!(table.renumber(3, 7), Err(Code::BADF));
        assert_eq!(table.get(u32::MAX).err(), Some(Code::BADF));
    }
}
