//! The memory that is counted, read when it is asked for.

use std::fmt;

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::budget::{MEMORY_KINDS, MemoryBudget, MemoryKind, MemoryUse};

#[derive(Debug)]
struct Used(MemoryBudget);

/// A counter of each tenant.
#[derive(Debug)]
struct Counted(MemoryBudget, fn(&MemoryUse) -> u64);

#[derive(Clone, Debug, EncodeLabelSet)]
struct Use {
    tenant: String,
    kind: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet)]
struct Tenant {
    tenant: String,
}

pub(super) fn register(registry: &mut Registry, memory: &MemoryBudget) {
    registry.register_with_unit(
        "memory_limit",
        "The limit of what is counted, `limits.memory`",
        Unit::Bytes,
        ConstGauge::new(memory.limit().min(i64::MAX as u64) as i64),
    );
    registry.register_with_unit(
        "memory_used",
        "The memory that messages, turns and components are counted with",
        Unit::Bytes,
        Used(memory.clone()),
    );
    registry.register(
        "memory_waits",
        "Pulls and calls that waited, since their tenant was beyond its share of memory",
        Counted(memory.clone(), |used| used.waits),
    );
    registry.register(
        "memory_denials",
        "Components that got no more memory, since their tenant was beyond its share",
        Counted(memory.clone(), |used| used.denials),
    );
}

fn name(kind: MemoryKind) -> &'static str {
    match kind {
        MemoryKind::Messages => "messages",
        MemoryKind::Turns => "turns",
        MemoryKind::Components => "components",
    }
}

impl EncodeMetric for Used {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        for used in self.0.uses() {
            for (kind, bytes) in MEMORY_KINDS.into_iter().zip(used.bytes) {
                let labels = Use {
                    tenant: used.tenant.to_string(),
                    kind: name(kind),
                };
                let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
                encoder.encode_family(&labels)?.encode_gauge(&bytes)?;
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

impl EncodeMetric for Counted {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        for used in self.0.uses() {
            let labels = Tenant {
                tenant: used.tenant.to_string(),
            };
            let mut encoder = encoder.encode_family(&labels)?;
            encoder.encode_counter::<NoLabelSet, u64, u64>(&self.1(&used), None)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}
