//! Handles and the executable of the host: CVE-2016-9962, 2019-5736, 2024-21626.

use std::process::Command;

use serde_json::json;

use super::harness::{Canary, SECRET, rounds};
use super::skipped;
use crate::support::{Bundle, until};

fn hash(path: &str) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// A working directory on a descriptor that was left open would be the host's.
#[test]
fn working_directories_on_descriptors() {
    if skipped() {
        return;
    }
    let canary = Canary::new();
    let up = "../".repeat(12);
    let script = format!("cat {up}{}/secret", &canary.text()[1..]);
    let bundle = Bundle::new(&["sh", "-c", &script]);
    for number in 0..64 {
        let cwd = if number % 2 == 0 {
            format!("/proc/self/fd/{number}")
        } else {
            format!("/proc/1/fd/{number}/.")
        };
        bundle.change(|spec| spec["process"]["cwd"] = json!(cwd));
        let called = bundle.oci(&["run", "a"]);
        assert!(called.code == 1 && called.stdout.is_empty(), "{cwd}: {called:#?}");
    }
    // An image's own link to there, too.
    std::os::unix::fs::symlink("/proc/self/fd/7", bundle.path("bundle/rootfs/way")).unwrap();
    bundle.change(|spec| spec["process"]["cwd"] = json!("/way"));
    assert_eq!(bundle.oci(&["run", "a"]).code, 1);
    bundle.change(|spec| {
        spec["process"]["cwd"] = json!("/");
        spec["process"]["args"] = json!(["sleep", "600"]);
    });
    bundle.oci(&["run", "-d", "a"]).ok();
    // The shell opens the folder itself.
    assert_eq!(bundle.oci(&["exec", "a", "ls", "/proc/self/fd"]).ok(), "0\n1\n2\n3\n");
    assert_eq!(bundle.oci(&["exec", "a", "ls", "/proc/1/fd"]).ok(), "0\n1\n2\n");
    for number in (0..64).step_by(3) {
        let called =
            bundle.oci(&["exec", "--cwd", &format!("/proc/self/fd/{number}"), "a", "sh", "-c", &script]);
        assert!(called.code == 255 && !called.stdout.contains(SECRET), "{number}: {called:#?}");
    }
    bundle.oci(&["delete", "-f", "a"]).ok();
}

/// The runtime is never what runs in a container, and cannot be written to from there.
#[test]
fn the_runtime_s_executable() {
    if skipped() {
        return;
    }
    let own = env!("CARGO_BIN_EXE_dhow");
    let before = hash(own);
    let bundle = Bundle::new(&["/proc/self/exe"]);
    bundle.oci(&["run", "a"]).fails(1, "permission denied");
    let rootfs = bundle.path("bundle/rootfs");
    fs_err::write(rootfs.join("bin/script"), "#!/proc/self/exe\n").unwrap();
    tool_chmod(&rootfs.join("bin/script"));
    bundle.change(|spec| spec["process"]["args"] = json!(["/bin/script"]));
    bundle.oci(&["run", "a"]).fails(1, "permission denied");
    // One that waits for processes that join, and opens their executables to write.
    let script = "while :; do for p in /proc/[0-9]*; do case $p in /proc/1|/proc/$$) ;; *) (echo bad >> $p/exe) 2>/dev/null && echo $p >> /data/written; readlink $p/exe >> /data/seen 2>/dev/null;; esac; done; done";
    bundle.change(|spec| spec["process"]["args"] = json!(["sh", "-c", script]));
    bundle.oci(&["run", "-d", "a"]).ok();
    for command in [&["true"][..], &["/proc/self/exe"], &["/bin/script"], &["sleep", "0.02"]] {
        for _ in 0..rounds() / 4 {
            bundle.oci(&[&["exec", "a"], command].concat());
        }
    }
    bundle.oci(&["delete", "-f", "a"]).ok();
    assert!(!rootfs.join("data/written").exists(), "an executable was written to");
    let seen = fs_err::read_to_string(rootfs.join("data/seen")).unwrap_or_default();
    assert!(seen.lines().all(|line| line == "/bin/busybox"), "{seen}");
    assert_eq!(before, hash(own));
}

fn tool_chmod(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// What joins is looked at all the time by who is root in the container: it sees no handle of the host's.
#[test]
fn handles_of_a_process_that_joins() {
    if skipped() {
        return;
    }
    let watch = "while :; do for f in /proc/[0-9]*/fd/* /proc/[0-9]*/cwd /proc/[0-9]*/root; do readlink $f 2>/dev/null; done | busybox sort -u >> /data/seen; done";
    let bundle = Bundle::new(&["sh", "-c", watch]);
    bundle.oci(&["run", "-d", "a"]).ok();
    let seen = bundle.path("bundle/rootfs/data/seen");
    until("it looks", || seen.exists().then_some(()));
    for _ in 0..rounds() {
        bundle.oci(&["exec", "a", "true"]).ok();
    }
    bundle.oci(&["delete", "-f", "a"]).ok();
    let fine = |line: &str| {
        // Its own streams are files of the test, which it was given, and the root is its own.
        let own = ["/data/seen", "/dev/null", "/", "/proc"].contains(&line) || line.starts_with("/proc/");
        own || ["pipe:", "/dev/pts", "anon_inode:"].iter().any(|start| line.starts_with(start))
            || ["/out", "/err"].iter().any(|end| line.trim_end_matches(" (deleted)").ends_with(end))
    };
    let text = fs_err::read_to_string(seen).unwrap();
    let bad: Vec<&str> = text.lines().filter(|line| !fine(line)).collect();
    assert!(bad.is_empty(), "{bad:?}");
}
