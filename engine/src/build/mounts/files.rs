//! Owners, modes and locks of what is mounted for steps.

use std::fs::File;
use std::path::Path;

use crate::error::Result;

/// Gives an open file its owner and mode.
#[cfg(unix)]
pub(super) fn dress(file: &File, owner: (u32, u32), mode: u32) -> Result<()> {
    use rustix::fs::{Gid, Mode, Uid};
    #[allow(clippy::useless_conversion, reason = "it is narrower on other systems")]
    let mode = Mode::from_raw_mode(mode.try_into().unwrap_or_default());
    let set = || -> rustix::io::Result<()> {
        if owner != (0, 0) {
            rustix::fs::fchown(file, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
        }
        rustix::fs::fchmod(file, mode)
    };
    Ok(set().map_err(std::io::Error::from)?)
}

/// As [`dress`], for a directory.
#[cfg(unix)]
pub(super) fn dress_directory(path: &Path, owner: (u32, u32), mode: u32) -> Result<()> {
    dress(&open(path)?, owner, mode)
}

/// What is locked by who has a cache to itself.
#[cfg(unix)]
pub(super) fn lock_of(place: &Path) -> Result<File> {
    open(place)
}

/// A directory, and no link to one.
#[cfg(unix)]
fn open(path: &Path) -> Result<File> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(openat(CWD, path, flags, Mode::empty()).map_err(std::io::Error::from)?.into())
}

/// Files have neither here.
#[cfg(not(unix))]
pub(super) fn dress(_: &File, _: (u32, u32), _: u32) -> Result<()> {
    Ok(())
}

/// Directories have neither here.
#[cfg(not(unix))]
pub(super) fn dress_directory(_: &Path, _: (u32, u32), _: u32) -> Result<()> {
    Ok(())
}

/// What is locked by who has a cache to itself: a file beside it, because a directory cannot be.
#[cfg(not(unix))]
pub(super) fn lock_of(place: &Path) -> Result<File> {
    let mut options = fs_err::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    Ok(options.open(place.with_extension("lock"))?.into_parts().0)
}
