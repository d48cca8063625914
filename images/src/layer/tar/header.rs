//! The 512 bytes in front of every entry: names, numbers, checksum. Every format since v7.

use super::BLOCK;
use crate::layer::Fault;

/// One header block.
pub(super) type Block = [u8; BLOCK];

pub(super) fn verify_checksum(block: &Block) -> Result<(), Fault> {
    let wrong = || Fault::bad("not a tar archive, or a damaged one: wrong header checksum");
    let expected = number(&block[148..156], "checksum").map_err(|_| wrong())?;
    let byte = |(i, b): (usize, &u8)| if (148..156).contains(&i) { b' ' } else { *b };
    let unsigned: i64 = block.iter().enumerate().map(|e| i64::from(byte(e))).sum();
    // Some old writers summed signed bytes.
    let signed: i64 = block.iter().enumerate().map(|e| i64::from(byte(e).cast_signed())).sum();
    if expected == unsigned || expected == signed { Ok(()) } else { Err(wrong()) }
}

/// Octal digits, or a big-endian two's complement number when the first bit is set (GNU).
pub(super) fn number(field: &[u8], what: &str) -> Result<i64, Fault> {
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

/// A number that cannot be negative.
pub(super) fn size(field: &[u8], what: &str) -> Result<u64, Fault> {
    u64::try_from(number(field, what)?).map_err(|_| Fault::bad(format!("negative {what}")))
}

pub(super) fn until_nul(bytes: &[u8]) -> Vec<u8> {
    bytes[..bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len())].to_vec()
}

/// The name field, with ustar's prefix. GNU's format uses the prefix field for other things, star's a part of it.
pub(super) fn path(block: &Block) -> Vec<u8> {
    let name = until_nul(&block[..100]);
    let is_star = &block[508..512] == b"tar\0";
    let prefix = until_nul(if is_star { &block[345..476] } else { &block[345..500] });
    if &block[257..263] != b"ustar\0" || prefix.is_empty() {
        return name;
    }
    [&prefix[..], b"/", &name].concat()
}
