//! The container's first process, from its birth to the user's program: one straight line of steps.
//!
//! It is a copy of a process with one thread, so allocating is safe; it ends by exec or by reporting why not.
//! The order is what keeps it safe: the host is left before anything of the image is trusted, privileges go
//! before the gate opens, and the program is looked for with the rights the specification gives it: its user and
//! groups, and its effective capabilities, which must be none where a user other than root shall have none.

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, fchdir, getcwd, getrlimit, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit, setsid, umask,
};
use rustix::system::{setdomainname, sethostname};
use rustix::thread::{
    CapabilitySet, capabilities, set_capabilities, set_keep_capabilities, set_no_new_privs,
};

use crate::native::dev::{self, Terminal};
use crate::native::exec;
use crate::native::gate::Gate;
use crate::native::hooks;
use crate::native::idmap;
use crate::native::join::Target;
use crate::native::mounts;
use crate::native::net;
use crate::native::network;
use crate::native::paths::{self, Kind, Links};
use crate::native::plan::{Network, Plan, Streams, User};
use crate::native::report::{Channel, Doing, Failure, FirstGroups, Order};
use crate::native::rootfs::{self, Masks, Root};
use crate::native::streams;
use crate::native::sys::{self, tune};

/// The exit code when it did not come to the user's program; the creator knows the reason from the channel.
const FAILED: u8 = 1;

/// What has to be looked up while `/proc` is the host's.
struct Outside {
    /// Where the security module takes a label.
    label: Option<OwnedFd>,
    /// This process as the host counts; only for a seccomp agent.
    pid: u32,
}

impl Outside {
    fn look(plan: &Plan) -> Result<Self, Failure> {
        let pid = match plan.agent {
            Some(_) => own_pid().doing(|| "read /proc/self")?,
            None => 0,
        };
        Ok(Self { label: plan.tuning.open_label()?, pid })
    }
}

/// By the procfs that is mounted, whatever namespace this process is in.
fn own_pid() -> rustix::io::Result<u32> {
    let text = rustix::fs::readlink("/proc/self", Vec::new())?;
    text.to_str().ok().and_then(|pid| pid.parse().ok()).ok_or(Errno::SRCH)
}

/// Does everything; never returns to the code of the process it was copied from.
pub(super) fn run(plan: &Plan, channel: Channel) -> ! {
    let prepared =
        Outside::look(plan).and_then(|outside| prepare(plan, &channel, &outside).map(|()| outside));
    let failure = match prepared {
        Ok(outside) => match &plan.gate {
            None if plan.at_once || channel.wait_for(Order::Start) => finish(plan, &outside, Some(&channel)),
            None => sys::exit_now(FAILED),
            Some(gate) => pass(plan, channel, gate, &outside),
        },
        Err(failure) => failure,
    };
    channel.failed(&failure);
    sys::exit_now(FAILED)
}

/// The same for another process of a container that is there.
pub(super) fn run_joined(plan: &Plan, target: &Target<'_>, channel: &Channel) -> ! {
    let prepared = Outside::look(plan).and_then(|outside| enter(plan, target, channel).map(|()| outside));
    let failure = match prepared {
        Ok(outside) if channel.wait_for(Order::Start) => finish(plan, &outside, Some(channel)),
        Ok(_) => sys::exit_now(FAILED),
        Err(failure) => failure,
    };
    channel.failed(&failure);
    sys::exit_now(FAILED)
}

/// Up to the gate, into a container that is there. Nobody in it may look into this process meanwhile: it was made by one
/// that is hidden, and stays so until exec.
fn enter(plan: &Plan, target: &Target<'_>, channel: &Channel) -> Result<(), Failure> {
    streams::close_at_exec(plan.preserved).doing(|| "close descriptors at exec")?;
    sys::reset_signals();
    if let Some(value) = plan.oom_score_adj {
        set_oom_score_adj(value)?;
    }
    plan.affinity.begin()?;
    placed(plan, channel)?;
    plan.affinity.end()?;
    target.enter().doing(|| "join the container's namespaces")?;
    if let Some(maps) = &plan.namespaces.maps {
        idmap::enter(maps, plan.namespaces.may_set_groups).doing(|| "become root of the user namespace")?;
    }
    // A change of ids may have made it visible.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).doing(|| "hide this process")?;
    setsid().doing(|| "start a session")?;
    umask(Mode::empty());
    new_keyring(plan)?;
    plan.tuning.apply()?;
    let terminal = match plan.stdio {
        Streams::Terminal(size) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = rustix::fs::open("/", flags, Mode::empty()).doing(|| "open the container's root")?;
            Some(Terminal::allocate(root.as_fd(), size, plan.user.uid)?)
        }
        Streams::Files(_) => None,
    };
    become_program(plan, channel, terminal)?;
    exec::look_for(&plan.command, plan.own)?;
    channel.ready()
}

