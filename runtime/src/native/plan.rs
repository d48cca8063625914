//! Everything a container's first process has to do, worked out and checked before it exists.
//!
//! The specification is read here and nowhere else in the native executor. What this version cannot do is
//! refused, never ignored; resource limits (cgroups) are the exception, see [`crate::native`].

mod devices;
mod namespaces;
mod process;

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, Process, Spec};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit};

use crate::bundle::{Bundle, Root};
use crate::error::{Error, Result};
use crate::native::dev::Device;
use crate::native::idmap::Maps;
use crate::native::mounts::{self, Context, Step};
use crate::native::paths;
use crate::native::seccomp::Filter;
use crate::stdio::{Stdio, Stream, TerminalSize};

pub(super) use namespaces::Namespaces;
pub(super) use process::{Command, User};

/// The whole plan. File descriptors in it are closed at exec.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) namespaces: Namespaces,
    pub(super) root: Root,
    pub(super) read_only: bool,
    pub(super) context: Context,
    pub(super) mounts: Vec<Step>,
    pub(super) devices: Vec<Device>,
    pub(super) masked: Vec<PathBuf>,
    pub(super) read_only_paths: Vec<PathBuf>,
    pub(super) sysctls: Vec<(PathBuf, String)>,
    pub(super) hostname: Option<String>,
    pub(super) domainname: Option<String>,
    pub(super) stdio: Streams,
    pub(super) user: User,
    pub(super) oom_score_adj: Option<i32>,
    pub(super) rlimits: Vec<(Resource, Rlimit)>,
    pub(super) no_new_privileges: bool,
    pub(super) filter: Option<Filter>,
    pub(super) cwd: PathBuf,
    pub(super) command: Command,
    /// It is killed when the process that created it ends.
    pub(super) ends_with_creator: bool,
}

/// The process's three streams.
#[derive(Debug)]
pub(super) enum Streams {
    /// A descriptor above 2 for each, or none to keep what is there.
    Files([Option<OwnedFd>; 3]),
    /// A terminal is to be made.
    Terminal(Option<TerminalSize>),
}

fn invalid<T>(field: &'static str, reason: impl Into<String>) -> Result<T> {
    Err(Error::InvalidSpec { field, reason: reason.into() })
}

impl Plan {
    /// Reads a bundle. `default_filter` is for a specification without a seccomp profile.
    pub(super) fn new(bundle: &Bundle, stdio: Stdio, default_filter: Option<&Filter>) -> Result<Self> {
        let spec = &bundle.spec;
        let Some(process) = spec.process() else { return invalid("process", "is missing") };
        let Some(linux) = spec.linux() else { return invalid("linux", "is missing") };
        refuse_unsupported(spec, process, linux)?;
        let namespaces = namespaces::namespaces(linux)?;
        let context = Context {
            user_namespace: namespaces.has(libc::CLONE_NEWUSER),
            new_namespaces: namespaces.new,
            tty_group: namespaces.maps.as_ref().is_none_or(|maps| Maps::has(&maps.gids, 5)),
        };
        let mounts = spec
            .mounts()
            .iter()
            .flatten()
            .map(|mount| mounts::plan(mount, context))
            .collect::<Result<Vec<_>>>()?;
        let filter = match linux.seccomp() {
            Some(profile) => Some(Filter::compile(profile)?),
            None => default_filter.cloned(),
        };
        let Some(cwd) = paths::normal(process.cwd()) else {
            return invalid("process.cwd", format!("{} is not an absolute path", process.cwd().display()));
        };
        if let Root::Dir(path) = &bundle.root
            && !path.is_absolute()
        {
            return invalid("root.path", format!("{} is not an absolute path", path.display()));
        }
        let terminal = matches!(stdio, Stdio::Terminal(_));
        Ok(Self {
            root: bundle.root.clone(),
            read_only: spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly).unwrap_or(false),
            context,
            mounts,
            devices: devices::devices(linux)?,
            masked: clean_paths("linux.maskedPaths", linux.masked_paths().as_deref())?,
            read_only_paths: clean_paths("linux.readonlyPaths", linux.readonly_paths().as_deref())?,
            sysctls: namespaces::sysctls(linux, &namespaces)?,
            hostname: name("hostname", spec.hostname(), &namespaces)?,
            domainname: name("domainname", spec.domainname(), &namespaces)?,
            stdio: streams(stdio, process)?,
            user: process::user(process, &namespaces)?,
            oom_score_adj: process::oom_score_adj(process)?,
            rlimits: process::rlimits(process)?,
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            ends_with_creator: false,
            filter,
            cwd,
            command: process::command(process, terminal)?,
            namespaces,
        })
    }
}

