//! Mount targets and sources that lead elsewhere: CVE-2019-18837, 2021-43784, 2025-24965, 2026-41579 and its kin, and
//! the refusals of CVE-2019-16884, 2019-19921, 2023-27561 and 2023-28642.

use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use super::harness::{Canary, SECRET};
use super::skipped;
use crate::support::Bundle;

fn add_mount(spec: &mut Value, destination: &str, kind: &str, source: &str, options: &[&str]) {
    let mount = json!({ "destination": destination, "type": kind, "source": source, "options": options });
    spec["mounts"].as_array_mut().unwrap().push(mount);
}

/// Links of the image in a mount's target stay in the root, in the middle and at the end.
#[test]
fn mount_targets_do_not_follow_the_image_out() {
    if skipped() {
        return;
    }
    let canary = Canary::new();
    let bundle = Bundle::new(&["sh", "-c", "ls -R /data /abs /up; cat /proc/self/mounts"]);
    let rootfs = bundle.path("bundle/rootfs");
    symlink(canary.path(), rootfs.join("abs")).unwrap();
    symlink(format!("{}{}", "../".repeat(20), canary.text()), rootfs.join("up")).unwrap();
    symlink("/proc/self/root", rootfs.join("magic")).unwrap();
    for target in
        ["/abs", "/up", "/abs/sub", "/up/new/deep", "/abs/secret", "/magic/x", "/data/../../../../abs/e"]
    {
        for (kind, source, options) in [("tmpfs", "tmpfs", &[][..]), ("bind", "/etc", &["bind"][..])] {
            let spec = fs_err::read(bundle.path("bundle/config.json")).unwrap();
            bundle.change(|spec| add_mount(spec, target, kind, source, options));
            let called = bundle.oci(&["run", "a"]);
            assert!(!called.stdout.contains(SECRET), "{target}: {called:#?}");
            canary.is_untouched(target);
            fs_err::write(bundle.path("bundle/config.json"), spec).unwrap();
        }
    }
}

/// An image whose `/proc`, `/sys` or `/dev` is a link, with the mounts of any engine and without the one in question.
#[test]
fn linked_system_folders_are_refused() {
    if skipped() {
        return;
    }
    for name in ["proc", "sys", "dev"] {
        let canary = Canary::new();
        let bundle = Bundle::new(&["true"]);
        bundle.change(|spec| add_mount(spec, "/sys", "sysfs", "sysfs", &["ro"]));
        let place = bundle.path("bundle/rootfs").join(name);
        fs_err::remove_dir_all(&place).unwrap();
        for to in [canary.text(), "/data", "data", "/proc/self"] {
            symlink(to, &place).unwrap();
            bundle.oci(&["run", "a"]).fails(1, "symbolic link");
            canary.is_untouched(name);
            fs_err::remove_file(&place).unwrap();
        }
        symlink(canary.path(), &place).unwrap();
        bundle.change(|spec| {
            let mounts = spec["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with(&format!("/{name}")));
            spec["process"]["args"] = json!(["ls", format!("/{name}/")]);
        });
        // Without the mount nothing of it is needed but `/dev`.
        let called = bundle.oci(&["run", "a"]);
        assert!(!called.stdout.contains("secret") && (name != "dev" || called.code == 1), "{called:#?}");
        canary.is_untouched(name);
    }
}

#[test]
fn nothing_covers_procfs() {
    if skipped() {
        return;
    }
    let canary = Canary::new();
    let bundle = Bundle::new(&["true"]);
    symlink("/proc", bundle.path("bundle/rootfs/innocent")).unwrap();
    let good = fs_err::read(bundle.path("bundle/config.json")).unwrap();
    for target in
        ["/proc", "/proc/self", "/proc/self/attr", "/proc/1", "/proc/sys", "/innocent", "/innocent/sys"]
    {
        for (kind, source) in [("bind", canary.text()), ("tmpfs", "tmpfs")] {
            bundle.change(|spec| {
                let options: &[&str] = if kind == "bind" { &["rbind"] } else { &[] };
                add_mount(spec, target, kind, source, options);
            });
            let called = bundle.oci(&["run", "a"]);
            assert!(called.code == 1 && called.stderr.contains("proc"), "{target}: {called:#?}");
            canary.is_untouched(target);
            fs_err::write(bundle.path("bundle/config.json"), &good).unwrap();
        }
    }
    // What is allowed: files that tools like lxcfs cover.
    let file = canary.path().join("version");
    bundle.change(|spec| {
        add_mount(spec, "/proc/uptime", "bind", file.to_str().unwrap(), &["bind", "ro"]);
        spec["process"]["args"] = json!(["cat", "/proc/uptime"]);
    });
    assert_eq!(bundle.oci(&["run", "a"]).ok(), SECRET);
}

/// Whatever is long is told exactly or refused: no length wraps on its way into the container.
#[test]
fn long_values_arrive_whole() {
    if skipped() {
        return;
    }
    let bundle = Bundle::new(&["sh", "-c", "echo ${#BIG} $(id -u); pwd | busybox wc -c"]);
    let maps: Vec<Value> =
        (0..300).map(|id| json!({ "containerID": id, "hostID": 100_000 + id, "size": 1 })).collect();
    let deep = format!("/data{}", format!("/{}", "d".repeat(200)).repeat(15));
    bundle.change(|spec| {
        spec["process"]["env"] = json!(["PATH=/bin", format!("BIG={}", "x".repeat(100_000))]);
        spec["process"]["cwd"] = json!(deep);
        spec["process"]["user"] = json!({ "uid": 299, "gid": 299 });
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({ "type": "user" }));
        spec["linux"]["uidMappings"] = json!(maps);
        spec["linux"]["gidMappings"] = json!(maps);
    });
    let rootfs = bundle.path("bundle/rootfs");
    std::os::unix::fs::chown(rootfs.join("data"), Some(100_000), Some(100_000)).unwrap();
    for folder in [bundle.path(""), bundle.path("bundle")] {
        use std::os::unix::fs::PermissionsExt as _;
        fs_err::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    assert_eq!(bundle.oci(&["run", "a"]).ok(), format!("100000 299\n{}\n", deep.len() + 1));
    bundle.change(|spec| spec["linux"]["uidMappings"][7]["size"] = json!(u64::from(u32::MAX) + 2));
    assert_eq!(bundle.oci(&["run", "a"]).code, 1);
    bundle.change(|spec| spec["linux"]["uidMappings"][7]["size"] = json!(0));
    assert_eq!(bundle.oci(&["run", "a"]).code, 1);
}

/// A Wasm program's handler puts nothing into the root, where links would lead it.
#[test]
fn wasm_bundles_are_not_written_to() {
    if skipped() {
        return;
    }
    let canary = Canary::new();
    let bundle = Bundle::new(&["/program.wasm"]);
    let rootfs = bundle.path("bundle/rootfs");
    // `(module (func (export "_start")))`
    let module =
        b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\0\x0a\x04\x01\x02\0\x0b";
    fs_err::write(rootfs.join("program.wasm"), module).unwrap();
    for name in ["proc", "sys", "dev", "tmp", "etc", "data"] {
        fs_err::remove_dir_all(rootfs.join(name)).unwrap();
        symlink(canary.path(), rootfs.join(name)).unwrap();
    }
    for name in ["config.json", "run", "root", "wasm"] {
        symlink(canary.path().join("new"), rootfs.join(name)).unwrap();
    }
    let names = || {
        let mut names: Vec<_> =
            fs_err::read_dir(&rootfs).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort_unstable();
        names
    };
    let before = names();
    bundle.oci(&["run", "a"]).ok();
    assert_eq!(before, names());
}
