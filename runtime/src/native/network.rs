//! A network namespace of a container's own, with its loopback interface up: made by the process that is to be in it, or by
//! another one for it.
//!
//! What else is in a network is other people's business, but for devices that move there (`net`).

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Result;

use super::sys::{self, tune};

/// Makes one for this process.
pub(super) fn make() -> Result<()> {
    tune::unshare(libc::CLONE_NEWNET)?;
    sys::loopback_up()
}

/// Makes one for another process, and stays in its own. The calling process must have one thread; when this fails, it may
/// be in neither network and has to end.
pub(super) fn make_apart() -> Result<OwnedFd> {
    let current = || rustix::fs::open("/proc/self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let own = current()?;
    let made = make().and_then(|()| current());
    sys::setns(own.as_fd(), libc::CLONE_NEWNET)?;
    made
}
