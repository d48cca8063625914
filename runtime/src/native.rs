//! The native executor: Linux binaries isolated by namespaces.
//!
//! A bundle is first read into a plan, then one `clone3` makes the container's process in all its namespaces.
//! It sets itself up in a straight line of system calls, reports, waits at a gate, and executes the user's
//! program. No helper program, no thread, no second copy of this one; a user namespace with more than one id
//! is the exception, because only setuid helpers may write its maps.
//!
//! Nothing is mounted in the host's namespace: when the last process is gone, so is everything else. Not done
//! here: cgroups (`linux.resources` and `linux.cgroupsPath` are ignored), image formats, networks, names.
//!
//! Reading order: [`defaults`], `plan`, `child`, `rootfs`, `mounts`, `dev`, `exec`, then [`seccomp`] and [`idmap`].

mod between;
mod child;
pub mod defaults;
mod dev;
mod exec;
mod features;
pub(crate) mod gate;
pub(crate) mod hooks;
pub mod idmap;
pub(crate) mod join;
mod mounts;
mod net;
mod network;
mod paths;
mod plan;
mod report;
mod resctrl;
pub(crate) mod restore;
mod rootfs;
pub mod seccomp;
mod streams;
pub(crate) mod sys;
mod tuning;
pub mod view;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitIdStatus, pidfd_send_signal, waitid};

use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::process::{exit_status, send_to_task, single_threaded};
use crate::signal::Signal;
use crate::stdio::Stdio;
use crate::task::{ExitStatus, Status};

/// The user namespace that another namespace belongs to.
pub(crate) fn owner_of(namespace: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    sys::owner(namespace)
}

/// Whether this process's network namespace belongs to the user namespace it is in, so that its root may change it.
pub fn owns_network() -> bool {
    let open = |path: &str| rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let number = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|found| found.st_ino);
    let of_network = open("/proc/self/ns/net").and_then(|network| sys::owner(network.as_fd()));
    let own = open("/proc/self/ns/user");
    matches!((of_network, own), (Ok(one), Ok(other)) if number(&one).is_ok() && number(&one) == number(&other))
}

/// The first two numbers of the running kernel's version; 0 for what is none.
#[must_use]
pub fn kernel() -> (u32, u32) {
    numbers(&rustix::system::uname().release().to_string_lossy())
}

