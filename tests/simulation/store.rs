//! The turn store: the in-memory one behind a wire, with a log of everything that was committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use greentic_types::{SessionData, SessionKey};
use greentic_worker::adapters::memory::MemoryStore;
use greentic_worker::model::{Activity, IdempotencyKey, Outbound, TenantId, UserId};
use greentic_worker::ports::{
    Attempts, Begin, Begun, Claim, Clock, Commit, Committed, Lease, LeaseScope, Park, QuotaExcess,
    Quotas, StateSlot, StoreError, StoredState, Taken, TurnStore,
};
use time::OffsetDateTime;

use super::process::Process;
use super::world::{DEDUPE_WINDOW, LEASE, locked};

/// The store itself, the same for all workers.
pub struct Store<C> {
    pub memory: MemoryStore<C>,
    clock: C,
    log: Mutex<Vec<Arc<Entry>>>,
    claims: Mutex<BTreeMap<(TenantId, IdempotencyKey), Claims>>,
    leases: Mutex<BTreeMap<Conversation, LeaseOnRecord>>,
    /// Commits that went through although another turn held the conversation, or a quota was used up.
    not_allowed: Mutex<Vec<String>>,
    /// Activities whose commit was refused for good reason.
    refused: Mutex<BTreeSet<(TenantId, IdempotencyKey)>>,
}

/// How often an activity was claimed: once by each holder, and once more when its lease had run out.
#[derive(Default)]
struct Claims {
    count: u32,
    /// The most there were before they were forgotten.
    most: u32,
    last: BTreeMap<String, OffsetDateTime>,
}

/// Tenant, user and the name of the conversation.
type Conversation = (TenantId, UserId, Option<String>);

/// Who holds a conversation, as told from outside.
struct LeaseOnRecord {
    token: String,
    until: OffsetDateTime,
}

/// A commit that was applied.
#[derive(Debug)]
pub struct Entry {
    pub at: OffsetDateTime,
    pub activity: Activity,
    pub change: Change,
}

/// What a commit carries besides its activity and lease.
#[derive(Clone, Debug)]
pub struct Change {
    pub head: Option<SessionKey>,
    pub taken: Option<TakenWait>,
    pub park: Option<ParkedWait>,
    pub state_read: Vec<(StateSlot, Option<String>)>,
    pub state_written: Vec<(StateSlot, Option<String>)>,
    pub outbox: Vec<Outbound>,
    pub quotas: Quotas,
}

#[derive(Clone, Debug)]
pub struct TakenWait {
    pub key: SessionKey,
    pub correlation: Option<String>,
    pub shadowed: Vec<SessionKey>,
}

#[derive(Clone, Debug)]
pub struct ParkedWait {
    pub key: SessionKey,
    pub data: SessionData,
    pub correlation: Option<String>,
    pub ttl: Duration,
}

impl<C: Clock + Clone> Store<C> {
    pub fn new(clock: C) -> Arc<Self> {
        Arc::new(Self {
            memory: MemoryStore::new(clock.clone(), DEDUPE_WINDOW),
            clock,
            log: Mutex::default(),
            claims: Mutex::default(),
            leases: Mutex::default(),
            not_allowed: Mutex::default(),
            refused: Mutex::default(),
        })
    }

    /// All commits in the order in which they were applied.
    pub fn log(&self) -> Vec<Arc<Entry>> {
        locked(&self.log).clone()
    }

    /// How often this activity was claimed for one message at the most, as told from outside.
    pub fn claims(&self, tenant: &TenantId, key: &IdempotencyKey) -> u32 {
        let name = (tenant.clone(), key.clone());
        locked(&self.claims)
            .get(&name)
            .map_or(0, |claims| claims.count.max(claims.most))
    }

