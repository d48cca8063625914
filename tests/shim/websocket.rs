//! The streams of `exec`, `attach` and `port-forward` as Kubernetes' clients open them: a WebSocket whose messages begin with the
//! number of a channel.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A connection with its channels.
#[derive(Debug)]
pub(crate) struct Channels {
    stream: TcpStream,
    /// What has come, by channel.
    pub(crate) heard: BTreeMap<u8, Vec<u8>>,
}

impl Channels {
    /// Opens what the server has named.
    pub(crate) fn open(url: &str) -> Self {
        let rest = url.strip_prefix("http://").unwrap_or_else(|| panic!("{url}"));
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let mut stream = TcpStream::connect(host).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        let request = format!(
            "GET /{path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nOrigin: http://{host}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        Self { stream, heard: BTreeMap::new() }
    }

    /// Says something on a channel.
    pub(crate) fn say(&mut self, channel: u8, words: &[u8]) {
        let length = u8::try_from(words.len() + 1).ok().filter(|length| *length < 126).expect("short");
        // A mask of nothing changes nothing.
        let mut frame = vec![0x82, 0x80 | length, 0, 0, 0, 0, channel];
        frame.extend_from_slice(words);
        self.stream.write_all(&frame).unwrap();
    }

    /// Takes one message; `false` when there will be none.
    fn hear(&mut self) -> bool {
        let mut head = [0; 2];
        if self.stream.read_exact(&mut head).is_err() {
            return false;
        }
        let length = match head[1] & 0x7f {
            126 => {
                let mut length = [0; 2];
                self.stream.read_exact(&mut length).unwrap();
                usize::from(u16::from_be_bytes(length))
            }
            127 => panic!("a very long message"),
            length => usize::from(length),
        };
        let mut content = vec![0; length];
        self.stream.read_exact(&mut content).unwrap();
        match (head[0] & 0xf, content.split_first()) {
            (8, _) => return false,
            (1 | 2, Some((channel, words))) => {
                self.heard.entry(*channel).or_default().extend_from_slice(words);
            }
            _ => {}
        }
        true
    }

    /// Listens until this was said on a channel.
    pub(crate) fn until(&mut self, channel: u8, words: &str) {
        while !self.text(channel).contains(words) {
            assert!(self.hear(), "{words:?} was never said: {:?}", self.heard);
        }
    }

    /// Listens to the end.
    pub(crate) fn rest(&mut self) {
        while self.hear() {}
    }

    /// What has come on a channel.
    pub(crate) fn text(&self, channel: u8) -> String {
        String::from_utf8_lossy(self.heard.get(&channel).map_or(&[], Vec::as_slice)).into_owned()
    }
}
