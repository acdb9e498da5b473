//! A worker without servers.

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

use super::Loaded;
use super::config::{turn_config, worker_config};
use crate::adapters::bus::{Bus, Published};
use crate::adapters::compute::InlineCompute;
use crate::adapters::memory::MemoryStore;
use crate::adapters::system::{RandomIds, SystemClock};
use crate::model::TenantId;
use crate::registry::Live;
use crate::settings::Settings;
use crate::telemetry::{Health, Metrics};
use crate::turn::{AwaitedPacks, Outage, Turns};
use crate::worker::Worker;

/// A worker inside this process, on the in-process bus and in-memory sessions: what `chat` talks to without a server.
pub struct Embedding {
    /// Where activities go in.
    pub bus: Bus,
    /// What comes back.
    pub published: UnboundedReceiver<Published>,
    /// The tenants that can be talked to.
    pub tenants: Vec<TenantId>,
}

impl Embedding {
    /// Starts it with what was loaded; it ends with the process.
    pub fn start(settings: &Settings, loaded: Loaded) -> Self {
        let (bus, published) = Bus::new();
        let tenants: Vec<TenantId> = loaded.registry.tenants().into_iter().cloned().collect();
        let turns = Turns {
            store: Arc::new(MemoryStore::new(SystemClock, settings.redis.dedupe_window)),
            publisher: Arc::new(bus.clone()),
            registry: Arc::new(Live::from(loaded.registry)),
            components: loaded.components,
            compute: Arc::new(InlineCompute),
            clock: Arc::new(SystemClock),
            ids: Arc::new(RandomIds),
            outage: Outage::default(),
            awaited: AwaitedPacks::default(),
            config: turn_config(settings),
        };
        let metrics = Arc::new(Metrics::new(Arc::new(Health::new(
            settings.http.stalled_after,
        ))));
        let worker = Worker::new(
            Arc::new(bus.clone()),
            turns,
            metrics,
            worker_config(settings, &tenants),
        );
        tokio::spawn(worker.run(CancellationToken::new()));
        Self {
            bus,
            published,
            tenants,
        }
    }
}
