//! Who a program is: CVE-2016-3697, 2022-0492, 2022-24769 and its kin, 2022-36109, 2023-25173, 2023-25809, 2024-9676,
//! 2024-40635, 2026-30892.

use serde_json::json;

use super::harness::{Canary, SECRET};
use super::skipped;
use crate::support::{Bundle, Host, Tree, busybox};

fn image(host: &Host, name: &str, tree: Tree) {
    host.load(&[(name, busybox().layer(tree))]);
}

/// Numbers are numbers, whatever names the image has.
#[test]
fn numbers_are_no_names() {
    let host = Host::new();
    let passwd =
        "root:x:0:0::/:/bin/sh\n1000:x:0:0::/:/bin/sh\nuser:x:1001:1001::/:/bin/sh\n-1:x:0:0::/:/bin/sh\n";
    let group = "root:x:0:\n1000:x:0:\nuser:x:1001:\nextra:x:44:user\nother:x:45:else\n";
    let tree =
        Tree::new().dir("etc", 0o755).file("etc/passwd", 0o644, passwd).file("etc/group", 0o644, group);
    image(&host, "users:1", tree);
    let id = |user: &str, words: &[&str]| {
        host.dhow(["run", "--rm", "--user", user, "users:1", "id"]).args(words).outcome()
    };
    assert_eq!(id("1000", &["-u"]).stdout, "1000\n");
    assert_eq!(id("1000:1000", &["-g"]).stdout, "1000\n");
    // The image's list and nothing else: no group of the caller's, and the primary one is there.
    assert_eq!(id("user", &["-G"]).stdout, "1001 44\n");
    assert_eq!(id("1001", &["-G"]).stdout, "1001 44\n");
    assert_eq!(id("1002", &["-G"]).stdout, "0\n");
    for user in
        ["4294967296", "4294967295", "4294967296:0", "0:4294967296", "nobody-here", "1:none", "0x1", "+1"]
    {
        let outcome = id(user, &["-u"]);
        assert!(outcome.code != 0 && outcome.stdout.is_empty(), "{user}: {outcome:#?}");
    }
    host.dhow(["run", "-d", "--name", "it", "users:1", "sleep", "600"]).ok();
    let exec = |user: &str| host.dhow(["exec", "--user", user, "it", "id", "-u"]).outcome();
    assert_eq!(exec("1000").stdout, "1000\n");
    for user in ["4294967296", "0x1", "1:4294967296", "nobody-here", "+1"] {
        let outcome = exec(user);
        assert!(outcome.code != 0 && outcome.stdout.is_empty(), "{user}: {outcome:#?}");
    }
    host.dhow(["rm", "-f", "it"]).ok();
}

/// Lists of users that are no files of the image, or too many: neither followed, nor waited for, nor kept.
#[test]
fn lists_of_users_that_mean_harm() {
    let host = Host::new();
    let canary = Canary::new();
    let secret = canary.path().join("passwd");
    let long = "x".repeat(4 << 20);
    for (name, tree) in [
        ("linked:1", Tree::new().dir("etc", 0o755).symlink("etc/passwd", secret.to_str().unwrap())),
        ("up:1", Tree::new().dir("etc", 0o755).symlink("etc/passwd", "../../../../../../../etc/passwd")),
        ("folder:1", Tree::new().dir("etc/passwd", 0o755)),
        ("long:1", Tree::new().dir("etc", 0o755).file("etc/passwd", 0o644, long.as_str())),
    ] {
        image(&host, name, tree);
        let outcome = host.dhow(["run", "--rm", "--user", "daemon", name, "id"]).outcome();
        assert!(outcome.code != 0 && !outcome.stderr.contains(SECRET), "{name}: {outcome:#?}");
        // Numbers need no list; one that cannot be read may be an error all the same.
        let outcome = host.dhow(["run", "--rm", "--user", "7:8", name, "id", "-u"]).outcome();
        assert!(outcome.stdout == "7\n" || outcome.code == 125, "{name}: {outcome:#?}");
    }
    // A pipe, made by the container itself: whoever looks a user up there does not wait for a writer.
    image(&host, "own:1", Tree::new());
    host.dhow(["run", "-d", "--name", "it", "own:1", "sleep", "600"]).ok();
    host.dhow(["exec", "it", "sh", "-c", "rm -f /etc/passwd /etc/group; mkfifo /etc/passwd /etc/group"]).ok();
    assert_ne!(host.dhow(["exec", "--user", "daemon", "it", "id"]).outcome().code, 0);
    let outcome = host.dhow(["exec", "--user", "9", "it", "cat", "/proc/self/status"]).outcome();
    assert!(outcome.stdout.contains("Uid:\t9\t9"), "{outcome:#?}");
    host.dhow(["rm", "-f", "it"]).ok();
}

