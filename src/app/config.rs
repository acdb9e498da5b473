//! From settings to what the parts are told.

use std::collections::BTreeMap;

use super::bounds::bounds;
use crate::model::TenantId;
use crate::settings::Settings;
use crate::turn::{self, RetryPolicy};
use crate::worker;

pub(super) fn turn_config(settings: &Settings) -> turn::Config {
    let worker = &settings.worker;
    turn::Config {
        env: settings.environment.clone(),
        payload_bytes: settings.limits.payload_bytes.get(),
        retry: RetryPolicy {
            attempts: worker.attempts.get(),
            initial: worker.retry.initial,
            max: worker.retry.max,
        },
        turn_timeout: worker.turn_timeout,
        lease_ttl: worker.lease_ttl,
        wait_ttl: worker.wait_ttl,
        gone_after: settings.packs.gone_after,
        bounds: bounds(settings),
    }
}

pub(super) fn worker_config(settings: &Settings, tenants: &[TenantId]) -> worker::Config {
    worker::Config {
        slots: settings.worker.slots.get(),
        tenant_queue: settings.worker.tenant_queue,
        tenants: TenantLimits::of(settings).served(tenants),
        progress_every: settings.nats.ack_wait / 3,
        drain_timeout: settings.worker.drain_timeout,
        apology: settings.worker.apology.clone(),
    }
}

/// How many turns of a tenant may be in flight.
pub(super) struct TenantLimits {
    everyone: usize,
    own: BTreeMap<TenantId, usize>,
}

impl TenantLimits {
    pub(super) fn of(settings: &Settings) -> Self {
        let worker = &settings.worker;
        let own = settings.tenants.iter().filter_map(|(id, tenant)| {
            let most = tenant.max_in_flight?;
            Some((id.clone(), most.get()))
        });
        Self {
            everyone: worker.tenant_slots.unwrap_or(worker.slots).get(),
            own: own.collect(),
        }
    }

    /// The most turns of this tenant, or of one that has no limit of its own.
    pub(super) fn most(&self, tenant: Option<&TenantId>) -> usize {
        let own = tenant.and_then(|tenant| self.own.get(tenant));
        own.copied().unwrap_or(self.everyone)
    }

    pub(super) fn served(&self, tenants: &[TenantId]) -> worker::Served {
        let limit = |tenant: &TenantId| (tenant.clone(), self.most(Some(tenant)));
        tenants.iter().map(limit).collect()
    }
}
