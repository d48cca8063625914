//! Runs contenders in alternation and prints what they took, beside the bar where there is one.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::cost::{Peak, cpu, peak_of, reap};

/// Something done before or after a run, and not timed.
type Act = Box<dyn FnMut() -> Result<()>>;

/// One way to do a case's work.
pub(crate) struct Contender {
    /// Shown in the table.
    pub(crate) name: String,
    /// What is timed: these processes, all started at once.
    commands: Vec<Command>,
    /// For example emptying a store.
    before: Option<Act>,
    /// For example looking at what is there now.
    after: Option<Act>,
    /// What the first one's standard output must contain; checked once, before anything is timed.
    prints: &'static str,
    /// How each ends.
    code: i32,
    /// Whose processor time and memory count too.
    daemons: Vec<u32>,
    bars: Vec<Bar>,
}

/// What the project wants of its own figures. The first contender of a case is Dhow, unless said otherwise.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bar {
    /// Of a peer: the first contender takes at most this share of its time, wall and processor.
    Share(f64),
    /// This one takes at most so long.
    AtMost(Duration),
    /// This one takes at most so much longer than the first.
    Plus(Duration),
    /// This one takes at most so many times as long as the first.
    Times(f64),
    /// This one's memory never exceeds so many bytes.
    Memory(u64),
}

impl Contender {
    pub(crate) fn new(name: &str, command: Command) -> Self {
        Self::all_at_once(name, vec![command])
    }

    /// Several processes that start together; all of them must end well.
    pub(crate) fn all_at_once(name: &str, commands: Vec<Command>) -> Self {
        let name = name.to_owned();
        Self {
            name,
            commands,
            before: None,
            after: None,
            prints: "",
            code: 0,
            daemons: Vec::new(),
            bars: Vec::new(),
        }
    }

    pub(crate) fn prints(mut self, text: &'static str) -> Self {
        self.prints = text;
        self
    }

    pub(crate) fn ends_with(mut self, code: i32) -> Self {
        self.code = code;
        self
    }

    pub(crate) fn before(mut self, act: impl FnMut() -> Result<()> + 'static) -> Self {
        self.before = Some(Box::new(act));
        self
    }

    pub(crate) fn after(mut self, act: impl FnMut() -> Result<()> + 'static) -> Self {
        self.after = Some(Box::new(act));
        self
    }

    /// The processes of a daemon that does the work.
    pub(crate) fn daemons(mut self, pids: impl IntoIterator<Item = u32>) -> Self {
        self.daemons = pids.into_iter().collect();
        self
    }

    pub(crate) fn bar(mut self, bar: Bar) -> Self {
        self.bars.push(bar);
        self
    }
}

/// What one run took.
#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    wall: Duration,
    cpu: Duration,
}

/// What a contender took in all its runs.
struct Summary {
    min: Sample,
    median: Sample,
    peak: u64,
}

/// Compares the contenders; the first is what ratios refer to.
pub(crate) fn compare(all: Vec<Contender>, runs: usize) -> Result<()> {
    let (mut contenders, mut peaks) = (Vec::with_capacity(all.len()), Vec::new());
    for mut contender in all {
        // Looking costs time, so the run that is looked at is none of those that are timed.
        match check(&mut contender).and_then(|()| peak(&mut contender)) {
            Ok(peak) => {
                peaks.push(peak);
                contenders.push(contender);
            }
            Err(error) => println!("({} does not work and is left out: {error:#})", contender.name),
        }
    }
    ensure!(!contenders.is_empty(), "nothing is left to be measured");
    let mut samples = vec![Vec::with_capacity(runs); contenders.len()];
    for round in 0..runs {
        // Everyone is first equally often, so that nobody always follows the same neighbour.
        for turn in 0..contenders.len() {
            let index = (round + turn) % contenders.len();
            samples[index].push(run(&mut contenders[index], false)?.0);
        }
    }
    let summaries: Vec<Summary> =
        samples.iter().zip(peaks).map(|(samples, peak)| summary(samples, peak)).collect();
    println!(
        "{:<40} {:>9} {:>9} {:>7} {:>9} {:>9} {:>8}  bar",
        "", "min ms", "median ms", "ratio", "cpu ms", "cpu min", "peak MB"
    );
    for (contender, summary) in contenders.iter().zip(&summaries) {
        let bars: Vec<String> =
            contender.bars.iter().map(|bar| bar.verdict(&summaries[0], summary)).collect();
        println!(
            "{:<40} {:>9} {:>9} {:>7.2} {:>9} {:>9} {:>8.1}  {}",
            contender.name,
            milliseconds(summary.min.wall),
            milliseconds(summary.median.wall),
            share(summary.min.wall, summaries[0].min.wall),
            milliseconds(summary.median.cpu),
            milliseconds(summary.min.cpu),
            megabytes(summary.peak),
            bars.join("; "),
        );
    }
    Ok(())
}

