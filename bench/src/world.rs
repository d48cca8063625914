//! Where everything happens: a scratch folder and, as root, namespaces of our own, so that private daemons and a
//! registry disturb nobody.
//!
//! As root the scratch folder is an ext4 in a file in memory: all stores are then on the same kind of file system, and
//! neither a disk nor what others write to it is measured.

use std::cell::OnceCell;
use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use crate::made::{Containerd, Docker, Image, Layout, Podman, is_root, repository, tool};
use crate::order;
use crate::peers::find;

/// The scratch folder, the binary under test, and the peers' daemons once they are asked for.
#[derive(Debug)]
pub(crate) struct World {
    dir: TempDir,
    disk: PathBuf,
    dhow: PathBuf,
    docker: OnceCell<Option<Rc<Docker>>>,
    filtering: OnceCell<Option<Rc<Docker>>>,
    containerd: OnceCell<Option<Rc<Containerd>>>,
    podman: OnceCell<Option<Rc<Podman>>>,
}

impl World {
    /// Builds the release binary, unless one is given, and enters the namespaces. Must be called before any thread
    /// is started.
    pub(crate) fn new(dhow: Option<PathBuf>) -> Result<Self> {
        let dhow = match dhow {
            Some(dhow) => fs_err::canonicalize(dhow)?,
            None => build()?,
        };
        if let Some(complaint) = order::complaint(&dhow)? {
            println!("note: {complaint}");
        }
        let dir = tempfile::Builder::new().prefix("dhow-bench-").tempdir()?;
        let mut disk = dir.path().to_owned();
        if is_root() {
            isolate()?;
            match loop_disk(dir.path()) {
                Ok(mounted) => disk = mounted,
                Err(error) => {
                    println!("note: stores are in {}, not on a disk in memory: {error:#}", disk.display());
                }
            }
        } else {
            eprintln!(
                "note: without root there are no private daemons, so docker, podman and ctr are left out"
            );
        }
        let (docker, filtering) = (OnceCell::new(), OnceCell::new());
        let (containerd, podman) = (OnceCell::new(), OnceCell::new());
        Ok(Self { dir, disk, dhow, docker, filtering, containerd, podman })
    }

    /// The private dockerd, where docker is installed and we may have one.
    pub(crate) fn docker(&self) -> Option<Rc<Docker>> {
        let start =
            || docker_is_there().then(|| Docker::start_in(&self.disk.join("docker")).map(Rc::new)).flatten();
        self.docker.get_or_init(start).clone()
    }

    /// A private dockerd that programs the packet filter of our own network namespace.
    pub(crate) fn filtering_docker(&self) -> Option<Rc<Docker>> {
        let start = || {
            let there = docker_is_there() && find("iptables").is_some();
            there.then(|| Docker::start_filtering_in(&self.disk.join("docker-filter")).map(Rc::new)).flatten()
        };
        self.filtering.get_or_init(start).clone()
    }

    /// The private containerd.
    pub(crate) fn containerd(&self) -> Option<Rc<Containerd>> {
        let there = || find("containerd").is_some() && find("ctr").is_some() && is_root();
        let start = || there().then(|| Rc::new(Containerd::start_in(&self.disk.join("containerd"))));
        self.containerd.get_or_init(start).clone()
    }

    /// The private store of podman.
    pub(crate) fn podman(&self) -> Option<Rc<Podman>> {
        let there = || find("podman").is_some() && is_root();
        let start = || there().then(|| Rc::new(Podman::new_in(&self.disk.join("podman"))));
        self.podman.get_or_init(start).clone()
    }

    /// A folder in the scratch folder, made if it is missing.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.disk.join(name);
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

/// Whether somebody answers HTTP well at this port.
pub(crate) fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(std::time::Duration::from_secs(20)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
        let mut start = [0; 12];
        stream.read_exact(&mut start)?;
        Ok(start.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}

impl Drop for World {
    fn drop(&mut self) {
        // First those who use the disk.
        drop((self.docker.take(), self.filtering.take(), self.containerd.take(), self.podman.take()));
        if self.disk != self.dir.path() {
            for mounted in [self.disk.as_path(), &self.dir.path().join("memory")] {
                umount2(mounted, MntFlags::MNT_DETACH).ok();
            }
        }
    }
}

fn docker_is_there() -> bool {
    find("docker").is_some() && find("dockerd").is_some() && is_root()
}

/// An ext4 in a sparse file in memory, mounted in our own namespace.
fn loop_disk(dir: &Path) -> Result<PathBuf> {
    let (memory, disk) = (dir.join("memory"), dir.join("disk"));
    fs_err::create_dir(&memory)?;
    fs_err::create_dir(&disk)?;
    mount(Some("tmpfs"), &memory, Some("tmpfs"), MsFlags::empty(), Some("size=12g")).context("no tmpfs")?;
    let file = memory.join("ext4");
    fs_err::File::create(&file)?.file().set_len(12 << 30)?;
    let done = |command: &mut Command| -> Result<()> {
        let output = command.output()?;
        ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    };
    // Everything is laid out now, so that no thread of the kernel does it while others are measured.
    let now = "lazy_itable_init=0,lazy_journal_init=0,nodiscard";
    let made = done(Command::new("mkfs.ext4").args(["-q", "-F", "-E", now]).arg(&file));
    let mounted =
        made.and_then(|()| done(Command::new("mount").args(["-o", "loop,discard"]).arg(&file).arg(&disk)));
    if mounted.is_err() {
        umount2(&memory, MntFlags::MNT_DETACH).ok();
    }
    mounted.map(|()| disk)
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
    // Where a host keeps what need not survive a reboot is memory; not every machine that this is run on has it so.
    fs_err::create_dir_all("/run/dhow").context("no folder /run/dhow")?;
    mount(Some("tmpfs"), "/run/dhow", Some("tmpfs"), MsFlags::empty(), Some("size=1g,mode=700"))
        .context("no tmpfs")?;
    if Path::new("/sys/fs/cgroup/unified").exists() {
        // Not mounted is what is wanted.
        umount2("/sys/fs/cgroup/unified", MntFlags::MNT_DETACH).ok();
    }
    tool(Command::new("/bin/busybox").args(["ip", "link", "set", "lo", "up"]));
    Ok(())
}