/// From a process in the container's world to the program's user, streams and limits.
fn become_program(plan: &Plan, channel: &Channel, terminal: Option<Terminal>) -> Result<(), Failure> {
    for (resource, limit) in &plan.rlimits {
        limit_resource(*resource, *limit)?;
    }
    if let Some(terminal) = &terminal {
        channel.console(&terminal.master)?;
    }
    streams::connect(plan, terminal.as_ref().map(|terminal| &terminal.slave))?;
    // The creator has its own by now.
    drop(terminal);
    enter_cwd(plan)?;
    // Without no-new-privileges a filter needs one, which exec takes away.
    let keep =
        if plan.filter.is_some() && !plan.no_new_privileges { CapabilitySet::SYS_ADMIN.bits() } else { 0 };
    become_user(&plan.user, plan.namespaces.may_set_groups, keep)?;
    check_cwd(plan)?;
    umask(Mode::from_raw_mode(plan.user.umask));
    if plan.no_new_privileges {
        set_no_new_privs(true).doing(|| "give up new privileges")?;
    }
    Ok(())
}

/// Waits at a gate that the creator has left; the reason of a failure is told there.
fn pass(plan: &Plan, channel: Channel, gate: &Gate, outside: &Outside) -> ! {
    // A creator that died before it had written everything down leaves a container that nobody knows.
    if channel.wait_for(Order::Park) {
        drop(channel);
        if gate.wait() {
            gate.failed(&finish(plan, outside, None));
        }
    }
    sys::exit_now(FAILED)
}

/// Up to the gate.
fn prepare(plan: &Plan, channel: &Channel, outside: &Outside) -> Result<(), Failure> {
    streams::close_at_exec(plan.preserved).doing(|| "close descriptors at exec")?;
    sys::reset_signals();
    if plan.needs_order() && !channel.wait_for(Order::Mapped) {
        sys::exit_now(FAILED);
    }
    // Before the change of ids, with which the files of this process become the host's root's.
    if let (Some(offsets), false) = (&plan.namespaces.clocks, plan.namespaces.sets_clocks_early()) {
        set_clocks(offsets)?;
    }
    if let Some(maps) = &plan.namespaces.maps {
        idmap::enter(maps, plan.namespaces.may_set_groups).doing(|| "become root of the user namespace")?;
    } else if plan.namespaces.is_mapped() {
        idmap::enter_joined().doing(|| "become root of the user namespace")?;
    }
    if let Some(value) = plan.oom_score_adj {
        set_oom_score_adj(value)?;
    }
    // From here on nobody without privilege may look into this process; exec makes the new program visible.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).doing(|| "hide this process")?;
    let mut groups = None;
    if plan.namespaces.cgroup_later {
        groups = Some(placed(plan, channel)?);
        // Not at birth: its root is the group the process is in.
        tune::unshare(libc::CLONE_NEWCGROUP).doing(|| "make a namespace of control groups")?;
    }
    for (fd, kind) in &plan.namespaces.join {
        sys::setns(fd.as_fd(), *kind).doing(|| "join a namespace")?;
    }
    setsid().doing(|| "start a session")?;
    umask(Mode::empty());
    new_keyring(plan)?;
    plan.tuning.apply()?;
    let terminal = file_system(plan, channel, groups)?;
    host_and_network(plan)?;
    become_program(plan, channel, terminal)?;
    if plan.gate.is_some() {
        // Later nobody would be there to be told.
        exec::look_for(&plan.command, plan.own)?;
        // Who hears of its calls is told while the creator is there, as other runtimes do.
        if plan.agent.is_some() {
            install_filter(plan, outside)?;
        }
    }
    if plan.shows_itself && plan.namespaces.join.is_empty() {
        set_dumpable_behavior(DumpableBehavior::Dumpable).doing(|| "show this process")?;
    }
    channel.ready()
}

