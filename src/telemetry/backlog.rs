//! The messages that wait, as the last look at the inbound stream has found them.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::metrics::Tenant;

/// What waits for a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantBacklog {
    /// The tenant.
    pub tenant: Arc<str>,
    /// Messages that are not settled.
    pub messages: u64,
    /// Those of them that are delivered; `None` where the server does not tell.
    pub unacknowledged: Option<u64>,
    /// How long ago the oldest was stored, zero without any; `None` where the server does not tell.
    pub oldest_age: Option<Duration>,
}

/// The gauges of the backlog. What is not known has no gauge: a number would look like one that is known.
#[derive(Clone, Debug, Default)]
pub struct BacklogMetrics(Arc<Mutex<Option<Look>>>);

/// What a look has found; nothing if it failed.
#[derive(Debug)]
struct Look(Option<Vec<TenantBacklog>>);

#[derive(Clone, Debug, EncodeLabelSet)]
struct OfState {
    tenant: String,
    state: &'static str,
}

impl BacklogMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let backlog = Self::default();
        let of = |write| Gauges(backlog.clone(), write);
        registry.register(
            "backlog_up",
            "1 if the last look at the inbound stream had an answer",
            of(write_up),
        );
        registry.register(
            "backlog_messages",
            "Messages of all tenants of this worker that wait in the inbound stream or are delivered and not settled",
            of(write_all),
        );
        registry.register(
            "tenant_backlog_messages",
            "Messages of the tenant that wait in the inbound stream, or are delivered and not settled",
            of(write_states),
        );
        registry.register_with_unit(
            "tenant_backlog_oldest_age",
            "How long ago the oldest message of the tenant was stored that is not settled; 0 without any",
            Unit::Seconds,
            of(write_ages),
        );
        backlog
    }

    /// Shows what a look has found.
    pub fn show(&self, found: Vec<TenantBacklog>) {
        *self.lock() = Some(Look(Some(found)));
    }

    /// Shows that a look has failed, and nothing else.
    pub fn failed(&self) {
        *self.lock() = Some(Look(None));
    }

    /// Shows nothing: nobody looks any more.
    pub fn clear(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Look>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Write = fn(&Look, MetricEncoder<'_>) -> Result<(), fmt::Error>;

/// One of the metrics of the backlog.
#[derive(Debug)]
struct Gauges(BacklogMetrics, Write);

impl EncodeMetric for Gauges {
    fn encode(&self, encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        match &*self.0.lock() {
            Some(look) => self.1(look, encoder),
            None => Ok(()),
        }
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

fn write_up(look: &Look, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
    encoder.encode_gauge(&i64::from(look.0.is_some()))
}

fn write_all(look: &Look, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
    let Some(found) = &look.0 else {
        return Ok(());
    };
    let all: u64 = found.iter().map(|backlog| backlog.messages).sum();
    encoder.encode_gauge(&all)
}

fn write_states(look: &Look, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
    for backlog in look.0.iter().flatten() {
        let Some(unacknowledged) = backlog.unacknowledged else {
            continue;
        };
        // The two were asked for one after the other.
        let unacknowledged = unacknowledged.min(backlog.messages);
        let pending = backlog.messages - unacknowledged;
        for (state, messages) in [("pending", pending), ("unacknowledged", unacknowledged)] {
            let label = OfState {
                tenant: backlog.tenant.to_string(),
                state,
            };
            encoder.encode_family(&label)?.encode_gauge(&messages)?;
        }
    }
    Ok(())
}

fn write_ages(look: &Look, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
    for backlog in look.0.iter().flatten() {
        let Some(age) = backlog.oldest_age else {
            continue;
        };
        let label = Tenant {
            tenant: Arc::clone(&backlog.tenant),
        };
        let seconds = age.as_secs_f64();
        encoder.encode_family(&label)?.encode_gauge(&seconds)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;

    use super::*;

    #[test]
    fn what_is_not_known_has_no_gauge() {
        let mut registry = Registry::default();
        let backlog = BacklogMetrics::register(&mut registry);
        let check = |expected: &[&str]| {
            let mut page = String::new();
            text::encode(&mut page, &registry).unwrap();
            let lines = page.lines().filter(|line| !line.starts_with('#'));
            assert_eq!(lines.collect::<Vec<_>>(), expected);
        };
        let of = |tenant: &str, unacknowledged, oldest_age| TenantBacklog {
            tenant: tenant.into(),
            messages: 5,
            unacknowledged,
            oldest_age,
        };
        check(&[]);
        let known = of("a", Some(7), Some(Duration::from_millis(1_500)));
        backlog.show(vec![known, of("b", None, None)]);
        check(&[
            "backlog_up 1",
            "backlog_messages 10",
            "tenant_backlog_messages{tenant=\"a\",state=\"pending\"} 0",
            "tenant_backlog_messages{tenant=\"a\",state=\"unacknowledged\"} 5",
            "tenant_backlog_oldest_age_seconds{tenant=\"a\"} 1.5",
        ]);
        backlog.failed();
        check(&["backlog_up 0"]);
        backlog.clear();
        check(&[]);
    }
}
