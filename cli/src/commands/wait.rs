//! `wait`: until containers have ended.

use anyhow::Result;
use clap::Args;

use crate::args::Global;
use crate::context;
use crate::ui::Ui;

#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) fn run(ui: &Ui, global: &Global, args: &WaitArgs) -> Result<u8> {
    let engine = context::engine(global)?;
    crate::commands::each(ui, &args.containers, |wanted| {
        let code = engine.wait(&engine.container(wanted)?)?;
        ui.line(&code.to_string());
        Ok(())
    })
}
