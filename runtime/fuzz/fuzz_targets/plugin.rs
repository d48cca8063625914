//! `dhow_runtime::fuzzing::{TARGETS}`: plugin.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dhow_runtime_fuzz::run("plugin", data));
