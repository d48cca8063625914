//! Mount options of the specification by name: which flag of which call each of them means.
//!
//! A bind mount keeps what its source has; options that clear (`rw`, `exec`, `dev`, `suid`) only undo an earlier
//! one, unless they are for the whole tree (`rrw` and so on) or of a `remount`.

use std::path::PathBuf;

use rustix::mount::MountFlags;

use crate::native::sys::MountAttr;

/// Options of a mount, sorted out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// For this mount.
    pub(super) own: Attributes,
    /// For it and all below.
    pub(super) tree: Attributes,
    /// Flags of the file system, not of the mount.
    pub(super) superblock: MountFlags,
    /// `bind` is false, `rbind` true.
    pub(super) bind: Option<bool>,
    /// `MS_PRIVATE` and so on, and whether for the whole tree.
    pub(super) propagation: Option<(u64, bool)>,
    /// What is mounted there already is changed.
    pub(super) remount: bool,
    /// The new file system gets what lies below it.
    pub(super) copy_up: bool,
    /// A link as source is made again, not followed.
    pub(super) copy_link: bool,
    /// The source itself must not be a link.
    pub(super) no_follow: bool,
    /// The source is a path within this folder, and no link in it leads out.
    pub(super) beneath: Option<PathBuf>,
    /// Owners are mapped: `idmap` is false, `ridmap` true.
    pub(super) id_map: Option<bool>,
    /// What the file system itself understands.
    pub(super) data: Vec<String>,
}

/// Attributes of mounts, `MOUNT_ATTR_*`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) set: u64,
    pub(super) clear: u64,
    /// One of the ways to keep access times; the usual one, `relatime`, is 0.
    pub(super) access_time: Option<u64>,
}

/// Dhow's own option of a bind mount: see [`Options::beneath`]. The runtime finds the source in the container's own mount
/// namespace, where no handle of another one may be mounted.
const BENEATH: &str = "dhow.beneath=";

/// What an option does to an attribute.
#[derive(Clone, Copy)]
enum Change {
    Set(u64),
    Clear(u64),
    AccessTime(u64),
}

/// Option names for attributes of a mount. With an `r` before the name they hold for the whole tree.
const ATTRIBUTES: [(&str, Change); 18] = [
    ("ro", Change::Set(libc::MOUNT_ATTR_RDONLY)),
    ("rw", Change::Clear(libc::MOUNT_ATTR_RDONLY)),
    ("nosuid", Change::Set(libc::MOUNT_ATTR_NOSUID)),
    ("suid", Change::Clear(libc::MOUNT_ATTR_NOSUID)),
    ("nodev", Change::Set(libc::MOUNT_ATTR_NODEV)),
    ("dev", Change::Clear(libc::MOUNT_ATTR_NODEV)),
    ("noexec", Change::Set(libc::MOUNT_ATTR_NOEXEC)),
    ("exec", Change::Clear(libc::MOUNT_ATTR_NOEXEC)),
    ("nodiratime", Change::Set(libc::MOUNT_ATTR_NODIRATIME)),
    ("diratime", Change::Clear(libc::MOUNT_ATTR_NODIRATIME)),
    ("nosymfollow", Change::Set(libc::MOUNT_ATTR_NOSYMFOLLOW)),
    ("symfollow", Change::Clear(libc::MOUNT_ATTR_NOSYMFOLLOW)),
    ("noatime", Change::AccessTime(libc::MOUNT_ATTR_NOATIME)),
    ("strictatime", Change::AccessTime(libc::MOUNT_ATTR_STRICTATIME)),
    ("relatime", Change::AccessTime(libc::MOUNT_ATTR_RELATIME)),
    // What there is when none of the others is wanted.
    ("atime", Change::AccessTime(libc::MOUNT_ATTR_RELATIME)),
    ("nostrictatime", Change::AccessTime(libc::MOUNT_ATTR_RELATIME)),
    ("norelatime", Change::AccessTime(libc::MOUNT_ATTR_RELATIME)),
];

/// `MS_REMOUNT`, `MS_I_VERSION`, `MS_SILENT`: rustix does not offer them.
pub(super) const REMOUNT: MountFlags = MountFlags::from_bits_retain(1 << 5);
const VERSION: MountFlags = MountFlags::from_bits_retain(1 << 23);
const SILENT: MountFlags = MountFlags::from_bits_retain(1 << 15);

/// Option names for flags of the file system, and those that take them back.
const SUPERBLOCK: [(&str, &str, MountFlags); 6] = [
    ("sync", "async", MountFlags::SYNCHRONOUS),
    ("dirsync", "nodirsync", MountFlags::DIRSYNC),
    ("lazytime", "nolazytime", MountFlags::LAZYTIME),
    ("mand", "nomand", MountFlags::PERMIT_MANDATORY_FILE_LOCKING),
    ("iversion", "noiversion", VERSION),
    ("silent", "loud", SILENT),
];

