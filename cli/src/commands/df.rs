//! `system df`: what everything takes on the disk. Tables, fields and `--format` are Docker's; the rows for compiled
//! code and partial downloads are ours.

use anyhow::Result;
use clap::Args;
use dhow_engine::Status;
use dhow_engine::image::{ImageFilters, created};
use dhow_engine::images::{ImageUsage, Part, Reference};
use dhow_engine::mounts::MountKind;
use dhow_engine::usage::{ContainerUsage, SystemUsage};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::args::Global;
use crate::commands::{images, ps, volume};
use crate::context;
use crate::table;
use crate::ui::Ui;
use crate::units;

#[derive(Debug, Args)]
pub(crate) struct DfArgs {
    /// Show each image and container
    #[arg(short, long)]
    verbose: bool,
    /// `table`, `json`, or a Go template such as `{{.Type}}: {{.Size}}`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

const COLUMNS: [(&str, &str); 5] = [
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];

const IMAGES: [(&str, &str); 8] = [
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("Size", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("Containers", "CONTAINERS"),
];

const CONTAINERS: [(&str, &str); 8] = [
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Size", "SIZE"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("Names", "NAMES"),
];

const VOLUMES: [(&str, &str); 3] = [("Name", "VOLUME NAME"), ("Links", "LINKS"), ("Size", "SIZE")];

const CACHE: [(&str, &str); 7] = [
    ("ID", "CACHE ID"),
    ("CacheType", "CACHE TYPE"),
    ("Size", "SIZE"),
    ("CreatedSince", "CREATED"),
    ("LastUsedSince", "LAST USED"),
    ("UsageCount", "USAGE"),
    ("Shared", "SHARED"),
];

pub(crate) fn run(ui: &Ui, global: &Global, args: &DfArgs) -> Result<u8> {
    let engine = context::engine(global)?;
    let usage = engine.usage()?;
    if !args.verbose {
        ui.print(&table::render_format(args.format.as_deref(), &COLUMNS, &summary(&usage))?);
        return Ok(0);
    }
    let (now, zone) = (Timestamp::now(), TimeZone::system());
    let listed = engine.images(&ImageFilters::default())?;
    let created = |image: &ImageUsage| {
        created(listed.iter().find(|listed| listed.target.digest == image.descriptor.digest)?)
    };
    let whole = args.format.is_some();
    let users = usage.users();
    let images: Vec<Value> = usage
        .store
        .images
        .iter()
        .rev()
        .flat_map(|image| {
            let users = users.get(image.descriptor.digest.to_string().as_str()).copied().unwrap_or_default();
            image_rows(image, created(image), users, (now, &zone), whole)
        })
        .collect();
    let containers: Vec<Value> =
        usage.containers.iter().map(|container| container_row(container, now, whole)).collect();
    let volumes: Vec<Value> = usage
        .volumes
        .iter()
        .map(|used| volume::row(&engine, &used.volume, Some(used)))
        .collect::<Result<_, _>>()?;
    if let Some(format) = &args.format {
        let all = json!({
            "Images": images,
            "Containers": containers,
            "Volumes": volumes,
            "BuildCache": cached(&usage, now, whole),
            "CompiledCode": part(&usage.store.derived),
            "PartialDownloads": part(&usage.store.partial),
        });
        ui.print(&table::render_format(Some(format), &[], &[all])?);
        return Ok(0);
    }
    let mut text = String::new();
    for (title, columns, rows) in [
        ("Images space usage:", &IMAGES[..], images),
        ("\nContainers space usage:", &CONTAINERS, containers),
        ("\nLocal Volumes space usage:", &VOLUMES, volumes),
        (
            &format!("\nBuild cache usage: {}", units::progress_size(cache(&usage).size)),
            &CACHE,
            cached(&usage, now, whole),
        ),
    ] {
        text.push_str(&format!("{title}\n\n{}", table::render_format(None, columns, &rows)?));
    }
    for (title, part) in
        [("Compiled code", &usage.store.derived), ("Partial downloads", &usage.store.partial)]
    {
        text.push_str(&format!(
            "\n{title} usage: {} ({} reclaimable)\n",
            units::progress_size(part.size),
            units::progress_size(part.reclaimable)
        ));
    }
    ui.print(&text);
    Ok(0)
}

/// All of the build cache. None of it is in use while nothing is built.
fn cache(usage: &SystemUsage) -> Part {
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    #[cfg(target_os = "linux")]
    let (entries, size) =
        (count(usage.build_cache.len()), usage.build_cache.iter().map(|entry| entry.size).sum::<u64>());
    #[cfg(not(target_os = "linux"))]
    let (entries, size) = (count(0), 0);
    let size = size + usage.cache_mounts;
    Part { count: entries, in_use: 0, size, reclaimable: size }
}

/// A row for each step that is remembered.
#[cfg(target_os = "linux")]
fn cached(usage: &SystemUsage, now: Timestamp, whole: bool) -> Vec<Value> {
    let entries = usage.build_cache.iter();
    entries
        .map(|entry| {
            let used = Timestamp::try_from(entry.used).unwrap_or(now);
            let since = format!("{} ago", units::human_duration(now.duration_since(used)));
            json!({
                "ID": if whole { entry.id.as_str() } else { entry.id.get(..12).unwrap_or(&entry.id) },
                "CacheType": "regular",
                "Description": entry.text,
                "Size": units::progress_size(entry.size),
                "CreatedSince": since,
                "LastUsedSince": since,
                "UsageCount": "",
                "InUse": "false",
                "Shared": "false",
            })
        })
        .collect()
}

#[cfg(not(target_os = "linux"))]
fn cached(_usage: &SystemUsage, _now: Timestamp, _whole: bool) -> Vec<Value> {
    Vec::new()
}

/// One row for each kind of thing.
fn summary(usage: &SystemUsage) -> Vec<Value> {
    let row = |kind: &str, part: Part, percent: bool| {
        let mut reclaimable = units::progress_size(part.reclaimable);
        if percent && part.size > 0 {
            let percent = u128::from(part.reclaimable) * 100 / u128::from(part.size);
            reclaimable.push_str(&format!(" ({percent}%)"));
        }
        json!({
            "Type": kind,
            "TotalCount": part.count.to_string(),
            "Active": part.in_use.to_string(),
            "Size": units::progress_size(part.size),
            "Reclaimable": reclaimable,
        })
    };
    let store = &usage.store;
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let images = Part {
        count: count(store.images.len()),
        in_use: count(store.images.iter().filter(|image| image.in_use).count()),
        size: store.blobs + store.layers,
        reclaimable: store.reclaimable,
    };
    let mut containers = Part::default();
    for container in &usage.containers {
        let running = container.state.status == Status::Running;
        containers.count += 1;
        containers.in_use += u64::from(running);
        containers.size += container.size;
        containers.reclaimable += if running { 0 } else { container.size };
    }
    let mut volumes = Part::default();
    for volume in &usage.volumes {
        volumes.count += 1;
        volumes.in_use += u64::from(volume.links > 0);
        volumes.size += volume.size;
        volumes.reclaimable += if volume.links > 0 { 0 } else { volume.size };
    }
    vec![
        row("Images", images, true),
        row("Containers", containers, true),
        row("Local Volumes", volumes, true),
        row("Build Cache", cache(usage), false),
        row("Compiled Code", store.derived, true),
        row("Partial Downloads", store.partial, true),
    ]
}

fn part(part: &Part) -> Value {
    json!({
        "TotalCount": part.count.to_string(),
        "Active": part.in_use.to_string(),
        "Size": units::progress_size(part.size),
        "Reclaimable": units::progress_size(part.reclaimable),
    })
}

/// A row for each name of an image, as in the list of images.
fn image_rows(
    image: &ImageUsage,
    created: Option<Timestamp>,
    containers: u64,
    now: (Timestamp, &TimeZone),
    whole: bool,
) -> Vec<Value> {
    let row = |name: Option<&Reference>| {
        let mut row = images::name_row(name, &image.descriptor.digest, created, now, whole);
        row["Size"] = units::human_size(image.size).into();
        row["VirtualSize"] = units::progress_size(image.size).into();
        row["SharedSize"] = units::progress_size(image.shared).into();
        row["UniqueSize"] = units::progress_size(image.unique()).into();
        row["Containers"] = containers.to_string().into();
        row
    };
    if image.names.is_empty() {
        vec![row(None)]
    } else {
        image.names.iter().map(|name| row(Some(name))).collect()
    }
}

fn container_row(usage: &ContainerUsage, now: Timestamp, whole: bool) -> Value {
    let mut row = ps::row(&usage.container, &usage.state, now, whole);
    let volumes = usage.container.record.mounts.iter().filter(|point| point.kind == MountKind::Volume);
    row["LocalVolumes"] = volumes.count().to_string().into();
    row["Size"] = units::progress_size(usage.size).into();
    row
}
