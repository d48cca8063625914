//! The processes that a [`super::realm`] consists of, beside its containers: the anchor, which is in it, the program that
//! copies between it and the host's network, and the keeper of both.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use dhow_runtime::native::idmap;
use dhow_runtime::process;
use fs_err as fs;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, set_dumpable_behavior,
    set_parent_process_death_signal,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::link;
use super::realm::{NAMESPACES, try_lock};
use super::rootless::{PATIENCE, Tool, WORDS, is_up, routes};
use crate::attach;
use crate::error::{Error, Result};

/// How long the anchor stays without anybody who needs it: who removes one container may start the next.
const LINGER: Duration = Duration::from_secs(2);
/// How long somebody may take between the lock and the connection.
const A_MOMENT: Duration = Duration::from_millis(20);
/// Where slirp4netns would take orders.
const SLIRP: &str = "slirp";
/// What is said when all is well.
const READY: &str = "ready";

/// Starts the processes of a realm; back when it is there. The caller holds its lock. `network` is that of one whose
/// processes were killed.
pub(super) fn begin(folder: &Path, users: &OwnedFd, network: Option<&OwnedFd>) -> Result<()> {
    let (heard, said) = pipe_with(PipeFlags::CLOEXEC).map_err(failed("make a pipe"))?;
    // One in between, so that the keeper is nobody's child.
    let between = process::fork(move || {
        u8::from(process::fork(move || keep(folder, users, network, Words::of(said))).is_err())
    })?;
    between.wait()?;
    Words::of(heard).hear().map_err(|words| match words.as_str() {
        "" => Error::Invalid("the processes of this user's network were ended".to_owned()),
        _ => Error::Invalid(words),
    })
}

fn failed(action: &'static str) -> impl Fn(rustix::io::Errno) -> Error {
    move |errno| Error::Network { action, source: errno.into() }
}

/// One end of a pipe through which is said how something went.
struct Words(std::fs::File);

impl Words {
    fn of(pipe: OwnedFd) -> Self {
        Self(std::fs::File::from(pipe))
    }

    /// Says it, and nothing more.
    fn say(mut self, words: &str) {
        // Who does not listen any more does not want to know.
        self.0.write_all(words.as_bytes()).ok();
    }

    /// Waits for it.
    fn hear(self) -> std::result::Result<(), String> {
        let mut words = String::new();
        self.0.take(WORDS).read_to_string(&mut words).ok();
        if words == READY { Ok(()) } else { Err(words) }
    }
}

/// The keeper's whole life.
fn keep(folder: &Path, users: &OwnedFd, network: Option<&OwnedFd>, words: Words) -> u8 {
    match gather(folder, users, network, &words) {
        Ok(ends) => {
            words.say(READY);
            let mut fds: Vec<PollFd<'_>> =
                ends.iter().take(2).map(|end| PollFd::new(end, PollFlags::IN)).collect();
            while matches!(poll(&mut fds, None), Err(rustix::io::Errno::INTR)) {}
            // None without the other.
            end(&ends);
            0
        }
        Err(error) => {
            words.say(&error.to_string());
            1
        }
    }
}

/// Starts what the keeper keeps.
fn gather(folder: &Path, users: &OwnedFd, network: Option<&OwnedFd>, words: &Words) -> Result<Vec<OwnedFd>> {
    // Nothing of who started it may live on here: a lock least of all.
    let namespaces: Vec<BorrowedFd<'_>> =
        [Some(users), network].into_iter().flatten().map(OwnedFd::as_fd).collect();
    process::keep_only(&[&namespaces[..], &[words.0.as_fd()]].concat());
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(null.file())
        .and_then(|()| rustix::stdio::dup2_stdout(null.file()))
        .and_then(|()| rustix::stdio::dup2_stderr(null.file()))
        .and_then(|()| rustix::process::setsid().map(drop))
        .map_err(failed("leave who needs a network"))?;
    let (heard, said) = pipe_with(PipeFlags::CLOEXEC).map_err(failed("make a pipe"))?;
    let anchor = process::fork(move || {
        process::keep_only(&[&namespaces[..], &[said.as_fd()]].concat());
        let words = Words::of(said);
        match Anchor::drop_in(folder, users, network) {
            Ok(mut anchor) => {
                words.say(READY);
                anchor.stay();
                0
            }
            Err(error) => {
                words.say(&error.to_string());
                1
            }
        }
    })?;
    Words::of(heard).hear().map_err(Error::Invalid)?;
    let mut ends = vec![handle(anchor.pid())?];
    if let Some(tool) = Tool::usable() {
        match copy(tool, anchor.pid(), folder) {
            Ok(copier) => ends.extend(copier),
            Err(error) => {
                end(&ends);
                return Err(error);
            }
        }
    }
    Ok(ends)
}

