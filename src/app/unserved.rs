//! Looks for messages that no consumer takes while the worker runs: a gauge, and a warning once for each subject.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::adapters::nats::{Nats, Search, Unserved};
use crate::model::TenantId;
use crate::registry::Live;
use crate::telemetry::Metrics;

/// After so many looks every consumer is asked for again.
const LOOKS: usize = 20;
/// The most subjects that are warned of one by one.
const WARNED: usize = 1_000;

/// Looks for as long as the worker runs; `every` zero means never.
pub(super) async fn watch(
    nats: Arc<Nats>,
    live: Arc<Live>,
    metrics: Arc<Metrics>,
    stopped: watch::Sender<Vec<TenantId>>,
    every: Duration,
) {
    if every.is_zero() {
        return;
    }
    let (mut search, mut warnings) = (Search::default(), Warnings::default());
    let mut looks = interval(every);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for look in 1_usize.. {
        looks.tick().await;
        let registry = live.now();
        let served: Vec<TenantId> = registry.tenants().into_iter().cloned().collect();
        search.stopped(stopped.borrow().iter().cloned());
        match nats.unserved(&mut search, &served).await {
            Ok(found) => {
                let subjects = found.iter();
                metrics
                    .unserved_messages()
                    .set(subjects.map(|unserved| (unserved.subject.as_str(), unserved.messages)));
                warnings.warn(&nats, &found);
            }
            Err(error) => tracing::debug!(%error, "cannot look for messages that nobody takes"),
        }
        if look % LOOKS == 0 {
            search.forget();
        }
    }
}

/// Which subjects were found and warned of. A subject is warned of when it is found a second time: a worker that serves it
/// may be about to start.
#[derive(Default)]
struct Warnings {
    before: HashSet<String>,
    warned: HashSet<String>,
}

impl Warnings {
    fn warn(&mut self, nats: &Nats, found: &[Unserved]) {
        for unserved in found {
            let subject = &unserved.subject;
            let is_news = self.before.contains(subject) && !self.warned.contains(subject);
            if !is_news || self.warned.len() >= WARNED {
                continue;
            }
            warn(nats, unserved);
            self.warned.insert(subject.clone());
            if self.warned.len() == WARNED {
                tracing::warn!("there are more such subjects, which are no longer named");
            }
        }
        self.before = found
            .iter()
            .map(|unserved| unserved.subject.clone())
            .collect();
    }
}

fn warn(nats: &Nats, unserved: &Unserved) {
    let Unserved {
        subject, messages, ..
    } = unserved;
    if unserved.is_stopped {
        tracing::warn!(
            subject,
            messages,
            "the tenant of this subject is stopped, since its bindings cannot be used, and no other worker serves it; its \
             messages stay in the stream until that is mended"
        );
        return;
    }
    tracing::warn!(
        subject,
        messages,
        "nobody serves the tenant of this subject; its messages stay in the stream: correct the provider's subject, \
         give a worker a gtbind for the tenant, or remove them with `{}`",
        nats.purge_command(subject)
    );
}
