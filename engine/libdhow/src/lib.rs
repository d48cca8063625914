//! `libdhow`: plugins for host applications in C, and in every language that can call C. The header is
//! `include/dhow.h`, made of this by `cbindgen`; what it says is said here.
//!
//! ```text
//! host.rs     where plugins live          call.rs      calling, with values as JSON or as bytes
//! loader.rs   what a plugin may do        plugin.rs    what is known of one; reloading; what it remembers
//! error.rs    how things fail             settings.rs  the JSON of hosts and plugins
//! buffer.rs   bytes that cross over       pointer.rs   checking what comes from the other side
//! waiting.rs  calls and functions that others need not wait for
//! trace.rs    spans of what is done
//! ```
//! Nothing here knows anything about plugins that [`dhow_engine::plugins`] does not.
//!
//! Every function may be called from every thread, also at the same time with the same objects, unless it frees one. A null
//! pointer where an object is expected is an error, or does nothing where there is no way to say so; every other pointer
//! must be valid. No function lets a panic out.
#![expect(
    unreachable_pub,
    reason = "by that `cbindgen` knows what belongs to the header; nothing here is for Rust"
)]

mod buffer;
mod call;
mod error;
mod host;
mod loader;
mod plugin;
mod pointer;
mod settings;
mod trace;
mod waiting;
