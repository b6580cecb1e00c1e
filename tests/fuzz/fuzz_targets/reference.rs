//! `reference`, guided by coverage.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rbuild_fuzz::reference(data));
