//! Attestations: in-toto statements about a variant, in a manifest of their own beside it in the index, where BuildKit
//! puts them too. One says how the variant came about (SLSA provenance), one what is in it (SPDX).

use std::collections::{BTreeMap, BTreeSet};

use dhow_images::{Descriptor, Digest, Platform};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Build, Provenance};
use crate::engine::Engine;
use crate::error::Result;

const IN_TOTO: &str = "application/vnd.in-toto+json";
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const SLSA: &str = "https://slsa.dev/provenance/v1";
const SPDX: &str = "https://spdx.dev/Document";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Something that went into a build: its address, and its digest by algorithm.
pub(super) type Material = (String, String, String);

/// What is to be said about a variant.
pub(super) struct About<'a> {
    pub(super) build: &'a Build,
    pub(super) variant: &'a Descriptor,
    pub(super) materials: &'a BTreeSet<Material>,
    pub(super) began: Timestamp,
    pub(super) bill: Option<Value>,
}

/// Writes the attestations of a variant; its descriptor is for the index.
pub(super) fn attest(engine: &Engine, about: &About<'_>) -> Result<Descriptor> {
    let store = engine.store();
    let mut layers = Vec::new();
    let mut diff_ids = Vec::new();
    let provenance = about.build.provenance.map(|how| (SLSA, provenance(about, how)));
    for (kind, predicate) in provenance.into_iter().chain(about.bill.clone().map(|bill| (SPDX, bill))) {
        let statement = json!({
            "_type": STATEMENT,
            "predicateType": kind,
            "subject": [{
                "name": subject(about.variant.platform.as_ref()),
                "digest": { "sha256": about.variant.digest.hex() },
            }],
            "predicate": predicate,
        });
        let bytes = serde_json::to_vec(&statement).map_err(std::io::Error::other)?;
        let mut layer = store.put_blob(IN_TOTO, &bytes)?;
        layer.annotations.insert("in-toto.io/predicate-type".to_owned(), kind.to_owned());
        diff_ids.push(layer.digest.to_string());
        layers.push(layer);
    }
    let config = json!({
        "architecture": "unknown",
        "os": "unknown",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = store.put_blob(CONFIG, &serde_json::to_vec(&config).map_err(std::io::Error::other)?)?;
    let mut manifest = store.new_manifest(config, layers, None, BTreeMap::new())?;
    manifest.platform = Some(Platform::new("unknown", "unknown", None));
    for (name, value) in [
        ("vnd.docker.reference.digest", about.variant.digest.to_string()),
        ("vnd.docker.reference.type", "attestation-manifest".to_owned()),
    ] {
        manifest.annotations.insert(name.to_owned(), value);
    }
    Ok(manifest)
}

fn subject(platform: Option<&Platform>) -> String {
    let platform = platform.map(|platform| platform.to_string().replace('/', "%2F"));
    format!("pkg:oci/image?platform={}", platform.unwrap_or_default())
}

fn provenance(about: &About<'_>, how: Provenance) -> Value {
    let build = about.build;
    let mut request = json!({ "target": build.target, "network": build.network });
    request["platform"] = about.variant.platform.as_ref().map(ToString::to_string).into();
    let labels: BTreeMap<&String, &String> = build.labels.iter().map(|(name, value)| (name, value)).collect();
    request["labels"] = json!(labels);
    // What steps were handed by name; never what it was.
    request["secrets"] = json!(build.secrets.keys().collect::<Vec<_>>());
    request["ssh"] = json!(build.agents.keys().collect::<Vec<_>>());
    if how == Provenance::Max {
        request["args"] = json!(build.build_args);
    } else {
        request["args"] = json!(build.build_args.keys().collect::<Vec<_>>());
    }
    let mut source = json!({ "path": build.origin.name });
    source["digest"] = json!({ "sha256": Digest::of(build.origin.text.as_bytes()).hex() });
    let mut external = json!({ "configSource": source, "request": request });
    if how == Provenance::Max {
        external["dockerfile"] = build.origin.text.clone().into();
    }
    let mut materials: Vec<Value> = Vec::new();
    if let Some(address) = &build.origin.address {
        let mut context = json!({ "uri": address });
        if let Some(commit) = &build.origin.commit {
            context["digest"] = json!({ "gitCommit": commit });
        }
        external["context"] = context.clone();
        materials.push(context);
    }
    materials.extend(about.materials.iter().map(|(uri, algorithm, digest)| {
        json!({ "uri": uri, "digest": BTreeMap::from([(algorithm.as_str(), digest.as_str())]) })
    }));
    let mut metadata = json!({});
    if build.epoch.is_none() {
        metadata["startedOn"] = about.began.to_string().into();
        metadata["finishedOn"] = Timestamp::now().to_string().into();
    }
    json!({
        "buildDefinition": {
            "buildType": "urn:dhow:build:dockerfile:v1",
            "externalParameters": external,
            "internalParameters": { "builderPlatform": Platform::host().to_string() },
            "resolvedDependencies": materials,
        },
        "runDetails": {
            "builder": { "id": "", "version": { "dhow": env!("CARGO_PKG_VERSION") } },
            "metadata": metadata,
        },
    })
}
