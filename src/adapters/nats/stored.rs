//! Inbound messages from JetStream: one pull request at a time, each message settled by itself.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::{Message, Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::json;
use tracing::{debug, warn};

use super::fault::Fault;
use super::headers;
use super::link::{Link, Live, refused};
use super::names::{self, StreamName};
use super::pull::{Pull, Silence};
use super::topology::Topology;
use super::unreadable::Unreadable;
use crate::model::{InboundMessage, TenantId};
use crate::ports::{self, TransportError};

/// The longest distance between two signs of life of a pull.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// What a heartbeat may be late by, beyond a missed one.
const GRACE: Duration = Duration::from_secs(1);

/// Pulls whose wait is shorter than this have no heartbeat: their end comes as soon.
const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(100);

/// How long after its wait a pull without heartbeat is over, whether or not the server says so. Of pulls of 128 that ran out
/// after 100 ms with a message every few milliseconds, nats-server 2.9.10 said nothing of one in thirty, with bodies of 128 kB
/// of one in ten; 2.15.1 ended each.
const UNSAID: Duration = Duration::from_millis(250);

/// The consumers of all tenants.
pub(super) struct Consumers {
    link: Arc<Link>,
    topology: Arc<Topology>,
    unreadable: Unreadable,
    known: Mutex<HashMap<TenantId, Arc<Consumer>>>,
}

/// A tenant's consumer, taken to be there until a pull fails.
pub(super) struct Consumer {
    tenant: TenantId,
    /// Where pull requests go.
    next: Subject,
    /// The subscriptions of pulls that are over, to be used again: each one made costs every server of a cluster work.
    idle: Mutex<Vec<Inbox>>,
    doubtful: AtomicBool,
}

/// Where the messages of a pull arrive.
pub(super) struct Inbox {
    pub(super) subject: Subject,
    pub(super) subscriber: Subscriber,
}

impl Consumers {
    pub(super) fn new(link: Arc<Link>, topology: Arc<Topology>, unreadable: Unreadable) -> Self {
        Self {
            link,
            topology,
            unreadable,
            known: Mutex::default(),
        }
    }

    /// Asks for up to `max` messages of a tenant for up to `wait`.
    pub(super) async fn pull(
        &self,
        tenant: &TenantId,
        max: usize,
        wait: Duration,
    ) -> Result<Pull, Fault> {
        // Without an expiry a pull request would wait for ever.
        let wait = wait.max(Duration::from_millis(1));
        self.link.in_time("pull", self.link.connected()).await?;
        self.topology.check_owner(StreamName::Inbound).await?;
        let consumer = self.consumer(tenant).await?;
        // Taken before the request goes out, so that no loss after that is missed.
        let (live, interrupted) = (
            self.link.live(),
            self.link.interrupted(consumer.next.clone()),
        );
        let inbox = match consumer.take_idle() {
            Some(inbox) => inbox,
            None => subscribe(&live).await?,
        };
        let heartbeat = HEARTBEAT.min(wait / 2);
        let mut request = json!({ "batch": max, "expires": nanos(wait) });
        let silence = if heartbeat >= SHORTEST_HEARTBEAT {
            request["idle_heartbeat"] = nanos(heartbeat).into();
            Silence::stalls_after(heartbeat * 2 + GRACE)
        } else {
            Silence::ends_after(wait + UNSAID)
        };
        live.client
            .publish_with_reply(
                consumer.next.clone(),
                inbox.subject.clone(),
                request.to_string().into(),
            )
            .await
            .map_err(refused)?;
        let link = Arc::clone(&self.link);
        Ok(Pull::new(
            link,
            consumer,
            inbox,
            (max, silence),
            interrupted,
        ))
    }

