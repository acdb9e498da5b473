//! What is counted of the calls of components.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::model::TenantId;

/// Seconds. A component that only computes takes microseconds; one that calls out takes as long as that does.
const DURATION_BUCKETS: [f64; 11] = [
    0.00005, 0.0002, 0.0005, 0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 30.0,
];

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallOutcome {
    /// With an output, whatever it says.
    Done,
    /// It crashed.
    Trap,
    /// It went past a limit.
    Limit,
    /// It reached for what it was not granted.
    Refused,
    /// It could not be called.
    Unusable,
    /// The turn gave it up before it was done.
    Dropped,
}

/// What may be refused to a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Capability {
    /// A request over HTTP.
    Http,
    /// A secret.
    Secrets,
    /// The user's state.
    State,
    /// A token of the OAuth broker.
    Oauth,
}

impl Capability {
    const ALL: [Self; 4] = [Self::Http, Self::Secrets, Self::State, Self::Oauth];

    /// The capability in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Secrets => "secrets",
            Self::State => "state",
            Self::Oauth => "oauth",
        }
    }
}

impl CallOutcome {
    const ALL: [Self; 6] = [
        Self::Done,
        Self::Trap,
        Self::Limit,
        Self::Refused,
        Self::Unusable,
        Self::Dropped,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Trap => "trap",
            Self::Limit => "limit",
            Self::Refused => "refused",
            Self::Unusable => "unusable",
            Self::Dropped => "dropped",
        }
    }
}

impl EncodeLabelValue for CallOutcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

impl EncodeLabelValue for Capability {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

/// The counters of all calls; clones count into the same ones.
#[derive(Clone, Debug)]
pub struct ComponentMetrics {
    calls: Family<Call, Counter>,
    duration: Family<Tenant, Histogram>,
    refusals: Family<Refusal, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Tenant {
    tenant: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    tenant: Arc<str>,
    outcome: CallOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refusal {
    tenant: Arc<str>,
    capability: Capability,
}

impl Default for ComponentMetrics {
    fn default() -> Self {
        Self {
            calls: Family::default(),
            duration: Family::new_with_constructor(
                (|| Histogram::new(DURATION_BUCKETS)) as fn() -> Histogram,
            ),
            refusals: Family::default(),
        }
    }
}

impl ComponentMetrics {
    /// Counts a call that is over.
    pub fn called(&self, tenant: &TenantId, outcome: CallOutcome, duration: Duration) {
        let tenant: Arc<str> = tenant.as_str().into();
        let call = Call {
            tenant: Arc::clone(&tenant),
            outcome,
        };
        self.calls.get_or_create(&call).inc();
        self.duration
            .get_or_create(&Tenant { tenant })
            .observe(duration.as_secs_f64());
    }

    /// Has a tenant's counts begin with zero, so that the first of them is an increase.
    pub(super) fn begin(&self, tenant: &Arc<str>) {
        for outcome in CallOutcome::ALL {
            let tenant = Arc::clone(tenant);
            self.calls
                .get_or_create(&Call { tenant, outcome })
                .inc_by(0);
        }
        for capability in Capability::ALL {
            let tenant = Arc::clone(tenant);
            let refusal = Refusal { tenant, capability };
            self.refusals.get_or_create(&refusal).inc_by(0);
        }
    }

    /// Counts a refusal.
    pub fn refused(&self, tenant: &TenantId, capability: Capability) {
        let tenant = tenant.as_str().into();
        self.refusals
            .get_or_create(&Refusal { tenant, capability })
            .inc();
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "component_calls",
            "Calls of components, by how they ended",
            self.calls.clone(),
        );
        registry.register_with_unit(
            "component_call_duration",
            "How long calls of components took, without waiting for a free instance",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register(
            "component_refusals",
            "What components reached for and were not granted",
            self.refusals.clone(),
        );
    }
}
