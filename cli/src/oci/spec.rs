//! `spec` and `features`: a specification to start from, and what can be in one.

use std::path::Path;

use serde_json::{Value, json};

use super::args::{Given, switch, value};
use super::{Global, Outcome, failed};
use crate::ui::Ui;

/// `spec`
pub(super) fn spec(_ui: Ui, _global: &Global, words: Vec<String>) -> Outcome {
    use std::io::Write as _;
    let given = Given::parse(&[value("bundle", "b"), switch("rootless", "")], words, None)?;
    let path = Path::new(given.text("bundle").unwrap_or(".")).join("config.json");
    let mut file = match fs_err::OpenOptions::new().write(true).create_new(true).open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(failed("file config.json exists. Remove it first"));
        }
        file => file?,
    };
    let text = serde_json::to_string_pretty(&example(given.has("rootless")))?;
    file.write_all(text.as_bytes())?;
    Ok(0)
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": source, "options": options })
}

/// A shell in `rootfs`, as runc's `spec` has it.
fn example(rootless: bool) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let rules: &[&str] = &["nosuid", "noexec", "nodev"];
    let pts: &[&str] = if rootless {
        &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    } else {
        &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
    };
    let sys = if rootless {
        mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"])
    } else {
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"])
    };
    let mut spec = json!({
        "ociVersion": "1.2.1",
        "process": {
            "terminal": true,
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "dhow",
        "mounts": [
            mount("/proc", "proc", "proc", &[]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts", pts),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", rules),
            sys
        ],
        "linux": {
            "namespaces": [{ "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "cgroup" }],
            "maskedPaths": dhow_engine::runtime::native::defaults::MASKED_PATHS,
            "readonlyPaths": dhow_engine::runtime::native::defaults::READONLY_PATHS
        }
    });
    if rootless {
        let map = |id: u32| json!([{ "containerID": 0, "hostID": id, "size": 1 }]);
        spec["linux"]["uidMappings"] = map(rustix::process::geteuid().as_raw());
        spec["linux"]["gidMappings"] = map(rustix::process::getegid().as_raw());
        if let Some(all) = spec["linux"]["namespaces"].as_array_mut() {
            all.push(json!({ "type": "user" }));
        }
    } else {
        spec["linux"]["resources"] = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
        if let Some(all) = spec["linux"]["namespaces"].as_array_mut() {
            all.push(json!({ "type": "network" }));
        }
        if let Some(all) = spec["mounts"].as_array_mut() {
            all.push(mount(
                "/sys/fs/cgroup",
                "cgroup",
                "cgroup",
                &["nosuid", "noexec", "nodev", "relatime", "ro"],
            ));
        }
    }
    spec
}

/// `features`
pub(super) fn features(ui: Ui, _global: &Global, words: Vec<String>) -> Outcome {
    Given::parse(&[], words, None)?;
    ui.line(&serde_json::to_string_pretty(&dhow_engine::runtime::native::features()?)?);
    Ok(0)
}

#[cfg(test)]
mod tests {
    use dhow_engine::runtime::spec::Spec;

    #[test]
    fn examples_are_specifications() {
        for rootless in [false, true] {
            let spec: Spec = serde_json::from_value(super::example(rootless)).unwrap();
            assert!(spec.process().is_some());
        }
    }
}
