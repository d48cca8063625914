//! Arguments, environment, clocks, random numbers.

use std::time::SystemTime;

use super::State;
use super::abi::nanos;
use super::errno::{Answer, Code};
use super::memory::Guest;
use crate::wasm::random;

pub(super) fn args_sizes_get(state: &mut State, guest: &mut Guest<'_>, count: u32, size: u32) -> Answer {
    sizes(&state.args, guest, count, size)
}

pub(super) fn args_get(state: &mut State, guest: &mut Guest<'_>, argv: u32, buffer: u32) -> Answer {
    strings(&state.args, guest, argv, buffer)
}

pub(super) fn environ_sizes_get(state: &mut State, guest: &mut Guest<'_>, count: u32, size: u32) -> Answer {
    sizes(&state.env, guest, count, size)
}

pub(super) fn environ_get(state: &mut State, guest: &mut Guest<'_>, environ: u32, buffer: u32) -> Answer {
    strings(&state.env, guest, environ, buffer)
}

fn sizes(list: &[String], guest: &mut Guest<'_>, count: u32, size: u32) -> Answer {
    guest.put_count(count, list.len())?;
    guest.put_count(size, list.iter().map(|text| text.len() + 1).sum())
}

fn strings(list: &[String], guest: &mut Guest<'_>, mut pointers: u32, mut buffer: u32) -> Answer {
    for text in list {
        guest.put_u32(pointers, buffer)?;
        guest.put(buffer, text.as_bytes())?;
        let length = u32::try_from(text.len()).map_err(|_| Code::OVERFLOW)?;
        let end = buffer.checked_add(length).ok_or(Code::FAULT)?;
        guest.put(end, &[0])?;
        buffer = end.checked_add(1).ok_or(Code::FAULT)?;
        pointers = pointers.checked_add(4).ok_or(Code::FAULT)?;
    }
    Ok(())
}

pub(super) fn clock_res_get(_: &mut State, guest: &mut Guest<'_>, clock: u32, out: u32) -> Answer {
    match clock {
        0..=3 => guest.put_u64(out, 1),
        _ => Err(Code::INVAL),
    }
}

pub(super) fn clock_time_get(
    state: &mut State,
    guest: &mut Guest<'_>,
    clock: u32,
    _precision: u64,
    out: u32,
) -> Answer {
    let now = now(state, clock)?;
    guest.put_u64(out, now)
}

/// A clock's time in nanoseconds. The monotonic one starts with the program: the host's uptime is not for guests.
pub(super) fn now(state: &State, clock: u32) -> Result<u64, Code> {
    match clock {
        0 => Ok(nanos(Some(SystemTime::now()))),
        1 => u64::try_from(state.started.elapsed().as_nanos()).map_err(|_| Code::OVERFLOW),
        #[cfg(unix)]
        2 => cpu_time(rustix::time::ClockId::ProcessCPUTime),
        #[cfg(unix)]
        3 => cpu_time(rustix::time::ClockId::ThreadCPUTime),
        #[cfg(not(unix))]
        2 | 3 => Err(Code::NOTSUP),
        _ => Err(Code::INVAL),
    }
}

#[cfg(unix)]
fn cpu_time(clock: rustix::time::ClockId) -> Result<u64, Code> {
    let time = rustix::time::clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).map_err(|_| Code::OVERFLOW)?;
    let nanos = u64::try_from(time.tv_nsec).map_err(|_| Code::OVERFLOW)?;
    Ok(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

pub(super) fn random_get(_: &mut State, guest: &mut Guest<'_>, buffer: u32, length: u32) -> Answer {
    random::fill(guest.bytes_mut(buffer, length)?).map_err(|_| Code::IO)
}

/// Signals do not exist in WASI any more; its own hosts refuse this too.
pub(super) fn raise(_: &mut State, _: &mut Guest<'_>, _signal: u32) -> Answer {
    Err(Code::NOTSUP)
}
