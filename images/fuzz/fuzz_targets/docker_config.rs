//! `dhow_images::fuzzing::{TARGETS}`: docker_config.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dhow_images_fuzz::run("docker_config", data));
