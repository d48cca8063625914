//! How things fail, for hosts in C: a kind to branch on, a message to show, details to look into.
#![expect(unsafe_code, reason = "exported names")]

use dhow_engine::plugins;
use serde_json::json;

use crate::buffer::Buffer;
use crate::pointer;

/// What kind of failure it is. Later versions may have more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub enum Kind {
    /// None: what `dhow_error_kind` says of null.
    None = 0,
    /// The call took longer than it may.
    Deadline = 1,
    /// The host gave the call up.
    Cancelled = 2,
    /// The instance wanted more memory than it may have.
    OutOfMemory = 3,
    /// The call needed more instructions than it may.
    OutOfFuel = 4,
    /// The plugin did what no program may. Details: `backtrace`.
    Trap = 5,
    /// The plugin used what it was not granted. Details: `capability`.
    Denied = 6,
    /// The plugin's own answer is an error. Details: `value`.
    Guest = 7,
    /// Types differ. Details: `what`, `expected`, `found`.
    Incompatible = 8,
    /// There is no such function. Details: `has`.
    NoFunction = 9,
    /// A function of the host failed.
    Host = 10,
    /// A function of the host, or this library, panicked.
    Panic = 11,
    /// There are as many instances as there can be.
    Busy = 12,
    /// It has failed and is left alone for a while. Details: `milliseconds`.
    Resting = 13,
    /// The code cannot be read, compiled or linked.
    Load = 14,
    /// The image is not there, or not trusted.
    Image = 15,
    /// This library was used wrongly: a null pointer, settings that are none.
    Usage = 16,
}

/// A failure.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    details: serde_json::Value,
}

impl Error {
    pub(crate) fn new(kind: Kind, message: String) -> Self {
        Self { kind, message, details: json!({}) }
    }

    pub(crate) fn usage(message: String) -> Self {
        Self::new(Kind::Usage, message)
    }
}

impl From<plugins::Error> for Error {
    fn from(error: plugins::Error) -> Self {
        use plugins::Error as Plugins;
        let (kind, details) = match &error {
            Plugins::Deadline { .. } => (Kind::Deadline, json!({})),
            Plugins::Cancelled => (Kind::Cancelled, json!({})),
            Plugins::OutOfMemory { limit } => (Kind::OutOfMemory, json!({ "limit": limit })),
            Plugins::OutOfFuel { limit } => (Kind::OutOfFuel, json!({ "limit": limit })),
            Plugins::Trap { backtrace, .. } => (Kind::Trap, json!({ "backtrace": backtrace })),
            Plugins::Denied { capability } => (Kind::Denied, json!({ "capability": capability })),
            Plugins::Guest(_) => {
                let value = error.guest_json().and_then(|text| serde_json::from_str(&text).ok());
                (Kind::Guest, json!({ "value": value.unwrap_or(serde_json::Value::Null) }))
            }
            Plugins::Incompatible { what, expected, found } => {
                (Kind::Incompatible, json!({ "what": what, "expected": expected, "found": found }))
            }
            Plugins::NoFunction { has, .. } => (Kind::NoFunction, json!({ "has": has })),
            Plugins::Host(_) => (Kind::Host, json!({})),
            Plugins::Panic(_) => (Kind::Panic, json!({})),
            Plugins::Busy(_) => (Kind::Busy, json!({})),
            Plugins::Resting { left } => (
                Kind::Resting,
                json!({ "milliseconds": u64::try_from(left.as_millis()).unwrap_or(u64::MAX) }),
            ),
            // What cannot be loaded, and what later versions may have.
            _ => (Kind::Load, json!({})),
        };
        Self { kind, message: error.to_string(), details }
    }
}

impl From<dhow_engine::Error> for Error {
    fn from(error: dhow_engine::Error) -> Self {
        let kind = if matches!(error, dhow_engine::Error::Invalid(_)) { Kind::Usage } else { Kind::Image };
        Self::new(kind, error.to_string())
    }
}

/// What kind of failure it is.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_error_kind(error: *const Error) -> Kind {
    pointer::object(error, "error").map_or(Kind::None, |error| error.kind)
}

/// What has failed, in English.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_error_message(error: *const Error) -> Buffer {
    pointer::object(error, "error").map_or(Buffer::EMPTY, |error| Buffer::of(error.message.as_str()))
}

/// What else is known of it: a JSON object whose fields depend on the kind.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_error_details(error: *const Error) -> Buffer {
    pointer::object(error, "error").map_or(Buffer::EMPTY, |error| Buffer::of(error.details.to_string()))
}

/// Frees an error.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_error_free(error: *mut Error) {
    drop(pointer::take(error));
}
