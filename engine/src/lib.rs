//! `dhow-engine`: containers as users know them, with no daemon needed.
//!
//! Joins the image store ([`dhow_images`]) and the run interface ([`dhow_runtime`]): records, names, supervision,
//! streams. Every operation takes Docker's own configuration shapes ([`config`]), so that the Engine REST API can be
//! put on top without another translation. Never prints, exits or reads the environment.
//!
//! On disk, below the root folder (the image store's folders are described in [`dhow_images`]):
//! ```text
//! containers/<id>/config.json   what was asked for; written once, after the container's name is claimed
//! containers/<id>/state.json    what became of it; replaced by rename
//! containers/<id>/lock          held by the monitor for as long as the container lives
//! containers/<id>/socket        where one attaches to the container while it runs
//! containers/<id>/<id>-json.log what it has written; .1 and .2 are older
//! containers/<id>/upper         what the container wrote
//! containers/<id>/work, merged  native only: the kernel overlay's scratch, and where it is mounted inside
//! names/<name>                  the id that owns this name; created exclusively
//! volumes/<name>/               see [`volume`]
//! networks/<name>/              see [`network`]
//! scratch/<id>/                 upper, work, merged of a container whose record is in memory
//! skeleton/                     lowest layer of native containers: what something is mounted on
//! aot/                          machine code of Wasm modules
//! ```
//! Containers that are removed when they end (`--rm`) have their record, name and lease below the run folder instead, on
//! a file system in memory: `<run>/<this root>/{containers,names,leases}`. Nobody is promised that they survive a reboot,
//! and so a start writes nothing to the disk that the container does not write itself.
//!
//! Reading order: [`engine`], [`config`], [`record`], [`container`], then `monitor` and `attach` (Linux).

pub mod build;
pub mod config;
pub mod container;
pub mod detach;
pub mod duration;
pub mod engine;
pub mod error;
pub mod events;
pub mod gc;
pub mod host;
pub mod image;
mod init;
pub mod logs;
mod many;
mod marks;
pub mod mounts;
pub mod names;
pub mod network;
pub mod owner;
pub mod plugins;
pub mod ports;
pub mod prune;
pub mod record;
mod resources;
pub mod settings;
pub mod spec;
pub mod system;
pub mod usage;
pub mod user;
pub mod volume;

#[cfg(target_os = "linux")]
pub mod attach;
#[cfg(target_os = "linux")]
mod monitor;
#[cfg(target_os = "linux")]
mod processes;
#[cfg(target_os = "linux")]
mod survivor;
mod trust;
mod until;

pub use config::{Config, HostConfig};
pub use engine::{Engine, Folders};
pub use error::{Error, Result};
pub use record::{Record, State, Status};

pub use dhow_images as images;
pub use dhow_runtime as runtime;
