//! Joining a network namespace that somebody else has made (Linux).

use std::path::Path;

use crate::error::Result;

/// Moves this thread, and those it will start, into the network namespace at `path`.
///
/// # Errors
/// When there is none, or this process may not join it.
#[cfg(target_os = "linux")]
pub(in crate::wasm) fn enter(path: &Path) -> Result<()> {
    use crate::error::Error;
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    use std::os::fd::AsFd as _;
    let file =
        fs_err::File::open(path).map_err(|source| Error::Io { path: path.to_owned(), source })?.into_file();
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).map_err(|errno| Error::Setup {
        action: format!("join the network namespace {}", path.display()),
        source: errno.into(),
    })
}

/// There are none elsewhere.
#[cfg(not(target_os = "linux"))]
pub(in crate::wasm) fn enter(_: &Path) -> Result<()> {
    Err(crate::error::Error::Unsupported { verb: "join a network namespace", executor: "wasm" })
}
