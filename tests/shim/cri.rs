//! Pods, as a kubelet makes them: containerd's CRI plugin with Debian's CNI plugins, and the shim as the runtime `dhow`. The same pod
//! is made by containerd's own shim with `dhow oci` in runc's place.

mod keepers;
mod words;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::made::{Containerd, Image, Layout, Tree, busybox, is_root, tool, until};
use crate::support::{SHIM, call, remove_group};
use crate::websocket::Channels;
use crate::wire::Message;
use words::*;

const BOX: &str = "example.org/box:1";
const APP: &str = "example.org/app:1";
/// The same program as a layer by itself.
const BARE: &str = "example.org/bare:1";
const PAUSE: &str = "example.org/pause:1";
const EXITED: i32 = 2;
/// The handler of pods without a pause container, where containerd has them.
const ALONE: &str = "alone";

/// Says where it is, leaves a file in `/data`, and stays; with an argument it only says so, and ends with 7.
const WASM: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_open"
        (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_sizes_get" (func $args (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (data (i32.const 8) "\20\00\00\00\0a\00\00\00")
    (data (i32.const 32) "from Wasm\n")
    (data (i32.const 64) "data/wasm")
    (func (export "_start")
        (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 24)))
        (drop (call $args (i32.const 0) (i32.const 4)))
        (if (i32.gt_u (i32.load (i32.const 0)) (i32.const 1)) (then (call $exit (i32.const 7))))
        (if (call $open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 9) (i32.const 1)
            (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 28)) (then (call $exit (i32.const 9))))
        (drop (call $write (i32.load (i32.const 28)) (i32.const 8) (i32.const 1) (i32.const 24)))
        (loop $on (br $on))))"#;

/// Nodes of this process.
static NODES: AtomicU32 = AtomicU32::new(0);

/// A containerd as a node has it.
struct Node {
    dir: tempfile::TempDir,
    containerd: Containerd,
    version: (u32, u32),
    network: String,
}

impl Node {
    fn new() -> Option<Self> {
        if !is_root() {
            println!("skipped: needs root");
            return None;
        }
        assert!(Path::new("/usr/lib/cni/ptp").exists(), "Debian package containernetworking-plugins");
        let dir = tempfile::Builder::new().prefix("dhow-cri-").tempdir().unwrap();
        let network = dir.path().file_name().unwrap().to_str().unwrap().to_owned();
        // A network for each test that runs now, out of those for such purposes.
        let id = std::process::id() * 2 + NODES.fetch_add(1, Ordering::Relaxed);
        let subnet = format!("198.{}.{}.{}/28", 18 + (id >> 12 & 1), id >> 4 & 255, (id & 15) << 4);
        fs_err::create_dir(dir.path().join("net.d")).unwrap();
        let plugin = serde_json::json!({
            "cniVersion": "0.4.0", "name": network,
            "plugins": [{ "type": "ptp", "ipam": { "type": "host-local", "subnet": subnet, "dataDir": dir.path().join("addresses") } }]
        });
        fs_err::write(dir.path().join("net.d/one.conflist"), plugin.to_string()).unwrap();
        std::os::unix::fs::symlink(dhow(), dir.path().join("dhow-oci")).unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
        let version = Containerd::version();
        let alone = match version {
            (0..2, _) => String::new(),
            _ => format!(
                "[{cri}.containerd.runtimes.{ALONE}]\nruntime_type = {SHIM:?}\nsandboxer = \"shim\"\n"
            ),
        };
        let containerd = Containerd::configured(&format!(
            "[{cri}]\nsandbox_image = {PAUSE:?}\nstream_server_address = \"127.0.0.1\"\nstream_server_port = \"0\"\ndisable_apparmor = true\ndisable_hugetlb_controller = true\n\
             [{cri}.cni]\nbin_dir = \"/usr/lib/cni\"\nconf_dir = {:?}\n\
             [{cri}.containerd]\nsnapshotter = \"native\"\ndefault_runtime_name = \"dhow\"\n\
             [{cri}.containerd.runtimes.dhow]\nruntime_type = {SHIM:?}\n\
             [{cri}.containerd.runtimes.oci]\nruntime_type = \"io.containerd.runc.v2\"\n\
             [{cri}.containerd.runtimes.oci.options]\nBinaryName = {:?}\n{alone}",
            at("net.d"),
            at("dhow-oci"),
        ));
        let node = Self { dir, containerd, version, network };
        let app = wat::parse_str(WASM).unwrap();
        node.import_bare(&app);
        let app = Image::native().layer(Tree::new().dir("data", 0o755).file("app.wasm", 0o644, app));
        let pause = busybox().entrypoint(&["sleep"]).cmd(&["86400"]);
        for (name, image) in [(BOX, busybox()), (APP, app.entrypoint(&["/app.wasm"])), (PAUSE, pause)] {
            let layout = Layout::new();
            layout.tag(&layout.image(&image), name);
            node.import(&layout, name, &["--snapshotter", "native"]);
        }
        Some(node)
    }

