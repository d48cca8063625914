//! The same image in another form: other compression, other media types, or a Wasm file as an image.
//!
//! Configurations and the plain content of layers stay as they are to the byte, so diff ids and what Docker calls the
//! image's id do not change; manifests and indexes are edited, so what they say beside that stays. The same image and
//! options give the same result everywhere.

use std::collections::HashMap;
use std::io;
use std::io::BufReader;
use std::io::Read as _;
use std::sync::Mutex;
use std::sync::PoisonError;

use serde_json::Value;

use crate::BlobKind;
use crate::Descriptor;
use crate::Digest;
use crate::Error;
use crate::Event;
use crate::HashingReader;
use crate::Matcher;
use crate::Platform;
use crate::Progress;
use crate::State;
use crate::Store;
use crate::compose;
use crate::compose::ImageBuilder;
use crate::compose::LayerBuilder;
use crate::compose::json;
use crate::digest::check;
use crate::error::Result;
use crate::layer::commit::put_layer_at;
use crate::layer::compression;
use crate::layer::max_unpacked;
use crate::layer::unpack::in_parallel;
use crate::media;
use crate::media::Compression;
use crate::store::session::Session;
use crate::store::session::unwrap_io;

const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// Whose media types documents and layers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OCI's.
    Oci,
    /// Docker's, version 2 schema 2. It has no zstd layers and no Wasm artifacts.
    Docker,
}

/// What an image is to become. The default changes nothing.
#[derive(Debug, Clone, Default)]
pub struct ConvertOptions {
    /// How layers are packed, and at which level: 1 to 9 for gzip, 1 to 22 for zstd. Layers that are packed so already
    /// stay as they are, unless there is a level.
    pub compression: Option<(Compression, Option<u8>)>,
    /// Whose media types are used.
    pub format: Option<Format>,
    /// Only this variant: its manifest takes the place of the index.
    pub platform: Option<Platform>,
}

/// A layer to be packed anew, and what it became.
struct Job {
    blob: Descriptor,
    diff_id: Digest,
    packed: Mutex<Option<Descriptor>>,
}

/// Makes another form of an image: of all its variants that are in the store. Entries of the index for others, and for
/// attestations, which are about manifests that are no more, are left out. Name the result soon: what has no name can
/// be swept at any time.
///
/// # Errors
/// [`Error::NoVariant`], [`Error::VariantAbsent`], [`Error::InvalidManifest`] for what the wanted form cannot hold, a
/// mismatch of digests, and the disk's.
pub fn convert(
    store: &Store,
    image: &Descriptor,
    options: &ConvertOptions,
    progress: &dyn Progress,
) -> Result<Descriptor> {
    let session = Session::new(store)?;
    session.claim([&image.digest])?;
    let mut variants = Vec::new();
    if let Some(platform) = &options.platform {
        variants.push(store.image(image, &Matcher::only(platform))?.manifest);
    } else {
        variants.extend(store.variants(image)?.into_iter().filter(|v| v.present).map(|v| v.manifest));
    }
    if variants.is_empty() {
        return Err(Error::NoVariant { wanted: "any platform".into(), available: Vec::new() });
    }
    let layers = repack(&session, &variants, options, progress)?;
    let mut converted = Vec::new();
    for variant in &variants {
        converted.push(manifest(&session, variant, options.format, &layers)?);
    }
    if !media::is_index(&image.media_type) || options.platform.is_some() {
        return converted.pop().ok_or(Error::MissingBlob { digest: image.digest.clone() });
    }
    let mut index = parse(image, &store.read_blob(image)?)?;
    let media_type = match options.format {
        Some(Format::Oci) => media::INDEX,
        Some(Format::Docker) => media::DOCKER_LIST,
        None => &image.media_type,
    };
    index["mediaType"] = media_type.into();
    index["manifests"] = serde_json::to_value(&converted).map_err(|e| Error::manifest(&image.digest, e))?;
    session.put(media_type, &json(&index)?)
}

