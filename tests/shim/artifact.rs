//! Wasm code that is a layer of an image by itself: CNCF's artifacts, and images as runwasi's users have them.
//!
//! Debian's containerd 1.6 refuses to unpack either. Later ones (containerd's change 9142) pass over such layers, so the
//! container has an empty snapshot: here that is made by hand, and everything after it is containerd's own. Of CNCF's artifacts no containerd
//! knows what to run, so the container is made by its API, or from a specification, which is what Kubernetes' plugin would do.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::grpc::Server;
use crate::made::{Layout, until};
use crate::messages::Any;
use crate::messages::artifact::ContainerRecord;
use crate::support::{PROGRAM, SHIM, World, said};
use crate::wire::message;

/// The type of a layer of code.
const CODE: &str = "application/wasm";
const CNCF: &str = "application/vnd.wasm.config.v0+json";
const OCI: &str = "application/vnd.oci.image.config.v1+json";

message! {
    /// `containers.v1.CreateContainerRequest`.
    CreateContainer {
        1 container: Option<NewContainer>,
    }
}
message! {
    /// `containers.v1.Container`.
    NewContainer {
        1 id: String,
        3 image: String,
        4 runtime: Option<Runtime>,
        5 spec: Option<Any>,
    }
}
message! {
    /// `containers.v1.Container.Runtime`.
    Runtime {
        1 name: String,
    }
}
message! {
    Made {
        1 container: Option<ContainerRecord>,
    }
}

/// Imports an image with these layers; gives their digests.
fn import(world: &World, name: &str, kind: &str, config: &Value, layers: &[Vec<u8>]) -> Vec<String> {
    let layout = Layout::new();
    let layers: Vec<Value> = layers.iter().map(|code| layout.blob(CODE, code)).collect();
    let digests: Vec<String> =
        layers.iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect();
    let mut config = config.clone();
    if kind == OCI {
        config["rootfs"] = json!({ "type": "layers", "diff_ids": digests });
    }
    let config = layout.json(kind, &config);
    let of_image = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": of_image, "config": config, "layers": layers });
    layout.tag(&layout.json(of_image, &manifest), name);
    let archive = world.path().join("artifact.tar");
    layout.archive(&archive);
    world.bring(&["--no-unpack", archive.to_str().unwrap()]);
    digests
}

fn program() -> Vec<u8> {
    wat::parse_str(PROGRAM).unwrap()
}

fn cncf() -> Value {
    json!({ "created": "2024-09-25T12:00:00Z", "architecture": "wasm", "os": "wasip1" })
}

/// A specification as the CRI plugin makes it, as far as it matters.
fn spec(world: &World, id: &str, args: &[&str], annotations: &Value) -> Value {
    let namespaces: Vec<Value> =
        ["pid", "ipc", "uts", "mount", "network"].iter().map(|kind| json!({ "type": kind })).collect();
    json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs" },
        "process": { "cwd": "/", "args": args, "user": { "uid": 0, "gid": 0 } },
        "annotations": annotations,
        "linux": { "namespaces": namespaces, "cgroupsPath": format!("/{}/{id}", world.namespace()) },
    })
}

/// Makes a container of an image without asking for a snapshot.
fn make(world: &World, id: &str, image: &str, args: &[&str]) {
    let kind = "types.containerd.io/opencontainers/runtime-spec/1/Spec".to_owned();
    let container = NewContainer {
        id: id.to_owned(),
        image: image.to_owned(),
        runtime: Some(Runtime { name: SHIM.to_owned() }),
        spec: Some(Any { type_url: kind, value: spec(world, id, args, &json!({})).to_string().into() }),
    };
    let asked = CreateContainer { container: Some(container) };
    let (socket, namespace) = (world.socket(), world.namespace());
    let server = Server { socket: &socket, namespace: &namespace, patience: Duration::from_secs(120) };
    let made: Made = server.call("containerd.services.containers.v1.Containers/Create", &asked).unwrap();
    assert_eq!(made.container.unwrap().id, id);
}

/// Where containerd keeps what has a digest.
fn blob(world: &World, digest: &str) -> PathBuf {
    let root = world.socket().with_file_name("root");
    root.join("io.containerd.content.v1.content/blobs").join(digest.replace(':', "/"))
}

#[test]
fn an_image_of_bare_code_runs() {
    let Some(world) = World::new() else { return };
    for (os, platform) in [("linux", None), ("wasip1", Some("wasip1/wasm"))] {
        let name = format!("example.org/bare-{os}:1");
        let architecture = if platform.is_some() { "wasm" } else { go_architecture() };
        let config = json!({ "os": os, "architecture": architecture, "config": { "Entrypoint": ["hello"] } });
        let digests = import(&world, &name, OCI, &config, &[program()]);
        // What a later containerd makes of layers that it does not know; the same for both images.
        if os == "linux" {
            world.call(&["snapshots", "--snapshotter", "native", "prepare", "empty", ""]);
            world.call(&["snapshots", "--snapshotter", "native", "commit", &digests[0], "empty"]);
        }
        let platform: Vec<&str> = platform.iter().flat_map(|platform| ["--platform", platform]).collect();
        let output = world.run(&[&["--rm"], platform.as_slice(), &[&name, "one"]].concat());
        assert_eq!(said(&output), "hello from Wasm\n", "{output:?}");
        let output = world.run(&[&["--rm"], platform.as_slice(), &[&name, "one", "hello", "more"]].concat());
        assert_eq!(output.status.code(), Some(7), "{output:?}");
        // Under the name that it has with `dhow run` of the same artifact.
        let compiled = digests[0].replace(':', "-");
        let kept = fs_err::read_dir("/run/dhow/oci-aot").unwrap().flatten();
        assert!(kept.map(|engine| engine.path().join(&compiled)).any(|path| path.exists()), "{compiled}");
    }
    world.is_clean();
}

