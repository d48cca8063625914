//! `ps`: list containers.

use std::borrow::Cow;

use anyhow::Result;
use clap::Args;
use dhow_engine::container::list::Query;
use dhow_engine::error::short;
use dhow_engine::mounts::MountKind;
use dhow_engine::record::Container;
use dhow_engine::{State, Status};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::args::Global;
use crate::commands::port;
use crate::context;
use crate::table;
use crate::ui::Ui;
use crate::units;

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Show all, not only running ones
    #[arg(short, long)]
    all: bool,
    /// Print only ids
    #[arg(short, long)]
    quiet: bool,
    /// Only what fits: ancestor, before, exited, expose, health, id, label, name (a regular expression, or a
    /// part of it), network, publish, since, status, volume
    #[arg(short, long = "filter", value_name = "KEY=VALUE", value_parser = crate::filter::parse)]
    filters: Vec<crate::filter::Filter>,
    /// Show what the files of each take
    #[arg(short, long)]
    size: bool,
    /// Do not shorten anything
    #[arg(long)]
    no_trunc: bool,
    /// Show the newest NUMBER, in any state
    #[arg(short = 'n', long, value_name = "NUMBER")]
    last: Option<usize>,
    /// Show the newest, in any state
    #[arg(short, long)]
    latest: bool,
    /// `table`, `json`, or a Go template such as `{{.Names}}`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

const COLUMNS: [(&str, &str); 11] = [
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
    ("Size", "SIZE"),
    // Only for formats.
    ("CreatedAt", "CREATED AT"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("RunningFor", "CREATED"),
];

/// How many columns there are without being asked for, without sizes.
const USUAL: usize = 7;

pub(crate) fn run(ui: &Ui, global: &Global, args: &PsArgs) -> Result<u8> {
    let engine = context::engine(global)?;
    let limit = if args.latest { Some(1) } else { args.last };
    let now = Timestamp::now();
    let listed = engine.list(&Query { all: args.all, limit, filters: args.filters.clone() })?;
    let is_plain = args.format.as_deref().is_none_or(|format| matches!(format, "" | "table"));
    if is_plain && !args.size && !args.quiet {
        let cells = listed.iter().map(|one| cells(&one.container, &one.state, now, args.no_trunc));
        let titles = [0, 1, 2, 3, 4, 5, 6].map(|at| COLUMNS[at].1);
        ui.print(&table::render_cells(titles, cells));
        return Ok(0);
    }
    let mut rows: Vec<Value> =
        listed.iter().map(|one| row(&one.container, &one.state, now, args.no_trunc)).collect();
    let wants_size = args.size
        || args.format.as_deref().is_some_and(|format| format == "json" || format.contains(".Size"));
    if wants_size && !args.quiet {
        for (row, size) in rows.iter_mut().zip(engine.sizes(&listed)?) {
            let own = units::human_size(size.own);
            let all = units::human_size(size.all);
            row["Size"] = if size.all > 0 { format!("{own} (virtual {all})") } else { own }.into();
        }
    }
    let usual = if args.size { USUAL + 1 } else { USUAL };
    let columns = match args.format.as_deref() {
        None | Some("" | "table") => &COLUMNS[..usual],
        Some(_) => &COLUMNS[..],
    };
    if args.quiet && args.format.is_none() {
        for row in &rows {
            ui.line(row["ID"].as_str().unwrap_or_default());
        }
        return Ok(0);
    }
    ui.print(&table::render_format(args.format.as_deref(), columns, &rows)?);
    Ok(0)
}

/// Its program and arguments, as the column has it.
fn command(container: &Container, whole: bool) -> String {
    let command = container.record.args.iter().map(|arg| quoted(arg)).collect::<Vec<_>>().join(" ");
    if whole || command.chars().count() <= 20 {
        format!("\"{command}\"")
    } else {
        format!("\"{}…\"", command.chars().take(19).collect::<String>())
    }
}

/// The usual columns of one container, and nothing that is not shown.
fn cells(container: &Container, state: &State, now: Timestamp, whole: bool) -> [String; USUAL] {
    let record = &container.record;
    [
        if whole { record.id.clone() } else { short(&record.id).to_owned() },
        record.config.image.clone(),
        command(container, whole),
        format!("{} ago", units::human_duration(now.duration_since(record.created))),
        status(container, state, now),
        port::column(&container.ports(state)),
        record.name.clone(),
    ]
}

/// The fields of one container.
pub(crate) fn row(container: &Container, state: &State, now: Timestamp, whole: bool) -> Value {
    let record = &container.record;
    let id = if whole { record.id.as_str() } else { short(&record.id) };
    let volumes = record.mounts.iter().filter(|point| point.kind == MountKind::Volume).count();
    let mounts: Vec<String> = record
        .mounts
        .iter()
        .filter(|point| point.kind != MountKind::Tmpfs)
        .map(|point| if point.name.is_empty() { &point.source } else { &point.name })
        .map(|name| match name.char_indices().nth(15) {
            Some(_) if !whole => format!("{}…", name.chars().take(14).collect::<String>()),
            _ => name.clone(),
        })
        .collect();
    let age = units::human_duration(now.duration_since(record.created));
    json!({
        "ID": id,
        "Image": record.config.image,
        "Command": command(container, whole),
        "CreatedAt": units::created_at(record.created, TimeZone::system()),
        "RunningFor": format!("{age} ago"),
        "Status": status(container, state, now),
        "State": state.status.as_str(),
        "Ports": port::column(&container.ports(state)),
        "Names": record.name,
        "Labels": record.config.labels,
        "LocalVolumes": volumes.to_string(),
        "Mounts": mounts.join(","),
        "Size": "0B",
        "Networks": networks(record),
        "Platform": record.image.as_ref().map_or("wasi/wasm", |image| image.platform.as_str()),
    })
}

/// Docker quotes what contains a space, and only that.
fn quoted(argument: &str) -> Cow<'_, str> {
    if argument.contains(' ') { format!("'{argument}'").into() } else { argument.into() }
}

/// As Docker says it: `Up 3 minutes`, `Exited (0) 5 seconds ago`.
fn status(container: &Container, state: &State, now: Timestamp) -> String {
    let since = |time: Option<Timestamp>| units::human_duration(now.duration_since(time.unwrap_or(now)));
    match state.status {
        Status::Created => "Created".to_owned(),
        Status::Running => {
            let health = match container.health_status(state).as_str() {
                "none" => String::new(),
                "starting" => " (health: starting)".to_owned(),
                known => format!(" ({known})"),
            };
            format!("Up {}{health}", since(state.started_at))
        }
        Status::Paused => format!("Up {} (Paused)", since(state.started_at)),
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, since(state.finished_at)),
        Status::Restarting => {
            format!("Restarting ({}) {} ago", state.exit_code, since(state.finished_at))
        }
        Status::Dead => "Dead".to_owned(),
    }
}

/// Names of its networks, or its network mode.
fn networks(record: &dhow_engine::record::Record) -> String {
    let memberships = record.memberships();
    match memberships.is_empty() {
        true => record.host_config.network_mode.clone(),
        false => memberships.iter().map(|one| one.network.as_str()).collect::<Vec<_>>().join(","),
    }
}
