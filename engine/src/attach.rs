//! The stream between a client and a container's monitor: frames, and a buffer that never blocks.
//!
//! A frame is one byte of kind, four bytes of length (little endian), and that many bytes. Both sides are our own
//! binary, the container never sees this socket; sizes are bounded all the same.

use std::fs::{File, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Frames carry at most this much, so that a reader's buffer is bounded.
pub(crate) const CHUNK: usize = 64 * 1024;

/// What a frame means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Frame {
    /// To the monitor: bytes for standard input; none closes it.
    Stdin = 1,
    /// To the monitor: rows and columns, two bytes each.
    Resize = 2,
    /// From the monitor.
    Stdout = 3,
    /// From the monitor.
    Stderr = 4,
    /// From the monitor: it could not be started; a [`Failure`] as JSON.
    Failed = 5,
    /// From the monitor, last: everything is written down; one byte, the exit code.
    Ended = 6,
    /// To the monitor, first on a connection of its own: which streams are wanted; a [`Wish`] as JSON.
    Attach = 7,
    /// From the monitor: it runs.
    Started = 8,
    /// To the monitor: the container's networks have changed. Back comes the same when it has seen that.
    Networks = 9,
}

impl Frame {
    fn from_byte(byte: u8) -> Option<Self> {
        use Frame::{Attach, Ended, Failed, Networks, Resize, Started, Stderr, Stdin, Stdout};
        [Stdin, Resize, Stdout, Stderr, Failed, Ended, Attach, Started, Networks]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// Which streams somebody who attaches wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Wish {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

/// Why a container could not be started, on its way from the monitor to the client.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    pub(crate) code: u8,
}

impl Failure {
    /// What is to be said about an error.
    pub(crate) fn of(error: &Error) -> Self {
        // Names in a message may be as long as an image likes; a frame may not.
        let message = error.to_string().chars().take(4096).collect();
        Self { message, hint: error.hint(), code: error.exit_code() }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        // Strings and a number cannot fail to be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The error, where it has arrived.
    pub(crate) fn into_error(self) -> Error {
        Error::Start { message: self.message, hint: self.hint, code: self.code }
    }
}

/// Bytes waiting to be written to a descriptor that does not block.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    written: usize,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.written == self.bytes.len()
    }

    /// How many bytes wait.
    pub(crate) fn waiting(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Whether more should be produced; the caller stops reading its source otherwise.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting() < CHUNK
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Queues one frame; `payload` is at most [`CHUNK`] bytes.
    pub(crate) fn push_frame(&mut self, kind: Frame, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        self.bytes.push(kind as u8);
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(payload);
    }

    /// Writes what fits. `Ok(false)` when the reader is gone; everything queued is dropped then.
    pub(crate) fn flush(&mut self, to: &mut impl Write) -> bool {
        while !self.is_empty() {
            match to.write(&self.bytes[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    *self = Self::default();
                    return false;
                }
            }
        }
        self.bytes.clear();
        self.written = 0;
        true
    }
}

#[cfg(target_os = "linux")]
impl Outbox {
    /// Writes what fits, without waiting and whatever the socket's own way is; whether that was everything.
    pub(crate) fn flush_now(&mut self, to: &std::os::unix::net::UnixStream) -> bool {
        use rustix::net::{SendFlags, send};
        let how = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        while let Some(rest) = self.bytes.get(self.written..)
            && !rest.is_empty()
        {
            match send(to, rest, how) {
                Ok(count) => self.written += count,
                Err(_) => return false,
            }
        }
        true
    }
}

/// What came of reading without waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filled {
    /// There was something.
    Some,
    /// There is nothing yet.
    None,
    /// There will be nothing any more.
    End,
}

/// Cuts a stream of bytes into frames.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
}

