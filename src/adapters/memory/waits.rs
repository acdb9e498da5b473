//! Parked flows, on greentic-session's in-memory store.

use std::collections::HashMap;
use std::time::Duration;

use greentic_session::inmemory::InMemorySessionStore;
use greentic_session::{GreenticError, SessionStore};
use greentic_types::{ReplyScope, SessionData, SessionKey};
use time::OffsetDateTime;

use crate::model::Activity;
use crate::ports::{Park, ParkedWait, StoreError, Taken};

/// The waits of all conversations.
///
/// greentic-session's store registers a session under one scope only, so there are two of them: one has each wait under
/// its base scope, the other under its correlation id. Neither is told of expiry, which would go by the machine's clock.
#[derive(Default)]
pub struct Waits {
    by_base: InMemorySessionStore,
    by_correlation: InMemorySessionStore,
    parked: HashMap<SessionKey, Parked>,
}

/// How a session was registered.
struct Parked {
    activity: Activity,
    base: ReplyScope,
    correlated: Option<ReplyScope>,
    until: OffsetDateTime,
}

impl Waits {
    /// The wait that an activity answers: the one under its echoed correlation id, else the latest under its base scope.
    pub fn find(&self, activity: &Activity) -> Result<Option<ParkedWait>, StoreError> {
        let scope = activity.reply_scope.as_ref();
        let echoed = scope.filter(|scope| scope.correlation.is_some());
        let key = match echoed {
            Some(scope) => find(&self.by_correlation, activity, scope)?,
            None => None,
        };
        let key = match key {
            Some(key) => Some(key),
            None => self.head(activity)?,
        };
        let Some(key) = key else { return Ok(None) };
        let data = self.by_base.get_session(&key).map_err(refused)?;
        Ok(data.map(|data| ParkedWait { key, data }))
    }

    /// The session that an activity's base scope names.
    pub fn head(&self, activity: &Activity) -> Result<Option<SessionKey>, StoreError> {
        match activity.base_scope() {
            Some(base) => find(&self.by_base, activity, &base),
            None => Ok(None),
        }
    }

    /// Whether a session is still parked.
    pub fn contains(&self, key: &SessionKey) -> bool {
        self.parked.contains_key(key)
    }

    /// How many waits a user has, but for this one.
    pub fn open(&self, activity: &Activity, taken: Option<&SessionKey>) -> usize {
        let is_theirs = |of: &Activity| {
            of.user == activity.user
                && of.team == activity.team
                && of.tenant == activity.tenant
                && of.env == activity.env
        };
        let theirs = self
            .parked
            .iter()
            .filter(|(key, parked)| is_theirs(&parked.activity) && Some(*key) != taken);
        theirs.count()
    }

    /// Clears a wait; the first of those it had pushed aside becomes the latest of its conversation again.
    pub fn clear(&mut self, taken: &Taken<'_>) -> Result<(), StoreError> {
        let Some(parked) = self.parked.remove(taken.key) else {
            return Ok(());
        };
        if let Some(scope) = &parked.correlated {
            remove(&self.by_correlation, &parked.activity, scope, taken.key)?;
        }
        let was_latest = remove(&self.by_base, &parked.activity, &parked.base, taken.key)?;
        let next = taken.shadowed.iter().find(|key| self.contains(key));
        match next.filter(|_| was_latest) {
            Some(next) => register_again(&self.by_base, &parked.activity, &parked.base, next),
            None => Ok(()),
        }
    }

    /// Registers a wait as the latest of its conversation, and under its correlation id.
    pub fn park(
        &mut self,
        activity: &Activity,
        park: &Park<'_>,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let scope = activity.reply_scope.as_ref();
        let scope = scope.ok_or_else(|| StoreError::Corrupt {
            what: "wait".to_owned(),
            reason: "its activity has no reply scope to find it by".to_owned(),
        })?;
        let base = scope.base();
        let correlated = park.correlation.map(|id| scope.with(Some(id)));
        register(&self.by_base, activity, &base, park.key, park.data)?;
        if let Some(scope) = &correlated {
            register(&self.by_correlation, activity, scope, park.key, park.data)?;
        }
        let lasts = time::Duration::try_from(park.ttl).unwrap_or(time::Duration::MAX);
        let parked = Parked {
            activity: activity.clone(),
            base,
            correlated,
            until: now.saturating_add(lasts),
        };
        self.parked.insert(park.key.clone(), parked);
        Ok(())
    }

    /// Clears the waits whose time is over. None takes the place of one that expires.
    pub fn expire(&mut self, now: OffsetDateTime) -> Result<(), StoreError> {
        let over: Vec<_> = self
            .parked
            .iter()
            .filter(|(_, parked)| parked.until <= now)
            .map(|(key, _)| key.clone())
            .collect();
        for key in &over {
            self.clear(&Taken {
                key,
                correlation: None,
                shadowed: &[],
            })?;
        }
        Ok(())
    }
}

fn find(
    store: &InMemorySessionStore,
    activity: &Activity,
    scope: &ReplyScope,
) -> Result<Option<SessionKey>, StoreError> {
    store
        .find_wait_by_scope(&activity.tenant_ctx(), &activity.user, scope)
        .map_err(refused)
}

/// Removes a session; tells whether the scope named it. The store empties the scope whichever session it names, so
/// another one is registered there again.
fn remove(
    store: &InMemorySessionStore,
    activity: &Activity,
    scope: &ReplyScope,
    key: &SessionKey,
) -> Result<bool, StoreError> {
    let named = find(store, activity, scope)?;
    store.remove_session(key).map_err(refused)?;
    let was_named = named.as_ref() == Some(key);
    if let Some(other) = named.filter(|_| !was_named) {
        register_again(store, activity, scope, &other)?;
    }
    Ok(was_named)
}

fn register_again(
    store: &InMemorySessionStore,
    activity: &Activity,
    scope: &ReplyScope,
    key: &SessionKey,
) -> Result<(), StoreError> {
    match store.get_session(key).map_err(refused)? {
        Some(data) => register(store, activity, scope, key, &data),
        None => Ok(()),
    }
}

fn register(
    store: &InMemorySessionStore,
    activity: &Activity,
    scope: &ReplyScope,
    key: &SessionKey,
    data: &SessionData,
) -> Result<(), StoreError> {
    let context = activity.tenant_ctx();
    let forever: Option<Duration> = None;
    store
        .register_wait(&context, &activity.user, scope, key, data.clone(), forever)
        .map_err(refused)
}

/// A store in memory fails only where what it is given contradicts itself.
fn refused(error: GreenticError) -> StoreError {
    StoreError::Corrupt {
        what: "session".to_owned(),
        reason: error.to_string(),
    }
}
