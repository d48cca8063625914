//! A small sigstore for tests: keys, an authority, two logs, and signatures made with them. Written from the
//! specifications and with other code than what verifies.

use std::collections::BTreeMap;

use ring::rand::SystemRandom;
use ring::signature::ECDSA_P256_SHA256_ASN1_SIGNING;
use ring::signature::EcdsaKeyPair;
use ring::signature::KeyPair as _;
use serde_json::json;

use super::collect::Material;
use super::der;
use super::der::wrap;
use super::json::to_base64;
use super::key::hex;
use super::key::sha256;
use super::time;
use crate::Digest;

pub(super) const ISSUER: &str = "https://issuer.example";
pub(super) const EMAIL: &str = "dev@example.com";
pub(super) const URI: &str = "https://ci.example/team/app/.github/workflows/release.yml@refs/heads/main";
/// When the tests' signatures are made: 2025-06-15T12:00:00Z.
pub(super) const SIGNED_AT: i64 = 1_749_988_800;
/// The manifest that is signed.
pub(super) const MANIFEST: &[u8] = br#"{"schemaVersion":2}"#;

const EKU: &[u8] = &[0x55, 0x1d, 0x25];
const SAN: &[u8] = &[0x55, 0x1d, 0x11];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const ISSUER_V1: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xbf, 0x30, 0x01, 0x01];
const ISSUER_V2: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xbf, 0x30, 0x01, 0x08];
const SCT: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xd6, 0x79, 0x02, 0x04, 0x02];
const CODE_SIGNING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x03];
const SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

/// Somebody with a P-256 key.
pub(super) struct Signer {
    pair: EcdsaKeyPair,
}

impl Signer {
    pub(super) fn new() -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).unwrap();
        Self { pair }
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }

    pub(super) fn spki(&self) -> Vec<u8> {
        let ec = wrap(der::OID, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01]);
        let curve = wrap(der::OID, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]);
        let point = [&[0], self.pair.public_key().as_ref()].concat();
        sequence(&[&sequence(&[&ec, &curve]), &wrap(der::BIT_STRING, &point)])
    }

    pub(super) fn pem(&self) -> String {
        pem("PUBLIC KEY", &self.spki())
    }
}

pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let encoded = to_base64(der);
    let lines: Vec<&str> =
        encoded.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    wrap(der::SEQUENCE, &parts.concat())
}

fn name(text: &str) -> Vec<u8> {
    let common_name = wrap(der::OID, &[0x55, 0x04, 0x03]);
    let pair = sequence(&[&common_name, &wrap(der::UTF8_STRING, text.as_bytes())]);
    sequence(&[&wrap(0x31, &pair)])
}

fn utc(seconds: i64) -> Vec<u8> {
    let digits: String = time::show(seconds).chars().filter(char::is_ascii_digit).collect();
    wrap(der::UTC_TIME, format!("{}Z", &digits[2..]).as_bytes())
}

fn extension(oid: &[u8], value: &[u8]) -> Vec<u8> {
    sequence(&[&wrap(der::OID, oid), &wrap(der::OCTET_STRING, value)])
}

fn tbs(subject: &str, issuer: &str, spki: &[u8], valid: (i64, i64), extensions: &[Vec<u8>]) -> Vec<u8> {
    let version = wrap(der::context(0), &wrap(der::INTEGER, &[2]));
    let algorithm = sequence(&[&wrap(der::OID, ECDSA_SHA256)]);
    let validity = sequence(&[&utc(valid.0), &utc(valid.1)]);
    let extensions = wrap(der::context(3), &wrap(der::SEQUENCE, &extensions.concat()));
    let serial = wrap(der::INTEGER, &[7]);
    sequence(&[&version, &serial, &algorithm, &name(issuer), &validity, &name(subject), spki, &extensions])
}

fn signed(tbs: &[u8], by: &Signer) -> Vec<u8> {
    let algorithm = sequence(&[&wrap(der::OID, ECDSA_SHA256)]);
    let signature = [&[0][..], &by.sign(tbs)].concat();
    sequence(&[tbs, &algorithm, &wrap(der::BIT_STRING, &signature)])
}

/// How a certificate is made. The default is a good one.
pub(super) struct Leaf {
    pub(super) email: Option<String>,
    pub(super) uri: Option<String>,
    pub(super) issuer_v1: Option<String>,
    pub(super) issuer_v2: Option<String>,
    pub(super) valid: (i64, i64),
    pub(super) for_servers: bool,
    pub(super) logged: bool,
    pub(super) twice: bool,
}

