//! Certificates of signers: who they are for, and whether an authority made them.
//!
//! The path to the authority is `rustls-webpki`'s work (RFC 5280, with the key usage "code signing"). What it does
//! not tell is read here: names in the alternative subject, Fulcio's extensions
//! (1.3.6.1.4.1.57264.1.*), and the receipts of certificate logs (`sct`).

use std::time::Duration;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::TrustAnchor;
use rustls_pki_types::UnixTime;
use rustls_pki_types::pem::PemObject as _;
use webpki::EndEntityCert;
use webpki::KeyUsage;

use super::Checked;
use super::der;
use super::der::Element;
use super::der::Reader;
use super::key::PublicKey;

/// Most certificates in one file, chain or trusted root.
const MAX_CERTIFICATES: usize = 64;
/// Largest certificate, in bytes.
const MAX_CERTIFICATE: usize = 64 << 10;
/// 1.3.6.1.5.5.7.3.3
const CODE_SIGNING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x03];
/// 2.5.29.37
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
/// 2.5.29.17
const SUBJECT_ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// 1.3.6.1.4.1.57264.1.1: the issuer as bare text.
const ISSUER_V1: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xbf, 0x30, 0x01, 0x01];
/// 1.3.6.1.4.1.57264.1.8: the issuer as a UTF8String.
const ISSUER_V2: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xbf, 0x30, 0x01, 0x08];

static ALGORITHMS: [&dyn rustls_pki_types::SignatureVerificationAlgorithm; 11] = [
    webpki::ring::ECDSA_P256_SHA256,
    webpki::ring::ECDSA_P256_SHA384,
    webpki::ring::ECDSA_P384_SHA256,
    webpki::ring::ECDSA_P384_SHA384,
    webpki::ring::ED25519,
    webpki::ring::RSA_PKCS1_2048_8192_SHA256,
    webpki::ring::RSA_PKCS1_2048_8192_SHA384,
    webpki::ring::RSA_PKCS1_2048_8192_SHA512,
    webpki::ring::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    webpki::ring::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    webpki::ring::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// One certificate, its parts found.
#[derive(Debug)]
pub(super) struct Certificate<'a> {
    /// The part that is signed.
    tbs: Element<'a>,
    /// The public key.
    pub(super) spki: &'a [u8],
    /// First and last second of validity, since 1970.
    pub(super) valid: (i64, i64),
    extensions: Vec<Extension<'a>>,
}

#[derive(Debug, Clone, Copy)]
struct Extension<'a> {
    whole: &'a [u8],
    oid: &'a [u8],
    value: &'a [u8],
}

/// Whom a certificate is for, as it says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) emails: Vec<String>,
    pub(super) uris: Vec<String>,
    pub(super) hosts: Vec<String>,
}

impl<'a> Certificate<'a> {
    /// Finds the parts. Says nothing about who signed it.
    pub(super) fn parse(der: &'a [u8]) -> Checked<Self> {
        if der.len() > MAX_CERTIFICATE {
            return Err("the certificate is larger than 64 KiB".into());
        }
        let mut outer = Reader::new(der);
        let mut fields = outer.enter(der::SEQUENCE)?;
        outer.end()?;
        let tbs = fields.expect(der::SEQUENCE)?;
        let mut parts = Reader::new(tbs.content);
        parts.optional(der::context(0))?;
        parts.expect(der::INTEGER)?;
        parts.expect(der::SEQUENCE)?;
        parts.expect(der::SEQUENCE)?;
        let mut validity = parts.enter(der::SEQUENCE)?;
        let valid = (validity.time()?, validity.time()?);
        parts.expect(der::SEQUENCE)?;
        let spki = parts.expect(der::SEQUENCE)?.whole;
        parts.optional(der::implicit(1))?;
        parts.optional(der::implicit(2))?;
        let mut extensions: Vec<Extension<'a>> = Vec::new();
        if let Some(explicit) = parts.optional(der::context(3))? {
            let mut list = Reader::new(explicit.content).enter(der::SEQUENCE)?;
            while !list.is_empty() {
                let element = list.expect(der::SEQUENCE)?;
                let mut extension = Reader::new(element.content);
                let oid = extension.expect(der::OID)?.content;
                extension.optional(der::BOOLEAN)?;
                let value = extension.expect(der::OCTET_STRING)?.content;
                if extensions.iter().any(|e| e.oid == oid) {
                    return Err("the certificate has an extension twice".into());
                }
                extensions.push(Extension { whole: element.whole, oid, value });
            }
        }
        parts.end()?;
        Ok(Self { tbs, spki, valid, extensions })
    }

    /// The public key.
    pub(super) fn key(&self) -> Checked<PublicKey> {
        PublicKey::from_spki(self.spki)
    }

