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

use oci_spec::runtime::{Hook, Linux, Process, Spec};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Resource, Rlimit};

use crate::bundle::{Bundle, Root};
use crate::error::{Error, Result};
use crate::native::dev::Device;
use crate::native::exec::FileId;
use crate::native::gate::Gate;
use crate::native::hooks::Subject;
use crate::native::idmap::Maps;
use crate::native::mounts::{self, Context, Preparation, Step};
use crate::native::net::{self, NetDevice};
use crate::native::paths;
use crate::native::resctrl::{self, Share};
use crate::native::seccomp::Filter;
use crate::native::seccomp::agent::Agent;
use crate::native::tuning::Tuning;
use crate::native::tuning::affinity::Affinity;
use crate::stdio::{Stdio, Stream, TerminalSize};

pub(super) use namespaces::{Namespaces, Network, kind_of};
pub(super) use process::{CAPABILITIES, Command, User};

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
    /// Its user's programs may look at its namespaces while it waits at its gate.
    pub(super) shows_itself: bool,
    /// The root's, when the specification names one, and whether for the whole tree.
    pub(super) propagation: Option<(u64, bool)>,
    pub(super) tuning: Tuning,
    pub(super) net_devices: Vec<NetDevice>,
    /// Its share of caches and memory bandwidth.
    pub(super) share: Option<Share>,
    /// Who hears of calls that the filter does not decide about.
    pub(super) agent: Option<Agent>,
    /// Where it waits when its creator does not stay.
    pub(super) gate: Option<Gate>,
    /// This very program, which must not be the container's. Looked for before, as the first look at a new process in procfs
    /// takes longer.
    pub(super) own: Option<FileId>,
    /// It runs the program without being told: its creator has nothing to do between.
    pub(super) at_once: bool,
    /// Its creator hears of its set-up when it lets it run, not before.
    pub(super) is_apart: bool,
    /// It may not go on before its creator has put it into its control group.
    pub(super) waits_for_group: bool,
    /// What is run inside.
    pub(super) hooks: Inside,
    /// What hooks are told.
    pub(super) subject: Subject,
    /// The processors of a process that joins a container.
    pub(super) affinity: Affinity,
    /// How many descriptors after the standard streams the program gets.
    pub(super) preserved: u32,
    /// The root is moved into place, as `pivot_root` is not possible.
    pub(super) moves_root: bool,
    /// It stays in the session keyring it was born with.
    pub(super) keeps_keyring: bool,
}

/// Hooks that the container's process runs.
#[derive(Debug, Default)]
pub(super) struct Inside {
    /// The creator or the process itself has hooks to run before the host's root is left.
    pub(super) any_before_root: bool,
    pub(super) create_container: Vec<Hook>,
    pub(super) start_container: Vec<Hook>,
}

/// What the caller decides about a container, where the specification has no words.
#[derive(Debug, Default, Clone)]
pub(crate) struct Wishes {
    /// For a specification without a seccomp profile.
    pub(super) filter: Option<Filter>,
    pub(super) ends_with_creator: bool,
    /// Its user's programs may look at its namespaces while it waits at its gate.
    pub(super) shows_itself: bool,
    /// Where the bundle lies, for the seccomp agent.
    pub(super) bundle: PathBuf,
    /// A mount of type `cgroup` shows groups of version 1, too.
    pub(super) first_groups: bool,
    /// The creator has other things to do while the process sets itself up.
    pub(super) not_waiting: bool,
}

/// The process's three streams.
#[derive(Debug)]
pub(super) enum Streams {
    /// A descriptor above 2 for each, or none to keep what is there.
    Files([Option<OwnedFd>; 3]),
    /// A terminal is to be made.
    Terminal(Option<TerminalSize>),
}

pub(super) fn invalid<T>(field: &'static str, reason: impl Into<String>) -> Result<T> {
    Err(Error::InvalidSpec { field, reason: reason.into() })
}

