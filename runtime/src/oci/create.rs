//! `create` and `run`: from a bundle to a process at its gate, written down so that others find it.
//!
//! The order is what makes a crash harmless: first the folder, then what is to be cleaned up, then the process. What fails
//! is undone at once; what is killed in between leaves a folder that `delete --force` understands, and a process that
//! ends by itself because nobody lets it go to its gate.

use std::io::{IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::runtime::{Hooks, LinuxNamespaceType, LinuxResources, Spec};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::container::Container;
use super::error::{Error, Result};
use super::folder::Folder;
use super::load::{self, CONFIG, Loaded};
use super::state::Saved;
use super::time;
use super::wasm::{self, Way};
use crate::bundle::{Bundle, Module, Root};
use crate::cgroup::hosts::Host;
use crate::cgroup::oci::OciGroup;
use crate::native::gate::{self, Gate};
use crate::native::hooks::{self, Subject};
use crate::native::{self, Birthplace, Creator, FirstGroups, Settings};
use crate::process::start_time;
use crate::stdio::{Stdio, TerminalSize};
use crate::task::Task;

/// The file with what there is to know.
pub(super) const STATE: &str = "state.json";

/// What the command line says about a container.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The folder of all containers.
    pub root: PathBuf,
    /// The container's id.
    pub id: String,
    /// Its bundle's folder.
    pub bundle: PathBuf,
    /// Groups are made by systemd.
    pub systemd: bool,
    /// They are, too, where systemd runs and `linux.cgroupsPath` has its form, `x.slice:prefix:name`. Whoever gives such a path means
    /// it, and need not say it a second time.
    pub systemd_by_path: bool,
    /// Missing rights for control groups are no failure.
    pub rootless: bool,
    /// Where the master of its terminal is sent.
    pub console_socket: Option<PathBuf>,
    /// A connected socket that it is sent through instead.
    pub console_channel: Option<Arc<OwnedFd>>,
    /// Where a handle of its process (`pidfd_open(2)`) is sent.
    pub pidfd_socket: Option<PathBuf>,
    /// Where its process's number is written.
    pub pid_file: Option<PathBuf>,
    /// How many descriptors after the standard streams it gets.
    pub preserved: u32,
    /// No `pivot_root`.
    pub no_pivot: bool,
    /// No session keyring of its own.
    pub no_new_keyring: bool,
    /// Where compiled code of Wasm programs is kept, if anywhere.
    pub aot: Option<PathBuf>,
    /// Wasm code that is to be run and is no file of the root file system: the program, then components that it may be
    /// linked with.
    pub modules: Vec<Module>,
    /// Sockets of the caller that are passed on, as systemd counts them.
    pub listen_fds: u32,
}

/// A container that was made and not started.
#[derive(Debug)]
pub struct Made {
    pub(super) container: Container,
    pub(super) task: Task,
    /// The master of its terminal, where it was not sent elsewhere.
    pub console: Option<OwnedFd>,
    pub(super) hooks: Option<Hooks>,
}

/// Creates a container and leaves it at its gate.
///
/// # Errors
/// Whatever is wrong with the bundle or this host; nothing is left behind then.
pub fn create(request: &Request) -> Result<()> {
    let made = make(request, true, || None)?;
    Gate::publish(made.container.folder.as_fd())?;
    made.container.folder.unlock();
    match made.task {
        Task::Native(task) => task.park(),
        // Its own gate lies behind this one.
        mut task => task.start()?,
    }
    Ok(())
}

/// Creates a container whose creator stays. It has to be started next: where nobody is to be told before, it runs already.
/// `size` is asked for one with a terminal.
///
/// # Errors
/// As [`create`].
pub fn make_here(request: &Request, size: fn() -> Option<TerminalSize>) -> Result<Made> {
    make(request, false, size)
}

