//! The container's root: put together, entered, and the parts of procfs and sysfs hidden that must be.
//!
//! Runs in the container's process. The host's tree is only seen until [`Root::enter`]; afterwards it is gone.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, open};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount,
    mount_change, move_mount, unmount,
};
use rustix::process::{chdir, chroot, fchdir, pivot_root};

use crate::bundle;
use crate::native::mounts::{Covered, SEALED, attach, clone_fd_as, clone_tree, clone_tree_as, kind_of};
use crate::native::paths::{self, Kind, Links};
use crate::native::report::{Doing, Failure};
use crate::native::sys::{self, MountAttr};

/// A string parameter of `fsconfig` may have this many bytes, with its end.
const LONGEST_PARAMETER: usize = 256;
/// Device numbers of `/dev/null`.
const NULL_DEVICE: (u32, u32) = (1, 3);

/// The mounted root and a handle on it.
#[derive(Debug)]
pub(super) struct Root {
    fd: OwnedFd,
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Root {
    /// Mounts the bundle's root where only this process's mount namespace sees it.
    pub(super) fn mount(
        root: &bundle::Root,
        user_namespace: bool,
        propagation: Option<(u64, bool)>,
    ) -> Result<Self, Failure> {
        // What is mounted here must not reach the host; what the host mounts may still come in until we leave.
        mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
            .doing(|| "detach from the host's mounts")?;
        // A slave goes on hearing of the host's mounts; anything else is made what it is to be when the host is left.
        let way = match propagation {
            Some((libc::MS_SLAVE, _)) => libc::MS_SLAVE,
            _ => libc::MS_PRIVATE,
        };
        match root {
            bundle::Root::Dir(dir) => Self::bind(dir, dir, 0, way),
            bundle::Root::Layers { lower, upper, merged, .. } if lower.is_empty() => {
                // As for an overlay. What a directory of the bundle's own allows is the bundle's business.
                Self::bind(upper, merged, libc::MOUNT_ATTR_NODEV, way)
            }
            bundle::Root::Layers { lower, upper, work, merged } => {
                let layers: Vec<&Path> = lower.iter().rev().map(|layer| layer.path.as_path()).collect();
                overlay(&layers, upper, work, merged, user_namespace)
                    .map(|fd| Self { fd })
                    .doing(|| format!("mount the overlay of {} layers at {}", lower.len(), merged.display()))
            }
        }
    }

    /// `set` are the attributes it gets, of `MOUNT_ATTR_*`.
    fn bind(from: &Path, onto: &Path, set: u64, propagation: u64) -> Result<Self, Failure> {
        // Without this a later mount in the root could still propagate to a peer of the source.
        let private = MountAttr { set, propagation, ..MountAttr::default() };
        let fd = clone_tree_as(from, true, false, &private)
            .doing(|| format!("open the root file system {}", from.display()))?;
        move_mount(&fd, "", CWD, onto, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .doing(|| format!("mount the root file system at {}", onto.display()))?;
        Ok(Self { fd })
    }

    /// Makes the root itself read-only, not what is mounted on it.
    pub(super) fn make_read_only(&self) -> Result<(), Failure> {
        let attr = MountAttr { set: libc::MOUNT_ATTR_RDONLY, ..MountAttr::default() };
        sys::mount_setattr(self.as_fd(), false, &attr).doing(|| "make the root file system read-only")
    }

    /// Done with the handle.
    pub(super) fn leave(self) {
        paths::leave(self.fd);
    }

    /// Makes it this process's root and lets go of the host's.
    pub(super) fn enter(&self, moves: bool) -> Result<(), Failure> {
        fchdir(&self.fd).doing(|| "change to the root file system")?;
        if moves {
            return self.enter_by_moving();
        }
        // The old root ends up on top of the new one, from where it is taken off.
        pivot_root(".", ".").doing(|| "change the root")?;
        unmount(".", UnmountFlags::DETACH).doing(|| "let go of the host's root")?;
        chdir("/").doing(|| "change to the root")
    }
}

/// Gives the root, which is this process's now, a way of propagation, with all that is mounted on it if it is for the
/// whole tree.
pub(super) fn propagate((way, recursive): (u64, bool)) -> Result<(), Failure> {
    let root = open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    root.and_then(|root| {
        sys::mount_setattr(root.as_fd(), recursive, &MountAttr { propagation: way, ..MountAttr::default() })
    })
    .doing(|| "set the propagation of the root file system (linux.rootfsPropagation)")
}

/// Goes back to the creator's mount namespace, for a specification without one, with a copy of the root that hangs
/// nowhere: it is gone with its last user, and the host's mounts are as they were.
pub(super) fn go_back(mounts: BorrowedFd<'_>) -> Result<(), Failure> {
    let doing = || "share the creator's mount namespace";
    let root = clone_tree(Path::new("/"), true, false).doing(doing)?;
    sys::setns(mounts, libc::CLONE_NEWNS).doing(doing)?;
    enter_tree(&root).doing(doing)
}

/// Makes a directory this process's root.
pub(super) fn enter_tree(root: &OwnedFd) -> rustix::io::Result<()> {
    fchdir(root)?;
    chroot(".")?;
    chdir("/")
}

impl Root {
    /// For a host whose root cannot be exchanged, an initial file system in memory: what is below the container's root
    /// stays mounted, out of reach.
    fn enter_by_moving(&self) -> Result<(), Failure> {
        let onto = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        for hidden in ["/proc", "/sys"] {
            // Whoever got out of the root would still not find the host's there.
            unmount(hidden, UnmountFlags::DETACH).ok();
        }
        move_mount(&self.fd, "", CWD, "/", onto).doing(|| "move the root file system")?;
        chroot(".").doing(|| "change the root")?;
        chdir("/").doing(|| "change to the root")
    }
}

/// Mounts an overlay at `merged`; `layers` from the topmost down.
fn overlay(
    layers: &[&Path],
    upper: &Path,
    work: &Path,
    merged: &Path,
    user_namespace: bool,
) -> rustix::io::Result<OwnedFd> {
    if takes_layers_one_by_one() {
        overlay_by_parameters(layers, upper, work, merged, user_namespace)
    } else {
        overlay_by_mount(layers, upper, work, merged, user_namespace)
    }
}

/// Whether an overlay knows `lowerdir+`: since Linux 6.5. Before, it takes any parameter, refuses all of them together in the
/// end, and writes that into the kernel's log.
pub(super) fn takes_layers_one_by_one() -> bool {
    crate::native::kernel() >= (6, 5)
}

fn overlay_by_parameters(
    layers: &[&Path],
    upper: &Path,
    work: &Path,
    merged: &Path,
    user_namespace: bool,
) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "overlay")?;
    // Handles must stay open until the kernel has looked the paths up.
    let mut handles = Vec::new();
    for layer in layers {
        set_path(&context, "lowerdir+", layer, &mut handles)?;
    }
    set_path(&context, "upperdir", upper, &mut handles)?;
    set_path(&context, "workdir", work, &mut handles)?;
    fsconfig_set_string(&context, "index", "off")?;
    fsconfig_set_string(&context, "metacopy", "off")?;
    if user_namespace {
        fsconfig_set_flag(&context, "userxattr")?;
    }
    fsconfig_create(&context)?;
    // Docker leaves it to a device cgroup that nodes a container makes cannot be opened; here no mount allows them.
    let fd = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV)?;
    move_mount(&fd, "", CWD, merged, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(fd)
}