impl Plan {
    /// Whether the process has to wait for what only its creator can do.
    pub(super) fn needs_order(&self) -> bool {
        let asked = self.namespaces.maps.is_some() || !self.net_devices.is_empty() || self.share.is_some();
        // Who has it on the creator's behalf is to be heard first.
        asked || self.namespaces.needs_helper()
    }

    /// Whether it can set itself up while its creator does something else.
    pub(super) fn needs_nobody(&self) -> bool {
        let is_heard = self.hooks.any_before_root || matches!(self.stdio, Streams::Terminal(_));
        !is_heard && self.namespaces.shared_mounts.is_none()
    }

    /// Leaves the network namespace to whoever has the time.
    pub(super) fn postpone_network(&mut self) {
        if !self.net_devices.is_empty() {
            return;
        }
        // Before them the process would only wait for it.
        let is_shown_late = !self.mounts[..self.late_mounts()].iter().any(mounts::Step::shows_network);
        let maker = if is_shown_late && !self.needs_order() { Network::Creator } else { Network::Process };
        self.namespaces.postpone_network(maker);
    }

    /// From which mount on they show the network and the control groups, and nothing follows that could depend on these: so
    /// all that is made in `/dev` need not wait for them.
    pub(super) fn late_mounts(&self) -> usize {
        let late = self.mounts.iter().rev().take_while(|step| step.may_be_late()).count();
        self.mounts.len() - late
    }

    /// What only the creator can do for the new process.
    pub(super) fn serve(&self, pid: Pid) -> Result<()> {
        if let Some(maps) = &self.namespaces.maps {
            maps.write(pid)?;
        }
        net::move_all(&self.net_devices, pid, &self.namespaces)?;
        match &self.share {
            Some(share) => share.apply(pid.as_raw_nonzero().get().cast_unsigned()),
            None => Ok(()),
        }
    }

    /// Reads what another process of a container needs: `process` is its own, all else the container's. What a
    /// container is put together of is left out.
    pub(super) fn joining(spec: &Spec, process: &Process, wishes: &Wishes, stdio: Stdio) -> Result<Self> {
        let mut own = Spec::default();
        let mut linux = Linux::default();
        if let Some(of_container) = spec.linux() {
            linux
                .set_seccomp(of_container.seccomp().clone())
                .set_personality(of_container.personality().clone())
                .set_uid_mappings(of_container.uid_mappings().clone())
                .set_gid_mappings(of_container.gid_mappings().clone())
                .set_namespaces(Some(namespaces::all_new(of_container)))
                .set_devices(None)
                .set_masked_paths(None)
                .set_readonly_paths(None);
        }
        own.set_version(spec.version().clone())
            .set_process(Some(process.clone()))
            .set_linux(Some(linux))
            .set_mounts(None)
            .set_hooks(None)
            .set_hostname(None)
            .set_root(None);
        let bundle = Bundle {
            id: String::new(),
            spec: own,
            root: Root::Dir(PathBuf::from("/")),
            module: None,
            wasm: crate::wasm::Options::default(),
        };
        let mut plan = Self::new(&bundle, stdio, wishes)?;
        plan.affinity = Affinity::plan(process)?;
        Ok(plan)
    }

