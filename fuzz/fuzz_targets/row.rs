//! libFuzzer's entry for `fuzz_targets::targets::row`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_targets::targets::row(bytes));
