//! Public keys of sigstore signers and logs: SubjectPublicKeyInfo, checked with `ring`.
//!
//! ECDSA over P-256 and P-384, Ed25519, and RSA of 2048 bits and more (PKCS #1 v1.5 and PSS). Which hash a signer
//! used is not recorded in a cosign signature; SHA-256 is what tools use, larger ones are tried where they are
//! customary. Nothing here holds a private key.

use ring::digest;
use ring::signature;
use ring::signature::UnparsedPublicKey;
use ring::signature::VerificationAlgorithm;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;

use super::Checked;
use super::der;
use super::der::Reader;

/// 1.2.840.10045.2.1
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// 1.2.840.10045.3.1.7
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// 1.3.132.0.34
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
/// 1.3.101.112
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
/// 1.2.840.113549.1.1.1
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

static P256_ALGORITHMS: [&dyn VerificationAlgorithm; 1] = [&signature::ECDSA_P256_SHA256_ASN1];
static P384_ALGORITHMS: [&dyn VerificationAlgorithm; 2] =
    [&signature::ECDSA_P384_SHA384_ASN1, &signature::ECDSA_P384_SHA256_ASN1];
static ED25519_ALGORITHMS: [&dyn VerificationAlgorithm; 1] = [&signature::ED25519];
static RSA_ALGORITHMS: [&dyn VerificationAlgorithm; 6] = [
    &signature::RSA_PKCS1_2048_8192_SHA256,
    &signature::RSA_PSS_2048_8192_SHA256,
    &signature::RSA_PKCS1_2048_8192_SHA384,
    &signature::RSA_PSS_2048_8192_SHA384,
    &signature::RSA_PKCS1_2048_8192_SHA512,
    &signature::RSA_PSS_2048_8192_SHA512,
];

/// A public key.
#[derive(Debug, Clone)]
pub(super) struct PublicKey {
    spki: Vec<u8>,
    point: Vec<u8>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    P256,
    P384,
    Ed25519,
    Rsa,
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo (RFC 5280, section 4.1).
    pub(super) fn from_spki(spki: &[u8]) -> Checked<Self> {
        let mut outer = Reader::new(spki);
        let mut fields = outer.enter(der::SEQUENCE)?;
        outer.end()?;
        let mut algorithm = fields.enter(der::SEQUENCE)?;
        let kind = match algorithm.expect(der::OID)?.content {
            EC => match algorithm.expect(der::OID)?.content {
                P256 => Kind::P256,
                P384 => Kind::P384,
                _ => return Err("the key is on a curve other than P-256 and P-384".into()),
            },
            ED25519 => Kind::Ed25519,
            RSA => Kind::Rsa,
            _ => return Err("the key is neither ECDSA nor Ed25519 nor RSA".into()),
        };
        let point = fields.bits()?.to_vec();
        fields.end()?;
        Ok(Self { spki: spki.to_vec(), point, kind })
    }

    /// Reads all keys of a PEM file; there must be one at least.
    pub(super) fn from_pem(pem: &[u8]) -> Checked<Vec<Self>> {
        let mut keys = Vec::new();
        for spki in SubjectPublicKeyInfoDer::pem_slice_iter(pem) {
            let spki = spki.map_err(|e| format!("not valid PEM: {e}"))?;
            keys.push(Self::from_spki(&spki)?);
        }
        if keys.is_empty() {
            return Err("there is no public key in PEM form (\"BEGIN PUBLIC KEY\")".into());
        }
        Ok(keys)
    }

    /// The encoded key.
    pub(super) fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The SHA-256 of the encoded key: what logs call their id.
    pub(super) fn id(&self) -> [u8; 32] {
        sha256(&self.spki)
    }

    /// How people tell keys apart.
    pub(super) fn fingerprint(&self) -> String {
        format!("sha256:{}", hex(&self.id()))
    }

    /// Whether the signature is one of the message by this key.
    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithms: &[&'static dyn VerificationAlgorithm] = match self.kind {
            Kind::P256 => &P256_ALGORITHMS,
            Kind::P384 => &P384_ALGORITHMS,
            Kind::Ed25519 => &ED25519_ALGORITHMS,
            Kind::Rsa => &RSA_ALGORITHMS,
        };
        algorithms.iter().any(|algorithm| {
            UnparsedPublicKey::new(*algorithm, &self.point).verify(message, signature).is_ok()
        })
    }
}

/// The SHA-256 of some bytes.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes of hex, in either case.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks(2).map(|pair| (pair[0] << 4) | pair[1]).collect())
}
