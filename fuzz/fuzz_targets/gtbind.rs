//! The gtbind parser.
#![no_main]

use std::path::Path;

use greentic_worker::bindings::GtBind;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _read = GtBind::parse(Path::new("t.gtbind"), text);
});
