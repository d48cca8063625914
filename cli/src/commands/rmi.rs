//! `rmi`: remove images.

use anyhow::Result;
use clap::Args;
use dhow_engine::image::Removed;

use crate::args::Global;
use crate::context;
use crate::ui::Ui;

#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    /// Remove it although stopped containers use it, and by id although it has several names
    #[arg(short, long)]
    force: bool,
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub(crate) fn run(ui: &Ui, global: &Global, args: &RmiArgs) -> Result<u8> {
    let engine = context::engine(global)?;
    crate::commands::each(ui, &args.images, |wanted| {
        for removed in engine.remove_image(wanted, args.force)? {
            ui.line(&match removed {
                Removed::Untagged(name) => format!("Untagged: {name}"),
                Removed::Deleted(digest) => format!("Deleted: {digest}"),
            });
        }
        Ok(())
    })
}
