//! An activity: an inbound message that was read and found to be in order.

use std::sync::Arc;

use greentic_types::{Actor, ReplyScope, TenantCtx};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    ContentDigest, EnvId, FlowId, HashedScope, IdempotencyKey, PackId, TeamId, TenantId, UserId,
};

/// One inbound message, decoded: what a turn is made from.
#[derive(Clone, Debug)]
pub struct Activity {
    /// The worker's environment.
    pub env: EnvId,
    /// The tenant that the subject names.
    pub tenant: TenantId,
    /// The name under which the activity is applied at most once.
    pub key: IdempotencyKey,
    /// The user in the form it is stored under; the session where no user is known.
    pub user: UserId,
    /// The team inside the tenant.
    pub team: Option<TeamId>,
    /// Where replies belong; its `correlation` is the echo, wherever it was found.
    pub reply_scope: Option<HashedScope>,
    /// The provider's channel, echoed in replies.
    pub channel: String,
    /// The provider's session, echoed in replies.
    pub session_id: String,
    /// Who sent it.
    pub from: Option<Actor>,
    /// The flow that the headers ask for.
    pub target: FlowTarget,
    /// The caller whom the provider vouches for: `extensions.caller` of the body itself, never of what stands in
    /// `extensions.payload`.
    pub caller: Option<Value>,
    /// The trace it belongs to.
    pub trace: Option<TraceContext>,
    /// The digest of all that makes it this message and no other: who says what, and where.
    pub content: ContentDigest,
    /// What the flow sees as `in` and `entry`. Shared, since a turn that comes too late is played again.
    pub payload: Arc<Value>,
}

/// The flow that an activity asks for by header; both empty is the usual case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowTarget {
    /// `Greentic-Pack-Id`.
    pub pack: Option<PackId>,
    /// `Greentic-Flow-Id`.
    pub flow: Option<FlowId>,
}

impl FlowTarget {
    /// Whether the headers ask for anything, and so whether a matching wait is passed over.
    pub fn is_explicit(&self) -> bool {
        self.pack.is_some() || self.flow.is_some()
    }
}

/// W3C trace context as it travels in headers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// `traceparent`: version, trace id, parent id, flags.
    pub traceparent: String,
    /// `tracestate`: the vendors' own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
}

impl TraceContext {
    /// The context of a turn inside this trace: the same trace id and flags under the turn's own span id (16 lowercase
    /// hex digits). An unreadable `traceparent` gives none, as the W3C recommendation asks.
    pub fn child(&self, span_id: &str) -> Option<Self> {
        let mut parts = self.traceparent.split('-');
        let (version, trace, parent, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |s: &str, len| {
            s.len() == len
                && s.bytes()
                    .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let zero = |s: &str| s.bytes().all(|b| b == b'0');
        if version == "ff"
            || !hex(version, 2)
            || !hex(trace, 32)
            || !hex(parent, 16)
            || !hex(flags, 2)
        {
            return None;
        }
        if zero(trace) || zero(parent) {
            return None;
        }
        Some(Self {
            traceparent: ["00-", trace, "-", span_id, "-", flags].concat(),
            tracestate: self.tracestate.clone(),
        })
    }
}

impl Activity {
    /// The tenant context that greentic-session and greentic-state build their keys from.
    pub fn tenant_ctx(&self) -> TenantCtx {
        TenantCtx::new(self.env.clone(), self.tenant.clone())
            .with_team(self.team.clone())
            .with_user(Some(self.user.clone()))
            .with_session(self.session_id.clone())
    }

    /// The reply scope without the echo: what names the conversation.
    pub fn base_scope(&self) -> Option<ReplyScope> {
        self.reply_scope.as_ref().map(HashedScope::base)
    }

    /// The echoed correlation id.
    pub fn correlation(&self) -> Option<&str> {
        self.reply_scope.as_ref()?.correlation.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_keeps_the_trace_and_gets_its_own_span() {
        let given = TraceContext {
            traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
            tracestate: Some("a=b".to_owned()),
        };
        let child = given.child("00f067aa0ba902b7").unwrap();
        assert_eq!(
            child.traceparent,
            "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"
        );
        assert_eq!(child.tracestate.as_deref(), Some("a=b"));
        for unreadable in [
            "",
            "00-zz-b7-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        ] {
            let context = TraceContext {
                traceparent: unreadable.to_owned(),
                tracestate: None,
            };
            assert_eq!(context.child("00f067aa0ba902b7"), None, "{unreadable}");
        }
    }
}
