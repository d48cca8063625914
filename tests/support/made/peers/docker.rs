//! A private dockerd on a private containerd: the one in `PATH`, or the one that `DHOW_TEST_DOCKERD` names (`tests/containerd`).

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use tempfile::TempDir;

use super::super::{tool, until};
use super::{Containerd, daemon, end, program, unmount};

/// What keeps it from this host's network.
const ALONE: [&str; 4] = ["--bridge=none", "--iptables=false", "--ip6tables=false", "--userland-proxy=false"];

/// A running dockerd; ends with its value.
#[derive(Debug)]
pub(crate) struct Docker {
    child: Child,
    containerd: Containerd,
    dir: PathBuf,
    /// Removed after everything has ended, where the folder is ours.
    _made: Option<TempDir>,
}

impl Docker {
    /// Starts one with its store in a temporary folder; `None`, with a note, where that could disturb another one.
    pub(crate) fn start() -> Option<Self> {
        let dir = tempfile::Builder::new().prefix("dhow-docker-").tempdir().expect("temporary folder");
        let mut docker = Self::start_in(dir.path())?;
        docker._made = Some(dir);
        Some(docker)
    }

    /// The same with these settings, a `daemon.json`.
    pub(crate) fn start_with(settings: &str) -> Option<Self> {
        let dir = tempfile::Builder::new().prefix("dhow-docker-").tempdir().expect("temporary folder");
        let mut docker = Self::start_set(dir.path(), settings, &ALONE)?;
        docker._made = Some(dir);
        Some(docker)
    }

    /// The same where its containers are kept by this shim in the place of runc's.
    pub(crate) fn start_with_shim(shim: &str) -> Option<Self> {
        let dir = tempfile::Builder::new().prefix("dhow-docker-").tempdir().expect("temporary folder");
        let programs = dir.path().join("containerd/bin");
        fs_err::create_dir_all(&programs).expect("folder");
        for name in ["containerd-shim-runc-v2", "containerd-shim-dhow-v1"] {
            tool(Command::new("ln").arg("-s").arg(shim).arg(programs.join(name)));
        }
        let mut docker = Self::start_in(dir.path())?;
        docker._made = Some(dir);
        Some(docker)
    }

    /// Starts one with its store in this folder, which stays.
    pub(crate) fn start_in(dir: &Path) -> Option<Self> {
        Self::start_set(dir, "{}", &ALONE)
    }

    /// The same with its packet filter: for who is in a network namespace of its own.
    pub(crate) fn start_filtering_in(dir: &Path) -> Option<Self> {
        Self::start_set(dir, "{}", &["--bridge=none"])
    }

    fn start_set(dir: &Path, set: &str, network: &[&str]) -> Option<Self> {
        if Path::new("/sys/class/net/docker0").exists() {
            println!("skipped: a dockerd without a bridge would remove docker0, which is another dockerd's");
            return None;
        }
        fs_err::create_dir_all(dir.join("client")).expect("folder");
        let containerd = Containerd::start_in(&dir.join("containerd"));
        let settings = dir.join("daemon.json");
        fs_err::write(&settings, set).expect("configuration of dockerd");
        let mut child = daemon(&program("DHOW_TEST_DOCKERD", "dockerd"), &dir.join("log"), |command| {
            // Relative paths and a missing configuration would both lead it to the machine's own.
            command.arg("--config-file").arg(&settings);
            command.arg("--containerd").arg(containerd.socket());
            command.arg("--data-root").arg(dir.join("data")).arg("--exec-root").arg(dir.join("exec"));
            command.arg("--pidfile").arg(dir.join("pid")).arg("--host").arg(host(dir));
            command.args(network);
        });
        until("dockerd (Debian package docker.io)", || {
            assert!(matches!(child.try_wait(), Ok(None)), "dockerd ended: see {}", dir.join("log").display());
            call(dir).arg("version").output().is_ok_and(|output| output.status.success()).then_some(())
        });
        Some(Self { child, containerd, dir: dir.to_owned(), _made: None })
    }

    /// `unix://...`, for `DOCKER_HOST` and skopeo's `--src-daemon-host`.
    pub(crate) fn host(&self) -> String {
        host(&self.dir)
    }

    /// The processes of both daemons, for what they cost.
    pub(crate) fn pids(&self) -> [u32; 2] {
        [self.child.id(), self.containerd.pid()]
    }

    /// A call of its client, which has a configuration folder of its own (`login` writes there).
    pub(crate) fn call<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Command {
        let mut command = call(&self.dir);
        command.args(args);
        command
    }

    /// What `docker inspect --format` says about an image.
    pub(crate) fn inspect(&self, image: &str, format: &str) -> String {
        tool(&mut self.call(["image", "inspect", "--format", format, image])).trim().to_owned()
    }

    /// Where an overlay2 store keeps the layers of an image, uppermost first.
    pub(crate) fn layers(&self, image: &str) -> Vec<PathBuf> {
        let format = "{{.GraphDriver.Data.UpperDir}}:{{with .GraphDriver.Data.LowerDir}}{{.}}{{end}}";
        let dirs = self.inspect(image, format);
        dirs.split(':').filter(|dir| dir.starts_with('/')).map(PathBuf::from).collect()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // A daemon that is ended while containers run leaves them and their shims behind.
        let listed = call(&self.dir).args(["ps", "--all", "--quiet"]).output().map(|output| output.stdout);
        let listed = String::from_utf8_lossy(&listed.unwrap_or_default()).into_owned();
        if !listed.is_empty() {
            drop(call(&self.dir).args(["rm", "--force"]).args(listed.split_whitespace()).output());
        }
        end(&mut self.child);
        unmount(&self.dir);
    }
}

fn host(dir: &Path) -> String {
    format!("unix://{}", dir.join("socket").display())
}

fn call(dir: &Path) -> Command {
    let mut command = Command::new("docker");
    command
        .env_remove("DOCKER_CONTEXT")
        .env("DOCKER_HOST", host(dir))
        .env("DOCKER_CONFIG", dir.join("client"));
    command
}
