//! Looks at how many messages wait while the worker runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::adapters::nats::Nats;
use crate::model::TenantId;
use crate::registry::Live;
use crate::telemetry::Metrics;

/// Looks for as long as the worker runs; `every` zero means never.
pub(super) async fn watch(
    nats: Arc<Nats>,
    live: Arc<Live>,
    metrics: Arc<Metrics>,
    every: Duration,
) {
    if every.is_zero() {
        return;
    }
    let mut looks = interval(every);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let registry = live.now();
        let served: Vec<TenantId> = registry.tenants().into_iter().cloned().collect();
        drop(registry);
        match nats.backlog(&served).await {
            Ok(Some(found)) => metrics.backlog().show(found),
            // Without a stream nothing waits.
            Ok(None) => return,
            Err(error) => {
                metrics.backlog().failed();
                tracing::debug!(%error, "cannot look at how many messages wait");
            }
        }
    }
}
