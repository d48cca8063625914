//! `tag`: give an image another name.

use anyhow::Result;
use clap::Args;

use crate::args::Global;
use crate::context;
use crate::ui::Ui;

#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// Name or id of an image that is here
    #[arg(value_name = "SOURCE_IMAGE[:TAG]")]
    source: String,
    /// Its new name; whatever had it before loses it
    #[arg(value_name = "TARGET_IMAGE[:TAG]")]
    target: String,
}

pub(crate) fn run(_ui: &Ui, global: &Global, args: &TagArgs) -> Result<u8> {
    context::engine(global)?.tag_image(&args.source, &args.target)?;
    Ok(0)
}
