//! Where a process's three streams lead. Copying between them and a client is the caller's business.

use std::fs::File;

/// The three standard streams of a process, or a terminal in their place.
#[derive(Debug)]
pub enum Stdio {
    /// Three independent streams.
    Streams {
        /// Standard input.
        stdin: Stream,
        /// Standard output.
        stdout: Stream,
        /// Standard error.
        stderr: Stream,
    },
    /// A new pseudo terminal of the container's own; its master is [`crate::Task::take_console`].
    /// The Wasm executor has no terminal device: it uses the caller's streams and tells the guest it is one.
    Terminal(Option<TerminalSize>),
}

impl Stdio {
    /// All three streams as this process has them.
    pub fn inherit() -> Self {
        Self::Streams { stdin: Stream::Inherit, stdout: Stream::Inherit, stderr: Stream::Inherit }
    }
}

/// One stream.
#[derive(Debug)]
pub enum Stream {
    /// Reads end at once, writes vanish.
    Null,
    /// This process's own stream of the same number.
    Inherit,
    /// An open pipe, fifo, socket or file.
    File(File),
}

/// A terminal's size in character cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}
