//! Directory handles by cap-std: Windows, and hosts nobody has written better calls for.
//!
//! What such hosts do not have (owners, permission bits, inode numbers, times of directories) is left out.

#![cfg_attr(unix, allow(dead_code, reason = "compiled on Unix only so that tests keep it working"))]

use std::ffi::{OsStr, OsString};
use std::fs::{File, FileTimes};
use std::path::Path;
use std::time::SystemTime;

use cap_std::ambient_authority;
use cap_std::fs::{FileType, Metadata, OpenOptions};

use super::{Kind, OpenHow, RawEntry, Stat};
use crate::wasm::union::errno::{Errno, Result};

/// An open directory.
#[derive(Debug)]
pub(crate) struct Dir(cap_std::fs::Dir);

impl Dir {
    /// Opens a directory of the host by path, links followed: for paths from the bundle, never from a guest.
    pub(crate) fn open_ambient(path: &Path) -> Result<Self> {
        Ok(Self(cap_std::fs::Dir::open_ambient_dir(path, ambient_authority())?))
    }

    pub(crate) fn open_dir(&self, name: impl AsRef<OsStr>) -> Result<Self> {
        Ok(Self(self.0.open_dir(check(&name)?)?))
    }

    pub(crate) fn open_file(&self, name: impl AsRef<OsStr>, how: &OpenHow) -> Result<File> {
        let mut options = OpenOptions::new();
        options.read(how.read).write(how.write).append(how.append).create_new(how.create_new);
        options.truncate(how.truncate);
        Ok(self.0.open_with(check(&name)?, &options)?.into_std())
    }

    pub(crate) fn stat(&self, name: impl AsRef<OsStr>) -> Result<Stat> {
        Ok(stat_from(&self.0.symlink_metadata(check(&name)?)?))
    }

    pub(crate) fn stat_self(&self) -> Result<Stat> {
        Ok(stat_from(&self.0.dir_metadata()?))
    }

    pub(crate) fn mkdir(&self, name: impl AsRef<OsStr>, _mode: u32) -> Result<()> {
        Ok(self.0.create_dir(check(&name)?)?)
    }

    pub(crate) fn unlink(&self, name: impl AsRef<OsStr>) -> Result<()> {
        if self.stat(&name)?.kind == Kind::Dir {
            return Err(Errno::IsDir);
        }
        Ok(self.0.remove_file(check(&name)?)?)
    }

    pub(crate) fn rmdir(&self, name: impl AsRef<OsStr>) -> Result<()> {
        Ok(self.0.remove_dir(check(&name)?)?)
    }

    pub(crate) fn rename(
        &self,
        name: impl AsRef<OsStr>,
        to: &Self,
        to_name: impl AsRef<OsStr>,
    ) -> Result<()> {
        Ok(self.0.rename(check(&name)?, &to.0, check(&to_name)?)?)
    }

    pub(crate) fn link(&self, name: impl AsRef<OsStr>, to: &Self, to_name: impl AsRef<OsStr>) -> Result<()> {
        Ok(self.0.hard_link(check(&name)?, &to.0, check(&to_name)?)?)
    }

    pub(crate) fn symlink(&self, target: impl AsRef<OsStr>, name: impl AsRef<OsStr>) -> Result<()> {
        #[cfg(windows)]
        let made = self.0.symlink_file(target.as_ref(), check(&name)?);
        #[cfg(not(windows))]
        let made = self.0.symlink_contents(target.as_ref(), check(&name)?);
        Ok(made?)
    }

    /// A symbolic link's target, with `/` between names.
    pub(crate) fn readlink(&self, name: impl AsRef<OsStr>) -> Result<OsString> {
        let target = self.0.read_link_contents(check(&name)?)?.into_os_string();
        match target.to_str() {
            Some(text) if cfg!(windows) => Ok(text.replace('\\', "/").into()),
            _ => Ok(target),
        }
    }

    /// `None` leaves a time as it is. The times of directories cannot be set here.
    pub(crate) fn set_times(
        &self,
        name: impl AsRef<OsStr>,
        accessed: Option<SystemTime>,
        modified: Option<SystemTime>,
    ) -> Result<()> {
        let mut times = FileTimes::new();
        if let Some(accessed) = accessed {
            times = times.set_accessed(accessed);
        }
        if let Some(modified) = modified {
            times = times.set_modified(modified);
        }
        match self.stat(&name)?.kind {
            Kind::File => {
                let how = OpenHow { write: true, ..OpenHow::default() };
                Ok(self.open_file(name, &how)?.set_times(times)?)
            }
            _ => Err(Errno::NotSupported),
        }
    }

