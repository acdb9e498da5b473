//! The lease of a turn, as the worker sees it that runs the turn: it prolongs the lease, and gives it up when it cuts the turn off.

use std::sync::OnceLock;

use super::{Part, Turns};
use crate::model::Activity;
use crate::ports::{Attempts, NewId, Publisher, TurnStore};

/// The name of a turn as the holder of a lease. It has none until it takes one.
#[derive(Debug, Default)]
pub struct LeaseToken(OnceLock<String>);

impl LeaseToken {
    pub(super) fn get_or_make(&self, ids: &dyn NewId) -> &str {
        self.0.get_or_init(|| ids.uuid())
    }
}

impl<S: TurnStore, P: Publisher> Turns<S, P> {
    /// Prolongs the lease of a turn that runs. One that cannot be prolonged expires, and the turn goes on until another one
    /// takes its conversation.
    pub async fn prolong(&self, activity: &Activity, lease: &LeaseToken) {
        let Some(token) = lease.0.get() else { return };
        let ttl = self.config.lease_ttl;
        if let Err(error) = self.store.prolong(activity, token, ttl).await {
            tracing::debug!(%error, "the lease was not prolonged");
        }
    }

    /// Gives up the lease of a turn that was cut off, with the attempt that was counted for it.
    pub async fn withdraw(&self, activity: &Activity, lease: &LeaseToken) {
        let Some(token) = lease.0.get() else { return };
        if let Err(error) = self.store.withdraw(activity, token).await {
            tracing::debug!(%error, "the lease stays until it expires");
        }
    }

    /// Counts the attempts at an activity. None are known where the store refuses to tell: the turn meets the same refusal.
    pub async fn attempts(&self, activity: &Activity) -> Attempts {
        let attempts = || self.store.attempts(activity);
        let tenant = &activity.tenant;
        let counted = self.outage.ride_out(tenant, Part::Store, attempts).await;
        counted.unwrap_or_default()
    }
}
