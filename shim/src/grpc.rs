//! Calls of a gRPC service at a socket of this host: one message there, one or several back.
//!
//! As much of HTTP/2 as that takes: one connection for one call, headers that are never compressed, and a window that no
//! answer can use up. What a server says about a failure may be compressed, so its words are shown as far as they are not.

use std::io::{Error, Read as _, Result, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::wire::Message;

/// Kinds of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW: u8 = 8;
/// Flags of frames.
const END_STREAM: u8 = 1;
const ACKNOWLEDGED: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
/// The only stream of a connection.
const STREAM: u32 = 1;
/// The setting of how much may come on a stream before it is taken, and the most it can be.
const INITIAL_WINDOW: u16 = 4;
const WINDOW_MAX: u32 = (1 << 31) - 1;
/// What a connection's window is before anything is said.
const WINDOW_USUAL: u32 = (1 << 16) - 1;
/// The largest message: what containerd itself allows.
const LARGEST: usize = 16 << 20;
/// What stands before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// A server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Server<'a> {
    /// Where it listens.
    pub(crate) socket: &'a Path,
    /// containerd's namespace; empty for services that have none.
    pub(crate) namespace: &'a str,
    /// How long it may be silent.
    pub(crate) patience: Duration,
}

impl Server<'_> {
    /// Calls `method` (`package.Service/Method`) that answers with one message.
    ///
    /// # Errors
    /// What the server says instead of an answer, or the system.
    pub(crate) fn call<A: Message>(
        &self,
        method: &str,
        asked: &impl Message,
    ) -> std::result::Result<A, String> {
        let mut answer = None;
        self.stream(method, asked, |message| {
            answer = Some(message);
            Ok(())
        })?;
        answer.ok_or_else(|| format!("{method}: no answer"))
    }

    /// Calls a method that answers with any number of messages; `take` gets each when it is there, and ends it by failing.
    ///
    /// # Errors
    /// As [`Server::call`]. A server may say that it has failed after some messages already.
    pub(crate) fn stream<A: Message>(
        &self,
        method: &str,
        asked: &impl Message,
        mut take: impl FnMut(A) -> Result<()>,
    ) -> std::result::Result<(), String> {
        let done = self
            .talk(method, &asked.encode_to_vec(), &mut |bytes| take(A::decode(bytes).map_err(Error::other)?));
        done.map_err(|error| format!("{method}: {error}"))
    }

    fn talk(&self, method: &str, asked: &[u8], take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut socket = UnixStream::connect(self.socket)?;
        socket.set_read_timeout(Some(self.patience))?;
        socket.set_write_timeout(Some(self.patience))?;
        socket.write_all(&self.request(method, asked)?)?;
        let (mut data, mut words, mut messages) = (Vec::new(), Vec::new(), 0);
        loop {
            let mut head = [0; 9];
            socket.read_exact(&mut head)?;
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let (kind, flags) = (head[3], head[4]);
            let mut content = vec![0; length];
            socket.read_exact(&mut content)?;
            match kind {
                SETTINGS if flags & ACKNOWLEDGED == 0 => {
                    socket.write_all(&frame(SETTINGS, ACKNOWLEDGED, 0, &[])?)?;
                }
                PING if flags & ACKNOWLEDGED == 0 => {
                    socket.write_all(&frame(PING, ACKNOWLEDGED, 0, &content)?)?;
                }
                DATA if flags & PADDED != 0 => return Err(Error::other("padding, which nobody asked for")),
                DATA => {
                    data.extend_from_slice(&content);
                    messages += messages_of(&mut data, take)?;
                }
                HEADERS => words = content,
                RESET | GO_AWAY => return Err(Error::other(String::from_utf8_lossy(&content))),
                _ => {}
            }
            if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                break;
            }
        }
        // Without a message, or with a part of one, there is an error, whose words are among the last headers.
        if messages == 0 || !data.is_empty() {
            return Err(Error::other(String::from_utf8_lossy(&words)));
        }
        Ok(())
    }

    /// All that is sent.
    fn request(&self, method: &str, asked: &[u8]) -> Result<Vec<u8>> {
        let mut headers = Vec::new();
        let path = format!("/{method}");
        let names = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", &path),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("containerd-namespace", self.namespace),
        ];
        for (name, value) in names.into_iter().filter(|(_, value)| !value.is_empty()) {
            // A literal that nobody needs to remember.
            headers.push(0);
            for text in [name, value] {
                let length = u8::try_from(text.len()).ok().filter(|length| *length < 127);
                headers.push(length.ok_or_else(|| Error::other(format!("too long: {text}")))?);
                headers.extend_from_slice(text.as_bytes());
            }
        }
        let mut body = vec![0];
        body.extend_from_slice(&u32::try_from(asked.len()).map_err(Error::other)?.to_be_bytes());
        body.extend_from_slice(asked);
        let window = [INITIAL_WINDOW.to_be_bytes().as_slice(), &WINDOW_MAX.to_be_bytes()].concat();
        let mut all = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        all.extend(frame(SETTINGS, 0, 0, &window)?);
        all.extend(frame(WINDOW, 0, 0, &(WINDOW_MAX - WINDOW_USUAL).to_be_bytes())?);
        all.extend(frame(HEADERS, END_HEADERS, STREAM, &headers)?);
        all.extend(frame(DATA, END_STREAM, STREAM, &body)?);
        Ok(all)
    }
}

/// Takes the messages that are there in full; gives how many.
fn messages_of(data: &mut Vec<u8>, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<usize> {
    let (mut rest, mut count) = (data.as_slice(), 0);
    while let Some((&[compressed, ref length @ ..], after)) = rest.split_first_chunk::<PREFIX>() {
        let length = u32::from_be_bytes(*length) as usize;
        if compressed != 0 || length > LARGEST {
            return Err(Error::other("a message that is compressed or too large"));
        }
        let Some((message, after)) = after.split_at_checked(length) else { break };
        take(message)?;
        count += 1;
        rest = after;
    }
    let taken = data.len() - rest.len();
    data.drain(..taken);
    Ok(count)
}

fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Result<Vec<u8>> {
    let length = u32::try_from(content.len()).map_err(Error::other)?.to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(content);
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_in_any_pieces() {
        let sent = [b"\0\0\0\0\x03abc".as_slice(), b"\0\0\0\0\0", b"\0\0\0\0\x01x"].concat();
        for cut in 0..=sent.len() {
            let (mut data, mut all) = (Vec::new(), Vec::new());
            for part in [&sent[..cut], &sent[cut..]] {
                data.extend_from_slice(part);
                let mut take = |message: &[u8]| {
                    all.push(message.to_vec());
                    Ok(())
                };
                messages_of(&mut data, &mut take).unwrap();
            }
            assert_eq!(all, [b"abc".to_vec(), Vec::new(), b"x".to_vec()]);
            assert!(data.is_empty());
        }
    }

    #[test]
    fn what_is_too_large_is_refused_before_it_comes() {
        let mut none = |_: &[u8]| Ok(());
        assert!(messages_of(&mut b"\0\x7f\0\0\0".to_vec(), &mut none).is_err());
        assert!(messages_of(&mut b"\x01\0\0\0\0".to_vec(), &mut none).is_err());
        assert_eq!(messages_of(&mut b"\0\0\0\0".to_vec(), &mut none).unwrap(), 0);
    }
}
