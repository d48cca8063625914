//! Indexed images: the merged tree of an image's layers, and whether it can be trusted.
//!
//! ```text
//! layers/<diff id>/tar         the plain archive
//! layers/<diff id>/tar.json    its length, and when it was written
//! trees/<chain id>/index       the EROFS image over the archives of the image's layers
//! trees/<chain id>/tree.json   the layers, the index' digest, and when it was written
//! ```
//!
//! Nothing of this is synced when it is written: all of it can be made again from the blobs, which are. What was
//! written in an earlier run of the system may be torn, so it is hashed once before it is used, and marked as lasting
//! then. Within one run the page cache is the truth.

use std::io;
use std::io::BufWriter;
use std::io::Read as _;
use std::path::PathBuf;

use fs_err as fs;
use serde::Deserialize;
use serde::Serialize;

use super::IndexedImage;
use super::Store;
use super::digest_name;
use super::make_dir;
use super::names_in;
use super::remove;
use super::replace_file;
use super::session::Session;
use super::sync_dir;
use super::write_file;
use crate::Algorithm;
use crate::Digest;
use crate::Error;
use crate::Hasher;
use crate::HashingWriter;
use crate::erofs;
use crate::erofs::Device;
use crate::error::Result;
use crate::layer::Fault;
use crate::layer::plain::TAR;
use crate::layer::plain::TAR_RECORD;
use crate::layer::plain::TarRecord;
use crate::layer::plain::boot_id;

const INDEX: &str = "index";
const RECORD: &str = "tree.json";
/// Records are small.
const MAX_RECORD: u64 = 64 << 10;

/// `tree.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TreeRecord {
    /// The layers, lowest first.
    pub(super) layers: Vec<Digest>,
    /// The digest of the index.
    pub(super) index: Digest,
    /// As [`TarRecord::boot`], for the index and all its tars.
    #[serde(default)]
    boot: Option<String>,
}

/// How building an index ended.
#[derive(Debug)]
pub(crate) enum Built {
    /// It is there now.
    Tree,
    /// These layers must be written again first: their tars are missing or damaged.
    Missing(Vec<Digest>),
    /// These layers hold what only directories can.
    Unfit(Vec<Digest>),
}

impl Store {
    /// Where everything of an indexed image is, or would be.
    pub(crate) fn indexed_image(&self, diff_ids: &[Digest]) -> Option<IndexedImage> {
        let chain_id = erofs::chain_id(diff_ids)?;
        let index = self.tree_dir(&chain_id).join(INDEX);
        let tars = diff_ids.iter().map(|diff_id| self.layer_dir(diff_id).join(TAR)).collect();
        Some(IndexedImage { chain_id, index, tars })
    }

    pub(super) fn tree_dir(&self, chain_id: &Digest) -> PathBuf {
        self.root.join("trees").join(digest_name(chain_id))
    }

    /// Whether the index of an image is there and can be trusted.
    pub(crate) fn has_tree(&self, image: &IndexedImage) -> Result<bool> {
        let Some(record) = self.tree_record(&image.chain_id) else { return Ok(false) };
        if is_lasting(record.boot.as_deref()) {
            return Ok(true);
        }
        for diff_id in &record.layers {
            if self.usable_tar(diff_id)?.is_none() {
                return Ok(false);
            }
        }
        if hash(&image.index, record.index.algorithm(), u64::MAX)? != record.index {
            return Ok(false);
        }
        fs::File::open(&image.index)?.sync_data()?;
        let dir = self.tree_dir(&image.chain_id);
        sync_dir(&dir)?;
        write_record(&dir.join(RECORD), &TreeRecord { boot: None, ..record })?;
        Ok(true)
    }

    pub(super) fn tree_record(&self, chain_id: &Digest) -> Option<TreeRecord> {
        read_record(&self.tree_dir(chain_id).join(RECORD))
    }

    /// The length of a layer's tar, if there is one whose content is right. What may have been torn is hashed.
    pub(crate) fn usable_tar(&self, diff_id: &Digest) -> Result<Option<u64>> {
        let dir = self.layer_dir(diff_id);
        let (path, record_path) = (dir.join(TAR), dir.join(TAR_RECORD));
        let Some(record) = read_record::<TarRecord>(&record_path) else { return Ok(None) };
        if !std::fs::symlink_metadata(&path).is_ok_and(|m| m.is_file() && m.len() == record.file_size()) {
            return Ok(None);
        }
        if is_lasting(record.boot.as_deref()) {
            return Ok(Some(record.size));
        }
        if hash(&path, diff_id.algorithm(), record.size)? != *diff_id {
            return Ok(None);
        }
        fs::File::open(&path)?.sync_data()?;
        sync_dir(&dir)?;
        write_record(&record_path, &TarRecord { boot: None, ..record })?;
        Ok(Some(record.size))
    }

    /// Opens a layer's tar for reading, with the bytes that are the archive.
    pub(crate) fn open_tar(&self, diff_id: &Digest) -> Option<(fs::File, u64)> {
        let dir = self.layer_dir(diff_id);
        let record = read_record::<TarRecord>(&dir.join(TAR_RECORD))?;
        Some((fs::File::open(dir.join(TAR)).ok()?, record.size))
    }

