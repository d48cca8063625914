//! `load`: take images from an OCI image layout or from an archive of `docker save`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use dhow_engine::Error;
use dhow_engine::images::Platform;
use dhow_engine::images::archive::{LoadOptions, Source, load};
use std::io::IsTerminal as _;

use crate::args::Global;
use crate::commands::gc;
use crate::context;
use crate::error::hinted;
use crate::progress::PullProgress;
use crate::trust;
use crate::trust::TrustArgs;
use crate::ui::Ui;

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// OCI layout (folder or tar) or docker archive; plain, gzip, bzip2, xz or zstd [default: standard input]
    #[arg(short, long, value_name = "PATH")]
    input: Option<PathBuf>,
    /// Load this variant only [default: every one that is in the archive]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    #[command(flatten)]
    trust: TrustArgs,
    /// Print only the names
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(ui: &Ui, global: &Global, args: &LoadArgs) -> Result<u8> {
    let engine = args.trust.apply(context::engine(global)?)?;
    let gate = trust::gate(&engine)?;
    let source = match &args.input {
        Some(path) => Source::Path(path),
        None if std::io::stdin().is_terminal() => {
            return Err(hinted(
                "requested load from stdin, but stdin is empty",
                "name the archive with `-i PATH`",
            ));
        }
        None => Source::File(crate::output::standard_input()?),
    };
    context::explain_owners(ui);
    let options = LoadOptions { platform: args.platform.clone(), gate, ..LoadOptions::default() };
    let progress = PullProgress::new(*ui, args.quiet || !ui.interactive, false);
    let loaded = load(&gc::bounded(&engine)?, source, &options, &progress);
    progress.finish();
    let loaded = loaded.map_err(Error::from)?;
    let fresh: Vec<_> = loaded.iter().filter_map(|image| image.reference.clone()).collect();
    gc::after(ui, &engine, &fresh)?;
    for image in loaded {
        let id = image.descriptor.digest.to_string();
        engine.tell_of_image("load", &id, &id);
        ui.line(&match image.reference {
            Some(reference) => format!("Loaded image: {}", reference.familiar()),
            None => format!("Loaded image ID: {}", image.descriptor.digest),
        });
    }
    Ok(0)
}
