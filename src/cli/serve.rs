//! `serve`: settings, logs, connections, the worker, and its end.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Failure, Serve};
use crate::app::{self, App, StartError};
use crate::catalog;
use crate::ports::{Inbound, Publisher, TurnStore};
use crate::registry::Registry;
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
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    tokio.block_on(async {
        let settings = &loaded.settings;
        let registry = load(settings)?;
        let signals = Signals::listen()?;
        #[cfg(feature = "it")]
        if let Some(kill_at) = told.kill_at {
            let building = App::build_mortal(settings, registry, kill_at);
            return serve(building, signals).await;
        }
        serve(App::build(settings, registry), signals).await
    })
}

fn load(settings: &Settings) -> Result<Registry, Failure> {
    let catalog::Loaded {
        registry, warnings, ..
    } = app::load(settings, &environment())?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(registry)
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Nats(_) | StartError::Prepare(_) | StartError::Redis(_) => {
                Self::Unavailable(error.to_string())
            }
            StartError::Streams(problems) => Self::Problems(problems),
            StartError::Listen { .. } | StartError::Components(_) => Self::Other(error.into()),
        }
    }
}

/// Works until a signal asks for the end, which may be while it still waits for the servers.
async fn serve<I: Inbound, S: TurnStore, P: Publisher>(
    building: impl Future<Output = Result<App<I, S, P>, StartError>>,
    mut signals: Signals,
) -> Result<(), Failure> {
    let app = tokio::select! {
        app = building => app?,
        name = signals.next() => {
            tracing::info!(signal = name, "stopped before it had started");
            return Ok(());
        }
    };
    let stop = CancellationToken::new();
    let running = tokio::spawn(app.run(stop.clone()));
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
