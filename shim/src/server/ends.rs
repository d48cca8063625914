//! Ends: of processes, and of memory.

use dhow_runtime::{Signal, oci};
use rustix::process::{WaitOptions, wait};

use super::Server;
use crate::clock;
use crate::messages::Waited;
use crate::messages::events::{TaskExit, TaskWord};
use crate::pod::{Key, Phase};
use crate::service;

/// The most ends of unknown processes that are remembered.
const STRANGERS: usize = 1024;

impl Server {
    /// Buries every child that has ended: containers' processes, jobs, and orphans of either.
    pub(super) fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let pid = pid.as_raw_nonzero().get().cast_unsigned();
            let signal = status.terminating_signal().map(|signal| 128 + signal.cast_unsigned());
            let code = status.exit_status().map(i32::cast_unsigned);
            let Some(status) = signal.or(code) else { continue };
            match self.pod.by_pid(pid) {
                Some(key) => self.is_over(key, status),
                None if self.sandbox.is_held_by(pid) => service::sandbox::ended(self, status),
                None if !self.jobs.is_empty() && self.strangers.len() < STRANGERS => {
                    self.strangers.insert(pid, status);
                }
                None => {}
            }
        }
    }

    /// A process is over; who starts it tells so first.
    fn is_over(&mut self, key: Key, status: u32) {
        let Some(process) = self.pod.processes.get_mut(&key) else { return };
        if matches!(process.phase, Phase::Creating | Phase::Starting) {
            process.early = Some(status);
        } else {
            self.ended(key, status, true);
        }
    }

    /// Writes down the end of a process, and tells everybody, if it ran.
    pub(super) fn ended(&mut self, key: Key, status: u32, ran: bool) {
        let Some(process) = self.pod.processes.get_mut(&key) else { return };
        if process.ended.is_some() {
            return;
        }
        process.ended = Some(Waited { exit_status: status, exited_at: Some(clock::now()) });
        if process.phase != Phase::Deleting {
            process.phase = Phase::Ended;
        }
        // Readers are told the end now.
        process.kept.clear();
        process.input = None;
        process.terminal = None;
        let (id, exec) = (process.container.clone(), process.exec.clone());
        let pumps = process.pumps.clone();
        self.end_pumps(&pumps);
        if exec.is_empty() {
            self.look_at_memory(&id);
            let shares = self.pod.containers.get(&id).is_some_and(|container| container.shares_processes);
            if shares && let Ok(container) = oci::Container::open(&self.root, &id) {
                // Nobody is left is fine.
                container.kill(Signal::KILL, true).ok();
            }
            if self.others_run(&id) {
                if let Some(container) = self.pod.containers.get_mut(&id) {
                    container.untold = true;
                }
                return;
            }
        }
        if ran {
            self.tell(key);
        } else {
            self.answer_waiters(key);
        }
        if !exec.is_empty() && !self.others_run(&id) {
            let container = self.pod.containers.get_mut(&id);
            if let Some(first) = container.filter(|container| container.untold).map(|container| {
                container.untold = false;
                container.first
            }) {
                self.tell(first);
            }
        }
    }

    /// Whether processes that have joined a container are still there.
    fn others_run(&self, id: &str) -> bool {
        let Some(container) = self.pod.containers.get(id) else { return false };
        let runs =
            |key: &Key| self.pod.processes.get(key).is_some_and(|process| process.phase == Phase::Running);
        container.execs.values().any(runs)
    }

    /// Tells of an end: the event, then who waits.
    fn tell(&mut self, key: Key) {
        let Some(process) = self.pod.processes.get(&key) else { return };
        let Some(end) = process.ended else { return };
        let event = TaskExit {
            container_id: process.container.clone(),
            id: process.name().to_owned(),
            pid: process.pid,
            exit_status: end.exit_status,
            exited_at: end.exited_at,
        };
        self.publisher.publish("/tasks/exit", "TaskExit", &event);
        self.answer_waiters(key);
    }

    fn answer_waiters(&mut self, key: Key) {
        let Some(process) = self.pod.processes.get_mut(&key) else { return };
        let Some(end) = process.ended else { return };
        let waiters = std::mem::take(&mut process.waiters);
        for waiter in waiters {
            self.reply_with(waiter, &end);
        }
    }

    /// Asks whether the kernel has ended one of a container's processes for want of memory.
    pub(super) fn look_at_memory(&mut self, id: &str) {
        let Some(container) = self.pod.containers.get_mut(id) else { return };
        let Some((memory, before)) = &mut container.memory else { return };
        match memory.acknowledge() {
            Some(count) if count > *before => {
                *before = count;
                self.publisher.publish("/tasks/oom", "TaskOOM", &TaskWord { container_id: id.to_owned() });
            }
            Some(_) => {}
            // Its group is gone.
            None => container.memory = None,
        }
    }
}
