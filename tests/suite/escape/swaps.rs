//! Paths that another container exchanges while this one is made: CVE-2021-30465, 2024-45310, 2023-27561, 2025-31133 and
//! 2025-52565. A run may fail; it must neither reach the host nor leave the container open.

use serde_json::json;

use super::harness::{Canary, SECRET, Swapper, rounds};
use super::skipped;
use crate::support::{Bundle, Called};

/// Runs it again and again; how often it went well.
fn runs(bundle: &Bundle, canary: &Canary, mut look: impl FnMut(&Called)) -> usize {
    let mut well = 0;
    for round in 0..rounds() {
        let called = bundle.oci(&["run", "a"]);
        assert!(!called.stdout.contains(SECRET), "{round}: {called:#?}");
        if called.code == 0 {
            well += 1;
            look(&called);
        }
        if round % 20 == 0 {
            canary.is_untouched("a round");
        }
    }
    well
}

/// Two containers share a volume; one of them exchanges the directory where the other is to have a mount.
#[test]
fn mount_targets_in_a_shared_volume() {
    if skipped() {
        return;
    }
    let canary = Canary::new();
    let volume = tempfile::tempdir().unwrap();
    let bundle = Bundle::new(&["sh", "-c", "cat /vol/target/secret /vol/target/new/file 2>/dev/null; true"]);
    bundle.change(|spec| {
        let mounts = spec["mounts"].as_array_mut().unwrap();
        let source = volume.path().to_str().unwrap();
        mounts.push(json!({ "destination": "/vol", "type": "bind", "source": source, "options": ["rbind"] }));
        mounts.push(json!({ "destination": "/vol/target", "type": "tmpfs", "source": "tmpfs" }));
        mounts.push(json!({ "destination": "/vol/target/new/dir", "type": "tmpfs", "source": "tmpfs" }));
        mounts.push(json!({ "destination": "/vol/target/new/file", "type": "bind", "source": "/etc/hostname", "options": ["bind"] }));
    });
    let swapper = Swapper::directory(&volume.path().join("target"), canary.path());
    runs(&bundle, &canary, |_| ());
    swapper.stop();
    assert!(!canary.path().join("new").exists());
}

/// Directories and files that have to be made on the way of a target.
#[test]
fn missing_mount_targets_are_made_inside() {
    if skipped() {
        return;
    }
    let canary = Canary::new();
    let bundle = Bundle::new(&["true"]);
    let rootfs = bundle.path("bundle/rootfs");
    let swapper = Swapper::directory(&rootfs.join("data/way"), canary.path());
    for round in 0..rounds() {
        let target =
            if round % 2 == 0 { format!("/data/way/{round}/dir") } else { format!("/data/way/{round}") };
        let (kind, source) = if round % 2 == 0 { ("tmpfs", "tmpfs") } else { ("bind", "/etc/hostname") };
        bundle.change(|spec| {
            let options = if kind == "bind" { json!(["bind"]) } else { json!([]) };
            let mounts = spec["mounts"].as_array_mut().unwrap();
            mounts.truncate(3);
            mounts.push(json!({ "destination": target, "type": kind, "source": source, "options": options }));
        });
        bundle.oci(&["run", "a"]);
    }
    swapper.stop();
    canary.is_untouched("the rounds");
}

/// `/proc` that is now a directory, now a link to a fake one.
#[test]
fn procfs_is_procfs_or_nothing_runs() {
    if skipped() {
        return;
    }
    let canary = Canary::new();
    let script = "cd /proc && cat version && busybox stat -c %t:%T timer_list";
    let bundle = Bundle::new(&["sh", "-c", script]);
    bundle.change(|spec| spec["linux"]["maskedPaths"] = json!(["/proc/timer_list"]));
    let rootfs = bundle.path("bundle/rootfs");
    fs_err::create_dir_all(rootfs.join("data/fake/1")).unwrap();
    for name in ["version", "timer_list", "1/comm"] {
        fs_err::write(rootfs.join("data/fake").join(name), "fake\n").unwrap();
    }
    let swapper = Swapper::directory(&rootfs.join("proc"), std::path::Path::new("/data/fake"));
    runs(&bundle, &canary, |called| {
        // The program itself may see either; where it is procfs, its masks are there.
        let fine = called.stdout.starts_with("fake") || called.stdout.ends_with("\n1:3\n");
        assert!(fine, "{called:#?}");
    });
    swapper.stop();
}

/// `/dev/null` of an image without a mount at `/dev`, now the device, now a link: what is masked stays masked by the
/// host's.
#[test]
fn masks_are_the_host_s_null_device() {
    if skipped() {
        return;
    }
    let canary = Canary::new();
    let script =
        "busybox stat -c %t:%T /proc/timer_list; (: >> /proc/sysrq-trigger) 2>/dev/null && echo open; true";
    let bundle = Bundle::new(&["sh", "-c", script]);
    bundle.change(|spec| {
        spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] == "/proc");
        spec["linux"]["maskedPaths"] = json!(["/proc/timer_list"]);
        spec["linux"]["readonlyPaths"] = json!(["/proc/sysrq-trigger"]);
    });
    let dev = bundle.path("bundle/rootfs/dev");
    let made = std::process::Command::new("mknod").arg(dev.join("null")).args(["c", "1", "3"]).status();
    assert!(made.unwrap().success());
    std::os::unix::fs::symlink("/proc/sysrq-trigger", dev.join("other")).unwrap();
    let swapper = Swapper::start(dev.join("null"), dev.join("other"));
    runs(&bundle, &canary, |called| assert_eq!(called.stdout, "1:3\n", "{called:#?}"));
    swapper.stop();
}
