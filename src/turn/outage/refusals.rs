//! What is refused to a tenant: noted, told of, and tried again by one message of it at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Outage, Server};
use crate::model::TenantId;
use crate::ports::{Refusal, RefusalReason};

/// The first pause of a tenant that was refused something.
pub(super) const FIRST_PROBE: Duration = Duration::from_millis(500);
/// Its longest pause: how long after the end of a refusal the tenant goes on, at the latest.
pub(super) const LONGEST_PROBE: Duration = Duration::from_secs(15);
/// A refusal that nothing has met for so long is forgotten: there may be nothing left that could meet it.
pub(super) const FORGOTTEN_AFTER: Duration = Duration::from_secs(5 * 60);
/// A refusal that comes and goes, as that of a subject with room for one message, is said in the log this often.
const SAID_EVERY: Duration = Duration::from_secs(60);
/// How many messages are passed over to find the oldest one of a tenant that is refused.
pub(super) const MOST_PASSED_OVER: usize = 256;

/// What of a tenant can be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Its inbound messages.
    Inbound,
    /// Its sessions and state.
    Store,
    /// Its replies.
    Outbound,
    /// Its dead letters.
    DeadLetters,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Inbound,
        Self::Store,
        Self::Outbound,
        Self::DeadLetters,
    ];

    /// The part as a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Store => "store",
            Self::Outbound => "outbound",
            Self::DeadLetters => "deadletter",
        }
    }

    pub(super) fn server(self) -> Server {
        match self {
            Self::Store => Server::Redis,
            Self::Inbound | Self::Outbound | Self::DeadLetters => Server::Nats,
        }
    }

    /// Returns whether a tenant that lacks it is not served. Without dead letters everything else goes on.
    pub fn stops_the_tenant(self) -> bool {
        self != Self::DeadLetters
    }
}

/// A refusal that lasts, for those who tell of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedPart {
    /// Whose.
    pub tenant: TenantId,
    /// What of it.
    pub part: Part,
    /// The kind of refusal.
    pub reason: RefusalReason,
    /// What the server says.
    pub detail: String,
}

/// A refusal that lasts.
#[derive(Debug)]
pub(super) struct Lasting {
    refusal: Refusal,
    pause: Duration,
    next_probe: Instant,
    /// A probe is under way: its refusal makes the pause longer, the others' do not.
    probing: bool,
    /// The messages that are known to wait, by their positions in the stream. They come back in any order; the oldest is the
    /// probe, so that a conversation keeps its order.
    waiting: BTreeSet<u64>,
    /// How many were sent back since the last probe because an older one is still to come. It may be with another worker.
    passed_over: usize,
    met: Instant,
    /// The log says that it began.
    said: bool,
}

impl Lasting {
    fn new(refusal: &Refusal, said: bool) -> Self {
        let now = Instant::now();
        Self {
            refusal: refusal.clone(),
            pause: FIRST_PROBE,
            next_probe: now + jittered(FIRST_PROBE),
            probing: false,
            waiting: BTreeSet::new(),
            passed_over: 0,
            met: now,
            said,
        }
    }

    /// How long the message at this position has to wait; not at all if it is the probe.
    fn hold(&mut self, sequence: Option<u64>) -> Duration {
        let now = Instant::now();
        let is_oldest = sequence.is_none_or(|sequence| {
            if self.waiting.len() < MOST_PASSED_OVER {
                self.waiting.insert(sequence);
            }
            self.waiting.first().is_none_or(|first| sequence <= *first)
        });
        let left = self.next_probe.saturating_duration_since(now);
        if !left.is_zero() {
            return left;
        }
        if !is_oldest && self.passed_over < MOST_PASSED_OVER {
            self.passed_over += 1;
            return FIRST_PROBE / 2;
        }
        if !is_oldest {
            self.waiting.clear();
        }
        self.passed_over = 0;
        self.probing = true;
        self.next_probe = now + jittered(self.pause);
        Duration::ZERO
    }
}

/// The refusals that last, by tenant and part.
pub(super) type Refused = BTreeMap<TenantId, BTreeMap<Part, Lasting>>;

impl Outage {
    /// Notes a refusal. Said in the log when it begins.
    pub fn refuse(&self, tenant: &TenantId, part: Part, refusal: &Refusal) {
        let now = Instant::now();
        let mut refused = self.refused();
        let parts = refused.entry(tenant.clone()).or_default();
        if let Some(lasting) = parts.get_mut(&part) {
            lasting.met = now;
            lasting.refusal = refusal.clone();
            if std::mem::take(&mut lasting.probing) {
                lasting.pause = (lasting.pause * 2).min(LONGEST_PROBE);
                lasting.next_probe = now + jittered(lasting.pause);
            }
            return;
        }
        let said = self.say(tenant, part, refusal);
        parts.insert(part, Lasting::new(refusal, said));
        self.0.any_refused.store(true, Ordering::SeqCst);
    }

    /// Says in the log that a refusal begins, unless it has only just said so; whether it did.
    fn say(&self, tenant: &TenantId, part: Part, refusal: &Refusal) -> bool {
        let now = Instant::now();
        let mut said = self.0.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.retain(|_, at| now.duration_since(*at) < SAID_EVERY);
        if said.contains_key(&(tenant.clone(), part)) {
            return false;
        }
        said.insert((tenant.clone(), part), now);
        let (reason, part) = (refusal.reason.as_str(), part.as_str());
        tracing::warn!(
            %tenant, part, reason, detail = %refusal,
            "this tenant is refused; it is tried again until it is not, and everybody else goes on"
        );
        true
    }

