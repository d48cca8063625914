//! Where everything happens: a scratch folder and, as root, namespaces of our own, so that private daemons and a
//! registry disturb nobody.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use crate::made::{Image, Layout, is_root, repository, tool};

/// The scratch folder and the release binary under test.
#[derive(Debug)]
pub(crate) struct World {
    dir: TempDir,
    dhow: PathBuf,
}

impl World {
    /// Builds the release binary and enters the namespaces. Must be called before any thread is started.
    pub(crate) fn new() -> Result<Self> {
        let dhow = build()?;
        if is_root() {
            isolate()?;
        } else {
            eprintln!("note: without root there are no private daemons, so docker is left out");
        }
        let dir = tempfile::Builder::new().prefix("dhow-bench-").tempdir()?;
        Ok(Self { dir, dhow })
    }

    /// A folder in the scratch folder, made if it is missing.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.path().join(name);
        fs_err::create_dir_all(&path)?;
        Ok(path)
    }

    /// A call of dhow on a store of this name.
    pub(crate) fn dhow<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, store: &Path, args: I) -> Command {
        let mut command = Command::new(&self.dhow);
        command.env("DHOW_ROOT", store).args(args);
        command
    }

    /// A store that holds this image under this name.
    pub(crate) fn store(&self, name: &str, image: &Image) -> Result<PathBuf> {
        let store = self.folder(&format!("store-{}", name.replace([':', '/'], "-")))?;
        let layout = self.layout(name, image);
        tool(&mut self.dhow(&store, [OsStr::new("load"), OsStr::new("-i"), layout.path().as_os_str()]));
        Ok(store)
    }

    /// An OCI layout that holds this image under this name.
    pub(crate) fn layout(&self, name: &str, image: &Image) -> Layout {
        let layout = Layout::new();
        layout.tag(&layout.image(image), name);
        layout
    }
}

/// Builds dhow as it is released and says where it is.
fn build() -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let dhow = here.parent().context("this program lies in a folder")?.join("dhow");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--package", "dhow", "--bin", "dhow"])
        .current_dir(repository())
        .status()?;
    ensure!(
        built.success() && dhow.exists(),
        "{} was not built: run this as `cargo run --release -p dhow-bench`",
        dhow.display()
    );
    Ok(dhow)
}

/// Own mounts and an own network with only a loopback.
///
/// crun 1.8 refuses a cgroup2 hierarchy beside version 1 ones; here it is not seen. The namespaces are entered once,
/// so that no contender pays for that.
fn isolate() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).context("cannot enter new namespaces")?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("cannot make mounts private")?;
    if Path::new("/sys/fs/cgroup/unified").exists() {
        // Not mounted is what is wanted.
        umount2("/sys/fs/cgroup/unified", MntFlags::MNT_DETACH).ok();
    }
    tool(Command::new("/bin/busybox").args(["ip", "link", "set", "lo", "up"]));
    Ok(())
}
