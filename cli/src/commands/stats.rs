//! `stats`: what containers use, as a table that lives on a terminal.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use dhow_engine::container::stats::Sample;
use dhow_engine::error::short;
use dhow_engine::record::Container;
use dhow_engine::{Engine, Error};
use serde_json::{Value, json};

use crate::args::Global;
use crate::context;
use crate::table;
use crate::ui::Ui;
use crate::units::{bytes_size, human_size};

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Show all containers, not only running ones
    #[arg(short, long)]
    all: bool,
    /// `table`, `json`, or a Go template such as `{{.Name}} {{.CPUPerc}}`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Print once, and end
    #[arg(long)]
    no_stream: bool,
    /// Do not shorten anything
    #[arg(long)]
    no_trunc: bool,
    /// Names or ids [default: all that run]
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

const COLUMNS: [(&str, &str); 9] = [
    ("ID", "CONTAINER ID"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
    // Only for formats.
    ("Container", "CONTAINER"),
];

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// What is not known.
const UNKNOWN: &str = "--";
/// To the upper left, everything below is empty.
const CLEAR: &str = "\x1b[H\x1b[J";

pub(crate) fn run(ui: &Ui, global: &Global, args: &StatsArgs) -> Result<u8> {
    let engine = context::engine(global)?;
    // Who is not there at the beginning is a mistake; who goes meanwhile is not.
    for wanted in &args.containers {
        engine.container(wanted)?;
    }
    let clears = !args.no_stream && std::io::stdout().is_terminal();
    let mut before = samples(&look(&engine, args)?, &engine)?;
    if clears {
        ui.print(&format!("\x1b[2J{}", render(args, &[])?));
    }
    loop {
        sleep(INTERVAL);
        let containers = look(&engine, args)?;
        let now = samples(&containers, &engine)?;
        let rows: Vec<Value> = containers
            .iter()
            .map(|(wanted, container)| {
                let id = &container.record.id;
                let sample = now.get(id).and_then(Option::as_ref);
                row(wanted, container, sample, before.get(id).and_then(Option::as_ref), args.no_trunc)
            })
            .collect();
        let text = render(args, &rows)?;
        ui.print(&if clears { format!("{CLEAR}{text}") } else { text });
        let all_gone = !args.containers.is_empty() && containers.is_empty();
        if args.no_stream || all_gone {
            return Ok(0);
        }
        before = now;
    }
}

fn render(args: &StatsArgs, rows: &[Value]) -> Result<String> {
    Ok(table::render_format(args.format.as_deref(), &COLUMNS[..8], rows)?)
}

/// The containers to show, with the words that they were asked for by.
fn look(engine: &Engine, args: &StatsArgs) -> Result<Vec<(String, Container)>> {
    let mut found = Vec::new();
    if args.containers.is_empty() {
        for container in engine.containers()? {
            if args.all || container.state()?.status.is_alive() {
                found.push((container.record.id.clone(), container));
            }
        }
        return Ok(found);
    }
    for wanted in &args.containers {
        match engine.container(wanted) {
            Ok(container) => found.push((wanted.clone(), container)),
            Err(Error::NoSuchContainer(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

fn samples(containers: &[(String, Container)], engine: &Engine) -> Result<HashMap<String, Option<Sample>>> {
    let mut samples = HashMap::new();
    for (_, container) in containers {
        samples.insert(container.record.id.clone(), engine.sample(container)?);
    }
    Ok(samples)
}

fn row(
    wanted: &str,
    container: &Container,
    now: Option<&Sample>,
    before: Option<&Sample>,
    whole: bool,
) -> Value {
    let record = &container.record;
    let id = if whole { record.id.as_str() } else { short(&record.id) };
    let pair = |pair: Option<(u64, u64)>| {
        pair.map_or(UNKNOWN.to_owned(), |(one, two)| format!("{} / {}", human_size(one), human_size(two)))
    };
    let percent = |value: Option<f64>| value.map_or(UNKNOWN.to_owned(), |value| format!("{value:.2}%"));
    // One that does not run uses nothing.
    let zero = Some((0, 0));
    let (memory, limit) = now.map_or((Some(0), Some(0)), |now| (now.memory, now.memory_limit));
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let share = memory.zip(limit).map(|(memory, limit)| match limit {
        0 => 0.0,
        limit => memory as f64 / limit as f64 * 100.0,
    });
    let cpu = match (now, before) {
        (None, _) => Some(0.0),
        (Some(now), Some(before)) => now.cpu_percent(before),
        // It has just been started.
        (Some(_), None) => None,
    };
    let shown = |bytes: Option<u64>| bytes.map_or(UNKNOWN.to_owned(), bytes_size);
    json!({
        "Container": wanted,
        "ID": id,
        "Name": record.name,
        "CPUPerc": percent(cpu),
        "MemUsage": format!("{} / {}", shown(memory), shown(limit)),
        "MemPerc": percent(share),
        "NetIO": pair(now.map_or(zero, |now| now.network)),
        "BlockIO": pair(now.map_or(zero, |now| now.block)),
        "PIDs": now.map_or(Some(0), |now| now.pids).map_or(UNKNOWN.to_owned(), |count| count.to_string()),
    })
}
