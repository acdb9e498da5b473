//! What keeps the process in charge of itself: its endpoint and its watchdog. They run on a thread that no turn runs on, so
//! they answer and look on whatever the other threads compute.

use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::net::TcpListener;

use super::limits::limits;
use super::{Loader, StartError};
use crate::adapters::http::{self, Endpoint, Listen};
use crate::adapters::nats::UNREADABLE_HEADERS;
use crate::adapters::system::raise_descriptor_limit;
use crate::ports::RefusalReason;
use crate::settings::Settings;
use crate::telemetry::{Health, KnownLabels, Metrics, Watchdog};
use crate::turn::{DEAD_LETTER_CODES, Part};

/// Descriptors for all but HTTP connections and components: connections to the servers, files and downloads of a reload,
/// the runtimes' own.
const OTHER_DESCRIPTORS: usize = 64;

/// The parts that watch and tell. Their tasks run on the runtime that this was started on.
#[derive(Clone)]
pub struct Control {
    /// Whether the worker is alive and ready.
    pub health: Arc<Health>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Control {
    /// Opens the endpoint and sets the watchdog. From then on the process answers, if only that it is starting.
    ///
    /// # Errors
    /// The address of the endpoint cannot be had.
    pub async fn start(settings: &Settings, loader: &Loader) -> Result<Self, StartError> {
        let connections = descriptors(settings);
        let health = Arc::new(Health::new(settings.http.stalled_after));
        let metrics = Metrics::new(Arc::clone(&health))
            .with_components(loader.counted())
            .with_labels(known_labels())
            .with_limits(limits(settings))
            .with_memory(loader.memory());
        let control = Self {
            health,
            metrics: Arc::new(metrics),
        };
        if let Some(listener) = listen(settings.http.listen).await? {
            if let Ok(address) = listener.local_addr() {
                loader.components().keep_from(address);
            }
            let endpoint = Endpoint {
                health: Arc::clone(&control.health),
                metrics: Arc::clone(&control.metrics),
            };
            let mut config = settings.http.clone();
            config.connections = connections;
            tokio::spawn(http::serve(listener, endpoint, config));
        }
        let limit = settings.worker.turn_timeout;
        tokio::spawn(Watchdog::new(Arc::clone(&control.metrics), limit).run());
        Ok(control)
    }
}

/// The labels that counters have from the start.
fn known_labels() -> KnownLabels {
    let codes = DEAD_LETTER_CODES.iter().copied();
    KnownLabels {
        codes: codes.chain([UNREADABLE_HEADERS]).collect(),
        parts: Part::ALL.map(Part::as_str).to_vec(),
        reasons: RefusalReason::ALL.map(RefusalReason::as_str).to_vec(),
    }
}

async fn listen(listen: Listen) -> Result<Option<TcpListener>, StartError> {
    let Listen::At(address) = listen else {
        return Ok(None);
    };
    let failed = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    tracing::info!(http = %bound, "listening");
    Ok(Some(listener))
}

/// Gets as many descriptors as there are for this process, and warns where they may be too few. The HTTP connections that
/// it can do with.
fn descriptors(settings: &Settings) -> NonZeroUsize {
    let connections = settings.http.connections;
    let Some(most) = raise_descriptor_limit() else {
        return connections;
    };
    let instances = settings.components.instances.get() as usize;
    let needed = OTHER_DESCRIPTORS + connections.get() + instances;
    if most >= needed {
        return connections;
    }
    // A quarter for those who look on is enough; the rest is for those who work.
    let affordable = NonZeroUsize::new(most / 4).unwrap_or(NonZeroUsize::MIN);
    let affordable = affordable.min(connections);
    tracing::warn!(
        limit = most,
        needed,
        http_connections = affordable,
        "the process may have too few files and connections open: with http.connections and components.instances as they are \
         it may need more; raise its limit (`ulimit -n`, systemd's LimitNOFILE) or lower these settings"
    );
    affordable
}