fn numbers(release: &str) -> (u32, u32) {
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

pub use features::features;
pub(crate) use plan::Wishes;
use plan::{Network, Plan};
pub(crate) use report::FirstGroups;
use report::{Channel, News, Order};
use seccomp::Filter;
use sys::{Birth, Cloned};
pub(crate) use tuning::affinity;

/// Runs Linux binaries in namespaces.
#[derive(Debug, Default)]
pub struct Executor {
    wishes: Wishes,
}

impl Executor {
    /// An executor on this host. A bundle whose specification has no seccomp profile runs without one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with a compiled profile for bundles that have none of their own, so that a start need not carry
    /// and read the 350 names of the default one: see [`Filter::docker_default`].
    #[must_use]
    pub fn with_default_filter(filter: Filter) -> Self {
        Self { wishes: Wishes { filter: Some(filter), ..Wishes::default() } }
    }

    /// The same, with containers that are killed when the calling process ends: nobody runs unsupervised. (A program
    /// that executes a set-user-id one gets out of this; the kernel has it so.)
    #[must_use]
    pub fn ending_with_creator(mut self) -> Self {
        self.wishes.ends_with_creator = true;
        self
    }

    /// The same, with containers whose first process lets programs of its user look at its namespaces while it waits to be
    /// started: for those that make its network. One that joins other containers' namespaces never does.
    #[must_use]
    pub fn showing_itself(mut self) -> Self {
        self.wishes.shows_itself = true;
        self
    }

    /// The same, with [`Executor::create`] back as soon as the process is there: its set-up goes on meanwhile, and what is
    /// wrong with it is told by [`Task::start`]. That it was killed meanwhile is not: [`Task::wait`] tells. One with a
    /// terminal or with hooks is waited for all the same.
    #[must_use]
    pub fn not_waiting(mut self) -> Self {
        self.wishes.not_waiting = true;
        self
    }

    /// The same for bundles that lie in a folder, which seccomp agents are told.
    #[must_use]
    pub fn with_bundle_folder(mut self, folder: std::path::PathBuf) -> Self {
        self.wishes.bundle = folder;
        self
    }

    /// The same with a mount of type `cgroup` that also shows control groups of version 1. It takes as many mounts as the
    /// container has such groups, which its creator tells.
    #[must_use]
    pub(crate) fn showing_first_groups(mut self) -> Self {
        self.wishes.first_groups = true;
        self
    }

    /// See [`crate::Executor::create`]. The calling process must have one thread.
    ///
    /// # Errors
    /// [`Error::InvalidSpec`] for a bundle that cannot be run, [`Error::Host`] for what this host or user lacks,
    /// [`Error::Setup`] when a system call failed. Nothing is left behind.
    pub fn create(&self, bundle: &Bundle, stdio: Stdio) -> Result<Task> {
        self.launch(bundle, stdio, Settings::default(), &mut Plain)
    }

    /// The same with a process that `place` puts into its control group, by its number, before the container has a namespace of
    /// such groups: the root of that is the group its maker is in.
    ///
    /// # Errors
    /// As [`Executor::create`], and what `place` gives.
    pub fn create_in(
        &self,
        bundle: &Bundle,
        stdio: Stdio,
        place: &mut dyn FnMut(u32) -> Result<()>,
    ) -> Result<Task> {
        let settings = Settings { has_group: true, ..Settings::default() };
        self.launch(bundle, stdio, settings, &mut Placing(place))
    }

    /// The same for who has more to say about it.
    pub(crate) fn launch(
        &self,
        bundle: &Bundle,
        stdio: Stdio,
        settings: Settings,
        creator: &mut dyn Creator,
    ) -> Result<Task> {
        let mut plan = Plan::new(bundle, stdio, &self.wishes)?;
        settings.apply(&mut plan);
        plan.is_apart = (plan.at_once || self.wishes.not_waiting) && plan.needs_nobody();
        plan.at_once &= plan.is_apart;
        plan.postpone_network();
        single_threaded()?;
        let (ours, theirs) = Channel::pair().map_err(setup("make a socket pair"))?;
        let (cloned, in_place) = spawn(&plan, creator.birthplace(), &ours, &theirs)?;
        match cloned {
            Cloned::Child => {
                // The end of the creator must be noticed, so its end must not live on here.
                drop(ours);
                creator.leave();
                in_own_process(|| child::run(&plan, theirs))
            }
            Cloned::Parent { pid, pidfd } => {
                drop(theirs);
                // In the parent it would keep the gate from being seen as passed.
                plan.gate = None;
                let mut task = Task::born(bundle.id.clone(), &plan, pid, pidfd, ours);
                // Its own files are the host's, and so are its rights.
                let is_ours = !plan.namespaces.is_mapped() && !plan.namespaces.needs_helper();
                // The process asks for its group first where it has a namespace of groups.
                if !plan.namespaces.cgroup_later {
                    task.connect(&plan)?;
                }
                let groups = creator.born(task.pid(), Birthplace { in_group: in_place, is_ours })?;
                task.guide(&plan, &groups, creator)?;
                Ok(task)
            }
        }
    }
}

/// Runs what never returns to the caller's code, which belongs to the other process; nor may a panic climb into that.
fn in_own_process(body: impl FnOnce() -> std::convert::Infallible) -> ! {
    let _panicked = catch_unwind(AssertUnwindSafe(body));
    sys::exit_now(u8::MAX)
}

/// What the creator of a process does on the way. Nothing has to be.
pub(crate) trait Creator {
    /// In the new process, which must not keep what is the creator's.
    fn leave(&mut self) {}
    /// The folder of the control group (version 2) that the process is to be born in. Asked when all that can be said about
    /// the specification is said.
    fn birthplace(&mut self) -> Option<BorrowedFd<'_>> {
        None
    }
    /// The process is there and has done nothing yet that counts: it can be put into its group and be written down. What
    /// this gives is told the process where it waits for its group.
    fn born(&mut self, pid: u32, place: Birthplace) -> Result<FirstGroups> {
        let _ = (pid, place);
        Ok(FirstGroups::default())
    }
    /// The mounts are there and the host's root is not left yet.
    fn mounted(&mut self, pid: u32) -> Result<()> {
        let _ = pid;
        Ok(())
    }
    /// All is set up; where the creator does not stay, the process goes to its gate when this has returned.
    fn ready(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Where a new process is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Birthplace {
    /// In [`Creator::birthplace`].
    pub(crate) in_group: bool,
    /// It sees its creator's files and has its creator's rights, until it has heard of its group.
    pub(crate) is_ours: bool,
}

/// The creator that only creates.
struct Plain;

impl Creator for Plain {}

/// The one that also knows where the process belongs.
struct Placing<'p>(&'p mut dyn FnMut(u32) -> Result<()>);

impl Creator for Placing<'_> {
    fn born(&mut self, pid: u32, _: Birthplace) -> Result<FirstGroups> {
        (self.0)(pid).map(|()| FirstGroups::default())
    }
}

