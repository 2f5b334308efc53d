//! libFuzzer's entry for `fuzz_targets::targets::client_frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_targets::targets::client_frame(bytes));
