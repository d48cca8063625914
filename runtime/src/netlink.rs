//! Netlink: messages with nested attributes to the kernel, and its answers. Knows nothing of links or rules.
//!
//! Several messages go in one system call; the kernel answers each that asks for it. Numbers are in the host's byte
//! order unless a caller says otherwise.

use std::os::fd::OwnedFd;

use rustix::io::{Errno, Result, retry_on_intr};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice, netlink, recv, send,
    socket_with,
};

/// The message wants an answer: `NLM_F_REQUEST | NLM_F_ACK`.
pub const ASK: u16 = 0x5;
/// `NLM_F_REQUEST`: without an answer of its own.
pub const TELL: u16 = 0x1;
/// `NLM_F_CREATE`: make it where it is missing.
pub const CREATE: u16 = 0x400;
/// `NLM_F_EXCL`: fail where it is there.
pub const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_APPEND`: behind what is there.
pub const APPEND: u16 = 0x800;
/// `NLM_F_DUMP`: all there are.
const DUMP: u16 = 0x300;

const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLA_F_NESTED`
const NESTED: u16 = 0x8000;
const HEADER: usize = 16;
/// More than any answer here has; the kernel cuts its dumps to the reader's size.
const BUFFER: usize = 64 << 10;

/// A message in the making.
#[derive(Debug)]
pub struct Message(Vec<u8>);

impl Message {
    /// Begins with a header whose length and number are filled in later.
    pub fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        Self(bytes)
    }

    /// Adds bytes as they are.
    pub fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Adds an attribute.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let at = self.open(kind);
        self.put(value);
        self.close(at)
    }

    /// Adds an attribute with a text and the NUL that ends it.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let at = self.open(kind);
        self.put(value.as_bytes()).put(&[0]);
        self.close(at)
    }

    /// Adds an attribute that consists of attributes.
    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let at = self.open(kind | NESTED);
        fill(self);
        self.close(at)
    }

    fn open(&mut self, kind: u16) -> usize {
        let at = self.0.len();
        self.put(&[0; 2]).put(&kind.to_ne_bytes());
        at
    }

    fn close(&mut self, at: usize) -> &mut Self {
        // What is put in here is far from 64 KiB: names, addresses, a few hundred elements at the most.
        let length = u16::try_from(self.0.len() - at).unwrap_or(u16::MAX);
        self.0[at..at + 2].copy_from_slice(&length.to_ne_bytes());
        while !self.0.len().is_multiple_of(4) {
            self.0.push(0);
        }
        self
    }

    fn finish(mut self, number: u32) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&number.to_ne_bytes());
        self.0
    }

    fn wants_answer(&self) -> bool {
        u16::from_ne_bytes([self.0[6], self.0[7]]) & ASK == ASK
    }
}

/// A connection to the kernel, in the network namespace in which it was opened.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    number: u32,
}

impl Netlink {
    /// To links, addresses and routes.
    ///
    /// # Errors
    /// When no socket can be made.
    pub fn route() -> Result<Self> {
        // Protocol 0.
        Self::open(None)
    }

    /// To the packet filter.
    ///
    /// # Errors
    /// As [`Netlink::route`].
    pub fn filter() -> Result<Self> {
        Self::open(Some(netlink::NETFILTER))
    }