fn make(request: &Request, leaves: bool, size: fn() -> Option<TerminalSize>) -> Result<Made> {
    let loaded = load::bundle(&request.bundle)?;
    check(request, &loaded.spec, leaves)?;
    let host = Host::of_this_process()?;
    let folder = Folder::create(&request.root, &request.id)?;
    let mut founder = Founder {
        saved: saved(request, &loaded),
        folder: Some(folder),
        host,
        group: OciGroup::none(),
        wanted: None,
        hooks: loaded.spec.hooks().clone(),
    };
    let made = found(&mut founder, request, loaded, leaves, size);
    let Some(folder) = founder.folder else { return Err(Error::NotExist(request.id.clone())) };
    let container = Container { folder, saved: founder.saved };
    match made {
        Ok((task, console)) => Ok(Made { container, task, console, hooks: founder.hooks }),
        Err(error) => {
            // The process is gone already; the first failure is the one to report.
            container.destroy(&founder.group).ok();
            Err(error)
        }
    }
}

fn found(
    founder: &mut Founder,
    request: &Request,
    loaded: Loaded,
    leaves: bool,
    size: fn() -> Option<TerminalSize>,
) -> Result<(Task, Option<OwnedFd>)> {
    let Loaded { bundle, text, mut spec, rootfs } = loaded;
    let is_wasm = !request.modules.is_empty() || wasm::is_wanted(&spec, &rootfs);
    founder.saved.wasm = is_wasm;
    // Its processes are the host's.
    founder.saved.own_processes &= !is_wasm;
    let gate = founder.prepare(&spec, request, &text, leaves)?;
    pass_sockets(&mut spec, request);
    let terminal = spec.process().as_ref().and_then(oci_spec::runtime::Process::terminal).unwrap_or(false);
    let stdio = if terminal { Stdio::Terminal(size()) } else { Stdio::inherit() };
    let settings = Settings {
        gate: None,
        // Where processes can outlive the first one, their new parent is to be found before.
        at_once: !leaves && request.pid_file.is_none() && founder.saved.own_processes,
        has_group: true,
        bundle: bundle.to_string_lossy().into_owned(),
        preserved: request.preserved + request.listen_fds,
        moves_root: request.no_pivot,
        keeps_keyring: request.no_new_keyring,
    };
    let folder = bundle;
    let bundle = Bundle {
        id: request.id.clone(),
        spec,
        root: Root::Dir(rootfs),
        module: request.modules.first().cloned(),
        wasm: wasm::options(&request.modules),
    };
    let mut task = if is_wasm {
        let way = Way { aot: request.aot.clone(), terminal, lasting: leaves, gate };
        Task::Apart(wasm::spawn(bundle, stdio, way, founder)?)
    } else {
        let settings = Settings { gate, ..settings };
        let executor = native::Executor::new().showing_first_groups().with_bundle_folder(folder);
        let made = executor.launch(&bundle, stdio, settings, founder);
        Task::Native(made.map_err(Error::Start)?)
    };
    let mut console = task.take_console();
    if let Some(channel) = &request.console_channel
        && let Some(master) = console.take()
    {
        send_through(channel, master.as_fd(), CONSOLE).map_err(Error::of("hand over the terminal"))?;
    }
    if let (Some(socket), Some(master)) =
        (&request.console_socket, console.take_if(|_| request.console_socket.is_some()))
    {
        send_console(socket, &master)?;
    }
    if let (Some(socket), Some(process)) = (&request.pidfd_socket, task.pidfd()) {
        send_process(socket, process, "standard")?;
    }
    if let Some(path) = &request.pid_file {
        write_pid(path, founder.saved.pid)?;
    }
    Ok((task, console))
}

pub(super) fn check(request: &Request, spec: &Spec, leaves: bool) -> Result<()> {
    let Some(process) = spec.process() else {
        return Err(Error::Invalid("process property must not be empty".to_owned()));
    };
    let terminal = process.terminal().unwrap_or(false);
    match (terminal, leaves, &request.console_socket) {
        (true, true, None) if request.console_channel.is_none() => Err(Error::Invalid(
            "cannot allocate tty if the runtime will detach without setting console socket".to_owned(),
        )),
        (false, _, Some(_)) => Err(Error::Invalid(
            "cannot use console socket if the runtime will not detach or allocate tty".to_owned(),
        )),
        _ => Ok(()),
    }
}

impl Request {
    fn is_for_systemd(&self, spec: &Spec) -> bool {
        let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
        self.systemd || self.systemd_by_path && path.is_some_and(crate::cgroup::systemd::is_of_systemd)
    }
}

