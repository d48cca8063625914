//! `pause` and `unpause`.

use anyhow::Result;
use clap::Args;

use crate::args::Global;
use crate::context;
use crate::ui::Ui;

#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct UnpauseArgs {
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) fn pause(ui: &Ui, global: &Global, args: &PauseArgs) -> Result<u8> {
    let engine = context::engine(global)?;
    crate::commands::each(ui, &args.containers, |wanted| {
        engine.pause(&engine.container(wanted)?)?;
        ui.line(wanted);
        Ok(())
    })
}

pub(crate) fn unpause(ui: &Ui, global: &Global, args: &UnpauseArgs) -> Result<u8> {
    let engine = context::engine(global)?;
    crate::commands::each(ui, &args.containers, |wanted| {
        engine.unpause(&engine.container(wanted)?)?;
        ui.line(wanted);
        Ok(())
    })
}
