//! The verbs on containers, one file each.

#[cfg(target_os = "linux")]
pub mod commit;
#[cfg(target_os = "linux")]
pub mod cp;
pub mod create;
#[cfg(target_os = "linux")]
pub mod diff;
#[cfg(target_os = "linux")]
pub mod export;
pub mod inspect;
pub mod remove;
pub mod start;

pub(crate) use remove::remove_folder;

pub use create::{CreateOptions, Source};
pub use start::ClientStreams;
pub(crate) use start::End;
