//! Signed OpenPGP messages, verified: the part of RFC 4880 and RFC 9580 that simple signing of images needs.
//!
//! It reads keyrings and messages and checks signatures with `ring`; it holds no private key, encrypts nothing and
//! keeps no web of trust. Version 4 keys and signatures; RSA of 2048 bits and more, ECDSA (P-256, P-384), Ed25519;
//! SHA-256, SHA-384 and SHA-512. The crate `pgp` would bring some hundred packages, among them an RSA
//! implementation with a known and unfixed timing leak (RUSTSEC-2023-0071), for the same answer.
//!
//! `packet` reads packets, `signature` one signature, `keyring` which keys may sign at all.

mod keyring;
mod packet;
mod signature;

use std::io::Read as _;

use self::keyring::Keyring;
use self::packet::Packets;
use self::signature::Signature;
use super::Checked;
use super::payload::MAX_PAYLOAD;

/// Largest signed message, in bytes.
pub(super) const MAX_MESSAGE: usize = 2 << 20;
/// How deep compressed packets may be nested. One occurs in practice.
const MAX_NESTING: usize = 2;

/// What a verified message says, and who says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verified {
    pub(super) content: Vec<u8>,
    /// The fingerprint of the primary key, in upper-case hex.
    pub(super) fingerprint: String,
    /// When it was signed, by the signer's clock, in seconds since 1970.
    pub(super) created: i64,
    /// When the signature or its key expires, in seconds since 1970.
    pub(super) expires: Option<i64>,
}

/// Checks a message with exactly one signature against keyrings, at a time in seconds since 1970.
pub(super) fn verify(message: &[u8], keyrings: &[Vec<u8>], now: i64) -> Checked<Verified> {
    if message.len() > MAX_MESSAGE {
        return Err("the signature is larger than 2 MiB".into());
    }
    let mut parts = Parts::default();
    parts.read(message, 0)?;
    let content = parts.content.ok_or("the signature holds no document")?;
    let signature = match parts.signatures.as_slice() {
        [one] => Signature::parse(one)?,
        list => return Err(format!("the document has {} signatures, not one", list.len())),
    };
    if signature.kind != signature::BINARY {
        return Err("the signature is not one of a binary document".into());
    }
    let mut reason = None;
    for bytes in keyrings {
        let ring = Keyring::parse(bytes)?;
        match ring.verify(&signature, &content, now) {
            Ok(Some((fingerprint, key_expires))) => {
                let expires = [signature.expires(), key_expires].into_iter().flatten().min();
                return Ok(Verified { content, fingerprint, created: signature.created, expires });
            }
            Ok(None) => {}
            Err(found) => reason = Some(found),
        }
    }
    Err(reason.unwrap_or_else(|| format!("is signed by {}, which is not in the keyring", signature.issuer())))
}

/// The packets of a message: a document, and signatures before or after it.
#[derive(Debug, Default)]
struct Parts {
    content: Option<Vec<u8>>,
    signatures: Vec<Vec<u8>>,
}

impl Parts {
    fn read(&mut self, bytes: &[u8], depth: usize) -> Checked<()> {
        for packet in Packets::new(bytes) {
            let packet = packet?;
            match packet.tag {
                packet::SIGNATURE => self.signatures.push(packet.body),
                packet::LITERAL => {
                    let content = literal(&packet.body)?;
                    if self.content.replace(content).is_some() {
                        return Err("the signature holds more than one document".into());
                    }
                }
                packet::COMPRESSED if depth < MAX_NESTING => self.read(&inflate(&packet.body)?, depth + 1)?,
                // A one-pass header repeats what the signature says; markers say nothing.
                packet::ONE_PASS | packet::MARKER => {}
                tag => return Err(format!("a packet of kind {tag} has no place in a signed document")),
            }
        }
        Ok(())
    }
}

/// The content of a literal data packet (RFC 9580, section 5.9).
fn literal(body: &[u8]) -> Checked<Vec<u8>> {
    let broken = || "the signed document is cut off".to_owned();
    let (&name, rest) = body.get(1..).and_then(<[u8]>::split_first).ok_or_else(broken)?;
    let content = rest.get(usize::from(name) + 4..).ok_or_else(broken)?;
    if content.len() > MAX_PAYLOAD {
        return Err("the signed document is larger than 1 MiB".into());
    }
    Ok(content.to_vec())
}

/// The content of a compressed packet (RFC 9580, section 5.6).
fn inflate(body: &[u8]) -> Checked<Vec<u8>> {
    let (&algorithm, data) = body.split_first().ok_or("the compressed part is empty")?;
    let limit = MAX_MESSAGE as u64 + 1;
    let mut out = Vec::new();
    match algorithm {
        0 => {
            out.extend(data);
            Ok(out.len())
        }
        1 => flate2::read::DeflateDecoder::new(data).take(limit).read_to_end(&mut out),
        2 => flate2::read::ZlibDecoder::new(data).take(limit).read_to_end(&mut out),
        other => return Err(format!("compression {other} of OpenPGP is not supported")),
    }
    .map_err(|e| format!("the compressed part is damaged: {e}"))?;
    if out.len() > MAX_MESSAGE {
        return Err("the signature is larger than 2 MiB".into());
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
