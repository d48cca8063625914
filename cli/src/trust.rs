//! Which policy of signatures applies: `--signature-policy`, the settings, the user's file, the system's. The only place
//! of the command that looks for them.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use dhow_engine::images::trust::{Gate, Lookaside, Policy};
use dhow_engine::settings::Settings;
use dhow_engine::{Engine, Error};

use crate::context;

/// Options of commands that let images in or use them.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TrustArgs {
    /// Policy of signatures, in place of the configured one
    #[arg(long, value_name = "FILE")]
    pub(crate) signature_policy: Option<PathBuf>,
}

impl TrustArgs {
    /// The engine, under the policy that applies.
    pub(crate) fn apply(&self, engine: Engine) -> Result<Engine> {
        let policy = policy_file(self.signature_policy.as_deref())?;
        Ok(engine.with_policy(policy))
    }
}

/// The policy at work that an engine is under, if any.
pub(crate) fn gate(engine: &Engine) -> Result<Option<Gate>> {
    let Some(policy) = engine.policy() else { return Ok(None) };
    let policy = Policy::read(policy).map_err(Error::from)?;
    Ok(Some(Gate::new(policy, lookaside()?)))
}

/// Where simple signatures lie: beside our settings, else as the containers tools have it.
pub(crate) fn lookaside() -> Result<Lookaside> {
    let own = context::settings_file().with_file_name("registries.d");
    let folders =
        [own.as_path(), Path::new("/etc/dhow/registries.d"), Path::new("/etc/containers/registries.d")];
    let folder = folders.into_iter().find(|folder| folder.is_dir()).unwrap_or(&own);
    Ok(Lookaside::read(folder).map_err(Error::from)?)
}

/// The policy's file: the one that is named, else the first that is there. A name that leads nowhere is an error later:
/// whoever names a policy wants one.
fn policy_file(named: Option<&Path>) -> Result<Option<PathBuf>> {
    if let Some(named) = named {
        return Ok(Some(std::path::absolute(named)?));
    }
    let settings = context::settings_file();
    if let Some(policy) = Settings::load(&settings)?.policy() {
        return Ok(Some(policy));
    }
    let own = settings.with_file_name("policy.json");
    let system = PathBuf::from("/etc/dhow/policy.json");
    let is_own = own == system;
    let found = std::iter::once(own).chain((!is_own).then_some(system)).find(|file| {
        // Anything but "not there" counts as there: what cannot be looked at must not switch the policy off.
        let absent = [std::io::ErrorKind::NotFound, std::io::ErrorKind::NotADirectory];
        std::fs::symlink_metadata(file).map_or_else(|error| !absent.contains(&error.kind()), |_| true)
    });
    Ok(found)
}
