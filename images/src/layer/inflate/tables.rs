//! What a block's codes stand for, at one look.
//!
//! A table is indexed by the next bits; a longer code leads from there to a table of its own. An entry is
//!
//! ```text
//! bits  0..6    how many bits it uses, extra bits included
//! bits  8..13   of a length or distance: how many of those are the code; of a subtable: the bits of its index
//! bits 13..16   what it is
//! bits 16..32   the literal; what the extra bits are added to; where the subtable begins
//! ```

/// Bits that the first look takes of a literal or a length.
pub(super) const LITLEN_BITS: u32 = 11;
/// Bits that the first look takes of a distance.
pub(super) const DIST_BITS: u32 = 8;
/// Longest code.
const MAX: usize = 15;
/// Enough for all subtables: 2,342 entries with 288 symbols (zlib's `enough` says so); a power of two, so that an
/// index is bounded by a mask.
const LITLEN_SIZE: usize = 4096;
/// 402 with 32 symbols.
const DIST_SIZE: usize = 512;

/// It is not a length or a distance, and not a literal.
pub(super) const SPECIAL: u32 = 1 << 13;
/// With [`SPECIAL`]: it leads to a subtable.
pub(super) const SUBTABLE: u32 = 1 << 14;
/// It is a literal.
pub(super) const LITERAL: u32 = 1 << 15;
/// With [`SPECIAL`]: it is the end of the block.
pub(super) const END: u32 = 1 << 16;
/// A code that is not given; it uses a bit, so that the input is not at its end yet.
const NOTHING: u32 = SPECIAL | 1;

/// The codes of a block do not fit together.
#[derive(Debug)]
pub(super) struct Unfit;

/// What literals and lengths stand for.
pub(super) struct Litlen([u32; LITLEN_SIZE]);
/// What distances stand for.
pub(super) struct Dist([u32; DIST_SIZE]);

impl Default for Litlen {
    fn default() -> Self {
        Self([NOTHING; LITLEN_SIZE])
    }
}

impl Default for Dist {
    fn default() -> Self {
        Self([NOTHING; DIST_SIZE])
    }
}

const LENGTHS: [(u16, u8); 29] = bases(&[3, 4, 5, 6, 7, 8, 9, 10], 4, Some(258));
const DISTANCES: [(u16, u8); 30] = bases(&[1, 2, 3, 4], 2, None);

/// The bases and extra bits: after the first ones, so many of each number of extra bits. The last may be special.
const fn bases<const N: usize>(first: &[u16], each: usize, last: Option<u16>) -> [(u16, u8); N] {
    let mut all = [(0, 0); N];
    let (mut at, mut base) = (0, 0);
    while at < N {
        let mut extra = 0;
        if at < first.len() {
            base = first[at];
        } else {
            #[expect(clippy::cast_possible_truncation, reason = "at most 13")]
            {
                extra = ((at - first.len()) / each + 1) as u8;
            }
        }
        all[at] = (base, extra);
        base = base.wrapping_add(1 << extra);
        at += 1;
    }
    if let Some(last) = last {
        all[N - 1] = (last, 0);
    }
    all
}

impl Litlen {
    pub(super) fn entries(&self) -> &[u32; LITLEN_SIZE] {
        &self.0
    }

    /// Makes the table for codes of these lengths.
    pub(super) fn fill(&mut self, lengths: &[u8]) -> Result<(), Unfit> {
        fill(&mut self.0, LITLEN_BITS, lengths, |symbol, bits| match symbol {
            0..256 => LITERAL | bits | number(symbol) << 16,
            256 => SPECIAL | END | bits,
            // Two of the fixed codes stand for nothing.
            _ => LENGTHS.get(symbol - 257).map_or(NOTHING, |base| sum(*base, bits)),
        })
    }
}

impl Dist {
    pub(super) fn entries(&self) -> &[u32; DIST_SIZE] {
        &self.0
    }

    /// Makes the table for codes of these lengths.
    pub(super) fn fill(&mut self, lengths: &[u8]) -> Result<(), Unfit> {
        fill(&mut self.0, DIST_BITS, lengths, |symbol, bits| {
            DISTANCES.get(symbol).map_or(NOTHING, |base| sum(*base, bits))
        })
    }
}

/// The entry of a length or distance: a base, and bits to add.
fn sum((base, extra): (u16, u8), bits: u32) -> u32 {
    u32::from(base) << 16 | bits << 8 | (bits + u32::from(extra))
}

/// The length or distance that an entry stands for; `buffer` begins with its code.
#[inline(always)]
pub(super) fn value(entry: u32, buffer: u64) -> usize {
    let extra = (buffer & ((1 << (entry & 63)) - 1)) >> ((entry >> 8) & 31);
    super::small(u64::from(entry >> 16) + extra)
}

/// Where the entry of a longer code is; `buffer` begins after what the first table was asked for.
#[inline(always)]
pub(super) fn below(entry: u32, buffer: u64) -> usize {
    super::small(u64::from(entry >> 16) + (buffer & ((1 << ((entry >> 8) & 15)) - 1)))
}

