//! Names: one small JSON file each, `{"name": ..., "descriptor": {...}}`.
//!
//! The file's name is the canonical reference with every byte outside `[a-z0-9._-]` as `%XX`, so that it is one
//! component, also where upper and lower case are the same. Long names end in a hash. Images without a name have
//! the digest in place of the reference.

use std::io;

use fs_err as fs;
use serde::Deserialize;
use serde::Serialize;

use super::Store;
use super::TEMPORARY;
use super::names_in;
use super::replace_file;
use super::sync_dir;
use crate::Descriptor;
use crate::Digest;
use crate::Error;
use crate::Reference;
use crate::error::Result;

/// Longest file name that is used as it is.
const MAX_PLAIN: usize = 180;
/// Shortest id prefix that is accepted, as in Docker's documentation.
const MIN_PREFIX: usize = 4;

/// Larger than any record of ours.
const MAX_REF: u64 = 1 << 20;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) descriptor: Descriptor,
}

/// A folder whose many small files are read with three calls each.
struct Folder {
    #[cfg(unix)]
    handle: fs::File,
    #[cfg(not(unix))]
    path: std::path::PathBuf,
}

impl Folder {
    #[cfg(unix)]
    fn open(path: &std::path::Path) -> Result<Self> {
        Ok(Self { handle: fs::File::open(path)? })
    }

    #[cfg(unix)]
    fn read(&self, name: &std::ffi::OsStr) -> io::Result<Vec<u8>> {
        use rustix::fs::Mode;
        use rustix::fs::OFlags;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(&self.handle, name, flags, Mode::empty())?;
        let mut bytes = vec![0; 4096];
        let mut filled = rustix::io::read(&file, &mut bytes[..])?;
        if filled == bytes.len() {
            // More than any record of ours.
            let mut rest = std::fs::File::from(file);
            filled += io::Read::read_to_end(&mut rest, &mut bytes)?;
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    #[cfg(not(unix))]
    fn open(path: &std::path::Path) -> Result<Self> {
        Ok(Self { path: path.to_owned() })
    }

    #[cfg(not(unix))]
    fn read(&self, name: &std::ffi::OsStr) -> io::Result<Vec<u8>> {
        fs::read(self.path.join(name))
    }
}

impl Store {
    /// What a name stands for. `name@digest` also finds an image of that repository pulled under a tag.
    ///
    /// # Errors
    /// When the name's file is damaged.
    pub fn resolve(&self, name: &Reference) -> Result<Option<Descriptor>> {
        if let Some(found) = self.read_ref(&name.canonical())? {
            return Ok(Some(found.descriptor));
        }
        let Some(digest) = name.digest() else { return Ok(None) };
        let same = |other: &Reference| {
            (other.registry(), other.repository()) == (name.registry(), name.repository())
        };
        Ok(self
            .references()?
            .into_iter()
            .find(|(other, d)| d.digest == *digest && same(other))
            .map(|(_, d)| d))
    }

    /// What exactly this name stands for, and not another one of the same image.
    pub(crate) fn resolve_exact(&self, name: &Reference) -> Result<Option<Descriptor>> {
        Ok(self.read_ref(&name.canonical())?.map(|record| record.descriptor))
    }

    /// When a name was last given to what it stands for; `None` when nobody has it.
    #[must_use]
    pub fn tagged_at(&self, name: &Reference) -> Option<std::time::SystemTime> {
        let path = self.root.join("refs").join(file_name(&name.canonical()));
        std::fs::symlink_metadata(path).and_then(|meta| meta.modified()).ok()
    }

    /// Makes a name stand for an image, durably. Whatever it stood for before loses the name.
    ///
    /// # Errors
    /// [`Error::MissingBlob`] when the image's manifest is not in the store.
    pub fn tag(&self, name: &Reference, image: &Descriptor) -> Result<()> {
        self.write_ref(name.canonical(), image)
    }

    /// Removes a name; `false` when it was not there. The content stays until
    /// [`Store::remove_unreferenced`].
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn untag(&self, name: &Reference) -> Result<bool> {
        self.remove_ref(&name.canonical())
    }

    /// Keeps an image without a name.
    ///
    /// # Errors
    /// [`Error::MissingBlob`] when the image's manifest is not in the store.
    pub fn keep_untagged(&self, image: &Descriptor) -> Result<()> {
        self.write_ref(image.digest.to_string(), image)
    }

    /// Undoes [`Store::keep_untagged`]; `false` when it was not there.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn drop_untagged(&self, digest: &Digest) -> Result<bool> {
        self.remove_ref(&digest.to_string())
    }

    /// All names, sorted. Damaged files are left out; [`Store::check`] finds them.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn references(&self) -> Result<Vec<(Reference, Descriptor)>> {
        let mut all: Vec<_> = self
            .records()?
            .into_iter()
            .filter_map(|(_, r)| r.ok())
            // A digest is a valid name too: of the tag `<hex>` of a repository `sha256`.
            .filter(|r| r.name.parse::<Digest>().is_err())
            .filter_map(|r| Some((Reference::parse(&r.name).ok()?, r.descriptor)))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(all)
    }