fn handle(pid: u32) -> Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(rustix::io::Errno::SRCH);
    pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty())).map_err(failed("watch a process"))
}

fn end(all: &[OwnedFd]) {
    for one in all {
        pidfd_send_signal(one, Signal::KILL).ok();
    }
}

/// Starts the program that copies between the anchor's network and this one.
///
/// It comes with the pipe that it complains to, which is to stay open; what does not fit is lost.
fn copy(tool: Tool, anchor: u32, folder: &Path) -> Result<[OwnedFd; 2]> {
    let Some(program) = tool.path() else {
        return Err(Error::Invalid(format!("{} is gone", tool.name())));
    };
    let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
    let (complaints, said) = pipe_with(flags).map_err(failed("make a pipe"))?;
    let mut command = tool.command(&program, anchor, &[], &folder.join(SLIRP));
    // In a network that was there its bridges have routes.
    let before = routes(anchor);
    let copier = process::fork(move || {
        set_parent_process_death_signal(Some(Signal::KILL)).ok();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(said));
        // Back only with an error, which its keeper takes from its end.
        drop(command.exec());
        127
    })?;
    let copier = handle(copier.pid())?;
    let deadline = Instant::now() + PATIENCE;
    while routes(anchor) <= before || !is_up(tool, anchor) {
        let mut fds = [PollFd::new(&copier, PollFlags::IN)];
        let blink = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
        if poll(&mut fds, Some(&blink)).unwrap_or(0) > 0 || Instant::now() > deadline {
            end(&[copier]);
            let mut said = String::new();
            std::fs::File::from(complaints).take(WORDS).read_to_string(&mut said).ok();
            return Err(Error::Invalid(format!("{} made no network: {}", tool.name(), said.trim())));
        }
    }
    Ok([copier, complaints])
}

/// The process in the realm.
struct Anchor<'a> {
    folder: &'a Path,
    listener: UnixListener,
    members: Vec<UnixStream>,
    /// Held until the end of this process, after the last moment in which it could be found.
    ending: Option<fs::File>,
}

impl<'a> Anchor<'a> {
    /// Enters, and listens.
    fn drop_in(folder: &'a Path, users: &OwnedFd, network: Option<&OwnedFd>) -> Result<Self> {
        idmap::join(users.as_fd()).map_err(failed("enter a user namespace"))?;
        match network {
            Some(network) => {
                move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
                    .map_err(failed("enter a network namespace"))?;
            }
            None => {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).map_err(std::io::Error::from)?;
                link::loopback_up()?;
            }
        }
        // Not before: who enters a user namespace hides from its user by that, who is to find its namespaces here.
        set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(failed("be seen"))?;
        set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed("end with a process"))?;
        let names = ["user", "net"].map(|name| fs::read_link(format!("/proc/self/ns/{name}")));
        let [users, network] = names.map(|name| name.unwrap_or_default().to_string_lossy().into_owned());
        fs::write(folder.join(NAMESPACES), format!("{users} {network}"))?;
        Ok(Self { folder, listener: attach::listen(folder)?, members: Vec::new(), ending: None })
    }

    /// Until nobody has needed it for a moment.
    fn stay(&mut self) {
        let mut alone_since = Instant::now();
        loop {
            let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN)];
            fds.extend(self.members.iter().map(|member| PollFd::new(member, PollFlags::IN)));
            let left = LINGER.saturating_sub(alone_since.elapsed()).max(A_MOMENT);
            let patience = self.members.is_empty().then(|| Timespec::try_from(left).ok()).flatten();
            poll(&mut fds, patience.as_ref()).ok();
            drop(fds);
            self.welcome();
            let before = self.members.len();
            // Nobody says anything: what there is to read is the end.
            self.members.retain_mut(|member| member.read(&mut [0]).is_err());
            if before > 0 && self.members.is_empty() {
                alone_since = Instant::now();
            }
            if self.members.is_empty() && alone_since.elapsed() >= LINGER && self.leaves() {
                return;
            }
        }
    }

    fn welcome(&mut self) {
        while let Ok((member, _)) = self.listener.accept() {
            if member.set_nonblocking(true).is_ok() {
                self.members.push(member);
            }
        }
    }

    /// Ends it, unless somebody is just coming.
    fn leaves(&mut self) -> bool {
        // Who holds the lock is about to connect. One that is removed with its folder has nobody.
        let Some(lock) = try_lock(self.folder) else { return !self.folder.exists() };
        self.welcome();
        if !self.members.is_empty() {
            return false;
        }
        attach::unlisten(self.folder);
        for left in [NAMESPACES, SLIRP] {
            fs::remove_file(self.folder.join(left)).ok();
        }
        self.ending = Some(lock);
        true
    }
}
