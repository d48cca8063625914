//! `events`: what has happened to containers, images, volumes and networks, told by whoever did it.
//!
//! ```text
//! <root>/events/log     one JSON object per line, Docker's; each line has an empty one before it
//! ```
//! There is no daemon that all of this goes through. Every process adds its lines with one write to the end of the file,
//! which the kernel puts one after the other: so there is one order for all. What is old is given back to the disk by a
//! hole at the beginning, so the file needs no rotation, no lock, and no reader or writer ever has to open it anew. A write
//! that was cut short costs its own line. Nothing here ever fails the operation that is told about.

mod filter;
mod message;
mod read;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use fs_err as fs;

use crate::engine::{Engine, make_folder};
use crate::error::Result;
use crate::record::Record;

pub use filter::{FILTERS, Filters};
pub use message::Event;
pub use read::Wanted;

/// So much is kept at least.
const KEPT: u64 = 1 << 20;

/// With more than this on the disk, what is older goes.
const MOST: u64 = 2 * KEPT;

/// The largest line. Labels may be as long as an image likes, and are left out of a longer one.
const LONGEST: usize = 64 << 10;

/// Where the events of a root are written to.
#[derive(Debug)]
pub(crate) struct Events {
    folder: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    file: Option<std::fs::File>,
    /// Lines that go with the next write.
    waiting: Vec<u8>,
}

impl Events {
    pub(crate) fn of(root: &Path) -> Self {
        Self { folder: root.join("events"), inner: Mutex::default() }
    }

    fn path(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn push(&self, event: &Event, now: bool) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.waiting.push(b'\n');
        event.append_to(&mut inner.waiting, LONGEST);
        inner.waiting.push(b'\n');
        if now {
            self.flush(&mut inner);
        }
    }

    /// Writes what waits. What cannot be written is lost.
    fn flush(&self, inner: &mut Inner) {
        if inner.waiting.is_empty() {
            return;
        }
        if inner.file.is_none() {
            inner.file = self.open();
        }
        if let Some(file) = &mut inner.file {
            // One write where the disk is not full, so its lines stay together.
            file.write_all(&inner.waiting).ok();
        }
        inner.waiting.clear();
    }

    fn open(&self) -> Option<std::fs::File> {
        let path = self.path();
        let open = || open_to_append(&path);
        match open() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                make_folder(&self.folder).ok()?;
                open().ok()
            }
            other => other.ok(),
        }
    }

    /// Gives what is old back to the disk.
    fn trim(&self) {
        let Ok(file) = open_to_append(&self.path()) else { return };
        trim(&file);
    }
}

fn open_to_append(path: &Path) -> std::io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(target_os = "linux")]
fn trim(file: &std::fs::File) {
    use rustix::fs::{FallocateFlags, fallocate};
    use std::os::unix::fs::MetadataExt as _;
    let Ok(found) = file.metadata() else { return };
    if found.blocks() * 512 <= MOST {
        return;
    }
    // Whole blocks of any file system.
    let old = found.len().saturating_sub(KEPT) & !0xffff;
    let punched = fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, old);
    if punched.is_err() && found.len() > MOST {
        // A file system without holes.
        file.set_len(0).ok();
    }
}

#[cfg(not(target_os = "linux"))]
fn trim(file: &std::fs::File) {
    if file.metadata().is_ok_and(|found| found.len() > MOST) {
        file.set_len(0).ok();
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let mut inner = std::mem::take(self.inner.get_mut().unwrap_or_else(PoisonError::into_inner));
        self.flush(&mut inner);
    }
}

impl Engine {
    /// Tells about something now.
    pub(crate) fn tell(&self, event: &Event) {
        self.events.push(event, true);
    }

    /// Tells what waits.
    pub(crate) fn tell_now(&self) {
        let mut inner = self.events.inner.lock().unwrap_or_else(PoisonError::into_inner);
        self.events.flush(&mut inner);
    }

