//! The verbs on containers, one file each.

mod around;
pub mod attach;
#[cfg(target_os = "linux")]
pub mod commit;
#[cfg(target_os = "linux")]
pub mod cp;
pub mod create;
#[cfg(target_os = "linux")]
pub mod diff;
pub mod exec;
#[cfg(target_os = "linux")]
pub mod export;
pub mod inspect;
pub mod kill;
pub mod list;
pub mod pause;
pub mod remove;
pub mod rename;
pub mod start;
pub mod stats;
pub mod stop;
#[cfg(target_os = "linux")]
pub mod top;
pub mod update;
pub mod wait;

pub(crate) use remove::remove_folder;

pub use create::{CreateOptions, Source};
pub use exec::ExecConfig;
#[cfg(target_os = "linux")]
pub(crate) use start::End;
pub use start::{Attended, ClientStreams};
pub use update::Update;
