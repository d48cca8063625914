//! Mounting the index of an image: once for all containers, when the first one needs it.
//!
//! ```text
//! <mounts>/<chain id>/    where the image's tree is mounted, read-only
//! <mounts>/.lock          held while something is mounted or unmounted
//! ```
//!
//! The mount belongs to the image, not to a container: it stays until the image goes, so that the next container finds
//! it by two system calls and shares its pages. It is seen by those processes that share the mount namespace it was
//! made in; in another namespace the folder is empty and the image is mounted there again. A process that is killed on
//! the way leaves an empty folder or a mount, and both are what the next one looks for.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;

use fs_err as fs;
use rustix::fs::CWD;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::FsMountFlags;
use rustix::mount::FsOpenFlags;
use rustix::mount::MountAttrFlags;
use rustix::mount::MoveMountFlags;
use rustix::mount::UnmountFlags;

use super::IndexedImage;
use super::Store;
use super::make_dir;
use super::names_in;
use super::private;
use crate::Digest;
use crate::Error;
use crate::error::Result;

/// What `fstatfs` says of a mounted index.
const EROFS_MAGIC: u64 = 0xe0f5_e1e2;
/// A string parameter of `fsconfig` may have this many bytes, with its end.
const LONGEST_PARAMETER: usize = 256;
const LOCK: &str = ".lock";

impl Store {
    /// Where an image's tree is mounted, if it is. This is all that a start asks for.
    pub(super) fn mounted(&self, chain_id: &Digest) -> Option<PathBuf> {
        let path = self.mount_point(chain_id)?;
        is_mounted(&path).then_some(path)
    }

    fn mount_point(&self, chain_id: &Digest) -> Option<PathBuf> {
        Some(self.mounts.as_ref()?.join(super::digest_name(chain_id)))
    }

    /// Mounts an image's tree where every container finds it, unless that was done already.
    ///
    /// # Errors
    /// When the store has no place for mounts, or the kernel refuses.
    pub fn mount(&self, image: &IndexedImage) -> Result<PathBuf> {
        let (Some(folder), Some(path)) = (&self.mounts, self.mount_point(&image.chain_id)) else {
            return Err(Error::io("cannot mount an image", io::ErrorKind::Unsupported.into()));
        };
        if is_mounted(&path) {
            return Ok(path);
        }
        let _lock = lock(folder)?;
        if is_mounted(&path) {
            return Ok(path);
        }
        match make_dir(&path) {
            Err(_) if path.is_dir() => {}
            made => made?,
        }
        let failed = |e: Errno| Error::io(format_args!("cannot mount image {}", image.chain_id), e.into());
        let mount = open(&image.index, &image.tars).map_err(failed)?;
        rustix::mount::move_mount(&mount, "", CWD, &path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(failed)?;
        Ok(path)
    }

    /// Unmounts every image of which `goes` says so. Containers that still run keep what they have.
    pub(super) fn unmount(&self, goes: impl Fn(&str) -> bool) -> Result<()> {
        let Some(folder) = self.mounts.as_ref().filter(|folder| folder.is_dir()) else { return Ok(()) };
        let _lock = lock(folder)?;
        for name in mounted_names(folder)? {
            if goes(&name) {
                unmount(&folder.join(name))?;
            }
        }
        Ok(())
    }

    /// The names of places where images are mounted, or were to be.
    pub(super) fn mount_names(&self) -> Result<Vec<String>> {
        self.mounts.as_deref().map_or_else(|| Ok(Vec::new()), mounted_names)
    }
}

/// Unmounts all images of a store that is gone, and removes their places. `folder` is the one given to
/// [`Store::with_mounts`].
///
/// # Errors
/// When something cannot be unmounted.
pub fn unmount_all(folder: &Path) -> Result<()> {
    for name in mounted_names(folder)? {
        unmount(&folder.join(name))?;
    }
    Ok(())
}

fn mounted_names(folder: &Path) -> Result<Vec<String>> {
    let names = names_in(folder)?.into_iter().filter_map(|name| name.into_string().ok());
    Ok(names.filter(|name| name != LOCK).collect())
}

fn lock(folder: &Path) -> Result<fs::File> {
    match make_dir(folder) {
        Err(_) if folder.is_dir() => {}
        made => made?,
    }
    let path = folder.join(LOCK);
    let file = private().create(true).truncate(false).write(true).open(&path)?;
    file.file().lock().map_err(|e| Error::io(path.display(), e))?;
    Ok(file)
}

fn unmount(path: &Path) -> Result<()> {
    // More than once where namespaces have joined.
    while is_mounted(path) {
        rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
            .map_err(|e| Error::io(format_args!("cannot unmount {}", path.display()), e.into()))?;
    }
    match fs::remove_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}

fn is_mounted(path: &Path) -> bool {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .and_then(rustix::fs::fstatfs)
        .is_ok_and(|stat| u64::try_from(stat.f_type) == Ok(EROFS_MAGIC))
}

/// A mount of an index that nobody sees yet.
pub(crate) fn open(index: &Path, tars: &[PathBuf]) -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // Handles must stay open until the kernel has looked the paths up.
    let mut handles = Vec::new();
    let mut set = |key: &str, path: &Path| {
        if path.as_os_str().len() < LONGEST_PARAMETER {
            return rustix::mount::fsconfig_set_string(&context, key, path);
        }
        let handle = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let short = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&handle));
        handles.push(handle);
        rustix::mount::fsconfig_set_string(&context, key, short)
    };
    set("source", index)?;
    for tar in tars {
        set("device", tar)?;
    }
    rustix::mount::fsconfig_create(&context)?;
    // The host has no use for devices and set-user-id programs here; what containers may do is up to their overlay.
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Whether this process can mount an index from files of the file system that `folder` is on, found out by doing it
/// with a tiny one. The files have no names.
pub(crate) fn probe(folder: &Path) -> bool {
    let tar = [0_u8; 1024];
    let unnamed = |content: &[u8]| -> Result<fs::File> {
        use std::io::Write as _;
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let fd = rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| Error::io(folder.display(), e.into()))?;
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
        let mut file = fs::File::from_parts(fd.into(), path);
        file.write_all(content)?;
        Ok(file)
    };
    let tried = || -> Result<bool> {
        let (image, tar) = (unnamed(&crate::erofs::index_of_tars(&[&tar])?)?, unnamed(&tar)?);
        Ok(open(image.path(), &[tar.path().to_owned()]).is_ok())
    };
    tried().unwrap_or(false)
}
