//! Read-only views of layers for programs of the host: one mount in the caller's own mount namespace.
//!
//! No container and nothing of one. Programs with set-user-id bits and devices do not work in a view, because whoever
//! can reach it is not in a container.

use std::ffi::CString;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change,
    move_mount, unmount,
};

use crate::error::{Error, Result};
use crate::native::mounts::{clone_tree, clone_tree_as};
use crate::native::paths;
use crate::native::rootfs::takes_layers_one_by_one;
use crate::native::sys::{MountAttr, tune};

/// Mounts layers, the topmost first, on top of each other at `at`, an empty directory. The kernel wants at least two:
/// `empty` is an empty directory that serves as the lowest.
///
/// # Errors
/// What the kernel says, most often that this needs privilege.
pub fn mount(layers: &[&Path], empty: &Path, at: &Path) -> Result<()> {
    try_mount(layers, empty, at).map_err(|errno| Error::Setup {
        action: format!("mount an overlay at {}", at.display()),
        source: errno.into(),
    })
}

/// As [`mount`], but nowhere: a handle on the root is all there is, and the mount goes with it.
///
/// # Errors
/// As [`mount`].
pub fn open_view(layers: &[&Path], empty: &Path) -> Result<OwnedFd> {
    let opened = if takes_layers_one_by_one() { overlay(layers, empty) } else { elsewhere(layers, empty) };
    let root = opened.and_then(|view| {
        rustix::fs::openat(&view, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    });
    root.map_err(|errno| Error::Setup {
        action: format!("mount an overlay of {} layers", layers.len()),
        source: errno.into(),
    })
}

fn try_mount(layers: &[&Path], empty: &Path, at: &Path) -> rustix::io::Result<()> {
    if !takes_layers_one_by_one() {
        return by_mount(layers, empty, at);
    }
    let view = overlay(layers, empty)?;
    move_mount(&view, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn overlay(layers: &[&Path], empty: &Path) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "dhow")?;
    let handles = open_all(layers, empty)?;
    for handle in &handles {
        fsconfig_set_string(&context, "lowerdir+", paths::by_fd(handle))?;
    }
    if !is_initial_user_namespace() {
        fsconfig_set_flag(&context, "userxattr")?;
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Paths may be longer than a parameter: layers are named by handles, which must stay open until they are looked up.
fn open_all(layers: &[&Path], empty: &Path) -> rustix::io::Result<Vec<OwnedFd>> {
    layers
        .iter()
        .chain([&empty])
        .map(|layer| open(*layer, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()))
        .collect()
}

/// For Linux before 6.5, which knows no `lowerdir+`: the options of one `mount` call, which have to fit on a page.
fn by_mount(layers: &[&Path], empty: &Path, at: &Path) -> rustix::io::Result<()> {
    let handles = open_all(layers, empty)?;
    let lower: Vec<String> = handles.iter().map(paths::by_fd).collect();
    let users = if is_initial_user_namespace() { "" } else { ",userxattr" };
    let data = CString::new(format!("lowerdir={}{users}", lower.join(":"))).map_err(|_| Errno::INVAL)?;
    let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID;
    rustix::mount::mount("dhow", at, "overlay", flags, data.as_c_str())
}

/// The same, nowhere: mounted in a namespace that a thread has for itself, taken from there, and gone there with the thread.
fn elsewhere(layers: &[&Path], empty: &Path) -> rustix::io::Result<OwnedFd> {
    let take = || {
        tune::unshare(libc::CLONE_FS | libc::CLONE_NEWNS)?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        by_mount(layers, empty, empty)?;
        clone_tree(empty, false, false)
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, take);
        thread.map_err(|_| Errno::AGAIN)?.join().map_err(|_| Errno::IO)?
    })
}

/// Mounts what is mounted at `tree` once more at `at`, an empty directory, read-only and as a user namespace has it:
/// what belongs to id N belongs to whoever is N in the namespace. Nothing is copied, and the tree stays as it is. The
/// result may be a layer of [`mount`] and of a container's root file system; an overlay itself cannot be mounted so.
///
/// # Errors
/// What the kernel says: it needs privilege over the file system, and a file system that can do it (EROFS since Linux
/// 5.19, ext4, XFS, Btrfs).
pub fn mount_shifted(tree: &Path, users: BorrowedFd<'_>, at: &Path) -> Result<()> {
    let shift = || -> rustix::io::Result<()> {
        let set = libc::MOUNT_ATTR_IDMAP
            | libc::MOUNT_ATTR_RDONLY
            | libc::MOUNT_ATTR_NODEV
            | libc::MOUNT_ATTR_NOSUID;
        let userns_fd = u64::try_from(users.as_raw_fd()).unwrap_or(u64::MAX);
        let attr = MountAttr { set, propagation: libc::MS_PRIVATE, userns_fd, ..MountAttr::default() };
        let clone = clone_tree_as(tree, false, false, &attr)?;
        move_mount(&clone, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    };
    shift().map_err(|errno| Error::Setup {
        action: format!("mount {} with other owners at {}", tree.display(), at.display()),
        source: errno.into(),
    })
}

/// Mounts a new file system in memory at `at`, with options as `size=1m,mode=700,noexec`.
///
/// # Errors
/// What the kernel says, of an option for example.
pub fn mount_memory(at: &Path, options: &str) -> Result<()> {
    super::mounts::memory(at, options).map_err(|errno| Error::Setup {
        action: format!("mount a file system in memory at {}", at.display()),
        source: errno.into(),
    })
}

/// Unmounts a view. With `force` also one that is in use: it goes when its last user has gone.
///
/// # Errors
/// What the kernel says, for example that it is busy.
pub fn unmount_view(at: &Path, force: bool) -> Result<()> {
    let flags = UnmountFlags::NOFOLLOW | if force { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    unmount(at, flags)
        .map_err(|errno| Error::Setup { action: format!("unmount {}", at.display()), source: errno.into() })
}

fn is_initial_user_namespace() -> bool {
    fs_err::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_ascii_whitespace().eq(["0", "0", "4294967295"]))
}
