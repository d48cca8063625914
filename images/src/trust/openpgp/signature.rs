//! One OpenPGP signature of version 4 (RFC 9580, section 5.2), and whether a key made it.

use ring::signature as algorithms;
use ring::signature::RsaPublicKeyComponents;
use ring::signature::UnparsedPublicKey;

use super::super::Checked;
use super::super::der;
use super::super::key::hex;
use super::packet::Bytes;

/// A signature of a binary document.
pub(super) const BINARY: u8 = 0x00;
/// Most subpackets of one signature.
const MAX_SUBPACKETS: usize = 256;

/// A signature, its parts found.
#[derive(Debug, Clone)]
pub(super) struct Signature {
    /// What it is over: a document, a key, a name of a key.
    pub(super) kind: u8,
    algorithm: u8,
    hash: u8,
    /// The part of the signature that is itself signed.
    signed: Vec<u8>,
    numbers: Vec<u8>,
    /// Seconds since 1970.
    pub(super) created: i64,
    /// Seconds after `created`; none if it does not expire.
    lifetime: Option<u32>,
    /// Seconds after the key's creation at which the key expires.
    pub(super) key_lifetime: Option<u32>,
    /// What the key may be used for.
    pub(super) flags: Option<u8>,
    /// A signature of the subkey inside the one that binds it.
    pub(super) embedded: Option<Vec<u8>>,
    /// The last eight bytes of the signing key's fingerprint. A help to find it; the key decides.
    issuer: Option<Vec<u8>>,
}

/// The numbers of a public key.
#[derive(Debug, Clone)]
pub(super) enum Numbers {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    P256(Vec<u8>),
    P384(Vec<u8>),
    /// Of version 4, in multiprecision integers.
    EdLegacy(Vec<u8>),
    /// Of RFC 9580, in plain bytes.
    Ed25519(Vec<u8>),
}

impl Signature {
    /// Finds the parts.
    pub(super) fn parse(body: &[u8]) -> Checked<Self> {
        let mut bytes = Bytes(body);
        let version = bytes.u8()?;
        if version != 4 {
            return Err(format!("the OpenPGP signature is of version {version}; only 4 is supported"));
        }
        let (kind, algorithm, hash) = (bytes.u8()?, bytes.u8()?, bytes.u8()?);
        let length = usize::from(bytes.u16()?);
        let hashed = bytes.take(length)?;
        let signed = body[..6 + length].to_vec();
        let length = usize::from(bytes.u16()?);
        let unhashed = bytes.take(length)?;
        bytes.take(2)?;
        let mut signature = Self {
            kind,
            algorithm,
            hash,
            signed,
            numbers: bytes.0.to_vec(),
            created: 0,
            lifetime: None,
            key_lifetime: None,
            flags: None,
            embedded: None,
            issuer: None,
        };
        let mut dated = false;
        for (kind, critical, data) in subpackets(hashed)? {
            match kind {
                2 => {
                    signature.created = i64::from(Bytes(data).u32()?);
                    dated = true;
                }
                3 => signature.lifetime = Some(Bytes(data).u32()?).filter(|seconds| *seconds != 0),
                9 => signature.key_lifetime = Some(Bytes(data).u32()?).filter(|seconds| *seconds != 0),
                27 => signature.flags = Some(data.first().copied().unwrap_or(0)),
                16 | 33 => signature.issuer = Some(key_id(data).to_vec()),
                32 => signature.embedded = Some(data.to_vec()),
                // Preferences, features, trust, notes and reasons: they decide nothing here.
                4 | 5 | 7 | 11 | 12 | 21..=26 | 28..=31 | 34 | 35 => {}
                _ if critical => return Err(format!("the signature has the unknown critical part {kind}")),
                _ => {}
            }
        }
        if !dated {
            return Err("the signature does not say when it was made".into());
        }
        // Not signed: only what proves itself is taken from there.
        for (kind, _, data) in subpackets(unhashed)? {
            match kind {
                16 | 33 if signature.issuer.is_none() => signature.issuer = Some(key_id(data).to_vec()),
                32 if signature.embedded.is_none() => signature.embedded = Some(data.to_vec()),
                _ => {}
            }
        }
        Ok(signature)
    }

    /// When it stops to hold, in seconds since 1970.
    pub(super) fn expires(&self) -> Option<i64> {
        self.lifetime.map(|seconds| self.created + i64::from(seconds))
    }

    /// The signing key as the signature names it.
    pub(super) fn issuer(&self) -> String {
        self.issuer.as_ref().map_or("an unnamed key".into(), |id| format!("key {}", hex(id).to_uppercase()))
    }