/// The table of the codes that the lengths of the other codes are written in: the symbol, and below it 3 bits of
/// length.
pub(super) fn first(lengths: &[u8; 19]) -> Result<[u8; 128], Unfit> {
    let mut table = [0; 128];
    let codes = Codes::of(lengths);
    if codes.left != 0 {
        return Err(Unfit);
    }
    codes.each(lengths, |symbol, length, code| {
        let entry = u8::try_from(symbol << 3 | length).unwrap_or_default();
        table[usize::from(code)..].iter_mut().step_by(1 << length).for_each(|place| *place = entry);
    });
    Ok(table)
}

/// Which codes there are, in the canonical order.
struct Codes {
    /// How many of each length.
    counts: [u16; MAX + 1],
    /// The part of all codes that is not used, in units of the longest; negative when there are too many.
    left: i32,
}

impl Codes {
    fn of(lengths: &[u8]) -> Self {
        let mut counts = [0; MAX + 1];
        lengths.iter().for_each(|length| counts[usize::from(*length) & MAX] += 1);
        counts[0] = 0;
        let left = counts[1..].iter().fold(1, |left, count| (left << 1) - i32::from(*count));
        Self { counts, left }
    }

    /// Calls with each symbol, the length of its code, and the code as its bits come, in the order of the codes.
    fn each(&self, lengths: &[u8], mut call: impl FnMut(usize, usize, u16)) {
        let mut places = [0; MAX + 2];
        for length in 1..=MAX {
            places[length + 1] = places[length] + usize::from(self.counts[length]);
        }
        let mut sorted = [0; 288];
        for (symbol, length) in lengths.iter().enumerate() {
            let length = usize::from(*length) & MAX;
            if length > 0 {
                sorted[places[length]] = symbol;
                places[length] += 1;
            }
        }
        let (mut code, mut at) = (0_u16, 0);
        for length in 1..=MAX {
            for symbol in &sorted[at..at + usize::from(self.counts[length])] {
                call(*symbol, length, code.reverse_bits() >> (16 - length));
                code = code.wrapping_add(1);
            }
            at += usize::from(self.counts[length]);
            code = code.wrapping_shl(1);
        }
    }
}

fn fill<const N: usize>(
    table: &mut [u32; N],
    bits: u32,
    lengths: &[u8],
    entry: impl Fn(usize, u32) -> u32,
) -> Result<(), Unfit> {
    let codes = Codes::of(lengths);
    let total: u16 = codes.counts.iter().sum();
    // Codes that leave something unused are accepted where there is only one, of one bit, or none; as zlib does.
    let (first, bits) = (1 << bits, small(bits));
    if codes.left < 0 || (codes.left > 0 && total > codes.counts[1]) {
        return Err(Unfit);
    }
    if codes.left > 0 {
        table[..first].fill(NOTHING);
    }
    // The table is made as long as the codes are, and doubled for longer ones.
    let mut size = 1;
    // Where the next subtable begins, and the one being filled: its index in the first table, where it is, its bits.
    let (mut end, mut current) = (first, None);
    let mut remaining = codes.counts;
    codes.each(lengths, |symbol, length, code| {
        let code = usize::from(code);
        while size < length.min(bits) {
            table.copy_within(..1 << size, 1 << size);
            size += 1;
        }
        if length <= bits {
            table[code] = entry(symbol, number(length));
            return;
        }
        let (prefix, rest) = (code & (first - 1), code >> bits);
        let (begin, width) = match current {
            Some((of, begin, width)) if of == prefix => (begin, width),
            _ => {
                // As many bits as the codes with this beginning need, which are the next ones.
                let mut width = length - bits;
                let mut used = usize::from(remaining[length]);
                while used < 1 << width && bits + width < MAX {
                    width += 1;
                    used = (used << 1) + usize::from(remaining[bits + width]);
                }
                let begin = end;
                end += 1 << width;
                table[prefix] = SPECIAL | SUBTABLE | number(begin) << 16 | number(width) << 8 | number(bits);
                current = Some((prefix, begin, width));
                (begin, width)
            }
        };
        remaining[length] -= 1;
        let value = entry(symbol, number(length - bits));
        let mut place = rest;
        while place < 1 << width {
            table[(begin + place) % N] = value;
            place += 1 << (length - bits);
        }
    });
    while codes.left == 0 && size < bits {
        table.copy_within(..1 << size, 1 << size);
        size += 1;
    }
    if codes.left > 0 && total > 0 {
        // The only code.
        let value = table[0];
        table[..first].iter_mut().step_by(2).for_each(|place| *place = value);
    }
    Ok(())
}

#[expect(clippy::cast_possible_truncation, reason = "indexes and lengths are small")]
fn number(value: usize) -> u32 {
    value as u32
}

fn small(bits: u32) -> usize {
    usize::try_from(bits).unwrap_or_default()
}
