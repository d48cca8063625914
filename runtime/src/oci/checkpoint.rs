//! `checkpoint`: a container's processes written into a folder by CRIU, to be brought back by `restore`.
//!
//! CRIU finds processes, memory and namespaces by itself. It has to be told what is the host's and so not part of the image:
//! bind mounts, control groups, the device that masks files, and streams. Each gets a name that `restore` says again:
//!
//! ```text
//! bind mounts             the destination in the specification
//! control groups          cgroup:<controllers>, version 1 only
//! masks                   /dev/null
//! streams                 pipe:[inode] or file[mount:inode], kept in descriptors.json as runc keeps them
//! joined namespaces       extRootNetNS, extRootPidNS, as runc has them
//! ```

use std::collections::BTreeMap;
use std::os::linux::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::container::{Container, LONGEST_END, ends};
use super::criu::{self, Criu, Kind, Message};
use super::error::{Error, Result};
use super::state::Status;
use crate::native::restore::{is_bound, place};
use crate::small_file;

/// The streams, as CRIU names them.
pub(super) const DESCRIPTORS: &str = "descriptors.json";
/// Options that are the same in both directions, by their numbers in CRIU's `criu_opts`.
pub(super) mod option {
    pub(in crate::oci) const PID: u64 = 2;
    pub(in crate::oci) const LEAVE_RUNNING: u64 = 3;
    pub(in crate::oci) const EXTERNAL_SOCKETS: u64 = 4;
    pub(in crate::oci) const TCP_ESTABLISHED: u64 = 5;
    pub(in crate::oci) const EVASIVE_DEVICES: u64 = 6;
    pub(in crate::oci) const SHELL_JOB: u64 = 7;
    pub(in crate::oci) const FILE_LOCKS: u64 = 8;
    pub(in crate::oci) const LOG_LEVEL: u64 = 9;
    pub(in crate::oci) const LOG_FILE: u64 = 10;
    pub(in crate::oci) const PAGE_SERVER: u64 = 11;
    pub(in crate::oci) const NOTIFY: u64 = 12;
    pub(in crate::oci) const ROOT: u64 = 13;
    pub(in crate::oci) const PARENT: u64 = 14;
    pub(in crate::oci) const TRACK_MEMORY: u64 = 15;
    pub(in crate::oci) const AUTO_DEDUP: u64 = 16;
    pub(in crate::oci) const MOUNT: u64 = 23;
    pub(in crate::oci) const GROUPS: u64 = 24;
    pub(in crate::oci) const GROUP_ROOT: u64 = 25;
    pub(in crate::oci) const SIBLING: u64 = 26;
    pub(in crate::oci) const INHERIT: u64 = 27;
    pub(in crate::oci) const GROUPS_MODE: u64 = 34;
    pub(in crate::oci) const EXTERNAL: u64 = 37;
    pub(in crate::oci) const EMPTY_NAMESPACES: u64 = 38;
    pub(in crate::oci) const FREEZER: u64 = 44;
    pub(in crate::oci) const LAZY_PAGES: u64 = 48;
    pub(in crate::oci) const STATUS: u64 = 49;
    pub(in crate::oci) const ORPHAN_TERMINAL: u64 = 50;
    pub(in crate::oci) const LSM_PROFILE: u64 = 53;
    pub(in crate::oci) const LSM_MOUNT: u64 = 63;
}
/// All CRIU has to say.
const LOUD: u64 = 4;
/// In a state's groups, the key of version 2.
const UNIFIED: &str = "";

/// What `checkpoint` and `restore` are both told.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// CRIU, by its path or as a name to be found in `PATH`.
    pub criu: PathBuf,
    /// Where the image is.
    pub images: PathBuf,
    /// Where logs go; the image's folder when not given.
    pub work: Option<PathBuf>,
    /// Connections are kept.
    pub tcp_established: bool,
    /// Sockets of the host may be in use.
    pub external_sockets: bool,
    /// Its session is another's.
    pub shell_job: bool,
    /// File locks may be held.
    pub file_locks: bool,
    /// What is done with control groups.
    pub groups: Groups,
    /// The network namespace is made empty.
    pub empty_network: bool,
    /// Pages that are read are given back to the disk.
    pub auto_dedup: bool,
    /// Memory comes when it is touched.
    pub lazy_pages: bool,
}

