//! Reading tar archives: ustar, pax and GNU long names, with every size bounded.
//!
//! Written by hand because a reader that trusts an archive's sizes holds a hostile "long name" of gigabytes in
//! memory. Not understood, and refused by name: sparse files. Global pax headers are skipped, as Docker does.

use std::io;
use std::io::Read;

use super::Fault;

const BLOCK: usize = 512;
/// Largest pax header or long name. Go's reader has the same limit.
const MAX_EXTENSION: u64 = 1 << 20;
/// Longest path of an entry, Linux's `PATH_MAX`.
const MAX_PATH: usize = 4096;
/// Longest path component, Linux's `NAME_MAX`.
const MAX_NAME: usize = 255;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    Dir,
    Fifo,
    Char,
    Block,
}

/// One entry of an archive.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Cleaned: relative, no `.`, no `..`, no empty component. Empty for the root itself.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    /// As it stands for symbolic links, cleaned like `path` for hard links.
    pub(crate) link: Vec<u8>,
    /// Content bytes that follow; 0 unless a file.
    pub(crate) size: u64,
    pub(crate) meta: Meta,
    pub(crate) device: (u32, u32),
}

/// What can be set on an extracted file.
#[derive(Debug, Clone, Default)]
#[cfg_attr(not(unix), expect(dead_code, reason = "other systems have nothing that these could be set on"))]
pub(crate) struct Meta {
    /// Permission bits with set-user-id, set-group-id and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub(crate) mtime: (i64, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads entries in order.
pub(crate) struct TarReader<R> {
    inner: R,
    /// Content bytes of the current entry that were not read yet.
    left: u64,
    /// Zero bytes after the content.
    padding: u64,
}

impl<R> std::fmt::Debug for TarReader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TarReader").field("left", &self.left).finish_non_exhaustive()
    }
}

impl<R: Read> Read for TarReader<R> {
    /// Reads the content of the current entry. Its early end is an error, never a short file.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let limit = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if limit == 0 {
            return Ok(0);
        }
        let n = self.inner.read(&mut buffer[..limit])?;
        if n == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "archive ends within an entry"));
        }
        self.left -= n as u64;
        Ok(n)
    }
}

