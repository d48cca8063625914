//! A containerd with images, and calls of its client that use the shim.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::grpc::Server;
use crate::made::{Containerd, Image, Layout, Tree, busybox, is_root, tool, until};
use crate::wire::Message;

/// The shim, by its path: containerd takes that for a runtime's name.
pub(crate) const SHIM: &str = env!("CARGO_BIN_EXE_containerd-shim-dhow-v1");

/// Says `hello from Wasm`; with an argument, ends with 7; with two, computes for ever.
pub(crate) const PROGRAM: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_sizes_get" (func $args (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (data (i32.const 8) "\20\00\00\00\10\00\00\00")
    (data (i32.const 32) "hello from Wasm\n")
    (func (export "_start")
        (drop (call $args (i32.const 0) (i32.const 4)))
        (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 24)))
        (if (i32.eq (i32.load (i32.const 0)) (i32.const 2)) (then (call $exit (i32.const 7))))
        (if (i32.gt_u (i32.load (i32.const 0)) (i32.const 2)) (then (loop $on (br $on))))))"#;

/// A containerd of this test's own, with two images.
#[derive(Debug)]
pub(crate) struct World {
    containerd: Containerd,
    dir: tempfile::TempDir,
}

pub(crate) const NATIVE: &str = "example.org/box:1";
pub(crate) const WASM: &str = "example.org/hello:1";

impl World {
    /// `None`, with a note, without root.
    pub(crate) fn new() -> Option<Self> {
        if !is_root() {
            println!("skipped: needs root");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("dhow-shim-").tempdir().unwrap();
        let world = Self { containerd: Containerd::start(), dir };
        // A linux image whose program is Wasm: what containerd pulls for any node.
        let program = wat::parse_str(PROGRAM).unwrap();
        let hello = Image::native()
            .layer(Tree::new().file("hello.wasm", 0o644, program))
            .entrypoint(&["/hello.wasm"]);
        for (name, image) in [(NATIVE, busybox()), (WASM, hello)] {
            world.import(name, &image);
        }
        Some(world)
    }

    pub(crate) fn import(&self, name: &str, image: &Image) {
        let layout = Layout::new();
        layout.tag(&layout.image(image), name);
        let archive = self.dir.path().join("image.tar");
        layout.archive(&archive);
        self.bring(&["--snapshotter", "native", archive.to_str().unwrap()]);
    }

    /// `ctr images import`.
    pub(crate) fn bring(&self, args: &[&str]) {
        self.call(&[Containerd::importing(), args].concat());
    }

    pub(crate) fn socket(&self) -> std::path::PathBuf {
        self.containerd.socket()
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Control groups are named after namespace and container, so each world has a namespace of its own.
    pub(crate) fn namespace(&self) -> String {
        self.dir.path().file_name().and_then(|name| name.to_str()).unwrap().replace("dhow-shim-", "dhow-")
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.containerd.ctr(args);
        command.env("CONTAINERD_NAMESPACE", self.namespace());
        command
    }

    /// Deletes a task that has ended; gives what is said about its end.
    pub(crate) fn delete(&self, id: &str) -> String {
        let output = self.attempt(&["tasks", "delete", id]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// A call that has to work.
    pub(crate) fn call(&self, args: &[&str]) -> String {
        tool(&mut self.command(args))
    }

    /// A call that may fail.
    pub(crate) fn attempt(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }

    /// `ctr run` with the shim.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.attempt(&[&["run", "--snapshotter", "native", "--runtime", SHIM], args].concat())
    }

    /// The same in the background.
    pub(crate) fn detached(&self, image: &str, id: &str, args: &[&str]) {
        let output = self.run(&[&["-d", image, id], args].concat());
        assert!(output.status.success(), "{output:?}");
    }

    /// What containerd says of a container: `RUNNING`, `STOPPED`.
    pub(crate) fn status(&self, id: &str) -> String {
        let listed = self.call(&["tasks", "list"]);
        let line = listed.lines().find(|line| line.split_whitespace().next() == Some(id));
        line.and_then(|line| line.split_whitespace().nth(2)).unwrap_or_default().to_owned()
    }

    /// The number of a container's first process.
    pub(crate) fn pid(&self, id: &str) -> u32 {
        let listed = self.call(&["tasks", "list"]);
        let line = listed.lines().find(|line| line.split_whitespace().next() == Some(id));
        line.and_then(|line| line.split_whitespace().nth(1)).and_then(|pid| pid.parse().ok()).unwrap()
    }

    pub(crate) fn remove(&self, id: &str) {
        self.attempt(&["tasks", "kill", "-s", "KILL", id]);
        until("it has ended", || (self.status(id) != "RUNNING").then_some(()));
        self.attempt(&["tasks", "delete", id]);
        self.attempt(&["containers", "delete", id]);
    }

    /// The shims of this containerd.
    pub(crate) fn shims(&self) -> Vec<u32> {
        let address = self.containerd.socket();
        let mut pids = Vec::new();
        for entry in fs_err::read_dir("/proc").unwrap().flatten() {
            let Ok(line) = fs_err::read(entry.path().join("cmdline")) else { continue };
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            let is_ours =
                words[0] == SHIM.as_bytes() && words.contains(&address.as_os_str().as_encoded_bytes());
            if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok())
                && is_ours
            {
                pids.push(pid);
            }
        }
        pids
    }

    /// Asserts that nothing is left of any container.
    pub(crate) fn is_clean(&self) {
        until("the shims have ended", || self.shims().is_empty().then_some(()));
        let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
        let root = self.containerd.socket();
        let state = root.with_file_name("state");
        let left: Vec<&str> = mounts.lines().filter(|line| line.contains(state.to_str().unwrap())).collect();
        assert!(left.is_empty(), "{left:#?}");
    }

    /// Events as they come, in a file.
    pub(crate) fn events(&self) -> Events {
        let path = self.dir.path().join("events");
        let file = fs_err::File::create(&path).unwrap().into_parts().0;
        let child = self.command(&["events"]).stdin(Stdio::null()).stdout(file).spawn().unwrap();
        Events { child, path }
    }

    pub(crate) fn kill_containerd(&mut self) {
        self.containerd.kill();
    }

    pub(crate) fn containerd_pid(&self) -> u32 {
        self.containerd.pid()
    }

    pub(crate) fn restart_containerd(&mut self) {
        self.containerd.restart();
    }
}

/// `ctr events`.
#[derive(Debug)]
pub(crate) struct Events {
    child: Child,
    path: std::path::PathBuf,
}

impl Events {
    /// The topics of tasks, in order, of what has come so far.
    pub(crate) fn topics(&self) -> Vec<String> {
        let text = fs_err::read_to_string(&self.path).unwrap();
        let topics =
            text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with("/tasks/")));
        topics.map(str::to_owned).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        remove_group(&self.namespace());
    }
}

/// Removes the group that was made as the parent of containers' own ones; no runtime does that. What has a group of its
/// own in it still was left behind by a container.
pub(crate) fn remove_group(name: &str) {
    let unified = std::iter::once(std::path::PathBuf::from("/sys/fs/cgroup"));
    let others = fs_err::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in unified.chain(others) {
        let group = hierarchy.join(name);
        let removed = fs_err::remove_dir(&group);
        assert!(std::thread::panicking() || removed.is_ok() || !group.exists(), "{removed:?}");
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Calls a gRPC method of a containerd.
pub(crate) fn call<A: Message>(socket: &Path, method: &str, asked: &impl Message) -> Result<A, String> {
    let patience = std::time::Duration::from_secs(120);
    Server { socket, namespace: "", patience }.call(method, asked)
}

/// What a program wrote.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
