//! `/dev` of a container: device nodes, the usual links, and its terminal.
//!
//! Nodes are made where this process may and where they would work, else the host's are bound, read-only: what
//! is written reaches the device, but owner, mode and times of the host's node stay as they are. Nothing is done
//! in a `/dev` that is a symbolic link, and nothing that lies there already is trusted.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, StatVfsMountFlags, Uid, chownat, fstat, fstatfs, fstatvfs, makedev,
    mknodat, openat, statat, symlinkat,
};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::native::mounts::{SEALED, attach, clone_fd, clone_tree_as};
use crate::native::paths::{self, Kind, Links};
use crate::native::report::{Doing, Failure};
use crate::stdio::TerminalSize;

/// `statfs` magic of devpts.
const DEVPTS: u64 = 0x1cd1;

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    /// In the container; absolute and clean.
    pub(super) path: PathBuf,
    /// Character device, block device or fifo.
    pub(super) kind: FileType,
    pub(super) major: u32,
    pub(super) minor: u32,
    /// Permission bits.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Device {
    /// The nodes the specification wants in every container.
    pub(super) fn defaults() -> impl Iterator<Item = Self> {
        let rows = [
            ("null", 1, 3),
            ("zero", 1, 5),
            ("full", 1, 7),
            ("random", 1, 8),
            ("urandom", 1, 9),
            ("tty", 5, 0),
        ];
        rows.into_iter().map(|(name, major, minor)| Self {
            path: Path::new("/dev").join(name),
            kind: FileType::CharacterDevice,
            major,
            minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
        })
    }

    fn make(&self, root: BorrowedFd<'_>, dev: BorrowedFd<'_>, may_make: bool) -> rustix::io::Result<()> {
        let below_dev = self.path.strip_prefix("/dev").ok().filter(|name| name.components().count() == 1);
        // Anybody may make a fifo.
        if !may_make && self.kind != FileType::Fifo {
            return self.bind(root, below_dev.map(|name| (dev, name)));
        }
        let (parent, name) = match below_dev {
            Some(name) => (None, name),
            None => {
                let (Some(parent), Some(name)) = (self.path.parent(), self.path.file_name()) else {
                    return Err(Errno::INVAL);
                };
                let parent = paths::open_or_create(root, parent, Links::Refused, || Ok(Kind::Directory))?;
                (Some(parent), Path::new(name))
            }
        };
        let parent = parent.as_ref().map_or(dev, AsFd::as_fd);
        let number = makedev(self.major, self.minor);
        match mknodat(parent, name, self.kind, Mode::from_raw_mode(self.mode), number) {
            Err(Errno::EXIST) => {
                let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
                let same = FileType::from_raw_mode(stat.st_mode) == self.kind
                    && (self.kind == FileType::Fifo || stat.st_rdev == number);
                return if same { Ok(()) } else { Err(Errno::EXIST) };
            }
            // A user namespace that this process did not expect, for example the whole host's.
            Err(Errno::PERM) => return self.bind(root, below_dev.map(|name| (dev, name))),
            made => made?,
        }
        if self.uid != 0 || self.gid != 0 {
            let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
            chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    /// The host's node of the same name, if it is the same device. `place` is where it mostly goes, by handle and name.
    fn bind(&self, root: BorrowedFd<'_>, place: Option<(BorrowedFd<'_>, &Path)>) -> rustix::io::Result<()> {
        let from = clone_tree_as(&self.path, false, false, &SEALED)?;
        let stat = fstat(&from)?;
        let number = makedev(self.major, self.minor);
        if FileType::from_raw_mode(stat.st_mode) != self.kind
            || (stat.st_rdev != number && self.kind != FileType::Fifo)
        {
            return Err(Errno::NODEV);
        }
        let onto = match place.map(|(dev, name)| paths::make(dev, name.as_os_str(), Kind::File)) {
            Some(Ok(onto)) => onto,
            _ => paths::open_or_create(root, &self.path, Links::Refused, || Ok(Kind::File))?,
        };
        attach(&from, &onto)?;
        paths::leave(from);
        paths::leave(onto);
        Ok(())
    }
}

/// Opens the container's `/dev`, which must be a real directory.
pub(super) fn open_dev(root: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    paths::open_or_create(root, Path::new("/dev"), Links::Refused, || Ok(Kind::Directory))
        .doing(|| "open /dev in the container")
}

/// Makes the nodes and the usual links.
pub(super) fn fill(
    root: BorrowedFd<'_>,
    dev: &OwnedFd,
    devices: &[Device],
    user_namespace: bool,
) -> Result<(), Failure> {
    let no_devices = fstatvfs(dev).is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::NODEV));
    let may_make = !user_namespace && !no_devices;
    for device in devices {
        device
            .make(root, dev.as_fd(), may_make)
            .doing(|| format!("make the device {} in the container", device.path.display()))?;
    }
    let links = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("core", "/proc/kcore"),
        ("ptmx", "pts/ptmx"),
    ];
    for (name, target) in links {
        match symlinkat(target, dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).doing(|| format!("make the link /dev/{name} in the container")),
        }
    }
    Ok(())
}

/// A new terminal of the container's own.
#[derive(Debug)]
pub(super) struct Terminal {
    /// For the monitor.
    pub(super) master: OwnedFd,
    /// For the container's first process.
    pub(super) slave: OwnedFd,
}

impl Terminal {
    /// Allocates one from the container's devpts and binds it to `/dev/console`. Only handles are used, so the
    /// container's own idea of `/dev/pts/0` does not matter.
    pub(super) fn open(
        root: BorrowedFd<'_>,
        dev: &OwnedFd,
        size: Option<TerminalSize>,
        owner: u32,
    ) -> Result<Self, Failure> {
        let terminal = Self::allocate(root, size, owner)?;
        terminal.bind(root, dev)?;
        Ok(terminal)
    }

    /// Allocates one without putting it anywhere.
    pub(super) fn allocate(
        root: BorrowedFd<'_>,
        size: Option<TerminalSize>,
        owner: u32,
    ) -> Result<Self, Failure> {
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let master = paths::open(root, Path::new("/dev/pts/ptmx"), flags, Links::Refused)
            .doing(|| "open /dev/pts/ptmx in the container")?;
        if fstatfs(&master).is_ok_and(|stat| stat.f_type.cast_unsigned() != DEVPTS) {
            return Err(Failure::Refused("/dev/pts of the container is no devpts".to_owned()));
        }
        let slave = unlockpt(&master)
            .and_then(|()| {
                ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            })
            .doing(|| "open the terminal of the container")?;
        if let Some(size) = size {
            let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
            tcsetwinsize(&master, size).doing(|| "set the size of the terminal")?;
        }
        if owner != 0 {
            rustix::fs::fchown(&slave, Some(Uid::from_raw(owner)), None)
                .doing(|| "give the terminal to its user")?;
        }
        Ok(Self { master, slave })
    }

    /// Shows it as `/dev/console`.
    fn bind(&self, root: BorrowedFd<'_>, dev: &OwnedFd) -> Result<(), Failure> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(dev, "console", flags, Mode::from_raw_mode(0o620))
            .or_else(|errno| {
                let path = Path::new("/dev/console");
                if errno == Errno::EXIST {
                    paths::open(root, path, OFlags::PATH, Links::Refused)
                } else {
                    Err(errno)
                }
            })
            .and_then(|console| clone_fd(&self.slave, false).and_then(|tree| attach(tree, console)))
            .doing(|| "bind the terminal to /dev/console")
    }
}
