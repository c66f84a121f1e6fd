#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| memit_ringbuf::fuzzing::ring_operations(bytes));
