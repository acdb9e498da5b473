//! The lease of a turn. The worker that runs the turn prolongs it, and gives it up when it cuts the turn off.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Part, Turns};
use crate::model::Activity;
use crate::ports::{Attempts, Lease, LeaseScope, NewId, Publisher, TurnStore};

/// The lease that a turn holds, once it takes one.
#[derive(Debug, Default)]
pub struct TurnLease {
    token: OnceLock<String>,
    of_user: AtomicBool,
}

impl TurnLease {
    /// The lease, which is named now if it has no name yet.
    pub(super) fn named(&self, ids: &dyn NewId) -> Lease<'_> {
        let token = self.token.get_or_init(|| ids.uuid());
        self.held_by(token)
    }

    /// Has it cover the state of the user, too, from the next claim on.
    pub(super) fn extend_to_user(&self) {
        self.of_user.store(true, Ordering::Relaxed);
    }

    fn held(&self) -> Option<Lease<'_>> {
        self.token.get().map(|token| self.held_by(token))
    }

    fn held_by<'a>(&self, token: &'a str) -> Lease<'a> {
        let scope = match self.of_user.load(Ordering::Relaxed) {
            true => LeaseScope::User,
            false => LeaseScope::Conversation,
        };
        Lease { token, scope }
    }
}

impl<S: TurnStore, P: Publisher> Turns<S, P> {
    /// Prolongs the lease of a turn that runs. One that cannot be prolonged expires, and the turn goes on until another one
    /// takes its conversation.
    pub async fn prolong(&self, activity: &Activity, lease: &TurnLease) {
        let Some(lease) = lease.held() else { return };
        let ttl = self.config.lease_ttl;
        if let Err(error) = self.store.prolong(activity, lease, ttl).await {
            tracing::debug!(%error, "the lease was not prolonged");
        }
    }

    /// Gives up the lease of a turn that was cut off, with the attempt that was counted for it.
    pub async fn withdraw(&self, activity: &Activity, lease: &TurnLease) {
        let Some(lease) = lease.held() else { return };
        if let Err(error) = self.store.withdraw(activity, lease).await {
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
