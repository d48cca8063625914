//! Plugins from the image store: the code that a reference means, for [`dhow_runtime::plugins`].
//!
//! ```no_run
//! use dhow_engine::plugins::{Config, Host};
//! # fn host(engine: &dhow_engine::Engine) -> Result<(), Box<dyn std::error::Error>> {
//! let host = Host::new(Config { cache: Some(engine.compiled_code()), ..Config::default() })?;
//! let mut found = engine.plugin("acme/filter:1")?;
//! let filter = found.builder(&host)?.load()?;
//! // When the tag has moved, later calls find the new code.
//! engine.refresh(&filter, &mut found)?;
//! # Ok(())
//! # }
//! ```
//!
//! An image's policy of signatures and digest pins hold as for containers. Nothing is pulled here.

#[cfg(target_os = "linux")]
mod keeper;
#[cfg(target_os = "linux")]
mod native;
mod request;
#[cfg(target_os = "linux")]
mod running;

use std::path::PathBuf;
use std::sync::Arc;

use dhow_images::{Hold, Image, Matcher, NoProgress, UnpackedLayer};
use dhow_runtime::{Layer, Module, wasm};

use crate::container::create::random_id;
use crate::engine::{Engine, make_folder};
use crate::error;

pub use dhow_runtime::plugins::*;
#[cfg(target_os = "linux")]
pub use native::Native;
pub use request::{Directory, REQUESTS, Request, Variables};
#[cfg(target_os = "linux")]
pub use running::{Reserved, Running, apart};

/// What a reference meant when it was looked up.
#[derive(Debug, Clone)]
pub struct Found {
    /// As it was asked for.
    pub reference: String,
    /// Digest of what it named.
    pub digest: String,
    /// What it asks for, where it says so: it gets nothing else.
    pub requests: Option<Request>,
    code: Vec<u8>,
    layers: Vec<Layer>,
    hold: Arc<Hold>,
}

impl Found {
    /// The code, and the files of the image, which stay as long as they are used.
    pub fn source(&self) -> Source {
        let keep = Keep::new(Arc::clone(&self.hold));
        Source::Image { code: self.code.clone(), layers: self.layers.clone(), keep }
    }

    /// Begins to load it, by its name, with nothing but what it asks for.
    ///
    /// # Errors
    /// When it asks for what cannot be.
    pub fn builder(&self, host: &Host) -> error::Result<Builder> {
        let builder = host.plugin(self.source()).name(&self.reference);
        Ok(match &self.requests {
            Some(requests) => builder.requested(requests.limit()?),
            None => builder,
        })
    }
}

/// Why a plugin was not refreshed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RefreshError {
    /// The store does not have it, or it is not trusted.
    #[error(transparent)]
    Image(#[from] error::Error),
    /// The new code does not load; the old one stays.
    #[error(transparent)]
    Plugin(#[from] dhow_runtime::plugins::Error),
}

impl Engine {
    /// Where compiled code is kept, for plugins and containers alike.
    pub fn compiled_code(&self) -> PathBuf {
        self.root().join("aot")
    }

    /// An empty folder, as the root of plugins with granted folders ([`Config::scratch`]).
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn plugin_scratch(&self) -> error::Result<PathBuf> {
        make_folder(&self.root().join("plugins"))?;
        let folder = self.root().join("plugins").join("_empty");
        make_folder(&folder)?;
        Ok(folder)
    }

    /// The code of an image: the first Wasm layer of an artifact, or what the image's entrypoint names.
    ///
    /// # Errors
    /// When the image is not there, its signatures do not please the policy, or it has no Wasm program.
    pub fn plugin(&self, reference: &str) -> error::Result<Found> {
        let (lease, _) = random_id()?;
        let found = self.lease_image(&lease, reference, &Matcher::host(), false);
        let found = found.and_then(|(target, image)| {
            let hold = Arc::new(self.store().hold(std::slice::from_ref(&image.manifest.digest))?);
            let (code, layers) = self.code(reference, &image)?;
            let says = image.config.config.labels.get(REQUESTS).or_else(|| image.annotations.get(REQUESTS));
            let requests = says.map(|says| Request::parse(says)).transpose()?;
            let (reference, digest) = (reference.to_owned(), target.digest.to_string());
            Ok(Found { reference, digest, requests, code, layers, hold })
        });
        // The other one holds until the last user is gone; what is left of a lease is found by `system check`.
        self.store().release(&lease).ok();
        found
    }

    /// Gives a plugin the code that its reference means now, if that is another one; says whether it was.
    ///
    /// # Errors
    /// As [`Engine::plugin`], and when the new code does not load. The old one stays then.
    pub fn refresh(&self, plugin: &Plugin, found: &mut Found) -> Result<bool, RefreshError> {
        if self.find_image(&found.reference)?.digest.to_string() == found.digest {
            return Ok(false);
        }
        let now = self.plugin(&found.reference)?;
        plugin.reload(now.source())?;
        *found = now;
        Ok(true)
    }

    fn code(&self, reference: &str, image: &Image) -> error::Result<(Vec<u8>, Vec<Layer>)> {
        let store = self.store();
        if let Some(blob) = image.wasm.first() {
            let path = store.blob_path(&blob.digest);
            return Ok((wasm::code_of(&Module { path, id: None })?, Vec::new()));
        }
        if !image.platform.is_wasm() {
            return Err(error::Error::Invalid(format!(
                "{reference} is for {}, and a plugin is a WebAssembly component",
                image.platform
            )));
        }
        let layers = store.unpack(image, &NoProgress)?;
        let layers: Vec<_> =
            layers.into_iter().map(|UnpackedLayer { path, .. }| Layer { path, id: None }).collect();
        let config = &image.config.config;
        let command = config.entrypoint.iter().chain(&config.cmd).next();
        let command =
            command.ok_or_else(|| error::Error::Invalid(format!("{reference} names no command")))?;
        let code = wasm::code_in(&layers, &config.working_dir, &config.env, command)?;
        Ok((code, layers))
    }
}