    fn begin(&self, begin: &Begin<'_>) -> Result<Begun, StoreError> {
        let begun = at_once(self.memory.begin(begin))?;
        if let (Claim::Exclusive { lease, .. }, Begun::Ready(_)) = (begin.claim, &begun) {
            let token = lease.token;
            let now = self.clock.now();
            let lease = LeaseOnRecord {
                token: token.to_owned(),
                until: now + LEASE,
            };
            locked(&self.leases).insert(conversation(begin.activity), lease);
            let name = (begin.activity.tenant.clone(), begin.activity.key.clone());
            let mut claims = locked(&self.claims);
            let claims = claims.entry(name).or_default();
            let last = claims.last.insert(token.to_owned(), now);
            claims.count += u32::from(last.is_none_or(|last| now - last >= LEASE));
        }
        Ok(begun)
    }

    fn commit(&self, commit: &Commit<'_>) -> Result<Committed, StoreError> {
        // Told before the commit, which may take one and adds one.
        let full = self.open_waits(commit) >= commit.quotas.waits_per_user as usize;
        let committed = at_once(self.memory.commit(commit))?;
        if matches!(committed, Committed::Done { .. }) {
            self.free_lease(commit);
            let entry = Entry {
                at: self.clock.now(),
                activity: commit.activity.clone(),
                change: Change::of(commit),
            };
            locked(&self.log).push(Arc::new(entry));
        }
        let (activity, key) = (commit.activity, &commit.activity.key);
        match &committed {
            Committed::Refused(QuotaExcess::Waits) if full => {
                locked(&self.refused).insert((activity.tenant.clone(), key.clone()));
            }
            Committed::Done { .. } if full && commit.park.is_some() => {
                locked(&self.not_allowed).push(format!("{key} was committed over a quota"));
            }
            Committed::Refused(_)
            | Committed::Done { .. }
            | Committed::AlreadyApplied(_)
            | Committed::Conflict => {}
        }
        Ok(committed)
    }
}

impl<C: Clock> Store<C> {
    /// Whether the commit of an activity was refused, and had to be.
    pub fn was_refused(&self, tenant: &TenantId, key: &IdempotencyKey) -> bool {
        locked(&self.refused).contains(&(tenant.clone(), key.clone()))
    }

    /// The open waits of a commit's user but for the one that it takes, as told from the log.
    fn open_waits(&self, commit: &Commit<'_>) -> usize {
        let (log, now) = (locked(&self.log), self.clock.now());
        let whose = |activity: &Activity| (activity.tenant.clone(), activity.user.clone());
        let taken: BTreeSet<_> = log
            .iter()
            .filter_map(|entry| Some(entry.change.taken.as_ref()?.key.as_str()))
            .chain(commit.taken.map(|taken| taken.key.as_str()))
            .collect();
        let open = log.iter().filter(|entry| {
            let park = entry.change.park.as_ref();
            whose(&entry.activity) == whose(commit.activity)
                && park.is_some_and(|park| {
                    entry.at + park.ttl > now && !taken.contains(park.key.as_str())
                })
        });
        open.count()
    }

    /// A commit frees the lease; none goes through while another turn has one.
    fn free_lease(&self, commit: &Commit<'_>) {
        let activity = commit.activity;
        let lease = locked(&self.leases).remove(&conversation(activity));
        let Some(lease) = lease.filter(|lease| lease.until > self.clock.now()) else {
            return;
        };
        if commit.lease.map(|lease| lease.token) != Some(lease.token.as_str()) {
            let key = &activity.key;
            locked(&self.not_allowed).push(format!("{key} was committed over another's lease"));
        }
    }

    fn release(&self, activity: &Activity, held: Lease<'_>) -> Result<(), StoreError> {
        let token = held.token;
        let mut leases = locked(&self.leases);
        let name = conversation(activity);
        if leases.get(&name).is_some_and(|lease| lease.token == token) {
            leases.remove(&name);
            // A claim of the same holder that was on its way meanwhile counts anew.
            let name = (activity.tenant.clone(), activity.key.clone());
            if let Some(claims) = locked(&self.claims).get_mut(&name) {
                claims.last.remove(token);
            }
        }
        at_once(self.memory.release(activity, held))
    }

