//! The standard streams of a container's process, put in place inside it, and what else it inherits.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Gid, Mode, OFlags, Uid, fchown, fcntl_getfl, fstat};
use rustix::process::ioctl_tiocsctty;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::native::paths;
use crate::native::plan::{Plan, Streams};
use crate::native::report::{Doing, Failure};
use crate::native::rootfs;
use crate::native::sys;

/// Lets exec close everything but the standard streams and as many descriptors after them as are to be passed on.
pub(super) fn close_at_exec(preserved: u32) -> rustix::io::Result<()> {
    sys::close_on_exec_from(3 + preserved)
}

/// Puts them in their places; `slave` is the terminal, if there is one.
pub(super) fn connect(plan: &Plan, slave: Option<&OwnedFd>) -> Result<(), Failure> {
    let shown = || "connect the standard streams";
    let fds = match (&plan.stdio, slave) {
        (Streams::Files([stdin, stdout, stderr]), _) => [stdin.as_ref(), stdout.as_ref(), stderr.as_ref()],
        (Streams::Terminal(_), slave) => [slave; 3],
    };
    if let Some(fd) = fds[0] {
        dup2_stdin(fd).doing(shown)?;
    }
    if let Some(fd) = fds[1] {
        dup2_stdout(fd).doing(shown)?;
    }
    if let Some(fd) = fds[2] {
        dup2_stderr(fd).doing(shown)?;
    }
    if slave.is_some() {
        return ioctl_tiocsctty(rustix::stdio::stdin()).doing(|| "take the terminal");
    }
    replace_null()?;
    if plan.user.uid != 0 {
        give_pipe(rustix::stdio::stdin(), plan.user.uid);
        give_pipe(rustix::stdio::stdout(), plan.user.uid);
        give_pipe(rustix::stdio::stderr(), plan.user.uid);
    }
    Ok(())
}

/// Streams on the host's `/dev/null` go to the container's own, whose mode and times cannot be changed for
/// everybody. The root is entered already.
fn replace_null() -> Result<(), Failure> {
    type Replace = fn(&OwnedFd) -> rustix::io::Result<()>;
    let shown = || "open /dev/null in the container";
    let streams: [(BorrowedFd<'_>, Replace); 3] = [
        (rustix::stdio::stdin(), |own| dup2_stdin(own)),
        (rustix::stdio::stdout(), |own| dup2_stdout(own)),
        (rustix::stdio::stderr(), |own| dup2_stderr(own)),
    ];
    for (fd, replace) in streams {
        // A stream may be closed.
        if !rootfs::is_null(fd).unwrap_or(false) {
            continue;
        }
        let access = fcntl_getfl(fd).doing(shown)? & OFlags::RWMODE;
        let own = rustix::fs::open("/dev/null", access | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .doing(shown)?;
        if !rootfs::is_null(&own).doing(shown)? {
            return Err(Failure::Refused("/dev/null of the container is no null device".to_owned()));
        }
        replace(&own).doing(shown)?;
        paths::leave(own);
    }
    Ok(())
}

/// So that a program that is not root can open `/dev/stdout` again. Only pipes are touched, never a file or a
/// terminal; where it is not permitted the program can still write to the descriptor it has.
fn give_pipe(fd: BorrowedFd<'_>, uid: u32) {
    let pipe = fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
    if pipe {
        let _kept = fchown(fd, Some(Uid::from_raw(uid)), None::<Gid>);
    }
}
