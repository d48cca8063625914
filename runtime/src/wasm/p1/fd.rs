//! What is done with one descriptor: reading, writing, positions, metadata.

use std::io::{IoSlice, Read as _, Seek as _, SeekFrom, Write as _};
use std::time::{Duration, SystemTime};

use super::State;
use super::abi::*;
use super::errno::{Answer, Code};
use super::memory::Guest;
use super::table::{Fd, FileFd};
use crate::wasm::stdio::Output;

pub(super) fn read(
    state: &mut State,
    guest: &mut Guest<'_>,
    fd: u32,
    vectors: u32,
    count: u32,
    out: u32,
) -> Answer {
    guest.u32(out)?;
    let read = guest.targets(vectors, count, |targets| match state.fds.get(fd)? {
        // One buffer only: a second one would wait for input that the guest may not need.
        Fd::Input => match targets.first_mut() {
            Some(target) => {
                may_block(state.nonblocking[0], || state.streams.stdin.is_ready())?;
                Ok(state.streams.stdin.read(target)?)
            }
            None => Ok(0),
        },
        Fd::File(file) => Ok((&file.open.file).read_vectored(targets)?),
        Fd::Socket(socket) => socket.read(targets),
        Fd::Dir(_) | Fd::Output | Fd::Error => Err(Code::BADF),
    })?;
    guest.put_count(out, read)
}

pub(super) fn write(
    state: &mut State,
    guest: &mut Guest<'_>,
    fd: u32,
    vectors: u32,
    count: u32,
    out: u32,
) -> Answer {
    guest.u32(out)?;
    let written = guest.sources(vectors, count, |sources| match state.fds.get(fd)? {
        Fd::Output => print(&state.streams.stdout, state.nonblocking[1], sources),
        Fd::Error => print(&state.streams.stderr, state.nonblocking[2], sources),
        Fd::File(file) => {
            let written = (&file.open.file).write_vectored(sources)?;
            file.flush_if_asked()?;
            Ok(written)
        }
        Fd::Socket(socket) => socket.write(sources),
        Fd::Dir(_) | Fd::Input => Err(Code::BADF),
    })?;
    guest.put_count(out, written)
}

/// What a stream that a guest has made non-blocking takes at once, as a pipe promises.
const AT_ONCE: usize = 512;

/// Writes to a stream. The stream itself is shared with others and stays as it is, so that one which is not to block
/// is asked first and given no more than it takes.
fn print(stream: &Output, nonblocking: bool, sources: &[IoSlice<'_>]) -> Result<usize, Code> {
    if !nonblocking {
        return Ok(stream.write(sources)?);
    }
    may_block(true, || stream.is_ready())?;
    match sources.iter().find(|source| !source.is_empty()) {
        Some(first) => Ok(stream.write(&[IoSlice::new(&first[..first.len().min(AT_ONCE)])])?),
        None => Ok(0),
    }
}

fn may_block(nonblocking: bool, is_ready: impl FnOnce() -> std::io::Result<bool>) -> Answer {
    if nonblocking && !is_ready()? { Err(Code::AGAIN) } else { Ok(()) }
}

pub(super) fn pread(
    state: &mut State,
    guest: &mut Guest<'_>,
    fd: u32,
    vectors: u32,
    count: u32,
    offset: u64,
    out: u32,
) -> Answer {
    guest.u32(out)?;
    let file = &state.fds.file(fd)?.open.file;
    let read = guest.targets(vectors, count, |targets| {
        each(targets.iter_mut().map(|target| &mut **target), offset, |target, at| {
            (read_at(file, target, at), target.len())
        })
    })?;
    guest.put_count(out, read)
}

pub(super) fn pwrite(
    state: &mut State,
    guest: &mut Guest<'_>,
    fd: u32,
    vectors: u32,
    count: u32,
    offset: u64,
    out: u32,
) -> Answer {
    guest.u32(out)?;
    let file = state.fds.file(fd)?;
    let written = guest.sources(vectors, count, |sources| {
        each(sources.iter().map(|source| &**source), offset, |source, at| {
            (write_at(&file.open.file, source, at), source.len())
        })
    })?;
    file.flush_if_asked()?;
    guest.put_count(out, written)
}

impl FileFd {
    /// Some files were opened for writes that are on the disk when they return.
    fn flush_if_asked(&self) -> Answer {
        if self.flags & (FDFLAGS_DSYNC | FDFLAGS_SYNC) != 0 {
            self.open.file.sync_data()?;
        }
        Ok(())
    }
}

/// Goes through buffers at rising offsets until one is not done completely.
fn each<T>(
    buffers: impl Iterator<Item = T>,
    offset: u64,
    mut work: impl FnMut(T, u64) -> (std::io::Result<usize>, usize),
) -> Result<usize, Code> {
    let mut total = 0;
    for buffer in buffers {
        let at = offset.checked_add(total as u64).ok_or(Code::OVERFLOW)?;
        match work(buffer, at) {
            (Ok(done), whole) => {
                total += done;
                if done < whole {
                    break;
                }
            }
            (Err(error), _) if total == 0 => return Err(error.into()),
            (Err(_), _) => break,
        }
    }
    Ok(total)
}

#[cfg(unix)]
fn read_at(file: &std::fs::File, target: &mut [u8], offset: u64) -> std::io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, target, offset)
}

