//! From a delivery to its settlement: run the turn, then do with the message what its disposition says.

use std::time::Duration;

use tokio::time::Instant;

use super::lanes::Place;
use super::slots::{Slot, SlotClaim};
use super::{Queued, Shared, dead_letter};
use crate::budget::MemoryCharge;
use crate::model::Activity;
use crate::ports::{Delivery, Destination, Inbound, Publisher, TransportError, TurnStore};
use crate::telemetry::{self, InFlight, TenantMetrics, TurnSpan};
use crate::turn::{
    Applied, Disposition, Ended, Part, REPLY_UNDELIVERABLE, Rejection, TurnError, apology,
};

/// From this delivery on a message is suspected of killing its workers. Suspects run one at a time: a worker that dies of
/// one takes no attempt from the others, which come again together with it.
const SUSPECT_DELIVERY: u64 = 3;

/// An activity that waits for its turn: behind others of its conversation, then for a slot.
struct Waiting<'a> {
    activity: &'a Activity,
    place: Place,
    claim: SlotClaim,
    memory: &'a MemoryCharge,
}

/// The slot of a turn that runs, and its share in the count of those.
type Running = (Option<Slot>, InFlight);

impl<I, S, P> Shared<I, S, P>
where
    I: Inbound,
    S: TurnStore,
    P: Publisher,
{
    /// Runs one delivery to its settlement.
    pub(super) async fn handle(
        &self,
        delivery: I::Delivery,
        (read, claim, memory): (Result<Queued, TurnError>, SlotClaim, MemoryCharge),
        metrics: &TenantMetrics,
        span: &TurnSpan,
    ) {
        let began = Instant::now();
        let is_large = self.turns.is_large(delivery.message());
        if delivery.delivered() > 1 {
            metrics.redelivered();
        }
        // Held until the delivery is settled.
        let mut running = None;
        let (activity, mut ended) = match read {
            Ok((activity, place)) => {
                let queued = Waiting {
                    activity: &activity,
                    place,
                    claim,
                    memory: &memory,
                };
                let running = (&mut running, metrics);
                let ended = self.work(&delivery, queued, running, span).await;
                (Some(activity), ended)
            }
            Err(error) => {
                running = Some((claim.acquire().await, metrics.turn_began()));
                (None, Ended::rejected(error))
            }
        };
        let settled = match &ended.disposition {
            Disposition::Ack => delivery.ack().await,
            Disposition::RetryAfter(pause) => delivery.hand_back(*pause).await,
            Disposition::DeadLetter(rejection) => {
                let put_aside = tokio::select! {
                    biased;
                    // In a box, for it is large and rare, and would make every turn larger.
                    settled = Box::pin(self.put_aside(delivery, activity.as_deref(), rejection)) => settled,
                    // Dropped unsettled, it comes again; a dead letter that is stored by then has the same id.
                    () = self.hand_back.cancelled() => Ok(false),
                };
                if let Ok(false) = put_aside {
                    ended.disposition = Disposition::RetryAfter(Duration::ZERO);
                }
                put_aside.map(drop)
            }
        };
        // Last, so that no count is ahead of what it counts.
        let outcome = count(metrics, &ended);
        metrics.turn_finished(outcome, began.elapsed());
        drop((running, memory));
        if let Err(error) = settled {
            // The message comes again, and BEGIN finds what was applied.
            tracing::warn!(error = %error, "a delivery could not be settled and will come again");
        }
        if let (true, Some(activity)) = (is_large, activity) {
            self.turns.let_go(activity);
        }
    }

    /// Runs the turn in its place of the conversation, as soon as it has a slot, and meanwhile tells the transport that it is
    /// being worked on. If the drain's deadline comes first, the message goes back at once.
    async fn work(
        &self,
        delivery: &I::Delivery,
        mut waiting: Waiting<'_>,
        (running, metrics): (&mut Option<Running>, &TenantMetrics),
        span: &TurnSpan,
    ) -> Ended {
        let activity = waiting.activity;
        let turn = async {
            waiting.place.reached().await;
            let (outage, tenant) = (&self.turns.outage, &activity.tenant);
            let sequence = delivery.message().sequence;
            if let Some(pause) = outage.hold(tenant, sequence) {
                return Ended::held(pause);
            }
            *running = Some((waiting.claim.acquire().await, metrics.turn_began()));
            let delivered = delivery.delivered();
            let _alone = match delivered >= SUSPECT_DELIVERY {
                true => Some(self.suspect.lock().await),
                false => None,
            };
            let memory = Some(waiting.memory);
            let ended = self
                .turns
                .run_within(activity, (delivered, delivery.stored()), span, memory)
                .await;
            if !matches!(ended.disposition, Disposition::RetryAfter(_)) {
                outage.unmet(tenant, sequence);
            }
            ended
        };
        tokio::pin!(turn);
        let mut told = Instant::now();
        loop {
            // Misses no beat from here on.
            let beat = self.beat.notified();
            if self.hand_back.is_cancelled() {
                return Ended::interrupted();
            }
            tokio::select! {
                biased;
                ended = &mut turn => return ended,
                () = beat => {}
            }
            if told.elapsed() >= self.config.progress_every / 2 {
                told = Instant::now();
                // In a box: rare, and every turn would be the larger for it.
                if let Err(error) = Box::pin(delivery.progress()).await {
                    tracing::debug!(error = %error, "no sign of progress could be sent");
                }
            }
        }
    }

    /// Puts a message aside with its reason and settles it; tells whether it is. A message is never settled before its dead
    /// letter is stored: where that is refused, it goes back.
    async fn put_aside(
        &self,
        delivery: I::Delivery,
        activity: Option<&Activity>,
        rejection: &Rejection,
    ) -> Result<bool, TransportError> {
        let message = delivery.message();
        let headers = dead_letter::headers(message, delivery.stored(), activity, rejection);
        let (turns, tenant) = (&self.turns, &message.tenant);
        if turns
            .dead_letter(tenant, &headers, &message.body)
            .await
            .is_err()
        {
            let pause = turns.outage.away_for(tenant);
            return delivery.hand_back(pause).await.map(|()| false);
        }
        say_dead_lettered(rejection);
        self.apologise(activity).await;
        delivery.ack().await.map(|()| true)
    }

    /// Tells the user, if the settings want it, under an id that makes a second copy impossible.
    async fn apologise(&self, activity: Option<&Activity>) {
        let (Some(text), Some(activity)) = (&self.config.apology, activity) else {
            return;
        };
        let (headers, body) = match apology(activity, text) {
            Ok(message) => message,
            Err(error) => return tracing::error!(error = %error, "the apology cannot be written"),
        };
        let tenant = &activity.tenant;
        let (to, publisher) = (Destination::Outbound(tenant), &self.turns.publisher);
        let publish = || publisher.publish(to, &headers, body.clone());
        let outage = &self.turns.outage;
        let sent = outage.ride_out(tenant, Part::Outbound, publish).await;
        if let Err(error) = sent {
            tracing::error!(error = %error, "the apology was not sent");
        }
    }
}

