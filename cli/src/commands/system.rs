//! `system`: the whole installation.

use anyhow::Result;
use clap::Args;

use crate::args::Global;
use crate::context;
use crate::ui::Ui;

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Put right what can be: remove leftovers and damaged content
    #[arg(long)]
    repair: bool,
}

/// Exit code 1 when something is wrong and was not repaired.
pub(crate) fn check(ui: &Ui, global: &Global, args: &CheckArgs) -> Result<u8> {
    let engine = context::engine(global)?;
    let problems = engine.check(args.repair)?;
    for problem in &problems {
        let repaired = if problem.repaired { " (repaired)" } else { "" };
        ui.line(&format!("{}: {}{repaired}", problem.place, problem.what));
    }
    let left = problems.iter().filter(|problem| !problem.repaired).count();
    if left > 0 {
        ui.hint("`dhow system check --repair` puts right what can be");
        return Ok(1);
    }
    if problems.is_empty() {
        ui.note("nothing wrong found");
    }
    Ok(0)
}
