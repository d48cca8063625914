//! Writing the tar of an image archive: plain files below fixed folders, times and owners zero, so that the same
//! images give the same bytes. This is not for layers: it knows no links, owners or attributes.

use std::fs::File;
use std::io::Write as _;

use crate::Error;
use crate::error::Result;

const BLOCK: usize = 512;
/// Longest name that a header takes.
const MAX_NAME: usize = 100;

/// A tar in the making. It writes to a real file or pipe, so that the kernel can move content by itself.
#[derive(Debug)]
pub(super) struct TarWriter<'f> {
    out: &'f mut File,
}

impl<'f> TarWriter<'f> {
    pub(super) fn new(out: &'f mut File) -> Self {
        Self { out }
    }

    /// A folder; `path` ends with a slash.
    pub(super) fn dir(&mut self, path: &str) -> Result<()> {
        self.header(path, tar::EntryType::Directory, 0o755, 0)
    }

    /// A file with this content.
    pub(super) fn bytes(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.header(path, tar::EntryType::Regular, 0o644, content.len() as u64)?;
        self.write(content)?;
        self.pad(content.len() as u64)
    }

    /// A file with the whole content of another one, which must have this size.
    pub(super) fn copy(&mut self, path: &str, size: u64, content: &mut File) -> Result<()> {
        self.header(path, tar::EntryType::Regular, 0o644, size)?;
        // Between two files the standard library asks the kernel to copy (`copy_file_range`, `sendfile`).
        let copied = std::io::copy(content, self.out).map_err(failed)?;
        if copied != size {
            return Err(Error::SizeMismatch { what: path.into(), expected: size, actual: copied });
        }
        self.pad(size)
    }

    /// The end of the archive.
    pub(super) fn finish(self) -> Result<()> {
        self.out.write_all(&[0; 2 * BLOCK]).and_then(|()| self.out.flush()).map_err(failed)
    }

    fn header(&mut self, path: &str, kind: tar::EntryType, mode: u32, size: u64) -> Result<()> {
        if path.len() > MAX_NAME {
            // GNU's way: the name is the content of an entry before.
            let mut long = tar::Header::new_gnu();
            long.set_entry_type(tar::EntryType::GNULongName);
            long.set_size(path.len() as u64 + 1);
            self.block(&mut long, "././@LongLink", 0)?;
            self.write(path.as_bytes())?;
            self.write(&[0])?;
            self.pad(path.len() as u64 + 1)?;
        }
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        self.block(&mut header, path.get(..MAX_NAME).unwrap_or(path), mode)
    }

    fn block(&mut self, header: &mut tar::Header, name: &str, mode: u32) -> Result<()> {
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let field = &mut header.as_old_mut().name;
        for (to, from) in field.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        header.set_cksum();
        self.write(header.as_bytes())
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let missing = usize::try_from(size.wrapping_neg() % BLOCK as u64).unwrap_or_default();
        self.write(&[0; BLOCK][..missing])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(failed)
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::io("cannot write the archive", error)
}
