//! `dhow_images::fuzzing::{TARGETS}`: documents.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dhow_images_fuzz::run("documents", data));
