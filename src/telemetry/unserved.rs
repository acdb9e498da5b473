//! The gauge of messages that no consumer takes, by subject.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The most subjects that have a series of their own.
const SERIES: usize = 20;
/// The longest subject in a label, in characters.
const LONGEST: usize = 120;
/// The label of all other subjects together.
const OTHERS: &str = "(others)";

/// The gauge of messages that no consumer takes, by subject.
#[derive(Debug, Default)]
pub struct UnservedMetrics {
    messages: Family<Subject, Gauge>,
    shown: Mutex<BTreeMap<String, i64>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Subject {
    subject: String,
}

impl UnservedMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let unserved = Self::default();
        registry.register(
            "unserved_messages",
            "Messages of the inbound stream that no consumer takes, by subject",
            unserved.messages.clone(),
        );
        unserved.set(std::iter::empty());
        unserved
    }

    /// Shows these subjects, those with the most messages first, and no others.
    pub fn set<'s>(&self, subjects: impl Iterator<Item = (&'s str, u64)>) {
        let mut now = BTreeMap::from([(OTHERS.to_owned(), 0)]);
        for (at, (subject, messages)) in subjects.enumerate() {
            let label = match at < SERIES {
                true => subject.chars().take(LONGEST).collect(),
                false => OTHERS.to_owned(),
            };
            let messages = i64::try_from(messages).unwrap_or(i64::MAX);
            let count: &mut i64 = now.entry(label).or_default();
            *count = count.saturating_add(messages);
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for (subject, messages) in &now {
            let subject = subject.clone();
            self.messages
                .get_or_create(&Subject { subject })
                .set(*messages);
        }
        for subject in shown.keys().filter(|subject| !now.contains_key(*subject)) {
            let subject = subject.clone();
            self.messages.remove(&Subject { subject });
        }
        *shown = now;
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;

    use super::*;

    #[test]
    fn however_many_subjects_there_are_few_series_are_shown() {
        let mut registry = Registry::default();
        let unserved = UnservedMetrics::register(&mut registry);
        let subjects: Vec<String> = (0..1_000).map(|n| format!("inbound.t{n:04}")).collect();
        unserved.set(subjects.iter().map(|subject| (subject.as_str(), 2)));
        let page = |registry: &Registry| {
            let mut page = String::new();
            text::encode(&mut page, registry).unwrap();
            page
        };
        let shown = page(&registry);
        assert_eq!(
            shown.matches("unserved_messages{").count(),
            SERIES + 1,
            "{shown}"
        );
        assert!(
            shown.contains("unserved_messages{subject=\"(others)\"} 1960"),
            "{shown}"
        );
        unserved.set([("inbound.t0999", 5)].into_iter());
        let shown = page(&registry);
        assert_eq!(shown.matches("unserved_messages{").count(), 2, "{shown}");
        assert!(shown.contains("subject=\"inbound.t0999\"} 5"), "{shown}");
        assert!(shown.contains("subject=\"(others)\"} 0"), "{shown}");
        let long = "x".repeat(5_000);
        unserved.set([(long.as_str(), 1)].into_iter());
        assert!(page(&registry).len() < 1_000);
    }
}
