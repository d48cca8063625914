//! OpenPGP packets (RFC 9580, section 4), and the armor around them (section 6).

use super::super::Checked;
use super::super::json;

pub(super) const SIGNATURE: u8 = 2;
pub(super) const ONE_PASS: u8 = 4;
pub(super) const PUBLIC_KEY: u8 = 6;
pub(super) const COMPRESSED: u8 = 8;
pub(super) const MARKER: u8 = 10;
pub(super) const LITERAL: u8 = 11;
pub(super) const USER_ID: u8 = 13;
pub(super) const PUBLIC_SUBKEY: u8 = 14;
pub(super) const USER_ATTRIBUTE: u8 = 17;

/// One packet.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) tag: u8,
    pub(super) body: Vec<u8>,
}

/// Reads packets one after the other; the first error is the last item.
#[derive(Debug)]
pub(super) struct Packets<'a> {
    bytes: Bytes<'a>,
    failed: bool,
}

impl<'a> Packets<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: Bytes(bytes), failed: false }
    }

    fn packet(&mut self) -> Checked<Packet> {
        let first = self.bytes.u8()?;
        if first & 0x80 == 0 {
            return Err("not an OpenPGP packet".into());
        }
        if first & 0x40 == 0 {
            let tag = (first >> 2) & 0x0f;
            let length = match first & 3 {
                0 => usize::from(self.bytes.u8()?),
                1 => usize::from(self.bytes.u16()?),
                2 => self.bytes.u32()? as usize,
                _ => self.bytes.0.len(),
            };
            return Ok(Packet { tag, body: self.bytes.take(length)?.to_vec() });
        }
        let tag = first & 0x3f;
        let mut body = Vec::new();
        loop {
            let (length, partial) = match self.bytes.u8()? {
                short @ 0..=191 => (usize::from(short), false),
                high @ 192..=223 => {
                    ((usize::from(high) - 192) * 256 + usize::from(self.bytes.u8()?) + 192, false)
                }
                255 => (self.bytes.u32()? as usize, false),
                power => (1 << (power & 0x1f), true),
            };
            body.extend(self.bytes.take(length)?);
            if !partial {
                return Ok(Packet { tag, body });
            }
        }
    }
}

impl Iterator for Packets<'_> {
    type Item = Checked<Packet>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.bytes.0.is_empty() {
            return None;
        }
        let packet = self.packet();
        self.failed = packet.is_err();
        Some(packet)
    }
}

/// A cursor over bytes.
#[derive(Debug, Clone)]
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) fn take(&mut self, count: usize) -> Checked<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count).ok_or("an OpenPGP packet is cut off")?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn u8(&mut self) -> Checked<u8> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn u16(&mut self) -> Checked<u16> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub(super) fn u32(&mut self) -> Checked<u32> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// A multiprecision integer, without leading zeros.
    pub(super) fn mpi(&mut self) -> Checked<&'a [u8]> {
        let bits = usize::from(self.u16()?);
        let bytes = self.take(bits.div_ceil(8))?;
        Ok(&bytes[bytes.iter().take_while(|byte| **byte == 0).count()..])
    }
}

/// The bytes inside every armored block of this kind, one after the other; other bytes as they are.
pub(super) fn dearmor(bytes: &[u8], kind: &str) -> Checked<Vec<u8>> {
    let begin = format!("-----BEGIN PGP {kind}-----");
    let end = format!("-----END PGP {kind}-----");
    if !bytes.windows(begin.len()).any(|window| window == begin.as_bytes()) {
        return Ok(bytes.to_vec());
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "the armor is not text")?;
    let mut out = Vec::new();
    for block in text.split(&begin).skip(1) {
        let block = block.split(&end).next().unwrap_or_default();
        let mut encoded = String::new();
        for line in block.lines().map(str::trim) {
            // Headers are `Name: value`; a line with `=` first is the checksum.
            if line.contains(": ") || line.starts_with('=') {
                continue;
            }
            encoded.push_str(line);
        }
        out.extend(json::base64(&encoded).map_err(|e| format!("the armor is {e}"))?);
    }
    Ok(out)
}
