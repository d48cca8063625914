//! `dhow_images::fuzzing::{TARGETS}`: policy.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dhow_images_fuzz::run("policy", data));
