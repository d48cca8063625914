//! `images`: list images.

use anyhow::{Result, anyhow};
use clap::Args;
use dhow_engine::Engine;
use dhow_engine::error::short;
use dhow_engine::image::{ImageFilters, created};
use dhow_engine::images::{Digest, Platform, Reference, Summary, VariantSummary};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::args::Global;
use crate::context;
use crate::error::hinted;
use crate::filter::{self, Filter};
use crate::table;
use crate::ui::Ui;
use crate::units;

#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Only this repository, this name, or names that fit a pattern such as `team/*`
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
    /// Show all images (there are no hidden ones)
    #[arg(short, long)]
    all: bool,
    /// Print only ids
    #[arg(short, long)]
    quiet: bool,
    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Only some: dangling=BOOL, label=KEY[=VALUE], before=IMAGE, since=IMAGE, reference=PATTERN, platform=OS/ARCH; may
    /// be given several times
    #[arg(short, long, value_name = "FILTER", value_parser = filter::parse)]
    filter: Vec<Filter>,
    /// Show the variants of each image below it
    #[arg(long, conflicts_with_all = ["quiet", "format", "digests"])]
    tree: bool,
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

const TREE: [(&str, &str); 5] = [
    ("Image", "IMAGE"),
    ("ID", "ID"),
    ("Size", "DISK USAGE"),
    ("ContentSize", "CONTENT SIZE"),
    ("InUse", "IN USE"),
];

pub(crate) fn run(ui: &Ui, global: &Global, args: &ImagesArgs) -> Result<u8> {
    let filters = filters(args)?;
    let engine = context::engine(global)?;
    let images = engine.images(&filters)?;
    if args.tree {
        let rows = tree(&engine, &images, args.no_trunc)?;
        ui.print(&table::render_format(None, &TREE, &rows)?);
        return Ok(0);
    }
    if args.quiet && args.format.is_none() {
        for image in &images {
            let id = image.target.digest.to_string();
            ui.line(if args.no_trunc { &id } else { short(&id) });
        }
        return Ok(0);
    }
    let now = Timestamp::now();
    if args.format.is_none() && !args.digests {
        let titles = [COLUMNS[0].1, COLUMNS[1].1, COLUMNS[3].1, COLUMNS[4].1, COLUMNS[5].1, COLUMNS[6].1];
        ui.print(&table::render_cells(titles, images.iter().map(|image| cells(image, now, args.no_trunc))));
        return Ok(0);
    }
    let zone = TimeZone::system();
    let rows: Vec<Value> = images.iter().map(|image| row(image, (now, &zone), args.no_trunc)).collect();
    let columns: Vec<_> = COLUMNS.into_iter().filter(|(key, _)| args.digests || *key != "Digest").collect();
    ui.print(&table::render_format(args.format.as_deref(), &columns, &rows)?);
    Ok(0)
}

fn filters(args: &ImagesArgs) -> Result<ImageFilters> {
    let mut filters = ImageFilters::default();
    filters.references.extend(args.name.clone());
    for (key, value) in &args.filter {
        match key.as_str() {
            "dangling" => {
                filters.dangling = Some(match value.to_lowercase().as_str() {
                    "true" | "1" => true,
                    "false" | "0" => false,
                    _ => return Err(anyhow!("Invalid filter 'dangling={value}'")),
                });
            }
            "label" => filters.labels.push(match value.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (value.clone(), None),
            }),
            "before" => filters.before.push(value.clone()),
            "since" => filters.since.push(value.clone()),
            "reference" => filters.references.push(value.clone()),
            "platform" => {
                filters.platforms.push(value.parse::<Platform>().map_err(dhow_engine::Error::from)?);
            }
            other => {
                return Err(hinted(
                    format!("Invalid filter '{other}'"),
                    "known here: dangling, label, before, since, reference, platform",
                ));
            }
        }
    }
    Ok(filters)
}

/// What the table shows of an image, unless more is asked for.
fn cells(image: &Summary, now: Timestamp, whole: bool) -> [String; 6] {
    let name = image.reference.as_ref();
    let id = image.target.digest.to_string();
    [
        repository(name),
        tag(name),
        if whole { id } else { short(&id).to_owned() },
        age(created(image), now),
        units::human_size(image.size),
        platforms(image),
    ]
}

