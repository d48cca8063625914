//! Runs contenders in alternation and prints minimum, median and ratio of what they took.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};

/// One way to do a case's work.
pub(crate) struct Contender {
    /// Shown in the table.
    pub(crate) name: String,
    /// What is timed.
    pub(crate) command: Command,
    /// Done before each run and not timed, for example emptying a store.
    pub(crate) before: Option<Box<dyn FnMut() -> Result<()>>>,
    /// What standard output must contain; checked once, before anything is timed.
    pub(crate) prints: &'static str,
    /// Does the work in a daemon, so that its processor time is not seen here.
    pub(crate) in_daemon: bool,
}

impl Contender {
    pub(crate) fn new(name: &str, command: Command) -> Self {
        Self { name: name.to_owned(), command, before: None, prints: "", in_daemon: false }
    }

    pub(crate) fn prints(mut self, text: &'static str) -> Self {
        self.prints = text;
        self
    }

    pub(crate) fn before(mut self, act: impl FnMut() -> Result<()> + 'static) -> Self {
        self.before = Some(Box::new(act));
        self
    }

    pub(crate) fn in_daemon(mut self) -> Self {
        self.in_daemon = true;
        self
    }
}

/// What one run took.
#[derive(Debug, Clone, Copy)]
struct Sample {
    wall: Duration,
    cpu: Duration,
}

/// Compares the contenders; the first is what ratios refer to.
pub(crate) fn compare(mut contenders: Vec<Contender>, runs: usize) -> Result<()> {
    for contender in &mut contenders {
        check(contender).with_context(|| format!("{} does not work", contender.name))?;
    }
    let mut samples = vec![Vec::with_capacity(runs); contenders.len()];
    for round in 0..runs {
        // Everyone is first equally often, so that nobody always follows the same neighbour.
        for turn in 0..contenders.len() {
            let index = (round + turn) % contenders.len();
            samples[index].push(sample(&mut contenders[index])?);
        }
    }
    let base = minimum(&samples[0]);
    println!("{:<34} {:>10} {:>10} {:>8} {:>10} {:>5}", "", "min ms", "median ms", "ratio", "cpu ms", "runs");
    for (contender, samples) in contenders.iter().zip(&samples) {
        let min = minimum(samples);
        let cpu = median(samples.iter().map(|sample| sample.cpu));
        let cpu = if contender.in_daemon { "(daemon)".to_owned() } else { milliseconds(cpu) };
        println!(
            "{:<34} {:>10} {:>10} {:>8.2} {:>10} {:>5}",
            contender.name,
            milliseconds(min),
            milliseconds(median(samples.iter().map(|sample| sample.wall))),
            min.as_secs_f64() / base.as_secs_f64(),
            cpu,
            samples.len(),
        );
    }
    Ok(())
}

/// Runs it once and looks at what it printed.
fn check(contender: &mut Contender) -> Result<()> {
    if let Some(before) = &mut contender.before {
        before()?;
    }
    let output =
        contender.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success() && out.contains(contender.prints), "{}: {out}{err}", output.status);
    Ok(())
}

fn sample(contender: &mut Contender) -> Result<Sample> {
    if let Some(before) = &mut contender.before {
        before()?;
    }
    contender.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let used = children()?;
    let start = Instant::now();
    let status = contender.command.status()?;
    let wall = start.elapsed();
    ensure!(status.success(), "{}: {status}", contender.name);
    Ok(Sample { wall, cpu: children()?.saturating_sub(used) })
}

/// User and system time of everything that was waited for so far.
fn children() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = |time: nix::sys::time::TimeVal| {
        let micros = time.tv_sec() * 1_000_000 + time.tv_usec();
        Duration::from_micros(u64::try_from(micros).unwrap_or_default())
    };
    Ok(micros(usage.user_time()) + micros(usage.system_time()))
}

fn minimum(samples: &[Sample]) -> Duration {
    samples.iter().map(|sample| sample.wall).min().unwrap_or_default()
}

fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1000.0)
}