impl Default for Leaf {
    fn default() -> Self {
        Self {
            email: Some(EMAIL.into()),
            uri: None,
            issuer_v1: Some(ISSUER.into()),
            issuer_v2: Some(ISSUER.into()),
            valid: (SIGNED_AT - 60, SIGNED_AT + 540),
            for_servers: false,
            logged: true,
            twice: false,
        }
    }
}

/// An authority, logs, and a signer.
pub(super) struct World {
    pub(super) root: Signer,
    pub(super) intermediate: Signer,
    pub(super) log: Signer,
    pub(super) certificate_log: Signer,
    /// The signer, whose key is also in certificates.
    pub(super) signer: Signer,
}

/// A signature that can be spoilt before it is used.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) payload: Vec<u8>,
    pub(super) signature: Vec<u8>,
    pub(super) certificate: Option<String>,
    pub(super) chain: Option<String>,
    pub(super) entry: Option<LogEntry>,
}

/// An entry of the log.
#[derive(Clone)]
pub(super) struct LogEntry {
    pub(super) body: Vec<u8>,
    pub(super) time: i64,
    pub(super) index: i64,
    pub(super) id: Vec<u8>,
    pub(super) promise: Vec<u8>,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            root: Signer::new(),
            intermediate: Signer::new(),
            log: Signer::new(),
            certificate_log: Signer::new(),
            signer: Signer::new(),
        }
    }

    fn authority(subject: &str, issuer: &str, key: &Signer, by: &Signer) -> Vec<u8> {
        let is_authority = sequence(&[&wrap(der::BOOLEAN, &[0xff])]);
        let critical = [
            &wrap(der::OID, BASIC_CONSTRAINTS)[..],
            &wrap(der::BOOLEAN, &[0xff]),
            &wrap(der::OCTET_STRING, &is_authority),
        ];
        let decade = (SIGNED_AT - 100_000_000, SIGNED_AT + 100_000_000);
        signed(&tbs(subject, issuer, &key.spki(), decade, &[sequence(&critical)]), by)
    }

    pub(super) fn root_certificate(&self) -> Vec<u8> {
        Self::authority("root", "root", &self.root, &self.root)
    }

    pub(super) fn intermediate_certificate(&self) -> Vec<u8> {
        Self::authority("intermediate", "root", &self.intermediate, &self.root)
    }

    pub(super) fn certificate(&self, leaf: &Leaf) -> Vec<u8> {
        let usage = if leaf.for_servers { SERVER_AUTH } else { CODE_SIGNING };
        let mut names = Vec::new();
        names.extend(leaf.email.iter().flat_map(|email| wrap(0x81, email.as_bytes())));
        names.extend(leaf.uri.iter().flat_map(|uri| wrap(0x86, uri.as_bytes())));
        let mut extensions = vec![
            extension(EKU, &sequence(&[&wrap(der::OID, usage)])),
            extension(SAN, &wrap(der::SEQUENCE, &names)),
        ];
        extensions.extend(leaf.issuer_v1.iter().map(|text| extension(ISSUER_V1, text.as_bytes())));
        extensions.extend(
            leaf.issuer_v2.iter().map(|text| extension(ISSUER_V2, &wrap(der::UTF8_STRING, text.as_bytes()))),
        );
        if leaf.twice {
            extensions.push(extension(ISSUER_V1, b"https://other.example"));
        }
        let spki = self.signer.spki();
        if leaf.logged {
            let before = tbs("", "intermediate", &spki, leaf.valid, &extensions);
            extensions.push(extension(SCT, &wrap(der::OCTET_STRING, &self.receipt(&before))));
        }
        signed(&tbs("", "intermediate", &spki, leaf.valid, &extensions), &self.intermediate)
    }

    /// A list with one receipt (RFC 6962, section 3.3).
    fn receipt(&self, tbs: &[u8]) -> Vec<u8> {
        let stamp = (SIGNED_AT * 1000).to_be_bytes();
        let length = be(tbs.len(), 3);
        let issuer = sha256(&self.intermediate.spki());
        let message = [&[0, 0][..], &stamp, &[0, 1], &issuer, &length, tbs, &[0, 0]].concat();
        let signature = self.certificate_log.sign(&message);
        let id = sha256(&self.certificate_log.spki());
        let size = be(signature.len(), 2);
        let one = [&[0][..], &id, &stamp, &[0, 0, 4, 3], &size, &signature].concat();
        let inner = [&be(one.len(), 2)[..], &one].concat();
        [&be(inner.len(), 2)[..], &inner].concat()
    }

    /// An entry about a signature, promised by the log.
    pub(super) fn entry(&self, payload: &[u8], signature: &[u8], signer_pem: &str) -> LogEntry {
        let body = json!({
            "apiVersion": "0.0.1",
            "kind": "hashedrekord",
            "spec": {
                "data": { "hash": { "algorithm": "sha256", "value": hex(&sha256(payload)) } },
                "signature": {
                    "content": to_base64(signature),
                    "publicKey": { "content": to_base64(signer_pem.as_bytes()) },
                },
            },
        });
        let mut entry = LogEntry {
            body: body.to_string().into_bytes(),
            time: SIGNED_AT,
            index: 41,
            id: sha256(&self.log.spki()).to_vec(),
            promise: Vec::new(),
        };
        entry.promise = self.log.sign(&entry.promised());
        entry
    }

    /// A good signature by key.
    pub(super) fn by_key(&self, reference: &str) -> Parts {
        let payload = payload(&Digest::of(MANIFEST), reference);
        let signature = self.signer.sign(&payload);
        let entry = self.entry(&payload, &signature, &self.signer.pem());
        Parts { payload, signature, certificate: None, chain: None, entry: Some(entry) }
    }

    /// A good signature with a certificate.
    pub(super) fn keyless(&self, reference: &str, leaf: &Leaf) -> Parts {
        let payload = payload(&Digest::of(MANIFEST), reference);
        let signature = self.signer.sign(&payload);
        let certificate = pem("CERTIFICATE", &self.certificate(leaf));
        let entry = self.entry(&payload, &signature, &certificate);
        let chain = pem("CERTIFICATE", &self.intermediate_certificate())
            + &pem("CERTIFICATE", &self.root_certificate());
        Parts { payload, signature, certificate: Some(certificate), chain: Some(chain), entry: Some(entry) }
    }

    /// A trusted root of this world.
    pub(super) fn trusted_root(&self) -> serde_json::Value {
        let log = |key: &Signer| {
            json!({
                "baseUrl": "https://log.example",
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": to_base64(&key.spki()),
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "validFor": { "start": "2021-01-12T11:53:27.000Z" },
                },
                "logId": { "keyId": to_base64(&sha256(&key.spki())) },
            })
        };
        json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log(&self.log)],
            "certificateAuthorities": [{
                "subject": { "organization": "example" },
                "certChain": { "certificates": [
                    { "rawBytes": to_base64(&self.intermediate_certificate()) },
                    { "rawBytes": to_base64(&self.root_certificate()) },
                ] },
                "validFor": { "start": "2022-04-13T20:06:15.000Z" },
            }],
            "ctlogs": [log(&self.certificate_log)],
            "timestampAuthorities": [],
        })
    }

    /// A bundle with a statement about `digest`, as a new cosign makes it.
    pub(super) fn bundle(&self, digest: &Digest, leaf: &Leaf) -> serde_json::Value {
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{ "digest": { "sha256": digest.hex() } }],
            "predicateType": "https://sigstore.dev/cosign/sign/v1",
            "predicate": {},
        })
        .to_string();
        let kind = "application/vnd.in-toto+json";
        let message = format!("DSSEv1 {} {kind} {} {statement}", kind.len(), statement.len());
        let signature = self.signer.sign(message.as_bytes());
        let certificate = self.certificate(leaf);
        let body = json!({
            "apiVersion": "0.0.1",
            "kind": "dsse",
            "spec": {
                "envelopeHash": { "algorithm": "sha256", "value": "00" },
                "payloadHash": { "algorithm": "sha256", "value": hex(&sha256(statement.as_bytes())) },
                "signatures": [{
                    "signature": to_base64(&signature),
                    "verifier": to_base64(pem("CERTIFICATE", &certificate).as_bytes()),
                }],
            },
        })
        .to_string();
        let mut entry = self.entry(b"", b"", "");
        entry.body = body.clone().into_bytes();
        entry.promise = self.log.sign(&entry.promised());
        // A tree of two leaves.
        let leaf_hash = sha256(&[&[0][..], body.as_bytes()].concat());
        let sibling = sha256(b"\0other");
        let root = sha256(&[&[1][..], &leaf_hash, &sibling].concat());
        let note = format!("log.example - 1\n2\n{}\n", to_base64(&root));
        let note_signature = [&[1, 2, 3, 4][..], &self.log.sign(note.as_bytes())].concat();
        json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "certificate": { "rawBytes": to_base64(&certificate) },
                "tlogEntries": [{
                    "logIndex": entry.index.to_string(),
                    "logId": { "keyId": to_base64(&entry.id) },
                    "kindVersion": { "kind": "dsse", "version": "0.0.1" },
                    "integratedTime": entry.time.to_string(),
                    "inclusionPromise": { "signedEntryTimestamp": to_base64(&entry.promise) },
                    "inclusionProof": {
                        "logIndex": "0",
                        "treeSize": "2",
                        "rootHash": to_base64(&root),
                        "hashes": [to_base64(&sibling)],
                        "checkpoint": {
                            "envelope": format!("{note}\n\u{2014} log.example {}\n", to_base64(&note_signature)),
                        },
                    },
                    "canonicalizedBody": to_base64(body.as_bytes()),
                }],
            },
            "dsseEnvelope": {
                "payload": to_base64(statement.as_bytes()),
                "payloadType": kind,
                "signatures": [{ "sig": to_base64(&signature) }],
            },
        })
    }
}