    fn prolong(
        &self,
        activity: &Activity,
        held: Lease<'_>,
        ttl: Duration,
    ) -> Result<(), StoreError> {
        let (token, now) = (held.token, self.clock.now());
        if let Some(lease) = locked(&self.leases).get_mut(&conversation(activity))
            && lease.token == token
            && lease.until > now
        {
            lease.until = now + ttl;
            // A claim of the same holder counts anew when its lease has run out, which is later now.
            let name = (activity.tenant.clone(), activity.key.clone());
            if let Some(claims) = locked(&self.claims).get_mut(&name) {
                claims.last.insert(token.to_owned(), now);
            }
        }
        at_once(self.memory.prolong(activity, held, ttl))
    }

    /// A turn that was refused something, or cut off, takes its claim back.
    fn withdraw(&self, activity: &Activity, held: Lease<'_>) -> Result<(), StoreError> {
        let token = held.token;
        let name = (activity.tenant.clone(), activity.key.clone());
        let is_ours = {
            let leases = locked(&self.leases);
            let lease = leases.get(&conversation(activity));
            lease.is_some_and(|lease| lease.token == token)
        };
        if is_ours && let Some(claims) = locked(&self.claims).get_mut(&name) {
            claims.count = claims.count.saturating_sub(1);
        }
        let withdrawn = at_once(self.memory.withdraw(activity, held));
        self.release(activity, held)?;
        withdrawn
    }

    /// The message of an activity is dead-lettered: what comes of it from now on has all its attempts.
    fn forget_claims(&self, activity: &Activity) -> Result<(), StoreError> {
        let name = (activity.tenant.clone(), activity.key.clone());
        if let Some(claims) = locked(&self.claims).get_mut(&name) {
            claims.most = claims.most.max(claims.count);
            claims.count = 0;
            claims.last.clear();
        }
        at_once(self.memory.forget_claims(activity))
    }

    /// Commits that went through although another turn held the conversation, or a quota was used up.
    pub fn not_allowed(&self) -> Vec<String> {
        locked(&self.not_allowed).clone()
    }
}

fn conversation(activity: &Activity) -> Conversation {
    let scope = activity.base_scope().map(|scope| scope.conversation);
    (activity.tenant.clone(), activity.user.clone(), scope)
}

/// A store in memory never waits.
pub fn at_once<T>(call: impl Future<Output = T>) -> T {
    call.now_or_never().expect("memory answers at once")
}

impl Change {
    fn of(commit: &Commit<'_>) -> Self {
        Self {
            head: commit.head.cloned(),
            taken: commit.taken.map(|taken| TakenWait {
                key: taken.key.clone(),
                correlation: taken.correlation.map(str::to_owned),
                shadowed: taken.shadowed.to_vec(),
            }),
            park: commit.park.map(|park| ParkedWait {
                key: park.key.clone(),
                data: park.data.clone(),
                correlation: park.correlation.map(str::to_owned),
                ttl: park.ttl,
            }),
            state_read: commit.state_read.to_vec(),
            state_written: commit.state_written.to_vec(),
            outbox: commit.outbox.to_vec(),
            quotas: commit.quotas,
        }
    }

    fn borrow<'a>(&'a self, activity: &'a Activity, lease: Option<Lease<'a>>) -> Commit<'a> {
        Commit {
            activity,
            lease,
            head: self.head.as_ref(),
            taken: self.taken.as_ref().map(|taken| Taken {
                key: &taken.key,
                correlation: taken.correlation.as_deref(),
                shadowed: &taken.shadowed,
            }),
            park: self.park.as_ref().map(|park| Park {
                key: &park.key,
                data: &park.data,
                correlation: park.correlation.as_deref(),
                ttl: park.ttl,
            }),
            state_read: &self.state_read,
            state_written: &self.state_written,
            outbox: &self.outbox,
            quotas: self.quotas,
        }
    }
}