/// A path as a parameter; a long one by way of a handle.
fn set_path(context: &OwnedFd, key: &str, path: &Path, handles: &mut Vec<OwnedFd>) -> rustix::io::Result<()> {
    if path.as_os_str().len() < LONGEST_PARAMETER {
        return fsconfig_set_string(context, key, path);
    }
    let fd = open_dir(path)?;
    let set = fsconfig_set_string(context, key, paths::by_fd(&fd));
    handles.push(fd);
    set
}

fn open_dir(path: &Path) -> rustix::io::Result<OwnedFd> {
    open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// The same by one `mount` call, whose options have to fit on a page: layers are named by their descriptors.
fn overlay_by_mount(
    layers: &[&Path],
    upper: &Path,
    work: &Path,
    merged: &Path,
    user_namespace: bool,
) -> rustix::io::Result<OwnedFd> {
    let handles = layers.iter().map(|layer| open_dir(layer)).collect::<rustix::io::Result<Vec<_>>>()?;
    let lower: Vec<String> = handles.iter().map(paths::by_fd).collect();
    let (upper, work) = (open_dir(upper)?, open_dir(work)?);
    let mut data = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        paths::by_fd(&upper),
        paths::by_fd(&work)
    );
    data.push_str(",index=off,metacopy=off");
    if user_namespace {
        data.push_str(",userxattr");
    }
    let data = std::ffi::CString::new(data).map_err(|_| Errno::INVAL)?;
    mount("overlay", merged, "overlay", MountFlags::NODEV, data.as_c_str())?;
    open_dir(merged)
}

/// Hides paths of the container: files behind `/dev/null`, directories behind an empty one, both read-only.
///
/// Each is a mount that is attached at its first use. Only then can every kernel copy it.
#[derive(Debug, Default)]
pub(super) struct Masks {
    null: Option<OwnedFd>,
    empty: Option<OwnedFd>,
}

