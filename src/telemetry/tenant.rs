//! The metrics of one tenant, looked up once: counting takes no lock but that of the histogram and allocates nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::{
    EncodeLabelSet, EncodeLabelValue, EncodeMetric, LabelValueEncoder, MetricEncoder,
};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::{MetricType, TypedMetric};

use super::health::{Health, LastPull};

/// How a message was dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Its flow ran to the end.
    Finished,
    /// Its flow waits for an answer.
    Parked,
    /// It had been applied before.
    Duplicate,
    /// It went back, to be tried again.
    Retried,
    /// It went to the dead letters.
    DeadLettered,
}

/// The metrics of one tenant; cheap to clone.
#[derive(Clone, Debug)]
pub struct TenantMetrics {
    pub(super) finished: Counter,
    pub(super) parked: Counter,
    pub(super) duplicate: Counter,
    pub(super) retried: Counter,
    pub(super) dead_lettered: Counter,
    pub(super) turn_duration: Histogram,
    pub(super) in_flight: Gauge,
    pub(super) redeliveries: Counter,
    pub(super) lease_conflicts: Counter,
    pub(super) commit_conflicts: Counter,
    pub(super) waits_parked: Counter,
    pub(super) waits_resumed: Counter,
    pub(super) stale_echoes: Counter,
    pub(super) replies: Counter,
    pub(super) state_bytes: Gauge,
    pub(super) pulls: Counter,
    pub(super) last_pull: PullAge,
    pub(super) dead_letters: Family<DeadLetter, Counter>,
    pub(super) tenant: Arc<str>,
    pub(super) health: Arc<Health>,
}

/// A turn in flight: it counts as such until this is dropped.
#[derive(Debug)]
#[must_use = "the turn is in flight for as long as this is held"]
pub struct InFlight(Gauge);

/// What a dead letter is counted under.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DeadLetter {
    pub(super) tenant: Arc<str>,
    pub(super) code: &'static str,
}

/// The age of a tenant's last pull, computed when it is asked for.
#[derive(Clone, Debug)]
pub(super) struct PullAge(Arc<LastPull>);

impl TenantMetrics {
    /// A turn begins.
    pub fn turn_began(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// A turn is over: its message is settled.
    pub fn turn_finished(&self, outcome: Outcome, took: Duration) {
        let counter = match outcome {
            Outcome::Finished => &self.finished,
            Outcome::Parked => &self.parked,
            Outcome::Duplicate => &self.duplicate,
            Outcome::Retried => &self.retried,
            Outcome::DeadLettered => &self.dead_lettered,
        };
        counter.inc();
        self.turn_duration.observe(took.as_secs_f64());
    }

    /// A message was delivered, and not for the first time.
    pub fn redelivered(&self) {
        self.redeliveries.inc();
    }

    /// BEGIN found the conversation leased to another turn.
    pub fn lease_conflict(&self) {
        self.lease_conflicts.inc();
    }

    /// COMMIT found that another turn came first.
    pub fn commit_conflict(&self) {
        self.commit_conflicts.inc();
    }

    /// A message went to the dead letters, with this code.
    pub fn dead_letter(&self, code: &'static str) {
        let tenant = self.tenant.clone();
        self.dead_letters
            .get_or_create(&DeadLetter { tenant, code })
            .inc();
    }

    /// A flow was parked.
    pub fn wait_parked(&self) {
        self.waits_parked.inc();
    }

    /// A parked flow got its answer, and that turn was committed.
    pub fn wait_resumed(&self) {
        self.waits_resumed.inc();
    }

    /// A message echoes the correlation id of a wait that is not there.
    pub fn stale_echo(&self) {
        self.stale_echoes.inc();
    }

    /// So many replies were published.
    pub fn replied(&self, replies: usize) {
        self.replies
            .inc_by(u64::try_from(replies).unwrap_or(u64::MAX));
    }

    /// The tenant's state has so many bytes now.
    pub fn state_bytes(&self, bytes: u64) {
        self.state_bytes
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// A pull of this tenant came to its end, as [`Health::pulled`] says it, which this calls too.
    pub fn pulled(&self) {
        self.pulls.inc();
        self.last_pull.0.now();
        self.health.pulled();
    }
}

impl TenantMetrics {
    /// Nothing is pulled, because infrastructure is away: the loop of this tenant is alive all the same.
    pub fn waiting(&self) {
        self.health.pulled();
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Outcome {
    /// The outcome in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Parked => "parked",
            Self::Duplicate => "duplicate",
            Self::Retried => "retried",
            Self::DeadLettered => "dead_lettered",
        }
    }
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        self.as_str().encode(encoder)
    }
}

impl Default for PullAge {
    fn default() -> Self {
        Self(Arc::new(LastPull::new()))
    }
}

impl TypedMetric for PullAge {
    const TYPE: MetricType = MetricType::Gauge;
}

impl EncodeMetric for PullAge {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        encoder.encode_gauge(&self.0.age().as_secs_f64())
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}
