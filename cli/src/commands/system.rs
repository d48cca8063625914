//! `system check`: the whole installation, verified and repaired.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use dhow_engine::owner::{Standing, standing};
use dhow_engine::system::Problem;
use serde_json::json;
use std::sync::Mutex;

use crate::args::Global;
use crate::context;
use crate::table;
use crate::ui::Ui;
use crate::units;

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Put right what can be: remove leftovers and damaged content, move aside what is not ours
    #[arg(long)]
    repair: bool,
    /// `json`, or a Go template such as `{{.Place}}: {{.Problem}}`, for each problem
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// What has to be looked at before this process becomes the owner of all files: networks, without root.
pub(crate) fn check_networks(global: &Global, args: &CheckArgs) -> Result<Vec<Problem>> {
    if matches!(standing(), Standing::Direct) {
        return Ok(Vec::new());
    }
    Ok(context::engine(global)?.check_networks_first(args.repair)?)
}

/// Exit code 1 when something is wrong and was not repaired.
pub(crate) fn check(ui: &Ui, global: &Global, args: &CheckArgs, first: Vec<Problem>) -> Result<u8> {
    let engine = context::engine(global)?;
    let shown = Mutex::new(None::<Instant>);
    let show = |done: u64, total: u64| {
        let Ok(mut last) = shown.lock() else { return };
        if last.is_none_or(|last| last.elapsed() > Duration::from_millis(100)) {
            *last = Some(Instant::now());
            ui.status(&format!(
                "verifying content: {} of {}",
                units::progress_size(done),
                units::progress_size(total)
            ));
        }
    };
    let progress: Option<&(dyn Fn(u64, u64) + Sync)> = if ui.interactive { Some(&show) } else { None };
    let problems = engine.check_with(args.repair, progress);
    if ui.interactive {
        ui.status("");
    }
    let mut problems = problems?;
    problems.splice(0..0, first);
    if let Some(format) = &args.format {
        let rows: Vec<_> = problems
            .iter()
            .map(|problem| {
                json!({
                    "Place": problem.place,
                    "Problem": problem.what,
                    "Repaired": problem.repaired,
                    "Images": problem.images,
                })
            })
            .collect();
        ui.print(&table::render_format(Some(format), &[], &rows)?);
    } else {
        for problem in &problems {
            let repaired = if problem.repaired { " (repaired)" } else { "" };
            ui.line(&format!("{}: {}{repaired}", problem.place, problem.what));
        }
    }
    let mut images: Vec<_> = problems.iter().flat_map(|problem| &problem.images).collect();
    images.sort();
    images.dedup();
    let left = problems.iter().filter(|problem| !problem.repaired).count();
    if left > 0 && !args.repair {
        ui.hint("`dhow system check --repair` puts right what can be");
    }
    for image in images {
        let after = if args.repair { "" } else { " after the repair" };
        ui.hint(&format!("get what is missing{after} with `dhow pull {image}`"));
    }
    if problems.is_empty() {
        ui.note("nothing wrong found");
    }
    Ok(u8::from(left > 0))
}
