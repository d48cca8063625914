//! Bytes that cross the border and belong to the one who got them.
#![expect(unsafe_code, reason = "memory that another language holds, and exported names")]

use std::ptr;

use crate::pointer;

/// Bytes of ours that the host holds, to be freed by `dhow_buffer_free`. Behind the last one is a zero, so that a text can
/// be used as one of C. `{0}` is an empty one.
#[derive(Debug)]
#[repr(C)]
pub struct Buffer {
    /// The first byte; null if there is nothing.
    pub data: *mut u8,
    /// How many there are, without the zero.
    pub length: usize,
}

impl Buffer {
    pub(crate) const EMPTY: Self = Self { data: ptr::null_mut(), length: 0 };

    pub(crate) fn of(bytes: impl Into<Vec<u8>>) -> Self {
        let mut bytes = bytes.into();
        let length = bytes.len();
        bytes.push(0);
        let data = Box::into_raw(bytes.into_boxed_slice()).cast();
        Self { data, length }
    }

    /// Takes the bytes back.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        if self.data.is_null() {
            return Vec::new();
        }
        let all = ptr::slice_from_raw_parts_mut(self.data, self.length + 1);
        // SAFETY: only [`Buffer::of`] makes such pointers, from a box of this length; by contract each is freed once.
        let mut bytes = unsafe { Box::from_raw(all) }.into_vec();
        bytes.pop();
        bytes
    }
}

/// Frees what a function of this library has put into a buffer. It is empty afterwards, so a second time does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_buffer_free(buffer: *mut Buffer) {
    if buffer.is_null() {
        return;
    }
    // SAFETY: not null, and valid by contract.
    drop(unsafe { buffer.replace(Buffer::EMPTY) }.into_bytes());
}

/// Fills a buffer with a copy of these bytes: for the answer of a function of the host. What was in it is freed.
#[unsafe(no_mangle)]
pub extern "C" fn dhow_buffer_set(buffer: *mut Buffer, data: *const u8, length: usize) {
    if let Ok(bytes) = pointer::bytes(data, length, "data") {
        dhow_buffer_free(buffer);
        pointer::put(buffer, Buffer::of(bytes));
    }
}