#[derive(Debug, Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, left: 0, padding: 0 }
    }

    /// The next entry, after whatever is left of the current one's content. `None` after the end-of-archive
    /// blocks; everything up to the end of the stream was read then and was zero.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, Fault> {
        let mut extensions = Extensions::default();
        let mut described = 0;
        loop {
            self.skip()?;
            let mut block = [0; BLOCK];
            // Some writers leave out the end-of-archive blocks, and umoci even the padding before them. Nothing can be
            // missing then but whole entries, and those the digest would tell.
            if !self.fill(&mut block)? {
                return Ok(None);
            }
            if block == [0; BLOCK] {
                self.expect_zeros()?;
                return Ok(None);
            }
            verify_checksum(&block)?;
            let size = number(&block[124..136], "size")?;
            let size = u64::try_from(size).map_err(|_| Fault::bad("negative size"))?;
            match block[156] {
                // What several of them say adds up in memory.
                b'x' => {
                    described += size.min(MAX_EXTENSION);
                    if described > MAX_EXTENSION {
                        return Err(too_large());
                    }
                    parse_pax(&self.extension(size)?, &mut extensions)?;
                }
                b'g' => drop(self.extension(size)?),
                b'L' => extensions.path = Some(until_nul(&self.extension(size)?)),
                b'K' => extensions.link = Some(until_nul(&self.extension(size)?)),
                flag => return self.entry(&block, flag, size, extensions).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        block: &[u8; BLOCK],
        flag: u8,
        size: u64,
        extensions: Extensions,
    ) -> Result<Entry, Fault> {
        let raw_path = extensions.path.unwrap_or_else(|| header_path(block));
        let fail = |fault: Fault| fault.at(&raw_path);
        let kind = match flag {
            0 | b'0' | b'7' if raw_path.last() == Some(&b'/') => Kind::Dir,
            0 | b'0' | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' => Kind::Dir,
            b'6' => Kind::Fifo,
            b'S' => return Err(fail(Fault::bad("sparse files are not supported"))),
            other => {
                let reason = format!("unknown type {:?}", char::from(other));
                return Err(fail(Fault::bad(reason)));
            }
        };
        // Only files have content. Other sizes are leftovers of `stat` in some writers; Go ignores them as well.
        let size = if kind == Kind::File { extensions.size.unwrap_or(size) } else { 0 };
        self.expect_content(size);
        let path = clean(&raw_path).map_err(fail)?;
        let link = extensions.link.unwrap_or_else(|| until_nul(&block[157..257]));
        let link = match kind {
            Kind::HardLink => clean(&link).map_err(fail)?,
            Kind::Symlink if link.is_empty() => {
                return Err(fail(Fault::bad("symbolic link without a target")));
            }
            Kind::Symlink if link.len() >= MAX_PATH || link.contains(&0) => {
                return Err(fail(Fault::bad("target of symbolic link is not valid")));
            }
            Kind::Symlink => link,
            _ => Vec::new(),
        };
        let small = |field: &[u8], what: &str| {
            number(field, what)
                .and_then(|n| u32::try_from(n).map_err(|_| Fault::bad(format!("{what} does not fit"))))
                .map_err(fail)
        };
        let id =
            |given: Option<u32>, field: &[u8], what| match given.map_or_else(|| small(field, what), Ok)? {
                // To the system this is no owner: it means that the owner shall not be changed.
                u32::MAX => Err(fail(Fault::bad(format!("{what} is not a valid one")))),
                id => Ok(id),
            };
        let (uid, gid) =
            (id(extensions.uid, &block[108..116], "uid")?, id(extensions.gid, &block[116..124], "gid")?);
        let mtime = match extensions.mtime {
            Some(mtime) => mtime,
            None => (number(&block[136..148], "mtime").map_err(fail)?, 0),
        };
        let mode = number(&block[100..108], "mode").map_err(fail)? & 0o7777;
        let device = match kind {
            Kind::Char | Kind::Block => {
                (small(&block[329..337], "major number")?, small(&block[337..345], "minor number")?)
            }
            _ => (0, 0),
        };
        let mode = u32::try_from(mode).unwrap_or_default();
        let meta = Meta { mode, uid, gid, mtime, xattrs: extensions.xattrs };
        Ok(Entry { path, kind, link, size, meta, device })
    }

    pub(crate) fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// Passes over the current entry's content with the help of a reader that can do so without reading; `false`
    /// from it means that the archive ends before.
    pub(crate) fn skip_content(
        &mut self,
        skip: impl FnOnce(&mut R, u64) -> io::Result<bool>,
    ) -> Result<(), Fault> {
        if !skip(&mut self.inner, self.left)? {
            return Err(Fault::bad("archive ends within an entry"));
        }
        self.left = 0;
        Ok(())
    }

    fn expect_content(&mut self, size: u64) {
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    /// The content of an entry that describes the next one.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, Fault> {
        if size > MAX_EXTENSION {
            return Err(too_large());
        }
        self.expect_content(size);
        let mut content = Vec::new();
        self.read_to_end(&mut content)?;
        Ok(content)
    }

    fn skip(&mut self) -> Result<(), Fault> {
        io::copy(self, &mut io::sink())?;
        let mut padding = [0; BLOCK];
        let length = usize::try_from(self.padding).unwrap_or_default();
        // Whether the stream has ended here is found out with the next header.
        self.fill(&mut padding[..length])?;
        self.padding = 0;
        Ok(())
    }

    /// Fills a whole buffer; `false` when the stream was at its end already.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<bool, Fault> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.inner.read(&mut buffer[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(Fault::bad("archive is truncated")),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(true)
    }

    fn expect_zeros(&mut self) -> Result<(), Fault> {
        let mut buffer = [0; 8 << 10];
        loop {
            match self.inner.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) if buffer[..n].iter().all(|b| *b == 0) => {}
                Ok(_) => return Err(Fault::bad("trailing garbage after the end of the archive")),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

fn too_large() -> Fault {
    Fault::bad("extended header is larger than 1 MiB")
}

fn verify_checksum(block: &[u8; BLOCK]) -> Result<(), Fault> {
    let wrong = || Fault::bad("not a tar archive, or a damaged one: wrong header checksum");
    let expected = number(&block[148..156], "checksum").map_err(|_| wrong())?;
    let byte = |(i, b): (usize, &u8)| if (148..156).contains(&i) { b' ' } else { *b };
    let unsigned: i64 = block.iter().enumerate().map(|e| i64::from(byte(e))).sum();
    // Some old writers summed signed bytes.
    let signed: i64 = block.iter().enumerate().map(|e| i64::from(byte(e).cast_signed())).sum();
    if expected == unsigned || expected == signed { Ok(()) } else { Err(wrong()) }
}

/// Octal digits, or a big-endian two's complement number when the first bit is set (GNU).
fn number(field: &[u8], what: &str) -> Result<i64, Fault> {
    let bad = || Fault::bad(format!("{what} is not a number"));
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let mut value: i64 = if negative { -1 } else { 0 };
        for (i, byte) in field.iter().enumerate() {
            let byte = match (i, negative) {
                (0, false) => byte & 0x7f,
                _ => *byte,
            };
            value = value.checked_mul(256).ok_or_else(bad)? | i64::from(byte);
        }
        return Ok(value);
    }
    let text = field.trim_ascii_start();
    let text = &text[..text.iter().position(|b| *b == 0 || *b == b' ').unwrap_or(text.len())];
    let mut value: i64 = 0;
    for digit in text {
        if !(b'0'..=b'7').contains(digit) {
            return Err(bad());
        }
        value = value.checked_mul(8).ok_or_else(bad)? + i64::from(digit - b'0');
    }
    Ok(value)
}

