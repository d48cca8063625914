//! Loading a plugin: where its code is, what it may do, which functions of the host it may call.
#![expect(unsafe_code, reason = "calls into another language, and exported names")]

use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::{Arc, Mutex, PoisonError};

use dhow_engine::Engine;
use dhow_engine::plugins::{self, Builder, Found, Source};

use crate::buffer::Buffer;
use crate::error::Error;
use crate::host::Host;
use crate::plugin::Plugin;
use crate::pointer;
use crate::settings::{self, PluginSettings};

/// A plugin that is about to be loaded. It may do nothing until it is told otherwise.
#[derive(Debug)]
pub struct Loader(Mutex<Option<Loading>>);

struct Loading {
    /// Always there but while it is changed.
    builder: Option<Builder>,
    image: Option<(Arc<Engine>, Found)>,
    grants: Option<plugins::Request>,
    sink: Option<plugins::Sink>,
}

impl std::fmt::Debug for Loading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.builder.fmt(f)
    }
}

/// A function of the host: gets its arguments as a JSON array, and puts its answer into `answer` by `dhow_buffer_set`, as JSON
/// (nothing for none). Other than 0 is a failure, and the answer says why. It may be called from every thread that calls
/// plugins, at the same time.
pub type Function =
    Option<extern "C" fn(data: *mut c_void, arguments: *const c_char, answer: *mut Buffer) -> c_int>;
/// Takes what a plugin writes to its output, piece by piece, from whichever thread calls it.
pub type Sink = Option<extern "C" fn(data: *mut c_void, bytes: *const u8, length: usize)>;
/// Frees what a function was given as its data, when nobody needs it any more.
pub type Release = Option<extern "C" fn(data: *mut c_void)>;

/// What the other side wants to have back at each call.
#[derive(Debug)]
pub(crate) struct Data {
    pub(crate) data: *mut c_void,
    pub(crate) release: Release,
}

// SAFETY: we do nothing with it but hand it back; that it may come from every thread is part of the contract.
unsafe impl Send for Data {}
// SAFETY: as above.
unsafe impl Sync for Data {}

impl Drop for Data {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            release(self.data);
        }
    }
}

impl Loader {
    fn begun(builder: Builder, image: Option<(Arc<Engine>, Found)>) -> *mut Self {
        let loading = Loading { builder: Some(builder), image, grants: None, sink: None };
        pointer::give(Self(Mutex::new(Some(loading))))
    }

    /// Changes how it will be built.
    pub(crate) fn build(&self, build: impl FnOnce(Builder) -> Builder) -> Result<(), Error> {
        self.change(|loading| {
            loading.build(build);
            Ok(())
        })
    }

    /// Changes it; nothing once it was loaded.
    fn change<T>(&self, change: impl FnOnce(&mut Loading) -> Result<T, Error>) -> Result<T, Error> {
        let mut loading = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let loading =
            loading.as_mut().ok_or_else(|| Error::usage("the loader was used before".to_owned()))?;
        change(loading)
    }
}

impl Loading {
    fn build(&mut self, build: impl FnOnce(Builder) -> Builder) {
        self.builder = self.builder.take().map(build);
    }
}

/// A plugin from a file, binary or text.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_loader_file(
    host: *const Host,
    path: *const c_char,
    error: *mut *mut Error,
) -> *mut Loader {
    let made = pointer::attempt(error, || {
        let path = pointer::text(path, "path")?;
        Ok(pointer::object(host, "host")?.host.plugin(Source::File(path.into())))
    });
    made.map_or(std::ptr::null_mut(), |builder| Loader::begun(builder, None))
}

/// A plugin from its code, binary or text, which is copied.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_loader_bytes(
    host: *const Host,
    data: *const u8,
    length: usize,
    error: *mut *mut Error,
) -> *mut Loader {
    let made = pointer::attempt(error, || {
        let code = pointer::bytes(data, length, "data")?.to_vec();
        Ok(pointer::object(host, "host")?.host.plugin(Source::Bytes(code)))
    });
    made.map_or(std::ptr::null_mut(), |builder| Loader::begun(builder, None))
}

/// A plugin from an image of the host's store: `acme/filter:1`, `acme/filter@sha256:...`. Nothing is pulled.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_loader_image(
    host: *const Host,
    reference: *const c_char,
    error: *mut *mut Error,
) -> *mut Loader {
    let made = pointer::attempt(error, || {
        let host = pointer::object(host, "host")?;
        let reference = pointer::text(reference, "reference")?;
        let engine = host.engine.as_ref().ok_or_else(|| Error::usage("the host has no store".to_owned()))?;
        let found = engine.plugin(reference)?;
        Ok((found.builder(&host.host)?, (Arc::clone(engine), found)))
    });
    made.map_or(std::ptr::null_mut(), |(builder, image)| Loader::begun(builder, Some(image)))
}

