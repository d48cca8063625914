//! Directory handles by `*at` system calls.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};

use super::{Kind, OpenHow, RawEntry, Stat, xattr};
use crate::wasm::union::errno::{Errno, Result};

/// An open directory.
#[derive(Debug)]
pub(crate) struct Dir(OwnedFd);

impl From<OwnedFd> for Dir {
    fn from(directory: OwnedFd) -> Self {
        Self(directory)
    }
}

#[cfg(target_os = "linux")]
impl std::os::fd::AsFd for Dir {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Dir {
    /// Opens a directory of the host by path, links followed: for paths from the bundle, never from a guest.
    pub(crate) fn open_ambient(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(fs::open(path, flags, Mode::empty())?))
    }

    /// A handle on an object, with which it can only be named.
    #[cfg(target_os = "linux")]
    pub(crate) fn handle(&self, name: impl AsRef<OsStr>) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(fs::openat(&self.0, name.as_ref(), flags, Mode::empty())?)
    }

    /// A directory that is open already.
    #[cfg(target_os = "linux")]
    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    pub(crate) fn open_dir(&self, name: impl AsRef<OsStr>) -> Result<Self> {
        match fs::openat(&self.0, name.as_ref(), DIRECTORY, Mode::empty()) {
            // A directory that may be searched but not listed.
            #[cfg(target_os = "linux")]
            Err(rustix::io::Errno::ACCESS) => {
                Ok(Self(fs::openat(&self.0, name.as_ref(), DIRECTORY | OFlags::PATH, Mode::empty())?))
            }
            opened => Ok(Self(opened?)),
        }
    }

    /// Opens a regular file. Never blocks on a fifo that somebody put there in the meantime.
    pub(crate) fn open_file(&self, name: impl AsRef<OsStr>, how: &OpenHow) -> Result<File> {
        let mut flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        flags |= match (how.read, how.write || how.append) {
            (true, true) => OFlags::RDWR,
            (false, true) => OFlags::WRONLY,
            (_, false) => OFlags::RDONLY,
        };
        flags.set(OFlags::APPEND, how.append);
        flags.set(OFlags::TRUNC, how.truncate);
        flags.set(OFlags::CREATE | OFlags::EXCL, how.create_new);
        Ok(fs::openat(&self.0, name.as_ref(), flags, permissions(how.mode))?.into())
    }

    pub(crate) fn stat(&self, name: impl AsRef<OsStr>) -> Result<Stat> {
        Ok(stat_from(&fs::statat(&self.0, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW)?))
    }

    pub(crate) fn stat_self(&self) -> Result<Stat> {
        Ok(stat_from(&fs::fstat(&self.0)?))
    }

    pub(crate) fn mkdir(&self, name: impl AsRef<OsStr>, mode: u32) -> Result<()> {
        Ok(fs::mkdirat(&self.0, name.as_ref(), permissions(mode))?)
    }

    pub(crate) fn unlink(&self, name: impl AsRef<OsStr>) -> Result<()> {
        match fs::unlinkat(&self.0, name.as_ref(), AtFlags::empty()) {
            // macOS says "not permitted" for a directory, as POSIX allows.
            Err(rustix::io::Errno::PERM) if cfg!(target_vendor = "apple") => Err(Errno::IsDir),
            done => Ok(done?),
        }
    }

    pub(crate) fn rmdir(&self, name: impl AsRef<OsStr>) -> Result<()> {
        Ok(fs::unlinkat(&self.0, name.as_ref(), AtFlags::REMOVEDIR)?)
    }

    pub(crate) fn rename(
        &self,
        name: impl AsRef<OsStr>,
        to: &Self,
        to_name: impl AsRef<OsStr>,
    ) -> Result<()> {
        Ok(fs::renameat(&self.0, name.as_ref(), &to.0, to_name.as_ref())?)
    }

    /// As [`Self::rename`], but fails with `Exists` when there is something.
    pub(crate) fn rename_new(
        &self,
        name: impl AsRef<OsStr>,
        to: &Self,
        to_name: impl AsRef<OsStr>,
    ) -> Result<()> {
        #[cfg(any(target_os = "linux", target_vendor = "apple"))]
        match fs::renameat_with(&self.0, name.as_ref(), &to.0, to_name.as_ref(), fs::RenameFlags::NOREPLACE) {
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {}
            done => return Ok(done?),
        }
        // A file system without that: whoever else wants the name is kept away by the lock.
        match to.stat(to_name.as_ref()) {
            Ok(_) => Err(Errno::Exists),
            Err(Errno::NotFound) => self.rename(name, to, to_name),
            Err(error) => Err(error),
        }
    }

    /// Each takes the other's place: an object and the kernel overlay's mark, which exists on Linux only.
    #[cfg(target_os = "linux")]
    pub(crate) fn exchange(
        &self,
        name: impl AsRef<OsStr>,
        with: &Self,
        with_name: impl AsRef<OsStr>,
    ) -> Result<()> {
        let flags = fs::RenameFlags::EXCHANGE;
        Ok(fs::renameat_with(&self.0, name.as_ref(), &with.0, with_name.as_ref(), flags)?)
    }

    /// See there.
    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::unused_self, reason = "same shape as on Linux")]
    pub(crate) fn exchange(
        &self,
        _name: impl AsRef<OsStr>,
        _with: &Self,
        _with_name: impl AsRef<OsStr>,
    ) -> Result<()> {
        Err(Errno::NotSupported)
    }

    /// Makes the kernel overlay's mark: for names that ours would make too long.
    pub(crate) fn make_kernel_mark(&self, name: impl AsRef<OsStr>) -> Result<()> {
        #[cfg(target_os = "linux")]
        {
            let kind = FileType::CharacterDevice;
            Ok(fs::mknodat(&self.0, name.as_ref(), kind, Mode::empty(), 0)?)
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = name;
            Err(Errno::NameTooLong)
        }
    }

    pub(crate) fn link(&self, name: impl AsRef<OsStr>, to: &Self, to_name: impl AsRef<OsStr>) -> Result<()> {
        Ok(fs::linkat(&self.0, name.as_ref(), &to.0, to_name.as_ref(), AtFlags::empty())?)
    }

    pub(crate) fn symlink(&self, target: impl AsRef<OsStr>, name: impl AsRef<OsStr>) -> Result<()> {
        Ok(fs::symlinkat(target.as_ref(), &self.0, name.as_ref())?)
    }

    /// A symbolic link's target, which need not be text.
    pub(crate) fn readlink(&self, name: impl AsRef<OsStr>) -> Result<OsString> {
        let target = fs::readlinkat(&self.0, name.as_ref(), Vec::new())?;
        Ok(OsString::from_vec(target.into_bytes()))
    }

    /// `None` leaves a time as it is.
    pub(crate) fn set_times(
        &self,
        name: impl AsRef<OsStr>,
        accessed: Option<SystemTime>,
        modified: Option<SystemTime>,
    ) -> Result<()> {
        let times = Timestamps { last_access: timespec(accessed), last_modification: timespec(modified) };
        Ok(fs::utimensat(&self.0, name.as_ref(), &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Calls `each` for every entry, without keeping any.
    pub(crate) fn list(&self, mut each: impl FnMut(RawEntry<'_>) -> Result<()>) -> Result<()> {
        for entry in fs::Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                let name = OsStr::from_bytes(name);
                each(RawEntry { name, kind: kind_from(entry.file_type()), ino: entry.ino() })?;
            }
        }
        Ok(())
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

    /// A mark of ours on this directory.
    pub(crate) fn mark(&self, mark: &str) -> Option<Vec<u8>> {
        xattr::get(&self.0, mark)
    }

    /// Puts a mark on this directory; whether that worked.
    pub(crate) fn set_mark(&self, mark: &str, value: &[u8]) -> bool {
        xattr::set(&self.0, mark, value)
    }

    /// Gives it the attributes that `like` has.
    pub(crate) fn copy_attributes(&self, like: &Self) {
        xattr::copy(&like.0, &self.0);
    }

    /// Flushes the directory itself.
    pub(crate) fn sync(&self) -> Result<()> {
        Ok(fs::fsync(&self.0)?)
    }

    /// Gives a new file the mode, owner and times of the one it replaces; the owner only where this process may.
    pub(crate) fn imitate(&self, name: impl AsRef<OsStr>, file: Option<&File>, like: &Stat) -> Result<()> {
        if let Some((user, group)) = like.owner {
            use rustix::process::{Gid, Uid};
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            match fs::chownat(
                &self.0,
                name.as_ref(),
                Some(Uid::from_raw(user)),
                Some(Gid::from_raw(group)),
                flags,
            ) {
                Err(rustix::io::Errno::PERM | rustix::io::Errno::INVAL) => {}
                done => done?,
            }
        }
        match file {
            Some(file) => fs::fchmod(file, permissions(like.mode))?,
            None if like.kind == Kind::Dir => {
                fs::chmodat(&self.0, name.as_ref(), permissions(like.mode), AtFlags::empty())?;
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

/// A mark of ours on an open file.
pub(crate) fn mark_of(file: &File, mark: &str) -> Option<Vec<u8>> {
    xattr::get(file, mark)
}

/// Puts a mark on an open file; whether that worked.
pub(crate) fn set_mark(file: &File, mark: &str, value: &[u8]) -> bool {
    xattr::set(file, mark, value)
}

/// Gives a new file the attributes of another, as far as this process may.
pub(crate) fn copy_attributes(from: &File, to: &File) {
    xattr::copy(from, to);
}

/// Copies a file's content; holes stay holes, and file systems that can share blocks do.
pub(crate) fn copy_data(from: &mut File, to: &mut File) -> Result<()> {
    #[cfg(target_os = "linux")]
    if copy_extents(from, to)? {
        return Ok(());
    }
    std::io::copy(from, to)?;
    Ok(())
}

/// The kernel copies; `false` when it cannot, and nothing was done.
#[cfg(target_os = "linux")]
fn copy_extents(from: &File, to: &File) -> Result<bool> {
    use rustix::io::Errno as Os;
    let size = from.metadata()?.len();
    let mut at = 0;
    while at < size {
        at = match fs::seek(from, fs::SeekFrom::Data(at)) {
            Ok(data) => data,
            // Only a hole is left.
            Err(Os::NXIO) => break,
            Err(Os::INVAL) if at == 0 => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let end = fs::seek(from, fs::SeekFrom::Hole(at))?.min(size);
        while at < end {
            let (mut source, mut target) = (at, at);
            let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(1 << 30);
            match fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), length) {
                // Became shorter meanwhile.
                Ok(0) => return Ok(true),
                Ok(_) => at = source,
                Err(Os::INTR) => {}
                Err(Os::XDEV | Os::NOSYS | Os::INVAL | Os::OPNOTSUPP | Os::PERM | Os::BADF) => {
                    copy_by_hand(from, to, at, end)?;
                    at = end;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    to.set_len(size)?;
    Ok(true)
}

/// From one file system to another, or where the kernel does not copy.
#[cfg(target_os = "linux")]
fn copy_by_hand(from: &File, to: &File, mut at: u64, end: u64) -> Result<()> {
    use std::os::unix::fs::FileExt as _;
    let mut buffer = vec![0; 256 << 10];
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        match from.read_at(&mut buffer[..want], at)? {
            0 => break,
            read => {
                to.write_all_at(&buffer[..read], at)?;
                at += read as u64;
            }
        }
    }
    Ok(())
}

/// Keeps other processes out, see [`super::super::fs::Fs::exclusive`].
#[derive(Debug)]
pub(crate) struct LockFile(std::sync::Arc<Dir>);

impl LockFile {
    /// The lock of everybody who uses this writable directory.
    #[expect(clippy::unnecessary_wraps, reason = "same shape as the other host's")]
    pub(crate) fn of(dir: &std::sync::Arc<Dir>) -> Result<Self> {
        Ok(Self(std::sync::Arc::clone(dir)))
    }

    /// Takes it, unless somebody else has it.
    pub(crate) fn try_lock(&self) -> bool {
        let taken = fs::flock(&self.0.0, fs::FlockOperation::NonBlockingLockExclusive);
        // A file system without locks has nobody who could hold one.
        !matches!(taken, Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR))
    }

    /// Gives it back.
    pub(crate) fn unlock(&self) {
        // What can fail here has not been locked.
        fs::flock(&self.0.0, fs::FlockOperation::Unlock).ok();
    }
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

/// A name from bytes of another.
#[expect(clippy::unnecessary_wraps, reason = "same shape as the other host's")]
pub(crate) fn name_from(bytes: &[u8]) -> Option<OsString> {
    Some(OsString::from_vec(bytes.to_vec()))
}
