//! `diff`: what a container has changed of its image.

use anyhow::Result;
use clap::Args;

use crate::args::Global;
use crate::context;
use crate::ui::Ui;

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// Name or id, of a container that runs or not
    container: String,
}

pub(crate) fn run(ui: &Ui, global: &Global, args: &DiffArgs) -> Result<u8> {
    let engine = context::engine(global)?;
    let container = engine.container(&args.container)?;
    #[cfg(not(target_os = "linux"))]
    {
        let _ = ui;
        anyhow::bail!("cannot compare container {}: this needs Linux", container.record.name);
    }
    #[cfg(target_os = "linux")]
    {
        let mut text = String::new();
        for change in engine.diff(&container)? {
            // One name a line, whatever a container's program has called its files.
            text.push_str(&format!("{} {}\n", change.kind.letter(), crate::table::printable(&change.path)));
        }
        ui.print(&text);
        Ok(0)
    }
}
