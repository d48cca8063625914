//! What waits without keeping a thread: calls that tell when they have ended, and functions of the host that answer later.
#![expect(unsafe_code, reason = "calls into another language, and exported names")]

use std::ffi::{CString, c_char, c_void};
use std::sync::{Arc, OnceLock};

use dhow_engine::plugins;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::buffer::Buffer;
use crate::call::{self, CallOptions};
use crate::error::Error;
use crate::loader::{Data, Loader, Release};
use crate::plugin::{Place, Plugin};
use crate::pointer;

/// Is told how a call has ended, once, from a thread of this library: `error` is null and `answer` has what
/// `dhow_plugin_call` would have put there, or `error` says why not. Both have to be freed. It should not take long: other calls
/// wait for it.
pub type Done = Option<extern "C" fn(data: *mut c_void, answer: Buffer, error: *mut Error)>;

/// A function of the host that answers later: gets its arguments as a JSON array, which are there until it returns, and what it has
/// to answer with by `dhow_reply`, once, from any thread. It should not take long itself.
pub type FunctionAsync =
    Option<extern "C" fn(data: *mut c_void, arguments: *const c_char, reply: *mut Reply)>;

/// What an asynchronous function of the host answers with.
#[derive(Debug)]
pub struct Reply(oneshot::Sender<Result<String, String>>);

/// The threads of all asynchronous calls: they only wait, and compute what plugins compute.
fn runtime() -> Result<&'static Runtime, Error> {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let make = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.thread_name("dhow").enable_all().build().ok()
    };
    let failed = || Error::usage("there can be no more threads".to_owned());
    RUNTIME.get_or_init(make).as_ref().ok_or_else(failed)
}

/// As `dhow_plugin_call`, without waiting for the answer: `done` is told. It is called exactly once if this gives true, and
/// otherwise never. The plugin may be freed meanwhile; what `options` names as well.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_plugin_call_async(
    plugin: *const Plugin,
    name: *const c_char,
    arguments: *const c_char,
    options: *const CallOptions,
    done: Done,
    data: *mut c_void,
    error: *mut *mut Error,
) -> bool {
    let begun = pointer::attempt(error, || {
        let name = pointer::text(name, "name")?.to_owned();
        let arguments = pointer::maybe_text(arguments, "arguments")?.unwrap_or("[]").to_owned();
        let done = done.ok_or_else(|| Error::usage("done is null".to_owned()))?;
        let place = pointer::object(plugin, "plugin")?.place().clone();
        let options = call::options(options);
        let data = Data { data, release: None };
        let tell = move |ended: Result<String, plugins::Error>| {
            // All of it, and not its pointer alone.
            let data = &data;
            match ended {
                Ok(answer) => done(data.data, Buffer::of(answer), std::ptr::null_mut()),
                Err(error) => done(data.data, Buffer::EMPTY, pointer::give(Error::from(error))),
            }
        };
        let runtime = runtime()?;
        match place {
            Place::Here(plugin) => {
                runtime.spawn(async move { tell(plugin.call_json_async(&options, &name, &arguments).await) });
            }
            Place::There(plugin) => {
                runtime.spawn_blocking(move || tell(plugin.call_json(&options, &name, &arguments)));
            }
        }
        Ok(())
    });
    begun.is_some()
}

/// As `dhow_loader_function`, for a function that answers later. While it waits no thread does; the call's deadline and its
/// cancellation hold, and a reply that comes after them goes nowhere.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_loader_function_async(
    loader: *const Loader,
    interface: *const c_char,
    name: *const c_char,
    function: FunctionAsync,
    data: *mut c_void,
    release: Release,
    error: *mut *mut Error,
) -> bool {
    let data = Arc::new(Data { data, release });
    let done = pointer::attempt(error, || {
        let interface = pointer::maybe_text(interface, "interface")?.unwrap_or_default();
        let name = pointer::text(name, "name")?;
        let function = function.ok_or_else(|| Error::usage("function is null".to_owned()))?;
        let call = move |arguments: String| {
            let (reply, answer) = oneshot::channel();
            let asked = CString::new(arguments).map(|arguments| {
                function(data.data, arguments.as_ptr(), pointer::give(Reply(reply)));
            });
            async move {
                asked?;
                match answer.await {
                    Ok(answer) => Ok(answer?),
                    Err(_) => Err("its reply was freed without an answer".into()),
                }
            }
        };
        pointer::object(loader, "loader")?.build(|builder| builder.function_json_async(interface, name, call))
    });
    done.is_some()
}

/// Answers a call of an asynchronous function of the host, and frees the reply: with JSON (nothing for none), or where `failed`
/// with a text that says why.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_reply(reply: *mut Reply, failed: bool, data: *const u8, length: usize) {
    let Some(Reply(to)) = pointer::take(reply) else { return };
    let text = pointer::bytes(data, length, "data").ok().map(<[u8]>::to_vec);
    let text = text.and_then(|text| String::from_utf8(text).ok());
    let answer = match text {
        Some(text) if failed => Err(text),
        Some(text) => Ok(text),
        None => Err("its answer is no UTF-8".to_owned()),
    };
    // Nobody may wait any more.
    to.send(answer).ok();
}