    /// Removes a layer's tar. The store's lock is held, or the tar is of no use to anybody.
    pub(crate) fn remove_tar(&self, diff_id: &Digest) -> Result<()> {
        for name in [TAR, TAR_RECORD] {
            remove::tree(&self.layer_dir(diff_id).join(name))?;
        }
        Ok(())
    }

    /// Every well-named tree, by chain id.
    pub(super) fn trees(&self) -> Result<Vec<(Digest, PathBuf)>> {
        let dir = self.root.join("trees");
        let names = names_in(&dir)?.into_iter();
        Ok(names
            .filter_map(|name| Some((super::gc::layer_digest(&name.to_string_lossy())?, dir.join(name))))
            .collect())
    }

    /// What is wrong with a tree, if anything. Layers are looked at by themselves.
    pub(super) fn tree_damage(&self, chain_id: &Digest) -> Result<Option<String>> {
        let Some(record) = self.tree_record(chain_id) else {
            return Ok(Some("index of an image is not complete".into()));
        };
        if erofs::chain_id(&record.layers).as_ref() != Some(chain_id) {
            return Ok(Some("index of an image is not of the layers that it names".into()));
        }
        for diff_id in &record.layers {
            if !self.layer_dir(diff_id).join(TAR).exists() {
                return Ok(Some(format!("index of an image without its layer {diff_id}")));
            }
        }
        let index = self.tree_dir(chain_id).join(INDEX);
        Ok(match hash(&index, record.index.algorithm(), u64::MAX) {
            Ok(found) if found == record.index => None,
            Ok(found) => Some(format!("index has digest {found}, not {}", record.index)),
            Err(e) => Some(e.to_string()),
        })
    }

    /// What is wrong with a layer's tar, if anything.
    pub(super) fn tar_damage(&self, diff_id: &Digest) -> Result<Option<String>> {
        let dir = self.layer_dir(diff_id);
        let Some(record) = read_record::<TarRecord>(&dir.join(TAR_RECORD)) else {
            return Ok(Some("uncompressed layer has no valid record".into()));
        };
        let size = std::fs::symlink_metadata(dir.join(TAR)).map_or(0, |m| m.len());
        if size != record.file_size() {
            return Ok(Some(format!("uncompressed layer has {size} bytes, not {}", record.file_size())));
        }
        let found = hash(&dir.join(TAR), diff_id.algorithm(), record.size)?;
        Ok((found != *diff_id).then(|| format!("uncompressed layer has digest {found}, not {diff_id}")))
    }
}

/// Makes the index of an image whose layers are there as tars.
pub(crate) fn build(session: &Session, diff_ids: &[Digest]) -> Result<Built> {
    let store = session.store();
    let Some(image) = store.indexed_image(diff_ids) else { return Ok(Built::Unfit(Vec::new())) };
    session.claim([&image.chain_id])?;
    if store.has_tree(&image)? {
        return Ok(Built::Tree);
    }
    // Who waited for the same layers to be fetched would now make the same index: one does.
    let _right = store.wait_for_right(&format!("index {}", image.chain_id))?;
    if store.has_tree(&image)? {
        return Ok(Built::Tree);
    }
    let (mut missing, mut unfit, mut devices) = (Vec::new(), Vec::new(), Vec::new());
    for (diff_id, path) in diff_ids.iter().zip(&image.tars) {
        let Some(size) = store.usable_tar(diff_id)? else {
            missing.push(diff_id.clone());
            continue;
        };
        let scan = match session.take_scan(diff_id) {
            Some(scan) => scan,
            None => {
                let file = fs::File::open(path)?;
                erofs::scan(&mut erofs::HeaderReader::new(file.file(), size))
                    .map_err(|fault| failed(diff_id, fault))?
            }
        };
        if scan.unfit().is_some() {
            unfit.push(diff_id.clone());
        }
        devices.push(Device { diff_id: diff_id.clone(), size, scan });
    }
    if !missing.is_empty() {
        return Ok(Built::Missing(missing));
    }
    if !unfit.is_empty() {
        return Ok(Built::Unfit(unfit));
    }
    let dir = session.path();
    make_dir(&dir)?;
    let file = super::private().write(true).create_new(true).open(dir.join(INDEX))?;
    let mut writer = HashingWriter::new(BufWriter::with_capacity(64 << 10, file), Algorithm::Sha256);
    erofs::index(&image.chain_id, devices, &mut writer).map_err(|fault| failed(&image.chain_id, fault))?;
    let (_, index, _) = writer.finish();
    let record = TreeRecord { layers: diff_ids.to_vec(), index, boot: boot_id() };
    write_file(&dir.join(RECORD), &to_json(&record)?)?;
    if record.boot.is_none() {
        // Nobody could tell later when this was written.
        fs::File::open(dir.join(INDEX))?.sync_data()?;
    }
    let target = store.tree_dir(&image.chain_id);
    match make_dir(&store.root.join("trees")) {
        Err(_) if store.root.join("trees").is_dir() => {}
        made => made?,
    }
    // One that cannot be trusted makes room.
    match fs::rename(&target, session.path()) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
        _ => {}
    }
    match fs::rename(&dir, &target) {
        // Somebody else was faster.
        Err(_) if store.has_tree(&image)? => remove::tree(&dir)?,
        renamed => renamed?,
    }
    Ok(Built::Tree)
}

