//! `top`: the processes of a container.

use anyhow::Result;
use clap::Args;

use crate::args::Global;
use crate::ui::Ui;

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Name or id
    container: String,
    /// Options of the host's `ps`, such as `aux` or `-o pid,cmd` [default: -ef]
    #[arg(value_name = "PS_OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

#[cfg(target_os = "linux")]
pub(crate) fn run(ui: &Ui, global: &Global, args: &TopArgs) -> Result<u8> {
    let engine = crate::context::engine(global)?;
    let top = engine.top(&engine.container(&args.container)?, &args.options)?;
    let lines = std::iter::once(&top.titles).chain(&top.processes);
    ui.print(&crate::table::align_wide(lines.map(Vec::as_slice)));
    Ok(0)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn run(_ui: &Ui, _global: &Global, args: &TopArgs) -> Result<u8> {
    anyhow::bail!("cannot list the processes of container {}: this needs Linux", args.container);
}
