//! `system gc`: lets images go as the settings' `gc` section says, and what runs by itself after content came.

use anyhow::Result;
use clap::Args;
use dhow_engine::images::{Candidate, Reference, Store};
use dhow_engine::settings::Settings;
use dhow_engine::{Engine, Error};
use jiff::Timestamp;

use crate::args::Global;
use crate::context;
use crate::error::hinted;
use crate::ui::Ui;
use crate::units;

#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
}

fn settings() -> Result<Settings> {
    Ok(Settings::load(&context::settings_file())?)
}

pub(crate) fn run(ui: &Ui, global: &Global, args: &GcArgs) -> Result<u8> {
    let engine = context::engine(global)?;
    let policy = settings()?.gc().policy(&[]);
    if policy.is_off() {
        let file = context::settings_file();
        return Err(hinted(
            "no limits are set",
            format!(
                "for example {{\"gc\": {{\"max_size\": \"20GB\", \"unused_for\": \"30d\"}}}} in {}",
                file.display()
            ),
        ));
    }
    let collected = engine.collect(&policy, args.dry_run)?;
    for image in &collected.images {
        ui.line(&format!("{}: {}", if args.dry_run { "would remove" } else { "removed" }, shown(image)));
    }
    let (before, after) = (units::progress_size(collected.before), units::progress_size(collected.after));
    ui.line(&format!("Size: {before}, {after} after"));
    if !collected.reached {
        ui.warn("the limits are not reached: everything else is in use or to be kept");
    }
    if !args.dry_run {
        ui.line(&format!("Total reclaimed space: {}", units::progress_size(collected.swept.freed.allocated)));
    }
    Ok(0)
}

/// The store, with the limit that the settings may set for it.
pub(crate) fn bounded(engine: &Engine) -> Result<Store> {
    let store = engine.store().clone();
    Ok(match settings()?.gc().quota() {
        Some(bytes) => store.with_quota(bytes),
        None => store,
    })
}

/// Brings content in. If it does not fit, the least recently used images make room, and it is tried once more.
pub(crate) fn bring_in<T>(
    ui: &Ui,
    engine: &Engine,
    mut bring: impl FnMut(&Store) -> dhow_engine::images::Result<T>,
) -> Result<T> {
    use dhow_engine::images::Error as Refused;
    let store = bounded(engine)?;
    let refused = match bring(&store) {
        Err(Refused::QuotaExceeded { used, needed, max }) if needed <= max => {
            Refused::QuotaExceeded { used, needed, max }
        }
        other => return Ok(other.map_err(Error::from)?),
    };
    if let Refused::QuotaExceeded { needed, max, .. } = refused {
        let mut policy = settings()?.gc().policy(&[]);
        policy.max_size = Some(max - needed);
        let made = engine.collect(&policy, true)?;
        if made.reached {
            tell(ui, &engine.collect(&policy, false)?.images);
            return Ok(bring(&store).map_err(Error::from)?);
        }
    }
    Err(Error::from(refused).into())
}

/// What happens after content came: the settings' limits are brought about. What came stays.
pub(crate) fn after(ui: &Ui, engine: &Engine, fresh: &[Reference]) -> Result<()> {
    let policy = settings()?.gc().policy(fresh);
    if !policy.is_off() {
        tell(ui, &engine.collect(&policy, false)?.images);
    }
    Ok(())
}

fn tell(ui: &Ui, images: &[Candidate]) {
    for image in images {
        ui.note(&format!("removed to keep to the limits of the settings: {}", shown(image)));
    }
}

fn shown(image: &Candidate) -> String {
    let names: Vec<_> = image.names.iter().map(Reference::familiar).collect();
    let name = if names.is_empty() { image.descriptor.digest.to_string() } else { names.join(", ") };
    let unused = Timestamp::try_from(image.last_used).map(|time| Timestamp::now().duration_since(time));
    let unused = units::human_duration(unused.unwrap_or_default());
    format!("{name} (last used {} ago)", unused.to_lowercase())
}