fn repository(name: Option<&Reference>) -> String {
    name.map_or_else(|| "<none>".to_owned(), Reference::familiar_name)
}

fn tag(name: Option<&Reference>) -> String {
    name.and_then(Reference::tag).unwrap_or("<none>").to_owned()
}

fn age(created: Option<Timestamp>, now: Timestamp) -> String {
    created.map_or_else(
        || "N/A".to_owned(),
        |created| format!("{} ago", units::human_duration(now.duration_since(created))),
    )
}

fn platforms(image: &Summary) -> String {
    let mut here = image.variants.iter().filter(|variant| variant.present);
    let first = here.next().map(|variant| variant.platform.to_string()).unwrap_or_default();
    here.fold(first, |all, variant| format!("{all}, {}", variant.platform))
}

/// What every list of images says of a name: the first fields of a row.
pub(super) fn name_row(
    name: Option<&Reference>,
    digest: &Digest,
    created: Option<Timestamp>,
    (now, zone): (Timestamp, &TimeZone),
    whole: bool,
) -> Value {
    let id = digest.to_string();
    let at = created.map(|created| units::created_at(created, zone.clone()));
    json!({
        "Repository": repository(name),
        "Tag": tag(name),
        "Digest": id,
        "ID": if whole { id.as_str() } else { short(&id) },
        "CreatedSince": age(created, now),
        "CreatedAt": at.unwrap_or_else(|| "N/A".to_owned()),
    })
}

fn row(image: &Summary, now: (Timestamp, &TimeZone), whole: bool) -> Value {
    let mut row = name_row(image.reference.as_ref(), &image.target.digest, created(image), now, whole);
    let here: Vec<&VariantSummary> = image.variants.iter().filter(|variant| variant.present).collect();
    let size = units::human_size(image.size);
    row["Size"] = size.as_str().into();
    row["Platforms"] = platforms(image).into();
    row["ContentSize"] = units::human_size(image.content).into();
    row["VirtualSize"] = size.into();
    for unknown in ["SharedSize", "UniqueSize", "Containers"] {
        row[unknown] = "N/A".into();
    }
    row["Labels"] = here.first().map_or_else(|| json!({}), |variant| json!(variant.labels));
    row
}

/// Each image once, with its names in one cell and its variants below.
fn tree(engine: &Engine, images: &[Summary], whole: bool) -> Result<Vec<Value>> {
    let used: Vec<(String, String)> = engine
        .containers()?
        .into_iter()
        .filter_map(|container| container.record.image)
        .map(|image| (image.id, image.manifest))
        .collect();
    let shown = |id: &str| if whole { id.to_owned() } else { short(id).to_owned() };
    let mut rows = Vec::new();
    let mut done: Vec<&Summary> = Vec::new();
    for image in images {
        if done.iter().any(|other| other.target.digest == image.target.digest) {
            continue;
        }
        done.push(image);
        let names: Vec<String> = images
            .iter()
            .filter(|other| other.target.digest == image.target.digest)
            .filter_map(|other| other.reference.as_ref().map(Reference::familiar))
            .collect();
        let id = image.target.digest.to_string();
        rows.push(json!({
            "Image": if names.is_empty() { "<untagged>".to_owned() } else { names.join(", ") },
            "ID": shown(&id),
            "Size": units::human_size(image.size),
            "ContentSize": units::human_size(image.content),
            "InUse": if used.iter().any(|(used, _)| *used == id) { "yes" } else { "" },
        }));
        for (i, variant) in image.variants.iter().enumerate() {
            let branch = if i + 1 == image.variants.len() { "└─" } else { "├─" };
            let manifest = variant.manifest.digest.to_string();
            let size = |bytes| if variant.present { units::human_size(bytes) } else { "-".to_owned() };
            rows.push(json!({
                "Image": format!("{branch} {}", variant.platform),
                "ID": shown(&manifest),
                "Size": size(variant.size),
                "ContentSize": size(variant.content),
                "InUse": if used.iter().any(|used| *used == (id.clone(), manifest.clone())) { "yes" } else { "" },
            }));
        }
    }
    Ok(rows)
}
