//! `container prune`, `image prune`, `system prune`: remove what nobody uses.

use std::io::BufRead as _;

use anyhow::Result;
use clap::Args;
use dhow_engine::prune::{PrunedContainers, PrunedImages};
use dhow_engine::volume::PrunedVolumes;
use jiff::Timestamp;

use crate::args::Global;
use crate::context;
use crate::filter::{self, Filter};
use crate::ui::Ui;
use crate::units;

#[derive(Debug, Args)]
pub(crate) struct ContainerPruneArgs {
    /// Only what fits: `until=24h`, `label=NAME[=VALUE]`, `label!=NAME[=VALUE]`
    #[arg(long, value_name = "FILTER", value_parser = filter::parse)]
    filter: Vec<Filter>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImagePruneArgs {
    /// Every image that no container uses, not only those without a name
    #[arg(short, long)]
    all: bool,
    /// Only what fits: `until=24h`, `label=NAME[=VALUE]`, `label!=NAME[=VALUE]`, `dangling=false`
    #[arg(long, value_name = "FILTER", value_parser = filter::parse)]
    filter: Vec<Filter>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SystemPruneArgs {
    /// Every image that no container uses, not only those without a name
    #[arg(short, long)]
    all: bool,
    /// Only what fits: `until=24h`, `label=NAME[=VALUE]`, `label!=NAME[=VALUE]`
    #[arg(long, value_name = "FILTER", value_parser = filter::parse)]
    filter: Vec<Filter>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Volumes too that no container uses and nobody gave a name
    #[arg(long)]
    volumes: bool,
}

const FILTERS: [&str; 3] = ["until", "label", "label!"];

pub(crate) fn containers(ui: &Ui, global: &Global, args: &ContainerPruneArgs) -> Result<u8> {
    let filters = filter::understand(&args.filter, &FILTERS, Timestamp::now())?.filters;
    if !args.force && !confirmed(ui, "WARNING! This will remove all stopped containers.")? {
        return Ok(0);
    }
    let pruned = context::engine(global)?.prune_containers(&filters)?;
    list_containers(ui, &pruned);
    total(ui, pruned.reclaimed);
    Ok(0)
}

pub(crate) fn images(ui: &Ui, global: &Global, args: &ImagePruneArgs) -> Result<u8> {
    let keys = [FILTERS.as_slice(), &["dangling"]].concat();
    let wanted = filter::understand(&args.filter, &keys, Timestamp::now())?;
    let all = wanted.dangling.map_or(args.all, |dangling| !dangling);
    let warning = if all {
        "WARNING! This will remove all images without at least one container associated to them."
    } else {
        "WARNING! This will remove all dangling images."
    };
    if !args.force && !confirmed(ui, warning)? {
        return Ok(0);
    }
    let pruned = context::engine(global)?.prune_images(all, &wanted.filters)?;
    list_images(ui, &pruned);
    total(ui, pruned.reclaimed);
    Ok(0)
}

pub(crate) fn system(ui: &Ui, global: &Global, args: &SystemPruneArgs) -> Result<u8> {
    if args.volumes && args.filter.iter().any(|(key, _)| key == "until") {
        return Err(anyhow::anyhow!("The \"until\" filter is not supported with \"--volumes\""));
    }
    let filters = filter::understand(&args.filter, &FILTERS, Timestamp::now())?.filters;
    if !args.force && !confirmed(ui, &warning(args))? {
        return Ok(0);
    }
    let engine = context::engine(global)?;
    // First containers: what only they used goes with them.
    let containers = engine.prune_containers(&filters)?;
    list_containers(ui, &containers);
    let volumes =
        if args.volumes { engine.prune_volumes(false, &filters)? } else { PrunedVolumes::default() };
    list_volumes(ui, &volumes);
    let images = engine.prune_images(args.all, &filters)?;
    list_images(ui, &images);
    total(ui, containers.reclaimed + volumes.reclaimed + images.reclaimed);
    Ok(0)
}

/// Docker's list of what is about to go, as far as it exists here.
fn warning(args: &SystemPruneArgs) -> String {
    let mut text = "WARNING! This will remove:\n  - all stopped containers\n".to_owned();
    if args.volumes {
        text.push_str("  - all anonymous volumes not used by at least one container\n");
    }
    text.push_str(if args.all {
        "  - all images without at least one container associated to them\n  \
         - all compiled code and partial downloads that nothing uses\n"
    } else {
        "  - all dangling images\n  - compiled code and partial downloads that nothing used for a week\n"
    });
    if !args.filter.is_empty() {
        text.push_str("\n  Items to be pruned will be filtered with:\n");
        for (key, value) in &args.filter {
            text.push_str(&format!("  - {key}={value}\n"));
        }
    }
    text
}

/// Asks as Docker does: only `y` is a yes, and the end of input is a no.
pub(crate) fn confirmed(ui: &Ui, warning: &str) -> Result<bool> {
    ui.print(&format!("{warning}\nAre you sure you want to continue? [y/N] "));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

fn list_containers(ui: &Ui, pruned: &PrunedContainers) {
    if !pruned.deleted.is_empty() {
        ui.line(&format!("Deleted Containers:\n{}\n", pruned.deleted.join("\n")));
    }
}

pub(crate) fn list_volumes(ui: &Ui, pruned: &PrunedVolumes) {
    if !pruned.deleted.is_empty() {
        ui.line(&format!("Deleted Volumes:\n{}\n", pruned.deleted.join("\n")));
    }
}

fn list_images(ui: &Ui, pruned: &PrunedImages) {
    if pruned.untagged.is_empty() && pruned.deleted.is_empty() {
        return;
    }
    let mut text = "Deleted Images:\n".to_owned();
    for name in &pruned.untagged {
        text.push_str(&format!("untagged: {}\n", name.familiar()));
    }
    for digest in &pruned.deleted {
        text.push_str(&format!("deleted: {digest}\n"));
    }
    ui.line(&text);
}

pub(crate) fn total(ui: &Ui, reclaimed: u64) {
    ui.line(&format!("Total reclaimed space: {}", units::progress_size(reclaimed)));
}
