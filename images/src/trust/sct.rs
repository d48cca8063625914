//! Receipts of certificate transparency logs in certificates (RFC 6962, section 3.3).
//!
//! Fulcio puts every certificate into a log before it signs it, and the log's receipt into the certificate. With the
//! log's key a policy can demand that: a certificate that an authority made in secret is then worth nothing.

use super::Checked;
use super::certificate::Certificate;
use super::key::PublicKey;
use super::key::sha256;

/// 1.3.6.1.4.1.11129.2.4.2
const SCT_LIST: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xd6, 0x79, 0x02, 0x04, 0x02];
/// Most receipts that are looked at.
const MAX_RECEIPTS: usize = 16;

/// Whether one of `logs` has recorded the certificate, whose issuer is one of `issuers` (their public keys).
pub(super) fn verify(certificate: &Certificate<'_>, issuers: &[&[u8]], logs: &[PublicKey]) -> Checked<()> {
    let Some(value) = certificate.extension(SCT_LIST) else {
        return Err("the certificate has no receipt of a certificate log".into());
    };
    let mut outer = super::der::Reader::new(value);
    let list = outer.expect(super::der::OCTET_STRING)?.content;
    outer.end()?;
    let mut list = Bytes(list);
    let mut receipts = Bytes(list.vector16()?);
    list.end()?;
    let tbs = certificate.tbs_without(SCT_LIST)?;
    let mut seen = 0;
    while !receipts.0.is_empty() {
        let receipt = receipts.vector16()?;
        seen += 1;
        if seen > MAX_RECEIPTS {
            break;
        }
        let receipt = Receipt::parse(receipt)?;
        let Some(log) = logs.iter().find(|log| log.id() == *receipt.log) else { continue };
        for issuer in issuers {
            if log.verify(&receipt.signed(&sha256(issuer), &tbs)?, receipt.signature) {
                return Ok(());
            }
        }
        return Err("the receipt of the certificate log is not for this certificate".into());
    }
    Err("the certificate has no receipt of a known certificate log".into())
}

struct Receipt<'a> {
    log: &'a [u8],
    timestamp: &'a [u8],
    extensions: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Receipt<'a> {
    fn parse(bytes: &'a [u8]) -> Checked<Self> {
        let mut bytes = Bytes(bytes);
        if bytes.take(1)? != [0] {
            return Err("the receipt of the certificate log has an unknown version".into());
        }
        let (log, timestamp, extensions) = (bytes.take(32)?, bytes.take(8)?, bytes.vector16()?);
        // Hash and signature algorithm: the log's key decides, as its id names exactly one.
        bytes.take(2)?;
        let signature = bytes.vector16()?;
        bytes.end()?;
        Ok(Self { log, timestamp, extensions, signature })
    }

    /// What the log signed: version 0, a certificate timestamp, for a certificate before it had the receipt.
    fn signed(&self, issuer: &[u8; 32], tbs: &[u8]) -> Checked<Vec<u8>> {
        let length = u32::try_from(tbs.len()).ok().filter(|length| *length < 1 << 24);
        let length = length.ok_or("the certificate is too large")?.to_be_bytes();
        let extensions = u16::try_from(self.extensions.len()).map_err(|_| "the receipt is too large")?;
        let mut out = vec![0, 0];
        out.extend(self.timestamp);
        out.extend([0, 1]);
        out.extend(issuer);
        out.extend(&length[1..]);
        out.extend(tbs);
        out.extend(extensions.to_be_bytes());
        out.extend(self.extensions);
        Ok(out)
    }
}

/// The presentation language of TLS.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Checked<&'a [u8]> {
        let (head, rest) =
            self.0.split_at_checked(count).ok_or("the receipt of the certificate log is cut off")?;
        self.0 = rest;
        Ok(head)
    }

    fn vector16(&mut self) -> Checked<&'a [u8]> {
        let length = self.take(2)?;
        self.take(usize::from(length[0]) << 8 | usize::from(length[1]))
    }

    fn end(&self) -> Checked<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err("something follows the receipt of the certificate log".into())
        }
    }
}
