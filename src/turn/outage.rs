//! Availability: which server is away, and what of which tenant is refused. Calls to a server that is away are made again
//! until it is back; a call that is refused ends its turn, and the tenant's next one is the probe.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::model::TenantId;
use crate::ports::{Refusal, RefusalReason, StoreError, TransportError};

/// The first pause before a failed call is made again.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause; short, because everything stands still until the call succeeds.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The first pause of a tenant that was refused something.
const FIRST_PROBE: Duration = Duration::from_millis(500);
/// Its longest pause: how long after the end of a refusal the tenant goes on, at the latest.
const LONGEST_PROBE: Duration = Duration::from_secs(15);
/// A refusal that nothing has met for so long is forgotten: there may be nothing left that could meet it.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(5 * 60);

/// A server that everybody needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// Where messages come from and go to.
    Nats,
    /// Where sessions and state are.
    Redis,
}

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
    /// The part as a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Store => "store",
            Self::Outbound => "outbound",
            Self::DeadLetters => "deadletter",
        }
    }

    fn server(self) -> Server {
        match self {
            Self::Store => Server::Redis,
            Self::Inbound | Self::Outbound | Self::DeadLetters => Server::Nats,
        }
    }

    /// Whether a tenant that lacks it is not served. Without dead letters everything else goes on.
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

/// How many calls are waiting for a server to come back, and what is refused to whom. While a server is away, the worker
/// pulls nothing new and is not ready. A refusal stops the loop of its tenant only.
#[derive(Clone, Debug, Default)]
pub struct Outage(Arc<State>);

#[derive(Debug, Default)]
struct State {
    nats: AtomicUsize,
    redis: AtomicUsize,
    // Wakes in the order of waiting, which tokio's `watch` does not: a simulated run must be repeatable.
    over: Notify,
    /// Whether anything is refused: all that a turn looks at where nothing is.
    any_refused: AtomicBool,
    refused: Mutex<BTreeMap<TenantId, BTreeMap<Part, Lasting>>>,
}

/// A refusal that lasts.
#[derive(Debug)]
struct Lasting {
    refusal: Refusal,
    pause: Duration,
    next_probe: Instant,
    /// A probe is under way: its refusal makes the pause longer, the others' do not.
    probing: bool,
    met: Instant,
}

impl Lasting {
    /// How long it is until the next probe; with none left, this is the probe.
    fn hold(&mut self) -> Duration {
        let now = Instant::now();
        let left = self.next_probe.saturating_duration_since(now);
        if left.is_zero() {
            self.probing = true;
            self.next_probe = now + jittered(self.pause);
        }
        left
    }
}

impl State {
    fn waiting(&self, server: Server) -> &AtomicUsize {
        match server {
            Server::Nats => &self.nats,
            Server::Redis => &self.redis,
        }
    }
}

impl Outage {
    /// Whether a call is waiting for a server right now.
    pub fn is_active(&self) -> bool {
        self.is_away(Server::Nats) || self.is_away(Server::Redis)
    }

    /// Whether a call is waiting for this server right now.
    pub fn is_away(&self, server: Server) -> bool {
        self.0.waiting(server).load(Ordering::SeqCst) > 0
    }

    /// Waits until no call is waiting any more.
    pub async fn over(&self) {
        loop {
            let over = self.0.over.notified();
            if !self.is_active() {
                return;
            }
            over.await;
        }
    }

    /// Makes a call for a tenant until the server answers it, with growing, jittered pauses. `call` must be safe to make
    /// again. A refusal is noted as the tenant's and is the answer.
    pub async fn ride_out<T, E, F, Fut>(
        &self,
        tenant: &TenantId,
        part: Part,
        mut call: F,
    ) -> Result<T, E>
    where
        E: Infrastructure,
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let mut waiting = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let answer = call().await;
            match answer
                .as_ref()
                .map_or_else(E::standing, |_| Standing::Answered)
            {
                Standing::Away => {
                    if let (None, Err(error)) = (&waiting, &answer) {
                        let what = part.as_str();
                        tracing::warn!(what, error = %error, "infrastructure is away; trying again until it is back");
                        waiting = Some(Waiting::begin(&self.0, part.server()));
                    }
                    tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    continue;
                }
                Standing::Refused(refusal) => self.refuse(tenant, part, refusal),
                Standing::Answered => self.allow(tenant, part),
            }
            if waiting.is_some() {
                tracing::info!(what = part.as_str(), "infrastructure is back");
            }
            return answer;
        }
    }

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
        let (reason, refused_part) = (refusal.reason.as_str(), part.as_str());
        tracing::warn!(
            %tenant, part = refused_part, reason, detail = %refusal,
            "this tenant is refused; it is tried again until it is not, and everybody else goes on"
        );
        parts.insert(
            part,
            Lasting {
                refusal: refusal.clone(),
                pause: FIRST_PROBE,
                next_probe: now + jittered(FIRST_PROBE),
                probing: false,
                met: now,
            },
        );
        self.0.any_refused.store(true, Ordering::SeqCst);
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
        if let Some(lasting) = parts.remove(&part) {
            let reason = lasting.refusal.reason.as_str();
            tracing::info!(%tenant, part = part.as_str(), reason, "this tenant is not refused any more");
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

    /// Whether a message of a tenant has to go back, and for how long: nothing if the tenant is not refused, or if this
    /// message is to find out whether it still is.
    pub fn hold(&self, tenant: &TenantId) -> Option<Duration> {
        let held = self.stopping(tenant, Lasting::hold)?;
        (!held.is_zero()).then(|| before(held))
    }

    /// The refusal of a tenant's dead letters, unless this one is to find out whether it lasts.
    pub fn hold_dead_letter(&self, tenant: &TenantId) -> Option<Refusal> {
        if !self.0.any_refused.load(Ordering::SeqCst) {
            return None;
        }
        let mut refused = self.refused();
        let lasting = refused.get_mut(tenant)?.get_mut(&Part::DeadLetters)?;
        let held = lasting.hold();
        (!held.is_zero()).then(|| lasting.refusal.clone())
    }

    /// Notes that a turn has ended without finding out whether what was refused still is: the next one may try at once.
    pub fn unmet(&self, tenant: &TenantId) {
        let now = Instant::now();
        self.stopping(tenant, |lasting| {
            if std::mem::take(&mut lasting.probing) {
                lasting.next_probe = now;
            }
            Duration::ZERO
        });
    }

    /// Whether this is refused to a tenant.
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
    fn tidy(&self, mut refused: MutexGuard<'_, BTreeMap<TenantId, BTreeMap<Part, Lasting>>>) {
        refused.retain(|_, parts| !parts.is_empty());
        let any = !refused.is_empty();
        self.0.any_refused.store(any, Ordering::SeqCst);
        drop(refused);
        self.0.over.notify_waiters();
    }

    fn refused(&self) -> MutexGuard<'_, BTreeMap<TenantId, BTreeMap<Part, Lasting>>> {
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

/// Counts one waiting call for as long as it lives, so that a cancelled one is counted off too.
struct Waiting(Arc<State>, Server);

impl Waiting {
    fn begin(state: &Arc<State>, server: Server) -> Self {
        state.waiting(server).fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(state), server)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.0.waiting(self.1).fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.over.notify_waiters();
        }
    }
}