    async fn consumer(&self, tenant: &TenantId) -> Result<Arc<Consumer>, Fault> {
        if let Some(known) = self.known().get(tenant)
            && !known.doubtful.load(Ordering::Relaxed)
        {
            return Ok(Arc::clone(known));
        }
        if !names::fits_a_subject(tenant) {
            return Err(Fault::NoSubject(tenant.to_string()));
        }
        self.topology.repair_consumer(tenant).await?;
        let name = self.link.names.consumer(tenant);
        if let Err(error) = self.unreadable.put_aside(tenant, &name).await {
            warn!(%tenant, %error, "could not look for messages with unreadable headers");
        }
        let consumer = Arc::new(Consumer::new(tenant, &self.link));
        self.known().insert(tenant.clone(), Arc::clone(&consumer));
        Ok(consumer)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<TenantId, Arc<Consumer>>> {
        // Nothing panics while it is held, and a map is never left half changed.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn subscribe(live: &Live) -> Result<Inbox, Fault> {
    let subject = Subject::from(live.client.new_inbox());
    let subscribed = live.client.subscribe(subject.clone()).await;
    let subscriber = subscribed.map_err(|error| Fault::Client(Box::new(error)))?;
    Ok(Inbox {
        subject,
        subscriber,
    })
}

impl Consumer {
    fn new(tenant: &TenantId, link: &Link) -> Self {
        let next = link.names.next_method(tenant);
        Self {
            tenant: tenant.clone(),
            next: link.api_subject(&next).into(),
            idle: Mutex::default(),
            doubtful: AtomicBool::new(false),
        }
    }

    /// Has the next pull see whether the consumer is still there.
    pub(super) fn look_again(&self) {
        self.doubtful.store(true, Ordering::Relaxed);
    }

    fn take_idle(&self) -> Option<Inbox> {
        self.idle().pop()
    }

    pub(super) fn put_idle(&self, inbox: Inbox) {
        self.idle().push(inbox);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Inbox>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message of the stream, or nothing if this is something else that found its way to our inbox.
    pub(super) fn delivery(&self, link: &Arc<Link>, message: Message) -> Option<Delivery> {
        let Some((reply, place)) = message
            .reply
            .and_then(|reply| Place::read(&reply).map(|place| (reply, place)))
        else {
            warn!(subject = %message.subject, "something that JetStream did not send came to a pull");
            return None;
        };
        Some(Delivery {
            link: Arc::clone(link),
            reply,
            delivered: place.delivered,
            stored: place.stored,
            message: InboundMessage {
                tenant: self.tenant.clone(),
                headers: headers::received(message.headers),
                body: message.payload,
                sequence: Some(place.sequence),
            },
        })
    }
}

/// Gives back what a pull asked for and nobody will take. What is still on its way here is not reached, and comes again
/// after the ack wait.
pub(super) fn hand_back(link: &Arc<Link>, mut inbox: Inbox) {
    let Ok(tokio) = tokio::runtime::Handle::try_current() else {
        return;
    };
    let link = Arc::clone(link);
    let task = link.tasks.track_future({
        let link = Arc::clone(&link);
        async move {
            if inbox.subscriber.drain().await.is_err() {
                return;
            }
            let mut handed_back = 0_u32;
            while let Some(message) = inbox.subscriber.next().await {
                let Some(reply) = message.reply.filter(|reply| Place::read(reply).is_some()) else {
                    continue;
                };
                if let Err(error) = link.send(reply, Bytes::from_static(NAK)).await {
                    debug!(%error, "a message was not handed back; it comes again after the ack wait");
                    return;
                }
                handed_back += 1;
            }
            debug!(handed_back, "gave up a pull");
        }
    });
    tokio.spawn(task);
}

const ACK: &[u8] = b"+ACK";
const NAK: &[u8] = b"-NAK";
const PROGRESS: &[u8] = b"+WPI";

/// A message of the inbound stream. Whatever settles it is sent and not waited for: if it is lost, the message comes
/// again.
pub struct Delivery {
    link: Arc<Link>,
    reply: Subject,
    delivered: u64,
    stored: u64,
    message: InboundMessage,
}

impl ports::Delivery for Delivery {
    fn message(&self) -> &InboundMessage {
        &self.message
    }

    fn delivered(&self) -> u64 {
        self.delivered
    }

    fn stored(&self) -> Option<u64> {
        Some(self.stored)
    }

    async fn progress(&self) -> Result<(), TransportError> {
        self.settle(Bytes::from_static(PROGRESS)).await
    }

    async fn ack(self) -> Result<(), TransportError> {
        self.settle(Bytes::from_static(ACK)).await
    }

    async fn hand_back(self, after: Duration) -> Result<(), TransportError> {
        let order = if after.is_zero() {
            Bytes::from_static(NAK)
        } else {
            Bytes::from(format!("-NAK {}", json!({ "delay": nanos(after) })))
        };
        self.settle(order).await
    }
}

impl Delivery {
    async fn settle(&self, order: Bytes) -> Result<(), TransportError> {
        Ok(self.link.send(self.reply.clone(), order).await?)
    }
}

/// What the reply subject of a message says of it.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// How often it was delivered, this time included.
    delivered: u64,
    /// Its position in the stream.
    sequence: u64,
    /// When it was stored, in nanoseconds since 1970.
    stored: u64,
}

impl Place {
    /// Reads `$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<consumer sequence>.<stored>.` and what follows; in its newer
    /// form there is a domain and an account hash before the stream.
    fn read(reply: &str) -> Option<Self> {
        let rest = reply.strip_prefix("$JS.ACK.")?;
        let dots = memchr::memchr_iter(b'.', rest.as_bytes());
        // Which dot is the one before `<delivered>`, from 0.
        let before = match dots.clone().count() {
            6 => 1,
            8.. => 3,
            _ => return None,
        };
        let mut dots = dots.skip(before);
        let (first, second, third) = (dots.next()?, dots.next()?, dots.next()?);
        let (fourth, fifth) = (dots.next()?, dots.next()?);
        Some(Self {
            delivered: rest.get(first + 1..second)?.parse().ok()?,
            sequence: rest.get(second + 1..third)?.parse().ok()?,
            stored: rest.get(fourth + 1..fifth)?.parse().ok()?,
        })
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn the_reply_subject_tells_how_often_a_message_came_and_from_where() {
        #[track_caller]
        fn check(reply: &str, expected: Option<(u64, u64)>) {
            let found = Place::read(reply).map(|place| {
                assert_eq!(place.stored, 1_700_000_000, "{reply}");
                (place.delivered, place.sequence)
            });
            assert_eq!(found, expected, "{reply}");
        }
        check(
            "$JS.ACK.GREENTIC_INBOUND.worker-a.3.17.20.1700000000.0",
            Some((3, 17)),
        );
        check(
            "$JS.ACK.hub.Ab.GREENTIC_INBOUND.worker-a.4.18.20.1700000000.0",
            Some((4, 18)),
        );
        check(
            "$JS.ACK._.Ab.GREENTIC_INBOUND.worker-a.4.18.20.1700000000.0.r",
            Some((4, 18)),
        );
        check("$JS.ACK.short.1", None);
        check("_INBOX.foo.bar", None);
    }
}
