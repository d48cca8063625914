//! Extended attributes: the union's own marks, and what is copied with a file. Where a host or a file system has none,
//! there are none.

use std::os::fd::AsFd;

/// All names of one file, and one value: Linux's own limits.
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
const MOST: usize = 64 << 10;

/// The value of one attribute.
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
pub(super) fn get(file: &impl AsFd, name: &str) -> Option<Vec<u8>> {
    let mut value = [0u8; 128];
    let length = rustix::fs::fgetxattr(file, name, &mut value).ok()?;
    Some(value.get(..length)?.to_vec())
}

/// Sets one; whether that worked.
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
pub(super) fn set(file: &impl AsFd, name: &str, value: &[u8]) -> bool {
    rustix::fs::fsetxattr(file, name, value, rustix::fs::XattrFlags::empty()).is_ok()
}

/// Copies all but overlays' own. What this process may not set is left out, as its owner is.
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
pub(super) fn copy(from: &impl AsFd, to: &impl AsFd) {
    let mut few = [0u8; 256];
    let mut many = Vec::new();
    let names: &[u8] = match rustix::fs::flistxattr(from, &mut few) {
        Ok(length) => &few[..length.min(few.len())],
        Err(rustix::io::Errno::RANGE) => {
            many.resize(MOST, 0);
            match rustix::fs::flistxattr(from, &mut many) {
                Ok(length) => &many[..length.min(MOST)],
                Err(_) => return,
            }
        }
        Err(_) => return,
    };
    let mut value = Vec::new();
    for name in names.split(|byte| *byte == 0) {
        let overlays =
            |space: &[u8]| name.strip_prefix(space).is_some_and(|rest| rest.starts_with(b"overlay."));
        if name.is_empty() || overlays(b"user.") || overlays(b"trusted.") {
            continue;
        }
        value.resize(MOST, 0);
        if let Ok(length) = rustix::fs::fgetxattr(from, name, &mut value) {
            let value = &value[..length.min(MOST)];
            rustix::fs::fsetxattr(to, name, value, rustix::fs::XattrFlags::empty()).ok();
        }
    }
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
pub(super) fn get(_: &impl AsFd, _: &str) -> Option<Vec<u8>> {
    None
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
pub(super) fn set(_: &impl AsFd, _: &str, _: &[u8]) -> bool {
    false
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
pub(super) fn copy(_: &impl AsFd, _: &impl AsFd) {}
