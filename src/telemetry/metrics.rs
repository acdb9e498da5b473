//! What is counted, under names that say what happened. `docs/metrics.md` has the table.
//!
//! The only labels are the tenants that this worker has or had bindings for, and words that the code knows: an outcome, a
//! dead letter's code.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};

use super::backlog::BacklogMetrics;
use super::components::ComponentMetrics;
use super::compute::ComputeMetrics;
use super::exposition::{Exposition, in_prometheus_text};
use super::health::{Health, Refused};
use super::labels::{KnownLabels, Reload};
use super::limits::{LimitMetrics, Limits};
use super::process;
use super::tenant::{DeadLetter, Outcome, PullAge, TenantMetrics};
use super::unserved::UnservedMetrics;
use super::unusable::UnusableMetrics;
use crate::budget::MemoryBudget;
use crate::model::TenantId;

/// Seconds. A turn of the worker takes about a millisecond; one that calls out takes as long as that does.
const DURATION_BUCKETS: [f64; 13] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
];

/// All metrics of a worker.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// The metrics that have no prefix.
    process: Registry,
    health: Arc<Health>,
    families: Families,
    unserved: UnservedMetrics,
    backlog: BacklogMetrics,
    unusable: UnusableMetrics,
    /// What the gauge of refusals has at 1.
    refused: Mutex<HashSet<RefusedPart>>,
    /// The tenants of which packs are left out.
    left_out: Mutex<Vec<TenantId>>,
    compute: ComputeMetrics,
    components: Option<ComponentMetrics>,
    limits: Option<LimitMetrics>,
    labels: KnownLabels,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedPart {
    tenant: Arc<str>,
    part: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Tenant {
    pub(super) tenant: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Message {
    tenant: Arc<str>,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reloaded {
    outcome: Reload,
}

#[derive(Debug)]
struct Families {
    reloads: Family<Reloaded, Counter>,
    packs_left_out: Family<Tenant, Gauge>,
    messages: Family<Message, Counter>,
    turn_duration: Family<Tenant, Histogram>,
    in_flight: Family<Tenant, Gauge>,
    redeliveries: Family<Tenant, Counter>,
    lease_conflicts: Family<Tenant, Counter>,
    commit_conflicts: Family<Tenant, Counter>,
    dead_letters: Family<DeadLetter, Counter>,
    waits_parked: Family<Tenant, Counter>,
    waits_resumed: Family<Tenant, Counter>,
    waits_expired: Family<Tenant, Counter>,
    stale_echoes: Family<Tenant, Counter>,
    replies: Family<Tenant, Counter>,
    state_bytes: Family<Tenant, Gauge>,
    pulls: Family<Tenant, Counter>,
    stalls: Family<Tenant, Counter>,
    last_pull: Family<Tenant, PullAge>,
    refused: Family<RefusedPart, Gauge>,
    refusals: Family<RefusedPart, Counter>,
    replies_dropped: Counter,
}

/// 1 while the worker is ready, computed when it is asked for.
#[derive(Debug)]
struct Ready(Arc<Health>);

impl Metrics {
    /// The metrics of a worker of this health, all zero.
    pub fn new(health: Arc<Health>) -> Self {
        let mut registry = Registry::with_prefix("greentic_worker");
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "The worker's version", Info::new(version));
        registry.register(
            "ready",
            "1 while the worker is ready for work, as /readyz says",
            Ready(health.clone()),
        );
        let families = Families::register(&mut registry);
        // There from the start, so that the first of them is an increase.
        for outcome in [
            Reload::Applied,
            Reload::Partial,
            Reload::Refused,
            Reload::Unavailable,
        ] {
            families
                .reloads
                .get_or_create(&Reloaded { outcome })
                .inc_by(0);
        }
        let compute = ComputeMetrics::default();
        compute.register(&mut registry);
        let mut process = Registry::default();
        process::register(&mut process);
        Self {
            families,
            unserved: UnservedMetrics::register(&mut registry),
            backlog: BacklogMetrics::register(&mut registry),
            unusable: UnusableMetrics::register(&mut registry),
            registry,
            process,
            health,
            refused: Mutex::default(),
            left_out: Mutex::default(),
            compute,
            components: None,
            limits: None,
            labels: KnownLabels::default(),
        }
    }

    /// Has the counters of each tenant begin with zero under these labels.
    #[must_use]
    pub fn with_labels(mut self, labels: KnownLabels) -> Self {
        self.labels = labels;
        self
    }

    /// Shows these limits, too.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = Some(LimitMetrics::register(&mut self.registry, limits));
        self
    }

    /// What is counted of runs that compute for long.
    pub fn compute(&self) -> &ComputeMetrics {
        &self.compute
    }

    /// Counts a turn that held a thread for long.
    pub(super) fn stalled(&self, tenant: &TenantId) {
        let tenant = tenant.as_str().into();
        self.families.stalls.get_or_create(&Tenant { tenant }).inc();
    }

    /// Those of the calls of components, too.
    #[must_use]
    pub fn with_components(mut self, components: &ComponentMetrics) -> Self {
        components.register(&mut self.registry);
        self.components = Some(components.clone());
        self
    }

    /// The messages that nobody takes.
    pub fn unserved_messages(&self) -> &UnservedMetrics {
        &self.unserved
    }

    /// The messages that wait.
    pub fn backlog(&self) -> &BacklogMetrics {
        &self.backlog
    }

    /// The tenants whose bindings cannot be used.
    pub fn unusable_bindings(&self) -> &UnusableMetrics {
        &self.unusable
    }

    /// What is counted of memory, too.
    #[must_use]
    pub fn with_memory(mut self, memory: &MemoryBudget) -> Self {
        super::memory::register(&mut self.registry, memory);
        self
    }

    /// The metrics of a tenant that this worker has bindings for: look them up once and keep them.
    pub fn tenant(&self, tenant: &TenantId) -> TenantMetrics {
        if let Some(limits) = &self.limits {
            limits.show(tenant);
        }
        let tenant: Arc<str> = tenant.as_str().into();
        self.compute.begin(&tenant);
        if let Some(components) = &self.components {
            components.begin(&tenant);
        }
        self.families.begin(&tenant, &self.labels);
        self.families.of(tenant, self.health.clone())
    }

    /// Counts messages that were dead-lettered before a turn could be made of them.
    pub fn dead_lettered(&self, tenant: &TenantId, code: &'static str, messages: u64) {
        let tenant: Arc<str> = tenant.as_str().into();
        let message = Message {
            tenant: Arc::clone(&tenant),
            outcome: Outcome::DeadLettered,
        };
        self.families
            .messages
            .get_or_create(&message)
            .inc_by(messages);
        let letter = DeadLetter { tenant, code };
        self.families
            .dead_letters
            .get_or_create(&letter)
            .inc_by(messages);
    }

    /// Takes the age of the last pull away of a tenant that is not pulled for any more: it would only grow.
    pub fn unserved(&self, tenant: &TenantId) {
        let tenant = tenant.as_str().into();
        self.families.last_pull.remove(&Tenant { tenant });
    }

    /// What is refused to whom now.
    pub fn refused(&self, now: &[Refused]) {
        let part = |refused: &Refused| RefusedPart {
            tenant: refused.tenant.as_str().into(),
            part: refused.part,
            reason: refused.reason,
        };
        let now: HashSet<RefusedPart> = now.iter().map(part).collect();
        let mut before = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        for over in before.difference(&now) {
            self.families.refused.get_or_create(over).set(0);
        }
        for begun in now.difference(&before) {
            self.families.refused.get_or_create(begun).set(1);
            self.families.refusals.get_or_create(begun).inc();
        }
        *before = now;
    }

    /// So many replies were dropped by the full stream of replies.
    pub fn replies_dropped(&self, count: u64) {
        self.families.replies_dropped.inc_by(count);
    }

    /// Counts waits that were found expired.
    pub fn waits_expired(&self, tenant: &TenantId, waits: u64) {
        let tenant = tenant.as_str().into();
        let expired = self
            .families
            .waits_expired
            .get_or_create(&Tenant { tenant });
        expired.inc_by(waits);
    }

    /// Counts an attempt to load changed bindings.
    pub fn reloaded(&self, outcome: Reload) {
        self.families
            .reloads
            .get_or_create(&Reloaded { outcome })
            .inc();
    }

    /// Tells how many packs of each tenant are bound and not in force.
    pub fn left_out(&self, packs: &BTreeMap<TenantId, u64>) {
        let set = |tenant: &TenantId, count: u64| {
            let tenant = tenant.as_str().into();
            let gauge = self
                .families
                .packs_left_out
                .get_or_create(&Tenant { tenant });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        let mut before = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        before.iter().for_each(|tenant| set(tenant, 0));
        packs.iter().for_each(|(tenant, count)| set(tenant, *count));
        *before = packs.keys().cloned().collect();
    }

    /// All of them as a page in this format.
    ///
    /// # Errors
    /// If one of them cannot be written as text.
    pub fn render(&self, format: Exposition) -> Result<String, fmt::Error> {
        let mut page = String::new();
        text::encode_registry(&mut page, &self.registry)?;
        text::encode_registry(&mut page, &self.process)?;
        match format {
            Exposition::OpenMetrics => text::encode_eof(&mut page)?,
            Exposition::Prometheus => page = in_prometheus_text(&page),
        }
        Ok(page)
    }
}

impl Families {
    fn register(registry: &mut Registry) -> Self {
        let turn_duration = Family::new_with_constructor(
            (|| Histogram::new(DURATION_BUCKETS)) as fn() -> Histogram,
        );
        registry.register_with_unit(
            "turn_duration",
            "How long turns took, from delivery to settlement",
            Unit::Seconds,
            turn_duration.clone(),
        );
        let last_pull = Family::<Tenant, PullAge>::default();
        registry.register_with_unit(
            "last_pull_age",
            "How long ago a pull last came to its end",
            Unit::Seconds,
            last_pull.clone(),
        );
        let mut counter = |name: &str, help: &str| added(registry, name, help);
        Self {
            redeliveries: counter("redeliveries", "Messages delivered more than once"),
            lease_conflicts: counter(
                "lease_conflicts",
                "Turns that found their conversation leased to another one",
            ),
            commit_conflicts: counter(
                "commit_conflicts",
                "Turns that another one came before, and that ran again",
            ),
            waits_parked: counter("waits_parked", "Flows parked to wait for an answer"),
            waits_resumed: counter("waits_resumed", "Parked flows that got their answer"),
            waits_expired: counter(
                "waits_expired",
                "Waits that were found expired when a user's list of waits was cleaned up",
            ),
            stale_echoes: counter(
                "stale_echoes",
                "Messages that echo the correlation id of a wait that is not there",
            ),
            replies: counter("replies", "Replies published"),
            pulls: counter("pulls", "Pulls that came to their end"),
            stalls: counter("stalls", "Turns that held a thread for more than a second"),
            reloads: added(
                registry,
                "reloads",
                "Attempts to load changed bindings, by outcome",
            ),
            refused: added(
                registry,
                "tenant_refused",
                "1 while a server refuses this to a tenant, 0 once it does no more",
            ),
            refusals: added(
                registry,
                "tenant_refusals",
                "Refusals of something to a tenant that began",
            ),
            replies_dropped: added(
                registry,
                "replies_dropped",
                "Replies that the full stream of replies was seen to drop",
            ),
            packs_left_out: added(
                registry,
                "packs_left_out",
                "Packs that are bound and not in force, as the log says",
            ),
            messages: added(registry, "messages", "Messages dealt with, by outcome"),
            dead_letters: added(registry, "dead_letters", "Messages given up, by reason"),
            in_flight: added(registry, "turns_in_flight", "Turns in flight"),
            state_bytes: added(
                registry,
                "state_bytes",
                "State of the tenant, in bytes, as the last turn that wrote some has left it",
            ),
            turn_duration,
            last_pull,
        }
    }

    /// Has the counters with labels besides the tenant begin with zero.
    fn begin(&self, tenant: &Arc<str>, labels: &KnownLabels) {
        for code in &labels.codes {
            let (tenant, code) = (Arc::clone(tenant), *code);
            let letter = DeadLetter { tenant, code };
            self.dead_letters.get_or_create(&letter).inc_by(0);
        }
        for part in &labels.parts {
            for reason in &labels.reasons {
                let tenant = Arc::clone(tenant);
                let refused = RefusedPart {
                    tenant,
                    part,
                    reason,
                };
                self.refusals.get_or_create(&refused).inc_by(0);
            }
        }
    }

    fn of(&self, tenant: Arc<str>, health: Arc<Health>) -> TenantMetrics {
        let label = Tenant {
            tenant: tenant.clone(),
        };
        // There from the start, so that the first of them is an increase.
        self.packs_left_out.get_or_create(&label).inc_by(0);
        let messages = |outcome| {
            let tenant = tenant.clone();
            self.messages
                .get_or_create_owned(&Message { tenant, outcome })
        };
        // There from the start, so that the first of them is an increase.
        self.stalls.get_or_create(&label).inc_by(0);
        self.waits_expired.get_or_create(&label).inc_by(0);
        TenantMetrics {
            finished: messages(Outcome::Finished),
            parked: messages(Outcome::Parked),
            duplicate: messages(Outcome::Duplicate),
            retried: messages(Outcome::Retried),
            dead_lettered: messages(Outcome::DeadLettered),
            turn_duration: self.turn_duration.get_or_create_owned(&label),
            in_flight: self.in_flight.get_or_create_owned(&label),
            redeliveries: self.redeliveries.get_or_create_owned(&label),
            lease_conflicts: self.lease_conflicts.get_or_create_owned(&label),
            commit_conflicts: self.commit_conflicts.get_or_create_owned(&label),
            waits_parked: self.waits_parked.get_or_create_owned(&label),
            waits_resumed: self.waits_resumed.get_or_create_owned(&label),
            stale_echoes: self.stale_echoes.get_or_create_owned(&label),
            replies: self.replies.get_or_create_owned(&label),
            state_bytes: self.state_bytes.get_or_create_owned(&label),
            pulls: self.pulls.get_or_create_owned(&label),
            last_pull: self.last_pull.get_or_create_owned(&label),
            dead_letters: self.dead_letters.clone(),
            tenant,
            health,
        }
    }
}

fn added<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

impl EncodeMetric for Ready {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        encoder.encode_gauge(&i64::from(self.0.ready().is_ok()))
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}
