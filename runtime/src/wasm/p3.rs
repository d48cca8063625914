//! WASI 0.3: the interfaces whose functions are asynchronous, with streams and futures of the component model. A guest
//! may import them beside those of 0.2; both are linked by `p2/link.rs` and run by [`super::p2`].
//!
//! ```text
//! link.rs      the interfaces by name
//! fs.rs        wasi:filesystem over the union
//! streams.rs   contents and listings as streams of the component model
//! clock.rs     timers
//! errno.rs     this version's error codes
//! ```

mod clock;
mod errno;
mod fs;
pub(super) mod link;
mod streams;
#[cfg(test)]
mod tests;
