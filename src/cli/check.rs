//! `check`: everything that can be checked without a server.

use super::{Configured, Failure, say};
use crate::app;
use crate::settings::environment;

pub fn run(configured: &Configured) -> Result<(), Failure> {
    let Some(loaded) = configured.load()? else {
        return Ok(());
    };
    let bound = app::load(&loaded.settings, &environment())?;
    say(bound.registry.table())?;
    for warning in loaded.warnings.iter().chain(bound.warnings.iter()) {
        super::warn(warning)?;
    }
    Ok(())
}
