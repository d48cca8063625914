//! What the server knows of its containers and their processes.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use dhow_runtime::cgroup::oom::OutOfMemory;

use crate::error::{Code, Failure};
use crate::messages::{Timestamp, Waited};
use crate::streams::Named;

/// A process, for as long as the server lives.
pub(crate) type Key = u64;

/// Whom an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) connection: u64,
    pub(crate) stream: u32,
}

/// How far a process has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A job makes it.
    Creating,
    /// It may be started.
    Created,
    /// A job starts it.
    Starting,
    Running,
    Ended,
    /// A job removes it.
    Deleting,
}

/// A process of a container: its first one, or one that joined.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) container: String,
    /// Empty for the first one.
    pub(crate) exec: String,
    pub(crate) phase: Phase,
    /// 0 as long as there is none.
    pub(crate) pid: u32,
    /// Where its streams lead.
    pub(crate) named: Named,
    /// How and when it ended.
    pub(crate) ended: Option<Waited>,
    /// It has ended while a job was at it; to be told after that.
    pub(crate) early: Option<u32>,
    pub(crate) waiters: Vec<Call>,
    /// What it is to be, for one that joins.
    pub(crate) spec: Vec<u8>,
    pub(crate) kept: Vec<OwnedFd>,
    /// The writing end of its input.
    pub(crate) input: Option<OwnedFd>,
    /// Both ends of a terminal's pipes, until there is a terminal.
    pub(crate) terminal: Option<(Option<OwnedFd>, Option<OwnedFd>)>,
    pub(crate) pumps: Vec<u64>,
}

impl Process {
    pub(crate) fn new(container: &str, exec: &str, named: Named) -> Self {
        Self {
            container: container.to_owned(),
            exec: exec.to_owned(),
            phase: if exec.is_empty() { Phase::Creating } else { Phase::Created },
            pid: 0,
            named,
            ended: None,
            early: None,
            waiters: Vec::new(),
            spec: Vec::new(),
            kept: Vec::new(),
            input: None,
            terminal: None,
            pumps: Vec::new(),
        }
    }

    /// What it is called in events.
    pub(crate) fn name(&self) -> &str {
        if self.exec.is_empty() { &self.container } else { &self.exec }
    }

    /// How it ended, or what is said of one that never ran.
    pub(crate) fn end(&self, now: Timestamp) -> Waited {
        self.ended.unwrap_or(Waited { exit_status: KILLED, exited_at: Some(now) })
    }
}

/// 128 and `SIGKILL`.
pub(crate) const KILLED: u32 = 137;

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) bundle: PathBuf,
    pub(crate) first: Key,
    pub(crate) execs: BTreeMap<String, Key>,
    pub(crate) paused: bool,
    /// Its processes do not end with its first one by themselves.
    pub(crate) shares_processes: bool,
    /// Word of the kernel's, and how many it has ended so far.
    pub(crate) memory: Option<(OutOfMemory, u64)>,
    /// Its first process has ended, which is told after all others have.
    pub(crate) untold: bool,
    /// It was brought back from a checkpoint, so it runs before it is started.
    pub(crate) restored: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Pod {
    pub(crate) containers: BTreeMap<String, Container>,
    pub(crate) processes: BTreeMap<Key, Process>,
    last: Key,
}

impl Pod {
    /// Adds a process.
    pub(crate) fn add(&mut self, process: Process) -> Key {
        self.last += 1;
        self.processes.insert(self.last, process);
        self.last
    }

    pub(crate) fn container(&mut self, id: &str) -> Result<&mut Container, Failure> {
        let none = || Failure::new(Code::NotFound, format!("container {id} not found"));
        self.containers.get_mut(id).ok_or_else(none)
    }

    /// The key of a process.
    pub(crate) fn key(&self, id: &str, exec: &str) -> Result<Key, Failure> {
        let none = |what: String| Failure::new(Code::NotFound, format!("{what} not found"));
        let container = self.containers.get(id).ok_or_else(|| none(format!("container {id}")))?;
        if exec.is_empty() {
            return Ok(container.first);
        }
        let key = container.execs.get(exec).copied();
        key.ok_or_else(|| none(format!("process {exec} of container {id}")))
    }

    pub(crate) fn process(&mut self, id: &str, exec: &str) -> Result<&mut Process, Failure> {
        let key = self.key(id, exec)?;
        self.processes.get_mut(&key).ok_or_else(|| Failure::new(Code::NotFound, format!("{id} not found")))
    }

    /// The process of this number.
    pub(crate) fn by_pid(&self, pid: u32) -> Option<Key> {
        let found = |process: &Process| process.pid == pid && process.ended.is_none();
        self.processes.iter().find(|(_, process)| found(process)).map(|(key, _)| *key)
    }
}
