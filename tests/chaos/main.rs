//! Chaos: real servers and workers, conversations with known right answers, and faults without end. Run it by
//! `./dev chaos --minutes N`; docs/chaos.md tells what it does and what its ledger means.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test program that cannot go on fails by panicking, and says what it does on the terminal"
)]

#[path = "../it/harness/mod.rs"]
mod harness;
mod ledger;
mod plan;
mod poison;
mod proxy;
mod record;
mod redis_pair;
mod refusal;
mod rules;
mod run;
mod talk;
mod vault;
mod world;

use std::process::ExitCode;

use clap::Parser;
use tokio::task::LocalSet;

/// Real servers, three workers, faults of every kind; ends with a ledger.
#[derive(Clone, Debug, Parser)]
#[command(name = "chaos", bin_name = "./dev chaos")]
pub struct Options {
    /// How long faults go on.
    #[arg(long)]
    minutes: f64,
    /// What all faults and conversations follow from; by chance if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// How many conversations are held at once, in all.
    #[arg(long, default_value_t = 60)]
    conversations: usize,
    /// When Redis writes its file to the disk: always, everysec or no.
    #[arg(long, default_value = "always")]
    appendfsync: String,
    /// Faults whose kind holds one of these words only; all if none is given.
    #[arg(long)]
    only: Vec<String>,
}

fn main() -> ExitCode {
    // `cargo test` and nextest start every test program, with words of their own for arguments. This one is worth minutes,
    // so it wants to be asked; to those who ask for a list of tests, it has none.
    let asked = |words: &[&str]| {
        std::env::args().any(|argument| words.iter().any(|word| argument.starts_with(word)))
    };
    if asked(&["--list"]) {
        return ExitCode::SUCCESS;
    }
    if !asked(&["--minutes", "--help"]) {
        println!("chaos: not asked for; ./dev chaos --minutes 2");
        println!("0 passed, 0 failed, 1 skipped");
        return ExitCode::SUCCESS;
    }
    let options = Options::parse();
    let tokio = tokio::runtime::Runtime::new().expect("threads can be started");
    // Faults are carried out on this thread, conversations on the others.
    let passed = LocalSet::new().block_on(&tokio, run::run(&options));
    let (passed, failed) = if passed { (1, 0) } else { (0, 1) };
    println!("{passed} passed, {failed} failed");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
