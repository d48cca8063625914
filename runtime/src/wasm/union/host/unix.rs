//! Directory handles by `*at` system calls.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};

use super::{Kind, OpenHow, RawEntry, Stat};
use crate::wasm::union::errno::{Errno, Result};

/// An open directory.
#[derive(Debug)]
pub(crate) struct Dir(OwnedFd);

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Dir {
    /// Opens a directory of the host by path, links followed: for paths from the bundle, never from a guest.
    pub(crate) fn open_ambient(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(fs::open(path, flags, Mode::empty())?))
    }

    pub(crate) fn open_dir(&self, name: &str) -> Result<Self> {
        match fs::openat(&self.0, name, DIRECTORY, Mode::empty()) {
            // A directory that may be searched but not listed.
            #[cfg(target_os = "linux")]
            Err(rustix::io::Errno::ACCESS) => {
                Ok(Self(fs::openat(&self.0, name, DIRECTORY | OFlags::PATH, Mode::empty())?))
            }
            opened => Ok(Self(opened?)),
        }
    }

    /// Opens a regular file. Never blocks on a fifo that somebody put there in the meantime.
    pub(crate) fn open_file(&self, name: &str, how: &OpenHow) -> Result<File> {
        let mut flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        flags |= match (how.read, how.write || how.append) {
            (true, true) => OFlags::RDWR,
            (false, true) => OFlags::WRONLY,
            (_, false) => OFlags::RDONLY,
        };
        flags.set(OFlags::APPEND, how.append);
        flags.set(OFlags::TRUNC, how.truncate);
        flags.set(OFlags::CREATE | OFlags::EXCL, how.create_new);
        Ok(fs::openat(&self.0, name, flags, permissions(how.mode))?.into())
    }

    pub(crate) fn stat(&self, name: &str) -> Result<Stat> {
        Ok(stat_from(&fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?))
    }

    pub(crate) fn stat_self(&self) -> Result<Stat> {
        Ok(stat_from(&fs::fstat(&self.0)?))
    }

    pub(crate) fn mkdir(&self, name: &str, mode: u32) -> Result<()> {
        Ok(fs::mkdirat(&self.0, name, permissions(mode))?)
    }

    pub(crate) fn unlink(&self, name: &str) -> Result<()> {
        match fs::unlinkat(&self.0, name, AtFlags::empty()) {
            // macOS says "not permitted" for a directory, as POSIX allows.
            Err(rustix::io::Errno::PERM) if cfg!(target_vendor = "apple") => Err(Errno::IsDir),
            done => Ok(done?),
        }
    }

    pub(crate) fn rmdir(&self, name: &str) -> Result<()> {
        Ok(fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR)?)
    }

    pub(crate) fn rename(&self, name: &str, to: &Self, to_name: &str) -> Result<()> {
        Ok(fs::renameat(&self.0, name, &to.0, to_name)?)
    }

    pub(crate) fn link(&self, name: &str, to: &Self, to_name: &str) -> Result<()> {
        Ok(fs::linkat(&self.0, name, &to.0, to_name, AtFlags::empty())?)
    }

    pub(crate) fn symlink(&self, target: &str, name: &str) -> Result<()> {
        Ok(fs::symlinkat(target, &self.0, name)?)
    }

    pub(crate) fn readlink(&self, name: &str) -> Result<String> {
        let target = fs::readlinkat(&self.0, name, Vec::new())?;
        target.into_string().map_err(|_| Errno::IllegalSequence)
    }

    /// `None` leaves a time as it is.
    pub(crate) fn set_times(
        &self,
        name: &str,
        accessed: Option<SystemTime>,
        modified: Option<SystemTime>,
    ) -> Result<()> {
        let times = Timestamps { last_access: timespec(accessed), last_modification: timespec(modified) };
        Ok(fs::utimensat(&self.0, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    pub(crate) fn list(&self) -> Result<Vec<RawEntry>> {
        let mut entries = Vec::new();
        for entry in fs::Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                let name = std::ffi::OsString::from_vec(name.to_vec());
                entries.push(RawEntry { name, kind: kind_from(entry.file_type()), ino: entry.ino() });
            }
        }
        Ok(entries)
    }

    /// Whether the kernel's overlay would show nothing below this directory.
    pub(crate) fn is_opaque(&self) -> bool {
        #[cfg(target_os = "linux")]
        {
            let mut value = [0u8; 2];
            ["trusted.overlay.opaque", "user.overlay.opaque"].iter().any(|name| {
                fs::fgetxattr(&self.0, *name, &mut value).is_ok_and(|length| length == 1 && value[0] == b'y')
            })
        }
        #[cfg(not(target_os = "linux"))]
        false
    }

    /// Flushes the directory itself.
    pub(crate) fn sync(&self) -> Result<()> {
        Ok(fs::fsync(&self.0)?)
    }

    /// Gives a new file the mode, owner and times of the one it replaces; the owner only where this process may.
    pub(crate) fn imitate(&self, name: &str, file: Option<&File>, like: &Stat) -> Result<()> {
        if let Some((user, group)) = like.owner {
            use rustix::process::{Gid, Uid};
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            match fs::chownat(&self.0, name, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)), flags) {
                Err(rustix::io::Errno::PERM | rustix::io::Errno::INVAL) => {}
                done => done?,
            }
        }
        match file {
            Some(file) => fs::fchmod(file, permissions(like.mode))?,
            None if like.kind == Kind::Dir => {
                fs::chmodat(&self.0, name, permissions(like.mode), AtFlags::empty())?;
            }
            None => {}
        }
        self.set_times(name, like.accessed, like.modified)
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::unnecessary_cast,
    reason = "the type's width differs between systems; twelve bits fit in all"
)]
fn permissions(bits: u32) -> Mode {
    Mode::from_raw_mode((bits & 0o7777) as fs::RawMode)
}

