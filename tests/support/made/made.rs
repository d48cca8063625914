//! What tests and benches make for themselves: images, layouts, root file systems, guests, registries, the peers' stores and daemons.
//!
//! Nothing here runs dhow. Whatever takes long to make is kept in `target/made`.

mod certificates;
mod guests;
mod image;
mod layout;
mod listing;
mod odd;
mod peers;
mod python;
mod registry;
mod rootfs;
mod tree;

pub(crate) use certificates::Certificates;
pub(crate) use guests::{guest, native, source};
pub(crate) use image::Image;
pub(crate) use layout::{Layout, digest_of};
pub(crate) use listing::{differences, listing};
pub(crate) use odd::odd;
pub(crate) use peers::{Containerd, Docker, Podman, ctr_program, skopeo, umoci};
pub(crate) use python::python;
pub(crate) use registry::{Options, Registry};
pub(crate) use rootfs::{busybox, debian};
pub(crate) use tree::{Squeeze, Tree};

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository's root: every package's folder lies in it.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a package's folder has a parent")
}

/// Where built guests and root file systems are kept between runs.
pub(crate) fn cache(name: &str) -> PathBuf {
    let path = repository().join("target/made").join(name);
    fs_err::create_dir_all(&path).expect("cache folder");
    path
}

/// Whether we are root. Tests that need it say so and pass without it.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Makes something once, whatever number of processes ask for it at the same time.
///
/// `stamp` names what it was made from; when that changes, it is made anew.
pub(crate) fn once(dir: &Path, stamp: &str, make: impl FnOnce()) {
    let lock = fs_err::File::create(dir.join(".lock")).expect("lock file");
    lock.file().lock().expect("lock");
    let made = dir.join(".made");
    if fs_err::read_to_string(&made).is_ok_and(|text| text == stamp) {
        return;
    }
    make();
    fs_err::write(&made, stamp).expect("stamp");
}

/// Runs a tool that is needed and expects it to succeed.
pub(crate) fn tool(command: &mut Command) -> String {
    let shown = format!("{command:?}");
    let output = command.output().unwrap_or_else(|error| panic!("{shown}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{shown}: {}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Polls until `ready` gives something, for at most 20 seconds.
pub(crate) fn until<T>(what: impl Debug, mut ready: impl FnMut() -> Option<T>) -> T {
    let start = std::time::Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(start.elapsed().as_secs() < 20, "waited too long for {what:?}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