    /// Whether this containerd is of 2.0 or later.
    fn is_second(&self) -> bool {
        self.version.0 >= 2
    }

    /// Whether this containerd makes pods without a pause container.
    fn has_alone(&self) -> bool {
        let has = self.is_second();
        if !has {
            println!("skipped: containerd before 2.0 has no sandboxer of the shim's");
        }
        has
    }

    fn import(&self, layout: &Layout, name: &str, flags: &[&str]) {
        let archive = self.dir.path().join("image.tar");
        layout.archive(&archive);
        let args = [&["--namespace", "k8s.io"], Containerd::importing()].concat();
        tool(self.containerd.ctr(args).args(flags).arg(archive));
        // The plugin learns of it a little later.
        until(format!("{name} is known"), || {
            let asked = Some(ImageName { image: name.to_owned() });
            let answer: PodAnswer =
                self.ask("ImageService/ImageStatus", &ImageRequest { image: asked }).ok()?;
            answer.status.is_some().then_some(())
        });
    }

    /// An image whose only layer is the code itself. A later containerd has an empty snapshot for that, this one gets it.
    fn import_bare(&self, code: &[u8]) {
        let layout = Layout::new();
        let layer = layout.blob("application/wasm", code);
        let digest = layer["digest"].as_str().unwrap();
        for args in [["prepare", "empty", ""], ["commit", digest, "empty"]] {
            let snapshots = ["--namespace", "k8s.io", "snapshots", "--snapshotter", "native"];
            tool(self.containerd.ctr(snapshots).args(args));
        }
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = serde_json::json!({
            "os": "linux", "architecture": architecture, "config": { "Entrypoint": ["/app.wasm"] },
            "rootfs": { "type": "layers", "diff_ids": [digest] },
        });
        let config = layout.json("application/vnd.oci.image.config.v1+json", &config);
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest =
            serde_json::json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer] });
        layout.tag(&layout.json(kind, &manifest), BARE);
        self.import(&layout, BARE, &["--no-unpack"]);
    }

    fn ask<A: Message + Default>(&self, method: &str, asked: &impl Message) -> Result<A, String> {
        call(&self.containerd.socket(), &format!("runtime.v1.{method}"), asked)
    }

    fn call<A: Message + Default>(&self, method: &str, asked: &impl Message) -> A {
        self.ask(&format!("RuntimeService/{method}"), asked)
            .unwrap_or_else(|error| panic!("{error}\n{}", self.containerd.log()))
    }

    fn pod(&self, handler: &str) -> Pod<'_> {
        let config = self.config(handler);
        let asked = RunPod { config: Some(config.clone()), runtime_handler: handler.to_owned() };
        let made: Name = self.call("RunPodSandbox", &asked);
        Pod { node: self, id: made.id, config }
    }

    /// One that was made before.
    fn known(&self, id: &str, handler: &str) -> Pod<'_> {
        Pod { node: self, id: id.to_owned(), config: self.config(handler) }
    }

    fn config(&self, handler: &str) -> PodConfig {
        let name = format!("{}-{handler}", self.network);
        PodConfig {
            metadata: Some(PodName {
                name: name.clone(),
                uid: name.clone(),
                namespace: "default".into(),
                attempt: 0,
            }),
            hostname: "pod".into(),
            log_directory: self.dir.path().join("logs").display().to_string(),
            linux: Some(LinuxPod { cgroup_parent: format!("/{}", self.network) }),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            remove_group(&self.network);
        }
    }
}

/// The command, built beside the shim.
fn dhow() -> PathBuf {
    let path = Path::new(SHIM).with_file_name("dhow");
    assert!(path.exists(), "{} is built by `cargo build -p dhow`", path.display());
    path
}

/// One pod.
struct Pod<'a> {
    node: &'a Node,
    id: String,
    config: PodConfig,
}

