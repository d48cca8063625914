//! What is known of a plugin; replacing its code; what it remembers.
#![expect(unsafe_code, reason = "exported names")]

use std::ffi::c_char;
use std::sync::{Arc, Mutex, PoisonError};

use dhow_engine::Engine;
use dhow_engine::plugins::{self, Found, Source};
use serde_json::json;

use crate::buffer::Buffer;
use crate::error::{Error, Kind};
use crate::pointer;

/// A loaded plugin.
#[derive(Debug)]
pub struct Plugin {
    pub(crate) plugin: plugins::Plugin,
    image: Option<(Arc<Engine>, Mutex<Found>)>,
}

impl Plugin {
    pub(crate) fn new(plugin: plugins::Plugin, image: Option<(Arc<Engine>, Found)>) -> Self {
        Self { plugin, image: image.map(|(engine, found)| (engine, Mutex::new(found))) }
    }

    fn kv(&self) -> Result<&plugins::Kv, Error> {
        let refused = || Error::usage("the plugin may remember nothing: grant it `kv`".to_owned());
        self.plugin.kv().ok_or_else(refused)
    }
}

/// Its functions: a JSON array of objects with `name` and `type`.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_plugin_functions(plugin: *const Plugin) -> Buffer {
    let told = pointer::attempt(std::ptr::null_mut(), || {
        let functions = pointer::object(plugin, "plugin")?.plugin.functions();
        let told = |function: plugins::Function| json!({ "name": function.name, "type": function.ty });
        Ok(json!(functions.into_iter().map(told).collect::<Vec<_>>()).to_string())
    });
    told.map_or(Buffer::EMPTY, Buffer::of)
}

/// What has happened to it since it was loaded: a JSON object of counts; times are in nanoseconds.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_plugin_stats(plugin: *const Plugin) -> Buffer {
    let told = pointer::attempt(std::ptr::null_mut(), || {
        let stats = pointer::object(plugin, "plugin")?.plugin.stats();
        let nanoseconds = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Ok(json!({
            "calls": stats.calls, "errors": stats.errors, "traps": stats.traps, "deadlines": stats.deadlines,
            "exhausted": stats.exhausted, "denied": stats.denied, "cancelled": stats.cancelled,
            "host": stats.host, "refused": stats.refused, "instances": stats.instances, "warm": stats.warm,
            "reloads": stats.reloads, "busy": nanoseconds(stats.busy), "longest": nanoseconds(stats.longest),
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
    let done = pointer::attempt(error, || Ok(pointer::object(plugin, "plugin")?.plugin.reload(source()?)?));
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
        engine.refresh(&plugin.plugin, &mut found).map_err(|error| match error {
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
