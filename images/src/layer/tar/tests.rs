//! Archives of every form, and broken ones.

use proptest::prelude::*;

use super::*;

/// One header block with content, checksummed; `edit` may break it before.
pub(crate) fn raw(flag: u8, name: &[u8], link: &[u8], content: &[u8], edit: impl Fn(&mut [u8])) -> Vec<u8> {
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
    let paths: Vec<_> = entries.iter().map(|(e, _)| String::from_utf8_lossy(&e.path).into_owned()).collect();
    assert_eq!(paths, ["a/b", "pre/c", &long, "p/ä", "dir", "hard", "soft"]);
    assert_eq!(entries[0].1, b"hello");
    assert_eq!(entries[3].0.meta.mtime, (-2, 500_000_000));
    assert_eq!(entries[3].0.meta.uid, 100_000);
    assert_eq!(entries[3].0.meta.xattrs, [(b"user.k".to_vec(), b"v=\0\n".to_vec())]);
    assert_eq!(entries[4].0.kind, Kind::Dir);
    assert_eq!(entries[5].0.link, b"a/b");
    assert_eq!(entries[6].0.link, b"../../etc");
}

/// A file that pax records describe as sparse, with six bytes in the archive.
fn sparse_pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let records: Vec<(String, &[u8])> =
        records.iter().map(|(key, value)| (format!("GNU.sparse.{key}"), *value)).collect();
    let records: Vec<(&str, &[u8])> = records.iter().map(|(key, value)| (&key[..], *value)).collect();
    [pax(&records), raw(b'0', b"a", b"", b"abcdef", |_| ())].concat()
}

/// Version 1.0: the list in front of the content.
fn in_content(list: &[u8]) -> Vec<u8> {
    let mut content = list.to_vec();
    content.resize(content.len().next_multiple_of(BLOCK), 0);
    content.extend_from_slice(b"abcdef");
    let records: &[(&str, &[u8])] = &[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"real"),
        ("GNU.sparse.realsize", b"20"),
    ];
    [pax(records), raw(b'0', b"GNUSparseFile.0/real", b"", &content, |_| ())].concat()
}

/// GNU's old form; `blocks` of more parts follow the header, which are empty.
fn old_sparse(size: u64, parts: &[(u64, u64)], content: &[u8], blocks: usize) -> Vec<u8> {
    let edit = |block: &mut [u8]| {
        block[257..265].copy_from_slice(b"ustar  \0");
        for (entry, (offset, length)) in block[386..482].chunks_exact_mut(24).zip(parts) {
            entry[..12].copy_from_slice(format!("{offset:011o}\0").as_bytes());
            entry[12..].copy_from_slice(format!("{length:011o}\0").as_bytes());
        }
        block[482] = u8::from(blocks > 0);
        block[483..495].copy_from_slice(format!("{size:011o}\0").as_bytes());
    };
    let mut archive = raw(b'S', b"a", b"", content, edit);
    if content.is_empty() {
        return archive;
    }
    for block in (0..blocks).rev() {
        let mut more = vec![0; BLOCK];
        more[504] = u8::from(block + 1 < blocks);
        archive.splice(BLOCK..BLOCK, more);
    }
    archive
}

