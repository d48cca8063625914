//! The shim's own log: lines for containerd, through the pipe `log` in the bundle that it has made for them.
//!
//! Nobody waits for its reader, and nothing is lost with it but words.

use std::cell::RefCell;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// Where lines go.
#[derive(Debug)]
pub(crate) struct Log {
    pipe: RefCell<Option<std::fs::File>>,
    debug: bool,
}

impl Log {
    /// Opens the pipe, if there is one that somebody reads.
    pub(crate) fn open(bundle: &Path, debug: bool) -> Self {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let pipe = rustix::fs::open(bundle.join("log"), flags, Mode::empty()).ok();
        Self { pipe: RefCell::new(pipe.map(OwnedFd::into)), debug }
    }

    pub(crate) fn error(&self, text: &str) {
        self.line("error", text);
    }

    pub(crate) fn debug(&self, text: &str) {
        if self.debug {
            self.line("debug", text);
        }
    }

    fn line(&self, level: &str, text: &str) {
        let mut pipe = self.pipe.borrow_mut();
        let Some(file) = pipe.as_mut() else { return };
        let line = format!("level={level} msg={text:?} runtime=io.containerd.dhow.v1\n");
        match file.write_all(line.as_bytes()) {
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => *pipe = None,
            _ => {}
        }
    }
}
