#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| memit_engine::fuzzing::ledger(bytes));
