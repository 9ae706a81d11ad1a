#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| prosody_entrypoint_fuzz::environment(data));
