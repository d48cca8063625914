//! A question by a connection: for answers that are too long for datagrams. What is not known here goes on by a
//! connection, too, byte for byte.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use super::{PATIENCE, push};

/// How long a connection lasts, whatever happens on it.
const LONGEST: Duration = Duration::from_secs(15);

/// A connection of the container.
#[derive(Debug)]
pub(super) struct Call {
    client: Line,
    /// To a server that knows more.
    server: Option<Line>,
    /// Who has not been asked, the next one last.
    left: Vec<SocketAddr>,
    /// The question that is asked elsewhere.
    question: Vec<u8>,
    /// When it is over.
    pub(super) until: Instant,
    /// When the next server is asked.
    asked: Instant,
}

/// What is to be done with a question.
pub(super) enum Next {
    Answer(Vec<u8>),
    Ask(Vec<SocketAddr>),
    End,
}

/// One end of a connection: messages, each behind its length.
#[derive(Debug)]
struct Line {
    stream: TcpStream,
    read: Vec<u8>,
    unsent: Vec<u8>,
}

impl Line {
    fn new(stream: TcpStream) -> Self {
        Self { stream, read: Vec::new(), unsent: Vec::new() }
    }

    fn push(&mut self, message: &[u8]) {
        let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
        self.unsent.extend(length.to_be_bytes());
        self.unsent.extend(&message[..usize::from(length)]);
    }

    /// Sends what can be sent. `false` when the other side is gone.
    fn flush(&mut self) -> bool {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(0) => return false,
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A connection in the making.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    return true;
                }
                Err(_) => return false,
            }
        }
        true
    }

    /// The next message; `Err` when the other side is gone.
    fn next(&mut self) -> Result<Option<Vec<u8>>, ()> {
        loop {
            if let Some(length) = self.read.first_chunk::<2>() {
                let end = 2 + usize::from(u16::from_be_bytes(*length));
                if self.read.len() >= end {
                    let message = self.read[2..end].to_vec();
                    self.read.drain(..end);
                    return Ok(Some(message));
                }
            }
            let mut chunk = [0; 2048];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(()),
                Ok(count) => self.read.extend(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    return Ok(None);
                }
                Err(_) => return Err(()),
            }
        }
    }

    fn wanted(&self) -> PollFlags {
        if self.unsent.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT }
    }
}

impl Call {
    pub(super) fn new(stream: TcpStream) -> Option<Self> {
        stream.set_nonblocking(true).ok()?;
        let now = Instant::now();
        Some(Self {
            client: Line::new(stream),
            server: None,
            left: Vec::new(),
            question: Vec::new(),
            until: now + LONGEST,
            asked: now,
        })
    }

    pub(super) fn wait_for<'fd>(&'fd self, fds: &mut Vec<PollFd<'fd>>) {
        // While others are asked nothing more is read from the client; an answer must be taken first.
        let mut wanted = self.client.wanted();
        if self.server.is_some() || !self.client.unsent.is_empty() {
            wanted.remove(PollFlags::IN);
        }
        // One that is not listened to would wake us all the time once it is gone.
        if !wanted.is_empty() {
            push(fds, self.client.stream.as_fd(), wanted);
        }
        if let Some(server) = &self.server {
            push(fds, server.stream.as_fd(), server.wanted());
        }
    }

    /// When something has to be done even if nothing comes.
    pub(super) fn due(&self) -> Instant {
        let patient = self.server.as_ref().map(|_| self.asked + PATIENCE);
        patient.map_or(self.until, |patient| patient.min(self.until))
    }

    /// Goes on. `false` when it is over.
    pub(super) fn step(&mut self, mut reply: impl FnMut(&[u8]) -> Next) -> bool {
        if !self.client.flush() {
            return false;
        }
        if let Some(server) = &mut self.server {
            let patient = self.asked.elapsed() < PATIENCE;
            match if server.flush() { server.next() } else { Err(()) } {
                Ok(Some(answer)) => {
                    self.client.push(&answer);
                    self.server = None;
                }
                Ok(None) if patient => return true,
                Ok(None) | Err(()) => return self.ask_next(),
            }
        }
        while self.client.unsent.is_empty() {
            match self.client.next() {
                Ok(None) => return true,
                Err(()) => return false,
                Ok(Some(message)) => match reply(&message) {
                    Next::Answer(answer) => self.client.push(&answer),
                    Next::End => return false,
                    Next::Ask(servers) => {
                        self.left = servers;
                        self.left.reverse();
                        self.question = message;
                        return self.ask_next();
                    }
                },
            }
            if !self.client.flush() {
                return false;
            }
        }
        self.client.flush()
    }

    fn ask_next(&mut self) -> bool {
        while let Some(server) = self.left.pop() {
            if let Ok(stream) = dial(server) {
                let mut line = Line::new(stream);
                line.push(&self.question);
                self.server = Some(line);
                self.asked = Instant::now();
                return true;
            }
        }
        false
    }
}

/// Begins a connection.
fn dial(server: SocketAddr) -> std::io::Result<TcpStream> {
    let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    match connect(&socket, &server) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket.into()),
        Err(error) => Err(error.into()),
    }
}
