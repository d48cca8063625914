//! What is done with paths. Each is resolved by the union, from the directory of a descriptor.
#![expect(clippy::too_many_arguments, reason = "they are WASI's")]

use super::State;
use super::abi::*;
use super::errno::Answer;
use super::fd::{fdflags, times};
use super::memory::Guest;
use super::table::{DirFd, Fd, FileFd};
use crate::wasm::union::{Open, Opened};

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
    let dir = state.fds.node(fd)?;
    let write = base & RIGHT_WRITE != 0;
    let how = Open {
        read: base & (RIGHT_READ | RIGHT_READDIR) != 0 && (base & RIGHT_READ != 0 || !write),
        write,
        append: write && flags & FDFLAGS_APPEND != 0,
        create: oflags & OFLAGS_CREAT != 0,
        exclusive: oflags & OFLAGS_EXCL != 0,
        truncate: oflags & OFLAGS_TRUNC != 0,
        directory: oflags & OFLAGS_DIRECTORY != 0,
        follow: lookup & LOOKUP_FOLLOW != 0,
    };
    let opened = match state.union.open(&dir, path, &how)? {
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
    let dir = state.fds.node(fd)?;
    let metadata = state.union.stat(&dir, guest.text(path, length)?, lookup & LOOKUP_FOLLOW != 0)?;
    guest.put(out, &filestat(&metadata))
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
    let dir = state.fds.node(fd)?;
    Ok(state.union.set_times(&dir, guest.text(path, length)?, lookup & LOOKUP_FOLLOW != 0, times)?)
}

pub(super) fn create_directory(
    state: &mut State,
    guest: &mut Guest<'_>,
    fd: u32,
    path: u32,
    length: u32,
) -> Answer {
    let dir = state.fds.node(fd)?;
    Ok(state.union.mkdir(&dir, guest.text(path, length)?)?)
}

pub(super) fn remove_directory(
    state: &mut State,
    guest: &mut Guest<'_>,
    fd: u32,
    path: u32,
    length: u32,
) -> Answer {
    let dir = state.fds.node(fd)?;
    Ok(state.union.rmdir(&dir, guest.text(path, length)?)?)
}

pub(super) fn unlink_file(
    state: &mut State,
    guest: &mut Guest<'_>,
    fd: u32,
    path: u32,
    length: u32,
) -> Answer {
    let dir = state.fds.node(fd)?;
    Ok(state.union.unlink(&dir, guest.text(path, length)?)?)
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
    let from = state.fds.node(old_fd)?;
    let to = state.fds.node(new_fd)?;
    let old = guest.text(old, old_length)?;
    let new = guest.text(new, new_length)?;
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
    let from = state.fds.node(old_fd)?;
    let to = state.fds.node(new_fd)?;
    Ok(state.union.rename((&from, guest.text(old, old_length)?), (&to, guest.text(new, new_length)?))?)
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
    let dir = state.fds.node(fd)?;
    Ok(state.union.symlink(guest.text(target, target_length)?, &dir, guest.text(path, length)?)?)
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
    let dir = state.fds.node(fd)?;
    let target = state.union.readlink(&dir, guest.text(path, length)?)?;
    let room = guest.bytes_mut(buffer, size)?;
    let take = target.len().min(room.len());
    room[..take].copy_from_slice(&target.as_bytes()[..take]);
    guest.put_count(out, take)
}
