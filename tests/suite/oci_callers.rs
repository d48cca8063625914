//! `dhow oci` behind those who call it: Docker, Podman and containerd's shim, each a private one.

use std::path::PathBuf;

use crate::support::{Bundle, Containerd, Docker, Layout, Podman, busybox, is_root, tool, until};

/// The runtime under a name that needs no further word, and an archive of a root file system.
fn callee() -> Option<(tempfile::TempDir, PathBuf, PathBuf)> {
    if !is_root() {
        println!("skipped: needs root");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let runtime = dir.path().join("dhow-oci");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_dhow"), &runtime).unwrap();
    let archive = dir.path().join("root.tar");
    let bundle = Bundle::new(&["true"]);
    tool(
        std::process::Command::new("tar")
            .arg("-C")
            .arg(bundle.path("bundle/rootfs"))
            .arg("-cf")
            .arg(&archive)
            .arg("."),
    );
    Some((dir, runtime, archive))
}

#[test]
fn docker_runs_containers_with_it() {
    let Some((_dir, runtime, archive)) = callee() else { return };
    let settings = serde_json::json!({ "runtimes": { "dhow": { "path": runtime } } });
    let Some(docker) = Docker::start_with(&settings.to_string()) else { return };
    let call = |args: &[&str]| tool(&mut docker.call(args));
    call(&["import", archive.to_str().unwrap(), "box:1"]);
    let run = ["run", "--runtime", "dhow", "--network", "none"];
    let once = |args: &[&str]| call(&[&run[..], &["--rm"], args].concat());
    assert_eq!(once(&["box:1", "/bin/sh", "-c", "echo $A; id -u"]), "\n0\n");
    assert_eq!(
        once(&["-e", "A=b", "--user", "7:8", "box:1", "/bin/sh", "-c", "echo $A; /bin/id"]),
        "b\nuid=7 gid=8 groups=8\n"
    );
    assert_eq!(
        once(&["--memory", "64m", "--pids-limit", "20", "--cpus", "0.5", "-t", "box:1", "/bin/echo", "in"])
            .trim_end(),
        "in"
    );
    let failed =
        docker.call([&run[..], &["--rm", "box:1", "/bin/sh", "-c", "exit 9"]].concat()).status().unwrap();
    assert_eq!(failed.code(), Some(9));
    let failed = docker.call([&run[..], &["--rm", "box:1", "/none"]].concat()).output().unwrap();
    assert_eq!(failed.status.code(), Some(127), "{failed:?}");
    call(&[&run[..], &["-d", "--name", "it", "box:1", "/bin/sleep", "600"]].concat());
    assert_eq!(call(&["exec", "it", "/bin/cat", "/proc/1/comm"]), "sleep\n");
    assert!(call(&["top", "it"]).contains("sleep 600"));
    call(&["pause", "it"]);
    assert_eq!(call(&["inspect", "-f", "{{.State.Status}}", "it"]), "paused\n");
    call(&["unpause", "it"]);
    call(&["update", "--pids-limit", "30", "it"]);
    assert!(call(&["stats", "--no-stream", "--format", "{{.PIDs}}", "it"]).starts_with('1'));
    call(&["kill", "it"]);
    assert_eq!(call(&["wait", "it"]), "137\n");
    call(&["start", "it"]);
    call(&["rm", "-f", "it"]);
}

#[test]
fn podman_runs_containers_with_it() {
    let Some((_dir, runtime, archive)) = callee() else { return };
    let podman = Podman::new();
    let runtime = runtime.to_str().unwrap();
    let call = |args: &[&str]| tool(&mut podman.call([&["--runtime", runtime], args].concat()));
    call(&["import", "-q", archive.to_str().unwrap(), "box:1"]);
    let run = ["run", "--network", "none"];
    assert_eq!(call(&[&run[..], &["--rm", "box:1", "/bin/sh", "-c", "echo in; id -u"]].concat()), "in\n0\n");
    call(&[&run[..], &["-d", "--name", "it", "box:1", "/bin/sleep", "600"]].concat());
    assert_eq!(call(&["exec", "it", "/bin/cat", "/proc/1/comm"]), "sleep\n");
    call(&["stop", "-t", "0", "it"]);
    assert_eq!(call(&["inspect", "-f", "{{.State.ExitCode}}", "it"]), "137\n");
    call(&["rm", "it"]);
}

#[test]
fn containerd_s_shim_runs_containers_with_it() {
    let Some((dir, runtime, _)) = callee() else { return };
    let containerd = Containerd::start();
    let layout = Layout::new();
    layout.tag(&layout.image(&busybox()), "docker.io/library/box:1");
    let archive = dir.path().join("image.tar");
    layout.archive(&archive);
    let call = |args: &[&str]| tool(&mut containerd.ctr(args));
    call(&["images", "import", "--snapshotter", "native", archive.to_str().unwrap()]);
    let listed = call(&["images", "list", "-q"]);
    let image = listed.lines().next().unwrap();
    let run = ["run", "--snapshotter", "native", "--runc-binary", runtime.to_str().unwrap()];
    assert_eq!(call(&[&run[..], &["--rm", image, "once", "echo", "in"]].concat()), "in\n");
    call(&[&run[..], &["-d", image, "it", "sleep", "600"]].concat());
    assert_eq!(call(&["tasks", "exec", "--exec-id", "one", "it", "cat", "/proc/1/comm"]), "sleep\n");
    call(&["tasks", "pause", "it"]);
    assert!(call(&["tasks", "list"]).contains("PAUSED"));
    call(&["tasks", "resume", "it"]);
    call(&["tasks", "kill", "--signal", "SIGKILL", "it"]);
    until("it has ended", || call(&["tasks", "list"]).contains("STOPPED").then_some(()));
    call(&["tasks", "delete", "it"]);
    call(&["containers", "delete", "it"]);
}
