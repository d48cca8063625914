//! Trust: which images may be used at all, decided by signatures and a policy file before anything is unpacked.
//!
//! A [`Policy`] says by where an image comes from ([`Origin`]) what must hold; [`collect`] gathers the signatures
//! that somebody has put beside the image ([`Material`]); [`check`] decides. The decision is a pure function over
//! bytes: no network, no clock, no environment. It is kept with the image ([`Record`]) together with the signatures,
//! so that it can be made again under another policy without asking anybody.
//!
//! Kinds of signatures: sigstore's (cosign's attachments and bundles, with keys or with certificates and
//! transparency logs, all offline) and "simple signing" with OpenPGP. Everything about a signature is hostile until
//! it is verified: counts, sizes and depths are bounded, and documents that could be read in two ways are refused.

mod bundle;
mod certificate;
mod collect;
mod der;
mod gate;
mod identity;
mod json;
mod key;
mod lookaside;
mod openpgp;
mod origin;
mod payload;
mod policy;
mod proof;
mod record;
mod rekor;
mod sct;
mod sigstore;
#[cfg(test)]
mod testing;
pub(crate) mod time;
mod trusted_root;
mod verify;

pub use collect::Material;
pub use collect::SignatureSource;
pub use collect::Wanted;
pub use collect::collect;
pub use gate::Gate;
pub use gate::now;
pub use lookaside::Lookaside;
pub use origin::Origin;
pub use policy::Policy;
pub use record::Record;
pub use record::Verdict;
pub use time::show as show_time;
pub use verify::Accepted;
pub use verify::Decision;
pub use verify::Demand;
pub use verify::Examined;
pub use verify::Subject;
pub use verify::check;
pub use verify::examine;

/// For `fuzzing`: every reader of what comes with a signature.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_signature(data: &[u8]) {
    let kinds = [payload::Kind::Atomic, payload::Kind::Cosign].map(|kind| payload::parse(data, kind).is_ok());
    assert_ne!(kinds, [true, true], "a document of both kinds");
    assert!(openpgp::verify(data, &[data.to_vec()], 0).is_err(), "a message that is its own keyring");
    drop(bundle::Bundle::parse(data));
    drop(trusted_root::TrustedRoot::parse(data));
    for der in certificate::from_pem(data).unwrap_or_default().iter().map(AsRef::as_ref).chain([data]) {
        if let Ok(certificate) = certificate::Certificate::parse(der) {
            drop((certificate.key(), certificate.names(), certificate.issuer()));
            drop(certificate.tbs_without(&[0x55, 0x1d, 0x13]));
        }
    }
    if let Ok(text) = std::str::from_utf8(data) {
        drop(rekor::Entry::from_annotation(text));
    }
}

#[cfg(test)]
pub(crate) use testing::seeds as testing_seeds;

/// A result whose error is the reason why a signature or a policy does not count, for a person to read.
type Checked<T> = std::result::Result<T, String>;
