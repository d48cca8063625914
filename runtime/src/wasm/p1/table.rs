//! File descriptors. The lowest free number is taken, as POSIX promises.

use std::sync::Arc;

use super::super::union::{Listing, Node, OpenFile};
use super::abi::{RIGHTS_DIR, RIGHTS_FILE, RIGHTS_INPUT, RIGHTS_OUTPUT};
use super::errno::Code;
use super::sock::Socket;

/// What a descriptor stands for.
#[derive(Debug)]
pub(super) enum Fd {
    Input,
    Output,
    Error,
    File(FileFd),
    Dir(DirFd),
    Socket(Socket),
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
    pub(super) preopen: Option<Box<str>>,
    /// The listing that is being read, as it was when reading began.
    pub(super) listing: Option<Listing>,
    pub(super) rights: (u64, u64),
}

impl Fd {
    pub(super) fn preopen(node: &Arc<Node>, name: &str) -> Self {
        Self::Dir(DirFd { preopen: Some(name.into()), ..DirFd::new(Arc::clone(node)) })
    }

    /// What it says it can do, and what can be opened through it.
    pub(super) fn rights(&self) -> (u64, u64) {
        match self {
            Self::Input => (RIGHTS_INPUT, 0),
            Self::Output | Self::Error => (RIGHTS_OUTPUT, 0),
            Self::File(file) => file.rights,
            Self::Dir(dir) => dir.rights,
            Self::Socket(socket) => (socket.rights(), 0),
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
    /// How many there may be.
    limit: usize,
}

impl Table {
    pub(super) fn new(limit: usize) -> Self {
        Self { slots: Vec::new(), hint: 0, limit }
    }

    pub(super) fn look(&self, fd: u32) -> Result<&Fd, Code> {
        self.slots.get(fd as usize).and_then(Option::as_ref).ok_or(Code::BADF)
    }

    pub(super) fn get(&mut self, fd: u32) -> Result<&mut Fd, Code> {
        self.slots.get_mut(fd as usize).and_then(Option::as_mut).ok_or(Code::BADF)
    }

    pub(super) fn file(&mut self, fd: u32) -> Result<&mut FileFd, Code> {
        match self.get(fd)? {
            Fd::File(file) => Ok(file),
            // As wasmtime has it; POSIX says EISDIR to some calls.
            Fd::Dir(_) => Err(Code::BADF),
            Fd::Input | Fd::Output | Fd::Error | Fd::Socket(_) => Err(Code::SPIPE),
        }
    }

    pub(super) fn dir(&mut self, fd: u32) -> Result<&mut DirFd, Code> {
        match self.get(fd)? {
            Fd::Dir(dir) => Ok(dir),
            _ => Err(Code::NOTDIR),
        }
    }

    /// The directory behind `fd`, from which `path` is to be followed.
    ///
    /// A descriptor grants what is below it, so a path must not climb out of it. The preopened ones are all of one
    /// tree: there `..` leads where it leads any program, up to the container's root.
    pub(super) fn base(&mut self, fd: u32, path: &str) -> Result<Arc<Node>, Code> {
        let dir = self.dir(fd)?;
        if dir.preopen.is_none() && climbs(path) {
            return Err(Code::PERM);
        }
        Ok(Arc::clone(&dir.node))
    }

    pub(super) fn insert(&mut self, fd: Fd) -> Result<u32, Code> {
        let free = (self.hint..self.slots.len()).find(|index| self.slots[*index].is_none());
        let index = free.unwrap_or(self.slots.len());
        if index >= self.limit {
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

/// Whether a path leads above where it starts, links aside.
fn climbs(path: &str) -> bool {
    let mut depth = 0i32;
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_climb() {
        for path in ["..", "../x", "a/../..", "./../a", "a//../../b", "a/b/../../../a"] {
            assert!(climbs(path), "{path}");
        }
        for path in ["", ".", "a/..", "a/b/../..", "...", "..a/x", "a/.//b/../../c", "/"] {
            assert!(!climbs(path), "{path}");
        }
    }

    #[test]
    fn lowest_number_first_and_a_limit() {
        let mut table = Table::new(1024);
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
