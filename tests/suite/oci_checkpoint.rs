//! `dhow oci checkpoint` and `restore`: with CRIU where that works on this kernel, and with programs in its place.
//!
//! `DHOW_TEST_CRIU` names another CRIU than the one in `PATH`: Debian's 3.17 fails on kernels that are newer by years, and
//! then what is tested with it is what a caller is told.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::json;

use crate::support::{Bundle, is_root, until};

fn criu() -> String {
    std::env::var("DHOW_TEST_CRIU").unwrap_or_else(|_| "criu".to_owned())
}

/// Whether it can do anything here.
fn works() -> bool {
    let check = Command::new(criu()).arg("check").output().expect("Debian package criu");
    check.status.success()
}

/// Counts into a file of the host's, and has something in memory that no other has.
const COUNTS: &str =
    "n=0; echo kept > /tmp/private; while :; do n=$((n + 1)); echo $n > /data/n; sleep 0.05; done";

fn bundle() -> Bundle {
    let bundle = Bundle::new(&["sh", "-c", COUNTS]);
    fs_err::create_dir(bundle.path("data")).unwrap();
    fs_err::write(bundle.path("data/n"), "0").unwrap();
    bundle.change(|spec| {
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.push(json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" }));
        let source = bundle.text("data");
        mounts
            .push(json!({ "destination": "/data", "type": "bind", "source": source, "options": ["rbind"] }));
        spec["linux"]["maskedPaths"] = json!(["/proc/keys", "/proc/acpi"]);
        spec["linux"]["readonlyPaths"] = json!(["/proc/sys"]);
    });
    bundle
}

fn count(bundle: &Bundle) -> u64 {
    // Empty for as long as the shell has it open.
    until("a number", || fs_err::read_to_string(bundle.path("data/n")).unwrap().trim().parse().ok())
}

fn counts_on(bundle: &Bundle, from: u64) {
    until(format!("it counts on from {from}"), || (count(bundle) > from).then_some(()));
}

#[test]
fn a_container_goes_on_where_it_was() {
    if !is_root() {
        println!("skipped: needs root");
        return;
    }
    let bundle = bundle();
    let criu = criu();
    bundle.oci(&["run", "--detach", "a"]).ok();
    counts_on(&bundle, 3);
    let first = ["--criu", &criu, "checkpoint", "--image-path", "../first", "--leave-running", "a"];
    if !works() {
        // It says why, where the whole story is, and leaves the container alone.
        let log = "first/dump.log";
        let called = bundle.oci(&first).fails(1, "criu failed: type DUMP");
        assert!(called.stderr.contains(log) && bundle.path(log).exists(), "{called:#?}");
        assert_eq!(bundle.status("a"), "running");
        counts_on(&bundle, count(&bundle));
        bundle.oci(&["delete", "--force", "a"]).ok();
        let back = ["--criu", &criu, "restore", "--detach", "--image-path", "../first", "a"];
        bundle.oci(&back).fails(1, "criu failed: type RESTORE");
        bundle.is_clean();
        println!("{criu} does not work on this kernel");
        return;
    }
    bundle.oci(&first).ok();
    counts_on(&bundle, count(&bundle));
    // Not every kernel can tell which memory was changed.
    let before = bundle.oci(&["--criu", &criu, "checkpoint", "--pre-dump", "--image-path", "../before", "a"]);
    assert!(before.code == 0 || before.stderr.contains("Tracking memory is not available"), "{before:#?}");
    assert_eq!(bundle.status("a"), "running");
    let mut last =
        vec!["--criu", &criu, "checkpoint", "--image-path", "../second", "--work-path", "../logs", "a"];
    if before.code == 0 {
        last.extend(["--parent-path", "../before"]);
    }
    bundle.oci(&last).ok();
    assert!(bundle.path("logs/dump.log").exists());
    bundle.is_clean();
    let end = count(&bundle);

    // Under another name, in its group, beside a second one that was made before.
    let back =
        ["--criu", &criu, "restore", "--detach", "--image-path", "../second", "--pid-file", "../pid", "b"];
    bundle.oci(&back).ok();
    counts_on(&bundle, end);
    let pid = fs_err::read_to_string(bundle.path("pid")).unwrap();
    assert_eq!(bundle.state("b")["pid"].to_string(), pid);
    let groups = fs_err::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(groups.lines().any(|line| line.ends_with(&bundle.group())), "{groups}");
    assert!(bundle.oci(&["ps", "b"]).ok().contains(COUNTS));
    assert_eq!(bundle.oci(&["exec", "b", "cat", "/tmp/private", "/proc/keys"]).ok(), "kept\n");
    bundle.oci(&back).fails(1, "already exists");
    bundle.oci(&["pause", "b"]).ok();
    assert_eq!(bundle.status("b"), "paused");
    bundle.oci(&["resume", "b"]).ok();
    bundle.oci(&["kill", "b", "KILL"]).ok();
    bundle.until("b", "stopped");
    bundle.oci(&["delete", "b"]).ok();
    bundle.is_clean();

    // In the foreground, which ends as it ends.
    let again = ["--criu", &criu, "restore", "--image-path", "../first", "c"];
    let mut command = bundle.command(&again);
    // What was a file has to be one again.
    let file = || fs_err::File::create(bundle.path("foreground")).unwrap().into_parts().0;
    command.stdin(std::process::Stdio::null()).stdout(file()).stderr(file());
    let running = std::thread::spawn(move || command.status().expect("the runtime"));
    until("it runs", || bundle.oci(&["state", "c"]).stdout.contains("running").then_some(()));
    bundle.oci(&["kill", "c", "KILL"]).ok();
    assert_eq!(running.join().expect("a status").code(), Some(137));
    bundle.is_clean();
}

#[test]
fn a_terminal_comes_back() {
    if !is_root() || !works() {
        println!("skipped: needs root, and a CRIU for this kernel");
        return;
    }
    let bundle = Bundle::new(&["sh", "-c", "echo up; read line; echo got $line; sleep 600"]);
    bundle.change(|spec| spec["process"]["terminal"] = json!(true));
    let criu = criu();
    let mut terminal = bundle.on_terminal(&["run", "a"]);
    terminal.expect("up");
    let dump = ["--criu", &criu, "checkpoint", "--image-path", "../image", "a"];
    bundle.oci(&dump).ok();
    let mut terminal = bundle.on_terminal(&["--criu", &criu, "restore", "--image-path", "../image", "a"]);
    until("it runs", || bundle.oci(&["state", "a"]).stdout.contains("running").then_some(()));
    terminal.send("word\n");
    terminal.expect("got word");
    bundle.oci(&["delete", "--force", "a"]).ok();
}

/// A program in CRIU's place: keeps what it is asked, then does what the rest says.
fn stand_in(bundle: &Bundle, rest: &str) -> String {
    let text = format!(
        "#!/usr/bin/python3
import os, signal, socket, sys
assert sys.argv[1] == 'swrk'
criu = socket.socket(fileno=int(sys.argv[2]))
asked = criu.recv(65536)
open('{0}/asked', 'wb').write(asked)
open('{0}/kept', 'w').write(' '.join(os.readlink('/proc/self/fd/' + fd) for fd in ('0', '1', '2')))
{rest}
",
        bundle.text("")
    );
    fs_err::write(bundle.path("stand-in"), text).unwrap();
    fs_err::set_permissions(bundle.path("stand-in"), std::fs::Permissions::from_mode(0o755)).unwrap();
    bundle.text("stand-in")
}

#[test]
fn criu_is_asked_what_runc_asks() {
    if !is_root() {
        println!("skipped: needs root");
        return;
    }
    let bundle = bundle();
    bundle.oci(&["run", "--detach", "a"]).ok();
    let pid: i64 = bundle.state("a")["pid"].as_i64().unwrap();
    // The end that a dump has, with an answer in CRIU's words.
    let criu =
        stand_in(&bundle, &format!("os.kill({pid}, signal.SIGKILL)\ncriu.send(b'\\x08\\x01\\x10\\x01')"));
    let options = ["--tcp-established", "--file-locks", "--shell-job", "--manage-cgroups-mode", "full"];
    let call =
        [["--criu", &criu, "checkpoint"].as_slice(), &options, &["--image-path", "../i", "a"]].concat();
    bundle.oci(&call).ok();
    bundle.is_clean();
    let asked = fs_err::read(bundle.path("asked")).unwrap();
    assert!(asked.starts_with(b"\x08\x01\x12"), "a dump: {asked:?}");
    let has = |what: &[u8]| asked.windows(what.len()).any(|part| part == what);
    let root = bundle.text("bundle/rootfs");
    let parts: [(&str, Vec<u8>); 8] = [
        ("tcp_established", b"\x28\x01".to_vec()),
        ("shell_job", b"\x38\x01".to_vec()),
        ("file_locks", b"\x40\x01".to_vec()),
        ("log", b"\x48\x04\x52\x08dump.log".to_vec()),
        ("root", [b"\x6a", [u8::try_from(root.len()).unwrap()].as_slice(), root.as_bytes()].concat()),
        ("a bind mount", b"\xba\x01\x0e\x0a\x05/data\x12\x05/data".to_vec()),
        ("a mask", b"\xba\x01\x17\x0a\x0a/proc/keys\x12\x09/dev/null".to_vec()),
        ("groups", b"\xc0\x01\x01\x90\x02\x04".to_vec()),
    ];
    for (what, bytes) in parts {
        assert!(has(&bytes), "{what}: {:?}", String::from_utf8_lossy(&asked));
    }
    let names: Vec<String> =
        serde_json::from_slice(&fs_err::read(bundle.path("i/descriptors.json")).unwrap()).unwrap();
    assert!(names.len() == 3 && names[1].starts_with("file["), "{names:?}");
}

#[test]
fn what_fails_leaves_nothing() {
    if !is_root() {
        println!("skipped: needs root");
        return;
    }
    let bundle = bundle();
    fs_err::create_dir(bundle.path("i")).unwrap();
    fs_err::write(bundle.path("i/descriptors.json"), r#"["/dev/null","pipe:[7]","pipe:[7]"]"#).unwrap();
    let log = format!(
        "open('{}/i/restore.log', 'w').write('(00.1) Error (criu/x.c:7): no such page\\n')",
        bundle.text("")
    );
    let cases = [
        (
            stand_in(&bundle, &format!("{log}\ncriu.send(b'\\x08\\x02\\x10\\x00\\x38\\x16')")),
            "type RESTORE errno 22: no such page",
        ),
        ("/nonexistent/criu".to_owned(), "cannot execute /nonexistent/criu"),
        ("/bin/false".to_owned(), "ended with code 1"),
    ];
    for (criu, words) in cases {
        let restore = ["--criu", &criu, "restore", "--detach", "--image-path", "../i", "a"];
        bundle.oci(&restore).fails(1, words);
        bundle.is_clean();
    }
    // A child of its own, killed half-way, with a process in the container's groups: it goes, too.
    let criu = stand_in(&bundle, "if os.fork() == 0: signal.pause()\ncriu.close()\nos._exit(3)");
    let restore = ["--criu", &criu, "restore", "--detach", "--image-path", "../i", "a"];
    bundle.oci(&restore).fails(1, "ended with code 3");
    bundle.is_clean();
    let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&bundle.text("bundle")), "{mounts}");

    bundle.oci(&["restore", "--image-path", "../no", "a"]).fails(1, "no image of a container");
    bundle.oci(&["checkpoint", "a"]).fails(1, "does not exist");
    bundle.oci(&["create", "a"]).ok();
    bundle.oci(&["checkpoint", "a"]).fails(1, "cannot be checkpointed in created state");
    bundle.oci(&["start", "a"]).ok();
    for (option, value, words) in [
        ("--manage-cgroups-mode", "hard", "invalid manage-cgroups-mode"),
        ("--empty-ns", "pid", "is not supported"),
        ("--page-server", "here", "ADDRESS:PORT"),
        ("--parent-path", "/tmp", "must be relative"),
        ("--parent-path", "../none", "is no folder"),
        ("--status-fd", "77", "--status-fd"),
    ] {
        bundle.oci(&["checkpoint", "--image-path", "../i", option, value, "a"]).fails(1, words);
    }
    bundle.oci(&["delete", "--force", "a"]).ok();
}
