//! `dhow_images::fuzzing::{TARGETS}`: erofs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dhow_images_fuzz::run("erofs", data));
