//! [`TurnStore`] in memory: one lock, taken for the whole of each step.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use greentic_types::ReplyScope;
use time::OffsetDateTime;

use super::waits::Waits;
use crate::model::{
    Activity, EnvId, IdempotencyKey, Outbound, STATE_KEY_OVERHEAD, TeamId, TenantId, UserId,
};
use crate::ports::{
    AppliedRecord, Attempts, Begin, Begun, Claim, Clock, Commit, Committed, Lease, LeaseScope,
    Opening, QuotaExcess, StateSlot, StoreError, StoredState, TurnStore,
};

/// Sessions, state and the record of what was applied, in memory.
pub struct MemoryStore<C> {
    clock: C,
    dedupe_window: Duration,
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    waits: Waits,
    applied: HashMap<ActivityName, Lasting<AppliedRecord>>,
    claims: HashMap<ActivityName, Lasting<u32>>,
    failures: HashMap<ActivityName, Lasting<u32>>,
    leases: HashMap<LeaseName, Lasting<String>>,
    state: HashMap<(Owner, StateSlot), String>,
    /// The bytes of state of each user and of each tenant, as quotas count them.
    user_bytes: HashMap<Owner, i128>,
    tenant_bytes: HashMap<(EnvId, TenantId), i128>,
}

/// A value until its time is over.
struct Lasting<T> {
    value: T,
    until: OffsetDateTime,
}

/// What names an activity.
type ActivityName = (EnvId, TenantId, IdempotencyKey);

/// Whose state and conversations: env, tenant, team, user.
type Owner = (EnvId, TenantId, Option<TeamId>, UserId);

/// The name of a lease: of a conversation, of an activity that belongs to none, or of a user's state.
#[derive(PartialEq, Eq, Hash)]
enum LeaseName {
    Conversation(Owner, ReplyScope),
    Activity(ActivityName),
    /// The state of a user.
    User(Owner),
}

impl<C: Clock> MemoryStore<C> {
    /// An empty store that remembers applied activities for this long.
    pub fn new(clock: C, dedupe_window: Duration) -> Self {
        Self {
            clock,
            dedupe_window,
            tables: Mutex::default(),
        }
    }

    /// The tables as they are now, without what has expired.
    fn open(&self) -> Result<(MutexGuard<'_, Tables>, OffsetDateTime), StoreError> {
        let now = self.clock.now();
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.waits.expire(now)?;
        tables.applied.retain(|_, record| record.until > now);
        tables.claims.retain(|_, count| count.until > now);
        tables.failures.retain(|_, count| count.until > now);
        tables.leases.retain(|_, lease| lease.until > now);
        Ok((tables, now))
    }

    fn lasting<T>(value: T, now: OffsetDateTime, lasts: Duration) -> Lasting<T> {
        let lasts = time::Duration::try_from(lasts).unwrap_or(time::Duration::MAX);
        let until = now.saturating_add(lasts);
        Lasting { value, until }
    }
}

impl<C: Clock> TurnStore for MemoryStore<C> {
    async fn begin(&self, begin: &Begin<'_>) -> Result<Begun, StoreError> {
        let (mut tables, now) = self.open()?;
        let activity = begin.activity;
        if let Some(record) = tables.applied.get(&name(activity)) {
            return Ok(Begun::Applied(record.value.clone()));
        }
        let token = match begin.claim {
            Claim::Optimistic => None,
            Claim::Exclusive { lease, .. } => Some(lease.token),
        };
        let is_ours = tables.leases.contains_key(&lease_name(activity));
        for name in leases(activity, begin.claim) {
            let holder = tables.leases.get(&name);
            let other = holder.filter(|lease| token != Some(lease.value.as_str()));
            if let Some(lease) = other {
                let retry_after = (lease.until - now).unsigned_abs();
                return Ok(Begun::Busy { retry_after });
            }
        }
        let wait = match begin.resume {
            true => tables.waits.find(activity)?.map(Box::new),
            false => None,
        };
        let head = tables.waits.head(activity)?;
        let claims = match begin.claim {
            Claim::Optimistic => 0,
            Claim::Exclusive { lease, ttl } => {
                for name in leases(activity, begin.claim) {
                    let lease = Self::lasting(lease.token.to_owned(), now, ttl);
                    tables.leases.insert(name, lease);
                }
                let attempt = u32::from(!is_ours);
                let count = tables.claims.entry(name(activity)).or_insert(Self::lasting(
                    0,
                    now,
                    self.dedupe_window,
                ));
                *count = Self::lasting(count.value + attempt, now, self.dedupe_window);
                count.value
            }
        };
        Ok(Begun::Ready(Opening {
            wait,
            head,
            claims,
            state: tables.read_all(begin),
        }))
    }

