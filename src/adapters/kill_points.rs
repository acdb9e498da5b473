//! Ports under which the process dies at a chosen step of a turn: in builds for the integration tests only.
//!
//! The steps of a turn are the calls that it makes on its ports, so a wrapper round the ports reaches each of them, and
//! what is tested is the same code that is shipped.

use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use clap::ValueEnum;
use futures_util::{Stream, StreamExt};
use rustix::process::{Signal, getpid, kill_process};
use time::OffsetDateTime;

use crate::model::{
    Activity, Headers, InboundMessage, Outbound, TenantId, header, key_from_headers,
};
use crate::ports::{
    Attempts, Begin, Begun, Commit, Committed, Delivery, Destination, Inbound, Lease, Publisher,
    StateSlot, StoreError, StoredState, TransportError, TurnStore,
};

/// The steps of a turn at which the process can be told to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KillPoint {
    /// The message has come, nothing is done yet.
    BeforeBegin,
    /// It is known what is parked; a redelivery holds the lease and has counted its attempt.
    AfterBegin,
    /// The flow asks for state that BEGIN did not bring.
    BeforeReadState,
    /// It got that state.
    AfterReadState,
    /// The flow has run; none of it has left the process.
    BeforeCommit,
    /// The turn is applied, no reply is out.
    AfterCommit,
    /// A reply is about to go out. The second time is between two replies.
    BeforePublish,
    /// A reply is stored, and the next one, or the note, is not.
    AfterPublish,
    /// All replies are out, the outbox is whole.
    BeforePublishedNote,
    /// The outbox is trimmed, the message unsettled.
    AfterPublishedNote,
    /// The message is about to be settled, after its replies or its dead letter.
    BeforeAck,
    /// It was settled, as far as the client knows.
    AfterAck,
    /// A failed turn is about to give up its lease.
    BeforeRelease,
    /// It has given up its lease; the message is still out.
    AfterRelease,
    /// A failed message is about to be handed back.
    BeforeHandBack,
    /// It was handed back, as far as the client knows.
    AfterHandBack,
    /// The turn takes long, and the transport is about to be told so.
    BeforeProgress,
    /// It was told so.
    AfterProgress,
    /// A hopeless message is about to be put aside.
    BeforeDeadLetter,
    /// Its dead letter is stored, the message unsettled, its user untold.
    AfterDeadLetter,
    /// The same, and its attempts are about to be forgotten.
    BeforeForgetClaims,
    /// Its attempts are forgotten, the message unsettled.
    AfterForgetClaims,
}

/// When to die: `<point>[:<nth time>][:hang|:stop][:key=<beginning of the message's idempotency key>]`. With `hang` the thread
/// that comes there goes no further, as one that computes for ever would, and the process lives. With `stop` the process stands
/// still until it gets SIGCONT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KillAt {
    point: KillPoint,
    nth: u32,
    effect: Effect,
    key: Option<String>,
}

/// The effect of a kill point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Die,
    Hang,
    Stop,
}

impl FromStr for KillAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (text, key) = match text.split_once(":key=") {
            Some((text, key)) => (text, Some(key.to_owned())),
            None => (text, None),
        };
        let (text, effect) = match text.rsplit_once(':') {
            Some((text, "hang")) => (text, Effect::Hang),
            Some((text, "stop")) => (text, Effect::Stop),
            Some(_) | None => (text, Effect::Die),
        };
        let (point, nth) = text.split_once(':').unwrap_or((text, "1"));
        let nth = nth
            .parse()
            .map_err(|error| format!("`{nth}` is not a number of times: {error}"))?;
        Ok(Self {
            point: KillPoint::from_str(point, false)?,
            nth,
            effect,
            key,
        })
    }
}

impl KillAt {
    /// Whether a call at this point for the message of this key is one to count.
    fn is_met(&self, point: KillPoint, key: &str) -> bool {
        self.point == point
            && self
                .key
                .as_deref()
                .is_none_or(|prefix| key.starts_with(prefix))
    }
}

/// Counts down to the death.
#[derive(Debug)]
pub struct Fuse {
    at: KillAt,
    met: AtomicU32,
}

impl Fuse {
    /// A fuse that burns until then.
    pub fn new(at: KillAt) -> Arc<Self> {
        Arc::new(Self {
            at,
            met: AtomicU32::new(0),
        })
    }