/// What a specification does not say about a process.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// Where it waits when its creator does not stay.
    pub(crate) gate: Option<gate::Gate>,
    /// The program runs as soon as all is set up, as [`Task::start`] is called next.
    pub(crate) at_once: bool,
    /// [`Creator::born`] puts it into its control group.
    pub(crate) has_group: bool,
    /// The bundle's folder, for hooks.
    pub(crate) bundle: String,
    /// How many descriptors after the standard streams the program gets.
    pub(crate) preserved: u32,
    /// No `pivot_root`.
    pub(crate) moves_root: bool,
    /// No session keyring of its own.
    pub(crate) keeps_keyring: bool,
}

impl Settings {
    fn apply(self, plan: &mut Plan) {
        plan.gate = self.gate;
        plan.at_once = self.at_once;
        plan.waits_for_group = self.has_group;
        plan.subject.bundle = self.bundle;
        plan.preserved = self.preserved;
        plan.moves_root = self.moves_root;
        plan.keeps_keyring = self.keeps_keyring;
        let cgroup = u64::from(libc::CLONE_NEWCGROUP.cast_unsigned());
        if self.has_group && plan.namespaces.new & cgroup != 0 {
            plan.namespaces.cgroup_later = true;
            plan.namespaces.new &= !cgroup;
        }
    }
}

fn setup(action: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| Error::Setup { action: action.to_owned(), source: errno.into() }
}

/// Makes the process, in its control group where it is given one and the kernel lets it: says whether. To be born in a
/// process namespace that exists, this process has to enter it for its children's sake and come back.
fn spawn(
    plan: &Plan,
    group: Option<BorrowedFd<'_>>,
    ours: &Channel,
    theirs: &Channel,
) -> Result<(Cloned, bool)> {
    if plan.namespaces.needs_helper() {
        return Ok((between::spawn(plan, ours, theirs)?, false));
    }
    let made = |cloned: rustix::io::Result<Cloned>| cloned.map_err(setup("make the container's process"));
    let birth = Birth { namespaces: plan.namespaces.new, ..Birth::default() };
    let Some(target) = &plan.namespaces.pid else {
        return match group.map(|group| clone(plan, Birth { group: Some(group), ..birth })) {
            Some(Ok(cloned)) => Ok((cloned, true)),
            // Whatever is wrong with the group will be seen when it is entered the other way.
            _ => Ok((made(clone(plan, birth))?, false)),
        };
    };
    let own = rustix::fs::open("/proc/self/ns/pid", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(setup("open the own process namespace"))?;
    sys::setns(target.as_fd(), libc::CLONE_NEWPID).map_err(setup("join a process namespace"))?;
    let cloned = clone(plan, birth);
    if !matches!(cloned, Ok(Cloned::Child)) {
        sys::setns(own.as_fd(), libc::CLONE_NEWPID).map_err(setup("return to the own process namespace"))?;
    }
    Ok((made(cloned)?, false))
}

fn clone(plan: &Plan, birth: Birth<'_>) -> rustix::io::Result<Cloned> {
    match plan.namespaces.maps {
        Some(_) => idmap::clone_mappable(birth),
        None => sys::clone3(birth),
    }
}

/// Waits for the end of a child and reaps it.
fn wait_for(pidfd: &OwnedFd) -> Result<WaitIdStatus> {
    loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => return Ok(status),
            Ok(None) | Err(Errno::INTR) => {}
            Err(errno) => return Err(setup("wait for the container's process")(errno)),
        }
    }
}

