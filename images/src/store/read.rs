//! Reading blobs.

use std::io::Read as _;

use fs_err as fs;

use super::Store;
use crate::Descriptor;
use crate::Digest;
use crate::Error;
use crate::HashingReader;
use crate::MAX_MANIFEST;
use crate::error::Result;

impl Store {
    /// Whether a blob is there. Its content was verified when it came.
    #[must_use]
    pub fn has_blob(&self, digest: &Digest) -> bool {
        std::fs::symlink_metadata(self.blob_path(digest)).is_ok_and(|m| m.is_file())
    }

    /// Whether a blob is there and has the size it should have.
    #[must_use]
    pub fn has_blob_of(&self, blob: &Descriptor) -> bool {
        std::fs::symlink_metadata(self.blob_path(&blob.digest))
            .is_ok_and(|m| m.is_file() && m.len() == blob.size)
    }

    /// The content of a manifest, index or configuration. It is verified again: it is small, and a flipped bit
    /// must not choose what is run.
    ///
    /// # Errors
    /// [`Error::MissingBlob`]; [`Error::InvalidManifest`] above [`MAX_MANIFEST`]; a mismatch of size or digest.
    pub fn read_blob(&self, blob: &Descriptor) -> Result<Vec<u8>> {
        if blob.size > MAX_MANIFEST {
            return Err(Error::manifest(&blob.digest, "is larger than 4 MiB"));
        }
        let file = self.open_blob(&blob.digest)?;
        let size = usize::try_from(blob.size).unwrap_or_default();
        // One byte more is asked for, so that a file that is too long shows, and the end of one that is not needs no
        // second look.
        let mut bytes = vec![0; size + 1];
        let mut reader = HashingReader::new(file, blob.digest.algorithm());
        let mut length = 0;
        while length < size || size == 0 {
            match reader.read(&mut bytes[length..])? {
                0 => break,
                read => length += read,
            }
        }
        bytes.truncate(length);
        reader.verify(&format!("blob {}", blob.digest), &blob.digest, Some(blob.size))?;
        Ok(bytes)
    }

    /// Opens a blob of any size for reading. The content is not verified again.
    ///
    /// # Errors
    /// [`Error::MissingBlob`].
    pub fn open_blob(&self, digest: &Digest) -> Result<fs::File> {
        match fs::File::open(self.blob_path(digest)) {
            Ok(file) => Ok(file),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Err(Error::MissingBlob { digest: digest.clone() })
            }
            Err(e) => Err(e.into()),
        }
    }
}
