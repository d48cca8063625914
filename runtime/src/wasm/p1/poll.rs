//! `poll_oneoff`: sleeping, and waiting for input. Files and outputs are always ready.

use std::time::Duration;

use super::State;
use super::errno::{Answer, Code};
use super::memory::Guest;
use super::process::now;
use super::table::Fd;
use crate::wasm::stdio::Input;

/// Subscriptions in one call.
const MAX: u32 = 4096;
const SUBSCRIPTION: u32 = 48;
const EVENT: u32 = 32;
/// In a clock subscription's flags: the time is a point, not a span.
const ABSOLUTE: u16 = 1;

const CLOCK: u8 = 0;
const FD_READ: u8 = 1;
const FD_WRITE: u8 = 2;

struct Subscription {
    userdata: u64,
    kind: u8,
    state: Wait,
}

enum Wait {
    /// Over in so many nanoseconds.
    Timer(u64),
    /// Input may come.
    Input,
    Ready,
    Failed(Code),
}

pub(super) fn oneoff(
    state: &mut State,
    guest: &mut Guest<'_>,
    subscriptions: u32,
    events: u32,
    count: u32,
    out: u32,
) -> Answer {
    if count == 0 || count > MAX {
        return Err(Code::INVAL);
    }
    let raw = guest.bytes(subscriptions, count * SUBSCRIPTION)?;
    let mut all = Vec::new();
    for one in raw.chunks_exact(SUBSCRIPTION as usize) {
        all.push(parse(state, one)?);
    }
    guest.bytes(events, count * EVENT)?;

    let immediate = all.iter().any(|one| matches!(one.state, Wait::Ready | Wait::Failed(_)));
    let timers =
        all.iter().filter_map(|one| if let Wait::Timer(nanos) = one.state { Some(nanos) } else { None });
    let timeout = if immediate { Some(0) } else { timers.min() };
    let wants_input = all.iter().any(|one| matches!(one.state, Wait::Input));
    let input = wait(&state.streams.stdin, wants_input, timeout)?;

    let mut made = 0;
    for one in &all {
        let error = match one.state {
            Wait::Failed(code) => code.0,
            Wait::Ready => 0,
            Wait::Input if input => 0,
            // Only a time that has been waited for is over; when something else came first, only what was due at once.
            Wait::Timer(nanos) if if immediate || input { nanos == 0 } else { Some(nanos) <= timeout } => 0,
            Wait::Input | Wait::Timer(_) => continue,
        };
        let mut event = [0; EVENT as usize];
        event[..8].copy_from_slice(&one.userdata.to_le_bytes());
        event[8..10].copy_from_slice(&error.to_le_bytes());
        event[10] = one.kind;
        if one.kind != CLOCK && error == 0 {
            // How much can be read or written is not known; something can.
            event[16..24].copy_from_slice(&1u64.to_le_bytes());
        }
        guest.put(events + made * EVENT, &event)?;
        made += 1;
    }
    guest.put_u32(out, made)
}

fn parse(state: &mut State, raw: &[u8]) -> Result<Subscription, Code> {
    let u64_at = |at: usize| raw[at..at + 8].try_into().map(u64::from_le_bytes).map_err(|_| Code::FAULT);
    let u32_at = |at: usize| raw[at..at + 4].try_into().map(u32::from_le_bytes).map_err(|_| Code::FAULT);
    let userdata = u64_at(0)?;
    let kind = raw[8];
    let wait = match kind {
        CLOCK => {
            let (clock, time) = (u32_at(16)?, u64_at(24)?);
            let flags = u16::from_le_bytes([raw[40], raw[41]]);
            match (clock, flags) {
                (0 | 1, 0) => Wait::Timer(time),
                (0 | 1, ABSOLUTE) => Wait::Timer(time.saturating_sub(now(state, clock)?)),
                (0 | 1, _) => Wait::Failed(Code::INVAL),
                _ => Wait::Failed(Code::NOTSUP),
            }
        }
        FD_READ | FD_WRITE => match (kind, state.fds.get(u32_at(16)?)) {
            (_, Err(code)) => Wait::Failed(code),
            (FD_READ, Ok(Fd::Input)) => Wait::Input,
            (FD_WRITE, Ok(Fd::Output | Fd::Error)) | (_, Ok(Fd::File(_))) => Wait::Ready,
            (_, Ok(_)) => Wait::Failed(Code::BADF),
        },
        _ => return Err(Code::INVAL),
    };
    Ok(Subscription { userdata, kind, state: wait })
}

/// Waits for input, if wanted, or for the time to pass; says whether there is input.
fn wait(stdin: &Input, wants_input: bool, timeout: Option<u64>) -> Result<bool, Code> {
    if wants_input {
        return wait_for_input(stdin, timeout);
    }
    if let Some(nanos) = timeout
        && nanos > 0
    {
        std::thread::sleep(Duration::from_nanos(nanos));
    }
    Ok(false)
}

#[cfg(unix)]
fn wait_for_input(stdin: &Input, timeout: Option<u64>) -> Result<bool, Code> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let fd = match stdin {
        Input::Null => return Ok(true),
        Input::Inherit => rustix::stdio::stdin(),
        Input::File(file) => std::os::fd::AsFd::as_fd(&**file),
    };
    let timeout = timeout.map(|nanos| Timespec {
        tv_sec: i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(nanos % 1_000_000_000).unwrap_or(0),
    });
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    match poll(&mut fds, timeout.as_ref()) {
        // An end of the input is something to read, too.
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Err(Code::AGAIN),
        Err(error) => Err(super::super::union::Errno::from(error).into()),
    }
}

/// Where input cannot be waited for, it is said to be there: the read that follows waits.
#[cfg(not(unix))]
fn wait_for_input(_stdin: &Input, _timeout: Option<u64>) -> Result<bool, Code> {
    Ok(true)
}
