//! The transport inside one process: what `chat` and tests use in place of NATS.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use tokio::sync::{Notify, mpsc};

use crate::model::{Headers, InboundMessage, TenantId};
use crate::ports::{Delivery, Destination, Inbound, Publisher, TransportError};

/// The largest message, as nats-server has it unless configured otherwise.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// A bus: messages put in are pulled by a worker, what the worker publishes comes out of the receiver.
#[derive(Clone, Debug)]
pub struct Bus {
    waiting: Arc<Waiting>,
    out: mpsc::UnboundedSender<Published>,
}

/// What a worker published.
#[derive(Clone, Debug)]
pub struct Published {
    /// The tenant.
    pub tenant: TenantId,
    /// Whether it is a dead letter and no reply.
    pub dead_letter: bool,
    /// The headers.
    pub headers: Headers,
    /// The body.
    pub body: Bytes,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: Mutex<HashMap<TenantId, VecDeque<BusDelivery>>>,
    arrived: Notify,
    settled: Notify,
    unsettled: std::sync::atomic::AtomicUsize,
}

/// A message of the bus.
#[derive(Debug)]
pub struct BusDelivery {
    message: InboundMessage,
    delivered: u64,
    bus: Arc<Waiting>,
}

impl Bus {
    /// An empty bus, and what will come out of it.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Published>) {
        let (out, published) = mpsc::unbounded_channel();
        (
            Self {
                waiting: Arc::default(),
                out,
            },
            published,
        )
    }

    /// Puts a message in.
    pub fn send(&self, message: InboundMessage) {
        self.waiting
            .unsettled
            .fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        self.waiting.put(BusDelivery {
            message,
            delivered: 1,
            bus: Arc::clone(&self.waiting),
        });
    }

    /// Waits until every message put in so far is settled.
    pub async fn settled(&self) {
        loop {
            let settled = self.waiting.settled.notified();
            if self
                .waiting
                .unsettled
                .load(std::sync::atomic::Ordering::SeqCst)
                == 0
            {
                return;
            }
            settled.await;
        }
    }
}

impl Waiting {
    fn put(&self, delivery: BusDelivery) {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        messages
            .entry(delivery.message.tenant.clone())
            .or_default()
            .push_back(delivery);
        drop(messages);
        self.arrived.notify_waiters();
    }

    fn take(&self, tenant: &TenantId, max: usize) -> Vec<BusDelivery> {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = messages.get_mut(tenant) else {
            return Vec::new();
        };
        queue.drain(..max.min(queue.len())).collect()
    }
}

impl Inbound for Bus {
    type Delivery = BusDelivery;
    type Pull = stream::Iter<std::vec::IntoIter<Result<BusDelivery, TransportError>>>;

    async fn pull(
        &self,
        tenant: &TenantId,
        max: usize,
        wait: Duration,
    ) -> Result<Self::Pull, TransportError> {
        let first = async {
            loop {
                let arrived = self.waiting.arrived.notified();
                let taken = self.waiting.take(tenant, max);
                if !taken.is_empty() {
                    return taken;
                }
                arrived.await;
            }
        };
        let taken = tokio::time::timeout(wait, first).await.unwrap_or_default();
        Ok(stream::iter(taken.into_iter().map(Ok).collect::<Vec<_>>()))
    }
}

impl Delivery for BusDelivery {
    fn message(&self) -> &InboundMessage {
        &self.message
    }

    fn delivered(&self) -> u64 {
        self.delivered
    }

    async fn progress(&self) -> Result<(), TransportError> {
        Ok(())
    }

    async fn ack(self) -> Result<(), TransportError> {
        self.bus
            .unsettled
            .fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
        self.bus.settled.notify_waiters();
        Ok(())
    }

    async fn hand_back(self, after: Duration) -> Result<(), TransportError> {
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let bus = Arc::clone(&self.bus);
            bus.put(Self {
                delivered: self.delivered + 1,
                ..self
            });
        });
        Ok(())
    }
}

impl Publisher for Bus {
    async fn publish(
        &self,
        to: Destination<'_>,
        headers: &Headers,
        body: Bytes,
    ) -> Result<(), TransportError> {
        let (tenant, dead_letter) = match to {
            Destination::Outbound(tenant) => (tenant.clone(), false),
            Destination::DeadLetter(tenant) => (tenant.clone(), true),
        };
        // Nobody listening is no failure of the turn: the process is about to end.
        let _ = self.out.send(Published {
            tenant,
            dead_letter,
            headers: headers.clone(),
            body,
        });
        Ok(())
    }

    fn max_message_bytes(&self, _to: Destination<'_>) -> usize {
        MAX_MESSAGE_BYTES
    }
}
