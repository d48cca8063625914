//! The options of `dhow run` that set up a native process: user, folder, entrypoint, limits, security.

use serde_json::json;

use crate::support::{Host, busybox, is_root};

/// `dhow run --rm OPTIONS busybox:1 sh -c SCRIPT`.
fn says(host: &Host, options: &[&str], script: &str) -> String {
    host.dhow(["run", "--rm"]).args(options).args(["busybox:1", "sh", "-c", script]).ok()
}

#[test]
fn user_by_name_by_number_and_with_group() {
    let host = Host::with_busybox();
    for (user, id, home) in [
        ("1000:1000", "uid=1000(app) gid=1000(app)", "/home/app"),
        ("app", "uid=1000(app) gid=1000(app) groups=50(staff),1000(app)", "/home/app"),
        ("app:staff", "uid=1000(app) gid=50(staff)", "/home/app"),
        ("1234", "uid=1234 gid=0(root)", "/"),
        ("1234:4321", "uid=1234 gid=4321", "/"),
    ] {
        let out = says(&host, &["-u", user], "id; echo $HOME");
        let lines: Vec<&str> = out.lines().collect();
        assert!(lines[0].starts_with(id) && lines[1] == home, "{user}: {out}");
    }
    let refused = host.dhow(["run", "--rm", "-u", "nouser", "busybox:1", "id"]);
    refused.rejected(125, "unable to find user nouser: no matching entries in passwd file");
    let refused = host.dhow(["run", "--rm", "--user", "app:nogroup", "busybox:1", "id"]);
    refused.rejected(125, "unable to find group nogroup: no matching entries in group file");
}

#[test]
fn the_image_s_user_and_folder_are_the_default() {
    let host = Host::with(&[(
        "busybox:1",
        busybox().config("User", json!("app")).config("WorkingDir", json!("/home/app")),
    )]);
    assert_eq!(says(&host, &[], "id -un; pwd"), "app\n/home/app\n");
    assert_eq!(says(&host, &["-u", "0", "-w", "/tmp"], "id -un; pwd"), "root\n/tmp\n");
}

#[test]
fn working_folder_is_made_and_must_be_absolute() {
    let host = Host::with_busybox();
    assert_eq!(
        says(&host, &["-w", "/new/folder"], "pwd; ls -ld . | cut -c1-10"),
        "/new/folder\ndrwxr-xr-x\n"
    );
    let refused = host.dhow(["run", "--rm", "-w", "rel", "busybox:1", "pwd"]);
    refused.rejected(125, "the working directory 'rel' is invalid, it needs to be an absolute path");
}

#[test]
fn entrypoint_replaces_the_image_s_command_too() {
    let host = Host::with(&[("echo:1", busybox().entrypoint(&["echo", "-n"]).cmd(&["default"]))]);
    assert_eq!(host.dhow(["run", "--rm", "echo:1"]).ok(), "default");
    assert_eq!(host.dhow(["run", "--rm", "echo:1", "mine"]).ok(), "mine");
    assert_eq!(host.dhow(["run", "--rm", "--entrypoint", "/bin/echo", "echo:1"]).ok(), "\n");
    assert_eq!(host.dhow(["run", "--rm", "--entrypoint", "id", "echo:1", "-u"]).ok(), "0\n");
    assert_eq!(host.dhow(["run", "--rm", "--entrypoint", "", "echo:1", "echo", "plain"]).ok(), "plain\n");
}

#[test]
fn read_only_root_and_tmpfs() {
    let host = Host::with_busybox();
    let out = says(&host, &["--read-only"], "touch /x 2>&1; touch /tmp/x 2>&1; touch /dev/shm/x && echo shm");
    assert_eq!(out, "touch: /x: Read-only file system\ntouch: /tmp/x: Read-only file system\nshm\n");
    let script = "touch /tmp/x && grep ' /tmp ' /proc/mounts | cut -d' ' -f3; df -k /tmp | tail -n 1 | awk '{print $2}'";
    assert_eq!(says(&host, &["--read-only", "--tmpfs", "/tmp:size=1m"], script), "tmpfs\n1024\n");
}

#[test]
fn resource_limits() {
    let host = Host::with_busybox();
    assert_eq!(says(&host, &["--ulimit", "nofile=64:128"], "ulimit -Sn; ulimit -Hn"), "64\n128\n");
    assert_eq!(says(&host, &["--ulimit", "core=0"], "ulimit -c"), "0\n");
    assert_eq!(says(&host, &["--shm-size", "1m"], "df -k /dev/shm | tail -n 1 | awk '{print $2}'"), "1024\n");
    host.dhow(["run", "--rm", "--ulimit", "bogus=1", "busybox:1", "true"])
        .rejected(125, "invalid ulimit type: bogus");
}

#[test]
fn capabilities_are_added_and_dropped() {
    let host = Host::with_busybox();
    let effective = |options: &[&str]| {
        let out = says(&host, options, "grep CapEff /proc/self/status");
        u64::from_str_radix(out.split_whitespace().nth(1).unwrap(), 16).unwrap()
    };
    const DOCKER: u64 = 0xa804_25fb;
    const NET_RAW: u64 = 1 << 13;
    const SYS_ADMIN: u64 = 1 << 21;
    assert_eq!(effective(&[]), DOCKER);
    assert_eq!(effective(&["--cap-drop", "net_raw"]), DOCKER & !NET_RAW);
    assert_eq!(effective(&["--cap-drop", "ALL"]), 0);
    assert_eq!(effective(&["--cap-drop", "ALL", "--cap-add", "CAP_NET_RAW"]), NET_RAW);
    assert_eq!(effective(&["--cap-add", "SYS_ADMIN"]), DOCKER | SYS_ADMIN);
    assert_eq!(effective(&["-u", "1000"]), 0, "another user than root has none");
    host.dhow(["run", "--rm", "--cap-add", "BOGUS", "busybox:1", "true"]).rejected(125, "BOGUS");
}

#[test]
fn security_options() {
    let host = Host::with_busybox();
    let status = "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | tr -s '\\t\\n' ' '";
    assert_eq!(says(&host, &[], status), "NoNewPrivs: 0 Seccomp: 2 ");
    assert_eq!(says(&host, &["--security-opt", "no-new-privileges"], status), "NoNewPrivs: 1 Seccomp: 2 ");
    assert_eq!(
        says(&host, &["--security-opt", "no-new-privileges:true"], status),
        "NoNewPrivs: 1 Seccomp: 2 "
    );
    if is_root() {
        assert_eq!(
            says(&host, &["--security-opt", "seccomp=unconfined"], status),
            "NoNewPrivs: 0 Seccomp: 0 "
        );
    }
    let refused = host.dhow(["run", "--rm", "--security-opt", "bogus", "busybox:1", "true"]);
    refused.rejected(125, "bogus");
}

#[test]
fn group_add() {
    let host = Host::with_busybox();
    assert_eq!(
        says(&host, &["-u", "app:app", "--group-add", "staff", "--group-add", "77"], "id -G"),
        "1000 50 77\n"
    );
}

#[test]
fn network_none_has_only_a_loopback() {
    let host = Host::with_busybox();
    let out = says(
        &host,
        &["--network", "none"],
        "ls /sys/class/net; ping -c 1 -W 2 127.0.0.1 >/dev/null && echo up",
    );
    assert_eq!(out, "lo\nup\n");
}
