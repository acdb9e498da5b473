//! `serve`: settings, logs, connections, the worker, and its end.

use std::io;
use std::num::NonZeroUsize;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Failure, Serve};
use crate::adapters::wasm::Compiler;
use crate::app::{self, App, Loader, StartError};
use crate::ports::{Inbound, Publisher, TurnStore};
use crate::settings::{Settings, environment};
use crate::telemetry;
use crate::worker::Drained;

pub fn run(told: Serve) -> Result<(), Failure> {
    let Some(loaded) = told.configured.load()? else {
        return Ok(());
    };
    telemetry::init(&loaded.settings.log).map_err(anyhow::Error::from)?;
    for warning in loaded.warnings.iter() {
        tracing::warn!("{warning}");
    }
    runtime(loaded.settings.worker.threads)?.block_on(async {
        let settings = &loaded.settings;
        // Whoever sends a signal early must not end what has not begun.
        let signals = (Signals::listen()?, signal(SignalKind::hangup())?);
        #[cfg(feature = "it")]
        if let Some(kill_at) = told.kill_at {
            let building = async {
                let (loader, bound) = load(settings).await?;
                Ok(App::build_mortal(settings, (loader, bound), kill_at).await?)
            };
            return serve(building, signals).await;
        }
        let building = async {
            let (loader, bound) = load(settings).await?;
            Ok(App::build(settings, loader, bound).await?)
        };
        serve(building, signals).await
    })
}

/// What turns run on. By itself a thread keeps all of a turn in one cache, and writes what many turns send at once.
fn runtime(threads: NonZeroUsize) -> io::Result<Runtime> {
    let mut builder = match threads.get() {
        1 => Builder::new_current_thread(),
        more => {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(more);
            builder
        }
    };
    builder.enable_all().build()
}

async fn load(settings: &Settings) -> Result<(Loader, app::Loaded), Failure> {
    let compiler = Compiler::of_this_program();
    let loader = Loader::compiling(settings, environment(), compiler)?.keeping();
    let bound = loader.start().await?;
    for warning in bound.warnings.iter() {
        tracing::warn!("{warning}");
    }
    Ok((loader, bound))
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Nats(_)
            | StartError::Prepare(_)
            | StartError::Redis(_)
            | StartError::Scripts(_) => Self::Unavailable(error.to_string()),
            StartError::Streams(problems) => Self::Problems(problems),
            StartError::Listen { .. } => Self::Other(error.into()),
        }
    }
}

/// Works until a signal asks for the end, which may be while it still loads or waits for the servers.
async fn serve<I: Inbound, S: TurnStore, P: Publisher>(
    building: impl Future<Output = Result<App<I, S, P>, Failure>>,
    (mut signals, hangup): (Signals, Signal),
) -> Result<(), Failure> {
    let app = tokio::select! {
        app = building => app?,
        name = signals.next() => {
            tracing::info!(signal = name, "stopped before it had started");
            return Ok(());
        }
    };
    let stop = CancellationToken::new();
    let running = tokio::spawn(app.run(stop.clone(), hangup));
    tokio::pin!(running);
    tokio::select! {
        ended = &mut running => return finished(ended),
        name = signals.next() => tracing::info!(signal = name, "stopping: no new messages, running turns may finish"),
    }
    stop.cancel();
    tokio::select! {
        ended = &mut running => finished(ended),
        name = signals.next() => {
            tracing::warn!(signal = name, "stopped at once; what was not settled will be delivered again");
            Err(Failure::Other(anyhow::anyhow!("stopped by a second signal")))
        }
    }
}

fn finished(ended: Result<Drained, tokio::task::JoinError>) -> Result<(), Failure> {
    match ended.map_err(anyhow::Error::from)? {
        Drained::Completely => tracing::info!("stopped; every turn finished"),
        Drained::HandedBack(turns) => {
            tracing::warn!(turns, "stopped; unfinished turns were handed back")
        }
    }
    Ok(())
}

/// The signals that ask a worker to stop.
struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}
