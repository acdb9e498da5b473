//! A store that remembers where the last turn left its conversation waiting.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::model::{Activity, Outbound};
use crate::ports::{
    Attempts, Begin, Begun, Commit, Committed, Lease, StateSlot, StoreError, StoredState, TurnStore,
};

/// A store, and what the last commit parked.
pub(super) struct Witness<S> {
    store: S,
    parked: Mutex<Option<String>>,
}

impl<S> Witness<S> {
    pub fn new(store: S) -> Self {
        Self {
            store,
            parked: Mutex::default(),
        }
    }

    /// Where the conversation waits since the last turn, as `flow/node`. Forgets it.
    pub fn take_parked(&self) -> Option<String> {
        self.parked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

impl<S: TurnStore> TurnStore for Witness<S> {
    async fn begin(&self, begin: &Begin<'_>) -> Result<Begun, StoreError> {
        self.store.begin(begin).await
    }

    async fn read_state(
        &self,
        activity: &Activity,
        slot: &StateSlot,
        max_bytes: usize,
    ) -> Result<StoredState, StoreError> {
        self.store.read_state(activity, slot, max_bytes).await
    }

    async fn commit(&self, commit: &Commit<'_>) -> Result<Committed, StoreError> {
        let committed = self.store.commit(commit).await?;
        let place = |data: &greentic_types::SessionData| {
            format!("{}/{}", data.flow_id, data.cursor.node_pointer)
        };
        let parked = commit.park.map(|park| place(park.data));
        *self.parked.lock().unwrap_or_else(PoisonError::into_inner) = parked;
        Ok(committed)
    }

    async fn published(&self, activity: &Activity) -> Result<(), StoreError> {
        self.store.published(activity).await
    }

    async fn published_but(
        &self,
        activity: &Activity,
        rest: &[Outbound],
    ) -> Result<(), StoreError> {
        self.store.published_but(activity, rest).await
    }

    async fn release(&self, activity: &Activity, lease: Lease<'_>) -> Result<(), StoreError> {
        self.store.release(activity, lease).await
    }

    async fn prolong(
        &self,
        activity: &Activity,
        lease: Lease<'_>,
        ttl: Duration,
    ) -> Result<(), StoreError> {
        self.store.prolong(activity, lease, ttl).await
    }

    async fn attempts(&self, activity: &Activity) -> Result<Attempts, StoreError> {
        self.store.attempts(activity).await
    }

    async fn withdraw(&self, activity: &Activity, lease: Lease<'_>) -> Result<(), StoreError> {
        self.store.withdraw(activity, lease).await
    }

    async fn forget_claims(&self, activity: &Activity) -> Result<(), StoreError> {
        self.store.forget_claims(activity).await
    }
}
