//! `kill`: a signal for running containers.

use anyhow::Result;
use clap::Args;
use dhow_engine::runtime::Signal;

use crate::args::Global;
use crate::context;
use crate::ui::Ui;

#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// Signal to send, by name or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) fn run(ui: &Ui, global: &Global, args: &KillArgs) -> Result<u8> {
    let signal: Signal = args.signal.parse()?;
    let engine = context::engine(global)?;
    crate::commands::each(ui, &args.containers, |wanted| {
        engine.kill(&engine.container(wanted)?, signal)?;
        ui.line(wanted);
        Ok(())
    })
}
