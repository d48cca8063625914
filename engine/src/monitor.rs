//! The process that stands between a container and everybody else (Linux).
//!
//! Forked from whoever starts the container, before any thread exists. It leads a session of its own, so a closed
//! terminal does not reach it; it holds the container's claim, creates the task, forwards signals it is sent, copies
//! streams, keeps the log, serves whoever attaches, writes down the end, and is gone.
//!
//! A Wasm program that is removed when it ends and whose starter stays (`run --rm` in the foreground) needs none of
//! that: its monitor *is* the sandbox, and the guest runs in this process, on its only thread. Every other Wasm program
//! runs in a child, so that somebody is there to say how it ended, however it did.
//!
//! Whoever forked it holds a [`client::Client`]: a socket for streams and failures, and the process to wait for.

mod again;
pub(crate) mod client;
pub(crate) mod exec;
mod health;
pub(crate) mod names;
mod networks;
mod peer;
mod proxy;
mod pump;
pub(crate) mod sandbox;

use std::cell::Cell;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use dhow_runtime::process;
use dhow_runtime::{Bundle, Executor, ExitStatus, Kind, Stdio, Stream, Task, TerminalSize};
use jiff::Timestamp;
use nix::sys::signal::{SigSet, SigmaskHow, Signal as Number, pthread_sigmask};
use rustix::fs::FileType;

use crate::attach::{self, Failure, Frame, Wish};
use crate::container::End;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::logs::Log;
use crate::network::Attached;
use crate::ports;
use crate::record::{Claim, Container, State, Status};
use crate::resources::Group;
use crate::survivor;
use crate::{resources, spec};
use again::Restarts;
use client::Client;
use peer::Peer;
use pump::{Company, Ends};

/// How one of the container's streams reaches the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// Not at all.
    Null,
    /// The container has the client's own descriptor: the fast way, for pipes.
    Inherit,
    /// Copied by the monitor: for everything that a container must not hold.
    Copy,
}

/// The routes of all streams, or a terminal.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Routes {
    /// Standard input, output, error.
    Streams([Route; 3]),
    /// A terminal of the container's own.
    Terminal {
        /// Whether the client's input is copied to it.
        input: bool,
        /// The client's size, if it has a terminal.
        size: Option<TerminalSize>,
    },
}

/// How a container is looked after.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Care {
    /// How its streams reach the client.
    pub(crate) routes: Routes,
    /// It has a log, and others may attach.
    pub(crate) kept: bool,
    /// The client leaves as soon as it runs.
    pub(crate) detached: bool,
}

/// Starts the monitor of a claimed container.
pub(crate) fn launch(
    engine: &Engine,
    container: &Container,
    claim: Claim,
    bundle: &Bundle,
    care: Care,
) -> Result<Client> {
    let (ours, theirs) = UnixStream::pair()?;
    // The child drops the client's end: a monitor must notice when its client is gone.
    let ours = Cell::new(Some(ours));
    let before = block_signals()?;
    // A parent that ignores SIGCHLD has passed that on to us: children would be reaped before anybody has seen them.
    process::default_child_signal()?;
    let monitored = container.clone();
    let child = process::fork(|| {
        drop(ours.take());
        let wish = Wish { stdin: true, stdout: true, stderr: true };
        let starter = Peer::starter(theirs, Some(wish).filter(|_| !care.detached));
        let company = Company { peers: vec![starter], ..Company::default() };
        let monitor = Monitor {
            engine,
            container: monitored,
            claim: Some(claim),
            company,
            attached: Attached::default(),
            oom_killed: false,
            restarts: Restarts::default(),
            told_end: false,
        };
        monitor.run(bundle, care, &before)
    })?;
    engine.leave_telling_to_child();
    let ours = ours.take().ok_or_else(|| Error::MonitorLost { id: container.record.id.clone() })?;
    let copies = care.kept || container.record.kind == Kind::Native;
    Ok(Client::of_monitor(child, ours, care.routes, copies))
}