#[test]
fn an_artifact_runs_by_the_api() {
    let Some(world) = World::new() else { return };
    let name = "example.org/artifact:1";
    import(&world, name, CNCF, &cncf(), &[program()]);
    make(&world, "it", name, &["app", "run", "on"]);
    world.call(&["tasks", "start", "-d", "it"]);
    assert_eq!(world.status("it"), "RUNNING");
    // Its program again; there is no other.
    let joined = world.attempt(&["tasks", "exec", "--exec-id", "a", "it", "app"]);
    assert_eq!(said(&joined), "hello from Wasm\n", "{joined:?}");
    let joined = world.attempt(&["tasks", "exec", "--exec-id", "b", "it", "/bin/sh"]);
    assert!(!joined.status.success(), "{joined:?}");
    world.remove("it");
    make(&world, "ends", name, &["app"]);
    let output = world.attempt(&["tasks", "start", "ends"]);
    assert_eq!(said(&output), "hello from Wasm\n", "{output:?}");
    world.attempt(&["containers", "delete", "ends"]);
    world.is_clean();
}

/// A specification names no image, so an annotation does.
#[test]
fn an_artifact_runs_by_a_specification() {
    let Some(world) = World::new() else { return };
    let name = "example.org/artifact:1";
    import(&world, name, CNCF, &cncf(), &[program()]);
    let config = world.path().join("spec.json");
    let annotations = json!({ "io.kubernetes.cri.image-name": name });
    fs_err::write(&config, spec(&world, "it", &["app"], &annotations).to_string()).unwrap();
    let config = config.to_str().unwrap();
    let output = world.attempt(&["run", "--rm", "--runtime", SHIM, "--config", config, "it"]);
    assert_eq!(said(&output), "hello from Wasm\n", "{output:?}");
    world.is_clean();
}

/// Components that import from each other are layers of one artifact: the first one is the program.
#[test]
fn an_artifact_s_components_are_linked() {
    let Some(world) = World::new() else { return };
    let name = "example.org/linked:1";
    let sums = r#"(component
        (core module $m (func (export "one") (result i32) i32.const 1))
        (core instance $i (instantiate $m))
        (func $one (result u32) (canon lift (core func $i "one")))
        (instance $api (export "one" (func $one)))
        (export "example:sums/api" (instance $api)))"#;
    // `wasi:cli/run`, which succeeds when the other component says 1.
    let app = r#"(component
        (import "example:sums/api" (instance $api (export "one" (func (result u32)))))
        (core func $one (canon lower (func $api "one")))
        (core module $m
            (import "api" "one" (func $one (result i32)))
            (func (export "run") (result i32) (i32.ne (call $one) (i32.const 1))))
        (core instance $i (instantiate $m (with "api" (instance (export "one" (func $one))))))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $run (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $run)))"#;
    let layers = [app, sums].map(|text| wat::parse_str(text).unwrap());
    import(&world, name, CNCF, &cncf(), &layers);
    make(&world, "it", name, &["app"]);
    let output = world.attempt(&["tasks", "start", "it"]);
    assert!(output.status.success(), "{output:?}");
    world.attempt(&["containers", "delete", "it"]);
    world.is_clean();
}

#[test]
fn what_cannot_be_an_artifact_is_said() {
    let Some(world) = World::new() else { return };
    let fails = |id: &str, image: &str, words: &str| {
        make(&world, id, image, &["app"]);
        let output = world.attempt(&["tasks", "start", id]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(words), "{id}: {output:?}");
        world.attempt(&["containers", "delete", id]);
    };
    // Not what its name says any more, and gone.
    let mut changed = program();
    changed.extend(b"\0\x02\x01x");
    let digests = import(&world, "example.org/changed:1", CNCF, &cncf(), &[changed]);
    let path = blob(&world, &digests[0]);
    let mut content = fs_err::read(&path).unwrap();
    *content.last_mut().unwrap() ^= 1;
    fs_err::remove_file(&path).unwrap();
    fs_err::write(&path, content).unwrap();
    fails("changed", "example.org/changed:1", "has other content than it says");
    fs_err::remove_file(&path).unwrap();
    fails("gone", "example.org/changed:1", "cannot read the Wasm code of example.org/changed:1");
    // Not code at all, none, and no image of that name.
    import(&world, "example.org/text:1", CNCF, &cncf(), &[b"not Wasm".to_vec()]);
    fails("text", "example.org/text:1", "Wasm");
    import(&world, "example.org/none:1", CNCF, &cncf(), &[]);
    fails("none", "example.org/none:1", "executable file not found");
    fails("missing", "example.org/missing:1", "cannot read the Wasm code of example.org/missing:1");
    until("nothing is left", || world.shims().is_empty().then_some(()));
    world.is_clean();
}

fn go_architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}