    /// Reads a bundle.
    pub(super) fn new(bundle: &Bundle, stdio: Stdio, wishes: &Wishes) -> Result<Self> {
        let spec = &bundle.spec;
        let Some(process) = spec.process() else { return invalid("process", "is missing") };
        let Some(linux) = spec.linux() else { return invalid("linux", "is missing") };
        check_versions(spec)?;
        let namespaces = namespaces::namespaces(linux)?;
        let context = Context {
            user_namespace: namespaces.is_mapped(),
            // What is joined is not the new root's to mount.
            new_namespaces: if namespaces.maps.is_some() { namespaces.new } else { namespaces.all() },
            own_groups: namespaces.has(libc::CLONE_NEWCGROUP),
            tty_group: namespaces.maps.as_ref().is_none_or(|maps| Maps::has(&maps.gids, 5)),
        };
        let mut prepared = Preparation {
            maps: namespaces.maps.as_ref(),
            first_groups: wishes.first_groups,
            ..Preparation::default()
        };
        let mounts = spec
            .mounts()
            .iter()
            .flatten()
            .map(|mount| mounts::plan(mount, context, &mut prepared))
            .collect::<Result<Vec<_>>>()?;
        drop(prepared);
        let (filter, agent) = match linux.seccomp() {
            Some(profile) => {
                let filter = Filter::compile(profile)?;
                let container = (bundle.id.as_str(), wishes.bundle.as_path());
                let agent =
                    filter.notifies().then(|| Agent::connect(profile, container, spec)).transpose()?;
                (Some(filter), agent)
            }
            None => (wishes.filter.clone(), None),
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
            ends_with_creator: wishes.ends_with_creator,
            shows_itself: wishes.shows_itself,
            propagation: propagation(linux)?,
            net_devices: net::plan(linux, &namespaces)?,
            share: resctrl::plan(linux, &bundle.id)?,
            tuning: Tuning::plan(process, Some(linux))?,
            agent,
            gate: None,
            own: FileId::of_own_executable(),
            at_once: false,
            is_apart: false,
            waits_for_group: false,
            hooks: inside(spec),
            subject: Subject { version: spec.version().clone(), id: bundle.id.clone(), ..Subject::default() },
            affinity: Affinity::default(),
            preserved: 0,
            moves_root: false,
            keeps_keyring: false,
            filter,
            cwd,
            command: process::command(process, terminal)?,
            namespaces,
        })
    }
}

/// `ociVersion`: any version of the first, and keys of annotations.
fn check_versions(spec: &Spec) -> Result<()> {
    let version = spec.version();
    let mut numbers = version.split(['-', '+']).next().unwrap_or_default().split('.');
    let mut next = || {
        let number = numbers.next()?;
        (!number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())).then_some(number)
    };
    match (next(), next(), next(), numbers.next()) {
        (Some("1"), Some(_), Some(_), None) => {}
        (Some(_), Some(_), Some(_), None) => {
            return invalid("ociVersion", format!("{version} is not supported, only 1.x is"));
        }
        _ => return invalid("ociVersion", format!("\"{version}\" is no version")),
    }
    if spec.annotations().as_ref().is_some_and(|all| all.contains_key("")) {
        return invalid("annotations", "a key is empty");
    }
    Ok(())
}

fn inside(spec: &Spec) -> Inside {
    let Some(hooks) = spec.hooks() else { return Inside::default() };
    let prestart = hooks.prestart();
    let before = [prestart, hooks.create_runtime(), hooks.create_container()];
    // What runs in the container and is given no environment has the program's.
    let env = spec.process().as_ref().and_then(|process| process.env().clone());
    let mut start_container = hooks.start_container().clone().unwrap_or_default();
    for hook in start_container.iter_mut().filter(|hook| hook.env().is_none()) {
        hook.set_env(env.clone());
    }
    Inside {
        any_before_root: before.iter().any(|hooks| hooks.as_ref().is_some_and(|hooks| !hooks.is_empty())),
        create_container: hooks.create_container().clone().unwrap_or_default(),
        start_container,
    }
}

fn propagation(linux: &Linux) -> Result<Option<(u64, bool)>> {
    let name = linux.rootfs_propagation().as_deref().unwrap_or_default();
    if name.is_empty() {
        return Ok(None);
    }
    match mounts::propagation(name) {
        Some(way) => Ok(Some(way)),
        None => invalid(
            "linux.rootfsPropagation",
            format!("{name} is none of shared, slave, private and unbindable"),
        ),
    }
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
        Some(_) if !namespaces.owns(libc::CLONE_NEWUTS) => {
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