/// Packs every layer that needs it, each once, several at a time. Gives what each blob became.
fn repack(
    session: &Session,
    variants: &[Descriptor],
    options: &ConvertOptions,
    progress: &dyn Progress,
) -> Result<HashMap<Digest, Descriptor>> {
    let Some((wanted, level)) = options.compression else { return Ok(HashMap::new()) };
    let mut jobs: Vec<Job> = Vec::new();
    for variant in variants {
        let image = session.store().read_image(variant)?;
        for (blob, diff_id) in image.layers.into_iter().zip(image.diff_ids) {
            let stays = media::layer_compression(&blob.media_type) == Some(wanted) && level.is_none();
            if !stays && jobs.iter().all(|job| job.blob.digest != blob.digest) {
                jobs.push(Job { blob, diff_id, packed: Mutex::default() });
            }
        }
    }
    in_parallel(&jobs, |job| {
        let packed = pack(session, &job.blob, &job.diff_id, wanted, level, progress)?;
        *job.packed.lock().unwrap_or_else(PoisonError::into_inner) = Some(packed);
        Ok(())
    })?;
    let done = jobs.into_iter().filter_map(|job| {
        Some((job.blob.digest, job.packed.into_inner().unwrap_or_else(PoisonError::into_inner)?))
    });
    Ok(done.collect())
}

fn pack(
    session: &Session,
    blob: &Descriptor,
    diff_id: &Digest,
    wanted: Compression,
    level: Option<u8>,
    progress: &dyn Progress,
) -> Result<Descriptor> {
    let event = |state| progress.event(&Event::Blob { digest: &blob.digest, kind: BlobKind::Layer, state });
    event(State::Waiting { total: blob.size });
    let what = format!("layer {}", blob.digest);
    let packing = crate::layer::unpack::compression_of(blob)?;
    let mut input = HashingReader::new(session.store().open_blob(&blob.digest)?, blob.digest.algorithm());
    let limit = max_unpacked(blob.size);
    let copied = put_layer_at(session, wanted, level, |out| {
        let packed = BufReader::with_capacity(256 << 10, &mut input);
        let mut plain = compression::local_decoder(packed, packing)?.take(limit + 1);
        io::copy(&mut plain, out).map_err(|e| unwrap_io(e, |e| Error::io(&what, e)))
    });
    // A damaged blob explains whatever went wrong with its content.
    if copied.is_err() {
        io::copy(&mut input, &mut io::sink())?;
    }
    let verified = input.verify(&what, &blob.digest, Some(blob.size));
    let (new, size) = match (copied, verified) {
        (Err(e), Ok(_)) => return Err(e),
        (_, Err(e)) => return Err(e),
        (Ok(copied), Ok(_)) => copied,
    };
    if size > limit {
        return Err(Error::manifest(&what, format!("unpacks to more than {limit} bytes")));
    }
    check(&format!("uncompressed {what}"), diff_id, None, new.diff_id.clone(), size)?;
    event(State::Complete);
    Ok(new.blob)
}

fn parse(document: &Descriptor, bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes).map_err(|e| Error::manifest(&document.digest, e))
}

/// Edits one manifest. The result keeps what the index says about the variant.
fn manifest(
    session: &Session,
    variant: &Descriptor,
    format: Option<Format>,
    packed: &HashMap<Digest, Descriptor>,
) -> Result<Descriptor> {
    let bytes = session.store().read_blob(variant)?;
    let typed = crate::Manifest::parse(&variant.digest, &bytes)?;
    let mut manifest = parse(variant, &bytes)?;
    let format = format.unwrap_or(match variant.media_type.as_str() {
        media::DOCKER_MANIFEST => Format::Docker,
        _ => Format::Oci,
    });
    let cannot = |reason: String| Error::manifest(&variant.digest, reason);
    if media::is_wasm_config(&typed.config.media_type) && format == Format::Docker {
        return Err(cannot("is a Wasm artifact, which Docker's format has not".into()));
    }
    for (i, old) in typed.layers.iter().enumerate() {
        let new = packed.get(&old.digest).unwrap_or(old);
        let media_type = match (media::layer_compression(&new.media_type), format) {
            (None, _) => new.media_type.as_str(),
            (Some(Compression::None), Format::Oci) => media::LAYER,
            (Some(Compression::Gzip), Format::Oci) => media::LAYER_GZIP,
            (Some(Compression::Zstd), Format::Oci) => media::LAYER_ZSTD,
            (Some(Compression::None), Format::Docker) => DOCKER_LAYER,
            (Some(Compression::Gzip), Format::Docker) => DOCKER_LAYER_GZIP,
            (Some(Compression::Zstd), Format::Docker) => {
                let reason =
                    format!("layer {} is zstd, which Docker's format has not; pack it as gzip", new.digest);
                return Err(cannot(reason));
            }
        };
        let entry = &mut manifest["layers"][i];
        entry["mediaType"] = media_type.into();
        entry["digest"] = new.digest.to_string().into();
        entry["size"] = new.size.into();
    }
    if matches!(typed.config.media_type.as_str(), media::CONFIG | DOCKER_CONFIG) {
        let media_type = if format == Format::Oci { media::CONFIG } else { DOCKER_CONFIG };
        manifest["config"]["mediaType"] = media_type.into();
    }
    let media_type = if format == Format::Oci { media::MANIFEST } else { media::DOCKER_MANIFEST };
    manifest["mediaType"] = media_type.into();
    let new = session.put(media_type, &json(&manifest)?)?;
    Ok(Descriptor { media_type: new.media_type, digest: new.digest, size: new.size, ..variant.clone() })
}

