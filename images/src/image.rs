//! From a descriptor to something that can be run: choosing a variant, and what the variant consists of.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

use crate::Descriptor;
use crate::Digest;
use crate::Error;
use crate::ImageConfig;
use crate::Index;
use crate::Manifest;
use crate::Matcher;
use crate::Platform;
use crate::Store;
use crate::descriptor::MAX_INDEX;
use crate::error::Result;
use crate::media;

/// How deep indexes may be nested. Two occur in practice.
const MAX_DEPTH: usize = 8;

/// One variant of an image, complete: its configuration is read, its layers are known.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Image {
    /// The variant's manifest.
    pub manifest: Descriptor,
    /// What it runs on.
    pub platform: Platform,
    /// The configuration. A Wasm artifact has none of its own; this is then the default one.
    pub config: ImageConfig,
    /// The configuration's blob.
    pub config_descriptor: Descriptor,
    /// File system layers, lowest first. None for a Wasm artifact.
    pub layers: Vec<Descriptor>,
    /// Digests of the uncompressed layers, one for each of `layers`.
    pub diff_ids: Vec<Digest>,
    /// The modules or components of a Wasm artifact, blobs of the store, see [`Store::blob_path`]: the program first,
    /// then components that it is to be linked with.
    pub wasm: Vec<Descriptor>,
    /// The manifest's annotations.
    pub annotations: BTreeMap<String, String>,
}

/// One entry of an index, or the only variant of an image without index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// What it runs on.
    pub platform: Platform,
    /// Its manifest.
    pub manifest: Descriptor,
    /// Whether its content is in the store.
    pub present: bool,
}

/// The part of a CNCF Wasm configuration that is used.
#[derive(Debug, Default, Deserialize)]
struct WasmConfig {
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    author: Option<String>,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

impl Store {
    /// The variants of an image, in the order of its index. Attestations are left out.
    ///
    /// # Errors
    /// When an index is missing, damaged or nested too deeply.
    pub fn variants(&self, image: &Descriptor) -> Result<Vec<Variant>> {
        let mut variants = Vec::new();
        walk(image, &mut |index| self.read_blob(index).map(Some), &mut |entry| {
            let present = self.has_blob(&entry.digest);
            let platform = match &entry.platform {
                Some(platform) => platform.normalised(),
                None if present => match self.read_image(entry) {
                    Ok(image) => image.platform,
                    // An artifact runs on nothing.
                    Err(Error::InvalidManifest { .. } | Error::MissingBlob { .. }) => return Ok(()),
                    Err(e) => return Err(e),
                },
                None => return Ok(()),
            };
            variants.push(Variant { platform, manifest: entry.clone(), present });
            Ok(())
        })?;
        Ok(variants)
    }

    /// The best variant for `matcher` among those in the store.
    ///
    /// # Errors
    /// [`Error::NoVariant`] when none fits, [`Error::VariantAbsent`] when those that fit were never fetched.
    pub fn image(&self, image: &Descriptor, matcher: &Matcher) -> Result<Image> {
        if !media::is_index(&image.media_type) {
            let image = self.read_image(image)?;
            if !matcher.matches(&image.platform) {
                return Err(Error::NoVariant {
                    wanted: matcher.to_string(),
                    available: vec![image.platform],
                });
            }
            return Ok(image);
        }
        let variants = self.variants(image)?;
        let fitting = |variant: &&Variant| matcher.matches(&variant.platform);
        // `min_by_key` takes the first of equals, so the order of the index decides.
        let best = variants.iter().filter(fitting).min_by_key(|v| (!v.present, matcher.rank(&v.platform)));
        match best {
            Some(variant) if variant.present => {
                let mut image = self.read_image(&variant.manifest)?;
                // The index is what the variant was chosen by; a vague configuration must not contradict it.
                image.platform = variant.platform.clone();
                Ok(image)
            }
            Some(variant) => Err(Error::VariantAbsent {
                platform: variant.platform.clone(),
                manifest: Box::new(variant.manifest.clone()),
            }),
            None => {
                let mut available: Vec<Platform> = variants.into_iter().map(|v| v.platform).collect();
                available.dedup();
                Err(Error::NoVariant { wanted: matcher.to_string(), available })
            }
        }
    }

