//! `tmpcopyup`: a new tmpfs starts with what the image has in its place.
//!
//! The copy goes from handle to handle, so that no link leads it elsewhere; the size of the tmpfs bounds it. Content,
//! kinds, modes, owners and times are kept; other links to the same file become files of their own.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, chownat, fchmod, mkdirat,
    mknodat, openat, readlinkat, statat, symlinkat, utimensat,
};
use rustix::io::{Errno, Result};

/// Directories in each other.
const DEEPEST: u32 = 256;
const BLOCK: usize = 64 << 10;

/// Copies all that is in the directory `from` into the directory `to`, which gets its mode and owner.
pub(super) fn copy_up(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    // The handle of a mount point is only good for looking.
    let from = openat(from, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let to = openat(to, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let stat = rustix::fs::fstat(&from)?;
    let mut block = vec![0; BLOCK];
    directory(from.as_fd(), to.as_fd(), 0, &mut block)?;
    rustix::fs::fchown(&to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(&to, Mode::from_raw_mode(stat.st_mode))
}

fn directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: u32, block: &mut [u8]) -> Result<()> {
    if depth > DEEPEST {
        return Err(Errno::NAMETOOLONG);
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(stat.st_mode);
        let below = OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                mkdirat(to, name, Mode::RWXU)?;
                let flags = below | OFlags::RDONLY | OFlags::DIRECTORY;
                let inner = openat(from, name, flags, Mode::empty())?;
                let made = openat(to, name, flags, Mode::empty())?;
                directory(inner.as_fd(), made.as_fd(), depth + 1, block)?;
                own(to, name, &stat)?;
                fchmod(&made, mode)?;
            }
            FileType::RegularFile => {
                let source = openat(from, name, below | OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
                let flags = below | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
                let target = openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
                content(&source, &target, block)?;
                own(to, name, &stat)?;
                fchmod(&target, mode)?;
            }
            FileType::Symlink => {
                symlinkat(readlinkat(from, name, Vec::new())?.as_c_str(), to, name)?;
                own(to, name, &stat)?;
            }
            FileType::Socket | FileType::Unknown => continue,
            kind => match mknodat(to, name, kind, mode, stat.st_rdev) {
                // In a user namespace there are no devices.
                Err(Errno::PERM) => continue,
                made => {
                    made?;
                    own(to, name, &stat)?;
                }
            },
        }
        let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
        let nanoseconds = |value: u64| i64::try_from(value).unwrap_or(0);
        let times = Timestamps {
            last_access: time(stat.st_atime, nanoseconds(stat.st_atime_nsec)),
            last_modification: time(stat.st_mtime, nanoseconds(stat.st_mtime_nsec)),
        };
        utimensat(to, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

fn own(dir: BorrowedFd<'_>, name: &std::ffi::CStr, stat: &Stat) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

fn content(from: &OwnedFd, to: &OwnedFd, block: &mut [u8]) -> Result<()> {
    loop {
        let length = rustix::io::retry_on_intr(|| rustix::io::read(from, &mut *block))?;
        let mut rest = block.get(..length).unwrap_or_default();
        if rest.is_empty() {
            return Ok(());
        }
        while !rest.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::write(to, rest))?;
            rest = rest.get(written..).unwrap_or_default();
        }
    }
}
