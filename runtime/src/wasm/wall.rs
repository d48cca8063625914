//! The second wall: what is left to a guest that has broken out of wasmtime's sandbox (Linux; nothing elsewhere).
//!
//! The first wall is the code wasmtime compiles. If that has a hole, what comes through it is code in this process, with
//! this process's rights. So a process that exists for one guest gives up, just before the guest's first instruction,
//! everything its host functions do not need:
//!
//! * privileges: no new ones by any program, and none of the capabilities but those that concern files;
//! * system calls: files by name, the descriptors it has, memory, time and its own threads remain, sockets only for a guest
//!   with a network. Starting programs and processes, mounts, namespaces, other processes' memory, keys, tracing, the
//!   kernel's own settings end the process with `SIGSYS`. The rest fails with `EPERM`;
//! * code: no memory can be made executable any more. The guest's code is in place by then.
//!
//! It is for processes that are sandboxes and nothing else: a program that embeds this crate must not ask for it.

#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod linux;

use crate::error::Result;

/// What a sandbox process keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wall {
    /// The filter of system calls (`--security-opt seccomp=unconfined` takes it away).
    pub filter: bool,
    /// It may make sockets. Filled in for a guest that has a network.
    pub network: bool,
}

impl Default for Wall {
    fn default() -> Self {
        Self { filter: true, network: false }
    }
}

impl Wall {
    /// Raises it around the calling thread and all threads that it will start, for good. Must be called while the process
    /// has one thread.
    ///
    /// # Errors
    /// Never where a kernel only lacks something; when it refuses what it has.
    pub(super) fn raise(&self) -> Result<()> {
        #[cfg(target_os = "linux")]
        linux::raise(self)?;
        Ok(())
    }
}
