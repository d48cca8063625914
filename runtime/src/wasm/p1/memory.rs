//! The guest's memory. Pointers and lengths come from the guest: every access is checked against the memory's size,
//! and a bad one is `EFAULT`, never a panic.

use std::io::{IoSlice, IoSliceMut};

use super::errno::Code;

/// Buffers in one call, as Linux counts them.
const IOV_MAX: u32 = 1024;
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

    /// The (start, length) pairs of an `iovec` array.
    pub(super) fn vectors(&self, at: u32, count: u32) -> Result<Vec<(u32, u32)>, Code> {
        if count > IOV_MAX {
            return Err(Code::INVAL);
        }
        let table = self.bytes(at, count * 8)?;
        let number = |bytes: &[u8]| bytes.try_into().map(u32::from_le_bytes).map_err(|_| Code::FAULT);
        table.chunks_exact(8).map(|pair| Ok((number(&pair[..4])?, number(&pair[4..])?))).collect()
    }

    /// Buffers to write from.
    pub(super) fn sources(&self, at: u32, count: u32) -> Result<Vec<IoSlice<'_>>, Code> {
        let vectors = self.vectors(at, count)?;
        vectors.into_iter().map(|(start, length)| self.bytes(start, length).map(IoSlice::new)).collect()
    }

    /// Buffers to read into: as many from the front as are in rising order without overlapping, which is all of them
    /// unless the guest is up to something. A read may always be shorter than asked for.
    pub(super) fn targets(&mut self, at: u32, count: u32) -> Result<Vec<IoSliceMut<'_>>, Code> {
        let vectors = self.vectors(at, count)?;
        for &(start, length) in &vectors {
            self.bytes(start, length)?;
        }
        let mut targets = Vec::with_capacity(vectors.len());
        let mut rest = &mut *self.0;
        let mut position = 0;
        for (start, length) in vectors.into_iter().filter(|(_, length)| *length > 0) {
            let Some(skip) = (start as usize).checked_sub(position) else { break };
            let Some((_, behind)) = rest.split_at_mut_checked(skip) else { break };
            let Some((target, behind)) = behind.split_at_mut_checked(length as usize) else { break };
            position += skip + length as usize;
            targets.push(IoSliceMut::new(target));
            rest = behind;
        }
        Ok(targets)
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
        assert_eq!(guest.vectors(0, 1025).err(), Some(Code::INVAL));
        assert_eq!(guest.vectors(0, 1024).err(), Some(Code::FAULT));
        guest.put(8, &[0xff]).expect("in bounds");
        assert_eq!(guest.text(8, 1), Err(Code::ILSEQ));
        assert_eq!(guest.text(0, u32::MAX), Err(Code::NAMETOOLONG));
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
        let lengths: Vec<_> =
            guest.targets(0, 4).expect("targets").iter().map(|target| target.len()).collect();
        assert_eq!(lengths, [4, 8]);
    }
}
