//! Why a turn was not applied, and what that means for its message.

use std::any::Any;
use std::time::Duration;

use super::dead_letter::ID_REUSED;
use crate::flow::{FlowError, Place};
use crate::model::{DecodeError, FlowId, NodeId};
use crate::ports::{ComponentError, Refusal, StoreError};
use crate::registry::EntryError;

/// How long a message stays away whose tenant this worker is not bound for any more.
const UNBOUND_PAUSE: Duration = Duration::from_secs(1);

/// Why a turn was not applied, or its replies are not out. Infrastructure that is away is none of these: a turn waits for it.
#[derive(Debug, thiserror::Error)]
pub enum TurnError {
    /// The message is no activity.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The body is larger than the settings allow.
    #[error("the body has {bytes} bytes, more than limits.payload_bytes = {limit}")]
    PayloadTooLarge {
        /// What it has.
        bytes: usize,
        /// What it may have.
        limit: usize,
    },
    /// No flow could be chosen.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The flow failed.
    #[error(transparent)]
    Flow(#[from] FlowError),
    /// A component that it called came to nothing.
    #[error(transparent)]
    Component(#[from] ComponentError),
    /// Something between BEGIN and COMMIT panicked.
    #[error("the turn panicked: {0}")]
    Panicked(String),
    /// Other turns came first again and again.
    #[error(
        "other turns of its user or conversation came first {conflicts} times in a row, although it held the lease; a \
         worker.lease_ttl that is longer keeps them out"
    )]
    Contended {
        /// How often.
        conflicts: u32,
    },
    /// The flow took too long.
    #[error(
        "the flow took longer than worker.turn_timeout = {limit:?}{}",
        at(position)
    )]
    TimedOut {
        /// What it may take.
        limit: Duration,
        /// The flow and the node that it was at.
        position: Option<(FlowId, NodeId)>,
    },
    /// The flow waits, but nothing says where an answer would come from. The wording is part of the contract.
    #[error("Cannot suspend: reply_scope missing; provider plugin must supply ReplyScope")]
    ReplyScopeMissing,
    /// A parked flow was found whose pack is neither bound any more nor kept anywhere.
    #[error(
        "the conversation waits in flow `{flow}` of pack {pack}, which is not bound for this tenant any more and not in \
         the cache; bind it again, or put it into packs.cache_dir, and replay the message"
    )]
    WaitPackGone {
        /// The pack that it was parked under.
        pack: String,
        /// The flow that it was parked in.
        flow: String,
    },
    /// A parked flow was found that cannot be read.
    #[error("the parked session {session} cannot be read: {reason}; it is left as it is")]
    WaitUnreadable {
        /// Its session key.
        session: String,
        /// Why.
        reason: String,
    },
    /// A server does not do this for the tenant. The message goes back until it does, and has used up no attempt.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What the store holds cannot be read.
    #[error(transparent)]
    Store(StoreError),
    /// A reply would not fit into a NATS message.
    #[error(
        "reply {n} has {bytes} bytes with its headers, more than the {limit} that the server's max_payload and the \
         max_msg_size of the stream of replies allow"
    )]
    ReplyTooLarge {
        /// Its position, from 1.
        n: usize,
        /// What it has.
        bytes: usize,
        /// What it may have.
        limit: usize,
    },
    /// A reply could not be written as JSON.
    #[error("a reply cannot be written as JSON: {0}")]
    ReplyUnwritable(#[from] serde_json::Error),
    /// The session of a run that waits is too large.
    #[error(
        "{place}: the session of the run that waits there has {bytes} bytes, more than limits.session_bytes = {limit}; \
         most of it is {largest}"
    )]
    SessionTooLarge {
        /// The node that waits.
        place: Box<Place>,
        /// Its size.
        bytes: usize,
        /// The largest that is stored.
        limit: usize,
        /// The part of it that takes the most room.
        largest: String,
    },
    /// The turn would store too much.
    #[error(
        "the turn stores {bytes} bytes or more, more than limits.commit_bytes = {limit}; most of it is {largest}"
    )]
    CommitTooLarge {
        /// What it has, as far as it was counted.
        bytes: usize,
        /// What it may have.
        limit: usize,
        /// The part of it that takes the most room.
        largest: &'static str,
    },
    /// The user's state would exceed its quota.
    #[error(
        "the user's state has {used} bytes and may not grow beyond state.user_bytes = {limit}; delete some of it, or \
         raise the quota, and replay the message"
    )]
    UserStateQuota {
        /// The bytes that are in use.
        used: u64,
        /// The quota.
        limit: u64,
    },
    /// The tenant's state would exceed its quota.
    #[error(
        "the tenant's state has {used} bytes and may not grow beyond state.tenant_bytes = {limit}; delete some of it, or \
         raise the quota, and replay the message"
    )]
    TenantStateQuota {
        /// The bytes that are in use.
        used: u64,
        /// The quota.
        limit: u64,
    },
    /// The user has too many open waits.
    #[error(
        "the user has as many open waits as limits.waits_per_user = {limit} admits; they end when they are answered or \
         after worker.wait_ttl"
    )]
    WaitLimit {
        /// How many a user may have.
        limit: u32,
    },
    /// Another message of the same id was applied, and this one is no copy of it.
    #[error(
        "another message with this id was applied, of another sender, in another conversation or with another content; give each \
         message an id that no other one of the tenant has, as Greentic-Idempotency-Key if your ids are unique only inside \
         a chat; `deadletters replay` applies this one under an id of its own"
    )]
    IdReused,
    /// It was tried as often as the settings say, and ended each time without a result: it may be what killed its workers.
    #[error("given up after {attempts} attempts that ended without a result")]
    AttemptsExhausted {
        /// How often it was tried.
        attempts: u32,
    },
}