/// What is done with control groups inside the container's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Groups {
    /// Nothing: everybody comes back in the container's own.
    Ignore,
    /// Those that are missing are made, with their properties.
    #[default]
    Soft,
    /// All are made as they were.
    Full,
    /// The same, and none may be there.
    Strict,
}

impl Groups {
    fn number(self) -> u64 {
        match self {
            Self::Ignore => 0,
            Self::Soft => 3,
            Self::Full => 4,
            Self::Strict => 5,
        }
    }
}

/// What `checkpoint` alone is told.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// See there.
    pub wishes: Wishes,
    /// The container goes on.
    pub leave_running: bool,
    /// Memory only, and the container goes on: a first step that makes the last one short.
    pub pre_dump: bool,
    /// The folder of the step before, as seen from the image's.
    pub parent: Option<PathBuf>,
    /// Memory goes there: address and port.
    pub page_server: Option<(String, u16)>,
    /// A descriptor that is told when pages can be fetched.
    pub status: Option<u32>,
}

impl Wishes {
    pub(super) fn write(&self, kind: Kind, options: &mut Message) {
        options
            .number(option::LOG_LEVEL, LOUD)
            .text(option::LOG_FILE, kind.log())
            .flag(option::EXTERNAL_SOCKETS, self.external_sockets)
            .flag(option::TCP_ESTABLISHED, self.tcp_established)
            .flag(option::SHELL_JOB, self.shell_job)
            .flag(option::FILE_LOCKS, self.file_locks)
            .flag(option::AUTO_DEDUP, self.auto_dedup)
            .flag(option::LAZY_PAGES, self.lazy_pages)
            .flag(option::ORPHAN_TERMINAL, true)
            .flag(option::GROUPS, self.groups != Groups::Ignore)
            .number(option::GROUPS_MODE, self.groups.number());
        if self.empty_network {
            options.number(option::EMPTY_NAMESPACES, u64::from(libc::CLONE_NEWNET.unsigned_abs()));
        }
    }

    pub(super) fn work(&self) -> &Path {
        self.work.as_deref().unwrap_or(&self.images)
    }
}

/// Namespaces that a container has joined, with CRIU's name for each.
pub(super) fn joined(spec: &Spec) -> impl Iterator<Item = (&'static str, &'static str, &Path)> {
    let linux = spec.linux().as_ref();
    linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default().iter().filter_map(|one| {
        let path = one.path().as_deref()?;
        match one.typ() {
            LinuxNamespaceType::Network => Some(("net", "extRootNetNS", path)),
            LinuxNamespaceType::Pid => Some(("pid", "extRootPidNS", path)),
            _ => None,
        }
    })
}

impl Container {
    /// Writes its processes into a folder. Unless they are left running they are gone then, and the container is one that
    /// has ended.
    ///
    /// # Errors
    /// When it does not run, is Wasm, or CRIU refuses: it goes on as before then.
    pub fn checkpoint(&mut self, request: &Request) -> Result<()> {
        self.lock()?;
        let status = self.status();
        if !matches!(status, Status::Running | Status::Paused) {
            let text = format!("container cannot be checkpointed in {} state", status.name());
            return Err(Error::Invalid(text));
        }
        if self.saved.wasm {
            return Err(crate::Error::Unsupported { verb: "checkpoint", executor: "wasm" }.into());
        }
        let spec = self.spec()?;
        let kind = if request.pre_dump { Kind::PreDump } else { Kind::Dump };
        let images = criu::make_folder(&request.wishes.images)?;
        let work = criu::make_folder(request.wishes.work())?;
        let process = self.process()?.ok_or_else(|| Error::NotRunning(self.saved.id.clone()))?;
        let mut options = Message::default();
        request.wishes.write(kind, &mut options);
        options
            .path(option::ROOT, &self.saved.rootfs)
            .number(option::PID, self.saved.pid.into())
            .flag(option::LEAVE_RUNNING, request.leave_running);
        let groups = &self.saved.cgroup_paths;
        if let Some(freezer) = groups.get("freezer").or_else(|| groups.get(UNIFIED)) {
            options.path(option::FREEZER, freezer);
        }
        if let Some(parent) = &request.parent {
            check_parent(&images, parent)?;
            options.path(option::PARENT, parent);
        }
        options.flag(option::TRACK_MEMORY, request.pre_dump || request.parent.is_some());
        if let Some((address, port)) = &request.page_server {
            options.server(option::PAGE_SERVER, address, *port);
        }
        let mut handles = Vec::new();
        if let Some(number) = request.status {
            let path = format!("/proc/self/fd/{number}");
            let file =
                fs_err::OpenOptions::new().write(true).open(path).map_err(Error::of("open --status-fd"))?;
            handles.push(file.into_parts().0.into());
            options.handle(option::STATUS, &handles[0]);
        }
        let view = View::of(self.saved.pid)?;
        // Before a dump CRIU looks at memory only.
        if !request.pre_dump {
            view.externals(&spec, self.saved.pid, &mut options)?;
            let names = view.streams(self.saved.pid);
            for name in names.iter().filter(|name| name.starts_with("file[")) {
                options.text(option::EXTERNAL, name);
            }
            let text = serde_json::to_vec(&names).map_err(Error::of("write the streams' names"))?;
            fs_err::write(images.join(DESCRIPTORS), text).map_err(Error::of("write the streams' names"))?;
        }
        let criu = Criu {
            program: &request.wishes.criu,
            images: &images,
            work: &work,
            root: None,
            handles: &handles,
        };
        criu.ask(kind, options, |_, _| Ok(()), |_| Ok(()))?;
        if !(request.leave_running || request.pre_dump) {
            ends(&process, LONGEST_END)?;
        }
        Ok(())
    }
}

