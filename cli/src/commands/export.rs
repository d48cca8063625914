//! `export`: the files of a container as an archive.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::args::Global;
use crate::context;
#[cfg(target_os = "linux")]
use crate::output::Output;
use crate::ui::Ui;

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Write to a file [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Name or id, of a container that runs or not
    container: String,
}

pub(crate) fn run(_ui: &Ui, global: &Global, args: &ExportArgs) -> Result<u8> {
    #[cfg(target_os = "linux")]
    let mut output = Output::open(args.output.as_deref(), "export")?;
    let engine = context::engine(global)?;
    let container = engine.container(&args.container)?;
    #[cfg(not(target_os = "linux"))]
    anyhow::bail!("cannot export container {}: this needs Linux", container.record.name);
    #[cfg(target_os = "linux")]
    {
        engine.export(&container, output.file())?;
        output.finish()?;
        Ok(0)
    }
}
