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

/// Mounts all of them (what `FirstGroups` has of them) below `onto`, on a small file system of their own. The process is in
/// its group already.
pub(super) fn mount_all(
    onto: OwnedFd,
    first: &[(String, PathBuf)],
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
    for (names, group) in first {
        let name = folder_of(names);
        mkdirat(&top, name, Mode::from_raw_mode(0o755))?;
        // Nobody else can change anything in a file system as new as this one.
        let folder = format!("{}/{name}", paths::by_fd(&top));
        if context.own_groups {
            match mount("cgroup", folder, "cgroup", flags, data_of(names)?.as_c_str()) {
                Err(Errno::PERM | Errno::BUSY) if context.user_namespace => {}
                made => made?,
            }
        } else {
            mount(group, folder, "", MountFlags::BIND, None)?;
        }
        for controller in name.split(',').filter(|_| name.contains(',')) {
            symlinkat(name, &top, controller)?;
        }
    }
    // In one go for all of them.
    change(&top, true, &MountAttr { set, propagation: libc::MS_PRIVATE, ..MountAttr::default() })?;
    paths::leave(top);
    Ok(())
}

/// The name of a hierarchy's folder: its controllers, or its own name. It is no path.
fn folder_of(names: &str) -> &str {
    let name = names.strip_prefix("name=").unwrap_or(names);
    name.rsplit('/').next().unwrap_or(name)
}

/// What `mount` is told to get a hierarchy.
fn data_of(names: &str) -> rustix::io::Result<CString> {
    let none = if names.starts_with("name=") { "none," } else { "" };
    CString::new(format!("{none}{names}")).map_err(|_| Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_have_folders_and_options() {
        for (names, folder, data) in [
            ("cpu,cpuacct", "cpu,cpuacct", "cpu,cpuacct"),
            ("name=systemd", "systemd", "none,name=systemd"),
            ("name=a/../b", "b", "none,name=a/../b"),
        ] {
            assert_eq!(folder_of(names), folder);
            assert_eq!(data_of(names).expect("no NUL").to_str(), Ok(data));
        }
    }
}
