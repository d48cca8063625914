//! `dhow_images::fuzzing::{TARGETS}`: signature.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dhow_images_fuzz::run("signature", data));