/// What a Wasm file is, by its first bytes: the platform of an artifact of it.
///
/// # Errors
/// [`Error::InvalidManifest`] for what is neither a module nor a component.
pub fn wasm_platform(what: &str, code: &[u8]) -> Result<Platform> {
    match code {
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Ok(Platform::new("wasip1", "wasm", None)),
        [0, b'a', b's', b'm', _, _, 1, 0, ..] => Ok(Platform::new("wasip2", "wasm", None)),
        _ => Err(Error::manifest(what, "is no Wasm module or component")),
    }
}

/// Makes an image for `wasi/wasm` whose one file is this program, named `name`, and which runs it.
///
/// # Errors
/// [`Error::InvalidManifest`] for what is no program or no name, and the disk's.
pub fn wasm_image(store: &Store, name: &str, code: &[u8], created: Option<&str>) -> Result<Descriptor> {
    wasm_platform(name, code)?;
    if name.is_empty() || name.contains('/') || name.starts_with(".wh.") || matches!(name, "." | "..") {
        return Err(Error::manifest(name, "is not a name that a file of an image can have"));
    }
    let mut layer = LayerBuilder::new();
    layer.file(name, 0o755, code);
    let mut image = ImageBuilder::new(&Platform::wasm());
    image.layer(layer).config().entrypoint = vec![format!("/{name}")];
    if let Some(created) = created {
        image.created(created);
    }
    image.build(store)
}

