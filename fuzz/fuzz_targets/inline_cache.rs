#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| targets::inline_cache::check(input));
