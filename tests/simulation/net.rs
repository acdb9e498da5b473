//! JetStream as the worker knows it: a work queue with an ack wait, and streams that drop what they have under the same
//! `Nats-Msg-Id`.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use greentic_worker::model::{Headers, InboundMessage, TenantId, header};
use greentic_worker::ports::{
    Delivery, Destination, Inbound, Publisher, Refusal, RefusalReason, TransportError,
};
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::process::{Away, Process};
use super::world::{ACK_WAIT, Refused, World, locked};

/// The servers, the same for all workers and providers.
pub struct Net {
    world: Arc<World>,
    streams: Mutex<Streams>,
    arrived: Notify,
    /// Something was published.
    pub published: Notify,
}

#[derive(Default)]
struct Streams {
    inbound: BTreeMap<u64, Queued>,
    sequence: u64,
    outbound: Vec<Published>,
    dead: Vec<Published>,
    known: HashMap<String, Instant>,
}

/// A message of the work queue.
struct Queued {
    message: InboundMessage,
    delivered: u64,
    /// When it may be delivered, next.
    due: Instant,
    stored: OffsetDateTime,
}

/// A message that a worker published.
#[derive(Clone, Debug)]
pub struct Published {
    pub tenant: TenantId,
    pub headers: Headers,
    pub body: Bytes,
}

impl Published {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_default()
    }

    pub fn body(&self) -> &str {
        std::str::from_utf8(&self.body).expect("bodies are JSON")
    }
}

impl Net {
    pub fn new(world: Arc<World>) -> Arc<Self> {
        Arc::new(Self {
            world,
            streams: Mutex::default(),
            arrived: Notify::new(),
            published: Notify::new(),
        })
    }

    /// A provider sends a message.
    pub fn send(&self, tenant: &TenantId, headers: Headers, body: String) {
        let mut streams = locked(&self.streams);
        streams.sequence += 1;
        let sequence = streams.sequence;
        self.world.note(format!("{tenant} {sequence} <- {body}"));
        let message = InboundMessage {
            tenant: tenant.clone(),
            headers,
            body: body.into(),
            sequence: Some(sequence),
        };
        let queued = Queued {
            message,
            delivered: 0,
            due: Instant::now(),
            stored: self.world.now(),
        };
        streams.inbound.insert(sequence, queued);
        drop(streams);
        self.arrived.notify_waiters();
    }

    /// Looks at what was published: replies, then dead letters.
    pub fn look<T>(&self, at: impl FnOnce(&[Published], &[Published]) -> T) -> T {
        let streams = locked(&self.streams);
        at(&streams.outbound, &streams.dead)
    }

    pub fn outbound(&self) -> Vec<Published> {
        locked(&self.streams).outbound.clone()
    }

    pub fn dead(&self) -> Vec<Published> {
        locked(&self.streams).dead.clone()
    }

    /// How many messages are not settled.
    pub fn unsettled(&self) -> usize {
        locked(&self.streams).inbound.len()
    }

    /// The next message of a tenant that is due, now under way for the ack wait; else when to look again.
    fn take(
        &self,
        tenant: &TenantId,
    ) -> Result<(u64, OffsetDateTime, InboundMessage), Option<Instant>> {
        let (mut streams, now) = (locked(&self.streams), Instant::now());
        if self.world.streams_are_away() {
            return Err(Some(now + ACK_WAIT));
        }
        let of_tenant = streams
            .inbound
            .iter()
            .filter(|(_, queued)| queued.message.tenant == *tenant);
        let due: Vec<u64> = of_tenant
            .clone()
            .filter(|(_, queued)| queued.due <= now)
            .map(|(sequence, _)| *sequence)
            .collect();
        if due.is_empty() {
            return Err(of_tenant.map(|(_, queued)| queued.due).min());
        }
        let at = match self.world.chance(self.world.plan.overtake) {
            true => self.world.pick(0..due.len()),
            false => 0,
        };
        let queued = streams.inbound.get_mut(&due[at]).expect("it is due");
        queued.delivered += 1;
        queued.due = now + ACK_WAIT;
        Ok((queued.delivered, queued.stored, queued.message.clone()))
    }

