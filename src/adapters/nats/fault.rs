//! Why NATS did not do as asked, in the words that end up in logs.

use std::time::Duration;

use async_nats::jetstream::{self, ErrorCode};

use crate::ports::TransportError;

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

impl From<Fault> for TransportError {
    fn from(fault: Fault) -> Self {
        let too_large = matches!(fault, Fault::TooLarge(_))
            || fault.code().is_some_and(|code| {
                code == ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM
                    || code == ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM
            });
        if too_large {
            Self::TooLarge(fault.to_string())
        } else {
            Self::Unavailable(Box::new(fault))
        }
    }
}
