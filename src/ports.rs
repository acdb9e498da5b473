//! What a turn needs of the outside world. The adapters implement these; `turn` and `worker` know nothing else.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use greentic_types::{SessionData, SessionKey};
use time::OffsetDateTime;

mod components;
mod compute;
mod state;

pub use components::{
    CallStep, ComponentCall, ComponentError, ComponentOutput, Components, Declared, Grants, Running,
};
pub use compute::{Computation, Compute};
pub use state::{QuotaExcess, Quotas, StateSlot, StoredState};

use crate::model::{Activity, ContentDigest, Headers, InboundMessage, Outbound, TenantId};

/// Sessions, state and the record of what was applied: everything a turn reads and writes, in two steps.
///
/// An implementation applies [`TurnStore::commit`] as a whole or not at all, and only if nothing that the turn has read
/// has changed since [`TurnStore::begin`].
pub trait TurnStore: Send + Sync + 'static {
    /// Opens a turn: tells whether its activity was applied already, and what it finds parked.
    fn begin(&self, begin: &Begin<'_>) -> impl Future<Output = Result<Begun, StoreError>> + Send;

    /// Reads a value of state that [`Begin::state`] did not foresee, if it has at most so many bytes.
    fn read_state(
        &self,
        activity: &Activity,
        slot: &StateSlot,
        max_bytes: usize,
    ) -> impl Future<Output = Result<StoredState, StoreError>> + Send;

    /// Applies a turn, all of it or none.
    fn commit(
        &self,
        commit: &Commit<'_>,
    ) -> impl Future<Output = Result<Committed, StoreError>> + Send;

    /// Notes that the outbox of an applied activity is published: its record shrinks to a marker. Until it is noted, a
    /// copy of the activity has the replies published again, which the stream recognises for its duplicate window only.
    fn published(&self, activity: &Activity)
    -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Notes that of the outbox of an applied activity only these replies are still to be published, each with its
    /// position in [`Outbound::position`]. Publishing is held up for as long as a refusal lasts, and the stream recognises
    /// what is out for its duplicate window only.
    fn published_but(
        &self,
        activity: &Activity,
        rest: &[Outbound],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Prolongs a lease that [`Claim::Exclusive`] took, if its holder still has it.
    fn prolong(
        &self,
        activity: &Activity,
        lease: Lease<'_>,
        ttl: Duration,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Gives up a lease that [`Claim::Exclusive`] took, without applying anything. The attempt counts as failed.
    fn release(
        &self,
        activity: &Activity,
        lease: Lease<'_>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Gives up a lease as [`TurnStore::release`] does, and with it the attempt that was counted when it was taken: the
    /// message is not to blame.
    fn withdraw(
        &self,
        activity: &Activity,
        lease: Lease<'_>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Counts the attempts at an activity that [`Claim::Exclusive`] counted, and those of them that nothing was heard of since.
    fn attempts(
        &self,
        activity: &Activity,
    ) -> impl Future<Output = Result<Attempts, StoreError>> + Send;

    /// Forgets how often an activity was claimed: its message is in the dead letters, and a replay of it is tried as often as a
    /// message that comes for the first time.
    fn forget_claims(
        &self,
        activity: &Activity,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// The attempts at an activity that is not applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// All that were claimed.
    pub claimed: u32,
    /// Those that were neither released nor withdrawn: their workers died, or still run them.
    pub open: u32,
}

/// How a turn opens.
#[derive(Debug)]
pub struct Begin<'a> {
    /// The activity.
    pub activity: &'a Activity,
    /// Whether the turn wants its conversation for itself.
    pub claim: Claim<'a>,
    /// Whether to look for a parked flow; not when the headers name one to start.
    pub resume: bool,
    /// State that the turn will probably read, so that it need not ask again.
    pub state: &'a [StateSlot],
    /// The most bytes of each of these values; a larger one is not read.
    pub state_bytes: usize,
}

/// What a turn takes of its conversation before it runs.
#[derive(Clone, Copy, Debug)]
pub enum Claim<'a> {
    /// Nothing: BEGIN only reads, and COMMIT finds out whether another turn came first. Right for the first delivery of
    /// a turn that reaches nothing outside.
    Optimistic,
    /// The conversation's lease, and one more attempt on the activity's count: for redeliveries, which may have killed
    /// a worker, and for turns with outside effects.
    Exclusive {
        /// The lease to take.
        lease: Lease<'a>,
        /// How long it lasts if its holder dies.
        ttl: Duration,
    },
}

/// What a turn holds against others, until it commits or gives it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease<'a> {
    /// Names this holder.
    pub token: &'a str,
    /// What it holds.
    pub scope: LeaseScope,
}

/// The scope of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseScope {
    /// The conversation.
    Conversation,
    /// The conversation, and the state of its user, which turns of other conversations may not change meanwhile.
    User,
}

/// What BEGIN found.
#[derive(Debug)]
pub enum Begun {
    /// An activity of this id was applied already.
    Applied(AppliedRecord),
    /// Another turn holds the conversation.
    Busy {
        /// How long its lease lasts at the most.
        retry_after: Duration,
    },
    /// The turn may run.
    Ready(Opening),
}

/// The record that an activity was applied.
#[derive(Clone, Debug)]
pub struct AppliedRecord {
    /// The digest of its content: a message with another one is no copy of it. None in a record of a worker that knew of
    /// no digests.
    pub content: Option<ContentDigest>,
    /// Its outbox, empty if that was published: the one that counts.
    pub outbox: Vec<Outbound>,
}

/// What a turn starts from, and what its commit will check.
#[derive(Clone, Debug, Default)]
pub struct Opening {
    /// The parked flow that the activity answers.
    pub wait: Option<Box<ParkedWait>>,
    /// The session that the conversation's base scope names: the latest wait, whether or not it is the one found.
    pub head: Option<SessionKey>,
    /// How often the activity was claimed exclusively, this time included; 0 for an optimistic claim.
    pub claims: u32,
    /// The state asked for, in the order of [`Begin::state`].
    pub state: Vec<StoredState>,
}

/// A parked flow as greentic-session stores it.
#[derive(Clone, Debug)]
pub struct ParkedWait {
    /// Its session key.
    pub key: SessionKey,
    /// The session: pack, flow, cursor and the snapshot in `context_json`.
    pub data: SessionData,
}

/// Everything that a turn changes.
#[derive(Debug)]
pub struct Commit<'a> {
    /// The activity that is applied by it.
    pub activity: &'a Activity,
    /// The lease that the turn took; none for an optimistic one. No other turn may hold what the commit changes.
    pub lease: Option<Lease<'a>>,
    /// What the base scope must still name.
    pub head: Option<&'a SessionKey>,
    /// The wait that the turn took, which must still be there: it is cleared.
    pub taken: Option<Taken<'a>>,
    /// The wait that the turn ends in.
    pub park: Option<Park<'a>>,
    /// The state that the turn has read, which must be unchanged.
    pub state_read: &'a [(StateSlot, Option<String>)],
    /// The state that it writes, as JSON text; `None` deletes.
    pub state_written: &'a [(StateSlot, Option<String>)],
    /// The replies to publish, kept until they are.
    pub outbox: &'a [Outbound],
    /// How much may be kept after it.
    pub quotas: Quotas,
}