    /// Reads a manifest and its configuration.
    pub(crate) fn read_image(&self, descriptor: &Descriptor) -> Result<Image> {
        let manifest = Manifest::parse(&descriptor.digest, &self.read_blob(descriptor)?)?;
        let config = self.read_blob(&manifest.config)?;
        assemble(descriptor, manifest, &config)
    }
}

/// Visits every manifest below a descriptor, indexes expanded, attestations and unknown kinds left out. `read`
/// gives the bytes of an index, or `None` to leave it out.
pub(crate) fn walk(
    top: &Descriptor,
    read: &mut dyn FnMut(&Descriptor) -> Result<Option<Vec<u8>>>,
    visit: &mut dyn FnMut(&Descriptor) -> Result<()>,
) -> Result<()> {
    walk_all(top, false, read, visit)
}

/// As [`walk`], attestations too if wanted.
pub(crate) fn walk_all(
    top: &Descriptor,
    attestations: bool,
    read: &mut dyn FnMut(&Descriptor) -> Result<Option<Vec<u8>>>,
    visit: &mut dyn FnMut(&Descriptor) -> Result<()>,
) -> Result<()> {
    let mut left = MAX_INDEX;
    walk_level(top, attestations, read, visit, 0, &mut left)
}

/// Whether a manifest's layers can be those of an image: file systems or a Wasm module, and nothing else beside a
/// file system. Anything else is an artifact, to be kept and not to be run.
pub(crate) fn may_run(manifest: &Manifest) -> bool {
    let mut layers = manifest.layers.iter();
    if layers.clone().any(|layer| media::is_wasm(&layer.media_type))
        || media::is_wasm_config(&manifest.config.media_type)
    {
        return true;
    }
    layers.all(|layer| media::layer_compression(&layer.media_type).is_some())
}

/// Whether this is the configuration of an image that runs; if not, the manifest may be an artifact.
pub(crate) fn is_image_config(media_type: &str) -> bool {
    media_type == media::CONFIG
        || media_type == "application/vnd.docker.container.image.v1+json"
        || media::is_wasm_config(media_type)
}

fn walk_level(
    descriptor: &Descriptor,
    attestations: bool,
    read: &mut dyn FnMut(&Descriptor) -> Result<Option<Vec<u8>>>,
    visit: &mut dyn FnMut(&Descriptor) -> Result<()>,
    depth: usize,
    left: &mut usize,
) -> Result<()> {
    if depth > 0 && !attestations && descriptor.is_attestation() {
        return Ok(());
    }
    if media::is_manifest(&descriptor.media_type) {
        return visit(descriptor);
    }
    if !media::is_index(&descriptor.media_type) {
        return if depth > 0 {
            Ok(())
        } else {
            Err(Error::manifest(
                &descriptor.digest,
                format!("unexpected media type {}", descriptor.media_type),
            ))
        };
    }
    if depth == MAX_DEPTH {
        return Err(Error::manifest(
            &descriptor.digest,
            format!("indexes are nested more than {MAX_DEPTH} deep"),
        ));
    }
    let Some(bytes) = read(descriptor)? else { return Ok(()) };
    for entry in Index::parse(&descriptor.digest, &bytes)?.manifests {
        // A tree of indexes must not multiply the work either.
        *left = left.checked_sub(1).ok_or_else(|| {
            Error::manifest(&descriptor.digest, format!("has more than {MAX_INDEX} entries in all"))
        })?;
        walk_level(&entry, attestations, read, visit, depth + 1, left)?;
    }
    Ok(())
}

/// What kind of blob each one of a manifest is; checks that they make an image.
pub(crate) fn assemble(descriptor: &Descriptor, manifest: Manifest, config: &[u8]) -> Result<Image> {
    let what = &descriptor.digest;
    let mut wasm = Vec::new();
    let mut layers = Vec::new();
    let mut is_tar = Vec::with_capacity(manifest.layers.len());
    for layer in manifest.layers {
        is_tar.push(media::layer_compression(&layer.media_type).is_some());
        if media::is_wasm(&layer.media_type) {
            wasm.push(layer);
        } else if media::layer_compression(&layer.media_type).is_some() {
            layers.push(layer);
        } else if media::is_foreign_layer(&layer.media_type) {
            return Err(Error::manifest(
                what,
                format!("layer {} is kept elsewhere; not supported", layer.digest),
            ));
        } else if wasm.is_empty() && !media::is_wasm_config(&manifest.config.media_type) {
            return Err(Error::manifest(what, format!("layer of unknown media type {}", layer.media_type)));
        }
    }
    let (platform, config, diff_ids) =
        if media::is_wasm_config(&manifest.config.media_type) || is_bare(config) {
            if wasm.is_empty() {
                return Err(Error::manifest(what, "is an artifact without a Wasm layer, not an image"));
            }
            if !layers.is_empty() {
                return Err(Error::manifest(what, "is a Wasm artifact and has file system layers"));
            }
            let found: WasmConfig = serde_json::from_slice(config)
                .map_err(|e| Error::manifest(what, format!("not a valid Wasm configuration: {e}")))?;
            let platform = match (found.os.as_str(), found.architecture.as_str()) {
                ("", _) => Platform::wasm(),
                (os, "") => Platform::new(os, "wasm", None),
                (os, architecture) => Platform::new(os, architecture, None),
            };
            let config = ImageConfig {
                created: found.created,
                author: found.author,
                os: platform.os.clone(),
                architecture: platform.architecture.clone(),
                ..ImageConfig::default()
            };
            (platform, config, Vec::new())
        } else {
            let config = ImageConfig::parse(&manifest.config.digest, config)?;
            let mut diff_ids = config.rootfs.diff_ids.clone();
            // Some writers list the Wasm layer among the diff ids, some do not.
            if diff_ids.len() == is_tar.len() {
                let mut tar = is_tar.iter();
                diff_ids.retain(|_| tar.next().copied().unwrap_or(false));
            }
            if diff_ids.len() != layers.len() {
                let reason = format!("has {} layers and {} diff ids", layers.len(), diff_ids.len());
                return Err(Error::manifest(what, reason));
            }
            (config.platform(), config, diff_ids)
        };
    Ok(Image {
        manifest: descriptor.clone(),
        platform: descriptor.platform.as_ref().map_or(platform, Platform::normalised),
        config,
        config_descriptor: manifest.config,
        layers,
        diff_ids,
        wasm,
        annotations: manifest.annotations,
    })
}

/// OCI's empty configuration, which artifacts carry that need none.
fn is_bare(config: &[u8]) -> bool {
    config.trim_ascii() == b"{}"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose;
    use crate::compose::json;
    use crate::store::session::Session;
    use crate::store::tests::store;

    fn put(store: &Store, media_type: &str, document: &serde_json::Value) -> Descriptor {
        Session::new(store).unwrap().put(media_type, &json(document).unwrap()).unwrap()
    }

    fn entry(blob: &Descriptor) -> serde_json::Value {
        serde_json::to_value(blob).unwrap()
    }

    #[test]
    fn indexes_are_followed_to_a_bounded_depth() {
        let (_dir, store) = store();
        let mut top = compose::wasm_artifact(&store, "wasip1", b"x").unwrap();
        for depth in 1..=MAX_DEPTH + 2 {
            top = compose::index(&store, std::slice::from_ref(&top)).unwrap();
            let found = store.image(&top, &Matcher::host());
            assert_eq!(found.is_ok(), depth <= MAX_DEPTH, "{depth}: {found:?}");
        }
    }

    #[test]
    fn a_tree_of_indexes_does_not_multiply_the_work() {
        let (_dir, store) = store();
        let mut top = compose::wasm_artifact(&store, "wasip1", b"x").unwrap();
        for _ in 0..4 {
            top = compose::index(&store, &vec![top.clone(); 100]).unwrap();
        }
        let error = store.variants(&top).unwrap_err().to_string();
        assert!(error.contains("entries in all"), "{error}");
    }

    #[test]
    fn attestations_and_foreign_entries_are_no_variants() {
        let (_dir, store) = store();
        let wasm = compose::wasm_artifact(&store, "wasip2", b"x").unwrap();
        let mut attestation = wasm.clone();
        attestation.platform = Some(Platform::new("unknown", "unknown", None));
        let other = Descriptor::new("text/plain", Digest::of(b"?"), 1);
        let index = compose::index(&store, &[attestation, other, wasm.clone()]).unwrap();
        let variants = store.variants(&index).unwrap();
        assert_eq!(variants.len(), 1);
        assert_eq!(variants[0].platform.to_string(), "wasip2/wasm");
    }

    #[test]
    fn artifacts_of_all_generations_and_broken_ones() {
        let (_dir, store) = store();
        let blob = |media_type: &str, text: &str| {
            Session::new(&store).unwrap().put(media_type, text.as_bytes()).unwrap()
        };
        let old = "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm";
        let (wasm, component) = (blob(media::WASM, "a"), blob(old, "b"));
        let tar = blob(media::LAYER, "c");
        let cncf = blob(media::WASM_CONFIG, r#"{"os":"wasip2","architecture":"wasm","layerDigests":[]}"#);
        let empty = blob("application/vnd.oci.empty.v1+json", "{}");
        let diff_id = Digest::of(b"c");
        let oci = blob(
            media::CONFIG,
            &format!(
                r#"{{"os":"wasip1","architecture":"wasm","config":{{"Entrypoint":["/x"],"Cmd":null}},
                "rootfs":{{"type":"layers","diff_ids":["{diff_id}","{}"]}}}}"#,
                Digest::of(b"b")
            ),
        );
        let image = |config: &Descriptor, layers: &[&Descriptor]| {
            let manifest = serde_json::json!({
                "schemaVersion": 2,
                "config": entry(config),
                "layers": layers.iter().map(|l| entry(l)).collect::<Vec<_>>(),
            });
            store.image(&put(&store, media::MANIFEST, &manifest), &Matcher::host())
        };
        let good = |config, layers: &[&Descriptor], platform: &str, tars: usize| {
            let image = image(config, layers).unwrap();
            assert_eq!((image.platform.to_string().as_str(), image.layers.len()), (platform, tars));
            assert_eq!(image.diff_ids.len(), tars);
            assert!(!image.wasm.is_empty());
            image
        };
        good(&cncf, &[&wasm], "wasip2/wasm", 0);
        good(&cncf, &[&component], "wasip2/wasm", 0);
        good(&empty, &[&wasm], "wasi/wasm", 0);
        assert_eq!(good(&oci, &[&tar, &component], "wasip1/wasm", 1).config.config.entrypoint, ["/x"]);
        let bad = |config, layers: &[&Descriptor], expected: &str| {
            let error = image(config, layers).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        };
        good(&cncf, &[&wasm, &component], "wasip2/wasm", 0);
        bad(&cncf, &[], "without a Wasm layer");
        bad(&cncf, &[&wasm, &tar], "has file system layers");
        bad(&oci, &[&tar], "1 layers and 2 diff ids");
        bad(&oci, &[&blob("text/plain", "d")], "unknown media type");
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        bad(&oci, &[&blob(foreign, "d")], "kept elsewhere");
    }
}
