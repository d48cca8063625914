//! Calls of a gRPC service with one message each way, at a socket of this host: as much of HTTP/2 as that takes, so that no
//! crate is needed for what the tests ask of containerd.

use std::io::{Read, Write};
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
/// Flags of frames.
const END_STREAM: u8 = 1;
const ACKNOWLEDGED: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
/// The only stream of a connection.
const STREAM: u32 = 1;

/// Calls `method` (`package.Service/Method`).
///
/// # Errors
/// What the server says instead of an answer, as far as it can be read: its words may be compressed.
pub(crate) fn call<A: Message + Default>(
    socket: &Path,
    method: &str,
    asked: &impl Message,
) -> Result<A, String> {
    let answer =
        talk(socket, method, &asked.encode_to_vec()).map_err(|error| format!("{method}: {error}"))?;
    let body = answer.map_err(|words| format!("{method} failed: {words}"))?;
    A::decode(&body).map_err(|error| format!("{method}: {error}"))
}

fn talk(socket: &Path, method: &str, asked: &[u8]) -> std::io::Result<Result<Vec<u8>, String>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    let mut headers = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", &format!("/{method}")),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        // A literal that nobody needs to remember.
        headers.push(0);
        for text in [name, value] {
            headers.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("short"));
            headers.extend_from_slice(text.as_bytes());
        }
    }
    let mut body = vec![0];
    body.extend_from_slice(&u32::try_from(asked.len()).expect("short").to_be_bytes());
    body.extend_from_slice(asked);
    let mut all = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    all.extend(frame(SETTINGS, 0, 0, &[]));
    all.extend(frame(HEADERS, END_HEADERS, STREAM, &headers));
    all.extend(frame(DATA, END_STREAM, STREAM, &body));
    stream.write_all(&all)?;
    let (mut data, mut words) = (Vec::new(), Vec::new());
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (kind, flags) = (head[3], head[4]);
        let mut content = vec![0; length];
        stream.read_exact(&mut content)?;
        match kind {
            SETTINGS if flags & ACKNOWLEDGED == 0 => {
                stream.write_all(&frame(SETTINGS, ACKNOWLEDGED, 0, &[]))?;
            }
            PING if flags & ACKNOWLEDGED == 0 => stream.write_all(&frame(PING, ACKNOWLEDGED, 0, &content))?,
            DATA => {
                assert_eq!(flags & PADDED, 0, "padding");
                data.extend_from_slice(&content);
            }
            HEADERS => words = content,
            RESET | GO_AWAY => return Ok(Err(String::from_utf8_lossy(&content).into_owned())),
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            break;
        }
    }
    // Without a message there is an error, whose words are among the headers.
    if data.len() < 5 {
        return Ok(Err(String::from_utf8_lossy(&words).into_owned()));
    }
    Ok(Ok(data.split_off(5)))
}

fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("short").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(content);
    frame
}
