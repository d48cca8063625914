//! Keyrings: which of their keys may sign, by what the keys say about themselves (RFC 9580, section 10.1).
//!
//! Whoever wrote the policy chose the keyring, so its keys are trusted as they are. What is checked is what the
//! owner of a key has said since: that it expires, that it is revoked, that a subkey is his and may sign.

use super::super::Checked;
use super::super::key::hex;
use super::packet;
use super::packet::Bytes;
use super::packet::Packets;
use super::packet::dearmor;
use super::signature::Numbers;
use super::signature::Signature;

/// Most packets of one keyring.
const MAX_PACKETS: usize = 20_000;
/// Key flag: may sign.
const MAY_SIGN: u8 = 0x02;

/// Some public keys with their subkeys.
#[derive(Debug)]
pub(super) struct Keyring {
    owners: Vec<Owner>,
}

/// A primary key and what belongs to it.
#[derive(Debug)]
struct Owner {
    primary: Key,
    /// Signatures over the primary key itself.
    direct: Vec<Signature>,
    /// Names, encoded as they are hashed, with the signatures that bind them.
    names: Vec<(Vec<u8>, Vec<Signature>)>,
    subkeys: Vec<(Key, Vec<Signature>)>,
}

/// One key packet.
#[derive(Debug)]
struct Key {
    body: Vec<u8>,
    created: i64,
    /// None for an algorithm that is not supported.
    numbers: Option<Numbers>,
}

impl Keyring {
    /// Reads a keyring as `gpg --export` writes it, armored or not.
    pub(super) fn parse(bytes: &[u8]) -> Checked<Self> {
        if bytes.get(8..12) == Some(b"KBXf") {
            return Err("the keyring is a GnuPG keybox; write one with `gpg --export`".into());
        }
        let bytes = dearmor(bytes, "PUBLIC KEY BLOCK")?;
        let mut owners: Vec<Owner> = Vec::new();
        for (count, packet) in Packets::new(&bytes).enumerate() {
            let packet = packet.map_err(|e| format!("the keyring: {e}"))?;
            if count >= MAX_PACKETS {
                return Err(format!("the keyring has more than {MAX_PACKETS} packets"));
            }
            if packet.tag == packet::PUBLIC_KEY {
                owners.push(Owner {
                    primary: Key::parse(packet.body)?,
                    direct: Vec::new(),
                    names: Vec::new(),
                    subkeys: Vec::new(),
                });
                continue;
            }
            let Some(owner) = owners.last_mut() else {
                return Err("the keyring does not begin with a public key".into());
            };
            match packet.tag {
                packet::USER_ID => owner.names.push((name(0xb4, &packet.body), Vec::new())),
                packet::USER_ATTRIBUTE => owner.names.push((name(0xd1, &packet.body), Vec::new())),
                packet::PUBLIC_SUBKEY => owner.subkeys.push((Key::parse(packet.body)?, Vec::new())),
                packet::SIGNATURE => {
                    // Those of other versions and algorithms are not ours to judge.
                    let Ok(signature) = Signature::parse(&packet.body) else { continue };
                    match (owner.subkeys.last_mut(), owner.names.last_mut()) {
                        (Some((_, list)), _) | (None, Some((_, list))) => list.push(signature),
                        (None, None) => owner.direct.push(signature),
                    }
                }
                // Trust packets and the like are local notes.
                _ => {}
            }
        }
        if owners.is_empty() {
            return Err("the keyring has no public key".into());
        }
        Ok(Self { owners })
    }

    /// The fingerprint of the owner who signed `content`, and when his key expires; none if nobody here did. An
    /// error if it was somebody here whose key does not count any more.
    pub(super) fn verify(
        &self,
        signature: &Signature,
        content: &[u8],
        now: i64,
    ) -> Checked<Option<(String, Option<i64>)>> {
        for owner in &self.owners {
            let fingerprint = owner.primary.fingerprint();
            let signed_by =
                |key: &Key| key.numbers.as_ref().is_some_and(|n| signature.holds(content, n, false));
            let expires = if signed_by(&owner.primary) {
                owner.state(true).map_err(|reason| format!("key {fingerprint} {reason}"))?
            } else if let Some((subkey, bindings)) = owner.subkeys.iter().find(|(key, _)| signed_by(key)) {
                let primary = owner.state(false).map_err(|reason| format!("key {fingerprint} {reason}"))?;
                let own = owner
                    .subkey_state(subkey, bindings)
                    .map_err(|reason| format!("subkey {} {reason}", subkey.fingerprint()))?;
                [primary, own].into_iter().flatten().min()
            } else {
                continue;
            };
            if expires.is_some_and(|expires| expires <= now) {
                return Err(format!("key {fingerprint} has expired"));
            }
            if signature.expires().is_some_and(|expires| expires <= now) {
                return Err("the signature has expired".into());
            }
            return Ok(Some((fingerprint, expires)));
        }
        Ok(None)
    }
}

