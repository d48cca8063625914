//! `pull`: fetch an image from a registry.

use anyhow::Result;
use clap::{Args, ValueEnum};
use dhow_engine::images::registry::{Platforms, PullOptions, Pulled, Remote, pull};
use dhow_engine::images::{JsonProgress, Platform, Reference};
use dhow_engine::owner::part_as_owner;
use dhow_engine::{Engine, Error};

use crate::args::Global;
use crate::commands::gc;
use crate::context;
use crate::error::hinted;
use crate::progress::PullProgress;
use crate::registries;
use crate::trust;
use crate::trust::TrustArgs;
use crate::ui::Ui;

#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// Fetch every tag of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Print nothing but the name
    #[arg(short, long)]
    quiet: bool,
    /// Fetch this variant only: `wasi/wasm`, `linux/amd64`, … [default: all that this host can run]
    #[arg(long, value_name = "OS/ARCH", conflicts_with = "all_platforms")]
    platform: Option<String>,
    /// Fetch every variant, and what is attached to the index
    #[arg(long)]
    all_platforms: bool,
    /// `auto`: bars on a terminal, else lines; `json`: the messages of Docker's API on standard output
    #[arg(long, value_name = "TYPE", default_value = "auto", conflicts_with = "quiet")]
    progress: Shown,
    #[command(flatten)]
    trust: TrustArgs,
    /// NAME[:TAG|@DIGEST], with a registry before it if it is not Docker Hub
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    image: String,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shown {
    Auto,
    Json,
}

pub(crate) fn run(ui: &Ui, global: &Global, args: &PullArgs) -> Result<u8> {
    let engine = args.trust.apply(context::engine(global)?)?;
    let reference = Reference::parse(&args.image).map_err(Error::from)?;
    let platforms = match &args.platform {
        Some(text) => Platforms::One(text.parse::<Platform>().map_err(Error::from)?),
        None if args.all_platforms => Platforms::All,
        None => Platforms::Host,
    };
    let named = args.image.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
    if args.all_tags && named {
        return Err(hinted("tag can't be used with --all-tags/-a", "leave the tag out, or leave -a out"));
    }
    if args.progress == Shown::Json {
        return as_json(&engine, args, &reference, &platforms);
    }
    if !args.quiet && !named && !args.all_tags {
        ui.line("Using default tag: latest");
    }
    let mut newer = false;
    for reference in wanted(args, &reference)? {
        let pulled = transfer(ui, &engine, &reference, platforms.clone(), args.quiet, true)?;
        newer |= !pulled.already_present;
        if !args.quiet {
            ui.line(&format!("Digest: {}", pulled.descriptor.digest));
        }
    }
    if !args.quiet {
        ui.line(&status(args, &reference, newer));
    }
    ui.line(&if args.all_tags {
        format!("{}/{}", reference.registry(), reference.repository())
    } else {
        reference.canonical()
    });
    Ok(0)
}

/// What is to be pulled: the name, or every tag of it.
fn wanted(args: &PullArgs, reference: &Reference) -> Result<Vec<Reference>> {
    if !args.all_tags {
        return Ok(vec![reference.clone()]);
    }
    let access = registries::access(reference)?;
    let tags = Remote::new(reference, &access).tags().map_err(Error::from)?;
    if tags.is_empty() {
        return Err(hinted(format!("{} has no tags", reference.familiar_name()), "check the name"));
    }
    let name =
        |tag: String| Reference::parse(&format!("{}/{}:{tag}", reference.registry(), reference.repository()));
    Ok(tags.into_iter().map(name).collect::<std::result::Result<_, _>>().map_err(Error::from)?)
}

fn status(args: &PullArgs, reference: &Reference, newer: bool) -> String {
    let name = if args.all_tags { reference.familiar_name() } else { reference.familiar() };
    if newer {
        format!("Status: Downloaded newer image for {name}")
    } else {
        format!("Status: Image is up to date for {name}")
    }
}

/// The stream of Docker's `POST /images/create`, the error at its end included.
fn as_json(engine: &Engine, args: &PullArgs, reference: &Reference, platforms: &Platforms) -> Result<u8> {
    let progress = JsonProgress::new(std::io::stdout());
    let work = || -> Result<bool> {
        let mut newer = false;
        for reference in wanted(args, reference)? {
            let options = options(engine, &reference, platforms.clone())?;
            let pulled = pull(engine.store(), &reference, &options, &progress).map_err(Error::from)?;
            newer |= !pulled.already_present;
            progress.status(&format!("Digest: {}", pulled.descriptor.digest));
        }
        Ok(newer)
    };
    let outcome = work();
    match &outcome {
        Ok(newer) => progress.status(&status(args, reference, *newer)),
        Err(error) => progress.error(&format!("{error:#}")),
    }
    outcome.map(|_| 0)
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
    let options = options(engine, reference, platforms)?;
    let progress = PullProgress::new(*ui, quiet, to_stdout);
    let pulled = gc::bring_in(ui, engine, |store| pull(store, reference, &options, &progress));
    progress.finish();
    let pulled = pulled?;
    engine.tell_of_image("pull", &reference.familiar(), &reference.familiar_name());
    context::explain_lost_owners(ui, engine.store(), reference, &pulled.descriptor);
    gc::after(ui, engine, std::slice::from_ref(reference))?;
    Ok(pulled)
}

/// How every pull is done: as this user reaches the registry, and with the policy's word before anything is fetched.
fn options(engine: &Engine, reference: &Reference, platforms: Platforms) -> Result<PullOptions> {
    let access = registries::access(reference)?;
    let check = trust::gate(engine)?.map(|gate| gate.into_check(engine.store()));
    Ok(PullOptions { access, platforms, check, ..PullOptions::default() })
}