/// An open file's metadata.
pub(crate) fn stat_file(file: &File) -> Result<Stat> {
    Ok(stat_from(&fs::fstat(file)?))
}

fn timespec(time: Option<SystemTime>) -> Timespec {
    let Some(time) = time else { return Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT } };
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => Timespec {
            tv_sec: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(after.subsec_nanos()),
        },
        // Nanoseconds count upwards on both sides of the epoch.
        Err(before) => {
            let before = before.duration();
            let seconds = i64::try_from(before.as_secs()).unwrap_or(i64::MAX - 1);
            match i64::from(before.subsec_nanos()) {
                0 => Timespec { tv_sec: -seconds, tv_nsec: 0 },
                nanos => Timespec { tv_sec: -seconds - 1, tv_nsec: 1_000_000_000 - nanos },
            }
        }
    }
}

fn system_time(seconds: i64, nanos: u64) -> Option<SystemTime> {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(whole)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(whole)
    };
    base?.checked_add(Duration::from_nanos(nanos.min(999_999_999)))
}

fn kind_from(kind: FileType) -> Kind {
    match kind {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Symlink,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::Unknown => Kind::Unknown,
    }
}

#[allow(
    clippy::useless_conversion,
    clippy::unnecessary_cast,
    clippy::cast_sign_loss,
    reason = "the fields' types differ between systems"
)]
fn stat_from(stat: &fs::Stat) -> Stat {
    let kind = kind_from(FileType::from_raw_mode(stat.st_mode));
    Stat {
        kind,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        links: u64::from(stat.st_nlink),
        dev: stat.st_dev as u64,
        ino: stat.st_ino,
        mode: u32::from(stat.st_mode) & 0o7777,
        owner: Some((stat.st_uid, stat.st_gid)),
        whiteout: kind == Kind::CharDevice && stat.st_rdev == 0,
        accessed: system_time(stat.st_atime, stat.st_atime_nsec as u64),
        modified: system_time(stat.st_mtime, stat.st_mtime_nsec as u64),
        changed: system_time(stat.st_ctime, stat.st_ctime_nsec as u64),
    }
}

/// The name as text; hosts that keep names as bytes may have others, which no guest can name.
pub(crate) fn name_str(name: &OsStr) -> Option<&str> {
    std::str::from_utf8(name.as_bytes()).ok()
}
