//! `image verify`: which signatures an image has, and whether they hold.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use dhow_engine::Error;
use dhow_engine::images::registry::Remote;
use dhow_engine::images::trust::{
    Accepted, Demand, Examined, Material, Origin, Policy, Subject, Wanted, check, collect, examine, now,
    show_time,
};
use dhow_engine::images::{Descriptor, Reference, Store};
use serde_json::{Value, json};

use crate::args::Global;
use crate::context;
use crate::error::hinted;
use crate::registries;
use crate::table;
use crate::trust;
use crate::trust::TrustArgs;
use crate::ui::Ui;

/// Show the signatures of an image, and whether they fulfil the policy or what is asked for here.
///
/// Signatures are fetched from the registry; nothing of the image itself is. The exit code is 0 if the image may be used,
/// else 1.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Demand a sigstore signature by one of the public keys in a PEM file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["certificate_identity", "keyring"])]
    key: Option<PathBuf>,
    /// With --key: demand that this transparency log has the signature (its public key, PEM)
    #[arg(long, value_name = "FILE", requires = "key")]
    rekor_key: Option<PathBuf>,
    /// Demand a sigstore signature by whoever has this mail address or URI in the certificate
    #[arg(long, value_name = "IDENTITY", requires_all = ["certificate_oidc_issuer", "trusted_root"])]
    certificate_identity: Option<String>,
    /// Who must have vouched for that identity
    #[arg(long, value_name = "URL", requires = "certificate_identity")]
    certificate_oidc_issuer: Option<String>,
    /// Authorities and logs of a sigstore instance (`trusted_root.json`)
    #[arg(long, value_name = "FILE")]
    trusted_root: Option<PathBuf>,
    /// Demand a simple signature by a key of this OpenPGP keyring
    #[arg(long, value_name = "FILE", conflicts_with = "certificate_identity")]
    keyring: Option<PathBuf>,
    #[command(flatten)]
    trust: TrustArgs,
    /// Ask nobody: check again what the store keeps about the image
    #[arg(long)]
    offline: bool,
    /// `table`, `json`, or a Go template such as `{{.Signer}}: {{.Valid}}`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// NAME[:TAG|@DIGEST]
    image: String,
}

/// An image and the signatures that were found for it.
struct Found {
    origin: Origin,
    target: Descriptor,
    manifest: Vec<u8>,
    material: Vec<Material>,
}

pub(crate) fn run(ui: &Ui, global: &Global, args: &VerifyArgs) -> Result<u8> {
    let engine = args.trust.apply(context::engine(global)?)?;
    let demand = demand(args);
    let (policy, wanted) = match (demand, engine.policy()) {
        (Some(demand), _) => {
            let wanted = demand.wants();
            (Some(demand.into_policy()), wanted)
        }
        (None, Some(file)) => {
            (Some(Policy::read(file).map_err(Error::from)?), Wanted { sigstore: true, simple: true })
        }
        (None, None) => (None, Wanted { sigstore: true, simple: true }),
    };
    let found = if args.offline {
        kept(engine.store(), &args.image)?
    } else {
        let name = Reference::parse(&args.image).map_err(Error::from)?;
        fetched(&name, wanted)?
    };
    let subject = Subject { origin: &found.origin, digest: &found.target.digest, manifest: &found.manifest };
    let now = now();
    let examined = match &policy {
        Some(policy) => examine(policy, &subject, &found.material, now).map_err(Error::from)?,
        None => found.material.iter().map(unchecked).collect(),
    };
    let rows: Vec<Value> = examined.iter().map(row).collect();
    let columns = [
        ("Kind", "KIND"),
        ("Signer", "SIGNER"),
        ("Identity", "IDENTITY"),
        ("Signed", "SIGNED"),
        ("Result", "RESULT"),
    ];
    ui.print(&table::render_format(args.format.as_deref(), &columns, &rows)?);
    let Some(policy) = policy else {
        return Err(hinted(
            format!("{}: nothing says whose signature is wanted", found.origin),
            "name a key with --key, an identity with --certificate-identity, or a policy with --signature-policy",
        ));
    };
    check(&policy, &subject, &found.material, now).map_err(Error::from)?;
    Ok(0)
}

fn demand(args: &VerifyArgs) -> Option<Demand> {
    if let Some(key) = &args.key {
        return Some(Demand::Key { key: key.clone(), log: args.rekor_key.clone() });
    }
    if let Some(keyring) = &args.keyring {
        return Some(Demand::Keyring(keyring.clone()));
    }
    match (&args.certificate_identity, &args.certificate_oidc_issuer, &args.trusted_root) {
        (Some(identity), Some(issuer), Some(root)) => {
            Some(Demand::Keyless { identity: identity.clone(), issuer: issuer.clone(), root: root.clone() })
        }
        _ => None,
    }
}

/// What a registry has now.
fn fetched(name: &Reference, wanted: Wanted) -> Result<Found> {
    let access = registries::access(name)?;
    let remote = Remote::new(name, &access);
    let reference = name.digest().map_or_else(
        || name.tag().unwrap_or(dhow_engine::images::DEFAULT_TAG).to_owned(),
        ToString::to_string,
    );
    let (target, manifest) = remote.manifest(&reference).map_err(Error::from)?;
    let lookaside = trust::lookaside()?;
    let material = collect(&remote, name, &target.digest, wanted, &lookaside).map_err(Error::from)?;
    Ok(Found { origin: Origin::registry(name), target, manifest, material })
}

/// What the store keeps, from wherever the image came first.
fn kept(store: &Store, image: &str) -> Result<Found> {
    let target = store.find(image).map_err(Error::from)?;
    let manifest = store.read_blob(&target).map_err(Error::from)?;
    let all = store.trust_material(&target.digest).map_err(Error::from)?;
    let (origin, material) = match all.into_iter().next() {
        Some(first) => first,
        None => (
            Reference::parse(image).map_or_else(|_| Origin::local(), |name| Origin::registry(&name)),
            Vec::new(),
        ),
    };
    Ok(Found { origin, target, manifest, material })
}

fn unchecked(material: &Material) -> Examined {
    Examined {
        kind: material.kind(),
        found: material.found().to_owned(),
        result: Err("not checked".to_owned()),
    }
}

fn row(examined: &Examined) -> Value {
    let (accepted, result) = match &examined.result {
        Ok(accepted) => (accepted.clone(), "valid".to_owned()),
        Err(reason) => (Accepted::default(), reason.clone()),
    };
    json!({
        "Kind": examined.kind,
        "Found": examined.found,
        "Valid": examined.result.is_ok(),
        "Signer": accepted.signer,
        "Issuer": accepted.issuer.unwrap_or_default(),
        "Identity": accepted.identity.unwrap_or_default(),
        "Signed": accepted.time.map(show_time).unwrap_or_default(),
        "Expires": accepted.expires.map(show_time).unwrap_or_default(),
        "Result": result,
    })
}
