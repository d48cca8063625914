//! The part of the wall that stands around files (Linux): Landlock, which any process may put itself behind. What is open
//! already stays open; what is opened, made, removed or moved from now on must be beneath a place that is named here.
//!
//! Best effort: what the kernel's version does not know is left out. Below its second version (Linux 5.19) nothing is
//! done, since that could not allow a file to be moved from one directory to another.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, Result};

use super::Rights;
use crate::native::sys::{self, Handled};

// `LANDLOCK_ACCESS_FS_*` of linux/landlock.h.
const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const REMOVE_DIR: u64 = 1 << 4;
const REMOVE_FILE: u64 = 1 << 5;
/// The kernel overlay's mark of a removed name is such a node; the filter lets no other one be made.
const MAKE_CHAR: u64 = 1 << 6;
const MAKE_DIR: u64 = 1 << 7;
const MAKE_REG: u64 = 1 << 8;
const MAKE_SOCK: u64 = 1 << 9;
const MAKE_FIFO: u64 = 1 << 10;
const MAKE_BLOCK: u64 = 1 << 11;
const MAKE_SYM: u64 = 1 << 12;
/// Version 2: moves and links between directories.
const REFER: u64 = 1 << 13;
/// Version 3.
const TRUNCATE: u64 = 1 << 14;
/// Version 5.
const IOCTL_DEV: u64 = 1 << 15;

const FIRST: u64 = EXECUTE
    | WRITE_FILE
    | READ_FILE
    | READ_DIR
    | REMOVE_DIR
    | REMOVE_FILE
    | MAKE_CHAR
    | MAKE_DIR
    | MAKE_REG
    | MAKE_SOCK
    | MAKE_FIFO
    | MAKE_BLOCK
    | MAKE_SYM;

/// Version 4: binding and connecting TCP sockets.
const TCP: u64 = 1 | 1 << 1;
/// Version 6: abstract sockets, and signals, of processes that are not behind this wall.
const SCOPES: u64 = 1 | 1 << 1;

const READ: u64 = READ_FILE | READ_DIR;
const WRITE: u64 = READ
    | WRITE_FILE
    | TRUNCATE
    | REMOVE_DIR
    | REMOVE_FILE
    | MAKE_CHAR
    | MAKE_DIR
    | MAKE_REG
    | MAKE_SYM
    | REFER;
/// What can be allowed to a single file.
const OF_FILES: u64 = READ_FILE | WRITE_FILE | TRUNCATE;

/// A ruleset in the making. Without one this kernel has no Landlock, or an old one.
#[derive(Debug)]
pub(super) struct Rules {
    set: OwnedFd,
    handled: Handled,
}

impl Rules {
    pub(super) fn new(network: bool) -> Result<Option<Self>> {
        let newest = known(7, network);
        let made = match sys::landlock_ruleset(&newest) {
            Err(Errno::NOSYS | Errno::OPNOTSUPP) => return Ok(None),
            // Older: it says how old.
            Err(Errno::INVAL | Errno::TOOBIG) => {
                let handled = known(sys::landlock_version()?, network);
                if handled.files & REFER == 0 {
                    return Ok(None);
                }
                (sys::landlock_ruleset(&handled)?, handled)
            }
            made => (made?, newest),
        };
        let (set, handled) = made;
        Ok(Some(Self { set, handled }))
    }

    /// Allows this beneath a directory.
    pub(super) fn beneath(&self, directory: BorrowedFd<'_>, rights: Rights) -> Result<()> {
        sys::landlock_allow(self.set.as_fd(), directory, bits(rights) & self.handled.files)
    }

    /// Allows this of a file.
    pub(super) fn file(&self, file: BorrowedFd<'_>, rights: Rights) -> Result<()> {
        sys::landlock_allow(self.set.as_fd(), file, bits(rights) & OF_FILES & self.handled.files)
    }

    /// For good.
    pub(super) fn enter(self) -> Result<()> {
        let entered = sys::landlock_enter(self.set.as_fd());
        // It can only be used for what was just done; closed with the process.
        std::mem::forget(self.set);
        match entered {
            // Sixteen are behind each other already: whoever started this has seen to it.
            Err(Errno::TOOBIG) => Ok(()),
            done => done,
        }
    }
}

fn bits(rights: Rights) -> u64 {
    match rights {
        Rights::Read => READ,
        Rights::Write => WRITE,
        Rights::Clear => READ | REMOVE_DIR | REMOVE_FILE,
        Rights::Remove => REMOVE_FILE,
        Rights::RemoveEmpty => REMOVE_DIR,
    }
}

/// What a version of Landlock knows of what is to be refused.
fn known(version: u32, network: bool) -> Handled {
    let since = |first: u32, bits: u64| if version >= first { bits } else { 0 };
    Handled {
        files: FIRST | since(2, REFER) | since(3, TRUNCATE) | since(5, IOCTL_DEV),
        net: if network { 0 } else { since(4, TCP) },
        scoped: since(6, SCOPES),
    }
}

/// A place of the host by its path, links followed; `None` where there is nothing.
pub(super) fn place(path: &std::path::Path) -> Result<Option<OwnedFd>> {
    use rustix::fs::{Mode, OFlags, open};
    match open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => Ok(None),
        opened => opened.map(Some),
    }
}
