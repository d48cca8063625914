//! The server: one thread that waits for everything at once, and never for one thing alone.

mod ends;
pub(crate) mod life;

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::wire::Message as _;
use dhow_runtime::process::{self, Signals};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::artifact::Store;
use crate::error::Failure;
use crate::job::Job;
use crate::log::Log;
use crate::messages::{CreateTask, Request};
use crate::pod::{Call, Key, Pod};
use crate::publisher::Publisher;
use crate::pump::Pump;
use crate::ttrpc::{self, Connection, Kind};

/// How long events and the rest of what was said are waited for at the end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long after the last event the server lets go of the pages of its code, and waits with a quarter of the memory.
const DOZE: Duration = Duration::from_secs(1);

/// What an answer waits for.
#[derive(Debug)]
pub(crate) enum Task {
    Create(Key),
    Start(Key),
    Delete(Key),
    /// Of a container, to a folder.
    Checkpoint(String, String),
    StartSandbox,
    StopSandbox,
}

/// Everything.
#[derive(Debug)]
pub(crate) struct Server {
    listener: UnixListener,
    /// Its name, as long as it can be found there.
    socket: Option<PathBuf>,
    signals: Signals,
    connections: BTreeMap<u64, Connection>,
    jobs: BTreeMap<u64, (Job, Task, Call)>,
    pumps: BTreeMap<u64, Pump>,
    next: u64,
    /// What was asked of containers that are being made.
    created: BTreeMap<Key, CreateTask>,
    /// Ends of processes that nobody knew yet, while there were jobs.
    strangers: BTreeMap<u32, u32>,
    pub(crate) publisher: Publisher,
    pub(crate) pod: Pod,
    pub(crate) log: Log,
    /// containerd's images.
    pub(crate) store: Store,
    /// The folder of the containers' states.
    pub(crate) root: PathBuf,
    /// Compiled code of Wasm programs.
    pub(crate) aot: PathBuf,
    /// A pod without a pause container.
    pub(crate) sandbox: crate::service::sandbox::Sandbox,
    /// It is to end, at the latest then.
    leaving: Option<Instant>,
    /// Whose connection it is that ends first, or that time: a caller in Go that finds it closed may never look at the answer.
    last_heard: Option<u64>,
    /// When it lets go of memory, unless something happens.
    dozes: Option<Instant>,
}

/// What is ready.
enum Ready {
    Listener,
    Signals,
    Publisher,
    Connection(u64),
    Job(u64),
    Pump(u64),
    Memory(String),
}

/// What a request gets.
pub(crate) enum Answer {
    Now(Result<Vec<u8>, Failure>),
    Later,
}

/// What the server is made from.
pub(crate) struct Setup {
    pub(crate) listener: UnixListener,
    /// Where that is.
    pub(crate) socket: PathBuf,
    pub(crate) publisher: Publisher,
    pub(crate) log: Log,
    pub(crate) store: Store,
    pub(crate) root: PathBuf,
    pub(crate) aot: PathBuf,
}