    fn settle(&self, sequence: u64, order: Order) {
        if self.world.streams_are_away() {
            self.world.note(format!("{order:?} {sequence} is lost"));
            return;
        }
        let mut streams = locked(&self.streams);
        self.world.note(format!("{order:?} {sequence}"));
        let now = Instant::now();
        match order {
            Order::Ack => {
                streams.inbound.remove(&sequence);
            }
            Order::HandBack(after) => {
                if let Some(queued) = streams.inbound.get_mut(&sequence) {
                    queued.due = now + after;
                }
            }
            Order::Progress => {
                if let Some(queued) = streams.inbound.get_mut(&sequence) {
                    queued.due = now + ACK_WAIT;
                }
            }
        }
        drop(streams);
        self.arrived.notify_waiters();
    }

    /// Stores a message, or refuses it.
    fn take_in(&self, dead_letter: bool, message: Published) -> Result<(), TransportError> {
        if self.world.streams_are_away() {
            return Err(TransportError::Unavailable("the streams are away".into()));
        }
        let id = message.header(header::MSG_ID);
        let is_refused = match self.world.refuses(message.tenant.as_str()) {
            None => false,
            Some(Refused::Everything) => true,
            Some(Refused::LaterReplies) => !dead_letter && !id.ends_with(":0"),
        };
        if is_refused {
            self.world.count("publishes refused");
            self.world.note(format!("{id} is refused"));
            return Err(TransportError::Refused(Refusal {
                reason: RefusalReason::Permission,
                detail: "as the plan says".to_owned(),
            }));
        }
        self.store(dead_letter, message);
        match self.world.lose_streams() {
            true => Err(TransportError::Unavailable("the answer is lost".into())),
            false => Ok(()),
        }
    }

    /// Which replies of a tenant the stream holds.
    fn holds(&self, tenant: &TenantId, ids: &[String]) -> Result<Vec<bool>, TransportError> {
        if self.world.streams_are_away() {
            return Err(TransportError::Unavailable("the streams are away".into()));
        }
        let streams = locked(&self.streams);
        let of_tenant = || streams.outbound.iter().filter(|one| one.tenant == *tenant);
        let holds = |id: &String| {
            let holds = of_tenant().any(|one| one.header(header::MSG_ID) == id);
            self.world.count(match holds {
                true => "late replies that were there",
                false => "late replies that were not there",
            });
            holds
        };
        Ok(ids.iter().map(holds).collect())
    }

    fn store(&self, dead_letter: bool, message: Published) {
        let mut streams = locked(&self.streams);
        let now = Instant::now();
        let stream = if dead_letter { "dead" } else { "outbound" };
        let id = message.header(header::MSG_ID).to_owned();
        let known = streams.known.get(&format!("{stream} {id}"));
        let is_copy = known.is_some_and(|at| *at + self.world.plan.window > now);
        let dropped = if is_copy { ", which it has" } else { "" };
        self.world.note(format!("{stream} <- {id}{dropped}"));
        if is_copy {
            self.world.count("copies that a stream dropped");
            return;
        }
        streams.known.insert(format!("{stream} {id}"), now);
        match dead_letter {
            true => streams.dead.push(message),
            false => streams.outbound.push(message),
        }
        drop(streams);
        self.published.notify_waiters();
    }
}

/// What a worker says of a delivery.
#[derive(Clone, Copy, Debug)]
enum Order {
    Ack,
    HandBack(Duration),
    Progress,
}

/// The servers as one process reaches them.
pub struct NetPort {
    pub process: Arc<Process>,
    pub net: Arc<Net>,
}

fn away(away: Away) -> TransportError {
    TransportError::Unavailable(Box::new(away))
}

/// A pull that is under way.
struct UnderWay {
    process: Arc<Process>,
    net: Arc<Net>,
    tenant: TenantId,
    left: usize,
    until: Instant,
}

impl UnderWay {
    async fn next(&mut self) -> Option<Result<SimDelivery, TransportError>> {
        let world = Arc::clone(&self.process.world);
        while self.left > 0 {
            self.process.running().await;
            // Pullers come to the server in any order.
            sleep(world.millis(0..3)).await;
            let arrived = self.net.arrived.notified();
            let next = match self.net.take(&self.tenant) {
                Ok((delivered, stored, message)) => {
                    self.left -= 1;
                    if world.chance(world.plan.lost) {
                        world.note(format!("delivery of {:?} lost", message.sequence));
                        continue;
                    }
                    let sequence = message.sequence.unwrap_or_default();
                    let worker = self.process.number;
                    world.note(format!(
                        "worker {worker} <- {sequence}, delivery {delivered}"
                    ));
                    world.count(match delivered {
                        1 => "deliveries",
                        _ => "redeliveries",
                    });
                    return Some(Ok(SimDelivery {
                        process: Arc::clone(&self.process),
                        net: Arc::clone(&self.net),
                        sequence,
                        delivered,
                        stored,
                        message,
                    }));
                }
                Err(next) => next,
            };
            if Instant::now() >= self.until {
                return None;
            }
            if world.chance(world.plan.lost / 8) {
                return Some(Err(TransportError::Unavailable("the pull broke".into())));
            }
            let look = next.map_or(self.until, |next| next.min(self.until));
            tokio::select! {
                biased;
                () = arrived => {}
                () = sleep_until(look) => {}
            }
        }
        None
    }
}

