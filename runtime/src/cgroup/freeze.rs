//! Stopping all processes of a group, letting them go on, and killing them.
//!
//! Version 2 does each in one write. Version 1 freezes by degrees, and has no way to kill: there the group is frozen first,
//! so that nothing in it can have children meanwhile.

use std::path::Path;
use std::time::{Duration, Instant};

use fs_err as fs;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};

use super::hierarchy::Hierarchies;
use super::oci::{OciGroup, write};
use super::{Group, files};
use crate::error::{Error, Result};

/// Nobody waits longer for a group.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);

impl OciGroup {
    /// Stops every process, and waits until all are.
    ///
    /// # Errors
    /// When one cannot be stopped within ten seconds; the group goes on then.
    pub fn freeze(&self) -> Result<()> {
        self.set_frozen(true).inspect_err(|_| {
            // What was stopped shall not stay so.
            self.set_frozen(false).ok();
        })
    }

    /// Lets every process go on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn thaw(&self) -> Result<()> {
        self.set_frozen(false)
    }

    /// Whether all of it is stopped.
    pub fn is_frozen(&self) -> bool {
        if let Some(path) = self.first_with("freezer") {
            return fs::read_to_string(path.join("freezer.state"))
                .is_ok_and(|state| state.trim() == "FROZEN");
        }
        self.second.as_ref().is_some_and(|path| frozen(path) == Some(true))
    }

    fn set_frozen(&self, freeze: bool) -> Result<()> {
        if let Some(path) = self.first_with("freezer") {
            return first(path, freeze);
        }
        match &self.second {
            Some(path) => second(path, freeze),
            None => Err(Error::Host {
                what: "this host has no control group that can be stopped".to_owned(),
                hint: "mount cgroup2, or the freezer of version 1".to_owned(),
            }),
        }
    }

    /// Kills every process, those that are stopped or being born, too.
    ///
    /// # Errors
    /// When some are left after ten seconds.
    pub fn kill_all(&self) -> Result<()> {
        if let Some(path) = &self.second
            && write(path, "cgroup.kill", "1").is_ok()
        {
            // A killed process of a version 1 freezer dies only when it goes on.
            return if self.is_frozen() { self.thaw() } else { Ok(()) };
        }
        let end = Instant::now() + PATIENCE;
        loop {
            // Without a freezer it takes some rounds.
            let stopped = self.first_with("freezer").is_some() && self.freeze().is_ok();
            let pids = self.pids()?;
            for pid in pids.iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?)) {
                // It may be gone by now.
                kill_process(pid, Signal::KILL).ok();
            }
            if stopped {
                self.thaw()?;
            }
            if pids.is_empty() || stopped {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(Error::Setup {
                    action: format!("kill {} processes", pids.len()),
                    source: std::io::ErrorKind::TimedOut.into(),
                });
            }
            std::thread::sleep(PAUSE);
        }
    }
}

impl Group {
    /// The group in which a container of this name can be stopped; made if there is none. Processes are put into it by
    /// [`Group::add`], and stand still as soon as they are in one that does.
    ///
    /// # Errors
    /// [`Error::Host`] when this host has none that is ours to make.
    pub fn to_freeze(name: &str) -> Result<Self> {
        let part = Hierarchies::of_this_process()?.to_freeze(name)?;
        Ok(Self { parts: vec![part] })
    }

    /// Stops every process in it, and waits until all are.
    ///
    /// # Errors
    /// When one cannot be stopped within ten seconds; the group goes on then.
    pub fn freeze(&self) -> Result<()> {
        self.set_frozen(true).inspect_err(|_| drop(self.set_frozen(false)))
    }

    /// Lets all go on that stand still, in whichever hierarchy.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn thaw(&self) -> Result<()> {
        self.set_frozen(false)
    }

    fn set_frozen(&self, freeze: bool) -> Result<()> {
        for part in &self.parts {
            let done = if part.path.join("freezer.state").exists() {
                first(&part.path, freeze)
            } else if part.unified && part.path.join("cgroup.freeze").exists() {
                second(&part.path, freeze)
            } else {
                Ok(())
            };
            // A group that is gone by now has nothing in it that could stand still.
            if part.path.exists() {
                done?;
            }
        }
        Ok(())
    }
}

/// A process that is being traced or waits for a disk may take a while; one that is being born may have to be let go on
/// once more.
fn first(path: &Path, freeze: bool) -> Result<()> {
    let wanted = if freeze { "FROZEN" } else { "THAWED" };
    let end = Instant::now() + PATIENCE;
    let mut round = 0_u32;
    loop {
        if freeze && round % 50 == 49 {
            write(path, "freezer.state", "THAWED")?;
            std::thread::sleep(PAUSE);
        }
        write(path, "freezer.state", wanted)?;
        let file = path.join("freezer.state");
        let state = fs::read_to_string(&file).map_err(|source| Error::Io { path: file, source })?;
        if state.trim() == wanted {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(timed_out(path, wanted));
        }
        round += 1;
        std::thread::sleep(PAUSE);
    }
}

fn second(path: &Path, freeze: bool) -> Result<()> {
    let events = path.join("cgroup.events");
    let file = fs::File::open(&events).map_err(|source| Error::Io { path: events, source })?;
    write(path, "cgroup.freeze", if freeze { "1" } else { "0" })?;
    let end = Instant::now() + PATIENCE;
    // It may go meanwhile.
    while frozen(path).is_some_and(|frozen| frozen != freeze) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(timed_out(path, if freeze { "frozen" } else { "thawed" }));
        }
        // The kernel tells of a change; asked for again in any case.
        let part = left.min(Duration::from_millis(50));
        let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(part.subsec_nanos()) };
        poll(&mut [PollFd::new(&file, PollFlags::PRI)], Some(&wait)).ok();
    }
    Ok(())
}

fn frozen(path: &Path) -> Option<bool> {
    let text = fs::read_to_string(path.join("cgroup.events")).ok()?;
    Some(files::field(&text, "frozen") == 1)
}

fn timed_out(path: &Path, wanted: &str) -> Error {
    Error::Setup {
        action: format!("make {} {}", path.display(), wanted.to_lowercase()),
        source: std::io::ErrorKind::TimedOut.into(),
    }
}
