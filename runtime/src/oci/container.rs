//! A container that is there: asked about, started, signalled, paused, deleted.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use oci_spec::runtime::{Hook, Hooks, LinuxResources, Spec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::create::{STATE, subject};
use super::error::{Error, Result};
use super::folder::Folder;
use super::load::{self, CONFIG};
use super::state::{Saved, Shown, Status};
use crate::cgroup::oci::OciGroup;
use crate::cgroup::oci::stats::Stats;
use crate::cgroup::oom::OutOfMemory;
use crate::native::gate::{self, Progress};
use crate::native::hooks;
use crate::process::{send, start_time};
use crate::signal::Signal;

/// How long a killed process is waited for.
pub(super) const LONGEST_END: Duration = Duration::from_secs(10);

/// A container, by its folder.
#[derive(Debug)]
pub struct Container {
    pub(super) folder: Folder,
    pub(super) saved: Saved,
}

impl Container {
    /// Finds one.
    ///
    /// # Errors
    /// [`Error::NotExist`] also for one that never came to anything.
    pub fn open(root: &Path, id: &str) -> Result<Self> {
        let folder = Folder::open(root, id)?;
        let saved = read(&folder)?.ok_or_else(|| Error::NotExist(id.to_owned()))?;
        Ok(Self { folder, saved })
    }

    /// Finds one to change it; others wait.
    pub(super) fn lock(&mut self) -> Result<()> {
        self.folder.lock()?;
        self.saved = read(&self.folder)?.ok_or_else(|| Error::NotExist(self.saved.id.clone()))?;
        Ok(())
    }

    /// What was written down.
    pub fn saved(&self) -> &Saved {
        &self.saved
    }

    pub(super) fn group(&self) -> OciGroup {
        OciGroup::open(&self.saved.cgroup_paths)
    }

    /// Its state now.
    pub fn status(&self) -> Status {
        let saved = &self.saved;
        if saved.pid == 0 {
            return if self.folder.is_locked() { Status::Creating } else { Status::Stopped };
        }
        if start_time(saved.pid) != Some(saved.started) {
            return Status::Stopped;
        }
        match gate::progress(self.folder.as_fd()) {
            Progress::Creating => Status::Creating,
            // Whoever kills it, or looks into it, between the gate and the program finds what is not the program.
            Progress::Waiting | Progress::Starting => Status::Created,
            Progress::Passed if self.group().is_frozen() => Status::Paused,
            Progress::Passed => Status::Running,
        }
    }

    /// As the command line shows it.
    pub fn shown(&self, owner: String) -> Shown {
        self.saved.shown(self.status(), owner)
    }

