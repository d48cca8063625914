//! `RUN --mount=type=ssh`: a socket of ours that passes everything on to the user's agent. Keys never come near the step:
//! it can ask for signatures while it runs, and no longer.
//!
//! A process of its own listens: a builder has one thread, because it forks.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use dhow_runtime::process;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::process::{Pid, Signal, WaitOptions};

use crate::error::Result;

/// Connections at one time; a step that wants more waits.
const MOST: usize = 16;

/// The process that passes on; it is gone when this is dropped, or when the builder dies.
#[derive(Debug)]
pub(super) struct Agent(u32);

impl Agent {
    /// Listens at `place` for the agent at `socket`.
    pub(super) fn start(socket: &Path, place: &Path, mode: u32, owner: (u32, u32)) -> Result<Self> {
        // Says that there is one, before the step finds out.
        drop(UnixStream::connect(socket).map_err(|error| {
            io::Error::new(error.kind(), format!("the agent for SSH at {}: {error}", socket.display()))
        })?);
        // A socket's path may not be as long as ours can be.
        let parent = folder(place.parent().unwrap_or(place))?;
        let name = place.file_name().unwrap_or_default();
        let short = Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string()).join(name);
        let listener = UnixListener::bind(short)?;
        let set = || -> rustix::io::Result<()> {
            rustix::fs::chown(place, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
            rustix::fs::chmod(place, Mode::from_raw_mode(mode & 0o777))
        };
        set().map_err(io::Error::from)?;
        let socket = socket.to_owned();
        let builder = rustix::process::getpid();
        let child = process::fork(move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).ok();
            if rustix::process::getppid() == Some(builder) {
                serve(&listener, &socket);
            }
            0
        })?;
        Ok(Self(child.pid()))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.0).ok().and_then(Pid::from_raw) {
            // It is our child and not reaped yet, so nobody else has its number.
            rustix::process::kill_process(pid, Signal::KILL).ok();
            rustix::process::waitpid(Some(pid), WaitOptions::empty()).ok();
        }
    }
}

/// A handle on a folder of ours.
fn folder(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::openat(rustix::fs::CWD, path, flags, Mode::empty())?)
}

fn serve(listener: &UnixListener, socket: &PathBuf) {
    let mut running: Vec<std::thread::JoinHandle<()>> = Vec::new();
    while let Ok((client, _)) = listener.accept() {
        running.retain(|thread| !thread.is_finished());
        if running.len() >= MOST {
            // The oldest has had its time.
            running.remove(0).join().ok();
        }
        let Ok(agent) = UnixStream::connect(socket) else { continue };
        running.push(std::thread::spawn(move || pass(&client, &agent)));
    }
}

fn pass(client: &UnixStream, agent: &UnixStream) {
    std::thread::scope(|scope| {
        scope.spawn(|| copy(client, agent));
        copy(agent, client);
    });
}

/// One way, to its end; the other side is told of that.
fn copy(mut from: &UnixStream, mut to: &UnixStream) {
    io::copy(&mut from, &mut to).ok();
    to.shutdown(std::net::Shutdown::Write).ok();
}
