//! A private Dhow installation: own store, own home, gone at the end of the test.
//!
//! When a test has passed, dropping its host also asserts that `dhow system check` finds nothing wrong.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::{Image, Layout, Run, busybox, is_root, tool};

/// One installation.
#[derive(Debug)]
pub(crate) struct Host {
    dir: TempDir,
    user: User,
}

/// Who runs the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    /// Whoever runs the tests.
    Same,
    /// The unprivileged test user that `tests/run` makes, reached from root.
    Unprivileged,
}

/// Its name; it has ranges in /etc/subuid and /etc/subgid.
const UNPRIVILEGED: &str = "dhow-test";

impl Host {
    /// An empty installation of the user who runs the tests.
    pub(crate) fn new() -> Self {
        Self::of(User::Same, false)
    }

    /// The same in memory, for what writes so much that a disk would be all that is waited for. Needs root.
    pub(crate) fn in_memory() -> Self {
        Self::of(User::Same, true)
    }

    /// An empty installation of an unprivileged user; `None`, with a note, where there is none.
    pub(crate) fn unprivileged() -> Option<Self> {
        if !is_root() {
            return Some(Self::new());
        }
        let known = Command::new("id").arg(UNPRIVILEGED).output().is_ok_and(|output| output.status.success());
        if !known {
            println!("skipped: there is no user {UNPRIVILEGED}; tests/run makes it");
        }
        known.then(|| Self::of(User::Unprivileged, false))
    }

    fn of(user: User, in_memory: bool) -> Self {
        let dir = tempfile::Builder::new().prefix("dhow-").tempdir().expect("temporary folder");
        if in_memory {
            // It goes with the folder: see `release`.
            tool(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=700", "tmpfs"]).arg(dir.path()));
        }
        for name in ["root", "home"] {
            fs_err::create_dir(dir.path().join(name)).expect("folder");
        }
        if user == User::Unprivileged {
            // The build folder may lie where this user may not look, so it gets a copy of the command.
            fs_err::copy(env!("CARGO_BIN_EXE_dhow"), dir.path().join("dhow")).expect("copy of dhow");
            tool(Command::new("chmod").args(["755"]).arg(dir.path()));
            tool(Command::new("chown").args(["-R", UNPRIVILEGED]).arg(dir.path()));
        }
        Self { dir, user }
    }

    /// Makes a folder and all that is in it the property of this installation's user.
    pub(crate) fn give(&self, path: &str) {
        if self.user == User::Unprivileged {
            tool(Command::new("chown").args(["-hR", UNPRIVILEGED, path]));
        }
    }

    /// An installation whose store holds these images under the given names.
    pub(crate) fn with(images: &[(&str, Image)]) -> Self {
        let host = Self::new();
        host.load(images);
        host
    }

    /// An installation with `busybox:1`.
    pub(crate) fn with_busybox() -> Self {
        Self::with(&[("busybox:1", busybox())])
    }

    /// Loads images by way of an OCI layout archive.
    pub(crate) fn load(&self, images: &[(&str, Image)]) {
        let layout = Layout::new();
        for (name, image) in images {
            let descriptor = layout.image(image);
            layout.tag(&descriptor, name);
        }
        let archive = self.path("images.tar");
        layout.archive(&archive);
        let loaded = self.dhow(["load", "-i", archive.to_str().expect("UTF-8")]).outcome();
        assert_eq!(loaded.code, 0, "{loaded:#?}");
        fs_err::remove_file(&archive).expect("remove archive");
    }

    /// A path in the host's own folder, outside the store.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("home").join(name)
    }

    /// The host's folder as text, for `-v` and messages.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8").to_owned()
    }

    /// The store.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Writes a file into the host's own folder and gives its path.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs_err::create_dir_all(path.parent().expect("has a parent")).expect("folder");
        fs_err::write(&path, content).expect("file");
        if self.user == User::Unprivileged {
            tool(Command::new("chown").args(["-R", UNPRIVILEGED]).arg(self.dir.path().join("home")));
        }
        self.text(name)
    }

    /// A call of `dhow` on this installation.
    pub(crate) fn dhow<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Run {
        let mut command = match self.user {
            User::Same => Command::new(env!("CARGO_BIN_EXE_dhow")),
            User::Unprivileged => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", UNPRIVILEGED, "--regid", UNPRIVILEGED, "--init-groups", "--"]);
                command.arg(self.dir.path().join("dhow"));
                command
            }
        };
        let home = self.dir.path().join("home");
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", &home).env("DHOW_ROOT", self.root());
        // A bridge of each installation that needs none would only cost time.
        command.env("LC_ALL", "C.UTF-8").env("DHOW_NETWORK", "none");
        command.current_dir(home);
        Run::new(command).args(args)
    }

    /// Asserts that the installation is consistent.
    pub(crate) fn check(&self) {
        let check = self.dhow(["system", "check"]).outcome();
        assert_eq!(check.code, 0, "{check:#?}");
    }

    /// Asserts that there is no container, running or ended.
    pub(crate) fn has_no_container(&self) {
        assert_eq!(self.dhow(["ps", "-a", "-q"]).ok(), "");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // A container that a test left running, because it failed or because it only needed it to run, ends here.
        let running =
            self.dhow(["ps", "-q"]).into_command().output().map(|output| output.stdout).unwrap_or_default();
        for id in String::from_utf8_lossy(&running).lines() {
            drop(self.dhow(["rm", "-f", id]).into_command().output());
        }
        if !std::thread::panicking() {
            self.check();
        }
        release(self.dir.path());
        // Where this installation's images are mounted: they would hold the files of its store.
        for run in fs_err::read_dir("/run/dhow").into_iter().flatten().flatten() {
            let owner = fs_err::read_to_string(run.path().join("root")).unwrap_or_default();
            if Path::new(&owner) == self.root() {
                release(&run.path());
                fs_err::remove_dir_all(run.path()).ok();
            }
        }
    }
}

/// Ends what a failed test may have left below `dir`: mounts, so that the folder can be removed.
fn release(dir: &Path) {
    let table = fs_err::read_to_string("/proc/self/mounts").unwrap_or_default();
    let below = table
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|path| Path::new(path).starts_with(dir));
    for path in below.collect::<Vec<_>>().into_iter().rev() {
        drop(Command::new("umount").args(["-l", path]).output());
    }
}
