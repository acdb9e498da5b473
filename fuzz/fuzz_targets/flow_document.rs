//! The parser of flows as authors write them.
#![no_main]

use std::path::Path;

use greentic_worker::pack::parse_flow;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _read = parse_flow(Path::new("main.ygtc"), text);
});
