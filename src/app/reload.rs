//! Bindings that change while the worker runs: what is new is loaded beside what runs, and takes its place at once. A tenant
//! of which something cannot be used goes on as it was.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::config::TenantLimits;
use super::{LeftOut, Loader};
use crate::adapters::nats::Nats;
use crate::adapters::redis::RedisStore;
use crate::bindings::{Fingerprint, Owners};
use crate::model::{EnvId, Problems, TenantId};
use crate::ports::{StoreError, TransportError};
use crate::registry::{Live, Registry};
use crate::telemetry::{Health, Metrics, Reload};
use crate::worker::Served;

/// How long after a load that failed another one is tried although nothing has changed: an archive may come later than
/// the gtbind that names it, a server may come back. Doubled after each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(15);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// How often to look whether turns still work with what was bound before.
const LET_GO_EVERY: Duration = Duration::from_secs(1);

/// Watches the gtbinds of a running worker. It belongs on another thread than turns.
pub struct Reloading {
    pub(super) loader: Arc<Loader>,
    pub(super) live: Arc<Live>,
    pub(super) nats: Arc<Nats>,
    pub(super) redis: Arc<RedisStore>,
    pub(super) env: EnvId,
    pub(super) served: watch::Sender<Served>,
    pub(super) limits: TenantLimits,
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: Arc<Health>,
    /// The tenants that are stopped, for those who look for messages that nobody takes.
    pub(super) stopped: watch::Sender<Vec<TenantId>>,
    /// How often to look; zero for never.
    pub(super) every: Duration,
    /// What the gtbinds were when they were last loaded.
    pub(super) seen: Fingerprint,
    /// Whose each of them was.
    pub(super) owners: Owners,
    /// What was left out of it.
    pub(super) left_out: LeftOut,
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
        let mut failed = self.incomplete(None);
        loop {
            let due = failed.as_ref().map(|failed| failed.due);
            let asked = tokio::select! {
                biased;
                _ = hangup.recv() => true,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => true,
                () = self.loader.late() => true,
                wanted = self.live.wanted() => {
                    let (loader, live) = (Arc::clone(&self.loader), Arc::clone(&self.live));
                    tokio::spawn(loader.look_for(wanted, live));
                    // The gtbinds may have changed and bind it, or what they bind may be there by now.
                    failed.is_some() && !self.every.is_zero()
                }
                () = sleep(self.every), if !self.every.is_zero() => false,
            };
            if !asked && (self.every.is_zero() || !self.has_changed().await) {
                continue;
            }
            failed = match self.reload().await {
                Ok(()) => self.incomplete(failed),
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
        let before = self.live.now();
        let loaded = self.loader.load_beside(&before, &self.owners).await?;
        let tenants: Vec<TenantId> = loaded.registry.tenants().into_iter().cloned().collect();
        let added: Vec<TenantId> = tenants
            .iter()
            .filter(|tenant| !before.is_bound(tenant))
            .cloned()
            .collect();
        if !added.is_empty() {
            let mut problems = self.nats.prepare(&added).await?;
            problems.extend(self.redis.prepare(&self.env, &added).await?);
            if problems.has_errors() {
                if added.len() == tenants.len() {
                    return Err(problems.into());
                }
                // What the servers refuse to a new tenant is its own trouble: its loop meets it again, and says so.
                tracing::error!(%problems, "the servers do not take all new tenants");
            }
        }
        for warning in loaded.warnings {
            tracing::warn!(problems = %warning, "this is legal, but perhaps not meant");
        }
        self.live.swap(loaded.registry);
        self.leave_out(loaded.left_out);
        self.served.send_replace(self.limits.served(&tenants));
        (self.seen, self.owners) = (loaded.seen, loaded.owners);
        self.metrics.reloaded(match self.left_out.is_empty() {
            true => Reload::Applied,
            false => Reload::Partial,
        });
        let packs = self.live.now().packs().len();
        tracing::info!(
            tenants = tenants.len(),
            packs,
            "the bindings were loaded again and are in force"
        );
        tokio::spawn(let_go(before));
        Ok(())
    }

    /// Says what is left out of what is in force now.
    fn leave_out(&mut self, now: LeftOut) {
        now.tell(&self.left_out);
        now.show(&self.live.now(), &self.metrics, &self.health);
        self.stopped.send_replace(now.stopped().cloned().collect());
        self.left_out = now;
        self.loader.forget_others(&self.live, &self.left_out);
    }

    /// Tells when what is left out is tried again.
    fn incomplete(&self, before: Option<Failed>) -> Option<Failed> {
        let is_complete = self.left_out.is_empty();
        (!is_complete).then(|| Failed::after(before, self.left_out.said()).0)
    }

    /// Says why nothing changes, once for each reason.
    fn tell(&self, refused: Refused, before: Option<Failed>) -> Failed {
        let (outcome, said) = match refused {
            Refused::Problems(problems) => (Reload::Refused, problems.to_string()),
            Refused::Unavailable(error) => (Reload::Unavailable, error),
        };
        self.metrics.reloaded(outcome);
        let (failed, is_new) = Failed::after(before, said);
        if is_new {
            let said = &failed.said;
            tracing::error!(
                problems = %said,
                "the bindings have changed, but cannot be used; what runs goes on as it was"
            );
        }
        failed
    }
}

impl Failed {
    /// What failed now, after this, and whether it is for another reason.
    fn after(before: Option<Self>, said: String) -> (Self, bool) {
        let known = before.filter(|before| before.said == said);
        let is_new = known.is_none();
        let pause = known.map_or(FIRST_PAUSE, |before| (before.pause * 2).min(LONGEST_PAUSE));
        let failed = Self {
            said,
            pause,
            due: Instant::now() + pause,
        };
        (failed, is_new)
    }
}

/// Lets a registry go that is no longer in force, once no turn works with it, and on a thread that nobody waits for: it may be
/// large.
async fn let_go(registry: Arc<Registry>) {
    while Arc::strong_count(&registry) > 1 {
        sleep(LET_GO_EVERY).await;
    }
    tokio::task::spawn_blocking(move || drop(registry));
}
