//! Other compression for what is pushed: layers are packed anew, and the manifests that lead to them are rewritten. The
//! files and the configuration, and with them the image's identity when it runs, stay as they are.

use std::io;
use std::io::BufReader;

use serde_json::Value;

use crate::Descriptor;
use crate::Error;
use crate::HashingReader;
use crate::MAX_MANIFEST;
use crate::Store;
use crate::compose::json;
use crate::error::Result;
use crate::layer::commit::put_layer;
use crate::layer::compression::local_decoder;
use crate::media;
use crate::media::Compression;
use crate::store::session::Session;

/// How deep indexes may be nested.
const MAX_DEPTH: usize = 8;

/// An image of the store with its layers packed as `compression` says, in OCI's media types. What is packed so already
/// keeps its digest. Variants that are not in the store stay as they are. The session keeps the new content.
pub(super) fn repack(
    store: &Store,
    session: &Session,
    top: &Descriptor,
    compression: Compression,
) -> Result<Descriptor> {
    level(store, session, top, compression, 0)
}

fn level(
    store: &Store,
    session: &Session,
    document: &Descriptor,
    compression: Compression,
    depth: usize,
) -> Result<Descriptor> {
    let is_index = media::is_index(&document.media_type);
    if !is_index && !media::is_manifest(&document.media_type) || !store.has_blob_of(document) {
        return Ok(document.clone());
    }
    if depth == MAX_DEPTH {
        return Err(Error::manifest(
            &document.digest,
            format!("indexes are nested more than {MAX_DEPTH} deep"),
        ));
    }
    let invalid = |e| Error::manifest(&document.digest, e);
    let mut value: Value = serde_json::from_slice(&store.read_blob(document)?).map_err(invalid)?;
    let key = if is_index { "manifests" } else { "layers" };
    let mut changed = false;
    for entry in value.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
        let old: Descriptor = serde_json::from_value(entry.clone()).map_err(invalid)?;
        let new = if is_index {
            level(store, session, &old, compression, depth + 1)?
        } else {
            layer(store, session, &old, compression)?
        };
        changed |= new.digest != old.digest;
        entry["mediaType"] = new.media_type.into();
        entry["digest"] = new.digest.to_string().into();
        entry["size"] = new.size.into();
    }
    if !changed {
        return Ok(document.clone());
    }
    let media_type = if is_index { media::INDEX } else { media::MANIFEST };
    value["mediaType"] = media_type.into();
    if !is_index {
        for blob in value["layers"].as_array_mut().into_iter().flatten() {
            let kind = blob["mediaType"].as_str().and_then(media::layer_compression);
            if let Some(compression) = kind {
                blob["mediaType"] = oci(compression).into();
            }
        }
        if value["config"]["mediaType"] == "application/vnd.docker.container.image.v1+json" {
            value["config"]["mediaType"] = media::CONFIG.into();
        }
    }
    let bytes = json(&value)?;
    if bytes.len() as u64 > MAX_MANIFEST {
        return Err(Error::manifest(&document.digest, "is larger than 4 MiB"));
    }
    let new = session.put(media_type, &bytes)?;
    Ok(Descriptor { media_type: new.media_type, digest: new.digest, size: new.size, ..document.clone() })
}

fn layer(store: &Store, session: &Session, old: &Descriptor, compression: Compression) -> Result<Descriptor> {
    let Some(before) = media::layer_compression(&old.media_type).filter(|before| *before != compression)
    else {
        return Ok(old.clone());
    };
    let file = store.open_blob(&old.digest)?;
    let mut packed = HashingReader::new(file, old.digest.algorithm());
    let (new, ()) = put_layer(session, compression, |out| {
        let input = BufReader::with_capacity(256 << 10, &mut packed);
        io::copy(&mut local_decoder(input, before)?, out)?;
        Ok(())
    })?;
    packed.verify(&format!("layer {}", old.digest), &old.digest, Some(old.size))?;
    Ok(new.blob)
}

fn oci(compression: Compression) -> &'static str {
    match compression {
        Compression::None => media::LAYER,
        Compression::Gzip => media::LAYER_GZIP,
        Compression::Zstd => media::LAYER_ZSTD,
    }
}
