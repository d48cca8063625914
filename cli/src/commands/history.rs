//! `history`: the steps that made an image.

use anyhow::Result;
use clap::{ArgAction, Args};
use dhow_engine::error::short;
use dhow_engine::image::Step;
use dhow_engine::images::{Matcher, Platform};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::args::Global;
use crate::context;
use crate::table;
use crate::ui::Ui;
use crate::units;

#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// `table`, `json`, or a Go template such as `{{.CreatedBy}}: {{.Size}}`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Print sizes and dates for people; `--human=false` prints bytes and points in time
    #[arg(
        short = 'H',
        long,
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value = "true",
        default_missing_value = "true",
        value_name = "BOOL",
        hide_possible_values = true
    )]
    human: bool,
    /// Do not shorten anything
    #[arg(long)]
    no_trunc: bool,
    /// Show this variant [default: the one that `run` would take]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Print only ids
    #[arg(short, long)]
    quiet: bool,
    /// Name or id
    image: String,
}

/// Docker's limit for a command in the table.
const WIDEST_COMMAND: usize = 45;

pub(crate) fn run(ui: &Ui, global: &Global, args: &HistoryArgs) -> Result<u8> {
    let engine = context::engine(global)?;
    let matcher = args.platform.as_ref().map_or_else(Matcher::host, Matcher::only);
    let steps = engine.history(&args.image, &matcher)?;
    let now = Timestamp::now();
    let rows: Vec<Value> = steps.iter().map(|step| row(step, now, args)).collect();
    if args.quiet && args.format.is_none() {
        for row in &rows {
            ui.line(row["ID"].as_str().unwrap_or_default());
        }
        return Ok(0);
    }
    let created = if args.human { ("CreatedSince", "CREATED") } else { ("CreatedAt", "CREATED AT") };
    let columns =
        [("ID", "IMAGE"), created, ("CreatedBy", "CREATED BY"), ("Size", "SIZE"), ("Comment", "COMMENT")];
    ui.print(&table::render_format(args.format.as_deref(), &columns, &rows)?);
    Ok(0)
}

fn row(step: &Step, now: Timestamp, args: &HistoryArgs) -> Value {
    let id = match &step.id {
        None => "<missing>",
        Some(id) if args.no_trunc => id,
        Some(id) => short(id),
    };
    let created: Option<Timestamp> = step.created.as_ref().and_then(|created| created.parse().ok());
    let at = created.map_or_else(|| "N/A".to_owned(), rfc3339);
    let since = match created {
        Some(created) if args.human => format!("{} ago", units::human_duration(now.duration_since(created))),
        _ => at.clone(),
    };
    json!({
        "ID": id,
        "CreatedSince": since,
        "CreatedAt": at,
        "CreatedBy": if args.no_trunc { step.created_by.clone() } else { shortened(&step.created_by) },
        "Size": if args.human { units::human_size(step.size) } else { step.size.to_string() },
        "Comment": step.comment,
    })
}

/// Local time, as Go prints it.
fn rfc3339(time: Timestamp) -> String {
    let text = time.to_zoned(TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    text.strip_suffix("+00:00").map_or(text.clone(), |utc| format!("{utc}Z"))
}

fn shortened(command: &str) -> String {
    if command.chars().count() <= WIDEST_COMMAND {
        return command.to_owned();
    }
    format!("{}…", command.chars().take(WIDEST_COMMAND - 1).collect::<String>())
}
