//! Extended attributes: what several files have is written once and referred to, the rest follows its inode.

use std::collections::HashMap;

use super::tree::Xattr;
use crate::layer::Fault;

/// Before the attributes of an inode.
const HEADER: usize = 12;
/// Before an attribute's name and value.
const ENTRY: usize = 4;
/// References fit in a byte.
const MAX_SHARED: usize = u8::MAX as usize;

/// The prefixes that have a number of their own in the format.
const PREFIXES: [(&[u8], u8); 2] = [(b"user.", 1), (b"security.", 6)];

/// Refuses what no file system would take, as the extractor's does.
pub(super) fn check(xattrs: &[Xattr]) -> Result<(), Fault> {
    let too_many = || Err(Fault::bad("too many or too large extended attributes"));
    let mut all = HEADER;
    for (name, value) in xattrs {
        let Some((_, rest)) = split(name) else { continue };
        if rest.is_empty() || name.contains(&0) {
            return Err(Fault::bad("name of an extended attribute is not valid"));
        }
        if name == b"security.capability" && !is_capability(value) {
            return Err(Fault::bad("value of an extended attribute is not valid"));
        }
        if name.len() > 255 || value.len() > usize::from(u16::MAX) {
            return too_many();
        }
        all += entry_size(rest, value);
    }
    // The count of an inode has 16 bits.
    if all > usize::from(u16::MAX) { too_many() } else { Ok(()) }
}

/// Version 2 or 3 of `struct vfs_cap_data`, the ones that the kernel lets be set.
fn is_capability(value: &[u8]) -> bool {
    matches!((value.len(), value.get(3)), (20, Some(2)) | (24, Some(3)))
}

/// The attributes that several files have.
#[derive(Debug, Default)]
pub(super) struct Shared<'t> {
    /// Where each one is in the shared area, in units of four bytes.
    ids: HashMap<&'t Xattr, u32>,
    area: Vec<u8>,
}

impl<'t> Shared<'t> {
    /// Finds them among the attributes of all files.
    pub(super) fn find(files: impl Iterator<Item = &'t [Xattr]>) -> Self {
        let mut order = Vec::new();
        let mut counts: HashMap<&Xattr, u32> = HashMap::new();
        for xattr in files.flatten() {
            let count = counts.entry(xattr).or_insert_with(|| {
                order.push(xattr);
                0
            });
            *count = count.saturating_add(1);
        }
        let mut shared = Self::default();
        for xattr in order.into_iter().filter(|xattr| counts.get(xattr).is_some_and(|n| *n > 1)) {
            let Ok(id) = u32::try_from(shared.area.len() / 4) else { break };
            shared.ids.insert(xattr, id);
            put_entry(&mut shared.area, xattr);
        }
        shared
    }

    /// The shared area.
    pub(super) fn area(&self) -> &[u8] {
        &self.area
    }

    /// Bytes that follow an inode with these attributes.
    pub(super) fn size(&self, xattrs: &[Xattr]) -> u64 {
        if xattrs.is_empty() {
            return 0;
        }
        let (shared, own) = self.split(xattrs);
        let own: usize =
            own.map(|(name, value)| split(name).map_or(0, |(_, rest)| entry_size(rest, value))).sum();
        (HEADER + 4 * shared.len() + own) as u64
    }

    /// What follows an inode with these attributes.
    pub(super) fn body(&self, xattrs: &[Xattr]) -> Vec<u8> {
        if xattrs.is_empty() {
            return Vec::new();
        }
        let (shared, own) = self.split(xattrs);
        let mut out = vec![0; HEADER];
        out[4] = u8::try_from(shared.len()).unwrap_or_default();
        for id in shared {
            out.extend_from_slice(&id.to_le_bytes());
        }
        for xattr in own {
            put_entry(&mut out, xattr);
        }
        out
    }

    /// Those to refer to, and the others.
    fn split<'x>(
        &self,
        xattrs: &'x [Xattr],
    ) -> (Vec<u32>, impl Iterator<Item = &'x Xattr> + use<'x, 't, '_>) {
        let shared: Vec<u32> =
            xattrs.iter().filter_map(|xattr| self.ids.get(xattr).copied()).take(MAX_SHARED).collect();
        let mut left = shared.len();
        let own = xattrs.iter().filter(move |xattr| {
            let is_shared = left > 0 && self.ids.contains_key(xattr);
            left -= usize::from(is_shared);
            !is_shared
        });
        (shared, own)
    }
}

/// What an inode says about the bytes that follow it.
pub(super) fn units(size: u64) -> u16 {
    match usize::try_from(size).ok().and_then(|size| size.checked_sub(HEADER)) {
        Some(rest) => u16::try_from(rest / 4 + 1).unwrap_or(u16::MAX),
        None => 0,
    }
}

fn split(name: &[u8]) -> Option<(u8, &[u8])> {
    PREFIXES.iter().find_map(|(prefix, number)| Some((*number, name.strip_prefix(*prefix)?)))
}

fn entry_size(rest: &[u8], value: &[u8]) -> usize {
    (ENTRY + rest.len() + value.len()).next_multiple_of(4)
}

fn put_entry(out: &mut Vec<u8>, (name, value): &Xattr) {
    let Some((prefix, rest)) = split(name) else { return };
    out.extend_from_slice(&[u8::try_from(rest.len()).unwrap_or_default(), prefix]);
    out.extend_from_slice(&u16::try_from(value.len()).unwrap_or_default().to_le_bytes());
    out.extend_from_slice(rest);
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}