    fn open(protocol: Option<Protocol>) -> Result<Self> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        Ok(Self { socket, number: 0 })
    }

    /// The number of a link in the namespace in which this was opened.
    ///
    /// # Errors
    /// `ENODEV` when there is none.
    pub fn index(&self, name: &str) -> Result<u32> {
        netdevice::name_to_index(&self.socket, name)
    }

    /// Sends messages together; back when each that asks has been answered.
    ///
    /// # Errors
    /// The first refusal. What is in a batch of the packet filter has no effect then; other messages are done one by one.
    pub fn send(&mut self, messages: Vec<Message>) -> Result<()> {
        let mut bytes = Vec::new();
        let first = self.number + 1;
        let mut waited_for = 0usize;
        for message in messages {
            self.number += 1;
            waited_for += usize::from(message.wants_answer());
            bytes.extend(message.finish(self.number));
        }
        send(&self.socket, &bytes, SendFlags::empty())?;
        let mut refused = None;
        let mut buffer = vec![0; BUFFER];
        while waited_for > 0 {
            let (count, _) = retry_on_intr(|| recv(&self.socket, &mut *buffer, RecvFlags::empty()))?;
            for answer in Answers(&buffer[..count]) {
                if answer.kind != ERROR || answer.number < first {
                    continue;
                }
                let code =
                    answer.body.get(..4).and_then(|code| code.try_into().ok()).map_or(0, i32::from_ne_bytes);
                if code != 0 && refused.is_none() {
                    refused = Some(Errno::from_raw_os_error(code.saturating_neg()));
                }
                waited_for = waited_for.saturating_sub(1);
            }
            // A batch that was refused for its beginning or end has answers missing.
            if refused.is_some() && !self.more_is_there() {
                break;
            }
        }
        refused.map_or(Ok(()), Err)
    }

    fn more_is_there(&self) -> bool {
        let mut one = [0];
        recv(&self.socket, &mut one, RecvFlags::DONTWAIT | RecvFlags::PEEK).is_ok()
    }

    /// Asks for everything of a kind and hands on the body of each answer.
    ///
    /// # Errors
    /// The refusal.
    pub fn dump(&mut self, kind: u16, header: &[u8], mut each: impl FnMut(&[u8])) -> Result<()> {
        self.read(kind, TELL | DUMP, header, &mut each)
    }

    /// Asks for one thing and hands on the body of the answer.
    ///
    /// # Errors
    /// The refusal.
    pub fn get(&mut self, kind: u16, header: &[u8], mut each: impl FnMut(&[u8])) -> Result<()> {
        self.read(kind, ASK, header, &mut each)
    }

    fn read(&mut self, kind: u16, flags: u16, header: &[u8], each: &mut dyn FnMut(&[u8])) -> Result<()> {
        let mut message = Message::new(kind, flags);
        message.put(header);
        self.number += 1;
        let number = self.number;
        send(&self.socket, &message.finish(number), SendFlags::empty())?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let (count, _) = retry_on_intr(|| recv(&self.socket, &mut *buffer, RecvFlags::empty()))?;
            for answer in Answers(&buffer[..count]).filter(|answer| answer.number == number) {
                match answer.kind {
                    DONE => return Ok(()),
                    ERROR => {
                        let code = answer.body.get(..4).and_then(|code| code.try_into().ok());
                        return match code.map(i32::from_ne_bytes) {
                            // What was asked for has come.
                            Some(0) => Ok(()),
                            Some(code) => Err(Errno::from_raw_os_error(code.saturating_neg())),
                            None => Err(Errno::PROTO),
                        };
                    }
                    _ => each(answer.body),
                }
            }
        }
    }
}

struct Answer<'a> {
    kind: u16,
    number: u32,
    body: &'a [u8],
}

/// The messages in what was read at once.
struct Answers<'a>(&'a [u8]);

impl<'a> Iterator for Answers<'a> {
    type Item = Answer<'a>;

    fn next(&mut self) -> Option<Answer<'a>> {
        let header = self.0.get(..HEADER)?;
        let length = usize::try_from(u32::from_ne_bytes(header[..4].try_into().ok()?)).ok()?;
        let body = self.0.get(HEADER..length)?;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let number = u32::from_ne_bytes(header[8..12].try_into().ok()?);
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Answer { kind, number, body })
    }
}

/// The attributes in a body, without the mark of nested ones.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]));
        let kind = u16::from_ne_bytes([*bytes.get(2)?, *bytes.get(3)?]) & !NESTED;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested() {
        let mut message = Message::new(16, ASK);
        message.text(3, "ab").nested(18, |inner| {
            inner.attribute(1, &[7]);
        });
        let bytes = message.finish(9);
        assert_eq!(bytes.len(), 16 + 8 + 4 + 8);
        assert_eq!(u32::from_ne_bytes(bytes[..4].try_into().unwrap()), 36);
        let read: Vec<_> = attributes(&bytes[16..]).collect();
        assert_eq!(read[0], (3, &b"ab\0"[..]));
        assert_eq!(attributes(read[1].1).collect::<Vec<_>>(), [(1, &[7][..])]);
    }

    #[test]
    fn what_is_cut_off_is_no_attribute() {
        for bytes in [&[][..], &[4], &[8, 0, 1, 0, 1], &[2, 0, 1, 0], &[0, 0, 0, 0]] {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
        }
        assert_eq!(Answers(&[1; 20]).count(), 0);
    }
}