impl Masks {
    /// Hides one path. A missing one is left alone.
    pub(super) fn hide(&mut self, covered: &mut Covered<'_>, path: &Path) -> Result<(), Failure> {
        let shown = || format!("hide {}", path.display());
        let target = match covered.open(path) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            found => found.doing(shown)?,
        };
        match kind_of(&target).doing(shown)? {
            Kind::File => cover(&mut self.null, sealed_null, &target),
            Kind::Directory => cover(&mut self.empty, empty_directory, &target),
        }
        .doing(shown)?;
        paths::leave(target);
        Ok(())
    }

    /// Done with hiding.
    pub(super) fn leave(self) {
        self.null.into_iter().chain(self.empty).for_each(paths::leave);
    }
}

/// Puts a mask over `target`; makes it when it is the first one of its kind.
fn cover(
    mask: &mut Option<OwnedFd>,
    make: fn() -> rustix::io::Result<OwnedFd>,
    target: &OwnedFd,
) -> rustix::io::Result<()> {
    match mask {
        Some(fd) => mount(paths::by_fd(fd), paths::by_fd(target), "", MountFlags::BIND, None),
        None => attach(mask.insert(make()?), target),
    }
}

/// A mount of the host's `/dev/null`, never the container's, and checked to be it (else `ENODEV`).
fn sealed_null() -> rustix::io::Result<OwnedFd> {
    let fd = open("/dev/null", OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if !is_null(&fd)? {
        return Err(Errno::NODEV);
    }
    clone_fd_as(&fd, false, &SEALED)
}

/// Whether a descriptor is on a null device, anybody's.
pub(super) fn is_null(fd: impl AsFd) -> rustix::io::Result<bool> {
    let stat = fstat(fd)?;
    let number = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && number == NULL_DEVICE)
}

fn empty_directory() -> rustix::io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "nr_inodes", "1")?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    paths::leave(context);
    Ok(mount)
}

/// Writes kernel settings through a procfs of our own, which no mount of the container can have replaced. Where the host's
/// mounts are this process's own, and about to be left, `is_leaving`.
pub(super) fn write_sysctls(settings: &[(PathBuf, String)], is_leaving: bool) -> Result<(), Failure> {
    if settings.is_empty() {
        return Ok(());
    }
    let private = || {
        let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    };
    let proc = match private() {
        // A user namespace whose process namespace is another's: then a copy of the host's mount.
        Err(Errno::PERM) => clone_tree(Path::new("/proc"), false, false),
        made => made,
    }
    .doing(|| "mount a private procfs")?;
    for (path, value) in settings {
        let shown = || format!("set {} to {value}", path.display());
        let fd = paths::open(proc.as_fd(), path, OFlags::WRONLY, Links::Refused).doing(shown)?;
        rustix::io::write(&fd, value.as_bytes()).doing(shown)?;
    }
    // A mount that was nowhere is taken apart when its handle is closed, and the kernel waits for all processors to have
    // noticed (0.05 to 0.5 ms). In a place that is left with the host's root it goes with all others there.
    if is_leaving {
        move_mount(&proc, "", CWD, "/proc/sys", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).ok();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::sys::Cloned;
    use crate::native::tests::harness::{Fixture, forked, privileged};

    /// The way for kernels before 6.5, on this one.
    #[test]
    fn an_overlay_by_descriptors_is_the_same() {
        if !privileged() {
            return;
        }
        forked(|| {
            let fixture = Fixture::new();
            let bundle::Root::Layers { lower, upper, work, merged } = fixture.layers(120) else {
                unreachable!()
            };
            let layers: Vec<&Path> = lower.iter().rev().map(|layer| layer.path.as_path()).collect();
            let namespace = u64::from(libc::CLONE_NEWNS.cast_unsigned());
            let Cloned::Parent { pidfd, .. } =
                sys::clone3(sys::Birth { namespaces: namespace, ..Default::default() })
                    .expect("a mount namespace")
            else {
                let made = mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
                    .and_then(|()| overlay_by_mount(&layers, &upper, &work, &merged, false));
                let seen = made.is_ok_and(|fd| {
                    let top = paths::open(fd.as_fd(), Path::new("/top"), OFlags::RDONLY, Links::Inside);
                    let mut text = [0; 8];
                    let length = top.and_then(|top| rustix::io::read(top, &mut text));
                    length == Ok(4) && &text[..4] == b"120\n"
                });
                sys::exit_now(if seen { 7 } else { 1 });
            };
            assert_eq!(crate::native::wait_for(&pidfd).expect("an end").exit_status(), Some(7));
        });
    }
}
