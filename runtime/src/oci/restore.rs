//! `restore`: a container whose processes come out of a folder that `checkpoint` has written.
//!
//! The folder of state and the control groups are made as `create` makes them; then CRIU makes the processes, as children of
//! this one. What fails is undone at once.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use oci_spec::runtime::Spec;
use rustix::process::{getpid, set_child_subreaper};

use super::checkpoint::{DESCRIPTORS, MASK, Wishes, group_names, joined, option};
use super::container::Container;
use super::create::{self, CONSOLE, STATE, send_console, send_process, send_through, subject, write_pid};
use super::criu::{self, Criu, Kind, Message, Notice};
use super::error::{Error, Result};
use super::folder::Folder;
use super::foreground::Started;
use super::load::{self, CONFIG, Loaded};
use crate::cgroup::oci::OciGroup;
use crate::native::restore::{is_bound, make_places, place};
use crate::native::{self, hooks};
use crate::process::start_time;
use crate::small_file;
use crate::task::Task;

/// More than three names of streams need.
const MOST_NAMES: usize = 64 << 10;

/// What `restore` is told.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Id, bundle and the rest, as for a new container.
    pub container: create::Request,
    /// What it has in common with `checkpoint`.
    pub wishes: Wishes,
    /// The caller does not stay.
    pub detach: bool,
    /// This process becomes the parent of orphans, where they need one.
    pub adopts: bool,
    /// A security label, as `TYPE:NAME`.
    pub lsm_profile: Option<String>,
    /// The label of mounts.
    pub lsm_mount_context: Option<String>,
}

/// Brings a container back. It runs.
///
/// # Errors
/// Whatever is wrong with the bundle, the image or this host; nothing is left behind then, but CRIU's log.
pub fn restore(request: &Request) -> Result<Started> {
    let own = &request.container;
    let loaded = load::bundle(&own.bundle)?;
    create::check(own, &loaded.spec, request.detach)?;
    if !request.wishes.images.is_dir() {
        let text = format!("no image of a container in {}", request.wishes.images.display());
        return Err(Error::Invalid(text));
    }
    let folder = Folder::create(&own.root, &own.id)?;
    let container = Container { folder, saved: create::saved(own, &loaded) };
    let mut maker = Maker { container, group: OciGroup::open(&Default::default()), console: None };
    match maker.make(request, &loaded) {
        Ok(task) => {
            maker.container.folder.unlock();
            Ok(Started::new(maker.container, task, maker.console))
        }
        Err(error) => {
            // The first failure is the one to report.
            maker.group.kill_all().ok();
            maker.container.destroy(&maker.group).ok();
            Err(error)
        }
    }
}

struct Maker {
    container: Container,
    group: OciGroup,
    console: Option<OwnedFd>,
}

impl Maker {
    fn make(&mut self, request: &Request, loaded: &Loaded) -> Result<Task> {
        let Loaded { spec, rootfs, text, .. } = loaded;
        self.container.folder.write_new(CONFIG, text)?;
        self.write()?;
        let linux = spec.linux().as_ref();
        let (path, resources) =
            linux.map_or((None, None), |linux| (linux.cgroups_path().clone(), linux.resources().clone()));
        let own = &request.container;
        let (id, systemd, rootless) = (&own.id, own.systemd, own.rootless);
        self.group = OciGroup::create(path.as_deref(), id, resources.as_ref(), systemd, rootless)?;
        make_places(rootfs, spec)?;
        if request.adopts && !self.container.saved.own_processes {
            set_child_subreaper(Some(getpid())).map_err(Error::of("become the parent of orphans"))?;
        }
        let pid = self.ask(request, spec, rootfs)?;
        let task = native::Task::of_child(id, pid).map_err(Error::Start)?;
        if self.container.saved.pid != pid {
            self.known(pid)?;
        }
        if let Some(socket) = &own.pidfd_socket {
            send_process(socket, task.pidfd(), "standard")?;
        }
        if let Some(path) = &own.pid_file {
            write_pid(path, pid)?;
        }
        Ok(Task::Native(task))
    }