/// A Linux process in its sandbox.
///
/// Dropped before it was started, it is killed and reaped. Dropped later, it goes on running.
#[derive(Debug)]
pub struct Task {
    id: String,
    command: String,
    pid: Pid,
    pidfd: OwnedFd,
    /// Open until the user's program runs.
    gate: Option<Channel>,
    /// It waits for no word to run that.
    at_once: bool,
    /// It has not said yet that it is set up.
    is_apart: bool,
    console: Option<OwnedFd>,
    ended: Option<ExitStatus>,
    /// Keeps the mounts alive, so that the end of the process is known before they are taken apart, which takes
    /// longer than all the rest. Let go in [`Task::delete`].
    mounts: Option<OwnedFd>,
}

impl Task {
    fn born(id: String, plan: &Plan, pid: Pid, pidfd: OwnedFd, gate: Channel) -> Self {
        Self {
            id,
            command: plan.command.name.clone(),
            pid,
            pidfd,
            gate: Some(gate),
            at_once: plan.at_once,
            is_apart: plan.is_apart,
            console: None,
            ended: None,
            mounts: None,
        }
    }

    /// Leads the child through its set-up.
    fn guide(&mut self, plan: &Plan, groups: &FirstGroups, creator: &mut dyn Creator) -> Result<()> {
        plan.serve(self.pid)?;
        if plan.needs_order() {
            self.order(Order::Mapped);
        }
        if plan.is_apart {
            self.mounts = sys::mount_namespace(self.pidfd.as_fd()).ok();
            return self.placed(plan, groups);
        }
        self.guide_joined(plan, groups, creator)?;
        // Not permitted without privilege, and not needed.
        self.mounts = sys::mount_namespace(self.pidfd.as_fd()).ok();
        Ok(())
    }

    /// The same for a process that joins a container.
    fn guide_joined(&mut self, plan: &Plan, groups: &FirstGroups, creator: &mut dyn Creator) -> Result<()> {
        self.placed(plan, groups)?;
        loop {
            let Some(gate) = &self.gate else { return Ok(()) };
            match gate.news().map_err(setup("hear from the container's process"))? {
                News::Console(master) => self.console = Some(master),
                News::Mounted => {
                    creator.mounted(self.pid())?;
                    gate.order(Order::Hooked);
                }
                News::Ready => return creator.ready(),
                News::Failed(failure) => return Err(failure.into_error(&self.command)),
                News::Born { .. } => return Err(setup("hear from the container's process")(Errno::PROTO)),
                News::Closed => return Err(self.died()),
            }
        }
    }

    fn placed(&self, plan: &Plan, groups: &FirstGroups) -> Result<()> {
        if let Some(gate) = self.gate.as_ref().filter(|_| plan.waits_for_group) {
            gate.placed(groups);
        }
        if plan.namespaces.cgroup_later { self.connect(plan) } else { Ok(()) }
    }

