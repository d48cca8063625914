//! The structures on disk, as bytes: superblock, device slots, inodes. All numbers are little-endian.

use super::tree::Attributes;
use crate::Digest;

/// The block size is a tar's unit.
const BLOCK_BITS: u8 = 9;
pub(super) const BLOCK: u64 = 1 << BLOCK_BITS;
/// The same, of bytes in memory.
pub(super) const BLOCK_LENGTH: usize = 1 << BLOCK_BITS;
/// Where the superblock is.
pub(super) const SUPER_OFFSET: u64 = 1024;
pub(super) const SUPER_SIZE: u64 = 128;
pub(super) const SLOT_SIZE: u64 = 128;
/// Slots follow the superblock; this is the number of the first one.
const FIRST_SLOT: u16 = 9;
/// A file's number is its place in units of this size.
pub(super) const INODE_UNIT: u64 = 32;
/// The extended form, which has every field: the other one is for files of the same time.
pub(super) const INODE_SIZE: u64 = 64;
pub(super) const CHUNK_SIZE: u64 = 8;

const MAGIC: u32 = 0xe0f5_e1e2;
/// Every file has its own time.
const COMPAT_MTIME: u32 = 0x2;
const INCOMPAT_CHUNKED_FILE: u32 = 0x4;
const INCOMPAT_DEVICE_TABLE: u32 = 0x8;
/// Chunks are listed with the device they are on.
const CHUNK_INDEXES: u16 = 0x20;

/// One archive.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) tag: Digest,
    pub(super) size: u64,
}

/// How a file's content is found.
#[derive(Debug, Clone, Copy)]
pub(super) enum Layout {
    /// In blocks from this one on; none for an empty file.
    Plain(u32),
    /// In blocks from this one on, and what does not fill a block behind the inode.
    Inline(u32),
    /// One chunk of `1 << bits` blocks at most, listed behind the inode.
    Chunk { bits: u16 },
    /// No content: a device's number, or 0.
    Special(u32),
}

pub(super) fn superblock(
    files: u64,
    blocks: u32,
    xattrs: u32,
    root: u16,
    id: &Digest,
    slots: usize,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    let mut put = |bytes: &[u8]| out.extend_from_slice(bytes);
    put(&MAGIC.to_le_bytes());
    put(&[0; 4]);
    put(&COMPAT_MTIME.to_le_bytes());
    put(&[BLOCK_BITS, 0]);
    put(&root.to_le_bytes());
    put(&files.to_le_bytes());
    // The time of compact inodes, of which there are none.
    put(&[0; 12]);
    put(&blocks.to_le_bytes());
    // Files are counted from the image's beginning.
    put(&0_u32.to_le_bytes());
    put(&xattrs.to_le_bytes());
    put(&uuid(id));
    put(&[0; 16]);
    put(&(INCOMPAT_CHUNKED_FILE | INCOMPAT_DEVICE_TABLE).to_le_bytes());
    put(&[0; 2]);
    put(&u16::try_from(slots).unwrap_or(u16::MAX).to_le_bytes());
    put(&FIRST_SLOT.to_le_bytes());
    out.resize(128, 0);
    out
}

/// The first bytes of the image's chain id, marked as a UUID of no standard kind (RFC 9562, version 8).
fn uuid(id: &Digest) -> [u8; 16] {
    let mut uuid = [0; 16];
    for (byte, hex) in uuid.iter_mut().zip(id.hex().as_bytes().chunks(2)) {
        *byte =
            std::str::from_utf8(hex).ok().and_then(|h| u8::from_str_radix(h, 16).ok()).unwrap_or_default();
    }
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

/// The tag is the layer's digest, as far as it fits.
pub(super) fn slot(slot: &Slot) -> Vec<u8> {
    let mut out: Vec<u8> = slot.tag.hex().bytes().take(64).collect();
    out.resize(64, 0);
    let blocks = u32::try_from(slot.size.div_ceil(BLOCK)).unwrap_or(u32::MAX);
    out.extend_from_slice(&blocks.to_le_bytes());
    out.resize(128, 0);
    out
}

/// An inode as far as it is the same for every kind of file.
pub(super) struct Inode<'a> {
    pub(super) layout: Layout,
    /// Units of extended attributes, see `xattrs`.
    pub(super) xattr_units: u16,
    /// The type bits of `st_mode`.
    pub(super) kind: u16,
    pub(super) attributes: &'a Attributes,
    pub(super) size: u64,
    pub(super) links: u32,
    pub(super) number: u32,
}

pub(super) fn inode(inode: &Inode<'_>) -> [u8; 64] {
    let (layout, content) = match inode.layout {
        Layout::Plain(block) => (0, block),
        Layout::Special(number) => (0, number),
        Layout::Inline(block) => (2, block),
        Layout::Chunk { bits } => (4, u32::from(CHUNK_INDEXES | bits)),
    };
    let attributes = inode.attributes;
    let mut out = [0; 64];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &(1_u16 | layout << 1).to_le_bytes());
    put(2, &inode.xattr_units.to_le_bytes());
    put(4, &(inode.kind | attributes.mode).to_le_bytes());
    put(8, &inode.size.to_le_bytes());
    put(16, &content.to_le_bytes());
    put(20, &inode.number.to_le_bytes());
    put(24, &attributes.uid.to_le_bytes());
    put(28, &attributes.gid.to_le_bytes());
    put(32, &attributes.mtime.0.to_le_bytes());
    put(40, &attributes.mtime.1.to_le_bytes());
    put(44, &inode.links.to_le_bytes());
    out
}

/// One chunk at a block of a device.
pub(super) fn chunk(device: u16, block: u32) -> [u8; 8] {
    let mut out = [0; 8];
    out[2..4].copy_from_slice(&device.to_le_bytes());
    out[4..].copy_from_slice(&block.to_le_bytes());
    out
}

/// How many blocks, as a power of two, one chunk must have to hold a whole file.
pub(super) fn chunk_bits(size: u64) -> u16 {
    let blocks = size.div_ceil(BLOCK).max(1);
    u16::try_from(blocks.next_power_of_two().trailing_zeros()).unwrap_or_default()
}
