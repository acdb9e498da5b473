//! An attempt that cannot go on: it waits, begins again, or gives its message back.

use std::time::Duration;

use super::results::Played;
use super::{Attempt, Disposition, Ended, Part, TurnError};
use crate::ports::{Opening, Publisher, TurnStore};

/// After this many conflicts a turn takes the lease on all that others could change under it, so that it gets through.
const CONFLICTS_BEFORE_LEASE: u32 = 3;
/// After this many conflicts an attempt has failed: its lease expires again and again.
const MOST_CONFLICTS: u32 = 30;
/// The longest a turn waits before it looks again whether a busy conversation is free.
const BUSY_PAUSE: Duration = Duration::from_millis(250);

impl<S: TurnStore, P: Publisher> Attempt<'_, S, P> {
    /// Counts the attempts of a message that keeps coming back: those that ended in a worker's death left no other
    /// trace than the claim that BEGIN counted. Whether the first attempt is among the claims depends on the flow; until
    /// that is chosen, the last attempt is given the benefit of the doubt.
    pub(super) fn count(&mut self, opening: &Opening, chosen: bool) -> Result<(), TurnError> {
        if self.redelivered {
            let first_is_counted = self.reaches_out;
            let claims = opening.claims;
            self.number = claims.saturating_add(u32::from(!first_is_counted)).max(1);
        }
        let attempts = self.turns.config.retry.attempts;
        let over = if chosen { self.number } else { opening.claims } > attempts;
        self.number = self.number.min(attempts);
        if over {
            return Err(TurnError::AttemptsExhausted { attempts });
        }
        Ok(())
    }

    /// Waits a moment for a busy conversation.
    pub(super) async fn stand_aside(&mut self, at_most: Duration) {
        if let Some(metrics) = self.context.metrics {
            metrics.lease_conflict();
        }
        let pause = at_most.min(BUSY_PAUSE);
        tokio::time::sleep(pause.mul_f64(0.5 + 0.5 * fastrand::f64())).await;
    }

    /// Prepares to begin again after another turn came first.
    pub(super) fn conflicted(&mut self, played: &Played) -> Result<(), TurnError> {
        self.conflicts += 1;
        if let Some(metrics) = self.context.metrics {
            metrics.commit_conflict();
        }
        if self.conflicts >= MOST_CONFLICTS {
            let conflicts = self.conflicts;
            return Err(TurnError::Contended { conflicts });
        }
        if self.conflicts >= CONFLICTS_BEFORE_LEASE {
            self.exclusive = true;
            if !(played.state_read.is_empty() && played.state_written.is_empty()) {
                self.context.lease.extend_to_user();
            }
        }
        Ok(())
    }

    /// The end of a turn that met a refusal: its message goes back, and comes to find out whether that is over. What it has
    /// applied stays applied, and what it has published is noted; the attempt does not count.
    pub(super) async fn refused(mut self) -> Ended {
        if self.applied.is_none() {
            self.withdraw().await;
        }
        let pause = self.turns.outage.away_for(&self.activity.tenant);
        let applied = self.applied.take();
        self.ended(Disposition::RetryAfter(pause), applied)
    }

    /// The end of a turn whose pack is not here: its message goes back, for workers that have it. The attempt does not count.
    pub(super) async fn without_its_pack(self, pause: Duration) -> Ended {
        self.withdraw().await;
        tracing::debug!(
            ?pause,
            "the conversation waits in a pack that is not here; its message is left to other workers"
        );
        self.ended(Disposition::RetryAfter(pause), None)
    }

    /// Takes the lease and the count of this attempt back.
    pub(super) async fn withdraw(&self) {
        if !self.exclusive {
            return;
        }
        let withdraw = self.turns.store.withdraw(self.activity, self.lease()).await;
        if let Err(error) = withdraw {
            tracing::debug!(error = %error, "the lease stays until it expires");
        }
    }

    /// A lease that cannot be given up expires by itself. While the tenant's dead letters are refused, a flow that reaches
    /// nothing outside fails again at each probe; that is one attempt, so that its dead letter has its own reason in the end.
    pub(super) async fn give_up_lease(&self) {
        if !self.exclusive {
            return;
        }
        let (turns, tenant) = (self.turns, &self.activity.tenant);
        let is_probe = turns.outage.is_refused(tenant, Part::DeadLetters) && !self.reaches_out;
        let given_up = match is_probe {
            true => turns.store.withdraw(self.activity, self.lease()).await,
            false => turns.store.release(self.activity, self.lease()).await,
        };
        if let Err(error) = given_up {
            tracing::debug!(error = %error, "the lease stays until it expires");
        }
    }
}
