//! A busybox root file system, a specification like Docker's for it, and running it to the end.

use std::fs::Permissions;
use std::io::{PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Capabilities, LinuxNamespaceType, Spec};

use crate::bundle::{Bundle, Layer, Root};
use crate::error::Result;
use crate::native::{Executor, Filter, defaults, idmap};
use crate::process::fork_unchecked;
use crate::stdio::{Stdio, Stream};
use crate::task::ExitStatus;

/// Runs a test where there is one thread. What it panics with reaches the real test.
pub(crate) fn forked(test: impl FnOnce()) {
    let (mut read, write) = std::io::pipe().expect("a pipe");
    let hook = std::panic::take_hook();
    let child = fork_unchecked(|| {
        std::panic::set_hook(Box::new(move |info| {
            let _sent = rustix::io::write(&write, info.to_string().as_bytes());
        }));
        u8::from(catch_unwind(AssertUnwindSafe(test)).is_err())
    });
    std::panic::set_hook(hook);
    let status = child.and_then(crate::process::Child::wait).expect("a child");
    let mut message = String::new();
    let _rest = read.read_to_string(&mut message);
    assert!(status == ExitStatus::Code(0), "{message} ({status:?})");
}

/// Whether this process can do without a user namespace.
pub(crate) fn privileged() -> bool {
    rustix::process::geteuid().is_root()
}

/// A shell command line.
pub(crate) fn sh(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
}

pub(crate) fn set_args(spec: &mut Spec, args: Vec<String>) {
    spec.process_mut().as_mut().expect("process").set_args(Some(args));
}

pub(crate) fn write_executable(path: &Path, content: &str) {
    fs_err::write(path, content).expect("file");
    fs_err::set_permissions(path, Permissions::from_mode(0o755)).expect("mode");
}

/// Everything a terminal says until it hangs up.
pub(crate) fn read_all(console: &OwnedFd) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = rustix::io::read(console, &mut buffer) {
        text.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

pub(crate) fn read_some(pipe: &PipeReader) -> String {
    let mut buffer = [0; 4096];
    let length = rustix::io::read(pipe.as_fd(), &mut buffer).expect("read");
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

/// A root file system in a temporary directory.
pub(crate) struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    /// The mounts of this process that have to do with the fixture. Other tests mount things at the same time.
    pub(crate) fn mounts(&self) -> Vec<String> {
        let all = fs_err::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let own = self.path().to_str().expect("text");
        all.lines().filter(|line| line.contains(own)).map(str::to_owned).collect()
    }
}

/// What the directory's own removal would stumble over: mounts of a test that has a mount namespace of its own, and the
/// folder without permissions that an overlay leaves in its work folder.
impl Drop for Fixture {
    fn drop(&mut self) {
        for mount in self.mounts().iter().rev() {
            if let Some(point) = mount.split(' ').nth(4) {
                rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH).ok();
            }
        }
        for entry in fs_err::read_dir(self.path()).into_iter().flatten().flatten() {
            fs_err::set_permissions(entry.path().join("work/work"), Permissions::from_mode(0o700)).ok();
        }
    }
}

/// How a run ended.
pub(crate) struct Run {
    pub(crate) result: Result<ExitStatus>,
    /// Both streams.
    pub(crate) output: String,
}

impl Run {
    pub(crate) fn code(&self) -> u8 {
        self.result.as_ref().map_or_else(|error| panic!("{error}"), |status| status.code())
    }