#[test]
fn sparse_files_of_all_forms() {
    let expected = b"abc\0\0\0\0\0\0\0def\0\0\0\0\0\0\0";
    let numbers: &[(&str, &[u8])] = &[
        ("size", b"20"),
        ("numblocks", b"3"),
        ("offset", b"0"),
        ("numbytes", b"3"),
        ("offset", b"10"),
        ("numbytes", b"3"),
        ("offset", b"20"),
        ("numbytes", b"0"),
    ];
    let map: &[(&str, &[u8])] = &[("size", b"20"), ("map", b"0,3,10,3"), ("name", b"real")];
    let parts = [(0, 3), (10, 3), (20, 0)];
    let cases = [
        (sparse_pax(numbers), "a"),
        (sparse_pax(map), "real"),
        (in_content(b"2\n0\n3\n10\n3\n"), "real"),
        (old_sparse(20, &parts, b"abcdef", 0), "a"),
        (old_sparse(20, &parts, b"abcdef", 3), "a"),
    ];
    for (archive, name) in cases {
        let after = raw(b'0', b"after", b"", b"x", |_| ());
        let entries = walk(&[archive, after, end()].concat()).unwrap();
        assert_eq!(entries.len(), 2);
        let (entry, content) = &entries[0];
        assert_eq!(entry.path, name.as_bytes());
        assert_eq!((entry.size, &content[..]), (20, &expected[..]), "{name}");
        assert_eq!(entry.sparse.as_ref().unwrap().parts, [(0, 3), (10, 3)]);
        assert_eq!(entries[1].1, b"x");
    }
    // Nothing but a hole, however large: nothing of it is read when it is passed over.
    let huge = [
        pax(&[("GNU.sparse.size", b"9223372036854775807"), ("GNU.sparse.map", b"")]),
        raw(b'0', b"huge", b"", b"", |_| ()),
        raw(b'0', b"after", b"", b"x", |_| ()),
    ]
    .concat();
    let mut reader = TarReader::new(&huge[..]);
    assert_eq!(reader.next_entry().unwrap().unwrap().size, i64::MAX.cast_unsigned());
    assert_eq!(reader.next_entry().unwrap().unwrap().path, b"after");
}

