//! `serve`: settings, logs, connections, the worker, and its end.
//!
//! The thread that `main` runs on is the control thread: signals, the endpoint, the watchdog, reloads and the deadline of the
//! drain are here, and turns are not. When this function returns, the process ends, whatever its other threads do.

use std::io;
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{Failure, Serve, exit};
use crate::adapters::wasm::Compiler;
use crate::app::{App, Control, Loaded, Loader, Reloading, StartError, TurnThreads};
use crate::ports::{Inbound, Publisher, TurnStore};
use crate::settings::{Settings, environment};
use crate::telemetry::{self, occupied};
use crate::worker::Drained;

/// How long after `worker.drain_timeout` the process may hand back what is not finished and close its connections.
const GRACE: Duration = Duration::from_secs(4);
/// How long the last lines of the log may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

pub fn run(mut told: Serve) -> Result<(), Failure> {
    told.configured.flags.strict = told.strict;
    let Some(loaded) = told.configured.load()? else {
        return Ok(());
    };
    telemetry::init(&loaded.settings.log).map_err(anyhow::Error::from)?;
    for warning in loaded.warnings.iter() {
        tracing::warn!(problems = %warning, "this is legal, but perhaps not meant");
    }
    let settings = &loaded.settings;
    let threads = TurnThreads::start(settings.worker.threads)?;
    let control = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let ended = control.block_on(async {
        #[cfg(feature = "it")]
        if let Some(kill_at) = told.kill_at {
            let build = async move |settings: Settings, loaded, control: Control| {
                App::build_mortal(&settings, loaded, &control, kill_at).await
            };
            return serve(settings, &threads, build).await;
        }
        let build = async |settings: Settings, loaded, control: Control| {
            App::build(&settings, loaded, &control).await
        };
        serve(settings, &threads, build).await
    });
    // What it still loads or compiles must not hold up the end.
    control.shutdown_background();
    ended
}

/// Works until a signal asks for the end, which may be while it still loads or waits for the servers.
async fn serve<I: Inbound, S: TurnStore, P: Publisher, B>(
    settings: &Settings,
    threads: &TurnThreads,
    build: impl FnOnce(Settings, (Loader, Loaded), Control) -> B,
) -> Result<(), Failure>
where
    B: Future<Output = Result<(App<I, S, P>, Reloading), StartError>> + Send + 'static,
{
    // Whoever sends a signal early must not end what has not begun.
    let mut signals = Signals::listen()?;
    let hangup = signal(SignalKind::hangup())?;
    let compiler = Compiler::of_this_program();
    let loader = Loader::compiling(settings, environment(), compiler)?.keeping();
    let control = Control::start(settings, &loader).await?;
    let building = async {
        let loaded = load(loader).await?;
        let app = threads.spawn(build(settings.clone(), loaded, control.clone()));
        Ok::<_, Failure>(app.await.map_err(anyhow::Error::from)??)
    };
    let (app, reloading) = tokio::select! {
        app = building => app?,
        name = signals.next() => {
            tracing::info!(signal = name, "stopped before it had started");
            return Ok(());
        }
    };
    let stop = CancellationToken::new();
    let mut running = threads.spawn(app.run(stop.clone()));
    tokio::spawn(
        stop.clone()
            .run_until_cancelled_owned(reloading.run(hangup)),
    );
    tokio::select! {
        ended = &mut running => return finished(ended),
        name = signals.next() => tracing::info!(signal = name, "stopping: no new messages, running turns may finish"),
    }
    control.health.draining();
    stop.cancel();
    drain(running, signals, settings.worker.drain_timeout).await
}

async fn load(loader: Loader) -> Result<(Loader, Loaded), Failure> {
    let bound = loader.start().await?;
    for warning in bound.warnings.iter() {
        tracing::warn!(problems = %warning, "this is legal, but perhaps not meant");
    }
    Ok((loader, bound))
}

/// Waits until the worker has drained, until a second signal comes, or until its time is over.
async fn drain(
    running: JoinHandle<Drained>,
    mut signals: Signals,
    timeout: Duration,
) -> Result<(), Failure> {
    let most = timeout.saturating_add(GRACE);
    end_after(most.saturating_add(LAST_WORDS), exit::UNFINISHED);
    tokio::select! {
        ended = running => finished(ended),
        name = signals.next() => {
            end_after(LAST_WORDS, exit::FAILURE);
            tracing::warn!(signal = name, "stopped at once; what was not settled will be delivered again");
            Err(Failure::Other(anyhow::anyhow!("stopped by a second signal")))
        }
        () = tokio::time::sleep(most) => {
            for thread in occupied() {
                thread.warn("a turn still computes and is given up");
            }
            let text = format!(
                "the drain did not come to its end {GRACE:?} after worker.drain_timeout = {timeout:?}; what was not settled \
                 will be delivered again"
            );
            Err(Failure::Unfinished(text))
        }
    }
}

/// Ends the process then, if nothing else has: where the log cannot be written, not even this thread gets to its end.
fn end_after(time: Duration, code: u8) {
    let end = move || {
        thread::sleep(time);
        std::process::exit(code.into());
    };
    if let Err(error) = thread::Builder::new().name("end".to_owned()).spawn(end) {
        tracing::warn!(%error, "nothing but this thread makes sure that the process ends");
    }
}

fn finished(ended: Result<Drained, JoinError>) -> Result<(), Failure> {
    match ended.map_err(anyhow::Error::from)? {
        Drained::Completely => tracing::info!("stopped; every turn finished"),
        Drained::HandedBack(turns) => {
            tracing::warn!(turns, "stopped; unfinished turns were handed back")
        }
    }
    Ok(())
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Nats(_)
            | StartError::Prepare(_)
            | StartError::Redis(_)
            | StartError::Scripts(_) => Self::Unavailable(error.to_string()),
            StartError::Streams(problems) => Self::Problems(problems),
            StartError::Listen { .. } | StartError::Compute(_) => Self::Other(error.into()),
        }
    }
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
