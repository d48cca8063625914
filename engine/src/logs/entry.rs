//! One line of a log file: writing it fast, reading it back.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

/// Which stream something was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Standard output, or a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Source {
    /// As the file has it.
    #[cfg(target_os = "linux")]
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// What a container wrote: a line with its end, or a part of one that was longer than 16 KiB.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Entry {
    /// The text; what was no UTF-8 is replaced.
    #[serde(rename = "log")]
    pub text: String,
    /// Where it was written to.
    #[serde(rename = "stream")]
    pub source: Source,
    /// What of the container is written beside each line: `--log-opt labels=...` and its kin.
    #[serde(rename = "attrs", default)]
    pub attributes: BTreeMap<String, String>,
    /// When.
    pub time: Timestamp,
}

impl Entry {
    /// Reads one line of a file. `None` for one that is torn.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }
}

/// Appends one entry as a line. `attributes` is a JSON object or nothing, `time` is in RFC 3339.
#[cfg(target_os = "linux")]
pub(super) fn append(to: &mut Vec<u8>, text: &[u8], source: Source, attributes: &str, time: &str) {
    to.extend_from_slice(b"{\"log\":\"");
    escape(to, text);
    to.extend_from_slice(b"\",\"stream\":\"");
    to.extend_from_slice(source.name().as_bytes());
    if attributes.is_empty() {
        to.extend_from_slice(b"\",\"time\":\"");
    } else {
        to.extend_from_slice(b"\",\"attrs\":");
        to.extend_from_slice(attributes.as_bytes());
        to.extend_from_slice(b",\"time\":\"");
    }
    to.extend_from_slice(time.as_bytes());
    to.extend_from_slice(b"\"}\n");
}

/// The inside of a JSON string, as Docker writes it.
#[cfg(target_os = "linux")]
fn escape(to: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        let valid = chunk.valid();
        let mut from = 0;
        for (at, byte) in valid.bytes().enumerate() {
            let escaped: &[u8] = match byte {
                b'"' => b"\\\"",
                b'\\' => b"\\\\",
                b'\n' => b"\\n",
                b'\r' => b"\\r",
                b'\t' => b"\\t",
                0..0x20 | 0x7f | b'<' | b'>' | b'&' => b"",
                _ => continue,
            };
            to.extend_from_slice(&valid.as_bytes()[from..at]);
            from = at + 1;
            if escaped.is_empty() {
                to.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
            } else {
                to.extend_from_slice(escaped);
            }
        }
        to.extend_from_slice(&valid.as_bytes()[from..]);
        if !chunk.invalid().is_empty() {
            to.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn anything_written_is_read_back() {
        for (bytes, text) in [
            (&b"hello\n"[..], "hello\n"),
            (b"", ""),
            (b"a\"b\\c<d>&\te\r\x00\x1b[2J\x7f", "a\"b\\c<d>&\te\r\0\x1b[2J\x7f"),
            ("gr\u{fc}n \u{1f600}\n".as_bytes(), "gr\u{fc}n \u{1f600}\n"),
            (b"x\xff\xfey\xc3", "x\u{fffd}\u{fffd}y\u{fffd}"),
        ] {
            let mut line = Vec::new();
            append(&mut line, bytes, Source::Stderr, r#"{"a":"b"}"#, "2026-01-02T03:04:05.000000006Z");
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            let entry = Entry::parse(&line).unwrap();
            assert_eq!((entry.text.as_str(), entry.source), (text, Source::Stderr));
            assert_eq!(entry.attributes["a"], "b");
            assert_eq!(entry.time.subsec_nanosecond(), 6);
        }
        for torn in [&b""[..], b"{\"log\":\"x", b"{}", b"\xff", b"[]"] {
            assert_eq!(Entry::parse(torn), None);
        }
    }
}
