//! What arrives: the message as it was delivered, and the shape of its body.

use std::borrow::Cow;

use bytes::Bytes;
use greentic_types::{Attachment, Destination, ReplyScope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::TenantId;

pub use greentic_types::Actor;

/// The headers of a message, in the order they came. Names are compared without regard to ASCII case, since clients in
/// other languages differ there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Cow<'static, str>, String)>);

impl Headers {
    /// None yet, with room for so many.
    pub fn with_capacity(many: usize) -> Self {
        Self(Vec::with_capacity(many))
    }

    /// The first value under this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// Adds a value; one that is there under the same name stays.
    pub fn push(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) {
        self.0.push((name.into(), value.into()));
    }

    /// How many bytes they take on the wire, after `NATS/1.0` and with the empty line that ends them.
    pub fn wire_len(&self) -> usize {
        const FRAME: usize = "NATS/1.0\r\n\r\n".len();
        const PER_LINE: usize = ": \r\n".len();
        FRAME
            + self
                .iter()
                .map(|(name, value)| name.len() + value.len() + PER_LINE)
                .sum::<usize>()
    }

    /// All of them in order, as they are kept: the names that the program knows cost nothing to hand on.
    pub fn pairs(&self) -> &[(Cow<'static, str>, String)] {
        &self.0
    }

    /// All names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_ref(), value.as_str()))
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(key, value)| (Cow::Owned(key.into()), value.into()))
                .collect(),
        )
    }
}

/// A message of `inbound.<tenant>` before anything of it was read but its subject.
#[derive(Clone, Debug)]
pub struct InboundMessage {
    /// The tenant that the subject names.
    pub tenant: TenantId,
    /// The NATS headers.
    pub headers: Headers,
    /// The body, untouched.
    pub body: Bytes,
    /// Its position in the stream that it came from, where there is a stream.
    pub sequence: Option<u64>,
}

/// The body of an inbound message: `greentic_types::ChannelMessageEnvelope`, of which everything that the subject, the
/// headers or the settings already say may be left out. Fields that are not listed here are ignored.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[schemars(title = "greentic-worker inbound activity")]
#[serde(default)]
pub struct InboundBody {
    /// The provider's id of the message. It is the idempotency key unless a header gives one, so it must be the same
    /// whenever the same message is sent again, and may be left out only if `Greentic-Idempotency-Key` or
    /// `Nats-Msg-Id` is there.
    pub id: Option<String>,
    /// Whose message it is. The subject has already said so; where both do, they must agree.
    pub tenant: Option<TenantRef>,
    /// The kind of channel, e.g. `webchat`; echoed in replies. Default: empty.
    pub channel: Option<String>,
    /// The provider's session; echoed in replies. Default: the reply scope's conversation, else the message's id.
    pub session_id: Option<String>,
    /// Where a reply belongs. A flow can only wait for an answer, and an answer only be matched, with it.
    pub reply_scope: Option<ReplyScope>,
    /// Who sent it.
    pub from: Option<Actor>,
    /// Destinations; the flow sees them, the worker does not use them.
    #[schemars(with = "Vec<Destination>")]
    pub to: Vec<Value>,
    /// A correlation id of the provider's own; the flow sees it, waits are matched by `reply_scope.correlation` only.
    pub correlation_id: Option<String>,
    /// The text of the message.
    pub text: Option<String>,
    /// Attachments, handed to the flow as they are.
    #[schemars(with = "Vec<Attachment>")]
    pub attachments: Vec<Value>,
    /// Free-form metadata. Values may be any JSON; the submit of a card comes here, its button under `action`.
    pub metadata: Map<String, Value>,
    /// Structured extensions. If there is one named `payload`, it is the whole of what the flow sees: for events that are
    /// no chat messages.
    pub extensions: Map<String, Value>,
}

/// What a body says of its tenant: a `greentic_types::TenantCtx`, or any part of one.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct TenantRef {
    /// The environment; must be the worker's own.
    pub env: Option<String>,
    /// The tenant; must be the subject's.
    pub tenant: Option<String>,
    /// The tenant again, as greentic-types has it twice; must be the subject's.
    pub tenant_id: Option<String>,
    /// The team inside the tenant.
    pub team: Option<String>,
    /// The team again; wins over `team`.
    pub team_id: Option<String>,
    /// The user, where it differs from `from.id`.
    pub user: Option<String>,
    /// The user again; wins over `user`.
    pub user_id: Option<String>,
}
