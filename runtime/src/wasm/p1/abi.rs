//! The numbers of WASI 0.1 (`wasi_snapshot_preview1`), as its witx files give them.

use super::super::union::{Kind, Metadata};

pub(super) const OFLAGS_CREAT: u32 = 1;
pub(super) const OFLAGS_DIRECTORY: u32 = 2;
pub(super) const OFLAGS_EXCL: u32 = 4;
pub(super) const OFLAGS_TRUNC: u32 = 8;

pub(super) const FDFLAGS_APPEND: u16 = 1;
pub(super) const FDFLAGS_DSYNC: u16 = 2;
pub(super) const FDFLAGS_NONBLOCK: u16 = 4;
pub(super) const FDFLAGS_RSYNC: u16 = 8;
pub(super) const FDFLAGS_SYNC: u16 = 16;
pub(super) const FDFLAGS_ALL: u16 = 31;

pub(super) const LOOKUP_FOLLOW: u32 = 1;

pub(super) const FST_ATIM: u32 = 1;
pub(super) const FST_ATIM_NOW: u32 = 2;
pub(super) const FST_MTIM: u32 = 4;
pub(super) const FST_MTIM_NOW: u32 = 8;

pub(super) const RIGHT_READ: u64 = 1 << 1;
pub(super) const RIGHT_SEEK: u64 = 1 << 2;
pub(super) const RIGHT_TELL: u64 = 1 << 5;
pub(super) const RIGHT_WRITE: u64 = 1 << 6;
pub(super) const RIGHT_READDIR: u64 = 1 << 14;
const RIGHT_DATASYNC: u64 = 1;
const RIGHT_SET_FLAGS: u64 = 1 << 3;
const RIGHT_SYNC: u64 = 1 << 4;
const RIGHT_ADVISE: u64 = 1 << 7;
const RIGHT_ALLOCATE: u64 = 1 << 8;
const RIGHT_FILESTAT_GET: u64 = 1 << 21;
const RIGHT_SET_SIZE: u64 = 1 << 22;
const RIGHT_SET_TIMES: u64 = 1 << 23;
const RIGHT_POLL: u64 = 1 << 27;
const RIGHT_SOCK_SHUTDOWN: u64 = 1 << 28;
const RIGHT_SOCK_ACCEPT: u64 = 1 << 29;
/// All that concern paths, bits 9 to 20 and 24 to 26; not 19, a size by path, which no function sets.
const RIGHTS_PATH: u64 = 0x17_fe00 | 0x0700_0000;

/// Rights say nothing about what is allowed here: the file system decides. Libraries read them to tell what a
/// descriptor is for.
pub(super) const RIGHTS_FILE: u64 = RIGHT_DATASYNC
    | RIGHT_READ
    | RIGHT_SEEK
    | RIGHT_SET_FLAGS
    | RIGHT_SYNC
    | RIGHT_TELL
    | RIGHT_WRITE
    | RIGHT_ADVISE
    | RIGHT_ALLOCATE
    | RIGHT_FILESTAT_GET
    | RIGHT_SET_SIZE
    | RIGHT_SET_TIMES
    | RIGHT_POLL;
pub(super) const RIGHTS_DIR: u64 =
    RIGHT_DATASYNC | RIGHT_SYNC | RIGHTS_PATH | RIGHT_FILESTAT_GET | RIGHT_SET_TIMES | RIGHT_SET_FLAGS;
/// A stream has neither seek nor tell: with a character device's type, that is how libraries know a terminal.
pub(super) const RIGHTS_INPUT: u64 = RIGHT_READ | RIGHT_FILESTAT_GET | RIGHT_POLL | RIGHT_SET_FLAGS;
pub(super) const RIGHTS_OUTPUT: u64 = RIGHT_WRITE | RIGHT_FILESTAT_GET | RIGHT_POLL | RIGHT_SET_FLAGS;

pub(super) const RIGHTS_LISTENER: u64 = RIGHT_SOCK_ACCEPT | RIGHT_FILESTAT_GET | RIGHT_POLL | RIGHT_SET_FLAGS;
pub(super) const RIGHTS_SOCKET: u64 =
    RIGHT_READ | RIGHT_WRITE | RIGHT_SOCK_SHUTDOWN | RIGHT_FILESTAT_GET | RIGHT_POLL | RIGHT_SET_FLAGS;

pub(super) const FILETYPE_UNKNOWN: u8 = 0;
pub(super) const FILETYPE_CHAR: u8 = 2;
pub(super) const FILETYPE_DIR: u8 = 3;
pub(super) const FILETYPE_FILE: u8 = 4;
pub(super) const FILETYPE_SOCKET: u8 = 6;

pub(super) fn filetype(kind: Kind) -> u8 {
    match kind {
        Kind::BlockDevice => 1,
        Kind::CharDevice => FILETYPE_CHAR,
        Kind::Dir => FILETYPE_DIR,
        Kind::File => FILETYPE_FILE,
        Kind::Socket => FILETYPE_SOCKET,
        Kind::Symlink => 7,
        Kind::Fifo | Kind::Unknown => FILETYPE_UNKNOWN,
    }
}

/// `filestat`, 64 bytes.
pub(super) fn filestat(metadata: &Metadata) -> [u8; 64] {
    let stat = &metadata.stat;
    let mut out = [0; 64];
    let mut put = |at: usize, value: u64| out[at..at + 8].copy_from_slice(&value.to_le_bytes());
    put(0, metadata.dev);
    put(8, metadata.ino);
    put(16, u64::from(filetype(stat.kind)));
    put(24, stat.links);
    put(32, stat.size);
    put(40, nanos(stat.accessed));
    put(48, nanos(stat.modified));
    put(56, nanos(stat.changed));
    out
}

/// `filestat` of `wasi_unstable`, 56 bytes: the number of links has but 32 bits.
pub(super) fn old_filestat(stat: &[u8; 64]) -> [u8; 56] {
    let mut out = [0; 56];
    out[..20].copy_from_slice(&stat[..20]);
    let links = stat[24..32].try_into().map_or(0, u64::from_le_bytes);
    out[20..24].copy_from_slice(&u32::try_from(links).unwrap_or(u32::MAX).to_le_bytes());
    out[24..].copy_from_slice(&stat[32..]);
    out
}

/// `fdstat`, 24 bytes.
pub(super) fn fdstat(filetype: u8, flags: u16, rights: (u64, u64)) -> [u8; 24] {
    let mut out = [0; 24];
    out[0] = filetype;
    out[2..4].copy_from_slice(&flags.to_le_bytes());
    out[8..16].copy_from_slice(&rights.0.to_le_bytes());
    out[16..24].copy_from_slice(&rights.1.to_le_bytes());
    out
}

/// Nanoseconds since 1970; what lies outside is cut to the ends.
pub(super) fn nanos(time: Option<std::time::SystemTime>) -> u64 {
    let since = time.and_then(|time| time.duration_since(std::time::SystemTime::UNIX_EPOCH).ok());
    since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
