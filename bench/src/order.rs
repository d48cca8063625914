//! Whether a build has its start's functions together, as `cli/start.order` wants them.
//!
//! Names that a build does not have are passed over in silence, and a list that has gone stale shows in nothing but slower
//! starts. The linker puts what it has found in a section of its own; its size is compared with what the list says.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::made::repository;

/// The section of `cli/link.rs`.
const SECTION: &[u8] = b".text.start";
/// How much of it may be missing, in percent, before it is worth a word.
const MAY_BE_MISSING: u64 = 15;

/// A sentence for the reader when too much of the list was not found.
pub(crate) fn complaint(program: &Path) -> Result<Option<String>> {
    let list = fs_err::read_to_string(repository().join("cli/start.order"))?;
    let wanted = list.lines().filter_map(|line| line.strip_prefix("# ")?.parse::<u64>().ok()).next();
    let wanted = wanted.context("cli/start.order does not say how large it is")?;
    let found = section(&fs_err::read(program)?, SECTION).unwrap_or(0);
    let missing = wanted.saturating_sub(found) * 100 / wanted.max(1);
    Ok((missing > MAY_BE_MISSING).then(|| {
        format!(
            "of the functions of a start only {} of {} KiB lie together: make cli/start.order anew (bench/start-order)",
            found >> 10,
            wanted >> 10
        )
    }))
}

/// The size of a section of a 64 bit ELF file of this machine's byte order.
fn section(file: &[u8], name: &[u8]) -> Option<u64> {
    let number = |at: u64, length: usize| -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        let mut bytes = [0; 8];
        bytes[..length].copy_from_slice(file.get(at..at.checked_add(length)?)?);
        Some(u64::from_le_bytes(bytes))
    };
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (headers, each, count) = (number(0x28, 8)?, number(0x3a, 2)?, number(0x3c, 2)?);
    let header = |index: u64| headers.checked_add(each * index);
    let names = number(header(number(0x3e, 2)?)? + 0x18, 8)?;
    (0..count).filter_map(header).find_map(|header| {
        let at = usize::try_from(names.checked_add(number(header, 4)?)?).ok()?;
        let found = file.get(at..)?.strip_prefix(name)?.first() == Some(&0);
        if found { number(header + 0x20, 8) } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_of_a_program_are_found() {
        let own = fs_err::read(std::env::current_exe().expect("path")).expect("program");
        assert!(section(&own, b".text").is_some_and(|size| size > 10_000));
        assert_eq!(section(&own, b".tex"), None);
        assert_eq!(section(b"\x7fELF\x02\x01", b".text"), None);
        assert_eq!(section(&own[..own.len() / 2], b".text"), None);
    }
}
