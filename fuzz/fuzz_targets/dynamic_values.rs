#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| memit::fuzzing::dynamic_values(bytes));
