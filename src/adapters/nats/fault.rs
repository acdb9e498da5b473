//! Why NATS did not do as asked, in the words that end up in logs.

use std::time::Duration;

use async_nats::jetstream::{self, ErrorCode};

use crate::ports::{Refusal, RefusalReason, TransportError};

/// What stands behind [`TransportError::Unavailable`] here.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// There is no connection, and none came within the time for a request.
    #[error("not connected to NATS; it is tried again")]
    Disconnected,
    /// The connection went away while an answer was awaited.
    #[error("the connection to NATS was lost")]
    Lost,
    /// The connection was closed, by us or because the client gave up.
    #[error("the connection to NATS is closed")]
    Closed,
    /// The account may not publish or subscribe there.
    #[error("the NATS account may not use {what}: give its user the permission, see docs/nats.md")]
    Denied {
        /// The subject.
        what: String,
    },
    /// The server is well, and yet nothing acknowledges what is published there.
    #[error(
        "nothing acknowledges {what} within {within:?}, though the server answers: does its stream store that subject and \
         acknowledge (no_ack)?"
    )]
    Silent {
        /// The subject.
        what: String,
        /// For how long an answer was awaited.
        within: Duration,
    },
    /// The stream is full and refuses what is new.
    #[error("{what} is not stored: {limit} of its stream is reached, and it discards what is new")]
    Full {
        /// The subject.
        what: String,
        /// Which limit.
        limit: &'static str,
        /// It is this subject's limit only.
        of_subject: bool,
    },
    /// The server did not answer.
    #[error(
        "no answer to {what} within {within:?}; where the server is well, the account may lack a permission"
    )]
    Unanswered {
        /// What was asked.
        what: String,
        /// For how long an answer was awaited.
        within: Duration,
    },
    /// Nobody is there who could answer: JetStream is off for this account, or the stream or consumer is gone.
    #[error("nothing answers to {what}: JetStream is off, or the stream or consumer is missing")]
    NoResponders {
        /// What was asked.
        what: String,
    },
    /// JetStream said no.
    #[error("JetStream refused {what}: {error}")]
    Refused {
        /// What was asked.
        what: String,
        /// What it said.
        #[source]
        error: jetstream::Error,
    },
    /// The answer was not what JetStream says.
    #[error("the answer to {what} cannot be read")]
    Unreadable {
        /// What was asked.
        what: String,
        /// Why not.
        #[source]
        error: serde_json::Error,
    },
    /// A pull was silent for longer than its heartbeat allows.
    #[error("a pull stalled: the server was silent for {0:?}")]
    Stalled(Duration),
    /// A pull was ended by the server, e.g. because its consumer was deleted.
    #[error("the server ended a pull with status {status}: {description}")]
    PullEnded {
        /// The status, as NATS numbers them.
        status: u16,
        /// What the server said.
        description: String,
    },
    /// A stream or consumer is missing and may not be made.
    #[error("{what} is missing and `nats.provision` is off; make it with: {command}")]
    Missing {
        /// Which one.
        what: String,
        /// How to make it by hand.
        command: String,
    },
    /// The stream carries the mark of another environment.
    #[error(
        "stream {stream} belongs to environment `{found}`, and this worker's is `{own}`: give this environment streams of its \
         own by another `nats.prefix`, or take the stream over with: {take_over}"
    )]
    OtherEnvironment {
        /// The stream's name.
        stream: String,
        /// The environment that it belongs to.
        found: String,
        /// The worker's environment.
        own: String,
        /// How to take it over by hand.
        take_over: String,
    },
    /// It was not sent, since the stream may no longer recognise a copy of it.
    #[error("it is too late to publish without a look at what is there")]
    TooLate,
    /// The message is larger than the server takes.
    #[error("{0}")]
    TooLarge(String),
    /// The client refused.
    #[error("the NATS client refused a message: {0}")]
    Client(#[source] async_nats::Error),
    /// The tenant cannot be part of a subject.
    #[error("tenant `{0}` has an empty part between dots, so it has no subject")]
    NoSubject(String),
}