/// A wait to clear.
#[derive(Clone, Copy, Debug)]
pub struct Taken<'a> {
    /// Its session.
    pub key: &'a SessionKey,
    /// The correlation id it was registered under besides its base scope.
    pub correlation: Option<&'a str>,
    /// Waits of the same conversation that it had pushed aside, latest first: the first one that is still there becomes
    /// the latest again.
    pub shadowed: &'a [SessionKey],
}

/// A wait to register, under the conversation's base scope and under its correlation id.
#[derive(Clone, Copy, Debug)]
pub struct Park<'a> {
    /// A new session key; never one that was used before. With a correlation id it is that id, so that an answer with its
    /// echo tells which session it is for before anything was looked up.
    pub key: &'a SessionKey,
    /// The session.
    pub data: &'a SessionData,
    /// The correlation id that the last reply carries, if there is a reply.
    pub correlation: Option<&'a str>,
    /// How long the flow waits.
    pub ttl: Duration,
}

/// What COMMIT did.
#[derive(Debug)]
pub enum Committed {
    /// All of it.
    Done {
        /// The bytes of state that the tenant uses now, if the turn has changed them.
        tenant_state_bytes: Option<u64>,
    },
    /// Nothing: an activity of this id was applied already, by another worker or by this commit when its answer was lost.
    AlreadyApplied(AppliedRecord),
    /// Nothing: another turn of the conversation came first, or the lease is lost. The turn begins again.
    Conflict,
    /// Nothing: there would be more of something than its quota lets be. Whatever waits goes on waiting.
    Refused(QuotaExcess),
}