#[cfg(unix)]
fn write_at(file: &std::fs::File, source: &[u8], offset: u64) -> std::io::Result<usize> {
    std::os::unix::fs::FileExt::write_at(file, source, offset)
}

// Windows moves the position; it is put back.
#[cfg(windows)]
fn read_at(mut file: &std::fs::File, target: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let before = file.stream_position()?;
    let read = std::os::windows::fs::FileExt::seek_read(file, target, offset);
    file.seek(SeekFrom::Start(before))?;
    read
}

#[cfg(windows)]
fn write_at(mut file: &std::fs::File, source: &[u8], offset: u64) -> std::io::Result<usize> {
    let before = file.stream_position()?;
    let written = std::os::windows::fs::FileExt::seek_write(file, source, offset);
    file.seek(SeekFrom::Start(before))?;
    written
}

pub(super) fn seek(
    state: &mut State,
    guest: &mut Guest<'_>,
    fd: u32,
    offset: i64,
    whence: u32,
    out: u32,
) -> Answer {
    let file = state.fds.file(fd)?;
    let to = match whence {
        0 => SeekFrom::Start(u64::try_from(offset).map_err(|_| Code::INVAL)?),
        1 => SeekFrom::Current(offset),
        2 => SeekFrom::End(offset),
        _ => return Err(Code::INVAL),
    };
    let position = (&file.open.file).seek(to)?;
    guest.put_u64(out, position)
}

/// As `wasi_unstable` has it: it counted from the position, the end and the beginning in this order.
pub(super) fn old_seek(
    state: &mut State,
    guest: &mut Guest<'_>,
    fd: u32,
    offset: i64,
    whence: u32,
    out: u32,
) -> Answer {
    let whence = match whence {
        0 => 1,
        1 => 2,
        2 => 0,
        other => other,
    };
    seek(state, guest, fd, offset, whence, out)
}

pub(super) fn tell(state: &mut State, guest: &mut Guest<'_>, fd: u32, out: u32) -> Answer {
    let position = (&state.fds.file(fd)?.open.file).stream_position()?;
    guest.put_u64(out, position)
}

pub(super) fn close(state: &mut State, _: &mut Guest<'_>, fd: u32) -> Answer {
    state.fds.remove(fd).map(drop)
}

pub(super) fn renumber(state: &mut State, _: &mut Guest<'_>, from: u32, to: u32) -> Answer {
    state.fds.renumber(from, to)
}

