//! Talks to flows that run in this very process, on the in-process bus and in-memory sessions.

use std::convert::Infallible;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;

use super::{Link, Received};
use crate::adapters::bus::{Bus, Published};
use crate::model::{Headers, InboundMessage, TenantId};

/// The way to flows in this process. A turn's end is known here, so nothing is waited for in vain.
pub struct Embedded {
    bus: Bus,
    published: UnboundedReceiver<Published>,
    tenant: TenantId,
}

impl Embedded {
    /// The user's end of a bus whose other end a worker has.
    pub fn new(bus: Bus, published: UnboundedReceiver<Published>, tenant: TenantId) -> Self {
        Self {
            bus,
            published,
            tenant,
        }
    }
}

impl Link for Embedded {
    type Error = Infallible;

    async fn send(&mut self, headers: Headers, body: Value) -> Result<(), Infallible> {
        let body = body.to_string().into();
        self.bus.send(InboundMessage {
            tenant: self.tenant.clone(),
            headers,
            body,
            sequence: None,
        });
        Ok(())
    }

    async fn receive(&mut self, _patience: Duration) -> Result<Option<Received>, Infallible> {
        let published = tokio::select! {
            biased;
            published = self.published.recv() => published,
            () = self.bus.settled() => self.published.try_recv().ok(),
        };
        Ok(published.map(|published| Received {
            headers: published.headers,
            body: serde_json::from_slice(&published.body).unwrap_or(Value::Null),
            dead_letter: published.dead_letter,
        }))
    }
}
