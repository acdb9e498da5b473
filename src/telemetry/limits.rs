//! The limits of the settings as gauges, so that an alert can be a share of a limit and need not repeat its number.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};

use super::metrics::Tenant;
use crate::model::TenantId;

/// The limits of a worker.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Turns in flight at once, `worker.slots`.
    pub turns: usize,
    /// Attempts at a message, `worker.attempts`.
    pub attempts: u32,
    /// How long a turn may run, `worker.turn_timeout`.
    pub turn_timeout: Duration,
    /// How long a flow waits for its answer, `worker.wait_ttl`.
    pub wait_ttl: Duration,
    /// The largest body of a message, `limits.payload_bytes`.
    pub payload_bytes: usize,
    /// Open waits of one user, `limits.waits_per_user`.
    pub user_waits: u32,
    /// Threads for turns that compute for long.
    pub compute_threads: usize,
    /// The limits of a tenant that has none of its own.
    pub everyone: TenantLimits,
    /// Those of single tenants.
    pub tenants: BTreeMap<TenantId, TenantLimits>,
}

/// The limits of a tenant.
#[derive(Clone, Copy, Debug)]
pub struct TenantLimits {
    /// Its turns in flight at once.
    pub turns: usize,
    /// State of all of its users, in bytes; `None` is no limit.
    pub state_bytes: Option<u64>,
    /// State of one of its users, in bytes; `None` is no limit.
    pub user_state_bytes: Option<u64>,
}

/// The gauges of the limits.
#[derive(Debug)]
pub(super) struct LimitMetrics {
    limits: Limits,
    turns: Family<Tenant, Gauge>,
    state_bytes: Family<Tenant, Gauge>,
    user_state_bytes: Family<Tenant, Gauge>,
}

impl LimitMetrics {
    pub(super) fn register(registry: &mut Registry, limits: Limits) -> Self {
        let mut count = |name: &str, help: &str, value: usize| {
            registry.register(name, help, ConstGauge::new(shown(value as u64)));
        };
        count(
            "turns_in_flight_limit",
            "The limit of turns in flight, beyond which each tenant has one of its own",
            limits.turns,
        );
        count(
            "attempts_limit",
            "How often a message is tried before it is dead-lettered",
            limits.attempts as usize,
        );
        count(
            "user_waits_limit",
            "The limit of open waits of one user",
            limits.user_waits as usize,
        );
        count(
            "compute_threads",
            "Threads for turns that compute for long",
            limits.compute_threads,
        );
        registry.register_with_unit(
            "payload_limit",
            "The largest body of a message",
            Unit::Bytes,
            ConstGauge::new(shown(limits.payload_bytes as u64)),
        );
        let mut seconds = |name: &str, help: &str, value: Duration| {
            let value = ConstGauge::new(value.as_secs_f64());
            registry.register_with_unit(name, help, Unit::Seconds, value);
        };
        seconds(
            "turn_timeout",
            "How long a turn may run",
            limits.turn_timeout,
        );
        seconds(
            "wait_ttl",
            "How long a flow waits for its answer",
            limits.wait_ttl,
        );
        Self {
            limits,
            turns: of_tenant(
                registry,
                ("tenant_turns_in_flight_limit", None),
                "The limit of the tenant's turns in flight",
            ),
            state_bytes: of_tenant(
                registry,
                ("state_limit", Some(Unit::Bytes)),
                "The limit of the tenant's state",
            ),
            user_state_bytes: of_tenant(
                registry,
                ("user_state_limit", Some(Unit::Bytes)),
                "The limit of the state of one user of the tenant",
            ),
        }
    }

    /// Shows the limits of a tenant. What has no limit has no gauge.
    pub(super) fn show(&self, tenant: &TenantId) {
        let own = self.limits.tenants.get(tenant);
        let limits = own.unwrap_or(&self.limits.everyone);
        let label = Tenant {
            tenant: Arc::from(tenant.as_str()),
        };
        let set = |family: &Family<Tenant, Gauge>, value: Option<u64>| {
            if let Some(value) = value {
                family.get_or_create(&label).set(shown(value));
            }
        };
        set(&self.turns, Some(limits.turns as u64));
        set(&self.state_bytes, limits.state_bytes);
        set(&self.user_state_bytes, limits.user_state_bytes);
    }
}

fn of_tenant(
    registry: &mut Registry,
    (name, unit): (&str, Option<Unit>),
    help: &str,
) -> Family<Tenant, Gauge> {
    let family = Family::default();
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, family.clone()),
        None => registry.register(name, help, family.clone()),
    }
    family
}

fn shown(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