    async fn read_state(
        &self,
        activity: &Activity,
        slot: &StateSlot,
        max_bytes: usize,
    ) -> Result<StoredState, StoreError> {
        let (tables, _) = self.open()?;
        Ok(tables.read(&owner(activity), slot, max_bytes))
    }

    async fn commit(&self, commit: &Commit<'_>) -> Result<Committed, StoreError> {
        let (mut tables, now) = self.open()?;
        let activity = commit.activity;
        if let Some(record) = tables.applied.get(&name(activity)) {
            return Ok(Committed::AlreadyApplied(record.value.clone()));
        }
        if !tables.are_as_read(commit)? {
            return Ok(Committed::Conflict);
        }
        let used = match tables.use_of_quotas(commit) {
            Ok(used) => used,
            Err(refused) => return Ok(Committed::Refused(refused)),
        };
        if let Some(taken) = &commit.taken {
            tables.waits.clear(taken)?;
        }
        if let Some(park) = &commit.park {
            tables.waits.park(activity, park, now)?;
        }
        if !commit.state_written.is_empty() {
            tables.write_state(commit);
        }
        let record = AppliedRecord {
            content: Some(activity.content),
            outbox: commit.outbox.to_vec(),
        };
        let record = Self::lasting(record, now, self.dedupe_window);
        tables.applied.insert(name(activity), record);
        tables.leases.remove(&lease_name(activity));
        if let Some(lease) = commit.lease {
            tables.free(LeaseName::User(owner(activity)), lease.token);
        }
        tables.claims.remove(&name(activity));
        tables.failures.remove(&name(activity));
        Ok(Committed::Done {
            tenant_state_bytes: used,
        })
    }

    async fn published(&self, activity: &Activity) -> Result<(), StoreError> {
        let (mut tables, _) = self.open()?;
        if let Some(record) = tables.applied.get_mut(&name(activity)) {
            record.value.outbox.clear();
        }
        Ok(())
    }

    async fn published_but(
        &self,
        activity: &Activity,
        rest: &[Outbound],
    ) -> Result<(), StoreError> {
        let (mut tables, _) = self.open()?;
        if let Some(record) = tables.applied.get_mut(&name(activity)) {
            record.value.outbox = rest.to_vec();
        }
        Ok(())
    }

    async fn release(&self, activity: &Activity, lease: Lease<'_>) -> Result<(), StoreError> {
        let (mut tables, now) = self.open()?;
        if tables.release(activity, lease) {
            let before = tables.failures.get(&name(activity));
            let count = before.map_or(0, |count| count.value) + 1;
            let failures = Self::lasting(count, now, self.dedupe_window);
            tables.failures.insert(name(activity), failures);
        }
        Ok(())
    }

    async fn prolong(
        &self,
        activity: &Activity,
        lease: Lease<'_>,
        ttl: Duration,
    ) -> Result<(), StoreError> {
        let (mut tables, now) = self.open()?;
        for name in leases(activity, Claim::Exclusive { lease, ttl }) {
            if let Some(held) = tables.leases.get_mut(&name)
                && held.value == lease.token
            {
                *held = Self::lasting(lease.token.to_owned(), now, ttl);
            }
        }
        Ok(())
    }