/// Waits until this process can be in its control group, and sees to it that it is.
fn placed(plan: &Plan, channel: &Channel) -> Result<FirstGroups, Failure> {
    if !plan.waits_for_group {
        return Ok(FirstGroups::default());
    }
    let Some(groups) = channel.wait_until_placed() else { sys::exit_now(FAILED) };
    for (_, folder) in groups.folders.iter().filter(|_| groups.enters) {
        // Not `cgroup.procs`: a whole process is moved under the lock that this is about. This one has one thread.
        let file = folder.join("tasks");
        rustix::fs::open(&file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            .and_then(|tasks| rustix::io::write(&tasks, b"0").map(|_| paths::leave(tasks)))
            .doing(|| format!("enter the control group {}", folder.display()))?;
    }
    Ok(groups)
}

fn new_keyring(plan: &Plan) -> Result<(), Failure> {
    if plan.keeps_keyring {
        return Ok(());
    }
    match sys::new_session_keyring() {
        // A kernel without keys, or a filter around us that hides them.
        Ok(()) | Err(Errno::NOSYS | Errno::PERM) => Ok(()),
        Err(errno) => Err(errno).doing(|| "start a session keyring"),
    }
}

/// Behind the gate; comes back only when it did not work.
fn finish(plan: &Plan, outside: &Outside, channel: Option<&Channel>) -> Failure {
    // After the last change of credentials, which would undo it.
    if plan.ends_with_creator
        && let Err(failure) =
            set_parent_process_death_signal(Some(Signal::KILL)).doing(|| "tie the process to its creator")
    {
        return failure;
    }
    // It may have said its last word long ago.
    if plan.ends_with_creator && channel.is_some_and(Channel::is_alone) {
        sys::exit_now(FAILED);
    }
    if !plan.hooks.start_container.is_empty() {
        let state = plan.subject.state("created", std::process::id());
        if let Err(why) = hooks::run("startContainer", &plan.hooks.start_container, &state) {
            return Failure::Hook(why);
        }
    }
    if let Err(failure) = plan.tuning.write_label(outside.label.as_ref()) {
        return failure;
    }
    // The filter comes last, so that what it forbids is only forbidden to the program.
    exec::execute(&plan.command, plan.own, || {
        if plan.gate.is_some() && plan.agent.is_some() { Ok(()) } else { install_filter(plan, outside) }
    })
}

fn install_filter(plan: &Plan, outside: &Outside) -> Result<(), Failure> {
    let Some(filter) = &plan.filter else { return Ok(()) };
    let listener = filter.install().doing(|| "install the seccomp filter")?;
    match (listener, &plan.agent) {
        (Some(listener), Some(agent)) => {
            agent.hand_over(&listener, outside.pid).doing(|| "hand the listener over to the seccomp agent")
        }
        _ => Ok(()),
    }
}

/// A new time namespace, which the program executed is the first one in.
fn set_clocks(offsets: &str) -> Result<(), Failure> {
    tune::unshare(libc::CLONE_NEWTIME).doing(|| "make a time namespace")?;
    write_clocks(offsets)
}

/// Through the host's procfs.
pub(super) fn write_clocks(offsets: &str) -> Result<(), Failure> {
    if offsets.is_empty() {
        return Ok(());
    }
    let shown = || "write /proc/self/timens_offsets";
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open("/proc/self/timens_offsets", flags, Mode::empty()).doing(shown)?;
    rustix::io::write(&file, offsets.as_bytes()).map(drop).doing(shown)
}

/// What mounts may show, as far as the process has it.
struct Mounting<'a> {
    plan: &'a Plan,
    channel: &'a Channel,
    root: &'a Root,
    /// What was taken from the host's mounts before they were left, with the step that mounts it.
    peers: Vec<(usize, OwnedFd)>,
    groups: Option<FirstGroups>,
    is_connected: bool,
}

