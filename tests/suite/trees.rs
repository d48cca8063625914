//! A stored image's tree is the reference's, entry by entry: types, modes, owners, times to the nanosecond, links,
//! content, devices, extended attributes.
//!
//! The reference is what `umoci unpack` makes of the same layout, and docker's own layers under an overlay.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{
    Docker, Host, Layout, Podman, Registry, differences, is_root, listing, odd, skopeo, tool, umoci,
};

/// Mounts directories, the uppermost first, over each other for as long as `look` looks.
fn overlaid<T>(layers: &[PathBuf], look: impl FnOnce(&Path) -> T) -> T {
    let dir = tempfile::tempdir().unwrap();
    let names: Vec<String> = layers.iter().map(|layer| layer.display().to_string()).collect();
    let options = format!("ro,lowerdir={}", names.join(":"));
    tool(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(dir.path()));
    let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| look(dir.path())));
    tool(Command::new("umount").arg(dir.path()));
    seen.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The tree of a stored image of Dhow whose layers are directories.
fn directories(host: &Host, name: &str) -> BTreeMap<String, String> {
    let inspected: Value = serde_json::from_str(&host.dhow(["inspect", name]).ok()).unwrap();
    let ids = inspected[0]["RootFS"]["Layers"].as_array().unwrap();
    let folder = |id: &Value| {
        let hex = id.as_str().unwrap().strip_prefix("sha256:").unwrap();
        host.root().join("layers").join(hex).join("fs")
    };
    let layers: Vec<PathBuf> = ids.iter().rev().map(folder).collect();
    overlaid(&layers, listing)
}

/// The tree of a stored image whose layers are archives with an index, as `dhow image mount` shows it.
fn indexed(host: &Host, name: &str) -> BTreeMap<String, String> {
    let path = host.dhow(["image", "mount", name]).ok();
    let trees = fs_err::read_dir(host.root().join("trees")).map_or(0, |entries| entries.count());
    let table = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
    let seen = listing(Path::new(path.trim()));
    host.dhow(["image", "unmount", name]).ok();
    assert!(
        trees == 1 && table.contains(" erofs "),
        "root on this machine mounts no index: Linux 6.12 with EROFS of files, and a store not on tmpfs, are needed"
    );
    seen
}

fn same(what: &str, reference: &BTreeMap<String, String>, other: &BTreeMap<String, String>) {
    let differ = differences(reference, other);
    assert!(
        differ.is_empty(),
        "{what} differs from the reference in {} entries:\n{}",
        differ.len(),
        differ.join("\n")
    );
    assert!(reference.len() > 30, "there was nothing to compare");
}

#[test]
fn a_stored_tree_is_the_reference_tree() {
    if !is_root() {
        println!("skipped: owners and devices need root");
        return;
    }
    let (registry, layout) = (Registry::start(), Layout::new());
    layout.tag(&layout.image(&odd()), "it");
    let name = registry.name("odd:1");
    let source = format!("oci:{}:it", layout.path().display());
    tool(&mut skopeo(["copy", &source, &format!("docker://{name}")]));
    let bundle = tempfile::tempdir().unwrap();
    let unpacked = bundle.path().join("bundle");
    tool(umoci(["unpack", "--image", &format!("{}:it", layout.path().display())]).arg(&unpacked));
    let reference = listing(&unpacked.join("rootfs"));

    let files = Host::new();
    files.dhow(["pull", "-q", "--layers", "files", &name]).ok();
    same("dhow pull, directories", &reference, &directories(&files, &name));

    let host = Host::new();
    host.dhow(["pull", "-q", &name]).ok();
    let archive = host.text("it.tar");
    host.dhow(["save", "-o", &archive, &name]).ok();
    same("dhow pull, archives with an index", &reference, &indexed(&host, &name));

    // What is saved and loaded again is the same tree.
    let other = Host::new();
    other.dhow(["load", "-q", "-i", &archive, "--layers", "files"]).ok();
    other.dhow(["run", "--rm", "--layers", "files", "--network", "none", &name, "-c", "true"]).ok();
    same("dhow save, dhow load", &reference, &directories(&other, &name));

    let podman = Podman::new();
    tool(&mut podman.call(["pull", "-q", &name]));
    let mounted = tool(&mut podman.call(["image", "mount", &name]));
    let seen = listing(Path::new(mounted.trim()));
    tool(&mut podman.call(["image", "unmount", &name]));
    // podman mounts it below a folder of its own making.
    let below = |tree: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        tree.iter()
            .filter(|(name, _)| !name.is_empty())
            .map(|(name, line)| (name.clone(), line.clone()))
            .collect()
    };
    same("podman pull", &below(&reference), &below(&seen));

    if let Some(docker) = Docker::start() {
        tool(&mut docker.call(["pull", "-q", &name]));
        // Its overlay's uppermost folder is its own as well.
        same("docker pull", &below(&reference), &below(&overlaid(&docker.layers(&name), listing)));
    }
}