    /// Makes its network namespace, where that is left to its creator.
    fn connect(&self, plan: &Plan) -> Result<()> {
        if let Some(gate) = self.gate.as_ref().filter(|_| plan.namespaces.network == Network::Creator) {
            gate.connected(&network::make_apart().map_err(setup("make a network namespace"))?);
        }
        Ok(())
    }

    fn order(&self, order: Order) {
        if let Some(gate) = &self.gate {
            gate.order(order);
        }
    }

    /// Lets it wait at its gate, where it was given one, and go on without this process.
    pub(crate) fn park(mut self) {
        self.order(Order::Park);
        self.gate = None;
    }

    fn died(&mut self) -> Error {
        let how = match self.wait() {
            Ok(status) => format!("the container's process ended during set-up with code {}", status.code()),
            Err(_) => "the container's process ended during set-up".to_owned(),
        };
        Error::Setup { action: "set the container up".to_owned(), source: std::io::Error::other(how) }
    }

    /// A descriptor that becomes readable when the process ends.
    pub fn pidfd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    pub(crate) fn status(&self) -> Status {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let alive = || matches!(waitid(WaitId::PidFd(self.pidfd.as_fd()), options), Ok(None));
        match (&self.ended, &self.gate) {
            (Some(_), _) => Status::Stopped,
            (None, _) if !alive() => Status::Stopped,
            (None, Some(_)) => Status::Created,
            (None, None) => Status::Running,
        }
    }

    pub(crate) fn start(&mut self) -> Result<()> {
        let Some(gate) = self.gate.take() else {
            return Err(Error::InvalidSpec {
                field: "id",
                reason: format!("task {} was started before", self.id),
            });
        };
        if !self.at_once {
            gate.order(Order::Start);
        }
        if self.is_apart {
            gate.wait_for_end().map_err(setup("hear from the container's process"))?;
        }
        let mut news = gate.news();
        if self.is_apart && matches!(news, Ok(News::Ready)) {
            news = gate.news();
        } else if self.is_apart && matches!(news, Ok(News::Closed)) {
            let killed = matches!(self.wait()?, ExitStatus::Signaled(Signal::KILL));
            // Who was not waited for has been shown to others: one of them may end it before its program has begun.
            return if killed && !self.at_once { Ok(()) } else { Err(self.died()) };
        }
        match news {
            // Exec has closed the other end. So has a sudden death, which wait will tell.
            Ok(News::Closed) => Ok(()),
            Ok(News::Failed(failure)) => {
                self.wait()?;
                Err(failure.into_error(&self.command))
            }
            Ok(News::Ready | News::Console(_) | News::Mounted | News::Born { .. }) => {
                Err(setup("hear from the container's process")(Errno::PROTO))
            }
            Err(errno) => Err(setup("hear from the container's process")(errno)),
        }
    }

    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.ended {
            return Ok(status);
        }
        let status = wait_for(&self.pidfd)?;
        let status = exit_status(status.exit_status(), status.terminating_signal());
        self.ended = Some(status);
        Ok(status)
    }

    pub(crate) fn kill(&self, signal: Signal) -> Result<()> {
        if self.ended.is_some() {
            return Err(Error::NotRunning { id: self.id.clone() });
        }
        send_to_task(self.pidfd.as_fd(), (&self.id, self.pid()), signal)
    }

    pub(crate) fn take_console(&mut self) -> Option<OwnedFd> {
        self.console.take()
    }

    /// Ends the process when it still runs. Its mounts and namespaces end with the last process in them.
    pub(crate) fn delete(mut self) -> Result<()> {
        if self.ended.is_none() {
            match self.kill(Signal::KILL) {
                Ok(()) | Err(Error::NotRunning { .. }) => {}
                Err(error) => return Err(error),
            }
            self.wait()?;
        }
        Ok(())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if self.gate.is_some() && self.ended.is_none() {
            // Never started: nobody will ever open the gate. A failure leaves a process that ends by itself,
            // because the gate closes now.
            let _killed = pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
            self.gate = None;
            let _reaped = wait_for(&self.pidfd);
        }
    }
}

#[cfg(test)]
mod tests;