/// Signals a client passes on to its container: all that can be caught and do not concern the client alone.
fn forwarded() -> SigSet {
    use Number::{
        SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGPWR, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1,
        SIGUSR2, SIGVTALRM, SIGWINCH,
    };
    [
        SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGPWR, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1,
        SIGUSR2, SIGVTALRM, SIGWINCH,
    ]
    .into_iter()
    .collect()
}

/// From now on signals are read, not obeyed: for somebody who attaches.
pub(crate) fn watch_signals() -> Result<()> {
    block_signals().map(drop)
}

/// Blocks what will be read from a signalfd; returns the mask that was in force.
fn block_signals() -> Result<SigSet> {
    let mut blocked = forwarded();
    blocked.add(Number::SIGCHLD);
    let mut before = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&blocked), Some(&mut before))
        .map_err(std::io::Error::from)?;
    Ok(before)
}

struct Monitor<'a> {
    engine: &'a Engine,
    container: Container,
    claim: Option<Claim>,
    company: Company,
    /// What it has of its networks.
    attached: Attached,
    /// The kernel has killed a process of the container for lack of memory.
    oom_killed: bool,
    /// How often it was started again.
    restarts: Restarts,
    /// Everybody knows how it has ended.
    told_end: bool,
}

impl Monitor<'_> {
    /// The monitor's whole life; returns the process's exit code, which is the container's.
    fn run(mut self, bundle: &Bundle, care: Care, before: &SigSet) -> u8 {
        // Fails only for a process that leads a session already, which a fresh fork does not.
        rustix::process::setsid().ok();
        let began = care.kept.then(Instant::now);
        let (mut end, mut task) = self.once(bundle, care, before);
        if let Some(mut began) = began {
            let later = Care { detached: true, ..care };
            // What goes wrong with the waiting ends it as the container has ended.
            while self.runs_again(&end, began).unwrap_or(false) {
                drop(task.take());
                began = Instant::now();
                self.told_end = false;
                (end, task) = match self.engine.bundle(&self.container) {
                    Ok(bundle) => self.once(&bundle, later, before),
                    Err(error) => (End::failed(&error), None),
                };
            }
        }
        let code = end.code;
        if self.company.listener.is_some() {
            attach::unlisten(self.container.folder());
        }
        if let Some(claim) = self.claim.take() {
            let end = End { told: self.told_end, ..end };
            if let Err(error) = self.engine.finish(&self.container, claim, &end) {
                self.report(&error);
            }
        }
        self.company.dismiss(code);
        // The kernel takes everything apart with this process, which may take milliseconds; nobody waits for that any more.
        std::mem::forget(task);
        code
    }

    /// One run, from its creation to its end.
    fn once(&mut self, bundle: &Bundle, care: Care, before: &SigSet) -> (End, Option<Task>) {
        self.oom_killed = false;
        let ended = match (self.container.record.kind, care.kept) {
            (Kind::Wasm, false) if self.container.record.networks.is_none() => {
                self.run_here(bundle, care.routes, before)
            }
            (Kind::Wasm, _) => self.run_apart(bundle, care, before),
            (Kind::Native, _) => self.run_native(bundle, care, before),
        };
        let networks = self.networks();
        let ended = match ended {
            Ok((status, task)) => {
                let oom_killed = self.oom_killed || task.out_of_memory();
                (End { oom_killed, networks, ..End::code(status.code()) }, Some(task))
            }
            Err(error) => {
                self.report(&error);
                (End::failed(&error), None)
            }
        };
        if let Err(error) = self.leave_networks() {
            self.report(&error);
        }
        ended
    }

    /// Runs a guest in this very process, with the client's streams.
    fn run_here(&self, bundle: &Bundle, routes: Routes, before: &SigSet) -> Result<(ExitStatus, Task)> {
        // Wasm programs have no signal handlers: signals end the sandbox process as they end any other.
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(before), None).map_err(std::io::Error::from)?;
        let stdio = match routes {
            Routes::Terminal { input, size } => {
                if !input {
                    // The guest has this process's own terminal, but must not read from it.
                    let null = fs_err::File::open("/dev/null")?;
                    rustix::stdio::dup2_stdin(null.file()).map_err(std::io::Error::from)?;
                }
                Stdio::Terminal(size)
            }
            Routes::Streams(routes) => {
                let [stdin, stdout, stderr] =
                    routes.map(|route| if route == Route::Null { Stream::Null } else { Stream::Inherit });
                Stdio::Streams { stdin, stdout, stderr }
            }
        };
        let group = resources::group(self.engine, &self.container.record)?;
        let mut bundle = bundle.clone();
        if group.is_some() {
            // The kernel does it, which costs the program nothing.
            bundle.wasm.limits.cpus = None;
        }
        if let Some(wall) = &mut bundle.wasm.wall {
            wall.keep = self.engine.needed_to_erase(&self.container)?;
        }
        let mut task = Executor::wasm(Some(self.engine.aot_folder())).create(&bundle, stdio)?;
        process::obey_sent_faults();
        if let Some(mut group) = group {
            // Not before: it may have been compiled just now, which takes more than the program may.
            group.add(task.pid())?;
        }
        if let Task::Wasm(task) = &task {
            // The client writes it down, as for a program that was killed.
            task.on_overrun(|status| process::exit_now(status.code()));
        }
        self.running(task.pid(), ports::published(&bundle.wasm.network))?;
        task.start()?;
        self.engine.tell_start(&self.container.record, &self.networks());
        let status = task.wait()?;
        Ok((status, task))
    }

    /// Runs a guest in a child.
    fn run_apart(&mut self, bundle: &Bundle, care: Care, before: &SigSet) -> Result<(ExitStatus, Task)> {
        let (stdio, mut ends) = pump::connect(care.routes)?;
        let terminal = matches!(care.routes, Routes::Terminal { .. });
        let group = resources::group(self.engine, &self.container.record)?;
        let mut own = bundle.clone();
        if group.is_some() {
            // The kernel does it, which costs the program nothing.
            own.wasm.limits.cpus = None;
        }
        self.give_network(&mut own)?;
        let bundle = &own;
        let aot = self.engine.aot_folder();
        let id = self.container.record.id.clone();
        let leave = || {
            // Now, as long as it has one thread: to compile takes more.
            let entered = match (&self.attached.realm, &self.attached.namespace) {
                (Some(realm), Some(network)) => realm.settle_in(network),
                _ => Ok(()),
            };
            self.leave();
            // A guest that held the other end of its own input would never see the end of it.
            ends = Ends::default();
            entered
        };
        let task = sandbox::spawn(&id, stdio, leave, sandbox::Guest { bundle, aot, terminal, before })?;
        self.see_through(task, ends, (bundle, care, before), group)
    }

    fn run_native(&mut self, bundle: &Bundle, care: Care, before: &SigSet) -> Result<(ExitStatus, Task)> {
        let (stdio, ends) = pump::connect(care.routes)?;
        let mut group = resources::group(self.engine, &self.container.record)?;
        let own = self.choose_realm(bundle)?;
        let mut executor = spec::native_executor(&self.container.record)?;
        if group.is_none() && !self.makes_network() {
            // It is written down meanwhile.
            executor = executor.not_waiting();
        }
        let bundle_here = own.as_ref().unwrap_or(bundle);
        let task = Group::create(group.as_mut(), &executor, bundle_here, stdio)?;
        self.join_networks(task.pid())?;
        self.see_through(task, ends, (bundle, care, before), group)
    }

    /// In a child of this process: what is the monitor's is none of its business.
    fn leave(&mut self) {
        self.claim = None;
        self.attached = Attached::default();
        self.company = Company::default();
    }

    /// From a created task to its end.
    fn see_through(
        &mut self,
        mut task: Task,
        ends: Ends,
        (bundle, care, before): (&Bundle, Care, &SigSet),
        mut group: Option<Group>,
    ) -> Result<(ExitStatus, Task)> {
        if care.kept {
            let log = &self.container.record.host_config.log_config;
            if let Some(path) = self.engine.log_path(&self.container) {
                fs_err::create_dir_all(self.engine.data_folder(&self.container))?;
                self.company.log = Some(Log::open(&path, log)?.with_attributes(&self.container.record)?);
            }
            if self.company.listener.is_none() {
                self.company.listener = Some(attach::listen(self.container.folder())?);
            }
            self.company.stdin_once = self.container.record.config.stdin_once;
        } else {
            // The client's streams are the container's.
            self.company.stdin_once = true;
        }
        if let Some(group) = group.as_mut().filter(|_| !matches!(task, Task::Native(_))) {
            // Not before: it may have been compiled just now, which takes more than it may have.
            group.add(task.pid())?;
        }
        let ports = if self.attached.endpoints.is_empty() && self.attached.copied.is_none() {
            ports::published(&bundle.wasm.network)
        } else {
            self.attached.ports()
        };
        self.serve_networks()?;
        self.running(task.pid(), ports)?;
        task.start()?;
        self.engine.tell_start(&self.container.record, &self.networks());
        let_go()?;
        let mut health = health::Watch::begin(self.engine, &self.container, *before)?;
        if care.detached {
            for peer in self.company.peers.drain(..) {
                peer.dismiss(Frame::Started, &[]);
            }
            self.company.settles = true;
        }
        let status = pump::until_end(&mut task, ends, &mut self.company, health.as_mut())?;
        if let Some(health) = health {
            health.over();
        }
        drop(group);
        // They are in the control group, too, and end now.
        self.container.await_sessions()?;
        if care.kept
            && let Ok(now) = Container::load(self.container.folder().to_owned())
        {
            // Its limits may be others by now.
            self.container = now;
        }
        self.oom_killed = resources::end_group(self.engine, &self.container.record);
        resources::end_frozen(self.engine, &self.container);
        Ok((status, task))
    }

    /// Name and id of its networks.
    fn networks(&self) -> Vec<(String, String)> {
        let endpoints = self.attached.endpoints.iter();
        endpoints.map(|endpoint| (endpoint.network.clone(), endpoint.network_id.clone())).collect()
    }

    fn running(&self, pid: u32, ports: ports::PortMap) -> Result<()> {
        let started_at = Some(Timestamp::now());
        let pid_started = survivor::start_time(pid);
        self.container.set_state(&State {
            status: Status::Running,
            pid,
            pid_started,
            started_at,
            ports,
            networks: self.attached.by_name(),
            restart_count: self.restarts.count,
            ..State::default()
        })
    }

    /// Tells the client why there is no running container.
    fn report(&mut self, error: &Error) {
        let words = Failure::of(error).encode();
        for peer in self.company.peers.iter_mut().filter(|peer| peer.is_starter()) {
            peer.output(Frame::Failed, &words);
        }
    }
}