/// What a failed call says of who can be served.
#[derive(Debug)]
pub enum Standing<'a> {
    /// Nobody, until the server is back: making the same call again will then succeed.
    Away,
    /// Everybody but this tenant.
    Refused(&'a Refusal),
    /// Everybody: the server has dealt with the call.
    Answered,
}

/// Errors that tell whether it is the infrastructure that failed.
pub trait Infrastructure: std::fmt::Display {
    /// What it says of who can be served.
    fn standing(&self) -> Standing<'_>;
}

impl Infrastructure for StoreError {
    fn standing(&self) -> Standing<'_> {
        match self {
            Self::Unavailable(_) => Standing::Away,
            Self::Refused(refusal) => Standing::Refused(refusal),
            Self::Corrupt { .. } => Standing::Answered,
        }
    }
}

impl Infrastructure for TransportError {
    fn standing(&self) -> Standing<'_> {
        match self {
            Self::Unavailable(_) => Standing::Away,
            Self::Refused(refusal) => Standing::Refused(refusal),
            Self::TooLarge(_) => Standing::Answered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    fn refusal() -> Refusal {
        Refusal {
            reason: RefusalReason::Permission,
            detail: "no".to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_holds_its_tenant_only_but_for_one_probe_at_a_time() {
        let (outage, one, other) = (Outage::default(), tenant("one"), tenant("other"));
        assert_eq!(outage.hold(&one), None);
        for _ in 0..20 {
            outage.refuse(&one, Part::Outbound, &refusal());
        }
        let first = outage.pause(&one).unwrap();
        assert!(
            first <= FIRST_PROBE,
            "many refusals at once are one: {first:?}"
        );
        assert!(
            outage.hold(&one).unwrap() < first,
            "it is there before the probe"
        );
        assert_eq!((outage.hold(&other), outage.pause(&other)), (None, None));

        let mut longest = first;
        for _ in 0..12 {
            tokio::time::advance(outage.pause(&one).unwrap()).await;
            assert_eq!(outage.hold(&one), None, "a probe");
            assert!(outage.hold(&one).is_some(), "one at a time");
            outage.refuse(&one, Part::Outbound, &refusal());
            longest = outage.pause(&one).unwrap();
        }
        assert!(
            longest > LONGEST_PROBE / 2 && longest <= LONGEST_PROBE,
            "{longest:?}"
        );
        outage.allow(&one, Part::Store);
        assert_eq!(outage.refusals().len(), 1, "another part does not end it");
        outage.allow(&one, Part::Outbound);
        assert_eq!((outage.hold(&one), outage.refusals().len()), (None, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn refused_dead_letters_hold_nothing_up_and_are_told_of() {
        let (outage, one) = (Outage::default(), tenant("one"));
        outage.refuse(&one, Part::DeadLetters, &refusal());
        assert_eq!(outage.hold(&one), None);
        assert_eq!(outage.refusals().len(), 1);
        tokio::time::advance(FORGOTTEN_AFTER).await;
        assert_eq!(outage.refusals().len(), 0, "nothing has met it");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_away_is_named_and_a_refusal_is_none() {
        let (outage, one) = (Outage::default(), tenant("one"));
        let mut calls = 0;
        let seen = outage.clone();
        let answer = outage.ride_out(&one, Part::Store, || {
            calls += 1;
            let away = calls == 1;
            if !away {
                assert!(seen.is_away(Server::Redis) && !seen.is_away(Server::Nats));
            }
            async move {
                match away {
                    true => Err(StoreError::Unavailable("away".into())),
                    false => Err::<(), _>(StoreError::Refused(refusal())),
                }
            }
        });
        assert!(matches!(answer.await, Err(StoreError::Refused(_))));
        assert!(!outage.is_active());
        assert!(outage.pause(&one).is_some());
    }
}