fn failed(layer: &Digest, fault: Fault) -> Error {
    match fault {
        Fault::Bad { entry, reason } => Error::InvalidLayer { layer: layer.clone(), entry, reason },
        Fault::Io(e) => Error::io(format_args!("layer {layer}"), e),
    }
}

/// Whether what was written then is certainly there now.
fn is_lasting(boot: Option<&str>) -> bool {
    boot.is_none_or(|boot| boot_id().is_some_and(|now| now == boot))
}

fn hash(path: &std::path::Path, algorithm: Algorithm, limit: u64) -> Result<Digest> {
    let mut file = fs::File::open(path)?.take(limit);
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(n) => hasher.update(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn read_record<T: serde::de::DeserializeOwned>(path: &std::path::Path) -> Option<T> {
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(MAX_RECORD).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn write_record(path: &std::path::Path, record: &impl Serialize) -> Result<()> {
    replace_file(path, &to_json(record)?, true)
}

pub(crate) fn to_json(record: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(record).map_err(|e| Error::Io(io::Error::other(e)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;
    use crate::LayerForm;
    use crate::Matcher;
    use crate::NoProgress;
    use crate::compose::ImageBuilder;
    use crate::compose::LayerBuilder;
    use crate::store::tests::store;

    /// A store with an indexed image; the boot in its records is one that is over.
    fn from_another_boot() -> (tempfile::TempDir, Store, crate::Image) {
        let (dir, store) = store();
        let mut layer = LayerBuilder::new();
        layer.file("f", 0o644, "content that is looked at");
        let mut image = ImageBuilder::new(&"linux/amd64".parse().unwrap());
        image.layer(layer);
        let target = image.build(&store).unwrap();
        let image = store.image(&target, &Matcher::only(&"linux/amd64".parse().unwrap())).unwrap();
        let session = Session::new(&store).unwrap();
        store.unpack_missing(&session, &image, LayerForm::Index, &NoProgress).unwrap();
        assert!(matches!(build(&session, &image.diff_ids).unwrap(), Built::Tree));
        let tree = store.indexed_image(&image.diff_ids).unwrap();
        let records = [
            store.layer_dir(&image.diff_ids[0]).join(TAR_RECORD),
            store.tree_dir(&tree.chain_id).join(RECORD),
        ];
        for path in records {
            let text = fs::read_to_string(&path).unwrap();
            fs::write(&path, text.replace(&boot_id().unwrap(), "another run of the system")).unwrap();
        }
        (dir, store, image)
    }

    #[test]
    fn what_another_boot_wrote_is_hashed_once() {
        let (_dir, store, image) = from_another_boot();
        let tree = store.indexed_image(&image.diff_ids).unwrap();
        assert!(store.has_tree(&tree).unwrap());
        // Both are marked as lasting, so nothing is read from now on: a change is not noticed any more.
        assert_eq!(store.tree_record(&tree.chain_id).unwrap().boot, None);
        let tar = store.layer_dir(&image.diff_ids[0]).join(TAR);
        let record: TarRecord = read_record(&store.layer_dir(&image.diff_ids[0]).join(TAR_RECORD)).unwrap();
        assert_eq!(record.boot, None);
        fs::OpenOptions::new().write(true).open(&tar).unwrap().file().write_all_at(b"X", 600).unwrap();
        assert!(store.usable_tar(&image.diff_ids[0]).unwrap().is_some());
    }

    #[test]
    fn what_was_torn_in_another_boot_is_written_again() {
        for (name, at) in [(TAR, 600), (INDEX, 1100)] {
            let (_dir, store, image) = from_another_boot();
            let tree = store.indexed_image(&image.diff_ids).unwrap();
            let torn = if name == TAR { &tree.tars[0] } else { &tree.index };
            let before = fs::read(torn).unwrap();
            fs::OpenOptions::new().write(true).open(torn).unwrap().file().write_all_at(b"torn", at).unwrap();
            assert!(!store.has_tree(&tree).unwrap(), "{name}");
            let session = Session::new(&store).unwrap();
            assert!(crate::layer::unpack::index(&session, &image, &NoProgress).unwrap());
            assert!(store.has_tree(&tree).unwrap());
            assert!(fs::read(torn).unwrap() == before, "{name}");
        }
    }

    #[test]
    fn many_builders_are_one() {
        let (_dir, store, image) = from_another_boot();
        let tree = store.indexed_image(&image.diff_ids).unwrap();
        remove::tree(&store.tree_dir(&tree.chain_id)).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let session = Session::new(&store).unwrap();
                    assert!(matches!(build(&session, &image.diff_ids).unwrap(), Built::Tree));
                });
            }
        });
        assert!(store.has_tree(&tree).unwrap());
        assert_eq!(names_in(&store.root().join("downloads")).unwrap().len(), 0);
    }
}
