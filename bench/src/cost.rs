//! What processes cost: processor time of children and daemons, and the most memory they ever held.

use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use rustix::process::WaitOptions;

/// User and system time so far: of everything that was waited for, and of these daemons with all that they waited for.
///
/// A daemon's time comes in steps of 10 ms.
pub(crate) fn cpu(daemons: &[u32]) -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = |time: TimeVal| {
        let micros = time.tv_sec() * 1_000_000 + time.tv_usec();
        Duration::from_micros(u64::try_from(micros).unwrap_or_default())
    };
    let own = micros(usage.user_time()) + micros(usage.system_time());
    Ok(own + daemons.iter().map(|pid| of_daemon(*pid)).sum::<Duration>())
}

/// Fields 14 to 17 of `/proc/PID/stat`, in hundredths of a second.
fn of_daemon(pid: u32) -> Duration {
    let text = fs_err::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may contain anything.
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// From now on this process is the parent of whatever its children leave behind.
pub(crate) fn adopt() -> Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Waits until nothing is left of what a run has left behind, as far as that ends at once: daemons do not.
pub(crate) fn reap() {
    for _ in 0..10 {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => sleep(Duration::from_millis(1)),
            // Nobody is left.
            Err(_) => return,
        }
    }
}

/// First argument of a call of this very program that only tells how much memory a command takes.
pub(crate) const PEAK_OF: &str = "--peak-of";

/// The most memory a command or a process that it waited for ever held, in bytes. The kernel counts what a process had
/// before it became the command, too, which is why a small and fresh one starts it.
pub(crate) fn peak_of(command: &Command) -> Result<u64> {
    let mut fresh = Command::new(std::env::current_exe()?);
    fresh.arg(PEAK_OF).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => fresh.env(name, value),
            None => fresh.env_remove(name),
        };
    }
    let output = fresh.stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim()
        .parse()
        .with_context(|| format!("{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// What a call with [`PEAK_OF`] does.
pub(crate) fn print_peak(mut words: impl Iterator<Item = std::ffi::OsString>) -> Result<()> {
    // What is left to itself before it has ended counts as well: a Wasm program's container is such a process.
    adopt()?;
    let mut command = Command::new(words.next().context("a program")?);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    while rustix::process::wait(WaitOptions::empty()).is_ok() {}
    let kilobytes = u64::try_from(getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss())?;
    println!("{}", kilobytes * 1024);
    Ok(())
}

/// Watches how much memory processes hold at most.
#[derive(Debug)]
pub(crate) struct Peak {
    daemons: Vec<u32>,
}

impl Peak {
    /// Forgets what these daemons held before.
    pub(crate) fn of(daemons: &[u32]) -> Self {
        for pid in daemons {
            // The kernel starts a new peak; where it may not be asked, the figure is that of the whole life.
            fs_err::write(format!("/proc/{pid}/clear_refs"), "5").ok();
        }
        Self { daemons: daemons.to_vec() }
    }

    /// Looks again and again until all children have ended: the largest child and the daemons, in bytes.
    pub(crate) fn watch(&mut self, children: &mut [Child]) -> u64 {
        let mut most = 0;
        while children.iter_mut().any(|child| matches!(child.try_wait(), Ok(None))) {
            most = children.iter().map(|child| held(child.id())).fold(most, u64::max);
            sleep(Duration::from_millis(1));
        }
        most + self.daemons.iter().map(|pid| held(*pid)).sum::<u64>()
    }
}

/// `VmHWM`: the most a process has held so far; nothing once it has ended.
fn held(pid: u32) -> u64 {
    let text = fs_err::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap_or_default();
    kilobytes * 1024
}