impl LogEntry {
    /// What the log signs.
    pub(super) fn promised(&self) -> Vec<u8> {
        // serde_json keeps the order in which keys are written; these are sorted.
        let value = json!({
            "body": to_base64(&self.body),
            "integratedTime": self.time,
            "logID": hex(&self.id),
            "logIndex": self.index,
        });
        value.to_string().into_bytes()
    }
}

impl Parts {
    pub(super) fn material(&self) -> Material {
        let mut annotations = BTreeMap::new();
        annotations.insert("dev.cosignproject.cosign/signature".to_owned(), to_base64(&self.signature));
        if let Some(certificate) = &self.certificate {
            annotations.insert("dev.sigstore.cosign/certificate".to_owned(), certificate.clone());
        }
        if let Some(chain) = &self.chain {
            annotations.insert("dev.sigstore.cosign/chain".to_owned(), chain.clone());
        }
        if let Some(entry) = &self.entry {
            let bundle = json!({
                "SignedEntryTimestamp": to_base64(&entry.promise),
                "Payload": {
                    "body": to_base64(&entry.body),
                    "integratedTime": entry.time,
                    "logIndex": entry.index,
                    "logID": hex(&entry.id),
                },
            });
            annotations.insert("dev.sigstore.cosign/bundle".to_owned(), bundle.to_string());
        }
        Material::Cosign { found: "test".into(), payload: self.payload.clone(), annotations }
    }
}