pub(super) fn sync(state: &mut State, _: &mut Guest<'_>, fd: u32) -> Answer {
    match state.fds.get(fd)? {
        Fd::File(file) => Ok(file.open.file.sync_all()?),
        Fd::Dir(dir) => Ok(dir.node.sync()?),
        Fd::Input | Fd::Output | Fd::Error | Fd::Socket(_) => Ok(()),
    }
}

pub(super) fn datasync(state: &mut State, _: &mut Guest<'_>, fd: u32) -> Answer {
    match state.fds.get(fd)? {
        Fd::File(file) => Ok(file.open.file.sync_data()?),
        Fd::Dir(dir) => Ok(dir.node.sync()?),
        Fd::Input | Fd::Output | Fd::Error | Fd::Socket(_) => Ok(()),
    }
}

/// Advice may be ignored, and is.
pub(super) fn advise(
    state: &mut State,
    _: &mut Guest<'_>,
    fd: u32,
    _offset: u64,
    _length: u64,
    advice: u32,
) -> Answer {
    state.fds.file(fd)?;
    if advice > 5 { Err(Code::INVAL) } else { Ok(()) }
}

/// Not every host file system can do this, so none does, as in WASI's later versions.
pub(super) fn allocate(state: &mut State, _: &mut Guest<'_>, fd: u32, _offset: u64, _length: u64) -> Answer {
    state.fds.file(fd)?;
    Err(Code::NOTSUP)
}

pub(super) fn fdstat_get(state: &mut State, guest: &mut Guest<'_>, fd: u32, out: u32) -> Answer {
    let kind = stream_type(state, fd)?;
    let found = state.fds.look(fd)?;
    let stream = |index: usize| if state.nonblocking[index] { FDFLAGS_NONBLOCK } else { 0 };
    let (kind, flags) = match found {
        Fd::Input => (kind, stream(0)),
        Fd::Output => (kind, stream(1)),
        Fd::Error => (kind, stream(2)),
        Fd::File(file) => (FILETYPE_FILE, file.flags),
        Fd::Dir(_) => (FILETYPE_DIR, 0),
        Fd::Socket(socket) => (FILETYPE_SOCKET, socket.flags),
    };
    guest.put(out, &fdstat(kind, flags, found.rights()))
}

/// A stream's type: a character device if it is a terminal.
fn stream_type(state: &State, fd: u32) -> Result<u8, Code> {
    let streams = &state.streams;
    let terminal = match state.fds.look(fd)? {
        Fd::Input => streams.terminal || streams.stdin.is_terminal(),
        Fd::Output => streams.terminal || streams.stdout.is_terminal(),
        Fd::Error => streams.terminal || streams.stderr.is_terminal(),
        Fd::File(_) | Fd::Dir(_) | Fd::Socket(_) => false,
    };
    Ok(if terminal { FILETYPE_CHAR } else { FILETYPE_UNKNOWN })
}

pub(super) fn fdstat_set_flags(state: &mut State, _: &mut Guest<'_>, fd: u32, flags: u32) -> Answer {
    let flags = fdflags(flags)?;
    match state.fds.get(fd)? {
        Fd::File(file) => {
            set_append(&file.open.file, flags & FDFLAGS_APPEND != 0, file.flags & FDFLAGS_APPEND != 0)?;
            file.flags = flags;
            Ok(())
        }
        Fd::Dir(_) => Err(Code::BADF),
        Fd::Socket(socket) => socket.set_flags(flags),
        Fd::Input | Fd::Output | Fd::Error if flags != 0 && !cfg!(unix) => Err(Code::NOTSUP),
        Fd::Input => state.set_nonblocking(0, flags),
        Fd::Output => state.set_nonblocking(1, flags),
        Fd::Error => state.set_nonblocking(2, flags),
    }
}

impl State {
    fn set_nonblocking(&mut self, stream: usize, flags: u16) -> Answer {
        self.nonblocking[stream] = flags & FDFLAGS_NONBLOCK != 0;
        Ok(())
    }
}