/// Tells of a message that is in the dead letters now.
fn say_dead_lettered(rejection: &Rejection) {
    let code = rejection.error.code();
    let (error, attempts) = (&rejection.error, rejection.attempts);
    if error.may_quote() {
        tracing::error!(
            code,
            attempts,
            "message dead-lettered; the dead letter says why"
        );
        tracing::debug!(%error, "why the message was dead-lettered");
    } else {
        tracing::error!(code, attempts, %error, "message dead-lettered");
    }
}

/// Counts what a turn did.
fn count(metrics: &TenantMetrics, ended: &Ended) -> telemetry::Outcome {
    for _ in 0..ended.conflicts {
        metrics.commit_conflict();
    }
    for _ in 0..ended.busy {
        metrics.lease_conflict();
    }
    metrics.replied(ended.replies);
    for _ in 0..ended.undelivered {
        metrics.dead_letter(REPLY_UNDELIVERABLE);
    }
    if let Some(Applied { resumed: true, .. }) = ended.applied {
        metrics.wait_resumed();
    }
    if let Some(bytes) = ended.applied.and_then(|applied| applied.tenant_state_bytes) {
        metrics.state_bytes(bytes);
    }
    if let Some(Applied { parked: true, .. }) = ended.applied {
        metrics.wait_parked();
    }
    match (&ended.disposition, ended.applied) {
        (Disposition::RetryAfter(_), _) => telemetry::Outcome::Retried,
        (Disposition::DeadLetter(rejection), _) => {
            metrics.dead_letter(rejection.error.code());
            telemetry::Outcome::DeadLettered
        }
        (Disposition::Ack, None) => telemetry::Outcome::Duplicate,
        (Disposition::Ack, Some(Applied { parked: true, .. })) => telemetry::Outcome::Parked,
        (Disposition::Ack, Some(_)) => telemetry::Outcome::Finished,
    }
}