/// Nothing inheritable and nothing ambient, for what is first, what joins, and what joins with more.
#[test]
fn capabilities_end_with_the_program() {
    if skipped() {
        return;
    }
    let bundle = Bundle::new(&["sleep", "600"]);
    bundle.oci(&["run", "-d", "a"]).ok();
    for args in [&["cat", "/proc/1/status"][..], &["cat", "/proc/self/status"]] {
        for more in [&[][..], &["--cap", "CAP_NET_RAW"], &["--cap", "CAP_SYS_PTRACE", "--user", "5:5"]] {
            let said = bundle.oci(&[&["exec"], more, &["a"], args].concat()).ok();
            for set in ["CapInh", "CapAmb"] {
                assert!(said.contains(&format!("{set}:\t0000000000000000")), "{more:?}: {said}");
            }
        }
    }
    bundle.oci(&["delete", "-f", "a"]).ok();
    bundle.change(|spec| {
        spec["process"]["user"] = json!({ "uid": 3, "gid": 4, "additionalGids": [5, 6] });
        spec["process"]["args"] = json!(["busybox", "id", "-G"]);
    });
    assert_eq!(bundle.oci(&["run", "a"]).ok(), "4 5 6\n");
    bundle.change(|spec| spec["process"]["capabilities"]["inheritable"] = json!(["CAP_SYS_ADMIN"]));
    bundle.oci(&["run", "a"]).fails(1, "process.capabilities.inheritable");
}

/// Neither a new user namespace nor the ones a container has open the hierarchies of control groups.
#[test]
fn control_groups_cannot_be_written() {
    let host = Host::with_busybox();
    let script = "for kind in cgroup cgroup2; do busybox mount -t $kind -o rdma none /tmp 2>/dev/null && echo mounted; done; \
        busybox unshare -Urm busybox mount -t cgroup -o rdma none /tmp 2>/dev/null && echo mounted; \
        for f in $(busybox find /sys/fs/cgroup -name release_agent -o -name cgroup.procs 2>/dev/null | busybox head -n 20); do (: >> $f) 2>/dev/null && echo writable $f; done; echo end";
    assert_eq!(host.dhow(["run", "--rm", "busybox:1", "sh", "-c", script]).ok(), "end\n");
    if skipped() {
        return;
    }
    // A specification of a user namespace that shares the groups of the host.
    let bundle = Bundle::new(&["sh", "-c", script]);
    bundle.change(|spec| {
        spec["linux"]["namespaces"] = ["pid", "ipc", "uts", "mount", "network", "user"]
            .iter()
            .map(|kind| json!({ "type": kind }))
            .collect();
        spec["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
        spec["linux"]["gidMappings"] = spec["linux"]["uidMappings"].clone();
        spec["mounts"].as_array_mut().unwrap().extend([
            json!({ "destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "rro"] }),
            json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"] }),
        ]);
    });
    let said = bundle.oci(&["run", "a"]).ok();
    assert!(!said.contains("writable") && !said.contains("mounted") && said.ends_with("end\n"), "{said}");
}
