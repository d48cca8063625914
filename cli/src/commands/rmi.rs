//! `rmi`: remove images.

use anyhow::Result;
use clap::Args;
use dhow_engine::image::Removed;
use dhow_engine::images::Platform;

use crate::args::Global;
use crate::context;
use crate::ui::Ui;

#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    /// Remove it although stopped containers use it, and by id although it has several names
    #[arg(short, long)]
    force: bool,
    /// Do not remove parents without a name (there are none here)
    #[arg(long)]
    no_prune: bool,
    /// Remove this variant only, and keep the others; may be given several times
    #[arg(long = "platform", value_name = "OS/ARCH")]
    platforms: Vec<Platform>,
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub(crate) fn run(ui: &Ui, global: &Global, args: &RmiArgs) -> Result<u8> {
    let engine = context::engine(global)?;
    crate::commands::each(ui, &args.images, |wanted| {
        let removed = if args.platforms.is_empty() {
            engine.remove_image(wanted, args.force)?
        } else {
            engine.remove_variants(wanted, &args.platforms, args.force)?
        };
        for removed in removed {
            ui.line(&match removed {
                Removed::Untagged(name) => format!("Untagged: {name}"),
                Removed::Deleted(digest) => format!("Deleted: {digest}"),
            });
        }
        Ok(())
    })
}
