//! Bindings that cannot be used: what `/readyz` shows of them, and the gauge.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::Serialize;

/// One thing that is wrong with the bindings of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unusable {
    /// The tenant, if it is known.
    pub tenant: Option<String>,
    /// What that means for it: `stopped`, `unchanged`, `partial`, `ignored`.
    pub effect: &'static str,
    /// The file that is wrong.
    pub file: Option<String>,
    /// The line and field.
    pub place: Option<String>,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// The gauge of tenants whose bindings cannot be used.
#[derive(Debug, Default)]
pub struct UnusableMetrics {
    gauge: Family<Label, Gauge>,
    shown: Mutex<HashSet<Label>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    tenant: String,
    effect: &'static str,
}

impl UnusableMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "bindings_unusable",
            "1 while bindings of the tenant cannot be used, 0 once they can",
            metrics.gauge.clone(),
        );
        // There from the start, so that it can be seen to be watched.
        let nobody = Label {
            tenant: String::new(),
            effect: "ignored",
        };
        metrics.gauge.get_or_create(&nobody).set(0);
        metrics
    }

    /// Shows these, and 0 for those that were shown before.
    pub fn set(&self, unusable: &[Unusable]) {
        let label = |unusable: &Unusable| Label {
            tenant: unusable.tenant.clone().unwrap_or_default(),
            effect: unusable.effect,
        };
        let now: HashSet<Label> = unusable.iter().map(label).collect();
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for over in shown.difference(&now) {
            self.gauge.get_or_create(over).set(0);
        }
        for label in &now {
            self.gauge.get_or_create(label).set(1);
        }
        *shown = now;
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;

    use super::*;

    #[test]
    fn a_tenant_that_is_in_order_again_is_shown_as_zero() {
        let mut registry = Registry::default();
        let metrics = UnusableMetrics::register(&mut registry);
        let unusable = |tenant: Option<&str>, effect| Unusable {
            tenant: tenant.map(str::to_owned),
            effect,
            file: None,
            place: None,
            problem: "no".to_owned(),
            help: None,
        };
        metrics.set(&[unusable(Some("a"), "stopped"), unusable(None, "ignored")]);
        metrics.set(&[unusable(Some("a"), "unchanged")]);
        let mut page = String::new();
        text::encode(&mut page, &registry).unwrap();
        for line in [
            r#"bindings_unusable{tenant="a",effect="stopped"} 0"#,
            r#"bindings_unusable{tenant="a",effect="unchanged"} 1"#,
            r#"bindings_unusable{tenant="",effect="ignored"} 0"#,
        ] {
            assert!(page.contains(line), "{page}");
        }
    }
}
