//! A layer's content, put together in memory as a tar archive. It writes whatever a test asks for, however wrong.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

/// A tar archive in the making.
pub(crate) struct Tree {
    builder: Builder<Vec<u8>>,
}

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Squeeze {
    Plain,
    Gzip,
    Zstd,
}

impl Squeeze {
    /// The media type that OCI gives such a layer.
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Plain => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    pub(crate) fn apply(self, tar: &[u8]) -> Vec<u8> {
        match self {
            Self::Plain => tar.to_vec(),
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(tar).and_then(|()| encoder.finish()).expect("gzip to memory")
            }
            Self::Zstd => zstd::encode_all(tar, 1).expect("zstd to memory"),
        }
    }
}

impl Tree {
    pub(crate) fn new() -> Self {
        Self { builder: Builder::new(Vec::new()) }
    }

    pub(crate) fn dir(self, path: &str, mode: u32) -> Self {
        self.entry(path, EntryType::Directory, mode, (0, 0), None, &[])
    }

    pub(crate) fn file(self, path: &str, mode: u32, content: impl AsRef<[u8]>) -> Self {
        self.entry(path, EntryType::Regular, mode, (0, 0), None, content.as_ref())
    }

    pub(crate) fn owned(self, path: &str, mode: u32, owner: (u64, u64), content: impl AsRef<[u8]>) -> Self {
        self.entry(path, EntryType::Regular, mode, owner, None, content.as_ref())
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, EntryType::Symlink, 0o777, (0, 0), Some(target), &[])
    }

    pub(crate) fn hardlink(self, path: &str, target: &str) -> Self {
        self.entry(path, EntryType::Link, 0o644, (0, 0), Some(target), &[])
    }

    /// Removes `path` of a lower layer: `.wh.NAME` beside it.
    pub(crate) fn whiteout(self, path: &str) -> Self {
        let (dir, name) = path.rsplit_once('/').map_or(("", path), |(dir, name)| (dir, name));
        let marker = if dir.is_empty() { format!(".wh.{name}") } else { format!("{dir}/.wh.{name}") };
        self.file(&marker, 0o644, "")
    }

    /// Hides everything below `path` of lower layers.
    pub(crate) fn opaque(self, path: &str) -> Self {
        self.dir(path, 0o755).file(&format!("{path}/.wh..wh..opq"), 0o644, "")
    }

    /// The uncompressed archive.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.builder.into_inner().expect("tar to memory")
    }

    fn entry(
        mut self,
        path: &str,
        kind: EntryType,
        mode: u32,
        owner: (u64, u64),
        target: Option<&str>,
        content: &[u8],
    ) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        if let Some(target) = target {
            header.set_link_name_literal(target).expect("short link target");
        }
        // Written byte by byte: the tar crate refuses the `..` and the absolute names that some tests are about.
        let name = &mut header.as_old_mut().name;
        assert!(path.len() < name.len(), "{path} is too long for a plain header");
        name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        self.builder.append(&header, content).expect("tar to memory");
        self
    }
}
