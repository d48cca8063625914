//! `dhow_images::fuzzing::{TARGETS}`: inflate.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dhow_images_fuzz::run("inflate", data));
