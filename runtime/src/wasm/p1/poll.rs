//! `poll_oneoff`: sleeping, and waiting for streams and sockets. Files are always ready.

use std::time::{Duration, Instant};

use super::State;
use super::errno::{Answer, Code};
use super::memory::Guest;
use super::process::now;
use super::table::Fd;
#[cfg(unix)]
use crate::wasm::stdio::Input;

/// Subscriptions in one call.
const MAX: u32 = 1 << 16;
const EVENT: u32 = 32;
/// In a clock subscription's flags: the time is a point, not a span.
const ABSOLUTE: u16 = 1;
/// In an event's flags: the other side has closed.
#[cfg(unix)]
const HANGUP: u16 = 1;

const CLOCK: u8 = 0;
const FD_READ: u8 = 1;
const FD_WRITE: u8 = 2;

/// How a subscription lies in memory.
#[derive(Clone, Copy)]
struct Layout {
    size: u32,
    /// Where a clock's description begins.
    clock: usize,
}

const NEW: Layout = Layout { size: 48, clock: 16 };
/// `wasi_unstable` gave each clock an identifier of the caller's first.
const OLD: Layout = Layout { size: 56, clock: 24 };

/// One subscription and what has become of it.
struct Subscription {
    userdata: u64,
    kind: u8,
    state: Wait,
}

#[derive(Clone, Copy)]
enum Wait {
    /// Over in so many nanoseconds.
    Timer(u64),
    /// Something of the host's has to be asked: its index there.
    #[cfg_attr(not(unix), expect(dead_code, reason = "streams and sockets count as ready there"))]
    Host(usize),
    Ready(Found),
    Failed(Code),
}

/// What an event says about a descriptor.
#[derive(Clone, Copy)]
struct Found {
    /// Bytes that can be read or written, as far as that is known; else 1.
    bytes: u64,
    flags: u16,
}

impl Found {
    const SOME: Self = Self { bytes: 1, flags: 0 };
}

pub(super) fn oneoff(
    state: &mut State,
    guest: &mut Guest<'_>,
    subscriptions: u32,
    events: u32,
    count: u32,
    out: u32,
) -> Answer {
    poll(state, guest, NEW, subscriptions, events, count, out)
}

/// As `wasi_unstable` has it.
pub(super) fn old_oneoff(
    state: &mut State,
    guest: &mut Guest<'_>,
    subscriptions: u32,
    events: u32,
    count: u32,
    out: u32,
) -> Answer {
    poll(state, guest, OLD, subscriptions, events, count, out)
}

fn poll(
    state: &State,
    guest: &mut Guest<'_>,
    layout: Layout,
    subscriptions: u32,
    events: u32,
    count: u32,
    out: u32,
) -> Answer {
    if count == 0 || count > MAX {
        return Err(Code::INVAL);
    }
    let raw = guest.bytes(subscriptions, count * layout.size)?;
    let mut host = Host::default();
    let mut all = Vec::with_capacity(count as usize);
    for one in raw.chunks_exact(layout.size as usize) {
        all.push(parse(state, &mut host, layout, one)?);
    }
    guest.bytes(events, count * EVENT)?;
    guest.u32(out)?;

    let immediate = all.iter().any(|one| matches!(one.state, Wait::Ready(_) | Wait::Failed(_)));
    let timers =
        all.iter().filter_map(|one| if let Wait::Timer(nanos) = one.state { Some(nanos) } else { None });
    let timeout = if immediate { Some(0) } else { timers.min() };
    let passed = host.wait(timeout)?;

    let mut made = 0;
    for one in &all {
        let found = match one.state {
            Wait::Failed(code) => Err(code),
            Wait::Ready(found) => Ok(found),
            Wait::Timer(nanos) if nanos <= passed => Ok(Found { bytes: 0, flags: 0 }),
            Wait::Timer(_) => continue,
            Wait::Host(index) => match host.answer(index, one.kind) {
                Some(found) => found,
                None => continue,
            },
        };
        let mut event = [0; EVENT as usize];
        event[..8].copy_from_slice(&one.userdata.to_le_bytes());
        event[10] = one.kind;
        match found {
            Err(code) => event[8..10].copy_from_slice(&code.0.to_le_bytes()),
            Ok(found) => {
                event[16..24].copy_from_slice(&found.bytes.to_le_bytes());
                event[24..26].copy_from_slice(&found.flags.to_le_bytes());
            }
        }
        guest.put(events + made * EVENT, &event)?;
        made += 1;
    }
    guest.put_u32(out, made)
}

fn parse<'a>(
    state: &'a State,
    host: &mut Host<'a>,
    layout: Layout,
    raw: &[u8],
) -> Result<Subscription, Code> {
    let u64_at = |at: usize| raw[at..at + 8].try_into().map(u64::from_le_bytes).map_err(|_| Code::FAULT);
    let u32_at = |at: usize| raw[at..at + 4].try_into().map(u32::from_le_bytes).map_err(|_| Code::FAULT);
    let userdata = u64_at(0)?;
    let kind = raw[8];
    let wait = match kind {
        CLOCK => {
            let at = layout.clock;
            let (clock, time) = (u32_at(at)?, u64_at(at + 8)?);
            let flags = u16::from_le_bytes([raw[at + 24], raw[at + 25]]);
            match (clock, flags) {
                (0 | 1, 0) => Wait::Timer(time),
                (0 | 1, ABSOLUTE) => Wait::Timer(time.saturating_sub(now(state, clock)?)),
                (0 | 1, _) => Wait::Failed(Code::INVAL),
                _ => Wait::Failed(Code::NOTSUP),
            }
        }
        FD_READ | FD_WRITE => match state.fds.look(u32_at(16)?) {
            Ok(fd) => host.wait_state(state, fd, kind),
            // Told in its event, where the other descriptors' are: that is how poll(2) knows POLLNVAL.
            Err(code) => Wait::Failed(code),
        },
        _ => return Err(Code::INVAL),
    };
    Ok(Subscription { userdata, kind, state: wait })
}

