//! Artifacts about an image: signatures, bills of materials, attestations. Each one names its subject; the registry
//! lists them, or, where it does not know how, an index under the tag `sha256-<hex>` of the subject does, which
//! whoever pushes an artifact keeps up. Distribution specification 1.1, "Referrers".

use serde::Deserialize;
use serde_json::Value;
use serde_json::json;
use ureq::http::Method;
use ureq::http::StatusCode;

use super::Access;
use super::Scope;
use super::http::Call;
use super::http::Client;
use super::http::Payload;
use super::http::read_limited;
use super::http::refused;
use super::look;
use super::token::query_encode;
use crate::Descriptor;
use crate::Digest;
use crate::Error;
use crate::Index;
use crate::MAX_MANIFEST;
use crate::Reference;
use crate::descriptor::MAX_INDEX;
use crate::descriptor::or_default;
use crate::error::Result;
use crate::media;

/// Most pages of one list.
const MAX_PAGES: usize = 1000;
/// How often the entry is looked for and written again, when others write the same index.
const ATTEMPTS: u32 = 4;

/// The artifacts that are about an image, as descriptors with their artifact type and annotations. With
/// `artifact_type`, only those of that type. Each can be pulled by its digest.
///
/// # Errors
/// The registry's: [`Error::Unreachable`], [`Error::ManifestUnknown`], [`Error::Denied`], [`Error::Registry`], and
/// [`Error::InvalidManifest`] for what is no index.
pub fn referrers(name: &Reference, artifact_type: Option<&str>, access: &Access) -> Result<Vec<Descriptor>> {
    let client = Client::connect(name, access, &Scope::Pull)?;
    let subject = match name.digest() {
        Some(digest) => digest.clone(),
        None => look::manifest(name, access)?.descriptor.digest,
    };
    let mut found = match from_api(&client, &subject, artifact_type)? {
        Some(found) => found,
        None => from_tag(&client, &subject)?.1,
    };
    // A registry need not filter.
    if let Some(wanted) = artifact_type {
        found.retain(|entry| entry.artifact_type.as_deref() == Some(wanted));
    }
    Ok(found)
}

/// Everything that is about `subject`, asked of one registry or mirror.
pub(super) fn of(client: &Client, subject: &Digest) -> Result<Vec<Descriptor>> {
    match from_api(client, subject, None)? {
        Some(found) => Ok(found),
        None => Ok(from_tag(client, subject)?.1),
    }
}

/// `None` when the registry has no such list.
fn from_api(
    client: &Client,
    subject: &Digest,
    artifact_type: Option<&str>,
) -> Result<Option<Vec<Descriptor>>> {
    let filter =
        artifact_type.map(|kind| format!("?artifactType={}", query_encode(kind))).unwrap_or_default();
    let mut url = client.url(&format!("referrers/{subject}{filter}"));
    let mut found: Vec<Descriptor> = Vec::new();
    for _ in 0..MAX_PAGES {
        // Registries of before 1.1 say 404; some say 400 or 405 to a path they have never heard of.
        let also = &[StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST, StatusCode::METHOD_NOT_ALLOWED];
        let response = client.call(&Call { accept: media::INDEX, also, ..Call::get(&url) })?;
        if !response.status().is_success() {
            return Ok(None);
        }
        let kind = response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
        if !kind.starts_with(media::INDEX) {
            return Ok(None);
        }
        let next = client.next_page(&url, &response)?;
        let bytes = read_limited(response, MAX_MANIFEST)
            .ok_or_else(|| refused(&url, "the list of referrers is larger than 4 MiB"))?;
        found.extend(Index::parse(&url, &bytes)?.manifests);
        if found.len() > MAX_INDEX {
            return Err(refused(&url, &format!("there are more than {MAX_INDEX} referrers")));
        }
        match next {
            Some(next) => url = next,
            None => break,
        }
    }
    Ok(Some(found))
}