impl Pod<'_> {
    /// A container that runs, with the volume that all of the pod have.
    fn start(&self, name: &str, image: &str, command: &[&str], stdin: bool) -> String {
        let volume = self.node.dir.path().join("volume");
        fs_err::create_dir_all(&volume).unwrap();
        let config = ContainerConfig {
            metadata: Some(ContainerName { name: name.to_owned(), attempt: 0 }),
            image: Some(ImageName { image: image.to_owned() }),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            mounts: vec![Volume { container_path: "/data".into(), host_path: volume.display().to_string() }],
            log_path: format!("{name}.log"),
            stdin,
        };
        let asked = CreateContainer {
            pod: self.id.clone(),
            config: Some(config),
            pod_config: Some(self.config.clone()),
        };
        let made: Name = self.node.call("CreateContainer", &asked);
        let _: Nothing = self.node.call("StartContainer", &made);
        made.id
    }

    fn status(&self, id: &str) -> ContainerAnswer {
        self.node.call("ContainerStatus", &Ask { id: id.to_owned(), verbose: true })
    }

    fn pid(&self, id: &str) -> u64 {
        let info: serde_json::Value = serde_json::from_str(&self.status(id).info["info"]).unwrap();
        info["pid"].as_u64().unwrap()
    }

    fn exec(&self, id: &str, command: &[&str]) -> Executed {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        self.node.call("ExecSync", &ExecSync { id: id.to_owned(), command, timeout: 60 })
    }

    /// Waits for a line of a container's log.
    fn logged(&self, name: &str, words: &str) {
        let path = Path::new(&self.config.log_directory).join(format!("{name}.log"));
        until(format!("{name} has said {words}"), || {
            fs_err::read_to_string(&path)
                .ok()?
                .lines()
                .any(|line| line.contains("stdout F") && line.ends_with(words))
                .then_some(())
        });
    }

    /// Uses something, as the kubelet's summary has it.
    fn uses(&self, id: &str) {
        until(format!("{id} has used something"), || {
            let answer: StatsAnswer = self.node.call("ContainerStats", &Name { id: id.to_owned() });
            let stats = answer.stats?;
            let some =
                |part: Option<Use>| part.and_then(|part| part.value).is_some_and(|amount| amount.value > 0);
            (some(stats.cpu) && some(stats.memory)).then_some(())
        });
    }

    fn network_of(&self, id: &str) -> PathBuf {
        fs_err::read_link(format!("/proc/{}/ns/net", self.pid(id))).unwrap()
    }

    /// Ends a container, and asks what it was.
    fn end(&self, id: &str) {
        let _: Nothing = self.node.call("StopContainer", &Stop { id: id.to_owned(), timeout: 1 });
        let status = self.status(id).status.unwrap();
        assert!(status.state == EXITED && [137, 143].contains(&status.exit_code), "{status:?}");
        let _: Nothing = self.node.call("RemoveContainer", &Name { id: id.to_owned() });
        assert!(
            self.node
                .ask::<ContainerAnswer>(
                    "RuntimeService/ContainerStatus",
                    &Ask { id: id.to_owned(), verbose: false }
                )
                .is_err()
        );
    }

    /// Ends the pod.
    fn remove(self) {
        let name = Name { id: self.id.clone() };
        let _: Nothing = self.node.call("StopPodSandbox", &name);
        let _: Nothing = self.node.call("RemovePodSandbox", &name);
        let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&self.id), "{mounts}");
    }
}

/// What a kubelet asks of a Linux container.
fn a_native_container_serves(pod: &Pod<'_>) {
    let script = "echo up; while read line; do echo got $line; done; sleep 600";
    let id = pod.start("box", BOX, &["sh", "-c", script], true);
    pod.logged("box", "up");
    let done = pod.exec(&id, &["sh", "-c", "echo out; echo err >&2; hostname; exit 4"]);
    assert_eq!(
        (done.stdout.as_slice(), done.stderr.as_slice(), done.exit_code),
        (b"out\npod\n".as_slice(), b"err\n".as_slice(), 4)
    );
    pod.uses(&id);

    let command = ["sh", "-c", "read line; echo [$line]; tty"].map(str::to_owned).to_vec();
    let asked = Exec { id: id.clone(), command, stdin: true, stdout: true, tty: true, ..Exec::default() };
    let url: Url = pod.node.call("Exec", &asked);
    let mut channels = Channels::open(&url.url);
    channels.say(0, b"typed\n");
    channels.rest();
    assert!(channels.text(1).contains("[typed]") && channels.text(1).contains("/dev/pts/"), "{channels:?}");

    let asked = Attach { id: id.clone(), stdin: true, stdout: true, stderr: true, tty: false };
    let url: Url = pod.node.call("Attach", &asked);
    let mut channels = Channels::open(&url.url);
    channels.say(0, b"word\n");
    channels.until(1, "got word");
    drop(channels);
    pod.logged("box", "got word");

    let server = pod.start("server", BOX, &["sh", "-c", "nc -ll -p 8080 -e echo served"], false);
    let text = until("the port answers", || {
        // An address is good for one connection.
        let url: Url = pod.node.call("PortForward", &Forward { id: pod.id.clone(), ports: vec![8080] });
        let mut channels = Channels::open(&format!("{}?port=8080", url.url));
        channels.rest();
        // First the port's own number.
        channels.text(0).contains("served").then(|| channels.text(0))
    });
    assert!(text.ends_with("served\n"), "{text:?}");
    assert_eq!(pod.network_of(&server), pod.network_of(&id));
    pod.end(&server);
    pod.end(&id);
}

