//! `check`: everything that can be checked without a server, and with `--connect` the servers, too.

mod connect;

use clap::Args;

use super::{Configured, Failure, say};
use crate::adapters::wasm::Compiler;
use crate::app::{self, Loader};
use crate::settings::environment;

#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    configured: Configured,
    /// Check NATS and Redis, too: versions, rights, streams, consumers, scripts, latency
    ///
    /// Connects as `serve` would, makes and changes nothing, and says what a start would meet: logins and rights, what the
    /// streams and consumers are and how they differ from the settings, limits of the account, whether Redis takes writes and
    /// runs the worker's scripts for each tenant, and messages whose tenant nobody serves. What is wrong goes to the standard
    /// error with its remedy. Exit code: 0 all is well, 64 something must be mended, 69 a server cannot be used.
    #[arg(long)]
    connect: bool,
}

pub fn run(check: &Check) -> Result<(), Failure> {
    let Some(loaded) = check.configured.load()? else {
        return Ok(());
    };
    let compiler = Compiler::of_this_program();
    let loader = Loader::compiling(&loaded.settings, environment(), compiler)?;
    let bound = app::load_with(loader)?;
    say(bound.registry.table())?;
    for warning in loaded.warnings.iter().chain(bound.warnings.iter()) {
        super::warn(warning)?;
    }
    if check.connect {
        connect::run(&loaded.settings, &bound.registry)?;
    }
    Ok(())
}
