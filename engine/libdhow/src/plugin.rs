//! What is known of a plugin; replacing its code; what it remembers.
#![expect(unsafe_code, reason = "exported names")]

use std::ffi::c_char;
use std::sync::{Arc, Mutex, PoisonError};

use dhow_engine::Engine;
use dhow_engine::plugins::{self, Found, Source};
use serde_json::json;

use crate::buffer::Buffer;
use crate::error::{Error, Kind};
use crate::host::Host;
use crate::pointer;

/// A loaded plugin.
#[derive(Debug)]
pub struct Plugin {
    plugin: Place,
    image: Option<(Arc<Engine>, Mutex<Found>)>,
}

/// Where it runs.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// In this process.
    Here(plugins::Plugin),
    /// In another one.
    There(Arc<plugins::RemotePlugin>),
}

impl Plugin {
    pub(crate) fn new(plugin: plugins::Plugin, image: Option<(Arc<Engine>, Found)>) -> Self {
        let image = image.map(|(engine, found)| (engine, Mutex::new(found)));
        Self { plugin: Place::Here(plugin), image }
    }

    pub(crate) fn place(&self) -> &Place {
        &self.plugin
    }

    pub(crate) fn call_json(
        &self,
        options: &plugins::CallOptions,
        name: &str,
        arguments: &str,
    ) -> Result<String, plugins::Error> {
        match &self.plugin {
            Place::Here(plugin) => plugin.call_json(options, name, arguments),
            Place::There(plugin) => plugin.call_json(options, name, arguments),
        }
    }

    /// The plugin itself, for what only this process can do with it.
    pub(crate) fn here(&self) -> Result<&plugins::Plugin, Error> {
        match &self.plugin {
            Place::Here(plugin) => Ok(plugin),
            Place::There(_) => {
                Err(Error::usage("the plugin runs in another process, which has to do that".to_owned()))
            }
        }
    }

    fn kv(&self) -> Result<&plugins::Kv, Error> {
        let refused = || Error::usage("the plugin may remember nothing: grant it `kv`".to_owned());
        self.here()?.kv().ok_or_else(refused)
    }
}

/// A plugin of the host's store that runs in a process of its own, by its name: WebAssembly or a native program that `dhow plugin
/// run` keeps. Values are checked against its types here. It cannot be reloaded from here, its bytes cross as JSON, and
/// what it remembers is not told. Linux only.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_plugin_connect(
    host: *const Host,
    name: *const c_char,
    error: *mut *mut Error,
) -> *mut Plugin {
    let made = pointer::attempt(error, || {
        let (host, name) = (pointer::object(host, "host")?, pointer::text(name, "name")?);
        let engine = host.engine.as_ref().ok_or_else(|| Error::usage("the host has no store".to_owned()))?;
        connect(engine, name)
    });
    made.map_or(std::ptr::null_mut(), |plugin| {
        pointer::give(Plugin { plugin: Place::There(Arc::new(plugin)), image: None })
    })
}

#[cfg(target_os = "linux")]
fn connect(engine: &Engine, name: &str) -> Result<plugins::RemotePlugin, Error> {
    Ok(engine.connect_plugin(name, &plugins::Limits::default())?)
}

#[cfg(not(target_os = "linux"))]
fn connect(_: &Engine, name: &str) -> Result<plugins::RemotePlugin, Error> {
    Err(Error::usage(format!("{name}: plugins run in processes of their own on Linux only")))
}

/// Its functions: a JSON array of objects with `name` and `type`.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_plugin_functions(plugin: *const Plugin) -> Buffer {
    let told = pointer::attempt(std::ptr::null_mut(), || {
        let functions = match &pointer::object(plugin, "plugin")?.plugin {
            Place::Here(plugin) => plugin.functions(),
            Place::There(plugin) => plugin.functions(),
        };
        let told = |function: plugins::Function| json!({ "name": function.name, "type": function.ty });
        Ok(json!(functions.into_iter().map(told).collect::<Vec<_>>()).to_string())
    });
    told.map_or(Buffer::EMPTY, Buffer::of)
}