/// Why the store gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, or did not answer in time. The call may have been carried out; making it again is safe.
    #[error("the session store is unavailable: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It answers, but does not do this for this tenant.
    #[error("the session store refuses: {0}")]
    Refused(Refusal),
    /// What it holds cannot be read. It is left as it is.
    #[error("stored {what} cannot be read: {reason}")]
    Corrupt {
        /// What was to be read.
        what: String,
        /// Why it cannot be.
        reason: String,
    },
}

/// Where inbound messages come from.
pub trait Inbound: Send + Sync + 'static {
    /// A message that was handed over.
    type Delivery: Delivery;
    /// The messages of one pull; ends when the pull is over.
    type Pull: Stream<Item = Result<Self::Delivery, TransportError>> + Send + Unpin;

    /// Asks for up to `max` messages of a tenant and waits for them up to `wait`. Repairs what is missing (a stream, a
    /// consumer) by itself where settings let it.
    fn pull(
        &self,
        tenant: &TenantId,
        max: usize,
        wait: Duration,
    ) -> impl Future<Output = Result<Self::Pull, TransportError>> + Send;

    /// Nobody pulls for this tenant any more. A transport that is handed messages without asking for them must see to it
    /// that others get them from now on.
    fn leave(&self, _tenant: &TenantId) {}
}

/// A message in our hands. It is settled once, by what consumes it; dropped unsettled, it comes again.
pub trait Delivery: Send + Sync + 'static {
    /// The message.
    fn message(&self) -> &InboundMessage;

    /// How often it was delivered, this time included, as far as the transport knows; at least 1.
    fn delivered(&self) -> u64;

    /// The time at which the stream stored it, in nanoseconds since 1970, where there is a stream. It tells messages apart
    /// that have the same position in two streams of one name, one after the other.
    fn stored(&self) -> Option<u64> {
        None
    }

    /// Tells the transport that it is still being worked on.
    fn progress(&self) -> impl Future<Output = Result<(), TransportError>> + Send;

    /// Settles it: never deliver it again.
    fn ack(self) -> impl Future<Output = Result<(), TransportError>> + Send;

    /// Hands it back, to be delivered again after this time at the earliest.
    fn hand_back(self, after: Duration) -> impl Future<Output = Result<(), TransportError>> + Send;
}

