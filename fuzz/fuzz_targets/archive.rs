//! The pack reader: opening ends within the limits, and what opens is no more than they allow.
#![no_main]

use greentic_worker::pack::{Limits, open};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits {
        unpacked_bytes: 4 << 20,
        ..Limits::default()
    };
    if let Ok(pack) = open(bytes, None, &limits) {
        let unpacked: usize = pack.files.values().map(Vec::len).sum();
        assert!(unpacked as u64 <= limits.unpacked_bytes);
    }
});