/// The same of a Wasm program.
fn a_wasm_container_serves(pod: &Pod<'_>, image: &str) -> String {
    let id = pod.start("app", image, &["/app.wasm"], false);
    pod.logged("app", "from Wasm");
    until("its file is there", || {
        let file = pod.node.dir.path().join("volume/wasm");
        fs_err::read_to_string(file).is_ok_and(|text| text == "from Wasm\n").then_some(())
    });
    let done = pod.exec(&id, &["/app.wasm", "again"]);
    assert_eq!((done.stdout.as_slice(), done.exit_code), (b"from Wasm\n".as_slice(), 7));
    pod.uses(&id);
    let command = ["/app.wasm", "again"].map(str::to_owned).to_vec();
    let url: Url = pod.node.call("Exec", &Exec { id: id.clone(), command, stdout: true, ..Exec::default() });
    let mut channels = Channels::open(&url.url);
    channels.rest();
    assert_eq!(channels.text(1), "from Wasm\n", "{channels:?}");
    id
}

#[test]
fn pods_of_either_kind_and_of_both() {
    let Some(node) = Node::new() else { return };
    pods_serve(&node, "dhow");
}

fn pods_serve(node: &Node, handler: &str) {
    let native = node.pod(handler);
    let answer: PodAnswer = node.call("PodSandboxStatus", &Ask { id: native.id.clone(), verbose: false });
    let status = answer.status.unwrap();
    assert!(
        status.state == 0 && status.network.as_ref().is_some_and(|network| network.ip.starts_with("198.")),
        "{status:?}"
    );
    a_native_container_serves(&native);
    native.remove();

    let wasm = node.pod(handler);
    for image in [APP, BARE] {
        let id = a_wasm_container_serves(&wasm, image);
        wasm.end(&id);
        fs_err::remove_file(node.dir.path().join("volume/wasm")).unwrap();
    }

    // A Linux side-car sees what the Wasm program has written, in the same network.
    let id = a_wasm_container_serves(&wasm, APP);
    let car = wasm.start("car", BOX, &["sleep", "600"], false);
    assert_eq!(wasm.exec(&car, &["cat", "/data/wasm"]).stdout, b"from Wasm\n");
    assert_eq!(wasm.network_of(&id), wasm.network_of(&car));
    assert_ne!(wasm.network_of(&id), fs_err::read_link("/proc/self/ns/net").unwrap());
    assert_eq!(parent(wasm.pid(&id)), parent(wasm.pid(&car)), "one shim for a pod");
    wasm.end(&id);
    // The last of them goes with the pod.
    wasm.remove();
}

/// The same without a pause container.
#[test]
fn pods_whose_sandbox_is_the_shim() {
    let Some(node) = Node::new() else { return };
    if node.has_alone() {
        pods_serve(&node, ALONE);
    }
}

/// containerd's shim of runc, with `dhow oci` in runc's place.
#[test]
fn pods_by_the_oci_runtime() {
    if !Containerd::has_shim() {
        println!("skipped: no containerd-shim-runc-v2 beside this containerd");
        return;
    }
    let Some(node) = Node::new() else { return };
    let pod = node.pod("oci");
    a_native_container_serves(&pod);
    let id = a_wasm_container_serves(&pod, APP);
    pod.end(&id);
    pod.remove();
}

fn parent(pid: u64) -> String {
    let status = fs_err::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find(|line| line.starts_with("PPid:")).unwrap().to_owned()
}