/// runc's rule: a relative path that exists.
fn check_parent(images: &Path, parent: &Path) -> Result<()> {
    if parent.is_absolute() {
        return Err(Error::Invalid(format!("--parent-path {} must be relative", parent.display())));
    }
    let path = images.join(parent);
    if path.is_dir() {
        return Ok(());
    }
    Err(Error::Invalid(format!("invalid --parent-path: {} is no folder", path.display())))
}

/// A container's mounts, from `proc_pid_mountinfo(5)`.
struct View(BTreeMap<u64, Seen>);

struct Seen {
    root: String,
    point: PathBuf,
    kind: String,
    /// Options of the file system.
    options: String,
}

impl View {
    fn of(pid: u32) -> Result<Self> {
        let text = small_file::text(format!("/proc/{pid}/mountinfo"));
        Ok(Self::parse(&text.map_err(Error::of("read the container's mounts"))?))
    }

    fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let (at, system) = line.split_once(" - ")?;
            let mut at = at.split(' ');
            let number = at.next()?.parse().ok()?;
            let (root, point) = (at.nth(2)?.to_owned(), PathBuf::from(plain(at.next()?)));
            let mut system = system.split(' ');
            let kind = system.next()?.to_owned();
            let options = system.nth(1).unwrap_or_default().to_owned();
            Some((number, Seen { root, point, kind, options }))
        };
        Self(text.lines().filter_map(line).collect())
    }

    /// Tells CRIU what of a container is the host's.
    fn externals(&self, spec: &Spec, pid: u32, options: &mut Message) -> Result<()> {
        let mounts = spec.mounts().as_deref().unwrap_or_default();
        let root = PathBuf::from(format!("/proc/{pid}/root"));
        for mount in mounts.iter().filter(|mount| is_bound(mount)) {
            let at = place(mount);
            // Links in the root may lead elsewhere; a later mount may cover it.
            let found =
                crate::native::join::open_in(&root, &at).ok().and_then(|file| mount_of("self", &file));
            let point = found.and_then(|number| self.0.get(&number)).map_or(&at, |seen| &seen.point);
            options.pair(option::MOUNT, point, &at);
        }
        let masked =
            spec.linux().as_ref().and_then(|linux| linux.masked_paths().as_deref()).unwrap_or_default();
        for seen in self.0.values() {
            if seen.kind == "cgroup" {
                options.pair(option::MOUNT, &seen.point, Path::new(&group_name(&seen.options)));
            } else if seen.root == "/null" && masked.iter().any(|path| Path::new(path) == seen.point) {
                options.pair(option::MOUNT, &seen.point, Path::new(MASK));
            } else if seen.kind == "devtmpfs" && seen.root.len() > 1 && seen.point.starts_with("/dev") {
                options.pair(option::MOUNT, &seen.point, Path::new(&seen.root_in_dev()));
            }
        }
        for (kind, name, _) in joined(spec) {
            let inode = fs_err::metadata(format!("/proc/{pid}/ns/{kind}"));
            let inode = inode.map_err(Error::of("look at the container's namespaces"))?.st_ino();
            options.text(option::EXTERNAL, &format!("{kind}[{inode}]:{name}"));
        }
        Ok(())
    }

    /// The names of its standard streams: those of pipes and of what is part of the container are the kernel's, those of
    /// the host's files CRIU's for what it is given again.
    fn streams(&self, pid: u32) -> [String; 3] {
        [0, 1, 2].map(|number| {
            let path = format!("/proc/{pid}/fd/{number}");
            let shown = fs_err::read_link(&path).map(|path| path.to_string_lossy().into_owned());
            let shown = shown.unwrap_or_default();
            let mount = descriptor_mount(&pid.to_string(), number);
            match (mount, fs_err::metadata(&path)) {
                (Some(mount), Ok(file)) if shown.starts_with('/') && !self.0.contains_key(&mount) => {
                    format!("file[{mount:x}:{:x}]", file.st_ino())
                }
                _ => shown,
            }
        })
    }
}