/// The last bytes of a length, the highest first.
fn be(length: usize, count: usize) -> Vec<u8> {
    let bytes = length.to_be_bytes();
    bytes[bytes.len() - count..].to_vec()
}

/// cosign's document about an image.
pub(super) fn payload(digest: &Digest, reference: &str) -> Vec<u8> {
    json!({
        "critical": {
            "identity": { "docker-reference": reference },
            "image": { "docker-manifest-digest": digest.to_string() },
            "type": "cosign container image signature",
        },
        "optional": null,
    })
    .to_string()
    .into_bytes()
}

/// One of everything that `fuzz_signature` reads.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let world = World::new();
    let cosign = payload(&Digest::of(MANIFEST), "registry.example/app:1");
    let atomic = String::from_utf8_lossy(&cosign).replace("cosign container image", "atomic container");
    let root = world.root_certificate();
    let mut all = vec![
        cosign,
        atomic.into_bytes(),
        pem("CERTIFICATE", &root).into_bytes(),
        root,
        world.trusted_root().to_string().into_bytes(),
        world.bundle(&Digest::of(MANIFEST), &Leaf::default()).to_string().into_bytes(),
    ];
    if let Material::Cosign { annotations, .. } = world.by_key("registry.example/app:1").material() {
        all.extend(annotations.into_values().map(String::into_bytes));
    }
    // An OpenPGP message of one literal packet, and a key block without content.
    all.push(b"\xcb\x0eb\0\0\0\0\0document\x88\x05\x04\0\x01\x08\0".to_vec());
    all.push(
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQENBFAAAAAB\n=AAAA\n-----END PGP PUBLIC KEY BLOCK-----\n"
            .to_vec(),
    );
    all
}
