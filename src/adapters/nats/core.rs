//! Inbound messages from a server without JetStream: one queue subscription a tenant, nothing stored anywhere.
//!
//! What is handed back or dropped waits in this process and is delivered by it again. It goes with the process.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_nats::{Message, Subscriber};
use futures_util::{FutureExt, Stream, StreamExt};
use tokio::sync::{Mutex as Turn, OwnedMutexGuard, mpsc};
use tokio::time::{Sleep, sleep, timeout};

use super::fault::Fault;
use super::headers;
use super::link::{Link, Live};
use super::names::{self, StreamName};
use crate::model::{InboundMessage, TenantId};
use crate::ports::{self, TransportError};

/// The subscriptions of all tenants.
pub(super) struct Queues {
    link: Arc<Link>,
    /// When a delivery that nobody settled comes again.
    ack_wait: Duration,
    known: Mutex<HashMap<TenantId, Arc<Turn<Queue>>>>,
}

/// A tenant's messages. Pulls take it in turns.
struct Queue {
    tenant: TenantId,
    /// The client that the subscription is of.
    live: Arc<Live>,
    subscriber: Subscriber,
    returned: mpsc::UnboundedReceiver<Held>,
    give_back: mpsc::UnboundedSender<Held>,
}

/// A message with the number of times it was delivered.
struct Held {
    message: InboundMessage,
    delivered: u64,
}

impl Queues {
    pub(super) fn new(link: Arc<Link>, ack_wait: Duration) -> Self {
        Self {
            link,
            ack_wait,
            known: Mutex::default(),
        }
    }

    /// Up to `max` messages of a tenant, waiting for up to `wait`.
    pub(super) async fn pull(
        &self,
        tenant: &TenantId,
        max: usize,
        wait: Duration,
    ) -> Result<Pull, Fault> {
        self.link.in_time("pull", self.link.connected()).await?;
        let interrupted = self.link.interrupted(self.subject(tenant));
        let queue = self.queue(tenant).await?;
        let end = Box::pin(sleep(wait));
        // Another pull of the tenant that lasts as long has the messages: none is left for this one.
        let mut queue = timeout(wait, queue.lock_owned()).await.ok();
        if let Some(queue) = queue.as_deref_mut().filter(|queue| queue.live.has_ended()) {
            queue.live = self.link.live();
            queue.subscriber = self.subscribe(&queue.live, tenant).await?;
        }
        Ok(Pull {
            queue,
            left: max,
            ack_wait: self.ack_wait,
            end,
            interrupted: Box::pin(interrupted),
        })
    }

    /// Ends the subscription of a tenant, so that its messages go to other workers.
    pub(super) fn leave(&self, tenant: &TenantId) {
        self.known().remove(tenant);
    }

    async fn queue(&self, tenant: &TenantId) -> Result<Arc<Turn<Queue>>, Fault> {
        if let Some(queue) = self.known().get(tenant) {
            return Ok(Arc::clone(queue));
        }
        if !names::fits_a_subject(tenant) {
            return Err(Fault::NoSubject(tenant.to_string()));
        }
        let live = self.link.live();
        let subscriber = self.subscribe(&live, tenant).await?;
        let (give_back, returned) = mpsc::unbounded_channel();
        let queue = Arc::new(Turn::new(Queue {
            tenant: tenant.clone(),
            live,
            subscriber,
            returned,
            give_back,
        }));
        // Where two pulls came here at once, the first one's stays and the other's ends with it, unread: one and the
        // same message goes to one of them only.
        Ok(Arc::clone(
            self.known().entry(tenant.clone()).or_insert(queue),
        ))
    }

    fn subject(&self, tenant: &TenantId) -> String {
        self.link.names.subject(StreamName::Inbound, tenant)
    }

    async fn subscribe(&self, live: &Live, tenant: &TenantId) -> Result<Subscriber, Fault> {
        let group = self.link.names.queue_group();
        let subscribed = live.client.queue_subscribe(self.subject(tenant), group);
        subscribed
            .await
            .map_err(|error| Fault::Client(Box::new(error)))
    }

    fn known(&self) -> MutexGuard<'_, HashMap<TenantId, Arc<Turn<Queue>>>> {
        // Nothing panics while it is held, and a map is never left half changed.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The messages of one pull.
pub struct Pull {
    /// None when the pull is over.
    queue: Option<OwnedMutexGuard<Queue>>,
    left: usize,
    ack_wait: Duration,
    end: Pin<Box<Sleep>>,
    interrupted: Pin<Box<dyn Future<Output = Fault> + Send>>,
}

impl Stream for Pull {
    type Item = Result<Delivery, Fault>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(queue) = &mut this.queue else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(held) = queue.poll_held(cx) {
            let delivery = held.map(|held| Delivery::new(held, queue, this.ack_wait));
            this.left = this.left.saturating_sub(1);
            if this.left == 0 || delivery.is_err() {
                this.queue = None;
            }
            return Poll::Ready(Some(delivery));
        }
        if let Poll::Ready(fault) = this.interrupted.poll_unpin(cx) {
            this.queue = None;
            return Poll::Ready(Some(Err(fault)));
        }
        this.end.poll_unpin(cx).map(|()| {
            this.queue = None;
            None
        })
    }
}

impl Queue {
    /// What was handed back goes first: it has waited longest.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Result<Held, Fault>> {
        // The channel never ends: the queue itself holds a sender.
        if let Poll::Ready(Some(held)) = self.returned.poll_recv(cx) {
            return Poll::Ready(Ok(held));
        }
        let message = self.subscriber.poll_next_unpin(cx);
        message.map(|message| Ok(self.first(message.ok_or(Fault::Closed)?)))
    }

    fn first(&self, message: Message) -> Held {
        Held {
            message: InboundMessage {
                tenant: self.tenant.clone(),
                headers: headers::received(message.headers),
                body: message.payload,
                sequence: None,
            },
            delivered: 1,
        }
    }
}

/// A message that only this process knows.
pub struct Delivery {
    held: Held,
    settled: bool,
    ack_wait: Duration,
    give_back: mpsc::UnboundedSender<Held>,
}

impl Delivery {
    fn new(held: Held, queue: &Queue, ack_wait: Duration) -> Self {
        Self {
            held,
            settled: false,
            ack_wait,
            give_back: queue.give_back.clone(),
        }
    }

    fn again(&mut self, after: Duration) {
        self.settled = true;
        let held = Held {
            message: self.held.message.clone(),
            delivered: self.held.delivered + 1,
        };
        let give_back = self.give_back.clone();
        // Without tokio the process is about to end, and the message with it.
        if let Ok(tokio) = tokio::runtime::Handle::try_current() {
            tokio.spawn(async move {
                sleep(after).await;
                // The queue is gone when the worker stops, and what it held with it.
                let _stopped = give_back.send(held);
            });
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if !self.settled {
            self.again(self.ack_wait);
        }
    }
}

impl ports::Delivery for Delivery {
    fn message(&self) -> &InboundMessage {
        &self.held.message
    }

    fn delivered(&self) -> u64 {
        self.held.delivered
    }

    async fn progress(&self) -> Result<(), TransportError> {
        Ok(())
    }

    async fn ack(mut self) -> Result<(), TransportError> {
        self.settled = true;
        Ok(())
    }

    async fn hand_back(mut self, after: Duration) -> Result<(), TransportError> {
        self.again(after);
        Ok(())
    }
}