impl Inbound for NetPort {
    type Delivery = SimDelivery;
    type Pull = Pin<Box<dyn Stream<Item = Result<SimDelivery, TransportError>> + Send>>;

    async fn pull(
        &self,
        tenant: &TenantId,
        max: usize,
        wait: Duration,
    ) -> Result<Self::Pull, TransportError> {
        let under_way = UnderWay {
            process: Arc::clone(&self.process),
            net: Arc::clone(&self.net),
            tenant: tenant.clone(),
            left: max,
            until: Instant::now() + wait,
        };
        Ok(Box::pin(stream::unfold(under_way, |mut pull| async {
            pull.next().await.map(|delivery| (delivery, pull))
        })))
    }
}

/// A message in a worker's hands.
pub struct SimDelivery {
    process: Arc<Process>,
    net: Arc<Net>,
    sequence: u64,
    delivered: u64,
    stored: OffsetDateTime,
    message: InboundMessage,
}

impl SimDelivery {
    async fn order(&self, what: &'static str, order: Order) -> Result<(), TransportError> {
        let (net, sequence) = (Arc::clone(&self.net), self.sequence);
        let sent = self
            .process
            .send(what, move || net.settle(sequence, order))
            .await;
        sent.map_err(away)
    }
}

impl Delivery for SimDelivery {
    fn message(&self) -> &InboundMessage {
        &self.message
    }

    fn delivered(&self) -> u64 {
        self.delivered
    }

    fn stored(&self) -> Option<u64> {
        u64::try_from(self.stored.unix_timestamp_nanos()).ok()
    }

    async fn progress(&self) -> Result<(), TransportError> {
        self.order("progress", Order::Progress).await
    }

    async fn ack(self) -> Result<(), TransportError> {
        self.order("ack", Order::Ack).await
    }

    async fn hand_back(self, after: Duration) -> Result<(), TransportError> {
        self.order("hand back", Order::HandBack(after)).await
    }
}

impl Publisher for NetPort {
    async fn publish(
        &self,
        to: Destination<'_>,
        headers: &Headers,
        body: Bytes,
    ) -> Result<(), TransportError> {
        let stored = self.publish_in_time(to, headers, body, &|| true).await;
        stored.map(drop)
    }

    async fn publish_in_time(
        &self,
        to: Destination<'_>,
        headers: &Headers,
        body: Bytes,
        in_time: &(dyn Fn() -> bool + Sync),
    ) -> Result<bool, TransportError> {
        let (tenant, dead_letter, call) = match to {
            Destination::Outbound(tenant) => (tenant.clone(), false, "publish"),
            Destination::DeadLetter(tenant) => (tenant.clone(), true, "dead letter"),
        };
        let message = Published {
            tenant,
            headers: headers.clone(),
            body,
        };
        self.process.stumble(call).await;
        if !in_time() {
            self.net.world.count("publishes that were late");
            return Ok(false);
        }
        let net = Arc::clone(&self.net);
        let stored = self
            .process
            .request_now(call, move || net.take_in(dead_letter, message))
            .await;
        stored.map_err(away)?.map(|()| true)
    }

    fn duplicate_window(&self, _: Destination<'_>) -> Option<Duration> {
        Some(self.net.world.plan.window)
    }

    async fn held(
        &self,
        tenant: &TenantId,
        ids: &[&str],
        _: Option<OffsetDateTime>,
    ) -> Result<Vec<bool>, TransportError> {
        let (net, tenant) = (Arc::clone(&self.net), tenant.clone());
        let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        let look = move || net.holds(&tenant, &ids);
        self.process.request("look", look).await.map_err(away)?
    }

    fn max_message_bytes(&self, _: Destination<'_>) -> usize {
        1024 * 1024
    }
}
