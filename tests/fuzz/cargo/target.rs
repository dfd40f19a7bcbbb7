//! Every fuzz target: runs the body that has the target's name.
#![no_main]
#![allow(dead_code, reason = "the table comes with the test around it")]

#[path = "../../fuzz.rs"]
mod table;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some((_, body)) = table::BODIES.iter().find(|(name, _)| *name == env!("CARGO_BIN_NAME")) {
        body(data);
    }
});
