//! Calling a plugin: with values as JSON, or with bytes as they are.
#![expect(unsafe_code, reason = "exported names")]

use std::ffi::c_char;
use std::time::Duration;

use dhow_engine::plugins;

use crate::buffer::Buffer;
use crate::error::Error;
use crate::plugin::Plugin;
use crate::pointer;

/// Gives calls up from another thread.
#[derive(Debug)]
pub struct Cancel(plugins::Cancel);

/// What is special about one call. `{0}` is nothing.
#[derive(Debug)]
#[repr(C)]
pub struct CallOptions {
    /// Nanoseconds that it may take, in the place of the plugin's own deadline; 0 for that one.
    pub deadline: u64,
    /// Gives it up; may be null.
    pub cancel: *const Cancel,
    /// Bytes of memory that the instance may grow to, if that is less than the plugin's own limit; 0 for that one.
    pub memory: u64,
    /// Fuel that it may use, in the place of the plugin's own limit, which has to be there; 0 for that one.
    pub fuel: u64,
    /// Bytes that it may hand over at a time, in the place of the plugin's own limit; 0 for that one.
    pub output: usize,
}

/// A function that takes bytes and gives bytes: `func(list<u8>) -> list<u8>`.
pub struct BytesFunction(plugins::Typed<(&'static [u8],), (Vec<u8>,)>);

impl std::fmt::Debug for BytesFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

pub(crate) fn options(given: *const CallOptions) -> plugins::CallOptions {
    let Ok(given) = pointer::object(given, "options") else { return plugins::CallOptions::default() };
    plugins::CallOptions {
        deadline: (given.deadline > 0).then(|| Duration::from_nanos(given.deadline)),
        cancel: pointer::object(given.cancel, "cancel").ok().map(|cancel| cancel.0.clone()),
        memory: (given.memory > 0).then_some(given.memory),
        fuel: (given.fuel > 0).then_some(given.fuel),
        output: (given.output > 0).then_some(given.output),
    }
}

/// Calls a function, `name` or `interface#name`, with a JSON array of its arguments (null for none), and puts its answer as JSON
/// into `answer`, which has to be freed: `null` where it gives nothing, of a `result` what is `ok`. Which JSON stands for
/// which type is in docs/plugins.md. `options` may be null. False when it fails.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_plugin_call(
    plugin: *const Plugin,
    name: *const c_char,
    arguments: *const c_char,
    options: *const CallOptions,
    answer: *mut Buffer,
    error: *mut *mut Error,
) -> bool {
    let done = pointer::attempt(error, || {
        let name = pointer::text(name, "name")?;
        let arguments = pointer::maybe_text(arguments, "arguments")?.unwrap_or("[]");
        Ok(pointer::object(plugin, "plugin")?.call_json(&self::options(options), name, arguments)?)
    });
    done.map(|text| pointer::put(answer, Buffer::of(text))).is_some()
}

/// Finds a function that takes bytes and gives bytes (`list<u8>`), whose calls cost much less than those by JSON.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_plugin_bytes(
    plugin: *const Plugin,
    name: *const c_char,
    error: *mut *mut Error,
) -> *mut BytesFunction {
    let found = pointer::attempt(error, || {
        let name = pointer::text(name, "name")?;
        Ok(BytesFunction(pointer::object(plugin, "plugin")?.here()?.typed(name)?))
    });
    found.map_or(std::ptr::null_mut(), pointer::give)
}

/// Calls such a function. The answer has to be freed. False when it fails.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_bytes_call(
    function: *const BytesFunction,
    data: *const u8,
    length: usize,
    options: *const CallOptions,
    answer: *mut Buffer,
    error: *mut *mut Error,
) -> bool {
    let done = pointer::attempt(error, || {
        let data = pointer::bytes(data, length, "data")?;
        Ok(pointer::object(function, "function")?.0.call_with(&self::options(options), (data,))?)
    });
    done.map(|(bytes,)| pointer::put(answer, Buffer::of(bytes))).is_some()
}

/// Frees such a function; the plugin stays.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_bytes_free(function: *mut BytesFunction) {
    drop(pointer::take(function));
}

/// Something that gives calls up.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_cancel_new() -> *mut Cancel {
    pointer::give(Cancel(plugins::Cancel::new()))
}

/// Gives all calls up that it was passed to, those to come, too.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_cancel(cancel: *const Cancel) {
    if let Ok(cancel) = pointer::object(cancel, "cancel") {
        cancel.0.cancel();
    }
}

/// Frees it; calls that are under way go on.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_cancel_free(cancel: *mut Cancel) {
    drop(pointer::take(cancel));
}
