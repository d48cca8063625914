//! `dhow oci`: processes by handle, orphans, and when a container is said to run.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::json;

use crate::support::{Bundle, is_root, until};

fn skipped() -> bool {
    if !is_root() {
        println!("skipped: needs root");
    }
    !is_root()
}

/// What a caller is handed at a socket: the name and the handle.
fn handed(socket: &UnixListener) -> (String, OwnedFd) {
    let (stream, _) = socket.accept().unwrap();
    let mut name = [0; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let slices = &mut [IoSliceMut::new(&mut name)];
    let length = recvmsg(&stream, slices, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap().bytes;
    let handle = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut handles) => handles.next(),
        _ => None,
    });
    (String::from_utf8_lossy(&name[..length]).into_owned(), handle.expect("a handle"))
}

/// The process a handle is for.
fn pid_of(handle: &OwnedFd) -> u64 {
    use std::os::fd::AsRawFd as _;
    let info = fs_err::read_to_string(format!("/proc/self/fdinfo/{}", handle.as_raw_fd())).unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("Pid:")).unwrap_or_else(|| panic!("{info}"));
    line.trim().parse().unwrap()
}

#[test]
fn processes_are_handed_over() {
    if skipped() {
        return;
    }
    let bundle = Bundle::new(&["sleep", "600"]);
    let socket = UnixListener::bind(bundle.path("handles")).unwrap();
    let path = bundle.text("handles");
    bundle.oci(&["run", "-d", "--pidfd-socket", &path, "a"]).ok();
    let (kind, first) = handed(&socket);
    assert_eq!((kind.as_str(), pid_of(&first)), ("standard", bundle.state("a")["pid"].as_u64().unwrap()));
    bundle
        .oci(&["exec", "-d", "--pidfd-socket", &path, "--pid-file", &bundle.text("pid"), "a", "sleep", "5"])
        .ok();
    let (kind, second) = handed(&socket);
    assert_eq!(kind, "setns");
    assert_eq!(pid_of(&second).to_string(), fs_err::read_to_string(bundle.path("pid")).unwrap());
    bundle.oci(&["delete", "-f", "a"]).ok();
    // A socket that is not there is no reason to leave a container behind.
    let failed = bundle.oci(&["create", "--pidfd-socket", &bundle.text("none"), "a"]);
    failed.fails(1, "send the process to");
    bundle.is_clean();
}

/// A container without a process namespace leaves its orphans to who runs it, who buries them.
#[test]
fn orphans_are_adopted_and_buried() {
    if skipped() {
        return;
    }
    let script = "sh -c 'sleep 0.2 & echo $! > /data/orphan'; sleep 600";
    for flag in [None, Some("--no-subreaper")] {
        let bundle = Bundle::new(&["sh", "-c", script]);
        bundle.change(|spec| {
            let kinds = spec["linux"]["namespaces"].as_array_mut().unwrap();
            kinds.retain(|kind| kind["type"] != "pid");
            spec["process"]["args"][2] = json!(script);
        });
        let args: Vec<&str> = ["run"].into_iter().chain(flag).chain(["a"]).collect();
        let mut runner = bundle.command(&args).stdin(std::process::Stdio::null()).spawn().unwrap();
        let orphan = || {
            let text = fs_err::read_to_string(bundle.path("bundle/rootfs/data/orphan")).ok()?;
            text.trim().parse::<u32>().ok()
        };
        let orphan = until("it is an orphan", orphan);
        if flag.is_none() {
            // Its parent is the runner as long as it is there, and it does not stay.
            let stat = || fs_err::read_to_string(format!("/proc/{orphan}/stat")).ok();
            until("it is gone", || stat().is_none().then_some(()));
            let children = format!("/proc/{0}/task/{0}/children", runner.id());
            assert_eq!(fs_err::read_to_string(children).unwrap().split_whitespace().count(), 1);
        }
        bundle.oci(&["kill", "a", "KILL"]).ok();
        runner.wait().unwrap();
        bundle.is_clean();
    }
}

/// A program that is on its way is not said to run: who asks and then sends a signal means the program.
#[test]
fn a_container_runs_when_its_program_does() {
    if skipped() {
        return;
    }
    for detached in [true, false] {
        let bundle = Bundle::new(&["sleep", "600"]);
        // Between the gate and the program: a hook in the container that waits.
        let script = "while [ ! -e /data/go ]; do sleep 0.01; done";
        bundle.change(|spec| {
            let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"] });
            spec["hooks"] = json!({ "startContainer": [hook] });
        });
        let mut runner = if detached {
            bundle.oci(&["create", "a"]).ok();
            bundle.command(&["start", "a"]).spawn().unwrap()
        } else {
            bundle.command(&["run", "a"]).stdin(std::process::Stdio::null()).spawn().unwrap()
        };
        until("it is created", || {
            let called = bundle.oci(&["state", "a"]);
            (called.code == 0 && called.stdout.contains(r#""status": "created""#)).then_some(())
        });
        // Whatever the moment, it is not running before the hook is done.
        for _ in 0..20 {
            assert_eq!(bundle.status("a"), "created");
        }
        fs_err::write(bundle.path("bundle/rootfs/data/go"), "").unwrap();
        bundle.until("a", "running");
        let pid = bundle.state("a")["pid"].clone();
        let exe = fs_err::read_link(format!("/proc/{pid}/exe")).unwrap();
        assert!(exe.ends_with("busybox"), "{}", exe.display());
        bundle.oci(&["kill", "a", "KILL"]).ok();
        runner.wait().unwrap();
        bundle.oci(&["delete", "--force", "a"]).ok();
        bundle.is_clean();
    }
}

/// A container whose hook never comes back can be removed all the same, whoever waits for it.
#[test]
fn who_waits_for_a_hook_holds_up_nobody() {
    if skipped() {
        return;
    }
    for detached in [true, false] {
        let bundle = Bundle::new(&["sleep", "600"]);
        bundle.change(|spec| {
            let hook = json!({ "path": "/bin/sleep", "args": ["sleep", "600"] });
            spec["hooks"] = json!({ "startContainer": [hook] });
        });
        let mut runner = if detached {
            bundle.oci(&["create", "a"]).ok();
            bundle.command(&["start", "a"]).spawn().unwrap()
        } else {
            bundle.command(&["run", "a"]).stdin(std::process::Stdio::null()).spawn().unwrap()
        };
        until("the hook runs", || {
            let called = bundle.oci(&["ps", "a"]);
            (called.code == 0 && called.stdout.contains("sleep 600")).then_some(())
        });
        bundle.oci(&["delete", "--force", "a"]).ok();
        // `start` cannot tell a program that was killed from one that was killed before it ran.
        let status = runner.wait().unwrap();
        assert!(detached || status.code() == Some(137), "{status}");
        bundle.is_clean();
    }
}
