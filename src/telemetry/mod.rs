//! What operators see: logs, metrics, and whether the worker is alive and ready.

mod components;
mod compute;
mod health;
mod logs;
mod memory;
mod metrics;
mod span;
mod tenant;
mod threads;
mod unserved;
mod unusable;
mod watchdog;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{IsTerminal, stderr};
use std::panic::PanicHookInfo;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::model::{Problem, Problems};

pub use components::{CallOutcome, Capability, ComponentMetrics};
pub use compute::ComputeMetrics;
pub use health::{HEARTBEAT, Health, NotReady, Refused, Stall};
pub use logs::printable;
pub use metrics::{Metrics, Reload};
pub use span::{RunHandle, TurnSpan};
pub use tenant::{InFlight, Outcome, TenantMetrics};
pub use threads::{Occupied, occupied};
pub use unserved::UnservedMetrics;
pub use unusable::{Unusable, UnusableMetrics};
pub use watchdog::Watchdog;

/// The settings under `log`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// For whom the log is.
    pub format: Format,
    /// A level, or levels by target: `info,greentic_worker=debug`.
    pub filter: String,
}

/// For whom the log is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// People: one line an event.
    #[default]
    Human,
    /// Programs: one JSON object an event.
    Json,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The filter cannot be read; [`Config::problems`] would have told.
    #[error("`{filter}` is no log filter: {source}")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// This process has a log already.
    #[error("the log is set up already: {0}")]
    AlreadySet(#[from] TryInitError),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            format: Format::default(),
            filter: "info".to_owned(),
        }
    }
}

impl Config {
    /// What is wrong with these settings.
    pub fn problems(&self) -> Problems {
        const EXAMPLE: &str = "write a level, or levels by target: info,greentic_worker=debug";
        let mut problems = Problems::default();
        if let Err(error) = filter(&self.filter) {
            problems.push(
                Problem::error(error.to_string())
                    .at("log.filter")
                    .remedy(EXAMPLE),
            );
        }
        // A misspelt level is a legal target: it would log that target, and nothing else.
        let bare = self.filter.split(',').map(str::trim);
        for word in bare.filter(|word| is_unlikely_target(word)) {
            let message = format!("`{word}` is no level, so only a target of that name is logged");
            problems.push(Problem::warning(message).at("log.filter").remedy(EXAMPLE));
        }
        problems
    }
}

/// Starts the log of this process, on the standard error.
///
/// # Errors
/// If the filter cannot be read, or a log was started before.
pub fn init(config: &Config) -> Result<(), InitError> {
    let layer = layer(config, stderr, stderr().is_terminal())?;
    tracing_subscriber::registry().with(layer).try_init()?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Logs a panic as one line: its message may quote what a user wrote.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("without a message");
    let place = panic.location().map(ToString::to_string);
    let backtrace = Backtrace::capture();
    let backtrace = matches!(backtrace.status(), BacktraceStatus::Captured)
        .then(|| tracing::field::display(backtrace));
    tracing::error!(place, backtrace, "a thread panicked: {message}");
}

fn layer<W>(
    config: &Config,
    writer: W,
    colour: bool,
) -> Result<Box<dyn Layer<Registry> + Send + Sync>, InitError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = filter(&config.filter)?;
    let layer = fmt::layer().with_ansi(colour).with_writer(writer);
    Ok(match config.format {
        Format::Human => layer
            .fmt_fields(logs::Human)
            .event_format(logs::Human)
            .with_filter(filter)
            .boxed(),
        Format::Json => layer
            .fmt_fields(logs::Json)
            .event_format(logs::Json)
            .with_filter(filter)
            .boxed(),
    })
}

fn filter(text: &str) -> Result<EnvFilter, InitError> {
    let parsed = EnvFilter::builder().parse(text);
    parsed.map_err(|source| InitError::Filter {
        filter: text.to_owned(),
        source,
    })
}

fn is_unlikely_target(word: &str) -> bool {
    let level = word.parse::<tracing::level_filters::LevelFilter>().is_ok();
    let known = [
        "greentic_worker",
        "async_nats",
        "redis",
        "hyper",
        "rustls",
        "wasmtime",
    ];
    let target = word.contains(['=', '[', ':']) || known.contains(&word);
    !(level || target || word.is_empty())
}

#[cfg(test)]
mod tests;
