//! What leaves: replies with their headers, kept in the outbox until they are published.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{EnvId, FlowId, Headers, IdempotencyKey, PackId, TenantId, TraceContext};

/// The names of the headers of the contract on NATS.
pub mod header {
    /// In: the name under which the activity is applied at most once.
    pub const IDEMPOTENCY_KEY: &str = "Greentic-Idempotency-Key";
    /// In: the idempotency key, if there is no better one. Out: what lets JetStream drop a second copy.
    pub const MSG_ID: &str = "Nats-Msg-Id";
    /// Out: on a message that expects a reply. In: its echo.
    pub const CORRELATION_ID: &str = "Greentic-Correlation-Id";
    /// Out: `true` on the message that the flow then waits on.
    pub const EXPECTS_REPLY: &str = "Greentic-Expects-Reply";
    /// Out: the idempotency key of the activity that caused the message, as its provider sent it; see `header_text.rs`.
    pub const IN_REPLY_TO: &str = "Greentic-In-Reply-To";
    /// In: start a flow of this pack. Out: whose pack spoke.
    pub const PACK_ID: &str = "Greentic-Pack-Id";
    /// In: start this flow. Out: which flow spoke.
    pub const FLOW_ID: &str = "Greentic-Flow-Id";
    /// Out: the tenant. In: must agree with the subject.
    pub const TENANT: &str = "Greentic-Tenant";
    /// Out: the environment. In: must agree with the worker's.
    pub const ENV: &str = "Greentic-Env";
    /// W3C trace context.
    pub const TRACEPARENT: &str = "traceparent";
    /// W3C trace context, the vendors' own.
    pub const TRACESTATE: &str = "tracestate";
    /// On dead letters: why, as a code.
    pub const ERROR_CODE: &str = "Greentic-Error-Code";
    /// On dead letters: why, in words.
    pub const ERROR: &str = "Greentic-Error";
    /// On dead letters: how often it was tried.
    pub const ATTEMPTS: &str = "Greentic-Attempts";
    /// On dead letters whose body was cut: the bytes of the original.
    pub const BODY_BYTES: &str = "Greentic-Body-Bytes";
    /// On dead letters whose body was cut: the SHA-256 of the original, in hex.
    pub const BODY_SHA256: &str = "Greentic-Body-Sha256";
    /// On dead letters whose id was another message's: the digest of who says what, which tells the two apart.
    pub const CONTENT_DIGEST: &str = "Greentic-Content-Digest";
    /// On dead letters that did not hold all original headers: how many are left out.
    pub const HEADERS_CUT: &str = "Greentic-Headers-Cut";
}

/// One reply as the outbox keeps it: its body as the JSON it will be published as, and the headers that nothing else
/// says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outbound {
    /// The headers of its own.
    #[serde(flatten)]
    pub headers: OutboundHeaders,
    /// Its position among the replies to its activity, from 0, where those before it are published and gone; else it is its
    /// position in the outbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
    /// The body: a `greentic_types::ChannelMessageEnvelope`.
    pub body: Box<RawValue>,
}

/// The headers of a reply that cannot be told from its tenant, activity and position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboundHeaders {
    /// The pack whose flow spoke.
    pub pack: PackId,
    /// The flow that spoke.
    pub flow: FlowId,
    /// The correlation id, on a message that expects a reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation: Option<String>,
    /// The turn's trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
}

impl Outbound {
    /// The `Nats-Msg-Id` of the `n`th reply (from 0) to an activity: the same however often it is published.
    pub fn msg_id(tenant: &TenantId, key: &IdempotencyKey, n: usize) -> String {
        short_id(format!("{tenant}:{key}:{n}"))
    }

    /// All headers of the `n`th reply (from 0) to an activity.
    pub fn all_headers(
        &self,
        env: &EnvId,
        tenant: &TenantId,
        key: &IdempotencyKey,
        n: usize,
    ) -> Headers {
        let mut headers = Headers::with_capacity(10);
        headers.push(header::MSG_ID, Self::msg_id(tenant, key, n));
        headers.push(header::IN_REPLY_TO, key.header_value());
        headers.push(header::TENANT, tenant.as_str());
        headers.push(header::ENV, env.as_str());
        headers.push(header::PACK_ID, self.headers.pack.to_string());
        headers.push(header::FLOW_ID, self.headers.flow.as_str());
        if let Some(correlation) = &self.headers.correlation {
            headers.push(header::CORRELATION_ID, correlation);
            headers.push(header::EXPECTS_REPLY, "true");
        }
        if let Some(trace) = &self.headers.trace {
            headers.push(header::TRACEPARENT, &trace.traceparent);
            if let Some(state) = &trace.tracestate {
                headers.push(header::TRACESTATE, state);
            }
        }
        headers
    }
}

/// The `Nats-Msg-Id` of the dead letter of the message at this position of the inbound stream. A stream that was made anew
/// counts from 1 again; the time at which the message was stored, in nanoseconds, tells the two apart.
pub fn dead_letter_id(
    tenant: &TenantId,
    key: Option<&IdempotencyKey>,
    (sequence, stored): (u64, Option<u64>),
) -> String {
    let key = key.map_or("-", IdempotencyKey::as_str);
    short_id(match stored {
        Some(stored) => format!("{tenant}:{key}:dead:{sequence}-{stored}"),
        None => format!("{tenant}:{key}:dead:{sequence}"),
    })
}

/// The `Nats-Msg-Id` of the dead letter of the `n`th reply (from 0) to an activity.
pub fn dead_reply_id(tenant: &TenantId, key: &IdempotencyKey, n: usize) -> String {
    short_id(format!("{tenant}:{key}:{n}:dead"))
}

/// The `Nats-Msg-Id` of a message whose first choice of an id belongs to another message: the same for the same body.
pub fn other_id(id: &str, body: &[u8], n: usize) -> String {
    let digest = hex::encode(Sha256::digest(body));
    short_id(format!("{id}:{}:{n}", &digest[..16]))
}

/// The `Nats-Msg-Id` of what a user is told whose message was put aside.
pub fn apology_id(tenant: &TenantId, key: &IdempotencyKey) -> String {
    short_id(format!("{tenant}:{key}:apology"))
}

/// A message id as it is, or its digest where it is long: the server keeps every id of its window in memory.
fn short_id(id: String) -> String {
    if id.len() <= 128 {
        id
    } else {
        format!("sha256-{}", hex::encode(Sha256::digest(id.as_bytes())))
    }
}