    /// The specification it was created with.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn spec(&self) -> Result<Spec> {
        let text = self.folder.read(CONFIG)?.ok_or_else(|| Error::NotExist(self.saved.id.clone()))?;
        load::spec(&self.saved.bundle.join(CONFIG), &text)
    }

    /// Its first process, held; `None` when that has ended.
    pub(super) fn process(&self) -> Result<Option<OwnedFd>> {
        let Some(pid) = i32::try_from(self.saved.pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        let process = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Ok(None),
            process => process.map_err(Error::of(format!("hold process {}", self.saved.pid)))?,
        };
        // Asked while it is held.
        Ok((start_time(self.saved.pid) == Some(self.saved.started)).then_some(process))
    }

    /// Lets the program run.
    ///
    /// # Errors
    /// When it runs or ran already; when it cannot be executed.
    pub fn start(&mut self) -> Result<Vec<String>> {
        self.lock()?;
        let id = || self.saved.id.clone();
        match self.status() {
            Status::Created => {}
            Status::Stopped => return Err(Error::AlreadyStopped(id())),
            _ => return Err(Error::AlreadyRunning(id())),
        }
        if !gate::open(self.folder.as_fd(), &self.saved.command).map_err(Error::Start)? {
            return Err(Error::AlreadyStopped(id()));
        }
        if !self.saved.poststart {
            return Ok(Vec::new());
        }
        let hooks = self.spec()?.hooks().clone();
        self.started(hooks.as_ref())
    }

    /// Runs the hooks for after the start.
    pub(super) fn started(&self, hooks: Option<&Hooks>) -> Result<Vec<String>> {
        let all: &[Hook] = hooks.and_then(|hooks| hooks.poststart().as_deref()).unwrap_or_default();
        let state = subject(&self.saved).state("running", self.saved.pid);
        Ok(hooks::run_all("poststart", all, &state))
    }

    /// Sends a signal to its first process, or to all.
    ///
    /// # Errors
    /// [`Error::NotRunning`] when its first process has ended; for all, when there is none left.
    pub fn kill(&self, signal: Signal, all: bool) -> Result<()> {
        let gone = || Error::NotRunning(self.saved.id.clone());
        if all {
            let mut sent = false;
            for pid in self.group().pids()? {
                sent |= send_to(pid, signal)?;
            }
            return if sent { Ok(()) } else { Err(gone()) };
        }
        let process = self.process()?.ok_or_else(gone)?;
        let sent = send(process.as_fd(), signal);
        match sent {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(gone()),
            sent => sent.map_err(Error::of(format!("send {signal} to container {}", self.saved.id))),
        }
    }

    /// The numbers of its processes, as the host counts.
    ///
    /// # Errors
    /// When its control group cannot be read.
    pub fn pids(&self) -> Result<Vec<u32>> {
        Ok(self.group().pids()?)
    }

    /// Lets all its processes stand still.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&mut self) -> Result<()> {
        self.lock()?;
        match self.status() {
            Status::Running | Status::Created => Ok(self.group().freeze()?),
            Status::Paused => Err(Error::Paused(self.saved.id.clone())),
            _ => Err(Error::NotRunning(self.saved.id.clone())),
        }
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// When it is not paused.
    pub fn resume(&mut self) -> Result<()> {
        self.lock()?;
        match self.status() {
            Status::Paused => Ok(self.group().thaw()?),
            _ => Err(Error::NotPaused(self.saved.id.clone())),
        }
    }

    /// Changes its limits. What is zero stays as it is, as with other runtimes: callers send that for what they do not
    /// change.
    ///
    /// # Errors
    /// When it has ended, or the kernel refuses a value.
    pub fn update(&mut self, resources: &LinuxResources) -> Result<()> {
        self.lock()?;
        match self.status() {
            Status::Stopped => Err(Error::NotRunning(self.saved.id.clone())),
            _ => {
                let resources = without_zeros(resources)?;
                let mut group = self.group();
                let completed = group.complete(self.saved.wanted_group.as_deref(), &self.saved.id);
                // Also of what was made before something failed it is known that it is there.
                self.saved.cgroup_paths = group.saved();
                if !matches!(completed, Ok(false)) {
                    let text = serde_json::to_vec(&self.saved).map_err(Error::of("write the state"))?;
                    self.folder.write(STATE, &text)?;
                }
                completed?;
                Ok(group.update(&resources)?)
            }
        }
    }

    /// A watch on its memory: it says when the kernel has killed one of its processes for lack of it.
    ///
    /// # Errors
    /// When it has no control of memory.
    pub fn watch_memory(&self) -> Result<OutOfMemory> {
        Ok(self.group().watch_memory()?)
    }

    /// What it uses, as runc's `events` shows it.
    pub fn stats(&self) -> Stats {
        self.group().stats()
    }

    /// Removes it; gives what hooks had to complain about.
    ///
    /// # Errors
    /// [`Error::StillRunning`] unless by force.
    pub fn delete(mut self, force: bool) -> Result<Vec<String>> {
        if force && let Some(process) = self.process()? {
            // Who waits for it to start, or for its hooks, holds the lock as long as it lives.
            send(process.as_fd(), Signal::KILL).ok();
        }
        self.lock()?;
        let status = self.status();
        match status {
            Status::Stopped | Status::Created => {}
            _ if force => {}
            _ => return Err(Error::StillRunning { id: self.saved.id.clone(), status: status.name() }),
        }
        let group = if self.saved.pid == 0 { self.unwritten_group()? } else { self.group() };
        if status != Status::Stopped {
            self.end(&group, status)?;
        }
        self.destroy(&group)
    }

    /// The same for one whose first process was this process's, and has ended: what was written down when it was made has not
    /// changed.
    pub(super) fn remove_ended(self) -> Result<Vec<String>> {
        self.folder.lock()?;
        let group = self.group();
        self.destroy(&group)
    }

    /// The group of a container whose creator was killed before it had a process: found by making it again.
    fn unwritten_group(&self) -> Result<OciGroup> {
        let saved = &self.saved;
        if saved.systemd {
            // systemd makes none without a process.
            return Ok(self.group());
        }
        Ok(OciGroup::create(saved.wanted_group.as_deref(), &saved.id, None, false, true)?)
    }

    /// Kills its first process and waits until it is gone.
    fn end(&self, group: &OciGroup, status: Status) -> Result<()> {
        let Some(process) = self.process()? else { return Ok(()) };
        match send(process.as_fd(), Signal::KILL) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                return Err(Error::of(format!("kill container {}", self.saved.id))(error));
            }
            _ => {}
        }
        if status == Status::Paused {
            // Version 1 lets nobody die who stands still.
            group.thaw()?;
        }
        if ends(&process, LONGEST_END)? {
            Ok(())
        } else {
            Err(Error::Invalid(format!("container init still running: {}", self.saved.id)))
        }
    }

    /// Removes everything that is left of a container whose first process is gone.
    pub(super) fn destroy(self, group: &OciGroup) -> Result<Vec<String>> {
        // Without a process namespace of its own there may be others.
        if !self.saved.own_processes {
            group.kill_all()?;
        }
        group.remove()?;
        let hooks = if self.saved.poststop { self.spec()?.hooks().clone() } else { None };
        let Self { folder, saved } = self;
        folder.remove(&[STATE, CONFIG])?;
        let all = hooks.as_ref().and_then(|hooks| hooks.poststop().as_deref()).unwrap_or_default();
        Ok(hooks::run_all("poststop", all, &subject(&saved).state("stopped", 0)))
    }
}