/// What has to be asked of the host.
#[derive(Default)]
struct Host<'a> {
    #[cfg(unix)]
    fds: Vec<rustix::event::PollFd<'a>>,
    #[cfg(not(unix))]
    none: std::marker::PhantomData<&'a ()>,
}

#[cfg(unix)]
impl<'a> Host<'a> {
    /// What a subscription to `fd` waits for.
    fn wait_state(&mut self, state: &'a State, fd: &'a Fd, kind: u8) -> Wait {
        use std::os::fd::AsFd as _;

        use super::sock::SocketKind;
        let stream = match (fd, kind) {
            (Fd::Input, FD_READ) => match &state.streams.stdin {
                Input::Null => None,
                Input::Inherit => Some(rustix::stdio::stdin()),
                Input::File(file) => Some(file.as_fd()),
            },
            (Fd::Output, FD_WRITE) => state.streams.stdout.fd(),
            (Fd::Error, FD_WRITE) => state.streams.stderr.fd(),
            (Fd::Socket(socket), _) => match (&socket.kind, kind) {
                (SocketKind::Listener(listener), FD_READ) => Some(listener.as_fd()),
                (SocketKind::Listener(_), _) => return Wait::Failed(Code::BADF),
                (SocketKind::Stream(stream), _) => Some(stream.as_fd()),
            },
            (Fd::File(file), FD_READ) => {
                return Wait::Ready(Found { bytes: rest(file).unwrap_or(1), flags: 0 });
            }
            (Fd::File(_), _) => None,
            _ => return Wait::Failed(Code::BADF),
        };
        let Some(stream) = stream else { return Wait::Ready(Found::SOME) };
        let what = if kind == FD_READ { rustix::event::PollFlags::IN } else { rustix::event::PollFlags::OUT };
        self.fds.push(rustix::event::PollFd::from_borrowed_fd(stream, what));
        Wait::Host(self.fds.len() - 1)
    }

    /// Waits until something is there or so many nanoseconds are over; says how many were.
    fn wait(&mut self, timeout: Option<u64>) -> Result<u64, Code> {
        use rustix::event::{Timespec, poll};
        if self.fds.is_empty() {
            return sleep(timeout);
        }
        let begun = Instant::now();
        let mut left = timeout;
        loop {
            let time = left.map(|nanos| Timespec {
                tv_sec: i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX),
                tv_nsec: i64::try_from(nanos % 1_000_000_000).unwrap_or(0),
            });
            let ready = poll(&mut self.fds, time.as_ref());
            let passed = nanos(begun.elapsed());
            match ready {
                // The clock that woke us and ours need not agree to the nanosecond.
                Ok(0) => return Ok(timeout.map_or(passed, |timeout| passed.max(timeout))),
                Ok(_) => return Ok(passed),
                Err(rustix::io::Errno::INTR) => left = timeout.map(|timeout| timeout.saturating_sub(passed)),
                Err(error) => return Err(crate::wasm::union::Errno::from(error).into()),
            }
        }
    }

    /// What came of a descriptor; `None` when nothing has.
    fn answer(&self, index: usize, kind: u8) -> Option<Result<Found, Code>> {
        use rustix::event::PollFlags;
        let fd = self.fds.get(index)?;
        let seen = fd.revents();
        if seen.contains(PollFlags::NVAL) {
            return Some(Err(Code::BADF));
        }
        if seen.is_empty() {
            return None;
        }
        let bytes = if kind == FD_READ && seen.contains(PollFlags::IN) {
            // An end of the input is something to read, too, of no bytes. A listener cannot say.
            rustix::io::ioctl_fionread(fd).unwrap_or(1)
        } else {
            1
        };
        let flags = if seen.intersects(PollFlags::HUP | PollFlags::ERR) { HANGUP } else { 0 };
        Some(Ok(Found { bytes, flags }))
    }
}

/// What is behind a file's position.
#[cfg(unix)]
fn rest(file: &super::table::FileFd) -> Option<u64> {
    use std::io::Seek as _;
    let size = file.open.file.metadata().ok()?.len();
    (&file.open.file).stream_position().ok().map(|position| size.saturating_sub(position))
}

/// Where streams and sockets cannot be asked, they are said to be ready: what follows waits.
#[cfg(not(unix))]
impl Host<'_> {
    fn wait_state(&mut self, _: &State, fd: &Fd, kind: u8) -> Wait {
        match (fd, kind) {
            (Fd::Input, FD_WRITE) | (Fd::Output | Fd::Error, FD_READ) | (Fd::Dir(_), _) => {
                Wait::Failed(Code::BADF)
            }
            _ => Wait::Ready(Found::SOME),
        }
    }

    fn wait(&mut self, timeout: Option<u64>) -> Result<u64, Code> {
        sleep(timeout)
    }

    fn answer(&self, _: usize, _: u8) -> Option<Result<Found, Code>> {
        None
    }
}

/// Sleeps, and says how long.
fn sleep(timeout: Option<u64>) -> Result<u64, Code> {
    let wanted = timeout.unwrap_or(0);
    if wanted == 0 {
        return Ok(0);
    }
    let begun = Instant::now();
    std::thread::sleep(Duration::from_nanos(wanted));
    Ok(nanos(begun.elapsed()).max(wanted))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
