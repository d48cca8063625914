//! A private containerd and its client `ctr`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use tempfile::TempDir;

use super::super::until;
use super::{daemon, end, unmount};

/// A running containerd; ends with its value.
#[derive(Debug)]
pub(crate) struct Containerd {
    child: Child,
    dir: PathBuf,
    /// Removed after everything has ended, where the folder is ours.
    _made: Option<TempDir>,
}

impl Containerd {
    /// Starts one with its store in a temporary folder.
    pub(crate) fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("dhow-ctd-").tempdir().expect("temporary folder");
        let mut containerd = Self::start_in(dir.path());
        containerd._made = Some(dir);
        containerd
    }

    /// Starts one with its store in this folder, which stays.
    pub(crate) fn start_in(dir: &Path) -> Self {
        // What is not needed and would look at the machine: CRI's networks.
        Self::write(dir, &["grpc.v1.cri"], "")
    }

    /// Starts one with Kubernetes' interface, of which this is the configuration.
    pub(crate) fn configured(cri: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("dhow-ctd-").tempdir().expect("temporary folder");
        let mut containerd = Self::write(dir.path(), &[], cri);
        containerd._made = Some(dir);
        containerd
    }

    fn write(dir: &Path, without: &[&str], more: &str) -> Self {
        fs_err::create_dir_all(dir).expect("folder");
        let file = dir.join("config.toml");
        let at = |name: &str| dir.join(name).display().to_string();
        // Block devices and /opt/containerd are of no use either.
        let unused = [
            "internal.v1.opt",
            "snapshotter.v1.aufs",
            "snapshotter.v1.btrfs",
            "snapshotter.v1.devmapper",
            "snapshotter.v1.zfs",
        ];
        let disabled: Vec<String> =
            without.iter().chain(&unused).map(|name| format!("\"io.containerd.{name}\"")).collect();
        let text = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [{}]\n[grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n{more}",
            at("root"),
            at("state"),
            disabled.join(", "),
            at("socket"),
            at("ttrpc"),
        );
        fs_err::write(&file, text).expect("configuration of containerd");
        Self { child: Self::serve(dir), dir: dir.to_owned(), _made: None }
    }

    /// What it has said, for who wants to know why something failed.
    pub(crate) fn log(&self) -> String {
        fs_err::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// The daemon itself, ready.
    fn serve(dir: &Path) -> Child {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(dir.join("bin")).chain(std::env::split_paths(&path));
        let path = std::env::join_paths(path).expect("no colon in the folder's name");
        let mut child = daemon("containerd", &dir.join("log"), |command| {
            // A test's own shims come first.
            command.env("PATH", path).arg("--config").arg(dir.join("config.toml"));
        });
        let socket = dir.join("socket");
        until("containerd (Debian package containerd)", || {
            assert!(
                matches!(child.try_wait(), Ok(None)),
                "containerd ended: see {}",
                dir.join("log").display()
            );
            ctr(&socket).arg("version").output().is_ok_and(|output| output.status.success()).then_some(())
        });
        child
    }

    /// Kills it, as a crash does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Starts it again after that.
    pub(crate) fn restart(&mut self) {
        self.child = Self::serve(&self.dir);
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("socket")
    }

    /// The process, for what it costs.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A call of its client: `ctr(["images", "pull", "--plain-http", NAME])`.
    pub(crate) fn ctr<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Command {
        let mut command = ctr(&self.socket());
        command.args(args);
        command
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        end(&mut self.child);
        unmount(&self.dir);
    }
}

fn ctr(socket: &Path) -> Command {
    let mut command = Command::new("ctr");
    command.arg("--address").arg(socket);
    command
}