/// Without a wire: what the serial run has.
impl<C: Clock + Clone> TurnStore for Store<C> {
    async fn begin(&self, begin: &Begin<'_>) -> Result<Begun, StoreError> {
        self.begin(begin)
    }

    async fn read_state(
        &self,
        activity: &Activity,
        slot: &StateSlot,
        max_bytes: usize,
    ) -> Result<StoredState, StoreError> {
        self.memory.read_state(activity, slot, max_bytes).await
    }

    async fn commit(&self, commit: &Commit<'_>) -> Result<Committed, StoreError> {
        self.commit(commit)
    }

    async fn published(&self, activity: &Activity) -> Result<(), StoreError> {
        self.memory.published(activity).await
    }

    async fn published_but(
        &self,
        activity: &Activity,
        rest: &[Outbound],
    ) -> Result<(), StoreError> {
        self.memory.published_but(activity, rest).await
    }

    async fn release(&self, activity: &Activity, lease: Lease<'_>) -> Result<(), StoreError> {
        self.release(activity, lease)
    }

    async fn withdraw(&self, activity: &Activity, lease: Lease<'_>) -> Result<(), StoreError> {
        self.withdraw(activity, lease)
    }

    async fn prolong(
        &self,
        activity: &Activity,
        lease: Lease<'_>,
        ttl: Duration,
    ) -> Result<(), StoreError> {
        self.prolong(activity, lease, ttl)
    }

    async fn attempts(&self, activity: &Activity) -> Result<Attempts, StoreError> {
        self.memory.attempts(activity).await
    }

    async fn forget_claims(&self, activity: &Activity) -> Result<(), StoreError> {
        self.forget_claims(activity)
    }
}

/// A lease on its way over the wire.
struct OwnedLease {
    token: String,
    scope: LeaseScope,
}

impl OwnedLease {
    fn of(lease: Lease<'_>) -> Self {
        Self {
            token: lease.token.to_owned(),
            scope: lease.scope,
        }
    }

    fn borrow(&self) -> Lease<'_> {
        Lease {
            token: &self.token,
            scope: self.scope,
        }
    }
}

/// The store as one process reaches it.
pub struct StorePort<C> {
    pub process: Arc<Process>,
    pub store: Arc<Store<C>>,
}

impl<C: Clock + Clone> StorePort<C> {
    async fn call<T: Send + 'static>(
        &self,
        call: &'static str,
        effect: impl FnOnce(&Store<C>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = Arc::clone(&self.store);
        let answer = self.process.request(call, move || effect(&store)).await;
        answer.map_err(|away| StoreError::Unavailable(Box::new(away)))?
    }

    fn note(&self, what: &str, activity: &Activity, answer: &str) {
        let (worker, key) = (self.process.number, &activity.key);
        let tenant = &activity.tenant;
        self.process
            .world
            .note(format!("worker {worker}: {what} {tenant} {key}: {answer}"));
    }
}

impl<C: Clock + Clone> TurnStore for StorePort<C> {
    async fn begin(&self, begin: &Begin<'_>) -> Result<Begun, StoreError> {
        let activity = begin.activity.clone();
        let claim = match begin.claim {
            Claim::Optimistic => None,
            Claim::Exclusive { lease, ttl } => Some((OwnedLease::of(lease), ttl)),
        };
        let (resume, state) = (begin.resume, begin.state.to_vec());
        let state_bytes = begin.state_bytes;
        let effect = move |store: &Store<C>| {
            store.begin(&Begin {
                activity: &activity,
                claim: claim.as_ref().map_or(Claim::Optimistic, |(lease, ttl)| {
                    let lease = lease.borrow();
                    Claim::Exclusive { lease, ttl: *ttl }
                }),
                resume,
                state: &state,
                state_bytes,
            })
        };
        let begun = self.call("begin", effect).await?;
        let answer = match &begun {
            Begun::Applied(record) => format!("applied, {} to publish", record.outbox.len()),
            Begun::Busy { .. } => "busy".to_owned(),
            Begun::Ready(opening) => {
                let wait = opening.wait.as_ref().map(|wait| wait.key.as_str());
                format!("ready, claims {}, wait {wait:?}", opening.claims)
            }
        };
        self.note("begin", begin.activity, &answer);
        match &begun {
            Begun::Applied(_) => self.process.world.count("turns begun that were applied"),
            Begun::Busy { .. } => self
                .process
                .world
                .count("turns begun on a busy conversation"),
            Begun::Ready(_) => self.process.world.count("turns begun"),
        }
        Ok(begun)
    }