#[test]
fn records_of_all_writers() {
    let records: &[(&str, &[u8])] = &[
        ("hdrcharset", b"BINARY"),
        ("path", b"\xff\xfe/\x80"),
        ("LIBARCHIVE.xattr.user.a%3Db", b"dmFsdWU"),
        ("LIBARCHIVE.xattr.user.both", b"bm8="),
        ("SCHILY.xattr.user.both", b"yes"),
        ("SCHILY.xattr.user.twice", b"1"),
        ("SCHILY.xattr.user.twice", b"2"),
        ("SCHILY.xattr.user.empty", b""),
        ("mtime", b"12.3456789019"),
        ("uid", b"4294967294"),
        ("gid", b"7"),
        ("gid", b""),
        ("comment", b"x"),
        ("atime", b"not looked at"),
    ];
    let archive = [
        pax(&[("path", b"taken back"), ("size", b"7"), ("linkpath", b"x"), ("mtime", b"1")]),
        pax(&[("path", b""), ("size", b""), ("linkpath", b""), ("mtime", b"")]),
        raw(b'2', b"short", b"target", b"", |b| b[136..147].copy_from_slice(b"00000000005")),
        pax(records),
        raw(b'0', b"short", b"", b"", |b| b[116..123].copy_from_slice(b"0000011")),
        // Before any standard, and star's: a shorter prefix, times after it.
        raw(0, b"v7", b"", b"x", |b| b[257..512].fill(0)),
        raw(0, b"v7dir/", b"", b"", |b| b[257..512].fill(0)),
        raw(b'0', b"star", b"", b"", |b| {
            b[345..348].copy_from_slice(b"pre");
            b[476..487].copy_from_slice(b"12345670123");
            b[508..512].copy_from_slice(b"tar\0");
        }),
        // A directory by its name only has the content of a file, which is passed over.
        raw(b'0', b"odd/", b"", b"content", |_| ()),
        raw(b'7', b"contiguous", b"", b"x", |_| ()),
        raw(b'5', b"numbers", b"", b"", |b| {
            b[108..116].copy_from_slice(b"\x80\0\0\0\xff\xff\xff\xfe");
            b[136..148].copy_from_slice(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xf6");
        }),
        end(),
    ]
    .concat();
    let all = walk(&archive).unwrap();
    let entry = |path: &[u8]| &all.iter().find(|(e, _)| e.path == path).unwrap().0;
    assert_eq!((entry(b"short").link.as_slice(), entry(b"short").meta.mtime), (&b"target"[..], (5, 0)));
    let odd = &entry(b"\xff\xfe/\x80").meta;
    assert_eq!((odd.uid, odd.gid, odd.mtime), (u32::MAX - 1, 9, (12, 345_678_901)));
    let xattrs: Vec<(&str, &[u8])> =
        odd.xattrs.iter().map(|(k, v)| (std::str::from_utf8(k).unwrap(), &v[..])).collect();
    let expected: [(&str, &[u8]); 4] =
        [("user.a=b", b"value"), ("user.both", b"yes"), ("user.empty", b""), ("user.twice", b"2")];
    assert_eq!(xattrs, expected);
    assert_eq!((entry(b"v7").kind, entry(b"v7dir").kind), (Kind::File, Kind::Dir));
    assert_eq!((entry(b"pre/star").kind, entry(b"odd").size), (Kind::File, 0));
    assert_eq!(entry(b"contiguous").kind, Kind::File);
    assert_eq!((entry(b"numbers").meta.uid, entry(b"numbers").meta.mtime), (u32::MAX - 1, (-10, 0)));
}

#[test]
fn sizes_beyond_the_octal_field() {
    // 9 GiB in a base-256 field and in a pax record; nobody reads them here.
    let size: u64 = 9 << 30;
    let binary = |b: &mut [u8]| {
        b[124..136].fill(0);
        b[124] = 0x80;
        b[128..136].copy_from_slice(&size.to_be_bytes());
    };
    let text = size.to_string();
    for archive in [
        raw(b'0', b"a", b"", b"", binary),
        [pax(&[("size", text.as_bytes())]), raw(b'0', b"a", b"", b"", |_| ())].concat(),
    ] {
        let mut reader = TarReader::new(&archive[..]);
        assert_eq!(reader.next_entry().unwrap().unwrap().size, size);
    }
}

#[test]
fn refuses_broken_and_hostile_archives() {
    let file = |name: &[u8]| raw(b'0', name, b"", b"", |_| ());
    let size = |field: &'static [u8; 12]| raw(b'0', b"a", b"", b"", |b| b[124..136].copy_from_slice(field));
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
        ("without its size", [pax(&[("GNU.sparse.major", b"1")]), file(b"a")].concat()),
        ("unknown version", sparse_pax(&[("major", b"2"), ("minor", b"0"), ("size", b"9")])),
        ("do not fit", sparse_pax(&[("size", b"9"), ("map", b"0,3,2,3")])),
        ("do not fit", sparse_pax(&[("size", b"9"), ("map", b"0,3,8,3")])),
        ("do not fit", sparse_pax(&[("size", b"9"), ("map", b"0,3")])),
        ("do not fit", sparse_pax(&[("size", b"9"), ("map", b"0,3,4")])),
        ("do not fit", sparse_pax(&[("size", b"9"), ("map", b"18446744073709551615,6")])),
        ("damaged pax", sparse_pax(&[("size", b"9"), ("map", b"0,x")])),
        ("damaged pax", sparse_pax(&[("size", b"9"), ("numbytes", b"6"), ("offset", b"0")])),
        ("more than 65536 parts", sparse_pax(&[("size", b"9"), ("map", &[b'1', b','].repeat(140_000))])),
        ("list of parts", in_content(b"1\n0\n")),
        ("list of parts", in_content(b"99999999999999999999999\n")),
        ("list of parts", in_content(b"1\n-1\n3\n")),
        ("more than 65536 parts", in_content(b"65537\n")),
        ("do not fit", in_content(b"1\n0\n3\n")),
        ("do not fit", old_sparse(9, &[(0, 3)], b"abcdef", 0)),
        ("do not fit", old_sparse(9, &[(4, 3), (0, 3)], b"abcdef", 0)),
        ("truncated", old_sparse(9, &[(0, 6)], b"", 1)),
        ("not a number", raw(b'S', b"a", b"", b"", |b| b[483] = b'x')),
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
        assert_eq!((&entry.path[..], &content[..], entry.meta.mode), (name.as_bytes(), &b"abc"[..], 0o4755));
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
