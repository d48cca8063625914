//! Being told when the kernel kills a process of a group because there is no memory left.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use fs_err as fs;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{Mode, OFlags};

use super::files;
use super::oci::{OciGroup, write};
use crate::error::{Error, Result};

/// A watch on a group's memory.
#[derive(Debug)]
pub struct OutOfMemory {
    /// What the kernel signals.
    signal: OwnedFd,
    /// Version 2 signals by the file itself; version 1 with a descriptor of its own, while this one is open.
    control: Option<OwnedFd>,
    counter: PathBuf,
}

impl OciGroup {
    /// Watches the group.
    ///
    /// # Errors
    /// When it has no control of memory.
    pub fn watch_memory(&self) -> Result<OutOfMemory> {
        let open = |path: &PathBuf| {
            rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|errno| Error::Io { path: path.clone(), source: errno.into() })
        };
        if let Some(path) = self.first_with("memory") {
            let file = path.join("memory.oom_control");
            let control = open(&file)?;
            let signal = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|errno| {
                Error::Setup { action: "make an eventfd".to_owned(), source: errno.into() }
            })?;
            write(path, "cgroup.event_control", &format!("{} {}", signal.as_raw_fd(), control.as_raw_fd()))?;
            return Ok(OutOfMemory { signal, control: Some(control), counter: file });
        }
        let Some(path) = &self.second else {
            return Err(Error::Host {
                what: "the container has no control group for memory".to_owned(),
                hint: "give it a limit of memory".to_owned(),
            });
        };
        let file = path.join("memory.events");
        let signal = open(&file)?;
        Ok(OutOfMemory { signal, control: None, counter: file })
    }

    /// How many of its processes the kernel has killed because there was no memory left.
    pub fn out_of_memory_kills(&self) -> u64 {
        let file = match (self.first_with("memory"), &self.second) {
            (Some(path), _) => path.join("memory.oom_control"),
            (None, Some(path)) => path.join("memory.events"),
            (None, None) => return 0,
        };
        files::field(&fs::read_to_string(file).unwrap_or_default(), "oom_kill")
    }
}

impl OutOfMemory {
    /// Whether [`AsFd`]'s descriptor is to be polled for exceptional conditions (version 2) and not for input (version 1).
    pub fn is_exceptional(&self) -> bool {
        self.control.is_none()
    }

    /// To be called when the descriptor was signalled: how many were killed so far; nothing when the group is gone.
    pub fn acknowledge(&self) -> Option<u64> {
        if self.control.is_some() {
            // Takes the signal back; there may be none.
            rustix::io::read(&self.signal, &mut [0_u8; 8]).ok();
        } else {
            // Reading the file again is what the next signal is counted from.
            rustix::io::pread(&self.signal, &mut [0_u8; 256], 0).ok();
        }
        let text = fs::read_to_string(&self.counter).ok()?;
        Some(files::field(&text, "oom_kill"))
    }
}

impl AsFd for OutOfMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signal.as_fd()
    }
}