    /// Tells about something together with what is told next, or at the end of this process.
    pub(crate) fn tell_later(&self, event: &Event) {
        self.events.push(event, false);
    }

    /// A child of this process tells what waits.
    #[cfg(target_os = "linux")]
    pub(crate) fn leave_telling_to_child(&self) {
        self.events.inner.lock().unwrap_or_else(PoisonError::into_inner).waiting.clear();
    }

    /// Tells about a container, with what is to be known besides its image, name and labels.
    pub(crate) fn tell_of(&self, record: &Record, action: &str, more: &[(&str, &str)]) {
        self.tell(&Event::of_container(record, action, more));
    }

    /// Tells about an image.
    pub fn tell_of_image(&self, action: &str, id: &str, name: &str) {
        self.tell(&Event::new("image", action, id, &[("name", name)]));
    }

    /// Tells what a prune has brought.
    pub(crate) fn tell_of_prune(&self, kind: &'static str, reclaimed: u64) {
        self.tell(&Event::new(kind, "prune", "", &[("reclaimed", &reclaimed.to_string())]));
        self.events.trim();
    }

    /// Gives events to `each` in their order: those of before as far as they are asked for and still there, then those
    /// that happen, until `each` wants no more or the time is over.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn events(&self, wanted: &Wanted, each: &mut dyn FnMut(&Event) -> bool) -> Result<()> {
        make_folder(&self.events.folder)?;
        let path = self.events.path();
        open_to_append(&path)?;
        read::read(fs::File::open(&path)?, &path, wanted, each)
    }

    /// Keeps the file small; done by who does not start a container in a hurry.
    pub(crate) fn trim_events(&self) {
        self.events.trim();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(events: &Events) -> Vec<String> {
        let mut all = Vec::new();
        let file = fs::File::open(events.path()).unwrap();
        let wanted = Wanted { since: Some(jiff::Timestamp::UNIX_EPOCH), until: Some(jiff::Timestamp::now()) };
        read::read(file, &events.path(), &wanted, &mut |event| {
            all.push(format!("{} {}", event.action, event.actor.id));
            true
        })
        .unwrap();
        all
    }

    #[test]
    fn what_waits_goes_with_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let events = Events::of(dir.path());
        events.push(&Event::new("volume", "create", "a", &[]), false);
        assert!(!events.path().exists());
        events.push(&Event::new("volume", "create", "b", &[]), true);
        assert_eq!(told(&events), ["create a", "create b"]);
        let other = Events::of(dir.path());
        other.push(&Event::new("volume", "destroy", "a", &[]), false);
        drop(other);
        assert_eq!(told(&events), ["create a", "create b", "destroy a"]);
        // A write that was cut short costs its own line.
        fs::OpenOptions::new()
            .append(true)
            .open(events.path())
            .unwrap()
            .write_all(b"\n{\"Type\":\"vol")
            .unwrap();
        events.push(&Event::new("volume", "destroy", "b", &[]), true);
        assert_eq!(told(&events).last().map(String::as_str), Some("destroy b"));
        assert_eq!(told(&events).len(), 4);
    }

    #[test]
    fn the_file_takes_little() {
        let dir = tempfile::tempdir().unwrap();
        let events = Events::of(dir.path());
        let long = "x".repeat(10_000);
        for number in 0..400 {
            events.push(&Event::new("volume", "create", &number.to_string(), &[("long", &long)]), true);
            if number % 50 == 49 {
                events.trim();
            }
        }
        events.trim();
        let told = told(&events);
        assert!(told.len() >= 90, "{}", told.len());
        assert_eq!(told.last().map(String::as_str), Some("create 399"));
        #[cfg(target_os = "linux")]
        {
            use std::os::unix::fs::MetadataExt as _;
            assert!(fs::metadata(events.path()).unwrap().blocks() * 512 <= MOST + KEPT);
        }
    }
}