fn until_nul(bytes: &[u8]) -> Vec<u8> {
    bytes[..bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len())].to_vec()
}

/// The name field, with ustar's prefix. GNU's format uses the prefix field for other things.
fn header_path(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(&block[..100]);
    let prefix = until_nul(&block[345..500]);
    if &block[257..263] != b"ustar\0" || prefix.is_empty() {
        return name;
    }
    [&prefix[..], b"/", &name].concat()
}

/// The records `LENGTH KEY=VALUE\n` of a pax header.
fn parse_pax(mut bytes: &[u8], into: &mut Extensions) -> Result<(), Fault> {
    let bad = || Fault::bad("damaged pax header");
    while !bytes.is_empty() {
        let space = bytes.iter().position(|b| *b == b' ').ok_or_else(bad)?;
        let length: usize = text(&bytes[..space]).and_then(|t| t.parse().ok()).ok_or_else(bad)?;
        let record = bytes.get(space + 1..length).ok_or_else(bad)?.strip_suffix(b"\n").ok_or_else(bad)?;
        bytes = &bytes[length..];
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(bad)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        let integer = || text(value).and_then(|t| t.parse::<u64>().ok()).ok_or_else(bad);
        let id = || integer().and_then(|n| u32::try_from(n).map_err(|_| bad()));
        match key {
            b"path" => into.path = Some(value.to_vec()),
            b"linkpath" => into.link = Some(value.to_vec()),
            b"size" => into.size = Some(integer()?),
            b"uid" => into.uid = Some(id()?),
            b"gid" => into.gid = Some(id()?),
            b"mtime" => into.mtime = Some(text(value).and_then(parse_time).ok_or_else(bad)?),
            _ if key.starts_with(b"GNU.sparse.") => return Err(Fault::bad("sparse files are not supported")),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    into.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
    }
    Ok(())
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// `[-]SECONDS[.FRACTION]`.
fn parse_time(text: &str) -> Option<(i64, u32)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = seconds.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9.9}").parse().ok()?;
    if seconds.starts_with('-') && nanos > 0 {
        return Some((whole.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((whole, nanos))
}

/// Absolute names become relative, as Docker does; `..` is refused, as it has no honest use.
fn clean(path: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut cleaned = Vec::with_capacity(path.len());
    for component in path.split(|b| *b == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => return Err(Fault::bad("name contains ..")),
            _ if component.len() > MAX_NAME => return Err(Fault::bad("name is too long")),
            _ if component.contains(&0) => return Err(Fault::bad("name contains a zero byte")),
            _ => {}
        }
        if !cleaned.is_empty() {
            cleaned.push(b'/');
        }
        cleaned.extend_from_slice(component);
    }
    if cleaned.len() >= MAX_PATH {
        return Err(Fault::bad("name is too long"));
    }
    Ok(cleaned)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One header block with content, checksummed; `edit` may break it before.
    pub(crate) fn raw(
        flag: u8,
        name: &[u8],
        link: &[u8],
        content: &[u8],
        edit: impl Fn(&mut [u8]),
    ) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        block[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
        block[100..107].copy_from_slice(b"0000644");
        block[108..115].copy_from_slice(b"0000000");
        block[116..123].copy_from_slice(b"0000000");
        block[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        block[136..147].copy_from_slice(b"00000000000");
        block[156] = flag;
        block[157..157 + link.len()].copy_from_slice(link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        edit(&mut block);
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        block.extend_from_slice(content);
        block.resize(block.len().next_multiple_of(BLOCK), 0);
        block
    }

    pub(crate) fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
        let mut content = Vec::new();
        for (key, value) in records {
            let body = key.len() + value.len() + 3;
            let length = (body..).find(|n| n.to_string().len() + body == *n).unwrap();
            content.extend_from_slice(format!("{length} {key}=").as_bytes());
            content.extend_from_slice(value);
            content.push(b'\n');
        }
        raw(b'x', b"pax", b"", &content, |_| ())
    }

    pub(crate) fn end() -> Vec<u8> {
        vec![0; 2 * BLOCK]
    }

    fn walk(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, Fault> {
        let mut reader = TarReader::new(bytes);
        let mut all = Vec::new();
        while let Some(entry) = reader.next_entry()? {
            let mut content = Vec::new();
            reader.read_to_end(&mut content)?;
            all.push((entry, content));
        }
        Ok(all)
    }

    #[test]
    fn reads_all_name_forms() {
        let long = format!("{}/f", "d".repeat(200));
        let prefixed = |block: &mut [u8]| block[345..348].copy_from_slice(b"pre");
        let archive = [
            raw(b'0', b"/./a//b", b"", b"hello", |_| ()),
            raw(b'0', b"c", b"", b"", prefixed),
            raw(b'L', b"././@LongLink", b"", format!("{long}\0").as_bytes(), |_| ()),
            raw(b'0', b"short", b"", b"x", |_| ()),
            pax(&[
                ("path", "p/ä".as_bytes()),
                ("mtime", b"-1.5"),
                ("uid", b"100000"),
                ("SCHILY.xattr.user.k", b"v=\0\n"),
            ]),
            raw(b'0', b"short", b"", b"", |_| ()),
            raw(b'0', b"dir/", b"", b"", |_| ()),
            raw(b'1', b"hard", b"/a/b", b"", |_| ()),
            raw(b'g', b"global", b"", b"anything", |_| ()),
            raw(b'2', b"soft", b"../../etc", b"", |_| ()),
            end(),
        ]
        .concat();
        let entries = walk(&archive).unwrap();
        assert_eq!(walk(&archive[..archive.len() - 1024]).unwrap().len(), entries.len());
        assert_eq!(walk(&raw(b'0', b"unpadded", b"", b"hello", |_| ())[..512 + 5]).unwrap()[0].1, b"hello");
        let paths: Vec<_> =
            entries.iter().map(|(e, _)| String::from_utf8_lossy(&e.path).into_owned()).collect();
        assert_eq!(paths, ["a/b", "pre/c", &long, "p/ä", "dir", "hard", "soft"]);
        assert_eq!(entries[0].1, b"hello");
        assert_eq!(entries[3].0.meta.mtime, (-2, 500_000_000));
        assert_eq!(entries[3].0.meta.uid, 100_000);
        assert_eq!(entries[3].0.meta.xattrs, [(b"user.k".to_vec(), b"v=\0\n".to_vec())]);
        assert_eq!(entries[4].0.kind, Kind::Dir);
        assert_eq!(entries[5].0.link, b"a/b");
        assert_eq!(entries[6].0.link, b"../../etc");
    }

    #[test]
    fn refuses_broken_and_hostile_archives() {
        let file = |name: &[u8]| raw(b'0', name, b"", b"", |_| ());
        let size =
            |field: &'static [u8; 12]| raw(b'0', b"a", b"", b"", |b| b[124..136].copy_from_slice(field));
        let component = "x".repeat(256);
        let path = "abcdefgh/".repeat(500);
        let no_owner = b"\x80\0\0\0\xff\xff\xff\xff";
        let many_attributes = pax(&[("SCHILY.xattr.user.a", &[b'x'; 600 << 10])]);
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("..", file(b"../../etc/passwd")),
            ("..", file(b"a/../b")),
            ("..", raw(b'1', b"a", b"../x", b"", |_| ())),
            ("too long", [pax(&[("path", component.as_bytes())]), file(b"a")].concat()),
            ("too long", [pax(&[("path", path.as_bytes())]), file(b"a")].concat()),
            ("zero byte", [pax(&[("path", b"a\0b")]), file(b"a")].concat()),
            ("without a target", raw(b'2', b"a", b"", b"", |_| ())),
            ("sparse", raw(b'S', b"a", b"", b"", |_| ())),
            ("sparse", [pax(&[("GNU.sparse.major", b"1")]), file(b"a")].concat()),
            ("unknown type", raw(b'V', b"a", b"", b"", |_| ())),
            ("not a number", size(b"00000000zz\0\0")),
            ("negative size", size(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")),
            ("not a number", size(b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")),
            ("ends within", size(b"77777777777\0")),
            ("larger than 1 MiB", raw(b'L', b"a", b"", b"", |b| b[124..135].copy_from_slice(b"77777777777"))),
            ("larger than 1 MiB", raw(b'x', b"a", b"", b"", |b| b[124..135].copy_from_slice(b"77777777777"))),
            ("damaged pax", raw(b'x', b"a", b"", b"9999999999 a=b\n", |_| ())),
            ("damaged pax", raw(b'x', b"a", b"", b"3 a=b\n", |_| ())),
            ("damaged pax", raw(b'x', b"a", b"", b"0 a=b\n", |_| ())),
            ("damaged pax", [pax(&[("uid", b"-1")]), file(b"a")].concat()),
            ("damaged pax", [pax(&[("uid", b"4294967296")]), file(b"a")].concat()),
            ("uid is not a valid", [pax(&[("uid", b"4294967295")]), file(b"a")].concat()),
            ("gid is not a valid", [pax(&[("gid", b"4294967295")]), file(b"a")].concat()),
            ("uid is not a valid", raw(b'5', b"a", b"", b"", |b| b[108..116].copy_from_slice(no_owner))),
            ("gid is not a valid", raw(b'2', b"a", b"b", b"", |b| b[116..124].copy_from_slice(no_owner))),
            ("larger than 1 MiB", [many_attributes.clone(), many_attributes.clone(), file(b"a")].concat()),
            ("damaged pax", [pax(&[("size", b"18446744073709551616")]), file(b"a")].concat()),
            ("truncated", file(b"a")[..300].to_vec()),
            ("ends within", raw(b'0', b"a", b"", &[1; 600], |_| ())[..1000].to_vec()),
            ("trailing garbage", [end(), file(b"a")].concat()),
            ("checksum", vec![b'x'; 1024]),
        ];
        for (message, archive) in cases {
            let fault = match walk(&archive) {
                Ok(entries) => panic!("{message}: accepted {entries:?}"),
                Err(Fault::Io(e)) => e.to_string(),
                Err(Fault::Bad { reason, .. }) => reason,
            };
            assert!(fault.contains(message), "{message}: {fault}");
        }
    }

    #[test]
    fn the_tar_crate_agrees() {
        let mut builder = ::tar::Builder::new(Vec::new());
        let names: Vec<String> = (1..12).map(|n| "long-name/".repeat(n * 3) + "f").collect();
        for name in &names {
            let mut header = ::tar::Header::new_gnu();
            header.set_size(3);
            header.set_mode(0o4755);
            builder.append_data(&mut header, name, &b"abc"[..]).unwrap();
        }
        let entries = walk(&builder.into_inner().unwrap()).unwrap();
        assert_eq!(entries.len(), names.len());
        for ((entry, content), name) in entries.iter().zip(&names) {
            assert_eq!(
                (&entry.path[..], &content[..], entry.meta.mode),
                (name.as_bytes(), &b"abc"[..], 0o4755)
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_read_beyond(
            name in proptest::collection::vec(any::<u8>(), 0..100),
            flag in any::<u8>(),
            content in proptest::collection::vec(any::<u8>(), 0..1500),
            at in 0usize..512,
            byte in any::<u8>(),
        ) {
            let archive = [raw(flag, &name, b"", &content, |b| if at < 148 { b[at] = byte }), end()].concat();
            if let Ok(entries) = walk(&archive) {
                for (entry, content) in entries {
                    prop_assert_eq!(entry.size, content.len() as u64);
                    prop_assert!(!entry.path.starts_with(b"/"));
                    prop_assert!(entry.path.split(|b| *b == b'/').all(|c| c != b".." && c != b"."));
                }
            }
        }
    }
}
