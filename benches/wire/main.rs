//! The worker against the wire: real servers, real processes, one load generator for the worker and for a bare loop that
//! does the same job without anything in between. Run it by `./dev bench`; docs/performance.md says what is measured.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench that cannot go on ends by panicking, and says what it does on the terminal"
)]

mod alone;
mod bare_loop;
mod chart;
mod curves;
#[path = "../../tests/it/harness/mod.rs"]
mod harness;
mod ledger;
mod load;
mod packs;
mod report;
mod rounds;
mod sample;
mod stage;
mod talk;
mod waits;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use curves::Curve;
use rounds::Rounds;
use sample::Lengths;

#[derive(Parser)]
#[command(name = "bench", bin_name = "./dev bench")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The worker against the bare loop, or a curve.
    Run(Options),
    /// What the worker is compared with.
    #[command(hide = true)]
    BareLoop {
        nats_url: String,
        redis_url: String,
        tenant: String,
    },
}

/// A part of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// So many conversations at once.
    Closed,
    /// The same with two processes.
    Two,
    /// A fixed rate.
    Open,
    /// What was sent while nobody listened.
    Backlog,
    /// Nothing to do.
    Idle,
    /// Until it is ready.
    Start,
}

/// The worker as released against a bare loop, on private servers.
#[derive(Clone, Debug, Parser)]
pub struct Options {
    /// Shorter and fewer rounds, to see that it works.
    #[arg(long)]
    quick: bool,
    /// Only these parts.
    #[arg(long)]
    only: Vec<Part>,
    /// A curve in place of the comparison.
    #[arg(long)]
    curve: Vec<Curve>,
    /// How many rounds.
    #[arg(long)]
    rounds: Option<usize>,
    /// Conversations at once in the closed loop.
    #[arg(long, default_value_t = 128)]
    conversations: usize,
    /// Another folder for the figures and the chart, besides target/bench.
    #[arg(long)]
    save: Option<PathBuf>,
    /// Another build of the worker than the release.
    #[arg(long, default_value_os_t = stage::released())]
    worker: PathBuf,
}

impl Options {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn rounds(&self) -> usize {
        let usual = match (self.quick, self.curve.is_empty()) {
            (true, _) => 2,
            (false, true) => 5,
            (false, false) => 3,
        };
        self.rounds.unwrap_or(usual).max(1)
    }

    fn lengths(&self) -> Lengths {
        let seconds = if self.quick { (1, 3) } else { (2, 8) };
        Lengths {
            warm_up: Duration::from_secs(seconds.0),
            measured: Duration::from_secs(seconds.1),
        }
    }

    fn backlog(&self) -> usize {
        if self.quick { 20_000 } else { 100_000 }
    }

    fn folders(&self) -> Vec<PathBuf> {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        std::iter::once(own).chain(self.save.clone()).collect()
    }
}

fn main() -> ExitCode {
    // cargo starts every bench, with a word of its own. This one takes minutes, so it wants to be asked.
    let asked = |words: &[&str]| {
        std::env::args()
            .nth(1)
            .is_some_and(|first| words.contains(&first.as_str()))
    };
    if !asked(&["run", "bare-loop"]) {
        println!("wire: not asked for; ./dev bench");
        return ExitCode::SUCCESS;
    }
    let arguments = std::env::args().filter(|argument| argument != "--bench");
    let tokio = tokio::runtime::Builder::new_multi_thread();
    match Arguments::parse_from(arguments).command {
        Command::BareLoop {
            nats_url,
            redis_url,
            tenant,
        } => {
            let ended = block_on(tokio, bare_loop::run(&nats_url, &redis_url, &tenant));
            eprintln!("the bare loop ended: {ended:?}");
            ExitCode::FAILURE
        }
        // On one thread: the load should leave the cores to what it loads.
        Command::Run(options) => {
            let tokio = tokio::runtime::Builder::new_current_thread();
            if block_on(tokio, run(&options)) {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn block_on<F: Future>(mut tokio: tokio::runtime::Builder, future: F) -> F::Output {
    let tokio = tokio.enable_all().build();
    tokio.expect("threads can be started").block_on(future)
}

/// False if a reply was lost, doubled or wrong.
async fn run(options: &Options) -> bool {
    assert!(
        options.worker.is_file(),
        "{} is not there; ./dev bench builds it",
        options.worker.display()
    );
    if !options.curve.is_empty() {
        let mut right = true;
        for curve in &options.curve {
            right &= curves::draw(*curve, options)
                .await
                .expect("it can be saved");
        }
        return right;
    }
    let series = Rounds::hold(options).await;
    let alone = alone::figures(options).await;
    let rows = report::rows(&series);
    report::print_medians(&series);
    let right = report::print(&rows, &alone);
    let json = report::json(&series, &rows, &alone);
    let saved = report::save(&options.folders(), "wire", &json, &chart::ratios(&rows));
    saved.expect("it can be saved");
    right
}