/// Where replies and dead letters go.
pub trait Publisher: Send + Sync + 'static {
    /// Publishes one message and waits until it is stored. A message that is stored already, by its `Nats-Msg-Id`, is
    /// success.
    fn publish(
        &self,
        to: Destination<'_>,
        headers: &Headers,
        body: Bytes,
    ) -> impl Future<Output = Result<(), TransportError>> + Send;

    /// The same for a message of which the stream recognises a copy for a limited time only. `in_time` is asked right before each
    /// sending; a message that is too late is not sent. Returns whether it was.
    fn publish_in_time(
        &self,
        to: Destination<'_>,
        headers: &Headers,
        body: Bytes,
        in_time: &(dyn Fn() -> bool + Sync),
    ) -> impl Future<Output = Result<bool, TransportError>> + Send {
        async move {
            match in_time() {
                true => self.publish(to, headers, body).await.map(|()| true),
                false => Ok(false),
            }
        }
    }

    /// For how long a copy of a message that is there is recognised by its `Nats-Msg-Id`; none where that does not end.
    fn duplicate_window(&self, _to: Destination<'_>) -> Option<Duration> {
        None
    }

    /// Returns which replies of a tenant, by their `Nats-Msg-Id`s, are there of those that were stored since then, as far as that
    /// can be told.
    fn held(
        &self,
        _tenant: &TenantId,
        ids: &[&str],
        _since: Option<OffsetDateTime>,
    ) -> impl Future<Output = Result<Vec<bool>, TransportError>> + Send {
        let none = vec![false; ids.len()];
        async { Ok(none) }
    }

    /// The largest message, headers included, in bytes, that can be published there, by the limits of the server and of the
    /// stream that are known now.
    fn max_message_bytes(&self, to: Destination<'_>) -> usize;
}

/// What a message is published as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination<'a> {
    /// A reply: `outbound.<tenant>`.
    Outbound(&'a TenantId),
    /// A dead letter: `deadletter.<tenant>`.
    DeadLetter(&'a TenantId),
}

/// Why the transport did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// It cannot be reached, or did not answer in time. Doing it again is safe.
    #[error("the message transport is unavailable: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It answers, but does not do this for this subject.
    #[error("the message transport refuses: {0}")]
    Refused(Refusal),
    /// The message will never be taken: it is too large.
    #[error("the message is larger than the server or stream takes: {0}")]
    TooLarge(String),
}

/// A server's refusal to do something for one tenant. It concerns nobody else, whose calls go on, and it lasts until an
/// operator or a reader of the stream ends it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    /// The kind, for metrics and `/readyz`.
    pub reason: RefusalReason,
    /// What was refused and what the server says, as a sentence for an operator.
    pub detail: String,
}

/// The kinds of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefusalReason {
    /// The account or user may not do it.
    Permission,
    /// The stream is full and discards what is new.
    StreamFull,
    /// The subject holds as many messages as the stream lets it.
    SubjectFull,
    /// The account or the server has no resources left for it.
    AccountLimit,
    /// The stream or consumer is missing and cannot be made.
    Missing,
    /// The stream does not take messages: it is sealed, has another configuration than it should, or is another environment's.
    StreamConfig,
    /// The server answers, but not to this.
    NoAnswer,
    /// Something else that the server says no to.
    Other,
}

impl RefusalReason {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Permission,
        Self::StreamFull,
        Self::SubjectFull,
        Self::AccountLimit,
        Self::Missing,
        Self::StreamConfig,
        Self::NoAnswer,
        Self::Other,
    ];

    /// The reason as a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Permission => "permission",
            Self::StreamFull => "stream_full",
            Self::SubjectFull => "subject_full",
            Self::AccountLimit => "account_limit",
            Self::Missing => "missing",
            Self::StreamConfig => "stream_config",
            Self::NoAnswer => "no_answer",
            Self::Other => "other",
        }
    }
}

/// The wall clock.
pub trait Clock: Send + Sync + 'static {
    /// The time now, in UTC.
    fn now(&self) -> OffsetDateTime;

    /// The time since some moment in the past. It goes on while the machine is suspended, and never goes back.
    fn uptime(&self) -> Duration {
        let since = self.now() - OffsetDateTime::UNIX_EPOCH;
        since.unsigned_abs()
    }
}

/// A source of ids that nobody used before.
pub trait NewId: Send + Sync + 'static {
    /// A random UUID in its hyphenated form.
    fn uuid(&self) -> String;

    /// A random W3C span id: 16 lowercase hex digits, not all zero.
    fn span_id(&self) -> String;

    /// A random W3C trace id: 32 lowercase hex digits, not all zero.
    fn trace_id(&self) -> String;
}