/// Says what the plugin may do, by a JSON object. All of it may be missing:
///
/// ```json
/// {"name": "filter",
///  "grants": {"clocks": true, "random": true, "output": true, "env": {"MODE": "fast"}, "kv": 65536,
///             "directories": [{"path": "/srv/data", "name": "/data", "write": false}],
///             "network": ["api.example.com:443"]},
///  "requested": {},
///  "limits": {"memory": 67108864, "deadline": "50ms", "fuel": 1000000, "output": 1048576},
///  "pool": {"size": 8, "calls": 1000, "idle": "1m"},
///  "rest_after_failure": {"first": "100ms", "most": "10s"}}
/// ```
///
/// Times are texts like these, or seconds. False when it fails; nothing has changed then.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_loader_set(
    loader: *const Loader,
    settings: *const c_char,
    error: *mut *mut Error,
) -> bool {
    let done = pointer::attempt(error, || {
        let settings: PluginSettings = settings::read(Some(pointer::text(settings, "settings")?))?;
        // Told here what cannot be granted.
        settings.grants.as_ref().map(plugins::Request::limit).transpose()?;
        let requested = settings.requested.map(|requested| requested.limit()).transpose()?;
        pointer::object(loader, "loader")?.change(|loading| {
            if settings.grants.is_some() {
                loading.grants = settings.grants;
            }
            let change = |mut builder: Builder| {
                if let Some(name) = &settings.name {
                    builder = builder.name(name);
                }
                if let Some(requested) = requested {
                    builder = builder.requested(requested);
                }
                if let Some(limits) = settings.limits {
                    builder = builder.limits(limits.into());
                }
                if let Some(pool) = settings.pool {
                    builder = builder.pool(pool.into());
                }
                if let Some(rest) = settings.rest_after_failure {
                    builder = builder.rest_after_failure(rest.first, rest.most);
                }
                builder
            };
            loading.build(change);
            Ok(())
        })
    });
    done.is_some()
}

/// Gives the plugin a function of the host: `name` of an interface, or of none where that is null. `release` (or null) is
/// called with `data` when the plugin is gone, also when this fails.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_loader_function(
    loader: *const Loader,
    interface: *const c_char,
    name: *const c_char,
    function: Function,
    data: *mut c_void,
    release: Release,
    error: *mut *mut Error,
) -> bool {
    let data = Arc::new(Data { data, release });
    let done = pointer::attempt(error, || {
        let interface = pointer::maybe_text(interface, "interface")?.unwrap_or_default();
        let name = pointer::text(name, "name")?;
        let function = function.ok_or_else(|| Error::usage("function is null".to_owned()))?;
        let call = move |arguments: &str| {
            let arguments = CString::new(arguments)?;
            let mut answer = Buffer::EMPTY;
            let failed = function(data.data, arguments.as_ptr(), &raw mut answer);
            let answer = String::from_utf8(answer.into_bytes())?;
            if failed != 0 { Err(answer.into()) } else { Ok(answer) }
        };
        pointer::object(loader, "loader")?.change(|loading| {
            loading.build(|builder| builder.function_json(interface, name, call));
            Ok(())
        })
    });
    done.is_some()
}

/// Where the plugin's output goes, if it is granted.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_loader_output(
    loader: *const Loader,
    sink: Sink,
    data: *mut c_void,
    release: Release,
    error: *mut *mut Error,
) -> bool {
    let data = Data { data, release };
    let done = pointer::attempt(error, || {
        let sink = sink.ok_or_else(|| Error::usage("sink is null".to_owned()))?;
        let take: plugins::Sink = Arc::new(move |bytes: &[u8]| {
            let all = &data;
            sink(all.data, bytes.as_ptr(), bytes.len());
        });
        pointer::object(loader, "loader")?.change(|loading| {
            loading.sink = Some(take);
            Ok(())
        })
    });
    done.is_some()
}

/// Loads the plugin: null when that fails. The loader is used up either way, and still has to be freed.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_loader_load(loader: *const Loader, error: *mut *mut Error) -> *mut Plugin {
    let loaded = pointer::attempt(error, || {
        let loader = pointer::object(loader, "loader")?;
        let loading = loader.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let loading = loading.ok_or_else(|| Error::usage("the loader was used before".to_owned()))?;
        let Loading { builder, image, grants, sink } = loading;
        let mut builder = builder.ok_or_else(|| Error::usage("the loader is broken".to_owned()))?;
        if let Some(grants) = grants {
            builder = builder.grant(grants.grants(sink)?);
        }
        Ok(Plugin::new(builder.load()?, image))
    });
    loaded.map_or(std::ptr::null_mut(), pointer::give)
}

/// Frees a loader.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_loader_free(loader: *mut Loader) {
    drop(pointer::take(loader));
}