fn at(position: &Option<(FlowId, NodeId)>) -> String {
    let at = position.as_ref();
    at.map_or_else(String::new, |(flow, node)| {
        format!("; it was at flow `{flow}`, node `{node}`")
    })
}

impl From<StoreError> for TurnError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(refusal) => Self::Refused(refusal),
            StoreError::Unavailable(_) | StoreError::Corrupt { .. } => Self::Store(error),
        }
    }
}

impl TurnError {
    /// What a panic said of itself.
    pub(super) fn panicked(panic: &(dyn Any + Send)) -> Self {
        let said = panic.downcast_ref::<&str>().copied();
        let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Self::Panicked(said.unwrap_or("no message").to_owned())
    }

    /// The code that a dead letter carries and metrics count by.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Decode(error) => error.code(),
            Self::PayloadTooLarge { .. } => "payload_too_large",
            Self::Entry(error) => error.code(),
            Self::Flow(error) => error.code(),
            Self::Component(ComponentError::Trap { .. }) => "component_trap",
            Self::Component(ComponentError::Limit { .. }) => "component_limit",
            Self::Component(ComponentError::Refused { .. }) => "component_refused",
            Self::Component(ComponentError::Unusable { .. }) => "component_unusable",
            Self::Panicked(_) => "panic",
            Self::Contended { .. } => "contended",
            Self::TimedOut { .. } => "turn_timeout",
            Self::ReplyScopeMissing => "reply_scope_missing",
            Self::WaitPackGone { .. } => "wait_pack_gone",
            Self::WaitUnreadable { .. } => "wait_unreadable",
            Self::Refused(_) => "refused",
            Self::Store(_) => "store_unreadable",
            Self::ReplyTooLarge { .. } => "reply_too_large",
            Self::ReplyUnwritable(_) => "reply_unwritable",
            Self::SessionTooLarge { .. } => "session_too_large",
            Self::CommitTooLarge { .. } => "commit_too_large",
            Self::UserStateQuota { .. } => "user_state_quota",
            Self::TenantStateQuota { .. } => "tenant_state_quota",
            Self::WaitLimit { .. } => "wait_limit",
            Self::IdReused => ID_REUSED,
            Self::AttemptsExhausted { .. } => "attempts_exhausted",
        }
    }

    /// Whether its words may quote what a user wrote: they then belong into the dead letter, but into no log above debug
    /// level.
    pub fn may_quote(&self) -> bool {
        match self {
            Self::Decode(_)
            | Self::Flow(_)
            | Self::Component(_)
            | Self::Panicked(_)
            | Self::WaitUnreadable { .. }
            | Self::Store(_)
            | Self::ReplyUnwritable(_) => true,
            Self::PayloadTooLarge { .. }
            | Self::Refused(_)
            | Self::Entry(_)
            | Self::Contended { .. }
            | Self::TimedOut { .. }
            | Self::ReplyScopeMissing
            | Self::WaitPackGone { .. }
            | Self::ReplyTooLarge { .. }
            | Self::SessionTooLarge { .. }
            | Self::CommitTooLarge { .. }
            | Self::UserStateQuota { .. }
            | Self::TenantStateQuota { .. }
            | Self::WaitLimit { .. }
            | Self::IdReused
            | Self::AttemptsExhausted { .. } => false,
        }
    }

    /// Whether another attempt could end otherwise. What is hopeless goes to the dead letters at once.
    fn is_retryable(&self) -> bool {
        match self {
            Self::Flow(error) => !error.is_hopeless(),
            Self::Component(error) => match error {
                ComponentError::Trap { .. } | ComponentError::Limit { .. } => true,
                ComponentError::Refused { .. } | ComponentError::Unusable { .. } => false,
            },
            Self::Panicked(_) | Self::Contended { .. } | Self::TimedOut { .. } => true,
            // It is handed back before anyone asks.
            Self::Refused(_)
            | Self::Decode(_)
            | Self::PayloadTooLarge { .. }
            | Self::Entry(_)
            | Self::ReplyScopeMissing
            | Self::WaitPackGone { .. }
            | Self::WaitUnreadable { .. }
            | Self::Store(_)
            | Self::ReplyTooLarge { .. }
            | Self::ReplyUnwritable(_)
            | Self::SessionTooLarge { .. }
            | Self::CommitTooLarge { .. }
            | Self::UserStateQuota { .. }
            | Self::TenantStateQuota { .. }
            | Self::WaitLimit { .. }
            | Self::IdReused
            | Self::AttemptsExhausted { .. } => false,
        }
    }
}

