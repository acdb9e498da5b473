//! `check`: everything that can be checked without a server.

use std::io::{self, Write};

use super::{Configured, Failure, say};
use crate::app;
use crate::catalog;
use crate::settings::environment;

pub fn run(configured: &Configured) -> Result<(), Failure> {
    let Some(loaded) = configured.load()? else {
        return Ok(());
    };
    let catalog::Loaded {
        registry, warnings, ..
    } = app::load(&loaded.settings, &environment())?;
    say(registry.table())?;
    for warning in loaded.warnings.iter().chain(warnings.iter()) {
        writeln!(io::stderr(), "{warning}")?;
    }
    Ok(())
}
