//! `push`: send an image to a registry.

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use dhow_engine::images::media::Compression;
use dhow_engine::images::registry::{PushOptions, push};
use dhow_engine::images::{Descriptor, Platform, Reference};
use dhow_engine::{Engine, Error};

use crate::args::Global;
use crate::context;
use crate::error::hinted;
use crate::progress::PushProgress;
use crate::registries;
use crate::ui::Ui;

#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// Push all tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Pack layers in this way, whatever they are here; the digest changes then [default: as they are]
    #[arg(long, value_enum, value_name = "gzip|zstd", hide_possible_values = true)]
    compression: Option<Packing>,
    /// Accepted and without effect: nothing is signed here
    #[arg(long)]
    disable_content_trust: bool,
    /// Push this variant only, as an image of its own and without the index
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Print nothing but the name
    #[arg(short, long)]
    quiet: bool,
    /// NAME[:TAG], with a registry before it if it is not Docker Hub
    #[arg(value_name = "NAME[:TAG]")]
    image: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Packing {
    Gzip,
    Zstd,
}

pub(crate) fn run(ui: &Ui, global: &Global, args: &PushArgs) -> Result<u8> {
    let engine = context::engine(global)?;
    let name = Reference::parse(&args.image).map_err(Error::from)?;
    if name.digest().is_some() {
        return Err(hinted("cannot push a digest reference", "name a tag; the digest stays what it is"));
    }
    let has_tag = args.image.rsplit('/').next().is_some_and(|last| last.contains(':'));
    if args.all_tags && has_tag {
        bail!("tag can't be used with --all-tags/-a");
    }
    if !args.all_tags && !has_tag && !args.quiet {
        ui.line("Using default tag: latest");
    }
    let images = chosen(&engine, &name, args.all_tags)?;
    if images.is_empty() {
        return Err(hinted(
            format!("An image does not exist locally with the tag: {}", name.familiar_name()),
            format!("give an image this name first: `dhow tag IMAGE {}`", name.familiar()),
        ));
    }
    if !args.quiet {
        ui.line(&format!("The push refers to repository [{}/{}]", name.registry(), name.repository()));
    }
    let access = registries::access(&name)?;
    let compression = args.compression.map(|packing| match packing {
        Packing::Gzip => Compression::Gzip,
        Packing::Zstd => Compression::Zstd,
    });
    let options =
        PushOptions { access, platform: args.platform.clone(), compression, ..PushOptions::default() };
    for (name, image) in &images {
        let progress = PushProgress::new(*ui, args.quiet);
        let pushed = push(engine.store(), image, name, &options, &progress);
        progress.finish();
        let pushed = pushed.map_err(Error::from)?.descriptor;
        engine.tell_of_image("push", &name.familiar(), &name.familiar_name());
        if !args.quiet {
            let tag = name.tag().unwrap_or_default();
            ui.line(&format!("{tag}: digest: {} size: {}", pushed.digest, pushed.size));
        }
    }
    if args.quiet {
        ui.line(&name.canonical());
    }
    Ok(0)
}

/// The image of the name, or those of all names of the repository.
fn chosen(engine: &Engine, name: &Reference, all_tags: bool) -> Result<Vec<(Reference, Descriptor)>, Error> {
    if !all_tags {
        let found = engine.store().resolve(name)?;
        return Ok(found.map(|image| (name.clone(), image)).into_iter().collect());
    }
    let same = |other: &Reference| {
        other.tag().is_some()
            && (other.registry(), other.repository()) == (name.registry(), name.repository())
    };
    Ok(engine.store().references()?.into_iter().filter(|(other, _)| same(other)).collect())
}