/// What has happened to it since it was loaded: a JSON object of counts; times are in nanoseconds.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_plugin_stats(plugin: *const Plugin) -> Buffer {
    let told = pointer::attempt(std::ptr::null_mut(), || {
        let stats = match &pointer::object(plugin, "plugin")?.plugin {
            Place::Here(plugin) => plugin.stats(),
            Place::There(plugin) => plugin.stats(),
        };
        let nanoseconds = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Ok(json!({
            "calls": stats.calls, "errors": stats.errors, "traps": stats.traps, "deadlines": stats.deadlines,
            "exhausted": stats.exhausted, "denied": stats.denied, "cancelled": stats.cancelled,
            "host": stats.host, "refused": stats.refused, "instances": stats.instances, "warm": stats.warm,
            "reloads": stats.reloads, "memory": stats.memory, "largest": stats.largest, "busy": nanoseconds(stats.busy), "longest": nanoseconds(stats.longest),
            "median": nanoseconds(stats.percentile(50.0)), "p99": nanoseconds(stats.percentile(99.0)),
        })
        .to_string())
    });
    told.map_or(Buffer::EMPTY, Buffer::of)
}

fn reload(
    plugin: *const Plugin,
    error: *mut *mut Error,
    source: impl FnOnce() -> Result<Source, Error>,
) -> bool {
    let done = pointer::attempt(error, || Ok(pointer::object(plugin, "plugin")?.here()?.reload(source()?)?));
    done.is_some()
}

/// Replaces its code by that of a file. Calls that are under way end with the old one; when this fails the old one stays.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_plugin_reload_file(
    plugin: *const Plugin,
    path: *const c_char,
    error: *mut *mut Error,
) -> bool {
    reload(plugin, error, || Ok(Source::File(pointer::text(path, "path")?.into())))
}

/// As `dhow_plugin_reload_file`, with the code itself.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_plugin_reload_bytes(
    plugin: *const Plugin,
    data: *const u8,
    length: usize,
    error: *mut *mut Error,
) -> bool {
    reload(plugin, error, || Ok(Source::Bytes(pointer::bytes(data, length, "data")?.to_vec())))
}

/// Gives a plugin of an image the code that its reference means now; `changed` (or null) says whether that was another one.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_plugin_refresh(
    plugin: *const Plugin,
    changed: *mut bool,
    error: *mut *mut Error,
) -> bool {
    let done = pointer::attempt(error, || {
        let plugin = pointer::object(plugin, "plugin")?;
        let image = plugin.image.as_ref();
        let (engine, found) = image.ok_or_else(|| Error::usage("the plugin is from no image".to_owned()))?;
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        engine.refresh(plugin.here()?, &mut found).map_err(|error| match error {
            plugins::RefreshError::Plugin(error) => error.into(),
            other => Error::new(Kind::Image, other.to_string()),
        })
    });
    if let Some(new) = done {
        pointer::put(changed, new);
    }
    done.is_some()
}

/// What the plugin remembers under a key: 1 and the value, 0 for nothing, -1 when it fails.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_kv_get(
    plugin: *const Plugin,
    key: *const c_char,
    value: *mut Buffer,
    error: *mut *mut Error,
) -> i32 {
    let found = pointer::attempt(error, || {
        Ok(pointer::object(plugin, "plugin")?.kv()?.get(pointer::text(key, "key")?))
    });
    match found {
        None => -1,
        Some(None) => 0,
        Some(Some(bytes)) => {
            pointer::put(value, Buffer::of(bytes));
            1
        }
    }
}

/// Makes the plugin remember a value: 1, or 0 when there is no room for it, or -1 when it fails.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_kv_set(
    plugin: *const Plugin,
    key: *const c_char,
    data: *const u8,
    length: usize,
    error: *mut *mut Error,
) -> i32 {
    let done = pointer::attempt(error, || {
        let value = pointer::bytes(data, length, "data")?;
        Ok(pointer::object(plugin, "plugin")?.kv()?.set(pointer::text(key, "key")?, value))
    });
    done.map_or(-1, i32::from)
}

/// Makes the plugin forget a key: 1, or 0 when there was none, or -1 when it fails.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_kv_delete(plugin: *const Plugin, key: *const c_char, error: *mut *mut Error) -> i32 {
    let done = pointer::attempt(error, || {
        Ok(pointer::object(plugin, "plugin")?.kv()?.delete(pointer::text(key, "key")?))
    });
    done.map_or(-1, i32::from)
}

/// Frees a plugin. Calls that are under way have to have ended.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_plugin_free(plugin: *mut Plugin) {
    drop(pointer::take(plugin));
}
