//! From a delivery to its settlement: run the turn, then do with the message what its disposition says.

use std::time::Duration;

use tokio::time::Instant;
use tracing::Level;

use super::lanes::Place;
use super::slots::{Company, Slot, SlotClaim};
use super::{Queued, Shared, dead_letter};
use crate::budget::MemoryCharge;
use crate::model::{Activity, PAYLOAD_LOG, TenantId};
use crate::ports::{Delivery, Destination, Inbound, Publisher, TransportError, TurnStore};
use crate::telemetry::{self, InFlight, TenantMetrics, TurnSpan};
use crate::turn::{
    Applied, Disposition, Ended, Part, REPLY_UNDELIVERABLE, Rejection, TurnContext, TurnError,
    TurnLease, apology,
};

/// From this delivery on a message whose workers died is suspected of killing them. Suspects run one at a time: a worker that
/// dies of one takes no attempt from the others, which come again together with it.
const SUSPECT_DELIVERY: u64 = 3;
/// A suspect that has so few attempts left runs apart from those of other tenants, too.
const LAST_ATTEMPTS: u32 = 3;

/// An activity that waits for its turn: behind others of its conversation, then for a slot.
struct Waiting<'a> {
    activity: &'a Activity,
    place: Place,
    claim: SlotClaim,
    memory: &'a MemoryCharge,
}

