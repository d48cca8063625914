//! Containers as an OCI runtime keeps them: created from a bundle by one process, started, asked about and deleted by
//! others, with a folder of state in between (Linux).
//!
//! ```text
//! <root>/<id>/state.json    what there is to know (`state.rs`); replaced by rename
//! <root>/<id>/config.json   the specification as it was when the container was created
//! <root>/<id>/gate, result  where it waits to be started, see `native/gate.rs`
//! ```
//! The folder itself is the lock: who changes something holds it (`folder.rs`), so that creating, starting and deleting
//! come one after the other. A folder without `state.json`, or one whose container never got to its gate, is what a
//! killed `create` has left; deleting by force removes it. A process is known by its number and start time and held by
//! a pidfd before it is sent a signal, so that no other one can get it.
//!
//! Nothing here is the command line: see `cli/src/oci`. Images, names and logs are the engine's.
//!
//! Reading order: [`state`], [`container`], [`create`], [`exec`]; [`checkpoint`] and [`restore`] ask CRIU.

pub mod checkpoint;
pub mod container;
pub mod create;
mod criu;
pub mod error;
pub mod exec;
mod folder;
pub mod foreground;
pub mod load;
pub mod restore;
pub mod state;
mod time;
mod wasm;

pub use container::Container;
pub use error::{Error, Result};
pub use state::{Saved, Status};
