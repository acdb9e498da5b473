//! What operators see: logs, metrics, and whether the worker is alive and ready.

mod backlog;
mod components;
mod compute;
mod exposition;
mod health;
mod labels;
mod limits;
mod logs;
mod memory;
mod metrics;
mod process;
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
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{FilterExt, FilterFn, ParseError, filter_fn};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::model::{PAYLOAD_LOG, Problem, Problems};

pub use backlog::{BacklogMetrics, TenantBacklog};
pub use components::{CallOutcome, Capability, ComponentMetrics};
pub use compute::ComputeMetrics;
pub use exposition::Exposition;
pub use health::{HEARTBEAT, Health, NotReady, Refused, Stall};
pub use labels::{KnownLabels, Reload};
pub use limits::{Limits, TenantLimits};
pub use logs::printable;
pub use metrics::Metrics;
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
    /// One line at info for each turn.
    pub turns: bool,
    /// What users wrote and flows said or stored, at debug.
    pub payloads: bool,
}

/// The target of the line that each turn leaves at info, where the operator wants it ([`Config::turns`]).
pub const TURN_LOG: &str = "greentic_worker::turns";
/// The target of lines with all that the NATS client reads and writes, messages and its own password among them.
const NATS_WIRE: &str = "async_nats::connection";

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
            turns: false,
            payloads: false,
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
        problems.extend(self.ineffective());
        // A misspelt level is a legal target: it would log that target, and nothing else.
        let bare = self.filter.split(',').map(str::trim);
        for word in bare.filter(|word| is_unlikely_target(word)) {
            let message = format!("`{word}` is no level, so only a target of that name is logged");
            problems.push(Problem::warning(message).at("log.filter").remedy(EXAMPLE));
        }
        problems
    }

    /// What shows nothing, since the filter lets nothing of it through.
    fn ineffective(&self) -> Vec<Problem> {
        let most = filter(&self.filter).map(|filter| filter.max_level_hint());
        let Ok(Some(most)) = most else {
            return Vec::new();
        };
        let settings = [
            ("log.turns", self.turns, LevelFilter::INFO),
            ("log.payloads", self.payloads, LevelFilter::DEBUG),
        ];
        let settings = settings.into_iter();
        let ineffective = settings.filter(|(_, is_on, level)| *is_on && most < *level);
        let problem = |(name, _, level): (&str, bool, LevelFilter)| {
            let (filter, level) = (&self.filter, level.to_string());
            Problem::warning(format!(
                "it shows nothing, since `log.filter` is `{filter}`"
            ))
            .at(name)
            .remedy(format!("let `log.filter` show greentic_worker={level}"))
        };
        ineffective.map(problem).collect()
    }

    /// Lets through what is not shown unless it is asked for.
    fn asked_for(&self) -> FilterFn<impl Fn(&Metadata<'_>) -> bool + use<>> {
        let (turns, payloads) = (self.turns, self.payloads);
        let asked_for = move |metadata: &Metadata<'_>| match metadata.target() {
            TURN_LOG => turns,
            PAYLOAD_LOG => payloads,
            NATS_WIRE => *metadata.level() != Level::TRACE,
            _ => true,
        };
        // Without a hint every line of every level would have to ask.
        filter_fn(asked_for).with_max_level_hint(LevelFilter::TRACE)
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
    let filter = filter(&config.filter)?.and(config.asked_for());
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
    let level = word.parse::<LevelFilter>().is_ok();
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
mod metrics_tests;
#[cfg(test)]
mod tests;