    /// Calls `each` for every entry, without keeping any.
    pub(crate) fn list(&self, mut each: impl FnMut(RawEntry<'_>) -> Result<()>) -> Result<()> {
        for entry in self.0.entries()? {
            let entry = entry?;
            let name = entry.file_name();
            each(RawEntry { name: &name, kind: kind_from(entry.file_type()?), ino: 0 })?;
        }
        Ok(())
    }

    /// As [`Self::rename`], but fails with `Exists` when there is something. Whoever else wants the name is kept away
    /// by the lock.
    pub(crate) fn rename_new(
        &self,
        name: impl AsRef<OsStr>,
        to: &Self,
        to_name: impl AsRef<OsStr>,
    ) -> Result<()> {
        match to.stat(&to_name) {
            Ok(_) => Err(Errno::Exists),
            Err(Errno::NotFound) => self.rename(name, to, to_name),
            Err(error) => Err(error),
        }
    }

    /// The kernel overlay's marks exist on Linux only.
    #[expect(clippy::unused_self, reason = "same shape as the other host's")]
    pub(crate) fn exchange(
        &self,
        _name: impl AsRef<OsStr>,
        _with: &Self,
        _with_name: impl AsRef<OsStr>,
    ) -> Result<()> {
        Err(Errno::NotSupported)
    }

    /// See [`Self::exchange`].
    #[expect(clippy::unused_self, reason = "same shape as the other host's")]
    pub(crate) fn make_kernel_mark(&self, _name: impl AsRef<OsStr>) -> Result<()> {
        Err(Errno::NameTooLong)
    }

    /// There are no attributes here.
    #[expect(clippy::unused_self, reason = "same shape as the other host's")]
    pub(crate) fn mark(&self, _mark: &str) -> Option<Vec<u8>> {
        None
    }

    /// There are no attributes here.
    #[expect(clippy::unused_self, reason = "same shape as the other host's")]
    pub(crate) fn set_mark(&self, _mark: &str, _value: &[u8]) -> bool {
        false
    }

    /// There are no attributes here.
    #[expect(clippy::unused_self, reason = "same shape as the other host's")]
    pub(crate) fn copy_attributes(&self, _like: &Self) {}

    /// The kernel overlay's mark exists on Linux only.
    #[expect(clippy::unused_self, reason = "same shape as the other host's")]
    pub(crate) fn is_opaque(&self) -> bool {
        false
    }

    /// Directories cannot be flushed here.
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "same shape as the other host's")]
    pub(crate) fn sync(&self) -> Result<()> {
        Ok(())
    }

    /// Gives a new file the times of the one it replaces.
    pub(crate) fn imitate(&self, name: impl AsRef<OsStr>, file: Option<&File>, like: &Stat) -> Result<()> {
        if file.is_some() {
            self.set_times(&name, like.accessed, like.modified)?;
        }
        Ok(())
    }
}

/// There are no attributes here.
pub(crate) fn mark_of(_file: &File, _mark: &str) -> Option<Vec<u8>> {
    None
}

/// There are no attributes here.
pub(crate) fn set_mark(_file: &File, _mark: &str, _value: &[u8]) -> bool {
    false
}

/// There are no attributes here.
pub(crate) fn copy_attributes(_from: &File, _to: &File) {}

/// Copies a file's content.
pub(crate) fn copy_data(from: &mut File, to: &mut File) -> Result<()> {
    std::io::copy(from, to)?;
    Ok(())
}

/// Keeps other processes out, see [`super::super::fs::Fs::exclusive`].
#[derive(Debug)]
pub(crate) struct LockFile(File);

impl LockFile {
    /// The lock of everybody who uses this writable directory: a hidden file in it.
    pub(crate) fn of(dir: &std::sync::Arc<Dir>) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true);
        Ok(Self(dir.0.open_with(".wh..wh.dhow.lock", &options)?.into_std()))
    }

    /// Takes it, unless somebody else has it.
    pub(crate) fn try_lock(&self) -> bool {
        // A file system without locks has nobody who could hold one.
        !matches!(self.0.try_lock(), Err(std::fs::TryLockError::WouldBlock))
    }

    /// Gives it back.
    pub(crate) fn unlock(&self) {
        // What can fail here has not been locked.
        self.0.unlock().ok();
    }
}

/// An open file's metadata.
pub(crate) fn stat_file(file: &File) -> Result<Stat> {
    Ok(stat_from(&Metadata::from_just_metadata(file.metadata()?)))
}

fn kind_from(kind: FileType) -> Kind {
    if kind.is_dir() {
        Kind::Dir
    } else if kind.is_symlink() {
        Kind::Symlink
    } else if kind.is_file() {
        Kind::File
    } else {
        Kind::Unknown
    }
}

fn stat_from(metadata: &Metadata) -> Stat {
    Stat {
        kind: kind_from(metadata.file_type()),
        size: metadata.len(),
        links: 1,
        dev: 0,
        ino: 0,
        mode: 0,
        owner: None,
        whiteout: false,
        accessed: metadata.accessed().ok().map(cap_std::time::SystemTime::into_std),
        modified: metadata.modified().ok().map(cap_std::time::SystemTime::into_std),
        changed: None,
    }
}

/// Names that Windows would take for something else: a drive, a stream, a device, a path.
fn check(name: &impl AsRef<OsStr>) -> Result<&Path> {
    let path = Path::new(name.as_ref());
    if !cfg!(windows) {
        return Ok(path);
    }
    let name = path.to_str().ok_or(Errno::Invalid)?;
    let stem = name.split('.').next().unwrap_or(name).trim_end();
    let numbered = |prefix: &str| {
        stem.len() == prefix.len() + 1
            && stem.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
            && stem.ends_with(|end: char| end.is_ascii_digit())
    };
    let device = ["con", "prn", "aux", "nul"].iter().any(|device| stem.eq_ignore_ascii_case(device))
        || numbered("com")
        || numbered("lpt");
    let forbidden = |c: char| c.is_ascii_control() || "\\/:*?\"<>|".contains(c);
    if device || name.contains(forbidden) || name.ends_with(['.', ' ']) {
        return Err(Errno::Invalid);
    }
    Ok(path)
}

/// The name as text; no guest can name others.
pub(crate) fn name_str(name: &OsStr) -> Option<&str> {
    name.to_str()
}

/// A name from bytes of another. Names that are no text are left out.
pub(crate) fn name_from(bytes: &[u8]) -> Option<OsString> {
    std::str::from_utf8(bytes).ok().map(OsString::from)
}
