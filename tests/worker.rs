//! The worker over ports that fail.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails by panicking"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use greentic_worker::adapters::bus::{Bus, Published};
use greentic_worker::adapters::compute::InlineCompute;
use greentic_worker::adapters::memory::{MemoryStore, PlayedComponents};
use greentic_worker::adapters::system::{RandomIds, SystemClock};
use greentic_worker::app;
use greentic_worker::model::{EnvId, Headers, InboundMessage, TenantId, header};
use greentic_worker::ports::{Clock, Destination, Publisher, TransportError};
use greentic_worker::registry::Registry;
use greentic_worker::settings::Settings;
use greentic_worker::telemetry::{Exposition, Health, Metrics};
use greentic_worker::turn::{AwaitedPacks, Bounds, Config, Outage, RetryPolicy, Turns};
use greentic_worker::worker::{self, Drained, Worker};
use time::OffsetDateTime;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a drain may take.
const DRAIN: Duration = Duration::from_secs(5);

/// A worker of one tenant with its metrics, and the way to stop it.
struct Running {
    metrics: Arc<Metrics>,
    outage: Outage,
    stop: CancellationToken,
    worker: JoinHandle<Drained>,
}

fn start<P: Publisher>(bus: &Bus, publisher: P, registry: Registry, clock: impl Clock) -> Running {
    let outage = Outage::default();
    let turns = Turns {
        store: Arc::new(MemoryStore::new(SystemClock, Duration::from_secs(60))),
        publisher: Arc::new(publisher),
        registry: Arc::new(registry.into()),
        components: Arc::new(PlayedComponents::none()),
        compute: Arc::new(InlineCompute),
        clock: Arc::new(clock),
        ids: Arc::new(RandomIds),
        outage: outage.clone(),
        awaited: AwaitedPacks::default(),
        config: Config {
            env: EnvId::new("dev").unwrap(),
            payload_bytes: 1024,
            retry: RetryPolicy {
                attempts: 3,
                initial: Duration::from_millis(1),
                max: Duration::from_millis(1),
            },
            turn_timeout: Duration::from_secs(1),
            lease_ttl: Duration::from_secs(1),
            wait_ttl: Duration::from_secs(1),
            gone_after: Duration::ZERO,
            bounds: Bounds::default(),
        },
    };
    let metrics = Arc::new(Metrics::new(Arc::new(Health::new(Duration::from_secs(60)))));
    let config = worker::Config {
        slots: 1,
        tenant_queue: 8,
        tenants: vec![(tenant(), 1)],
        progress_every: Duration::from_secs(1),
        drain_timeout: DRAIN,
        apology: None,
    };
    let stop = CancellationToken::new();
    let worker = Worker::new(Arc::new(bus.clone()), turns, Arc::clone(&metrics), config);
    Running {
        metrics,
        outage,
        worker: tokio::spawn(worker.run(stop.clone())),
        stop,
    }
}

fn tenant() -> TenantId {
    TenantId::new("dev.local").unwrap()
}

fn message(body: &str) -> InboundMessage {
    InboundMessage {
        tenant: tenant(),
        headers: Headers::default(),
        body: Bytes::copy_from_slice(body.as_bytes()),
        sequence: None,
    }
}

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

    fn max_message_bytes(&self, _: Destination<'_>) -> usize {
        1024
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_cannot_be_stored_does_not_outlast_the_drain() {
    let (bus, _published) = Bus::new();
    let running = start(&bus, Away, Registry::default(), SystemClock);
    bus.send(message("no JSON"));
    while !running.outage.is_active() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let told = Instant::now();
    running.stop.cancel();
    assert_eq!(running.worker.await.unwrap(), Drained::HandedBack(1));
    assert_eq!(told.elapsed().as_secs(), DRAIN.as_secs());
}

/// A clock that breaks a turn in the midst of its flow: whenever the flow machine is about to take a step of a message
/// that came while it is broken.
struct Broken(Arc<AtomicBool>);

impl Clock for Broken {
    fn now(&self) -> OffsetDateTime {
        assert!(!self.0.load(Ordering::SeqCst), "the spring is broken");
        OffsetDateTime::UNIX_EPOCH
    }
}

/// The demo's flow, which asks for a name.
fn registry() -> Registry {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut settings = Settings::defaults().unwrap();
    settings.bindings = vec![root.join("bindings/hello-pack.gtbind")];
    settings.packs.store = root.join("packs/store");
    let loaded = app::load(&settings, &BTreeMap::new());
    loaded
        .unwrap_or_else(|problems| panic!("{problems}"))
        .registry
}

async fn next(published: &mut UnboundedReceiver<Published>) -> Published {
    let next = tokio::time::timeout(Duration::from_secs(60), published.recv());
    next.await.expect("something is published").unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_midst_of_a_flow_costs_its_message_and_not_the_worker() {
    let (bus, mut published) = Bus::new();
    let broken = Arc::new(AtomicBool::new(true));
    let clock = Broken(Arc::clone(&broken));
    let running = start(&bus, bus.clone(), registry(), clock);
    let say = |id: &str| {
        bus.send(message(&format!(
            r#"{{"id":"{id}","from":{{"id":"u"}},"reply_scope":{{"conversation":"c"}},"text":"hi"}}"#
        )));
    };
    say("m1");
    let dead = next(&mut published).await;
    assert!(dead.dead_letter);
    let says = |name| dead.headers.get(name).unwrap_or_default();
    assert_eq!(says(header::ERROR_CODE), "panic");
    assert!(says(header::ERROR).contains("the spring is broken"));
    assert_eq!(says(header::ATTEMPTS), "3");

    // The same worker, on its only slot, in the same conversation.
    broken.store(false, Ordering::SeqCst);
    say("m2");
    let reply = next(&mut published).await;
    assert!(!reply.dead_letter, "{:?}", reply.headers);
    assert_eq!(reply.headers.get(header::IN_REPLY_TO), Some("m2"));
    running.stop.cancel();
    assert_eq!(running.worker.await.unwrap(), Drained::Completely);
    let metrics = running.metrics.render(Exposition::OpenMetrics).unwrap();
    let counted = r#"dead_letters_total{tenant="dev.local",code="panic"} 1"#;
    assert!(metrics.contains(counted), "{metrics}");
}