impl Server {
    pub(crate) fn new(setup: Setup) -> std::io::Result<Self> {
        let Setup { listener, socket, publisher, log, store, root, aot } = setup;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            socket: Some(socket),
            signals: Signals::watch()?,
            connections: BTreeMap::new(),
            jobs: BTreeMap::new(),
            pumps: BTreeMap::new(),
            next: 0,
            created: BTreeMap::new(),
            strangers: BTreeMap::new(),
            publisher,
            pod: Pod::default(),
            log,
            store,
            root,
            aot,
            sandbox: crate::service::sandbox::Sandbox::default(),
            leaving: None,
            last_heard: None,
            dozes: Some(Instant::now() + DOZE),
        })
    }

    /// Serves until it was told to end and has nothing left to say.
    pub(crate) fn run(&mut self) {
        loop {
            if let Some(last) = self.leaving {
                let heard = self.last_heard.is_none_or(|number| !self.connections.contains_key(&number));
                let said = heard && self.connections.values().all(|connection| !connection.is_full());
                let done = self.publisher.is_done() && self.pumps.is_empty() && said;
                if done || Instant::now() >= last {
                    return;
                }
            }
            match self.wait() {
                Ok(ready) if ready.is_empty() => {
                    if self.dozes.take_if(|doze| *doze <= Instant::now()).is_some() {
                        process::forget();
                    }
                }
                Ok(ready) => {
                    self.dozes = Some(Instant::now() + DOZE);
                    ready.into_iter().for_each(|one| self.handle(one));
                }
                Err(errno) => {
                    self.log.error(&format!("poll: {errno}"));
                    return;
                }
            }
            self.publisher.go_on();
        }
    }

    /// Ends when all is said. From now on it cannot be found: the next pod of this name has a server of its own.
    pub(crate) fn leave(&mut self) {
        self.hide();
        self.leaving = Some(Instant::now() + LAST_WORDS);
    }

    /// The same, after this caller.
    pub(crate) fn leave_after(&mut self, call: Call) {
        self.last_heard = Some(call.connection);
        self.leave();
    }

    /// Once only: what is at that place later is another server's.
    pub(crate) fn hide(&mut self) {
        if let Some(socket) = self.socket.take() {
            fs_err::remove_file(socket).ok();
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Has a job done, and somebody answered then.
    pub(crate) fn add_job(&mut self, job: Job, task: Task, call: Call) {
        let number = self.number();
        self.jobs.insert(number, (job, task, call));
    }

    /// Waits for whatever comes first.
    fn wait(&self) -> rustix::io::Result<Vec<Ready>> {
        let mut fds =
            vec![PollFd::new(&self.listener, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
        let mut what: Vec<(usize, Ready)> = vec![(1, Ready::Listener), (1, Ready::Signals)];
        let stream = |is_full: bool| if is_full { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        if let Some(socket) = self.publisher.socket() {
            fds.push(PollFd::from_borrowed_fd(socket, stream(self.publisher.is_full())));
            what.push((1, Ready::Publisher));
        }
        for (number, connection) in &self.connections {
            fds.push(PollFd::from_borrowed_fd(connection.as_fd(), stream(connection.is_full())));
            what.push((1, Ready::Connection(*number)));
        }
        for (number, (job, ..)) in &self.jobs {
            fds.push(PollFd::from_borrowed_fd(job.as_fd(), PollFlags::IN));
            what.push((1, Ready::Job(*number)));
        }
        for (id, container) in &self.pod.containers {
            if let Some((memory, _)) = &container.memory {
                let flags = if memory.is_exceptional() { PollFlags::PRI } else { PollFlags::IN };
                fds.push(PollFd::from_borrowed_fd(memory.as_fd(), flags));
                what.push((1, Ready::Memory(id.clone())));
            }
        }
        for (number, pump) in &self.pumps {
            let before = fds.len();
            pump.interest(&mut fds);
            what.push((fds.len() - before, Ready::Pump(*number)));
        }
        let until = [self.publisher.retry(), self.leaving, self.dozes].into_iter().flatten().min();
        let wait = until.map(|until| {
            let left = until.saturating_duration_since(Instant::now());
            // A little later than that, so that it has passed then.
            Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()).min(998_999_999) + 1_000_000,
            }
        });
        match poll(&mut fds, wait.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(errno) => return Err(errno),
        }
        let mut ready = Vec::new();
        let mut at = 0;
        for (count, one) in what {
            if fds[at..at + count].iter().any(|fd| !fd.revents().is_empty()) {
                ready.push(one);
            }
            at += count;
        }
        Ok(ready)
    }

    fn handle(&mut self, ready: Ready) {
        match ready {
            Ready::Listener => self.accept(),
            Ready::Signals => {
                let mut ended = false;
                while let Some(signal) = self.signals.next() {
                    ended |= i32::from(signal) == CHILD;
                }
                if ended {
                    self.reap();
                }
            }
            Ready::Publisher => self.publisher.run(),
            Ready::Connection(number) => self.serve(number),
            Ready::Job(number) => self.hear(number),
            Ready::Pump(number) => {
                if self.pumps.get_mut(&number).is_some_and(|pump| !pump.run()) {
                    self.pumps.remove(&number);
                }
            }
            Ready::Memory(id) => self.look_at_memory(&id),
        }
    }

    fn accept(&mut self) {
        while let Ok((socket, _)) = self.listener.accept() {
            if let Ok(connection) = Connection::new(socket) {
                let number = self.number();
                self.connections.insert(number, connection);
            }
        }
    }

    /// Takes what a client has sent. One that has gone away leaves requests that are done and answers that nobody gets.
    fn serve(&mut self, number: u64) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let mut alive = connection.flush() && connection.fill();
        loop {
            let Some(connection) = self.connections.get_mut(&number) else { return };
            let frame = match connection.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(failure) => {
                    self.log.error(&failure.text);
                    alive = false;
                    break;
                }
            };
            if frame.kind != Kind::Request as u8 {
                continue;
            }
            let call = Call { connection: number, stream: frame.stream };
            let answer = match Request::decode(&frame.payload) {
                Ok(request) => {
                    self.log.debug(&format!("{}/{}", request.service, request.method));
                    crate::service::answer(self, &request, call)
                }
                Err(error) => Answer::Now(Err(Failure::of("read the request")(error))),
            };
            if let Answer::Now(answer) = answer {
                self.reply(call, answer);
            }
        }
        if !alive {
            self.connections.remove(&number);
        }
    }

    pub(crate) fn reply(&mut self, call: Call, answer: Result<Vec<u8>, Failure>) {
        let Some(connection) = self.connections.get_mut(&call.connection) else { return };
        if !connection.send(call.stream, Kind::Response, &ttrpc::response(answer)) {
            self.connections.remove(&call.connection);
        }
    }

    /// Sets the size of the terminal that is among these.
    pub(crate) fn resize(&mut self, pumps: &[u64], columns: u16, rows: u16) -> Result<(), Failure> {
        for number in pumps {
            if let Some(pump) = self.pumps.get(number).filter(|pump| pump.is_terminal()) {
                pump.resize(columns, rows).map_err(Failure::of("resize the terminal"))?;
            }
        }
        Ok(())
    }

    pub(crate) fn reply_with(&mut self, call: Call, message: &impl crate::wire::Message) {
        self.reply(call, Ok(message.encode_to_vec()));
    }
}

/// `SIGCHLD`.
const CHILD: i32 = rustix::process::Signal::CHILD.as_raw();
