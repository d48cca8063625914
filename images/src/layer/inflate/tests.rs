//! Against zlib: what compressors write, and what nobody would.

use std::io::Read as _;
use std::io::Write as _;

use flate2::Compression;
use proptest::prelude::*;

use super::*;

/// Bytes of many kinds: random ones, text, runs, repetitions from near and far.
pub(crate) fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 11).unwrap() % below
    };
    let mut bytes = Vec::with_capacity(length + 70_000);
    while bytes.len() < length {
        let count = next(400) + 1;
        match next(6) {
            0 => (0..count).for_each(|_| bytes.push(next(256).to_le_bytes()[0])),
            1 => (0..count).for_each(|_| bytes.push(b"etaoin shrdlu\n"[next(14)])),
            2 => bytes.extend(vec![next(256).to_le_bytes()[0]; count * 3]),
            3 if !bytes.is_empty() => {
                // A pattern of a few bytes.
                let back = (next(20) + 1).min(bytes.len());
                (0..count).for_each(|_| bytes.push(bytes[bytes.len() - back]));
            }
            _ if !bytes.is_empty() => {
                let back = (next(40_000) + 1).min(bytes.len());
                (0..count).for_each(|_| bytes.push(bytes[bytes.len() - back]));
            }
            _ => {}
        }
    }
    bytes.truncate(length);
    bytes
}

/// Input in pieces of these sizes, in turn.
struct Pieces<'a> {
    bytes: &'a [u8],
    sizes: Vec<usize>,
    at: usize,
    left: usize,
}

impl<'a> Pieces<'a> {
    fn new(bytes: &'a [u8], sizes: &[usize]) -> Self {
        Self { bytes, sizes: sizes.to_vec(), at: 0, left: 0 }
    }
}

impl io::Read for Pieces<'_> {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("it is read by its buffer"))
    }
}

impl BufRead for Pieces<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            self.left = self.sizes[self.at % self.sizes.len()];
            self.at += 1;
        }
        Ok(&self.bytes[..self.left.min(self.bytes.len())])
    }

    fn consume(&mut self, count: usize) {
        self.bytes = &self.bytes[count..];
        self.left -= count;
    }
}

/// Undoes a stream with so much room at a time; what came before is moved as a window. Returns it with the number of
/// bytes that follow the stream.
fn undo(bytes: &[u8], sizes: &[usize], room: usize) -> io::Result<(Vec<u8>, usize)> {
    let mut input = Pieces::new(bytes, sizes);
    let mut inflate = Inflate::new();
    let mut whole = Vec::new();
    let mut buffer = buffer();
    let mut have = 0;
    while !inflate.is_done() {
        let end = inflate.fill(&mut input, &mut buffer, 0, have, WINDOW + room)?;
        whole.extend_from_slice(&buffer[have..end]);
        have = end.min(WINDOW);
        buffer.copy_within(end - have..end, 0);
    }
    inflate.align();
    let mut rest = 0;
    while inflate.byte(&mut input)?.is_some() {
        rest += 1;
    }
    Ok((whole, rest))
}

fn zlib(bytes: &[u8]) -> io::Result<(Vec<u8>, usize)> {
    let mut whole = Vec::new();
    let mut decoder = flate2::bufread::DeflateDecoder::new(bytes);
    decoder.read_to_end(&mut whole)?;
    // It says nothing about an end that is missing where nothing was written.
    let used = usize::try_from(decoder.total_in()).unwrap();
    Ok((whole, bytes.len() - used))
}

/// Both say the same about a stream.
fn compare(bytes: &[u8], sizes: &[usize], room: usize) {
    match (undo(bytes, sizes, room), zlib(bytes)) {
        (Ok((ours, our_rest)), Ok((theirs, their_rest))) => {
            assert!(ours == theirs, "{} and {} bytes", ours.len(), theirs.len());
            assert_eq!(our_rest, their_rest);
        }
        (Err(_), Err(_)) => {}
        (Err(e), Ok((theirs, _))) if e.kind() == io::ErrorKind::UnexpectedEof && theirs.is_empty() => {}
        (ours, theirs) => {
            panic!("{:?}, but zlib: {:?}", ours.map(|o| o.0.len()), theirs.map(|t| t.0.len()))
        }
    }
}

