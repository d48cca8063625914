//! The second wall: what is left to a guest that has broken out of wasmtime's sandbox (Linux; nothing elsewhere).
//!
//! The first wall is the code wasmtime compiles. If that has a hole, what comes through it is code in this process, with
//! this process's rights. So a process that exists for one guest gives up, just before the guest's first instruction,
//! everything its host functions do not need:
//!
//! * privileges: no new ones by any program, and none of the capabilities but those that concern files;
//! * files: only the layers, the writable directory, what is mounted into the container, and the few places that the
//!   process itself has business with afterwards can still be reached by path, each with no more rights than that needs;
//! * names: as root it has its own host name, message queues and view of control groups. It has the host's mounts, which
//!   it may neither change nor reach: a copy of them would keep what the host unmounts;
//! * system calls: files by name, the descriptors it has, memory, time and its own threads remain, sockets only for a guest
//!   with a network. Starting programs and processes, mounts, namespaces, other processes' memory, keys, tracing, the
//!   kernel's own settings end the process with `SIGSYS`. The rest fails with `EPERM`;
//! * code: no memory can be made executable any more. The guest's code is in place by then.
//!
//! It is for processes that are sandboxes and nothing else: a program that embeds this crate must not ask for it.

#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod landlock;
#[cfg(target_os = "linux")]
mod linux;

use std::path::PathBuf;

use super::union::Union;
use crate::error::Result;

/// What a sandbox process keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wall {
    /// The filter of system calls (`--security-opt seccomp=unconfined` takes it away).
    pub filter: bool,
    /// It may make sockets. Filled in for a guest that has a network.
    pub network: bool,
    /// Places that stay open besides those that the guest reaches: for what this process does afterwards.
    pub keep: Vec<Keep>,
}

/// A place that stays open. One that is not there is passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// A file, or a directory with everything beneath.
    pub path: PathBuf,
    /// What may be done there.
    pub rights: Rights,
}

/// What may be done with a place and what is beneath.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// Reading and listing.
    Read,
    /// Reading and every change.
    Write,
    /// Reading and removing.
    Clear,
    /// Removing files.
    Remove,
    /// Removing directories that are empty.
    RemoveEmpty,
}

impl Default for Wall {
    fn default() -> Self {
        Self { filter: true, network: false, keep: Vec::new() }
    }
}

impl Wall {
    /// Raises it around the calling thread and all threads that it will start, for good. Must be called while the process
    /// has one thread. What `union` stands on stays open, and so do the devices of random numbers with `devices`.
    ///
    /// # Errors
    /// Never where a kernel only lacks something; when it refuses what it has.
    pub(super) fn raise(&self, union: &Union, devices: bool) -> Result<()> {
        #[cfg(target_os = "linux")]
        linux::raise(self, union, devices)?;
        #[cfg(not(target_os = "linux"))]
        let _ = (union, devices);
        Ok(())
    }
}