impl Fault {
    /// The code of JetStream's refusal.
    pub fn code(&self) -> Option<ErrorCode> {
        if let Self::Refused { error, .. } = self {
            Some(error.error_code())
        } else {
            None
        }
    }
}

impl Fault {
    /// Why this concerns what was asked for and not the server; none where the server is away.
    fn refused(&self) -> Option<RefusalReason> {
        Some(match self {
            Self::Denied { .. } => RefusalReason::Permission,
            Self::Silent { .. } => RefusalReason::NoAnswer,
            Self::Missing { .. } => RefusalReason::Missing,
            Self::Full { of_subject, .. } => match of_subject {
                true => RefusalReason::SubjectFull,
                false => RefusalReason::StreamFull,
            },
            Self::OtherEnvironment { .. } => RefusalReason::StreamConfig,
            Self::NoSubject(_) => RefusalReason::Other,
            Self::Refused { error, .. } => return refused_for(error.error_code()),
            Self::Disconnected
            | Self::Lost
            | Self::Closed
            | Self::Unanswered { .. }
            | Self::NoResponders { .. }
            | Self::Unreadable { .. }
            | Self::Stalled(_)
            | Self::PullEnded { .. }
            | Self::TooLarge(_)
            | Self::TooLate
            | Self::Client(_) => return None,
        })
    }

    /// Returns whether this concerns what was asked for and not the server.
    pub(super) fn is_refusal(&self) -> bool {
        self.refused().is_some()
    }

    fn is_too_large(&self) -> bool {
        let code = self.code();
        matches!(self, Self::TooLarge(_))
            || code == Some(ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM)
            || code == Some(ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM)
    }
}

/// What JetStream's refusal is; none where JetStream as a whole is away.
fn refused_for(code: ErrorCode) -> Option<RefusalReason> {
    Some(match code {
        ErrorCode::CLUSTER_NOT_AVAILABLE
        | ErrorCode::CLUSTER_INCOMPLETE
        | ErrorCode::CLUSTER_NOT_ACTIVE
        | ErrorCode::CLUSTER_NOT_LEADER
        | ErrorCode::CLUSTER_NOT_ASSIGNED
        | ErrorCode::STREAM_OFFLINE
        | ErrorCode::STREAM_OFFLINE_REASON
        | ErrorCode::CONSUMER_OFFLINE
        | ErrorCode::CONSUMER_OFFLINE_REASON
        | ErrorCode::JETSTREAM_NOT_ENABLED
        | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => return None,
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
        | ErrorCode::INSUFFICIENT_RESOURCES
        | ErrorCode::STORAGE_RESOURCES_EXCEEDED
        | ErrorCode::MEMORY_RESOURCES_EXCEEDED
        | ErrorCode::MAXIMUM_CONSUMERS_LIMIT
        | ErrorCode::MAXIMUM_STREAMS_LIMIT
        | ErrorCode::STREAM_MAX_BYTES_REQUIRED
        | ErrorCode::STREAM_MAX_STREAM_BYTES_EXCEEDED
        | ErrorCode::CLUSTER_NO_PEERS
        | ErrorCode::NO_LIMITS => RefusalReason::AccountLimit,
        ErrorCode::STREAM_NOT_FOUND | ErrorCode::CONSUMER_NOT_FOUND => RefusalReason::Missing,
        ErrorCode::STREAM_SEALED
        | ErrorCode::STREAM_INVALID_CONFIG
        | ErrorCode::STREAM_SUBJECT_OVERLAP
        | ErrorCode::STREAM_NAME_EXIST => RefusalReason::StreamConfig,
        _ => RefusalReason::Other,
    })
}

impl From<Fault> for TransportError {
    fn from(fault: Fault) -> Self {
        if fault.is_too_large() {
            return Self::TooLarge(fault.to_string());
        }
        match fault.refused() {
            Some(reason) => Self::Refused(Refusal {
                reason,
                detail: fault.to_string(),
            }),
            None => Self::Unavailable(Box::new(fault)),
        }
    }
}
