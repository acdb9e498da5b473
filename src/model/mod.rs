//! The words of the product, as types. Everything else speaks in these.

mod activity;
mod component;
mod content;
mod cut;
mod decode;
mod depth;
mod hashed_scope;
mod header_text;
mod ids;
mod inbound;
mod log_budget;
mod outbound;
mod pack_ref;
mod problem;
mod redaction;
mod remote_ref;
mod secret;
mod state;

pub use activity::{Activity, FlowTarget, TraceContext};
pub use component::{
    ComponentDigest, Declared, Grants, Invocation, InvocationForm, UndeclaredState,
};
pub use content::{Content, ContentDigest};
pub use cut::{cut, is_cut};
pub use decode::{DecodeError, decode, id_in_body, key_from_headers};
pub use depth::{MAX_BODY_DEPTH, MAX_DEPTH, is_too_deep, too_deep_at};
pub use hashed_scope::HashedScope;
pub use header_text::header_text;
pub use ids::{
    EnvId, FlowId, FlowKey, IdempotencyKey, InvalidPackId, NodeId, PackId, TeamId, TenantId,
    UserId, storage_user_id,
};
pub use inbound::{Actor, Headers, InboundBody, InboundMessage, TenantRef};
pub use log_budget::{LogBudget, MAX_LOG_LINE, PAYLOAD_LOG, cut_line};
pub use outbound::{
    Outbound, OutboundHeaders, apology_id, dead_letter_id, dead_reply_id, header, other_id,
};
pub use pack_ref::{InvalidPackRef, PackRef};
pub use problem::{Problem, Problems, Severity};
pub use redaction::Redaction;
pub use remote_ref::{Cloud, ObjectRef, OciRef, OciVersion, RemoteRef, WebRef};
pub use secret::Secret;
pub use state::{STATE_KEY_OVERHEAD, StateBudget, StateLimitError, StateLimits, json_len};

pub use greentic_types::ReplyScope;
