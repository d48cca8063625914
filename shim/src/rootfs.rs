//! A container's root file system: the mounts that containerd names, made at `rootfs` in its bundle.

use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_remount, unmount,
};

use crate::error::Failure;
use crate::messages::Mount;

/// What the kernel takes as the last argument of `mount`, less some.
const LONGEST: usize = 4096 - 256;

/// Where it is.
pub(crate) fn place(bundle: &Path) -> PathBuf {
    bundle.join("rootfs")
}

/// Makes all mounts, one over the other; nothing is left when one of them fails.
pub(crate) fn make(bundle: &Path, mounts: &[Mount]) -> Result<(), Failure> {
    let place = place(bundle);
    if mounts.is_empty() {
        return Ok(());
    }
    match fs_err::create_dir(&place) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(Failure::of(format!("make {}", place.display()))(error));
        }
        _ => {}
    }
    for one in mounts {
        let target = place.join(one.target.trim_start_matches('/'));
        if let Err(errno) = make_one(one, &target) {
            remove(bundle);
            return Err(Failure::of(format!("mount the root file system at {}", place.display()))(errno));
        }
    }
    Ok(())
}

/// Removes whatever is mounted there.
pub(crate) fn remove(bundle: &Path) {
    let place = place(bundle);
    // One over the other; EINVAL when there is none left.
    for _ in 0..64 {
        if unmount(&place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_err() {
            return;
        }
    }
}

fn make_one(one: &Mount, target: &Path) -> rustix::io::Result<()> {
    let Options { flags, propagation, mut data } = Options::of(&one.options);
    let text = data.join(",");
    let mut kind = one.kind.as_str();
    let is_bind = flags.bind;
    if is_bind {
        kind = "";
    }
    let mut elsewhere = None;
    let mut text = text;
    if text.len() > LONGEST
        && let Some((place, shorter)) = shortened(&data)
    {
        elsewhere = Some(std::env::current_dir().map_err(|_| Errno::NOENT)?);
        rustix::process::chdir(&place)?;
        data = shorter;
        text = data.join(",");
    }
    let text = std::ffi::CString::new(text).map_err(|_| Errno::INVAL)?;
    let done = if is_bind {
        let bind = if flags.recursive {
            rustix::mount::mount_bind_recursive(&one.source, target)
        } else {
            rustix::mount::mount_bind(&one.source, target)
        };
        bind.and_then(|()| {
            // A bind takes no other flags with it.
            if flags.flags.is_empty() {
                Ok(())
            } else {
                mount_remount(target, flags.flags | MountFlags::BIND, "")
            }
        })
    } else {
        mount(&one.source, target, kind, flags.flags, Some(text.as_c_str()))
    };
    if let Some(back) = elsewhere {
        rustix::process::chdir(&back)?;
    }
    done?;
    if propagation.is_empty() { Ok(()) } else { mount_change(target, propagation) }
}

/// Options of an overlay with names that are relative to the folder that all of them are in, and that folder.
fn shortened(data: &[String]) -> Option<(String, Vec<String>)> {
    let names = |option: &str| -> Option<Vec<String>> {
        let (key, value) = option.split_once('=')?;
        let known = ["lowerdir", "upperdir", "workdir"].contains(&key);
        known.then(|| value.split(':').map(str::to_owned).collect())
    };
    let all: Vec<String> = data.iter().filter_map(|option| names(option)).flatten().collect();
    let mut place = all.first()?.rsplit_once('/')?.0.to_owned();
    while !all.iter().all(|name| name.strip_prefix(&place).is_some_and(|rest| rest.starts_with('/'))) {
        place = place.rsplit_once('/')?.0.to_owned();
    }
    if place.is_empty() {
        return None;
    }
    let shorter = data.iter().map(|option| match (names(option), option.split_once('=')) {
        (Some(names), Some((key, _))) => {
            let names: Vec<&str> = names.iter().map(|name| &name[place.len() + 1..]).collect();
            format!("{key}={}", names.join(":"))
        }
        _ => option.clone(),
    });
    let shorter = shorter.collect();
    Some((place, shorter))
}

/// Options sorted into what the kernel takes as flags and what the file system is told.
struct Options {
    flags: Flags,
    propagation: MountPropagationFlags,
    data: Vec<String>,
}

struct Flags {
    flags: MountFlags,
    bind: bool,
    recursive: bool,
}

impl Options {
    fn of(options: &[String]) -> Self {
        let mut all = Self {
            flags: Flags { flags: MountFlags::empty(), bind: false, recursive: false },
            propagation: MountPropagationFlags::empty(),
            data: Vec::new(),
        };
        for option in options {
            let (flag, on) = match option.as_str() {
                "ro" => (MountFlags::RDONLY, true),
                "rw" => (MountFlags::RDONLY, false),
                "nosuid" => (MountFlags::NOSUID, true),
                "suid" => (MountFlags::NOSUID, false),
                "nodev" => (MountFlags::NODEV, true),
                "dev" => (MountFlags::NODEV, false),
                "noexec" => (MountFlags::NOEXEC, true),
                "exec" => (MountFlags::NOEXEC, false),
                "sync" => (MountFlags::SYNCHRONOUS, true),
                "async" => (MountFlags::SYNCHRONOUS, false),
                "noatime" => (MountFlags::NOATIME, true),
                "atime" => (MountFlags::NOATIME, false),
                "nodiratime" => (MountFlags::NODIRATIME, true),
                "relatime" => (MountFlags::RELATIME, true),
                "strictatime" => (MountFlags::STRICTATIME, true),
                "defaults" => continue,
                "bind" => {
                    all.flags.bind = true;
                    continue;
                }
                "rbind" => {
                    all.flags.bind = true;
                    all.flags.recursive = true;
                    continue;
                }
                word => {
                    match propagation(word) {
                        Some(propagation) => all.propagation |= propagation,
                        None => all.data.push(option.clone()),
                    }
                    continue;
                }
            };
            all.flags.flags.set(flag, on);
        }
        all
    }
}

fn propagation(word: &str) -> Option<MountPropagationFlags> {
    let (kind, recursive) = match word.strip_prefix('r') {
        Some(kind) if ["private", "shared", "slave", "unbindable"].contains(&kind) => (kind, true),
        _ => (word, false),
    };
    let kind = match kind {
        "private" => MountPropagationFlags::PRIVATE,
        "shared" => MountPropagationFlags::SHARED,
        "slave" => MountPropagationFlags::DOWNSTREAM,
        "unbindable" => MountPropagationFlags::UNBINDABLE,
        _ => return None,
    };
    Some(if recursive { kind | MountPropagationFlags::REC } else { kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_sorted() {
        let words = ["ro", "rbind", "nosuid", "rprivate", "lowerdir=/a:/b", "index=off", "suid"];
        let options = Options::of(&words.map(str::to_owned));
        assert_eq!(options.flags.flags, MountFlags::RDONLY);
        assert!(options.flags.bind && options.flags.recursive);
        assert_eq!(options.propagation, MountPropagationFlags::PRIVATE | MountPropagationFlags::REC);
        assert_eq!(options.data, ["lowerdir=/a:/b", "index=off"]);
    }

    #[test]
    fn long_lists_of_layers_are_shortened() {
        let layers = |kind: &str| {
            let names: Vec<String> = (0..99).map(|number| format!("/var/lib/s/{number}/fs")).collect();
            format!("{kind}={}", names.join(":"))
        };
        let data =
            [layers("lowerdir"), "upperdir=/var/lib/s/u/fs".to_owned(), "workdir=/var/lib/s/u/w".into()];
        let (place, shorter) = shortened(&data).unwrap();
        assert_eq!(
            (place.as_str(), shorter[1].as_str(), shorter[2].as_str()),
            ("/var/lib/s", "upperdir=u/fs", "workdir=u/w")
        );
        assert!(shorter[0].starts_with("lowerdir=0/fs:1/fs:"));
        let apart = ["lowerdir=/a/b".to_owned(), "upperdir=/c/d".to_owned()];
        assert_eq!(shortened(&apart), None);
        assert_eq!(shortened(&["size=1".to_owned()]), None);
    }
}