/// Flags that exist.
pub(super) fn fdflags(flags: u32) -> Result<u16, Code> {
    u16::try_from(flags).ok().filter(|flags| flags & !FDFLAGS_ALL == 0).ok_or(Code::INVAL)
}

#[cfg(unix)]
fn set_append(file: &std::fs::File, append: bool, _before: bool) -> Answer {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let failed = |error| Code::from(super::super::union::Errno::from(error));
    let mut flags = fcntl_getfl(file).map_err(failed)?;
    flags.set(OFlags::APPEND, append);
    fcntl_setfl(file, flags).map_err(failed)
}

#[cfg(not(unix))]
fn set_append(_file: &std::fs::File, append: bool, before: bool) -> Answer {
    if append == before { Ok(()) } else { Err(Code::NOTSUP) }
}

/// Rights are told and not enforced, so there are none to give up. Later versions of WASI have done away with them.
pub(super) fn fdstat_set_rights(
    state: &mut State,
    _: &mut Guest<'_>,
    fd: u32,
    _base: u64,
    _inheriting: u64,
) -> Answer {
    state.fds.get(fd)?;
    Err(Code::NOTSUP)
}

pub(super) fn filestat_get(state: &mut State, guest: &mut Guest<'_>, fd: u32, out: u32) -> Answer {
    let stat = stat(state, fd)?;
    guest.put(out, &stat)
}

/// As `wasi_unstable` has it.
pub(super) fn old_filestat_get(state: &mut State, guest: &mut Guest<'_>, fd: u32, out: u32) -> Answer {
    let stat = stat(state, fd)?;
    guest.put(out, &old_filestat(&stat))
}

fn stat(state: &State, fd: u32) -> Result<[u8; 64], Code> {
    let only_type = |kind| {
        let mut stat = [0; 64];
        stat[16] = kind;
        stat
    };
    Ok(match state.fds.look(fd)? {
        Fd::File(file) => filestat(&file.open.about.metadata(&file.open.file)?),
        Fd::Dir(dir) => filestat(&dir.node.metadata()?),
        Fd::Input | Fd::Output | Fd::Error => only_type(stream_type(state, fd)?),
        Fd::Socket(_) => only_type(FILETYPE_SOCKET),
    })
}

pub(super) fn filestat_set_size(state: &mut State, _: &mut Guest<'_>, fd: u32, size: u64) -> Answer {
    let file = state.fds.file(fd)?;
    if !file.write {
        return Err(Code::INVAL);
    }
    Ok(file.open.file.set_len(size)?)
}

pub(super) fn filestat_set_times(
    state: &mut State,
    _: &mut Guest<'_>,
    fd: u32,
    accessed: u64,
    modified: u64,
    which: u32,
) -> Answer {
    let times = times(accessed, modified, which)?;
    match state.fds.get(fd)? {
        Fd::File(file) => Ok(file.open.about.set_times(&file.open.file, times)?),
        Fd::Dir(dir) => Ok(dir.node.set_times(times)?),
        Fd::Input | Fd::Output | Fd::Error | Fd::Socket(_) => Err(Code::BADF),
    }
}

/// Access and modification time from a guest's numbers; `None` is to be left alone.
pub(super) fn times(
    accessed: u64,
    modified: u64,
    which: u32,
) -> Result<(Option<SystemTime>, Option<SystemTime>), Code> {
    let one = |nanos: u64, set: u32, now: u32| match (which & set != 0, which & now != 0) {
        (true, true) => Err(Code::INVAL),
        (true, false) => {
            let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(nanos));
            time.map(Some).ok_or(Code::OVERFLOW)
        }
        (false, true) => Ok(Some(SystemTime::now())),
        (false, false) => Ok(None),
    };
    if which > 15 {
        return Err(Code::INVAL);
    }
    Ok((one(accessed, FST_ATIM, FST_ATIM_NOW)?, one(modified, FST_MTIM, FST_MTIM_NOW)?))
}