/// What masks a file.
pub(super) const MASK: &str = "/dev/null";

impl Seen {
    /// The device that a bind mount in `/dev` shows.
    fn root_in_dev(&self) -> String {
        format!("/dev{}", self.root)
    }
}

/// The name of a hierarchy of version 1, from the options of its file system.
fn group_name(options: &str) -> String {
    const OTHERS: [&str; 7] =
        ["rw", "ro", "xattr", "clone_children", "cpuset_v2_mode", "noprefix", "favordynmods"];
    let names = options.split(',').filter(|one| !OTHERS.contains(one) && !one.starts_with("release_agent="));
    let mut names: Vec<&str> = names.collect();
    // A hierarchy has either a name of its own or controllers for this.
    if names.iter().any(|name| !name.starts_with("name=")) {
        names.retain(|name| !name.starts_with("name="));
    }
    names.sort_unstable();
    format!("cgroup:{}", names.join(","))
}

/// The same for a container's groups, each with its folder.
pub(super) fn group_names(saved: &BTreeMap<String, PathBuf>) -> Vec<(String, PathBuf)> {
    let mut folders: BTreeMap<&PathBuf, Vec<&str>> = BTreeMap::new();
    for (name, folder) in saved.iter().filter(|(name, _)| *name != UNIFIED) {
        folders.entry(folder).or_default().push(name);
    }
    folders.into_iter().map(|(folder, names)| (group_name(&names.join(",")), folder.clone())).collect()
}

fn mount_of(process: &str, file: &impl std::os::fd::AsRawFd) -> Option<u64> {
    descriptor_mount(process, file.as_raw_fd())
}

/// The mount that an open file of a process is in.
fn descriptor_mount(process: &str, number: i32) -> Option<u64> {
    let text = small_file::text(format!("/proc/{process}/fdinfo/{number}")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
}

/// A path of `mountinfo`, where blanks and backslashes are octal.
fn plain(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        let octal = others
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = &others[3..];
            }
            None => {
                bytes.push(*first);
                rest = others;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_as_the_kernel_writes_them() {
        let view = View::parse(
            "65 42 254:0 /b/rootfs / rw - ext4 /dev/vda rw\n82 65 254:0 /x /a\\040b rw,relatime shared:1 - ext4 /dev/vda rw\n73 72 0:29 /dhow-c2 /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpuacct,cpu\nbroken",
        );
        assert_eq!(view.0[&82].point, Path::new("/a b"));
        assert_eq!((view.0[&82].root.as_str(), view.0[&82].kind.as_str()), ("/x", "ext4"));
        assert_eq!(group_name(&view.0[&73].options), "cgroup:cpu,cpuacct");
    }

    #[test]
    fn a_hierarchy_has_one_name_on_both_ways() {
        let folder = |path: &str| PathBuf::from(path);
        let saved = BTreeMap::from([
            ("cpuacct".to_owned(), folder("/cg/cpu/x")),
            ("cpu".to_owned(), folder("/cg/cpu/x")),
            ("name=systemd".to_owned(), folder("/cg/systemd/x")),
            (String::new(), folder("/cg/unified/x")),
        ]);
        let names = group_names(&saved);
        assert_eq!(
            names,
            [
                ("cgroup:cpu,cpuacct".to_owned(), folder("/cg/cpu/x")),
                ("cgroup:name=systemd".to_owned(), folder("/cg/systemd/x")),
            ]
        );
        assert_eq!(group_name("rw,xattr,release_agent=/x,name=systemd"), "cgroup:name=systemd");
    }
}
