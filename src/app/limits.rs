//! From settings to the limits that the metrics show.

use std::num::NonZeroU64;

use super::config;
use crate::adapters::compute::compute_threads;
use crate::model::TenantId;
use crate::settings::Settings;
use crate::telemetry::{Limits, TenantLimits};

/// The limits that the metrics show.
pub(super) fn limits(settings: &Settings) -> Limits {
    let (worker, limits) = (&settings.worker, &settings.limits);
    let tenants = settings.tenants.keys();
    Limits {
        turns: worker.slots.get(),
        attempts: worker.attempts.get(),
        turn_timeout: worker.turn_timeout,
        wait_ttl: worker.wait_ttl,
        payload_bytes: limits.payload_bytes.get(),
        user_waits: limits.waits_per_user.get(),
        compute_threads: compute_threads(worker.compute_threads),
        everyone: of_tenant(settings, None),
        tenants: tenants
            .map(|id| (id.clone(), of_tenant(settings, Some(id))))
            .collect(),
    }
}

fn of_tenant(settings: &Settings, tenant: Option<&TenantId>) -> TenantLimits {
    let own = tenant.and_then(|id| settings.tenants.get(id));
    let or = |own: Option<NonZeroU64>, everyone: Option<NonZeroU64>| {
        own.or(everyone).map(NonZeroU64::get)
    };
    TenantLimits {
        turns: config::TenantLimits::of(settings).most(tenant),
        state_bytes: or(
            own.and_then(|own| own.state_tenant_bytes),
            settings.state.tenant_bytes,
        ),
        user_state_bytes: or(
            own.and_then(|own| own.state_user_bytes),
            settings.state.user_bytes,
        ),
    }
}
