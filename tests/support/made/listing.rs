//! A tree as text: one line for each entry with everything that an image says about it, to compare trees with.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::digest_of;

/// Path (escaped) to type, mode, owner, time to the nanosecond, and for files size, links, content; targets of links,
/// numbers of devices, extended attributes. Of names of one file all but the first say only which that is.
pub(crate) fn listing(root: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut files = HashMap::new();
    walk(root, root, &mut files, &mut all);
    all
}

fn walk(root: &Path, path: &Path, files: &mut HashMap<u64, String>, all: &mut BTreeMap<String, String>) {
    let name =
        path.strip_prefix(root).expect("below the root").as_os_str().as_bytes().escape_ascii().to_string();
    let found = fs_err::symlink_metadata(path).expect("entry");
    let kind = found.file_type();
    let mut line = format!(
        "{:o} {}:{} {}.{:09}",
        found.mode(),
        found.uid(),
        found.gid(),
        found.mtime(),
        found.mtime_nsec(),
    );
    if !kind.is_dir() {
        line += &format!(" links={}", found.nlink());
        if found.nlink() > 1 {
            line += &format!(" as={}", files.entry(found.ino()).or_insert_with(|| name.clone()));
        }
    }
    if kind.is_file() {
        line += &format!(" {} {}", found.len(), digest_of(&fs_err::read(path).expect("file")));
    } else if kind.is_symlink() {
        line +=
            &format!(" -> {}", fs_err::read_link(path).expect("link").as_os_str().as_bytes().escape_ascii());
    } else if kind.is_block_device() || kind.is_char_device() {
        line += &format!(" device={:x}", found.rdev());
    }
    line += &attributes(path);
    all.insert(name, line);
    if kind.is_dir() {
        let mut inside: Vec<_> =
            fs_err::read_dir(path).expect("folder").map(|entry| entry.expect("entry").path()).collect();
        inside.sort();
        for path in inside {
            walk(root, &path, files, all);
        }
    }
}

fn attributes(path: &Path) -> String {
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, names.as_mut_slice()).unwrap_or(0);
    let mut text = String::new();
    let mut names: Vec<&[u8]> =
        names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    for name in names {
        let mut value = vec![0; 4096];
        let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).unwrap_or(0);
        text += &format!(" {}={}", name.escape_ascii(), value[..length].escape_ascii());
    }
    text
}

/// What two listings do not have in common, for a message.
pub(crate) fn differences(one: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> Vec<String> {
    let names: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let differ = names.into_iter().filter(|name| one.get(*name) != other.get(*name));
    differ.map(|name| format!("{name:?}:\n  {:?}\n  {:?}", one.get(name), other.get(name))).collect()
}