pub(super) fn saved(request: &Request, loaded: &Loaded) -> Saved {
    let spec = &loaded.spec;
    let hooks = spec.hooks().as_ref();
    let some = |hooks: Option<&Option<Vec<_>>>| {
        hooks.and_then(Option::as_ref).is_some_and(|hooks| !hooks.is_empty())
    };
    let namespaces =
        spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    let args = spec.process().as_ref().and_then(|process| process.args().as_deref()).unwrap_or_default();
    Saved {
        oci_version: spec.version().clone(),
        id: request.id.clone(),
        bundle: loaded.bundle.clone(),
        rootfs: loaded.rootfs.clone(),
        created: time::now(),
        annotations: spec.annotations().clone(),
        wanted_group: spec.linux().as_ref().and_then(|linux| linux.cgroups_path().clone()),
        systemd: request.is_for_systemd(spec),
        command: args.first().cloned().unwrap_or_default(),
        bare: !request.modules.is_empty(),
        own_processes: namespaces
            .iter()
            .any(|one| one.typ() == LinuxNamespaceType::Pid && one.path().is_none()),
        poststart: some(hooks.map(Hooks::poststart)),
        poststop: some(hooks.map(Hooks::poststop)),
        ..Saved::default()
    }
}

/// systemd's protocol: the sockets come first, and the process is told that they are its own.
fn pass_sockets(spec: &mut Spec, request: &Request) {
    if request.listen_fds == 0 {
        return;
    }
    if let Some(process) = spec.process_mut() {
        let mut env = process.env().clone().unwrap_or_default();
        env.push(format!("LISTEN_FDS={}", request.listen_fds));
        env.push("LISTEN_PID=1".to_owned());
        process.set_env(Some(env));
    }
}

/// Who makes a container.
struct Founder {
    folder: Option<Folder>,
    saved: Saved,
    host: Host,
    group: OciGroup,
    /// What the group is made from, as long as it is not.
    wanted: Option<Wanted>,
    hooks: Option<Hooks>,
}

/// A control group that is not made yet.
struct Wanted {
    path: Option<PathBuf>,
    resources: Option<LinuxResources>,
    rootless: bool,
}

impl Founder {
    /// Everything that has to be there before the process.
    fn prepare(&mut self, spec: &Spec, request: &Request, text: &[u8], leaves: bool) -> Result<Option<Gate>> {
        let linux = spec.linux().as_ref();
        // First what is to be cleaned up, should this process be killed.
        if let Some(folder) = &self.folder {
            folder.write_new(CONFIG, text)?;
        }
        self.write_first()?;
        let path = linux.and_then(|linux| linux.cgroups_path().clone());
        let resources = linux.and_then(|linux| linux.resources().clone());
        let rootless = request.rootless;
        if self.saved.systemd {
            self.group = OciGroup::of_systemd(path.as_deref(), &request.id, resources.as_ref(), rootless)?;
        } else {
            self.wanted = Some(Wanted { path, resources, rootless });
            // Only in version 2 can the process be born in it. The many folders of version 1 are made while the process makes
            // its mounts.
            if self.host.is_unified() {
                self.make_group()?;
            }
        }
        let Some(folder) = &self.folder else { return Ok(None) };
        if leaves {
            return Ok(Some(Gate::make(folder.as_fd())?));
        }
        gate::starting(folder.as_fd())?;
        Ok(None)
    }

    /// Makes the group, unless it is there. Gives what there is of version 1.
    fn make_group(&mut self) -> crate::Result<Vec<(String, PathBuf)>> {
        let Some(Wanted { path, resources, rootless }) = self.wanted.take() else {
            return Ok(self.group.first_folders());
        };
        let (path, id) = (path.as_deref(), &self.saved.id);
        self.group.fill(&self.host, path, id, resources.as_ref(), rootless)?;
        // Who may have no group stays where its creator is.
        Ok(if self.group.is_none() { self.host.own_first() } else { self.group.first_folders() })
    }

    /// Writes the state for the first time. Nobody is told of it by halves: a file without content is none.
    fn write_first(&self) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        folder.write_new(STATE, &self.text()?)
    }

    fn text(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(&self.saved).map_err(Error::of("write the state"))
    }

    fn write(&self) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        folder.write(STATE, &self.text()?)
    }
}

