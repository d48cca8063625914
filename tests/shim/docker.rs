//! Docker's daemon with the shim under it. Debian's, 20.10, names no runtime but runc's to containerd: there the shim takes
//! that one's name in containerd's `PATH`. From 23 on it passes `io.containerd.dhow.v1` on as it is.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use crate::made::{Docker, busybox, is_root, until};
use crate::support::{PROGRAM, SHIM, said};
use crate::{made::Image, made::Layout, made::Tree, made::skopeo, made::tool};

const NATIVE: &str = "box:1";
const WASM: &str = "hello:1";

/// A daemon with an image of each kind.
fn docker() -> Option<Docker> {
    if !is_root() {
        println!("skipped: needs root");
        return None;
    }
    let docker = Docker::start_with_shim(SHIM)?;
    let program = wat::parse_str(PROGRAM).unwrap();
    let hello =
        Image::native().layer(Tree::new().file("hello.wasm", 0o644, program)).entrypoint(&["/hello.wasm"]);
    for (name, image) in [(NATIVE, busybox()), (WASM, hello)] {
        let layout = Layout::new();
        layout.tag(&layout.image(&image), name);
        let from = format!("oci:{}:{name}", layout.path().display());
        let host = docker.host();
        let to = format!("docker-daemon:{name}");
        tool(&mut skopeo(["copy", "--quiet", "--dest-daemon-host", &host, &from, &to]));
    }
    Some(docker)
}

fn attempt(docker: &Docker, args: &[&str]) -> Output {
    docker.call(args).stdin(Stdio::null()).output().unwrap()
}

fn call(docker: &Docker, args: &[&str]) -> String {
    tool(&mut docker.call(args)).trim().to_owned()
}

#[test]
fn docker_s_containers_are_this_shim_s() {
    let Some(docker) = docker() else { return };
    let refused = attempt(&docker, &["run", "--rm", "--runtime", "io.containerd.dhow.v1", NATIVE, "true"]);
    let version = call(&docker, &["version", "--format", "{{.Server.Version}}"]);
    assert_eq!(refused.status.success(), !version.starts_with("20."), "{version}: {refused:?}");

    let output = attempt(&docker, &["run", "--rm", NATIVE, "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((said(&output).as_str(), output.status.code()), ("out\n", Some(3)), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "err\n");
    let output = attempt(&docker, &["run", "--rm", WASM]);
    assert_eq!((said(&output).as_str(), output.status.code()), ("hello from Wasm\n", Some(0)), "{output:?}");
    let output = attempt(&docker, &["run", "--rm", WASM, "more"]);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let output = attempt(&docker, &["run", "--rm", NATIVE, "/nothing"]);
    assert_eq!(output.status.code(), Some(127), "{output:?}");

    let mut child = docker
        .call(["run", "--rm", "-i", NATIVE, "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"some words\n").unwrap();
    assert_eq!(said(&child.wait_with_output().unwrap()), "some words\n");
    let line = format!("docker --host {} run --rm -t {NATIVE} tty", docker.host());
    let terminal =
        Command::new("script").args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output().unwrap();
    assert!(said(&terminal).contains("/dev/pts/0"), "{terminal:?}");
}

#[test]
fn docker_s_verbs_reach_both_kinds() {
    let Some(docker) = docker() else { return };
    for (image, args) in [(NATIVE, ["sleep", "600"]), (WASM, ["run", "on"])] {
        let id = call(&docker, &["run", "-d", "--name", "it", image, args[0], args[1]]);
        let pid = call(&docker, &["inspect", "--format", "{{.State.Pid}}", "it"]);
        let parent = fs_err::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let parent = parent.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().to_owned();
        let program = fs_err::read_link(format!("/proc/{parent}/exe")).unwrap();
        assert_eq!(program, fs_err::canonicalize(SHIM).unwrap(), "{id}");
        let joined = match image {
            NATIVE => attempt(&docker, &["exec", "it", "echo", "joined"]),
            _ => attempt(&docker, &["exec", "it", "/hello.wasm"]),
        };
        assert!(joined.status.success() && !joined.stdout.is_empty(), "{joined:?}");
        call(&docker, &["pause", "it"]);
        assert_eq!(call(&docker, &["inspect", "--format", "{{.State.Status}}", "it"]), "paused");
        call(&docker, &["unpause", "it"]);
        assert!(call(&docker, &["top", "it"]).contains(&pid));
        let used = call(&docker, &["stats", "--no-stream", "--format", "{{.MemUsage}}", "it"]);
        assert!(!used.starts_with("0B"), "{used}");
        call(&docker, &["kill", "--signal", "KILL", "it"]);
        until("it has ended", || {
            (call(&docker, &["inspect", "--format", "{{.State.Status}}", "it"]) == "exited").then_some(())
        });
        assert_eq!(call(&docker, &["inspect", "--format", "{{.State.ExitCode}}", "it"]), "137");
        call(&docker, &["rm", "it"]);
    }
    let grows = "x=a; while :; do x=$x$x; done";
    attempt(&docker, &["run", "--name", "it", "--memory", "16m", NATIVE, "sh", "-c", grows]);
    assert_eq!(call(&docker, &["inspect", "--format", "{{.State.OOMKilled}}", "it"]), "true");
    call(&docker, &["rm", "it"]);
}