impl Owner {
    /// When the primary key expires, after a look at whether it is in use at all.
    fn state(&self, must_sign: bool) -> Checked<Option<i64>> {
        let numbers = self.primary.numbers.as_ref().ok_or("is of an unknown kind")?;
        let own = self.primary.hashed();
        if self.direct.iter().any(|s| s.kind == 0x20 && s.holds(&own, numbers, true)) {
            return Err("is revoked".into());
        }
        let named = self.names.iter().flat_map(|(name, list)| {
            let content = [own.as_slice(), name].concat();
            let holds: Vec<&Signature> = list
                .iter()
                .filter(|s| matches!(s.kind, 0x10..=0x13 | 0x30) && s.holds(&content, numbers, true))
                .collect();
            // A name that was revoked later says nothing any more.
            let revoked = holds.iter().filter(|s| s.kind == 0x30).map(|s| s.created).max();
            holds.into_iter().filter(move |s| s.kind != 0x30 && revoked.is_none_or(|at| s.created > at))
        });
        let direct = self.direct.iter().filter(|s| s.kind == 0x1f && s.holds(&own, numbers, true));
        let latest = named.chain(direct).max_by_key(|s| s.created);
        let latest = latest.ok_or("has no valid name or signature of its own")?;
        if must_sign && latest.flags.is_some_and(|flags| flags & MAY_SIGN == 0) {
            return Err("is not for signing".into());
        }
        Ok(latest.key_lifetime.map(|seconds| self.primary.created + i64::from(seconds)))
    }

    /// When a subkey expires, after a look at whether it belongs here and may sign.
    fn subkey_state(&self, subkey: &Key, bindings: &[Signature]) -> Checked<Option<i64>> {
        let primary = self.primary.numbers.as_ref().ok_or("is of an unknown kind")?;
        let numbers = subkey.numbers.as_ref().ok_or("is of an unknown kind")?;
        let both = [self.primary.hashed(), subkey.hashed()].concat();
        if bindings.iter().any(|s| s.kind == 0x28 && s.holds(&both, primary, true)) {
            return Err("is revoked".into());
        }
        let binding = bindings
            .iter()
            .filter(|s| s.kind == 0x18 && s.holds(&both, primary, true))
            .max_by_key(|s| s.created)
            .ok_or("does not belong to its primary key")?;
        if binding.flags.is_none_or(|flags| flags & MAY_SIGN == 0) {
            return Err("is not for signing".into());
        }
        // The subkey must agree, else anybody could claim it and its signatures.
        let agrees = binding.embedded.as_ref().and_then(|body| Signature::parse(body).ok());
        if !agrees.is_some_and(|s| s.kind == 0x19 && s.holds(&both, numbers, true)) {
            return Err("does not agree to belong to its primary key".into());
        }
        Ok(binding.key_lifetime.map(|seconds| subkey.created + i64::from(seconds)))
    }
}

impl Key {
    fn parse(body: Vec<u8>) -> Checked<Self> {
        let mut bytes = Bytes(&body);
        let version = bytes.u8()?;
        let created = i64::from(bytes.u32()?);
        // Others in the same file may be usable.
        let numbers = if version == 4 { numbers(&mut bytes).ok() } else { None };
        Ok(Self { body, created, numbers })
    }

    /// As it is part of what is signed about it.
    fn hashed(&self) -> Vec<u8> {
        let mut out = vec![0x99];
        out.extend(u16::try_from(self.body.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend(&self.body);
        out
    }

    fn fingerprint(&self) -> String {
        let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &self.hashed());
        hex(digest.as_ref()).to_uppercase()
    }
}

fn numbers(bytes: &mut Bytes<'_>) -> Checked<Numbers> {
    /// 1.3.6.1.4.1.11591.15.1
    const ED25519_LEGACY: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01];
    /// 1.2.840.10045.3.1.7
    const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    /// 1.3.132.0.34
    const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
    let algorithm = bytes.u8()?;
    match algorithm {
        1 | 3 => Ok(Numbers::Rsa { n: bytes.mpi()?.to_vec(), e: bytes.mpi()?.to_vec() }),
        19 | 22 => {
            let length = usize::from(bytes.u8()?);
            let curve = bytes.take(length)?;
            let point = bytes.mpi()?;
            match (algorithm, curve, point) {
                (19, P256, point) => Ok(Numbers::P256(point.to_vec())),
                (19, P384, point) => Ok(Numbers::P384(point.to_vec())),
                (22, ED25519_LEGACY, [0x40, point @ ..]) => Ok(Numbers::EdLegacy(point.to_vec())),
                _ => Err("an unknown curve".into()),
            }
        }
        27 => Ok(Numbers::Ed25519(bytes.take(32)?.to_vec())),
        _ => Err("an unknown algorithm".into()),
    }
}

/// A name as it is part of what is signed about it.
fn name(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(body);
    out
}
