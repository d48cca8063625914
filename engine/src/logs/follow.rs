//! Waiting for a log to grow, be rotated, or end (Linux: inotify).

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::io::Errno;

use crate::error::Result;

/// A monitor that was killed closes no file in a way that is told to us, so it is looked for this often.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };

/// Something that tells when the folder of a log has changed.
#[derive(Debug)]
pub(super) struct Watch(OwnedFd);

impl Watch {
    /// From now on no change is missed.
    pub(super) fn new(log: &Path) -> Result<Self> {
        let watch =
            inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(std::io::Error::from)?;
        let changes = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVE | WatchFlags::CLOSE_WRITE;
        match inotify::add_watch(&watch, log.parent().unwrap_or(log), changes | WatchFlags::DELETE_SELF) {
            // It is gone: the next look will see that.
            Ok(_) | Err(Errno::NOENT) => Ok(Self(watch)),
            Err(error) => Err(std::io::Error::from(error).into()),
        }
    }

    /// Waits for a change.
    pub(super) fn wait(&self) -> Result<()> {
        match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&PATIENCE)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(std::io::Error::from(error).into()),
        }
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(&self.0, &mut space);
        // What it was does not matter.
        while events.next().is_ok() {}
        Ok(())
    }
}