    /// Whether the key with these numbers signed `content` so. SHA-1 is accepted only of what a key says about
    /// itself, where `old` is set: old keys are full of it, and the keyring is the user's own.
    pub(super) fn holds(&self, content: &[u8], key: &Numbers, old: bool) -> bool {
        let mut message = content.to_vec();
        message.extend(&self.signed);
        message.extend([4, 0xff]);
        message.extend(u32::try_from(self.signed.len()).unwrap_or(u32::MAX).to_be_bytes());
        self.check(&message, key, old).unwrap_or(false)
    }

    fn check(&self, message: &[u8], key: &Numbers, old: bool) -> Checked<bool> {
        let mut numbers = Bytes(&self.numbers);
        match (self.algorithm, key) {
            (1 | 3, Numbers::Rsa { n, e }) => {
                let parameters = match self.hash {
                    8 => &algorithms::RSA_PKCS1_2048_8192_SHA256,
                    9 => &algorithms::RSA_PKCS1_2048_8192_SHA384,
                    10 => &algorithms::RSA_PKCS1_2048_8192_SHA512,
                    2 if old => &algorithms::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
                    _ => return Ok(false),
                };
                let signature = padded(numbers.mpi()?, n.len())?;
                Ok(RsaPublicKeyComponents { n, e }.verify(parameters, message, &signature).is_ok())
            }
            (19, Numbers::P256(point) | Numbers::P384(point)) => {
                let algorithm: &dyn algorithms::VerificationAlgorithm = match (key, self.hash) {
                    (Numbers::P256(_), 8) => &algorithms::ECDSA_P256_SHA256_ASN1,
                    (Numbers::P256(_), 9) => &algorithms::ECDSA_P256_SHA384_ASN1,
                    (Numbers::P384(_), 8) => &algorithms::ECDSA_P384_SHA256_ASN1,
                    (Numbers::P384(_), 9) => &algorithms::ECDSA_P384_SHA384_ASN1,
                    _ => return Ok(false),
                };
                let mut pair = integer(numbers.mpi()?);
                pair.extend(integer(numbers.mpi()?));
                let signature = der::wrap(der::SEQUENCE, &pair);
                Ok(UnparsedPublicKey::new(algorithm, point).verify(message, &signature).is_ok())
            }
            (22, Numbers::EdLegacy(point)) => {
                let mut signature = padded(numbers.mpi()?, 32)?;
                signature.extend(padded(numbers.mpi()?, 32)?);
                Ok(self.edwards(message, point, &signature))
            }
            (27, Numbers::Ed25519(point)) => Ok(self.edwards(message, point, numbers.take(64)?)),
            _ => Ok(false),
        }
    }

    /// OpenPGP signs the digest with Ed25519, not the message.
    fn edwards(&self, message: &[u8], point: &[u8], signature: &[u8]) -> bool {
        let hash = match self.hash {
            8 => &ring::digest::SHA256,
            9 => &ring::digest::SHA384,
            10 => &ring::digest::SHA512,
            _ => return false,
        };
        let digest = ring::digest::digest(hash, message);
        UnparsedPublicKey::new(&algorithms::ED25519, point).verify(digest.as_ref(), signature).is_ok()
    }
}

/// The last eight bytes: a key id is that, a fingerprint ends in it.
fn key_id(data: &[u8]) -> &[u8] {
    &data[data.len().saturating_sub(8)..]
}

/// An ASN.1 integer of a number that is not negative.
fn integer(number: &[u8]) -> Vec<u8> {
    let mut content = Vec::with_capacity(number.len() + 1);
    if number.first().is_none_or(|first| *first > 0x7f) {
        content.push(0);
    }
    content.extend(number);
    der::wrap(der::INTEGER, &content)
}

fn padded(number: &[u8], length: usize) -> Checked<Vec<u8>> {
    let missing = length.checked_sub(number.len()).ok_or("a number of the signature is too large")?;
    let mut out = vec![0; missing];
    out.extend(number);
    Ok(out)
}

/// Kind, whether it is critical, and data of each subpacket.
fn subpackets(bytes: &[u8]) -> Checked<Vec<(u8, bool, &[u8])>> {
    let mut bytes = Bytes(bytes);
    let mut all = Vec::new();
    while !bytes.0.is_empty() {
        let length = match bytes.u8()? {
            short @ 0..=191 => usize::from(short),
            high @ 192..=254 => (usize::from(high) - 192) * 256 + usize::from(bytes.u8()?) + 192,
            255 => bytes.u32()? as usize,
        };
        let (kind, data) = bytes.take(length)?.split_first().ok_or("a part of the signature is empty")?;
        all.push((kind & 0x7f, kind & 0x80 != 0, data));
        if all.len() > MAX_SUBPACKETS {
            return Err(format!("the signature has more than {MAX_SUBPACKETS} parts"));
        }
    }
    Ok(all)
}
