//! Restart policies: the monitor of a container that has ended starts it again, after a pause.
//!
//! Docker's pauses: 100 ms, twice as much each time, a minute at most; from the beginning again once it has run for ten
//! seconds. While it waits, the container is `restarting` and has no process. Who stops it then leaves a mark and knocks at
//! the monitor's socket.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::Monitor;
use crate::config::Ended;
use crate::container::End;
use crate::error::Result;
use crate::marks::StoppedBy;
use crate::record::{Container, State, Status};
use crate::{attach, ports};

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);
/// Who has run for so long was started well.
const WELL: Duration = Duration::from_secs(10);

/// How often it was started again, and how long is waited next.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    pub(super) count: u32,
    pause: Option<Duration>,
}

impl Restarts {
    /// The pause after a run of this length.
    fn pause(&mut self, ran: Duration) -> Duration {
        let next = match self.pause.filter(|_| ran < WELL) {
            None => FIRST,
            Some(before) => (before * 2).min(LONGEST),
        };
        self.pause = Some(next);
        next
    }
}

impl Monitor<'_> {
    /// After an end: whether the container is to run again now. Of one that is not, nothing is changed.
    pub(super) fn runs_again(&mut self, end: &End, since: Instant) -> Result<bool> {
        // Renamed or updated while it ran.
        if let Ok(now) = Container::load(self.container.folder().to_owned()) {
            self.container = now;
        }
        let policy = &self.container.record.host_config.restart_policy;
        let stopped = self.container.stopped_by().is_some();
        let ended = Ended { code: end.code, restarts: self.restarts.count, stopped };
        if end.error.is_some() || !policy.again(ended) {
            return Ok(false);
        }
        let pause = self.restarts.pause(since.elapsed());
        self.restarts.count = self.restarts.count.saturating_add(1);
        self.engine.tell_end(&self.container.record, end);
        let edit = self.container.edit()?;
        let before = self.container.state()?;
        self.container.set_state(&State {
            status: Status::Restarting,
            pid: 0,
            pid_started: None,
            exit_code: end.code,
            oom_killed: end.oom_killed,
            ports: ports::PortMap::new(),
            networks: std::collections::BTreeMap::new(),
            finished_at: Some(Timestamp::now()),
            restart_count: self.restarts.count,
            ..before
        })?;
        drop(edit);
        self.told_end = true;
        // For them it is over: as with Docker nobody stays for the next run.
        self.company.dismiss(end.code);
        Ok(self.waits(pause)? && self.container.stopped_by().is_none())
    }

    /// Waits until it is time; `false` when somebody has stopped the container.
    fn waits(&mut self, pause: Duration) -> Result<bool> {
        let until = Instant::now() + pause;
        loop {
            if self.container.stopped_by().is_some() {
                return Ok(false);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(true);
            }
            let left = Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut fds = Vec::new();
            if let Some(listener) = &self.company.listener {
                fds.push(PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN));
            }
            match poll(&mut fds, Some(&left)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(std::io::Error::from(error).into()),
            }
            // Who only knocks has gone by now, and there is nothing to be seen for the others.
            self.company.turn_away();
        }
    }
}

impl Container {
    /// Keeps its monitor from starting it again, and tells it so where it only waits for that.
    pub(crate) fn stays_stopped(&self, by: StoppedBy) -> Result<()> {
        self.mark_stopped(by)?;
        if self.state().is_ok_and(|state| state.status == Status::Restarting) {
            // It looks for the mark itself, at the end of its pause.
            drop(attach::connect(self.folder()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double() {
        let mut restarts = Restarts::default();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            pauses.push(restarts.pause(Duration::from_millis(5)).as_millis());
        }
        assert_eq!(pauses[..4], [100, 200, 400, 800]);
        assert_eq!(pauses.last(), Some(&60_000));
        assert_eq!(restarts.pause(WELL), FIRST);
    }
}