/// The index behind the fall-back tag, as it is and read. Both are empty when there is none.
fn from_tag(client: &Client, subject: &Digest) -> Result<(Option<Value>, Vec<Descriptor>)> {
    let url = client.manifest_url(&tag_of(subject));
    let call = Call { accept: media::INDEX, also: &[StatusCode::NOT_FOUND], ..Call::get(&url) };
    let response = client.call(&call)?;
    if !response.status().is_success() {
        return Ok((None, Vec::new()));
    }
    let bytes = read_limited(response, MAX_MANIFEST)
        .ok_or_else(|| refused(&url, "the index of referrers is larger than 4 MiB"))?;
    let index = Index::parse(&url, &bytes)?;
    let document = serde_json::from_slice(&bytes).map_err(|e| Error::manifest(&url, e))?;
    Ok((Some(document), index.manifests))
}

/// The tag that stands for the referrers of a subject.
fn tag_of(subject: &Digest) -> String {
    let text = format!("{}-{}", subject.algorithm().name(), subject.hex());
    text.chars().take(128).collect()
}

/// Enters an artifact into the index of its subject's fall-back tag. There is no way to lock it: whoever finds their
/// entry gone, because somebody else wrote at the same time, writes again.
pub(super) fn enter(
    client: &Client,
    subject: &Descriptor,
    artifact: &Descriptor,
    bytes: &[u8],
) -> Result<()> {
    let tag = tag_of(&subject.digest);
    let url = client.manifest_url(&tag);
    for _ in 0..ATTEMPTS {
        let (document, entries) = from_tag(client, &subject.digest)?;
        if entries.iter().any(|entry| entry.digest == artifact.digest) {
            return Ok(());
        }
        // What others wrote into it stays, also what is not known here.
        let mut document = document
            .unwrap_or_else(|| json!({ "schemaVersion": 2, "mediaType": media::INDEX, "manifests": [] }));
        let entry = serde_json::to_value(entry_of(artifact, bytes)).map_err(|e| Error::manifest(&url, e))?;
        match document.get_mut("manifests").and_then(Value::as_array_mut) {
            Some(entries) => entries.push(entry),
            None => document["manifests"] = json!([entry]),
        }
        let text = document.to_string();
        let body = Payload::Bytes(text.as_bytes(), media::INDEX);
        client.call(&Call { body, ..Call::new(Method::PUT, &url) })?;
    }
    match from_tag(client, &subject.digest)?.1.iter().any(|entry| entry.digest == artifact.digest) {
        true => Ok(()),
        false => Err(refused(&url, "the index of referrers does not keep its entries")),
    }
}

/// What a list of referrers says of an artifact.
fn entry_of(artifact: &Descriptor, bytes: &[u8]) -> Descriptor {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct About {
        artifact_type: Option<String>,
        config: Option<Config>,
        #[serde(deserialize_with = "or_default")]
        annotations: std::collections::BTreeMap<String, String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Config {
        media_type: String,
    }
    let about: About = serde_json::from_slice(bytes).unwrap_or_default();
    let mut entry = Descriptor::new(&artifact.media_type, artifact.digest.clone(), artifact.size);
    entry.artifact_type = about.artifact_type.or_else(|| about.config.map(|config| config.media_type));
    entry.annotations = about.annotations;
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_entries() {
        let subject = Digest::of(b"x");
        assert_eq!(tag_of(&subject), format!("sha256-{}", subject.hex()));
        let long: Digest = format!("sha512:{}", "a".repeat(128)).parse().unwrap();
        assert_eq!(tag_of(&long).len(), 128);
        let artifact = Descriptor::new(media::MANIFEST, subject, 1);
        let cases = [
            (
                r#"{"artifactType":"a/b","config":{"mediaType":"c/d"},"annotations":{"k":"v"}}"#,
                Some("a/b"),
                1,
            ),
            (r#"{"config":{"mediaType":"c/d"},"annotations":null}"#, Some("c/d"), 0),
            ("{}", None, 0),
        ];
        for (text, kind, annotations) in cases {
            let entry = entry_of(&artifact, text.as_bytes());
            assert_eq!(
                (entry.artifact_type.as_deref(), entry.annotations.len()),
                (kind, annotations),
                "{text}"
            );
        }
    }
}
