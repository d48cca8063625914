//! Devices of the host in a native container: `--device`, and all of them with `--privileged`.
//!
//! A node of the host is bound where the container wants it. Which of them work is the kernel's business where a control
//! group has rules; see `resources`.

use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use dhow_runtime::spec::Mount;
use fs_err as fs;

use crate::config::HostConfig;
use crate::error::{Error, Result};
use crate::mounts;

/// Folders deeper than this, and more nodes than this, are nobody's devices.
const DEEPEST: usize = 8;
const MOST: usize = 8192;

/// What every container has of its own, and what is none of its business: other sessions' terminals, mounts.
const OWN: [&str; 12] =
    ["console", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "tty", "urandom", "zero"];

/// A node of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// `b` or `c`.
    pub(crate) kind: char,
    pub(crate) number: (u32, u32),
    host: String,
    inside: String,
}

/// The mounts of the devices that were asked for.
pub(super) fn mounts(host: &HostConfig) -> Result<Vec<Mount>> {
    let mut nodes = asked(host)?.into_iter().map(|(node, _)| node).collect::<Vec<_>>();
    if host.privileged {
        let known: Vec<String> = nodes.iter().map(|node| node.inside.clone()).collect();
        let mut all = Vec::new();
        // A node that goes away meanwhile is not there.
        collect(Path::new("/dev"), "/dev", 0, &mut all).ok();
        nodes.extend(all.into_iter().filter(|node| !known.contains(&node.inside)));
    }
    nodes.iter().map(|node| mounts::mount(&node.inside, "bind", &node.host, &["bind", "rprivate"])).collect()
}

/// The nodes of `--device`, with what may be done with each.
pub(crate) fn asked(host: &HostConfig) -> Result<Vec<(Node, String)>> {
    let mut all = Vec::new();
    for device in &host.devices {
        let path = Path::new(&device.path_on_host);
        let refused = |reason: &str| {
            Error::Invalid(format!(
                "error gathering device information while adding custom device \"{}\": {reason}",
                device.path_on_host
            ))
        };
        let found = fs::metadata(path).map_err(|_| refused("no such file or directory"))?;
        let mut nodes = Vec::new();
        if found.is_dir() {
            collect(path, &device.path_in_container, 0, &mut nodes)?;
        } else if let Some(node) = node(path, &device.path_in_container) {
            nodes.push(node);
        }
        if nodes.is_empty() {
            return Err(refused("not a device node"));
        }
        all.extend(nodes.into_iter().map(|node| (node, device.cgroup_permissions.clone())));
    }
    Ok(all)
}

/// The number of a device.
pub(crate) fn number(path: &str) -> Result<(u32, u32)> {
    let found = node(Path::new(path), path);
    found.map(|node| node.number).ok_or_else(|| Error::Invalid(format!("{path}: no such device")))
}

fn node(path: &Path, inside: &str) -> Option<Node> {
    use std::os::unix::fs::MetadataExt as _;
    let found = fs::metadata(path).ok()?;
    let kind = match found.file_type() {
        kind if kind.is_block_device() => 'b',
        kind if kind.is_char_device() => 'c',
        _ => return None,
    };
    let number = found.rdev();
    Some(Node {
        kind,
        number: (rustix::fs::major(number), rustix::fs::minor(number)),
        host: path.to_str()?.to_owned(),
        inside: inside.to_owned(),
    })
}

fn collect(folder: &Path, inside: &str, depth: usize, nodes: &mut Vec<Node>) -> Result<()> {
    let mut entries: Vec<_> = fs::read_dir(folder)?.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Ok(kind) = entry.file_type() else { continue };
        if (depth == 0 && OWN.contains(&name.as_str())) || kind.is_symlink() || nodes.len() >= MOST {
            continue;
        }
        let inside = format!("{}/{name}", inside.trim_end_matches('/'));
        if kind.is_dir() && depth < DEEPEST {
            // One that may not be looked into has nothing to give.
            collect(&entry.path(), &inside, depth + 1, nodes).ok();
        } else if let Some(node) = node(&entry.path(), &inside) {
            nodes.push(node);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Device;

    #[test]
    fn nodes_are_found() {
        let of =
            |text: &str| HostConfig { devices: vec![Device::parse(text).unwrap()], ..HostConfig::default() };
        let found = asked(&of("/dev/null:/dev/x:r")).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].0.kind, found[0].0.number, found[0].1.as_str()), ('c', (1, 3), "r"));
        assert_eq!(found[0].0.inside, "/dev/x");
        for none in ["/nosuch", "/etc/hostname", "/etc"] {
            assert!(asked(&of(none)).is_err(), "{none}");
        }
        let all = mounts(&HostConfig { privileged: true, ..HostConfig::default() }).unwrap();
        assert!(all.iter().all(|mount| !OWN.iter().any(|own| mount.destination().ends_with(own))));
    }
}