impl Mounting<'_> {
    /// Takes these steps, and waits for what they show.
    fn run(&mut self, steps: Range<usize>) -> Result<(), Failure> {
        // Until its group matters, this process goes on while the creator makes it.
        let nothing = FirstGroups::default();
        for (at, step) in self.plan.mounts[..steps.end].iter().enumerate().skip(steps.start) {
            if step.shows_network() || step.shows_groups() {
                self.connect()?;
            }
            if step.shows_groups() {
                self.place()?;
            }
            let peer = self.peers.iter().find(|(other, _)| *other == at).map(|(_, tree)| tree);
            step.run(self.root.as_fd(), self.plan.context, peer, self.groups.as_ref().unwrap_or(&nothing))?;
        }
        Ok(())
    }

    /// Waits for its group, unless it has.
    fn place(&mut self) -> Result<(), Failure> {
        if self.groups.is_none() {
            self.groups = Some(placed(self.plan, self.channel)?);
        }
        Ok(())
    }

    /// Sees to it that it is in its network namespace.
    fn connect(&mut self) -> Result<(), Failure> {
        if std::mem::replace(&mut self.is_connected, true) {
            return Ok(());
        }
        match self.plan.namespaces.network {
            Network::AtBirth => Ok(()),
            Network::Process => network::make().doing(|| "make a network namespace"),
            Network::Creator => {
                let Some(made) = self.channel.wait_until_connected() else { sys::exit_now(FAILED) };
                sys::setns(made.as_fd(), libc::CLONE_NEWNET).doing(|| "join the network namespace")?;
                paths::leave(made);
                Ok(())
            }
        }
    }
}

/// The container's whole tree, then into it.
fn file_system(
    plan: &Plan,
    channel: &Channel,
    groups: Option<FirstGroups>,
) -> Result<Option<Terminal>, Failure> {
    let mut peers = Vec::new();
    for (at, step) in plan.mounts.iter().enumerate() {
        peers.extend(step.take_peer()?.map(|tree| (at, tree)));
    }
    let root = Root::mount(&plan.root, plan.context.user_namespace, plan.propagation)?;
    let mut mounting = Mounting { plan, channel, root: &root, peers, groups, is_connected: false };
    let late = plan.late_mounts();
    mounting.run(0..late)?;
    let dev = dev::open_dev(root.as_fd())?;
    if !plan.mounts.iter().any(mounts::Step::is_bound_dev) {
        dev::fill(root.as_fd(), &dev, &plan.devices, plan.context.user_namespace)?;
    }
    let terminal = match plan.stdio {
        Streams::Terminal(size) => Some(Terminal::open(root.as_fd(), &dev, size, plan.user.uid)?),
        Streams::Files(_) => None,
    };
    mounting.run(late..plan.mounts.len())?;
    mounting.connect()?;
    // Docker makes the working directory; so it is there, and owned by root.
    if plan.cwd.as_os_str() != "/" {
        paths::open_or_create(root.as_fd(), &plan.cwd, Links::Inside, || Ok(Kind::Directory))
            .map(paths::leave)
            .doing(|| format!("make the working directory {}", plan.cwd.display()))?;
    }
    // Hooks may still look at the host's.
    let is_leaving =
        !plan.moves_root && plan.namespaces.shared_mounts.is_none() && !plan.hooks.any_before_root;
    rootfs::write_sysctls(&plan.sysctls, is_leaving)?;
    let mut covered = mounts::Covered::new(root.as_fd(), &plan.mounts);
    for path in &plan.read_only_paths {
        mounts::make_read_only(&mut covered, path).doing(|| format!("make {} read-only", path.display()))?;
    }
    let mut masks = Masks::default();
    for path in &plan.masked {
        masks.hide(&mut covered, path)?;
    }
    masks.leave();
    covered.leave();
    mounting.place()?;
    if plan.hooks.any_before_root {
        // What is read-only is so for the program, not for them.
        channel.mounted()?;
        if !channel.wait_for(Order::Hooked) {
            sys::exit_now(FAILED);
        }
        let state = plan.subject.state("creating", std::process::id());
        hooks::run("createContainer", &plan.hooks.create_container, &state).map_err(Failure::Hook)?;
    }
    if plan.read_only {
        root.make_read_only()?;
    }
    root.enter(plan.moves_root)?;
    if let Some(mounts) = &plan.namespaces.shared_mounts {
        rootfs::go_back(mounts.as_fd())?;
    }
    if let Some(propagation) = plan.propagation {
        rootfs::propagate(propagation)?;
    }
    paths::leave(dev);
    root.leave();
    Ok(terminal)
}

