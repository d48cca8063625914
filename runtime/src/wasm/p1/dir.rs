//! Preopened directories' names, and listing directories. A listing is taken once, when a guest asks for its
//! beginning, so n entries cost O(n) and cookies stay what they were.

use super::State;
use super::abi::{FILETYPE_DIR, filetype};
use super::errno::{Answer, Code};
use super::memory::Guest;

/// Bytes before the name of a `dirent`.
const HEADER: usize = 24;

pub(super) fn prestat_get(state: &mut State, guest: &mut Guest<'_>, fd: u32, out: u32) -> Answer {
    let length = preopen(state, fd)?.len();
    // The tag of a directory is 0.
    guest.put_u32(out, 0)?;
    guest.put_count(out.checked_add(4).ok_or(Code::FAULT)?, length)
}

pub(super) fn prestat_dir_name(
    state: &mut State,
    guest: &mut Guest<'_>,
    fd: u32,
    buffer: u32,
    length: u32,
) -> Answer {
    let name = preopen(state, fd)?;
    if name.len() > length as usize {
        return Err(Code::NAMETOOLONG);
    }
    guest.put(buffer, name.as_bytes())
}

/// `EBADF` is what ends a library's search for preopened directories.
fn preopen(state: &mut State, fd: u32) -> Result<&str, Code> {
    let dir = state.fds.dir(fd).map_err(|_| Code::BADF)?;
    dir.preopen.as_deref().ok_or(Code::BADF)
}

pub(super) fn readdir(
    state: &mut State,
    guest: &mut Guest<'_>,
    fd: u32,
    buffer: u32,
    length: u32,
    cookie: u64,
    out: u32,
) -> Answer {
    let target = guest.bytes_mut(buffer, length)?;
    let dir = state.fds.dir(fd)?;
    if cookie == 0 {
        dir.listing = None;
    }
    let listing = match &mut dir.listing {
        Some(listing) => listing,
        empty => empty.insert(dir.node.list()?),
    };
    let first = usize::try_from(cookie).map_err(|_| Code::INVAL)?;
    // Cookies count entries; the first two are not in the listing.
    let mut used = 0;
    for index in first..listing.len().saturating_add(2) {
        let (name, kind, ino) = match index {
            0 => (".", FILETYPE_DIR, dir.node.metadata()?.ino),
            1 => ("..", FILETYPE_DIR, dir.node.above()?.ino),
            _ => {
                let entry = listing.get(index - 2).ok_or(Code::INVAL)?;
                (entry.name, filetype(entry.kind), entry.ino)
            }
        };
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(&(index as u64 + 1).to_le_bytes());
        header[8..16].copy_from_slice(&ino.to_le_bytes());
        header[16..20].copy_from_slice(&u32::try_from(name.len()).map_err(|_| Code::OVERFLOW)?.to_le_bytes());
        header[20] = kind;
        for part in [&header[..], name.as_bytes()] {
            let room = target.len() - used;
            let take = part.len().min(room);
            target[used..used + take].copy_from_slice(&part[..take]);
            used += take;
        }
        // A full buffer, also with half an entry in it, says that there is more.
        if used == target.len() {
            break;
        }
    }
    guest.put_count(out, used)
}
