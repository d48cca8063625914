//! The guest's memory. Pointers and lengths come from the guest: every access is checked against the memory's size,
//! and a bad one is `EFAULT`, never a panic.

use std::io::{IoSlice, IoSliceMut};

use super::errno::Code;

/// Buffers in one call, as Linux counts them.
const IOV_MAX: u32 = 1024;
/// Buffers that are handled without allocating. Libraries use one or two.
const FEW: usize = 8;
/// Bytes in a path or link target; longer ones are refused before they are looked at.
const TEXT_MAX: u32 = 1 << 16;

/// The whole linear memory during one call.
pub(super) struct Guest<'a>(pub(super) &'a mut [u8]);

impl Guest<'_> {
    pub(super) fn bytes(&self, at: u32, length: u32) -> Result<&[u8], Code> {
        let start = at as usize;
        start.checked_add(length as usize).and_then(|end| self.0.get(start..end)).ok_or(Code::FAULT)
    }

    pub(super) fn bytes_mut(&mut self, at: u32, length: u32) -> Result<&mut [u8], Code> {
        let start = at as usize;
        start.checked_add(length as usize).and_then(|end| self.0.get_mut(start..end)).ok_or(Code::FAULT)
    }

    pub(super) fn text(&self, at: u32, length: u32) -> Result<&str, Code> {
        if length > TEXT_MAX {
            return Err(Code::NAMETOOLONG);
        }
        std::str::from_utf8(self.bytes(at, length)?).map_err(|_| Code::ILSEQ)
    }

    pub(super) fn u32(&self, at: u32) -> Result<u32, Code> {
        let bytes = self.bytes(at, 4)?;
        bytes.try_into().map(u32::from_le_bytes).map_err(|_| Code::FAULT)
    }

    pub(super) fn put(&mut self, at: u32, value: &[u8]) -> Result<(), Code> {
        let length = u32::try_from(value.len()).map_err(|_| Code::FAULT)?;
        self.bytes_mut(at, length)?.copy_from_slice(value);
        Ok(())
    }

    pub(super) fn put_u32(&mut self, at: u32, value: u32) -> Result<(), Code> {
        self.put(at, &value.to_le_bytes())
    }

    pub(super) fn put_u64(&mut self, at: u32, value: u64) -> Result<(), Code> {
        self.put(at, &value.to_le_bytes())
    }

    /// A byte count; counts above 32 bits cannot come from 32-bit buffers.
    pub(super) fn put_count(&mut self, at: u32, count: usize) -> Result<(), Code> {
        self.put_u32(at, u32::try_from(count).map_err(|_| Code::OVERFLOW)?)
    }

    /// The `iovec` array itself, eight bytes each.
    fn vectors(&self, at: u32, count: u32) -> Result<&[u8], Code> {
        if count > IOV_MAX {
            return Err(Code::INVAL);
        }
        self.bytes(at, count * 8)
    }

    /// Gives `work` the buffers to write from.
    pub(super) fn sources<T>(
        &self,
        at: u32,
        count: u32,
        work: impl FnOnce(&[IoSlice<'_>]) -> Result<T, Code>,
    ) -> Result<T, Code> {
        let table = self.vectors(at, count)?;
        let slice = |pair| {
            let (start, length) = start_and_length(pair);
            self.bytes(start, length).map(IoSlice::new)
        };
        let mut few = [IoSlice::new(&[]); FEW];
        let Some(few) = few.get_mut(..count as usize) else {
            let many: Result<Vec<_>, _> = table.chunks_exact(8).map(slice).collect();
            return work(&many?);
        };
        for (place, pair) in few.iter_mut().zip(table.chunks_exact(8)) {
            *place = slice(pair)?;
        }
        work(few)
    }

    /// Gives `work` the buffers to read into: as many from the front as are in rising order without overlapping,
    /// which is all of them unless the guest is up to something. A read may always be shorter than asked for.
    pub(super) fn targets<T>(
        &mut self,
        at: u32,
        count: u32,
        work: impl FnOnce(&mut [IoSliceMut<'_>]) -> Result<T, Code>,
    ) -> Result<T, Code> {
        let table = self.vectors(at, count)?;
        let (mut few, mut many) = ([(0, 0); FEW], Vec::new());
        let pairs = if count as usize > FEW {
            many.resize(count as usize, (0, 0));
            &mut many[..]
        } else {
            &mut few[..count as usize]
        };
        for (place, pair) in pairs.iter_mut().zip(table.chunks_exact(8)) {
            *place = start_and_length(pair);
            self.bytes(place.0, place.1)?;
        }
        let mut slices: [IoSliceMut<'_>; FEW] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let mut more = Vec::new();
        let mut used = 0;
        split(self.0, pairs, |slice| match slices.get_mut(used) {
            Some(place) if pairs.len() <= FEW => {
                *place = slice;
                used += 1;
            }
            _ => more.push(slice),
        });
        if pairs.len() > FEW { work(&mut more) } else { work(&mut slices[..used]) }
    }
}

/// What one `iovec` says.
fn start_and_length(pair: &[u8]) -> (u32, u32) {
    let number = |at: usize| {
        pair.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
    };
    (number(0), number(4))
}

/// Cuts the wanted pieces out of the memory, from the front until one lies before the end of the one before it.
fn split<'a>(memory: &'a mut [u8], pairs: &[(u32, u32)], mut take: impl FnMut(IoSliceMut<'a>)) {
    let mut rest = memory;
    let mut position = 0;
    for &(start, length) in pairs.iter().filter(|(_, length)| *length > 0) {
        let Some(skip) = (start as usize).checked_sub(position) else { break };
        let Some((_, behind)) = rest.split_at_mut_checked(skip) else { break };
        let Some((target, behind)) = behind.split_at_mut_checked(length as usize) else { break };
        position += skip + length as usize;
        take(IoSliceMut::new(target));
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_pointers() {
        let mut memory = vec![0u8; 64];
        let mut guest = Guest(&mut memory);
        for (at, length) in [(64, 1), (0, 65), (u32::MAX, 1), (1, u32::MAX), (u32::MAX, u32::MAX)] {
            assert_eq!(guest.bytes(at, length).err(), Some(Code::FAULT), "{at} {length}");
            assert_eq!(guest.bytes_mut(at, length).err(), Some(Code::FAULT), "{at} {length}");
        }
        assert_eq!(guest.bytes(64, 0).map(<[u8]>::len), Ok(0));
        assert_eq!(guest.put_u64(60, 1), Err(Code::FAULT));
        assert_eq!(guest.u32(61), Err(Code::FAULT));
        for (count, code) in
            [(1025, Code::INVAL), (u32::MAX, Code::INVAL), (1024, Code::FAULT), (9, Code::FAULT)]
        {
            assert_eq!(guest.sources(0, count, |_| Ok(())), Err(code), "{count}");
            assert_eq!(guest.targets(0, count, |_| Ok(())), Err(code), "{count}");
        }
        assert_eq!(guest.sources(u32::MAX, 0, |_| Ok(())), Err(Code::FAULT));
        assert_eq!(guest.sources(64, 0, |slices| Ok(slices.len())), Ok(0));
        guest.put(8, &[0xff]).expect("in bounds");
        assert_eq!(guest.text(8, 1), Err(Code::ILSEQ));
        assert_eq!(guest.text(0, u32::MAX), Err(Code::NAMETOOLONG));
    }

    #[test]
    fn many_buffers_at_once() {
        let mut memory = vec![0u8; 4096];
        let mut guest = Guest(&mut memory);
        for count in [0, 1, 7, 8, 9, 300u32] {
            for index in 0..count {
                guest.put_u32(index * 8, 3000 + index).expect("put");
                guest.put_u32(index * 8 + 4, 1).expect("put");
            }
            assert_eq!(guest.sources(0, count, |slices| Ok(slices.len())), Ok(count as usize));
            assert_eq!(guest.targets(0, count, |slices| Ok(slices.len())), Ok(count as usize));
        }
        guest.put_u32(0, u32::MAX).expect("put");
        for count in [1, 300] {
            assert_eq!(guest.sources(0, count, |_| Ok(())), Err(Code::FAULT));
            assert_eq!(guest.targets(0, count, |_| Ok(())), Err(Code::FAULT));
        }
    }

    #[test]
    fn overlapping_targets_are_cut() {
        let mut memory = vec![0u8; 64];
        let mut guest = Guest(&mut memory);
        for (index, (start, length)) in [(32u32, 4u32), (0, 0), (40, 8), (44, 8)].into_iter().enumerate() {
            let at = u32::try_from(index).expect("small") * 8;
            guest.put_u32(at, start).expect("put");
            guest.put_u32(at + 4, length).expect("put");
        }
        let mut lengths = |count| {
            guest.targets(0, count, |targets| {
                Ok(targets.iter().map(|target| target.len()).collect::<Vec<_>>())
            })
        };
        assert_eq!(lengths(4), Ok(vec![4, 8]));
        assert_eq!(lengths(0), Ok(vec![]));
        // More than fit without allocating; all but the first lie before it.
        assert_eq!(lengths(8).map(|lengths| lengths.len()), Ok(2));
    }
}