/// What happens to a delivery once its turn has ended. There is no other way to end it.
#[derive(Debug)]
pub enum Disposition {
    /// It is applied and its replies are stored: settle it.
    Ack,
    /// It failed, but may not fail again: hand it back for this long.
    RetryAfter(Duration),
    /// It is put aside with its reason, and then settled.
    DeadLetter(Rejection),
}

/// A failure with all that the dead letter says of it.
#[derive(Debug)]
pub struct Rejection {
    /// Why.
    pub error: TurnError,
    /// How often it was tried.
    pub attempts: u32,
}

/// How often and how patiently a flow's own failures are tried again.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// How many attempts a message gets.
    pub attempts: u32,
    /// The pause after the first failed attempt; doubled after each further one.
    pub initial: Duration,
    /// The longest pause.
    pub max: Duration,
}

impl RetryPolicy {
    /// Decides on a turn that failed on this attempt (from 1).
    pub fn decide(&self, error: TurnError, attempt: u32) -> Disposition {
        if let TurnError::Entry(EntryError::TenantNotBound(_)) = &error {
            // The binding went while the message was on its way: it waits in the stream for a worker that has one.
            return Disposition::RetryAfter(UNBOUND_PAUSE);
        }
        if error.is_retryable() && attempt < self.attempts {
            let doubled = self
                .initial
                .saturating_mul(1 << attempt.saturating_sub(1).min(16));
            Disposition::RetryAfter(doubled.min(self.max))
        } else {
            Disposition::DeadLetter(Rejection {
                error,
                attempts: attempt,
            })
        }
    }
}