pub(crate) fn packed(content: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Writes bits, the lowest first.
#[derive(Default)]
struct Written {
    bytes: Vec<u8>,
    bits: u32,
}

impl Written {
    fn put(&mut self, value: u32, count: u32) -> &mut Self {
        for bit in 0..count {
            if self.bits.is_multiple_of(8) {
                self.bytes.push(0);
            }
            *self.bytes.last_mut().unwrap() |=
                u8::from(value.checked_shr(bit).unwrap_or(0) & 1 == 1) << (self.bits % 8);
            self.bits += 1;
        }
        self
    }

    /// A code: its highest bit comes first.
    fn code(&mut self, value: u32, count: u32) -> &mut Self {
        (0..count).rev().for_each(|bit| {
            self.put(value >> bit & 1, 1);
        });
        self
    }

    /// The head of a block with own codes, whose lengths are all written as they are, with 4 bits each.
    fn head(&mut self, litlens: &[u8], dists: &[u8]) -> &mut Self {
        self.put(1, 1).put(2, 2);
        self.put(u32::try_from(litlens.len()).unwrap() - 257, 5);
        self.put(u32::try_from(dists.len()).unwrap() - 1, 5).put(19 - 4, 4);
        // 16 codes of 4 bits: for the lengths 0 to 15.
        self.put(0, 9);
        (0..16).for_each(|_| {
            self.put(4, 3);
        });
        litlens.iter().chain(dists).for_each(|length| {
            self.code((*length).into(), 4);
        });
        self
    }
}

#[test]
fn what_compressors_write() {
    for (seed, length) in [(1, 0), (2, 1), (3, 300), (4, 70_000), (5, 300_000), (6, 1_000_000)] {
        let content = content(seed, length);
        for level in 0..=9 {
            let bytes = packed(&content, level);
            for (sizes, room) in [(&[65536][..], 131_072), (&[1], 1000), (&[7, 1, 300, 16, 17], ROOM)] {
                let (whole, rest) = undo(&bytes, sizes, room).unwrap();
                assert!(whole == content, "{seed} {level}");
                assert_eq!(rest, 0);
            }
        }
    }
}

#[test]
fn what_follows_is_left() {
    let bytes = [packed(b"abcabcabcabc", 6), b"0123456789".to_vec()].concat();
    for size in 1..20 {
        let (whole, rest) = undo(&bytes, &[size], 400).unwrap();
        assert_eq!((&whole[..], rest), (&b"abcabcabcabc"[..], 10));
    }
}

#[test]
fn every_distance_and_length() {
    let mut bytes = content(9, 33_000);
    for distance in (1..40).chain([255, 256, 257, 4095, 32_767, 32_768]) {
        for length in [3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 64, 257, 258, 259, 600] {
            (0..length).for_each(|_| bytes.push(bytes[bytes.len() - distance]));
            bytes.push(distance.to_le_bytes()[0] ^ 0x55);
        }
    }
    for level in [1, 6, 9] {
        assert!(undo(&packed(&bytes, level), &[50_000], 5000).unwrap().0 == bytes);
    }
}

#[test]
fn cut_anywhere() {
    let content = content(11, 5000);
    for level in [0, 1, 9] {
        let bytes = packed(&content, level);
        for end in 0..bytes.len() {
            let error = undo(&bytes[..end], &[64], 2000).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{end}");
        }
    }
}

#[test]
fn blocks_that_nobody_writes() {
    let mut full = vec![8; 256];
    full[255] = 9;
    full.push(9);
    let one = |symbol: usize, length: u8, count: usize| {
        let mut lengths = vec![0; count];
        lengths[symbol] = length;
        lengths
    };
    // Two of the lengths are 1: a code for `a` and one for the end.
    let mut two = one(97, 1, 257);
    two[256] = 1;
    let mut with_match = one(97, 2, 258);
    (with_match[256], with_match[257]) = (2, 1);
    // Codes of all lengths up to the longest.
    let mut long = vec![0; 257];
    for length in 1..=15 {
        long[usize::from(length)] = length;
    }
    long[256] = 15;
    let mut over = two.clone();
    over[3] = 1;
    let mut wide = vec![0; 286];
    (wide[0], wide[256], wide[285]) = (2, 2, 1);

    let mut cases: Vec<(&str, Written)> = Vec::new();
    let mut case = |name, make: &dyn Fn(&mut Written)| {
        let mut written = Written::default();
        make(&mut written);
        cases.push((name, written));
    };
    case("two codes", &|w| {
        w.head(&two, &[0]).put(0b100, 3);
    });
    case("only the end", &|w| {
        w.head(&one(256, 1, 257), &[0]).put(0, 1);
    });
    case("only the end, the other bit", &|w| {
        w.head(&one(256, 1, 257), &[0]).put(1, 1).put(0, 30);
    });
    case("no end", &|w| {
        w.head(&one(97, 1, 257), &[0]).put(0, 30);
    });
    case("one code of two bits", &|w| {
        w.head(&one(256, 2, 257), &[0]).put(0, 30);
    });
    case("too many codes", &|w| {
        w.head(&over, &[0]).put(0, 30);
    });
    case("long codes", &|w| {
        w.head(&long, &[0]);
        (1..=15).for_each(|length| {
            w.code((1 << length) - 2, length);
        });
        w.code(0x7fff, 15);
    });
    case("no distances, one used", &|w| {
        w.head(&with_match, &[0]).code(0b10, 2).code(0, 1).put(0, 30);
    });
    case("one distance, used", &|w| {
        w.head(&with_match, &[1]).code(0b10, 2).code(0, 1).put(0, 1).code(0b11, 2);
    });
    case("one distance, the other bit", &|w| {
        w.head(&with_match, &[1]).code(0b10, 2).code(0, 1).put(1, 1).code(0b11, 2).put(0, 30);
    });
    case("one distance of two bits", &|w| {
        w.head(&with_match, &[2]).code(0b10, 2).code(0, 1).put(0, 2).code(0b11, 2);
    });
    case("a distance before the beginning", &|w| {
        w.head(&with_match, &[1, 1]).code(0b10, 2).code(0, 1).put(1, 1).code(0b11, 2);
    });
    case("the longest length", &|w| {
        w.head(&wide, &[1]).code(0b10, 2).code(0, 1).put(0, 1).code(0b11, 2);
    });
    case("distances of 30 codes", &|w| {
        let mut dists = vec![5; 30];
        (dists[0], dists[1]) = (4, 4);
        w.head(&with_match, &dists).code(0b10, 2).code(0, 1).code(0, 4).code(0b11, 2);
    });
    for literals in [287, 288] {
        case("too many lengths", &|w| {
            w.head(&vec![9; literals], &[0]).put(0, 30);
        });
    }
    for distances in [31, 32] {
        case("too many distances", &|w| {
            w.head(&two, &vec![5; distances]).put(0, 30);
        });
    }
    for symbol in [286, 287] {
        case("fixed codes of nothing", &|w| {
            w.put(1, 1).put(1, 2).code(0b1100_0000 + symbol - 280, 8).put(0, 40);
        });
    }
    for symbol in [30, 31] {
        case("fixed distances of nothing", &|w| {
            w.put(1, 1).put(1, 2).code(0b0011_0000, 8).code(1, 7).code(symbol, 5).put(0, 40);
        });
    }
    case("a fourth type", &|w| {
        w.put(1, 1).put(3, 2).put(0, 40);
    });
    case("a stored block of nothing", &|w| {
        w.put(1, 8).put(0xffff_0000, 32);
    });
    case("a stored block with a wrong length", &|w| {
        w.put(1, 8).put(0xfffe_0000, 32);
    });
    case("a repeated length before the first", &|w| {
        w.put(1, 1).put(2, 2).put(0, 14 - 4).put(15, 4);
        // Codes of one bit for 16 and for 0.
        w.put(1, 3).put(0, 6).put(1, 3).put(0, 45).put(1, 1).put(0, 40);
    });
    assert!(!cases.is_empty());
    for (name, written) in cases {
        println!("{name}");
        for size in [1, 3, 1000] {
            compare(&written.bytes, &[size], 1000);
            // The quick loop needs more to look at.
            compare(&[&written.bytes[..], &[0; 64]].concat(), &[size], 1000);
        }
    }
    let mut whole = Written::default();
    whole.head(&full, &[0]).code(0, 8).code(0x1ff, 9);
    assert_eq!(undo(&whole.bytes, &[9], 1000).unwrap().0, [0]);
}

#[test]
fn a_window_of_exactly_its_size() {
    let mut bytes = content(13, WINDOW);
    bytes.extend_from_within(..300);
    let packed = packed(&bytes, 9);
    assert!(undo(&packed, &[100_000], ROOM + 1).unwrap().0 == bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_bytes_are_judged_alike(bytes in proptest::collection::vec(any::<u8>(), 0..600), size in 1..700_usize) {
        compare(&bytes, &[size, 3], 700);
    }

    #[test]
    fn random_codes_are_judged_alike(
        litlens in proptest::collection::vec(0..12_u8, 257..287),
        dists in proptest::collection::vec(0..8_u8, 1..31),
        rest in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut written = Written::default();
        written.head(&litlens, &dists);
        rest.iter().for_each(|byte| { written.put((*byte).into(), 8); });
        compare(&written.bytes, &[40], 1000);
    }

    /// Codes that are complete: where a length is too short, others are made longer.
    #[test]
    fn complete_codes_are_judged_alike(
        cuts in proptest::collection::vec(any::<u16>(), 1..285),
        dist_cuts in proptest::collection::vec(any::<u16>(), 1..29),
        rest in proptest::collection::vec(any::<u8>(), 0..500),
    ) {
        let mut written = Written::default();
        written.head(&complete(&cuts, 286, 256), &complete(&dist_cuts, 30, 0));
        rest.iter().for_each(|byte| { written.put((*byte).into(), 8); });
        compare(&written.bytes, &[100], 1000);
    }

    #[test]
    fn flipped_bits_are_judged_alike(seed in any::<u64>(), length in 1..40_000_usize, level in 0..10_u32, at in any::<usize>()) {
        let mut bytes = packed(&content(seed, length), level);
        let at = at % (bytes.len() * 8);
        bytes[at / 8] ^= 1 << (at % 8);
        compare(&bytes, &[1000], 3000);
    }
}

/// Lengths of a complete code: a tree in which leaves are divided, one after the other.
fn complete(cuts: &[u16], symbols: usize, must: usize) -> Vec<u8> {
    let mut leaves = vec![1_u8, 1];
    for cut in cuts {
        let at = usize::from(*cut) % leaves.len();
        if leaves[at] < 15 && leaves.len() < symbols {
            leaves[at] += 1;
            leaves.push(leaves[at]);
        }
    }
    let mut lengths = vec![0; symbols];
    // Some symbol has the first one; the others follow in steps that meet all.
    for (n, leaf) in leaves.iter().enumerate() {
        lengths[(must + n * 7) % symbols] = *leaf;
    }
    lengths
}