fn host_and_network(plan: &Plan) -> Result<(), Failure> {
    if let Some(name) = &plan.hostname {
        sethostname(name.as_bytes()).doing(|| "set the host name")?;
    }
    if let Some(name) = &plan.domainname {
        setdomainname(name.as_bytes()).doing(|| "set the domain name")?;
    }
    if plan.namespaces.has(libc::CLONE_NEWNET) {
        sys::loopback_up().doing(|| "bring the loopback interface up")?;
    }
    net::set_up(&plan.net_devices)
}

/// Through the host's procfs, which is still the root's. Lowering it needs a privilege; without that the value
/// stays as it was inherited.
fn set_oom_score_adj(value: i32) -> Result<(), Failure> {
    let shown = || "write /proc/self/oom_score_adj";
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open("/proc/self/oom_score_adj", flags, Mode::empty()).doing(shown)?;
    match rustix::io::write(&file, value.to_string().as_bytes()) {
        Err(Errno::ACCESS | Errno::PERM) => Ok(()),
        written => written.map(drop).doing(shown),
    }
}

/// A hard limit above what this process has needs a privilege; without it the limit is as high as permitted.
fn limit_resource(resource: Resource, wanted: Rlimit) -> Result<(), Failure> {
    match setrlimit(resource, wanted) {
        Err(Errno::PERM) => {
            let most = getrlimit(resource).maximum;
            let lower = |value: Option<u64>| value.into_iter().chain(most).min();
            setrlimit(resource, Rlimit { current: lower(wanted.current), maximum: lower(wanted.maximum) })
        }
        set => set,
    }
    .doing(|| format!("set the resource limit {resource:?}"))
}

/// `keep` are capabilities that this process still needs. Exec works them out anew, so that the program has none that are
/// not in the other sets.
fn become_user(user: &User, may_set_groups: bool, keep: u64) -> Result<(), Failure> {
    let sets = &user.capabilities;
    let shown = || "set the capabilities";
    for capability in (0..64).filter(|number| sets.bounding & (1 << number) == 0) {
        match sys::drop_bounding(capability) {
            Ok(()) => {}
            // Beyond the kernel's last one.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno).doing(shown),
        }
    }
    if may_set_groups {
        sys::setgroups(&user.groups).doing(|| "set the supplementary groups")?;
    }
    sys::setresgid(user.gid).doing(|| format!("become group {}", user.gid))?;
    // Without this a user other than root keeps nothing, which is right when it is to have nothing.
    if user.uid != 0 && sets.permitted | sets.inheritable | keep != 0 {
        set_keep_capabilities(true).doing(shown)?;
    }
    sys::setresuid(user.uid).doing(|| format!("become user {}", user.uid))?;
    // Only what this process has can be passed on.
    let mut own = capabilities(None).doing(shown)?;
    let had = own.permitted.bits();
    let permitted = sets.permitted & had;
    own.permitted = CapabilitySet::from_bits_retain(permitted | keep & had);
    own.effective = CapabilitySet::from_bits_retain((sets.effective & permitted) | keep & had);
    own.inheritable = CapabilitySet::from_bits_retain(sets.inheritable & sets.bounding & had);
    set_capabilities(None, own).doing(shown)?;
    let ambient = sets.ambient & permitted & own.inheritable.bits();
    for capability in (0..64).filter(|number| ambient & (1 << number) != 0) {
        sys::raise_ambient(capability).doing(shown)?;
    }
    Ok(())
}

/// By handle and inside the root, so that `/proc/self/fd/N` leads nowhere.
fn enter_cwd(plan: &Plan) -> Result<(), Failure> {
    let shown = || format!("change to the working directory {}", plan.cwd.display());
    if plan.cwd.as_os_str() != "/" {
        let top = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .doing(shown)?;
        let dir = paths::open(top.as_fd(), &plan.cwd, OFlags::PATH | OFlags::DIRECTORY, Links::Inside)
            .doing(shown)?;
        fchdir(&dir).doing(shown)?;
    }
    check_cwd(plan)
}

/// The kernel marks a directory outside the root by a path that is not absolute.
fn check_cwd(plan: &Plan) -> Result<(), Failure> {
    // The root cannot be outside of itself; who joined a container is at its root, too.
    if plan.cwd.as_os_str() == "/" {
        return Ok(());
    }
    let path = getcwd(Vec::new()).doing(|| "ask for the working directory")?;
    if path.as_bytes().starts_with(b"/") {
        Ok(())
    } else {
        Err(Failure::Refused(format!(
            "the working directory {} is outside the container",
            plan.cwd.display()
        )))
    }
}
