//! Native containers on Linux 6.1, which many hosts have: what this machine's kernel does for Dhow is done in older ways there.
//!
//! The guest has no packet filter, so networks are not looked at.

use crate::support::{Host, inside_guest_kernel};

#[test]
fn containers_are_what_they_are_elsewhere() {
    if !inside_guest_kernel("older_kernel::containers_are_what_they_are_elsewhere") {
        return;
    }
    let host = Host::with_busybox();
    let run = |args: &[&str]| host.dhow([&["run", "--network", "none"], args].concat()).ok();
    assert_eq!(
        run(&["--name", "one", "busybox:1", "sh", "-c", "echo new > /made; rm /bin/tac; echo here"]),
        "here\n"
    );
    let mut changed: Vec<String> = host.dhow(["diff", "one"]).ok().lines().map(str::to_owned).collect();
    changed.sort();
    assert_eq!(changed, ["A /made", "C /bin", "D /bin/tac"]);
    host.dhow(["cp", "one:/made", &host.text("made")]).ok();
    assert_eq!(fs_err::read_to_string(host.path("made")).unwrap(), "new\n");
    host.dhow(["commit", "one", "changed:1"]).ok();
    assert_eq!(
        run(&["--rm", "changed:1", "sh", "-c", "cat /made; test -e /bin/tac || echo gone"]),
        "new\ngone\n"
    );
    let flags =
        ["--rm", "--read-only", "--tmpfs", "/t", "--user", "7:8", "--cap-drop", "ALL", "-v", "kept:/v"];
    let seen = run(&[
        &flags[..],
        &["busybox:1", "sh", "-c", "id -u; id -g; echo 1 > /t/a && cat /t/a; touch /no 2> /t/e || echo kept"],
    ]
    .concat());
    assert_eq!(seen, "7\n8\n1\nkept\n");
    run(&["-d", "--name", "two", "-m", "64m", "--pids-limit", "20", "busybox:1", "sleep", "600"]);
    assert_eq!(host.dhow(["exec", "two", "cat", "/proc/1/comm"]).ok(), "sleep\n");
    // Its own group is all it sees of groups.
    let groups = "cat /sys/fs/cgroup/memory.max /proc/self/cgroup /proc/1/cgroup";
    assert_eq!(host.dhow(["exec", "two", "sh", "-c", groups]).ok(), "67108864\n0::/\n0::/\n");
    assert_eq!(run(&["--rm", "-m", "32m", "busybox:1", "sh", "-c", groups]), "33554432\n0::/\n0::/\n");
    host.dhow(["pause", "two"]).ok();
    host.dhow(["unpause", "two"]).ok();
    host.dhow(["rm", "-f", "one", "two"]).ok();
}

/// More layers than the options of one call may name by their paths, and views of them.
#[test]
fn many_layers_are_put_together() {
    if !inside_guest_kernel("older_kernel::many_layers_are_put_together") {
        return;
    }
    let host = Host::with_busybox();
    let copies: String = (0..60).map(|n| format!("COPY f /files/{n}\n")).collect();
    let end = "RUN --network=none ls /files | wc -l > /count; test $(ls -a / | grep -c upper) = 0\n";
    host.file("c/f", "x");
    host.file("c/Dockerfile", format!("FROM busybox:1\n{copies}{end}"));
    host.dhow(["build", "-q", "-t", "many:1", &host.text("c")]).ok();
    let run = ["run", "--rm", "--network", "none", "many:1", "sh", "-c", "cat /count; ls /files | wc -l"];
    assert_eq!(host.dhow(run).ok(), "60\n60\n");
    let mounted = host.dhow(["image", "mount", "many:1"]).ok();
    let count = std::path::Path::new(mounted.trim()).join("count");
    assert_eq!(fs_err::read_to_string(&count).unwrap(), "60\n");
    assert!(fs_err::write(&count, "no").is_err(), "it can be changed");
    host.dhow(["image", "umount", "many:1"]).ok();
}