    /// Images that are kept without a name.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn untagged(&self) -> Result<Vec<Descriptor>> {
        let mut all: Vec<_> = self
            .records()?
            .into_iter()
            .filter_map(|(_, r)| r.ok())
            .filter(|r| r.name.parse::<Digest>().is_ok())
            .map(|r| r.descriptor)
            .collect();
        all.sort_by(|a, b| a.digest.cmp(&b.digest));
        Ok(all)
    }

    /// Finds an image by what a user types: a name, else a digest or an unambiguous prefix of the id. The id of
    /// an image is the digest that its name stands for, with or without `sha256:`.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], [`Error::Ambiguous`], or [`Error::InvalidReference`] when it could be neither.
    pub fn find(&self, text: &str) -> Result<Descriptor> {
        let name = Reference::parse(text);
        if let Ok(name) = &name
            && let Some(found) = self.resolve(name)?
        {
            return Ok(found);
        }
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        if prefix.len() >= MIN_PREFIX && prefix.bytes().all(|b| b.is_ascii_hexdigit()) {
            let mut fitting: Vec<Descriptor> = self
                .records()?
                .into_iter()
                .filter_map(|(_, r)| r.ok())
                .map(|r| r.descriptor)
                .filter(|d| d.digest.hex().starts_with(prefix))
                .collect();
            fitting.sort_by(|a, b| a.digest.cmp(&b.digest));
            fitting.dedup_by(|a, b| a.digest == b.digest);
            match fitting.len() {
                0 => {}
                1 => return Ok(fitting.swap_remove(0)),
                matches => return Err(Error::Ambiguous { prefix: text.into(), matches }),
            }
            return Err(Error::NoSuchImage { name: text.into() });
        }
        Err(Error::NoSuchImage { name: name?.familiar() })
    }

    /// Every file of `refs`, with its record or what is wrong with it.
    pub(super) fn records(&self) -> Result<Vec<(std::ffi::OsString, Result<Record>)>> {
        let refs = self.root.join("refs");
        let mut all = Vec::new();
        let folder = Folder::open(&refs)?;
        for file in names_in(&refs)? {
            if file.to_string_lossy().starts_with(TEMPORARY) {
                continue;
            }
            let record = match folder.read(&file) {
                Ok(bytes) => parse(&bytes, &file),
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => Err(e.into()),
            };
            all.push((file, record));
        }
        Ok(all)
    }

    pub(super) fn read_ref(&self, name: &str) -> Result<Option<Record>> {
        let file = file_name(name);
        let mut bytes = vec![0; 1024];
        // Not by `fs::read`, which asks twice for the size and once for the place of what one read gets: that a file gives
        // less than was asked for is its end.
        let read = fs::File::open(self.root.join("refs").join(&file)).and_then(|mut opened| {
            let first = io::Read::read(&mut opened, &mut bytes)?;
            let whole = first < bytes.len();
            bytes.truncate(first);
            if whole {
                Ok(first)
            } else {
                io::Read::read_to_end(&mut io::Read::take(opened, MAX_REF), &mut bytes)
            }
        });
        match read {
            Ok(_) => parse(&bytes, file.as_ref()).map(Some),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn write_ref(&self, name: String, image: &Descriptor) -> Result<()> {
        // No sweep may come between the look and the name.
        let _shared = self.lock_shared()?;
        if !self.has_blob(&image.digest) {
            return Err(Error::MissingBlob { digest: image.digest.clone() });
        }
        let path = self.root.join("refs").join(file_name(&name));
        let record = Record { name, descriptor: image.clone() };
        let json = serde_json::to_vec(&record).map_err(|e| Error::manifest(&record.name, e))?;
        replace_file(&path, &json, true)
    }

    fn remove_ref(&self, name: &str) -> Result<bool> {
        let refs = self.root.join("refs");
        match fs::remove_file(refs.join(file_name(name))) {
            Ok(()) => sync_dir(&refs).map(|()| true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

fn parse(bytes: &[u8], file: &std::ffi::OsStr) -> Result<Record> {
    let path = || format!("refs/{}", file.to_string_lossy());
    let record: Record = serde_json::from_slice(bytes)
        .map_err(|e| Error::InvalidStore { path: path(), reason: format!("not a valid name record: {e}") })?;
    if file != file_name(&record.name).as_str() {
        return Err(Error::InvalidStore { path: path(), reason: "is the record of another name".into() });
    }
    Ok(record)
}

/// The name that a file of this name should have a record of; `None` for files that are not ours, and for names that
/// are too long to be read from it.
pub(super) fn name_of_file(file: &std::ffi::OsStr) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = file.to_str()?.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let (hex, after) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
        }
    }
    let name = String::from_utf8(bytes).ok()?;
    let ours = Reference::parse(&name).is_ok_and(|parsed| parsed.canonical() == name)
        || name.parse::<Digest>().is_ok();
    (ours && file == file_name(&name).as_str()).then_some(name)
}

pub(super) fn file_name(name: &str) -> String {
    let mut file = String::with_capacity(name.len() + 16);
    for byte in name.bytes() {
        if byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte) {
            file.push(char::from(byte));
        } else {
            file.push_str(&format!("%{byte:02X}"));
        }
    }
    if file.len() > MAX_PLAIN {
        let mut cut = MAX_PLAIN - 67;
        while !file.is_char_boundary(cut) {
            cut -= 1;
        }
        file.truncate(cut);
        file.push_str("%~");
        file.push_str(Digest::of(name.as_bytes()).hex());
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::session::Session;
    use crate::store::tests::store;

    fn name(text: &str) -> Reference {
        text.parse().unwrap()
    }

    fn blob(store: &Store, content: &str) -> Descriptor {
        Session::new(store).unwrap().put("application/x", content.as_bytes()).unwrap()
    }

    #[test]
    fn names_are_found_moved_and_removed() {
        let (_dir, store) = store();
        let (one, two) = (blob(&store, "one"), blob(&store, "two"));
        assert_eq!(store.resolve(&name("a")).unwrap(), None);
        store.tag(&name("a"), &one).unwrap();
        store.tag(&name("localhost:5000/x/y:V1"), &two).unwrap();
        assert_eq!(store.resolve(&name("docker.io/library/a:latest")).unwrap(), Some(one.clone()));
        store.tag(&name("a"), &two).unwrap();
        assert_eq!(store.resolve(&name("a")).unwrap(), Some(two.clone()));
        let pinned = name(&format!("localhost:5000/x/y@{}", two.digest));
        assert_eq!(store.resolve(&pinned).unwrap(), Some(two.clone()));
        let names: Vec<_> = store.references().unwrap().iter().map(|(n, _)| n.familiar()).collect();
        assert_eq!(names, ["a:latest", "localhost:5000/x/y:V1"]);
        assert!(store.untag(&name("a")).unwrap());
        assert!(!store.untag(&name("a")).unwrap());
        store.keep_untagged(&one).unwrap();
        assert_eq!(store.untagged().unwrap(), [one]);
        assert_eq!(store.references().unwrap().len(), 1);
        let absent = Descriptor::new("x", Digest::of(b"absent"), 6);
        assert!(matches!(store.tag(&name("a"), &absent), Err(Error::MissingBlob { .. })));
    }

    #[test]
    fn finds_by_name_digest_and_prefix() {
        let (_dir, store) = store();
        let one = blob(&store, "one");
        store.tag(&name("a"), &one).unwrap();
        store.tag(&name("b"), &one).unwrap();
        let hex = one.digest.hex();
        for text in
            ["a", "a:latest", &one.digest.to_string(), hex, &hex[..4], &format!("sha256:{}", &hex[..12])]
        {
            assert_eq!(store.find(text).unwrap(), one, "{text}");
        }
        // 17 more ids: two of them share their first hex character, none is asked for by it.
        for text in ["zz", "ffff", &hex[..3]] {
            assert!(matches!(store.find(text), Err(Error::NoSuchImage { .. })), "{text}");
        }
        assert!(matches!(store.find("A B"), Err(Error::InvalidReference { .. })));
    }

    #[test]
    fn an_ambiguous_prefix_is_refused() {
        let (_dir, store) = store();
        let mut by_prefix = std::collections::HashMap::new();
        for i in 0..100_000 {
            let content = i.to_string();
            let digest = Digest::of(content.as_bytes());
            if let Some(other) = by_prefix.insert(digest.hex()[..4].to_owned(), content.clone()) {
                store.keep_untagged(&blob(&store, &content)).unwrap();
                store.keep_untagged(&blob(&store, &other)).unwrap();
                assert!(matches!(store.find(&digest.hex()[..4]), Err(Error::Ambiguous { matches: 2, .. })));
                return;
            }
        }
        panic!("no two digests share four characters");
    }

    #[test]
    fn file_names_are_one_short_component() {
        let long = format!("{}/{}:{}", "r".repeat(100), "p".repeat(150), "T".repeat(128));
        let hostile = ["../../etc/passwd", "/", ".", "..", "a/b:C", "con", "nul\0", "ä", &long];
        let mut seen = std::collections::HashSet::new();
        for text in hostile {
            let file = file_name(text);
            assert!(file.len() <= 255 && !file.contains(['/', '\0', '\\', ':']), "{file}");
            assert!(seen.insert(file.to_lowercase()));
        }
        assert_ne!(file_name("a:V1").to_lowercase(), file_name("a:v1").to_lowercase());
        assert_ne!(file_name(&long), file_name(&format!("{long}x")));
    }

    #[test]
    fn a_damaged_record_is_an_error_for_its_name_only() {
        let (_dir, store) = store();
        let one = blob(&store, "one");
        store.tag(&name("a"), &one).unwrap();
        store.tag(&name("b"), &one).unwrap();
        let refs = store.root().join("refs");
        fs::write(refs.join(file_name(&name("a").canonical())), "{").unwrap();
        assert!(matches!(store.resolve(&name("a")), Err(Error::InvalidStore { .. })));
        assert_eq!(store.references().unwrap().len(), 1);
        fs::copy(refs.join(file_name(&name("b").canonical())), refs.join("other")).unwrap();
        assert_eq!(store.references().unwrap().len(), 1);
    }
}
