//! `dhow_images::fuzzing::{TARGETS}`: challenge.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dhow_images_fuzz::run("challenge", data));