    async fn read_state(
        &self,
        activity: &Activity,
        slot: &StateSlot,
        max_bytes: usize,
    ) -> Result<StoredState, StoreError> {
        // The flow that poison starts asks for state first, so this is where it kills.
        if activity.key.as_str().starts_with("poison") {
            self.process.die("of what it runs");
        }
        let (activity, slot) = (activity.clone(), slot.clone());
        self.call("read state", move |store| {
            at_once(store.memory.read_state(&activity, &slot, max_bytes))
        })
        .await
    }

    async fn commit(&self, commit: &Commit<'_>) -> Result<Committed, StoreError> {
        let (activity, lease) = (commit.activity.clone(), commit.lease.map(OwnedLease::of));
        let change = Change::of(commit);
        let effect = move |store: &Store<C>| {
            store.commit(&change.borrow(&activity, lease.as_ref().map(OwnedLease::borrow)))
        };
        let committed = self.call("commit", effect).await?;
        let answer = match &committed {
            Committed::Done { .. } => "done",
            Committed::AlreadyApplied(_) => "already applied",
            Committed::Conflict => "conflict",
            Committed::Refused(_) => "refused",
        };
        self.note("commit", commit.activity, answer);
        self.process.world.count(match &committed {
            Committed::Done { .. } => "commits",
            Committed::AlreadyApplied(_) => "commits that were applied",
            Committed::Conflict => "commits in conflict",
            Committed::Refused(_) => "commits over a quota",
        });
        Ok(committed)
    }

    async fn published(&self, activity: &Activity) -> Result<(), StoreError> {
        let activity = activity.clone();
        self.call("published", move |store| {
            at_once(store.memory.published(&activity))
        })
        .await
    }

    async fn published_but(
        &self,
        activity: &Activity,
        rest: &[Outbound],
    ) -> Result<(), StoreError> {
        let (activity, rest) = (activity.clone(), rest.to_vec());
        self.call("published in part", move |store| {
            at_once(store.memory.published_but(&activity, &rest))
        })
        .await
    }

    async fn release(&self, activity: &Activity, lease: Lease<'_>) -> Result<(), StoreError> {
        let (activity, lease) = (activity.clone(), OwnedLease::of(lease));
        self.call("release", move |store| {
            store.release(&activity, lease.borrow())
        })
        .await
    }

    async fn withdraw(&self, activity: &Activity, lease: Lease<'_>) -> Result<(), StoreError> {
        let (activity, lease) = (activity.clone(), OwnedLease::of(lease));
        self.call("withdraw", move |store| {
            store.withdraw(&activity, lease.borrow())
        })
        .await
    }

    async fn prolong(
        &self,
        activity: &Activity,
        lease: Lease<'_>,
        ttl: Duration,
    ) -> Result<(), StoreError> {
        let (activity, lease) = (activity.clone(), OwnedLease::of(lease));
        self.call("prolong", move |store| {
            store.prolong(&activity, lease.borrow(), ttl)
        })
        .await
    }

    async fn attempts(&self, activity: &Activity) -> Result<Attempts, StoreError> {
        let activity = activity.clone();
        self.call("attempts", move |store| {
            at_once(store.memory.attempts(&activity))
        })
        .await
    }

    async fn forget_claims(&self, activity: &Activity) -> Result<(), StoreError> {
        let activity = activity.clone();
        self.call("forget claims", move |store| store.forget_claims(&activity))
            .await
    }
}