/// Removes what a `create` that was killed has left, when that is all there is.
///
/// # Errors
/// When it cannot be removed.
pub fn remove_remains(root: &Path, id: &str) -> Result<()> {
    let folder = match Folder::open(root, id) {
        Err(Error::NotExist(_)) => return Ok(()),
        folder => folder?,
    };
    match folder.lock() {
        Err(Error::NotExist(_)) => return Ok(()),
        locked => locked?,
    }
    if read(&folder)?.is_none() { folder.remove(&[]) } else { Ok(()) }
}

/// Resources without the values that mean nothing is to be changed.
fn without_zeros(resources: &LinuxResources) -> Result<LinuxResources> {
    let shown = "read the resources";
    let mut all = serde_json::to_value(resources).map_err(Error::of(shown))?;
    for part in ["memory", "cpu", "pids", "blockIO"] {
        if let Some(values) = all.get_mut(part).and_then(serde_json::Value::as_object_mut) {
            // To be idle or not is a choice between two numbers.
            values.retain(|name, value| name == "idle" || *value != 0);
        }
    }
    if all["pids"].as_object().is_some_and(serde_json::Map::is_empty) {
        all["pids"] = serde_json::Value::Null;
    }
    serde_json::from_value(all).map_err(Error::of(shown))
}

fn read(folder: &Folder) -> Result<Option<Saved>> {
    let Some(text) = folder.read(STATE)?.filter(|text| !text.is_empty()) else { return Ok(None) };
    let saved = serde_json::from_slice(&text);
    saved.map(Some).map_err(Error::of(format!("read the state of container {}", folder.id())))
}

/// Waits for the end of a process that is no child.
pub(super) fn ends(process: &OwnedFd, limit: Duration) -> Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&left)) {
            Err(Errno::INTR) => {}
            count => return Ok(count.map_err(Error::of("wait for the container's end"))? > 0),
        }
    }
}

/// Sends a signal to a process that may be gone; `false` then.
fn send_to(pid: u32, signal: Signal) -> Result<bool> {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(false) };
    let sent = match pidfd_open(number, PidfdFlags::empty()) {
        Ok(process) => send(process.as_fd(), signal),
        Err(errno) => Err(errno.into()),
    };
    match sent {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
        Err(error) => Err(Error::of(format!("send {signal} to process {pid}"))(error)),
    }
}