/// Every option name that is known here, for [`crate::native::features`].
pub(super) fn names() -> impl Iterator<Item = String> {
    let plain = ATTRIBUTES.iter().map(|row| row.0.to_owned());
    let recursive = ATTRIBUTES.iter().map(|row| format!("r{}", row.0));
    let flags = SUPERBLOCK.iter().flat_map(|row| [row.0.to_owned(), row.1.to_owned()]);
    let rest = [
        "bind",
        "copy-symlink",
        "defaults",
        "idmap",
        "private",
        "rbind",
        "remount",
        "ridmap",
        "rprivate",
        "rshared",
        "rslave",
        "runbindable",
        "shared",
        "slave",
        "src-nofollow",
        "tmpcopyup",
        "unbindable",
    ];
    plain.chain(recursive).chain(flags).chain(rest.map(str::to_owned))
}

impl Attributes {
    fn change(&mut self, change: Change) {
        match change {
            Change::Set(attr) => {
                self.set |= attr;
                self.clear &= !attr;
            }
            Change::Clear(attr) => {
                self.set &= !attr;
                self.clear |= attr;
            }
            Change::AccessTime(mode) => self.access_time = Some(mode),
        }
    }

    /// In the form of the call. The kernel wants the old access time mode cleared when a new one is set.
    fn call(self, propagation: u64) -> MountAttr {
        let clear = if self.access_time.is_some() { libc::MOUNT_ATTR__ATIME } else { 0 };
        MountAttr {
            set: self.set | self.access_time.unwrap_or(0),
            clear: self.clear | clear,
            propagation,
            userns_fd: 0,
        }
    }

    /// In the form of `mount`.
    fn flags(self) -> MountFlags {
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
        let set = self.set | self.access_time.unwrap_or(0);
        PAIRS.iter().filter(|pair| set & pair.0 != 0).fold(MountFlags::empty(), |flags, pair| flags | pair.1)
    }
}

impl Options {
    /// Sorts options out; what no table knows is the file system's own.
    pub(super) fn parse<'a>(options: impl Iterator<Item = &'a str>) -> Self {
        let mut parsed = Self {
            own: Attributes::default(),
            tree: Attributes::default(),
            superblock: MountFlags::empty(),
            bind: None,
            propagation: None,
            remount: false,
            copy_up: false,
            copy_link: false,
            no_follow: false,
            beneath: None,
            id_map: None,
            data: Vec::new(),
        };
        let find = |name: &str| ATTRIBUTES.iter().find(|row| row.0 == name).map(|row| row.1);
        for option in options {
            if let Some(change) = find(option) {
                parsed.own.change(change);
            } else if let Some(change) = option.strip_prefix('r').and_then(find) {
                parsed.tree.change(change);
            } else if let Some((_, _, flag)) = SUPERBLOCK.iter().find(|row| row.0 == option) {
                parsed.superblock |= *flag;
            } else if let Some((_, _, flag)) = SUPERBLOCK.iter().find(|row| row.1 == option) {
                parsed.superblock &= !*flag;
            } else {
                parsed.other(option);
            }
        }
        parsed
    }

    fn other(&mut self, option: &str) {
        match option {
            "defaults" => {}
            "bind" => self.bind = Some(false),
            "rbind" => self.bind = Some(true),
            "remount" => self.remount = true,
            "tmpcopyup" => self.copy_up = true,
            "copy-symlink" | "copysymlink" => self.copy_link = true,
            "src-nofollow" => self.no_follow = true,
            "idmap" => self.id_map = Some(false),
            "ridmap" => self.id_map = Some(true),
            _ => match (propagation(option), option.strip_prefix(BENEATH)) {
                (Some(propagation), _) => self.propagation = Some(propagation),
                (None, Some(base)) => self.beneath = Some(base.into()),
                (None, None) => self.data.push(option.to_owned()),
            },
        }
    }

    /// This mount's attributes and flags in the form of `mount`.
    pub(super) fn flags(&self) -> MountFlags {
        self.own.flags() | self.superblock
    }

    /// The same for a new file system, which has nothing below it: attributes for the whole tree are its own.
    pub(super) fn flags_of_new(&self) -> MountFlags {
        self.flags() | self.tree.flags()
    }

    /// What a bind mount is changed to: for itself alone, and for all below it.
    pub(super) fn attributes(&self) -> (MountAttr, MountAttr) {
        let (own_way, tree_way) = match self.propagation {
            Some((way, true)) => (0, way),
            Some((way, false)) => (way, libc::MS_PRIVATE),
            None => (0, libc::MS_PRIVATE),
        };
        (Attributes { clear: 0, ..self.own }.call(own_way), self.tree.call(tree_way))
    }
}

/// A way of propagation by name, and whether it is for the whole tree.
pub(super) fn propagation(name: &str) -> Option<(u64, bool)> {
    let (plain, recursive) = match name {
        "rprivate" | "rslave" | "rshared" | "runbindable" => (&name[1..], true),
        other => (other, false),
    };
    let way = match plain {
        "private" => libc::MS_PRIVATE,
        "slave" => libc::MS_SLAVE,
        "shared" => libc::MS_SHARED,
        "unbindable" => libc::MS_UNBINDABLE,
        _ => return None,
    };
    Some((way, recursive))
}
