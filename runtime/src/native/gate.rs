//! Where a container waits between being created and being started when its creator does not stay.
//!
//! ```text
//! <state folder>/gate       a named pipe; the container's process reads one byte from it (`gate.new` while it is set up)
//! <state folder>/result     a named pipe; it says here why it could not execute the program, and nothing else
//! ```
//! Named pipes because the waiting needs no call but `read`, which a container's own filter of system calls has to
//! allow. Who has passed the gate closes it, so nobody holds it who is not waiting: whether a container may be started is
//! asked by opening it. The result is closed at exec, so its end means that the program runs; until then the container is
//! still `created`. The program and the container's other processes never see either: they are no part of its files, and
//! the process that holds them cannot be looked into.
//!
//! A creator that stays (`run`) needs no gate. It leaves the file `starting` until the program runs.

use std::cell::RefCell;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, mknodat, openat, renameat};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::native::report::Failure;

const GATE: &str = "gate";
const CLOSED: &str = "gate.new";
const RESULT: &str = "result";
/// A link that leads nowhere: one call makes it.
const STARTING: &str = "starting";
/// The byte that opens the gate.
const GO: u8 = b'S';

/// The container's ends.
#[derive(Debug)]
pub(crate) struct Gate {
    gate: RefCell<Option<OwnedFd>>,
    result: OwnedFd,
}

fn setup(action: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| Error::Setup { action: action.to_owned(), source: errno.into() }
}

impl Gate {
    /// Makes a gate that nobody can open yet.
    pub(crate) fn make(folder: BorrowedFd<'_>) -> Result<Self> {
        let make = |name: &str| {
            mknodat(folder, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
            // For reading and writing: waits for nobody on the other side.
            openat(folder, name, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
        };
        let made =
            make(CLOSED).and_then(|gate| Ok(Self { gate: RefCell::new(Some(gate)), result: make(RESULT)? }));
        made.map_err(setup("make the container's gate"))
    }

    /// From now on the container is created, and may be started.
    pub(crate) fn publish(folder: BorrowedFd<'_>) -> Result<()> {
        renameat(folder, CLOSED, folder, GATE).map_err(setup("publish the container's gate"))
    }

    /// Waits in the container's process, once; `false` when it shall not be started.
    pub(crate) fn wait(&self) -> bool {
        // Closed before the result is: who finds the gate held can count on hearing one.
        let Some(gate) = self.gate.take() else { return false };
        let mut order = [0];
        rustix::io::retry_on_intr(|| rustix::io::read(&gate, &mut order)) == Ok(1) && order[0] == GO
    }

    /// Says why there is no program.
    pub(super) fn failed(&self, failure: &Failure) {
        rustix::io::retry_on_intr(|| rustix::io::write(&self.result, &failure.encode())).ok();
    }
}

/// How far a container's set-up has come, for a process that is known to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It is being created.
    Creating,
    /// It waits.
    Waiting,
    /// It has passed the gate, and the program does not run yet.
    Starting,
    /// The program runs.
    Passed,
}

/// Asks whether somebody waits at the gate, or on the way from it to the program.
pub(crate) fn progress(folder: BorrowedFd<'_>) -> Progress {
    // A pipe can be opened like this while somebody else has it open for reading.
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let is_held = |name: &str| openat(folder, name, flags, Mode::empty());
    let exists = |name: &str| rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
    match is_held(GATE) {
        Ok(_) => Progress::Waiting,
        Err(Errno::NOENT) if exists(CLOSED) => Progress::Creating,
        Err(Errno::NOENT) if exists(STARTING) => Progress::Starting,
        Err(_) if is_held(RESULT).is_ok() => Progress::Starting,
        Err(_) => Progress::Passed,
    }
}

/// Writes down that there is no gate, and no program yet.
pub(crate) fn starting(folder: BorrowedFd<'_>) -> Result<()> {
    rustix::fs::symlinkat("-", folder, STARTING).map_err(setup("write down that the container starts"))
}

/// Takes that back: the program runs.
pub(crate) fn started(folder: BorrowedFd<'_>) -> Result<()> {
    rustix::fs::unlinkat(folder, STARTING, AtFlags::empty())
        .map_err(setup("write down that the container runs"))
}

/// Opens the gate and waits until the program runs; `false` when nobody waits there.
///
/// # Errors
/// Why the program could not be executed; `command` is its name.
pub(crate) fn open(folder: BorrowedFd<'_>, command: &str) -> Result<bool> {
    let flags = OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let open = |name: &str, access| openat(folder, name, flags | access, Mode::empty());
    // First the result: its end is only noticed by who was there before.
    let (Ok(result), Ok(gate)) = (open(RESULT, OFlags::RDONLY), open(GATE, OFlags::WRONLY)) else {
        return Ok(false);
    };
    match rustix::io::write(&gate, &[GO]) {
        Err(Errno::PIPE) => return Ok(false),
        written => written.map_err(setup("open the container's gate"))?,
    };
    drop(gate);
    let mut heard = [0; Failure::LONGEST];
    loop {
        let mut wait = [PollFd::new(&result, PollFlags::IN)];
        match poll(&mut wait, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(setup("wait for the container's program")(errno)),
        }
        match rustix::io::read(&result, &mut heard) {
            Ok(0) => return Ok(true),
            Ok(length) => {
                let failure = Failure::decode(&heard[..length]);
                return failure.map_or(Ok(true), |failure| Err(failure.into_error(command)));
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(setup("wait for the container's program")(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_gate_is_open_only_while_somebody_waits() {
        let folder = tempfile::tempdir().expect("folder");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(folder.path(), flags, Mode::empty()).expect("handle");
        let gate = Gate::make(folder.as_fd()).expect("gate");
        assert_eq!(progress(folder.as_fd()), Progress::Creating);
        assert!(matches!(open(folder.as_fd(), "x"), Ok(false)));
        Gate::publish(folder.as_fd()).expect("published");
        assert_eq!(progress(folder.as_fd()), Progress::Waiting);
        let (passed, news) = std::sync::mpsc::channel();
        let (go, on) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn(move || {
            assert!(gate.wait());
            passed.send(()).expect("told");
            on.recv().expect("heard");
            gate.failed(&Failure::NotFound("x".to_owned()));
        });
        let place = folder.try_clone().expect("handle");
        let starter = std::thread::spawn(move || open(place.as_fd(), "x"));
        news.recv().expect("passed");
        assert_eq!(progress(folder.as_fd()), Progress::Starting, "between the gate and the program");
        go.send(()).expect("told");
        assert!(matches!(starter.join().expect("started"), Err(Error::CommandNotFound { .. })));
        waiting.join().expect("waited");
        assert_eq!(progress(folder.as_fd()), Progress::Passed);
        assert!(matches!(open(folder.as_fd(), "x"), Ok(false)));
    }

    #[test]
    fn who_needs_no_gate_starts_all_the_same() {
        let folder = tempfile::tempdir().expect("folder");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(folder.path(), flags, Mode::empty()).expect("handle");
        starting(folder.as_fd()).expect("written");
        assert_eq!(progress(folder.as_fd()), Progress::Starting);
        started(folder.as_fd()).expect("taken back");
        assert_eq!(progress(folder.as_fd()), Progress::Passed);
    }
}
