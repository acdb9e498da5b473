//! A stopping worker ends at its deadline, whatever is away.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails by panicking"
)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use greentic_worker::adapters::bus::Bus;
use greentic_worker::adapters::memory::MemoryStore;
use greentic_worker::adapters::system::{RandomIds, SystemClock};
use greentic_worker::model::{EnvId, Headers, InboundMessage, TenantId};
use greentic_worker::ports::{Destination, Publisher, TransportError};
use greentic_worker::registry::Registry;
use greentic_worker::telemetry::{Health, Metrics};
use greentic_worker::turn::{Config, Outage, RetryPolicy, Turns};
use greentic_worker::worker::{self, Drained, Worker};
use tokio_util::sync::CancellationToken;

/// A transport that stays away.
struct Away;

impl Publisher for Away {
    async fn publish(
        &self,
        _: Destination<'_>,
        _: &Headers,
        _: Bytes,
    ) -> Result<(), TransportError> {
        Err(TransportError::Unavailable("away".into()))
    }

    fn max_message_bytes(&self) -> usize {
        1024
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_cannot_be_stored_does_not_outlast_the_drain() {
    let tenant = TenantId::new("t").unwrap();
    let (bus, _published) = Bus::new();
    let outage = Outage::default();
    let turns = Turns {
        store: Arc::new(MemoryStore::new(SystemClock, Duration::from_secs(60))),
        publisher: Arc::new(Away),
        registry: Arc::new(Registry::default()),
        clock: Arc::new(SystemClock),
        ids: Arc::new(RandomIds),
        outage: outage.clone(),
        config: Config {
            env: EnvId::new("dev").unwrap(),
            payload_bytes: 1024,
            retry: RetryPolicy {
                attempts: 1,
                initial: Duration::from_millis(1),
                max: Duration::from_millis(1),
            },
            turn_timeout: Duration::from_secs(1),
            lease_ttl: Duration::from_secs(1),
            wait_ttl: Duration::from_secs(1),
        },
    };
    let metrics = Arc::new(Metrics::new(Arc::new(Health::new(Duration::from_secs(60)))));
    let config = worker::Config {
        slots: 1,
        tenants: vec![(tenant.clone(), 1)],
        progress_every: Duration::from_secs(1),
        drain_timeout: Duration::from_secs(5),
        apology: None,
    };
    let stop = CancellationToken::new();
    let running =
        tokio::spawn(Worker::new(Arc::new(bus.clone()), turns, metrics, config).run(stop.clone()));
    bus.send(InboundMessage {
        tenant,
        headers: Headers::default(),
        body: "no JSON".into(),
        sequence: None,
    });
    while !outage.is_active() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    stop.cancel();
    let drained = tokio::time::timeout(Duration::from_secs(60), running).await;
    assert_eq!(drained.unwrap().unwrap(), Drained::HandedBack(1));
}