    async fn attempts(&self, activity: &Activity) -> Result<Attempts, StoreError> {
        let (tables, _) = self.open()?;
        let count = |counts: &HashMap<_, Lasting<u32>>| {
            counts.get(&name(activity)).map_or(0, |count| count.value)
        };
        let (claimed, failed) = (count(&tables.claims), count(&tables.failures));
        Ok(Attempts {
            claimed,
            open: claimed.saturating_sub(failed),
        })
    }

    async fn withdraw(&self, activity: &Activity, lease: Lease<'_>) -> Result<(), StoreError> {
        let (mut tables, _) = self.open()?;
        if tables.release(activity, lease)
            && let Some(claims) = tables.claims.get_mut(&name(activity))
        {
            claims.value = claims.value.saturating_sub(1);
        }
        Ok(())
    }

    async fn forget_claims(&self, activity: &Activity) -> Result<(), StoreError> {
        let (mut tables, _) = self.open()?;
        tables.claims.remove(&name(activity));
        tables.failures.remove(&name(activity));
        Ok(())
    }
}

impl Tables {
    /// Writes the state of a turn, and counts it.
    fn write_state(&mut self, commit: &Commit<'_>) {
        let owner = owner(commit.activity);
        let tenant = (owner.0.clone(), owner.1.clone());
        let mut change = 0;
        for (slot, value) in commit.state_written {
            change += value
                .as_ref()
                .map_or(0, |value| stored_bytes(&owner, slot, value));
            let place = (owner.clone(), slot.clone());
            let before = match value {
                Some(value) => self.state.insert(place, value.clone()),
                None => self.state.remove(&place),
            };
            change -= before.map_or(0, |before| stored_bytes(&owner, slot, &before));
        }
        *self.tenant_bytes.entry(tenant).or_default() += change;
        *self.user_bytes.entry(owner).or_default() += change;
    }

    /// Frees a lease, but only its holder's; tells whether it held the conversation.
    fn release(&mut self, activity: &Activity, lease: Lease<'_>) -> bool {
        if lease.scope == LeaseScope::User {
            self.free(LeaseName::User(owner(activity)), lease.token);
        }
        self.free(lease_name(activity), lease.token)
    }

    fn free(&mut self, name: LeaseName, token: &str) -> bool {
        let lease = self.leases.get(&name);
        let is_ours = lease.is_some_and(|lease| lease.value == token);
        if is_ours {
            self.leases.remove(&name);
        }
        is_ours
    }

    fn read_all(&self, begin: &Begin<'_>) -> Vec<StoredState> {
        let owner = owner(begin.activity);
        let each = begin.state.iter();
        each.map(|slot| self.read(&owner, slot, begin.state_bytes))
            .collect()
    }

    fn read(&self, owner: &Owner, slot: &StateSlot, max_bytes: usize) -> StoredState {
        match self.state.get(&(owner.clone(), slot.clone())) {
            None => StoredState::Absent,
            Some(text) if text.len() > max_bytes => StoredState::TooLarge,
            Some(text) => StoredState::Text(text.clone()),
        }
    }

    /// The bytes of state that the tenant has after a commit that changes them, if that is within the quotas.
    fn use_of_quotas(&self, commit: &Commit<'_>) -> Result<Option<u64>, QuotaExcess> {
        let quotas = commit.quotas;
        let writes = !commit.state_written.is_empty();
        let used = writes.then(|| self.state_bytes(commit, &owner(commit.activity)));
        if let Some((change, user, tenant)) = used
            && change > 0
        {
            if user + change > i128::from(quotas.user_state_bytes) {
                let used = unsigned(user);
                return Err(QuotaExcess::UserState { used });
            }
            if tenant + change > i128::from(quotas.tenant_state_bytes) {
                let used = unsigned(tenant);
                return Err(QuotaExcess::TenantState { used });
            }
        }
        if commit.park.is_some() {
            let taken = commit.taken.map(|taken| taken.key);
            if self.waits.open(commit.activity, taken) >= quotas.waits_per_user as usize {
                return Err(QuotaExcess::Waits);
            }
        }
        Ok(used.map(|(change, _, tenant)| unsigned(tenant + change)))
    }

