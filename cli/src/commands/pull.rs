//! `pull`: fetch an image from a registry.

use anyhow::Result;
use clap::Args;
use dhow_engine::images::registry::{Platforms, PullOptions, Pulled, pull};
use dhow_engine::images::{Platform, Reference};
use dhow_engine::owner::part_as_owner;
use dhow_engine::{Engine, Error};

use crate::args::Global;
use crate::commands::gc;
use crate::context;
use crate::progress::PullProgress;
use crate::registries;
use crate::trust;
use crate::trust::TrustArgs;
use crate::ui::Ui;

#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// Print nothing but the name
    #[arg(short, long)]
    quiet: bool,
    /// Fetch this variant only: `wasi/wasm`, `linux/amd64`, … [default: all that this host can run]
    #[arg(long, value_name = "OS/ARCH", conflicts_with = "all_platforms")]
    platform: Option<String>,
    /// Fetch every variant
    #[arg(long)]
    all_platforms: bool,
    #[command(flatten)]
    trust: TrustArgs,
    /// NAME[:TAG|@DIGEST], with a registry before it if it is not Docker Hub
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    image: String,
}

pub(crate) fn run(ui: &Ui, global: &Global, args: &PullArgs) -> Result<u8> {
    let engine = args.trust.apply(context::engine(global)?)?;
    let reference = Reference::parse(&args.image).map_err(Error::from)?;
    let platforms = match &args.platform {
        Some(text) => Platforms::One(text.parse::<Platform>().map_err(Error::from)?),
        None if args.all_platforms => Platforms::All,
        None => Platforms::Host,
    };
    if !args.quiet && reference.digest().is_none() && !args.image.contains(':') {
        ui.line("Using default tag: latest");
    }
    let pulled = transfer(ui, &engine, &reference, platforms, args.quiet, true)?;
    if !args.quiet {
        ui.line(&format!("Digest: {}", pulled.descriptor.digest));
        ui.line(&if pulled.already_present {
            format!("Status: Image is up to date for {}", reference.familiar())
        } else {
            format!("Status: Downloaded newer image for {}", reference.familiar())
        });
    }
    ui.line(&reference.canonical());
    Ok(0)
}

/// Pulls on behalf of `run`: everything goes to standard error.
pub(crate) fn fetch(
    ui: &Ui,
    engine: &Engine,
    reference: &Reference,
    platform: Option<Platform>,
    quiet: bool,
) -> Result<()> {
    let platforms = platform.map_or(Platforms::Host, Platforms::One);
    let work = || {
        let pulled = transfer(ui, engine, reference, platforms, quiet, false)?;
        if !quiet {
            ui.note(&format!("Digest: {}", pulled.descriptor.digest));
            ui.note(&format!("Status: Downloaded newer image for {}", reference.familiar()));
        }
        Ok(())
    };
    let fetched = part_as_owner(|| {
        work().map_err(|error: anyhow::Error| match error.downcast::<Error>() {
            Ok(error) => error,
            Err(error) => Error::Invalid(format!("{error:#}")),
        })
    });
    Ok(fetched?)
}

fn transfer(
    ui: &Ui,
    engine: &Engine,
    reference: &Reference,
    platforms: Platforms,
    quiet: bool,
    to_stdout: bool,
) -> Result<Pulled> {
    context::explain_owners(ui);
    let access = registries::access(reference)?;
    let check = trust::gate(engine)?.map(|gate| gate.into_check(engine.store()));
    let options = PullOptions { access, platforms, check, ..PullOptions::default() };
    let progress = PullProgress::new(*ui, quiet, to_stdout);
    let pulled = gc::bring_in(ui, engine, |store| pull(store, reference, &options, &progress));
    progress.finish();
    let pulled = pulled?;
    gc::after(ui, engine, std::slice::from_ref(reference))?;
    Ok(pulled)
}
