//! A bundle of busybox and a folder of containers' state, for `dhow oci` and the runtimes it is compared with.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::Terminal;

/// One bundle and its containers, gone at the end of the test.
#[derive(Debug)]
pub(crate) struct Bundle {
    dir: TempDir,
    runtime: Runtime,
}

/// Who runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runtime {
    Dhow,
    Runc,
}

/// How a call ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Called {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Called {
    /// Expects success, and gives what was said.
    pub(crate) fn ok(self) -> String {
        assert!(self.code == 0, "{self:#?}");
        self.stdout
    }

    /// Expects failure, and this in what was said.
    pub(crate) fn fails(self, code: i32, words: &str) -> Self {
        assert!(self.code == code && self.stderr.contains(words), "{code}, {words}: {self:#?}");
        self
    }
}

impl Bundle {
    /// With a program that does this. `DHOW_TEST_RUNTIME=runc` shows what a test finds there.
    pub(crate) fn new(args: &[&str]) -> Self {
        let other = std::env::var("DHOW_TEST_RUNTIME").is_ok_and(|name| name == "runc");
        Self::of(if other { Runtime::Runc } else { Runtime::Dhow }, args)
    }

    /// The same for another runtime.
    pub(crate) fn of(runtime: Runtime, args: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("dhow-oci-").tempdir().expect("temporary folder");
        let root = dir.path().join("bundle/rootfs");
        for name in ["bin", "proc", "sys", "dev", "tmp", "etc", "data"] {
            fs_err::create_dir_all(root.join(name)).expect("folder");
        }
        fs_err::copy("/bin/busybox", root.join("bin/busybox")).expect("Debian package busybox-static");
        for name in
            ["sh", "sleep", "cat", "id", "ls", "echo", "true", "false", "kill", "tty", "pwd", "env", "stty"]
        {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).expect("link");
        }
        let bundle = Self { dir, runtime };
        bundle.write(&bundle.example(args));
        bundle
    }

    /// A specification whose containers have groups of their own test.
    fn example(&self, args: &[&str]) -> Value {
        let capabilities = json!(["CAP_KILL", "CAP_CHOWN", "CAP_SETUID", "CAP_SETGID"]);
        let kinds = ["pid", "ipc", "uts", "mount", "network", "cgroup"].map(|kind| json!({ "type": kind }));
        let mount = |destination: &str, kind: &str, options: Value| json!({ "destination": destination, "type": kind, "source": kind, "options": options });
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": { "uid": 0, "gid": 0 },
                "args": args,
                "env": ["PATH=/bin", "TERM=xterm"],
                "cwd": "/",
                "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
                "noNewPrivileges": true
            },
            "root": { "path": "rootfs" },
            "hostname": "bundle",
            "mounts": [
                mount("/proc", "proc", json!([])),
                mount("/dev", "tmpfs", json!(["nosuid", "strictatime", "mode=755", "size=65536k"])),
                mount("/dev/pts", "devpts", json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]))
            ],
            "annotations": { "org.example.key": "value" },
            "linux": { "cgroupsPath": self.group(), "namespaces": kinds }
        })
    }

    /// The containers' control group.
    pub(crate) fn group(&self) -> String {
        format!("/{}", self.dir.path().file_name().and_then(|name| name.to_str()).expect("UTF-8"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8").to_owned()
    }

    fn write(&self, spec: &Value) {
        fs_err::write(self.path("bundle/config.json"), spec.to_string()).expect("config.json");
    }

    /// Changes the specification.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Value)) -> &Self {
        let text = fs_err::read(self.path("bundle/config.json")).expect("config.json");
        let mut spec = serde_json::from_slice(&text).expect("JSON");
        change(&mut spec);
        self.write(&spec);
        self
    }

    /// A call of the runtime.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = match self.runtime {
            Runtime::Dhow => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_dhow"));
                command.arg("oci");
                command
            }
            Runtime::Runc => Command::new("runc"),
        };
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.arg("--root").arg(self.path("state")).args(args).current_dir(self.path("bundle"));
        command
    }

    /// Runs it to its end. Containers keep their streams, so these are files and nobody waits for them.
    pub(crate) fn oci(&self, args: &[&str]) -> Called {
        let stream = |name: &str| {
            // A new one each time: a container of an earlier call may still write to that one's.
            fs_err::remove_file(self.path(name)).ok();
            fs_err::File::create(self.path(name)).expect("file").into_parts().0
        };
        let (out, err) = (self.path("out"), self.path("err"));
        let mut command = self.command(args);
        command.stdin(Stdio::null()).stdout(stream("out")).stderr(stream("err"));
        let status = command.status().expect("the runtime");
        let read = |path| String::from_utf8_lossy(&fs_err::read(path).expect("file")).into_owned();
        Called { code: status.code().unwrap_or(-1), stdout: read(out), stderr: read(err) }
    }

    /// The same on a terminal.
    pub(crate) fn on_terminal(&self, args: &[&str]) -> Terminal {
        Terminal::start(&self.command(args), 24, 80)
    }

    /// The state of a container.
    pub(crate) fn state(&self, id: &str) -> Value {
        serde_json::from_str(&self.oci(&["state", id]).ok()).expect("JSON")
    }

    /// The word for it.
    pub(crate) fn status(&self, id: &str) -> String {
        self.state(id)["status"].as_str().expect("a word").to_owned()
    }

    /// Waits for it.
    pub(crate) fn until(&self, id: &str, status: &str) {
        super::until(format!("{id} is {status}"), || (self.status(id) == status).then_some(()));
    }

    /// Asserts that nothing is left of any container: no state, no group, no process.
    pub(crate) fn is_clean(&self) {
        let left: Vec<_> = fs_err::read_dir(self.path("state")).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
        for hierarchy in fs_err::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let group = hierarchy.path().join(&self.group()[1..]);
            assert!(!group.exists(), "{}", group.display());
        }
        assert!(!PathBuf::from(format!("/sys/fs/cgroup{}", self.group())).exists());
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let folders = fs_err::read_dir(self.path("state")).into_iter().flatten().flatten();
        for id in folders.filter_map(|entry| entry.file_name().into_string().ok()) {
            drop(self.command(&["delete", "--force", &id]).output());
        }
        if !std::thread::panicking() {
            self.is_clean();
        }
    }
}