/// Once a container has its streams, the monitor needs none of the client's: it must not keep a terminal, a pipe or a
/// folder busy.
fn let_go() -> Result<()> {
    let null = fs_err::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(null.file())
        .and_then(|()| rustix::stdio::dup2_stdout(null.file()))
        .and_then(|()| rustix::stdio::dup2_stderr(null.file()))
        .and_then(|()| rustix::process::chdir("/"))
        .map_err(|error| std::io::Error::from(error).into())
}

/// `statfs` magic of pipes without a name.
const PIPEFS: i64 = 0x5049_5045;

/// How a client's streams reach a container without a terminal. A Wasm guest never holds a descriptor, so it always has
/// the client's; a native process gets pipes as they are, everything else through the monitor: a terminal could be typed
/// into, a file or named pipe reopened, and a socket tells about the network it belongs to.
pub(crate) fn route_streams(kind: Kind, input: bool) -> [Route; 3] {
    let route = |fd: BorrowedFd<'_>| {
        let harmless =
            || rustix::fs::fstatfs(fd).is_ok_and(|found| found.f_type == PIPEFS) || is_dev_null(fd);
        if kind == Kind::Wasm || harmless() { Route::Inherit } else { Route::Copy }
    };
    let stdin = if input { route(std::io::stdin().as_fd()) } else { Route::Null };
    [stdin, route(std::io::stdout().as_fd()), route(std::io::stderr().as_fd())]
}

fn is_dev_null(fd: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && stat.st_rdev == rustix::fs::makedev(1, 3)
    })
}
