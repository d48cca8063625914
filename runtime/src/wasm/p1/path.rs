//! What is done with paths. Each is resolved by the union, from the directory of a descriptor.
#![expect(clippy::too_many_arguments, reason = "they are WASI's")]

use super::State;
use super::abi::*;
use super::errno::{Answer, Code};
use super::fd::{fdflags, times};
use super::memory::Guest;
use super::table::{DirFd, Fd, FileFd};
use crate::wasm::union::{Errno, Open, Opened};

pub(super) fn open(
    state: &mut State,
    guest: &mut Guest<'_>,
    fd: u32,
    lookup: u32,
    path: u32,
    length: u32,
    oflags: u32,
    base: u64,
    inheriting: u64,
    flags: u32,
    out: u32,
) -> Answer {
    let flags = fdflags(flags)?;
    // Before anything is created or cut off that could not be told the guest.
    guest.u32(out)?;
    let path = guest.text(path, length)?;
    let dir = state.fds.base(fd, path)?;
    let write = base & RIGHT_WRITE != 0;
    let directory = oflags & OFLAGS_DIRECTORY != 0;
    let how = Open {
        read: base & (RIGHT_READ | RIGHT_READDIR) != 0 && (base & RIGHT_READ != 0 || !write),
        write,
        append: write && flags & FDFLAGS_APPEND != 0,
        create: oflags & OFLAGS_CREAT != 0,
        exclusive: oflags & OFLAGS_EXCL != 0,
        truncate: oflags & OFLAGS_TRUNC != 0,
        directory,
        follow: lookup & LOOKUP_FOLLOW != 0,
    };
    let opened = match state.union.open(&dir, path, &how)? {
        // A directory is never written.
        Opened::Dir(_) if write => return Err(Code::ISDIR),
        Opened::Dir(node) => {
            let new = DirFd::new(node);
            let rights = (base & new.rights.0, inheriting & new.rights.1);
            Fd::Dir(DirFd { rights, ..new })
        }
        Opened::File(open) => {
            let rights = (base & RIGHTS_FILE, inheriting & RIGHTS_FILE);
            Fd::File(FileFd { open, write, flags: flags & !FDFLAGS_RSYNC, rights })
        }
    };
    let number = state.fds.insert(opened)?;
    guest.put_u32(out, number)
}

pub(super) fn filestat_get(
    state: &mut State,
    guest: &mut Guest<'_>,
    fd: u32,
    lookup: u32,
    path: u32,
    length: u32,
    out: u32,
) -> Answer {
    let stat = stat(state, guest, fd, lookup, path, length)?;
    guest.put(out, &stat)
}

/// As `wasi_unstable` has it.
pub(super) fn old_filestat_get(
    state: &mut State,
    guest: &mut Guest<'_>,
    fd: u32,
    lookup: u32,
    path: u32,
    length: u32,
    out: u32,
) -> Answer {
    let stat = stat(state, guest, fd, lookup, path, length)?;
    guest.put(out, &old_filestat(&stat))
}

fn stat(
    state: &mut State,
    guest: &Guest<'_>,
    fd: u32,
    lookup: u32,
    path: u32,
    length: u32,
) -> Result<[u8; 64], Code> {
    let path = guest.text(path, length)?;
    let dir = state.fds.base(fd, path)?;
    Ok(filestat(&state.union.stat(&dir, path, lookup & LOOKUP_FOLLOW != 0)?))
}

pub(super) fn filestat_set_times(
    state: &mut State,
    guest: &mut Guest<'_>,
    fd: u32,
    lookup: u32,
    path: u32,
    length: u32,
    accessed: u64,
    modified: u64,
    which: u32,
) -> Answer {
    let times = times(accessed, modified, which)?;
    let path = guest.text(path, length)?;
    let dir = state.fds.base(fd, path)?;
    Ok(state.union.set_times(&dir, path, lookup & LOOKUP_FOLLOW != 0, times)?)
}

pub(super) fn create_directory(
    state: &mut State,
    guest: &mut Guest<'_>,
    fd: u32,
    path: u32,
    length: u32,
) -> Answer {
    let path = guest.text(path, length)?;
    let dir = state.fds.base(fd, path)?;
    Ok(state.union.mkdir(&dir, path)?)
}

pub(super) fn remove_directory(
    state: &mut State,
    guest: &mut Guest<'_>,
    fd: u32,
    path: u32,
    length: u32,
) -> Answer {
    let path = guest.text(path, length)?;
    let dir = state.fds.base(fd, path)?;
    Ok(state.union.rmdir(&dir, path)?)
}

pub(super) fn unlink_file(
    state: &mut State,
    guest: &mut Guest<'_>,
    fd: u32,
    path: u32,
    length: u32,
) -> Answer {
    let path = guest.text(path, length)?;
    let dir = state.fds.base(fd, path)?;
    Ok(state.union.unlink(&dir, path)?)
}

pub(super) fn link(
    state: &mut State,
    guest: &mut Guest<'_>,
    old_fd: u32,
    lookup: u32,
    old: u32,
    old_length: u32,
    new_fd: u32,
    new: u32,
    new_length: u32,
) -> Answer {
    let old = guest.text(old, old_length)?;
    let new = guest.text(new, new_length)?;
    let from = state.fds.base(old_fd, old)?;
    let to = state.fds.base(new_fd, new)?;
    Ok(state.union.link((&from, old), lookup & LOOKUP_FOLLOW != 0, (&to, new))?)
}

pub(super) fn rename(
    state: &mut State,
    guest: &mut Guest<'_>,
    old_fd: u32,
    old: u32,
    old_length: u32,
    new_fd: u32,
    new: u32,
    new_length: u32,
) -> Answer {
    let old = guest.text(old, old_length)?;
    let new = guest.text(new, new_length)?;
    let from = state.fds.base(old_fd, old)?;
    let to = state.fds.base(new_fd, new)?;
    Ok(state.union.rename((&from, old), (&to, new))?)
}

pub(super) fn symlink(
    state: &mut State,
    guest: &mut Guest<'_>,
    target: u32,
    target_length: u32,
    fd: u32,
    path: u32,
    length: u32,
) -> Answer {
    let target = guest.text(target, target_length)?;
    let path = guest.text(path, length)?;
    let dir = state.fds.base(fd, path)?;
    match state.union.symlink(target, &dir, path) {
        // As wasmtime has it: `name/` of what is no directory is wrong for that.
        Err(Errno::Exists)
            if path.ends_with('/') && matches!(state.union.stat(&dir, path, true), Err(Errno::NotDir)) =>
        {
            Err(Code::NOTDIR)
        }
        made => Ok(made?),
    }
}

/// What does not fit into the guest's buffer is cut off, as readlink(2) does.
pub(super) fn readlink(
    state: &mut State,
    guest: &mut Guest<'_>,
    fd: u32,
    path: u32,
    length: u32,
    buffer: u32,
    size: u32,
    out: u32,
) -> Answer {
    let path = guest.text(path, length)?;
    let dir = state.fds.base(fd, path)?;
    let target = state.union.readlink(&dir, path)?;
    let room = guest.bytes_mut(buffer, size)?;
    let take = target.len().min(room.len());
    room[..take].copy_from_slice(&target.as_bytes()[..take]);
    guest.put_count(out, take)
}
