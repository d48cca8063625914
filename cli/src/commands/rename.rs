//! `rename`: another name for a container.

use anyhow::Result;
use clap::Args;

use crate::args::Global;
use crate::context;

#[derive(Debug, Args)]
pub(crate) struct RenameArgs {
    /// Name or id
    container: String,
    /// The name it gets
    new_name: String,
}

pub(crate) fn run(global: &Global, args: &RenameArgs) -> Result<u8> {
    let engine = context::engine(global)?;
    engine.rename(&engine.container(&args.container)?, &args.new_name)?;
    Ok(0)
}
