//! The NATS adapter against real servers.

mod connecting;
mod core;
mod delivering;
mod environments;
mod keys;
mod options;
mod outages;
mod permissions;
mod publishing;
mod refusals;
mod rotation;
mod topology;
pub(crate) mod unreadable;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use greentic_worker::adapters::nats::{Config, Delivery, Nats};
use greentic_worker::model::{EnvId, Headers, TenantId};
use greentic_worker::ports::{Delivery as _, Inbound};

use crate::harness::{DEADLINE, NatsServer};

/// Long enough for anything that should happen; costs only a test that fails.
const SOON: Duration = DEADLINE;

/// Long enough for a message that is there; costs every test that expects none.
const SHORTLY: Duration = Duration::from_millis(300);

/// The environment of workers that a test says nothing more of.
fn env() -> EnvId {
    EnvId::new("dev").unwrap()
}

/// A tenant of this test's own, with dots in its name.
fn tenant() -> TenantId {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    TenantId::new(format!("it.{}-{number}", std::process::id())).unwrap()
}

fn config(server: &NatsServer) -> Config {
    Config {
        url: server.url(),
        ..Config::default()
    }
}

/// Connects and makes what is missing.
async fn nats(config: &Config, tenant: &TenantId) -> Nats {
    let nats = Nats::connect(config, &env()).await.unwrap();
    let problems = nats.prepare(std::slice::from_ref(tenant)).await.unwrap();
    assert!(problems.is_empty(), "{problems}");
    nats
}

/// A provider: a client that knows nothing of us.
async fn provider(server: &NatsServer) -> async_nats::jetstream::Context {
    let client = async_nats::connect(server.url()).await.unwrap();
    async_nats::jetstream::new(client)
}

/// Publishes bodies to `inbound.<tenant>` and waits until they are stored.
async fn provide(provider: &async_nats::jetstream::Context, tenant: &TenantId, bodies: &[&str]) {
    for body in bodies {
        let subject = format!("inbound.{tenant}");
        let stored = provider.publish(subject, body.to_string().into()).await;
        stored.unwrap().await.unwrap();
    }
}

/// One pull, to its end.
async fn pull(nats: &Nats, tenant: &TenantId, max: usize, wait: Duration) -> Vec<Delivery> {
    let pull = nats.pull(tenant, max, wait).await.unwrap();
    pull.map(Result::unwrap).collect().await
}

/// The one message that must come.
async fn one(nats: &Nats, tenant: &TenantId) -> Delivery {
    let mut came = pull(nats, tenant, 1, SOON).await;
    assert_eq!(came.len(), 1, "no message came");
    came.remove(0)
}

/// No message may come.
async fn none(nats: &Nats, tenant: &TenantId) {
    let came = pull(nats, tenant, 10, SHORTLY).await;
    assert_eq!(bodies(&came), Vec::<String>::new());
}

fn bodies(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(body).collect()
}

fn body(delivery: &Delivery) -> String {
    String::from_utf8(delivery.message().body.to_vec()).unwrap()
}

fn headers(pairs: &[(&str, &str)]) -> Headers {
    pairs.iter().copied().collect()
}
