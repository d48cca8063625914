//! Mount options of the specification by name: which flag of which call each of them means.
//!
//! A bind mount keeps what its source has; options that clear (`rw`, `exec`, `dev`, `suid`) only undo an earlier
//! one, unless they are for the whole tree (`rrw` and so on).

use rustix::mount::MountFlags;

use crate::native::sys::MountAttr;

/// Options of a mount, sorted out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// `MOUNT_ATTR_*` to set on this mount.
    pub(super) attr: u64,
    /// `MOUNT_ATTR_*` to set and to clear on it and all below.
    pub(super) tree_set: u64,
    pub(super) tree_clear: u64,
    /// Flags of the file system, not of the mount.
    pub(super) superblock: MountFlags,
    /// `bind` is false, `rbind` true.
    pub(super) bind: Option<bool>,
    /// `MS_PRIVATE` and so on.
    pub(super) propagation: Option<u64>,
    /// What the file system itself understands.
    pub(super) data: Vec<String>,
}

const ATIME: u64 = libc::MOUNT_ATTR__ATIME;

/// Option names that set an attribute of the mount. With an `r` before the name they hold for the whole tree.
const SET: [(&str, u64); 9] = [
    ("ro", libc::MOUNT_ATTR_RDONLY),
    ("nosuid", libc::MOUNT_ATTR_NOSUID),
    ("nodev", libc::MOUNT_ATTR_NODEV),
    ("noexec", libc::MOUNT_ATTR_NOEXEC),
    ("noatime", libc::MOUNT_ATTR_NOATIME),
    ("nodiratime", libc::MOUNT_ATTR_NODIRATIME),
    ("relatime", libc::MOUNT_ATTR_RELATIME),
    ("strictatime", libc::MOUNT_ATTR_STRICTATIME),
    ("nosymfollow", libc::MOUNT_ATTR_NOSYMFOLLOW),
];

/// Option names that clear one.
const CLEAR: [(&str, u64); 8] = [
    ("rw", libc::MOUNT_ATTR_RDONLY),
    ("suid", libc::MOUNT_ATTR_NOSUID),
    ("dev", libc::MOUNT_ATTR_NODEV),
    ("exec", libc::MOUNT_ATTR_NOEXEC),
    ("atime", libc::MOUNT_ATTR_NOATIME),
    ("diratime", libc::MOUNT_ATTR_NODIRATIME),
    ("norelatime", libc::MOUNT_ATTR_RELATIME),
    ("symfollow", libc::MOUNT_ATTR_NOSYMFOLLOW),
];

const SUPERBLOCK: [(&str, MountFlags); 4] = [
    ("sync", MountFlags::SYNCHRONOUS),
    ("dirsync", MountFlags::DIRSYNC),
    ("lazytime", MountFlags::LAZYTIME),
    ("mand", MountFlags::PERMIT_MANDATORY_FILE_LOCKING),
];

impl Default for Options {
    fn default() -> Self {
        Self {
            attr: 0,
            tree_set: 0,
            tree_clear: 0,
            superblock: MountFlags::empty(),
            bind: None,
            propagation: None,
            data: Vec::new(),
        }
    }
}

impl Options {
    /// Sorts options out; what no table knows is the file system's own.
    pub(super) fn parse<'a>(options: impl Iterator<Item = &'a str>) -> Self {
        let mut parsed = Self::default();
        let find =
            |table: &[(&str, u64)], name: &str| table.iter().find(|row| row.0 == name).map(|row| row.1);
        for option in options {
            let recursive = option.strip_prefix('r');
            if let Some(attr) = find(&SET, option) {
                if attr & ATIME != 0 {
                    parsed.attr &= !ATIME;
                }
                parsed.attr |= attr;
            } else if let Some(attr) = find(&CLEAR, option) {
                parsed.attr &= !attr;
            } else if let Some((_, flag)) = SUPERBLOCK.iter().find(|row| row.0 == option) {
                parsed.superblock |= *flag;
            } else if let Some(attr) = recursive.and_then(|name| find(&SET, name)) {
                parsed.tree_set |= attr;
                parsed.tree_clear &= !attr;
            } else if let Some(attr) = recursive.and_then(|name| find(&CLEAR, name)) {
                parsed.tree_clear |= attr;
                parsed.tree_set &= !attr;
            } else {
                parsed.other(option);
            }
        }
        parsed
    }

    fn other(&mut self, option: &str) {
        let propagation = match option.strip_prefix('r').unwrap_or(option) {
            "private" => Some(libc::MS_PRIVATE),
            "slave" => Some(libc::MS_SLAVE),
            "shared" => Some(libc::MS_SHARED),
            "unbindable" => Some(libc::MS_UNBINDABLE),
            _ => None,
        };
        match option {
            "defaults" | "async" | "nolazytime" | "nomand" | "silent" | "loud" => {}
            "bind" => self.bind = Some(false),
            "rbind" => self.bind = Some(true),
            _ => match propagation {
                Some(flag) => self.propagation = Some(flag),
                None => self.data.push(option.to_owned()),
            },
        }
    }

    /// This mount's attributes and flags in the form of `mount`.
    pub(super) fn flags(&self) -> MountFlags {
        const PAIRS: [(u64, MountFlags); 8] = [
            (libc::MOUNT_ATTR_RDONLY, MountFlags::RDONLY),
            (libc::MOUNT_ATTR_NOSUID, MountFlags::NOSUID),
            (libc::MOUNT_ATTR_NODEV, MountFlags::NODEV),
            (libc::MOUNT_ATTR_NOEXEC, MountFlags::NOEXEC),
            (libc::MOUNT_ATTR_NOATIME, MountFlags::NOATIME),
            (libc::MOUNT_ATTR_STRICTATIME, MountFlags::STRICTATIME),
            (libc::MOUNT_ATTR_NODIRATIME, MountFlags::NODIRATIME),
            (libc::MOUNT_ATTR_NOSYMFOLLOW, MountFlags::NOSYMFOLLOW),
        ];
        let set = PAIRS.iter().filter(|pair| self.attr & pair.0 != 0);
        set.fold(self.superblock, |flags, pair| flags | pair.1)
    }

    /// The same for a new file system, which has nothing below it: attributes for the whole tree are its own.
    pub(super) fn flags_of_new(&self) -> MountFlags {
        self.flags() | Self { attr: self.tree_set, ..Self::default() }.flags()
    }

    /// What a bind mount is changed to: for itself alone, and for all below it.
    pub(super) fn attributes(&self) -> (MountAttr, MountAttr) {
        let own = MountAttr { set: self.attr, clear: atime_cleared(self.attr), ..MountAttr::default() };
        let tree = MountAttr {
            set: self.tree_set,
            clear: atime_cleared(self.tree_set) | self.tree_clear,
            propagation: self.propagation.unwrap_or(libc::MS_PRIVATE),
            userns_fd: 0,
        };
        (own, tree)
    }
}

/// The kernel wants the old access time mode cleared when a new one is set.
fn atime_cleared(set: u64) -> u64 {
    if set & ATIME == 0 { 0 } else { ATIME }
}
