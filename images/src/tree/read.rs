//! The entries of one layer's blob.

use std::io;
use std::io::BufReader;
use std::io::Read;

use super::Item;
use super::Listing;
use super::MAX_NAMES;
use crate::Algorithm;
use crate::Descriptor;
use crate::Error;
use crate::HashingWriter;
use crate::Store;
use crate::error::Result;
use crate::layer::Fault;
use crate::layer::MAX_ENTRIES;
use crate::layer::compression;
use crate::layer::max_unpacked;
use crate::layer::tar::Kind;
use crate::layer::tar::TarReader;
use crate::layer::unpack::compression_of;
use crate::store::session::unwrap_io;

pub(super) fn listing(store: &Store, blob: &Descriptor, hash: bool) -> Result<Listing> {
    let failed = |fault| match fault {
        Fault::Bad { entry, reason } => Error::InvalidLayer { layer: blob.digest.clone(), entry, reason },
        Fault::Io(e) => unwrap_io(e, |e| Error::InvalidLayer {
            layer: blob.digest.clone(),
            entry: None,
            reason: e.to_string(),
        }),
    };
    let file = BufReader::with_capacity(256 << 10, store.open_blob(&blob.digest)?);
    let limit = max_unpacked(blob.size);
    let plain = compression::local_decoder(file, compression_of(blob)?).map_err(|e| failed(e.into()))?;
    let mut plain = BufReader::with_capacity(64 << 10, Counting { inner: plain.take(limit), count: 0 });
    let listing = read(&mut plain, hash).map_err(failed)?;
    let uncompressed = plain.get_ref().count;
    if uncompressed == limit {
        return Err(failed(Fault::bad(format!("unpacks to more than {limit} bytes"))));
    }
    Ok(Listing { uncompressed, ..listing })
}

fn read(plain: &mut impl Read, hash: bool) -> std::result::Result<Listing, Fault> {
    let mut tar = TarReader::new(plain);
    let mut listing = Listing::default();
    let mut names = 0;
    while let Some(entry) = tar.next_entry()? {
        names += entry.path.len() + entry.link.len();
        if listing.items.len() as u64 == MAX_ENTRIES || names > MAX_NAMES {
            return Err(Fault::bad("has too many entries to be looked at"));
        }
        let mut digest = None;
        // A hole may be as large as it likes: then the size alone tells files apart.
        if hash && entry.kind == Kind::File && entry.sparse.is_none() {
            let mut content = HashingWriter::new(io::sink(), Algorithm::Sha256);
            io::copy(&mut tar, &mut content)?;
            digest = Some(content.finish().1);
        }
        listing.items.push(Item {
            path: entry.path,
            kind: entry.kind,
            link: entry.link,
            size: entry.size,
            meta: entry.meta,
            device: entry.device,
            digest,
        });
    }
    Ok(listing)
}

struct Counting<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.count += n as u64;
        Ok(n)
    }
}