impl Inbox {
    /// Reads once. `Ok(false)` at the end of the stream.
    pub(crate) fn fill(&mut self, from: &mut impl Read) -> std::io::Result<bool> {
        let mut chunk = [0; 8192];
        loop {
            return match from.read(&mut chunk) {
                Ok(0) => Ok(false),
                Ok(count) => {
                    self.bytes.extend_from_slice(&chunk[..count]);
                    Ok(true)
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(false),
                Err(error) => Err(error),
            };
        }
    }

    /// Reads once from what does not block.
    pub(crate) fn fill_now(&mut self, from: &mut impl Read) -> std::io::Result<Filled> {
        let mut chunk = [0; 8192];
        match from.read(&mut chunk) {
            Ok(0) => Ok(Filled::End),
            Ok(count) => {
                self.bytes.extend_from_slice(&chunk[..count]);
                Ok(Filled::Some)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                Ok(Filled::None)
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(Filled::End),
            Err(error) => Err(error),
        }
    }

    /// The next whole frame. An unknown kind or an absurd length ends the stream: `Err`.
    pub(crate) fn next(&mut self) -> std::io::Result<Option<(Frame, Vec<u8>)>> {
        let Some(header) = self.bytes.first_chunk::<5>() else { return Ok(None) };
        let kind = Frame::from_byte(header[0]);
        let length = u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize;
        let Some(kind) = kind.filter(|_| length <= CHUNK) else {
            return Err(std::io::Error::new(ErrorKind::InvalidData, "attach stream: not a frame"));
        };
        if self.bytes.len() < 5 + length {
            return Ok(None);
        }
        let payload = self.bytes[5..5 + length].to_vec();
        self.bytes.drain(..5 + length);
        Ok(Some((kind, payload)))
    }
}

/// The name of a monitor's socket, in the folder of what it looks after.
const SOCKET: &str = "socket";

/// A folder by a path that fits into a socket's address, however long its own is, while the handle is open.
fn address(folder: &Path) -> std::io::Result<(File, PathBuf)> {
    let handle = fs_err::File::open(folder)?.into_file();
    let address = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", handle.as_raw_fd()));
    Ok((handle, address))
}

/// Listens in a folder, in the place of a monitor that was there before. The folder is its owner's alone, and so is
/// the socket.
pub(crate) fn listen(folder: &Path) -> std::io::Result<UnixListener> {
    let (_handle, address) = address(folder)?;
    unlisten(folder);
    let listener = UnixListener::bind(&address)?;
    fs_err::set_permissions(&address, Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Takes the socket away. One that stays leads nowhere and is replaced by the next.
pub(crate) fn unlisten(folder: &Path) {
    fs_err::remove_file(folder.join(SOCKET)).ok();
}

/// Connects to whoever listens in a folder.
pub(crate) fn connect(folder: &Path) -> std::io::Result<UnixStream> {
    let (_handle, address) = address(folder)?;
    UnixStream::connect(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let mut out = Outbox::default();
        out.push_frame(Frame::Stdout, b"hello");
        out.push_frame(Frame::Stdin, b"");
        let mut wire = Vec::new();
        assert!(out.flush(&mut wire) && out.is_empty());
        for cut in 0..wire.len() {
            let mut inbox = Inbox::default();
            inbox.fill(&mut &wire[..cut]).unwrap();
            let mut seen = Vec::new();
            while let Some(frame) = inbox.next().unwrap() {
                seen.push(frame);
            }
            inbox.fill(&mut &wire[cut..]).unwrap();
            while let Some(frame) = inbox.next().unwrap() {
                seen.push(frame);
            }
            assert_eq!(seen, [(Frame::Stdout, b"hello".to_vec()), (Frame::Stdin, Vec::new())]);
        }
    }

    #[test]
    fn nonsense_is_an_error() {
        for wire in [&[99, 0, 0, 0, 0][..], &[1, 255, 255, 255, 255]] {
            let mut inbox = Inbox::default();
            inbox.fill(&mut &wire[..]).unwrap();
            assert!(inbox.next().is_err());
        }
    }
}
