//! Docker's daemon with the shim under it. Debian's, 20.10, names no runtime but runc's to containerd: there the shim takes
//! that one's name in containerd's `PATH`. From 23 on it passes `io.containerd.dhow.v1` on as it is.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use crate::made::{Docker, busybox, is_root, until};
use crate::support::{PROGRAM, SHIM, said};
use crate::{made::Image, made::Layout, made::Tree, made::skopeo, made::tool};

const NATIVE: &str = "box:1";
const WASM: &str = "hello:1";

/// A daemon with an image of each kind, and what its containers are run with.
struct World {
    docker: Docker,
    runtime: &'static [&'static str],
}

impl World {
    fn attempt(&self, args: &[&str]) -> Output {
        attempt(&self.docker, args)
    }

    fn call(&self, args: &[&str]) -> String {
        call(&self.docker, args)
    }

    /// `docker run` by the shim.
    fn run(&self, args: &[&str]) -> Output {
        self.attempt(&[&["run"], self.runtime, args].concat())
    }
}

fn world() -> Option<World> {
    if !is_root() {
        println!("skipped: needs root");
        return None;
    }
    let docker = Docker::start_with_shim(SHIM)?;
    let version = call(&docker, &["version", "--format", "{{.Server.Version}}"]);
    let is_old = version.starts_with("20.");
    let program = wat::parse_str(PROGRAM).unwrap();
    let hello =
        Image::native().layer(Tree::new().file("hello.wasm", 0o644, program)).entrypoint(&["/hello.wasm"]);
    for (name, image) in [(NATIVE, busybox()), (WASM, hello)] {
        let layout = Layout::new();
        if is_old {
            layout.tag(&layout.image(&image), name);
            let from = format!("oci:{}:{name}", layout.path().display());
            let to = format!("docker-daemon:{name}");
            tool(&mut skopeo(["copy", "--quiet", "--dest-daemon-host", &docker.host(), &from, &to]));
        } else {
            load(&docker, &layout, &image, name, &[]);
        }
    }
    let runtime: &[&str] = if is_old { &[] } else { &["--runtime", "io.containerd.dhow.v1"] };
    Some(World { docker, runtime })
}

/// From an archive, as later ones read it.
fn load(docker: &Docker, layout: &Layout, image: &Image, name: &str, flags: &[&str]) {
    layout.tag(&layout.image(image), &format!("docker.io/library/{name}"));
    let archive = layout.path().join("image.tar");
    layout.archive(&archive);
    tool(docker.call(["load", "--quiet", "--input"]).arg(archive).args(flags));
}

fn attempt(docker: &Docker, args: &[&str]) -> Output {
    docker.call(args).stdin(Stdio::null()).output().unwrap()
}

fn call(docker: &Docker, args: &[&str]) -> String {
    tool(&mut docker.call(args)).trim().to_owned()
}

#[test]
fn docker_s_containers_are_this_shim_s() {
    let Some(world) = world() else { return };
    let named = world.attempt(&["run", "--rm", "--runtime", "io.containerd.dhow.v1", NATIVE, "true"]);
    assert_eq!(named.status.success(), !world.runtime.is_empty(), "{named:?}");

    let output = world.run(&["--rm", NATIVE, "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((said(&output).as_str(), output.status.code()), ("out\n", Some(3)), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "err\n");
    let output = world.run(&["--rm", WASM]);
    assert_eq!((said(&output).as_str(), output.status.code()), ("hello from Wasm\n", Some(0)), "{output:?}");
    let output = world.run(&["--rm", WASM, "more"]);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let output = world.run(&["--rm", NATIVE, "/nothing"]);
    assert_eq!(output.status.code(), Some(127), "{output:?}");

    let mut child = world
        .docker
        .call([&["run"], world.runtime, &["--rm", "-i", NATIVE, "cat"]].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"some words\n").unwrap();
    assert_eq!(said(&child.wait_with_output().unwrap()), "some words\n");
    let (host, runtime) = (world.docker.host(), world.runtime.join(" "));
    let line = format!("docker --host {host} run {runtime} --rm -t {NATIVE} tty");
    let terminal =
        Command::new("script").args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output().unwrap();
    assert!(said(&terminal).contains("/dev/pts/0"), "{terminal:?}");
}

#[test]
fn docker_s_verbs_reach_both_kinds() {
    let Some(world) = world() else { return };
    for (image, args) in [(NATIVE, ["sleep", "600"]), (WASM, ["run", "on"])] {
        let output = world.run(&["-d", "--name", "it", image, args[0], args[1]]);
        assert!(output.status.success(), "{output:?}");
        let pid = world.call(&["inspect", "--format", "{{.State.Pid}}", "it"]);
        let parent = fs_err::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let parent = parent.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().to_owned();
        let program = fs_err::read_link(format!("/proc/{parent}/exe")).unwrap();
        assert_eq!(program, fs_err::canonicalize(SHIM).unwrap());
        let joined = match image {
            NATIVE => world.attempt(&["exec", "it", "echo", "joined"]),
            _ => world.attempt(&["exec", "it", "/hello.wasm"]),
        };
        assert!(joined.status.success() && !joined.stdout.is_empty(), "{joined:?}");
        world.call(&["pause", "it"]);
        assert_eq!(world.call(&["inspect", "--format", "{{.State.Status}}", "it"]), "paused");
        world.call(&["unpause", "it"]);
        assert!(world.call(&["top", "it"]).contains(&pid));
        let used = world.call(&["stats", "--no-stream", "--format", "{{.MemUsage}}", "it"]);
        assert!(!used.starts_with("0B"), "{used}");
        world.call(&["kill", "--signal", "KILL", "it"]);
        until("it has ended", || {
            (world.call(&["inspect", "--format", "{{.State.Status}}", "it"]) == "exited").then_some(())
        });
        assert_eq!(world.call(&["inspect", "--format", "{{.State.ExitCode}}", "it"]), "137");
        world.call(&["rm", "it"]);
    }
    let grows = "x=a; while :; do x=$x$x; done";
    world.run(&["--name", "it", "--memory", "16m", NATIVE, "sh", "-c", grows]);
    assert_eq!(world.call(&["inspect", "--format", "{{.State.OOMKilled}}", "it"]), "true");
    world.call(&["rm", "it"]);
}

/// An image for `wasi/wasm`, from a store that has images of every platform.
#[test]
fn images_for_wasm_run() {
    let Some(world) = world() else { return };
    if world.runtime.is_empty() {
        println!("skipped: this docker has a store of its own, with images for Linux alone");
        return;
    }
    let program = wat::parse_str(PROGRAM).unwrap();
    let image = Image::wasm().layer(Tree::new().file("app", 0o644, program)).entrypoint(&["/app"]);
    load(&world.docker, &Layout::new(), &image, "wasm:1", &["--platform", "wasi/wasm"]);
    let output = world.run(&["--rm", "--platform", "wasi/wasm", "wasm:1"]);
    assert_eq!(said(&output), "hello from Wasm\n", "{output:?}");
}