/// Makes a CNCF Wasm artifact of this program: the program itself is the blob.
///
/// # Errors
/// As [`wasm_image`].
pub fn wasm_artifact(store: &Store, name: &str, code: &[u8]) -> Result<Descriptor> {
    let platform = wasm_platform(name, code)?;
    compose::wasm_artifact(store, &platform.os, code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NoProgress;
    use crate::store::tests::store;

    fn native(store: &Store) -> Descriptor {
        let mut image = ImageBuilder::new(&"linux/amd64".parse().unwrap());
        for content in ["one", "two"] {
            let mut layer = LayerBuilder::new();
            layer.file("f", 0o644, content.repeat(1000));
            image.layer(layer);
        }
        image.build(store).unwrap()
    }

    #[test]
    fn there_and_back_is_the_same_image() {
        let (_dir, store) = store();
        let wasm = wasm_artifact(&store, "w", b"\0asm\x01\0\0\0").unwrap();
        let image = compose::index(&store, &[native(&store), wasm.clone()]).unwrap();
        let to = |from: &Descriptor, compression, level| {
            let options =
                ConvertOptions { compression: Some((compression, level)), ..ConvertOptions::default() };
            convert(&store, from, &options, &NoProgress).unwrap()
        };
        let linux = Matcher::only(&"linux/amd64".parse().unwrap());
        let before = store.image(&image, &linux).unwrap();
        let mut seen = vec![image.digest.clone()];
        let mut current = image.clone();
        for (compression, media_type) in [
            (Compression::Zstd, media::LAYER_ZSTD),
            (Compression::None, media::LAYER),
            (Compression::Gzip, media::LAYER_GZIP),
        ] {
            current = to(&current, compression, None);
            let now = store.image(&current, &linux).unwrap();
            assert!(now.layers.iter().all(|layer| layer.media_type == media_type), "{now:?}");
            assert_eq!(now.diff_ids, before.diff_ids);
            assert_eq!(now.config_descriptor, before.config_descriptor);
            assert_eq!(store.image(&current, &Matcher::host()).unwrap().manifest.digest, wasm.digest);
            seen.push(current.digest.clone());
        }
        assert_eq!(seen[0], seen[3], "the same gzip again");
        assert_ne!(seen[1], seen[2]);
        assert_eq!(to(&image, Compression::Gzip, None).digest, image.digest, "nothing to do");
        let (fast, best) = (to(&image, Compression::Zstd, Some(1)), to(&image, Compression::Zstd, Some(19)));
        assert_ne!(fast.digest, best.digest);
        assert_eq!(fast.digest, to(&image, Compression::Zstd, Some(1)).digest);
        store.tag(&"x".parse().unwrap(), &fast).unwrap();
        assert_eq!(store.check(false).unwrap(), []);
    }

    #[test]
    fn docker_s_media_types_and_back() {
        let (_dir, store) = store();
        let native = native(&store);
        let image = compose::index(&store, std::slice::from_ref(&native)).unwrap();
        let to = |from: &Descriptor, format| {
            let options = ConvertOptions { format: Some(format), ..ConvertOptions::default() };
            convert(&store, from, &options, &NoProgress)
        };
        let docker = to(&image, Format::Docker).unwrap();
        assert_eq!(docker.media_type, media::DOCKER_LIST);
        let variant = store.variants(&docker).unwrap().remove(0);
        assert_eq!(variant.manifest.media_type, media::DOCKER_MANIFEST);
        let read = store.image(&docker, &Matcher::only(&variant.platform)).unwrap();
        assert_eq!(read.layers[0].media_type, DOCKER_LAYER_GZIP);
        assert_eq!(read.config_descriptor.media_type, DOCKER_CONFIG);
        assert_eq!(to(&docker, Format::Oci).unwrap().digest, image.digest);

        let zstd =
            ConvertOptions { compression: Some((Compression::Zstd, None)), ..ConvertOptions::default() };
        let zstd = convert(&store, &native, &zstd, &NoProgress).unwrap();
        let error = to(&zstd, Format::Docker).unwrap_err().to_string();
        assert!(error.contains("is zstd"), "{error}");
        let wasm = wasm_artifact(&store, "w", b"\0asm\x0d\0\x01\0").unwrap();
        assert!(to(&wasm, Format::Docker).is_err());
        let only = |platform: &str| ConvertOptions {
            platform: Some(platform.parse().unwrap()),
            ..ConvertOptions::default()
        };
        assert_eq!(convert(&store, &image, &only("linux/amd64"), &NoProgress).unwrap().digest, native.digest);
        assert!(convert(&store, &image, &only("linux/s390x"), &NoProgress).is_err());
    }

    #[test]
    fn a_wasm_file_becomes_an_image() {
        let (_dir, store) = store();
        let image = wasm_image(&store, "app.wasm", b"\0asm\x01\0\0\0", None).unwrap();
        let image = store.image(&image, &Matcher::host()).unwrap();
        assert_eq!((image.platform.to_string().as_str(), image.layers.len()), ("wasi/wasm", 1));
        assert_eq!(image.config.config.entrypoint, ["/app.wasm"]);
        let component = wasm_artifact(&store, "c", b"\0asm\x0d\0\x01\0").unwrap();
        let component = store.image(&component, &Matcher::host()).unwrap();
        assert_eq!(component.platform.to_string(), "wasip2/wasm");
        for (name, code) in [("x", &b"\x7fELF1234"[..]), ("x", b""), ("x", b"\0asm")] {
            assert!(wasm_image(&store, name, code, None).is_err());
        }
        for name in ["", "a/b", "..", ".wh.x"] {
            assert!(wasm_image(&store, name, b"\0asm\x01\0\0\0", None).is_err(), "{name}");
        }
    }

    #[test]
    fn a_damaged_layer_is_not_converted() {
        let (_dir, store) = store();
        let native = native(&store);
        let layer = store.read_image(&native).unwrap().layers.remove(1);
        let path = store.blob_path(&layer.digest);
        let mut bytes = fs_err::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs_err::write(&path, bytes).unwrap();
        let options =
            ConvertOptions { compression: Some((Compression::Zstd, None)), ..ConvertOptions::default() };
        let error = convert(&store, &native, &options, &NoProgress).unwrap_err();
        assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    }
}
