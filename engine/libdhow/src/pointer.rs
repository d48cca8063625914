//! What comes from the other side of the border: pointers, looked at once and turned into what Rust knows.
#![expect(unsafe_code, reason = "pointers of another language")]

use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, Kind};

/// What a pointer to one of our objects points to.
pub(crate) fn object<'a, T>(pointer: *const T, what: &str) -> Result<&'a T, Error> {
    // SAFETY: null or valid, and not freed before the function that got it has returned: the contract of every function.
    unsafe { pointer.as_ref() }.ok_or_else(|| Error::usage(format!("{what} is null")))
}

/// A text in UTF-8 that ends with a zero.
pub(crate) fn text<'a>(pointer: *const c_char, what: &str) -> Result<&'a str, Error> {
    if pointer.is_null() {
        return Err(Error::usage(format!("{what} is null")));
    }
    // SAFETY: it is not null, and by contract it ends with a zero and is not changed meanwhile.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map_err(|_| Error::usage(format!("{what} is no UTF-8")))
}

/// As [`text`], or none for null.
pub(crate) fn maybe_text<'a>(pointer: *const c_char, what: &str) -> Result<Option<&'a str>, Error> {
    if pointer.is_null() { Ok(None) } else { text(pointer, what).map(Some) }
}

/// So many bytes; null is as good as any for none.
pub(crate) fn bytes<'a>(pointer: *const u8, length: usize, what: &str) -> Result<&'a [u8], Error> {
    if length == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() || isize::try_from(length).is_err() {
        return Err(Error::usage(format!("{what} is null, or too long")));
    }
    // SAFETY: it is not null, the length fits, and by contract there are so many bytes that nobody changes meanwhile.
    Ok(unsafe { std::slice::from_raw_parts(pointer, length) })
}

/// Puts a value where the other side wants it, if it does.
pub(crate) fn put<T>(place: *mut T, value: T) {
    if !place.is_null() {
        // SAFETY: not null, and by contract there is room for one; what is there now is not ours to drop.
        unsafe { place.write(value) }
    }
}

/// Gives an object away, until [`take`] gets it back.
pub(crate) fn give<T>(object: T) -> *mut T {
    Box::into_raw(Box::new(object))
}

/// Takes an object back; `None` for null.
pub(crate) fn take<T>(pointer: *mut T) -> Option<T> {
    // SAFETY: not null, it came from [`give`], and by contract it is used no more.
    (!pointer.is_null()).then(|| *unsafe { Box::from_raw(pointer) })
}

/// Does the work of a function of ours: what fails is put where `place` says, and a panic is a failure like any other.
pub(crate) fn attempt<T>(place: *mut *mut Error, work: impl FnOnce() -> Result<T, Error>) -> Option<T> {
    let done = catch_unwind(AssertUnwindSafe(work));
    let done = done.unwrap_or_else(|_| Err(Error::new(Kind::Panic, "libdhow itself panicked".to_owned())));
    match done {
        Ok(value) => Some(value),
        Err(error) => {
            put(place, give(error));
            None
        }
    }
}
