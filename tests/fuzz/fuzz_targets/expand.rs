//! `expand`, guided by coverage.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rbuild_fuzz::expand(data));