impl Bar {
    fn verdict(self, first: &Summary, this: &Summary) -> String {
        let word = |met: bool| if met { "met" } else { "MISSED" };
        match self {
            Self::Share(most) => {
                let (wall, cpu) = (share(first.min.wall, this.min.wall), share(first.min.cpu, this.min.cpu));
                let median = share(first.median.wall, this.median.wall);
                let met = wall <= most && cpu <= most;
                format!("wall {wall:.3} (median {median:.3}), cpu {cpu:.3} of it <= {most}: {}", word(met))
            }
            Self::AtMost(most) => format!("<= {} ms: {}", most.as_millis(), word(this.min.wall <= most)),
            Self::Plus(most) => {
                let plus = this.min.wall.saturating_sub(first.min.wall);
                format!("+{} ms <= +{} ms: {}", milliseconds(plus), most.as_millis(), word(plus <= most))
            }
            Self::Times(most) => {
                let times = share(this.min.wall, first.min.wall);
                format!("{times:.2} times the first <= {most}: {}", word(times <= most))
            }
            Self::Memory(most) => format!("<= {:.0} MB: {}", megabytes(most), word(this.peak <= most)),
        }
    }
}

/// Runs it once and looks at what it printed.
fn check(contender: &mut Contender) -> Result<()> {
    if let Some(before) = &mut contender.before {
        before()?;
    }
    for (n, command) in contender.commands.iter_mut().enumerate() {
        if n > 0 && contender.before.is_some() {
            // The others do the same; that they do is seen when they are timed.
            break;
        }
        let output = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).output()?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(
            output.status.code() == Some(contender.code) && out.contains(contender.prints),
            "{}: {out}{err}",
            output.status
        );
    }
    if let Some(after) = &mut contender.after {
        after()?;
    }
    Ok(())
}

/// The most memory in one run: as the kernel has counted it where one process does everything, else as looked at every
/// millisecond.
fn peak(contender: &mut Contender) -> Result<u64> {
    // What is ended only afterwards cannot be waited for.
    if contender.commands.len() > 1 || !contender.daemons.is_empty() || contender.after.is_some() {
        return Ok(run(contender, true)?.1);
    }
    if let Some(before) = &mut contender.before {
        before()?;
    }
    let peak = peak_of(&contender.commands[0])?;
    if let Some(after) = &mut contender.after {
        after()?;
    }
    Ok(peak)
}

/// One run, and the most memory it used if `watched`.
fn run(contender: &mut Contender, watched: bool) -> Result<(Sample, u64)> {
    if let Some(before) = &mut contender.before {
        before()?;
    }
    for command in &mut contender.commands {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    }
    let peak = watched.then(|| Peak::of(&contender.daemons));
    let used = cpu(&contender.daemons)?;
    let start = Instant::now();
    let mut children = Vec::with_capacity(contender.commands.len());
    for command in &mut contender.commands {
        children.push(command.spawn()?);
    }
    let most = peak.map_or(0, |mut peak| peak.watch(&mut children));
    for child in &mut children {
        let status = child.wait()?;
        ensure!(status.code() == Some(contender.code), "{}: {status}", contender.name);
    }
    let wall = start.elapsed();
    reap();
    let cpu = cpu(&contender.daemons)?.saturating_sub(used);
    if let Some(after) = &mut contender.after {
        after()?;
    }
    Ok((Sample { wall, cpu }, most))
}

fn summary(samples: &[Sample], peak: u64) -> Summary {
    let sorted = |of: fn(&Sample) -> Duration| {
        let mut times: Vec<Duration> = samples.iter().map(of).collect();
        times.sort_unstable();
        let at = |n: usize| times.get(n).copied().unwrap_or_default();
        (at(0), at(times.len() / 2))
    };
    let (wall, cpu) = (sorted(|sample| sample.wall), sorted(|sample| sample.cpu));
    Summary { min: Sample { wall: wall.0, cpu: cpu.0 }, median: Sample { wall: wall.1, cpu: cpu.1 }, peak }
}

fn share(part: Duration, whole: Duration) -> f64 {
    part.as_secs_f64() / whole.as_secs_f64().max(1e-6)
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1000.0)
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
