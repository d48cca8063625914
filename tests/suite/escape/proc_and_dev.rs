//! `/dev` of an image, and writes to procfs: CVE-2025-31133, 2025-52565, 2025-52881, 2026-88264 and 2026-88265.

use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::json;

use super::harness::{Canary, SECRET};
use super::skipped;
use crate::support::Bundle;

/// A bundle without a mount at `/dev`: what it needs there is the image's.
fn without_dev(script: &str) -> Bundle {
    let bundle = Bundle::new(&["sh", "-c", script]);
    bundle.change(|spec| {
        spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] == "/proc");
        spec["linux"]["maskedPaths"] = json!(["/proc/timer_list"]);
    });
    bundle
}

/// An image whose `/dev/null` is a link would show what it points to in place of what is masked.
#[test]
fn a_linked_null_device_masks_nothing() {
    if skipped() {
        return;
    }
    let canary = Canary::new();
    let script = "cat /proc/timer_list | busybox head -c 4";
    let bundle = without_dev(script);
    let null = bundle.path("bundle/rootfs/dev/null");
    for to in ["/data/evil", canary.path().join("null").to_str().unwrap(), "/proc/self/fd/7", "/dev/zero"] {
        symlink(to, &null).unwrap();
        let called = bundle.oci(&["run", "a"]);
        assert!(called.code == 1 && called.stdout.is_empty(), "{to}: {called:#?}");
        canary.is_untouched(to);
        fs_err::remove_file(&null).unwrap();
    }
    fs_err::write(&null, "no device").unwrap();
    assert_eq!(bundle.oci(&["run", "a"]).code, 1);
}

/// The console of a terminal is the container's own, whatever lies at its place.
#[test]
fn the_console_is_the_container_s_own_terminal() {
    if skipped() {
        return;
    }
    for mounts_dev in [true, false] {
        for name in ["console", "pts", "ptmx"] {
            let canary = Canary::new();
            let script = "echo type $(busybox stat -L -c %t /dev/console); exit 0";
            let bundle = if mounts_dev { Bundle::new(&["sh", "-c", script]) } else { without_dev(script) };
            bundle.change(|spec| spec["process"]["terminal"] = true.into());
            let dev = bundle.path("bundle/rootfs/dev");
            let to = if name == "console" { canary.path().join("console") } else { canary.path().to_owned() };
            symlink(to, dev.join(name)).unwrap();
            let mut terminal = bundle.on_terminal(&["run", "a"]);
            if mounts_dev {
                // Major 136: a pseudo terminal.
                terminal.expect("type 88");
                assert_eq!(terminal.code(), 0, "{name}");
            } else {
                terminal.code();
            }
            canary.is_untouched(name);
        }
    }
}

/// Devices of the specification are made where no link leads them.
#[test]
fn devices_are_made_inside() {
    if skipped() {
        return;
    }
    let canary = Canary::new();
    let bundle = without_dev("ls /dev");
    let rootfs = bundle.path("bundle/rootfs");
    symlink(canary.path(), rootfs.join("dev/way")).unwrap();
    symlink(canary.path().join("secret"), rootfs.join("dev/there")).unwrap();
    for path in ["/dev/way/made", "/dev/there", "/dev/../dev/way/x", "/dev/way/sub/secret"] {
        bundle.change(|spec| {
            spec["linux"]["devices"] =
                json!([{ "path": path, "type": "c", "major": 1, "minor": 3, "fileMode": 0o666 }]);
        });
        bundle.oci(&["run", "a"]);
        canary.is_untouched(path);
    }
}

/// Settings of the kernel are written through a procfs that no image can replace: with `/proc` a folder of the image's,
/// the namespace has the value and the image's file has not.
#[test]
fn kernel_settings_do_not_go_to_the_image() {
    if skipped() {
        return;
    }
    let bundle = Bundle::new(&["sleep", "600"]);
    let rootfs = bundle.path("bundle/rootfs");
    let fake = rootfs.join("proc/sys/net/ipv4");
    fs_err::create_dir_all(&fake).unwrap();
    fs_err::write(fake.join("ip_unprivileged_port_start"), "image").unwrap();
    bundle.change(|spec| {
        spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/proc");
        spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_unprivileged_port_start": "77" });
    });
    bundle.oci(&["run", "-d", "a"]).ok();
    assert_eq!(fs_err::read_to_string(fake.join("ip_unprivileged_port_start")).unwrap(), "image");
    let pid = bundle.state("a")["pid"].to_string();
    let seen = Command::new("nsenter")
        .args(["-n", "-t", &pid, "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"])
        .output()
        .expect("Debian package util-linux");
    assert_eq!(String::from_utf8_lossy(&seen.stdout), "77\n");
    bundle.oci(&["delete", "-f", "a"]).ok();
    // Names that lead out of the settings are none.
    for key in [
        "net/../../sysrq-trigger",
        "net/ipv4/../../kernel/core_pattern",
        "kernel.core_pattern",
        "/sysrq-trigger",
    ] {
        bundle.change(|spec| spec["linux"]["sysctl"] = json!({ key: "x" }));
        bundle.oci(&["run", "a"]).fails(1, "linux.sysctl");
    }
}

/// Masked and read-only paths that the image has as links, and ones that are not there.
#[test]
fn masked_paths_stay_in_the_root() {
    if skipped() {
        return;
    }
    let canary = Canary::new();
    let bundle = Bundle::new(&["sh", "-c", "cat /data/link /data/real; echo x > /data/ro/x"]);
    let data = bundle.path("bundle/rootfs/data");
    fs_err::write(data.join("real"), "image").unwrap();
    fs_err::create_dir(data.join("ro")).unwrap();
    symlink(canary.path().join("secret"), data.join("out")).unwrap();
    symlink("real", data.join("link")).unwrap();
    bundle.change(|spec| {
        spec["linux"]["maskedPaths"] = json!(["/data/out", "/data/link", "/data/none", "/data/real/none"]);
        spec["linux"]["readonlyPaths"] = json!(["/data/ro", "/data/out", "/none/at/all"]);
    });
    let called = bundle.oci(&["run", "a"]);
    assert!(called.stdout.is_empty() && called.stderr.contains("Read-only file system"), "{called:#?}");
    assert!(!called.stderr.contains(SECRET));
}
