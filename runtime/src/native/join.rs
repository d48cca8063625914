//! Another process in a container that is there: `exec`.
//!
//! The container is known by its first process, held by a pidfd, and joined by that alone: no path is looked up. The new
//! process is hidden from its first moment, so that who is root in the container cannot trace it, open its descriptors
//! or its executable before it has become the program (CVE-2016-9962, CVE-2019-5736).

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{LinuxNamespaceType, Process, Spec};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, capabilities};

use super::between;
use super::network;
use super::paths::{self, Links};
use super::plan::{Plan, Wishes, invalid, kind_of};
use super::report::{Channel, Doing};
use super::rootfs::enter_tree;
use super::sys::{self, Birth, Cloned};
use super::{Birthplace, Creator, Executor, FirstGroups, Settings, Task, child, in_own_process, setup};
use crate::bundle::Bundle;
use crate::error::Result;
use crate::process::single_threaded;
use crate::stdio::Stdio;

/// A container, by its first process.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    pub(crate) process: BorrowedFd<'a>,
    /// `CLONE_NEW*` of the namespaces that it has of its own.
    kinds: i32,
    /// The user namespace is joined first, as this process has no rights of its own.
    by_its_root: bool,
}

impl<'a> Target<'a> {
    /// A container with this specification and first process.
    pub(crate) fn of(spec: &Spec, process: BorrowedFd<'a>) -> Self {
        let namespaces =
            spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
        let kinds = namespaces.iter().fold(0, |kinds, one| kinds | kind_of(one.typ()));
        let by_its_root = kinds & libc::CLONE_NEWUSER != 0 && !may_join_any();
        Self { process, kinds, by_its_root }
    }

    /// Joins all but the process namespace, in which this process was born.
    pub(super) fn enter(&self) -> rustix::io::Result<()> {
        let done = if self.by_its_root { libc::CLONE_NEWUSER } else { 0 };
        // Who joins a mount namespace is put at the root of that, which is the container's only where the host itself is
        // not below another root (`chroot`): there it is what the host is hidden from. Without a mount namespace of its own
        // the container has nothing but this.
        let root = self.root()?;
        match self.kinds & !libc::CLONE_NEWPID & !done {
            0 => {}
            kinds => sys::setns(self.process, kinds)?,
        }
        enter_tree(&root)
    }

    /// The container's root, by the host's procfs.
    fn root(&self) -> rustix::io::Result<OwnedFd> {
        let pid = self.pid()?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty())?;
        // A number is nobody else's as long as its process is known by it.
        if self.pid()? == pid { Ok(root) } else { Err(Errno::SRCH) }
    }

    /// The number of its first process.
    fn pid(&self) -> rustix::io::Result<u32> {
        let info = format!("/proc/self/fdinfo/{}", self.process.as_raw_fd());
        let info = fs_err::read_to_string(info).map_err(|_| Errno::SRCH)?;
        let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
        pid.filter(|pid| *pid != 0).ok_or(Errno::SRCH)
    }
}

/// Whether this process may join namespaces as it is.
fn may_join_any() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Gives this process the network namespace a specification asks for; for a program that has no others.
pub(crate) fn enter_network(spec: &Spec) -> Result<()> {
    let namespaces =
        spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    let Some(asked) = namespaces.iter().find(|one| one.typ() == LinuxNamespaceType::Network) else {
        return Ok(());
    };
    match asked.path() {
        Some(path) => rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .and_then(|namespace| sys::setns(namespace.as_fd(), libc::CLONE_NEWNET))
            .map_err(setup("join the network namespace")),
        None => network::make().map_err(setup("make a network namespace")),
    }
}

/// Opens a file of a root file system to read it; no link leads out, and nobody is waited for at a pipe.
pub(crate) fn open_in(root: &Path, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty())?;
    paths::open(root.as_fd(), path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, Links::Inside)
}

/// Makes a process in a container, up to its gate. The calling process must have one thread; it is hidden from then on,
/// and its later children are born in the container's process namespace.
///
/// # Errors
/// As of [`super::Executor::create`].
pub(crate) fn join(
    target: &Target<'_>,
    (spec, process): (&Spec, &Process),
    wishes: &Wishes,
    stdio: Stdio,
    settings: Settings,
    creator: &mut dyn Creator,
) -> Result<Task> {
    let mut plan = Plan::joining(spec, process, wishes, stdio)?;
    settings.apply(&mut plan);
    single_threaded()?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(setup("hide this process"))?;
    let (ours, theirs) = Channel::pair().map_err(setup("make a socket pair"))?;
    let (cloned, in_group) = spawn(&plan, target, creator.birthplace(), (&ours, &theirs))?;
    match cloned {
        Cloned::Child => {
            drop(ours);
            creator.leave();
            in_own_process(|| child::run_joined(&plan, target, &theirs))
        }
        Cloned::Parent { pid, pidfd } => {
            drop(theirs);
            let mut task = Task::born(String::new(), &plan, pid, pidfd, ours);
            let place = Birthplace { in_group, is_ours: !target.by_its_root };
            let groups = creator.born(task.pid(), place)?;
            task.guide_joined(&plan, &groups, creator)?;
            Ok(task)
        }
    }
}

/// Makes the process, born in the container's process namespace and, where the kernel lets it, in its control group of
/// version 2: says whether.
fn spawn(
    plan: &Plan,
    target: &Target<'_>,
    group: Option<BorrowedFd<'_>>,
    (ours, theirs): (&Channel, &Channel),
) -> Result<(Cloned, bool)> {
    let join = "join the container's process namespace";
    let pid = target.kinds & libc::CLONE_NEWPID;
    if target.by_its_root {
        // Only who is root in the container's user namespace may join the others, and nobody comes back from there.
        let cloned = between::born_by(ours, theirs, &plan.command.name, || {
            sys::setns(target.process, libc::CLONE_NEWUSER | pid).doing(|| join)?;
            sys::clone3(Birth { sibling: true, ..Birth::default() }).doing(|| "make the process")
        });
        return cloned.map(|cloned| (cloned, false));
    }
    if pid != 0 {
        sys::setns(target.process, pid).map_err(setup(join))?;
    }
    if group.is_some()
        && let Ok(cloned) = sys::clone3(Birth { group, ..Birth::default() })
    {
        return Ok((cloned, true));
    }
    let cloned = sys::clone3(Birth::default()).map_err(setup("make the process"))?;
    Ok((cloned, false))
}

impl Executor {
    /// Makes another process of a bundle that runs: `first` holds its first process, and the bundle's `process` is what
    /// the new one is to be. `place` puts it into its control group.
    ///
    /// # Errors
    /// As of [`Executor::create`].
    pub fn enter(
        &self,
        bundle: &Bundle,
        first: BorrowedFd<'_>,
        stdio: Stdio,
        place: &mut dyn FnMut(u32) -> Result<()>,
    ) -> Result<Task> {
        let Some(process) = bundle.spec.process() else {
            return invalid("process", "is missing");
        };
        let settings = Settings { has_group: true, ..Settings::default() };
        let target = Target::of(&bundle.spec, first);
        join(&target, (&bundle.spec, process), &self.wishes, stdio, settings, &mut Placer(place))
    }
}

struct Placer<'a>(&'a mut dyn FnMut(u32) -> Result<()>);

impl Creator for Placer<'_> {
    fn born(&mut self, pid: u32, _: Birthplace) -> Result<FirstGroups> {
        (self.0)(pid).map(|()| FirstGroups::default())
    }
}
