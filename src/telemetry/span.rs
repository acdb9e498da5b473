//! The span of a turn: what every log line of it carries.

use tracing::field::Empty;
use tracing::{Span, error_span};

use crate::model::{Activity, FlowId, IdempotencyKey, PackId, TenantId, TraceContext};

/// The span's name, and the name under which its fields stand in a log line.
pub(super) const NAME: &str = "turn";

/// The span of one turn. Its fields are `tenant`, `message`, `pack`, `flow`, `correlation`, `trace_id` and
/// `parked_trace_id`; each is there from when it is known, and is to be told once.
#[derive(Clone, Debug)]
pub struct TurnSpan(Span);

impl TurnSpan {
    /// The span of a turn of this tenant.
    pub fn new(tenant: &TenantId) -> Self {
        // An error span, so that a filter of `error` still leaves its fields on the errors.
        Self(error_span!(
            "turn",
            tenant = tenant.as_str(),
            message = Empty,
            pack = Empty,
            flow = Empty,
            correlation = Empty,
            trace_id = Empty,
            parked_trace_id = Empty,
        ))
    }

    /// The span itself, to instrument the turn's future with.
    pub fn span(&self) -> &Span {
        &self.0
    }

    /// The message is known, but it is no activity.
    pub fn message(&self, key: &IdempotencyKey) {
        self.0.record("message", key.as_str());
    }

    /// The message is this activity.
    pub fn activity(&self, activity: &Activity) {
        self.message(&activity.key);
        if let Some(correlation) = activity.correlation() {
            self.correlation(correlation);
        }
        if let Some(trace_id) = activity.trace.as_ref().and_then(trace_id) {
            self.0.record("trace_id", trace_id);
        }
    }

    /// The correlation id, where the activity brings none and the turn makes one.
    pub fn correlation(&self, id: &str) {
        self.0.record("correlation", id);
    }

    /// The flow that runs.
    pub fn flow(&self, pack: &PackId, flow: &FlowId) {
        self.0.record("pack", tracing::field::display(pack));
        self.0.record("flow", flow.as_str());
    }

    /// The trace of the turn that parked the flow which this one goes on with.
    pub fn parked_in(&self, trace: &TraceContext) {
        if let Some(trace_id) = trace_id(trace) {
            self.0.record("parked_trace_id", trace_id);
        }
    }
}

/// The trace id of a readable `traceparent`.
fn trace_id(trace: &TraceContext) -> Option<&str> {
    trace
        .traceparent
        .split('-')
        .nth(1)
        .filter(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()))
}