/// The slot of a turn that runs, and its share in the count of those.
type Running = (Slot, InFlight);

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
                running = claim
                    .acquire()
                    .await
                    .map(|slot| (slot, metrics.turn_began()));
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
                    settled = Box::pin(self.put_aside(delivery, (activity.as_deref(), ended.claimed), rejection)) => settled,
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
        let (outcome, took) = (count(metrics, &ended), began.elapsed());
        metrics.turn_finished(outcome, took);
        say_turn(&ended, outcome, took);
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
        let lease = TurnLease::default();
        let turn = async {
            waiting.place.reached().await;
            let (outage, tenant) = (&self.turns.outage, &activity.tenant);
            let sequence = delivery.message().sequence;
            if let Some(pause) = outage.hold(tenant, sequence) {
                return Ended::held(pause);
            }
            if let Some(pause) = self.turns.awaited.hold(activity) {
                return Ended::held(pause);
            }
            let delivered = delivery.delivered();
            let slot = match delivered < SUSPECT_DELIVERY {
                true => waiting.claim.acquire().await,
                // In a box, for it is rare, and would make every turn larger.
                false => Box::pin(self.suspect(activity, waiting.claim)).await,
            };
            // There is always a slot in the end: none is ever closed.
            *running = slot.map(|slot| (slot, metrics.turn_began()));
            let context = TurnContext {
                stored: delivery.stored(),
                span,
                lease: &lease,
                memory: Some(waiting.memory),
                metrics: Some(metrics),
            };
            let ended = self.turns.run_in(activity, delivered, context).await;
            if !matches!(ended.disposition, Disposition::RetryAfter(_)) {
                outage.unmet(tenant, sequence);
            }
            ended
        };
        let ended = tokio::select! {
            biased;
            ended = turn => Some(ended),
            () = self.keep_alive(delivery, activity, &lease) => None,
        };
        match ended {
            Some(ended) => ended,
            None => {
                self.turns.withdraw(activity, &lease).await;
                Ended::interrupted()
            }
        }
    }

    /// Tells the transport and the store, for as long as a turn runs, that it does. Ends when the drain's deadline comes.
    async fn keep_alive(&self, delivery: &I::Delivery, activity: &Activity, lease: &TurnLease) {
        let began = Instant::now();
        let (mut told, mut prolonged) = (began, began);
        loop {
            // Misses no beat from here on.
            let beat = self.beat.notified();
            if self.hand_back.is_cancelled() {
                return;
            }
            beat.await;
            // In boxes: rare, and every turn would be the larger for them.
            if told.elapsed() >= self.config.progress_every / 2 {
                told = Instant::now();
                if let Err(error) = Box::pin(delivery.progress()).await {
                    tracing::debug!(error = %error, "no sign of progress could be sent");
                }
            }
            if prolonged.elapsed() >= self.prolong_every() / 2 {
                prolonged = Instant::now();
                Box::pin(self.turns.prolong(activity, lease)).await;
            }
        }
    }

    /// The slot of a message that has come often. One whose workers died waits until it may run apart from others of its kind.
    async fn suspect(&self, activity: &Activity, claim: SlotClaim) -> Option<Slot> {
        let attempts = self.turns.attempts(activity).await;
        let company = match attempts.open {
            0 => Company::Any,
            _ if attempts.claimed + LAST_ATTEMPTS < self.turns.config.retry.attempts => {
                Company::NoSuspect
            }
            _ => Company::NoSuspectOfAnyTenant,
        };
        claim.acquire_in(company).await
    }

    /// Puts a message aside with its reason and settles it; tells whether it is. A message is never settled before its dead
    /// letter is stored: where that is refused, it goes back.
    async fn put_aside(
        &self,
        delivery: I::Delivery,
        (activity, claimed): (Option<&Activity>, bool),
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
        if let Some(activity) = activity {
            turns.awaited.forget(activity);
            if claimed {
                turns.end_claims(activity).await;
            }
        }
        self.say_dead_lettered(tenant, rejection);
        self.apologise(activity).await;
        delivery.ack().await.map(|()| true)
    }

    /// Tells of a message that is in the dead letters now.
    fn say_dead_lettered(&self, tenant: &TenantId, rejection: &Rejection) {
        let code = rejection.error.code();
        let (error, attempts) = (&rejection.error, rejection.attempts);
        if matches!(error, TurnError::IdReused) {
            // A provider whose ids are not unique causes one with each message.
            return match self.reused_ids.take(tenant) {
                Some(not_logged) => tracing::error!(
                    code,
                    not_logged,
                    %error,
                    "message dead-lettered; this is said once a minute"
                ),
                None => tracing::debug!(code, "message dead-lettered"),
            };
        }
        if error.may_quote() {
            tracing::error!(
                code,
                attempts,
                "message dead-lettered; the dead letter says why"
            );
            tracing::debug!(target: PAYLOAD_LOG, %error, "why the message was dead-lettered");
        } else {
            tracing::error!(code, attempts, %error, "message dead-lettered");
        }
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

/// Leaves the turn's line, where the log wants it (`log.turns`, or debug level).
fn say_turn(ended: &Ended, outcome: telemetry::Outcome, took: Duration) {
    if !tracing::enabled!(target: telemetry::TURN_LOG, Level::INFO)
        && !tracing::enabled!(Level::DEBUG)
    {
        return;
    }
    let outcome = outcome.as_str();
    let code = match &ended.disposition {
        Disposition::DeadLetter(rejection) => Some(rejection.error.code()),
        Disposition::Ack | Disposition::RetryAfter(_) => None,
    };
    let (replies, conflicts) = (ended.replies, ended.conflicts);
    let elapsed_ms = took.as_micros() as f64 / 1_000.0;
    if tracing::enabled!(target: telemetry::TURN_LOG, Level::INFO) {
        tracing::info!(target: telemetry::TURN_LOG, outcome, code, replies, conflicts, elapsed_ms, "turn");
    } else {
        tracing::debug!(
            kind = "end",
            outcome,
            code,
            replies,
            conflicts,
            elapsed_ms,
            "turn step"
        );
    }
}

/// Counts what a turn did.
fn count(metrics: &TenantMetrics, ended: &Ended) -> telemetry::Outcome {
    metrics.replied(ended.replies);
    for _ in 0..ended.undelivered {
        metrics.dead_letter(REPLY_UNDELIVERABLE);
    }
    if let Some(Applied { resumed: true, .. }) = ended.applied {
        metrics.wait_resumed();
    }
    if ended.stale_echo && ended.applied.is_some() {
        metrics.stale_echo();
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