    /// By how many bytes a commit changes the state, and how many the user and the tenant have before it.
    fn state_bytes(&self, commit: &Commit<'_>, owner: &Owner) -> (i128, i128, i128) {
        let written = commit.state_written.iter().map(|(slot, value)| {
            let before = self.state.get(&(owner.clone(), slot.clone()));
            let bytes = |value: &String| stored_bytes(owner, slot, value);
            value.as_ref().map_or(0, bytes) - before.map_or(0, bytes)
        });
        let tenant = (owner.0.clone(), owner.1.clone());
        let user = self.user_bytes.get(owner).copied().unwrap_or(0);
        let tenant = self.tenant_bytes.get(&tenant).copied().unwrap_or(0);
        (written.sum(), user, tenant)
    }

    /// Returns whether nobody else holds the lease, and everything that the turn has read is unchanged.
    fn are_as_read(&self, commit: &Commit<'_>) -> Result<bool, StoreError> {
        let activity = commit.activity;
        let token = commit.lease.map(|lease| lease.token);
        let is_of_another = |name: LeaseName| {
            let holder = self.leases.get(&name);
            holder.is_some_and(|lease| Some(lease.value.as_str()) != token)
        };
        if is_of_another(lease_name(activity)) {
            return Ok(false);
        }
        let writes = !commit.state_written.is_empty();
        if writes && is_of_another(LeaseName::User(owner(activity))) {
            return Ok(false);
        }
        if self.waits.head(activity)?.as_ref() != commit.head {
            return Ok(false);
        }
        if commit
            .taken
            .is_some_and(|taken| !self.waits.contains(taken.key))
        {
            return Ok(false);
        }
        let owner = owner(activity);
        Ok(commit
            .state_read
            .iter()
            .all(|(slot, value)| self.state.get(&(owner.clone(), slot.clone())) == value.as_ref()))
    }
}

/// The bytes that a value counts: its own, those of the name that Redis has for it, and its place.
fn stored_bytes((env, tenant, team, user): &Owner, slot: &StateSlot, value: &str) -> i128 {
    const FIXED: usize = "greentic:state::::pack//flow//user/:".len();
    let (env, tenant, user) = (
        env.as_str().len(),
        tenant.as_str().len(),
        user.as_str().len(),
    );
    let team = team.as_ref().map_or(0, |team| team.as_str().len() + 1);
    let pack = slot.pack.stored().to_string().len();
    let name =
        FIXED + env + tenant + team + 2 * user + pack + slot.flow.as_str().len() + slot.key.len();
    let bytes = value.len() + name + STATE_KEY_OVERHEAD;
    i128::try_from(bytes).unwrap_or(i128::MAX)
}

fn unsigned(bytes: i128) -> u64 {
    u64::try_from(bytes.max(0)).unwrap_or(u64::MAX)
}

fn name(activity: &Activity) -> ActivityName {
    (
        activity.env.clone(),
        activity.tenant.clone(),
        activity.key.clone(),
    )
}

fn owner(activity: &Activity) -> Owner {
    (
        activity.env.clone(),
        activity.tenant.clone(),
        activity.team.clone(),
        activity.user.clone(),
    )
}

/// The leases that a claim takes.
fn leases(activity: &Activity, claim: Claim<'_>) -> impl Iterator<Item = LeaseName> {
    let of_user = match claim {
        Claim::Exclusive { lease, .. } => lease.scope == LeaseScope::User,
        Claim::Optimistic => false,
    };
    let of_user = of_user.then(|| LeaseName::User(owner(activity)));
    std::iter::once(lease_name(activity)).chain(of_user)
}

fn lease_name(activity: &Activity) -> LeaseName {
    match activity.base_scope() {
        Some(base) => LeaseName::Conversation(owner(activity), base),
        None => LeaseName::Activity(name(activity)),
    }
}