    pub(crate) fn error(&self) -> String {
        self.result.as_ref().expect_err("an error").to_string()
    }
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs_err::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("mode");
        let bin = dir.path().join("rootfs/bin");
        fs_err::create_dir_all(&bin).expect("bin");
        let busybox =
            ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| fs_err::metadata(path).is_ok());
        let busybox = busybox.expect("these tests need the package busybox-static");
        fs_err::copy(busybox, bin.join("busybox")).expect("copy of busybox");
        for applet in [
            "cat", "echo", "extra", "false", "grep", "head", "hostname", "id", "ifconfig", "ls", "mount",
            "readlink", "rm", "sh", "sleep", "stat", "stty", "test", "tr", "true", "tty", "unshare", "wc",
        ] {
            symlink("busybox", bin.join(applet)).expect("applet");
        }
        Self { dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    pub(crate) fn dir_root(&self) -> Root {
        Root::Dir(self.rootfs())
    }

    /// The root file system with further layers above; one of them has a path too long for a mount parameter.
    pub(crate) fn layers(&self, extra: usize) -> Root {
        let base = tempfile::tempdir_in(self.path()).expect("a temporary directory").keep();
        fs_err::set_permissions(&base, Permissions::from_mode(0o755)).expect("mode");
        let mut lower = vec![Layer { path: self.rootfs(), id: None }];
        for number in 1..=extra {
            let name = if number == 1 { "x".repeat(250) } else { number.to_string() };
            let path = base.join(name);
            fs_err::create_dir(&path).expect("layer");
            fs_err::write(path.join("top"), format!("{number}\n")).expect("file");
            if number == 1 {
                fs_err::write(path.join("layer1"), "one\n").expect("file");
            }
            lower.push(Layer { path, id: None });
        }
        let [upper, work, merged] = ["upper", "work", "merged"].map(|name| {
            let path = base.join(name);
            fs_err::create_dir(&path).expect("directory");
            path
        });
        Root::Layers { lower, upper, work, merged }
    }

    pub(crate) fn bundle(&self, spec: Spec, root: Root) -> Bundle {
        Bundle { id: "test".to_owned(), spec, root, module: None, wasm: Default::default() }
    }

    /// What Docker would ask for; without privilege in a user namespace.
    pub(crate) fn spec(&self) -> Spec {
        let capabilities: Capabilities = defaults::CAPABILITIES.into_iter().collect();
        let mut spec = Spec::default();
        spec.set_mounts(Some(defaults::mounts(1 << 20)));
        spec.root_mut().as_mut().expect("root").set_readonly(Some(false));
        let process = spec.process_mut().as_mut().expect("process");
        process
            .set_env(Some(vec!["PATH=/usr/bin:/bin".to_owned()]))
            .set_rlimits(None)
            .set_no_new_privileges(Some(false))
            .set_capabilities(Some(defaults::capability_sets(&capabilities)));
        let linux = spec.linux_mut().as_mut().expect("linux");
        let mut namespaces = defaults::namespaces();
        if !privileged() {
            let maps = idmap::default_maps().maps().clone();
            namespaces.push(defaults::namespace(LinuxNamespaceType::User));
            linux.set_uid_mappings(Some(maps.uids)).set_gid_mappings(Some(maps.gids));
        }
        let paths = |list: &[&str]| Some(list.iter().map(|path| (*path).to_owned()).collect());
        linux
            .set_namespaces(Some(namespaces))
            .set_masked_paths(paths(&defaults::MASKED_PATHS))
            .set_readonly_paths(paths(&defaults::READONLY_PATHS));
        spec
    }

    pub(crate) fn run(&self, change: impl FnOnce(&mut Spec)) -> Run {
        self.run_root(self.dir_root(), change)
    }

    pub(crate) fn run_root(&self, root: Root, change: impl FnOnce(&mut Spec)) -> Run {
        let mut spec = self.spec();
        change(&mut spec);
        let bundle = self.bundle(spec, root);
        let (mut read, write) = std::io::pipe().expect("a pipe");
        let result = complete(&bundle, write.into());
        let mut output = String::new();
        read.read_to_string(&mut output).expect("output");
        Run { result, output }
    }
}

/// Output must fit into a pipe. Takes the only writing end, so that it is closed when the container is gone.
fn complete(bundle: &Bundle, output: OwnedFd) -> Result<ExitStatus> {
    let capabilities: Capabilities = defaults::CAPABILITIES.into_iter().collect();
    let executor = Executor::with_default_filter(Filter::docker_default(&capabilities)?);
    let second = output.try_clone().expect("a descriptor");
    let stdio = Stdio::Streams {
        stdin: Stream::Null,
        stdout: Stream::File(output.into()),
        stderr: Stream::File(second.into()),
    };
    let mut task = executor.create(bundle, stdio)?;
    task.start()?;
    let status = task.wait()?;
    task.delete()?;
    Ok(status)
}
