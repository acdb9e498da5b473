//! What a turn costs, as numbers that do not depend on what else the machine does: instructions and allocations, counted
//! by valgrind and compared with `tests/cost/turns.json`. Run it by `./dev cost`; docs/performance.md tells how.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test program that cannot go on fails by panicking, and says what it found on the terminal"
)]

mod baseline;
mod count;
#[path = "../../benches/scenes.rs"]
mod scenes;
mod workload;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use workload::Workload;

#[derive(Parser)]
#[command(name = "cost", bin_name = "./dev cost")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Counts, and compares with the baseline.
    Compare,
    /// Counts, and writes the baseline.
    Update,
    /// What is counted.
    #[command(hide = true)]
    Work { name: String, turns: usize },
}

fn main() -> ExitCode {
    // `cargo test` and nextest start every test program. This one wants a build of its own, so it wants to be asked; to those
    // who ask for a list of tests, it has none.
    let asked = |words: &[&str]| std::env::args().any(|word| words.contains(&word.as_str()));
    if !asked(&["compare", "update", "work"]) {
        if !asked(&["--list"]) {
            println!("cost: not asked for; ./dev cost");
        }
        return ExitCode::SUCCESS;
    }
    match Arguments::parse().command {
        Command::Work { name, turns } => {
            let all = Workload::all();
            let named = all.iter().find(|workload| workload.name() == name);
            named.expect("a workload of this name").run(turns);
            ExitCode::SUCCESS
        }
        Command::Update => {
            baseline::write(&count::all());
            ExitCode::SUCCESS
        }
        Command::Compare => match baseline::compare(&count::all()) {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        },
    }
}
