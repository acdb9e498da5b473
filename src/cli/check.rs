//! `check`: everything that can be checked without a server.

use super::{Configured, Failure, say};
use crate::adapters::wasm::Compiler;
use crate::app::{self, Loader};
use crate::settings::environment;

pub fn run(configured: &Configured) -> Result<(), Failure> {
    let Some(loaded) = configured.load()? else {
        return Ok(());
    };
    let compiler = Compiler::of_this_program();
    let loader = Loader::compiling(&loaded.settings, environment(), compiler)?;
    let bound = app::load_with(loader)?;
    say(bound.registry.table())?;
    for warning in loaded.warnings.iter().chain(bound.warnings.iter()) {
        super::warn(warning)?;
    }
    Ok(())
}