    /// Notes that this is not refused, or not any more.
    pub fn allow(&self, tenant: &TenantId, part: Part) {
        if !self.0.any_refused.load(Ordering::SeqCst) {
            return;
        }
        let mut refused = self.refused();
        let Some(parts) = refused.get_mut(tenant) else {
            return;
        };
        if let Some(lasting) = parts.remove(&part).filter(|lasting| lasting.said) {
            let (reason, part) = (lasting.refusal.reason.as_str(), part.as_str());
            tracing::info!(%tenant, part, reason, "this tenant is not refused any more");
        }
        self.tidy(refused);
    }

    /// Everything about a tenant that is not served any more is forgotten.
    pub fn forget(&self, tenant: &TenantId) {
        let mut refused = self.refused();
        refused.remove(tenant);
        self.tidy(refused);
    }

    /// How long a tenant's loop has to wait before it may ask for one message as a probe; nothing if it is not refused.
    pub fn pause(&self, tenant: &TenantId) -> Option<Duration> {
        let now = Instant::now();
        self.stopping(tenant, |lasting| {
            lasting.next_probe.saturating_duration_since(now)
        })
    }

    /// Waits for so long, or until some refusal is over.
    pub async fn refusal_over(&self, at_most: Duration) {
        let _ = tokio::time::timeout(at_most, self.0.over.notified()).await;
    }

    /// Returns whether a message of a tenant has to go back, and for how long: nothing if the tenant is not refused, or if this
    /// message is to find out whether it still is.
    pub fn hold(&self, tenant: &TenantId, sequence: Option<u64>) -> Option<Duration> {
        let held = self.stopping(tenant, |lasting| lasting.hold(sequence))?;
        (!held.is_zero()).then(|| before(held))
    }

    /// The refusal of a tenant's dead letters, unless this one is to find out whether it lasts.
    pub fn hold_dead_letter(&self, tenant: &TenantId) -> Option<Refusal> {
        if !self.0.any_refused.load(Ordering::SeqCst) {
            return None;
        }
        let mut refused = self.refused();
        let lasting = refused.get_mut(tenant)?.get_mut(&Part::DeadLetters)?;
        let held = lasting.hold(None);
        (!held.is_zero()).then(|| lasting.refusal.clone())
    }

    /// Notes that a message is settled without finding out whether what was refused still is: the next one may try at once.
    pub fn unmet(&self, tenant: &TenantId, sequence: Option<u64>) {
        let now = Instant::now();
        self.stopping(tenant, |lasting| {
            if let Some(sequence) = sequence {
                lasting.waiting.remove(&sequence);
            }
            if std::mem::take(&mut lasting.probing) {
                lasting.next_probe = now;
            }
            Duration::ZERO
        });
    }

    /// Returns whether this is refused to a tenant.
    pub fn is_refused(&self, tenant: &TenantId, part: Part) -> bool {
        self.0.any_refused.load(Ordering::SeqCst)
            && (self.refused().get(tenant)).is_some_and(|parts| parts.contains_key(&part))
    }

    /// How long a message of a tenant stays away that was refused something.
    pub fn away_for(&self, tenant: &TenantId) -> Duration {
        let now = Instant::now();
        let refused = self.refused();
        let parts = refused.get(tenant).into_iter().flatten();
        let left = parts.map(|(_, lasting)| lasting.next_probe.saturating_duration_since(now));
        before(left.max().unwrap_or_default().max(FIRST_PROBE / 2))
    }

    /// All refusals that last.
    pub fn refusals(&self) -> Vec<RefusedPart> {
        if !self.0.any_refused.load(Ordering::SeqCst) {
            return Vec::new();
        }
        let mut refused = self.refused();
        for (tenant, parts) in refused.iter_mut() {
            parts.retain(|part, lasting| {
                let lasts = lasting.met.elapsed() < FORGOTTEN_AFTER;
                if !lasts {
                    tracing::info!(%tenant, part = part.as_str(), "a refusal that nothing has met any more is forgotten");
                }
                lasts
            });
        }
        let all = refused.iter().flat_map(|(tenant, parts)| {
            parts.iter().map(|(part, lasting)| RefusedPart {
                tenant: tenant.clone(),
                part: *part,
                reason: lasting.refusal.reason,
                detail: lasting.refusal.detail.clone(),
            })
        });
        let all = all.collect();
        self.tidy(refused);
        all
    }

    /// The longest of what something says of the refusals that stop a tenant.
    fn stopping(
        &self,
        tenant: &TenantId,
        mut of: impl FnMut(&mut Lasting) -> Duration,
    ) -> Option<Duration> {
        if !self.0.any_refused.load(Ordering::SeqCst) {
            return None;
        }
        let mut refused = self.refused();
        let parts = refused.get_mut(tenant)?.iter_mut();
        let stopping = parts.filter(|(part, _)| part.stops_the_tenant());
        stopping.map(|(_, lasting)| of(lasting)).max()
    }

    /// Puts away what is empty, and wakes those who wait for the end of a refusal.
    fn tidy(&self, mut refused: MutexGuard<'_, Refused>) {
        refused.retain(|_, parts| !parts.is_empty());
        let any = !refused.is_empty();
        self.0.any_refused.store(any, Ordering::SeqCst);
        drop(refused);
        self.0.over.notify_waiters();
    }

    fn refused(&self) -> MutexGuard<'_, Refused> {
        self.0
            .refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Replicas that were refused together do not come back together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.75 + fastrand::f64() / 4.0)
}

/// A message that goes back is there again before the probe is, which then gets the oldest one.
fn before(left: Duration) -> Duration {
    left.mul_f64(0.8).max(Duration::from_millis(10))
}
