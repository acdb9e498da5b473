//! The commands.

mod chat;
mod check;
mod deadletters;
mod flow;
mod pack;
mod schema;
mod serve;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::adapters::wasm::{CompilerOptions, run_compiler};
use crate::model::Problems;
use crate::settings::{self, Flags, Loaded};
use crate::telemetry::printable;

/// Exit codes as in sysexits.h, so that a supervisor can tell a mistake from a failure.
mod exit {
    /// What the operator or author wrote cannot be used.
    pub const USAGE: u8 = 64;
    /// A server is away.
    pub const UNAVAILABLE: u8 = 69;
    /// The worker was told to stop, and something did not come to its end in time.
    pub const UNFINISHED: u8 = 75;
    /// Anything else.
    pub const FAILURE: u8 = 1;
}

/// Runs conversation flows from NATS, exactly once, with waits in Redis.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None, propagate_version = true, max_term_width = 110)]
#[command(
    after_help = "Begin with `greentic-worker check`, which needs no server, and `greentic-worker chat`, which \
                        needs none either. Every setting is in docs/settings.md; `serve --print-config` shows those in force."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

impl Cli {
    /// Returns whether the process is to stay, and serve.
    pub fn serves(&self) -> bool {
        matches!(self.command, Command::Serve(_))
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve: pull activities from NATS, run their flows, publish the replies
    Serve(Serve),
    /// Check settings, gtbinds, packs and flows without any server, and show who runs what; with --connect the servers, too
    Check(check::Check),
    /// Talk to the flows in this terminal, without any server or through NATS
    Chat(chat::Chat),
    /// Look after dead letters: list, show, replay, drop
    #[command(subcommand, name = "deadletters")]
    DeadLetters(deadletters::DeadLetters),
    /// Test and draw the flows of a pack
    #[command(subcommand)]
    Flow(flow::Flow),
    /// Build and inspect packs
    #[command(subcommand)]
    Pack(pack::Pack),
    /// Print the JSON Schema of the message contract
    Schema(schema::Schema),
    /// Compile a component: what a worker starts for each, with limits on time and memory
    #[command(hide = true)]
    CompileComponent(CompilerOptions),
}

#[derive(Debug, Args)]
struct Serve {
    #[command(flatten)]
    configured: Configured,
    /// All or nothing: do not start without the tenants whose gtbinds or packs cannot be used
    #[arg(long)]
    strict: bool,
    /// Die at this step of a turn
    #[cfg(feature = "it")]
    #[arg(long, hide = true, value_name = "POINT[:NTH][:key=KEY]")]
    kill_at: Option<crate::adapters::kill_points::KillAt>,
}

/// Where settings come from. Later wins: built-in defaults, the file, GREENTIC_WORKER__… variables, flags.
#[derive(Debug, Args)]
struct Configured {
    /// A settings file (YAML); only what differs from the defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
    /// Print the settings in force, secrets masked, and end
    #[arg(long)]
    print_config: bool,
}

/// Why a command ended without success. Everything a person should know has been said in it.
#[derive(Debug)]
enum Failure {
    /// What was written cannot be used.
    Problems(Problems),
    /// A server is away.
    Unavailable(String),
    /// A drain did not come to its end.
    Unfinished(String),
    /// Anything else.
    Other(anyhow::Error),
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::Problems(problems)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Other(error.into())
    }
}

/// Runs the command line to its exit code.
pub fn run(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Serve(serve) => serve::run(serve),
        Command::Check(check) => check::run(&check),
        Command::Chat(chat) => chat::run(chat),
        Command::DeadLetters(command) => deadletters::run(&command),
        Command::Flow(flow) => flow::run(flow),
        Command::Pack(pack) => pack::run(&pack),
        Command::Schema(schema) => schema::run(&schema),
        Command::CompileComponent(options) => run_compiler(options).map_err(Failure::from),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => tell(failure),
    }
}

fn tell(failure: Failure) -> ExitCode {
    let (text, code) = match failure {
        // Someone closed the pipe that we wrote into: they have seen enough.
        Failure::Other(error) if is_broken_pipe(&error) => return ExitCode::SUCCESS,
        Failure::Problems(problems) => (problems.to_string(), exit::USAGE),
        Failure::Unavailable(text) => (format!("error: {text}"), exit::UNAVAILABLE),
        Failure::Unfinished(text) => (format!("error: {text}"), exit::UNFINISHED),
        Failure::Other(error) => (format!("error: {error:#}"), exit::FAILURE),
    };
    // Where standard error is closed, the exit code must do.
    let _ = warn(text);
    ExitCode::from(code)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Prints a text. It may quote a pack or a message, so what a terminal would not show is escaped.
fn say(text: impl std::fmt::Display) -> io::Result<()> {
    writeln!(io::stdout(), "{}", printable(&text.to_string()))
}

/// Prints a text to the standard error, as [`say`] does.
fn warn(text: impl std::fmt::Display) -> io::Result<()> {
    writeln!(io::stderr(), "{}", printable(&text.to_string()))
}

impl Configured {
    /// The settings in force; none if they were only to be printed.
    fn load(&self) -> Result<Option<Loaded>, Failure> {
        let loaded = settings::load(
            self.config.as_deref(),
            &settings::environment(),
            &self.flags,
        )?;
        if self.print_config {
            say(loaded.render().trim_end())?;
            return Ok(None);
        }
        Ok(Some(loaded))
    }
}
