//! The view of control groups of version 1 in a container: one folder for each hierarchy, links for those that keep
//! several controllers.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{Mode, mkdirat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen, mount,
};

use super::{Context, attach, change};
use crate::native::paths;
use crate::native::sys::MountAttr;
use crate::small_file;

/// One hierarchy of the host's.
#[derive(Debug)]
pub(super) struct Hierarchy {
    /// The folder's name: its controllers, or its own name.
    name: String,
    /// What `mount` is told to get this one.
    data: String,
    /// Where the host has it.
    point: PathBuf,
}

/// All that are mounted here, from `proc_pid_mountinfo(5)`.
pub(super) fn hierarchies(mountinfo: &str) -> Vec<Hierarchy> {
    /// Options of the hierarchy that are no controllers.
    const OPTIONS: [&str; 7] =
        ["rw", "ro", "xattr", "clone_children", "cpuset_v2_mode", "noprefix", "favordynmods"];
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((at, system)) = line.split_once(" - ") else { continue };
        let Some(point) = at.split(' ').nth(4) else { continue };
        let mut system = system.split(' ');
        let (Some("cgroup"), Some(options)) = (system.next(), system.nth(1)) else { continue };
        let words = options.split(',').filter(|word| {
            !OPTIONS.contains(word) && !word.starts_with("release_agent=") && !word.is_empty()
        });
        let words: Vec<&str> = words.collect();
        let own = words.iter().find_map(|word| word.strip_prefix("name="));
        let controllers: Vec<&str> =
            words.iter().copied().filter(|word| !word.starts_with("name=")).collect();
        let (name, data) = match (own, controllers.is_empty()) {
            (Some(own), true) => (own.to_owned(), format!("none,name={own}")),
            (_, false) => (controllers.join(","), words.join(",")),
            (None, true) => continue,
        };
        if found.iter().all(|other| other.name != name) && !name.contains('/') {
            found.push(Hierarchy { name, data, point: point.into() });
        }
    }
    found
}

/// Mounts all of them below `onto`, on a small file system of their own. The process is in its group already.
pub(super) fn mount_all(
    onto: OwnedFd,
    hierarchies: &[Hierarchy],
    flags: MountFlags,
    context: Context,
) -> rustix::io::Result<()> {
    // The bits of both kinds of flags are the same.
    let plain = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let set = u64::from((flags & plain).bits());
    let new = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&new, "mode", "755")?;
    fsconfig_create(&new)?;
    let top = fsmount(&new, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    attach(&top, &onto)?;
    paths::leave(onto);
    paths::leave(new);
    let own = if context.own_groups { String::new() } else { own_groups()? };
    for one in hierarchies {
        mkdirat(&top, &one.name, Mode::from_raw_mode(0o755))?;
        // Nobody else can change anything in a file system as new as this one.
        let folder = format!("{}/{}", paths::by_fd(&top), one.name);
        if context.own_groups {
            let data = CString::new(one.data.as_str()).map_err(|_| Errno::INVAL)?;
            match mount("cgroup", folder, "cgroup", flags, data.as_c_str()) {
                Err(Errno::PERM | Errno::BUSY) if context.user_namespace => {}
                made => made?,
            }
        } else {
            mount(one.place(&own), folder, "", MountFlags::BIND, None)?;
        }
        for controller in one.name.split(',').filter(|_| one.name.contains(',')) {
            symlinkat(one.name.as_str(), &top, controller)?;
        }
    }
    // In one go for all of them.
    change(&top, true, &MountAttr { set, propagation: libc::MS_PRIVATE, ..MountAttr::default() })?;
    paths::leave(top);
    Ok(())
}

/// `cgroups(7)`: where this process is.
fn own_groups() -> rustix::io::Result<String> {
    small_file::text("/proc/self/cgroup")
        .map_err(|error| error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))
}

impl Hierarchy {
    /// The group of this process by the host's path.
    fn place(&self, own: &str) -> PathBuf {
        let path = own.lines().find_map(|line| {
            let (names, path) = line.split_once(':')?.1.split_once(':')?;
            (names.strip_prefix("name=").unwrap_or(names) == self.name).then_some(path)
        });
        self.point.join(path.unwrap_or("/").trim_start_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found() {
        let found = hierarchies(
            "31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd\n\
             32 30 0:28 / /elsewhere rw - cgroup cgroup rw,cpu,cpuacct\n\
             33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
        );
        let rows: Vec<_> = found.iter().map(|one| (one.name.as_str(), one.data.as_str())).collect();
        assert_eq!(rows, [("cpu,cpuacct", "cpu,cpuacct"), ("systemd", "none,name=systemd")]);
        let own = "2:cpu,cpuacct:/a/b\n1:name=systemd:/c\n";
        let places: Vec<_> = found.iter().map(|one| one.place(own).display().to_string()).collect();
        assert_eq!(places, ["/sys/fs/cgroup/cpu,cpuacct/a/b", "/sys/fs/cgroup/systemd/c"]);
    }
}
