//! Hosts: where plugins live, and the store that images come from.
#![expect(unsafe_code, reason = "exported names")]

use std::ffi::c_char;
use std::sync::Arc;

use dhow_engine::{Engine, Folders, plugins};

use crate::error::Error;
use crate::pointer;
use crate::settings::{self, HostSettings};

/// Where plugins live.
#[derive(Debug)]
pub struct Host {
    pub(crate) host: plugins::Host,
    pub(crate) engine: Option<Arc<Engine>>,
}

/// The version of this library, such as `1.2.3`.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Sets up a host; null when that fails. `settings` is a JSON object, or null for none:
///
/// ```json
/// {"store": "/var/lib/dhow", "cache": "/var/cache/app", "scratch": "/run/app/empty", "instances": 1000, "ceiling": {},
///  "policy": "/etc/dhow/policy.json"}
/// ```
///
/// `store` is Dhow's data folder, for images. `cache` is where compiled code is kept (the store's own place if there is a
/// store). `scratch` is an empty folder that becomes the root of plugins with directories. `instances` is how many there
/// can be at a time. `ceiling` is what no plugin gets more than, in the form of `grants` at `dhow_loader_set`.
/// `policy` is a policy of signatures (docs/trust.md), which images have to fulfil.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_host_new(settings: *const c_char, error: *mut *mut Error) -> *mut Host {
    let made = pointer::attempt(error, || {
        let settings: HostSettings = settings::read(pointer::maybe_text(settings, "settings")?)?;
        let policy = settings.policy;
        let open = |root| Ok::<_, Error>(Engine::open(Folders::below(root))?.with_policy(policy));
        let engine = settings.store.map(open).transpose()?.map(Arc::new);
        let nothing = plugins::Config::default();
        let ceiling = settings.ceiling.map(|ceiling| ceiling.limit()).transpose()?;
        let host = plugins::Host::new(plugins::Config {
            cache: settings.cache.or_else(|| engine.as_ref().map(|engine| engine.compiled_code())),
            instances: settings.instances.unwrap_or(nothing.instances),
            scratch: settings.scratch,
            ceiling,
        })?;
        Ok(Host { host, engine })
    });
    made.map_or(std::ptr::null_mut(), pointer::give)
}

/// Frees a host. Its plugins live on until they are freed.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_host_free(host: *mut Host) {
    drop(pointer::take(host));
}