    fn ask(&mut self, request: &Request, spec: &Spec, rootfs: &Path) -> Result<u32> {
        let images = criu::make_folder(&request.wishes.images)?;
        let work = criu::make_folder(request.wishes.work())?;
        let mut options = Message::default();
        request.wishes.write(Kind::Restore, &mut options);
        options
            .path(option::ROOT, rootfs)
            .flag(option::EVASIVE_DEVICES, true)
            .flag(option::NOTIFY, true)
            .flag(option::SIBLING, true);
        for (label, number) in
            [(&request.lsm_profile, option::LSM_PROFILE), (&request.lsm_mount_context, option::LSM_MOUNT)]
        {
            if let Some(label) = label {
                options.text(number, label);
            }
        }
        let Self { container, group, console } = self;
        for mount in spec.mounts().iter().flatten().filter(|mount| is_bound(mount)) {
            let source = mount.source().as_deref().unwrap_or(Path::new(""));
            options.pair(option::MOUNT, &place(mount), &container.saved.bundle.join(source));
        }
        options.pair(option::MOUNT, Path::new(MASK), Path::new(MASK));
        for device in ["null", "zero", "full", "random", "urandom", "tty"] {
            let device = Path::new("/dev").join(device);
            options.pair(option::MOUNT, &device, &device);
        }
        let handles = Self::handles(&images, spec, &mut options)?;
        let criu = Criu {
            program: &request.wishes.criu,
            images: &images,
            work: &work,
            root: Some(rootfs),
            handles: &handles,
        };
        // The groups' names are only known when there is a process in them, with systemd.
        let (hooks, about) = (spec.hooks().clone(), container.saved.clone());
        let channel = request.container.console_channel.as_ref();
        let socket = request.container.console_socket.as_ref();
        let born = |pid: u32, options: &mut Message| -> Result<()> {
            group.add(pid, false, false)?;
            container.saved.cgroup_paths = group.saved();
            for (name, folder) in group_names(&container.saved.cgroup_paths) {
                options.pair(option::MOUNT, Path::new(&name), &folder);
            }
            let text = small_file::text(format!("/proc/{pid}/cgroup"));
            let text = text.map_err(Error::of("look for the groups of criu"))?;
            for line in text.lines() {
                if let Some((names, path)) = line.split_once(':').and_then(|(_, rest)| rest.split_once(':')) {
                    options.pair(option::GROUP_ROOT, Path::new(names), Path::new(path));
                }
            }
            Ok(())
        };
        let mut restored = 0;
        let notified = |mut notice: Notice| -> Result<()> {
            match notice.script.as_str() {
                "setup-namespaces" => {
                    let Some(hooks) = &hooks else { return Ok(()) };
                    let subject = subject(&about);
                    for (kind, hooks) in
                        [("prestart", hooks.prestart()), ("createRuntime", hooks.create_runtime())]
                    {
                        let hooks = hooks.as_deref().unwrap_or_default();
                        hooks::run(kind, hooks, &subject.state("creating", notice.pid))
                            .map_err(|why| Error::Start(crate::Error::Hook { why }))?;
                    }
                }
                "post-restore" => restored = notice.pid,
                "orphan-pts-master" => {
                    let Some(master) = notice.handle.take() else { return Ok(()) };
                    match (channel, socket) {
                        (Some(channel), _) => send_through(channel, master.as_fd(), CONSOLE)
                            .map_err(Error::of("hand over the terminal"))?,
                        (None, Some(socket)) => send_console(socket, &master)?,
                        (None, None) => *console = Some(master),
                    }
                }
                _ => {}
            }
            Ok(())
        };
        let pid = criu.ask(Kind::Restore, options, born, notified)?;
        Ok(if pid == 0 { restored } else { pid })
    }

    /// What the container gets of this process: its streams, and the namespaces that it joins.
    fn handles(images: &Path, spec: &Spec, options: &mut Message) -> Result<Vec<OwnedFd>> {
        let path = images.join(DESCRIPTORS);
        let shown = || format!("read {}", path.display());
        let file = fs_err::File::open(&path).map_err(Error::of(shown()))?;
        let text = small_file::content(file.file(), 1024, MOST_NAMES).map_err(Error::of(shown()))?;
        let names: Vec<String> = serde_json::from_slice(&text).map_err(Error::of(shown()))?;
        let mut handles = Vec::new();
        let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
        for (number, (name, stream)) in names.iter().zip(streams).enumerate() {
            let is_theirs = name.starts_with("pipe:[") || name.starts_with("file[");
            // The same pipe twice is one for CRIU, too.
            if is_theirs && !names[..number].contains(name) {
                let copy = stream.try_clone_to_owned().map_err(Error::of("pass a stream on"))?;
                options.inherited(option::INHERIT, name, &copy);
                handles.push(copy);
            }
        }
        for (_, name, path) in joined(spec) {
            let shown = || format!("open the namespace {}", path.display());
            let file = fs_err::File::open(path).map_err(Error::of(shown()))?.into_parts().0;
            let file = OwnedFd::from(file);
            options.inherited(option::INHERIT, name, &file);
            handles.push(file);
        }
        Ok(handles)
    }

    fn known(&mut self, pid: u32) -> Result<()> {
        self.container.saved.pid = pid;
        self.container.saved.started = start_time(pid).unwrap_or(0);
        self.write()
    }

    fn write(&self) -> Result<()> {
        let text = serde_json::to_vec(&self.container.saved).map_err(Error::of("write the state"))?;
        self.container.folder.write(STATE, &text)
    }
}
