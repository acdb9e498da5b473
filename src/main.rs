//! The command line.

mod purge;

use std::process::ExitCode;

use clap::Parser;
use greentic_worker::cli::{self, Cli};

/// A turn makes hundreds of small allocations, on whichever thread it is at the time: the C library's own allocator takes
/// a quarter of the processor for them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.serves() {
        purge::start();
    }
    cli::run(cli)
}
