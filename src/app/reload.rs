//! Bindings that change while the worker runs: what is new is loaded beside what runs, and takes its place at once or not
//! at all.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Loader, TenantLimits};
use crate::adapters::nats::Nats;
use crate::adapters::redis::RedisStore;
use crate::bindings::Fingerprint;
use crate::model::{EnvId, Problems, TenantId};
use crate::ports::{StoreError, TransportError};
use crate::registry::Live;
use crate::telemetry::{Metrics, Reload};
use crate::worker::Served;

/// How long after a load that failed another one is tried although nothing has changed: an archive may come later than
/// the gtbind that names it, a server may come back. Doubled after each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(15);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Watches the gtbinds of a running worker.
pub(super) struct Reloading {
    pub loader: Arc<Loader>,
    pub live: Arc<Live>,
    pub nats: Arc<Nats>,
    pub redis: Arc<RedisStore>,
    pub env: EnvId,
    pub served: watch::Sender<Served>,
    pub limits: TenantLimits,
    pub metrics: Arc<Metrics>,
    /// How often to look; zero for never.
    pub every: Duration,
    /// What the gtbinds were when they were last loaded.
    pub seen: Fingerprint,
}

/// Why what runs goes on as it is.
enum Refused {
    Problems(Problems),
    Unavailable(String),
}

impl From<Problems> for Refused {
    fn from(problems: Problems) -> Self {
        Self::Problems(problems)
    }
}

impl From<TransportError> for Refused {
    fn from(error: TransportError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// A load that failed, and when it is tried again.
struct Failed {
    said: String,
    pause: Duration,
    due: Instant,
}

impl Reloading {
    /// Loads again whenever the gtbinds change or a signal comes.
    pub async fn run(mut self, mut hangup: Signal) {
        let mut failed: Option<Failed> = None;
        loop {
            let due = failed.as_ref().map(|failed| failed.due);
            let asked = tokio::select! {
                biased;
                _ = hangup.recv() => true,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => true,
                () = sleep(self.every), if !self.every.is_zero() => false,
            };
            if !asked && !self.has_changed().await {
                continue;
            }
            failed = match self.reload().await {
                Ok(()) => None,
                Err(refused) => Some(self.tell(refused, failed)),
            };
        }
    }

    async fn has_changed(&self) -> bool {
        self.loader.look().await.is_ok_and(|now| now != self.seen)
    }

    async fn reload(&mut self) -> Result<(), Refused> {
        if let Ok(now) = self.loader.look().await {
            self.seen = now;
        }
        let loaded = self.loader.load().await?;
        let tenants: Vec<TenantId> = loaded.registry.tenants().into_iter().cloned().collect();
        let before = self.live.now();
        let added: Vec<TenantId> = tenants
            .iter()
            .filter(|tenant| !before.is_bound(tenant))
            .cloned()
            .collect();
        if !added.is_empty() {
            let mut problems = self.nats.prepare(&added).await?;
            problems.extend(self.redis.prepare(&self.env, &added).await?);
            if problems.has_errors() {
                return Err(problems.into());
            }
        }
        for warning in loaded.warnings {
            tracing::warn!("{warning}");
        }
        self.live.swap(loaded.registry);
        self.loader.forget_others(&self.live);
        self.served.send_replace(self.limits.served(&tenants));
        self.seen = loaded.seen;
        self.metrics.reloaded(Reload::Applied);
        let packs = self.live.now().packs().len();
        tracing::info!(
            tenants = tenants.len(),
            packs,
            "the bindings were loaded again and are in force"
        );
        Ok(())
    }

    /// Says why nothing changes, once for each reason.
    fn tell(&self, refused: Refused, before: Option<Failed>) -> Failed {
        let (outcome, said) = match refused {
            Refused::Problems(problems) => (Reload::Refused, problems.to_string()),
            Refused::Unavailable(error) => (Reload::Unavailable, error),
        };
        self.metrics.reloaded(outcome);
        let known = before.filter(|before| before.said == said);
        let pause = match &known {
            Some(before) => (before.pause * 2).min(LONGEST_PAUSE),
            None => FIRST_PAUSE,
        };
        if known.is_none() {
            tracing::error!(
                "the bindings have changed, but cannot be used; what runs goes on as it was\n{said}"
            );
        }
        Failed {
            said,
            pause,
            due: Instant::now() + pause,
        }
    }
}