/// An error of this module inside one of the executors.
fn inner(error: Error) -> crate::Error {
    match error {
        Error::Runtime(error) | Error::Start(error) => error,
        other => crate::Error::Setup {
            action: "write the container's state".to_owned(),
            source: std::io::Error::other(other),
        },
    }
}

impl Creator for Founder {
    fn leave(&mut self) {
        self.folder = None;
    }

    fn birthplace(&mut self) -> Option<BorrowedFd<'_>> {
        if let Some(Wanted { path, rootless, .. }) = &self.wanted {
            let begun = OciGroup::begin_in(&self.host, path.as_deref(), &self.saved.id, *rootless);
            // Without a process namespace, who ends it has to find its processes in as many ways as there are.
            self.group = if self.saved.own_processes { begun.lean() } else { begun };
        }
        self.group.clone_into()
    }

    fn born(&mut self, pid: u32, place: Birthplace) -> crate::Result<FirstGroups> {
        let mut folders = self.make_group()?;
        let by_systemd = self.group.is_of_systemd();
        let enters = place.is_ours && !by_systemd && !self.group.is_none();
        self.group.add(pid, place.in_group, enters)?;
        if by_systemd {
            // Only now has it said where it is.
            folders = self.group.first_folders();
        }
        self.saved.cgroup_paths = self.group.saved();
        self.saved.pid = pid;
        self.saved.started = start_time(pid).unwrap_or(0);
        self.write().map_err(inner)?;
        Ok(FirstGroups { folders, enters })
    }

    fn mounted(&mut self, pid: u32) -> crate::Result<()> {
        let Some(hooks) = &self.hooks else { return Ok(()) };
        let subject = subject(&self.saved);
        // The older kind was once run after the creation, and is still told so.
        let prestart = ("prestart", hooks.prestart(), "created");
        for (kind, hooks, status) in [prestart, ("createRuntime", hooks.create_runtime(), "creating")] {
            hooks::run(kind, hooks.as_deref().unwrap_or_default(), &subject.state(status, pid))
                .map_err(|why| crate::Error::Hook { why })?;
        }
        Ok(())
    }
}

/// What hooks are told about a container.
pub(super) fn subject(saved: &Saved) -> Subject {
    Subject {
        version: saved.oci_version.clone(),
        id: saved.id.clone(),
        bundle: saved.bundle.to_string_lossy().into_owned(),
        annotations: saved.annotations.clone(),
    }
}

/// Hands the master of a terminal to whoever listens there, under the name it has always had.
pub(super) fn send_console(socket: &Path, master: &OwnedFd) -> Result<()> {
    send_handle(socket, master.as_fd(), CONSOLE)
        .map_err(Error::of(format!("send the terminal to {}", socket.display())))
}

/// Hands a process to whoever listens there; `kind` is runc's word for the container's first one (`standard`) or one that
/// joined it (`setns`).
pub(super) fn send_process(socket: &Path, process: BorrowedFd<'_>, kind: &str) -> Result<()> {
    send_handle(socket, process, kind).map_err(Error::of(format!("send the process to {}", socket.display())))
}

/// A terminal's name.
pub(super) const CONSOLE: &str = "/dev/ptmx";

fn send_handle(socket: &Path, handle: BorrowedFd<'_>, name: &str) -> std::io::Result<()> {
    send_through(&UnixStream::connect(socket)?, handle, name)
}

pub(super) fn send_through(socket: impl AsFd, handle: BorrowedFd<'_>, name: &str) -> std::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let handles = [handle];
    control.push(SendAncillaryMessage::ScmRights(&handles));
    sendmsg(socket, &[IoSlice::new(name.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Whole or not at all.
pub(super) fn write_pid(path: &Path, pid: u32) -> Result<()> {
    let shown = || format!("write {}", path.display());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = path.with_file_name(format!(".{name}"));
    let mut file = fs_err::File::create(&draft).map_err(Error::of(shown()))?;
    write!(file, "{pid}").and_then(|()| fs_err::rename(&draft, path)).map_err(Error::of(shown()))
}
