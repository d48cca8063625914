//! Extended headers: records `LENGTH KEY=VALUE\n` that say more about the entry after them than its header can.
//!
//! Taken: `path`, `linkpath`, `size`, `uid`, `gid`, `mtime` with fractions, attributes as `SCHILY.xattr.NAME` and
//! as `LIBARCHIVE.xattr.NAME` (the name percent-encoded, the value base64), and GNU's three ways to describe sparse
//! files. A value that is empty takes back what an earlier record said, as POSIX has it. Names are bytes whatever
//! `hdrcharset` says, as the file system takes bytes. Everything else is about what is not extracted: access times,
//! comments, user names.

use std::collections::BTreeMap;

use base64::Engine as _;

use super::sparse;
use crate::layer::Fault;

/// What extended headers and long names said about the next entry.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<(i64, u32)>,
    /// By name; the last value of a name counts.
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The same from records of libarchive, which count where the others are silent.
    archive_xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) sparse: sparse::Records,
}

impl Extensions {
    /// All attributes, by name.
    pub(super) fn take_xattrs(&mut self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut all = std::mem::take(&mut self.archive_xattrs);
        all.append(&mut self.xattrs);
        all.into_iter().collect()
    }

    /// Reads the content of one extended header.
    pub(super) fn parse(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        while !bytes.is_empty() {
            let space = bytes.iter().position(|b| *b == b' ').ok_or_else(damaged)?;
            let length: usize = text(&bytes[..space]).and_then(|t| t.parse().ok()).ok_or_else(damaged)?;
            let record =
                bytes.get(space + 1..length).ok_or_else(damaged)?.strip_suffix(b"\n").ok_or_else(damaged)?;
            bytes = &bytes[length..];
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(damaged)?;
            self.record(&record[..equals], &record[equals + 1..])?;
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        match key {
            b"path" => self.path = some(value).map(<[u8]>::to_vec),
            b"linkpath" => self.link = some(value).map(<[u8]>::to_vec),
            b"size" => self.size = some(value).map(integer).transpose()?,
            b"uid" => self.uid = some(value).map(id).transpose()?,
            b"gid" => self.gid = some(value).map(id).transpose()?,
            b"mtime" => {
                let time = |value| text(value).and_then(parse_time).ok_or_else(damaged);
                self.mtime = some(value).map(time).transpose()?;
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.insert(attribute(name.to_vec())?, value.to_vec());
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    let value = base64(value).ok_or_else(damaged)?;
                    self.archive_xattrs.insert(attribute(percent_decoded(name))?, value);
                } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.record(name, value)?;
                }
            }
        }
        Ok(())
    }
}

fn some(value: &[u8]) -> Option<&[u8]> {
    (!value.is_empty()).then_some(value)
}

pub(super) fn damaged() -> Fault {
    Fault::bad("damaged pax header")
}

fn attribute(name: Vec<u8>) -> Result<Vec<u8>, Fault> {
    if name.is_empty() || name.contains(&0) { Err(damaged()) } else { Ok(name) }
}

pub(super) fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

pub(super) fn integer(value: &[u8]) -> Result<u64, Fault> {
    text(value).and_then(|t| t.parse().ok()).ok_or_else(damaged)
}

fn id(value: &[u8]) -> Result<u32, Fault> {
    u32::try_from(integer(value)?).map_err(|_| damaged())
}

/// `[-]SECONDS[.FRACTION]`; digits beyond nanoseconds are cut.
fn parse_time(text: &str) -> Option<(i64, u32)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = seconds.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9.9}").parse().ok()?;
    if seconds.starts_with('-') && nanos > 0 {
        return Some((whole.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((whole, nanos))
}

/// With or without padding: writers differ.
fn base64(value: &[u8]) -> Option<Vec<u8>> {
    let end = value.iter().rposition(|b| *b != b'=').map_or(0, |last| last + 1);
    base64::engine::general_purpose::STANDARD_NO_PAD.decode(&value[..end]).ok()
}

/// `%3D` becomes `=`; what is no such code stays.
fn percent_decoded(name: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(name.len());
    let mut rest = name;
    while let [first, after @ ..] = rest {
        let digit = |at: usize| after.get(at).and_then(|b| char::from(*b).to_digit(16));
        if let (b'%', Some(high), Some(low)) = (*first, digit(0), digit(1))
            && let Ok(byte) = u8::try_from(high * 16 + low)
        {
            decoded.push(byte);
            rest = &after[2..];
        } else {
            decoded.push(*first);
            rest = after;
        }
    }
    decoded
}