    /// The value of an extension.
    pub(super) fn extension(&self, oid: &[u8]) -> Option<&'a [u8]> {
        self.extensions.iter().find(|e| e.oid == oid).map(|e| e.value)
    }

    /// The signed part without one extension, as it was before the log signed it (RFC 6962, section 3.2).
    pub(super) fn tbs_without(&self, oid: &[u8]) -> Checked<Vec<u8>> {
        let mut content = Vec::with_capacity(self.tbs.content.len());
        let mut parts = Reader::new(self.tbs.content);
        while !parts.is_empty() {
            let part = parts.next()?;
            if part.tag != der::context(3) {
                content.extend(part.whole);
                continue;
            }
            let kept: Vec<u8> =
                self.extensions.iter().filter(|e| e.oid != oid).flat_map(|e| e.whole).copied().collect();
            content.extend(der::wrap(der::context(3), &der::wrap(der::SEQUENCE, &kept)));
        }
        Ok(der::wrap(der::SEQUENCE, &content))
    }

    /// Whether it is one for signing code (RFC 5280, section 4.2.1.12).
    fn may_sign_code(&self) -> Checked<bool> {
        let Some(value) = self.extension(EXTENDED_KEY_USAGE) else { return Ok(false) };
        let mut list = Reader::new(value).enter(der::SEQUENCE)?;
        while !list.is_empty() {
            if list.expect(der::OID)?.content == CODE_SIGNING {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whom it is for (RFC 5280, section 4.2.1.6).
    pub(super) fn names(&self) -> Checked<Names> {
        let mut names = Names::default();
        let Some(value) = self.extension(SUBJECT_ALTERNATIVE_NAME) else { return Ok(names) };
        let mut list = Reader::new(value).enter(der::SEQUENCE)?;
        while !list.is_empty() {
            let element = list.next()?;
            let into = match element.tag {
                0x81 => &mut names.emails,
                0x82 => &mut names.hosts,
                0x86 => &mut names.uris,
                _ => continue,
            };
            let text = std::str::from_utf8(element.content).ok().filter(|text| text.is_ascii());
            into.push(text.ok_or("the certificate's subject is not ASCII")?.to_owned());
        }
        Ok(names)
    }

    /// Who vouched for the subject, by Fulcio's extensions. Where both forms are there, they must agree.
    pub(super) fn issuer(&self) -> Checked<String> {
        let text = |bytes: &[u8]| {
            std::str::from_utf8(bytes)
                .map(str::to_owned)
                .map_err(|_| "the certificate's issuer is not UTF-8".to_owned())
        };
        let old = self.extension(ISSUER_V1).map(text).transpose()?;
        let new = match self.extension(ISSUER_V2) {
            Some(value) => {
                let mut reader = Reader::new(value);
                let element = reader.expect(der::UTF8_STRING)?;
                reader.end()?;
                Some(text(element.content)?)
            }
            None => None,
        };
        match (old, new) {
            (Some(old), Some(new)) if old != new => Err("the certificate names two different issuers".into()),
            (_, Some(issuer)) | (Some(issuer), None) => Ok(issuer),
            (None, None) => Err("the certificate names no OIDC issuer".into()),
        }
    }
}

/// The certificates of a PEM file; there must be one at least.
pub(super) fn from_pem(pem: &[u8]) -> Checked<Vec<CertificateDer<'static>>> {
    let mut all = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        all.push(certificate.map_err(|e| format!("not valid PEM: {e}"))?);
        if all.len() > MAX_CERTIFICATES {
            return Err(format!("there are more than {MAX_CERTIFICATES} certificates"));
        }
    }
    if all.is_empty() {
        return Err("there is no certificate in PEM form (\"BEGIN CERTIFICATE\")".into());
    }
    Ok(all)
}

/// Whether there is a path from `leaf` through some of `intermediates` to one of `roots`, all valid at `time` and
/// allowed to sign code.
pub(super) fn verify_path(
    leaf: &[u8],
    roots: &[CertificateDer<'_>],
    intermediates: &[CertificateDer<'_>],
    time: i64,
) -> Checked<()> {
    if intermediates.len() > MAX_CERTIFICATES {
        return Err(format!("there are more than {MAX_CERTIFICATES} certificates"));
    }
    let anchors: Vec<TrustAnchor<'_>> = roots
        .iter()
        .map(|root| {
            webpki::anchor_from_trusted_cert(root).map_err(|e| format!("an authority's certificate: {e}"))
        })
        .collect::<Checked<_>>()?;
    let seconds = u64::try_from(time).map_err(|_| "the time is before 1970".to_owned())?;
    // Authorities may do without that note, as they may for Go's programs; the signer may not.
    if !Certificate::parse(leaf)?.may_sign_code()? {
        return Err("the certificate is not one for signing code".into());
    }
    let leaf = CertificateDer::from(leaf);
    let leaf = EndEntityCert::try_from(&leaf).map_err(|e| format!("the certificate: {e}"))?;
    leaf.verify_for_usage(
        &ALGORITHMS,
        &anchors,
        intermediates,
        UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
        KeyUsage::required_if_present(CODE_SIGNING),
        None,
        None,
    )
    .map_err(|e| format!("the certificate is not from a trusted authority: {e}"))?;
    Ok(())
}

/// Whether a certificate is for this host.
pub(super) fn is_for_host(leaf: &[u8], host: &str) -> Checked<()> {
    let leaf = CertificateDer::from(leaf);
    let leaf = EndEntityCert::try_from(&leaf).map_err(|e| format!("the certificate: {e}"))?;
    let name = rustls_pki_types::ServerName::try_from(host).map_err(|_| format!("\"{host}\" is no host"))?;
    leaf.verify_is_valid_for_subject_name(&name)
        .map_err(|_| format!("the certificate is not for host {host}"))
}