    /// Dies here, without any cleaning up, if this is the time.
    fn reach(&self, point: KillPoint, key: &str) {
        if self.at.is_met(point, key) && self.met.fetch_add(1, Relaxed) + 1 == self.at.nth {
            match self.at.effect {
                Effect::Die => {
                    tracing::error!(?point, key, "told to die here");
                    std::process::abort();
                }
                Effect::Hang => {
                    tracing::error!(?point, key, "told to hang here");
                    loop {
                        std::thread::park();
                    }
                }
                Effect::Stop => {
                    tracing::error!(?point, key, "told to stop here");
                    if let Err(error) = kill_process(getpid(), Signal::STOP) {
                        tracing::error!(%error, "cannot stop itself");
                    }
                    // The signal may reach this thread after others.
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    async fn around<T>(
        &self,
        (before, after): (KillPoint, KillPoint),
        key: &str,
        call: impl Future<Output = T>,
    ) -> T {
        self.reach(before, key);
        let answer = call.await;
        self.reach(after, key);
        answer
    }
}

/// A port that burns a fuse.
pub struct Mortal<T> {
    port: Arc<T>,
    fuse: Arc<Fuse>,
}

impl<T> Mortal<T> {
    /// Puts the fuse round a port.
    pub fn new(port: &Arc<T>, fuse: &Arc<Fuse>) -> Arc<Self> {
        Arc::new(Self {
            port: Arc::clone(port),
            fuse: Arc::clone(fuse),
        })
    }
}

impl<S: TurnStore> TurnStore for Mortal<S> {
    async fn begin(&self, begin: &Begin<'_>) -> Result<Begun, StoreError> {
        let points = (KillPoint::BeforeBegin, KillPoint::AfterBegin);
        let key = begin.activity.key.as_str();
        self.fuse.around(points, key, self.port.begin(begin)).await
    }

    async fn read_state(
        &self,
        activity: &Activity,
        slot: &StateSlot,
        max_bytes: usize,
    ) -> Result<StoredState, StoreError> {
        let points = (KillPoint::BeforeReadState, KillPoint::AfterReadState);
        let call = self.port.read_state(activity, slot, max_bytes);
        self.fuse.around(points, activity.key.as_str(), call).await
    }

    async fn commit(&self, commit: &Commit<'_>) -> Result<Committed, StoreError> {
        let points = (KillPoint::BeforeCommit, KillPoint::AfterCommit);
        let key = commit.activity.key.as_str();
        let call = self.port.commit(commit);
        self.fuse.around(points, key, call).await
    }

    async fn published(&self, activity: &Activity) -> Result<(), StoreError> {
        let points = (
            KillPoint::BeforePublishedNote,
            KillPoint::AfterPublishedNote,
        );
        let call = self.port.published(activity);
        self.fuse.around(points, activity.key.as_str(), call).await
    }

    async fn published_but(
        &self,
        activity: &Activity,
        rest: &[Outbound],
    ) -> Result<(), StoreError> {
        let points = (
            KillPoint::BeforePublishedNote,
            KillPoint::AfterPublishedNote,
        );
        let call = self.port.published_but(activity, rest);
        self.fuse.around(points, activity.key.as_str(), call).await
    }

    async fn release(&self, activity: &Activity, lease: Lease<'_>) -> Result<(), StoreError> {
        let points = (KillPoint::BeforeRelease, KillPoint::AfterRelease);
        let call = self.port.release(activity, lease);
        self.fuse.around(points, activity.key.as_str(), call).await
    }

    async fn prolong(
        &self,
        activity: &Activity,
        lease: Lease<'_>,
        ttl: Duration,
    ) -> Result<(), StoreError> {
        self.port.prolong(activity, lease, ttl).await
    }

    async fn attempts(&self, activity: &Activity) -> Result<Attempts, StoreError> {
        self.port.attempts(activity).await
    }

    async fn withdraw(&self, activity: &Activity, lease: Lease<'_>) -> Result<(), StoreError> {
        let points = (KillPoint::BeforeRelease, KillPoint::AfterRelease);
        let call = self.port.withdraw(activity, lease);
        self.fuse.around(points, activity.key.as_str(), call).await
    }

    async fn forget_claims(&self, activity: &Activity) -> Result<(), StoreError> {
        let points = (KillPoint::BeforeForgetClaims, KillPoint::AfterForgetClaims);
        let call = self.port.forget_claims(activity);
        self.fuse.around(points, activity.key.as_str(), call).await
    }
}

fn publish_points(
    to: Destination<'_>,
    headers: &Headers,
    body: &Bytes,
) -> ((KillPoint, KillPoint), String) {
    let in_reply_to = || headers.get(header::IN_REPLY_TO).unwrap_or_default();
    match to {
        Destination::Outbound(_) => (
            (KillPoint::BeforePublish, KillPoint::AfterPublish),
            in_reply_to().to_owned(),
        ),
        Destination::DeadLetter(_) => (
            (KillPoint::BeforeDeadLetter, KillPoint::AfterDeadLetter),
            inbound_key(headers, body),
        ),
    }
}

impl<P: Publisher> Publisher for Mortal<P> {
    async fn publish(
        &self,
        to: Destination<'_>,
        headers: &Headers,
        body: Bytes,
    ) -> Result<(), TransportError> {
        let (points, key) = publish_points(to, headers, &body);
        let call = self.port.publish(to, headers, body);
        self.fuse.around(points, &key, call).await
    }

    async fn publish_in_time(
        &self,
        to: Destination<'_>,
        headers: &Headers,
        body: Bytes,
        in_time: &(dyn Fn() -> bool + Sync),
    ) -> Result<bool, TransportError> {
        let (points, key) = publish_points(to, headers, &body);
        let call = self.port.publish_in_time(to, headers, body, in_time);
        self.fuse.around(points, &key, call).await
    }

    fn duplicate_window(&self, to: Destination<'_>) -> Option<Duration> {
        self.port.duplicate_window(to)
    }

    async fn held(
        &self,
        tenant: &TenantId,
        ids: &[&str],
        since: Option<OffsetDateTime>,
    ) -> Result<Vec<bool>, TransportError> {
        self.port.held(tenant, ids, since).await
    }

    fn max_message_bytes(&self, to: Destination<'_>) -> usize {
        self.port.max_message_bytes(to)
    }
}

impl<I: Inbound> Inbound for Mortal<I> {
    type Delivery = MortalDelivery<I::Delivery>;
    type Pull = MortalPull<I::Pull>;

    async fn pull(
        &self,
        tenant: &TenantId,
        max: usize,
        wait: Duration,
    ) -> Result<Self::Pull, TransportError> {
        Ok(MortalPull {
            pull: self.port.pull(tenant, max, wait).await?,
            fuse: Arc::clone(&self.fuse),
        })
    }

    fn leave(&self, tenant: &TenantId) {
        self.port.leave(tenant);
    }
}

/// The deliveries of one pull, each with the fuse.
pub struct MortalPull<P> {
    pull: P,
    fuse: Arc<Fuse>,
}

impl<D, P> Stream for MortalPull<P>
where
    P: Stream<Item = Result<D, TransportError>> + Unpin,
{
    type Item = Result<MortalDelivery<D>, TransportError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.pull.poll_next_unpin(cx);
        next.map_ok(|delivery| MortalDelivery {
            delivery,
            fuse: Arc::clone(&self.fuse),
        })
    }
}

/// A delivery whose settling burns the fuse.
pub struct MortalDelivery<D> {
    delivery: D,
    fuse: Arc<Fuse>,
}

impl<D: Delivery> MortalDelivery<D> {
    fn key(&self) -> String {
        let message = self.delivery.message();
        inbound_key(&message.headers, &message.body)
    }
}

impl<D: Delivery> Delivery for MortalDelivery<D> {
    fn message(&self) -> &InboundMessage {
        self.delivery.message()
    }

    fn delivered(&self) -> u64 {
        self.delivery.delivered()
    }

    fn stored(&self) -> Option<u64> {
        self.delivery.stored()
    }

    async fn progress(&self) -> Result<(), TransportError> {
        let points = (KillPoint::BeforeProgress, KillPoint::AfterProgress);
        let call = self.delivery.progress();
        self.fuse.around(points, &self.key(), call).await
    }

    async fn ack(self) -> Result<(), TransportError> {
        let points = (KillPoint::BeforeAck, KillPoint::AfterAck);
        let (key, fuse) = (self.key(), self.fuse);
        fuse.around(points, &key, self.delivery.ack()).await
    }

    async fn hand_back(self, after: Duration) -> Result<(), TransportError> {
        let points = (KillPoint::BeforeHandBack, KillPoint::AfterHandBack);
        let (key, fuse) = (self.key(), self.fuse);
        let call = self.delivery.hand_back(after);
        fuse.around(points, &key, call).await
    }
}

/// The idempotency key of an inbound message or of its dead letter; nothing where there is none to be read.
fn inbound_key(headers: &Headers, body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Named {
        id: String,
    }
    let own_key = headers
        .get(header::ERROR_CODE)
        .is_none_or(|_| headers.get(header::IDEMPOTENCY_KEY).is_some());
    if own_key && let Some(key) = key_from_headers(headers) {
        return key.as_str().to_owned();
    }
    serde_json::from_slice(body).map_or_else(|_| String::new(), |Named { id }| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, point: KillPoint, nth: u32, key: Option<&str>) {
        let key = key.map(str::to_owned);
        let effect = match text {
            text if text.contains(":hang") => Effect::Hang,
            text if text.contains(":stop") => Effect::Stop,
            _ => Effect::Die,
        };
        let expected = KillAt {
            point,
            nth,
            effect,
            key,
        };
        assert_eq!(text.parse(), Ok(expected));
    }

    #[test]
    fn a_place_to_die_is_read() {
        check("after-commit", KillPoint::AfterCommit, 1, None);
        check("after-publish:2", KillPoint::AfterPublish, 2, None);
        check("before-ack:key=m", KillPoint::BeforeAck, 1, Some("m"));
        check("before-ack:3:key=a:b", KillPoint::BeforeAck, 3, Some("a:b"));
        check("before-commit:hang", KillPoint::BeforeCommit, 1, None);
        check("before-publish:2:stop", KillPoint::BeforePublish, 2, None);
        check(
            "before-ack:3:hang:key=m",
            KillPoint::BeforeAck,
            3,
            Some("m"),
        );
        assert!("nowhere".parse::<KillAt>().is_err());
        assert!("after-commit:often".parse::<KillAt>().is_err());
    }
}
