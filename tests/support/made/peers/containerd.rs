//! A private containerd and its client `ctr`: those in `PATH`, or those that `DHOW_TEST_CONTAINERD` and `DHOW_TEST_CTR` name
//! (`tests/containerd`). Later ones understand the configuration of 1.6.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use tempfile::TempDir;

use super::super::{tool, until};
use super::{daemon, end, program, unmount};

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
        // What is not needed and would look at the machine: CRI's networks. From 2.0 on it is three plugins.
        Self::write(dir, &["grpc.v1.cri", "cri.v1.images", "cri.v1.runtime"], "")
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
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [{}]\n[grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n\
             [plugins.\"io.containerd.nri.v1.nri\"]\ndisable = true\n{more}",
            at("root"),
            at("state"),
            disabled.join(", "),
            at("socket"),
            at("ttrpc"),
        );
        fs_err::write(&file, text).expect("configuration of containerd");
        Self { child: Self::serve(dir), dir: dir.to_owned(), _made: None }
    }

    /// Its version's first two numbers.
    pub(crate) fn version() -> (u32, u32) {
        let said = tool(Command::new(program("DHOW_TEST_CONTAINERD", "containerd")).arg("--version"));
        let numbers = |word: &str| {
            let (first, rest) = word.trim_start_matches('v').split_once('.')?;
            Some((first.parse().ok()?, rest.split('.').next()?.parse().ok()?))
        };
        said.split_whitespace().rev().find_map(numbers).unwrap_or_else(|| panic!("no version: {said}"))
    }

    /// The folder of the one that was named, where its own shim is, if anywhere.
    fn beside() -> PathBuf {
        let named = PathBuf::from(program("DHOW_TEST_CONTAINERD", "containerd"));
        named.parent().map(Path::to_owned).unwrap_or_default()
    }

    /// Whether its own shim is there. The installed one is of the installed containerd, and others ask in words that it does not
    /// understand.
    pub(crate) fn has_shim() -> bool {
        let beside = Self::beside();
        beside.as_os_str().is_empty() || beside.join("containerd-shim-runc-v2").exists()
    }

    /// Words for `ctr images import`: from 2.0 on it has containerd unpack, by a snapshotter that only its configuration names,
    /// unless it is told to do it itself.
    pub(crate) fn importing() -> &'static [&'static str] {
        if Self::version().0 >= 2 { &["images", "import", "--local"] } else { &["images", "import"] }
    }

    /// What it has said, for who wants to know why something failed.
    pub(crate) fn log(&self) -> String {
        fs_err::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// The daemon itself, ready.
    fn serve(dir: &Path) -> Child {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let beside = Self::beside();
        let beside = Some(beside).filter(|folder| !folder.as_os_str().is_empty());
        let path = std::iter::once(dir.join("bin")).chain(beside).chain(std::env::split_paths(&path));
        let path = std::env::join_paths(path).expect("no colon in the folder's name");
        let mut child = daemon(&program("DHOW_TEST_CONTAINERD", "containerd"), &dir.join("log"), |command| {
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
    let mut command = Command::new(ctr_program());
    command.arg("--address").arg(socket);
    command
}

/// The client, for who calls it in his own way.
pub(crate) fn ctr_program() -> String {
    program("DHOW_TEST_CTR", "ctr")
}
