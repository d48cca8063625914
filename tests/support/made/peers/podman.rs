//! Private stores for podman and buildah, which have no daemon.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::unmount;

/// One store and its configuration.
#[derive(Debug)]
pub(crate) struct Podman {
    dir: PathBuf,
    /// Removed after its mounts have gone, where the folder is ours.
    _made: Option<TempDir>,
}

impl Podman {
    /// An empty store in a temporary folder.
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("dhow-podman-").tempdir().expect("temporary folder");
        let mut podman = Self::new_in(dir.path());
        podman._made = Some(dir);
        podman
    }

    /// A store in this folder, which stays.
    pub(crate) fn new_in(dir: &Path) -> Self {
        for name in ["root", "run", "tmp", "home"] {
            fs_err::create_dir_all(dir.join(name)).expect("folder");
        }
        let at = |name: &str| dir.join(name).display().to_string();
        let write =
            |name: &str, text: String| fs_err::write(dir.join(name), text).expect("configuration of podman");
        write(
            "storage.conf",
            format!(
                "[storage]\ndriver = \"overlay\"\ngraphroot = {:?}\nrunroot = {:?}\n",
                at("root"),
                at("run")
            ),
        );
        // The folder of records is where `podman container cleanup`, which conmon starts without our configuration,
        // looks for it. Root here may lack the right to raise limits, and crun 1.8 refuses a machine with both cgroup versions.
        write(
            "containers.conf",
            format!(
                "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n[engine]\n\
                 cgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\nruntime = \"runc\"\n\
                 static_dir = {:?}\ntmp_dir = {:?}\nvolume_path = {:?}\n",
                at("root/libpod"),
                at("tmp"),
                at("volumes"),
            ),
        );
        write("registries.conf", "[[registry]]\nlocation = \"127.0.0.1\"\ninsecure = true\n".to_owned());
        write("auth.json", "{}".to_owned());
        Self { dir: dir.to_owned(), _made: None }
    }

    /// The store as skopeo names it: `containers-storage:` + this + the image.
    pub(crate) fn storage(&self) -> String {
        format!("[overlay@{}+{}]", self.dir.join("root").display(), self.dir.join("run").display())
    }

    /// A call of podman: `call(["pull", "--tls-verify=false", NAME])`.
    pub(crate) fn call<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Command {
        let mut command = self.with_configuration("podman");
        command.args(args);
        command
    }

    /// A call of buildah on the same store; it runs steps in a chroot.
    pub(crate) fn buildah<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Command {
        let mut command = self.with_configuration("buildah");
        command.env("BUILDAH_ISOLATION", "chroot").args(args);
        command
    }

    fn with_configuration(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("CONTAINERS_STORAGE_CONF", self.dir.join("storage.conf"));
        command.env("CONTAINERS_CONF", self.dir.join("containers.conf"));
        command.env("CONTAINERS_REGISTRIES_CONF", self.dir.join("registries.conf"));
        command.env("HOME", self.dir.join("home")).env("TMPDIR", self.dir.join("tmp"));
        command.env("REGISTRY_AUTH_FILE", self.dir.join("auth.json"));
        command
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        unmount(&self.dir);
    }
}
