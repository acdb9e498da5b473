//! What is counted of the runs that compute for long.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

use super::metrics::Tenant;
use crate::model::TenantId;

type Seconds = Counter<f64, AtomicU64>;

/// What is counted of the runs that compute for long; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ComputeMetrics {
    runs: Family<Tenant, Counter>,
    time: Family<Tenant, Seconds>,
}

impl ComputeMetrics {
    /// Counts a run that goes on on the compute threads.
    pub fn began(&self, tenant: &TenantId) {
        let tenant = tenant.as_str().into();
        self.runs.get_or_create(&Tenant { tenant }).inc();
    }

    /// Counts time that a run took on a compute thread.
    pub fn computed(&self, tenant: &TenantId, time: Duration) {
        let tenant = tenant.as_str().into();
        let seconds = time.as_secs_f64();
        self.time.get_or_create(&Tenant { tenant }).inc_by(seconds);
    }

    /// Has a tenant's counts begin with zero, so that the first of them is an increase.
    pub(super) fn begin(&self, tenant: &Arc<str>) {
        let tenant = Tenant {
            tenant: Arc::clone(tenant),
        };
        self.runs.get_or_create(&tenant).inc_by(0);
        self.time.get_or_create(&tenant).inc_by(0.0);
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "compute_runs",
            "Runs that were too long for the thread of their turn, and went on on the compute threads",
            self.runs.clone(),
        );
        registry.register_with_unit(
            "compute",
            "Processor time of the compute threads",
            Unit::Seconds,
            self.time.clone(),
        );
    }
}
