//! ttrpc: requests and responses on a Unix socket, several at once on one connection.
//!
//! ```text
//! length u32 BE | stream u32 BE | type u8 (1 request, 2 response) | flags u8 | protobuf message
//! ```
//! Only calls of one message each way; containerd makes no others to a task service.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use crate::error::{Code, Failure};
use crate::messages::{Request, Response, Status};

/// Bytes before a message.
const HEADER: usize = 10;
/// The largest message, as everybody else has it.
const LARGEST: usize = 4 << 20;
/// A client that does not take its answers is not answered any more.
const UNTAKEN: usize = 4 * LARGEST;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Request = 1,
    Response = 2,
}

/// A message that has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) stream: u32,
    pub(crate) kind: u8,
    pub(crate) payload: Vec<u8>,
}

/// A connection that is never waited for.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: UnixStream,
    arrived: Vec<u8>,
    leaving: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(socket: UnixStream) -> std::io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket, arrived: Vec::new(), leaving: Vec::new() })
    }

    /// Something is to be written as soon as it can be.
    pub(crate) fn is_full(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Sends a message, or what of it goes now. `false` when nobody takes anything.
    pub(crate) fn send(&mut self, stream: u32, kind: Kind, message: &impl crate::wire::Message) -> bool {
        let payload = message.encode_to_vec();
        let Ok(length) = u32::try_from(payload.len()) else { return false };
        self.leaving.extend(length.to_be_bytes());
        self.leaving.extend(stream.to_be_bytes());
        self.leaving.extend([kind as u8, 0]);
        self.leaving.extend(payload);
        self.leaving.len() <= UNTAKEN && self.flush()
    }

    /// Writes what can be written; `false` when the other side is gone.
    pub(crate) fn flush(&mut self) -> bool {
        while !self.leaving.is_empty() {
            match self.socket.write(&self.leaving) {
                Ok(0) => return false,
                Ok(length) => drop(self.leaving.drain(..length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Reads what is there; `false` when the other side is gone.
    pub(crate) fn fill(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        // What was read is taken apart before more is read, so this is bounded.
        while self.arrived.len() <= LARGEST + HEADER {
            match self.socket.read(&mut buffer) {
                Ok(0) => return false,
                Ok(length) => self.arrived.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// The next message that is there as a whole.
    ///
    /// # Errors
    /// When it is larger than any may be.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, Failure> {
        let Some((head, rest)) = self.arrived.split_at_checked(HEADER) else { return Ok(None) };
        let number = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let length = usize::try_from(number(0)).unwrap_or(usize::MAX);
        if length > LARGEST {
            let text = format!("message of {length} bytes, at most {LARGEST} are taken");
            return Err(Failure::new(Code::ResourceExhausted, text));
        }
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let frame = Frame { stream: number(4), kind: head[8], payload: payload.to_vec() };
        self.arrived.drain(..HEADER + length);
        Ok(Some(frame))
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// An answer as it is sent.
pub(crate) fn response(answer: Result<Vec<u8>, Failure>) -> Response {
    match answer {
        Ok(payload) => Response { status: None, payload },
        Err(failure) => Response {
            status: Some(Status { code: failure.code as i32, message: failure.text }),
            payload: Vec::new(),
        },
    }
}

/// A request of this program's own.
pub(crate) fn request(service: &str, method: &str, message: &impl crate::wire::Message) -> Request {
    Request {
        service: service.to_owned(),
        method: method.to_owned(),
        payload: message.encode_to_vec(),
        timeout_nano: 0,
    }
}

#[cfg(test)]
mod tests {
    use crate::wire::Message as _;

    use super::*;

    #[test]
    fn messages_arrive_whole_and_in_order() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut ours, mut theirs) = (Connection::new(ours).unwrap(), Connection::new(theirs).unwrap());
        let long = Request { method: "x".repeat(300_000), ..Request::default() };
        let short = request("a", "b", &Status { code: 3, message: "no".into() });
        for (stream, message) in [(1, &long), (3, &short)] {
            assert!(ours.send(stream, Kind::Request, message));
        }
        let mut heard = Vec::new();
        while heard.len() < 2 {
            assert!(theirs.fill() && ours.flush());
            while let Some(frame) = theirs.next().unwrap() {
                heard.push((frame.stream, Request::decode(&frame.payload).unwrap()));
            }
        }
        assert_eq!(heard, [(1, long), (3, short)]);
        drop(ours);
        assert!(!theirs.fill());
    }

    #[test]
    fn messages_that_are_too_large_are_refused() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut theirs = Connection::new(theirs).unwrap();
        (&ours).write_all(&[0xff; HEADER]).unwrap();
        assert!(theirs.fill());
        assert!(theirs.next().is_err());
    }
}
