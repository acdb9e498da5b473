//! Records that several interfaces share.

use wasmtime::component::{ComponentType, Lift, Lower};

/// `tenant-ctx` of `greentic:interfaces-types/types@0.1.0`: for whom a component says that it asks. It is for whom it
/// was called, whatever it says; only a component that names another tenant is told no.
#[derive(ComponentType, Lift)]
#[component(record)]
#[expect(dead_code, reason = "the worker knows the rest of it better")]
pub(super) struct TenantCtx {
    env: String,
    tenant: String,
    #[component(name = "tenant-id")]
    tenant_id: String,
    team: Option<String>,
    #[component(name = "team-id")]
    team_id: Option<String>,
    user: Option<String>,
    #[component(name = "user-id")]
    user_id: Option<String>,
    #[component(name = "trace-id")]
    trace_id: Option<String>,
    #[component(name = "i18n-id")]
    i18n_id: Option<String>,
    #[component(name = "correlation-id")]
    correlation_id: Option<String>,
    attributes: Vec<(String, String)>,
    #[component(name = "session-id")]
    session_id: Option<String>,
    #[component(name = "flow-id")]
    flow_id: Option<String>,
    #[component(name = "node-id")]
    node_id: Option<String>,
    #[component(name = "provider-id")]
    provider_id: Option<String>,
    #[component(name = "deadline-ms")]
    deadline_ms: Option<i64>,
    attempt: u32,
    #[component(name = "idempotency-key")]
    idempotency_key: Option<String>,
    impersonation: Option<Impersonation>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
#[expect(
    dead_code,
    reason = "the worker knows of nobody who may pose as another"
)]
pub(super) struct Impersonation {
    #[component(name = "actor-id")]
    actor_id: String,
    reason: Option<String>,
}

/// An error as most interfaces tell it.
#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct HostError {
    pub(super) code: String,
    pub(super) message: String,
}

/// What an interface that has nothing to say answers.
#[derive(Clone, Copy, ComponentType, Lower)]
#[component(enum)]
#[repr(u8)]
pub(super) enum Ack {
    #[component(name = "ok")]
    Ok,
}

/// Why there is no value for a key: `secrets-error` and `config-error`.
#[derive(Clone, Copy, ComponentType, Lower)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "the interfaces have them all")]
pub(super) enum LookupError {
    #[component(name = "not-found")]
    NotFound,
    #[component(name = "denied")]
    Denied,
    #[component(name = "invalid-key")]
    InvalidKey,
    #[component(name = "internal")]
    Internal,
}

impl HostError {
    pub(super) fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
        }
    }
}

impl TenantCtx {
    /// Whether it names another tenant than this one.
    pub(super) fn is_foreign_to(&self, tenant: &str) -> bool {
        let other = |named: &str| !named.is_empty() && named != tenant;
        other(&self.tenant) || other(&self.tenant_id)
    }
}
