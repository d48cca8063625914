//! `images`: list images.

use anyhow::Result;
use clap::Args;
use dhow_engine::Error;
use dhow_engine::error::short;
use dhow_engine::image::Listed;
use dhow_engine::images::Reference;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::args::Global;
use crate::context;
use crate::table;
use crate::ui::Ui;
use crate::units;

#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Only this repository, or this name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
    /// Print only ids
    #[arg(short, long)]
    quiet: bool,
    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// `table`, `json`, or a Go template such as `{{.Repository}}:{{.Tag}}`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

const COLUMNS: [(&str, &str); 7] = [
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("Size", "SIZE"),
    ("Platforms", "PLATFORMS"),
];

pub(crate) fn run(ui: &Ui, global: &Global, args: &ImagesArgs) -> Result<u8> {
    let engine = context::engine(global)?;
    let wanted = match &args.name {
        Some(name) => Some((Reference::parse(name).map_err(Error::from)?, name.contains([':', '@']))),
        None => None,
    };
    let now = Timestamp::now();
    let rows: Vec<Value> = engine
        .images()?
        .iter()
        .filter(|image| {
            wanted.as_ref().is_none_or(|(wanted, exact)| {
                image.reference.as_ref().is_some_and(|name| {
                    if *exact { name == wanted } else { name.familiar_name() == wanted.familiar_name() }
                })
            })
        })
        .map(|image| row(image, now, args.no_trunc))
        .collect();
    if args.quiet && args.format.is_none() {
        for row in &rows {
            ui.line(row["ID"].as_str().unwrap_or_default());
        }
        return Ok(0);
    }
    let columns: Vec<_> = COLUMNS.into_iter().filter(|(key, _)| args.digests || *key != "Digest").collect();
    ui.print(&table::render_format(args.format.as_deref(), &columns, &rows)?);
    Ok(0)
}

fn row(image: &Listed, now: Timestamp, whole: bool) -> Value {
    let none = || "<none>".to_owned();
    let id = image.target.digest.to_string();
    let created: Option<Timestamp> = image.created.as_ref().and_then(|created| created.parse().ok());
    json!({
        "Repository": image.reference.as_ref().map_or_else(none, Reference::familiar_name),
        "Tag": image.reference.as_ref().and_then(Reference::tag).map_or_else(none, str::to_owned),
        "Digest": id,
        "ID": if whole { id.as_str() } else { short(&id) },
        "CreatedSince": created.map_or_else(
            || "N/A".to_owned(),
            |created| format!("{} ago", units::human_duration(now.duration_since(created))),
        ),
        "CreatedAt": created.map_or_else(|| "N/A".to_owned(), |created| units::created_at(created, TimeZone::system())),
        "Size": units::human_size(image.size),
        "Platforms": image.platforms.join(", "),
    })
}
