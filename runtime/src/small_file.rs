//! Small files, read with as few calls as can be: the kernel's own, and those of a container's folder.
//!
//! Those of procfs and of control groups say that they have no bytes, so the standard library's way (ask for the size, where
//! one is, then read in growing pieces) takes a dozen calls for a line of text.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::buffer::spare_capacity;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, read};

/// More than any value of a control group has.
const VALUE: usize = 4096;

/// A file of the kernel's, whole.
pub(crate) fn text(path: impl AsRef<Path>) -> io::Result<String> {
    let file = openat(CWD, path.as_ref(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    string(content(&file, 16 << 10, usize::MAX)?)
}

/// A file of the kernel's that holds one value, which is always given in one piece.
pub(crate) fn value(path: impl AsRef<Path>) -> io::Result<String> {
    let file = openat(CWD, path.as_ref(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut value = Vec::with_capacity(VALUE);
    rustix::io::retry_on_intr(|| read(&file, spare_capacity(&mut value)))?;
    string(value)
}

/// All that is left of an open file, but not much more than `most` bytes. `usual` is how many are read at once.
pub(crate) fn content(file: impl AsFd, usual: usize, most: usize) -> io::Result<Vec<u8>> {
    let mut content = Vec::with_capacity(usual.min(most));
    while content.len() < most {
        if content.len() == content.capacity() {
            content.reserve(usual);
        }
        match read(&file, spare_capacity(&mut content)) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(content)
}

fn string(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_is_there() {
        let folder = tempfile::tempdir().expect("folder");
        for length in [0, 1, 4095, 4096, 4097, 100_000] {
            let path = folder.path().join("file");
            let written: Vec<u8> = (0..length).map(|at| b'a' + u8::try_from(at % 26).unwrap_or(0)).collect();
            fs_err::write(&path, &written).expect("file");
            assert_eq!(text(&path).expect("read").as_bytes(), written, "{length}");
            let file = fs_err::File::open(&path).expect("open");
            assert_eq!(content(file.file(), 10, usize::MAX).expect("read"), written, "{length}");
            let file = fs_err::File::open(&path).expect("open");
            let some = content(file.file(), 10, 50).expect("read");
            assert!(
                written.starts_with(&some) && some.len() >= length.min(50) && some.len() <= 100,
                "{length}"
            );
        }
        assert_eq!(
            text("/proc/self/mountinfo").expect("read"),
            fs_err::read_to_string("/proc/self/mountinfo").expect("read")
        );
        assert_eq!(
            value("/proc/sys/kernel/pid_max").expect("read"),
            fs_err::read_to_string("/proc/sys/kernel/pid_max").expect("read")
        );
        assert!(value("/proc/no").is_err() && text("/proc/no").is_err());
    }
}