fn refuse_unsupported(spec: &Spec, process: &Process, linux: &Linux) -> Result<()> {
    let reason = "is not supported by this executor";
    let hooks = spec.hooks().as_ref().is_some_and(|hooks| *hooks != oci_spec::runtime::Hooks::default());
    let text = |value: &Option<String>| value.as_deref().is_some_and(|value| !value.is_empty());
    let shared = linux.rootfs_propagation().as_deref().is_some_and(|mode| mode.ends_with("shared"));
    let table = [
        (hooks, "hooks"),
        (text(process.apparmor_profile()), "process.apparmorProfile"),
        (text(process.selinux_label()), "process.selinuxLabel"),
        (process.scheduler().is_some(), "process.scheduler"),
        (process.io_priority().is_some(), "process.ioPriority"),
        (text(linux.mount_label()), "linux.mountLabel"),
        (linux.intel_rdt().is_some(), "linux.intelRdt"),
        (linux.personality().is_some(), "linux.personality"),
        (linux.memory_policy().is_some(), "linux.memoryPolicy"),
        (linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty()), "linux.timeOffsets"),
        (linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty()), "linux.netDevices"),
        (shared, "linux.rootfsPropagation"),
    ];
    table.iter().find(|row| row.0).map_or(Ok(()), |row| invalid(row.1, reason))
}

fn clean_paths(field: &'static str, given: Option<&[String]>) -> Result<Vec<PathBuf>> {
    let clean = |path: &String| match paths::normal(Path::new(path)) {
        Some(path) => Ok(path),
        None => invalid(field, format!("{path} is not an absolute path")),
    };
    given.unwrap_or_default().iter().map(clean).collect()
}

fn name(field: &'static str, given: &Option<String>, namespaces: &Namespaces) -> Result<Option<String>> {
    match given {
        Some(name) if name.is_empty() => Ok(None),
        Some(name) if name.len() > 64 => invalid(field, "is longer than 64 bytes"),
        Some(_) if !namespaces.has(libc::CLONE_NEWUTS) => {
            invalid(field, "needs a uts namespace of the container's own")
        }
        Some(name) => Ok(Some(name.clone())),
        None => Ok(None),
    }
}

fn streams(stdio: Stdio, process: &Process) -> Result<Streams> {
    let (stdin, stdout, stderr) = match stdio {
        Stdio::Streams { stdin, stdout, stderr } => (stdin, stdout, stderr),
        Stdio::Terminal(size) => {
            let clamp = |cells: u64| u16::try_from(cells).unwrap_or(u16::MAX);
            let wanted = process.console_size();
            let from_spec =
                wanted.map(|size| TerminalSize { rows: clamp(size.height()), columns: clamp(size.width()) });
            return Ok(Streams::Terminal(size.or(from_spec)));
        }
    };
    Ok(Streams::Files([stream(stdin)?, stream(stdout)?, stream(stderr)?]))
}

fn stream(stream: Stream) -> Result<Option<OwnedFd>> {
    let file =
        |errno: rustix::io::Errno| Error::Setup { action: "open a stream".to_owned(), source: errno.into() };
    Ok(match stream {
        Stream::Inherit => None,
        Stream::Null => {
            let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
            Some(above_stdio(File::from(null.map_err(file)?)).map_err(file)?)
        }
        Stream::File(open) => Some(above_stdio(open).map_err(file)?),
    })
}

/// Streams are put in place one after the other, so none may lie where another goes.
fn above_stdio(file: File) -> rustix::io::Result<OwnedFd> {
    if file.as_raw_fd() > 2 { Ok(file.into()) } else { rustix::io::fcntl_dupfd_cloexec(file.as_fd(), 3) }
}

#[cfg(test)]
mod tests;
